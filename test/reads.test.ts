// Read points where members are trusted: who answers, how, and what keeps an answer from being older than what was asked after; the doors; and planted bugs.

import t from 'tap';
import { native } from '../crypto/native.ts';
import { restoreCore } from '../protocol/cores.ts';
import { READS_PENDING_MAX } from '../protocol/crash/reads.ts';
import { decodeEpoch, encodeEpoch, epochDocument, genesisEpoch } from '../protocol/epoch/document.ts';
import { type Parameters, parameterProblem } from '../protocol/genesis.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { mainsOf, type Protocol, protocols } from '../protocol/modes.ts';
import { countedMs, Lease } from '../protocol/paxos/lease.ts';
import { asEpoch, asHeight, asMillis, asReplicaId } from '../protocol/types.ts';
import { CheckFailure } from '../sim/checks.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { Linearizability } from '../sim/linearizability.ts';
import { settingOf } from '../sim/setting.ts';
import { world } from './door-world.ts';
import { plantedBugsAreCaught } from './family-lives.ts';
import { PLANTED_LEASES, PLANTED_READS } from './planted-reads.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const T = 500;
const family = protocols.filter((protocol) => protocol !== 'pbft');

interface Options {
  readonly protocol?: Protocol;
  readonly n?: number;
  readonly leaseMs?: number;
}

/** A cluster with a leader, where there is one. */
function begin({ protocol = 'multi-paxos', n = 3, leaseMs = 0 }: Options = {}) {
  const cluster = new Cluster({ n, protocol, parameters: { checkpointInterval: 16, leaseMs } });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(3 * T);
  return { cluster, client, mains: mainsOf(cluster.genesis).map(Number) };
}

function orders(cluster: Cluster, client: SimClient, ids: readonly number[], ms = 4 * T): boolean {
  const bundle = client.bundle([Buffer.from(`at ${cluster.now}`)]);
  for (const id of ids) cluster.submit(id, bundle);
  return cluster.until(() => ids.some((id) => cluster.has(id, bundle)), ms);
}

function read(cluster: Cluster, at: number): void {
  cluster.nodes[at]!.input({ type: 'read', id: cluster.checks.history.begin() });
}

const answered = (cluster: Cluster) => cluster.checks.history.answered;

/** What is said of reads from now on. */
function listen(cluster: Cluster, drops: (from: number, to: number, message: ReplicaMessage) => boolean = () => false) {
  const heard: { readonly from: number; readonly to: number; readonly kind: string }[] = [];
  cluster.tamper = (from, to, message) => {
    if (drops(from, to, message)) return null;
    if (message.kind === 'read-query' || message.kind === 'read-reply') heard.push({ from, to, kind: message.kind });
    return message;
  };
  return heard;
}

t.test(
  'CFT-RP-1 CFT-RP-2 CFT-RP-3 PXS-B-4 FST-R-1: every replica that keeps a log has read points, and each covers what was decided before',
  async (t) => {
    for (const protocol of family)
      for (const n of [3, 5]) {
        const { cluster, client, mains } = begin({ protocol, n });
        for (let i = 0; i < 6; i++) {
          t.ok(orders(cluster, client, mains), `${protocol} of ${n}`);
          // Somebody has decided it: everybody's answer covers it.
          for (const id of mains) read(cluster, id);
          const before = answered(cluster);
          t.ok(
            cluster.until(() => answered(cluster) === before + mains.length, T),
            'all answered',
          );
        }
      }
  },
);

t.test('CFT-RP-2: reads that come together share a question', async (t) => {
  const { cluster, client, mains } = begin({ protocol: 'raft' });
  t.ok(orders(cluster, client, mains));
  const leader = cluster.primary;
  const heard = listen(cluster);
  for (let i = 0; i < 100; i++) read(cluster, leader);
  t.ok(cluster.until(() => answered(cluster) === 100, T));
  t.same(
    heard.map(({ kind }) => kind),
    ['read-query', 'read-query', 'read-reply', 'read-reply'],
  );
});

