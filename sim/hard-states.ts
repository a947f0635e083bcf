// What the hard state on a replica's disk says, whichever protocol of the crash-fault family wrote it: for the checks.

import { decodeHardState } from '../protocol/paxos/hard-state.ts';
import { decodeHardState as decodeRaftState } from '../protocol/raft/hard-state.ts';
import type { SimDisk } from './disk.ts';

/** The term that the disk says; 0: none. */
export function termOn({ hardState }: SimDisk): number {
  return hardState === null ? 0 : (decodeRaftState(hardState)?.term ?? 0);
}

/** The ballot of the working set that the disk says was noted; 0: none. */
export function workingOn({ hardState }: SimDisk): number {
  return hardState === null ? 0 : (decodeHardState(hardState)?.working?.ballot ?? 0);
}

/** Up to here an auxiliary may have forgotten; 0: nothing. */
export function forsakenOn({ hardState }: SimDisk): number {
  return hardState === null ? 0 : (decodeHardState(hardState)?.working?.floor ?? 0);
}

/** The highest ballot that the disk says was promised; 0: none. */
export function promisedOn({ hardState }: SimDisk): number {
  return hardState === null ? 0 : (decodeHardState(hardState)?.promised ?? 0);
}
