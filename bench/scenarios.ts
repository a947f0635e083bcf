// One scenario: a cluster, clients beside it, phases of load, and what each process used meanwhile.

import type { Protocol } from '../protocol/modes.ts';
import { BenchCluster } from './cluster.ts';
import { median } from './histogram.ts';
import type { LoadTask, Phase, PhaseResult } from './load.ts';
import { type MemoryTrail, type Usage, usageOf } from './process-stats.ts';
import type { StandIns } from './stand-ins.ts';
import { startWorker, type Worker } from './task.ts';

export interface Scenario {
  readonly name: string;
  readonly protocol: Protocol;
  readonly n: number;
  readonly transactionBytes: number;
  readonly bundle: number;
  readonly standIns: StandIns;
  readonly seconds: number;
  /** Beside full load: one bundle at a time before it, and half of what it reached after it. */
  readonly withLatency: boolean;
}

export interface ProcessUse {
  readonly name: string;
  /** Processor seconds per second. */
  readonly cores: number;
  readonly cpuSecondsPer1000Transactions: number;
  readonly memory: MemoryTrail;
}

export interface PhaseReport extends Omit<PhaseResult, 'timeline'> {
  readonly blocks: number;
  readonly viewChanges: number;
  /** Replicas in the order of the members, then the clients' process; empty without /proc. */
  readonly processes: readonly ProcessUse[];
}

export interface ScenarioResult extends Scenario {
  readonly phases: readonly PhaseReport[];
}

const clients = 2;
/** Of all clients together: enough bundles for a full window of full blocks, or as many single ones as fill blocks. */
const outstandingOf = (bundle: number) => Math.max(48, Math.round(2048 / bundle));
const sampleMs = 250;
/** One bundle at a time runs a replica's code a hundred times less often than full load does: it takes so long until V8 has compiled it. */
const unloadedWarmupMs = 30_000;
export const unloadedName = 'unloaded';
export const saturatedName = 'saturated';
export const steadyName = 'half load';

export interface Surroundings {
  readonly profileDirectory: string | null;
  readonly viewTimeoutMs: number | null;
  readonly recorderMiB: readonly number[];
}

export async function runScenario(scenario: Scenario, surroundings: Surroundings): Promise<ScenarioResult> {
  const { n, protocol, standIns } = scenario;
  const { profileDirectory } = surroundings;
  const cluster = await BenchCluster.start({ replicas: n, protocol, standIns, ...surroundings });
  try {
    const phases = phasesOf(scenario);
    const meter = new Meter(cluster);
    const task: LoadTask = { kind: 'load', directory: cluster.directory, noSign: standIns.sign, clients, phases };
    const worker = startWorker({
      task,
      msMax: phases.reduce((sum, { warmupMs, ms }) => sum + warmupMs + ms + 30_000, 90_000),
      execArgv:
        profileDirectory === null
          ? []
          : ['--cpu-prof', `--cpu-prof-dir=${profileDirectory}`, '--cpu-prof-name=clients.cpuprofile'],
      onMark: (name, value) => (name === 'begin' ? meter.begin(worker) : meter.end(value ?? 0)),
    });
    try {
      const results = await worker.result<PhaseResult[]>();
      const measured = await meter.finish();
      return {
        ...scenario,
        phases: results.map(({ timeline: _timeline, ...result }, i) => ({ ...result, ...measured[i]! })),
      };
    } finally {
      meter.stop();
      worker.kill();
    }
  } finally {
    await cluster.stop();
  }
}

function phasesOf({ transactionBytes, bundle, seconds, withLatency }: Scenario): Phase[] {
  const ms = seconds * 1000;
  const common = { transactionBytes, bundle, timeline: false, warmupMs: Math.min(2_000, ms / 2), ms };
  const saturated: Phase = {
    ...common,
    name: saturatedName,
    pace: { kind: 'closed', outstanding: outstandingOf(bundle) },
  };
  if (!withLatency) return [saturated];
  const unloaded: Phase = {
    ...common,
    name: unloadedName,
    pace: { kind: 'closed', outstanding: 1 },
    warmupMs: Math.min(unloadedWarmupMs, 5 * ms),
  };
  const steady: Phase = { ...common, name: steadyName, pace: { kind: 'open-share', share: 0.5 } };
  // Last and late, when the code of every process has been compiled: a replica runs for years, and its first minute says little about it.
  return [saturated, steady, unloaded];
}

type Snapshot = ReadonlyMap<string, Usage>;
type Measured = Pick<PhaseReport, 'blocks' | 'viewChanges' | 'processes'>;

/** What the processes use between the marks of each phase. */
class Meter {
  readonly #cluster: BenchCluster;
  readonly #phases: Promise<Measured>[] = [];
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  #samples: Snapshot[] = [];
  #beganAt = 0;
  #lead: ReturnType<BenchCluster['lead']> | undefined;

  constructor(cluster: BenchCluster) {
    this.#cluster = cluster;
  }

  begin(worker: Worker): void {
    this.#worker = worker;
    this.#beganAt = performance.now();
    this.#samples = [this.#snapshot()];
    this.#timer = setInterval(() => this.#samples.push(this.#snapshot()), sampleMs);
    this.#lead = this.#cluster.lead();
    this.#lead.catch(() => undefined);
  }

  end(transactions: number): void {
    clearInterval(this.#timer);
    const seconds = (performance.now() - this.#beganAt) / 1000;
    const samples = [...this.#samples, this.#snapshot()];
    const processes = [...(samples[0]?.keys() ?? [])].map((name) => processUse(name, samples, seconds, transactions));
    this.#phases.push(
      Promise.all([this.#lead, this.#cluster.lead()]).then(([before, after]) => ({
        blocks: after.height - (before?.height ?? 0),
        viewChanges: after.view - (before?.view ?? 0),
        processes,
      })),
    );
  }

  finish(): Promise<Measured[]> {
    return Promise.all(this.#phases);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #snapshot(): Snapshot {
    const found = new Map(this.#cluster.usage());
    const own = usageOf(this.#worker?.pid);
    if (own !== null) found.set('clients', own);
    return found;
  }
}

function processUse(name: string, samples: readonly Snapshot[], seconds: number, transactions: number): ProcessUse {
  const trail = samples.map((sample) => sample.get(name)).filter((usage) => usage !== undefined);
  const cpuSeconds = (trail.at(-1)?.cpuSeconds ?? 0) - (trail[0]?.cpuSeconds ?? 0);
  const resident = trail.map(({ residentBytes }) => residentBytes);
  const quarter = Math.max(1, Math.floor(resident.length / 4));
  return {
    name,
    cores: cpuSeconds / seconds,
    cpuSecondsPer1000Transactions: (1000 * cpuSeconds) / Math.max(1, transactions),
    memory: {
      maxBytes: Math.max(0, ...resident),
      growth: median(resident.slice(-quarter)) / median(resident.slice(quarter, 2 * quarter)),
    },
  };
}
