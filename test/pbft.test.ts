// PBFT under faults (docs/spec.md), on whole clusters in virtual time: random crashes, loss, partitions and restarts, from seeds, then
// a calm phase in which a quorum must make progress. A failing seed is replayed with SEED=n.

import t from 'tap';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { survives } from './torment.ts';

const text = (value: string) => Buffer.from(value);

// Many seeds take longer than a test runner likes to wait.
t.setTimeout(0);

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

t.test('random faults, then progress without f replicas', async (t) => {
  for (const seed of seeds(1, Number(process.env.SEEDS ?? 40))) {
    let outcome: ReturnType<typeof survives>;
    try {
      outcome = survives(seed, {
        n: seed % 3 === 0 ? 7 : 4,
        blackouts: seed % 4 === 0,
        realSignatures: seed % 10 === 0,
      });
    } catch (error) {
      t.fail(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
      continue;
    }
    t.ok(outcome.ok, `seed ${seed}`, { diagnostic: !outcome.ok, ...outcome });
  }
});
