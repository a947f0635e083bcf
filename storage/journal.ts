// The journal: one entry per batch, each naming what the batch wrote and the hash of the entry before. The engine below may lose
// synced data and say nothing (docs/adr/0002-storage.md); a lost, changed or foreign batch shows here, at the next start.

import { type Bytes, concat, equalBytes } from '../crypto/bytes.ts';
import type { Sha256 } from '../crypto/provider.ts';
import { domainTag, LayoutReader, LayoutWriter } from '../protocol/layout.ts';
import type { LogPosition } from '../protocol/log.ts';
import { StorageError } from './errors.ts';
import type { KeyValueStore } from './kv.ts';
import { checksum, column, crcOf, damaged, decodeHeight, keys, placeOf, unseal } from './layout.ts';

/** A key the batch wrote, with the length and checksum of its value; or deleted (`crc` -1). */
export interface JournalItem {
  readonly key: Bytes;
  readonly length: number;
  /** CRC-32 over key and value as layout.ts computes it; -1: a tombstone. */
  readonly crc: number;
}

export interface JournalEntry {
  /** Hash of the entry before; 32 zero bytes in the first one. */
  readonly previous: Bytes;
  /** The lowest sequence that is still here once this batch is: a journal that lost its front is noticed. */
  readonly first: number;
  readonly items: readonly JournalItem[];
}

export const noPosition: LogPosition = { sequence: 0, hash: new Uint8Array(32) };

const journalTag = domainTag('synod-v1:journal');
const DELETED = 0;
const WRITTEN = 1;

export function encodeEntry(entry: JournalEntry): Bytes {
  let size = 32 + 8 + 4;
  for (const item of entry.items) size += 2 + item.key.length + (item.crc < 0 ? 0 : 8);
  const out = new LayoutWriter(size).bytes(entry.previous, 32).u64(entry.first).u32(entry.items.length);
  for (const { key, length, crc } of entry.items) {
    out
      .u8(crc < 0 ? DELETED : WRITTEN)
      .u8(key.length)
      .bytes(key, key.length);
    if (crc >= 0) out.u32(length).u32(crc);
  }
  return out.done();
}

function decodeEntry(key: Bytes, payload: Bytes): JournalEntry {
  try {
    const reader = new LayoutReader(payload);
    const previous = reader.bytes(32);
    const first = reader.u64();
    const items: JournalItem[] = [];
    for (let left = reader.u32(); left > 0; left--) {
      const written = reader.u8() === WRITTEN;
      const itemKey = reader.bytes(reader.u8());
      items.push(
        written ? { key: itemKey, length: reader.u32(), crc: reader.u32() } : { key: itemKey, length: 0, crc: -1 },
      );
    }
    return { previous, first, items };
  } catch (error) {
    throw damaged(key, 'layout', error);
  }
}

/** [LOG-3] What a LogPosition's hash is: it depends on every batch since the first. */
export function entryHash(sha256: Sha256, chainId: Bytes, sequence: number, payload: Bytes): Bytes {
  return sha256(concat(journalTag, chainId, keys.journal(sequence), payload));
}

export interface Journal {
  readonly position: LogPosition;
  /** Lowest sequence still here; position.sequence + 1 where there is none. */
  readonly first: number;
  /** The last thing each key saw in the retained journal, by its bytes as text. */
  readonly latest: ReadonlyMap<string, JournalItem & { readonly sequence: number }>;
}

/**
 * [LOG-3] Reads the retained journal and checks it: no hole, every entry naming the hash of the one before.
 * [LOG-4] Then compares it with the floor. Throws `storage-damaged` or `storage-lost-writes`.
 */
