// The store in memory, for the simulator and the tests: a disk that outlives its process and breaks the way it is told to. It has
// no clock and no randomness of its own; whoever plans the faults decides.

import type { Bytes } from '../crypto/bytes.ts';
import { compareBytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { StorageError } from './errors.ts';
import type { KeyValueStore, KvEntry, KvOp, KvRange } from './kv.ts';

/**
 * What becomes of one write.
 * - `durable`: as the port says.
 * - `unsynced`: acknowledged, and lost at the next crash: a disk that lies.
 * - `fail`: rejected, nothing of it kept.
 * - `fail-kept`: rejected, and yet it is there after a restart: a sync that failed after the data arrived.
 */
export type WriteFate = 'durable' | 'unsynced' | 'fail' | 'fail-kept';

export interface MemoryFaults {
  /** Asked at every write, numbered from 1; a promise makes the disk slow. Without it every write is durable. */
  readonly onWrite?: (write: { readonly number: number; readonly bytes: number }) => WriteFate | Promise<WriteFate>;
  /** Keys and values at most; a write beyond fails like a full disk. */
  readonly capacityBytes?: number;
}

/** What becomes of a write that the crash interrupts. `torn`: half of its operations are there, as no sound engine would leave it. */
export type Interrupted = 'lost' | 'kept' | 'torn';

/** How many durable batches can be taken back with loseLast. */
const undoBatchesMax = 64;

type Undo = readonly { readonly key: Bytes; readonly before: Bytes | undefined }[];

/** The medium. One process at a time has it open. */
export class MemoryDisk {
  readonly faults: MemoryFaults;
  readonly #columns = new Map<number, Column>();
  readonly #undo: Undo[] = [];
  /** How many of the newest entries of `#undo` were acknowledged without being durable. */
  #unsynced = 0;
  #store: MemoryStore | undefined;
  #bytes = 0;
  #writes = 0;

  constructor(faults: MemoryFaults = {}) {
    this.faults = faults;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Writes begun since the disk was made. */
  get writes(): number {
    return this.#writes;
  }

  /** Throws `storage-locked` while another store has it open. */
  open(): KeyValueStore {
    if (this.#store !== undefined) throw new StorageError('storage-locked', { directory: 'memory' });
    this.#store = new MemoryStore(this, () => {
      this.#store = undefined;
    });
    return this.#store;
  }

  /** The process ends here: nothing of it runs on, unsynced writes are gone, and the disk can be opened again. */
  crash(interrupted: Interrupted = 'lost'): void {
    const ops = this.#store?.abandon();
    this.#store = undefined;
    for (; this.#unsynced > 0; this.#unsynced--) this.#takeBack();
    if (ops === undefined || interrupted === 'lost') return;
    this.commit(interrupted === 'kept' ? ops : ops.slice(0, ops.length >> 1), true);
  }

  /** Durable batches vanish without a word, newest first: a write-ahead log cut or deleted. At most 64. */
  loseLast(batches: number): void {
    for (let i = 0; i < batches && this.#undo.length > 0; i++) this.#takeBack();
  }

  /** Everything is gone. */
  wipe(): void {
    this.#columns.clear();
    this.#undo.length = 0;
    this.#bytes = 0;
  }

  /** Flips a bit of the value under a key; false where there is none or the value is empty. */
  flipBit(key: Bytes, bit: number): boolean {
    const value = this.read(key);
    if (value === undefined || value.length === 0) return false;
    const at = Math.floor(bit / 8) % value.length;
    const rotten = Uint8Array.from(value);
    rotten[at] = rotten[at]! ^ (1 << (bit % 8));
    this.#set(key, rotten);
    return true;
  }

  /** One key vanishes. */
  lose(key: Bytes): void {
    this.#set(key, undefined);
  }

  /** @internal for the store */
  begin(): number {
    this.#writes += 1;
    return this.#writes;
  }

  /** @internal for the store */
  commit(ops: readonly KvOp[], durable: boolean): void {
    const undo = ops.map((op) => {
      const before = this.#set(op.key, op.type === 'put' ? op.value : undefined);
      return { key: op.key, before };
    });
    this.#undo.push(undo);
    // A sync covers everything written before it, what was acknowledged too early included.
    this.#unsynced = durable ? 0 : this.#unsynced + 1;
    if (this.#undo.length > undoBatchesMax + this.#unsynced) this.#undo.shift();
  }

  /** @internal for the store */
  read(key: Bytes): Bytes | undefined {
    return this.#columns.get(key[0]!)?.values.get(textOf(key))?.value;
  }

  /** @internal for the store: entries of the range, ordered, as of now. */
  scan({ gte, lt, reverse, limit }: KvRange): readonly KvEntry[] {
    const out: KvEntry[] = [];
    const bytes = [...this.#columns.keys()].filter((byte) => byte >= gte[0]! && byte <= lt[0]!).sort((a, b) => a - b);
    for (const byte of bytes) {
      for (const entry of sorted(this.#columns.get(byte)!)) {
        if (compareBytes(entry.key, gte) >= 0 && compareBytes(entry.key, lt) < 0) out.push(entry);
      }
    }
    if (reverse === true) out.reverse();
    return limit === undefined ? out : out.slice(0, limit);
  }

  /** @internal for the store: bytes that this batch would add, at most. */
  growth(ops: readonly KvOp[]): number {
    let bytes = 0;
    for (const op of ops) {
      const before = this.read(op.key);
      if (before !== undefined) bytes -= op.key.length + before.length;
      if (op.type === 'put') bytes += op.key.length + op.value.length;
    }
    return bytes;
  }

  #takeBack(): void {
    const undo = this.#undo.pop() ?? [];
    for (const { key, before } of undo.toReversed()) this.#set(key, before);
  }

  #set(key: Bytes, value: Bytes | undefined): Bytes | undefined {
    const byte = key[0]!;
    let held = this.#columns.get(byte);
    if (held === undefined) {
      held = { values: new Map(), order: undefined };
      this.#columns.set(byte, held);
    }
    const text = textOf(key);
    const before = held.values.get(text)?.value;
    if (before !== undefined) this.#bytes -= key.length + before.length;
    if (value === undefined) held.values.delete(text);
    else {
      held.values.set(text, { key, value });
      this.#bytes += key.length + value.length;
    }
    held.order = undefined;
    return before;
  }
}

/** The keys of one first byte; ordered only when a range is asked for, since most columns never are. */
interface Column {
  readonly values: Map<string, KvEntry>;
  order: readonly KvEntry[] | undefined;
}

function sorted(held: Column): readonly KvEntry[] {
  held.order ??= [...held.values.values()].sort((a, b) => compareBytes(a.key, b.key));
  return held.order;
}

class MemoryStore implements KeyValueStore {
  readonly name = 'memory';
  readonly #disk: MemoryDisk;
  readonly #release: () => void;
  #inFlight: readonly KvOp[] | undefined;
  #closed = false;

  constructor(disk: MemoryDisk, release: () => void) {
    this.#disk = disk;
    this.#release = release;
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    this.#assertOpen();
    return this.#disk.read(key);
  }

  async getMany(keys: readonly Bytes[]): Promise<readonly (Bytes | undefined)[]> {
    this.#assertOpen();
    return keys.map((key) => this.#disk.read(key));
  }

  async write(ops: readonly KvOp[]): Promise<void> {
    this.#assertOpen();
    assert(this.#inFlight === undefined, 'one batch in flight at a time');
    if (ops.length === 0) return;
    this.#inFlight = ops;
    const { onWrite, capacityBytes } = this.#disk.faults;
    const number = this.#disk.begin();
    const bytes = ops.reduce((sum, op) => sum + op.key.length + (op.type === 'put' ? op.value.length : 0), 0);
    // Never durable before the caller can look up: a caller that does not wait would pass here and fail on a disk.
    const fate = await (onWrite?.({ number, bytes }) ?? 'durable');
    // A crash came first: the caller is gone, and crash() has dealt with the operations.
    if (this.#closed) throw new StorageError('storage-closed');
    this.#inFlight = undefined;
    const room = (capacityBytes ?? Number.POSITIVE_INFINITY) - this.#disk.bytes;
    if (this.#disk.growth(ops) > room) throw new StorageError('storage-write-failed', { reason: 'disk full' });
    if (fate !== 'fail') this.#disk.commit(ops, fate !== 'unsynced');
    if (fate === 'fail' || fate === 'fail-kept') {
      throw new StorageError('storage-write-failed', { reason: 'sync failed' });
    }
  }

  async *range(range: KvRange): AsyncIterable<KvEntry> {
    this.#assertOpen();
    for (const { key, value } of this.#disk.scan(range)) yield { key, value: range.values === false ? nothing : value };
  }

  async reclaim(): Promise<void> {
    this.#assertOpen();
  }

  async sizeBytes(): Promise<number> {
    this.#assertOpen();
    return this.#disk.bytes;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
  }

  /** What was in flight when the process died. */
  abandon(): readonly KvOp[] | undefined {
    this.#closed = true;
    const ops = this.#inFlight;
    this.#inFlight = undefined;
    return ops;
  }

  #assertOpen(): void {
    if (this.#closed) throw new StorageError('storage-closed');
  }
}

const nothing = new Uint8Array(0);

/** Keys are at most 64 bytes, so spreading them into arguments is safe. */
function textOf(key: Bytes): string {
  return String.fromCharCode(...key);
}
