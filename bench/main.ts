// `npm run bench`: floors, throughput, latency, failover and what it costs, in one run on this machine. docs/benchmarks.md says what
// is measured and how to read it.

import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { wholeNumber } from '../daemon/cli/options.ts';
import { membersMin, type Protocol, protocols } from '../protocol/modes.ts';
import { type CatchUpResult, measureCatchUp } from './catch-up.ts';
import { makeDirectory, removeDirectory } from './cluster.ts';
import { type DelaysResult, measureDelays } from './delays.ts';
import { type EpochsResult, measureEpochs } from './epochs.ts';
import { type FailoverResult, measureFailover } from './failover.ts';
import { measureFloors } from './floors.ts';
import { hotSpots } from './hot-spots.ts';
import { asJson, asTables, describeMachine, loadNow, type RunResult } from './report.ts';
import { runScenario, type Scenario, type ScenarioResult } from './scenarios.ts';
import { targetsOf } from './targets.ts';

const parts = [
  'throughput',
  'ceiling',
  'soak',
  'failover',
  'epochs',
  'catch-up',
  'floors',
  'family',
  'delays',
] as const;
const skippedInHaste: readonly string[] = ['soak', 'family', 'delays'];
type Part = (typeof parts)[number];

interface Options {
  readonly quick?: true;
  readonly only?: readonly Part[];
  readonly seconds?: number;
  readonly json?: string;
  readonly protocol?: readonly Protocol[];
  readonly n?: number;
  readonly size?: number;
  readonly bundle?: number;
  readonly sync?: 'on' | 'off';
  readonly viewTimeout?: number;
  readonly recorder?: readonly number[];
  readonly chain?: number;
  readonly profile?: string;
  readonly check?: true;
}

const recorderSize = wholeNumber(0, 65_536);

const program = new Command('bench')
  .description('measure a whole cluster on this machine, beside the floors that the machine sets')
  .option('--quick', 'a few short runs in place of all of them')
  .addOption(new Option('--only <part...>', 'one or more parts').choices(parts))
  .option('--seconds <n>', 'of each measured phase (default: 10; quick: 3)', wholeNumber(1, 3600))
  .addOption(new Option('--protocol <word...>', 'of the part `family` (default: all)').choices(protocols))
  .option('--n <n>', 'replicas (default: 4 and 7)', wholeNumber(3, 31))
  .option('--size <bytes>', 'of a transaction (default: 256 and 1024)', wholeNumber(1, 100_000))
  .option('--bundle <n>', 'transactions in a bundle (default: 1 and 500)', wholeNumber(1, 1024))
  .addOption(new Option('--sync <which>', 'only with, or only without, waiting for the disk').choices(['on', 'off']))
  .option('--view-timeout <ms>', 'of the chain (default: its own default)', wholeNumber(300, 600_000))
  .option(
    '--recorder <mib...>',
    'flight recorder, replica by replica in turns; 0: none (default: its own default)',
    (text, before: readonly number[] = []) => [...before, recorderSize(text)],
  )
  .option('--chain <mib>', 'to catch up with (default: 1024; quick: 64)', wholeNumber(1, 65_536))
  .option('--json <file>', 'write everything there as well')
  .option('--profile <dir>', 'leave CPU profiles there, and print where the time went; slows the run')
  .option('--check', 'exit with 1 if a target is missed')
  .action(bench);

// Exit handlers end all children.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

await program.parseAsync();

