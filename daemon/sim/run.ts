// `synod sim`: seeds to lives, lives to a verdict. The simulator has no clock; the one here only says how fast it went.

import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { encodeUtf8 } from '../../crypto/utf8.ts';
import type { Fault } from '../../sim/faults.ts';
import { describeFault } from '../../sim/faults.ts';
import type { Failure, LifeOptions, Outcome } from '../../sim/life.ts';
import { drawPlan, live } from '../../sim/life.ts';
import type { Shrunk } from '../../sim/shrink.ts';
import { shrink } from '../../sim/shrink.ts';
import type { Totals } from '../../sim/tally.ts';
import { Tally } from '../../sim/tally.ts';
import { EXIT, usageError } from '../cli/errors.ts';
import { note, paletteFor, writeLine } from '../cli/output.ts';
import type { SimOptions } from '../cli/sim.ts';
import { recordTo } from './record.ts';
import { ResumeFile } from './resume-file.ts';
import { liveAll } from './workers.ts';

const DEFAULT_SEEDS = { from: 1, to: 100 };
/** Lives that one failure may cost to be made small, and failures that are: the first ones are enough to begin with. */
const SHRINK_RUNS_MAX = 200;
const FAILURES_SHRUNK_MAX = 3;
const FAILURES_SHOWN_MAX = 20;
const PROGRESS_MS = 2_000;

/** Returns the exit code. */
export async function runSim(options: SimOptions): Promise<number> {
  const base = {
    protocol: options.protocol,
    n: options.n ?? null,
    f: options.f ?? null,
    ms: options.ms,
    realSignatures: options.realSignatures ?? null,
    changes: options.changes ?? null,
    only: options.faults ?? null,
  };
  if (options.seed !== undefined) return runOne({ ...base, seed: options.seed }, options);
  const { from, to } = options.seeds ?? DEFAULT_SEEDS;
  const { n, f, ms, realSignatures, changes } = base;
  const file =
    options.resume === undefined
      ? null
      : new ResumeFile(options.resume, {
          synodSim: 1,
          protocol: options.protocol,
          n,
          f,
          ms,
          realSignatures,
          changes,
        });
  const began = performance.now();
  const tally = new Tally();
  const failures: Outcome[] = [];
  const digests = new Map<number, string>();
  const took = (outcome: Outcome) => {
    tally.add(outcome);
    digests.set(outcome.seed, outcome.digest);
    if (outcome.failure !== null && failures.length < FAILURES_SHOWN_MAX) failures.push(outcome);
  };
  const todo: number[] = [];
  for (let seed = from; seed <= to; seed++) {
    const done = file?.done.get(seed);
    if (done === undefined) todo.push(seed);
    else took(done);
  }
  const resumed = tally.totals;
  if (resumed.seeds > 0) note(`${resumed.seeds} seeds are done already`);
  const progress = new Progress(to - from + 1, began);
  const lives = todo.map((seed): LifeOptions => ({ ...base, seed }));
  await liveAll(lives.values(), {
    jobs: Math.min(options.jobs, Math.max(1, todo.length)),
    done: (outcome) => {
      file?.add(outcome);
      took(outcome);
      progress.show(tally.totals);
    },
  });
  progress.end();
  const wallMs = performance.now() - began;
  failures.sort((a, b) => a.seed - b.seed);
  const found = failures.map((outcome, index) =>
    findingOf({ ...base, seed: outcome.seed }, outcome, options.shrink && index < FAILURES_SHRUNK_MAX),
  );
  const simulatedHere = tally.totals.simulatedMs - resumed.simulatedMs;
  await report(options, { totals: tally.totals, wallMs, simulatedHere, found, digest: digestOf(digests) });
  return found.length === 0 ? EXIT.ok : EXIT.failure;
}

