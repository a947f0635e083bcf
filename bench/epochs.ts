// What a change of the epoch costs those who order: one bundle at a time all along, and changes of every kind meanwhile. The pause is the longest
// time between two acknowledgements, from when a change is handed in until everybody has begun the next epoch, by their logs, and half a second more
// for what is put off until then. Beside it stand the longest such time in as long a while just before, without a change, the latency of the same load
// away from all of them, and what the exchange of a checkpoint takes on the same cluster.

import { existsSync, readFileSync } from 'node:fs';
import { addressOf, giveNextKey, handIn, makeObserver, publicKeyOf, signedChange } from './changes.ts';
import { BenchCluster } from './cluster.ts';
import { Histogram, median } from './histogram.ts';
import type { Phase, PhaseResult } from './load.ts';
import { pause, startWorker } from './task.ts';

export const changeKinds = [
  'a parameter',
  "a backup's key",
  "the primary's key",
  'a member comes',
  'a member goes',
] as const;
export type ChangeKind = (typeof changeKinds)[number];

export interface ChangeRound {
  readonly kind: ChangeKind;
  readonly epoch: number;
  /** The longest time between two acknowledgements in a row around it. */
  readonly pauseMs: number;
  /** The same, in as long a while that ended as it was handed in. */
  readonly undisturbedMs: number;
  /** Of what was submitted around it, from due to acknowledged. */
  readonly p99Ms: number;
}

export interface EpochsResult {
  readonly n: number;
  readonly rounds: readonly ChangeRound[];
  /** p50 of the same load away from all changes. */
  readonly unloadedMs: number;
  /** Median over the checkpoints of the run. */
  readonly checkpointMs: number;
  readonly failed: number;
  readonly unsettled: number;
}

const n = 4;
const fifth = 'node-4';
/** Between changes: a few checkpoints' worth of undisturbed load. */
const quietMs = 1_500;
/** Around a change, from the moment when it is handed in: nobody asks anything meanwhile. */
const windowMs = 2_000;
/** After everybody has begun the epoch. */
const afterMs = 500;
const patienceMs = 30_000;

export async function measureEpochs(options: {
  readonly rounds: number;
  readonly viewTimeoutMs: number | null;
  readonly recorderMiB: readonly number[];
}): Promise<EpochsResult> {
  const { rounds, ...rest } = options;
  const cluster = await BenchCluster.start({
    replicas: n,
    standIns: { sign: false, sync: false },
    profileDirectory: null,
    ...rest,
    prepare: async (made) => {
      for (const name of made.names) await giveNextKey(made, name);
    },
  });
  const phase: Phase = {
    name: 'changes',
    transactionBytes: 256,
    bundle: 1,
    pace: { kind: 'closed', outstanding: 1 },
    // V8 compiles late what runs a hundred times a second, and a pause in code that is still interpreted is no replica's that has run for a minute.
    warmupMs: 25_000,
    ms: 20 * 60_000,
    timeline: true,
  };
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const worker = startWorker({
    task: { kind: 'load', directory: cluster.directory, noSign: false, clients: 1, phases: [phase] },
    msMax: 25 * 60_000,
    onMark: (name) => {
      if (name === 'begin') begin();
    },
  });
  try {
    await Promise.race([begun, worker.result()]);
    const changes: Changed[] = [];
    for (let round = 0; round < rounds; round++)
      for (const kind of changeKinds) {
        const change = await makeChange(cluster, kind, round);
        if (change === null) continue;
        await pause(quietMs);
        const at = performance.timeOrigin + performance.now();
        await handIn(cluster, change.control);
        await untilEpoch(cluster, change.epoch, [...cluster.names, ...(kind === 'a member comes' ? [fifth] : [])]);
        changes.push({ kind, epoch: change.epoch, at, until: performance.timeOrigin + performance.now() });
      }
    await pause(quietMs);
    worker.stop();
    const [result] = await worker.result<PhaseResult[]>();
    return resultOf(cluster, result!, changes); // one phase was asked for
  } finally {
    worker.kill();
    await cluster.stop();
  }
}

/** Null: of this kind there are no more in this run. */
async function makeChange(cluster: BenchCluster, kind: ChangeKind, round: number) {
  const rekey = async (name: string) =>
    signedChange(
      cluster,
      { change: 'replace-replica-key', name, publicKey: await publicKeyOf(cluster, name, 'next') },
      { name, which: 'next' },
    );
  switch (kind) {
    case 'a parameter':
      return signedChange(cluster, { change: 'set-parameter', parameter: 'timeDriftMsMax', value: 9_000 + round });
    case "a backup's key": {
      const name = cluster.names[1 + round];
      return name === undefined ? null : rekey(name);
    }
    case "the primary's key":
      return round > 0 ? null : rekey(cluster.names[0]!);
    case 'a member comes': {
      // Whoever looks for the network's files finds members alone until now.
      if (round === 0) await makeObserver(cluster, fifth);
      cluster.startReplica(fifth, ['--observe']);
      await untilClose(cluster);
      return signedChange(
        cluster,
        {
          change: 'add-member',
          name: fifth,
          publicKey: await publicKeyOf(cluster, fifth, 'replica'),
          operatorKey: await publicKeyOf(cluster, fifth, 'operator'),
          address: addressOf(cluster, fifth),
        },
        { name: fifth, which: 'replica' },
      );
    }
    case 'a member goes':
      cluster.expectEnd(fifth);
      return signedChange(cluster, { change: 'remove-member', name: fifth });
  }
}

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`bench: never: ${what}`);
    await pause(250);
  }
}

