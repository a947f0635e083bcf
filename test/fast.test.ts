// Fast Paxos: quorums, what binds after a fast round, collisions, the delay that is saved; lives from seeds, and planted bugs.

import t from 'tap';
import { native } from '../crypto/native.ts';
import type { Protocol } from '../protocol/modes.ts';
import { FastPaxos } from '../protocol/paxos/fast.ts';
import type { Bound, Report } from '../protocol/paxos/proposer.ts';
import { crashQuorums, fastQuorum } from '../protocol/quorum.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { settingOf } from '../sim/setting.ts';
import { livesFromSeeds, plantedBugsAreCaught } from './family-lives.ts';
import { PLANTED_FAST } from './planted-fast.ts';

t.setTimeout(0);

const T = 500;
const protocol = 'fast-paxos' as const;

function begin({ n = 3, seed = 1, of = protocol as Protocol } = {}) {
  const cluster = new Cluster({ n, seed, protocol: of });
  cluster.run(3 * T);
  return { cluster, client: new SimClient(cluster.genesis, 'alice') };
}

t.test('FST-Q-1: two fast quorums and a majority share a replica, for any n', async (t) => {
  t.same([3, 4, 5, 6, 7, 8, 9].map(fastQuorum), [3, 3, 4, 5, 6, 6, 7]);
  for (let n = 3; n <= 128; n++) t.ok(2 * fastQuorum(n) + crashQuorums(n).quorum > 2 * n, `n = ${n}`);
});

t.test('FST-P-1: what binds after a fast round is what a fast quorum may have accepted', async (t) => {
  const { genesis } = settingOf(5, {}, { realSignatures: false, protocol });
  const options = { genesis, epoch: asEpoch(0), self: asReplicaId(0), sha256: native.sha256 };
  const core = new FastPaxos(options, { log: null, guard: { view: asView(0), led: null, lock: null } }, asMillis(0));
  // The method is for subclasses; it is the rule itself.
  const { pick } = core as unknown as { pick(reports: readonly Report[], asked: number): Bound };
  const hashOf = (name: number) => asHash(new Uint8Array(32).fill(name));
  const bound = (asked: number, ...reports: (readonly [by: number, round: number, name: number])[]) =>
    pick.call(
      core,
      reports.map(([by, round, name]) => ({
        slot: asHeight(1),
        by: asReplicaId(by),
        ballot: asView(round),
        hash: hashOf(name),
      })),
      asked,
    ).hash[0];
  // Five acceptors: four are a fast quorum, so of three that were asked two may be in one with the two that were not.
  t.equal(bound(3, [0, 8, 1], [1, 8, 2], [2, 8, 2]), 2);
  t.equal(bound(3, [0, 8, 2], [1, 8, 1], [2, 8, 2]), 2, 'whoever says it');
  t.equal(bound(4, [0, 8, 1], [1, 8, 2], [2, 8, 2], [3, 8, 2]), 2, 'of four three may');
  t.equal(bound(4, [0, 8, 1], [1, 8, 1], [2, 8, 2], [3, 8, 2]), 1, 'and of two and two nothing was chosen');
  t.equal(bound(3, [0, 9, 1], [1, 8, 2], [2, 8, 2]), 1, 'a classic round is above the fast one of its ballot');
  t.equal(bound(3, [0, 9, 1], [1, 10, 2]), 2, 'and below the next ballot');
});

/** One way of a message takes 100 ms and a write 1: how many ways until the replica at which the client is has decided. */
function ways(of: Protocol, n: number): number {
  const { cluster, client } = begin({ of, n });
  cluster.run(4 * T);
  cluster.faults = { delayMs: [100, 100], loss: 0, repeat: 0, writeMs: [1, 1], inOrder: true };
  cluster.run(4 * T);
  const at = (cluster.primary + 1) % n;
  const bundle = client.bundle([Buffer.from('how long')]);
  const since = cluster.now;
  cluster.submit(at, bundle);
  if (!cluster.until(() => cluster.has(at, bundle), 4 * T)) return Number.NaN;
  return Math.floor((cluster.now - since) / 100);
}

