// The normal case: pre-prepare, prepare, commit. Castro and Liskov, OSDI 1999, section 4.2, over chained blocks.
// Arrival and progress are apart: on… only notes what came; the functions under "moving on" go as far as what is known allows, and
// can be called at any time.

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import { isLater } from '../certificate.ts';
import type { PbftMessage, PrePrepare, Verified, Vote } from '../messages.ts';
import type { Height, View } from '../types.ts';
import { next, plus } from '../types.ts';
import { accuse, countedVote } from './accuse.ts';
import { accept, decide, noteCommitCertificate } from './chain.ts';
import type { State } from './state.ts';
import { acceptedAt, hexOf, horizonOf, primaryOf, tip, wallNow } from './state.ts';
import { startViewChange } from './view-change.ts';

/** A block is proposed above an undecided one at once up to this depth; beyond it only a large enough one is worth its votes. */
const EAGER_DEPTH = 2;
const WORTHWHILE_BYTES = 48 << 10;

// ---- the primary --------------------------------------------------------------------------------------------------

/** [PBFT-PP-2] [PBFT-PP-6] [PBFT-PP-7] Proposes what the pool holds, as far as the window allows. */
export function propose(s: State): void {
  if (!s.leading || s.mode !== 'active' || s.base !== null) return;
  const { window, checkpointInterval } = s.parameters;
  while (s.mayPropose && s.chain.length < window && !s.ledger.endsEpoch(s.chain)) {
    const height = plus.height(tip(s).height, 1);
    if (height > s.checkpoints.anchorHeight + 4 * checkpointInterval) return;
    const bundles = s.pool.pick(s.chain, s.ledger, s.parameters);
    if (bundles.length === 0) {
      s.mayPropose = false;
      return;
    }
    if (s.chain.length >= EAGER_DEPTH) {
      const bytes = bundles.reduce((sum, bundle) => sum + bundle.payload.length, 0);
      if (bytes < WORTHWHILE_BYTES) return;
    }
    const extension = s.ledger.build(s.chain, { bundles, time: wallNow(s), proposer: s.self });
    if (extension === null) {
      s.mayPropose = false;
      return;
    }
    accept(s, extension, { broadcast: false });
    s.out.say('all', { kind: 'pre-prepare', epoch: s.epoch, view: s.view, block: extension.block });
  }
}

// ---- the backups --------------------------------------------------------------------------------------------------

export function onPrePrepare(s: State, signed: Verified<PrePrepare>): void {
  const { message, sender, signature } = signed;
  const { header, hash } = message.block;
  if (message.view < s.view || header.height <= s.ledger.height) return;
  if (sender !== primaryOf(s, message.view)) return s.out.refuse(sender, message.kind, 'not-primary'); // PBFT-PP-1
  if (message.view > s.view || s.mode !== 'active') return keepForLater(s, signed);
  if (sender === s.self) return;
  if (header.proposer !== sender) return s.out.refuse(sender, message.kind, 'wrong-proposer');
  if (header.height > horizonOf(s)) return;

  const first = s.proposed.get(header.height);
  if (first !== undefined) {
    // [PBFT-PP-4] The same again is a retransmission; another one is proof.
    if (equalBytes(first.message.block.hash, hash)) return;
    accuse(s, first, signed);
    return startViewChange(s, next.view(s.view), 'the primary proposed two blocks for one height');
  }
  // From now on this replica waits for something to be decided.
  if (s.chain.length === 0 && s.proposals.size === 0) s.waitingSince = s.now;
  s.proposed.set(header.height, signed);
  s.proposals.set(header.height, signed);
  // [PBFT-PP-5] The signature of a proposal is its primary's prepare.
  const counted = s.votes.add('prepare', header.height, hash, sender, signature);
  if (counted === 'conflicting') accuse(s, countedVote(s, 'prepare', header.height, sender)!, signed); // one was counted
}

export function onVote(s: State, signed: Verified<Vote>): void {
  const { message, sender, signature } = signed;
  if (message.view < s.view || message.height <= s.ledger.height) return;
  if (message.view > s.view || s.mode !== 'active') return keepForLater(s, signed);
  if (message.height > horizonOf(s)) return; // far ahead: catch-up will bring it
  const counted = s.votes.add(message.kind, message.height, message.hash, sender, signature);
  if (counted === 'conflicting') accuse(s, countedVote(s, message.kind, message.height, sender)!, signed); // one was counted
}

// ---- moving on ----------------------------------------------------------------------------------------------------

