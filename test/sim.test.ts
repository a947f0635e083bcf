// The simulator itself: the same seed goes the same way, the checks have teeth, failures are made small, and the command line.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { voteSigningBytes } from '../protocol/certificate.ts';
import type { Decided } from '../protocol/core.ts';
import { protocols } from '../protocol/modes.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asEpoch, asHash, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import type { CheckName } from '../sim/checks.ts';
import { CHECKS, CheckFailure } from '../sim/checks.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';
import { brokenForEver } from '../sim/faults.ts';
import type { LifeOptions } from '../sim/life.ts';
import { drawPlan, live } from '../sim/life.ts';
import { shrink } from '../sim/shrink.ts';
import { keyPair, standInCrypto, standInKey } from '../sim/signatures.ts';
import { caughtAt, liveWith, PLANTED } from './planted.ts';
import { program, type Run, synod } from './program.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const life = (seed: number, more: Partial<LifeOptions> = {}): LifeOptions => ({
  seed,
  n: null,
  ms: 5_000,
  realSignatures: null,
  ...more,
});

const synodSim = (...args: readonly (string | number)[]): Promise<Run> => synod(['sim', ...args.map(String)]);

// ---- determinism ----------------------------------------------------------------------------------------------------------

t.test('GEN-2: the same seed goes the same way, in this process and in another one', async (t) => {
  for (const seed of [3, 16, 17]) {
    const first = live(life(seed));
    t.same(live(life(seed)), first, `seed ${seed}`);
    const { stdout, code } = await synodSim('--seed', seed, '--ms', 5_000, '--json');
    t.equal(code, 0);
    t.equal(JSON.parse(stdout).digest, first.digest, `seed ${seed} in another process`);
    t.not(live(life(seed + 1)).digest, first.digest);
  }
});

