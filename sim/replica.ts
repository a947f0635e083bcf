// One replica: the real core, and around it what the daemon is (daemon/replica.ts, daemon/speaker.ts): turns over what has arrived, persist
// before you speak, and a process that ends whenever the simulation wants it to. What a planted bug may override is `protected`.

import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Witness } from '../protocol/attest.ts';
import { attested } from '../protocol/attest.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { Audience, Input, Pledged, Ready } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import { makeCore } from '../protocol/cores.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { bearsLies } from '../protocol/modes.ts';
import type { Pending } from '../protocol/pending.ts';
import { gather, isEmpty, isUrgent, LAZY_WRITE_MS_MAX, nothingPending } from '../protocol/pending.ts';
import type { Height, ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHeight } from '../protocol/types.ts';
import { WriteLag } from '../protocol/write-lag.ts';
import { Answers, isRequest } from './answers.ts';
import type { Held } from './checks.ts';
import { fail } from './checks.ts';
import { SimClock } from './clock.ts';
import { SimDisk } from './disk.ts';
import type { PledgePayload } from './guard.ts';
import { SimGuard } from './guard.ts';
import type { Timeline } from './timeline.ts';

/** Inputs that wait for one turn; as daemon/replica.ts bounds the frames of one peer. */
const INBOX_PER_PEER_MAX = 1024;

/** What a replica asks of the cluster around it. */
export interface Surroundings {
  readonly timeline: Timeline;
  readonly genesis: Genesis;
  /** In milliseconds, a new draw for each write. */
  writeMs(replica: ReplicaId): number;
  sign<M extends ReplicaMessage>(replica: ReplicaId, message: M): Verified<M>;
  /** As protocol/verify.ts says; null: refused, and counted. */
  verify(replica: ReplicaId, signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null;
  /** Decoded and verified from bytes; null: refused, and counted. */
  verifyBytes(replica: ReplicaId, bytes: Bytes): Verified<ReplicaMessage> | null;
  /** Its word that a block is decided. */
  signDecided(replica: ReplicaId, place: Parameters<Witness['sign']>[0]): Bytes;
  send(from: ReplicaId, to: Audience, signed: Signed<ReplicaMessage>): void;
  /** A Ready, once its messages are on their way. */
  observe(replica: SimReplica, ready: Ready<ReplicaMessage, ReplicaPledge>): void;
  /** The core threw. */
  broke(replica: SimReplica, error: unknown): void;
  /** A moment at which an armed crash may strike. True: it did. */
  strikes(replica: SimReplica, point: CrashPoint): boolean;
}

/** Where between the steps of a write a process may end. */
export type CrashPoint = 'write-begun' | 'log-written' | 'guard-written' | 'spoken';

/** What becomes of the writes that a crash interrupts. */
export interface Interrupted {
  readonly log: 'lost' | 'kept';
  readonly guard: 'lost' | 'kept';
}

/** A write under way. */
interface Write {
  readonly batch: Pending;
  readonly kept: readonly (PledgePayload & Pledged<ReplicaPledge>)[];
  readonly led: Pending['lead'];
  /** Of the sign-state file. */
  readonly content: Bytes;
  logDone: boolean;
  guardDone: boolean;
}

type Step = Input<ReplicaMessage, ReplicaPledge>;

export class SimReplica {
  readonly id: ReplicaId;
  readonly disk = new SimDisk();
  readonly guard: SimGuard;
  readonly clock: SimClock;
  /** Null: the process is down. */
  core: ReplicaCore | null = null;
  /** Grows with every start and every end: what an older incarnation planned is void. */
  life = 0;
  crashes = 0;
  /** The process hangs until then. */
  stalledUntil = 0;
  /** What an adversary lets through of that which comes in; null: all. */
  hold: ((inputs: readonly Step[]) => readonly Step[]) | null = null;
  protected readonly world: Surroundings;
  readonly #answers: Answers;
  #pending = nothingPending();
  #write: Write | null = null;
  #lag: WriteLag;
  /** What the core was told of its wall. */
  #wallAheadMs = 0;
  #lazy = false;
  #inbox: Step[] = [];
  readonly #inboxOf = new Map<ReplicaId, number>();
  #woken = false;
  #alarm = 0;
  #lowest = 1;

  constructor(id: ReplicaId, world: Surroundings) {
    this.id = id;
    this.world = world;
    const { genesis, timeline } = world;
    this.guard = new SimGuard({ publicKey: genesis.members[id]!.publicKey, chainId: genesis.chainId });
    this.clock = new SimClock(timeline);
    this.#lag = new WriteLag(genesis.parameters.viewTimeoutMs);
    this.#answers = new Answers(this.disk, genesis.parameters);
  }

  // ---- life and death -----------------------------------------------------------------------------------------------

