// MessagePack for bytes that strangers send: msgpackr behind a gate (docs/wire.md, "MessagePack subset"; adversary A26).
//
// msgpackr by itself decodes extension types that the sender chooses, accepts several forms of one number and allocates before it
// has counted. So a scan without recursion and without allocation looks at every byte first and lets through one small, canonical
// subset: nil, booleans, non-negative integers up to 2^53 - 1, bin, UTF-8 str and arrays, each in its shortest form (WIRE-1). What
// passes has one encoding only, so decode followed by encode gives the same bytes back (WIRE-2).

import { Packr, Unpackr } from 'msgpackr';
import type { Bytes } from '../crypto/bytes.ts';

/** Everything that this wire can say. Numbers are integers from 0 to 2^53 - 1. */
export type WireValue = null | boolean | number | string | Bytes | readonly WireValue[];

export interface ScanLimits {
  readonly bytesMax: number;
  /** Arrays inside arrays; 1 is an array of plain values. */
  readonly depthMax: number;
  /** Values of any kind, arrays included. */
  readonly valuesMax: number;
}

export type MsgpackRefusal =
  | 'msgpack-too-large'
  | 'msgpack-truncated'
  | 'msgpack-trailing'
  | 'msgpack-type'
  | 'msgpack-not-minimal'
  | 'msgpack-integer'
  | 'msgpack-utf8'
  | 'msgpack-depth'
  | 'msgpack-values'
  | 'msgpack-codec';

const options = {
  useRecords: false,
  int64AsType: 'number',
  copyBuffers: false,
  bundleStrings: false,
  moreTypes: false,
  structuredClone: false,
  useToJSON: false,
} as const;
// Options objects are changed by msgpackr, hence a copy for each.
const unpackr = new Unpackr({ ...options });
const packr = new Packr({ ...options });

/** [WIRE-3] The value in these bytes, or the code of the first rule they break. Bins are views into `bytes`. Never throws. */
export function decodeMsgpack(
  bytes: Bytes,
  limits: ScanLimits,
): { readonly value: WireValue } | { readonly refused: MsgpackRefusal } {
  const refused = scanMsgpack(bytes, limits);
  if (refused !== undefined) return { refused };
  try {
    // A fresh view: msgpackr hangs a property on what it decodes, and a Buffer would make every bin a Buffer.
    const value: WireValue = unpackr.unpack(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length));
    return { value };
  } catch {
    // The scan has accepted bytes that the library has not: a stranger's bytes must not stop a replica all the same.
    return { refused: 'msgpack-codec' };
  }
}

/** The one encoding of a value in the subset; memory of its own. Throws on a number that has none: that is a bug. */
export function encodeMsgpack(value: WireValue): Bytes {
  const ready = widen(value);
  // A copy: msgpackr's result is a slice of a slab that it would keep alive.
  const bytes = new Uint8Array(packr.pack(ready));
  if (ready !== value) int64ToUint64(bytes);
  return bytes;
}

/** [WIRE-1] Undefined: these bytes are exactly one value of the subset, within the limits. */
export function scanMsgpack(bytes: Bytes, { bytesMax, depthMax, valuesMax }: ScanLimits): MsgpackRefusal | undefined {
  const end = bytes.length;
  if (end > bytesMax) return 'msgpack-too-large';
  /** Values still to come in each open array but the innermost; never longer than depthMax. */
  const outer: number[] = [];
  let left = 1;
  let at = 0;
  let values = 0;
  for (;;) {
    while (left === 0) {
      const enclosing = outer.pop();
      if (enclosing === undefined) return at === end ? undefined : 'msgpack-trailing';
      left = enclosing;
    }
    left -= 1;
    values += 1;
    if (values > valuesMax) return 'msgpack-values';
    if (at >= end) return 'msgpack-truncated';
    const tag = bytes[at]!;
    at += 1;
    if (tag < 0x80 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) continue;

    const width = widthOf(tag);
    if (width < 0) return 'msgpack-type';
    if (at + width > end) return 'msgpack-truncated';
    let number = tag & 0x1f; // fixstr; a fixarray has four bits only
    if (width > 0) {
      number = 0;
      for (let i = 0; i < width; i++) number = number * 256 + bytes[at + i]!;
      at += width;
    } else if (tag < 0xa0) number = tag & 0x0f;

    if (tag >= 0xcc && tag <= 0xcf) {
      if (number > Number.MAX_SAFE_INTEGER) return 'msgpack-integer';
      if (number < leastOf(tag)) return 'msgpack-not-minimal';
      continue;
    }
    if (width > 0 && number < leastOf(tag)) return 'msgpack-not-minimal';
    // Every value takes a byte at least, so a count or a length beyond what is left is a lie.
    if (number > end - at) return 'msgpack-truncated';
    if (isArray(tag)) {
      if (outer.length >= depthMax) return 'msgpack-depth';
      outer.push(left);
      left = number;
    } else {
      if (isString(tag) && !isUtf8(bytes, at, at + number)) return 'msgpack-utf8';
      at += number;
    }
  }
}

