// Figures from what was measured.

/** Nearest-rank percentile, q from 0 to 1; NaN for none. */
export function percentile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

/** The longest time between two neighbours of rising `times`, of those pairs that touch [from, to]. */
export function longestPause(times: readonly number[], from: number, to: number): number {
  let longest = 0;
  for (let i = 1; i < times.length; i++) {
    const before = times[i - 1] ?? 0;
    const after = times[i] ?? 0;
    if (after >= from && before <= to) longest = Math.max(longest, after - before);
  }
  return longest;
}

export const milliseconds = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