  boot(): void {
    this.life += 1;
    this.#write = null;
    this.#inbox = [];
    this.#inboxOf.clear();
    this.#woken = false;
    this.#lazy = false;
    this.#pending = nothingPending();
    this.stalledUntil = 0;
    this.#lowest = 1;
    this.#lag = new WriteLag(this.world.genesis.parameters.viewTimeoutMs);
    this.#wallAheadMs = 0;
    const fresh = this.life === 1;
    this.guard.open();
    if (this.disk.writes < this.guard.floor.sequence)
      fail(
        'durable-before-spoken',
        `the log of node-${this.id} ends at write ${this.disk.writes}, and it has signed upon ${this.guard.floor.sequence}`,
      );
    this.core = this.makeCore({ log: fresh ? null : this.disk.recover(), guard: this.guard.recovery });
    this.wake();
  }

  /** What starts from the recovered state. */
  protected makeCore(recovery: Recovery): ReplicaCore {
    const { genesis } = this.world;
    const options = { genesis, epoch: asEpoch(0), self: this.id, sha256: native.sha256 };
    return makeCore(options, recovery, this.clock.now());
  }

  /** The process ends here. False: it was down already. */
  crash({ log, guard }: Interrupted): boolean {
    if (this.core === null) return false;
    const write = this.#write;
    if (write !== null) {
      if (!write.logDone && log === 'kept' && write.batch.records.length > 0) this.disk.write(write.batch.records);
      if (!write.guardDone && guard === 'kept') this.guard.file = write.content;
    }
    this.core = null;
    this.life += 1;
    this.crashes += 1;
    return true;
  }

  // ---- what comes in ------------------------------------------------------------------------------------------------

  input(input: Step): void {
    if (this.core === null) return;
    this.#inbox.push(input);
    this.wake();
  }

  /** A message at the door: looked at, wanted, verified, and given to the next turn; or answered, or refused. */
  arrive(from: ReplicaId, signed: Signed<ReplicaMessage>): void {
    const { core } = this;
    if (core === null) return;
    const waiting = this.#inboxOf.get(from) ?? 0;
    // What is dropped here is said again.
    if (waiting >= INBOX_PER_PEER_MAX || !core.wants(signed.message, signed.sender)) return;
    this.#take(from, this.accepts(signed), waiting);
  }

  arriveBytes(from: ReplicaId, bytes: Bytes): void {
    if (this.core !== null) this.#take(from, this.acceptsBytes(bytes), this.#inboxOf.get(from) ?? 0);
  }

  #take(from: ReplicaId, signed: Verified<ReplicaMessage> | null, waiting: number): void {
    if (signed === null) return;
    const { message } = signed;
    if (isRequest(message)) {
      const answer = this.#answers.to(message);
      if (answer !== null) this.world.send(this.id, from, this.world.sign(this.id, answer));
      return;
    }
    if (!this.core!.wants(message, signed.sender)) return;
    this.#inboxOf.set(from, waiting + 1);
    this.input({ type: 'message', signed });
  }

  protected accepts(signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null {
    return this.world.verify(this.id, signed);
  }

  protected acceptsBytes(bytes: Bytes): Verified<ReplicaMessage> | null {
    return this.world.verifyBytes(this.id, bytes);
  }

  // ---- a turn -------------------------------------------------------------------------------------------------------

  protected wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    this.#soon(Math.max(0, this.stalledUntil - this.world.timeline.now), () => this.#turn());
  }