const isArray = (tag: number) => (tag >= 0x90 && tag <= 0x9f) || tag === 0xdc || tag === 0xdd;
const isString = (tag: number) => (tag >= 0xa0 && tag <= 0xbf) || (tag >= 0xd9 && tag <= 0xdb);

/** Bytes of the number after a tag: an integer, a length or a count. -1: not in the subset. */
function widthOf(tag: number): number {
  if (tag >= 0x90 && tag <= 0xbf) return 0;
  switch (tag) {
    case 0xc4: // bin 8
    case 0xcc: // uint 8
    case 0xd9: // str 8
      return 1;
    case 0xc5:
    case 0xcd:
    case 0xda:
    case 0xdc: // array 16
      return 2;
    case 0xc6:
    case 0xce:
    case 0xdb:
    case 0xdd:
      return 4;
    case 0xcf:
      return 8;
    default:
      return -1;
  }
}

/** The least number that this tag may carry, since a smaller one has a shorter form. */
function leastOf(tag: number): number {
  switch (tag) {
    case 0xc4:
      return 0;
    case 0xcc:
      return 0x80;
    case 0xd9:
      return 0x20;
    case 0xdc:
      return 0x10;
    case 0xc5:
    case 0xcd:
    case 0xda:
      return 0x100;
    case 0xcf:
      return 0x1_0000_0000;
    default:
      return 0x1_0000;
  }
}

/** RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF. Nor a byte-order mark in front: decoders disagree on it. */
function isUtf8(bytes: Bytes, start: number, end: number): boolean {
  if (end - start >= 3 && bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf) return false;
  let at = start;
  while (at < end) {
    const first = bytes[at]!;
    at += 1;
    if (first < 0x80) continue;
    const more =
      first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
    if (more === 0 || at + more > end) return false;
    const second = bytes[at]!;
    const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
    for (let i = 1; i < more; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return false;
    at += more;
  }
  return true;
}

type Packable = null | boolean | number | bigint | string | Bytes | readonly Packable[];

/** msgpackr writes numbers from 2^32 on as floats, unless they are bigints; the same value where there is none. */
function widen(value: WireValue): Packable {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`msgpack: ${value} is not in the subset`);
    return value > 0xffff_ffff ? BigInt(value) : value;
  }
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  let changed: Packable[] | undefined;
  for (let i = 0; i < value.length; i++) {
    const before = value[i]!;
    const after = widen(before);
    if (after === before) continue;
    changed ??= [...value];
    changed[i] = after;
  }
  return changed ?? value;
}

/** msgpackr writes every bigint below 2^63 as an int 64; ours are not negative, so the uint 64 differs in the tag alone. */
function int64ToUint64(bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) {
    const tag = bytes[at]!;
    if (tag === 0xd3) {
      bytes[at] = 0xcf;
      at += 9;
      continue;
    }
    at += 1;
    const width = Math.max(0, widthOf(tag));
    let number = tag >= 0xa0 && tag <= 0xbf ? tag & 0x1f : 0;
    for (let i = 0; i < width; i++) number = number * 256 + bytes[at + i]!;
    at += width;
    // Only str and bin are followed by bytes that are no values of their own.
    if (isString(tag) || (tag >= 0xc4 && tag <= 0xc6)) at += number;
  }
}
