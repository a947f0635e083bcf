// A signed bundle on its way: its bytes, to whom they went, and who says that it can never be ordered.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import {
  decodeFrame,
  decodeMessage,
  encodeBundlePayload,
  encodeFrame,
  isRefusal,
  type WireContext,
} from '../protocol/codec.ts';
import { asHash, type Hash, type Height, type ReplicaId } from '../protocol/types.ts';
import type { Batch } from './queue.ts';

/** Why a bundle can never be ordered; `outcome-unknown`: nobody can tell any more whether it was. */
export type DoubtCode = 'expired' | 'sequence-passed' | 'bundle-invalid' | 'outcome-unknown';

/** One replica's claim that a bundle can never be ordered, and what it has shown since. */
export interface Doubt {
  code: Exclude<DoubtCode, 'outcome-unknown'>;
  /** Where it was, by its own word, when it made the claim. */
  height: Height;
  /** From when on it may be asked, on the client's clock. */
  askAt: number;
  /** By its answer to a question; null: nothing yet. */
  verdict: DoubtCode | null;
}

export interface InFlight {
  readonly batch: Batch;
  readonly session: number;
  readonly sequence: number;
  readonly validUntil: Height;
  /** The head that was known: it stands in no block up to this height. */
  readonly signedAt: Height;
  readonly digest: Hash;
  readonly key: string;
  /** The whole frame: sent again as it is. */
  readonly frame: Bytes;
  /** Connections on which it went out and was not refused since. As many as there are replicas, at most. */
  sentOn: number[];
  /** Null as long as nobody doubts; at most one for each replica. */
  doubts: Map<ReplicaId, Doubt> | null;
}

export interface SignRequest {
  readonly batch: Batch;
  readonly session: number;
  readonly sequence: number;
  readonly validUntil: Height;
  /** The head that was known: it stands in no block up to this height. */
  readonly signedAt: Height;
}

/** Encodes, hashes and signs. One signature and one hash of the payload. */
export function signBundle(
  { batch, session, sequence, validUntil, signedAt }: SignRequest,
  signer: ClientSigner,
  { sha256 }: Crypto,
): InFlight {
  const { transactions } = batch;
  const client = signer.publicKey;
  const payload = encodeBundlePayload({ client, session, sequence, validUntil, transactions });
  const digest = asHash(sha256(payload));
  const frame = encodeFrame({ kind: 'submit', payload, sender: client, signature: signer.signBundle(digest) });
  return {
    batch,
    session,
    sequence,
    validUntil,
    signedAt,
    digest,
    key: keyOf(digest),
    frame,
    sentOn: [],
    doubts: null,
  };
}

/** The transactions as they were signed, out of the frame: the caller may have changed its own bytes since. */
export function signedTransactions({ frame }: InFlight, context: WireContext): readonly Bytes[] {
  const decoded = decodeFrame(frame);
  if (isRefusal(decoded)) return [];
  const message = decodeMessage(decoded, context);
  return !isRefusal(message) && message.kind === 'submit' ? message.bundle.transactions : [];
}

/** A digest as a map key: one character for each byte, a tenth of the price of hex. */
export function keyOf(digest: Bytes): string {
  return String.fromCharCode(...digest);
}
