// The rules of docs/spec.md on whole clusters in virtual time. Everything from seeds; one replica at its exact edges is in rules.test.ts,
// and what an adversary of the book does is in adversary.test.ts.

import t from 'tap';
import { equalBytes } from '../crypto/bytes.ts';
import { isLater } from '../protocol/certificate.ts';
import type { Input } from '../protocol/core.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import { Outbox } from '../protocol/outbox.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asMillis, asReplicaId } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { type Cluster, calm } from '../sim/cluster.ts';
import { decodedLock } from '../sim/guard.ts';
import { begin, between, everywhere, orders, started, text, views } from './cluster-world.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(200_000);

const T = 500;
const HEARTBEAT = 100;
/** The worst wait behind f faulty primaries in a row, with 10 ms of delay and a heartbeat to notice. */
const afterViews = (f: number) => (2 ** (f + 1) - 1) * T + (f + 1) * (60 + HEARTBEAT);

// ---- primaries ------------------------------------------------------------------------------------------------------------

t.test('REQ-1, A5: a primary that leaves out one client is replaced; the others are ordered meanwhile', async (t) => {
  const { cluster, client } = begin({ parameters: { blockBundlesMax: 4 } });
  const victim = new SimClient(cluster.genesis, 'victim').bundle([text('v')]);
  // The primary never hears of it: as if it dropped what it does not like.
  between(cluster, 0, (step, inputs, now) =>
    step(
      inputs.flatMap((input): Input<ReplicaMessage, ReplicaPledge>[] => {
        if (input.type !== 'message' || input.signed.message.kind !== 'forward') return [input];
        const bundles = input.signed.message.bundles.filter(({ digest }) => !equalBytes(digest, victim.digest));
        return [{ ...input, signed: { ...input.signed, message: { ...input.signed.message, bundles } } }];
      }),
      now,
    ),
  );
  cluster.submit(3, victim);
  let ordered = 0;
  const more = () => {
    if (orders(cluster, client, { at: 1, ms: 2_000 })) ordered += 1;
  };
  for (let i = 0; i < 60 && !everywhere(cluster, victim); i++) more();
  t.ok(everywhere(cluster, victim), 'the one that was left out');
  t.ok(cluster.now - cluster.start < 5 * T + afterViews(1), 'in time');
  t.ok(ordered > 3, `the others: ${ordered}`);
  t.ok(views(cluster).every((view) => view >= 1));
});

t.test('PBFT-C-2: a lost commit phase is said again', async (t) => {
  const { cluster, client } = begin();
  let lost = true;
  cluster.tamper = (_, __, message) => (message.kind === 'commit' && lost ? null : message);
  const bundle = client.bundle([text('x')]);
  cluster.submit(0, bundle);
  cluster.run(100);
  t.ok(cluster.live().every((id) => !cluster.has(id, bundle)));
  lost = false;
  t.ok(
    cluster.until(() => everywhere(cluster, bundle), T / 2 + 2 * HEARTBEAT),
    'PBFT-HB-2: within half a timeout',
  );
  t.strictSame([...new Set(views(cluster))], [0]);
});

t.test('PBFT-NV-6: bundles of blocks that a view change gave up are ordered later, once', async (t) => {
  const { cluster, client } = begin({ n: 7 });
  cluster.tamper = (_, __, message) => (message.kind === 'prepare' || message.kind === 'commit' ? null : message);
  const bundles = [1, 2, 3].map((i) => client.bundle([text(`${i}`)]));
  // At the primary alone: only its proposals carry them to the others.
  for (const bundle of bundles) cluster.submit(0, bundle);
  cluster.run(100);
  cluster.crash(0);
  cluster.tamper = null;
  t.ok(cluster.until(() => bundles.every((bundle) => everywhere(cluster, bundle)), T + afterViews(1)));
});

// ---- persistence ----------------------------------------------------------------------------------------------------------------