async function untilEpoch(cluster: BenchCluster, epoch: number, names: readonly string[]): Promise<void> {
  // Who asks takes part of the processor.
  await pause(windowMs);
  await eventually(`epoch ${epoch}`, async () => {
    const all = await Promise.all(names.map((name) => cluster.status(name)));
    return all.every((status) => status?.ready === true && status.epoch >= epoch);
  });
}

const untilClose = (cluster: BenchCluster): Promise<void> =>
  eventually('the observer is close', async () => {
    const [there, { height }] = [await cluster.status(fifth), await cluster.lead()];
    return there !== null && height - there.height < 64;
  });

interface Changed {
  readonly kind: ChangeKind;
  readonly epoch: number;
  /** Milliseconds since 1970: handed in, and all was quiet again. */
  readonly at: number;
  readonly until: number;
}

function resultOf(
  cluster: BenchCluster,
  { timeline, failures, unsettled }: PhaseResult,
  changes: readonly Changed[],
): EpochsResult {
  const acks = [...timeline].sort(([, a], [, b]) => a - b);
  const longestGap = (from: number, to: number): number => {
    const gaps = acks.map(([, ack], i) => {
      const [, before] = acks[i - 1] ?? [0, from];
      return ack >= from && before <= to ? ack - before : 0;
    });
    return Math.max(...gaps);
  };
  const rounds = changes.map(({ kind, epoch, at }) => {
    const until = begunAt(cluster, epoch) + afterMs;
    const latencies = new Histogram();
    for (const [due, ack] of acks) if (ack >= at && due <= until) latencies.record(ack - due);
    const { p99: p99Ms } = latencies.quantiles();
    return {
      kind,
      epoch,
      pauseMs: longestGap(at, until),
      undisturbedMs: longestGap(Math.max(at - quietMs, at - (until - at)), at),
      p99Ms,
    };
  });
  const quiet = acks.filter(([due, ack]) => changes.every(({ at, until }) => ack < at || due > until));
  return {
    n,
    rounds,
    unloadedMs: median(quiet.map(([due, ack]) => ack - due)),
    checkpointMs: median(checkpointsOf(cluster, quiet)),
    failed: Object.values(failures).reduce((sum, count) => sum + count, 0),
    unsettled,
  };
}

/** When the last of them had the first block of this epoch, or started in it. */
function begunAt(cluster: BenchCluster, epoch: number): number {
  const names = [...cluster.names, fifth].filter((name) => existsSync(cluster.logOf(name)));
  const times = names.flatMap((name) =>
    readFileSync(cluster.logOf(name), 'utf8')
      .split('\n')
      .filter((line) => /"msg":"(the next epoch has begun|started)"/.test(line))
      .map((line): { readonly epoch: number; readonly time: number | string } => JSON.parse(line))
      .filter((line) => line.epoch === epoch)
      .map(({ time }) => new Date(time).getTime()),
  );
  return Math.max(...times);
}

/**
 * From the acknowledgement of the block at a checkpoint's height, at the client, until a quorum of replicas has said in its log that the checkpoint is
 * stable: its state is written, its votes have been signed, sent and counted. By clocks of one machine, to the millisecond.
 */
function checkpointsOf(cluster: BenchCluster, acks: PhaseResult['timeline']): number[] {
  const ackAt = new Map(acks.map(([, ack, height]) => [height, ack]));
  const stableAt = new Map<number, number[]>();
  for (const name of cluster.names)
    for (const line of readFileSync(cluster.logOf(name), 'utf8').split('\n')) {
      if (!line.includes('"checkpoint-stable"')) continue;
      const { height, time }: { readonly height: number; readonly time: number | string } = JSON.parse(line);
      stableAt.set(height, [...(stableAt.get(height) ?? []), new Date(time).getTime()]);
    }
  const quorum = n - Math.floor((n - 1) / 3);
  return [...stableAt].flatMap(([height, times]) => {
    const ack = ackAt.get(height);
    const last = times.sort((a, b) => a - b)[quorum - 1];
    return ack === undefined || last === undefined ? [] : [Math.max(0, last - ack)];
  });
}
