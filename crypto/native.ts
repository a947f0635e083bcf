// The fast implementations: hashes on node:crypto, signatures checked by libsodium where it loads and else by node:crypto (OpenSSL). Same
// verdicts as portable.ts for every byte string: both libraries do (c) and (e) of rule.ts, the cofactorless equation included;
// (a), (b) and (d) are the shared code in front and behind.

import * as node from 'node:crypto';
import { admitKey } from './admission.ts';
import type { Bytes } from './bytes.ts';
import { BoundedCache } from './cache.ts';
import type { Crypto } from './provider.ts';
import { isSmallOrder, lengthsHold } from './rule.ts';
import { sodium } from './sodium.ts';

/** Keys that passed admission. A KeyObject holds memory outside the JavaScript heap, a few kilobytes. */
const keyObjectsMax = 8192;
const keyObjects = new BoundedCache<node.KeyObject>(keyObjectsMax);

const hashes = { sha256: hasher('sha256', 32), sha512: hasher('sha512', 64) };

/** On node:crypto alone. */
export const openssl: Crypto = { name: 'openssl', ...hashes, admitKey, verify: verifyByOpenssl };

/** The fastest there is here. */
export const native: Crypto =
  sodium === undefined ? openssl : { name: 'sodium', ...hashes, admitKey, verify: verifyBySodium };

function verifyBySodium(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
  if (!lengthsHold(publicKey, signature)) return false; // (a)
  if (isSmallOrder(signature)) return false; // (d)
  if (sodium?.crypto_sign_verify_detached(signature, message, publicKey) !== true) return false; // (c), (e)
  // Admission comes last: who cannot sign cannot make us pay for it, nor crowd the caches.
  return admitKey(publicKey) === 'ok'; // (b)
}

function verifyByOpenssl(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
  if (!lengthsHold(publicKey, signature)) return false; // (a)
  if (isSmallOrder(signature)) return false; // (d)
  const raw = Buffer.from(publicKey.buffer, publicKey.byteOffset, publicKey.length);
  const id = raw.toString('latin1');
  const known = keyObjects.get(id);
  if (known !== undefined) return node.verify(null, message, known, signature); // (c), (e)
  const key = importKey(raw);
  if (key === undefined) return false; // (b)
  // Last, as above.
  if (!node.verify(null, message, key, signature)) return false; // (c), (e)
  if (admitKey(publicKey) !== 'ok') return false; // (b)
  keyObjects.set(id, key);
  return true;
}

/** As a JWK: measured on Node 20.20, 5 us against 82 us as DER. */
function importKey(raw: Buffer): node.KeyObject | undefined {
  try {
    return node.createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') }, format: 'jwk' });
  } catch {
    // OpenSSL 3.0 takes any 32 bytes; another build may look at the point here, and verify must not throw.
    return undefined;
  }
}

function hasher(algorithm: 'sha256' | 'sha512', length: number): (bytes: Bytes) => Bytes {
  // One-shot hashing came with Node 20.12.
  if (typeof node.hash !== 'function') return (bytes) => node.createHash(algorithm).update(bytes).digest();
  return (bytes) => {
    // A latin-1 string is the cheapest way out of OpenSSL: on Node 20.20, 64 bytes in, this takes half the time of the
    // 'buffer' encoding, and the result lies on the JavaScript heap instead of pinning a slice of Buffer's pool.
    const digest = node.hash(algorithm, bytes, 'binary');
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) out[i] = digest.charCodeAt(i);
    return out;
  };
}
