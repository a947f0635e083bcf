// One leaf's inclusion proof out of a range proof (RFC 9162 section 2.1.3.1 out of crypto/merkle.ts' rangeProof): the siblings inside
// the range are computed from its leaves, those outside are in the range proof.

import type { Bytes } from '../../crypto/bytes.ts';
import { nodeHash } from '../../crypto/merkle.ts';
import type { Sha256 } from '../../crypto/provider.ts';

export interface RangeLeaf {
  readonly sha256: Sha256;
  /** Leaf hashes of [start, start + leaves.length). */
  readonly leaves: readonly Bytes[];
  readonly start: number;
  readonly size: number;
  /** The range's proof, which verifyRange has accepted for these leaves. */
  readonly proof: readonly Bytes[];
  /** Of the leaf, in the tree. */
  readonly index: number;
}

/** The siblings of the leaf, from the leaf up. Throws on a range that verifyRange has not accepted: that is a bug. */
export function inclusionFromRange({ sha256, leaves, start, size, proof, index }: RangeLeaf): Bytes[] {
  if (index < start || index >= start + leaves.length || start + leaves.length > size)
    throw new RangeError('inclusionFromRange: index');
  // Siblings on the left come first in the proof: one for each odd left edge.
  let nextRight = 0;
  for (let lo = start; lo > 0; lo = half(lo)) nextRight += lo % 2;
  let nextLeft = 0;
  const path: Bytes[] = [];
  let level: readonly Bytes[] = leaves;
  let lo = start;
  let at = index;
  for (let width = size; width > 1; width = half(width + 1)) {
    const hi = lo + level.length;
    const nodes = [...level];
    if (lo % 2 === 1) nodes.unshift(taken(proof[nextLeft++]));
    if (hi % 2 === 1 && hi < width) nodes.push(taken(proof[nextRight++]));
    const first = lo - (lo % 2);
    const sibling = nodes[(at % 2 === 1 ? at - 1 : at + 1) - first];
    // None: the last node of an odd level, lifted as it is.
    if (sibling !== undefined) path.push(sibling);
    level = pairs(sha256, nodes);
    lo = half(lo);
    at = half(at);
  }
  return path;
}

function pairs(sha256: Sha256, nodes: readonly Bytes[]): Bytes[] {
  const out: Bytes[] = [];
  for (let i = 0; i < nodes.length; i += 2) {
    const right = nodes[i + 1];
    out.push(right === undefined ? nodes[i]! : nodeHash(sha256, nodes[i]!, right));
  }
  return out;
}

function taken(hash: Bytes | undefined): Bytes {
  if (hash === undefined) throw new RangeError('inclusionFromRange: proof');
  return hash;
}

// No shifts: a log may grow beyond 32 bits.
const half = (n: number) => Math.floor(n / 2);