t.test('CFT-RP-1: a leader that is cut off answers nothing, and what it refuses has a code', async (t) => {
  for (const protocol of ['raft', 'multi-paxos', 'cheap-paxos', 'fast-paxos', 'basic-paxos'] as const) {
    const { cluster, client, mains } = begin({ protocol, n: 5 });
    t.ok(orders(cluster, client, mains));
    const leader = cluster.primary;
    const rest = [0, 1, 2, 3, 4].filter((id) => id !== leader);
    cluster.partition = [[leader], rest];
    const others = mains.filter((id) => id !== leader);
    const core = cluster.nodes[leader]!.core!;
    const refused: string[] = [];
    const step = core.step.bind(core);
    core.step = (inputs, now) => {
      const ready = step(inputs, now);
      for (const each of ready.reads) refused.push('refused' in each ? each.refused : 'answered');
      return ready;
    };
    const before = answered(cluster);
    for (let i = 0; i < 40; i++) {
      read(cluster, leader);
      cluster.run(50);
    }
    t.ok(orders(cluster, client, others, 8 * T), `${protocol}: the others go on`);
    for (let i = 0; i < 40; i++) {
      read(cluster, leader);
      cluster.run(50);
    }
    cluster.run(5 * T);
    t.equal(answered(cluster), before, 'nothing is answered');
    t.equal(refused.length, 80, 'CFT-RP-4: every read has its verdict in its time');
    t.same([...new Set(refused)], ['read-unconfirmed']);
    cluster.partition = null;
    t.ok(orders(cluster, client, mains, 8 * T));
    read(cluster, leader);
    t.ok(
      cluster.until(() => answered(cluster) === before + 1, 4 * T),
      'and answers again',
    );
  }
});

t.test('CFT-RP-4: reads that wait are bounded; where there are no read points, it is said at once', async (t) => {
  const verdicts = (cluster: Cluster, at: number, count: number): string[] => {
    const { core, clock } = cluster.nodes[at]!;
    const reads = Array.from({ length: count }, (_, id) => ({ type: 'read', id }) as const);
    return core!.step(reads, clock.now()).reads.map((each) => ('refused' in each ? each.refused : 'answered'));
  };
  const { cluster } = begin({ protocol: 'raft' });
  const follower = (cluster.primary + 1) % 3;
  t.same(verdicts(cluster, follower, READS_PENDING_MAX + 2), ['reads-full', 'reads-full']);
  const pbft = new Cluster({ n: 4 });
  pbft.run(20);
  t.same(verdicts(pbft, 1, 1), ['reads-unsupported']);
  const cheap = begin({ protocol: 'cheap-paxos' });
  t.same(verdicts(cheap.cluster, 2, 1), ['reads-unsupported'], 'an auxiliary decides nothing');
});

t.test('FLR-1: reads that wait are in a snapshot', async (t) => {
  const { cluster } = begin({ protocol: 'raft' });
  const { core, clock, epoch } = cluster.nodes[(cluster.primary + 1) % 3]!;
  core!.step([{ type: 'read', id: 7 }], clock.now());
  const snapshot = core!.snapshot();
  const options = { genesis: cluster.genesis, epoch: epoch.epoch, document: epoch, self: core!.explain().self };
  const restored = restoreCore({ ...options, sha256: native.sha256 }, snapshot);
  if ('refused' in restored) return t.fail(restored.problem);
  t.same(restored.snapshot(), snapshot);
  const late = asMillis(clock.now() + 5 * T);
  t.same(restored.step([], late), core!.step([], late), 'and goes on as the other does');
});

