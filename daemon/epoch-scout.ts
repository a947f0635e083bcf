// What a replica does that hears too few others: they may have gone on to epochs in which it knows nobody. It asks at every address that it knows,
// whoever answers there, for the links of later epochs; they prove themselves.

import { learnEpochs } from '../client/epochs.ts';
import { openWebSocket } from '../client/socket.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import type { EpochChain } from '../protocol/verify.ts';
import type { Logger } from './replica.ts';

/** For each step of one conversation. */
const answerMsMax = 3_000;
const pauseMsMin = 1_000;
const pauseMsMax = 15_000;

export interface ScoutParts {
  /** The epoch that this replica is in. */
  readonly own: EpochDocument;
  /** What is learnt is added. */
  readonly epochs: EpochChain;
  /** From the config, and of the members of every epoch that is known. */
  readonly addresses: () => readonly string[];
  /** Fewer others are connected than it takes to have an honest one among them. */
  readonly isLonely: () => boolean;
  /** The decided height. */
  readonly height: () => number;
  /** More epochs are known. */
  readonly learnt: () => Promise<void>;
  /** [EPO-19] The epoch has ended, by proof, and nobody brings this replica out of it. Called once. */
  readonly behind: () => void;
  readonly logger: Logger;
}

export class EpochScout {
  readonly #parts: ScoutParts;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = pauseMsMin;
  #next = 0;
  /** Where it stood when it was found to be behind for the first time; null: it is not, or has moved since. */
  #stuckAt: number | null = null;
  #closed = false;

  constructor(parts: ScoutParts) {
    this.#parts = parts;
    this.#schedule(Math.max(pauseMsMin, 2 * parts.own.parameters.viewTimeoutMs));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #schedule(ms: number): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#look(), ms);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    const { isLonely, own, epochs, height, behind, logger } = this.#parts;
    if (!isLonely()) {
      this.#pauseMs = pauseMsMin;
      this.#stuckAt = null;
      return this.#schedule(pauseMsMin);
    }
    if (epochs.last.epoch === own.epoch) await this.#ask();
    if (this.#closed) return;
    if (epochs.last.epoch > own.epoch) {
      // Somebody may still be answering what it asked for.
      if (this.#stuckAt === height()) {
        logger.warn(
          { epoch: own.epoch, latest: epochs.last.epoch },
          'this epoch has ended, and nobody in reach leads out of it',
        );
        return behind();
      }
      this.#stuckAt = height();
      return this.#schedule(pauseMsMin);
    }
    this.#pauseMs = Math.min(2 * this.#pauseMs, pauseMsMax);
    this.#schedule(this.#pauseMs * (0.5 + Math.random() / 2));
  }

  /** One address each time. */
  async #ask(): Promise<void> {
    const { addresses, epochs, own, learnt, logger } = this.#parts;
    const all = addresses();
    const url = all[this.#next++ % Math.max(1, all.length)];
    if (url === undefined) return;
    const answer = await learnEpochs({
      url,
      chainId: own.chainId,
      epochs,
      crypto: native,
      // Of nobody: what is asked for is public.
      signer: clientSigner(SecretKey.generate(), own.chainId),
      openSocket: openWebSocket,
      timeoutMs: answerMsMax,
    });
    if (answer.epochs === 0) return logger.debug({ url, code: answer.code }, 'asked for later epochs');
    logger.info({ url, latest: epochs.last.epoch }, 'later epochs are known');
    await learnt();
  }
}

/** The operator's own word first, then every epoch's. */
export function knownAddresses(epochs: EpochChain, peers: Iterable<string>): string[] {
  const addresses = new Set(peers);
  for (const { members } of epochs.documents)
    for (const { address } of members) if (address !== undefined) addresses.add(address);
  return [...addresses];
}
