// The start: is this directory ours, has it everything we wrote, and what does it say. Loads the newest complete checkpoint and
// what was decided above it, never the whole chain; what lies below is checked when it is read.

import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { blockHash, decodeHeader } from '../protocol/block.ts';
import type { RecoveredLog, StoredBlock, StoredCheckpoint } from '../protocol/log.ts';
import { asHash, asHeight, type Hash } from '../protocol/types.ts';
import { StorageError } from './errors.ts';
import { checkValues, type Journal, noPosition, readJournal } from './journal.ts';
import type { KeyValueStore } from './kv.ts';
import {
  type Bounds,
  type CheckpointRecord,
  checkMeta,
  damaged,
  decodeAccepted,
  decodeBounds,
  decodeCheckpoint,
  decodeDecided,
  decodeHeaderRecord,
  encodeMeta,
  keys,
  placeOf,
  seal,
  unseal,
} from './layout.ts';
import type { LogOptions } from './port.ts';
import { type ReaderContext, readBlock, readDecidedRange } from './reader.ts';
import { PendingBlocks, type RecentBlocks } from './recent.ts';
import { type LogState, retireChunks } from './state.ts';

/** Bodies of undecided blocks kept in memory. */
const pendingBytesMax = 32 << 20;
/** Decided blocks are loaded in pieces of this many bytes. */
const loadBytes = 64 << 20;

export interface Recovery {
  readonly state: LogState;
  readonly recovered: RecoveredLog;
}

export async function recover(kv: KeyValueStore, options: LogOptions, recent: RecentBlocks): Promise<Recovery> {
  await claim(kv, options);
  const journal = await readJournal(kv, options, options.floor);
  await checkValues(kv, journal, (await readBounds(kv)).lowest);
  return load(kv, options, { journal, recent });
}

/** What a start finds, of a log that has been checked. */
export async function load(
  kv: KeyValueStore,
  options: LogOptions,
  { journal, recent }: { readonly journal: Journal; readonly recent: RecentBlocks },
): Promise<Recovery> {
  // Together: a replica that begins an epoch has others waiting for it.
  const [bounds, decidedHead, chunkVersions, hardState] = await Promise.all([
    readBounds(kv),
    readDecidedHead(kv),
    readChunkVersions(kv),
    kv.get(keys.hardState),
  ]);
  const head = Math.max(decidedHead?.height ?? 0, bounds.lowest - 1);
  const found = await readCheckpoints(kv, bounds, head);
  const context: ReaderContext = { kv, sha256: options.sha256, recent, view: { lowest: bounds.lowest, head } };
  const checkpoint = await completed(context, found.newest);
  if (checkpoint === null && bounds.lowest > 1) throw damaged(keys.checkpoint(bounds.lowest - 1), 'missing');
  const base = checkpoint === null ? null : blockHash(options.sha256, checkpoint.header);
  const decided = await loadDecided(context, checkpoint?.height ?? 0, base);
  for (const block of decided) recent.set(block);
  const state: LogState = {
    position: journal.position,
    journalFirst: journal.first,
    head,
    headHash: decidedHead?.height === head ? decidedHead.hash : base,
    bounds,
    stable: found.stable?.height ?? 0,
    previousStable: found.previousStable,
    stableSequence: writtenAt(journal, found.stable?.height ?? 0),
    previousStableSequence: writtenAt(journal, found.previousStable),
    accepted: new Set(),
    pending: new PendingBlocks(pendingBytesMax),
    chunkVersions,
    chunkGarbage: [],
  };
  await readPending(kv, state);
  const accepted = await readAccepted(context, state);
  const chunks = checkpoint === null ? null : await readChunks(kv, state, checkpoint.height);
  retireChunks(state);
  return {
    state,
    recovered: {
      position: journal.position,
      hardState: hardState === undefined ? null : unseal(keys.hardState, hardState),
      checkpoint: checkpoint === null || chunks === null ? null : { ...checkpoint, chunks },
      stable: found.stable,
      decided,
      accepted,
      lowest: asHeight(bounds.lowest),
    },
  };
}

/** [LOG-1] The meta record: format and chain. An empty directory becomes this chain's, unless we signed for something in it. */
async function claim(kv: KeyValueStore, { chainId, floor }: LogOptions): Promise<void> {
  const meta = await kv.get(keys.meta);
  if (meta !== undefined) {
    checkMeta(meta, chainId, toHex);
    return;
  }
  for await (const { key } of kv.range({ gte: Uint8Array.of(0), lt: Uint8Array.of(0xff), values: false, limit: 1 })) {
    throw damaged(keys.meta, `missing, but there is a ${placeOf(key)?.kind ?? 'foreign'} record`);
  }
  if (floor !== null && floor.sequence > 0) {
    const advice = 'repair it: the log is gone, and this replica has signed';
    throw new StorageError('storage-lost-writes', { expected: floor.sequence, found: noPosition.sequence, advice });
  }
  await kv.write([{ type: 'put', key: keys.meta, value: seal(keys.meta, encodeMeta(chainId)).value }]);
}

async function readBounds(kv: KeyValueStore): Promise<Bounds> {
  const value = await kv.get(keys.bounds);
  return value === undefined ? { lowest: 1, purged: 1, chunkFloor: 0 } : decodeBounds(value);
}

