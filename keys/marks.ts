// The marks: what a replica's key has promised to sign, and the rules by which it promises more. Pure: no file, no key.
//
// The places are PBFT's (Castro and Liskov 1999, section 4); a protocol with other places (a Paxos promise, a Raft vote) adds
// a field here, an arm to `mark`, and its bytes to sign-state.ts. Every rule errs towards silence: a refused vote costs time.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { assert, unreachable } from '../protocol/assert.ts';
import type { VotePhase, VotePlace } from '../protocol/certificate.ts';
import { asHeight, asView, type Epoch, type Hash, type Height, type ReplicaId, type View } from '../protocol/types.ts';
import { GuardRefusal } from './errors.ts';

/** Heights of one view that are remembered: twice the widest window of a chain (64). Beyond it the floor rises (GRD-5). */
export const heightsMax = 128;
export const checkpointsMax = 8;

/** What a pledge is about, and the digest of what it says there. At one place a key signs one digest. */
export type Place =
  | {
      readonly kind: VotePhase;
      readonly epoch: Epoch;
      readonly view: View;
      readonly height: Height;
      readonly digest: Bytes;
    }
  | { readonly kind: 'checkpoint'; readonly epoch: Epoch; readonly height: Height; readonly digest: Bytes }
  | {
      readonly kind: 'view-change' | 'new-view';
      readonly epoch: Epoch;
      readonly view: View;
      readonly digest: Bytes;
      readonly payload: Bytes;
    }
  /** Raft: whom this key votes for in a term. The digest is that of the candidate's number. */
  | { readonly kind: 'vote'; readonly epoch: Epoch; readonly view: View; readonly digest: Bytes }
  /** Paxos: a ballot, whose number names its one owner; Raft: an append in a term, which has one leader. The digest is PROMISED. */
  | {
      readonly kind: BallotKind;
      readonly epoch: Epoch;
      readonly view: View;
      readonly digest: Bytes;
    };

type ViewPlace = Extract<Place, { readonly kind: 'view-change' | 'new-view' | 'vote' }>;

/** What is said in a ballot or term, and marks it alone (GRD-19). */
export type BallotKind = 'promise' | 'accepted' | 'configured' | 'fast-accepted' | 'appended';

/** A ballot belongs to one proposer, so a promise for it says the same to everyone. */
export const PROMISED: Bytes = new Uint8Array(32);

/** Whom a vote is for. */
export const votedDigest = (candidate: ReplicaId): Bytes => new Uint8Array(32).fill(candidate + 1);

/** The hashes voted for at one height of the highest view; null: no vote of that phase. */
export type HeightMarks = Readonly<Record<VotePhase, Bytes | null>>;

export interface ViewMark {
  readonly view: View;
  /** SHA-256 of the payload. */
  readonly digest: Bytes;
}

export interface CheckpointMark {
  readonly height: Height;
  /** SHA-256 of the signed text. */
  readonly digest: Bytes;
}

export interface Marks {
  /** Views and heights below are of this epoch; checkpoints may be older. */
  readonly epoch: Epoch;
  /** The highest view of any mark. Only rises; votes below it are refused for ever. */
  readonly view: View;
  /** The highest view this key has led; null: none. Only rises. */
  readonly led: View | null;
  /** Nothing is signed at or below this view (null: no such view) or at or below this height (0: no such height). Only rise. */
  readonly abstainedView: View | null;
  readonly abstainedHeight: Height;
  /** Votes of `view` at or below this height are no longer remembered. Rises within a view. */
  readonly heightFloor: Height;
  /** Votes of `view`, in no particular order, at most `heightsMax`. */
  readonly votes: ReadonlyMap<Height, HeightMarks>;
  /** The highest of each; null: none. */
  readonly viewChange: ViewMark | null;
  readonly newView: ViewMark | null;
  /**
   * The payload of the view-change for `view`, while nothing else is marked there: a log that has lost it does not make this replica ask for
   * yet another view (GRD-18). Null from the first vote, lead or new-view of `view` on.
   */
  readonly request: Bytes | null;
  /** By rising height, at most `checkpointsMax`. */
  readonly checkpoints: readonly CheckpointMark[];
}

/** What holds for this incarnation of the process beside the marks. */
export interface Incarnation {
  /** No vote at or below this view; -1: none is burned. */
  readonly burned: number;
  /** The proposals signed without a mark since the start. */
  readonly proposals: Proposals;
}

export function emptyMarks(epoch: Epoch, view: View): Marks {
  return {
    epoch,
    view,
    led: null,
    abstainedView: null,
    abstainedHeight: asHeight(0),
    heightFloor: asHeight(0),
    votes: new Map(),
    viewChange: null,
    newView: null,
    request: null,
    checkpoints: [],
  };
}

