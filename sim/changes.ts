// Changes of the epoch as they come in a life: members come and go, keys are replaced, limits change, at any moment and sometimes two at once.
// The operators are careful in one thing: what is broken for ever stays within what the next epoch's members bear.

import { parameterNames } from '../protocol/genesis.ts';
import { bearsLies, mainsOf, membersMin, protocols, quorumsAmong, quorumsOf } from '../protocol/modes.ts';
import { type Change, signaturesNeeded } from '../protocol/verify.ts';
import type { Cluster } from './cluster.ts';
import type { EpochChange, Fault } from './faults.ts';
import { nodeOf } from './membership.ts';
import { Operators } from './operators.ts';
import { Dice } from './random.ts';

/** Nodes beside the first members, for those that come. */
export const SPARE_NODES = 3;
const MEMBERS_MAX = 7;
/** Drawn as often as they stand here. */
export const CHANGE_KINDS = [
  ...(['add', 'add', 'remove', 'rekey', 'rekey', 'parameter'] as const),
  ...(['operator-key', 'policy', 'address'] as const),
];
/** An operator or an address that goes, and no other comes: so often. */
const GONE = 0.2;
/** In a minute, where a life has any. */
const CHANGES_PER_MINUTE = [1, 14] as const;

/** [EPO-12] For a third of all lives; drawn apart from everything else, so that the draws of that stay what they were. */
export function drawChanges(
  dice: Dice,
  { ms, wanted }: { readonly ms: number; readonly wanted: boolean | null },
): Fault[] {
  if (!(wanted ?? dice.chance(0.34))) return [];
  const count = Math.max(1, Math.round((dice.between(...CHANGES_PER_MINUTE) * ms) / 60_000));
  const faults: Fault[] = [];
  for (let i = 0; i < count; i++) {
    const at = dice.between(100, ms - 1);
    const drawn = (): Fault => ({
      kind: 'change',
      at,
      lasts: 0,
      what: dice.pick(CHANGE_KINDS),
      pick: dice.between(0, 1_000_000),
    });
    faults.push(drawn());
    // Two that cannot both be: the one that is decided first ends the epoch of the other.
    if (dice.chance(0.15)) faults.push(drawn());
  }
  return faults;
}

/** The faults of a life with its changes behind them. Who is deaf for ever is so alone, and not with the spare nodes. */
export function withChanges(faults: readonly Fault[], changes: readonly Fault[], n: number): Fault[] {
  if (changes.length === 0) return [...faults];
  const spare = Array.from({ length: SPARE_NODES }, (_, i) => n + i);
  const isDeafness = (fault: Fault) =>
    fault.kind === 'one-way-partition' && fault.lasts === null && fault.side.length === n - 1;
  return [
    ...faults.map((fault) =>
      isDeafness(fault) && 'side' in fault ? { ...fault, side: [...fault.side, ...spare] } : fault,
    ),
    ...changes,
  ];
}

export class Changes {
  readonly #cluster: Cluster;
  readonly #operators: Operators;
  readonly #broken: ReadonlySet<number>;

  /** @param broken nodes that are in an adversary's hand, or broken from some time on for ever */
  constructor(cluster: Cluster, { broken, realSignatures }: { broken: ReadonlySet<number>; realSignatures: boolean }) {
    this.#cluster = cluster;
    this.#operators = new Operators(cluster, realSignatures);
    this.#broken = broken;
  }

  /** The nodes that are members of the latest epoch. */
  get members(): readonly number[] {
    return this.#operators.members;
  }

  /** Those of them that keep the log: in Cheap Paxos not all do. */
  get mains(): readonly number[] {
    const { epoch } = this.#operators;
    return mainsOf(epoch).map((id) => nodeOf(epoch, id));
  }

