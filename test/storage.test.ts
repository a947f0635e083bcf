// storage/: the compliance suite over memory, RocksDB and LevelDB; what each does when the disk breaks, the latter two on real files
// and with processes that are really killed; and random histories with crashes, compared with a model. Where Node cannot load
// RocksDB, all of it but RocksDB.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { ascii, type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import type { LogPosition } from '../protocol/log.ts';
import { asHash, asHeight, type Hash } from '../protocol/types.ts';
import { crc32, portableCrc32 } from '../storage/checksum.ts';
import { StorageError } from '../storage/errors.ts';
import type { KeyValueStore } from '../storage/kv.ts';
import { bodyHashIn, keys } from '../storage/layout.ts';
import { type LogStore, openLogStore } from '../storage/log-store.ts';
import { MemoryDisk, type WriteFate } from '../storage/memory.ts';
import { type Backend, bearsRocks, openStore } from '../storage/open.ts';
import { fc } from './property.ts';
import {
  accepted,
  block,
  chain,
  checkpoint,
  chunk,
  compliance,
  decided,
  digestsOf,
  fill,
  hardState,
  options,
  type Reopen,
} from './storage-compliance.ts';
import { randomHistories } from './storage-model.ts';

// Real disks and processes: on a loaded machine they take their time.
t.setTimeout(230_000);

async function directory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'synod-storage-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return join(path, 'log');
}

compliance(t, 'memory', async () => {
  const disk = new MemoryDisk();
  return async () => {
    disk.crash();
    return disk.open();
  };
});

const backends: readonly Backend[] = bearsRocks(process.versions.node)
  ? ['rocksdb', 'classic-level']
  : ['classic-level'];

for (const backend of backends) {
  compliance(t, backend, async (t): Promise<Reopen> => {
    const path = await directory(t);
    let last: KeyValueStore | undefined;
    t.teardown(() => last?.close());
    return async () => {
      await last?.close();
      last = await openStore(path, { backend });
      return last;
    };
  });
}

t.test('LOG-2 one checksum, native and portable', async (t) => {
  t.equal(crc32(ascii('123456789')), 0xcbf43926, 'the check value of CRC-32');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 30 }), (a, b) => {
      const joined = Uint8Array.from([...a, ...b]);
      return crc32(joined) === portableCrc32(joined) && portableCrc32(b, portableCrc32(a)) === crc32(b, crc32(a));
    }),
  );
});

// What the disk in memory can do to the log.

/** A log with something of every kind: 12 decided blocks, checkpoints at 4 and 8, one block accepted above. */
async function populate(log: LogStore): Promise<LogPosition> {
  const blocks = chain(12);
  for (const b of blocks) {
    await log.write([b, accepted(b), hardState(`prepared ${b.height}`)]);
    await log.write([decided(b)]);
    if (b.height % 4 === 0 && b.height < 12)
      await log.write([chunk(b.height, 0), chunk(b.height, 3), checkpoint(b.height)]);
  }
  const next = block(13, blocks[11]!.hash);
  return await log.write([next, accepted(next), hardState('last')]);
}

const populated = chain(12);
const hashAt = (height: number): Hash => populated[height - 1]!.hash;
const bodyKeyAt = (height: number): Bytes => keys.body(height, bodyHashIn(populated[height - 1]!.bytes.header));

t.test('LOG-12 a failing sync or a full disk is final', async (t) => {
  const fates: readonly WriteFate[] = ['fail', 'fail-kept'];
  for (const fate of fates) {
    const disk = new MemoryDisk({ onWrite: ({ number }) => (number === 4 ? fate : 'durable') });
    const { log } = await openLogStore(disk.open(), options());
    await log.write([hardState('1')]);
    const floor = await log.write([hardState('2')]);
    await t.rejects(log.write([hardState('3')]), { code: 'storage-write-failed' });
    await t.rejects(log.write([hardState('4')]), { code: 'storage-write-failed' });
    await t.rejects(log.readDecided(asHeight(1)), { code: 'storage-write-failed' });
    t.same(log.position, floor, 'what failed is not counted as durable');
    disk.crash();
    const { recovered } = await openLogStore(disk.open(), options({ floor }));
    t.equal(Buffer.from(recovered.hardState!).toString(), fate === 'fail' ? '2' : '3');
  }
  const disk = new MemoryDisk({ capacityBytes: 20_000 });
  const { log } = await openLogStore(disk.open(), options());
  let floor = log.position;
  const fill = async (): Promise<void> => {
    for (const b of chain(100, { bytes: 1000 })) floor = await log.write([b, decided(b)]);
  };
  await t.rejects(fill(), { code: 'storage-write-failed', fields: { reason: 'disk full' } });
  disk.crash();
  const { recovered } = await openLogStore(disk.open(), options({ floor }));
  t.equal(recovered.decided.length, floor.sequence);
});

