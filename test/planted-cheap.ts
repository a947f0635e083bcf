// Bugs in Cheap Paxos, planted one at a time as in planted.ts: each lets somebody choose who does not know what was chosen before.

import { Acceptor } from '../protocol/paxos/acceptor.ts';
import { CheapPaxos } from '../protocol/paxos/cheap.ts';
import type { Cast } from '../protocol/paxos/learner.ts';
import { MultiPaxos } from '../protocol/paxos/multi.ts';
import type { Height, ReplicaId } from '../protocol/types.ts';
import { SimReplica } from '../sim/replica.ts';
import type { PlantedBug } from './planted.ts';
import { patched } from './planted.ts';

const { configure } = Acceptor.prototype;
// The methods are the class's own; TypeScript shows them to subclasses alone.
const multi = MultiPaxos.prototype as unknown as {
  isPromised: object;
  chooses: (voters: readonly ReplicaId[], slot: Height, cast: Cast) => boolean;
};
const cheap = CheapPaxos as unknown as { readonly prototype: Record<string, unknown> };

const LOST: PlantedBug['by'] = [
  'one-block-per-height',
  'one-certificate-per-place',
  'no-invariant-breaks',
  'exactly-once',
  'acknowledged-stays',
  'in-order',
  'durable-before-spoken',
  'reads-linearizable',
];

/** Too rare a coincidence for lives from seeds: the one main that was left goes as the dropped one returns (cheap.test.ts). */
export const answersWithNoMain = patched(cheap, { isPromised: multi.isPromised });

export const PLANTED_CHEAP: readonly PlantedBug[] = [
  {
    name: 'one main of the working set is enough',
    Replica: SimReplica,
    plant: patched(cheap, { chooses: () => true }),
    seedsMax: 40,
    by: ['everything-is-ordered', 'heads-agree', ...LOST],
  },
  {
    name: 'all of a working set but one are enough',
    Replica: SimReplica,
    plant: patched(cheap, {
      chooses(this: { readonly acceptor: Acceptor }, voters: readonly ReplicaId[], slot: Height, cast: Cast) {
        const { working } = this.acceptor;
        if (multi.chooses.call(this, voters, slot, cast)) return true;
        if (working === null || working.ballot !== cast.ballot || slot <= working.floor) return false;
        return working.members.filter((member) => !voters.includes(member)).length <= 1;
      },
    }),
    seedsMax: 80,
    by: ['everything-is-ordered', 'heads-agree', ...LOST],
  },
  {
    name: 'a working set is forgotten over a restart',
    Replica: SimReplica,
    plant: patched(Acceptor, {
      configure(this: Acceptor, host, working, leader) {
        const { records } = host.out;
        const before = records.length;
        const done = configure.call(this, host, working, leader);
        for (let i = records.length - 1; i >= before; i--) if (records[i]!.type === 'hard-state') records.splice(i, 1);
        return done;
      },
    }),
    seedsMax: 10,
    by: ['durable-before-spoken', ...LOST],
  },
];
