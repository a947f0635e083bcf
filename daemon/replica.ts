// The loop around the core, and the only caller of it in production: it takes turns over all that has arrived, steps the core, and
// sees to it that the caller's duties of protocol/core.ts are done, in order. One transaction's way is told in docs/architecture.md.
//
//   frames, bundles ──▶ a turn ──▶ core.step ──▶ deliver, to the doors
//        ▲                              └──▶ speaker.ts: send at once ‖ persist, then sign and send
//        └────── own votes, once they are durable and signed ──────────────┘

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { Guard } from '../keys/guard.ts';
import { attested, type Witness } from '../protocol/attest.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type {
  Admission,
  BundleExplanation,
  Core,
  Decided,
  EpochEnd,
  Explanation,
  HeightExplanation,
  Input,
  Ready,
} from '../protocol/core.ts';
import { type Genesis, storedParameters } from '../protocol/genesis.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import type { Hash, Height, Millis, ReplicaId } from '../protocol/types.ts';
import { asHeight, asMillis } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { Clock } from './clock.ts';
import type { EvidenceBook } from './evidence.ts';
import { type Arrived, Intake } from './intake.ts';
import { proposedIn } from './kinds.ts';
import { LoopLag } from './loop-lag.ts';
import { LOOP_LIMITS } from './loop-limits.ts';
import { PhaseMeter } from './phases.ts';
import type { Meter, PeerEvents, PeerTransport, ReplicaEvents, ReplicaPort } from './ports.ts';
import { ReadDesk, type ReadPoint } from './read-desk.ts';
import type { StepRecorder } from './recorder/recorder.ts';
import type { Request } from './serve.ts';
import { Server } from './serve.ts';
import { Speaker } from './speaker.ts';

export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ReplicaParts {
  readonly core: Core<ReplicaMessage, ReplicaPledge>;
  readonly genesis: Genesis;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly verify: VerifyContext;
  readonly log: LogStore;
  readonly guard: Guard;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
  readonly evidence: Pick<EvidenceBook, 'found' | 'entered'>;
  /** Null: the operator wants none. */
  readonly recorder: StepRecorder | null;
  /** [CFT-PR-1] Given where the members are trusted: the proof of a block is this replica's word. */
  readonly witness?: Witness | undefined;
  /** The head that was recovered. */
  readonly head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
}

/** What came in time for the next epoch. */
export interface Left {
  readonly bundles: readonly SignedBundle[];
  /** From members by their numbers in the epoch that has ended. */
  readonly frames: readonly Arrived[];
}

export class Replica implements ReplicaPort, PeerEvents {
  readonly #parts: ReplicaParts;
  readonly #server: Server;
  readonly #speaker: Speaker;
  #transport: PeerTransport | null = null;

  readonly #intake: Intake;
  #inputs: Input<ReplicaMessage, ReplicaPledge>[] = [];
  #bundles = 0;
  #bundleBytes = 0;
  #turn: NodeJS.Immediate | null = null;
  /** When the core wants to be called, whatever comes. */
  #wakeAt: Millis = asMillis(0);
  #alarm: NodeJS.Timeout | null = null;
  #alarmAt: Millis = asMillis(0);
  #stopped = false;
  #ended = false;
  #draining = false;
  /** It led as it was to end, and gives its place away. */
  #handsOver = false;
  #fatal: Error | null = null;
  readonly #requests = new Map<ReplicaId, number>();
  readonly #subscribers = new Set<ReplicaEvents>();
  #head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
  #lowest: Height;
  readonly #phases: PhaseMeter;
  readonly #loopLag: LoopLag;
  readonly #reads = new ReadDesk();
  #wallAheadMs = 0;

