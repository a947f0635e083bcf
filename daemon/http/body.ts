// Reads a request's body within bounds: its own, and one for all bodies together, so that many slow uploads cannot fill the memory.

import type { IncomingMessage } from 'node:http';
import type { Bytes } from '../../crypto/bytes.ts';
import { type Problem, problem } from './problem.ts';

/** The memory that all bodies under way may take. */
export class BodyBudget {
  readonly #bytesMax: number;
  #taken = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  take(bytes: number): boolean {
    if (this.#taken + bytes > this.#bytesMax) return false;
    this.#taken += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#taken -= bytes;
  }
}

/** The whole body, or why not. Never rejects; null: the client went away. */
export async function readBody(
  request: IncomingMessage,
  { bytesMax, budget }: { readonly bytesMax: number; readonly budget: BodyBudget },
): Promise<Bytes | Problem | null> {
  const tooLarge = problem('body-too-large', `a body has at most ${bytesMax} bytes`, { field: 'content-length' });
  const announced = request.headers['content-length'];
  // Node's parser has refused anything but digits, and a length beside chunks.
  const length = announced === undefined ? undefined : Number(announced);
  if (length !== undefined && length > bytesMax) return tooLarge;
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity')
    return problem('content-encoding-unsupported', 'bodies are taken as they are', { field: 'content-encoding' });
  const reserved = length ?? bytesMax;
  if (!budget.take(reserved)) return problem('busy', 'too many uploads at once', { retryAfterSeconds: 1 });
  try {
    return await collect(request, reserved, tooLarge);
  } finally {
    budget.give(reserved);
  }
}

/** Copies into memory of its own: a chunk of one byte would keep all of the socket's buffer alive. */
function collect(request: IncomingMessage, bytesMax: number, tooLarge: Problem): Promise<Bytes | Problem | null> {
  return new Promise((resolve) => {
    const body = Buffer.allocUnsafeSlow(bytesMax);
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      if (bytes + chunk.length > bytesMax) {
        // The rest is read and thrown away, until the clock of the request ends it: a client that is cut off while it sends never
        // reads the answer.
        request.removeAllListeners('data');
        request.resume();
        resolve(tooLarge);
        return;
      }
      body.set(chunk, bytes);
      bytes += chunk.length;
    });
    request.once('end', () => resolve(body.subarray(0, bytes)));
    request.once('error', () => resolve(null));
    request.once('close', () => resolve(null));
  });
}
