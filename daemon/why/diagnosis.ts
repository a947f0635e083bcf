// What keeps one replica from doing its work, from its own explain(): data in, data out. A cause carries a stable code, whom it is
// about, and since when; what only follows from another cause is left out. Words are made of it in words.ts; network.ts puts the
// diagnoses of several replicas together.

import type { Explanation, PeerView, Wait } from '../../protocol/core.ts';
import type { Height, Millis, ReplicaId, View } from '../../protocol/types.ts';
import { asMillis, plus } from '../../protocol/types.ts';

/** What a replica tells about itself: its explain(), and whether it is shutting down. */
export interface Report {
  readonly explanation: Explanation;
  readonly draining: boolean;
  /** How long the synced write that is under way has taken, in ms; 0: none is. */
  readonly writingMs: number;
}

export type ReplicaState = 'idle' | 'ordering' | 'view-change' | 'catching-up' | 'quarantine' | 'cut-off' | 'draining';

/** `who`: whom the cause is about, by rising id; `since`: null where that is not known. Codes are stable (docs/operations.md). */
export type Cause = ReplicaCause | NetworkCause;

/** What a replica can tell from what it hears alone. */
export type ReplicaCause =
  | About<'draining'>
  /**
   * It votes for nothing, for what its key has signed is not known (REC-1); who: itself. Standing: of the other members `have` have answered, and
   * `need` must; from: those that have not. Readmission: a block at `height` or above must be decided. View: the others must enter `view`.
   */
  | (About<'quarantine'> & {
      readonly stage: 'standing' | 'readmission' | 'view';
      readonly height: Height;
      readonly view: View;
      readonly have: number;
      readonly need: number;
      readonly from: readonly ReplicaId[];
    })
  /** Too few answer for a quorum; who: those that do not. */
  | (About<'no-quorum'> & Counted)
  /**
   * No view is active. Asked: too few have asked for it; who: those that answer and have not. Opening: its primary has not opened it; who:
   * that one. Nobody is named at first. Where members are trusted: Leader: it hears none, as `have` of them say; who: itself, where others hear one.
   * Promise, vote: who owns the view runs for leader. Noted: it leads, and its working set is not noted. Who: those that answer and have not.
   */
  | (About<'view-change'> & Counted & { readonly view: View; readonly stage: ElectionStage | 'asked' | 'opening' })
  /**
   * Cheap Paxos: nobody leads before one of the latest working set promises (CHP-2); who: all of it. From: those of it that answer, and have not;
   * none: they are down.
   */
  | (About<'working-set'> & { readonly from: readonly ReplicaId[] })
  /** It is behind, and gains; who: itself; from: whom it has asked. */
  | (About<'catching-up'> & Behind)
  /** It is behind, and has gained nothing for a while; who: itself; from: those that are ahead and answer. */
  | (About<'behind'> & Behind)
  /** A certified block is not here; who: itself; from: those that signed for it and answer. */
  | (About<'block-missing'> & { readonly height: Height; readonly from: readonly ReplicaId[] })
  /** Its own vote is not said, for it is not durable yet; who: itself. */
  | (About<'disk-slow'> & { readonly height: Height; readonly view: View; readonly what: Wait['what'] | 'write' })
  /** A proposal is not voted for, for its time is too far off; who: itself. */
  | (About<'clock-off'> & { readonly height: Height; readonly offMs: number })
  /** An accepted block is short of votes; who: those that answer and have not voted. */
  | (About<'votes-missing'> & Counted & { readonly height: Height; readonly phase: 'prepare' | 'promise' | 'commit' })
  /** Bundles wait and nothing is proposed; who: the primary. */
  | (About<'proposal-missing'> & { readonly height: Height; readonly bundles: number })
  /** The window is used up until a checkpoint is signed by a quorum; who: those that answer and have not signed it. */
  | (About<'checkpoint-missing'> & Counted & { readonly height: Height })
  | (About<'primary-silent'> & { readonly view: View })
  /** The primary is late with what it was given; who: it. `percent` of the time with work in hand it was not. */
  | (About<'primary-slow'> & {
      readonly view: View;
      readonly percent: number;
      readonly lateMs: number;
      readonly lateMsMax: number;
    })
  /** Its own event loop or disk held it up; who: itself; since: when that ended. */
  | (About<'stalled'> & { readonly what: 'loop' | 'disk'; readonly ms: number })
  /** A quorum answers without these. */
  | (About<'member-away'> & Counted);

