// The rules of docs/spec.md on whole clusters in virtual time: what an adversary of the book (A1 to A32) does, and what the honest
// replicas make of it, with its bound. Everything from seeds; one replica at its exact edges is in rules.test.ts.

import t from 'tap';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import { blockHash, encodeHeader } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { isLater } from '../protocol/certificate.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { Input, Ready } from '../protocol/core.ts';
import type { NewView, ReplicaMessage, ReplicaPledge, Signed, ViewChange } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { Millis } from '../protocol/types.ts';
import { asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm, type Tamper } from '../sim/cluster.ts';
import { decodedLock } from '../sim/guard.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(200_000);

const text = (value: string) => Buffer.from(value);
const T = 500;
const HEARTBEAT = 100;
/** The worst wait behind f faulty primaries in a row: VC(f) of the adversary's book, with 10 ms of delay and a heartbeat to notice. */
const afterViews = (f: number) => (2 ** (f + 1) - 1) * T + (f + 1) * (60 + HEARTBEAT);

type Options = ConstructorParameters<typeof Cluster>[0];

/** A cluster that has begun, and its client. */
function begin(options: Options = {}): { cluster: Cluster; client: SimClient } {
  const cluster = new Cluster({ seed: 7, ...options });
  cluster.run(20);
  return { cluster, client: new SimClient(cluster.genesis, 'alice') };
}

const everywhere = (cluster: Cluster, bundle: SignedBundle, ids = cluster.live()) =>
  ids.every((id) => cluster.has(id, bundle));

/** A bundle more, at a replica; true when these have decided it in time. */
function orders(cluster: Cluster, client: SimClient, { at = 3, ids = cluster.live(), ms = 500 } = {}): boolean {
  const bundle = client.bundle([text(`at ${cluster.now}`)]);
  cluster.submit(at, bundle);
  return cluster.until(() => everywhere(cluster, bundle, ids), ms);
}

const views = (cluster: Cluster, ids = cluster.live()) =>
  ids.map((id) => cluster.nodes[id]!.core!.explain().view as number);
const started = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started');

function rival(block: Block): Block {
  const header = { ...block.header, time: asMillis(block.header.time + 1) };
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(native.sha256, headerBytes), bundles: block.bundles };
}

/** Puts itself between a replica and its core. */
function between(
  cluster: Cluster,
  id: number,
  change: (
    step: (
      inputs: readonly Input<ReplicaMessage, ReplicaPledge>[],
      now: Millis,
    ) => Ready<ReplicaMessage, ReplicaPledge>,
    inputs: readonly Input<ReplicaMessage, ReplicaPledge>[],
    now: Millis,
  ) => Ready<ReplicaMessage, ReplicaPledge>,
): void {
  const core = cluster.nodes[id]!.core!;
  const step = core.step.bind(core);
  core.step = (inputs, now) => change(step, inputs, now);
}

const silent =
  (...ids: number[]): Tamper =>
  (from, _, message) =>
    ids.includes(from) ? null : message;

// ---- primaries ------------------------------------------------------------------------------------------------------------

t.test('PBFT-PP-4, A1: two blocks to two halves: at most one is prepared, and the primary is replaced', async (t) => {
  for (const n of [4, 7]) {
    const { cluster, client } = begin({ n, realSignatures: true });
    cluster.tamper = (from, to, message) =>
      from === 0 && message.kind === 'pre-prepare' && message.view === 0 && to >= n / 2
        ? { ...message, block: rival(message.block) }
        : message;
    const bundle = client.bundle([text('x')]);
    cluster.submit(0, bundle);
    const honest = cluster.live().filter((id) => id !== 0);
    t.ok(
      cluster.until(() => everywhere(cluster, bundle, honest), afterViews(1)),
      `n = ${n}: ordered`,
    );
    const hashes = new Set(cluster.events.filter(({ type }) => type === 'prepared').map(({ detail }) => detail));
    t.ok([...hashes].filter((detail) => detail.includes('"view":0')).length <= 1);
    t.ok(views(cluster, honest).every((view) => view >= 1));
  }
  // Both to each: the evidence.
  const { cluster, client } = begin({ realSignatures: true });
  cluster.tamper = (from, to, message) => {
    // The second one comes second: it would be refused for its form.
    if (from === 0 && message.kind === 'pre-prepare' && message.view === 0)
      cluster.after(4, () => cluster.inject(0, to, { ...message, block: rival(message.block) }));
    return message;
  };
  t.ok(orders(cluster, client, { ids: [1, 2, 3], ms: afterViews(1) }));
  t.ok(cluster.evidence.length > 0);
  t.strictSame([...new Set(cluster.evidence.map(({ culprit }) => Number(culprit)))], [0]);
});

