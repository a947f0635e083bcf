// The compliance suite of the cores: one set of scenarios that every protocol passes, on whole clusters in virtual time. A new one is on the list when it is in modes.ts.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { mainsOf, membersMin, protocols } from '../protocol/modes.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, type ClusterOptions } from '../sim/cluster.ts';
import { Operators } from '../sim/operators.ts';
import type { CrashPoint } from '../sim/replica.ts';
import { text } from './cluster-world.ts';

t.setTimeout(0);

/** Long enough for any number of elections and view changes that one fault takes. */
const SETTLE_MS = 20_000;
const POINTS: readonly CrashPoint[] = ['write-begun', 'log-written', 'guard-written', 'spoken'];

for (const protocol of protocols) {
  const n = membersMin(protocol);

  const begin = (options: ClusterOptions = {}) => {
    const cluster = new Cluster({ seed: 5, n, protocol, ...options });
    cluster.run(2_000);
    /** Those that keep the log. */
    const mains = mainsOf(cluster.genesis).map(Number);
    const client = new SimClient(cluster.genesis, 'alice');
    const bundle = (what: string) => client.bundle([text(what)], { validUntil: 50_000 });
    /** At every replica again and again, as a client does; whether all that are up have it in time. */
    const orders = (each: SignedBundle): boolean => {
      const everywhere = () => mains.every((id) => cluster.nodes[id]!.core === null || cluster.has(id, each));
      for (let tries = 0; tries < 20; tries++) {
        for (const id of mains) cluster.submit(id, each);
        if (cluster.until(everywhere, SETTLE_MS / 20)) return true;
      }
      return false;
    };
    const agree = () => cluster.until(() => new Set(mains.map((id) => cluster.height(id))).size === 1, SETTLE_MS);
    return { cluster, mains, bundle, orders, agree };
  };

  t.test(`${protocol}: one order, and each bundle once, however often and wherever it is said`, async (t) => {
    const { cluster, mains, orders, bundle, agree } = begin();
    const sent = Array.from({ length: 12 }, (_, i) => bundle(`${i}`));
    for (const each of sent) for (const id of mains) cluster.submit(id, each);
    t.ok(sent.every(orders));
    t.ok(sent.every(orders), 'and again');
    t.ok(agree());
    const orderAt = (id: number) =>
      cluster.delivered[id]!.flatMap(({ block }) => block.bundles.map(({ digest }) => toHex(digest)));
    const order = orderAt(mains[0]!);
    t.equal(order.length, sent.length);
    t.same([...order].sort(), sent.map(({ digest }) => toHex(digest)).sort());
    for (const id of mains) t.same(orderAt(id), order, `node-${id}`);
    // In the order of its session.
    t.same(
      order,
      sent.map(({ digest }) => toHex(digest)),
    );
  });

  t.test(`${protocol}: any replica ends at any point of any write, and comes back`, async (t) => {
    for (const [index, point] of POINTS.entries())
      for (let victim = 0; victim < n; victim++) {
        const { cluster, orders, bundle, agree } = begin();
        if (!orders(bundle('before'))) return t.fail(`node-${victim}: not ordered`);
        let left = 3;
        cluster.strikes = ({ id }, at) => {
          if (Number(id) !== victim || at !== point || left === 0) return false;
          left -= 1;
          const interrupted = (kept: boolean) => (kept ? 'kept' : 'lost');
          cluster.crash(victim, { log: interrupted((left + index) % 2 === 0), guard: interrupted(left % 2 === 0) });
          cluster.after(700, () => cluster.boot(victim));
          return true;
        };
        for (let i = 0; i < 6; i++)
          if (!orders(bundle(`meanwhile ${i}`))) return t.fail(`${point}, node-${victim}: not ordered`);
        cluster.strikes = () => false;
        cluster.run(1_000);
        t.ok(orders(bundle('after')) && agree(), `${point}, node-${victim}, ended ${3 - left} times`);
      }
  });

  t.test(`${protocol}: who was away comes back by blocks, and by a checkpoint`, async (t) => {
    for (const retain of [Number.POSITIVE_INFINITY, 8]) {
      const { cluster, mains, orders, bundle, agree } = begin({ parameters: { checkpointInterval: 16, window: 4 } });
      for (const { disk } of cluster.nodes) disk.retain = retain;
      t.ok(orders(bundle('first')));
      const away = mains.find((id) => id !== cluster.primary)!;
      cluster.crash(away);
      for (let i = 0; i < 50; i++) if (!orders(bundle(`${i}`))) return t.fail(`${i} is not ordered`);
      cluster.boot(away);
      t.ok(agree(), `node-${away} is back`);
      const byCheckpoint = cluster.events.some(
        ({ type, at }) => type === 'checkpoint-installed' && Number(at) === away,
      );
      t.equal(byCheckpoint, retain === 8);
      t.ok(orders(bundle('last')));
    }
  });

  t.test(`${protocol}: the power goes everywhere, and nothing that was acknowledged is lost`, async (t) => {
    const { cluster, mains, orders, bundle, agree } = begin();
    const sent = Array.from({ length: 5 }, (_, i) => bundle(`${i}`));
    t.ok(sent.every(orders));
    for (const { id } of cluster.nodes) cluster.crash(id);
    for (const { id } of cluster.nodes) cluster.boot(id);
    t.ok(orders(bundle('after')) && agree());
    t.ok(sent.every((each) => mains.every((id) => cluster.has(id, each))));
  });

  t.test(`${protocol}: an epoch changes under load, and changes the protocol too`, async (t) => {
    for (const change of [
      { change: 'set-parameter', parameter: 'window', value: 4 },
      { change: 'set-protocol', protocol: protocol === 'raft' ? 'multi-paxos' : 'raft' },
    ] as const) {
      const { cluster, mains, orders, bundle, agree } = begin({ operators: true });
      const operators = new Operators(cluster);
      const sent = Array.from({ length: 10 }, (_, i) => bundle(`${i}`));
      for (const each of sent.slice(0, 5)) for (const id of mains) cluster.submit(id, each);
      const ends = operators.bundle([change]);
      for (const id of mains) cluster.submit(id, ends);
      for (const each of sent.slice(5)) for (const id of mains) cluster.submit(id, each);
      t.ok(
        cluster.until(() => mains.every((id) => cluster.nodes[id]!.epoch.epoch === 1), SETTLE_MS),
        change.change,
      );
      t.ok(sent.every(orders) && orders(bundle('after')) && agree());
    }
  });
}
