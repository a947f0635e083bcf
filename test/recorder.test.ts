// The flight recorder (daemon/recorder/) and `synod replay`: the ring and its bounds, disks that fill and fail, files that are torn, damaged or
// changed, and a real replica under load that is killed.

import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { loadConfig } from '../daemon/config.ts';
import {
  encodeEnd,
  encodeHead,
  encodeState,
  encodeStepRecord,
  encodeThrew,
  readSegment,
  SEGMENT_BYTES_MAX,
  type Segment,
  type SegmentHead,
  STEPS_MAX,
  type StepRecord,
} from '../daemon/recorder/format.ts';
import {
  filesMaxOf,
  RECORDER_LIMITS,
  Recorder,
  type RecorderOptions,
  segmentBytesOf,
} from '../daemon/recorder/recorder.ts';
import { folderAt, type SegmentFolder, segmentName } from '../daemon/recorder/segment-files.ts';
import { genesisEpoch } from '../protocol/epoch/document.ts';
import { LayoutWriter } from '../protocol/layout.ts';
import { encodeMsgpack } from '../protocol/msgpack.ts';
import { decodeStep, encodeStep } from '../protocol/recording.ts';
import { decodeSnapshot, encodeSnapshot } from '../protocol/snapshot.ts';
import { asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { randomFrom } from '../sim/random.ts';
import { settingOf } from '../sim/setting.ts';
import { crc32 } from '../storage/checksum.ts';
import { Submitter } from './chaos/load.ts';
import { ChaosStage, pause } from './chaos/stage.ts';
import { type Run, synod } from './program.ts';
import { type Out, Solo, type Step, said, text } from './solo.ts';

t.setTimeout(300_000);

const MiB = 1 << 20;

const replay = (...args: readonly string[]): Promise<Run> => synod(['replay', ...args]);

/** A core in the hand of a test, and a recorder beside it as the loop has it. */
class Flight {
  readonly solo = new Solo({ self: 0 });
  readonly counts = new Map<string, number>();
  readonly warnings: object[] = [];
  readonly recorder: Recorder;
  now = 0;

  constructor(more: Partial<RecorderOptions> & Pick<RecorderOptions, 'folder'>) {
    const { genesis, document } = settingOf(4);
    this.recorder = new Recorder({
      bytesMax: 16 * MiB,
      chainId: genesis.chainId,
      genesisDocument: document,
      epoch: genesisEpoch(native.sha256, genesis),
      self: asReplicaId(0),
      member: 'node-0',
      software: '0.0.1',
      startedAt: 1_700_000_000_000,
      sha256: native.sha256,
      meter: {
        count: (name, labels, by = 1) => {
          const key = [name, ...Object.values(labels ?? {})].join(' ');
          this.counts.set(key, (this.counts.get(key) ?? 0) + by);
        },
        gauge: () => {},
        observe: () => {},
      },
      logger: { info: () => {}, warn: (fields) => this.warnings.push(fields) },
      monotonic: () => this.now,
      ...more,
    });
  }

  step(...inputs: readonly Step[]): Out {
    this.solo.now += 10;
    this.recorder.before(this.solo.core, inputs, asMillis(this.solo.now));
    const out = this.solo.step(...inputs);
    this.recorder.after(out);
    return out;
  }

  /** A bundle of 200 KB that the core refuses, for it follows a gap: nothing of it stays in the state. */
  readonly large: Step = {
    type: 'bundle',
    bundle: this.solo.client.bundle([new Uint8Array(100_000), new Uint8Array(100_000)], { sequence: 100_000 }),
  };

  /** Large steps of so many bytes together, with time for the disk between them. */
  async fly(bytes: number): Promise<void> {
    for (let done = 0; done < bytes; done += 200_000) {
      this.step(this.large);
      this.now += 1;
      await new Promise(setImmediate);
    }
  }

  /** Resolves when the disk has taken everything, or has failed. */
  async settle(): Promise<void> {
    for (let i = 0; i < 3_000 && this.recorder.waitingBytes > 0; i++) await pause(10);
  }

  close(): Promise<void> {
    return this.recorder.close(this.solo.core);
  }
}

const filesIn = (directory: string): string[] => readdirSync(directory).sort();
const bytesIn = (directory: string): number =>
  filesIn(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);

function segment(file: string): Segment {
  const read = readSegment(new Uint8Array(readFileSync(file)));
  if ('refused' in read) throw new Error(`${file}: ${read.refused} ${read.problem}`);
  return read;
}

/** A small recording: the file, and the flight that made it. */
async function record(t: Test, name = 'recorder'): Promise<{ file: string; directory: string; flight: Flight }> {
  const directory = join(t.testdir(), name);
  const flight = new Flight({ folder: folderAt(directory) });
  flight.step({ type: 'leading', view: asView(0) });
  for (const peer of [1, 2, 3]) flight.step({ type: 'connected', peer: asReplicaId(peer) });
  const out = flight.step({ type: 'bundle', bundle: flight.solo.client.bundle([text('one')]) });
  flight.step(...out.pledges.map(({ pledge }): Step => ({ type: 'own', signed: said(0, pledge) })));
  flight.step(
    { type: 'bundle', bundle: flight.solo.client.bundle([text('two')]) },
    { type: 'disconnected', peer: asReplicaId(2) },
  );
  flight.step();
  await flight.close();
  return { directory, file: join(directory, segmentName(1)), flight };
}

t.test('FLR-3, FLR-5: the steps of the next epoch have a segment of their own', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  const flight = new Flight({ folder: folderAt(directory) });
  flight.step({ type: 'leading', view: asView(0) });
  flight.step({ type: 'connected', peer: asReplicaId(1) });
  const epoch = genesisEpoch(native.sha256, settingOf(4).genesis);
  flight.recorder.enter({ epoch, self: asReplicaId(0) }, flight.solo.core);
  flight.recorder.enter({ epoch, self: asReplicaId(0) }, flight.solo.core);
  flight.step({ type: 'bundle', bundle: flight.solo.client.bundle([text('one')]) });
  await flight.close();
  t.equal(flight.recorder.waitingBytes, 0);
  t.strictSame(filesIn(directory), [1, 2, 3].map(segmentName));
  const [before, none, after] = filesIn(directory).map((name) => segment(join(directory, name)));
  t.match(before, { stop: { kind: 'end' }, end: { why: 'stopped', steps: 2, state: null } });
  t.match(none, { stop: { kind: 'end' }, end: { why: 'stopped', steps: 0, state: null } }, 'one that was left at once');
  t.match(after, { head: { gap: 'start', missed: 0 }, stop: { kind: 'end' }, end: { why: 'stopped', steps: 1 } });
  for (const name of [1, 3].map(segmentName)) {
    const { code, stdout } = await replay(join(directory, name));
    t.equal(code, 0, name);
    t.match(stdout, 'identical');
  }
});

