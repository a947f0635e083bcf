// Cheap Paxos: Lamport and Massa (2004). Of 2f+1 acceptors f+1 are mains, which do all the work; f are auxiliaries, which are asked only while a main has failed,
// and then forget. A short difference from Multi-Paxos: who counts. The mains that choose together are the working set. While it is in force, all of it must accept, and nobody else is told;
// a leader that misses one of them takes a new ballot, completes what is open with any majority, auxiliaries included, and has a working set noted that has no failed main.

import type { Audience, Explanation, Input, Ready, Wait } from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import { nextOf, waitOf } from '../crash/explain.ts';
import { isWell } from '../crash/hand-over.ts';
import type { Reading } from '../crash/reads.ts';
import type { Configure, ReplicaMessage, ReplicaPledge, Verified, WorkingSet } from '../messages.ts';
import { mainsOf } from '../modes.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, plus } from '../types.ts';
import { PROMISED_SLOTS_MAX } from '../wire/paxos-payloads.ts';
import { waitForAcceptance } from './explain.ts';
import type { Cast } from './learner.ts';
import { MultiPaxos } from './multi.ts';
import type { Promises } from './proposer.ts';

/** What an auxiliary is told, whoever says it to whom: the rest is for the mains. */
const FOR_ALL: ReadonlySet<string> = new Set([
  'status',
  'paxos-prepare',
  'promise',
  'configure',
  'configured',
  'reject',
]);
/** A main that was dropped is trusted again after T, twice as late each time, at most so many times. */
const DOUBLINGS_MAX = 4;

export class CheapPaxos extends MultiPaxos {
  readonly #mains: readonly ReplicaId[];
  readonly #isAuxiliary: boolean;
  /** What this leader has asked the others to note, in its ballot; null: not yet. */
  #asked: WorkingSet | null = null;
  #noted = new Set<ReplicaId>();
  /** Whether it is in force: then, and only then, this leader proposes anything new. */
  #inForce = false;
  /** When it was last asked for. */
  #askedAt: Millis;
  /** Since when something is proposed and nothing decided. */
  #openSince: Millis;
  /** The latest working set of those that have promised, where none of it has (CHP-2); null: not so, or someone leads since. */
  #lacks: { readonly members: readonly ReplicaId[]; readonly since: Millis } | null = null;
  #dropped = new Map<ReplicaId, { readonly until: Millis; readonly times: number }>();

  constructor(options: CoreOptions, recovery: Recovery, now: Millis) {
    super(options, recovery, now);
    this.#mains = mainsOf(options.genesis);
    this.#isAuxiliary = !this.#mains.includes(options.self);
    this.#askedAt = now;
    this.#openSince = now;
  }

  // ---- an auxiliary ---------------------------------------------------------------------------------------------------

  /** [CHP-1] */
  protected override mayLead(replica: ReplicaId): boolean {
    return this.#mains.includes(replica) && this.s.now >= (this.#dropped.get(replica)?.until ?? 0);
  }

  protected override get keepsLog(): boolean {
    return !this.#isAuxiliary;
  }

