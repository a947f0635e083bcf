// Bodies that come many at a time lie in files of their own beside the engine, which keeps where: they are written once, and not into its log, a
// table and every table that this one is merged into. What comes in small batches, as all does that an acknowledgement waits for, stays in the
// engine and takes one sync; a batch with files takes two, the bytes first and then what refers to them. docs/adr/0002-storage.md.

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Bytes, concat } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { LayoutReader, LayoutWriter } from '../protocol/layout.ts';
import { BodyFile, makeStage, type Part, readParts } from './body-file.ts';
import { readError, syncDirectory, UnderWay, writeError } from './files.ts';
import type { KeyValueStore, KvEntry, KvOp, KvRange } from './kv.ts';
import { BODY_KEY_BYTES, column, damaged, keys, placeOf, seal, unseal } from './layout.ts';

/** Bytes of bodies in one batch that are worth a sync of their own. */
export const bulkBytesMin = 2 << 20;
/** A file that is so long gets no more. */
const fileBytesMax = 64 << 20;

/** Above every column of the log (layout.ts): one record for each file. */
const FILES = 0xff;
/** Behind a body's key: the key of its place, so that the two lie side by side. */
const PLACE = Uint8Array.of(1);
/** Nine digits count: a number is four bytes in the engine. */
const fileNamePattern = /^bodies-0(\d{9})$/;

interface Place extends Part {
  readonly file: number;
}

/** The heights of the bodies in a file. */
interface Heights {
  readonly lowest: number;
  readonly highest: number;
}

interface BulkParts {
  readonly engine: KeyValueStore;
  readonly directory: string;
  /** Without it bulkBytesMin. */
  readonly bytesMin: number | undefined;
}

/** The engine of this directory, with files of bodies beside it. Closes the engine where it throws: `storage-damaged`, or what reading throws. */
export async function withBulk(parts: BulkParts): Promise<KeyValueStore> {
  const { engine, directory } = parts;
  try {
    const known = new Map<number, Heights>();
    for await (const { key, value } of engine.range({ gte: Uint8Array.of(FILES), lt: fileKey(0xffffffff) })) {
      const { file, heights } = decodeFile(key, value);
      known.set(file, heights);
    }
    const found = (await readdir(directory)).flatMap((name) => fileNamePattern.exec(name)?.[1] ?? []).map(Number);
    const orphans = new Set(found.filter((file) => !known.has(file)));
    return new BulkStore(parts, known, orphans);
  } catch (error) {
    await engine.close();
    throw error;
  }
}

class BulkStore implements KeyValueStore {
  readonly name: string;
  readonly #engine: KeyValueStore;
  readonly #directory: string;
  readonly #bytesMin: number;
  /** Files that the engine has a record of, or is to have with the batch under way. */
  readonly #known: Map<number, Heights>;
  /** Files of batches that a crash interrupted: nothing refers to them. They go before another file comes. */
  readonly #orphans: Set<number>;
  /** Files that are gone: their records go with the next batch. */
  #gone: number[] = [];
  /** Where the next bodies go; null: into a new file. One that was written before this start gets no more. */
  #file: BodyFile | null = null;
  /** From the first file on. */
  #stage: Bytes | null = null;
  #next: number;
  #writing = false;
  readonly #underWay = new UnderWay();

  constructor(parts: BulkParts, known: Map<number, Heights>, orphans: Set<number>) {
    this.name = parts.engine.name;
    this.#engine = parts.engine;
    this.#directory = parts.directory;
    this.#bytesMin = parts.bytesMin ?? bulkBytesMin;
    this.#known = known;
    this.#orphans = orphans;
    this.#next = Math.max(0, ...known.keys(), ...orphans) + 1;
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    return (await this.getMany([key]))[0];
  }

