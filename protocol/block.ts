// Blocks: a fixed-layout header and a body of bundles. The header commits to everything: the body by its hash, the
// transactions by an RFC 6962 root, the whole history by the parent hash and by the root of the log tree.
// A block looks the same whichever protocol decided it (blueprint, section 4).

import type { Bytes } from '../crypto/bytes.ts';
import type { SignedBundle } from './bundle.ts';
import { domainTag, LayoutReader, LayoutWriter } from './layout.ts';
import type { Epoch, Hash, Height, Member, Millis, ReplicaId } from './types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId } from './types.ts';

export type Sha256 = (bytes: Bytes) => Bytes;

export interface BlockHeader {
  /** SHA-256 of the genesis document: which history this block belongs to. */
  readonly chainId: Hash;
  readonly epoch: Epoch;
  readonly height: Height;
  /** Hash of the block at height - 1. */
  readonly parent: Hash;
  /** The proposer's clock; never below the parent's, never far from a voter's own clock (BLK-4). */
  readonly time: Millis;
  readonly proposer: ReplicaId;
  /** RFC 6962 root over the transactions of this block, in order; over nothing for the genesis block. */
  readonly transactionRoot: Hash;
  /**
   * RFC 6962 root over one leaf per block, this one included: the log tree. Its size is the height. One leaf per block, and
   * not per transaction, so that a block costs O(log height) hashes here, whatever it carries.
   */
  readonly logRoot: Hash;
  /** Transactions in the whole log, this block's included. */
  readonly transactionTotal: number;
  readonly memberSetHash: Hash;
  /** SHA-256 over the digests and signatures of the bundles (BLK-5). */
  readonly bodyHash: Hash;
  readonly bundleCount: number;
  readonly transactionCount: number;
  /** Sum of the payload bytes of the bundles. */
  readonly payloadBytes: number;
}

/** What a header says of its body. */
export type BodyMarks = Pick<
  BlockHeader,
  'transactionRoot' | 'bodyHash' | 'bundleCount' | 'transactionCount' | 'payloadBytes'
>;

/** A header as it travels and is stored: 256 bytes, tag included. */
export const HEADER_BYTES = 16 + 32 + 8 + 8 + 32 + 8 + 4 + 32 + 32 + 8 + 32 + 32 + 4 + 4 + 4;

export interface Block {
  readonly header: BlockHeader;
  /** The layout bytes of the header; `hash` is their SHA-256. */
  readonly headerBytes: Bytes;
  readonly hash: Hash;
  readonly bundles: readonly SignedBundle[];
}

const headerTag = domainTag('synod-v1:header');
const bodyTag = domainTag('synod-v1:body');
const membersTag = domainTag('synod-v1:members');
const logLeafTag = domainTag('synod-v1:log');

export function encodeHeader(header: BlockHeader): Bytes {
  return new LayoutWriter(HEADER_BYTES)
    .bytes(headerTag, 16)
    .bytes(header.chainId, 32)
    .u64(header.epoch)
    .u64(header.height)
    .bytes(header.parent, 32)
    .u64(header.time)
    .u32(header.proposer)
    .bytes(header.transactionRoot, 32)
    .bytes(header.logRoot, 32)
    .u64(header.transactionTotal)
    .bytes(header.memberSetHash, 32)
    .bytes(header.bodyHash, 32)
    .u32(header.bundleCount)
    .u32(header.transactionCount)
    .u32(header.payloadBytes)
    .done();
}

/** The header in these bytes, or undefined: length, tag and the range of every integer are checked, nothing else. */
export function decodeHeader(bytes: Bytes): BlockHeader | undefined {
  if (bytes.length !== HEADER_BYTES) return undefined;
  for (let i = 0; i < 16; i++) if (bytes[i] !== headerTag[i]) return undefined;
  const reader = new LayoutReader(bytes);
  reader.bytes(16);
  const header: BlockHeader = {
    chainId: asHash(reader.bytes(32)),
    epoch: asEpoch(reader.u64()),
    height: asHeight(reader.u64()),
    parent: asHash(reader.bytes(32)),
    time: asMillis(reader.u64()),
    proposer: asReplicaId(reader.u32()),
    transactionRoot: asHash(reader.bytes(32)),
    logRoot: asHash(reader.bytes(32)),
    transactionTotal: reader.u64(),
    memberSetHash: asHash(reader.bytes(32)),
    bodyHash: asHash(reader.bytes(32)),
    bundleCount: reader.u32(),
    transactionCount: reader.u32(),
    payloadBytes: reader.u32(),
  };
  const integers = [header.epoch, header.height, header.time, header.transactionTotal];
  return integers.every(Number.isSafeInteger) ? header : undefined;
}

/** [BLK-1] The hash of a block is the SHA-256 of its header's layout. */
export function blockHash(sha256: Sha256, headerBytes: Bytes): Hash {
  return asHash(sha256(headerBytes));
}

/** [BLK-5] What a header says of its body: each bundle's digest and signature, in order. */
export function bodyHash(sha256: Sha256, bundles: readonly Pick<SignedBundle, 'digest' | 'signature'>[]): Hash {
  const layout = new LayoutWriter(16 + bundles.length * 96).bytes(bodyTag, 16);
  for (const bundle of bundles) layout.bytes(bundle.digest, 32).bytes(bundle.signature, 64);
  return asHash(sha256(layout.done()));
}

/** Which keys may sign blocks of this epoch. */
export function memberSetHash(sha256: Sha256, epoch: Epoch, members: readonly Member[]): Hash {
  const layout = new LayoutWriter(16 + 8 + 4 + members.length * 32)
    .bytes(membersTag, 16)
    .u64(epoch)
    .u32(members.length);
  for (const member of members) layout.bytes(member.publicKey, 32);
  return asHash(sha256(layout.done()));
}

/**
 * The data of a block's leaf in the log tree. It names what a reader of the log wants to prove (height, time, transactions) and
 * cannot name the block's own hash, since the header carries the root that includes this leaf.
 */
export function logLeafData(header: Omit<BlockHeader, 'logRoot'>): Bytes {
  return new LayoutWriter(16 + 8 + 32 + 8 + 32 + 32 + 8)
    .bytes(logLeafTag, 16)
    .u64(header.height)
    .bytes(header.parent, 32)
    .u64(header.time)
    .bytes(header.transactionRoot, 32)
    .bytes(header.bodyHash, 32)
    .u64(header.transactionTotal)
    .done();
}
