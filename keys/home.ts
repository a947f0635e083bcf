// Where a sign-state file is at home. Marks that were copied, or put back from a backup, are sound and old: nothing in their bytes says
// so. But a copy is another file, and the file system knows that: the time of its birth and its inode are noted beside it at the
// first start, and a file that is another one does not open. It is a net below the operator, no proof: a disk that is rolled back
// as a whole, or cloned, keeps both numbers.

import { link, open, readFile, rm, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errnoOf, GuardError } from './errors.ts';
import { syncDirectory } from './slot-file.ts';

/** The note lies beside the file, so that whoever copies a directory copies it too. */
export const homeFileOf = (path: string): string => `${path}.home`;

const bytesMax = 256;

/**
 * [REC-8] Notes where the file is at home, or finds that it is still there. Under the file's lock.
 * @throws GuardError guard-copied: the file is a copy of the one that was noted, or was put back
 */
export async function assertAtHome(path: string): Promise<void> {
  const home = homeFileOf(path);
  const here = await placeOf(path);
  const noted = await readNote(home);
  if (noted === undefined) return note(home, here);
  const [inode, born] = noted.trim().split(' ');
  // A file is born once, to the nanosecond. Its inode is given to others after it, and some file systems give it a new one at each mount.
  const isKnown = born !== '0' && here.born !== '0';
  if (isKnown ? born !== here.born : inode !== here.inode) throw new GuardError('guard-copied', { path });
}

/** [REC-8] From now on it is at home where it is: the operator answers for it that there is no newer one. Under the file's lock, or none runs. */
export async function settleHere(path: string): Promise<void> {
  await rm(homeFileOf(path), { force: true });
  await note(homeFileOf(path), await placeOf(path));
}

interface Place {
  readonly inode: string;
  /** Nanoseconds since 1970; 0: not known. */
  readonly born: string;
}

async function placeOf(path: string): Promise<Place> {
  const { ino, birthtimeNs, ctimeNs } = await stat(path, { bigint: true });
  // Where the time of birth is not kept, the time of the last change stands in for it, and moves with every write.
  return { inode: String(ino), born: birthtimeNs === ctimeNs ? '0' : String(birthtimeNs) };
}

async function readNote(home: string): Promise<string | undefined> {
  try {
    const text = await readFile(home, 'utf8');
    return text.length > bytesMax ? '' : text;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whole from the moment it has its name. */
async function note(home: string, { inode, born }: Place): Promise<void> {
  const draft = `${home}.${process.pid}.new`;
  const file = await open(draft, 'w', 0o600);
  try {
    await file.writeFile(`${inode} ${born}\n`);
    await file.sync();
    await link(draft, home);
  } finally {
    await file.close();
    await unlink(draft);
  }
  await syncDirectory(dirname(home));
}
