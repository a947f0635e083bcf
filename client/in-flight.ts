// A signed bundle on its way: its bytes, to whom they went, and who says that it can never be ordered.

import type { Bytes } from '../crypto/bytes.ts';
import { leafHash } from '../crypto/merkle.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import { encodeBundlePayload, encodeFrame } from '../protocol/codec.ts';
import { asHash, type Hash, type Height, type ReplicaId } from '../protocol/types.ts';
import type { Batch } from './queue.ts';

/** What a replica gives as the reason why a bundle can never be ordered. */
export type DoubtCode = 'expired' | 'sequence-passed' | 'bundle-invalid';

/** One replica's claim that a bundle can never be ordered, and whether it holds no receipt for it either. */
export interface Doubt {
  readonly code: DoubtCode;
  readonly since: number;
  /** It was asked some time after the claim, and knows of no receipt. */
  denied: boolean;
}

export interface InFlight {
  readonly batch: Batch;
  readonly session: number;
  readonly sequence: number;
  readonly validUntil: Height;
  readonly digest: Hash;
  readonly key: string;
  /** The whole frame: sent again as it is. */
  readonly frame: Bytes;
  /** RFC 6962 leaf hashes, for the receipt. */
  readonly leaves: readonly Bytes[];
  /** Connections on which it went out and was not refused since. Few: see targets of pipeline.ts. */
  sentOn: number[];
  /** Null as long as nobody doubts; at most one for each replica. */
  doubts: Map<ReplicaId, Doubt> | null;
}

export interface SignRequest {
  readonly batch: Batch;
  readonly session: number;
  readonly sequence: number;
  readonly validUntil: Height;
}

/** Encodes, hashes and signs. One signature, one hash of the payload, and a leaf hash for each transaction. */
export function signBundle(
  { batch, session, sequence, validUntil }: SignRequest,
  signer: ClientSigner,
  { sha256 }: Crypto,
): InFlight {
  const { transactions } = batch;
  const client = signer.publicKey;
  const payload = encodeBundlePayload({ client, session, sequence, validUntil, transactions });
  const digest = asHash(sha256(payload));
  const frame = encodeFrame({ kind: 'submit', payload, sender: client, signature: signer.signBundle(digest) });
  const leaves = transactions.map((transaction) => leafHash(sha256, transaction));
  return { batch, session, sequence, validUntil, digest, key: keyOf(digest), frame, leaves, sentOn: [], doubts: null };
}

/** A digest as a map key: one character for each byte, a tenth of the price of hex. */
export function keyOf(digest: Bytes): string {
  return String.fromCharCode(...digest);
}
