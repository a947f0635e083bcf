// Time: heartbeats, the timers that end a view, retransmission, forwarding. All against `s.now`; nothing here reads a clock.

import type { Stall } from '../core.ts';
import { handOn } from '../forward.ts';
import type { Millis, ReplicaId } from '../types.ts';
import { asView, next, plus } from '../types.ts';
import { baseOf } from './new-view.ts';
import { onQuarantineTime } from './quarantine.ts';
import type { State } from './state.ts';
import { isPrimary, primaryOf, seesQuorum, timeoutOf, tip } from './state.ts';
import { followTheLonely, startViewChange } from './view-change.ts';

/**
 * Blocks that may pass a bundle over before the primary is to blame: few that had room for it, for an honest primary that has it takes
 * it then; many full ones, for others may rightly come first.
 */
const PASSED_ROOMY_MAX = 8;
const PASSED_FULL_MAX = 256;

export function onTime(s: State): void {
  heartbeat(s);
  if (s.quarantine !== null) {
    onQuarantineTime(s, s.quarantine);
  } else if (s.mode === 'active') {
    suspectPrimary(s);
    if (s.mode === 'active') followTheLonely(s);
  } else if (s.quorumAskedAt !== null && s.now - s.quorumAskedAt > timeoutOf(s) && seesQuorum(s)) {
    // [PBFT-VC-4] A quorum asked for this view and its primary did not open it.
    s.backoff += 1;
    startViewChange(s, next.view(s.view), 'the new primary did not open its view in time');
  }
  sayAgain(s);
  handOn(s, isPrimary(s) || s.mode !== 'active' ? null : primaryOf(s, s.view), timeoutOf(s));
  sweep(s);
}

/** [PBFT-HB-1] */
function heartbeat(s: State): void {
  if (s.now < s.heartbeatAt) return;
  s.heartbeatAt = plus.millis(s.now, s.parameters.heartbeatMs);
  s.out.say('all', statusOf(s));
  s.checkpoints.sayResumed(s);
}

export function statusOf(s: State) {
  const awaited = s.quarantine?.terms?.view ?? -1;
  return {
    kind: 'status',
    epoch: s.epoch,
    // [REC-5] What it follows until then is nothing that it takes part in.
    view: asView(Math.max(s.view, awaited + 1)),
    // A primary in quarantine leads nobody.
    active: s.mode === 'active' && s.view > awaited && !(s.quarantine !== null && isPrimary(s)),
    height: s.ledger.height,
    hash: s.ledger.head.hash,
    stable: s.checkpoints.stableHeight,
    lowest: s.lowest,
  } as const;
}

/** [PBFT-VC-1] Three reasons to give a primary up. None of them counts while this replica is cut off from a quorum: then it is to blame. */
function suspectPrimary(s: State): void {
  const timeout = timeoutOf(s);
  if (!seesQuorum(s)) return restTimers(s);
  if (isPrimary(s) && handsOver(s)) return;
  const give = (reason: string) => {
    s.backoff += 1;
    startViewChange(s, next.view(s.view), reason);
  };
  const since = (at: Millis) => s.now - Math.max(at, s.viewSince);
  if (!isPrimary(s) && since(s.primaryHeardAt) > timeout) return give('no heartbeat of the primary');
  const undecided = s.chain.length > 0 || s.base !== null || s.proposals.size > 0;
  // [PACE-3] Not a view that fails: the next one gets no longer timers for it.
  if (!isPrimary(s) && s.pace.isTooSlow(s.parameters)) {
    s.pace.gaveUp(s.now);
    return startViewChange(s, next.view(s.view), `the primary orders ${s.pace.percent} % of what it could`);
  }
  // A primary that is heard and has work in hand is given twice the time: measured at full load on two cores, large blocks take longer than
  // T now and then, and a view change would only add to the load.
  if (undecided && since(Math.max(s.decidedAt, s.waitingSince) as Millis) > 2 * timeout)
    return give('accepted blocks are not decided');
  if (isPrimary(s) || s.now < s.requestsCheckedAt) return;
  s.requestsCheckedAt = plus.millis(s.now, s.parameters.heartbeatMs);
  // [REQ-2] [REQ-5] A bundle that could have been ordered: the primary orders nothing at all, or passes this one over for others.
  for (const waiting of s.pool.overdue(s.ledger, plus.millis(s.now, -timeout), 16)) {
    if (since(waiting.since) <= timeout) continue;
    if (since(s.decidedAt) > timeout) return give('a bundle waits and nothing is ordered');
    const rightly = 4 * Math.ceil(waiting.waitingBefore / s.parameters.blockBundlesMax);
    if (waiting.passedOver.roomy > PASSED_ROOMY_MAX || waiting.passedOver.all > PASSED_FULL_MAX + rightly)
      return give('the primary passes a bundle over');
  }
}

/** [PACE-3] What the time since the last step says of the primary: all that while, things stood as they do before this step's inputs. */
export function keepAccounts(s: State): void {
  s.stalls.keep(s.now, s.parameters.viewTimeoutMs);
  const mayJudge = s.mode === 'active' && s.quarantine === null && !isPrimary(s) && couldPropose(s);
  s.pace.keep(s.now, mayJudge ? s.pool.owedSince(s.ledger, s.chain) : null, s.chain.length > 0, s.parameters);
}

