// The sign-state file as a whole: opened under its lock, read, and held against the key and the chain that it must belong to.
// guard.ts signs by it; the functions at the end mend it, and need no secret for that (docs/adr/0006-amnesia.md).

import { equalBytes } from '../crypto/bytes.ts';
import type { LogPosition } from '../protocol/log.ts';
import type { Epoch } from '../protocol/types.ts';
import { GuardError } from './errors.ts';
import {
  decodeSignState,
  encodeSignState,
  firstState,
  hasSigned,
  type SignState,
  type SignStateOwner,
  withoutLog,
} from './sign-state.ts';
import { SlotFile } from './slot-file.ts';

/** Undefined: there is no such file. The lock is held until `file` is closed. @throws GuardError */
export async function openSignState(
  path: string,
  { publicKey, chainId }: SignStateOwner,
): Promise<{ readonly file: SlotFile; readonly state: SignState } | undefined> {
  const opened = await SlotFile.open(path);
  if (opened === undefined) return undefined;
  const { file, content } = opened;
  try {
    const state = decodeSignState(content);
    if (state === undefined) throw new GuardError('guard-damaged', { path });
    if (!equalBytes(state.publicKey, publicKey) || !equalBytes(state.chainId, chainId))
      throw new GuardError('guard-wrong-owner', { path });
    return { file, state };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** [REC-1] Makes a file in quarantine; one that is there is never replaced. @returns false: there is one already */
export function createQuarantined(path: string, owner: SignStateOwner, epoch: Epoch): Promise<boolean> {
  return SlotFile.create(path, encodeSignState(firstState(owner, epoch, true)));
}

/** What an operator is told about a file that is sound. */
export interface SignStateSummary {
  readonly quarantined: boolean;
  /** Whether the key has signed anything that binds. */
  readonly hasSigned: boolean;
  readonly view: number;
  readonly epoch: number;
  /** Where the log must be; sequence 0: any log will do. */
  readonly floor: LogPosition;
}

/** Undefined: there is no file. @throws GuardError guard-damaged, guard-wrong-owner, guard-locked, guard-lock-unavailable */
export async function inspectSignState(path: string, owner: SignStateOwner): Promise<SignStateSummary | undefined> {
  const opened = await openSignState(path, owner);
  if (opened === undefined) return undefined;
  const { file, state } = opened;
  await file.close();
  const { quarantined, marks, floor } = state;
  return { quarantined, hasSigned: hasSigned(state), view: marks.view, epoch: marks.epoch, floor };
}

/**
 * [REC-6] For a replica whose log is gone while its marks are here: the next log may begin from nothing. What the marks know of votes in
 * their view rested on that log, so no vote of that view, or below, is signed any more. `moveAside` runs first, under the locks of all its files: were
 * it the other way round, a crash between the two would leave a damaged log without the floor that shows it. A file that is not there has no floor.
 * @throws GuardError as `inspectSignState`; guard-missing: none of them is there
 */
export async function giveUpLog(files: readonly SignStatePlace[], moveAside: () => Promise<void>): Promise<void> {
  const opened: { readonly file: SlotFile; readonly state: SignState }[] = [];
  try {
    for (const { path, owner } of files) {
      const each = await openSignState(path, owner);
      if (each !== undefined) opened.push(each);
    }
    if (opened.length === 0) throw new GuardError('guard-missing', { path: files[0]?.path ?? '' });
    await moveAside();
    for (const { file, state } of opened) await file.write(encodeSignState(withoutLog(state)));
  } finally {
    for (const { file } of opened) await file.close();
  }
}

export interface SignStatePlace {
  readonly path: string;
  readonly owner: SignStateOwner;
}
