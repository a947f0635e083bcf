// Where votes are counted, and the only place. The protocols ask for a certificate; they never write `>= 2*f+1`.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { Certificate, VotePhase } from './certificate.ts';
import type { Quorums } from './quorum.ts';
import type { Epoch, Hash, Height, ReplicaId, View } from './types.ts';

interface Cast {
  readonly hash: Hash;
  readonly signature: Bytes;
}

interface Slot {
  readonly prepare: Map<ReplicaId, Cast>;
  readonly commit: Map<ReplicaId, Cast>;
}

/** Prepares and commits of one view, by height. Bounded by the caller: heights within its window, one vote per replica and phase. */
export class VoteBox {
  readonly #epoch: Epoch;
  readonly #quorums: Quorums;
  #slots: Map<Height, Slot> = new Map();

  constructor(epoch: Epoch, quorums: Quorums) {
    this.#epoch = epoch;
    this.#quorums = quorums;
  }

  /** [PBFT-P-3] Counts a replica's first vote for (phase, height); a second one never counts, and is 'conflicting' where its hash differs. */
  add(
    phase: VotePhase,
    height: Height,
    hash: Hash,
    replica: ReplicaId,
    signature: Bytes,
  ): 'counted' | 'repeated' | 'conflicting' {
    let slot = this.#slots.get(height);
    if (slot === undefined) {
      slot = { prepare: new Map(), commit: new Map() };
      this.#slots.set(height, slot);
    }
    const before = slot[phase].get(replica);
    if (before !== undefined) return equalBytes(before.hash, hash) ? 'repeated' : 'conflicting';
    // Copies: the vote may be a view into a larger frame.
    slot[phase].set(replica, { hash, signature: new Uint8Array(signature) });
    return 'counted';
  }

  of(phase: VotePhase, height: Height, replica: ReplicaId): Cast | undefined {
    return this.#slots.get(height)?.[phase].get(replica);
  }

  /** Who voted for this hash. */
  voters(phase: VotePhase, height: Height, hash: Hash): ReplicaId[] {
    const found: ReplicaId[] = [];
    for (const [replica, cast] of this.#slots.get(height)?.[phase] ?? [])
      if (equalBytes(cast.hash, hash)) found.push(replica);
    return found;
  }

  /** How many they are, together with these: votes that wait, or were checked and are not counted yet. */
  count(phase: VotePhase, height: Height, hash: Hash, others: ReadonlySet<ReplicaId>): number {
    let count = others.size;
    for (const [replica, cast] of this.#slots.get(height)?.[phase] ?? [])
      if (!others.has(replica) && equalBytes(cast.hash, hash)) count += 1;
    return count;
  }

  /** What was voted for at this height, in the order in which it came. */
  hashes(height: Height): Hash[] {
    const slot = this.#slots.get(height);
    const found = new Map<string, Hash>();
    for (const { hash } of [...(slot?.prepare.values() ?? []), ...(slot?.commit.values() ?? [])])
      if (!found.has(toHex(hash))) found.set(toHex(hash), hash);
    return [...found.values()];
  }

  /** The hash at this height that a quorum voted for, if one did. There is at most one while the faulty are at most f. */
  quorumHash(phase: VotePhase, height: Height): Hash | undefined {
    const slot = this.#slots.get(height);
    if (slot === undefined || slot[phase].size < this.#quorums.quorum) return undefined;
    // Nearly always the first one's: asked in every step, so without a map and its keys.
    for (const { hash } of slot[phase].values()) {
      let count = 0;
      for (const cast of slot[phase].values()) if (equalBytes(cast.hash, hash)) count += 1;
      if (count >= this.#quorums.quorum) return hash;
    }
    return undefined;
  }

  /** [PBFT-P-2] [PBFT-C-2] Exactly a quorum of signatures, by rising replica; undefined where there is no quorum. */
  certificate(phase: VotePhase, view: View, height: Height, hash: Hash): Certificate | undefined {
    if ((this.#slots.get(height)?.[phase].size ?? 0) < this.#quorums.quorum) return undefined;
    const voters = this.voters(phase, height, hash);
    if (voters.length < this.#quorums.quorum) return undefined;
    const signatures = voters
      .sort((a, b) => a - b)
      .slice(0, this.#quorums.quorum)
      .map((replica) => ({ replica, signature: this.of(phase, height, replica)!.signature })); // a voter has a vote
    return { phase, epoch: this.#epoch, view, height, hash, signatures };
  }

  heights(): Height[] {
    return [...this.#slots.keys()].sort((a, b) => a - b);
  }

  forgetUpTo(height: Height): void {
    for (const at of this.#slots.keys()) if (at <= height) this.#slots.delete(at);
  }

  clear(): void {
    this.#slots.clear();
  }

  /** [FLR-1] What it holds, as plain values (snapshot.ts); `load` takes them back. So in every class of the state. */
  dump() {
    return { slots: this.#slots };
  }

  load({ slots }: ReturnType<VoteBox['dump']>): void {
    this.#slots = slots;
  }
}

/** One value per replica, counted by equality of a key: checkpoint votes, view-changes. */
export class Tally<Value> {
  #byReplica: Map<ReplicaId, { readonly key: string; readonly value: Value }> = new Map();

  /** The replica's value; replaces what it said before. */
  set(replica: ReplicaId, key: string, value: Value): void {
    this.#byReplica.set(replica, { key, value });
  }

  get(replica: ReplicaId): Value | undefined {
    return this.#byReplica.get(replica)?.value;
  }

  entries(): [ReplicaId, Value][] {
    // Asked in every step, and nearly always there is nothing.
    return this.#byReplica.size === 0 ? [] : [...this.#byReplica].map(([replica, { value }]) => [replica, value]);
  }

  delete(replica: ReplicaId): void {
    this.#byReplica.delete(replica);
  }

  /** The values under this key, by rising replica. */
  withKey(key: string): [ReplicaId, Value][] {
    return [...this.#byReplica]
      .filter(([, entry]) => entry.key === key)
      .map(([replica, { value }]): [ReplicaId, Value] => [replica, value])
      .sort(([a], [b]) => a - b);
  }

  dump() {
    return { byReplica: this.#byReplica };
  }

  load({ byReplica }: ReturnType<Tally<Value>['dump']>): void {
    this.#byReplica = byReplica;
  }
}
