// What this replica gives to peers that are behind, read from the log. It needs nothing of the core: every answer carries its proof.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { inclusionProof, leafHash, merkleRoot } from '../crypto/merkle.ts';
import type { Block, Sha256 } from '../protocol/block.ts';
import type { WireContext } from '../protocol/codec.ts';
import {
  certifiedBlockBytes,
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeCheckpointPlace,
  decodeStoredBlock,
  isRefusal,
  LINKS_MAX,
  PAYLOAD_BYTES_MAX,
} from '../protocol/codec.ts';
import { STATE_CHUNKS } from '../protocol/ledger.ts';
import type { BlockBytes } from '../protocol/log.ts';
import type {
  BlockData,
  Blocks,
  CertifiedBlock,
  CheckpointProof,
  FetchBlock,
  FetchBlocks,
  FetchCheckpoint,
  FetchState,
  StateChunk,
} from '../protocol/messages.ts';
import type { Hash, Height } from '../protocol/types.ts';
import { asHeight } from '../protocol/types.ts';
import type { LogStore } from '../storage/log-store.ts';

export type Request = FetchBlock | FetchBlocks | FetchCheckpoint | FetchState;
export type Answer = BlockData | Blocks | CheckpointProof | StateChunk;

/** Blocks in one answer; the frame is the tighter bound for all but tiny ones. */
const BLOCKS_PER_ANSWER_MAX = 256;
/** What the headers and the certificate of a tail may take. */
const TAIL_BYTES_MAX = 32 << 10;

export class Server {
  readonly #log: LogStore;
  readonly #sha256: Sha256;
  readonly #wire: WireContext;
  /** Leaf hashes of the state at the checkpoints that were asked for last: a transfer asks for all chunks of one. */
  readonly #leaves = new Map<Height, Promise<readonly Bytes[] | null>>();

  constructor({ log, sha256, wire }: { log: LogStore; sha256: Sha256; wire: WireContext }) {
    this.#log = log;
    this.#sha256 = sha256;
    this.#wire = wire;
  }

