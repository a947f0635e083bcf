// PBFT under faults (docs/spec.md), on whole clusters in virtual time: the lives of the simulator (docs/simulator.md), from seeds. A failing
// seed is replayed by the command it prints, or with SEED=n; SEEDS=500 runs more of them. Forty others are in sim.test, beside it.

import t from 'tap';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { live } from '../sim/life.ts';

const text = (value: string) => Buffer.from(value);

// Many seeds take longer than a test runner likes to wait.
t.setTimeout(0);

const SAFETY_MS = 60_000;
const only = process.env.SEED === undefined ? null : Number(process.env.SEED);
const seeds = (from: number, count: number) =>
  only === null ? Array.from({ length: count }, (_, i) => from + i) : [only];

t.test('a transaction is ordered by four replicas', async (t) => {
  const cluster = new Cluster({ seed: 1, realSignatures: true });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(20);
  const bundle = client.bundle([text('hello')]);
  cluster.submit(0, bundle);
  t.ok(
    cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 1000),
    'decided everywhere',
  );
  t.equal(cluster.chain.size, 1);
});

t.test('faults of all kinds, then a quorum orders everything while f replicas stay broken for ever', async (t) => {
  let crashes = 0;
  let viewChanges = 0;
  for (const seed of seeds(1, Number(process.env.SEEDS ?? 60))) {
    const outcome = live({ seed, n: null, ms: SAFETY_MS, realSignatures: null });
    crashes += outcome.crashes;
    viewChanges += outcome.viewChanges;
    t.equal(outcome.failure, null, `synod sim --seed ${seed} --ms ${SAFETY_MS}`);
  }
  if (only === null) t.ok(crashes > 100 && viewChanges > 100, `${crashes} crashes, ${viewChanges} view changes`);
});
