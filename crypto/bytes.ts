// Byte-string helpers shared by every layer. Portable: no Node API.

/** An immutable-by-convention byte string. Buffers are accepted, since a Buffer is a Uint8Array. */
export type Bytes = Uint8Array;

export function concat(...parts: readonly Bytes[]): Bytes {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Equality of public values; not constant-time, never used on secrets. */
export function equalBytes(a: Bytes, b: Bytes): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Lexicographic order, shorter first on a tie: the order of keys in the store and of sessions in a digest. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

const digits = ascii('0123456789abcdef');
const HEX_PIECE_BYTES = 32;
/** Reused: a string made of so many characters at once is flat, where one that grows digit by digit is a tree, dear to hash, to compare and to keep. */
const hexCodes: number[] = new Array<number>(2 * HEX_PIECE_BYTES).fill(0);

export function toHex(bytes: Bytes): string {
  let out = '';
  for (let start = 0; start < bytes.length; start += HEX_PIECE_BYTES) {
    const length = Math.min(HEX_PIECE_BYTES, bytes.length - start);
    for (let i = 0; i < length; i++) {
      const byte = bytes[start + i]!;
      hexCodes[2 * i] = digits[byte >> 4]!;
      hexCodes[2 * i + 1] = digits[byte & 0xf]!;
    }
    const codes = length === HEX_PIECE_BYTES ? hexCodes : hexCodes.slice(0, 2 * length);
    const piece = String.fromCharCode.apply(null, codes);
    out = start === 0 ? piece : out + piece;
  }
  return out;
}

/** Lower- or upper-case hex of even length, or undefined: text comes from outside. */
export function fromHex(text: string): Bytes | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return undefined;
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** ASCII text to bytes; throws on anything else, since every caller passes a literal. */
export function ascii(text: string): Bytes {
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) throw new Error('ascii: a literal holds a character beyond ASCII');
    out[i] = code;
  }
  return out;
}
