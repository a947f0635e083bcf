// Fast Paxos: Lamport (2006). Multi-Paxos, but in a ballot that its leader has opened every replica sends its values straight to the acceptors, which takes one
// message delay less, and more of them: a fast quorum. Where two values meet in one slot, the leader of the ballot settles it in the classic round of the same ballot (coordinated
// recovery, section 3.2). Where they meet too often, or too few answer, it takes a new ballot, orders all by itself, and opens one again later.

import { toHex } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Wait } from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import { openSince } from '../crash/explain.ts';
import { with_ } from '../crash/narrow.ts';
import { bundlesFor } from '../crash/propose.ts';
import type { Reading } from '../crash/reads.ts';
import { chained, isValue } from '../crash/value.ts';
import type { FastAccept, FastAccepted, OpenRound, ReplicaMessage, ReplicaPledge, Verified } from '../messages.ts';
import { fastQuorum } from '../quorum.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { Acceptor } from './acceptor.ts';
import { waitForAcceptance } from './explain.ts';
import type { Cast } from './learner.ts';
import { MultiPaxos } from './multi.ts';
import type { Bound, Report } from './proposer.ts';
import { highest } from './proposer.ts';

/** A ballot has two rounds: an even number for the fast one, and the next one for the classic. */
const roundOf = (ballot: View, fast: boolean): View => asView(2 * ballot + (fast ? 0 : 1));
const isFast = (round: View): boolean => round % 2 === 0;

/** Collisions weigh 1, and each block that came of none takes a quarter away: at this much the leader orders by itself. */
const COLLISIONS_MAX = 3;
/** Then for 2 T at first, and twice as long each time, at most so many times. */
const DOUBLINGS_MAX = 6;

export class FastPaxos extends MultiPaxos {
  readonly #quorum: number;
  /** The open ballot that this acceptor knows of, and from which slot on; of no use where it has promised a higher one. */
  #open: { readonly ballot: View; readonly from: Height } | null = null;
  /** As a leader: slots of its ballot that could have been settled before now are settled then. */
  #patience = new Map<Height, Millis>();
  #collisions = 0;
  #closings = 0;
  /** It opens no ballot before then. */
  #closedUntil: Millis;
  #openedAt: Millis;
  /** Since when it has accepted something that is not decided; now, while there is nothing. */
  #busySince: Millis;
  #saidOpenAt: Millis;

  constructor(options: CoreOptions, recovery: Recovery, now: Millis) {
    super(options, recovery, now);
    this.#quorum = fastQuorum(this.members);
    this.#closedUntil = now;
    this.#openedAt = now;
    this.#busySince = now;
    this.#saidOpenAt = now;
  }

  protected override makeAcceptor(): Acceptor {
    return new Acceptor(roundOf);
  }

  // ---- who counts -----------------------------------------------------------------------------------------------------

