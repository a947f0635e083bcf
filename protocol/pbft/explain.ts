// What a PBFT replica waits for, on whom, since when: in data. `synod why`, /readyz, the dashboard and the metrics read this.
// One height and one bundle are explained in explain-place.ts.

import type { CatchUpView, Explanation, PaceView, Wait } from '../core.ts';
import { explainStalls } from '../stalls.ts';
import type { Height, Millis, ReplicaId } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { boundOf, type Quarantine } from './quarantine.ts';
import type { State } from './state.ts';
import { isPrimary, primaryOf, timeoutOf, tip, wallNow } from './state.ts';
import { askersOf } from './view-change.ts';

/** A primary that has not been heard for so many heartbeats is waited for. */
const HEARTBEATS_MISSED_MAX = 3;

export function explain(s: State): Explanation {
  return {
    at: s.now,
    epoch: s.epoch,
    view: s.view,
    primary: primaryOf(s, s.view),
    self: s.self,
    phase: phaseOf(s),
    height: s.ledger.height,
    hash: s.ledger.head.hash,
    stable: s.checkpoints.stableHeight,
    highestSeen: highestSeen(s),
    pool: { bundles: s.pool.bundles, bytes: s.pool.bytes },
    inFlight: s.chain.length,
    waits: waitsOf(s),
    viewChanges: s.viewChangeCount,
    timeoutMs: timeoutOf(s),
    baseTimeoutMs: s.parameters.viewTimeoutMs,
    quorum: s.quorums.quorum,
    window: s.parameters.window,
    catchUp: catchUpOf(s),
    clock: clockOf(s),
    pace: paceOf(s),
    stalls: explainStalls(s.stalls, s.parameters.viewTimeoutMs),
    peers: [...s.peers]
      .sort(([a], [b]) => a - b)
      .map(([replica, peer]) => ({
        replica,
        connected: peer.connected,
        height: peer.status?.height ?? asHeight(0),
        view: peer.status?.view ?? s.view,
        heardAt: peer.heardAt,
        heard: peer.heard,
      })),
  };
}

function phaseOf(s: State): Explanation['phase'] {
  if (s.quarantine !== null) return 'quarantine';
  if (s.catchUp.active) return 'catching-up';
  if (s.mode === 'changing') return 'view-change';
  return s.chain.length > 0 || s.base !== null || s.pool.bundles > 0 ? 'ordering' : 'idle';
}

function highestSeen(s: State): Height {
  return asHeight(Math.max(s.ledger.height, s.catchUp.believed(s)));
}

/** What is decided here by votes is a gain too. */
function catchUpOf(s: State): CatchUpView | null {
  const view = s.catchUp.view(s);
  return view === null ? null : { ...view, since: latest(view.since, s.decidedAt) };
}

/** [BLK-4] The next block is here and is not voted for, for its time is off. */
function clockOf(s: State): Explanation['clock'] {
  if (s.mode !== 'active' || s.base !== null) return null;
  const height = plus.height(tip(s).height, 1);
  const proposal = s.proposals.get(height);
  if (proposal === undefined) return null;
  const offMs = proposal.message.block.header.time - wallNow(s);
  return Math.abs(offMs) > s.parameters.timeDriftMsMax ? { height, offMs } : null;
}

function paceOf(s: State): PaceView | null {
  const { pace, parameters } = s;
  if (s.mode !== 'active' || isPrimary(s)) return null;
  const { percent, lateMs, roundMs, owedSince } = pace;
  return {
    percent,
    lateMs: Math.round(lateMs),
    lateMsMax: pace.lateMsMax(parameters),
    allowedMs: Math.round(pace.allowedMs(parameters)),
    roundMs: roundMs === null ? null : Math.round(roundMs),
    owedSince,
  };
}

function waitsOf(s: State): Wait[] {
  if (s.quarantine !== null) return [waitInQuarantine(s, s.quarantine)];
  return s.mode === 'changing' ? waitsForView(s) : waitsInView(s);
}

