// Slow and unfair primaries, and blaming oneself first (adversary's book, A4, A5 and A32), on whole clusters in virtual time, each with its bound;
// and the rules of pace.ts and stalls.ts at their edges. Why it is done this way: docs/adr/0008-slow-primary.md.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { Clock } from '../daemon/clock.ts';
import { LoopLag } from '../daemon/loop-lag.ts';
import type { GenesisDocument } from '../protocol/genesis.ts';
import { Pace } from '../protocol/pbft/pace.ts';
import { Stalls } from '../protocol/stalls.ts';
import { asMillis, asReplicaId } from '../protocol/types.ts';
import { WriteLag } from '../protocol/write-lag.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import type { Dawdling } from '../sim/dawdler.ts';
import { Dawdler } from '../sim/dawdler.ts';
import { fair } from '../sim/network.ts';
import { Dice } from '../sim/random.ts';
import { heard, Solo, T, viewChange } from './solo.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const HEARTBEAT = 100;
const pacing = { viewTimeoutMs: T, heartbeatMs: HEARTBEAT };

interface Load {
  readonly clients: number;
  /** Bundles of one client under way at once. */
  readonly ahead: number;
  readonly bytes?: number;
}

/** Clients in a closed loop, each at a replica of its own; `done` counts what was decided. */
function busy(cluster: Cluster, { clients, ahead, bytes = 32 }: Load, seed = 1) {
  const dice = new Dice(seed);
  const n = cluster.nodes.length;
  const tally = { done: 0, of: new Map<string, number>() };
  for (let i = 0; i < clients; i++) {
    const name = `client-${i}`;
    const client = new SimClient(cluster.genesis, name);
    const open: string[] = [];
    const look = () => {
      for (const digest of [...open]) {
        if (cluster.placeOf(digest) === undefined) continue;
        open.splice(open.indexOf(digest), 1);
        tally.done += 1;
        tally.of.set(name, (tally.of.get(name) ?? 0) + 1);
      }
      while (open.length < ahead) {
        const bundle = client.bundle([Buffer.alloc(bytes, i)], { validUntil: 90_000 });
        open.push(toHex(bundle.digest));
        cluster.submit(1 + (i % (n - 1)), bundle);
      }
      cluster.after(1 + dice.exponential(4), look);
    };
    cluster.after(20 + i, look);
  }
  return tally;
}

function begin({
  n = 4,
  seed = 1,
  load = { clients: 6, ahead: 1 },
  parameters = {},
}: {
  n?: number;
  seed?: number;
  load?: Load;
  parameters?: GenesisDocument['parameters'];
} = {}) {
  const cluster = new Cluster({ n, seed, parameters });
  cluster.faults = { delayMs: [1, 5], loss: 0, repeat: 0, writeMs: [1, 4], inOrder: true };
  const tally = busy(cluster, load, seed);
  cluster.run(300);
  return { cluster, tally };
}

const started = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started');
const reasons = (cluster: Cluster) => started(cluster).map(({ detail }) => detail);
const hasLeft = (cluster: Cluster, slow: number) =>
  cluster.nodes.every(({ id, core }) => {
    const now = core?.explain();
    return id === slow || now === undefined || (now.primary !== slow && now.phase !== 'view-change');
  });

// ---- A4 -------------------------------------------------------------------------------------------------------------------

const RUN_MS = 4_000;

/** How long the slow primary led, and what the clients got beside what an honest one gives them. */
function withSlow(dawdling: Dawdling, { n = 4, seed = 1 } = {}) {
  const honest = begin({ n, seed });
  const before = honest.tally.done;
  honest.cluster.run(RUN_MS);
  const { cluster, tally } = begin({ n, seed });
  const dawdler = new Dawdler(cluster, 0, dawdling);
  const at = cluster.now;
  const replaced = cluster.until(() => hasLeft(cluster, 0), RUN_MS);
  const ledMs = replaced ? cluster.now - at : null;
  let mostMs = dawdler.waitMs;
  cluster.until(
    () => {
      mostMs = Math.max(mostMs, dawdler.waitMs);
      return false;
    },
    RUN_MS - (cluster.now - at),
  );
  return {
    ledMs,
    mostMs,
    share: (tally.done - before) / (honest.tally.done - before),
    cluster,
    honest: honest.cluster,
  };
}