  /** The answer, or null where this replica does not have what is asked for. Rejects only where the log does. */
  async answer(request: Request): Promise<Answer | null> {
    switch (request.kind) {
      case 'fetch-blocks':
        return this.#blocks(request);
      case 'fetch-block': {
        const bytes = await this.#log.readBlock(request.height, request.hash);
        return bytes === undefined ? null : { kind: 'block-data', block: this.#decode(bytes) };
      }
      case 'fetch-checkpoint':
        return this.#checkpoint();
      case 'fetch-state':
        return this.#chunk(request);
    }
  }

  async #blocks({ from, to }: FetchBlocks): Promise<Blocks> {
    const last = asHeight(Math.min(to, from + BLOCKS_PER_ANSWER_MAX - 1));
    const range = await this.#log.readDecidedRange({
      from,
      to: last,
      bytesMax: PAYLOAD_BYTES_MAX,
      toCertificate: true,
    });
    const blocks: CertifiedBlock[] = [];
    let bytes = 16; // the list's own header
    for (const stored of range.blocks) {
      const certificate = stored.certificate === null ? null : decodeCertificate(stored.certificate);
      if (certificate !== null && isRefusal(certificate))
        throw new Error(`the log holds a malformed certificate at ${stored.height}`);
      const entry: CertifiedBlock = { block: this.#decode(stored.bytes), certificate };
      // [EPO-14] They are checked by one epoch's members.
      if (blocks.length > 0 && entry.block.header.epoch !== blocks[0]!.block.header.epoch) break;
      bytes += certifiedBlockBytes(entry);
      if (bytes > PAYLOAD_BYTES_MAX) break;
      blocks.push(entry);
    }
    const certified = blocks.findLastIndex((entry) => entry.certificate !== null);
    if (certified >= 0 || blocks.length === 0)
      return { kind: 'blocks', blocks: blocks.slice(0, certified + 1), tail: null };
    return this.#withTail(blocks);
  }

  /** No block that fits has a certificate of its own: as many as leave room for the headers up to the one that has. */
  async #withTail(blocks: CertifiedBlock[]): Promise<Blocks> {
    let bytes = blocks.reduce((sum, entry) => sum + certifiedBlockBytes(entry), TAIL_BYTES_MAX);
    while (blocks.length > 1 && bytes > PAYLOAD_BYTES_MAX) bytes -= certifiedBlockBytes(blocks.pop()!); // there is one more
    const last = blocks.at(-1)!; // never emptied
    const from = asHeight(last.block.header.height + 1);
    const to = asHeight(last.block.header.height + LINKS_MAX);
    const { blocks: above } = await this.#log.readDecidedRange({
      from,
      to,
      bytesMax: PAYLOAD_BYTES_MAX,
      headersOnly: true,
    });
    const end = above.findIndex((stored) => stored.certificate !== null);
    const stored = above[end]?.certificate ?? null;
    const certificate = stored === null ? null : decodeCertificate(stored);
    if (certificate === null || isRefusal(certificate)) return { kind: 'blocks', blocks: [], tail: null };
    return {
      kind: 'blocks',
      blocks,
      tail: { links: above.slice(0, end + 1).map((each) => each.bytes.header), certificate },
    };
  }

  async #checkpoint(): Promise<CheckpointProof | null> {
    const stored = await this.#log.readCheckpoint();
    if (stored === undefined || stored.certificate === null || stored.header === null) return null;
    const checkpoint = decodeCheckpointCertificate(stored.certificate);
    if (isRefusal(checkpoint)) throw new Error(`the log holds a malformed checkpoint at ${stored.height}`);
    return { kind: 'checkpoint-proof', checkpoint, headerBytes: stored.header };
  }

  async #chunk({ height, chunk }: FetchState): Promise<StateChunk | null> {
    if (chunk >= STATE_CHUNKS) return null;
    const checkpoint = await this.#log.readCheckpoint(height);
    if (checkpoint?.certificate == null) return null;
    const place = decodeCheckpointPlace(checkpoint.place);
    if (isRefusal(place)) throw new Error(`the log holds a malformed checkpoint at ${height}`);
    const leaves = await this.#leavesAt(height, place.stateDigest);
    const bytes = await this.#bytes(height, chunk);
    if (leaves === null || !equalBytes(leafHash(this.#sha256, bytes), leaves[chunk]!)) return null; // chunk < STATE_CHUNKS
    return { kind: 'state-chunk', height, chunk, bytes, proof: inclusionProof(this.#sha256, leaves, chunk) };
  }

  #leavesAt(height: Height, digest: Hash): Promise<readonly Bytes[] | null> {
    let leaves = this.#leaves.get(height);
    if (leaves === undefined) {
      leaves = this.#hashState(height, digest);
      this.#leaves.set(height, leaves);
      // Only the last two stable checkpoints are whole (LOG-9).
      for (const older of [...this.#leaves.keys()].slice(0, -2)) this.#leaves.delete(older);
    }
    return leaves;
  }

  /** Null: a newer checkpoint became stable, and the log gave up what this one needs while it was being read. */
  async #hashState(height: Height, digest: Hash): Promise<readonly Bytes[] | null> {
    const leaves: Bytes[] = [];
    for (let i = 0; i < STATE_CHUNKS; i++) leaves.push(leafHash(this.#sha256, await this.#bytes(height, i)));
    return equalBytes(merkleRoot(this.#sha256, leaves), digest) ? leaves : null;
  }

  /** A chunk that was never written is empty. */
  async #bytes(height: Height, chunk: number): Promise<Bytes> {
    return (await this.#log.readStateChunk(height, chunk)) ?? new Uint8Array(0);
  }

  #decode(bytes: BlockBytes): Block {
    const block = decodeStoredBlock(bytes, this.#wire);
    if (isRefusal(block)) throw new Error(`the log holds a malformed block: ${block.refused} ${block.field}`);
    return block;
  }
}