t.test('PBFT-VC-1, A2: a silent primary is replaced within T and a heartbeat, idle or loaded', async (t) => {
  for (const loaded of [false, true]) {
    const { cluster, client } = begin();
    t.ok(orders(cluster, client));
    cluster.tamper = silent(0);
    const bundle = client.bundle([text('y')]);
    if (loaded) cluster.submit(2, bundle);
    const at = cluster.now;
    t.ok(
      cluster.until(() => views(cluster, [1, 2, 3]).every((view) => view === 1), T + 2 * HEARTBEAT),
      `loaded: ${loaded}`,
    );
    t.ok(cluster.now - at > T - HEARTBEAT, 'and not much sooner');
    if (loaded) t.ok(cluster.until(() => everywhere(cluster, bundle, [1, 2, 3]), afterViews(0)));
  }
});

t.test('PBFT-VC-4, A3: f faulty primaries in a row', async (t) => {
  for (const [n, bad] of [
    [7, [0, 1]],
    [10, [0, 1, 2]],
  ] as const) {
    const { cluster, client } = begin({ n });
    cluster.tamper = silent(...bad);
    const ids = cluster.live().filter((id) => !(bad as readonly number[]).includes(id));
    t.ok(orders(cluster, client, { at: n - 1, ids, ms: afterViews(bad.length) }), `n = ${n}`);
    t.strictSame([...new Set(views(cluster, ids))], [bad.length]);
  }
});

t.test('PBFT-NV-2, PBFT-NV-1, A8: a new-view that is not what its view-changes say is refused', async (t) => {
  const alter = (signed: Signed<ViewChange>, change: Partial<ViewChange>): Signed<ViewChange> => {
    const message = { ...signed.message, ...change };
    return { ...signed, message, payload: encodePayload(message) };
  };
  const attacks: [string, string, (message: NewView) => NewView][] = [
    ['leaves one out', 'new-view-below-quorum', (m) => ({ ...m, viewChanges: m.viewChanges.slice(1) })],
    [
      'shows one twice',
      'view-change-twice',
      (m) => ({ ...m, viewChanges: [m.viewChanges[0]!, ...m.viewChanges.slice(0, 2)] }),
    ],
    [
      'hides what was prepared',
      'view-change-signature',
      (m) => ({ ...m, viewChanges: m.viewChanges.map((vc) => alter(vc, { prepared: null, commit: null })) }),
    ],
    [
      'speaks for another',
      'view-change-signature',
      (m) => ({ ...m, viewChanges: m.viewChanges.map((vc) => ({ ...vc, sender: asReplicaId((vc.sender + 1) % 4) })) }),
    ],
    [
      'takes them from another view',
      'view-change-place',
      (m) => ({ ...m, viewChanges: m.viewChanges.map((vc) => alter(vc, { view: asView(2) })) }),
    ],
  ];
  for (const [name, code, attack] of attacks) {
    const { cluster, client } = begin({ realSignatures: true });
    t.ok(orders(cluster, client), name);
    cluster.crash(0);
    cluster.tamper = (from, _, message) => {
      if (from !== 1) return message;
      // It lies whenever it can, and says nothing else.
      return message.kind === 'new-view' ? attack(message) : message.kind === 'view-change' ? message : null;
    };
    cluster.run(T + 3 * HEARTBEAT);
    t.ok(
      cluster.refusals.some((refusal) => refusal.code === code && refusal.kind === 'new-view'),
      `${name}: ${code}`,
    );
    t.notOk(
      cluster.events.some(({ at, type, detail }) => at >= 2 && type === 'view-entered' && detail.includes('"view":1')),
    );
    // With the first one back, the next view is opened by an honest primary.
    cluster.boot(0);
    t.ok(orders(cluster, client, { ids: [2, 3], ms: afterViews(3) }), `${name}: and the next view goes on`);
  }
});

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