for (const n of [4, 7])
  t.test(`A4, PACE-1, PACE-3: a primary just under every timeout is replaced within 5 T, n = ${n}`, async (t) => {
    const kinds = [
      [1, { how: 'constant', ms: 0.9 * T }],
      [2, { how: 'constant', ms: 0.5 * T }],
      [3, { how: 'trickle', ms: 60 }],
    ] as const;
    for (const [seed, dawdling] of n === 4 ? kinds : kinds.slice(0, 1)) {
      const { ledMs, share, cluster, honest } = withSlow(dawdling, { n, seed });
      const what = JSON.stringify(dawdling);
      t.ok(ledMs !== null && ledMs <= 5 * T, `${what}: replaced after ${ledMs} ms`);
      t.ok(share >= 0.5, `${what}: ${Math.round(100 * share)} % of the honest throughput`);
      t.match(reasons(cluster)[0], /the primary orders \d+ % of what it could/);
      t.same(started(honest), [], 'an honest one keeps its role');
      t.ok(started(cluster).length <= n, 'each replica asks once');
    }
  });

t.test('A4, PACE-2: one that is as slow as it dares gives half of the honest throughput', async (t) => {
  for (const seed of [1]) {
    const { share, mostMs } = withSlow({ how: 'adaptive' }, { seed });
    t.ok(share >= 0.5, `seed ${seed}: ${Math.round(100 * share)} %, up to ${Math.round(mostMs)} ms late`);
  }
});

t.test('A4, PACE-3: one replica alone cannot have a primary replaced by calling it slow', async (t) => {
  const { cluster } = begin();
  // What a liar says is a view-change, whatever its reason.
  cluster.inject(2, 1, viewChange(1));
  cluster.inject(2, 0, viewChange(1));
  cluster.inject(2, 3, viewChange(1));
  cluster.run(5 * T);
  t.same(started(cluster), [], 'before PBFT-VC-6');
});

// ---- A5 -------------------------------------------------------------------------------------------------------------------

t.test('A5, PACE-1: a primary that leaves out one client is replaced, at any rate and size of blocks', async (t) => {
  for (const load of [
    { clients: 6, ahead: 1 },
    { clients: 3, ahead: 8 },
    { clients: 40, ahead: 1 },
  ]) {
    const { cluster, tally } = begin({ load });
    new Dawdler(cluster, 0, { how: 'censor' });
    const at = cluster.now;
    t.ok(
      cluster.until(() => hasLeft(cluster, 0), 5 * T),
      `${JSON.stringify(load)}: after ${cluster.now - at} ms`,
    );
    const before = new Map(tally.of);
    cluster.run(2 * T);
    for (const [name, count] of tally.of) t.ok(count > (before.get(name) ?? 0), `${name} is ordered`);
  }
});

t.test('A5, PACE-1: only one session of a client, and always late: no better', async (t) => {
  const { cluster } = begin();
  const slow = [1, 2].map((session) => new SimClient(cluster.genesis, 'victim', session));
  const held = new Set<string>();
  // What comes of the second session waits for 300 ms, again and again.
  const node = cluster.nodes[0]!;
  const released = new Set<string>();
  node.hold = (inputs) =>
    inputs.flatMap((input) => {
      if (input.type !== 'message' || input.signed.message.kind !== 'forward') return [input];
      const { message } = input.signed;
      const late = message.bundles.filter(({ session, digest }) => session === 2 && !released.has(toHex(digest)));
      for (const bundle of late) {
        const name = toHex(bundle.digest);
        if (held.has(name)) continue;
        held.add(name);
        cluster.after(300, () => {
          released.add(name);
          node.input({ type: 'bundle', bundle });
        });
      }
      if (late.length === 0) return [input];
      const bundles = message.bundles.filter((bundle) => !late.includes(bundle));
      return [{ ...input, signed: { ...input.signed, message: { ...message, bundles } } }];
    });
  const open: (string | null)[] = [null, null];
  const more = () => {
    for (const [i, client] of slow.entries()) {
      const waiting = open[i] ?? null;
      if (waiting !== null && cluster.placeOf(waiting) === undefined) continue;
      const bundle = client.bundle([Buffer.from('v')], { validUntil: 90_000 });
      open[i] = toHex(bundle.digest);
      for (const at of [1, 2, 3]) cluster.submit(at, bundle);
    }
    cluster.after(10, more);
  };
  more();
  const at = cluster.now;
  t.ok(
    cluster.until(() => hasLeft(cluster, 0), 6 * T),
    `after ${cluster.now - at} ms`,
  );
  t.match(reasons(cluster)[0], /the primary orders \d+ % of what it could/);
});

