// The one way of a block into history, whatever protocol decided it: on the ledger, in the log, to the application, out of the pool. And the
// other way to a new head: a state taken from peers.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { Block, BlockHeader } from './block.ts';
import type { Certificate } from './certificate.ts';
import type { Checkpoints } from './checkpoints.ts';
import { checkpointOf } from './checkpoints.ts';
import { encodeCertificate, encodeCheckpointCertificate, encodeCheckpointPlace } from './codec.ts';
import type { Admission, Decided, EpochEnd } from './core.ts';
import { genesisOf } from './epoch/document.ts';
import { blockTransactionsMax, type Genesis, type Parameters } from './genesis.ts';
import type { Extension, Ledger } from './ledger.ts';
import type { LogRecord } from './log.ts';
import type { CheckpointCertificate } from './messages.ts';
import type { Pool } from './pool.ts';
import type { Millis } from './types.ts';

export interface DeliveryHost {
  readonly now: Millis;
  readonly parameters: Parameters;
  readonly ledger: Ledger;
  readonly pool: Pool;
  readonly checkpoints: Checkpoints;
  readonly out: { readonly records: LogRecord[]; readonly deliver: Decided[]; readonly admissions: Admission[] };
}

/** The block's bytes are in the log, or among the records. Its checkpoint, where one is due, is the caller's to take. */
export function deliver(s: DeliveryHost, extension: Extension, certificate: Certificate | null): void {
  const { block } = extension;
  s.ledger.apply(extension);
  s.out.records.push({
    type: 'decided',
    height: block.header.height,
    hash: block.hash,
    certificate: certificate === null ? null : encodeCertificate(certificate),
    bundles: block.bundles.map((bundle) => bundle.digest),
  });
  s.out.deliver.push({ block, certificate });
  s.out.admissions.push(...s.pool.settle(block.bundles, { now: s.now, hadRoom: hadRoom(s.parameters, block) }));
}

interface EndingHost {
  readonly genesis: Genesis;
  readonly ledger: Ledger;
  readonly pool: Pool;
  readonly out: { readonly records: LogRecord[]; ended: EpochEnd | null };
}

/** [EPO-12] The block just delivered ends the epoch, and this core has done its work. The state of the next epoch is written with the decision. */
export function endEpoch(s: EndingHost, { headerBytes }: Block, certificate: Certificate | null): void {
  assert(s.ledger.ended !== null, 'the block ends the epoch');
  const { next, control } = s.ledger.ended;
  s.out.records.push(...checkpointOf(s.ledger.succeed(genesisOf(s.genesis, next))));
  s.out.ended = { next, link: { headerBytes, certificate, control }, waiting: [...s.pool.waiting()] };
}

/** Whether any bundle that the chain allows would have fitted in as well. */
export function hadRoom(parameters: Parameters, { header }: Block): boolean {
  const { blockBundlesMax, blockBytesMax, bundleBytesMax, bundleTransactionsMax } = parameters;
  return (
    header.bundleCount < blockBundlesMax &&
    header.payloadBytes + bundleBytesMax <= blockBytesMax &&
    header.transactionCount + bundleTransactionsMax <= blockTransactionsMax(parameters)
  );
}

/** The state at a stable checkpoint, every chunk proved against its digest. */
export interface CertifiedState {
  readonly certificate: CheckpointCertificate;
  readonly header: BlockHeader;
  readonly headerBytes: Bytes;
  readonly chunks: ReadonlyMap<number, Bytes>;
}

/** [PBFT-CU-3] The ledger and the log start anew from the checkpoint. Nothing that was decided is lost: the peers hold it. */
export function adoptState(s: DeliveryHost, { certificate, header, headerBytes, chunks }: CertifiedState): void {
  const { height } = certificate;
  assert(height > s.ledger.height, 'a checkpoint is installed only above the head');
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
}
