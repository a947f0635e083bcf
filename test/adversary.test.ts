// The adversary's book (docs/adversary.md), row by row, on whole clusters in virtual time: what one does who has a few keys, the network,
// the power or a clock in hand, what holds all the same, and how soon. Bounds come from the chain's own parameters (cluster-world.ts).
// Rows that are not about a cluster point at the test that holds them; real processes are in real-adversaries.test.ts.

import t, { type Test } from 'tap';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { POOL_LIMITS } from '../protocol/pool.ts';
import { asMillis } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import type { Cluster } from '../sim/cluster.ts';
import { calm } from '../sim/cluster.ts';
import { LIES, type LieName, lieIn, NEW_VIEW_FORGERIES, spoilt } from '../sim/liars.ts';
import {
  begin,
  boundsOf,
  clientOf,
  culprits,
  everywhere,
  faultsOf,
  msUntil,
  orders,
  others,
  retained,
  silent,
  started,
  text,
  views,
} from './cluster-world.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

/** In time, and how much of it was left. */
function within(t: Test, ms: number | null, bound: number, what: string): void {
  if (ms === null) t.fail(`${what}: not within ${bound} ms`);
  else t.pass(`${what}: after ${ms} of ${bound} ms`);
}

const prepared = (cluster: Cluster, view: number) =>
  new Set(
    cluster.events
      .filter(({ type, detail }) => type === 'prepared' && detail.includes(`"view":${view},`))
      .map(({ at }) => at),
  );

const heights = (cluster: Cluster, ids: readonly number[]) => ids.map((id) => Number(cluster.height(id)));

/** A bundle that these must order, given to one of them. */
function ordered(
  t: Test,
  cluster: Cluster,
  {
    client,
    at,
    ids,
    bound,
    what,
  }: { client: SimClient; at: number; ids: readonly number[]; bound: number; what: string },
): SignedBundle {
  const bundle = client.bundle([text(what)], { validUntil: cluster.chain.size + 1_000 });
  cluster.submit(at, bundle);
  within(
    t,
    msUntil(cluster, () => everywhere(cluster, bundle, ids), bound),
    bound,
    what,
  );
  return bundle;
}

// ---- primaries ------------------------------------------------------------------------------------------------------------

t.test(
  'A1 two blocks to two halves: at most one is prepared, the primary is replaced; who is shown both has evidence',
  async (t) => {
    // PBFT-PP-4, ACC-1. With one block to each half nobody sees both at first: what is accepted and not decided is waited for 2 T.
    for (const n of [4, 7]) {
      const { cluster, client } = begin({ n, realSignatures: true });
      const { T, VC } = boundsOf(cluster);
      lieIn(cluster, 0, LIES.equivocates);
      const ids = others(cluster, 0);
      const bundle = ordered(t, cluster, { client, at: 0, ids, bound: 2 * T + VC(0), what: `n = ${n}` });
      const hashes = new Set(
        ids.flatMap(
          (id) =>
            cluster.checks.signedBy(cluster.nodes[id]!.id, `commit 0 ${cluster.placeOf(toHex(bundle.digest))}`) ?? [],
        ),
      );
      t.ok(hashes.size <= 1, `n = ${n}: commits for ${hashes.size} blocks`);
      t.ok(
        views(cluster, ids).every((view) => view >= 1),
        `n = ${n}: another primary`,
      );
      t.ok(orders(cluster, client, { at: 1, ids }), `n = ${n}: and it goes on`);
      // Of four, the upper half and the liar prepare their block, and its certificate meets the other proposal. Of seven, neither half can.
      t.strictSame(culprits(cluster), n === 4 ? [0] : [], `n = ${n}: who is proved guilty`);
    }
  },
);

t.test('A1 both blocks to everybody: the evidence ends the view at once', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { VC } = boundsOf(cluster);
    // The first block is not decided before the second one comes: after that it is history, and still evidence.
    cluster.tamper = (_, __, message) => (message.kind === 'commit' && message.view === 0 ? null : message);
    lieIn(cluster, 0, LIES.contradicts);
    const ids = others(cluster, 0);
    ordered(t, cluster, { client, at: 0, ids, bound: VC(0), what: `n = ${n}` });
    t.strictSame(culprits(cluster), [0]);
    t.strictSame([...new Set(cluster.evidence.map(({ at }) => Number(at)))].sort(), ids, 'each of them has it');
  }
});

