// What a client believes of the chain: the highest height with a certificate, and who leads. No single replica moves either.

import type { Certificate } from '../protocol/certificate.ts';
import type { Head } from '../protocol/door.ts';
import type { Parameters } from '../protocol/genesis.ts';
import { proofOf, quorumsOf } from '../protocol/modes.ts';
import type { Quorums } from '../protocol/quorum.ts';
import {
  asHeight,
  asReplicaId,
  asView,
  type Epoch,
  type Hash,
  type Height,
  type ReplicaId,
  type View,
} from '../protocol/types.ts';
import { type EpochChain, type EpochDocument, verifyCertificate } from '../protocol/verify.ts';

export interface CertifiedHead {
  readonly height: Height;
  /** Null at height 0. */
  readonly hash: Hash | null;
  readonly certificate: Certificate | null;
}

export class ChainView {
  readonly #epochs: EpochChain;
  #head: CertifiedHead = { height: asHeight(0), hash: null, certificate: null };
  #view: View = asView(0);
  /** The highest view that each replica claimed; one entry for each member. */
  #claimed: number[];
  #document: EpochDocument;
  #quorums: Quorums;

  constructor(epochs: EpochChain) {
    this.#epochs = epochs;
    this.#document = epochs.last;
    this.#quorums = quorumsOf(this.#document);
    this.#claimed = this.#document.members.map(() => 0);
  }

  /** The epoch whose members are talked to. */
  get epoch(): Epoch {
    return this.#document.epoch;
  }
  get parameters(): Parameters {
    return this.#document.parameters;
  }
  get quorums(): Quorums {
    return this.#quorums;
  }

  /** The latest epoch that is known: its members, and views from 0 on. What was certified stays. */
  enter(): void {
    this.#document = this.#epochs.last;
    this.#quorums = quorumsOf(this.#document);
    this.#claimed = this.#document.members.map(() => 0);
    this.#view = asView(0);
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
    if (epoch !== this.epoch) return undefined;
    if (primary !== view % this.quorums.n) return 'head-primary';
    const code = this.hearCertificate({ height, certificate });
    if (code !== undefined) return code;
    this.#claimed[from] = view;
    // One of so many replicas is honest: the view that all of them have reached, some honest one has reached.
    const sorted = [...this.#claimed].sort((a, b) => b - a);
    this.#enter(asView(sorted[this.quorums.oneHonest - 1] ?? 0));
    return undefined;
  }

  /** What a node's head proves, whoever it is: undefined, or the code of what an honest one never says. */
  hearCertificate({ height, certificate }: Pick<Head, 'height' | 'certificate'>): string | undefined {
    if (certificate === null) return undefined;
    if (certificate.height > height) return 'head-certificate';
    // Checked only where it would teach something.
    if (certificate.height <= this.height) return undefined;
    const signers = this.#epochs.signersOf(certificate.epoch);
    if (signers === undefined || certificate.phase !== proofOf(signers).phase) return 'head-certificate';
    if (verifyCertificate(certificate, signers) !== null) return 'head-certificate';
    this.certified(certificate);
    return undefined;
  }

  /** A commit certificate that was verified. A quorum was in its view. */
  certified(certificate: Certificate): void {
    if (certificate.height <= this.height) return;
    this.#head = { height: certificate.height, hash: certificate.hash, certificate };
    if (certificate.epoch === this.epoch) this.#enter(certificate.view);
  }

  #enter(view: View): void {
    if (view > this.#view) this.#view = view;
  }
}