t.test('RAFT-R-1: a new leader answers when an entry of its own term is decided', async (t) => {
  const { cluster, client, mains } = begin({ protocol: 'raft' });
  t.ok(orders(cluster, client, mains));
  const old = cluster.primary;
  cluster.crash(old);
  let appends = true;
  // Heads and votes pass, so that another is elected and confirmed; what it appends is not confirmed.
  listen(cluster, (_, __, { kind }) => kind === 'appended' && appends);
  t.ok(
    cluster.until(
      () => cluster.primary !== old && cluster.nodes[cluster.primary]!.core!.explain().phase !== 'view-change',
      8 * T,
    ),
  );
  const { height } = cluster.nodes[cluster.primary]!.core!.explain();
  const before = answered(cluster);
  read(cluster, cluster.primary);
  cluster.run(T / 2);
  t.equal(answered(cluster), before, 'its own first entry is not decided');
  appends = false;
  t.ok(cluster.until(() => answered(cluster) > before, 4 * T));
  t.ok(cluster.nodes[cluster.primary]!.core!.explain().height > height);
});

t.test('PXS-R-1: what a follower has decided before its leader did, the leader covers', async (t) => {
  const { cluster, client, mains } = begin();
  t.ok(orders(cluster, client, mains));
  const leader = cluster.primary;
  const head = cluster.height(leader);
  let deaf = true;
  listen(
    cluster,
    (_, to, { kind }) => deaf && to === leader && (kind === 'accepted' || kind === 'blocks' || kind === 'block-data'),
  );
  t.ok(orders(cluster, client, mains));
  t.equal(cluster.height(leader), head, 'the leader does not know');
  t.ok(cluster.chain.size > head, 'and the others do');
  const before = answered(cluster);
  read(cluster, leader);
  cluster.run(60);
  t.equal(answered(cluster), before, 'it waits');
  deaf = false;
  t.ok(cluster.until(() => answered(cluster) > before, 4 * T));
});

t.test('CHP-8: the working set is enough, and no auxiliary is asked', async (t) => {
  for (const n of [3, 5]) {
    const { cluster, client, mains } = begin({ protocol: 'cheap-paxos', n });
    t.ok(orders(cluster, client, mains));
    // One main fails: the others are fewer than a majority.
    const leader = cluster.primary;
    const failed = mains.find((id) => id !== leader)!;
    cluster.crash(failed);
    t.ok(
      orders(
        cluster,
        client,
        mains.filter((id) => id !== failed),
        12 * T,
      ),
    );
    cluster.run(2 * T);
    const heard = listen(cluster);
    const before = answered(cluster);
    for (const id of mains) if (id !== failed) read(cluster, id);
    t.ok(cluster.until(() => answered(cluster) === before + mains.length - 1, T));
    t.same(
      heard.filter(({ to }) => !mains.includes(to)),
      [],
    );
  }
});

// ---- leases -------------------------------------------------------------------------------------------------------------

const leaseMs = 400;

t.test('PXS-R-2: with a lease the leader answers by itself, until it ends', async (t) => {
  const { cluster, client, mains } = begin({ leaseMs });
  t.ok(orders(cluster, client, mains));
  const leader = cluster.primary;
  // The question that keeps the lease, at each heartbeat, is answered before the reads come.
  let asks = 0;
  cluster.tamper = (_, __, message) => {
    if (message.kind === 'read-query') asks += 1;
    return message;
  };
  t.ok(cluster.until(() => asks >= 2, T));
  cluster.run(30);
  asks = 0;
  const before = answered(cluster);
  for (let i = 1; i <= 20; i++) {
    read(cluster, leader);
    cluster.run(1);
    t.equal(answered(cluster), before + i, 'at once');
  }
  t.equal(asks, 0, 'and nobody was asked');
  cluster.partition = [[leader], [0, 1, 2].filter((id) => id !== leader)];
  read(cluster, leader);
  cluster.run(2);
  t.equal(answered(cluster), before + 21, 'also where nobody hears it');
  cluster.run(leaseMs);
  read(cluster, leader);
  cluster.run(5 * T);
  t.equal(answered(cluster), before + 21, 'as long as it lasts');
});

