// Snapshots of a core and records of its steps: that nothing is missing in them, that a forgotten field would be noticed, and that bytes of anybody
// are read without harm. SEEDS=200 for more lives.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { Checkpoints } from '../protocol/checkpoints.ts';
import { Ledger } from '../protocol/ledger.ts';
import { protocols } from '../protocol/modes.ts';
import { encodeMsgpack } from '../protocol/msgpack.ts';
import { Pbft } from '../protocol/pbft/pbft.ts';
import { Pool } from '../protocol/pool.ts';
import { decodeStep, digestOf, encodeStep } from '../protocol/recording.ts';
import { SessionTable } from '../protocol/sessions.ts';
import { decodeSnapshot, encodeSnapshot } from '../protocol/snapshot.ts';
import { CatchUp } from '../protocol/transfer.ts';
import { asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { Tally, VoteBox } from '../protocol/votes.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { live } from '../sim/life.ts';
import { Operators } from '../sim/operators.ts';
import { randomFrom } from '../sim/random.ts';
import { epoch, heard, Solo, said, text } from './solo.ts';
import { newTally, twinned } from './twin.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const SEEDS = Number(process.env.SEEDS ?? 6);

/** Fields that few steps leave as another thing than they found: a value that is bound and not here, two that collide; a working set that is not here (cheap.test.ts). */
const RARE: Readonly<Record<string, readonly string[]>> = {
  'basic-paxos': ['own.bounds'],
  'cheap-paxos': ['own.lacks'],
  'fast-paxos': ['own.collisions'],
  // A life of it goes on in Basic Paxos for a while.
  raft: ['own.bounds'],
};
const sources = fileURLToPath(new URL('../../protocol', import.meta.url));

// ---- nothing is missing -----------------------------------------------------------------------------------------------

const tally = newTally();

t.test(
  'FLR-1, FLR-2: a core restored at random steps of faulty runs goes on bit for bit as the one that was not',
  async (t) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const Replica = twinned(tally, { seed, every: 20 });
      const { failure } = live({ seed, n: null, ms: 15_000, realSignatures: null, Replica });
      t.equal(failure, null, `seed ${seed}`);
    }
    t.comment(`${tally.steps} steps, ${tally.snapshots} snapshots, the largest of ${tally.largest} bytes`);
  },
);

t.test('FLR-1: also while a state is taken from peers, and while messages of a view to come are kept', async (t) => {
  const Replica = twinned(tally, { seed: 1, every: 1 });
  const cluster = new Cluster({
    seed: 7,
    n: 7,
    parameters: { checkpointInterval: 16, window: 4, blockBundlesMax: 4 },
    Replica,
  });
  const client = new SimClient(cluster.genesis, 'alice');
  const order = () => {
    const bundle = client.bundle([text(`at ${cluster.now}`)]);
    cluster.submit(3, bundle);
    return cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 3_000);
  };
  cluster.run(20);
  for (const node of cluster.nodes) node.disk.retain = 4;
  cluster.crash(6);
  for (let i = 0; i < 36; i++) if (!order()) t.fail(`bundle ${i} was not ordered`);
  cluster.boot(6);
  // One that withholds what it is asked for.
  cluster.tamper = (from, to, message) => (message.kind === 'state-chunk' && from === 4 && to === 6 ? null : message);
  t.ok(cluster.until(() => cluster.height(6) === cluster.height(0), 20_000));
  t.ok(cluster.events.some(({ at, type }) => at === 6 && type === 'checkpoint-installed'));
  // Whoever enters the next view late has heard of it before.
  cluster.tamper = (_, to, message) => (message.kind === 'new-view' && to === 5 ? null : message);
  cluster.crash(0);
  for (let i = 0; i < 8; i++) {
    cluster.submit(1, client.bundle([text(`late ${i}`)]));
    cluster.run(300);
  }
  cluster.tamper = null;
  // Blocks without room for more, and a primary whose disk stalls until it hands its view over.
  for (let i = 0; i < 12; i++) cluster.submit(1, client.bundle([text(`full ${i}`)]));
  cluster.run(500);
  const ms = 2 * cluster.genesis.parameters.viewTimeoutMs;
  for (let i = 0; i < 2; i++) cluster.nodes[1]?.input({ type: 'stalled', what: 'disk', ms });
  t.ok(cluster.until(() => cluster.nodes[2]?.core?.explain().view === 2, 5_000));
  // One asks for a view in two ways.
  const { certificate } = cluster.delivered[1]!.findLast((decided) => decided.certificate !== null)!; // it has decided
  cluster.byzantine.add(4);
  for (const commit of [null, certificate])
    cluster.inject(4, 1, { kind: 'view-change', epoch, view: asView(40), commit, prepared: null });
  t.ok(cluster.until(() => cluster.evidence.some(({ culprit }) => culprit === 4), 1_000));
  cluster.run(500);
  t.ok(cluster.until(() => new Set([1, 2, 3, 4, 5, 6].map((id) => cluster.height(id))).size === 1, 20_000));
});

