// How long a block spends in each phase, from when this replica first saw its proposal. For the metrics alone.

import type { Height } from '../protocol/types.ts';
import type { Meter } from './ports.ts';

/** Blocks being measured at once; the window is far smaller. */
const BLOCKS_MAX = 256;

export class PhaseMeter {
  readonly #meter: Meter;
  readonly #blocks = new Map<Height, { readonly seenAt: number; preparedAt: number | null }>();

  constructor(meter: Meter) {
    this.#meter = meter;
  }

  saw(height: Height): void {
    if (this.#blocks.size >= BLOCKS_MAX) this.#blocks.clear();
    this.#blocks.set(height, { seenAt: performance.now(), preparedAt: null });
  }

  prepared(height: Height): void {
    const block = this.#blocks.get(height);
    if (block === undefined || block.preparedAt !== null) return;
    block.preparedAt = performance.now();
    this.#meter.observe('synod_phase_ms', block.preparedAt - block.seenAt, { phase: 'proposed-to-prepared' });
  }

  decided(height: Height): void {
    const block = this.#blocks.get(height);
    if (block === undefined) return;
    this.#blocks.delete(height);
    const now = performance.now();
    if (block.preparedAt !== null)
      this.#meter.observe('synod_phase_ms', now - block.preparedAt, { phase: 'prepared-to-decided' });
    this.#meter.observe('synod_phase_ms', now - block.seenAt, { phase: 'proposed-to-decided' });
  }
}
