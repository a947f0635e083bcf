// The replica's clock: wall time that never runs back and never leaps. Follows the system's clock by slewing, so that a clock that
// is set, or jumps, neither freezes the timers nor fires them all at once (adversary's book, A32).

import type { Millis } from '../protocol/types.ts';
import { asMillis } from '../protocol/types.ts';

/** While the two clocks differ, ours runs this much faster or slower. */
const SLEW = 0.1;

export class Clock {
  readonly #wall: () => number;
  readonly #monotonic: () => number;
  #at: number;
  #monotonicAt: number;

  constructor({
    wall = () => Date.now(),
    monotonic = () => performance.now(),
  }: { wall?: () => number; monotonic?: () => number } = {}) {
    this.#wall = wall;
    this.#monotonic = monotonic;
    this.#at = wall();
    this.#monotonicAt = monotonic();
  }

  /** Whole milliseconds since 1970, never less than before. */
  now(): Millis {
    const monotonic = this.#monotonic();
    const elapsed = Math.max(0, monotonic - this.#monotonicAt);
    this.#monotonicAt = monotonic;
    const expected = this.#at + elapsed;
    const off = this.#wall() - expected;
    this.#at = expected + Math.max(-SLEW * elapsed, Math.min(SLEW * elapsed, off));
    return asMillis(Math.floor(this.#at));
  }
}
