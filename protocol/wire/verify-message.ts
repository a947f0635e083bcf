// What stands between a peer's frame and the core: the sender is a member, the signature is its own, and every certificate inside
// holds (WIRE-18 to WIRE-22). What depends on the state of the protocol is the core's to judge.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { blockHash, decodeHeader } from '../block.ts';
import { bundleSigningBytes, type SignedBundle } from '../bundle.ts';
import { type Certificate, type ProofPhase, voteSigningBytes } from '../certificate.ts';
import { checkpointSigningBytes } from '../checkpoint-note.ts';
import type { ClientMessage } from '../door.ts';
import { controlFlaw, decodeControl, isControl } from '../epoch/control.ts';
import type { EpochDocument } from '../epoch/document.ts';
import { storedParameters } from '../genesis.ts';
import {
  asVerified,
  type Blocks,
  type CheckpointProof,
  type NewView,
  type ReplicaMessage,
  type Signed,
  type Standing,
  type Verified,
  type ViewChange,
} from '../messages.ts';
import { bearsLies, proofOf } from '../modes.ts';
import type { Epoch, Hash, Member, ReplicaId } from '../types.ts';
import type { WireContext } from './bundle.ts';
import { own } from './bytes.ts';
import { type Frame, frameSigningBytes } from './frame.ts';
import { isClientKind, isKindOf, isReplicaKind } from './kinds.ts';
import { decodeMessage, type Message } from './payload.ts';
import { isRefusal } from './refusal.ts';
import { decodeReplicaPayload } from './replica-payloads.ts';
import { verifyOnce } from './seen.ts';
import { signedPart } from './signed-part.ts';
import {
  headerMarks,
  refuseVerify,
  type SignerSet,
  type VerifyRefusal,
  verifyCertificate,
  verifyCheckpoint,
  verifyMarks,
} from './verify-certificate.ts';

export interface VerifyContext extends SignerSet, Omit<WireContext, 'sha256'> {
  /** The block that the epoch starts from: its checkpoint is of this epoch, and its header of the one before (EPO-10). */
  readonly start?: EpochDocument['start'] | undefined;
  /** Whether this bundle, with this signature, was verified before: a pooled one need not be again. */
  readonly bundleVerified?: ((bundle: SignedBundle) => boolean) | undefined;
}

/** [WIRE-18] What the signature of a message covers. */
export function signingBytes(chainId: Hash, message: Message, payload: Bytes): Bytes {
  switch (message.kind) {
    case 'pre-prepare': {
      // The proposal is its primary's own prepare (PBFT): it goes into certificates as it is.
      const { header, hash } = message.block;
      const { epoch, height } = header;
      return voteSigningBytes(chainId, { phase: 'prepare', epoch, view: message.view, height, hash });
    }
    case 'prepare':
    case 'commit': {
      const { kind, epoch, view, height, hash } = message;
      return voteSigningBytes(chainId, { phase: kind, epoch, view, height, hash });
    }
    case 'checkpoint':
      return checkpointSigningBytes(chainId, message);
    case 'submit':
      return bundleSigningBytes(chainId, message.bundle.digest);
    default:
      return frameSigningBytes(chainId, message.kind, signedPart(message, payload));
  }
}

const ownedPayloadBytesMax = 16_384;

/** Decoded and attributed, not verified: enough for a core to say whether it wants it at all. */
export function openFrame(frame: Frame, context: VerifyContext): Signed<ReplicaMessage> | VerifyRefusal {
  const { kind, sender, signature } = frame;
  if (!isReplicaKind(kind)) return refuseVerify('kind-not-allowed', kind);
  if (!isKindOf(context.protocol, kind)) return refuseVerify('kind-not-allowed', kind);
  const member = memberOf(sender, context.members);
  if (member === undefined) return refuseVerify('sender-unknown', kind, 'sender');
  // Votes are kept for long, and a small frame is often a slice of a large piece of what the socket gave (WIRE-5).
  const payload = frame.payload.length <= ownedPayloadBytesMax ? own(frame.payload) : frame.payload;
  const message = decodeReplicaPayload(kind, payload, wireContext(context));
  if (isRefusal(message)) return message;
  return { sender: member, message, payload, signature: own(signature) };
}