// ---- the ring ---------------------------------------------------------------------------------------------------------

t.test('FLR-4: a ring never takes more than its bytes, and each segment replays by itself', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  const flight = new Flight({ folder: folderAt(directory) });
  let most = 0;
  for (let i = 0; i < 30; i++) {
    await flight.fly(1 * MiB);
    await flight.settle();
    most = Math.max(most, bytesIn(directory));
  }
  await flight.close();
  t.ok(most <= 16 * MiB && bytesIn(directory) <= 16 * MiB, `${most} bytes at most`);
  t.ok(bytesIn(directory) > 8 * MiB, 'and uses them');
  const files = filesIn(directory);
  t.ok(files.length <= RECORDER_LIMITS.segments && files[0] !== segmentName(1), `the oldest are gone: ${files}`);
  for (const name of files) {
    const { size, mode } = statSync(join(directory, name));
    t.ok(size <= segmentBytesOf(16 * MiB), `${name}: ${size} bytes`);
    t.equal(mode & 0o777, 0o600);
  }
  t.equal(statSync(directory).mode & 0o777, 0o700);
  const read = files.map((name) => segment(join(directory, name)));
  for (const [index, { head, end, stop, snapshot }] of read.entries()) {
    t.match(head, { gap: 'none', missed: 0, member: 'node-0', replica: 0 });
    t.equal(stop.kind, 'end');
    const next = read[index + 1];
    if (next !== undefined && end?.state != null)
      t.ok(equalBytes(end.state, native.sha256(next.snapshot)), 'one ends where the next one begins');
    t.ok(snapshot.length > 0);
  }
  t.equal(read.at(-1)?.end?.why, 'stopped');
  const run = await replay(directory, '--quiet');
  t.match(run, { code: 0, stdout: /identical\n$/ });
  t.equal(flight.counts.get('synod_recorder_bytes_total')! > 16 * MiB, true);
});

t.test('FLR-4: a restart goes on in the ring of the process before; other files stay', async (t) => {
  const { directory, flight } = await record(t);
  writeFileSync(join(directory, 'notes.txt'), 'mine');
  const next = new Flight({ folder: folderAt(directory) });
  next.step();
  await next.close();
  t.same(filesIn(directory), [segmentName(1), segmentName(2), 'notes.txt']);
  t.equal(segment(join(directory, segmentName(2))).head.gap, 'start');
  t.equal(flight.warnings.length, 0);
  // Ends in a moment, again and again: few bytes, and few files.
  for (let i = 0; i < RECORDER_LIMITS.filesMin + 3; i++) {
    const short = new Flight({ folder: folderAt(directory) });
    short.step();
    await short.close();
  }
  t.equal(filesIn(directory).length, RECORDER_LIMITS.filesMin + 1, 'and the notes');
});

