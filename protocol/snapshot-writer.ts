// The writing half of snapshots; what they are is told in snapshot.ts.

import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { Frontier } from '../crypto/merkle.ts';

import { InvariantViolation } from './assert.ts';
import type { Block } from './block.ts';
import type { Bundle, SignedBundle } from './bundle.ts';
import { kindNumbers } from './codec.ts';
import type { ReplicaMessage, Signed } from './messages.ts';
import { GrowingScribe } from './wire/cursor.ts';

/** Of the form of a snapshot; what stands in it is a matter of the software that wrote it. */
export const SNAPSHOT_VERSION = 1;
/** What a composite value is; the first element of its array. */
export const SORT = {
  array: 0,
  object: 1,
  map: 2,
  set: 3,
  undefined: 4,
  /** A number that is no integer from 0 to 2^53 - 1: the 8 bytes of its double, big-endian. */
  double: 5,
  bundle: 6,
  block: 7,
  signed: 8,
  proposal: 9,
  frontier: 10,
} as const;

/** @throws InvariantViolation where something in the value cannot be written: a bug, found by the first snapshot of it. */
export function encodeSnapshot(value: unknown): Bytes {
  return new SnapshotWriter().write(value);
}

/** What to do with objects of the same keys in the same order: found once for each such order. */
interface Shape {
  readonly sort: 'bundle' | 'block' | 'signed' | 'object';
  /** As they stand in the object, and sorted. */
  readonly found: readonly string[];
  readonly keys: readonly string[];
  /** Its place in the list of shapes; of a special one none. */
  readonly at: number;
}

/**
 * Writes MessagePack without building it first: at a full pool the arrays of a value for each bundle were most of the work (measured, Node 20.20:
 * 16,000 bundles in 35 ms and not in 300). What is referred to stands behind what refers to it.
 */
class SnapshotWriter {
  readonly #out = new GrowingScribe();
  readonly #shapes: (readonly string[])[] = [];
  readonly #bundles: SignedBundle[] = [];
  readonly #blocks: Block[] = [];
  /** Some dozens: looked through faster than a name for them is made. */
  readonly #known: Shape[] = [];
  /** By the first 30 bits of their digests. */
  readonly #bundlesOf = new Map<number, number[]>();
  readonly #blockAt = new Map<string, number>();