/**
 * [EPO-13] The epoch of a frame that was refused under the members and the limits of the epoch at hand: of another one they are others, and who is in it
 * is no liar. Null: what a bundle or a block may hold depends on the epoch, and this kind does not name it. Undefined: malformed in every epoch,
 * or such that no epoch excuses it.
 */
export function epochOfFrame({ kind, payload, sender }: Frame, context: VerifyContext): Epoch | null | undefined {
  if (!isReplicaKind(kind)) return undefined;
  const parameters = storedParameters(context.parameters);
  const message = decodeReplicaPayload(kind, payload, { ...wireContext(context), parameters });
  if (isRefusal(message)) return undefined;
  if ('epoch' in message) return message.epoch;
  return message.kind === 'forward' && memberOf(sender, context.members) !== undefined ? null : undefined;
}

/** [WIRE-19] Everything that can be checked without the state of the protocol. The dear checks come last. */
export function verifyMessage(
  signed: Signed<ReplicaMessage>,
  context: VerifyContext,
  under: Bytes | undefined = context.members[signed.sender]?.publicKey,
): Verified<ReplicaMessage> | VerifyRefusal {
  const { sender, message, payload, signature } = signed;
  const member = context.members[sender];
  if (member === undefined || under === undefined) return refuseVerify('sender-unknown', message.kind, 'sender');
  const { crypto, seen, chainId } = context;
  if (!verifyOnce(crypto, seen, under, signingBytes(chainId, message, payload), signature))
    return refuseVerify('signature-invalid', message.kind, 'signature');
  const problem = verifyInside(message, context);
  return problem ?? asVerified(signed);
}

export function verifyFrame(frame: Frame, context: VerifyContext): Verified<ReplicaMessage> | VerifyRefusal {
  const signed = openFrame(frame, context);
  return isRefusal(signed) ? signed : verifyMessage(signed, context);
}

/** [WIRE-20] What a client sent: signed by the key it came under; a submit's key is the bundle's client. */
export function verifyClientFrame(frame: Frame, context: VerifyContext): ClientMessage | VerifyRefusal {
  const { kind, payload, sender, signature } = frame;
  if (!isClientKind(kind)) return refuseVerify('kind-not-allowed', kind);
  const message = decodeMessage(frame, wireContext(context));
  if (isRefusal(message)) return message;
  if (message.kind === 'submit') {
    if (!equalBytes(message.bundle.client, sender)) return refuseVerify('sender-unknown', kind, 'sender');
    return verifyBundle(message.bundle, context) ? message : refuseVerify('bundle-signature', kind, 'signature');
  }
  if (!context.crypto.verify(sender, frameSigningBytes(context.chainId, kind, payload), signature))
    return refuseVerify('signature-invalid', kind, 'signature');
  // The cast: the kind is a client's, so the decoder gave one of theirs.
  return message as ClientMessage;
}

/** [EPO-4] Whether the client signed this bundle for this chain; and, of a control transaction in it, whether every signature is valid. */
export function verifyBundle(
  bundle: SignedBundle,
  { crypto, chainId, bundleVerified, seen }: BundleVerification,
): boolean {
  if (bundleVerified?.(bundle)) return true;
  const message = bundleSigningBytes(chainId, bundle.digest);
  return verifyOnce(crypto, seen, bundle.client, message, bundle.signature) && isControlSound(bundle, crypto, chainId);
}

/** Of one that is malformed the ledger says so. */
export function isControlSound(
  { transactions }: Pick<SignedBundle, 'transactions'>,
  crypto: Crypto,
  chainId: Hash,
): boolean {
  return transactions.every((transaction) => {
    if (!isControl(transaction)) return true;
    const control = decodeControl(crypto.sha256, transaction);
    return 'refused' in control || controlFlaw(crypto, chainId, control) === null;
  });
}

export type BundleVerification = Pick<VerifyContext, 'crypto' | 'chainId' | 'bundleVerified' | 'seen'>;

