// `synod sim`: the command of daemon/sim, which runs whole clusters in virtual time, with everything going wrong that can.

import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { bearsLies, membersMin, type Protocol, protocols, quorumsAmong } from '../../protocol/modes.ts';
import { usageError } from './errors.ts';
import { wholeNumber } from './options.ts';
import { writeLine } from './output.ts';

/** Both ends included. */
export interface SeedRange {
  readonly from: number;
  readonly to: number;
}

export interface SimOptions {
  readonly seed?: number;
  readonly seeds?: SeedRange;
  readonly protocol: Protocol;
  readonly n?: number;
  readonly f?: number;
  readonly ms: number;
  readonly realSignatures?: true;
  /** Undefined: drawn, one life in three. */
  readonly changes?: boolean;
  readonly faults?: readonly number[];
  readonly shrink: boolean;
  readonly jobs: number;
  readonly resume?: string;
  readonly trace?: true;
  readonly record?: string;
  readonly explain?: true;
  readonly json?: true;
}

/** Seeds are 32 bits. */
const SEED_MAX = 0xffff_ffff;
const FAULT_NUMBER_MAX = 100_000;

export function simCommand(): Command {
  return new Command('sim')
    .description(
      'run whole clusters in virtual time, from seeds, with faults of all kinds, and check them at every step',
    )
    .option('--seed <n>', 'one seed', wholeNumber(0, SEED_MAX))
    .option('--seeds <a..b>', 'a range of seeds, both ends included (default: 1..100)', seedRange)
    .addOption(new Option('--protocol <name>', 'which core').choices(protocols).default('pbft'))
    .option(
      '--n <n>',
      'replicas, up to 31, at least 4 for pbft, else 3 (default: drawn from the seed, up to 7)',
      wholeNumber(3, 31),
    )
    .option(
      '--f <n>',
      'replicas that may be broken for ever, lie or forget at one time (default: all that n bears)',
      wholeNumber(0, 15),
    )
    .option('--ms <ms>', 'simulated milliseconds in which faults come and go', wholeNumber(1_000, 3_600_000), 60_000)
    .option('--real-signatures', 'Ed25519, and every message through its bytes (default: one seed in 16)')
    .option('--changes', 'the operators change the epoch in every life (default: in one of three)')
    .option('--no-changes', 'they do in none')
    .option('--faults <list>', 'only these faults of the seed, by number, such as 2,5,9; or none', faultList)
    .option('--no-shrink', 'do not look for the few faults that a failure takes')
    .option('--jobs <n>', 'processes (default: one for each core)', wholeNumber(1, 256), availableParallelism())
    .option('--resume <file>', 'writes down what is done, and leaves out what this file says is done')
    .option('--trace', 'print everything that happens in one seed')
    .option('--record <dir>', 'a flight recording of every replica of one seed, for `synod replay DIR/node-0`')
    .option(
      '--explain',
      'how a protocol works, as a chart of its messages: a decision, the crash of the leader, its return',
    )
    .option('--json', 'the result as one JSON object on standard output')
    .addHelpText(
      'after',
      `
A seed is a life of a cluster: its size, clients, faults and the delay of every message come from it. Faults of many kinds come and
go; then a quorum is healed, up to f replicas stay broken for ever, and the quorum must order everything that was submitted. A seed
that fails is printed with the check that failed, the command that replays it, and the few faults that it takes. The same seed
always goes the same way. docs/simulator.md says what is checked, and what is not modelled.
Exit code 1 if a seed fails. Progress goes to standard error.

Examples:
  $ synod sim
  $ synod sim --seeds 1..10000 --resume sim.jsonl
  $ synod sim --changes --seeds 1..1000
  $ synod sim --explain --protocol raft
  $ synod sim --seed 63 --trace | less
  $ synod sim --seed 63 --faults 2,5,9
  $ synod sim --seed 63 --record runs && synod replay runs/node-0`,
    )
    .action(async (options: SimOptions) => {
      if (options.n !== undefined && options.n < membersMin(options.protocol))
        throw usageError(
          `--n ${options.n}: ${options.protocol} needs at least ${membersMin(options.protocol)} replicas`,
        );
      if (options.explain === true) return explain(options);
      if (options.seed !== undefined && options.seeds !== undefined)
        throw usageError('--seed and --seeds exclude each other');
      for (const [flag, value] of [
        ['--trace', options.trace],
        ['--faults', options.faults],
        ['--record', options.record],
      ] as const)
        if (value !== undefined && options.seed === undefined) throw usageError(`${flag} is for one seed: give --seed`);
      if (options.trace === true && options.json === true) throw usageError('--trace and --json exclude each other');
      const { n = membersMin(options.protocol), f: wanted = 0 } = options;
      const { f: bears } = quorumsAmong(options.protocol, n);
      const least = (bearsLies(options.protocol) ? 3 : 2) * wanted + 1;
      if (wanted > bears) throw usageError(`--f ${wanted}: ${n} replicas bear ${bears}; give --n ${least} or more`);
      // Loaded only here: nothing else needs it.
      const { runSim } = await import('../sim/run.ts');
      process.exitCode = await runSim(options);
    });
}

/** Not a life of a seed, but one story for each protocol. */
async function explain({ protocol, n, ...others }: SimOptions): Promise<void> {
  for (const flag of ['seed', 'seeds', 'f', 'realSignatures', 'changes', 'resume', 'trace', 'json'] as const)
    if (others[flag] !== undefined)
      throw usageError(
        `--explain tells one story: leave out --${flag.replace(/[A-Z]/g, (a) => `-${a.toLowerCase()}`)}`,
      );
  const { explainProtocol } = await import('../sim/explain.ts');
  const lines: string[] = [];
  explainProtocol({ protocol, n }, (line) => void lines.push(line));
  await writeLine(lines.join('\n'));
}

function seedRange(text: string): SeedRange {
  const [, a = '', b = ''] = /^(\d{1,10})\.\.(\d{1,10})$/.exec(text) ?? [];
  const [from, to] = [Number(a), Number(b)];
  if (a !== '' && from <= to && to <= SEED_MAX) return { from, to };
  throw new InvalidArgumentError(`a range such as 1..1000, up to ${SEED_MAX}.`);
}

function faultList(text: string): readonly number[] {
  if (text === 'none') return [];
  const parts = text.split(',');
  if (!parts.every((part) => /^\d{1,6}$/.test(part) && Number(part) <= FAULT_NUMBER_MAX))
    throw new InvalidArgumentError('numbers of faults, such as 2,5,9, or none.');
  return parts.map(Number);
}