t.test('A1 no liar and no loss: nobody is accused', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    for (let i = 0; i < 10; i++) t.ok(orders(cluster, client));
    t.strictSame([culprits(cluster), started(cluster)], [[], []]);
  }
});

t.test('A2 a silent primary is replaced, idle or loaded', async (t) => {
  // PBFT-VC-1, PBFT-HB-1
  for (const n of [4, 7])
    for (const loaded of [false, true]) {
      const { cluster, client } = begin({ n });
      const { T, VC, heartbeat } = boundsOf(cluster);
      t.ok(orders(cluster, client));
      lieIn(cluster, 0, LIES.silent);
      const ids = others(cluster, 0);
      const bundle = client.bundle([text('y')]);
      if (loaded) cluster.submit(2, bundle);
      const at = cluster.now;
      const replaced = msUntil(cluster, () => views(cluster, ids).every((view) => view === 1), T + 2 * heartbeat);
      within(t, replaced, T + 2 * heartbeat, `n = ${n}, ${loaded ? 'loaded' : 'idle'}: another primary`);
      t.ok(cluster.now - at > T - heartbeat, 'and not much sooner');
      if (loaded)
        within(
          t,
          msUntil(cluster, () => everywhere(cluster, bundle, ids), VC(0)),
          VC(0),
          'ordered',
        );
    }
});

t.test('A2 a primary that is heard and proposes nothing is replaced', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n });
    const { T, VC } = boundsOf(cluster);
    cluster.tamper = (from, _, message) => (from === 0 && message.kind === 'pre-prepare' ? null : message);
    ordered(t, cluster, { client, at: 2, ids: others(cluster, 0), bound: T + VC(0), what: `n = ${n}` });
  }
});

t.test('A3 f faulty primaries in a row, silent or opening no view', async (t) => {
  // PBFT-VC-4
  for (const n of [4, 7, 10])
    for (const mute of [true, false]) {
      const bad = Array.from({ length: faultsOf(n) }, (_, id) => id);
      const { cluster, client } = begin({ n });
      const { VC } = boundsOf(cluster);
      const ids = others(cluster, ...bad);
      // The second kind is alive, votes and beats; it only never leads.
      cluster.tamper = mute
        ? silent(...bad)
        : (from, _, message) =>
            bad.includes(from) && (message.kind === 'pre-prepare' || message.kind === 'new-view') ? null : message;
      const what = `n = ${n}, ${mute ? 'silent' : 'leading nothing'}`;
      ordered(t, cluster, { client, at: n - 1, ids, bound: VC(bad.length), what });
      t.strictSame([...new Set(views(cluster, ids))], [bad.length], what);
    }
});

t.test('A6 a proposal kept from f replicas is fetched from those who have it', async (t) => {
  // PBFT-NV-4, PBFT-CU-1. Two heartbeats first, for what is missing is usually only late.
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { delta, heartbeat } = boundsOf(cluster);
    lieIn(cluster, 0, LIES.selective);
    let fetched = 0;
    const { tamper } = cluster;
    cluster.tamper = (from, to, message) => {
      if (message.kind === 'fetch-block' || message.kind === 'fetch-blocks') fetched += 1;
      return tamper!(from, to, message);
    };
    const bound = 2 * heartbeat + 3 * delta;
    for (let i = 0; i < 3; i++) ordered(t, cluster, { client, at: 1, ids: cluster.live(), bound, what: `n = ${n}` });
    t.ok(fetched >= faultsOf(n));
    t.strictSame([...new Set(views(cluster))], [0], 'without a view change');
  }
});

t.test('A6 a proposal kept from f + 1 replicas is nobody’s: the view changes', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { T, VC } = boundsOf(cluster);
    cluster.tamper = (from, to, message) =>
      from === 0 && message.kind === 'pre-prepare' && to >= n - faultsOf(n) - 1 ? null : message;
    ordered(t, cluster, { client, at: 1, ids: others(cluster, 0), bound: 2 * T + VC(0), what: `n = ${n}` });
  }
});

