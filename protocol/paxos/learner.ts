// The learner: Lamport, Paxos Made Simple (2001), section 2.3. Acceptors tell every learner what they accept, so a value is learned one message
// delay after it was accepted; where messages are lost, catch-up brings the block (transfer.ts).

import { equalBytes, toHex } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Hash, Height, ReplicaId, View } from '../types.ts';
import { Tally } from '../votes.ts';

interface Cast {
  readonly ballot: View;
  readonly hash: Hash;
}

export interface Chosen extends Cast {
  /** Who accepted it: they hold the value. */
  readonly holders: readonly ReplicaId[];
}

export class Learner {
  readonly #slots = new Map<Height, Tally<Cast>>();
  readonly #chosen = new Map<Height, Chosen>();

  /** [PXS-L-1] Chosen: a quorum has accepted one proposal, number and value. Of an acceptor its highest-numbered acceptance counts. */
  onAccepted(slot: Height, cast: Cast, replica: ReplicaId, quorum: number): void {
    let tally = this.#slots.get(slot);
    if (tally === undefined) {
      tally = new Tally();
      this.#slots.set(slot, tally);
    }
    const before = tally.get(replica);
    if (before !== undefined && before.ballot >= cast.ballot) return;
    const key = `${cast.ballot} ${toHex(cast.hash)}`;
    tally.set(replica, key, cast);
    const equal = tally.withKey(key);
    if (equal.length < quorum) return;
    const chosen = this.#chosen.get(slot);
    assert(
      chosen === undefined || equalBytes(chosen.hash, cast.hash),
      () => `two values were chosen for slot ${slot}: more went wrong than members that are silent`,
    );
    this.#chosen.set(slot, { ...cast, holders: equal.map(([id]) => id) });
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
}
