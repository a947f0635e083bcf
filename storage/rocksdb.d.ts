// The part of rocksdb 5.2.1 (abstract-leveldown 7.2) that rocks.ts uses; the package brings no types.

declare module 'rocksdb' {
  function rocksdb(location: string): rocksdb.RocksDatabase;

  namespace rocksdb {
    type Callback<T extends unknown[] = []> = (error: Error | null | undefined, ...results: T) => void;

    interface RocksChainedBatch {
      put(key: Buffer, value: Buffer): this;
      del(key: Buffer): this;
      clear(): this;
      write(options: { sync: boolean }, callback: Callback): void;
    }

    interface RocksIterator {
      /** At the end: no key. */
      next(callback: Callback<[key?: Buffer, value?: Buffer]>): void;
      end(callback: Callback): void;
    }

    interface RocksDatabase {
      open(
        options: {
          createIfMissing: boolean;
          errorIfExists: boolean;
          compression: boolean;
          writeBufferSize: number;
          cacheSize: number;
          blockSize: number;
          maxOpenFiles: number;
        },
        callback: Callback,
      ): void;
      close(callback: Callback): void;
      getMany(keys: Buffer[], options: { asBuffer: boolean }, callback: Callback<[(Buffer | undefined)[]]>): void;
      batch(): RocksChainedBatch;
      iterator(options: {
        gte: Buffer;
        lt: Buffer;
        reverse: boolean;
        limit: number;
        values: boolean;
        keyAsBuffer: boolean;
        valueAsBuffer: boolean;
        fillCache: boolean;
      }): RocksIterator;
      compactRange(start: Buffer, end: Buffer, callback: Callback): void;
    }
  }

  export = rocksdb;
}
