// What a client asks of its JavaScript engine: randomness, and the end of the present turn of the event loop.

import type { Bytes } from '../crypto/bytes.ts';

/** From the system's random source. */
export function randomBytes(length: number): Bytes {
  return globalThis.crypto.getRandomValues(new Uint8Array(length));
}

/** A session id that no other process of this key has: 53 random bits. */
export function randomSession(): number {
  const bytes = randomBytes(7);
  let id = bytes[0]! & 0x1f;
  for (let i = 1; i < 7; i++) id = id * 256 + bytes[i]!;
  return id;
}

/** The number of a question that nobody has answered before: 53 random bits, and not 0. */
export function randomQuestion(): number {
  return Math.max(1, randomSession());
}

/** Runs it once everything that has already arrived was handled. */
export const soon: (task: () => void) => void =
  // Not in browsers, where a task of the timer's queue does.
  typeof setImmediate === 'function' ? (task) => void setImmediate(task) : (task) => void setTimeout(task, 0);
