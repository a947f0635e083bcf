// The clients, in a process of their own: the SDK as users have it, every receipt verified. Closed loops keep so many bundles
// outstanding; open loops send on time whatever comes back, and count latency from the moment a bundle was due, so that a
// stall costs what it would cost its users (no coordinated omission).

import { randomBytes } from 'node:crypto';
import { type Client, ClientError, connect } from '../client/index.ts';
import { findNetwork } from '../daemon/cli/network.ts';
import { SecretKey } from '../keys/keypair.ts';
import { Histogram, type Quantiles } from './histogram.ts';
import type { Report } from './task.ts';
import { pause } from './task.ts';

export interface LoadTask {
  readonly kind: 'load';
  /** Of the network's files. */
  readonly directory: string;
  /** The replicas' signatures are stand-ins: checked by stand-ins. */
  readonly noSign: boolean;
  readonly clients: number;
  /** One after the other, on the same connections. */
  readonly phases: readonly Phase[];
}

export interface Phase {
  readonly name: string;
  readonly transactionBytes: number;
  readonly bundle: number;
  readonly pace: Pace;
  readonly warmupMs: number;
  readonly ms: number;
  /** Keep when each bundle was due and when it was committed. */
  readonly timeline: boolean;
}

export type Pace =
  | { readonly kind: 'closed'; readonly outstanding: number }
  | { readonly kind: 'open'; readonly transactionsPerSecond: number }
  /** Of what the phase before reached. */
  | { readonly kind: 'open-share'; readonly share: number };

export interface PhaseResult {
  readonly name: string;
  readonly seconds: number;
  readonly transactionsPerSecond: number;
  readonly payloadBytesPerSecond: number;
  readonly latencyMs: Quantiles;
  /** Of bundles that failed, by code. */
  readonly failures: Readonly<Record<string, number>>;
  /** Bundles whose fate was open when the phase had ended and its patience too. */
  readonly unsettled: number;
  /** Milliseconds since 1970: due, committed; and the height. */
  readonly timeline: readonly (readonly [due: number, committed: number, height: number])[];
}

/** How long what is outstanding at the end of a phase is waited for. */
const patienceMs = 20_000;
const payloadsMax = 8;
/** An open loop that has so much outstanding has lost its race, and is not let fill the memory. */
const outstandingMax = 16_384;

/** `stopped`: ends the phase at hand early. */
export async function runLoad(
  task: LoadTask,
  tell: (report: Report) => void,
  stopped: Promise<void>,
): Promise<PhaseResult[]> {
  const { genesis, replicas } = findNetwork({ network: task.directory });
  const clients = await Promise.all(
    Array.from({ length: task.clients }, () =>
      connect({
        genesis,
        replicas,
        key: SecretKey.generate(),
        options: {
          connectTimeoutMs: 60_000,
          bundlesInFlightMax: 4_096,
          queueTransactionsMax: 1_000_000,
          queueBytesMax: 256 << 20,
        },
      }),
    ),
  );
  try {
    const results: PhaseResult[] = [];
    for (const phase of task.phases)
      results.push(await new PhaseRun(phase, clients, results.at(-1)).run(tell, stopped));
    return results;
  } finally {
    for (const client of clients) await client.close();
  }
}

class PhaseRun {
  readonly #phase: Phase;
  readonly #clients: readonly Client[];
  readonly #before: PhaseResult | undefined;
  readonly #payloads: readonly (readonly Uint8Array[])[];
  readonly #latency = new Histogram();
  readonly #failures = new Map<string, number>();
  readonly #timeline: [number, number, number][] = [];
  #next = 0;
  #outstanding = 0;
  #committed = 0;
  #measuring = false;
  #over = false;

  constructor(phase: Phase, clients: readonly Client[], before: PhaseResult | undefined) {
    this.#phase = phase;
    this.#clients = clients;
    this.#before = before;
    this.#payloads = Array.from({ length: payloadsMax }, () =>
      Array.from({ length: phase.bundle }, () => randomBytes(phase.transactionBytes)),
    );
  }

  async run(tell: (report: Report) => void, stopped: Promise<void>): Promise<PhaseResult> {
    const { pace, name, warmupMs, ms, bundle, transactionBytes } = this.#phase;
    const loops =
      pace.kind === 'closed'
        ? Array.from({ length: pace.outstanding }, (_, i) => this.#closedLoop(this.#clients[i % this.#clients.length]!))
        : [this.#openLoop(this.#bundlesPerSecond(pace))];
    await pause(warmupMs);
    tell({ type: 'mark', name: 'begin' });
    this.#measuring = true;
    const started = performance.now();
    await Promise.race([pause(ms), stopped]);
    const seconds = (performance.now() - started) / 1000;
    this.#measuring = false;
    const transactions = this.#committed * bundle;
    tell({ type: 'mark', name: 'end', value: transactions });
    this.#over = true;
    const patience = performance.now() + patienceMs;
    while (this.#outstanding > 0 && performance.now() < patience) await pause(20);
    if (this.#outstanding === 0) await Promise.all(loops);
    return {
      name,
      seconds,
      transactionsPerSecond: transactions / seconds,
      payloadBytesPerSecond: (transactions * transactionBytes) / seconds,
      latencyMs: this.#latency.quantiles(),
      failures: Object.fromEntries(this.#failures),
      unsettled: this.#outstanding,
      timeline: this.#timeline,
    };
  }

  async #closedLoop(client: Client): Promise<void> {
    while (!this.#over) await this.#submit(client, performance.now());
  }

  async #openLoop(perSecond: number): Promise<void> {
    const started = performance.now();
    for (let i = 0; !this.#over; ) {
      const now = performance.now();
      for (let due = started + (1000 * i) / perSecond; due <= now; due = started + (1000 * ++i) / perSecond) {
        if (this.#outstanding >= outstandingMax) this.#fail('bench-too-many-outstanding');
        else void this.#submit(this.#clients[i % this.#clients.length]!, due);
      }
      await pause(1);
    }
  }

  /** Never rejects. */
  async #submit(client: Client, due: number): Promise<void> {
    this.#outstanding += 1;
    this.#next = (this.#next + 1) % payloadsMax;
    try {
      const { height } = await client.submitBundle(this.#payloads[this.#next]!);
      const now = performance.now();
      if (this.#phase.timeline)
        this.#timeline.push([performance.timeOrigin + due, performance.timeOrigin + now, height]);
      if (this.#measuring) {
        this.#committed += 1;
        this.#latency.record(now - due);
      }
    } catch (error) {
      this.#fail(error instanceof ClientError ? error.code : String(error));
      // A closed loop must not spin on a refusal.
      await pause(20);
    } finally {
      this.#outstanding -= 1;
    }
  }

  #fail(code: string): void {
    this.#failures.set(code, (this.#failures.get(code) ?? 0) + 1);
  }

  #bundlesPerSecond(pace: Exclude<Pace, { kind: 'closed' }>): number {
    const { bundle } = this.#phase;
    if (pace.kind === 'open') return pace.transactionsPerSecond / bundle;
    return Math.max(1, (pace.share * (this.#before?.transactionsPerSecond ?? 0)) / bundle);
  }
}
