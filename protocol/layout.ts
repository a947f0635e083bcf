// Fixed binary layouts: what is hashed into a block and what a vote signs. Big-endian, no lengths, no options, so that
// a page of documentation (docs/wire.md) is enough to rebuild the bytes in any language.

import type { Bytes } from '../crypto/bytes.ts';
import { assert } from './assert.ts';

/** Domain tags are 16 ASCII bytes, zero-padded. What one domain signs or hashes, no other domain can be shown. */
export function domainTag(name: string): Bytes {
  assert(/^synod-v1:[a-z]{1,7}$/.test(name), `a domain tag is synod-v1: and at most seven letters, not ${name}`);
  const tag = new Uint8Array(16);
  for (let i = 0; i < name.length; i++) tag[i] = name.charCodeAt(i);
  return tag;
}

/** Writes a layout of a known size. Overflow and underflow are bugs and throw. Byte by byte: a DataView costs more than all that is written through it. */
export class LayoutWriter {
  readonly #out: Uint8Array;
  #at = 0;

  constructor(size: number) {
    this.#out = new Uint8Array(size);
  }

  u8(value: number): this {
    const at = this.#advance(1);
    this.#out[at] = value;
    return this;
  }

  u32(value: number): this {
    assert(value >= 0 && value <= 0xffffffff, 'u32 in range');
    this.#word(value, this.#advance(4));
    return this;
  }

  /** Unsigned 64 bit from a safe integer. */
  u64(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, 'u64 from a safe integer');
    const at = this.#advance(8);
    this.#word(Math.floor(value / 0x1_0000_0000), at);
    this.#word(value, at + 4);
    return this;
  }

  bytes(value: Bytes, size: number): this {
    assert(value.length === size, `a field of ${size} bytes, not ${value.length}`);
    this.#out.set(value, this.#at);
    this.#at += size;
    return this;
  }

  done(): Bytes {
    assert(this.#at === this.#out.length, 'layout filled exactly');
    return this.#out;
  }

  /** Where the next field begins; it must fit. */
  #advance(size: number): number {
    const at = this.#at;
    this.#at = at + size;
    assert(this.#at <= this.#out.length, 'a field within its layout');
    return at;
  }

  /** Four bytes of it, the most significant first. */
  #word(value: number, at: number): void {
    const out = this.#out;
    out[at] = value >>> 24;
    out[at + 1] = value >>> 16;
    out[at + 2] = value >>> 8;
    out[at + 3] = value;
  }
}

/**
 * Reads a layout whose length the caller has checked; a number beyond its end throws. A 64-bit field beyond 2^53 - 1 yields NaN, which every range
 * check refuses.
 */
export class LayoutReader {
  readonly #bytes: Bytes;
  #at = 0;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
  }

  u8(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw new RangeError('layout: a field beyond the end');
    this.#at += 1;
    return byte;
  }

  u32(): number {
    return this.u8() * 0x100_0000 + ((this.u8() << 16) | (this.u8() << 8) | this.u8());
  }

  u64(): number {
    const high = this.u32();
    const low = this.u32();
    return high > 0x1fffff ? Number.NaN : high * 0x1_0000_0000 + low;
  }

  /** A view into the same memory, not a copy. */
  bytes(size: number): Bytes {
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }
}
