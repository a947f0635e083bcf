// The replicas of one process, one for each epoch, as the one that the transport, the doors and the metrics know (EPO-12, ADR 10): whoever
// speaks to it need not know which of them answers.

import { toHex } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { BundleExplanation, EpochEnd, Explanation, HeightExplanation } from '../protocol/core.ts';
import { goesOn, type Passage } from '../protocol/epoch/begin.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash, Height, ReplicaId } from '../protocol/types.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { PeerEvents, PeerTransport, ReplicaEvents, ReplicaPort } from './ports.ts';
import type { Replica } from './replica.ts';

export class Succession implements ReplicaPort, PeerEvents {
  #now: Replica;
  readonly #subscribers = new Set<ReplicaEvents>();

  constructor(first: Replica) {
    this.#now = first;
    this.#listen(first);
  }

  /**
   * [EPO-15] [EPO-22] The next one takes over, at once: who is connected, what waited in the pool, and what has come since the other one ended. Frames
   * are from whoever has the key under which they came; [EPO-23] if that is another one now, the same member must have it.
   */
  enter(next: Replica, transport: PeerTransport, waiting: readonly SignedBundle[]): void {
    const { members, protocol } = this.#now.genesis;
    const { bundles, frames } = this.#now.leave();
    const memberOf = new Map(next.genesis.members.map((member) => [toHex(member.publicKey), member]));
    this.#now = next;
    this.#listen(next);
    next.start(transport);
    const passage = { from: protocol, to: next.genesis, crypto: next.crypto };
    for (const bundle of [...waiting, ...bundles]) this.#admit(bundle, passage);
    for (const { from, bytes, key } of frames) {
      const sender = members[from]!; // the transport knows members alone
      const member = memberOf.get(toHex(key ?? sender.publicKey));
      if (member !== undefined && (key === undefined || member.name === sender.name)) next.frame(member.id, bytes);
    }
  }

  /** What was in time in the epoch before and may not stand in this one is refused for good, and whoever waits for it is told. */
  #admit(bundle: SignedBundle, passage: Passage): void {
    if (!goesOn(bundle, passage))
      for (const each of this.#subscribers) each.admission?.(bundle.digest, 'bundle-invalid');
    else if (!this.#now.submit(bundle))
      for (const each of this.#subscribers) each.admission?.(bundle.digest, 'pool-full');
  }

  #listen(replica: Replica): void {
    const all = this.#subscribers;
    replica.subscribe({
      decided: (blocks) => {
        for (const each of all) each.decided?.(blocks);
      },
      admission: (digest, code) => {
        for (const each of all) each.admission?.(digest, code);
      },
      event: (event) => {
        for (const each of all) each.event?.(event);
      },
      fatal: (error) => {
        for (const each of all) each.fatal?.(error);
      },
    });
  }

  /** The epoch has ended, and this process does not go on in the next one. */
  over(end: EpochEnd): void {
    for (const each of this.#subscribers) each.ended?.(end, Promise.resolve(true));
  }

  // ---- from the transport -------------------------------------------------------------------------------------------

  frame(from: ReplicaId, bytes: Uint8Array, key?: Uint8Array): void {
    this.#now.frame(from, bytes, key);
  }
  connected(peer: ReplicaId): void {
    this.#now.connected(peer);
  }
  disconnected(peer: ReplicaId): void {
    this.#now.disconnected(peer);
  }
  overloaded(): boolean {
    return this.#now.overloaded();
  }

  // ---- what the doors ask -------------------------------------------------------------------------------------------

  get genesis(): Genesis {
    return this.#now.genesis;
  }
  get self(): ReplicaId {
    return this.#now.self;
  }
  get crypto(): Crypto {
    return this.#now.crypto;
  }
  get log(): LogStore {
    return this.#now.log;
  }
  submit(bundle: SignedBundle): boolean {
    return this.#now.submit(bundle);
  }
  readPoint(): ReturnType<ReplicaPort['readPoint']> {
    return this.#now.readPoint();
  }
  explain(): Explanation {
    return this.#now.explain();
  }
  explainHeight(height: Height): HeightExplanation {
    return this.#now.explainHeight(height);
  }
  explainBundle(digest: Hash): BundleExplanation {
    return this.#now.explainBundle(digest);
  }
  writingMs(): number {
    return this.#now.writingMs();
  }
  head(): ReturnType<ReplicaPort['head']> {
    return this.#now.head();
  }
  queueDepths(): ReturnType<Replica['queueDepths']> {
    return this.#now.queueDepths();
  }
  subscribe(events: ReplicaEvents): () => void {
    this.#subscribers.add(events);
    return () => this.#subscribers.delete(events);
  }
  drain(): Promise<void> {
    return this.#now.drain();
  }
}
