// The whole state of a PBFT replica to bytes and back (../snapshot.ts). [FLR-1] Field by field of `State`, whatever fields it has: those below
// are named because they are constant, or of a class that keeps its fields to itself.

import type { Bytes } from '../../crypto/bytes.ts';
import { Outbox } from '../outbox.ts';
import { SESSION_BYTES } from '../sessions.ts';
import { decodeSnapshot, encodeSnapshot, type SnapshotRefusal } from '../snapshot.ts';
import type { Millis } from '../types.ts';
import type { State } from './state.ts';

/** Given by the genesis document and the replica's own place in it. */
const CONSTANT = ['genesis', 'parameters', 'epoch', 'self', 'quorums', 'sha256'] as const satisfies (keyof State)[];
/** They give and take their fields themselves. */
const PARTS = ['ledger', 'checkpoints', 'catchUp', 'votes', 'viewChanges', 'pool'] as const satisfies (keyof State)[];

type Part = (typeof PARTS)[number];

/** [FLR-1] Null where it would be larger than that: known beforehand where the pool or the sessions make it so. */
export function snapshotOf(s: State, wakeAt: Millis, bytesMax: number): Bytes | null {
  if (s.pool.bytes + s.ledger.sessionCount * SESSION_BYTES > bytesMax) return null;
  const bytes = encodeSnapshot({ ...stateFields(s), wakeAt });
  return bytes.length <= bytesMax ? bytes : null;
}

function stateFields(s: State): Record<string, unknown> {
  const fields: Record<string, unknown> = { ...s };
  for (const name of CONSTANT) delete fields[name];
  for (const name of PARTS) fields[name] = s[name].dump();
  fields.out = { ...s.out };
  return fields;
}

/** Replaces all that `s` holds; what it is good for then is a matter of where the bytes came from. Returns when the core wants to be called. */
export function loadSnapshot(s: State, bytes: Bytes): Millis | SnapshotRefusal {
  const decoded = decodeSnapshot(bytes, s);
  if ('refused' in decoded) return decoded;
  const expected = [...Object.keys(stateFields(s)), 'wakeAt'].sort();
  const found = typeof decoded.value === 'object' && decoded.value !== null ? Object.keys(decoded.value).sort() : [];
  const odd = [...expected, ...found].filter((name) => !(expected.includes(name) && found.includes(name)));
  if (odd.length > 0) return { refused: 'snapshot-other-software', problem: `fields ${[...new Set(odd)].join(', ')}` };
  // The cast: of these very fields, as just looked at; their types are those of the software that wrote them.
  const { wakeAt, out, ...rest } = decoded.value as Omit<State, Part> & Dumped & { readonly wakeAt: Millis };
  try {
    for (const name of PARTS) (s[name] as Loads).load(rest[name]);
  } catch (error) {
    // Of a form that this software never wrote. Bytes from a file are not a reason to stop.
    return { refused: 'snapshot-malformed', problem: String(error) };
  }
  const plain = Object.entries(rest).filter(([name]) => !(PARTS as readonly string[]).includes(name));
  Object.assign(s, Object.fromEntries(plain));
  s.out = Object.assign(new Outbox(), out);
  return wakeAt;
}

type Dumped = { readonly [Name in Part]: ReturnType<State[Name]['dump']> };
/** The union of the parts is not callable with the union of what they dump; by name they belong together. */
interface Loads {
  load(fields: unknown): void;
}
