// Latencies in constant memory: buckets that grow with the value, each at most 1 % wide, from a microsecond to minutes.

/** In milliseconds. */
const lowest = 0.001;
const growth = Math.log(1.01);
const bucketsMax = 2048;

export interface Quantiles {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export class Histogram {
  readonly #buckets = new Uint32Array(bucketsMax);
  #count = 0;
  #max = 0;

  record(ms: number): void {
    const place = Math.floor(Math.log(Math.max(ms, lowest) / lowest) / growth);
    this.#buckets[Math.min(place, bucketsMax - 1)]! += 1;
    this.#count += 1;
    if (ms > this.#max) this.#max = ms;
  }

  /** The upper edge of the bucket, so never too good; NaN while nothing was recorded. */
  quantile(q: number): number {
    if (this.#count === 0) return Number.NaN;
    let left = Math.ceil(q * this.#count);
    for (const [place, count] of this.#buckets.entries()) {
      left -= count;
      if (left <= 0) return Math.min(lowest * Math.exp((place + 1) * growth), this.#max);
    }
    return this.#max;
  }

  quantiles(): Quantiles {
    const [p50, p90, p99] = [this.quantile(0.5), this.quantile(0.9), this.quantile(0.99)];
    return { count: this.#count, p50, p90, p99, max: this.#max };
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? 0)) / 2;
}
