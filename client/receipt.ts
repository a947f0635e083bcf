// The proof that a transaction stands in the one order. Derived from the proof of its bundle when somebody asks for it, so that a
// receipt costs nothing at high rates.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { assert } from '../protocol/assert.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash, Height, Millis } from '../protocol/types.ts';
import {
  EpochChain,
  type ProvenTransaction,
  type TransactionReceipt,
  transactionReceipt,
  type VerifyRefusal,
  verifyTransactionReceipt,
} from '../protocol/verify.ts';
import type { CommittedBundle } from './committed.ts';

export class Receipt {
  readonly #bundle: CommittedBundle;
  readonly #place: number;

  constructor(bundle: CommittedBundle, place: number) {
    this.#bundle = bundle;
    this.#place = place;
  }

  /** Height of the block. */
  get height(): Height {
    return this.#bundle.block.header.height;
  }
  /** The block's time, by its proposer's clock, within the chain's drift. */
  get time(): Millis {
    return this.#bundle.block.header.time;
  }
  get blockHash(): Hash {
    return this.#bundle.block.hash;
  }
  /** Place in the block, from 0: (height, index) is the transaction's place in the one order. */
  get index(): number {
    return this.#bundle.receipt.firstTransaction + this.#place;
  }
  get transaction(): Bytes {
    // The place was given by the client, within the bundle.
    return this.#bundle.transactions[this.#place]!;
  }

  /**
   * The receipt as a file: whoever has the genesis document checks it offline (`synod verify`, verifyReceiptFile). Costs a few
   * hashes for each transaction of the bundle and a check of the certificate, so it is made only when asked for.
   */
  toJSON(): TransactionReceipt {
    const { receipt, genesis, crypto, epochs, transactions } = this.#bundle;
    const file = transactionReceipt(receipt, { genesis, crypto, epochs }, transactions, this.#place);
    // Everything in it was verified when it came, unless the caller has changed the transaction's bytes since.
    assert(!('refused' in file), 'a receipt was verified before it was handed out');
    return file;
  }

  /** Checks the file once more, as a stranger would. Undefined: not valid, which only changed bytes can cause. */
  verify(): ProvenTransaction | undefined {
    const { genesis, crypto, epochs, receipt, transactions } = this.#bundle;
    const file = transactionReceipt(receipt, { genesis, crypto, epochs }, transactions, this.#place);
    if ('refused' in file) return undefined;
    const proven = verifyTransactionReceipt(JSON.stringify(file), { genesis, crypto, epochs });
    return 'refused' in proven ? undefined : proven;
  }
}

/** What `submitBundle` resolves to: its transactions stand next to each other in one block. */
export class BundleReceipt {
  readonly #bundle: CommittedBundle;

  constructor(bundle: CommittedBundle) {
    this.#bundle = bundle;
  }

  get height(): Height {
    return this.#bundle.block.header.height;
  }
  get time(): Millis {
    return this.#bundle.block.header.time;
  }
  get blockHash(): Hash {
    return this.#bundle.block.hash;
  }
  /** SHA-256 of the signed payload: the bundle's name. */
  get digest(): Hash {
    return this.#bundle.receipt.digest;
  }
  /** Place in the block of its first transaction. */
  get firstIndex(): number {
    return this.#bundle.receipt.firstTransaction;
  }
  get transactionCount(): number {
    return this.#bundle.transactions.length;
  }

  /** The receipt of one of its transactions. Throws a RangeError unless 0 <= place < transactionCount. */
  receipt(place: number): Receipt {
    if (!Number.isInteger(place) || place < 0 || place >= this.transactionCount) throw new RangeError('receipt: place');
    return new Receipt(this.#bundle, place);
  }
}

/** A receipt file's text against the genesis alone: what it proves, or a code (docs/wire.md). Never throws, whatever the text. */
export function verifyReceiptFile(
  text: string,
  { genesis, crypto }: { readonly genesis: Genesis; readonly crypto: Crypto },
): ProvenTransaction | VerifyRefusal {
  return verifyTransactionReceipt(text, { genesis, crypto, epochs: new EpochChain({ genesis, crypto }) });
}