function verifyInside(message: ReplicaMessage, context: VerifyContext): VerifyRefusal | null {
  switch (message.kind) {
    case 'forward':
      return verifyBundles(message.bundles, message.kind, context);
    case 'pre-prepare':
    case 'block-data':
      if (!equalBytes(message.block.header.chainId, context.chainId))
        return refuseVerify('chain-mismatch', message.kind, 'block.header.chainId');
      return verifyBundles(message.block.bundles, message.kind, context);
    case 'accept':
    case 'fast-accept': {
      const { header } = message.value;
      const isOwn = equalBytes(header.chainId, context.chainId) && header.epoch === context.epoch;
      return isOwn ? null : refuseVerify('chain-mismatch', message.kind, 'value.header.chainId');
    }
    case 'append-entries': {
      if (message.entry === null) return null;
      const { header } = message.entry.value;
      const isOwn = equalBytes(header.chainId, context.chainId) && header.epoch === message.epoch;
      return isOwn ? null : refuseVerify('chain-mismatch', message.kind, 'entry.value.header');
    }
    case 'blocks':
      return verifyBlocks(message, context);
    case 'checkpoint-proof':
      return verifyCheckpointProof(message, context);
    case 'view-change':
      return verifyViewChange(message, context);
    case 'new-view':
      return verifyNewView(message, context);
    case 'standing':
      return verifyStanding(message, context);
    default:
      return null;
  }
}

/** [WIRE-20] [CFT-W-2] Each is its client's; where members are trusted, one of them has checked that when it took the bundle in. */
function verifyBundles(
  bundles: readonly SignedBundle[],
  kind: 'forward' | 'pre-prepare' | 'block-data',
  context: VerifyContext,
): VerifyRefusal | null {
  if (!bearsLies(context.protocol)) return null; // CFT-W-2
  for (const bundle of bundles)
    if (!verifyBundle(bundle, context)) return refuseVerify('bundle-signature', kind, 'bundles.signature');
  return null;
}

/** A certificate of this phase that holds; null certificates are allowed where the message allows them. */
function verifyOf(phase: ProofPhase, certificate: Certificate | null, context: VerifyContext): VerifyRefusal | null {
  if (certificate === null) return null;
  if (certificate.phase !== phase) return refuseVerify('certificate-phase', 'certificate', 'phase');
  return verifyCertificate(certificate, context);
}

/**
 * [WIRE-21] One chain, rising by one, every block under a commit certificate of itself or of a later one. The bundles need no
 * check of their own: a quorum has voted for them.
 */
function verifyBlocks({ blocks, tail, kind }: Blocks, context: VerifyContext): VerifyRefusal | null {
  const marks = headerMarks(context);
  const { phase } = proofOf(context);
  let previous: { readonly height: number; readonly hash: Hash } | undefined;
  for (const { block, certificate } of blocks) {
    const { header, hash } = block;
    const foreign = verifyMarks(header, marks, kind, 'block.header');
    if (foreign !== null) return foreign;
    if (previous !== undefined && (header.height !== previous.height + 1 || !equalBytes(header.parent, previous.hash)))
      return refuseVerify('chain-broken', kind, 'block.header.parent');
    if (certificate !== null && (certificate.height !== header.height || !equalBytes(certificate.hash, hash)))
      return refuseVerify('certificate-place', kind, 'certificate');
    previous = { height: header.height, hash };
  }
  if (tail !== null) {
    for (const bytes of tail.links) {
      const header = decodeHeader(bytes);
      if (
        header === undefined ||
        previous === undefined ||
        header.height !== previous.height + 1 ||
        !equalBytes(header.parent, previous.hash)
      )
        return refuseVerify('chain-broken', kind, 'tail.links');
      const foreign = verifyMarks(header, marks, kind, 'tail.links');
      if (foreign !== null) return foreign;
      previous = { height: header.height, hash: blockHash(context.crypto.sha256, bytes) };
    }
    const { height, hash } = tail.certificate;
    if (previous === undefined || previous.height !== height || !equalBytes(previous.hash, hash))
      return refuseVerify('certificate-place', kind, 'tail.certificate');
    const problem = verifyOf(phase, tail.certificate, context);
    if (problem !== null) return { ...problem, kind };
  } else if (blocks.at(-1)?.certificate === null) return refuseVerify('chain-uncertified', kind, 'certificate');
  for (const { certificate } of blocks) {
    const problem = verifyOf(phase, certificate, context);
    if (problem !== null) return { ...problem, kind };
  }
  return null;
}

