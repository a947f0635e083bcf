// Bugs in Raft, planted one at a time as in planted.ts: what the paper's own rules are there to keep out, and what implementations got wrong.

import { EntryLog } from '../protocol/raft/log.ts';
import { Progress } from '../protocol/raft/progress.ts';
import { asHeight } from '../protocol/types.ts';
import { SimReplica } from '../sim/replica.ts';
import type { PlantedBug } from './planted.ts';
import { patched, SpeaksTooSoon } from './planted.ts';

const { heldBy } = Progress.prototype;
const end = Object.getOwnPropertyDescriptor(EntryLog.prototype, 'end')!.get!;

/** Puts a getter in the place of one. */
const patchedEnd = (change: (found: EntryLog['end']) => EntryLog['end']) => (): (() => void) => {
  Object.defineProperty(EntryLog.prototype, 'end', {
    configurable: true,
    get(this: EntryLog) {
      return change(end.call(this));
    },
  });
  return () => Object.defineProperty(EntryLog.prototype, 'end', { configurable: true, get: end });
};

/** Term and vote are gone after a restart, the entries are not. */
class ForgetsItsVote extends SimReplica {
  readonly #empty = this.guard.file;

  override boot(): void {
    this.guard.file = this.#empty;
    this.disk.hardState = null;
    super.boot();
  }
}

/** Rules taken out, for the scenarios that they are there for. */
export const anyLogIsUpToDate = patchedEnd((found) => ({
  ...found,
  decided: asHeight(2 ** 40),
  last: asHeight(2 ** 40),
}));
/** Figure 8: an entry of any term is committed by counting. */
export const anyTermCounts = patched(EntryLog, { mayCount: (height) => height > 0 });
export const everythingMatches = patched(EntryLog, { matches: () => true });

export const PLANTED_RAFT: readonly PlantedBug[] = [
  {
    name: 'a vote and an append leave before they are durable',
    Replica: SpeaksTooSoon,
    seedsMax: 1,
    by: ['durable-before-spoken'],
  },
  {
    name: 'a restart forgets term and vote',
    Replica: ForgetsItsVote,
    seedsMax: 30,
    by: [
      'views-never-run-back',
      'one-vote-per-place',
      'one-block-per-height',
      'one-certificate-per-place',
      'durable-before-spoken',
      'no-invariant-breaks',
    ],
  },
  {
    name: 'one less than a majority commits an entry',
    Replica: SimReplica,
    plant: patched(Progress, {
      heldBy(quorum) {
        return heldBy.call(this, quorum - 1);
      },
    }),
    seedsMax: 60,
    by: ['one-block-per-height', 'one-certificate-per-place', 'no-invariant-breaks', 'acknowledged-stays'],
  },
];