t.test('FLR-4: a ring that is made smaller, and one with less room than a step', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  const large = new Flight({ folder: folderAt(directory) });
  await large.fly(12 * MiB);
  await large.close();
  t.ok(bytesIn(directory) > 8 * MiB);
  const small = new Flight({ folder: folderAt(directory), bytesMax: 1 * MiB });
  await small.fly(4 * MiB);
  await small.close();
  t.ok(bytesIn(directory) <= 1 * MiB, 'what was there before counts as well');
  t.match(await replay(directory, '--quiet'), { code: 0, stdout: /identical\n$/ });
  const before = filesIn(directory);
  const tiny = new Flight({ folder: folderAt(directory), bytesMax: MiB / 2 });
  for (let i = 0; i < 5; i++) tiny.step(tiny.large);
  await tiny.close();
  t.equal(tiny.counts.get('synod_recorder_missed_total step-too-large'), 5);
  t.match(tiny.warnings, [{ why: 'step-too-large' }], 'said once');
  t.same(filesIn(directory), before, 'and nothing is thrown away for it');
  // Segments of a large ring do not grow beyond what a reader takes: there are more of them.
  t.equal(segmentBytesOf(65_536 * MiB), SEGMENT_BYTES_MAX);
  t.ok(filesMaxOf(65_536 * MiB) * SEGMENT_BYTES_MAX > 65_536 * MiB);
  t.equal(filesMaxOf(16 * MiB), RECORDER_LIMITS.filesMin);
});

/** A folder whose disk does what the test says. */
function folderWith(directory: string, append: (bytes: number) => Promise<void>): SegmentFolder {
  const real = folderAt(directory);
  return {
    ...real,
    async create(number) {
      const file = await real.create(number);
      return {
        async append(parts) {
          await append(parts.reduce((sum, part) => sum + part.length, 0));
          await file.append(parts);
        },
        close: () => file.close(),
      };
    },
  };
}

t.test('FLR-4: a full disk stops nothing: counted, said once, and the ring goes on', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  let full = false;
  const folder = folderWith(directory, async () => {
    if (full) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  });
  const flight = new Flight({ folder });
  await flight.fly(1 * MiB);
  await flight.settle();
  full = true;
  await flight.fly(3 * MiB);
  await flight.settle();
  flight.now += RECORDER_LIMITS.pauseMs;
  await flight.fly(3 * MiB);
  await flight.settle();
  t.ok(flight.counts.get('synod_recorder_errors_total ENOSPC')! >= 1);
  t.ok(flight.counts.get('synod_recorder_missed_total write-failed')! > 0, 'what is left out is counted');
  t.match(flight.warnings, [{ why: 'write-failed' }], 'said once');
  full = false;
  flight.now += RECORDER_LIMITS.pauseMs;
  await flight.fly(1 * MiB);
  await flight.close();
  const last = segment(join(directory, filesIn(directory).at(-1)!));
  t.match(last.head, { gap: 'write-failed' });
  t.ok(last.head.missed > 0, 'and it stands in the recording');
  const run = await replay(directory, '--quiet');
  t.match(run, { code: 0, stdout: /not recorded \(write-failed\)\n(.*\n)*identical\n$/ });
});

t.test('FLR-4: a disk that hangs: memory is bounded, and the rest of the segment is left out', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  let release = () => {};
  const hanging = new Promise<void>((resolve) => {
    release = resolve;
  });
  const flight = new Flight({ folder: folderWith(directory, () => hanging), bytesMax: 256 * MiB });
  await flight.fly(40 * MiB);
  t.ok(flight.counts.get('synod_recorder_missed_total disk-slow')! > 50);
  release();
  await flight.settle();
  flight.now += RECORDER_LIMITS.pauseMs;
  await flight.fly(1 * MiB);
  await flight.close();
  const [first, last] = filesIn(directory).map((name) => segment(join(directory, name)));
  t.match(first?.end, { why: 'disk-slow', state: null });
  t.ok(statSync(join(directory, segmentName(1))).size <= RECORDER_LIMITS.waitingBytesMax + 1 * MiB);
  t.match(last?.head, { gap: 'disk-slow' });
  t.match(await replay(directory, '--quiet'), { code: 0 });
});

t.test('FLR-4: a state that is slow to write, or larger than its place, is a gap', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  const flight = new Flight({ folder: folderAt(directory) });
  const { snapshot } = flight.solo.core;
  // A snapshot that takes a second.
  const slow = (): Uint8Array => {
    flight.now += 1_000;
    return snapshot.call(flight.solo.core, Number.POSITIVE_INFINITY) as Uint8Array; // of any size
  };
  flight.solo.core.snapshot = slow;
  for (let i = 0; i < 40; i++) flight.step(flight.large);
  t.ok(flight.counts.get('synod_recorder_missed_total paced')! > 0, 'one part of fifty of the time');
  flight.now += RECORDER_LIMITS.pace * 1_000;
  flight.step();
  await flight.settle();
  const none = (() => null) as unknown as typeof flight.solo.core.snapshot; // as it is for a bound
  flight.solo.core.snapshot = none;
  flight.now += RECORDER_LIMITS.pace * 1_000;
  for (let i = 0; i < 40; i++) flight.step(flight.large);
  t.ok(flight.counts.get('synod_recorder_missed_total state-too-large')! > 0);
  flight.solo.core.snapshot = () => {
    throw new Error('a bug');
  };
  flight.now += RECORDER_LIMITS.pauseMs;
  flight.step();
  t.equal(
    flight.counts.get('synod_recorder_errors_total internal'),
    1,
    'and a bug of the recorder is no reason to stop',
  );
  await flight.close();
  const [first, second] = filesIn(directory).map((name) => segment(join(directory, name)));
  t.equal(first?.end?.why, 'paced');
  t.match(second?.head, { gap: 'paced' });
});

