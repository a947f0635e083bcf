// The results as tables for people and as JSON for programs. The machine is described without names of hosts or places.

import { cpus, loadavg, release, totalmem } from 'node:os';
import type { CatchUpResult } from './catch-up.ts';
import type { DelaysResult } from './delays.ts';
import type { EpochsResult } from './epochs.ts';
import type { FailoverResult } from './failover.ts';
import { type Floors, latencyFloor } from './floors.ts';
import { type PhaseReport, type ScenarioResult, saturatedName, unloadedName } from './scenarios.ts';
import { diskFloor, inFloors, isProduct, pausesOf, phaseOf, type Target } from './targets.ts';

export interface Machine {
  readonly platform: string;
  readonly kernel: string;
  readonly node: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  /** Of the last minute, before and after: above the number of cores, others took part of the machine. */
  readonly loadBefore: number;
  readonly loadAfter: number;
}

export interface RunResult {
  readonly startedAt: string;
  readonly machine: Machine;
  readonly floors: Floors;
  readonly scenarios: readonly ScenarioResult[];
  readonly failover: readonly FailoverResult[];
  /** Null: not asked for. */
  readonly epochs: EpochsResult | null;
  readonly catchUp: CatchUpResult | null;
  /** Empty: not asked for. */
  readonly delays: readonly DelaysResult[];
}

export const loadNow = (): number => loadavg()[0] ?? Number.NaN;

export function describeMachine(loadBefore: number): Machine {
  const processors = cpus();
  return {
    platform: `${process.platform} ${process.arch}`,
    kernel: release(),
    node: process.version,
    processor: processors[0]?.model ?? 'unknown',
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    loadBefore,
    loadAfter: loadNow(),
  };
}

export function asJson(result: RunResult, targets: readonly Target[]): string {
  const latencyFloors = [4, 7].map((n) => ({
    n,
    alone: latencyFloor(result.floors, { n, protocol: 'pbft' }, 'alone'),
    together: latencyFloor(result.floors, { n, protocol: 'pbft' }, 'together'),
  }));
  return `${JSON.stringify({ ...result, latencyFloors, targets }, null, 2)}\n`;
}

const busyNote = 'Others were using this machine: compare processor time per transaction, not rates or latencies.';

export function asTables(result: RunResult, targets: readonly Target[]): string {
  const { machine } = result;
  const parts = [
    `${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.platform}, Node ${machine.node.slice(1)}; ` +
      `load average ${machine.loadBefore.toFixed(1)} before, ${machine.loadAfter.toFixed(1)} after`,
    floorsTable(result.floors),
  ];
  if (machine.loadBefore > machine.cores) parts.splice(1, 0, busyNote);
  if (result.scenarios.length > 0) parts.push(throughputTable(result), latencyTable(result), usageTable(result));
  if (result.failover.length > 0) parts.push(failoverTable(result.failover));
  if (result.epochs !== null) parts.push(epochsTable(result.epochs));
  if (result.delays.length > 0) parts.push(delaysTable(result.delays));
  if (result.catchUp !== null) parts.push(catchUpTable(result.catchUp, result.floors));
  if (targets.length > 0) parts.push(targetsTable(targets));
  return `\n${parts.join('\n\n')}\n`;
}

function floorsTable({ syncs, compute, computeTogether, roundTrip, processes, exchanges }: Floors): string {
  const rows = syncs.map(({ bytes, preallocated, alone, together }) => [
    `write + fdatasync, ${bytes >= 1 << 20 ? `${bytes >> 20} MiB` : `${bytes >> 10} KiB`}, ${preallocated ? 'in place' : 'appended'}`,
    `p50 ${ms(alone.p50)}, p99 ${ms(alone.p99)}; ${processes} at once p50 ${ms(together.p50)}`,
  ]);
  return table('floor', [
    ['', 'measured'],
    ...rows,
    [
      'Ed25519 sign / verify',
      `${whole(compute.sign)} / ${whole(compute.verify)} per second; each of ${processes} at once ${whole(computeTogether.sign)} / ${whole(computeTogether.verify)}`,
    ],
    ['SHA-256 of 256 B / 64 KiB', `${whole(compute.sha256Of256)} / ${whole(compute.sha256Of64Ki)} per second`],
    ['loopback round trip, 200 B frame', `p50 ${ms(roundTrip.p50)}, p99 ${ms(roundTrip.p99)}`],
    ...exchanges.map(({ n, latencyMs }) => [
      `bare exchange of n=${n}: 5 hops, 2 synced writes, signatures`,
      `p50 ${ms(latencyMs.p50)}, p99 ${ms(latencyMs.p99)}`,
    ]),
  ]);
}

