// The vote guard: the one way to a replica's signature. It refuses to sign two different things at one place, ever: across
// crashes, restarts and bugs of the protocol above it. The rules are marks.ts; the file is slots.ts and slot-file.ts; the
// reasons for a file of its own are docs/adr/0004-vote-guard.md.
//
// Order of a pledge: `promise` (checked, then durable), then `sign`. Order of a proposal: `lead` (durable, once a view), then
// `signProposal` as often as there are blocks, without waiting for the disk. After a refusal nothing has changed; after a failing
// write nothing is signed any more.

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { decidedSigningBytes, type VotePlace, voteSigningBytes } from '../protocol/certificate.ts';
import type { LogPosition } from '../protocol/log.ts';
import type { CheckpointPlace, ReplicaPledge } from '../protocol/messages.ts';
import { asEpoch, asView, type Epoch, type Hash, type Height, type View } from '../protocol/types.ts';
import { frameSigningBytes } from '../protocol/wire/frame.ts';
import { GuardError, GuardRefusal } from './errors.ts';
import { type SecretKey, signBytes } from './keypair.ts';
import {
  assertCount,
  assertEpoch,
  assertVotable,
  assertVoteFree,
  DecidedWords,
  MarksDraft,
  Proposals,
  placeName,
  type ViewMark,
  votesOf,
} from './marks.ts';
import { type PledgeLayouts, readPledge } from './pledges.ts';
import { beginEpoch, encodeSignState, firstState, fits, lockBytesMax, type SignState } from './sign-state.ts';
import { openSignState } from './sign-state-file.ts';
import { SlotFile } from './slot-file.ts';
import { type FrameSigningBytes, statementBytes } from './statement.ts';

export interface GuardOptions {
  /** The sign-state file, in an existing directory. */
  readonly path: string;
  readonly secret: SecretKey;
  readonly chainId: Hash;
  /** A later epoch than the file's begins with no marks but those of checkpoints; an earlier one is refused. Null: the file's own. */
  readonly epoch: Epoch | null;
  /** Makes the file where there is none: only for a key that has never signed. A file that is there is opened as it is. */
  readonly create: boolean;
  /** The UTF-8 text of the checkpoint note, its final newline included. */
  readonly checkpointSigningBytes: (place: CheckpointPlace) => Bytes;
  /** What a frame of this chain signs. Default: the layout of protocol/wire/frame.ts. */
  readonly frameSigningBytes?: FrameSigningBytes;
}

/** A pledge with its encoded message. View-changes and new-views are signed over the payload; for the others it is not looked at. */
export interface PledgePayload {
  readonly pledge: ReplicaPledge;
  readonly payload: Bytes;
}

export interface PromiseBatch {
  /** In the order of the core: a commit may stand before the view-change that ends its view, not after it. */
  readonly pledges: readonly PledgePayload[];
  /** The highest prepared certificate, opaque, at most `lockBytesMax` bytes; null: unchanged. */
  readonly lock: Bytes | null;
  /** The log's last position confirmed durable before this batch. Never runs back. */
  readonly log: LogPosition;
  /** The highest height that the log holds as decided at `log`: votes up to it are given up (GRD-5). Default: none is. */
  readonly decided?: Height;
}

/** A proposal: its signature is the primary's prepare vote. */
export type ProposalPlace = Omit<VotePlace, 'phase'>;

/** What the guard remembers. For recovery; never needed to decide whether to sign. */
export interface GuardState {
  readonly epoch: Epoch;
  /** The highest view of any mark: the core must not start below it. */
  readonly view: View;
  /** The highest view this key has led; null: none. */
  readonly led: View | null;
  /** No vote is signed at or below this view in this incarnation; null: no such view. */
  readonly burned: View | null;
  /** Nothing is signed at or below these, ever (GRD-12); null and 0: no such place. */
  readonly abstained: { readonly view: View | null; readonly height: Height };
  /** What this key has signed is not known: no pledge is, until `readmit`. */
  readonly quarantined: boolean;
  readonly lock: Bytes | null;
  readonly floor: LogPosition;
  readonly viewChange: ViewMark | null;
  readonly newView: ViewMark | null;
  /** The payload of the view-change for `view`, while this key has signed nothing else there (GRD-18); null: it has, or asks for nothing. */
  readonly request: Bytes | null;
  /** Votes of `view`, by rising height. */
  readonly marks: readonly Omit<VotePlace, 'epoch'>[];
}

