// What a PBFT replica waits for, on whom, since when: in data. `synod why`, /readyz, the dashboard and the metrics read this.

import type { Explanation, Wait } from '../core.ts';
import type { Height, ReplicaId } from '../types.ts';
import { asHeight, plus } from '../types.ts';
import { boundOf } from './quarantine.ts';
import type { State } from './state.ts';
import { isPrimary, primaryOf, timeoutOf, tip } from './state.ts';
import { askersOf } from './view-change.ts';

export function explain(s: State): Explanation {
  return {
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
    peers: [...s.peers].map(([replica, peer]) => ({
      replica,
      connected: peer.connected,
      height: peer.status?.height ?? asHeight(0),
      view: peer.status?.view ?? s.view,
      heardAt: peer.heardAt,
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

function waitsOf(s: State): Wait[] {
  const others = s.genesis.members.map((member) => member.id);
  const without = (have: readonly ReplicaId[]) => others.filter((replica) => !have.includes(replica));
  const { quorum } = s.quorums;
  const height = plus.height(tip(s).height, 1);
  const wait = (
    what: Wait['what'],
    at: Height,
    have: readonly ReplicaId[],
    need: number,
    since: Wait['since'],
  ): Wait => ({
    what,
    height: at,
    view: s.view,
    have: have.length,
    need,
    missing: without(have),
    since,
  });

  const { quarantine } = s;
  if (quarantine !== null) {
    const bound = boundOf(s, quarantine);
    if (bound !== null)
      return [{ ...wait('readmission', plus.height(bound, 1), [], 1, quarantine.since), missing: [] }];
    // Answers of others alone: it has nothing to say itself.
    const { missing, ...answers } = wait('standing', height, [...quarantine.answered], quorum, quarantine.since);
    return [{ ...answers, missing: missing.filter((replica) => replica !== s.self) }];
  }
  if (s.mode === 'changing') {
    const askers = askersOf(s);
    if (askers.length < quorum) return [wait('view-change', height, askers, quorum, s.viewSince)];
    const primary = primaryOf(s, s.view);
    return [{ ...wait('new-view', height, [], 1, s.quorumAskedAt ?? s.viewSince), missing: [primary] }];
  }
  const waits: Wait[] = [];
  if (s.base !== null) {
    const { certificate } = s.base;
    waits.push({
      ...wait('block', certificate.height, [], 1, s.viewSince),
      missing: certificate.signatures.map((by) => by.replica),
    });
  }
  for (const { block } of s.chain) {
    const at = block.header.height;
    const what = s.committed.has(at) ? 'commit' : 'prepare';
    waits.push(wait(what, at, s.votes.voters(what, at, block.hash), quorum, s.waitingSince));
  }
  if (s.chain.length === 0 && s.base === null && s.pool.bundles > 0 && !isPrimary(s))
    waits.push({ ...wait('pre-prepare', height, [], 1, s.decidedAt), missing: [primaryOf(s, s.view)] });
  return waits;
}
