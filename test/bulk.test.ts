// storage/bulk.ts: bodies in files of their own, over each engine on disk. The suite of every store, what such a store does when its files break or
// its process is killed, and when files come and go.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { type Bytes, equalBytes, fromHex } from '../crypto/bytes.ts';
import { deferred } from '../daemon/cli/deferred.ts';
import type { LogPosition } from '../protocol/log.ts';
import { asHash, asHeight } from '../protocol/types.ts';
import { BodyFile, makeStage, type Part, readParts } from '../storage/body-file.ts';
import { withBulk } from '../storage/bulk.ts';
import { openClassic } from '../storage/classic.ts';
import type { KeyValueStore } from '../storage/kv.ts';
import { bodyHashIn, keys } from '../storage/layout.ts';
import { openLogStore } from '../storage/log-store.ts';
import { type Backend, bearsRocks, openStore } from '../storage/open.ts';
import { openRocks } from '../storage/rocks.ts';
import {
  type BlockRecord,
  block,
  chain,
  checkpoint,
  collect,
  compliance,
  decided,
  fill,
  options,
  type Reopen,
  settle,
} from './storage-compliance.ts';

t.setTimeout(200_000);

const backends: readonly Backend[] = bearsRocks(process.versions.node)
  ? ['rocksdb', 'classic-level']
  : ['classic-level'];
const genesis = asHash(new Uint8Array(32));
/** Every body goes into a file. */
const always = 1;

async function directory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'synod-bulk-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return join(path, 'log');
}

function onDisk(name: string, scenario: (t: Test, backend: Backend) => Promise<void>): void {
  for (const backend of backends) t.test(`${backend}: ${name}`, (t) => scenario(t, backend));
}

for (const backend of backends) {
  compliance(t, `${backend}, bodies in files`, async (t): Promise<Reopen> => {
    const path = await directory(t);
    let last: KeyValueStore | undefined;
    t.teardown(() => last?.close());
    return async () => {
      await last?.close();
      last = await openStore(path, { backend, bulkBytesMin: always });
      return last;
    };
  });
}

async function bodyFiles(path: string): Promise<readonly string[]> {
  return (await readdir(path)).filter((name) => name.startsWith('bodies-')).sort();
}

const bodyKeyOf = ({ height, bytes }: BlockRecord): Bytes => keys.body(height, bodyHashIn(bytes.header));

/** Opens the log, reads every block of it, closes it; throws what the log throws. */
async function readThrough(path: string, backend: Backend, floor: LogPosition | null): Promise<LogPosition> {
  const kv = await openStore(path, { backend });
  try {
    const { log } = await openLogStore(kv, options({ floor, recentBytesMax: 0 }));
    for (let at: number = log.lowest; at <= log.head; at++)
      if ((await log.readDecided(asHeight(at))) === undefined)
        throw new Error(`block ${at} is gone and nobody noticed`);
    return log.position;
  } finally {
    await kv.close();
  }
}

onDisk(
  'LOG-14 a small batch stays in the engine, a large one gets a file, and both are read alike',
  async (t, backend) => {
    const path = await directory(t);
    const kv = await openStore(path, { backend, bulkBytesMin: 50_000 });
    const { log } = await openLogStore(kv, options({ recentBytesMax: 0 }));
    const blocks = chain(40, { bytes: 5_000 });
    const write = (some: readonly BlockRecord[]) => log.write([...some, ...some.map((b) => decided(b))]);
    for (const b of blocks.slice(0, 5)) await write([b]);
    t.same(await bodyFiles(path), []);
    await write(blocks.slice(5, 20));
    for (const b of blocks.slice(20, 25)) await write([b]);
    const floor = await write(blocks.slice(25));
    t.same(await bodyFiles(path), ['bodies-0000000001']);
    const { size } = await stat(join(path, 'bodies-0000000001'));
    t.equal(size, 2 * 19 * 4_096, 'each body once, and each batch in whole blocks');
    const { blocks: read } = await log.readDecidedRange({ from: asHeight(1), to: asHeight(40), bytesMax: 1 << 20 });
    t.ok(read.every(({ bytes }, i) => equalBytes(bytes.body, blocks[i]!.bytes.body)) && read.length === 40);
    const column = { gte: keys.start('body'), lt: keys.end('body') };
    const bodies = await collect(kv, column);
    t.ok(
      bodies.every(
        ({ key, value }, i) => equalBytes(key, bodyKeyOf(blocks[i]!)) && equalBytes(value, blocks[i]!.bytes.body),
      ),
    );
    t.equal((await collect(kv, { ...column, values: false })).length, 40);
    await log.close();
    t.same(await readThrough(path, backend, floor), floor);
  },
);

