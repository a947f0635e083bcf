// One replica: the real core, and around it what the daemon is (daemon/replica.ts, daemon/speaker.ts): turns over what has arrived, persist
// before you speak, and a process that ends whenever the simulation wants it to. What a planted bug may override is `protected`.

import type { Bytes } from '../crypto/bytes.ts';
import { ascii, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Witness } from '../protocol/attest.ts';
import { attested } from '../protocol/attest.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { EpochEnd, Input, Ready } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import { makeCore } from '../protocol/cores.ts';
import { epochOf, fits } from '../protocol/epoch/begin.ts';
import { type EpochDocument, genesisEpoch, genesisOf } from '../protocol/epoch/document.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import type { RecoveredLog } from '../protocol/log.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { bearsLies } from '../protocol/modes.ts';
import type { QuarantineStart } from '../protocol/pbft/quarantine.ts';
import { tracesIn } from '../protocol/pbft/quarantine.ts';
import type { Pending } from '../protocol/pending.ts';
import { gather, isEmpty, isUrgent, LAZY_WRITE_MS_MAX, nothingPending } from '../protocol/pending.ts';
import type { Inheritance } from '../protocol/restart.ts';
import type { Height, ReplicaId } from '../protocol/types.ts';
import { asHeight } from '../protocol/types.ts';
import { WriteLag } from '../protocol/write-lag.ts';
import { Answers, isRequest } from './answers.ts';
import type { Held } from './checks.ts';
import { fail } from './checks.ts';
import { SimClock } from './clock.ts';
import { SimDisk } from './disk.ts';
import type { PledgePayload, SimGuard } from './guard.ts';
import { Keyring } from './keyring.ts';
import { memberIn } from './membership.ts';
import type { Interrupted, Surroundings, Write } from './surroundings.ts';
import { Alarm } from './timeline.ts';

/** Inputs that wait for one turn; as daemon/replica.ts bounds the frames of one peer. */
const INBOX_PER_PEER_MAX = 1024;

/** Between two looks of a node that is no member. */
const OBSERVE_MS = 40;

/** Between two looks of a member at whether its epoch is over (EPO-19). */
const SCOUT_MS = 3_000;

export type { CrashPoint, Interrupted, Surroundings } from './surroundings.ts';

type Step = Input<ReplicaMessage, ReplicaPledge>;

export class SimReplica {
  /** Its place among the nodes: for ever, and in the first epoch its number as a member. */
  readonly id: ReplicaId;
  /** Its number as a member of `epoch`; null: it is none, and observes. */
  member: ReplicaId | null;
  /** In this epoch or an earlier one. */
  wasMember = false;
  readonly disk = new SimDisk();
  /** Of its key in this epoch, or of the last one that it had. */
  guard: SimGuard;
  readonly keyring: Keyring;
  readonly clock: SimClock;
  /** Null: the process is down. */
  core: ReplicaCore | null = null;
  /** The epoch that this replica is in. */
  epoch: EpochDocument;
  #ending: EpochEnd | null = null;
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
  /** When the core wants to be asked again. */
  readonly #alarm: Alarm;
  #alarmLife = 0;
  #turns = 0;
  #lowest = 1;
  #isObserving = false;

  constructor(id: ReplicaId, world: Surroundings) {
    this.id = id;
    this.world = world;
    const { genesis, timeline } = world;
    this.epoch = genesisEpoch(native.sha256, genesis);
    this.member = memberIn(this.epoch, id);
    const publicKey = genesis.members[id]?.publicKey ?? new Uint8Array(32); // of its own once it is a member
    this.keyring = new Keyring(genesis.chainId);
    this.guard = this.keyring.guardOf(publicKey);
    this.clock = new SimClock(timeline);
    this.#alarm = new Alarm(timeline, () => this.#ring());
    this.#lag = new WriteLag(genesis.parameters.viewTimeoutMs);
    this.#answers = new Answers(this.disk, genesis.parameters);
  }

  /** The process runs, as a member or as one that observes. */
  get isUp(): boolean {
    return this.core !== null || this.#isObserving;
  }

  // ---- life and death -----------------------------------------------------------------------------------------------

