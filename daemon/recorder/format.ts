// A segment of a flight recording as a file: a tag of 16 bytes, then records, each behind a head of 12 bytes: the length of its body, the CRC-32
// of its body, and the CRC-32 of these eight bytes, all big-endian. The first record says whose it is, the second holds the core's
// state, the others are its steps. Where everything was written the last record is an end. docs/operations.md says what people do with it.

import { type Bytes, concat, equalBytes } from '../../crypto/bytes.ts';
import { domainTag, LayoutReader, LayoutWriter } from '../../protocol/layout.ts';
import { decodeMsgpack, encodeMsgpack, type WireValue } from '../../protocol/msgpack.ts';
import type { Hash, ReplicaId } from '../../protocol/types.ts';
import { asHash, asReplicaId } from '../../protocol/types.ts';
import { crc32 } from '../../storage/checksum.ts';

export const RECORDING_VERSION = 1;

const tag = domainTag('synod-v1:flight');
const HEAD_BYTES = 12;
const TYPE = { head: 1, state: 2, step: 3, threw: 4, end: 5 } as const;
/** A segment is read whole; no recorder writes larger ones. */
export const SEGMENT_BYTES_MAX = 256 << 20;
/** A segment is full with so many steps, however small they are: a reader has a place for each. */
export const STEPS_MAX = 1 << 20;
/** Of a state that a segment begins with: writing a larger one would hold the loop for longer than a heartbeat. */
export const STATE_BYTES_MAX = 32 << 20;
/** Of an error's sentence. */
const TEXT_MAX = 2_000;
/** Room that every segment keeps for its end. */
export const END_BYTES_MAX = 128;

/** Why steps are missing before a segment. */
export const gaps = [
  'none',
  'start',
  'disk-slow',
  'write-failed',
  'state-too-large',
  'step-too-large',
  'paced',
] as const;
export type Gap = (typeof gaps)[number];

export const endings = ['full', 'stopped', 'disk-slow', 'paced'] as const;
export type Ending = (typeof endings)[number];

export interface SegmentHead {
  /** Of the segment, from 1; the next one has this plus one. */
  readonly number: number;
  readonly chainId: Hash;
  readonly replica: ReplicaId;
  readonly member: string;
  /** Of synod. */
  readonly software: string;
  /** When the process began, in milliseconds since 1970: segments of one process have one. */
  readonly startedAt: number;
  /** Steps that were not recorded between the segment before and this one, and why. */
  readonly gap: Gap;
  readonly missed: number;
  /** The genesis document, byte for byte. */
  readonly genesis: Bytes;
  /** The document of the epoch that the core is in (protocol/epoch/document.ts); null: the first, which is in the genesis document. */
  readonly epoch: Bytes | null;
}

export interface SegmentEnd {
  readonly why: Ending;
  readonly steps: number;
  /** SHA-256 of the snapshot after the last step: of the state that the next segment begins with. Null: none was taken. */
  readonly state: Bytes | null;
}

export interface StepRecord {
  /** Of the Ready (protocol/recording.ts); null: the core threw. */
  readonly digest: number | null;
  /** What the core threw; empty where it did not. */
  readonly threw: string;
  /** What encodeStep gave, one behind the other. */
  readonly inputs: Bytes;
}

// ---- writing --------------------------------------------------------------------------------------------------------

export function encodeHead(head: SegmentHead): Bytes {
  const { chainId, replica, member, software, number, startedAt, gap, missed, genesis, epoch } = head;
  const fields = [number, chainId, replica, member, software, startedAt, gap, missed, genesis, epoch];
  return concat(tag, ...record(TYPE.head, [encodeMsgpack([RECORDING_VERSION, ...fields])]));
}

// Records are given in parts, to be written one behind the other: what is large in them is not copied.

export const encodeState = (snapshot: Bytes): readonly Bytes[] => record(TYPE.state, [], [snapshot]);

export function encodeStepRecord(digest: number, [small, ...large]: readonly Bytes[]): readonly Bytes[] {
  return record(TYPE.step, [new LayoutWriter(4).u32(digest).done(), small!], large); // encodeStep gives one at least
}

