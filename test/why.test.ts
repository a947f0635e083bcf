// `synod why` and `synod explain` without sockets: every stalled state is made in virtual time, on whole clusters, and the diagnosis must
// name the faults that were injected and no others. Then every sentence by itself, and the two commands against doors of the test.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { asHash, asHeight, asMillis, asReplicaId } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import type { Tamper } from '../sim/cluster.ts';
import { wipe } from './readmission.ts';
import { begin, codesOf, give, network, order, own, T } from './why-cluster.ts';

t.setTimeout(200_000);

const text = (value: string) => Buffer.from(value);
// ---- the stalled states ---------------------------------------------------------------------------------------------------

t.test('a healthy cluster has no cause, idle or under load', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n });
    cluster.run(10 * T);
    t.strictSame(network(cluster).codes, [], `n = ${n}: idle`);
    t.equal(network(cluster).state, 'idle');
    for (let i = 0; i < 60; i++) {
      give(cluster, client);
      cluster.run(7);
      if (network(cluster).codes.length > 0) return t.fail(`n = ${n}: ${network(cluster).words}`);
      for (const id of cluster.live())
        if (own(cluster, id).causes.length > 0) return t.fail(`${id}: ${codesOf(own(cluster, id).causes)}`);
    }
    t.ok(cluster.height(0) > 20);
  }
});

t.test('f + 1 replicas are down: their names, and how many of them are enough', async (t) => {
  for (const [n, down, need] of [
    [4, [2, 3], 1],
    [7, [1, 4, 6], 1],
    [7, [1, 2, 3, 4], 2],
  ] as const) {
    const { cluster, client } = begin({ n });
    for (const id of down) cluster.crash(id);
    give(cluster, client);
    for (const ms of [100, 1_000, 20_000]) {
      cluster.run(ms);
      const { codes, state, action } = network(cluster);
      t.strictSame(codes, [`no-quorum ${down}`], `n = ${n}, after ${ms} ms`);
      t.equal(state, 'stopped');
      t.strictSame(action, { code: 'start', who: down.map(asReplicaId), count: need });
      for (const id of cluster.live()) {
        const { state, causes, ready, action } = own(cluster, id);
        t.strictSame([state, ready, codesOf(causes)], ['cut-off', false, [`no-quorum ${down}`]], `node-${id} alone`);
        t.equal(action?.count, need);
      }
    }
    for (const id of down.slice(0, need)) cluster.boot(id);
    t.ok(
      cluster.until(() => network(cluster).state !== 'stopped', 20 * T),
      'the action helps',
    );
  }
});

t.test('f replicas are down: the network goes on, and it is said who is away', async (t) => {
  const { cluster, client } = begin();
  cluster.crash(2);
  for (let i = 0; i < 20; i++) t.ok(order(cluster, client));
  const { codes, action, state } = network(cluster);
  t.strictSame([codes, state], [['member-away 2'], 'idle']);
  t.match(action, { code: 'start', count: 1 });
  t.equal(own(cluster, 0).ready, true, 'a load balancer may go on');
});

t.test('at no moment is anyone blamed but those that are down, whoever they are', async (t) => {
  for (let seed = 1; seed <= 16; seed++) {
    const n = seed % 2 === 0 ? 7 : 4;
    const { cluster, client } = begin({ n, seed });
    const down: number[] = [];
    for (const id of [...cluster.nodes.keys()].sort(() => cluster.random() - 0.5))
      if (down.length < 1 + (seed % (n - 1))) down.push(id);
    down.sort();
    cluster.run(cluster.between([0, 300]));
    give(cluster, client);
    for (const id of down) cluster.crash(id);
    const named = new Set<number>();
    for (let at = 0; at < 12 * T; at += 37) {
      if (at % 5 === 0) give(cluster, client);
      cluster.run(37);
      const causes = [...network(cluster).causes.map(({ cause }) => cause)];
      for (const id of cluster.live()) causes.push(...own(cluster, id).causes);
      for (const { code, who } of causes) if (code !== 'catching-up') for (const id of who) named.add(id);
    }
    t.strictSame([...named].sort(), down, `seed ${seed}, n = ${n}`);
    const code = network(cluster).state === 'stopped' ? 'no-quorum' : 'member-away';
    t.strictSame(network(cluster).codes, [`${code} ${down}`], 'and in the end that is all');
  }
});

