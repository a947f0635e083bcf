// Merkle trees of RFC 6962 section 2.1 and RFC 9162 section 2.1, over any SHA-256. Portable.
//
// A tree of n leaves is split at the largest power of two below n; seen level by level from the leaves, this pairs
// neighbours and lifts a last lonely node to the next level as it is. This file works level by level.
//
// Builders are called with our own data: a wrong index is a bug and throws. Verifiers are called with a peer's data:
// they answer false and never throw. What they prove, they prove for the (size, root) given to them, which must
// come together from a signed header or checkpoint: a root alone does not fix the size of its tree.

import { type Bytes, equalBytes } from './bytes.ts';
import { emptyRoot, HASH_BYTES, nodeHash } from './merkle-node.ts';
import type { Sha256 } from './provider.ts';

export { Frontier, type FrontierState } from './frontier.ts';
export { emptyRoot, HASH_BYTES, leafHash, nodeHash } from './merkle-node.ts';

/** MTH of RFC 9162 section 2.1.1, from leaf hashes. One hash per leaf. */
export function merkleRoot(sha256: Sha256, leafHashes: readonly Bytes[]): Bytes {
  let level = leafHashes;
  while (level.length > 1) level = parents(sha256, level);
  return level[0] ?? emptyRoot(sha256);
}

/** PATH of RFC 9162 section 2.1.3.1: the siblings from the leaf up, at most 53. Throws unless 0 <= index < size. */
export function inclusionProof(sha256: Sha256, leafHashes: readonly Bytes[], index: number): Bytes[] {
  if (!Number.isSafeInteger(index) || index < 0 || index >= leafHashes.length)
    throw new RangeError('inclusionProof: index');
  const proof: Bytes[] = [];
  let at = index;
  for (let level = leafHashes; level.length > 1; level = parents(sha256, level)) {
    const sibling = level[isOdd(at) ? at - 1 : at + 1];
    if (sibling !== undefined) proof.push(sibling);
    at = half(at);
  }
  return proof;
}

export interface InclusionClaim {
  readonly sha256: Sha256;
  /** The leaf's hash, 32 bytes: leafHash of its data. */
  readonly leaf: Bytes;
  readonly index: number;
  /** Leaves of the tree, up to 2^53 - 1. */
  readonly size: number;
  readonly proof: readonly Bytes[];
  readonly root: Bytes;
}

/** RFC 9162 section 2.1.3.2. */
export function verifyInclusion({ sha256, leaf, index, size, proof, root }: InclusionClaim): boolean {
  if (!isCount(index) || !isCount(size) || index >= size) return false;
  if (!isHash(leaf) || !isHash(root) || !isHashList(proof)) return false;
  let hash = leaf;
  let at = index;
  let last = size - 1;
  let used = 0;
  for (; last > 0; at = half(at), last = half(last)) {
    if (at === last && !isOdd(at)) continue; // lifted, no sibling
    const sibling = proof[used++];
    if (sibling === undefined) return false;
    hash = isOdd(at) ? nodeHash(sha256, sibling, hash) : nodeHash(sha256, hash, sibling);
  }
  return used === proof.length && equalBytes(hash, root);
}

/**
 * Proof that the leaves [start, end) are those of the tree: at most 2 log2(size) hashes.
 *
 * Order, for other implementations: keep the half-open interval [lo, hi) of nodes, first [start, end), and the number n
 * of nodes of the level, first the tree's size. While n > 1: if lo is odd, node lo - 1 is appended to `left`; if hi is
 * odd and hi < n, node hi is appended to `right`; then lo = floor(lo / 2), hi = ceil(hi / 2), n = ceil(n / 2). The proof
 * is `left` followed by `right`, each from the leaves up. Throws unless 0 <= start < end <= size.
 */
export function rangeProof(sha256: Sha256, leafHashes: readonly Bytes[], start: number, end: number): Bytes[] {
  if (!isCount(start) || !isCount(end) || start >= end || end > leafHashes.length)
    throw new RangeError('rangeProof: range');
  const left: Bytes[] = [];
  const right: Bytes[] = [];
  let lo = start;
  let hi = end;
  for (let level = leafHashes; level.length > 1; level = parents(sha256, level)) {
    if (isOdd(lo)) left.push(level[lo - 1]!);
    if (isOdd(hi) && hi < level.length) right.push(level[hi]!);
    lo = half(lo);
    hi = half(hi + 1);
  }
  return [...left, ...right];
}

export interface RangeClaim {
  readonly sha256: Sha256;
  /** Leaf hashes of [start, start + leaves.length), at least one. */
  readonly leaves: readonly Bytes[];
  readonly start: number;
  /** Leaves of the tree, up to 2^53 - 1. */
  readonly size: number;
  readonly proof: readonly Bytes[];
  readonly root: Bytes;
}