t.test('[EPO-12] what a start would find can be read without one', async (t) => {
  for (const records of [[], [hardState('later')], [chunk(12, 0), checkpoint(12)]]) {
    const disk = new MemoryDisk();
    const { log } = await openLogStore(disk.open(), options());
    await populate(log);
    const floor = await log.write(records);
    const now = await log.recover();
    t.equal(log.head, 12, 'and nothing has changed');
    await log.write([hardState('goes on')]);
    disk.crash();
    disk.loseLast(1);
    const { recovered } = await openLogStore(disk.open(), options({ floor }));
    t.strictSame(now, recovered);
  }
});

t.test('LOG-4 a lost tail is noticed below the floor and cut above it', async (t) => {
  for (const lost of [1, 3, 10]) {
    const disk = new MemoryDisk();
    const { log } = await openLogStore(disk.open(), options());
    const positions: LogPosition[] = [];
    for (let i = 0; i < 20; i++) positions.push(await log.write([hardState(`${i}`)]));
    disk.crash();
    disk.loseLast(lost);
    const kv = disk.open();
    await t.rejects(openLogStore(kv, options({ floor: positions[20 - lost]! })), { code: 'storage-lost-writes' });
    const opened = await openLogStore(kv, options({ floor: positions[19 - lost]! }));
    t.same(opened.recovered.position, positions[19 - lost]);
  }
});

t.test('LOG-4 a disk that acknowledges what it does not keep is noticed', async (t) => {
  const disk = new MemoryDisk({ onWrite: ({ number }) => (number > 5 ? 'unsynced' : 'durable') });
  const { log } = await openLogStore(disk.open(), options());
  let floor = log.position;
  for (let i = 0; i < 10; i++) floor = await log.write([hardState(`${i}`)]);
  disk.crash();
  await t.rejects(openLogStore(disk.open(), options({ floor })), {
    code: 'storage-lost-writes',
    fields: { expected: 10, found: 4 },
  });
});

t.test('LOG-2 LOG-3 LOG-5 a flipped bit or a lost key is noticed, whatever it hits', async (t) => {
  const victims: Record<string, Bytes> = {
    meta: keys.meta,
    hardState: keys.hardState,
    accepted: keys.accepted(13),
    'decided below the checkpoint': keys.decided(3),
    'decided above the checkpoint': keys.decided(11),
    checkpoint: keys.checkpoint(8),
    chunk: keys.chunk(3, 8),
    'header below the checkpoint': keys.header(3, hashAt(3)),
    'header above the checkpoint': keys.header(10, hashAt(10)),
    'body below the checkpoint': bodyKeyAt(3),
    'body above the checkpoint': bodyKeyAt(10),
    bundles: keys.bundles(5),
    bundle: keys.bundle(digestsOf(5)[1]!),
    'journal in the middle': keys.journal(10),
    'the first of the journal': keys.journal(1),
  };
  for (const [name, key] of Object.entries(victims)) {
    for (const damage of ['flip first', 'flip last', 'lose'] as const) {
      const disk = new MemoryDisk();
      const floor = await populate((await openLogStore(disk.open(), options())).log);
      disk.crash();
      if (damage === 'lose') disk.lose(key);
      else t.ok(disk.flipBit(key, damage === 'flip first' ? 0 : disk.read(key)!.length * 8 - 1));
      await t.rejects(openLogStore(disk.open(), options({ floor })), { code: 'storage-damaged' }, `${name}: ${damage}`);
    }
  }
});

