// Snapshots of a core: that nothing is missing in them, and that bytes of anybody are read without harm.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { live } from '../sim/life.ts';
import { newTally, twinned } from './twin.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const SEEDS = Number(process.env.SEEDS ?? 12);

t.test(
  'FLR-1: a core restored at random steps of faulty runs goes on bit for bit as the one that was not',
  async (t) => {
    const tally = newTally();
    for (let seed = 1; seed <= SEEDS; seed++) {
      const Replica = twinned(tally, { seed, every: 20 });
      const { failure } = live({ seed, n: null, ms: 20_000, realSignatures: false, Replica });
      t.equal(failure, null, `seed ${seed}`);
    }
    t.comment(
      tally.steps,
      tally.snapshots,
      tally.largest,
      [...tally.inputs],
      [...tally.first.keys()].filter((f) => !tally.moved.has(f)),
    );
  },
);
void [readdirSync, readFileSync, fileURLToPath];
