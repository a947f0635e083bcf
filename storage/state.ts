// What the writer knows without reading: where the log ends and begins, what is accepted, pending and stable.

import type { LogPosition } from '../protocol/log.ts';
import type { Hash } from '../protocol/types.ts';
import type { Bounds } from './layout.ts';
import type { PendingBlocks } from './recent.ts';

/** Belongs to the writer: it runs ahead of what is durable while a write is in flight. Readers have their own view. */
export interface LogState {
  position: LogPosition;
  /** Lowest journal sequence that is still here. */
  journalFirst: number;
  /** The highest decided height; 0 before the first. */
  head: number;
  /** Hash of the decided head; null before the first. */
  headHash: Hash | null;
  bounds: Bounds;
  /** Heights of the newest stable checkpoint and of the one before; 0: none. */
  stable: number;
  previousStable: number;
  /** Batches that wrote those two; 0: none, or no longer in the journal. */
  stableSequence: number;
  previousStableSequence: number;
  /** Heights above the head with an accepted entry on disk. */
  readonly accepted: Set<number>;
  readonly pending: PendingBlocks;
  /** Heights of the versions of each state chunk, rising. */
  readonly chunkVersions: Map<number, number[]>;
  /** Versions that no recovery can need any more, to be deleted a few at a time. */
  chunkGarbage: { readonly chunk: number; readonly height: number }[];
}

/** [LOG-9] Moves the versions older than what the last two stable checkpoints need to the garbage. */
export function retireChunks(state: LogState): void {
  for (const [chunk, versions] of state.chunkVersions) {
    let keepFrom = 0;
    for (let i = 0; i < versions.length; i++) if (versions[i]! <= state.previousStable) keepFrom = i;
    const void_ = versions.filter((height, i) => i < keepFrom || height < state.bounds.chunkFloor);
    if (void_.length === 0) continue;
    for (const height of void_) state.chunkGarbage.push({ chunk, height });
    const kept = versions.filter((height, i) => i >= keepFrom && height >= state.bounds.chunkFloor);
    if (kept.length === 0) state.chunkVersions.delete(chunk);
    else state.chunkVersions.set(chunk, kept);
  }
}

export function addChunkVersion(state: LogState, chunk: number, height: number): void {
  const versions = state.chunkVersions.get(chunk);
  if (versions === undefined) state.chunkVersions.set(chunk, [height]);
  else if (!versions.includes(height)) {
    versions.push(height);
    versions.sort((a, b) => a - b);
  }
  // Written again before its old bytes were collected: it is no garbage any more.
  if (state.chunkGarbage.length > 0) {
    state.chunkGarbage = state.chunkGarbage.filter((old) => old.chunk !== chunk || old.height !== height);
  }
}