// ---- A32 ------------------------------------------------------------------------------------------------------------------

/** Everything is ordered again, and nobody changes views any more. */
function isStable(cluster: Cluster, tally: { readonly done: number }): boolean {
  const [before, views] = [tally.done, started(cluster).length];
  cluster.run(T);
  return tally.done - before >= 10 && started(cluster).length === views;
}

/** One backup hangs for a while, in the middle of everything. */
function hangs(seed: number) {
  const { cluster, tally } = begin({ seed });
  for (let i = 0; i < 3; i++) {
    cluster.nodes[2]!.stalledUntil = cluster.now + 4 * T;
    cluster.run(4 * T + 300);
  }
  return { cluster, tally };
}

t.test('A32, STALL-1: a backup that hangs, or whose disk does, starts no view change', async (t) => {
  for (let seed = 1; seed <= 5; seed++) {
    const { cluster } = hangs(seed);
    t.same(reasons(cluster), [], `seed ${seed}`);
    t.ok(cluster.nodes[2]!.core!.explain().stalls.loopMs > 8 * T, 'and it knows');
  }
  const { cluster, tally } = begin();
  let until = cluster.now + 8 * T;
  cluster.slowMs = (id) => (id === 2 ? Math.max(0, until - cluster.now) : 0);
  cluster.run(8 * T + 100);
  t.same(reasons(cluster), []);
  const { disk, diskMs } = cluster.nodes[2]!.core!.explain().stalls;
  t.ok(disk !== null && diskMs > 6 * T, `its disk took ${disk?.ms} ms`);
  until = 0;
  t.ok(isStable(cluster, tally));
});

t.test('A32, STALL-2, STALL-3: a primary that stalls is replaced once, and all is well within 3 T', async (t) => {
  for (const what of ['loop', 'disk'] as const) {
    const { cluster, tally } = begin();
    const until = cluster.now + 3 * T;
    if (what === 'loop') cluster.nodes[0]!.stalledUntil = until;
    else cluster.slowMs = (id) => (id === 0 ? Math.max(0, until - cluster.now) : 0);
    cluster.run(3 * T);
    t.ok(
      cluster.until(() => isStable(cluster, tally), 3 * T),
      what,
    );
    t.ok(started(cluster).length <= 4, `${what}: ${reasons(cluster)}`);
  }
  // Short ones, again and again: nobody else would have noticed.
  const { cluster, tally } = begin();
  const hang = () => {
    cluster.nodes[0]!.stalledUntil = cluster.now + 300;
    cluster.after(600, hang);
  };
  hang();
  t.ok(
    cluster.until(() => hasLeft(cluster, 0), 12 * T),
    'it hands over',
  );
  t.match(reasons(cluster)[0], /stalls too often to lead|the primary orders \d+ %/);
  t.ok(
    cluster.until(() => isStable(cluster, tally), 3 * T),
    'and a primary that does not stall leads',
  );
  t.ok(started(cluster).length <= 8, reasons(cluster).join(' '));
});

t.test('A32, STALL-2: where everyone stalls, nobody storms', async (t) => {
  const { cluster, tally } = begin();
  const dice = new Dice(5);
  for (const node of cluster.nodes) {
    const hang = () => {
      node.stalledUntil = cluster.now + 150 + dice.exponential(60);
      cluster.after(500 + dice.exponential(200), hang);
    };
    cluster.after(dice.between(1, 500), hang);
  }
  cluster.run(30 * T);
  const first = started(cluster).length;
  cluster.run(30 * T);
  const more = started(cluster).length - first;
  t.ok(first <= 6 * 4, `${first} requests in 30 T`);
  t.ok(more <= 3 * 4, `and ${more} in 30 more`);
  t.ok(tally.done > 100);
});

