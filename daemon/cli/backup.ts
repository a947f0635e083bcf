// `synod backup`: what a replica needs to come back on another disk, and nothing that could make it vote twice. The marks of what its
// key has signed are as old as the copy from the moment it is made, so a backup holds none: it holds a sign-state in quarantine.

import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Command } from 'commander';
import { GuardError } from '../../keys/errors.ts';
import { createQuarantined, openSignState } from '../../keys/sign-state-file.ts';
import { asEpoch } from '../../protocol/types.ts';
import { dataPaths, type NodeConfig } from '../config.ts';
import { WITNESS_SUFFIX } from '../evidence.ts';
import { CONFIG_FILE, DATA_DIRECTORY, GENESIS_FILE, REPLICA_KEY_FILE, refuseToOverwrite } from './network-files.ts';
import { writeLine } from './output.ts';
import { type OwnKeyFiles, ownFilesOf } from './own-keys.ts';

/** In a copy. */
const NEXT_KEY_FILE = 'next.key';

interface Options {
  readonly out: string;
  readonly withLog?: true;
}

export function backupCommand(): Command {
  return new Command('backup')
    .description('copy a replica so that it can come back, and can never vote twice')
    .argument('<config>', 'its config.json')
    .requiredOption('--out <dir>', 'a new or empty directory')
    .option('--with-log', 'the log too; the replica must be stopped')
    .addHelpText(
      'after',
      `
The copy is a replica's directory: config, genesis document, what proves the epochs since, its keys (sealed if they are sealed), the evidence
it has kept, and for each key a sign-state in quarantine, never the replica's own. \`synod restore\` puts it in its place: it votes for nothing until what the key may have signed since is
past, and the quarantine ends by itself. Without --with-log the replica may run meanwhile; the log comes back from its peers.

Keep it as safe as the key that is in it.

Examples:
  $ synod backup net/node-3/config.json --out backup/node-3
  $ synod backup net/node-3/config.json --out backup/node-3 --with-log`,
    )
    .action(backup);
}

/** [REC-7] */
async function backup(configFile: string, { out, withLog }: Options): Promise<void> {
  const { config, keys } = await ownFilesOf(configFile);
  const directory = resolve(out);
  refuseToOverwrite(directory);
  // Beside its place, on the same file system, so that it appears there in one step.
  const draft = join(dirname(directory), `.${basename(directory)}.${process.pid}.partial`);
  const data = dataPaths(join(draft, DATA_DIRECTORY));
  mkdirSync(join(draft, DATA_DIRECTORY), { recursive: true, mode: 0o700 });
  try {
    copyFileSync(config.genesis, join(draft, GENESIS_FILE));
    // What proves the epochs since the first: without it a member of a later one would not know that it is one.
    if (existsSync(config.epochsFile)) copyFileSync(config.epochsFile, data.epochsFile);
    for (const { path, signState, owner } of keys) {
      const copy = join(draft, path === config.key ? REPLICA_KEY_FILE : NEXT_KEY_FILE);
      copyFileSync(path, copy);
      chmodSync(copy, 0o600);
      await createQuarantined(
        signState === config.signState ? data.signState : `${copy}.sign-state`,
        owner,
        asEpoch(0),
      );
    }
    writeFileSync(join(draft, CONFIG_FILE), configOf(config));
    copyEvidence(config, data.evidenceDir);
    if (withLog === true) await copyLog(config, keys, data.logDir);
    renameSync(draft, directory);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    throw error;
  }
  await writeLine(`${out}: ${config.member}, ${withLog === true ? 'with its log' : 'without its log'}, in quarantine`);
}

/** The fields as they stand in the file; only what names a copied file points to the copy. */
function configOf({ file, passphraseFile, nextKey }: NodeConfig): string {
  const document: unknown = JSON.parse(readFileSync(file, 'utf8'));
  const next = nextKey === null ? {} : { nextKey: NEXT_KEY_FILE };
  const own = { genesis: GENESIS_FILE, key: REPLICA_KEY_FILE, ...next, dataDir: DATA_DIRECTORY };
  const moved = passphraseFile === null ? own : { ...own, passphraseFile };
  // An object: the config schema has taken it.
  return `${JSON.stringify({ ...(document as object), ...moved }, null, 2)}\n`;
}

/** Whole files of their own, so that a replica which runs may write more of them meanwhile; what is not whole yet is left out. */
function copyEvidence({ evidenceDir }: NodeConfig, to: string): void {
  if (!existsSync(evidenceDir)) return;
  mkdirSync(to, { mode: 0o700 });
  for (const name of readdirSync(evidenceDir).filter((each) => each.endsWith(WITNESS_SUFFIX))) {
    try {
      // The time of the file is when the piece was kept.
      cpSync(join(evidenceDir, name), join(to, name), { preserveTimestamps: true });
    } catch (error) {
      // An old new-view goes when there are enough newer ones.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

/** Under the locks of the sign-states: a log that is being written would be copied torn. @throws GuardError guard-locked, guard-missing */
async function copyLog({ logDir }: NodeConfig, keys: readonly OwnKeyFiles[], to: string): Promise<void> {
  const opened: { close(): Promise<void> }[] = [];
  try {
    for (const { signState, owner } of keys) {
      const found = await openSignState(signState, owner);
      if (found === undefined) throw new GuardError('guard-missing', { path: relative('.', signState) });
      opened.push(found.file);
    }
    cpSync(logDir, to, { recursive: true, errorOnExist: true });
  } finally {
    for (const file of opened) await file.close();
  }
}
