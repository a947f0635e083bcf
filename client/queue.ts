// Transactions that wait to be signed: gathered into bundles, in order, within bounds.
//
// Like Nagle's algorithm: what comes while nothing is in flight leaves at the end of the turn; what comes while bundles are in flight
// waits until its bundle is full or a short delay has passed. One timer for the open bundle, none for a transaction.

import type { Bytes } from '../crypto/bytes.ts';
import type { Parameters } from '../protocol/genesis.ts';
import { isControl } from '../protocol/verify.ts';
import { ClientError } from './errors.ts';
import type { Settings } from './options.ts';
import type { Waiter } from './waiter.ts';

/** The transactions of one bundle to be. Waiters stand in the order of their transactions. */
export interface Batch {
  readonly transactions: Bytes[];
  readonly waiters: Waiter[];
  /** Bytes of the payload, never less than the encoding takes. */
  bytes: number;
}

/** What the payload holds besides the transactions, and what each of them adds, at most (protocol/wire/bundle.ts). */
const bundleOverheadBytes = 96;
const transactionOverheadBytes = 5;

export class SubmitQueue {
  /** Of the present epoch. */
  #parameters: Parameters;
  readonly #settings: Settings;
  /** Called when `take` may have something to give. */
  readonly #ready: () => void;
  #closed: Batch[] = [];
  /** Of `#closed`: the first that was not taken. */
  #first = 0;
  #open: Batch | null = null;
  /** The open bundle has waited long enough. */
  #ripe = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #transactions = 0;
  #bytes = 0;
  #drained: { readonly promise: Promise<void>; readonly resolve: () => void } | null = null;

  constructor(parameters: Parameters, settings: Settings, ready: () => void) {
    this.#parameters = parameters;
    this.#settings = settings;
    this.#ready = ready;
  }

  /** Another epoch has begun. What is in a bundle already is the replicas' to judge. */
  enter(parameters: Parameters): void {
    this.#parameters = parameters;
  }

  /** Transactions that wait. */
  get size(): number {
    return this.#transactions;
  }

  /** A transaction of ordinary size finds room now. */
  get writable(): boolean {
    const { queueTransactionsMax, queueBytesMax } = this.#settings;
    return this.#transactions < queueTransactionsMax && this.#bytes < queueBytesMax;
  }

  /** Resolves when the queue is at most half full; at once if it is. */
  drained(): Promise<void> {
    if (this.#halfEmpty()) return Promise.resolve();
    if (this.#drained === null) {
      let resolve = () => {};
      const promise = new Promise<void>((done) => {
        resolve = done;
      });
      this.#drained = { promise, resolve };
    }
    return this.#drained.promise;
  }

  /** Throws ClientError: transaction-empty, transaction-too-large, client-queue-full. */
  push(transaction: Bytes, waiter: Waiter): void {
    this.#check(transaction);
    // [EPO-8] It stands alone, or what shares its bundle is refused with it.
    if (isControl(transaction)) return this.pushBundle([transaction], waiter);
    this.#room(1, transaction.length);
    const added = transaction.length + transactionOverheadBytes;
    if (this.#open !== null && this.#open.bytes + added > this.#parameters.bundleBytesMax) this.#close();
    this.#open ??= this.#begin();
    const open = this.#open;
    open.transactions.push(transaction);
    open.waiters.push(waiter);
    open.bytes += added;
    this.#count(1, transaction.length);
    const { bundleTransactionsMax } = this.#settings;
    if (open.transactions.length >= Math.min(bundleTransactionsMax, this.#parameters.bundleTransactionsMax))
      this.#close();
  }

  /** A bundle of its own, after all that was pushed. Throws ClientError: as push, bundle-empty, bundle-too-large. */
  pushBundle(transactions: readonly Bytes[], waiter: Waiter): void {
    if (transactions.length === 0) throw new ClientError('bundle-empty');
    let bytes = bundleOverheadBytes;
    for (const transaction of transactions) {
      this.#check(transaction);
      bytes += transaction.length + transactionOverheadBytes;
    }
    const { bundleBytesMax, bundleTransactionsMax } = this.#parameters;
    if (bytes > bundleBytesMax || transactions.length > bundleTransactionsMax)
      throw new ClientError('bundle-too-large', { transactions: transactions.length, bytes, bundleBytesMax });
    this.#room(transactions.length, bytes);
    if (this.#open !== null) this.#close();
    this.#closed.push({ transactions: [...transactions], waiters: [waiter], bytes });
    this.#count(transactions.length, sumOf(transactions));
    this.#ready();
  }

  /** The next bundle to sign, or undefined. `idle`: nothing is in flight, so nothing is worth waiting for. */
  take(idle: boolean): Batch | undefined {
    let batch = this.#closed[this.#first];
    if (batch !== undefined) {
      this.#first += 1;
      // Shifting a long array one by one would move it every time.
      if (this.#first >= 1024 || this.#first === this.#closed.length) {
        this.#closed = this.#closed.slice(this.#first);
        this.#first = 0;
      }
    } else if (this.#open !== null && (idle || this.#ripe)) {
      batch = this.#open;
      this.#reset();
    } else return undefined;
    this.#count(-batch.transactions.length, -sumOf(batch.transactions));
    if (this.#drained !== null && this.#halfEmpty()) {
      this.#drained.resolve();
      this.#drained = null;
    }
    return batch;
  }

  /** Empties the queue and says no to everyone in it. */
  fail(error: ClientError): void {
    for (let batch = this.take(true); batch !== undefined; batch = this.take(true)) {
      for (const waiter of batch.waiters) waiter.failed(error);
    }
  }

  #check(transaction: Bytes): void {
    const { transactionBytesMax } = this.#parameters;
    if (transaction.length === 0) throw new ClientError('transaction-empty');
    if (transaction.length > transactionBytesMax)
      throw new ClientError('transaction-too-large', { bytes: transaction.length, transactionBytesMax });
  }

  #room(transactions: number, bytes: number): void {
    const { queueTransactionsMax, queueBytesMax } = this.#settings;
    // An empty queue takes anything that fits into a bundle, or a small maximum would refuse it for ever.
    if (this.#transactions === 0) return;
    if (this.#transactions + transactions > queueTransactionsMax || this.#bytes + bytes > queueBytesMax)
      throw new ClientError('client-queue-full', { queueTransactionsMax, queueBytesMax });
  }

  #count(transactions: number, bytes: number): void {
    this.#transactions += transactions;
    this.#bytes += bytes;
  }

  #halfEmpty(): boolean {
    const { queueTransactionsMax, queueBytesMax } = this.#settings;
    return this.#transactions <= queueTransactionsMax / 2 && this.#bytes <= queueBytesMax / 2;
  }

  #begin(): Batch {
    const { bundleDelayMs } = this.#settings;
    if (bundleDelayMs === 0) this.#ripe = true;
    else
      this.#timer = setTimeout(() => {
        this.#ripe = true;
        this.#ready();
      }, bundleDelayMs);
    // At the end of the turn it leaves if nothing is in flight.
    this.#ready();
    return { transactions: [], waiters: [], bytes: bundleOverheadBytes };
  }

  #close(): void {
    if (this.#open === null) return;
    this.#closed.push(this.#open);
    this.#reset();
    this.#ready();
  }

  #reset(): void {
    this.#open = null;
    this.#ripe = false;
    clearTimeout(this.#timer);
  }
}

function sumOf(transactions: readonly Bytes[]): number {
  let bytes = 0;
  for (const transaction of transactions) bytes += transaction.length;
  return bytes;
}
