// What every store below the replication log must do, and what the log must do over each: one suite, run over memory, RocksDB and
// LevelDB by storage.test.ts. Also the made-up chain those tests write, and the process that they kill. Not a test file by itself:
// tap runs *.test.js only.

import type { Test } from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { ascii, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import { encodeHeader, HEADER_BYTES } from '../protocol/block.ts';
import type { LogPosition, LogRecord, RecoveredLog } from '../protocol/log.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView, type Hash } from '../protocol/types.ts';
import { StorageError } from '../storage/errors.ts';
import type { KeyValueStore, KvEntry, KvRange } from '../storage/kv.ts';
import { type column, encodeMeta, keys, seal } from '../storage/layout.ts';
import { type LogOptions, type LogStore, openLogStore } from '../storage/log-store.ts';
import { openStore, type StoreOptions } from '../storage/open.ts';

export const { sha256 } = native;
export const chainId = asHash(sha256(ascii('a chain')));
const zero = asHash(new Uint8Array(32));

export type Record_<T extends LogRecord['type']> = Extract<LogRecord, { type: T }>;
export type BlockRecord = Record_<'block'>;

/** A block of the made-up chain: `salt` makes siblings of one height differ, in their bodies too where `bodySalt` does. */
export function block(
  height: number,
  parent: Hash,
  { bytes = 100, salt = 0, bodySalt }: { bytes?: number; salt?: number; bodySalt?: number } = {},
): BlockRecord {
  const body = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) body[i] = (i * 31 + height * 7 + (bodySalt ?? salt)) & 0xff;
  const header = encodeHeader({
    chainId,
    epoch: asEpoch(0),
    height: asHeight(height),
    parent,
    time: asMillis(salt),
    proposer: asReplicaId(0),
    transactionRoot: zero,
    logRoot: zero,
    transactionTotal: height,
    memberSetHash: zero,
    bodyHash: asHash(sha256(body)),
    bundleCount: 0,
    transactionCount: 0,
    payloadBytes: bytes,
  });
  return { type: 'block', height: asHeight(height), hash: asHash(sha256(header)), bytes: { header, body } };
}

export function chain(length: number, { from = 1, parent = zero, bytes = 100, salt = 0 } = {}): readonly BlockRecord[] {
  const out: BlockRecord[] = [];
  for (let i = 0; i < length; i++) out.push(block(from + i, out.at(-1)?.hash ?? parent, { bytes, salt }));
  return out;
}

export function digestsOf(height: number, count = 3): readonly Hash[] {
  return Array.from({ length: count }, (_, i) => asHash(sha256(ascii(`bundle ${height}/${i}`))));
}

export function decided(of: BlockRecord, certificate: Bytes | null = ascii(`c${of.height}`)): LogRecord {
  return { type: 'decided', height: of.height, hash: of.hash, certificate, bundles: digestsOf(of.height) };
}

export function accepted(of: BlockRecord, view = 0): LogRecord {
  return { type: 'accepted', height: of.height, hash: of.hash, view: asView(view) };
}

export function hardState(text: string): LogRecord {
  return { type: 'hard-state', bytes: ascii(text) };
}

export function chunk(height: number, number: number, text = `chunk ${number} at ${height}`): LogRecord {
  return { type: 'state-chunk', height: asHeight(height), chunk: number, bytes: ascii(text) };
}

export function checkpoint(height: number, certificate: Bytes | null = ascii(`stable ${height}`)): LogRecord {
  return { type: 'checkpoint', height: asHeight(height), place: ascii(`place ${height}`), certificate };
}

export function reset(to: BlockRecord): LogRecord {
  const certificate = ascii(`peers ${to.height}`);
  const place = ascii(`place ${to.height}`);
  return { type: 'reset-to-checkpoint', height: to.height, header: to.bytes.header, place, certificate };
}

export function options(more: Partial<LogOptions> = {}): LogOptions {
  return { sha256, chainId, floor: null, retainBlocks: 'all', ...more };
}

/** Lets the log's housekeeping beside the writes come to its end, then writes once more so that its result is used. */
export async function settle(log: LogStore, rounds = 1): Promise<LogPosition> {
  let position = log.position;
  for (let i = 0; i < rounds; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    position = await log.write([hardState(`settled ${i}`)]);
  }
  return position;
}

/** A chain of so many blocks of so many bytes, a checkpoint at every tenth; the most bytes that the log had on disk meanwhile. */
export async function fill(log: LogStore, blocks: number, bytes: number): Promise<number> {
  let [parent, most] = [asHash(new Uint8Array(32)), 0];
  for (let height = 1; height <= blocks; height++) {
    const b = block(height, parent, { bytes });
    parent = b.hash;
    const stable = height % 10 === 0 ? [checkpoint(height)] : [];
    const position = await log.write([b, decided(b), ...stable]);
    if (height % 50 === 0) log.moveFloor(position);
    most = Math.max(most, await log.sizeBytes());
  }
  await settle(log, 30);
  return most;
}

