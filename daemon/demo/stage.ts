// What the demo runs on: a directory, the files of a network, its replicas as processes, and the way to be rid of all of it.

import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { mainsOf, type Protocol } from '../../protocol/modes.ts';
import { LocalCluster, type ReplicaExit } from '../cli/cluster.ts';
import { Complaint } from '../cli/errors.ts';
import { describeExit } from '../cli/exits.ts';
import { findNetwork, type KnownReplica, type Network } from '../cli/network.ts';
import { CONFIG_FILE, createNetwork, localReplicas } from '../cli/network-files.ts';
import { freePortRange } from '../cli/ports.ts';
import { type LoggedEvent, Watch } from './watch.ts';

const host = '127.0.0.1';
const startMsMax = 30_000;

export interface StageOptions {
  readonly protocol: Protocol;
  readonly replicas: number;
  readonly directory: string | undefined;
  readonly keep: boolean;
  readonly onEvent: (event: LoggedEvent) => void;
  /** A replica ended and nobody had asked it to. */
  readonly onLoss: (complaint: Complaint) => void;
}

export class Stage {
  readonly directory: string;
  readonly network: Network;
  readonly cluster: LocalCluster;
  readonly watch: Watch;
  /** Aborted when the stage ends: whatever still waits gives up. */
  readonly #ending = new AbortController();
  readonly #keep: boolean;

  private constructor(directory: string, network: Network, options: StageOptions) {
    this.directory = directory;
    this.network = network;
    this.#keep = options.keep;
    this.watch = new Watch(network.replicas, options.onEvent);
    const members = network.replicas.map(({ name }) => ({
      name,
      config: join(directory, name, CONFIG_FILE),
      logFile: join(directory, name, 'replica.log'),
    }));
    this.cluster = new LocalCluster(members, {
      line: (name, entry) => {
        if (entry !== null) this.watch.logLine(name, entry);
      },
      exit: (name, exit) => {
        if (!exit.asked) options.onLoss(lost(name, exit, directory));
      },
    });
  }

  static async create(options: StageOptions): Promise<Stage> {
    const directory = options.directory === undefined ? freshDirectory() : resolve(options.directory);
    const basePort = await freePortRange(host, 2 * options.replicas);
    await createNetwork({
      directory,
      name: 'demo',
      protocol: options.protocol,
      replicas: localReplicas(options.replicas, host, basePort),
      parameters: {},
      passphrase: null,
      passphraseFile: null,
      logFormat: 'json',
    });
    return new Stage(directory, findNetwork({ network: directory }), options);
  }

  /** Those that keep the log: in Cheap Paxos not all do. */
  get keepers(): readonly KnownReplica[] {
    return this.network.replicas.slice(0, mainsOf(this.network.genesis).length);
  }

  /** Resolves when every replica says that it is ready. */
  async start(): Promise<void> {
    this.cluster.startAll();
    this.watch.start();
    const names = this.network.replicas.map(({ name }) => name);
    const ready = () => names.every((name) => this.watch.of(name)?.ready === true);
    if (await this.until(ready, startMsMax)) return;
    const late = names.filter((name) => this.watch.of(name)?.ready !== true);
    const reasons = late.map((name) => `${name}: ${this.watch.of(name)?.reason?.message ?? 'no answer'}`);
    throw new Complaint({
      code: 'not-ready',
      sentence: `not every replica was ready after ${startMsMax / 1000} s (${reasons.join('; ')})`,
      remedy: `Their logs are in ${this.directory}/*/replica.log; run again with --keep to read them.`,
    });
  }

  /** False: the condition did not become true in time. Throws when the stage ends. */
  async until(condition: () => boolean, msMax = Number.POSITIVE_INFINITY): Promise<boolean> {
    const deadline = performance.now() + msMax;
    while (!condition()) {
      this.#ending.signal.throwIfAborted();
      if (performance.now() > deadline) return false;
      await pause(5);
    }
    return true;
  }

  /** No process of the demo is left when this resolves. */
  async end(): Promise<readonly ReplicaExit[]> {
    this.#ending.abort();
    const exits = await this.cluster.stopAll();
    await this.watch.stop();
    if (!this.#keep) removeDirectory(this.directory);
    return exits;
  }
}

/** Below the working directory and not in the system's temporary one, which often lies in memory: then no write would be real. */
function freshDirectory(): string {
  mkdirSync('data', { recursive: true });
  return join(mkdtempSync(resolve('data', 'demo-')), 'net');
}

function removeDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  // What `freshDirectory` made, and only if nothing else is in it.
  for (const parent of [join(directory, '..'), join(directory, '..', '..')]) {
    try {
      if (/(^|[/\\])(demo-\w+|data)$/.test(resolve(parent))) rmdirSync(parent);
    } catch {
      return;
    }
  }
}

function lost(name: string, exit: ReplicaExit, directory: string): Complaint {
  return new Complaint({
    code: 'replica-ended',
    sentence: `${name} ended by itself: ${describeExit(exit)}`,
    remedy: `Its log is ${join(directory, name, 'replica.log')}; run again with --keep to read it.`,
  });
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
