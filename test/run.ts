// The test command: style, types, then every test file in a process of its own, two at a time; the last line is
// `N passed, N failed`. N counts assertions, plus one for each check (style, types, purity) and one for a file that crashed, ran
// out of time or asserted nothing. tap's own runner is not used: it costs 1 to 2 seconds a file.

import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Parser, type Result } from 'tap-parser';

const usage = `Usage: npm test -- [options] [filter ...]

Runs the checks and every test file whose name contains one of the filters (all without a filter).

  --list             print the names of the test files and end
  --no-checks        leave out style and types
  --quick            leave out these and the slow files
  --jobs N           files at the same time (default: 2, or 1 on a machine with one core)
  --timeout SECONDS  for one file (default: 400; the lives from seeds take five times that)
`;

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = fileURLToPath(new URL('.', import.meta.url));
const outputBytesMax = 16 << 20;
const failuresShownMax = 20;
/** Has every core to itself, when all others have ended: what it lives has no clock, and would only slow down those that have one. */
const lastFile = 'seeds.test.js';
/** Started first: nothing else may wait for them at the end. */
const slowFiles = [
  'e2e.test.js',
  'chaos.test.js',
  'epochs-e2e.test.js',
  'epochs-grow-e2e.test.js',
  'epochs-return-e2e.test.js',
  'real-adversaries.test.js',
];
/** How many times as long as the others the last file may take: five hundred lives take as long as there are cores for them. */
const lastPatience = 5;

interface Job {
  readonly name: string;
  readonly command: readonly string[];
  /** Its output is TAP; otherwise the exit code alone counts, as one. */
  readonly tap: boolean;
}

interface Outcome {
  readonly passed: number;
  /** Title and details, to print. */
  readonly failures: readonly string[];
  readonly skipped: number;
  /** What its tests have to say beside it: figures. */
  readonly remarks: readonly string[];
}

const settings = readSettings();
/** Process groups, to end with this process. */
const running = new Set<number | undefined>();

async function main(): Promise<number> {
  const files = readdirSync(folder)
    .filter((name) => name.endsWith('.test.js'))
    .sort((a, b) => placeOf(a) - placeOf(b) || (a < b ? -1 : 1))
    .filter((name) => !(settings.quick && (slowFiles.includes(name) || name === lastFile)))
    .filter((name) => settings.filters.length === 0 || settings.filters.some((filter) => isMeant(name, filter)));
  if (settings.list) {
    for (const name of files) console.log(name.slice(0, -'.test.js'.length));
    return 0;
  }
  const jobs: Job[] = [
    ...(settings.checks ? checks() : []),
    ...files.filter((name) => name !== lastFile).map(testFile),
  ];
  const last = files.filter((name) => name === lastFile).map(testFile);
  const totals = { passed: 0, failed: 0, skipped: 0 };
  const report: string[] = [];
  const width = Math.max(...[...jobs, ...last].map((job) => job.name.length), 0);
  const run = async (job: Job) => {
    const startedAt = performance.now();
    const outcome = await runJob(job);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(6);
    totals.passed += outcome.passed;
    totals.failed += outcome.failures.length;
    totals.skipped += outcome.skipped;
    const count = `${outcome.passed} passed`.padStart(13);
    const bad = outcome.failures.length > 0 ? `, ${outcome.failures.length} FAILED` : '';
    const skips = outcome.skipped > 0 ? `, ${outcome.skipped} skipped` : '';
    console.log(`${job.name.padEnd(width)}${count}${seconds} s${bad}${skips}`);
    if (last.includes(job)) for (const remark of outcome.remarks) console.log(`  ${remark}`);
    for (const failure of outcome.failures) report.push(`--- ${job.name}: ${failure}`);
  };
  await inParallel(jobs, settings.jobs, run);
  await inParallel(last, 1, run);
  if (report.length > 0) console.log(`\n${report.slice(0, failuresShownMax).join('\n\n')}\n`);
  if (report.length > failuresShownMax) console.log(`... and ${report.length - failuresShownMax} more failures\n`);
  if (files.length === 0) console.log('No test file: build first (node setup.mjs), or look at the filter.');
  console.log(`${totals.passed} passed, ${totals.failed} failed`);
  return totals.failed > 0 || totals.passed === 0 || files.length === 0 ? 1 : 0;
}

