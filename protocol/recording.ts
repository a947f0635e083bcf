// What a flight recorder writes down of a core, and how it is read back: the inputs of each step, and a short digest of the Ready that came of
// them. Pure; files, segments and checksums are daemon/recorder/'s. docs/adr/0007-flight-recorder.md says why it is cut like this.

import type { Bytes } from '../crypto/bytes.ts';
import {
  decodeBundle,
  decodePayload,
  isRefusal,
  isReplicaKind,
  kindNumbers,
  kindOf,
  type WireContext,
} from './codec.ts';
import type { Input, Ready } from './core.ts';
import { LayoutReader } from './layout.ts';
import type { ReplicaMessage, ReplicaPledge, Signed } from './messages.ts';
import { asVerified } from './messages.ts';
import { decodeMsgpack, type WireValue } from './msgpack.ts';
import { decodeSnapshot, encodeSnapshot } from './snapshot.ts';
import { asMillis, asReplicaId, type Millis } from './types.ts';
import { GrowingScribe } from './wire/cursor.ts';

type Step = Input<ReplicaMessage, ReplicaPledge>;

/** One call of a core. */
export interface RecordedStep {
  readonly now: Millis;
  readonly inputs: readonly Step[];
}

export interface RecordingRefusal {
  readonly refused: 'recording-malformed';
  readonly problem: string;
}

/** What came in numbers and with bytes of its own; `other`: small and rare, as a snapshot would have it, so that a new kind of input is recorded as well. */
const TAG = { other: 0, message: 1, own: 2, bundle: 3 } as const;

/**
 * From so many bytes on a payload is not copied but stands behind the step, which has its length in its place. Measured at full load: copying them
 * from buffer to buffer was nearly all that a recorder cost.
 */
const LARGE_BYTES = 4096;
/** Of a step that is read: the queues of a loop hold some ten thousand inputs, of six values each. */
const VALUES_MAX = 1 << 20;
/** Of inputs without bytes of their own, together. */
const OTHER_BYTES_MAX = 8 << 20;

/**
 * [FLR-2] As they came: messages and bundles by the very bytes that were signed. To be written one behind the other: the length of the step as 4
 * bytes, the step, and its large payloads, which are those of the inputs and not copies.
 */
export function encodeStep({ now, inputs }: RecordedStep): readonly Bytes[] {
  const large: Bytes[] = [];
  scribe
    .again()
    .raw(LENGTH_TO_COME)
    .array(1 + inputs.length)
    .uint(now);
  for (const input of inputs) writeInput(input, scribe, large);
  const step = scribe.done();
  new DataView(step.buffer).setUint32(0, step.length - LENGTH_TO_COME.length);
  return [step, ...large];
}

const LENGTH_TO_COME = new Uint8Array(4);

/** One for all steps: what it gives is a copy. */
const scribe = new GrowingScribe();

function writePayload(payload: Bytes, scribe: GrowingScribe, large: Bytes[]): void {
  if (payload.length < LARGE_BYTES) scribe.bin(payload);
  else {
    large.push(payload);
    scribe.uint(payload.length);
  }
}

function writeInput(input: Step, scribe: GrowingScribe, large: Bytes[]): void {
  switch (input.type) {
    case 'message':
    case 'own': {
      const { sender, message, payload, signature } = input.signed;
      scribe.array(5).uint(TAG[input.type]).uint(sender).uint(kindNumbers[message.kind]);
      writePayload(payload, scribe, large);
      scribe.bin(signature);
      return;
    }
    case 'bundle':
      scribe.array(3).uint(TAG.bundle);
      writePayload(input.bundle.payload, scribe, large);
      scribe.bin(input.bundle.signature);
      return;
    default:
      scribe.array(2).uint(TAG.other).bin(encodeSnapshot(input));
  }
}

