// Where the passphrase of a key file comes from. Never an argument of a command: those are visible to every user of the host.

import { readFile } from 'node:fs/promises';
import { errnoOf, KeyError } from './errors.ts';

export type PassphraseSource =
  /**
   * The first line of a file, such as a mounted secret. Its mode is not looked at: container runtimes mount secrets readable
   * for all, inside a file system that is not.
   */
  | { readonly from: 'file'; readonly path: string }
  /** Taken out of the environment when it is read, so that no child process inherits it. */
  | { readonly from: 'environment'; readonly name: string }
  /** A prompt, or a secret manager. */
  | { readonly from: 'ask'; readonly ask: () => Promise<string> };

const passphraseBytesMax = 4096;

/** @throws KeyError key-passphrase-missing, key-file-io */
export async function readPassphrase(source: PassphraseSource): Promise<string> {
  const passphrase = await read(source);
  if (passphrase === undefined || passphrase === '' || passphrase.length > passphraseBytesMax) {
    throw new KeyError('key-passphrase-missing', { from: source.from });
  }
  return passphrase;
}

async function read(source: PassphraseSource): Promise<string | undefined> {
  switch (source.from) {
    case 'file':
      return (await readText(source.path)).split(/\r?\n/, 1)[0];
    case 'environment': {
      const value = process.env[source.name];
      delete process.env[source.name];
      return value;
    }
    case 'ask':
      return source.ask();
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new KeyError('key-file-io', { path, errno: errnoOf(error) ?? 'unknown' });
  }
}
