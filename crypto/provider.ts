// The port through which every layer hashes and verifies. Two implementations: portable.ts (any JavaScript engine) and
// native.ts (Node). They answer alike for every byte string; rule.ts states the signature rule they share.

import type { Bytes } from './bytes.ts';

/** SHA-256 (FIPS 180-4): 32 bytes out. Synchronous, and keeps no reference to its input. */
export type Sha256 = (bytes: Bytes) => Bytes;

/**
 * Why a public key may or may not be a member's or a client's key; stable codes.
 * `key-not-canonical`: y >= p, or x = 0 with the sign bit set (RFC 8032 section 5.1.3 refuses both).
 * `key-torsion`: on the curve, but outside the prime-order subgroup.
 */
export type KeyVerdict =
  | 'ok'
  | 'key-length'
  | 'key-not-canonical'
  | 'key-not-on-curve'
  | 'key-small-order'
  | 'key-torsion';

export interface Crypto {
  /** For logs and benches only; no behaviour may depend on it. */
  readonly name: string;
  /** 32 bytes. */
  sha256(bytes: Bytes): Bytes;
  /** 64 bytes. */
  sha512(bytes: Bytes): Bytes;
  /** The key half of the rule; remembered in a bounded cache, about a millisecond for a key not seen lately. */
  admitKey(publicKey: Bytes): KeyVerdict;
  /**
   * Ed25519 by the one rule of rule.ts, the key's admission included. Never throws, whatever the bytes.
   * @param publicKey 32 bytes, any other length is false
   * @param signature 64 bytes R || S, any other length is false
   */
  verify(publicKey: Bytes, message: Bytes, signature: Bytes): boolean;
}
