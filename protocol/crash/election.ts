// Who leads, as one replica hears it, and when it may run itself: the same for every protocol with a leader. Time is given in; nothing is random,
// for a core is a function of its inputs (GEN-2).

import type { Millis, ReplicaId, View } from '../types.ts';
import { asMillis, asView } from '../types.ts';
import type { CrashState } from './state.ts';

export class Election {
  /** The view of the leader that is heard; 0: none is. */
  #leader: View = asView(0);
  /** The highest view of any leader that was heard since the start. */
  #followed: View = asView(0);
  /** When its leader was last heard, or it last led itself. */
  #heardAt: Millis;
  #leads = false;
  /** When this replica last began to wait for a leader, or to be one. */
  #since: Millis;
  /** Elections of its own that failed in a row. */
  #failed = 0;
  #begun = 0;

  constructor(now: Millis) {
    this.#heardAt = now;
    this.#since = now;
  }

  get leader(): View {
    return this.#leader;
  }

  get followed(): View {
    return this.#followed;
  }

  get since(): Millis {
    return this.#since;
  }

  /** Of who hears no leader, and is none: when that began. */
  get leaderlessSince(): Millis {
    return this.#heardAt;
  }

  /** Elections that this replica has begun since its start. */
  get begun(): number {
    return this.#begun;
  }

  hears({ now, parameters }: CrashState): boolean {
    return this.#leader !== 0 && now - this.#heardAt <= parameters.viewTimeoutMs;
  }

  /** Its leader speaks: nobody else is to be elected. A new one is given every bundle. */
  heard(s: CrashState, view: View): void {
    if (this.#leader !== view) s.pool.beginView();
    this.#leader = view;
    if (view > this.#followed) this.#followed = view;
    this.#heardAt = s.now;
    this.#leads = false;
    this.#failed = 0;
  }

  lost(s: CrashState): void {
    if (this.#leads) this.#heardAt = s.now;
    this.#leads = false;
    this.#leader = asView(0);
    this.#since = s.now;
  }

  /** Someone else may lead soon: nobody need run before that has failed. */
  wait(s: CrashState): void {
    this.#since = s.now;
  }

  begin(s: CrashState): void {
    this.lost(s);
    this.#begun += 1;
  }

  won(s: CrashState, view: View): void {
    this.#leads = true;
    this.#since = s.now;
    this.#failed = 0;
    if (view > this.#followed) this.#followed = view;
  }

  failed(s: CrashState): void {
    this.#failed += 1;
    this.lost(s);
  }

  /**
   * [CFT-E-1] When a replica may run that hears no leader: after T without one, a quarter more for those who must notice too, and half of T for each
   * place after the last leader, so that two seldom run at once. `rank` is that place, from 0; before the first election nobody waits.
   * Replicas may know of different leaders, and take the same place then, again and again: who has failed takes one by its own number, another in
   * each `round`, the term or what is like one.
   */
  dueAt(
    { parameters, self, genesis }: CrashState,
    last: { readonly rank: number; readonly round: number; readonly first: boolean },
  ): Millis {
    const timeout = parameters.viewTimeoutMs;
    const backoff = 2 ** Math.min(this.#failed, 4);
    const { first, round } = last;
    const rank = this.#failed === 0 ? last.rank : (self + round) % genesis.members.length;
    const since = Math.max(this.#since, this.#leader === 0 ? 0 : this.#heardAt + timeout);
    return asMillis(Math.ceil(since + (first ? 0 : timeout / 4) + (rank * backoff * timeout) / 2));
  }

  /** This replica was late: what it did not hear meanwhile is nobody's fault. */
  forgive(later: (at: Millis) => Millis): void {
    this.#heardAt = later(this.#heardAt);
    this.#since = later(this.#since);
  }

  dump() {
    return {
      leader: this.#leader,
      followed: this.#followed,
      heardAt: this.#heardAt,
      leads: this.#leads,
      since: this.#since,
      failed: this.#failed,
      begun: this.#begun,
    };
  }

  load({ leader, followed, heardAt, leads, since, failed, begun }: ReturnType<Election['dump']>): void {
    this.#leader = leader;
    this.#followed = followed;
    this.#heardAt = heardAt;
    this.#leads = leads;
    this.#since = since;
    this.#failed = failed;
    this.#begun = begun;
  }
}

/** Who said of late that it hears no leader, this replica included. */
export function leaderless({ now, self, peers, parameters, epoch }: CrashState): ReplicaId[] {
  const found = [self];
  for (const [replica, { connected, status, heardAt }] of peers)
    if (
      connected &&
      status?.active === false &&
      status.epoch === epoch &&
      heardAt !== null &&
      now - heardAt <= 2 * parameters.viewTimeoutMs
    )
      found.push(replica);
  return found;
}

/** Whether a majority says so: else whoever runs would only unseat a leader. */
export const isLeaderless = (s: CrashState): boolean => leaderless(s).length >= s.quorums.quorum;
