// Figures of the transport, added up in plain numbers and handed to the meter at every sweep: a labelled counter per frame would
// cost more than sending the frame.

import type { Lane, Meter } from '../ports.ts';

/** What a figure is about: a lane of the peers, or the clients. */
export type Channel = Lane | 'client';

/** Distinct series that the transport makes at most; further ones are counted as `other`. Codes come from a closed set, so this never acts. */
const seriesMax = 512;

export class Tally {
  readonly #meter: Meter;
  readonly #counts = new Map<string, { readonly name: string; readonly labels: Record<string, string>; by: number }>();
  readonly frames = { vote: new Flow(), bulk: new Flow(), client: new Flow() };

  constructor(meter: Meter) {
    this.#meter = meter;
  }

  count(name: string, labels: Readonly<Record<string, string>> = {}, by = 1): void {
    const key = `${name} ${Object.values(labels).join(' ')}`;
    const known = this.#counts.get(key);
    if (known !== undefined) known.by += by;
    else if (this.#counts.size < seriesMax) this.#counts.set(key, { name, labels: { ...labels }, by });
    else this.#meter.count('synod_transport_other_total', {}, by);
  }

  gauge(name: string, value: number, labels: Readonly<Record<string, string>> = {}): void {
    this.#meter.gauge(name, value, labels);
  }

  /** Hands everything over. */
  flush(): void {
    for (const entry of this.#counts.values()) {
      if (entry.by > 0) this.#meter.count(entry.name, entry.labels, entry.by);
      entry.by = 0;
    }
    for (const [channel, flow] of Object.entries(this.frames)) {
      const labels = { lane: channel };
      for (const [name, by] of flow.take()) if (by > 0) this.#meter.count(`synod_transport_${name}_total`, labels, by);
    }
  }
}

/** Hot counters of one channel. */
export class Flow {
  framesIn = 0;
  bytesIn = 0;
  framesOut = 0;
  bytesOut = 0;
  dropped = 0;
  throttled = 0;

  take(): readonly (readonly [string, number])[] {
    const out = [
      ['frames_in', this.framesIn],
      ['bytes_in', this.bytesIn],
      ['frames_out', this.framesOut],
      ['bytes_out', this.bytesOut],
      ['frames_dropped', this.dropped],
      ['throttled', this.throttled],
    ] as const;
    this.framesIn = this.bytesIn = this.framesOut = this.bytesOut = this.dropped = this.throttled = 0;
    return out;
  }
}
