// A network of real processes through several epochs: a limit and a key are changed, one replica sleeps through both, a fifth joins, and the first
// primary leaves; orders go on all the time, and everything is proved from the genesis document at the end.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { connect } from '../client/index.ts';
import { native } from '../crypto/native.ts';
import { loadGenesis } from '../daemon/config.ts';
import { SecretKey } from '../keys/keypair.ts';
import { EpochNet, freePort } from './epoch-net.ts';
import { synod as run } from './program.ts';

t.setTimeout(280_000);
t.test('[EPO-12] [EPO-16] [EPO-17] a network changes its limits, a key and its members while it orders', async (t) => {
  const dir = t.testdir();
  const { synod, ok, start, config, door, eventually, inEpoch, nodes, status, stop } = new EpochNet(t, dir);
  const genesis = ['--genesis', 'net/genesis.json'];
  await ok('init', 'net', '--unsealed', '--param', 'viewTimeoutMs=1500');
  let receipts = 0;
  const order = async (text: string) => {
    receipts += 1;
    const ended = run(['submit', '--network', 'net', '--receipt', `${receipts}.receipt`], { cwd: dir, input: text });
    const { code, stderr } = await ended;
    t.equal(code, 0, `ordered: ${text} ${stderr}`);
  };
  /** Made with the epochs that this replica can prove, signed by these operators, handed in. */
  const change = async (name: string, by: readonly string[], args: readonly string[], joining?: readonly string[]) => {
    const epochs = await fetch(`${door(name)}/v1/epochs`);
    writeFileSync(join(dir, 'net.epochs'), new Uint8Array(await epochs.arrayBuffer()));
    const known = [...genesis, '--epochs', 'net.epochs', '--height', '2'];
    const file = `change-${Math.random()}.json`;
    await ok(...args, ...known, '--out', file);
    for (const key of by) await ok('control', 'sign', file, '--key', key, ...known);
    if (joining !== undefined) await ok('member', 'promote', file, ...joining);
    const submitted = await ok('control', 'submit', file, ...genesis, '--http', door(name));
    t.match(submitted.stdout, /^epoch \d+ began at height \d+: /);
  };
  const operators = [0, 1, 2, 3].map((i) => `net/operators/node-${i}.key`);
  const four = [0, 1, 2, 3].map((i) => `node-${i}`);

  // The key that will follow node-2's is there from the start.
  await ok('keys', 'generate', 'net/node-2/new.key', '--unsealed', '--sign-state', 'net/genesis.json');
  writeFileSync(join(dir, 'net/node-2/config.json'), JSON.stringify({ ...config('node-2'), nextKey: 'new.key' }));
  for (const name of four) start(name);
  await inEpoch(0, four);
  await order('in the first epoch');

  const loaded = loadGenesis(native, join(dir, 'net/genesis.json'));
  if ('refused' in loaded) throw new Error(loaded.problem);
  const replicas = four.map((name) => ({ name, url: `ws://127.0.0.1:${config(name).listen.port}` }));
  const client = await connect({ genesis: loaded.genesis, replicas, key: SecretKey.generate() });
  t.teardown(() => client.close());
  const lost: string[] = [];
  client.on('disconnected', ({ replica }) => lost.push(replica));
  // Those who dialled each other at once have given up one of two connections.
  const disconnects = async (names = four) => {
    const metrics = names.map(async (name) => await (await fetch(`${door(name)}/metrics`)).text());
    return (await Promise.all(metrics)).map((text) => text.match(/^synod_transport_disconnects_total.*$/gm));
  };
  const before = await disconnects();
  await change('node-0', operators.slice(0, 3), ['param', 'set', 'window=4', 'blockBundlesMax=512']);
  await inEpoch(1, four);
  await order('under other limits');
  t.ok((await client.submit(Buffer.from('over a connection of the epoch before'))).height > 1);
  t.equal(client.epochs.last.epoch, 1);
  t.strictSame(lost, [], '[EPO-22] the doors have stayed open');
  t.strictSame(await disconnects(), before, 'and so have the links between them');

  // Asleep through two changes.
  const asleep = nodes.get('node-3')!;
  asleep.child.kill('SIGTERM');
  t.equal((await asleep.ended).code, 0);
  const three = four.slice(0, 3);
  // Of those that are awake: the end of the other one may not have been counted yet.
  const between = async () =>
    (await disconnects(three)).map((lines) => lines?.filter((line) => !line.includes('peer="3"')) ?? []);
  const awake = await between();
  lost.splice(0);
  await change(
    'node-0',
    operators.slice(0, 3),
    ['member', 'rotate', 'node-2', '--key', 'net/node-2/new.key'],
    ['--key', 'net/node-2/new.key', '--at', '3'],
  );
  await inEpoch(2, three);
  await order('with the new key');
  t.ok((await client.submit(Buffer.from('over a connection of the key before'))).height > 1);
  t.strictSame(
    lost.filter((name) => name !== 'node-3'),
    [],
    '[EPO-23] the doors have stayed open for the replica with another key',
  );
  t.strictSame(await between(), awake, 'and the links between them');
  // Killed in the middle of the switch, by the word that says that it has begun.
  const killed = nodes.get('node-0')!;
  killed.child.stdout?.on('data', (chunk: string) => {
    if (/the epoch has ended/.test(chunk)) killed.child.kill('SIGKILL');
  });
  await change('node-1', operators.slice(0, 3), ['param', 'set', 'window=6']);
  t.equal((await killed.ended).code, null, 'killed');
  start('node-0');
  await inEpoch(3, three);
  start('node-3');
  await inEpoch(3, four);
  await order('all four again');

  // It moves. Nobody answers at what its config says of the others, so it is they who find it where the epoch says.
  await stop('node-3');
  const newPort = await freePort();
  const moved = {
    ...config('node-3'),
    listen: { host: '127.0.0.1', port: newPort },
    peers: Object.fromEntries(three.map((name) => [name, 'ws://127.0.0.1:1'])),
  };
  writeFileSync(join(dir, 'net/node-3/config.json'), JSON.stringify(moved));
  const move = ['member', 'address', 'node-3', `ws://127.0.0.1:${newPort}`];
  await change('node-0', operators.slice(0, 3), move);
  await inEpoch(4, three);
  start('node-3');
  await inEpoch(4, four);
  await eventually('[EPO-25] the others have dialled it', async () => {
    const peers = (await status('node-0'))?.peers;
    return peers?.some(({ name, connected }) => name === 'node-3' && connected) === true;
  });
  await order('from another place');

  // A log is lost: its marks are of a later epoch than an empty one, and it comes back there.
  await stop('node-1');
  const repaired = await ok('repair', 'net/node-1/config.json', '--log');
  t.match(repaired.stdout, /log: none yet\nnothing to repair; next: synod start \S+\n$/);
  start('node-1');
  await inEpoch(4, four);
  await order('over a lost log');
  await stop('node-1');
  const looked = await ok('repair', 'net/node-1/config.json');
  t.match(looked.stdout, /^sign-state: sound, .*\nlog: sound, blocks \d+ to \d+, in epoch 4\n/);
  start('node-1');
  await inEpoch(4, four);

  // A fifth follows until it is a member.
  mkdirSync(join(dir, 'net/node-4'));
  await ok('keys', 'generate', 'net/node-4/replica.key', '--unsealed', '--sign-state', 'net/genesis.json');
  await ok('keys', 'generate', 'fifth.key', '--unsealed');
  const [port, httpPort] = [await freePort(), await freePort()];
  const peers = { ...config('node-0').peers, ...config('node-1').peers };
  const fifth = {
    genesis: '../genesis.json',
    member: 'node-4',
    key: 'replica.key',
    dataDir: 'data',
    listen: { host: '127.0.0.1', port },
    peers,
    http: { host: '127.0.0.1', port: httpPort },
  };
  writeFileSync(join(dir, 'net/node-4/config.json'), JSON.stringify(fifth));
  const early = await synod('start', 'net/node-4/config.json');
  t.equal(early.code, 2, 'it cannot start as a member');
  start('node-4', '--observe');
  const add = [
    'member',
    'add',
    'node-4',
    '--key',
    'net/node-4/replica.key',
    '--operator',
    'fifth.key',
    '--address',
    `ws://127.0.0.1:${port}`,
  ];
  await change('node-0', operators.slice(0, 3), add, ['--key', 'net/node-4/replica.key', '--at', '7']);
  const five = [...four, 'node-4'];
  await inEpoch(5, five);
  await order('five of them');

  // The first primary goes; its process ends, and says why.
  await change('node-1', [...operators.slice(1), 'fifth.key'], ['member', 'remove', 'node-0']);
  await inEpoch(6, five.slice(1));
  const gone = await nodes.get('node-0')!.ended;
  t.equal(gone.code, 2, 'nobody starts it again');
  t.match(gone.stderr, /^synod: .* \[not-a-member\]$/m);
  await order('without the first');
  // Its doors say which epoch it is; nobody hands over a file.
  const plan = await synod('param', 'set', 'window=7', '--network', 'net', '--plan', '--json');
  t.match(JSON.parse(plan.stdout), {
    epoch: 6,
    before: { members: five.slice(1) },
    live: { answer: five.slice(1) },
    refusals: [{ code: 'control-unauthorised' }],
  });
  t.equal(plan.stderr, '');

  // From a later epoch on, with its links; by the doors, and from a log.
  const { height } = (await status('node-4'))!;
  await ok('export', '--network', 'net', '--from', `${height - 1}`, '--out', 'late.chain');
  const late = await ok('verify', 'late.chain', ...genesis, '--json');
  t.match(JSON.parse(late.stdout), { valid: true, epoch: 6 });
  const followed = await ok('follow', '--network', 'net', '--from', `${height}`, '--to', `${height}`, '--json');
  t.match(JSON.parse(followed.stdout), { height, epoch: 6, proposer: /^node-[1-4]$/ });

  // Everything, from the genesis document.
  for (let i = 1; i <= receipts; i++) await ok('verify', `${i}.receipt`, ...genesis);
  const newest = nodes.get('node-4')!;
  newest.child.kill('SIGTERM');
  t.equal((await newest.ended).code, 0);
  await ok('export', '--config', 'net/node-4/config.json', '--from', `${height}`, '--out', 'log.chain');
  t.match(JSON.parse((await ok('verify', 'log.chain', ...genesis, '--json')).stdout), { valid: true, epoch: 6 });
  await ok('export', '--config', 'net/node-4/config.json', '--out', 'net.chain');
  const verified = await ok('verify', 'net.chain', ...genesis, '--json');
  t.match(JSON.parse(verified.stdout), { valid: true, from: 1, epoch: 6 });
});