function throughputTable({ scenarios, floors }: RunResult): string {
  const rows = scenarios.flatMap((scenario) => {
    const phase = phaseOf(scenario, saturatedName);
    if (phase === undefined) return [];
    const blocks = phase.blocks / phase.seconds;
    // What a replica's disk would give if every block cost two synced writes, one after the other.
    const syncsPerSecond = 1000 / (floors.syncs[1]?.together.p50 ?? Number.NaN);
    return [
      [
        scenario.name,
        whole(phase.transactionsPerSecond),
        (phase.payloadBytesPerSecond / 1e6).toFixed(1),
        ms(phase.latencyMs.p50),
        ms(phase.latencyMs.p99),
        blocks.toFixed(0),
        percent((2 * blocks) / syncsPerSecond),
        whole((phase.transactionsPerSecond * phase.seconds) / Math.max(1, phase.blocks)),
        failuresOf(phase),
      ],
    ];
  });
  return table('full load', [
    ['', 'tx/s', 'MB/s', 'p50', 'p99', 'blocks/s', 'of 2 syncs', 'tx/block', 'failures'],
    ...rows,
  ]);
}

function latencyTable({ scenarios, floors }: RunResult): string {
  const rows = scenarios.flatMap((scenario) =>
    scenario.phases
      .filter(({ name }) => name !== saturatedName)
      .map((phase) => [
        `${scenario.name}, ${phase.name}`,
        whole(phase.transactionsPerSecond),
        ms(phase.latencyMs.p50),
        ms(phase.latencyMs.p90),
        ms(phase.latencyMs.p99),
        phase.name === unloadedName && scenario.bundle === 1 && isProduct(scenario)
          ? inFloors(phase, floors, scenario).toFixed(1)
          : '',
        failuresOf(phase),
      ]),
  );
  if (rows.length === 0) return table('commit latency', [['none measured']]);
  return table('commit latency at the client', [['', 'tx/s', 'p50', 'p90', 'p99', 'floors', 'failures'], ...rows]);
}

function usageTable({ scenarios, machine }: RunResult): string {
  const rows = scenarios.flatMap((scenario) => {
    const processes = phaseOf(scenario, saturatedName)?.processes ?? [];
    if (processes.length === 0) return [];
    const together = processes.reduce((sum, use) => sum + use.cpuSecondsPer1000Transactions, 0);
    const carried = `${whole((1000 * machine.cores) / together)} tx/s`;
    return [
      ...processes.map((use) => [
        scenario.name,
        use.name,
        use.cores.toFixed(2),
        (1000 * use.cpuSecondsPer1000Transactions).toFixed(2),
        (use.memory.maxBytes / 2 ** 20).toFixed(0),
        use.memory.growth.toFixed(2),
        '',
      ]),
      [scenario.name, 'together', '', (1000 * together).toFixed(2), '', '', carried],
    ];
  });
  // What all cores would carry if nobody else used them and nothing waited: of use where others do.
  const head = ['', 'process', 'cores', 'CPU ms per 1000 tx', 'RSS MiB', 'growth', 'all cores carry'];
  return table('use at full load', [head, ...rows]);
}