/** Bytes from a file that anyone may have written: never throws. No signature is checked: the core that was recorded had them checked. */
export function decodeStep(bytes: Bytes, context: WireContext): RecordedStep | RecordingRefusal {
  const refuse = (problem: string): RecordingRefusal => ({ refused: 'recording-malformed', problem });
  const end = bytes.length < 4 ? 0 : 4 + new LayoutReader(bytes).u32();
  if (end > bytes.length) return refuse('a step is longer than its record');
  const step = bytes.subarray(Math.min(4, end), end);
  const decoded = decodeMsgpack(step, { bytesMax: step.length, depthMax: 2, valuesMax: VALUES_MAX });
  if ('refused' in decoded) return refuse(decoded.refused);
  if (!isList(decoded.value)) return refuse('a step is a list');
  const [now, ...items] = decoded.value;
  if (typeof now !== 'number') return refuse('a step has its time');
  const inputs: Step[] = [];
  const behind = { bytes, at: end, otherBytes: 0 };
  for (const item of items) {
    const input = isList(item) ? inputIn(item, behind, context) : undefined;
    if (input === undefined) return refuse(`input ${inputs.length + 1} is none that this version knows`);
    inputs.push(input);
  }
  if (behind.at !== bytes.length) return refuse("bytes that are nobody's");
  return { now: asMillis(now), inputs };
}

/** The large payloads behind a step, and how many bytes of them have been taken; and of the inputs without bytes of their own. */
interface Behind {
  readonly bytes: Bytes;
  at: number;
  otherBytes: number;
}

function payloadIn(value: WireValue | undefined, behind: Behind): Bytes | undefined {
  if (isBytes(value)) return value;
  if (typeof value !== 'number' || value > behind.bytes.length - behind.at) return undefined;
  behind.at += value;
  return behind.bytes.subarray(behind.at - value, behind.at);
}

const isList = (value: WireValue | undefined): value is readonly WireValue[] => Array.isArray(value);
const isBytes = (value: WireValue | undefined): value is Bytes => value instanceof Uint8Array;

function inputIn([tag, ...fields]: readonly WireValue[], behind: Behind, context: WireContext): Step | undefined {
  const [first, second] = fields;
  switch (tag) {
    case TAG.message:
    case TAG.own: {
      const signed = signedIn(fields, behind, context);
      if (signed === undefined) return undefined;
      if (tag === TAG.message) return { type: 'message', signed: asVerified(signed) };
      const { message } = signed;
      return isPledge(message) ? { type: 'own', signed: asVerified({ ...signed, message }) } : undefined;
    }
    case TAG.bundle: {
      const payload = payloadIn(first, behind);
      if (payload === undefined || !isBytes(second)) return undefined;
      const bundle = decodeBundle({ payload, signature: second }, context);
      return isRefusal(bundle) ? undefined : { type: 'bundle', bundle };
    }
    case TAG.other:
      behind.otherBytes += isBytes(first) ? first.length : 0;
      return isBytes(first) && behind.otherBytes <= OTHER_BYTES_MAX ? otherIn(first, context) : undefined;
    default:
      return undefined;
  }
}

/** Of one of the other types, as far as can be told: a type that the core does not know makes it throw, and the replay says so. */
function otherIn(bytes: Bytes, context: WireContext): Step | undefined {
  const decoded = decodeSnapshot(bytes, context);
  if ('refused' in decoded || typeof decoded.value !== 'object' || decoded.value === null) return undefined;
  const { value } = decoded;
  if (!('type' in value) || typeof value.type !== 'string' || Object.hasOwn(TAG, value.type)) return undefined;
  // The cast: written by this software as one of these, or by a liar, whom a replay cannot help.
  return value as Step;
}

function signedIn(
  [sender, number, where, signature]: readonly WireValue[],
  behind: Behind,
  context: WireContext,
): Signed<ReplicaMessage> | undefined {
  const payload = payloadIn(where, behind);
  if (typeof sender !== 'number' || payload === undefined) return undefined;
  if (!isBytes(signature) || signature.length !== 64) return undefined;
  const message = messageIn(number, payload, context);
  return message === undefined ? undefined : { sender: asReplicaId(sender), message, payload, signature };
}

