// From what a replica sends about a bundle to what is believed of it. The certificate of a block is checked once, however many
// bundles of this client stand in the block.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { BoundedCache } from '../crypto/cache.ts';
import { leafHash, verifyRange } from '../crypto/merkle.ts';
import type { Crypto } from '../crypto/provider.ts';
import { type BlockHeader, blockHash } from '../protocol/block.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type { BundleReceipt } from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash } from '../protocol/types.ts';
import { type EpochChain, type VerifyCode, verifyDecided } from '../protocol/verify.ts';
import type { ChainView } from './chain-view.ts';
import { keyOf } from './in-flight.ts';

/** A decided block, by a commit certificate for it or for a descendant. */
export interface CertifiedHeader {
  readonly header: BlockHeader;
  readonly headerBytes: Bytes;
  readonly hash: Hash;
  /** Headers above it, up to the one that the certificate is for. */
  readonly links: readonly Bytes[];
  readonly certificate: Certificate;
}

/** A bundle that stands in a decided block, with its proof. Its receipts share it. */
export interface CommittedBundle {
  readonly genesis: Genesis;
  readonly crypto: Crypto;
  readonly epochs?: EpochChain | undefined;
  readonly block: CertifiedHeader;
  readonly receipt: BundleReceipt;
  readonly transactions: readonly Bytes[];
}

export interface BundleClaim {
  readonly receipt: BundleReceipt;
  /** Of the bundle that the client sent. */
  readonly digest: Hash;
  /** As the caller gave them. */
  readonly transactions: readonly Bytes[];
  /** As they were signed: asked for only where the caller's do not fit the proof, since its bytes may have changed. */
  readonly signed: () => readonly Bytes[];
}

/** Why a receipt is not believed; an honest replica sends none like it. */
export type ReceiptRefusal = VerifyCode | 'receipt-other-bundle' | 'receipt-proof';

/** Decided blocks kept: about 2 KiB each. */
const blocksMax = 512;

export class BlockTrust {
  readonly #genesis: Genesis;
  readonly #crypto: Crypto;
  readonly #chain: ChainView;
  readonly #epochs: EpochChain | undefined;
  readonly #blocks = new BoundedCache<CertifiedHeader>(blocksMax);
  #last: CertifiedHeader | null = null;

  constructor(genesis: Genesis, crypto: Crypto, chain: ChainView, epochs?: EpochChain) {
    this.#epochs = epochs;
    this.#genesis = genesis;
    this.#crypto = crypto;
    this.#chain = chain;
  }

  /** The bundle with its proof, all of it verified, or why not. */
  committed({
    receipt,
    digest,
    transactions,
    signed,
  }: BundleClaim): CommittedBundle | { readonly refused: ReceiptRefusal } {
    if (!equalBytes(receipt.digest, digest) || receipt.transactionCount !== transactions.length)
      return { refused: 'receipt-other-bundle' };
    const block = this.#block(receipt);
    if ('refused' in block) return block;
    const common = { genesis: this.#genesis, crypto: this.#crypto, epochs: this.#epochs, block, receipt };
    if (this.#proves(receipt, block, transactions)) return { ...common, transactions };
    const original = signed();
    return this.#proves(receipt, block, original)
      ? { ...common, transactions: original }
      : { refused: 'receipt-proof' };
  }

  #proves(
    { firstTransaction, proof }: BundleReceipt,
    { header }: CertifiedHeader,
    transactions: readonly Bytes[],
  ): boolean {
    const { sha256 } = this.#crypto;
    const leaves = transactions.map((transaction) => leafHash(sha256, transaction));
    const { transactionCount: size, transactionRoot: root } = header;
    return verifyRange({ sha256, leaves, start: firstTransaction, size, proof, root });
  }

  #block({ headerBytes, links, certificate }: BundleReceipt): CertifiedHeader | { readonly refused: ReceiptRefusal } {
    // Bundles of one block come one after the other.
    if (this.#last !== null && equalBytes(this.#last.headerBytes, headerBytes)) return this.#last;
    const { sha256 } = this.#crypto;
    const hash = blockHash(sha256, headerBytes);
    const key = keyOf(hash);
    const known = this.#blocks.get(key);
    if (known !== undefined) {
      this.#last = known;
      return known;
    }
    const decided = verifyDecided(
      { headerBytes, links, certificate },
      { genesis: this.#genesis, crypto: this.#crypto, epochs: this.#epochs },
    );
    if ('refused' in decided) return { refused: decided.refused };
    const { header } = decided;
    this.#chain.certified(certificate);
    const block: CertifiedHeader = { header, headerBytes, hash, links, certificate };
    this.#blocks.set(key, block);
    this.#last = block;
    return block;
  }
}
