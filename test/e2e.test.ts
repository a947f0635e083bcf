// End to end with real processes, sockets and disks: the demo as `npm start` runs it, and a network on this machine under every
// command that talks to one. Nothing may be left behind: no process, no directory.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import tap from 'tap';
import { z } from 'zod';
import { Program, type Run, synod as run } from './program.ts';

// tap's own 30 seconds are for tests without a cluster.
tap.setTimeout(230_000);

/** All of them in one directory, so that files have short names. */
const synod = (args: readonly string[], cwd: string, input = ''): Promise<Run> => run(args, { cwd, input });
const begun = (args: readonly string[], cwd: string): Program => new Program(args, { cwd });

/** Resolves when standard output or error holds this. */
async function says(run: Program, pattern: RegExp, msMax = 60_000): Promise<void> {
  await eventually(() => pattern.test(run.stdout + run.stderr) || run.child.exitCode !== null, msMax);
  if (!pattern.test(run.stdout + run.stderr)) throw new Error(`never said ${pattern}:\n${run.stdout}${run.stderr}`);
}

async function eventually(condition: () => boolean | Promise<boolean>, msMax: number): Promise<void> {
  const deadline = performance.now() + msMax;
  while (!(await condition())) {
    if (performance.now() > deadline) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Process ids that the demo has named. */
const pidsIn = (text: string): number[] => [...new Set([...text.matchAll(/pid (\d+)/g)].map(([, pid]) => Number(pid)))];

const resultSchema = z.object({
  passed: z.boolean(),
  checks: z.array(z.object({ name: z.string(), passed: z.boolean(), detail: z.string() })),
  figures: z.object({
    transactions: z.literal(1557),
    blocks: z.int().min(1),
    latencyP50Ms: z.number().positive(),
    latencyP99Ms: z.number().positive(),
    failoverGapMs: z.number().positive(),
    viewChangeMs: z.number().positive(),
    catchUpMs: z.number().positive(),
  }),
});

tap.test('the demo: a real block, a crash, a proof', async (t) => {
  const dir = t.testdir();
  const { code, stdout, stderr } = await synod(['demo', '--once', '--json', '--pace', '15ms'], dir);
  const parsed = resultSchema.safeParse(stdout === '' ? null : JSON.parse(stdout));
  if (!parsed.success) return t.fail(`no result: ${parsed.error.message}\n${stderr}`);
  for (const check of parsed.data.checks) t.ok(check.passed, check.name, { detail: check.detail });
  t.equal(parsed.data.checks.length, 7);
  t.ok(parsed.data.passed);
  t.equal(code, 0);
  const pids = pidsIn(stderr);
  t.equal(pids.length, 5, 'four replicas, one of them twice');
  t.strictSame(pids.filter(isAlive), [], 'no process is left');
  t.strictSame(readdirSync(dir), [], 'no file is left');
});

tap.test('the demo: Ctrl-C in the middle leaves nothing', async (t) => {
  const dir = t.testdir();
  const demo = begun(['demo', '--once', '--keep', '--dir', 'kept'], dir);
  await says(demo, /a client submits them/);
  const pids = pidsIn(demo.stdout);
  t.equal(pids.length, 4);
  t.strictSame(pids.filter(isAlive), pids);
  demo.child.kill('SIGINT');
  const { code, stderr } = await demo.ended;
  t.equal(code, 130);
  t.match(stderr, /^synod: interrupted \[interrupted\]\n$/);
  t.strictSame(pids.filter(isAlive), [], 'no process is left');
  t.ok(existsSync(join(dir, 'kept', 'node-0', 'replica.log')), '--keep keeps the files');
});

tap.test('a network under every command', async (t) => {
  const dir = t.testdir();
  const made = await synod(['init', 'net', '--unsealed', '--param', 'viewTimeoutMs=2000'], dir);
  t.equal(made.code, 0, made.stderr);
  const net = ['--network', 'net'];
  const genesis = ['--genesis', 'net/genesis.json'];
  const first = begun(['dev', '--dir', 'net'], dir);
  const statusSchema = z.object({
    replicas: z.array(z.object({ answers: z.boolean(), ready: z.boolean().optional(), height: z.int().optional() })),
  });
  const replicas = async () =>
    statusSchema.parse(JSON.parse((await synod(['status', ...net, '--json'], dir)).stdout)).replicas;
  await eventually(async () => (await replicas()).every(({ ready }) => ready === true), 60_000);
  t.strictSame(
    (await replicas()).map(({ ready }) => ready),
    [true, true, true, true],
  );

  const hello = await synod(['submit', ...net, '--receipt', 'hello.receipt'], dir, 'hello\n');
  t.match(hello, { code: 0, stdout: /^height 1 {2}index 0 {2}[0-9a-f]{64}\n$/ });
  const lines = Array.from({ length: 300 }, (_, index) => `transaction ${index}`);
  const many = await synod(['submit', ...net, '--lines', '--json'], dir, `${lines.join('\n')}\n`);
  t.equal(many.code, 0, many.stderr);
  t.equal(many.stdout.trim().split('\n').length, 300);

  await t.test('receipts', async (t) => {
    t.match(await synod(['verify', 'hello.receipt', ...genesis], dir), {
      code: 0,
      stdout: /^proved: this transaction of 6 bytes/,
    });
    const text = readFileSync(join(dir, 'hello.receipt'), 'utf8');
    writeFileSync(join(dir, 'forged.receipt'), text.replace(/"index": 0/, '"index": 1'));
    t.match(await synod(['verify', 'forged.receipt', ...genesis], dir), {
      code: 3,
      stdout: '',
      stderr: /not proved: .*\[receipt-range\]/,
    });
    await synod(['init', 'other', '--unsealed'], dir);
    const other = await synod(['verify', 'hello.receipt', '--genesis', 'other/genesis.json'], dir);
    t.match(other, { code: 3, stdout: '', stderr: /\[chain-mismatch\]/ });
  });

  await t.test('follow: in order, and on from where it stopped', async (t) => {
    const blockSchema = z.object({
      height: z.int(),
      bundles: z.array(z.object({ transactions: z.array(z.string()) })),
    });
    const follow = async (to: number) => {
      const { code, stdout } = await synod(
        ['follow', ...net, '--from', 'oldest', '--to', String(to), '--json', '--state', 'place'],
        dir,
      );
      t.equal(code, 0);
      return stdout.split('\n').flatMap((line) => (line === '' ? [] : [blockSchema.parse(JSON.parse(line))]));
    };
    const head = Math.max(...(await replicas()).map(({ height }) => height ?? 0));
    const blocks = [...(await follow(1)), ...(await follow(head))];
    t.strictSame(
      blocks.map(({ height }) => height),
      Array.from({ length: head }, (_, index) => index + 1),
      'each block once',
    );
    const transactions = blocks.flatMap(({ bundles }) => bundles.flatMap((bundle) => bundle.transactions));
    t.strictSame(
      transactions.map((text) => Buffer.from(text, 'base64').toString()),
      ['hello\n', ...lines],
    );
    t.equal(
      (await synod(['follow', ...net, '--from', 'oldest', '--to', String(head), '--state', 'place'], dir)).stdout,
      '',
    );
    // The reader leaves at once; whether a block was written by then or not, that is no failure.
    const cut = begun(['follow', ...net, '--from', 'oldest', '--json'], dir);
    await says(cut, /height/);
    cut.child.stdout?.destroy();
    await synod(['submit', ...net, 'one more'], dir);
    t.equal((await cut.ended).code, 0, 'a broken pipe is no failure');
  });

  await t.test('export and verify', async (t) => {
    const done = await synod(['export', ...net, '--out', 'net.chain'], dir);
    t.match(done, { code: 0, stdout: /^net\.chain: blocks 1 to \d+, 302 transactions/ });
    t.match(await synod(['verify', 'net.chain', ...genesis], dir), {
      code: 0,
      stdout: /from the genesis block on; 302 transactions/,
    });
    const bytes = readFileSync(join(dir, 'net.chain'));
    const flipped = Buffer.from(bytes);
    const middle = Math.floor(flipped.length / 2);
    flipped[middle] = (flipped[middle] ?? 0) ^ 1;
    writeFileSync(join(dir, 'flipped.chain'), flipped);
    t.match(await synod(['verify', 'flipped.chain', ...genesis], dir), { code: 3, stdout: '' }, 'one bit');
    writeFileSync(join(dir, 'cut.chain'), bytes.subarray(0, bytes.length - 1));
    t.match(await synod(['verify', 'cut.chain', ...genesis], dir), { code: 3, stdout: '' }, 'one byte less');
  });

  const before = await replicas();
  first.child.kill('SIGTERM');
  t.equal((await first.ended).code, 0, 'SIGTERM stops all of them in order');
  t.equal((first.stdout.match(/\| .*info +stopped/g) ?? []).length, 4, 'every replica has drained');
  // Down: each one's own chain, from its log; and they are one.
  for (const name of ['node-0', 'node-1']) {
    const own = await synod(['export', '--config', `net/${name}/config.json`, '--out', `${name}.chain`], dir);
    t.match(own, { code: 0, stdout: new RegExp(`^${name}\\.chain: blocks 1 to \\d+, 302 transactions`) }, own.stderr);
  }
  t.match(await synod(['audit', 'node-0.chain', 'node-1.chain', 'net.chain', ...genesis], dir), {
    code: 0,
    stdout: /where they overlap they are one chain\nnothing is proved against anybody\n$/,
  });
  const away = await synod(['status', ...net], dir);
  t.match(away, { code: 4, stderr: /\[no-replica-answers\]/ });

  const second = begun(['dev', '--dir', 'net'], dir);
  await eventually(async () => (await replicas()).every(({ ready }) => ready === true), 60_000);
  t.strictSame(
    (await replicas()).map(({ height }) => height),
    before.map(({ height }) => height),
    'nothing was lost',
  );
  t.match(await synod(['submit', ...net, 'after the restart'], dir), { code: 0 });
  second.child.kill('SIGINT');
  t.equal((await second.ended).code, 0);
});

tap.test('why: two of four are stopped, and it says which; nothing is ordered, and it says why not', async (t) => {
  const dir = t.testdir();
  await synod(['init', 'net', '--unsealed', '--param', 'viewTimeoutMs=2000'], dir);
  const net = ['--network', 'net'];
  const start = (id: number) => begun(['start', `net/node-${id}/config.json`], dir);
  const replicas = [0, 1, 2, 3].map(start);
  t.teardown(() => {
    for (const { child } of replicas) child.kill('SIGKILL');
  });
  const patient = ['--timeout', '60s'];
  const until = async (pattern: RegExp) => {
    let told = await synod(['why', ...net, ...patient], dir);
    await eventually(async () => {
      if (!pattern.test(told.stdout)) told = await synod(['why', ...net, ...patient], dir);
      return pattern.test(told.stdout);
    }, 60_000);
    return told;
  };
  t.match(await until(/^healthy: all 4 replicas answer, (idle|ordering) at height 0 .*\n$/), { code: 0, stderr: '' });
  t.match(await synod(['submit', ...net], dir, 'hello\n'), { code: 0 });
  t.match(await synod(['explain', '1', ...net, ...patient], dir), { code: 0, stdout: /^block 1 is decided: node-/ });
  const sha256 = '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03';
  t.match(await synod(['explain', sha256, ...net, ...patient], dir), {
    code: 0,
    stdout: /^this transaction, number 0 of its bundle, is decided: block 1, index 0\n$/,
  });

  for (const id of [1, 3]) replicas[id]?.child.kill('SIGTERM');
  for (const id of [1, 3]) t.equal((await replicas[id]?.ended)?.code, 0);
  const stopped = await until(/^nothing is ordered: 2 of 4 replicas answer/);
  t.equal(stopped.code, 1);
  const lines = stopped.stdout.split('\n');
  t.match(lines[0], /3 are needed; node-1 was last heard [\d.]+ m?s ago, node-3 was last heard .* \[no-quorum\]$/);
  t.match(lines[1], /^ {2}do: start node-1 or node-3; /);
  t.match(lines.slice(2).join('\n'), /^ {2}node-1 cannot be reached at .*\n {2}node-3 cannot be reached at .*\n$/);
  const one = await synod(['why', '--config', 'net/node-2/config.json', ...patient], dir);
  t.match(one, { code: 1, stdout: /^node-2: cut off: 2 of 4 replicas answer.*\n[\s\S]*\n {2}heard: node-0: \w+ \d+/ });
  t.match(await synod(['why', '--config', 'net/node-1/config.json', ...patient], dir), {
    code: 1,
    stdout: /cannot be reached/,
  });
  const json = JSON.parse((await synod(['why', ...net, ...patient, '--json'], dir)).stdout);
  t.match(json, {
    healthy: false,
    state: 'stopped',
    causes: [{ code: 'no-quorum', who: ['node-1', 'node-3'], have: 2, need: 3, of: 4 }],
    action: { code: 'start', who: ['node-1', 'node-3'], count: 1 },
  });
  t.equal(json.causes.length, 1, 'and no other');

  const stuck = begun(['submit', ...net, 'stuck'], dir);
  const place = createHash('sha256').update('stuck').digest('hex');
  const explain = () => synod(['explain', place, ...net, ...patient], dir);
  const waits = /is in a block that is not decided yet: block 2 is proposed, .*2 of 4 prepares|waits in the pool/;
  await eventually(async () => waits.test((await explain()).stdout), 30_000);
  t.match((await explain()).stdout, /Why not yet: 2 of 4 replicas answer, 3 are needed/);

  replicas[3] = start(3);
  t.match(await stuck.ended, { code: 0 }, 'the action that was proposed is enough');
  const less = await until(/\[member-away\]/);
  t.match(less, { code: 1, stdout: /^(idle|ordering), not healthy: node-1 was last heard/ });
  t.match((await explain()).stdout, /is decided: block 2, index 0/);
  for (const { child } of replicas) child.kill('SIGTERM');
  await Promise.all(replicas.map(({ ended }) => ended));
});

tap.test('start: alone, with a sealed key', async (t) => {
  const dir = t.testdir({ right: 'correct horse\n', wrong: 'battery staple\n' });
  await synod(['init', 'net', '--unsealed'], dir);
  const key = join(dir, 'net', 'node-0', 'replica.key');
  t.equal((await synod(['keys', 'seal', key, '--passphrase-file', 'right'], dir)).code, 0);
  const config = join(dir, 'net', 'node-0', 'config.json');
  const text = readFileSync(config, 'utf8');
  const start = (passphraseFile: string) => {
    writeFileSync(config, JSON.stringify({ ...JSON.parse(text), passphraseFile: `../../${passphraseFile}` }));
    return begun(['start', config], dir);
  };
  const refused = await start('wrong').ended;
  t.match(refused, {
    code: 2,
    stderr: /^synod: the passphrase is wrong, or the key file is damaged .*\[key-passphrase\]/,
  });
  const alone = start('right');
  await says(alone, /"msg":"started"/);
  const twice = await start('right').ended;
  t.match(twice, { code: 1, stderr: /\[guard-locked\]/ }, 'one key never runs twice');
  alone.child.kill('SIGTERM');
  const { code, stdout, stderr } = await alone.ended;
  t.equal(code, 0, 'SIGTERM drains and ends well');
  t.match(stdout, /"msg":"stopped"/, 'the last lines of the log are written');
  t.equal(stderr, '');
  t.notMatch(stdout, /correct horse/, 'no secret in the log');
});
