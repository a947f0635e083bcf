// Whoever was away while every key of the others changed, with real processes: a replica that starts with the members of long ago, a client that holds the
// genesis document and old addresses; nodes that observe, serve, follow each other, begin at a checkpoint, and are promoted when they are close.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Client, connect, verifyReceiptFile } from '../client/index.ts';
import { native } from '../crypto/native.ts';
import { loadGenesis } from '../daemon/config.ts';
import { SecretKey } from '../keys/keypair.ts';
import { EpochNet, GENESIS } from './epoch-net.ts';

t.setTimeout(560_000);

t.test('[EPO-18] [EPO-19] [EPO-20] [EPO-21] nobody is lost who was away', async (t) => {
  const dir = t.testdir();
  const net = new EpochNet(t, dir);
  const { synod, ok, start, stop, config, door, status, eventually, inEpoch, change, submit, isClose } = net;
  const operators = [0, 1, 2].map((i) => `net/operators/node-${i}.key`);
  await ok(
    'init',
    'net',
    '--unsealed',
    ...['viewTimeoutMs=1500', 'checkpointInterval=4', 'window=2'].flatMap((each) => ['--param', each]),
  );
  const four = [0, 1, 2, 3].map((i) => `node-${i}`);
  for (const name of four.slice(0, 3)) {
    await ok('keys', 'generate', `net/${name}/new.key`, '--unsealed', '--sign-state', 'net/genesis.json');
    writeFileSync(join(dir, `net/${name}/config.json`), JSON.stringify({ ...config(name), nextKey: 'new.key' }));
  }
  for (const name of four) {
    writeFileSync(join(dir, `net/${name}/config.json`), JSON.stringify({ ...config(name), retainBlocks: 1_024 }));
    start(name);
  }
  await inEpoch(0, four);
  const loaded = loadGenesis(native, join(dir, 'net/genesis.json'));
  if ('refused' in loaded) throw new Error(loaded.problem);
  const { genesis } = loaded;
  const old = four.map((name) => ({ name, url: `ws://127.0.0.1:${config(name).listen.port}` }));
  const clients: Client[] = [];
  t.teardown(() => Promise.all(clients.map((client) => client.close())));
  const join_ = async (more: object = {}) => {
    const client = await connect({ genesis, replicas: old, key: SecretKey.generate(), ...more });
    clients.push(client);
    return client;
  };
  // It lives through all that follows, and its stream with it.
  const lasting = await join_();
  const heights: number[] = [];
  const streamed = (async () => {
    for await (const { header } of lasting.follow({ from: 1 })) heights.push(header.height);
  })().catch(() => undefined);
  const first = await lasting.submit(Buffer.from('first'));

  // Asleep while the three others change their keys, one after the other.
  await stop('node-3');
  for (const [index, name] of four.slice(0, 3).entries()) {
    const key = `net/${name}/new.key`;
    const rotate = ['member', 'rotate', name, '--key', key];
    await submit(name, await change(name, operators, rotate, ['--key', key, '--at', '1']));
    await inEpoch(index + 1, four.slice(0, 3));
    t.ok((await lasting.submit(Buffer.from(`after ${name}`))).height > first.height);
  }
  t.equal(lasting.epochs.last.epoch, 3, 'the client has crossed all three');

  // It knows nobody's key, and nobody needs to tell it how: no flag, no file.
  start('node-3');
  await inEpoch(3, four);
  await stop('node-0');
  t.ok(
    (await lasting.submit(Buffer.from('with its vote'))).height > 0,
    'three of four, so the one that came back votes',
  );
  start('node-0');
  await inEpoch(3, four);

  // A client with the genesis document and old addresses alone.
  const late = await join_();
  t.equal(late.epochs.last.epoch, 3);
  const receipt = await late.submit(Buffer.from('found them'));
  t.notOk(
    'refused' in verifyReceiptFile(JSON.stringify(receipt), { genesis, crypto: native }),
    'offline, from genesis',
  );

  // More blocks than any of them keeps.
  while ((await status('node-1'))!.height < 1_300)
    for (let i = 0; i < 100; i++) await late.submit(Buffer.from(`block ${i}`));
  await eventually('blocks are forgotten', async () => (await status('node-1'))!.lowest > 1);

  // A fifth that is no member: it begins at a checkpoint, and serves.
  const members = Object.fromEntries(old.map(({ name, url }) => [name, url]));
  const fifthUrl = await net.observer('node-4', { peers: members, retainBlocks: 1_024 });
  await isClose('node-4', 'node-1');
  const fifth = (await status('node-4'))!;
  t.ok(fifth.lowest > 1, `it begins at height ${fifth.lowest}`);
  t.match(fifth.node, { name: 'node-4', observer: true });
  t.equal(fifth.ready, true);
  const { height } = await late.submit(Buffer.from('served'));
  await eventually('it follows', async () => (await status('node-4'))!.height >= height);
  t.equal((await fetch(`${door('node-4')}/v1/blocks/${height}`)).status, 200);
  t.equal(
    (await fetch(`${door('node-4')}/v1/transactions`, { method: 'POST', body: '{}' })).ok,
    false,
    'it takes none',
  );

  // A sixth follows the fifth alone, and a client the sixth.
  const sixthUrl = await net.observer('node-5', { peers: {}, sources: { 'node-4': fifthUrl }, retainBlocks: 1_024 });
  await isClose('node-5', 'node-1');
  const reader = await connect({
    genesis,
    replicas: [],
    sources: [{ name: 'node-5', url: sixthUrl }],
  });
  clients.push(reader);
  t.equal(reader.epochs.last.epoch, 3, 'it learns the links there too');
  for await (const block of reader.follow({ from: height })) {
    t.equal(block.header.height, height);
    break;
  }

  // Promoted when it is close: a height of long ago is refused with the distance.
  await ok('keys', 'generate', 'fifth.key', '--unsealed');
  const add = ['member', 'add', 'node-4', '--key', 'net/node-4/replica.key', '--operator', 'fifth.key'];
  const address = ['--address', fifthUrl];
  const key = ['--key', 'net/node-4/replica.key'];
  const far = await change('node-1', operators, [...add, ...address], [...key, '--at', '1000']);
  const shown = await synod('control', 'show', far, ...GENESIS, '--epochs', 'net.epochs', '--height', String(height));
  t.equal(shown.code, 3);
  t.match(shown.stdout + shown.stderr, /[0-9]+ blocks behind; 64 may be \[control-join-far\]/);
  const near = await change('node-1', operators, [...add, ...address], [...key, '--at', String(height)]);
  await submit('node-1', near);
  await inEpoch(4, [...four, 'node-4']);
  await stop('node-0');
  t.ok((await late.submit(Buffer.from('four of five'))).height > height, 'with its vote');
  await isClose('node-5', 'node-1');

  await eventually('the stream has all', async () => heights.at(-1) === lasting.head().height, 30_000);
  t.strictSame(
    heights,
    Array.from({ length: heights.length }, (_, i) => i + 1),
  );
  await Promise.all(clients.map((client) => client.close()));
  await streamed;
});
