// `synod why` where members are trusted: the states of why.test.ts in every protocol of the family, in virtual time. The diagnosis must name
// the faults that were injected and no others, and nobody's disk is one of them.

import t from 'tap';
import { bearsLies, hasLeader, mainsOf, type Protocol, protocols } from '../protocol/modes.ts';
import type { Cluster } from '../sim/cluster.ts';
import { settingOf } from '../sim/setting.ts';
import * as why from './why-cluster.ts';
import { codesOf, give, network, order, own, T } from './why-cluster.ts';

t.setTimeout(200_000);

const family = protocols.filter((protocol) => !bearsLies(protocol));

/** A cluster that has ordered something, its client, and those whom clients talk to. */
function begin(protocol: Protocol, { n = 3, seed = 7 } = {}) {
  const { genesis } = settingOf(n, {}, { realSignatures: false, protocol });
  const mains: readonly number[] = mainsOf(genesis);
  const { cluster, client } = why.begin({ n, seed, protocol }, mains);
  cluster.run(2 * T);
  return { cluster, client, mains };
}

/** Everything that is said now: of all together, and of each alone. */
const said = (cluster: Cluster) => [
  ...network(cluster).causes.map(({ cause }) => cause),
  ...cluster.live().flatMap((id) => own(cluster, id).causes),
];

t.test('a healthy cluster has no cause, idle or under load, and each replica is ready', async (t) => {
  for (const protocol of family)
    for (const n of [3, 5]) {
      const { cluster, client, mains } = begin(protocol, { n });
      cluster.run(10 * T);
      for (let i = 0; i < 80; i++) {
        if (said(cluster).length > 0)
          return t.fail(`${protocol}, n = ${n}, ${i}: ${network(cluster).words} ${codesOf(said(cluster))}`);
        for (const id of cluster.live()) if (!own(cluster, id).ready) return t.fail(`${protocol}: node-${id}`);
        if (i % 20 === 19) cluster.run(4 * T); // and what comes after a pause is not late
        give(cluster, client, mains);
        cluster.run(7);
      }
      t.ok(cluster.height(0) > 5, `${protocol}, n = ${n}: ${cluster.height(0)}`);
    }
});

t.test('f + 1 are down, whoever is left: their names, how many are enough, and nobody’s disk', async (t) => {
  for (const protocol of family)
    for (const [n, down, need] of [
      [3, [1, 2], 1],
      [3, [0, 2], 1],
      [3, [0, 1], 1],
      [5, [0, 1, 2, 3], 2],
      [5, [2, 3, 4], 1],
    ] as const) {
      const { cluster, client } = begin(protocol, { n });
      for (const id of down) cluster.crash(id);
      give(cluster, client);
      for (const ms of [100, 1_000, 7_000, 20_000]) {
        cluster.run(ms);
        const { codes, state, action } = network(cluster);
        t.strictSame([codes, state], [[`no-quorum ${down}`], 'stopped'], `${protocol}, after ${ms} ms`);
        t.strictSame(action, { code: 'start', who: down, count: need });
        for (const id of cluster.live()) {
          const { state, causes, ready } = own(cluster, id);
          t.strictSame([state, ready, codesOf(causes)], ['cut-off', false, [`no-quorum ${down}`]], `node-${id} alone`);
        }
      }
      for (const id of down.slice(0, need)) cluster.boot(id);
      t.ok(
        cluster.until(() => network(cluster).state !== 'stopped', 20 * T),
        `${protocol}: the action helps`,
      );
    }
});

t.test('one is down: at no moment is anyone else named, and in the end it alone', async (t) => {
  for (const protocol of family)
    for (const [n, down] of [
      [3, 0],
      [3, 1],
      [3, 2],
      [5, 0],
      [5, 4],
    ] as const) {
      const { cluster, client, mains } = begin(protocol, { n });
      const others = mains.filter((id) => id !== down);
      cluster.crash(down);
      for (let at = 0; at < 8 * T; at += 37) {
        if (at % 5 === 0) give(cluster, client, others);
        cluster.run(37);
        for (const { code, who } of said(cluster))
          if (code !== 'catching-up' && who.some((id) => id !== down))
            return t.fail(`${protocol}, ${down} of ${n}, ${at}: ${network(cluster).words} ${codesOf(said(cluster))}`);
      }
      t.strictSame(network(cluster).codes, [`member-away ${down}`], protocol);
      t.ok(order(cluster, client, others, 4 * T));
      for (const id of cluster.live()) t.equal(own(cluster, id).ready, true, `${protocol}: node-${id}`);
    }
});