export async function readJournal(
  kv: KeyValueStore,
  chain: { readonly sha256: Sha256; readonly chainId: Bytes },
  floor: LogPosition | null,
): Promise<Journal> {
  const latest = new Map<string, JournalItem & { readonly sequence: number }>();
  let position = noPosition;
  let start = 0;
  let claimedFirst = 0;
  let atFloor: Bytes | undefined;
  for await (const { key, value } of kv.range({ gte: keys.start('journal'), lt: keys.end('journal') })) {
    const sequence = placeOf(key)?.number ?? Number.NaN;
    const payload = unseal(key, value);
    const entry = decodeEntry(key, payload);
    if (start === 0) start = sequence;
    else if (sequence !== position.sequence + 1) throw damaged(keys.journal(position.sequence + 1), 'missing');
    const linked = start !== sequence || sequence === 1 ? equalBytes(entry.previous, position.hash) : true;
    if (!linked) throw damaged(key, 'chain');
    position = { sequence, hash: entryHash(chain.sha256, chain.chainId, sequence, payload) };
    claimedFirst = entry.first;
    if (sequence === floor?.sequence) atFloor = position.hash;
    for (const item of entry.items) latest.set(textOf(item.key), { ...item, sequence });
  }
  checkFloor(floor, position, start, atFloor);
  if (start !== claimedFirst) throw damaged(keys.journal(claimedFirst), 'missing');
  return { position, first: start === 0 ? 1 : start, latest };
}

function checkFloor(floor: LogPosition | null, position: LogPosition, start: number, atFloor: Bytes | undefined): void {
  if (floor === null || floor.sequence === 0) return;
  const advice = 'repair it: this replica may have signed what the log no longer remembers';
  const lost = (found: string | number): StorageError =>
    new StorageError('storage-lost-writes', { expected: floor.sequence, found, advice });
  if (position.sequence < floor.sequence) throw lost(position.sequence);
  if (floor.sequence < start) throw lost(`nothing below ${start}`);
  if (atFloor === undefined || !equalBytes(atFloor, floor.hash)) throw lost('another batch of that number');
}

/** How much is read at once while checking: it bounds the memory of a start. */
const checkKeysMax = 256;
const checkBytesMax = 8 << 20;

/** [LOG-5] What the retained journal wrote last under each key is what stands there. Throws `storage-damaged`. */
export async function checkValues(kv: KeyValueStore, journal: Journal, lowest: number): Promise<void> {
  let group: JournalItem[] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    const values = await kv.getMany(group.map((item) => item.key));
    for (const [i, item] of group.entries()) await checkValue(kv, item, values[i]);
    group = [];
    bytes = 0;
  };
  for (const item of journal.latest.values()) {
    if (isBelow(item.key, lowest)) continue;
    group.push(item);
    bytes += item.length;
    if (group.length >= checkKeysMax || bytes >= checkBytesMax) await flush();
  }
  if (group.length > 0) await flush();
}

/** Deletions below the lowest height are not in the journal, one by one: the bounds record stands for them. */
function isBelow(key: Bytes, lowest: number): boolean {
  const place = placeOf(key);
  if (place === undefined || place.number < 0) return false;
  const byBounds = ['header', 'body', 'decided', 'bundles', 'checkpoint'].includes(place.kind);
  return byBounds && place.number < lowest;
}

async function checkValue(kv: KeyValueStore, item: JournalItem, value: Bytes | undefined): Promise<void> {
  const { key, length, crc } = item;
  if (crc < 0) {
    if (value !== undefined) throw damaged(key, 'undeleted');
    return;
  }
  if (value === undefined) throw damaged(key, 'missing');
  if (value.length !== length) throw damaged(key, 'length');
  if (key[0] === column.body) {
    if (checksum(key, value) !== crc) throw damaged(key, 'checksum');
    return;
  }
  const payload = unseal(key, value);
  if (crcOf(value) !== crc) throw damaged(key, 'stale');
  if (key[0] === column.bundles) await checkIndex(kv, key, payload);
}

/** The index entries of a block have no line of their own in the journal: the list of the block's bundles stands for them. */
async function checkIndex(kv: KeyValueStore, listKey: Bytes, list: Bytes): Promise<void> {
  const height = placeOf(listKey)?.number ?? Number.NaN;
  const entries: Bytes[] = [];
  for (let at = 0; at < list.length; at += 32) entries.push(keys.bundle(list.subarray(at, at + 32)));
  for (const [i, value] of (await kv.getMany(entries)).entries()) {
    if (value === undefined) throw damaged(listKey, 'index missing');
    if (decodeHeight(entries[i]!, value) !== height) throw damaged(listKey, 'index');
  }
}

/** Keys are short (at most 41 bytes), so spreading them into arguments is safe. */
function textOf(key: Bytes): string {
  return String.fromCharCode(...key);
}
