// The acceptor: Lamport, Paxos Made Simple (2001), section 2.2, and section 2.5 for what it writes down. It promises, it accepts, and it never
// looks at anything else. One promise holds for all slots (section 3), so that a leader needs phase 1 only once.

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import { encodeBody } from '../codec.ts';
import type { LogRecord } from '../log.ts';
import type { Accepted, FastAccepted, PaxosPledge, PaxosPromise, Verified, WorkingSet } from '../messages.ts';
import type { Epoch, Hash, Height, ReplicaId, View } from '../types.ts';
import { asHeight, asView } from '../types.ts';
import { ACCEPTED_SLOTS_MAX, PROMISED_SLOTS_MAX } from '../wire/paxos-payloads.ts';
import type { HardState } from './hard-state.ts';
import { encodeHardState } from './hard-state.ts';

export interface AcceptorHost {
  readonly epoch: Epoch;
  readonly self: ReplicaId;
  readonly ledger: { readonly height: Height };
  readonly out: {
    readonly records: LogRecord[];
    readonly resend: { push(message: { to: ReplicaId | 'all'; signed: Verified<PaxosPledge> }): unknown };
    pledge(pledge: PaxosPledge, options?: { broadcast?: boolean; to?: ReplicaId }): void;
  };
}

/** The highest-numbered proposal accepted in one slot. */
interface Held {
  /** Its number; in Fast Paxos the round. */
  readonly ballot: View;
  readonly value: Block;
}

type Said = Verified<Accepted> | Verified<FastAccepted>;
/** How a proposal is numbered whose ballot is this one: in Fast Paxos a ballot has two rounds. */
export type Numbering = (ballot: View, fast: boolean) => View;

export class Acceptor {
  readonly #numberOf: Numbering;
  #promised: View = asView(0);
  #working: WorkingSet | null = null;
  #accepted = new Map<Height, Held>();
  /** Accepted in this step, in `#promised`: said in one message. */
  #fresh: { readonly slot: Height; readonly hash: Hash; readonly fast: boolean }[] = [];
  /** What it has said of slots that are still open, to say again. */
  #said: Said[] = [];
  /** Open slots of which it has accepted something before its start, and said nothing since. */
  #untold = new Set<Height>();

  constructor(numberOf: Numbering = (ballot) => ballot) {
    this.#numberOf = numberOf;
  }

  /** Nothing numbered below it is accepted any more; 0: nothing was promised. Only rises, also over restarts. */
  get promised(): View {
    return this.#promised;
  }

  /** Cheap Paxos: the latest working set that it was told of, as durable as a promise. */
  get working(): WorkingSet | null {
    return this.#working;
  }

  /** Slots above the decided ones in which it has accepted something. */
  get open(): number {
    return this.#accepted.size;
  }

  acceptedIn(slot: Height): Held | undefined {
    return this.#accepted.get(slot);
  }