t.test('the primary is cut off: it, and nobody else', async (t) => {
  const { cluster, client } = begin();
  cluster.partition = [[0], [1, 2, 3]];
  give(cluster, client);
  cluster.run(6 * T);
  t.ok(order(cluster, client, [1, 2, 3]), 'the others have another primary');
  const { codes, action, differing, words } = network(cluster);
  t.strictSame(codes, ['cut-off 0']);
  t.match(words[0], /node-0 runs and does not hear a quorum for [\d.]+ s; the others do, 3 of 4/);
  t.strictSame(action, { code: 'connect', who: [0], count: 1 });
  t.strictSame(differing, [0]);
  t.strictSame(codesOf(own(cluster, 0).causes), ['no-quorum 1,2,3'], 'as it sees it');
  t.strictSame(codesOf(own(cluster, 1).causes), ['member-away 0']);
});

t.test('a silent primary is named before its view is given up', async (t) => {
  const { cluster } = begin();
  cluster.partition = [[0], [1, 2, 3]];
  cluster.run(T - 60);
  const { causes } = own(cluster, 2);
  t.strictSame(codesOf(causes), ['primary-silent 0']);
  t.equal(own(cluster, 2).ready, true);
  cluster.crash(0);
  cluster.run(10);
  t.strictSame(codesOf(own(cluster, 2).causes), ['primary-silent 0'], 'once');
  t.strictSame(network(cluster).codes, ['member-away 0'], 'of all together it is said that it is down');
});

t.test('a replica that is heard and hears nobody', async (t) => {
  const { cluster, client } = begin();
  cluster.tamper = (_, to, message) => (to === 0 ? null : message);
  give(cluster, client, [1]);
  cluster.run(6 * T);
  t.ok(order(cluster, client, [1, 2, 3]));
  t.strictSame(network(cluster).codes, ['cut-off 0']);
});

t.test('a split quorum: the groups', async (t) => {
  for (const [n, groups] of [
    [
      4,
      [
        [0, 1],
        [2, 3],
      ],
    ],
    [
      7,
      [
        [0, 2, 4],
        [1, 3],
        [5, 6],
      ],
    ],
  ] as const) {
    const { cluster, client } = begin({ n });
    cluster.partition = groups;
    give(cluster, client);
    for (const ms of [3 * T, 20 * T]) {
      cluster.run(ms);
      const { codes, causes, state, action } = network(cluster);
      t.strictSame([codes, state], [[`split ${groups.slice(1).flat()}`], 'stopped'], `n = ${n}`);
      t.match(causes[0]?.cause, { groups });
      t.equal(action?.code, 'connect');
    }
  }
});

t.test('one link is down: that link', async (t) => {
  const { cluster, client } = begin();
  cluster.partition = [
    [0, 1, 2],
    [1, 2, 3],
  ];
  cluster.run(6 * T);
  const { causes } = network(cluster);
  t.match(causes, [{ cause: { code: 'link-down', pairs: [[0, 3]] } }]);
  t.ok(order(cluster, client, [1, 2], 20 * T));
});

t.test('a replica alone behind: catching up while it gains, behind when nothing comes', async (t) => {
  const { cluster, client } = begin({ parameters: { window: 2 } });
  cluster.crash(3);
  for (let i = 0; i < 60; i++) t.ok(order(cluster, client, [0, 1, 2]));
  cluster.boot(3);
  t.ok(
    cluster.until(() => own(cluster, 3).state === 'catching-up', T),
    'on its way',
  );
  t.strictSame(
    network(cluster).causes.map(({ cause, by }) => [cause.code, by]),
    [['catching-up', [3]]],
  );
  t.equal(own(cluster, 3).ready, false);
  t.ok(
    cluster.until(() => own(cluster, 3).causes.length === 0, 20 * T),
    'there',
  );

  cluster.crash(3);
  for (let i = 0; i < 60; i++) t.ok(order(cluster, client, [0, 1, 2]));
  // Statuses come, and nothing that would help.
  const withheld: Tamper = (_, to, message) => (to === 3 && message.kind !== 'status' ? null : message);
  cluster.tamper = withheld;
  cluster.boot(3);
  cluster.run(12 * T);
  const { codes, causes, differing } = network(cluster);
  t.strictSame([codes, causes[0]?.by], [['behind 3'], [3]]);
  t.match(causes[0]?.cause, { from: [0, 1, 2] });
  t.strictSame(differing, [3]);
  t.match(own(cluster, 3), { state: 'catching-up', ready: false, action: { code: 'look', who: [3] } });
  cluster.tamper = null;
  t.ok(cluster.until(() => network(cluster).codes.length === 0, 60 * T));
});

