// `synod repair`: what a replica's disk still holds, and the ways back when something of it is lost, or was moved. Nothing is ever deleted: what
// is damaged is moved aside. The rules are REC-1 to REC-6 of docs/spec.md, the reasons docs/adr/0006-amnesia.md.

import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Command, Option } from 'commander';
import { native } from '../../crypto/native.ts';
import { GuardError, type GuardErrorCode } from '../../keys/errors.ts';
import { assertAtHome, homeFileOf, settleHere } from '../../keys/home.ts';
import type { SignStateOwner } from '../../keys/sign-state.ts';
import { createQuarantined, giveUpLog, inspectSignState, type SignStateSummary } from '../../keys/sign-state-file.ts';
import type { LogPosition } from '../../protocol/log.ts';
import { bearsLies, type Protocol } from '../../protocol/modes.ts';
import { asEpoch } from '../../protocol/types.ts';
import { StorageError } from '../../storage/errors.ts';
import { syncDirectory } from '../../storage/files.ts';
import { checkAgainstGenesis, loadConfig, loadGenesis, type NodeConfig } from '../config.ts';
import { EXIT, orComplain } from './errors.ts';
import { writeLine } from './output.ts';

interface Options {
  readonly log?: true;
  readonly readmit?: true;
  readonly moved?: true;
}

export function repairCommand(): Command {
  return new Command('repair')
    .description('look at the files of a stopped replica, and bring it back when some of them are lost')
    .argument('<config>', 'its config.json')
    .option(
      '--log',
      'move the log aside; the replica takes everything from its peers, with proofs, and keeps its marks',
    )
    .option(
      '--readmit',
      'the sign-state is lost, or may be an old one: make one in quarantine; the replica votes for nothing until what it may have signed is past',
    )
    .addOption(
      new Option(
        '--moved',
        'the directory was moved here, and the sign-state in it is the only and newest one: it is at home here from now on',
      ).conflicts('readmit'),
    )
    .addHelpText(
      'after',
      `
Without an option it says what is there and what to do, and changes nothing. It never deletes: what it replaces gets a new name
beside its place. --log and --readmit together: log and sign-state are lost.

--readmit: first make sure that no other process runs with this key, on any host, ever again: a copy that still votes is a
second voter. The quarantine ends by itself; \`synod status\` shows what it waits for.

Where the members are trusted (every protocol but pbft) neither --log nor --readmit is possible: what is lost there is made up for by nothing. Such a replica gets
another key (\`synod member rotate\`).

--moved: for a directory that was copied to another disk or host after the replica had ended, and whose original has not run since and never
will. If it has, even once, these marks are old, and the replica would vote twice: then it is --readmit.

Exit code 1 if something is wrong that this call did not mend.

Examples:
  $ synod repair net/node-3/config.json
  $ synod repair net/node-3/config.json --log
  $ synod repair net/node-3/config.json --readmit
  $ synod repair net/node-3/config.json --moved`,
    )
    .action(repair);
}

async function repair(configFile: string, options: Options): Promise<void> {
  const { config, owner, protocol } = replicaOf(configFile);
  // [CFT-R-1]
  if (!bearsLies(protocol) && (options.readmit === true || options.log === true))
    throw new GuardError('guard-memory-lost', { member: config.member });
  if (options.readmit === true) await readmit(config, owner);
  if (options.moved === true) await settle(config, owner);
  if (options.log === true) await replaceLog(config, owner);
  const advice = await diagnose(config, owner);
  if (advice.length === 0) return writeLine(`nothing to repair; next: synod start ${configFile}`);
  if (!bearsLies(protocol)) throw new GuardError('guard-memory-lost', { member: config.member });
  await writeLine(`next: synod repair ${configFile} ${advice.join(' ')}`);
  process.exitCode = EXIT.failure;
}

/** Whose files these are, by config and genesis document alone: mending needs no secret. */
export function replicaOf(configFile: string): {
  readonly config: NodeConfig;
  readonly owner: SignStateOwner;
  /** Of the first epoch. */
  readonly protocol: Protocol;
} {
  const config = orComplain(loadConfig(configFile));
  const { genesis } = orComplain(loadGenesis(native, config.genesis));
  const problem = checkAgainstGenesis(config, genesis);
  if (problem !== undefined) orComplain(problem);
  const member = genesis.members.find(({ name }) => name === config.member)!; // as just checked
  const { chainId, protocol } = genesis;
  return { config, owner: { publicKey: member.publicKey, chainId }, protocol };
}

