// What `synod sim --resume` writes down: a line that says what was asked, then a line for each seed that is done. It only grows, so that
// whatever ends the run, the lines before stand; a last line that was cut off is left out.

import { appendFileSync, existsSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { z } from 'zod';
import { protocols } from '../../protocol/modes.ts';
import type { Outcome } from '../../sim/life.ts';
import { Complaint, EXIT } from '../cli/errors.ts';

/** A million seeds take about 400 MB. */
const FILE_BYTES_MAX = 512 << 20;

const headSchema = z.strictObject({
  synodSim: z.literal(1),
  protocol: z.enum(protocols),
  n: z.int().nullable(),
  /** Left out by an older version, which drew it. */
  f: z.int().nullable().default(null),
  ms: z.int(),
  realSignatures: z.boolean().nullable(),
  /** Likewise. */
  changes: z.boolean().nullable().default(null),
});
export type ResumeHead = z.output<typeof headSchema>;

const count = z.number().nonnegative();
const outcomeSchema = z.strictObject({
  seed: count,
  n: count,
  realSignatures: z.boolean(),
  failure: z.strictObject({ check: z.string(), message: z.string(), atMs: count, stack: z.string() }).nullable(),
  digest: z.string(),
  simulatedMs: count,
  recoveryMs: count,
  events: count,
  messages: count,
  blocks: count,
  acknowledged: count,
  /** Left out by an older version, which had none. */
  reads: count.default(0),
  viewChanges: count,
  crashes: count,
  readmissions: count,
  epochs: count,
  faults: count,
});

export class ResumeFile {
  readonly #path: string;
  /** By seed. */
  readonly done: ReadonlyMap<number, Outcome>;

  /** @throws Complaint where the file is of another run, or no such file at all */
  constructor(path: string, head: ResumeHead) {
    this.#path = path;
    const done = new Map<number, Outcome>();
    this.done = done;
    if (!existsSync(path) || statSync(path).size === 0) {
      appendFileSync(path, `${JSON.stringify(head)}\n`);
      return;
    }
    if (statSync(path).size > FILE_BYTES_MAX) throw complaint(path, 'it is larger than any such file');
    const text = readFileSync(path, 'utf8');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    const [first = '', ...lines] = whole.split('\n').slice(0, -1);
    const found = parsed(headSchema, first);
    if (found === undefined) throw complaint(path, 'its first line is not what `synod sim --resume` writes');
    for (const key of ['protocol', 'n', 'f', 'ms', 'realSignatures', 'changes'] as const)
      if (found[key] !== head[key])
        throw complaint(
          path,
          `it is of a run with ${key} ${String(found[key])}, and this one has ${String(head[key])}`,
        );
    for (const [index, line] of lines.entries()) {
      const outcome = parsed(outcomeSchema, line);
      if (outcome === undefined) throw complaint(path, `line ${index + 2} is not an outcome`);
      done.set(outcome.seed, outcome as Outcome); // the name of a check may be an older version's: it is only printed
    }
    if (whole.length < text.length) truncateSync(path, Buffer.byteLength(whole));
  }

  add(outcome: Outcome): void {
    appendFileSync(this.#path, `${JSON.stringify(outcome)}\n`);
  }
}

function parsed<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    const result = schema.safeParse(JSON.parse(line));
    return result.success ? result.data : undefined;
  } catch {
    return undefined;
  }
}

function complaint(path: string, problem: string): Complaint {
  return new Complaint({
    code: 'sim-resume-file',
    sentence: `--resume ${path}: ${problem}`,
    remedy: 'Give another file, or the same options as before.',
    exit: EXIT.usage,
  });
}