t.test('REC-1: a replica in quarantine says so before anything else, and nobody is blamed for its votes', async (t) => {
  const { cluster, client } = begin({ parameters: { window: 2 } });
  cluster.crash(1);
  wipe(cluster, 3);
  cluster.run(6 * T);
  give(cluster, client);
  cluster.run(6 * T);
  const stopped = network(cluster);
  t.equal(stopped.state, 'stopped', 'three of four run, and two of them vote');
  t.strictSame(stopped.codes.slice(0, 2), ['quarantine 3', 'member-away 1']);
  t.strictSame(
    stopped.codes.filter((code) => /votes-missing|split|no-quorum/.test(code)),
    [],
  );
  t.match(stopped.causes[0]?.cause, { stage: 'standing', have: 2, need: 3, from: [1] });
  t.match(stopped.action, { code: 'start', who: [1] }, 'whoever is away cannot answer');
  t.match(own(cluster, 3), { state: 'quarantine', ready: false, action: { code: 'start', who: [1] } });
  t.equal(own(cluster, 3).causes[0]?.code, 'quarantine');
  cluster.crash(0);
  cluster.run(6 * T);
  t.strictSame(codesOf(own(cluster, 3).causes).slice(0, 2), ['quarantine 3', 'no-quorum 0,1'], 'also alone');
  cluster.boot(0);
  cluster.boot(1);
  cluster.run(20 * T);
  const bounded = network(cluster);
  t.strictSame([bounded.codes, bounded.differing], [['quarantine 3'], [3]]);
  t.match(bounded.causes[0], { cause: { stage: 'readmission', from: [] }, by: [3] });
  t.match(bounded.action, { code: 'submit', who: [3] });
  for (let i = 0; i < 20 && own(cluster, 3).state === 'quarantine'; i++)
    t.ok(order(cluster, client, [0, 1, 2], 20 * T));
  t.ok(
    cluster.until(() => network(cluster).codes.length === 0, 90 * T),
    'over',
  );
});

t.test('a slow disk: whose, and the votes that wait for it', async (t) => {
  for (const slow of [[1], [0, 1, 2, 3], [2, 3]]) {
    const { cluster, client } = begin();
    cluster.slowMs = (id) => (slow.includes(id) ? 60_000 : 0);
    cluster.run(300);
    give(cluster, client);
    cluster.run(T - 100);
    const { codes } = network(cluster);
    t.strictSame(codes, [`disk-slow ${slow}`], 'in the first view');
    for (const id of slow) {
      const { causes, action } = own(cluster, id);
      t.match(causes[0], { code: 'disk-slow', who: [id], what: slow.length === 1 ? 'write' : 'prepare' });
      t.match(action, { code: 'disk', who: [id] });
    }
    cluster.run(10 * T);
    const later = network(cluster).codes;
    if (slow.length > 1) t.strictSame(later, [`disk-slow ${slow}`], 'and while they ask for another');
  }
});

t.test('a block is withheld by its primary: from whom it has not come', async (t) => {
  const { cluster, client } = begin();
  // From two of four, so that it is not prepared; a view change will mend it.
  cluster.tamper = (_, to, message) => (message.kind === 'pre-prepare' && to >= 2 ? null : message);
  give(cluster, client);
  cluster.run(T - 100);
  const { codes } = network(cluster);
  t.strictSame(codes, ['proposal-missing 0']);
  t.strictSame(network(cluster).causes[0]?.by, [2, 3]);
});

t.test('a certified block is withheld from one: that block', async (t) => {
  const { cluster, client } = begin();
  cluster.tamper = (_, to, message) =>
    to === 3 && ['pre-prepare', 'block-data', 'blocks'].includes(message.kind) ? null : message;
  t.ok(order(cluster, client, [0, 1, 2]));
  cluster.run(T + 100);
  const { causes } = network(cluster);
  t.strictSame(
    causes.map(({ cause, by }) => [cause.code, cause.who, by]),
    [['block-missing', [3], [3]]],
  );
  t.match(causes[0]?.cause, { height: 2 });
});

