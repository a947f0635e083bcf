// The chain of epochs: a proof, from the genesis document to the members of any later epoch. A link is the last block of an epoch as its
// members have certified it, with the control transaction that it holds; whoever knows the epoch computes the next one from it. Whoever
// knows the genesis document so comes to know every epoch, believing nobody.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { leafHash } from '../../crypto/merkle.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { type BlockHeader, blockHash, decodeHeader, HEADER_BYTES } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Certificate } from '../certificate.ts';
import type { Genesis } from '../genesis.ts';
import { bearsLies, proofOf, quorumsOf, type Trust } from '../modes.ts';
import { decodeMsgpack, encodeMsgpack } from '../msgpack.ts';
import type { Epoch } from '../types.ts';
import { own } from '../wire/bytes.ts';
import {
  CERTIFICATE_FIELDS,
  CERTIFICATE_VALUES_MAX,
  certificateBytesMax,
  certificateValue,
  readCertificate,
} from '../wire/certificate.ts';
import { Fields, MEMBERS_MAX, Problem } from '../wire/fields.ts';
import { refuse, type WireRefusal } from '../wire/refusal.ts';
import type { Seen } from '../wire/seen.ts';
import {
  refuseVerify,
  type SignerSet,
  type VerifyRefusal,
  verifyCertificate,
  verifyMarks,
} from '../wire/verify-certificate.ts';
import { CONTROL_BYTES_MAX, type Control, controlFlaw, decodeControl, isControl } from './control.ts';
import { type EpochDocument, genesisEpoch } from './document.ts';
import { judgeControl, nextEpoch } from './successor.ts';

/**
 * [WIRE-34] The last block of an epoch: its header, the commit certificate of exactly this block (where its members are trusted, the word of one,
 * CFT-PR-1), and the one transaction in it.
 */
export interface EpochLink {
  readonly headerBytes: Bytes;
  readonly certificate: Certificate;
  readonly control: Bytes;
}

export const EPOCH_LINK_BYTES_MAX = 16 + HEADER_BYTES + certificateBytesMax(MEMBERS_MAX) + CONTROL_BYTES_MAX;

export function encodeEpochLink({ headerBytes, certificate, control }: EpochLink): Bytes {
  return encodeMsgpack([headerBytes, certificateValue(certificate), control]);
}

/** [WIRE-34] Well formed, nothing more. Bytes from outside: never throws, and keeps none of them. */
export function decodeEpochLink(bytes: Bytes): EpochLink | WireRefusal {
  const limits = { bytesMax: EPOCH_LINK_BYTES_MAX, depthMax: 4, valuesMax: 3 + CERTIFICATE_VALUES_MAX };
  const decoded = decodeMsgpack(bytes, limits);
  if ('refused' in decoded) return refuse('payload-malformed', 'epoch-link', '', decoded.refused);
  const problem = new Problem();
  const fields = Fields.of(decoded.value, 3, '', problem);
  const headerBytes = fields.owned('header', HEADER_BYTES);
  const certificate = readCertificate(fields.tuple('certificate', CERTIFICATE_FIELDS));
  const control = own(fields.bytes('control', 1, CONTROL_BYTES_MAX));
  if (problem.found !== undefined) return refuse(problem.found.code, 'epoch-link', problem.found.field);
  return { headerBytes, certificate, control };
}

/** [EPO-8] The control transaction of a block that ends its epoch: alone in its bundle, and that alone in the block. */
export function controlIn(bundles: readonly Pick<SignedBundle, 'transactions'>[]): Bytes | null {
  const transaction = bundles.length === 1 ? bundles[0]!.transactions[0] : undefined;
  if (transaction === undefined || bundles[0]!.transactions.length !== 1) return null;
  return isControl(transaction) ? transaction : null;
}

/** [EPO-16] Whose signatures count in an epoch: a key that was replaced or removed signs nothing in the next one, and what it signed before stands. */
export function signersOf(document: EpochDocument, crypto: Crypto, seen?: Seen | undefined): SignerSet {
  const { chainId, epoch, members, protocol, hash } = document;
  const { quorum } = quorumsOf(document);
  return { crypto, chainId, epoch, members, protocol, quorum, memberSetHash: hash, seen };
}

/** [EPO-11] Every epoch that is known so far, each proved by the one before. Grows by one verified link at a time. */
export class EpochChain {
  readonly #crypto: Crypto;
  readonly #seen: Seen | undefined;
  readonly #documents: EpochDocument[];
  readonly #links: Bytes[] = [];

  constructor({ genesis, crypto, seen }: { genesis: Genesis; crypto: Crypto; seen?: Seen | undefined }) {
    this.#crypto = crypto;
    this.#seen = seen;
    this.#documents = [genesisEpoch(crypto.sha256, genesis)];
  }

  /** The latest epoch that is known. */
  get last(): EpochDocument {
    return this.#documents.at(-1)!; // epoch 0 is always there
  }

  /** The links that lead to it, in order, as bytes: whoever has the genesis document checks them. */
  get links(): readonly Bytes[] {
    return this.#links;
  }

