// A core for the protocol that the genesis names: the one place that knows all of them.

import type { Sha256 } from './block.ts';
import type { Certificate } from './certificate.ts';
import type { Core } from './core.ts';
import type { Genesis } from './genesis.ts';
import type { RecoveredLog } from './log.ts';
import type { ReplicaMessage, ReplicaPledge } from './messages.ts';
import { BasicPaxos } from './paxos/basic.ts';
import { CheapPaxos } from './paxos/cheap.ts';
import { FastPaxos } from './paxos/fast.ts';
import { MultiPaxos } from './paxos/multi.ts';
import { Pbft } from './pbft/pbft.ts';
import { Raft } from './raft/raft.ts';
import type { Epoch, Millis, ReplicaId, View } from './types.ts';

export type ReplicaCore = Core<ReplicaMessage, ReplicaPledge>;

export interface CoreOptions {
  readonly genesis: Genesis;
  readonly epoch: Epoch;
  readonly self: ReplicaId;
  readonly sha256: Sha256;
}

/** What a core starts from. */
export interface Recovery {
  /** Null for a new chain. */
  readonly log: RecoveredLog | null;
  /** What the guard's file says: the highest view of any mark, the view it led last, the highest prepared certificate. */
  readonly guard: { readonly view: View; readonly led: View | null; readonly lock: Certificate | null };
}

/** Throws where what was recovered contradicts itself. */
export function makeCore(options: CoreOptions, recovery: Recovery, now: Millis): ReplicaCore {
  switch (options.genesis.protocol) {
    case 'pbft':
      // The cast: frames of another protocol do not pass verify.ts (CFT-W-1), so what this core is given is its own.
      return new Pbft(options, recovery, now) as unknown as ReplicaCore;
    case 'basic-paxos':
      return new BasicPaxos(options, recovery, now);
    case 'multi-paxos':
      return new MultiPaxos(options, recovery, now);
    case 'cheap-paxos':
      return new CheapPaxos(options, recovery, now);
    case 'fast-paxos':
      return new FastPaxos(options, recovery, now);
    case 'raft':
      return new Raft(options, recovery, now);
  }
}
