// The GET routes about the log: blocks, headers, and the receipts of decided bundles.

import { fromHex, toHex } from '../../crypto/bytes.ts';
import { blockHash, decodeHeader } from '../../protocol/block.ts';
import type { ReadRefusal } from '../../protocol/core.ts';
import { asHash, asHeight } from '../../protocol/types.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import type { LogReader } from '../gateway/log-reader.ts';
import type { ReceiptDesk } from '../gateway/receipt-desk.ts';
import type { ReplicaPort } from '../ports.ts';
import { type Exchange, integer, isFault, json, type Reply, word } from './exchange.ts';
import { blockForm, certificateForm, committedForm, headerForm, receiptsFit } from './forms.ts';
import { type Problem, problem } from './problem.ts';

const pointProblems: Readonly<Record<ReadRefusal, string>> = {
  'reads-unsupported':
    'a PBFT chain, an auxiliary and an observer have no read points: take the heads of a quorum, or receipts',
  'reads-full': 'too many reads wait here',
  'read-unconfirmed': 'no leader was confirmed in time, or this replica did not get so far',
};
const headersMax = 256;
const headersDefault = 32;
const headersBytesMax = 4 << 20;
/** Blocks and receipts that are read and rendered at once: each may be a few megabytes of JSON. */
const bulkMax = 8;

export class Reads {
  readonly #replica: ReplicaPort;
  readonly #reader: LogReader;
  readonly #desk: ReceiptDesk;
  readonly #epochs: EpochChain;
  #bulk = 0;

  constructor(options: {
    readonly replica: ReplicaPort;
    readonly reader: LogReader;
    readonly desk: ReceiptDesk;
    readonly epochs: EpochChain;
  }) {
    this.#replica = options.replica;
    this.#reader = options.reader;
    this.#desk = options.desk;
    this.#epochs = options.epochs;
  }

  block({ path, query }: Exchange): Promise<Reply | Problem> {
    return this.#inBulk(async () => {
      const height = integer(path.get('height'), { name: 'height', min: 1, max: Number.MAX_SAFE_INTEGER, fallback: 0 });
      const encoding = word(query.get('encoding'), { name: 'encoding', words: ['hex', 'base64'] });
      if (isFault(height)) return problem('path-invalid', 'a height is an integer from 1', { field: 'height' });
      if (isFault(encoding)) return encoding;
      if (height < this.#reader.lowest())
        return problem('block-pruned', `the lowest block that is kept is ${this.#reader.lowest()}`, {
          field: 'height',
        });
      const chain = await this.#desk.chain(asHeight(height));
      if (chain !== undefined) return json(200, blockForm(chain, encoding));
      return problem('block-not-found', `the last decided block is ${this.#replica.head().height}`, {
        field: 'height',
      });
    });
  }

  async headers({ query }: Exchange): Promise<Reply | Problem> {
    const head = this.#reader.head();
    const lowest = this.#reader.lowest();
    const limit = integer(query.get('limit'), { name: 'limit', min: 1, max: headersMax, fallback: headersDefault });
    if (isFault(limit)) return limit;
    const fallback = Math.max(1, lowest, head - limit + 1);
    const from = integer(query.get('from'), { name: 'from', min: 1, max: Number.MAX_SAFE_INTEGER, fallback });
    if (isFault(from)) return from;
    if (from < lowest) return problem('block-pruned', `the lowest block that is kept is ${lowest}`, { field: 'from' });
    const to = asHeight(Math.min(head, from + limit - 1));
    const found =
      from > to
        ? []
        : await this.#reader.followed({
            from: asHeight(from),
            to,
            bytesMax: headersBytesMax,
            blocksMax: limit,
            headersOnly: true,
          });
    const { sha256 } = this.#replica.crypto;
    const blocks = found.flatMap(({ headerBytes, certificate }) => {
      const header = decodeHeader(headerBytes);
      if (header === undefined) return [];
      return {
        header: headerForm(header, blockHash(sha256, headerBytes)),
        headerBytes: toHex(headerBytes),
        certificate: certificate === null ? null : certificateForm(certificate),
      };
    });
    return json(200, { blocks, next: from + blocks.length, lowest, head });
  }

  /** [CFT-RP-1] */
  async readPoint(): Promise<Reply | Problem> {
    const point = await this.#replica.readPoint();
    if ('height' in point) return json(200, { height: point.height });
    const { refused } = point;
    return problem(refused, pointProblems[refused], refused === 'reads-unsupported' ? {} : { retryAfterSeconds: 1 });
  }

  bundle({ path, query }: Exchange): Promise<Reply | Problem> {
    return this.#inBulk(async () => {
      const digest = fromHex(path.get('digest') ?? '');
      if (digest?.length !== 32)
        return problem('path-invalid', 'a digest is 64 characters of hex', { field: 'digest' });
      const receipts = word(query.get('receipts'), { name: 'receipts', words: ['each', 'none'] });
      if (isFault(receipts)) return receipts;
      const delivered = await this.#desk.find(asHash(digest));
      if (delivered === null) return problem('bundle-not-found', 'not decided, or no longer kept', { field: 'digest' });
      const all = delivered.receipt.transactionCount;
      const first = integer(query.get('first'), { name: 'first', min: 0, max: all - 1, fallback: 0 });
      if (isFault(first)) return first;
      const count = integer(query.get('count'), { name: 'count', min: 1, max: all - first, fallback: all - first });
      if (isFault(count)) return count;
      const withReceipts = receipts !== 'none';
      if (withReceipts && !receiptsFit(delivered.receipt.certificate.epoch, count, this.#epochs))
        return problem('query-invalid', 'so many receipts are too large for one answer', { field: 'count' });
      return json(200, committedForm(delivered, { first, count }, withReceipts ? this.#epochs : null));
    });
  }

  async #inBulk(answer: () => Promise<Reply | Problem>): Promise<Reply | Problem> {
    if (this.#bulk >= bulkMax) return problem('busy', 'too many blocks are being read', { retryAfterSeconds: 1 });
    this.#bulk += 1;
    try {
      return await answer();
    } finally {
      this.#bulk -= 1;
    }
  }
}
