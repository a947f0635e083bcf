// Amnesia for clusters in virtual time: a replica's disk and guard are lost, it comes back in quarantine, and somebody outside remembers
// every word that it ever signed.

import { createHash } from 'node:crypto';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { encodePayload } from '../protocol/codec.ts';
import { denies } from '../protocol/conflict.ts';
import type { Input, Ready } from '../protocol/core.ts';
import type { PbftMessage, PbftPledge } from '../protocol/messages.ts';
import { Pbft } from '../protocol/pbft/pbft.ts';
import type { Readmission } from '../protocol/pbft/quarantine.ts';
import type { PbftOptions, PbftRecovery } from '../protocol/pbft/recover.ts';
import type { Millis, View } from '../protocol/types.ts';
import { asEpoch, asHeight, asMillis, asView } from '../protocol/types.ts';
import { type Cluster, ModelDisk, ModelGuard, type Tamper } from './cluster.ts';

/** The guard of keys/guard.ts in quarantine: whoever asks it for a pledge has broken REC-1. */
export class ForgetfulGuard extends ModelGuard {
  quarantined = true;
  abstained: Readmission = { view: asView(0), height: asHeight(0) };

  readmit({ view, height, prepared }: NonNullable<Ready<PbftMessage, PbftPledge>['readmit']>): void {
    this.quarantined = false;
    this.abstained = { view, height };
    this.lock = prepared;
    // What daemon/node.ts gives to the core as the highest view of any mark.
    this.view = asView(Math.max(this.view, view));
  }

  override lead(view: View): boolean {
    if (this.quarantined) throw new Error('asked to lead in quarantine');
    return view > this.abstained.view && super.lead(view);
  }

  override promise(pledge: PbftPledge, payload: Uint8Array): boolean {
    if (this.quarantined) throw new Error(`asked for a ${pledge.kind} in quarantine`);
    if ('view' in pledge && pledge.view <= this.abstained.view) return false;
    if ('height' in pledge && pledge.height <= this.abstained.height) return false;
    return super.promise(pledge, payload);
  }
}

/** The daemon's part of a readmission: the guard makes it durable, then the core hears of it. */
class Readmitted extends Pbft {
  readonly #guard: ForgetfulGuard;
  #back: Input<PbftMessage, PbftPledge>[] = [];

  constructor(options: PbftOptions, recovery: PbftRecovery, now: Millis, guard: ForgetfulGuard) {
    super(options, recovery, now);
    this.#guard = guard;
  }

  override step(inputs: readonly Input<PbftMessage, PbftPledge>[], now: Millis): Ready<PbftMessage, PbftPledge> {
    const ready = super.step([...this.#back.splice(0), ...inputs], now);
    if (ready.readmit === null) return ready;
    this.#guard.readmit(ready.readmit);
    const { view, height } = ready.readmit;
    this.#back.push({ type: 'readmitted', view, height });
    return { ...ready, wakeAt: asMillis(now + 1) };
  }
}

/** Everything is lost; it starts again with nothing but its key. */
export function wipe(cluster: Cluster, id: number): ForgetfulGuard {
  cluster.crash(id);
  const guard = new ForgetfulGuard();
  const node = cluster.nodes[id]!;
  node.disk = new ModelDisk();
  node.guard = guard;
  bootForgetful(cluster, id);
  return guard;
}

/** Starts a replica that was wiped, whether its quarantine is over or not. */
export function bootForgetful(cluster: Cluster, id: number): void {
  const node = cluster.nodes[id]!;
  const guard = node.guard;
  if (!(guard instanceof ForgetfulGuard)) throw new Error('it was not wiped');
  // The cluster starts a core of its own, which knows nothing of quarantines: with empty hands, and it never takes a step.
  const { disk } = node;
  node.disk = new ModelDisk();
  cluster.boot(id);
  node.disk = disk;
  const nonce = createHash('sha256').update(`${id} ${node.life}`).digest();
  node.core = new Readmitted(
    { genesis: cluster.genesis, epoch: asEpoch(0), self: node.id, sha256: native.sha256 },
    {
      log: node.disk.recover(),
      guard: { view: guard.view, led: guard.led, lock: guard.lock, abstained: guard.abstained.view },
      quarantine: guard.quarantined ? { nonce, abstained: guard.abstained } : null,
    },
    asMillis(Math.floor(cluster.now)),
    guard,
  );
}

/** What a snapshot of a whole disk holds: log and marks of one moment. */
export function snapshot(cluster: Cluster, id: number): { readonly disk: ModelDisk; readonly guard: ModelGuard } {
  const { disk, guard } = cluster.nodes[id]!;
  return { disk: copyOf(disk, new ModelDisk()), guard: copyOf(guard, new ModelGuard()) };
}

/** Its disk is put back to the snapshot, and it starts again. */
export function rollBack(cluster: Cluster, id: number, to: ReturnType<typeof snapshot>): void {
  cluster.crash(id);
  Object.assign(cluster.nodes[id]!, to);
  cluster.boot(id);
}

/** Maps, and the lists in them, are copied; what else they hold is never changed in place. */
function copyOf<T extends object>(from: T, to: T): T {
  const copied = (value: unknown) => (Array.isArray(value) ? [...value] : value);
  for (const [name, value] of Object.entries(from)) {
    const kept = value instanceof Map ? new Map([...value].map(([key, each]) => [key, copied(each)])) : value;
    Object.assign(to, { [name]: kept });
  }
  return to;
}

/** Remembers what each replica has ever signed, over all of its lives. */
export class Witness {
  /** Two different words of one key at one place, or a view-change that denies a commit (ACC-3). */
  readonly doubles: string[] = [];
  /** All words of these replicas, in order, as they were said. */
  readonly said = new Map<number, PbftPledge[]>();
  readonly #places = new Map<string, string>();

  /** To be called with everything that is sent. */
  heard(from: number, message: PbftMessage): void {
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

function isPledge(message: PbftMessage): message is PbftPledge {
  return ['prepare', 'commit', 'view-change', 'new-view', 'checkpoint'].includes(message.kind);
}

function wordOf(message: PbftMessage): { readonly place: string; readonly digest: string } | null {
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