/** [REC-3] [REC-4] It has no votes to wait for: first for answers of others, then for a block above all that it may have voted for, then for a view. */
function waitInQuarantine(s: State, quarantine: Quarantine): Wait {
  const { answered, since, terms } = quarantine;
  const bound = boundOf(s, quarantine);
  const height = plus.height(bound === null || s.ledger.height > bound ? s.ledger.height : bound, 1);
  if (terms !== null)
    return { ...waitFor(s, { what: 'new-view', height, missing: [], since }), view: asView(terms.view + 1) };
  if (bound !== null) return waitFor(s, { what: 'readmission', height, missing: [], since });
  const answers = wait(s, { what: 'standing', height, have: [...answered], need: s.quorums.quorum, since });
  return { ...answers, missing: answers.missing.filter((replica) => replica !== s.self) };
}

/** Between views: for enough requests, then for the primary that opens the view. */
function waitsForView(s: State): Wait[] {
  const { quorum } = s.quorums;
  const next = plus.height(tip(s).height, 1);
  const askers = askersOf(s);
  const primary = primaryOf(s, s.view);
  if (askers.length < quorum)
    return [wait(s, { what: 'view-change', height: next, have: askers, need: quorum, since: s.viewSince })];
  const since = s.quorumAskedAt ?? s.viewSince;
  // Its primary can show only requests for this very view.
  const asking = s.viewChanges.withKey(String(s.view)).map(([replica]) => replica);
  if (isPrimary(s) && asking.length < quorum)
    return [wait(s, { what: 'view-change', height: next, have: asking, need: quorum, since })];
  return [waitFor(s, { what: 'new-view', height: next, missing: [primary], since })];
}

function waitsInView(s: State): Wait[] {
  const { quorum } = s.quorums;
  const { checkpointInterval, heartbeatMs } = s.parameters;
  const primary = primaryOf(s, s.view);
  const next = plus.height(tip(s).height, 1);
  const waits: Wait[] = [];
  const silentFor = s.now - s.primaryHeardAt;
  if (!isPrimary(s) && silentFor > HEARTBEATS_MISSED_MAX * heartbeatMs)
    waits.push(waitFor(s, { what: 'heartbeat', height: next, missing: [primary], since: s.primaryHeardAt }));
  for (const { height, holders, since } of s.catchUp.wanted())
    waits.push(waitFor(s, { what: 'block', height, missing: holders, since }));
  for (const { block } of s.chain) {
    const { height } = block.header;
    const phases = s.phases.get(height);
    // What lies below the base of the view, or is covered by a commit certificate, is not voted for here.
    if (phases === undefined || height <= (s.headCertificate?.height ?? 0)) continue;
    const what = s.committed.has(height) ? 'commit' : 'prepare';
    const since = (what === 'commit' ? phases.preparedAt : null) ?? phases.acceptedAt;
    waits.push(wait(s, { what, height, have: s.votes.voters(what, height, block.hash), need: quorum, since }));
  }
  // PBFT-PP-7
  const checkpoint = next > s.checkpoints.anchorHeight + 4 * checkpointInterval ? s.checkpoints.awaited() : null;
  if (checkpoint !== null) {
    const { height, voters } = checkpoint;
    waits.push(wait(s, { what: 'checkpoint', height, have: voters, need: quorum, since: s.decidedAt }));
  }
  const { oldestAt } = s.pool;
  if (s.chain.length > 0 || s.base !== null || oldestAt === null || checkpoint !== null) return waits;
  if (!isPrimary(s)) {
    const since = latest(s.decidedAt, s.viewSince, oldestAt);
    waits.push(waitFor(s, { what: 'pre-prepare', height: next, missing: [primary], since }));
  } else if (!s.leading) {
    waits.push(waitFor(s, { what: 'lead', height: next, missing: [s.self], since: latest(s.viewSince, oldestAt) }));
  }
  return waits;
}

interface Waited {
  readonly what: Wait['what'];
  readonly height: Height;
  readonly since: Millis;
}

/** For a number of replicas. */
function wait(
  s: State,
  { what, height, have, need, since }: Waited & { readonly have: readonly ReplicaId[]; readonly need: number },
): Wait {
  const missing = s.genesis.members.map((member) => member.id).filter((replica) => !have.includes(replica));
  return { what, height, view: s.view, have: have.length, need, missing, since };
}

/** For one of these, or the only one. */
function waitFor(s: State, { missing, ...rest }: Waited & { readonly missing: readonly ReplicaId[] }): Wait {
  return { ...rest, view: s.view, have: 0, need: 1, missing };
}

const latest = (...times: readonly Millis[]): Millis => Math.max(...times) as Millis; // the latest of branded numbers