  boot(inherited: Inheritance | null = null): void {
    this.life += 1;
    this.#write = null;
    this.#inbox = [];
    this.#inboxOf.clear();
    this.#woken = false;
    this.#lazy = false;
    this.#pending = nothingPending();
    this.stalledUntil = 0;
    this.#lowest = 1;
    this.#isObserving = false;
    this.#lag = new WriteLag(this.world.genesis.parameters.viewTimeoutMs);
    this.#wallAheadMs = 0;
    this.#ending = null;
    const log = this.disk.recover();
    this.#openEpoch(log);
    // [EPO-19] Its marks have seen a later epoch than the log that is left: it follows to where it was.
    if (this.member === null || this.keyring.isAhead(this.epoch.epoch)) return this.#observe();
    this.guard.open(this.epoch.epoch);
    if (this.disk.writes < this.guard.floor.sequence)
      fail(
        'durable-before-spoken',
        `the log of node-${this.id} ends at write ${this.disk.writes}, and it has signed upon ${this.guard.floor.sequence}`,
      );
    const quarantine = this.#quarantine(log);
    const guard = this.guard.recovery;
    if (inherited === null || quarantine !== null) this.core = this.makeCore({ log, quarantine, guard });
    else {
      this.core = this.makeCore({ log: null, inherited, connected: [], quarantine, guard });
      this.#assertAlike(this.core, { log, connected: [], guard });
    }
    this.wake();
    // Without operators no epoch ends.
    if (this.world.genesis.members[0]?.operatorKey !== undefined) this.#scout(null);
  }

  /** [EPO-12] [FLR-1] What a core inherits is what it would find in the log. */
  #assertAlike(core: ReplicaCore, recovery: Recovery): void {
    if (!equalBytes(core.snapshot(), this.#coreFrom(recovery).snapshot()))
      fail('no-invariant-breaks', `node-${this.id} begins epoch ${this.epoch.epoch} otherwise than its log has it`);
  }

  /** [EPO-12] The log says which epoch goes on. A key that is new in it begins with a file of its own. */
  #openEpoch(log: RecoveredLog): void {
    this.epoch = epochOf(native.sha256, this.world.genesis, log);
    this.member = memberIn(this.epoch, this.id);
    if (this.member === null) return;
    this.wasMember = true;
    const { publicKey } = this.epoch.members[this.member]!; // as just found
    this.guard = this.keyring.guardOf(publicKey);
  }

