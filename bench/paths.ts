// The path of one commit in each protocol, from the client that signs a bundle to the same client with a checked receipt, when nothing else is
// going on: what somebody waits for, one thing after the other. docs/family.md counts the same, and test/family-page.test.ts sees it in the simulator.

import { type Protocol, quorumsAmong } from '../protocol/modes.ts';

export interface Path {
  /** Messages, one after the other. */
  readonly hops: number;
  /** Synced writes, one after the other. */
  readonly syncs: number;
  /** Of one process alone; and of replicas at the same moment. */
  readonly signs: { readonly alone: number; readonly shared: number };
  readonly verifies: { readonly alone: number; readonly shared: number };
}

/** With the client at the leader, where there is one. */
export function pathOf(protocol: Protocol, n: number): Path {
  const { quorum } = quorumsAmong(protocol, n);
  switch (protocol) {
    case 'pbft':
      // Client, primary, prepare, commit, receipt; the client's bundle and the proposal are signed alone, prepare and commit by all at once.
      return {
        hops: 5,
        syncs: 2,
        signs: { alone: 2, shared: 2 },
        // The bundle at the primary, the certificate at the client; bundle and proposal at a backup, prepares and commits but one's own.
        verifies: { alone: 1 + quorum, shared: 2 + (quorum - 2) + (quorum - 1) },
      };
    case 'multi-paxos':
    case 'cheap-paxos':
    case 'fast-paxos':
    case 'raft':
      // Client, accept (append), accepted, receipt; the leader writes while the others do. Two members of three are enough.
      return {
        hops: 4,
        syncs: 1,
        signs: { alone: 3, shared: 1 },
        verifies: { alone: 2 + (quorum - 1), shared: 2 },
      };
    case 'basic-paxos':
      // And before that a prepare, which waits for its own promise, and a promise.
      return {
        hops: 6,
        syncs: 3,
        signs: { alone: 4, shared: 3 },
        verifies: { alone: 2 + 2 * (quorum - 1), shared: 3 },
      };
  }
}
