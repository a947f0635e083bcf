// What the replicas of each epoch check with: every epoch that one of them has come to, its members' keys, and what was checked under them.

import { toHex } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { isRefusal } from '../protocol/codec.ts';
import { signersOf } from '../protocol/epoch/chain.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import type { PbftMessage, Signed, Verified } from '../protocol/messages.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { type SeenSignatures, verifyMessage } from '../protocol/verify.ts';
import { isRequest } from './answers.ts';

type Verdict = Verified<PbftMessage> | string;

interface KnownEpoch {
  readonly context: VerifyContext;
  /** Stand-ins are checked once in each epoch, not once for each who hears it: the answer is the same. */
  readonly verdicts: WeakMap<Signed<PbftMessage>, Verdict>;
}

export class KnownEpochs {
  readonly #crypto: Crypto;
  /** One memory for all: what is valid for one of them is valid for each. */
  readonly #seen: SeenSignatures | undefined;
  readonly #epochs = new Map<number, KnownEpoch>();
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
    return this.#newKeys.get(toHex(publicKey));
  }

  /** Made a line ago by whoever may make it: it need not be looked at again. */
  trust(epoch: number, signed: Verified<PbftMessage>): void {
    this.#epochs.get(epoch)?.verdicts.set(signed, signed);
  }

  /** Verified, or the code of why not. */
  verify(epoch: number, signed: Signed<PbftMessage>): Verdict {
    const { context, verdicts } = this.#epochs.get(epoch)!; // its replica has come to it
    let verdict = verdicts.get(signed);
    if (verdict === undefined) {
      const verified = verifyMessage(signed, context);
      verdict = isRefusal(verified) ? verified.refused : verified;
      verdicts.set(signed, verdict);
    }
    return typeof verdict === 'string' ? (this.#ofFormerMember(signed, epoch) ?? verdict) : verdict;
  }

  /** [EPO-14] Whoever asks under a key that was a member's once is behind, and is answered: the answers prove themselves. */
  #ofFormerMember(signed: Signed<PbftMessage>, epoch: number): Verified<PbftMessage> | null {
    if (!isRequest(signed.message)) return null;
    for (let before = epoch - 1; before >= 0; before--) {
      const context = this.contextOf(before);
      const verified = context === undefined ? undefined : verifyMessage(signed, context);
      if (verified !== undefined && !isRefusal(verified)) return verified;
    }
    return null;
  }
}