t.test('FLR-1: also over the end of an epoch, which a core has seen before its disk has', async (t) => {
  const Replica = twinned(tally, { seed: 2, every: 1 });
  const cluster = new Cluster({ seed: 8, operators: true, Replica });
  const operators = new Operators(cluster);
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(20);
  for (const epoch of [1, 2]) {
    cluster.submit(epoch, operators.bundle([{ change: 'set-parameter', parameter: 'window', value: epoch }]));
    t.ok(cluster.until(() => cluster.nodes.every((node) => node.epoch.epoch === epoch), 10_000));
    const bundle = client.bundle([text(`in epoch ${epoch}`)]);
    cluster.submit(0, bundle);
    t.ok(cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), 5_000));
  }
});

for (const protocol of protocols.filter((name) => name !== 'pbft'))
  t.test(`FLR-1, FLR-2: the same where members are trusted: ${protocol}`, async (t) => {
    const own = newTally();
    for (let seed = 1; seed <= SEEDS / 2; seed++) {
      const Replica = twinned(own, { seed, every: 20 });
      const { failure } = live({ seed, protocol, n: null, ms: 15_000, realSignatures: null, Replica });
      t.equal(failure, null, `seed ${seed}`);
    }
    t.comment(`${own.steps} steps, ${own.snapshots} snapshots, the largest of ${own.largest} bytes`);
    const rare = new Set(RARE[protocol]);
    const still = [...own.first.keys()].filter((path) => path.startsWith('own.') && !own.moved.has(path));
    const unseen = still.filter((path) => !rare.has(path));
    t.same(unseen, [], 'every other field was more than one thing in snapshots');
  });

t.test('FLR-1: what the runs above have tried', async (t) => {
  const still = [...tally.first.keys()].filter((path) => !tally.moved.has(path)).sort();
  // Both are settled inside every step: see the test of the pool below, and leaveContradicted.
  t.same(still, ['contradicted', 'pool.fresh'], 'every other field of the state was more than one thing in snapshots');
  const messages = 'status forward blocks block-data checkpoint checkpoint-proof state-chunk';
  const heardKinds = `${messages} pre-prepare prepare commit view-change new-view`.split(' ');
  const own = 'prepare commit checkpoint view-change new-view'.split(' ');
  const types = ['bundle', 'connected', 'disconnected', 'retained', 'leading', 'stalled', 'wall'];
  for (const name of [...heardKinds.map((k) => `message ${k}`), ...own.map((k) => `own ${k}`), ...types])
    t.ok(tally.inputs.has(name), name);
});