t.test('A8 a new-view that leaves out, cherry-picks or invents is refused, and the next view goes on', async (t) => {
  // PBFT-NV-1, PBFT-NV-2
  for (const n of [4, 7])
    for (const { name, refused, forge } of NEW_VIEW_FORGERIES) {
      const { cluster, client } = begin({ n, realSignatures: true });
      const { T, VC, heartbeat } = boundsOf(cluster);
      t.ok(orders(cluster, client), name);
      // Every second vote is lost, so that there is something prepared to hide.
      cluster.tamper = (_, to, message) => (message.kind === 'commit' && to % 2 === 0 ? null : message);
      const pending = client.bundle([text('pending')]);
      cluster.submit(0, pending);
      cluster.run(50);
      cluster.tamper = (from, _, message) => {
        if (from === 0) return null;
        if (from !== 1) return message;
        // It lies whenever it can, and says nothing else.
        return message.kind === 'new-view' ? forge(message) : message.kind === 'view-change' ? message : null;
      };
      const ids = others(cluster, 0, 1);
      cluster.run(T + 3 * heartbeat);
      const what = `n = ${n}: ${name}`;
      t.ok(
        cluster.refusals.some((refusal) => refusal.code === refused && refusal.kind === 'new-view'),
        `${what}: ${refused}`,
      );
      t.notOk(
        cluster.events.some(
          ({ at, type, detail }) => at >= 2 && type === 'view-entered' && detail.includes('"view":1'),
        ),
        `${what}: nobody enters`,
      );
      if (n === 4) {
        // The first primary is back: without it two are left, and no quorum.
        const { tamper } = cluster;
        cluster.tamper = (from, to, message) => (from === 0 ? message : tamper!(from, to, message));
      }
      const next = msUntil(cluster, () => views(cluster, ids).every((view) => view === 2), 2 * T);
      within(t, next, 2 * T, `${what}: the next view`);
      within(
        t,
        msUntil(cluster, () => everywhere(cluster, pending, ids), VC(0)),
        VC(0),
        what,
      );
    }
});

t.test('A8 a primary that hides what it prepared itself cannot undo what was decided', async (t) => {
  // PBFT-NV-2, PBFT-VC-2: its own request is its own to falsify; among a quorum of them one honest one shows the certificate.
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { VC } = boundsOf(cluster);
    const only = n - 1;
    cluster.tamper = (_, to, message) => (message.kind === 'commit' && to !== only ? null : message);
    const bundle = client.bundle([text('decided by one')]);
    cluster.submit(0, bundle);
    t.ok(cluster.until(() => cluster.has(only, bundle), 200));
    const hash = cluster.chain.get(1);
    // The first primary is cut off, and of its view nothing is said again. Who has decided votes and asks, and gives no block to anybody.
    const speaks = ['view-change', 'prepare', 'commit'];
    cluster.tamper = (from, _, message) =>
      from === 0 ||
      (message.kind === 'commit' && message.view === 0) ||
      (from === only && !speaks.includes(message.kind))
        ? null
        : message;
    lieIn(cluster, 1, LIES['forges-new-views']);
    const lying = cluster.tamper;
    // Of its lies, the request alone: its new-views are as they should be.
    cluster.tamper = (from, to, message) => {
      if (from !== 1 || message.kind !== 'new-view') return lying(from, to, message);
      const viewChanges = message.viewChanges.map((each) =>
        each.sender === 1 ? cluster.sign(each.sender, { ...each.message, commit: null, prepared: null }) : each,
      );
      return { ...message, viewChanges };
    };
    // Of four, the one that has decided is needed for a quorum; of seven, it is away.
    if (n === 7) cluster.partition = [[only], others(cluster, only)];
    const ids = others(cluster, 0, 1, only);
    within(
      t,
      msUntil(cluster, () => heights(cluster, ids).every((h) => h >= 1), VC(1)),
      VC(1),
      `n = ${n}`,
    );
    t.equal(cluster.chain.get(1), hash);
    for (const id of ids) t.equal(toHex(cluster.delivered[id]![0]!.block.hash), hash, 'the block that one had decided');
    t.ok(
      views(cluster, ids).every((view) => view >= 1),
      `in a later view: ${views(cluster, ids)}`,
    );
    t.ok(
      culprits(cluster).every((id) => id === 1),
      'and nobody else is accused',
    );
  }
});

