// `synod` as a process of its own, for tests: what it says on either stream, and its exit code.

import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const program = fileURLToPath(new URL('../daemon/main.js', import.meta.url));

export interface Run {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly input?: string;
  /** Beside those of the test; a passphrase comes from here alone. */
  readonly env?: Readonly<Record<string, string>>;
}

export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Run>;
  stdout = '';
  stderr = '';

  constructor(args: readonly string[], { cwd, input = '', env = {} }: RunOptions = {}) {
    const { SYNOD_PASSPHRASE: _, ...inherited } = process.env;
    const child = spawn(process.execPath, [program, ...args], {
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...inherited, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.child = child;
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      this.stdout += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      this.stderr += chunk;
    });
    // It may end without reading.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    this.ended = new Promise((resolve) => {
      child.on('close', (code) => resolve({ code, stdout: this.stdout, stderr: this.stderr }));
    });
  }
}

/** Runs to its end. */
export const synod = (args: readonly string[], options?: RunOptions): Promise<Run> => new Program(args, options).ended;
