// The chain of accepted blocks above the decided head, and the one way from there into history. Used by every rule of this folder.

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import { encodeBody } from '../codec.ts';
import { deliver, endEpoch, hadRoom } from '../deliver.ts';
import type { Extension } from '../ledger.ts';
import type { Height } from '../types.ts';
import { compareVotes } from './accuse.ts';
import { noticeOwnVote } from './own-words.ts';
import type { State } from './state.ts';
import { hexOf, timeoutOf } from './state.ts';

/** [PBFT-P-1] The block joins the chain; its prepare leaves when the block is durable. [PBFT-CU-4] None for what is known to be decided. */
export function accept(s: State, extension: Extension, { broadcast }: { broadcast: boolean }): void {
  if (s.chain.length === 0) s.waitingSince = s.now;
  s.chain.push(extension);
  remember(s, extension);
  const { height } = extension.block.header;
  s.ownWords.height = Math.max(s.ownWords.height, height);
  s.phases.set(height, { acceptedAt: s.now, preparedAt: null });
  noteProposed(s, extension.block);
  if (s.headCertificate !== null && height <= s.headCertificate.height) return;
  s.out.pledge({ kind: 'prepare', epoch: s.epoch, view: s.view, height, hash: extension.block.hash }, { broadcast });
}

/** [PACE-1] What stands in an accepted block, the primary owes no more. */
export function noteProposed(s: State, block: Block): void {
  s.pool.noteProposed(block.bundles, { now: s.now, hadRoom: hadRoom(s.parameters, block) });
}

/** The block's bytes and its acceptance in this view go to the log. */
export function remember(s: State, { block }: Extension): void {
  const { height } = block.header;
  store(s, block);
  s.out.records.push({ type: 'accepted', height, hash: block.hash, view: s.view });
}

function store(s: State, block: Block): void {
  const key = hexOf(block.hash);
  const known = s.known.get(key);
  if (known?.stored === true) return;
  s.known.set(key, { block, stored: true });
  const bytes = { header: block.headerBytes, body: encodeBody(block.bundles) };
  s.out.records.push({ type: 'block', height: block.header.height, hash: block.hash, bytes });
}

/** [PBFT-C-3] Heights below the head cannot be compared, for their hashes are not kept; whoever shows a rival there shows one above as well. */
export function noteCommitCertificate(s: State, certificate: Certificate): void {
  compareVotes(s, certificate);
  noticeOwnVote(s, certificate);
  for (const decided of [s.headCertificate, { height: s.ledger.height, hash: s.ledger.head.hash }])
    assert(
      decided?.height !== certificate.height || equalBytes(decided.hash, certificate.hash),
      'a decided block never changes: more than f replicas are faulty',
    );
  if (s.headCertificate === null || certificate.height > s.headCertificate.height) s.headCertificate = certificate;
}

/**
 * [PBFT-C-2] [PBFT-C-3] The one place where a block becomes decided: on the ledger, in the log, to the application, out of the pool.
 * [PBFT-CU-4] What this replica held of the height is forgotten with it, so it never votes there again.
 */
export function decide(s: State, extension: Extension, certificate: Certificate | null): void {
  const { block } = extension;
  const { height } = block.header;
  const phases = s.phases.get(height);
  if (phases !== undefined) s.pace.measure(s.now - phases.acceptedAt);
  store(s, block);
  deliver(s, extension, certificate);
  s.decidedAt = s.now;
  relax(s);
  s.mayPropose = true;
  forgetUndecided(s, height);
  if (s.ledger.ended !== null) {
    assert(certificate !== null, 'nothing extends the block that ends an epoch, so its certificate is its own');
    return endEpoch(s, block, certificate);
  }
  s.checkpoints.sayResumed(s);
  if (height % s.parameters.checkpointInterval === 0) s.checkpoints.take(s, block);
}

/** [PBFT-VC-4] One step for each timeout in which blocks are decided: a burst right after a view change says little about the primary. */
function relax(s: State): void {
  if (s.backoff === 0 || s.now - Math.max(s.relaxedAt, s.viewSince) < timeoutOf(s)) return;
  s.backoff -= 1;
  s.relaxedAt = s.now;
}

export function forgetUndecided(s: State, height: Height): void {
  s.votes.forgetUpTo(height);
  for (const map of [s.proposals, s.proposed]) for (const at of map.keys()) if (at <= height) map.delete(at);
  for (const at of s.committed) if (at <= height) s.committed.delete(at);
  for (const map of [s.pledged, s.phases]) for (const at of map.keys()) if (at <= height) map.delete(at);
  for (const [key, { block }] of s.known) if (block.header.height <= height) s.known.delete(key);
}

/** [PBFT-CU-2] A block that a commit certificate covers, taken from a peer: same rules, same path. */
export function decideFetched(s: State, block: Block, certificate: Certificate | null): void {
  if (certificate !== null) noteCommitCertificate(s, certificate); // PBFT-VC-2
  const accepted = s.chain[0];
  if (accepted !== undefined && equalBytes(accepted.block.hash, block.hash)) {
    s.chain.shift();
    return decide(s, accepted, certificate);
  }
  // What was accepted here, and was not what the others decided, is given up.
  if (accepted !== undefined && s.quarantine === null) s.contradicted = true; // PBFT-PP-9: in quarantine it has voted for neither
  giveUpChain(s);
  const extension = s.ledger.extend([], block);
  assert(!('refused' in extension), () => `a block with a commit certificate is valid: ${JSON.stringify(extension)}`);
  decide(s, extension, certificate);
}

/** [PBFT-NV-6] The accepted blocks leave the chain; their bundles go back to the pool. The blocks stay known. */
export function giveUpChain(s: State): void {
  for (const { block } of s.chain) for (const bundle of block.bundles) s.pool.admit(bundle, s);
  s.chain = [];
  s.mayPropose = true;
}