t.test('A18 a clock that is an hour off: as primary it is replaced, as backup it harms nobody', async (t) => {
  // BLK-4
  for (const n of [4, 7])
    for (const id of [0, 2]) {
      const { cluster, client } = begin({ n });
      const { T, VC } = boundsOf(cluster);
      lieIn(cluster, id, LIES['clock-ahead']);
      const ids = others(cluster, id);
      ordered(t, cluster, { client, at: 3, ids, bound: 2 * T + VC(0), what: `n = ${n}, replica ${id}` });
      ordered(t, cluster, {
        client,
        at: 3,
        ids: cluster.live(),
        bound: VC(1),
        what: 'and it gets what the others decide',
      });
      for (const { block } of cluster.delivered[3]!) t.ok(Math.abs(block.header.time - cluster.now) < 60_000);
    }
});

t.test('A18 a block whose time runs back is refused by everybody, and costs the view', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n });
    const { VC } = boundsOf(cluster);
    for (let i = 0; i < 2; i++) t.ok(orders(cluster, client));
    cluster.tamper = (from, _, message) => {
      if (from !== 0 || message.kind !== 'pre-prepare') return message;
      const { header } = message.block;
      return {
        ...message,
        block: spoilt({ ...message.block, header: { ...header, time: asMillis(header.time - 1_000) } }),
      };
    };
    ordered(t, cluster, { client, at: 1, ids: others(cluster, 0), bound: VC(0), what: `n = ${n}` });
    t.ok(
      cluster.refusals.some(({ code }) => code === 'block-time-runs-back'),
      JSON.stringify(cluster.refusals[0]),
    );
    let last = 0;
    for (const { block } of cluster.delivered[1]!) {
      t.ok(block.header.time >= last);
      last = block.header.time;
    }
  }
});

// ---- what was prepared, what was decided ------------------------------------------------------------------------------------

t.test("A7 of two prepared certificates the later view's wins", async (t) => {
  // PBFT-VC-2, PBFT-NV-2
  const { cluster, client } = begin({ n: 7, realSignatures: true });
  const { T, VC } = boundsOf(cluster);
  // View 0 prepares a block at replicas 0 and 2 alone; view 1, not knowing, another one at 3 and 4 alone.
  const bundle = client.bundle([text('x')]);
  cluster.tamper = (_, to, message) => {
    if (message.kind === 'commit') return null;
    if (message.kind === 'prepare' && message.view === 0) return to === 0 || to === 2 ? message : null;
    if (message.kind === 'prepare' && message.view === 1) return to === 3 || to === 4 ? message : null;
    return message;
  };
  cluster.submit(0, bundle);
  cluster.run(100);
  t.strictSame([...prepared(cluster, 0)].map(Number).sort(), [0, 2]);
  const rest = [1, 3, 4, 5, 6];
  cluster.partition = [rest, [0, 2]];
  within(
    t,
    msUntil(cluster, () => views(cluster, rest).every((view) => view === 1), VC(1)),
    VC(1),
    'without them',
  );
  cluster.submit(1, bundle);
  t.ok(
    cluster.until(() => prepared(cluster, 1).size === 2, T),
    'another block is prepared',
  );
  const later = [...cluster.nodes[3]!.disk.accepted.values()].at(-1)!.hash;
  const earlier = cluster.nodes[0]!.guard.lock!;
  t.notOk(equalBytes(later, earlier.hash));
  cluster.partition = null;
  cluster.tamper = null;
  within(
    t,
    msUntil(cluster, () => everywhere(cluster, bundle), VC(3)),
    VC(3),
    'together again',
  );
  t.equal(cluster.chain.get(1), toHex(later), "the later view's");
});

t.test('A9 what one honest replica has decided stays the block of its height, over f view changes', async (t) => {
  // PBFT-NV-3, PBFT-C-3
  for (const n of [4, 7]) {
    const f = faultsOf(n);
    const { cluster, client } = begin({ n, realSignatures: true });
    const { VC } = boundsOf(cluster);
    const only = n - 1;
    // A lost commit phase: everyone is prepared, only the last one hears the commits, and then it is gone.
    cluster.tamper = (_, to, message) => (message.kind === 'commit' && to !== only ? null : message);
    const bundle = client.bundle([text('x')]);
    cluster.submit(0, bundle);
    t.ok(cluster.until(() => cluster.has(only, bundle), 200));
    const decided = cluster.chain.get(1);
    t.ok(heights(cluster, others(cluster, only)).every((height) => height === 0));
    cluster.crash(only);
    // The commits of f views are lost on the way: each ends by its timeout, and hands on what it prepared.
    cluster.tamper = (_, __, message) => (message.kind === 'commit' && message.view < f ? null : message);
    const ids = cluster.live();
    const bound = 2 * VC(f);
    within(
      t,
      msUntil(cluster, () => ids.every((id) => cluster.height(id) >= 1), bound),
      bound,
      `n = ${n}`,
    );
    t.ok(
      views(cluster, ids).every((view) => view >= f),
      `n = ${n}: views ${views(cluster, ids)}`,
    );
    cluster.tamper = null;
    for (let id = 0; id < n; id++) if (cluster.nodes[id]!.core === null) cluster.boot(id);
    t.ok(orders(cluster, client, { at: n - 2, ms: VC(f) }), 'and they go on');
    for (const id of ids)
      t.equal(toHex(cluster.delivered[id]![0]!.block.hash), decided, `n = ${n}: the same block at ${id}`);
  }
});

