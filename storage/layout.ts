// How the log lies in the key-value store: one byte of column, then big-endian numbers, so that ranges are ordered by height.
// Every value carries a CRC-32 over its key and its bytes (LOG-2): as its last four bytes, or, for a block's body, which is
// stored as it came, in the header record beside it.

import { type Bytes, concat } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { decodeHeader, HEADER_BYTES } from '../protocol/block.ts';
import { LayoutReader, LayoutWriter } from '../protocol/layout.ts';
import { asHash, asHeight, asView, type Hash, type Height, type View } from '../protocol/types.ts';
import { crc32 } from './checksum.ts';
import { StorageError } from './errors.ts';

/** Written into the meta record; a reader refuses every other one. 2: bodies come first; 3: and by their own hash; 4: or in files (bulk.ts). */
export const FORMAT_VERSION = 4;

export const column = {
  // Below all that is small and written again and again: so a table of new blocks overlaps none of older ones, and no engine writes the chain
  // again for every part of it that is added (docs/adr/0002-storage.md).
  body: 0x00,
  meta: 0x01,
  hardState: 0x02,
  bounds: 0x03,
  accepted: 0x10,
  decided: 0x11,
  checkpoint: 0x12,
  chunk: 0x13,
  header: 0x20,
  bundles: 0x30,
  bundle: 0x31,
  journal: 0x40,
} as const;

export type Column = keyof typeof column;

const columnNames = new Map<number, Column>(
  // Cast: Object.entries forgets that the keys are the literal names.
  Object.entries(column).map(([name, byte]) => [byte, name as Column]),
);

export const keys = {
  meta: Uint8Array.of(column.meta),
  hardState: Uint8Array.of(column.hardState),
  bounds: Uint8Array.of(column.bounds),
  accepted: (height: number): Bytes => numbered(column.accepted, height),
  decided: (height: number): Bytes => numbered(column.decided, height),
  checkpoint: (height: number): Bytes => numbered(column.checkpoint, height),
  bundles: (height: number): Bytes => numbered(column.bundles, height),
  journal: (sequence: number): Bytes => numbered(column.journal, sequence),
  header: (height: number, hash: Bytes): Bytes => concat(numbered(column.header, height), hash),
  /** By the body hash in the header: blocks of one height that have one body share it (LOG-6). */
  body: (height: number, bodyHash: Bytes): Bytes => concat(numbered(column.body, height), bodyHash),
  bundle: (digest: Bytes): Bytes => concat(Uint8Array.of(column.bundle), digest),
  chunk: (chunk: number, height: number): Bytes => new LayoutWriter(13).u8(column.chunk).u32(chunk).u64(height).done(),
  /** Lower end of a height's keys in the header or the body column, whatever the hash. */
  at: (name: 'header' | 'body', height: number): Bytes => numbered(column[name], height),
  /** First key of a column; the first key after it is the start of the next byte. */
  start: (name: Column): Bytes => Uint8Array.of(column[name]),
  end: (name: Column): Bytes => Uint8Array.of(column[name] + 1),
};

/** Column, height, body hash. */
export const BODY_KEY_BYTES = 1 + 8 + 32;

function numbered(prefix: number, number: number): Bytes {
  return new LayoutWriter(9).u8(prefix).u64(number).done();
}

export interface KeyPlace {
  readonly kind: Column;
  /** The height, or the sequence of a journal entry; -1 where the key has none. */
  readonly number: number;
  readonly chunk: number;
  /** What follows the number: a block's hash, a body's, or a bundle's digest. */
  readonly hash: Bytes;
}

/** What a key names; undefined for bytes this version never wrote. */
export function placeOf(key: Bytes): KeyPlace | undefined {
  const kind = key.length === 0 ? undefined : columnNames.get(key[0]!);
  if (kind === undefined) return undefined;
  const none = { kind, number: -1, chunk: -1, hash: key.subarray(key.length) };
  if (kind === 'meta' || kind === 'hardState' || kind === 'bounds') return key.length === 1 ? none : undefined;
  if (kind === 'bundle') return key.length === 33 ? { ...none, hash: key.subarray(1) } : undefined;
  const reader = new LayoutReader(key);
  reader.u8();
  if (kind === 'chunk') return key.length === 13 ? { ...none, chunk: reader.u32(), number: reader.u64() } : undefined;
  const length = kind === 'header' || kind === 'body' ? BODY_KEY_BYTES : 9;
  if (key.length !== length) return undefined;
  return { ...none, number: reader.u64(), hash: key.subarray(9) };
}

