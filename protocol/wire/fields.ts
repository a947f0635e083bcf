// The typed reader over decoded MessagePack: arrays of fields by position, each with its bounds (WIRE-8).
//
// A read that fails answers a harmless value and notes the first problem; whoever reads a whole message asks once, at the end. So a
// decoder reads like the table in docs/wire.md, and no bytes make it throw.

import type { Bytes } from '../../crypto/bytes.ts';
import type { WireValue } from '../msgpack.ts';
import {
  asEpoch,
  asHash,
  asHeight,
  asReplicaId,
  asView,
  type Epoch,
  type Hash,
  type Height,
  type ReplicaId,
  type View,
} from '../types.ts';
import { own } from './bytes.ts';
import type { WireCode } from './refusal.ts';

/** The largest member list (genesis.ts). */
export const MEMBERS_MAX = 128;

/** The first thing that was wrong, shared by all readers of one message. */
export class Problem {
  found: { readonly code: WireCode; readonly field: string } | undefined;

  note(code: WireCode, field: string): void {
    this.found ??= { code, field };
  }
}

const nothing: readonly WireValue[] = [];
const zeros = new Uint8Array(64);

export class Fields {
  readonly #values: readonly WireValue[];
  readonly #path: string;
  readonly #problem: Problem;
  #at = 0;

  private constructor(values: readonly WireValue[], path: string, problem: Problem) {
    this.#values = values;
    this.#path = path;
    this.#problem = problem;
  }

  /** The fields of an array of exactly `count` values. */
  static of(value: WireValue | undefined, count: number, path: string, problem: Problem): Fields {
    if (isArray(value) && value.length === count) return new Fields(value, path, problem);
    problem.note('payload-malformed', path);
    return new Fields(nothing, path, problem);
  }

  get problem(): Problem {
    return this.#problem;
  }

  /** An integer from `min` to `max`, both allowed. */
  uint(name: string, max: number = Number.MAX_SAFE_INTEGER, min = 0): number {
    const value = this.#next();
    if (typeof value !== 'number') return this.#wrong('payload-malformed', name, 0);
    return value < min || value > max ? this.#wrong('field-out-of-range', name, 0) : value;
  }

  height(name: string, min = 0): Height {
    return asHeight(this.uint(name, Number.MAX_SAFE_INTEGER, min));
  }

  view(name: string, min = 0): View {
    return asView(this.uint(name, Number.MAX_SAFE_INTEGER, min));
  }

  epoch(name: string, min = 0): Epoch {
    return asEpoch(this.uint(name, Number.MAX_SAFE_INTEGER, min));
  }

  /** An index below the largest member list; that it names a member of this chain is verify.ts' business. */
  replica(name: string): ReplicaId {
    return asReplicaId(this.uint(name, MEMBERS_MAX - 1));
  }

  flag(name: string): boolean {
    const value = this.#next();
    return typeof value === 'boolean' ? value : this.#wrong('payload-malformed', name, false);
  }

  /** A view into the payload: copy what is kept. */
  bytes(name: string, min: number, max: number): Bytes {
    const value = this.#next();
    if (!(value instanceof Uint8Array)) return this.#wrong('payload-malformed', name, zeros);
    return value.length < min || value.length > max ? this.#wrong('field-out-of-range', name, zeros) : value;
  }

  /** A copy of exactly `size` bytes. */
  owned(name: string, size: number): Bytes {
    return own(this.bytes(name, size, size));
  }

  hash(name: string): Hash {
    return asHash(this.owned(name, 32));
  }

  /** A text that this pattern, anchored at both ends, allows: it bounds its length too. */
  text(name: string, pattern: RegExp): string {
    const value = this.#next();
    if (typeof value !== 'string') return this.#wrong('payload-malformed', name, '');
    return pattern.test(value) ? value : this.#wrong('field-out-of-range', name, '');
  }

  /** Null for nil, else what `read` makes of the one value. */
  nullable<T>(read: (fields: Fields) => T): T | null {
    return this.#values[this.#at] === null ? this.#null() : read(this);
  }

  /** One of these words. */
  word<const W extends string>(name: string, words: readonly [W, ...W[]]): W {
    const value = this.#next();
    const word = words.find((candidate) => candidate === value);
    if (word !== undefined) return word;
    return this.#wrong(typeof value === 'string' ? 'field-out-of-range' : 'payload-malformed', name, words[0]);
  }

  /** A nested array of exactly `count` fields. */
  tuple(name: string, count: number): Fields {
    return Fields.of(this.#next(), count, this.#name(name), this.#problem);
  }

  /** Null for nil, else what `read` makes of these `count` fields. */
  optional<T>(name: string, count: number, read: (fields: Fields) => T): T | null {
    return this.#values[this.#at] === null ? this.#null() : read(this.tuple(name, count));
  }

  /** A list of arrays of `count` fields each. */
  tuples<T>(
    name: string,
    { max, min = 0 }: ListBounds,
    count: number,
    read: (fields: Fields, index: number) => T,
  ): T[] {
    const list = this.#list(name, min, max);
    const path = this.#name(name);
    const out: T[] = [];
    for (const [index, value] of list.entries()) {
      if (this.#problem.found !== undefined) return out;
      out.push(read(Fields.of(value, count, path, this.#problem), index));
    }
    return out;
  }

  /** A list of arrays, each with as many fields as `read` takes from it. */
  lists<T>(name: string, { max, min = 0 }: ListBounds, read: (fields: Fields) => T): T[] {
    const out: T[] = [];
    for (const value of this.#list(name, min, max)) {
      if (this.#problem.found !== undefined) return out;
      const item = new Fields(isArray(value) ? value : nothing, this.#name(name), this.#problem);
      out.push(read(item));
      if (!isArray(value) || item.#at !== value.length) this.#problem.note('payload-malformed', this.#name(name));
    }
    return out;
  }

  /** A list of plain values, each read by one call. */
  values<T>(name: string, { max, min = 0 }: ListBounds, read: (fields: Fields) => T): T[] {
    const list = this.#list(name, min, max);
    const items = new Fields(list, this.#path, this.#problem);
    const out: T[] = [];
    while (out.length < list.length && this.#problem.found === undefined) out.push(read(items));
    return out;
  }

  /** Null for nil, else as `tuples`. */
  optionalTuples<T>(name: string, bounds: ListBounds, count: number, read: (fields: Fields) => T): T[] | null {
    return this.#values[this.#at] === null ? this.#null() : this.tuples(name, bounds, count, read);
  }

  #list(name: string, min: number, max: number): readonly WireValue[] {
    const value = this.#next();
    if (!isArray(value)) return this.#wrong('payload-malformed', name, nothing);
    return value.length < min || value.length > max ? this.#wrong('field-out-of-range', name, nothing) : value;
  }

  #next(): WireValue | undefined {
    this.#at += 1;
    return this.#values[this.#at - 1];
  }

  #null(): null {
    this.#at += 1;
    return null;
  }

  #wrong<T>(code: WireCode, name: string, harmless: T): T {
    this.#problem.note(code, this.#name(name));
    return harmless;
  }

  #name(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }
}

export interface ListBounds {
  readonly max: number;
  readonly min?: number;
}

// Array.isArray does not narrow readonly arrays.
const isArray = (value: WireValue | undefined): value is readonly WireValue[] => Array.isArray(value);