t.test('a core that throws: its last inputs are what the recording ends with', async (t) => {
  const directory = join(t.testdir(), 'recorder');
  const flight = new Flight({ folder: folderAt(directory) });
  flight.step();
  const { core } = flight.solo;
  // Time that runs back is the caller's bug, and the core says so.
  const early = asMillis(flight.solo.now - 1_000);
  flight.recorder.before(core, [], early);
  t.throws(() => {
    try {
      core.step([], early);
    } catch (error) {
      flight.recorder.threw(error);
      throw error;
    }
  });
  await flight.close();
  const { steps, stop } = segment(join(directory, segmentName(1)));
  t.match([steps.length, steps.at(-1), stop], [2, { digest: null, threw: /time never runs back/ }, { kind: 'cut' }]);
  const run = await replay(directory);
  t.match(run, { code: 0, stdout: /THROWS InvariantViolation: time never runs back/ });
  t.match(run.stdout, /the core threw, as it did then[^\n]*\nidentical\n$/);
});

// ---- files ------------------------------------------------------------------------------------------------------------

t.test('FLR-3: a torn tail is read up to the tear, wherever it is', async (t) => {
  const { file } = await record(t);
  const whole = new Uint8Array(readFileSync(file));
  const all = segment(file);
  t.same([all.steps.length, all.stop.kind], [8, 'end']);
  const stops = new Set<string>();
  for (let length = 0; length < whole.length; length++) {
    const read = readSegment(whole.subarray(0, length));
    if ('refused' in read) {
      stops.add(read.refused);
      continue;
    }
    stops.add(read.stop.kind);
    if (!(read.steps.length <= all.steps.length && read.end === null)) t.fail(`cut at ${length}`);
  }
  t.same([...stops].sort(), ['cut', 'recording-malformed', 'torn']);
  writeFileSync(file, whole.subarray(0, whole.length - 100));
  t.match(await replay(file), {
    code: 0,
    stdout: /segment 1 is torn after step 1\.6: the process was killed[\s\S]*identical\n$/,
  });
  // What a power cut has kept from the disk.
  writeFileSync(file, concat(whole.subarray(0, whole.length - 100), new Uint8Array(100)));
  t.match(await replay(file, '--quiet'), { code: 2, stderr: /\[recording-damaged\]/ });
  writeFileSync(file, concat(whole, new Uint8Array(4096)));
  t.match(await replay(file, '--quiet'), { code: 2 }, 'and nothing may follow an end');
});

t.test('FLR-3: no flipped bit goes unnoticed, and none does harm', async (t) => {
  const { file } = await record(t);
  const whole = new Uint8Array(readFileSync(file));
  const random = randomFrom(5);
  for (let i = 0; i < 4_000; i++) {
    const at = i < 400 ? i : Math.floor(random() * whole.length);
    const changed = Uint8Array.from(whole);
    changed[at]! ^= 1 << Math.floor(random() * 8);
    const read = readSegment(changed);
    if (!('refused' in read) && read.stop.kind !== 'damaged') t.fail(`byte ${at}`);
  }
  const changed = Uint8Array.from(whole);
  changed[whole.length - 200]! ^= 4;
  writeFileSync(file, changed);
  const run = await replay(file);
  t.match(run, {
    code: 2,
    stderr: /^synod: .*at byte \d+: the checksum of a record does not hold \[recording-damaged\]\n/,
  });
  t.match(run.stdout, /identical up to the damage\n$/);
});

/** The same recording with something else in it, its checksums right. */
function written(
  file: string,
  { head, snapshot, steps, end }: Pick<Segment, 'head' | 'snapshot' | 'steps' | 'end'>,
): void {
  const records = steps.flatMap(({ digest, threw, inputs }) =>
    digest === null ? encodeThrew(threw, [inputs]) : encodeStepRecord(digest, [inputs]),
  );
  writeFileSync(
    file,
    concat(encodeHead(head), ...encodeState(snapshot), ...records, ...(end === null ? [] : encodeEnd(end))),
  );
}