/** A copy of marks that a batch is tried on: when one pledge is refused, the copy is dropped and nothing has changed (GRD-1). */
export class MarksDraft {
  #marks: Marks;
  readonly #incarnation: Incarnation;
  #votesCopied = false;
  #votes: Map<Height, HeightMarks> = new Map();

  constructor(marks: Marks, incarnation: Incarnation) {
    this.#marks = marks;
    this.#incarnation = incarnation;
  }

  get marks(): Marks {
    return this.#marks;
  }

  /** Takes the place, or finds it taken for the same digest. The digest is copied. @throws GuardRefusal */
  mark(place: Place): void {
    assertEpoch(this.#marks, place.epoch);
    assert(place.digest.length === 32, 'a place is taken for a digest of 32 bytes');
    if ('view' in place) assertCount(place.view, 'view');
    if ('height' in place) assertCount(place.height, 'height');
    switch (place.kind) {
      case 'prepare':
      case 'commit':
        this.#vote(place.kind, place.view, place.height, place.digest);
        break;
      case 'checkpoint':
        this.#checkpoint(place.height, place.digest);
        break;
      case 'view-change':
        this.#viewMark('viewChange', place, place.payload);
        break;
      // [GRD-19] A vote in a term takes the place of a request for a view: one for each, rising. The log knows whom it was for (RAFT-E-2).
      case 'vote':
        this.#viewMark('viewChange', place, null);
        break;
      case 'new-view':
        this.#viewMark('newView', place, null);
        break;
      case 'promise':
      case 'accepted':
      case 'configured':
      case 'fast-accepted':
      case 'appended':
        this.#ballot(place.kind, place.view);
        break;
      default:
        unreachable(place);
    }
  }

  /** [GRD-6] The view is led from now on, and burned at the next start. @throws GuardRefusal */
  lead(view: View): void {
    assertCount(view, 'view');
    assertVotable(this.#marks, this.#incarnation, view);
    this.#raiseView(view);
    if (this.#marks.led !== view) this.#marks = { ...this.#marks, led: view, request: null };
  }

  /** [GRD-12] Gives up every place at or below the view or the height. */
  abstain(view: View, height: Height): void {
    assertCount(view, 'view');
    assertCount(height, 'height');
    const { abstainedView, abstainedHeight } = this.#marks;
    this.#marks = {
      ...this.#marks,
      abstainedView: abstainedView === null || view > abstainedView ? view : abstainedView,
      abstainedHeight: height > abstainedHeight ? height : abstainedHeight,
    };
  }

  /** [REC-4] The same, and no view-change for the view above is signed: one that was forgotten may be under way. */
  readmit(view: View, height: Height): void {
    this.abstain(view, height);
    const entered = asView(view + 1);
    if (entered <= this.#marks.view) return;
    this.#raiseView(entered);
    this.#marks = { ...this.#marks, viewChange: { view: entered, digest: new Uint8Array(32) } };
  }

  #vote(phase: VotePhase, view: View, height: Height, digest: Bytes): void {
    assertVotable(this.#marks, this.#incarnation, view);
    // The marks first: a prepare that contradicts one must be known as that, and burn the view (GRD-17).
    if (assertVoteFree(this.#marks, phase, view, height, digest) === 'held') return;
    if (phase === 'prepare') this.#incarnation.proposals.assertAgrees(view, height, digest);
    this.#raiseView(view);
    this.#copyVotes();
    if (this.#marks.request !== null) this.#marks = { ...this.#marks, request: null };
    const held = this.#votes.get(height) ?? { prepare: null, commit: null };
    const other = phase === 'prepare' ? held.commit : held.prepare;
    // One array where both phases name one hash: sign-state.ts then writes it once.
    const kept = other !== null && equalBytes(other, digest) ? other : new Uint8Array(digest);
    this.#votes.set(height, phase === 'prepare' ? { ...held, prepare: kept } : { ...held, commit: kept });
    this.#dropLowestHeights();
  }

  /**
   * [GRD-5] What the log holds as decided is voted for no more: its marks are given up, so that a write carries the window alone. Where there are none,
   * as with ballots and terms, nothing changes, and nothing need be written (GRD-19).
   */
  forget(decided: Height): void {
    if (decided <= this.#marks.heightFloor || this.#marks.votes.size === 0) return;
    this.#copyVotes();
    for (const height of this.#votes.keys()) if (height <= decided) this.#votes.delete(height);
    this.#marks = { ...this.#marks, heightFloor: decided };
  }

  #copyVotes(): void {
    if (this.#votesCopied) return;
    this.#votes = new Map(this.#marks.votes);
    this.#votesCopied = true;
    this.#marks = { ...this.#marks, votes: this.#votes };
  }

  /** [GRD-5] Bounded: what is forgotten is refused. */
  #dropLowestHeights(): void {
    while (this.#votes.size > heightsMax) {
      let lowest = Number.POSITIVE_INFINITY;
      for (const height of this.#votes.keys()) if (height < lowest) lowest = height;
      this.#votes.delete(asHeight(lowest));
      this.#marks = { ...this.#marks, heightFloor: asHeight(lowest) };
    }
  }

  /** [GRD-8] One digest a height, rising; a height below the highest is signed again only if it is still held. */
  #checkpoint(height: Height, digest: Bytes): void {
    const { checkpoints, abstainedHeight } = this.#marks;
    const held = checkpoints.find((mark) => mark.height === height);
    if (held !== undefined && !equalBytes(held.digest, digest))
      throw new GuardRefusal('guard-conflict', { kind: 'checkpoint', height });
    const highest = checkpoints.at(-1)?.height ?? -1;
    if (height <= abstainedHeight || (held === undefined && height <= highest)) {
      throw new GuardRefusal('guard-height-passed', { kind: 'checkpoint', height });
    }
    if (held !== undefined) return;
    const risen = [...checkpoints, { height, digest: new Uint8Array(digest) }];
    this.#marks = { ...this.#marks, checkpoints: risen.slice(-checkpointsMax) };
  }

  /** [GRD-9] [GRD-18] One payload a view; never below the highest view of any mark, unless it is the very one that is held. */
  /** @param request what is to be said again after a restart (GRD-18) */
  #viewMark(field: 'viewChange' | 'newView', { kind, view, digest }: ViewPlace, request: Bytes | null): void {
    const held = this.#marks[field];
    const { abstainedView } = this.#marks;
    if (abstainedView !== null && view <= abstainedView) throw new GuardRefusal('guard-view-burned', { kind, view });
    if (held !== null && held.view === view) {
      if (equalBytes(held.digest, digest)) return;
      throw new GuardRefusal('guard-conflict', { kind, view });
    }
    if (view < this.#marks.view) throw new GuardRefusal('guard-view-passed', { kind, view, marked: this.#marks.view });
    this.#raiseView(view);
    const kept = request === null ? null : new Uint8Array(request);
    this.#marks = { ...this.#marks, [field]: { view, digest: new Uint8Array(digest) }, request: kept };
  }

  /**
   * [GRD-19] Nothing below the highest ballot of any mark. What was accepted in it stands in the log alone: an acceptance needs no write here
   * but the first one of its ballot.
   */
  #ballot(kind: BallotKind, view: View): void {
    const { abstainedView } = this.#marks;
    if (abstainedView !== null && view <= abstainedView) throw new GuardRefusal('guard-view-burned', { kind, view });
    if (view < this.#marks.view) throw new GuardRefusal('guard-view-passed', { kind, view, marked: this.#marks.view });
    this.#raiseView(view);
  }

  /** [GRD-3] Votes are remembered for the highest view alone, since below it there will be no more. */
  #raiseView(view: View): void {
    assert(view >= this.#marks.view, 'the view of the marks only rises');
    if (view === this.#marks.view) return;
    this.#votes = new Map();
    this.#votesCopied = true;
    this.#marks = { ...this.#marks, view, heightFloor: asHeight(0), votes: this.#votes, request: null };
  }
}

/** [GRD-7] The proposals signed without a mark, in the one view this incarnation leads. They are gone with the process, and so is the view. */
export class Proposals {
  #view: View | null = null;
  #lowest = Number.POSITIVE_INFINITY;
  #highest = -1;
  readonly #hashes = new Map<Height, Bytes>();

  /** The view this incarnation may propose in; null: none. */
  get view(): View | null {
    return this.#view;
  }

  start(view: View): void {
    if (this.#view === view) return;
    this.#view = view;
    this.#lowest = Number.POSITIVE_INFINITY;
    this.#highest = -1;
    this.#hashes.clear();
  }

  /**
   * A prepare in the led view says what the proposal said. Below the first proposal lies the base of the view, which its primary
   * prepares like everyone (PBFT-NV-3), often after it has proposed on top. @throws GuardRefusal
   */
  assertAgrees(view: View, height: Height, hash: Bytes): void {
    if (view !== this.#view) return;
    const proposed = this.#hashes.get(height);
    if (proposed !== undefined && !equalBytes(proposed, hash))
      throw new GuardRefusal('guard-conflict', { kind: 'proposal', view, height });
    if (proposed === undefined && height >= this.#lowest && height <= this.#highest)
      throw new GuardRefusal('guard-height-passed', { kind: 'proposal', view, height });
  }

  /** A new proposal lies above all others. @throws GuardRefusal */
  assertRises(view: View, height: Height): void {
    if (view === this.#view && !this.#hashes.has(height) && height <= this.#highest)
      throw new GuardRefusal('guard-height-passed', { kind: 'proposal', view, height });
  }

  /** After `assertAgrees` and `assertRises`. The hash is copied. */
  add(height: Height, hash: Bytes): void {
    if (this.#hashes.has(height)) return;
    assert(height > this.#highest, 'the heights of proposals rise');
    this.#lowest = Math.min(this.#lowest, height);
    this.#highest = height;
    this.#hashes.set(height, new Uint8Array(hash));
    // Insertion is by rising height: the first key is the lowest, and what is forgotten is refused.
    for (const lowest of this.#hashes.keys()) {
      if (this.#hashes.size <= heightsMax) break;
      this.#hashes.delete(lowest);
    }
  }
}

/** [GRD-20] What this replica called decided since its start: at the last heights one block each. */
export class DecidedWords {
  readonly #hashes = new Map<Height, Bytes>();

  /** The hash is copied. @throws GuardRefusal guard-conflict */
  say(height: Height, hash: Bytes): void {
    const said = this.#hashes.get(height);
    if (said !== undefined && !equalBytes(said, hash))
      throw new GuardRefusal('guard-conflict', { kind: 'decided', height });
    if (said === undefined) this.#hashes.set(height, new Uint8Array(hash));
    for (const oldest of this.#hashes.keys()) {
      if (this.#hashes.size <= heightsMax) break;
      this.#hashes.delete(oldest);
    }
  }
}

/** What a pledge is at, without what it says; `of` tells those apart of which one place allows several. */
export function placeName(place: Place, of: Bytes | undefined): string {
  switch (place.kind) {
    case 'prepare':
    case 'commit':
      return `${place.kind} ${place.view} ${place.height}`;
    case 'checkpoint':
      return `${place.kind} ${place.height}`;
    case 'view-change':
    case 'new-view':
    case 'promise':
    case 'accepted':
    case 'configured':
    case 'fast-accepted':
    case 'vote':
    case 'appended':
      return `${place.kind} ${place.view}${of === undefined ? '' : ` ${toHex(of)}`}`;
  }
}

/** What the file can hold; a bug otherwise. */
export function assertCount(value: number, what: string): void {
  assert(Number.isSafeInteger(value) && value >= 0, `a ${what} is an integer from 0 to 2^53 - 1`);
}

/** [GRD-10] Views and heights mean something in one epoch. @throws GuardRefusal */
export function assertEpoch(marks: Marks, epoch: Epoch): void {
  if (epoch !== marks.epoch) throw new GuardRefusal('guard-wrong-epoch', { epoch, opened: marks.epoch });
}

/** [GRD-4] No vote below the highest view, [GRD-7] nor in a view led before the start. @throws GuardRefusal */
export function assertVotable(marks: Marks, { burned }: Incarnation, view: View): void {
  if (view <= burned) throw new GuardRefusal('guard-view-burned', { view, burned });
  if (view < marks.view) throw new GuardRefusal('guard-view-passed', { view, marked: marks.view });
}

/** [GRD-2] At one view, height and phase one hash, and nothing at or below a floor but what is still held. @throws GuardRefusal */
export function assertVoteFree(
  marks: Marks,
  phase: VotePhase,
  view: View,
  height: Height,
  hash: Bytes,
): 'free' | 'held' {
  const fields = { kind: phase, view, height };
  if (height <= marks.abstainedHeight) throw new GuardRefusal('guard-height-passed', fields);
  if (view !== marks.view) return 'free';
  const held = marks.votes.get(height)?.[phase] ?? null;
  if (held !== null) {
    if (equalBytes(held, hash)) return 'held';
    throw new GuardRefusal('guard-conflict', fields);
  }
  if (height <= marks.heightFloor) throw new GuardRefusal('guard-height-passed', fields);
  return 'free';
}

/** As places, by rising height. */
export function votesOf({ view, votes }: Marks): Omit<VotePlace, 'epoch'>[] {
  const marks: Omit<VotePlace, 'epoch'>[] = [];
  for (const [height, held] of [...votes].sort(([a], [b]) => a - b)) {
    for (const phase of ['prepare', 'commit'] as const) {
      const hash = held[phase];
      // The marks of votes are the hashes of blocks; the brand was lost on the way through the file.
      if (hash !== null) marks.push({ phase, view, height, hash: hash as Hash });
    }
  }
  return marks;
}