/** Bytes of a step's record. */
export const stepRecordBytes = (step: readonly Bytes[]): number => HEAD_BYTES + 1 + 4 + lengthOf(step);

export function encodeThrew(error: unknown, step: readonly Bytes[]): readonly Bytes[] {
  // Well formed: half of a pair of surrogates has no UTF-8.
  const text = String(error)
    .slice(0, TEXT_MAX)
    .replace(/\p{Surrogate}/gu, '?')
    .replace(/^\ufeff/, '');
  return record(TYPE.threw, [encodeMsgpack([text, concat(...step)])]);
}

export const encodeEnd = ({ why, steps, state }: SegmentEnd): readonly Bytes[] =>
  record(TYPE.end, [encodeMsgpack([why, steps, state])]);

export const lengthOf = (parts: readonly Bytes[]): number => parts.reduce((sum, part) => sum + part.length, 0);

/** `small` is copied behind the head, so that a record of a small step is one part and the disk's call has few of them. */
function record(type: number, small: readonly Bytes[], large: readonly Bytes[] = []): readonly Bytes[] {
  const start = new Uint8Array(HEAD_BYTES + 1 + lengthOf(small));
  start[HEAD_BYTES] = type;
  let at = HEAD_BYTES + 1;
  for (const part of small) {
    start.set(part, at);
    at += part.length;
  }
  const crc = large.reduce((sum, part) => crc32(part, sum), crc32(start.subarray(HEAD_BYTES)));
  const head = new DataView(start.buffer);
  head.setUint32(0, start.length - HEAD_BYTES + lengthOf(large));
  head.setUint32(4, crc);
  head.setUint32(8, crc32(start.subarray(0, 8)));
  return [start, ...large];
}

// ---- reading --------------------------------------------------------------------------------------------------------

/** How a segment ends: with its end; between two records, for the process was killed or still runs; in the middle of one; or damaged. */
export type Stop =
  | { readonly kind: 'end' | 'cut' | 'torn' }
  | { readonly kind: 'damaged'; readonly at: number; readonly problem: string };

export interface Segment {
  readonly head: SegmentHead;
  readonly snapshot: Bytes;
  /** As far as they can be read. */
  readonly steps: readonly StepRecord[];
  readonly end: SegmentEnd | null;
  readonly stop: Stop;
}

export interface SegmentRefusal {
  readonly refused: 'recording-malformed' | 'recording-version' | 'recording-damaged';
  readonly problem: string;
}

/** [FLR-3] Bytes of a file that anyone may have written: never throws. Read up to where it ends, is torn or damaged; refused where not even the state is whole. */
export function readSegment(bytes: Bytes): Segment | SegmentRefusal {
  if (bytes.length < tag.length || !equalBytes(bytes.subarray(0, tag.length), tag))
    return { refused: 'recording-malformed', problem: 'not a segment of a flight recording' };
  let at = tag.length;
  let stop: Stop | null = null;
  const next = (): Bytes | null => {
    const found = recordAt(bytes, at);
    if (!(found instanceof Uint8Array)) {
      stop = found;
      return null;
    }
    at += HEAD_BYTES + found.length;
    return found;
  };
  const first = next();
  const head = first === null ? null : headIn(first);
  if (head !== null && 'refused' in head) return head;
  const second = head === null ? null : next();
  if (head === null || second === null || second[0] !== TYPE.state) return withoutState(stop);
  if (second.length > 1 + STATE_BYTES_MAX) return { refused: 'recording-malformed', problem: 'its state is too large' };
  const steps: StepRecord[] = [];
  let end: SegmentEnd | null = null;
  while (stop === null) {
    const began = at;
    const body = next();
    if (body === null) break;
    if (steps.length === STEPS_MAX && body[0] !== TYPE.end) {
      stop = { kind: 'damaged', at: began, problem: 'more steps than a segment holds' };
      break;
    }
    const step: StepRecord | null = stepIn(body);
    end = step === null ? endIn(body) : null;
    if (step !== null) steps.push(step);
    else if (end === null || at < bytes.length)
      stop = { kind: 'damaged', at: began, problem: end === null ? 'a record of no known form' : 'more after its end' };
    else stop = { kind: 'end' };
  }
  return { head, snapshot: second.subarray(1), steps, end, stop: stop ?? { kind: 'cut' } };
}

