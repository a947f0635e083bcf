// When to dial again: exponential, each pause drawn from the upper half of its step, so that replicas that lost each other together
// do not come back together.

export interface BackoffLimits {
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
}

export class Backoff {
  readonly #limits: BackoffLimits;
  readonly #random: () => number;
  #failures = 0;

  constructor(limits: BackoffLimits, random: () => number) {
    this.#limits = limits;
    this.#random = random;
  }

  /** Milliseconds until the next attempt; 0 for the first one after a reset. */
  next(): number {
    const { backoffMsMin, backoffMsMax } = this.#limits;
    const failures = this.#failures;
    this.#failures += 1;
    if (failures === 0) return 0;
    // 2^30 steps would overflow nothing, and no cluster is patient enough to see it.
    const step = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(failures - 1, 30));
    return step * (0.5 + this.#random() / 2);
  }

  reset(): void {
    this.#failures = 0;
  }
}
