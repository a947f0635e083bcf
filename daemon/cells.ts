// What a counter or a histogram adds up between two scrapes, in plain numbers. prom-client finds the place of every single value by a string
// that it makes of all labels: measured, three hundredths of what a busy replica does.

import { Histogram, type HistogramConfiguration, type MetricValueWithName } from 'prom-client';
import { assert } from '../protocol/assert.ts';

export type Labels = Readonly<Record<string, string>>;

/** A series with more label sets than this folds the rest into 'other': a label must never become a way to fill memory. */
const labelSetsMax = 1024;

/** One value of type C for each set of labels. */
export class Cells<C> {
  readonly #names: readonly string[];
  readonly #make: (labels: Labels) => C;
  readonly #cells = new Map<string, C>();

  constructor(names: readonly string[], make: (labels: Labels) => C) {
    this.#names = names;
    this.#make = make;
  }

  /** Throws on a label that is none of the series. */
  at(labels: Labels): C {
    const names = this.#names;
    const key = names.length === 1 ? (labels[names[0]!] ?? '') : names.map((name) => labels[name] ?? '').join('\u0000');
    return this.#cells.get(key) ?? this.#add(key, labels);
  }

  values(): IterableIterator<C> {
    return this.#cells.values();
  }

  #add(key: string, labels: Labels): C {
    const names = this.#names;
    assert(
      Object.keys(labels).every((label) => names.includes(label)),
      () => `metrics: a label of ${Object.keys(labels).join(', ')} is not in the table`,
    );
    // The fold has a place of its own beyond the bound.
    const isOther = names.length > 0 && this.#cells.size >= labelSetsMax;
    const place = isOther ? other(names) : key;
    const known = this.#cells.get(place);
    if (known !== undefined) return known;
    const cell = this.#make(Object.fromEntries(names.map((name) => [name, isOther ? 'other' : (labels[name] ?? '')])));
    this.#cells.set(place, cell);
    return cell;
  }
}

const other = (names: readonly string[]): string => names.map(() => 'other').join('\u0000');

/** As prom-client's, with observations that cost an addition. */
export class Distribution extends Histogram {
  readonly #options: { readonly name: string; readonly help: string };
  readonly #bounds: readonly number[];
  readonly #cells: Cells<Observed>;

  constructor(options: HistogramConfiguration<string> & { readonly buckets: number[]; readonly labelNames: string[] }) {
    super(options);
    this.#options = options;
    this.#bounds = options.buckets;
    this.#cells = new Cells(options.labelNames, (labels) => ({
      labels,
      inBuckets: new Float64Array(this.#bounds.length + 1),
      sum: 0,
    }));
    // A series without labels is there from the start.
    if (options.labelNames.length === 0) this.#cells.at({});
  }

  add(labels: Labels, value: number): void {
    const cell = this.#cells.at(labels);
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket += 1;
    cell.inBuckets[bucket]! += 1;
    cell.sum += value;
  }

  /** What the registry asks, and what `get` of the class above rests on. */
  async getForPromString(): Promise<object> {
    const { name, help } = this.#options;
    const values: MetricValueWithName<string>[] = [];
    for (const { labels, inBuckets, sum } of this.#cells.values()) {
      let count = 0;
      for (const [i, bound] of [...this.#bounds, '+Inf'].entries()) {
        count += inBuckets[i]!;
        values.push({ metricName: `${name}_bucket`, labels: { le: bound, ...labels }, value: count });
      }
      values.push({ metricName: `${name}_sum`, labels, value: sum });
      values.push({ metricName: `${name}_count`, labels, value: count });
    }
    return { name, help, type: 'histogram', values, aggregator: 'sum' };
  }
}

interface Observed {
  readonly labels: Labels;
  /** Values up to each bound and above the one before; the last: above all. */
  readonly inBuckets: Float64Array;
  sum: number;
}
