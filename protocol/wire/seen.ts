// Signatures that were found valid lately: a vote that was checked when it came is not checked again inside a certificate.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { BoundedCache } from '../../crypto/cache.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { own } from './bytes.ts';

/** What verification remembers through; given from outside, since memory is the caller's to bound. */
export interface Seen {
  /** True only if exactly this signature, by this key, over these bytes was added before. */
  has(publicKey: Bytes, message: Bytes, signature: Bytes): boolean;
  add(publicKey: Bytes, message: Bytes, signature: Bytes): void;
}

/** Longer messages than votes and checkpoint notes never stand in certificates, and are not remembered. */
const messageBytesMax = 1024;

export class SeenSignatures implements Seen {
  readonly #entries: BoundedCache<{ readonly publicKey: Bytes; readonly message: Bytes }>;

  /** @param entriesMax at least 2; an entry for a vote takes about 600 bytes */
  constructor(entriesMax: number) {
    this.#entries = new BoundedCache(entriesMax);
  }

  has(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
    // A longer signature must not pass for the one it begins with (rule (a) of crypto/rule.ts).
    if (signature.length !== 64) return false;
    const entry = this.#entries.get(nameOf(signature));
    return entry !== undefined && equalBytes(entry.publicKey, publicKey) && equalBytes(entry.message, message);
  }

  add(publicKey: Bytes, message: Bytes, signature: Bytes): void {
    if (message.length > messageBytesMax || signature.length !== 64) return;
    this.#entries.set(nameOf(signature), { publicKey: own(publicKey), message: own(message) });
  }
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

/** One character a byte: half the cost of hex. */
function nameOf(signature: Bytes): string {
  return String.fromCharCode(...signature);
}
