// `synod restore`: puts a backup in its place. It takes only what can never vote twice: a directory of its own, with a sign-state in quarantine for each key.

import { cpSync, existsSync, mkdirSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { Command } from 'commander';
import { inspectSignState } from '../../keys/sign-state-file.ts';
import { Complaint, EXIT } from './errors.ts';
import { CONFIG_FILE, refuseToOverwrite } from './network-files.ts';
import { writeLine } from './output.ts';
import { ownFilesOf } from './own-keys.ts';

/** Where a sign-state was at home: a copy is at home where it starts first. */
const HOME_SUFFIX = '.home';

export function restoreCommand(): Command {
  return new Command('restore')
    .description('put a backup in its place, and nothing that could vote twice')
    .argument('<backup>', 'a directory that `synod backup` wrote')
    .requiredOption('--to <dir>', 'where the replica is to be: a new or empty directory')
    .addHelpText(
      'after',
      `
First end the old process for good, on whatever host it runs: a second one with this key is a second voter. Then restore, and start. The
replica votes for nothing until what its key may have signed since the backup is past; the quarantine ends by itself, and \`synod why\` says
what it waits for.

Any other copy of a replica is refused, for its sign-state may be older than what the key has signed: leave data/sign-state out of it, put it
in its place, and say \`synod repair CONFIG --readmit\`. The backup itself stays as it is. Where the members are trusted (every protocol but
pbft) a backup is there to be read: whoever has lost its marks there votes no more under its key.

Examples:
  $ synod restore backup/node-3 --to net/node-3
  $ synod start net/node-3/config.json`,
    )
    .action(restore);
}

/** [REC-7] */
async function restore(backup: string, { to }: { readonly to: string }): Promise<void> {
  const from = resolve(backup);
  const { config, keys } = await ownFilesOf(join(from, CONFIG_FILE));
  for (const path of [config.genesis, config.key, config.nextKey ?? config.key, config.dataDir])
    if (!isInside(from, path)) throw refused(`it names ${path}, which is not in it`);
  for (const { signState, owner } of keys) {
    const found = isInside(from, signState) ? await inspectSignState(signState, owner) : undefined;
    if (found === undefined) throw refused(`${signState} is missing`);
    if (!found.quarantined) throw refused(`${signState} is no backup's: it may be older than what the key has signed`);
  }
  const directory = resolve(to);
  refuseToOverwrite(directory);
  // Beside its place, on the same file system, so that it appears there in one step.
  const draft = join(dirname(directory), `.${basename(directory)}.${process.pid}.partial`);
  try {
    mkdirSync(draft, { recursive: true, mode: 0o700 });
    const filter = (path: string) => !path.endsWith(HOME_SUFFIX);
    cpSync(from, draft, { recursive: true, preserveTimestamps: true, filter });
    renameSync(draft, directory);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    throw error;
  }
  await writeLine(`${to}: ${config.member}, in quarantine`);
  await writeLine(`next: synod start ${join(to, CONFIG_FILE)}, once no other process with this key runs, anywhere`);
}

/** Whether the path is there, and in the directory: also where it is a link. */
function isInside(directory: string, path: string): boolean {
  if (!existsSync(path)) return false;
  const way = relative(realpathSync(directory), realpathSync(path));
  return !isAbsolute(way) && way.split(sep)[0] !== '..';
}

const refused = (problem: string): Complaint =>
  new Complaint({
    code: 'not-a-backup',
    sentence: `this is not what \`synod backup\` wrote: ${problem}`,
    remedy:
      'Restore what `synod backup` wrote; or leave data/sign-state out, put the rest in its place and say `synod repair CONFIG --readmit`.',
    exit: EXIT.usage,
  });