t.test('PXS-R-2 PXS-R-3: what an acceptor keeps of a lease', async (t) => {
  const [one, two] = [asReplicaId(1), asReplicaId(2)];
  const at = (ms: number) => asMillis(1_000 + ms);
  const lease = new Lease(at(0), leaseMs);
  t.ok(lease.binds(one, at(leaseMs - 1)), 'after a start it may have granted one to anybody');
  t.notOk(lease.grant(one, at(0), leaseMs), 'and grants none to another meanwhile');
  t.notOk(lease.binds(one, at(leaseMs)));
  t.ok(lease.grant(one, at(500), leaseMs));
  t.notOk(lease.binds(one, at(501)), 'its holder may have a higher ballot');
  t.ok(lease.binds(two, at(500 + leaseMs - 1)));
  t.notOk(lease.grant(two, at(600), leaseMs), 'one holder at a time');
  t.ok(lease.grant(two, at(500 + leaseMs), leaseMs));
  t.notOk(new Lease(at(0), 0).binds(one, at(0)), 'without leases nothing is waited for');
  t.equal(countedMs(0), 0);
  t.ok(countedMs(leaseMs) * 10 < leaseMs * 9, 'its holder counts on nine tenths, less what clocks round off');
});

/** The third replica waits to lead, the acceptor that the leader's lease hangs on may restart, and the leader is cut off: reads at it, while the two others go on. */
function orphanedLease(restarts: boolean): { readonly answered: number; readonly handedOverMs: number } {
  const { cluster, client, mains } = begin({ leaseMs });
  if (!orders(cluster, client, mains)) throw new Error('nothing is ordered');
  const leader = cluster.primary;
  const [acceptor, third] = [(leader + 1) % 3, (leader + 2) % 3];
  listen(cluster, (from, to) => (from === leader && to === third) || (from === third && to === leader));
  cluster.run(2 * T);
  cluster.partition = [[leader], [acceptor, third]];
  if (restarts) {
    cluster.crash(acceptor);
    cluster.boot(acceptor);
  }
  const since = cluster.now;
  const before = answered(cluster);
  const bundle = client.bundle([Buffer.from('after')]);
  let handedOverMs = 0;
  for (let ms = 0; ms < 4 * T; ms += 5) {
    cluster.submit(third, bundle);
    read(cluster, leader);
    cluster.run(5);
    if (handedOverMs === 0 && cluster.has(third, bundle)) handedOverMs = cluster.now - since;
  }
  return { answered: answered(cluster) - before, handedOverMs };
}

t.test('PXS-R-3: a restarted acceptor promises nothing until all that it may have granted is over', async (t) => {
  for (const restarts of [true, false]) {
    const { answered, handedOverMs } = orphanedLease(restarts);
    t.ok(answered > 0, `${answered} reads are answered while the lease lasts`);
    t.ok(handedOverMs >= countedMs(leaseMs) - 100 && handedOverMs > 0, `another leads after ${handedOverMs} ms`);
  }
});

t.test('planted bugs in leases are caught', async (t) => {
  for (const [name, plant] of Object.entries(PLANTED_LEASES)) {
    const takeOut = plant();
    try {
      t.throws(() => orphanedLease(true), CheckFailure, name);
      orphanedLease(true);
    } catch (error) {
      t.equal((error as CheckFailure).check, 'reads-linearizable', name);
    } finally {
      takeOut();
    }
  }
});

