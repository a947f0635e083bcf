// A network of real replicas for the chaos test: processes, sockets, disks and keys, with the ways to hurt them. However the test
// ends, no process of it stays: replicas end with their parent, and a frozen one is thawed by a process of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LocalCluster, type LogEntry, type ReplicaExit } from '../../daemon/cli/cluster.ts';
import { describeExit } from '../../daemon/cli/exits.ts';
import { findNetwork, type Network } from '../../daemon/cli/network.ts';
import { CONFIG_FILE, createNetwork, localReplicas } from '../../daemon/cli/network-files.ts';
import { freePortRange } from '../../daemon/cli/ports.ts';
import { fetchStatus, type ReplicaStatus } from '../../daemon/cli/replica-http.ts';
import type { GenesisDocument } from '../../protocol/genesis.ts';
import { bearsLies, membersMin, type Protocol } from '../../protocol/modes.ts';
import { byzantineQuorums, crashQuorums } from '../../protocol/quorum.ts';
import type { LieName } from '../../sim/liars.ts';

const host = '127.0.0.1';
const answerMsMax = 2_000;
/** Starting, stopping and becoming ready again, on a machine that has other things to do. */
export const settleMsMax = 90_000;

export interface StageOptions {
  readonly directory: string;
  /** Default: pbft, of four replicas. */
  readonly protocol?: Protocol;
  readonly replicas?: number;
  readonly parameters?: NonNullable<GenesisDocument['parameters']>;
  /** For every replica's config.json. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** By name, of replicas that lie: what, from sim/liars.ts (test/lying-replica.ts runs them). Default: all are honest. */
  readonly lies?: Readonly<Record<string, LieName>>;
  /** Replicas that run as they should and are faulty all the same, such as those whose key runs twice. */
  readonly faulty?: readonly string[];
}

const lyingReplica = fileURLToPath(new URL('../lying-replica.js', import.meta.url));

export class ChaosStage {
  readonly directory: string;
  readonly network: Network;
  readonly names: readonly string[];
  /** Those that do not lie: what is asked, waited for and compared below is theirs. */
  readonly honest: readonly string[];
  /** The others. */
  readonly accusable: ReadonlySet<string>;
  /** What no replica among honest ones may do: end by itself, report a fatal error, accuse another. */
  readonly troubles: string[] = [];
  /** How often each event of the core, and each warning, stood in a log. */
  readonly counts = new Map<string, number>();
  readonly #cluster: LocalCluster;
  /** Of replicas that are meant to end: by SIGTERM, or because they cannot start. */
  readonly #awaited = new Map<string, (exit: ReplicaExit) => void>();
  readonly #quorum: number;
  /** The first so many replicas keep the log (CHP-1). */
  readonly #mains: number;
  readonly #lines = new Map<string, LogEntry[]>();

