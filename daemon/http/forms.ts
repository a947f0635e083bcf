// Values of the protocol as JSON: hashes, keys and signatures in hex, transactions in the encoding that was asked for.

import { toBase64 } from '../../crypto/base64.ts';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import type { Block, BlockHeader } from '../../protocol/block.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import type { Epoch, Hash } from '../../protocol/types.ts';
import type { EpochChain, TransactionReceipt } from '../../protocol/verify.ts';
import type { CertifiedChain, Delivered } from '../gateway/block-source.ts';

export type Encoding = 'hex' | 'base64';

export function encoded(bytes: Bytes, encoding: Encoding): string {
  return encoding === 'hex' ? toHex(bytes) : toBase64(bytes);
}

export function headerForm(header: BlockHeader, hash: Hash) {
  return {
    height: header.height,
    hash: toHex(hash),
    parent: toHex(header.parent),
    chainId: toHex(header.chainId),
    epoch: header.epoch,
    time: header.time,
    proposer: header.proposer,
    transactionRoot: toHex(header.transactionRoot),
    logRoot: toHex(header.logRoot),
    transactionTotal: header.transactionTotal,
    memberSetHash: toHex(header.memberSetHash),
    bodyHash: toHex(header.bodyHash),
    bundleCount: header.bundleCount,
    transactionCount: header.transactionCount,
    payloadBytes: header.payloadBytes,
  };
}

/** As in a transaction's receipt (docs/wire.md, "Receipts"). */
export function certificateForm({
  epoch,
  view,
  height,
  hash,
  signatures,
}: Certificate): TransactionReceipt['certificate'] {
  return {
    epoch,
    view,
    height,
    hash: toHex(hash),
    signatures: signatures.map(({ replica, signature }) => ({ replica, signature: toHex(signature) })),
  };
}

export function blockForm({ block, links, certificate }: CertifiedChain, encoding: Encoding) {
  return {
    header: headerForm(block.header, block.hash),
    headerBytes: toHex(block.headerBytes),
    links: links.map(toHex),
    certificate: certificateForm(certificate),
    encoding,
    bundles: bundlesForm(block, encoding),
  };
}

function bundlesForm(block: Block, encoding: Encoding) {
  return block.bundles.map(({ digest, client, session, sequence, validUntil, signature, transactions }) => ({
    digest: toHex(digest),
    client: toHex(client),
    session,
    sequence,
    validUntil,
    signature: toHex(signature),
    transactions: transactions.map((transaction) => encoded(transaction, encoding)),
  }));
}

/** What part of a bundle an answer is about. */
export interface Part {
  /** Index in the bundle. */
  readonly first: number;
  readonly count: number;
}

/** Of all the receipts in one answer: what proves the epochs stands in each of them. */
const epochsCharsMax = 16 << 20;

/** Do so many receipts of one epoch go into one answer? */
export function receiptsFit(epoch: Epoch, count: number, epochs: Pick<EpochChain, 'links'>): boolean {
  const links = epochs.links.slice(0, epoch);
  return 2 * count * links.reduce((bytes, link) => bytes + link.length, 0) <= epochsCharsMax;
}

/** Where transactions stand, and, unless `epochs` is null, the receipt of each: a file that `synod verify` takes as it is. */
export function committedForm(delivered: Delivered, { first, count }: Part, epochs: EpochChain | null) {
  const { bundle, receipt, maker } = delivered;
  const { header, hash } = maker.chain.block;
  return {
    status: 'committed',
    bundle: toHex(bundle.digest),
    firstInBundle: first,
    height: header.height,
    time: header.time,
    blockHash: toHex(hash),
    firstTransaction: receipt.firstTransaction + first,
    transactionCount: count,
    ...(epochs === null ? {} : { receipts: transactionReceipts(delivered, { first, count }, epochs) }),
  };
}

/** [WIRE-26] The same as transactionReceipt of protocol/verify.ts gives, from the block's tree, so that many of them cost O(log n) each. */
export function transactionReceipts(
  { bundle, receipt, maker }: Delivered,
  { first, count }: Part,
  epochs: EpochChain,
): TransactionReceipt[] {
  const { chain } = maker;
  const { block } = chain;
  const { epoch } = chain.certificate;
  const trust = epochs.trustUpTo(epoch);
  const links = epochs.links.slice(0, epoch).map(toHex);
  const shared = {
    synod: 'transaction-receipt',
    version: 1,
    chainId: toHex(block.header.chainId),
    // [CFT-PR-1]
    ...(trust === 'byzantine' ? {} : { trust }),
    header: toHex(block.headerBytes),
    links: chain.links.map(toHex),
    certificate: certificateForm(chain.certificate),
  } as const;
  return bundle.transactions.slice(first, first + count).map((transaction, offset) => {
    const index = receipt.firstTransaction + first + offset;
    return {
      ...shared,
      index,
      proof: maker.inclusionProof(index).map(toHex),
      transaction: toBase64(transaction),
      ...(epoch === 0 ? {} : { epochs: links }),
    };
  });
}