t.test('FLR-5: a changed recording differs, and the first step that does is named', async (t) => {
  const { file } = await record(t);
  const whole = segment(file);
  written(file, whole);
  t.match(await replay(file, '--quiet'), { code: 0 }, 'as it was');
  const changes: readonly (readonly [string, Partial<Segment>, RegExp])[] = [
    [
      'an input less',
      { steps: whole.steps.map((step, i) => (i === 4 ? { ...step, inputs: timePassed(5) } : step)) },
      /step 1\.5 of .*: what the core wants done is not what it wanted then \[replay-differs\]/,
    ],
    [
      'another digest',
      { steps: whole.steps.map((step, i) => (i === 2 ? { ...step, digest: 5 } : step)) },
      /step 1\.3 /,
    ],
    [
      'a core that threw',
      { steps: [...whole.steps.slice(0, 3), { ...whole.steps[3]!, digest: null, threw: 'Error: once' }], end: null },
      /step 1\.4 .*the core threw then: Error: once/,
    ],
    [
      'a core that throws',
      { steps: [...whole.steps, { digest: 1, threw: '', inputs: timePassed(-1) }], end: null },
      /step 1\.9 .*the core throws now: InvariantViolation: time never runs back/,
    ],
    ['the state at the end', { end: { ...whole.end!, state: new Uint8Array(32) } }, /the state after step 8 is not/],
  ];
  for (const [what, change, sentence] of changes) {
    written(file, { ...whole, ...change });
    const run = await replay(file, '--quiet');
    t.match(run, { code: 1, stderr: sentence }, what);
    t.match(run.stderr, /it is a bug: SECURITY\.md says where to send/);
    t.match(run.stdout, /differs\n$/);
  }
  written(file, { ...whole, ...changes[0]![1] });
  const json = await replay(file, '--quiet', '--json');
  t.match(JSON.parse(json.stdout).summary, { verdict: 'differs', difference: { step: '1.5', what: 'ready' } });
});

/** A step in which nothing comes, so many tens of milliseconds after the start. */
const timePassed = (tens: number) =>
  concat(...encodeStep({ now: asMillis(1_700_000_000_000 + 10 * tens), inputs: [] }));

t.test('FLR-3: files that are none, of another version, chain or member', async (t) => {
  const { file, directory } = await record(t);
  const whole = segment(file);
  const original = new Uint8Array(readFileSync(file));
  const withHead = (head: Partial<SegmentHead>) => written(file, { ...whole, head: { ...whole.head, ...head } });
  const refusals: readonly (readonly [string, () => void, string])[] = [
    [
      'another chain',
      () => withHead({ chainId: whole.head.chainId.map((byte) => byte ^ 1) as never }),
      'recording-malformed',
    ],
    ['another member', () => withHead({ member: 'node-1' }), 'recording-malformed'],
    ['no genesis document', () => withHead({ genesis: text('{}') }), 'recording-malformed'],
    ['other text', () => writeFileSync(file, 'hello'), 'recording-malformed'],
    ['nothing', () => writeFileSync(file, ''), 'recording-malformed'],
    ['a state of other software', () => written(file, { ...whole, snapshot: otherState() }), 'recording-version'],
    ['a state that is none', () => written(file, { ...whole, snapshot: text('?') }), 'recording-damaged'],
    ['another version', () => writeFileSync(file, versioned(original, 2)), 'recording-version'],
    [
      'inputs that are none',
      () => written(file, { ...whole, steps: [{ digest: 1, threw: '', inputs: text('?!') }] }),
      'recording-malformed',
    ],
  ];
  for (const [what, change, code] of refusals) {
    change();
    const run = await replay(file);
    t.match(run, { code: 2, stderr: new RegExp(`^synod: .*\\[${code}\\]\\n  \\w`) }, what);
    t.notMatch(run.stderr, /\n\s+at /, 'no stack trace');
  }
  rmSync(file);
  t.match(await replay(directory), { code: 2, stderr: /no segment of a flight recording in it \[recording-missing\]/ });
  t.match(await replay(file), { code: 2, stderr: /ENOENT.*\[recording-missing\]/ });
});

/** A recording whose state or steps somebody has changed, with every checksum in order. */
async function changed(t: Test, name: string, change: Change): Promise<string> {
  const { file } = await record(t, name);
  const whole = segment(file);
  const { genesis } = settingOf(4);
  const decoded = decodeSnapshot(whole.snapshot, { sha256: native.sha256, parameters: genesis.parameters });
  if ('refused' in decoded) throw new Error(decoded.problem);
  const state = decoded.value as Record<string, unknown>; // an object of the fields of a State
  const steps = change(state) ?? whole.steps;
  written(file, { ...whole, snapshot: encodeSnapshot(state), steps });
  return file;
}

/** Changes a state in place; returns other steps. */
type Change = (state: Record<string, unknown>) => readonly StepRecord[] | undefined;

const stepOf = (...inputs: readonly unknown[]): StepRecord => ({
  digest: 0,
  threw: '',
  // The cast: what a hostile hand writes is of no type.
  inputs: concat(...encodeStep({ now: asMillis(1_700_000_000_010), inputs: inputs as readonly Step[] })),
});

const ESCAPES = '\u001b]0;mine\u0007\u001b[2J\u009b31m\u202e\r\n';

