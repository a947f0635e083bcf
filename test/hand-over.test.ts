// A leader gives its place away: nobody waits until its silence is noticed, nothing that was asked for is lost, and a successor that is behind is not told to lead. In
// virtual time; test/hand-over-e2e.test.ts restarts the replicas of real networks one after the other.

import t from 'tap';
import { native } from '../crypto/native.ts';
import { mainsOf, membersMin, type Protocol } from '../protocol/modes.ts';
import { decodeStep, encodeStep } from '../protocol/recording.ts';
import { asMillis } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { text } from './cluster-world.ts';
import { plantedBugsAreCaught } from './family-lives.ts';
import { goesOnLeading, PLANTED_HAND_OVER, waitsForNobody } from './planted-hand-over.ts';

t.setTimeout(0);

const T = 500;
const LED = ['pbft', 'raft', 'multi-paxos', 'cheap-paxos', 'fast-paxos'] as const satisfies readonly Protocol[];

/** A cluster whose leader has ordered something, and is known to all. */
function begin(protocol: Protocol, n = membersMin(protocol)) {
  const cluster = new Cluster({ seed: 7, n, protocol });
  cluster.run(3 * T);
  const mains = mainsOf(cluster.genesis).map(Number);
  const client = new SimClient(cluster.genesis, 'alice');
  const leader = cluster.primary;
  const first = client.bundle([text('first')]);
  cluster.submit(leader, first);
  cluster.until(() => mains.every((id) => cluster.has(id, first)), 4 * T);
  cluster.run(T);
  return { cluster, client, leader, mains };
}

const handOver = (cluster: Cluster, id: number) => cluster.nodes[id]!.input({ type: 'hand-over' });
const started = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started');
const leads = (cluster: Cluster, id: number) => {
  const explained = cluster.nodes[id]!.core!.explain();
  return Number(explained.primary) === id && explained.phase !== 'view-change';
};

for (const protocol of LED)
  for (const n of [membersMin(protocol), membersMin(protocol) + 2])
    t.test(`CFT-H-1 CFT-H-2 CFT-H-3 STALL-6: ${protocol}, ${n} replicas, no silence to be noticed`, async (t) => {
      const { cluster, client, leader, mains } = begin(protocol, n);
      const before = started(cluster).length;
      const others = mains.filter((id) => id !== leader);
      const sent = Array.from({ length: 8 }, (_, i) => {
        const bundle = new SimClient(cluster.genesis, `c${i}`).bundle([text(`${i}`)]);
        cluster.submit(i % 2 === 0 ? leader : others[0]!, bundle);
        if (i === 3) handOver(cluster, leader);
        cluster.run(3);
        return bundle;
      });
      const all = () => sent.every((bundle) => mains.every((id) => cluster.has(id, bundle)));
      t.ok(cluster.until(all, T / 2), 'what was asked for meanwhile is ordered, and nobody waits for a timeout');
      const successor = cluster.primary;
      t.not(successor, leader);
      t.ok(leads(cluster, successor));
      t.notOk(leads(cluster, leader));
      const runs = started(cluster).slice(before);
      // In PBFT a view is asked for by all of them; elsewhere one runs.
      if (protocol === 'pbft') t.ok(runs.every(({ detail }) => detail.includes('"view":1')));
      else
        t.same(
          runs.map(({ at, detail }) => [Number(at), JSON.parse(detail).reason]),
          [[successor, 'the leader hands over']],
        );
      // It is taken away, as it was to be.
      cluster.crash(leader);
      const last = client.bundle([text('last')]);
      cluster.submit(others[0]!, last);
      t.ok(cluster.until(() => others.every((id) => cluster.has(id, last)), T / 2));
    });

t.test('CFT-H-1: who leads not, or has nobody to give its place to, changes nothing', async (t) => {
  for (const protocol of [...LED, 'basic-paxos'] as const) {
    const { cluster, client, leader, mains } = begin(protocol);
    const before = started(cluster).length;
    for (const { id } of cluster.nodes) if (id !== leader || protocol === 'basic-paxos') handOver(cluster, id);
    cluster.run(2 * T);
    if (protocol !== 'basic-paxos') t.equal(started(cluster).length, before, protocol);
    const bundle = client.bundle([text('after')]);
    cluster.submit(leader, bundle);
    t.ok(
      cluster.until(() => mains.every((id) => cluster.has(id, bundle)), 4 * T),
      protocol,
    );
    // The others are all away, and were heard of late no more.
    for (const { id } of cluster.nodes) if (id !== leader) cluster.crash(id);
    cluster.run(4 * T);
    const then = started(cluster).length;
    handOver(cluster, leader);
    cluster.run(T);
    t.notOk(
      cluster.events.some(({ type, at }) => type === 'handing-over' && at === leader),
      protocol,
    );
    t.ok(started(cluster).length >= then);
  }
});

