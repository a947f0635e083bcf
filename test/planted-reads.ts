// Bugs in reads, planted one at a time as in planted.ts: what the papers warn of (Ongaro's dissertation, section 6.4; Paxos Made Live, section 5.2).

import type { ReadAnswer, Ready } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import { Lease } from '../protocol/paxos/lease.ts';
import { SimReplica } from '../sim/replica.ts';
import { patched } from './planted.ts';
import type { PlantedPaxosBug } from './planted-paxos.ts';

type Out = Ready<ReplicaMessage, ReplicaPledge>;

/** Whoever takes itself for the leader answers with its head, and asks nobody. */
class Unconfirmed extends SimReplica {
  protected override makeCore(recovery: Recovery): ReplicaCore {
    const core = super.makeCore(recovery);
    const step = core.step.bind(core);
    core.step = (inputs, now): Out => {
      const { primary, self, phase, height } = core.explain();
      if (primary !== self || phase === 'view-change') return step(inputs, now);
      const reads = inputs.flatMap((input): ReadAnswer[] => (input.type === 'read' ? [{ id: input.id, height }] : []));
      const ready = step(
        inputs.filter(({ type }) => type !== 'read'),
        now,
      );
      return { ...ready, reads: [...ready.reads, ...reads] };
    };
    return core;
  }
}

/** Too rare a coincidence for lives from seeds: an acceptor restarts where its leader does not hear it, and a third one waits to lead (reads.test.ts). */
export const PLANTED_LEASES = {
  'a restarted acceptor does not wait out what it may have granted': patched(Lease, { restarted: () => undefined }),
  'an acceptor promises to others while its grant lasts': patched(Lease, { binds: () => false }),
};

export const PLANTED_READS: readonly PlantedPaxosBug[] = (['raft', 'multi-paxos'] as const).map((protocol) => ({
  protocol,
  name: `${protocol}: a leader answers a read without asking whether it still leads`,
  Replica: Unconfirmed,
  seedsMax: 10,
  by: ['reads-linearizable'],
}));