async function runOne(life: LifeOptions, options: SimOptions): Promise<number> {
  const drawn = drawPlan(life).faults.length;
  const missing = life.only?.find((number) => number >= drawn);
  if (missing !== undefined)
    throw usageError(
      `--faults ${missing}: seed ${life.seed} has ${drawn} faults, numbered from 0`,
      'Give the options that the seed failed with.',
    );
  const began = performance.now();
  // Straight out: a trace is long, and whoever reads it wants its beginning.
  const onLine = options.trace === true ? (line: string) => void process.stdout.write(`${line}\n`) : undefined;
  const record = options.record === undefined ? null : recordTo(options.record, life);
  const outcome = live({
    ...life,
    ...(onLine === undefined ? {} : { onLine }),
    ...(record === null ? {} : { Replica: record.Replica }),
  });
  record?.end();
  const wallMs = performance.now() - began;
  const tally = new Tally();
  tally.add(outcome);
  const mayShrink = options.shrink && options.faults === undefined && options.trace !== true;
  const found = outcome.failure === null ? [] : [findingOf(life, outcome, mayShrink)];
  await report(options, {
    totals: tally.totals,
    wallMs,
    simulatedHere: outcome.simulatedMs,
    found,
    digest: outcome.digest,
  });
  return found.length === 0 ? EXIT.ok : EXIT.failure;
}

/** Of all traces, by seed: the same for every way in which the range was cut into runs and spread over processes. */
function digestOf(digests: ReadonlyMap<number, string>): string {
  const lines = [...digests].sort(([a], [b]) => a - b).map(([seed, digest]) => `${seed} ${digest}\n`);
  return toHex(native.sha256(encodeUtf8(lines.join('')))).slice(0, 32);
}

// ---- failures -----------------------------------------------------------------------------------------------------------

interface Finding {
  readonly seed: number;
  readonly n: number;
  readonly failure: Failure;
  readonly replay: string;
  readonly shrunk: Shrunk | null;
  /** The command with the shrunk faults alone. */
  readonly replayShrunk: string | null;
  /** Those that are left; all of them where it was not shrunk. */
  readonly faults: readonly (Fault & { readonly number: number })[];
}

function findingOf(life: LifeOptions, outcome: Outcome, mayShrink: boolean): Finding {
  const failure = outcome.failure!; // asked for failures only
  let shrunk: Shrunk | null = null;
  if (mayShrink) {
    note(`seed ${life.seed} fails: looking for the faults that it takes`);
    shrunk = shrink(life, failure, {
      runsMax: SHRINK_RUNS_MAX,
      onRun: (runs, faults) => {
        if (runs % 20 === 0) note(`  ${runs} runs, tried ${faults} faults`);
      },
    });
  }
  const all = drawPlan(life).faults;
  const left = shrunk?.faults ?? life.only ?? all.keys();
  return {
    seed: life.seed,
    n: outcome.n,
    failure,
    replay: replayOf(life),
    shrunk,
    replayShrunk: shrunk === null ? null : replayOf({ ...life, only: shrunk.faults }),
    faults: [...left].flatMap((number) => (all[number] === undefined ? [] : [{ ...all[number], number }])),
  };
}

function replayOf({ seed, n, f, ms, realSignatures, changes, only, protocol = 'pbft' }: LifeOptions): string {
  const parts = ['synod sim --seed', seed, '--ms', ms];
  if (protocol !== 'pbft') parts.push('--protocol', protocol);
  if (n !== null) parts.push('--n', n);
  if (f != null) parts.push('--f', f);
  if (realSignatures === true) parts.push('--real-signatures');
  if (changes != null) parts.push(changes ? '--changes' : '--no-changes');
  if (only != null) parts.push('--faults', only.length === 0 ? 'none' : only.join(','));
  return parts.join(' ');
}

// ---- what is printed ------------------------------------------------------------------------------------------------------

interface Report {
  readonly totals: Totals;
  readonly wallMs: number;
  /** Without what an earlier run did. */
  readonly simulatedHere: number;
  readonly found: readonly Finding[];
  /** Of the trace; of a range: of all of them. */
  readonly digest: string;
}

