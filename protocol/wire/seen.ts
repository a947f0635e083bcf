// Signatures that were found valid lately: a vote that was checked when it came is not checked again inside a certificate.

import { type Bytes, concat } from '../../crypto/bytes.ts';
import { BoundedCache } from '../../crypto/cache.ts';
import type { Crypto } from '../../crypto/provider.ts';

/** What verification remembers through; given from outside, since memory is the caller's to bound. */
export interface Seen {
  /** True only if exactly this signature, by this key, over these bytes was added before. */
  has(publicKey: Bytes, message: Bytes, signature: Bytes): boolean;
  add(publicKey: Bytes, message: Bytes, signature: Bytes): void;
}

/** Longer messages than votes and checkpoint notes never stand in certificates, and are not remembered. */
const messageBytesMax = 1024;

export class SeenSignatures implements Seen {
  /** Key, signature and message in one piece. */
  readonly #entries: BoundedCache<Bytes, number>;

  /** @param entriesMax at least 2; an entry for a vote takes about 400 bytes */
  constructor(entriesMax: number) {
    this.#entries = new BoundedCache(entriesMax);
  }

  has(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
    // A longer signature must not pass for the one it begins with (rule (a) of crypto/rule.ts).
    if (!areSized(publicKey, signature)) return false;
    const entry = this.#entries.get(bucketOf(signature));
    return (
      entry?.length === KEY_BYTES + SIGNATURE_BYTES + message.length &&
      standsAt(entry, 0, publicKey) &&
      standsAt(entry, KEY_BYTES, signature) &&
      standsAt(entry, KEY_BYTES + SIGNATURE_BYTES, message)
    );
  }

  add(publicKey: Bytes, message: Bytes, signature: Bytes): void {
    if (message.length > messageBytesMax || !areSized(publicKey, signature)) return;
    this.#entries.set(bucketOf(signature), concat(publicKey, signature, message));
  }
}

const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;

const areSized = (publicKey: Bytes, signature: Bytes): boolean =>
  publicKey.length === KEY_BYTES && signature.length === SIGNATURE_BYTES;

function standsAt(entry: Bytes, at: number, part: Bytes): boolean {
  for (let i = 0; i < part.length; i++) if (entry[at + i] !== part[i]) return false;
  return true;
}

/** Ed25519 through the memory. */
export function verifyOnce(
  crypto: Crypto,
  seen: Seen | undefined,
  publicKey: Bytes,
  message: Bytes,
  signature: Bytes,
): boolean {
  if (seen?.has(publicKey, message, signature)) return true;
  if (!crypto.verify(publicKey, message, signature)) return false;
  seen?.add(publicKey, message, signature);
  return true;
}

/** Thirty bits of it: whoever makes two that share them has one of them checked once more. Measured, a tenth of a string's cost. */
function bucketOf(signature: Bytes): number {
  return signature[0]! | (signature[1]! << 8) | (signature[2]! << 16) | ((signature[3]! & 0x3f) << 24);
}
