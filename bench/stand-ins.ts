// What a ceiling is measured with: signatures that cost nothing and writes that wait for no disk, put in place of the real ones
// below all of our code, so that everything above is the product as it is. In bench/ only: no daemon has a switch for this.

import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { sodium } from '../crypto/sodium.ts';

export interface StandIns {
  /** Signatures are made by a hash and hold always. Whoever checks them must have this too. */
  readonly sign: boolean;
  /** Nothing is forced to disk: written, and left to the operating system. */
  readonly sync: boolean;
}

/** Before anything else of ours is loaded. */
export function install({ sign, sync }: StandIns): void {
  if (sign) standInForSignatures();
  if (sync) standInForSyncs();
  // Named imports of Node's modules see the change.
  syncBuiltinESMExports();
}

function standInForSignatures(): void {
  // Different for different bytes, the same for the same, and S = 1 < L: it passes every check of form.
  const signature = (_algorithm: unknown, bytes: NodeJS.ArrayBufferView): Buffer => {
    const out = Buffer.alloc(64);
    out.set(crypto.createHash('sha256').update(bytes).digest());
    out[32] = 1;
    return out;
  };
  Object.assign(crypto, { sign: signature, verify: () => true });
  if (sodium !== undefined) Object.assign(sodium, { crypto_sign_verify_detached: () => true });
}

function standInForSyncs(): void {
  const { open, constants } = fs;
  const done = (_fd: number, callback: (error: null) => void): void => {
    setImmediate(callback, null);
  };
  const unsyncedOpen = (path: fs.PathLike, flags: number | string, ...rest: unknown[]): unknown => {
    const plain = typeof flags === 'number' ? flags & ~(constants.O_DSYNC | constants.O_SYNC) : flags;
    return Reflect.apply(open, fs, [path, plain, ...rest]);
  };
  Object.assign(fs, { fsync: done, fdatasync: done, open: unsyncedOpen });
  // Of the binding: how it hands a batch to the engine.
  const batch: unknown = createRequire(import.meta.url)('rocksdb/chained-batch.js');
  if (typeof batch !== 'function') throw new Error('bench: rocksdb keeps its batches elsewhere');
  const prototype: { _write?: (options: object, callback: unknown) => void } = batch.prototype;
  const write = prototype._write;
  if (write === undefined) throw new Error('bench: rocksdb writes its batches elsewhere');
  prototype._write = function unsynced(options, callback) {
    write.call(this, { ...options, sync: false }, callback);
  };
}