export function damaged(key: Bytes, why: string, cause?: unknown): StorageError {
  const place = placeOf(key);
  const kind = place?.kind ?? 'unknown';
  const number =
    place === undefined || place.number < 0 ? {} : { [kind === 'journal' ? 'sequence' : 'height']: place.number };
  return new StorageError('storage-damaged', { kind, ...number, why }, cause);
}

// Values.

/** The checksum of a value: over the key first, so that a value under a wrong key is damage too. */
export function checksum(key: Bytes, ...parts: readonly Bytes[]): number {
  let crc = crc32(key);
  for (const part of parts) crc = crc32(part, crc);
  return crc;
}

export interface Sealed {
  readonly value: Bytes;
  readonly crc: number;
}

/** The parts, then the checksum. One copy. */
export function seal(key: Bytes, ...parts: readonly Bytes[]): Sealed {
  const crc = checksum(key, ...parts);
  const tail = new Uint8Array(4);
  new DataView(tail.buffer).setUint32(0, crc);
  return { value: concat(...parts, tail), crc };
}

/** The checksum a sealed value carries, unchecked. */
export function crcOf(value: Bytes): number {
  return value.length < 4 ? -1 : new DataView(value.buffer, value.byteOffset + value.length - 4, 4).getUint32(0);
}

/** What was sealed; throws `storage-damaged`. A view, not a copy. */
export function unseal(key: Bytes, value: Bytes): Bytes {
  const payload = value.subarray(0, Math.max(0, value.length - 4));
  if (checksum(key, payload) !== crcOf(value)) throw damaged(key, 'checksum');
  return payload;
}

/** A header record: the header's bytes, and how long the body is and what its checksum is. */
export interface HeaderRecord {
  readonly header: Bytes;
  readonly bodyBytes: number;
  readonly bodyCrc: number;
}

/** Of a header that was checked when it was written, or by its hash. */
export function bodyHashIn(header: Bytes): Hash {
  const decoded = decodeHeader(header);
  assert(decoded !== undefined, 'a header that was checked');
  return decoded.bodyHash;
}

export function encodeHeaderRecord({ header, bodyBytes, bodyCrc }: HeaderRecord): Bytes {
  return new LayoutWriter(HEADER_BYTES + 8).bytes(header, HEADER_BYTES).u32(bodyBytes).u32(bodyCrc).done();
}

export function decodeHeaderRecord(key: Bytes, value: Bytes): HeaderRecord {
  const payload = unseal(key, value);
  if (payload.length !== HEADER_BYTES + 8) throw damaged(key, 'length');
  const reader = new LayoutReader(payload);
  return { header: reader.bytes(HEADER_BYTES), bodyBytes: reader.u32(), bodyCrc: reader.u32() };
}

export function encodeAccepted(hash: Hash, view: View): Bytes {
  return new LayoutWriter(40).bytes(hash, 32).u64(view).done();
}

export function decodeAccepted(key: Bytes, value: Bytes): { readonly hash: Hash; readonly view: View } {
  const payload = unseal(key, value);
  if (payload.length !== 40) throw damaged(key, 'length');
  const reader = new LayoutReader(payload);
  return { hash: asHash(reader.bytes(32)), view: asView(reader.u64()) };
}

/** A decided entry: hash, whether a certificate follows, certificate. Parts, so that sealing copies once. */
export function decidedParts(hash: Hash, certificate: Bytes | null): readonly Bytes[] {
  return certificate === null ? [hash, Uint8Array.of(0)] : [hash, Uint8Array.of(1), certificate];
}

export interface DecidedRecord {
  readonly hash: Hash;
  readonly certificate: Bytes | null;
}

