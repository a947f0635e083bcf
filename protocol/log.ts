// What a core asks the replication log to remember. One vocabulary for every protocol: accepted values with their view, ballot or
// term; decided blocks with their proof; hard state; checkpoints. The store (storage/) keeps them; it never interprets them.

import type { Bytes } from '../crypto/bytes.ts';
import type { Hash, Height, View } from './types.ts';

/** The bytes of a block as the log keeps them: 256 bytes of header, and the body's MessagePack bytes (docs/wire.md). */
export interface BlockBytes {
  readonly header: Bytes;
  readonly body: Bytes;
}

export type LogRecord =
  /** A block's bytes, by (height, hash): a second block of one height never overwrites the first. */
  | { readonly type: 'block'; readonly height: Height; readonly hash: Hash; readonly bytes: BlockBytes }
  /** This replica accepted that block in that view, ballot or term. Replaces what stood at (height). */
  | { readonly type: 'accepted'; readonly height: Height; readonly hash: Hash; readonly view: View }
  /** The protocol's own small state (view, certificates), encoded by the protocol. Replaces the last one. */
  | { readonly type: 'hard-state'; readonly bytes: Bytes }
  /**
   * Decided for ever. `certificate` is null where a later block's certificate covers this one. `bundles` are digests, for
   * the index from a bundle to its height. Other blocks of this height and its `accepted` entry may be dropped.
   */
  | {
      readonly type: 'decided';
      readonly height: Height;
      readonly hash: Hash;
      readonly certificate: Bytes | null;
      readonly bundles: readonly Hash[];
    }
  /** What was accepted at or below this height, and not decided here, is not needed any more: the entries and their blocks go. */
  | { readonly type: 'forget-accepted'; readonly height: Height }
  /** A chunk of the replicated state as of a checkpoint height; only chunks that changed since the last one are written. */
  | { readonly type: 'state-chunk'; readonly height: Height; readonly chunk: number; readonly bytes: Bytes }
  /** A checkpoint whose chunks are all written, not yet stable (certificate null) or stable. */
  | {
      readonly type: 'checkpoint';
      readonly height: Height;
      readonly place: Bytes;
      readonly certificate: Bytes | null;
    }
  /** A checkpoint taken from peers replaces everything below and at its height: the log starts anew from it. */
  | {
      readonly type: 'reset-to-checkpoint';
      readonly height: Height;
      readonly header: Bytes;
      readonly place: Bytes;
      readonly certificate: Bytes;
    };

/** The place of a durable write in the store's own hash chain; the sign-state file keeps it as the floor the log must reach. */
export interface LogPosition {
  /** Number of the batch, from 1. 0: nothing was ever written. */
  readonly sequence: number;
  /** 32 bytes. */
  readonly hash: Bytes;
}

export interface StoredBlock {
  readonly height: Height;
  readonly hash: Hash;
  readonly bytes: BlockBytes;
  readonly certificate: Bytes | null;
}

export interface StoredCheckpoint {
  readonly height: Height;
  readonly place: Bytes;
  readonly certificate: Bytes | null;
}

/** What the log gives back at start, after its own checks (LOG-2, LOG-3). */
export interface RecoveredLog {
  readonly position: LogPosition;
  readonly hardState: Bytes | null;
  /** The newest checkpoint at or below the decided head whose chunks are complete, stable or not; null before the first. */
  readonly checkpoint:
    | (StoredCheckpoint & {
        /** Header bytes of the block at its height. */ readonly header: Bytes;
        readonly chunks: ReadonlyMap<number, Bytes>;
      })
    | null;
  /** The newest stable checkpoint; null before the first. */
  readonly stable: StoredCheckpoint | null;
  /** Decided blocks above `checkpoint` (or from height 1), rising, without gaps. */
  readonly decided: readonly StoredBlock[];
  /** Accepted, undecided entries above the decided head, rising. */
  readonly accepted: readonly {
    readonly height: Height;
    readonly hash: Hash;
    readonly view: View;
    readonly bytes: BlockBytes;
  }[];
  /** Height of the lowest decided block that is still here; head + 1 where there is none. */
  readonly lowest: Height;
}
