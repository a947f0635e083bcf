// Bundles on the wire: [client, session, sequence, validUntil, [transaction, ...]], signed as they are (bundle.ts).

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { HASH_BYTES, leafHash } from '../../crypto/merkle.ts';
import { assert } from '../assert.ts';
import type { Sha256 } from '../block.ts';
import type { Bundle, SignedBundle } from '../bundle.ts';
import type { Parameters } from '../genesis.ts';
import { asHash, asHeight, type Hash } from '../types.ts';
import { own, plain } from './bytes.ts';
import { arrayBytes, binBytes, Cursor, Scribe, uintBytes } from './cursor.ts';
import { isRefusal, refuse, type WireRefusal } from './refusal.ts';

/** What decoding needs to know of the chain. */
export interface WireContext {
  readonly sha256: Sha256;
  /** Of the epoch that the bytes claim to belong to: the limits. */
  readonly parameters: Parameters;
  /**
   * A bundle of this digest that was decoded before, such as a pooled one: its transactions and leaf hashes are used again. The
   * digest is computed from the bytes at hand first, so it is the same payload; the signature need not be the same.
   */
  readonly knownBundle?: ((digest: Hash) => SignedBundle | undefined) | undefined;
}

/** A bundle as it lies in a body or a frame. */
export interface BundleBytes {
  readonly payload: Bytes;
  readonly signature: Bytes;
}

/** Throws on what `decodeBundle` would refuse whatever the parameters: a client's own bug. */
export function encodeBundlePayload({ client, session, sequence, validUntil, transactions }: Bundle): Bytes {
  assert(client.length === 32, 'a public key of 32 bytes');
  assert(sequence >= 1, 'a session counts from 1');
  assert(
    transactions.length >= 1 && transactions.every(({ length }) => length >= 1),
    'at least one transaction, none empty',
  );
  let size = 1 + binBytes(32) + uintBytes(session) + uintBytes(sequence) + uintBytes(validUntil);
  size += arrayBytes(transactions.length);
  for (const transaction of transactions) size += binBytes(transaction.length);
  const scribe = new Scribe(size).array(5).bin(client).uint(session).uint(sequence).uint(validUntil);
  scribe.array(transactions.length);
  for (const transaction of transactions) scribe.bin(transaction);
  return scribe.done();
}

/** [WIRE-9] A bundle that owns its memory; its client's signature has not been checked. For pools, and for one bundle alone. */
export function decodeBundle({ payload, signature }: BundleBytes, context: WireContext): SignedBundle | WireRefusal {
  if (signature.length !== 64) return refuse('payload-malformed', 'bundle', 'signature');
  if (payload.length > context.parameters.bundleBytesMax) return refuse('bundle-too-large', 'bundle');
  return bundleOf({ payload: own(payload), signature: own(signature) }, asHash(context.sha256(payload)), context);
}

/** The bundle of these bytes, as views into them. `digest` is that of the payload. */
export function bundleOf(bytes: BundleBytes, digest: Hash, context: WireContext): SignedBundle | WireRefusal {
  const known = context.knownBundle?.(digest);
  if (known !== undefined)
    return equalBytes(known.signature, bytes.signature) ? known : { ...known, signature: bytes.signature };
  const payload = plain(bytes.payload);
  const bundle = parse(payload, context.parameters);
  if (isRefusal(bundle)) return bundle;
  const { client, session, sequence, validUntil, transactions } = bundle;
  const { sha256 } = context;
  let leaves: Bytes | null = null;
  // Field by field: measured, a spread of the bundle made the codec's own share of a block of 500 bundles six times as large.
  return {
    client,
    session,
    sequence,
    validUntil,
    transactions,
    payload,
    digest,
    signature: bytes.signature,
    // When a block has it: a bundle that is refused costs no hash of each of its transactions. Kept in one piece: bundles live for long, and an object
    // for each hash is most of what a collector would have to walk through.
    get leaves() {
      leaves ??= leafHashes(sha256, transactions);
      return hashesIn(leaves);
    },
  };
}

function leafHashes(sha256: Sha256, transactions: readonly Bytes[]): Bytes {
  const out = new Uint8Array(HASH_BYTES * transactions.length);
  for (const [i, transaction] of transactions.entries()) out.set(leafHash(sha256, transaction), HASH_BYTES * i);
  return out;
}

function hashesIn(bytes: Bytes): Bytes[] {
  const out: Bytes[] = [];
  for (let at = 0; at < bytes.length; at += HASH_BYTES) out.push(bytes.subarray(at, at + HASH_BYTES));
  return out;
}

function parse(payload: Bytes, { bundleTransactionsMax, transactionBytesMax }: Parameters): Bundle | WireRefusal {
  const cursor = new Cursor(payload);
  const fields = cursor.array();
  const client = cursor.bin();
  const session = cursor.uint();
  const sequence = cursor.uint();
  const validUntil = cursor.uint();
  const count = cursor.array();
  if (fields !== 5 || client === undefined || session < 0 || sequence < 0 || validUntil < 0 || count < 0)
    return refuse('payload-malformed', 'bundle', 'bundle');
  if (client.length !== 32) return refuse('field-out-of-range', 'bundle', 'client');
  if (sequence < 1) return refuse('field-out-of-range', 'bundle', 'sequence');
  if (count < 1 || count > bundleTransactionsMax) return refuse('field-out-of-range', 'bundle', 'transactions');
  const transactions: Bytes[] = [];
  for (let i = 0; i < count; i++) {
    const transaction = cursor.bin();
    if (transaction === undefined) return refuse('payload-malformed', 'bundle', 'transactions.transaction');
    if (transaction.length < 1 || transaction.length > transactionBytesMax)
      return refuse('field-out-of-range', 'bundle', 'transactions.transaction');
    transactions.push(transaction);
  }
  if (!cursor.done()) return refuse('payload-malformed', 'bundle', 'bundle');
  return { client, session, sequence, validUntil: asHeight(validUntil), transactions };
}