t.test('LOG-2 LOG-11 below the retained journal, damage is noticed when it is read', async (t) => {
  const disk = new MemoryDisk();
  const { log } = await openLogStore(disk.open(), options());
  await populate(log);
  await log.write([checkpoint(12)]);
  for (let i = 0; i < 400; i++) await log.write([hardState(`${i}`)]);
  const floor = log.position;
  disk.crash();
  t.equal(disk.read(keys.journal(12)), undefined, 'the journal no longer knows the first blocks');
  t.ok(disk.flipBit(bodyKeyAt(3), 77));
  t.ok(disk.flipBit(keys.decided(4), 5));
  t.ok(disk.flipBit(keys.header(5, hashAt(5)), 300));
  disk.lose(keys.header(6, hashAt(6)));
  disk.lose(bodyKeyAt(7));
  t.ok(disk.flipBit(keys.bundle(digestsOf(2)[0]!), 63));
  const opened = await openLogStore(disk.open(), options({ floor, recentBytesMax: 0 }));
  const damagedAt = (height: number) => ({ code: 'storage-damaged', fields: { height } });
  for (const height of [3, 4, 5, 6, 7]) {
    await t.rejects(opened.log.readDecided(asHeight(height)), damagedAt(height));
    const range = { from: asHeight(2), to: asHeight(height), bytesMax: 1 << 20 };
    await t.rejects(opened.log.readDecidedRange(range), { code: 'storage-damaged' });
  }
  await t.rejects(opened.log.findBundle(digestsOf(2)[0]!), { code: 'storage-damaged' });
  t.ok(await opened.log.readDecided(asHeight(8)), 'the rest still reads');
});

t.test('random histories with crashes, against a model', (t) => randomHistories(t));

// Which engine a directory has.

t.test('a directory keeps the engine it was made with', async (t) => {
  t.same(
    ['20.19.0', '20.99.1', '21.7.3', '22.0.0', '24.21.0'].map(bearsRocks),
    [true, true, true, false, false],
    'rocksdb aborts from Node 22 on',
  );
  for (const backend of backends) {
    const path = await directory(t);
    const fresh = await openStore(path, { backend });
    t.equal(fresh.name, backend);
    t.equal(await readFile(join(path, 'BACKEND'), 'utf8'), `${backend}\n`);
    await fresh.write([{ type: 'put', key: ascii('a'), value: ascii('b') }]);
    await fresh.close();
    for (const forget of [false, true, true]) {
      if (forget) await rm(join(path, 'BACKEND'));
      const again = await openStore(path);
      t.equal(again.name, backend, forget ? 'known by its files' : 'remembered');
      t.ok(equalBytes((await again.get(ascii('a'))) ?? ascii(''), ascii('b')));
      await again.close();
    }
    const other = backend === 'rocksdb' ? 'classic-level' : 'rocksdb';
    await t.rejects(openStore(path, { backend: other }), { code: 'storage-open-failed' });
    for (const text of [`${other}\n`, 'unheard-of\n', '']) {
      await writeFile(join(path, 'BACKEND'), text);
      const table = backend === 'rocksdb' ? '000099.sst' : '000099.ldb';
      await writeFile(join(path, table), '');
      await t.rejects(openStore(path), { code: 'storage-damaged', fields: { kind: 'engine' } }, `BACKEND: ${text}`);
    }
  }
  const fresh = await openStore(await directory(t));
  t.equal(fresh.name, backends[0], 'rocksdb where it runs');
  await fresh.close();
});

t.test('an engine that this Node cannot load is refused, and nothing is changed', async (t) => {
  if (bearsRocks(process.versions.node)) {
    t.ok(backends.includes('rocksdb'), 'not under this Node');
    return;
  }
  for (const name of ['IDENTITY', 'OPTIONS-000005', '000007.sst', 'BACKEND']) {
    const path = await directory(t);
    await mkdir(path);
    await writeFile(join(path, name), 'rocksdb\n');
    const refusal = { code: 'storage-backend-unavailable', fields: { backend: 'rocksdb', advice: 'use Node 20' } };
    await t.rejects(openStore(path), refusal, name);
    t.same(await readdir(path), [name]);
  }
  const path = await directory(t);
  await t.rejects(openStore(path, { backend: 'rocksdb' }), { code: 'storage-backend-unavailable' });
  t.same(await readdir(path), []);
});

// On real files.

