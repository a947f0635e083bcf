// `synod replay`: what a replica did, from its flight recording: the same core on the same inputs, offline and without keys, step by step.

import { Command, InvalidArgumentError } from 'commander';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import type { Explanation } from '../../protocol/core.ts';
import { RECORDER_FOLDER } from '../config.ts';
import { type Recording, type RecordingProblem, readRecording, segmentsAt } from '../replay/recordings.ts';
import {
  compareSteps,
  type Difference,
  type ReplayedStep,
  SegmentReplay,
  type StepName,
  stepText,
} from '../replay/replay.ts';
import { effectsTold, inputTold, type NameOf, type Told } from '../replay/words.ts';
import { printable } from '../transport/log.ts';
import { Complaint, EXIT, usageError } from './errors.ts';
import { ReaderGone, writeLine } from './output.ts';

interface Options {
  readonly from?: StepName;
  readonly to?: StepName;
  readonly json?: true;
  readonly quiet?: true;
  readonly state?: true;
}

export function replayCommand(): Command {
  return new Command('replay')
    .description("what a replica did, step by step, from its flight recorder's files: the same core on the same inputs")
    .argument('<path>', 'a segment (.flight), a folder of them, or the data directory of a replica')
    .option('--from <step>', 'the first step to print, such as 17.204', stepName)
    .option('--to <step>', 'the last step to replay', stepName)
    .option('--quiet', 'only the summary')
    .option('--state', 'what the replica knows after the last step')
    .option('--json', 'one JSON object for each step and one for the summary, for programs')
    .addHelpText(
      'after',
      `
A step is named by its segment and its place there. Each line: the step, the replica's own time, what came in, and behind => what the
core made of it and when it wanted to be called next. Nothing is sent, no key is read and nothing is written. The replica may run
meanwhile. The files hold the transactions of clients: docs/operations.md, "The flight recorder", says how to send them.

Exit codes: 0 every step did what it did then, 1 one did not (a bug of synod), 2 not a recording, damaged, or of another version.

Examples:
  $ synod replay net/node-0/data --quiet
  $ synod replay net/node-0/data/recorder/0000000017.flight --from 17.200 --to 17.204 --state
  $ synod replay net/node-0/data --json | jq 'select(.causes[]?.what == "refusal")'`,
    )
    .action(replay);
}

function stepName(text: string): StepName {
  const [, segment, step] = /^(\d{1,10})\.(\d{1,10})$/.exec(text) ?? [];
  if (step === undefined) throw new InvalidArgumentError('a step is SEGMENT.STEP, such as 17.204.');
  return { segment: Number(segment), step: Number(step) };
}

async function replay(path: string, options: Options): Promise<void> {
  const { from, to } = options;
  if (from !== undefined && to !== undefined && compareSteps(from, to) > 0)
    throw usageError(`--to ${stepText(to)} comes before --from ${stepText(from)}`);
  const files = segmentsAt(path, RECORDER_FOLDER);
  if ('refused' in files) throw complaintOf(files);
  const run = new Run(options);
  for (const [index, file] of files.entries()) {
    const recording = readRecording(file);
    if ('refused' in recording) {
      // The oldest goes, and the newest begins, while a replica runs.
      const isRunning = recording.refused === 'recording-missing' || index === files.length - 1;
      if (files.length === 1 || !isRunning || recording.refused === 'recording-version') throw complaintOf(recording);
      await run.remark(`left out ${file}: ${printable(recording.problem)}`);
      continue;
    }
    if (!(await run.segment(recording))) break;
  }
  await run.conclude();
}

const advice: Record<RecordingProblem['refused'], string> = {
  'recording-missing': 'Give a file or folder that the flight recorder wrote: DATADIR/recorder/*.flight.',
  'recording-malformed': 'Give a file or folder that the flight recorder wrote: DATADIR/recorder/*.flight.',
  'recording-version': 'Replay it with the synod that wrote it: a core of another version does other things.',
  'recording-damaged': 'Was it copied whole? Its checksums do not hold.',
};

const complaintOf = ({ refused, file, problem }: RecordingProblem): Complaint =>
  new Complaint({
    code: refused,
    sentence: `${file}: ${printable(problem)}`,
    remedy: advice[refused],
    exit: EXIT.usage,
  });

interface Standing {
  readonly view: number;
  readonly height: number;
}

type Found = Difference & { readonly file: string; readonly software: string };

