// The Merkle tree of one block's transactions with all of its levels, so that the proofs of hundreds of bundles cost one hash per
// transaction together, and not each. Same tree and same proofs as crypto/merkle.ts (RFC 6962, section 2.1).

import type { Bytes } from '../../crypto/bytes.ts';
import { emptyRoot, nodeHash } from '../../crypto/merkle.ts';
import { assert } from '../../protocol/assert.ts';
import type { Sha256 } from '../../protocol/block.ts';

export class BlockTree {
  readonly #sha256: Sha256;
  /** From the leaves to the root; the last level has one node. */
  readonly #levels: (readonly Bytes[])[];

  constructor(sha256: Sha256, leafHashes: readonly Bytes[]) {
    this.#sha256 = sha256;
    this.#levels = [leafHashes];
    for (let level = leafHashes; level.length > 1; ) {
      const parents: Bytes[] = [];
      for (let i = 0; i + 1 < level.length; i += 2) parents.push(nodeHash(sha256, level[i]!, level[i + 1]!));
      // A last lonely node is lifted as it is.
      if (level.length % 2 === 1) parents.push(level[level.length - 1]!);
      this.#levels.push(parents);
      level = parents;
    }
  }

  get size(): number {
    return this.#levels[0]?.length ?? 0;
  }

  root(): Bytes {
    return this.#levels.at(-1)?.[0] ?? emptyRoot(this.#sha256);
  }

  /** As rangeProof of crypto/merkle.ts: what proves the leaves [start, end). */
  rangeProof(start: number, end: number): Bytes[] {
    assert(Number.isSafeInteger(start) && start >= 0 && start < end && end <= this.size, 'a range inside the tree');
    const left: Bytes[] = [];
    const right: Bytes[] = [];
    let lo = start;
    let hi = end;
    for (const level of this.#levels) {
      if (level.length === 1) break;
      if (lo % 2 === 1) left.push(level[lo - 1]!);
      if (hi % 2 === 1 && hi < level.length) right.push(level[hi]!);
      lo = Math.floor(lo / 2);
      hi = Math.ceil(hi / 2);
    }
    return [...left, ...right];
  }

  /** As inclusionProof of crypto/merkle.ts: the siblings of one leaf, from the leaf up. */
  inclusionProof(index: number): Bytes[] {
    assert(Number.isSafeInteger(index) && index >= 0 && index < this.size, 'a leaf of the tree');
    const proof: Bytes[] = [];
    let at = index;
    for (const level of this.#levels) {
      const sibling = level[at % 2 === 1 ? at - 1 : at + 1];
      if (sibling !== undefined) proof.push(sibling);
      at = Math.floor(at / 2);
    }
    return proof;
  }
}
