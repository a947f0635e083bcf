// Basic Paxos: Lamport, Paxos Made Simple (2001), section 2. One synod for each slot, the next one alone; any replica that has something to order runs it, phase 1 and
// phase 2, every time. Nobody leads, so proposers may duel (section 2.4); whoever was passed backs off for a while that is longer each time and drawn anew.
//
// The reference that the others of this folder are read against: who proposes and when stands here, the deciding in acceptor.ts, proposer.ts, learner.ts.

import { assert } from '../assert.ts';
import type { Wait } from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import { CrashCore } from '../crash/core.ts';
import { waitOf } from '../crash/explain.ts';
import { with_ } from '../crash/narrow.ts';
import type { Reading } from '../crash/reads.ts';
import { isValue } from '../crash/value.ts';
import { LayoutWriter } from '../layout.ts';
import type { Accept, Accepted, PaxosPromise, ReplicaMessage, ReplicaPledge, Verified } from '../messages.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { Acceptor } from './acceptor.ts';
import { waitForAcceptance } from './explain.ts';
import { decodeHardState } from './hard-state.ts';
import { Learner } from './learner.ts';
import type { Bounds } from './proposer.ts';
import { Proposer } from './proposer.ts';

export class BasicPaxos extends CrashCore {
  readonly #acceptor = new Acceptor();
  readonly #proposer = new Proposer();
  readonly #learner = new Learner();
  /** What the promises of the running ballot bind it to; null: they are not there yet, or it has proposed. */
  #bounds: Bounds | null = null;
  /** The highest ballot that anyone has spoken of. */
  #seen: View;
  #begunAt: Millis;
  /** [PXS-B-3] Nothing is begun before then. */
  #restsUntil: Millis;
  /** Ballots of its own that were passed or unanswered since something was last decided. */
  #failed = 0;
  #begun = 0;

  constructor(options: CoreOptions, recovery: Recovery, now: Millis) {
    super(options, recovery, now);
    const { hardState, accepted } = this.recoverDecided(recovery);
    const hard = hardState === null ? null : decodeHardState(hardState);
    assert(hard !== undefined, 'the hard state is of a version and a protocol that this program knows');
    this.#acceptor.restore(this.s, hard, recovery.guard.view, accepted);
    this.#seen = this.#acceptor.promised;
    this.#begunAt = now;
    this.#restsUntil = now;
  }

  // ---- nobody leads ---------------------------------------------------------------------------------------------------

  /** The same for ever: there is no leader to be followed. Clients go to member 0 first, and to any other as well. */
  protected get ballot(): View {
    return asView(0);
  }

  protected get active(): boolean {
    return this.heardWithin(2 * this.s.parameters.viewTimeoutMs) >= this.s.quorums.quorum;
  }

  protected get leads(): boolean {
    return this.#proposer.phase === 'proposing';
  }

  protected get forwardTo(): ReplicaId | null {
    return null;
  }