function onDisk(name: string, scenario: (t: Test, backend: Backend) => Promise<void>): void {
  for (const backend of backends) t.test(`${backend}: ${name}`, (t) => scenario(t, backend));
}

onDisk('opening: locked, not writable', async (t, backend) => {
  const path = await directory(t);
  const kv = await openStore(path, { backend });
  await t.rejects(openStore(path, { backend }), { code: 'storage-locked' }, 'twice in one process');
  await kv.close();
  const child = await writer(backend, path);
  await child.acknowledged(1);
  await t.rejects(openStore(path, { backend }), { code: 'storage-locked' }, 'by another process');
  await child.kill();
  await (await openStore(path, { backend })).close();
  const file = join(path, '..', 'file');
  await writeFile(file, 'not a directory');
  await t.rejects(openStore(file, { backend }), { code: 'storage-not-writable' });
  await t.rejects(openStore(join(file, 'below'), { backend }), { code: 'storage-not-writable' });
  if (process.getuid?.() === 0) return;
  const closed = join(path, '..', 'closed');
  await mkdir(closed);
  await chmod(closed, 0o500);
  await t.rejects(openStore(closed, { backend }), { code: 'storage-not-writable' });
});

/** A process that writes one block after the other, synced, and says on its output what it was told is durable. */
interface Writer {
  /** The last line, once there are this many more. */
  acknowledged(more: number): Promise<LogPosition>;
  /** SIGKILL, at once; resolves to the last position it had acknowledged. */
  kill(): Promise<LogPosition>;
}

/** Arguments of node. */
function writerCall(path: string, bytes: number, backend: Backend): readonly string[] {
  const from = JSON.stringify(new URL('./storage-compliance.js', import.meta.url).href);
  const call = `writeUntilKilled(${JSON.stringify(path)}, ${bytes}, { backend: '${backend}' })`;
  return ['--input-type=module', '-e', `import { writeUntilKilled } from ${from}; await ${call};`];
}

