// The two hashes a Merkle tree is made of (RFC 6962 section 2.1, RFC 9162 section 2.1.1). Portable.
//
// Leaves and nodes are hashed under different prefixes, so that no inner node passes as a leaf.

import type { Bytes } from './bytes.ts';
import type { Sha256 } from './provider.ts';

export const HASH_BYTES = 32;

// Reused, since a hash function neither calls back nor keeps its input: leaves and nodes are hashed by the million, and a
// fresh array costs about as much as the hash itself.
const leafInput = new Uint8Array(4096);
const nodeInput = new Uint8Array(1 + 2 * HASH_BYTES);
nodeInput[0] = 1;

/** SHA-256(0x00 || data). `data` is any length. */
export function leafHash(sha256: Sha256, data: Bytes): Bytes {
  const length = data.length + 1;
  const input = length <= leafInput.length ? leafInput.subarray(0, length) : new Uint8Array(length);
  input.set(data, 1);
  return sha256(input);
}

/** SHA-256(0x01 || left || right), of two hashes of 32 bytes. */
export function nodeHash(sha256: Sha256, left: Bytes, right: Bytes): Bytes {
  if (left.length !== HASH_BYTES || right.length !== HASH_BYTES)
    throw new RangeError('nodeHash: a child of wrong length');
  nodeInput.set(left, 1);
  nodeInput.set(right, 1 + HASH_BYTES);
  return sha256(nodeInput);
}

/** The root of the empty tree: SHA-256 of nothing. */
export function emptyRoot(sha256: Sha256): Bytes {
  return sha256(new Uint8Array(0));
}
