// Lives in several processes: each gets the next seed when it has done its last one.

import { type ChildProcess, fork } from 'node:child_process';
import type { LifeOptions, Outcome } from '../../sim/life.ts';
import { live } from '../../sim/life.ts';
import { Complaint } from '../cli/errors.ts';

const program = new URL('./worker.js', import.meta.url);

/** In no particular order; `done` is called once for each. Rejects where a process ends before its answer. */
export async function liveAll(
  lives: Iterator<LifeOptions>,
  { jobs, done }: { readonly jobs: number; readonly done: (outcome: Outcome) => void },
): Promise<void> {
  if (jobs === 1) {
    for (let next = lives.next(); next.done !== true; next = lives.next()) {
      done(live(next.value));
      // Signals and output in between.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return;
  }
  const children: ChildProcess[] = [];
  try {
    await Promise.all(
      Array.from({ length: jobs }, async () => {
        const child = fork(program, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
        children.push(child);
        for (let next = lives.next(); next.done !== true; next = lives.next()) done(await ask(child, next.value));
        child.disconnect();
      }),
    );
  } finally {
    for (const child of children) if (child.connected) child.kill();
  }
}

function ask(child: ChildProcess, options: LifeOptions): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null, signal: NodeJS.Signals | null) =>
      reject(
        new Complaint({
          code: 'sim-worker-ended',
          sentence: `the process with seed ${options.seed} ended (${signal ?? `exit code ${code}`})`,
          remedy: 'Run that seed alone with --seed; was there enough memory for so many --jobs?',
        }),
      );
    child.once('exit', ended);
    child.once('message', (outcome: Outcome) => {
      child.off('exit', ended);
      resolve(outcome);
    });
    child.send(options);
  });
}