  write(root: unknown): Bytes {
    const out = this.#out.array(5).uint(SNAPSHOT_VERSION);
    this.#value(root);
    // Blocks first: they may refer to bundles that nothing else does.
    const blocks = new GrowingScribe().array(this.#blocks.length);
    for (const { headerBytes, bundles } of this.#blocks) {
      blocks.array(2).bin(headerBytes).array(bundles.length);
      for (const bundle of bundles) blocks.uint(this.#bundle(bundle));
    }
    out.raw(blocks.done()).array(this.#bundles.length);
    for (const { payload, signature } of this.#bundles) out.array(2).bin(payload).bin(signature);
    out.array(this.#shapes.length);
    for (const keys of this.#shapes) {
      out.array(keys.length);
      for (const key of keys) out.str(key);
    }
    return out.done();
  }

  #value(value: unknown): void {
    const out = this.#out;
    switch (typeof value) {
      case 'boolean':
        out.tag(value ? 0xc3 : 0xc2);
        return;
      case 'string':
        out.str(value);
        return;
      case 'number':
        if (Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0)) out.uint(value);
        else out.array(2).uint(SORT.double).bin(double(value));
        return;
      case 'undefined':
        out.array(1).uint(SORT.undefined);
        return;
      case 'object':
        if (value === null) out.tag(0xc0);
        else if (value instanceof Uint8Array) out.bin(value);
        else this.#composite(value);
        return;
      default:
        throw new InvariantViolation(`a snapshot has no place for a ${typeof value}`);
    }
  }

  #composite(value: object): void {
    const out = this.#out;
    if (Array.isArray(value)) {
      out.array(1 + value.length).uint(SORT.array);
      for (const each of value) this.#value(each);
    } else if (value instanceof Map) {
      out.array(1 + 2 * value.size).uint(SORT.map);
      for (const [key, each] of value) {
        this.#value(key);
        this.#value(each);
      }
    } else if (value instanceof Set) {
      out.array(1 + value.size).uint(SORT.set);
      for (const each of value) this.#value(each);
    } else if (value instanceof Frontier) {
      const { size, hashes } = value.state();
      out.array(3).uint(SORT.frontier).uint(size).array(hashes.length);
      for (const hash of hashes) out.bin(hash);
    } else this.#object(value);
  }

  #object(value: object): void {
    const out = this.#out;
    const { sort, keys, at } = this.#shape(value);
    switch (sort) {
      case 'bundle':
        out
          .array(2)
          .uint(SORT.bundle)
          .uint(this.#bundle(value as SignedBundle)); // of this shape
        return;
      case 'block':
        out
          .array(2)
          .uint(SORT.block)
          .uint(this.#block(value as Block)); // likewise
        return;
      case 'signed':
        this.#signed(value as Signed<ReplicaMessage>); // likewise
        return;
      default:
        out
          .array(2 + keys.length)
          .uint(SORT.object)
          .uint(at);
        // The cast: any object can be read by its own keys.
        for (const key of keys) this.#value((value as Readonly<Record<string, unknown>>)[key]);
    }
  }

  #shape(value: object): Shape {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null)
      throw new InvariantViolation(`a snapshot has no place for a ${value.constructor.name}`);
    const found = Object.keys(value);
    for (const shape of this.#known) if (isSame(shape.found, found)) return shape;
    const keys = [...found].sort();
    const sorted = keys.join();
    const sort = SPECIAL.get(sorted) ?? 'object';
    let at = this.#shapes.findIndex((other) => isSame(other, keys));
    if (sort === 'object' && at < 0) at = this.#shapes.push(keys) - 1;
    const shape = { sort, found, keys, at };
    this.#known.push(shape);
    return shape;
  }

  /** By what it is and not by which object: who shares one with whom is nothing that matters. */
  #bundle(bundle: SignedBundle): number {
    const { digest, signature } = bundle;
    const start = (digest[0]! << 22) | (digest[1]! << 14) | (digest[2]! << 6) | (digest[3]! >> 2);
    const known = this.#bundlesOf.get(start);
    // Two signatures of one payload are two bundles.
    const same = known?.find((at) => isEqual(this.#bundles[at]!, digest, signature));
    if (same !== undefined) return same;
    const at = this.#bundles.push(bundle) - 1;
    if (known === undefined) this.#bundlesOf.set(start, [at]);
    else known.push(at);
    return at;
  }

  #block(block: Block): number {
    const name = toHex(block.hash);
    let at = this.#blockAt.get(name);
    if (at === undefined) {
      at = this.#blocks.push(block) - 1;
      this.#blockAt.set(name, at);
    }
    return at;
  }

  #signed({ sender, message, payload, signature }: Signed<ReplicaMessage>): void {
    const out = this.#out.array(5);
    if (message.kind === 'pre-prepare')
      out.uint(SORT.proposal).uint(sender).bin(signature).uint(message.view).uint(this.#block(message.block));
    else out.uint(SORT.signed).uint(sender).bin(signature).uint(kindNumbers[message.kind]).bin(payload);
  }
}

const isSame = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((key, i) => key === b[i]);

const isEqual = (bundle: SignedBundle, digest: Bytes, signature: Bytes): boolean =>
  equalBytes(bundle.digest, digest) && equalBytes(bundle.signature, signature);

const shapeOf = (...keys: readonly string[]): string => [...keys].sort().join();
const bundleKeys = ['client', 'session', 'sequence', 'validUntil', 'transactions'] as const satisfies (keyof Bundle)[];
const SPECIAL: ReadonlyMap<string, Shape['sort']> = new Map([
  [shapeOf(...(['header', 'headerBytes', 'hash', 'bundles'] satisfies (keyof Block)[])), 'block'],
  [shapeOf(...(['sender', 'message', 'payload', 'signature'] satisfies (keyof Signed<unknown>)[])), 'signed'],
  [
    shapeOf(...bundleKeys, ...(['payload', 'digest', 'signature', 'leaves'] satisfies (keyof SignedBundle)[])),
    'bundle',
  ],
]);

function double(value: number): Bytes {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value);
  return bytes;
}
