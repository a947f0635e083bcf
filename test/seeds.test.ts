// The lives of the simulator (docs/simulator.md), from seeds, on all cores: whole clusters under faults of all kinds, and then bugs that were
// planted and must be caught. A failing seed is replayed by the command it prints, or with SEED=n; SEEDS=5000 lives more of them.

import { availableParallelism } from 'node:os';
import t from 'tap';
import { askAll, liveAll } from '../daemon/sim/workers.ts';
import { protocols } from '../protocol/modes.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import type { LifeOptions, Outcome } from '../sim/life.ts';
import { Tally } from '../sim/tally.ts';
import { PLANTED } from './planted.ts';
import type { Caught } from './planted-worker.ts';

// Five hundred lives take minutes, and more where others want the machine.
t.setTimeout(0);

const SAFETY_MS = 60_000;
const PLANTED_MS = 20_000;
const only = process.env.SEED === undefined ? null : Number(process.env.SEED);
const count = only === null ? Number(process.env.SEEDS ?? 500) : 1;
/** Of each protocol of the crash-fault family. */
const FAMILY_SEEDS = only === null ? Number(process.env.FAMILY_SEEDS ?? 200) : 0;
/** More of them, and shorter ones: each draws its own faults. */
const FAMILY_MS = 10_000;
const jobs = Number(process.env.SEED_JOBS ?? availableParallelism());

t.test('a transaction is ordered by four replicas', async (t) => {
  const cluster = new Cluster({ seed: 1, realSignatures: true });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(20);
  const bundle = client.bundle([Buffer.from('hello')]);
  cluster.submit(0, bundle);
  t.ok(
    cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 1000),
    'decided everywhere',
  );
  t.equal(cluster.chain.size, 1);
});

t.test(
  'PBFT-Q-1, PBFT-C-3: faults of all kinds, then a quorum orders everything while f stay broken for ever',
  async (t) => {
    const tally = new Tally();
    const began = performance.now();
    const lives = Array.from(
      { length: count },
      (_, i): LifeOptions => ({ seed: only ?? i + 1, n: null, ms: SAFETY_MS, realSignatures: null }),
    );
    const failed: Outcome[] = [];
    await liveAll(lives.values(), {
      jobs: Math.min(jobs, count),
      done: (outcome) => {
        tally.add(outcome);
        if (outcome.failure !== null) failed.push(outcome);
      },
    });
    for (const { seed, failure } of failed)
      t.fail(`synod sim --seed ${seed} --ms ${SAFETY_MS}: ${failure?.check}, ${failure?.message}`);
    const { seeds, crashes, viewChanges, realSignatures } = tally.totals;
    const { simulatedMs } = tally.totals;
    const minutes = (performance.now() - began) / 60_000;
    t.comment(
      `${seeds} seeds, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours in ${minutes.toFixed(2)} minutes on ${jobs} cores: ` +
        `${(simulatedMs / 3_600_000 / minutes).toFixed(2)} simulated hours per minute`,
    );
    t.equal(seeds, count, 'all of them lived');
    if (count < 60) return;
    t.ok(crashes > 2 * count && viewChanges > 2 * count, `${crashes} crashes, ${viewChanges} view changes`);
    t.ok(realSignatures >= Math.floor(count / 16), `${realSignatures} with real signatures`);
  },
);

t.test(
  'CFT-Q-1, CFT-V-2, EPO-12: the same where members are trusted, in every protocol, and from one to another',
  { skip: only === null ? false : 'one seed' },
  async (t) => {
    const began = performance.now();
    const epochs = new Map<string, number>();
    const lived = new Map<string, number>();
    const family = protocols.filter((protocol) => protocol !== 'pbft');
    // All in the same processes: each costs seconds until its code is compiled.
    const lives = family.flatMap((protocol) =>
      Array.from(
        { length: FAMILY_SEEDS },
        (_, i): LifeOptions => ({ seed: i + 1, protocol, n: null, ms: FAMILY_MS, realSignatures: null }),
      ),
    );
    await liveAll(lives.values(), {
      jobs: Math.min(jobs, lives.length),
      done: ({ seed, failure, epochs: last }, { protocol = 'pbft' }) => {
        lived.set(protocol, (lived.get(protocol) ?? 0) + 1);
        epochs.set(protocol, (epochs.get(protocol) ?? 0) + last);
        if (failure !== null)
          t.fail(
            `synod sim --protocol ${protocol} --seed ${seed} --ms ${FAMILY_MS}: ${failure.check}, ${failure.message}`,
          );
      },
    });
    for (const protocol of family) t.equal(lived.get(protocol) ?? 0, FAMILY_SEEDS, protocol);
    const minutes = (performance.now() - began) / 60_000;
    t.comment(
      `${family.length} protocols, ${FAMILY_SEEDS} seeds of each in ${minutes.toFixed(2)} minutes on ${jobs} cores`,
    );
    if (FAMILY_SEEDS >= 50) for (const [protocol, count] of epochs) t.ok(count > 10, `${protocol}: ${count} changes`);
  },
);

t.test(
  'every planted bug is caught within its budget of seeds',
  { skip: only === null ? false : 'one seed' },
  async (t) => {
    t.ok(PLANTED.length >= 15);
    const began = performance.now();
    const heard = new Set<string>();
    await askAll(
      new URL('./planted-worker.js', import.meta.url),
      PLANTED.map(({ name }) => ({ name, ms: PLANTED_MS })).values(),
      {
        jobs: Math.min(jobs, PLANTED.length),
        nameOf: ({ name }) => name,
        done: (answer) => {
          const { name, caught } = answer as Caught; // what that program answers with
          heard.add(name);
          const bug = PLANTED.find((each) => each.name === name)!; // one of those that were asked for
          if (caught === null) t.fail(`${name}: not caught in ${bug.seedsMax} seeds`);
          else
            t.ok(
              bug.by.includes(caught.check),
              `${name}: seed ${caught.seed} of ${bug.seedsMax}, ${caught.check}: ${caught.message}`,
            );
        },
      },
    );
    t.equal(heard.size, PLANTED.length);
    t.comment(`${PLANTED.length} planted bugs in ${((performance.now() - began) / 1000).toFixed(1)} s`);
  },
);
