// What a process has used, from /proc: processor time and resident memory. Linux only; elsewhere the columns stay empty.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Usage {
  /** User and system time since its start, all threads. */
  readonly cpuSeconds: number;
  readonly residentBytes: number;
}

export interface MemoryTrail {
  readonly maxBytes: number;
  /** Median of the last quarter over the median of the second: 1 is flat. The first quarter is warm-up. */
  readonly growth: number;
}

const ticksPerSecond = clockTicks();

/** Null: no such process, or no /proc. */
export function usageOf(pid: number | undefined): Usage | null {
  if (pid === undefined) return null;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name of the process may hold anything, spaces and brackets included; after its last bracket the fields are plain.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const resident = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    if (resident === null) return null;
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
      residentBytes: Number(resident[1]) * 1024,
    };
  } catch {
    return null;
  }
}

function clockTicks(): number {
  try {
    return (
      Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })) || 100
    );
  } catch {
    return 100;
  }
}
