// Bugs in Paxos, planted one at a time as in planted.ts: the mistakes that the papers warn of, and those of published implementations.

import type { Protocol } from '../protocol/modes.ts';
import { Acceptor } from '../protocol/paxos/acceptor.ts';
import { Learner } from '../protocol/paxos/learner.ts';
import { Proposer } from '../protocol/paxos/proposer.ts';
import { asEpoch, asView } from '../protocol/types.ts';
import { SimReplica } from '../sim/replica.ts';
import type { PlantedBug } from './planted.ts';
import { patched, SpeaksTooSoon } from './planted.ts';

const { prepare, accept, restore } = Acceptor.prototype;
const { onPromise } = Proposer.prototype;
const { onAccepted } = Learner.prototype;

/** Everything that it promised and accepted is gone after a restart. */
class Amnesia extends SimReplica {
  readonly #empty = this.guard.file;

  override boot(): void {
    this.guard.file = this.#empty;
    this.disk.hardState = null;
    this.disk.accepted.clear();
    super.boot();
  }
}

/** The values are there, and which were accepted is forgotten. */
class ForgetsValues extends SimReplica {
  override boot(): void {
    this.disk.accepted.clear();
    super.boot();
  }
}

/** In Multi-Paxos where it does not say. */
export interface PlantedPaxosBug extends PlantedBug {
  readonly protocol?: Protocol;
}

/** Once for each protocol that has it. */
const EVERYWHERE: readonly PlantedPaxosBug[] = (['basic-paxos', 'multi-paxos'] as const).flatMap((protocol) => [
  {
    protocol,
    name: `${protocol}: a promise and an acceptance leave before they are durable`,
    Replica: SpeaksTooSoon,
    seedsMax: 1,
    by: ['durable-before-spoken'],
  },
  {
    protocol,
    name: `${protocol}: a promise does not tell what was accepted`,
    Replica: SimReplica,
    plant: patched(Proposer, {
      onPromise(promise, from, quorum) {
        return onPromise.call(this, { ...promise, accepted: [] }, from, quorum);
      },
    }),
    seedsMax: 60,
    by: ['one-block-per-height', 'one-certificate-per-place', 'no-invariant-breaks', 'exactly-once'],
  },
]);

export const PLANTED_PAXOS: readonly PlantedPaxosBug[] = [
  ...EVERYWHERE,
  {
    name: 'a restart forgets promises and acceptances',
    Replica: Amnesia,
    seedsMax: 20,
    by: [
      'durable-before-spoken',
      'views-never-run-back',
      'one-block-per-height',
      'one-certificate-per-place',
      'one-vote-per-place',
      'no-invariant-breaks',
    ],
  },
  {
    name: 'a restart forgets what was accepted',
    Replica: ForgetsValues,
    seedsMax: 60,
    by: [
      'one-block-per-height',
      'one-certificate-per-place',
      'acknowledged-stays',
      'no-invariant-breaks',
      'durable-before-spoken',
    ],
  },
  {
    name: 'one acceptance is enough',
    Replica: SimReplica,
    plant: patched(Learner, {
      onAccepted(slot, cast, replica) {
        onAccepted.call(this, slot, cast, replica, ({ length }) => length >= 1);
      },
    }),
    seedsMax: 60,
    by: ['one-block-per-height', 'one-certificate-per-place', 'no-invariant-breaks'],
  },
  {
    name: 'a promise is not kept',
    Replica: SimReplica,
    plant: patched(Acceptor, {
      accept(this: Acceptor, host, ballot, value) {
        if (ballot >= this.promised) return accept.call(this, host, ballot, value);
        // As if nothing had been promised.
        restore.call(this, host, { epoch: asEpoch(0), promised: ballot, working: null }, asView(0), []);
        return accept.call(this, host, ballot, value);
      },
    }),
    seedsMax: 120,
    by: [
      'views-never-run-back',
      'one-block-per-height',
      'one-certificate-per-place',
      'no-invariant-breaks',
      'durable-before-spoken',
    ],
  },
  {
    name: 'a proposer whose prepare was passed promises itself on',
    Replica: SimReplica,
    plant: patched(Acceptor, {
      prepare(this: Acceptor, host, ballot, proposer) {
        if (ballot >= this.promised) return prepare.call(this, host, ballot, proposer);
        restore.call(this, host, { epoch: asEpoch(0), promised: ballot, working: null }, asView(0), []);
        return prepare.call(this, host, ballot, proposer);
      },
    }),
    seedsMax: 100,
    by: [
      'views-never-run-back',
      'one-block-per-height',
      'one-certificate-per-place',
      'no-invariant-breaks',
      'durable-before-spoken',
      'everything-is-ordered',
    ],
  },
  {
    name: 'free slots are left open',
    Replica: SimReplica,
    plant: patched(Proposer, {
      onPromise(promise, from, quorum) {
        const bounds = onPromise.call(this, promise, from, quorum);
        // What must be proposed again is forgotten, and what comes next is proposed above it.
        return bounds === null || bounds.slots.size === 0
          ? bounds
          : { ...bounds, decided: bounds.top, slots: new Map() };
      },
    }),
    seedsMax: 10,
    by: ['everything-is-ordered', 'heads-agree'],
  },
];
