// Replicas of one network as child processes of this one, for `dev` and `demo`. Each is a real `synod start`: nothing here is
// simulated. However this process ends, none of them stays: they stop when their standard input ends.

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../main.js', import.meta.url));
/** Above the drain time of a replica; whoever is not gone by then is killed. */
const stopMsMax = 15_000;

export interface ClusterMember {
  readonly name: string;
  readonly config: string;
  /** What runs it, in front of its config file; default: `synod start`. */
  readonly program?: readonly string[];
  /** Its log is appended there as well; null: nowhere. */
  readonly logFile: string | null;
}

export interface ClusterEvents {
  /** A line of the replica's log, parsed; null where it is no JSON. */
  line?(name: string, entry: LogEntry | null, text: string): void;
  /** Unasked ends are for the listener to judge. */
  exit?(name: string, exit: ReplicaExit): void;
}

export interface LogEntry {
  readonly level?: string;
  readonly time?: string;
  readonly msg?: string;
  readonly [field: string]: unknown;
}

export interface ReplicaExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** We ended it: by stop or by kill. */
  readonly asked: boolean;
  /** The end of its standard error: what a failed start says. */
  readonly stderr: string;
  /** The last error in its log, in one line. */
  readonly lastError: string | null;
}

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<ReplicaExit>;
  asked: boolean;
}

export class LocalCluster {
  readonly members: readonly ClusterMember[];
  readonly #events: ClusterEvents;
  readonly #running = new Map<string, Running>();
  readonly #onExit = () => this.#killAll();

  constructor(members: readonly ClusterMember[], events: ClusterEvents) {
    this.members = members;
    this.#events = events;
    // The last resort, synchronous: this process is ending without having stopped them.
    process.on('exit', this.#onExit);
  }

  startAll(): void {
    for (const { name } of this.members) this.start(name);
  }

  start(name: string): void {
    const member = this.members.find((other) => other.name === name);
    if (member === undefined || this.#running.has(name)) throw new Error(`cluster: cannot start ${name}`);
    // A process group of its own: Ctrl-C in a terminal goes to us alone, and we stop them in order.
    const child = spawn(process.execPath, [...(member.program ?? [program, 'start']), member.config, '--with-parent'], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    // The replica went away first: what we would still tell it does not matter.
    child.stdin?.on('error', () => undefined);
    let stderr = '';
    let lastError: string | null = null;
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      stderr = `${stderr}${chunk}`.slice(-4096);
    });
    const log = member.logFile === null ? null : createWriteStream(member.logFile, { flags: 'a' });
    if (child.stdout !== null)
      createInterface({ input: child.stdout, crlfDelay: Infinity }).on('line', (text) => {
        log?.write(`${text}\n`);
        const entry = parseEntry(text);
        if (entry?.level === 'error' || entry?.level === 'fatal') lastError = readableEntry(entry);
        this.#events.line?.(name, entry, text);
      });
    const running: Running = {
      child,
      asked: false,
      ended: new Promise((resolve) => {
        const end = (code: number | null, signal: NodeJS.Signals | null) => {
          if (this.#running.get(name) !== running) return;
          this.#running.delete(name);
          log?.end();
          const exit = { code, signal, asked: running.asked, stderr: stderr.trim(), lastError };
          this.#events.exit?.(name, exit);
          resolve(exit);
        };
        child.on('close', end);
        child.on('error', (error) => {
          stderr += error.message;
          end(null, null);
        });
      }),
    };
    this.#running.set(name, running);
  }

  isRunning(name: string): boolean {
    return this.#running.has(name);
  }

  pidOf(name: string): number | undefined {
    return this.#running.get(name)?.child.pid;
  }

  /** SIGKILL, as a crash would have it; resolves when the process is gone. */
  async kill(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (running === undefined) return;
    running.asked = true;
    running.child.kill('SIGKILL');
    await running.ended;
  }

  /** SIGTERM to all; resolves when all are gone, killed if need be. */
  async stopAll(): Promise<readonly ReplicaExit[]> {
    const all = [...this.#running.values()];
    for (const running of all) {
      running.asked = true;
      running.child.kill('SIGTERM');
    }
    const timer = setTimeout(() => this.#killAll(), stopMsMax);
    const exits = await Promise.all(all.map(({ ended }) => ended));
    clearTimeout(timer);
    process.off('exit', this.#onExit);
    return exits;
  }

  #killAll(): void {
    for (const { child } of this.#running.values()) child.kill('SIGKILL');
  }
}

function parseEntry(text: string): LogEntry | null {
  try {
    const value: unknown = JSON.parse(text);
    // The cast: an object, whose known fields are checked where they are used.
    return typeof value === 'object' && value !== null ? (value as LogEntry) : null;
  } catch {
    return null;
  }
}

/** One log line for human eyes: time, level, sentence, then the fields. */
export function readableEntry(entry: LogEntry): string {
  const { level, time, msg, member: _member, pid: _pid, hostname: _hostname, ...fields } = entry;
  const clock = typeof time === 'string' ? time.slice(11, 23) : '';
  const rest = Object.entries(fields).map(([name, value]) => `${name}=${short(value)}`);
  return [clock, String(level ?? '').padEnd(5), String(msg ?? ''), ...rest].join(' ').trimEnd();
}

function short(value: unknown): string {
  if (typeof value === 'object' && value !== null && 'message' in value) return String(value.message);
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
