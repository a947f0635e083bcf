// The flight recorder: the inputs of every step of the core, in a ring of segments on disk, so that `synod replay` can run the same steps again
// (docs/adr/0007-flight-recorder.md). Beside the loop, never in its way: appends into memory, writes that nobody waits for, no sync. Whatever
// fails here is counted and logged, and the ring goes on with a new segment.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Core, Input } from '../../protocol/core.ts';
import { type EpochDocument, encodeEpoch } from '../../protocol/epoch/document.ts';
import type { ReplicaMessage, ReplicaPledge } from '../../protocol/messages.ts';
import { type AnyReady, digestOf, encodeStep } from '../../protocol/recording.ts';
import type { Hash, Millis, ReplicaId } from '../../protocol/types.ts';
import type { Meter } from '../ports.ts';
import type { Logger } from '../replica.ts';
import {
  END_BYTES_MAX,
  type Ending,
  encodeEnd,
  encodeHead,
  encodeState,
  encodeStepRecord,
  encodeThrew,
  type Gap,
  lengthOf,
  SEGMENT_BYTES_MAX,
  type SegmentHead,
  STATE_BYTES_MAX,
  STEPS_MAX,
  stepRecordBytes,
} from './format.ts';
import type { SegmentFile, SegmentFolder } from './segment-files.ts';

type RecordedCore = Pick<Core<ReplicaMessage, ReplicaPledge>, 'snapshot'>;

/** What the loop calls, around each step of the core. Never throws, never waits. */
export interface StepRecorder {
  before(core: RecordedCore, inputs: readonly Input<ReplicaMessage, ReplicaPledge>[], now: Millis): void;
  after(ready: AnyReady): void;
  /** The core threw: the last thing that a recording can show, and what it is for. */
  threw(error: unknown): void;
}

/** [FLR-6] Nothing of a key: what a recording holds is what the core was given, and a core has none. */
export interface RecorderOptions {
  readonly folder: SegmentFolder;
  /** Of all files together, at most. */
  readonly bytesMax: number;
  readonly chainId: Hash;
  readonly genesisDocument: Bytes;
  /** Of the epoch that the core is in. */
  readonly epoch: EpochDocument;
  readonly self: ReplicaId;
  readonly member: string;
  /** Of synod. */
  readonly software: string;
  /** When this process began, in milliseconds since 1970. */
  readonly startedAt: number;
  readonly sha256: (bytes: Bytes) => Bytes;
  readonly meter: Meter;
  readonly logger: Pick<Logger, 'info' | 'warn'>;
  /** Milliseconds from any moment, never back. */
  readonly monotonic?: () => number;
}

export const RECORDER_LIMITS = {
  /** The oldest goes when a new one begins, so three quarters of the ring are always there. */
  segments: 4,
  /** Segments that ended before they were full are small, and there may be more of them; in a ring of many GiB, twice those that fill it. */
  filesMin: 64,
  /** Bytes that wait for the disk, beside the state that a segment begins with: then the rest of the segment is left out. */
  waitingBytesMax: 16 << 20,
  /** Written when so much waits, or after so long. */
  flushBytes: 1 << 20,
  flushMs: 100,
  /** Snapshots take one part in so many of the time at most: a small ring at full load has gaps, not a slower replica. */
  pace: 50,
  /** After a failure, before the next segment. */
  pauseMs: 5_000,
} as const;

/** Bytes of one segment of a ring. */
export const segmentBytesOf = (bytesMax: number): number =>
  Math.min(SEGMENT_BYTES_MAX, Math.floor(bytesMax / RECORDER_LIMITS.segments));

/** Files of one ring, at most. */
export const filesMaxOf = (bytesMax: number): number =>
  Math.max(RECORDER_LIMITS.filesMin, Math.ceil((2 * bytesMax) / segmentBytesOf(bytesMax)));

interface OpenSegment {
  bytes: number;
  steps: number;
  /** Bytes of its head and its state. */
  readonly start: number;
}

/** In the order in which the disk gets it. */
type Work =
  | { readonly type: 'begin'; readonly head: Omit<SegmentHead, 'number'>; readonly parts: readonly Bytes[] }
  | { readonly type: 'append'; readonly parts: readonly Bytes[] };

export class Recorder implements StepRecorder {
  #options: RecorderOptions;
  readonly #segmentBytesMax: number;
  readonly #monotonic: () => number;
  #segment: OpenSegment | null = null;
  /** The inputs of the step that runs; null: it is not recorded. */
  #running: readonly Bytes[] | null = null;
  #missed = 0;
  #gap: Gap = 'start';
  #resumeAt = Number.NEGATIVE_INFINITY;
  #snapshotAt = Number.NEGATIVE_INFINITY;
  #snapshotMs = 0;
  /** Said once, until a segment begins again. */
  #complained = false;
  #closed = false;

  // ---- on its way to the disk
  #parts: Bytes[] = [];
  #partBytes = 0;
  #work: Work[] = [];
  /** Bytes of both, and of the write under way. */
  #waiting = 0;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> | null = null;
  #file: SegmentFile | null = null;

