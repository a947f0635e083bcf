// The one rule by which this project accepts an Ed25519 signature, and the parts of it that need no curve arithmetic.
//
// RFC 8032 section 5.1.7 leaves verifiers room: cofactored or cofactorless equation, non-canonical encodings, keys and
// R of small order. Libraries use that room differently (Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs",
// eprint 2020/1244), so a Byzantine replica could craft a signature that half of the cluster accepts, and split a
// certificate. Therefore one rule, the same on every replica, with no option and no per-host choice:
//
//   (a) the public key A has exactly 32 bytes and the signature R || S exactly 64;
//   (b) A is a canonical encoding of a point on the curve, not of small order, and in the prime-order subgroup;
//       decided at key admission, once per key, and cached;
//   (c) S < L, as a little-endian integer, L = 2^252 + 27742317777372353535851937790883648493;
//   (d) R is none of the 8 canonical encodings of the points of small order;
//   (e) cofactorless: enc(S*B - k*A) equals the 32 bytes of R, k = SHA-512(R || A || M) mod L over the raw bytes.
//
// What follows from it:
// - With (b), S*B - k*A lies in the prime-order subgroup, so (e) holds only for an R in that subgroup, where the
//   cofactored and the cofactorless equation agree: nothing is left for implementations to differ on.
// - (e) compares bytes, enc() is canonical, so a non-canonical R never passes and needs no test of its own.
// - (d) costs 8 comparisons and refuses what (e) would still let pass: R the identity, which needs S = k*a mod L, a
//   signature that only the key's owner can make, and that he can make without binding himself to a nonce.
// - (c) makes a signature non-malleable: S + L is refused. One message has still many signatures by its own signer.
// - The rule accepts what RFC 8032 section 5.1.6 makes with an honestly generated key (but for a nonce of 0 mod L,
//   one chance in 2^252).
// - Batch verification is cofactored, hence another rule: never use it.
//
// The parts may be evaluated in any order, since a signature is accepted only if all hold.

import { type Bytes, fromHex } from './bytes.ts';

export const PUBLIC_KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;

/** Rule (a). */
export function lengthsHold(publicKey: Bytes, signature: Bytes): boolean {
  return publicKey.length === PUBLIC_KEY_BYTES && signature.length === SIGNATURE_BYTES;
}

/** L, the order of the base point, little-endian (RFC 8032 section 5.1). */
const ORDER = constant('edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010');

/** Rule (c) for a signature of 64 bytes. */
export function scalarHolds(signature: Bytes): boolean {
  for (let i = 31; i >= 0; i--) {
    const s = signature[32 + i]!;
    const l = ORDER[i]!;
    if (s !== l) return s < l;
  }
  return false;
}

/** The canonical encodings of the 8 points whose order divides 8: orders 1, 2, 4, 4, 8, 8, 8, 8. */
const SMALL_ORDER: readonly Bytes[] = [
  constant('0100000000000000000000000000000000000000000000000000000000000000'),
  constant('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
  constant('0000000000000000000000000000000000000000000000000000000000000000'),
  constant('0000000000000000000000000000000000000000000000000000000000000080'),
  constant('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'),
  constant('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85'),
  constant('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'),
  constant('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa'),
];

/**
 * Rule (d), and the small-order part of (b): is this the canonical encoding of a point of small order?
 * @param bytes a point of 32 bytes, or a signature, whose first 32 bytes are R
 */
export function isSmallOrder(bytes: Bytes): boolean {
  return SMALL_ORDER.some((encoding) => {
    for (let i = 0; i < 32; i++) if (bytes[i] !== encoding[i]) return false;
    return true;
  });
}

/** Is this the one encoding RFC 8032 section 5.1.3 allows for its point, if it is a point at all? */
export function isCanonical(point: Bytes): boolean {
  const sign = point[31]! >= 0x80;
  const top = point[31]! % 0x80;
  const first = point[0]!;
  const middle = (value: number) => point.every((byte, i) => i === 0 || i === 31 || byte === value);
  // y >= p = 2^255 - 19, which begins with ed.
  if (top === 0x7f && first >= 0xed && middle(0xff)) return false;
  // x = 0 only where y = 1 or y = p - 1; there is no negative zero.
  if (sign && top === 0 && first === 0x01 && middle(0x00)) return false;
  if (sign && top === 0x7f && first === 0xec && middle(0xff)) return false;
  return true;
}

function constant(hex: string): Bytes {
  const bytes = fromHex(hex);
  if (bytes?.length !== 32) throw new Error('rule: a constant of this file is not 32 bytes of hex');
  return bytes;
}
