// Multi-Paxos: Lamport, Paxos Made Simple (2001), section 3; The Part-Time Parliament (1998), section 3. To the synod of section 2 it adds a leader:
// one replica runs phase 1 once, for all open slots, and from then on phase 2 alone, many slots at a time.
//
// Read beside acceptor.ts, proposer.ts and learner.ts, which do the deciding; what stands here is who proposes, and when.

import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import type { Wait } from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import { CrashCore } from '../crash/core.ts';
import { Election, isLeaderless } from '../crash/election.ts';
import type { Lead } from '../crash/hand-over.ts';
import { with_ } from '../crash/narrow.ts';
import { bundlesFor, extendChain } from '../crash/propose.ts';
import type { Reading } from '../crash/reads.ts';
import { isValue } from '../crash/value.ts';
import type {
  Accept,
  Accepted,
  PaxosPrepare,
  PaxosPromise,
  ReplicaMessage,
  ReplicaPledge,
  Verified,
} from '../messages.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { Acceptor } from './acceptor.ts';
import { waitForAcceptance, waitsOf } from './explain.ts';
import { decodeHardState } from './hard-state.ts';
import type { Cast, IsQuorum } from './learner.ts';
import { Learner } from './learner.ts';
import { Lease } from './lease.ts';
import type { Bound, Bounds, Promises, Report } from './proposer.ts';
import { highest, Proposer } from './proposer.ts';

export class MultiPaxos extends CrashCore {
  protected readonly acceptor = this.makeAcceptor();
  protected readonly proposer = new Proposer();
  protected readonly learner = new Learner();
  /** What the promises bind this leader to, until all of it is proposed again; null: it is free. */
  protected bounds: Bounds | null = null;
  /** The highest ballot that anyone has spoken of. */
  #seen: View = asView(0);
  protected readonly election: Election;
  readonly #lease: Lease;

  constructor(options: CoreOptions, recovery: Recovery, now: Millis) {
    super(options, recovery, now);
    const { hardState, accepted } = this.recoverDecided(recovery);
    const hard = hardState === null ? null : decodeHardState(hardState);
    assert(hard !== undefined, 'the hard state is of a version and a protocol that this program knows');
    this.acceptor.restore(this.s, hard, recovery.guard.view, accepted);
    this.#seen = this.acceptor.promised;
    this.election = new Election(now);
    this.#lease = new Lease(now, this.s.parameters.leaseMs);
  }

  // ---- what the variants change -------------------------------------------------------------------------------------

  protected makeAcceptor(): Acceptor {
    return new Acceptor();
  }

  protected mayLead(_replica: ReplicaId): boolean {
    return true;
  }

  /** Whether these promises are enough to propose. */
  protected isPromised(promises: Promises): boolean {
    return promises.size >= this.s.quorums.quorum;
  }

  /** What binds a proposer to whom this was reported of a slot. */
  protected pick(reports: readonly Report[], asked: number): Bound {
    return highest(reports, asked);
  }

  protected chooses(voters: readonly ReplicaId[], _slot: Height, _cast: Cast): boolean {
    return voters.length >= this.s.quorums.quorum;
  }

  /** Slots that this acceptor looks at. */
  protected takes(slot: Height): boolean {
    return slot > this.s.ledger.height && slot <= this.horizon;
  }

  // ---- who leads ----------------------------------------------------------------------------------------------------

  protected get ballot(): View {
    return asView(Math.max(this.acceptor.promised, this.election.followed));
  }

  protected get leads(): boolean {
    return this.proposer.phase === 'proposing';
  }

  protected get active(): boolean {
    return this.leads || this.election.hears(this.s);
  }

  protected get forwardTo(): ReplicaId | null {
    return !this.leads && this.election.hears(this.s) ? this.ownerOf(this.election.leader) : null;
  }