/** All segments of one call, and what there is to say at its end. */
class Run {
  readonly #options: Options;
  #segments = 0;
  #steps = 0;
  #missed = 0;
  #first: { readonly at: number; readonly standing: Standing } | null = null;
  #last: { readonly name: StepName; readonly at: number } | null = null;
  #member = '';
  #explanation: Explanation | null = null;
  #state = '';
  #threw = '';
  readonly #refusals = new Map<string, number>();
  readonly #remarks: string[] = [];
  #difference: Found | null = null;
  #damage: RecordingProblem | null = null;

  constructor(options: Options) {
    this.#options = options;
  }

  /** False: what was asked for is done, or something is not as it was. */
  async segment(recording: Recording): Promise<boolean> {
    const { from, to } = this.#options;
    const { head, file } = recording;
    if (from !== undefined && head.number < from.segment) return true;
    if (to !== undefined && head.number > to.segment) return false;
    try {
      return await this.#replay(recording);
    } catch (error) {
      if (error instanceof Complaint || error instanceof ReaderGone) throw error;
      // A state of the right fields may hold anything in them. The core's own steps are looked at apart (replay/replay.ts).
      throw new Complaint({
        code: 'recording-malformed',
        sentence: `segment ${head.number} of ${file}: what it shows makes no sense: ${printable(String(error))}`,
        remedy: 'If it is as synod wrote it, that is a bug: SECURITY.md says where to send it.',
        exit: EXIT.usage,
      });
    }
  }

