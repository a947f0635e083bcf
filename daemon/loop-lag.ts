// How long this process itself was held up, for the core's `stalled` inputs (STALL-1): delays of the event loop, in which garbage collection and a
// machine that pauses show as well, and frames that have waited for their turn.

import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

const resolutionMs = 10;

/** One for the process, as the loop is; never ends, and keeps no process alive. */
let ofThisLoop: IntervalHistogram | null = null;

function loopDelays(): IntervalHistogram {
  if (ofThisLoop === null) {
    ofThisLoop = monitorEventLoopDelay({ resolution: resolutionMs });
    ofThisLoop.enable();
  }
  ofThisLoop.reset();
  return ofThisLoop;
}

export class LoopLag {
  /** Delays up to this are everyday. */
  readonly #quietMs: number;
  readonly #now: () => number;
  readonly #histogram: IntervalHistogram | null;
  #readAt: number;
  #toldAt: number;
  /** Until then, what the histogram shows is the stall that the core has seen. */
  #ownedUntil = 0;

  /** `delays`: false in tests that have a clock of their own. */
  constructor(heartbeatMs: number, { now = () => performance.now(), delays = true } = {}) {
    this.#quietMs = heartbeatMs;
    this.#now = now;
    this.#readAt = now();
    this.#toldAt = this.#readAt;
    this.#histogram = delays ? loopDelays() : null;
  }

  /**
   * Whole milliseconds since the last call in which this process was held up; called with each step of the core. `lateMs`: how late the step
   * is, which the core sees by itself. `oldestFrameAt`: when the oldest frame came that is not read yet; null: all are read.
   */
  take(lateMs: number, oldestFrameAt: number | null): number {
    const now = this.#now();
    const since = now - this.#toldAt;
    this.#toldAt = now;
    if (lateMs > this.#quietMs) {
      // The histogram would say it once more, now or in a moment.
      this.#ownedUntil = now + this.#quietMs;
      return 0;
    }
    const behind = oldestFrameAt !== null && now - oldestFrameAt > this.#quietMs;
    return Math.floor(Math.max(behind ? since : 0, this.#delayMs(now)));
  }

  /** The longest delay since the last look, where it was a stall; looked at once a heartbeat. */
  #delayMs(now: number): number {
    if (this.#histogram === null || now - this.#readAt < this.#quietMs) return 0;
    const ms = this.#histogram.max / 1e6 - resolutionMs;
    this.#readAt = now;
    this.#histogram.reset();
    return ms > this.#quietMs && now > this.#ownedUntil ? ms : 0;
  }
}
