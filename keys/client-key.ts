// What a client signs with. It needs no guard: a client's signature binds nobody but the client. Two different bundles under
// one session and sequence are two offers of which the chain takes one (SES-1); no quorum counts them, and no replica's
// safety rests on a client's memory. A replica's vote is the opposite, which is why it passes guard.ts.

import type { Bytes } from '../crypto/bytes.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import type { Hash } from '../protocol/types.ts';
import { frameSigningBytes } from '../protocol/wire/frame.ts';
import { type SecretKey, signBytes } from './keypair.ts';
import { type FrameSigningBytes, statementBytes } from './statement.ts';

export interface ClientSigner {
  /** 32 bytes. */
  readonly publicKey: Bytes;
  /** 64 bytes, over the layout of protocol/bundle.ts. */
  signBundle(digest: Hash): Bytes;
  /**
   * For the client's handshake and requests; 64 bytes.
   * @throws GuardRefusal guard-binding-kind, guard-unknown-kind
   */
  signStatement(kind: string, payload: Bytes): Bytes;
}

/** [KEY-4] A client's key signs bundles and statements of one chain, and nothing in the layout of a vote. */
export function clientSigner(secret: SecretKey, chainId: Hash): ClientSigner {
  const frameBytes: FrameSigningBytes = (kind, payload) => frameSigningBytes(chainId, kind, payload);
  return {
    publicKey: secret.publicKey,
    signBundle: (digest) => signBytes(secret, bundleSigningBytes(chainId, digest)),
    signStatement: (kind, payload) => signBytes(secret, statementBytes(frameBytes, kind, payload)),
  };
}
