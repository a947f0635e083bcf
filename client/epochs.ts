// How a client comes to know the epochs after those that it knows: any node can tell, since each link proves itself to whoever knows the epoch
// before it (EPO-11). So it asks at an address, whoever answers there and under whatever key, and believes nothing but links.

import type { Bytes } from '../crypto/bytes.ts';
import { asEpoch } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { Conversation, type ConversationRequest } from './conversation.ts';
import type { Settings } from './options.ts';

/** What is learnt is added to its `epochs`. */
export type LearnRequest = ConversationRequest;

export interface Learnt {
  /** How many epochs more are known. */
  readonly epochs: number;
  /** Why the node's answers ended before it had nothing more to tell; null: they did not. What was learnt before is proved all the same. */
  readonly code: string | null;
}

/** [EPO-18] Asks one node for links until it has no more. Never rejects. */
export function learnEpochs(request: LearnRequest): Promise<Learnt> {
  const { epochs } = request;
  const before = epochs.last.epoch;
  return new Promise((resolve) => {
    const ask = () => talk.ask({ kind: 'query-epochs', from: asEpoch(epochs.last.epoch + 1) });
    const talk = new Conversation(request, {
      ready: ask,
      message: (message) => {
        // [WIRE-35] Nobody's word is needed for a link.
        if (message.kind !== 'epochs') return talk.end('frame-kind');
        const { epoch } = epochs.last;
        const code = learnLinks(epochs, message.links);
        if (code !== null) return talk.end(code);
        if (epochs.last.epoch === epoch) talk.end(null);
        else ask();
      },
      ended: (code) => resolve({ epochs: epochs.last.epoch - before, code }),
    });
  });
}

/** In their order; null, or why one does not hold: those before it are known. At an end of an epoch every replica tells the same. */
export function learnLinks(epochs: EpochChain, links: readonly Bytes[]): string | null {
  for (const link of links) {
    if (epochs.knows(link)) continue;
    const known = epochs.add(link);
    if ('refused' in known) return known.refused;
  }
  return null;
}

/** For each step, well within the time for a whole `connect`. */
export const learnTimeoutMs = ({ connectTimeoutMs }: Settings): number => Math.min(5_000, connectTimeoutMs);

/** Addresses whose last answer is remembered: those of a few epochs of the largest network. */
const addressesMax = 1_024;

export interface LearnerWorld extends Omit<LearnRequest, 'url'> {
  /** Between two questions at one address. */
  readonly pauseMs: number;
  /** More epochs are known. */
  readonly grown: () => void;
  /** Somebody answered with what no honest node sends. */
  readonly refused: (name: string, code: string) => void;
}

/** One question at a time, and none to an address that was asked a moment ago. */
export class EpochLearner {
  readonly #world: LearnerWorld;
  readonly #askedAt = new Map<string, number>();
  readonly #waiting = new Map<string, string>();
  #busy = false;
  #closed = false;

  constructor(world: LearnerWorld) {
    this.#world = world;
  }

  /** Whoever is at this address may know of a later epoch. */
  ask(name: string, url: string): void {
    const now = performance.now();
    const before = this.#askedAt.get(url);
    if (this.#closed || (before !== undefined && now - before < this.#world.pauseMs)) return;
    if (this.#askedAt.size >= addressesMax) this.#askedAt.clear();
    this.#askedAt.set(url, now);
    this.#waiting.set(url, name);
    void this.#next();
  }

  close(): void {
    this.#closed = true;
    this.#waiting.clear();
  }

  async #next(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (const [url, name] of this.#waiting) {
      this.#waiting.delete(url);
      const { epochs, code } = await learnEpochs({ ...this.#world, url });
      if (this.#closed) return;
      if (epochs > 0) this.#world.grown();
      if (code !== null && isLie(code)) this.#world.refused(name, code);
    }
    this.#busy = false;
  }
}

/** Links that do not hold, as against a node that is away or does not know. */
const isLie = (code: string): boolean =>
  code === 'epoch-control' || code === 'epoch-fork' || code.startsWith('certificate-') || code.startsWith('payload-');
