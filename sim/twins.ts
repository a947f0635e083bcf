// Two processes with one key (Bano et al., Twins: BFT Systems Made Robust, 2020): a faulty replica made of two honest ones. Each has a disk and
// a guard of its own, so neither knows what the other has signed.

import type { ReplicaId } from '../protocol/types.ts';
import type { Surroundings } from './replica.ts';
import { SimReplica } from './replica.ts';

/** Whether one of the two hears this replica, and is heard by it. */
export type Reaches = (other: ReplicaId, which: 'first' | 'second') => boolean;

interface Pair {
  readonly second: SimReplica;
  readonly reaches: Reaches;
}

export class Twins {
  readonly #pairs = new Map<ReplicaId, Pair>();

  /** Begins the second process; it says its things through `sendOne`. */
  add(
    id: ReplicaId,
    {
      world,
      ids,
      sendOne,
      reaches,
    }: {
      readonly world: Surroundings;
      readonly ids: readonly ReplicaId[];
      readonly sendOne: (to: ReplicaId, signed: Parameters<Surroundings['send']>[2]) => void;
      readonly reaches: Reaches;
    },
  ): SimReplica {
    const others = ids.filter((other) => other !== id);
    const second = new SimReplica(id, {
      ...world,
      send: (_, to, signed) => {
        for (const other of others)
          if (
            (to === 'all' || to === other || (typeof to !== 'number' && to.includes(other))) &&
            reaches(other, 'second')
          )
            sendOne(other, signed);
      },
      observe: () => undefined,
      strikes: () => false,
      broke: (replica) => replica.crash({ log: 'lost', guard: 'lost' }),
    });
    this.#pairs.set(id, { second, reaches });
    second.boot();
    for (const peer of others) second.input({ type: 'connected', peer });
    return second;
  }

  /** Whether the first of the two, or the only one, hears that replica and is heard by it. */
  firstReaches(id: ReplicaId, other: ReplicaId): boolean {
    return this.#pairs.get(id)?.reaches(other, 'first') ?? true;
  }

  /** The second one, where there is one and it hears that replica. */
  secondHearing(id: ReplicaId, from: ReplicaId): SimReplica | null {
    const pair = this.#pairs.get(id);
    return pair?.reaches(from, 'second') === true ? pair.second : null;
  }
}
