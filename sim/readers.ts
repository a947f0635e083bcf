// Clients that read: a read point of any replica that is up, again and again.

import type { Dice } from './random.ts';

export interface ReadService {
  after(ms: number, run: () => void): void;
  live(): number[];
  read(from: number): void;
}

export class Reader {
  readonly #service: ReadService;
  readonly #dice: Dice;
  readonly #everyMs: number;
  #stopped = false;

  constructor(service: ReadService, { dice, everyMs }: { readonly dice: Dice; readonly everyMs: number }) {
    this.#service = service;
    this.#dice = dice;
    this.#everyMs = everyMs;
    this.#again();
  }

  stop(): void {
    this.#stopped = true;
  }

  #again(): void {
    this.#service.after(1 + this.#dice.exponential(this.#everyMs), () => {
      if (this.#stopped) return;
      const live = this.#service.live();
      if (live.length > 0) this.#service.read(this.#dice.pick(live));
      this.#again();
    });
  }
}
