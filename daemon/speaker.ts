// Persist before you speak: duties 1 to 3 of protocol/core.ts. What binds nobody leaves at once. A pledge is signed and leaves only when
// the records beside it are in the log and its mark is in the guard's file; then it goes back to the core, which counts it like any other.
//
// The log and the guard are written at the same time (ADR 4). While they are, the core goes on stepping; what it wants persisted
// meanwhile shares the next write (group commit).

import type { Bytes } from '../crypto/bytes.ts';
import { GuardRefusal } from '../keys/errors.ts';
import type { Guard, PledgePayload, PromiseBatch } from '../keys/guard.ts';
import { encodeCertificate, encodeFrame, encodePayload, signedPart } from '../protocol/codec.ts';
import type { Audience, Input, Ready } from '../protocol/core.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { PrePrepare, ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Pending } from '../protocol/pending.ts';
import { gather, isEmpty, isUrgent, LAZY_WRITE_MS_MAX, nothingPending } from '../protocol/pending.ts';
import type { ReplicaId, View } from '../protocol/types.ts';
import { WriteLag } from '../protocol/write-lag.ts';
import type { LogStore } from '../storage/log-store.ts';
import { laneOf } from './kinds.ts';
import type { Meter, PeerTransport } from './ports.ts';
import type { Logger } from './replica.ts';

export interface SpeakerParts {
  readonly genesis: Genesis;
  readonly self: ReplicaId;
  readonly log: LogStore;
  readonly guard: Guard;
  readonly meter: Meter;
  readonly logger: Logger;
  /** This replica's pledges, durable and signed: inputs of the next turn. */
  readonly back: (inputs: readonly Input<ReplicaMessage, ReplicaPledge>[]) => void;
  /** A write failed: nothing is signed or sent from here on. */
  readonly failed: (error: unknown) => void;
}

export class Speaker {
  readonly #parts: SpeakerParts;
  readonly #publicKeys: readonly Bytes[];
  #transport: PeerTransport | null = null;
  #pending = nothingPending();
  #waitingBytes = 0;
  #writing: Promise<void> | null = null;
  readonly #lag: WriteLag;
  #lazy: NodeJS.Timeout | null = null;
  /** A write begins before the loop goes on. */
  #persisting = false;
  #stopped = false;

  constructor(parts: SpeakerParts) {
    this.#parts = parts;
    this.#publicKeys = parts.genesis.members.map((member) => member.publicKey);
    this.#lag = new WriteLag(parts.genesis.parameters.viewTimeoutMs);
  }

  start(transport: PeerTransport): void {
    this.#transport = transport;
  }

  /** Block and state bytes that wait to be written. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Records that wait to be written. */
  get waiting(): number {
    return this.#pending.records.length;
  }

  /** How long the write under way has taken; 0: none is. */
  get writingMs(): number {
    return this.#lag.writingMs(performance.now());
  }

  /** [STALL-1] Whole milliseconds that writes have held this replica up, since the last call. */
  takeStallMs(): number {
    return this.#lag.take(performance.now());
  }