  constructor(options: RecorderOptions) {
    this.#options = options;
    this.#segmentBytesMax = segmentBytesOf(options.bytesMax);
    this.#monotonic = options.monotonic ?? (() => performance.now());
  }

  // ---- what the loop calls ----------------------------------------------------------------------------------------

  /** [FLR-2] */
  before(core: RecordedCore, inputs: readonly Input<ReplicaMessage, ReplicaPledge>[], now: Millis): void {
    this.#running = null;
    if (this.#closed) return;
    try {
      if (this.#segment === null && this.#monotonic() < this.#resumeAt) return this.#miss();
      const step = encodeStep({ now, inputs });
      if (this.#hasPlaceFor(core, stepRecordBytes(step))) this.#running = step;
      else this.#miss();
    } catch (error) {
      this.#failed(error);
    }
  }

  after(ready: AnyReady): void {
    const step = this.#running;
    this.#running = null;
    if (step === null || this.#segment === null) return;
    try {
      this.#append(encodeStepRecord(digestOf(ready), step));
      this.#segment.steps += 1;
    } catch (error) {
      this.#failed(error);
    }
  }

  threw(error: unknown): void {
    const step = this.#running;
    this.#running = null;
    if (step === null || this.#segment === null) return;
    this.#append(encodeThrew(error, step));
    this.#segment = null;
    this.#closed = true;
    this.#flush();
  }

  /** The steps of this core follow, in a segment of their own; nothing of that is written at once, for others wait for what the core is to say. */
  enter(place: Pick<RecorderOptions, 'epoch' | 'self'>, core: RecordedCore): void {
    if (this.#closed) return;
    try {
      if (this.#segment !== null) this.#end('stopped', null);
      this.#options = { ...this.#options, ...place };
      this.#snapshotAt = Number.NEGATIVE_INFINITY;
      this.#resumeAt = Number.NEGATIVE_INFINITY;
      if (this.#gap === 'none') this.#gap = 'start';
      // Now, and not with its first step, which has others waiting.
      this.#hasPlaceFor(core, 0);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Ends the segment, and resolves when all is written or has failed. `core`: to say what state it ended in. */
  async close(core: RecordedCore): Promise<void> {
    if (this.#segment !== null && !this.#closed) {
      try {
        this.#end('stopped', this.#snapshot(core));
      } catch (error) {
        this.#failed(error);
      }
    }
    this.#closed = true;
    this.#flush();
    await this.#writing;
    await this.#closeFile();
  }

  /** Bytes that the disk has not taken yet. */
  get waitingBytes(): number {
    return this.#waiting;
  }

  // ---- segments ---------------------------------------------------------------------------------------------------

  #miss(): void {
    this.#missed += 1;
    this.#options.meter.count('synod_recorder_missed_total', { why: this.#gap });
  }

  /** [FLR-4] Whether a record of so many bytes can be written: in this segment, or in the next one. */
  #hasPlaceFor(core: RecordedCore, bytes: number): boolean {
    const segment = this.#segment;
    if (segment !== null && this.#waiting + bytes > RECORDER_LIMITS.waitingBytesMax + segment.start) {
      this.#end('disk-slow', null);
      return this.#pause('disk-slow', RECORDER_LIMITS.pauseMs);
    }
    const hasRoom = segment !== null && segment.bytes + bytes + END_BYTES_MAX <= this.#segmentBytesMax;
    if (hasRoom && segment.steps < STEPS_MAX) return true;
    // The disk has not taken yet what it was given before.
    if (segment === null && this.#waiting > RECORDER_LIMITS.waitingBytesMax / 2)
      return this.#pause('disk-slow', RECORDER_LIMITS.pauseMs);
    const readyAt = this.#snapshotAt + RECORDER_LIMITS.pace * this.#snapshotMs;
    const wait = readyAt - this.#monotonic();
    if (wait > 0) {
      if (segment !== null) this.#end('paced', null);
      return this.#pause('paced', wait);
    }
    const snapshot = this.#snapshot(core);
    if (segment !== null) this.#end('full', snapshot);
    return snapshot === null ? this.#tooLarge('state-too-large') : this.#begin(snapshot, bytes);
  }

  #tooLarge(why: 'state-too-large' | 'step-too-large'): false {
    this.#complain({ segmentBytes: this.#segmentBytesMax }, why);
    return this.#pause(why, RECORDER_LIMITS.pauseMs);
  }

  /** Null: it would take more than half of a segment, or too long. */
  #snapshot(core: RecordedCore): Bytes | null {
    const began = this.#monotonic();
    const snapshot = core.snapshot(Math.min(STATE_BYTES_MAX, this.#segmentBytesMax / 2));
    this.#snapshotAt = this.#monotonic();
    this.#snapshotMs = this.#snapshotAt - began;
    this.#options.meter.observe('synod_recorder_snapshot_ms', this.#snapshotMs);
    return snapshot;
  }

  #begin(snapshot: Bytes, bytes: number): boolean {
    const { chainId, self, member, software, startedAt, genesisDocument: genesis, epoch: own } = this.#options;
    const epoch = own.epoch === 0 ? null : encodeEpoch(own);
    const head = { chainId, replica: self, member, software, startedAt, genesis, epoch };
    const state = encodeState(snapshot);
    const gap = { gap: this.#gap, missed: this.#missed };
    // Its number is known when the folder is looked at; as many bytes as the largest one has.
    const start = encodeHead({ ...head, ...gap, number: Number.MAX_SAFE_INTEGER }).length + lengthOf(state);
    if (start + bytes + END_BYTES_MAX > this.#segmentBytesMax) return this.#tooLarge('step-too-large');
    this.#segment = { bytes: start, steps: 0, start };
    this.#work.push({ type: 'begin', head: { ...head, ...gap }, parts: state });
    this.#waiting += lengthOf(state);
    this.#missed = 0;
    this.#gap = 'none';
    this.#flushSoon();
    return true;
  }

  #end(why: Ending, snapshot: Bytes | null): void {
    const { steps } = this.#segment!; // called with one
    const state = snapshot === null ? null : this.#options.sha256(snapshot);
    this.#append(encodeEnd({ why, steps, state }));
    this.#hold();
    this.#segment = null;
  }

  #pause(gap: Gap, ms: number): false {
    this.#gap = gap;
    this.#resumeAt = this.#monotonic() + ms;
    return false;
  }

  /** [FLR-4] Counted, said once, and the ring goes on at the next segment. */
  #failed(error: unknown): void {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'internal';
    this.#options.meter.count('synod_recorder_errors_total', { code });
    this.#complain({ error: String(error) }, 'write-failed');
    this.#segment = null;
    this.#running = null;
    this.#parts = [];
    this.#work = [];
    this.#partBytes = 0;
    this.#waiting = 0;
    this.#pause('write-failed', RECORDER_LIMITS.pauseMs);
    this.#miss();
  }

  #complain(fields: object, why: Gap): void {
    if (this.#complained) return;
    this.#complained = true;
    this.#options.logger.warn({ ...fields, why }, 'the flight recorder leaves out steps; the replica goes on');
  }

  // ---- writing ----------------------------------------------------------------------------------------------------

  #append(parts: readonly Bytes[]): void {
    const bytes = lengthOf(parts);
    this.#parts.push(...parts);
    this.#partBytes += bytes;
    this.#waiting += bytes;
    this.#segment!.bytes += bytes; // called with one
    if (this.#partBytes >= RECORDER_LIMITS.flushBytes) this.#flush();
    else this.#flushSoon();
  }

  #flushSoon(): void {
    this.#timer ??= setTimeout(() => this.#flush(), RECORDER_LIMITS.flushMs).unref();
  }

  #flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#hold();
    if (this.#work.length > 0) this.#write();
  }

  /** What was appended takes its place among the work. */
  #hold(): void {
    if (this.#partBytes === 0) return;
    this.#work.push({ type: 'append', parts: this.#parts });
    this.#parts = [];
    this.#partBytes = 0;
  }

  #write(): void {
    this.#writing ??= this.#writeAll()
      .catch((error: unknown) => {
        this.#failed(error);
        return this.#closeFile();
      })
      .finally(() => {
        this.#writing = null;
        if (this.#work.length > 0) this.#write();
      });
  }

  async #writeAll(): Promise<void> {
    for (let work = this.#work.shift(); work !== undefined; work = this.#work.shift()) {
      const waited = lengthOf(work.parts);
      const parts = work.type === 'begin' ? await this.#beginFile(work) : work.parts;
      // Null: what came before it has failed, and this is the rest of it.
      if (work.type === 'append') await this.#file?.append(parts);
      this.#options.meter.count('synod_recorder_bytes_total', {}, lengthOf(parts));
      this.#waiting = Math.max(0, this.#waiting - waited);
      this.#complained = false;
    }
  }

  /** Returns what was written. */
  async #beginFile({ head, parts: state }: Extract<Work, { readonly type: 'begin' }>): Promise<readonly Bytes[]> {
    const { folder } = this.#options;
    await this.#closeFile();
    const number = await this.#makeRoom();
    const parts = [encodeHead({ ...head, number }), ...state];
    this.#file = await folder.create(number);
    try {
      await this.#file.append(parts);
    } catch (error) {
      // Without its state a segment is good for nothing.
      await this.#closeFile();
      await folder.remove(number).catch(() => undefined);
      throw error;
    }
    return parts;
  }

  /** [FLR-4] The oldest segments go until a whole new one has its place. Returns the new one's number. */
  async #makeRoom(): Promise<number> {
    const { folder, bytesMax } = this.#options;
    const segments = await folder.list();
    let bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
    for (const [index, { number, bytes: freed }] of segments.entries()) {
      const isFew = segments.length - index < filesMaxOf(bytesMax);
      if (isFew && bytes + this.#segmentBytesMax <= bytesMax) break;
      await folder.remove(number);
      bytes -= freed;
    }
    return (segments.at(-1)?.number ?? 0) + 1;
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    // What it could not keep it has said when it was written.
    await file?.close().catch(() => undefined);
  }
}
