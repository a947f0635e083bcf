// What the next slot is to carry: the same for whoever proposes, in every protocol of the family.

import type { Block } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Height } from '../types.ts';
import { asHeight } from '../types.ts';
import type { CrashState } from './state.ts';
import { chained } from './value.ts';

/** A block is proposed above an undecided one at once up to this depth; beyond it only a large enough one is worth its votes. */
const EAGER_DEPTH = 2;
const WORTHWHILE_BYTES = 48 << 10;

/** The bundles for `slot`, which is above all of `s.chain`; null: none now. */
export function bundlesFor(s: CrashState, slot: Height): readonly SignedBundle[] | null {
  const { window, checkpointInterval } = s.parameters;
  if (!s.mayPropose || s.chain.length >= window) return null;
  if (s.handOver !== null) return null; // CFT-H-1
  if (s.ledger.endsEpoch(s.chain)) return null; // EPO-9
  if (slot > s.checkpoints.anchorHeight + 4 * checkpointInterval) return null; // PBFT-PP-7
  const bundles = s.pool.pick(s.chain, s.ledger, s.parameters);
  if (bundles.length === 0) {
    s.mayPropose = false;
    return null;
  }
  const bytes = bundles.reduce((sum, bundle) => sum + bundle.payload.length, 0);
  return s.chain.length >= EAGER_DEPTH && bytes < WORTHWHILE_BYTES ? null : bundles;
}

/** The blocks that come of what is proposed above the head, if it is chosen; [EPO-9] none above one that ends the epoch. */
export function extendChain(s: CrashState, valueAt: (slot: Height) => Block | undefined): void {
  while (!s.ledger.endsEpoch(s.chain)) {
    const value = valueAt(asHeight(s.ledger.height + s.chain.length + 1));
    if (value === undefined) return;
    s.chain.push(chained(s.ledger, s.chain, value));
    s.chainOf.push(value.hash);
  }
}
