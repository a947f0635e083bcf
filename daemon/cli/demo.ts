// `synod demo`: the command of daemon/demo, which tells the whole story on one machine.

import { Command } from 'commander';
import type { Protocol } from '../../protocol/modes.ts';
import { duration, protocolOption, replicasOf, wholeNumber } from './options.ts';

export interface DemoOptions {
  readonly protocol: Protocol;
  readonly replicas: number;
  readonly input?: string;
  readonly dir?: string;
  readonly once?: true;
  readonly keep?: true;
  readonly json?: true;
  readonly bundle: number;
  readonly pace: number;
}

export function demoCommand(): Command {
  return new Command('demo')
    .description('the whole story on this machine: real replicas, a real block, a crash, a proof')
    .addOption(protocolOption())
    .option('--replicas <n>', 'up to 31, at least 4 for pbft, else 3 (default: as few as that)', wholeNumber(3, 31))
    .option('--input <file>', 'a raw Bitcoin block before segwit (default: block 413567, which comes along)')
    .option('--dir <dir>', 'a new directory for it (default: a new one in ./data)')
    .option('--once', 'end after the checks instead of leaving the network running')
    .option('--keep', 'do not remove the directory at the end')
    .option('--bundle <n>', 'transactions in one bundle', wholeNumber(1, 1024), 12)
    .option('--pace <time>', 'from one bundle to the next; 0ms: as fast as it goes', duration, 40)
    .option('--json', 'the result as one JSON object on standard output, progress on standard error')
    .addHelpText(
      'after',
      `
Starts n replicas as processes of their own, submits the transactions of a Bitcoin block in order, kills the primary half-way
(in basic-paxos, where nobody leads, any one), starts it again, and checks that what a follower received folds to the Merkle root in that block's header, that all replicas
hold the same chain, and that a receipt convinces a process that knows nothing but the genesis document.
Exit code 1 if a check fails.

Examples:
  $ synod demo
  $ synod demo --once --json
  $ synod demo --protocol raft
  $ synod demo --replicas 7 --pace 0ms --bundle 100`,
    )
    .action(async (given: Omit<DemoOptions, 'replicas'> & { readonly replicas?: number }) => {
      const options: DemoOptions = { ...given, replicas: replicasOf(given) };
      // Loaded only here: nothing else needs it.
      const { runDemo } = await import('../demo/run.ts');
      process.exitCode = await runDemo(options);
    });
}