  private constructor(
    directory: string,
    network: Network,
    quorum: number,
    { protocol, lies = {}, faulty = [] }: StageOptions,
  ) {
    this.#quorum = quorum;
    this.#mains = protocol === 'cheap-paxos' ? quorum : network.replicas.length;
    this.directory = directory;
    this.network = network;
    this.names = network.replicas.map(({ name }) => name);
    this.honest = this.names.filter((name) => lies[name] === undefined && !faulty.includes(name));
    this.accusable = new Set(this.names.filter((name) => !this.honest.includes(name)));
    const members = this.names.map((name) => ({
      name,
      ...(lies[name] === undefined ? {} : { program: [lyingReplica, lies[name]] }),
      config: join(directory, name, CONFIG_FILE),
      logFile: join(directory, name, 'replica.log'),
    }));
    this.#cluster = new LocalCluster(members, {
      line: (name, entry) => this.#line(name, entry),
      exit: (name, exit) => {
        const settle = this.#awaited.get(name);
        this.#awaited.delete(name);
        if (settle !== undefined) settle(exit);
        else if (!exit.asked && this.honest.includes(name))
          this.troubles.push(`${name} ended by itself: ${describeExit(exit)}`);
      },
    });
  }

  static async create(options: StageOptions): Promise<ChaosStage> {
    const { directory, protocol = 'pbft', replicas = membersMin(protocol), parameters = {}, config = {} } = options;
    const { configs } = await createNetwork({
      directory,
      name: 'chaos',
      protocol,
      replicas: localReplicas(replicas, host, await freePortRange(host, 2 * replicas)),
      parameters,
      passphrase: null,
      passphraseFile: null,
      logFormat: 'json',
    });
    for (const file of configs)
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...config }));
    const { quorum } = (bearsLies(protocol) ? byzantineQuorums : crashQuorums)(replicas);
    return new ChaosStage(directory, findNetwork({ network: directory }), quorum, options);
  }

  #line(name: string, entry: LogEntry | null): void {
    if (entry === null) return;
    const lines = this.#lines.get(name);
    lines?.push(entry);
    const { level, msg, type, code, kind } = entry;
    if (typeof type === 'string') this.#count(type);
    else if (level === 'warn') this.#count(`${msg}${code === undefined ? '' : ` ${code} ${kind}`}`);
    // What an honest one says of a liar is as it should be.
    if (typeof entry.peer === 'string' && this.accusable.has(entry.peer)) return;
    if ((level === 'error' || level === 'fatal') && !this.#awaited.has(name) && this.honest.includes(name))
      this.troubles.push(`${name}: ${msg} ${JSON.stringify(entry)}`);
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  isUp(name: string): boolean {
    return this.#cluster.isRunning(name);
  }

  start(name: string): void {
    this.#lines.set(name, []);
    this.#cluster.start(name);
  }

  /** What it has logged since it was started. */
  said(name: string): readonly LogEntry[] {
    return this.#lines.get(name) ?? [];
  }

  /** The most memory that its process ever had resident, in MiB; null where the system does not say, or it does not run. */
  peakMiB(name: string): number | null {
    const pid = this.#cluster.pidOf(name);
    return pid === undefined ? null : peakMiB(pid);
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(name: string): Promise<void> {
    await this.#cluster.kill(name);
  }

  /** SIGTERM, or no signal for one that will end by itself; resolves when it is gone. */
  ended(name: string, signal?: 'SIGTERM'): Promise<ReplicaExit> {
    const ended = new Promise<ReplicaExit>((resolve) => this.#awaited.set(name, resolve));
    const pid = this.#cluster.pidOf(name);
    if (signal !== undefined && pid !== undefined) process.kill(pid, signal);
    return within(settleMsMax, ended, `${name} did not end`);
  }

  /** SIGSTOP, then SIGCONT. A shell does it: should this process be killed meanwhile, the replica still goes on, and so can end. */
  async freeze(name: string, ms: number): Promise<void> {
    const pid = this.#cluster.pidOf(name);
    if (pid === undefined) return;
    const shell = spawn('/bin/sh', ['-c', `kill -STOP ${pid}; sleep ${(ms / 1000).toFixed(3)}; kill -CONT ${pid}`], {
      stdio: 'ignore',
      detached: true,
    });
    await once(shell, 'exit');
  }

  /** What a limit of the operating system does to a replica in the middle of its work. */
  async limit(name: string, limit: string): Promise<void> {
    const shell = spawn('prlimit', ['--pid', String(this.#cluster.pidOf(name)), limit], { stdio: 'ignore' });
    await once(shell, 'exit');
  }

  async status(name: string): Promise<ReplicaStatus | null> {
    const http = this.network.replicas.find((replica) => replica.name === name)?.http ?? null;
    return http === null || !this.isUp(name) ? null : fetchStatus(http, answerMsMax);
  }

  async statuses(): Promise<readonly (ReplicaStatus | null)[]> {
    return Promise.all(this.honest.map((name) => this.status(name)));
  }

  /** The name of the primary, by the word of whoever is in the highest view. */
  async primary(): Promise<string | undefined> {
    const known = (await this.statuses()).filter((status) => status !== null);
    return known.sort((a, b) => b.view - a.view)[0]?.primary.name;
  }

  /**
   * Every replica answers, and a quorum is ready. Not all: one that alone asked for the next view, since it was started first or
   * frozen, waits there until the others have a reason to follow; meanwhile it only learns what is decided.
   */
  async allUp(): Promise<void> {
    await this.until('all replicas running', async () => {
      const statuses = await this.statuses();
      const ready = statuses.filter((status) => status?.ready === true).length;
      return !statuses.includes(null) && ready >= this.#quorum;
    });
  }

  /** Resolves to the height that all who keep a log have. */
  async allEqual(): Promise<number> {
    let height = -1;
    await this.until('heights equal', async () => {
      const heights = new Set((await this.statuses()).slice(0, this.#mains).map((status) => status?.height));
      height = [...heights][0] ?? -1;
      return heights.size === 1 && height >= 0;
    });
    return height;
  }

  /** Throws, with all that helps to find out why, when the condition does not come true in time. */
  async until(what: string, condition: () => boolean | Promise<boolean>, msMax = settleMsMax): Promise<void> {
    const deadline = performance.now() + msMax;
    while (!(await condition())) {
      if (this.troubles.length > 0) throw new Error(`while waiting for ${what}: ${this.troubles.join('\n')}`);
      if (performance.now() > deadline) throw new Error(`not in ${msMax} ms: ${what}\n${await this.describe()}`);
      await pause(50);
    }
  }

  async describe(): Promise<string> {
    const statuses = await this.statuses();
    const lines = this.honest.map((name, index) => {
      const status = statuses[index];
      if (!this.isUp(name)) return `${name}: not running`;
      if (status === null || status === undefined) return `${name}: no answer`;
      const { view, phase, height, highestSeen, stable, pool, ready, reason, waits } = status;
      const words = waits.map((wait) => wait.words).join('; ');
      return `${name}: view ${view} ${phase}, height ${height} of ${highestSeen}, stable ${stable}, pool ${pool.bundles}, ${ready ? 'ready' : reason?.message}; ${words}`;
    });
    return lines.join('\n');
  }

  async end(): Promise<readonly ReplicaExit[]> {
    return this.#cluster.stopAll();
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The most memory that a process ever had resident, in MiB; null where the system does not say. */
function peakMiB(pid: number): number | null {
  if (process.platform !== 'linux') return null;
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return line === null ? null : Number(line[1]) / 1024;
}
