// Memory outside of the heap counts for the collector, which goes through all of the heap for it, although what a stream needs for a moment is gone with the
// next collection of what is young. That one costs a millisecond. Measured, a replica that sends blocks from its log: 51 % of its processor time in
// collections, and 2 % where the young are collected every 8 MiB.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
// Cast: what the flag brings has no type.
const collect = runInNewContext('gc') as (options: { readonly type: 'minor' }) => void;
setFlagsFromString('--no-expose-gc');

/** Before the collector takes them for a reason to go through all of the heap. */
const spentBytesMax = 8 << 20;

/** Of memory outside of the heap that is garbage by now, or soon. */
export class SpentBytes {
  #bytes = 0;

  /** Collects the young when it is time. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < spentBytesMax) return;
    this.#bytes = 0;
    collect({ type: 'minor' });
  }
}