/** Prints what is there; returns the options that would mend it. */
async function diagnose(config: NodeConfig, owner: SignStateOwner): Promise<string[]> {
  const advice: string[] = [];
  let floor: LogPosition = { sequence: 0, hash: new Uint8Array(32) };
  try {
    const found = await inspectSignState(config.signState, owner);
    if (found === undefined) throw new GuardError('guard-missing', { path: config.signState });
    floor = found.floor;
    if (existsSync(homeFileOf(config.signState))) await assertAtHome(config.signState);
    await writeLine(`sign-state: ${signStateInWords(found)}`);
  } catch (error) {
    const words = error instanceof GuardError ? lossInWords[error.code] : undefined;
    if (!(error instanceof GuardError) || words === undefined) throw error;
    await writeLine(`sign-state: ${words} [${error.code}]`);
    advice.push('--readmit');
  }
  try {
    await writeLine(`log: ${await logInWords(config, owner, floor)}`);
  } catch (error) {
    if (!(error instanceof StorageError) || (error.code !== 'storage-damaged' && error.code !== 'storage-lost-writes'))
      throw error;
    await writeLine(
      `log: ${error.code === 'storage-damaged' ? 'damaged' : 'older than what was signed'} [${error.code}]`,
    );
    advice.push('--log');
  }
  return advice;
}

const lossInWords: Partial<Record<GuardErrorCode, string>> = {
  'guard-missing': 'missing',
  'guard-damaged': 'damaged',
  'guard-copied': 'a copy, or put back from a backup',
};

function signStateInWords({ quarantined, hasSigned, view }: SignStateSummary): string {
  if (quarantined) return 'in quarantine: votes for nothing until it is readmitted';
  return hasSigned ? `sound, has signed up to view ${view}` : 'sound, has signed nothing yet';
}

/** Opens the log as a start does, with all its checks. @throws StorageError */
async function logInWords(
  { logDir, retainBlocks }: NodeConfig,
  { chainId }: SignStateOwner,
  floor: LogPosition,
): Promise<string> {
  if (!existsSync(logDir)) {
    if (floor.sequence > 0) throw new StorageError('storage-lost-writes', { expected: floor.sequence, found: 0 });
    return 'none yet';
  }
  // Loaded only here: the other commands do not need the database.
  const [{ openStore }, { openLogStore }] = await Promise.all([
    import('../../storage/open.ts'),
    import('../../storage/log-store.ts'),
  ]);
  const kv = await openStore(logDir);
  try {
    const { log } = await openLogStore(kv, {
      sha256: native.sha256,
      chainId,
      floor: floor.sequence === 0 ? null : floor,
      retainBlocks,
    });
    const words = log.head === 0 ? 'sound, no block is decided' : `sound, blocks ${log.lowest} to ${log.head}`;
    await log.close();
    return words;
  } catch (error) {
    await kv.close();
    throw error;
  }
}

/** [REC-6] */
async function replaceLog(config: NodeConfig, owner: SignStateOwner): Promise<void> {
  await giveUpLog(config.signState, owner, async () => {
    if (existsSync(config.logDir)) await moveAside(config.logDir);
  });
  await writeLine('the replica begins with an empty log, and takes everything from its peers');
}

/** [REC-8] A file that is missing, damaged or somebody else's is at home nowhere, and one that a process holds is not touched. */
async function settle({ signState }: NodeConfig, owner: SignStateOwner): Promise<void> {
  if ((await inspectSignState(signState, owner)) === undefined)
    throw new GuardError('guard-missing', { path: signState });
  await settleHere(signState);
  await writeLine(`${signState}: at home here`);
}

/** [REC-1] A file in quarantine in the place of whatever was there. */
async function readmit({ dataDir, signState }: NodeConfig, owner: SignStateOwner): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  // A quarantine that was copied is one all the same, and at home wherever it is found.
  if (await isQuarantined(signState, owner)) return rm(homeFileOf(signState), { force: true });
  for (const path of [signState, homeFileOf(signState)]) if (existsSync(path)) await moveAside(path);
  await createQuarantined(signState, owner, asEpoch(0));
  await writeLine(`${signState}: made in quarantine`);
}

/** A file that a process holds is not touched. @throws GuardError guard-locked, guard-lock-unavailable, guard-wrong-owner */
async function isQuarantined(path: string, owner: SignStateOwner): Promise<boolean> {
  try {
    return (await inspectSignState(path, owner))?.quarantined === true;
  } catch (error) {
    if (error instanceof GuardError && error.code === 'guard-damaged') return false;
    throw error;
  }
}

async function moveAside(path: string): Promise<void> {
  const stamp = new Date().toISOString().replace(/[-:.]/g, '');
  let aside = `${path}.aside-${stamp}`;
  for (let again = 2; existsSync(aside); again++) aside = `${path}.aside-${stamp}-${again}`;
  await rename(path, aside);
  await syncDirectory(dirname(path));
  await writeLine(`${path}: moved to ${basename(aside)}`);
}
