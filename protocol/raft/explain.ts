// What a Raft server waits for (crash/explain.ts). [WHY-1] Nothing here changes anything.

import type { Wait } from '../core.ts';
import type { Election } from '../crash/election.ts';
import { latest, nextOf, openSince, waitForLeader, waitForProposal, waitOf } from '../crash/explain.ts';
import type { CrashState } from '../crash/state.ts';
import type { Height, ReplicaId, View } from '../types.ts';
import { next } from '../types.ts';

export interface Standing {
  /** The view that it follows, or leads, or runs for. */
  readonly view: View;
  /** Whether it leads, or hears who does. */
  readonly active: boolean;
  readonly leader: ReplicaId;
  /** Of a candidate: who votes for it; null: it is none. */
  readonly votes: readonly ReplicaId[] | null;
  readonly election: Election;
  /** Of a leader: the end of its log; null: it is none. */
  readonly last: Height | null;
  /** Who is known to hold the entry at this index. */
  readonly holders: (height: Height) => readonly ReplicaId[];
}

export function waitsOf(s: CrashState, { view, active, leader, votes, election, last, holders }: Standing): Wait[] {
  const waits: Wait[] = [];
  if (votes !== null)
    waits.push(waitOf(s, view, { what: 'vote', height: nextOf(s), have: votes, since: election.since }));
  if (!active) return [...waits, waitForLeader(s, view, election.leaderlessSince)];
  if (last === null) return waitForProposal(s, view, leader, election.since);
  const since = latest(openSince(s), election.since);
  for (let height = nextOf(s); height <= last; height = next.height(height))
    waits.push(waitOf(s, view, { what: 'commit', height, have: holders(height), since }));
  return waits;
}