t.test('A24 a replica locked in an old view is unlocked by what the new-view shows', async (t) => {
  // PBFT-NV-5, PBFT-VC-2
  for (const n of [4, 7]) {
    const f = faultsOf(n);
    const { cluster, client } = begin({ n, realSignatures: true });
    const { VC } = boundsOf(cluster);
    t.ok(orders(cluster, client));
    // Prepared at f of them alone, then the others move on without these.
    const locked = Array.from({ length: f }, (_, i) => n - 1 - i);
    const rest = others(cluster, ...locked);
    cluster.tamper = (_, to, message) =>
      message.kind === 'commit' || (message.kind === 'prepare' && !locked.includes(to)) ? null : message;
    cluster.submit(0, client.bundle([text('locked')]));
    cluster.run(60);
    t.ok(locked.every((id) => cluster.nodes[id]!.guard.lock?.height === 2));
    cluster.partition = [rest, locked];
    cluster.tamper = (_, __, message) =>
      (message.kind === 'prepare' || message.kind === 'commit') && message.view === 0 ? null : message;
    within(
      t,
      msUntil(cluster, () => views(cluster, rest).every((view) => view >= 1), VC(1)),
      VC(1),
      `n = ${n}: without them`,
    );
    const after = new SimClient(cluster.genesis, 'bob');
    ordered(t, cluster, { client: after, at: 1, ids: rest, bound: VC(1), what: 'they go on' });
    const view = Math.max(...views(cluster, rest));
    cluster.partition = null;
    cluster.tamper = null;
    const caughtUp = () =>
      views(cluster).every((v) => v >= view) && new Set(heights(cluster, cluster.live())).size === 1;
    within(t, msUntil(cluster, caughtUp, VC(f)), VC(f), 'unlocked');
    t.ok(orders(cluster, after));
  }
});

// ---- who says it, and to whom ------------------------------------------------------------------------------------------------

t.test('A12 a bundle whose signature not everybody could check is refused by everybody alike', async (t) => {
  // REQ-3, PBFT-PP-3: signatures are public, so there is nothing that is valid for some replicas only.
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { VC } = boundsOf(cluster);
    const good = client.bundle([text('good')]);
    const bad: SignedBundle = { ...good, signature: good.signature.map((byte, i) => (i === 5 ? byte ^ 1 : byte)) };
    // Handed on by a faulty backup, to everybody.
    for (const to of others(cluster, 2)) cluster.inject(2, to, { kind: 'forward', bundles: [bad] });
    cluster.run(50);
    t.equal(
      cluster.refusals.filter(({ code, kind }) => code === 'bundle-signature' && kind === 'forward').length,
      n - 1,
    );
    t.strictSame(started(cluster), [], 'nobody is blamed for not ordering it');
    // Put into a block by a faulty primary.
    cluster.tamper = (from, _, message) =>
      from === 0 && message.kind === 'pre-prepare'
        ? { ...message, block: { ...message.block, bundles: [bad] } }
        : message;
    ordered(t, cluster, {
      client: new SimClient(cluster.genesis, 'bob'),
      at: 1,
      ids: others(cluster, 0),
      bound: 2 * VC(0),
      what: `n = ${n}`,
    });
    const refused = cluster.refusals.filter(({ kind }) => kind === 'pre-prepare');
    t.ok(refused.length >= n - 1, JSON.stringify(refused[0]));
    t.equal(new Set(refused.map(({ code }) => code)).size, 1, 'with one code');
  }
});

