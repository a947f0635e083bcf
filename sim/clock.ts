// The clock of one replica: it may run fast or slow, and its wall may be set. What the replica sees of that follows daemon/clock.ts: time
// never runs back and never leaps, it is slewed by a tenth at most.

import type { Millis } from '../protocol/types.ts';
import { asMillis } from '../protocol/types.ts';
import type { Timeline } from './timeline.ts';

/** As in daemon/clock.ts. */
const SLEW = 0.1;

export class SimClock {
  readonly #timeline: Timeline;
  /** How fast it runs: 1 is right, 1.01 gains ten milliseconds a second. */
  rate = 1;
  /** How far its wall has been set forward, in milliseconds; negative: back. */
  offsetMs = 0;
  #at: number;
  #seenAt: number;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
    this.#at = timeline.now;
    this.#seenAt = timeline.now;
  }

  /** Whole milliseconds since 1970, never less than before. */
  now(): Millis {
    const { now } = this.#timeline;
    const elapsed = (now - this.#seenAt) * this.rate;
    this.#seenAt = now;
    const expected = this.#at + elapsed;
    const off = now + this.offsetMs - expected;
    this.#at = expected + Math.max(-SLEW * elapsed, Math.min(SLEW * elapsed, off));
    return asMillis(Math.floor(this.#at));
  }

  /** The milliseconds of the simulation until this clock shows `at`, at its present rate; at least 1. */
  until(at: Millis): number {
    return Math.max(1, Math.ceil((at - this.#at) / this.rate));
  }
}
