// `synod start`: one replica, in the foreground, until a signal ends it or something fatal does.

import { existsSync } from 'node:fs';
import { Command, Option } from 'commander';
import { native } from '../../crypto/native.ts';
import { GuardError } from '../../keys/errors.ts';
import { asEpoch, type Epoch } from '../../protocol/types.ts';
import { checkAgainstGenesis, loadConfig, loadGenesis } from '../config.ts';
import { createLogs } from '../logging.ts';
import { deferred } from './deferred.ts';
import { EXIT, explainError, orComplain } from './errors.ts';

interface Options {
  readonly observe?: true;
  readonly withParent?: true;
}

export function startCommand(): Command {
  return new Command('start')
    .description('run one replica until SIGTERM or SIGINT')
    .argument('<config>', 'its config.json')
    .option('--observe', 'while it is no member: follow the others, until a change of the epoch makes it one')
    .addOption(
      // For `dev` and `demo`: a replica must not outlive whoever started it, however that one ended.
      new Option('--with-parent', 'stop when standard input ends').hideHelp(),
    )
    .addHelpText(
      'after',
      `
Logs go to standard output. The first SIGTERM or SIGINT finishes what is in flight and ends with exit code 0, a second one ends
at once. Exit code 1: something fatal happened, the last log line says what.

Examples:
  $ synod start net/node-0/config.json
  $ SYNOD_PASSPHRASE=... synod start /etc/synod/config.json`,
    )
    .action(start);
}

async function start(configFile: string, { observe: asObserver, withParent }: Options): Promise<void> {
  const config = orComplain(loadConfig(configFile));
  const { genesis } = orComplain(loadGenesis(native, config.genesis));
  // In a later epoch the members are others; the log says which.
  const problem =
    existsSync(config.epochsFile) || asObserver === true ? undefined : checkAgainstGenesis(config, genesis);
  if (problem !== undefined) orComplain(problem);
  const { logger, flush } = createLogs({ ...config.log, member: config.member });
  const end = (code: number): never => {
    flush();
    // Not exitCode: nothing that is still open may keep a stopped replica alive.
    process.exit(code);
  };
  const onBug = (error: unknown) => {
    logger.fatal({ err: error }, 'uncaught error');
    process.stderr.write(explainError(error).text);
    end(EXIT.failure);
  };
  process.on('uncaughtException', onBug);
  process.on('unhandledRejection', onBug);

  let stopping = false;
  let stop: (() => Promise<void>) | undefined;
  const onSignal = (reason: string) => {
    if (stopping) {
      logger.warn({ reason }, 'stopping at once');
      end(EXIT.failure);
    }
    stopping = true;
    logger.info({ reason }, 'stopping');
    // Before the replica runs there is nothing to finish.
    if (stop === undefined) end(EXIT.ok);
    stop?.().then(() => end(EXIT.ok), onBug);
  };
  process.on('SIGTERM', () => onSignal('SIGTERM'));
  process.on('SIGINT', () => onSignal('SIGINT'));
  if (withParent === true) {
    process.stdin.resume();
    process.stdin.on('end', () => onSignal('parent ended'));
    process.stdin.on('error', () => onSignal('parent ended'));
  }

  try {
    // Loaded only here: the other commands need neither the database nor the sockets.
    const { startNode } = await import('../node.ts');
    /** False: it was ended before. */
    const follow = async (until: 'member' | 'latest' | Epoch): Promise<boolean> => {
      const ending = new AbortController();
      const { promise: ended, resolve } = deferred<void>();
      stop = () => {
        ending.abort();
        return ended;
      };
      const { observe } = await import('../observe.ts');
      const isThere = await observe({ config, until, logger, signal: ending.signal });
      resolve();
      stop = undefined;
      return isThere;
    };
    if (asObserver === true && !(await follow('member'))) return;
    for (;;) {
      const node = await startNode(config, logger).catch(laterEpochOf);
      if (typeof node === 'number') {
        // [REC-10] Its marks are of that epoch, and the log that is left is not: it comes back there without a vote.
        if (!(await follow(node))) return;
        continue;
      }
      stop = () => node.stop();
      const reason = await node.done;
      if (typeof reason === 'number') end(reason);
      if (stopping || typeof reason === 'number') return;
      // Ended: the next start says why this is no member any more.
      stop = undefined;
      await node.stop();
      // [EPO-19] Nobody answers it any more as the member that it was: it comes to the present as whoever observes does.
      if (reason === 'behind' && !(await follow(asObserver === true ? 'member' : 'latest'))) return;
    }
  } catch (error) {
    const { text, exit } = explainError(error);
    logger.fatal({ err: error }, 'not started');
    process.stderr.write(text);
    end(exit);
  }
}

/** The epoch that the marks have seen, where the log ends before it; anything else is thrown again. */
function laterEpochOf(error: unknown): Epoch {
  if (error instanceof GuardError && error.code === 'guard-epoch-passed') return asEpoch(Number(error.fields.file));
  throw error;
}
