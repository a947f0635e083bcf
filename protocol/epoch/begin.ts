// Which epoch a replica starts in: the log says so. An epoch begins from one state, after a crash as after the block that ended the one before
// (ADR 10): the log holds the decision, the state and the document of the next epoch from one write on.

import type { Crypto } from '../../crypto/provider.ts';
import type { Sha256 } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Genesis, Parameters } from '../genesis.ts';
import { documentIn } from '../ledger.ts';
import type { RecoveredLog } from '../log.ts';
import { bearsLies, type Protocol } from '../modes.ts';
import { verifyBundle } from '../wire/verify-message.ts';
import { type EpochDocument, genesisEpoch } from './document.ts';

/** [EPO-12] The epoch that goes on from what the log holds. */
export function epochOf(sha256: Sha256, genesis: Genesis, log: RecoveredLog | null): EpochDocument {
  const chunk = log?.checkpoint?.chunks.get(0);
  return (chunk === undefined ? null : documentIn(sha256, chunk)) ?? genesisEpoch(sha256, genesis);
}

/** [EPO-15] Whether a bundle that was taken in under other limits keeps to these: what does not is given up, for no block may hold it. */
export function fits({ payload, transactions }: SignedBundle, limits: Parameters): boolean {
  return (
    payload.length <= limits.bundleBytesMax &&
    transactions.length <= limits.bundleTransactionsMax &&
    transactions.every(({ length }) => length <= limits.transactionBytesMax)
  );
}

/** From one epoch to the next. */
export interface Passage {
  readonly from: Protocol;
  readonly to: Pick<Genesis, 'parameters' | 'protocol' | 'chainId'>;
  readonly crypto: Crypto;
}

/** [CFT-W-2] Whether a bundle that waits may go on waiting: where members may lie, what trusted ones took each other's word for is checked. */
export function goesOn(bundle: SignedBundle, { from, to, crypto }: Passage): boolean {
  if (!fits(bundle, to.parameters)) return false;
  return bearsLies(from) || !bearsLies(to.protocol) || verifyBundle(bundle, { crypto, chainId: to.chainId });
}
