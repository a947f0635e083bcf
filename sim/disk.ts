// The disk of one replica: what a crash leaves is the records of completed writes. The rules are those of storage/ (LOG-6 to LOG-10), without
// its bytes: the store there waits for promises, and this one answers at once, inside one moment of virtual time.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { assert } from '../protocol/assert.ts';
import { STATE_CHUNKS } from '../protocol/ledger.ts';
import type { BlockBytes, LogPosition, LogRecord, RecoveredLog } from '../protocol/log.ts';
import type { Hash, View } from '../protocol/types.ts';
import { asHash, asHeight } from '../protocol/types.ts';

interface StoredCheckpoint {
  readonly place: Bytes;
  readonly certificate: Bytes | null;
  /** Where the state was taken from peers; null: the block at its height is here. */
  readonly header: Bytes | null;
}

interface Sibling {
  readonly hash: Hash;
  readonly bytes: BlockBytes;
}

function refill<Value>(
  map: Map<number, Value>,
  from: ReadonlyMap<number, Value>,
  copyOf = (value: Value): Value => value,
): void {
  map.clear();
  for (const [key, value] of from) map.set(key, copyOf(value));
}

const NO_BYTES = new Uint8Array(0);
const NO_HASH = new Uint8Array(32);

export class SimDisk {
  /** By height: siblings stand side by side until one is decided. */
  readonly #blocks = new Map<number, readonly Sibling[]>();
  readonly accepted = new Map<number, { readonly hash: Hash; readonly view: View }>();
  readonly decided = new Map<number, { readonly hash: Hash; readonly certificate: Bytes | null }>();
  /** Versions by rising height. */
  readonly chunks = new Map<number, { readonly height: number; readonly bytes: Bytes }[]>();
  readonly checkpoints = new Map<number, StoredCheckpoint>();
  hardState: Bytes | null = null;
  /** The lowest decided height that is still here. */
  lowest = 1;
  /** Blocks below head - retain are forgotten once a stable checkpoint lies above them. */
  retain = Number.POSITIVE_INFINITY;
  /** Batches written; the position that the guard remembers. */
  writes = 0;
  #head = 0;
  /** The newest two stable checkpoints, for which alone the state is whole. */
  #stable = 0;
  #previousStable = 0;

  /** A copy of its own, of this moment. How many blocks are kept is no part of it. */
  copy(): SimDisk {
    const copy = new SimDisk();
    copy.become(this);
    return copy;
  }

