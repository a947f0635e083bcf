// The whole state of a PBFT replica to bytes and back (../snapshot.ts). [FLR-1] Field by field of `State`, whatever fields it has: only those are
// named here that never change.

import type { Bytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import { SESSION_BYTES } from '../sessions.ts';
import { decodeSnapshot, encodeSnapshot, type SnapshotRefusal } from '../snapshot.ts';
import type { Millis } from '../types.ts';
import { hexOf, type State } from './state.ts';

/** Given by the genesis document and the replica's own place in it. */
const CONSTANT = ['genesis', 'parameters', 'epoch', 'self', 'quorums', 'sha256'] as const satisfies (keyof State)[];

/** A class that keeps its fields to itself gives and takes them; of any other one its fields are there to see. */
interface Part {
  dump?(): unknown;
  load?(fields: unknown): void;
}

/** [FLR-1] Null where it would be larger than that: known beforehand where the pool or the sessions make it so. */
export function snapshotOf(s: State, wakeAt: Millis, bytesMax: number): Bytes | null {
  if (s.pool.bytes + s.ledger.sessionCount * SESSION_BYTES > bytesMax) return null;
  const bytes = encodeSnapshot({ ...stateFields(s), wakeAt });
  return bytes.length <= bytesMax ? bytes : null;
}

function stateFields(s: State): Record<string, unknown> {
  const fields: Record<string, unknown> = { ...s };
  for (const name of CONSTANT) delete fields[name];
  for (const [name, value] of Object.entries(fields)) {
    const part = partIn(value);
    if (part !== undefined) fields[name] = part.dump === undefined ? { ...part } : part.dump();
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
export function loadSnapshot(s: State, bytes: Bytes): Millis | SnapshotRefusal {
  const decoded = decodeSnapshot(bytes, s);
  if ('refused' in decoded) return decoded;
  const expected = [...Object.keys(stateFields(s)), 'wakeAt'];
  const found = typeof decoded.value === 'object' && decoded.value !== null ? Object.keys(decoded.value) : [];
  const odd = [
    ...expected.filter((name) => !found.includes(name)),
    ...found.filter((name) => !expected.includes(name)),
  ];
  if (odd.length > 0) return { refused: 'snapshot-other-software', problem: `fields ${odd.join(', ')}` };
  // The cast: of these very fields, as just looked at; their types are those of the software that wrote them.
  const { wakeAt, ...fields } = decoded.value as { readonly wakeAt: Millis } & Record<string, unknown>;
  try {
    for (const [name, value] of Object.entries(fields)) {
      const part = partIn(s[name as keyof State]); // a name of State, as just looked at
      if (part === undefined) Object.assign(s, { [name]: value });
      else if (part.load === undefined) Object.assign(part, value);
      else part.load(value);
    }
    // The one thing in it that a walk goes along until it ends: by its hashes it does.
    for (const [hash, { block }] of s.known) assert(hash === hexOf(block.hash), 'a block is known by its hash');
  } catch (error) {
    // Of a form that this software never wrote. Bytes from a file are not a reason to stop.
    return { refused: 'snapshot-malformed', problem: String(error) };
  }
  return wakeAt;
}
