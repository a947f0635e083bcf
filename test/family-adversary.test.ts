// The adversary's book where members are trusted: rows A28 to A31 of docs/adversary.md, and the examples of the papers, on whole clusters in virtual time. What a rule is there
// for is played a second time with the rule taken out, and must fail then.

import t, { type Test } from 'tap';
import { toHex } from '../crypto/bytes.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { mainsOf, type Protocol } from '../protocol/modes.ts';
import { asEpoch, asHeight, asView } from '../protocol/types.ts';
import { CheckFailure } from '../sim/checks.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, type ClusterOptions } from '../sim/cluster.ts';
import { Operators } from '../sim/operators.ts';
import type { CrashPoint } from '../sim/replica.ts';
import { boundsOf, msUntil, text } from './cluster-world.ts';
import type { PlantedBug } from './planted.ts';
import { SpeaksTooSoon } from './planted.ts';
import { PLANTED_FAST } from './planted-fast.ts';
import { PLANTED_PAXOS } from './planted-paxos.ts';
import { anyTermCounts } from './planted-raft.ts';

t.setTimeout(0);

const T = 500;
const ELECTED = ['raft', 'multi-paxos', 'fast-paxos'] as const satisfies readonly Protocol[];

function begin(protocol: Protocol, options: ClusterOptions = {}) {
  const cluster = new Cluster({ seed: 7, n: 5, protocol, ...options });
  cluster.run(3 * T);
  const client = new SimClient(cluster.genesis, 'alice');
  const first = client.bundle([text('first')]);
  cluster.submit(cluster.primary, first);
  const mains = mainsOf(cluster.genesis).map(Number);
  cluster.until(() => mains.every((id) => cluster.has(id, first)), 4 * T);
  return { cluster, client, leader: cluster.primary };
}

/**
 * E of docs/adversary.md, from the moment at which nobody leads any more: T until all have noticed, a quarter for those who must notice too, half of T for each place after the
 * last leader, a heartbeat for the statuses that say so, and the messages.
 */
function electionMs(cluster: Cluster): number {
  const { T: timeout, delta, heartbeat } = boundsOf(cluster);
  return timeout + timeout / 4 + ((cluster.nodes.length - 1) * timeout) / 2 + heartbeat + 6 * delta;
}

const elections = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started').length;
const ids = (cluster: Cluster) => cluster.nodes.map(({ id }) => Number(id));
const placeOf = (cluster: Cluster, { digest }: SignedBundle) => cluster.placeOf(toHex(digest));
const planted = (bugs: readonly PlantedBug[], name: RegExp) => bugs.find((bug) => name.test(bug.name))!.plant!;

/** Twice, and the second time with the rule taken out, which a check must notice. */
function holdsBy(t: Test, play: () => void, takeOutRule: () => () => void, what: string): void {
  play();
  const restore = takeOutRule();
  try {
    t.throws(play, CheckFailure, what);
  } finally {
    restore();
  }
}

// ---- A28 ------------------------------------------------------------------------------------------------------------------

/** Only these hear each other, both ways. */
function links(cluster: Cluster, pairs: readonly (readonly [number, number])[]): void {
  const open = new Set(pairs.flatMap(([a, b]) => [`${a} ${b}`, `${b} ${a}`]));
  cluster.tamper = (from, to, message) => (open.has(`${from} ${to}`) ? message : null);
}

t.test('A28 partly connected: who reaches a majority leads within three elections, and stays', async (t) => {
  for (const protocol of ELECTED) {
    // The leader reaches one other only, and that one is the only one that reaches a majority (etcd in the Cloudflare outage of 2020; the quorum-loss case of OmniPaxos).
    const { cluster, client, leader } = begin(protocol);
    const hub = (leader + 3) % 5;
    links(
      cluster,
      ids(cluster).flatMap((id) => (id === hub ? [] : [[hub, id] as const])),
    );
    const bundle = client.bundle([text('by the hub')]);
    cluster.submit(hub, bundle);
    const took = msUntil(cluster, () => ids(cluster).every((id) => cluster.has(id, bundle)), 3 * electionMs(cluster));
    t.ok(took !== null, `${protocol}: ${took} ms of ${3 * electionMs(cluster)}`);
    // In Fast Paxos the hub's own values need no leader; one that is needed is there by then.
    cluster.run(3 * electionMs(cluster));
    const { primary, phase } = cluster.nodes[hub]!.core!.explain();
    t.same([Number(primary), phase === 'view-change'], [hub, false], protocol);
    const before = elections(cluster);
    cluster.run(20 * T);
    if (protocol !== 'fast-paxos') t.equal(elections(cluster), before, `${protocol}: and nobody unseats it`);
  }
});

