// Base64 with the standard alphabet and padding (RFC 4648 section 4). Portable: no Buffer, no atob.

import type { Bytes } from './bytes.ts';

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const valueOfLetter = new Map([...alphabet].map((letter, value) => [letter, value]));

export function toBase64(bytes: Bytes): string {
  let out = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const group = bytes[i]! * 0x10000 + (bytes[i + 1] ?? 0) * 0x100 + (bytes[i + 2] ?? 0);
    const left = bytes.length - i;
    out += alphabet[group >> 18]! + alphabet[(group >> 12) & 63]!;
    out += left > 1 ? alphabet[(group >> 6) & 63]! : '=';
    out += left > 2 ? alphabet[group & 63]! : '=';
  }
  return out;
}

/** The bytes, or undefined. Strict: one text per byte string, so no blanks, no missing padding, no stray low bits. */
export function fromBase64(text: string): Bytes | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const out = new Uint8Array((text.length / 4) * 3 - padding);
  let at = 0;
  let held = 0;
  let bits = 0;
  for (let i = 0; i < text.length - padding; i++) {
    const value = valueOfLetter.get(text[i]!);
    if (value === undefined) return undefined;
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = (held >> bits) & 0xff;
    }
  }
  if ((held & ((1 << bits) - 1)) !== 0) return undefined;
  return out;
}
