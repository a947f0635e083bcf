// Turns for whoever has work, one step each, in rotation: a client with a thousand frames waiting costs another client one step
// of delay, not a thousand. After its time is used up the rest waits until the event loop has served the other replicas.

export interface Worker {
  /** Does one small piece of work; true: there is more. Never throws. */
  step(): boolean;
}

export class FairTurns {
  readonly #turnMsMax: number;
  readonly #now: () => number;
  /** In order of their turns. A worker stands here at most once, so connectionsMax bounds it. */
  readonly #rotation = new Set<Worker>();
  #scheduled = false;

  constructor(options: { readonly turnMsMax: number; readonly now: () => number }) {
    this.#turnMsMax = options.turnMsMax;
    this.#now = options.now;
  }

  add(worker: Worker): void {
    this.#rotation.add(worker);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#run());
  }

  remove(worker: Worker): void {
    this.#rotation.delete(worker);
  }

  #run(): void {
    this.#scheduled = false;
    const until = this.#now() + this.#turnMsMax;
    // A set yields its entries in the order of insertion, those that are added while it is walked included.
    for (const worker of this.#rotation) {
      this.#rotation.delete(worker);
      if (worker.step()) this.#rotation.add(worker);
      if (this.#now() >= until) break;
    }
    if (this.#rotation.size === 0) return;
    this.#scheduled = true;
    setImmediate(() => this.#run());
  }
}
