// Other blocks for the same height, as sound as those that were proposed: what a primary needs who wants to tell two chains. A block commits
// to the log below it, so a rival is built by the ledger, on the rival of its parent where there is one.

import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger } from '../protocol/ledger.ts';
import { asEpoch, asMillis, asReplicaId } from '../protocol/types.ts';

export class Rivals {
  /** Follows what is decided, so that the other chains are sound. */
  readonly #ledger: Ledger;
  readonly #blocks = new Map<string, Block>();
  /** By the hash of what was proposed; null where nothing else could stand there. */
  readonly #rivals = new Map<string, Block | null>();

  constructor(genesis: Genesis) {
    this.#ledger = new Ledger({ sha256: native.sha256, genesis, epoch: asEpoch(0) });
  }

  /** A block that others may stand on. */
  know(block: Block): void {
    this.#blocks.set(toHex(block.hash), block);
  }

  /** Goes as far as the decided chain is known; hashes in hex, by height. */
  follow(decided: { get(height: number): string | undefined }): void {
    for (;;) {
      const hash = decided.get(this.#ledger.height + 1);
      const block = hash === undefined ? undefined : this.#blocks.get(hash);
      const extension = block && this.#ledger.extend([], block);
      if (extension === undefined || 'refused' in extension) return;
      this.#ledger.apply(extension);
    }
  }

  /** The rival that was built for a block, if one was asked for. */
  find(hash: Block['hash']): Block | null | undefined {
    return this.#rivals.get(toHex(hash));
  }

  /** The last ones, oldest first. */
  last(count: number): (Block | null)[] {
    return [...this.#rivals.values()].slice(-count);
  }

  /** The same one each time. Null: what lies below it is not known here, or it is decided already. */
  of(block: Block, proposer: number, bundles: () => readonly SignedBundle[] = () => block.bundles): Block | null {
    const known = this.find(block.hash);
    if (known !== undefined) return known;
    const chain = this.#pathTo(this.find(block.header.parent)?.hash ?? block.header.parent);
    const chosen = bundles();
    const time = asMillis(block.header.time + 1);
    const rival =
      chain === null
        ? null
        : (this.#ledger.build(chain, { bundles: chosen, time, proposer: asReplicaId(proposer) })?.block ?? null);
    this.#rivals.set(toHex(block.hash), rival);
    if (rival !== null) this.know(rival);
    return rival;
  }

  #pathTo(hash: Block['hash']): Extension[] | null {
    const path: Block[] = [];
    for (let at = toHex(hash); at !== toHex(this.#ledger.head.hash); ) {
      const block = this.#blocks.get(at);
      if (block === undefined || block.header.height <= this.#ledger.height) return null;
      path.unshift(block);
      at = toHex(block.header.parent);
    }
    const chain: Extension[] = [];
    for (const block of path) {
      const extension = this.#ledger.extend(chain, block);
      if ('refused' in extension) return null;
      chain.push(extension);
    }
    return chain;
  }
}
