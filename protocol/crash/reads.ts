// Read points: how a replica tells its users up to where everything stands that anyone was told of before they asked. Ongaro, Consensus: Bridging Theory and Practice (2014), section
// 6.4 (read-index), for every protocol here: a leader knows a height above which nothing can have been decided (`top`), and asks a majority, once the read is there, whether they have
// promised anything to another since. Who does not lead asks the leader, and waits until it has decided so far itself. In Multi-Paxos a lease may take the place of the question.
//
// Reads that come while a question is under way wait for the next one: an answer must have been given after the read was asked. A question is named by when it was asked, so that
// nobody takes the answer to an earlier one for it, nor one that an earlier life of this replica was given.

import type { Parameters } from '../genesis.ts';
import type { ReadMessage, ReadQuery, ReadReply } from '../messages.ts';
import { countedMs } from '../paxos/lease.ts';
import type { Height, Millis, ReplicaId, View } from '../types.ts';
import { asReplicaId, plus } from '../types.ts';
import type { CrashState } from './state.ts';

/** Of users here; the other replicas have one question each under way. */
export const READS_PENDING_MAX = 1_024;
/** A read that has no answer after so many view timeouts is refused: a leader may fail meanwhile, and another be elected. */
const PATIENCE_TIMEOUTS = 4;

/** What a protocol says of itself, as of now. */
export interface Reading {
  /** The ballot that this replica leads; null: it leads none. */
  readonly leads: View | null;
  /** The ballot of the leader that it hears. */
  readonly follows: View | null;
  /** Of a leader: whatever was decided anywhere by now stands at or below it, if nobody else has led since; or where an answer says. */
  readonly top: Height;
  /** What may be decided with this replica's help, and its leader not know of. */
  readonly held: Height;
  /** Nothing above this ballot was promised. In Multi-Paxos the answer is a lease as well. */
  back(ballot: View): boolean;
  /** Whether nobody else can have led before these answered, this replica among them. */
  confirms(backers: ReadonlySet<ReplicaId>): boolean;
}

interface Waiting {
  readonly id: number;
  readonly since: Millis;
  /** The question that it waits for; 0: one that is still to be asked. */
  round: number;
  /** Known, and not decided here yet. */
  height: Height | null;
}

/** A question of this replica: as a leader to all, else to its leader. */
interface Asked {
  /** When it was asked: one in a millisecond, at most. */
  readonly round: Millis;
  readonly ballot: View;
  saidAt: Millis;
  readonly backers: Set<ReplicaId>;
  top: Height;
}

export class Reads {
  #own: Waiting[] = [];
  /** Of a leader: who has asked it, under which number of theirs, and the question that this waits for. */
  #others = new Map<ReplicaId, { readonly theirs: number; readonly ballot: View; round: number }>();
  #asked: Asked | null = null;
  /** Of the leader that was last asked, or led by this replica. */
  #ballot: View | null = null;
  #lastRound = 0;
  /** The last question of a leader that was answered. */
  #confirmed: { readonly ballot: View; readonly round: Millis } | null = null;

  /** Nothing waits, and no lease is to be held. */
  isIdle({ leaseMs }: Parameters): boolean {
    return leaseMs === 0 && this.#own.length === 0 && this.#others.size === 0 && this.#asked === null;
  }

  /** [CFT-RP-4] */
  ask(s: CrashState, id: number, reading: Reading | null): void {
    if (reading === null) s.out.reads.push({ id, refused: 'reads-unsupported' });
    else if (this.#own.length >= READS_PENDING_MAX) s.out.reads.push({ id, refused: 'reads-full' });
    else this.#own.push({ id, since: s.now, round: 0, height: null });
  }

  onMessage(s: CrashState, message: ReadMessage, from: ReplicaId, reading: Reading | null): void {
    if (reading === null) return;
    if (message.kind === 'read-query') this.#onQuery(s, message, from, reading);
    else this.#onReply(message, from, reading);
  }

  #onQuery(s: CrashState, { ballot, round }: ReadQuery, from: ReplicaId, reading: Reading): void {
    if (ballot % s.genesis.members.length === from) {
      if (!reading.back(ballot)) return;
      return s.out.say(from, { kind: 'read-reply', epoch: s.epoch, ballot, round, height: reading.held });
    }
    if (ballot !== reading.leads) return;
    // The same again: its answer is under way.
    const before = this.#others.get(from);
    if (before?.theirs !== round || before.ballot !== ballot)
      this.#others.set(from, { theirs: round, ballot, round: 0 });
  }