async function readDecidedHead(
  kv: KeyValueStore,
): Promise<{ readonly height: number; readonly hash: Hash } | undefined> {
  const all = { gte: keys.start('decided'), lt: keys.end('decided') };
  for await (const { key, value } of kv.range({ ...all, reverse: true, limit: 1 })) {
    return { height: placeOf(key)?.number ?? 0, hash: decodeDecided(key, value).hash };
  }
  return undefined;
}

interface FoundCheckpoints {
  /** The newest at or below the head, stable or not. */
  readonly newest: (CheckpointRecord & { readonly height: number }) | null;
  readonly stable: StoredCheckpoint | null;
  readonly previousStable: number;
}

async function readCheckpoints(kv: KeyValueStore, bounds: Bounds, head: number): Promise<FoundCheckpoints> {
  let newest: FoundCheckpoints['newest'] = null;
  let stable: StoredCheckpoint | null = null;
  const range = { gte: keys.checkpoint(bounds.chunkFloor), lt: keys.checkpoint(head + 1), reverse: true };
  for await (const { key, value } of kv.range(range)) {
    const height = asHeight(placeOf(key)?.number ?? 0);
    const record = decodeCheckpoint(key, value);
    newest ??= { ...record, height };
    if (record.certificate === null) continue;
    if (stable !== null) return { newest, stable, previousStable: height };
    stable = { height, place: record.place, certificate: record.certificate };
  }
  return { newest, stable, previousStable: 0 };
}

type WithHeader = StoredCheckpoint & { readonly header: Bytes };

async function completed(context: ReaderContext, newest: FoundCheckpoints['newest']): Promise<WithHeader | null> {
  if (newest === null) return null;
  const { place, certificate } = newest;
  const height = asHeight(newest.height);
  if (newest.header !== null) return { height, place, certificate, header: newest.header };
  const { blocks } = await readDecidedRange(context, { from: height, to: height, bytesMax: 0, headersOnly: true });
  const header = blocks[0]?.bytes.header;
  if (header === undefined) throw damaged(keys.decided(height), 'missing');
  return { height, place, certificate, header };
}

/** [LOG-11] From the checkpoint to the head: every block is here and names the one before it. */
async function loadDecided(context: ReaderContext, from: number, base: Hash | null): Promise<readonly StoredBlock[]> {
  const out: StoredBlock[] = [];
  const { head } = context.view;
  while (from + out.length < head) {
    const at = asHeight(from + out.length + 1);
    const { blocks } = await readDecidedRange(context, { from: at, to: asHeight(head), bytesMax: loadBytes });
    const first = blocks[0];
    if (first === undefined) throw damaged(keys.decided(at), 'missing');
    const parent = decodeHeader(first.bytes.header)?.parent;
    const before = out.at(-1)?.hash ?? base;
    if (before !== null && (parent === undefined || !equalBytes(parent, before))) {
      throw damaged(keys.header(at, first.hash), 'parent');
    }
    out.push(...blocks);
  }
  return out;
}

async function readChunkVersions(kv: KeyValueStore): Promise<Map<number, number[]>> {
  const out = new Map<number, number[]>();
  const range = { gte: keys.start('chunk'), lt: keys.end('chunk'), values: false };
  for await (const { key } of kv.range(range)) {
    const place = placeOf(key);
    if (place === undefined) throw damaged(key, 'key');
    const versions = out.get(place.chunk);
    if (versions === undefined) out.set(place.chunk, [place.number]);
    else versions.push(place.number);
  }
  return out;
}

async function readPending(kv: KeyValueStore, state: LogState): Promise<void> {
  const range = { gte: keys.at('header', state.head + 1), lt: keys.end('header') };
  for await (const { key, value } of kv.range(range)) {
    const place = placeOf(key);
    if (place === undefined) throw damaged(key, 'key');
    state.pending.add(place.number, { hash: asHash(place.hash), ...decodeHeaderRecord(key, value), body: null });
  }
}

async function readAccepted(context: ReaderContext, state: LogState): Promise<RecoveredLog['accepted']> {
  const out: RecoveredLog['accepted'][number][] = [];
  for await (const { key, value } of context.kv.range({ gte: keys.start('accepted'), lt: keys.end('accepted') })) {
    const height = asHeight(placeOf(key)?.number ?? 0);
    state.accepted.add(height);
    if (height <= state.head) continue;
    const { hash, view } = decodeAccepted(key, value);
    const known = state.pending.get(height, hash);
    const bytes = await readBlock(context, height, hash);
    if (known === undefined || bytes === undefined) throw damaged(keys.header(height, hash), 'missing');
    state.pending.add(height, { ...known, body: bytes.body });
    out.push({ height, hash, view, bytes });
  }
  return out;
}

async function readChunks(kv: KeyValueStore, state: LogState, height: number): Promise<ReadonlyMap<number, Bytes>> {
  const wanted: { readonly chunk: number; readonly key: Bytes }[] = [];
  for (const [chunk, versions] of state.chunkVersions) {
    const version = versions.findLast((v) => v <= height && v >= state.bounds.chunkFloor);
    if (version !== undefined) wanted.push({ chunk, key: keys.chunk(chunk, version) });
  }
  const out = new Map<number, Bytes>();
  const values = await kv.getMany(wanted.map(({ key }) => key));
  for (const [i, { chunk, key }] of wanted.entries()) {
    const value = values[i];
    if (value === undefined) throw damaged(key, 'missing');
    out.set(chunk, unseal(key, value));
  }
  return out;
}

function writtenAt(journal: Journal, height: number): number {
  if (height === 0) return 0;
  return journal.latest.get(String.fromCharCode(...keys.checkpoint(height)))?.sequence ?? 0;
}
