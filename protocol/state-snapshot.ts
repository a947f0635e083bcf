// The whole state of a replica to bytes and back (snapshot.ts). [FLR-1] Field by field, whatever fields it has: only those are named here that never
// change. What a protocol keeps beside the state that it shares with others is one more field, and its own to give and take.

import type { Bytes } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { Block } from './block.ts';
import type { WireContext } from './codec.ts';
import type { Ledger } from './ledger.ts';
import type { Pool } from './pool.ts';
import { SESSION_BYTES } from './sessions.ts';
import { decodeSnapshot, encodeSnapshot, type SnapshotRefusal } from './snapshot.ts';
import type { Hex, Millis } from './types.ts';
import { hexOf } from './types.ts';

/** What every state has that is snapshot here. */
export interface SnapshotHost extends WireContext {
  readonly pool: Pool;
  readonly ledger: Ledger;
  /** Blocks and values by their hashes. */
  readonly known: ReadonlyMap<Hex, { readonly block: Block }>;
}

/** A class that keeps its fields to itself gives and takes them; of any other one its fields are there to see. */
export interface Part {
  dump?(): unknown;
  load?(fields: unknown): void;
}

/** What is of the protocol alone, and when the core wants to be called. */
export interface Beside {
  readonly own?: Part | undefined;
  readonly wakeAt: Millis;
}

/** Given by the genesis document and the replica's own place in it. */
const CONSTANT = ['genesis', 'parameters', 'epoch', 'self', 'quorums', 'sha256'];

/** [FLR-1] Null where it would be larger than that: known beforehand where the pool or the sessions make it so. */
export function snapshotOf(s: SnapshotHost, { own, wakeAt }: Beside, bytesMax: number): Bytes | null {
  if (s.pool.bytes + s.ledger.sessionCount * SESSION_BYTES > bytesMax) return null;
  const bytes = encodeSnapshot({ ...stateFields(s), ...(own === undefined ? {} : { own: fieldsOf(own) }), wakeAt });
  return bytes.length <= bytesMax ? bytes : null;
}

const fieldsOf = (part: Part): unknown => (part.dump === undefined ? { ...part } : part.dump());

function stateFields(s: SnapshotHost): Record<string, unknown> {
  const fields: Record<string, unknown> = { ...s };
  for (const name of CONSTANT) delete fields[name];
  for (const [name, value] of Object.entries(fields)) {
    const part = partIn(value);
    if (part !== undefined) fields[name] = fieldsOf(part);
  }
  return fields;
}

/** An object of a class of ours; undefined: a plain value. */
function partIn(value: unknown): Part | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  if (value instanceof Map || value instanceof Set || value instanceof Uint8Array) return undefined;
  return Object.getPrototypeOf(value) === Object.prototype ? undefined : value;
}

/** Replaces all that `s` holds; what it is good for then is a matter of where the bytes came from. Returns when the core wants to be called. */
export function loadSnapshot(s: SnapshotHost, bytes: Bytes, own?: Part): Millis | SnapshotRefusal {
  const decoded = decodeSnapshot(bytes, s);
  if ('refused' in decoded) return decoded;
  const { value } = decoded;
  const ofOwn = own === undefined ? [] : [fieldsOf(own)];
  const odd = [
    ...oddNames(value, [...Object.keys(stateFields(s)), 'wakeAt', ...ofOwn.map(() => 'own')]),
    // What the protocol keeps to itself must be of the same software as well.
    ...ofOwn.flatMap((fields) => oddNames(isObject(value) ? value.own : null, namesIn(fields))),
  ];
  if (odd.length > 0) return { refused: 'snapshot-other-software', problem: `fields ${odd.join(', ')}` };
  // The cast: of these very fields, as just looked at; their types are those of the software that wrote them.
  const { wakeAt, own: ownFields, ...fields } = value as { readonly wakeAt: Millis } & Record<string, unknown>;
  try {
    for (const [name, field] of Object.entries(fields)) {
      const part = partIn((s as unknown as Record<string, unknown>)[name]); // any object can be read by its own keys
      if (part === undefined) Object.assign(s, { [name]: field });
      else load(part, field);
    }
    if (own !== undefined) load(own, ownFields);
    // The one thing in it that a walk goes along until it ends: by its hashes it does.
    for (const [hash, { block }] of s.known) assert(hash === hexOf(block.hash), 'a block is known by its hash');
  } catch (error) {
    // Of a form that this software never wrote. Bytes from a file are not a reason to stop.
    return { refused: 'snapshot-malformed', problem: String(error) };
  }
  return wakeAt;
}

function load(part: Part, fields: unknown): void {
  if (part.load === undefined) Object.assign(part, fields);
  else part.load(fields);
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;
const namesIn = (value: unknown): string[] => (isObject(value) ? Object.keys(value) : []);

function oddNames(value: unknown, expected: readonly string[]): string[] {
  const found = namesIn(value);
  return [...expected.filter((name) => !found.includes(name)), ...found.filter((name) => !expected.includes(name))];
}
