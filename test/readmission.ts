// Amnesia for clusters in virtual time: a replica's disk and guard are lost, it comes back in quarantine, and somebody outside remembers
// every word that it ever signed.

import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { encodePayload } from '../protocol/codec.ts';
import { denies } from '../protocol/conflict.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import type { Cluster, Tamper } from '../sim/cluster.ts';
import { SimDisk } from '../sim/disk.ts';
import type { SimGuard } from '../sim/guard.ts';

/** Everything is lost; it starts again with nothing but its key. */
export function wipe(cluster: Cluster, id: number): SimGuard {
  cluster.crash(id);
  const { disk, guard } = cluster.nodes[id]!;
  disk.become(new SimDisk());
  guard.lose();
  cluster.boot(id);
  return guard;
}

/** What a snapshot of a whole disk holds: log and marks of one moment. */
export function snapshot(cluster: Cluster, id: number): { readonly disk: SimDisk; readonly file: SimGuard['file'] } {
  const { disk, guard } = cluster.nodes[id]!;
  return { disk: disk.copy(), file: guard.file };
}

/** Its disk is put back to the snapshot, and it starts again. */
export function rollBack(cluster: Cluster, id: number, to: ReturnType<typeof snapshot>): void {
  cluster.crash(id);
  const { disk, guard } = cluster.nodes[id]!;
  disk.become(to.disk);
  guard.file = to.file;
  cluster.rolledBack.add(id);
  cluster.boot(id);
}

/** Remembers what each replica has ever signed, over all of its lives. */
export class Witness {
  /** Two different words of one key at one place, or a view-change that denies a commit (ACC-3). */
  readonly doubles: string[] = [];
  /** All words of these replicas, in order, as they were said. */
  readonly said = new Map<number, ReplicaPledge[]>();
  readonly #places = new Map<string, string>();

  /** To be called with everything that is sent. */
  heard(from: number, message: ReplicaMessage): void {
    const word = wordOf(message);
    if (word === null) return;
    const place = `${from} ${word.place}`;
    const before = this.#places.get(place);
    if (before === word.digest) return;
    if (before === undefined) this.#places.set(place, word.digest);
    else this.doubles.push(place);
    const said = this.said.get(from) ?? [];
    if (message.kind === 'view-change' && said.some((before) => before.kind === 'commit' && denies(message, before)))
      this.doubles.push(`${from} denies a commit`);
    if (isPledge(message)) said.push(message);
    this.said.set(from, said);
  }
}

/** Watches all that is sent; `lie` may change it afterwards. */
export function witness(cluster: Cluster, lie: Tamper = (_from, _to, message) => message): Witness {
  const watching = new Witness();
  cluster.tamper = (from, to, message) => {
    // A liar's own words are its business.
    if (!cluster.byzantine.has(from)) watching.heard(from, message);
    return lie(from, to, message);
  };
  return watching;
}

function isPledge(message: ReplicaMessage): message is ReplicaPledge {
  return ['prepare', 'commit', 'view-change', 'new-view', 'checkpoint'].includes(message.kind);
}

function wordOf(message: ReplicaMessage): { readonly place: string; readonly digest: string } | null {
  switch (message.kind) {
    case 'pre-prepare': {
      const { header, hash } = message.block;
      return { place: `prepare ${message.view} ${header.height}`, digest: toHex(hash) };
    }
    case 'prepare':
    case 'commit':
      return { place: `${message.kind} ${message.view} ${message.height}`, digest: toHex(message.hash) };
    case 'checkpoint':
      return { place: `checkpoint ${message.height}`, digest: toHex(message.stateDigest) };
    case 'view-change':
    case 'new-view':
      return { place: `${message.kind} ${message.view}`, digest: toHex(native.sha256(encodePayload(message))) };
    default:
      return null;
  }
}
