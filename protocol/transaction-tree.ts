// What a header says of its body, and the tree under its transaction root. Whoever proposes a block makes the tree for the root, and the block's
// receipts soon after.

import { MerkleTree } from '../crypto/tree.ts';
import type { BodyMarks, Sha256 } from './block.ts';
import { bodyHash } from './block.ts';
import type { SignedBundle } from './bundle.ts';
import { asHash } from './types.ts';

/** As long as the list of bundles lives: a value, the block that comes of all of it, and its receipts share one list. */
const trees = new WeakMap<readonly SignedBundle[], MerkleTree>();

/** The tree of these bundles' transactions, in order; made once for one list. */
export function transactionTree(sha256: Sha256, bundles: readonly SignedBundle[]): MerkleTree {
  let tree = trees.get(bundles);
  if (tree === undefined) {
    tree = new MerkleTree(
      sha256,
      bundles.flatMap((bundle) => bundle.leaves),
    );
    trees.set(bundles, tree);
  }
  return tree;
}

export function bodyMarks(sha256: Sha256, bundles: readonly SignedBundle[]): BodyMarks {
  const tree = transactionTree(sha256, bundles);
  return {
    transactionRoot: asHash(tree.root()),
    bodyHash: bodyHash(sha256, bundles),
    bundleCount: bundles.length,
    transactionCount: tree.size,
    payloadBytes: bundles.reduce((sum, bundle) => sum + bundle.payload.length, 0),
  };
}
