// Faults that come and go while clients retry, for tests that drive a cluster themselves; whole lives are sim/life.ts. Everything comes from
// the cluster's seed.

import type { SignedBundle } from '../protocol/bundle.ts';
import { SimClient } from '../sim/clients.ts';
import type { Cluster } from '../sim/cluster.ts';

const text = (value: string) => Buffer.from(value);

export interface Load {
  readonly clients: number;
  readonly everyMs: number;
  /** Since the cluster began; who drives it may end it sooner. */
  untilMs: number;
}

/** Drives clients that retry everywhere until their bundle is decided somewhere. */
export function load(cluster: Cluster, drive: Load): SignedBundle[] {
  const { clients, everyMs } = drive;
  const sent: SignedBundle[] = [];
  for (let i = 0; i < clients; i++) {
    const client = new SimClient(cluster.genesis, `client-${i}`);
    const next = (n: number) => {
      if (cluster.now - cluster.start > drive.untilMs) return;
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
