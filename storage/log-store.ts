// The replication log: one store for every protocol (blueprint, section 4). One write at a time, synced, of everything a loop turn
// decided; reads that check what they read; a start that notices what the disk lost. Keeps records, never interprets them.

import type { Bytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import type { BlockBytes, LogPosition, LogRecord, RecoveredLog, StoredBlock } from '../protocol/log.ts';
import { asHeight, type Hash, type Height } from '../protocol/types.ts';
import { type Applied, applyRecords } from './apply.ts';
import type { Batch } from './batch.ts';
import { StorageError } from './errors.ts';
import { encodeEntry, entryHash } from './journal.ts';
import type { KeyValueStore, KvOp } from './kv.ts';
import { damaged, decodeCheckpoint, decodeHeight, encodeBounds, keys, seal, unseal } from './layout.ts';
import type { CheckpointRead, LogOptions, LogStore } from './port.ts';
import { type DecidedRange, type DecidedRangeQuery, readBlock, readDecided, readDecidedRange } from './reader.ts';
import { RecentBlocks } from './recent.ts';
import { load, recover } from './recover.ts';
import {
  chunkDeletesMax,
  journalDeletesMax,
  journalWanted,
  lowestWanted,
  type Purge,
  planPurge,
  type RetainBlocks,
  reclaimBytes,
} from './retention.ts';
import type { LogState } from './state.ts';

export type { CheckpointRead, LogOptions, LogStore } from './port.ts';
export type { DecidedRange, DecidedRangeQuery, StoredHeader } from './reader.ts';
export type { RetainBlocks } from './retention.ts';

const recentBytesDefault = 32 << 20;

/**
 * Opens the log and checks it (LOG-1 to LOG-5, LOG-11). Throws StorageError: `storage-damaged`, `storage-lost-writes`,
 * `storage-wrong-chain`, `storage-format-newer`, `storage-format-older`, `storage-read-failed`, `storage-write-failed`.
 */
export async function openLogStore(
  kv: KeyValueStore,
  options: LogOptions,
): Promise<{ readonly log: LogStore; readonly recovered: RecoveredLog }> {
  const recent = new RecentBlocks(options.recentBytesMax ?? recentBytesDefault);
  const { state, recovered } = await recover(kv, options, recent);
  return { log: new Log(kv, options, state, recent), recovered };
}

class Log implements LogStore {
  readonly #kv: KeyValueStore;
  readonly #options: LogOptions;
  readonly #state: LogState;
  readonly #recent: RecentBlocks;
  /** What readers may see. Follows the writer's state when a batch is durable; `lowest` and the floors go ahead of it. */
  readonly #view: { lowest: number; head: number; stable: number; previousStable: number; chunkFloor: number };
  #position: LogPosition;
  #floor: number;
  #retain: RetainBlocks;
  #writing: Promise<unknown> | undefined;
  #failure: unknown;
  #failed = false;
  #closing: Promise<void> | undefined;
  #housekeeping: Promise<void> | undefined;
  #purge: Purge | undefined;
  #unreclaimed = { from: 0, bytes: 0 };

  constructor(kv: KeyValueStore, options: LogOptions, state: LogState, recent: RecentBlocks) {
    this.#kv = kv;
    this.#options = options;
    this.#state = state;
    this.#recent = recent;
    this.#position = state.position;
    // Sequence 0: nothing was ever signed on this log, so nothing holds its journal yet.
    this.#retain = options.retainBlocks;
    this.#floor = options.floor?.sequence || Number.POSITIVE_INFINITY;
    const { head, stable, previousStable, bounds } = state;
    this.#view = { lowest: bounds.lowest, head, stable, previousStable, chunkFloor: bounds.chunkFloor };
    this.#unreclaimed.from = bounds.purged;
    this.#keepHouse();
  }

  get position(): LogPosition {
    return this.#position;
  }

  get head(): Height {
    return asHeight(this.#view.head);
  }

  get lowest(): Height {
    return asHeight(Math.min(this.#view.lowest, this.#view.head + 1));
  }

  async write(records: readonly LogRecord[]): Promise<LogPosition> {
    this.#assertUsable();
    assert(this.#writing === undefined, 'one write in flight at a time');
    if (records.length === 0) return this.#position;
    const writing = this.#write(records);
    this.#writing = writing;
    try {
      return await writing;
    } catch (error) {
      // [LOG-12] The first failure is final.
      this.#failed = true;
      this.#failure = error;
      throw error;
    } finally {
      this.#writing = undefined;
    }
  }

  moveFloor(floor: LogPosition): void {
    assert(floor.sequence <= this.#position.sequence, 'the floor is durable, so it is not above the log');
    this.#floor = floor.sequence || Number.POSITIVE_INFINITY;
  }

  retainAtLeast(blocks: number): void {
    const { retainBlocks } = this.#options;
    this.#retain = retainBlocks === 'all' ? retainBlocks : Math.max(retainBlocks, blocks);
  }

  async recover(): Promise<RecoveredLog> {
    this.#assertUsable();
    assert(this.#writing === undefined, 'no write in flight');
    // Every batch of it was written or checked by this process: the journal has nothing to add.
    const journal = { position: this.#position, first: this.#state.journalFirst, latest: new Map() };
    const { recovered } = await load(this.#kv, this.#options, { journal, recent: this.#recent });
    return recovered;
  }

  async readDecided(height: Height): Promise<StoredBlock | undefined> {
    this.#assertUsable();
    return await readDecided(this.#reader(), height);
  }

  async readDecidedRange(query: DecidedRangeQuery): Promise<DecidedRange> {
    this.#assertUsable();
    return await readDecidedRange(this.#reader(), query);
  }

  async readBlock(height: Height, hash: Hash): Promise<BlockBytes | undefined> {
    this.#assertUsable();
    return await readBlock(this.#reader(), height, hash);
  }

  async findBundle(digest: Hash): Promise<Height | undefined> {
    this.#assertUsable();
    const key = keys.bundle(digest);
    const value = await this.#kv.get(key);
    if (value === undefined) return undefined;
    const height = decodeHeight(key, value);
    return height < this.#view.lowest || height > this.#view.head ? undefined : height;
  }

  async readCheckpoint(height?: Height): Promise<CheckpointRead | undefined> {
    this.#assertUsable();
    const at = height ?? asHeight(this.#view.stable);
    if (at === 0) return undefined;
    const value = await this.#kv.get(keys.checkpoint(at));
    if (value === undefined) {
      if (height === undefined) throw damaged(keys.checkpoint(at), 'missing');
      return undefined;
    }
    const { header, place, certificate } = decodeCheckpoint(keys.checkpoint(at), value);
    return { height: at, place, certificate, header: header ?? (await this.readDecided(at))?.bytes.header ?? null };
  }

  async readStateChunk(checkpointHeight: Height, chunk: number): Promise<Bytes | undefined> {
    this.#assertUsable();
    const { previousStable, chunkFloor } = this.#view;
    if (checkpointHeight < Math.max(previousStable, chunkFloor)) return undefined;
    const range = { gte: keys.chunk(chunk, chunkFloor), lt: keys.chunk(chunk, checkpointHeight + 1) };
    for await (const { key, value } of this.#kv.range({ ...range, reverse: true, limit: 1 })) return unseal(key, value);
    return undefined;
  }

  async sizeBytes(): Promise<number> {
    this.#assertUsable();
    return await this.#kv.sizeBytes();
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled([this.#writing, this.#housekeeping]);
      await this.#kv.close();
    })();
    return this.#closing;
  }

  async #write(records: readonly LogRecord[]): Promise<LogPosition> {
    const { sha256, chainId } = this.#options;
    const context = { kv: this.#kv, sha256, chainId, state: this.#state };
    const applied = await applyRecords(context, records);
    const purge = this.#addPurge(applied);
    this.#addChunkDeletes(applied.batch);
    const { entry, position } = this.#makeEntry(applied.batch);
    this.#state.position = position;
    // Readers stop looking below `lowest` before anything there goes.
    this.#view.lowest = this.#state.bounds.lowest;
    this.#view.chunkFloor = this.#state.bounds.chunkFloor;
    this.#view.previousStable = this.#state.previousStable;
    // The entry comes first: should an engine ever keep only the front of a batch, the entry names what is missing.
    await this.#kv.write([entry, ...applied.batch.ops]);
    this.#publish(applied, position);
    if (purge !== undefined) this.#unreclaimed.bytes += purge.bodyBytes;
    this.#keepHouse();
    return position;
  }

  /** The deletions that housekeeping has read up, if any are ready and a reset has not overtaken them. */
  #addPurge({ batch }: Applied): Purge | undefined {
    const purge = this.#purge;
    this.#purge = undefined;
    const { bounds } = this.#state;
    if (purge === undefined || purge.to <= bounds.purged) return undefined;
    if (purge.to > lowestWanted(this.#state, this.#retain)) return undefined;
    for (const key of purge.deletes) batch.delUnlisted(key);
    this.#state.bounds = { ...bounds, lowest: Math.max(bounds.lowest, purge.to), purged: purge.to };
    batch.put(keys.bounds, encodeBounds(this.#state.bounds));
    return purge;
  }

  #addChunkDeletes(batch: Batch): void {
    for (const { chunk, height } of this.#state.chunkGarbage.splice(0, chunkDeletesMax)) {
      batch.del(keys.chunk(chunk, height));
    }
  }

  /** [LOG-3] */
  #makeEntry(batch: Batch): { readonly entry: KvOp; readonly position: LogPosition } {
    const state = this.#state;
    const sequence = state.position.sequence + 1;
    const trimTo = Math.min(journalWanted(state, this.#floor), state.journalFirst + journalDeletesMax);
    for (; state.journalFirst < trimTo; state.journalFirst++) batch.delUnlisted(keys.journal(state.journalFirst));
    const payload = encodeEntry({ previous: state.position.hash, first: state.journalFirst, items: batch.items });
    const key = keys.journal(sequence);
    const hash = entryHash(this.#options.sha256, this.#options.chainId, sequence, payload);
    return { entry: { type: 'put', key, value: seal(key, payload).value }, position: { sequence, hash } };
  }

  #publish(applied: Applied, position: LogPosition): void {
    if (applied.cutAbove !== null) this.#recent.clear();
    for (const { height, hash, certificate, header, body } of applied.decided) {
      if (body !== null) this.#recent.set({ height, hash, certificate, bytes: { header, body } });
    }
    for (const [height, certificate] of applied.certified) {
      const known = this.#recent.get(height);
      if (known !== undefined) this.#recent.set({ ...known, certificate });
    }
    this.#view.head = this.#state.head;
    this.#view.stable = this.#state.stable;
    this.#position = position;
  }

  /** Reads up the next deletions, and gives disk space back, beside the writes. Never throws: it only ever falls behind. */
  #keepHouse(): void {
    if (this.#housekeeping !== undefined || this.#closing !== undefined) return;
    const { bounds, previousStable } = this.#state;
    const target = lowestWanted(this.#state, this.#retain);
    const wantPurge = this.#purge === undefined && bounds.purged < target;
    const wantReclaim = this.#unreclaimed.bytes >= reclaimBytes;
    if (!wantPurge && !wantReclaim) return;
    const work = async (): Promise<void> => {
      if (wantReclaim) await this.#reclaim(bounds.purged);
      if (wantPurge) this.#purge = await planPurge(this.#kv, bounds.purged, target, previousStable);
    };
    this.#housekeeping = work()
      .catch(() => {
        // An engine that cannot read what is to be deleted says so on the next read that matters; pruning waits.
      })
      .finally(() => {
        this.#housekeeping = undefined;
      });
  }

  async #reclaim(purged: number): Promise<void> {
    const { from } = this.#unreclaimed;
    this.#unreclaimed = { from: purged, bytes: 0 };
    await this.#kv.reclaim(keys.at('body', from), keys.at('body', purged));
  }

  #reader() {
    return { kv: this.#kv, sha256: this.#options.sha256, recent: this.#recent, view: this.#view };
  }

  #assertUsable(): void {
    if (this.#failed) throw this.#failure;
    if (this.#closing !== undefined) throw new StorageError('storage-closed');
  }
}