  /** [PXS-R-1] Whatever was chosen stands at or below what its promises told of, and what it has proposed: a follower may know so before its leader does. */
  protected get reading(): Reading | null {
    const { s, acceptor, election, leads } = this;
    return {
      leads: leads ? this.proposer.ballot : null,
      follows: election.hears(s) ? election.leader : null,
      top: this.top,
      held: s.ledger.height,
      back: (ballot) => {
        const proposer = this.ownerOf(ballot);
        return ballot >= acceptor.promised && this.#lease.grant(proposer, s.now, s.parameters.leaseMs);
      },
      confirms: (backers) => this.confirms(backers),
    };
  }

  protected confirms(backers: ReadonlySet<ReplicaId>): boolean {
    return backers.size >= this.s.quorums.quorum;
  }

  /** Of a leader: the highest slot that it knows of, decided, bound or proposed. */
  protected get top(): Height {
    const { s, bounds, proposer } = this;
    return asHeight(Math.max(s.ledger.height, bounds?.top ?? 0, ...proposer.proposals.keys()));
  }

  protected get elections(): number {
    return this.election.begun;
  }

  /** [PXS-M-3] Its leader speaks. One whose ballot this replica has passed leads it no more. */
  protected heardLeader(ballot: View): void {
    if (ballot >= this.acceptor.promised) this.election.heard(this.s, ballot);
  }

  protected sawBallot(ballot: View): void {
    if (ballot > this.#seen) this.#seen = ballot;
    // [PXS-M-4] Someone was promised more: this leader is none, and waits like everyone.
    if (this.proposer.phase !== 'idle' && ballot > this.proposer.ballot) this.#resign();
  }

  #resign(): void {
    this.proposer.resign();
    this.bounds = null;
    this.dropChain();
    this.election.lost(this.s);
    this.sayStatusSoon();
  }

  /**
   * [PXS-M-2] A replica runs for leader when it has heard none for long enough, and a majority says the same: so one that is cut off in
   * part, or comes back, unseats nobody. Who waits how long follows from its place after the last leader, so that two seldom run at once.
   */
  #runForLeader(): void {
    if (this.election.hears(this.s) || this.s.now < this.#electionAt()) return;
    if (this.mayLead(this.s.self) && isLeaderless(this.s)) this.campaign('no leader is heard');
  }