t.test('PBFT-P-1, PBFT-C-1, PBFT-VC-2, PBFT-CP-1, PBFT-PP-6: nothing is said before it is durable', async (t) => {
  const { cluster, client } = begin({ parameters: { checkpointInterval: 16 } });
  cluster.faults = { ...calm, writeMs: [1, 40] };
  const wrong: string[] = [];
  const seen = new Set<string>();
  cluster.tamper = (from, _, message) => {
    const { disk, guard } = cluster.nodes[from]!;
    const { marks } = guard.durable;
    const lock = decodedLock(guard.durable.lock);
    const fail = (what: string) => wrong.push(`${what} of ${from} at ${cluster.now - cluster.start}`);
    seen.add(message.kind);
    switch (message.kind) {
      case 'prepare':
        if (disk.block(message.height, message.hash) === undefined) fail('a prepare without its block');
        if (marks.view !== message.view || !marks.votes.get(message.height)?.prepare)
          fail('a prepare without its mark');
        break;
      case 'commit':
        if (lock === null || isLater({ ...message, phase: message.kind }, lock))
          fail('a commit without its certificate');
        break;
      case 'view-change':
        if ((marks.viewChange?.view ?? -1) < message.view || disk.hardState === null)
          fail('a view-change without its mark');
        break;
      case 'pre-prepare':
        if (marks.led !== message.view) fail('a proposal without the lead');
        break;
      case 'checkpoint':
        if (!disk.checkpoints.has(message.height) || disk.chunkAt(message.height, 0).length === 0)
          fail('a checkpoint without its state');
        break;
    }
    return message;
  };
  for (let i = 0; i < 20; i++) t.ok(orders(cluster, client, { ms: 3_000 }));
  cluster.crash(views(cluster)[1]! % 4);
  t.ok(orders(cluster, client, { at: cluster.live()[0]!, ms: 10_000 }));
  t.strictSame(wrong, []);
  t.ok(['prepare', 'commit', 'view-change', 'pre-prepare', 'checkpoint'].every((kind) => seen.has(kind)));
});

t.test('PBFT-PP-6: a primary that restarts never votes again in its view', async (t) => {
  const { cluster, client } = begin({ realSignatures: true });
  t.ok(orders(cluster, client));
  cluster.crash(0);
  cluster.boot(0);
  const late: string[] = [];
  cluster.tamper = (from, _, message) => {
    if (from === 0 && 'view' in message && message.kind !== 'status' && message.view === 0) late.push(message.kind);
    return message;
  };
  t.ok(orders(cluster, client, { ms: afterViews(1) }));
  t.strictSame(late, []);
  t.ok(views(cluster).every((view) => view >= 1));
});

// ---- who falls behind --------------------------------------------------------------------------------------------------------------

t.test('PBFT-VC-1: a cut-off replica starts no view change, and is back at once', async (t) => {
  const { cluster, client } = begin();
  const cut = (up: boolean) => {
    for (const id of [0, 1, 2])
      for (const [at, peer] of [
        [3, id],
        [id, 3],
      ] as const)
        announce(cluster, at, peer, up);
    cluster.partition = up ? null : [[0, 1, 2], [3]];
  };
  cut(false);
  t.ok(orders(cluster, client, { at: 1, ids: [0, 1, 2] }));
  cluster.run(20 * T);
  t.strictSame(views(cluster), [0, 0, 0, 0]);
  cut(true);
  t.ok(
    cluster.until(() => cluster.height(3) === cluster.height(0), 5 * HEARTBEAT),
    'PBFT-CU-1: by blocks, without a restart',
  );
  t.ok(orders(cluster, client));
  t.strictSame(views(cluster), [0, 0, 0, 0]);
});

/** A connection comes up or goes down, as its transport would say. */
function announce(cluster: Cluster, at: number, peer: number, up: boolean): void {
  const core = cluster.nodes[at]!.core!;
  const step = core.step;
  core.step = (inputs, now) => {
    core.step = step;
    return step.call(core, [{ type: up ? 'connected' : 'disconnected', peer: asReplicaId(peer) }, ...inputs], now);
  };
}

