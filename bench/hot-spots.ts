// CPU profiles in one table: where each process spends its own time. `--profile DIR` makes them; this reads them.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const functionsMax = 25;

const profileSchema = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string(), lineNumber: z.number() }),
    }),
  ),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

const notWork = new Set(['(idle)', '(root)']);

export function hotSpots(directory: string): string {
  const parts = readdirSync(directory)
    .filter((name) => name.endsWith('.cpuprofile'))
    .sort()
    .map((name) => [name, ...linesOf(readFileSync(join(directory, name), 'utf8'))].join('\n'));
  return `${parts.join('\n\n')}\n`;
}

/** Shares are of the time that the process did something. */
function linesOf(text: string): string[] {
  const { nodes, samples, timeDeltas } = profileSchema.parse(JSON.parse(text));
  const nameOf = new Map(nodes.map(({ id, callFrame }) => [id, label(callFrame)]));
  const selfTime = new Map<string, number>();
  for (const [i, id] of samples.entries()) {
    const name = nameOf.get(id) ?? '?';
    selfTime.set(name, (selfTime.get(name) ?? 0) + Math.max(0, timeDeltas[i] ?? 0));
  }
  const work = [...selfTime].filter(([name]) => !notWork.has(name)).sort(([, a], [, b]) => b - a);
  const total = work.reduce((sum, [, time]) => sum + time, 0);
  return work
    .slice(0, functionsMax)
    .map(([name, time]) => `${((100 * time) / total).toFixed(1).padStart(6)} %  ${name}`);
}

/** `write rocks.js:81`: enough to find it, and no path of one machine. */
function label({ functionName, url, lineNumber }: z.infer<typeof profileSchema>['nodes'][number]['callFrame']): string {
  const file = url.split('/').slice(-2).join('/');
  const name = functionName === '' ? '(anonymous)' : functionName;
  return file === '' ? name : `${name}  ${file}:${lineNumber + 1}`;
}
