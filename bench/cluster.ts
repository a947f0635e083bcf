// Replicas as processes in a directory of their own: files as `synod init` makes them, each replica a real `synod start`, or for the
// ceiling runs the same over stand-ins (replica.ts). Watched from outside: their HTTP doors and /proc.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { findNetwork, type KnownReplica } from '../daemon/cli/network.ts';
import { CONFIG_FILE, createNetwork, localReplicas } from '../daemon/cli/network-files.ts';
import { freePortRange } from '../daemon/cli/ports.ts';
import { fetchStatus, type ReplicaStatus } from '../daemon/cli/replica-http.ts';
import type { NodeConfigDocument } from '../daemon/config.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Protocol } from '../protocol/modes.ts';
import { type Usage, usageOf } from './process-stats.ts';
import type { StandIns } from './stand-ins.ts';
import { pause } from './task.ts';

const host = '127.0.0.1';
export const daemon = fileURLToPath(new URL('../daemon/main.js', import.meta.url));
const standInReplica = fileURLToPath(new URL('./replica.js', import.meta.url));
const readyMsMax = 20_000;
const attemptsMax = 4;
const stopMsMax = 20_000;
const logLinesMax = 30;

export interface ClusterOptions {
  readonly replicas: number;
  /** Default: pbft. */
  readonly protocol?: Protocol;
  readonly standIns: StandIns;
  /** Where each process leaves a CPU profile; null: none is made. */
  readonly profileDirectory: string | null;
  /** Null: the default of a new chain. */
  readonly viewTimeoutMs: number | null;
  /** Of the flight recorders, replica by replica in turns; empty: the default. */
  readonly recorderMiB: readonly number[];
  /** Beside the network's files, before a replica starts. */
  readonly prepare?: (cluster: BenchCluster) => Promise<void>;
}

const configSchema = z.looseObject({ http: z.object({ host: z.string(), port: z.int() }) });

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
  asked: boolean;
  stderr: string;
}

export class BenchCluster {
  readonly directory: string;
  readonly genesis: Genesis;
  readonly names: readonly string[];
  readonly #root: string;
  readonly #replicas: readonly KnownReplica[];
  readonly #options: ClusterOptions;
  readonly #running = new Map<string, Running>();
  readonly #onExit = () => this.#killAll();