  /** [FST-Q-1] A majority in a classic round, in a fast one a fast quorum. */
  protected override chooses(voters: readonly ReplicaId[], _slot: Height, { ballot }: Cast): boolean {
    return voters.length >= (isFast(ballot) ? this.#quorum : this.s.quorums.quorum);
  }

  /**
   * [FST-P-1] (section 3.3.1, observation 4) What binds whoever was told this of a slot by `asked` acceptors. Of a classic round the one value. Of a fast
   * round the one value, if there is one, that all of them in some fast quorum may have accepted. Without it nothing was chosen, and any of them will do.
   */
  protected override pick(reports: readonly Report[], asked: number): Bound {
    const last = highest(reports, asked);
    if (!isFast(last.ballot)) return last;
    const found = new Map<string, Report[]>();
    for (const report of reports) {
      if (report.ballot !== last.ballot) continue;
      const name = toHex(report.hash);
      found.set(name, [...(found.get(name) ?? []), report]);
    }
    const byVotes = [...found].sort(([a, x], [b, y]) => y.length - x.length || (a < b ? -1 : 1));
    const votes = byVotes[0]![1];
    const mayBeChosen = asked + this.#quorum - this.members;
    assert((byVotes[1]?.[1].length ?? 0) < mayBeChosen, 'of one slot and fast round one value at most may be chosen');
    return { ballot: last.ballot, hash: votes[0]!.hash, holders: votes.map(({ by }) => by) };
  }

  protected override learn(slot: Height, ballot: View, hash: Hash, from: ReplicaId): void {
    super.learn(slot, roundOf(ballot, false), hash, from);
  }

  // ---- an open ballot -------------------------------------------------------------------------------------------------

  /** The slot from which on values go straight to the acceptors; null: they go to the leader. */
  get #openFrom(): Height | null {
    if (this.#open === null || this.#open.ballot !== this.acceptor.promised) return null;
    if (!this.leads) return this.election.hears(this.s) ? this.#open.from : null;
    return this.#open.ballot === this.proposer.ballot ? this.#open.from : null;
  }

  /** [FST-R-1] What may be chosen in a fast round its leader need not have proposed, but of each majority one has accepted it, and says so. */
  protected override get reading(): Reading | null {
    const reading = super.reading;
    if (reading === null) return null;
    const held = asHeight(Math.max(reading.held, this.acceptor.topOf(roundOf(this.acceptor.promised, true))));
    return { ...reading, held, top: asHeight(Math.max(reading.top, held)) };
  }

  protected override get forwardTo(): ReplicaId | null {
    return this.#openFrom === null ? super.forwardTo : null;
  }

  /** [FST-A-2] Its own values, each in the first slot in which this acceptor has accepted none. */
  protected override propose(): void {
    const from = this.#openFrom;
    if (from === null) return super.propose();
    const { s } = this;
    this.#followAccepted();
    for (;;) {
      const slot = asHeight(s.ledger.height + s.chain.length + 1);
      const bundles = slot < from ? null : bundlesFor(s, slot);
      if (bundles === null) return;
      const value = this.makeValue(slot, bundles);
      const { promised: ballot } = this.acceptor;
      s.out.say('all', { kind: 'fast-accept', epoch: s.epoch, ballot, value });
      this.hold(value);
      const verdict = this.acceptor.accept(s, ballot, value, { fast: true });
      assert(verdict === 'accepted', 'nothing was accepted in this slot');
      this.#followAccepted();
    }
  }

  /** The blocks that come of what this acceptor has accepted, if it is chosen: what the pool is picked against. */
  #followAccepted(): void {
    const { s } = this;
    const at = (index: number) => this.acceptor.acceptedIn(asHeight(s.ledger.height + 1 + index))?.value;
    if (s.chainOf.some((hash, index) => toHex(hash) !== toHex(at(index)?.hash ?? NOTHING))) this.dropChain();
    while (!s.ledger.endsEpoch(s.chain)) {
      const value = at(s.chain.length);
      if (value === undefined) return;
      s.chain.push(chained(s.ledger, s.chain, value));
      s.chainOf.push(value.hash);
    }
  }

  #onOpenRound({ ballot, from }: OpenRound, sender: ReplicaId): void {
    if (ballot < this.acceptor.promised) return this.reject(sender);
    this.sawBallot(ballot);
    this.heardLeader(ballot);
    if (this.#open?.ballot === ballot) return;
    this.#open = { ballot, from };
    this.s.mayPropose = true;
  }

  /** [FST-A-1] Accepts the first value that comes for a slot of an open ballot. */
  #onFastAccept({ message, sender }: Verified<FastAccept>): void {
    const { ballot, value } = message;
    const slot = value.header.height;
    if (!this.takes(slot)) return;
    if (!isValue(value)) return this.s.out.refuse(sender, message.kind, 'not-a-value');
    if (ballot < this.acceptor.promised) return this.reject(sender);
    if (this.#open?.ballot !== ballot || slot < this.#open.from) return; // its proposer says it again
    this.hold(value);
    if (this.acceptor.accept(this.s, ballot, value, { fast: true }) === 'again') this.acceptor.repeat(this.s, sender);
  }