  /** [CHP-6] Its head stays where it was as it began to vote: what it may hold begins there, or where the mains need it no more. */
  protected override takes(slot: Height): boolean {
    if (!this.#isAuxiliary) return super.takes(slot);
    const { working } = this.acceptor;
    return slot > Math.max(working?.floor ?? 0, this.s.ledger.height) && this.acceptor.open < PROMISED_SLOTS_MAX;
  }

  /** It decides nothing, so it has no read points. */
  protected override get reading(): Reading | null {
    return this.#isAuxiliary ? null : super.reading;
  }

  protected override learn(slot: Height, ballot: View, hash: Hash, from: ReplicaId): void {
    if (!this.#isAuxiliary) super.learn(slot, ballot, hash, from);
  }

  // ---- who counts -----------------------------------------------------------------------------------------------------

  /** [CHP-2] A majority, and of the latest working set that any of it knows, one member: it holds all that was chosen by that set. */
  protected override isPromised(promises: Promises): boolean {
    if (!super.isPromised(promises)) return false;
    let latest: WorkingSet | null = null;
    for (const { working } of promises.values())
      if (working !== null && (latest === null || working.ballot > latest.ballot)) latest = working;
    if (latest === null || latest.members.some((member) => promises.has(member))) return true;
    this.#lacks = { members: latest.members, since: this.#lacks?.since ?? this.s.now };
    return false;
  }

  protected override heardLeader(ballot: View): void {
    super.heardLeader(ballot);
    this.#lacks = null;
  }

  /** [CHP-8] A majority; or all of the working set in force, for without one of it nobody leads (CHP-2). */
  protected override confirms(backers: ReadonlySet<ReplicaId>): boolean {
    if (super.confirms(backers)) return true;
    return this.#inForce && (this.#asked?.members.every((member) => backers.has(member)) ?? false);
  }

  /** [CHP-4] A majority; or all of the working set of the ballot, above its floor. */
  protected override chooses(voters: readonly ReplicaId[], slot: Height, cast: Cast): boolean {
    if (super.chooses(voters, slot, cast)) return true;
    const { working } = this.acceptor;
    if (working === null || working.ballot !== cast.ballot || slot <= working.floor) return false;
    return working.members.every((member) => voters.includes(member));
  }

  // ---- the working set ------------------------------------------------------------------------------------------------

  protected override campaign(reason: string): void {
    this.#asked = null;
    this.#inForce = false;
    this.#askedAt = this.s.now;
    super.campaign(reason);
  }

  /** [CHP-3] With everything decided that was open, the leader asks for the mains that are well: its members first. */
  #ask(): void {
    const { s } = this;
    if (!this.isFree || this.proposer.proposals.size > 0) return;
    const members = this.#mains.filter((main) => main === s.self || this.#isWell(main));
    this.#asked = { ballot: this.proposer.ballot, floor: s.ledger.height, members };
    this.#askedAt = s.now;
    this.#noted.clear();
    this.acceptor.configure(s, this.#asked, s.self);
    this.#sayAsked();
  }

  #sayAsked(): void {
    const { s } = this;
    if (this.#asked === null || this.#inForce) return;
    const { members } = this.#asked;
    const membersNoted = members.every((member) => this.#noted.has(member));
    // An auxiliary that notes it forgets: not before all who are to hold that do.
    const missing = s.genesis.members.map(({ id }) => id).filter((id) => id !== s.self && !this.#noted.has(id));
    const to = missing.filter((id) => membersNoted || members.includes(id));
    for (const id of to) s.out.say(id, { kind: 'configure', epoch: s.epoch, ...this.#asked });
  }

  #onNoted(ballot: View, from: ReplicaId): void {
    if (this.#asked?.ballot !== ballot || !this.leads || this.#noted.has(from)) return;
    const { members } = this.#asked;
    const noted = () => members.every((member) => this.#noted.has(member));
    const before = noted();
    this.#noted.add(from);
    if (!noted()) return;
    if (!before) this.#sayAsked();
    if (this.#inForce || this.#noted.size < this.s.quorums.quorum) return;
    this.#inForce = true;
    this.#openSince = this.s.now;
    this.s.mayPropose = true;
  }

  #onConfigure(message: Configure, sender: ReplicaId): void {
    const { s, acceptor } = this;
    this.sawBallot(message.ballot);
    // A member notes it when it holds all that lies below: until then it is asked again.
    if (message.members.includes(s.self) && s.ledger.height < message.floor) return;
    if (!acceptor.configure(s, message, sender)) return this.reject(sender);
    this.heardLeader(message.ballot);
    this.learner.recount(this.isChosen);
    if (!this.#isAuxiliary) return;
    acceptor.forsake(s, message.floor);
    for (const [key, { block }] of s.known) if (block.header.height <= message.floor) s.known.delete(key);
  }

  #isWell(main: ReplicaId): boolean {
    return isWell(this.s, main) && this.mayLead(main);
  }

  #isGone(main: ReplicaId): boolean {
    return main !== this.s.self && !this.peer(main).connected;
  }

  #drop(main: ReplicaId): void {
    const times = (this.#dropped.get(main)?.times ?? 0) + 1;
    const pause = this.s.parameters.viewTimeoutMs * 2 ** Math.min(times, DOUBLINGS_MAX);
    this.#dropped.set(main, { until: plus.millis(this.s.now, pause), times });
  }

  /** [CHP-5] A new ballot where a member is missing, or a main is back. */
  #watch(): void {
    const { s } = this;
    const { viewTimeoutMs: timeout } = s.parameters;
    if (this.#asked === null) return this.#ask();
    const { members } = this.#asked;
    if (this.proposer.proposals.size === 0) this.#openSince = s.now;
    const isLate = s.now - Math.max(this.#openSince, s.decidedAt) > timeout;
    const isSilent = (main: ReplicaId) => {
      const { heardAt } = this.peer(main);
      return this.#isGone(main) || heardAt === null || s.now - heardAt > timeout;
    };
    const isUnanswered = s.now - this.#askedAt > timeout;
    const accepted = () => this.acceptedBy(plus.height(s.ledger.height, 1)).flatMap(({ by }) => by);
    const missing = !this.#inForce
      ? members.filter((member) => !this.#noted.has(member) && (isUnanswered || this.#isGone(member)))
      : members.filter((member) => member !== s.self && (isSilent(member) || (isLate && !accepted().includes(member))));
    if (missing.includes(s.self) || (isLate && this.#inForce && !accepted().includes(s.self))) return this.giveUp();
    for (const member of missing) this.#drop(member);
    if (missing.length > 0) return this.campaign('a main of the working set is missing');
    if (this.#inForce && this.#mains.some((main) => !members.includes(main) && this.#isWell(main)))
      this.campaign('a main is back');
  }

  // ---- as in Multi-Paxos, but for these -------------------------------------------------------------------------------

  protected override wantsOwn(message: ReplicaMessage, sender: ReplicaId): boolean {
    switch (message.kind) {
      case 'configure':
        return this.ownerOf(message.ballot) === sender;
      case 'configured':
        return this.#asked?.ballot === message.ballot;
      case 'accepted':
        return !this.#isAuxiliary && super.wantsOwn(message, sender);
      default:
        return super.wantsOwn(message, sender);
    }
  }

  protected override onOwnKind(signed: Verified<ReplicaMessage>): void {
    const { message, sender } = signed;
    if (message.kind === 'configure') return this.#onConfigure(message, sender);
    if (message.kind === 'configured') return this.#onNoted(message.ballot, sender);
    super.onOwnKind(signed);
  }

  protected override onPledge(signed: Verified<ReplicaPledge>): void {
    if (signed.message.kind === 'configured') return this.#onNoted(signed.message.ballot, signed.sender);
    super.onPledge(signed);
  }

  protected override onTime(): void {
    super.onTime();
    if (this.leads) this.#watch();
  }

  protected override propose(): void {
    if (this.leads && this.#inForce) super.propose();
  }

  protected override forgive(lateMs: number): void {
    super.forgive(lateMs);
    this.#askedAt = this.later(this.#askedAt, lateMs);
    this.#openSince = this.later(this.#openSince, lateMs);
    if (this.#lacks !== null) this.#lacks = { ...this.#lacks, since: this.later(this.#lacks.since, lateMs) };
  }

  protected override get stuck(): boolean {
    return super.stuck || (this.leads && !this.#inForce);
  }

  protected override sayAgain(to: ReplicaId | 'all'): void {
    super.sayAgain(to);
    if (this.leads) this.#sayAsked();
  }

  protected override waits(): Wait[] {
    const waits = super.waits();
    if (!this.active && this.#lacks !== null) {
      const { members: missing, since } = this.#lacks;
      waits.push(waitOf(this.s, this.ballot, { what: 'working-set', height: nextOf(this.s), missing, since }));
    }
    if (!this.leads || this.#asked === null || this.#inForce) return waits;
    const have = [...this.#noted].sort((a, b) => a - b);
    const short = this.#asked.members.filter((member) => !this.#noted.has(member));
    const asked = { what: 'noted', height: nextOf(this.s), have, since: this.#askedAt } as const;
    // The others note it after its members.
    return [...waits, waitOf(this.s, this.ballot, short.length > 0 ? { ...asked, missing: short } : asked)];
  }

  /** While a working set is in force all of it must accept, and nobody else is asked. */
  protected override acceptance(slot: Height, since: Millis): Wait {
    if (this.#asked === null || !this.#inForce) return super.acceptance(slot, since);
    const { members: among } = this.#asked;
    return waitForAcceptance(this.s, this.ballot, this.acceptedBy(slot), { slot, need: among.length, among, since });
  }

  override explain(): Explanation {
    const explained = super.explain();
    if (!this.#isAuxiliary) return explained;
    return { ...explained, phase: explained.phase === 'ordering' ? 'idle' : explained.phase, highestSeen: asHeight(0) };
  }

  override step(
    inputs: readonly Input<ReplicaMessage, ReplicaPledge>[],
    now: Millis,
  ): Ready<ReplicaMessage, ReplicaPledge> {
    const ready = super.step(inputs, now);
    const { pledges, send, resend } = ready;
    return {
      ...ready,
      pledges: pledges.map((each) =>
        each.broadcast ? { ...each, to: this.#audience(each.pledge.kind, each.to ?? 'all') } : each,
      ),
      send: send
        .map((each) => ({ ...each, to: this.#audience(each.message.kind, each.to) }))
        .filter(({ to }) => isSomebody(to)),
      resend: resend
        .map((each) => ({ ...each, to: this.#audience(each.signed.message.kind, each.to) }))
        .filter(({ to }) => isSomebody(to)),
    };
  }

  /** [CHP-1] While a working set is in force auxiliaries hear nothing but that the others live. */
  #audience(kind: string, to: Audience): Audience {
    if (FOR_ALL.has(kind) || (kind === 'accept' && !this.#inForce)) return to;
    const mains = this.#mains.filter((main) => main !== this.s.self);
    if (to === 'all') return mains;
    return (typeof to === 'number' ? [to] : to).filter((one) => mains.includes(one));
  }

  override dump() {
    return {
      ...super.dump(),
      asked: this.#asked,
      noted: this.#noted,
      inForce: this.#inForce,
      askedAt: this.#askedAt,
      openSince: this.#openSince,
      lacks: this.#lacks,
      dropped: this.#dropped,
    };
  }

  override load(fields: ReturnType<CheapPaxos['dump']>): void {
    super.load(fields);
    this.#asked = fields.asked;
    this.#noted = fields.noted;
    this.#inForce = fields.inForce;
    this.#askedAt = fields.askedAt;
    this.#openSince = fields.openSince;
    this.#lacks = fields.lacks;
    this.#dropped = fields.dropped;
  }
}

const isSomebody = (to: Audience): boolean => to === 'all' || typeof to === 'number' || to.length > 0;
