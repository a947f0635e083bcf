// The version of this program, as package.json has it.

import { readFileSync } from 'node:fs';
import { z } from 'zod';

const file = new URL('../../package.json', import.meta.url);

let known: string | undefined;

export function version(): string {
  known ??= z.object({ version: z.string() }).parse(JSON.parse(readFileSync(file, 'utf8'))).version;
  return known;
}