t.test(
  'BLK-4, A18: a primary whose clock is wild is replaced, a backup whose clock is wild harms nobody',
  async (t) => {
    for (const id of [0, 2]) {
      const { cluster, client } = begin();
      between(cluster, id, (step, inputs, now) => {
        const ready = step(inputs, asMillis(now + 3_600_000));
        return { ...ready, wakeAt: asMillis(ready.wakeAt - 3_600_000) };
      });
      const others = cluster.live().filter((one) => one !== id);
      t.ok(orders(cluster, client, { ids: others, ms: afterViews(1) }), `replica ${id}`);
      t.ok(orders(cluster, client, { ms: afterViews(1) }), 'and it gets what the others decide');
      for (const { block } of cluster.delivered[3]!) t.ok(Math.abs(block.header.time - cluster.now) < 60_000);
    }
  },
);

// ---- what was prepared, what was decided -------------------------------------------------------------------------------------

t.test('PBFT-NV-3, A9: what was prepared and not yet decided survives the view change', async (t) => {
  const { cluster, client } = begin({ realSignatures: true });
  // A lost commit phase: everyone is prepared, only replica 3 hears the commits.
  cluster.tamper = (_, to, message) => (message.kind === 'commit' && to !== 3 ? null : message);
  const bundle = client.bundle([text('x')]);
  cluster.submit(0, bundle);
  t.ok(cluster.until(() => cluster.has(3, bundle), 200));
  const decided = cluster.chain.get(1);
  t.strictSame(
    [0, 1, 2].map((id) => cluster.height(id)),
    [0, 0, 0],
  );
  cluster.crash(3);
  cluster.tamper = silent(0);
  cluster.run(T + 3 * HEARTBEAT);
  cluster.tamper = null;
  t.ok(cluster.until(() => [0, 1, 2].every((id) => cluster.has(id, bundle)), afterViews(1)));
  t.equal(toHex(cluster.delivered[1]![0]!.block.hash), decided, 'the same block');
  t.ok(views(cluster).some((view) => view >= 1));
});

t.test("PBFT-VC-2, A7: of two prepared certificates the later view's wins", async (t) => {
  const { cluster, client } = begin({ n: 7, realSignatures: true });
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
  t.strictSame(
    [...new Set(cluster.events.filter(({ type }) => type === 'prepared').map(({ at }) => Number(at)))].sort(),
    [0, 2],
  );
  cluster.partition = [
    [1, 3, 4, 5, 6],
    [0, 2],
  ];
  t.ok(
    cluster.until(() => views(cluster, [1, 3, 4, 5, 6]).every((view) => view === 1), afterViews(1)),
    'a quorum without them',
  );
  cluster.submit(1, bundle);
  const second = () => cluster.events.filter(({ type, detail }) => type === 'prepared' && detail.includes('"view":1'));
  t.ok(
    cluster.until(() => new Set(second().map(({ at }) => at)).size === 2, T),
    'another block is prepared',
  );
  const later = [...cluster.nodes[3]!.disk.accepted.values()].at(-1)!.hash;
  const earlier = cluster.nodes[0]!.guard.lock!;
  t.notOk(equalBytes(later, earlier.hash));
  cluster.partition = null;
  cluster.tamper = null;
  t.ok(cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), afterViews(4)));
  t.equal(cluster.chain.get(1), toHex(later), "the later view's");
});

