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

/** What an epoch may run on (genesis.ts); crash-fault protocols bring sizes of their own. */
export type ProtocolName = 'pbft';

/** By the protocol of an epoch. n must be one that it can run with. */
export function quorumsOf(protocol: ProtocolName, n: number): Quorums {
  assert(protocol === 'pbft', 'the one protocol that there is');
  return byzantineQuorums(n);
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
