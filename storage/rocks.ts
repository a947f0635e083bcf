// The store on disk: RocksDB through the rocksdb binding. docs/adr/0002-storage.md says why this one and what it cannot be
// trusted with. Every option that matters is spelled at the call.

import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import rocksdb, { type RocksDatabase } from 'rocksdb';
import type { Bytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { reasonOf, StorageError } from './errors.ts';
import type { KeyValueStore, KvEntry, KvOp, KvRange } from './kv.ts';

const openOptions = {
  createIfMissing: true,
  errorIfExists: false,
  compression: false,
  writeBufferSize: 64 << 20,
  cacheSize: 64 << 20,
  blockSize: 4096,
  maxOpenFiles: 1000,
};

/**
 * Opens or creates the directory, mode 0700.
 * Throws `storage-locked`, `storage-not-writable`, `storage-damaged` or `storage-open-failed`.
 */
export async function openRocks(directory: string): Promise<KeyValueStore> {
  await makeDirectory(directory);
  const db = rocksdb(directory);
  try {
    await called((done) => db.open(openOptions, done));
  } catch (error) {
    throw openError(directory, error);
  }
  return new RocksStore(db, directory);
}

class RocksStore implements KeyValueStore {
  readonly name = 'rocksdb';
  readonly #db: RocksDatabase;
  readonly #directory: string;
  #writing = false;
  #closing: Promise<void> | undefined;
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(db: RocksDatabase, directory: string) {
    this.#db = db;
    this.#directory = directory;
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    return (await this.getMany([key]))[0];
  }

  getMany(keys: readonly Bytes[]): Promise<readonly (Bytes | undefined)[]> {
    if (keys.length === 0) return Promise.resolve([]);
    return this.#track(async () => {
      try {
        return await called<(Buffer | undefined)[]>((done) =>
          this.#db.getMany(keys.map(asBuffer), { asBuffer: true }, done),
        );
      } catch (error) {
        throw readError(error);
      }
    });
  }

  async write(ops: readonly KvOp[]): Promise<void> {
    assert(!this.#writing, 'one batch in flight at a time');
    if (ops.length === 0) return;
    this.#writing = true;
    try {
      await this.#track(() => {
        // A chained batch: measured at 500 small puts, a third of the main-thread time of batch(array).
        const batch = this.#db.batch();
        for (const op of ops) {
          if (op.type === 'put') batch.put(asBuffer(op.key), asBuffer(op.value));
          else batch.del(asBuffer(op.key));
        }
        return called((done) => batch.write({ sync: true }, done));
      });
    } catch (error) {
      if (error instanceof StorageError) throw error;
      throw new StorageError('storage-write-failed', { reason: reasonOf(error) }, error);
    } finally {
      this.#writing = false;
    }
  }

  async *range(range: KvRange): AsyncIterable<KvEntry> {
    this.#assertOpen();
    const values = range.values !== false;
    const iterator = this.#db.iterator({
      gte: asBuffer(range.gte),
      lt: asBuffer(range.lt),
      reverse: range.reverse === true,
      limit: range.limit ?? -1,
      values,
      keyAsBuffer: true,
      valueAsBuffer: true,
      fillCache: false,
    });
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#underWay.add(ended);
    try {
      for (;;) {
        const { key, value } = await new Promise<{ key: Buffer | undefined; value: Buffer | undefined }>(
          (resolve, reject) =>
            iterator.next((error, key, value) => {
              if (error) reject(readError(error));
              else resolve({ key, value });
            }),
        );
        if (key === undefined) return;
        yield { key, value: values && value !== undefined ? value : nothing };
      }
    } finally {
      await called((done) => iterator.end(done));
      this.#underWay.delete(ended);
      end();
    }
  }

  reclaim(gte: Bytes, lt: Bytes): Promise<void> {
    return this.#track(() => called((done) => this.#db.compactRange(asBuffer(gte), asBuffer(lt), done)));
  }

  async sizeBytes(): Promise<number> {
    let total = 0;
    for (const name of await readdir(this.#directory)) {
      // A file may go between the listing and the look: a compaction removes what it replaced.
      const found = await stat(join(this.#directory, name)).catch(() => undefined);
      if (found?.isFile()) total += found.size;
    }
    return total;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      // The binding crashes the process when it closes under a running call.
      while (this.#underWay.size > 0) await Promise.allSettled([...this.#underWay]);
      await called((done) => this.#db.close(done));
    })();
    return this.#closing;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StorageError('storage-closed');
  }

  async #track<T>(work: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    const promise = work();
    this.#underWay.add(promise);
    try {
      return await promise;
    } finally {
      this.#underWay.delete(promise);
    }
  }
}

const nothing = new Uint8Array(0);

/** The same memory; the binding copies it into its batch before the call returns. */
function asBuffer(bytes: Bytes): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function called<T = void>(start: (done: (error: Error | null | undefined, result?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, result) => {
      if (error) reject(error);
      // Cast: where T is not void the binding's callback always carries the result.
      else resolve(result as T);
    });
  });
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    const first = await mkdir(directory, { recursive: true, mode: 0o700 });
    // A directory that a power cut can take back would take the log with it.
    if (first !== undefined) await syncDirectory(dirname(first));
  } catch (error) {
    throw new StorageError('storage-not-writable', { directory, reason: reasonOf(error) }, error);
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function openError(directory: string, error: unknown): StorageError {
  const reason = reasonOf(error);
  const fields = { directory, reason };
  if (/lock (file|hold)/i.test(reason)) {
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

function readError(error: unknown): StorageError {
  const reason = reasonOf(error);
  if (/corruption|no such file|truncated|checksum/i.test(reason)) {
    return new StorageError('storage-damaged', { kind: 'engine', why: reason }, error);
  }
  return new StorageError('storage-read-failed', { reason }, error);
}