  #onReply({ ballot, round, height }: ReadReply, from: ReplicaId, { leads }: Reading): void {
    const asked = this.#asked;
    if (asked === null || asked.round !== round || asked.ballot !== ballot) return;
    if (leads === ballot) asked.backers.add(from);
    else this.#settle(round, height);
    if (height > asked.top) asked.top = height;
  }

  /** The reads of this question stand at or below `height`. */
  #settle(round: number, height: Height): void {
    for (const read of this.#own) if (read.round === round) read.height = height;
    this.#asked = null;
  }

  /** Once a step, when everything that came in it is done. */
  tick(s: CrashState, reading: Reading | null): void {
    if (reading === null) return;
    const ballot = reading.leads ?? reading.follows;
    if (this.#ballot !== ballot) this.#begin(ballot);
    if (reading.leads === null) this.#others.clear();
    else this.#lead(s, reading.leads, reading);
    if (ballot !== null) this.#question(s, ballot, reading);
    this.#answer(s);
  }

  /** Another leads, or none: everything is asked anew. What the last one named may never be decided, where it had only proposed it. */
  #begin(ballot: View | null): void {
    this.#ballot = ballot;
    this.#asked = null;
    for (const read of this.#own) {
      read.round = 0;
      read.height = null;
    }
    for (const other of this.#others.values()) other.round = 0;
  }

  /** [CFT-RP-2] [PXS-R-1] Confirmed by answers, or by a lease, this leader knows what to say. */
  #lead(s: CrashState, ballot: View, reading: Reading): void {
    const asked = this.#asked;
    if (asked !== null && reading.confirms(new Set([s.self, ...asked.backers]))) {
      this.#confirmed = { ballot, round: asked.round };
      this.#settle(asked.round, asked.top);
      this.#tell(s, asked.top, (round) => round === asked.round);
    }
    if (!this.#holdsLease(s, ballot)) return;
    for (const read of this.#own) read.height ??= reading.top;
    this.#tell(s, reading.top, () => true);
  }

  /** [PXS-R-2] Counted from when it was asked for. */
  #holdsLease({ now, parameters }: CrashState, ballot: View): boolean {
    const { leaseMs } = parameters;
    return this.#confirmed?.ballot === ballot && now - this.#confirmed.round < countedMs(leaseMs);
  }

  #tell(s: CrashState, height: Height, of: (round: number) => boolean): void {
    for (const [replica, { theirs, ballot, round }] of this.#others) {
      if (!of(round)) continue;
      s.out.say(replica, { kind: 'read-reply', epoch: s.epoch, ballot, round: theirs, height });
      this.#others.delete(replica);
    }
  }

  /** [CFT-RP-2] [CFT-RP-3] One question at a time, for all that have come since the last; said again at each heartbeat. */
  #question(s: CrashState, ballot: View, reading: Reading): void {
    const { now, parameters } = s;
    if (this.#asked === null) {
      if (!this.#isQuestionDue(s, reading) || now <= this.#lastRound) return;
      this.#lastRound = now;
      for (const read of this.#own) if (read.height === null) read.round = now;
      for (const other of this.#others.values()) other.round = now;
      this.#asked = { round: now, ballot, saidAt: now, backers: new Set(), top: reading.top };
      // A leader may need nobody else.
      if (reading.leads !== null) this.#lead(s, ballot, reading);
      if (this.#asked === null) return;
    } else if (now - this.#asked.saidAt < parameters.heartbeatMs) return;
    this.#asked.saidAt = now;
    const { round } = this.#asked;
    const to = reading.leads === null ? asReplicaId(ballot % s.genesis.members.length) : 'all';
    s.out.say(to, { kind: 'read-query', epoch: s.epoch, ballot, round });
  }

  get #waits(): boolean {
    return this.#others.size > 0 || this.#own.some(({ height }) => height === null);
  }

  /** A lease is asked for again at each heartbeat, whether there are reads or not. */
  #isQuestionDue({ now, parameters }: CrashState, { leads }: Reading): boolean {
    if (this.#waits) return true;
    if (leads === null || parameters.leaseMs === 0) return false;
    return this.#confirmed?.ballot !== leads || now - this.#confirmed.round >= parameters.heartbeatMs;
  }

  /** When a question is due that had to wait for the next millisecond; everything else comes with the heartbeat. */
  dueAt(now: Millis): number {
    return this.#asked === null && now <= this.#lastRound && this.#waits ? now + 1 : Number.POSITIVE_INFINITY;
  }

  /** [CFT-RP-1] When this replica has decided so far; [CFT-RP-4] or when it has taken too long. */
  #answer({ now, ledger, out, parameters }: CrashState): void {
    if (this.#own.length === 0) return;
    const tooLate = plus.millis(now, -PATIENCE_TIMEOUTS * parameters.viewTimeoutMs);
    this.#own = this.#own.filter(({ id, since, height }) => {
      const isDecided = height !== null && height <= ledger.height;
      if (isDecided) out.reads.push({ id, height });
      else if (since <= tooLate) out.reads.push({ id, refused: 'read-unconfirmed' });
      return !isDecided && since > tooLate;
    });
  }

  /** A connection is new: what was asked over the old one, perhaps by an earlier life of the peer, is not answered over this. */
  connected(peer: ReplicaId): void {
    this.#others.delete(peer);
  }

  dump() {
    return {
      own: this.#own,
      others: this.#others,
      asked: this.#asked,
      ballot: this.#ballot,
      lastRound: this.#lastRound,
      confirmed: this.#confirmed,
    };
  }

  load({ own, others, asked, ballot, lastRound, confirmed }: ReturnType<Reads['dump']>): void {
    this.#own = own;
    this.#others = others;
    this.#asked = asked;
    this.#ballot = ballot;
    this.#lastRound = lastRound;
    this.#confirmed = confirmed;
  }
}