async function report(options: SimOptions, { totals, wallMs, simulatedHere, found, digest }: Report): Promise<void> {
  const hoursPerMinute = simulatedHere / 3_600_000 / (wallMs / 60_000);
  if (options.json === true) {
    const summary = { ...totals, wallMs: Math.round(wallMs), simulatedHoursPerMinute: round(hoursPerMinute) };
    await writeLine(JSON.stringify({ protocol: options.protocol, ...summary, digest, failures: found }));
    return;
  }
  const { red, green, bold } = paletteFor(process.stdout);
  for (const { seed, n, failure, replay, shrunk, replayShrunk, faults } of found) {
    await writeLine(
      `${red('FAIL')}  seed ${seed}, ${n} replicas, at ${(failure.atMs / 1000).toFixed(3)} s: ${bold(failure.check)}`,
    );
    await writeLine(`      ${failure.message}`);
    if (failure.check === 'no-invariant-breaks')
      for (const line of failure.stack.split('\n').slice(1, 6)) await writeLine(`      ${line.trim()}`);
    await writeLine(`      replay: ${replay}`);
    if (shrunk !== null) {
      await writeLine(`      shrunk: ${replayShrunk}`);
      await writeLine(
        `      ${faults.length} of ${shrunk.of} faults are enough, found in ${shrunk.runs} runs; with them, at ${(shrunk.failure.atMs / 1000).toFixed(3)} s: ${shrunk.failure.message}`,
      );
    } else await writeLine(`      its ${faults.length} faults:`);
    for (const fault of faults) await writeLine(`      ${String(fault.number).padStart(5)} ${describeFault(fault)}`);
  }
  const verdict = totals.failed === 0 ? green('PASS') : red('FAIL');
  const seeds = totals.seeds === 1 ? '1 seed' : `${totals.seeds} seeds`;
  await writeLine(`${verdict}  ${seeds}, ${totals.failed} failed, ${totals.realSignatures} with real signatures`);
  await writeLine(
    `      ${(totals.simulatedMs / 3_600_000).toFixed(2)} simulated hours; ${round(hoursPerMinute)} in each minute, ${Math.round(simulatedHere / wallMs)} times as fast as real`,
  );
  await writeLine(
    `      ${totals.events} events, ${totals.messages} messages, ${totals.blocks} blocks, ${totals.acknowledged} bundles acknowledged`,
  );
  await writeLine(
    `      ${totals.faults} faults, ${totals.crashes} crashes, ${totals.readmissions} readmissions, ${totals.viewChanges} view changes, ${totals.epochs} changes of the epoch`,
  );
  await writeLine(`      a healed quorum ordered everything within ${(totals.recoveryMsMax / 1000).toFixed(1)} s`);
  await writeLine(`      ${totals.seeds === 1 ? 'trace' : 'traces'} ${digest}`);
}

const round = (value: number): number => Number(value.toPrecision(3));

/** On standard error: a line that is written over on a terminal, and one now and then elsewhere. */
class Progress {
  readonly #total: number;
  readonly #began: number;
  readonly #onTerminal = process.stderr.isTTY === true;
  #shownAt: number;

  constructor(total: number, began: number) {
    this.#total = total;
    this.#began = began;
    this.#shownAt = began;
  }

  show({ seeds, failed, simulatedMs }: Totals): void {
    const now = performance.now();
    if (now - this.#shownAt < (this.#onTerminal ? PROGRESS_MS / 10 : PROGRESS_MS * 5)) return;
    this.#shownAt = now;
    const seconds = ((now - this.#began) / 1000).toFixed(0);
    const line = `${seeds} of ${this.#total} seeds, ${failed} failed, ${(simulatedMs / 3_600_000).toFixed(2)} simulated hours in ${seconds} s`;
    process.stderr.write(this.#onTerminal ? `\r\u001b[K${line}` : `${line}\n`);
  }

  end(): void {
    if (this.#onTerminal) process.stderr.write('\r\u001b[K');
  }
}
