// Rule (b) of rule.ts: may these bytes be a public key at all? Portable, and shared by both implementations, so that
// they cannot differ on it.

import { Point } from '@noble/ed25519';
import { type Bytes, toHex } from './bytes.ts';
import { BoundedCache } from './cache.ts';
import type { KeyVerdict } from './provider.ts';
import { isCanonical, isSmallOrder, PUBLIC_KEY_BYTES } from './rule.ts';

/** About 200 bytes each. Refused keys are remembered too: a refusal may cost as much as an admission. */
const verdictsMax = 16_384;
const verdicts = new BoundedCache<KeyVerdict>(verdictsMax);

/** The whole of rule (b), remembered. The subgroup test makes the first answer for a key cost about a millisecond. */
export function admitKey(publicKey: Bytes): KeyVerdict {
  // Before the cache, whose key would otherwise be as long as the sender likes.
  if (publicKey.length !== PUBLIC_KEY_BYTES) return 'key-length';
  const id = toHex(publicKey);
  const known = verdicts.get(id);
  if (known !== undefined) return known;
  const point = decodeKey(publicKey);
  const verdict = typeof point === 'string' ? point : point.isTorsionFree() ? 'ok' : 'key-torsion';
  verdicts.set(id, verdict);
  return verdict;
}

/** Rule (b) but for the subgroup test: the point, or why there is none. */
export function decodeKey(publicKey: Bytes): Point | Exclude<KeyVerdict, 'ok' | 'key-torsion'> {
  if (publicKey.length !== PUBLIC_KEY_BYTES) return 'key-length';
  if (!isCanonical(publicKey)) return 'key-not-canonical';
  // Sound on canonical encodings only, hence after the line above.
  if (isSmallOrder(publicKey)) return 'key-small-order';
  try {
    return Point.fromBytes(publicKey);
  } catch {
    // Canonical by now, so the only reason left is that x has no square root.
    return 'key-not-on-curve';
  }
}
