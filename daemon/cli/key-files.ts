// Key files as the command line uses them: made, looked at, sealed, unsealed. The format is keys/keystore.ts's.

import { readFileSync, renameSync, rmSync } from 'node:fs';
import { z } from 'zod';
import { KeyError } from '../../keys/errors.ts';
import type { SecretKey } from '../../keys/keypair.ts';
import { loadKey, saveKey } from '../../keys/keystore.ts';
import type { PassphraseSource } from '../../keys/passphrase.ts';
import { passphraseSource } from '../config.ts';
import { findPassphrase } from './passphrase.ts';

const fileBytesMax = 8192;

/** The public half, as the file states it: opening a sealed file would prove it. */
export function inspectKeyFile(path: string): { readonly publicKey: string; readonly sealed: boolean } {
  const schema = z.object({
    'synod-key': z.literal(1),
    publicKey: z.string().regex(/^[0-9a-f]{64}$/),
    sealed: z.unknown().optional(),
  });
  try {
    const bytes = readFileSync(path);
    if (bytes.length > fileBytesMax) throw new KeyError('key-file-invalid', { path });
    const { publicKey, sealed } = schema.parse(JSON.parse(bytes.toString('utf8')));
    return { publicKey, sealed: sealed !== undefined };
  } catch (error) {
    if (error instanceof KeyError) throw error;
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    // Whatever else the parsers say is not passed on: they quote what they read.
    throw new KeyError(isMissing ? 'key-file-missing' : 'key-file-invalid', { path });
  }
}

/** The key in this file; the passphrase comes from the file, the environment or the keyboard, and only if it is sealed. */
export async function openKeyFile(path: string, passphraseFile: string | undefined): Promise<SecretKey> {
  const { secret } = await loadKey({ path, passphrase: await sourceFor(path, passphraseFile) });
  return secret;
}

/** Replaces the file by one with the same key under this passphrase, or under none. */
export async function rewriteKeyFile(path: string, secret: SecretKey, passphrase: string | null): Promise<void> {
  const draft = `${path}.${process.pid}.new`;
  try {
    await writeKeyFile(draft, secret, passphrase);
    // Never replace a key by what cannot be read back.
    await loadKey({ path: draft, ...(passphrase === null ? {} : { passphrase: given(passphrase) }) });
    renameSync(draft, path);
  } finally {
    rmSync(draft, { force: true });
  }
}

/** A new file. Null: without a passphrase. */
export async function writeKeyFile(path: string, secret: SecretKey, passphrase: string | null): Promise<void> {
  await saveKey(
    passphrase === null
      ? { path, secret, protection: 'none' }
      : { path, secret, protection: 'sealed', passphrase: given(passphrase) },
  );
}

async function sourceFor(path: string, passphraseFile: string | undefined): Promise<PassphraseSource> {
  const canAsk = passphraseFile === undefined && !process.env.SYNOD_PASSPHRASE;
  if (!canAsk) return passphraseSource(passphraseFile ?? null);
  const ask = async () => (await findPassphrase({ file: undefined, purpose: path, isNew: false })) ?? '';
  return { from: 'ask', ask };
}

const given = (passphrase: string): PassphraseSource => ({ from: 'ask', ask: async () => passphrase });