t.test('A32, STALL-4, STALL-5: clocks that jump: the primary gives up its role, a backup harms nobody', async (t) => {
  for (const [id, offMs] of [
    [0, 60_000],
    [0, -60_000],
    [2, -60_000],
  ] as const) {
    const load = { clients: 3, ahead: 1 };
    const { cluster, tally } = begin({ load, parameters: { timeDriftMsMax: 400 } });
    cluster.nodes[id]!.clock.offsetMs = offMs;
    // Followed by a tenth of its speed: it is off by more than the drift that is allowed after four seconds.
    cluster.run(3_500);
    t.same(reasons(cluster), [], `${offMs} at ${id}: no timer runs by it`);
    t.ok(Math.abs(cluster.nodes[id]!.clock.wall().aheadMs) > 300);
    t.ok(
      // Off by too much after another 500 ms. One that loses has its proposals refused at once; one that gains lets them wait ever longer.
      cluster.until(() => id !== 0 || hasLeft(cluster, 0), 500 + 3 * T),
      `${offMs} at ${id}: replaced, if it led`,
    );
    cluster.run(T);
    t.ok(isStable(cluster, tally), `${offMs} at ${id}`);
    t.ok(started(cluster).length <= (id === 0 ? 4 : 0), `${offMs} at ${id}: ${reasons(cluster)}`);
  }
});

t.test('STALL-4: a primary that nobody votes for gives up before it is given up', async (t) => {
  const { cluster, tally } = begin();
  for (const to of [1, 2, 3]) cluster.setWeather(0, to, { ...fair, cut: true });
  t.ok(cluster.until(() => started(cluster).some(({ at }) => at === 0), 2 * T));
  for (const to of [1, 2, 3]) cluster.setWeather(0, to, fair);
  t.ok(cluster.until(() => isStable(cluster, tally), 3 * T));
});

// ---- honest clusters ------------------------------------------------------------------------------------------------------

const CALM_MS = 1_500;

/** Loaded, slow, far apart, in bursts, with f replicas down: whatever may befall honest ones. */
function honestLife(seed: number, n: number): { readonly cluster: Cluster; readonly what: string } {
  const dice = new Dice(1_000 * n + seed);
  const parameters = { window: dice.pick([1, 4, 8]), blockBundlesMax: dice.pick([4, 64, 1024]) };
  const cluster = new Cluster({ n, seed, parameters });
  const [delay, write] = [dice.pick([2, 20, 80]), dice.pick([3, 30, 120])];
  cluster.faults = { delayMs: [1, delay], loss: 0, repeat: 0, writeMs: [1, write], inOrder: true };
  const load = { clients: dice.pick([1, 4, 12]), ahead: dice.pick([1, 4, 16]), bytes: dice.pick([32, 4_000]) };
  cluster.run(100);
  const down = dice.chance(0.3) ? Math.floor((n - 1) / 3) : 0;
  for (let id = n - down; id < n; id++) cluster.crash(id);
  // One backup is slow, and the quorum may need it.
  if (dice.chance(0.3)) {
    const slow = dice.between(1, n - 1 - down);
    cluster.slowMs = (id) => (id === slow ? dice.exponential(60) : 0);
  }
  const reachable = n - down;
  const tally = { clients: load.clients, open: 0 };
  const bursts = dice.chance(0.3);
  for (let i = 0; i < load.clients; i++) {
    const client = new SimClient(cluster.genesis, `client-${i}`);
    const open: string[] = [];
    const look = () => {
      for (const digest of [...open]) if (cluster.placeOf(digest) !== undefined) open.splice(open.indexOf(digest), 1);
      const count = bursts ? (open.length === 0 && dice.chance(0.05) ? 4 * load.ahead : 0) : load.ahead - open.length;
      for (let k = 0; k < count; k++) {
        const bundle = client.bundle([Buffer.alloc(load.bytes, i)], { validUntil: 90_000 });
        open.push(toHex(bundle.digest));
        cluster.submit(i % reachable, bundle);
      }
      cluster.after(2 + dice.exponential(5), look);
    };
    cluster.after(dice.between(1, 50), look);
  }
  cluster.run(CALM_MS);
  return { cluster, what: JSON.stringify({ n, seed, ...parameters, delay, write, ...load, down, bursts, ...tally }) };
}

