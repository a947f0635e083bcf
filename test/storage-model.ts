// Random histories of the log with crashes at any point, and the model they are compared with: plain maps and arrays, which
// remember what every batch left behind.

import type { Test } from 'tap';
import { ascii, toHex } from '../crypto/bytes.ts';
import type { LogRecord, RecoveredLog } from '../protocol/log.ts';
import { asHash, type Hash } from '../protocol/types.ts';
import { StorageError } from '../storage/errors.ts';
import { type LogStore, openLogStore } from '../storage/log-store.ts';
import { MemoryDisk, type WriteFate } from '../storage/memory.ts';
import { fc } from './property.ts';
import {
  accepted,
  type BlockRecord,
  block,
  checkpoint,
  chunk,
  decided,
  hardState,
  options,
  reset,
} from './storage-compliance.ts';

const zero = asHash(new Uint8Array(32));

/** What the log should know after a batch. Copied for every batch, so that a crash can go back. */
interface Model {
  sequence: number;
  hardState: string | null;
  head: number;
  headHash: Hash;
  lowest: number;
  chunkFloor: number;
  /** By height: block and certificate. */
  decided: Map<number, { block: BlockRecord; certificate: string | null }>;
  blocks: Map<string, BlockRecord>;
  accepted: Map<number, { hash: string; view: number }>;
  checkpoints: Map<number, boolean>;
  /** By chunk, then height. */
  chunks: Map<number, Map<number, string>>;
}

const empty = (): Model => ({
  sequence: 0,
  hardState: null,
  head: 0,
  headHash: zero,
  lowest: 1,
  chunkFloor: 0,
  decided: new Map(),
  blocks: new Map(),
  accepted: new Map(),
  checkpoints: new Map(),
  chunks: new Map(),
});

const copy = (model: Model): Model => ({
  ...model,
  decided: new Map(model.decided),
  blocks: new Map(model.blocks),
  accepted: new Map(model.accepted),
  checkpoints: new Map(model.checkpoints),
  chunks: new Map([...model.chunks].map(([number, versions]) => [number, new Map(versions)])),
});

type Step =
  | { readonly type: 'propose'; readonly salt: number; readonly view: number }
  | { readonly type: 'decide'; readonly pick: number; readonly certificate: boolean }
  | { readonly type: 'hard-state'; readonly text: string }
  | { readonly type: 'checkpoint'; readonly stable: boolean; readonly chunks: readonly number[] }
  | { readonly type: 'reset'; readonly ahead: number; readonly chunks: readonly number[] };

type Crash = { readonly interrupted: 'lost' | 'kept' | 'torn'; readonly lose: number } | 'lying-disk' | 'clean';
/** Batches, and what ends the run of the process. */
type Life = { readonly batches: readonly (readonly Step[])[]; readonly end: Crash };

const chunksOf = fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 4 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ type: fc.constant('propose' as const), salt: fc.nat(3), view: fc.nat(5) }) },
  {
    weight: 8,
    arbitrary: fc.record({ type: fc.constant('decide' as const), pick: fc.nat(3), certificate: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('hard-state' as const),
      text: fc.string({ unit: 'grapheme-ascii', maxLength: 9 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('checkpoint' as const), stable: fc.boolean(), chunks: chunksOf }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('reset' as const),
      ahead: fc.integer({ min: 0, max: 5 }),
      chunks: chunksOf,
    }),
  },
);
const life: fc.Arbitrary<Life> = fc.record({
  batches: fc.array(fc.array(step, { minLength: 1, maxLength: 5 }), { maxLength: 14 }),
  end: fc.oneof(
    fc.record({ interrupted: fc.constantFrom('lost', 'kept', 'torn'), lose: fc.nat(3) }),
    fc.constant('lying-disk' as const),
    fc.constant('clean' as const),
  ),
});

