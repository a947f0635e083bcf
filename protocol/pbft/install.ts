// A state taken from peers: PBFT-CU-3. Every chunk has been proved against the digest that a quorum signed.

import { equalBytes } from '../../crypto/bytes.ts';
import type { CertifiedState } from '../deliver.ts';
import { adoptState } from '../deliver.ts';
import { forgetUndecided, giveUpChain } from './chain.ts';
import type { State } from './state.ts';

/** [PBFT-CU-3] The ledger, the log and the window start anew from the checkpoint. */
export function installState(s: State, state: CertifiedState): void {
  const { certificate } = state;
  // [PBFT-PP-9] Whether the checkpoint is on the accepted chain cannot be told here, unless it is its end.
  const last = s.chain.at(-1)?.block;
  if (last !== undefined && s.quarantine === null && !equalBytes(last.hash, certificate.hash)) s.contradicted = true;
  giveUpChain(s);
  adoptState(s, state);
  forgetUndecided(s, certificate.height);
  s.decidedAt = s.now;
  s.mayPropose = true;
  s.out.admissions.push(...s.pool.sweep(s.ledger));
}