t.test('LOG-14 a file of bodies is the same where the system refuses writes around its page cache', async (t) => {
  const values = [1, 5_000, 0, 3 << 20, 2 << 20, 77].map((length, i) => new Uint8Array(length).fill(i + 1));
  // Memory that begins at no page: refused wherever the rule holds.
  const unfit = new Uint8Array((1 << 20) + 8).subarray(8);
  for (const [number, stage] of [makeStage(), unfit].entries()) {
    const path = `${await directory(t)}-bodies`;
    const file = await BodyFile.create(path, number, stage);
    const parts: Part[] = [];
    for (const some of [values, values.slice(0, 2), values.slice(3)]) {
      let at = await file.append(some);
      t.equal(at % 4_096, 0);
      for (const { length } of some) {
        parts.push({ at, bytes: length });
        at += length;
      }
    }
    await file.close();
    const read = await readParts(path, parts);
    const wanted = [...values, ...values.slice(0, 2), ...values.slice(3)];
    t.ok(read?.length === wanted.length && read.every((body, i) => equalBytes(body, wanted[i]!)));
    await t.rejects(BodyFile.create(path, number, stage), { code: 'EEXIST' });
    t.equal((await stat(path)).size, file.bytes, 'what was there is left alone');
  }
});

onDisk('LOG-14 a body that goes in the batch it came with is nowhere', async (t, backend) => {
  const path = await directory(t);
  const kv = await openStore(path, { backend, bulkBytesMin: always });
  const { log } = await openLogStore(kv, options());
  const [one, other] = [1, 2].map((salt) => block(1, genesis, { bytes: 3_000, salt }));
  await log.write([one!, other!, decided(one!)]);
  t.equal(await kv.get(bodyKeyOf(other!)), undefined);
  t.ok(equalBytes((await kv.get(bodyKeyOf(one!)))!, one!.bytes.body));
  await log.close();
  t.equal((await readThrough(path, backend, null)).sequence, 1, 'and its tombstone stands');
});

/** 30 blocks of 4,000 bytes in one file. */
async function inOneFile(t: Test, backend: Backend) {
  const path = await directory(t);
  const { log } = await openLogStore(await openStore(path, { backend, bulkBytesMin: always }), options());
  const blocks = chain(30, { bytes: 4_000 });
  for (let at = 0; at < 30; at += 10) {
    const some = blocks.slice(at, at + 10);
    await log.write([...some, ...some.map((b) => decided(b))]);
  }
  const floor = log.position;
  await log.close();
  const [name] = await bodyFiles(path);
  return { path, floor, file: join(path, name!) };
}

onDisk('A21 LOG-14 LOG-5 a file of bodies with a flipped bit, cut short, or gone', async (t, backend) => {
  for (const part of [0.01, 0.5, 0.99]) {
    const { path, floor, file } = await inOneFile(t, backend);
    const handle = await open(file, 'r+');
    const at = Math.floor((await handle.stat()).size * part);
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, at);
    await handle.write(Buffer.of(byte[0]! ^ 0x10), 0, 1, at);
    await handle.close();
    for (const told of [floor, null])
      await t.rejects(readThrough(path, backend, told), {
        code: 'storage-damaged',
        fields: { kind: 'body', why: 'checksum' },
      });
  }
  const { path, floor, file } = await inOneFile(t, backend);
  await truncate(file, 119_000);
  await t.rejects(readThrough(path, backend, floor), {
    code: 'storage-damaged',
    fields: { kind: 'body', height: 30, why: 'length' },
  });
  await truncate(file, 0);
  await t.rejects(readThrough(path, backend, floor), {
    code: 'storage-damaged',
    fields: { kind: 'body', why: 'length' },
  });
  await rm(file);
  await t.rejects(readThrough(path, backend, floor), {
    code: 'storage-damaged',
    fields: { kind: 'body', why: 'missing' },
  });
});