t.test('A13 a bundle said again, by everybody, before and after its session is forgotten, executes once', async (t) => {
  // SES-3, SES-6
  const { cluster, client } = begin({ parameters: { checkpointInterval: 16, validUntilHorizon: 64 } });
  const { T } = boundsOf(cluster);
  const first = client.bundle([text('once')], { validUntil: 10 });
  const replay = () => {
    for (const id of cluster.live()) cluster.submit(id, first);
  };
  replay();
  replay();
  t.ok(cluster.until(() => everywhere(cluster, first), 200));
  replay();
  cluster.run(2 * T);
  t.equal(cluster.height(0), 1, 'not a second time');
  const other = new SimClient(cluster.genesis, 'bob');
  const more = (to: number) => {
    while (cluster.height(0) < to) {
      const bundle = other.bundle([text('more')], { validUntil: cluster.height(0) + 20 });
      cluster.submit(1, bundle);
      if (!cluster.until(() => everywhere(cluster, bundle), 500)) return t.fail('stuck');
      replay();
    }
    return undefined;
  };
  more(9);
  more(11);
  more(33); // two checkpoints on: the session is forgotten
  cluster.run(2 * T);
  t.equal(started(cluster).length, 0, 'and nobody is blamed for not ordering it');
  t.ok(
    cluster.nodes.every(({ id }) => cluster.executedAt(id, first) === 1),
    'the cluster checks that nothing stands twice',
  );
});

t.test('A14 a client that floods leaves the others at least half of what they had, within all bounds', async (t) => {
  // REQ-4, REQ-5
  for (const n of [4, 7]) {
    const count = (flooding: boolean) => {
      const { cluster, client } = begin({ n, parameters: { blockBundlesMax: 4 } });
      const mallory = clientOf(cluster, 'mallory');
      const flood = () => {
        for (let i = 0; i < 15; i++) {
          const bundle = mallory.bundle([text('f'.repeat(64))], { validUntil: 90_000 });
          for (const id of cluster.live()) cluster.submit(id, bundle);
        }
        cluster.after(10, flood);
      };
      if (flooding) flood();
      cluster.run(500);
      let ordered = 0;
      let poolMax = 0;
      const end = cluster.now + 1_000;
      while (cluster.now < end) {
        if (orders(cluster, client, { at: 1, ids: [1], ms: end - cluster.now })) ordered += 1;
        poolMax = Math.max(poolMax, ...cluster.live().map((id) => cluster.nodes[id]!.core!.explain().pool.bundles));
      }
      t.strictSame(started(cluster), [], 'no primary is blamed');
      return { ordered, poolMax };
    };
    const alone = count(false);
    const beside = count(true);
    t.ok(beside.poolMax > 100, `n = ${n}: a flood (${beside.poolMax} bundles wait)`);
    t.ok(beside.poolMax <= POOL_LIMITS.poolBundlesMax / 2 + 4, 'within its quota');
    t.ok(beside.ordered >= alone.ordered / 2, `n = ${n}: ${beside.ordered} of ${alone.ordered}`);
  }
});

// ---- who falls behind --------------------------------------------------------------------------------------------------------------

t.test('A16 catch-up by checkpoint past peers that lie or withhold', async (t) => {
  // PBFT-CU-3, PBFT-CP-3, A13
  const parameters = { checkpointInterval: 16, window: 4 };
  const { cluster, client } = begin({ realSignatures: true, parameters, n: 7 });
  const { T } = boundsOf(cluster);
  for (const node of cluster.nodes) node.disk.retain = 4;
  cluster.crash(6);
  for (let i = 0; i < 36; i++) t.ok(orders(cluster, client, { ids: [0, 1, 2, 3, 4, 5] }));
  lieIn(cluster, 4, LIES['withholds-transfer']);
  lieIn(cluster, 5, LIES['lies-in-transfer']);
  cluster.boot(6);
  for (const node of cluster.nodes) retained(cluster, node.id);
  within(
    t,
    msUntil(cluster, () => cluster.height(6) === cluster.height(0), 8 * T),
    8 * T,
    'caught up',
  );
  t.ok(cluster.events.some(({ at, type }) => at === 6 && type === 'checkpoint-installed'));
  const lies = cluster.refusals.filter(({ code, from }) => code === 'state-chunk-proof' && from === 5);
  t.equal(lies.length, 1, 'the liar is asked for one chunk');
  t.ok(orders(cluster, client));

  // A13: a bundle from below the checkpoint is not executed again by who never saw its block.
  const old = cluster.delivered[0]![0]!.block.bundles[0]!;
  const height = cluster.height(6);
  for (const id of cluster.live()) cluster.submit(id, old);
  cluster.run(2 * T);
  t.equal(cluster.height(6), height);
  t.equal(started(cluster).length, 0);
  cluster.crash(6);
  cluster.boot(6);
  t.ok(orders(cluster, client, { ms: 8 * T }), 'and after a restart it goes on from there');
});

