// The blocks of a stream, believed only once a commit certificate covers them. The links and the bodies are protocol/verify.ts's
// business; this adds where the stream begins and ends. A stream from height 1 on is anchored by the genesis block, one that begins
// higher up by its first certificate.

import type { Crypto } from '../crypto/provider.ts';
import { decodeHeader } from '../protocol/block.ts';
import { LINKS_MAX } from '../protocol/codec.ts';
import type * as door from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { asEpoch, asHeight, type Height } from '../protocol/types.ts';
import { ChainVerifier, EpochChain, type ProvenBlock, type TrustedHead, type VerifyCode } from '../protocol/verify.ts';

/**
 * A decided block. Bundles and transactions are views into what was received, up to a megabyte: copy what is kept for long.
 * `bundles` is null where only headers were asked for; `certificate` where a later block's covers this one.
 */
export type FollowedBlock = ProvenBlock;

/** What an honest replica never sends in a stream. */
export type FollowRefusal = VerifyCode | 'follow-height' | 'follow-body';

export interface FollowChainOptions {
  readonly genesis: Genesis;
  /** What is known of the epochs; what the stream proves is added. Default: that of the genesis document. */
  readonly epochs?: EpochChain | undefined;
  readonly crypto: Crypto;
  readonly from: Height;
  /** The last height that is delivered; headers above it serve as proof only. */
  readonly to: Height;
  readonly headersOnly: boolean;
}

export class FollowChain {
  readonly #options: FollowChainOptions;
  readonly #epochs: EpochChain;
  /** The last proven block, or what must come right before the first; no hash: the first certificate is the anchor. */
  #head: { readonly height: Height; readonly hash: TrustedHead['hash'] | null };
  #began = false;
  /** Null until the first block has come from the present replica. */
  #verifier: ChainVerifier | null = null;

  constructor(options: FollowChainOptions) {
    this.#options = options;
    const { genesis, crypto, from } = options;
    this.#epochs = options.epochs ?? new EpochChain({ genesis, crypto });
    const first = this.#epochs.at(asEpoch(0))!; // always known
    this.#head = from === 1 ? first.start : { height: asHeight(from - 1), hash: null };
  }

  /** The next height to be proved. */
  get next(): Height {
    return asHeight(this.#head.height + 1);
  }
  /** Something was proved. */
  get began(): boolean {
    return this.#began;
  }
  /** Blocks that wait for a certificate, those above `to` not counted. */
  get unproved(): number {
    return Math.min(this.#verifier?.pending ?? 0, Math.max(0, this.#options.to - this.#head.height));
  }

  /** Begins again behind the last proven block: another replica sends now. */
  restart(): void {
    this.#verifier = null;
  }

  /** Before anything was proved: the replica's history begins later. */
  skipTo(height: Height): void {
    if (!this.began && height > this.next) this.#head = { height: asHeight(height - 1), hash: null };
    this.restart();
  }

  /** The blocks up to `to` that this one proves, rising; often none. */
  take(block: door.FollowedBlock): readonly FollowedBlock[] | { readonly refused: FollowRefusal } {
    const { to, headersOnly } = this.#options;
    const verifier = this.#verifier ?? this.#anchor(block);
    if ('refused' in verifier) return verifier;
    this.#verifier = verifier;
    const height = this.#head.height + verifier.pending + 1;
    // Without this a body could be left out, and nothing in the chain of headers would show it.
    if ((block.bundles === null) !== (headersOnly || height > to)) return { refused: 'follow-body' };
    const proven = verifier.feed(block);
    if ('refused' in proven) return { refused: proven.refused };
    const last = proven.at(-1);
    if (last === undefined) return [];
    if (verifier.head !== null) this.#head = verifier.head;
    this.#began = true;
    return last.header.height <= to ? proven : proven.filter(({ header }) => header.height <= to);
  }

  #anchor({ headerBytes }: door.FollowedBlock): ChainVerifier | { readonly refused: FollowRefusal } {
    const { height, hash } = this.#head;
    // Without a block before it the verifier takes any height for the first; the one that was asked for is the only right one.
    const header = decodeHeader(headerBytes);
    if (hash === null && header?.height !== this.next) return { refused: 'follow-height' };
    const epoch = header !== undefined && this.#epochs.at(header.epoch) !== undefined ? header.epoch : asEpoch(0);
    return new ChainVerifier({
      ...this.#epochs.signersOf(epoch)!, // known, as just seen
      parameters: this.#epochs.at(epoch)!.parameters,
      epochs: this.#epochs,
      trusted: hash === null ? null : { height, hash },
      pendingMax: LINKS_MAX,
    });
  }
}
