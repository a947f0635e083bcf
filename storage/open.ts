// Which engine a directory has. RocksDB where this Node can load its binding, LevelDB elsewhere; and once a directory has one it
// keeps it: the two share names of files and of comparators, and each would take the other's directory for its own and spoil it.

import { open, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { withBulk } from './bulk.ts';
import { openClassic } from './classic.ts';
import { reasonOf, StorageError } from './errors.ts';
import { makeDirectory, syncDirectory } from './files.ts';
import type { KeyValueStore } from './kv.ts';
import { openRocks } from './rocks.ts';

export type Backend = 'rocksdb' | 'classic-level';

export interface StoreOptions {
  /** For a new directory; one that has an engine and is asked for another is refused. */
  readonly backend?: Backend;
  /** Bytes of bodies in one batch that are worth files of their own (bulk.ts). Without it 2 MiB. */
  readonly bulkBytesMin?: number;
}

/** The directory's memory of its engine: one line, written before the engine writes anything. */
const MARK = 'BACKEND';

/** From this major version of Node on, rocksdb 5.2.1 aborts the process when it is loaded. setup.mjs says the same. */
const ROCKS_NODE_END = 22;

/**
 * Opens or creates the directory, mode 0700. Throws `storage-backend-unavailable` where this Node cannot load the engine that
 * wrote it, and what the engine's own opening throws.
 */
export async function openStore(directory: string, options: StoreOptions = {}): Promise<KeyValueStore> {
  await makeDirectory(directory);
  const found = await backendOf(directory);
  const { backend } = options;
  if (found !== undefined && backend !== undefined && backend !== found)
    throw new StorageError('storage-open-failed', { directory, reason: `it was made by ${found}, not by ${backend}` });
  const chosen = found ?? backend ?? ((await rocksMissing()) === undefined ? 'rocksdb' : 'classic-level');
  if (chosen === 'rocksdb') {
    const missing = await rocksMissing();
    if (missing !== undefined) throw unavailable(directory, missing);
  }
  await remember(directory, chosen);
  const engine = await (chosen === 'rocksdb' ? openRocks(directory) : openClassic(directory));
  return await withBulk({ engine, directory, bytesMin: options.bulkBytesMin });
}

/** Undefined for a directory that has none yet. Throws `storage-damaged` where its mark and its files contradict each other. */
async function backendOf(directory: string): Promise<Backend | undefined> {
  const names = await attempt(directory, () => readdir(directory));
  const byFiles = backendByFiles(names);
  // RocksDB's directory has IDENTITY from its beginning on.
  if (!names.includes(MARK))
    return byFiles ?? (names.some((name) => /^MANIFEST-/.test(name)) ? 'classic-level' : undefined);
  const text = (await attempt(directory, () => readFile(join(directory, MARK), 'utf8'))).trim();
  if ((text !== 'rocksdb' && text !== 'classic-level') || (byFiles !== undefined && byFiles !== text)) {
    const why = `${MARK} says ${JSON.stringify(text.slice(0, 40))}, the files ${byFiles ?? 'nothing'}`;
    throw new StorageError('storage-damaged', { kind: 'engine', directory, why });
  }
  return text;
}

/** By the names that only one of the two gives to its files; undefined where there is none of them. */
function backendByFiles(names: readonly string[]): Backend | undefined {
  if (names.some((name) => /^(OPTIONS-\d+|IDENTITY|\d+\.sst)$/.test(name))) return 'rocksdb';
  return names.some((name) => /^\d+\.ldb$/.test(name)) ? 'classic-level' : undefined;
}

/** Before the first use: a directory whose engine nobody knows must not come to be, not even by a power cut. */
async function remember(directory: string, backend: Backend): Promise<void> {
  const path = join(directory, MARK);
  await attempt(directory, async () => {
    if ((await readdir(directory)).includes(MARK)) return;
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${backend}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await syncDirectory(directory);
  });
}

async function attempt<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StorageError('storage-not-writable', { directory, reason: reasonOf(error) }, error);
  }
}

/** Why rocksdb does not run here; undefined where it does. */
async function rocksMissing(): Promise<string | undefined> {
  if (!bearsRocks(process.versions.node)) return `rocksdb does not run under Node ${process.versions.node}`;
  try {
    await import('rocksdb');
    return undefined;
  } catch (error) {
    return `rocksdb does not load: ${reasonOf(error)}`;
  }
}

export function bearsRocks(nodeVersion: string): boolean {
  return Number.parseInt(nodeVersion, 10) < ROCKS_NODE_END;
}

/** Not the advice to begin with an empty directory: the floor in the sign-state refuses a log below what was signed for. */
function unavailable(directory: string, reason: string): StorageError {
  return new StorageError('storage-backend-unavailable', {
    backend: 'rocksdb',
    directory,
    reason,
    advice: 'use Node 20',
  });
}
