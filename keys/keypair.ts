// The secret half of an Ed25519 key (RFC 8032), and the only function of this project that signs.
//
// The secret lives in a KeyObject, outside the JavaScript heap, behind a private field: printing, cloning or serialising a
// SecretKey shows the public half alone. `signBytes` and `exportSeed` are for the files of keys/ and nobody else (KEY-1).

import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto';
import { inspect } from 'node:util';
import { type Bytes, toHex } from '../crypto/bytes.ts';
import { KeyError } from './errors.ts';

export const SEED_BYTES = 32;

/** The ASN.1 frame of an Ed25519 private key (RFC 8410 section 7); the seed follows. */
const pkcs8Prefix = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20);

let keyObjectOf: (secret: SecretKey) => KeyObject;

export class SecretKey {
  /** Kept for every signature: making it anew costs as much as the signature itself. */
  readonly #key: KeyObject;
  /** 32 bytes. */
  readonly publicKey: Bytes;

  static {
    keyObjectOf = (secret) => secret.#key;
  }

  private constructor(key: KeyObject, publicKey: Bytes) {
    this.#key = key;
    this.publicKey = publicKey;
  }

  /** From the operating system's randomness. */
  static generate(): SecretKey {
    const seed = randomBytes(SEED_BYTES);
    try {
      return SecretKey.fromSeed(seed);
    } finally {
      seed.fill(0);
    }
  }

  /**
   * @param seed 32 bytes; not changed and not kept, the caller should fill it with zeros after use
   * @throws KeyError key-seed-invalid
   */
  static fromSeed(seed: Bytes): SecretKey {
    if (seed.length !== SEED_BYTES) throw new KeyError('key-seed-invalid', { length: seed.length });
    const der = Buffer.allocUnsafeSlow(pkcs8Prefix.length + SEED_BYTES);
    der.set(pkcs8Prefix);
    der.set(seed, pkcs8Prefix.length);
    try {
      const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
      // The last 32 bytes of the SubjectPublicKeyInfo are the key (RFC 8410 section 4).
      const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
      return new SecretKey(key, Uint8Array.from(spki.subarray(spki.length - 32)));
    } finally {
      der.fill(0);
    }
  }

  /** The public half in hex: safe in a log. */
  toString(): string {
    return `SecretKey(of ${toHex(this.publicKey)})`;
  }

  toJSON(): { readonly publicKey: string; readonly secret: 'redacted' } {
    return { publicKey: toHex(this.publicKey), secret: 'redacted' };
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** [KEY-1] The only function that signs. 64 bytes. Only for keys/: the guard and the client's signer decide what it sees. */
export function signBytes(secret: SecretKey, bytes: Bytes): Bytes {
  return sign(null, bytes, keyObjectOf(secret));
}

/** Only for keys/keystore.ts. The 32 bytes of the seed; whoever gets them fills them with zeros after use. */
export function exportSeed(secret: SecretKey): Bytes {
  const der = keyObjectOf(secret).export({ format: 'der', type: 'pkcs8' });
  const seed = Uint8Array.from(der.subarray(pkcs8Prefix.length, pkcs8Prefix.length + SEED_BYTES));
  der.fill(0);
  return seed;
}
