// [PBFT-CP-3] What is old goes, a little with every batch: decided blocks below the retention, their index entries, checkpoints and state
// chunks that no recovery can need. Disk space comes back by compacting the range that was emptied, in the background.

import type { Bytes } from '../crypto/bytes.ts';
import { StorageError } from './errors.ts';
import type { KeyValueStore } from './kv.ts';
import { bodyHashIn, decodeHeaderRecord, keys, placeOf, unseal } from './layout.ts';
import type { LogState } from './state.ts';

/** Work per batch, so that no batch waits for a big deletion. */
export const purgeHeightsMax = 64;
export const purgeDeletesMax = 8192;
export const chunkDeletesMax = 256;
export const journalDeletesMax = 64;

/** [LOG-3] Entries that stay whatever happens, and entries above which the front goes even without a checkpoint. */
export const journalEntriesMin = 256;
export const journalEntriesMax = 16_384;

/** Deleted body bytes after which the emptied range is compacted. */
export const reclaimBytes = 64 << 20;

/** Decided blocks to keep below the head. */
export type RetainBlocks = number | 'all';

/** [LOG-8] Everything below this height may go: never the newest stable checkpoint's block nor anything above it. */
export function lowestWanted(state: LogState, retainBlocks: RetainBlocks): number {
  if (retainBlocks === 'all') return state.bounds.lowest;
  return Math.max(state.bounds.lowest, Math.min(state.head - retainBlocks, state.stable));
}

/** [LOG-3] Journal entries below this sequence may go: never the floor, nor what the last two stable checkpoints rest on. */
export function journalWanted(state: LogState, floorSequence: number): number {
  const newest = state.position.sequence + 1;
  const needed = Math.min(newest - journalEntriesMin + 1, state.previousStableSequence);
  return Math.max(state.journalFirst, Math.min(Math.max(needed, newest - journalEntriesMax), floorSequence));
}

export interface Purge {
  /** Heights below this one are gone once the deletions are durable. */
  readonly to: number;
  readonly deletes: readonly Bytes[];
  readonly bodyBytes: number;
}

/**
 * Reads what must be deleted for the next heights from `from` up to, without, `target`. Damage among what goes anyway is no
 * reason to stop; an error of the engine is.
 */
export async function planPurge(
  kv: KeyValueStore,
  from: number,
  target: number,
  previousStable: number,
): Promise<Purge> {
  const limit = Math.min(target, from + purgeHeightsMax);
  const deletes: Bytes[] = [];
  let bodyBytes = 0;
  let to = from;
  const lists = await kv.getMany(heightsOf(from, limit).map((height) => keys.bundles(height)));
  for (; to < limit && (to === from || deletes.length < purgeDeletesMax); to++) {
    deletes.push(keys.decided(to));
    const list = lists[to - from];
    if (list !== undefined) {
      deletes.push(keys.bundles(to));
      const digests = undamaged(() => unseal(keys.bundles(to), list)) ?? new Uint8Array(0);
      for (let at = 0; at < digests.length; at += 32) deletes.push(keys.bundle(digests.subarray(at, at + 32)));
    }
  }
  for await (const { key, value } of kv.range({ gte: keys.at('header', from), lt: keys.at('header', to) })) {
    const place = placeOf(key);
    if (place === undefined) continue;
    deletes.push(key);
    const record = undamaged(() => decodeHeaderRecord(key, value));
    if (record !== undefined) deletes.push(keys.body(place.number, bodyHashIn(record.header)));
    else deletes.push(...(await bodiesAt(kv, place.number)));
    bodyBytes += record?.bodyBytes ?? 0;
  }
  const checkpoints = { gte: keys.start('checkpoint'), lt: keys.checkpoint(Math.min(to, previousStable)) };
  if (previousStable > 0) {
    for await (const { key } of kv.range({ ...checkpoints, values: false, limit: purgeHeightsMax })) deletes.push(key);
  }
  return { to, deletes, bodyBytes };
}

/** Where no header says what a body is called. */
async function bodiesAt(kv: KeyValueStore, height: number): Promise<readonly Bytes[]> {
  const found: Bytes[] = [];
  const range = { gte: keys.at('body', height), lt: keys.at('body', height + 1), values: false };
  for await (const { key } of kv.range(range)) found.push(key);
  return found;
}

function heightsOf(from: number, to: number): readonly number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}

function undamaged<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof StorageError) return undefined;
    throw error;
  }
}
