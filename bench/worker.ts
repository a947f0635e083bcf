// A process of the bench that does one task and ends: the clients, or one of several writers to a disk. It ends with its parent.

import { z } from 'zod';
import { install } from './stand-ins.ts';
import type { Report, Task } from './task.ts';

/** Whatever happens, no worker outlives this. */
const lifeMsMax = 30 * 60_000;
setTimeout(() => process.exit(1), lifeMsMax).unref();
process.on('disconnect', () => process.exit(1));

const tell = (report: Report): void => {
  process.send?.(report);
};

const stopped = new Promise<void>((resolve) => {
  process.on('message', (message) => {
    if (message === 'stop') resolve();
  });
});

process.once('message', (message) => {
  const { kind } = z.object({ kind: z.string() }).parse(message);
  // The cast: our own parent sent it, and `kind` tells its shape.
  run(kind, message as Task).then(
    (value) => process.send?.({ type: 'done', value } satisfies Report, () => process.disconnect()),
    (error: unknown) => {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      process.send?.({ type: 'failed', error: text } satisfies Report, () => process.disconnect());
    },
  );
});

async function run(kind: string, task: Task): Promise<unknown> {
  if (task.kind === 'load') {
    install({ sign: task.noSign, sync: false });
    const { runLoad } = await import('./load.ts');
    return runLoad(task, tell, stopped);
  }
  const { measure } = await import('./floor-tasks.ts');
  if (task.kind === kind) return measure(task, tell);
  throw new Error(`no such task: ${kind}`);
}
