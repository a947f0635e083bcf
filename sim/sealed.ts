// What the simulation knows of a message that one of its replicas signed. It stands beside the message, which goes by value from one core to the next:
// a core keeps what it was given, and its state is what is in that (FLR-1).

import type { Bytes } from '../crypto/bytes.ts';
import type { Signed } from '../protocol/messages.ts';

export interface Seal {
  /** The very object; another one with its signature may say anything. */
  readonly of: Signed<unknown>;
  /** The epoch of its signer: the sender's number is of that one. */
  readonly epoch: number;
  /** Made by whoever may make it, and with nothing inside to look at: whoever is in its epoch may believe it. */
  readonly trusted: boolean;
  /** The checks have seen it: a retransmission is the same object. */
  looked: boolean;
}

/** By signature, which stays the same wherever it is put. */
const seals = new WeakMap<Bytes, Seal>();

export function sealed<S extends Signed<unknown>>(of: S, { epoch, trusted }: Pick<Seal, 'epoch' | 'trusted'>): S {
  seals.set(of.signature, { of, epoch, trusted, looked: false });
  return of;
}

/** Undefined: it was read from bytes, or is not what was signed. */
export function sealOf(signed: Signed<unknown>): Seal | undefined {
  const seal = seals.get(signed.signature);
  return seal?.of === signed ? seal : undefined;
}

/** In which epoch it was signed; undefined: it was read from bytes. */
export const originOf = ({ signature }: Signed<unknown>): number | undefined => seals.get(signature)?.epoch;