for (const n of [4, 7])
  t.test(`A4, PACE-2: honest and loaded: no view change in 32 lives of ${n} replicas`, async (t) => {
    for (let seed = 1; seed <= 32; seed++) {
      const { cluster, what } = honestLife(seed, n);
      t.same(reasons(cluster), [], what);
      t.ok(cluster.chain.size > 2, what);
    }
  });

// ---- teeth ----------------------------------------------------------------------------------------------------------------

/** Something else in the place of a method, while `run` runs. */
function planted<Result>(change: Partial<Pick<Pace, 'isTooSlow' | 'forgive'>>, run: () => Result): Result {
  const { isTooSlow, forgive } = Pace.prototype;
  Object.assign(Pace.prototype, change);
  try {
    return run();
  } finally {
    Object.assign(Pace.prototype, { isTooSlow, forgive });
  }
}

t.test('A32: planted: a stall of its own is held against the primary: caught within 5 seeds', async (t) => {
  const caught = planted({ forgive: () => undefined }, () =>
    [1, 2, 3, 4, 5].find((seed) => started(hangs(seed).cluster).length > 0),
  );
  t.ok(caught !== undefined, `seed ${caught}`);
});

t.test('A4: planted: the judgement is never made: caught by the first seed', async (t) => {
  const { ledMs } = planted({ isTooSlow: () => false }, () => withSlow({ how: 'constant', ms: 0.9 * T }));
  t.equal(ledMs, null, 'it leads on');
});

// ---- the rules at their edges ---------------------------------------------------------------------------------------------

t.test('PACE-2: what is allowed follows the rounds, never beyond half a timeout', async (t) => {
  const pace = new Pace(asMillis(0));
  t.equal(pace.allowedMs(pacing), T / 2, 'before the first round');
  for (let i = 0; i < 200; i++) pace.measure(20);
  t.ok(pace.allowedMs(pacing) >= 20 && pace.allowedMs(pacing) <= 50);
  for (let i = 0; i < 200; i++) pace.measure(5_000);
  t.equal(pace.allowedMs(pacing), T / 2);
});

t.test('PACE-3, PACE-5: lateness adds up, is forgiven by a quarter, and patience doubles and shrinks', async (t) => {
  const pace = new Pace(asMillis(0));
  for (let i = 0; i < 200; i++) pace.measure(10);
  const allowed = pace.allowedMs(pacing);
  pace.keep(asMillis(100), asMillis(0), true, pacing);
  t.equal(Math.round(pace.lateMs), Math.round(100 - allowed - allowed / 4));
  t.equal(pace.percent, Math.round(allowed));
  pace.keep(asMillis(200), null, true, pacing);
  t.equal(Math.round(pace.lateMs), Math.round(100 - allowed - allowed / 4 - 25));
  pace.keep(asMillis(2_000), asMillis(200), true, pacing);
  t.ok(pace.isTooSlow(pacing));
  pace.gaveUp(asMillis(2_000));
  pace.beginView(asMillis(2_000));
  t.notOk(pace.isTooSlow(pacing));
  t.equal(pace.lateMsMax(pacing), 4 * T);
  pace.keep(asMillis(2_000 + 256 * T), null, false, pacing);
  t.equal(pace.lateMsMax(pacing), 2 * T);
  for (let i = 0; i < 20; i++) pace.gaveUp(asMillis(0));
  t.equal(pace.lateMsMax(pacing), 2 * T * 256, 'at most');
});

t.test('PACE-4: own stalls are forgiven', async (t) => {
  const pace = new Pace(asMillis(0));
  for (let i = 0; i < 200; i++) pace.measure(10);
  pace.keep(asMillis(5_000), asMillis(0), true, pacing);
  t.ok(pace.isTooSlow(pacing));
  pace.forgive(5_000);
  t.equal(pace.lateMs, 0);
});

