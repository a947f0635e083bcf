// Cheap Paxos: who counts, what an auxiliary is told and keeps, and what becomes of a main that fails and comes back; lives from seeds, and planted bugs.

import t from 'tap';
import { encodePayload } from '../protocol/codec.ts';
import type { PaxosPromise, ReplicaMessage, WorkingSet } from '../protocol/messages.ts';
import { checkpointQuorum, mainsOf } from '../protocol/modes.ts';
import { decodeHardState, encodeHardState } from '../protocol/paxos/hard-state.ts';
import { asEpoch, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import { CheckFailure } from '../sim/checks.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { live } from '../sim/life.ts';
import { SimReplica } from '../sim/replica.ts';
import { settingOf } from '../sim/setting.ts';
import { livesFromSeeds, plantedBugsAreCaught } from './family-lives.ts';
import { answersWithNoMain, PLANTED_CHEAP } from './planted-cheap.ts';
import { newTally, twinned } from './twin.ts';
import { codesOf, network, own } from './why-cluster.ts';

t.setTimeout(0);

const T = 500;
const protocol = 'cheap-paxos' as const;

function begin({ n = 3, seed = 1, Replica = SimReplica } = {}) {
  const cluster = new Cluster({ n, seed, protocol, parameters: { checkpointInterval: 16 }, Replica });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(3 * T);
  return { cluster, client, mains: mainsOf(cluster.genesis) as readonly number[] };
}

/** A bundle more; true when these mains have decided it in time. */
function orders(cluster: Cluster, client: SimClient, ids: readonly number[], ms = 4 * T): boolean {
  const bundle = client.bundle([Buffer.from(`at ${cluster.now}`)]);
  for (const id of ids) cluster.submit(id, bundle);
  return cluster.until(() => ids.every((id) => cluster.has(id, bundle)), ms);
}

/** The latest working set that a replica has on its disk. */
const workingOf = (cluster: Cluster, id: number): WorkingSet | null => {
  const { hardState } = cluster.nodes[id]!.disk;
  return hardState === null ? null : (decodeHardState(hardState)?.working ?? null);
};

/** What each replica is sent from now on, statuses left out. */
function listen(cluster: Cluster): Map<number, ReplicaMessage[]> {
  const heard = new Map<number, ReplicaMessage[]>(cluster.nodes.map(({ id }) => [id, []]));
  cluster.tamper = (_, to, message) => {
    if (message.kind !== 'status') heard.get(to)!.push(message);
    return message;
  };
  return heard;
}

t.test('CHP-1: the first f+1 members are mains, and while they are well nobody else is told anything', async (t) => {
  for (const [n, count] of [
    [3, 2],
    [4, 3],
    [5, 3],
    [7, 4],
  ] as const)
    t.equal(mainsOf(settingOf(n, {}, { realSignatures: false, protocol }).genesis).length, count);
  for (const n of [3, 5]) {
    const { cluster, client, mains } = begin({ n });
    t.ok(orders(cluster, client, mains));
    cluster.run(T);
    const heard = listen(cluster);
    for (let i = 0; i < 40; i++) t.ok(orders(cluster, client, mains));
    cluster.run(10 * T);
    for (const { id } of cluster.nodes) {
      const messages = heard.get(id)!;
      const bytes = messages.reduce((sum, message) => sum + encodePayload(message).length, 0);
      if (mains.includes(id)) t.ok(messages.length > 40, `main ${id} heard ${messages.length}`);
      else
        t.same(
          [messages.length, bytes],
          [0, 0],
          `n = ${n}, auxiliary ${id}: zero messages and zero bytes but keep-alives`,
        );
    }
    // Checkpoints are signed and stable all the same, and an auxiliary takes no bundle.
    t.ok(cluster.nodes[0]!.core!.explain().stable >= 32, 'CHP-7');
    const late = client.bundle([Buffer.from('to an auxiliary')]);
    cluster.submit(n - 1, late);
    cluster.run(4 * T);
    t.notOk(cluster.has(0, late));
    t.equal(cluster.nodes[n - 1]!.core!.pooled(late.digest), undefined);
    t.same(checkpointQuorum({ protocol }, 3), 1);
  }
});

t.test(
  'CHP-3 CHP-5 CHP-6: a main fails, the auxiliaries complete what is open and go idle; the main returns',
  async (t) => {
    for (const n of [3, 5]) {
      const { cluster, client, mains } = begin({ n });
      for (let i = 0; i < 5; i++) t.ok(orders(cluster, client, mains));
      const leader = cluster.primary;
      const failed = mains.find((id) => id !== leader)!;
      const others = mains.filter((id) => id !== failed);
      // Something is open as it fails: the leader has it, and the failed one's acceptance never comes.
      const open = client.bundle([Buffer.from('open')]);
      cluster.crash(failed);
      const heard = listen(cluster);
      cluster.submit(leader, open);
      t.ok(
        cluster.until(() => cluster.has(leader, open), 6 * T),
        'what is open is completed',
      );
      t.ok(
        heard.get(n - 1)!.some(({ kind }) => kind === 'paxos-prepare'),
        'by the auxiliaries',
      );
      t.ok(orders(cluster, client, others));
      t.same(workingOf(cluster, leader)?.members, others, 'the failed one is dropped');
      t.ok((workingOf(cluster, n - 1)?.floor ?? 0) > 0);
      const { disk } = cluster.nodes[n - 1]!;
      t.same([disk.blockCount, disk.accepted.size, disk.head], [0, 0, 0], 'an auxiliary keeps nothing');
      const quiet = listen(cluster);
      for (let i = 0; i < 30; i++) t.ok(orders(cluster, client, others));
      for (let id = mains.length; id < n; id++) t.same(quiet.get(id), [], 'the auxiliaries are idle again');
      cluster.boot(failed);
      t.ok(
        cluster.until(() => workingOf(cluster, leader)?.members.length === mains.length, 40 * T),
        'the returned main is taken back',
      );
      t.ok(orders(cluster, client, mains));
      t.equal(cluster.height(failed), cluster.height(leader));
    }
  },
);

t.test('CHP-5: f mains fail one after the other, the leader among them, and the last one goes on', async (t) => {
  const { cluster, client, mains } = begin({ n: 5 });
  for (const rest of [mains.slice(1), mains.slice(2)]) {
    cluster.crash(rest[0]! - 1);
    t.ok(orders(cluster, client, rest, 20 * T), `mains ${rest.join(', ')}`);
  }
  t.same(workingOf(cluster, mains[2]!)?.members, [mains[2]]);
  cluster.run(2 * T);
  const heard = listen(cluster);
  for (let i = 0; i < 20; i++) t.ok(orders(cluster, client, [mains[2]!]), 'alone');
  t.same([heard.get(3), heard.get(4)], [[], []], 'and the auxiliaries are told nothing');
});

t.test('CHP-5: a main whose disk never ends a write is dropped, though it is heard', async (t) => {
  const { cluster, client, mains } = begin();
  const leader = cluster.primary;
  const slow = mains.find((id) => id !== leader)!;
  cluster.slowMs = (id) => (id === slow ? 60_000 : 0);
  t.ok(orders(cluster, client, [leader], 10 * T));
  cluster.run(T);
  t.same(workingOf(cluster, leader)?.members, [leader]);
});

/** The one main that is left chooses, and crashes as the one that was dropped returns. */
function leftAlone(Replica = SimReplica) {
  const { cluster, client, mains } = begin({ Replica });
  const left = cluster.primary;
  const dropped = mains.find((id) => id !== left)!;
  cluster.crash(dropped);
  orders(cluster, client, [left], 10 * T);
  cluster.run(2 * T);
  orders(cluster, client, [left]);
  const height = cluster.height(left);
  cluster.crash(left);
  cluster.boot(dropped);
  cluster.submit(dropped, new SimClient(cluster.genesis, 'bob').bundle([Buffer.from('another')]));
  return { cluster, left, dropped, height };
}

t.test('CHP-2: without a member of the latest working set nobody leads: only it knows what was chosen', async (t) => {
  const { cluster, left, dropped, height } = leftAlone();
  t.ok(height >= 2);
  cluster.run(40 * T);
  t.equal(cluster.height(dropped), 0, 'a majority is up, and decides nothing');
  cluster.boot(left);
  t.ok(
    cluster.until(() => cluster.height(dropped) > height && cluster.height(left) > height, 60 * T),
    'until the one that was left is back',
  );
  // The same with the rule taken out: auxiliaries answer with no main of the set, and what was chosen is chosen again.
  const restore = answersWithNoMain();
  try {
    t.throws(() => leftAlone().cluster.run(40 * T), CheckFailure, 'two blocks at one height');
  } finally {
    restore();
  }
});

t.test(
  'CHP-2: why says that nothing can be ordered without it, and what to start; auxiliaries are left out',
  async (t) => {
    const tally = newTally();
    const { cluster, left, dropped } = leftAlone(twinned(tally, { seed: 1, every: 20 }));
    const isTold = () => own(cluster, dropped).causes[0]?.code === 'working-set';
    t.ok(cluster.until(isTold, 20 * T));
    const words =
      /^nothing can be ordered for [\d.]+ m?s until node-0 is back: only the latest working set knows what was chosen$/;
    const start = { code: 'start', who: [left], count: 1 };
    t.equal(left, 0);
    // It runs again and again, and says the same all the time.
    for (let at = 0; at < 40 * T; at += 37) {
      cluster.run(37);
      const { codes, state, action, words: said } = network(cluster);
      if (codes.length !== 1 || codes[0] !== 'working-set 0') return t.fail(`after ${at} ms: ${said}`);
      if (!words.test(said[0]!) || state !== 'stopped') return t.fail(`after ${at} ms: ${state}, ${said}`);
      t.strictSame(action, start);
      const { causes, action: ownAction, ready, words: ownWords } = own(cluster, dropped);
      t.strictSame([codesOf(causes), ownAction, ready], [['working-set 0'], start, false], `after ${at} ms`);
      t.match(ownWords[0], words);
      // An auxiliary hears no leader, and runs for nothing itself.
      const auxiliary = own(cluster, 2);
      t.strictSame(codesOf(auxiliary.causes), ['view-change ', 'member-away 0']);
      t.match(
        auxiliary.words[0],
        /^no leader is heard for [\d.]+ m?s: 2 of 3 replicas say so, enough for one of them to run$/,
      );
    }
    cluster.boot(left);
    const isBlamed = () => network(cluster).action?.code === 'look';
    const isWell = () =>
      [network(cluster), ...cluster.live().map((id) => own(cluster, id))].every(({ causes }) => causes.length === 0);
    t.ok(
      cluster.until(() => isWell() || isBlamed(), 60 * T),
      'the action is enough',
    );
    t.notOk(isBlamed(), 'and nobody is blamed meanwhile');
    t.ok(tally.moved.has('own.lacks'), 'FLR-1: a snapshot has it');
  },
);

t.test('CHP-2: a member of the latest working set that answers and does not promise is to be looked at', async (t) => {
  const { cluster, left, dropped } = leftAlone();
  cluster.tamper = (from, _to, message) =>
    from === left && ['promise', 'paxos-prepare'].includes(message.kind) ? null : message;
  cluster.boot(left);
  t.ok(
    cluster.until(() => own(cluster, dropped).action?.code === 'look', 40 * T),
    `${network(cluster).words}`,
  );
  const { words, action } = own(cluster, dropped);
  t.match(words[0], /until node-0 promises: .*; node-0 answers and has not promised$/);
  t.strictSame(action, { code: 'look', who: [left], count: 1 });
});

t.test('CHP-4: above the floor of its ballot all of a working set must accept', async (t) => {
  const { cluster, client, mains } = begin({ n: 5 });
  t.ok(orders(cluster, client, mains));
  const leader = cluster.primary;
  const [a, b] = mains.filter((id) => id !== leader);
  // Two of three mains accept: that is no majority of five, and not the whole set.
  cluster.setWeather(b!, leader, {
    cut: true,
    clogged: false,
    loss: 0,
    repeat: 0,
    corrupt: 0,
    delayMs: 0,
    reorder: false,
  });
  cluster.setWeather(b!, a!, { cut: true, clogged: false, loss: 0, repeat: 0, corrupt: 0, delayMs: 0, reorder: false });
  const bundle = client.bundle([Buffer.from('two of three')]);
  cluster.submit(leader, bundle);
  cluster.run(T / 2);
  t.notOk(cluster.has(leader, bundle));
  t.ok(
    cluster.until(() => cluster.has(leader, bundle), 8 * T),
    'it is dropped, then',
  );
});

t.test('CHP-3: a working set is as durable as a promise, and an acceptor says what it has noted', async (t) => {
  const working: WorkingSet = { ballot: asView(7), floor: asHeight(40), members: [asReplicaId(0), asReplicaId(2)] };
  t.same(decodeHardState(encodeHardState({ epoch: asEpoch(3), promised: asView(9), working })), {
    epoch: 3,
    promised: 9,
    working,
  });
  t.equal(
    decodeHardState(encodeHardState({ epoch: asEpoch(3), promised: asView(9), working }).subarray(0, 20)),
    undefined,
  );
  // Every process ends at every point of every write, and the set that is in force is still known to a majority.
  const { cluster, client, mains } = begin({ seed: 5 });
  const promises: PaxosPromise[] = [];
  cluster.tamper = (_from, _to, message) => {
    if (message.kind === 'promise') promises.push(message);
    return message;
  };
  let struck = 0;
  cluster.strikes = ({ id }, point) => {
    if (struck >= 12 || cluster.dice.next() > 0.02) return false;
    struck += 1;
    cluster.crash(id, { log: point === 'log-written' ? 'kept' : 'lost', guard: 'lost' });
    cluster.after(T, () => cluster.boot(id));
    return true;
  };
  for (let i = 0; i < 60; i++) {
    const bundle = client.bundle([Buffer.from(`${i}`)], { validUntil: 900 });
    const ordered = () => cluster.has(mains[0]!, bundle) || cluster.has(mains[1]!, bundle);
    for (let tries = 0; tries < 40 && !ordered(); tries++) {
      for (const id of mains) if (cluster.nodes[id]!.core !== null) cluster.submit(id, bundle);
      cluster.until(ordered, 4 * T);
    }
    if (!ordered()) return t.fail(`bundle ${i} was not ordered`);
  }
  t.equal(struck, 12);
  t.ok(promises.some((promise) => promise.working !== null && promise.decided >= promise.working.floor));
});

t.test(
  'CHP-6: an auxiliary that has followed its epoch, being away for the change, begins to vote in it',
  async (t) => {
    const { failure } = live({
      seed: 33,
      n: null,
      ms: 30_000,
      realSignatures: null,
      protocol,
      changes: true,
      only: [8, 24],
    });
    t.equal(failure, null, failure?.message ?? '');
  },
);

livesFromSeeds(protocol);
plantedBugsAreCaught(PLANTED_CHEAP, protocol);
