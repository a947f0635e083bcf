// What a client believes of the chain: the highest height with a certificate, and who leads. No single replica moves either.

import type { Crypto } from '../crypto/provider.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type { Head } from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { byzantineQuorums, type Quorums } from '../protocol/quorum.ts';
import { asHeight, asReplicaId, asView, type Hash, type Height, type ReplicaId, type View } from '../protocol/types.ts';
import { EpochChain, verifyCertificate } from '../protocol/verify.ts';

export interface CertifiedHead {
  readonly height: Height;
  /** Null at height 0. */
  readonly hash: Hash | null;
  readonly certificate: Certificate | null;
}

export class ChainView {
  readonly quorums: Quorums;
  readonly #epochs: EpochChain;
  #head: CertifiedHead = { height: asHeight(0), hash: null, certificate: null };
  #view: View = asView(0);
  /** The highest view that each replica claimed; one entry for each member. */
  readonly #claimed: number[];

  /** @param genesis with the members of the latest epoch in `epochs`, which is that of the genesis document where none is given */
  constructor(genesis: Genesis, crypto: Crypto, epochs = new EpochChain({ genesis, crypto })) {
    this.quorums = byzantineQuorums(genesis.members.length);
    this.#epochs = epochs;
    this.#claimed = genesis.members.map(() => 0);
  }

  get head(): CertifiedHead {
    return this.#head;
  }
  get height(): Height {
    return this.#head.height;
  }
  get view(): View {
    return this.#view;
  }
  /** The primary of view v is member v mod n (PBFT-PP-1). */
  get primary(): ReplicaId {
    return asReplicaId(this.#view % this.quorums.n);
  }

  /** A replica's word on its head: undefined, or the code of what an honest one never says. */
  hear(from: ReplicaId, { epoch, view, primary, height, certificate }: Head): string | undefined {
    // Of an epoch that this client does not know, or that is over: nothing can be made of it, and it is no lie.
    if (epoch !== this.#epochs.last.epoch) return undefined;
    if (primary !== view % this.quorums.n) return 'head-primary';
    if (certificate !== null) {
      if (certificate.phase !== 'commit' || certificate.height > height) return 'head-certificate';
      // Checked only where it would teach something.
      if (certificate.height > this.height) {
        const signers = this.#epochs.signersOf(certificate.epoch);
        if (signers === undefined || verifyCertificate(certificate, signers) !== null) return 'head-certificate';
        this.certified(certificate);
      }
    }
    this.#claimed[from] = view;
    // One of f+1 replicas is honest: the view that so many have reached, some honest one has reached.
    const sorted = [...this.#claimed].sort((a, b) => b - a);
    this.#enter(asView(sorted[this.quorums.f] ?? 0));
    return undefined;
  }

  /** A commit certificate that was verified. A quorum was in its view. */
  certified(certificate: Certificate): void {
    if (certificate.height <= this.height) return;
    this.#head = { height: certificate.height, hash: certificate.hash, certificate };
    this.#enter(certificate.view);
  }

  #enter(view: View): void {
    if (view > this.#view) this.#view = view;
  }
}
