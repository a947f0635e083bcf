// One batch in the making: what goes to the key-value store, and what the journal will say of it.

import { type Bytes, concat } from '../crypto/bytes.ts';
import type { JournalItem } from './journal.ts';
import type { KvOp } from './kv.ts';
import { checksum, column, encodeHeaderRecord, encodeHeight, type HeaderRecord, keys, seal } from './layout.ts';

export class Batch {
  readonly ops: KvOp[] = [];
  readonly items: JournalItem[] = [];

  /** A value with its checksum behind it. */
  put(key: Bytes, ...parts: readonly Bytes[]): void {
    const { value, crc } = seal(key, ...parts);
    this.ops.push({ type: 'put', key, value });
    this.items.push({ key, length: value.length, crc });
  }

  /** A body as it came, uncopied and hashed once. Gives back its checksum, which the header records of its blocks carry. */
  putBody(height: number, bodyHash: Bytes, body: Bytes): number {
    const key = keys.body(height, bodyHash);
    const crc = checksum(key, body);
    this.ops.push({ type: 'put', key, value: body });
    this.items.push({ key, length: body.length, crc });
    return crc;
  }

  putHeader(height: number, hash: Bytes, record: HeaderRecord): void {
    this.put(keys.header(height, hash), encodeHeaderRecord(record));
  }

  /**
   * The list of a block's bundles, and an index entry for each: key (33 bytes), height, checksum, side by side in one buffer for
   * all, so that an entry costs one call of the checksum and no allocation. In the journal the list stands for its entries.
   */
  putBundles(height: number, digests: readonly Bytes[]): void {
    if (digests.length === 0) return;
    this.put(keys.bundles(height), concat(...digests));
    const heightBytes = encodeHeight(height);
    const row = 33 + 8 + 4;
    const slab = new Uint8Array(digests.length * row);
    const view = new DataView(slab.buffer);
    for (const [i, digest] of digests.entries()) {
      const at = i * row;
      slab[at] = column.bundle;
      slab.set(digest, at + 1);
      slab.set(heightBytes, at + 33);
      view.setUint32(at + 41, checksum(slab.subarray(at, at + 41)));
      this.ops.push({ type: 'put', key: slab.subarray(at, at + 33), value: slab.subarray(at + 33, at + row) });
    }
  }

  del(key: Bytes): void {
    this.ops.push({ type: 'del', key });
    this.items.push({ key, length: 0, crc: -1 });
  }

  /** A deletion that something else in the journal stands for: the bounds record, or the journal's own front. */
  delUnlisted(key: Bytes): void {
    this.ops.push({ type: 'del', key });
  }
}
