// Is the event loop of this process responsive? A replica whose loop stalls looks dead to its peers, so a supervisor should know.

import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

const windowMs = 5_000;
const resolutionMs = 20;
/** Half of a window's delays beyond this is a process that does not serve. */
const medianDelayMsMax = 1_000;

export class LoopHealth {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs });
  readonly #timer: NodeJS.Timeout;
  #last = { medianMs: 0, maxMs: 0 };

  constructor() {
    this.#histogram.enable();
    this.#timer = setInterval(() => {
      this.#last = this.#read();
      this.#histogram.reset();
    }, windowMs);
    this.#timer.unref();
  }

  /** Of the last whole window. */
  read(): { readonly responsive: boolean; readonly medianMs: number; readonly maxMs: number } {
    return { responsive: this.#last.medianMs <= medianDelayMsMax, ...this.#last };
  }

  close(): void {
    clearInterval(this.#timer);
    this.#histogram.disable();
  }

  #read(): { medianMs: number; maxMs: number } {
    // The histogram counts its own resolution as part of every delay.
    const ms = (nanos: number) => Math.max(0, Math.round(nanos / 1e6 - resolutionMs));
    return { medianMs: ms(this.#histogram.percentile(50)), maxMs: ms(this.#histogram.max) };
  }
}
