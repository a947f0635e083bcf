// A whole cluster in one thread and in virtual time: the real cores, the real rules of the vote guard, the real certificates and sessions; and
// simulated disks, clocks and links between them. Everything comes from one seed, so a failing run is replayed by its seed alone.

import type { Bytes } from '../crypto/bytes.ts';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { decidedSigningBytes } from '../protocol/certificate.ts';
import type { Audience, Decided, Ready } from '../protocol/core.ts';
import { describeMessage } from '../protocol/describe.ts';
import { genesisEpoch } from '../protocol/epoch/document.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import type { Height, ReplicaId } from '../protocol/types.ts';
import { asHeight, asReplicaId } from '../protocol/types.ts';
import { SeenSignatures } from '../protocol/verify.ts';
import { isRequest } from './answers.ts';
import { CheckFailure, Checks, fail } from './checks.ts';
import { KnownEpochs } from './epochs.ts';
import { ClusterEvent, type ClusterRefusal } from './events.ts';
import type { Reaches } from './hosts.ts';
import { Hosts, isAmong } from './hosts.ts';
import { memberIn, nodeOf } from './membership.ts';
import type { Faults, Tamper, Weather } from './network.ts';
import { Network } from './network.ts';
import type { ClusterOptions } from './options.ts';
import { Dice, seedOf } from './random.ts';
import type { CrashPoint, Interrupted, Surroundings } from './replica.ts';
import { SimReplica } from './replica.ts';
import { Seals } from './seals.ts';
import { servingOf } from './serving.ts';
import { settingOf } from './setting.ts';
import { keyPair, standInCrypto, standInKey } from './signatures.ts';
import { Timeline } from './timeline.ts';
import { Trace } from './trace.ts';

export { calm, type Faults, type Tamper } from './network.ts';
export type { ClusterOptions } from './options.ts';

/** Real signatures that are remembered as valid. */
const SEEN_MAX = 32_768;

/** Every so many steps of a replica what it holds is looked at. */
const STEPS_PER_LOOK = 32;

export class Cluster {
  readonly genesis: Genesis;
  /** By place; they sign for whoever plays a replica's part. */
  readonly keys: readonly SimulationKey[];
  readonly operators: readonly SimulationKey[];
  readonly nodes: readonly SimReplica[];
  /** Who answers under whose name: beside `nodes` second hosts with a key of theirs. */
  readonly hosts: Hosts;
  readonly timeline = new Timeline();
  readonly trace = new Trace();
  readonly checks: Checks;
  readonly network: Network;
  /** For whoever plays the adversary. */
  readonly dice: Dice;
  /** Blocks delivered per replica in its present life, in order. */
  readonly delivered: Decided[][];
  readonly refusals: ClusterRefusal[] = [];
  readonly evidence: { readonly at: ReplicaId; readonly culprit: ReplicaId }[] = [];
  readonly events: ClusterEvent[] = [];
  tamper: Tamper | null = null;
  /** Replicas in the hand of an adversary: what they say and deliver is not checked, and where such a core gives up it is down. */
  readonly byzantine = new Set<number>();
  /** Replicas on an older disk that do not know it: what they sign may contradict what they have signed, and is not held against them. */
  readonly rolledBack = new Set<number>();
  /** Asked at each point of a write whether the process ends there. */
  strikes: (replica: SimReplica, point: CrashPoint) => boolean = () => false;
  /** How long a write of this replica takes beyond what is usual. */
  slowMs: (replica: ReplicaId) => number = () => 0;
  /** A core threw: true where that is no failure, and its process just ends. */
  forgives: (replica: SimReplica, error: unknown) => boolean = () => false;
  viewChanges = 0;
  readmissions = 0;
  /** Of all replicas, that came to an end. */
  turns = 0;
  readonly #hasHistory: boolean;
  readonly #epochs: KnownEpochs;
  readonly #seals: Seals;
  readonly #heights: number[];
  /** Heights that a replica delivered in any of its lives. */
  readonly #deliveredEver: Set<number>[];

