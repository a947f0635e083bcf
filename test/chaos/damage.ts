// What a disk or an operator does to the files of a replica that is down.

import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeSignState } from '../../keys/sign-state.ts';
import { decodeFile } from '../../keys/slots.ts';

export interface Damage {
  readonly name: string;
  /** `data` is the replica's data directory, `older` a copy of it from an earlier time. */
  do(data: string, older: string): void;
  /** On standard error of the start that is refused. */
  readonly code: RegExp;
  readonly exit: number;
}

const log = (data: string) => join(data, 'log');
const signState = (data: string) => join(data, 'sign-state');

/** The write-ahead log of the database: what was written since its last start. */
function writeAheadLog(data: string): string {
  return largest(log(data), '.log');
}

/** How far the log must have come for what this replica has signed; it rises with its votes alone, not with what it fetched. */
export function signedFor(data: string): number {
  const slot = decodeFile(readFileSync(signState(data)));
  const state = slot === undefined ? undefined : decodeSignState(slot.content);
  if (state === undefined) throw new Error('no whole sign-state');
  return state.floor.sequence;
}

function largest(directory: string, ending: string): string {
  const found = readdirSync(directory)
    .filter((name) => name.endsWith(ending))
    .map((name) => ({ path: join(directory, name), size: statSync(join(directory, name)).size }))
    .sort((a, b) => b.size - a.size)[0];
  if (found === undefined || found.size === 0) throw new Error(`no ${ending} file with anything in it in ${directory}`);
  return found.path;
}

function flip(path: string, share: number): void {
  const bytes = readFileSync(path);
  const at = Math.floor(bytes.length * share);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

const lost = /\[storage-(lost-writes|damaged)\]/;

export const damages: readonly Damage[] = [
  { name: 'the write-ahead log is gone', do: (data) => rmSync(writeAheadLog(data)), code: lost, exit: 1 },
  {
    name: 'the write-ahead log ends too early',
    do: (data) => truncateSync(writeAheadLog(data), Math.floor(statSync(writeAheadLog(data)).size / 2)),
    code: lost,
    exit: 1,
  },
  {
    name: 'one bit in the middle of the write-ahead log',
    do: (data) => flip(writeAheadLog(data), 0.5),
    code: lost,
    exit: 1,
  },
  {
    name: 'the whole log is gone',
    do: (data) => rmSync(log(data), { recursive: true }),
    code: /\[storage-lost-writes\]/,
    exit: 1,
  },
  {
    name: 'the log of yesterday, from a backup',
    do: (data, older) => {
      rmSync(log(data), { recursive: true });
      cpSync(log(older), log(data), { recursive: true });
    },
    code: /\[storage-lost-writes\]/,
    exit: 1,
  },
  { name: 'the sign-state file is gone', do: (data) => rmSync(signState(data)), code: /\[guard-missing\]/, exit: 2 },
  {
    name: 'the sign-state file ends too early',
    do: (data) => truncateSync(signState(data), statSync(signState(data)).size - 1),
    code: /\[guard-damaged\]/,
    exit: 2,
  },
];
