// What the hard state on a replica's disk says of an epoch, whichever protocol of the crash-fault family wrote it: for the checks.

import { decodeHardState } from '../protocol/paxos/hard-state.ts';
import { decodeHardState as decodeRaftState } from '../protocol/raft/hard-state.ts';
import { hardStateIn } from '../protocol/restart.ts';
import type { Epoch } from '../protocol/types.ts';
import type { SimDisk } from './disk.ts';

const acceptorOn = (disk: SimDisk, epoch: Epoch) => {
  const bytes = hardStateIn(disk, epoch);
  return bytes === null ? undefined : decodeHardState(bytes);
};

/** The term that the disk says; 0: none. */
export function termOn(disk: SimDisk, epoch: Epoch): number {
  const bytes = hardStateIn(disk, epoch);
  return bytes === null ? 0 : (decodeRaftState(bytes)?.term ?? 0);
}

/** The ballot of the working set that the disk says was noted; 0: none. */
export const workingOn = (disk: SimDisk, epoch: Epoch): number => acceptorOn(disk, epoch)?.working?.ballot ?? 0;

/** Up to here an auxiliary may have forgotten; 0: nothing. */
export const forsakenOn = (disk: SimDisk, epoch: Epoch): number => acceptorOn(disk, epoch)?.working?.floor ?? 0;

/** The highest ballot that the disk says was promised; 0: none. */
export const promisedOn = (disk: SimDisk, epoch: Epoch): number => acceptorOn(disk, epoch)?.promised ?? 0;