t.test('PBFT-NV-4, PBFT-CU-1, A6: a proposal kept from f replicas is fetched from those who have it', async (t) => {
  for (const [n, kept] of [
    [4, [3]],
    [7, [5, 6]],
  ] as const) {
    const { cluster, client } = begin({ n, realSignatures: true });
    let fetched = 0;
    cluster.tamper = (from, to, message) => {
      if (message.kind === 'fetch-block' || message.kind === 'fetch-blocks') fetched += 1;
      return from === 0 && message.kind === 'pre-prepare' && (kept as readonly number[]).includes(to) ? null : message;
    };
    // Two heartbeats, for votes are usually only late, and the way there and back.
    t.ok(orders(cluster, client, { at: 1, ms: 4 * HEARTBEAT }), `n = ${n}`);
    t.ok(fetched >= kept.length);
    t.strictSame([...new Set(views(cluster))], [0], 'without a view change');
  }
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

t.test('A23: a power cut everywhere at once; what was decided stays, and they go on', async (t) => {
  const { cluster, client } = begin({ n: 4, parameters: { checkpointInterval: 16 } });
  for (let i = 0; i < 20; i++) t.ok(orders(cluster, client));
  const pending = client.bundle([text('pending')]);
  cluster.submit(0, pending);
  cluster.run(7);
  const before = new Map(cluster.chain);
  for (const id of [0, 1, 2, 3]) cluster.crash(id);
  for (const id of [0, 1, 2, 3]) cluster.boot(id);
  cluster.submit(2, pending);
  t.ok(cluster.until(() => cluster.live().every((id) => cluster.height(id) > 20), afterViews(2)));
  for (const [height, hash] of before) t.equal(cluster.chain.get(height), hash);
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
  const rest: Ready<ReplicaMessage, ReplicaPledge> = {
    records: [],
    pledges: [],
    lock: null,
    lead: null,
    send: [],
    resend: [],
    deliver: [],
    admissions: [],
    refusals: [],
    evidence: [],
    events: [],
    wakeAt: asMillis(0),
  };
  between(cluster, 2, (step, inputs, now) => {
    held.push(...inputs);
    if (now < until) return { ...rest, wakeAt: asMillis(until) };
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

t.test('PBFT-NV-5, A24: a replica locked in an old view is unlocked by a new-view', async (t) => {
  const { cluster, client } = begin({ realSignatures: true });
  t.ok(orders(cluster, client));
  // Prepared at 3 alone, then the others move on without it.
  cluster.tamper = (_, to, message) =>
    message.kind === 'commit' || (message.kind === 'prepare' && to !== 3) ? null : message;
  cluster.submit(0, client.bundle([text('locked')]));
  cluster.run(60);
  t.equal(cluster.nodes[3]!.guard.lock?.height, 2);
  cluster.partition = [[0, 1, 2], [3]];
  cluster.tamper = (_, __, message) =>
    (message.kind === 'prepare' || message.kind === 'commit') && message.view === 0 ? null : message;
  t.ok(cluster.until(() => views(cluster, [0, 1, 2]).every((view) => view >= 1), afterViews(2)));
  const after = new SimClient(cluster.genesis, 'bob');
  t.ok(orders(cluster, after, { at: 1, ids: [0, 1, 2], ms: afterViews(2) }));
  const view = Math.max(...views(cluster, [0, 1, 2]));
  cluster.partition = null;
  cluster.tamper = null;
  t.ok(
    cluster.until(
      () => views(cluster).every((v) => v >= view) && cluster.height(3) === cluster.height(1),
      afterViews(1),
    ),
  );
  t.ok(orders(cluster, after));
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

t.test('PBFT-CU-3, PBFT-CP-3, A16: catch-up by checkpoint past peers that lie or withhold', async (t) => {
  const parameters = { checkpointInterval: 16, window: 4 };
  const { cluster, client } = begin({ realSignatures: true, parameters, n: 7 });
  for (const node of cluster.nodes) node.disk.retain = 4;
  cluster.crash(6);
  for (let i = 0; i < 36; i++) t.ok(orders(cluster, client, { ids: [0, 1, 2, 3, 4, 5] }));
  cluster.tamper = (from, to, message) => {
    if (message.kind !== 'state-chunk' || to !== 6) return message;
    return from === 4 ? null : from === 5 ? { ...message, bytes: text('a lie') } : message;
  };
  const boot = cluster.now;
  cluster.boot(6);
  // What the log's owner would say: the model disk forgets, and nobody tells the core.
  for (const node of cluster.nodes) retained(cluster, node.id);
  t.ok(
    cluster.until(() => cluster.height(6) === cluster.height(0), 8 * T),
    `in ${cluster.now - boot} ms`,
  );
  t.ok(cluster.events.some(({ at, type }) => at === 6 && type === 'checkpoint-installed'));
  t.ok(cluster.refusals.some(({ code, from }) => code === 'state-chunk-proof' && from === 5));
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

function retained(cluster: Cluster, id: number): void {
  const node = cluster.nodes[id]!;
  between(cluster, id, (step, inputs, now) =>
    step([{ type: 'retained', lowest: asHeight(node.disk.lowest) }, ...inputs], now),
  );
}

t.test('PBFT-CP-2, A17: f wrong checkpoint votes change nothing', async (t) => {
  const { cluster, client } = begin({ n: 7, realSignatures: true, parameters: { checkpointInterval: 16 } });
  cluster.tamper = (from, _, message) =>
    message.kind === 'checkpoint' && from >= 5
      ? { ...message, stateDigest: asHash(new Uint8Array(32).fill(from)) }
      : message;
  for (let i = 0; i < 17; i++) t.ok(orders(cluster, client));
  cluster.run(100);
  for (const id of [0, 1, 2, 3, 4]) t.equal(cluster.nodes[id]!.core!.explain().stable, 16);
});

// ---- clients ---------------------------------------------------------------------------------------------------------------------------

t.test('SES-3, SES-6, A13: a replay executes at most once', async (t) => {
  const { cluster, client } = begin({ parameters: { checkpointInterval: 16, validUntilHorizon: 64 } });
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

// ---- everything at once ----------------------------------------------------------------------------------------------------------------

t.test('GEN-1: whatever one replica says, with its own signature, breaks nobody', async (t) => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const { cluster, client } = begin({ seed, realSignatures: true, parameters: { checkpointInterval: 16 } });
    const bad = seed % 4;
    const older = new Map<string, ReplicaMessage>();
    cluster.tamper = (from, to, message) => {
      if (from !== bad) return message;
      const roll = cluster.random();
      const before = older.get(message.kind);
      older.set(message.kind, message);
      // An older value again, a neighbour's value, one field off by one, or another hash.
      if (roll < 0.1 && before !== undefined) return before;
      if (roll < 0.2) cluster.inject(from, to, nudged(message, cluster.random));
      return roll < 0.5 ? nudged(message, cluster.random) : message;
    };
    const honest = cluster.live().filter((id) => id !== bad);
    for (let i = 0; i < 24; i++) {
      const bundle = client.bundle([text(`${i}`)]);
      for (const id of honest) cluster.submit(id, bundle);
      if (cluster.until(() => everywhere(cluster, bundle, honest), 20_000)) continue;
      t.fail(`seed ${seed}: bundle ${i} was not ordered`);
      break;
    }
    t.ok(cluster.refusals.length > 0, `seed ${seed}`);
  }
});

/** One number by one, or one digest by a bit: what random bytes do not find. */
function nudged(message: ReplicaMessage, random: () => number): ReplicaMessage {
  const fields = Object.entries(message).filter(
    ([, value]) => typeof value === 'number' || (value instanceof Uint8Array && value.length > 0),
  );
  const [key, value] = fields[Math.floor(random() * fields.length)] ?? [];
  if (key === undefined) return message;
  if (typeof value === 'number') return { ...message, [key]: Math.max(0, value + (random() < 0.5 ? 1 : -1)) };
  const bytes = Uint8Array.from(value as Uint8Array);
  bytes[0]! ^= 1;
  return { ...message, [key]: bytes };
}

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