function messageIn(number: WireValue | undefined, payload: Bytes, context: WireContext): ReplicaMessage | undefined {
  const kind = typeof number === 'number' ? kindOf(number) : undefined;
  if (kind === undefined || !isReplicaKind(kind)) return undefined;
  const message = decodePayload(kind, payload, context);
  // The cast: of a replica's kind, so a replica's message.
  return isRefusal(message) ? undefined : (message as ReplicaMessage);
}

const pledgeKinds = {
  prepare: true,
  commit: true,
  checkpoint: true,
  'view-change': true,
  'new-view': true,
  promise: true,
  accepted: true,
  configured: true,
  'fast-accepted': true,
  vote: true,
  appended: true,
} as const satisfies Record<ReplicaPledge['kind'], true>;

const isPledge = (message: ReplicaMessage): message is ReplicaPledge => message.kind in pledgeKinds;

// ---- the digest of a Ready ------------------------------------------------------------------------------------------

/**
 * [FLR-2] 32 bits of all that a step wants done, as a number. Not against forgery: it says whether a core that is run again does the same. Made
 * to cost next to nothing, so a block counts by its hash, which commits to the rest of it, and a signed message by its payload.
 */
export function digestOf(ready: AnyReady): number {
  return hashOf(ready) >>> 0;
}

/** Of any protocol: what stands in its fields is walked, whatever it is. */
export type AnyReady = { readonly [Field in keyof Ready<never, never>]: unknown };

const SEED = 0x2f0b_4c47;

function mix(hash: number, next: number): number {
  const h = Math.imul(hash ^ next, 0x9e37_79b1);
  return h ^ (h >>> 15);
}

function hashOf(value: unknown): number {
  switch (typeof value) {
    case 'number':
      return hashNumber(value);
    case 'string':
      return hashString(value);
    case 'object':
      if (value === null) return 0x51ed;
      if (value instanceof Uint8Array) return hashBytes(value);
      if (Array.isArray(value)) return hashList(value);
      return hashObject(value);
    default:
      return value === true ? 0x7a11 : value === false ? 0x0fa1 : 0x0def;
  }
}

const doubles = new DataView(new ArrayBuffer(8));

function hashNumber(value: number): number {
  if ((value | 0) === value) return mix(1, value);
  doubles.setFloat64(0, value);
  return mix(mix(2, doubles.getInt32(0)), doubles.getInt32(4));
}

function hashBytes(bytes: Bytes): number {
  let hash = mix(SEED, bytes.length);
  const whole = bytes.length - (bytes.length % 4);
  for (let i = 0; i < whole; i += 4)
    hash = mix(hash, bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
  for (let i = whole; i < bytes.length; i++) hash = mix(hash, bytes[i]!);
  return hash;
}

function hashList(list: readonly unknown[]): number {
  let hash = mix(SEED, list.length);
  for (const each of list) hash = mix(hash, hashOf(each));
  return hash;
}

/** Names of fields and codes: a small set. */
const strings = new Map<string, number>();
const STRINGS_MAX = 4096;

function hashString(text: string): number {
  let hash = strings.get(text);
  if (hash !== undefined) return hash;
  hash = mix(SEED, text.length);
  for (let i = 0; i < text.length; i++) hash = mix(hash, text.charCodeAt(i));
  if (strings.size < STRINGS_MAX) strings.set(text, hash);
  return hash;
}

/** A sum, for the order in which fields were written is nothing that matters. */
function hashObject(value: object): number {
  // The cast: any object can be read by its own keys.
  const fields = value as Readonly<Record<string, unknown>>;
  if ('headerBytes' in fields && 'bundles' in fields) return mix(3, hashOf(fields.hash)); // a block
  if ('digest' in fields && 'leaves' in fields) return mix(mix(4, hashOf(fields.digest)), hashOf(fields.signature));
  // The bytes of a block: the header has the hash of the body.
  if ('header' in fields && 'body' in fields) return mix(5, hashOf(fields.header));
  const isSigned = 'payload' in fields && 'message' in fields;
  let hash = SEED;
  for (const key in fields)
    if (!(isSigned && key === 'message')) hash = (hash + mix(hashString(key), hashOf(fields[key]))) | 0;
  return hash;
}
