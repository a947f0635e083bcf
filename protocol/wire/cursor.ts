// Reads and writes the MessagePack subset directly, for the hot paths: the frame, the bundle, the body of a block.
// Accepts exactly what the scan of msgpack.ts accepts (WIRE-6; a property test compares the two).
//
// Measured (Node 20.20, 2 cores; docs/wire.md, "Figures"): see the figures there before touching it.

import type { Bytes } from '../../crypto/bytes.ts';
import { encodeUtf8 } from '../../crypto/utf8.ts';
import { assert } from '../assert.ts';

/** After a failure every further read fails too; the caller looks once, at the end. */
export class Cursor {
  readonly #bytes: Bytes;
  #at = 0;
  #failed = false;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
  }

  /** A canonical integer; -1 where there is none. */
  uint(): number {
    const tag = this.#bytes[this.#at];
    if (tag !== undefined && tag < 0x80) {
      this.#at += 1;
      return tag;
    }
    switch (tag) {
      case 0xcc:
        return this.#number(1, 0x80);
      case 0xcd:
        return this.#number(2, 0x100);
      case 0xce:
        return this.#number(4, 0x1_0000);
      case 0xcf:
        return this.#number(8, 0x1_0000_0000);
      default:
        return this.#fail();
    }
  }

  /** The count of a canonical array header, never more than the bytes that are left; -1 where there is none. */
  array(): number {
    const tag = this.#bytes[this.#at];
    let count = -1;
    if (tag !== undefined && tag >= 0x90 && tag <= 0x9f) {
      this.#at += 1;
      count = tag & 0x0f;
    } else if (tag === 0xdc) count = this.#number(2, 0x10);
    else if (tag === 0xdd) count = this.#number(4, 0x1_0000);
    return count < 0 || count > this.#bytes.length - this.#at ? this.#fail() : count;
  }

  /** A canonical bin, as a view; undefined where there is none. */
  bin(): Bytes | undefined {
    const tag = this.#bytes[this.#at];
    let length = -1;
    if (tag === 0xc4) length = this.#number(1, 0);
    else if (tag === 0xc5) length = this.#number(2, 0x100);
    else if (tag === 0xc6) length = this.#number(4, 0x1_0000);
    if (length < 0 || length > this.#bytes.length - this.#at) {
      this.#fail();
      return undefined;
    }
    const start = this.#at;
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  /** Everything was read, nothing failed and nothing is left. */
  done(): boolean {
    return !this.#failed && this.#at === this.#bytes.length;
  }

  /** The number of `width` bytes after the tag; -1 where it is cut off, below `least` or beyond 2^53 - 1. */
  #number(width: number, least: number): number {
    const start = this.#at + 1;
    const end = start + width;
    if (this.#failed || end > this.#bytes.length) return this.#fail();
    let number = 0;
    for (let i = start; i < end; i++) number = number * 256 + this.#bytes[i]!;
    if (number < least || number > Number.MAX_SAFE_INTEGER) return this.#fail();
    this.#at = end;
    return number;
  }

  #fail(): -1 {
    this.#failed = true;
    // No byte is left to read, so that no later read succeeds by chance.
    this.#at = this.#bytes.length;
    return -1;
  }
}

/** Bytes of an integer in its one form. */
export function uintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x100 ? 2 : value < 0x1_0000 ? 3 : value < 0x1_0000_0000 ? 5 : 9;
}

/** Bytes of a bin of this length, header included. */
export function binBytes(length: number): number {
  return length + (length < 0x100 ? 2 : length < 0x1_0000 ? 3 : 5);
}

/** Bytes of an array's header. */
export function arrayBytes(count: number): number {
  return count < 0x10 ? 1 : count < 0x1_0000 ? 3 : 5;
}

/** Writes into memory of a size that the caller has computed with the three functions above; a wrong size is a bug and throws. */
export class Scribe {
  protected out: Uint8Array;
  protected at = 0;

  constructor(size: number) {
    this.out = new Uint8Array(size);
  }

  uint(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, 'an integer of the wire');
    if (value < 0x80) this.tag(value);
    else if (value < 0x100) this.head(0xcc, 1, value);
    else if (value < 0x1_0000) this.head(0xcd, 2, value);
    else if (value < 0x1_0000_0000) this.head(0xce, 4, value);
    else this.head(0xcf, 8, value);
    return this;
  }

  bool(value: boolean): this {
    return this.tag(value ? 0xc3 : 0xc2);
  }

  array(count: number): this {
    if (count < 0x10) this.tag(0x90 | count);
    else if (count < 0x1_0000) this.head(0xdc, 2, count);
    else this.head(0xdd, 4, count);
    return this;
  }

  bin(bytes: Bytes): this {
    return this.binHeader(bytes.length).raw(bytes);
  }

  /** What stands before the bytes of a bin that are written next. */
  binHeader(length: number): this {
    if (length < 0x100) this.head(0xc4, 1, length);
    else if (length < 0x1_0000) this.head(0xc5, 2, length);
    else this.head(0xc6, 4, length);
    return this;
  }

  /** Bytes that are encoded already. */
  raw(bytes: Bytes): this {
    this.room(bytes.length);
    this.out.set(bytes, this.at);
    this.at += bytes.length;
    return this;
  }

  done(): Bytes {
    assert(this.at === this.out.length, 'the size was computed right');
    return this.out;
  }

  /** One byte of MessagePack that says all by itself. */
  tag(tag: number): this {
    this.room(1);
    this.out[this.at] = tag;
    this.at += 1;
    return this;
  }

  protected head(tag: number, width: number, value: number): void {
    this.room(1 + width);
    this.tag(tag);
    let rest = value;
    for (let i = width - 1; i >= 0; i--) {
      this.out[this.at + i] = rest % 256;
      rest = Math.floor(rest / 256);
    }
    this.at += width;
  }

  /** What is written next takes so many bytes. */
  protected room(_bytes: number): void {}
}

const GROWING_BYTES = 4096;
const GROWING_BYTES_KEPT = 1 << 18;

/** The same into memory that grows, where a size is not known before it is written. */
export class GrowingScribe extends Scribe {
  constructor() {
    super(GROWING_BYTES);
  }

  /** Begins anew, in the same memory unless that has grown large. */
  again(): this {
    if (this.out.length > GROWING_BYTES_KEPT) this.out = new Uint8Array(GROWING_BYTES);
    this.at = 0;
    return this;
  }

  str(text: string): this {
    const bytes = encodeUtf8(text);
    const { length } = bytes;
    if (length < 0x20) this.tag(0xa0 | length);
    else if (length < 0x100) this.head(0xd9, 1, length);
    else if (length < 0x1_0000) this.head(0xda, 2, length);
    else this.head(0xdb, 4, length);
    return this.raw(bytes);
  }

  override done(): Bytes {
    return this.out.slice(0, this.at);
  }

  protected override room(bytes: number): void {
    if (this.at + bytes <= this.out.length) return;
    const larger = new Uint8Array(Math.max(2 * this.out.length, this.at + bytes));
    larger.set(this.out.subarray(0, this.at));
    this.out = larger;
  }
}
