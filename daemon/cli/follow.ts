// `synod follow`: the decided blocks as they come, verified, in order, each once, and from where it stopped the last time.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import type { FollowedBlock } from '../../client/index.ts';
import { toBase64 } from '../../crypto/base64.ts';
import { type Bytes, equalBytes, fromHex, toHex } from '../../crypto/bytes.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { withClient } from './clients.ts';
import { Complaint, EXIT } from './errors.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { wholeNumber } from './options.ts';
import { ReaderGone, writeLine } from './output.ts';

type From = 'oldest' | 'newest' | number;

interface Options extends NetworkOptions {
  readonly from?: From;
  readonly to?: number;
  readonly headersOnly?: true;
  readonly json?: true;
  readonly state?: string;
}

/** The place is written this often; a crash may repeat what was printed since. */
const saveMs = 200;
const previewCharsMax = 96;

export function followCommand(): Command {
  const command = new Command('follow')
    .description('print decided blocks as they come, each once')
    .option('--from <place>', 'oldest, newest or a height (default: newest)', parseFrom)
    .option('--to <height>', 'end there (default: go on for ever)', wholeNumber(1))
    .option('--headers-only', 'without transactions')
    .option('--json', 'one JSON object a line, transactions in base64')
    .option('--state <file>', 'remember the last block there, and go on after it the next time')
    .addHelpText(
      'after',
      `
Every block is proved by a quorum's certificate before it is printed, whichever replica it comes from.

Examples:
  $ synod follow --network net
  $ synod follow --network net --from oldest --json | jq .height
  $ synod follow --network net --from oldest --state ledger.place --json >> ledger.log`,
    );
  return addNetworkOptions(command).action(follow);
}

function parseFrom(text: string): From {
  if (text === 'oldest' || text === 'newest') return text;
  const height = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(height) && height >= 1) return height;
  throw new InvalidArgumentError('oldest, newest or a height from 1.');
}

async function follow(options: Options): Promise<void> {
  const network = findNetwork(options);
  const place = options.state === undefined ? null : readPlace(options.state, network.genesis);
  const from: From = place === null ? (options.from ?? 'newest') : place.height + 1;
  const { to } = options;
  if (to !== undefined && typeof from === 'number' && from > to) return;
  const saver = new PlaceSaver(options.state, network.genesis);
  try {
    await withClient({ network }, async (client) => {
      let last = place;
      const request = { from, headersOnly: options.headersOnly === true, ...(to === undefined ? {} : { to }) };
      for await (const block of client.follow(request)) {
        if (last?.height === block.header.height - 1 && !equalBytes(block.header.parent, last.hash))
          throw forked(last.height);
        await writeLine(options.json === true ? jsonOf(block, client.epochs) : textOf(block, client.epochs));
        last = { height: block.header.height, hash: block.hash };
        saver.note(last);
      }
    });
  } catch (error) {
    // Ctrl-C and a reader that left are the usual ends of an endless stream.
    if (!(error instanceof ReaderGone) && !(error instanceof Complaint && error.exit === EXIT.interrupted)) throw error;
    saver.save();
    if (error instanceof Complaint && to !== undefined) throw error;
  }
  saver.save();
}

function forked(height: number): Complaint {
  return new Complaint({
    code: 'state-other-history',
    sentence: `the network's history differs from the one remembered at height ${height}`,
    remedy: 'Either the state file is of another network, or more than f replicas are faulty. Keep both, and ask.',
    exit: EXIT.notProved,
  });
}

interface Place {
  readonly height: number;
  readonly hash: Bytes;
}

const placeSchema = z.strictObject({
  synod: z.literal('follow-state'),
  chainId: z.string(),
  height: z.int().min(0),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
});

function readPlace(file: string, genesis: Genesis): Place | null {
  if (!existsSync(file)) return null;
  const refuse = (problem: string) =>
    new Complaint({
      code: 'state-invalid',
      sentence: `${file}: ${problem}`,
      remedy: 'Give the file of this network.',
      exit: EXIT.usage,
    });
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw refuse('not a state file of `synod follow`');
  }
  const parsed = placeSchema.safeParse(json);
  const hash = parsed.success ? fromHex(parsed.data.hash) : undefined;
  if (!parsed.success || hash === undefined) throw refuse('not a state file of `synod follow`');
  if (parsed.data.chainId !== toHex(genesis.chainId)) throw refuse('the state of another network');
  return { height: parsed.data.height, hash };
}

class PlaceSaver {
  readonly #file: string | undefined;
  readonly #chainId: string;
  #unsaved: Place | null = null;
  #savedAt = Number.NEGATIVE_INFINITY;

  constructor(file: string | undefined, genesis: Genesis) {
    this.#file = file;
    this.#chainId = toHex(genesis.chainId);
  }

  note(place: Place): void {
    this.#unsaved = place;
    if (performance.now() - this.#savedAt >= saveMs) this.save();
  }

  save(): void {
    if (this.#file === undefined || this.#unsaved === null) return;
    const { height, hash } = this.#unsaved;
    const draft = `${this.#file}.${process.pid}.new`;
    writeFileSync(
      draft,
      `${JSON.stringify({ synod: 'follow-state', chainId: this.#chainId, height, hash: toHex(hash) })}\n`,
    );
    renameSync(draft, this.#file);
    this.#unsaved = null;
    this.#savedAt = performance.now();
  }
}

/** A replica's number is good for one epoch; that of a proven block is known. */
const proposerOf = ({ header }: FollowedBlock, epochs: EpochChain): string | undefined =>
  epochs.at(header.epoch)?.members[header.proposer]?.name;

function jsonOf(block: FollowedBlock, epochs: EpochChain): string {
  const { header, hash, bundles } = block;
  return JSON.stringify({
    height: header.height,
    time: header.time,
    hash: toHex(hash),
    parent: toHex(header.parent),
    proposer: proposerOf(block, epochs) ?? header.proposer,
    epoch: header.epoch,
    transactionTotal: header.transactionTotal,
    transactionCount: header.transactionCount,
    bundles:
      bundles?.map(({ client, session, sequence, digest, transactions }) => ({
        client: toHex(client),
        session,
        sequence,
        digest: toHex(digest),
        transactions: transactions.map(toBase64),
      })) ?? null,
  });
}

function textOf(block: FollowedBlock, epochs: EpochChain): string {
  const { header, hash, bundles } = block;
  const proposer = proposerOf(block, epochs) ?? String(header.proposer);
  const head = `${header.height}  ${new Date(header.time).toISOString()}  ${proposer}  ${header.transactionCount} tx  ${toHex(hash)}`;
  const transactions = bundles?.flatMap((bundle) => bundle.transactions) ?? [];
  return [head, ...transactions.map((transaction, index) => `  ${index}  ${preview(transaction)}`)].join('\n');
}

/** Printable text as it is, anything else as hex: a transaction must not steer the terminal. */
function preview(transaction: Bytes): string {
  const text = new TextDecoder().decode(transaction.subarray(0, previewCharsMax * 4)).trimEnd();
  const isText = /^[^\p{C}\uFFFD]*$/u.test(text);
  const shown = isText ? text : toHex(transaction.subarray(0, previewCharsMax / 2));
  const isCut = isText
    ? text.length > previewCharsMax || transaction.length > previewCharsMax * 4
    : transaction.length > previewCharsMax / 2;
  return isCut ? `${shown.slice(0, previewCharsMax)}... (${transaction.length} bytes)` : shown;
}