  #onFastAccepted({ ballot, places }: FastAccepted, from: ReplicaId): void {
    this.sawBallot(ballot);
    for (const { slot, hash } of places) super.learn(slot, roundOf(ballot, true), hash, from);
  }

  // ---- its leader -----------------------------------------------------------------------------------------------------

  protected override advance(): void {
    super.advance();
    if (!this.isOver && this.leads && this.#openFrom !== null) this.#settle();
  }

  /**
   * [FST-C-1] Coordinated recovery: what acceptors say of the fast round is what they would promise for the classic round of the same ballot, for
   * nobody else has a round between the two. From a classic quorum of them the leader knows what it must propose there.
   */
  #settle(): void {
    const { s } = this;
    const { ballot } = this.proposer;
    const round = roundOf(ballot, true);
    for (let at = s.ledger.height + 1; at <= s.ledger.height + s.parameters.window; at++) {
      const slot = asHeight(at);
      if (this.proposer.proposals.has(slot) || this.learner.chosen(slot) !== undefined) continue;
      const reports = this.learner
        .votes(slot)
        .flatMap(([by, cast]): Report[] => (cast.ballot === round ? [{ slot, ...cast, by }] : []));
      if (reports.length < s.quorums.quorum) continue;
      const since = this.#patience.get(slot) ?? s.now;
      this.#patience.set(slot, since);
      const bound = this.pick(reports, reports.length);
      const collided = bound.holders.length + this.members - reports.length < this.#quorum;
      if (!collided && s.now - since <= s.parameters.viewTimeoutMs / 4) continue;
      const value = this.valueOf(bound.hash);
      if (value === undefined) s.catchUp.want(s, slot, bound.hash, bound.holders);
      else {
        if (collided) this.#collisions += 1;
        this.put(value);
      }
    }
  }

  protected override onTime(): void {
    super.onTime();
    if (!this.leads) return;
    const { s } = this;
    const { viewTimeoutMs: timeout, heartbeatMs } = s.parameters;
    const enough = this.heardWithin(timeout) >= this.#quorum;
    if (this.#openFrom === null) {
      if (enough && this.isFree && s.now >= this.#closedUntil) this.#openRound();
      return;
    }
    if (s.now - this.#openedAt > 16 * timeout) this.#closings = 0;
    // [FST-C-2]
    if (this.acceptor.open === 0) this.#busySince = s.now;
    const stuck = s.now - Math.max(s.decidedAt, this.#busySince) > timeout;
    const why = !enough
      ? 'too few answer for a fast quorum'
      : stuck
        ? 'nothing is chosen in the fast round'
        : this.#collisions >= COLLISIONS_MAX
          ? 'values collide too often'
          : null;
    if (why !== null) {
      this.#closings += 1;
      this.#closedUntil = plus.millis(s.now, timeout * 2 ** Math.min(this.#closings, DOUBLINGS_MAX));
      return this.campaign(why);
    }
    if (s.now - this.#saidOpenAt >= heartbeatMs) this.#sayOpen('all');
  }

  /** [FST-A-1] The "any" message, for all slots above those that it has proposed something in. */
  #openRound(): void {
    const { s, proposer } = this;
    const top = Math.max(s.ledger.height, this.bounds?.decided ?? 0, ...proposer.proposals.keys());
    this.#open = { ballot: proposer.ballot, from: asHeight(top + 1) };
    this.#openedAt = s.now;
    this.#busySince = s.now;
    this.#collisions = 0;
    this.#patience.clear();
    s.mayPropose = true;
    this.#sayOpen('all');
  }

  #sayOpen(to: ReplicaId | 'all'): void {
    if (this.#open === null || this.#open.ballot !== this.proposer.ballot) return;
    if (to === 'all') this.#saidOpenAt = this.s.now;
    this.s.out.say(to, { kind: 'open-round', epoch: this.s.epoch, ...this.#open });
  }

  /** In an open ballot nobody waits for a leader: a fast quorum must accept what stands in each slot. */
  protected override waits(): Wait[] {
    const { s, ballot, acceptor, proposer } = this;
    const waits = super.waits();
    if (this.#openFrom === null || !this.active) return waits;
    const all = s.genesis.members.map(({ id }) => id);
    const fast: Wait[] = [];
    for (let at = s.ledger.height + 1; at <= s.ledger.height + s.parameters.window; at++) {
      const slot = asHeight(at);
      const casts = this.acceptedBy(slot);
      const held = acceptor.acceptedIn(slot) !== undefined;
      if (proposer.proposals.has(slot) || (!held && casts.length === 0)) continue;
      const among = all.filter((id) => held || id !== s.self); // it may not have come here
      fast.push(waitForAcceptance(s, ballot, casts, { slot, need: this.#quorum, among, since: openSince(s) }));
    }
    return [...waits.filter(({ what }) => what !== 'pre-prepare'), ...fast];
  }

  // ---- as in Multi-Paxos, but for these -------------------------------------------------------------------------------

  protected override wantsOwn(message: ReplicaMessage, sender: ReplicaId): boolean {
    switch (message.kind) {
      case 'open-round':
        return this.ownerOf(message.ballot) === sender;
      case 'fast-accept':
        return this.takes(message.value.header.height);
      case 'fast-accepted':
        return message.places.some(({ slot }) => this.takes(slot) && this.learner.chosen(slot) === undefined);
      default:
        return super.wantsOwn(message, sender);
    }
  }

  protected override onOwnKind(signed: Verified<ReplicaMessage>): void {
    const { message, sender } = signed;
    if (message.kind === 'open-round') return this.#onOpenRound(message, sender);
    if (message.kind === 'fast-accept') return this.#onFastAccept(with_(signed, message));
    if (message.kind === 'fast-accepted') return this.#onFastAccepted(message, sender);
    super.onOwnKind(signed);
  }

  protected override onPledge(signed: Verified<ReplicaPledge>): void {
    const { message, sender } = signed;
    if (message.kind !== 'fast-accepted') return super.onPledge(signed);
    this.acceptor.said(signed as Verified<FastAccepted>, this.s.ledger.height); // its kind says so
    this.#onFastAccepted(message, sender);
  }

  protected override forget(height: Height): void {
    if (!this.proposer.proposals.has(height)) this.#collisions = Math.max(0, this.#collisions - 1 / 4);
    super.forget(height);
    for (const slot of this.#patience.keys()) if (slot <= height) this.#patience.delete(slot);
  }

  protected override forgive(lateMs: number): void {
    super.forgive(lateMs);
    this.#openedAt = this.later(this.#openedAt, lateMs);
    this.#busySince = this.later(this.#busySince, lateMs);
    for (const [slot, since] of this.#patience) this.#patience.set(slot, this.later(since, lateMs));
  }

  protected override sayAgain(to: ReplicaId | 'all'): void {
    super.sayAgain(to);
    const { s, acceptor } = this;
    if (this.leads) this.#sayOpen(to);
    const { promised: ballot } = acceptor;
    for (let at = s.ledger.height + 1; at <= s.ledger.height + s.parameters.window; at++) {
      const held = acceptor.acceptedIn(asHeight(at));
      if (held?.value.header.proposer === s.self && held.ballot === roundOf(ballot, true))
        s.out.say(to, { kind: 'fast-accept', epoch: s.epoch, ballot, value: held.value });
    }
  }

  override dump() {
    return {
      ...super.dump(),
      open: this.#open,
      patience: this.#patience,
      collisions: this.#collisions,
      closings: this.#closings,
      closedUntil: this.#closedUntil,
      openedAt: this.#openedAt,
      busySince: this.#busySince,
      saidOpenAt: this.#saidOpenAt,
    };
  }

  override load(fields: ReturnType<FastPaxos['dump']>): void {
    super.load(fields);
    this.#open = fields.open;
    this.#patience = fields.patience;
    this.#collisions = fields.collisions;
    this.#closings = fields.closings;
    this.#closedUntil = fields.closedUntil;
    this.#openedAt = fields.openedAt;
    this.#busySince = fields.busySince;
    this.#saidOpenAt = fields.saidOpenAt;
  }
}

const NOTHING = new Uint8Array(32);
