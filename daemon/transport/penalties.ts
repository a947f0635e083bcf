// Who is refused for how long: a peer that broke a rule which an honest one never breaks. The refusal ends by itself, since the
// operator may have repaired it; it grows, since he may not.

export interface PenaltyLimits {
  readonly punishMsMin: number;
  readonly punishMsMax: number;
  readonly punishForgetMs: number;
}

/** Of one peer. */
export class Penalty {
  readonly #limits: PenaltyLimits;
  #strikes = 0;
  #until = Number.NEGATIVE_INFINITY;

  constructor(limits: PenaltyLimits) {
    this.#limits = limits;
  }

  /** Returns how long it is refused, in milliseconds from now. */
  strike(now: number): number {
    const { punishMsMin, punishMsMax, punishForgetMs } = this.#limits;
    if (now - this.#until > punishForgetMs) this.#strikes = 0;
    // Frames that were on their way when the first one was judged are no new crime.
    if (now < this.#until) return this.#until - now;
    const length = Math.min(punishMsMax, punishMsMin * 2 ** Math.min(this.#strikes, 30));
    this.#strikes += 1;
    this.#until = now + length;
    return length;
  }

  /** Milliseconds it is still refused; 0: it is not. */
  remaining(now: number): number {
    return Math.max(0, this.#until - now);
  }
}