onDisk(
  'A23 LOG-14 kill -9 loses no body that was acknowledged, and what it left unfinished goes',
  async (t, backend) => {
    const path = await directory(t);
    let before = 0;
    for (let round = 0; round < 3; round++) {
      const floor = await killedWriter(path, backend, { bytes: 1_000 + 50_000 * round, more: 15 });
      t.ok(floor.sequence > before, `round ${round}: ${floor.sequence - before} writes acknowledged`);
      before = (await readThrough(path, backend, floor)).sequence;
      t.ok(before >= floor.sequence);
    }
    t.equal((await bodyFiles(path)).length, 3, 'one for each process');
    // As a crash leaves it between the bodies and what refers to them.
    const orphan = join(path, 'bodies-0000000077');
    await writeFile(orphan, 'of nobody');
    const { log, recovered } = await openLogStore(await openStore(path, { backend, bulkBytesMin: always }), options());
    await log.write([block(log.head + 1, recovered.decided.at(-1)!.hash)]);
    t.same((await bodyFiles(path)).slice(3), ['bodies-0000000078']);
    await log.close();
  },
);

/** Arguments of node: block after block, until it is killed. */
function writerCall(path: string, bytes: number, backend: Backend): readonly string[] {
  const from = JSON.stringify(new URL('./storage-compliance.js', import.meta.url).href);
  const store = JSON.stringify({ backend, bulkBytesMin: always });
  const call = `writeUntilKilled(${JSON.stringify(path)}, ${bytes}, ${store})`;
  return ['--input-type=module', '-e', `import { writeUntilKilled } from ${from}; await ${call};`];
}

