// The loop around the core, and the only caller of it in production: persist, then send. The caller's duties of protocol/core.ts,
// in order. One transaction's way through it is told in docs/architecture.md.
//
//   frames, bundles ──▶ take ──▶ core.step ──▶ at once: send, deliver
//                                     └──▶ pending ──▶ one synced write ‖ one guard write ──▶ sign, send, back as inputs
//
// While a write is under way the core goes on stepping; what it wants persisted meanwhile shares the next write (group commit).

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { GuardRefusal } from '../keys/errors.ts';
import type { Guard, PledgePayload } from '../keys/guard.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeFrame, encodeCertificate, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type { Admission, Core, Decided, Explanation, Input, Pledged, Ready } from '../protocol/core.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { PbftMessage, PbftPledge, Signed } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Hash, Height, ReplicaId, View } from '../protocol/types.ts';
import { asHeight } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { openFrame, verifyMessage } from '../protocol/verify.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { Clock } from './clock.ts';
import { canBeCarried, isRequest, laneOf } from './kinds.ts';
import { PhaseMeter } from './phases.ts';
import type { Meter, PeerEvents, PeerTransport, ReplicaEvents, ReplicaPort } from './ports.ts';
import type { Request } from './serve.ts';
import { Server } from './serve.ts';

export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ReplicaParts {
  readonly core: Core<PbftMessage, PbftPledge>;
  readonly genesis: Genesis;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly verify: VerifyContext;
  readonly log: LogStore;
  readonly guard: Guard;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
  /** The head that was recovered. */
  readonly head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
}

/** Every queue of the loop has its bound. */
export const LOOP_LIMITS = {
  /** Frames that wait for the loop; beyond it the transport stops reading bulk lanes. */
  framesMax: 4096,
  frameBytesMax: 64 << 20,
  /** Frames taken in one turn, so that timers and writes are never far away. */
  framesPerTurnMax: 512,
  bundlesMax: 8192,
  bundleBytesMax: 64 << 20,
  /** Unanswered requests of one peer. */
  requestsPerPeerMax: 32,
  /** How long records that no vote waits for may wait for company. */
  lazyWriteMsMax: 20,
} as const;

interface Pending {
  records: LogRecord[];
  pledges: Pledged<PbftPledge>[];
  lock: Certificate | null;
  lead: View | null;
}
const nothing = (): Pending => ({ records: [], pledges: [], lock: null, lead: null });

export class Replica implements ReplicaPort, PeerEvents {
  readonly #parts: ReplicaParts;
  readonly #server: Server;
  readonly #publicKeys: readonly Bytes[];
  #transport: PeerTransport | null = null;

  #frames: { readonly from: ReplicaId; readonly bytes: Bytes }[] = [];
  #frameBytes = 0;
  #inputs: Input<PbftMessage, PbftPledge>[] = [];
  #bundles = 0;
  #bundleBytes = 0;
  #pending = nothing();
  #writing: Promise<void> | null = null;
  #lazy: NodeJS.Timeout | null = null;
  #turn: NodeJS.Immediate | null = null;
  #alarm: NodeJS.Timeout | null = null;
  #stopped = false;
  #draining = false;
  #fatal: Error | null = null;
  readonly #requests = new Map<ReplicaId, number>();
  readonly #subscribers = new Set<ReplicaEvents>();
  #head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
  #lowest: Height;
  readonly #phases: PhaseMeter;

  constructor(parts: ReplicaParts) {
    this.#parts = parts;
    this.#head = parts.head;
    this.#lowest = asHeight(0);
    this.#publicKeys = parts.genesis.members.map((member) => member.publicKey);
    this.#phases = new PhaseMeter(parts.meter);
    const { sha256 } = parts.crypto;
    this.#server = new Server({ log: parts.log, sha256, wire: { sha256, parameters: parts.genesis.parameters } });
  }

  /** Begins to take turns. Frames and connections may come from now on. */
  start(transport: PeerTransport): void {
    this.#transport = transport;
    this.#wake();
  }

