// What a Raft server waits for (crash/explain.ts). [WHY-1] Nothing here changes anything.

import type { Wait } from '../core.ts';
import { waitOf } from '../crash/explain.ts';
import type { CrashState } from '../crash/state.ts';
import type { Height, Millis, ReplicaId, View } from '../types.ts';
import { next, plus } from '../types.ts';

export interface Standing {
  readonly ballot: View;
  /** Whether it leads, or hears who does. */
  readonly active: boolean;
  readonly leader: ReplicaId;
  /** Of a candidate: who votes for it. */
  readonly votes: readonly ReplicaId[];
  /** Since when it waits for a leader, or is one. */
  readonly since: Millis;
  /** Of a leader: the end of its log; null: it is none. */
  readonly last: Height | null;
  /** Who is known to hold the entry at this index. */
  readonly holders: (height: Height) => readonly ReplicaId[];
}

export function waitsOf(s: CrashState, { ballot, active, leader, votes, since, last, holders }: Standing): Wait[] {
  const following = plus.height(s.ledger.height, 1);
  if (!active) {
    const have = [...votes].sort((a, b) => a - b);
    return [waitOf(s, ballot, { what: 'view-change', height: following, have, since })];
  }
  if (last === null) {
    if (s.pool.oldestAt === null) return [];
    const waiting = Math.max(s.decidedAt, s.pool.oldestAt, since) as Millis; // the latest
    return [waitOf(s, ballot, { what: 'pre-prepare', height: following, missing: [leader], since: waiting })];
  }
  const waits: Wait[] = [];
  for (let height = following; height <= last; height = next.height(height))
    waits.push(waitOf(s, ballot, { what: 'commit', height, have: holders(height), since: s.decidedAt }));
  return waits;
}
