// What the replicas of each epoch check with: every epoch that one of them has come to, its members' keys, and what was checked under them.

import { equalBytes, toHex } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { isRefusal } from '../protocol/codec.ts';
import { signersOf } from '../protocol/epoch/chain.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import type { CertifiedState } from '../protocol/epoch/observer.ts';
import { STATE_CHUNKS } from '../protocol/ledger.ts';
import type { CertifiedBlock, ReplicaMessage, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { asHeight } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { type SeenSignatures, verifyCertificate, verifyCheckpoint, verifyMessage } from '../protocol/verify.ts';
import { type Answers, isRequest } from './answers.ts';
import { originOf, sealOf } from './sealed.ts';

type Verdict = Verified<ReplicaMessage> | string;

interface KnownEpoch {
  readonly context: VerifyContext;
  /** Stand-ins are checked once in each epoch, not once for each who hears it: the answer is the same. */
  readonly verdicts: WeakMap<Signed<ReplicaMessage>, Verdict>;
}

export class KnownEpochs {
  readonly #crypto: Crypto;
  /** One memory for all: what is valid for one of them is valid for each. */
  readonly #seen: SeenSignatures | undefined;
  readonly #epochs = new Map<number, KnownEpoch>();
  readonly #translations = new WeakMap<Signed<ReplicaMessage>, Map<number, Signed<ReplicaMessage> | null>>();
  /** By public key, for replicas that have come to another one. */
  readonly #newKeys = new Map<string, SimulationKey>();

  constructor(crypto: Crypto, seen: SeenSignatures | undefined) {
    this.#crypto = crypto;
    this.#seen = seen;
  }

  know(document: EpochDocument): void {
    const { epoch, parameters, start } = document;
    if (this.#epochs.has(epoch)) return;
    const context = { ...signersOf(document, this.#crypto, this.#seen), parameters, start };
    this.#epochs.set(epoch, { context, verdicts: new WeakMap() });
  }

  /** Undefined: no replica has come to it. */
  contextOf(epoch: number): VerifyContext | undefined {
    return this.#epochs.get(epoch)?.context;
  }

  /** The secret half of a key that a replica will have. */
  bringKey(key: SimulationKey): void {
    this.#newKeys.set(toHex(key.publicKey), key);
  }

  keyOf(publicKey: Uint8Array): SimulationKey | undefined {
    return this.#newKeys.size === 0 ? undefined : this.#newKeys.get(toHex(publicKey));
  }

  /** Under whose key a message was signed. */
  senderKey(signed: Signed<ReplicaMessage>): Uint8Array | undefined {
    return this.contextOf(originOf(signed) ?? 0)?.members[signed.sender]?.publicKey;
  }

  /** The same with its sender's number in another epoch; null: whoever is in that one does not know the key. */
  asHeardIn(epoch: number, signed: Signed<ReplicaMessage>): Signed<ReplicaMessage> | null {
    const origin = originOf(signed) ?? epoch;
    if (origin === epoch) return signed;
    const byEpoch = this.#translations.get(signed) ?? new Map<number, Signed<ReplicaMessage> | null>();
    this.#translations.set(signed, byEpoch);
    let heard = byEpoch.get(epoch);
    if (heard === undefined) {
      const key = this.senderKey(signed);
      const member = this.contextOf(epoch)?.members.find(
        ({ publicKey }) => key !== undefined && equalBytes(publicKey, key),
      );
      if (member === undefined) heard = null;
      else heard = member.id === signed.sender ? signed : { ...signed, sender: member.id };
      byEpoch.set(epoch, heard);
    }
    return heard;
  }

  /** Verified, or the code of why not. */
  verify(epoch: number, signed: Signed<ReplicaMessage>): Verdict {
    const seal = sealOf(signed);
    if (seal?.trusted === true && seal.epoch === epoch) return asVerified(signed);
    const { context, verdicts } = this.#epochs.get(epoch)!; // its replica has come to it
    let verdict = verdicts.get(signed);
    if (verdict === undefined) {
      const verified = verifyMessage(signed, context);
      verdict = isRefusal(verified) ? verified.refused : verified;
      verdicts.set(signed, verdict);
    }
    return typeof verdict === 'string' ? (this.#ofFormerMember(signed, epoch) ?? verdict) : verdict;
  }

  /** [EPO-17] Blocks from this height on; their last certificate is checked, as a client does. */
  certified(answers: Answers, from: number): readonly CertifiedBlock[] {
    const answer = answers.to({ kind: 'fetch-blocks', from: asHeight(from), to: asHeight(from + 20) });
    const blocks = answer?.kind === 'blocks' ? answer.blocks : [];
    const certificate = blocks.at(-1)?.certificate ?? null;
    const context = certificate === null ? undefined : this.contextOf(certificate.epoch);
    return context !== undefined && certificate !== null && verifyCertificate(certificate, context) === null
      ? blocks
      : [];
  }

  /** [EPO-20] The stable checkpoint that is served there, with its state: what a signature must show is checked here, the digest where it is taken. */
  certifiedState(answers: Answers): CertifiedState | null {
    const proof = answers.to({ kind: 'fetch-checkpoint' });
    if (proof?.kind !== 'checkpoint-proof') return null;
    const { checkpoint: certificate, headerBytes } = proof;
    const context = this.contextOf(certificate.epoch);
    if (context === undefined || verifyCheckpoint(certificate, context) !== null) return null;
    const chunks = new Map<number, Uint8Array>();
    for (let chunk = 0; chunk < STATE_CHUNKS; chunk++) {
      const answer = answers.to({ kind: 'fetch-state', height: certificate.height, chunk });
      if (answer?.kind !== 'state-chunk') return null;
      chunks.set(chunk, answer.bytes);
    }
    return { certificate, headerBytes, chunks };
  }

  /** [EPO-14] Whoever asks under a key that was a member's once is behind, and is answered: the answers prove themselves. */
  #ofFormerMember(signed: Signed<ReplicaMessage>, epoch: number): Verified<ReplicaMessage> | null {
    if (!isRequest(signed.message)) return null;
    for (let before = epoch - 1; before >= 0; before--) {
      const context = this.contextOf(before);
      const verified = context === undefined ? undefined : verifyMessage(signed, context);
      if (verified !== undefined && !isRefusal(verified)) return verified;
    }
    return null;
  }
}