/** The slow ones in the order of their list, then all others. */
function placeOf(name: string): number {
  const at = slowFiles.indexOf(name);
  return at < 0 ? slowFiles.length : at;
}

/** `cli` is cli.test.js, and not client.test.js as well. */
function isMeant(name: string, filter: string): boolean {
  return existsSync(join(folder, `${filter}.test.js`)) ? name === `${filter}.test.js` : name.includes(filter);
}

function checks(): Job[] {
  const tool = (path: string) => join(root, 'node_modules', path);
  const tsc = [process.execPath, tool('typescript/bin/tsc'), '-p'];
  return [
    {
      name: 'style (biome)',
      command: [process.execPath, tool('@biomejs/biome/bin/biome'), 'check', '--error-on-warnings', '--colors=off'],
      tap: false,
    },
    // Without the incremental notes in dist/: two compilers must not write one file.
    { name: 'types (tsc)', command: [...tsc, 'tsconfig.json', '--noEmit', '--incremental', 'false'], tap: false },
    { name: 'purity of protocol/ (tsc)', command: [...tsc, 'protocol/tsconfig.json'], tap: false },
  ];
}

function testFile(name: string): Job {
  return {
    name: basename(name, '.test.js'),
    command: [process.execPath, '--enable-source-maps', join(folder, name)],
    tap: true,
  };
}

async function runJob(job: Job): Promise<Outcome> {
  const failures: string[] = [];
  let passed = 0;
  let skipped = 0;
  const parser = new Parser();
  // `result` points: the leaves, each with its full name; the line that sums up a subtest is none.
  parser.on('pass', () => {
    passed += 1;
  });
  parser.on('fail', (result: Result) => failures.push(describe(result)));
  for (const kind of ['skip', 'todo'] as const)
    parser.on(kind, () => {
      skipped += 1;
    });
  const remarks: string[] = [];
  parser.on('child', (child: Parser) =>
    child.on('comment', (line: string) => {
      if (!/^# (Subtest|time=)/.test(line)) remarks.push(line.slice(2).trimEnd());
    }),
  );
  const ended = await execute(job.command, (chunk) => {
    if (job.tap) parser.write(chunk);
  });
  if (job.tap) {
    await new Promise<void>((resolve) => {
      parser.on('complete', () => resolve());
      parser.end();
    });
  }
  const tail = lastLines(job.tap ? ended.stderr : `${ended.stdout}${ended.stderr}`, 60);
  if (ended.problem !== undefined) failures.push(`${ended.problem}\n${lastLines(ended.stdout, 15)}\n${tail}`.trim());
  else if (!job.tap && ended.code === 0) passed += 1;
  else if (!job.tap) failures.push(`exit code ${ended.code}\n${tail}`);
  else if (failures.length === 0 && (ended.code !== 0 || parser.results?.ok !== true))
    failures.push(`ended with exit code ${ended.code} ${planProblem(parser)}\n${tail}`.trim());
  else if (failures.length === 0 && passed === 0) failures.push(`asserted nothing\n${tail}`.trim());
  return { passed, failures, skipped, remarks };
}

function planProblem(parser: Parser): string {
  const problem = parser.results?.failures.find((failure) => 'tapError' in failure && failure.tapError !== null);
  return problem === undefined ? '' : `(${String(problem.tapError)})`;
}

interface Ended {
  readonly code: number | null;
  /** Why the code does not count: a signal, the time, the amount of output. */
  readonly problem?: string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs in a process group of its own, so that whatever a hanging test has started ends with it. */
function execute(command: readonly string[], onOutput: (chunk: Buffer) => void): Promise<Ended> {
  return new Promise((resolve) => {
    const [file = '', ...args] = command;
    const seconds = settings.timeoutSeconds * (basename(args.at(-1) ?? '') === lastFile ? lastPatience : 1);
    const env = {
      ...process.env,
      TAP: '1',
      TAP_TIMEOUT: String(seconds),
      NO_COLOR: '1',
      FORCE_COLOR: '0',
    };
    const child = spawn(file, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    running.add(child.pid);
    const out = { stdout: '', stderr: '' };
    let problem: string | undefined;
    const stop = (why: string) => {
      problem ??= why;
      killGroup(child.pid);
    };
    const timer = setTimeout(() => stop(`out of time after ${seconds} s`), seconds * 1000);
    const keep = (name: 'stdout' | 'stderr') => (chunk: Buffer) => {
      out[name] += chunk.toString('utf8');
      if (out[name].length > outputBytesMax) stop('too much output');
      if (name === 'stdout') onOutput(chunk);
    };
    child.stdout.on('data', keep('stdout'));
    child.stderr.on('data', keep('stderr'));
    child.on('error', (error) => {
      problem ??= `could not be started: ${error.message}`;
    });
    // At once, and on `exit` and not on `close`: what the test has left behind may hold the pipe open, and must not outlive it.
    child.on('exit', () => killGroup(child.pid));
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      running.delete(child.pid);
      if (signal !== null) problem ??= `ended by ${signal}`;
      resolve({ code, ...out, ...(problem === undefined ? {} : { problem }) });
    });
  });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const pid of running) killGroup(pid);
    process.exit(130);
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group has ended by itself.
  }
}

