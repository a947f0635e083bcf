// A small chain for the tests of the wire and of the verifiers: keys from fixed seeds, bundles, blocks, certificates.

import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { type Bytes, concat, fromHex } from '../crypto/bytes.ts';
import { Frontier, leafHash, merkleRoot, rangeProof } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import {
  type Block,
  type BlockHeader,
  blockHash,
  bodyHash,
  encodeHeader,
  logLeafData,
  memberSetHash,
} from '../protocol/block.ts';
import { bundleSigningBytes, type SignedBundle } from '../protocol/bundle.ts';
import { type Certificate, type VotePhase, voteSigningBytes } from '../protocol/certificate.ts';
import { checkpointSigningBytes } from '../protocol/checkpoint-note.ts';
import {
  decodeBundle,
  encodeBundlePayload,
  encodePayload,
  type Frame,
  type Message,
  type WireContext,
} from '../protocol/codec.ts';
import type { Explanation } from '../protocol/core.ts';
import type { BundleReceipt } from '../protocol/door.ts';
import type { Parameters } from '../protocol/genesis.ts';
import type {
  CheckpointCertificate,
  CheckpointPlace,
  ReplicaMessage,
  Signed,
  ViewChange,
} from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import {
  asEpoch,
  asHash,
  asHeight,
  asMillis,
  asReplicaId,
  asView,
  type Hash,
  type Member,
  type Millis,
  type ReplicaId,
} from '../protocol/types.ts';
import { signingBytes, type VerifyContext } from '../protocol/verify.ts';

export const sha256 = native.sha256;

export interface TestKey {
  readonly publicKey: Bytes;
  sign(message: Bytes): Bytes;
}

/** PKCS 8 in front of an Ed25519 seed (RFC 8410). */
const pkcs8 = fromHex('302e020100300506032b657004220420')!;

export function keyOf(seed: Bytes): TestKey {
  const key: KeyObject = createPrivateKey({ key: Buffer.from(concat(pkcs8, seed)), format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(spki.length - 32)),
    sign: (message) => new Uint8Array(sign(null, message, key)),
  };
}

/** 32 bytes of one value. */
export const filled = (value: number, length = 32): Uint8Array => new Uint8Array(length).fill(value);
export const hashOf = (value: number): Hash => asHash(filled(value));

export const parameters: Parameters = {
  blockBytesMax: 524_288,
  blockBundlesMax: 1024,
  bundleBytesMax: 262_144,
  bundleTransactionsMax: 1024,
  transactionBytesMax: 131_072,
  window: 8,
  checkpointInterval: 64,
  validUntilHorizon: 100_000,
  timeDriftMsMax: 10_000,
  viewTimeoutMs: 500,
  heartbeatMs: 100,
  leaseMs: 0,
  retainBlocksMin: 0,
  clientPoolPercent: 50,
};

/** Bytes 00 01 ... 1f. */
export const chainId = asHash(Uint8Array.from({ length: 32 }, (_, i) => i));
export const epoch = asEpoch(0);
/** Seeds of 32 times 01, 02, 03, 04. */
export const replicas: readonly TestKey[] = [1, 2, 3, 4].map((value) => keyOf(filled(value)));
export const members: readonly Member[] = replicas.map(({ publicKey }, i) => ({
  id: asReplicaId(i),
  name: `replica-${i}`,
  publicKey,
}));
/** Seed of 32 times 65. */
export const client = keyOf(filled(0x65));
export const { quorum } = byzantineQuorums(4);
export const wire: WireContext = { sha256, parameters };
export const genesis = { chainId, members };
export const verifyContext: VerifyContext = { crypto: native, chainId, epoch, members, quorum, parameters };

export const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** The value, or a failure of the test that called. */
export function must<T extends object>(value: T): Exclude<T, { readonly refused: string }> {
  if ('refused' in value) throw new Error(`refused: ${JSON.stringify(value)}`);
  return value as Exclude<T, { readonly refused: string }>;
}

export function bundle(sequence: number, transactions: readonly Bytes[], key: TestKey = client): SignedBundle {
  const payload = encodeBundlePayload({
    client: key.publicKey,
    session: 2 ** 40 + 7,
    sequence,
    validUntil: asHeight(1000),
    transactions,
  });
  const signature = key.sign(bundleSigningBytes(chainId, asHash(sha256(payload))));
  return must(decodeBundle({ payload, signature }, wire));
}

/** A block at `height` on `parent`, with a log tree over made-up leaves below. */
export function block(
  bundles: readonly SignedBundle[],
  {
    height = 1,
    parent = hashOf(9),
    ...changes
  }: Partial<{ -readonly [K in keyof BlockHeader]: BlockHeader[K] | number }> = {},
): Block {
  const leaves = bundles.flatMap((each) => each.leaves);
  const fields = {
    chainId,
    epoch,
    height: asHeight(Number(height)),
    parent: asHash(parent as Hash),
    time: asMillis(1_700_000_000_000 + Number(height)),
    proposer: asReplicaId(Number(height) % 4),
    transactionRoot: asHash(merkleRoot(sha256, leaves)),
    transactionTotal: 1000 + leaves.length,
    memberSetHash: memberSetHash(sha256, epoch, members),
    bodyHash: bodyHash(sha256, bundles),
    bundleCount: bundles.length,
    transactionCount: leaves.length,
    payloadBytes: bundles.reduce((sum, { payload }) => sum + payload.length, 0),
  };
  const log = Frontier.empty(sha256);
  for (let i = 1; i < Number(height); i++) log.append(leafHash(sha256, Uint8Array.of(i)));
  log.append(leafHash(sha256, logLeafData(fields)));
  const header = { ...fields, logRoot: asHash(log.root()), ...changes } as BlockHeader;
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(sha256, headerBytes), bundles };
}