t.test('A28 a chain: who is cut off from the leader alone, or returns, unseats nobody', async (t) => {
  for (const protocol of ELECTED) {
    const { cluster, client, leader } = begin(protocol, { n: 3 });
    const [middle, end] = [(leader + 1) % 3, (leader + 2) % 3];
    const before = elections(cluster);
    links(cluster, [
      [leader, middle],
      [middle, end],
    ]);
    cluster.run(20 * T);
    links(cluster, [[leader, middle]]);
    cluster.run(20 * T);
    cluster.tamper = null;
    const epoch = asEpoch(0);
    const high = asView(3_000_000 + end); // of its own numbers
    if (protocol === 'raft') {
      const log = { decided: asHeight(9), last: asHeight(9), lastTerm: asView(0) };
      cluster.inject(end, middle, { kind: 'request-vote', epoch, term: high, ...log });
    } else cluster.inject(end, middle, { kind: 'paxos-prepare', epoch, ballot: high });
    const bundle = client.bundle([text('after')]);
    cluster.submit(end, bundle);
    const took = msUntil(cluster, () => ids(cluster).every((id) => cluster.has(id, bundle)), electionMs(cluster));
    t.ok(took !== null, `${protocol}: it is ordered after ${took} ms`);
    t.equal(cluster.primary, leader, protocol);
    // In Fast Paxos two of three are no fast quorum: the leader takes ballots of its own for that.
    if (protocol !== 'fast-paxos') t.equal(elections(cluster), before, protocol);
    t.notOk(
      cluster.events.some(({ type, at, time }) => type === 'view-change-started' && at === end && time > 4 * T),
      `${protocol}: it never ran`,
    );
  }
});

// ---- A29 ------------------------------------------------------------------------------------------------------------------

t.test('A29 a vote or a promise not synced, then a crash: one vote a term, and no promise is broken', async (t) => {
  const points: readonly CrashPoint[] = ['write-begun', 'log-written', 'guard-written', 'spoken'];
  /** Elections in which everybody that writes is struck, now and then, with each of the two files kept or lost. */
  const play = (protocol: Protocol, Replica?: typeof SpeaksTooSoon) => {
    for (const [seed, point] of points.entries()) {
      const { cluster } = begin(protocol, { n: 3, seed, ...(Replica === undefined ? {} : { Replica }) });
      let struck = 0;
      cluster.strikes = ({ id }, at) => {
        if (at !== point || cluster.dice.next() > 0.6) return false;
        struck += 1;
        cluster.crash(id, { log: struck % 2 === 0 ? 'lost' : 'kept', guard: struck % 3 === 0 ? 'lost' : 'kept' });
        cluster.after(T / 4, () => cluster.boot(id));
        return true;
      };
      for (let i = 0; i < 12; i++) {
        const { primary } = cluster;
        if (cluster.nodes[primary]!.core !== null) cluster.crash(primary);
        cluster.run(3 * T);
        if (cluster.nodes[primary]!.core === null) cluster.boot(primary);
        cluster.run(T);
      }
      t.ok(struck > 0, `${protocol}, ${point}: struck ${struck} times`);
      cluster.strikes = () => false;
      cluster.run(T);
      const bundle = new SimClient(cluster.genesis, 'bob').bundle([text('after')]);
      for (const id of ids(cluster)) cluster.submit(id, bundle);
      t.ok(cluster.until(() => ids(cluster).every((id) => cluster.has(id, bundle)), 4 * electionMs(cluster)));
    }
  };
  for (const protocol of ['raft', 'multi-paxos'] as const) {
    play(protocol);
    t.throws(() => play(protocol, SpeaksTooSoon), CheckFailure, `${protocol}: said before it is durable`);
  }
});

// ---- A30 ------------------------------------------------------------------------------------------------------------------

