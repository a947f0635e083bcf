// Keys for simulations and tests, made from a name. Whoever knows the name has the key, so that none of them is worth anything: a chain
// whose genesis document names one of them belongs to everyone.

import { hash } from 'node:crypto';
import type { Bytes } from '../crypto/bytes.ts';
import { SecretKey, signBytes } from './keypair.ts';

export interface SimulationKey {
  /** 32 bytes. */
  readonly publicKey: Bytes;
  /** 64 bytes, over anything at all: no guard is asked. */
  sign(bytes: Bytes): Bytes;
}

/** The same key for the same name, for ever. Its seed is the SHA-256 of a public sentence, which no real key's is. */
export function simulationKey(name: string): SimulationKey {
  const secret = SecretKey.fromSeed(hash('sha256', `a key of the synod simulator, and no secret: ${name}`, 'buffer'));
  return { publicKey: secret.publicKey, sign: (bytes) => Uint8Array.from(signBytes(secret, bytes)) };
}
