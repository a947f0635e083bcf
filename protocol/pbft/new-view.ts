// Entering a view: Castro and Liskov, OSDI 1999, section 4.4. Everyone computes the base from the view-changes alone; the new
// primary chooses nothing.

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import { isLater } from '../certificate.ts';
import type { NewView, Verified } from '../messages.ts';
import type { Hex } from '../types.ts';
import { asHeight } from '../types.ts';
import { compareNewView } from './accuse.ts';
import { accept, decideFetched, giveUpChain, noteCommitCertificate, noteProposed, remember } from './chain.ts';
import { persistHardState } from './hard-state.ts';
import { noticeOwnViewChange, noticeOwnVote } from './own-words.ts';
import type { Base, State } from './state.ts';
import { hexOf, primaryOf } from './state.ts';
import { leaveView } from './view-change.ts';

/** [PBFT-NV-2] The latest certificate by view, then height; a commit certificate before a prepared one for the same place. Null: the genesis block. */
export function baseOf(newView: NewView): Base | null {
  let base: Base | null = null;
  for (const { message } of newView.viewChanges) {
    const { commit, prepared } = message;
    if (commit !== null && (base === null || !isLater(base.certificate, commit)))
      base = { kind: 'decided', certificate: commit };
    if (prepared !== null && (base === null || isLater(prepared, base.certificate)))
      base = { kind: 'prepared', certificate: prepared };
  }
  return base;
}

/** Signatures, senders, the number of view-changes and every certificate have been checked (verify.ts). */
export function onNewView(s: State, signed: Verified<NewView>): void {
  const { message, sender } = signed;
  compareNewView(s, signed);
  if (message.view < s.view || (message.view === s.view && s.mode === 'active')) return;
  if (sender !== primaryOf(s, message.view)) return s.out.refuse(sender, message.kind, 'not-primary');
  enterView(s, signed);
}

export function enterView(s: State, signed: Verified<NewView>): void {
  const { view } = signed.message;
  assert(view >= s.view, 'views never go back');
  for (const { sender, message } of signed.message.viewChanges) {
    if (sender === s.self) noticeOwnViewChange(s, message.view);
    if (message.prepared !== null) noticeOwnVote(s, message.prepared);
  }
  // The guard's mark may be durable before this replica's own new-view comes back.
  const leading = s.leading && view === s.view;
  leaveView(s);
  s.leading = leading;
  s.view = view;
  s.mode = 'active';
  s.newView = signed;
  s.primaryHeardAt = s.now;
  for (const { message } of signed.message.viewChanges)
    if (message.commit !== null) noteCommitCertificate(s, message.commit);
  const base = baseOf(signed.message);
  s.base = base !== null && base.certificate.height > s.ledger.height ? base : null;
  forgetUnreachable(s);
  persistHardState(s);
  s.pool.beginView(); // PBFT-NV-6
  s.pace.beginView(s.now);
  s.stalls.beginView();
  s.out.events.push({ type: 'view-entered', view, primary: primaryOf(s, view) });
  // Whoever is behind learns it now, not at the next heartbeat.
  s.heartbeatAt = s.now;
}

/** [PBFT-NV-3] [PBFT-NV-4] Builds the chain from the decided head up to the base, fetching what is missing, and votes for a prepared base. */
export function reachBase(s: State): void {
  if (s.base === null) return;
  const { kind, certificate } = s.base;
  if (certificate.height <= s.ledger.height) {
    s.base = null; // decided in the meantime, by catch-up
    return;
  }
  const path = pathTo(s, certificate);
  if (path === undefined) return;
  giveUpChain(s);
  for (const [index, block] of path.entries()) {
    const extension = s.ledger.extend(s.chain, block);
    assert(!('refused' in extension), () => `a block that a quorum prepared is valid: ${JSON.stringify(extension)}`);
    const isBase = index === path.length - 1;
    if (isBase && kind === 'prepared') {
      accept(s, extension, { broadcast: true });
    } else {
      if (s.chain.length === 0) s.waitingSince = s.now;
      s.chain.push(extension);
      noteProposed(s, block);
      remember(s, extension);
    }
  }
  s.base = null;
}

/** [REC-5] Votes for what was accepted in this view while nothing was pledged: from the base on, like every vote of the view. */
export function pledgeAccepted(s: State): void {
  const base = s.newView === null ? null : baseOf(s.newView.message);
  const first = base === null ? 1 : base.certificate.height + (base.kind === 'prepared' ? 0 : 1);
  for (const { block } of s.chain) {
    const { height } = block.header;
    if (height < first || height <= (s.headCertificate?.height ?? 0)) continue; // PBFT-CU-4
    s.out.pledge({ kind: 'prepare', epoch: s.epoch, view: s.view, height, hash: block.hash });
  }
}

/** The blocks from the decided head to the certified one; undefined while one is missing and asked for, or where the base is passed over. */
function pathTo(s: State, certificate: Certificate): Block[] | undefined {
  const path = walkBack(s, certificate);
  if (path !== 'apart') return path;
  // A faulty primary can show one of us sound view-changes that know less than those it shows to others: then a later view has decided
  // against this base. What was decided in its own view or before, it cannot contradict (ADR 1).
  const head = s.headCertificate;
  const wasDecidedBefore = head !== null && head.height >= s.ledger.height && head.view <= certificate.view;
  assert(!wasDecidedBefore, 'a prepared block extends what was decided before it: more than f replicas are faulty');
  s.base = null;
  return undefined;
}

/** From the certified block down to the decided head; undefined while a block is missing, 'apart' where it does not extend the head. */
function walkBack(s: State, certificate: Certificate): Block[] | 'apart' | undefined {
  const holders = certificate.signatures.map((by) => by.replica);
  const path: Block[] = [];
  let wanted = certificate.hash;
  for (let at: number = certificate.height; at > s.ledger.height; at--) {
    const known = s.known.get(hexOf(wanted));
    if (known === undefined) {
      // [PBFT-NV-4] Those who signed for a block hold it and its ancestors.
      s.catchUp.want(s, asHeight(at), wanted, holders);
      return undefined;
    }
    path.unshift(known.block);
    wanted = known.block.header.parent;
  }
  return equalBytes(wanted, s.ledger.head.hash) ? path : 'apart';
}

/**
 * [PBFT-CU-4] A commit certificate whose blocks are not here: this replica votes for nothing at or below it, so it fetches them by hash,
 * also from signers who have not decided yet. Far behind, catch-up by ranges is the better way.
 */
export function reachDecided(s: State): void {
  const certificate = s.headCertificate;
  const distance = certificate === null ? 0 : certificate.height - s.ledger.height;
  if (certificate === null || distance <= 0 || distance > 2 * s.parameters.window) return;
  const path = walkBack(s, certificate);
  if (path === undefined) return;
  assert(path !== 'apart', 'a decided block extends the decided head: more than f replicas are faulty');
  for (const block of path) decideFetched(s, block, block.header.height === certificate.height ? certificate : null);
}

/** Blocks that no certificate leads to any more would pile up over failing views. */
function forgetUnreachable(s: State): void {
  const keep = new Set<Hex>();
  for (const certificate of [s.prepared, s.base?.certificate ?? null]) {
    let wanted = certificate?.hash;
    while (wanted !== undefined) {
      keep.add(hexOf(wanted));
      wanted = s.known.get(hexOf(wanted))?.block.header.parent;
    }
  }
  for (const key of s.known.keys()) if (!keep.has(key)) s.known.delete(key);
}
