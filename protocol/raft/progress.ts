// What a Raft leader knows of the others' logs: Ongaro and Ousterhout (2014), figure 2, nextIndex and matchIndex.

import type { Height, Millis, ReplicaId } from '../types.ts';
import { asHeight, next } from '../types.ts';

export class Progress {
  /** Up to where each log, the leader's own too, is known to be the leader's, durably. */
  #match = new Map<ReplicaId, Height>();
  /** What each follower is sent next. */
  #next = new Map<ReplicaId, Height>();
  /** When a log was last found to end sooner than was thought. */
  #backedUp = new Map<ReplicaId, { readonly to: Height; readonly when: Millis }>();

  /** A new leader knows nothing, and hopes for the best. */
  start(followers: readonly ReplicaId[], from: Height): void {
    this.clear();
    for (const replica of followers) this.#next.set(replica, from);
  }

  clear(): void {
    this.#match.clear();
    this.#next.clear();
    this.#backedUp.clear();
  }

  get followers(): ReplicaId[] {
    return [...this.#next.keys()];
  }

  matchOf(replica: ReplicaId): Height | undefined {
    return this.#match.get(replica);
  }

  nextOf(replica: ReplicaId): Height {
    return this.#next.get(replica) ?? asHeight(0);
  }

  send(replica: ReplicaId, from: Height): void {
    this.#next.set(replica, from);
  }

  /** False: that was known. */
  matched(replica: ReplicaId, match: Height): boolean {
    if (match <= (this.#match.get(replica) ?? 0)) return false;
    this.#match.set(replica, match);
    const before = this.#next.get(replica);
    if (before !== undefined && match >= before) this.#next.set(replica, next.height(match));
    return true;
  }

  /** The highest index that so many logs hold; undefined: none. */
  heldBy(quorum: number): Height | undefined {
    return [...this.#match.values()].sort((a, b) => b - a)[quorum - 1];
  }

  holders(height: Height): ReplicaId[] {
    const by = [...this.#match].filter(([, match]) => match >= height).map(([replica]) => replica);
    return by.sort((a, b) => a - b);
  }

  /** Whether to send again from the entry after `last`. Of many that were sent ahead each is rejected: they are sent again once in `pauseMs`. */
  backUp(
    replica: ReplicaId,
    last: Height,
    { now, pauseMs }: { readonly now: Millis; readonly pauseMs: number },
  ): boolean {
    const to = asHeight(Math.max(last, this.#match.get(replica) ?? 0) + 1);
    const before = this.#backedUp.get(replica);
    if (to >= this.nextOf(replica) || (before?.to === to && now - before.when < pauseMs)) return false;
    this.#backedUp.set(replica, { to, when: now });
    this.#next.set(replica, to);
    return true;
  }

  dump() {
    return { match: this.#match, next: this.#next, backedUp: this.#backedUp };
  }

  load({ match, next, backedUp }: ReturnType<Progress['dump']>): void {
    this.#match = match;
    this.#next = next;
    this.#backedUp = backedUp;
  }
}