t.test('WIRE-32: a lease is a parameter of Multi-Paxos alone, off where nobody asks for it', async (t) => {
  const { genesis } = settingOf(3, {}, { realSignatures: false, protocol: 'multi-paxos' });
  const { parameters } = genesis;
  t.equal(parameters.leaseMs, 0);
  const problem = (more: Partial<Parameters>, protocol: Protocol = 'multi-paxos') =>
    parameterProblem({ ...parameters, ...more }, protocol)?.field ?? null;
  for (const ok of [0, 200, 500]) t.equal(problem({ leaseMs: ok }), null);
  for (const bad of [1, 199, 501, -1, 1.5]) t.equal(problem({ leaseMs: bad }), 'leaseMs');
  for (const protocol of protocols.filter((each) => each !== 'multi-paxos')) {
    t.equal(problem({ leaseMs: 400 }, protocol), 'leaseMs', protocol);
    t.equal(problem({}, protocol), null);
  }
  const first = genesisEpoch(native.sha256, genesis);
  const { hash: _, ...fields } = { ...first, epoch: asEpoch(1), start: { ...first.start, height: asHeight(3) } };
  const documentOf = (ms: number) =>
    epochDocument(native.sha256, { ...fields, parameters: { ...parameters, leaseMs: ms } });
  const [without, having] = [documentOf(0), documentOf(400)];
  t.equal(encodeEpoch(having).length - encodeEpoch(without).length, 3, 'written only where there is one');
  for (const document of [without, having]) t.same(decodeEpoch(native.sha256, encodeEpoch(document)), document);
  // The same as without, said in more bytes.
  const bytes = encodeEpoch(having);
  const at = bytes.lastIndexOf(0xcd);
  const zero = new Uint8Array([...bytes.subarray(0, at), 0, ...bytes.subarray(at + 3)]);
  t.match(decodeEpoch(native.sha256, zero), { refused: 'field-out-of-range', field: 'parameters' });
  // What came after it is written where it, or what is behind it, is not at its default.
  for (const [more, bytes] of [
    [{ retainBlocksMin: 5 }, 2],
    [{ clientPoolPercent: 60 }, 3],
    [{ leaseMs: 400, clientPoolPercent: 60 }, 5],
  ] as const) {
    const document = epochDocument(native.sha256, { ...fields, parameters: { ...parameters, ...more } });
    t.equal(encodeEpoch(document).length - encodeEpoch(without).length, bytes);
    t.same(decodeEpoch(native.sha256, encodeEpoch(document)), document);
  }
  const document = epochDocument(native.sha256, { ...fields, parameters: { ...parameters, clientPoolPercent: 61 } });
  const default_ = encodeEpoch(document).map((byte) => (byte === 61 ? parameters.clientPoolPercent : byte));
  t.match(decodeEpoch(native.sha256, default_), { refused: 'field-out-of-range', field: 'parameters' });
});

// ---- the check and the doors --------------------------------------------------------------------------------------------

t.test('the checks of what clients see', async (t) => {
  let head = 0;
  const history = new Linearizability(() => head);
  const failsWith = (check: string, run: () => void) => {
    try {
      run();
      t.fail(`${check} does not notice`);
    } catch (error) {
      t.equal((error as CheckFailure).check, check);
    }
  };
  head = 3;
  const [a, b, c, d] = [history.begin(), history.begin(), history.begin(), history.begin()];
  history.answers(0, [{ id: a, height: asHeight(3) }], 3);
  history.answers(0, [{ id: d, refused: 'read-unconfirmed' }], 3);
  t.equal(history.answered, 1);
  failsWith('reads-linearizable', () => history.answers(0, [{ id: b, height: asHeight(2) }], 3));
  failsWith('reads-linearizable', () => history.answers(0, [{ id: c, height: asHeight(4) }], 3));
  failsWith('reads-linearizable', () => history.answers(0, [{ id: a, height: asHeight(3) }], 3));
  history.handedIn('x');
  history.acknowledged('x', 2);
  history.handedIn('y');
  history.handedIn('x');
  failsWith('writes-linearizable', () => history.acknowledged('y', 2));
  history.acknowledged('y', 3);
});

t.test('HTTP: a read point, or why there is none', async (t) => {
  const { replica, url } = await world(t);
  const ask = async () => {
    const response = await fetch(`${url}/v1/read-point`);
    const body = (await response.json()) as { height?: number; error?: { code: string } };
    return [response.status, body.height ?? body.error?.code, response.headers.get('retry-after')];
  };
  t.same(await ask(), [501, 'reads-unsupported', null]);
  replica.point = { height: asHeight(12) };
  t.same(await ask(), [200, 12, null]);
  for (const refused of ['reads-full', 'read-unconfirmed'] as const) {
    replica.point = { refused };
    t.same(await ask(), [503, refused, '1']);
  }
});

plantedBugsAreCaught(PLANTED_READS, 'raft');