/** What an election waits for: its kinds of Wait. */
type ElectionStage = 'leader' | 'promise' | 'vote' | 'noted';

/** What shows only when several are asked. */
export type NetworkCause =
  /** Its HTTP door does not answer, and its peers hear it. */
  | About<'door-silent'>
  /** They run, and the others that run go on without them, for they do not hear a quorum. */
  | (About<'cut-off'> & Counted)
  /** Enough run for a quorum, and the links between them do not make one. */
  | (About<'split'> & Counted & { readonly groups: readonly (readonly ReplicaId[])[] })
  /** Both hear a quorum, and not each other. */
  | (About<'link-down'> & { readonly pairs: readonly (readonly [ReplicaId, ReplicaId])[] })
  /** None of those that were asked answers. */
  | About<'unreachable'>;

export type CauseCode = Cause['code'];

interface About<Code extends string> {
  readonly code: Code;
  readonly who: readonly ReplicaId[];
  readonly since: Millis | null;
}

/** Of `of` members `have` are there, have voted or have asked, and `need` are needed. */
interface Counted {
  readonly have: number;
  readonly need: number;
  readonly of: number;
}

interface Behind {
  readonly height: Height;
  readonly to: Height;
  readonly from: readonly ReplicaId[];
  readonly chunks: { readonly have: number; readonly need: number } | null;
}

/** The smallest thing that helps. Any `count` of `who`; `wait`: it mends itself. */
export interface Action {
  readonly code: 'start' | 'connect' | 'look' | 'disk' | 'clock' | 'submit' | 'wait';
  readonly who: readonly ReplicaId[];
  readonly count: number;
}

export interface Diagnosis {
  readonly state: ReplicaState;
  /** What must be mended first stands first; empty: nothing is wrong. */
  readonly causes: readonly ReplicaCause[];
  /** Whether this replica can serve: caught up, in an active view, with a quorum. What /readyz answers. */
  readonly ready: boolean;
  readonly action: Action | null;
  /** Members that answer, this replica included. */
  readonly answering: number;
  readonly members: number;
}

/** Causes with which a replica is not ready; the others are about the network at large, which a load balancer cannot choose. */
const notReadyCodes: readonly CauseCode[] = [
  'draining',
  'quarantine',
  'no-quorum',
  'working-set',
  'view-change',
  'catching-up',
  'behind',
  'block-missing',
];

export function diagnose(report: Report): Diagnosis {
  const { explanation, draining } = report;
  const causes = draining ? [drainingOf(explanation)] : causesOf(report);
  const members = explanation.peers.length + 1;
  return {
    state: stateOf(explanation, causes),
    causes,
    ready: !causes.some(({ code }) => notReadyCodes.includes(code)),
    action: actionOf(causes),
    answering: explanation.peers.filter((peer) => answers(explanation, peer)).length + 1,
    members,
  };
}

/** [WHY-2] Connected, and heard within two view timeouts: a connection may be the last to notice. */
export function answers({ at, baseTimeoutMs }: Explanation, { connected, heardAt }: PeerView): boolean {
  return connected && heardAt !== null && at - heardAt <= 2 * baseTimeoutMs;
}

/** What is waited for longer is worth a word: after a whole timeout the view may be given up. */
const patienceMs = ({ baseTimeoutMs }: Explanation): number => baseTimeoutMs / 2;

const betweenViews: readonly Wait['what'][] = ['view-change', 'new-view', 'leader', 'promise', 'vote'];

/** Of who votes in no view: what it waits for. The view that it speaks of is the one that it asks for, and its primary is none yet. */
export const waitBetweenViews = ({ phase, waits }: Explanation): Wait | undefined =>
  phase === 'quarantine' ? undefined : waits.find(({ what }) => betweenViews.includes(what));

export const isBetweenViews = (explanation: Explanation): boolean => waitBetweenViews(explanation) !== undefined;

