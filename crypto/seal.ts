// A secret at rest under a passphrase: scrypt (RFC 7914) makes the key, ChaCha20-Poly1305 (RFC 8439) encrypts. Node only.
//
// The envelope is a JSON object. Everything in it but the ciphertext, and the caller's context, is associated data: an
// envelope with any other cost, salt, nonce or context does not open. The cost is read from the file, hence bounded from both
// sides: a planted file must neither take all memory nor make guessing cheap.

import { createCipheriv, createDecipheriv, randomBytes, scrypt } from 'node:crypto';
import { fromBase64, toBase64 } from './base64.ts';
import { type Bytes, concat } from './bytes.ts';
import { encodeUtf8, isWellFormed } from './utf8.ts';

/** scrypt's parameters: memory is 128 * n * r bytes. */
export interface SealCost {
  /** A power of two. */
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** 128 MiB and about half a second. */
export const defaultCost: SealCost = { n: 2 ** 17, r: 8, p: 1 };

/** What a reader accepts: from 32 MiB to 1 GiB of memory, and at most 16 times the default's work. */
const memoryBytesMin = 2 ** 25;
const memoryBytesMax = 2 ** 30;
const workBytesMax = 2 ** 31;

export interface Envelope {
  readonly version: 1;
  readonly kdf: { readonly name: 'scrypt' } & SealCost;
  readonly cipher: 'chacha20-poly1305';
  /** Base64 of 32 bytes, random per envelope. */
  readonly salt: string;
  /** Base64 of 12 bytes, random per envelope. */
  readonly nonce: string;
  /** Base64 of the encrypted secret and the tag of 16 bytes. */
  readonly ciphertext: string;
}

export type SealRefusal = 'seal-wrong-passphrase-or-damaged' | 'seal-format' | 'seal-cost';

const SALT_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const secretBytesMax = 64 * 1024;

export interface SealOptions {
  /** 1 to 65,536 bytes; not changed, not kept. */
  readonly secret: Bytes;
  /** Not empty. Normalised to Unicode NFKC, so that keyboards which compose accents differently agree. */
  readonly passphrase: string;
  /** What the secret is for, such as a key's public half; the same text is needed to open. */
  readonly context: string;
  /** Default: defaultCost. */
  readonly cost?: SealCost;
  /** Tests only: accepts a cost below the minimum. Default false. */
  readonly allowWeakCost?: boolean;
}

/** Throws on options out of bounds; they come from the caller, not from outside. */
export async function seal(options: SealOptions): Promise<Envelope> {
  const { secret, passphrase, context, cost = defaultCost, allowWeakCost = false } = options;
  if (secret.length === 0 || secret.length > secretBytesMax) throw new RangeError('seal: secret of 1 to 65,536 bytes');
  if (!isPassphrase(passphrase)) throw new Error('seal: passphrase empty or not well formed');
  if (!isCost(cost, allowWeakCost)) throw new RangeError('seal: cost');
  const salt = randomBytes(SALT_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const header: Header = {
    version: 1,
    kdf: { name: 'scrypt', n: cost.n, r: cost.r, p: cost.p },
    cipher: 'chacha20-poly1305',
    salt: toBase64(salt),
    nonce: toBase64(nonce),
  };
  const key = await deriveKey(passphrase, salt, cost);
  try {
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(associatedData(header, context), { plaintextLength: secret.length });
    const ciphertext = concat(cipher.update(secret), cipher.final(), cipher.getAuthTag());
    return { ...header, ciphertext: toBase64(ciphertext) };
  } finally {
    key.fill(0);
  }
}

export interface OpenOptions {
  readonly passphrase: string;
  readonly context: string;
  /** Tests only. Default false. */
  readonly allowWeakCost?: boolean;
}

/** @param envelope parsed JSON of unknown origin. Whoever gets the secret should fill it with zeros after use. */
export async function open(
  envelope: unknown,
  { passphrase, context, allowWeakCost = false }: OpenOptions,
): Promise<{ readonly secret: Bytes } | { readonly refused: SealRefusal }> {
  const parsed = parseEnvelope(envelope);
  if (parsed === undefined) return { refused: 'seal-format' };
  const { header, salt, nonce, sealed } = parsed;
  if (!isCost(header.kdf, allowWeakCost)) return { refused: 'seal-cost' };
  if (!isPassphrase(passphrase)) return { refused: 'seal-wrong-passphrase-or-damaged' };
  const key = await deriveKey(passphrase, salt, header.kdf);
  try {
    const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: TAG_BYTES });
    const plaintextLength = sealed.length - TAG_BYTES;
    decipher.setAAD(associatedData(header, context), { plaintextLength });
    decipher.setAuthTag(sealed.subarray(plaintextLength));
    const secret = decipher.update(sealed.subarray(0, plaintextLength));
    try {
      decipher.final();
    } catch {
      secret.fill(0);
      return { refused: 'seal-wrong-passphrase-or-damaged' };
    }
    return { secret };
  } finally {
    key.fill(0);
  }
}