  #electionAt(): Millis {
    const { promised } = this.acceptor;
    const n = this.members;
    const first = promised === 0;
    const rank = first ? this.s.self : (this.s.self - this.ownerOf(promised) - 1 + n) % n;
    return this.election.dueAt(this.s, { rank, round: Math.floor(promised / n), first });
  }

  /** [PXS-P-1] The next number of its own above all that it has seen. [PXS-P-3] The prepare leaves when its own promise is durable. */
  protected campaign(reason: string): void {
    if (this.#lease.binds(this.s.self, this.s.now)) return; // PXS-R-2: its own promise, too
    const above = Math.max(this.#seen, this.acceptor.promised);
    const n = this.members;
    const ballot = asView(above + 1 + ((((this.s.self - (above + 1)) % n) + n) % n));
    this.#seen = ballot;
    this.election.begin(this.s);
    this.bounds = null;
    this.dropChain();
    this.proposer.begin(ballot);
    this.s.out.events.push({ type: 'view-change-started', view: ballot, reason });
    const promised = this.acceptor.prepare(this.s, ballot, this.s.self);
    assert(promised, 'a number above all that were promised');
  }

  protected giveUp(): void {
    this.#resign();
    this.election.failed(this.s);
  }

  /** [PXS-M-6] Then its successor is bound to nothing that it would have to fetch. */
  protected override get lead(): Lead | null {
    if (!this.leads) return null;
    return {
      mayLead: (replica) => this.mayLead(replica),
      holdsAll: () => this.isFree && this.proposer.proposals.size === 0,
      yieldTo: (replica) => {
        this.s.out.say(replica, { kind: 'take-over', epoch: this.s.epoch, ballot: this.proposer.ballot });
        this.#resign();
      },
    };
  }

  /** [CFT-H-3] The leader that it follows, or followed until now, tells it to run: nobody need be asked first. */
  #onTakeOver(ballot: View): void {
    if (this.proposer.phase !== 'idle' || !this.mayLead(this.s.self)) return;
    if (ballot === this.election.followed && ballot === this.ballot) this.campaign('the leader hands over');
  }

  // ---- what comes in ------------------------------------------------------------------------------------------------

  protected wantsOwn(message: ReplicaMessage, sender: ReplicaId): boolean {
    const { height } = this.s.ledger;
    switch (message.kind) {
      case 'paxos-prepare':
      case 'take-over':
        return this.ownerOf(message.ballot) === sender;
      case 'promise':
        return this.proposer.phase === 'preparing' && message.ballot === this.proposer.ballot;
      case 'accept': {
        return this.ownerOf(message.ballot) === sender && this.takes(message.value.header.height);
      }
      case 'accepted':
        return message.places.some(({ slot }) => slot > height && this.learner.chosen(slot) === undefined);
      case 'reject':
        return message.ballot > this.#seen || this.proposer.phase !== 'idle';
      default:
        return false;
    }
  }

  protected onOwnKind(signed: Verified<ReplicaMessage>): void {
    const { message, sender } = signed;
    switch (message.kind) {
      case 'status': {
        const isOwner = this.ownerOf(message.view) === sender;
        if (isOwner && message.active) {
          this.sawBallot(message.view);
          this.heardLeader(message.view);
        }
        // It says itself that it leads no more.
        else if (isOwner && this.election.leader === message.view && message.view !== 0) this.election.lost(this.s);
        if (message.view > this.#seen) this.#seen = message.view;
        return;
      }
      case 'paxos-prepare':
        return this.#onPrepare(with_(signed, message));
      case 'promise':
        return this.#onPromise(message, sender);
      case 'accept':
        return this.#onAccept(with_(signed, message));
      case 'accepted':
        this.sawBallot(message.ballot);
        for (const { slot, hash } of message.places) this.learn(slot, message.ballot, hash, sender);
        return;
      case 'reject':
        return this.sawBallot(message.ballot);
      case 'take-over':
        return this.#onTakeOver(message.ballot);
      default:
        return;
    }
  }

  protected onPledge(signed: Verified<ReplicaPledge>): void {
    const { message, sender } = signed;
    switch (message.kind) {
      case 'promise':
        if (this.proposer.phase !== 'preparing' || message.ballot !== this.proposer.ballot) return;
        this.s.out.say('all', { kind: 'paxos-prepare', epoch: this.s.epoch, ballot: message.ballot });
        return this.#onPromise(message, sender);
      case 'accepted':
        this.acceptor.said(signed as Verified<Accepted>, this.s.ledger.height); // its kind says so
        for (const { slot, hash } of message.places) this.learn(slot, message.ballot, hash, sender);
        return;
      default:
        return;
    }
  }

  /** [PXS-A-1] [PXS-M-3] While it hears a leader a replica promises nothing to others: it would only unseat it. */
  #onPrepare({ message, sender }: Verified<PaxosPrepare>): void {
    const { ballot } = message;
    if (ballot > this.#seen) this.#seen = ballot;
    if (this.election.hears(this.s) && this.ownerOf(this.election.leader) !== sender) return;
    if (this.#lease.binds(sender, this.s.now)) return; // PXS-R-2
    if (this.leads && this.proposer.ballot >= ballot) return this.reject(sender);
    this.sawBallot(ballot);
    if (!this.acceptor.prepare(this.s, ballot, sender)) return this.reject(sender);
    this.election.wait(this.s);
  }

  #onPromise(promise: PaxosPromise, from: ReplicaId): void {
    const isQuorum = (promises: Promises) => this.isPromised(promises);
    const bounds = this.proposer.onPromise(promise, from, isQuorum, (reports, asked) => this.pick(reports, asked));
    if (bounds === null) return;
    this.bounds = bounds;
    this.election.won(this.s, promise.ballot);
    this.s.out.events.push({ type: 'view-entered', view: promise.ballot, primary: this.s.self });
    this.sayStatusSoon();
  }

  #onAccept({ message, sender }: Verified<Accept>): void {
    const { ballot, value } = message;
    const slot = value.header.height;
    if (!this.takes(slot)) return;
    if (!isValue(value)) return this.s.out.refuse(sender, 'accept', 'not-a-value');
    this.sawBallot(ballot);
    if (this.acceptor.contradicts(ballot, value)) return this.s.out.refuse(sender, 'accept', 'two-values');
    const entered = ballot > this.election.leader;
    const verdict = this.acceptor.accept(this.s, ballot, value);
    if (verdict === 'passed') return this.reject(sender);
    if (entered) this.s.out.events.push({ type: 'view-entered', view: ballot, primary: sender });
    this.hold(value);
    this.heardLeader(ballot);
    if (verdict === 'again') this.acceptor.repeat(this.s, sender);
  }

  protected reject(to: ReplicaId): void {
    this.s.out.say(to, { kind: 'reject', epoch: this.s.epoch, ballot: this.acceptor.promised });
  }

  protected readonly isChosen: IsQuorum = (voters, slot, cast) => this.chooses(voters, slot, cast);

  protected learn(slot: Height, ballot: View, hash: Hash, from: ReplicaId): void {
    if (slot <= this.s.ledger.height || slot > this.horizon) return;
    this.learner.onAccepted(slot, { ballot, hash }, from, this.isChosen);
  }

  // ---- moving on ----------------------------------------------------------------------------------------------------

  protected advance(): void {
    this.#proposeBound();
    while (!this.isOver) {
      const slot = plus.height(this.s.ledger.height, 1);
      const chosen = this.learner.chosen(slot);
      if (chosen === undefined) return;
      const value = this.valueOf(chosen.hash);
      if (value === undefined) return this.s.catchUp.want(this.s, slot, chosen.hash, chosen.holders);
      this.decideValue(value);
    }
  }

  /** [PXS-P-2] [PXS-M-1] What the promises bind it to is proposed again; a slot below it that is free becomes a no-op. */
  #proposeBound(): void {
    const bounds = this.bounds;
    if (bounds === null || !this.leads) return;
    let complete = true;
    for (let at = Math.max(bounds.decided, this.s.ledger.height) + 1; at <= bounds.top; at++) {
      const slot = asHeight(at);
      if (this.proposer.proposals.has(slot)) continue;
      const bound = bounds.slots.get(slot);
      const value = bound === undefined ? this.#noOp(slot) : this.valueOf(bound.hash);
      if (value !== undefined) this.put(value);
      else {
        complete = false;
        this.s.catchUp.want(this.s, slot, bound!.hash, bound!.holders); // it is bound, and not here
      }
      if (!this.leads) return;
    }
    if (complete) this.bounds = { ...bounds, top: bounds.decided, slots: new Map() };
  }

  #noOp(slot: Height): Block {
    return this.makeValue(slot, []);
  }

  /** Whether all that binds this leader is proposed again, and it has decided what it found to be. */
  protected get isFree(): boolean {
    const { leads, bounds, s } = this;
    return leads && bounds !== null && bounds.top === bounds.decided && s.ledger.height >= bounds.decided;
  }

  /** [PXS-M-5] The value goes to the acceptors, this replica's own among them. */
  protected put(value: Block): void {
    const { ballot } = this.proposer;
    this.proposer.proposals.set(value.header.height, value);
    this.hold(value);
    this.s.out.say('all', { kind: 'accept', epoch: this.s.epoch, ballot, value });
    if (this.acceptor.accept(this.s, ballot, value) === 'passed') this.#resign();
  }

  /** [PXS-M-5] As many slots at a time as the window allows, each with what the pool holds. */
  protected propose(): void {
    const { s } = this;
    if (!this.isFree) return;
    const valueAt = (slot: Height) => this.proposer.proposals.get(slot);
    extendChain(s, valueAt);
    while (this.leads) {
      const slot = asHeight(s.ledger.height + s.chain.length + 1);
      const bundles = bundlesFor(s, slot);
      if (bundles === null) return;
      this.put(this.makeValue(slot, bundles));
      extendChain(s, valueAt);
    }
  }

  protected flush(): void {
    this.acceptor.flush(this.s);
  }

  protected forget(height: Height): void {
    this.acceptor.forget(height);
    this.proposer.forget(height);
    this.learner.forget(height);
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  protected onTime(): void {
    const { s } = this;
    const { viewTimeoutMs: timeout } = s.parameters;
    if (this.proposer.phase === 'idle') return this.#runForLeader();
    // [PXS-M-4] Nobody leads whom no majority answers: cut off, or its promises do not come.
    const cutOff = this.heardWithin(timeout) < s.quorums.quorum && s.now - this.election.since > timeout;
    const unanswered = this.proposer.phase === 'preparing' && s.now - this.election.since > timeout;
    const bounds = this.bounds;
    // What it is bound to propose is not to be had: perhaps of those who promise next.
    const bound = bounds !== null && bounds.top > bounds.decided && s.now - this.election.since > 4 * timeout;
    if (cutOff || unanswered || bound) this.giveUp();
  }

  protected deadline(): Millis {
    const { viewTimeoutMs: timeout } = this.s.parameters;
    const at = this.proposer.phase === 'idle' ? this.#electionAt() : plus.millis(this.election.since, timeout + 1);
    // Later than this only by what a heartbeat brings.
    return at > this.s.now ? at : plus.millis(this.s.now, this.s.parameters.heartbeatMs);
  }

  protected forgive(lateMs: number): void {
    this.election.forgive((at) => this.later(at, lateMs));
  }

  protected get stuck(): boolean {
    return this.proposer.phase === 'preparing' || this.proposer.proposals.size > 0 || this.acceptor.open > 0;
  }

  protected sayAgain(to: ReplicaId | 'all'): void {
    const { out, epoch } = this.s;
    const { ballot, phase, promisers, proposals } = this.proposer;
    if (phase === 'preparing' && promisers.includes(this.s.self)) out.say(to, { kind: 'paxos-prepare', epoch, ballot });
    if (phase === 'proposing')
      for (const value of proposals.values()) out.say(to, { kind: 'accept', epoch, ballot, value });
    this.acceptor.repeat(this.s, to);
  }

  // ---- explained ----------------------------------------------------------------------------------------------------

  protected waits(): Wait[] {
    const { s, ballot, active, proposer, election } = this;
    const leader = this.ownerOf(ballot);
    const acceptance = (slot: Height, since: Millis) => this.acceptance(slot, since);
    return waitsOf(s, { ballot, active, leader, proposer, election, acceptance });
  }

  protected acceptance(slot: Height, since: Millis): Wait {
    const { s, ballot } = this;
    const among = s.genesis.members.map(({ id }) => id);
    return waitForAcceptance(s, ballot, this.acceptedBy(slot), { slot, need: s.quorums.quorum, among, since });
  }

  protected acceptedBy(height: Height): { readonly hash: Hash; readonly by: readonly ReplicaId[] }[] {
    return this.learner.casts(height);
  }

  dump() {
    return {
      acceptor: this.acceptor.dump(),
      proposer: this.proposer.dump(),
      learner: this.learner.dump(),
      bounds: this.bounds,
      seen: this.#seen,
      election: this.election.dump(),
      lease: this.#lease.dump(),
    };
  }

  load({ acceptor, proposer, learner, bounds, seen, election, lease }: ReturnType<MultiPaxos['dump']>): void {
    this.acceptor.load(acceptor);
    this.proposer.load(proposer);
    this.learner.load(learner);
    this.bounds = bounds;
    this.#seen = seen;
    this.election.load(election);
    this.#lease.load(lease);
  }
}
