// The store on disk where Node can load it: RocksDB through the rocksdb binding. docs/adr/0002-storage.md says why this one and
// what it cannot be trusted with. Every option that matters is spelled at the call.

import type { RocksDatabase } from 'rocksdb';
import type { Bytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { reasonOf } from './errors.ts';
import { directoryBytes, makeDirectory, openError, readError, UnderWay, writeError } from './files.ts';
import type { KeyValueStore, KvEntry, KvOp, KvRange } from './kv.ts';

const openOptions = {
  createIfMissing: true,
  errorIfExists: false,
  compression: false,
  // 16 MiB each: measured, 64 MiB cost 40 MiB more of resident memory at full load and gained nothing.
  writeBufferSize: 16 << 20,
  cacheSize: 16 << 20,
  blockSize: 4096,
  maxOpenFiles: 1000,
};

/**
 * Opens or creates the directory, mode 0700. Ask open.ts first whether this Node bears the binding.
 * Throws `storage-locked`, `storage-not-writable`, `storage-damaged` or `storage-open-failed`.
 */
export async function openRocks(directory: string): Promise<KeyValueStore> {
  await makeDirectory(directory);
  // Not at the top: under Node 22 and later, loading the binding ends the process.
  const { default: rocksdb } = await import('rocksdb');
  const db = rocksdb(directory);
  try {
    await called((done) => db.open(openOptions, done));
  } catch (error) {
    throw openError(directory, error, /lock (file|hold)/i.test(reasonOf(error)));
  }
  return new RocksStore(db, directory);
}

class RocksStore implements KeyValueStore {
  readonly name = 'rocksdb';
  readonly #db: RocksDatabase;
  readonly #directory: string;
  #writing = false;
  readonly #underWay = new UnderWay();

  constructor(db: RocksDatabase, directory: string) {
    this.#db = db;
    this.#directory = directory;
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    return (await this.getMany([key]))[0];
  }

  getMany(keys: readonly Bytes[]): Promise<readonly (Bytes | undefined)[]> {
    if (keys.length === 0) return Promise.resolve([]);
    return this.#underWay.track(async () => {
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
      await this.#underWay.track(() => {
        // A chained batch: measured at 500 small puts, a third of the main-thread time of batch(array).
        const batch = this.#db.batch();
        for (const op of ops) {
          if (op.type === 'put') batch.put(asBuffer(op.key), asBuffer(op.value));
          else batch.del(asBuffer(op.key));
        }
        return called((done) => batch.write({ sync: true }, done));
      });
    } catch (error) {
      throw writeError(error);
    } finally {
      this.#writing = false;
    }
  }

  async *range(range: KvRange): AsyncIterable<KvEntry> {
    this.#underWay.assertOpen();
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
    const end = this.#underWay.begin();
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
      end();
    }
  }

  reclaim(gte: Bytes, lt: Bytes): Promise<void> {
    return this.#underWay.track(() => called((done) => this.#db.compactRange(asBuffer(gte), asBuffer(lt), done)));
  }

  sizeBytes(): Promise<number> {
    return directoryBytes(this.#directory);
  }

  /** The binding crashes the process when it closes under a running call. */
  close(): Promise<void> {
    return this.#underWay.close(() => called((done) => this.#db.close(done)));
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
