// What clients see of the one order, against when they saw it: Herlihy and Wing, Linearizability (TOPLAS 1990). A write takes effect at its place in the log, a read at the read point that it
// was answered with. Both must lie between the asking and the answer: so a write stands above all that was acknowledged before it was first handed in, and a read covers all that any
// replica had decided before it was asked, for any of that may have been acknowledged.

import type { ReadAnswer } from '../protocol/core.ts';
import { fail } from './failure.ts';

export class Linearizability {
  readonly #head: () => number;
  /** Reads under way, with the head when they were asked. */
  readonly #reads = new Map<number, number>();
  #begun = 0;
  #answered = 0;
  /** By digest: what was acknowledged when a bundle was first handed in. */
  readonly #writes = new Map<string, number>();
  #acknowledged = 0;

  /** @param head the highest height that any honest replica has decided by now */
  constructor(head: () => number) {
    this.#head = head;
  }

  /** A read is asked: its number. */
  begin(): number {
    this.#begun += 1;
    this.#reads.set(this.#begun, this.#head());
    return this.#begun;
  }

  get begun(): number {
    return this.#begun;
  }

  /** Reads that were answered with a read point. */
  get answered(): number {
    return this.#answered;
  }

  /** [CFT-RP-1] `decided`: the head of this replica. */
  answers(replica: number, answers: readonly ReadAnswer[], decided: number): void {
    for (const answer of answers) {
      const head = this.#reads.get(answer.id);
      if (head === undefined)
        fail('reads-linearizable', `node-${replica} answers read ${answer.id}, which nobody waits for`);
      this.#reads.delete(answer.id);
      if ('refused' in answer) continue;
      this.#answered += 1;
      const { id, height } = answer;
      if (height < head)
        fail(
          'reads-linearizable',
          `node-${replica} answers read ${id} with height ${height}; ${head} was decided before it was asked`,
        );
      if (height > decided)
        fail(
          'reads-linearizable',
          `node-${replica} answers read ${id} with height ${height}, and has decided ${decided}`,
        );
    }
  }

  /** A client hands in a bundle, perhaps again. */
  handedIn(digest: string): void {
    if (!this.#writes.has(digest)) this.#writes.set(digest, this.#acknowledged);
  }

  acknowledged(digest: string, height: number): void {
    const before = this.#writes.get(digest) ?? 0;
    if (height <= before)
      fail(
        'writes-linearizable',
        `a bundle stands at ${height}, and ${before} was acknowledged before it was handed in`,
      );
    this.#acknowledged = Math.max(this.#acknowledged, height);
  }
}
