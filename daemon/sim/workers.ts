// Work in several processes: each gets the next task when it has done its last one.

import { type ChildProcess, fork } from 'node:child_process';
import type { LifeOptions, Outcome } from '../../sim/life.ts';
import { live } from '../../sim/life.ts';
import { Complaint } from '../cli/errors.ts';

/**
 * Most of what a life allocates is soon garbage: with the default of 16 MB a fifth of its time goes to collecting it (measured on seeds 1 to 24), and
 * with 64 from the beginning a life takes 7 % less than with up to 32 (seeds 13 to 32).
 */
const YOUNG_MEGABYTES = 64;

/** In no particular order; `done` is called once for each. Rejects where a process ends before its answer. */
export async function liveAll(
  lives: Iterator<LifeOptions>,
  { jobs, done }: { readonly jobs: number; readonly done: (outcome: Outcome, life: LifeOptions) => void },
): Promise<void> {
  if (jobs === 1) {
    for (let next = lives.next(); next.done !== true; next = lives.next()) {
      done(live(next.value), next.value);
      // Signals and output in between.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return;
  }
  await askAll(new URL('./worker.js', import.meta.url), lives, {
    jobs,
    nameOf: ({ seed }) => `seed ${seed}`,
    // What that program answers with.
    done: (answer, life) => done(answer as Outcome, life),
  });
}

/** Each task goes to a process of this program, which answers it with one message. Tasks and answers must survive JSON. */
export async function askAll<Task extends object>(
  program: URL,
  tasks: Iterator<Task>,
  {
    jobs,
    nameOf,
    done,
  }: {
    readonly jobs: number;
    readonly nameOf: (task: Task) => string;
    readonly done: (answer: unknown, task: Task) => void;
  },
): Promise<void> {
  const children: ChildProcess[] = [];
  try {
    await Promise.all(
      Array.from({ length: jobs }, async () => {
        const child = fork(program, {
          stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
          execArgv: [
            ...process.execArgv,
            `--min-semi-space-size=${YOUNG_MEGABYTES}`,
            `--max-semi-space-size=${YOUNG_MEGABYTES}`,
          ],
        });
        children.push(child);
        for (let next = tasks.next(); next.done !== true; next = tasks.next())
          done(await ask(child, next.value, nameOf(next.value)), next.value);
        child.disconnect();
      }),
    );
  } finally {
    for (const child of children) if (child.connected) child.kill();
  }
}

function ask(child: ChildProcess, task: object, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null, signal: NodeJS.Signals | null) =>
      reject(
        new Complaint({
          code: 'sim-worker-ended',
          sentence: `the process with ${name} ended (${signal ?? `exit code ${code}`})`,
          remedy: 'Run that seed alone with --seed; was there enough memory for so many --jobs?',
        }),
      );
    child.once('exit', ended);
    child.once('message', (answer) => {
      child.off('exit', ended);
      resolve(answer);
    });
    child.send(task);
  });
}