type Header = Omit<Envelope, 'ciphertext'>;

/** From the parsed values, in one fixed order, so that the order of keys and blanks in the file do not matter. */
function associatedData({ version, kdf, cipher, salt, nonce }: Header, context: string): Bytes {
  return encodeUtf8(
    JSON.stringify(['synod-seal', version, kdf.name, kdf.n, kdf.r, kdf.p, cipher, salt, nonce, context]),
  );
}

interface Parsed {
  readonly header: Header;
  readonly salt: Bytes;
  readonly nonce: Bytes;
  readonly sealed: Bytes;
}

function parseEnvelope(envelope: unknown): Parsed | undefined {
  const fields = fieldsOf(envelope, ['version', 'kdf', 'cipher', 'salt', 'nonce', 'ciphertext']);
  const kdf = fieldsOf(fields?.kdf, ['name', 'n', 'r', 'p']);
  if (fields === undefined || kdf === undefined) return undefined;
  if (fields.version !== 1 || fields.cipher !== 'chacha20-poly1305' || kdf.name !== 'scrypt') return undefined;
  const { n, r, p } = kdf;
  if (typeof n !== 'number' || typeof r !== 'number' || typeof p !== 'number') return undefined;
  const salt = bytesOf(fields.salt, SALT_BYTES, SALT_BYTES);
  const nonce = bytesOf(fields.nonce, NONCE_BYTES, NONCE_BYTES);
  const sealed = bytesOf(fields.ciphertext, 1 + TAG_BYTES, secretBytesMax + TAG_BYTES);
  if (salt === undefined || nonce === undefined || sealed === undefined) return undefined;
  const header: Header = {
    version: 1,
    kdf: { name: 'scrypt', n, r, p },
    cipher: 'chacha20-poly1305',
    salt: toBase64(salt),
    nonce: toBase64(nonce),
  };
  return { header, salt, nonce, sealed };
}

/** The object's fields if it has exactly these, all its own. */
function fieldsOf(value: unknown, names: readonly string[]): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const fields = new Map(Object.entries(value));
  if (fields.size !== names.length || !names.every((name) => fields.has(name))) return undefined;
  return Object.fromEntries(fields);
}

function bytesOf(value: unknown, lengthMin: number, lengthMax: number): Bytes | undefined {
  if (typeof value !== 'string' || value.length > Math.ceil(lengthMax / 3) * 4) return undefined;
  const bytes = fromBase64(value);
  return bytes !== undefined && bytes.length >= lengthMin && bytes.length <= lengthMax ? bytes : undefined;
}

function isCost({ n, r, p }: SealCost, allowWeak: boolean): boolean {
  if (!Number.isSafeInteger(n) || !Number.isSafeInteger(r) || !Number.isSafeInteger(p)) return false;
  if (n < 2 || r < 1 || p < 1 || !Number.isInteger(Math.log2(n))) return false;
  // RFC 7914 section 2: n below 2^(16 r), which OpenSSL would throw about.
  if (Math.log2(n) >= 16 * r) return false;
  const memory = 128 * n * r;
  return (allowWeak || memory >= memoryBytesMin) && memory <= memoryBytesMax && memory * p <= workBytesMax;
}

function isPassphrase(passphrase: string): boolean {
  return passphrase.length > 0 && isWellFormed(passphrase);
}

function deriveKey(passphrase: string, salt: Bytes, { n, r, p }: SealCost): Promise<Buffer> {
  const password = encodeUtf8(passphrase.normalize('NFKC'));
  // Node's default limit of 32 MiB is below our least cost.
  const maxmem = 128 * r * (n + p + 2);
  return new Promise((resolve, reject) => {
    scrypt(password, salt, KEY_BYTES, { N: n, r, p, maxmem }, (error, key) => {
      password.fill(0);
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