  /** Of every epoch that is known, from 0 on. */
  get documents(): readonly EpochDocument[] {
    return this.#documents;
  }

  at(epoch: Epoch): EpochDocument | undefined {
    return this.#documents[epoch];
  }

  /**
   * [CFT-PR-1] What one must believe for a proof of this epoch, which is known: where the members of any epoch up to it are trusted, who its own
   * members are hangs on their word.
   */
  trustUpTo(epoch: Epoch): Trust {
    const known = this.#documents.slice(0, epoch + 1);
    return known.every(({ protocol }) => bearsLies(protocol)) ? 'byzantine' : 'crash-fault';
  }

  /** Undefined: that epoch is not known here. */
  signersOf(epoch: Epoch): SignerSet | undefined {
    const document = this.#documents[epoch];
    return document === undefined ? undefined : signersOf(document, this.#crypto, this.#seen);
  }

  /** [EPO-11] The epoch that this link proves. One that is known already is checked all the same, and changes nothing. */
  add(bytes: Bytes): EpochDocument | VerifyRefusal {
    const link = decodeEpochLink(bytes);
    if ('refused' in link) return link;
    const header = decodeHeader(link.headerBytes);
    if (header === undefined) return refuseVerify('payload-malformed', 'epoch-link', 'header');
    const epoch = this.#documents[header.epoch];
    if (epoch === undefined) return refuseVerify('certificate-epoch', 'epoch-link', 'header.epoch');
    const next = this.#verify(epoch, header, link);
    if ('refused' in next) return next;
    const known = this.#documents[next.epoch];
    if (known === undefined) {
      this.#documents.push(next);
      this.#links.push(own(bytes));
      return next;
    }
    // Two certified ends of one epoch: more than f of its members are faulty.
    if (!equalBytes(known.hash, next.hash)) return refuseVerify('epoch-fork', 'epoch-link', 'header');
    return known;
  }

  /** Whether it says what is known already: of the same block. Whether it proves that is not looked at. */
  knows(bytes: Bytes): boolean {
    const link = decodeEpochLink(bytes);
    if ('refused' in link) return false;
    const header = decodeHeader(link.headerBytes);
    const next = header === undefined ? undefined : this.#documents[header.epoch + 1];
    return next !== undefined && equalBytes(next.start.hash, blockHash(this.#crypto.sha256, link.headerBytes));
  }

  /**
   * The epoch that this process itself has seen decided: what decided it has checked all that a link proves. False: an earlier one is missing here, or
   * another one is known in its place.
   */
  append(next: EpochDocument, link: EpochLink): boolean {
    const known = this.#documents[next.epoch];
    if (known !== undefined) return equalBytes(known.hash, next.hash);
    if (next.epoch !== this.last.epoch + 1) return false;
    this.#documents.push(next);
    this.#links.push(encodeEpochLink(link));
    return true;
  }

  #verify(epoch: EpochDocument, header: BlockHeader, link: EpochLink): EpochDocument | VerifyRefusal {
    const { sha256 } = this.#crypto;
    const { headerBytes, certificate, control } = link;
    const signers = signersOf(epoch, this.#crypto, this.#seen);
    const foreign = verifyMarks(
      header,
      { chainId: epoch.chainId, epoch: epoch.epoch, memberSetHash: epoch.hash },
      'epoch-link',
    );
    if (foreign !== null) return foreign;
    const hash = blockHash(sha256, headerBytes);
    if (certificate.phase !== proofOf(epoch).phase)
      return refuseVerify('certificate-phase', 'epoch-link', 'certificate.phase');
    if (certificate.height !== header.height || !equalBytes(certificate.hash, hash))
      return refuseVerify('certificate-place', 'epoch-link', 'certificate');
    const problem = verifyCertificate(certificate, signers);
    if (problem !== null) return { ...problem, kind: 'epoch-link' };
    // It is all that the block holds: a tree of one leaf is that leaf.
    if (header.transactionCount !== 1 || !equalBytes(leafHash(sha256, control), header.transactionRoot))
      return refuseVerify('epoch-control', 'epoch-link', 'control');
    return proceed(this.#crypto, epoch, control, { height: header.height, hash });
  }
}

/** The next epoch, from a control transaction in a block that this epoch's members have decided. */
function proceed(
  crypto: Crypto,
  epoch: EpochDocument,
  transaction: Bytes,
  start: EpochDocument['start'],
): EpochDocument | VerifyRefusal {
  const control: Control | WireRefusal = decodeControl(crypto.sha256, transaction);
  if ('refused' in control) return control;
  // Honest members have checked all this before they voted; a verifier does not rest on that.
  const flaw = controlFlaw(crypto, epoch.chainId, control);
  if (flaw !== null) return refuseVerify('epoch-control', 'epoch-link', `control.${flaw.field}`);
  const successor = judgeControl(epoch, control, start.height);
  if ('refused' in successor) return refuseVerify('epoch-control', 'epoch-link', `control.${successor.field}`);
  return nextEpoch(crypto.sha256, epoch, successor, start);
}
