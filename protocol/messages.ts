// Every message between replicas, as values. The bytes are the codec's business (codec.ts), their layout is docs/wire.md's.
// Names are the papers'. The first group is shared by every protocol on this log; the second is PBFT's.

import type { Bytes } from '../crypto/bytes.ts';
import type { Block } from './block.ts';
import type { SignedBundle } from './bundle.ts';
import type { Certificate, SignatureOf } from './certificate.ts';
import type { Epoch, Hash, Height, ReplicaId, View } from './types.ts';

// ---- shared: pool, heads, catch-up, checkpoints ---------------------------------------------------------------------

/** Sent at every heartbeat and on connecting: heads are compared all the time (PBFT-CU-1). Binds nobody to anything. */
export interface Status {
  readonly kind: 'status';
  readonly epoch: Epoch;
  readonly view: View;
  /** False while the sender is between views. */
  readonly active: boolean;
  /** The sender's last decided block. */
  readonly height: Height;
  readonly hash: Hash;
  /** The sender's last stable checkpoint; 0 before the first. */
  readonly stable: Height;
  /** The lowest height whose block the sender still serves. */
  readonly lowest: Height;
}

/** Bundles handed on to whoever may propose them. Each carries its client's signature, so the carrier is not trusted. */
export interface Forward {
  readonly kind: 'forward';
  readonly bundles: readonly SignedBundle[];
}

/** Asks for decided blocks from..to, both included; answered by `blocks`, as many as fit. */
export interface FetchBlocks {
  readonly kind: 'fetch-blocks';
  readonly from: Height;
  readonly to: Height;
}

/** A decided block; where `certificate` is null a later block of the same answer carries one that covers it (BLK-7). */
export interface CertifiedBlock {
  readonly block: Block;
  readonly certificate: Certificate | null;
}

/**
 * Consecutive decided blocks, rising. The last one carries a certificate, or `tail` proves it: where the blocks up to the next
 * certificate do not fit into one frame, their headers do. Empty: the sender has none of them.
 */
export interface Blocks {
  readonly kind: 'blocks';
  readonly blocks: readonly CertifiedBlock[];
  readonly tail: CertifiedTail | null;
}

/** Headers above a block, rising, up to and including the one that the certificate is for (BLK-7). */
export interface CertifiedTail {
  readonly links: readonly Bytes[];
  readonly certificate: Certificate;
}

/** Asks for one block by its hash, decided or not; answered by `block-data`. */
export interface FetchBlock {
  readonly kind: 'fetch-block';
  readonly height: Height;
  readonly hash: Hash;
}

export interface BlockData {
  readonly kind: 'block-data';
  readonly block: Block;
}

/** What a checkpoint is about: the signed bytes are its text as a C2SP checkpoint note (checkpoint.ts). */
export interface CheckpointPlace {
  readonly epoch: Epoch;
  readonly height: Height;
  readonly hash: Hash;
  readonly logRoot: Hash;
  readonly memberSetHash: Hash;
  /** RFC 6962 root over the chunks of the replicated state (ledger.ts). */
  readonly stateDigest: Hash;
}

/** A quorum of signatures over one checkpoint place: stable. By strictly rising replica. */
export interface CheckpointCertificate extends CheckpointPlace {
  readonly signatures: readonly SignatureOf[];
}

export interface CheckpointVote extends CheckpointPlace {
  readonly kind: 'checkpoint';
}

/** Asks for the sender's last stable checkpoint; answered by `checkpoint-proof`. */
export interface FetchCheckpoint {
  readonly kind: 'fetch-checkpoint';
}

export interface CheckpointProof {
  readonly kind: 'checkpoint-proof';
  readonly checkpoint: CheckpointCertificate;
  /** The header whose hash the checkpoint signs. */
  readonly headerBytes: Bytes;
}

/** Asks for one chunk of the replicated state at a stable checkpoint; answered by `state-chunk`. */
export interface FetchState {
  readonly kind: 'fetch-state';
  readonly height: Height;
  readonly chunk: number;
}

/** One chunk with its RFC 6962 inclusion proof under the checkpoint's state digest; verified piece by piece. */
export interface StateChunk {
  readonly kind: 'state-chunk';
  readonly height: Height;
  readonly chunk: number;
  readonly bytes: Bytes;
  readonly proof: readonly Bytes[];
}

export type SharedMessage =
  | Status
  | Forward
  | FetchBlocks
  | Blocks
  | FetchBlock
  | BlockData
  | CheckpointVote
  | FetchCheckpoint
  | CheckpointProof
  | FetchState
  | StateChunk;

// ---- PBFT (Castro and Liskov 1999, section 4) -----------------------------------------------------------------------

/** The primary's proposal. Its signature is the primary's own prepare over (epoch, view, height, hash). */
export interface PrePrepare {
  readonly kind: 'pre-prepare';
  readonly epoch: Epoch;
  readonly view: View;
  readonly block: Block;
}

export interface Vote {
  readonly kind: 'prepare' | 'commit';
  readonly epoch: Epoch;
  readonly view: View;
  readonly height: Height;
  readonly hash: Hash;
}

