// The last decided blocks, once for all streams, and the last frames made of them: followers at the head share both, so one more
// of them costs no read, no encoding and no signature.

import type { Bytes } from '../../crypto/bytes.ts';
import { HEADER_BYTES } from '../../protocol/block.ts';
import { bodyBytes, certificateBytesMax } from '../../protocol/codec.ts';
import type { Decided } from '../../protocol/core.ts';
import type { Height } from '../../protocol/types.ts';

/** Frames kept; followers at the head ask for the same one or two. */
const framesMax = 8;

export interface RangeWanted {
  readonly from: Height;
  /** Included. */
  readonly to: Height;
  readonly bytesMax: number;
  readonly blocksMax: number;
}

interface Kept {
  readonly decided: Decided;
  /** As it lies in a frame, at most. */
  readonly bytes: number;
}

export class RecentBlocks {
  readonly #blocksMax: number;
  readonly #bytesMax: number;
  /** Rising heights without a gap; the oldest is dropped first. */
  #blocks: Kept[] = [];
  #bytes = 0;
  readonly #frames = new Map<string, Bytes>();

  constructor(options: { readonly blocksMax: number; readonly bytesMax: number }) {
    this.#blocksMax = options.blocksMax;
    this.#bytesMax = options.bytesMax;
  }

  push(blocks: readonly Decided[]): void {
    for (const decided of blocks) {
      const last = this.#blocks.at(-1);
      // A replica that took a checkpoint from its peers goes on above a gap.
      if (last !== undefined && decided.block.header.height !== last.decided.block.header.height + 1) this.#clear();
      const bytes = sizeOf(decided);
      this.#blocks.push({ decided, bytes });
      this.#bytes += bytes;
    }
    let drop = 0;
    while (
      this.#blocks.length - drop > this.#blocksMax ||
      (this.#bytes > this.#bytesMax && drop < this.#blocks.length)
    ) {
      this.#bytes -= this.#blocks[drop]!.bytes;
      drop += 1;
    }
    if (drop > 0) this.#blocks = this.#blocks.slice(drop);
  }

  /** The first of the wanted blocks, at least one; undefined: `from` is not here, ask the log. */
  range({ from, to, bytesMax, blocksMax }: RangeWanted): readonly Decided[] | undefined {
    const first = this.#blocks[0]?.decided.block.header.height;
    if (first === undefined || from < first || from >= first + this.#blocks.length) return undefined;
    const out: Decided[] = [];
    let bytes = 0;
    for (let i = from - first; i < this.#blocks.length && out.length < blocksMax; i++) {
      const { decided, bytes: size } = this.#blocks[i]!;
      if (decided.block.header.height > to) break;
      bytes += size;
      if (out.length > 0 && bytes > bytesMax) break;
      out.push(decided);
    }
    return out;
  }

  frame(key: string, make: () => Bytes): Bytes {
    const kept = this.#frames.get(key);
    if (kept !== undefined) return kept;
    const made = make();
    this.#frames.set(key, made);
    for (const oldest of this.#frames.keys()) {
      if (this.#frames.size <= framesMax) break;
      this.#frames.delete(oldest);
    }
    return made;
  }

  /** They were sealed with a key that may be replaced. */
  dropFrames(): void {
    this.#frames.clear();
  }

  #clear(): void {
    this.#blocks = [];
    this.#bytes = 0;
    this.#frames.clear();
  }
}

function sizeOf({ block, certificate }: Decided): number {
  return (
    HEADER_BYTES +
    8 +
    bodyBytes(block.bundles) +
    (certificate === null ? 1 : certificateBytesMax(certificate.signatures.length))
  );
}