  /** The highest slot in which it has accepted something, under this number where one is given; 0: none. */
  topOf(number: View | null = null): Height {
    let top = 0;
    for (const [slot, { ballot }] of this.#accepted)
      if (slot > top && (number === null || ballot === number)) top = slot;
    return asHeight(top);
  }

  /**
   * After a restart: what the log says, and the highest ballot of any mark. The guard's file and the log are written side by side, so either may
   * know of a promise that the other has lost; the log learns of it now.
   */
  restore(
    host: AcceptorHost,
    hard: HardState | null,
    marked: View,
    accepted: readonly { readonly height: Height; readonly ballot: View; readonly value: Block }[],
  ): void {
    this.#promised = hard?.promised ?? asView(0);
    this.#working = hard?.working ?? null;
    if (marked > this.#promised) this.#raise(host, marked);
    const highest = this.#numberOf(this.#promised, false);
    for (const { height, ballot, value } of accepted) {
      assert(ballot <= highest, 'nothing is accepted above what was promised');
      this.#accepted.set(height, { ballot, value });
      this.#untold.add(height);
    }
  }

  /**
   * [PXS-A-1] Phase 1b: a prepare numbered at least as high as every one it has answered gets a promise not to accept anything lower, with the
   * highest-numbered proposal that it has accepted in each open slot. [PXS-A-3] It leaves after the promise is durable. False: it was passed.
   */
  prepare(host: AcceptorHost, ballot: View, proposer: ReplicaId): boolean {
    if (ballot < this.#promised) return false;
    this.flush(host);
    this.#raise(host, ballot);
    const working = this.#working;
    const decided = asHeight(Math.max(host.ledger.height, working?.floor ?? 0));
    const accepted = [...this.#accepted]
      .filter(([slot]) => slot > decided)
      .sort(([a], [b]) => a - b)
      .slice(0, PROMISED_SLOTS_MAX)
      .map(([slot, held]) => ({ slot, ballot: held.ballot, hash: held.value.hash }));
    const promise: PaxosPromise = {
      kind: 'promise',
      epoch: host.epoch,
      ballot,
      decided,
      accepted,
      working,
    };
    host.out.pledge(promise, proposer === host.self ? { broadcast: false } : { to: proposer });
    return true;
  }

  /** [PXS-A-2] Phase 2b: accepts unless it has promised a higher number. [PXS-A-3] Said after value and number are durable. */
  accept(
    host: AcceptorHost,
    ballot: View,
    value: Block,
    { fast = false }: { readonly fast?: boolean } = {},
  ): 'accepted' | 'again' | 'passed' {
    if (ballot < this.#promised) return 'passed';
    const slot = value.header.height;
    const held = this.#accepted.get(slot);
    const number = this.#numberOf(ballot, fast);
    // In a fast round many propose, and the first one counts; what a classic round has settled stays.
    if (held !== undefined && (fast ? held.ballot >= number : held.ballot > number)) {
      if (held.ballot !== number || !equalBytes(held.value.hash, value.hash)) return 'passed';
      return this.#again(value, fast);
    }
    if (held?.ballot === number) {
      assert(equalBytes(held.value.hash, value.hash), 'a proposer proposes one value in a slot of its ballot');
      return this.#again(value, fast);
    }
    if (ballot > this.#promised) {
      this.flush(host);
      this.#raise(host, ballot);
    }
    const { hash } = value;
    if (held === undefined || !equalBytes(held.value.hash, hash)) {
      const bytes = { header: value.headerBytes, body: encodeBody(value.bundles) };
      host.out.records.push({ type: 'block', height: slot, hash, bytes });
    }
    host.out.records.push({ type: 'accepted', height: slot, hash, view: number });
    this.#accepted.set(slot, { ballot: number, value });
    this.#untold.delete(slot);
    this.#fresh.push({ slot, hash, fast });
    return 'accepted';
  }

  /** [PXS-A-4] What it has said since its start is there to be repeated; what it accepted before that may never have left. */
  #again({ header, hash }: Block, fast: boolean): 'again' {
    if (this.#untold.delete(header.height)) this.#fresh.push({ slot: header.height, hash, fast });
    return 'again';
  }

  /** Another value was accepted of this very proposal: its proposer made two. */
  contradicts(ballot: View, { header, hash }: Block): boolean {
    const held = this.#accepted.get(header.height);
    return held?.ballot === this.#numberOf(ballot, false) && !equalBytes(held.value.hash, hash);
  }

  #raise(host: AcceptorHost, ballot: View): void {
    if (ballot === this.#promised) return;
    this.#promised = ballot;
    this.#write(host);
  }

  #write(host: AcceptorHost): void {
    const bytes = encodeHardState({ epoch: host.epoch, promised: this.#promised, working: this.#working });
    host.out.records.push({ type: 'hard-state', bytes });
  }

  /** [CHP-3] Notes the working set of a ballot that it has promised nothing above, and says so when that is durable. False: it was passed. */
  configure(host: AcceptorHost, { ballot, floor, members }: WorkingSet, leader: ReplicaId): boolean {
    if (ballot < this.#promised) return false;
    this.flush(host);
    this.#raise(host, ballot);
    if (this.#working?.ballot !== ballot) {
      this.#working = { ballot, floor, members };
      this.#write(host);
    }
    const to = leader === host.self ? { broadcast: false } : { to: leader };
    host.out.pledge({ kind: 'configured', epoch: host.epoch, ballot }, to);
    return true;
  }

  /** What was accepted since the last call becomes one pledge, or one of each round, to all learners. */
  flush(host: AcceptorHost): void {
    if (this.#fresh.length === 0) return;
    const all = this.#fresh.sort((a, b) => a.slot - b.slot);
    this.#fresh = [];
    for (const kind of ['accepted', 'fast-accepted'] as const) {
      const fresh = all.filter(({ fast }) => fast === (kind === 'fast-accepted'));
      for (let at = 0; at < fresh.length; at += ACCEPTED_SLOTS_MAX) {
        const places = fresh.slice(at, at + ACCEPTED_SLOTS_MAX).map(({ slot, hash }) => ({ slot, hash }));
        host.out.pledge({ kind, epoch: host.epoch, ballot: this.#promised, places });
      }
    }
  }

  /** Durable and signed; `decided` is the head by now. */
  said(signed: Said, decided: Height): void {
    if ((signed.message.places.at(-1)?.slot ?? 0) > decided) this.#said.push(signed);
  }

  /** Says again what it has accepted in slots that are still open. */
  repeat(host: AcceptorHost, to: ReplicaId | 'all'): void {
    for (const signed of this.#said) host.out.resend.push({ to, signed });
  }

  /** [CHP-6] What the mains hold, an auxiliary need not: nor say that it did. */
  forsake(host: AcceptorHost, upTo: Height): void {
    if (![...this.#accepted.keys()].some((slot) => slot <= upTo)) return;
    this.forget(upTo);
    this.#fresh = this.#fresh.filter(({ slot }) => slot > upTo);
    host.out.records.push({ type: 'forget-accepted', height: upTo });
  }

  forget(upTo: Height): void {
    for (const slot of this.#accepted.keys()) if (slot <= upTo) this.#accepted.delete(slot);
    for (const slot of this.#untold) if (slot <= upTo) this.#untold.delete(slot);
    this.#said = this.#said.filter(({ message }) => (message.places.at(-1)?.slot ?? 0) > upTo);
  }

  dump() {
    return {
      promised: this.#promised,
      working: this.#working,
      accepted: this.#accepted,
      fresh: this.#fresh,
      said: this.#said,
      untold: this.#untold,
    };
  }

  load({ promised, working, accepted, fresh, said, untold }: ReturnType<Acceptor['dump']>): void {
    this.#promised = promised;
    this.#working = working;
    this.#accepted = accepted;
    this.#fresh = fresh;
    this.#said = said;
    this.#untold = untold;
  }
}
