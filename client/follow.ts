// A stream of decided blocks, in order, each once: taken from one replica, on a connection of its own, with the heads of the others
// beside it. A replica that withholds, lies or goes away is left for another, and the stream goes on at the very next height.

import type { Crypto } from '../crypto/provider.ts';
import { decodeHeader } from '../protocol/block.ts';
import type { DoorMessage, FollowBlocks, FollowEnd } from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { asHeight, type Height, type ReplicaId } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import type { ChainView } from './chain-view.ts';
import { ClientError } from './errors.ts';
import { FollowChain, type FollowedBlock } from './follow-chain.ts';
import type { Link, LinkEvents } from './link.ts';
import type { Settings } from './options.ts';

export interface FollowRequest {
  /** `newest`: the highest certified block that is known now, and all after it. `oldest`: the first that is still kept. */
  readonly from: 'oldest' | 'newest' | number;
  /** The last height wanted; without it the stream waits for what is not there yet, for ever. */
  readonly to?: number;
  readonly headersOnly?: boolean;
}

export interface FollowWorld {
  readonly genesis: Genesis;
  readonly epochs: EpochChain;
  readonly settings: Settings;
  readonly crypto: Crypto;
  readonly chain: ChainView;
  /** The client's own connections: they tell which replica is worth asking, and their heads are what the stream is held against. */
  readonly links: readonly Link[];
  /** Of nodes that are no members: good for streams too. */
  readonly sources: readonly Link[];
  /** A block of an epoch that is not known here, or that this client is not in yet. */
  readonly outdated: (link: Link | null) => void;
  /** A connection of the stream's own to the same replica. */
  readonly dial: (to: Link, events: LinkEvents) => Link;
  /** A message that is not the stream's, and a certificate that it verified. */
  readonly overheard: (link: Link, message: DoorMessage) => void;
  readonly certified: () => void;
  readonly ended: (stream: FollowStream) => void;
}

/** How often one replica may move its oldest block upwards before the stream has begun. */
const prunedAnswersMax = 8;

type Result = IteratorResult<FollowedBlock, undefined>;

export class FollowStream implements AsyncIterableIterator<FollowedBlock, undefined> {
  readonly #world: FollowWorld;
  readonly #oldest: boolean;
  readonly #to: Height;
  readonly #headersOnly: boolean;
  readonly #chain: FollowChain;
  /** Proved and not yet taken; with what was granted and not sent, at most followBlocksMax. */
  readonly #buffer: FollowedBlock[] = [];
  readonly #waiting: { readonly resolve: (result: Result) => void; readonly reject: (error: ClientError) => void }[] =
    [];
  #source: Link | null = null;
  /** The replica's place of #source in the world's links. */
  #sourceLink: Link | null = null;
  /** The follow was sent on the source's present connection. */
  #asked = false;
  /** Blocks granted to the source that it has not sent. */
  #credit = 0;
  /** Replicas that failed since the last block; tried again when no other is left. */
  readonly #avoided = new Set<ReplicaId>();
  /** Those that have pruned the next height, with the lowest they still have. */
  readonly #pruned = new Map<ReplicaId, Height>();
  #prunedAnswers = 0;
  #prunedRounds = 0;
  #behindSince: number | null = null;
  #nextAttemptAt = 0;
  #dialledAt = 0;
  #end: ClientError | 'done' | null = null;

