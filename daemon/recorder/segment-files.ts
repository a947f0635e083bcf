// The folder of a flight recorder: one file for each segment, named by its number. Nothing is synced: what the kernel has, a killed process
// leaves behind, and a power cut is no reason to make every vote wait.

import { type FileHandle, mkdir, open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bytes } from '../../crypto/bytes.ts';

export interface SegmentFile {
  /** All of them, in this order, at the end. */
  append(parts: readonly Bytes[]): Promise<void>;
  close(): Promise<void>;
}

/** What a recorder needs of its folder; tests have one whose disk is full. */
export interface SegmentFolder {
  /** By rising number. Files of other names are not looked at. */
  list(): Promise<readonly { readonly number: number; readonly bytes: number }[]>;
  /** A new, empty file; fails where there is one. */
  create(number: number): Promise<SegmentFile>;
  remove(number: number): Promise<void>;
}

const NAME = /^(\d{10})\.flight$/;
export const segmentName = (number: number): string => `${String(number).padStart(10, '0')}.flight`;
/** Null: no file of a recorder. */
export const segmentNumber = (name: string): number | null => {
  const digits = NAME.exec(name)?.[1];
  return digits === undefined ? null : Number(digits);
};

/** Made with the first segment. */
export function folderAt(directory: string): SegmentFolder {
  return {
    async list() {
      const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return [];
        throw error;
      });
      const found: { number: number; bytes: number }[] = [];
      for (const name of names) {
        const number = segmentNumber(name);
        if (number !== null) found.push({ number, bytes: (await stat(join(directory, name))).size });
      }
      return found.sort((a, b) => a.number - b.number);
    },
    async create(number) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const file = await open(join(directory, segmentName(number)), 'ax', 0o600);
      return { append: (parts) => appendAll(file, parts), close: () => file.close() };
    },
    remove: (number) => unlink(join(directory, segmentName(number))),
  };
}

async function appendAll(file: FileHandle, parts: readonly Bytes[]): Promise<void> {
  let { bytesWritten: done } = await file.writev(parts);
  for (const part of parts) {
    // Rare: a disk that fills takes less than all, and says why at the next write.
    if (done < part.length) await file.appendFile(part.subarray(done));
    done = Math.max(0, done - part.length);
  }
}