  /**
   * [PXS-B-4] A quorum read: Charapko, Ailijiang and Demirbas, Linearizable Quorum Reads in Paxos (HotStorage 2019). Nobody leads, so each asks for itself, under a number of its own that
   * never changes: of any majority one has accepted in the highest slot in which something was chosen, or has decided it.
   */
  protected get reading(): Reading {
    const { s } = this;
    const held = asHeight(Math.max(s.ledger.height, this.#acceptor.topOf()));
    return {
      leads: asView(this.members + s.self),
      follows: null,
      top: held,
      held,
      back: () => true,
      confirms: ({ size }) => size >= s.quorums.quorum,
    };
  }

  protected get elections(): number {
    return this.#begun;
  }

  // ---- the proposer ---------------------------------------------------------------------------------------------------

  get #slot(): Height {
    return plus.height(this.s.ledger.height, 1);
  }

  /** [PXS-B-1] Begins the synod of the next slot: for its own bundles, or to end one that someone else has left. */
  protected propose(): void {
    const { s } = this;
    if (this.#proposer.phase !== 'idle' || s.now < this.#restsUntil || !this.active) return;
    if (this.#slot > s.checkpoints.anchorHeight + 4 * s.parameters.checkpointInterval) return;
    const left = this.#acceptor.open > 0 && s.now - s.decidedAt > s.parameters.viewTimeoutMs;
    if (!left && s.pool.pick([], s.ledger, s.parameters).length === 0) return;
    const n = this.members;
    const above = Math.max(this.#seen, this.#acceptor.promised) + 1;
    const ballot = asView(above + ((((s.self - above) % n) + n) % n)); // PXS-P-1
    this.#seen = ballot;
    this.#begunAt = s.now;
    this.#begun += 1;
    this.#bounds = null;
    this.#proposer.begin(ballot);
    assert(this.#acceptor.prepare(s, ballot, s.self), 'a number above all that were promised');
  }

  /** [PXS-P-2] Phase 2a: what the promises bind it to, or what its pool holds. */
  #proposeValue(): void {
    const { s } = this;
    const bounds = this.#bounds;
    if (bounds === null || this.#proposer.phase !== 'proposing') return;
    // Somewhere it is decided: catch-up brings it.
    if (bounds.decided >= this.#slot) return this.#rest();
    const slot = this.#slot;
    const bound = bounds.slots.get(slot);
    const bundles = bound === undefined ? s.pool.pick([], s.ledger, s.parameters) : [];
    // What it began for was ordered meanwhile: nothing need be proposed.
    if (bound === undefined && bundles.length === 0) return this.#rest();
    const value = bound === undefined ? this.makeValue(slot, bundles) : this.valueOf(bound.hash);
    if (value === undefined) return s.catchUp.want(s, slot, bound!.hash, bound!.holders); // it is bound, and not here
    this.#bounds = null;
    this.#proposer.proposals.set(slot, value);
    this.hold(value);
    s.out.say('all', { kind: 'accept', epoch: s.epoch, ballot: this.#proposer.ballot, value });
    if (this.#acceptor.accept(s, this.#proposer.ballot, value) === 'passed') this.#rest();
  }

  /** [PXS-B-3] Backs off: up to four heartbeats, doubled with each failure, and drawn anew from its own number and the ballot's. */
  #rest(): void {
    const { s } = this;
    const { ballot } = this.#proposer;
    this.#proposer.resign();
    this.#bounds = null;
    this.#failed += 1;
    const drawn = s.sha256(new LayoutWriter(16).u64(ballot).u64(s.self).done());
    const share = ((drawn[0]! << 8) | drawn[1]!) / 0x1_0000;
    const longest = 4 * s.parameters.heartbeatMs * 2 ** Math.min(this.#failed, 6);
    this.#restsUntil = plus.millis(s.now, Math.ceil(share * longest));
  }

  #saw(ballot: View): void {
    if (ballot > this.#seen) this.#seen = ballot;
    if (this.#proposer.phase !== 'idle' && ballot > this.#proposer.ballot) this.#rest();
  }

  // ---- what comes in ------------------------------------------------------------------------------------------------

  protected wantsOwn(message: ReplicaMessage, sender: ReplicaId): boolean {
    const { height } = this.s.ledger;
    switch (message.kind) {
      case 'paxos-prepare':
        return this.ownerOf(message.ballot) === sender;
      case 'accept':
        return this.ownerOf(message.ballot) === sender && message.value.header.height === height + 1;
      case 'promise':
        return this.#proposer.phase === 'preparing' && message.ballot === this.#proposer.ballot;
      case 'accepted':
        return message.places.some(({ slot }) => slot > height && this.#learner.chosen(slot) === undefined);
      case 'reject':
        return message.ballot > this.#seen || this.#proposer.phase !== 'idle';
      default:
        return false;
    }
  }

  protected onOwnKind(signed: Verified<ReplicaMessage>): void {
    const { message, sender } = signed;
    switch (message.kind) {
      case 'paxos-prepare': {
        this.#saw(message.ballot);
        if (!this.#acceptor.prepare(this.s, message.ballot, sender)) return this.#reject(sender);
        // [PXS-B-2] One at a time, as far as it is seen: this one may first end what it has begun.
        const pause = plus.millis(this.s.now, this.s.parameters.heartbeatMs);
        if (this.#restsUntil < pause) this.#restsUntil = pause;
        return;
      }
      case 'promise':
        return this.#onPromise(message, sender);
      case 'accept':
        return this.#onAccept(with_(signed, message));
      case 'accepted':
        this.#saw(message.ballot);
        for (const { slot, hash } of message.places) this.#learn(slot, message.ballot, hash, sender);
        return;
      case 'reject':
        return this.#saw(message.ballot);
      default:
        return;
    }
  }

  protected onPledge(signed: Verified<ReplicaPledge>): void {
    const { message, sender } = signed;
    switch (message.kind) {
      case 'promise':
        if (this.#proposer.phase !== 'preparing' || message.ballot !== this.#proposer.ballot) return;
        this.s.out.say('all', { kind: 'paxos-prepare', epoch: this.s.epoch, ballot: message.ballot }); // PXS-P-3
        return this.#onPromise(message, sender);
      case 'accepted':
        this.#acceptor.said(signed as Verified<Accepted>, this.s.ledger.height); // its kind says so
        for (const { slot, hash } of message.places) this.#learn(slot, message.ballot, hash, sender);
        return;
      default:
        return;
    }
  }

  #onPromise(promise: PaxosPromise, from: ReplicaId): void {
    this.#bounds = this.#proposer.onPromise(promise, from, ({ size }) => size >= this.s.quorums.quorum) ?? this.#bounds;
  }

  #onAccept({ message, sender }: Verified<Accept>): void {
    const { ballot, value } = message;
    if (value.header.height !== this.#slot) return;
    if (!isValue(value)) return this.s.out.refuse(sender, 'accept', 'not-a-value');
    this.#saw(ballot);
    if (this.#acceptor.contradicts(ballot, value)) return this.s.out.refuse(sender, 'accept', 'two-values');
    const verdict = this.#acceptor.accept(this.s, ballot, value);
    if (verdict === 'passed') return this.#reject(sender);
    this.hold(value);
    if (verdict === 'again') this.#acceptor.repeat(this.s, sender);
  }

  #reject(to: ReplicaId): void {
    this.s.out.say(to, { kind: 'reject', epoch: this.s.epoch, ballot: this.#acceptor.promised });
  }

  #learn(slot: Height, ballot: View, hash: Hash, from: ReplicaId): void {
    if (slot <= this.s.ledger.height || slot > this.horizon) return;
    const { quorum } = this.s.quorums;
    this.#learner.onAccepted(slot, { ballot, hash }, from, ({ length }) => length >= quorum);
  }

  // ---- moving on ----------------------------------------------------------------------------------------------------

  protected advance(): void {
    this.#proposeValue();
    while (!this.isOver) {
      const chosen = this.#learner.chosen(this.#slot);
      if (chosen === undefined) return;
      const value = this.valueOf(chosen.hash);
      if (value === undefined) return this.s.catchUp.want(this.s, this.#slot, chosen.hash, chosen.holders);
      this.decideValue(value);
    }
  }

  protected flush(): void {
    this.#acceptor.flush(this.s);
  }

  /** The synod of this slot is over, and with it the ballot. */
  protected forget(height: Height): void {
    this.#acceptor.forget(height);
    this.#learner.forget(height);
    this.#proposer.resign();
    this.#bounds = null;
    this.#failed = 0;
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  protected onTime(): void {
    const unanswered = this.s.now - this.#begunAt > this.s.parameters.viewTimeoutMs;
    if (this.#proposer.phase !== 'idle' && unanswered) this.#rest();
  }

  protected deadline(): Millis {
    const { s } = this;
    const at =
      this.#proposer.phase === 'idle' ? this.#restsUntil : plus.millis(this.#begunAt, s.parameters.viewTimeoutMs + 1);
    return at > s.now ? at : plus.millis(s.now, s.parameters.heartbeatMs);
  }

  protected forgive(lateMs: number): void {
    this.#begunAt = this.later(this.#begunAt, lateMs);
  }

  protected get stuck(): boolean {
    return this.#proposer.phase !== 'idle' || this.#acceptor.open > 0;
  }

  protected sayAgain(to: ReplicaId | 'all'): void {
    const { out, epoch, self } = this.s;
    const { ballot, phase, promisers, proposals } = this.#proposer;
    if (phase === 'preparing' && promisers.includes(self)) out.say(to, { kind: 'paxos-prepare', epoch, ballot });
    for (const value of proposals.values()) out.say(to, { kind: 'accept', epoch, ballot, value });
    this.#acceptor.repeat(this.s, to);
  }

  // ---- explained ----------------------------------------------------------------------------------------------------

  protected waits(): Wait[] {
    const { s } = this;
    const { phase, promisers } = this.#proposer;
    const slot = this.#slot;
    const since = this.#begunAt;
    if (phase === 'idle') return [];
    if (phase === 'preparing')
      return [waitOf(s, this.ballot, { what: 'phase-1', height: slot, have: promisers, since })];
    const among = s.genesis.members.map(({ id }) => id);
    const { quorum: need } = s.quorums;
    return [waitForAcceptance(s, this.ballot, this.acceptedBy(slot), { slot, need, among, since })];
  }

  protected acceptedBy(height: Height): { readonly hash: Hash; readonly by: readonly ReplicaId[] }[] {
    return this.#learner.casts(height);
  }

  dump() {
    return {
      acceptor: this.#acceptor.dump(),
      proposer: this.#proposer.dump(),
      learner: this.#learner.dump(),
      bounds: this.#bounds,
      seen: this.#seen,
      begunAt: this.#begunAt,
      restsUntil: this.#restsUntil,
      failed: this.#failed,
      begun: this.#begun,
    };
  }

  load(fields: ReturnType<BasicPaxos['dump']>): void {
    this.#acceptor.load(fields.acceptor);
    this.#proposer.load(fields.proposer);
    this.#learner.load(fields.learner);
    this.#bounds = fields.bounds;
    this.#seen = fields.seen;
    this.#begunAt = fields.begunAt;
    this.#restsUntil = fields.restsUntil;
    this.#failed = fields.failed;
    this.#begun = fields.begun;
  }
}