t.test('the leader is cut off: it, and nobody else', async (t) => {
  for (const protocol of family) {
    const { cluster, client, mains } = begin(protocol);
    const { primary } = cluster;
    const others = cluster.live().filter((id) => id !== primary);
    cluster.partition = [[primary], others];
    give(cluster, client, mains);
    cluster.run(6 * T);
    t.ok(
      order(
        cluster,
        client,
        mains.filter((id) => id !== primary),
        4 * T,
      ),
      `${protocol}: the others go on`,
    );
    for (const ms of [10, 4 * T]) {
      cluster.run(ms);
      const { codes, action, differing, words } = network(cluster);
      t.strictSame(codes, [`cut-off ${primary}`], protocol);
      t.match(words[0], /^node-0 runs and does not hear a quorum for [\d.]+ s; the others do, 2 of 3$/);
      t.strictSame(action, { code: 'connect', who: [primary], count: 1 });
      t.strictSame(differing, [primary]);
      t.strictSame(codesOf(own(cluster, primary).causes), [`no-quorum ${others}`], 'as it sees it');
      t.strictSame(codesOf(own(cluster, others[0]!).causes), [`member-away ${primary}`]);
    }
  }
});

const elect = family.filter((protocol) => hasLeader({ protocol }));

t.test('one link to the leader is down: that link; who lacks its leader names nobody else, and no disk', async (t) => {
  for (const protocol of elect) {
    const { cluster } = begin(protocol);
    const { primary } = cluster;
    cluster.partition = [
      [0, 1],
      [1, 2],
    ];
    t.ok(
      cluster.until(() => own(cluster, 2).causes.some(({ who }) => who.length > 0), 3 * T),
      `${protocol}: ${network(cluster).words}`,
    );
    t.equal(primary, 0);
    const { words, action } = own(cluster, 2);
    t.match(
      words[0],
      /^node-2 hears no leader for [\d.]+ s, and others do: 1 of 3 replicas says so, 2 must for another/,
    );
    t.strictSame(action, { code: 'connect', who: [2], count: 1 });
    cluster.run(4 * T);
    t.strictSame(network(cluster).codes, ['link-down 0,2'], protocol);
  }
});

t.test('an election that is not answered: who runs, with how many votes, and who has not given his', async (t) => {
  for (const protocol of elect) {
    const { cluster } = begin(protocol);
    cluster.tamper = (_from, _to, message) => (['promise', 'vote'].includes(message.kind) ? null : message);
    cluster.crash(0);
    const isHeldUp = (id: number) => own(cluster, id).causes.some(({ who }) => who.some((blamed) => blamed === 2));
    t.ok(cluster.until(() => isHeldUp(1), 8 * T));
    const { words, causes, action } = own(cluster, 1);
    const votes = protocol === 'raft' ? 'votes' : 'promises';
    const pattern = new RegExp(
      `^no leader is elected: node-1 runs in view \\d+ and has 1 of 3 ${votes} for \\d+ ms, 2 are needed; node-2 answers and has not (promised|voted)$`,
    );
    t.match(words[0], pattern);
    t.strictSame(codesOf(causes), ['view-change 2', 'member-away 0'], protocol);
    t.strictSame(action, { code: 'look', who: [2], count: 1 });
    t.equal(network(cluster).state, 'view-change');
    t.strictSame(network(cluster).codes, ['member-away 0', 'view-change 2']);
    t.match(
      own(cluster, 2).words[0],
      /^no leader is heard for [\d.]+ m?s: 2 of 3 replicas say so, enough for one of them to run$/,
    );
    t.equal(own(cluster, 2).ready, false);
  }
});

t.test('a disk that is slow in an election is named, by who has it, and nobody else is', async (t) => {
  for (const protocol of elect) {
    const { cluster } = begin(protocol);
    cluster.slowMs = (id) => (id === 1 ? 60_000 : 0);
    cluster.crash(0);
    t.ok(
      cluster.until(() => own(cluster, 1).causes.some(({ code }) => code === 'disk-slow'), 8 * T),
      protocol,
    );
    t.match(own(cluster, 1).causes[0], { code: 'disk-slow', who: [1] });
    for (let at = 0; at < 8 * T; at += 37) {
      cluster.run(37);
      for (const { cause } of network(cluster).causes)
        if (!['disk-slow 1', 'member-away 0', 'view-change '].includes(`${cause.code} ${cause.who}`))
          return t.fail(`${protocol}, ${at}: ${network(cluster).words}`);
    }
    t.strictSame(network(cluster).codes.slice(0, 2), ['member-away 0', 'disk-slow 1']);
  }
});
