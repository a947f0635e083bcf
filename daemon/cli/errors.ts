// The one place that tells a user what went wrong: `synod: <sentence> [code]`, what to do about it, and the exit code. A user's
// mistake never shows a stack trace; a bug does, and says that it is one.

import { CommanderError } from 'commander';
import { ClientError, type ClientErrorCode } from '../../client/errors.ts';
import { GuardError, type GuardErrorCode, KeyError, type KeyErrorCode } from '../../keys/errors.ts';
import { StorageError, type StorageErrorCode } from '../../storage/errors.ts';
import type { ConfigProblem } from '../config.ts';

/** Documented in docs/operations.md. */
export const EXIT = {
  ok: 0,
  /** It was asked rightly and could not be done; `why`: not healthy, or nobody answers. */
  failure: 1,
  /** A wrong argument, config, genesis document or key file: nothing was attempted. */
  usage: 2,
  /** `verify`: not proved. */
  notProved: 3,
  /** No replica could be reached, or not in time. */
  unreachable: 4,
  /** `audit`: members are proved guilty. */
  guilty: 5,
  /** `audit`: the chains fork, and too few can be named. */
  tooFew: 6,
  /** Ctrl-C before the end. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Something the user can act on; thrown by commands, printed once, at the edge. */
export class Complaint extends Error {
  override readonly name = 'Complaint';
  readonly code: string;
  readonly remedy: string;
  readonly exit: ExitCode;

  constructor(complaint: {
    readonly code: string;
    readonly sentence: string;
    readonly remedy?: string;
    readonly exit?: ExitCode;
  }) {
    super(complaint.sentence);
    this.code = complaint.code;
    this.remedy = complaint.remedy ?? '';
    this.exit = complaint.exit ?? EXIT.failure;
  }
}

export const usageError = (sentence: string, remedy = '`synod --help` shows what there is.'): Complaint =>
  new Complaint({ code: 'usage', sentence, remedy, exit: EXIT.usage });

const remedies: Record<ConfigProblem['refused'], string> = {
  'config-unreadable': 'Give the path of a config.json as `synod init` writes it, readable for this user.',
  'config-invalid': 'Correct this field; docs/operations.md lists all of them.',
  'genesis-unreadable': 'Give the path of the genesis.json that all members of this network hold.',
  'genesis-invalid': 'Take the genesis.json of the other members, byte for byte: its hash is the chain id.',
  'config-genesis': 'Make the config agree with the genesis document.',
};

/** The value, or the problem thrown as a complaint. */
export function orComplain<T extends object>(value: T | ConfigProblem): T {
  if (!isProblem(value)) return value;
  throw new Complaint({
    code: value.refused,
    sentence: `${value.file}: ${value.field}: ${value.problem}`,
    remedy: remedies[value.refused],
    exit: EXIT.usage,
  });
}

const isProblem = (value: object): value is ConfigProblem => 'refused' in value && 'file' in value && 'field' in value;

const keySentences: Record<KeyErrorCode | GuardErrorCode, string> = {
  'key-seed-invalid': 'the secret in the key file has the wrong length',
  'key-file-exists': 'there is a file already, and a key is never overwritten',
  'key-file-missing': 'there is no such key file',
  'key-file-mode': 'others than its owner may read or write the key file',
  'key-file-owner': 'the key file belongs to another user',
  'key-file-invalid': 'this is no key file',
  'key-file-io': 'the system refused access to the key or passphrase file',
  'key-passphrase': 'the passphrase is wrong, or the key file is damaged',
  'key-passphrase-missing': 'the key is sealed and no passphrase was given',
  'key-mismatch': 'the secret in the key file does not belong to the public key in it',
  'key-not-member': 'the key is not the one that the epoch has for this member',
  'not-a-member': 'this replica is no member in the epoch at hand',
  'guard-missing': 'there is no sign-state file, so it is not known what this key has signed',
  'guard-damaged': 'the sign-state file is damaged, so it is not known what this key has signed',
  'guard-copied': 'the sign-state file is a copy, or was put back: what this key has signed since is not in it',
  'guard-memory-lost': 'not all of what this key has promised is known any more, and here nothing makes up for it',
  'guard-wrong-owner': 'the sign-state file belongs to another key or another chain',
  'guard-epoch-passed': 'the sign-state file has seen a later epoch',
  'guard-locked': "another process uses this replica's sign-state file",
  'guard-lock-unavailable': 'this system offers no file lock',
  'guard-poisoned': 'the sign-state file could not be written',
  'guard-closed': 'the sign-state file is closed',
};

const keyAdvice: Partial<Record<KeyErrorCode | GuardErrorCode, string>> = {
  'key-file-exists': 'Give another path.',
  'key-file-missing': 'Give the path of a file that `synod init` or `synod keys generate` wrote.',
  'key-file-mode': 'Run chmod 600 on it, and ask who may have read it.',
  'key-file-owner': 'Run as its owner.',
  'key-not-member':
    "Check `key`, `nextKey` and `member` in the config, and that the genesis document is this network's.",
  'not-a-member': 'It was removed, or has not come yet: `synod start --observe` follows the others until it is one.',
  'key-passphrase-missing':
    'Give --passphrase-file FILE, name a passphraseFile in the config, or set SYNOD_PASSPHRASE.',
  'guard-missing':
    'Was the data directory lost or not copied? `synod repair CONFIG --readmit` brings the replica back, at first without its vote.',
  'guard-damaged': '`synod repair CONFIG --readmit` brings the replica back, at first without its vote.',
  'guard-copied':
    'If the replica it was copied from still runs, stop here. If it ended before the copy and has not run since, `synod repair CONFIG --moved`. Else `synod repair CONFIG --readmit` brings it back, at first without its vote.',
  'guard-memory-lost':
    'Do not start this replica with this key again. Give it a new one (`synod member rotate`), start it with `--observe`, and let the other operators sign.',
  'guard-locked': 'Is the replica running already? One key must never run twice.',
  'guard-lock-unavailable': 'On Linux, install the flock command (util-linux).',
};

const storageSentences: Record<StorageErrorCode, string> = {
  'storage-damaged': 'the log on disk is not what was written',
  'storage-lost-writes': 'the log is older than what this replica has signed for',
  'storage-wrong-chain': 'the data directory belongs to another chain',
  'storage-format-newer': 'the log was written by a later version',
  'storage-format-older': 'the log was written by an earlier version, which laid it out otherwise',
  'storage-locked': 'another process has the log open',
  'storage-not-writable': 'the data directory cannot be written',
  'storage-backend-unavailable': 'the data directory was written by a database that this Node cannot load',
  'storage-open-failed': 'the log could not be opened',
  'storage-write-failed': 'a write to the log failed, and nobody knows what is durable now',
  'storage-read-failed': 'the log could not be read',
  'storage-closed': 'the log is closed',
};

const storageAdvice: Partial<Record<StorageErrorCode, string>> = {
  'storage-damaged':
    '`synod repair CONFIG --log` moves the log aside; the replica then takes everything from its peers.',
  'storage-lost-writes':
    '`synod repair CONFIG --log` moves the log aside; the replica then takes everything from its peers.',
  'storage-open-failed': 'Check owner, mode and free space of dataDir; `synod repair CONFIG` looks at what is there.',
  'storage-read-failed': 'Check the disk; `synod repair CONFIG` looks at what is there.',
  'storage-wrong-chain': 'Is dataDir right, and genesis.json that of this network?',
  'storage-format-newer': 'Install that version or a later one.',
  'storage-format-older':
    '`synod repair CONFIG --log` moves the log aside; the replica then takes everything from its peers. One replica after another.',
  'storage-locked': 'Is the replica running already?',
  'storage-backend-unavailable':
    'Use Node 20. An empty data directory is no way out: the sign-state refuses a log older than what was signed.',
  'storage-not-writable': 'Check owner, mode and free space of dataDir.',
  'storage-write-failed': 'Check the disk and its free space, then start again.',
};

/** May be over at the next try: a supervisor should try again. */
const transientCodes: readonly string[] = ['guard-locked', 'guard-poisoned', 'key-file-io'];

/** Nobody answered, or not in time. */
const unreachableCodes: readonly ClientErrorCode[] = ['connect-timeout'];

/** What to print on standard error, and the exit code. */
export function explainError(error: unknown): { readonly text: string; readonly exit: number } {
  if (error instanceof Complaint) {
    const remedy = error.remedy === '' ? '' : `\n  ${error.remedy}`;
    return { text: `synod: ${error.message} [${error.code}]${remedy}\n`, exit: error.exit };
  }
  if (error instanceof KeyError || error instanceof GuardError) {
    const advice = keyAdvice[error.code];
    const sentence = withFacts(keySentences[error.code], error.fields);
    return {
      text: `synod: ${sentence} [${error.code}]\n${advice === undefined ? '' : `  ${advice}\n`}`,
      exit: transientCodes.includes(error.code) ? EXIT.failure : EXIT.usage,
    };
  }
  if (error instanceof StorageError) {
    const sentence = withFacts(storageSentences[error.code], error.fields);
    const advice = storageAdvice[error.code];
    return {
      text: `synod: ${sentence} [${error.code}]\n${advice === undefined ? '' : `  ${advice}\n`}`,
      exit: EXIT.failure,
    };
  }
  if (error instanceof ClientError) {
    const exit = unreachableCodes.includes(error.code) ? EXIT.unreachable : EXIT.failure;
    return { text: `synod: ${error.message.replace(/^[a-z-]+: /, '')} [${error.code}]\n`, exit };
  }
  if (error instanceof CommanderError) {
    // Help and version were printed where they belong.
    if (error.exitCode === 0) return { text: '', exit: EXIT.ok };
    if (error.code === 'commander.help') return { text: '', exit: EXIT.usage };
    const sentence = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
    return { text: `synod: ${sentence} [usage]\n  \`synod --help\` shows what there is.\n`, exit: EXIT.usage };
  }
  if (isSystemError(error)) {
    return { text: `synod: ${error.message} [${error.code.toLowerCase()}]\n`, exit: EXIT.failure };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return {
    text: `synod: this is a bug, please report it with these lines [internal]\n${stack}\n`,
    exit: EXIT.failure,
  };
}

function withFacts(sentence: string, fields: Readonly<Record<string, string | number>>): string {
  const facts = Object.entries(fields).map(([name, value]) => `${name} ${value}`);
  return facts.length === 0 ? sentence : `${sentence} (${facts.join(', ')})`;
}

/** The operating system said no: a missing file, a port in use, a full disk. Node's sentence names the path or the port. */
function isSystemError(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && 'syscall' in error && 'code' in error && typeof error.code === 'string';
}