  // ---- what comes in ----------------------------------------------------------------------------------------------

  frame(from: ReplicaId, bytes: Bytes): void {
    if (this.#stopped) return;
    this.#frames.push({ from, bytes });
    this.#frameBytes += bytes.length;
    this.#wake();
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

  /** While true, the transport leaves bulk data in the kernel's buffers and so pushes back on the sender. */
  overloaded(): boolean {
    return this.#frames.length >= LOOP_LIMITS.framesMax / 2 || this.#frameBytes >= LOOP_LIMITS.frameBytesMax / 2;
  }

  #input(input: Input<PbftMessage, PbftPledge>): void {
    if (this.#stopped) return;
    this.#inputs.push(input);
    this.#wake();
  }

  // ---- a turn -----------------------------------------------------------------------------------------------------

  /** After the sockets were read and before the loop sleeps: one turn over all that has arrived. */
  #wake(): void {
    if (this.#turn !== null || this.#stopped || this.#transport === null) return;
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
      for (const frame of this.#frames.splice(0, LOOP_LIMITS.framesPerTurnMax)) {
        this.#frameBytes -= frame.bytes.length;
        const input = this.#open(frame.from, frame.bytes);
        if (input !== null) inputs.push(input);
      }
      if (this.#parts.log.lowest !== this.#lowest) {
        this.#lowest = this.#parts.log.lowest;
        inputs.push({ type: 'retained', lowest: this.#lowest });
      }
      const { core, clock, meter } = this.#parts;
      const started = performance.now();
      const ready = core.step(inputs, clock.now());
      meter.observe('synod_step_ms', performance.now() - started);
      meter.observe('synod_step_inputs', inputs.length);
      this.#act(ready);
      if (this.#frames.length > 0) this.#wake();
    } catch (error) {
      this.#die(error);
    }
  }

  /** Bytes of a peer to an input: decoded, wanted, verified. What cannot be is refused with a code; the peer may lose its connection. */
  #open(from: ReplicaId, bytes: Bytes): Input<PbftMessage, PbftPledge> | null {
    const { verify, core, meter } = this.#parts;
    const frame = decodeFrame(bytes);
    if (isRefusal(frame)) return this.#refuseFrame(from, frame.refused, 'frame');
    const signed = openFrame(frame, verify);
    if (isRefusal(signed)) return this.#refuseFrame(from, signed.refused, frame.kind);
    const { message, sender } = signed;
    if (!core.wants(message)) return null;
    // A statement of the moment is said by the one who says it; only pledges may be carried by others (PBFT-NV-5).
    if (sender !== from && !canBeCarried(message.kind)) return this.#refuseFrame(from, 'not-the-sender', message.kind);
    const started = performance.now();
    const checked = verifyMessage(signed, verify);
    meter.observe('synod_verify_ms', performance.now() - started, { kind: message.kind });
    if (isRefusal(checked)) return this.#refuseFrame(from, checked.refused, message.kind);
    if (isRequest(message)) {
      this.#serve(from, message);
      return null;
    }
    if (message.kind === 'pre-prepare') this.#phases.saw(message.block.header.height);
    return { type: 'message', signed: checked };
  }

  #refuseFrame(from: ReplicaId, code: string, kind: string): null {
    this.#parts.meter.count('synod_refusals_total', { code, kind });
    this.#parts.logger.warn({ peer: this.#nameOf(from), code, kind }, 'refused a frame');
    this.#transport?.punish(from, code);
    return null;
  }

  #act(ready: Ready<PbftMessage, PbftPledge>): void {
    for (const { to, message } of ready.send) this.#sendStatement(to, message);
    for (const { to, signed } of ready.resend) this.#sendSigned(to, signed);
    this.#pending.records.push(...ready.records);
    this.#pending.pledges.push(...ready.pledges);
    this.#pending.lock = ready.lock ?? this.#pending.lock;
    this.#pending.lead = ready.lead ?? this.#pending.lead;
    if (ready.deliver.length > 0) this.#deliver(ready.deliver);
    for (const admission of ready.admissions) this.#admitted(admission);
    for (const { from, code, kind } of ready.refusals) {
      this.#parts.meter.count('synod_refusals_total', { code, kind });
      this.#parts.logger.warn({ peer: this.#nameOf(from), code, kind }, 'refused a message');
    }
    for (const { culprit } of ready.evidence) {
      this.#parts.meter.count('synod_evidence_total', { peer: this.#nameOf(culprit) });
      this.#parts.logger.error({ peer: this.#nameOf(culprit) }, 'a replica signed two conflicting messages');
    }
    for (const event of ready.events) {
      this.#parts.meter.count('synod_events_total', { type: event.type });
      if (event.type === 'prepared') this.#phases.prepared(event.height);
      else this.#parts.logger.info({ ...event }, event.type);
      for (const subscriber of this.#subscribers) subscriber.event?.(event);
    }
    this.#persistSoon();
    this.#setAlarm(ready.wakeAt);
  }

  #setAlarm(at: number): void {
    if (this.#alarm !== null) clearTimeout(this.#alarm);
    this.#alarm = setTimeout(() => this.#wake(), Math.max(1, at - this.#parts.clock.now()));
  }

  // ---- persist, then send -----------------------------------------------------------------------------------------

  #persistSoon(): void {
    const { records, pledges, lead, lock } = this.#pending;
    if (this.#writing !== null || this.#stopped) return;
    if (pledges.length > 0 || lead !== null || lock !== null) return this.#persist();
    // Nothing waits for these: decided blocks are safe with the quorum that prepared them. They share the next write, or go soon.
    if (records.length > 0) this.#lazy ??= setTimeout(() => this.#persist(), LOOP_LIMITS.lazyWriteMsMax);
  }

  #persist(): void {
    if (this.#lazy !== null) clearTimeout(this.#lazy);
    this.#lazy = null;
    if (this.#writing !== null || this.#stopped) return;
    const batch = this.#pending;
    this.#pending = nothing();
    this.#writing = this.#write(batch)
      .catch((error: unknown) => this.#die(error))
      .finally(() => {
        this.#writing = null;
        this.#persistSoon();
      });
  }

  async #write({ records, pledges, lock, lead }: Pending): Promise<void> {
    const { log, guard } = this.#parts;
    const floor = log.position;
    const payloads = pledges.map(({ pledge, broadcast }) => ({ pledge, broadcast, payload: encodePayload(pledge) }));
    const writes: Promise<unknown>[] = [];
    if (records.length > 0) {
      this.#parts.meter.observe('synod_log_write_bytes', sizeOf(records));
      writes.push(this.#timed('synod_log_write_ms', log.write(records)));
    }
    const promised = this.#promise(payloads, lock === null ? null : encodeCertificate(lock), floor);
    writes.push(this.#timed('synod_guard_write_ms', promised));
    if (lead !== null) writes.push(guard.lead(lead));
    await Promise.all(writes);
    if (this.#stopped) return;
    log.moveFloor(guard.state.floor);
    // Durable: now, and only now, these votes exist.
    if (lead !== null) this.#inputs.push({ type: 'leading', view: lead });
    for (const { pledge, broadcast, payload } of await promised) {
      const signature = guard.sign(pledge, payload);
      const signed = asVerified({ sender: this.#parts.self, message: pledge, payload, signature }); // signed here
      if (broadcast) this.#sendSigned('all', signed);
      this.#inputs.push({ type: 'own', signed });
    }
    this.#wake();
  }

  /** The pledges that the guard has made durable. One that it refuses is dropped, never signed, and the others stand. */
  async #promise<P extends PledgePayload>(
    pledges: readonly P[],
    lock: Bytes | null,
    floor: LogStore['position'],
  ): Promise<readonly P[]> {
    const { guard, logger, meter } = this.#parts;
    if (pledges.length === 0 && lock === null) return [];
    try {
      await guard.promise({ pledges, lock, log: floor });
      return pledges;
    } catch (error) {
      if (!(error instanceof GuardRefusal)) throw error;
      if (pledges.length === 1) {
        meter.count('synod_guard_refusals_total', { code: error.code });
        logger.warn({ code: error.code, kind: pledges[0]!.pledge.kind }, 'the guard refused to sign');
        return [];
      }
    }
    const kept: P[] = [];
    for (const pledge of pledges) kept.push(...(await this.#promise([pledge], lock, floor)));
    return kept;
  }

  async #timed<T>(name: string, work: Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await work;
    this.#parts.meter.observe(name, performance.now() - started);
    return result;
  }

  // ---- sending ----------------------------------------------------------------------------------------------------

  #sendStatement(to: ReplicaId | 'all', message: Exclude<PbftMessage, PbftPledge>): void {
    const { guard, self } = this.#parts;
    const payload = encodePayload(message);
    let signature: Bytes;
    if (message.kind === 'pre-prepare') {
      const { header, hash } = message.block;
      this.#phases.saw(header.height);
      signature = guard.signProposal({ epoch: header.epoch, view: message.view, height: header.height, hash });
    } else {
      signature = guard.signStatement(message.kind, payload);
    }
    this.#sendFrame(to, { kind: message.kind, payload, sender: this.#publicKeys[self]!, signature });
  }

  #sendSigned(to: ReplicaId | 'all', { message, payload, sender, signature }: Signed<PbftMessage>): void {
    this.#sendFrame(to, { kind: message.kind, payload, sender: this.#publicKeys[sender]!, signature });
  }

  #sendFrame(
    to: ReplicaId | 'all',
    frame: Parameters<typeof encodeFrame>[0] & { readonly kind: PbftMessage['kind'] },
  ): void {
    const bytes = encodeFrame(frame);
    const lane = laneOf(frame.kind);
    if (to === 'all') this.#transport?.broadcast(bytes, lane);
    else this.#transport?.send(to, bytes, lane);
  }

  #serve(from: ReplicaId, request: Request): void {
    const open = this.#requests.get(from) ?? 0;
    if (open >= LOOP_LIMITS.requestsPerPeerMax) return;
    this.#requests.set(from, open + 1);
    this.#server
      .answer(request)
      .then((answer) => {
        if (answer !== null && !this.#stopped) this.#sendStatement(from, answer);
      })
      .catch((error: unknown) => this.#die(error))
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

  head(): { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null } {
    return this.#head;
  }

  subscribe(events: ReplicaEvents): () => void {
    this.#subscribers.add(events);
    return () => this.#subscribers.delete(events);
  }

  queueDepths(): { frames: number; frameBytes: number; inputs: number; records: number } {
    return {
      frames: this.#frames.length,
      frameBytes: this.#frameBytes,
      inputs: this.#inputs.length,
      records: this.#pending.records.length,
    };
  }

  // ---- the end ----------------------------------------------------------------------------------------------------

  async drain(): Promise<void> {
    this.#draining = true;
    const deadline = performance.now() + 2 * this.genesis.parameters.viewTimeoutMs;
    while (!this.#stopped && performance.now() < deadline && this.explain().inFlight > 0) await later(10);
    while (!this.#stopped && (this.#writing !== null || this.#pending.records.length > 0)) {
      if (this.#writing === null) this.#persist();
      await this.#writing;
    }
    this.stop();
    await this.#writing;
  }

  stop(): void {
    this.#stopped = true;
    if (this.#turn !== null) clearImmediate(this.#turn);
    if (this.#alarm !== null) clearTimeout(this.#alarm);
    if (this.#lazy !== null) clearTimeout(this.#lazy);
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

/** Block and state bytes; what is beside them is small. */
function sizeOf(records: readonly LogRecord[]): number {
  let size = 0;
  for (const record of records) {
    if (record.type === 'block') size += record.bytes.header.length + record.bytes.body.length;
    if (record.type === 'state-chunk') size += record.bytes.length;
  }
  return size;
}