/** Old records go a few with each write, and what goes is looked up beside the writes: how many that takes is the machine's to say. */
async function settleUntil(log: LogStore, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error('the log does not settle');
    await settle(log);
  }
}

export async function collect(kv: KeyValueStore, range: KvRange): Promise<readonly KvEntry[]> {
  const out: KvEntry[] = [];
  for await (const entry of kv.range(range)) out.push(entry);
  return out;
}

export async function keysIn(kv: KeyValueStore, name: keyof typeof column): Promise<number> {
  return (await collect(kv, { gte: keys.start(name), lt: keys.end(name), values: false })).length;
}

/**
 * What storage.test.ts runs in a process of its own, to kill it: block after block, one synced batch each; prints the position of a
 * batch (sequence and hash) when the log says that it is durable. A failed write ends it: the last line is then `failed`, code.
 */
export async function writeUntilKilled(path: string, bytes: number, store: StoreOptions): Promise<never> {
  const { log, recovered } = await openLogStore(await openStore(path, store), options());
  let parent = recovered.decided.at(-1)?.hash ?? zero;
  for (let height = log.head + 1; ; height++) {
    const next = block(height, parent, { bytes });
    const records = [next, accepted(next), hardState(`at ${height}`), decided(next)];
    const position = await log.write(records).catch((error: unknown) => {
      process.stdout.write(`failed ${error instanceof StorageError ? error.code : error}\n`);
      process.exit(1);
    });
    parent = next.hash;
    process.stdout.write(`${position.sequence} ${toHex(position.hash)}\n`);
  }
}

/** Same disk, opened again. */
export type Reopen = () => Promise<KeyValueStore>;

/** The whole suite over one kind of store. `fresh` makes an empty disk. */
export function compliance(t: Test, name: string, fresh: (t: Test) => Promise<Reopen>): void {
  t.test(`${name}: the port below`, (t) => portSuite(t, fresh));
  t.test(`${name}: the log`, async (t) => {
    await startSuite(t, fresh);
    await recordSuite(t, fresh);
    await readingSuite(t, fresh);
    await retentionSuite(t, fresh);
    await resetSuite(t, fresh);
  });
}

async function portSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  const reopen = await fresh(t);
  const kv = await reopen();
  const key = (...bytes: number[]): Bytes => Uint8Array.from(bytes);
  t.equal(await kv.get(key(1)), undefined);
  t.same(await kv.getMany([]), []);
  await kv.write([]);
  await kv.write([
    { type: 'put', key: key(1), value: ascii('one') },
    { type: 'put', key: key(2), value: ascii('gone') },
    { type: 'put', key: key(2, 0), value: new Uint8Array(0) },
    { type: 'put', key: key(2, 255), value: ascii('high') },
    { type: 'put', key: key(3), value: ascii('three') },
    { type: 'del', key: key(2) },
    { type: 'put', key: key(1), value: ascii('last wins') },
  ]);
  const values = await kv.getMany([key(1), key(2), key(2, 0), key(9)]);
  t.same(
    values.map((value) => (value === undefined ? null : toHex(value))),
    [toHex(ascii('last wins')), null, '', null],
  );
  const hex = async (range: KvRange): Promise<readonly string[]> =>
    (await collect(kv, range)).map((entry) => `${toHex(entry.key)}=${toHex(entry.value)}`);
  t.same(await hex({ gte: key(2), lt: key(3), values: false }), ['0200=', '02ff=']);
  t.same(await hex({ gte: key(1), lt: key(3), reverse: true, limit: 1 }), [`02ff=${toHex(ascii('high'))}`]);
  t.same((await hex({ gte: key(1), lt: key(255), reverse: true, values: false })).length, 4);
  // A reader that stops early leaves nothing open behind it.
  for await (const _ of kv.range({ gte: key(0), lt: key(255) })) break;
  const first = kv.write([{ type: 'put', key: key(4), value: key(4) }]);
  await t.rejects(kv.write([{ type: 'put', key: key(5), value: key(5) }]), InvariantViolation, 'two batches in flight');
  await first;
  await kv.reclaim(key(0), key(255));
  t.ok((await kv.sizeBytes()) > 0);
  await kv.close();
  await kv.close();
  await t.rejects(kv.get(key(1)), { code: 'storage-closed' });
  await t.rejects(kv.write([{ type: 'del', key: key(1) }]), { code: 'storage-closed' });
  const again = await reopen();
  t.same(await again.get(key(4)), key(4), 'what was written is there after a restart');
  await again.close();
}

