// How a leader's log reaches its followers: section 5.3 of the paper. What each of them lacks is sent without waiting for answers (progress.ts).

import type { Audience } from '../core.ts';
import type { CrashState } from '../crash/state.ts';
import type { AppendEntries } from '../messages.ts';
import type { Height, ReplicaId } from '../types.ts';
import { asHeight, plus } from '../types.ts';
import type { EntryLog } from './log.ts';
import type { Progress } from './progress.ts';
import type { RaftState } from './state.ts';

export interface Replicating {
  readonly s: CrashState;
  readonly r: RaftState;
  readonly log: EntryLog;
  readonly progress: Progress;
}

/** The entry that was just appended: one message, encoded and signed once, to all who lack this entry alone; nearly always everyone. */
export function replicateLast(leader: Replicating): void {
  const { r, log, progress } = leader;
  const { last } = log;
  const { followers } = progress;
  const abreast = followers.filter((replica) => nextFor(leader, replica) === last);
  if (abreast.length > 0) sayAppend(leader, abreast, asHeight(last - 1), log.at(last) ?? null);
  for (const replica of abreast) progress.send(replica, plus.height(last, 1));
  for (const replica of followers) replicate(leader, replica);
  // Whoever takes it learns from it what is decided.
  if (abreast.length === followers.length) r.told = r.committed;
}

/** Everything that this replica was not sent yet, one entry a message, without waiting for answers. */
export function replicate(leader: Replicating, to: ReplicaId): void {
  const { log, progress } = leader;
  for (let at = nextFor(leader, to); at <= log.last; at++) sayAppend(leader, to, asHeight(at - 1), log.at(at) ?? null);
  progress.send(to, plus.height(log.last, 1));
}

function nextFor({ log, progress }: Replicating, replica: ReplicaId): number {
  return Math.max(progress.nextOf(replica), log.decided + 1);
}

export function sayAppend({ s, r, log }: Replicating, to: Audience, prev: Height, entry: AppendEntries['entry']): void {
  s.out.say(to, {
    kind: 'append-entries',
    epoch: s.epoch,
    term: r.term,
    prev,
    prevTerm: log.termAt(prev),
    decided: r.committed,
    entry,
  });
}
