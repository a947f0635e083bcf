// The value of a slot, in protocols whose members are trusted. It is a block without its place in the chain: the bundles and who proposed
// them when, under a header whose parent, log root and totals are empty, for they are known only when every slot below is decided. Then
// the same function that builds a Byzantine block makes the chained one of it, after the same filter (blueprint: one log for all).
// So a value has a block's bytes, bounds and hash on the wire and in the log, and nothing that knows blocks needs to know values.

import type { Block, BlockHeader, Sha256 } from '../block.ts';
import { blockHash, encodeHeader } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Extension, Ledger } from '../ledger.ts';
import { bodyMarks } from '../transaction-tree.ts';
import type { Epoch, Height, Millis, ReplicaId } from '../types.ts';
import { asHash } from '../types.ts';

export interface ValueContext {
  readonly sha256: Sha256;
  readonly epoch: Epoch;
  readonly ledger: Ledger;
}

const NOTHING = asHash(new Uint8Array(32));

/** [CFT-V-1] Its hash names it in votes. Without bundles it is a no-op (Lamport, Paxos Made Simple, section 3). */
export function makeValue(
  { sha256, epoch, ledger }: ValueContext,
  {
    slot,
    bundles,
    time,
    proposer,
  }: { slot: Height; bundles: readonly SignedBundle[]; time: Millis; proposer: ReplicaId },
): Block {
  const marks = bodyMarks(sha256, bundles);
  const header: BlockHeader = {
    chainId: ledger.genesisBlock.header.chainId,
    epoch,
    height: slot,
    parent: NOTHING,
    time,
    proposer,
    logRoot: NOTHING,
    transactionTotal: marks.transactionCount,
    memberSetHash: ledger.memberSetHash,
    ...marks,
  };
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(sha256, headerBytes), bundles };
}

/**
 * [CFT-V-2] The block of a chosen value on top of `chain`: what may not stand there by the rules of blocks and sessions is left out, on every
 * replica alike, for all of them hold the same values below. [CFT-V-3] It may be empty: a slot is a height, whatever is left of its value.
 * [CFT-V-4] Where nothing is left out, the value's header has said what the block's must say of its body.
 */
export function chained(ledger: Ledger, chain: readonly Extension[], { header, bundles }: Block): Extension {
  const { time, proposer } = header;
  // Never null here: in this mode a block may be empty, and nobody asks for one after the end of the epoch.
  return ledger.build(chain, { bundles, time, proposer, marks: header })!;
}

/** A value is of this chain and epoch and nobody's block: what a decoder cannot know. */
export function isValue({ header }: Block): boolean {
  return header.parent.every((byte) => byte === 0) && header.logRoot.every((byte) => byte === 0);
}