t.test('STALL-1: a disk that holds this replica up is told of as it goes on, each millisecond once', async (t) => {
  const lag = new WriteLag(T);
  lag.begin(0);
  t.equal(lag.take(T / 2), 0, 'slow is no stall');
  t.equal(lag.take(300), 300);
  t.equal(lag.take(450), 150);
  lag.end(1_000);
  t.equal(lag.take(1_000), 550);
  t.equal(lag.take(9_000), 0);
  t.equal(lag.writingMs(9_000), 0);
  lag.begin(9_000);
  t.equal(lag.writingMs(9_010), 10);
  lag.end(9_010);
  t.equal(lag.take(9_020), 0);
});

t.test('STALL-1: a loop that is behind with its frames says so, and not what the core sees itself', async (t) => {
  let now = 0;
  const lag = new LoopLag(HEARTBEAT, { now: () => now, delays: false });
  now = 50;
  t.equal(lag.take(0, null), 0);
  now = 150;
  t.equal(lag.take(0, 60), 0, 'not for long');
  now = 200;
  t.equal(lag.take(0, 60), 50, 'since the last step');
  now = 900;
  t.equal(lag.take(600, 60), 0, 'the core was called late and knows');
});

t.test('STALL-2: stalls are forgotten by an eighth; handing over doubles what is borne', async (t) => {
  const stalls = new Stalls(asMillis(0));
  stalls.note(asMillis(100), 'loop', 200);
  stalls.keep(asMillis(800), T);
  t.equal(stalls.ms, 100);
  t.same(stalls.loop, { at: 100, ms: 200 });
  stalls.note(asMillis(800), 'disk', 300);
  stalls.note(asMillis(900), 'disk', 100);
  t.same(stalls.disk, { at: 900, ms: 400 }, 'piece by piece');
  stalls.handedOver(asMillis(900));
  t.equal(stalls.msMax(T), 4 * T);
  stalls.keep(asMillis(900 + 256 * T), T);
  t.equal(stalls.msMax(T), 2 * T);

  const solo = new Solo({ self: 0 }).connect();
  solo.all({ type: 'stalled', what: 'disk', ms: 2 * T });
  t.equal(solo.view, '0');
  const out = solo.all({ type: 'stalled', what: 'disk', ms: 2 * T });
  t.equal(solo.view, '1?', 'a primary hands over');
  t.match(out.events, [{ type: 'view-change-started', reason: /its own disk/ }]);
  const backup = new Solo().connect();
  for (let i = 0; i < 10; i++) backup.all({ type: 'stalled', what: 'disk', ms: 2 * T });
  t.equal(backup.view, '0');
  t.equal(backup.core.explain().stalls.diskMs, 20 * T);
});

t.test(
  'STALL-3: whoever leads and asks for a later view is followed at once, by one view; nobody else is',
  async (t) => {
    const solo = new Solo().connect();
    solo.all(heard(2, viewChange(1)));
    t.equal(solo.view, '0');
    const follower = new Solo().connect();
    const out = follower.all(heard(0, viewChange(7)));
    t.equal(follower.view, '1?');
    t.match(out.events, [{ reason: /gave its view up/ }]);
  },
);

t.test('STALL-5: timers run by a clock that nobody can set; the time in blocks follows the wall', async (t) => {
  let [wall, monotonic] = [1_000_000, 50];
  const clock = new Clock({ wall: () => wall, monotonic: () => monotonic });
  t.equal(clock.now(), 1_000_000);
  wall += 3_600_000;
  monotonic += 100;
  t.equal(clock.now(), 1_000_100);
  t.same(clock.wall(), { aheadMs: 10, leftMs: 3_599_890 }, 'a tenth');
  wall -= 7_200_000;
  monotonic += 1_000;
  t.equal(clock.now(), 1_001_100);
  t.same(clock.wall(), { aheadMs: -90, leftMs: -3_601_010 });

  const solo = new Solo({ self: 0 }).connect();
  const bundle = solo.client.bundle([Buffer.from('x')]);
  const out = solo.all({ type: 'wall', aheadMs: 5_000, leftMs: 0 }, { type: 'bundle', bundle });
  const proposed = out.send.flatMap(({ message }) => (message.kind === 'pre-prepare' ? [message.block] : []));
  t.equal(proposed[0]?.header.time, solo.now + 5_000);
  t.equal(proposed[0]?.header.proposer, asReplicaId(0));
});