/** Turns a step into records, as a core would emit them now, and applies them to the model. */
function play(model: Model, step: Step, counter: number): readonly LogRecord[] {
  switch (step.type) {
    case 'propose': {
      // Two of them share a body, and so do the other two.
      const bodySalt = step.salt >> 1;
      const made = block(model.head + 1, model.headHash, { salt: step.salt, bodySalt, bytes: 20 + bodySalt });
      model.blocks.set(toHex(made.hash), made);
      model.accepted.set(made.height, { hash: toHex(made.hash), view: step.view });
      return [made, accepted(made, step.view)];
    }
    case 'decide': {
      const candidates = [...model.blocks.values()].filter((b) => b.height === model.head + 1);
      const chosen = candidates[step.pick % Math.max(1, candidates.length)];
      if (chosen === undefined) return [];
      const certificate = step.certificate ? `c${chosen.height}` : null;
      for (const sibling of candidates) model.blocks.delete(toHex(sibling.hash));
      model.decided.set(chosen.height, { block: chosen, certificate });
      model.accepted.delete(chosen.height);
      model.head = chosen.height;
      model.headHash = chosen.hash;
      return [decided(chosen, certificate === null ? null : ascii(certificate))];
    }
    case 'hard-state':
      model.hardState = step.text;
      return [hardState(step.text)];
    case 'checkpoint': {
      const at = model.head;
      if (!model.decided.has(at) || model.checkpoints.has(at)) return [];
      model.checkpoints.set(at, step.stable);
      return [...writeChunks(model, at, step.chunks, counter), checkpoint(at, step.stable ? ascii('q') : null)];
    }
    case 'reset': {
      const at = model.head + step.ahead;
      const own = model.decided.get(at)?.block;
      if (at === 0 || at < model.lowest) return [];
      const to = own ?? block(at, zero, { salt: 77 });
      for (const versions of model.chunks.values())
        for (const height of [...versions.keys()]) if (height < at) versions.delete(height);
      model.decided.clear();
      for (const [hash, known] of [...model.blocks]) if (known.height <= at) model.blocks.delete(hash);
      for (const height of [...model.accepted.keys()]) if (height <= at) model.accepted.delete(height);
      model.checkpoints = new Map([[at, true]]);
      model.head = at;
      model.headHash = to.hash;
      model.lowest = at + 1;
      model.chunkFloor = at;
      return [...writeChunks(model, at, step.chunks, counter), reset(to)];
    }
  }
}

function writeChunks(model: Model, at: number, numbers: readonly number[], counter: number): readonly LogRecord[] {
  return numbers.map((number) => {
    const text = `${number}@${at}#${counter}`;
    const versions = model.chunks.get(number) ?? new Map<number, string>();
    model.chunks.set(number, versions.set(at, text));
    return chunk(at, number, text);
  });
}

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

/** The model's answer to "what is recovered", and the log's, in one form. */
function expected(model: Model): unknown {
  const stable = Math.max(0, ...[...model.checkpoints].filter(([, isStable]) => isStable).map(([height]) => height));
  const newest = Math.max(0, ...model.checkpoints.keys());
  const chunks = [...model.chunks]
    .map(([number, versions]) => {
      const at = Math.max(
        -1,
        ...[...versions.keys()].filter((height) => height <= newest && height >= model.chunkFloor),
      );
      return `${number}:${versions.get(at)}`;
    })
    .filter((line) => !line.endsWith('undefined'))
    .sort();
  return {
    sequence: model.sequence,
    hardState: model.hardState,
    checkpoint: newest === 0 ? null : { height: newest, chunks },
    stable,
    decided: [...model.decided.values()]
      .filter(({ block }) => block.height > newest)
      .map(({ block, certificate }) => `${block.height} ${toHex(block.hash)} ${certificate}`),
    accepted: [...model.accepted]
      .sort(([a], [b]) => a - b)
      .map(([height, { hash, view }]) => `${height} ${hash} ${view}`),
  };
}

function actual(recovered: RecoveredLog): unknown {
  const { checkpoint, hardState, stable } = recovered;
  return {
    sequence: recovered.position.sequence,
    hardState: hardState === null ? null : textOf(hardState),
    checkpoint:
      checkpoint === null
        ? null
        : {
            height: Number(checkpoint.height),
            chunks: [...checkpoint.chunks].map(([number, bytes]) => `${number}:${textOf(bytes)}`).sort(),
          },
    stable: Number(stable?.height ?? 0),
    decided: recovered.decided.map(
      ({ height, hash, certificate }) =>
        `${height} ${toHex(hash)} ${certificate === null ? null : textOf(certificate)}`,
    ),
    accepted: recovered.accepted.map(({ height, hash, view }) => `${height} ${toHex(hash)} ${view}`),
  };
}

