// The compact form of an append-only Merkle tree (RFC 9162 section 2.1): the roots of its complete subtrees, one per bit
// set in its size, largest first. All a replica must keep to extend the log and to name its root. Portable.

import type { Bytes } from './bytes.ts';
import { emptyRoot, HASH_BYTES, nodeHash } from './merkle-node.ts';
import type { Sha256 } from './provider.ts';

export interface FrontierState {
  /** Leaves, 0 to 2^53 - 1. */
  readonly size: number;
  /** Roots of the complete subtrees, largest (leftmost) first: as many as size has bits set, 53 at most. */
  readonly hashes: readonly Bytes[];
}

export class Frontier {
  readonly #sha256: Sha256;
  #size: number;
  readonly #hashes: Bytes[];

  private constructor(sha256: Sha256, size: number, hashes: Bytes[]) {
    this.#sha256 = sha256;
    this.#size = size;
    this.#hashes = hashes;
  }

  static empty(sha256: Sha256): Frontier {
    return new Frontier(sha256, 0, []);
  }

  /** From what state() gave, or from a peer: undefined unless well formed. Only its root() can tell if it is true. */
  static restore(sha256: Sha256, { size, hashes }: FrontierState): Frontier | undefined {
    if (!Number.isSafeInteger(size) || size < 0 || !Array.isArray(hashes)) return undefined;
    if (hashes.length !== bitsSet(size)) return undefined;
    if (!hashes.every((hash) => hash instanceof Uint8Array && hash.length === HASH_BYTES)) return undefined;
    // Copies: a view into a received frame would keep all of it in memory.
    return new Frontier(
      sha256,
      size,
      hashes.map((hash) => Uint8Array.from(hash)),
    );
  }

  /** Leaves so far; grows by one per append. */
  get size(): number {
    return this.#size;
  }

  /** Adds a leaf by its leafHash, which is kept and must not change: about one hash on average, 53 at most. */
  append(leafHash: Bytes): void {
    if (leafHash.length !== HASH_BYTES) throw new RangeError('Frontier.append: not a hash');
    if (this.#size >= Number.MAX_SAFE_INTEGER) throw new RangeError('Frontier.append: full');
    let hash = leafHash;
    // A complete subtree of the same size stands to the left for each low bit set: binary addition with carry.
    for (let rest = this.#size; rest % 2 === 1; rest = (rest - 1) / 2)
      hash = nodeHash(this.#sha256, this.#hashes.pop()!, hash);
    this.#hashes.push(hash);
    this.#size += 1;
    if (this.#hashes.length > 53) throw new Error('Frontier: more subtrees than bits');
  }

  /** The root of the tree so far, that of merkleRoot over all leaves: 52 hashes at most. */
  root(): Bytes {
    let root = this.#hashes.at(-1);
    if (root === undefined) return emptyRoot(this.#sha256);
    for (let i = this.#hashes.length - 2; i >= 0; i--) root = nodeHash(this.#sha256, this.#hashes[i]!, root);
    return root;
  }

  /** Unaffected by later appends. */
  state(): FrontierState {
    return { size: this.#size, hashes: [...this.#hashes] };
  }

  /** An independent copy: append to it to try a block without committing to it. */
  clone(): Frontier {
    return new Frontier(this.#sha256, this.#size, [...this.#hashes]);
  }
}

function bitsSet(n: number): number {
  let count = 0;
  for (let rest = n; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2;
  return count;
}