t.test('nothing in sim/ asks the machine', async (t) => {
  const folder = fileURLToPath(new URL('../../sim/', import.meta.url));
  const asks =
    /\bDate\b|Math\.random\(|\bperformance\b|\bprocess\.|\bset(Timeout|Immediate|Interval)\b|randomBytes|node:(os|fs|net|child_process)/;
  for (const file of readdirSync(folder)) {
    const lines = readFileSync(join(folder, file), 'utf8')
      .split('\n')
      .filter((line) => !line.trimStart().startsWith('//') && !line.trimStart().startsWith('*'));
    t.same(
      lines.filter((line) => asks.test(line)),
      [],
      file,
    );
  }
});

t.test('real signatures and stand-ins', async (t) => {
  const key = standInKey('someone');
  const message = Buffer.from('something');
  const signature = key.sign(message);
  t.ok(standInCrypto.verify(key.publicKey, message, signature));
  t.notOk(standInCrypto.verify(key.publicKey, Buffer.from('something else'), signature), 'bound to the bytes');
  t.notOk(standInCrypto.verify(standInKey('another').publicKey, message, signature), 'and to the key');
  t.notOk(native.verify(key.publicKey, message, signature), 'and no real one');
  t.ok(standInCrypto.verify(key.publicKey, message, keyPair('someone').sign(message)), 'a real one does as well');
  t.equal(drawPlan(life(32)).realSignatures, true, 'one seed in 16 has real ones');
  const count = Array.from({ length: 64 }, (_, seed) => drawPlan(life(seed))).filter(
    (plan) => plan.realSignatures,
  ).length;
  t.equal(count, 4);
  t.equal(live(life(5, { realSignatures: true, ms: 2_000 })).failure, null);
});

// ---- faults ---------------------------------------------------------------------------------------------------------------

t.test('the swarm draws all kinds, and never breaks more than f replicas for ever', async (t) => {
  const forEver = ['twin', 'liar', 'amnesia', 'lost-log', 'rollback'];
  for (let seed = 1; seed <= 50; seed++) {
    const { faults } = drawPlan(life(seed, { n: 7, f: 0, ms: 60_000 }));
    if (brokenForEver(faults, 7).size > 0 || faults.some(({ kind }) => forEver.includes(kind)))
      t.fail(`seed ${seed}: somebody is broken for ever or forgets, and none may`);
    if (brokenForEver(drawPlan(life(seed, { n: 7, f: 1, ms: 60_000 })).faults, 7).size > 1)
      t.fail(`seed ${seed}: more than one`);
  }
  const kinds = new Set<string>();
  for (let seed = 1; seed <= 200; seed++) {
    const { n, faults } = drawPlan(life(seed, { ms: 60_000 }));
    const broken = brokenForEver(faults, n).size;
    if (broken > byzantineQuorums(n).f) t.fail(`seed ${seed}: ${broken} of ${n} are broken for ever`);
    for (const fault of faults) {
      kinds.add(fault.kind);
      const end = fault.lasts === null ? 0 : fault.at + fault.lasts;
      if (end > 60_000 || fault.at > 60_000) t.fail(`seed ${seed}: a fault lasts into the liveness phase`);
    }
  }
  t.same([...kinds].sort(), [
    'amnesia',
    'change',
    'clock-drift',
    'clock-jump',
    'clogged-link',
    'corruption',
    'crash',
    'cut-link',
    'delay',
    'disk-stall',
    'duplication',
    'isolation',
    'liar',
    'loss',
    'lost-log',
    'one-way-partition',
    'partition',
    'power-cut',
    'reordering',
    'rollback',
    'slow-disk',
    'slow-link',
    'slow-primary',
    'stall',
    'twin',
  ]);
});

t.test('a fault less changes no draw of the others', async (t) => {
  const options = life(9, { ms: 20_000 });
  const { faults } = drawPlan(options);
  t.ok(faults.length > 3);
  t.same(
    drawPlan({ ...options, only: [0] } as LifeOptions).faults,
    faults,
    'the numbers of faults are those of the whole list',
  );
  t.not(live({ ...options, only: [] }).digest, live(options).digest, 'and they do something');
});

t.test('links: clogged ones lose nothing, cut ones everything, and order is kept where it is asked for', async (t) => {
  const cluster = new Cluster({ seed: 4 });
  const fair = { cut: false, clogged: false, loss: 0, repeat: 0, corrupt: 0, delayMs: 0, reorder: false };
  const heard: number[] = [];
  const { nodes } = cluster;
  const arrive = nodes[1]!.arrive.bind(nodes[1]!);
  nodes[1]!.arrive = (from, signed) => {
    if (from === 0 && signed.message.kind === 'fetch-state') heard.push(signed.message.chunk);
    arrive(from, signed);
  };
  const say = (chunk: number) => cluster.inject(0, 1, { kind: 'fetch-state', height: asHeight(1), chunk });
  cluster.faults = { ...calm, delayMs: [1, 40], inOrder: true };
  for (let i = 0; i < 20; i++) say(i);
  cluster.run(100);
  t.same(
    heard.splice(0),
    Array.from({ length: 20 }, (_, i) => i),
    'in order',
  );
  cluster.setWeather(0, 1, { ...fair, clogged: true });
  say(1);
  cluster.run(500);
  t.same(heard, []);
  cluster.setWeather(0, 1, fair);
  cluster.run(100);
  t.same(heard.splice(0), [1], 'late');
  cluster.setWeather(0, 1, { ...fair, cut: true });
  say(2);
  cluster.run(100);
  cluster.setWeather(0, 1, fair);
  cluster.run(100);
  t.same(heard, [], 'lost');
});

// ---- teeth ----------------------------------------------------------------------------------------------------------------

t.test('checks that the planted bugs do not reach first, one by one', async (t) => {
  const begin = () => {
    const cluster = new Cluster({ seed: 2 });
    cluster.run(20);
    const client = new SimClient(cluster.genesis, 'alice');
    const bundles = [1, 2].map((i) => client.bundle([Buffer.from(`${i}`)]));
    for (const bundle of bundles) {
      cluster.submit(0, bundle);
      if (!cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 1_000)) t.fail('not ordered');
    }
    return cluster;
  };
  const breaks = (check: CheckName, what: (cluster: Cluster, decided: Decided) => void) => {
    const cluster = begin();
    const last = cluster.delivered[0]!.at(-1)!;
    const decided = { ...last, certificate: null };
    try {
      what(cluster, decided);
      t.fail(`${check} says nothing`);
    } catch (error) {
      if (!(error instanceof CheckFailure)) throw error;
      t.equal(error.check, check, error.message);
    }
  };
  const [a, b] = [asReplicaId(0), asReplicaId(1)];
  const hash = asHash(new Uint8Array(32).fill(1));
  const epoch = asEpoch(0);
  const again = ({ block }: Decided, height: number, bundles = block.bundles): Decided => ({
    certificate: null,
    block: {
      ...block,
      bundles,
      hash: asHash(new Uint8Array(32).fill(height)),
      header: { ...block.header, height: asHeight(height) },
    },
  });

  breaks('one-block-per-height', ({ checks }, decided) => {
    checks.booted(b, decided.block.header.height - 1, 0);
    checks.decided(b, again(decided, decided.block.header.height));
  });
  breaks('exactly-once', ({ checks }, decided) => checks.decided(a, again(decided, decided.block.header.height + 1)));
  breaks('session-order', ({ checks, genesis }, decided) => {
    const other = new SimClient(genesis, 'bob').bundle([Buffer.from('x')], { sequence: 2 });
    checks.decided(a, again(decided, decided.block.header.height + 1, [other]));
  });
  breaks('session-order', ({ checks, genesis }, decided) => {
    const late = new SimClient(genesis, 'bob').bundle([Buffer.from('x')], { validUntil: 1 });
    checks.decided(a, again(decided, decided.block.header.height + 1, [late]));
  });
  breaks('in-order', ({ checks }, decided) => checks.decided(a, again(decided, decided.block.header.height + 2, [])));
  const checkpointTwice = (cluster: Cluster, first: 'said' | 'saidUnknowing') => {
    const vote = { kind: 'checkpoint', epoch, height: asHeight(64), hash, logRoot: hash, memberSetHash: hash } as const;
    const { checks, nodes } = cluster;
    // As if it were durable: what is looked at here comes after that.
    const digest = new Uint8Array(32);
    nodes[0]!.guard.promise([{ pledge: { ...vote, stateDigest: hash }, payload: digest }], null, {
      log: nodes[0]!.disk.position,
      decided: asHeight(0),
    });
    nodes[0]!.guard.write(nodes[0]!.guard.content());
    nodes[0]!.disk.checkpoints.set(64, { place: digest, certificate: null, header: null });
    checks[first](a, cluster.sign(a, { ...vote, stateDigest: hash }));
    checks.said(a, cluster.sign(a, { ...vote, stateDigest: asHash(digest) }));
  };
  breaks('one-vote-per-place', (cluster) => checkpointTwice(cluster, 'said'));
  // What it signed on an older disk was not held against it, and binds it.
  breaks('one-vote-per-place', (cluster) => checkpointTwice(cluster, 'saidUnknowing'));
  breaks('views-never-run-back', (cluster) => {
    const status = {
      kind: 'status',
      epoch,
      active: true,
      height: asHeight(0),
      hash,
      stable: asHeight(0),
      lowest: asHeight(1),
    } as const;
    cluster.checks.said(a, cluster.sign(a, { ...status, view: asView(3) }));
    cluster.checks.said(a, cluster.sign(a, { ...status, view: asView(2) }));
  });
  breaks('one-certificate-per-place', (cluster) => {
    const { lock } = cluster.nodes[0]!.guard;
    const ready = cluster.nodes[0]!.core!.step([], cluster.nodes[0]!.clock.now());
    const place = { ...lock!, hash };
    const bytes = voteSigningBytes(cluster.genesis.chainId, place);
    const signatures = [0, 1, 2].map((id) => ({ replica: asReplicaId(id), signature: cluster.keys[id]!.sign(bytes) }));
    cluster.checks.kept(a, { ...ready, lock: { ...place, signatures } });
  });
  breaks('readmitted-above-votes', ({ checks }, { block }) =>
    checks.readmitted(a, { view: asView(9), height: asHeight(block.header.height - 1) }),
  );
  breaks('acknowledged-stays', ({ checks }) => checks.acknowledged('00', 1));
  breaks('acknowledged-stays', ({ checks }, { block }) => {
    checks.acknowledged(toHex(block.bundles[0]!.digest), block.header.height);
    checks.atEnd(a, block.header.height - 1);
  });
  breaks('within-bounds', ({ checks, nodes }) => checks.bounds(a, { ...nodes[0]!.held()!, inbox: 1_000_000 }));
});

