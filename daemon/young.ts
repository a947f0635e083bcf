// Memory outside of the heap counts for the collector, which goes through all of the heap for it, although what a stream needs for a moment is gone with the
// next collection of what is young. That one costs a millisecond. Measured, a replica that sends blocks from its log: 51 % of its processor time in
// collections, and 2 % where the young are collected every 8 MiB. A heap that has become small in the meantime bears less: 54 collections of all of it in
// the second stream from one replica, 3.5 to 5 s of processor time, and 1.6 to 2.2 s where it is every 2 MiB.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
// Cast: what the flag brings has no type.
const collect = runInNewContext('gc') as (options: { readonly type: 'minor' }) => void;
setFlagsFromString('--no-expose-gc');

/** Before the collector takes them for a reason to go through all of the heap. */
const spentBytesMax = 2 << 20;

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
