// Blocks in memory: the newest decided ones, so that followers at the head never touch the disk, and the undecided ones.

import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import type { StoredBlock } from '../protocol/log.ts';
import type { Hash } from '../protocol/types.ts';
import { bodyHashIn, type HeaderRecord } from './layout.ts';

/** The newest decided blocks, up to a number of bytes. */
export class RecentBlocks {
  readonly #bytesMax: number;
  readonly #blocks = new Map<number, StoredBlock>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get(height: number): StoredBlock | undefined {
    return this.#blocks.get(height);
  }

  /** Blocks arrive by rising height, so the first in the map is the oldest. A block known already is replaced in its place. */
  set(block: StoredBlock): void {
    const known = this.#blocks.get(block.height);
    if (known !== undefined) this.#bytes -= sizeOf(known);
    this.#blocks.set(block.height, block);
    this.#bytes += sizeOf(block);
    for (const [height, oldest] of this.#blocks) {
      if (this.#bytes <= this.#bytesMax) break;
      this.#blocks.delete(height);
      this.#bytes -= sizeOf(oldest);
    }
  }

  clear(): void {
    this.#blocks.clear();
    this.#bytes = 0;
  }
}

export interface PendingBlock extends HeaderRecord {
  readonly hash: Hash;
  /** Null: on disk only, since the budget was used up. */
  readonly body: Bytes | null;
}

/** Blocks that are written and not decided, by height and hash. */
export class PendingBlocks {
  readonly #bytesMax: number;
  readonly #heights = new Map<number, Map<string, PendingBlock>>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get(height: number, hash: Bytes): PendingBlock | undefined {
    return this.#heights.get(height)?.get(toHex(hash));
  }

  /** A block of this height that has this body. */
  withBody(height: number, bodyHash: Hash): PendingBlock | undefined {
    const siblings = this.#heights.get(height)?.values() ?? [];
    return [...siblings].find(({ header }) => equalBytes(bodyHashIn(header), bodyHash));
  }

  add(height: number, { hash, header, body, bodyBytes, bodyCrc }: PendingBlock): void {
    let blocks = this.#heights.get(height);
    if (blocks === undefined) {
      blocks = new Map();
      this.#heights.set(height, blocks);
    }
    const keep = body !== null && this.#bytes + body.length <= this.#bytesMax;
    if (keep) this.#bytes += body.length;
    blocks.set(toHex(hash), { hash, header: unpinned(header), body: keep ? unpinned(body) : null, bodyBytes, bodyCrc });
  }

  heights(): readonly number[] {
    return [...this.#heights.keys()];
  }

  /** Forgets the blocks of a height and returns them. */
  take(height: number): readonly PendingBlock[] {
    const blocks = [...(this.#heights.get(height)?.values() ?? [])];
    this.#heights.delete(height);
    for (const block of blocks) this.#bytes -= block.body?.length ?? 0;
    return blocks;
  }

  /** Forgets every block at or below a height. */
  dropTo(height: number): void {
    for (const known of [...this.#heights.keys()]) if (known <= height) this.take(known);
  }
}

/** Bytes that keep alive no more than twice their own size: what came in a frame is often a small slice of it. */
function unpinned(bytes: Bytes): Bytes {
  return bytes.buffer.byteLength > 2 * bytes.length + 64 ? Uint8Array.from(bytes) : bytes;
}

function sizeOf(block: StoredBlock): number {
  return block.bytes.header.length + block.bytes.body.length + (block.certificate?.length ?? 0) + 100;
}
