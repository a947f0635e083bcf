// Whoever was away while every key of the others changed, with real processes: a replica that starts with the members of long ago, a client that holds the
// genesis document and old addresses; nodes that observe, serve, follow each other, begin at a checkpoint, and are promoted when they are close.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Client, connect, verifyReceiptFile } from '../client/index.ts';
import { native } from '../crypto/native.ts';
import { loadGenesis } from '../daemon/config.ts';
import { SecretKey } from '../keys/keypair.ts';
import { EpochNet, freePort } from './epoch-net.ts';

t.setTimeout(560_000);

t.test('[EPO-18] [EPO-19] [EPO-20] [EPO-21] nobody is lost who was away', async (t) => {
  const dir = t.testdir();
  const { synod, ok, start, stop, config, door, status, eventually, inEpoch } = new EpochNet(t, dir);
  const genesisFlag = ['--genesis', 'net/genesis.json'];
  const operators = [0, 1, 2].map((i) => `net/operators/node-${i}.key`);
  /** A change with its signatures, ready to be handed in; and that. */
  const change = async (by: string, args: readonly string[], joining?: readonly string[]) => {
    const epochs = await fetch(`${door(by)}/v1/epochs`);
    writeFileSync(join(dir, 'net.epochs'), new Uint8Array(await epochs.arrayBuffer()));
    const known = [...genesisFlag, '--epochs', 'net.epochs', '--height', '2'];
    const file = `change-${Math.random()}.json`;
    await ok(...args, ...known, '--out', file);
    for (const key of operators) await ok('control', 'sign', file, '--key', key, ...known);
    if (joining !== undefined) await ok('member', 'promote', file, ...joining);
    return file;
  };
  const submit = (by: string, file: string) => synod('control', 'submit', file, ...genesisFlag, '--http', door(by));

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
    const file = await change(name, ['member', 'rotate', name, '--key', key], ['--key', key, '--at', '1']);
    const submitted = await submit(name, file);
    t.equal(submitted.code, 0, submitted.stderr);
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
  const observer = async (name: string, more: object) => {
    mkdirSync(join(dir, 'net', name));
    await ok('keys', 'generate', `net/${name}/replica.key`, '--unsealed', '--sign-state', 'net/genesis.json');
    const [port, httpPort] = [await freePort(), await freePort()];
    const own = {
      genesis: '../genesis.json',
      member: name,
      key: 'replica.key',
      dataDir: 'data',
      listen: { host: '127.0.0.1', port },
      http: { host: '127.0.0.1', port: httpPort },
      retainBlocks: 1_024,
      ...more,
    };
    writeFileSync(join(dir, 'net', name, 'config.json'), JSON.stringify(own));
    start(name, '--observe');
    return port;
  };
  const close = async (name: string) => {
    await eventually(`${name} is at the head`, async () => {
      const [here, there] = [await status(name), await status('node-1')];
      return here !== null && there !== null && here.epoch === there.epoch && here.height >= there.height;
    });
  };
  const members = Object.fromEntries(old.map(({ name, url }) => [name, url]));
  const fifthPort = await observer('node-4', { peers: members });
  await close('node-4');
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
  const sixthPort = await observer('node-5', {
    peers: {},
    sources: { 'node-4': `ws://127.0.0.1:${fifthPort}` },
  });
  await close('node-5');
  const reader = await connect({
    genesis,
    replicas: [],
    sources: [{ name: 'node-5', url: `ws://127.0.0.1:${sixthPort}` }],
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
  const address = ['--address', `ws://127.0.0.1:${fifthPort}`];
  const key = ['--key', 'net/node-4/replica.key'];
  const far = await change('node-1', [...add, ...address], [...key, '--at', '1000']);
  const shown = await synod(
    'control',
    'show',
    far,
    ...genesisFlag,
    '--epochs',
    'net.epochs',
    '--height',
    String(height),
  );
  t.equal(shown.code, 3);
  t.match(shown.stdout + shown.stderr, /[0-9]+ blocks behind; 64 may be \[control-join-far\]/);
  const near = await change('node-1', [...add, ...address], [...key, '--at', String(height)]);
  const promoted = await submit('node-1', near);
  t.equal(promoted.code, 0, promoted.stderr);
  await inEpoch(4, [...four, 'node-4']);
  await stop('node-0');
  t.ok((await late.submit(Buffer.from('four of five'))).height > height, 'with its vote');
  await close('node-5');

  await eventually('the stream has all', async () => heights.at(-1) === lasting.head().height, 30_000);
  t.strictSame(
    heights,
    Array.from({ length: heights.length }, (_, i) => i + 1),
  );
  await Promise.all(clients.map((client) => client.close()));
  await streamed;
});