t.test('votes are withheld: by whom', async (t) => {
  for (const phase of ['prepare', 'commit'] as const) {
    const { cluster, client } = begin();
    // What they withhold from the others, they have themselves: so they decide, and would help the others.
    cluster.tamper = (from, _, message) =>
      (from >= 2 && message.kind === phase) || message.kind === 'blocks' ? null : message;
    give(cluster, client, [0]);
    cluster.run(T - 100);
    for (const id of [0, 1]) {
      const { causes, action } = own(cluster, id);
      t.match(causes, [{ code: 'votes-missing', phase, who: [2, 3], have: 2, need: 3 }], `${phase} at node-${id}`);
      t.match(action, { code: 'look', who: [2, 3], count: 1 });
    }
    if (phase === 'prepare') t.strictSame(network(cluster).codes, ['votes-missing 2,3']);
  }
});

t.test('a view change without a quorum: who does not ask', async (t) => {
  const { cluster, client } = begin();
  cluster.crash(0);
  cluster.tamper = (from, _, message) => (from === 3 && message.kind === 'view-change' ? null : message);
  give(cluster, client);
  cluster.run(8 * T);
  const { codes, state, causes } = network(cluster);
  t.strictSame(codes.sort(), ['member-away 0', 'view-change 3']);
  t.equal(state, 'view-change');
  t.match(
    causes.find(({ cause }) => cause.code === 'view-change'),
    { cause: { have: 2, need: 3, stage: 'asked' }, by: [1, 2] },
  );
});

t.test('a new primary that does not open its view', async (t) => {
  const { cluster, client } = begin();
  cluster.partition = [[0], [1, 2, 3]];
  cluster.tamper = (from, _, message) => (from === 1 && message.kind === 'new-view' ? null : message);
  give(cluster, client);
  t.ok(cluster.until(() => own(cluster, 2).causes.some(({ code }) => code === 'view-change'), 4 * T));
  t.strictSame(codesOf(own(cluster, 2).causes.slice(0, 1)), ['view-change '], 'nobody is named at first');
  cluster.run(T - 100);
  const cause = own(cluster, 2).causes.find(({ code }) => code === 'view-change');
  t.match(cause, { stage: 'opening', who: [1], view: 1 });
  t.match(own(cluster, 2), { state: 'view-change', ready: false, action: { code: 'wait' } });
});

t.test('a clock that is off: whose', async (t) => {
  const { cluster, client } = begin({ parameters: { timeDriftMsMax: 1_000 } });
  const node = cluster.nodes[3]!;
  const step = node.core!.step.bind(node.core);
  node.core!.step = (inputs, now) => step(inputs, (now + 5_000) as typeof now);
  cluster.run(200);
  give(cluster, client);
  // The others order without it; it is told by their commit certificate.
  cluster.tamper = (_, to, message) => (to === 3 && message.kind === 'commit' ? null : message);
  cluster.run(200);
  const { causes } = own(cluster, 3);
  t.ok(
    causes.some(({ code }) => code === 'clock-off'),
    `${codesOf(causes)}`,
  );
});

t.test('a checkpoint without a quorum: who has not signed it', async (t) => {
  const { cluster, client } = begin({ parameters: { checkpointInterval: 16 } });
  // With one signature of another each has two.
  cluster.tamper = (from, _, message) => (from >= 1 && message.kind === 'checkpoint' ? null : message);
  while (cluster.height(0) < 64) if (!order(cluster, client)) return t.fail(`stuck at ${cluster.height(0)}`);
  give(cluster, client);
  cluster.run(T - 100);
  t.match(own(cluster, 0).causes, [{ code: 'checkpoint-missing', height: 16, have: 1, need: 3, who: [1, 2, 3] }]);
  t.match(own(cluster, 1).causes, [{ code: 'checkpoint-missing', have: 2, who: [2, 3] }]);
  t.ok(network(cluster).causes.every(({ cause }) => cause.code === 'checkpoint-missing'));
});

