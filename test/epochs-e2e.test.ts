// A network of real processes through several epochs: a limit and a key are changed, one replica sleeps through both, a fifth joins, and the first
// primary leaves; orders go on all the time, and everything is proved from the genesis document at the end.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { z } from 'zod';

t.setTimeout(280_000);
const program = fileURLToPath(new URL('../daemon/main.js', import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(args: readonly string[], cwd: string, input = ''): { child: ChildProcess; ended: Promise<Ended> } {
  const env = { ...process.env };
  delete env.SYNOD_PASSPHRASE;
  const child = spawn(process.execPath, [program, ...args], { cwd, env, stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  return {
    child,
    ended: new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr }))),
  };
}

const statusSchema = z.object({ ready: z.boolean(), epoch: z.int(), height: z.int() });
const configSchema = z.looseObject({
  http: z.object({ host: z.string(), port: z.int() }),
  peers: z.record(z.string(), z.string()),
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

t.test('[EPO-12] [EPO-16] [EPO-17] a network changes its limits, a key and its members while it orders', async (t) => {
  const dir = t.testdir();
  const synod = (...args: string[]) => run(args, dir).ended;
  const ok = async (...args: string[]) => {
    const ended = await synod(...args);
    if (ended.code !== 0) throw new Error(`synod ${args.join(' ')}: ${ended.code} ${ended.stdout}${ended.stderr}`);
    return ended;
  };
  const genesis = ['--genesis', 'net/genesis.json'];
  await ok('init', 'net', '--unsealed', '--param', 'viewTimeoutMs=1500');
  const nodes = new Map<string, ReturnType<typeof run>>();
  t.teardown(async () => {
    for (const { child } of nodes.values()) child.kill('SIGKILL');
    await Promise.all([...nodes.values()].map(({ ended }) => ended));
  });
  const start = (name: string, ...more: string[]) =>
    nodes.set(name, run(['start', join('net', name, 'config.json'), ...more], dir));
  const config = (name: string) =>
    configSchema.parse(JSON.parse(readFileSync(join(dir, 'net', name, 'config.json'), 'utf8')));
  const door = (name: string) => `http://${config(name).http.host}:${config(name).http.port}`;
  const status = async (name: string) => {
    try {
      const response = await fetch(`${door(name)}/v1/status`, { signal: AbortSignal.timeout(2_000) });
      return statusSchema.parse(await response.json());
    } catch {
      return null;
    }
  };
  const eventually = async (what: string, condition: () => Promise<boolean>) => {
    const deadline = performance.now() + 60_000;
    while (!(await condition())) {
      if (performance.now() > deadline) throw new Error(`never: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const inEpoch = (epoch: number, names: readonly string[]) =>
    eventually(`epoch ${epoch} at ${names}`, async () => {
      const all = await Promise.all(names.map(status));
      return all.every((each) => each?.ready === true && each.epoch === epoch);
    });
  let receipts = 0;
  const order = async (text: string) => {
    receipts += 1;
    const { ended } = run(['submit', '--network', 'net', '--receipt', `${receipts}.receipt`], dir, text);
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

  await change('node-0', operators.slice(0, 3), ['param', 'set', 'window=4', 'blockBundlesMax=512']);
  await inEpoch(1, four);
  await order('under other limits');

  // Asleep through two changes.
  const asleep = nodes.get('node-3')!;
  asleep.child.kill('SIGTERM');
  t.equal((await asleep.ended).code, 0);
  await change(
    'node-0',
    operators.slice(0, 3),
    ['member', 'rotate', 'node-2', '--key', 'net/node-2/new.key'],
    ['--key', 'net/node-2/new.key', '--at', '3'],
  );
  await inEpoch(2, four.slice(0, 3));
  await order('with the new key');
  // Killed in the middle of the switch, by the word that says that it has begun.
  const killed = nodes.get('node-0')!;
  killed.child.stdout?.on('data', (chunk: string) => {
    if (/the epoch has ended/.test(chunk)) killed.child.kill('SIGKILL');
  });
  await change('node-1', operators.slice(0, 3), ['param', 'set', 'window=6']);
  t.equal((await killed.ended).code, null, 'killed');
  start('node-0');
  await inEpoch(3, four.slice(0, 3));
  start('node-3');
  await inEpoch(3, four);
  await order('all four again');

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
  await inEpoch(4, five);
  await order('five of them');

  // The first primary goes; its process ends, and says why.
  await change('node-1', [...operators.slice(1), 'fifth.key'], ['member', 'remove', 'node-0']);
  await inEpoch(5, five.slice(1));
  const gone = await nodes.get('node-0')!.ended;
  t.equal(gone.code, 2, 'nobody starts it again');
  t.match(gone.stderr, /^synod: .* \[not-a-member\]$/m);
  await order('without the first');

  // Everything, from the genesis document.
  for (let i = 1; i <= receipts; i++) await ok('verify', `${i}.receipt`, ...genesis);
  const newest = nodes.get('node-4')!;
  newest.child.kill('SIGTERM');
  t.equal((await newest.ended).code, 0);
  await ok('export', '--config', 'net/node-4/config.json', '--out', 'net.chain');
  const verified = await ok('verify', 'net.chain', ...genesis, '--json');
  t.match(JSON.parse(verified.stdout), { valid: true, from: 1, epoch: 5 });
});
