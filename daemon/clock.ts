// The replica's two clocks (STALL-5). Timers run by the monotonic one, which nobody can set. The wall is for the time in blocks; it is
// followed by slewing, so that one that is set, or jumps, never leaps here (adversary's book, A32).

import type { Millis } from '../protocol/types.ts';
import { asMillis } from '../protocol/types.ts';

/** While the wall differs from what this clock takes for it, ours runs this much faster or slower. */
const SLEW = 0.1;

export class Clock {
  readonly #readWall: () => number;
  readonly #monotonic: () => number;
  readonly #began: number;
  readonly #monotonicBegan: number;
  #wallAt: number;
  #seenAt: number;

  constructor({
    wall = () => Date.now(),
    monotonic = () => performance.now(),
  }: { wall?: () => number; monotonic?: () => number } = {}) {
    this.#readWall = wall;
    this.#monotonic = monotonic;
    this.#began = wall();
    this.#monotonicBegan = monotonic();
    this.#wallAt = this.#began;
    this.#seenAt = this.#monotonicBegan;
  }

  /** Whole milliseconds, never less than before, at the pace of the monotonic clock; since 1970 by the wall as it stood at the start. */
  now(): Millis {
    return asMillis(Math.floor(this.#began + this.#monotonic() - this.#monotonicBegan));
  }

  /**
   * How far the wall, followed without a leap, is ahead of `now`, and how far it still is from there, in whole milliseconds; negative: behind. What is left is
   * more than a moment's difference only after somebody has set it.
   */
  wall(): { readonly aheadMs: number; readonly leftMs: number } {
    const monotonic = this.#monotonic();
    const elapsed = Math.max(0, monotonic - this.#seenAt);
    this.#seenAt = monotonic;
    const expected = this.#wallAt + elapsed;
    const off = this.#readWall() - expected;
    const followed = Math.max(-SLEW * elapsed, Math.min(SLEW * elapsed, off));
    this.#wallAt = expected + followed;
    const aheadMs = Math.round(this.#wallAt - (this.#began + monotonic - this.#monotonicBegan));
    return { aheadMs, leftMs: Math.round(off - followed) };
  }
}