async function writer(backend: Backend, path: string, bytes = 4000): Promise<Writer> {
  const child: ChildProcess = spawn(process.execPath, writerCall(path, bytes, backend), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let last: LogPosition = { sequence: 0, hash: new Uint8Array(32) };
  let lines = 0;
  const exited = once(child, 'exit');
  const waiters: { at: number; go: () => void }[] = [];
  const input = createInterface({ input: child.stdout! });
  const ended = once(input, 'close');
  input.on('line', (line) => {
    const [sequence, hash] = line.split(' ');
    last = { sequence: Number(sequence), hash: Buffer.from(hash!, 'hex') };
    lines += 1;
    for (const waiter of waiters) if (lines >= waiter.at) waiter.go();
  });
  return {
    async acknowledged(more) {
      const at = lines + more;
      const reached = new Promise<void>((go) => waiters.push({ at, go }));
      await Promise.race([
        reached,
        exited.then(() => {
          throw new Error('the writer ended by itself');
        }),
      ]);
      return last;
    },
    async kill() {
      child.kill('SIGKILL');
      await Promise.all([exited, ended]);
      return last;
    },
  };
}

onDisk('A23 kill -9 loses nothing that was acknowledged', async (t, backend) => {
  const path = await directory(t);
  let before = 0;
  for (let round = 0; round < 5; round++) {
    const child = await writer(backend, path, 1000 + 20_000 * round);
    await child.acknowledged(15 + 12 * round);
    const floor = await child.kill();
    t.ok(floor.sequence > before, `round ${round}: ${floor.sequence - before} writes acknowledged`);
    const kv = await openStore(path, { backend });
    const { recovered, log } = await openLogStore(kv, options({ floor }));
    t.ok(recovered.position.sequence >= floor.sequence);
    t.ok(log.head >= before, 'every block is there');
    before = floor.sequence;
    await log.close();
  }
});

onDisk(
  'A22 a write that the file system refuses ends the process, and nothing acknowledged is lost',
  async (t, backend) => {
    const path = await directory(t);
    // A limit on the size of a file is the full disk that a test may make: 3000 KiB, then EFBIG instead of a signal.
    const limited = `trap '' XFSZ; ulimit -f 3000; exec "$0" "$@"`;
    const child = spawn('bash', ['-c', limited, process.execPath, ...writerCall(path, 50_000, backend)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines: string[] = [];
    const input = createInterface({ input: child.stdout });
    input.on('line', (line) => lines.push(line));
    const [[code]] = await Promise.all([once(child, 'exit'), once(input, 'close')]);
    t.equal(code, 1);
    t.equal(lines.pop(), 'failed storage-write-failed');
    const [sequence, hash] = (lines.at(-1) ?? '').split(' ');
    const floor = { sequence: Number(sequence), hash: Buffer.from(hash ?? '', 'hex') };
    t.ok(floor.sequence > 20, `${floor.sequence} writes before it was full`);
    const found = await readThrough(backend, path, floor);
    t.ok(found.sequence >= floor.sequence && found.sequence <= floor.sequence + 1);
  },
);

/** A directory with `count` blocks of 4000 bytes, one batch each, closed by SIGKILL so that everything is still in the WAL. */
async function killed(
  t: Test,
  backend: Backend,
  count: number,
): Promise<{ readonly path: string; readonly floor: LogPosition }> {
  const path = await directory(t);
  const child = await writer(backend, path);
  await child.acknowledged(count);
  return { path, floor: await child.kill() };
}

async function files(path: string, ending: RegExp): Promise<readonly string[]> {
  const found = (await readdir(path)).filter((name) => ending.test(name)).sort();
  const sizes = await Promise.all(found.map(async (name) => (await stat(join(path, name))).size));
  return found.filter((_, i) => sizes[i]! > 0).map((name) => join(path, name));
}

async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, at);
  byte[0] = byte[0]! ^ 0x10;
  await file.write(byte, 0, 1, at);
  await file.close();
}

/** Opens, reads everything there is, closes; throws what the log throws. */
async function readThrough(backend: Backend, path: string, floor: LogPosition | null): Promise<LogPosition> {
  const kv = await openStore(path, { backend });
  try {
    const { log } = await openLogStore(kv, options({ floor, recentBytesMax: 0 }));
    for (let at: number = log.lowest; at <= log.head; at++) {
      const b = await log.readDecided(asHeight(at));
      if (b === undefined) throw new Error(`block ${at} is gone and nobody noticed`);
      if (!(await log.findBundle(digestsOf(at)[0]!))) throw new Error(`index of ${at} is gone and nobody noticed`);
    }
    return log.position;
  } finally {
    await kv.close();
  }
}

onDisk('A21 LOG-4 the write-ahead log torn at its end', async (t, backend) => {
  const { path, floor } = await killed(t, backend, 60);
  const [wal] = await files(path, /\.log$/);
  const { size } = await stat(wal!);
  await truncate(wal!, size - 10_000);
  await t.rejects(readThrough(backend, path, floor), {
    code: 'storage-lost-writes',
    fields: { expected: floor.sequence },
  });
  const cut = await readThrough(backend, path, null);
  t.ok(cut.sequence < floor.sequence && cut.sequence > floor.sequence - 10, 'above the floor it is simply shorter');
});

onDisk('A21 LOG-4 the write-ahead log deleted', async (t, backend) => {
  const { path, floor } = await killed(t, backend, 60);
  for (const wal of await files(path, /\.log$/)) await rm(wal);
  await t.rejects(readThrough(backend, path, floor), { code: 'storage-lost-writes', fields: { found: 0 } });
});

onDisk('A21 LOG-4 a bit flipped in the middle of the write-ahead log', async (t, backend) => {
  for (const part of [0.1, 0.5, 0.9]) {
    const { path, floor } = await killed(t, backend, 60);
    const [wal] = await files(path, /\.log$/);
    await flip(wal!, Math.floor((await stat(wal!)).size * part));
    // Both engines leave out the rest of the damaged 32 KiB of their log and go on behind it: a hole, which the journal shows
    // even without a floor; or, where nothing comes behind it, an older log, which only the floor can show.
    const code = /^storage-(damaged|lost-writes)$/;
    await t.rejects(readThrough(backend, path, floor), { code }, `at ${part}`);
    const rest = await readThrough(backend, path, null).catch((error: unknown) => error);
    const cut =
      !(rest instanceof StorageError) && // Cast: what is not an error is the position.
      (rest as LogPosition).sequence < floor.sequence;
    t.ok(cut || (rest instanceof StorageError && rest.code === 'storage-damaged'), `at ${part}, without a floor`);
  }
});

onDisk(
  'A21 LOG-2 LOG-5 damage in a table file: flipped bits, a file missing, a file of an older time',
  async (t, backend) => {
    // Reopening after a kill moves everything from the WAL into a table file.
    const prepare = async () => {
      const { path, floor } = await killed(t, backend, 60);
      await (await openStore(path, { backend })).close();
      const [table] = await files(path, /\.(sst|ldb)$/);
      return { path, floor, table: table! };
    };
    for (const part of [0.01, 0.3, 0.6, 0.9, 0.97]) {
      const { path, floor, table } = await prepare();
      await flip(table, Math.floor((await stat(table)).size * part));
      await t.rejects(readThrough(backend, path, floor), { code: 'storage-damaged' }, `at ${part}`);
    }
    const { path, floor, table } = await prepare();
    const whole = await readFile(table);
    await rm(table);
    await t.rejects(readThrough(backend, path, floor), { code: 'storage-damaged' }, 'missing');
    await writeFile(table, whole.subarray(0, whole.length >> 1));
    await t.rejects(readThrough(backend, path, floor), { code: 'storage-damaged' }, 'half of it');
  },
);

onDisk('LOG-4 a restored backup is an older log', async (t, backend) => {
  const path = await directory(t);
  const copy = `${path}-backup`;
  const child = await writer(backend, path);
  await child.acknowledged(20);
  await child.kill();
  await mkdir(copy);
  for (const name of await readdir(path)) await writeFile(join(copy, name), await readFile(join(path, name)));
  const again = await writer(backend, path);
  await again.acknowledged(20);
  const floor = await again.kill();
  await readThrough(backend, path, floor);
  await t.rejects(readThrough(backend, copy, floor), { code: 'storage-lost-writes' });
  // And where it went on from the backup, the number is reached but the hash is another.
  const other = await writer(backend, copy, 50);
  await other.acknowledged(60);
  await other.kill();
  await t.rejects(readThrough(backend, copy, floor), { code: 'storage-lost-writes' });
});

onDisk('LOG-8 pruning gives disk space back', async (t, backend) => {
  const path = await directory(t);
  const kv = await openStore(path, { backend });
  const { log } = await openLogStore(kv, options({ retainBlocks: 20, recentBytesMax: 1 << 20 }));
  // 250 MB in all, of which 10 MB are to stay.
  const most = await fill(log, 500, 500_000);
  const mib = (bytes: number): number => Math.round(bytes / (1 << 20));
  t.comment(`disk: at most ${mib(most)} MiB, at the end ${mib(await log.sizeBytes())} MiB, of 238 MiB written`);
  t.ok(most < 200 << 20, 'bounded while it is written');
  t.equal(log.lowest, 480);
  t.ok((await log.readDecided(asHeight(480)))?.bytes.body.length === 500_000);
  const floor = log.position;
  await log.close();
  const started = performance.now();
  const again = await openLogStore(await openStore(path, { backend }), options({ floor, retainBlocks: 20 }));
  t.comment(`reopened in ${Math.round(performance.now() - started)} ms, journal from the second last checkpoint on`);
  t.equal(again.log.lowest, 480);
  t.ok((await again.log.sizeBytes()) < 150 << 20);
  await again.log.close();
});

onDisk('a block is equal after a restart, byte for byte', async (t, backend) => {
  const path = await directory(t);
  const big = block(1, asHash(new Uint8Array(32)), { bytes: 700_000 });
  const { log } = await openLogStore(await openStore(path, { backend }), options());
  // As it comes from a socket: a slice of something bigger.
  const frame = new Uint8Array(2_000_000);
  frame.set(big.bytes.body, 1234);
  const body = frame.subarray(1234, 1234 + 700_000);
  await log.write([{ ...big, bytes: { header: big.bytes.header, body } }, decided(big)]);
  frame.fill(0);
  await log.close();
  const { recovered, log: again } = await openLogStore(await openStore(path, { backend }), options());
  t.ok(equalBytes(recovered.decided[0]!.bytes.body, big.bytes.body));
  t.equal(toHex(recovered.decided[0]!.hash), toHex(big.hash));
  await again.close();
});