t.test('FLR-3, FLR-5: recordings of a hostile hand end with a code, and put nothing on a terminal', async (t) => {
  const attacks: readonly (readonly [string, number, RegExp, Change])[] = [
    [
      'a map that is none',
      1,
      /the core throws now: .*\[replay-differs\]/,
      (state) => void Object.assign(state, { phases: 5, committed: 'x' }),
    ],
    [
      'peers that are none',
      2,
      /what it shows makes no sense: TypeError.*\[recording-malformed\]/,
      (state) => void Object.assign(state, { peers: [null] }),
    ],
    [
      'blocks in a ring',
      2,
      /a block is known by its hash \[recording-damaged\]/,
      (state) => void Object.assign(state, { known: new Map([['one', { block: { hash: new Uint8Array(32) } }]]) }),
    ],
    [
      'a head that is none',
      2,
      /\[recording-(malformed|damaged)\]/,
      (state) => void Object.assign(state, { ledger: {} }),
    ],
    [
      'numbers that are text',
      1,
      /\[replay-differs\]/,
      (state) => void Object.assign(state, { view: ESCAPES, backoff: ESCAPES }),
    ],
    ['no time', 1, /\[replay-differs\]/, (state) => void Object.assign(state, { now: Number.NaN })],
    ['a field of nobody', 2, /\[recording-version\]/, (state) => void Object.assign(state, { [ESCAPES]: ESCAPES })],
    ['an input of no type', 1, /the core throws now: .*\[replay-differs\]/, () => [stepOf({ type: ESCAPES })]],
    ['an input with text in it', 1, /differs/, () => [stepOf({ type: 'leading', view: ESCAPES })]],
    [
      'an input that is no text',
      1,
      /differs/,
      () => [stepOf({ type: 'connected', peer: { toString: 1, valueOf: 1 } })],
    ],
    ['an input without its pledge', 1, /differs/, () => [stepOf({ type: 'refused', pledge: null })]],
    ['something thrown', 1, /differs/, () => [{ ...stepOf(), digest: null, threw: ESCAPES }]],
  ];
  for (const [what, code, sentence, change] of attacks) {
    const file = await changed(t, what.replaceAll(' ', '-'), change);
    for (const flags of [[], ['--state', '--json']]) {
      const run = await replay(file, ...flags);
      t.match(run, { code, stderr: sentence }, `${what} ${flags}`);
      t.notMatch(run.stderr, /\[internal\]|\n\s+at /, 'no stack trace');
      t.notMatch(run.stdout + run.stderr, /[^\x20-\x7e\n]/, 'nothing but printable ASCII');
    }
  }
});

t.test('FLR-3: few bytes never ask for much memory', async (t) => {
  const { file } = await record(t);
  const whole = segment(file);
  const { genesis } = settingOf(4);
  const context = { sha256: native.sha256, parameters: genesis.parameters };
  const empty = (count: number) => Array.from({ length: count }, () => []);
  t.match(decodeSnapshot(encodeMsgpack([1, empty(1 << 20), [], [], []]), context), { problem: 'msgpack-values' });
  const values = encodeMsgpack([7, ...empty(1 << 20)]);
  const step = concat(new LayoutWriter(4).u32(values.length).done(), values);
  t.match(decodeStep(step, context), { problem: 'msgpack-values' });
  const other = { type: 'leading', view: new Uint8Array(5 << 20) } as unknown as Step; // as large as none is
  t.match(decodeStep(concat(...encodeStep({ now: asMillis(7), inputs: [other, other] })), context), {
    problem: /input 2 is none/,
  });
  const bundle = new Flight({ folder: folderAt('') }).solo.client.bundle([
    new Uint8Array(100_000),
    new Uint8Array(100_000),
  ]);
  const block = [new Uint8Array(9), Array.from({ length: 2_000 }, () => 0)];
  const bundles = [[bundle.payload, bundle.signature]];
  t.match(decodeSnapshot(encodeMsgpack([1, 0, [block], bundles, []]), context), {
    problem: 'more in its blocks than a core holds',
  });
  written(file, { ...whole, snapshot: new Uint8Array((32 << 20) + 1) });
  t.match(await replay(file), { code: 2, stderr: /its state is too large \[recording-malformed\]/ });
  written(file, { ...whole, head: { ...whole.head, genesis: new Uint8Array((1 << 20) + 1) } });
  t.match(await replay(file), { code: 2, stderr: /its genesis document is too large \[recording-malformed\]/ });
  // One step after the other, as fast as a file can have them.
  const start = concat(encodeHead(whole.head), ...encodeState(whole.snapshot));
  const one = concat(...encodeStepRecord(0, encodeStep({ now: asMillis(7), inputs: [] })));
  const bytes = new Uint8Array(start.length + (STEPS_MAX + 1) * one.length);
  bytes.set(start);
  for (let at = start.length; at < bytes.length; at += one.length) bytes.set(one, at);
  const read = readSegment(bytes);
  if ('refused' in read) return t.fail(read.problem);
  t.match([read.steps.length, read.stop], [STEPS_MAX, { kind: 'damaged', problem: /more steps than a segment holds/ }]);
});