  constructor(parts: ReplicaParts) {
    this.#parts = parts;
    this.#head = parts.head;
    this.#lowest = asHeight(0);
    this.#speaker = new Speaker({
      ...parts,
      back: (inputs) => {
        this.#inputs.push(...inputs);
        if (inputs.some((input) => this.#isDue(input))) this.#wake();
      },
      failed: (error) => this.#die(error),
    });
    const { core, verify, meter } = parts;
    this.#intake = new Intake({
      core,
      verify,
      meter,
      refused: (from, code, kind) => this.#refused(from, code, kind, 'frame'),
      requested: (from, request) => this.#serve(from, request),
    });
    this.#phases = new PhaseMeter(meter);
    this.#loopLag = new LoopLag(parts.genesis.parameters.heartbeatMs);
    const { sha256 } = parts.crypto;
    this.#server = new Server({
      log: parts.log,
      sha256,
      wire: { sha256, parameters: storedParameters(parts.genesis.parameters) },
    });
  }

  /** Begins to take turns. Frames and connections may come from now on. */
  start(transport: PeerTransport): void {
    this.#transport = transport;
    this.#speaker.start(transport);
    this.#wake();
  }

  // ---- what comes in ----------------------------------------------------------------------------------------------

  frame(from: ReplicaId, bytes: Bytes, key?: Bytes): void {
    if (!this.#stopped && this.#intake.push(from, bytes, key)) this.#wake();
  }

  connected(peer: ReplicaId): void {
    this.#input({ type: 'connected', peer });
  }

  disconnected(peer: ReplicaId): void {
    this.#input({ type: 'disconnected', peer });
  }

  submit(bundle: SignedBundle): boolean {
    const { bundlesMax, bundleBytesMax } = LOOP_LIMITS;
    if (this.#draining || this.#stopped || this.#bundles >= bundlesMax || this.#bundleBytes >= bundleBytesMax)
      return false;
    this.#bundles += 1;
    this.#bundleBytes += bundle.payload.length;
    this.#input({ type: 'bundle', bundle });
    return true;
  }

  readPoint(): Promise<ReadPoint> {
    return this.#reads.ask((id) => this.#input({ type: 'read', id }));
  }

  /** While true, the transport leaves bulk data in the kernel's buffers and so pushes back on the sender. */
  overloaded(): boolean {
    const { framesMax, frameBytesMax, unwrittenBytesMax } = LOOP_LIMITS;
    return (
      this.#intake.size >= framesMax / 2 ||
      this.#intake.bytes >= frameBytesMax / 2 ||
      this.#speaker.waitingBytes >= unwrittenBytesMax
    );
  }

  #input(input: Input<ReplicaMessage, ReplicaPledge>): void {
    if (this.#stopped) return;
    this.#inputs.push(input);
    this.#wake();
  }

  /** [LOOP-1] */
  #isDue(input: Input<ReplicaMessage, ReplicaPledge>): boolean {
    return input.type !== 'own' || this.#intake.presses(input.signed.message, this.#parts.self);
  }

  // ---- a turn -----------------------------------------------------------------------------------------------------

  /** After the sockets were read and before the loop sleeps: one turn over all that has arrived. */
  #wake(): void {
    if (this.#turn !== null || this.#stopped || this.#ended || this.#transport === null) return;
    this.#turn = setImmediate(() => {
      this.#turn = null;
      this.#takeTurn();
    });
  }

  #takeTurn(): void {
    if (this.#stopped) return;
    try {
      const inputs = this.#inputs;
      this.#inputs = [];
      this.#bundles = 0;
      this.#bundleBytes = 0;
      this.#intake.take(inputs);
      if (this.#parts.log.lowest !== this.#lowest) {
        this.#lowest = this.#parts.log.lowest;
        inputs.push({ type: 'retained', lowest: this.#lowest });
      }
      // Frames that nobody wanted, and no time has come: nothing for the core.
      const now = this.#parts.clock.now();
      if (inputs.length > 0 || now >= this.#wakeAt) this.#step(inputs, now);
      if (this.#intake.size > 0) this.#wake();
    } catch (error) {
      this.#die(error);
    }
  }

  #step(inputs: readonly Input<ReplicaMessage, ReplicaPledge>[], now: Millis): void {
    const { core, meter, recorder, witness } = this.#parts;
    const told = this.#ownStalls(now);
    // What is recorded is the very array that the core is given.
    const all = told.length > 0 ? [...told, ...inputs] : inputs;
    for (const input of inputs) {
      const proposed = input.type === 'message' ? proposedIn(input.signed.message) : null;
      if (proposed !== null) this.#phases.saw(proposed);
    }
    recorder?.before(core, all, now);
    const started = performance.now();
    const ready = this.#stepped(all, now);
    // What the core itself wants done: it is what a replay comes to again, without a key.
    recorder?.after(ready);
    meter.observe('synod_step_ms', performance.now() - started);
    meter.observe('synod_step_inputs', inputs.length);
    this.#act(witness === undefined ? ready : attested(ready, witness));
    // What it had no time for any more is the next one's; what it took stands in the pool that goes on, and is known there.
    if (ready.ended !== null) this.#inputs.unshift(...inputs.filter(({ type }) => type === 'bundle'));
  }

  /** What proves that somebody else is guilty may be the very thing that stops this replica (REC-9, PBFT-C-3): it is kept all the same. */
  #stepped(inputs: readonly Input<ReplicaMessage, ReplicaPledge>[], now: Millis): Ready<ReplicaMessage, ReplicaPledge> {
    const { core, evidence, recorder } = this.#parts;
    try {
      return core.step(inputs, now);
    } catch (error) {
      recorder?.threw(error);
      for (const piece of core.found) evidence.found(piece);
      throw error;
    }
  }

  /** [STALL-1] [STALL-5] What held this replica up since the last step, and where its wall clock has gone: it blames itself first. */
  #ownStalls(now: Millis): Input<ReplicaMessage, ReplicaPledge>[] {
    const { clock, meter } = this.#parts;
    const told: Input<ReplicaMessage, ReplicaPledge>[] = [];
    const tell = (what: 'loop' | 'disk', ms: number) => {
      if (ms <= 0) return;
      meter.count('synod_stalled_seconds_total', { what }, ms / 1_000);
      told.push({ type: 'stalled', what, ms });
    };
    tell('loop', this.#loopLag.take(now - this.#wakeAt, this.#intake.oldestAt));
    tell('disk', this.#speaker.takeStallMs());
    const wall = clock.wall();
    if (wall.aheadMs !== this.#wallAheadMs) {
      this.#wallAheadMs = wall.aheadMs;
      told.push({ type: 'wall', ...wall });
    }
    return told;
  }

  #refused(from: ReplicaId, code: string, kind: string, what: 'frame' | 'message'): void {
    this.#parts.meter.count('synod_refusals_total', { code, kind });
    this.#parts.logger.warn({ peer: this.#nameOf(from), code, kind }, `refused a ${what}`);
    this.#transport?.punish(from, code);
  }

  #act(all: Ready<ReplicaMessage, ReplicaPledge>): void {
    // [EPO-12] Nobody needs what a core that has ended still wanted to say.
    const ready = all.ended === null ? all : { ...all, pledges: [], lock: null, lead: null };
    for (const { message } of ready.send) {
      const proposed = proposedIn(message);
      if (proposed !== null) this.#phases.saw(proposed);
    }
    // First: what is said to the others wakes them, and they take the processor from what a client has waited for.
    if (ready.deliver.length > 0) this.#deliver(ready.deliver);
    this.#speaker.speak(ready);
    for (const admission of ready.admissions) this.#admitted(admission);
    this.#reads.answered(ready.reads);
    // Every one of these codes says that an honest replica would not have sent it.
    for (const { from, code, kind } of ready.refusals) this.#refused(from, code, kind, 'message');
    for (const evidence of ready.evidence) this.#parts.evidence.found(evidence);
    this.#parts.evidence.entered(ready.records);
    for (const event of ready.events) {
      this.#parts.meter.count('synod_events_total', { type: event.type });
      if (event.type === 'handing-over') this.#handsOver = true;
      if (event.type === 'prepared') this.#phases.prepared(event.height);
      else this.#parts.logger.info({ ...event }, event.type);
      for (const subscriber of this.#subscribers) subscriber.event?.(event);
    }
    this.#wakeAt = ready.wakeAt;
    if (ready.ended !== null) return this.#end(ready.ended);
    this.#setAlarm();
  }

  /** Takes no further turn. Whoever runs this replica makes the next epoch ready meanwhile, and begins it when all of this one is on disk. */
  #end(end: EpochEnd): void {
    this.#ended = true;
    this.#reads.close();
    this.#parts.logger.info({ epoch: end.next.epoch - 1, height: end.next.start.height }, 'the epoch has ended');
    const written = this.#speaker.flush().then(() => !this.#stopped); // stopped: a write failed
    for (const subscriber of this.#subscribers) subscriber.ended?.(end, written);
  }

  /** Every step names a new time, nearly always a later one: an alarm that is set for an earlier one is let ring, and then set again. */
  #setAlarm(): void {
    if (this.#alarm !== null) {
      if (this.#alarmAt <= this.#wakeAt) return;
      clearTimeout(this.#alarm);
    }
    this.#alarmAt = this.#wakeAt;
    this.#alarm = setTimeout(
      () => {
        this.#alarm = null;
        if (this.#parts.clock.now() >= this.#wakeAt) this.#wake();
        else this.#setAlarm();
      },
      Math.max(1, this.#wakeAt - this.#parts.clock.now()),
    );
  }

  // ---- requests of peers that are behind ---------------------------------------------------------------------------

  #serve(from: ReplicaId, request: Request): void {
    const open = this.#requests.get(from) ?? 0;
    if (open >= LOOP_LIMITS.requestsPerPeerMax) return;
    this.#requests.set(from, open + 1);
    this.#server
      .answer(request)
      .then((answer) => {
        if (answer !== null && !this.#stopped) this.#speaker.state(from, answer);
      })
      .catch((error: unknown) => {
        // Asked before the end, answered after it: the log is closed by then.
        if (!this.#stopped) this.#die(error);
      })
      .finally(() => this.#requests.set(from, (this.#requests.get(from) ?? 1) - 1));
  }

  // ---- what goes out to the doors ---------------------------------------------------------------------------------

  #deliver(blocks: readonly Decided[]): void {
    const { meter } = this.#parts;
    const last = blocks.at(-1)!; // never empty
    const certificate =
      blocks.findLast((decided) => decided.certificate !== null)?.certificate ?? this.#head.certificate;
    this.#head = { height: last.block.header.height, hash: last.block.hash, certificate };
    for (const { block } of blocks) {
      meter.count('synod_blocks_decided_total');
      meter.count('synod_transactions_decided_total', {}, block.header.transactionCount);
      meter.count('synod_bundles_decided_total', {}, block.header.bundleCount);
      meter.count('synod_payload_decided_bytes_total', {}, block.header.payloadBytes);
      this.#phases.decided(block.header.height);
    }
    for (const subscriber of this.#subscribers) subscriber.decided?.(blocks);
  }

  #admitted({ digest, code }: Admission): void {
    this.#parts.meter.count('synod_admissions_total', { code });
    for (const subscriber of this.#subscribers) subscriber.admission?.(digest, code);
  }

  get genesis(): Genesis {
    return this.#parts.genesis;
  }
  get self(): ReplicaId {
    return this.#parts.self;
  }
  get crypto(): Crypto {
    return this.#parts.crypto;
  }
  get log(): LogStore {
    return this.#parts.log;
  }

  explain(): Explanation {
    return this.#parts.core.explain();
  }

  explainHeight(height: Height): HeightExplanation {
    return this.#parts.core.explainHeight(height);
  }

  explainBundle(digest: Hash): BundleExplanation {
    return this.#parts.core.explainBundle(digest);
  }

  writingMs(): number {
    return this.#speaker.writingMs;
  }

  head(): { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null } {
    return this.#head;
  }

  subscribe(events: ReplicaEvents): () => void {
    this.#subscribers.add(events);
    return () => this.#subscribers.delete(events);
  }

  queueDepths(): { frames: number; frameBytes: number; inputs: number; records: number } {
    return {
      frames: this.#intake.size,
      frameBytes: this.#intake.bytes,
      inputs: this.#inputs.length,
      records: this.#speaker.waiting,
    };
  }

  // ---- the end ----------------------------------------------------------------------------------------------------

  /** [CFT-H-1] [STALL-6] A leader hands over first, so that nobody waits until its silence is noticed. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#input({ type: 'hand-over' });
    const { viewTimeoutMs } = this.genesis.parameters;
    const since = performance.now();
    const isBusy = (): boolean => {
      const { inFlight, phase, primary } = this.explain();
      const timeouts = (performance.now() - since) / viewTimeoutMs;
      const isLed = phase !== 'view-change' && primary !== this.self;
      return (inFlight > 0 && timeouts < 2) || (this.#handsOver && !isLed && timeouts < 1);
    };
    do await later(10);
    while (!this.#stopped && isBusy());
    await this.#speaker.flush();
    this.stop();
  }

  /** [EPO-12] After the end of the epoch: stops, and gives away what has come since. */
  leave(): Left {
    this.stop();
    const bundles = this.#inputs.flatMap((input) => (input.type === 'bundle' ? [input.bundle] : []));
    return { bundles, frames: this.#intake.leave() };
  }

  stop(): void {
    this.#stopped = true;
    if (this.#turn !== null) clearImmediate(this.#turn);
    if (this.#alarm !== null) clearTimeout(this.#alarm);
    this.#reads.close();
    this.#speaker.stop();
  }

  get fatal(): Error | null {
    return this.#fatal;
  }

  /** A write failed, or an invariant broke: nothing is sent any more, and the process must end. */
  #die(cause: unknown): void {
    if (this.#fatal !== null) return;
    const error = cause instanceof Error ? cause : new Error(String(cause));
    this.#fatal = error;
    this.stop();
    this.#parts.logger.error({ error: error.message, name: error.name, stack: error.stack }, 'this replica must stop');
    for (const subscriber of this.#subscribers) subscriber.fatal?.(error);
  }

  #nameOf(replica: ReplicaId): string {
    return this.#parts.genesis.members[replica]?.name ?? String(replica);
  }
}

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
