// How a child process ended, in words.

import type { ReplicaExit } from './cluster.ts';

export function describeExit({ code, signal, stderr }: ReplicaExit): string {
  const how = signal === null ? `exit code ${code ?? 'unknown'}` : signal;
  return stderr === '' ? how : `${how}: ${stderr}`;
}