t.test('FLR-1: a core that has not taken a step yet, and fresh bundles of a pool', async (t) => {
  const { core, genesis } = new Solo({ self: 0 });
  const options = { genesis, epoch, self: asReplicaId(0), sha256: native.sha256 };
  const twin = Pbft.restore(options, core.snapshot());
  if ('refused' in twin) return t.fail(twin.problem);
  const [a, b] = [core, twin].map((each) => each.step([], asMillis(1_700_000_000_005)));
  t.same(a, b);
  t.equal(a?.lead, 0, 'what the recovery wants done is in it');

  const ledger = new Ledger({ sha256: native.sha256, genesis, epoch });
  const client = new SimClient(genesis, 'alice');
  const pool = new Pool();
  const host = { now: asMillis(5), ledger, chain: [], parameters: genesis.parameters };
  const bundles = [1, 2, 3].map((i) => client.bundle([text(`${i}`)]));
  for (const bundle of bundles) t.equal(pool.admit(bundle, host), 'pooled');
  pool.settle(bundles.slice(0, 1), { now: asMillis(6), hadRoom: true });
  const again = new Pool();
  again.load(pool.dump());
  t.same(again.takeFresh(), bundles.slice(1), 'and one that has left is not in it');
  t.same([again.bundles, again.bytes], [pool.bundles, pool.bytes]);
});

// ---- a forgotten field is noticed --------------------------------------------------------------------------------------

/** Private fields that are given to the constructor and never change, follow from the others, or are of a core that takes no further step. */
const NOT_DUMPED: Readonly<Record<string, readonly string[]>> = {
  Acceptor: ['numberOf'],
  CheapPaxos: ['mains', 'isAuxiliary'],
  // The state that all of them share is walked, field by field (state-snapshot.ts).
  CrashCore: ['s', 'wakeAt', 'course'],
  FastPaxos: ['quorum'],
  MultiPaxos: ['isChosen'],
  VoteBox: ['epoch', 'quorums'],
  Checkpoints: ['quorums', 'interval', 'start'],
  CatchUp: ['actions'],
  Ledger: ['sha256', 'genesis', 'mayBeEmpty', 'stateDigest', 'successor'],
  Pool: ['bytes', 'cost', 'limits'],
  SessionTable: ['all'], // what its buckets hold
};
/** Classes that are no part of what a core knows from one step to the next. `Pbft` itself is: its two fields are what a snapshot is made of. */
const NO_STATE = [
  ...[
    'Audit',
    'ChainVerifier',
    'Cursor',
    'Fields',
    'Handshake',
    'LayoutReader',
    'LayoutWriter',
    'Pbft',
    'Scribe',
    'Session',
  ],
  // What a follower and a verifier keep beside every core.
  ...['EpochChain', 'Observer'],
  // A write's lag is its caller's: told to the core, never known by it.
  ...['SeenSignatures', 'SnapshotReader', 'SnapshotWriter', 'WriteLag'],
];

interface Class {
  readonly name: string;
  readonly fields: readonly string[];
  /** The text of a method. */
  readonly method: (name: string) => string;
}

