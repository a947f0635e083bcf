// Frames of one lane that wait for room in the socket, bounded in number and in bytes. The oldest goes first when it is full: what
// is newest is what the peer needs to follow, and the core says again what matters.

import type { Bytes } from '../../crypto/bytes.ts';

export class FrameQueue {
  readonly #framesMax: number;
  readonly #bytesMax: number;
  /** The live part begins at #head; the dead part is cut off when it is the larger one. */
  #frames: (Bytes | undefined)[] = [];
  #head = 0;
  #bytes = 0;

  constructor(limits: { readonly framesMax: number; readonly bytesMax: number }) {
    this.#framesMax = limits.framesMax;
    this.#bytesMax = limits.bytesMax;
  }

  get size(): number {
    return this.#frames.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Returns how many frames were dropped to keep the bounds; the new one itself if it alone is beyond them. */
  push(frame: Bytes): number {
    this.#frames.push(frame);
    this.#bytes += frame.length;
    let dropped = 0;
    while (this.size > this.#framesMax || this.#bytes > this.#bytesMax) {
      this.shift();
      dropped += 1;
    }
    return dropped;
  }

  shift(): Bytes | undefined {
    const frame = this.#frames[this.#head];
    if (frame === undefined) return undefined;
    this.#frames[this.#head] = undefined;
    this.#head += 1;
    this.#bytes -= frame.length;
    if (this.#head > 64 && this.#head * 2 > this.#frames.length) {
      this.#frames = this.#frames.slice(this.#head);
      this.#head = 0;
    }
    return frame;
  }

  /** Empties it; returns how many frames that were. */
  clear(): number {
    const dropped = this.size;
    this.#frames = [];
    this.#head = 0;
    this.#bytes = 0;
    return dropped;
  }
}
