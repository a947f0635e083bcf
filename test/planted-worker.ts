// A process that looks for planted bugs, one after the other, as seeds.test.ts asks. It ends with its parent.

import type { CheckName } from '../sim/checks.ts';
import { caughtAt, PLANTED } from './planted.ts';

export interface Caught {
  readonly name: string;
  /** Null: no seed of its budget caught it. */
  readonly caught: { readonly seed: number; readonly check: CheckName; readonly message: string } | null;
}

process.on('message', ({ name, ms }: { readonly name: string; readonly ms: number }) => {
  const bug = PLANTED.find((each) => each.name === name);
  if (bug === undefined) throw new Error(`no such bug: ${name}`);
  const found = caughtAt(bug, ms);
  const failure = found?.outcome.failure ?? null;
  const caught = found === null || failure === null ? null : { seed: found.seed, ...failure };
  process.send?.({ name, caught } satisfies Caught);
});
process.on('disconnect', () => process.exit(0));
