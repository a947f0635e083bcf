// What the two stores on disk share: the directory, how an engine's errors become ours, and the waiting for what is under way.

import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { reasonOf, StorageError } from './errors.ts';

/** With its parents, mode 0700. Throws `storage-not-writable`. */
export async function makeDirectory(directory: string): Promise<void> {
  try {
    const first = await mkdir(directory, { recursive: true, mode: 0o700 });
    // A directory that a power cut can take back would take the log with it.
    if (first !== undefined) await syncDirectory(dirname(first));
  } catch (error) {
    throw new StorageError('storage-not-writable', { directory, reason: reasonOf(error) }, error);
  }
}

export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function directoryBytes(directory: string): Promise<number> {
  let total = 0;
  for (const name of await readdir(directory)) {
    // A file may go between the listing and the look: a compaction removes what it replaced.
    const found = await stat(join(directory, name)).catch(() => undefined);
    if (found?.isFile()) total += found.size;
  }
  return total;
}

/** `lock`: the engine failed at its lock file. */
export function openError(directory: string, error: unknown, lock: boolean): StorageError {
  const reason = reasonOf(error);
  const fields = { directory, reason };
  if (lock) {
    const denied = /permission denied|read-only/i.test(reason);
    return new StorageError(denied ? 'storage-not-writable' : 'storage-locked', fields, error);
  }
  if (/permission denied|read-only file system|no space left/i.test(reason)) {
    return new StorageError('storage-not-writable', fields, error);
  }
  if (/corruption|no such file/i.test(reason)) {
    return new StorageError('storage-damaged', { kind: 'engine', ...fields }, error);
  }
  return new StorageError('storage-open-failed', fields, error);
}

export function readError(error: unknown): StorageError {
  const reason = reasonOf(error);
  // The last is how LevelDB's mapped files say that a table ends too early.
  if (/corruption|no such file|truncated|checksum|\.ldb: invalid argument/i.test(reason)) {
    return new StorageError('storage-damaged', { kind: 'engine', why: reason }, error);
  }
  return new StorageError('storage-read-failed', { reason }, error);
}

export function writeError(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  return new StorageError('storage-write-failed', { reason: reasonOf(error) }, error);
}

/** The calls into an engine that have not come back: it must not be closed below them. */
export class UnderWay {
  readonly #calls = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  /** Throws `storage-closed`. */
  assertOpen(): void {
    if (this.#closing !== undefined) throw new StorageError('storage-closed');
  }

  async track<T>(work: () => Promise<T>): Promise<T> {
    this.assertOpen();
    const promise = work();
    this.#calls.add(promise);
    try {
      return await promise;
    } finally {
      this.#calls.delete(promise);
    }
  }

  /** For what is not one promise: from here until the returned function is called. */
  begin(): () => void {
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#calls.add(ended);
    return () => {
      this.#calls.delete(ended);
      end();
    };
  }

  /** Once, when nothing is under way any more. */
  close(closeEngine: () => Promise<void>): Promise<void> {
    this.#closing ??= (async () => {
      while (this.#calls.size > 0) await Promise.allSettled([...this.#calls]);
      await closeEngine();
    })();
    return this.#closing;
  }
}
