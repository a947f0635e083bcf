// What the bench must reach, as ratios within one run: a slow or busy machine moves both sides.

import { type ChangeKind, changeKinds, type EpochsResult } from './epochs.ts';
import { type Floors, latencyFloor } from './floors.ts';
import { median } from './histogram.ts';
import type { RunResult } from './report.ts';
import { type PhaseReport, type ScenarioResult, saturatedName, unloadedName } from './scenarios.ts';

export interface Target {
  readonly name: string;
  readonly value: number;
  readonly wanted: string;
  readonly met: boolean;
}

const ceilingShareMin = 1 / 4;
const latencyFloorsMax = 3;
const trustedFloorsMax = 2.5;
/** Of the rate of PBFT, with a leader and members that are trusted. */
const trustedRateMin = 1.5;
const viewTimeoutsMax = 2;
const pauseLatenciesMax = 3;
const catchUpShareMin = 1 / 2;
const residentMiBMax = 400;
/** Last quarter over second: above it memory is not called flat. A run of seconds still fills caches and write buffers. */
const growthMax = 1.25;

/** Only what this run has measured. */
export function targetsOf({ scenarios, failover, epochs, catchUp, floors }: RunResult): Target[] {
  const targets: Target[] = [];
  const atMost = (name: string, value: number, limit: number, unit: string) =>
    targets.push({ name, value, wanted: `at most ${limit}${unit}`, met: value <= limit });
  const ceiling = scenarios.find(({ standIns }) => standIns.sign && standIns.sync);
  const full = scenarios.find((each) => ceiling !== undefined && isProduct(each) && isSameLoad(each, ceiling));
  const [reached, possible] = [rateOf(full), rateOf(ceiling)];
  if (reached !== undefined && possible !== undefined)
    targets.push({
      name: 'share of the ceiling without signatures and syncs',
      value: reached / possible,
      wanted: `at least ${ceilingShareMin}`,
      met: reached / possible >= ceilingShareMin,
    });
  for (const scenario of scenarios.filter(isProduct)) {
    const unloaded = phaseOf(scenario, unloadedName);
    if (unloaded !== undefined && scenario.bundle === 1)
      atMost(
        `unloaded p50 over its floor, ${scenario.name}`,
        inFloors(unloaded, floors, scenario),
        scenario.protocol === 'pbft' ? latencyFloorsMax : trustedFloorsMax,
        '',
      );
    const replicas = phaseOf(scenario, saturatedName)?.processes.filter(({ name }) => name !== 'clients') ?? [];
    if (replicas.length === 0) continue;
    const resident = Math.max(...replicas.map(({ memory }) => memory.maxBytes)) / (1 << 20);
    atMost(`resident memory of a replica, ${scenario.name}`, resident, residentMiBMax, ' MiB');
    if (scenario.seconds >= 30)
      atMost(`its growth, ${scenario.name}`, Math.max(...replicas.map(({ memory }) => memory.growth)), growthMax, '');
  }
  // Where members are trusted: against the same load of PBFT, with a replica more.
  for (const { protocol, bundle } of scenarios.filter(isProduct)) {
    if (protocol !== 'multi-paxos' && protocol !== 'raft') continue;
    const [own, pbft] = [protocol, 'pbft'].map((word) =>
      rateOf(scenarios.find((each) => isProduct(each) && each.protocol === word && each.bundle === bundle)),
    );
    if (own === undefined || pbft === undefined) continue;
    targets.push({
      name: `rate of ${protocol} over that of pbft, bundles of ${bundle}`,
      value: own / pbft,
      wanted: `at least ${trustedRateMin}`,
      met: own / pbft >= trustedRateMin,
    });
  }
  for (const { n, medianGapMs, viewTimeoutMs } of failover)
    atMost(`failover gap in view timeouts, n = ${n}`, medianGapMs / viewTimeoutMs, viewTimeoutsMax, '');
  if (epochs !== null)
    for (const { kind, medianPauseMs } of pausesOf(epochs))
      atMost(
        `pause of a change in ms, ${kind}`,
        medianPauseMs,
        Math.round(pauseLatenciesMax * epochs.unloadedMs + epochs.checkpointMs),
        ` ms: ${pauseLatenciesMax} unloaded latencies and a checkpoint exchange`,
      );
  if (catchUp !== null) {
    const floor = Math.min(diskFloor(floors), catchUp.bytes / catchUp.verifySeconds);
    const share = catchUp.bytes / catchUp.seconds / floor;
    targets.push({
      name: "catch-up over the lower of the disk's and the verifier's floor",
      value: share,
      wanted: `at least ${catchUpShareMin}`,
      met: share >= catchUpShareMin,
    });
    atMost(
      'resident memory of an observer that catches up',
      catchUp.peakResidentBytes / (1 << 20),
      residentMiBMax,
      ' MiB',
    );
  }
  return targets;
}

/** Bytes per second, of large writes one after the other, each waited for. */
export function diskFloor({ syncs }: Floors): number {
  const large = syncs.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  return (1_000 * large.bytes) / large.alone.p50;
}

export interface Pauses {
  readonly kind: ChangeKind;
  readonly medianPauseMs: number;
  readonly worstPauseMs: number;
  readonly medianUndisturbedMs: number;
  readonly medianP99Ms: number;
  readonly changes: number;
}

export const pausesOf = ({ rounds }: EpochsResult): Pauses[] =>
  changeKinds.flatMap((kind) => {
    const these = rounds.filter((round) => round.kind === kind);
    const pauses = these.map(({ pauseMs }) => pauseMs);
    if (these.length === 0) return [];
    return [
      {
        kind,
        medianPauseMs: median(pauses),
        worstPauseMs: Math.max(...pauses),
        medianUndisturbedMs: median(these.map(({ undisturbedMs }) => undisturbedMs)),
        medianP99Ms: median(these.map(({ p99Ms }) => p99Ms)),
        changes: these.length,
      },
    ];
  });

export function inFloors(
  { latencyMs }: PhaseReport,
  floors: Floors,
  scenario: Pick<ScenarioResult, 'n' | 'protocol'>,
): number {
  return latencyMs.p50 / latencyFloor(floors, scenario, 'together').totalMs;
}

export const isProduct = ({ standIns }: ScenarioResult) => !standIns.sign && !standIns.sync;

const isSameLoad = (a: ScenarioResult, b: ScenarioResult) =>
  a.protocol === b.protocol && a.n === b.n && a.bundle === b.bundle && a.transactionBytes === b.transactionBytes;

export const phaseOf = (scenario: ScenarioResult | undefined, name: string) =>
  scenario?.phases.find((phase) => phase.name === name);

const rateOf = (scenario: ScenarioResult | undefined) => phaseOf(scenario, saturatedName)?.transactionsPerSecond;
