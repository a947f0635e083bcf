// The command line as a whole: the list of commands, help, version, and the one place where errors become sentences.

import { Command } from 'commander';
import { version } from '../version.ts';
import { auditCommand } from './audit.ts';
import { backupCommand } from './backup.ts';
import { controlCommand } from './control.ts';
import { demoCommand } from './demo.ts';
import { devCommand } from './dev.ts';
import { EXIT, explainError } from './errors.ts';
import { evidenceCommand } from './evidence.ts';
import { explainCommand } from './explain.ts';
import { exportCommand } from './export.ts';
import { followCommand } from './follow.ts';
import { initCommand } from './init.ts';
import { keysCommand } from './keys.ts';
import { memberCommand, paramCommand } from './member.ts';
import { installPipeHandling, ReaderGone } from './output.ts';
import { repairCommand } from './repair.ts';
import { replayCommand } from './replay.ts';
import { restoreCommand } from './restore.ts';
import { simCommand } from './sim.ts';
import { startCommand } from './start.ts';
import { statusCommand } from './status.ts';
import { submitCommand } from './submit.ts';
import { verifyCommand } from './verify.ts';
import { whyCommand } from './why.ts';

/** Returns the exit code; nothing is thrown. */
export async function run(args: readonly string[]): Promise<number> {
  installPipeHandling();
  try {
    await program().parseAsync(args, { from: 'user' });
    // Commands that end with a verdict of their own (verify, demo) have set it.
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT.ok;
  } catch (error) {
    // `synod follow | head`: whoever read has what they wanted.
    if (error instanceof ReaderGone) return EXIT.ok;
    const { text, exit } = explainError(error);
    process.stderr.write(text);
    return exit;
  }
}

function program(): Command {
  const all = new Command('synod')
    .description(
      'A Byzantine-tolerant Paxos daemon: one order for opaque transactions, with proofs anyone can check offline.',
    )
    .version(version(), '-V, --version')
    .showHelpAfterError(false)
    .configureHelp({ showGlobalOptions: false })
    .addHelpText(
      'after',
      `
Examples:
  $ synod demo                            the whole story on this machine, in half a minute
  $ synod init net --unsealed             files for four replicas on this machine
  $ synod dev --dir net                   runs them all in this terminal
  $ echo hello | synod submit --network net --receipt hello.receipt
  $ synod verify hello.receipt --genesis net/genesis.json

Exit codes: 0 done, 1 failed (why: not healthy), 2 wrong arguments or files, 3 not proved, 4 no replica in reach,
5 guilty (audit), 6 a fork that is not explained (audit), 130 interrupted.`,
    );
  const commands = [
    initCommand(),
    keysCommand(),
    startCommand(),
    devCommand(),
    demoCommand(),
    statusCommand(),
    whyCommand(),
    explainCommand(),
    submitCommand(),
    followCommand(),
    exportCommand(),
    backupCommand(),
    restoreCommand(),
    repairCommand(),
    verifyCommand(),
    evidenceCommand(),
    auditCommand(),
    memberCommand(),
    paramCommand(),
    controlCommand(),
    replayCommand(),
    simCommand(),
  ];
  for (const command of commands) all.addCommand(command);
  for (const command of everyCommand(all)) {
    // Errors are thrown to `run`, which prints them once; commander's own printing stays silent.
    command.exitOverride().configureOutput({ outputError: () => undefined });
  }
  return all;
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}
