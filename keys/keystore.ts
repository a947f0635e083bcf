// The key file: one replica's or client's secret key as JSON, sealed under a passphrase. docs/operations.md shows one.
//
//   {"synod-key":1,"publicKey":"<64 hex>","sealed":{...the envelope of crypto/seal.ts}}
//   {"synod-key":1,"publicKey":"<64 hex>","unsealed":"<64 hex>"}      only where the caller has asked for it by name
//
// The envelope is bound to the public key beside it. A file is never overwritten: a lost key cannot be had back.

import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, open as openFile, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { equalBytes, fromHex, toHex } from '../crypto/bytes.ts';
import { open, type SealCost, seal } from '../crypto/seal.ts';
import { errnoOf, KeyError } from './errors.ts';
import { exportSeed, SecretKey } from './keypair.ts';
import { type PassphraseSource, readPassphrase } from './passphrase.ts';
import { syncDirectory } from './slot-file.ts';

/** A key file has about 500 bytes. */
const fileBytesMax = 8192;

const hex32 = z.string().regex(/^[0-9a-f]{64}$/);
const keyFileSchema = z.union([
  // The envelope is parsed by crypto/seal.ts, as strictly.
  z.strictObject({ 'synod-key': z.literal(1), publicKey: hex32, sealed: z.record(z.string(), z.unknown()) }),
  z.strictObject({ 'synod-key': z.literal(1), publicKey: hex32, unsealed: hex32 }),
]);
type KeyFile = z.infer<typeof keyFileSchema>;

export type SaveKeyOptions = {
  /** In an existing directory. */
  readonly path: string;
  readonly secret: SecretKey;
} & (
  | {
      readonly protection: 'sealed';
      readonly passphrase: PassphraseSource;
      /** Default: the cost of crypto/seal.ts, about half a second. */
      readonly cost?: SealCost;
    }
  /** The seed in plain hex, for test networks and for hosts whose disk is sealed already. */
  | { readonly protection: 'none' }
);

/**
 * [KEY-2] Writes a key file: mode 0600, whole from the moment it has its name, synced with its directory.
 * @throws KeyError key-file-exists, key-file-io, key-passphrase-missing
 */
export async function saveKey(options: SaveKeyOptions): Promise<void> {
  const text = `${JSON.stringify(await keyFileOf(options), null, 2)}\n`;
  const { path } = options;
  const draft = `${path}.${randomUUID()}.new`;
  try {
    const file = await openFile(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
      // A link fails where a rename would replace.
      await link(draft, path);
    } finally {
      await file.close();
      await unlink(draft);
    }
    await syncDirectory(dirname(path));
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw new KeyError('key-file-exists', { path });
    throw new KeyError('key-file-io', { path, errno: errnoOf(error) ?? 'unknown' });
  }
}

export interface LoadKeyOptions {
  readonly path: string;
  /** Asked only if the file is sealed. */
  readonly passphrase?: PassphraseSource;
}

export interface LoadedKey {
  readonly secret: SecretKey;
  /** False: the secret stands in the file in plain hex, which an operator should hear about. */
  readonly sealed: boolean;
}

/**
 * [KEY-3] Loads a key from a file that nobody else can read, and whose two halves belong together.
 * @throws KeyError key-file-missing, key-file-mode, key-file-owner, key-file-invalid, key-file-io, key-passphrase,
 * key-passphrase-missing, key-mismatch
 */
export async function loadKey({ path, passphrase }: LoadKeyOptions): Promise<LoadedKey> {
  const file = parseKeyFile(await readKeyFile(path), path);
  const seed = 'unsealed' in file ? fromHex(file.unsealed) : await unseal(file, path, passphrase);
  if (seed === undefined) throw new KeyError('key-file-invalid', { path });
  try {
    const secret = SecretKey.fromSeed(seed);
    const stated = fromHex(file.publicKey);
    if (stated === undefined || !equalBytes(stated, secret.publicKey)) throw new KeyError('key-mismatch', { path });
    return { secret, sealed: 'sealed' in file };
  } finally {
    seed.fill(0);
  }
}

async function keyFileOf(options: SaveKeyOptions): Promise<KeyFile> {
  const publicKey = toHex(options.secret.publicKey);
  // The passphrase comes first: while it is asked for, no seed lies in memory.
  const passphrase = options.protection === 'sealed' ? await readPassphrase(options.passphrase) : undefined;
  const seed = exportSeed(options.secret);
  try {
    if (options.protection === 'none' || passphrase === undefined) {
      return { 'synod-key': 1, publicKey, unsealed: toHex(seed) };
    }
    const cost = options.cost === undefined ? {} : { cost: options.cost };
    const sealed = await seal({ secret: seed, passphrase, context: contextOf(publicKey), ...cost });
    return { 'synod-key': 1, publicKey, sealed: { ...sealed } };
  } finally {
    seed.fill(0);
  }
}

async function unseal(
  file: Extract<KeyFile, { sealed: unknown }>,
  path: string,
  source: PassphraseSource | undefined,
): Promise<Uint8Array> {
  if (source === undefined) throw new KeyError('key-passphrase-missing', { path });
  const opened = await open(file.sealed, {
    passphrase: await readPassphrase(source),
    context: contextOf(file.publicKey),
  });
  if ('secret' in opened) return opened.secret;
  const code = opened.refused === 'seal-wrong-passphrase-or-damaged' ? 'key-passphrase' : 'key-file-invalid';
  throw new KeyError(code, { path, refused: opened.refused });
}

function contextOf(publicKey: string): string {
  return `synod-key:${publicKey}`;
}

/** What the parser says about a bad file is not passed on: it quotes what it read. */
function parseKeyFile(text: string, path: string): KeyFile {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new KeyError('key-file-invalid', { path });
  }
  const parsed = keyFileSchema.safeParse(value);
  if (!parsed.success) throw new KeyError('key-file-invalid', { path });
  return parsed.data;
}

async function readKeyFile(path: string): Promise<string> {
  let file: FileHandle;
  try {
    // Non-blocking, so that a pipe of that name does not hang the start.
    file = await openFile(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new KeyError('key-file-missing', { path });
    throw new KeyError('key-file-io', { path, errno: errnoOf(error) ?? 'unknown' });
  }
  try {
    // Of the open file, not of its name: what is checked is what is read.
    const { mode, uid, size } = await file.stat();
    if ((mode & constants.S_IFMT) !== constants.S_IFREG || size > fileBytesMax)
      throw new KeyError('key-file-invalid', { path });
    if ((mode & 0o077) !== 0) throw new KeyError('key-file-mode', { path, mode: `0${(mode & 0o777).toString(8)}` });
    // Windows has no such numbers.
    const self = process.geteuid?.();
    if (self !== undefined && uid !== self) throw new KeyError('key-file-owner', { path, owner: uid, self });
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}