function same(found: unknown, wanted: unknown, when: string): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${when}\nfound  ${a}\nwanted ${b}`);
}

/** Everything a reader may still ask for is what was written. */
async function readBack(log: LogStore, model: Model, retain: number | 'all'): Promise<void> {
  const stable = Math.max(0, ...[...model.checkpoints].filter(([, isStable]) => isStable).map(([height]) => height));
  const mayGo = retain === 'all' ? model.lowest : Math.max(model.lowest, Math.min(model.head - retain, stable));
  if (log.lowest > mayGo) throw new Error(`pruned to ${log.lowest}, allowed ${mayGo}`);
  same(Number(log.head), model.head, 'head');
  const query = { from: log.lowest, to: log.head, bytesMax: 1 << 30 };
  const { blocks } = await log.readDecidedRange(query);
  const wanted = [...model.decided.values()].filter(({ block }) => block.height >= log.lowest);
  same(
    blocks.map(({ hash, bytes }) => `${toHex(hash)} ${toHex(bytes.body)}`),
    wanted.map(({ block }) => `${toHex(block.hash)} ${toHex(block.bytes.body)}`),
    'blocks',
  );
  for (const known of model.blocks.values()) {
    const found = await log.readBlock(known.height, known.hash);
    if (found === undefined) throw new Error(`undecided block ${known.height} is gone`);
  }
  same(Number((await log.readCheckpoint())?.height ?? 0), stable, 'stable checkpoint');
}

async function history(lives: readonly Life[], retainBlocks: number | 'all'): Promise<void> {
  // What the disk does with the write at hand; a promise that never settles is a write under way when the process dies.
  let fate: WriteFate | Promise<WriteFate> = 'durable';
  const disk = new MemoryDisk({ onWrite: () => fate });
  let past: Model[] = [empty()];
  let floor = { sequence: 0, hash: new Uint8Array(32) as Uint8Array };
  let counter = 0;
  for (const { batches, end } of lives) {
    fate = 'durable';
    const { log, recovered } = await openLogStore(disk.open(), options({ floor, retainBlocks, recentBytesMax: 300 }));
    same(actual(recovered), expected(past.at(-1)!), 'recovered');
    const lies = end === 'lying-disk' ? Math.floor(batches.length / 2) : batches.length;
    for (const [i, steps] of batches.entries()) {
      const model = copy(past.at(-1)!);
      counter += 1;
      const records = steps.flatMap((one) => play(model, one, counter));
      if (records.length === 0) continue;
      model.sequence += 1;
      const last = i === batches.length - 1 && typeof end === 'object';
      if (i >= lies) fate = 'unsynced';
      if (last) fate = new Promise<WriteFate>(() => {});
      const writing = log.write(records);
      if (last) {
        // Let it get as far as the disk, where it stays.
        await new Promise((resolve) => setImmediate(resolve));
        writing.catch(() => {});
        past.push(model);
        break;
      }
      const before = log.position;
      const position = await writing;
      same(position.sequence, model.sequence, 'sequence');
      // The guard's floor is the position before the batch, as when both write at the same time; sometimes it lags more.
      if (i % 3 !== 1 && i < lies) {
        floor = { sequence: before.sequence, hash: before.hash };
        log.moveFloor(before);
      }
      past.push(model);
      await readBack(log, model, retainBlocks);
    }
    past = await crash(disk, log, past, end, floor.sequence);
  }
  const { recovered, log } = await openLogStore(disk.open(), options({ floor, retainBlocks }));
  same(actual(recovered), expected(past.at(-1)!), 'recovered at the end');
  await log.close();
}

/** Ends the process, and says what the disk may hold now. */
async function crash(disk: MemoryDisk, log: LogStore, past: Model[], end: Crash, floor: number): Promise<Model[]> {
  const durable = log.position.sequence;
  if (end === 'clean') {
    await log.close();
    return past;
  }
  if (end === 'lying-disk') {
    disk.crash();
    const lost = disk.open();
    // What is there is for the log to say; it must be one of the states it went through, at or above the floor.
    const { recovered } = await openLogStore(lost, options());
    await lost.close();
    if (recovered.position.sequence < floor) throw new Error('a synced write was lost');
    return past.filter((model) => model.sequence <= recovered.position.sequence);
  }
  const written = past.filter((model) => model.sequence <= durable);
  if (past.length > written.length && end.interrupted === 'torn') {
    await checkTorn(disk, past);
    return written;
  }
  disk.crash(end.interrupted);
  const interrupted = end.interrupted === 'kept' ? past : written;
  const lose = Math.min(end.lose, interrupted.at(-1)!.sequence - floor);
  disk.loseLast(lose);
  return interrupted.slice(0, interrupted.length - lose);
}

/** Half of a batch: the log refuses the directory, unless the other half changed nothing. Then it is taken back by hand. */
async function checkTorn(disk: MemoryDisk, past: readonly Model[]): Promise<void> {
  disk.crash('torn');
  const kv = disk.open();
  try {
    const { recovered } = await openLogStore(kv, options());
    same(actual(recovered), expected(past.at(-1)!), 'half of a batch was taken for whole');
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== 'storage-damaged') throw error;
  } finally {
    await kv.close();
  }
  disk.loseLast(1);
}

export async function randomHistories(t: Test): Promise<void> {
  for (const retainBlocks of ['all', 2] as const) {
    await fc.assert(
      fc.asyncProperty(fc.array(life, { minLength: 1, maxLength: 5 }), (lives) => history(lives, retainBlocks)),
      { numRuns: 300 },
    );
    t.pass(`300 histories, retaining ${retainBlocks}`);
  }
}
