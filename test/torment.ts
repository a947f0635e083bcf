// Random lives for clusters in virtual time: clients that retry, faults that come and go, and a calm end in which a quorum must
// make progress. Everything comes from the cluster's seed.

import type { SignedBundle } from '../protocol/bundle.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';

const text = (value: string) => Buffer.from(value);

/** Drives clients that retry everywhere until their bundle is decided somewhere. */
export function load(
  cluster: Cluster,
  { clients, everyMs, untilMs }: { clients: number; everyMs: number; untilMs: number },
): SignedBundle[] {
  const sent: SignedBundle[] = [];
  for (let i = 0; i < clients; i++) {
    const client = new SimClient(cluster.genesis, `client-${i}`);
    const next = (n: number) => {
      if (cluster.now - cluster.start > untilMs) return;
      const bundle = client.bundle([text(`c${i}-n${n}`)], { validUntil: 50_000 });
      sent.push(bundle);
      const tryAgain = () => {
        const live = cluster.live();
        if (live.some((id) => cluster.has(id, bundle))) return next(n + 1);
        if (live.length > 0) cluster.submit(live[Math.floor(cluster.random() * live.length)]!, bundle);
        cluster.after(everyMs, tryAgain);
      };
      tryAgain();
    };
    cluster.after(cluster.between([0, everyMs]), () => next(0));
  }
  return sent;
}

/** A random life: crashes and restarts, splits, loss; at most f down at once unless `blackouts`. */
export function torment(cluster: Cluster, { untilMs, blackouts }: { untilMs: number; blackouts: boolean }): void {
  const n = cluster.nodes.length;
  const f = Math.floor((n - 1) / 3);
  const step = () => {
    if (cluster.now - cluster.start > untilMs) return;
    const roll = cluster.random();
    const live = cluster.live();
    const down = cluster.nodes.filter((node) => node.core === null).map((node) => node.id);
    if (roll < 0.3 && (down.length < f || blackouts) && live.length > 0)
      cluster.crash(live[Math.floor(cluster.random() * live.length)]!);
    else if (roll < 0.6 && down.length > 0) cluster.boot(down[Math.floor(cluster.random() * down.length)]!);
    else if (roll < 0.7) {
      const ids = cluster.nodes.map((node) => Number(node.id)).sort(() => cluster.random() - 0.5);
      const cut = 1 + Math.floor(cluster.random() * (n - 1));
      cluster.partition = [ids.slice(0, cut), ids.slice(cut)];
    } else if (roll < 0.85) cluster.partition = null;
    else
      cluster.faults = {
        delayMs: [1, 1 + Math.floor(cluster.random() * 80)],
        loss: cluster.random() < 0.5 ? 0 : cluster.random() * 0.2,
        repeat: cluster.random() * 0.1,
        writeMs: [1, 1 + Math.floor(cluster.random() * 20)],
      };
    cluster.after(cluster.between([50, 800]), step);
  };
  cluster.after(200, step);
}

/** All is well again, except that f replicas stay down for ever: the others must order everything. */
export function heal(cluster: Cluster, { stayDown }: { stayDown: readonly number[] }): void {
  cluster.faults = calm;
  cluster.partition = null;
  cluster.tamper = null;
  for (const id of stayDown) cluster.crash(id);
  for (const node of cluster.nodes) if (node.core === null && !stayDown.includes(node.id)) cluster.boot(node.id);
}

export function survives(
  seed: number,
  { n = 4, realSignatures = false, blackouts = false, ms = 15_000, onEnd = (_: Cluster): void => {} } = {},
): { ok: boolean; reason: string; heights: number[]; views: number[]; digest: string } {
  const cluster = new Cluster({ n, seed, realSignatures, parameters: { checkpointInterval: 16 } });
  const sent = load(cluster, { clients: 3, everyMs: 150, untilMs: ms });
  torment(cluster, { untilMs: ms, blackouts });
  cluster.run(ms + 500);
  const f = Math.floor((n - 1) / 3);
  const stayDown = Array.from({ length: f }, () => Math.floor(cluster.random() * n));
  heal(cluster, { stayDown });
  const live = () => cluster.live();
  const done = cluster.until(
    () =>
      live().every((id) =>
        sent.every((bundle) => cluster.has(id, bundle) || (cluster.height(id) >= 1 && isCovered(cluster, id, bundle))),
      ),
    60_000,
  );
  const heights = cluster.nodes.map((node) => cluster.height(node.id));
  const views = cluster.nodes.map((node) => node.core?.explain().view ?? -1);
  const equal =
    new Set(live().map((id) => cluster.height(id))).size === 1 ||
    cluster.until(() => new Set(live().map((id) => cluster.height(id))).size === 1, 5_000);
  const reason = !done ? 'a transaction was never ordered' : !equal ? 'the heights stay apart' : '';
  onEnd(cluster);
  return { ok: reason === '', reason, heights, views, digest: cluster.trace.digest() };
}

/** A replica that took a checkpoint never delivered what lies below: someone else did, at or below its height. */
function isCovered(cluster: Cluster, id: number, bundle: SignedBundle): boolean {
  return cluster.nodes.some((node) => {
    const height = cluster.executedAt(node.id, bundle);
    return height !== undefined && height <= cluster.height(id);
  });
}