/** Four of five accept one value in the fast round, which is chosen; one accepts another. One replica learns it, and the leader crashes before it settles anything. */
function collision(t: Test): void {
  const { cluster, leader } = begin('fast-paxos');
  cluster.run(4 * T);
  const [a, b] = [(leader + 1) % 5, (leader + 4) % 5];
  const [chosen, other] = ['chosen', 'other'].map((name) => new SimClient(cluster.genesis, name).bundle([text(name)]));
  cluster.tamper = (from, to, message) => {
    if (message.kind === 'fast-accept' && from === b) return null;
    if (message.kind === 'fast-accept' && to === b) return null;
    // What is accepted is heard by one learner alone.
    return message.kind === 'fast-accepted' && to !== a ? null : message;
  };
  cluster.submit(a, chosen!);
  cluster.submit(b, other!);
  cluster.until(() => cluster.has(a, chosen!), T / 8);
  const height = placeOf(cluster, chosen!);
  t.ok(height !== undefined, 'chosen in the fast round');
  cluster.crash(leader);
  cluster.crash(a);
  cluster.tamper = null;
  // What the one with the other value has accepted is heard last.
  cluster.slowMs = (id) => (id === b ? 30 : 0);
  const rest = ids(cluster).filter((id) => id !== leader && id !== a);
  const both = () => rest.every((id) => cluster.has(id, chosen!) && cluster.has(id, other!));
  const took = msUntil(cluster, both, 2 * electionMs(cluster));
  t.ok(took !== null, `both are ordered after ${took} ms`);
  t.equal(placeOf(cluster, chosen!), height);
  cluster.boot(a);
  t.ok(cluster.until(() => cluster.has(a, other!), 4 * T));
}

t.test('A30 a collision in a fast round, and the coordinator crashes: what may have been chosen stays', async (t) => {
  holdsBy(t, () => collision(t), planted(PLANTED_FAST, /any value/), 'where any value will do, another one is chosen');
});

// ---- A31 ------------------------------------------------------------------------------------------------------------------

/** Whoever keeps a log and is a member is in the next epoch. */
const hasChanged = ({ nodes, genesis }: Cluster) =>
  mainsOf(genesis).every((id) => nodes[id]!.core === null || nodes[id]!.epoch.epoch >= 1);
const documents = ({ nodes }: Cluster) =>
  new Set(nodes.flatMap(({ epoch }) => (epoch.epoch >= 1 ? [toHex(epoch.hash)] : []))).size;

t.test("A31 two changes of the members, by two leaders, the first of which is not yet anybody's", async (t) => {
  // The schedule of the bug in Raft's single-server changes (Ongaro, raft-dev, July 2015). S1 appends "add S5" and nobody hears it; S2 is elected and has "remove S1" on one log more,
  // which is a majority of the three that would be left; then S1 comes back. Here a change counts when it is decided by the members before it, so it is neither's.
  for (const protocol of ['raft', 'multi-paxos'] as const) {
    const { cluster, leader: s1 } = begin(protocol, { n: 4, spare: 1, operators: true });
    const operators = new Operators(cluster);
    const carries = (kind: string) => kind === 'append-entries' || kind === 'accept' || kind === 'forward';
    const add = operators.add(4);
    const remove = operators.remove(s1);
    cluster.tamper = (from, _to, message) => (from === s1 && carries(message.kind) ? null : message);
    cluster.submit(s1, add);
    cluster.run(40);
    cluster.crash(s1);
    t.ok(cluster.until(() => cluster.primary !== s1, 3 * electionMs(cluster)));
    const s2 = cluster.primary;
    cluster.run(T);
    const s3 = ids(cluster).find((id) => id !== s1 && id !== s2 && id < 4)!;
    cluster.tamper = (from, to, message) =>
      carries(message.kind) && !(from === s2 && to === s3) && !(from === s3 && to === s2) ? null : message;
    cluster.submit(s2, remove);
    cluster.run(T / 2);
    t.same(
      [...new Set(cluster.nodes.map(({ epoch }) => Number(epoch.epoch)))],
      [0],
      `${protocol}: two of four decide nothing`,
    );
    cluster.boot(s1);
    cluster.run(4 * T);
    t.same([...new Set(cluster.nodes.map(({ epoch }) => Number(epoch.epoch)))], [0], 'nor with the first one back');
    cluster.tamper = null;
    const took = msUntil(cluster, () => hasChanged(cluster), 4 * electionMs(cluster));
    t.ok(took !== null, `${protocol}: then one of them is, after ${took} ms`);
    t.equal(documents(cluster), 1, 'of which there is one');
    t.equal([add, remove].filter((bundle) => placeOf(cluster, bundle) !== undefined).length, 1);
  }
});

