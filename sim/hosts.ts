// Who answers under a replica's name: nearly always one process. Where an operator runs a copy of it on a second host (A20), every peer has a
// connection to one of the two, since a newer connection of one key takes the place of the older, and which one may change.

import type { ReplicaId } from '../protocol/types.ts';
import type { SimReplica } from './replica.ts';

interface Second {
  readonly replica: SimReplica;
  /** Peers that talk to it, and not to the first. */
  readonly peers: Set<number>;
}

export class Hosts {
  readonly #nodes: readonly SimReplica[];
  readonly #make: (id: ReplicaId) => SimReplica;
  readonly #seconds = new Map<number, Second>();

  constructor(nodes: readonly SimReplica[], make: (id: ReplicaId) => SimReplica) {
    this.#nodes = nodes;
    this.#make = make;
  }

  /** The process that this peer talks to under the name of `id`. */
  of(id: number, peer: number): SimReplica {
    const second = this.#seconds.get(id);
    return second?.peers.has(peer) === true ? second.replica : this.#nodes[id]!;
  }

  /** A second host, from a copy of the first one's disk; it is not started, and nobody talks to it yet. */
  double(id: number): SimReplica {
    const { id: name, disk, guard } = this.#nodes[id]!;
    const replica = this.#make(name);
    replica.disk.retain = disk.retain;
    replica.disk.become(disk);
    replica.guard.file = guard.file;
    this.#seconds.set(id, { replica, peers: new Set() });
    return replica;
  }

  /** From now on this peer talks to the other one of the two. What connections there are is the caller's. */
  move(id: number, peer: number): void {
    const peers = this.#seconds.get(id)?.peers;
    if (peers?.delete(peer) === false) peers.add(peer);
  }
}
