// Receipts: proof that transactions stand in the decided log, checked offline from the genesis document alone (docs/wire.md,
// "Receipts"). A bundle's receipt is what a replica answers; a transaction's is a JSON file that stands for itself.

import { z } from 'zod';
import { fromBase64, toBase64 } from '../../crypto/base64.ts';
import { type Bytes, equalBytes, fromHex, toHex } from '../../crypto/bytes.ts';
import { leafHash, verifyInclusion, verifyRange } from '../../crypto/merkle.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { type BlockHeader, blockHash, decodeHeader, HEADER_BYTES } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import type { BundleReceipt } from '../door.ts';
import type { EpochChain } from '../epoch/chain.ts';
import type { Genesis } from '../genesis.ts';
import type { OfProtocol, Trust } from '../modes.ts';
import { proofOf, quorumsOf } from '../modes.ts';
import {
  asEpoch,
  asHash,
  asHeight,
  asReplicaId,
  asView,
  type Epoch,
  type Hash,
  type Height,
  type Millis,
} from '../types.ts';
import { MEMBERS_MAX } from './fields.ts';
import { inclusionFromRange } from './inclusion.ts';
import { LINKS_MAX, PROOF_HASHES_MAX } from './replica-payloads.ts';
import type { Seen } from './seen.ts';
import {
  headerMarks,
  refuseVerify,
  type SignerSet,
  type VerifyRefusal,
  verifyCertificate,
  verifyMarks,
} from './verify-certificate.ts';

export interface ReceiptContext {
  readonly genesis: Pick<Genesis, 'chainId' | 'members'> & OfProtocol;
  readonly crypto: Crypto;
  readonly seen?: Seen | undefined;
  /** The epochs that are known beside the first; what a receipt proves may lie in any of them. */
  readonly epochs?: EpochChain | undefined;
}

/** Where proven transactions stand. */
export interface ProvenRange {
  readonly header: BlockHeader;
  readonly hash: Hash;
  readonly height: Height;
  readonly time: Millis;
  /** Index in the block of the first of them. */
  readonly firstTransaction: number;
}

/**
 * [WIRE-24] Proves these transactions, in this order, whole: give those of the bundle one sent. The receipt's digest is a name to find
 * it by and is not proven; the transactions are.
 */
export function verifyReceipt(
  receipt: BundleReceipt,
  context: ReceiptContext,
  transactions: readonly Bytes[],
): ProvenRange | VerifyRefusal {
  const { crypto } = context;
  const decided = verifyDecided(receipt, context);
  if ('refused' in decided) return decided;
  if (transactions.length !== receipt.transactionCount)
    return refuseVerify('receipt-range', 'receipt', 'transactionCount');
  const leaves = transactions.map((transaction) => leafHash(crypto.sha256, transaction));
  const { header, hash } = decided;
  const { firstTransaction, proof } = receipt;
  const size = header.transactionCount;
  const root = header.transactionRoot;
  if (!verifyRange({ sha256: crypto.sha256, leaves, start: firstTransaction, size, proof, root }))
    return refuseVerify('receipt-range', 'receipt', 'proof');
  return { header, hash, height: header.height, time: header.time, firstTransaction };
}

/** A header, the headers from it to a certified one, and that one's certificate. */
export interface DecidedHeader {
  readonly headerBytes: Bytes;
  readonly links: readonly Bytes[];
  readonly certificate: Certificate;
}

/** [WIRE-25] The header, if a quorum of its epoch's members has decided it or a block above it. */
export function verifyDecided(
  { headerBytes, links, certificate }: DecidedHeader,
  { genesis, crypto, seen, epochs }: ReceiptContext,
): { readonly header: BlockHeader; readonly hash: Hash } | VerifyRefusal {
  const header = decodeHeader(headerBytes);
  if (header === undefined) return refuseVerify('receipt-malformed', 'receipt', 'header');
  // Whatever links a block to its certificate is of its own epoch: the last block of an epoch has one itself.
  const signers = epochs?.signersOf(header.epoch) ?? genesisSigners({ genesis, crypto, seen });
  const marks = headerMarks(signers);
  const foreign = verifyMarks(header, marks, 'receipt');
  if (foreign !== null) return foreign;
  if (links.length > LINKS_MAX) return refuseVerify('receipt-malformed', 'receipt', 'links');
  const hash = blockHash(crypto.sha256, headerBytes);
  let tip = { height: header.height, hash };
  for (const bytes of links) {
    const link = decodeHeader(bytes);
    if (link === undefined) return refuseVerify('receipt-malformed', 'receipt', 'links');
    const foreignLink = verifyMarks(link, marks, 'receipt', 'links');
    if (foreignLink !== null) return foreignLink;
    if (link.height !== tip.height + 1 || !equalBytes(link.parent, tip.hash))
      return refuseVerify('chain-broken', 'receipt', 'links');
    tip = { height: link.height, hash: blockHash(crypto.sha256, bytes) };
  }
  if (certificate.phase !== proofOf(signers).phase)
    return refuseVerify('certificate-phase', 'receipt', 'certificate.phase');
  if (certificate.height !== tip.height || !equalBytes(certificate.hash, tip.hash))
    return refuseVerify('certificate-place', 'receipt', 'certificate');
  const problem = verifyCertificate(certificate, signers);
  return problem === null ? { header, hash } : { ...problem, kind: 'receipt' };
}

