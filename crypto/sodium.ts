// libsodium's Ed25519 verification, where its binary loads: half the time of OpenSSL's (docs/adr/0005-dependencies.md). Of rule.ts it does
// (c) and (e), its equation cofactorless and compared byte by byte; what it refuses beyond that, (b) and (d) refuse as well.

import { createRequire } from 'node:module';
import type { Bytes } from './bytes.ts';

interface Sodium {
  /** Throws where the signature has not 64 bytes or the key not 32. */
  crypto_sign_verify_detached(signature: Bytes, message: Bytes, publicKey: Bytes): boolean;
}

function load(): Sodium | undefined {
  try {
    // Cast: the package has no types; the rest of this folder calls this one function.
    return createRequire(import.meta.url)('sodium-native') as Sodium;
  } catch {
    // No binary for this platform: node:crypto verifies, with the same verdicts.
    return undefined;
  }
}

/** Undefined: not on this platform. */
export const sodium = load();