t.test('A17 f wrong checkpoint votes change nothing', async (t) => {
  // PBFT-CP-2
  for (const n of [4, 7]) {
    const f = faultsOf(n);
    const { cluster, client } = begin({ n, realSignatures: true, parameters: { checkpointInterval: 16 } });
    const { delta } = boundsOf(cluster);
    for (let id = n - f; id < n; id++) lieIn(cluster, id, LIES['wrong-checkpoints']);
    for (let i = 0; i < 16; i++) t.ok(orders(cluster, client));
    const honest = Array.from({ length: n - f }, (_, id) => id);
    const isStable = (height: number) => () =>
      honest.every((id) => cluster.nodes[id]!.core!.explain().stable === height);
    within(t, msUntil(cluster, isStable(16), 2 * delta), 2 * delta, `n = ${n}: stable, of ${n - f} equal ones`);
    for (let i = 0; i < 16; i++) t.ok(orders(cluster, client));
    within(t, msUntil(cluster, isStable(32), 2 * delta), 2 * delta, 'and the next one');
  }
});

// ---- power and disks -----------------------------------------------------------------------------------------------------------------

t.test(
  'A22 a replica whose disk fails ends before it speaks; the others go on; with a disk again it returns',
  async (t) => {
    // PBFT-P-1, GRD-14
    for (const n of [4, 7])
      for (const who of [0, n - 1]) {
        const { cluster, client } = begin({ n });
        const { VC } = boundsOf(cluster);
        t.ok(orders(cluster, client, { at: 1 }));
        let spoken = 0;
        let failed = false;
        cluster.strikes = ({ id }, point) => {
          if (id !== who || point !== 'write-begun' || failed) return false;
          failed = true;
          cluster.crash(who);
          cluster.tamper = (from, _, message) => {
            if (from === who && message.kind !== 'status') spoken += 1;
            return message;
          };
          return true;
        };
        const ids = others(cluster, who);
        ordered(t, cluster, { client, at: 1, ids, bound: VC(1), what: `n = ${n}, without ${who}` });
        t.ok(failed && cluster.nodes[who]!.core === null, 'it ended in its write');
        t.equal(spoken, 0, 'and said nothing of it');
        cluster.tamper = null;
        cluster.boot(who);
        ordered(t, cluster, { client, at: 1, ids: cluster.live(), bound: VC(1), what: 'and with it again' });
      }
  },
);

t.test('A23 a power cut everywhere at once: what was decided stays, and they go on', async (t) => {
  for (const n of [4, 7])
    for (const all of [true, false]) {
      const f = faultsOf(n);
      const { cluster, client } = begin({ n, parameters: { checkpointInterval: 16 } });
      const { VC } = boundsOf(cluster);
      for (let i = 0; i < 20; i++) t.ok(orders(cluster, client));
      const pending = client.bundle([text('pending')]);
      cluster.submit(0, pending);
      cluster.run(7);
      const before = new Map(cluster.chain);
      const height = cluster.chain.size;
      for (let id = 0; id < n; id++) cluster.crash(id);
      cluster.run(1_000);
      // A quorum comes up, the first primaries not among it; or everybody.
      for (let id = all ? 0 : f; id < n; id++) cluster.boot(id);
      cluster.submit(n - 1, pending);
      const bound = VC(all ? 1 : f);
      const ms = msUntil(
        cluster,
        () => cluster.live().every((id) => cluster.height(id) >= Math.max(21, height)),
        bound,
      );
      within(t, ms, bound, `n = ${n}, ${all ? 'all' : 'a quorum'} up again`);
      for (const [at, hash] of before) t.equal(cluster.chain.get(at), hash);
    }
});

// ---- one key, two processes ----------------------------------------------------------------------------------------------------------