/** [CFT-PR-1] What one must believe of the members for what this epoch decides. */
function trustOf({ genesis, epochs }: ReceiptContext, epoch: Epoch): Trust {
  return epochs === undefined ? proofOf(genesis).trust : epochs.trustUpTo(epoch);
}

/** The signers of epoch 0. */
export function genesisSigners({ genesis, crypto, seen }: ReceiptContext): SignerSet {
  const { chainId, members, protocol } = genesis;
  return { crypto, chainId, members, protocol, epoch: asEpoch(0), quorum: quorumsOf(genesis).quorum, seen };
}

/** A transaction's receipt as it is kept in a file: all of it text. */
export interface TransactionReceipt {
  readonly synod: 'transaction-receipt';
  readonly version: 1;
  /** Hex, like everything binary here but the transaction. */
  readonly chainId: string;
  /**
   * What one must believe of the members for this to prove anything (CFT-PR-1). Absent: that at most f of n are faulty, in whatever way,
   * and a quorum has signed. 'crash-fault': that none of them lies; one of them says that a majority has decided.
   */
  readonly trust?: 'crash-fault' | undefined;
  readonly header: string;
  readonly links: readonly string[];
  readonly certificate: {
    readonly epoch: number;
    readonly view: number;
    readonly height: number;
    readonly hash: string;
    readonly signatures: readonly { readonly replica: number; readonly signature: string }[];
  };
  /** Of the transaction in its block. */
  readonly index: number;
  /** RFC 6962 inclusion proof under the header's transaction root, from the leaf up. */
  readonly proof: readonly string[];
  /** Base64. */
  readonly transaction: string;
  /** The links of the chain of epochs, from the genesis document to the block's epoch; absent for epoch 0. */
  readonly epochs?: readonly string[] | undefined;
}

/** Cuts one transaction's receipt out of a bundle's; `receipt` has been verified. `index` counts inside the bundle. */
export function transactionReceipt(
  receipt: BundleReceipt,
  context: ReceiptContext,
  transactions: readonly Bytes[],
  index: number,
): TransactionReceipt | VerifyRefusal {
  const proven = verifyReceipt(receipt, context, transactions);
  if ('refused' in proven) return proven;
  const transaction = transactions[index];
  if (transaction === undefined) return refuseVerify('receipt-range', 'receipt', 'index');
  const { sha256 } = context.crypto;
  const { certificate, firstTransaction, proof } = receipt;
  const path = inclusionFromRange({
    sha256,
    leaves: transactions.map((each) => leafHash(sha256, each)),
    start: firstTransaction,
    size: proven.header.transactionCount,
    proof,
    index: firstTransaction + index,
  });
  const { epoch, view, height, hash, signatures } = certificate;
  const trust = trustOf(context, epoch);
  return {
    synod: 'transaction-receipt',
    version: 1,
    chainId: toHex(context.genesis.chainId),
    ...(trust === 'byzantine' ? {} : { trust }),
    header: toHex(receipt.headerBytes),
    links: receipt.links.map(toHex),
    certificate: {
      epoch,
      view,
      height,
      hash: toHex(hash),
      signatures: signatures.map(({ replica, signature }) => ({ replica, signature: toHex(signature) })),
    },
    index: firstTransaction + index,
    proof: path.map(toHex),
    transaction: toBase64(transaction),
    ...(epoch === 0 ? {} : { epochs: (context.epochs?.links ?? []).slice(0, epoch).map(toHex) }),
  };
}

const hexOf = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));
const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
/** Base64 of the largest transaction that any genesis allows. */
const transactionCharsMax = Math.ceil(524_288 / 3) * 4;

