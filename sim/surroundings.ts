// What a simulated replica asks of the cluster around it, and where a crash may strike it.

import type { Bytes } from '../crypto/bytes.ts';
import type { Witness } from '../protocol/attest.ts';
import type { Block } from '../protocol/block.ts';
import type { Audience, Pledged, Ready } from '../protocol/core.ts';
import type { CertifiedState } from '../protocol/epoch/observer.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { CertifiedBlock, ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import type { Pending } from '../protocol/pending.ts';
import type { ReplicaId } from '../protocol/types.ts';
import type { Content, PledgePayload } from './guard.ts';
import type { SimReplica } from './replica.ts';
import type { Timeline } from './timeline.ts';

/** What a replica asks of the cluster around it. */
export interface Surroundings {
  readonly timeline: Timeline;
  readonly genesis: Genesis;
  /** In milliseconds, a new draw for each write. */
  writeMs(replica: ReplicaId): number;
  /** `payload`: of the message, where it is encoded already. */
  sign<M extends ReplicaMessage>(replica: ReplicaId, message: M, payload?: Bytes): Verified<M>;
  /** As protocol/verify.ts says; null: refused, and counted. */
  verify(replica: ReplicaId, signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null;
  /** Decoded and verified from bytes; null: refused, and counted. */
  verifyBytes(replica: ReplicaId, bytes: Bytes): Verified<ReplicaMessage> | null;
  /** Its word that a block is decided. */
  signDecided(replica: ReplicaId, place: Parameters<Witness['sign']>[0]): Bytes;
  /** `to` are members of the sender's epoch. */
  send(from: SimReplica, to: Audience, signed: Signed<ReplicaMessage>): void;
  /** `to` is whoever has asked. */
  answer(from: SimReplica, to: ReplicaId, signed: Signed<ReplicaMessage>): void;
  /** Certified blocks from this height on, as some replica serves them; often none. */
  blocksFor(replica: SimReplica, from: number): readonly CertifiedBlock[];
  /** It has verified such a block, and keeps it. */
  followed(replica: SimReplica, block: Block): void;
  /** A stable checkpoint above this height with its state, as some replica serves it; null: nobody in reach. */
  checkpointFor(replica: SimReplica, above: number): CertifiedState | null;
  /** The latest epoch that somebody in reach can prove; its own, where nobody knows a later one. */
  latestEpochFor(replica: SimReplica): number;
  /** The epoch of this replica has ended, and the next one has begun here: a core of its own, and new connections. */
  began(replica: SimReplica): void;
  /** A Ready, once its messages are on their way. */
  observe(replica: SimReplica, ready: Ready<ReplicaMessage, ReplicaPledge>): void;
  /** The core threw. */
  broke(replica: SimReplica, error: unknown): void;
  /** A moment at which an armed crash may strike. True: it did. */
  strikes(replica: SimReplica, point: CrashPoint): boolean;
}

/** Where between the steps of a write a process may end. */
export type CrashPoint = 'write-begun' | 'log-written' | 'guard-written' | 'spoken' | 'epoch-ended';

/** What becomes of the writes that a crash interrupts. */
export interface Interrupted {
  readonly log: 'lost' | 'kept';
  readonly guard: 'lost' | 'kept';
}

/** A write under way. */
export interface Write {
  readonly batch: Pending;
  readonly kept: readonly (PledgePayload & Pledged<ReplicaPledge>)[];
  readonly led: Pending['lead'];
  /** Of the sign-state file. */
  readonly content: Content;
  logDone: boolean;
  guardDone: boolean;
}
