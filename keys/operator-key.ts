// What an operator signs with, and what a replica's key signs before it is a member. Neither needs a guard: a control transaction says which
// epoch it ends and can end it once, and two of them are two offers of which the chain takes one at most (EPO-2).

import type { Bytes } from '../crypto/bytes.ts';
import { controlSigningBytes, joinSigningBytes } from '../protocol/epoch/control.ts';
import type { Hash, Height } from '../protocol/types.ts';
import { type SecretKey, signBytes } from './keypair.ts';

export interface OperatorSigner {
  /** 32 bytes. */
  readonly publicKey: Bytes;
  /** The digest of a control body's payload; 64 bytes. */
  signControl(digest: Hash): Bytes;
}

/** [KEY-5] An operator's key signs changes of one chain's epochs, and nothing in the layout of a vote, a bundle or a frame. */
export function operatorSigner(secret: SecretKey, chainId: Hash): OperatorSigner {
  return {
    publicKey: secret.publicKey,
    signControl: (digest) => signBytes(secret, controlSigningBytes(chainId, digest)),
  };
}

/** [KEY-5] A replica's key signs that it is there, and how far its replica has come: 64 bytes. */
export function signJoin(secret: SecretKey, { chainId, digest, height }: JoinStatement): Bytes {
  return signBytes(secret, joinSigningBytes(chainId, digest, height));
}

export interface JoinStatement {
  readonly chainId: Hash;
  /** Of the control body's payload. */
  readonly digest: Hash;
  readonly height: Height;
}
