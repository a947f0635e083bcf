// The port above the log: what the daemon, the simulator and the tests see of it. log-store.ts is the one implementation; what
// differs between disk and memory lies below it (kv.ts).

import type { Bytes } from '../crypto/bytes.ts';
import type { Sha256 } from '../crypto/provider.ts';
import type {
  BlockBytes,
  LogPosition,
  LogRecord,
  RecoveredLog,
  StoredBlock,
  StoredCheckpoint,
} from '../protocol/log.ts';
import type { Hash, Height } from '../protocol/types.ts';
import type { DecidedRange, DecidedRangeQuery } from './reader.ts';
import type { RetainBlocks } from './retention.ts';

export interface LogOptions {
  readonly sha256: Sha256;
  /** 32 bytes; the directory belongs to this chain from its first write on. */
  readonly chainId: Hash;
  /** What the signer's guard last remembered; null where this replica has never signed. */
  readonly floor: LogPosition | null;
  /** Decided blocks kept below the head; never less than what lies above the newest stable checkpoint. */
  readonly retainBlocks: RetainBlocks;
  /** Decided blocks kept in memory, in bytes. Without it 32 MiB. */
  readonly recentBytesMax?: number;
}

export interface LogStore {
  /** The last durable batch. */
  readonly position: LogPosition;
  /** The highest decided height that is durable; 0 before the first. */
  readonly head: Height;
  /** The lowest decided block that is here; head + 1 where there is none. */
  readonly lowest: Height;
  /**
   * One synced batch; resolves to its position when it is durable. One at a time. The first failure is final: every later call of
   * any method rejects with the same error, since nobody knows what is durable, and the process must end.
   * Rejects with StorageError, or with InvariantViolation where the records contradict the log.
   */
  write(records: readonly LogRecord[]): Promise<LogPosition>;
  /**
   * The floor that the guard's file holds durably, and no later one: the journal below it may go. Told too little, the journal
   * stays; told too much, the next start cannot find the guard's floor and refuses.
   */
  moveFloor(floor: LogPosition): void;
  /** So many decided blocks stay whatever `retainBlocks` says: the chain's own word, of the epoch at hand. */
  retainAtLeast(blocks: number): void;
  /** What a start would find now, where a replica in quarantine begins the next epoch (EPO-12). Not while a write is under way. */
  recover(): Promise<RecoveredLog>;
  readDecided(height: Height): Promise<StoredBlock | undefined>;
  readDecidedRange(query: DecidedRangeQuery): Promise<DecidedRange>;
  /** A block by height and hash, decided or not; undefined where it is not (or no longer) here. */
  readBlock(height: Height, hash: Hash): Promise<BlockBytes | undefined>;
  /** The height that decided this bundle; undefined where no block from `lowest` on did. */
  findBundle(digest: Hash): Promise<Height | undefined>;
  /** The checkpoint at this height, stable or not; without a height the newest stable one. */
  readCheckpoint(height?: Height): Promise<CheckpointRead | undefined>;
  /** A chunk of the state as of a checkpoint: its newest version at or below it. Only the last two stable checkpoints are whole. */
  readStateChunk(checkpointHeight: Height, chunk: number): Promise<Bytes | undefined>;
  /** Bytes on disk. */
  sizeBytes(): Promise<number>;
  /** Waits for the write and the housekeeping under way. */
  close(): Promise<void>;
}

export interface CheckpointRead extends StoredCheckpoint {
  /** Header bytes of the block at its height; null where that block is not decided here yet. */
  readonly header: Bytes | null;
}
