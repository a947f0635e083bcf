// Small-scope mutation: a message with one field changed by as little as can be. Off by one, one bit, one entry more or less, a certificate
// left out; also inside the headers and the signed view-changes that a message carries. It finds what random bytes do not, for nearly all of
// these are well formed. The changes are made to the fields as they stand on the wire, so that no kind of message has code of its own here.

import { native } from '../crypto/native.ts';
import { decodeHeader, encodeHeader, HEADER_BYTES } from '../protocol/block.ts';
import { decodePayload, encodePayload, isRefusal, PAYLOAD_BYTES_MAX } from '../protocol/codec.ts';
import type { Parameters } from '../protocol/genesis.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { decodeMsgpack, encodeMsgpack, type WireValue } from '../protocol/msgpack.ts';

export interface Mutant {
  /** Where, such as `2.0.hash`: places in the arrays of the wire, names in a header. */
  readonly field: string;
  readonly what: string;
  readonly payload: Uint8Array;
}

interface Change {
  readonly field: string;
  readonly what: string;
  /** Makes it; only those that are wanted are. */
  readonly value: () => WireValue;
}

const limits = { bytesMax: PAYLOAD_BYTES_MAX, depthMax: 8, valuesMax: 100_000 };
/** Of a list, the first ones; the others are like them. */
const ENTRIES_MAX = 3;

/** Every small change of a payload. */
export function* mutantsOf(payload: Uint8Array): Generator<Mutant> {
  for (const { field, what, value } of changesOf(wireValueOf(payload), ''))
    yield { field, what, payload: encodeMsgpack(value()) };
}

/** The fields of a payload that `mutantsOf` changes. */
export function fieldsOf(payload: Uint8Array): Set<string> {
  return new Set([...changesOf(wireValueOf(payload), '')].map(({ field }) => field));
}

/** One small change, drawn; the message itself where that one is not well formed. */
export function nudged(
  message: ReplicaMessage,
  { parameters }: { parameters: Parameters },
  random: () => number,
): ReplicaMessage {
  const changes = [...changesOf(wireValueOf(encodePayload(message)), '')];
  const change = changes[Math.floor(random() * changes.length)];
  if (change === undefined) return message;
  const mutant = decodePayload(message.kind, encodeMsgpack(change.value()), { sha256: native.sha256, parameters });
  return isRefusal(mutant) ? message : (mutant as ReplicaMessage); // of the kind that was asked for
}

function wireValueOf(payload: Uint8Array): WireValue {
  const decoded = decodeMsgpack(payload, limits);
  if ('refused' in decoded) throw new Error(`what is to be changed is not well formed: ${decoded.refused}`);
  return decoded.value;
}

function* changesOf(value: WireValue, field: string): Generator<Change> {
  if (typeof value === 'number') {
    for (const [what, by] of [
      ['one more', 1],
      ['one less', -1],
    ] as const)
      if (value + by >= 0 && value + by <= Number.MAX_SAFE_INTEGER) yield { field, what, value: () => value + by };
  } else if (typeof value === 'boolean') yield { field, what: 'the other one', value: () => !value };
  else if (typeof value === 'string') yield { field, what: 'one character more', value: () => `${value}.` };
  else if (value instanceof Uint8Array) yield* changesOfBytes(value, field);
  else if (value !== null) yield* changesOfList(value, field);
}

function* changesOfBytes(value: Uint8Array, field: string): Generator<Change> {
  if (value.length === HEADER_BYTES) yield* changesOfHeader(value, field);
  for (const [what, at, bit] of [
    ['its first bit', 0, 0x80],
    ['its last bit', value.length - 1, 1],
  ] as const)
    if (value.length > 0) yield { field, what, value: () => value.map((byte, i) => (i === at ? byte ^ bit : byte)) };
  if (value.length > 0) yield { field, what: 'a byte less', value: () => value.subarray(1) };
  else yield { field, what: 'a byte more', value: () => new Uint8Array(1) };
  const inside = decodeMsgpack(value, limits);
  // The payload of a bundle, or of a view-change.
  if ('value' in inside && Array.isArray(inside.value) && inside.value.length > 0)
    for (const change of changesOf(inside.value as WireValue, `${field}~`))
      yield { ...change, value: () => encodeMsgpack(change.value()) };
}

function* changesOfHeader(bytes: Uint8Array, field: string): Generator<Change> {
  const header = decodeHeader(bytes);
  if (header === undefined || isRefusal(header)) return;
  for (const [name, value] of Object.entries(header)) {
    const inner = value as WireValue; // numbers and hashes
    for (const change of inner instanceof Uint8Array ? changesOfBytes(inner, '') : changesOf(inner, '')) {
      if (change.what === 'a byte less') continue;
      yield {
        field: `${field}.${name}`,
        what: change.what,
        value: () => encodeHeader({ ...header, [name]: change.value() }),
      };
    }
  }
}

function* changesOfList(list: readonly WireValue[], field: string): Generator<Change> {
  const [first, second] = list;
  if (first !== undefined) {
    yield { field, what: 'its first left out', value: () => list.slice(1) };
    yield { field, what: 'its last twice', value: () => [...list, list.at(-1)!] };
  }
  if (first !== undefined && second !== undefined)
    yield { field, what: 'its first two exchanged', value: () => [second, first, ...list.slice(2)] };
  // A certificate, or the tail of a run of blocks: nothing instead.
  if (field !== '' && list.length > 1) yield { field, what: 'nothing', value: () => null };
  for (const [index, entry] of list.entries()) {
    if (index >= ENTRIES_MAX && !(list.length <= 8)) break;
    const at = field === '' ? `${index}` : `${field}.${index}`;
    for (const change of changesOf(entry, at))
      yield { ...change, value: () => list.map((each, i) => (i === index ? change.value() : each)) };
  }
}