function classesIn(source: string): Class[] {
  const found = source.matchAll(/^(?:export )?(?:abstract )?class (\w+)[^\n]*\{\n([\s\S]*?)^\}/gm);
  return [...found].map(([, name = '', body = '']) => ({
    name,
    // Of what a class shows to those that extend it, too.
    fields: [...body.matchAll(/^ {2}(?:(?:readonly )?#|protected (?:readonly )?)(\w+)(?=[:;]| =)/gm)].map(
      ([, field = '']) => field,
    ),
    method: (method) => new RegExp(`^ {2}(?:override )?${method}\\([\\s\\S]*?^ {2}\\}`, 'm').exec(body)?.[0] ?? '',
  }));
}

/** What is wrong with the classes of one file. */
const problemsIn = (source: string): string[] =>
  classesIn(source)
    .filter(({ name, fields }) => fields.length > 0 && !NO_STATE.includes(name))
    .flatMap(({ name, fields, method }) =>
      fields
        .filter((field) => NOT_DUMPED[name]?.includes(field) !== true)
        .flatMap((field) =>
          ['dump', 'load']
            .filter((each) => !new RegExp(`(?:#|this\\.)${field}\\b`).test(method(each)))
            // Filling a bucket is its own method.
            .filter((each) => !(name === 'SessionTable' && each === 'load' && field === 'buckets'))
            .map((each) => `${name}.${each} says nothing of #${field}`),
        ),
    );

t.test('FLR-1: every private field of every class of the state is dumped and loaded', async (t) => {
  const files = readdirSync(sources, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const texts = files.map((file) => readFileSync(`${sources}/${file}`, 'utf8'));
  t.same(texts.flatMap(problemsIn), [], 'in dump() and load(), or in the lists of this test with a reason');
  const names = texts.flatMap(classesIn).map(({ name }) => name);
  for (const name of [...Object.keys(NOT_DUMPED), ...NO_STATE]) t.ok(names.includes(name), `${name} is there`);
  // The test has teeth.
  const votes = readFileSync(`${sources}/votes.ts`, 'utf8');
  const forgetful = votes.replace('  readonly #quorums', '  #heard = 0;\n  readonly #quorums');
  t.same(problemsIn(forgetful), ['VoteBox.dump says nothing of #heard', 'VoteBox.load says nothing of #heard']);
});

t.test('FLR-1: what cannot be written is a bug, and never left out', async (t) => {
  class Private {
    readonly #secret = 1;
    get secret() {
      return this.#secret;
    }
  }
  for (const value of [() => 1, Symbol('a'), 1n, new Private(), new Date(0), [{ a: new Map([[1, () => 1]]) }]])
    t.throws(() => encodeSnapshot(value), { name: 'InvariantViolation', message: /a snapshot has no place for/ });
  const context = { sha256: native.sha256, parameters: new Solo().genesis.parameters };
  const value = {
    numbers: [0, 1, 2 ** 53 - 1, -1, 0.5, Number.POSITIVE_INFINITY, Number.NaN, -0],
    map: new Map<unknown, unknown>([
      ['b', 1],
      ['a', new Set([2, 1])],
    ]),
    nothing: [null, undefined, '', new Uint8Array(0), {}, [], new Map(), new Set()],
  };
  const decoded = decodeSnapshot(encodeSnapshot(value), context);
  t.strictSame(decoded, { value });
  if ('value' in decoded) t.equal(toHex(encodeSnapshot(decoded.value)), toHex(encodeSnapshot(value)));
  t.equal(toHex(encodeSnapshot({ a: 1, b: 2 })), toHex(encodeSnapshot({ b: 2, a: 1 })), 'keys are sorted');
});

/** Snapshots that leave one thing out, in both directions, as a field would be that nobody thought of. */
const forgotten: readonly (readonly [name: string, prototype: object, field: string, empty: () => unknown])[] = [
  ['votes', VoteBox.prototype, 'slots', () => new Map()],
  ['view-changes and votes for checkpoints', Tally.prototype, 'byReplica', () => new Map()],
  ['own checkpoints', Checkpoints.prototype, 'own', () => new Map()],
  ['the stable checkpoint', Checkpoints.prototype, 'stable', () => null],
  ['chunks that changed', SessionTable.prototype, 'dirty', () => []],
  ['who is passed over', CatchUp.prototype, 'passedOver', () => new Map()],
  ['since when others are ahead', CatchUp.prototype, 'behind', () => null],
  ['whose turn it is', CatchUp.prototype, 'turn', () => 0],
  ['what the primary owes', Pool.prototype, 'owed', () => []],
];

t.test('FLR-1: a core restored from less than everything goes another way, and the twins notice', async (t) => {
  for (const [name, prototype, field, empty] of forgotten) {
    // The cast: every one of them has the method.
    const part = prototype as { dump(): object };
    const { dump } = part;
    part.dump = function (this: object) {
      return { ...dump.call(this), [field]: empty() };
    };
    let caught: string | undefined;
    try {
      for (let seed = 1; seed <= 12 && caught === undefined; seed++) {
        const Replica = twinned(newTally(), { seed, every: 10 });
        const { failure } = live({ seed, n: null, ms: 10_000, realSignatures: false, Replica });
        if (failure?.message.includes('restored from its snapshot') === true) caught = `seed ${seed}`;
      }
    } finally {
      part.dump = dump;
    }
    t.ok(caught, `${name}: ${caught}`);
  }
});

// ---- bytes of anybody ---------------------------------------------------------------------------------------------------

t.test('FLR-1, FLR-3: snapshots and steps of anybody are refused, never thrown', async (t) => {
  const solo = new Solo().connect();
  const { genesis } = solo;
  solo.all({ type: 'bundle', bundle: solo.client.bundle([text('one')]) });
  const options = { genesis, epoch, self: asReplicaId(3), sha256: native.sha256 };
  const context = { sha256: native.sha256, parameters: genesis.parameters };
  const snapshot = solo.core.snapshot();
  t.notOk('refused' in Pbft.restore(options, snapshot));
  const inputs = [
    heard(0, solo.status()),
    { type: 'bundle', bundle: solo.client.bundle([new Uint8Array(5_000)]) },
    { type: 'connected', peer: asReplicaId(1) },
    { type: 'refused', pledge: said(3, prepare()).message },
  ] as const;
  const step = concat(...encodeStep({ now: asMillis(7), inputs }));
  t.same(decodeStep(step, context), { now: 7, inputs }, 'small and large ones');

  const random = randomFrom(11);
  const below = (n: number) => Math.floor(random() * n);
  for (let i = 0; i < 3_000; i++) {
    for (const [bytes, read] of [
      [snapshot, (changed: Uint8Array) => Pbft.restore(options, changed)],
      [step, (changed: Uint8Array) => decodeStep(changed, context)],
    ] as const) {
      const changed = Uint8Array.from(bytes.subarray(0, below(4) === 0 ? below(bytes.length) : bytes.length));
      for (let flips = below(3); flips >= 0 && changed.length > 0; flips--) changed[below(changed.length)] = below(256);
      try {
        read(changed);
      } catch (error) {
        t.fail(`threw on ${toHex(changed)}: ${error}`);
      }
    }
  }
  const refusals: readonly (readonly [Uint8Array, string])[] = [
    [new Uint8Array(0), 'snapshot-malformed'],
    [encodeMsgpack([2, 1, [], [], []]), 'snapshot-malformed'],
    [encodeSnapshot({ view: 1 }), 'snapshot-other-software'],
    [encodeMsgpack([1, [1, 0, 1], [], [], [['__proto__']]]), 'snapshot-malformed'],
    [encodeMsgpack([1, 1, [], [[new Uint8Array(9), new Uint8Array(64)]], []]), 'snapshot-malformed'],
  ];
  for (const [bytes, refused] of refusals) t.match(Pbft.restore(options, bytes), { refused });
});

t.test('FLR-2: the digest of a Ready sees every field, in whatever order they were written', async (t) => {
  const solo = new Solo({ self: 0 }).connect();
  solo.all({ type: 'leading', view: asView(0) });
  const out = solo.step({ type: 'bundle', bundle: solo.client.bundle([text('one')]) });
  t.ok(out.send.length > 0 && out.records.length > 0 && out.pledges.length > 0);
  const digest = digestOf(out);
  t.equal(digestOf(Object.fromEntries(Object.entries(out).reverse()) as typeof out), digest);
  for (const key of Object.keys(out) as (keyof typeof out)[]) {
    const before = out[key];
    const other = Array.isArray(before) ? [...before, { a: 1 }] : before === null ? { view: 1 } : 1;
    t.not(digestOf({ ...out, [key]: other }), digest, key);
  }
  const [record, ...rest] = out.records;
  t.not(digestOf({ ...out, records: [...rest, record!] }), digest, 'order counts'); // as just looked at
  const snapshot = solo.core.snapshot();
  t.ok(equalBytes(solo.core.snapshot(), snapshot), 'and a snapshot changes nothing');
  t.equal(solo.core.snapshot(snapshot.length - 1), null, 'nor does one that would be too large');
  t.same(solo.core.snapshot(snapshot.length), snapshot);
});

const prepare = () =>
  ({ kind: 'prepare', epoch, view: asView(0), height: asHeight(1), hash: new Solo().ledger.head.hash }) as const;
