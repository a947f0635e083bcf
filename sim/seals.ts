// Signing and checking in a cluster: each replica under its key of its present epoch. Stand-ins go by value and are checked once; real ones go through
// the frames that the daemon would send.

import type { Bytes } from '../crypto/bytes.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { decodeFrame, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type { ReplicaMessage, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Hash, ReplicaId } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { openFrame, signingBytes, verifyMessage } from '../protocol/verify.ts';
import type { KnownEpochs } from './epochs.ts';
import type { SimReplica } from './replica.ts';
import { sealed } from './sealed.ts';
import { PLAIN_KINDS } from './signatures.ts';

export interface SealsOptions {
  readonly epochs: KnownEpochs;
  readonly chainId: Hash;
  readonly isReal: boolean;
  /** Of the nodes by place, before any was replaced. */
  readonly keys: readonly SimulationKey[];
  /** Undefined while the nodes are being made. */
  readonly nodeOf: (id: number) => SimReplica | undefined;
  readonly refused: (at: ReplicaId, from: ReplicaId, code: string, kind: string) => void;
}

export class Seals {
  readonly #options: SealsOptions;

  constructor(options: SealsOptions) {
    this.#options = options;
  }

  /** The key of a node in its epoch. */
  keyOf(id: number): SimulationKey {
    const { nodeOf, epochs, keys } = this.#options;
    const { epoch, member } = nodeOf(id)!;
    const publicKey = member === null ? undefined : epoch.members[member]?.publicKey;
    return (publicKey && epochs.keyOf(publicKey)) ?? keys[id]!;
  }

  sign<M extends ReplicaMessage>(id: ReplicaId, message: M, payload = encodePayload(message)): Verified<M> {
    const { chainId, isReal, nodeOf } = this.#options;
    const bytes = signingBytes(chainId, message, payload);
    const signature = this.keyOf(id).sign(bytes);
    const { member } = nodeOf(id)!;
    const { epoch } = this.#contextAt(id);
    // Messages go by value here, so what a member has signed a line ago need not be looked at again.
    const trusted = !isReal && member !== null && PLAIN_KINDS.has(message.kind);
    return sealed(asVerified({ sender: member ?? id, message, payload, signature }), { epoch, trusted });
  }

  frameOf(signed: Signed<ReplicaMessage>): Bytes {
    const { message, payload, sender, signature } = signed;
    const key = this.#options.epochs.senderKey(signed) ?? this.keyOf(sender).publicKey;
    return encodeFrame({ kind: message.kind, payload, sender: key, signature });
  }

  verified(at: ReplicaId, signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null {
    const { epochs, isReal, refused } = this.#options;
    if (isReal) return this.verifiedBytes(at, this.frameOf(signed));
    const verdict = epochs.verify(this.#contextAt(at).epoch, signed);
    if (typeof verdict !== 'string') return verdict;
    refused(at, signed.sender, verdict, signed.message.kind);
    return null;
  }

  verifiedBytes(at: ReplicaId, bytes: Bytes): Verified<ReplicaMessage> | null {
    const context = this.#contextAt(at);
    const frame = decodeFrame(bytes);
    const signed = isRefusal(frame) ? frame : openFrame(frame, context);
    const verified = isRefusal(signed) ? signed : verifyMessage(signed, context);
    if (!isRefusal(verified)) return verified;
    const from = isRefusal(signed) ? at : signed.sender;
    const kind = isRefusal(frame) ? 'frame' : frame.kind;
    this.#options.refused(at, from, verified.refused, kind);
    return null;
  }

  /** What replicas of this node's epoch check with. */
  #contextAt(id: number): VerifyContext {
    const { epochs, nodeOf } = this.#options;
    return epochs.contextOf(nodeOf(id)?.epoch.epoch ?? 0)!; // known since the node has come to it
  }
}
