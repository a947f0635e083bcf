// What a client and a replica say to each other: the ledger's side of the wire (docs/wire.md, "The client door").
// Nothing a replica says here is believed for its own sake: blocks, heads and receipts carry certificates.

import type { Bytes } from '../crypto/bytes.ts';
import type { SignedBundle } from './bundle.ts';
import type { Certificate } from './certificate.ts';
import type { AdmissionCode } from './core.ts';
import type { CheckpointProof, StateChunk } from './messages.ts';
import type { Epoch, Hash, Height, ReplicaId, View } from './types.ts';

/** A signed bundle; the frame's signature is the bundle's. Answered by `admission`, and by `receipts` once decided. */
export interface Submit {
  readonly kind: 'submit';
  readonly bundle: SignedBundle;
}

/**
 * Blocks from a height on, for ever or up to `to`. The replica sends at most `credit` blocks until more is granted: that is the
 * back-pressure. One stream for a connection; a new follow replaces the old one.
 */
export interface Follow {
  readonly kind: 'follow';
  /** First height wanted, 1 or more; 0: the oldest that the replica has. */
  readonly from: Height;
  /** Last height wanted; 0: go on for ever. */
  readonly to: Height;
  /** Without bodies. */
  readonly headersOnly: boolean;
  /** Blocks that may be sent before the next grant, 1 to 4096. */
  readonly credit: number;
}

export interface Credit {
  readonly kind: 'credit';
  readonly blocks: number;
}

/** Asks for `head`. */
export interface QueryHead {
  readonly kind: 'query-head';
}

/** Asks whether a bundle is decided; answered by `receipts`, empty where it is not known. */
export interface QueryBundle {
  readonly kind: 'query-bundle';
  /** Drawn at random by the client, 1 or more: an answer that names it was made after the question. */
  readonly question: number;
  readonly digest: Hash;
}

/** Asks for the links that prove the epochs from this one on; answered by `epochs`. */
export interface QueryEpochs {
  readonly kind: 'query-epochs';
  /** 1 or more: the link that proves this epoch comes first. */
  readonly from: Epoch;
}

/** Asks for the newest stable checkpoint; answered by `checkpoint-here`. */
export interface QueryCheckpoint {
  readonly kind: 'query-checkpoint';
}

/** Asks for a chunk of the state at a checkpoint; answered by `state-here`. */
export interface QueryState {
  readonly kind: 'query-state';
  readonly height: Height;
  readonly chunk: number;
}

export type ClientMessage =
  | Submit
  | Follow
  | Credit
  | QueryHead
  | QueryBundle
  | QueryEpochs
  | QueryCheckpoint
  | QueryState;

/** What a turn of the replica's loop had to say about bundles, under one signature. 1 to 1024 of them. */
export interface Admissions {
  readonly kind: 'admissions';
  readonly admissions: readonly BundleAdmission[];
}

export interface BundleAdmission {
  readonly digest: Hash;
  readonly code: AdmissionCode | 'busy' | 'bundle-invalid';
  /** The replica's height when it answered. */
  readonly height: Height;
}

/** Where a bundle stands, with everything a stranger needs to believe it. */
export interface BundleReceipt {
  readonly digest: Hash;
  readonly headerBytes: Bytes;
  /** Headers above it, rising, up to and including the one that the certificate is for; empty where it is the block's own. */
  readonly links: readonly Bytes[];
  readonly certificate: Certificate;
  /** Index in the block of the bundle's first transaction. */
  readonly firstTransaction: number;
  readonly transactionCount: number;
  /** RFC 6962 range proof for these transactions under the block's transaction root (crypto/merkle.ts). */
  readonly proof: readonly Bytes[];
}

/** What a query was, and which of its blocks the replica looked into: an answer without a receipt says that the bundle is in none of them. */
export interface QueryAnswer {
  readonly question: number;
  readonly digest: Hash;
  /** The lowest and the highest block; an honest replica's `height` is decided, and `lowest` above it means that it has none. */
  readonly lowest: Height;
  readonly height: Height;
}

export interface Receipts {
  readonly kind: 'receipts';
  /** The query that this answers, with one receipt or none; null: what was submitted is decided, with one receipt or more. */
  readonly answer: QueryAnswer | null;
  readonly receipts: readonly BundleReceipt[];
}

/** A block of a stream; a body-less one where headersOnly was asked for. */
export interface FollowedBlock {
  readonly headerBytes: Bytes;
  /** (payload, signature) of each bundle; null for headers only. */
  readonly bundles: readonly { readonly payload: Bytes; readonly signature: Bytes }[] | null;
  readonly certificate: Certificate | null;
}

/** Consecutive blocks of the stream; where a certificate is null a later block's covers it. */
export interface FollowBlocks {
  readonly kind: 'follow-blocks';
  readonly blocks: readonly FollowedBlock[];
}

/** The stream cannot go on: why, and what the replica still has. */
export interface FollowEnd {
  readonly kind: 'follow-end';
  readonly code: 'reached' | 'pruned' | 'draining';
  readonly lowest: Height;
}

/** The replica's head, certified. Sent on request, and to every client when the view changes. */
export interface Head {
  readonly kind: 'head';
  readonly epoch: Epoch;
  readonly view: View;
  readonly primary: ReplicaId;
  readonly height: Height;
  readonly lowest: Height;
  /** Null at height 0 and, shortly, where the head is covered by no certificate of its own. */
  readonly certificate: Certificate | null;
}

/** Links of consecutive epochs (protocol/epoch/chain.ts), as bytes: each proves itself to whoever knows the epoch before. */
export interface Epochs {
  readonly kind: 'epochs';
  /** The first link is the one that proves this epoch, as it was asked. */
  readonly from: Epoch;
  /** None: the replica knows no later epoch. At most 64, and 256 KiB together. */
  readonly links: readonly Bytes[];
}

/** The newest checkpoint that a quorum has signed, and the header of the block at its height; null: none yet. */
export interface CheckpointHere {
  readonly kind: 'checkpoint-here';
  readonly proof: Omit<CheckpointProof, 'kind'> | null;
}

/** A chunk of the state at that height, with its place under the digest that the checkpoint names; null: it is not kept any more. */
export interface StateHere {
  readonly kind: 'state-here';
  readonly height: Height;
  readonly chunk: number;
  readonly found: Pick<StateChunk, 'bytes' | 'proof'> | null;
}

export type DoorMessage = Admissions | Receipts | FollowBlocks | FollowEnd | Head | Epochs | CheckpointHere | StateHere;

/**
 * [WIRE-18] Believed for what it holds, whoever sent it; or a mere hint whose loss or invention costs nothing but time. Nobody signs it: over a frame of
 * blocks a signature takes longer than everything else that is done to send it.
 */
export function provesItself(message: DoorMessage): boolean {
  if (message.kind === 'receipts') return message.receipts.length > 0;
  if (message.kind === 'admissions') return message.admissions.every(({ code }) => code === 'pooled');
  return message.kind === 'follow-blocks';
}
