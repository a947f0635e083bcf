// The store on disk for every Node that cannot load rocksdb: LevelDB through classic-level, whose binary is bound to Node-API and
// not to one version of Node. docs/adr/0002-storage.md compares the two. Every option that matters is spelled at the call.

import type { ClassicLevel } from 'classic-level';
import type { Bytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { directoryBytes, makeDirectory, openError, readError, UnderWay, writeError } from './files.ts';
import type { KeyValueStore, KvEntry, KvOp, KvRange } from './kv.ts';

type Level = ClassicLevel<Bytes, Bytes>;

const openOptions = {
  keyEncoding: 'view',
  valueEncoding: 'view',
  createIfMissing: true,
  errorIfExists: false,
  // Bodies are signed and hashed bytes of others; what can be compressed came compressed.
  compression: false,
  writeBufferSize: 64 << 20,
  cacheSize: 64 << 20,
  blockSize: 4096,
  blockRestartInterval: 16,
  maxOpenFiles: 1000,
  maxFileSize: 16 << 20,
  // True would let two stores of one process share the directory.
  multithreading: false,
};

/**
 * Opens or creates the directory, mode 0700.
 * Throws `storage-locked`, `storage-not-writable`, `storage-damaged` or `storage-open-failed`.
 */
export async function openClassic(directory: string): Promise<KeyValueStore> {
  await makeDirectory(directory);
  const { ClassicLevel } = await import('classic-level');
  const db: Level = new ClassicLevel(directory, openOptions);
  try {
    await db.open();
  } catch (error) {
    // What the engine said is the cause.
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    throw openError(directory, cause, code === 'LEVEL_LOCKED' || /LOCK: /.test(String(cause)));
  }
  return new ClassicStore(db, directory);
}

class ClassicStore implements KeyValueStore {
  readonly name = 'classic-level';
  readonly #db: Level;
  readonly #directory: string;
  #writing = false;
  readonly #underWay = new UnderWay();

  constructor(db: Level, directory: string) {
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
        // The binding reads all of them from one snapshot.
        return await this.#db.getMany([...keys], { fillCache: true });
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
        const batch = this.#db.batch();
        for (const op of ops) {
          if (op.type === 'put') batch.put(op.key, op.value);
          else batch.del(op.key);
        }
        return batch.write({ sync: true });
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
      gte: range.gte,
      lt: range.lt,
      reverse: range.reverse === true,
      limit: range.limit ?? -1,
      keys: true,
      values,
      fillCache: false,
    });
    const end = this.#underWay.begin();
    try {
      for (;;) {
        const entry = await iterator.next().catch((error: unknown) => {
          throw readError(error);
        });
        if (entry === undefined) return;
        yield { key: entry[0], value: values ? entry[1] : nothing };
      }
    } finally {
      await iterator.close();
      end();
    }
  }

  reclaim(gte: Bytes, lt: Bytes): Promise<void> {
    return this.#underWay.track(() => this.#db.compactRange(gte, lt));
  }

  sizeBytes(): Promise<number> {
    return directoryBytes(this.#directory);
  }

  close(): Promise<void> {
    return this.#underWay.close(() => this.#db.close());
  }
}

const nothing = new Uint8Array(0);