t.test('FST-A-1 FST-A-2: from another replica than the leader it takes one message delay less', async (t) => {
  t.same([ways('fast-paxos', 5), ways('multi-paxos', 5)], [2, 3], 'to the acceptors and back; and first to the leader');
  // Of three the leader and the replica itself are a majority, and the leader's acceptance comes with its proposal.
  t.same([ways('fast-paxos', 3), ways('multi-paxos', 3)], [2, 2], 'of three nothing is saved');
});

t.test('FST-C-1: values that meet in one slot are settled, and all of them ordered', async (t) => {
  for (const n of [3, 4, 5]) {
    const { cluster } = begin({ n });
    let recovered = 0;
    cluster.tamper = (_from, _to, message) => {
      if (message.kind === 'accept') recovered += 1;
      return message;
    };
    const clients = cluster.nodes.map(({ id }) => new SimClient(cluster.genesis, `client-${id}`));
    const bundles = clients.map((client) => client.bundle([Buffer.from('at once')]));
    for (const [id, bundle] of bundles.entries()) cluster.submit(id, bundle);
    t.ok(
      cluster.until(() => bundles.every((bundle) => cluster.live().every((id) => cluster.has(id, bundle))), 4 * T),
      `${n} at once`,
    );
    t.ok(recovered > 0, 'by the leader of the ballot');
  }
});

t.test(
  'FST-C-2: under collisions, and without a fast quorum, the leader orders by itself, and opens a ballot again',
  async (t) => {
    const { cluster } = begin({ n: 3, seed: 3 });
    const fast: number[] = [];
    const opened: number[] = [];
    cluster.tamper = (_from, _to, message) => {
      if (message.kind === 'fast-accept') fast.push(cluster.now);
      if (message.kind === 'open-round') opened.push(message.ballot);
      return message;
    };
    const clients = cluster.nodes.map(({ id }) => new SimClient(cluster.genesis, `client-${id}`));
    for (let round = 0; round < 30; round++) {
      const bundles = clients.map((client) => client.bundle([Buffer.from(`${round}`)]));
      for (const [id, bundle] of bundles.entries()) cluster.submit(id, bundle);
      if (!cluster.until(() => bundles.every((bundle) => cluster.has(0, bundle)), 8 * T)) return t.fail('stuck');
    }
    t.ok(cluster.events.some(({ detail }) => detail.includes('collide too often')));
    cluster.run(70 * T);
    t.ok(new Set(opened).size > 1, 'a later ballot was opened');
    const before = fast.length;
    const last = clients[1]!.bundle([Buffer.from('quiet')]);
    cluster.submit(1, last);
    t.ok(cluster.until(() => cluster.has(1, last), 2 * T));
    t.ok(fast.length > before, 'and values go straight again');
    // Of three all three are a fast quorum: with one gone everything goes on in classic rounds.
    cluster.crash((cluster.primary + 1) % 3);
    const [first, other] = cluster.live();
    for (let i = 0; i < 5; i++) {
      const bundle = clients[0]!.bundle([Buffer.from(`with two ${i}`)]);
      for (const id of [first!, other!]) cluster.submit(id, bundle);
      t.ok(cluster.until(() => cluster.has(first!, bundle) && cluster.has(other!, bundle), 8 * T));
    }
    t.ok(
      cluster.events.some(({ detail }) => detail.includes('too few answer') || detail.includes('nothing is chosen')),
    );
  },
);

t.test('A30: a collision, and the leader crashes before it is settled', async (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    const { cluster } = begin({ n: 5, seed });
    const clients = cluster.nodes.map(({ id }) => new SimClient(cluster.genesis, `client-${id}`));
    const bundles = clients.map((client) => client.bundle([Buffer.from('at once')]));
    for (const [id, bundle] of bundles.entries()) cluster.submit(id, bundle);
    const leader = cluster.primary;
    cluster.run(2 + (seed % 8));
    cluster.crash(leader);
    cluster.run(2 * T);
    for (const [id, bundle] of bundles.entries()) if (id !== leader) cluster.submit(id, bundle);
    t.ok(
      cluster.until(
        () => bundles.every((bundle, of) => of === leader || cluster.live().every((id) => cluster.has(id, bundle))),
        20 * T,
      ),
      `seed ${seed}`,
    );
  }
});

livesFromSeeds(protocol);
plantedBugsAreCaught(PLANTED_FAST, protocol);