  constructor({
    n: memberCount = 4,
    spare = 0,
    seed = 1,
    protocol = 'pbft',
    parameters = {},
    realSignatures = false,
    operators: withOperators = false,
    history = true,
    Replica = SimReplica,
  }: ClusterOptions = {}) {
    const setting = settingOf(memberCount, parameters, { realSignatures, protocol, operators: withOperators });
    const { genesis } = setting;
    const n = memberCount + spare;
    const more = (kind: string) =>
      Array.from({ length: spare }, (_, i) => (realSignatures ? keyPair : standInKey)(`${kind}-${memberCount + i}`));
    const keys = [...setting.keys, ...more('replica')];
    const operators = [...setting.operators, ...more('operator')];
    this.genesis = genesis;
    this.operators = operators;
    this.keys = keys;
    this.dice = new Dice(seed);
    this.#hasHistory = history;
    const crypto: Crypto = realSignatures ? native : standInCrypto;
    this.#epochs = new KnownEpochs(crypto, realSignatures ? new SeenSignatures(SEEN_MAX) : undefined);
    this.#epochs.know(genesisEpoch(native.sha256, genesis));
    this.#seals = new Seals({
      epochs: this.#epochs,
      chainId: genesis.chainId,
      isReal: realSignatures,
      keys,
      nodeOf: (id) => this.nodes[id],
      refused: (at, from, code, kind) => {
        if (history) this.refusals.push({ at, from, code, kind });
      },
    });
    const contextOf = (epoch: number) => this.#epochs.contextOf(epoch);
    this.checks = new Checks(contextOf, n, (id) => {
      const { guard, disk } = this.nodes[id]!;
      const { marks, lock } = guard.durable;
      return { marks, lock, disk };
    });
    this.delivered = keys.map(() => []);
    this.#deliveredEver = keys.map(() => new Set());
    this.#heights = keys.map(() => 0);
    this.network = new Network({
      n,
      seed: seedOf(seed, 1),
      timeline: this.timeline,
      receiver: {
        arrive: (from, to, signed) => this.#arrive(from, to, signed),
        arriveBytes: (from, to, bytes) => {
          for (const host of this.hosts.at(to, from)) host.arriveBytes(from, bytes);
        },
        frameOf: (signed) => this.frameOf(signed),
      },
    });
    const surroundings = this.#surroundings(seedOf(seed, 2));
    this.nodes = keys.map((_, id) => new Replica(asReplicaId(id), surroundings));
    // What it does is nobody's business but its peers'.
    const apart = { ...surroundings, observe: () => {}, followed: () => {}, strikes: () => false };
    this.hosts = new Hosts(this.nodes, (id) => new Replica(id, apart));
    for (const { id } of this.nodes) this.boot(id);
  }

  /** A key that a replica will have. */
  bringKey(key: SimulationKey): void {
    this.#epochs.bringKey(key);
  }

  /** The key of a node in its epoch. */
  keyOf(id: number): SimulationKey {
    return this.#seals.keyOf(id);
  }

  #surroundings(seed: number): Surroundings {
    const diskDice = this.keys.map((_, id) => new Dice(seedOf(seed, id)));
    return {
      timeline: this.timeline,
      genesis: this.genesis,
      writeMs: (id) => diskDice[id]!.between(...this.faults.writeMs) + this.slowMs(id),
      sign: (id, message, payload) => this.#seals.sign(id, message, payload),
      verify: (id, signed) => this.#seals.verified(id, signed),
      verifyBytes: (id, bytes) => this.#seals.verifiedBytes(id, bytes),
      signDecided: (id, place) => this.#seals.keyOf(id).sign(decidedSigningBytes(this.genesis.chainId, place)),
      send: (from, to, signed) => this.#send(from, to, signed),
      answer: (from, to, signed) => this.#answer(from, to, signed),
      ...servingOf({ nodes: () => this.nodes, network: this.network, epochs: this.#epochs, genesis: this.genesis }),
      observe: (replica, ready) => this.#observe(replica, ready),
      followed: ({ id }, block) => this.byzantine.has(id) || this.checks.followed(id, block),
      began: (replica) => this.#began(replica),
      broke: (replica, error) => this.#broke(replica, error),
      strikes: (replica, point) => this.strikes(replica, point),
    };
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  get now(): number {
    return this.timeline.now;
  }
  get start(): number {
    return this.timeline.start;
  }

  after(ms: number, run: () => void): void {
    this.timeline.after(ms, run);
  }

  /** Runs until the condition holds; false where `ms` of virtual time passed before. */
  until(condition: () => boolean, ms: number): boolean {
    return this.timeline.until(condition, ms);
  }

  run(ms: number): void {
    this.timeline.run(ms);
  }

  random = (): number => this.dice.next();

  between([low, high]: readonly [number, number]): number {
    return this.dice.between(low, high);
  }

  // ---- the network --------------------------------------------------------------------------------------------------

  get faults(): Faults {
    return this.network.faults;
  }
  set faults(faults: Faults) {
    this.network.faults = faults;
  }
  get partition(): readonly (readonly number[])[] | null {
    return this.network.partition;
  }
  set partition(sides: readonly (readonly number[])[] | null) {
    this.network.partition = sides;
  }
  get messages(): number {
    return this.network.messages;
  }

  setWeather(from: number, to: number, weather: Weather): void {
    this.network.setWeather(from, to, weather);
  }

  // ---- life and death -----------------------------------------------------------------------------------------------

  boot(id: number, node = this.nodes[id]!): void {
    try {
      node.boot();
    } catch (error) {
      return this.#broke(node, error);
    }
    if (node === this.nodes[id]) this.delivered[id]!.length = 0;
    this.#starts(node);
    for (const other of this.nodes) {
      const isMine = other.id !== node.id && this.hosts.at(id, other.id).includes(node);
      if (isMine && !this.network.isSevered(id, other.id)) this.connect(id, other.id);
    }
  }

  #starts(node: SimReplica): void {
    const { id, epoch } = node;
    this.#epochs.know(epoch);
    if (node.core === null) return; // it observes
    const { height } = node.core.explain();
    this.#heights[id] = height;
    this.checks.booted(node.id, height, epoch.epoch, node.guard.quarantined || this.rolledBack.has(id));
    this.trace.add(this.now);
    this.trace.add(-1 - id);
    this.#say(id, () => `starts in epoch ${epoch.epoch} at height ${height}`);
  }

  /** Its connections are bound to the epoch that has ended: they come up anew. */
  #began(node: SimReplica): void {
    this.#starts(node);
    for (const other of this.nodes) {
      if (other === node || this.network.isSevered(node.id, other.id)) continue;
      this.#tell('disconnected', other, node);
      this.connect(node.id, other.id);
    }
  }

  /** A connection between the two comes up, where both of them are. */
  connect(a: number, b: number): void {
    this.#tellBoth('connected', a, b);
  }

  disconnect(a: number, b: number): void {
    this.#tellBoth('disconnected', a, b);
  }

  #tellBoth(type: 'connected' | 'disconnected', a: number, b: number): void {
    for (const one of this.hosts.at(a, b))
      for (const other of this.hosts.at(b, a)) {
        if (one.core === null || other.core === null) continue;
        this.#tell(type, one, other);
        this.#tell(type, other, one);
      }
  }

  /** By its number in the epoch of whoever is told; a stranger there is nobody. */
  #tell(type: 'connected' | 'disconnected', to: SimReplica, about: SimReplica): void {
    const peer = memberIn(to.epoch, about.id);
    if (to.core !== null && peer !== null) to.input({ type, peer });
  }

  crash(id: number, interrupted?: Interrupted): void {
    this.#end(this.nodes[id]!, interrupted);
  }

  #end(node: SimReplica, interrupted: Interrupted = { log: 'lost', guard: 'lost' }): void {
    if (!node.crash(interrupted)) return;
    const { id } = node;
    this.#say(id, () => `crashes; of what it was writing, log ${interrupted.log}, guard ${interrupted.guard}`);
    for (const other of this.nodes) {
      if (other.id === id || !this.hosts.at(id, other.id).includes(node)) continue;
      for (const peer of this.hosts.at(other.id, id)) this.#tell('disconnected', peer, node);
    }
  }

  /** A second process with this replica's key, on an empty disk: faulty from now on, whatever the two do. Default: both reach everybody. */
  twin(id: number, reaches: Reaches = () => true): SimReplica {
    this.byzantine.add(id);
    const second = this.hosts.add(asReplicaId(id), reaches);
    this.boot(id, second);
    return second;
  }

  #broke(replica: SimReplica, error: unknown): void {
    if (this.byzantine.has(replica.id)) return this.#end(replica);
    if (error instanceof CheckFailure) throw error;
    if (this.forgives(replica, error)) return this.#end(replica);
    // [PBFT-C-3] It has seen the fork, and stops for good.
    if (this.checks.mayFork && error instanceof InvariantViolation) return this.#end(replica);
    const message = error instanceof Error ? error.message : String(error);
    fail('no-invariant-breaks', `node-${replica.id}: ${message}`, error);
  }

  // ---- signing ------------------------------------------------------------------------------------------------------

  sign<M extends ReplicaMessage>(id: ReplicaId, message: M): Verified<M> {
    return this.#seals.sign(id, message);
  }

  frameOf(signed: Signed<ReplicaMessage>): Bytes {
    return this.#seals.frameOf(signed);
  }

  // ---- what is said -------------------------------------------------------------------------------------------------

  #send(host: SimReplica, to: Audience, signed: Signed<ReplicaMessage>): void {
    const { id, epoch } = host;
    this.#check(host, signed);
    for (const other of this.nodes) {
      const number = other.id === id ? null : memberIn(epoch, other.id);
      if (number !== null && isAmong(number, to)) this.#sendOne(host, other.id, signed);
    }
  }

  #answer(host: SimReplica, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    this.#check(host, signed);
    this.#sendOne(host, to, signed);
  }

  #check({ id, member }: SimReplica, signed: Signed<ReplicaMessage>): void {
    if (this.rolledBack.has(id) && signed.sender === member) this.checks.saidUnknowing(id, signed);
    else if (!this.byzantine.has(id)) this.checks.said(id, signed, signed.sender === member);
  }

  #sendOne(host: SimReplica, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    const from = host.id;
    if (!this.hosts.at(from, to).includes(host)) return;
    let sent = signed;
    if (this.tamper !== null) {
      const message = this.tamper(from, to, signed.message);
      if (message === null) return;
      if (message !== signed.message) sent = this.sign(from, message);
    }
    this.network.send(from, to, sent);
  }

  /** Says it in a replica's name, as an adversary with its key would. */
  inject(from: number, to: number, message: ReplicaMessage): void {
    const sender = asReplicaId(from);
    this.network.carry(sender, asReplicaId(to), this.sign(sender, message));
  }

  #arrive(from: ReplicaId, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    const hosts = this.hosts.at(to, from);
    if (hosts.every(({ core }) => core === null)) return;
    this.trace.add(this.now);
    this.trace.add(from * 256 + to);
    this.trace.addDigest(signed.signature);
    if (this.trace.sink !== null) this.#say(to, () => `hears node-${from}: ${describeMessage(signed.message)}`);
    for (const host of hosts) {
      const heard = this.#epochs.asHeardIn(host.epoch.epoch, signed) ?? (isRequest(signed.message) ? signed : null);
      if (heard !== null) host.arrive(from, heard);
    }
  }

  /** A line of the trace that is about no single replica. */
  remark(text: string): void {
    this.trace.sink?.(`${this.clockText()} ${text}`);
  }

  /** A line of the trace, where someone reads it. */
  #say(id: number, text: () => string): void {
    this.trace.sink?.(`${this.clockText()} node-${id} ${text()}`);
  }

  /** Seconds since the start, with milliseconds. */
  clockText(): string {
    return ((this.now - this.start) / 1000).toFixed(3).padStart(9);
  }

  // ---- what is decided ----------------------------------------------------------------------------------------------

  #observe(replica: SimReplica, ready: Ready<ReplicaMessage, ReplicaPledge>): void {
    const { id } = replica;
    if (!this.byzantine.has(id)) this.checks.kept(id, ready);
    if (this.#hasHistory) {
      for (const refusal of ready.refusals) this.refusals.push({ at: id, ...refusal });
      for (const { culprit } of ready.evidence) this.evidence.push({ at: id, culprit });
    }
    let installed: number | null = null;
    for (const event of ready.events) {
      if (event.type === 'readmitted') {
        this.readmissions += 1;
        if (!this.byzantine.has(id)) this.checks.readmitted(id, event);
      }
      if (event.type === 'view-change-started') this.viewChanges += 1;
      if (event.type === 'checkpoint-installed' && 'height' in event) installed = event.height;
      if (!this.#hasHistory && this.trace.sink === null) continue;
      const { type, ...detail } = event;
      if (this.#hasHistory) this.events.push(new ClusterEvent(id, this.now - this.start, type, detail));
      this.#say(id, () => `${type} ${JSON.stringify(detail)}`);
    }
    for (const decided of ready.deliver) {
      const { height } = decided.block.header;
      if (installed === height - 1) this.checks.installed(id, installed);
      this.#delivered(replica, decided);
    }
    if (installed !== null && installed > this.#heights[id]!) {
      this.checks.installed(id, installed);
      this.#heights[id] = installed;
    }
    this.checks.history.answers(id, ready.reads, this.#heights[id]!);
    this.turns += 1;
    if (this.turns % STEPS_PER_LOOK !== 0 || this.byzantine.has(id)) return;
    const held = replica.held();
    if (held !== null) this.checks.bounds(id, held);
  }

  #delivered({ id }: SimReplica, decided: Decided): void {
    const { height } = decided.block.header;
    this.#heights[id] = height;
    if (this.byzantine.has(id)) return;
    this.checks.decided(id, decided);
    if (this.#hasHistory) {
      this.delivered[id]!.push(decided);
      this.#deliveredEver[id]!.add(height);
    }
    this.#say(id, () => `decides height ${height}`);
  }

  /** The chain that the honest share, in hex, by height. */
  get chain(): Map<number, string> {
    return this.checks.chain;
  }

  submit(to: number, bundle: SignedBundle): void {
    this.nodes[to]!.input({ type: 'bundle', bundle });
  }

  /** The decided head of a replica; 0 while it is down. */
  height(id: number): Height {
    return asHeight(this.nodes[id]!.core === null ? 0 : this.#heights[id]!);
  }

  /** The height at which this replica itself executed a bundle, in any of its lives; undefined: it did not. */
  executedAt(id: number, bundle: SignedBundle): number | undefined {
    const at = this.placeOf(toHex(bundle.digest));
    return at !== undefined && this.#deliveredEver[id]!.has(at) ? at : undefined;
  }

  has(id: number, bundle: SignedBundle): boolean {
    return this.executedAt(id, bundle) !== undefined;
  }

  /** Of the latest view of the latest epoch that a replica which is up has reached. */
  get primary(): number {
    const latest = Math.max(...this.nodes.map(({ epoch }) => epoch.epoch));
    const { epoch } = this.nodes.find((node) => node.epoch.epoch === latest)!; // as just seen
    const views = this.nodes.map((node) =>
      node.epoch === epoch || node.epoch.epoch === latest ? (node.core?.explain().view ?? 0) : 0,
    );
    return nodeOf(epoch, asReplicaId(Math.max(...views) % epoch.members.length));
  }

  live(): number[] {
    return this.nodes.filter((node) => node.core !== null).map((node) => node.id);
  }

  /** Where the shared chain has this bundle. */
  placeOf(digest: string): number | undefined {
    return this.checks.executed.get(digest);
  }
}
