// The reference implementation, for browsers, verifiers and the simulator: @noble/ed25519's points, @noble/hashes.
// Verification follows rule.ts, whose letters stand beside the code; noble's own `verify` is cofactored, another rule.

import { Point } from '@noble/ed25519';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { admitKey, decodeKey } from './admission.ts';
import { type Bytes, concat, equalBytes, toHex } from './bytes.ts';
import { BoundedCache } from './cache.ts';
import type { Crypto } from './provider.ts';
import { isSmallOrder, lengthsHold, scalarHolds } from './rule.ts';

const L = Point.CURVE().n;

/** -A of keys that passed admission; about 500 bytes each. */
const negatedKeysMax = 1024;
const negatedKeys = new BoundedCache<Point>(negatedKeysMax);

export const portable: Crypto = { name: 'portable', sha256, sha512, admitKey, verify };

function verify(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
  if (!lengthsHold(publicKey, signature)) return false; // (a)
  if (!scalarHolds(signature)) return false; // (c)
  if (isSmallOrder(signature)) return false; // (d)
  const id = toHex(publicKey);
  const known = negatedKeys.get(id);
  if (known !== undefined) return equationHolds(known, publicKey, message, signature);
  const point = decodeKey(publicKey);
  if (typeof point === 'string') return false; // (b), the cheap part
  const negated = point.negate();
  // The subgroup test comes last: who cannot sign cannot make us pay for it, nor crowd the caches.
  if (!equationHolds(negated, publicKey, message, signature)) return false;
  if (admitKey(publicKey) !== 'ok') return false; // (b)
  negatedKeys.set(id, negated);
  return true;
}

/** (e): enc(S*B - k*A) = R, k = SHA-512(R || A || M) mod L. */
function equationHolds(minusA: Point, publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
  const R = signature.subarray(0, 32);
  const S = littleEndian(signature.subarray(32));
  const k = littleEndian(sha512(concat(R, publicKey, message))) % L;
  // multiplyUnsafe: not constant-time, faster, and accepts 0; everything here is public.
  const sum = Point.BASE.multiplyUnsafe(S).add(minusA.multiplyUnsafe(k));
  return equalBytes(sum.toBytes(), R);
}

function littleEndian(bytes: Bytes): bigint {
  return BigInt(`0x${toHex(Uint8Array.from(bytes).reverse())}`);
}
