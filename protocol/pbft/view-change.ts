// Leaving a view: Castro and Liskov, OSDI 1999, section 4.4, with one prepared certificate instead of a set of slots (ADR 1).

import { assert } from '../assert.ts';
import type { NewView, PbftPledge, Verified, ViewChange } from '../messages.ts';
import type { ReplicaId, View } from '../types.ts';
import { asView, next } from '../types.ts';
import { compareViewChange, voteOfProposal } from './accuse.ts';
import { giveUpChain } from './chain.ts';
import { persistHardState } from './hard-state.ts';
import type { Peer, State } from './state.ts';
import { isPrimary, peerOf, primaryOf } from './state.ts';

/** [PBFT-VC-1] [PBFT-VC-2] Stops voting below `view` and asks for it; the request leaves when that promise is durable. */
export function startViewChange(s: State, view: View, reason: string): void {
  assert(view > s.view, 'views never go back');
  if (s.quarantine !== null) return; // REC-1: it may not ask, and follows those who do
  leaveView(s);
  s.view = view;
  s.mode = 'changing';
  s.newView = null;
  s.base = null;
  s.viewChangeCount += 1;
  persistHardState(s);
  s.out.pledge(viewChangeOf(s));
  s.out.events.push({ type: 'view-change-started', view, reason });
  for (const [replica, vote] of s.viewChanges.entries()) if (vote.message.view < view) s.viewChanges.delete(replica);
}

export function viewChangeOf(s: State): ViewChange {
  return { kind: 'view-change', epoch: s.epoch, view: s.view, commit: s.headCertificate, prepared: s.prepared };
}

/** What belongs to one view only is forgotten; what it made durable (prepared certificate, blocks) stays. */
export function leaveView(s: State): void {
  giveUpChain(s);
  s.contradicted = false;
  s.votes.clear();
  s.proposals.clear();
  if (s.proposed.size > 0) s.proposedBefore = [...s.proposed.values()].map(voteOfProposal);
  s.proposed.clear();
  s.committed.clear();
  s.phases.clear();
  s.pledged.clear();
  s.leading = false;
  s.newViewPledged = false;
  s.ownViewChange = null;
  s.quorumAskedAt = null;
  s.viewSince = s.now;
  s.resentAt = s.now;
}

/** [PBFT-VC-1] Once in a step: a primary that is proved faulty is given up. */
export function leaveGuiltyPrimary(s: State): void {
  if (s.mode !== 'active' || s.quarantine !== null) return; // REC-1
  const primary = primaryOf(s, s.view);
  if (s.out.evidence.some(({ culprit }) => culprit === primary))
    startViewChange(s, next.view(s.view), 'there is evidence against the primary');
}

/**
 * [PBFT-PP-9] A vote stands for the blocks below it, so in one view a replica votes for one chain: where the others have decided another
 * one it votes no more. That is what makes votes of one view for two chains a proof of guilt (EVD-3), however many are faulty.
 */
export function leaveContradicted(s: State): void {
  if (s.contradicted && s.mode === 'active')
    startViewChange(s, next.view(s.view), 'what was decided is not what this replica voted for in this view');
}

/** [PBFT-VC-5] The guard remembers a vote that this replica does not: it is silent for the rest of the view, and asks for the next one. */
export function onRefusedPledge(s: State, pledge: PbftPledge): void {
  const isVote = pledge.kind === 'prepare' || pledge.kind === 'commit';
  if (!isVote || pledge.view !== s.view || s.mode !== 'active') return;
  startViewChange(s, next.view(s.view), 'the guard refused a vote of this view');
}

export function onViewChange(s: State, signed: Verified<ViewChange>): void {
  const { message, sender } = signed;
  compareViewChange(s, signed);
  if (message.view < s.view || (message.view === s.view && s.mode === 'active')) {
    // [PBFT-NV-5] It asks for a view that has begun, or is over: show it the proof.
    if (s.mode === 'active') resendNewView(s, sender);
    return;
  }
  const before = s.viewChanges.get(sender);
  if (before !== undefined && before.message.view >= message.view) return;
  s.viewChanges.set(sender, String(message.view), signed);
}

