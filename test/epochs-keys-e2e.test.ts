// Keys of a real network are replaced in every way there is: a replica's by its own operator alone, an operator's, and one that is lost, by the others. And
// what a node without a vote answers to those who ask it for more than blocks.

import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { EpochNet, GENESIS } from './epoch-net.ts';

t.setTimeout(280_000);
const four = [0, 1, 2, 3].map((i) => `node-${i}`);
const operatorOf = (i: number) => `net/operators/node-${i}.key`;

t.test('[EPO-3] [EPO-16] [EPO-21] keys are replaced by one operator, by a new one, and by the others', async (t) => {
  const dir = t.testdir();
  const net = new EpochNet(t, dir);
  const { synod, ok, start, stop, config, door, status, inEpoch, nodes, change, submit, known, isClose } = net;
  const configure = (name: string, more: object) =>
    writeFileSync(join(dir, 'net', name, 'config.json'), JSON.stringify({ ...config(name), ...more }));
  let orders = 0;
  const order = () => ok('submit', '--network', 'net', `order ${++orders}`);
  /** Three of four are a quorum, so this one votes. */
  const votes = async (name: string) => {
    const other = four.find((each) => each !== name)!;
    await stop(other);
    await order();
    start(other);
    await inEpoch((await status(name))!.epoch, four);
  };
  const newKey = (file: string) => ok('keys', 'generate', file, '--unsealed', '--sign-state', 'net/genesis.json');

  await ok(
    'init',
    'net',
    '--unsealed',
    ...['viewTimeoutMs=1500', 'window=2', 'checkpointInterval=4'].flatMap((p) => ['--param', p]),
  );
  await newKey('net/node-2/new.key');
  configure('node-2', { nextKey: 'new.key' });
  for (const name of four) start(name);
  await inEpoch(0, four);
  const peers = Object.fromEntries(four.map((name) => [name, `ws://127.0.0.1:${config(name).listen.port}`]));
  await net.observer('node-4', { peers });
  await order();

  // By its own operator alone: too soon in the first blocks of an epoch.
  const own = ['--key', 'net/node-2/new.key'];
  const alone = await change('node-2', [operatorOf(2)], ['member', 'rotate', 'node-2', ...own], [...own, '--at', '1']);
  const soon = await synod('control', 'submit', alone, ...GENESIS, '--http', door('node-2'));
  t.equal(soon.code, 1, 'too soon');
  t.match(soon.stderr, /control-refused/);
  while ((await status('node-2'))!.height < 8) await order();
  t.match((await submit('node-2', alone)).stdout, /^epoch 1 began at height \d+: /);
  await inEpoch(1, four);
  await votes('node-2');
  await newKey('net/node-2/third.key');
  const third = ['member', 'rotate', 'node-2', '--key', 'net/node-2/third.key'];
  const others = await change('node-2', [operatorOf(1)], third);
  const shown = await synod('control', 'show', others, ...(await known('node-2')).slice(0, -1), '100');
  t.match(shown.stdout, /control-unauthorised/, 'one of another member does not do');
  t.equal(shown.code, 3);

  // Another operator, whose key counts from then on, and not the one before.
  await ok('keys', 'generate', 'operator.key', '--unsealed');
  const operator = ['member', 'operator', 'node-1', '--key', 'operator.key'];
  t.match(
    (await submit('node-0', await change('node-0', [0, 2, 3].map(operatorOf), operator))).stdout,
    /^epoch 2 began/,
  );
  const signers = [operatorOf(0), 'operator.key', operatorOf(3)];
  const larger = ['param', 'set', 'viewTimeoutMs=1600'];
  await t.rejects(change('node-0', signers.with(1, operatorOf(1)), larger), /operator-unknown/);
  t.match((await submit('node-0', await change('node-0', signers, larger))).stdout, /^epoch 3 began/);
  await inEpoch(3, four);

  // A key is lost, and nothing else of that replica. docs/operations.md: "If the old key is lost, make the new one `key`, start with `--observe`, and let
  // the other operators sign."
  nodes.get('node-3')!.child.kill('SIGKILL');
  await nodes.get('node-3')!.ended;
  rmSync(join(dir, 'net/node-3/replica.key'));
  await order();
  await newKey('net/node-3/found.key');
  configure('node-3', { key: 'found.key' });
  t.ok(existsSync(join(dir, 'net/node-3/data/sign-state')), 'all that the old key has signed is here still');
  const without = await synod('start', 'net/node-3/config.json');
  t.equal(without.code, 2, 'it is no member with this key');
  t.match(without.stderr, /\[key-not-member\]/);
  start('node-3', '--observe');
  await isClose('node-3', 'node-0');
  const found = ['--key', 'net/node-3/found.key'];
  const at = ['--at', String((await status('node-3'))!.height)];
  const rotate = ['member', 'rotate', 'node-3', ...found];
  const three = [operatorOf(0), 'operator.key', operatorOf(2)];
  t.match((await submit('node-1', await change('node-1', three, rotate, [...found, ...at]))).stdout, /^epoch 4 began/);
  await inEpoch(4, four);
  await votes('node-3');
  await stop('node-3');
  start('node-3');
  await inEpoch(4, four);

  // What an observer serves beside blocks: the receipts of every epoch that it has followed, and headers.
  await order();
  await isClose('node-4', 'node-0');
  const ask = async (path: string) => {
    const response = await fetch(`${door('node-4')}${path}`);
    return { status: response.status, json: JSON.parse(await response.text()) };
  };
  const { height } = (await status('node-4'))!;
  const { json: list } = await ask(`/v1/blocks?from=1&limit=${height}`);
  t.same(
    list.blocks.map(({ header }: { header: { height: number } }) => header.height),
    Array.from({ length: height }, (_, i) => i + 1),
    'headers from the first block on',
  );
  const epochs = new Set<number>();
  for (let at = 1; at <= height; at++) {
    const { json: block } = await ask(`/v1/blocks/${at}`);
    for (const { digest } of block.bundles) {
      const { json: bundle } = await ask(`/v1/bundles/${digest}`);
      t.equal(bundle.height, at);
      for (const receipt of bundle.receipts) {
        writeFileSync(join(dir, 'one.receipt'), JSON.stringify(receipt));
        const { epoch } = block.header;
        if (epochs.has(epoch)) continue;
        epochs.add(epoch);
        const verified = await ok('verify', 'one.receipt', ...GENESIS, '--json');
        t.match(JSON.parse(verified.stdout), { valid: true, epoch, height: at });
      }
    }
  }
  t.same([...epochs].sort(), [0, 1, 2, 3, 4], 'receipts of every epoch, from the genesis document alone');
  const explained = await ask(`/v1/explain/${height}`);
  t.match(explained, { status: 200, json: { stage: 'decided' } });
  const readPoint = await ask('/v1/read-point');
  t.match(readPoint, { status: 501, json: { error: { code: 'reads-unsupported' } } });
  t.equal((await fetch(`${door('node-4')}/readyz`)).status, 200);
});
