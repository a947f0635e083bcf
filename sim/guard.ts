// The vote guard of one replica: the real rules (keys/marks.ts) over the real bytes (keys/sign-state.ts), on a simulated file. What
// keys/guard.ts adds to them, the waiting for the disk, is the replica's here: `promise` changes what the process knows, `content` is
// what must be in the file before anything of it is said.

import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { GuardRefusal } from '../keys/errors.ts';
import type { Marks, Place } from '../keys/marks.ts';
import { assertVotable, assertVoteFree, MarksDraft, PROMISED, Proposals, votedDigest } from '../keys/marks.ts';
import type { SignState, SignStateOwner } from '../keys/sign-state.ts';
import { beginEpoch, decodeSignState, encodeSignState, firstState, withoutLog } from '../keys/sign-state.ts';
import { assert } from '../protocol/assert.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { checkpointSigningBytes } from '../protocol/checkpoint-note.ts';
import { decodeCertificate, encodeCertificate, isRefusal } from '../protocol/codec.ts';
import type { Recovery } from '../protocol/cores.ts';
import type { LogPosition } from '../protocol/log.ts';
import type { PrePrepare, ReplicaPledge } from '../protocol/messages.ts';
import type { QuarantineStart, Readmission } from '../protocol/pbft/quarantine.ts';
import type { Epoch, Hash, Height, View } from '../protocol/types.ts';
import { asEpoch, asHeight, asView } from '../protocol/types.ts';

export interface PledgePayload {
  readonly pledge: ReplicaPledge;
  readonly payload: Bytes;
}

/** What holds in the log when the batch is promised. */
export interface Durable {
  readonly log: LogPosition;
  readonly decided: Height;
}

export interface Durably {
  readonly marks: Marks;
  /** An encoded certificate. */
  readonly lock: Bytes | null;
  readonly quarantined: boolean;
}

/** What a file holds, or is to hold. Its bytes are made when somebody reads them: most are written over before that. */
export class Content {
  #state: SignState | null;
  #bytes: Bytes | null;

  constructor(what: { readonly state: SignState } | { readonly bytes: Bytes }) {
    this.#state = 'state' in what ? what.state : null;
    this.#bytes = 'bytes' in what ? what.bytes : null;
  }

  get state(): SignState {
    this.#state ??= decoded(this.bytes);
    return this.#state;
  }

  get bytes(): Bytes {
    this.#bytes ??= encodeSignState(this.state);
    return this.#bytes;
  }
}

export class SimGuard {
  #content: Content;
  readonly #chainId: Hash;
  /** What the process knows: ahead of the file while a write is under way. */
  #state: SignState;
  #burned = -1;
  #proposals = new Proposals();

  constructor(owner: SignStateOwner) {
    this.#chainId = owner.chainId;
    this.#state = firstState(owner, asEpoch(0), false);
    this.#content = this.content();
  }

  /** What is on the disk. */
  get file(): Bytes {
    return this.#content.bytes;
  }
  set file(bytes: Bytes) {
    this.#content = new Content({ bytes });
  }

  /** A write is done: this is on the disk. */
  write(content: Content): void {
    this.#content = content;
  }

  /** [REC-1] While no process has it open, the file is lost, and one in quarantine made (`synod repair --readmit`). */
  lose(): void {
    this.#state = firstState(this.#state, asEpoch(0), true);
    this.write(this.content());
  }

  /** As it was made, before the key signed anything. */
  forget(): void {
    this.#state = firstState(this.#state, asEpoch(0), false);
    this.write(this.content());
  }

  /** [REC-6] While no process has it open: the log is given up (`synod repair --log`). */
  giveUpLog(): void {
    this.#state = withoutLog(decoded(this.file));
    this.write(this.content());
  }

  /** The start of a process, or of an epoch: the file is all there is. [GRD-7] Views that were led before are burned. */
  open(epoch: Epoch): void {
    const file = decoded(this.file);
    assert(epoch >= file.marks.epoch, 'no earlier epoch than the file has seen');
    const state = epoch === file.marks.epoch ? file : beginEpoch(file, epoch);
    this.#state = state;
    this.#proposals = new Proposals();
    this.#burned = Math.max(state.marks.led ?? -1, state.marks.abstainedView ?? -1);
  }

  /** What the file says: what a crash now would leave. */
  get durable(): Durably {
    const { marks, lock, quarantined } = this.#content.state;
    return { marks, lock, quarantined };
  }

  /** Whose signatures it guards. */
  get publicKey(): Bytes {
    return this.#state.publicKey;
  }

  /** What the process knows. */
  get marks(): Marks {
    return this.#state.marks;
  }

  get floor(): LogPosition {
    return this.#state.floor;
  }