/** [PBFT-VC-3] [PBFT-VC-4] [PBFT-NV-1] What the view-changes seen so far allow: to join others, to time the new primary, to open the view. */
export function followViewChanges(s: State): void {
  if (s.quarantine !== null) return; // REC-1
  for (;;) {
    const higher = s.viewChanges.entries().filter(([, vote]) => vote.message.view > s.view);
    if (higher.length < s.quorums.oneHonest) break;
    const smallest = asView(Math.min(...higher.map(([, vote]) => vote.message.view)));
    noteFollowed(s, smallest);
    startViewChange(s, smallest, `${higher.length} replicas asked for it`);
  }
  if (s.mode !== 'changing') return;
  // Who asks for a later view has given this one up too: replicas whose requests lie a view apart still time each other out.
  if (askersOf(s).length < s.quorums.quorum) return;
  s.quorumAskedAt ??= s.now;
  const asking = s.viewChanges.withKey(String(s.view));
  if (asking.length < s.quorums.quorum) return;
  if (!isPrimary(s) || s.newViewPledged || s.ownViewChange === null) return;
  s.newViewPledged = true;
  const newView: NewView = {
    kind: 'new-view',
    epoch: s.epoch,
    view: s.view,
    viewChanges: asking.slice(0, s.quorums.quorum).map(([, vote]) => vote),
  };
  s.out.lead = s.view; // PBFT-PP-6
  s.out.pledge(newView);
}

/** [PBFT-NV-5] Shows the new-view of the active view to a peer whose status says that it is not in it; not at every status. */
export function showNewView(s: State, to: ReplicaId): void {
  const peer = peerOf(s, to);
  const { status } = peer;
  if (s.mode !== 'active' || s.newView === null || status === null) return;
  if (status.view > s.view || (status.view === s.view && status.active)) return;
  resendNewView(s, to);
}

/** Not more often than every other heartbeat: a new-view is large, and whoever asks for it may be a liar. */
function resendNewView(s: State, to: ReplicaId): void {
  const peer = peerOf(s, to);
  if (s.newView === null) return;
  if (peer.shownNewViewAt !== null && s.now - peer.shownNewViewAt < 2 * s.parameters.heartbeatMs) return;
  peer.shownNewViewAt = s.now;
  s.out.resend.push({ to, signed: s.newView });
}

/**
 * [STALL-3] Its own primary asks for a later view: it proposes here no more, so nobody waits for its silence to be noticed. One view further, however
 * far it asks, for it may be lying; it can give up no view but its own.
 */
export function followPrimary(s: State): void {
  if (s.mode !== 'active' || isPrimary(s)) return;
  const asked = s.viewChanges.get(primaryOf(s, s.view));
  if (asked !== undefined && asked.message.view > s.view)
    startViewChange(s, next.view(s.view), 'the primary gave its view up');
}

/** How long a replica asks for a view alone before the others follow it, in timeouts; doubled each time for the same one. */
const LONELY_TIMEOUTS = 8;

/**
 * [PBFT-VC-6] A replica that gave a view up alone has promised not to vote in it, and cannot come back: without it the others bear one
 * fault fewer. After a while they follow it, for a view change in quiet costs little. A liar gains a view change now and then, ever more rarely.
 */
export function followTheLonely(s: State): void {
  for (const [replica, peer] of s.peers) {
    const lonely = s.lonely.get(replica) ?? { since: null, followed: 0 };
    if (awaitedBy(s, replica, peer) <= s.view) {
      lonely.since = null;
    } else if (lonely.since === null || lonely.since < s.viewSince) {
      lonely.since = s.now;
    } else if (s.now - lonely.since > patienceFor(s, lonely.followed)) {
      lonely.since = null;
      lonely.followed += 1;
      s.lonely.set(replica, lonely);
      // By one view: it may be lying, and nobody asks for a view that lies further above one that a quorum has asked for (ADR 6).
      return startViewChange(s, next.view(s.view), 'a replica has waited for a later view alone for long');
    }
    s.lonely.set(replica, lonely);
  }
}

/** The view that a replica asks for, or says that it waits for without a request (REC-5); -1: none. */
function awaitedBy(s: State, replica: ReplicaId, { status }: Peer): number {
  const asked = s.viewChanges.get(replica)?.message.view ?? -1;
  return status === null || status.active ? asked : Math.max(asked, status.view);
}

const patienceFor = (s: State, followed: number): number =>
  LONELY_TIMEOUTS * s.parameters.viewTimeoutMs * 2 ** Math.min(followed, 16);

/** Where the others were a little sooner to follow the lonely one, it has gained this view change here too. */
function noteFollowed(s: State, view: View): void {
  for (const [replica, peer] of s.peers) {
    const lonely = s.lonely.get(replica);
    if (lonely === undefined || lonely.since === null || awaitedBy(s, replica, peer) < view) continue;
    if (s.now - lonely.since <= patienceFor(s, lonely.followed) / 2) continue;
    lonely.since = null;
    lonely.followed += 1;
  }
}

/** Who has asked for the view this replica asks for, or for a later one. */
export const askersOf = (s: State): ReplicaId[] =>
  s.viewChanges
    .entries()
    .filter(([, { message }]) => message.view >= s.view)
    .map(([replica]) => replica);