export function decodeDecided(key: Bytes, value: Bytes): DecidedRecord {
  const payload = unseal(key, value);
  if (payload.length < 33) throw damaged(key, 'length');
  return { hash: asHash(payload.subarray(0, 32)), certificate: payload[32] === 1 ? payload.subarray(33) : null };
}

export interface CheckpointRecord {
  /** Header bytes of the block at its height; null where that block was not decided here when it was written. */
  readonly header: Bytes | null;
  readonly place: Bytes;
  readonly certificate: Bytes | null;
}

export function encodeCheckpoint({ header, place, certificate }: CheckpointRecord): Bytes {
  const empty = new Uint8Array(0);
  return concat(
    new LayoutWriter(5)
      .u8((header === null ? 0 : 1) + (certificate === null ? 0 : 2))
      .u32(place.length)
      .done(),
    header ?? empty,
    place,
    certificate ?? empty,
  );
}

export function decodeCheckpoint(key: Bytes, value: Bytes): CheckpointRecord {
  const payload = unseal(key, value);
  if (payload.length < 5) throw damaged(key, 'length');
  const reader = new LayoutReader(payload);
  const flags = reader.u8();
  const placeBytes = reader.u32();
  const headerBytes = flags & 1 ? HEADER_BYTES : 0;
  if (payload.length < 5 + headerBytes + placeBytes) throw damaged(key, 'length');
  return {
    header: headerBytes === 0 ? null : reader.bytes(headerBytes),
    place: reader.bytes(placeBytes),
    certificate: flags & 2 ? payload.subarray(5 + headerBytes + placeBytes) : null,
  };
}

/** How far the log reaches down. */
export interface Bounds {
  /** Nothing below this height exists any more for a reader. */
  readonly lowest: number;
  /** Everything below this height is deleted; between it and `lowest` the deletion is still under way. */
  readonly purged: number;
  /** Versions of state chunks below this height are void: a checkpoint from peers replaced them. */
  readonly chunkFloor: number;
}

export function encodeBounds(bounds: Bounds): Bytes {
  return new LayoutWriter(24).u64(bounds.lowest).u64(bounds.purged).u64(bounds.chunkFloor).done();
}

export function decodeBounds(value: Bytes): Bounds {
  const payload = unseal(keys.bounds, value);
  if (payload.length !== 24) throw damaged(keys.bounds, 'length');
  const reader = new LayoutReader(payload);
  return { lowest: reader.u64(), purged: reader.u64(), chunkFloor: reader.u64() };
}

export function encodeHeight(height: number): Bytes {
  return new LayoutWriter(8).u64(height).done();
}

/** The height in an index entry. */
export function decodeHeight(key: Bytes, value: Bytes): Height {
  const payload = unseal(key, value);
  const height = payload.length === 8 ? new LayoutReader(payload).u64() : Number.NaN;
  if (!Number.isSafeInteger(height)) throw damaged(key, 'length');
  return asHeight(height);
}

export function encodeMeta(chainId: Bytes): Bytes {
  return new LayoutWriter(36).u32(FORMAT_VERSION).bytes(chainId, 32).done();
}

/** Throws `storage-damaged`, `storage-format-newer`, `storage-format-older` or `storage-wrong-chain`. */
export function checkMeta(value: Bytes, chainId: Bytes, hex: (bytes: Bytes) => string): void {
  const payload = unseal(keys.meta, value);
  if (payload.length < 4) throw damaged(keys.meta, 'length');
  const reader = new LayoutReader(payload);
  const found = reader.u32();
  if (found > FORMAT_VERSION) throw new StorageError('storage-format-newer', { supported: FORMAT_VERSION, found });
  if (found < FORMAT_VERSION) throw new StorageError('storage-format-older', { supported: FORMAT_VERSION, found });
  if (payload.length !== 36) throw damaged(keys.meta, 'length');
  const chain = hex(reader.bytes(32));
  if (chain !== hex(chainId)) throw new StorageError('storage-wrong-chain', { expected: hex(chainId), found: chain });
}
