// A node that observes, as the doors and the metrics see it: what it has followed, and that it takes nothing.

import { native } from '../crypto/native.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type { BundleExplanation, Decided, Explanation, HeightExplanation } from '../protocol/core.ts';
import { genesisOf } from '../protocol/epoch/document.ts';
import type { Observer } from '../protocol/epoch/observer.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash, Height, Millis, ReplicaId } from '../protocol/types.ts';
import { asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { ReplicaEvents, ReplicaPort } from './ports.ts';

export interface ObserverPortParts {
  readonly observer: Observer;
  /** With the members of epoch 0. */
  readonly genesis: Genesis;
  readonly log: LogStore;
  readonly now: () => Millis;
}

/** [EPO-21] */
export class ObserverPort implements ReplicaPort {
  readonly crypto = native;
  readonly log: LogStore;
  readonly #parts: ObserverPortParts;
  readonly #subscribers = new Set<ReplicaEvents>();
  #head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
  #seen: Height = asHeight(0);
  /** When it last took a block, or fell behind; null: it is not behind. */
  #behindSince: Millis | null = null;
  #writingSince: Millis | null = null;

  constructor(parts: ObserverPortParts) {
    this.#parts = parts;
    this.log = parts.log;
    this.#head = { height: parts.observer.height, hash: parts.observer.hash, certificate: null };
  }

  /** As the present epoch runs it. */
  get genesis(): Genesis {
    return genesisOf(this.#parts.genesis, this.#parts.observer.document);
  }

  /** A number that no member has. */
  get self(): ReplicaId {
    return asReplicaId(this.#parts.observer.document.members.length);
  }

  /** The highest height that a certificate was seen for. */
  saw(height: Height): void {
    if (height <= this.#seen) return;
    this.#seen = height;
    if (height > this.#head.height) this.#behindSince ??= this.#parts.now();
  }

  /** Followed, and handed to the log in this order. */
  took(decided: Decided): void {
    const { block, certificate } = decided;
    const { height } = block.header;
    this.#head = { height, hash: block.hash, certificate: certificate ?? this.#head.certificate };
    if (height > this.#seen) this.#seen = height;
    this.#behindSince = height < this.#seen ? this.#parts.now() : null;
    for (const each of this.#subscribers) each.decided?.([decided]);
  }

  /** A checkpoint has taken the place of all that was here. */
  installed(height: Height): void {
    this.#head = { height, hash: this.#parts.observer.hash, certificate: null };
    this.#behindSince = height < this.#seen ? this.#parts.now() : null;
    for (const each of this.#subscribers) each.event?.({ type: 'checkpoint-installed', height });
  }

  writes(underWay: boolean): void {
    this.#writingSince = underWay ? this.#parts.now() : null;
  }

  // ---- what the doors ask --------------------------------------------------------------------------------------------

  submit(): boolean {
    return false;
  }

  /** It votes with nobody, and nobody would answer it. */
  readPoint(): ReturnType<ReplicaPort['readPoint']> {
    return Promise.resolve({ refused: 'reads-unsupported' });
  }

  explain(): Explanation {
    const { document } = this.#parts.observer;
    const { viewTimeoutMs, window } = document.parameters;
    const { height, hash } = this.#head;
    const isBehind = this.#seen > height + window;
    const since = this.#behindSince;
    return {
      at: this.#parts.now(),
      epoch: document.epoch,
      view: asView(0),
      primary: asReplicaId(0),
      self: this.self,
      phase: isBehind ? 'catching-up' : 'idle',
      height,
      hash,
      stable: asHeight(0),
      highestSeen: asHeight(Math.max(this.#seen, height)),
      pool: { bundles: 0, bytes: 0 },
      inFlight: 0,
      waits: [],
      viewChanges: 0,
      timeoutMs: viewTimeoutMs,
      baseTimeoutMs: viewTimeoutMs,
      // It votes with nobody.
      quorum: 0,
      window,
      catchUp: since === null || !isBehind ? null : { since, what: 'blocks', asked: [], passedOver: [], chunks: null },
      clock: null,
      pace: null,
      stalls: { ms: 0, msMax: 0, loop: null, disk: null, loopMs: 0, diskMs: 0 },
      peers: [],
    };
  }

  explainHeight(height: Height): HeightExplanation {
    const { height: head } = this.#head;
    const stage = height > head ? 'unknown' : height < this.log.lowest ? 'pruned' : 'decided';
    return { height, stage, view: asView(0), candidates: [] };
  }

  explainBundle(): BundleExplanation {
    return { digest: null, transaction: null, height: null, pool: null };
  }

  writingMs(): number {
    return this.#writingSince === null ? 0 : this.#parts.now() - this.#writingSince;
  }

  head(): { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null } {
    return this.#head;
  }

  subscribe(events: ReplicaEvents): () => void {
    this.#subscribers.add(events);
    return () => this.#subscribers.delete(events);
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }
}

export const monotonicNow = (): Millis => asMillis(Math.floor(performance.now()));