async function startSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  await t.test('LOG-1 an empty directory becomes the chain’s, and only that chain’s', async (t) => {
    const reopen = await fresh(t);
    const { log, recovered } = await openLogStore(await reopen(), options());
    t.match(recovered, { hardState: null, checkpoint: null, stable: null, decided: [], accepted: [], lowest: 1 });
    t.same([log.position.sequence, log.head, log.lowest], [0, 0, 1]);
    await log.close();
    const other = asHash(sha256(ascii('another chain')));
    const kv = await reopen();
    await t.rejects(openLogStore(kv, options({ chainId: other })), { code: 'storage-wrong-chain' });
    const newer = encodeMeta(chainId);
    newer[3] = 99;
    await kv.write([{ type: 'put', key: keys.meta, value: seal(keys.meta, newer).value }]);
    await t.rejects(openLogStore(kv, options()), { code: 'storage-format-newer', fields: { found: 99 } });
    newer[3] = 1;
    await kv.write([{ type: 'put', key: keys.meta, value: seal(keys.meta, newer).value }]);
    await t.rejects(openLogStore(kv, options()), { code: 'storage-format-older', fields: { found: 1 } });
    await kv.write([{ type: 'put', key: keys.meta, value: newer }]);
    await t.rejects(openLogStore(kv, options()), { code: 'storage-damaged', fields: { kind: 'meta' } });
    await kv.close();
  });

  await t.test('LOG-1 records without a meta record are damage', async (t) => {
    const kv = await (await fresh(t))();
    await kv.write([{ type: 'put', key: keys.hardState, value: ascii('x') }]);
    await t.rejects(openLogStore(kv, options()), { code: 'storage-damaged', fields: { kind: 'meta' } });
    await kv.close();
  });

  await t.test('LOG-3 positions chain, and the journal is trimmed, never below the floor', async (t) => {
    const reopen = await fresh(t);
    let kv = await reopen();
    let { log } = await openLogStore(kv, options());
    const seen: LogPosition[] = [];
    for (let i = 0; i < 20; i++) seen.push(await log.write([hardState(`${i}`)]));
    t.same(
      seen.map((position) => position.sequence),
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    t.equal(new Set(seen.map((position) => toHex(position.hash))).size, 20);
    await log.close();
    kv = await reopen();
    ({ log } = await openLogStore(kv, options({ floor: seen[9]! })));
    t.same(log.position, seen[19]);
    // Two stable checkpoints, so that only the floor and the last 256 hold the journal.
    const blocks = chain(8);
    await log.write([...blocks, ...blocks.map((b) => decided(b)), checkpoint(4)]);
    await log.write([checkpoint(6)]);
    await log.write([checkpoint(8)]);
    for (let i = 0; i < 300; i++) await log.write([hardState(`more ${i}`)]);
    t.equal(await keysIn(kv, 'journal'), log.position.sequence - 9, 'from the floor on');
    for (let i = 0; i < 10; i++) {
      log.moveFloor(log.position);
      await log.write([hardState(`on ${i}`)]);
    }
    t.equal(await keysIn(kv, 'journal'), log.position.sequence - 21, 'from the second last stable checkpoint on');
    const more = chain(8, { from: 9, parent: blocks[7]!.hash });
    log.moveFloor(log.position);
    await log.write([...more, ...more.map((b) => decided(b)), checkpoint(12)]);
    for (const height of [14, 16]) await log.write([checkpoint(height)]);
    log.moveFloor(log.position);
    for (let i = 0; i < 20; i++) await log.write([hardState(`last ${i}`)]);
    t.equal(await keysIn(kv, 'journal'), 256, 'never fewer');
    const floor = log.position;
    await log.close();
    ({ log } = await openLogStore(await reopen(), options({ floor })));
    t.same(log.position, floor);
    await log.close();
  });

  await t.test('LOG-4 a log below its floor, beside it, or trimmed past it is refused', async (t) => {
    const reopen = await fresh(t);
    const { log } = await openLogStore(await reopen(), options());
    const first = await log.write([hardState('a')]);
    const second = await log.write([hardState('b')]);
    await log.close();
    const open = async (floor: LogPosition): Promise<RecoveredLog> => {
      const kv = await reopen();
      try {
        return (await openLogStore(kv, options({ floor }))).recovered;
      } finally {
        await kv.close();
      }
    };
    t.same((await open(first)).position, second);
    t.same((await open(second)).position, second);
    const code = 'storage-lost-writes';
    await t.rejects(open({ ...second, sequence: 3 }), { code, fields: { expected: 3, found: 2 } });
    await t.rejects(open({ ...first, hash: second.hash }), { code, fields: { expected: 1 } });
    const empty = await (await fresh(t))();
    await t.rejects(openLogStore(empty, options({ floor: first })), { code, fields: { expected: 1, found: 0 } });
    await empty.close();
  });
}

