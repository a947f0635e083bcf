// Quorums, from n alone. The only file that does this arithmetic; the protocols hear "quorum".
// PBFT: Castro and Liskov, OSDI 1999, section 3; sizes for any n >= 3f+1 as in the blueprint: q = ceil((n+f+1)/2).

import { assert } from './assert.ts';

export interface Quorums {
  /** Number of replicas. */
  readonly n: number;
  /** Faulty replicas that are tolerated: anything at all in Byzantine mode. */
  readonly f: number;
  /** Any two sets of this size share a correct replica. */
  readonly quorum: number;
  /** Any set of this size holds a correct replica. */
  readonly oneHonest: number;
}

/**
 * [CFT-Q-1] Sizes where members fail by silence alone: n from 3 to 128 bears f = floor((n-1)/2) of them, and a majority is a quorum
 * (Lamport, Paxos Made Simple, section 2.2). Nobody lies, so one replica's word is an honest one's.
 */
export function crashQuorums(n: number): Quorums {
  assert(Number.isInteger(n) && n >= 3 && n <= 128, `a crash-fault cluster has 3 to 128 replicas, not ${n}`);
  const f = Math.floor((n - 1) / 2);
  const quorum = Math.floor(n / 2) + 1;
  assert(2 * quorum - n >= 1, 'two majorities share a replica');
  assert(quorum <= n - f, 'those who live are a quorum');
  return { n, f, quorum, oneHonest: 1 };
}

/**
 * [FST-Q-1] Acceptors that choose in a fast round (Lamport, Fast Paxos, section 3.3): three quarters. Any two fast quorums and any majority share a
 * replica, so of two values in one slot a majority tells which of them may have been chosen.
 */
export function fastQuorum(n: number): number {
  const { quorum } = crashQuorums(n);
  const fast = Math.ceil((3 * n) / 4);
  assert(2 * fast + quorum - 2 * n >= 1, 'two fast quorums and a majority share a replica');
  return fast;
}

/** [PBFT-Q-1] Sizes for Byzantine faults. n from 4 to 128. */
export function byzantineQuorums(n: number): Quorums {
  assert(Number.isInteger(n) && n >= 4 && n <= 128, `a Byzantine cluster has 4 to 128 replicas, not ${n}`);
  const f = Math.floor((n - 1) / 3);
  const quorum = Math.ceil((n + f + 1) / 2);
  // Two quorums overlap in more than f replicas, so in an honest one; and the honest alone can form one.
  assert(2 * quorum - n >= f + 1, 'two quorums share an honest replica');
  assert(quorum <= n - f, 'the honest replicas alone are a quorum');
  return { n, f, quorum, oneHonest: f + 1 };
}