function stateOf({ phase }: Explanation, causes: readonly Cause[]): ReplicaState {
  const has = (code: CauseCode) => causes.some((cause) => cause.code === code);
  if (has('draining')) return 'draining';
  if (phase === 'quarantine') return 'quarantine';
  if (has('no-quorum')) return 'cut-off';
  if (phase === 'view-change') return 'view-change';
  if (has('catching-up') || has('behind')) return 'catching-up';
  // A checkpoint that is being fetched although nobody is believed to be ahead: no reason for an alarm.
  return phase === 'catching-up' ? 'ordering' : phase;
}

const drainingOf = ({ self }: Explanation): ReplicaCause => ({ code: 'draining', who: [self], since: null });

function causesOf(report: Report): ReplicaCause[] {
  const { explanation } = report;
  const { at, self, waits, peers } = explanation;
  const away = peers.filter((peer) => !answers(explanation, peer)).map(({ replica }) => replica);
  // [REC-1] Before anything else: whatever is mended first, it does not vote.
  let causes: ReplicaCause[] = quarantineOf(explanation);
  const noQuorum = noQuorumOf(explanation, away);
  // [WHY-3] Its own fault comes first, but for a quorum, or a working set, that is not there.
  const ownDisk = ownDiskOf(report);
  if (noQuorum !== null) return [...causes, noQuorum, ...(ownDisk === null ? [] : [ownDisk])];
  if (ownDisk !== null) causes.push(ownDisk);
  const stalled = ownDisk === null ? stalledOf(explanation) : null;
  if (stalled !== null) causes.push(stalled);
  if (explanation.clock !== null) causes.push({ code: 'clock-off', who: [self], since: null, ...explanation.clock });
  const slow = primarySlowOf(explanation);
  if (slow !== null) causes.push(slow);
  const present = (who: readonly ReplicaId[]) => who.filter((id) => id !== self && !away.includes(id));
  for (const wait of explanation.phase === 'quarantine' ? [] : waits) {
    const late = at - wait.since > patienceMs(explanation);
    const cause = causeOf(explanation, wait, present(wait.missing), late);
    // One block of several in flight stands for all: they wait for the same.
    if (cause !== null && !causes.some(({ code }) => code === cause.code)) causes.push(cause);
  }
  // [CHP-2] No election succeeds without it, whatever else there is.
  const set = causes.find(({ code }) => code === 'working-set');
  if (set !== undefined) causes = [set, ...causes.filter((each) => each !== set && each.code !== 'view-change')];
  // A block that is asked for by its hash says more than the height that it holds back.
  const behind = causes.some(({ code }) => code === 'block-missing') ? null : behindOf(explanation, away);
  if (behind !== null) causes.push(behind);
  const isNamed = ({ code, who }: ReplicaCause, id: ReplicaId) =>
    (code === 'primary-silent' || code === 'working-set') && who.includes(id);
  const gone = away.filter((id) => !causes.some((cause) => isNamed(cause, id)));
  if (gone.length > 0)
    causes.push({ code: 'member-away', who: gone, since: lastHeard(explanation, gone), ...counted(explanation, away) });
  return causes;
}

function quarantineOf({ self, phase, waits }: Explanation): ReplicaCause[] {
  if (phase !== 'quarantine') return [];
  return waits.map(({ what, since, height, view, have, need, missing: from }) => {
    const stage = what === 'standing' || what === 'readmission' ? what : 'view';
    return { code: 'quarantine', stage, who: [self], since, height, view, have, need, from };
  });
}

const counted = ({ peers, quorum }: Explanation, away: readonly ReplicaId[]): Counted => ({
  have: peers.length + 1 - away.length,
  need: quorum,
  of: peers.length + 1,
});

function noQuorumOf(explanation: Explanation, away: readonly ReplicaId[]): ReplicaCause | null {
  const count = counted(explanation, away);
  if (count.have >= count.need) return null;
  return { code: 'no-quorum', who: away, since: quorumLostAt(explanation, away), ...count };
}

/** When the last but so many of them fell silent that a quorum was left. */
function quorumLostAt({ peers, quorum }: Explanation, away: readonly ReplicaId[]): Millis | null {
  const times = peers.filter(({ replica }) => away.includes(replica)).map(({ heardAt }) => heardAt);
  const short = quorum - (peers.length + 1 - away.length);
  return times.sort((a, b) => (b ?? 0) - (a ?? 0))[short - 1] ?? null;
}

