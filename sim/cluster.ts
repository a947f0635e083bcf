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
import { decodeFrame, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type { Audience, Decided, Ready } from '../protocol/core.ts';
import type { Genesis, GenesisDocument } from '../protocol/genesis.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Protocol } from '../protocol/modes.ts';
import { quorumsOf } from '../protocol/modes.ts';
import type { Height, ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHeight, asReplicaId } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { openFrame, SeenSignatures, signingBytes, verifyMessage } from '../protocol/verify.ts';
import { CheckFailure, Checks, fail } from './checks.ts';
import type { Faults, Tamper, Weather } from './network.ts';
import { Network } from './network.ts';
import { Dice, seedOf } from './random.ts';
import type { CrashPoint, Interrupted, Surroundings } from './replica.ts';
import { SimReplica } from './replica.ts';
import { settingOf } from './setting.ts';
import { PLAIN_KINDS, standInCrypto } from './signatures.ts';
import { Timeline } from './timeline.ts';
import { describeMessage, Trace } from './trace.ts';
import type { Reaches } from './twins.ts';
import { Twins } from './twins.ts';

export { calm, type Faults, type Tamper } from './network.ts';

export interface ClusterOptions {
  /** 4 to 128; 3 to 128 where members are trusted. Default: 4. */
  readonly n?: number;
  readonly seed?: number;
  /** Default: pbft. */
  readonly protocol?: Protocol;
  readonly parameters?: GenesisDocument['parameters'];
  /** Ed25519, and every message through its bytes. Default: stand-ins, and messages go by value. */
  readonly realSignatures?: boolean;
  /** Whether `delivered`, `executedAt`, `events`, `refusals` and `evidence` are written down; they grow with time. Default: yes. */
  readonly history?: boolean;
  /** What each replica is; a planted bug is a class of its own. */
  readonly Replica?: typeof SimReplica;
}

/** What a core said of itself. */
export class ClusterEvent {
  readonly at: ReplicaId;
  /** Milliseconds from the start. */
  readonly time: number;
  readonly type: string;
  readonly #fields: object;

  constructor(at: ReplicaId, time: number, type: string, fields: object) {
    this.at = at;
    this.time = time;
    this.type = type;
    this.#fields = fields;
  }

  /** As JSON; made only when it is asked for. */
  get detail(): string {
    return JSON.stringify(this.#fields);
  }
}

/** Real signatures that are remembered as valid. */
const SEEN_MAX = 32_768;

/** Every so many steps of a replica what it holds is looked at. */
const STEPS_PER_LOOK = 32;

const unharmed: Interrupted = { log: 'lost', guard: 'lost' };

export class Cluster {
  readonly genesis: Genesis;
  /** By place; they sign for whoever plays a replica's part. */
  readonly keys: readonly SimulationKey[];
  readonly nodes: readonly SimReplica[];
  readonly timeline = new Timeline();
  readonly trace = new Trace();
  readonly checks: Checks;
  readonly network: Network;
  /** For whoever plays the adversary. */
  readonly dice: Dice;
  /** Blocks delivered per replica in its present life, in order. */
  readonly delivered: Decided[][];
  readonly refusals: {
    readonly at: ReplicaId;
    readonly from: ReplicaId;
    readonly code: string;
    readonly kind: string;
  }[] = [];
  readonly evidence: { readonly at: ReplicaId; readonly culprit: ReplicaId }[] = [];
  readonly events: ClusterEvent[] = [];
  tamper: Tamper | null = null;
  /** Replicas in the hand of an adversary: what they say and deliver is not checked, and where such a core gives up it is down. */
  readonly byzantine = new Set<number>();
  /** Asked at each point of a write whether the process ends there. */
  strikes: (replica: SimReplica, point: CrashPoint) => boolean = () => false;
  /** How long a write of this replica takes beyond what is usual. */
  slowMs: (replica: ReplicaId) => number = () => 0;
  viewChanges = 0;
  readonly #crypto: Crypto;
  readonly #real: boolean;
  readonly #hasHistory: boolean;
  readonly #verify: VerifyContext;
  /** Stand-ins are checked once for each message, not once for each who hears it: the answer is the same. */
  readonly #verdicts = new WeakMap<Signed<ReplicaMessage>, Verified<ReplicaMessage> | string>();
  readonly #heights: number[];
  /** Heights that a replica delivered in any of its lives. */
  readonly #deliveredEver: Set<number>[];
  #steps = 0;
  readonly #world: Surroundings;
  readonly #twins = new Twins();

  constructor({
    n = 4,
    seed = 1,
    protocol = 'pbft',
    parameters = {},
    realSignatures = false,
    history = true,
    Replica = SimReplica,
  }: ClusterOptions = {}) {
    const { genesis, keys } = settingOf(n, parameters, { realSignatures, protocol });
    this.genesis = genesis;
    this.keys = keys;
    this.dice = new Dice(seed);
    this.#real = realSignatures;
    this.#hasHistory = history;
    this.#crypto = realSignatures ? native : standInCrypto;
    const context = (seen: SeenSignatures | undefined): VerifyContext => ({
      crypto: this.#crypto,
      chainId: genesis.chainId,
      epoch: asEpoch(0),
      members: genesis.members,
      quorum: quorumsOf(genesis).quorum,
      protocol: genesis.protocol,
      parameters: genesis.parameters,
      seen,
    });
    // One memory for all: what is valid for one of them is valid for each.
    this.#verify = context(realSignatures ? new SeenSignatures(SEEN_MAX) : undefined);
    this.checks = new Checks(this.#verify, (id) => {
      const { guard, disk } = this.nodes[id]!;
      return { ...guard.durable, disk };
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
          this.#twins.secondHearing(to, from)?.arriveBytes(from, bytes);
          if (this.#twins.firstReaches(to, from)) this.nodes[to]!.arriveBytes(from, bytes);
        },
        frameOf: (signed) => this.frameOf(signed),
      },
    });
    this.#world = this.#surroundings(seedOf(seed, 2));
    this.nodes = keys.map((_, id) => new Replica(asReplicaId(id), this.#world));
    for (const { id } of this.nodes) this.boot(id);
  }

  #surroundings(seed: number): Surroundings {
    const diskDice = this.keys.map((_, id) => new Dice(seedOf(seed, id)));
    return {
      timeline: this.timeline,
      genesis: this.genesis,
      writeMs: (id) => diskDice[id]!.between(...this.faults.writeMs) + this.slowMs(id),
      sign: (id, message) => this.sign(id, message),
      verify: (id, signed) => this.#verified(id, signed),
      verifyBytes: (id, bytes) => this.#verifiedBytes(id, bytes),
      signDecided: (id, place) => this.keys[id]!.sign(decidedSigningBytes(this.genesis.chainId, place)),
      send: (from, to, signed) => this.#send(from, to, signed),
      observe: (replica, ready) => this.#observe(replica, ready),
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

  boot(id: number): void {
    const node = this.nodes[id]!;
    try {
      node.boot();
    } catch (error) {
      return this.#broke(node, error);
    }
    this.delivered[id]!.length = 0;
    const { height } = node.core!.explain(); // just booted
    this.#heights[id] = height;
    this.checks.booted(node.id, height);
    this.trace.add(this.now);
    this.trace.add(-1 - id);
    this.#say(id, () => `starts at height ${height}`);
    for (const other of this.nodes) {
      if (other !== node && !this.network.isSevered(id, other.id)) this.connect(id, other.id);
    }
  }

  /** A connection between the two comes up, where both of them are. */
  connect(a: number, b: number): void {
    this.#tellBoth('connected', this.nodes[a]!, this.nodes[b]!);
  }

  disconnect(a: number, b: number): void {
    this.#tellBoth('disconnected', this.nodes[a]!, this.nodes[b]!);
  }

  #tellBoth(type: 'connected' | 'disconnected', a: SimReplica, b: SimReplica): void {
    if (a.core === null || b.core === null) return;
    a.input({ type, peer: b.id });
    b.input({ type, peer: a.id });
  }

  crash(id: number, interrupted: Interrupted = unharmed): void {
    const node = this.nodes[id]!;
    if (!node.crash(interrupted)) return;
    this.#say(id, () => `crashes; of what it was writing, log ${interrupted.log}, guard ${interrupted.guard}`);
    for (const other of this.nodes) if (other.core !== null) other.input({ type: 'disconnected', peer: node.id });
  }

  /** A second process with this replica's key: faulty from now on, whatever the two do. Default: both reach everybody. */
  twin(id: number, reaches: Reaches = () => true): SimReplica {
    this.byzantine.add(id);
    const self = asReplicaId(id);
    const ids = this.nodes.map((node) => node.id);
    const sendOne = (to: ReplicaId, signed: Signed<ReplicaMessage>) => this.network.send(self, to, signed);
    return this.#twins.add(self, { world: this.#world, ids, sendOne, reaches });
  }

  #broke(replica: SimReplica, error: unknown): void {
    if (this.byzantine.has(replica.id)) return this.crash(replica.id);
    if (error instanceof CheckFailure) throw error;
    // [PBFT-C-3] It has seen the fork, and stops for good.
    if (this.checks.mayFork && error instanceof InvariantViolation) return this.crash(replica.id);
    const message = error instanceof Error ? error.message : String(error);
    fail('no-invariant-breaks', `node-${replica.id}: ${message}`, error);
  }

  // ---- signing and checking -----------------------------------------------------------------------------------------

  sign<M extends ReplicaMessage>(id: ReplicaId, message: M): Verified<M> {
    const payload = encodePayload(message);
    const bytes = signingBytes(this.genesis.chainId, message, payload);
    const signature = this.keys[id]!.sign(bytes);
    const signed = asVerified({ sender: id, message, payload, signature });
    // Messages go by value here, so what was signed a line ago need not be looked at again.
    if (!this.#real && PLAIN_KINDS.has(message.kind)) this.#verdicts.set(signed, signed);
    return signed;
  }

  frameOf({ message, payload, sender, signature }: Signed<ReplicaMessage>): Bytes {
    return encodeFrame({ kind: message.kind, payload, sender: this.genesis.members[sender]!.publicKey, signature });
  }

  #verified(at: ReplicaId, signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null {
    if (this.#real) return this.#verifiedBytes(at, this.frameOf(signed));
    let verdict = this.#verdicts.get(signed);
    if (verdict === undefined) {
      const verified = verifyMessage(signed, this.#verify);
      verdict = isRefusal(verified) ? verified.refused : verified;
      this.#verdicts.set(signed, verdict);
    }
    if (typeof verdict !== 'string') return verdict;
    if (this.#hasHistory) this.refusals.push({ at, from: signed.sender, code: verdict, kind: signed.message.kind });
    return null;
  }

  #verifiedBytes(at: ReplicaId, bytes: Bytes): Verified<ReplicaMessage> | null {
    const context = this.#verify;
    const frame = decodeFrame(bytes);
    const signed = isRefusal(frame) ? frame : openFrame(frame, context);
    const verified = isRefusal(signed) ? signed : verifyMessage(signed, context);
    if (!isRefusal(verified)) return verified;
    const from = isRefusal(signed) ? at : signed.sender;
    const kind = isRefusal(frame) ? 'frame' : frame.kind;
    if (this.#hasHistory) this.refusals.push({ at, from, code: verified.refused, kind });
    return null;
  }

  // ---- what is said -------------------------------------------------------------------------------------------------

  #send(from: ReplicaId, to: Audience, signed: Signed<ReplicaMessage>): void {
    if (!this.byzantine.has(from)) this.checks.said(from, signed);
    if (typeof to === 'number') return this.#sendOne(from, to, signed);
    if (to !== 'all') for (const one of to) this.#sendOne(from, one, signed);
    if (to !== 'all') return;
    for (const other of this.nodes) if (other.id !== from) this.#sendOne(from, other.id, signed);
  }

  #sendOne(from: ReplicaId, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    if (!this.#twins.firstReaches(from, to)) return;
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
    const node = this.nodes[to]!;
    this.#twins.secondHearing(to, from)?.arrive(from, signed);
    if (node.core === null || !this.#twins.firstReaches(to, from)) return;
    this.trace.add(this.now);
    this.trace.add(from * 256 + to);
    this.trace.addDigest(signed.signature);
    if (this.trace.sink !== null) this.#say(to, () => `hears node-${from}: ${describeMessage(signed.message)}`);
    node.arrive(from, signed);
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
    for (const { type, ...detail } of ready.events) {
      if (type === 'view-change-started') this.viewChanges += 1;
      if (type === 'checkpoint-installed' && 'height' in detail) installed = detail.height;
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
    this.#steps += 1;
    if (this.#steps % STEPS_PER_LOOK !== 0 || this.byzantine.has(id)) return;
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

  /** Of the latest view that a replica which is up has reached. */
  get primary(): number {
    const views = this.nodes.map(({ core }) => core?.explain().view ?? 0);
    return Math.max(...views) % views.length;
  }

  live(): number[] {
    return this.nodes.filter((node) => node.core !== null).map((node) => node.id);
  }

  /** Where the shared chain has this bundle. */
  placeOf(digest: string): number | undefined {
    return this.checks.executed.get(digest);
  }

  acknowledge(digest: string, height: number): void {
    this.checks.acknowledged(digest, height);
  }
}
