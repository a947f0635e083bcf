// The primary dies under a steady load: how long do clients see no commit? Several rounds, each with another primary; the killed
// replica comes back before the next. Nothing that was submitted may stay without an answer.

import { BenchCluster } from './cluster.ts';
import { median } from './histogram.ts';
import type { Phase, PhaseResult } from './load.ts';
import { pause, startWorker } from './task.ts';

export interface FailoverRound {
  readonly killed: string;
  /** The longest time between two commits in a row around the kill, and before it. */
  readonly gapMs: number;
  readonly gapBeforeMs: number;
  /** From due to committed: the worst. */
  readonly worstLatencyMs: number;
  readonly committed: number;
  readonly failed: number;
  readonly unsettled: number;
}

export interface FailoverResult {
  readonly n: number;
  readonly transactionsPerSecond: number;
  readonly viewTimeoutMs: number;
  readonly rounds: readonly FailoverRound[];
  /** Of the rounds' gaps. */
  readonly medianGapMs: number;
  readonly worstGapMs: number;
}

const transactionsPerSecond = 100;
const beforeMs = 2_000;
const afterMs = 4_000;

export async function measureFailover(options: {
  readonly n: number;
  readonly rounds: number;
  readonly viewTimeoutMs: number | null;
  readonly recorderMiB: readonly number[];
}): Promise<FailoverResult> {
  const { n } = options;
  const cluster = await BenchCluster.start({
    replicas: n,
    standIns: { sign: false, sync: false },
    profileDirectory: null,
    viewTimeoutMs: options.viewTimeoutMs,
    recorderMiB: options.recorderMiB,
  });
  try {
    const rounds: FailoverRound[] = [];
    while (rounds.length < options.rounds) {
      const { killed, round } = await oneRound(cluster);
      rounds.push(round);
      cluster.startReplica(killed);
      await cluster.ready();
    }
    const gaps = rounds.map(({ gapMs }) => gapMs);
    const { viewTimeoutMs } = cluster.genesis.parameters;
    return {
      n,
      transactionsPerSecond,
      viewTimeoutMs,
      rounds,
      medianGapMs: median(gaps),
      worstGapMs: Math.max(...gaps),
    };
  } finally {
    await cluster.stop();
  }
}

async function oneRound(cluster: BenchCluster): Promise<{ readonly killed: string; readonly round: FailoverRound }> {
  const phase: Phase = {
    name: 'failover',
    transactionBytes: 256,
    bundle: 1,
    pace: { kind: 'open', transactionsPerSecond },
    warmupMs: 1_000,
    ms: beforeMs + afterMs,
    timeline: true,
  };
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const worker = startWorker({
    task: { kind: 'load', directory: cluster.directory, noSign: false, clients: 1, phases: [phase] },
    msMax: 120_000,
    onMark: (name) => {
      if (name === 'begin') begin();
    },
  });
  try {
    await Promise.race([begun, worker.result()]);
    await pause(beforeMs);
    const { primary: killed } = await cluster.lead();
    const killedAt = performance.timeOrigin + performance.now();
    await cluster.kill(killed);
    const [result] = await worker.result<PhaseResult[]>();
    return { killed, round: roundOf(killed, killedAt, result!) }; // one phase was asked for
  } finally {
    worker.kill();
  }
}

function roundOf(killed: string, killedAt: number, { timeline, failures, unsettled }: PhaseResult): FailoverRound {
  const commits = timeline.map(([, committedAt]) => committedAt).sort((a, b) => a - b);
  const longest = (wanted: (from: number, to: number) => boolean) =>
    commits.reduce((gap, at, i) => {
      const from = commits[i - 1];
      return from !== undefined && wanted(from, at) ? Math.max(gap, at - from) : gap;
    }, 0);
  return {
    killed,
    gapMs: longest((_, to) => to >= killedAt),
    gapBeforeMs: longest((_, to) => to < killedAt),
    worstLatencyMs: Math.max(0, ...timeline.map(([due, committedAt]) => committedAt - due)),
    committed: commits.length,
    failed: Object.values(failures).reduce((sum, count) => sum + count, 0),
    unsettled,
  };
}