function withoutState(stop: Stop | null): SegmentRefusal {
  if (stop?.kind === 'damaged') return { refused: 'recording-damaged', problem: `at byte ${stop.at}: ${stop.problem}` };
  return { refused: 'recording-malformed', problem: 'it ends before the state that its steps begin from' };
}

/** The body of the record that begins here, or why there is none. */
function recordAt(bytes: Bytes, at: number): Bytes | Stop {
  const left = bytes.length - at;
  if (left === 0) return { kind: 'cut' };
  if (left < HEAD_BYTES) return { kind: 'torn' };
  const reader = new LayoutReader(bytes.subarray(at, at + HEAD_BYTES));
  const [length, bodyCrc, headCrc] = [reader.u32(), reader.u32(), reader.u32()];
  if (crc32(bytes.subarray(at, at + 8)) !== headCrc) {
    // Blocks that a power cut has kept from the disk read as zeros.
    if (bytes.subarray(at).every((byte) => byte === 0)) return { kind: 'torn' };
    return { kind: 'damaged', at, problem: 'the checksum of a length does not hold' };
  }
  if (length > left - HEAD_BYTES) return { kind: 'torn' };
  const body = bytes.subarray(at + HEAD_BYTES, at + HEAD_BYTES + length);
  if (length === 0 || crc32(body) !== bodyCrc)
    return { kind: 'damaged', at, problem: 'the checksum of a record does not hold' };
  return body;
}

function fieldsIn(bytes: Bytes): readonly WireValue[] {
  const decoded = decodeMsgpack(bytes, { bytesMax: bytes.length, depthMax: 1, valuesMax: 16 });
  return 'value' in decoded && Array.isArray(decoded.value) ? decoded.value : [];
}

const isBytes = (value: WireValue | undefined): value is Bytes => value instanceof Uint8Array;
const isNumber = (value: WireValue | undefined): value is number => typeof value === 'number';
const isText = (value: WireValue | undefined): value is string => typeof value === 'string';

function headIn(body: Bytes): SegmentHead | SegmentRefusal {
  const [version, number, chainId, replica, member, software, startedAt, why, missed, genesis, epoch] = fieldsIn(
    body.subarray(1),
  );
  if (body[0] !== TYPE.head || !isNumber(version))
    return { refused: 'recording-malformed', problem: 'it does not say whose it is' };
  if (version !== RECORDING_VERSION)
    return {
      refused: 'recording-version',
      problem: `a recording of version ${version}; this program reads version ${RECORDING_VERSION}`,
    };
  const gap = gaps.find((known) => known === why);
  const isWhole = isNumber(number) && isNumber(replica) && isNumber(startedAt) && isNumber(missed);
  if (
    !isWhole ||
    !isText(member) ||
    !isText(software) ||
    gap === undefined ||
    !isBytes(genesis) ||
    !(epoch === null || isBytes(epoch))
  )
    return { refused: 'recording-malformed', problem: 'it does not say whose it is' };
  if (!isBytes(chainId) || chainId.length !== 32)
    return { refused: 'recording-malformed', problem: 'it does not say of which chain it is' };
  return {
    number,
    chainId: asHash(chainId),
    replica: asReplicaId(replica),
    member,
    software,
    startedAt,
    gap,
    missed,
    genesis,
    epoch,
  };
}

function stepIn(body: Bytes): StepRecord | null {
  if (body[0] === TYPE.step && body.length >= 5)
    return { digest: new LayoutReader(body.subarray(1, 5)).u32(), threw: '', inputs: body.subarray(5) };
  if (body[0] !== TYPE.threw) return null;
  const [threw, inputs] = fieldsIn(body.subarray(1));
  return isText(threw) && isBytes(inputs) ? { digest: null, threw, inputs } : null;
}

function endIn(body: Bytes): SegmentEnd | null {
  if (body[0] !== TYPE.end) return null;
  const [name, steps, state] = fieldsIn(body.subarray(1));
  const why = endings.find((known) => known === name);
  if (why === undefined || !isNumber(steps)) return null;
  return { why, steps, state: isBytes(state) ? state : null };
}
