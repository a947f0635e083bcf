// What replicas forget, as faults: lost and older disks, with the repairs that an operator makes (docs/adr/0006-amnesia.md). Whoever has
// forgotten something is one of the f until it is as sound as before; a fault that there is no room for does not happen.

import type { Cluster } from './cluster.ts';
import { SimDisk } from './disk.ts';
import type { Fault, ForgettingFault } from './faults.ts';
import { brokenForEver } from './faults.ts';
import type { KeyFiles } from './keyring.ts';
import type { SimReplica } from './replica.ts';

/** A disk at one moment. */
interface Copy {
  readonly disk: SimDisk;
  readonly files: KeyFiles;
}

/** Between the end of a process that found that it has forgotten, and its operator. */
const REPAIR_MS = 500;

export class Memories {
  readonly #cluster: Cluster;
  readonly #f: number;
  readonly #broken: ReadonlySet<number>;
  readonly #boot: (id: number) => void;
  readonly #copies = new Map<Fault, Copy>();
  /** Who has lost its log, and up to which height it may have been one of few that had the blocks. */
  readonly #lostBelow = new Map<number, number>();

  /** @param f how many may be unsound at one time @param boot starts a replica, unless another fault keeps it down */
  constructor(cluster: Cluster, faults: readonly Fault[], f: number, boot: (id: number) => void) {
    this.#cluster = cluster;
    this.#f = f;
    this.#broken = brokenForEver(faults, cluster.nodes.length);
    this.#boot = boot;
    cluster.forgives = (replica, error) => this.#forgives(replica, error);
    for (const fault of faults)
      if ('copiedAt' in fault) cluster.after(fault.copiedAt, () => this.#copies.set(fault, this.#copy(fault.node)));
  }

  #copy(id: number): Copy {
    const node = this.#cluster.nodes[id]!;
    return { disk: node.disk.copy(), files: node.keyring.copy() };
  }

  /** Ends the process and does it. False: there is no room for it. */
  begin(fault: ForgettingFault): boolean {
    const { node: id } = fault;
    if (!this.hasRoom(id)) return false;
    const cluster = this.#cluster;
    const node = cluster.nodes[id]!;
    const { disk, guard } = node;
    const copy = this.#copies.get(fault);
    this.#copies.delete(fault);
    switch (fault.kind) {
      case 'amnesia':
        cluster.crash(id);
        if (fault.log !== 'kept') disk.become(fault.log === 'older' && copy !== undefined ? copy.disk : new SimDisk());
        node.keyring.lose();
        cluster.rolledBack.delete(id);
        return true;
      case 'lost-log':
        // Its marks are older than its votes: they are lost already.
        if (cluster.rolledBack.has(id)) return false;
        cluster.crash(id);
        this.#lostBelow.set(
          id,
          Math.max(cluster.chain.size, disk.head, ...disk.accepted.keys(), ...guard.durable.marks.votes.keys()),
        );
        disk.become(new SimDisk());
        node.keyring.giveUpLog();
        return true;
      case 'rollback':
        if (copy === undefined) return false;
        cluster.crash(id);
        disk.become(copy.disk);
        node.keyring.put(copy.files);
        cluster.rolledBack.add(id);
        this.#boot(id);
        return true;
    }
  }

  end(fault: ForgettingFault): void {
    if (fault.kind === 'rollback') this.#repair(fault.node);
    else this.#boot(fault.node);
  }

  /** Whether this replica may forget something now: with it no more than f are unsound. */
  hasRoom(id: number): boolean {
    if (this.#cluster.byzantine.has(id)) return false;
    const faulty = new Set(this.#broken);
    for (const node of this.#cluster.nodes) if (this.#isForgetful(node)) faulty.add(node.id);
    return faulty.has(id) || faulty.size < this.#f;
  }

  #isForgetful({ id, guard, disk }: SimReplica): boolean {
    return guard.durable.quarantined || this.#cluster.rolledBack.has(id) || disk.head < (this.#lostBelow.get(id) ?? 0);
  }

  /** [REC-9] One that was rolled back may end itself, by this and nothing else. */
  #forgives({ id }: SimReplica, error: unknown): boolean {
    if (!this.#cluster.rolledBack.has(id) || !(error instanceof Error) || !error.message.startsWith('guard-behind: '))
      return false;
    this.#cluster.remark(`node-${id} was shown what it has forgotten, and ends: ${error.message}`);
    this.#cluster.after(REPAIR_MS, () => this.#repair(id));
    return true;
  }

  /** `synod repair --readmit`, once somebody knows. */
  #repair(id: number): void {
    const cluster = this.#cluster;
    if (!cluster.rolledBack.delete(id)) return;
    cluster.crash(id);
    cluster.nodes[id]!.keyring.lose();
    this.#boot(id);
  }
}
