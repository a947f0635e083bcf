// Raft where members are trusted: its log and its votes at their edges, the paper's own cases on whole clusters, lives from seeds with everything
// failing that may, and planted bugs.

import t from 'tap';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import { Election } from '../protocol/crash/election.ts';
import type { CrashState } from '../protocol/crash/state.ts';
import { makeValue } from '../protocol/crash/value.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { LogRecord } from '../protocol/log.ts';
import { decodeHardState, encodeHardState } from '../protocol/raft/hard-state.ts';
import { EntryLog, isUpToDate } from '../protocol/raft/log.ts';
import { asEpoch, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { CheckFailure } from '../sim/checks.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { live } from '../sim/life.ts';
import { settingOf } from '../sim/setting.ts';
import { livesFromSeeds, plantedBugsAreCaught } from './family-lives.ts';
import { anyLogIsUpToDate, everythingMatches, PLANTED_RAFT } from './planted-raft.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const T = 500;
const epoch = asEpoch(0);
const { genesis } = settingOf(3, {}, { realSignatures: false, protocol: 'raft' });
const text = (value: string) => Buffer.from(value);

// ---- the log ------------------------------------------------------------------------------------------------------------

const valueIn = (slot: number, time = 1): Block => {
  const { sha256 } = native;
  const ledger = new Ledger({ sha256, genesis, epoch });
  const fields = { slot: asHeight(slot), bundles: [], time: asMillis(time), proposer: asReplicaId(0) };
  return makeValue({ sha256, epoch, ledger }, fields);
};

/** A log with entries of these terms above a decided height. */
function logOf(decided: number, ...terms: readonly number[]): { log: EntryLog; records: LogRecord[] } {
  const log = new EntryLog();
  const records: LogRecord[] = [];
  log.restore(asHeight(decided), asHeight(decided), []);
  for (const [i, term] of terms.entries())
    log.put({ term: asView(term), value: valueIn(decided + 1 + i, term) }, records);
  return { log, records };
}

t.test('RAFT-L-1 RAFT-L-2: entries follow what matches, and cut off what contradicts them', async (t) => {
  const { log, records } = logOf(4, 2, 2, 3);
  t.same(log.end, { decided: 4, last: 7, lastTerm: 3 });
  t.ok(log.matches(asHeight(4), asView(0)), 'what is decided matches, whatever its term');
  t.ok(log.matches(asHeight(3), asView(9)));
  t.ok(log.matches(asHeight(6), asView(2)));
  t.notOk(log.matches(asHeight(6), asView(3)));
  t.notOk(log.matches(asHeight(8), asView(3)), 'nothing there');
  t.notOk(log.matches(asHeight(6), asView(0)), 'a term that nobody knows');
  const before = records.length;
  t.notOk(log.put({ term: asView(2), value: valueIn(6, 2) }, records), 'the same entry');
  t.notOk(log.put({ term: asView(9), value: valueIn(3) }, records), 'below what is decided');
  t.equal(log.last, 7, 'and nothing after it is cut off');
  t.equal(records.length, before);
  t.ok(log.put({ term: asView(4), value: valueIn(6, 4) }, records));
  t.same(log.end, { decided: 4, last: 6, lastTerm: 4 });
  t.throws(() => log.put({ term: asView(4), value: valueIn(6, 5) }, records), 'one entry at an index of a term');
  t.throws(() => log.put({ term: asView(4), value: valueIn(9) }, records), 'no gaps');
  log.decide(asHeight(5), true);
  t.equal(log.termAt(5), 2, 'the term of the head is known where it was decided from this log');
  log.decide(asHeight(6), false);
  t.equal(log.termAt(6), 0);
});

t.test('RAFT-L-4: what was cut off is not there after a restart', async (t) => {
  const log = new EntryLog();
  const entries = [5, 6, 7, 9].map((height) => ({
    height: asHeight(height),
    ballot: asView(2),
    value: valueIn(height),
  }));
  log.restore(asHeight(4), asHeight(6), entries);
  t.equal(log.last, 6);
  const whole = new EntryLog();
  whole.restore(asHeight(4), asHeight(9), entries);
  t.equal(whole.last, 7, 'nor what has a gap before it');
  for (const votedFor of [null, asReplicaId(0), asReplicaId(127)]) {
    const state = { epoch: asEpoch(7), term: asView(2 ** 40), votedFor, last: asHeight(9) };
    t.same(decodeHardState(encodeHardState(state)), state);
  }
  t.equal(decodeHardState(new Uint8Array(29)), undefined, "another protocol's");
});

t.test('RAFT-E-3: whose log is up to date', async (t) => {
  const { end: voter } = logOf(4, 2, 3).log;
  const cases: readonly (readonly [string, boolean, ReturnType<typeof logOf>])[] = [
    ['has decided all of it', true, logOf(6)],
    ['has decided more', true, logOf(9)],
    ['has decided less than its last entry, and has no other', false, logOf(5)],
    ['a later last term', true, logOf(3, 4)],
    ['the same last term, as long', true, logOf(4, 2, 3)],
    ['the same last term, shorter', false, logOf(4, 3)],
    ['an earlier last term, longer', false, logOf(4, 2, 2, 2, 2, 2)],
  ];
  for (const [name, expected, { log }] of cases) t.equal(isUpToDate(log.end, voter), expected, name);
  t.notOk(
    isUpToDate(logOf(3, 9).log.end, logOf(4).log.end),
    'whose entries are all decided votes for no log without them',
  );
  t.ok(isUpToDate(logOf(4).log.end, logOf(4).log.end));
});

// ---- clusters -------------------------------------------------------------------------------------------------------------

type Options = ConstructorParameters<typeof Cluster>[0];

function begin(options: Options = {}): Cluster {
  const cluster = new Cluster({ seed: 7, n: 3, protocol: 'raft', ...options });
  cluster.run(80);
  return cluster;
}

function orders(cluster: Cluster, client: SimClient, { at = 0, ids = cluster.live(), ms = 500 } = {}): boolean {
  const bundle = client.bundle([text(`at ${cluster.now}`)]);
  cluster.submit(at, bundle);
  return cluster.until(() => ids.every((id) => cluster.has(id, bundle)), ms);
}

const leaderOf = (cluster: Cluster): number =>
  Math.max(...cluster.nodes.map(({ core }) => core?.explain().view ?? 0)) % cluster.nodes.length;
const elections = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started').length;

t.test('RAFT-L-3: a leader begins with an entry of its own term, and commits what it found with it', async (t) => {
  const cluster = begin();
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const first = leaderOf(cluster);
  // An entry is on all logs, and nobody knows.
  cluster.tamper = (_, __, message) => (message.kind === 'appended' ? null : message);
  const found = client.bundle([text('found')]);
  cluster.submit(first, found);
  cluster.run(60);
  cluster.crash(first);
  cluster.tamper = null;
  const others = [0, 1, 2].filter((id) => id !== first);
  t.ok(cluster.until(() => others.every((id) => cluster.has(id, found)), 5 * T));
  const blocks = cluster.delivered[others[0]!]!;
  const at = blocks.findIndex(({ block }) => block.bundles.length === 1 && block.bundles[0]!.digest === found.digest);
  t.equal(blocks[at + 1]?.block.bundles.length ?? 0, 0, 'the entry of the new term, an empty block (CFT-V-3)');
});

t.test('RAFT-E-1 RAFT-E-4: who is cut off from the leader, or comes back, unseats nobody', async (t) => {
  for (const n of [3, 5]) {
    const cluster = begin({ n });
    const client = new SimClient(cluster.genesis, 'alice');
    t.ok(orders(cluster, client));
    const leader = leaderOf(cluster);
    const other = (leader + 1) % n;
    const before = elections(cluster);
    cluster.tamper = (from, to, message) =>
      (from === leader && to === other) || (from === other && to === leader) ? null : message;
    cluster.run(10 * T);
    cluster.tamper = null;
    cluster.partition = [[other], [0, 1, 2, 3, 4].filter((id) => id !== other && id < n)];
    cluster.run(10 * T);
    cluster.partition = null;
    cluster.run(4 * T);
    const term = asView(99);
    const ends = { decided: asHeight(9), last: asHeight(9), lastTerm: asView(0) };
    cluster.inject(other, (leader + 2) % n, { kind: 'request-vote', epoch, term, ...ends });
    cluster.run(T);
    t.equal(leaderOf(cluster), leader);
    t.equal(elections(cluster), before);
    t.ok(orders(cluster, client));
    // A higher term that is meant makes a follower of everyone.
    cluster.inject(other, leader, { kind: 'appended', epoch, term, match: asHeight(0) });
    t.ok(cluster.until(() => elections(cluster) > before, 4 * T));
    t.ok(orders(cluster, client, { at: other, ms: 8 * T }));
  }
});

t.test('RAFT-E-3: who lacks a committed entry does not lead; and does, where the rule is taken out', async (t) => {
  const play = () => {
    const cluster = begin();
    const client = new SimClient(cluster.genesis, 'alice');
    t.ok(orders(cluster, client));
    const leader = leaderOf(cluster);
    // The next in turn hears nothing of the entry; the third one has it, and does not know that it is committed.
    const [candidate, holder] = [(leader + 1) % 3, (leader + 2) % 3];
    const height = cluster.height(leader) + 1;
    cluster.tamper = (from, to, message) =>
      from === leader && message.kind === 'append-entries' && (to === candidate || message.decided >= height)
        ? null
        : message;
    const bundle = client.bundle([text('committed')]);
    cluster.submit(leader, bundle);
    t.ok(cluster.until(() => cluster.has(leader, bundle), T));
    cluster.crash(leader);
    cluster.tamper = null;
    t.equal(cluster.height(holder), height - 1);
    cluster.until(() => cluster.has(candidate, bundle) && cluster.has(holder, bundle), 6 * T);
    cluster.boot(leader);
    cluster.run(4 * T);
    return cluster.placeOf(Buffer.from(bundle.digest).toString('hex')) === height && cluster.has(candidate, bundle);
  };
  t.ok(play());
  const takeOut = anyLogIsUpToDate();
  t.throws(play, CheckFailure);
  takeOut();
});

t.test(
  'RAFT-L-1: figure 7, a log that contradicts is mended; and decides wrong, where the rule is taken out',
  async (t) => {
    const play = () => {
      const cluster = begin({ n: 5 });
      const client = new SimClient(cluster.genesis, 'alice');
      t.ok(orders(cluster, client));
      const old = leaderOf(cluster);
      const follower = (old + 1) % 5;
      const others = [0, 1, 2, 3, 4].filter((id) => id !== old && id !== follower);
      // Two servers have entries that nobody else has, and are cut off.
      cluster.partition = [[old, follower], others];
      for (const name of ['bob', 'carol', 'dave'])
        cluster.submit(old, new SimClient(cluster.genesis, name).bundle([text(name)]));
      cluster.run(100);
      cluster.crash(old);
      t.ok(cluster.until(() => others.includes(leaderOf(cluster)), 6 * T));
      t.ok(cluster.until(() => others.every((id) => cluster.height(id) > cluster.height(follower)), 4 * T));
      cluster.partition = null;
      for (const id of others) cluster.connect(follower, id);
      const leader = leaderOf(cluster);
      const same = () => cluster.height(follower) === cluster.height(leader) && cluster.height(leader) > 3;
      const ok = orders(cluster, client, { at: leader, ids: [follower, ...others], ms: 8 * T });
      return ok && cluster.until(same, 8 * T);
    };
    t.ok(play());
    const takeOut = everythingMatches();
    t.throws(play, CheckFailure);
    takeOut();
  },
);

t.test('RAFT-E-5: a leader that no majority answers leads no more', async (t) => {
  const cluster = begin();
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const leader = leaderOf(cluster);
  const others = [0, 1, 2].filter((id) => id !== leader);
  cluster.partition = [[leader], others];
  const cutAt = cluster.now;
  const lost = new SimClient(cluster.genesis, 'carol').bundle([text('of the old term')]);
  cluster.submit(leader, lost);
  const bundle = new SimClient(cluster.genesis, 'bob').bundle([text('x')]);
  cluster.submit(others[0]!, bundle);
  t.ok(cluster.until(() => others.every((id) => cluster.has(id, bundle)), 4 * T));
  t.ok(cluster.now - cutAt <= 2.5 * T, `taken over after ${cluster.now - cutAt} ms`);
  t.ok(
    cluster.until(() => cluster.nodes[leader]!.core!.explain().phase === 'view-change', 2 * T),
    'it knows',
  );
  cluster.partition = null;
  // RAFT-L-5: what it appended alone is not what was decided there.
  t.ok(
    cluster.until(() => cluster.has(leader, bundle), 3 * T),
    'and learns',
  );
  t.ok(
    cluster.until(() => cluster.has(leader, lost), 4 * T),
    'what its pool held is ordered by the next',
  );
});

t.test('RAFT-E-2: one vote a term, wherever a process ends', async (t) => {
  for (const point of ['write-begun', 'log-written', 'guard-written', 'spoken'] as const) {
    const cluster = begin({ seed: 3 });
    const client = new SimClient(cluster.genesis, 'alice');
    for (let i = 0; i < 6; i++) {
      t.ok(orders(cluster, client, { at: i % 3, ms: 8 * T }), `${point} ${i}`);
      const leader = leaderOf(cluster);
      cluster.strikes = (replica, at) => {
        if (at !== point || replica.id === leader) return false;
        cluster.strikes = () => false;
        cluster.crash(replica.id, { log: i % 2 === 0 ? 'lost' : 'kept', guard: i % 3 === 0 ? 'lost' : 'kept' });
        cluster.after(T, () => cluster.boot(replica.id));
        return true;
      };
      cluster.crash(leader);
      cluster.run(3 * T);
      cluster.boot(leader);
      cluster.run(2 * T);
    }
  }
});

t.test('RAFT-L-5: a leader whose term is over takes what others have decided since, and leads no more', async (t) => {
  // node-0 hangs and is alone while it leads term 4; when it hears that others have gone on, it asks for their blocks before it hears of their term.
  const { failure } = live({ seed: 9570, protocol: 'raft', n: null, ms: 10_000, realSignatures: null });
  t.equal(failure, null);
});

t.test('RAFT-L-3: the entry that a leader begins with is taken, however many wait below it', async (t) => {
  // A window of one, and as many leaders as entries may wait in it, none of whom has got so far as to commit.
  const { failure } = live({ seed: 3826, protocol: 'raft', n: null, ms: 10_000, realSignatures: null });
  t.equal(failure, null);
});

t.test('CFT-E-1: who fails waits by its own number, so that two in the same place do not for ever', async (t) => {
  // The cast: it looks at nothing else.
  const state = (self: number) => ({ self, now: 0, genesis, parameters: genesis.parameters }) as unknown as CrashState;
  const elections = [0, 1, 2].map(() => new Election(asMillis(0)));
  const dueAt = (round: number) => elections.map((one, id) => one.dueAt(state(id), { rank: 0, round, first: false }));
  const { viewTimeoutMs } = genesis.parameters;
  const waits = (...places: readonly number[]) => places.map((place) => viewTimeoutMs * (place + 1 / 4));
  t.same(dueAt(0), waits(0, 0, 0), 'each is the first after the leader that it knows of');
  for (const [id, one] of elections.entries()) one.failed(state(id));
  t.same(dueAt(3), waits(0, 1, 2), 'half of T for each place, twice as much after a failure');
  t.same(dueAt(4), waits(1, 2, 0), 'nobody is always the last');
  // node-0 and node-5, that is member 3 by now, know of different leaders, and node-1 is asked so often that it never runs itself.
  t.equal(live({ seed: 9311, protocol: 'raft', n: null, ms: 10_000, realSignatures: null }).failure, null);
});

t.test('RAFT-L-5: a lagging replica takes blocks, or a checkpoint, and goes on from there', async (t) => {
  const cluster = begin({ parameters: { checkpointInterval: 16, window: 4 } });
  for (const { disk } of cluster.nodes) disk.retain = 8;
  const client = new SimClient(cluster.genesis, 'alice');
  t.ok(orders(cluster, client));
  const away = (leaderOf(cluster) + 1) % 3;
  cluster.crash(away);
  for (let i = 0; i < 60; i++) t.ok(orders(cluster, client, { at: leaderOf(cluster), ms: 4 * T }));
  cluster.boot(away);
  t.ok(cluster.until(() => cluster.height(away) >= 61, 20 * T));
  t.ok(cluster.events.some(({ type, at }) => type === 'checkpoint-installed' && at === away));
  t.ok(orders(cluster, client, { at: leaderOf(cluster) }));
});

t.test('a power cut everywhere: nothing that was acknowledged is lost', async (t) => {
  const cluster = begin({ n: 5 });
  const client = new SimClient(cluster.genesis, 'alice');
  for (let i = 0; i < 5; i++) t.ok(orders(cluster, client));
  const height = cluster.height(0);
  for (const { id } of cluster.nodes) cluster.crash(id);
  for (const { id } of cluster.nodes) cluster.boot(id);
  t.ok(cluster.until(() => cluster.nodes.every(({ id }) => cluster.height(id) > height), 8 * T));
  t.ok(orders(cluster, client));
});

livesFromSeeds('raft');
plantedBugsAreCaught(PLANTED_RAFT, 'raft');
