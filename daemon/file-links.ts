// Links of the chain of epochs at the front of a chain file or a witness file: with them whoever has the genesis document alone knows whose signatures
// the rest of the file holds (docs/wire.md, "Chain files").

import type { Bytes } from '../crypto/bytes.ts';
import type { Epoch } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { EPOCHS_FILE_BYTES_MAX } from './epochs-file.ts';

/** [EPO-11] The links that lead from the genesis document to this epoch; null: they are not known. */
export const linksTo = (epochs: EpochChain, epoch: Epoch): readonly Bytes[] | null =>
  epochs.last.epoch < epoch ? null : epochs.links.slice(0, epoch);

/** Takes the links of one file in, from epoch 1 on without a gap. Each is checked before the next is looked at. */
export class LeadingLinks {
  readonly #epochs: EpochChain;
  #count = 0;
  #bytes = 0;

  /** @param epochs what the links prove is added to it */
  constructor(epochs: EpochChain) {
    this.#epochs = epochs;
  }

  /** How many were taken. */
  get count(): number {
    return this.#count;
  }

  /** [WIRE-37] Null, or why this link ends the reading: a code of links, or `epochs-too-large`. */
  take(link: Bytes): { readonly refused: string; readonly problem: string } | null {
    const epoch = this.#count + 1;
    this.#bytes += link.length;
    if (this.#bytes > EPOCHS_FILE_BYTES_MAX)
      return { refused: 'epochs-too-large', problem: `more than ${EPOCHS_FILE_BYTES_MAX} bytes of links` };
    const known = this.#epochs.add(link);
    if ('refused' in known) return { refused: known.refused, problem: `the link to epoch ${epoch}: ${known.field}` };
    if (known.epoch !== epoch)
      return { refused: 'certificate-epoch', problem: `a link to epoch ${known.epoch} in the place of epoch ${epoch}` };
    this.#count += 1;
    return null;
  }
}