t.test('every check is documented', async (t) => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/simulator.md', import.meta.url)), 'utf8');
  for (const check of CHECKS) t.ok(text.includes(`\`${check}\``), check);
  for (const { name } of PLANTED) t.ok(text.includes(name), name);
});

// ---- shrinking ------------------------------------------------------------------------------------------------------------

t.test('a failure is made small: every fault that is left is needed', async (t) => {
  const bug = PLANTED.find(({ name }) => name === 'the base of a new view is not recomputed')!;
  const caught = caughtAt(bug, 20_000)!; // as tested above
  const options = life(caught.seed, { ms: 20_000, realSignatures: false });
  const run = (more: LifeOptions) => liveWith(bug, more);
  const failure = caught.outcome.failure!; // it was caught
  const shrunk = shrink(options, failure, { runsMax: 150, run });
  t.ok(shrunk.faults.length < shrunk.of, `${shrunk.faults.length} of ${shrunk.of} faults after ${shrunk.runs} runs`);
  t.equal(run({ ...options, only: shrunk.faults }).failure?.check, failure.check, 'they are enough');
  if (shrunk.runs < 150)
    for (const left of shrunk.faults) {
      const without = shrunk.faults.filter((number) => number !== left);
      t.not(run({ ...options, only: without }).failure?.check, failure.check, `fault ${left} is needed`);
    }
});

