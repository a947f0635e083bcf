// The port below the log: an ordered key-value store whose one write is a synced atomic batch. Implementations: rocks.ts and
// classic.ts (a directory on disk; open.ts chooses) and memory.ts (the simulator's, which can break). Nothing above this line
// knows which one it has.

import type { Bytes } from '../crypto/bytes.ts';

export type KvOp =
  | { readonly type: 'put'; readonly key: Bytes; readonly value: Bytes }
  | { readonly type: 'del'; readonly key: Bytes };

export interface KvEntry {
  readonly key: Bytes;
  /** Empty where the range was asked for keys only. */
  readonly value: Bytes;
}

export interface KvRange {
  /** The lowest key, included. */
  readonly gte: Bytes;
  /** The first key above the range. */
  readonly lt: Bytes;
  readonly reverse?: boolean;
  /** Entries at most; without it, all. */
  readonly limit?: number;
  /** False: keys only. */
  readonly values?: boolean;
}

/** Keys: 1 to 64 bytes, ordered as unsigned bytes. What is given in must not be changed afterwards; the same for what comes out. */
export interface KeyValueStore {
  /** For logs and metrics only. */
  readonly name: string;
  get(key: Bytes): Promise<Bytes | undefined>;
  /** All as of one moment, in the order of the keys. */
  getMany(keys: readonly Bytes[]): Promise<readonly (Bytes | undefined)[]>;
  /**
   * One atomic batch, applied in order; resolves when it is durable. One at a time: a second call before the first has
   * settled is a bug and throws. Rejects with `storage-write-failed`; what is durable then is unknown.
   */
  write(ops: readonly KvOp[]): Promise<void>;
  /** As of the moment of the first step. */
  range(range: KvRange): AsyncIterable<KvEntry>;
  /** Gives the disk space of deleted keys in [gte, lt) back to the operating system. In the background, may take seconds. */
  reclaim(gte: Bytes, lt: Bytes): Promise<void>;
  /** Bytes on disk. */
  sizeBytes(): Promise<number>;
  /** Waits for what is under way. */
  close(): Promise<void>;
}
