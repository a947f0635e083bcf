// Tasks for worker processes, and the parent's end of them.

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FloorTask } from './floor-tasks.ts';
import type { LoadTask } from './load.ts';

export type Task = LoadTask | FloorTask;

export type Report =
  | { readonly type: 'mark'; readonly name: string; readonly value?: number }
  | { readonly type: 'done'; readonly value: unknown }
  | { readonly type: 'failed'; readonly error: string };

export interface Worker {
  readonly pid: number | undefined;
  /** What `run` of the task returned. The cast to T is the caller's: both ends are this folder's. */
  result<T>(): Promise<T>;
  /** The phase at hand is long enough, and the last. */
  stop(): void;
  /** Ends it at once; harmless when it has ended. */
  kill(): void;
}

export interface WorkerOptions {
  readonly task: Task;
  readonly msMax: number;
  readonly execArgv?: readonly string[];
  readonly onMark?: (name: string, value: number | undefined) => void;
}

const program = fileURLToPath(new URL('./worker.js', import.meta.url));
const alive = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

export function startWorker({ task, msMax, execArgv = [], onMark }: WorkerOptions): Worker {
  const child = fork(program, {
    execArgv: [...execArgv],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  alive.add(child);
  const result = new Promise<unknown>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`bench: the ${task.kind} worker took more than ${msMax} ms`));
    }, msMax);
    let done: { readonly value: unknown } | undefined;
    child.on('message', (report: Report) => {
      if (report.type === 'mark') onMark?.(report.name, report.value);
      if (report.type === 'done') done = { value: report.value };
      if (report.type === 'failed') reject(new Error(report.error));
    });
    child.on('error', reject);
    // Only when it is gone: a CPU profile is written at the very end.
    child.on('exit', (code, signal) => {
      alive.delete(child);
      clearTimeout(timer);
      if (done !== undefined) resolve(done.value);
      else reject(new Error(`bench: the ${task.kind} worker ended early (${signal ?? code})`));
    });
    child.send(task);
  });
  // Whoever kills it does not wait for it.
  result.catch(() => undefined);
  return {
    pid: child.pid,
    // The cast: see the interface.
    result: <T>() => result as Promise<T>,
    stop: () => {
      child.send('stop');
    },
    kill: () => {
      child.kill('SIGKILL');
    },
  };
}

export async function runWorker<T>(options: WorkerOptions): Promise<T> {
  return await startWorker(options).result<T>();
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
