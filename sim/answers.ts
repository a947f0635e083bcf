// What a replica gives to peers that are behind, from its disk: as daemon/serve.ts does, without its waits.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { leafHash, nodeHash } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import {
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeCheckpointPlace,
  decodeStoredBlock,
  isRefusal,
} from '../protocol/codec.ts';
import { type Parameters, storedParameters } from '../protocol/genesis.ts';
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
  ReplicaMessage,
  StateChunk,
} from '../protocol/messages.ts';
import type { SimDisk } from './disk.ts';

export type Request = FetchBlock | FetchBlocks | FetchCheckpoint | FetchState;
export type Answer = BlockData | Blocks | CheckpointProof | StateChunk;

const BLOCKS_PER_ANSWER_MAX = 21;
const { sha256 } = native;

export function isRequest(message: ReplicaMessage): message is Request {
  const { kind } = message;
  return kind === 'fetch-block' || kind === 'fetch-blocks' || kind === 'fetch-checkpoint' || kind === 'fetch-state';
}

/** What it wrote decodes: anything else is a bug. */
function known<T extends object>(value: T): Exclude<T, { readonly refused: string }> {
  if (isRefusal(value)) throw new Error(`the log holds something malformed: ${JSON.stringify(value)}`);
  return value as Exclude<T, { readonly refused: string }>; // not a refusal, as just seen
}

export class Answers {
  readonly #disk: SimDisk;
  readonly #parameters: Parameters;
  /** The state's tree at the checkpoint that was asked for last, level by level: a transfer asks for all chunks of one. */
  #tree: { readonly height: number; readonly levels: readonly (readonly Bytes[])[] } | null = null;

  constructor(disk: SimDisk, parameters: Parameters) {
    this.#disk = disk;
    this.#parameters = storedParameters(parameters);
  }

  /** Null: this replica does not have it. */
  to(request: Request): Answer | null {
    switch (request.kind) {
      case 'fetch-block': {
        const bytes = this.#disk.block(request.height, request.hash);
        return bytes === undefined ? null : { kind: 'block-data', block: this.#decode(bytes) };
      }
      case 'fetch-blocks':
        return this.#blocks(request);
      case 'fetch-checkpoint':
        return this.#checkpoint();
      case 'fetch-state':
        return this.#chunk(request);
    }
  }

  #blocks({ from, to }: FetchBlocks): Blocks {
    const blocks: CertifiedBlock[] = [];
    for (let height: number = from; height <= Math.min(to, from + BLOCKS_PER_ANSWER_MAX - 1); height++) {
      const decided = this.#disk.decided.get(height);
      const bytes = decided && this.#disk.block(height, decided.hash);
      if (decided === undefined || bytes === undefined) break;
      const certificate = decided.certificate === null ? null : known(decodeCertificate(decided.certificate));
      const block = this.#decode(bytes);
      if (blocks.length > 0 && block.header.epoch !== blocks[0]!.block.header.epoch) break; // EPO-14
      blocks.push({ block, certificate });
    }
    const last = blocks.findLastIndex((entry) => entry.certificate !== null);
    return { kind: 'blocks', blocks: blocks.slice(0, last + 1), tail: null };
  }

  #checkpoint(): CheckpointProof | null {
    const stored = this.#disk.checkpoints.get(this.#disk.stable);
    if (stored === undefined || stored.certificate === null) return null;
    const headerBytes = this.#disk.headerAt(this.#disk.stable);
    if (headerBytes.length === 0) return null; // its block is not decided here yet
    return {
      kind: 'checkpoint-proof',
      checkpoint: known(decodeCheckpointCertificate(stored.certificate)),
      headerBytes,
    };
  }

  #chunk({ height, chunk }: FetchState): StateChunk | null {
    const stored = this.#disk.checkpoints.get(height);
    if (chunk >= STATE_CHUNKS || stored === undefined || stored.certificate === null) return null;
    if (this.#tree?.height !== height) this.#tree = { height, levels: this.#levels(height) };
    const { levels } = this.#tree;
    const root = levels.at(-1)![0]!; // a tree of 257 leaves
    if (!equalBytes(root, known(decodeCheckpointPlace(stored.place)).stateDigest)) return null;
    const proof: Bytes[] = [];
    for (const [depth, level] of levels.entries()) {
      const sibling = level[(chunk >> depth) ^ 1];
      if (sibling !== undefined && level.length > 1) proof.push(sibling);
    }
    return { kind: 'state-chunk', height, chunk, bytes: this.#disk.chunkAt(height, chunk), proof };
  }

  /** crypto/merkle.ts has the same for one proof; here all of them are wanted. */
  #levels(height: number): Bytes[][] {
    const leaves = Array.from({ length: STATE_CHUNKS }, (_, chunk) =>
      leafHash(sha256, this.#disk.chunkAt(height, chunk)),
    );
    const levels = [leaves];
    for (let level = leaves; level.length > 1; ) {
      const above: Bytes[] = [];
      for (let i = 0; i < level.length; i += 2) {
        const right = level[i + 1];
        above.push(right === undefined ? level[i]! : nodeHash(sha256, level[i]!, right));
      }
      levels.push(above);
      level = above;
    }
    return levels;
  }

  #decode(bytes: BlockBytes): Block {
    return known(decodeStoredBlock(bytes, { sha256, parameters: this.#parameters }));
  }
}
