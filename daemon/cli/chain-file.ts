// A chain in a file, for audits and archives: what `synod export` writes and `synod verify` reads. A tag of 16 bytes, the chain id, the links that lead to
// the first block's epoch, then one record for each block: the payload of a `follow-blocks` message with that block alone and its certificate
// (docs/wire.md). Read and written block by block: memory does not grow with the chain.

import { createReadStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { type Bytes, concat, equalBytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { type BlockHeader, decodeHeader } from '../../protocol/block.ts';
import { decodePayload, encodePayload, isRefusal, LINKS_MAX } from '../../protocol/codec.ts';
import type { FollowedBlock } from '../../protocol/door.ts';
import { EPOCH_LINK_BYTES_MAX } from '../../protocol/epoch/chain.ts';
import { FRAME_BYTES_MAX, type Genesis, storedParameters } from '../../protocol/genesis.ts';
import { domainTag } from '../../protocol/layout.ts';
import { asEpoch, asHeight } from '../../protocol/types.ts';
import { ChainVerifier, EpochChain, type ProvenBlock } from '../../protocol/verify.ts';
import { LeadingLinks } from '../file-links.ts';

const tag = domainTag('synod-v1:chain');
const PREFIX_BYTES = 16 + 32;
/** What a record is, in the first of the four bytes in front of it; its length in the other three. */
const SORTS = { block: 0, link: 1 } as const;
const RECORD_BYTES_MAX = { block: FRAME_BYTES_MAX, link: EPOCH_LINK_BYTES_MAX } as const;

/** Does a file with these first bytes claim to be a chain? */
export const isChainFile = (start: Bytes): boolean => equalBytes(start.subarray(0, tag.length), tag);

/** Writes beside the place and moves there when complete: a chain file is whole or absent. */
export class ChainFileWriter {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #draft: string;
  bytes = 0;

  private constructor(file: FileHandle, path: string, draft: string) {
    this.#file = file;
    this.#path = path;
    this.#draft = draft;
  }

  static async create(path: string, genesis: Genesis): Promise<ChainFileWriter> {
    const draft = `${path}.${process.pid}.partial`;
    const writer = new ChainFileWriter(await open(draft, 'wx', 0o644), path, draft);
    await writer.#write(concat(tag, genesis.chainId));
    return writer;
  }

  /** [WIRE-37] What proves the epoch of the first block: before it, in order. */
  async link(link: Bytes): Promise<void> {
    await this.#record('link', link);
  }

  async append({ headerBytes, bundles, certificate }: FollowedBlock): Promise<void> {
    if (bundles === null) throw new Error('export: a block without its body');
    const payload = encodePayload({ kind: 'follow-blocks', blocks: [{ headerBytes, bundles, certificate }] });
    await this.#record('block', payload);
  }

  async commit(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await rename(this.#draft, this.#path);
  }

  async abandon(): Promise<void> {
    await this.#file.close();
    await rm(this.#draft, { force: true });
  }

  async #record(sort: keyof typeof SORTS, bytes: Bytes): Promise<void> {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(SORTS[sort] * 2 ** 24 + bytes.length);
    await this.#write(concat(head, bytes));
  }

  async #write(bytes: Bytes): Promise<void> {
    await this.#file.writeFile(bytes);
    this.bytes += bytes.length;
  }
}

/** Codes: `chain-file-malformed`, `chain-file-other-chain`, those of links, and those of following. */
export interface ChainFileProblem {
  readonly refused: string;
  readonly problem: string;
}

/**
 * Yields what is proven, in order; the last value says why it stopped, where it stopped early.
 * @param epochs those that the file proves are added
 */
export async function* readChainFile(
  path: string,
  genesis: Genesis,
  epochs: EpochChain = new EpochChain({ genesis, crypto: native }),
): AsyncGenerator<ProvenBlock | ChainFileProblem> {
  const malformed = (problem: string): ChainFileProblem => ({ refused: 'chain-file-malformed', problem });
  // Of an epoch that is not known yet: its own limits are the verifier's to keep.
  const parameters = storedParameters(genesis.parameters);
  const context = { sha256: native.sha256, parameters };
  const links = new LeadingLinks(epochs);
  let verifier: ChainVerifier | undefined;
  let height = 0;
  for await (const record of records(path)) {
    if ('problem' in record) return yield malformed(`${record.problem} after block ${height}`);
    if (record.first) {
      if (!isChainFile(record.bytes)) return yield malformed('not a chain file');
      if (equalBytes(record.bytes.subarray(16), genesis.chainId)) continue;
      return yield {
        refused: 'chain-file-other-chain',
        problem: 'the file is of another chain than the genesis document',
      };
    }
    if (record.sort === 'link') {
      if (verifier !== undefined) return yield malformed(`a link behind block ${height}`);
      const problem = links.take(record.bytes);
      if (problem !== null) return yield problem;
      continue;
    }
    const message = decodePayload('follow-blocks', record.bytes, context);
    if (isRefusal(message)) return yield malformed(`${message.refused} ${message.field} after block ${height}`);
    const block = message.kind === 'follow-blocks' && message.blocks.length === 1 ? message.blocks[0] : undefined;
    const header = block === undefined ? undefined : decodeHeader(block.headerBytes);
    if (block === undefined || header === undefined) return yield malformed(`not one block after block ${height}`);
    // Headers alone would hold as a chain, and pass for an archive that has lost what it is kept for.
    if (block.bundles === null) return yield malformed(`a block without its body after block ${height}`);
    verifier ??= verifierFrom(epochs, header);
    const proven = verifier.feed(block);
    if ('refused' in proven) return yield { ...proven, problem: `${proven.field} at block ${header.height}` };
    height = header.height;
    yield* proven;
  }
  if (verifier === undefined) yield malformed('no block in it');
  else if (verifier.pending > 0) yield malformed(`the last ${verifier.pending} blocks have no certificate`);
}

/** From height 1 on the genesis block is the anchor; a file that begins later is anchored by its first certificate, of an epoch that is known. */
function verifierFrom(epochs: EpochChain, header: BlockHeader): ChainVerifier {
  const first = epochs.at(asEpoch(0))!; // always known
  const { parameters } = epochs.at(header.epoch) ?? first;
  const trusted = header.height <= 1 ? first.start : { height: asHeight(header.height - 1), hash: header.parent };
  const signers = epochs.signersOf(header.epoch) ?? epochs.signersOf(asEpoch(0))!; // as above
  return new ChainVerifier({ ...signers, parameters, trusted, pendingMax: LINKS_MAX, epochs });
}

type Record =
  | { readonly first: boolean; readonly sort: keyof typeof SORTS; readonly bytes: Bytes }
  | { readonly problem: string };

const sortOf = (number: number): keyof typeof SORTS | undefined =>
  number === SORTS.block ? 'block' : number === SORTS.link ? 'link' : undefined;

async function* records(path: string): AsyncGenerator<Record> {
  let held: Buffer = Buffer.alloc(0);
  let first = true;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 18 })) {
    // A stream without an encoding yields Buffers.
    held = Buffer.concat([held, chunk as Buffer]);
    for (;;) {
      if (first && held.length < PREFIX_BYTES) break;
      if (!first && held.length < 4) break;
      const start = first ? 0 : 4;
      const sort = first ? 'block' : sortOf(held[0]!); // four bytes are here
      const length = first ? PREFIX_BYTES : held.readUIntBE(1, 3);
      if (sort === undefined) return yield { problem: 'a record of no known sort' };
      if (length > RECORD_BYTES_MAX[sort]) return yield { problem: `a record of ${length} bytes` };
      if (held.length < start + length) break;
      // A copy: proven blocks must not pin the chunk.
      yield { first, sort, bytes: Uint8Array.from(held.subarray(start, start + length)) };
      held = held.subarray(start + length);
      first = false;
    }
  }
  if (held.length > 0) yield { problem: 'it ends in the middle of a record' };
}