  speak(ready: Ready<ReplicaMessage, ReplicaPledge>): void {
    for (const { to, message } of ready.send) this.state(to, message);
    for (const { to, signed } of ready.resend) this.#sendSigned(to, signed);
    gather(this.#pending, ready);
    this.#waitingBytes += sizeOf(ready.records);
    this.#persistSoon();
  }

  /** Writes what waits, however little it is; resolves when nothing is left. */
  async flush(): Promise<void> {
    while (!this.#stopped && (this.#writing !== null || !isEmpty(this.#pending))) {
      if (this.#writing === null) this.#persist();
      await this.#writing;
    }
  }

  stop(): void {
    this.#stopped = true;
    if (this.#lazy !== null) clearTimeout(this.#lazy);
  }

  // ---- persist, then send -----------------------------------------------------------------------------------------

  #persistSoon(): void {
    if (this.#writing !== null || this.#stopped) return;
    if (isUrgent(this.#pending)) {
      // After the sockets have been flushed (transport/flusher.ts): the others check a proposal while its primary writes it down.
      if (!this.#persisting) process.nextTick(() => this.#persist());
      this.#persisting = true;
      return;
    }
    // They share the next write, or go soon.
    if (this.#pending.records.length > 0) this.#lazy ??= setTimeout(() => this.#persist(), LAZY_WRITE_MS_MAX);
  }

  #persist(): void {
    if (this.#lazy !== null) clearTimeout(this.#lazy);
    this.#lazy = null;
    this.#persisting = false;
    if (this.#writing !== null || this.#stopped) return;
    const batch = this.#pending;
    this.#pending = nothingPending();
    this.#waitingBytes = 0;
    this.#lag.begin(performance.now());
    this.#writing = this.#write(batch)
      .catch((error: unknown) => this.#parts.failed(error))
      .finally(() => {
        this.#writing = null;
        this.#lag.end(performance.now());
        this.#persistSoon();
      });
  }

  async #write({ records, pledges, lock, lead, readmit }: Pending): Promise<void> {
    const { log, guard, meter } = this.#parts;
    const durable = { log: log.position, decided: log.head };
    const payloads = pledges.map((each) => ({ ...each, payload: encodePayload(each.pledge) }));
    const writes: Promise<unknown>[] = [];
    if (records.length > 0) {
      meter.observe('synod_log_write_bytes', sizeOf(records));
      writes.push(this.#timed('synod_log_write_ms', log.write(records)));
    }
    const promised = this.#promise(payloads, lock === null ? null : encodeCertificate(lock), durable);
    writes.push(this.#timed('synod_guard_write_ms', promised));
    const led = lead === null ? Promise.resolve(null) : this.#lead(lead);
    writes.push(led);
    if (readmit !== null) {
      const { view, height, prepared } = readmit;
      writes.push(guard.readmit({ view, height, lock: encodeCertificate(prepared) })); // REC-4
    }
    await Promise.all(writes);
    if (this.#stopped) return;
    log.moveFloor(guard.floor);
    // Durable: now, and only now, these votes exist.
    const back: Input<ReplicaMessage, ReplicaPledge>[] = [];
    const view = await led;
    if (view !== null) back.push({ type: 'leading', view });
    if (readmit !== null) back.push({ type: 'readmitted', view: readmit.view, height: readmit.height });
    const kept = await promised;
    for (const each of kept) {
      const signed = this.#sign(each);
      if (signed === null) continue;
      if (each.broadcast) this.#sendSigned(each.to ?? 'all', signed);
      back.push({ type: 'own', signed });
    }
    for (const each of payloads) if (!kept.includes(each)) back.push({ type: 'refused', pledge: each.pledge });
    this.#parts.back(back);
  }

  /**
   * The pledges that the guard has made durable. One that it refuses is never signed, the core hears of it, and the others stand: but a
   * vote that contradicts an older one burns its view in the guard, so that no vote above it is signed either (GRD-17).
   */
  async #promise<P extends PledgePayload>(
    pledges: readonly P[],
    lock: Bytes | null,
    durable: Pick<PromiseBatch, 'log' | 'decided'>,
  ): Promise<readonly P[]> {
    const { guard } = this.#parts;
    if (pledges.length === 0 && lock === null) return [];
    try {
      await guard.promise({ pledges, lock, ...durable });
      return pledges;
    } catch (error) {
      // A certificate that cannot be kept is nothing to go on without.
      if (!(error instanceof GuardRefusal) || pledges.length === 0) throw error;
      if (pledges.length === 1) {
        this.#note(error, pledges[0]!.pledge.kind);
        return [];
      }
    }
    const kept: P[] = [];
    for (const pledge of pledges) kept.push(...(await this.#promise([pledge], lock, durable)));
    return kept;
  }

  /** The view, once the guard remembers that this replica leads it; null where it has moved on, or led it before a restart. */
  async #lead(view: View): Promise<View | null> {
    try {
      await this.#parts.guard.lead(view);
      return view;
    } catch (error) {
      if (!(error instanceof GuardRefusal)) throw error;
      this.#note(error, 'lead');
      return null;
    }
  }

  #sign({ pledge, payload }: PledgePayload): Verified<ReplicaPledge> | null {
    try {
      const signature = this.#parts.guard.sign(pledge, payload);
      return asVerified({ sender: this.#parts.self, message: pledge, payload, signature }); // signed here
    } catch (error) {
      if (!(error instanceof GuardRefusal)) throw error;
      this.#note(error, pledge.kind);
      return null;
    }
  }

  #note({ code }: GuardRefusal, kind: string): void {
    this.#parts.meter.count('synod_guard_refusals_total', { code });
    this.#parts.logger.warn({ code, kind }, 'the guard refused to sign');
  }

  async #timed<T>(name: string, work: Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await work;
    this.#parts.meter.observe(name, performance.now() - started);
    return result;
  }

  // ---- sending ----------------------------------------------------------------------------------------------------

  /** Signs and sends what binds nobody, at once. A proposal's signature is this replica's prepare, which the guard allows it to give ahead of its mark. */
  state(to: Audience, message: Exclude<ReplicaMessage, ReplicaPledge>): void {
    const { guard, self } = this.#parts;
    const payload = encodePayload(message);
    let signature: Bytes;
    if (message.kind === 'pre-prepare') {
      const proposed = this.#signProposal(message);
      if (proposed === null) return;
      signature = proposed;
    } else {
      signature = guard.signStatement(message.kind, signedPart(message, payload));
    }
    this.#sendFrame(to, { kind: message.kind, payload, sender: this.#publicKeys[self]!, signature });
  }

  /**
   * Null where it would contradict what was signed before, and in a view that is burned for that (GRD-17): the prepare beside it is refused
   * as well, and the core hears of that. Any other refusal is a bug.
   */
  #signProposal({ view, block }: PrePrepare): Bytes | null {
    const { epoch, height } = block.header;
    try {
      return this.#parts.guard.signProposal({ epoch, view, height, hash: block.hash });
    } catch (error) {
      const isContradiction =
        error instanceof GuardRefusal && (error.code === 'guard-conflict' || error.code === 'guard-view-burned');
      if (!isContradiction) throw error;
      this.#note(error, 'pre-prepare');
      return null;
    }
  }

  #sendSigned(to: Audience, { message, payload, sender, signature }: Signed<ReplicaMessage>): void {
    this.#sendFrame(to, { kind: message.kind, payload, sender: this.#publicKeys[sender]!, signature });
  }

  #sendFrame(to: Audience, frame: Parameters<typeof encodeFrame>[0] & { readonly kind: ReplicaMessage['kind'] }): void {
    const bytes = encodeFrame(frame);
    const lane = laneOf(frame.kind);
    if (to === 'all') this.#transport?.broadcast(bytes, lane);
    else for (const one of typeof to === 'number' ? [to] : to) this.#transport?.send(one, bytes, lane);
  }
}

/** Block and state bytes; what is beside them is small. */
function sizeOf(records: readonly LogRecord[]): number {
  let size = 0;
  for (const record of records) {
    if (record.type === 'block') size += record.bytes.header.length + record.bytes.body.length;
    if (record.type === 'state-chunk') size += record.bytes.length;
  }
  return size;
}