async function recordSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  await t.test('every record comes back', async (t) => {
    const reopen = await fresh(t);
    let { log } = await openLogStore(await reopen(), options());
    const blocks = chain(6);
    await log.write([blocks[0]!, accepted(blocks[0]!), hardState('old'), hardState('older than the next')]);
    await log.write([decided(blocks[0]!, null), blocks[1]!, blocks[2]!]);
    await log.write([decided(blocks[1]!), chunk(2, 0), chunk(2, 7), checkpoint(2, null), decided(blocks[2]!, null)]);
    await log.write([
      blocks[3]!,
      accepted(blocks[3]!, 1),
      blocks[4]!,
      accepted(blocks[4]!, 1),
      accepted(blocks[4]!, 2),
    ]);
    const position = await log.write([hardState('new')]);
    await log.close();
    const opened = await openLogStore(await reopen(), options({ floor: position }));
    log = opened.log;
    const { recovered } = opened;
    t.same(recovered.position, position);
    t.ok(equalBytes(recovered.hardState!, ascii('new')));
    t.match(recovered.checkpoint, { height: 2, certificate: null });
    t.ok(equalBytes(recovered.checkpoint!.header, blocks[1]!.bytes.header));
    t.same([...recovered.checkpoint!.chunks.keys()], [0, 7]);
    t.ok(equalBytes(recovered.checkpoint!.chunks.get(7)!, ascii('chunk 7 at 2')));
    t.equal(recovered.stable, null);
    t.same(
      recovered.decided.map((b) => [b.height, toHex(b.hash), b.certificate]),
      [[3, toHex(blocks[2]!.hash), null]],
    );
    t.same(
      recovered.accepted.map((a) => [a.height, a.view]),
      [
        [4, 1],
        [5, 2],
      ],
    );
    t.ok(equalBytes(recovered.accepted[1]!.bytes.body, blocks[4]!.bytes.body));
    t.same([log.head, log.lowest], [3, 1]);
    await log.write([decided(blocks[3]!), decided(blocks[4]!)]);
    t.equal(log.head, 5, 'goes on after a restart');
    t.equal((await log.write([])).sequence, log.position.sequence, 'nothing to write, nothing written');
    await log.close();
  });

  await t.test('LOG-6 two blocks of one height stand side by side until one is decided', async (t) => {
    const kv = await (await fresh(t))();
    const { log } = await openLogStore(kv, options());
    const [a, b] = [block(1, zero, { salt: 1 }), block(1, zero, { salt: 2 })];
    await log.write([a, accepted(a), b, accepted(b, 1)]);
    for (const one of [a, b]) t.ok(equalBytes((await log.readBlock(one.height, one.hash))!.body, one.bytes.body));
    await log.write([decided(a)]);
    t.equal(await log.readBlock(b.height, b.hash), undefined);
    t.ok(await log.readBlock(a.height, a.hash));
    t.same([await keysIn(kv, 'header'), await keysIn(kv, 'body'), await keysIn(kv, 'accepted')], [1, 1, 0]);
    await log.write([b, accepted(b)]);
    t.same([await keysIn(kv, 'body'), await keysIn(kv, 'accepted')], [1, 0], 'too late for a decided height');
    await log.close();
  });

  await t.test(
    'LOG-6 a body that two blocks of one height have is there once, and as long as one of them is',
    async (t) => {
      const reopen = await fresh(t);
      let kv = await reopen();
      let { log } = await openLogStore(kv, options({ recentBytesMax: 0 }));
      const of = (height: number, parent: Hash, salt: number) => block(height, parent, { salt, bodySalt: 1 });
      const [value, made, other] = [of(1, zero, 1), of(1, zero, 2), block(1, zero, { salt: 3 })];
      const counts = async () => [await keysIn(kv, 'header'), await keysIn(kv, 'body'), await keysIn(kv, 'accepted')];
      const bodyOf = async ({ height, hash }: BlockRecord) => (await log.readBlock(height, hash))?.body;
      await log.write([value, accepted(value), other]);
      await log.write([made]);
      t.same(await counts(), [3, 2, 1]);
      for (const one of [value, made]) t.ok(equalBytes((await bodyOf(one))!, value.bytes.body));
      // The block of an accepted value, in a later batch or in the same one.
      await log.write([decided(made)]);
      t.same(await counts(), [1, 1, 0], 'the value goes, its body stays');
      t.equal(await bodyOf(value), undefined);
      const [second, secondMade] = [of(2, made.hash, 1), of(2, made.hash, 2)];
      await log.write([second, accepted(second), secondMade, decided(secondMade)]);
      t.same(await counts(), [2, 2, 0]);
      // Over a restart, when memory has forgotten what was written.
      const [third, thirdMade, fourth] = [of(3, secondMade.hash, 1), of(3, secondMade.hash, 2), of(4, zero, 1)];
      const floor = await log.write([third, accepted(third), fourth, accepted(fourth)]);
      await log.close();
      kv = await reopen();
      const opened = await openLogStore(kv, options({ floor, recentBytesMax: 0 }));
      log = opened.log;
      t.same(
        opened.recovered.accepted.map(({ hash }) => toHex(hash)),
        [third, fourth].map(({ hash }) => toHex(hash)),
      );
      await log.write([thirdMade, decided(thirdMade)]);
      t.same(await counts(), [4, 4, 1]);
      for (const one of [made, secondMade, thirdMade]) t.ok(equalBytes((await bodyOf(one))!, one.bytes.body));
      await log.write([{ type: 'forget-accepted', height: asHeight(4) }]);
      t.same(await counts(), [3, 3, 0]);
      await log.write([fourth, accepted(fourth), of(4, thirdMade.hash, 2)]);
      const end = await log.write([hardState('end')]);
      await log.close();
      kv = await reopen();
      log = (await openLogStore(kv, options({ floor: end }))).log;
      t.same(await counts(), [5, 4, 1], 'what was deleted is written again');
      const wrong = of(4, thirdMade.hash, 5);
      const cut = { ...wrong, bytes: { ...wrong.bytes, body: wrong.bytes.body.subarray(1) } };
      await t.rejects(log.write([cut]), InvariantViolation, 'one body hash is that of one body');
    },
  );

  await t.test('LOG-13 what was accepted and is not needed any more leaves nothing behind', async (t) => {
    const reopen = await fresh(t);
    const kv = await reopen();
    const { log } = await openLogStore(kv, options());
    const [a, b, c] = [block(1, zero), block(2, zero), block(3, zero)];
    await log.write([a, decided(a), b, accepted(b), c, accepted(c)]);
    await log.write([{ type: 'forget-accepted', height: asHeight(2) }]);
    t.equal(await log.readBlock(b.height, b.hash), undefined);
    t.ok(await log.readBlock(a.height, a.hash), 'what is decided stays');
    t.ok(await log.readBlock(c.height, c.hash), 'and what lies above');
    t.same([await keysIn(kv, 'header'), await keysIn(kv, 'body'), await keysIn(kv, 'accepted')], [2, 2, 1]);
    const more = block(4, zero);
    await log.write([more, accepted(more), { type: 'forget-accepted', height: asHeight(4) }]);
    t.same([await keysIn(kv, 'body'), await keysIn(kv, 'accepted')], [1, 0], 'what came with it, too');
    await log.close();
    const again = await openLogStore(await reopen(), options());
    t.same([again.recovered.accepted, again.log.head], [[], 1]);
    await again.log.close();
  });

  const contradictions: Record<string, (log: LogStore) => readonly LogRecord[]> = {
    'a gap': () => [...chain(3), decided(chain(3)[1]!)],
    'a block that is not there': () => [decided(chain(1)[0]!)],
    'another block at a decided height': () => [block(1, zero, { salt: 9 }), decided(block(1, zero, { salt: 9 }))],
    'a parent that is not the head': () => [block(2, zero), decided(block(2, zero))],
    'accepted without its block': () => [accepted(block(2, zero))],
    'a block under a wrong hash': () => [{ ...block(2, zero), hash: zero }],
    'a block under a wrong height': () => [{ ...block(2, zero), height: asHeight(3) }],
    'a way back below the lowest': () => [reset(block(5, zero)), reset(block(3, zero))],
  };
  for (const [name, records] of Object.entries(contradictions)) {
    await t.test(`LOG-7 LOG-12 a contradiction throws and is final: ${name}`, async (t) => {
      const kv = await (await fresh(t))();
      const { log } = await openLogStore(kv, options());
      const [first] = chain(1);
      if (name !== 'a gap' && name !== 'a block that is not there') await log.write([first!, decided(first!)]);
      await t.rejects(log.write(records(log)), InvariantViolation);
      await t.rejects(log.write([hardState('x')]), InvariantViolation);
      await log.close();
    });
  }

  await t.test('LOG-7 a decision said again changes nothing, but may bring a certificate', async (t) => {
    const reopen = await fresh(t);
    const { log } = await openLogStore(await reopen(), options());
    const [a, b] = chain(2);
    await log.write([a!, decided(a!, null), b!, decided(b!, ascii('two'))]);
    await log.write([decided(a!, null)]);
    t.equal((await log.readDecided(a!.height))?.certificate, null);
    await log.write([decided(a!, ascii('one')), decided(b!, ascii('ignored'))]);
    t.ok(equalBytes((await log.readDecided(a!.height))!.certificate!, ascii('one')));
    t.ok(equalBytes((await log.readDecided(b!.height))!.certificate!, ascii('two')));
    await log.close();
    const { recovered } = await openLogStore(await reopen(), options());
    t.ok(equalBytes(recovered.decided[0]!.certificate!, ascii('one')));
  });

  await t.test('LOG-12 one write at a time', async (t) => {
    const { log } = await openLogStore(await (await fresh(t))(), options());
    const first = log.write([hardState('a')]);
    await t.rejects(log.write([hardState('b')]), InvariantViolation);
    await first;
    await log.write([hardState('c')]);
    await log.close();
    await t.rejects(log.write([hardState('d')]), { code: 'storage-closed' });
    await t.rejects(log.readCheckpoint(), { code: 'storage-closed' });
  });
}

