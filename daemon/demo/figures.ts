// Figures of the demo, from what was measured, with what each of them means.

import type { Bytes } from '../../crypto/bytes.ts';
import { table } from '../cli/output.ts';
import type { Check } from './checks.ts';
import type { Crash, Follower, Progress } from './ordering.ts';

export interface Result {
  readonly passed: boolean;
  readonly checks: readonly Check[];
  readonly figures: Figures;
}

/** Times in milliseconds; null: did not happen. */
export interface Figures {
  readonly transactions: number;
  readonly bytes: number;
  readonly bundles: number;
  readonly blocks: number;
  /** From the first bundle sent to the last receipt, the crash included. */
  readonly totalMs: number;
  readonly transactionsPerSecond: number;
  /** From a bundle's sending to its verified receipt: all of them, and those that were sent and proved before the crash. */
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  readonly calmLatencyP50Ms: number;
  readonly calmLatencyP99Ms: number;
  /** The longest time without a receipt from the kill on until the replica was started again. */
  readonly failoverGapMs: number;
  /** From the kill until another replica entered a later view, by its log. */
  readonly viewChangeMs: number | null;
  /** From the start of the process, its own start-up included. */
  readonly catchUpMs: number | null;
}

export interface Measured {
  readonly progress: Progress;
  readonly follower: Follower;
  readonly crash: Crash;
  readonly startedAt: number;
  readonly endedAt: number;
  readonly bundles: readonly (readonly Bytes[])[];
  readonly bytes: number;
}

export function figuresOf({ progress, follower, crash, startedAt, endedAt, bundles, bytes }: Measured): Figures {
  const latencies = progress.receipts.map(({ sentAt, committedAt }) => committedAt - sentAt);
  const calm = progress.receipts.filter(({ committedAt }) => committedAt < crash.killedAt);
  const calmLatencies = calm.map(({ sentAt, committedAt }) => committedAt - sentAt);
  const times = progress.receipts.map(({ committedAt }) => committedAt).sort((a, b) => a - b);
  const totalMs = endedAt - startedAt;
  const { killedAt, restartedAt, viewChange, caughtUpAt } = crash;
  return {
    transactions: follower.transactions.length,
    bytes,
    bundles: bundles.length,
    blocks: follower.blocks,
    totalMs,
    transactionsPerSecond: (progress.committed / totalMs) * 1000,
    latencyP50Ms: percentile(latencies, 0.5),
    latencyP99Ms: percentile(latencies, 0.99),
    calmLatencyP50Ms: percentile(calmLatencies, 0.5),
    calmLatencyP99Ms: percentile(calmLatencies, 0.99),
    failoverGapMs: longestPause(times, killedAt, restartedAt),
    viewChangeMs: viewChange === null ? null : viewChange.at - killedAt,
    catchUpMs: caughtUpAt === null ? null : caughtUpAt - restartedAt,
  };
}

export function figuresTable(figures: Figures): string[] {
  const { transactions, bytes, bundles, blocks, totalMs, transactionsPerSecond } = figures;
  return table([
    ['ordered', `${grouped(transactions)} transactions, ${grouped(bytes)} bytes, ${bundles} bundles, ${blocks} blocks`],
    [
      'rate',
      `${grouped(Math.round(transactionsPerSecond))} transactions/s over ${(totalMs / 1000).toFixed(1)} s, crash included, at the demo's own pace`,
    ],
    [
      'latency before the crash',
      `p50 ${inMs(figures.calmLatencyP50Ms)}, p99 ${inMs(figures.calmLatencyP99Ms)}, from sending a bundle to its verified receipt`,
    ],
    ['latency of all', `p50 ${inMs(figures.latencyP50Ms)}, p99 ${inMs(figures.latencyP99Ms)}`],
    ['failover gap', `${inMs(figures.failoverGapMs)}, the longest time without a receipt after the kill`],
    ['view change', `${inMs(figures.viewChangeMs)} from the kill to the new view`],
    ['catch-up', `${inMs(figures.catchUpMs)} from the start of the process to the height of the others`],
  ]);
}

/** Nearest-rank percentile, q from 0 to 1; NaN for none. */
export function percentile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

/** The longest time between two neighbours of rising `times`, of those pairs that touch [from, to]. */
export function longestPause(times: readonly number[], from: number, to: number): number {
  let longest = 0;
  for (let i = 1; i < times.length; i++) {
    const before = times[i - 1] ?? 0;
    const after = times[i] ?? 0;
    if (after >= from && before <= to) longest = Math.max(longest, after - before);
  }
  return longest;
}

export const grouped = (value: number): string => value.toLocaleString('en-US');

function inMs(value: number | null): string {
  if (value === null || Number.isNaN(value)) return 'did not happen';
  return `${value < 10 ? value.toFixed(1) : grouped(Math.round(value))} ms`;
}
