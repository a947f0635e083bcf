// What a follower runs: blocks in, proven blocks out. One certificate covers its block and, through the parent hashes, every block
// below it (BLK-7), so blocks without one wait here until one comes (docs/wire.md, "Following").

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { type BlockHeader, blockHash, decodeHeader } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Certificate } from '../certificate.ts';
import type { FollowedBlock } from '../door.ts';
import { controlIn, type EpochChain, encodeEpochLink, signersOf } from '../epoch/chain.ts';
import type { EpochDocument } from '../epoch/document.ts';
import type { Parameters } from '../genesis.ts';
import type { CertifiedBlock } from '../messages.ts';
import { proofOf } from '../modes.ts';
import type { Hash, Height } from '../types.ts';
import { blockOf } from './block.ts';
import { own } from './bytes.ts';
import { isRefusal } from './refusal.ts';
import {
  type HeaderMarks,
  headerMarks,
  refuseVerify,
  type SignerSet,
  type VerifyRefusal,
  verifyCertificate,
  verifyMarks,
} from './verify-certificate.ts';

/** What is believed already: the genesis block, or the head of an earlier run. */
export interface TrustedHead {
  readonly height: Height;
  readonly hash: Hash;
}

/** A block that a quorum has decided. */
export interface ProvenBlock {
  readonly header: BlockHeader;
  readonly headerBytes: Bytes;
  readonly hash: Hash;
  /** Null where only the header was given. */
  readonly bundles: readonly SignedBundle[] | null;
  /** Its own; null where a later block's covers it. The last of what one `feed` yields has one. */
  readonly certificate: Certificate | null;
}

export interface ChainOptions extends SignerSet {
  readonly parameters: Parameters;
  /** Null: nothing yet. Then the first block may have any height, and its certificate is the anchor. */
  readonly trusted: TrustedHead | null;
  /** Blocks that may wait for a certificate: 64 (LINKS_MAX) for a follower (WIRE-23). */
  readonly pendingMax: number;
  /**
   * The epochs that are known; those that the blocks themselves prove are added to it. Absent: the one epoch of these signers is all that is
   * followed.
   */
  readonly epochs?: EpochChain | undefined;
}

/** Feeds in order; after a refusal it has changed nothing, so the same blocks may come again from another replica. */
export class ChainVerifier {
  readonly #options: ChainOptions;
  /** Of the epoch of the next block. */
  #signers: SignerSet & Pick<ChainOptions, 'parameters'>;
  #marks: HeaderMarks;
  #head: TrustedHead | null;
  #pending: ProvenBlock[] = [];

  constructor(options: ChainOptions) {
    this.#options = options;
    this.#signers = options;
    this.#marks = headerMarks(options);
    this.#head = options.trusted;
  }

  /** The last proven block; null before the first where nothing was trusted. */
  get head(): TrustedHead | null {
    return this.#head;
  }

  /** Blocks taken in and not proven yet. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Forgets what is not proven: the next block must follow the head again. */
  dropPending(): void {
    this.#pending = [];
  }

  /** [WIRE-23] The blocks that this one proves, rising, itself last; none where it carries no certificate. */
  feed(block: FollowedBlock | CertifiedBlock): readonly ProvenBlock[] | VerifyRefusal {
    const { certificate } = block;
    const headerBytes = 'block' in block ? block.block.headerBytes : block.headerBytes;
    const header = decodeHeader(headerBytes);
    if (header === undefined) return refuseVerify('payload-malformed', 'chain', 'header');
    this.#enterEpochOf(header);
    const refused = this.#misfit(header, certificate);
    if (refused !== undefined) return refused;
    const hash = 'block' in block ? block.block.hash : blockHash(this.#options.crypto.sha256, headerBytes);

    if (certificate !== null) {
      if (certificate.phase !== proofOf(this.#signers).phase)
        return refuseVerify('certificate-phase', 'chain', 'certificate.phase');
      if (certificate.height !== header.height || !equalBytes(certificate.hash, hash))
        return refuseVerify('certificate-place', 'chain', 'certificate');
      const problem = verifyCertificate(certificate, this.#signers);
      if (problem !== null) return { ...problem, kind: 'chain' };
    }
    const proven = this.#open(block, { header, headerBytes, hash, certificate });
    if (isRefusal(proven)) return proven;

    this.#pending.push(proven);
    if (certificate === null) return [];
    const out = this.#pending;
    const next = this.#endEpoch(proven);
    if (next !== null && isRefusal(next)) {
      this.#pending.pop();
      return next;
    }
    this.#pending = [];
    this.#head = { height: header.height, hash };
    if (next !== null) this.#enter(next);
    return out;
  }

  /** [EPO-11] A proven block with a control transaction is a link of the chain of epochs: the members that it names take over. */
  #endEpoch({ bundles, headerBytes, certificate }: ProvenBlock): EpochDocument | VerifyRefusal | null {
    const control = bundles === null ? null : controlIn(bundles);
    const { epochs } = this.#options;
    if (control === null || certificate === null || epochs === undefined) return null;
    const next = epochs.add(encodeEpochLink({ headerBytes, certificate, control }));
    return isRefusal(next) ? { ...next, kind: 'chain' } : next;
  }

  /** Where the blocks have no bodies, or none is believed yet, the epoch of the next one has come to be known otherwise. */
  #enterEpochOf({ epoch }: BlockHeader): void {
    if (epoch === this.#signers.epoch || this.#pending.length > 0) return;
    const document = this.#options.epochs?.at(epoch);
    if (document === undefined) return;
    const { start } = document;
    const head = this.#head;
    if (head === null || (head.height === start.height && equalBytes(head.hash, start.hash))) this.#enter(document);
  }

  #enter(document: EpochDocument): void {
    const { crypto, seen } = this.#options;
    this.#signers = { ...signersOf(document, crypto, seen), parameters: document.parameters };
    this.#marks = headerMarks(this.#signers);
  }

  #misfit(header: BlockHeader, certificate: Certificate | null): VerifyRefusal | undefined {
    const last = this.#pending.at(-1);
    const tip = last === undefined ? this.#head : { height: last.header.height, hash: last.hash };
    const foreign = verifyMarks(header, this.#marks, 'chain');
    if (foreign !== null) return foreign;
    if (tip !== null && header.height !== tip.height + 1) return refuseVerify('chain-broken', 'chain', 'header.height');
    if (tip !== null && !equalBytes(header.parent, tip.hash))
      return refuseVerify('chain-broken', 'chain', 'header.parent');
    if (certificate === null && this.#pending.length >= this.#options.pendingMax)
      return refuseVerify('chain-uncertified', 'chain', 'certificate');
    return undefined;
  }

  /** With the body looked into, which the header commits to. */
  #open(block: FollowedBlock | CertifiedBlock, head: Omit<ProvenBlock, 'bundles'>): ProvenBlock | VerifyRefusal {
    if ('block' in block) return { ...head, bundles: block.block.bundles };
    if (block.bundles === null) return { ...head, headerBytes: own(head.headerBytes), bundles: null };
    const { crypto, parameters } = this.#signers;
    const opened = blockOf(head.headerBytes, block.bundles, { sha256: crypto.sha256, parameters }, 'follow-blocks');
    return isRefusal(opened) ? opened : { ...opened, certificate: head.certificate };
  }
}
