// `synod dev`: a whole network on this machine, every replica a process, their logs in this terminal, until Ctrl-C.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import type { Protocol } from '../../protocol/modes.ts';
import { LocalCluster, readableEntry } from './cluster.ts';
import { deferred } from './deferred.ts';
import { Complaint, usageError } from './errors.ts';
import { describeExit } from './exits.ts';
import { findNetwork, type KnownReplica } from './network.ts';
import { CONFIG_FILE, createNetwork, GENESIS_FILE, localReplicas } from './network-files.ts';
import { protocolOption, replicasHelp, replicasOf, wholeNumber } from './options.ts';
import { note, paletteFor, ReaderGone, writeLine } from './output.ts';
import { freePortRange } from './ports.ts';

interface Options {
  readonly protocol: Protocol;
  readonly replicas?: number;
  readonly dir?: string;
  readonly basePort?: number;
}

export function devCommand(): Command {
  return new Command('dev')
    .description('run a network on this machine, all logs in this terminal')
    .addOption(protocolOption())
    .option('--replicas <n>', replicasHelp('for a new network'), wholeNumber(3, 128))
    .option('--dir <dir>', 'its directory: as it is, or made; without: a temporary one, removed at the end')
    .option('--base-port <port>', 'for a new network (default: free ports)', wholeNumber(1, 65_000))
    .addHelpText(
      'after',
      `
A replica that ends is not started again. Ctrl-C stops all of them.

Examples:
  $ synod dev
  $ synod dev --dir net --replicas 7
  $ synod dev --protocol multi-paxos`,
    )
    .action(dev);
}

async function dev(options: Options): Promise<void> {
  const isTemporary = options.dir === undefined;
  const directory = options.dir ?? join(mkdtempSync(join(tmpdir(), 'synod-dev-')), 'net');
  try {
    if (!existsSync(join(directory, GENESIS_FILE))) await createLocal(directory, options);
    await runReplicas(directory);
  } finally {
    if (isTemporary) rmSync(dirname(directory), { recursive: true, force: true });
  }
}

async function createLocal(directory: string, options: Options): Promise<void> {
  const { protocol, basePort } = options;
  const replicas = replicasOf(options);
  const host = '127.0.0.1';
  await createNetwork({
    directory,
    name: 'dev',
    protocol,
    replicas: localReplicas(replicas, host, basePort ?? (await freePortRange(host, 2 * replicas))),
    parameters: {},
    passphrase: null,
    passphraseFile: null,
    logFormat: 'json',
  });
}

async function runReplicas(directory: string): Promise<void> {
  const { replicas } = findNetwork({ network: directory });
  const members = replicas
    .map(({ name }) => ({ name, config: join(directory, name, CONFIG_FILE), logFile: null }))
    .filter(({ config }) => existsSync(config));
  if (members.length === 0)
    throw usageError(`${directory} holds no replica's directory`, 'Give the directory that `synod init` wrote.');
  const paint = prefixes(members.map(({ name }) => name));
  const { promise: ended, resolve: end } = deferred<Complaint | null>();
  const show = (name: string, text: string) => {
    writeLine(`${paint(name)} ${text}`).catch((error) => end(error instanceof ReaderGone ? null : lastWords(error)));
  };
  const cluster = new LocalCluster(members, {
    line: (name, entry, text) => show(name, entry === null ? text : readableEntry(entry)),
    exit: (name, exit) => {
      if (!exit.asked) show(name, `ended: ${describeExit(exit)}`);
      if (!members.some((member) => cluster.isRunning(member.name)) && !exit.asked) end(allEnded);
    },
  });
  process.on('SIGINT', () => end(null));
  process.on('SIGTERM', () => end(null));
  announce(directory, replicas);
  cluster.startAll();
  const complaint = await ended;
  note('stopping all replicas');
  await cluster.stopAll();
  if (complaint !== null) throw complaint;
}

const allEnded = new Complaint({
  code: 'all-replicas-ended',
  sentence: 'every replica has ended',
  remedy: 'Their last lines above say why.',
});

const lastWords = (error: unknown): Complaint =>
  new Complaint({ code: 'output', sentence: error instanceof Error ? error.message : 'standard output failed' });

function announce(directory: string, replicas: readonly KnownReplica[]): void {
  for (const { name, url, http } of replicas) note(`${name}  ${url}  ${http ?? 'no HTTP door'}`);
  note(`try: synod status --network ${directory}    end with Ctrl-C`);
}

/** Each name padded, in a colour of its own. */
function prefixes(names: readonly string[]): (name: string) => string {
  const { cyan, green, yellow, dim } = paletteFor(process.stdout);
  const colours = [cyan, green, yellow, dim];
  const width = Math.max(...names.map((name) => name.length));
  return (name) => (colours[names.indexOf(name) % colours.length] ?? dim)(`${name.padEnd(width)} |`);
}
