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

/** Writes a layout of a known size. Overflow and underflow are bugs and throw. */
export class LayoutWriter {
  readonly #out: Uint8Array;
  /** Beyond the end nothing is written; `done` throws then. */
  #at = 0;

  constructor(size: number) {
    this.#out = new Uint8Array(size);
  }

  u8(value: number): this {
    this.#out[this.#at] = value;
    this.#at += 1;
    return this;
  }

  u32(value: number): this {
    assert(value >= 0 && value <= 0xffffffff, 'u32 in range');
    this.#word(value);
    return this;
  }

  /** Unsigned 64 bit from a safe integer. */
  u64(value: number): this {
    assert(Number.isSafeInteger(value) && value >= 0, 'u64 from a safe integer');
    this.#word(Math.floor(value / 0x1_0000_0000));
    this.#word(value >>> 0);
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

  /** By hand: a DataView for each layout cost more than all that was written through it (measured). */
  #word(value: number): void {
    const out = this.#out;
    const at = this.#at;
    out[at] = value >>> 24;
    out[at + 1] = value >>> 16;
    out[at + 2] = value >>> 8;
    out[at + 3] = value;
    this.#at = at + 4;
  }
}

/** Reads a layout whose length the caller has checked. A 64-bit field beyond 2^53 - 1 yields NaN, which every range check refuses. */
export class LayoutReader {
  readonly #bytes: Bytes;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    this.#at += 1;
    return this.#view.getUint8(this.#at - 1);
  }

  u32(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  u64(): number {
    this.#at += 8;
    const high = this.#view.getUint32(this.#at - 8);
    const low = this.#view.getUint32(this.#at - 4);
    return high > 0x1fffff ? Number.NaN : high * 0x1_0000_0000 + low;
  }

  /** A view into the same memory, not a copy. */
  bytes(size: number): Bytes {
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }
}
