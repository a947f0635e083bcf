// The proof of a block where the members are trusted: [CFT-PR-1] the word of the replica that serves it that a majority has decided it. The
// cores have no key, and such a word binds nobody to anything, so the caller of a core puts it in, in one place for all protocols.

import type { Certificate } from './certificate.ts';
import { encodeCertificate } from './codec.ts';
import type { Decided, Ready } from './core.ts';
import type { LogRecord } from './log.ts';
import type { Epoch, Hash, Height, ReplicaId } from './types.ts';
import { asView } from './types.ts';

export interface Witness {
  readonly self: ReplicaId;
  readonly epoch: Epoch;
  /** 64 bytes over the layout of decidedSigningBytes. */
  readonly sign: (place: { readonly epoch: Epoch; readonly height: Height; readonly hash: Hash }) => Uint8Array;
}

/** The same Ready, in which every decided block has its proof: for the doors, for the log beside it, and for the link to the next epoch. */
export function attested<M, P>(ready: Ready<M, P>, { self, epoch, sign }: Witness): Ready<M, P> {
  if (ready.deliver.length === 0) return ready;
  const proofs = new Map<Height, Certificate>();
  const deliver = ready.deliver.map((decided): Decided => {
    const { height } = decided.block.header;
    const place = { epoch, height, hash: decided.block.hash };
    const signatures = [{ replica: self, signature: sign(place) }];
    const certificate: Certificate = { phase: 'decided', view: asView(0), ...place, signatures };
    proofs.set(height, certificate);
    return { ...decided, certificate };
  });
  const records = ready.records.map((record): LogRecord => {
    const proof = record.type === 'decided' ? proofs.get(record.height) : undefined;
    return record.type === 'decided' && proof !== undefined
      ? { ...record, certificate: encodeCertificate(proof) }
      : record;
  });
  const { ended } = ready;
  const own = ended === null ? undefined : proofs.get(ended.next.start.height);
  if (ended === null || own === undefined) return { ...ready, deliver, records };
  return { ...ready, deliver, records, ended: { ...ended, link: { ...ended.link, certificate: own } } };
}
