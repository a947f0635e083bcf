// What the tests of each protocol in which members are trusted end with: short lives from seeds, and the planted bugs that seeds must catch.

import t from 'tap';
import type { Protocol } from '../protocol/modes.ts';
import { live } from '../sim/life.ts';
import { caughtAt, type PlantedBug } from './planted.ts';

export function livesFromSeeds(...protocols: readonly [Protocol, ...Protocol[]]): void {
  t.test('lives from seeds', async (t) => {
    for (const protocol of protocols)
      for (let seed = 1; seed <= 40; seed++) {
        const { failure } = live({ seed, n: null, ms: 5_000, realSignatures: null, protocol });
        t.equal(failure, null, `${protocol} seed ${seed}: ${failure?.check} ${failure?.message}`);
      }
    const options = { seed: 16, n: null, ms: 5_000, realSignatures: null, protocol: protocols[0] };
    t.equal(live(options).digest, live(options).digest, 'GEN-2: the same seed goes the same way');
  });
}

/** `protocol`: of the lives, where a bug does not name its own. */
export function plantedBugsAreCaught(
  bugs: readonly (PlantedBug & { readonly protocol?: Protocol })[],
  protocol: Protocol,
): void {
  t.test('every planted bug is caught within its budget of seeds', async (t) => {
    for (const bug of bugs) {
      const caught = caughtAt(bug, 20_000, bug.protocol ?? protocol);
      if (caught === null) {
        t.fail(`${bug.name}: not caught in ${bug.seedsMax} seeds`);
        continue;
      }
      const { check, message } = caught.outcome.failure!; // that is what caught means
      t.ok(bug.by.includes(check), `${bug.name}: seed ${caught.seed} of ${bug.seedsMax}, ${check}: ${message}`);
    }
  });
}