function failoverTable(results: readonly FailoverResult[]): string {
  const rows = results.flatMap(({ n, viewTimeoutMs, rounds }) =>
    rounds.map((round) => [
      `n = ${n}`,
      round.killed,
      ms(round.gapMs),
      (round.gapMs / viewTimeoutMs).toFixed(2),
      ms(round.gapBeforeMs),
      ms(round.worstLatencyMs),
      `${round.committed} / ${round.failed} / ${round.unsettled}`,
    ]),
  );
  return table('failover at a steady 100 tx/s', [
    ['', 'killed', 'gap', 'in view timeouts', 'gap before', 'worst latency', 'committed / failed / open'],
    ...rows,
  ]);
}

function catchUpTable(result: CatchUpResult, floors: Floors): string {
  const { bytes, blocks, seconds, cpuSeconds, peakResidentBytes, verifySeconds, verifyCpuSeconds } = result;
  const perSecond = (time: number) => `${(bytes / 1e6 / time).toFixed(1)}`;
  return table(`catch-up of a fresh observer: ${whole(bytes / 1e6)} MB in ${whole(blocks)} blocks`, [
    ['', 'MB/s', 'MB per CPU s', 'peak RSS MiB'],
    ['observer', perSecond(seconds), perSecond(cpuSeconds), (peakResidentBytes / 2 ** 20).toFixed(0)],
    ["verifier's floor: synod verify", perSecond(verifySeconds), perSecond(verifyCpuSeconds), ''],
    ["disk's floor: 1 MiB appended, fdatasync", (diskFloor(floors) / 1e6).toFixed(1), '', ''],
  ]);
}

function epochsTable(result: EpochsResult): string {
  const rows = pausesOf(result).map((each) => [
    each.kind,
    String(each.changes),
    ms(each.medianPauseMs),
    ms(each.worstPauseMs),
    ms(each.medianUndisturbedMs),
    ms(each.medianP99Ms),
  ]);
  const { n, unloadedMs, checkpointMs, failed, unsettled } = result;
  const title =
    `changes of the epoch, n = ${n}: unloaded p50 ${ms(unloadedMs)}, checkpoint exchange ${ms(checkpointMs)}; ` +
    `${failed} failed, ${unsettled} open`;
  return table(title, [['', 'changes', 'pause', 'worst', 'longest gap just before', 'p99 around it'], ...rows]);
}

function delaysTable(results: readonly DelaysResult[]): string {
  const rows = results.map(({ protocol, n, delayMs, leaderMs, elsewhereMs }) => [
    `${protocol}, n=${n}`,
    ms(leaderMs),
    (leaderMs / delayMs).toFixed(1),
    ms(elsewhereMs),
    (elsewhereMs / delayMs).toFixed(1),
  ]);
  const title = `message delays between replicas ${results[0]?.delayMs} ms apart, one bundle at a time`;
  return table(title, [['', 'at the leader', 'delays', 'elsewhere', 'delays'], ...rows]);
}

function targetsTable(targets: readonly Target[]): string {
  return table('targets', [
    ['', 'measured', 'wanted', ''],
    ...targets.map(({ name, value, wanted, met }) => [name, value.toFixed(2), wanted, met ? 'met' : 'MISSED']),
  ]);
}

function failuresOf({ failures, unsettled, viewChanges }: PhaseReport): string {
  const codes = Object.entries(failures).map(([code, count]) => `${code} ${count}`);
  if (unsettled > 0) codes.push(`open ${unsettled}`);
  if (viewChanges > 0) codes.push(`views +${viewChanges}`);
  return codes.join(', ');
}

/** The first row is the head; the first column is on the left, numbers are on the right. */
function table(title: string, rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  const [head, ...body] = rows.map(line);
  return [title, '='.repeat(title.length), head, ...body].join('\n');
}

function ms(value: number): string {
  if (Number.isNaN(value)) return '-';
  return value < 10 ? `${value.toFixed(2)} ms` : `${value.toFixed(0)} ms`;
}

const whole = (value: number): string => Math.round(value).toLocaleString('en-US');
const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