t.test('A20 one key on two hosts: safe while the faulty are at most f, and the peers hold evidence', async (t) => {
  // ACC-1, PBFT-PP-4
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    const { T, VC } = boundsOf(cluster);
    const twin = cluster.twin(0);
    const ids = others(cluster, 0);
    // Both lead view 0, and each has something else to propose.
    const [x, y] = [client.bundle([text('x')]), new SimClient(cluster.genesis, 'bob').bundle([text('y')])];
    cluster.submit(0, x);
    twin.input({ type: 'bundle', bundle: y });
    within(
      t,
      msUntil(cluster, () => cluster.evidence.some(({ culprit }) => culprit === 0), 2 * T),
      2 * T,
      `n = ${n}: evidence`,
    );
    // They go on, both of them wrong.
    for (const bundle of [x, y]) cluster.submit(1, bundle);
    const bound = 2 * T + VC(1);
    within(
      t,
      msUntil(cluster, () => everywhere(cluster, x, ids) && everywhere(cluster, y, ids), bound),
      bound,
      `n = ${n}: both ordered`,
    );
    t.strictSame(culprits(cluster), [0]);
    for (let i = 0; i < 10; i++) t.ok(orders(cluster, client, { at: 1, ids, ms: VC(1) }));
  }
});

t.test('A20 twins that are kept apart, each with a half of the others: one chain', async (t) => {
  for (const [n, seed] of [
    [4, 1],
    [4, 2],
    [7, 3],
    [7, 4],
  ] as const) {
    const { cluster, client } = begin({ n, seed });
    const { VC } = boundsOf(cluster);
    const twins = Array.from({ length: faultsOf(n) }, (_, id) => id);
    for (const id of twins)
      cluster.twin(id, (other, which) => twins.includes(other) || (other % 2 === 0) === (which === 'first'));
    const ids = others(cluster, ...twins);
    // What two halves are told differently; the checks of the cluster see every honest decision.
    for (let i = 0; i < 12; i++) {
      const bundle = client.bundle([text(`${i}`)]);
      for (const id of ids) cluster.submit(id, bundle);
      within(
        t,
        msUntil(cluster, () => everywhere(cluster, bundle, ids), VC(2)),
        VC(2),
        `n = ${n}, bundle ${i}`,
      );
    }
    t.ok(culprits(cluster).every((id) => twins.includes(id)));
  }
});

// ---- every lie at once ------------------------------------------------------------------------------------------------------------------

t.test('A8 A10 A16 whatever one replica says, with its own signature, breaks nobody: GEN-1', async (t) => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const { cluster, client } = begin({ seed, realSignatures: true, parameters: { checkpointInterval: 16 } });
    const bad = seed % 4;
    lieIn(cluster, bad, LIES.mutates);
    const honest = others(cluster, bad);
    for (let i = 0; i < 24; i++) {
      const bundle = client.bundle([text(`${i}`)]);
      for (const id of honest) cluster.submit(id, bundle);
      if (cluster.until(() => everywhere(cluster, bundle, honest), 20_000)) continue;
      t.fail(`seed ${seed}: bundle ${i} was not ordered`);
      break;
    }
    t.ok(cluster.refusals.length > 0, `seed ${seed}`);
    t.ok(
      culprits(cluster).every((id) => id === bad),
      'and accuses nobody else',
    );
  }
});

t.test('every lie, by each of f liars for itself, while links lose some: one chain, and all is ordered', async (t) => {
  for (const [index, name] of (Object.keys(LIES) as LieName[]).entries()) {
    for (const n of [4, 7]) {
      const { cluster, client } = begin({ n, seed: index + n, parameters: { checkpointInterval: 16 } });
      cluster.faults = { ...calm, delayMs: [1, 20], loss: 0.02 };
      // The primary among them: it has most to lie about.
      const liars = Array.from({ length: faultsOf(n) }, (_, i) => 2 * i);
      for (const id of liars) lieIn(cluster, id, LIES[name]);
      const ids = others(cluster, ...liars);
      for (let i = 0; i < 20; i++) {
        const bundle = client.bundle([text(`${i}`)]);
        for (const id of ids) cluster.submit(id, bundle);
        if (cluster.until(() => everywhere(cluster, bundle, ids), 30_000)) continue;
        t.fail(`${name}, n = ${n}: bundle ${i} was not ordered`);
        break;
      }
      if (name === 'equivocates' || name === 'contradicts')
        t.ok(n === 7 || culprits(cluster).length === 1, `${name}, n = ${n}`);
      t.ok(
        culprits(cluster).every((id) => liars.includes(id)),
        `${name}, n = ${n}: accused ${culprits(cluster)}`,
      );
    }
  }
});