t.test('A31 two changes at once, at two replicas: one of them ends the epoch', async (t) => {
  for (const protocol of ['raft', 'multi-paxos', 'fast-paxos', 'basic-paxos', 'cheap-paxos', 'pbft'] as const) {
    const { cluster } = begin(protocol, { n: 4, spare: 1, operators: true });
    const operators = new Operators(cluster);
    const changes = [operators.add(4), operators.bundle([{ change: 'set-parameter', parameter: 'window', value: 4 }])];
    cluster.submit(0, changes[0]!);
    cluster.submit(1, changes[1]!);
    const took = msUntil(cluster, () => hasChanged(cluster), 2 * electionMs(cluster));
    t.ok(took !== null, `${protocol}: after ${took} ms`);
    t.equal(documents(cluster), 1, 'one document');
    t.equal(changes.filter((bundle) => placeOf(cluster, bundle) !== undefined).length, 1, 'of one of them');
  }
});

// ---- the papers' own examples -----------------------------------------------------------------------------------------------

/** Whoever is to lead next is the `candidate`: of the others' requests none arrives. */
function figure8(t: Test): void {
  const { cluster, client, leader: s1 } = begin('raft');
  const [s2, s3, s4, s5] = [1, 2, 3, 4].map((i) => (s1 + i) % 5) as [number, number, number, number];
  let candidate = s5;
  const height = cluster.height(s1) + 1;
  let reaches: (to: number, at: number) => boolean = (to) => to === s2;
  let sender = s1;
  cluster.tamper = (from, to, message) => {
    if (message.kind === 'request-vote') return from === candidate ? message : null;
    if (message.kind !== 'append-entries') return message;
    // Whatever S1 has decided nobody hears of, when it leads for the second time.
    if (message.entry === null) return from === s1 && candidate === s1 && message.decided >= height ? null : message;
    return from === sender && reaches(to, message.entry.value.header.height) ? message : null;
  };
  // (a) S1 leads, and gives its entry to S2 alone.
  cluster.submit(s1, client.bundle([text('of the old term')]));
  cluster.run(40);
  cluster.crash(s1);
  cluster.crash(s2);
  // (b) S5 is elected by S3, S4 and itself, and has another entry at that index.
  t.ok(
    cluster.until(() => cluster.primary === s5, 6 * electionMs(cluster)),
    'S5 leads',
  );
  cluster.run(100);
  cluster.crash(s5);
  cluster.boot(s1);
  cluster.boot(s2);
  // (c) S1 is elected, and gives the entry of its old term to S3 as well: three of five have it. The one of its new term reaches nobody.
  candidate = s1;
  reaches = (to, at) => at === height && (to === s2 || to === s3);
  t.ok(
    cluster.until(() => cluster.primary === s1, 6 * electionMs(cluster)),
    'S1 leads again',
  );
  cluster.run(T / 2);
  cluster.crash(s1);
  // (d) S5 is elected by S2, S3 and S4: its last entry is of a later term. What stood on a majority is gone.
  cluster.boot(s5);
  candidate = s5;
  sender = s5;
  reaches = () => true;
  t.ok(
    cluster.until(() => cluster.primary === s5, 6 * electionMs(cluster)),
    'S5 leads again',
  );
  t.ok(cluster.until(() => [s2, s3, s4, s5].every((id) => cluster.height(id) > height), 4 * T));
  cluster.boot(s1);
  cluster.tamper = null;
  t.ok(
    cluster.until(() => cluster.height(s1) > height, 4 * T),
    'one history',
  );
}

t.test('RAFT-L-3: figure 8 of the Raft paper, an entry of an old term is not committed by counting', async (t) => {
  holdsBy(t, () => figure8(t), anyTermCounts, 'two blocks at one height, where any term counts');
});