/** "I have stopped voting below `view`", with the two certificates that a new view needs (PBFT-VC-2). */
export interface ViewChange {
  readonly kind: 'view-change';
  readonly epoch: Epoch;
  /** The view asked for. */
  readonly view: View;
  /** The highest commit certificate known to the sender; null before the first block. */
  readonly commit: Certificate | null;
  /** The highest prepared certificate the sender ever held, by view then height; null before the first. */
  readonly prepared: Certificate | null;
}

/** A quorum of view-changes, as they were signed; everyone computes the base of the view from them alone (PBFT-NV-2). */
export interface NewView {
  readonly kind: 'new-view';
  readonly epoch: Epoch;
  readonly view: View;
  readonly viewChanges: readonly Signed<ViewChange>[];
}

/** Asks what the receiver can prove, and what it holds of the sender's own words; answered by `standing` (REC-2). */
export interface FetchStanding {
  readonly kind: 'fetch-standing';
  readonly epoch: Epoch;
  /** 32 bytes, fresh: an answer to an older question says nothing about now. */
  readonly nonce: Bytes;
}

export interface Standing {
  readonly kind: 'standing';
  readonly epoch: Epoch;
  /** That of the question. */
  readonly nonce: Bytes;
  /** The highest commit certificate, the latest prepared certificate, the last stable checkpoint; null where there is none. */
  readonly commit: Certificate | null;
  readonly prepared: Certificate | null;
  readonly stable: CheckpointCertificate | null;
  /** The latest view-change of the asker that is held here, as it was signed; null: none. */
  readonly asked: Signed<ViewChange> | null;
}

export type PbftMessage = SharedMessage | PrePrepare | Vote | ViewChange | NewView | FetchStanding | Standing;

/** What binds a PBFT replica: leaves only after the records that remember it are durable. */
export type PbftPledge = Vote | CheckpointVote | ViewChange | NewView;

// ---- Paxos (Lamport, Paxos Made Simple, 2001, section 2.2) ------------------------------------------------------------

/** Phase 1a: "promise me to accept nothing below `ballot`". One for all slots above what the sender has decided. */
export interface PaxosPrepare {
  readonly kind: 'paxos-prepare';
  readonly epoch: Epoch;
  /** Of its owner alone: ballot b belongs to member b mod n. Above 0. */
  readonly ballot: View;
}

/** A value that an acceptor has accepted, by the hash of its unchained header (crash/value.ts). */
export interface AcceptedPlace {
  readonly slot: Height;
  /** In Fast Paxos the round: twice the ballot, and one more where it was accepted in the classic round. */
  readonly ballot: View;
  readonly hash: Hash;
}

/** Phase 1b: the promise, with the highest-numbered proposal that the acceptor has accepted in each slot above `decided`. */
export interface PaxosPromise {
  readonly kind: 'promise';
  readonly epoch: Epoch;
  readonly ballot: View;
  /** Every slot up to here is decided at the acceptor: nothing may be proposed there. */
  readonly decided: Height;
  /** By strictly rising slot, at most 256. */
  readonly accepted: readonly AcceptedPlace[];
  /** Cheap Paxos: the latest working set that the acceptor knows of; null: none yet. */
  readonly working: WorkingSet | null;
}

/** Phase 2a: "accept this value in the slot that its height names". */
export interface Accept {
  readonly kind: 'accept';
  readonly epoch: Epoch;
  readonly ballot: View;
  readonly value: Block;
}

/** Phase 2b: said to every learner. */
export interface Accepted {
  readonly kind: 'accepted';
  readonly epoch: Epoch;
  readonly ballot: View;
  /** By strictly rising slot, 1 to 64. */
  readonly places: readonly { readonly slot: Height; readonly hash: Hash }[];
}

/** Cheap Paxos: the mains that choose together, in this ballot and above `floor`; each of them holds everything up to it. */
export interface WorkingSet {
  readonly ballot: View;
  readonly floor: Height;
  /** By strictly rising place, at least one. */
  readonly members: readonly ReplicaId[];
}

/** Of the owner of the ballot: "note this working set", CHP-3. */
export interface Configure extends WorkingSet {
  readonly kind: 'configure';
  readonly epoch: Epoch;
}

/** "I have noted the working set of this ballot." */
export interface Configured {
  readonly kind: 'configured';
  readonly epoch: Epoch;
  readonly ballot: View;
}

/** Fast Paxos, the "any" message (section 3.3): from this slot on an acceptor may accept what any proposer sends it, in this ballot. */
export interface OpenRound {
  readonly kind: 'open-round';
  readonly epoch: Epoch;
  readonly ballot: View;
  readonly from: Height;
}

/** A proposer's value, straight to the acceptors, in an open ballot. */
export interface FastAccept {
  readonly kind: 'fast-accept';
  readonly epoch: Epoch;
  readonly ballot: View;
  readonly value: Block;
}

