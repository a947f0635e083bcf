// What a replica with a leader waits for, in Paxos (crash/explain.ts). [WHY-1] Nothing here changes anything.

import type { Wait } from '../core.ts';
import type { Election } from '../crash/election.ts';
import { latest, nextOf, openSince, waitForLeader, waitForProposal, waitOf } from '../crash/explain.ts';
import type { CrashState } from '../crash/state.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import type { Proposer } from './proposer.ts';

export interface Standing {
  readonly ballot: View;
  /** Whether it leads, or hears who does. */
  readonly active: boolean;
  readonly leader: ReplicaId;
  readonly proposer: Proposer;
  readonly election: Election;
  /** For whose acceptance this slot waits, since it was proposed. */
  readonly acceptance: (slot: Height, since: Millis) => Wait;
}

export function waitsOf(s: CrashState, { ballot, active, leader, proposer, election, acceptance }: Standing): Wait[] {
  const waits: Wait[] = [];
  for (const { height, holders, since } of s.catchUp.wanted())
    waits.push(waitOf(s, ballot, { what: 'block', height, missing: holders, since }));
  const { phase, promisers: have } = proposer;
  if (phase === 'preparing')
    waits.push(waitOf(s, ballot, { what: 'promise', height: nextOf(s), have, since: election.since }));
  if (!active) waits.push(waitForLeader(s, ballot, election.leaderlessSince));
  else if (phase === 'idle') waits.push(...waitForProposal(s, ballot, leader, election.since));
  else for (const slot of proposer.proposals.keys()) waits.push(acceptance(slot, latest(openSince(s), election.since)));
  return waits;
}

export type Casts = readonly { readonly hash: Hash; readonly by: readonly ReplicaId[] }[];

/** For `need` of these acceptors to accept one value; who has accepted another has voted. */
export function waitForAcceptance(
  s: CrashState,
  view: View,
  casts: Casts,
  {
    slot: height,
    need,
    among,
    since,
  }: {
    readonly slot: Height;
    readonly need: number;
    readonly among: readonly ReplicaId[];
    readonly since: Millis;
  },
): Wait {
  const voted = casts.flatMap(({ by }) => by);
  const most = [...casts].sort((a, b) => b.by.length - a.by.length)[0]?.by ?? [];
  const have = most.filter((id) => among.includes(id));
  const missing = among.filter((id) => !voted.includes(id));
  return waitOf(s, view, { what: 'commit', height, have, need, missing, since });
}
