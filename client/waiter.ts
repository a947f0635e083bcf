// Who waits for a transaction, or for a whole bundle, and what they are given in the end.

import type { CommittedBundle } from './committed.ts';
import type { ClientError } from './errors.ts';
import { BundleReceipt, Receipt } from './receipt.ts';

/** Who wants to know what became of a transaction, or of a whole bundle. Exactly one of `committed` and `failed` is called, once. */
export interface Waiter {
  /** Called at most once, before `committed`; null where nobody asked. */
  accepted: ((replica: string) => void) | null;
  /** `place`: of the waiter among those of its bundle, which is the transaction's unless the waiter waits for all of them. */
  committed(bundle: CommittedBundle, place: number): void;
  failed(error: ClientError): void;
}

/** What the caller gets to see of a committed bundle. */
export type Shape<R> = (bundle: CommittedBundle, place: number) => R;
export const receiptOf: Shape<Receipt> = (bundle, place) => new Receipt(bundle, place);
export const bundleReceiptOf: Shape<BundleReceipt> = (bundle) => new BundleReceipt(bundle);

/** A class and not closures: there is one for each transaction in flight, and their number is what the garbage collector sees. */
export class CommittedWaiter<R> implements Waiter {
  accepted: ((replica: string) => void) | null = null;
  readonly #view: Shape<R>;
  readonly #resolve: (receipt: R) => void;
  readonly #reject: (error: ClientError) => void;

  constructor(view: Shape<R>, resolve: (receipt: R) => void, reject: (error: ClientError) => void) {
    this.#view = view;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  committed(bundle: CommittedBundle, place: number): void {
    this.#resolve(this.#view(bundle, place));
  }

  failed(error: ClientError): void {
    this.#reject(error);
  }
}