export function verifyCheckpointProof(
  { checkpoint, headerBytes, kind }: CheckpointProof,
  context: VerifyContext,
): VerifyRefusal | null {
  const header = decodeHeader(headerBytes);
  if (header === undefined) return refuseVerify('checkpoint-header', kind, 'headerBytes');
  const agrees =
    equalBytes(blockHash(context.crypto.sha256, headerBytes), checkpoint.hash) &&
    header.height === checkpoint.height &&
    (header.epoch === checkpoint.epoch ||
      (context.start !== undefined && equalBytes(context.start.hash, checkpoint.hash))) &&
    equalBytes(header.chainId, context.chainId) &&
    equalBytes(header.logRoot, checkpoint.logRoot);
  if (!agrees) return refuseVerify('checkpoint-header', kind, 'headerBytes');
  const problem = verifyCheckpoint(checkpoint, context);
  return problem && { ...problem, kind };
}

function verifyViewChange({ commit, prepared, epoch, kind }: ViewChange, context: VerifyContext): VerifyRefusal | null {
  if (epoch !== context.epoch) return refuseVerify('view-change-place', kind, 'epoch');
  const problem = verifyOf('commit', commit, context) ?? verifyOf('prepare', prepared, context);
  return problem && { ...problem, kind };
}

/** [WIRE-22] A quorum of view-changes for exactly this view, by distinct members, each signed and sound inside. */
function verifyNewView({ epoch, view, viewChanges, kind }: NewView, context: VerifyContext): VerifyRefusal | null {
  const senders = new Set<ReplicaId>();
  for (const { sender, message } of viewChanges) {
    if (message.epoch !== epoch || message.view !== view)
      return refuseVerify('view-change-place', kind, 'viewChanges.view');
    if (context.members[sender] === undefined) return refuseVerify('sender-unknown', kind, 'viewChanges.sender');
    if (senders.has(sender)) return refuseVerify('view-change-twice', kind, 'viewChanges.sender');
    senders.add(sender);
  }
  if (senders.size < context.quorum) return refuseVerify('new-view-below-quorum', kind, 'viewChanges');
  for (const viewChange of viewChanges) {
    const problem = verifySignedViewChange(viewChange, context);
    if (problem !== null) return { ...problem, kind, field: `viewChanges.${problem.field}` };
  }
  return null;
}

function verifySignedViewChange(
  { sender, message, payload, signature }: Signed<ViewChange>,
  context: VerifyContext,
): VerifyRefusal | null {
  const key = context.members[sender]!.publicKey;
  if (!verifyOnce(context.crypto, context.seen, key, signingBytes(context.chainId, message, payload), signature))
    return refuseVerify('view-change-signature', message.kind, 'signature');
  return verifyViewChange(message, context);
}

/** [WIRE-29] Every certificate that is there holds and has its phase; the view-change is of a member, signed and sound inside. */
function verifyStanding(
  { epoch, commit, prepared, stable, asked, kind }: Standing,
  context: VerifyContext,
): VerifyRefusal | null {
  const inside =
    verifyOf('commit', commit, context) ??
    verifyOf('prepare', prepared, context) ??
    (stable === null ? null : verifyCheckpoint(stable, context));
  if (inside !== null) return { ...inside, kind };
  if (asked === null) return null;
  if (asked.message.epoch !== epoch) return refuseVerify('view-change-place', kind, 'asked.epoch');
  if (context.members[asked.sender] === undefined) return refuseVerify('sender-unknown', kind, 'asked.sender');
  const problem = verifySignedViewChange(asked, context);
  return problem && { ...problem, kind, field: `asked.${problem.field}` };
}

/** The decoder takes the digest function alone. */
function wireContext({ crypto, parameters, knownBundle }: VerifyContext): WireContext {
  return { sha256: crypto.sha256, parameters, knownBundle };
}

/** A list of 128 at most, and most keys differ in the first byte. */
function memberOf(key: Bytes, members: readonly Member[]): ReplicaId | undefined {
  return members.find(({ publicKey }) => equalBytes(publicKey, key))?.id;
}
