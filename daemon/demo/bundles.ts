// Transactions cut into bundles, in order, within the limits of the chain.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Parameters } from '../../protocol/genesis.ts';

/** More than what surrounds the transactions in a bundle, and each of them (docs/wire.md, "Bundles"). */
const bundleOverheadBytes = 256;
const transactionOverheadBytes = 8;

/** Undefined: a transaction is larger than the chain allows. */
export function cutIntoBundles(
  transactions: readonly Bytes[],
  countMax: number,
  parameters: Parameters,
): readonly (readonly Bytes[])[] | undefined {
  const bundles: Bytes[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const transaction of transactions) {
    if (transaction.length > parameters.transactionBytesMax) return undefined;
    const size = transaction.length + transactionOverheadBytes;
    const open = bundles.at(-1);
    if (
      open === undefined ||
      open.length >= Math.min(countMax, parameters.bundleTransactionsMax) ||
      bytes + size > parameters.bundleBytesMax
    ) {
      bundles.push([transaction]);
      bytes = bundleOverheadBytes + size;
    } else {
      open.push(transaction);
      bytes += size;
    }
  }
  return bundles;
}