  async #replay(recording: Recording): Promise<boolean> {
    const { from, to } = this.#options;
    const { head, genesis, file, stop } = recording;
    const running = SegmentReplay.begin(recording);
    if ('refused' in running) throw complaintOf(running);
    const nameOf: NameOf = (replica) => printable(genesis.members[replica]?.name ?? `replica ${replica}`);
    this.#segments += 1;
    this.#member = nameOf(head.replica);
    const beginning = running.explanation;
    if (head.missed > 0 && this.#segments > 1) {
      this.#missed += head.missed;
      await this.remark(`segment ${head.number}: ${head.missed} steps before it are not recorded (${head.gap})`);
    }
    for (let next = running.next(); next !== null; next = running.next()) {
      if ('refused' in next) throw complaintOf(next);
      if ('problem' in next) {
        this.#difference = { ...next, file, software: head.software };
        return false;
      }
      if (to !== undefined && compareSteps(next.name, to) > 0) return false;
      this.#first ??= { at: next.now, standing: beginning };
      this.#last = { name: next.name, at: next.now };
      this.#steps += 1;
      this.#threw = next.threw;
      for (const { code } of next.ready?.refusals ?? []) this.#refusals.set(code, (this.#refusals.get(code) ?? 0) + 1);
      const isWanted = from === undefined || compareSteps(next.name, from) >= 0;
      if (isWanted && this.#options.quiet !== true) await this.#print(next, running.explanation, nameOf);
      this.#explanation = running.explanation;
    }
    this.#explanation = running.explanation;
    if (this.#options.state === true) this.#state = running.digestText();
    if (stop.kind === 'damaged')
      this.#damage = { refused: 'recording-damaged', file, problem: `at byte ${stop.at}: ${stop.problem}` };
    if (stop.kind === 'damaged') return false;
    const after = `after step ${head.number}.${recording.steps.length}`;
    if (stop.kind === 'torn')
      await this.remark(
        `segment ${head.number} is torn ${after}: the process was killed, a write failed, or it is under way`,
      );
    if (stop.kind === 'cut' && this.#threw === '')
      await this.remark(`segment ${head.number} has no end ${after}: the process was killed, or still runs`);
    return true;
  }

  async remark(text: string): Promise<void> {
    this.#remarks.push(text);
    if (this.#options.json !== true && this.#options.quiet !== true) await writeLine(`-- ${text}`);
  }

  async #print(step: ReplayedStep, { view, height }: Explanation, nameOf: NameOf): Promise<void> {
    const { name, now, ready, threw } = step;
    const inputs = step.inputs.map((input) => inputTold(input, nameOf));
    const causes = ready === null ? [] : effectsTold(ready, nameOf);
    const wakeInMs = ready === null ? null : ready.wakeAt - now;
    if (this.#options.json === true) {
      const what = { step: stepText(name), at: isoOf(now), view, height, inputs, causes, wakeInMs };
      return writeLine(jsonOf(threw === '' ? what : { ...what, threw }));
    }
    const came = inputs.length === 0 ? 'time passed' : wordsOf(inputs);
    const made = threw === '' ? wordsOf(causes) : `THROWS ${printable(threw)}`;
    const effect = made === '' ? '' : ` => ${made}`;
    const next = wakeInMs === null ? '' : ` (next in ${wakeInMs} ms)`;
    await writeLine(plain(`${stepText(name)} ${clockOf(now)} view ${view} height ${height}: ${came}${effect}${next}`));
  }

  /** @throws Complaint where a step differs, or a file is damaged */
  async conclude(): Promise<void> {
    const { from, json } = this.#options;
    const [first, last, now] = [this.#first, this.#last, this.#explanation];
    if (first === null || last === null || now === null || (from !== undefined && compareSteps(last.name, from) < 0)) {
      if (this.#difference === null && this.#damage === null)
        throw usageError(
          'no step to replay',
          'A recording of a moment, or --from and --to name steps that are not in it.',
        );
    }
    if (json === true) await writeLine(jsonOf({ summary: this.#summary() }));
    else await writeLine(this.#inWords());
    if (this.#damage !== null) throw complaintOf(this.#damage);
    if (this.#difference !== null) throw this.#differs(this.#difference);
  }

  #differs({ name, problem, file, software }: Found): Complaint {
    const where = name === null ? file : `step ${stepText(name)} of ${file}`;
    return new Complaint({
      code: 'replay-differs',
      sentence: `${where}: ${printable(problem)}`,
      remedy: `The same core on the same inputs must do the same. If this is synod ${printable(software)} as it was then, it is a bug: SECURITY.md says where to send this file and these lines.`,
    });
  }

  #summary(): object {
    const last = this.#last;
    return {
      verdict: this.#difference === null ? 'identical' : 'differs',
      difference: this.#difference && {
        step: this.#difference.name && stepText(this.#difference.name),
        what: this.#difference.what,
        problem: this.#difference.problem,
      },
      member: this.#member,
      segments: this.#segments,
      steps: this.#steps,
      missed: this.#missed,
      first: this.#first && isoOf(this.#first.at),
      last: last && isoOf(last.at),
      lastStep: last && stepText(last.name),
      view: this.#span('view'),
      height: this.#span('height'),
      refusals: Object.fromEntries(this.#refusals),
      remarks: this.#remarks,
      threw: this.#threw === '' ? null : this.#threw,
      damaged: this.#damage?.problem ?? null,
      ...(this.#options.state === true ? { state: this.#explanation, digest: this.#state } : {}),
    };
  }

  #span(what: keyof Standing): readonly [number, number] | null {
    if (this.#first === null || this.#explanation === null) return null;
    return [this.#first.standing[what], this.#explanation[what]];
  }

  #inWords(): string {
    const [first, last] = [this.#first, this.#last];
    const lines: string[] = [];
    if (this.#options.state === true && this.#explanation !== null)
      lines.push(jsonOf(this.#explanation, 2), `state ${this.#state}`);
    const plural = (count: number, thing: string) => `${count} ${thing}${count === 1 ? '' : 's'}`;
    const what = `${plural(this.#steps, 'step')} in ${plural(this.#segments, 'segment')} of ${this.#member}`;
    if (first === null || last === null) lines.push(what);
    else {
      const seconds = ((last.at - first.at) / 1000).toFixed(3);
      lines.push(`${what}: ${isoOf(first.at)} to ${isoOf(last.at)}, ${seconds} s`);
      lines.push(plain(`view ${this.#span('view')?.join(' to ')}, height ${this.#span('height')?.join(' to ')}`));
    }
    const refused = [...this.#refusals].map(([code, count]) => `${code} ${count}`);
    lines.push(plain(`refused: ${refused.length === 0 ? 'nothing' : refused.join(', ')}`));
    if (this.#options.quiet === true) lines.push(...this.#remarks);
    if (this.#threw !== '') lines.push(`the core threw, as it did then: ${printable(this.#threw)}`);
    if (this.#difference !== null) lines.push('differs');
    else lines.push(this.#damage === null ? 'identical' : 'identical up to the damage');
    return lines.join('\n');
  }
}

/** In the words of one line: JSON has them all. */
const SHOWN_MAX = 12;

function wordsOf(told: readonly Told[]): string {
  const shown = told.slice(0, SHOWN_MAX).map(({ words }) => words);
  const more = told.length - shown.length;
  return [...shown, ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}

/** Anybody may have written the number. */
const isoOf = (ms: number): string => (Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : String(ms));

/** Local time of day, with milliseconds. */
function clockOf(ms: number): string {
  const at = new Date(ms);
  const two = (part: number) => String(part).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

// What stands in a recording is anybody's: printable ASCII, whatever prints it.

const plain = (line: string): string => line.replace(/[^\x20-\x7e]/g, '?');

const jsonOf = (value: unknown, indent = 0): string =>
  JSON.stringify(value, hexBytes, indent).replace(
    /[^\x20-\x7e\n]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

const hexBytes = (_: string, value: unknown): unknown => (value instanceof Uint8Array ? toHex(value as Bytes) : value);
