// Whose signatures the simulated replicas and clients give. Real ones are Ed25519. A stand-in is a SHA-256 over a secret of its key and the
// message: it binds the key to the bytes like a signature, nobody without the secret can make one, and it costs a fiftieth. Everything
// above is the same: the real verifier (protocol/verify.ts) checks both through the port of crypto/provider.ts.

import type { Bytes } from '../crypto/bytes.ts';
import { ascii, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { simulationKey } from '../keys/simulation-key.ts';

interface Registered {
  readonly real: SimulationKey;
  /** 32 bytes in front of what is signed. */
  readonly secret: Bytes;
}

const SECRET_BYTES = 32;
const SIGNATURE_BYTES = 64;

/** Names of clients and replicas in one process, at most: beyond it a simulation invents names without end, which is a bug of its own. */
const NAMES_MAX = 100_000;
const byName = new Map<string, Registered>();
const secretOf = new Map<string, Bytes>();

function registered(name: string): Registered {
  let found = byName.get(name);
  if (found === undefined) {
    if (byName.size >= NAMES_MAX) throw new Error('more names than a simulation should have');
    const real = simulationKey(name);
    found = { real, secret: native.sha256(ascii(`stand-in ${name}`)) };
    byName.set(name, found);
    secretOf.set(nameOf(real.publicKey), found.secret);
  }
  return found;
}

/** The real key of a name. */
export const keyPair = (name: string): SimulationKey => registered(name).real;

/** The same public key, which gives stand-ins. */
export function standInKey(name: string): SimulationKey {
  const { real, secret } = registered(name);
  return { publicKey: real.publicKey, sign: (bytes) => standIn(secret, bytes) };
}

/** Takes stand-ins of every key that was ever named here, and real signatures as well. */
export const standInCrypto: Crypto = {
  ...native,
  name: 'stand-in',
  verify: (publicKey, message, signature) => {
    const secret = secretFor(publicKey);
    if (signature.length !== SIGNATURE_BYTES) return false;
    return (
      (secret !== undefined && equalBytes(standIn(secret, message), signature)) ||
      native.verify(publicKey, message, signature)
    );
  },
};

/** Nearly always it is the very array that was seen before. */
const secretOfArray = new WeakMap<Bytes, Bytes>();

function secretFor(publicKey: Bytes): Bytes | undefined {
  let secret = secretOfArray.get(publicKey);
  if (secret !== undefined) return secret;
  secret = secretOf.get(nameOf(publicKey));
  if (secret !== undefined) secretOfArray.set(publicKey, secret);
  return secret;
}

/** Reused, since the hash keeps no reference to its input. */
let input = new Uint8Array(1024);

function standIn(secret: Bytes, bytes: Bytes): Bytes {
  const length = SECRET_BYTES + bytes.length;
  if (input.length < length) input = new Uint8Array(2 * length);
  input.set(secret);
  input.set(bytes, SECRET_BYTES);
  const digest = native.sha256(input.subarray(0, length));
  const signature = new Uint8Array(SIGNATURE_BYTES);
  signature.set(digest);
  signature.set(digest, 32);
  return signature;
}

const nameOf = (publicKey: Bytes): string => String.fromCharCode(...publicKey);

/** Kinds with nothing inside that would have to verify. */
export const PLAIN_KINDS: ReadonlySet<string> = new Set([
  'prepare',
  'commit',
  'status',
  'checkpoint',
  'state-chunk',
  'fetch-block',
  'fetch-blocks',
  'fetch-checkpoint',
  'fetch-state',
  'fetch-standing',
  'paxos-prepare',
  'promise',
  'accepted',
  'configure',
  'configured',
  'open-round',
  'fast-accepted',
  'reject',
  'take-over',
  'request-vote',
  'vote',
  'appended',
  'raft-reject',
  'timeout-now',
  'read-query',
  'read-reply',
]);
