// Cheap Paxos as real processes: an auxiliary with little memory, and next to nothing on its disk, beside mains that order megabytes. It is asked while a main
// is away, so that ordering goes on, and forgets what it was told when the main is back.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { connect } from '../client/index.ts';
import { ChaosStage } from './chaos/stage.ts';

t.setTimeout(240_000);

const [mains, auxiliary] = [['node-0', 'node-1'], 'node-2'] as const;
const transactionBytes = 16_384;
/** Of what is ordered each time. */
const transactions = 256;
const heap = '--max-old-space-size=32 --max-semi-space-size=1';

t.test('CHP-1 CHP-6: an auxiliary needs next to no disk, memory or network, and stands in for a main', async (t) => {
  const directory = join(t.testdir(), 'net');
  const stage = await ChaosStage.create({
    directory,
    protocol: 'cheap-paxos',
    parameters: { viewTimeoutMs: 1_000 },
    config: { recorderMiB: 0 },
  });
  const options = process.env.NODE_OPTIONS;
  try {
    process.env.NODE_OPTIONS = heap;
    stage.start(auxiliary);
    if (options === undefined) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = options;
    for (const name of mains) stage.start(name);
    await stage.allUp();
    const client = await connect({
      genesis: new Uint8Array(readFileSync(join(directory, 'genesis.json'))),
      replicas: stage.network.replicas.filter(({ name }) => name !== auxiliary).map(({ name, url }) => ({ name, url })),
      key: new Uint8Array(32).fill(7),
    });
    t.teardown(() => client.close());
    const order = async (what: string) => {
      const payload = Buffer.alloc(transactionBytes, what);
      await Promise.all(
        Array.from({ length: transactions }, (_, i) => client.submit(Buffer.from(`${what} ${i} ${payload}`))),
      );
    };
    const onDisk = (name: string) =>
      readdirSync(join(directory, name, 'data'), { recursive: true, encoding: 'utf8' })
        .map((file) => statSync(join(directory, name, 'data', file), { throwIfNoEntry: false }))
        .reduce((sum, found) => sum + (found?.isFile() ? found.size : 0), 0);
    const heard = async () => {
      const { http } = stage.network.replicas.find(({ name }) => name === auxiliary)!; // it is one of them
      const text = await (await fetch(`${http}/metrics`)).text();
      const lines = text.split('\n').filter((line) => line.startsWith('synod_transport_bytes_in_total{'));
      return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
    };

    await order('first');
    const before = { disk: onDisk(auxiliary), heard: await heard() };
    await order('second');
    const payload = transactions * transactionBytes;
    for (const name of mains) t.ok(onDisk(name) > 2 * payload, `${name} has it all`);
    t.ok(onDisk(auxiliary) - before.disk < payload / 100, 'and the auxiliary next to nothing');
    t.ok((await heard()) - before.heard < payload / 100, 'nor has it heard of it');

    await stage.kill('node-1');
    await order('without a main');
    stage.start('node-1');
    await stage.allUp();
    await order('with it again');
    await stage.allEqual();
    t.ok(stage.isUp(auxiliary), 'its heap has been enough');
    t.comment(
      `resident at most: ${[...mains, auxiliary].map((name) => `${name} ${stage.peakMiB(name)?.toFixed(0)} MiB`).join(', ')}`,
    );
    t.ok((await stage.end()).every(({ code }) => code === 0));
    // What it was told while a main was away is forgotten; the engine takes its time with the files.
    t.ok(onDisk(auxiliary) < 3 * payload);
    t.same(stage.troubles, []);
  } finally {
    await stage.end();
  }
});