async function readingSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  // Once with everything in memory, once with nothing.
  for (const recentBytesMax of [32 << 20, 0]) {
    await t.test(`LOG-11 ranges, ${recentBytesMax === 0 ? 'from disk' : 'from memory'}`, async (t) => {
      const { log } = await openLogStore(await (await fresh(t))(), options({ recentBytesMax }));
      const blocks = chain(150, { bytes: 1000 });
      for (const b of blocks) await log.write([b, decided(b, b.height % 50 === 0 ? ascii('certificate') : null)]);
      const read = async (from: number, to: number, bytesMax: number, more = {}) => {
        const range = await log.readDecidedRange({ from: asHeight(from), to: asHeight(to), bytesMax, ...more });
        const heights = range.blocks.map((b) => Number(b.height));
        for (const b of range.blocks) t.ok(equalBytes(b.hash, blocks[b.height - 1]!.hash));
        return { heights, proof: range.proof.map((h) => Number(h.height)), proven: range.proven, range };
      };
      const upTo = (from: number, to: number): readonly number[] =>
        Array.from({ length: to - from + 1 }, (_, i) => from + i);
      t.match(await read(1, 1000, 1 << 30), { heights: upTo(1, 150), proof: [], proven: true });
      t.match(await read(5, 9, 1 << 30), { heights: upTo(5, 9), proven: false });
      t.match(await read(5, 9, 0), { heights: [5] }, 'one block whatever the budget');
      t.match(await read(5, 9, 2600), { heights: [5, 6] });
      for (const last of [4, 5, 20, 61]) {
        const sizes = blocks.slice(0, last).map(({ bytes }) => bytes.header.length + bytes.body.length);
        const certificates = Math.floor(last / 50) * 'certificate'.length;
        const budget = sizes.reduce((sum, size) => sum + size, certificates);
        t.match(await read(1, 150, budget), { heights: upTo(1, last) }, `a budget of ${last} blocks`);
        t.match(await read(1, 150, budget - 1), { heights: upTo(1, last - 1) }, `one byte less than ${last} blocks`);
      }
      const headers = await read(5, 9, 1300, { headersOnly: true });
      t.match(headers, { heights: upTo(5, 9) });
      t.equal(headers.range.blocks[0]!.bytes.body.length, 0);
      t.equal(headers.range.blocks[0]!.bytes.header.length, HEADER_BYTES);
      t.match(await read(0, 9, 1000), { heights: [] });
      t.match(await read(151, 160, 1000), { heights: [] });
      const toCertificate = true;
      t.match(await read(40, 60, 1 << 30, { toCertificate }), { heights: upTo(40, 50), proof: [], proven: true });
      t.match(await read(1, 10, 1 << 30, { toCertificate }), {
        heights: upTo(1, 10),
        proof: upTo(11, 50),
        proven: true,
      });
      t.match(await read(51, 51, 0, { toCertificate, headersOnly: true }), { heights: [51], proof: upTo(52, 100) });
      t.match(await read(150, 150, 1 << 20, { toCertificate }), { heights: [150], proof: [], proven: true });
      t.equal(await log.readDecided(asHeight(151)), undefined);
      t.ok(equalBytes((await log.readDecided(asHeight(77)))!.bytes.body, blocks[76]!.bytes.body));
      for (const height of [1, 77, 150]) t.equal(await log.findBundle(digestsOf(height)[2]!), height);
      t.equal(await log.findBundle(digestsOf(151)[0]!), undefined);
      await log.close();
    });
  }

  await t.test('LOG-11 no certificate within 64 headers: not proven', async (t) => {
    const { log } = await openLogStore(await (await fresh(t))(), options());
    const blocks = chain(80);
    await log.write([...blocks, ...blocks.map((b) => decided(b, b.height === 80 ? ascii('c') : null))]);
    const query = { to: asHeight(80), bytesMax: 0, toCertificate: true };
    t.match(await log.readDecidedRange({ ...query, from: asHeight(1) }), { proof: [], proven: false });
    t.match(await log.readDecidedRange({ ...query, from: asHeight(16) }), { proven: true });
    await log.close();
  });
}

