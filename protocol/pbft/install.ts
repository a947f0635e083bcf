// A state taken from peers: PBFT-CU-3. Every chunk has been proved against the digest that a quorum signed.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { BlockHeader } from '../block.ts';
import { encodeCheckpointCertificate, encodeCheckpointPlace } from '../codec.ts';
import type { CheckpointCertificate } from '../messages.ts';
import { forgetUndecided, giveUpChain } from './chain.ts';
import type { State } from './state.ts';

/** [PBFT-CU-3] The ledger, the log and the window start anew from the checkpoint. Nothing that was decided is lost: the peers hold it. */
export function installState(
  s: State,
  {
    certificate,
    header,
    headerBytes,
    chunks,
  }: {
    certificate: CheckpointCertificate;
    header: BlockHeader;
    headerBytes: Bytes;
    chunks: ReadonlyMap<number, Bytes>;
  },
): void {
  const { height } = certificate;
  assert(height > s.ledger.height, 'a checkpoint is installed only above the head');
  // [PBFT-PP-9] Whether the checkpoint is on the accepted chain cannot be told here, unless it is its end.
  const last = s.chain.at(-1)?.block;
  if (last !== undefined && s.quarantine === null && !equalBytes(last.hash, certificate.hash)) s.contradicted = true;
  giveUpChain(s);
  s.ledger.restore(header, certificate.hash, chunks);
  assert(equalBytes(s.ledger.stateDigest, certificate.stateDigest), 'proved chunks make up the signed digest');
  for (const [chunk, bytes] of chunks)
    if (bytes.length > 0) s.out.records.push({ type: 'state-chunk', height, chunk, bytes });
  s.out.records.push({
    type: 'reset-to-checkpoint',
    height,
    header: headerBytes,
    place: encodeCheckpointPlace(certificate),
    certificate: encodeCheckpointCertificate(certificate),
  });
  s.checkpoints.adopt(certificate);
  forgetUndecided(s, height);
  s.decidedAt = s.now;
  s.mayPropose = true;
  s.out.admissions.push(...s.pool.sweep(s.ledger));
}