/** The verifier of rangeProof. Costs one hash per leaf and per proof hash. */
export function verifyRange({ sha256, leaves, start, size, proof, root }: RangeClaim): boolean {
  if (!isCount(start) || !isCount(size) || !isHash(root) || !isHashList(proof)) return false;
  if (!Array.isArray(leaves) || leaves.length === 0 || !leaves.every(isHash)) return false;
  if (start >= size || leaves.length > size - start) return false;
  let nextLeft = 0;
  // Right siblings follow the left ones, of which there is one per bit set in `start`: lo passes through all its bits.
  let nextRight = 0;
  for (let rest = start; rest > 0; rest = half(rest)) nextRight += rest % 2;
  let level: readonly Bytes[] = leaves;
  let lo = start;
  for (let width = size; width > 1; width = halfUp(width)) {
    const nodes = [...level];
    const hi = lo + level.length;
    if (isOdd(lo)) {
      const sibling = proof[nextLeft++];
      if (sibling === undefined) return false;
      nodes.unshift(sibling);
    }
    if (isOdd(hi) && hi < width) {
      const sibling = proof[nextRight++];
      if (sibling === undefined) return false;
      nodes.push(sibling);
    }
    // Now the interval begins at an even node, so its own pairs are the tree's pairs.
    level = parents(sha256, nodes);
    lo = half(lo);
  }
  return nextRight === proof.length && equalBytes(level[0]!, root);
}

/** PROOF of RFC 9162 section 2.1.4.1, from the first oldSize leaves to all. Empty if oldSize is 0 or the size. */
export function consistencyProof(sha256: Sha256, leafHashes: readonly Bytes[], oldSize: number): Bytes[] {
  if (!isCount(oldSize) || oldSize > leafHashes.length) throw new RangeError('consistencyProof: oldSize');
  if (oldSize === 0 || oldSize === leafHashes.length) return [];
  const proof: Bytes[] = [];
  // The old tree's last node, raised to the largest complete subtree that it closes.
  let at = oldSize - 1;
  let level = leafHashes;
  while (isOdd(at)) {
    at = half(at);
    level = parents(sha256, level);
  }
  // The verifier has that subtree already if it is the whole old tree.
  if (at > 0) proof.push(level[at]!);
  for (; level.length > 1; level = parents(sha256, level)) {
    const sibling = level[isOdd(at) ? at - 1 : at + 1];
    if (sibling !== undefined) proof.push(sibling);
    at = half(at);
  }
  return proof;
}

export interface ConsistencyClaim {
  readonly sha256: Sha256;
  readonly oldSize: number;
  readonly oldRoot: Bytes;
  readonly newSize: number;
  readonly newRoot: Bytes;
  readonly proof: readonly Bytes[];
}

/** RFC 9162 section 2.1.4.2; besides, an empty tree is consistent with any, by the empty proof. */
export function verifyConsistency(claim: ConsistencyClaim): boolean {
  const { sha256, oldSize, oldRoot, newSize, newRoot, proof } = claim;
  if (!isCount(oldSize) || !isCount(newSize) || oldSize > newSize) return false;
  if (!isHash(oldRoot) || !isHash(newRoot) || !isHashList(proof)) return false;
  if (newSize === 0 && !equalBytes(newRoot, emptyRoot(sha256))) return false;
  if (oldSize === 0) return proof.length === 0 && equalBytes(oldRoot, emptyRoot(sha256));
  if (oldSize === newSize) return proof.length === 0 && equalBytes(oldRoot, newRoot);
  let at = oldSize - 1;
  let last = newSize - 1;
  while (isOdd(at)) {
    at = half(at);
    last = half(last);
  }
  let used = 0;
  const seed = at > 0 ? proof[used++] : oldRoot;
  if (seed === undefined) return false;
  let oldHash = seed;
  let newHash = seed;
  for (; last > 0; at = half(at), last = half(last)) {
    if (at === last && !isOdd(at)) continue; // lifted in both trees
    const sibling = proof[used++];
    if (sibling === undefined) return false;
    if (isOdd(at)) {
      oldHash = nodeHash(sha256, sibling, oldHash);
      newHash = nodeHash(sha256, sibling, newHash);
    } else {
      // To the right of the old tree: part of the new one only.
      newHash = nodeHash(sha256, newHash, sibling);
    }
  }
  return used === proof.length && equalBytes(oldHash, oldRoot) && equalBytes(newHash, newRoot);
}

function parents(sha256: Sha256, level: readonly Bytes[]): Bytes[] {
  const out: Bytes[] = [];
  for (let i = 0; i + 1 < level.length; i += 2) {
    const [left, right] = [level[i]!, level[i + 1]!];
    // The state of a ledger is mostly empty chunks: what is the same as its neighbour has the same parent.
    const isSame = i > 1 && equalBytes(left, level[i - 2]!) && equalBytes(right, level[i - 1]!);
    out.push(isSame ? out[out.length - 1]! : nodeHash(sha256, left, right));
  }
  if (isOdd(level.length)) out.push(level[level.length - 1]!);
  return out;
}

// No shifts and masks: they cut numbers to 32 bits, and a log may grow beyond.
const isOdd = (n: number) => n % 2 === 1;
const half = (n: number) => Math.floor(n / 2);
const halfUp = (n: number) => half(n) + (n % 2);

const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && Number(n) >= 0;
const isHash = (hash: unknown): hash is Bytes => hash instanceof Uint8Array && hash.length === HASH_BYTES;

/** No proof has more: two siblings for each of the 53 levels of the largest tree. */
const proofHashesMax = 2 * 53;
const isHashList = (list: unknown): list is readonly Bytes[] =>
  Array.isArray(list) && list.length <= proofHashesMax && list.every(isHash);
