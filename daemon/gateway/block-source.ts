// Decided blocks as the doors need them: the bytes to stream, and receipts for any of their bundles. From the replica as they
// are decided, or from the log.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import type { MerkleTree } from '../../crypto/tree.ts';
import type { Block, Sha256 } from '../../protocol/block.ts';
import type { SignedBundle } from '../../protocol/bundle.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import type { BundleReceipt } from '../../protocol/door.ts';
import { transactionTree } from '../../protocol/transaction-tree.ts';
import type { Hash } from '../../protocol/types.ts';

/** A block with what makes a stranger believe it: the headers up to one that has a certificate, and that certificate. */
export interface CertifiedChain {
  readonly block: Block;
  readonly links: readonly Bytes[];
  readonly certificate: Certificate;
}

/** A bundle in a decided block. */
export interface Delivered {
  readonly receipt: BundleReceipt;
  readonly bundle: SignedBundle;
  /** Of its block. */
  readonly maker: ReceiptMaker;
}

/** Makes the receipts of one block; the tree is built once, with the first of them or with the block. */
export class ReceiptMaker {
  readonly chain: CertifiedChain;
  readonly #sha256: Sha256;
  /** Index of the first transaction of each bundle. */
  readonly #starts: number[] = [];

  constructor(sha256: Sha256, chain: CertifiedChain) {
    this.#sha256 = sha256;
    this.chain = chain;
    let start = 0;
    for (const bundle of chain.block.bundles) {
      this.#starts.push(start);
      start += bundle.transactions.length;
    }
  }

  /** @param index of a bundle of the block */
  deliver(index: number): Delivered | null {
    const { block, links, certificate } = this.chain;
    const bundle = block.bundles[index];
    const firstTransaction = this.#starts[index];
    if (bundle === undefined || firstTransaction === undefined) return null;
    const transactionCount = bundle.transactions.length;
    const proof = this.#treeOfBlock().rangeProof(firstTransaction, firstTransaction + transactionCount);
    const { headerBytes } = block;
    const receipt = {
      digest: bundle.digest,
      headerBytes,
      links,
      certificate,
      firstTransaction,
      transactionCount,
      proof,
    };
    return { receipt, bundle, maker: this };
  }

  find(digest: Hash): Delivered | null {
    return this.deliver(this.chain.block.bundles.findIndex((bundle) => equalBytes(bundle.digest, digest)));
  }

  /** What proves one transaction of the block under the header's transaction root, from the leaf up. */
  inclusionProof(transactionIndex: number): Bytes[] {
    return this.#treeOfBlock().inclusionProof(transactionIndex);
  }

  #treeOfBlock(): MerkleTree {
    return transactionTree(this.#sha256, this.chain.block.bundles);
  }
}
