// The words of the domain as types. A View is not a Height is not a ReplicaId: the compiler keeps them apart.

import { type Bytes, toHex } from '../crypto/bytes.ts';

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** A slot of the log. 0 is the genesis block; the first ordered block has height 1. An integer up to 2^53 - 1. */
export type Height = Branded<number, 'Height'>;
/** A reign of one primary inside an epoch, from 0. Raft says term, Paxos says ballot. An integer up to 2^53 - 1. */
export type View = Branded<number, 'View'>;
/** A membership, protocol and parameter set, from 0. An integer up to 2^53 - 1. */
export type Epoch = Branded<number, 'Epoch'>;
/** The place of a replica in the member list of its epoch, from 0 to n - 1. */
export type ReplicaId = Branded<number, 'ReplicaId'>;
/** Milliseconds since 1970-01-01 UTC. An input of the core, never read from a clock inside it. */
export type Millis = Branded<number, 'Millis'>;
/** A SHA-256 digest: 32 bytes. */
export type Hash = Branded<Bytes, 'Hash'>;
/** A digest or a key as a map key: 64 characters of lower-case hex. */
export type Hex = Branded<string, 'Hex'>;

// Casts: the one place where a plain number becomes a branded one. Callers have checked the range (schema) or computed it.
export const asHeight = (n: number): Height => n as Height;
export const asView = (n: number): View => n as View;
export const asEpoch = (n: number): Epoch => n as Epoch;
export const asReplicaId = (n: number): ReplicaId => n as ReplicaId;
export const asMillis = (n: number): Millis => n as Millis;
export const asHash = (bytes: Bytes): Hash => bytes as Hash;

export const next = {
  height: (h: Height): Height => (h + 1) as Height,
  view: (v: View): View => (v + 1) as View,
};
export const plus = {
  height: (h: Height, by: number): Height => (h + by) as Height,
  millis: (t: Millis, by: number): Millis => (t + by) as Millis,
};

/** What signs a block into history: who the members are and how many of them make a quorum. */
export interface Member {
  readonly id: ReplicaId;
  /** Shown to people; unique in the member list; [a-z0-9-], at most 32 characters. */
  readonly name: string;
  /** Ed25519 public key, 32 bytes, admitted by crypto's key rule. */
  readonly publicKey: Bytes;
  /**
   * The key of whoever answers for the member, 32 bytes, by the same rule: it signs changes of the epoch, nothing else, and stays offline.
   * Absent: the member has no say in them.
   */
  readonly operatorKey?: Bytes;
  /** Where the other members dial it, a WebSocket URL; absent: each of them has it from its own configuration. */
  readonly address?: string;
}

/** Who may end an epoch: so many of its members' operator keys, or the quorum of its protocol. */
export interface Policy {
  readonly signatures: number | 'quorum';
}

/** Of a hash, for a map: two equal ones are one key. */
export const hexOf = (hash: Hash): Hex => toHex(hash) as Hex; // toHex of 32 bytes is what Hex means
