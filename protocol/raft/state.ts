// What a Raft server knows beside its log (log.ts), what is decided (crash/state.ts) and who is heard (crash/election.ts): Ongaro and Ousterhout
// (2014), figure 2. Nothing here is durable by itself.

import type { Appended, Verified } from '../messages.ts';
import type { Height, ReplicaId, View } from '../types.ts';
import { asHeight, asView } from '../types.ts';
import type { HardState } from './hard-state.ts';

export interface RaftState {
  role: 'follower' | 'candidate' | 'leader';
  /** Durable with whatever is said in it; never runs back. */
  term: View;
  votedFor: ReplicaId | null;
  /** The term, the vote or the end of the log changed in this step. */
  dirty: boolean;
  /** Of a candidate: who votes for it. */
  readonly votes: Set<ReplicaId>;
  /** Up to where entries are committed, as far as known. */
  committed: Height;
  /** Of a leader: the first entry of its own term. */
  first: Height;
  /** Of a leader: what it has told the others of that. */
  told: Height;
  /** Of a follower: up to where its log is its leader's, in this term. */
  matched: Height;
  /** The match to be pledged at the end of the step; null: none. */
  toAck: Height | null;
  ack: Verified<Appended> | null;
  /** [RAFT-L-5] Entries up to here stand above a state of others that nothing links them to; 0: none. */
  unsure: Height;
  /** The block that is being decided comes of this log's entry. */
  deciding: boolean;
}

export function newState(decided: Height, hard: HardState | null): RaftState {
  return {
    role: 'follower',
    term: hard?.term ?? asView(0),
    votedFor: hard?.votedFor ?? null,
    dirty: false,
    votes: new Set(),
    committed: decided,
    first: asHeight(0),
    told: asHeight(0),
    matched: asHeight(0),
    toAck: null,
    ack: null,
    unsure: asHeight(0),
    deciding: false,
  };
}