async function inParallel(jobs: readonly Job[], width: number, run: (job: Job) => Promise<void>): Promise<void> {
  const queue = [...jobs];
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await run(job);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

/** The parts of tap's diagnostics that help a reader. */
function describe(result: Result): string {
  // tap-parser types the YAML diagnostics as any; only strings are taken from it.
  const diag: Readonly<Record<string, unknown>> = result.diag ?? {};
  const at: unknown = diag.at;
  const lines = [result.fullname === '' ? result.name : `${result.fullname} > ${result.name}`];
  if (typeof at === 'object' && at !== null && 'fileName' in at && 'lineNumber' in at)
    lines.push(`at ${String(at.fileName)}:${String(at.lineNumber)}`);
  for (const key of ['error', 'message', 'diff', 'source', 'stack', 'compare', 'found', 'wanted']) {
    const value = diag[key];
    if (value === undefined || (key === 'source' && 'diff' in diag)) continue;
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    lines.push(text.includes('\n') ? `${key}:\n${indent(lastLines(text, 40))}` : `${key}: ${text.slice(0, 400)}`);
  }
  return lines.join('\n  ');
}

const indent = (text: string) => text.trimEnd().replace(/^/gm, '    ');

function lastLines(text: string, count: number): string {
  const lines = text.trimEnd().split('\n');
  return lines.slice(-count).join('\n');
}

function readSettings() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      allowNegative: true,
      options: {
        list: { type: 'boolean', default: false },
        checks: { type: 'boolean', default: true },
        quick: { type: 'boolean', default: false },
        jobs: { type: 'string', default: String(Math.min(2, availableParallelism())) },
        timeout: { type: 'string', default: '400' },
        help: { type: 'boolean', default: false },
      },
    });
    const jobs = Number(values.jobs);
    const timeoutSeconds = Number(values.timeout);
    if (!Number.isInteger(jobs) || jobs < 1) throw new Error('--jobs: a whole number from 1');
    if (!(timeoutSeconds > 0)) throw new Error('--timeout: seconds');
    if (values.help) {
      process.stdout.write(usage);
      process.exit(0);
    }
    const checks = values.checks && !values.quick;
    return { list: values.list, checks, quick: values.quick, jobs, timeoutSeconds, filters: positionals };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : 'invalid arguments'}\n\n${usage}`);
    process.exit(2);
  }
}

process.exitCode = await main();
