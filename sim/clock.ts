// The clocks of one replica, as in daemon/clock.ts: a monotonic one, which may run fast or slow, and a wall, which may be set; the replica
// follows the wall by a tenth at most, so that it never leaps.

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
  #wallAt: number;
  #seenAt: number;
  #leftMs = 0;
  #seenOffsetMs = 0;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
    this.#at = timeline.now;
    this.#wallAt = timeline.now;
    this.#seenAt = timeline.now;
  }

  #look(): void {
    const { now } = this.#timeline;
    // Asked several times in each turn, and nothing has gone by since.
    if (now === this.#seenAt && this.offsetMs === this.#seenOffsetMs) return;
    this.#seenOffsetMs = this.offsetMs;
    const elapsed = (now - this.#seenAt) * this.rate;
    this.#seenAt = now;
    this.#at += elapsed;
    const expected = this.#wallAt + elapsed;
    const off = now + this.offsetMs - expected;
    const followed = Math.max(-SLEW * elapsed, Math.min(SLEW * elapsed, off));
    this.#wallAt = expected + followed;
    this.#leftMs = off - followed;
  }

  /** Whole milliseconds, never less than before. */
  now(): Millis {
    this.#look();
    return asMillis(Math.floor(this.#at));
  }

  /** How far its wall is ahead of `now`, and how far it still is from there, in whole milliseconds; negative: behind. */
  wall(): { readonly aheadMs: number; readonly leftMs: number } {
    this.#look();
    return { aheadMs: Math.round(this.#wallAt - this.#at), leftMs: Math.round(this.#leftMs) };
  }

  /** The milliseconds of the simulation until this clock shows `at`, at its present rate; at least 1. */
  until(at: Millis): number {
    return Math.max(1, Math.ceil((at - this.#at) / this.rate));
  }
}
