// A failing life with as few faults as it takes: delta debugging by deletion (Zeller and Hildebrandt, 2002). First halves of the list are
// left out, then ever smaller pieces; what fails in the same way without them did not need them.

import type { Failure, LifeOptions, Outcome } from './life.ts';
import { drawPlan, live } from './life.ts';

export interface Shrunk {
  /** Numbers of the faults that are left; they are needed, one by one, unless the runs ran out. */
  readonly faults: readonly number[];
  readonly of: number;
  readonly failure: Failure;
  readonly runs: number;
}

export interface ShrinkOptions {
  readonly runsMax: number;
  readonly run?: (options: LifeOptions) => Outcome;
  readonly onRun?: (runs: number, faults: number) => void;
}

/** @param failure of the life with these options; another failure does not count as the same */
export function shrink(options: LifeOptions, failure: Failure, { runsMax, run = live, onRun }: ShrinkOptions): Shrunk {
  const of = drawPlan(options).faults.length;
  let faults: readonly number[] = options.only ?? Array.from({ length: of }, (_, number) => number);
  let last = failure;
  let runs = 0;
  for (let size = Math.ceil(faults.length / 2); size >= 1 && faults.length > 0; ) {
    let hasShrunk = false;
    for (let from = 0; from < faults.length && runs < runsMax; ) {
      const fewer = [...faults.slice(0, from), ...faults.slice(from + size)];
      const { failure: found } = run({ ...options, only: fewer });
      runs += 1;
      onRun?.(runs, fewer.length);
      if (found === null || found.check !== failure.check) {
        from += size;
        continue;
      }
      faults = fewer;
      last = found;
      hasShrunk = true;
    }
    if (runs >= runsMax || (size === 1 && !hasShrunk)) break;
    size = Math.max(1, Math.min(Math.ceil(size / 2), Math.ceil(faults.length / 2)));
  }
  return { faults, of, failure: last, runs };
}
