// Who answers under a replica's name: nearly always one process. Two with one key (A20; Bano et al., Twins: BFT Systems Made Robust, 2020) are a
// faulty replica made of two honest ones: each has a disk and a guard of its own, so neither knows what the other has signed.

import type { Audience } from '../protocol/core.ts';
import type { ReplicaId } from '../protocol/types.ts';
import type { SimReplica } from './replica.ts';

/** Whether one of the two hears this replica, and is heard by it. */
export type Reaches = (other: ReplicaId, which: 'first' | 'second') => boolean;

/** Whether this member is meant. */
export const isAmong = (member: ReplicaId, to: Audience): boolean =>
  to === 'all' || (typeof to === 'number' ? to === member : to.includes(member));

interface Second {
  readonly replica: SimReplica;
  readonly reaches: Reaches;
  /** Peers that talk to the second one and not to the first, where every peer has a connection to one of the two. */
  readonly peers: Set<number>;
}

export class Hosts {
  readonly #nodes: readonly SimReplica[];
  readonly #make: (id: ReplicaId) => SimReplica;
  readonly #seconds = new Map<number, Second>();
  /** For each name its one process: asked with every message. */
  readonly #alone: readonly (readonly SimReplica[])[];

  constructor(nodes: readonly SimReplica[], make: (id: ReplicaId) => SimReplica) {
    this.#nodes = nodes;
    this.#alone = nodes.map((node) => [node]);
    this.#make = make;
  }

  /** The processes under the name of `id` that this peer talks to. */
  at(id: number, peer: number): readonly SimReplica[] {
    const second = this.#seconds.get(id);
    if (second === undefined) return this.#alone[id]!;
    const first = this.#nodes[id]!;
    const other = this.#nodes[peer]!.id;
    return [first, second.replica].filter((_, i) => second.reaches(other, i === 0 ? 'first' : 'second'));
  }

  /** A second one with an empty disk, not yet started. */
  add(id: ReplicaId, reaches: Reaches): SimReplica {
    return this.#add(id, reaches, new Set());
  }

  /**
   * A second host, from a copy of the first one's disk, as an operator makes it; it is not started, and nobody talks to it yet. A newer
   * connection of one key takes the place of the older, so each peer talks to one of the two, and which one may change.
   */
  double(id: number): SimReplica {
    const { id: name, disk, keyring } = this.#nodes[id]!;
    const peers = new Set<number>();
    const replica = this.#add(name, (other, which) => peers.has(other) === (which === 'second'), peers);
    replica.disk.retain = disk.retain;
    replica.disk.become(disk);
    replica.keyring.put(keyring.copy());
    return replica;
  }

  #add(id: ReplicaId, reaches: Reaches, peers: Set<number>): SimReplica {
    const replica = this.#make(id);
    this.#seconds.set(id, { replica, reaches, peers });
    return replica;
  }

  /** From now on this peer talks to the other one of the two. What connections there are is the caller's. */
  move(id: number, peer: number): void {
    const peers = this.#seconds.get(id)?.peers;
    if (peers?.delete(peer) === false) peers.add(peer);
  }
}
