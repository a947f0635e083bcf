// Raft: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (extended version, 2014), sections 5 and 6; pre-vote and check-quorum as in
// Ongaro's dissertation, sections 6.2 and 9.6. Where it differs: an entry is decided at a replica by delivering it, so the log above the decided head is all
// there is of it (log.ts), snapshots are the checkpoints of every protocol here, and who is far behind takes blocks from anyone (transfer.ts).

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block, BlockHeader } from '../block.ts';
import type { Wait } from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import { CrashCore } from '../crash/core.ts';
import { Election, isLeaderless } from '../crash/election.ts';
import type { Lead } from '../crash/hand-over.ts';
import { with_ } from '../crash/narrow.ts';
import { bundlesFor, extendChain } from '../crash/propose.ts';
import type { Reading } from '../crash/reads.ts';
import { chained, isValue } from '../crash/value.ts';
import type {
  AppendEntries,
  Appended,
  RaftReject,
  ReplicaMessage,
  ReplicaPledge,
  RequestVote,
  Verified,
} from '../messages.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, next, plus } from '../types.ts';
import { waitsOf } from './explain.ts';
import { decodeHardState, encodeHardState } from './hard-state.ts';
import { EntryLog, isUpToDate } from './log.ts';
import { Progress } from './progress.ts';
import { readingOf } from './reads.ts';
import { type Replicating, replicate, replicateLast, sayAppend } from './replicate.ts';
import { newState, type RaftState } from './state.ts';

export class Raft extends CrashCore {
  readonly #log = new EntryLog();
  readonly #election: Election;
  /** Of a leader. */
  readonly #progress = new Progress();
  #r: RaftState;

  constructor(options: CoreOptions, recovery: Recovery, now: Millis) {
    super(options, recovery, now);
    const { hardState, accepted } = this.recoverDecided(recovery);
    const hard = hardState === null ? null : decodeHardState(hardState);
    assert(hard !== undefined, 'the hard state is of a version and a protocol that this program knows');
    this.#log.restore(this.s.ledger.height, hard?.last ?? asHeight(0), accepted);
    this.#r = newState(this.s.ledger.height, hard);
    if (recovery.guard.view > this.#r.term) {
      // The log lost a vote that the guard remembers: whoever it was for, nobody else gets one in that term.
      this.#r.term = recovery.guard.view;
      this.#r.votedFor = this.s.self;
      this.#persist();
    }
    this.#election = new Election(now);
  }

  // ---- who leads ----------------------------------------------------------------------------------------------------

  /** Term and leader in one number that rises, and names its leader as every protocol's views do: term n + leader. */
  protected get ballot(): View {
    return this.#election.followed;
  }