  /** What is on it is lost, and what is on the other stands here. */
  become(other: SimDisk): void {
    // What the maps hold is replaced, never changed in place; but for the lists of versions.
    refill(this.#blocks, other.#blocks);
    refill(this.accepted, other.accepted);
    refill(this.decided, other.decided);
    refill(this.chunks, other.chunks, (versions) => [...versions]);
    refill(this.checkpoints, other.checkpoints);
    this.hardState = other.hardState;
    this.lowest = other.lowest;
    this.writes = other.writes;
    this.#head = other.#head;
    this.#stable = other.#stable;
    this.#previousStable = other.#previousStable;
  }

  get head(): number {
    return this.#head;
  }

  get stable(): number {
    return this.#stable;
  }

  /** Blocks held, decided or not. */
  get blockCount(): number {
    let count = 0;
    for (const siblings of this.#blocks.values()) count += siblings.length;
    return count;
  }

  get position(): LogPosition {
    return { sequence: this.writes, hash: NO_HASH };
  }

  /** One synced batch. */
  write(records: readonly LogRecord[]): void {
    this.writes += 1;
    for (const record of records) this.#apply(record);
    this.#trim();
  }

  #apply(record: LogRecord): void {
    switch (record.type) {
      case 'block': {
        const { height, hash, bytes } = record;
        const others = (this.#blocks.get(height) ?? []).filter((sibling) => !equalBytes(sibling.hash, hash));
        this.#blocks.set(height, [...others, { hash, bytes }]);
        return;
      }
      case 'accepted':
        this.accepted.set(record.height, record);
        return;
      case 'hard-state':
        this.hardState = record.bytes;
        return;
      case 'decided': {
        const bytes = this.block(record.height, record.hash);
        assert(bytes !== undefined, 'a decided block is in the log');
        this.decided.set(record.height, record);
        this.#head = Math.max(this.#head, record.height);
        // LOG-6
        this.#blocks.set(record.height, [{ hash: record.hash, bytes }]);
        this.accepted.delete(record.height);
        return;
      }
      case 'forget-accepted':
        for (const height of [...this.accepted.keys()]) if (height <= record.height) this.accepted.delete(height);
        for (const height of [...this.#blocks.keys()])
          if (height > this.#head && height <= record.height) this.#blocks.delete(height);
        return;
      case 'state-chunk': {
        const versions = this.chunks.get(record.chunk) ?? [];
        versions.push(record);
        this.chunks.set(record.chunk, versions);
        return;
      }
      case 'checkpoint':
        this.checkpoints.set(record.height, { ...record, header: this.checkpoints.get(record.height)?.header ?? null });
        if (record.certificate !== null) this.#becameStable(record.height);
        return;
      case 'reset-to-checkpoint':
        for (const height of [...this.decided.keys()]) if (height <= record.height) this.#forget(height);
        this.checkpoints.set(record.height, record);
        this.lowest = record.height + 1;
        this.#head = Math.max(this.#head, record.height);
        for (const height of [...this.accepted.keys()]) if (height <= record.height) this.accepted.delete(height);
        for (const height of [...this.#blocks.keys()]) if (height <= record.height) this.#blocks.delete(height);
        // LOG-10: chunks included; those of the new state were written before.
        for (const [chunk, versions] of this.chunks)
          this.chunks.set(
            chunk,
            versions.filter((version) => version.height >= record.height),
          );
        this.#becameStable(record.height);
        return;
    }
  }

  /** LOG-9: what the last two stable checkpoints do not need goes. */
  #becameStable(height: number): void {
    if (height <= this.#stable) return;
    this.#previousStable = this.#stable;
    this.#stable = height;
    for (const [chunk, versions] of this.chunks) {
      const needed = versions.findLastIndex((version) => version.height <= this.#previousStable);
      if (needed > 0) this.chunks.set(chunk, versions.slice(needed));
    }
    for (const at of [...this.checkpoints.keys()]) if (at < this.#previousStable) this.checkpoints.delete(at);
  }

  /** LOG-8, all at once. */
  #trim(): void {
    const below = Math.min(this.#stable, this.#head - this.retain + 1);
    for (; this.lowest < below; this.lowest++) this.#forget(this.lowest);
  }

  #forget(height: number): void {
    this.decided.delete(height);
    this.#blocks.delete(height);
  }

  block(height: number, hash: Hash): BlockBytes | undefined {
    return this.#blocks.get(height)?.find((sibling) => equalBytes(sibling.hash, hash))?.bytes;
  }

  /** A chunk that was never written is empty. */
  chunkAt(height: number, chunk: number): Bytes {
    return this.chunks.get(chunk)?.findLast((version) => version.height <= height)?.bytes ?? NO_BYTES;
  }

  /** The header bytes of the block at a checkpoint's height. */
  headerAt(height: number): Bytes {
    const own = this.checkpoints.get(height)?.header;
    const decided = this.decided.get(height);
    return own ?? this.block(height, decided?.hash ?? asHash(NO_HASH))?.header ?? NO_BYTES;
  }

  recover(): RecoveredLog {
    const usable = [...this.checkpoints.keys()].filter((height) => height <= this.#head).sort((a, b) => b - a)[0];
    const from = usable ?? 0;
    const stored = usable === undefined ? undefined : this.checkpoints.get(usable);
    const stable = this.checkpoints.get(this.#stable);
    const chunks = new Map<number, Bytes>();
    for (let chunk = 0; chunk < STATE_CHUNKS; chunk++) {
      const bytes = this.chunkAt(from, chunk);
      if (bytes.length > 0) chunks.set(chunk, bytes);
    }
    const rising = <Value>(map: ReadonlyMap<number, Value>, above: number): [number, Value][] =>
      [...map].filter(([height]) => height > above).sort(([a], [b]) => a - b);
    return {
      position: this.position,
      hardState: this.hardState,
      checkpoint:
        stored === undefined
          ? null
          : {
              height: asHeight(from),
              place: stored.place,
              certificate: stored.certificate,
              header: this.headerAt(from),
              chunks,
            },
      stable:
        stable === undefined
          ? null
          : { height: asHeight(this.#stable), place: stable.place, certificate: stable.certificate },
      decided: rising(this.decided, from).map(([height, { hash, certificate }]) => ({
        height: asHeight(height),
        hash,
        certificate,
        bytes: this.block(height, hash)!, // written before it was decided
      })),
      accepted: rising(this.accepted, this.#head).map(([height, { hash, view }]) => ({
        height: asHeight(height),
        hash,
        view,
        bytes: this.block(height, hash)!, // written before it was accepted
      })),
      lowest: asHeight(this.lowest),
    };
  }
}