/** The last position that it acknowledged, at least `more` after its first. */
async function killedWriter(path: string, backend: Backend, of: { bytes: number; more: number }): Promise<LogPosition> {
  const child = spawn(process.execPath, writerCall(path, of.bytes, backend), { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  let last = '';
  let lines = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    last = line;
    lines += 1;
    if (lines === of.more) child.kill('SIGKILL');
  }
  await exited;
  return positionIn(last);
}

function positionIn(line: string): LogPosition {
  const [sequence, hash] = line.split(' ');
  return { sequence: Number(sequence), hash: fromHex(hash ?? '') ?? genesis };
}

onDisk(
  'A22 LOG-14 LOG-12 a file of bodies that cannot grow ends the process, and it does not grow with the next',
  async (t, backend) => {
    const path = await directory(t);
    // A limit on the size of a file is the full disk that a test may make: 1000 KiB, then EFBIG instead of a signal.
    const limited = async (kib: number): Promise<string[]> => {
      const shell = `trap '' XFSZ; ulimit -f ${kib}; exec "$0" "$@"`;
      const child = spawn('bash', ['-c', shell, process.execPath, ...writerCall(path, 50_000, backend)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      const lines: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) lines.push(line);
      t.same((await exited)[0], 1);
      return lines;
    };
    const lines = await limited(1_000);
    t.equal(lines.pop(), 'failed storage-write-failed');
    const floor = positionIn(lines.at(-1)!);
    t.ok(floor.sequence >= 15, `${floor.sequence} writes before it was full`);
    t.same(await readThrough(path, backend, floor), floor, 'what failed is not there');
    t.same(await limited(40), ['failed storage-write-failed']);
    t.same(await bodyFiles(path), ['bodies-0000000001'], 'a file that nothing refers to is not left behind');
  },
);

onDisk('LOG-8 LOG-14 pruning gives the files of bodies back', async (t, backend) => {
  const path = await directory(t);
  const { log } = await openLogStore(
    await openStore(path, { backend, bulkBytesMin: always }),
    options({ retainBlocks: 20, recentBytesMax: 1 << 20 }),
  );
  // 400 MB in all, of which 20 MB are to stay.
  const most = await fill(log, 400, 1_000_000);
  t.comment(`at most ${most >> 20} MiB, at the end ${(await log.sizeBytes()) >> 20} MiB in ${await bodyFiles(path)}`);
  t.ok(most < 320 << 20, 'bounded while it is written');
  t.ok((await bodyFiles(path)).length <= 4);
  const floor = log.position;
  await log.close();
  t.same(await readThrough(path, backend, floor), floor);
});

onDisk('LOG-8 LOG-14 a node that is started again and again keeps no more', async (t, backend) => {
  const path = await directory(t);
  let [parent, height] = [genesis, 0];
  // Less than the log has compacted for: what is dropped here is dropped by the next file.
  for (let life = 0; life < 6; life++) {
    const { log } = await openLogStore(
      await openStore(path, { backend, bulkBytesMin: always }),
      options({ retainBlocks: 5, recentBytesMax: 1 << 20 }),
    );
    for (let i = 0; i < 10; i++) {
      const b = block(++height, parent, { bytes: 1_000_000 });
      parent = b.hash;
      log.moveFloor(await log.write([b, decided(b), checkpoint(height)]));
    }
    await settle(log, 30);
    await log.close();
    t.ok((await bodyFiles(path)).length <= 3, `${await bodyFiles(path)} after ${life + 1} lives`);
  }
});

onDisk('LOG-14 a file that is written to while others go stays', async (t, backend) => {
  const path = await directory(t);
  const engine = await (backend === 'rocksdb' ? openRocks(path) : openClassic(path));
  // A slow disk: the first look for bodies that are left waits for the test.
  const [reached, goOn] = [deferred<void>(), deferred<void>()];
  let isSlow = false;
  const slow: KeyValueStore = {
    name: engine.name,
    get: (key) => engine.get(key),
    getMany: (keys) => engine.getMany(keys),
    write: (ops) => engine.write(ops),
    reclaim: (gte, lt) => engine.reclaim(gte, lt),
    sizeBytes: () => engine.sizeBytes(),
    close: () => engine.close(),
    range: async function* (range) {
      if (isSlow && range.limit === 1) {
        isSlow = false;
        reached.resolve();
        await goOn.promise;
      }
      yield* engine.range(range);
    },
  };
  const kv = await withBulk({ engine: slow, directory: path, bytesMin: 2 << 20 });
  const keyOf = (height: number) => keys.body(asHeight(height), asHash(new Uint8Array(32).fill(height)));
  const put = (height: number, bytes: number) => ({
    type: 'put' as const,
    key: keyOf(height),
    value: new Uint8Array(bytes).fill(height),
  });
  const between = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  // One file of 64 MiB, and one of 60 that gets more.
  for (let from = 1; from < 65; from += 8)
    await kv.write(between(from, from + 8).map((height) => put(height, 1 << 20)));
  for (let from = 65; from < 125; from += 6)
    await kv.write(between(from, from + 6).map((height) => put(height, 1 << 20)));
  await kv.write(between(1, 125).map((height) => ({ type: 'del' as const, key: keyOf(height) })));
  isSlow = true;
  const reclaimed = kv.reclaim(keys.at('body', asHeight(1)), keys.at('body', asHeight(125)));
  await reached.promise;
  await kv.write(between(200, 206).map((height) => put(height, 1 << 20)));
  goOn.resolve();
  await reclaimed;
  for (const height of between(200, 206)) t.equal((await kv.get(keyOf(height)))?.length, 1 << 20, `block ${height}`);
  t.same(await bodyFiles(path), ['bodies-0000000002'], 'and the first one is gone');
  await kv.close();
});
