// What an honest replica never signs, as pairs: two statements of one key that bind it to different things at one place. The places are
// the guard's (keys/marks.ts). Whoever holds such a pair has a proof against the key; wire/evidence.ts makes it portable.

import { equalBytes } from '../crypto/bytes.ts';
import type { VotePlace } from './certificate.ts';
import { isLater } from './certificate.ts';
import type { PbftPledge, Signed, ViewChange, Vote } from './messages.ts';
import type { Epoch, Hash, Height, View } from './types.ts';

export type Offence =
  | 'two-prepares'
  | 'two-commits'
  | 'two-checkpoints'
  | 'two-view-changes'
  | 'two-new-views'
  | 'two-chains'
  | 'commit-denied';

/** What is wrong with a pair, and where. */
export interface Conflict {
  readonly offence: Offence;
  readonly epoch: Epoch;
  /** Of the votes, the view-changes or the new-views; of a denied commit, the commit's. Null for checkpoints: their places have no view. */
  readonly view: View | null;
  /** Of votes for two chains, the lower one's. Null for view-changes and new-views. */
  readonly height: Height | null;
}

/** A pledge with its encoded message: at one place an honest key signs one payload. */
export type Said = Pick<Signed<PbftPledge>, 'message' | 'payload'>;

const offences = {
  prepare: 'two-prepares',
  commit: 'two-commits',
  checkpoint: 'two-checkpoints',
  'view-change': 'two-view-changes',
  'new-view': 'two-new-views',
} as const satisfies Record<PbftPledge['kind'], Offence>;

/** Where a pledge binds its signer. Two pledges of one key with one name and different payloads are a proof of guilt. */
export function placeName(pledge: PbftPledge): string {
  const { kind, epoch, view, height } = placeOf(pledge);
  return `${kind} ${epoch} ${view ?? '-'} ${height ?? '-'}`;
}

function placeOf(pledge: PbftPledge): Omit<Conflict, 'offence'> & { readonly kind: PbftPledge['kind'] } {
  const { kind, epoch } = pledge;
  if (kind === 'prepare' || kind === 'commit') return { kind, epoch, view: pledge.view, height: pledge.height };
  if (kind === 'checkpoint') return { kind, epoch, view: null, height: pledge.height };
  return { kind, epoch, view: pledge.view, height: null };
}

/**
 * [EVD-3] What two pledges of one key prove against it, in either order; null: nothing. A proposal is looked at as the prepare that its
 * signature is (PBFT-PP-5).
 */
export function conflictOf(a: Said, b: Said): Conflict | null {
  const [one, other] = [a.message, b.message];
  if (one.kind === 'view-change' && other.kind === 'commit') return conflictOf(b, a);
  if (one.kind === 'commit' && other.kind === 'view-change') {
    if (!denies(other, one)) return null;
    const { epoch, view, height } = one;
    return { offence: 'commit-denied', epoch, view, height };
  }
  if (placeName(one) !== placeName(other) || equalBytes(a.payload, b.payload)) return null;
  const { epoch, view, height } = placeOf(one);
  return { offence: offences[one.kind], epoch, view, height };
}

/** A block as far as its place in a chain goes. */
export interface Link {
  readonly height: Height;
  readonly hash: Hash;
  readonly parent: Hash;
}

/** Two votes of one view, the lower one first; null: they are no such thing. */
export function votesOfOneView(a: Said, b: Said): readonly [Vote, Vote] | null {
  const [one, other] = [a.message, b.message];
  if ((one.kind !== 'prepare' && one.kind !== 'commit') || (other.kind !== 'prepare' && other.kind !== 'commit'))
    return null;
  if (one.epoch !== other.epoch || one.view !== other.view) return null;
  return one.height <= other.height ? [one, other] : [other, one];
}

/**
 * [EVD-3] [PBFT-PP-9] Votes of one view for two chains, whatever their phases. `links` are the blocks above the lower vote's height up to the
 * higher vote's block, rising: they show that this one does not stand on the lower vote's block.
 */
export function splitOf(a: Said, b: Said, links: readonly Link[]): Conflict | null {
  const votes = votesOfOneView(a, b);
  if (votes === null) return null;
  const [low, high] = votes;
  if (links.length !== high.height - low.height) return null;
  let below = high.hash;
  for (const [index, link] of [...links].reverse().entries()) {
    if (link.height !== high.height - index || !equalBytes(link.hash, below)) return null;
    below = link.parent;
  }
  if (equalBytes(below, low.hash)) return null;
  const { epoch, view, height } = low;
  return { offence: 'two-chains', epoch, view, height };
}

/**
 * [ACC-3] Whoever commits holds the prepared certificate of that place for ever (PBFT-C-1), votes in no view below one it has asked for, and shows
 * in every view-change the highest prepared certificate it ever held (PBFT-VC-2). So a view-change for a later view that shows none, an
 * earlier one, or another block at the very place, denies the commit.
 */
export function denies(
  { epoch, view, prepared }: Pick<ViewChange, 'epoch' | 'view' | 'prepared'>,
  commit: Pick<VotePlace, 'epoch' | 'view' | 'height' | 'hash'>,
): boolean {
  if (epoch !== commit.epoch || view <= commit.view) return false;
  if (prepared === null) return true;
  const place = { ...commit, phase: 'commit' } as const;
  if (isLater(place, prepared)) return true;
  return !isLater(prepared, place) && !equalBytes(prepared.hash, commit.hash);
}