  get lock(): Certificate | null {
    return decodedLock(this.#state.lock);
  }

  /** [REC-1] */
  get quarantined(): boolean {
    return this.#state.quarantined;
  }

  /** [GRD-12] */
  get abstained(): QuarantineStart['abstained'] {
    const { abstainedView: view, abstainedHeight: height } = this.#state.marks;
    return { view, height };
  }

  /** What a core is told at its start, as daemon/node.ts does. */
  get recovery(): Recovery['guard'] {
    const { view, led, abstainedView: abstained, votes, request } = this.#state.marks;
    return {
      view: asView(Math.max(view, abstained ?? 0)),
      led,
      lock: this.lock,
      request,
      abstained,
      height: asHeight(Math.max(0, ...votes.keys())),
    };
  }

  /** [GRD-12] Nothing is signed at or below these, once `content` is durable. */
  abstain({ view, height }: Readmission): void {
    this.#giveUp((draft) => draft.abstain(view, height), view);
  }

  /** [REC-4] */
  readmit({ view, height, prepared }: Readmission & { readonly prepared: Certificate }): void {
    this.#giveUp((draft) => draft.readmit(view, height), view);
    this.#state = { ...this.#state, lock: encodeCertificate(prepared), quarantined: false };
  }

  #giveUp(mark: (draft: MarksDraft) => void, view: View): void {
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    mark(draft);
    this.#burned = Math.max(this.#burned, view);
    this.#state = { ...this.#state, marks: draft.marks };
  }

  /** For the file; durable, it makes true what `promise` and `lead` have said until now. */
  content(): Content {
    return new Content({ state: this.#state });
  }

  /** Those of the pledges that may be signed once `content` is durable; the others are refused (as daemon/speaker.ts asks, one by one then). */
  promise<P extends PledgePayload>(pledges: readonly P[], lock: Certificate | null, durable: Durable): readonly P[] {
    this.#assertRemembers();
    if (lock !== null) this.#state = { ...this.#state, lock: encodeCertificate(lock) };
    if (this.#promiseAll(pledges, durable)) return pledges;
    return pledges.length === 1 ? [] : pledges.filter((pledge) => this.#promiseAll([pledge], durable));
  }

  /** [GRD-1] All or nothing. */
  #promiseAll(pledges: readonly PledgePayload[], { log, decided }: Durable): boolean {
    assert(log.sequence >= this.#state.floor.sequence, 'the log is not behind what was promised on it');
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    draft.forget(decided);
    for (const { pledge, payload } of pledges) {
      const place = this.#placeOf(pledge, payload);
      try {
        draft.mark(place);
      } catch (error) {
        if (!(error instanceof GuardRefusal)) throw error;
        // [GRD-17]
        if ((place.kind === 'prepare' || place.kind === 'commit') && error.code === 'guard-conflict')
          this.#burned = Math.max(this.#burned, place.view);
        return false;
      }
    }
    this.#state = { ...this.#state, marks: draft.marks, floor: log };
    return true;
  }

  #placeOf(pledge: ReplicaPledge, payload: Bytes): Place {
    const { kind, epoch } = pledge;
    switch (kind) {
      case 'prepare':
      case 'commit':
        return { kind, epoch, view: pledge.view, height: pledge.height, digest: pledge.hash };
      case 'checkpoint': {
        const digest = native.sha256(checkpointSigningBytes(this.#chainId, pledge));
        return { kind, epoch, height: pledge.height, digest };
      }
      case 'view-change':
      case 'new-view':
        return { kind, epoch, view: pledge.view, digest: native.sha256(payload), payload };
      case 'vote':
        return { kind, epoch, view: pledge.term, digest: votedDigest(pledge.candidate) };
      case 'appended':
        return { kind, epoch, view: pledge.term, digest: PROMISED };
      case 'promise':
      case 'accepted':
      case 'configured':
      case 'fast-accepted':
        return { kind, epoch, view: pledge.ballot, digest: PROMISED };
    }
  }

  /** [REC-1] Whoever asks for a vote in quarantine has a bug. */
  #assertRemembers(): void {
    assert(!this.#state.quarantined, 'a replica in quarantine signs nothing that binds');
  }

  /** [GRD-6] Whether this replica leads the view, once `content` is durable. */
  lead(view: View): boolean {
    this.#assertRemembers();
    const draft = new MarksDraft(this.#state.marks, { burned: this.#burned, proposals: this.#proposals });
    try {
      draft.lead(view);
    } catch (error) {
      if (error instanceof GuardRefusal) return false;
      throw error;
    }
    this.#proposals.start(view);
    this.#state = { ...this.#state, marks: draft.marks };
    return true;
  }

  /** @throws GuardRefusal where the proposal must not be signed: for a core that was told the truth, that is a bug */
  propose({ view, block }: PrePrepare): void {
    this.#assertRemembers();
    const { marks } = this.#state;
    const { height } = block.header;
    assertVotable(marks, { burned: this.#burned, proposals: this.#proposals }, view);
    if (this.#proposals.view !== view) throw new GuardRefusal('guard-not-leading', { view });
    assertVoteFree(marks, 'prepare', view, height, block.hash);
    this.#proposals.assertAgrees(view, height, block.hash);
    this.#proposals.assertRises(view, height);
    this.#proposals.add(height, block.hash);
  }
}

function decoded(file: Bytes): SignState {
  const state = decodeSignState(file);
  assert(state !== undefined, 'the sign-state file is what was written');
  return state;
}

export function decodedLock(bytes: Bytes | null): Certificate | null {
  if (bytes === null) return null;
  const lock = decodeCertificate(bytes);
  assert(!isRefusal(lock), 'the lock is what was written');
  return lock;
}