t.test('PBFT-VC-1, A32: a replica that pauses starts no view change by itself', async (t) => {
  const { cluster, client } = begin();
  let until = 0;
  let held: Input<ReplicaMessage, ReplicaPledge>[] = [];
  between(cluster, 2, (step, inputs, now) => {
    held.push(...inputs);
    if (now < until) return new Outbox<ReplicaMessage, ReplicaPledge>().ready(asMillis(until));
    const all = held;
    held = [];
    return step(all, now);
  });
  for (let i = 0; i < 3; i++) {
    until = cluster.now + 5_000;
    t.ok(orders(cluster, client, { ids: [0, 1, 3] }));
    cluster.run(5_500);
    t.ok(cluster.until(() => cluster.height(2) === cluster.height(0), 1_000));
  }
  t.strictSame(started(cluster), []);
});

t.test('PBFT-HB-2: after a partition heals, everything is said again', async (t) => {
  const { cluster, client } = begin({ n: 7 });
  cluster.partition = [
    [0, 1, 2, 3],
    [4, 5, 6],
  ];
  const bundle = client.bundle([text('x')]);
  cluster.submit(0, bundle);
  cluster.run(4 * T);
  t.ok(
    cluster.live().every((id) => !cluster.has(id, bundle)),
    'neither side is a quorum',
  );
  cluster.partition = null;
  t.ok(cluster.until(() => everywhere(cluster, bundle), afterViews(3)));
});

t.test('PBFT-CU-2: catch-up by blocks past peers that lie or withhold', async (t) => {
  const parameters = { checkpointInterval: 16, window: 4 };
  const { cluster, client } = begin({ realSignatures: true, parameters, n: 7 });
  cluster.crash(6);
  for (let i = 0; i < 40; i++) t.ok(orders(cluster, client, { ids: [0, 1, 2, 3, 4, 5] }));
  cluster.tamper = (from, _, message) => {
    if (message.kind !== 'blocks') return message;
    // One strips the certificates, one withholds.
    if (from === 4) return null;
    if (from === 5) return { ...message, blocks: message.blocks.map(({ block }) => ({ block, certificate: null })) };
    return message;
  };
  cluster.boot(6);
  t.ok(cluster.until(() => cluster.height(6) === cluster.height(0), 3 * T));
  t.ok(orders(cluster, client));
  t.ok(cluster.refusals.some(({ code }) => code === 'chain-uncertified'));
  t.equal(cluster.delivered[6]!.length, 41, 'every block, in order');
});

// ---- everything at once ----------------------------------------------------------------------------------------------------------------

t.test('GEN-2: the same seed gives the same trace', async (t) => {
  const run = (seed: number) => {
    const { cluster, client } = begin({ seed, parameters: { checkpointInterval: 16 } });
    cluster.faults = { delayMs: [1, 30], loss: 0.05, repeat: 0.05, writeMs: [1, 9] };
    for (let i = 0; i < 20; i++) {
      orders(cluster, client, { ms: 5_000 });
      if (i === 8) cluster.crash(0);
      if (i === 12) cluster.boot(0);
    }
    return cluster.trace.digest();
  };
  t.equal(run(5), run(5));
  t.not(run(5), run(6));
});

t.test('PBFT-Q-1, PBFT-C-2: clusters of each size go on without f, and stop without one more', async (t) => {
  for (const n of [4, 5, 6, 7, 8]) {
    const { f } = byzantineQuorums(n);
    const { cluster, client } = begin({ n });
    // The last ones: their views are far away.
    for (let id = n - f; id < n; id++) cluster.crash(id);
    t.ok(orders(cluster, client, { at: 1 }), `n = ${n} without ${f}`);
    const { quorum } = byzantineQuorums(n);
    const spare = n - f - quorum;
    for (let i = 0; i <= spare; i++) cluster.crash(n - f - 1 - i);
    t.notOk(orders(cluster, client, { at: 1, ms: 6 * T }), `n = ${n} with q - 1`);
  }
});
