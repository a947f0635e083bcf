// The decided part of a replica, back from its log: the same for every protocol on it.

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { Block, Sha256 } from './block.ts';
import { blockHash, decodeHeader } from './block.ts';
import type { Certificate } from './certificate.ts';
import { type CheckpointHost, type Checkpoints, placeOf } from './checkpoints.ts';
import type { WireContext } from './codec.ts';
import {
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeCheckpointPlace,
  decodeStoredBlock,
  isRefusal,
} from './codec.ts';
import type { Parameters } from './genesis.ts';
import { LayoutReader } from './layout.ts';
import type { Ledger } from './ledger.ts';
import type { BlockBytes, RecoveredLog } from './log.ts';
import type { Epoch, Height } from './types.ts';

export interface RestartHost extends CheckpointHost {
  readonly sha256: Sha256;
  readonly parameters: Parameters;
  readonly checkpoints: Checkpoints;
  lowest: Height;
}

/** [EPO-12] The state that an epoch starts from, as the core before left it in memory: what the write that ended its epoch has made of the log. */
export interface Inheritance {
  /** Of this epoch. */
  readonly ledger: Ledger;
  /** As RecoveredLog has it. */
  readonly lowest: Height;
}

/** [EPO-12] The same as if the log were read (sim/replica.ts compares them at each end of an epoch), and nothing is read. */
export function inherit(s: RestartHost, { ledger, lowest }: Inheritance): void {
  assert(s.ledger === ledger, 'the ledger of this epoch');
  s.checkpoints.resume(placeOf(ledger));
  s.lowest = lowest;
}

/** The last checkpoint, and the decided blocks above it by the same rules as when they were decided; `certified` for each certificate. */
export function recoverLedger(s: RestartHost, log: RecoveredLog, certified: (certificate: Certificate) => void): void {
  if (log.stable !== null) {
    assert(log.stable.certificate !== null, 'a stable checkpoint has its certificate');
    const stable = known(decodeCheckpointCertificate(log.stable.certificate));
    // Of another epoch's members: nobody in this one could check it.
    if (stable.epoch === s.epoch) s.checkpoints.adopt(stable);
  }
  if (log.checkpoint !== null) {
    const header = decodeHeader(log.checkpoint.header);
    assert(header !== undefined, 'a stored header is well formed');
    s.ledger.restore(header, blockHash(s.sha256, log.checkpoint.header), log.checkpoint.chunks);
    const place = known(decodeCheckpointPlace(log.checkpoint.place));
    assert(equalBytes(place.stateDigest, s.ledger.stateDigest), 'the stored state has the digest of its checkpoint');
    if (log.checkpoint.height > s.checkpoints.stableHeight) s.checkpoints.resume(place);
  }
  for (const stored of log.decided) {
    const extension = s.ledger.extend([], decoded(stored.bytes, s));
    assert(!('refused' in extension), () => `a decided block is valid: ${JSON.stringify(extension)}`);
    s.ledger.apply(extension);
    if (stored.certificate !== null) certified(known(decodeCertificate(stored.certificate)));
  }
  s.lowest = log.lowest;
}

/**
 * [EPO-12] The hard state, where it is of this epoch; null: there is none yet. What was written in another one means nothing here, whichever protocol
 * wrote it: behind the version, by which protocols are told apart, every one has its epoch, but for the first version of PBFT's, of epoch 0.
 */
export function hardStateIn({ hardState }: Pick<RecoveredLog, 'hardState'>, epoch: Epoch): Bytes | null {
  if (hardState === null) return null;
  const reader = new LayoutReader(hardState);
  const of = reader.u8() === 1 ? 0 : reader.u64();
  return of === epoch ? hardState : null;
}

/** [EPO-12] Accepted in an epoch that is over: beside the block that ended it, and of other limits perhaps. */
export function isOfOtherEpoch(s: Pick<RestartHost, 'epoch'>, { header }: BlockBytes): boolean {
  return decodeHeader(header)?.epoch !== s.epoch;
}

export function decoded(bytes: BlockBytes, context: WireContext): Block {
  return known(decodeStoredBlock(bytes, context));
}

/** What this replica wrote, and the log has checked, decodes: anything else is a bug or a newer format. */
export function known<T extends object>(value: T): Exclude<T, { readonly refused: string }> {
  assert(!isRefusal(value), () => `a stored value decodes: ${JSON.stringify(value)}`);
  return value as Exclude<T, { readonly refused: string }>; // not a refusal, as just asserted
}
