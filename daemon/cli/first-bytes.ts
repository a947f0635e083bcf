// The first bytes of a file, by which its sort is told.

import { closeSync, openSync, readSync } from 'node:fs';

export function firstBytes(file: string): Uint8Array {
  const start = new Uint8Array(16);
  const fd = openSync(file, 'r');
  try {
    readSync(fd, start);
    return start;
  } finally {
    closeSync(fd);
  }
}
