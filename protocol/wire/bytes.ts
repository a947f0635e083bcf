// Views and copies. A Buffer's own slice() is a view, so it is never called here.

import type { Bytes } from '../../crypto/bytes.ts';

/** A plain view of the same memory: what is decoded holds no Buffers, whoever received the bytes. */
export function plain(bytes: Bytes): Bytes {
  if (bytes.constructor === Uint8Array) return bytes;
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function isSameMemory(a: Bytes, b: Bytes): boolean {
  return a.buffer === b.buffer && a.byteOffset === b.byteOffset && a.length === b.length;
}

/** [WIRE-5] A copy: what is kept after its frame owns its memory, or a hash of 32 bytes would pin a frame of a megabyte. */
export function own(bytes: Bytes): Bytes {
  return new Uint8Array(bytes);
}
