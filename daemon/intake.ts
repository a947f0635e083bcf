// What peers send, until it is an input of the core: queued within bounds, then decoded, wanted, verified. What cannot be is refused with a code; what
// is of the next epoch waits for that. A vote that completes nothing yet waits here for those that do (LOOP-1): six steps of the core for a block became
// three, and what nobody needs any more costs none.

import type { Bytes } from '../crypto/bytes.ts';
import { toHex } from '../crypto/bytes.ts';
import { decodeFrame, isRefusal, kindInFrame } from '../protocol/codec.ts';
import type { Core, Input } from '../protocol/core.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Vote } from '../protocol/messages.ts';
import type { Epoch, ReplicaId } from '../protocol/types.ts';
import { epochOfFrame, openFrame, type VerifyContext, verifyMessage } from '../protocol/verify.ts';
import { canBeCarried, isAnswer, isRequest, isVote } from './kinds.ts';
import { LOOP_LIMITS } from './loop-limits.ts';
import type { Meter } from './ports.ts';
import type { Request } from './serve.ts';

/** A frame as it came, from an authenticated peer. */
export interface Arrived {
  readonly from: ReplicaId;
  readonly bytes: Bytes;
  /** Undefined: under the key that the peer has in the epoch at hand. */
  readonly key?: Bytes | undefined;
}

export interface IntakeParts {
  readonly core: Pick<Core<ReplicaMessage, ReplicaPledge>, 'wants' | 'presses'>;
  readonly verify: VerifyContext;
  readonly meter: Meter;
  /** An honest peer would not have sent it. */
  readonly refused: (from: ReplicaId, code: string, kind: string) => void;
  /** Of a peer that is behind: answered without the core. */
  readonly requested: (from: ReplicaId, request: Request) => void;
}

/** Small, and the most of what comes: opened when they come, to see whether a turn is due. */
const mayWait: Partial<Record<string, true>> = { prepare: true, commit: true, status: true };

const nobody: ReadonlySet<ReplicaId> = new Set();

export class Intake {
  readonly #parts: IntakeParts;
  /** `signed`: where it was opened when it came. */
  #frames: (Arrived & { readonly at: number; readonly signed: Signed<ReplicaMessage> | null })[] = [];
  #bytes = 0;
  readonly #framesOf = new Map<ReplicaId, number>();
  /** Who has cast which vote: of those that wait, and while a turn takes them, of those that it has checked. */
  readonly #waiting = new Map<string, Set<ReplicaId>>();
  readonly #votes = new Map<string, Set<ReplicaId>>();
  /** [EPO-22] Of the next epoch, which its sender has begun already. */
  readonly #early = new Map<ReplicaId, { readonly frames: Arrived[]; bytes: number }>();

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** Frames that wait. */
  get size(): number {
    return this.#frames.length;
  }
  get bytes(): number {
    return this.#bytes;
  }
  /** When the oldest of them came; null: none waits. */
  get oldestAt(): number | null {
    return this.#frames[0]?.at ?? null;
  }

  /** Returns whether a turn is due. Nobody takes more than a share of the queue: what is dropped here is said again. */
  push(from: ReplicaId, bytes: Bytes, key?: Bytes): boolean {
    const waiting = this.#framesOf.get(from) ?? 0;
    if (waiting >= LOOP_LIMITS.framesPerPeerMax) {
      this.#parts.meter.count('synod_queue_dropped_total', { queue: 'frames' });
      return true;
    }
    const signed = key === undefined ? this.#glance(from, bytes) : null;
    if (signed === 'unwanted') return false;
    this.#framesOf.set(from, waiting + 1);
    this.#frames.push({ from, bytes, key, at: performance.now(), signed });
    this.#bytes += bytes.length;
    return signed === null || this.presses(signed.message, signed.sender);
  }

  /** [LOOP-1] Whether a turn is due for a message that waits, or for this replica's own pledge. */
  presses(message: ReplicaMessage, sender: ReplicaId): boolean {
    const { core } = this.#parts;
    if (core.presses === undefined) return true;
    if (!isVote(message)) return core.presses(message, sender, nobody);
    const votes = votesLike(this.#waiting, message);
    votes.add(sender);
    return core.presses(message, sender, votes);
  }

  /** Opened, if it is of a kind that may wait; null: it is not, or has a fault that the turn will find. */
  #glance(from: ReplicaId, bytes: Bytes): Signed<ReplicaMessage> | 'unwanted' | null {
    const { verify, core } = this.#parts;
    if (core.presses === undefined || mayWait[kindInFrame(bytes) ?? ''] === undefined) return null;
    const frame = decodeFrame(bytes);
    const signed = isRefusal(frame) ? frame : openFrame(frame, verify);
    if (isRefusal(signed)) return null;
    const { message, sender } = signed;
    const isPlain = sender === from && 'epoch' in message && message.epoch === verify.epoch;
    if (!isPlain) return null;
    return core.wants(message, sender) ? signed : 'unwanted';
  }