// ---- the command line -----------------------------------------------------------------------------------------------------

t.test('synod sim: one seed, a range, a trace, JSON', async (t) => {
  const one = await synodSim('--seed', 7, '--ms', 2_000);
  t.match(one, { code: 0, stdout: /^PASS {2}1 seed, 0 failed/ });
  t.match(one.stdout, /simulated hours; .* in each minute/);
  const range = await synodSim('--seeds', '1..4', '--ms', 2_000, '--jobs', 2, '--json');
  t.equal(range.code, 0);
  t.match(JSON.parse(range.stdout), { seeds: 4, failed: 0, failures: [], protocol: 'pbft' });
  const traced = await synodSim('--seed', 7, '--ms', 1_000, '--trace');
  t.match(traced.stdout, /\d\.\d{3} node-0 hears node-1: status view 0 height 0/);
  t.match(traced.stdout, /decides height 1/);
  const few = await synodSim('--seed', 7, '--ms', 2_000, '--faults', 'none', '--n', 5, '--json');
  t.match(JSON.parse(few.stdout), { seeds: 1, failed: 0, faults: 0 });
  const wrong = await synodSim('--seed', 7, '--ms', 2_000, '--faults', '1,999');
  t.match(wrong, { code: 2, stderr: /--faults 999: seed 7 has \d+ faults.*\[usage\]/ }, 'no replay of what never was');
});

t.test(
  'synod sim --changes: in every life the operators change the epoch, and with --no-changes in none',
  async (t) => {
    const drawn = (changes: boolean | null) =>
      [1, 2, 3, 4, 5, 6].filter((seed) => drawPlan(life(seed, { changes })).operators).length;
    t.equal(drawn(true), 6);
    t.equal(drawn(false), 0);
    t.ok(drawn(null) > 0 && drawn(null) < 6, 'else it is drawn');
    const epochsOf = async (...flags: readonly string[]) => {
      const run = await synodSim('--seeds', '1..6', '--ms', 3_000, '--jobs', 2, '--json', ...flags);
      t.equal(run.code, 0, run.stdout);
      return JSON.parse(run.stdout).epochs as number;
    };
    t.ok((await epochsOf('--changes')) >= 3, 'they reach the lives');
    t.equal(await epochsOf('--no-changes'), 0);
  },
);

t.test('synod sim --resume: what is done is not done again, and a line that was cut off is', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'synod-sim-'));
  const file = join(directory, 'done.jsonl');
  const args = ['--ms', 1_000, '--jobs', 1, '--resume', file, '--json'] as const;
  t.match(JSON.parse((await synodSim('--seeds', '1..3', ...args)).stdout), { seeds: 3 });
  const text = readFileSync(file, 'utf8');
  t.equal(text.split('\n').length, 5, 'a head, three seeds, and the end');
  writeFileSync(file, text.slice(0, -20));
  const more = await synodSim('--seeds', '1..4', ...args);
  t.match(JSON.parse(more.stdout), { seeds: 4, failed: 0 });
  t.match(more.stderr, /2 seeds are done already/);
  const digests = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => JSON.parse(line).seed);
  t.same(digests.sort(), [1, 2, 3, 4]);
  const other = await synodSim('--seeds', '1..4', '--ms', 2_000, '--resume', file);
  t.match(other, { code: 2, stderr: /\[sim-resume-file\]/ });
  for (const flags of [['--changes'], ['--f', '1']])
    t.match(await synodSim('--seeds', '1..4', ...args, ...flags), {
      code: 2,
      stderr: /is of a run with (changes|f) null/,
    });
  const others = join(directory, 'others.jsonl');
  for (const seeds of ['1..1', '1..2'])
    t.match(
      await synodSim('--seeds', seeds, '--ms', 1_000, '--f', 0, '--changes', '--jobs', 1, '--resume', others),
      { code: 0 },
      'what was asked is known again',
    );
  writeFileSync(file, 'nothing of ours\n');
  t.match(await synodSim('--seeds', '1..2', ...args), { code: 2, stderr: /first line.*\[sim-resume-file\]/ });
  rmSync(directory, { recursive: true, force: true });
});

