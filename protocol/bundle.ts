// A bundle: one client's signed list of transactions, the unit of admission and of deduplication (blueprint, section 4).

import type { Bytes } from '../crypto/bytes.ts';
import { domainTag, LayoutWriter } from './layout.ts';
import type { Hash, Height } from './types.ts';

export interface Bundle {
  /** Ed25519 public key of the client, 32 bytes. */
  readonly client: Bytes;
  /** Chosen by the client; a client may run many sessions at once. An integer up to 2^53 - 1. */
  readonly session: number;
  /** 1 for the first bundle of a session, then one more each time: a client's order is kept (SES-1). */
  readonly sequence: number;
  /** The last height at which this bundle may stand in a block; refused for ever after (SES-2). */
  readonly validUntil: Height;
  /** Opaque bytes, at least one transaction. Views into `payload`. */
  readonly transactions: readonly Bytes[];
}

/** A bundle with the bytes that were signed. Nobody encodes a bundle again to check it. */
export interface SignedBundle extends Bundle {
  /** The MessagePack bytes as they came from the client (docs/wire.md). */
  readonly payload: Bytes;
  /** SHA-256 of the payload: the name of the bundle in indexes, pools and receipts. */
  readonly digest: Hash;
  /** Ed25519 signature of the client over `bundleSigningBytes`, 64 bytes. */
  readonly signature: Bytes;
  /** RFC 6962 leaf hashes of the transactions, computed once when the bundle is checked. */
  readonly leaves: readonly Bytes[];
}

const bundleTag = domainTag('synod-v1:bundle');

/** What a client signs: the domain, the chain and the digest of the payload. 80 bytes. */
export function bundleSigningBytes(chainId: Hash, digest: Hash): Bytes {
  return new LayoutWriter(80).bytes(bundleTag, 16).bytes(chainId, 32).bytes(digest, 32).done();
}
