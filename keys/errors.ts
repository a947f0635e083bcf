// What keys/ throws. Stable codes with fields; no field ever holds a secret, a passphrase or the content of a key file.

type Fields = Readonly<Record<string, string | number>>;

/** Stable codes of what can be wrong with a key, its file or its passphrase. */
export type KeyErrorCode =
  /** A seed is not 32 bytes. */
  | 'key-seed-invalid'
  /** There is a file already; a key is never overwritten. */
  | 'key-file-exists'
  | 'key-file-missing'
  /** Group or others may do something with the file: `chmod 600`. */
  | 'key-file-mode'
  /** The file belongs to another user than this process. */
  | 'key-file-owner'
  /** Not a key file: too large, not JSON, or not the documented shape. */
  | 'key-file-invalid'
  /** The operating system refused; `errno` says how. */
  | 'key-file-io'
  /** Wrong passphrase, or a damaged envelope: the two cannot be told apart. */
  | 'key-passphrase'
  /** The file is sealed and no passphrase was given, or an empty one. */
  | 'key-passphrase-missing'
  /** The secret in the file does not belong to the public key in it. */
  | 'key-mismatch'
  /** The key in the file is another one than the genesis document names for this member. */
  | 'key-not-member'
  /** The epoch that the log is in has no member of this name: it was removed, or has not come yet. */
  | 'not-a-member';

export class KeyError extends Error {
  override readonly name = 'KeyError';
  readonly code: KeyErrorCode;
  readonly fields: Fields;

  constructor(code: KeyErrorCode, fields: Fields = {}) {
    super(sentence(code, fields));
    this.code = code;
    this.fields = fields;
  }
}

/** Stable codes of why a guard cannot be opened or used. */
export type GuardErrorCode =
  /** No sign-state file: what this key has signed is not known, so it must not vote. */
  | 'guard-missing'
  /** The file cannot be trusted: what this key has signed is not known, so it must not vote. */
  | 'guard-damaged'
  /** The file is a copy, or was put back from a backup: what the key has signed since is not in it, so it must not vote. */
  | 'guard-copied'
  /** Of what this key has promised in this epoch something is lost, and among trusted members nothing makes up for it (CFT-R-1). */
  | 'guard-memory-lost'
  /** The file belongs to another key or another chain. */
  | 'guard-wrong-owner'
  /** The file has seen a later epoch than the one asked for. */
  | 'guard-epoch-passed'
  /** Another process (or another guard of this one) uses the file. */
  | 'guard-locked'
  /** This system offers no lock: on Linux, the flock command of util-linux or busybox is needed. */
  | 'guard-lock-unavailable'
  /** A write or a sync failed, now or earlier; nothing is signed until the process is started again. */
  | 'guard-poisoned'
  /** `close` was called. */
  | 'guard-closed';

export class GuardError extends Error {
  override readonly name = 'GuardError';
  readonly code: GuardErrorCode;
  readonly fields: Fields;

  constructor(code: GuardErrorCode, fields: Fields = {}, cause?: unknown) {
    super(sentence(code, fields), cause === undefined ? undefined : { cause });
    this.code = code;
    this.fields = fields;
  }
}

/** Stable codes of why the guard does not sign something. Nothing has changed when one is thrown. */
export type GuardRefusalCode =
  /** Something else was signed, or promised, at this very place. */
  | 'guard-conflict'
  /** The view is lower than one this key has made a mark in. */
  | 'guard-view-passed'
  /** This key led that view, or a later one, before the last restart; or abstains from it (GRD-7, GRD-12). */
  | 'guard-view-burned'
  /** The height is at or below one whose mark is no longer held. */
  | 'guard-height-passed'
  /** This key's memory was lost, and it has not been readmitted (REC-1). */
  | 'guard-quarantined'
  /** The guard was opened for another epoch. */
  | 'guard-wrong-epoch'
  /** A proposal in a view whose `lead` is not durable. */
  | 'guard-not-leading'
  /** A signature without a durable promise of exactly this pledge. */
  | 'guard-not-promised'
  /** The log's confirmed position is not at or above the floor. */
  | 'guard-log-behind'
  /** A statement of a kind that binds, or in the layout of a vote. */
  | 'guard-binding-kind'
  /** A statement of a kind that the wire does not have. */
  | 'guard-unknown-kind'
  /** The lock is longer than `lockBytesMax`. */
  | 'guard-lock-too-large';

export class GuardRefusal extends Error {
  override readonly name = 'GuardRefusal';
  readonly code: GuardRefusalCode;
  readonly fields: Fields;

  constructor(code: GuardRefusalCode, fields: Fields = {}) {
    super(sentence(code, fields));
    this.code = code;
    this.fields = fields;
  }
}

const advice: Partial<Record<KeyErrorCode | GuardErrorCode, string>> = {
  'key-file-mode': 'run chmod 600 on it',
  'key-passphrase': 'wrong passphrase or damaged file',
  'guard-missing': 'this replica must not vote until it was readmitted',
  'guard-damaged': 'this replica must not vote until it was readmitted',
  'guard-copied': 'this replica must not vote until it was readmitted',
  'guard-memory-lost': 'this key must not be used any more: give the replica another one',
  'guard-lock-unavailable': 'on Linux, install the flock command of util-linux',
};

function sentence(code: KeyErrorCode | GuardErrorCode | GuardRefusalCode, fields: Fields): string {
  const known = Object.entries(fields).map(([name, value]) => `${name} ${value}`);
  const hint = Object.entries(advice).find(([of]) => of === code)?.[1];
  return [code, ...known, ...(hint === undefined ? [] : [hint])].join(', ');
}

/** The code of a system error (`ENOENT`), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