export interface Guard {
  /** 32 bytes. */
  readonly publicKey: Bytes;
  /** Made anew with each call, for recovery and tests. */
  readonly state: GuardState;
  /** Where the log must be at the next start: as durable as the marks. */
  readonly floor: LogPosition;
  /**
   * All or nothing: checks every pledge, then makes the marks durable with one write and one data sync. May be called again
   * before it has resolved; what is waiting then shares the next write.
   * @throws GuardRefusal (nothing has changed), GuardError guard-poisoned or guard-closed
   */
  promise(batch: PromiseBatch): Promise<void>;
  /**
   * 64 bytes. As often as wanted: the same pledge has the same signature.
   * @throws GuardRefusal guard-not-promised unless exactly this pledge was promised since the start, and is durable
   */
  sign(pledge: ReplicaPledge, payload: Bytes): Bytes;
  /** Makes durable that this replica leads `view`: from now on it proposes there, until it restarts. @throws GuardRefusal */
  lead(view: View): Promise<void>;
  /** 64 bytes, at once: no mark is needed, because the view is burned at the next start. @throws GuardRefusal */
  signProposal(place: ProposalPlace): Bytes;
  /**
   * 64 bytes, at once: this replica's word that a block is decided, in a chain whose members are trusted (CFT-PR-1). At one height it says one
   * block since its start. @throws GuardRefusal guard-conflict
   */
  signDecided(place: Omit<ProposalPlace, 'view'>): Bytes;
  /** 64 bytes over a message that binds nobody. @throws GuardRefusal guard-binding-kind, guard-unknown-kind */
  signStatement(kind: string, payload: Bytes): Bytes;
  /**
   * For a replica whose memory was lost: makes durable that nothing is signed at or below `view`, nor at or below `height`.
   * Repair calls it with the highest of both that any peer holds from this key. @throws GuardError
   */
  abstain(options: { readonly view: View; readonly height: Height }): Promise<void>;
  /**
   * [REC-4] The same, and no view-change for the view after it is signed, the quarantine is over, and the lock is this one, in one write.
   * @throws GuardError; GuardRefusal guard-lock-too-large
   */
  readmit(options: { readonly view: View; readonly height: Height; readonly lock: Bytes }): Promise<void>;
  /**
   * [GRD-10] Goes on in a later epoch, with no marks but those of checkpoints, no lock and no lead. Durable with the first mark in it: until then nothing
   * that binds is signed there, and whoever opens the file for that epoch comes to the same. Nothing else may be under way but statements.
   * @throws GuardError guard-epoch-passed: it is there already, or farther
   */
  beginEpoch(epoch: Epoch): void;
  /** What `state` will say after `beginEpoch`, as long as nothing else comes in between. Changes nothing. @throws GuardError guard-epoch-passed */
  stateIn(epoch: Epoch): GuardState;
  /** After the log was repaired: deliberately replaces the floor, which else only rises. @throws GuardError */
  resetFloor(log: LogPosition): Promise<void>;
  /** Waits for the writes under way, then gives the file and its lock back. Nothing is signed any more. */
  close(): Promise<void>;
}

/**
 * @throws GuardError guard-missing, guard-damaged, guard-wrong-owner, guard-epoch-passed, guard-locked, guard-lock-unavailable;
 * a system error where the directory cannot be written
 */
