// Standard output and error for people and for pipes: waits when the reader is slow, ends quietly when it has gone, and colours
// only a terminal that wants them.

import { once } from 'node:events';

/** Thrown when the reader of standard output has closed it (`synod follow | head`): not a failure. */
export class ReaderGone extends Error {
  override readonly name = 'ReaderGone';
}

let readerGone = false;

/** Call once, first: without it a closed pipe ends the process with a stack trace. */
export function installPipeHandling(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    readerGone = true;
  });
  process.stderr.on('error', () => undefined);
}

/** Resolves when the reader can take more; throws ReaderGone once it has left. */
export async function write(text: string | Uint8Array): Promise<void> {
  if (readerGone) throw new ReaderGone();
  if (process.stdout.write(text)) return;
  // `drain` never comes when the pipe breaks; `error` does, and `once` rejects on it.
  await once(process.stdout, 'drain').catch(() => undefined);
  if (readerGone) throw new ReaderGone();
}

export const writeLine = (line: string): Promise<void> => write(`${line}\n`);

/** Progress and remarks: never mixed into what a pipe reads. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface Palette {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

/** https://no-color.org: any non-empty NO_COLOR means none. */
export function paletteFor(stream: { readonly isTTY?: boolean }): Palette {
  const on = stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
  const paint = (code: number) => (text: string) => (on ? `\u001b[${code}m${text}\u001b[0m` : text);
  return { bold: paint(1), dim: paint(2), red: paint(31), green: paint(32), yellow: paint(33), cyan: paint(36) };
}

/** Columns padded to their widest cell, numbers as they come; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