async function retentionSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  await t.test('LOG-8 old blocks go with all that belongs to them, never above the stable checkpoint', async (t) => {
    const reopen = await fresh(t);
    let kv = await reopen();
    let { log } = await openLogStore(kv, options({ retainBlocks: 20, recentBytesMax: 0 }));
    const blocks = chain(200);
    for (const b of blocks.slice(0, 100)) await log.write([b, decided(b)]);
    await settle(log, 2);
    t.same([log.lowest, await keysIn(kv, 'body')], [1, 100], 'no stable checkpoint, nothing goes');
    await log.write([chunk(90, 0), checkpoint(90)]);
    await settleUntil(log, () => log.lowest >= 80);
    t.same([log.head, log.lowest], [100, 80]);
    for (const b of blocks.slice(100)) await log.write([b, decided(b)]);
    await settleUntil(log, async () => (await keysIn(kv, 'bundle')) <= 333);
    t.equal(log.lowest, 90);
    for (const name of ['decided', 'header', 'body', 'bundles'] as const) t.equal(await keysIn(kv, name), 111, name);
    t.equal(await keysIn(kv, 'bundle'), 333);
    t.equal(await log.readDecided(asHeight(89)), undefined);
    t.equal(await log.findBundle(digestsOf(89)[0]!), undefined);
    t.equal(await log.findBundle(digestsOf(90)[0]!), 90);
    const floor = log.position;
    await log.close();
    kv = await reopen();
    const opened = await openLogStore(kv, options({ floor, retainBlocks: 20 }));
    log = opened.log;
    t.match(opened.recovered, { lowest: 90, checkpoint: { height: 90 } });
    t.equal(opened.recovered.decided.length, 110);
    log.retainAtLeast(60);
    await log.write([checkpoint(170)]);
    await settle(log, 8);
    t.equal(log.lowest, 140, 'no more than the chain itself allows');
    log.retainAtLeast(0);
    await log.write([checkpoint(190), checkpoint(200)]);
    await settleUntil(log, async () => log.lowest >= 180 && (await keysIn(kv, 'checkpoint')) <= 2);
    t.equal(log.lowest, 180);
    t.equal(await keysIn(kv, 'checkpoint'), 2, 'the last two stable checkpoints stay');
    await log.close();
  });

  await t.test('LOG-9 state chunks: the newest version at or below a checkpoint, for the last two', async (t) => {
    const reopen = await fresh(t);
    let kv = await reopen();
    let { log } = await openLogStore(kv, options());
    const blocks = chain(40);
    await log.write([...blocks, ...blocks.map((b) => decided(b))]);
    await log.write([chunk(10, 0), chunk(10, 1), chunk(10, 2), checkpoint(10)]);
    await log.write([chunk(20, 1), checkpoint(20)]);
    const text = async (height: number, number: number): Promise<string | undefined> => {
      const bytes = await log.readStateChunk(asHeight(height), number);
      return bytes === undefined ? undefined : Buffer.from(bytes).toString();
    };
    t.equal(await text(10, 1), 'chunk 1 at 10');
    t.equal(await text(20, 1), 'chunk 1 at 20');
    t.equal(await text(20, 0), 'chunk 0 at 10');
    t.equal(await text(20, 9), undefined);
    await log.write([chunk(30, 1), checkpoint(30, null)]);
    t.equal((await log.readCheckpoint())?.height, 20);
    t.match(await log.readCheckpoint(asHeight(30)), { height: 30, certificate: null });
    await log.write([checkpoint(30)]);
    await settleUntil(log, async () => (await keysIn(kv, 'chunk')) <= 4);
    t.equal((await log.readCheckpoint())?.height, 30);
    t.ok(equalBytes((await log.readCheckpoint())!.header!, blocks[29]!.bytes.header));
    t.equal(await text(30, 1), 'chunk 1 at 30');
    t.equal(await text(30, 0), 'chunk 0 at 10');
    t.equal(await text(20, 1), 'chunk 1 at 20');
    t.equal(await text(10, 1), undefined, 'two checkpoints back');
    t.equal(await keysIn(kv, 'chunk'), 4);
    // Chunks of a checkpoint that a crash cut short do not count.
    await log.write([chunk(40, 0)]);
    const floor = log.position;
    await log.close();
    kv = await reopen();
    const opened = await openLogStore(kv, options({ floor }));
    log = opened.log;
    t.match(opened.recovered, { checkpoint: { height: 30 }, stable: { height: 30 } });
    t.equal(Buffer.from(opened.recovered.checkpoint!.chunks.get(0)!).toString(), 'chunk 0 at 10');
    t.equal(opened.recovered.decided.length, 10);
    // Unstable checkpoints serve a start too; a stable one written again as unstable stays stable.
    await log.write([chunk(40, 0), checkpoint(40, null), checkpoint(30, null)]);
    await log.close();
    const last = await openLogStore(await reopen(), options());
    t.match(last.recovered, { checkpoint: { height: 40, certificate: null }, stable: { height: 30 } });
    await last.log.close();
  });
}

