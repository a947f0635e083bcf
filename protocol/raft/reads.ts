// Read-index: Ongaro, Consensus: Bridging Theory and Practice (2014), section 6.4; Ongaro and Ousterhout (2014), section 8. What is asked, and when, stands in crash/reads.ts.

import type { Election } from '../crash/election.ts';
import type { Reading } from '../crash/reads.ts';
import type { CrashState } from '../crash/state.ts';
import { asHeight, asView } from '../types.ts';
import type { RaftState } from './state.ts';

/**
 * [RAFT-R-1] Whatever was committed before this leader's term stands below the first entry of its term, and what was committed in it, it knows itself. So a read waits for that entry.
 * Who answers has voted in no later term, and so has the majority that a later leader would have needed.
 */
export function readingOf(s: CrashState, r: RaftState, election: Election): Reading {
  const n = s.genesis.members.length;
  return {
    leads: r.role === 'leader' ? asView(r.term * n + s.self) : null,
    follows: election.hears(s) ? election.leader : null,
    top: asHeight(Math.max(r.committed, r.first)),
    held: s.ledger.height,
    back: (ballot) => r.role !== 'leader' && Math.floor(ballot / n) >= r.term,
    confirms: ({ size }) => size >= s.quorums.quorum,
  };
}