const receiptSchema = z.strictObject({
  synod: z.literal('transaction-receipt'),
  version: z.literal(1),
  chainId: hexOf(32),
  trust: z.literal('crash-fault').optional(),
  header: hexOf(HEADER_BYTES),
  links: z.array(hexOf(HEADER_BYTES)).max(LINKS_MAX),
  certificate: z.strictObject({
    epoch: count,
    view: count,
    height: count,
    hash: hexOf(32),
    signatures: z
      .array(
        z.strictObject({
          replica: z
            .int()
            .min(0)
            .max(MEMBERS_MAX - 1),
          signature: hexOf(64),
        }),
      )
      .max(MEMBERS_MAX),
  }),
  index: count,
  proof: z.array(hexOf(32)).max(PROOF_HASHES_MAX),
  transaction: z.string().max(transactionCharsMax),
  epochs: z
    .array(z.string().regex(/^(?:[0-9a-f]{2})+$/))
    .min(1)
    .optional(),
});

/** More than the largest receipt. */
export const RECEIPT_CHARS_MAX = 1 << 20;

/** A receipt in this JSON, its form alone checked. */
export function parseReceipt(text: string): TransactionReceipt | VerifyRefusal {
  if (text.length > RECEIPT_CHARS_MAX) return refuseVerify('receipt-malformed', 'receipt', '(size)');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return refuseVerify('receipt-malformed', 'receipt', '(json)');
  }
  const parsed = receiptSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  return refuseVerify('receipt-malformed', 'receipt', parsed.error.issues[0]?.path.join('.') ?? '');
}

/** What a transaction's receipt proves. */
export interface ProvenTransaction {
  readonly height: Height;
  readonly time: Millis;
  /** Of the transaction in its block. */
  readonly index: number;
  readonly transaction: Bytes;
  readonly blockHash: Hash;
  readonly trust: Trust;
}

/** [WIRE-26] From the file's text and the genesis alone. */
export function verifyTransactionReceipt(text: string, context: ReceiptContext): ProvenTransaction | VerifyRefusal {
  const receipt = parseReceipt(text);
  if ('refused' in receipt) return receipt;
  const transaction = fromBase64(receipt.transaction);
  if (transaction === undefined) return refuseVerify('receipt-malformed', 'receipt', 'transaction');
  // Not proven by the chain below, but a receipt that names another chain than it proves is not to be passed on.
  if (receipt.chainId !== toHex(context.genesis.chainId)) return refuseVerify('chain-mismatch', 'receipt', 'chainId');
  const { epoch, view, height, hash, signatures } = receipt.certificate;
  for (const link of receipt.epochs ?? []) {
    if (context.epochs === undefined) return refuseVerify('certificate-epoch', 'receipt', 'epochs');
    const known = context.epochs.add(bytesOf(link));
    if ('refused' in known) return { ...known, kind: 'receipt', field: `epochs.${known.field}` };
  }
  // [CFT-PR-1] A receipt says itself what it is worth, and never claims more or less than its chain gives.
  const trust = trustOf(context, asEpoch(epoch));
  if ((receipt.trust ?? 'byzantine') !== trust) return refuseVerify('receipt-trust', 'receipt', 'trust');
  const decided = verifyDecided(
    {
      headerBytes: bytesOf(receipt.header),
      links: receipt.links.map(bytesOf),
      certificate: {
        phase: proofOf(context.epochs?.at(asEpoch(epoch)) ?? context.genesis).phase,
        epoch: asEpoch(epoch),
        view: asView(view),
        height: asHeight(height),
        hash: asHash(bytesOf(hash)),
        signatures: signatures.map((each) => ({
          replica: asReplicaId(each.replica),
          signature: bytesOf(each.signature),
        })),
      },
    },
    context,
  );
  if ('refused' in decided) return decided;
  const { sha256 } = context.crypto;
  const { transactionCount: size, transactionRoot: root } = decided.header;
  const claim = {
    leaf: leafHash(sha256, transaction),
    index: receipt.index,
    size,
    proof: receipt.proof.map(bytesOf),
    root,
  };
  if (!verifyInclusion({ sha256, ...claim })) return refuseVerify('receipt-range', 'receipt', 'proof');
  const { header } = decided;
  return {
    height: header.height,
    time: header.time,
    index: receipt.index,
    transaction,
    blockHash: decided.hash,
    trust,
  };
}

/** Hex that the schema has checked. */
function bytesOf(hex: string): Bytes {
  return fromHex(hex) ?? new Uint8Array(0);
}
