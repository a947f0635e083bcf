// What one connection is to be told about its bundles: collected over a turn of the event loop, then sealed into as few frames as
// the wire allows, because each costs a signature.

import type { Bytes } from '../../crypto/bytes.ts';
import { HEADER_BYTES } from '../../protocol/block.ts';
import { ADMISSIONS_MAX, certificateBytesMax, RECEIPTS_MAX } from '../../protocol/codec.ts';
import type { BundleAdmission, BundleReceipt, QueryAnswer } from '../../protocol/door.ts';
import type { FrameSealer } from './seal-frames.ts';

/** Half a frame: the sizes below are upper bounds, and no reader should wait for a megabyte to see its first receipt. */
const receiptsBytesMax = 512 << 10;

export class Outbox {
  readonly #sealer: FrameSealer;
  readonly #send: (frame: Bytes) => void;
  #admissions: BundleAdmission[] = [];
  #receipts: BundleReceipt[] = [];
  #scheduled: NodeJS.Immediate | null = null;

  constructor(options: { readonly sealer: FrameSealer; readonly send: (frame: Bytes) => void }) {
    this.#sealer = options.sealer;
    this.#send = options.send;
  }

  admission(admission: BundleAdmission): void {
    this.#admissions.push(admission);
    this.#schedule();
  }

  receipts(receipts: readonly BundleReceipt[]): void {
    for (const receipt of receipts) this.#receipts.push(receipt);
    this.#schedule();
  }

  /** The answer to a question, at once, and behind what was to be said before it. */
  answer(answer: QueryAnswer, receipt: BundleReceipt | null): void {
    this.flush();
    this.#send(this.#sealer.seal({ kind: 'receipts', answer, receipts: receipt === null ? [] : [receipt] }));
  }

  flush(): void {
    if (this.#scheduled !== null) clearImmediate(this.#scheduled);
    this.#scheduled = null;
    const admissions = this.#admissions;
    const receipts = this.#receipts;
    this.#admissions = [];
    this.#receipts = [];
    for (let start = 0; start < admissions.length; start += ADMISSIONS_MAX) {
      const some = admissions.slice(start, start + ADMISSIONS_MAX);
      this.#send(this.#sealer.seal({ kind: 'admissions', admissions: some }));
    }
    for (let start = 0; start < receipts.length; ) {
      let end = start;
      for (let bytes = 0; end < receipts.length && end - start < RECEIPTS_MAX; end++) {
        bytes += receiptBytesMax(receipts[end]!);
        if (bytes > receiptsBytesMax && end > start) break;
      }
      this.#send(this.#sealer.seal({ kind: 'receipts', answer: null, receipts: receipts.slice(start, end) }));
      start = end;
    }
  }

  clear(): void {
    if (this.#scheduled !== null) clearImmediate(this.#scheduled);
    this.#scheduled = null;
    this.#admissions = [];
    this.#receipts = [];
  }

  #schedule(): void {
    this.#scheduled ??= setImmediate(() => this.flush());
  }
}

function receiptBytesMax({ links, certificate, proof }: BundleReceipt): number {
  const certified = certificateBytesMax(certificate.signatures.length);
  return 64 + (links.length + 1) * (HEADER_BYTES + 3) + certified + proof.length * 34;
}