const otherState = () => encodeSnapshot({ view: 1 });

/** The same bytes with another version in their head: the first field of its list. */
function versioned(whole: Uint8Array, version: number): Uint8Array {
  const changed = Uint8Array.from(whole);
  const view = new DataView(changed.buffer);
  const [head, body] = [16, 16 + 12];
  changed[body + 2] = version;
  view.setUint32(head + 4, crc32(changed.subarray(body, body + view.getUint32(head))));
  view.setUint32(head + 8, crc32(changed.subarray(head, head + 8)));
  return changed;
}

// ---- the command line ---------------------------------------------------------------------------------------------------

t.test('synod replay: a line for each step, a part of them, the state, and JSON', async (t) => {
  const { file, directory } = await record(t);
  const lines = (await replay(file)).stdout.trimEnd().split('\n');
  t.equal(lines.length, 8 + 4);
  t.match(lines[0], /^1\.1 \d\d:\d\d:\d\d\.\d{3} view 0 height 0: durable: it leads view 0 => /);
  t.match(lines[1], /node-1 connected => sends status view 0 height 0 to node-1/);
  t.match(
    lines[4],
    /a client: bundle of 1 transactions, session \d+, sequence 1, [0-9a-f]{8} => .*pledges prepare view 0 height 1/,
  );
  t.match(
    lines[4],
    /sends pre-prepare view 0 height 1, 1 bundles [0-9a-f]{8} to all; writes block, accepted \(next in \d+ ms\)/,
  );
  t.match(lines[5], /durable: own prepare view 0 height 1/);
  t.match(lines[7], /: time passed/);
  t.match(lines.slice(8), [
    /^8 steps in 1 segment of node-0: 2023-11-14T.* s$/,
    'view 0 to 0, height 0 to 0',
    'refused: nothing',
    'identical',
  ]);
  const part = (await replay(directory, '--from', '1.5', '--to', '1.6')).stdout.trimEnd().split('\n');
  t.match([part.length, part[0], part[2]], [2 + 4, /^1\.5 /, /^6 steps/]);
  const json = (await replay(file, '--json', '--state')).stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(json[4], {
    step: '1.5',
    view: 0,
    inputs: [{ what: 'bundle' }],
    causes: [
      { what: 'admission', code: 'pooled' },
      { what: 'pledge', kind: 'prepare' },
      { what: 'send', kind: 'pre-prepare' },
    ],
  });
  t.match(json[8].summary, {
    verdict: 'identical',
    steps: 8,
    lastStep: '1.8',
    view: [0, 0],
    threw: null,
    damaged: null,
  });
  t.match(json[8].summary.state, { height: 0, inFlight: 2, hash: /^[0-9a-f]{64}$/ });
  t.equal(json[8].summary.digest, toHex(segment(file).end!.state!), 'the state at its end');
  t.match((await replay(file, '--quiet', '--state')).stdout, /"inFlight": 2,[\s\S]*\nstate [0-9a-f]{64}\n8 steps/);
  // The data directory of a replica, and what is asked for wrongly.
  t.match(await replay(t.testdirName, '--quiet'), { code: 0, stdout: /^8 steps/ });
  for (const [args, sentence] of [
    [['--from', '9'], /--from.*such as 17\.204.*\[usage\]/],
    [['--to', 'x.1'], /--to.*\[usage\]/],
    [['--from', '1.3', '--to', '1.2'], /--to 1\.2 comes before --from 1\.3 \[usage\]/],
    [['--from', '2.1'], /no step to replay \[usage\]/],
    [['--nothing'], /unknown option/],
  ] as const) {
    const run = await replay(file, ...args);
    t.match(run, { code: 2, stdout: '', stderr: sentence });
  }
});

t.test('synod sim --record: a recording of each simulated replica, a segment for each of its lives', async (t) => {
  const directory = join(t.testdir(), 'runs');
  const sim = (...args: readonly string[]) => synod(['sim', '--ms', '4000', '--json', ...args]);
  const ran = await sim('--seed', '9', '--record', directory);
  t.equal(ran.code, 0, ran.stderr);
  const { crashes, digest } = JSON.parse(ran.stdout);
  const again = JSON.parse((await sim('--seed', '9')).stdout);
  t.equal(again.digest, digest, 'and it goes as it goes without');
  let segments = 0;
  for (const name of filesIn(directory)) {
    const run = await replay(join(directory, name), '--quiet', '--json');
    t.equal(run.code, 0, run.stderr);
    const { summary } = JSON.parse(run.stdout);
    t.match(summary, { verdict: 'identical', member: name, missed: 0, remarks: [] });
    t.ok(summary.steps > 10 && summary.height[1] > 0);
    segments += summary.segments;
  }
  // A replica may stay down.
  const members = filesIn(directory).length;
  t.ok(segments > members && segments <= members + crashes, `${segments} segments, ${crashes} crashes`);
  t.ok(crashes > 0);
  t.match(await sim('--seed', '9', '--record', directory), { code: 2, stderr: /--record: .* is not empty \[usage\]/ });
  t.match(await sim('--seeds', '1..2', '--record', directory), {
    code: 2,
    stderr: /--record is for one seed.*\[usage\]/,
  });
});