function lastHeard({ peers }: Explanation, who: readonly ReplicaId[]): Millis | null {
  const times = peers.flatMap(({ replica, heardAt }) => (who.includes(replica) && heardAt !== null ? [heardAt] : []));
  return latestOf(times);
}

export const latestOf = (times: readonly Millis[]): Millis | null =>
  times.length === 0 ? null : asMillis(Math.max(...times));
export const earliestOf = (times: readonly Millis[]): Millis | null =>
  times.length === 0 ? null : asMillis(Math.min(...times));

function ownDiskOf({ explanation, writingMs }: Report): ReplicaCause | null {
  const { at, self, waits, height: head, view: current } = explanation;
  const patience = patienceMs(explanation);
  const wait = waits.find(({ missing, since }) => missing.includes(self) && at - since > patience);
  if (wait === undefined) {
    // The others may order without its votes, so that nothing waits for them.
    if (writingMs <= patience) return null;
    const since = plus.millis(at, -writingMs);
    return { code: 'disk-slow', who: [self], since, height: head, view: current, what: 'write' };
  }
  const { what, height, view, since } = wait;
  return { code: 'disk-slow', who: [self], since, height, view, what };
}

/** Of the two kinds the longer one, where it lasted for half a timeout and ended less than two timeouts ago. */
function stalledOf(explanation: Explanation): ReplicaCause | null {
  const { at, self, stalls, baseTimeoutMs } = explanation;
  let longest: ReplicaCause | null = null;
  let most = patienceMs(explanation);
  for (const what of ['loop', 'disk'] as const) {
    const last = stalls[what];
    if (last === null || last.ms <= most || at - last.at > 2 * baseTimeoutMs) continue;
    most = last.ms;
    longest = { code: 'stalled', who: [self], since: last.at, what, ms: last.ms };
  }
  return longest;
}

/** Half of what it takes to give the primary up: before that it may have been a moment. */
function primarySlowOf({ pace, primary, view }: Explanation): ReplicaCause | null {
  if (pace === null || pace.lateMs <= pace.lateMsMax / 2) return null;
  const { percent, lateMs, lateMsMax, owedSince } = pace;
  return { code: 'primary-slow', who: [primary], since: owedSince, view, percent, lateMs, lateMsMax };
}

/** How long nothing may be gained: peers are asked in turn, each for one timeout. */
const GAIN_TIMEOUTS_MAX = 4;

function behindOf(explanation: Explanation, away: readonly ReplicaId[]): ReplicaCause | null {
  const { at, self, phase, height, highestSeen: to, catchUp, baseTimeoutMs, window, peers } = explanation;
  if (to <= height) return null;
  const since = catchUp?.since ?? null;
  const chunks = catchUp?.chunks ?? null;
  if (since !== null && at - since > GAIN_TIMEOUTS_MAX * baseTimeoutMs) {
    const ahead = peers.filter((peer) => peer.height > height && !away.includes(peer.replica));
    const from = ahead.map(({ replica }) => replica);
    return { code: 'behind', who: [self], from, since, height, to, chunks };
  }
  // Blocks of the window are on their way by votes; more than that is a gap to be caught up.
  const near = to <= height + window && (since === null || at - since <= baseTimeoutMs);
  if (phase !== 'catching-up' && near) return null;
  return { code: 'catching-up', who: [self], from: catchUp?.asked ?? [], since, height, to, chunks };
}

