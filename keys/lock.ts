// One process per sign-state file, by a lock of the operating system: it ends with its owner, however that ends, so nothing stale
// is ever left to judge. A file with a process id in it would have to be judged, and a container sees foreign ids as dead.
//
// Node has no call for such a lock. Linux: flock(2) belongs to the open file description, not to a process, so the flock command
// takes it on a descriptor it inherits, ends, and the lock stays with ours. BSD and macOS: a flag of open(2) does the same.

import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { GuardError } from './errors.ts';

/** O_EXLOCK, which Node has no name for; O_NONBLOCK makes a lock that is held fail instead of wait. */
const openLocked = 0x20 | constants.O_NONBLOCK;
const hasOpenLocked = ['darwin', 'freebsd', 'openbsd'].includes(process.platform);

/** To be added to the flags of open; a lock held elsewhere is then EAGAIN. */
export const lockFlags = hasOpenLocked ? openLocked : 0;

const lockCommand = 'flock';
/** What flock -n answers, and nothing else does, when the lock is held. */
const EXIT_HELD = 1;

/** [GRD-16] Takes the lock for as long as the descriptor is open. @throws GuardError guard-locked, guard-lock-unavailable */
export async function lockDescriptor(fd: number, path: string): Promise<void> {
  if (hasOpenLocked) return;
  const outcome = await new Promise<number | string>((resolve) => {
    // The descriptor is the child's number 3.
    const child = spawn(lockCommand, ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
  if (outcome === EXIT_HELD) throw new GuardError('guard-locked', { path });
  if (outcome !== 0) throw new GuardError('guard-lock-unavailable', { path, outcome });
}
