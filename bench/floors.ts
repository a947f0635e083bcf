// What this machine gives at best, measured in the same run as the replicas, and the latency that follows from it.

import { join } from 'node:path';
import { freePortRange } from '../daemon/cli/ports.ts';
import type { Protocol } from '../protocol/modes.ts';
import type { ComputeFloors } from './floor-tasks.ts';
import type { Quantiles } from './histogram.ts';
import { pathOf } from './paths.ts';
import { runWorker, startWorker } from './task.ts';

export interface SyncFloor {
  readonly bytes: number;
  readonly preallocated: boolean;
  /** Of one process that has the disk to itself, and of the slowest of n at once; milliseconds. */
  readonly alone: Quantiles;
  readonly together: Quantiles;
}

export interface Floors {
  readonly processes: number;
  readonly syncs: readonly SyncFloor[];
  /** Of one process alone. */
  readonly compute: ComputeFloors;
  /** Of the slowest of n processes at once: replicas check the same proposal and the same votes at the same moment. */
  readonly computeTogether: ComputeFloors;
  /** A frame of 200 bytes to another process and back, in milliseconds. */
  readonly roundTrip: Quantiles;
  /** One commit without a protocol (exchange.ts), for each n; milliseconds at the client. */
  readonly exchanges: readonly { readonly n: number; readonly latencyMs: Quantiles }[];
}

const workerMsMax = 60_000;
const syncKinds = [
  { bytes: 1024, preallocated: true },
  { bytes: 1024, preallocated: false },
  { bytes: 128 << 10, preallocated: false },
  { bytes: 1 << 20, preallocated: false },
];

export async function measureFloors(options: {
  readonly directory: string;
  readonly processes: number;
  /** For which the bare exchange is measured. */
  readonly replicas: readonly number[];
  /** For each of them. */
  readonly ms: number;
}): Promise<Floors> {
  const { directory, processes, replicas, ms } = options;
  const syncs: SyncFloor[] = [];
  for (const kind of syncKinds) {
    const writers = (count: number) =>
      Promise.all(
        Array.from({ length: count }, (_, i) =>
          runWorker<Quantiles>({
            task: { kind: 'sync', path: join(directory, `floor-${i}`), ms, ...kind },
            msMax: workerMsMax,
          }),
        ),
      );
    const [alone] = await writers(1);
    const all = await writers(processes);
    const together = all.reduce((slowest, each) => (each.p50 > slowest.p50 ? each : slowest));
    syncs.push({ ...kind, alone: alone ?? together, together });
  }
  const computers = (count: number) =>
    Promise.all(
      Array.from({ length: count }, () =>
        runWorker<ComputeFloors>({ task: { kind: 'compute', ms }, msMax: workerMsMax }),
      ),
    );
  const [compute] = await computers(1);
  const computeTogether = (await computers(processes)).reduce((slowest, each) =>
    each.verify < slowest.verify ? each : slowest,
  );
  return {
    processes,
    syncs,
    compute: compute ?? computeTogether,
    computeTogether,
    roundTrip: await measureRoundTrip(ms),
    exchanges: await inTurn(replicas, async (n) => ({ n, latencyMs: await measureExchange(n, directory, 3 * ms) })),
  };
}

async function inTurn<A, B>(each: readonly A[], work: (item: A) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  for (const item of each) results.push(await work(item));
  return results;
}

async function measureExchange(n: number, directory: string, ms: number): Promise<Quantiles> {
  const basePort = await freePortRange('127.0.0.1', n);
  const ports = Array.from({ length: n }, (_, i) => basePort + i);
  const replicas = ports.map((_, index) =>
    startWorker({
      task: { kind: 'exchange-replica', index, ports, path: join(directory, `exchange-${index}`) },
      msMax: workerMsMax,
    }),
  );
  try {
    const client = runWorker<Quantiles>({ task: { kind: 'exchange-client', ports, ms }, msMax: workerMsMax });
    // A replica returns only if it fails.
    return await Promise.race([client, ...replicas.map((replica) => replica.result<never>())]);
  } finally {
    for (const replica of replicas) replica.kill();
  }
}

async function measureRoundTrip(ms: number): Promise<Quantiles> {
  let known = (_port: number): void => undefined;
  const port = new Promise<number>((resolve) => {
    known = resolve;
  });
  const server = startWorker({
    task: { kind: 'echo-server' },
    msMax: workerMsMax,
    onMark: (_name, value) => known(value ?? 0),
  });
  try {
    return await runWorker<Quantiles>({
      task: { kind: 'echo', port: await Promise.race([port, server.result<number>()]), bytes: 200, ms },
      msMax: workerMsMax,
    });
  } finally {
    server.kill();
  }
}

export interface LatencyFloor {
  readonly totalMs: number;
  readonly hopsMs: number;
  readonly syncsMs: number;
  readonly signaturesMs: number;
}

/**
 * The least that one commit can take: its hops, the synced writes that it waits for, and the signatures that somebody waits for, one after the
 * other, of the fastest quorum (paths.ts). What the replicas do at the same moment, writes and signatures, takes what it takes when n processes
 * of this machine do it at once.
 */
export function latencyFloor(
  floors: Floors,
  { n, protocol }: { readonly n: number; readonly protocol: Protocol },
  replicas: 'alone' | 'together',
): LatencyFloor {
  const { compute } = floors;
  const shared = replicas === 'alone' ? compute : floors.computeTogether;
  const { hops, syncs, signs, verifies } = pathOf(protocol, n);
  const hopsMs = (hops * floors.roundTrip.p50) / 2;
  const appended = floors.syncs.find((sync) => !sync.preallocated) ?? floors.syncs[0]!; // three are measured
  const syncsMs = syncs * appended[replicas].p50;
  const signaturesMs =
    1000 *
    (signs.alone / compute.sign +
      signs.shared / shared.sign +
      verifies.alone / compute.verify +
      verifies.shared / shared.verify);
  return { totalMs: hopsMs + syncsMs + signaturesMs, hopsMs, syncsMs, signaturesMs };
}
