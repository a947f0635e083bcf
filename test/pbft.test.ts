// The rules of PBFT (docs/spec.md) on whole clusters in virtual time.
import t from 'tap';
import { Cluster, calm, TestClient } from './cluster.ts';

const tx = (text: string) => Buffer.from(text);

t.test('a transaction is ordered by four replicas', async (t) => {
  const cluster = new Cluster({ seed: 1, realSignatures: true });
  const client = new TestClient(cluster.genesis, 'alice');
  cluster.run(20);
  const bundle = client.bundle([tx('hello')]);
  cluster.submit(0, bundle);
  t.ok(
    cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 1000),
    'decided everywhere',
  );
  t.equal(cluster.chain.size, 1);
});
