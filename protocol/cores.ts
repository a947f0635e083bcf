// A core for the protocol that the genesis names: the one place that knows all of them.

import type { Bytes } from '../crypto/bytes.ts';
import { InvariantViolation } from './assert.ts';
import type { Core } from './core.ts';
import type { CrashCore } from './crash/core.ts';
import type { ReplicaMessage, ReplicaPledge } from './messages.ts';
import { BasicPaxos } from './paxos/basic.ts';
import { CheapPaxos } from './paxos/cheap.ts';
import { FastPaxos } from './paxos/fast.ts';
import { MultiPaxos } from './paxos/multi.ts';
import { Pbft } from './pbft/pbft.ts';
import type { PbftOptions as CoreOptions, PbftRecovery as Recovery } from './pbft/recover.ts';
import { Raft } from './raft/raft.ts';
import type { SnapshotRefusal } from './snapshot.ts';
import { asMillis, asView, type Millis } from './types.ts';

export type ReplicaCore = Core<ReplicaMessage, ReplicaPledge>;

/** What a core is made for; and what it starts from. */
export type { PbftOptions as CoreOptions, PbftRecovery as Recovery } from './pbft/recover.ts';

/** Throws where what was recovered contradicts itself. */
export function makeCore(options: CoreOptions, recovery: Recovery, now: Millis): ReplicaCore {
  switch (options.genesis.protocol) {
    case 'pbft':
      return asCore(new Pbft(options, recovery, now));
    default:
      return makeCrashCore(options, recovery, now);
  }
}

/** [FLR-1] The core whose snapshot this is, of a replica with these options: for looking at what happened, never for a replica that votes. */
export function restoreCore(options: CoreOptions, snapshot: Bytes): ReplicaCore | SnapshotRefusal {
  if (options.genesis.protocol !== 'pbft') return makeCrashCore(options, NOTHING, asMillis(0)).restored(snapshot);
  const core = Pbft.restore(options, snapshot);
  return 'refused' in core ? core : asCore(core);
}

const NOTHING: Recovery = { log: null, guard: { view: asView(0), led: null, lock: null } };

/** The cast: frames of another protocol do not pass verify.ts (CFT-W-1), so what this core is given is its own. */
const asCore = (core: Pbft): ReplicaCore => core as unknown as ReplicaCore;

function makeCrashCore(options: CoreOptions, recovery: Recovery, now: Millis): CrashCore {
  switch (options.genesis.protocol) {
    case 'pbft':
      throw new InvariantViolation('no protocol of the crash-fault family');
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
