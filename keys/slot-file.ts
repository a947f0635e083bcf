// The sign-state file on disk: created whole, locked, read once, then written one generation at a time.

import { randomUUID } from 'node:crypto';
import { close, constants, fdatasync, fsync, open, read, unlink, write } from 'node:fs';
import { link } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import type { Bytes } from '../crypto/bytes.ts';
import { errnoOf, GuardError } from './errors.ts';
import { lockDescriptor, lockFlags } from './lock.ts';
import { decodeFile, encodeSlot, FILE_BYTES, offsetOf } from './slots.ts';

const openAsync = promisify(open);
const closeAsync = promisify(close);
const fsyncAsync = promisify(fsync);
const unlinkAsync = promisify(unlink);

/**
 * On Linux every write of the descriptor is a write and a data sync in one system call and one trip to the thread pool: measured
 * on ext4, a fifth less time than two calls. Elsewhere the flag promises less than Node's fdatasync does (macOS), so it is two calls.
 */
const isSyncedByFlag = process.platform === 'linux';
const openFlags = constants.O_RDWR | lockFlags | (isSyncedByFlag ? constants.O_DSYNC : 0);

export class SlotFile {
  readonly #fd: number;
  #generation: number;

  private constructor(fd: number, generation: number) {
    this.#fd = fd;
    this.#generation = generation;
  }

  /** Undefined: there is no such file. @throws GuardError guard-locked, guard-lock-unavailable, guard-damaged */
  static async open(path: string): Promise<{ readonly file: SlotFile; readonly content: Bytes } | undefined> {
    const fd = await openForWriting(path);
    if (fd === undefined) return undefined;
    try {
      await lockDescriptor(fd, path);
      // Read only under the lock: another process may have been writing until now. And only what is on disk: a process that
      // was killed may have left a generation in memory alone, and the next write will go over the one below it.
      await fsyncAsync(fd);
      const newest = decodeFile(await readAll(fd, path));
      if (newest === undefined) throw new GuardError('guard-damaged', { path });
      return { file: new SlotFile(fd, newest.number), content: newest.content };
    } catch (error) {
      await closeAsync(fd);
      throw error;
    }
  }

  /**
   * Makes a file that is whole from the moment it has its name, and never replaces one: whoever was first stays.
   * @returns false: there is one already
   */
  static async create(path: string, content: Bytes): Promise<boolean> {
    const draft = `${path}.${randomUUID()}.new`;
    const fd = await openAsync(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      // Zeros are written, not left as a hole, so that later writes find their blocks allocated.
      const image = Buffer.alloc(FILE_BYTES);
      image.set(encodeSlot({ number: 1, content }), offsetOf(1));
      await writeAll(fd, image, 0);
      await fsyncAsync(fd);
      await link(draft, path);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    } finally {
      await closeAsync(fd);
      await unlinkAsync(draft);
    }
    await syncDirectory(dirname(path));
    return true;
  }

  /** Resolves when the content is durable. One at a time; after a rejection the file must not be written again. */
  write(content: Bytes): Promise<void> {
    this.#generation += 1;
    const slot = encodeSlot({ number: this.#generation, content });
    return writeDurably(this.#fd, slot, offsetOf(this.#generation));
  }

  /** Ends the lock too. */
  close(): Promise<void> {
    return closeAsync(this.#fd);
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const fd = await openAsync(path, constants.O_RDONLY);
  try {
    await fsyncAsync(fd);
  } finally {
    await closeAsync(fd);
  }
}

async function openForWriting(path: string): Promise<number | undefined> {
  try {
    return await openAsync(path, openFlags);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (errnoOf(error) === 'EAGAIN') throw new GuardError('guard-locked', { path });
    throw error;
  }
}

/** One byte more than the file should have is asked for, so that a longer one is noticed. */
async function readAll(fd: number, path: string): Promise<Bytes> {
  const buffer = Buffer.alloc(FILE_BYTES + 1);
  let filled = 0;
  for (;;) {
    const count = await new Promise<number>((resolve, reject) => {
      read(fd, buffer, filled, buffer.length - filled, filled, (error, bytesRead) => {
        // A sector the disk cannot read is damage, the same as one that reads wrong.
        if (error !== null) reject(new GuardError('guard-damaged', { path }, error));
        else resolve(bytesRead);
      });
    });
    filled += count;
    if (count === 0 || filled === buffer.length) return buffer.subarray(0, filled);
  }
}

async function writeAll(fd: number, bytes: Bytes, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += await new Promise<number>((resolve, reject) => {
      write(fd, bytes, done, bytes.length - done, at + done, (error, written) => {
        if (error !== null) reject(error);
        else resolve(written);
      });
    });
  }
}

/** Callbacks, since this is in the path of every vote. A short write into allocated blocks is a failing disk. */
function writeDurably(fd: number, bytes: Bytes, at: number): Promise<void> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, at, (error, written) => {
      if (error !== null) reject(error);
      else if (written !== bytes.length) reject(new Error(`short write: ${written} of ${bytes.length} bytes`));
      else if (isSyncedByFlag) resolve();
      else fdatasync(fd, (failed) => (failed === null ? resolve() : reject(failed)));
    });
  });
}
