// Who waits for a read point of this replica's core, which always answers in its time (CFT-RP-4); only an end leaves some without.

import type { ReadAnswer, ReadRefusal } from '../protocol/core.ts';
import type { Height } from '../protocol/types.ts';

export type ReadPoint = { readonly height: Height } | { readonly refused: ReadRefusal };

export class ReadDesk {
  readonly #waiting = new Map<number, (point: ReadPoint) => void>();
  #asked = 0;
  #closed = false;

  /** @param give hands the read to the core */
  ask(give: (id: number) => void): Promise<ReadPoint> {
    if (this.#closed) return Promise.resolve({ refused: 'read-unconfirmed' });
    this.#asked += 1;
    const id = this.#asked;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      give(id);
    });
  }

  answered(answers: readonly ReadAnswer[]): void {
    for (const { id, ...point } of answers) {
      this.#waiting.get(id)?.(point);
      this.#waiting.delete(id);
    }
  }

  /** [EPO-12] The core answers no more: whoever waits asks the next one. */
  close(): void {
    this.#closed = true;
    for (const resolve of this.#waiting.values()) resolve({ refused: 'read-unconfirmed' });
    this.#waiting.clear();
  }
}
