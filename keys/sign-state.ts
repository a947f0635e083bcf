// The content of the sign-state file: a fixed layout, big-endian, as long as it needs to be. slots.ts puts it on disk.

import type { Bytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { LayoutReader, LayoutWriter } from '../protocol/layout.ts';
import type { LogPosition } from '../protocol/log.ts';
import { asEpoch, asHash, asHeight, asView, type Epoch, type Hash, type Height, type View } from '../protocol/types.ts';
import {
  type CheckpointMark,
  checkpointsMax,
  emptyMarks,
  type HeightMarks,
  heightsMax,
  type Marks,
  type ViewMark,
} from './marks.ts';

/** The prepared certificate of 128 replicas is 86 signatures of 68 bytes and its place. */
export const lockBytesMax = 16 * 1024;

export interface SignState {
  /** Whose marks these are. 32 bytes each. */
  readonly publicKey: Bytes;
  readonly chainId: Hash;
  readonly marks: Marks;
  /** The log must reach this position when it is opened. */
  readonly floor: LogPosition;
  /** Opaque to this folder; at most `lockBytesMax`. Null: never set. */
  readonly lock: Bytes | null;
  /** What this key signed before the file was made is not known: nothing that binds is signed until that is past (REC-1). */
  readonly quarantined: boolean;
}

/** Whose file it must be. 32 bytes each. */
export type SignStateOwner = Pick<SignState, 'publicKey' | 'chainId'>;

const noFloor: LogPosition = { sequence: 0, hash: new Uint8Array(32) };

/** [REC-1] The first state of a file: of a key that has never signed, or, `quarantined`, of one whose signatures nobody remembers. */
export function firstState({ publicKey, chainId }: SignStateOwner, epoch: Epoch, quarantined: boolean): SignState {
  return { publicKey, chainId, marks: emptyMarks(epoch, asView(0)), floor: noFloor, lock: null, quarantined };
}

/** [REC-6] The next log may begin from nothing; what rested on the last one, the votes of its view and of all below, is given up. */
export function withoutLog(state: SignState): SignState {
  const { view, abstainedView, request } = state.marks;
  // Of a view that it has only asked for, no vote rested on the log: the request stands.
  const givenUp = asView(Math.max(request === null ? view : view - 1, abstainedView ?? 0));
  const marks = hasSigned(state) ? { ...state.marks, abstainedView: givenUp } : state.marks;
  return { ...state, marks, floor: noFloor };
}

/** Whether the key has signed anything that binds, as far as this state knows. */
export function hasSigned({ marks, lock, floor }: SignState): boolean {
  const { view, led, votes, viewChange, newView, checkpoints, heightFloor } = marks;
  const marked = [led, viewChange, newView, lock].some((mark) => mark !== null);
  return marked || view > 0 || votes.size > 0 || checkpoints.length > 0 || heightFloor > 0 || floor.sequence > 0;
}

/** Says which marks follow; another protocol's are another number. */
const MARKS_PBFT = 1;
/** The same layout; a program that does not know what a quarantine is refuses the file instead of voting. */
const MARKS_PBFT_QUARANTINED = 2;
/** The same, with the request behind it (GRD-18): an earlier program does not know it. */
const MARKS_PBFT_ASKING = 3;
const FIXED_BYTES = 1 + 32 + 32 + 8 + (8 + 32) + 8 + (1 + 8) + (1 + 8) + 8 + 8 + 2 * (1 + 8 + 32) + 1 + 2 + 1 + 4;
const CHECKPOINT_BYTES = 8 + 32;
const voteBytes = { empty: 8 + 1, hash: 32 };

const votesBytesMax = heightsMax * (voteBytes.empty + 2 * voteBytes.hash);

/** The longest content there is. */
export const contentBytesMax = FIXED_BYTES + checkpointsMax * CHECKPOINT_BYTES + votesBytesMax + lockBytesMax;

/** A request stands where the votes would, of which there are none, and beside a shorter lock: that of 128 replicas has two certificates. */
export function fits({ marks: { request }, lock }: Pick<SignState, 'marks' | 'lock'>): boolean {
  return request === null || 4 + request.length + (lock?.length ?? 0) <= votesBytesMax + lockBytesMax;
}

const hasPrepare = 1;
const hasCommit = 2;
/** Prepare and commit name one hash, as they nearly always do: it is written once. */
const isShared = 4;

export function encodeSignState({ publicKey, chainId, marks, floor, lock, quarantined }: SignState): Bytes {
  assert(lock === null || lock.length <= lockBytesMax, 'the lock fits into its slot');
  const votes = encodeVotes(marks.votes);
  const { request } = marks;
  assert(request === null || !quarantined, 'a replica in quarantine asks for nothing');
  const requestBytes = request === null ? 0 : 4 + request.length;
  const size =
    FIXED_BYTES + marks.checkpoints.length * CHECKPOINT_BYTES + votes.length + (lock?.length ?? 0) + requestBytes;
  const out = new LayoutWriter(size)
    .u8(quarantined ? MARKS_PBFT_QUARANTINED : request === null ? MARKS_PBFT : MARKS_PBFT_ASKING)
    .bytes(publicKey, 32)
    .bytes(chainId, 32)
    .u64(marks.epoch)
    .u64(floor.sequence)
    .bytes(floor.hash, 32)
    .u64(marks.view);
  writeView(out, marks.led);
  writeView(out, marks.abstainedView);
  out.u64(marks.abstainedHeight).u64(marks.heightFloor);
  writeViewMark(out, marks.viewChange);
  writeViewMark(out, marks.newView);
  out.u8(marks.checkpoints.length);
  for (const { height, digest } of marks.checkpoints) out.u64(height).bytes(digest, 32);
  out
    .u8(marks.votes.size >> 8)
    .u8(marks.votes.size & 0xff)
    .bytes(votes, votes.length);
  out.u8(lock === null ? 0 : 1).u32(lock?.length ?? 0);
  if (lock !== null) out.bytes(lock, lock.length);
  if (request !== null) out.u32(request.length).bytes(request, request.length);
  return out.done();
}

/** Undefined: not this layout, though its digest was right: a file of another version. */
export function decodeSignState(content: Bytes): SignState | undefined {
  try {
    const state = readSignState(new LayoutReader(Uint8Array.from(content)));
    // Bytes left over show in the length of what was read; a reader that runs past the end throws.
    return state !== undefined && encodeSignState(state).length === content.length ? state : undefined;
  } catch {
    return undefined;
  }
}

function readSignState(input: LayoutReader): SignState | undefined {
  const layout = input.u8();
  if (layout < MARKS_PBFT || layout > MARKS_PBFT_ASKING) return undefined;
  const publicKey = input.bytes(32);
  const chainId = asHash(input.bytes(32));
  const epoch = asEpoch(input.u64());
  const floor = { sequence: input.u64(), hash: input.bytes(32) };
  const view = asView(input.u64());
  const led = readView(input);
  const abstainedView = readView(input);
  const abstainedHeight = asHeight(input.u64());
  const heightFloor = asHeight(input.u64());
  const viewChange = readViewMark(input);
  const newView = readViewMark(input);
  const checkpoints: CheckpointMark[] = [];
  for (let left = input.u8(); left > 0; left--) {
    checkpoints.push({ height: asHeight(input.u64()), digest: input.bytes(32) });
  }
  const votes = new Map<Height, HeightMarks>();
  for (let left = input.u8() * 256 + input.u8(); left > 0; left--) {
    const height = asHeight(input.u64());
    const flags = input.u8();
    const prepare = (flags & hasPrepare) === 0 ? null : input.bytes(32);
    const commit = (flags & isShared) !== 0 ? prepare : (flags & hasCommit) === 0 ? null : input.bytes(32);
    votes.set(height, { prepare, commit });
  }
  const hasLock = input.u8() === 1;
  const lockLength = input.u32();
  const lockBytes = input.bytes(lockLength);
  // The reader does not run past the end here, it gives less.
  if (lockBytes.length !== lockLength) return undefined;
  const requestLength = layout === MARKS_PBFT_ASKING ? input.u32() : null;
  const request = requestLength === null ? null : input.bytes(requestLength);
  if (request !== null && request.length !== requestLength) return undefined;
  const marks = {
    epoch,
    view,
    led,
    abstainedView,
    abstainedHeight,
    heightFloor,
    votes,
    viewChange,
    newView,
    request,
    checkpoints,
  };
  const quarantined = layout === MARKS_PBFT_QUARANTINED;
  return { publicKey, chainId, marks, floor, lock: hasLock ? lockBytes : null, quarantined };
}

/** Straight into memory, since this part is the longest and every vote waits for it: measured, 5 us less than LayoutWriter. */
function encodeVotes(votes: ReadonlyMap<Height, HeightMarks>): Bytes {
  const out = Buffer.allocUnsafe(votes.size * (voteBytes.empty + 2 * voteBytes.hash));
  let at = 0;
  for (const [height, { prepare, commit }] of votes) {
    // By identity, which marks.ts sees to.
    const shared = prepare !== null && prepare === commit;
    out.writeUInt32BE(Math.floor(height / 0x1_0000_0000), at);
    out.writeUInt32BE(height >>> 0, at + 4);
    out[at + 8] = (prepare === null ? 0 : hasPrepare) | (commit === null ? 0 : hasCommit) | (shared ? isShared : 0);
    at += voteBytes.empty;
    if (prepare !== null) {
      out.set(prepare, at);
      at += voteBytes.hash;
    }
    if (commit !== null && !shared) {
      out.set(commit, at);
      at += voteBytes.hash;
    }
  }
  return out.subarray(0, at);
}

function writeView(out: LayoutWriter, view: View | null): void {
  out.u8(view === null ? 0 : 1).u64(view ?? 0);
}

function readView(input: LayoutReader): View | null {
  const present = input.u8() === 1;
  const view = asView(input.u64());
  return present ? view : null;
}

const noDigest = new Uint8Array(32);

function writeViewMark(out: LayoutWriter, mark: ViewMark | null): void {
  writeView(out, mark?.view ?? null);
  out.bytes(mark?.digest ?? noDigest, 32);
}

function readViewMark(input: LayoutReader): ViewMark | null {
  const view = readView(input);
  const digest = input.bytes(32);
  return view === null ? null : { view, digest };
}

/** [GRD-10] Views start anew with an epoch; checkpoints and what the replica abstains from do not, since heights go on. */
export function beginEpoch(state: SignState, epoch: Epoch): SignState {
  const { checkpoints, abstainedHeight } = state.marks;
  return { ...state, marks: { ...emptyMarks(epoch, asView(0)), checkpoints, abstainedHeight }, lock: null };
}