/** Blocks from height 1 on, each with one bundle of `transactions` transactions. */
export function chain(length: number, transactions = 3): Block[] {
  const blocks: Block[] = [];
  for (let height = 1; height <= length; height++) {
    const list = Array.from({ length: transactions }, (_, i) => text(`transaction ${height}.${i}`));
    const parent = blocks.at(-1)?.hash ?? hashOf(9);
    blocks.push(block([bundle(height, list)], { height, parent }));
  }
  return blocks;
}

export function certificate(
  of: Block,
  phase: VotePhase = 'commit',
  view = 0,
  signers: readonly number[] = [0, 1, 3],
): Certificate {
  const place = { phase, epoch: of.header.epoch, view: asView(view), height: of.header.height, hash: of.hash };
  const message = voteSigningBytes(chainId, place);
  return {
    ...place,
    signatures: signers.map((i) => ({ replica: asReplicaId(i), signature: replicas[i]!.sign(message) })),
  };
}

export function placeOf({ header, hash }: Block): CheckpointPlace {
  const { height, logRoot } = header;
  return { epoch, height, hash, logRoot, memberSetHash: header.memberSetHash, stateDigest: hashOf(0x5d) };
}

export function checkpoint(of: Block, signers: readonly number[] = [0, 1, 3]): CheckpointCertificate {
  const place = placeOf(of);
  const message = checkpointSigningBytes(chainId, place);
  return {
    ...place,
    signatures: signers.map((i) => ({ replica: asReplicaId(i), signature: replicas[i]!.sign(message) })),
  };
}

/** The message as that replica sends it. */
export function signed<M extends ReplicaMessage>(message: M, sender = 0): Signed<M> {
  const payload = encodePayload(message);
  const signature = replicas[sender]!.sign(signingBytes(chainId, message, payload));
  return { sender: asReplicaId(sender), message, payload, signature };
}

export function frameOf(message: Message, key: TestKey = replicas[0]!): Frame {
  const payload = encodePayload(message);
  const signature =
    message.kind === 'submit' ? message.bundle.signature : key.sign(signingBytes(chainId, message, payload));
  return { kind: message.kind, payload, sender: key.publicKey, signature };
}

export function viewChange(view: number, sender: number, of: Block | null): Signed<ViewChange> {
  return signed(
    {
      kind: 'view-change',
      epoch,
      view: asView(view),
      commit: of && certificate(of),
      prepared: of && certificate(of, 'prepare'),
    },
    sender,
  );
}

/** The receipt of one bundle of a block, under the certificate of the last of `above`, or its own. */
export function receipt(of: Block, index: number, above: readonly Block[] = []): BundleReceipt {
  const leaves = of.bundles.flatMap((each) => each.leaves);
  const chosen = of.bundles[index]!;
  const first = of.bundles.slice(0, index).reduce((sum, each) => sum + each.leaves.length, 0);
  return {
    digest: chosen.digest,
    headerBytes: of.headerBytes,
    links: above.map(({ headerBytes }) => headerBytes),
    certificate: certificate(above.at(-1) ?? of),
    firstTransaction: first,
    transactionCount: chosen.leaves.length,
    proof: rangeProof(sha256, leaves, first, first + chosen.leaves.length),
  };
}

/** What a replica of four says of itself when nothing is the matter. */
export function calm(self: ReplicaId, at: Millis = asMillis(1)): Explanation {
  return {
    at,
    epoch,
    view: asView(0),
    primary: asReplicaId(0),
    self,
    phase: 'idle',
    height: asHeight(0),
    hash: hashOf(9),
    stable: asHeight(0),
    highestSeen: asHeight(0),
    pool: { bundles: 0, bytes: 0 },
    inFlight: 0,
    waits: [],
    viewChanges: 0,
    timeoutMs: 500,
    baseTimeoutMs: 500,
    quorum,
    window: parameters.window,
    catchUp: null,
    clock: null,
    pace: { percent: 100, lateMs: 0, lateMsMax: 1_000, allowedMs: 25, roundMs: 10, owedSince: null },
    stalls: { ms: 0, msMax: 1_000, loop: null, disk: null, loopMs: 0, diskMs: 0 },
    peers: members
      .filter(({ id }) => id !== self)
      .map(({ id }) => ({
        replica: id,
        connected: true,
        height: asHeight(0),
        view: asView(0),
        heardAt: at,
        heard: 'status',
      })),
  };
}
