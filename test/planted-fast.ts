// Bugs in Fast Paxos, planted one at a time as in planted.ts: what its paper warns of.

import { Acceptor } from '../protocol/paxos/acceptor.ts';
import { FastPaxos } from '../protocol/paxos/fast.ts';
import { highest } from '../protocol/paxos/proposer.ts';
import type { Quorums } from '../protocol/quorum.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { SimReplica } from '../sim/replica.ts';
import type { PlantedBug } from './planted.ts';
import { patched } from './planted.ts';

// The methods are the class's own; TypeScript shows them to subclasses alone.
const fast = FastPaxos as unknown as { readonly prototype: Record<string, unknown> };
const { accept } = Acceptor.prototype;

const FORKS: PlantedBug['by'] = [
  'one-block-per-height',
  'one-certificate-per-place',
  'no-invariant-breaks',
  'exactly-once',
];

export const PLANTED_FAST: readonly PlantedBug[] = [
  {
    name: 'a fast quorum is one acceptor',
    Replica: SimReplica,
    plant: patched(fast, { chooses: () => true }),
    seedsMax: 20,
    by: FORKS,
  },
  {
    name: 'a majority is enough in a fast round',
    Replica: SimReplica,
    plant: patched(fast, {
      chooses(this: { readonly s: { readonly quorums: Quorums } }, voters: readonly ReplicaId[]) {
        return voters.length >= this.s.quorums.quorum;
      },
    }),
    seedsMax: 20,
    by: FORKS,
  },
  {
    name: 'a collision is settled by any value, also where one may have been chosen',
    Replica: SimReplica,
    plant: patched(fast, {
      pick: (reports: Parameters<typeof highest>[0], asked: number) => {
        const bound = highest(reports, asked);
        const last = reports.findLast(({ ballot }) => ballot === bound.ballot)!; // the highest is one of them
        return { ...bound, hash: last.hash, holders: [last.by] };
      },
    }),
    seedsMax: 150,
    seed: 113,
    by: FORKS,
  },
  {
    name: 'an acceptor takes the last value of a fast round, not the first',
    Replica: SimReplica,
    plant: patched(Acceptor, {
      accept(this: Acceptor, host, ballot, value, options) {
        const held = this.acceptedIn(value.header.height);
        // As if the slot were free.
        if (options?.fast === true && held !== undefined) this.forget(value.header.height);
        return accept.call(this, host, ballot, value, options);
      },
    }),
    seedsMax: 20,
    by: ['one-vote-per-place', 'durable-before-spoken', ...FORKS],
  },
];
