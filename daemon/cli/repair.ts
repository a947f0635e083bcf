// `synod repair`: what a replica's disk still holds, and the ways back when something of it is lost, or was moved. Nothing is ever deleted: what
// is damaged is moved aside. The rules are REC-1 to REC-6 of docs/spec.md, the reasons docs/adr/0006-amnesia.md.

import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Command, Option } from 'commander';
import { equalBytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { GuardError, type GuardErrorCode } from '../../keys/errors.ts';
import { assertAtHome, homeFileOf, settleHere } from '../../keys/home.ts';
import type { SignStateOwner } from '../../keys/sign-state.ts';
import { createQuarantined, giveUpLog, inspectSignState, type SignStateSummary } from '../../keys/sign-state-file.ts';
import { epochOf } from '../../protocol/epoch/begin.ts';
import type { LogPosition } from '../../protocol/log.ts';
import { bearsLies, type Protocol } from '../../protocol/modes.ts';
import { asEpoch, type Member } from '../../protocol/types.ts';
import { StorageError } from '../../storage/errors.ts';
import { syncDirectory } from '../../storage/files.ts';
import { loadEpochs } from './epochs-file.ts';
import { EXIT } from './errors.ts';
import { writeLine } from './output.ts';
import { type OwnFiles, type OwnKeyFiles, ownFilesOf } from './own-keys.ts';

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
second voter. Where a key is to follow (nextKey), both are put in quarantine. The quarantine ends by itself; \`synod status\` shows what it waits for.

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
  const files = await ownFilesOf(configFile);
  const isLost = new GuardError('guard-memory-lost', { member: files.config.member });
  const isTrusted = !bearsLies(protocolOf(files));
  // [CFT-R-1]
  if (isTrusted && (options.readmit === true || options.log === true)) throw isLost;
  if (options.readmit === true) await readmit(files);
  if (options.moved === true) for (const key of files.keys) await settle(key);
  if (options.log === true) await replaceLog(files);
  const { advice, start } = await diagnose(files);
  if (advice.length === 0) return writeLine(`nothing to repair; next: synod start ${configFile}${start}`);
  if (isTrusted) throw isLost;
  await writeLine(`next: synod repair ${configFile} ${advice.join(' ')}`);
  process.exitCode = EXIT.failure;
}

/** Of the latest epoch that is known here. Where that is not the one of the log, the start says what is the matter. */
function protocolOf({ config: { epochsFile }, genesis }: OwnFiles): Protocol {
  return loadEpochs(genesis, existsSync(epochsFile) ? epochsFile : undefined).last.protocol;
}

interface Diagnosis {
  /** The options that would mend it. */
  readonly advice: readonly string[];
  /** What `synod start` wants besides the config. */
  readonly start: string;
}

/** Prints what is there. */
async function diagnose(files: OwnFiles): Promise<Diagnosis> {
  const advice = new Set<string>();
  let floor: LogPosition = { sequence: 0, hash: new Uint8Array(32) };
  for (const { signState, owner, label } of files.keys) {
    const name = label === '' ? 'sign-state' : `sign-state of ${label}`;
    try {
      const found = await inspectSignState(signState, owner);
      if (found === undefined) throw new GuardError('guard-missing', { path: signState });
      // As a start takes it: that of the key that has signed last.
      if (found.floor.sequence > floor.sequence) floor = found.floor;
      if (existsSync(homeFileOf(signState))) await assertAtHome(signState);
      await writeLine(`${name}: ${signStateInWords(found)}`);
    } catch (error) {
      const words = error instanceof GuardError ? lossInWords[error.code] : undefined;
      if (!(error instanceof GuardError) || words === undefined) throw error;
      await writeLine(`${name}: ${words} [${error.code}]`);
      advice.add('--readmit');
    }
  }
  let start = '';
  try {
    const { words, members } = await lookAtLog(files, floor);
    await writeLine(`log: ${words}`);
    const self = members.find(({ name }) => name === files.config.member);
    // It comes to the epoch in which it is one as whoever observes does.
    if (!files.keys.some(({ owner }) => self !== undefined && equalBytes(owner.publicKey, self.publicKey)))
      start = ' --observe';
  } catch (error) {
    if (!(error instanceof StorageError) || (error.code !== 'storage-damaged' && error.code !== 'storage-lost-writes'))
      throw error;
    await writeLine(
      `log: ${error.code === 'storage-damaged' ? 'damaged' : 'older than what was signed'} [${error.code}]`,
    );
    advice.add('--log');
  }
  return { advice: [...advice], start };
}

const lossInWords: Partial<Record<GuardErrorCode, string>> = {
  'guard-missing': 'missing',
  'guard-damaged': 'damaged',
  'guard-copied': 'a copy, or put back from a backup',
};

function signStateInWords({ quarantined, hasSigned, view, epoch }: SignStateSummary): string {
  if (quarantined) return 'in quarantine: votes for nothing until it is readmitted';
  if (!hasSigned) return 'sound, has signed nothing yet';
  return `sound, has signed up to view ${view}${epoch === 0 ? '' : ` of epoch ${epoch}`}`;
}

/** Opens the log as a start does, with all its checks; and the members of the epoch that it ends in. @throws StorageError */
async function lookAtLog(
  { config: { logDir, retainBlocks }, genesis }: OwnFiles,
  floor: LogPosition,
): Promise<{ readonly words: string; readonly members: readonly Member[] }> {
  if (!existsSync(logDir)) {
    if (floor.sequence > 0) throw new StorageError('storage-lost-writes', { expected: floor.sequence, found: 0 });
    return { words: 'none yet', members: genesis.members };
  }
  // Loaded only here: the other commands do not need the database.
  const [{ openStore }, { openLogStore }] = await Promise.all([
    import('../../storage/open.ts'),
    import('../../storage/log-store.ts'),
  ]);
  const { sha256 } = native;
  const kv = await openStore(logDir);
  try {
    const { log, recovered } = await openLogStore(kv, {
      sha256,
      chainId: genesis.chainId,
      floor: floor.sequence === 0 ? null : floor,
      retainBlocks,
    });
    const { epoch, members } = epochOf(sha256, genesis, recovered);
    const blocks = log.head === 0 ? 'no block is decided' : `blocks ${log.lowest} to ${log.head}`;
    await log.close();
    return { words: `sound, ${blocks}${epoch === 0 ? '' : `, in epoch ${epoch}`}`, members };
  } catch (error) {
    await kv.close();
    throw error;
  }
}

/** [REC-6] The floors of all its keys: the log that goes is one for all. */
async function replaceLog({ config: { logDir }, keys }: OwnFiles): Promise<void> {
  const places = keys.map(({ signState, owner }) => ({ path: signState, owner }));
  await giveUpLog(places, async () => {
    if (existsSync(logDir)) await moveAside(logDir);
  });
  await writeLine('the replica begins with an empty log, and takes everything from its peers');
}

/** [REC-8] A file that is missing, damaged or somebody else's is at home nowhere, and one that a process holds is not touched. */
async function settle({ signState, owner }: OwnKeyFiles): Promise<void> {
  if ((await inspectSignState(signState, owner)) === undefined)
    throw new GuardError('guard-missing', { path: signState });
  await settleHere(signState);
  await writeLine(`${signState}: at home here`);
}

/**
 * [REC-1] [REC-10] Files in quarantine in the place of whatever was there, for all keys: whoever has lost one cannot say that the others are the newest. The epoch
 * in a file that has signed nothing says nothing, and the one that the log names is written at the start.
 */
async function readmit({ config: { dataDir }, keys }: OwnFiles): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  // None of them, unless all can be had: a file that a process holds is not touched.
  const there = new Map<OwnKeyFiles, boolean>();
  for (const key of keys) there.set(key, await isQuarantined(key.signState, key.owner));
  for (const [{ signState, owner }, isThere] of there) {
    // A quarantine that was copied is one all the same, and at home wherever it is found.
    if (isThere) {
      await rm(homeFileOf(signState), { force: true });
      continue;
    }
    for (const path of [signState, homeFileOf(signState)]) if (existsSync(path)) await moveAside(path);
    await createQuarantined(signState, owner, asEpoch(0));
    await writeLine(`${signState}: made in quarantine`);
  }
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
