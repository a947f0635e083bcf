// What a client believes of the chain: the highest height with a certificate, and who leads. No single replica moves either.

import type { Crypto } from '../crypto/provider.ts';
import type { Certificate, ProofPhase } from '../protocol/certificate.ts';
import type { Head } from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { proofOf, quorumsOf } from '../protocol/modes.ts';
import type { Quorums } from '../protocol/quorum.ts';
import { asHeight, asReplicaId, asView, type Hash, type Height, type ReplicaId, type View } from '../protocol/types.ts';
import { genesisSigners, type SignerSet, verifyCertificate } from '../protocol/verify.ts';

export interface CertifiedHead {
  readonly height: Height;
  /** Null at height 0. */
  readonly hash: Hash | null;
  readonly certificate: Certificate | null;
}

export class ChainView {
  readonly quorums: Quorums;
  readonly #signers: SignerSet;
  /** Of the certificates that decide blocks here. */
  readonly #phase: ProofPhase;
  #head: CertifiedHead = { height: asHeight(0), hash: null, certificate: null };
  #view: View = asView(0);
  /** The highest view that each replica claimed; one entry for each member. */
  readonly #claimed: number[];

  constructor(genesis: Genesis, crypto: Crypto) {
    this.quorums = quorumsOf(genesis);
    this.#phase = proofOf(genesis).phase;
    this.#signers = genesisSigners({ genesis, crypto });
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
  hear(from: ReplicaId, { view, primary, height, certificate }: Head): string | undefined {
    if (primary !== view % this.quorums.n) return 'head-primary';
    if (certificate !== null) {
      if (certificate.phase !== this.#phase || certificate.height > height) return 'head-certificate';
      // Checked only where it would teach something.
      if (certificate.height > this.height) {
        if (verifyCertificate(certificate, this.#signers) !== null) return 'head-certificate';
        this.certified(certificate);
      }
    }
    this.#claimed[from] = view;
    // One of so many replicas is honest: the view that all of them have reached, some honest one has reached.
    const sorted = [...this.#claimed].sort((a, b) => b - a);
    this.#enter(asView(sorted[this.quorums.oneHonest - 1] ?? 0));
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
