// How long the synced writes of this replica hold it up, for the core's `stalled` inputs: told as it goes on, each millisecond once. Used by
// whoever calls a core: the daemon (daemon/speaker.ts) and the simulator (sim/replica.ts).

/** A write that takes no longer than this share of the view timeout is no stall: slower rounds show it. */
const QUIET_SHARE = 1 / 2;

export class WriteLag {
  /** Milliseconds. */
  readonly #quietMs: number;
  #began: number | null = null;
  /** Of the write under way, what was told. */
  #told = 0;
  /** Of finished ones, what was not. */
  #untold = 0;

  constructor(viewTimeoutMs: number) {
    this.#quietMs = viewTimeoutMs * QUIET_SHARE;
  }

  /** Times are of any one clock, in milliseconds. */
  begin(at: number): void {
    this.#began = at;
    this.#told = 0;
  }

  end(at: number): void {
    this.#untold += this.#lag(at);
    this.#began = null;
  }

  /** How long the write under way has taken; 0: none is. */
  writingMs(at: number): number {
    return this.#began === null ? 0 : at - this.#began;
  }

  /** Whole milliseconds of stall that were not told yet. */
  take(at: number): number {
    const running = this.#lag(at);
    const ms = Math.floor(this.#untold + running);
    if (ms === 0) return 0;
    this.#told += running;
    this.#untold = this.#untold + running - ms;
    return ms;
  }

  #lag(at: number): number {
    const ms = this.writingMs(at);
    return ms > this.#quietMs ? ms - this.#told : 0;
  }
}