  /** As many as a turn has time for, into inputs. */
  take(inputs: Input<ReplicaMessage, ReplicaPledge>[]): void {
    const began = performance.now();
    let taken = 0;
    this.#waiting.clear();
    this.#votes.clear();
    for (const input of inputs)
      if (input.type === 'own' && isVote(input.signed.message))
        votesLike(this.#votes, input.signed.message).add(input.signed.sender);
    for (const { from, bytes, key, signed } of this.#frames) {
      taken += 1;
      this.#bytes -= bytes.length;
      this.#framesOf.set(from, (this.#framesOf.get(from) ?? 1) - 1);
      const input = signed === null ? this.#open({ from, bytes, key }) : this.#check(from, signed);
      if (input !== null) inputs.push(input);
      if (performance.now() - began > LOOP_LIMITS.turnMsMax) break;
    }
    this.#frames.splice(0, taken);
  }

  /** All that waits, for the next epoch: what was kept for it first. */
  leave(): readonly Arrived[] {
    return [...[...this.#early.values()].flatMap(({ frames }) => frames), ...this.#frames];
  }

  /** Bytes of a peer to an input. */
  #open(arrived: Arrived): Input<ReplicaMessage, ReplicaPledge> | null {
    const { from, bytes, key } = arrived;
    // [EPO-23] All that it says under another key is of a later epoch, whether it says so or not, but for what it answers to this replica in this one.
    if (key !== undefined && !isAnswer(kindInFrame(bytes))) return this.#keep(arrived);
    const verify = key === undefined ? this.#parts.verify : underKey(this.#parts.verify, from, key);
    const frame = decodeFrame(bytes);
    if (isRefusal(frame)) return this.#refuse(from, frame.refused, 'frame');
    const signed = openFrame(frame, verify);
    if (isRefusal(signed)) {
      const epoch = epochOfFrame(frame, verify);
      if (epoch === undefined || epoch === verify.epoch) return this.#refuse(from, signed.refused, frame.kind);
      return this.#ofOtherEpoch(arrived, epoch);
    }
    const { message } = signed;
    if ('epoch' in message && message.epoch !== verify.epoch && message.kind !== 'status')
      return this.#ofOtherEpoch(arrived, message.epoch);
    return this.#check(from, signed, key);
  }

  #check(from: ReplicaId, signed: Signed<ReplicaMessage>, key?: Bytes): Input<ReplicaMessage, ReplicaPledge> | null {
    const { core, meter, verify } = this.#parts;
    const { message, sender } = signed;
    const votes = isVote(message) ? votesLike(this.#votes, message) : undefined;
    if (!core.wants(message, sender, votes)) return null;
    // A statement of the moment is said by the one who says it; only pledges may be carried by others (PBFT-NV-5).
    if (sender !== from && !canBeCarried(message.kind)) return this.#refuse(from, 'not-the-sender', message.kind);
    const started = performance.now();
    const checked = verifyMessage(signed, verify, key);
    meter.observe('synod_verify_ms', performance.now() - started, { kind: message.kind });
    if (isRefusal(checked)) return this.#refuse(from, checked.refused, message.kind);
    votes?.add(sender);
    if (isRequest(message)) {
      this.#parts.requested(from, message);
      return null;
    }
    return { type: 'message', signed: checked };
  }

  #refuse(from: ReplicaId, code: string, kind: string): null {
    this.#parts.refused(from, code, kind);
    return null;
  }

  /**
   * [EPO-13] [EPO-22] Passed over, and nobody is blamed for it. What the next epoch begins with is kept until this replica has come so far: each peer
   * has its own share of the room, and what finds none is said again.
   */
  #ofOtherEpoch(arrived: Arrived, epoch: Epoch | null): null {
    return epoch === this.#parts.verify.epoch + 1 ? this.#keep(arrived) : null;
  }

  #keep(arrived: Arrived): null {
    const { from, bytes } = arrived;
    const kept = this.#early.get(from) ?? { frames: [], bytes: 0 };
    const { earlyFramesPerPeerMax, earlyBytesPerPeerMax } = LOOP_LIMITS;
    if (kept.frames.length >= earlyFramesPerPeerMax || kept.bytes + bytes.length > earlyBytesPerPeerMax) return null;
    kept.frames.push(arrived);
    kept.bytes += bytes.length;
    this.#early.set(from, kept);
    return null;
  }
}

/** As if the peer had this key already: to open what it says. What that holds is checked as everybody's. */
const underKey = (verify: VerifyContext, from: ReplicaId, publicKey: Bytes): VerifyContext => ({
  ...verify,
  members: verify.members.map((member) => (member.id === from ? { ...member, publicKey } : member)),
});

/** Who has cast this vote: beyond a quorum nobody's need be checked. */
function votesLike(cast: Map<string, Set<ReplicaId>>, { kind, view, height, hash }: Vote): Set<ReplicaId> {
  const place = `${kind} ${view} ${height} ${toHex(hash)}`;
  let votes = cast.get(place);
  if (votes === undefined) {
    votes = new Set();
    cast.set(place, votes);
  }
  return votes;
}