t.test('recorderMiB: 0, or from 16 on; 256 where it is not given', async (t) => {
  const directory = t.testdir();
  const file = join(directory, 'config.json');
  const config = (more: object) => {
    const common = { genesis: 'g', member: 'a', key: 'k', dataDir: 'd', peers: {}, http: null };
    writeFileSync(file, JSON.stringify({ ...common, listen: { host: '127.0.0.1', port: 7000 }, ...more }));
    return loadConfig(file);
  };
  t.match(config({}), { recorderMiB: 256, recorderDir: join(directory, 'd', 'recorder') });
  for (const recorderMiB of [0, 16, 65_536]) t.match(config({ recorderMiB }), { recorderMiB });
  for (const recorderMiB of [1, 15, 65_537, -1, 1.5, '64', null])
    t.match(config({ recorderMiB }), { refused: 'config-invalid', field: 'recorderMiB', problem: /0, or 16 to 65536/ });
});

// ---- a real replica -------------------------------------------------------------------------------------------------------

t.test('FLR-2, FLR-4, FLR-5, FLR-6: replicas under load, one killed, one without a recorder', async (t) => {
  const directory = join(t.testdir(), 'net');
  const parameters = { viewTimeoutMs: 1_000, heartbeatMs: 200, checkpointInterval: 16 };
  const stage = await ChaosStage.create({ directory, parameters, config: { recorderMiB: 16 } });
  const [first = '', second = '', third = ''] = stage.names;
  const without = join(directory, third, 'config.json');
  writeFileSync(without, JSON.stringify({ ...JSON.parse(readFileSync(without, 'utf8')), recorderMiB: 0 }));
  const random = randomFrom(3);
  const submitters = (['bundles', 'stream'] as const).map(
    (habit, i) => new Submitter(stage.network, { name: `c${i}`, habit, random, paceMs: 5 }),
  );
  const folder = (name: string) => join(directory, name, 'data', 'recorder');
  try {
    for (const name of stage.names) stage.start(name);
    await stage.allUp();
    await Promise.all(submitters.map((submitter) => submitter.start()));
    await pause(5_000);
    await stage.kill(first);
    const killed = await replay(folder(first), '--quiet', '--json');
    t.equal(killed.code, 0, killed.stderr);
    const { summary } = JSON.parse(killed.stdout);
    t.match(summary, { verdict: 'identical', member: first, missed: 0, threw: null });
    t.ok(summary.steps > 100 && summary.height[1] > 0, `${summary.steps} steps to height ${summary.height[1]}`);
    t.match(summary.remarks.at(-1), /the process was killed/);
    // While it runs.
    const running = await replay(join(directory, second, 'data'), '--quiet');
    t.match(running, { code: 0, stdout: /identical\n$/ });
    stage.start(first);
    await stage.allUp();
    await pause(2_000);
    await Promise.all(submitters.map((submitter) => submitter.close()));
  } finally {
    await Promise.all(submitters.map((submitter) => submitter.close()));
    await stage.end();
  }
  for (const name of [first, second]) {
    const run = await replay(folder(name), '--json');
    t.equal(run.code, 0, run.stderr);
    const { summary } = JSON.parse(run.stdout.trimEnd().split('\n').at(-1)!); // the last line
    t.match(summary, { verdict: 'identical', missed: 0 }, name);
    t.ok(summary.segments >= (name === first ? 2 : 1), 'a process, a segment at least');
    const last = segment(join(folder(name), filesIn(folder(name)).at(-1)!));
    t.match(last, { stop: { kind: 'end' }, end: { why: 'stopped' } }, 'SIGTERM ends a segment');
    t.ok(bytesIn(folder(name)) <= 16 * MiB);
    // FLR-6: nothing of a key.
    const key = JSON.parse(readFileSync(join(directory, name, 'replica.key'), 'utf8'));
    const seeds = Object.values(key).filter((value): value is string => /^[0-9a-f]{64}$/.test(String(value)));
    t.ok(seeds.length >= 1, `${Object.keys(key)}`);
    const secret = seeds.filter(
      (seed) => !stage.network.genesis.members.some(({ publicKey }) => toHex(publicKey) === seed),
    );
    t.equal(secret.length, 1, 'the seed');
    for (const file of filesIn(folder(name))) {
      const bytes = readFileSync(join(folder(name), file));
      t.ok(bytes.indexOf(Buffer.from(secret[0]!, 'hex')) < 0 && bytes.indexOf(secret[0]!) < 0, file);
    }
  }
  t.notOk(readdirSync(join(directory, third, 'data')).includes('recorder'), 'none where none is wanted');
});