/** Phase 2b of the fast round of a ballot: said to every learner. */
export interface FastAccepted {
  readonly kind: 'fast-accepted';
  readonly epoch: Epoch;
  readonly ballot: View;
  /** By strictly rising slot, 1 to 64. */
  readonly places: readonly { readonly slot: Height; readonly hash: Hash }[];
}

/** "I have promised this higher ballot": what a proposer that was passed needs to know, section 2.3. Binds nobody. */
export interface Reject {
  readonly kind: 'reject';
  readonly epoch: Epoch;
  readonly ballot: View;
}

/** Of the owner of the ballot, which leads no more: "run for leader now", CFT-H-2. */
export interface TakeOver {
  readonly kind: 'take-over';
  readonly epoch: Epoch;
  readonly ballot: View;
}

export type PaxosMessage =
  | SharedMessage
  | PaxosPrepare
  | PaxosPromise
  | Accept
  | Accepted
  | Reject
  | TakeOver
  | Configure
  | Configured
  | OpenRound
  | FastAccept
  | FastAccepted;
/** What binds a Paxos replica. */
export type PaxosPledge = PaxosPromise | Accepted | Configured | FastAccepted | CheckpointVote;

// ---- Raft (Ongaro and Ousterhout, 2014, figure 2) -----------------------------------------------------------------------

export interface RequestVote {
  readonly kind: 'request-vote';
  readonly epoch: Epoch;
  readonly term: View;
  /** The candidate's log: RAFT-E-3. */
  readonly decided: Height;
  readonly last: Height;
  /** 0: every entry is decided. */
  readonly lastTerm: View;
}

/** A vote that is granted; one that is not is a `raft-reject`, or nothing. */
export interface RaftVote {
  readonly kind: 'vote';
  readonly epoch: Epoch;
  readonly term: View;
  readonly candidate: ReplicaId;
}

/** Entries after (`prev`, `prevTerm`), one or none in a message, and how far the leader has decided. */
export interface AppendEntries {
  readonly kind: 'append-entries';
  readonly epoch: Epoch;
  readonly term: View;
  readonly prev: Height;
  /** 0: not known any more; then only who has decided `prev` can take what follows. */
  readonly prevTerm: View;
  readonly decided: Height;
  readonly entry: { readonly term: View; readonly value: Block } | null;
}

/** The sender's log is the leader's up to `match`, durably. */
export interface Appended {
  readonly kind: 'appended';
  readonly epoch: Epoch;
  readonly term: View;
  readonly match: Height;
}

/** "My term is higher", or "my log does not hold what comes before": then `last` is where it ends. Binds nobody. */
export interface RaftReject {
  readonly kind: 'raft-reject';
  readonly epoch: Epoch;
  readonly term: View;
  readonly last: Height;
}

/** Of the leader of the term, which leads no more: "run for leader now" (Ongaro's dissertation, section 3.10), CFT-H-2. */
export interface TimeoutNow {
  readonly kind: 'timeout-now';
  readonly epoch: Epoch;
  readonly term: View;
}

export type RaftMessage = SharedMessage | RequestVote | RaftVote | AppendEntries | Appended | RaftReject | TimeoutNow;
/** What binds a Raft replica. */
export type RaftPledge = RaftVote | Appended | CheckpointVote;

// ---- reads, where members are trusted (crash/reads.ts) -------------------------------------------------------------------

/** Of the ballot's owner, to all: "have you promised nothing above?" Of anyone else, to its owner: "what is the read point?" */
export interface ReadQuery {
  readonly kind: 'read-query';
  readonly epoch: Epoch;
  readonly ballot: View;
  /** Of the sender; named in the answer. */
  readonly round: number;
}

/** To the owner: "nothing, and what may be decided with my help stands at or below `height`". Of the owner: the read point. Binds nobody but by a lease. */
export interface ReadReply {
  readonly kind: 'read-reply';
  readonly epoch: Epoch;
  readonly ballot: View;
  readonly round: number;
  readonly height: Height;
}

export type ReadMessage = ReadQuery | ReadReply;

/** Whatever replicas say to replicas, and what of it binds them: what the daemon, the guard and the simulator carry. */
export type ReplicaMessage = PbftMessage | PaxosMessage | RaftMessage | ReadMessage;
export type ReplicaPledge = PbftPledge | PaxosPledge | RaftPledge;

// ---- signed and verified ----------------------------------------------------------------------------------------------

/** A message with the bytes that were signed: a signature is checked over these, never over an encoding made again. */
export interface Signed<M> {
  readonly sender: ReplicaId;
  readonly message: M;
  readonly payload: Bytes;
  /** 64 bytes; what it covers depends on the kind (docs/wire.md). */
  readonly signature: Bytes;
}

declare const verified: unique symbol;
/** Well formed, signed by `sender`, and every certificate inside it valid. Made only by verify.ts and for a replica's own messages. */
export type Verified<M> = Signed<M> & { readonly [verified]: true };
/** The cast that verify.ts and the replica's own outbox use; nobody else. */
export const asVerified = <M>(signed: Signed<M>): Verified<M> => signed as Verified<M>;