export async function openGuard(options: GuardOptions): Promise<Guard> {
  const { path, create, chainId } = options;
  const owner = { publicKey: options.secret.publicKey, chainId };
  let opened = await openSignState(path, owner);
  if (opened === undefined && create) {
    await SlotFile.create(path, encodeSignState(firstState(owner, options.epoch ?? asEpoch(0), false)));
    opened = await openSignState(path, owner);
  }
  if (opened === undefined) throw new GuardError('guard-missing', { path });
  const { file, state } = opened;
  try {
    const epoch = options.epoch ?? state.marks.epoch;
    if (epoch < state.marks.epoch) throw new GuardError('guard-epoch-passed', { path, epoch, file: state.marks.epoch });
    const guard = new FileGuard(options, file, epoch === state.marks.epoch ? state : beginEpoch(state, epoch));
    await guard.settle();
    return guard;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The floor alone is written when the log has gone so many batches ahead of it. */
export const floorLagMax = 64;

/** Pledges that may be signed, this many at most: four windows of both phases. The oldest are forgotten, that is refused. */
const promisedMax = 512;

interface Promised {
  readonly digest: Bytes;
  readonly signingBytes: Bytes;
  /** The change of the state that holds it. */
  readonly change: number;
}

class FileGuard implements Guard {
  readonly publicKey: Bytes;
  readonly #options: GuardOptions;
  readonly #layouts: PledgeLayouts;
  readonly #file: SlotFile;
  /** Ahead of the disk while a write is under way. Replaced, never changed in place. */
  #state: SignState;
  /** [GRD-7] The views of earlier incarnations, and what is abstained from. Only rises. */
  #burned: number;
  #proposals = new Proposals();
  /** By place. Only what was promised since the start; older promises are promised again, which checks them against the marks. */
  readonly #promised = new Map<string, Promised>();
  readonly #decided = new DecidedWords();
  /** Counts changes of `#state`: how many there were, and how many are durable. */
  #changes = 1;
  #durable = 0;
  /** What the write under way will have made durable. */
  #carried = 0;
  /** Of `#state`, as it is on disk. */
  #floor: LogPosition;
  /** The change that made `#proposals.view` led. */
  #leadChange = 0;
  #writing: Promise<void> | null = null;
  /** A write that has not begun: whatever changes until then goes with it. */
  #waiting: Promise<void> | null = null;
  /** Set once; from then on nothing is signed. */
  #ended: 'guard-poisoned' | 'guard-closed' | null = null;
  #cause: unknown;

  constructor(options: GuardOptions, file: SlotFile, state: SignState) {
    this.publicKey = options.secret.publicKey;
    this.#options = options;
    const { chainId, checkpointSigningBytes, frameSigningBytes: frameBytes } = options;
    this.#layouts = {
      chainId,
      checkpointSigningBytes,
      frameSigningBytes: frameBytes ?? ((kind, payload) => frameSigningBytes(chainId, kind, payload)),
    };
    this.#file = file;
    this.#state = state;
    this.#floor = state.floor;
    this.#burned = burnedAtFirst(state);
  }

  get state(): GuardState {
    return shown(this.#state, this.#burned);
  }

  stateIn(epoch: Epoch): GuardState {
    this.#assertLater(epoch);
    const state = beginEpoch(this.#state, epoch);
    return shown(state, burnedAtFirst(state));
  }

  get floor(): LogPosition {
    return this.#floor;
  }

  /** Resolves when every change until now is durable. At the start, too: what was read may be a write whose sync failed. */
  settle(): Promise<void> {
    if (this.#durable === this.#changes) return Promise.resolve();
    if (this.#writing !== null && this.#carried === this.#changes) return this.#writing;
    return this.#flush();
  }

  /** [GRD-1] All or nothing, and durable before it can be signed. */
  async promise({ pledges, lock, log, decided }: PromiseBatch): Promise<void> {
    this.#assertAlive();
    this.#assertRemembers();
    const floor = this.#risenFloor(log);
    if (lock !== null && lock.length > lockBytesMax)
      throw new GuardRefusal('guard-lock-too-large', { bytes: lock.length });
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    if (decided !== undefined) draft.forget(decided);
    const promised: [string, Omit<Promised, 'change'>][] = [];
    for (const { pledge, payload } of pledges) {
      const read = readPledge(pledge, payload, this.#layouts);
      const { place, signingBytes } = read;
      try {
        draft.mark(place);
      } catch (error) {
        if (place.kind === 'prepare' || place.kind === 'commit') this.#burnOnConflict(place.view, error);
        throw error;
      }
      promised.push([placeName(read.place, read.of), { digest: new Uint8Array(place.digest), signingBytes }]);
    }
    if (!fits({ marks: draft.marks, lock: lock ?? this.#state.lock })) throw new GuardRefusal('guard-lock-too-large');
    // Here the batch is accepted. Marks that are held already need no write; the floor alone needs one now and then, since it
    // stands for what earlier pledges rest upon.
    const isLockNew = lock !== null && (this.#state.lock === null || !equalBytes(lock, this.#state.lock));
    const isFloorFar = floor.sequence - this.#floor.sequence >= floorLagMax;
    if (draft.marks !== this.#state.marks || isLockNew || isFloorFar) this.#changes += 1;
    this.#state = {
      ...this.#state,
      marks: draft.marks,
      floor,
      lock: isLockNew ? new Uint8Array(lock) : this.#state.lock,
    };
    for (const [key, entry] of promised) this.#remember(key, { ...entry, change: this.#changes });
    await this.settle();
  }

  /**
   * [GRD-17] Whoever asks for a vote that contradicts a mark has forgotten what it accepted in this view. A vote stands for the blocks below
   * it, so the next one, at a free height, could contradict the forgotten ones as well: no vote of the view is signed any more.
   */
  #burnOnConflict(view: View, error: unknown): void {
    if (error instanceof GuardRefusal && error.code === 'guard-conflict') this.#burned = Math.max(this.#burned, view);
  }

  sign(pledge: ReplicaPledge, payload: Bytes): Bytes {
    this.#assertAlive();
    const read = readPledge(pledge, payload, this.#layouts);
    const { place, signingBytes } = read;
    const promised = this.#promised.get(placeName(read.place, read.of));
    const isPromised =
      promised !== undefined &&
      promised.change <= this.#durable &&
      equalBytes(promised.digest, place.digest) &&
      equalBytes(promised.signingBytes, signingBytes);
    if (!isPromised) throw new GuardRefusal('guard-not-promised', { kind: place.kind });
    return signBytes(this.#options.secret, promised.signingBytes);
  }

  async lead(view: View): Promise<void> {
    this.#assertAlive();
    this.#assertRemembers();
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    draft.lead(view);
    if (this.#proposals.view !== view) {
      this.#changes += 1;
      this.#leadChange = this.#changes;
      this.#proposals.start(view);
      this.#state = { ...this.#state, marks: draft.marks };
    }
    await this.settle();
  }

  signProposal({ epoch, view, height, hash }: ProposalPlace): Bytes {
    this.#assertAlive();
    const { marks } = this.#state;
    assertEpoch(marks, epoch);
    assertVotable(marks, { burned: this.#burned, proposals: this.#proposals }, view);
    if (this.#proposals.view !== view || this.#leadChange > this.#durable) {
      throw new GuardRefusal('guard-not-leading', { view });
    }
    try {
      assertVoteFree(marks, 'prepare', view, height, hash);
      this.#proposals.assertAgrees(view, height, hash);
    } catch (error) {
      // A proposal is its primary's prepare (PBFT-PP-5): the next one, on top of it, would stand for what was contradicted here.
      this.#burnOnConflict(view, error);
      throw error;
    }
    this.#proposals.assertRises(view, height);
    this.#proposals.add(height, hash);
    const place = { phase: 'prepare', epoch, view, height, hash } as const;
    return signBytes(this.#options.secret, voteSigningBytes(this.#options.chainId, place));
  }

  /** [GRD-20] */
  signDecided({ epoch, height, hash }: Omit<ProposalPlace, 'view'>): Bytes {
    this.#assertAlive();
    assertEpoch(this.#state.marks, epoch);
    this.#decided.say(height, hash);
    return signBytes(this.#options.secret, decidedSigningBytes(this.#options.chainId, { epoch, height, hash }));
  }

  signStatement(kind: string, payload: Bytes): Bytes {
    this.#assertAlive();
    return signBytes(this.#options.secret, statementBytes(this.#layouts.frameSigningBytes, kind, payload));
  }

  abstain(options: { readonly view: View; readonly height: Height }): Promise<void> {
    return this.#giveUp((draft) => draft.abstain(options.view, options.height), options.view, {});
  }

  async readmit({ view, height, lock }: Parameters<Guard['readmit']>[0]): Promise<void> {
    if (lock.length > lockBytesMax) throw new GuardRefusal('guard-lock-too-large', { bytes: lock.length });
    const changes = { lock: new Uint8Array(lock), quarantined: false };
    await this.#giveUp((draft) => draft.readmit(view, height), view, changes);
  }

  async #giveUp(
    mark: (draft: MarksDraft) => void,
    view: View,
    changes: Partial<Pick<SignState, 'lock' | 'quarantined'>>,
  ): Promise<void> {
    this.#assertAlive();
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    mark(draft);
    this.#burned = Math.max(this.#burned, view);
    this.#promised.clear();
    this.#changes += 1;
    this.#state = { ...this.#state, ...changes, marks: draft.marks };
    await this.settle();
  }

  beginEpoch(epoch: Epoch): void {
    this.#assertAlive();
    this.#assertLater(epoch);
    this.#state = beginEpoch(this.#state, epoch);
    this.#burned = burnedAtFirst(this.#state);
    this.#proposals = new Proposals();
    this.#promised.clear();
    this.#changes += 1;
  }

  async resetFloor(log: LogPosition): Promise<void> {
    this.#assertAlive();
    const floor = copyOf(log);
    this.#changes += 1;
    this.#state = { ...this.#state, floor };
    await this.settle();
  }

  async close(): Promise<void> {
    if (this.#ended === 'guard-closed') return;
    this.#ended = 'guard-closed';
    // A write that fails now has told its own caller.
    await Promise.allSettled([this.#writing, this.#waiting]);
    await this.#file.close();
  }

  #remember(key: string, promised: Promised): void {
    // Deleted first, so that the order of the map is the order of the promises.
    this.#promised.delete(key);
    this.#promised.set(key, promised);
    for (const oldest of this.#promised.keys()) {
      if (this.#promised.size <= promisedMax) break;
      this.#promised.delete(oldest);
    }
  }

  /** [GRD-13] What was signed rests on a log that reached the floor; a log that has not is repaired before anything is promised. */
  #risenFloor(log: LogPosition): LogPosition {
    const { floor } = this.#state;
    if (log.sequence === floor.sequence && equalBytes(log.hash, floor.hash)) return floor;
    if (log.sequence <= floor.sequence) {
      throw new GuardRefusal('guard-log-behind', { sequence: log.sequence, floor: floor.sequence });
    }
    return copyOf(log);
  }

  /** Writes never overlap: the slots take turns. */
  #flush(): Promise<void> {
    if (this.#waiting !== null) return this.#waiting;
    if (this.#writing === null) return this.#write();
    this.#waiting = this.#writing.then(() => {
      this.#waiting = null;
      return this.#write();
    });
    return this.#waiting;
  }

  /** [GRD-14] A write that fails may have reached the disk or not: who cannot know what it has promised signs nothing. */
  #write(): Promise<void> {
    const carried = this.#changes;
    const { floor } = this.#state;
    this.#carried = carried;
    this.#writing = this.#file.write(encodeSignState(this.#state)).then(
      () => {
        this.#writing = null;
        this.#durable = carried;
        this.#floor = floor;
      },
      (cause: unknown) => {
        this.#ended ??= 'guard-poisoned';
        this.#cause = cause;
        throw new GuardError('guard-poisoned', { path: this.#options.path }, cause);
      },
    );
    return this.#writing;
  }

  /** [REC-1] Pledges, a lead and with it proposals need a memory; statements bind nobody. */
  #assertRemembers(): void {
    if (this.#state.quarantined) throw new GuardRefusal('guard-quarantined');
  }

  #assertLater(epoch: Epoch): void {
    const { path } = this.#options;
    const { marks } = this.#state;
    if (epoch <= marks.epoch) throw new GuardError('guard-epoch-passed', { path, epoch, file: marks.epoch });
  }

  #assertAlive(): void {
    if (this.#ended !== null) throw new GuardError(this.#ended, { path: this.#options.path }, this.#cause);
  }
}

/** [GRD-7] What a guard that has just been opened signs nothing at or below. */
const burnedAtFirst = ({ marks }: SignState): number => Math.max(marks.led ?? -1, marks.abstainedView ?? -1);

const shown = ({ marks, floor, lock, quarantined }: SignState, burned: number): GuardState => ({
  epoch: marks.epoch,
  view: marks.view,
  led: marks.led,
  burned: burned < 0 ? null : asView(burned),
  abstained: { view: marks.abstainedView, height: marks.abstainedHeight },
  quarantined,
  lock,
  floor,
  viewChange: marks.viewChange,
  newView: marks.newView,
  request: marks.request,
  marks: votesOf(marks),
});

function copyOf({ sequence, hash }: LogPosition): LogPosition {
  assertCount(sequence, 'sequence');
  assert(hash.length === 32, 'a log position has a hash of 32 bytes');
  return { sequence, hash: new Uint8Array(hash) };
}