  constructor(world: FollowWorld, { from, to, headersOnly }: FollowRequest) {
    this.#world = world;
    const first = from === 'oldest' ? 1 : from === 'newest' ? Math.max(1, world.chain.height) : from;
    const last = to ?? Number.MAX_SAFE_INTEGER;
    if (!Number.isSafeInteger(first) || first < 1) throw new ClientError('option-invalid', { option: 'from' });
    if (!Number.isSafeInteger(last) || last < first) throw new ClientError('option-invalid', { option: 'to' });
    this.#oldest = from === 'oldest';
    this.#to = asHeight(last);
    this.#headersOnly = headersOnly ?? false;
    const { genesis, epochs, crypto } = world;
    this.#chain = new FollowChain({
      genesis,
      epochs,
      crypto,
      from: asHeight(first),
      to: this.#to,
      headersOnly: this.#headersOnly,
    });
    this.tick(performance.now());
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next block, when there is one. Rejects with ClientError: pruned, closed. */
  next(): Promise<Result> {
    const block = this.#buffer.shift();
    if (block !== undefined) {
      this.#grant();
      return Promise.resolve({ done: false, value: block });
    }
    if (this.#end === 'done') return Promise.resolve({ done: true, value: undefined });
    if (this.#end !== null) {
      const error = this.#end;
      this.#end = 'done';
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Ends the stream: what a `break` out of `for await` calls. */
  return(): Promise<Result> {
    this.#buffer.length = 0;
    this.#finish('done');
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Ends it with an error, after what is buffered. */
  fail(error: ClientError): void {
    this.#finish(error);
  }

  /** Other members under other numbers. Whoever serves the stream goes on: what it sends is proved. */
  enter(): void {
    this.#avoided.clear();
    this.#pruned.clear();
    this.#prunedRounds = 0;
    const member = this.#sourceLink?.member ?? null;
    const isGone = this.#sourceLink?.state === 'closed' || (member !== null && this.#source?.enter(member) === false);
    if (isGone) this.#leave('not-a-member', 'keep');
  }

  /** Called every few milliseconds. */
  tick(now: number): void {
    if (this.#end !== null) return;
    const { chain, settings } = this.#world;
    if (this.#source === null) {
      if (now >= this.#nextAttemptAt) this.#choose(now);
      return;
    }
    this.#source.tick(now);
    // It takes the client's own connection and not this one, or went away before this one was open: nothing would ever tell.
    if (this.#source.state !== 'open' && now - this.#dialledAt > settings.withholdMs) {
      this.#leave('unreachable', 'keep');
      return;
    }
    // It may send, others have certified what comes next, and it does not.
    const behind = this.#asked && this.#credit > 0 && chain.height >= this.#chain.next && this.#chain.next <= this.#to;
    if (!behind) this.#behindSince = null;
    else if (this.#behindSince === null) this.#behindSince = now;
    else if (now - this.#behindSince > settings.withholdMs) this.#leave('withholding', 'distrust');
  }

  /** A replica that has what comes next: one that works, is trusted and was not tried, the one with the longest history first. */
  #choose(now: number): void {
    const { links, sources, settings } = this.#world;
    const ready = [...links, ...sources].filter((link) => link.open);
    const fresh = ready.filter((link) => !this.#avoided.has(link.id));
    if (fresh.length === 0) {
      this.#avoided.clear();
      this.#nextAttemptAt = now + settings.reconnectMs;
      // f+1 of them say so, and whoever else could be asked has failed twice.
      if (this.#pruned.size < (links.length === 0 ? 1 : this.#world.chain.quorums.oneHonest)) return;
      this.#prunedRounds += 1;
      if (this.#prunedRounds < 2 && !ready.every(({ id }) => this.#pruned.has(id))) return;
      const lowest = Math.min(...this.#pruned.values());
      this.#finish(new ClientError('pruned', { height: this.#chain.next, lowest }));
      return;
    }
    const rank = (link: Link) => (this.#oldest ? (link.claim?.lowest ?? 0) : -(link.claim?.height ?? 0));
    // Backups first: the primary has enough to do.
    const primary = this.#world.chain.primary;
    fresh.sort(
      (a, b) =>
        Number(b.trusted) - Number(a.trusted) ||
        rank(a) - rank(b) ||
        Number(a.id === primary) - Number(b.id === primary),
    );
    const link = fresh[0];
    if (link === undefined) return;
    if (this.#oldest && link.claim !== null) this.#chain.skipTo(asHeight(Math.max(1, link.claim.lowest)));
    this.#sourceLink = link;
    this.#dialledAt = now;
    this.#behindSince = null;
    this.#prunedAnswers = 0;
    this.#source = this.#world.dial(link, {
      opened: () => this.#ask(),
      ended: (_, code) => this.#leave(code, 'keep'),
      refused: (_, code) => this.#leave(code, 'keep'),
      suspected: (_, code) => this.#leave(code, 'suspect'),
      message: (_, message) => this.#message(message),
      outdated: () => this.#world.outdated(link),
    });
    this.#source.start();
  }

  #leave(code: string, judgement: 'keep' | 'distrust' | 'suspect'): void {
    const link = this.#sourceLink;
    const source = this.#source;
    if (source === null || link === null) return;
    this.#source = null;
    this.#sourceLink = null;
    this.#asked = false;
    this.#credit = 0;
    this.#chain.restart();
    this.#avoided.add(link.id);
    source.close();
    if (judgement === 'suspect') link.suspect(code);
    if (judgement === 'distrust') link.distrust(code);
    if (this.#end === null) this.#choose(performance.now());
  }

  #isOfUnknownEpoch({ headerBytes }: FollowBlocks['blocks'][number]): boolean {
    const header = decodeHeader(headerBytes);
    return header !== undefined && header.epoch > this.#world.epochs.last.epoch;
  }

  #room(): number {
    const { settings, chain } = this.#world;
    // At least twice the window, of whichever epoch.
    return (
      Math.max(settings.followBlocksMax, 2 * chain.parameters.window) -
      this.#buffer.length -
      this.#credit -
      this.#chain.unproved
    );
  }

  #ask(): void {
    const room = this.#room();
    if (this.#source?.state !== 'open' || room < 1) return;
    this.#asked = true;
    this.#credit = room;
    const to = asHeight(this.#to === Number.MAX_SAFE_INTEGER ? 0 : this.#to);
    this.#source.send({ kind: 'follow', from: this.#chain.next, to, headersOnly: this.#headersOnly, credit: room });
  }

  /** The consumer took a block. Half a buffer at once, since every grant is a signed message. */
  #grant(): void {
    if (this.#source?.state !== 'open' || this.#end !== null) return;
    if (!this.#asked) {
      this.#ask();
      return;
    }
    const room = this.#room();
    if (room < this.#world.settings.followBlocksMax / 2) return;
    this.#credit += room;
    this.#source.send({ kind: 'credit', blocks: room });
  }

  #message(message: DoorMessage): void {
    const link = this.#sourceLink;
    if (link === null || this.#end !== null) return;
    if (message.kind === 'follow-end') {
      this.#sourceEnded(link, message);
      return;
    }
    if (message.kind !== 'follow-blocks') {
      this.#world.overheard(link, message);
      return;
    }
    if (!this.#asked) return;
    for (const block of message.blocks) {
      const taken = this.#chain.take(block);
      if ('refused' in taken) {
        if (taken.refused === 'certificate-epoch' && this.#isOfUnknownEpoch(block)) {
          this.#world.outdated(link);
          this.#leave('epoch-unknown', 'keep');
          return;
        }
        this.#leave(taken.refused, 'suspect');
        return;
      }
      if (taken.length > 0) {
        // The last one has the certificate, and it was checked.
        const certificate = block.certificate;
        if (certificate !== null) this.#world.chain.certified(certificate);
        this.#avoided.clear();
        this.#pruned.clear();
        this.#prunedRounds = 0;
        this.#behindSince = null;
      }
      this.#deliver(taken);
      if (this.#end !== null) return;
    }
    // Blocks above `to` are headers that prove it; they are sent without credit.
    const wanted = Math.min(message.blocks.length, this.#credit);
    this.#credit -= wanted;
    if (this.#credit === 0 && wanted < message.blocks.length && this.#chain.next + this.#chain.unproved <= this.#to) {
      this.#leave('follow-credit', 'suspect');
      return;
    }
    this.#world.certified();
    // All of the buffer may wait for one certificate: then it takes a few blocks more.
    if (this.#credit === 0 && this.#buffer.length === 0 && this.#chain.unproved > 0) {
      this.#credit = 1;
      this.#source?.send({ kind: 'credit', blocks: 1 });
    }
    this.#grant();
  }

  #deliver(blocks: readonly FollowedBlock[]): void {
    for (const block of blocks) {
      const consumer = this.#waiting.shift();
      if (consumer === undefined) this.#buffer.push(block);
      else consumer.resolve({ done: false, value: block });
    }
    if (this.#chain.next > this.#to) this.#finish('done');
  }

  #sourceEnded(link: Link, { code, lowest }: FollowEnd): void {
    if (!this.#asked) return;
    switch (code) {
      case 'reached':
        // Were it so, the stream would have ended with its last block.
        this.#leave('follow-reached', 'suspect');
        return;
      case 'draining':
        this.#leave(code, 'keep');
        return;
      case 'pruned':
        if (lowest <= this.#chain.next) {
          this.#leave('follow-pruned', 'suspect');
          return;
        }
        this.#prunedAnswers += 1;
        if (this.#oldest && this.#chain.began === false && this.#prunedAnswers <= prunedAnswersMax) {
          this.#chain.skipTo(lowest);
          this.#credit = 0;
          this.#ask();
          return;
        }
        this.#pruned.set(link.id, lowest);
        this.#leave(code, 'keep');
        return;
    }
  }

  #finish(end: ClientError | 'done'): void {
    if (this.#end !== null) return;
    this.#end = end;
    const source = this.#source;
    this.#source = null;
    source?.close();
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (end === 'done') resolve({ done: true, value: undefined });
      else reject(end);
    }
    this.#world.ended(this);
  }
}
