// Votes and certificates. A vote signs a fixed layout; a certificate is a quorum of such signatures over one layout, so it can be
// checked in any language from docs/wire.md. PBFT's names: a quorum of prepares is a prepared certificate, a quorum of
// commits is the commit certificate, the ledger's proof (Castro and Liskov 1999, sections 4.2 and 4.4).

import type { Bytes } from '../crypto/bytes.ts';
import { domainTag, LayoutWriter } from './layout.ts';
import type { Epoch, Hash, Height, ReplicaId, View } from './types.ts';
import { asView } from './types.ts';

export type VotePhase = 'prepare' | 'commit';
/**
 * What a certificate may be of. 'decided' is no vote: one trusted replica's word that a majority has decided the block (CFT-PR-1). Its byte
 * in the layout is its own, so it can never be mistaken for a vote, nor a vote for it.
 */
export type ProofPhase = VotePhase | 'decided';

/** What a vote is about. Two different hashes for one (epoch, view, height, phase) under one key are a proof of guilt. */
export interface VotePlace {
  readonly phase: ProofPhase;
  readonly epoch: Epoch;
  readonly view: View;
  readonly height: Height;
  readonly hash: Hash;
}

export interface SignatureOf {
  readonly replica: ReplicaId;
  /** 64 bytes. */
  readonly signature: Bytes;
}

/** At least a quorum of signatures over one place, by strictly rising replica. */
export interface Certificate extends VotePlace {
  readonly signatures: readonly SignatureOf[];
}

const voteTag = domainTag('synod-v1:vote');
const phaseByte: Record<ProofPhase, number> = { prepare: 1, commit: 2, decided: 3 };

/** What a prepare, a commit and a proposal (its primary's prepare) sign. 105 bytes. */
export function voteSigningBytes(chainId: Hash, vote: VotePlace): Bytes {
  return new LayoutWriter(16 + 32 + 8 + 1 + 8 + 8 + 32)
    .bytes(voteTag, 16)
    .bytes(chainId, 32)
    .u64(vote.epoch)
    .u8(phaseByte[vote.phase])
    .u64(vote.view)
    .u64(vote.height)
    .bytes(vote.hash, 32)
    .done();
}

/** [CFT-PR-1] What a replica signs that a block is decided: no view, for whichever ballot decided it, it is decided. */
export function decidedSigningBytes(chainId: Hash, place: Pick<VotePlace, 'epoch' | 'height' | 'hash'>): Bytes {
  return voteSigningBytes(chainId, { ...place, phase: 'decided', view: asView(0) });
}

/** By view, then height: which of two certificates a new view must start from (PBFT-NV-2). */
export function isLater(a: VotePlace, b: VotePlace): boolean {
  return a.view !== b.view ? a.view > b.view : a.height > b.height;
}