  private constructor(root: string, options: ClusterOptions) {
    this.#root = root;
    this.directory = join(root, 'net');
    this.#options = options;
    const { genesis, replicas } = findNetwork({ network: this.directory });
    this.genesis = genesis;
    this.#replicas = replicas;
    this.names = replicas.map(({ name }) => name);
    // The last resort, synchronous: this process is ending without having stopped them.
    process.on('exit', this.#onExit);
  }

  /**
   * Ready when every replica says so. On a busy machine one of them may give the first view up before the others are there, and stays
   * out of the first view alone: then all begin anew, since a cluster with one replica less is another measurement.
   */
  static async start(options: ClusterOptions): Promise<BenchCluster> {
    for (let attempt = 1; ; attempt++) {
      const cluster = await BenchCluster.#create(options);
      try {
        for (const name of cluster.names) cluster.startReplica(name);
        await cluster.ready();
        return cluster;
      } catch (error) {
        await cluster.stop();
        if (attempt === attemptsMax) throw error;
        process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nbench: starting anew\n`);
      }
    }
  }

  static async #create(options: ClusterOptions): Promise<BenchCluster> {
    const root = makeDirectory();
    try {
      const basePort = await freePortRange(host, 2 * options.replicas);
      const { configs } = await createNetwork({
        directory: join(root, 'net'),
        name: 'bench',
        protocol: options.protocol ?? 'pbft',
        replicas: localReplicas(options.replicas, host, basePort),
        parameters: {
          // 500 transactions of 1 KiB are one bundle; all else is the default.
          bundleBytesMax: 524_288,
          ...(options.viewTimeoutMs === null ? {} : { viewTimeoutMs: options.viewTimeoutMs }),
        },
        passphrase: null,
        passphraseFile: null,
        logFormat: 'json',
      });
      const { recorderMiB } = options;
      if (recorderMiB.length > 0)
        for (const [i, config] of configs.entries())
          setField(config, 'recorderMiB', recorderMiB[i % recorderMiB.length]!);
      const cluster = new BenchCluster(root, options);
      await options.prepare?.(cluster);
      return cluster;
    } catch (error) {
      removeDirectory(root);
      throw error;
    }
  }

  startReplica(name: string, more: readonly string[] = []): void {
    const { standIns, profileDirectory } = this.#options;
    const profile =
      profileDirectory === null
        ? []
        : ['--cpu-prof', `--cpu-prof-dir=${profileDirectory}`, `--cpu-prof-name=${name}-${Date.now()}.cpuprofile`];
    const switches = [...(standIns.sign ? ['--no-sign'] : []), ...(standIns.sync ? ['--no-sync'] : [])];
    const program = switches.length > 0 ? standInReplica : daemon;
    const args = [
      ...profile,
      program,
      ...switches,
      'start',
      join(this.directory, name, CONFIG_FILE),
      '--with-parent',
      ...more,
    ];
    const log = openSync(this.logOf(name), 'a', 0o600);
    // A group of its own: Ctrl-C in a terminal goes to the bench alone, which stops them in order.
    const child = spawn(process.execPath, args, { stdio: ['pipe', log, 'pipe'], detached: true });
    closeSync(log);
    child.stdin?.on('error', () => undefined);
    const running: Running = {
      child,
      asked: false,
      stderr: '',
      ended: new Promise((resolve) => {
        const end = () => {
          if (this.#running.get(name) === running) this.#running.delete(name);
          if (!running.asked) process.stderr.write(`bench: ${name} ended by itself: ${running.stderr}\n`);
          resolve();
        };
        child.on('close', end);
        child.on('error', end);
      }),
    };
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      running.stderr = `${running.stderr}${chunk}`.slice(-4096);
    });
    this.#running.set(name, running);
  }

  /** Resolves when all that run say that they are ready. */
  async ready(): Promise<void> {
    const deadline = performance.now() + readyMsMax;
    for (const { name } of this.#replicas) {
      while ((await this.status(name))?.ready !== true) {
        if (!this.#running.has(name)) throw new Error(`bench: ${name} did not start`);
        if (performance.now() > deadline) throw new Error(await this.#whyNotReady(name));
        await pause(50);
      }
    }
  }

  async #whyNotReady(name: string): Promise<string> {
    const reason = (await this.status(name))?.reason?.message ?? 'no answer';
    const log = readFileSync(this.logOf(name), 'utf8').split('\n').slice(-logLinesMax).join('\n');
    return `bench: ${name} was not ready in ${readyMsMax} ms (${reason}); its log ends with\n${log}`;
  }

  /** Beside the profiles where there are any: what it said explains them. */
  logOf(name: string): string {
    return join(this.#options.profileDirectory ?? this.#root, `${name}.log`);
  }

  async status(name: string): Promise<ReplicaStatus | null> {
    return await fetchStatus(this.door(name), 2_000);
  }

  /** Its HTTP door. */
  door(name: string): string {
    const { http } = configSchema.parse(JSON.parse(readFileSync(join(this.directory, name, CONFIG_FILE), 'utf8')));
    return `http://${http.host}:${http.port}`;
  }

  /** It will end by itself. */
  expectEnd(name: string): void {
    const running = this.#running.get(name);
    if (running !== undefined) running.asked = true;
  }

  /** Of the highest view that any replica answers for. */
  async lead(): Promise<{ readonly view: number; readonly height: number; readonly primary: string }> {
    const statuses = await Promise.all(this.names.map((name) => this.status(name)));
    const known = statuses.filter((status) => status !== null).sort((a, b) => b.view - a.view);
    const first = known[0];
    if (first === undefined) throw new Error('bench: no replica answers');
    return {
      view: first.view,
      primary: first.primary.name,
      height: Math.max(...known.map(({ height }) => height)),
    };
  }

  usage(): ReadonlyMap<string, Usage> {
    const found = new Map<string, Usage>();
    for (const [name, { child }] of this.#running) {
      const usage = usageOf(child.pid);
      if (usage !== null) found.set(name, usage);
    }
    return found;
  }

  /** SIGKILL, as a crash would have it; resolves when the process is gone. */
  async kill(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (running === undefined) return;
    running.asked = true;
    running.child.kill('SIGKILL');
    await running.ended;
  }

  /** Asks it to end, and resolves when it has. */
  async end(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (running === undefined) return;
    running.asked = true;
    running.child.kill('SIGTERM');
    await running.ended;
  }

  /** No process and no file is left when this resolves. */
  async stop(): Promise<void> {
    const all = [...this.#running.values()];
    for (const running of all) {
      running.asked = true;
      running.child.kill('SIGTERM');
    }
    const timer = setTimeout(() => this.#killAll(), stopMsMax);
    await Promise.all(all.map(({ ended }) => ended));
    clearTimeout(timer);
    process.off('exit', this.#onExit);
    removeDirectory(this.#root);
  }

  #killAll(): void {
    for (const { child } of this.#running.values()) child.kill('SIGKILL');
  }
}

function setField(config: string, name: keyof NodeConfigDocument, value: number): void {
  const document: object = JSON.parse(readFileSync(config, 'utf8')); // written a line ago
  writeFileSync(config, JSON.stringify({ ...document, [name]: value }));
}

/** Below the working directory and not in the system's temporary one, which often lies in memory: then no write would be real. */
export function makeDirectory(): string {
  mkdirSync('data', { recursive: true });
  return mkdtempSync(resolve('data', 'bench-'));
}

export function removeDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  try {
    rmdirSync(resolve('data'));
  } catch {
    // Others are in it.
  }
}
