// A replica that is shown its own signature at a place that it never signed as far as it knows: its disk was rolled back as a whole, so
// that log and marks are sound, old and of one moment; or a second process runs with its key. No file can show that. The peers do.

import { assert } from '../assert.ts';
import type { Certificate } from '../certificate.ts';
import type { State } from './state.ts';

/** What this key has signed, as far as this replica knows. Only rises. */
export interface OwnWords {
  /** Up to this view it knows that it does not know: it signs nothing there any more (GRD-7, GRD-12). -1: no such view. */
  givenUp: number;
  /** The highest view of any mark at the start; since then `view` of the state is at least as high as any that was pledged in. */
  view: number;
  /** The highest height that it has accepted, decided or voted for. */
  height: number;
}

/** [REC-9] A certificate whose signatures were checked, so that nobody can have made this one up. */
export function noticeOwnVote(s: State, { view, height, signatures }: Certificate): void {
  if (s.quarantine !== null || view <= s.ownWords.givenUp) return;
  if (!signatures.some((by) => by.replica === s.self)) return;
  assertKnown(view <= knownView(s) && height <= s.ownWords.height);
}

/** [REC-9] A view-change of this key that somebody else carried here, its signature checked. */
export function noticeOwnViewChange(s: State, view: number): void {
  if (s.quarantine !== null || view <= s.ownWords.givenUp) return;
  assertKnown(view <= knownView(s));
}

const knownView = (s: State): number => Math.max(s.view, s.ownWords.view);

/** It stops: what it signed next could contradict what it has forgotten. */
function assertKnown(known: boolean): void {
  assert(
    known,
    'guard-behind: this key has signed what its marks do not know. Its disk was rolled back, or a second process has the key: stop that, then synod repair CONFIG --readmit',
  );
}