  /** A body never changes and lies on one side, so two looks are as good as one moment. */
  getMany(keys: readonly Bytes[]): Promise<readonly (Bytes | undefined)[]> {
    return this.#underWay.track(async () => {
      const values = await this.#engine.getMany(keys);
      if (this.#known.size === 0) return values;
      const missing = keys.filter((key, i) => values[i] === undefined && isBody(key)).map(placeKey);
      if (missing.length === 0) return values;
      const places = await this.#engine.getMany(missing);
      const bodies = await this.#read(places.map((value, i) => value && decodePlace(missing[i]!, value)));
      const next = bodies.values();
      return values.map((value, i) => (value === undefined && isBody(keys[i]!) ? next.next().value : value));
    });
  }

  async write(ops: readonly KvOp[]): Promise<void> {
    assert(!this.#writing, 'one batch in flight at a time');
    this.#writing = true;
    try {
      await this.#underWay.track(() => this.#write(ops));
    } finally {
      this.#writing = false;
    }
  }

  async *range(range: KvRange): AsyncIterable<KvEntry> {
    for await (const { key, value } of this.#engine.range(range)) {
      if (!isPlace(key)) yield { key, value };
      else if (range.values === false) yield { key: bodyKey(key), value };
      else {
        const [body] = await this.#underWay.track(() => this.#read([decodePlace(key, value)]));
        // Gone since the range began.
        if (body !== undefined) yield { key: bodyKey(key), value: body };
      }
    }
  }

  async reclaim(gte: Bytes, lt: Bytes): Promise<void> {
    await this.#engine.reclaim(gte, lt);
    await this.#underWay.track(() => this.#dropFiles());
  }

  sizeBytes(): Promise<number> {
    return this.#engine.sizeBytes();
  }

  close(): Promise<void> {
    return this.#underWay.close(async () => {
      await this.#leaveFile();
      await this.#engine.close();
    });
  }

  async #write(ops: readonly KvOp[]): Promise<void> {
    const forget = this.#gone.splice(0).map((file): KvOp => ({ type: 'del', key: fileKey(file) }));
    const bodies = ops.flatMap((op) => (op.type === 'put' && isBody(op.key) ? [op] : []));
    const bytes = bodies.reduce((sum, { value }) => sum + value.length, 0);
    if (bytes === 0 || bytes < this.#bytesMin) {
      await this.#engine.write([...this.#withPlaces(ops), ...forget]);
      return;
    }
    // [LOG-14] Durable before what refers to it.
    const { file, start } = await this.#append(bodies.map(({ value }) => value));
    let at = start;
    let heights = this.#known.get(file.number);
    const placed = this.#withPlaces(ops, true).map((op) => {
      if (op.type === 'del' || !isBody(op.key)) return op;
      const place = { file: file.number, at, bytes: op.value.length };
      at += op.value.length;
      heights = including(heights, heightOf(op.key));
      return putPlace(op.key, place);
    });
    assert(heights !== undefined, 'a batch of bodies has a body');
    this.#known.set(file.number, heights);
    // First: without its record a file is nobody's, and goes.
    await this.#engine.write([putFile(file.number, heights), ...placed, ...forget]);
    if (file.bytes >= fileBytesMax) await this.#leaveFile();
  }

  /** A body that is deleted may lie on either side. */
  #withPlaces(ops: readonly KvOp[], always = this.#known.size > 0): readonly KvOp[] {
    if (!always) return ops;
    return ops.flatMap((op) => (op.type === 'del' && isBody(op.key) ? [op, { ...op, key: placeKey(op.key) }] : [op]));
  }

  /** Durable when it resolves. */
  async #append(values: readonly Bytes[]): Promise<{ readonly file: BodyFile; readonly start: number }> {
    try {
      this.#file ??= await this.#begin();
      return { file: this.#file, start: await this.#file.append(values) };
    } catch (error) {
      const file = this.#file;
      await this.#leaveFile().catch(() => {});
      // A disk that is full must not get fuller with every start.
      if (file !== null && !this.#known.has(file.number)) await this.#unlink(file.number).catch(() => {});
      throw writeError(error);
    }
  }

  async #begin(): Promise<BodyFile> {
    for (const file of this.#orphans) {
      await this.#unlink(file);
      this.#orphans.delete(file);
    }
    // Each start begins one: without this a node that is often started keeps those that retention has emptied.
    await this.#dropFiles();
    const number = this.#next++;
    this.#stage ??= makeStage();
    const file = await BodyFile.create(this.#pathOf(number), number, this.#stage);
    try {
      await syncDirectory(this.#directory);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #leaveFile(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  async #read(places: readonly (Place | undefined)[]): Promise<readonly (Bytes | undefined)[]> {
    const out: (Bytes | undefined)[] = places.map(() => undefined);
    const files = new Map<number, number[]>();
    for (const [i, place] of places.entries()) {
      if (place === undefined) continue;
      const group = files.get(place.file);
      if (group === undefined) files.set(place.file, [i]);
      else group.push(i);
    }
    for (const [file, group] of files) {
      const parts = group.map((i) => places[i]!);
      const bodies = await readParts(this.#pathOf(file), parts).catch((error: unknown) => {
        throw readError(error);
      });
      for (const [j, i] of group.entries()) out[i] = bodies?.[j];
    }
    return out;
  }

  /**
   * The oldest files, while no body of their heights is left; the one that is written to stays. The map itself is walked: what is written meanwhile
   * has changed the heights of the file that was written to.
   */
  async #dropFiles(): Promise<void> {
    for (const [file, { lowest, highest }] of this.#known) {
      if (file === this.#file?.number || (await this.#hasBodies(lowest, highest))) return;
      await this.#unlink(file);
      this.#known.delete(file);
      this.#gone.push(file);
    }
  }

  async #hasBodies(lowest: number, highest: number): Promise<boolean> {
    const range = { gte: keys.at('body', lowest), lt: keys.at('body', highest + 1), values: false, limit: 1 };
    for await (const _ of this.#engine.range(range)) return true;
    return false;
  }

  #unlink(file: number): Promise<void> {
    return rm(this.#pathOf(file), { force: true });
  }

  #pathOf(file: number): string {
    return join(this.#directory, `bodies-${String(file).padStart(10, '0')}`);
  }
}

function isBody(key: Bytes): boolean {
  return key[0] === column.body && key.length === BODY_KEY_BYTES;
}

function isPlace(key: Bytes): boolean {
  return key[0] === column.body && key.length === BODY_KEY_BYTES + PLACE.length;
}

function placeKey(key: Bytes): Bytes {
  return concat(key, PLACE);
}

function bodyKey(key: Bytes): Bytes {
  return key.subarray(0, BODY_KEY_BYTES);
}

function heightOf(key: Bytes): number {
  return placeOf(key)?.number ?? 0;
}

function including(heights: Heights | undefined, height: number): Heights {
  if (heights === undefined) return { lowest: height, highest: height };
  return { lowest: Math.min(heights.lowest, height), highest: Math.max(heights.highest, height) };
}

function putPlace(body: Bytes, { file, at, bytes }: Place): KvOp {
  const key = placeKey(body);
  return { type: 'put', key, value: seal(key, new LayoutWriter(12).u32(file).u32(at).u32(bytes).done()).value };
}

function decodePlace(key: Bytes, value: Bytes): Place {
  const payload = unseal(key, value);
  if (payload.length !== 12) throw damaged(bodyKey(key), 'length');
  const reader = new LayoutReader(payload);
  return { file: reader.u32(), at: reader.u32(), bytes: reader.u32() };
}

function fileKey(file: number): Bytes {
  return new LayoutWriter(5).u8(FILES).u32(file).done();
}

function putFile(file: number, { lowest, highest }: Heights): KvOp {
  const key = fileKey(file);
  return { type: 'put', key, value: seal(key, new LayoutWriter(16).u64(lowest).u64(highest).done()).value };
}

function decodeFile(key: Bytes, value: Bytes): { readonly file: number; readonly heights: Heights } {
  const payload = unseal(key, value);
  if (key.length !== 5 || payload.length !== 16) throw damaged(key, 'length');
  const reader = new LayoutReader(payload);
  const number = new LayoutReader(key.subarray(1));
  return { file: number.u32(), heights: { lowest: reader.u64(), highest: reader.u64() } };
}