  /** [EPO-17] As daemon/observe.ts does: blocks of whoever has them, until this one is a member of the latest epoch that anybody can prove. */
  #observe(): void {
    const { genesis } = this.world;
    this.#isObserving = true;
    this.member = null;
    const observer = new Observer(
      { sha256: native.sha256, genesis },
      this.disk.writes === 0 ? null : this.disk.recover(),
    );
    const pull = () => {
      const blocks = this.world.blocksFor(this, observer.height + 1);
      const state = blocks.length === 0 ? this.world.checkpointFor(this, observer.height) : null;
      if (state !== null) this.disk.write(observer.install(state)); // EPO-20
      for (const { block, certificate } of blocks) {
        this.disk.write(observer.take(block, certificate));
        this.world.followed(this, block);
      }
      const { document } = observer;
      if (memberIn(document, this.id) === null || document.epoch < this.world.latestEpochFor(this))
        return this.#soon(OBSERVE_MS, pull);
      this.boot();
      this.world.began(this);
    };
    this.#soon(OBSERVE_MS, pull);
  }

  /** [EPO-19] Its epoch is over, as somebody can prove, and it gets no further in it: nobody there answers to its key, or it to theirs. */
  #scout(stuckAt: number | null): void {
    this.#soon(SCOUT_MS, () => {
      if (this.core === null || this.world.latestEpochFor(this) <= this.epoch.epoch) return this.#scout(null);
      if (stuckAt !== this.disk.head) return this.#scout(this.disk.head);
      this.core = null;
      this.life += 1;
      this.#write = null;
      this.#observe();
    });
  }

  /** [REC-1] As daemon/node.ts: what the log still shows of this key's words is durable before following overwrites it. */
  #quarantine(log: RecoveredLog): QuarantineStart | null {
    if (!this.guard.quarantined) return null;
    this.guard.abstain(tracesIn(log, this.epoch.epoch));
    this.guard.write(this.guard.content());
    const nonce = native.sha256(ascii(`nonce ${this.id} ${this.life}`));
    return { nonce, abstained: this.guard.abstained };
  }

  /** What starts from the recovered state. */
  protected makeCore(recovery: Recovery): ReplicaCore {
    return this.#coreFrom(recovery);
  }

  #coreFrom(recovery: Recovery): ReplicaCore {
    const { epoch: document } = this;
    const genesis = genesisOf(this.world.genesis, document);
    const self = this.member!; // only a member has a core
    const options = { genesis, epoch: document.epoch, document, self, sha256: native.sha256 };
    return makeCore(options, recovery, this.clock.now());
  }

  /** The process ends here. False: it was down already. */
  crash({ log, guard }: Interrupted): boolean {
    if (!this.isUp) return false;
    this.#isObserving = false;
    const write = this.#write;
    if (write !== null) {
      if (!write.logDone && log === 'kept' && write.batch.records.length > 0) this.disk.write(write.batch.records);
      if (!write.guardDone && guard === 'kept') this.guard.write(write.content);
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
      if (answer !== null) this.world.answer(this, from, this.world.sign(this.id, answer));
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
    this.#turns += 1;
    this.#alarmLife = this.life;
    this.#alarm.set(this.clock.until(ready.wakeAt));
  }

  /** There was no turn since the one that asked for it. */
  #ring(): void {
    if (this.life !== this.#alarmLife) return;
    const restMs = this.stalledUntil - this.world.timeline.now;
    if (restMs <= 0) return this.wake();
    const turns = this.#turns;
    this.#soon(restMs, () => {
      if (this.#turns === turns) this.wake();
    });
  }

  /** As daemon/replica.ts does: the proofs of blocks, where members are trusted. */
  #proved(ready: Ready<ReplicaMessage, ReplicaPledge>): Ready<ReplicaMessage, ReplicaPledge> {
    const { epoch, protocol } = this.epoch;
    if (bearsLies(protocol)) return ready;
    const sign: Witness['sign'] = (place) => this.world.signDecided(this.id, place);
    return attested(ready, { self: this.member!, epoch, sign }); // only a member has a core
  }

  /** [STALL-1] [STALL-5] As daemon/replica.ts does. */
  #tellOfSelf(inputs: Step[]): void {
    const ms = this.#lag.take(this.world.timeline.now);
    if (ms > 0) inputs.push({ type: 'stalled', what: 'disk', ms });
    const wall = this.clock.wall();
    if (wall.aheadMs === this.#wallAheadMs) return;
    this.#wallAheadMs = wall.aheadMs;
    inputs.push({ type: 'wall', ...wall });
  }

  #act(ready: Ready<ReplicaMessage, ReplicaPledge>): void {
    for (const { to, message } of ready.send) {
      if (message.kind === 'pre-prepare') this.guard.propose(message); // PBFT-PP-5: its signature is a vote
      this.world.send(this, to, this.world.sign(this.id, message));
    }
    for (const { to, signed } of ready.resend) this.world.send(this, to, signed);
    gather(this.#pending, ready);
    if (ready.ended !== null) {
      this.#ending = ready.ended;
      // Nobody needs what the old core still wanted to say (EPO-12).
      this.#pending = { ...nothingPending(), records: this.#pending.records };
    }
    this.world.observe(this, ready);
    this.#persistSoon();
  }

  // ---- persist, then send -------------------------------------------------------------------------------------------

  #persistSoon(): void {
    if (this.#write !== null || this.core === null) return;
    if (this.#ending !== null && isEmpty(this.#pending)) return this.#nextEpoch(this.#ending);
    if (isUrgent(this.#pending) || this.#ending !== null) return this.#persist();
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
    if (batch.readmit !== null) this.guard.readmit(batch.readmit);
    const led = batch.lead !== null && this.guard.lead(batch.lead) ? batch.lead : null;
    const urgent = isUrgent(batch);
    const write: Write = {
      batch,
      kept,
      led,
      content: this.guard.content(),
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
        this.guard.write(write.content);
        write.guardDone = true;
        if (!write.logDone && this.world.strikes(this, 'guard-written')) return;
        this.#written(write);
      });
    }
    this.whileWriting(write);
  }

  /** [EPO-12] The end of the epoch is durable: what follows is what a start of the process would do, without its loss of the pool. */
  #nextEpoch({ waiting }: EpochEnd): void {
    if (this.world.strikes(this, 'epoch-ended')) return;
    const ledger = this.core?.successor ?? null;
    this.core = null;
    this.boot(ledger === null ? null : { ledger, lowest: asHeight(this.disk.lowest) });
    for (const bundle of waiting) if (fits(bundle, this.epoch.parameters)) this.input({ type: 'bundle', bundle });
    this.world.began(this);
  }

  /** Those of the pledges that the guard allows. */
  protected promise<P extends PledgePayload>(pledges: readonly P[], lock: Pending['lock']): readonly P[] {
    if (pledges.length === 0 && lock === null) return [];
    return this.guard.promise(pledges, lock, { log: this.disk.position, decided: this.disk.head as Height });
  }

  /** Nothing is said before it is durable: nothing to do here. */
  protected whileWriting(_write: Pick<Write, 'kept' | 'led' | 'batch'>): void {}

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
  protected speak({ kept, led, batch: { readmit } }: Pick<Write, 'kept' | 'led' | 'batch'>): void {
    if (led !== null) this.input({ type: 'leading', view: led });
    if (readmit !== null) this.input({ type: 'readmitted', view: readmit.view, height: readmit.height });
    for (const { pledge, payload, broadcast, to } of kept) {
      const signed = this.world.sign(this.id, pledge, payload);
      if (broadcast) this.world.send(this, to ?? 'all', signed);
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
    const { checkpointInterval, window } = this.epoch.parameters;
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
