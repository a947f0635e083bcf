// The learner: Lamport, Paxos Made Simple (2001), section 2.3. Acceptors tell every learner what they accept, so a value is learned one message
// delay after it was accepted; where messages are lost, catch-up brings the block (transfer.ts).

import { equalBytes, toHex } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Hash, Height, ReplicaId, View } from '../types.ts';
import { Tally } from '../votes.ts';

export interface Cast {
  readonly ballot: View;
  readonly hash: Hash;
}

export interface Chosen extends Cast {
  /** Who accepted it: they hold the value. */
  readonly holders: readonly ReplicaId[];
}

/** Whether these acceptors, of one proposal in a slot, are enough for it to be chosen. */
export type IsQuorum = (voters: readonly ReplicaId[], slot: Height, cast: Cast) => boolean;

export class Learner {
  #slots = new Map<Height, Tally<Cast>>();
  #chosen = new Map<Height, Chosen>();

  /** [PXS-L-1] Chosen: a quorum has accepted one proposal, number and value. Of an acceptor its highest-numbered acceptance counts. */
  onAccepted(slot: Height, cast: Cast, replica: ReplicaId, isQuorum: IsQuorum): void {
    let tally = this.#slots.get(slot);
    if (tally === undefined) {
      tally = new Tally();
      this.#slots.set(slot, tally);
    }
    const before = tally.get(replica);
    if (before !== undefined && before.ballot >= cast.ballot) return;
    tally.set(replica, keyOf(cast), cast);
    this.#settle(slot, cast, tally, isQuorum);
  }

  #settle(slot: Height, cast: Cast, tally: Tally<Cast>, isQuorum: IsQuorum): void {
    const equal = tally.withKey(keyOf(cast)).map(([id]) => id);
    if (!isQuorum(equal, slot, cast)) return;
    const chosen = this.#chosen.get(slot);
    assert(
      chosen === undefined || equalBytes(chosen.hash, cast.hash),
      () => `two values were chosen for slot ${slot}: more went wrong than members that are silent`,
    );
    this.#chosen.set(slot, { ...cast, holders: equal });
  }

  /** What makes a quorum has changed: what was heard before is looked at again. */
  recount(isQuorum: IsQuorum): void {
    for (const [slot, tally] of this.#slots)
      for (const [, cast] of [...tally.entries()]) this.#settle(slot, cast, tally, isQuorum);
  }

  /** What each acceptor says of a slot last. */
  votes(slot: Height): readonly (readonly [ReplicaId, Cast])[] {
    return [...(this.#slots.get(slot)?.entries() ?? [])];
  }

  chosen(slot: Height): Chosen | undefined {
    return this.#chosen.get(slot);
  }

  /** What acceptors say of a slot, by value. */
  casts(slot: Height): { readonly hash: Hash; readonly by: readonly ReplicaId[] }[] {
    const found = new Map<string, { hash: Hash; by: ReplicaId[] }>();
    for (const [replica, { hash }] of this.#slots.get(slot)?.entries() ?? []) {
      const entry = found.get(toHex(hash)) ?? { hash, by: [] };
      entry.by.push(replica);
      found.set(toHex(hash), entry);
    }
    return [...found.values()].map(({ hash, by }) => ({ hash, by: by.sort((a, b) => a - b) }));
  }

  forget(upTo: Height): void {
    for (const map of [this.#slots, this.#chosen]) for (const slot of map.keys()) if (slot <= upTo) map.delete(slot);
  }

  dump() {
    const slots = [...this.#slots].map(([slot, tally]) => [slot, tally.dump()] as const);
    return { slots, chosen: this.#chosen };
  }

  load({ slots, chosen }: ReturnType<Learner['dump']>): void {
    this.#slots = new Map();
    for (const [slot, dumped] of slots) {
      const tally = new Tally<Cast>();
      tally.load(dumped);
      this.#slots.set(slot, tally);
    }
    this.#chosen = chosen;
  }
}

const keyOf = ({ ballot, hash }: Cast): string => `${ballot} ${toHex(hash)}`;