/** The successor hears nothing that is proposed any more; whether the leader gives up in time, and is not unseated. */
function behind(protocol: 'raft' | 'multi-paxos'): boolean {
  const { cluster, client, leader } = begin(protocol);
  const before = started(cluster).length;
  const successor = (leader + 1) % 3;
  // In Multi-Paxos nobody else: what anybody had accepted would be chosen.
  cluster.tamper = (_from, to, message) => {
    if (message.kind === 'accept') return null;
    return message.kind === 'append-entries' && message.entry !== null && to === successor ? null : message;
  };
  cluster.submit(leader, client.bundle([text('open')]));
  cluster.run(50);
  handOver(cluster, leader);
  cluster.run(T / 2);
  const waiting = new SimClient(cluster.genesis, 'bob').bundle([text('meanwhile')]);
  cluster.submit(leader, waiting);
  cluster.run(T / 2 + 100);
  const stays = leads(cluster, leader) && started(cluster).length === before;
  cluster.tamper = null;
  return stays && cluster.until(() => cluster.has(successor, waiting), 2 * T) && leads(cluster, leader);
}

t.test(
  'CFT-H-2 RAFT-E-6 PXS-M-6: a successor that is behind is not told to lead, and the leader goes on after T',
  async (t) => {
    for (const protocol of ['raft', 'multi-paxos'] as const) {
      t.ok(behind(protocol), protocol);
      const takeOut = waitsForNobody();
      t.notOk(behind(protocol), `${protocol}, where the rule is taken out`);
      takeOut();
    }
  },
);

t.test('CFT-H-2: with its word to the successor a leader leads no more', async (t) => {
  const play = (protocol: Protocol) => {
    const { cluster, leader } = begin(protocol, 5);
    handOver(cluster, leader);
    cluster.run(T / 2);
    return !leads(cluster, leader) && leads(cluster, cluster.primary);
  };
  for (const protocol of ['raft', 'multi-paxos'] as const) {
    t.ok(play(protocol), protocol);
    const takeOut = goesOnLeading();
    t.notOk(play(protocol), `${protocol}: nobody answers the successor of a leader that all hear`);
    takeOut();
  }
});

t.test('CFT-H-3: a word to run that is lost, late or of another ballot', async (t) => {
  for (const protocol of ['raft', 'multi-paxos', 'fast-paxos'] as const) {
    const { cluster, client, leader } = begin(protocol);
    cluster.tamper = (_from, _to, message) =>
      message.kind === 'timeout-now' || message.kind === 'take-over' ? null : message;
    handOver(cluster, leader);
    const bundle = client.bundle([text('lost')]);
    cluster.submit((leader + 1) % 3, bundle);
    t.ok(
      cluster.until(() => cluster.live().every((id) => cluster.has(id, bundle)), T),
      'an election, without the silence before it',
    );
    cluster.tamper = null;
    cluster.run(T);
    const [now, before] = [cluster.primary, started(cluster).length];
    const other = [0, 1, 2].find((id) => id !== now)!;
    const { epoch } = cluster.nodes[now]!.epoch;
    for (const number of [1, 2, 3, 999] as const) {
      const view = number as never; // any number
      if (protocol === 'raft') cluster.inject(now, other, { kind: 'timeout-now', epoch, term: view });
    }
    // Of one that leads not.
    const third = [0, 1, 2].find((id) => id !== now && id !== other)!;
    const { view } = cluster.nodes[now]!.core!.explain();
    if (protocol !== 'raft') cluster.inject(third, other, { kind: 'take-over', epoch, ballot: view });
    cluster.run(T);
    if (protocol !== 'raft') t.equal(started(cluster).length, before);
    t.ok(started(cluster).length <= before + 1, 'at most the term that is the running one');
  }
});

t.test('FLR-2: it is recorded like every input', async (t) => {
  const { cluster } = begin('raft');
  const [step, ...large] = encodeStep({ now: asMillis(7), inputs: [{ type: 'hand-over' }] });
  t.same(large, []);
  const { genesis } = cluster;
  t.same(decodeStep(step!, { sha256: native.sha256, parameters: genesis.parameters }), {
    now: 7,
    inputs: [{ type: 'hand-over' }],
  });
});

plantedBugsAreCaught(PLANTED_HAND_OVER, 'raft');