t.test('WHY-1: to explain changes nothing: the same trace, asked at every moment or never', async (t) => {
  const run = (asks: boolean) => {
    const { cluster, client } = begin({ parameters: { checkpointInterval: 16 } });
    cluster.faults = { delayMs: [1, 30], loss: 0.05, repeat: 0.05, writeMs: [1, 9] };
    for (let i = 0; i < 20; i++) {
      const bundle = give(cluster, client);
      for (let ms = 0; ms < 200; ms += 5) {
        cluster.run(5);
        if (!asks) continue;
        for (const { core } of cluster.nodes) {
          core?.explain();
          for (const height of [0, 1, i, 1e9]) core?.explainHeight(asHeight(height));
          for (const digest of [bundle.digest, asHash(new Uint8Array(32))]) core?.explainBundle(digest);
        }
      }
      if (i === 8) cluster.crash(0);
      if (i === 12) cluster.boot(0);
    }
    return cluster.trace.digest();
  };
  t.equal(run(true), run(false));
});

// ---- heights and bundles -------------------------------------------------------------------------------------------------

t.test('a height, from unknown to decided, with who has voted', async (t) => {
  const { cluster, client } = begin();
  const explained = (id: number, height: number) => cluster.nodes[id]!.core!.explainHeight(asHeight(height));
  t.match(explained(0, 1), { stage: 'decided', candidates: [] });
  t.match(explained(0, 2), { stage: 'unknown', candidates: [] });
  cluster.tamper = (from, _, message) => (from >= 2 && message.kind === 'prepare' ? null : message);
  const bundle = give(cluster, client, [0]);
  cluster.run(100);
  t.match(explained(0, 2), {
    stage: 'proposed',
    candidates: [
      { accepted: true, prepares: [0, 1], commits: [], block: { proposer: 0, bundles: 1 }, preparedAt: null },
    ],
  });
  t.match(cluster.nodes[0]!.core!.explainBundle(bundle.digest), { height: 2, transaction: null });
  t.match(cluster.nodes[1]!.core!.explainBundle(bundle.digest), { height: 2 }, 'known by its block alone');
  cluster.tamper = null;
  t.ok(cluster.until(() => explained(0, 2).stage === 'decided', 8 * T));
  t.match(cluster.nodes[0]!.core!.explainBundle(bundle.digest), { digest: null, height: null, pool: null });
});

t.test('a height that is prepared: the commits of it', async (t) => {
  const { cluster, client } = begin();
  cluster.tamper = (from, _, message) => (from !== 1 && message.kind === 'commit' ? null : message);
  give(cluster, client, [0]);
  cluster.run(100);
  const { stage, candidates } = cluster.nodes[0]!.core!.explainHeight(asHeight(2));
  t.equal(stage, 'prepared');
  t.match(candidates, [{ accepted: true, commits: [0, 1], preparedAt: Number }]);
  t.ok(candidates[0]!.prepares.length >= 3);
});

t.test('a height that is committed and not here, and one that is pruned', async (t) => {
  const { cluster, client } = begin();
  cluster.tamper = (_, to, message) =>
    to === 3 && ['pre-prepare', 'block-data', 'blocks'].includes(message.kind) ? null : message;
  t.ok(order(cluster, client, [0, 1, 2]));
  cluster.run(100);
  t.match(cluster.nodes[3]!.core!.explainHeight(asHeight(2)), { stage: 'committed' });
  cluster.nodes[0]!.core!.step([{ type: 'retained', lowest: asHeight(2) }], asMillis(cluster.now));
  t.match(cluster.nodes[0]!.core!.explainHeight(asHeight(1)), { stage: 'pruned' });
});

t.test(
  'a bundle in the pool: since when, behind how many, after which of its session; by a transaction too',
  async (t) => {
    const { cluster } = begin();
    cluster.partition = [[0], [1], [2], [3]];
    const bob = new SimClient(cluster.genesis, 'bob');
    const [first, second] = [bob.bundle([text('one'), text('two')]), bob.bundle([text('three')])];
    const at = cluster.now;
    for (const bundle of [first, second]) cluster.submit(1, bundle);
    cluster.run(40);
    const core = cluster.nodes[1]!.core!;
    t.match(core.explainBundle(first.digest), { pool: { since: at, ahead: 0, sequence: 1, nextSequence: 1 } });
    t.match(core.explainBundle(second.digest), { height: null, pool: { ahead: 1, sequence: 2, nextSequence: 1 } });
    const digest = asHash(native.sha256(text('two')));
    t.match(core.explainBundle(digest), { transaction: 1, pool: { ahead: 0 } });
    t.equal(toHex(core.explainBundle(digest).digest!), toHex(first.digest));
    t.match(core.explainBundle(asHash(native.sha256(text('none')))), { digest: null, pool: null });
  },
);
