// A file of bodies, one behind the other and nothing between them: what refers to them says where they lie and what they are (bulk.ts).

import { type FileHandle, open } from 'node:fs/promises';
import type { Bytes } from '../crypto/bytes.ts';

/** Buffers in one call: the system takes no more than 1,024. */
const buffersMax = 512;
/** Bytes read at once where bodies lie side by side. */
const spanBytesMax = 4 << 20;

export class BodyFile {
  readonly number: number;
  readonly #handle: FileHandle;
  #bytes = 0;

  /** Of an empty file. */
  constructor(number: number, handle: FileHandle) {
    this.number = number;
    this.#handle = handle;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Durable when it resolves. After an error nothing more may be appended: nobody knows what is there. */
  async append(values: readonly Bytes[]): Promise<void> {
    let rest = values.filter((value) => value.length > 0);
    while (rest.length > 0) {
      const { bytesWritten } = await this.#handle.writev(rest.slice(0, buffersMax), this.#bytes);
      this.#bytes += bytesWritten;
      rest = behind(rest, bytesWritten);
    }
    await this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** What is left of these buffers when so many bytes are written. */
function behind(buffers: readonly Bytes[], written: number): Bytes[] {
  let bytes = written;
  const whole = buffers.findIndex((buffer) => {
    if (buffer.length > bytes) return true;
    bytes -= buffer.length;
    return false;
  });
  if (whole < 0) return [];
  return [buffers[whole]!.subarray(bytes), ...buffers.slice(whole + 1)];
}

/** Where a body lies in a file. */
export interface Part {
  readonly at: number;
  readonly bytes: number;
}

/**
 * The bodies at these places, in this order; each as long as the file reaches, so that what is cut off is noticed by whoever knows its length and
 * checksum. Undefined: there is no such file. Throws what the system throws.
 */
export async function readParts(path: string, parts: readonly Part[]): Promise<readonly Bytes[] | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const out: Bytes[] = [];
    for (const span of spansOf(parts, size)) {
      const bytes = await readSpan(handle, span);
      for (const part of span.parts) out.push(bytes.subarray(part.at - span.at, part.at - span.at + part.bytes));
    }
    return out;
  } finally {
    await handle.close();
  }
}

interface Span extends Part {
  readonly parts: readonly Part[];
}

/** Parts that lie side by side are read together; never more than the file has. */
function spansOf(parts: readonly Part[], size: number): readonly Span[] {
  const out: Span[] = [];
  for (const { at, bytes } of parts) {
    const part = { at: Math.min(at, size), bytes: Math.max(0, Math.min(bytes, size - at)) };
    const last = out.at(-1);
    const joins = last !== undefined && last.at + last.bytes === part.at && last.bytes + part.bytes <= spanBytesMax;
    if (joins) out[out.length - 1] = { at: last.at, bytes: last.bytes + part.bytes, parts: [...last.parts, part] };
    else out.push({ ...part, parts: [part] });
  }
  return out;
}

async function readSpan(handle: FileHandle, { at, bytes }: Part): Promise<Bytes> {
  const out = Buffer.allocUnsafeSlow(bytes);
  let have = 0;
  while (have < bytes) {
    const { bytesRead } = await handle.read(out, have, bytes - have, at + have);
    if (bytesRead === 0) break;
    have += bytesRead;
  }
  return out.subarray(0, have);
}
