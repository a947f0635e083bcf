// The kinds of frames and their numbers (docs/wire.md, "Kinds"). A number is never used again for another kind.

import type { ClientMessage, DoorMessage } from '../door.ts';
import type { ReplicaMessage } from '../messages.ts';
import type { Protocol } from '../modes.ts';
import { bearsLies } from '../modes.ts';

/** Both sides say hello, with a fresh nonce each; see handshake.ts. */
export const kindNumbers = {
  status: 1,
  forward: 2,
  'fetch-blocks': 3,
  blocks: 4,
  'fetch-block': 5,
  'block-data': 6,
  checkpoint: 7,
  'fetch-checkpoint': 8,
  'checkpoint-proof': 9,
  'fetch-state': 10,
  'state-chunk': 11,
  'pre-prepare': 16,
  prepare: 17,
  commit: 18,
  'view-change': 19,
  'new-view': 20,
  'fetch-standing': 21,
  standing: 22,
  'paxos-prepare': 32,
  promise: 33,
  accept: 34,
  accepted: 35,
  reject: 36,
  configure: 37,
  configured: 38,
  'open-round': 39,
  'fast-accept': 40,
  'fast-accepted': 41,
  'take-over': 42,
  'request-vote': 48,
  vote: 49,
  'append-entries': 50,
  appended: 51,
  'raft-reject': 52,
  'timeout-now': 53,
  'read-query': 56,
  'read-reply': 57,
  submit: 64,
  follow: 65,
  credit: 66,
  'query-head': 67,
  'query-bundle': 68,
  'query-epochs': 69,
  'query-checkpoint': 70,
  'query-state': 71,
  admissions: 96,
  receipts: 97,
  'follow-blocks': 98,
  'follow-end': 99,
  head: 100,
  epochs: 101,
  'checkpoint-here': 102,
  'state-here': 103,
  hello: 128,
  auth: 129,
  rekey: 130,
} as const satisfies Record<ReplicaKind | DoorKind | HandshakeKind, number>;

export type ReplicaKind = ReplicaMessage['kind'];
export type DoorKind = ClientMessage['kind'] | DoorMessage['kind'];
export type HandshakeKind = 'hello' | 'auth' | 'rekey';
export type Kind = keyof typeof kindNumbers;

// The cast: Object.entries forgets the type of the keys, which is Kind by construction.
const kindByNumber = new Map(Object.entries(kindNumbers).map(([kind, number]) => [number as number, kind as Kind]));

export function kindOf(number: number): Kind | undefined {
  return kindByNumber.get(number);
}

/** What only replicas say to replicas. */
export function isReplicaKind(kind: Kind): kind is ReplicaKind {
  return kindNumbers[kind] < 64;
}

/** The kinds that are a protocol's own, by their number's upper half. */
const familyOf: Record<Protocol, number> = {
  pbft: 1,
  'basic-paxos': 2,
  'multi-paxos': 2,
  'cheap-paxos': 2,
  'fast-paxos': 2,
  raft: 3,
};

/** From here on they are of every protocol in which members are trusted. */
const CRASH_FAULT = 56;

/** [CFT-W-1] Whether replicas of this protocol say this to each other: what is shared (below 16), and their own. */
export function isKindOf(protocol: Protocol | undefined, kind: ReplicaKind): boolean {
  if (kindNumbers[kind] >= CRASH_FAULT) return !bearsLies(protocol ?? 'pbft');
  const family = kindNumbers[kind] >> 4;
  return family === 0 || family === familyOf[protocol ?? 'pbft'];
}

/** What a client says to a replica. */
export function isClientKind(kind: Kind): kind is ClientMessage['kind'] {
  return kindNumbers[kind] >= 64 && kindNumbers[kind] < 96;
}

/** What a replica says to a client. */
export function isDoorKind(kind: Kind): kind is DoorMessage['kind'] {
  return kindNumbers[kind] >= 96 && kindNumbers[kind] < 128;
}