  /** Handed to every replica that is up; where it cannot be done as things stand, nothing happens. */
  submit({ what, pick }: EpochChange): void {
    const bundle = this.#bundle(what, pick);
    if (bundle === null) return;
    for (const id of this.#cluster.live()) this.#cluster.submit(id, bundle);
  }

  #bundle(what: EpochChange['what'], pick: number) {
    const operators = this.#operators;
    const { members, epoch } = operators;
    const dice = new Dice(pick);
    const among = (nodes: readonly number[]) => nodes[pick % nodes.length];
    switch (what) {
      case 'add': {
        const node = among(this.#cluster.nodes.map(({ id }) => Number(id)).filter((id) => this.#mayCome(id)));
        return node === undefined || members.length >= MEMBERS_MAX ? null : operators.add(node, this.#signers(dice));
      }
      case 'remove': {
        const node = among(members.filter((id) => this.#mayGo(id)));
        return node === undefined ? null : operators.bundle(this.#removal(node), [], this.#signers(dice));
      }
      case 'rekey': {
        const node = among(members.filter((id) => !this.#broken.has(id)));
        return node === undefined ? null : operators.rekey(node, this.#signers(dice, node));
      }
      case 'parameter': {
        const change = (pick % 2 === 0 ? this.#protocol(pick / 2) : null) ?? this.#setting(pick);
        return operators.bundle([change], [], this.#signers(dice));
      }
      case 'operator-key': {
        const name = `node-${dice.pick(members)}`;
        const { need, operators: count } = signaturesNeeded(epoch);
        const gone = count > need && dice.chance(GONE);
        const operatorKey = gone ? null : operators.newOperatorKey(name);
        return operators.bundle([{ change: 'replace-operator-key', name, operatorKey }], [], this.#signers(dice));
      }
      case 'policy':
        return operators.bundle([{ change: 'set-policy', policy: this.#policy(dice) }], [], this.#signers(dice));
      case 'address': {
        const node = dice.pick(members);
        const address = dice.chance(GONE) ? null : `ws://10.0.0.${node}:${dice.between(1_024, 65_535)}`;
        const changes = [{ change: 'change-address', name: `node-${node}`, address }] as const;
        return operators.bundle(changes, [], this.#signers(dice, node));
      }
    }
  }

  /**
   * [EPO-3] Not one more than it takes: as many as the policy wants, whoever they are; now and then the operator of the one member that is concerned,
   * where it suffices.
   */
  #signers(dice: Dice, own?: number): readonly number[] {
    const { epoch } = this.#operators;
    const able = epoch.members
      .filter(({ operatorKey }) => operatorKey !== undefined)
      .map(({ id }) => nodeOf(epoch, id));
    const isOld = this.#cluster.chain.size >= epoch.start.height + epoch.parameters.checkpointInterval;
    if (own !== undefined && isOld && able.includes(own) && dice.chance(0.5)) return [own];
    return dice.shuffled(able).slice(0, signaturesNeeded(epoch).need);
  }

  /** Those that are borne cannot take the network over, and every operator may be wanted. */
  #policy(dice: Dice) {
    const { epoch } = this.#operators;
    const { f } = quorumsOf(epoch);
    const { operators } = signaturesNeeded(epoch);
    return { signatures: dice.chance(0.2) ? 'quorum' : dice.between(f + 1, operators) } as const;
  }

  /** A policy that those who stay could not meet goes with the member. */
  #removal(node: number): Change[] {
    const { epoch } = this.#operators;
    const name = `node-${node}`;
    const members = epoch.members.filter((member) => member.name !== name);
    const { need, operators } = signaturesNeeded({ ...epoch, members });
    const removal: Change = { change: 'remove-member', name };
    return need > operators ? [removal, { change: 'set-policy', policy: { signatures: 'quorum' } }] : [removal];
  }

  /** Never before a member: a key is a member's once. */
  #mayCome(node: number): boolean {
    return node >= this.#cluster.genesis.members.length && !this.#cluster.nodes[node]!.wasMember;
  }

  #mayGo(node: number): boolean {
    const { members } = this.#operators;
    const after = members.filter((id) => id !== node);
    const broken = after.filter((id) => this.#broken.has(id)).length;
    const { protocol } = this.#operators.epoch;
    return after.length >= membersMin(protocol) && broken <= quorumsAmong(protocol, after.length).f;
  }

  /**
   * Another protocol; null: none. Only where members are trusted in all of them: a liar that PBFT bears, the others do not. And to Cheap Paxos only in lives
   * that begin with it, since those have times in which all mains are well (life.ts).
   */
  #protocol(pick: number): Change | null {
    const { genesis } = this.#cluster;
    if (bearsLies(genesis.protocol)) return null;
    const { members } = this.#operators;
    const broken = members.filter((id) => this.#broken.has(id)).length;
    const others = protocols.filter(
      (each) =>
        each !== this.#operators.epoch.protocol &&
        (each !== 'cheap-paxos' || genesis.protocol === 'cheap-paxos') &&
        members.length >= membersMin(each) &&
        broken <= quorumsAmong(each, members.length).f,
    );
    const protocol = others[pick % others.length];
    return protocol === undefined ? null : { change: 'set-protocol', protocol };
  }

  #setting(pick: number): Change {
    const { parameters } = this.#operators.epoch;
    const choices = {
      window: [1, 4, 8],
      checkpointInterval: [16, 32, 64],
      blockBundlesMax: [64, 256, 1024],
      viewTimeoutMs: [400, 500, 700],
    };
    const all = parameterNames.flatMap((parameter) =>
      (parameter in choices ? choices[parameter as keyof typeof choices] : [])
        .filter((value) => value !== parameters[parameter])
        .map((value) => ({ change: 'set-parameter', parameter, value }) as const),
    );
    return all[pick % all.length]!; // of each there are two others
  }
}