t.test(
  'synod sim --resume: killed with SIGKILL in the middle, it goes on, and ends as if it had not been',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'synod-sim-'));
    const file = join(directory, 'done.jsonl');
    const args = ['--seeds', '1..12', '--ms', 3_000, '--jobs', 2, '--json'] as const;
    const whole = JSON.parse((await synodSim(...args)).stdout);
    t.match(whole, { seeds: 12, failed: 0, digest: /^[0-9a-f]{32}$/ });

    const killed = spawn(process.execPath, [program, 'sim', ...[...args, '--resume', file].map(String)], {
      stdio: 'ignore',
    });
    const ended = new Promise((resolve) => killed.on('exit', (_, signal) => resolve(signal)));
    const linesIn = () => (existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0);
    while (linesIn() < 4) await new Promise((resolve) => setTimeout(resolve, 5));
    killed.kill('SIGKILL');
    t.equal(await ended, 'SIGKILL');
    const done = linesIn() - 1;
    t.ok(done >= 3 && done < 12, `${done} seeds were done`);

    const resumed = await synodSim(...args, '--resume', file);
    t.match(resumed.stderr, new RegExp(`${done} seeds are done already`));
    const summary = JSON.parse(resumed.stdout);
    // How fast it went is not the same.
    for (const key of ['wallMs', 'simulatedHoursPerMinute']) {
      delete whole[key];
      delete summary[key];
    }
    t.strictSame(summary, whole, 'the same summary, and the same digest of all traces');
    t.equal(linesIn(), 13, 'each seed once');
    t.not(JSON.parse((await synodSim('--seeds', '1..11', '--ms', 3_000, '--json')).stdout).digest, whole.digest);
    rmSync(directory, { recursive: true, force: true });
  },
);

t.test('synod sim: wrong flags are named', async (t) => {
  const wrong: readonly (readonly [readonly (string | number)[], RegExp])[] = [
    [['--seed', 'x'], /--seed/],
    [['--seeds', '9..2'], /--seeds.*a range such as/],
    [['--seeds', '5'], /--seeds/],
    [['--seed', 1, '--seeds', '1..2'], /--seed and --seeds exclude each other/],
    [['--trace'], /--trace is for one seed/],
    [['--faults', '1'], /--faults is for one seed/],
    [['--seed', 1, '--faults', '1,x'], /--faults/],
    [['--seed', 1, '--trace', '--json'], /--trace and --json/],
    [['--protocol', 'zab'], /--protocol.*pbft/],
    [['--n', 2], /--n.*from 3 to 31/],
    [['--n', 3], /--n 3: pbft needs at least 4/],
    [['--f', 2], /--f 2: 4 replicas bear 1; give --n 7/],
    [['--ms', 10], /--ms.*from 1000/],
    [['--jobs', 0], /--jobs/],
  ];
  const runs = await Promise.all(wrong.map(([args]) => synodSim(...args)));
  for (const [index, [args, sentence]] of wrong.entries()) {
    const { code, stdout, stderr } = runs[index]!; // one for each
    t.match(stderr, sentence, args.join(' '));
    t.match(stderr, /\[usage\]/);
    t.notMatch(stderr, /\n\s+at /, 'no stack trace');
    t.same([code, stdout], [2, '']);
  }
});

t.test('FLR-5: a recording of a life in each protocol replays to the same state', async (t) => {
  const folder = t.testdir();
  for (const protocol of protocols) {
    const runs = `${folder}/${protocol}`;
    const lived = await synodSim('--protocol', protocol, '--seed', 5, '--ms', 4_000, '--record', runs);
    t.equal(lived.code, 0, lived.stderr);
    const nodes = readdirSync(runs).filter((name) => name.startsWith('node-'));
    t.ok(nodes.length >= (protocol === 'pbft' ? 4 : 3));
    for (const node of nodes.slice(0, 2)) {
      const { code, stdout, stderr } = await synod(['replay', `${runs}/${node}`, '--quiet']);
      t.equal(code, 0, `${protocol} ${node}: ${stderr}`);
      t.match(stdout, /identical\n$/, `${protocol} ${node}`);
    }
  }
});