  #viewOf(term: View, leader: ReplicaId): View {
    return asView(term * this.members + leader);
  }

  protected get leads(): boolean {
    return this.#r.role === 'leader';
  }

  protected get active(): boolean {
    return this.leads || this.#election.hears(this.s);
  }

  protected get forwardTo(): ReplicaId | null {
    return !this.leads && this.#election.hears(this.s) ? this.ownerOf(this.#election.leader) : null;
  }

  protected get reading(): Reading {
    return readingOf(this.s, this.#r, this.#election);
  }

  protected get elections(): number {
    return this.#election.begun;
  }

  /** [RAFT-E-1] Section 5.1: a higher term makes a follower of everyone. */
  #enterTerm(term: View): void {
    if (term <= this.#r.term) return;
    this.#r.term = term;
    this.#r.votedFor = null;
    this.#r.matched = asHeight(0);
    this.#r.ack = null;
    this.#r.dirty = true;
    this.#follow();
  }

  #follow(): void {
    if (this.#r.role === 'follower') return;
    this.#r.role = 'follower';
    this.#r.votes.clear();
    this.#progress.clear();
    this.dropChain();
    this.#election.lost(this.s);
    this.sayStatusSoon();
  }

  /** [RAFT-E-4] Pre-vote: a majority must say that it hears no leader either. It is said in every status, so it costs no message. */
  #runForLeader(): void {
    if (this.#election.hears(this.s) || this.s.now < this.#electionAt() || this.#r.unsure > this.#log.decided) return;
    if (isLeaderless(this.s)) this.#campaign('no leader is heard');
  }

  #electionAt(): Millis {
    const { followed } = this.#election;
    const n = this.members;
    const rank = followed === 0 ? this.s.self : (this.s.self - this.ownerOf(followed) - 1 + n) % n;
    return this.#election.dueAt(this.s, { rank, round: this.#r.term, first: this.#r.term === 0 });
  }

  /** [RAFT-E-2] Its own vote is one like every other: durable before it asks for others. */
  #campaign(reason: string): void {
    const { s } = this;
    this.#enterTerm(next.view(this.#r.term));
    this.#election.begin(s);
    this.#r.role = 'candidate';
    this.#r.votes.clear();
    this.#r.votedFor = s.self;
    this.#r.dirty = true;
    this.dropChain();
    s.out.events.push({ type: 'view-change-started', view: this.#r.term, reason });
    s.out.pledge({ kind: 'vote', epoch: s.epoch, term: this.#r.term, candidate: s.self }, { broadcast: false });
  }

  #requestVotes(to: ReplicaId | 'all'): void {
    this.s.out.say(to, { kind: 'request-vote', epoch: this.s.epoch, term: this.#r.term, ...this.#log.end });
  }

  #onVote(term: View, candidate: ReplicaId, from: ReplicaId): void {
    if (this.#r.role !== 'candidate' || term !== this.#r.term || candidate !== this.s.self) return;
    this.#r.votes.add(from);
    if (this.#r.votes.size >= this.s.quorums.quorum) this.#lead();
  }

  /** [RAFT-L-3] A leader begins with an entry of its own term, for it may commit no other by counting (section 5.4.2, figure 8). */
  #lead(): void {
    const { s } = this;
    this.#r.role = 'leader';
    this.#r.told = asHeight(0);
    const view = this.#viewOf(this.#r.term, s.self);
    this.#election.won(s, view);
    const followers = s.genesis.members.map(({ id }) => id).filter((id) => id !== s.self);
    this.#progress.start(followers, plus.height(this.#log.last, 1));
    s.out.events.push({ type: 'view-entered', view, primary: s.self });
    this.#r.first = plus.height(this.#log.last, 1);
    this.#append(this.makeValue(this.#r.first, []));
    this.sayStatusSoon();
  }

  /** [RAFT-E-6] Brought up to date by what a leader sends anyway. */
  protected override get lead(): Lead | null {
    if (!this.leads) return null;
    return {
      mayLead: () => true,
      holdsAll: (replica) => this.#progress.matchOf(replica) === this.#log.last,
      yieldTo: (replica) => {
        this.s.out.say(replica, { kind: 'timeout-now', epoch: this.s.epoch, term: this.#r.term });
        this.#follow();
      },
    };
  }

  /** [CFT-H-3] The leader that it follows, or followed until now, tells it to run: nobody need be asked first. */
  #onTimeoutNow(term: View, sender: ReplicaId): void {
    if (this.#r.role !== 'follower' || term !== this.#r.term || this.#r.unsure > this.#log.decided) return;
    if (this.#election.followed === this.#viewOf(term, sender)) this.#campaign('the leader hands over');
  }

  // ---- what comes in ------------------------------------------------------------------------------------------------

  protected wantsOwn(message: ReplicaMessage): boolean {
    switch (message.kind) {
      case 'request-vote':
      case 'append-entries':
      case 'raft-reject':
      case 'timeout-now':
        return true;
      case 'vote':
        return this.#r.role === 'candidate' && message.term === this.#r.term;
      case 'appended':
        return message.term > this.#r.term || this.leads;
      default:
        return false;
    }
  }

  protected onOwnKind(signed: Verified<ReplicaMessage>): void {
    const { message, sender } = signed;
    switch (message.kind) {
      case 'status': {
        if (message.view === 0 || this.ownerOf(message.view) !== sender) return;
        if (message.active && message.view >= this.#r.term * this.members) this.#election.heard(this.s, message.view);
        // It says itself that it leads no more.
        else if (!message.active && this.#election.leader === message.view) this.#election.lost(this.s);
        return;
      }
      case 'request-vote':
        return this.#onRequestVote(with_(signed, message));
      case 'vote':
        return this.#onVote(message.term, message.candidate, sender);
      case 'append-entries':
        return this.#onAppend(with_(signed, message));
      case 'appended':
        this.#enterTerm(message.term);
        if (this.leads && message.term === this.#r.term) this.#matches(sender, message.match);
        return;
      case 'raft-reject':
        return this.#onReject(with_(signed, message));
      case 'timeout-now':
        return this.#onTimeoutNow(message.term, sender);
      default:
        return;
    }
  }

  protected onPledge(signed: Verified<ReplicaPledge>): void {
    const { message } = signed;
    if (!('term' in message) || message.term !== this.#r.term) return;
    if (message.kind === 'vote') {
      if (this.#r.role !== 'candidate' || message.candidate !== this.s.self) return;
      this.#requestVotes('all');
      return this.#onVote(message.term, message.candidate, this.s.self);
    }
    if (this.leads) this.#matches(this.s.self, message.match);
    else this.#r.ack = signed as Verified<Appended>; // its kind says so
  }

  /** [RAFT-E-2] One vote a term, for a log that is up to date; [RAFT-E-4] none while a leader is heard, which it would only unseat. */
  #onRequestVote({ message, sender }: Verified<RequestVote>): void {
    const { s } = this;
    const { term } = message;
    if (this.active && !(this.#election.hears(s) && this.ownerOf(this.#election.leader) === sender)) return;
    if (term < this.#r.term) return this.#reject(sender, this.#log.last);
    this.#enterTerm(term);
    if (this.#r.votedFor !== null && this.#r.votedFor !== sender) return;
    if (!isUpToDate(message, this.#log.end)) return;
    this.#r.votedFor = sender;
    this.#r.dirty = true;
    this.#election.wait(s);
    s.out.pledge({ kind: 'vote', epoch: s.epoch, term, candidate: sender }, { to: sender });
  }

  #onAppend({ message, sender }: Verified<AppendEntries>): void {
    const { s } = this;
    const { term, prev, prevTerm, entry } = message;
    if (term < this.#r.term) return this.#reject(sender, this.#log.last);
    this.#enterTerm(term);
    if (this.leads) return s.out.refuse(sender, message.kind, 'two-leaders');
    this.#follow();
    const view = this.#viewOf(term, sender);
    if (this.#election.leader !== view) s.out.events.push({ type: 'view-entered', view, primary: sender });
    this.#election.heard(s, view);
    if (entry !== null && (entry.value.header.height !== prev + 1 || entry.term > term || !isValue(entry.value)))
      return s.out.refuse(sender, message.kind, 'not-an-entry');
    if (prev > this.#log.last || !this.#log.matches(prev, prevTerm)) return this.#backUp(prev, sender);
    // Far ahead: catch-up brings what is decided. [RAFT-L-3] But nothing of earlier terms is without an entry of this one, and those may reach so far.
    if (prev + 1 > this.horizon && entry?.value.bundles.length !== 0) return;
    if (entry !== null && this.#log.put(entry, s.out.records)) {
      this.hold(entry.value);
      this.#r.unsure = asHeight(0);
      this.#r.dirty = true;
    }
    const match = entry === null ? prev : next.height(prev);
    if (match > this.#r.matched) this.#r.matched = match;
    if (entry !== null || this.#r.ack === null) this.#r.toAck = asHeight(Math.max(this.#r.toAck ?? 0, match));
    this.#commit(asHeight(Math.min(message.decided, this.#r.matched)));
  }

  /** [RAFT-L-1] Section 5.3, fast back-up: where the log ends, or the term that contradicts begins. */
  #backUp(prev: Height, leader: ReplicaId): void {
    let last = Math.min(prev - 1, this.#log.last);
    const wrong = prev <= this.#log.last ? this.#log.termAt(prev) : asView(0);
    while (wrong !== 0 && last > this.#log.decided && this.#log.termAt(last) === wrong) last -= 1;
    this.#reject(leader, asHeight(last));
  }

  #reject(to: ReplicaId, last: Height): void {
    this.s.out.say(to, { kind: 'raft-reject', epoch: this.s.epoch, term: this.#r.term, last });
  }

  #onReject({ message, sender }: Verified<RaftReject>): void {
    this.#enterTerm(message.term);
    if (!this.leads || message.term !== this.#r.term) return;
    // What is decided here is no entry any more: blocks bring it, from anyone.
    if (message.last < this.#log.decided) return;
    const { now, parameters } = this.s;
    if (!this.#progress.backUp(sender, message.last, { now, pauseMs: parameters.heartbeatMs })) return;
    replicate(this.#replicating, sender);
  }

  // ---- the leader ---------------------------------------------------------------------------------------------------

  #append(value: Block): void {
    const { s } = this;
    this.hold(value);
    this.#log.put({ term: this.#r.term, value }, s.out.records);
    this.#r.dirty = true;
    this.#r.toAck = this.#log.last;
    replicateLast(this.#replicating);
  }

  get #replicating(): Replicating {
    return { s: this.s, r: this.#r, log: this.#log, progress: this.#progress };
  }

  /** [RAFT-L-3] An entry of this term that a majority holds is committed, and with it all before it. */
  #matches(replica: ReplicaId, match: Height): void {
    if (!this.#progress.matched(replica, match)) return;
    const held = this.#progress.heldBy(this.s.quorums.quorum);
    if (held !== undefined && this.#log.mayCount(held, this.#r.term)) this.#commit(held);
  }

  #commit(height: Height): void {
    if (height > this.#r.committed) this.#r.committed = height;
  }

  // ---- moving on ----------------------------------------------------------------------------------------------------

  protected advance(): void {
    while (!this.isOver) {
      const entry = this.#log.at(this.s.ledger.height + 1);
      if (entry === undefined || this.s.ledger.height >= this.#r.committed) break;
      this.#r.deciding = true;
      this.decideValue(entry.value);
      this.#r.deciding = false;
    }
    // [EPO-12] The others learn that the epoch has ended, too: this is the last that is said in it.
    if (this.isOver) this.#tellDecided();
  }

  /** The others decide it with the next entry, where one leaves in this step, or with this. */
  #tellDecided(): void {
    if (!this.leads || this.#log.decided <= this.#r.told) return;
    this.#r.told = this.#log.decided;
    sayAppend(this.#replicating, 'all', this.#log.decided, null);
  }

  protected forget(height: Height): void {
    this.#log.decide(height, this.#r.deciding);
    if (height > this.#r.committed) this.#r.committed = height;
    if (!this.#r.deciding) this.#r.dirty = true;
  }

  /** [RAFT-L-5] A block that others have decided: what this log has there makes the same block, or is not committed, with all that follows it. */
  protected override fetched(block: Block): void {
    const entry = this.#log.at(block.header.height);
    if (entry === undefined || equalBytes(chained(this.s.ledger, [], entry.value).block.hash, block.hash)) return;
    // A leader has every entry committed before its term (Raft, section 5.4): a later one has been elected since.
    this.#follow();
    this.#log.cut();
    this.#r.matched = this.s.ledger.height;
    this.#r.dirty = true;
  }

  /**
   * [RAFT-L-5] A state that others have decided. Entries above it may have been committed with this replica's help, so they are kept; but whether they follow what was
   * decided cannot be told, so it does not lead with them.
   */
  protected override installing(header: BlockHeader): void {
    const entry = this.#log.at(header.height);
    if (this.#log.last <= header.height) return;
    const isSame = entry !== undefined && equalBytes(entry.value.header.bodyHash, header.bodyHash);
    if (!isSame || entry.value.header.proposer !== header.proposer) this.#r.unsure = this.#log.last;
    this.#follow();
  }

  /** As many entries at a time as the window allows, each with what the pool holds. */
  protected propose(): void {
    const { s } = this;
    if (!this.leads) return;
    const valueAt = (slot: Height) => this.#log.at(slot)?.value;
    extendChain(s, valueAt);
    for (;;) {
      const slot = plus.height(this.#log.last, 1);
      const bundles = bundlesFor(s, slot);
      if (bundles === null) return;
      this.#append(this.makeValue(slot, bundles));
      extendChain(s, valueAt);
    }
  }

  /** [RAFT-E-2] [RAFT-L-4] Term, vote and end of the log are durable with whatever is said of them. */
  protected flush(): void {
    const { s } = this;
    if (this.#r.toAck !== null) {
      const to = this.#election.leader === 0 ? null : this.ownerOf(this.#election.leader);
      const pledge = { kind: 'appended', epoch: s.epoch, term: this.#r.term, match: this.#r.toAck } as const;
      if (this.leads) s.out.pledge(pledge, { broadcast: false });
      else if (to !== null) s.out.pledge(pledge, { to });
      this.#r.toAck = null;
    }
    if (this.#r.dirty) this.#persist();
    this.#tellDecided();
  }

  #persist(): void {
    this.#r.dirty = false;
    const { last } = this.#log;
    const bytes = encodeHardState({ epoch: this.s.epoch, term: this.#r.term, votedFor: this.#r.votedFor, last });
    this.s.out.records.push({ type: 'hard-state', bytes });
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  protected onTime(): void {
    const { s } = this;
    const { viewTimeoutMs: timeout } = s.parameters;
    if (this.#r.role === 'follower') return this.#runForLeader();
    const waited = s.now - this.#election.since > timeout;
    // [RAFT-E-5] Check-quorum: nobody leads whom no majority answers.
    if (!waited || (this.leads && this.heardWithin(timeout) >= s.quorums.quorum)) return;
    this.#follow();
    this.#election.failed(s);
  }

  protected deadline(): Millis {
    const { s } = this;
    const at =
      this.#r.role === 'follower'
        ? this.#electionAt()
        : plus.millis(this.#election.since, s.parameters.viewTimeoutMs + 1);
    return at > s.now ? at : plus.millis(s.now, s.parameters.heartbeatMs);
  }

  protected forgive(lateMs: number): void {
    this.#election.forgive((at) => this.later(at, lateMs));
  }

  protected get stuck(): boolean {
    return this.#r.role === 'candidate' || this.#log.last > this.#log.decided;
  }

  protected sayAgain(to: ReplicaId | 'all'): void {
    const { s } = this;
    if (this.#r.role === 'candidate' && this.#r.votes.has(s.self)) this.#requestVotes(to);
    else if (this.leads) {
      for (const replica of to === 'all' ? this.#progress.followers : [to]) {
        this.#progress.send(replica, plus.height(this.#progress.matchOf(replica) ?? this.#log.decided, 1));
        replicate(this.#replicating, replica);
      }
      sayAppend(this.#replicating, to, this.#log.decided, null);
    } else if (this.#r.ack !== null && this.forwardTo !== null)
      s.out.resend.push({ to: this.forwardTo, signed: this.#r.ack });
  }

  // ---- explained ----------------------------------------------------------------------------------------------------

  protected waits(): Wait[] {
    const runs = this.#r.role === 'candidate';
    return waitsOf(this.s, {
      view: runs ? this.#viewOf(this.#r.term, this.s.self) : this.ballot,
      active: this.active,
      leader: this.ownerOf(this.ballot),
      votes: runs ? [...this.#r.votes] : null,
      election: this.#election,
      last: this.leads ? this.#log.last : null,
      holders: (height) => this.#progress.holders(height),
    });
  }

  protected acceptedBy(height: Height): { readonly hash: Hash; readonly by: readonly ReplicaId[] }[] {
    const entry = this.#log.at(height);
    if (entry === undefined) return [];
    return [{ hash: entry.value.hash, by: this.#progress.holders(height) }];
  }

  dump() {
    return {
      log: this.#log.dump(),
      election: this.#election.dump(),
      progress: this.#progress.dump(),
      r: this.#r,
    };
  }

  load({ log, election, progress, r }: ReturnType<Raft['dump']>): void {
    this.#log.load(log);
    this.#election.load(election);
    this.#progress.load(progress);
    this.#r = r;
  }
}