/** `who`: those of `wait.missing` that answer. Null: nothing is wrong yet, or others are to blame that another cause names. */
function causeOf(explanation: Explanation, wait: Wait, who: readonly ReplicaId[], late: boolean): ReplicaCause | null {
  const { at, self, view, pool, peers, baseTimeoutMs } = explanation;
  const { what, height, since, have, need } = wait;
  const count = { have, need, of: peers.length + 1 };
  switch (what) {
    case 'view-change':
      return { code: 'view-change', stage: 'asked', who: late ? who : [], since, view: wait.view, ...count };
    case 'new-view':
      return { code: 'view-change', stage: 'opening', who: late ? who : [], since, view: wait.view, ...count };
    case 'leader': {
      // Nobody is to blame where enough hear none; else it is, once the others have had their time to notice.
      const isAlone = have < need && who.length > 0 && at - since > 2 * baseTimeoutMs;
      const cause = { code: 'view-change', stage: what, since, view: wait.view, ...count } as const;
      return late ? { ...cause, who: isAlone ? [self] : [] } : null;
    }
    // A leader may take another view for its own reasons, and has it in a moment.
    case 'promise':
    case 'vote':
    case 'noted':
      return late ? { code: 'view-change', stage: what, who, since, view: wait.view, ...count } : null;
    case 'phase-1':
      return late && who.length > 0 ? { code: 'votes-missing', phase: 'promise', who, since, height, ...count } : null;
    case 'heartbeat':
      return { code: 'primary-silent', who: wait.missing, since, view };
    case 'lead':
      return null; // its own disk
    case 'working-set': {
      // One that is back has had its time when it was asked long enough ago.
      const run = explanation.waits.find((each) => each.what === 'promise');
      const isLate = run !== undefined && at - run.since > patienceMs(explanation);
      return isLate || who.length === 0 ? { code: what, who: wait.missing, since, from: who } : null;
    }
    case 'standing':
    case 'readmission':
      return null; // its quarantine
    case 'prepare':
    case 'commit':
      return late && who.length > 0 ? { code: 'votes-missing', phase: what, who, since, height, ...count } : null;
    case 'checkpoint':
      return late && who.length > 0 ? { code: 'checkpoint-missing', who, since, height, ...count } : null;
    case 'block':
      return late ? { code: 'block-missing', who: [self], from: who, since, height } : null;
    case 'pre-prepare':
      return late && !wait.missing.includes(self) && who.length > 0
        ? { code: 'proposal-missing', who, since, height, bundles: pool.bundles }
        : null;
  }
}

/** What mends the first cause, for the others often go with it. A quarantine waits for answers, and those who are away give none. */
export function actionOf(causes: readonly Cause[]): Action | null {
  const [first, ...others] = causes;
  if (first === undefined) return null;
  const isWaiting = first.code === 'quarantine' && first.stage === 'standing';
  const away = others.find(({ code }) => code === 'no-quorum' || code === 'member-away');
  return actionFor(isWaiting && away !== undefined ? away : first);
}

export function actionFor(cause: Cause): Action | null {
  const { code, who } = cause;
  switch (code) {
    case 'draining':
      return null;
    case 'no-quorum':
      return { code: 'start', who, count: cause.need - cause.have };
    case 'working-set':
      return {
        code: cause.from.length === 0 ? 'start' : 'look',
        who: cause.from.length === 0 ? who : cause.from,
        count: 1,
      };
    case 'member-away':
      return { code: 'start', who, count: who.length };
    case 'split':
    case 'cut-off':
    case 'link-down':
      return { code: 'connect', who, count: who.length };
    case 'quarantine':
      if (cause.stage === 'view') return { code: 'wait', who, count: 0 };
      return cause.stage === 'readmission'
        ? { code: 'submit', who, count: 0 }
        : { code: 'look', who: cause.from, count: Math.min(cause.from.length, cause.need - cause.have) };
    case 'view-change':
      if (cause.stage === 'leader' && who.length > 0) return { code: 'connect', who, count: who.length };
      return cause.stage !== 'opening' && who.length > 0
        ? { code: 'look', who, count: Math.min(who.length, cause.need - cause.have) }
        : { code: 'wait', who, count: 0 };
    case 'votes-missing':
    case 'checkpoint-missing':
      return { code: 'look', who, count: Math.min(who.length, cause.need - cause.have) };
    case 'behind':
    case 'block-missing':
      return { code: 'look', who, count: Math.min(who.length, 1) };
    case 'door-silent':
      return { code: 'look', who, count: who.length };
    case 'unreachable':
      return { code: 'start', who, count: who.length };
    case 'disk-slow':
      return { code: 'disk', who, count: who.length };
    case 'stalled':
      return { code: cause.what === 'disk' ? 'disk' : 'look', who, count: who.length };
    case 'clock-off':
      return { code: 'clock', who, count: who.length };
    case 'catching-up':
    case 'proposal-missing':
    case 'primary-silent':
    case 'primary-slow':
      return { code: 'wait', who, count: 0 };
  }
}