/** Three of five accept, one learner hears of it; the leader goes, and who leads next has never seen the value. */
function laterBallot(t: Test, protocol: 'multi-paxos' | 'basic-paxos'): void {
  const { cluster, client, leader } = begin(protocol);
  const bundle = client.bundle([text('chosen')]);
  const holders = [leader, (leader + 1) % 5, (leader + 2) % 5];
  const [next, last] = [(leader + 3) % 5, (leader + 4) % 5];
  cluster.tamper = (_from, to, message) => {
    if (message.kind === 'accept' && !holders.includes(to)) return null;
    return message.kind === 'accepted' && to !== leader ? null : message;
  };
  cluster.submit(leader, bundle);
  t.ok(
    cluster.until(() => cluster.has(leader, bundle), 2 * T),
    'chosen, and one replica knows',
  );
  const height = placeOf(cluster, bundle);
  cluster.crash(leader);
  cluster.tamper = (from, _to, message) =>
    message.kind === 'paxos-prepare' && from !== next && from !== last ? null : message;
  const other = new SimClient(cluster.genesis, 'bob').bundle([text('another')]);
  cluster.submit(next, other);
  const rest = ids(cluster).filter((id) => id !== leader);
  const took = msUntil(cluster, () => rest.every((id) => cluster.has(id, other)), 3 * electionMs(cluster));
  t.ok(took !== null, `after ${took} ms`);
  t.equal(placeOf(cluster, bundle), height, 'a later ballot proposes what was chosen');
  t.ok(rest.every((id) => cluster.has(id, bundle)));
}

t.test('PXS-P-2: Paxos Made Simple, section 2.2, what was chosen binds every later ballot', async (t) => {
  for (const protocol of ['multi-paxos', 'basic-paxos'] as const)
    holdsBy(
      t,
      () => laterBallot(t, protocol),
      planted(PLANTED_PAXOS, /a promise does not tell/),
      'another one is chosen there, where a promise does not tell what was accepted',
    );
});

// ---- A32 ------------------------------------------------------------------------------------------------------------------

const everybodyHas = (cluster: Cluster, bundle: SignedBundle) =>
  mainsOf(cluster.genesis).every((id) => cluster.has(Number(id), bundle));

t.test('A32 CFT-T-1: a replica that hangs unseats nobody, and one that leads is missed once', async (t) => {
  for (const protocol of [...ELECTED, 'cheap-paxos'] as const) {
    const follower = begin(protocol);
    const other = (follower.leader + 1) % 3;
    for (let i = 0; i < 3; i++) {
      follower.cluster.nodes[other]!.stalledUntil = follower.cluster.now + 4 * T;
      follower.cluster.run(4 * T + 300);
    }
    // In ballots of its own: Cheap Paxos leaves out whom nobody hears (CHP-5), in Fast Paxos too few may answer (FST-C-2).
    t.equal(follower.cluster.primary, follower.leader, `${protocol}: the same one leads`);

    const { cluster, client, leader } = begin(protocol);
    const before = elections(cluster);
    cluster.nodes[leader]!.stalledUntil = cluster.now + 4 * T;
    const bundle = client.bundle([text('meanwhile')]);
    cluster.submit((leader + 1) % 3, bundle);
    t.ok(
      cluster.until(() => cluster.has((leader + 1) % 3, bundle), electionMs(cluster) + T),
      `${protocol}: another one leads soon`,
    );
    cluster.run(6 * T);
    t.ok(everybodyHas(cluster, bundle), 'and the one that hung follows');
    // Where mains are counted it is left out and taken back, in a ballot each.
    t.ok(
      elections(cluster) - before <= (protocol === 'cheap-paxos' ? 4 : 2),
      `${elections(cluster) - before} elections`,
    );
    const settled = elections(cluster);
    cluster.run(10 * T);
    t.equal(elections(cluster), settled, 'then all is quiet');
  }
});

t.test(
  'A32 RAFT-L-3 PXS-L-1: the disk of a leader hangs, and what a majority of the others has is decided',
  async (t) => {
    for (const protocol of ELECTED) {
      const { cluster, client, leader } = begin(protocol);
      const before = elections(cluster);
      const until = cluster.now + 8 * T;
      cluster.slowMs = (id) => (id === leader ? Math.max(0, until - cluster.now) : 0);
      const bundle = client.bundle([text('not on the disk of the leader')]);
      cluster.submit(leader, bundle);
      t.ok(
        cluster.until(
          () =>
            ids(cluster)
              .filter((id) => id !== leader)
              .every((id) => cluster.has(id, bundle)),
          2 * T,
        ),
        protocol,
      );
      cluster.run(8 * T + 300);
      t.equal(elections(cluster), before, 'and nobody is elected for it');
      t.ok(everybodyHas(cluster, bundle));
    }
  },
);
