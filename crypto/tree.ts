// The Merkle tree of one block's transactions with all of its levels, so that its root and the proofs of hundreds of bundles cost one hash per
// transaction together, and not each. Same tree and same proofs as merkle.ts (RFC 6962, section 2.1). Portable.

import type { Bytes } from './bytes.ts';
import { emptyRoot, HASH_BYTES } from './merkle-node.ts';
import type { Sha256 } from './provider.ts';

/** What the node above two neighbours hashes: its prefix and both of them. */
const PAIR_BYTES = 1 + 2 * HASH_BYTES;

interface Level {
  readonly size: number;
  /** Pair by pair as they are hashed: nothing is copied for it, and a tree is a few objects and not one a node. */
  readonly pairs: Uint8Array;
}

export class MerkleTree {
  readonly #sha256: Sha256;
  /** From the leaves to the root; the last level has one node. */
  readonly #levels: readonly Level[];

  constructor(sha256: Sha256, leafHashes: readonly Bytes[]) {
    this.#sha256 = sha256;
    let level = emptyLevel(leafHashes.length);
    for (const [i, hash] of leafHashes.entries()) {
      if (hash.length !== HASH_BYTES) throw new RangeError('MerkleTree: not a hash');
      level.pairs.set(hash, placeOf(i));
    }
    const levels = [level];
    while (level.size > 1) {
      level = parents(sha256, level);
      levels.push(level);
    }
    this.#levels = levels;
  }

  get size(): number {
    return this.#levels[0]!.size; // there is always one
  }

  root(): Bytes {
    return this.size === 0 ? emptyRoot(this.#sha256) : nodeOf(this.#levels.at(-1)!, 0);
  }

  /** As rangeProof of merkle.ts: what proves the leaves [start, end). */
  rangeProof(start: number, end: number): Bytes[] {
    if (!Number.isSafeInteger(start) || start < 0 || start >= end || end > this.size)
      throw new RangeError('MerkleTree: a range inside the tree');
    const left: Bytes[] = [];
    const right: Bytes[] = [];
    let lo = start;
    let hi = end;
    for (const level of this.#levels) {
      if (level.size === 1) break;
      if (lo % 2 === 1) left.push(nodeOf(level, lo - 1));
      if (hi % 2 === 1 && hi < level.size) right.push(nodeOf(level, hi));
      lo = Math.floor(lo / 2);
      hi = Math.ceil(hi / 2);
    }
    return [...left, ...right];
  }

  /** As inclusionProof of merkle.ts: the siblings of one leaf, from the leaf up. */
  inclusionProof(index: number): Bytes[] {
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.size)
      throw new RangeError('MerkleTree: a leaf of the tree');
    const proof: Bytes[] = [];
    let at = index;
    for (const level of this.#levels) {
      const sibling = at % 2 === 1 ? at - 1 : at + 1;
      if (sibling < level.size) proof.push(nodeOf(level, sibling));
      at = Math.floor(at / 2);
    }
    return proof;
  }
}

function emptyLevel(size: number): Level {
  const pairs = new Uint8Array(Math.ceil(size / 2) * PAIR_BYTES);
  for (let at = 0; at < pairs.length; at += PAIR_BYTES) pairs[at] = 1;
  return { size, pairs };
}

function placeOf(index: number): number {
  return Math.floor(index / 2) * PAIR_BYTES + 1 + (index % 2) * HASH_BYTES;
}

/** A copy: a proof that is kept keeps no tree. */
function nodeOf({ pairs }: Level, index: number): Bytes {
  const at = placeOf(index);
  return pairs.slice(at, at + HASH_BYTES);
}

function parents(sha256: Sha256, { size, pairs }: Level): Level {
  const above = emptyLevel(Math.ceil(size / 2));
  for (let i = 0; i < Math.floor(size / 2); i++)
    above.pairs.set(sha256(pairs.subarray(i * PAIR_BYTES, (i + 1) * PAIR_BYTES)), placeOf(i));
  // A last lonely node is lifted as it is.
  const at = placeOf(size - 1);
  if (size % 2 === 1) above.pairs.set(pairs.subarray(at, at + HASH_BYTES), placeOf(above.size - 1));
  return above;
}
