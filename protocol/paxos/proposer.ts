// The proposer: Lamport, Paxos Made Simple (2001), section 2.2. It gets promises from a majority, learns from them which values it must propose,
// and proposes those; then whatever it likes. It keeps nothing on disk: after a restart it takes a new number (section 2.5).

import type { Block } from '../block.ts';
import type { AcceptedPlace, PaxosPromise } from '../messages.ts';
import type { Hash, Height, ReplicaId, View } from '../types.ts';
import { asHeight, asView } from '../types.ts';

/** What a slot must carry: the value of the highest-numbered proposal among the promises, and who holds it. */
export interface Bound {
  readonly ballot: View;
  readonly hash: Hash;
  readonly holders: readonly ReplicaId[];
}

export interface Bounds {
  /** Up to here everything is decided at one of those who promised. */
  readonly decided: Height;
  /** The highest slot of any promise; at least `decided`. */
  readonly top: Height;
  readonly slots: ReadonlyMap<Height, Bound>;
}

export class Proposer {
  /** 0: it proposes nothing. */
  #ballot: View = asView(0);
  #phase: 'idle' | 'preparing' | 'proposing' = 'idle';
  #promises = new Map<ReplicaId, PaxosPromise>();
  #proposals = new Map<Height, Block>();

  /** What it has proposed in its ballot, by slot: one value each, for ever. */
  get proposals(): Map<Height, Block> {
    return this.#proposals;
  }

  get ballot(): View {
    return this.#ballot;
  }

  get phase(): 'idle' | 'preparing' | 'proposing' {
    return this.#phase;
  }

  /** [PXS-P-1] Phase 1a, with a number of its own that it has never used: above everything it has promised or seen. */
  begin(ballot: View): void {
    this.resign();
    this.#ballot = ballot;
    this.#phase = 'preparing';
  }

  resign(): void {
    this.#ballot = asView(0);
    this.#phase = 'idle';
    this.#promises.clear();
    this.#proposals.clear();
  }

  get promisers(): ReplicaId[] {
    return [...this.#promises.keys()].sort((a, b) => a - b);
  }

  /** [PXS-P-2] The bounds, once a quorum has promised this ballot; null: not yet, or known already. */
  onPromise(
    promise: PaxosPromise,
    from: ReplicaId,
    isQuorum: (promises: Promises) => boolean,
    pick: Pick = highest,
  ): Bounds | null {
    if (this.#phase !== 'preparing' || promise.ballot !== this.#ballot) return null;
    this.#promises.set(from, promise);
    if (!isQuorum(this.#promises)) return null;
    this.#phase = 'proposing';
    return boundsOf(this.#promises, pick);
  }

  forget(upTo: Height): void {
    for (const slot of this.#proposals.keys()) if (slot <= upTo) this.#proposals.delete(slot);
  }

  dump() {
    return { ballot: this.#ballot, phase: this.#phase, promises: this.#promises, proposals: this.#proposals };
  }

  load({ ballot, phase, promises, proposals }: ReturnType<Proposer['dump']>): void {
    this.#ballot = ballot;
    this.#phase = phase;
    this.#promises = promises;
    this.#proposals = proposals;
  }
}

export type Promises = ReadonlyMap<ReplicaId, PaxosPromise>;
/** Which of the proposals that acceptors report of one slot, at least one, binds; `asked`: how many acceptors have promised. */
export type Pick = (reports: readonly Report[], asked: number) => Bound;
export interface Report extends AcceptedPlace {
  readonly by: ReplicaId;
}

/** [PXS-P-2] P2c: of a majority's proposals the highest-numbered one binds; a slot without any is free. */
export function boundsOf(promises: Promises, pick: Pick = highest): Bounds {
  const reports = new Map<Height, Report[]>();
  let decided = 0;
  for (const [replica, promise] of [...promises].sort(([a], [b]) => a - b)) {
    decided = Math.max(decided, promise.decided);
    for (const place of promise.accepted)
      reports.set(place.slot, [...(reports.get(place.slot) ?? []), { ...place, by: replica }]);
  }
  const slots = new Map<Height, Bound>();
  for (const [slot, found] of reports) if (slot > decided) slots.set(slot, pick(found, promises.size));
  const top = Math.max(decided, ...slots.keys());
  return { decided: asHeight(decided), top: asHeight(top), slots };
}

/** In one classic ballot one value is proposed in a slot. */
export const highest: Pick = (reports) => {
  const ballot = asView(Math.max(...reports.map((report) => report.ballot)));
  const found = reports.filter((report) => report.ballot === ballot);
  return { ballot, hash: found[0]!.hash, holders: found.map(({ by }) => by) };
};
