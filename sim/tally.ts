// Many lives, added up.

import type { Outcome } from './life.ts';

export interface Totals {
  readonly seeds: number;
  readonly failed: number;
  readonly realSignatures: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly messages: number;
  readonly blocks: number;
  readonly acknowledged: number;
  readonly reads: number;
  readonly viewChanges: number;
  readonly crashes: number;
  /** That were ended. */
  readonly epochs: number;
  readonly readmissions: number;
  readonly faults: number;
  /** The longest that a healed quorum took to order everything. */
  readonly recoveryMsMax: number;
}

export class Tally {
  #totals: Totals = {
    seeds: 0,
    failed: 0,
    realSignatures: 0,
    simulatedMs: 0,
    events: 0,
    messages: 0,
    blocks: 0,
    acknowledged: 0,
    reads: 0,
    viewChanges: 0,
    crashes: 0,
    epochs: 0,
    readmissions: 0,
    faults: 0,
    recoveryMsMax: 0,
  };

  get totals(): Totals {
    return this.#totals;
  }

  add(outcome: Outcome): void {
    const t = this.#totals;
    this.#totals = {
      seeds: t.seeds + 1,
      failed: t.failed + (outcome.failure === null ? 0 : 1),
      realSignatures: t.realSignatures + (outcome.realSignatures ? 1 : 0),
      simulatedMs: t.simulatedMs + outcome.simulatedMs,
      events: t.events + outcome.events,
      messages: t.messages + outcome.messages,
      blocks: t.blocks + outcome.blocks,
      acknowledged: t.acknowledged + outcome.acknowledged,
      reads: t.reads + outcome.reads,
      viewChanges: t.viewChanges + outcome.viewChanges,
      crashes: t.crashes + outcome.crashes,
      epochs: t.epochs + outcome.epochs,
      readmissions: t.readmissions + outcome.readmissions,
      faults: t.faults + outcome.faults,
      recoveryMsMax: Math.max(t.recoveryMsMax, outcome.recoveryMs),
    };
  }
}