async function resetSuite(t: Test, fresh: (t: Test) => Promise<Reopen>): Promise<void> {
  await t.test('LOG-10 a checkpoint from peers far ahead replaces everything', async (t) => {
    const reopen = await fresh(t);
    let kv = await reopen();
    let { log } = await openLogStore(kv, options());
    const mine = chain(10);
    await log.write([...mine, ...mine.map((b) => decided(b)), chunk(4, 0), chunk(4, 1), checkpoint(4), hardState('h')]);
    const far = chain(3, { from: 500, salt: 5 });
    const undecided = block(11, mine[9]!.hash);
    await log.write([undecided, accepted(undecided), chunk(500, 0)]);
    await log.write([chunk(500, 2), reset(far[0]!)]);
    t.same([log.head, log.lowest], [500, 501]);
    t.equal(await log.readDecided(asHeight(5)), undefined);
    t.equal(await log.findBundle(digestsOf(5)[0]!), undefined);
    t.equal(await log.readStateChunk(asHeight(500), 1), undefined, 'a chunk of the old state does not shine through');
    t.match(await log.readCheckpoint(), { height: 500 });
    await log.write([far[1]!, decided(far[1]!)]);
    await settleUntil(log, async () => (await keysIn(kv, 'bundle')) <= 3 && (await keysIn(kv, 'accepted')) === 0);
    for (const name of ['decided', 'header', 'body', 'bundles'] as const) t.equal(await keysIn(kv, name), 1, name);
    t.same([await keysIn(kv, 'accepted'), await keysIn(kv, 'chunk'), await keysIn(kv, 'bundle')], [0, 2, 3]);
    const floor = log.position;
    await log.close();
    kv = await reopen();
    const opened = await openLogStore(kv, options({ floor }));
    log = opened.log;
    t.match(opened.recovered, { lowest: 501, checkpoint: { height: 500 }, stable: { height: 500 } });
    t.same([...opened.recovered.checkpoint!.chunks.keys()], [0, 2]);
    t.same(
      opened.recovered.decided.map((b) => Number(b.height)),
      [501],
    );
    await log.write([far[2]!, decided(far[2]!)]);
    await log.close();
  });

  await t.test('LOG-10 what is decided above stays if it links, and goes if it does not', async (t) => {
    const mine = chain(10);
    const make = async () => {
      const reopen = await fresh(t);
      const kv = await reopen();
      const { log } = await openLogStore(kv, options());
      await log.write([
        ...mine,
        ...mine.map((b) => decided(b)),
        chunk(2, 0),
        checkpoint(2),
        chunk(8, 0),
        checkpoint(8),
      ]);
      return { reopen, kv, log };
    };
    const linking = await make();
    await linking.log.write([chunk(6, 0), reset(mine[5]!)]);
    t.same([linking.log.head, linking.log.lowest], [10, 7]);
    t.match(await linking.log.readCheckpoint(), { height: 8 });
    await linking.log.close();
    const kept = await openLogStore(await linking.reopen(), options());
    t.match(kept.recovered, { lowest: 7, checkpoint: { height: 8 } });
    t.equal(kept.recovered.decided.length, 2);
    await kept.log.close();

    const foreign = await make();
    const other = block(6, mine[4]!.hash, { salt: 3 });
    await foreign.log.write([chunk(6, 0), reset(other)]);
    t.same([foreign.log.head, foreign.log.lowest], [6, 7]);
    t.equal(await foreign.log.findBundle(digestsOf(9)[0]!), undefined);
    const next = block(7, other.hash);
    await foreign.log.write([next, decided(next)]);
    await settleUntil(foreign.log, async () => (await keysIn(foreign.kv, 'body')) <= 1);
    t.same([await keysIn(foreign.kv, 'decided'), await keysIn(foreign.kv, 'body')], [1, 1]);
    await foreign.log.close();
    const cut = await openLogStore(await foreign.reopen(), options());
    t.match(cut.recovered, { lowest: 7, checkpoint: { height: 6 }, stable: { height: 6 } });
    t.equal(cut.recovered.decided.length, 1);
    await cut.log.close();
  });
}