async function bench(options: Options): Promise<void> {
  const startedAt = new Date().toISOString();
  const loadBefore = loadNow();
  const seconds = options.seconds ?? (options.quick ? 3 : 10);
  const only = options.only ?? (options.protocol === undefined ? undefined : ['family']);
  const wants = (part: Part) => only?.includes(part) ?? !(skippedInHaste.includes(part) && options.quick);
  const profileDirectory = options.profile === undefined ? null : resolve(options.profile);
  const viewTimeoutMs = options.viewTimeout ?? null;
  const recorderMiB = options.recorder ?? [];
  if (options.n !== undefined && options.n < membersMin('pbft') && (wants('throughput') || wants('failover')))
    program.error(
      `--n ${options.n}: pbft needs at least ${membersMin('pbft')} replicas; --only family measures others`,
    );
  if (profileDirectory !== null) mkdirSync(profileDirectory, { recursive: true });

  say('floors');
  const floors = await inDirectory((directory) =>
    measureFloors({
      directory,
      processes: options.n ?? 4,
      replicas: chosen(options.n, options.quick ? [4] : [4, 7]).filter((n) => n >= membersMin('pbft')),
      ms: options.quick ? 300 : 1_000,
    }),
  );
  const scenarios: ScenarioResult[] = [];
  for (const scenario of plan(options, seconds, wants)) {
    say(scenario.name);
    scenarios.push(await runScenario(scenario, { profileDirectory, viewTimeoutMs, recorderMiB }));
  }
  const failover: FailoverResult[] = [];
  for (const n of wants('failover') ? chosen(options.n, options.quick ? [4] : [4, 7]) : []) {
    say(`failover, n = ${n}`);
    failover.push(await measureFailover({ n, rounds: options.quick ? 1 : 3, viewTimeoutMs, recorderMiB }));
  }
  let epochs: EpochsResult | null = null;
  if (wants('epochs')) {
    say('changes of the epoch');
    epochs = await measureEpochs({ rounds: options.quick ? 1 : 3, viewTimeoutMs, recorderMiB });
  }
  let catchUp: CatchUpResult | null = null;
  if (wants('catch-up')) {
    const mib = options.chain ?? (options.quick ? 64 : 1_024);
    say(`catch-up over ${mib} MiB`);
    catchUp = await measureCatchUp({ mib, recorderMiB });
  }
  const delays: DelaysResult[] = [];
  for (const protocol of wants('delays') ? (options.protocol ?? protocols) : []) {
    say(`message delays of ${protocol}`);
    delays.push(await measureDelays({ protocol, requests: 20, recorderMiB }));
  }
  const result: RunResult = {
    startedAt,
    machine: describeMachine(loadBefore),
    floors,
    scenarios,
    failover,
    epochs,
    catchUp,
    delays,
  };
  const targets = targetsOf(result);
  process.stdout.write(asTables(result, targets));
  if (profileDirectory !== null) process.stdout.write(`\n${hotSpots(profileDirectory)}`);
  if (options.json !== undefined) {
    mkdirSync(dirname(resolve(options.json)), { recursive: true });
    writeFileSync(options.json, asJson(result, targets));
  }
  if (options.check && targets.some(({ met }) => !met)) process.exitCode = 1;
}

function plan(options: Options, seconds: number, wants: (part: Part) => boolean): Scenario[] {
  const { quick } = options;
  const sizes = chosen(options.size, quick ? [256] : [256, 1024]);
  const bundles = chosen(options.bundle, [1, 500]);
  const replicas = chosen(options.n, quick ? [4] : [4, 7]);
  const syncs = options.sync === undefined ? (quick ? [true] : [true, false]) : [options.sync === 'on'];
  const scenario = (n: number, size: number, bundle: number, sync: boolean, sign = true, times = 1): Scenario => ({
    protocol: 'pbft',
    name: `n=${n} ${size} B x ${bundle}${sync ? '' : ', no sync'}${sign ? '' : ', no signatures'}${times > 1 ? ', soak' : ''}`,
    n,
    transactionBytes: size,
    bundle,
    standIns: { sign: !sign, sync: !sync },
    seconds: seconds * times,
    withLatency: times === 1 && sign,
  });
  // As few replicas as bear one fault.
  const ofFamily = (protocol: Protocol, bundle: number): Scenario => {
    const n = options.n ?? membersMin(protocol);
    return { ...scenario(n, size, bundle, true), protocol, name: `${protocol}, n=${n} ${size} B x ${bundle}` };
  };
  const [first, size] = [options.n ?? 4, options.size ?? 256];
  const large = options.bundle ?? 500;
  return [
    ...(wants('throughput')
      ? replicas.flatMap((n) =>
          sizes.flatMap((size) => bundles.flatMap((bundle) => syncs.map((sync) => scenario(n, size, bundle, sync)))),
        )
      : []),
    ...(wants('family')
      ? bundles.flatMap((bundle) => (options.protocol ?? protocols).map((protocol) => ofFamily(protocol, bundle)))
      : []),
    ...(wants('ceiling') ? [scenario(first, size, large, false, false)] : []),
    ...(wants('soak') ? [scenario(first, size, large, true, true, 6)] : []),
  ];
}

function chosen(asked: number | undefined, all: readonly number[]): readonly number[] {
  return asked === undefined ? all : [asked];
}

async function inDirectory<T>(run: (directory: string) => Promise<T>): Promise<T> {
  const directory = makeDirectory();
  try {
    return await run(directory);
  } finally {
    removeDirectory(directory);
  }
}

/** Progress: never mixed into the tables that a pipe reads. */
function say(sentence: string): void {
  process.stderr.write(`bench: ${sentence}\n`);
}
