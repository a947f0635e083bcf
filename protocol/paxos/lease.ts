// The leader's lease, as an acceptor keeps it: Gray and Cheriton, Leases (SOSP 1989); Chandra, Griesemer and Redstone, Paxos Made Live (PODC 2007), section 5.2.
// While it lasts no other proposer is promised anything, so its holder knows without asking that nobody else leads (crash/reads.ts).
//
// It rests on clocks alone: monotonic ones, which go on while the process does not, and of which none gains more than a ninth on another. So it counts at the holder from when it
// was asked for, and at the acceptor from when that was heard; the holder counts on nine tenths of it. After a restart an acceptor knows no more whom it has granted what.

import type { Millis, ReplicaId } from '../types.ts';
import { plus } from '../types.ts';

/** Whole milliseconds of two clocks are off by less than so much. */
const ROUNDING_MS = 2;

/** [PXS-R-2] How long a holder counts on a lease, from when it asked for it. */
export const countedMs = (leaseMs: number): number => Math.max(0, Math.floor((leaseMs * 9) / 10) - ROUNDING_MS);

export class Lease {
  /** Null: to someone, before a restart. */
  #holder: ReplicaId | null = null;
  #until: Millis;

  /** [PXS-R-3] Whatever it granted before it began lasts for a whole lease at most. */
  constructor(now: Millis, leaseMs: number) {
    this.#until = now;
    this.restarted(now, leaseMs);
  }

  restarted(now: Millis, leaseMs: number): void {
    this.#until = plus.millis(now, leaseMs);
  }

  /** [PXS-R-2] False: one that another proposer may hold lasts. */
  grant(to: ReplicaId, now: Millis, leaseMs: number): boolean {
    if (this.binds(to, now)) return false;
    this.#holder = to;
    this.#until = plus.millis(now, leaseMs);
    return true;
  }

  /** [PXS-R-2] Whether a promise to this proposer would break it. */
  binds(proposer: ReplicaId, now: Millis): boolean {
    return now < this.#until && this.#holder !== proposer;
  }

  dump() {
    return { holder: this.#holder, until: this.#until };
  }

  load({ holder, until }: ReturnType<Lease['dump']>): void {
    this.#holder = holder;
    this.#until = until;
  }
}
