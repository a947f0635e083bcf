// A file of bodies, one behind the other: what refers to them says where they lie and what they are (bulk.ts). What is appended at once begins at a
// whole number of blocks, and goes around the page cache where the system lets it: nobody reads it soon, and copying it there costs more than the rest
// of the write.

import { constants, type FileHandle, open, rm } from 'node:fs/promises';
import type { Bytes } from '../crypto/bytes.ts';

/** What a write around the page cache has to be a multiple of, in its place, its length and its memory. No disk in use asks for more. */
const blockBytes = 4096;
/** Bytes written at once. */
const stageBytes = 4 << 20;
/** Bytes read at once where bodies lie side by side. */
const spanBytesMax = 4 << 20;

/** The part of it that is used here; the types of Node do not know it. */
declare const WebAssembly: {
  readonly Memory: new (pages: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
};

/** Memory that a write goes from. That of WebAssembly begins at a page, which nothing else in Node promises. */
export function makeStage(): Bytes {
  const pages = stageBytes / 65_536;
  return new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
}

export class BodyFile {
  readonly number: number;
  readonly #handle: FileHandle;
  readonly #stage: Bytes;
  #bytes = 0;

  private constructor(number: number, handle: FileHandle, stage: Bytes) {
    this.number = number;
    this.#handle = handle;
    this.#stage = stage;
  }

  /** A new file; its name is not durable yet. Throws what the system throws. */
  static async create(path: string, number: number, stage: Bytes): Promise<BodyFile> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
    const handle = (await openDirect(path, flags, stage)) ?? (await open(path, flags, 0o600));
    return new BodyFile(number, handle, stage);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Durable when it resolves, which it does with the place of the first. After an error nothing more may be appended: nobody knows what is there. */
  async append(values: readonly Bytes[]): Promise<number> {
    const start = this.#bytes;
    const stage = this.#stage;
    let filled = 0;
    for (const value of values)
      for (let from = 0; from < value.length; ) {
        const some = value.subarray(from, from + stage.length - filled);
        stage.set(some, filled);
        from += some.length;
        filled += some.length;
        if (filled < stage.length) continue;
        await this.#write(filled);
        filled = 0;
      }
    const end = Math.ceil(filled / blockBytes) * blockBytes;
    stage.fill(0, filled, end);
    await this.#write(end);
    await this.#handle.datasync();
    return start;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  async #write(bytes: number): Promise<void> {
    for (let have = 0; have < bytes; ) {
      const { bytesWritten } = await this.#handle.write(this.#stage, have, bytes - have, this.#bytes);
      have += bytesWritten;
      this.#bytes += bytesWritten;
    }
  }
}

/** Null: not here. Some file systems say so when the file is opened, and others with the first write. */
async function openDirect(path: string, flags: number, stage: Bytes): Promise<FileHandle | null> {
  // Absent where there is no such thing.
  const { O_DIRECT } = constants;
  if (O_DIRECT === undefined) return null;
  let handle: FileHandle | null = null;
  try {
    handle = await open(path, flags | O_DIRECT, 0o600);
    await handle.write(stage, 0, blockBytes, 0);
    return handle;
  } catch (error) {
    await handle?.close();
    const isRefused = error instanceof Error && 'code' in error && error.code === 'EINVAL';
    // It may be there all the same.
    if (handle !== null || isRefused) await rm(path, { force: true });
    if (isRefused) return null;
    throw error;
  }
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