/** [PACE-4] Whether the primary could propose the next block, as far as this replica is one to tell. */
function couldPropose(s: State): boolean {
  if (s.base !== null || !seesQuorum(s)) return false;
  // Behind the others: what is missing here may have been proposed, and decided, long ago.
  if (s.catchUp.active || (s.headCertificate?.height ?? 0) > s.ledger.height) return false;
  return tip(s).height < s.checkpoints.stableHeight + 4 * s.parameters.checkpointInterval; // PBFT-PP-7
}

/** [STALL-1] */
export function blameSelf(s: State, what: Stall['what'], ms: number): void {
  if (ms <= 0) return;
  s.stalls.note(s.now, what, ms);
  forgive(s, ms);
}

/** [STALL-2] [STALL-4] A primary that finds itself unfit asks for the next view before it is given up; the others follow at once (STALL-3). */
function handsOver(s: State): boolean {
  const { viewTimeoutMs } = s.parameters;
  if (s.stalls.ms > s.stalls.msMax(viewTimeoutMs)) {
    const what = s.stalls.disk !== null && s.stalls.diskMs >= s.stalls.loopMs ? 'disk' : 'event loop';
    s.stalls.handedOver(s.now);
    startViewChange(s, next.view(s.view), `this primary stalls too often to lead: its own ${what}`);
    return true;
  }
  const first = s.chain[0];
  if (
    first === undefined ||
    s.base !== null ||
    s.now - Math.max(s.decidedAt, s.waitingSince, s.viewSince) <= votesWithin(s)
  )
    return false;
  const { height } = first.block.header;
  if (s.votes.voters('prepare', height, first.block.hash).some((id) => id !== s.self)) return false;
  s.backoff += 1;
  startViewChange(
    s,
    next.view(s.view),
    'nobody votes for what this primary proposes: its clock or its links are at fault',
  );
  return true;
}

/** [STALL-6] It is to be taken away: as when it finds itself unfit, the others follow at once (STALL-3). */
export function onHandOver(s: State): void {
  if (s.mode !== 'active' || s.quarantine !== null || !isPrimary(s) || !seesQuorum(s)) return;
  const view = next.view(s.view);
  s.out.events.push({ type: 'handing-over', to: primaryOf(s, view) });
  startViewChange(s, view, 'this primary hands over');
}

/** [STALL-4] A clock that gains lets each proposal wait a little longer than the last: who knows that its own was set does not wait as long. */
function votesWithin(s: State): number {
  const isClockSet = Math.abs(s.wallLeftMs) > s.parameters.timeDriftMsMax;
  return isClockSet ? timeoutOf(s) / 4 : timeoutOf(s);
}

/** Nothing is anybody's fault before now: this replica is cut off. */
function restTimers(s: State): void {
  forgive(s, s.now);
}

/** This replica itself was late by so much: everybody is given that time again, and no more. */
function forgive(s: State, lateMs: number): void {
  const later = (at: Millis): Millis => plus.millis(at, Math.min(lateMs, s.now - at));
  s.viewSince = later(s.viewSince);
  s.primaryHeardAt = later(s.primaryHeardAt);
  s.waitingSince = later(s.waitingSince);
  s.decidedAt = later(s.decidedAt);
  s.pace.forgive(lateMs);
  if (s.quorumAskedAt !== null) s.quorumAskedAt = later(s.quorumAskedAt);
}

/** [PBFT-HB-2] When nothing moves, what was pledged and proposed is said again: a connection may have lost it. */
function sayAgain(s: State): void {
  const stuck =
    s.mode === 'changing' || s.chain.length > 0 || s.base !== null || s.checkpoints.ownVotes(s.self).length > 0;
  const pause = Math.max(timeoutOf(s) / 2, s.parameters.heartbeatMs);
  if (!stuck || s.now - Math.max(s.resentAt, s.decidedAt) < pause) return;
  s.resentAt = s.now;
  sayAgainTo(s, 'all');
}

export function sayAgainTo(s: State, to: ReplicaId | 'all'): void {
  if (s.mode === 'changing') {
    if (s.ownViewChange !== null) s.out.resend.push({ to, signed: s.ownViewChange });
  } else {
    if (s.newView !== null && (to !== 'all' || isPrimary(s))) s.out.resend.push({ to, signed: s.newView });
    if (s.leading) {
      // What lies up to the base was proposed in an older view, perhaps by this very replica: the new-view shows it.
      const base = s.newView === null ? 0 : (baseOf(s.newView.message)?.certificate.height ?? 0);
      for (const { block } of s.chain)
        if (block.header.height > base)
          s.out.send.push({ to, message: { kind: 'pre-prepare', epoch: s.epoch, view: s.view, block } });
    }
    for (const votes of s.pledged.values()) for (const signed of votes) s.out.resend.push({ to, signed });
  }
  for (const signed of s.checkpoints.ownVotes(s.self)) s.out.resend.push({ to, signed });
}

/** [REQ-3] Once in a while: what can never be ordered any more is reported. */
function sweep(s: State): void {
  if (s.now - s.sweptAt < s.parameters.viewTimeoutMs) return;
  s.sweptAt = s.now;
  s.out.admissions.push(...s.pool.sweep(s.ledger));
}

/** The next moment at which `onTime` may have something to do. */
export function wakeAt(s: State): Millis {
  const timeout = timeoutOf(s);
  const deadlines = [s.heartbeatAt];
  if (s.mode === 'active' && !isPrimary(s) && s.quarantine === null)
    deadlines.push(plus.millis(Math.max(s.primaryHeardAt, s.viewSince) as Millis, timeout + 1));
  if (s.quorumAskedAt !== null) deadlines.push(plus.millis(s.quorumAskedAt, timeout + 1));
  return Math.min(...deadlines) as Millis; // the least of branded numbers
}