/** [PBFT-PP-2] [PBFT-PP-3] Proposals in order of height, each on top of the one before. */
export function acceptProposals(s: State): void {
  for (;;) {
    const at = tip(s);
    const height = plus.height(at.height, 1);
    const block = s.proposals.get(height)?.message.block ?? certifiedButUnproposed(s, height);
    if (block === undefined || s.mode !== 'active') return;
    // [PBFT-PP-7] with one interval of slack, for the primary may have seen the stable checkpoint before us.
    if (height > s.checkpoints.anchorHeight + 5 * s.parameters.checkpointInterval) return;
    // [BLK-4] Not now; perhaps later. Our own clock may be the one that is off, so nobody is accused.
    if (Math.abs(block.header.time - wallNow(s)) > s.parameters.timeDriftMsMax) return;
    const extension = s.ledger.extend(s.chain, block);
    if ('refused' in extension) {
      s.proposals.delete(height);
      const primary = primaryOf(s, s.view);
      s.out.refuse(primary, 'pre-prepare', extension.refused);
      return startViewChange(s, next.view(s.view), `the primary proposed an invalid block: ${extension.refused}`);
    }
    s.proposals.delete(height);
    accept(s, extension, { broadcast: true });
  }
}

/** A proposal that was kept from us: a quorum prepared it, so whoever holds it can give it to us (adversary's book, A6). */
function certifiedButUnproposed(s: State, height: Height): Block | undefined {
  const hash = s.votes.quorumHash('prepare', height);
  if (hash === undefined) return undefined;
  const known = s.known.get(hexOf(hash));
  if (known === undefined) s.catchUp.want(s, height, hash, s.votes.voters('prepare', height, hash));
  return known?.block;
}

/** [PBFT-P-2] [PBFT-C-1] Prepared: the certificate becomes durable with the commit's mark, then the commit leaves. */
export function prepareAccepted(s: State): void {
  for (const { block } of s.chain) {
    const { height } = block.header;
    const isPast = s.committed.has(height) || height <= (s.headCertificate?.height ?? 0); // PBFT-CU-4
    if (isPast && s.quarantine === null) continue;
    const certificate = s.votes.certificate('prepare', s.view, height, block.hash);
    if (certificate === undefined) continue;
    const phases = s.phases.get(height);
    if (phases !== undefined) phases.preparedAt ??= s.now;
    const isHighest = s.prepared === null || isLater(certificate, s.prepared);
    if (isHighest) s.prepared = certificate;
    if (s.quarantine !== null) continue; // REC-1: the others' certificate (REC-4); no commit follows, and the guard keeps no lock
    s.committed.add(height);
    if (isHighest) s.out.lock = certificate;
    s.out.pledge({ kind: 'commit', epoch: s.epoch, view: s.view, height, hash: block.hash });
    s.out.events.push({ type: 'prepared', view: s.view, height });
  }
}

/** [PBFT-C-2] Commit certificates among the votes, also for blocks that this replica does not have. */
export function noticeCommitQuorums(s: State): void {
  for (const height of s.votes.heights().reverse()) {
    const hash = s.votes.quorumHash('commit', height);
    if (hash === undefined) continue;
    const certificate = s.votes.certificate('commit', s.view, height, hash);
    assert(certificate !== undefined, 'a quorum makes a certificate');
    noteCommitCertificate(s, certificate);
    return;
  }
}

/** [PBFT-C-2] Decides everything that the highest commit certificate covers, if its blocks are here; else catch-up will fetch them. */
export function decideCovered(s: State): void {
  const certificate = s.headCertificate;
  if (certificate === null || certificate.height <= s.ledger.height) return;
  const last = acceptedAt(s, certificate.height);
  if (last === undefined || !equalBytes(last.block.hash, certificate.hash)) return;
  const count = certificate.height - s.ledger.height;
  for (const [index, extension] of s.chain.splice(0, count).entries())
    decide(s, extension, index === count - 1 ? certificate : null);
  s.waitingSince = s.now;
}

// ---- messages of views to come ------------------------------------------------------------------------------------

const EARLY_MESSAGES_MAX = 64;
const EARLY_PROPOSALS_MAX = 8;

/** A bounded number of messages per sender for views not yet entered, the newest ones. */
export function keepForLater(s: State, signed: Verified<PbftMessage & { readonly view: View }>): void {
  // One turn of primaries: nobody is further ahead than that for long.
  if (signed.message.view > s.view + s.quorums.n) return;
  const kept = s.early.get(signed.sender) ?? [];
  kept.push(signed);
  if (kept.filter(isProposal).length > EARLY_PROPOSALS_MAX) kept.splice(kept.findIndex(isProposal), 1);
  if (kept.length > EARLY_MESSAGES_MAX) kept.shift();
  s.early.set(signed.sender, kept);
}

const isProposal = (signed: Verified<PbftMessage>): boolean => signed.message.kind === 'pre-prepare';