  /** In this life only, and not while the process hangs. */
  #soon(ms: number, run: () => void): void {
    const { life } = this;
    const { timeline } = this.world;
    timeline.after(ms, () => {
      if (this.life !== life) return;
      if (this.stalledUntil > timeline.now) return this.#soon(this.stalledUntil - timeline.now, run);
      run();
    });
  }

  #turn(): void {
    const { core } = this;
    if (core === null) return;
    this.#woken = false;
    const inputs = this.hold === null ? this.#inbox : [...this.hold(this.#inbox)];
    this.#inbox = [];
    this.#inboxOf.clear();
    if (this.disk.lowest !== this.#lowest) {
      this.#lowest = this.disk.lowest;
      inputs.push({ type: 'retained', lowest: asHeight(this.#lowest) });
    }
    this.#tellOfSelf(inputs);
    let ready: Ready<ReplicaMessage, ReplicaPledge>;
    try {
      ready = this.#proved(core.step(inputs, this.clock.now()));
      this.#act(ready);
    } catch (error) {
      this.world.broke(this, error);
      return;
    }
    if (this.core !== core) return; // it crashed in the middle of it
    const alarm = ++this.#alarm;
    this.#soon(this.clock.until(ready.wakeAt), () => {
      if (this.#alarm === alarm) this.wake();
    });
  }

  /** As daemon/replica.ts does: the proofs of blocks, where members are trusted. */
  #proved(ready: Ready<ReplicaMessage, ReplicaPledge>): Ready<ReplicaMessage, ReplicaPledge> {
    if (bearsLies(this.world.genesis.protocol)) return ready;
    const sign: Witness['sign'] = (place) => this.world.signDecided(this.id, place);
    return attested(ready, { self: this.id, epoch: asEpoch(0), sign });
  }

  /** [STALL-1] [STALL-5] As daemon/replica.ts does. */
  #tellOfSelf(inputs: Step[]): void {
    const ms = this.#lag.take(this.world.timeline.now);
    if (ms > 0) inputs.push({ type: 'stalled', what: 'disk', ms });
    const aheadMs = this.clock.wallAheadMs();
    if (aheadMs === this.#wallAheadMs) return;
    this.#wallAheadMs = aheadMs;
    inputs.push({ type: 'wall', aheadMs });
  }

  #act(ready: Ready<ReplicaMessage, ReplicaPledge>): void {
    for (const { to, message } of ready.send) {
      if (message.kind === 'pre-prepare') this.guard.propose(message); // PBFT-PP-5: its signature is a vote
      this.world.send(this.id, to, this.world.sign(this.id, message));
    }
    for (const { to, signed } of ready.resend) this.world.send(this.id, to, signed);
    gather(this.#pending, ready);
    this.world.observe(this, ready);
    this.#persistSoon();
  }

  // ---- persist, then send -------------------------------------------------------------------------------------------

  #persistSoon(): void {
    if (this.#write !== null || this.core === null) return;
    if (isUrgent(this.#pending)) return this.#persist();
    if (this.#pending.records.length === 0 || this.#lazy) return;
    this.#lazy = true;
    this.#soon(LAZY_WRITE_MS_MAX, () => {
      this.#lazy = false;
      if (this.#write === null) this.#persist();
    });
  }

  #persist(): void {
    const batch = this.#pending;
    if (isEmpty(batch)) return;
    this.#pending = nothingPending();
    const payloads = batch.pledges.map((each) => ({ ...each, payload: encodePayload(each.pledge) }));
    const kept = this.promise(payloads, batch.lock);
    const led = batch.lead !== null && this.guard.lead(batch.lead) ? batch.lead : null;
    const urgent = isUrgent(batch);
    const write: Write = {
      batch,
      kept,
      led,
      content: urgent ? this.guard.content() : this.guard.file,
      logDone: batch.records.length === 0,
      guardDone: !urgent,
    };
    this.#write = write;
    this.#lag.begin(this.world.timeline.now);
    if (this.world.strikes(this, 'write-begun')) return;
    // Two files: either may be durable first, and a crash may come between.
    if (!write.logDone) {
      this.#soon(this.world.writeMs(this.id), () => {
        this.disk.write(batch.records);
        write.logDone = true;
        if (!write.guardDone && this.world.strikes(this, 'log-written')) return;
        this.#written(write);
      });
    }
    if (!write.guardDone) {
      this.#soon(this.world.writeMs(this.id), () => {
        this.guard.file = write.content;
        write.guardDone = true;
        if (!write.logDone && this.world.strikes(this, 'guard-written')) return;
        this.#written(write);
      });
    }
    this.whileWriting(write);
  }

  /** Those of the pledges that the guard allows. */
  protected promise<P extends PledgePayload>(pledges: readonly P[], lock: Pending['lock']): readonly P[] {
    if (pledges.length === 0 && lock === null) return [];
    return this.guard.promise(pledges, lock, { log: this.disk.position, decided: this.disk.head as Height });
  }

  /** Nothing is said before it is durable: nothing to do here. */
  protected whileWriting(_write: Pick<Write, 'kept' | 'led'>): void {}

  #written(write: Write): void {
    if (!write.logDone || !write.guardDone || this.#write !== write) return;
    this.#write = null;
    this.#lag.end(this.world.timeline.now);
    this.speak(write);
    for (const each of write.batch.pledges)
      if (!write.kept.some(({ pledge }) => pledge === each.pledge))
        this.input({ type: 'refused', pledge: each.pledge });
    if (write.kept.length > 0 && this.world.strikes(this, 'spoken')) return;
    this.#persistSoon();
  }

  /** Durable: now, and only now, these votes exist. */
  protected speak({ kept, led }: Pick<Write, 'kept' | 'led'>): void {
    if (led !== null) this.input({ type: 'leading', view: led });
    for (const { pledge, broadcast, to } of kept) {
      const signed = this.world.sign(this.id, pledge);
      if (broadcast) this.world.send(this.id, to ?? 'all', signed);
      this.input({ type: 'own', signed: asVerified(signed) });
    }
  }

  /** How long the write under way has taken; 0: none is. As in daemon/speaker.ts. */
  get writingMs(): number {
    return this.#lag.writingMs(this.world.timeline.now);
  }

  // ---- what it holds ------------------------------------------------------------------------------------------------

  held(): Held | null {
    if (this.core === null) return null;
    const { checkpointInterval, window } = this.world.genesis.parameters;
    const { disk } = this;
    return {
      explanation: this.core.explain(),
      // PBFT-PP-7, with its slack.
      inFlightMax: 5 * checkpointInterval + 4 * window,
      undecidedOnDisk: disk.blockCount - disk.decided.size,
      decidedOnDisk: disk.decided.size,
      // What the retention asks for, and what lies above the stable checkpoint (LOG-8).
      decidedMax: Math.max(disk.retain, disk.head - disk.stable + 1),
      marks: this.guard.marks.votes.size,
      inbox: this.#inbox.length,
      inboxMax: INBOX_PER_PEER_MAX * this.world.genesis.members.length * 2,
    };
  }
}
