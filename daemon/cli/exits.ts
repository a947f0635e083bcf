// How a child process ended, in words.

import type { ReplicaExit } from './cluster.ts';

export function describeExit({ code, signal, stderr, lastError }: ReplicaExit): string {
  const how = signal === null ? `exit code ${code ?? 'unknown'}` : signal;
  const why = stderr === '' ? lastError : stderr;
  return why === null ? how : `${how}: ${why}`;
}
