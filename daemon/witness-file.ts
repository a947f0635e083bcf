// A witness file: what replicas have seen others sign, for `synod verify` and `synod audit`. A tag of 16 bytes, the chain id, then records:
// what it is as one byte, its length as 4 bytes big-endian, and links of the chain of epochs, pieces of evidence or frames (docs/wire.md, "Witness files").
// Small enough to be read whole.

import { type Bytes, concat, equalBytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { decodeFrame, decodeMessage, isRefusal } from '../protocol/codec.ts';
import { signersOf } from '../protocol/epoch/chain.ts';
import { type Genesis, type Parameters, storedParameters } from '../protocol/genesis.ts';
import { domainTag, LayoutReader, LayoutWriter } from '../protocol/layout.ts';
import type { ReplicaMessage, Verified } from '../protocol/messages.ts';
import { asEpoch, type Epoch, type Hash } from '../protocol/types.ts';
import {
  decodeEvidence,
  EpochChain,
  type ProvenEvidence,
  type VerifyContext,
  verifyEvidence,
  verifyFrame,
} from '../protocol/verify.ts';
import { LeadingLinks } from './file-links.ts';

const tag = domainTag('synod-v1:witness');
const PREFIX_BYTES = 16 + 32;
const HEAD_BYTES = 1 + 4;
/** Of a whole file. */
export const WITNESS_BYTES_MAX = 256 << 20;

/** Links first: they prove the epochs that the others are of. */
const SORTS = { evidence: 1, frame: 2, link: 3 } as const;

export interface WitnessRecord {
  readonly sort: keyof typeof SORTS;
  readonly bytes: Bytes;
}

/** What a file proves: every piece holds, every statement is signed by its sender and sound inside. */
export interface Witness {
  readonly pieces: readonly { readonly bytes: Bytes; readonly proven: ProvenEvidence }[];
  readonly statements: readonly { readonly frame: Bytes; readonly signed: Verified<ReplicaMessage> }[];
}

export interface WitnessProblem {
  readonly refused: string;
  readonly problem: string;
}

/** Does a file with these first bytes claim to be one? */
export const isWitnessFile = (start: Bytes): boolean => equalBytes(start.subarray(0, tag.length), tag);

export function encodeWitness(chainId: Hash, records: readonly WitnessRecord[]): Bytes {
  const parts = records.flatMap(({ sort, bytes }) => [
    new LayoutWriter(HEAD_BYTES).u8(SORTS[sort]).u32(bytes.length).done(),
    bytes,
  ]);
  return concat(tag, chainId, ...parts);
}

/** [EVD-4] The records of a file of this chain, nothing checked but its form. */
export function decodeWitness(bytes: Bytes, chainId: Hash): readonly WitnessRecord[] | WitnessProblem {
  const malformed = (problem: string): WitnessProblem => ({ refused: 'witness-file-malformed', problem });
  if (bytes.length < PREFIX_BYTES || !isWitnessFile(bytes)) return malformed('not a witness file');
  if (!equalBytes(bytes.subarray(16, PREFIX_BYTES), chainId))
    return { refused: 'chain-mismatch', problem: 'the file is of another chain than the genesis document' };
  const records: WitnessRecord[] = [];
  for (let at = PREFIX_BYTES; at < bytes.length; ) {
    const left = bytes.length - at - HEAD_BYTES;
    if (left < 0) return malformed(`it ends in the middle of record ${records.length + 1}`);
    const head = new LayoutReader(bytes.subarray(at, at + HEAD_BYTES));
    const number = head.u8();
    const length = head.u32();
    const sort = sortOf(number);
    if (sort === undefined) return malformed(`record ${records.length + 1} is of no known sort`);
    if (length > left) return malformed(`it ends in the middle of record ${records.length + 1}`);
    at += HEAD_BYTES;
    records.push({ sort, bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return records.length === 0 ? malformed('nothing is in it') : records;
}

const sortOf = (number: number): WitnessRecord['sort'] | undefined =>
  (['evidence', 'frame', 'link'] as const).find((sort) => SORTS[sort] === number);

/** The epoch that a piece or a statement is of; null: it has none, or is nothing of the sort. */
export function epochOfRecord(
  { sort, bytes }: WitnessRecord,
  parameters: Parameters,
  { sha256 }: Crypto,
): Epoch | null {
  if (sort === 'link') return null;
  if (sort === 'evidence') {
    const piece = decodeEvidence(bytes);
    return isRefusal(piece) ? null : piece.epoch;
  }
  const frame = decodeFrame(bytes);
  if (isRefusal(frame)) return null;
  const message = decodeMessage(frame, { sha256, parameters: storedParameters(parameters) });
  return !isRefusal(message) && 'epoch' in message ? message.epoch : null;
}

/** [WIRE-37] These records as a file that proves itself, as far as the links to their epochs are known. */
export function encodeProvenWitness(
  { chainId, parameters }: Pick<Genesis, 'chainId' | 'parameters'>,
  records: readonly WitnessRecord[],
  { epochs, crypto }: { readonly epochs: EpochChain; readonly crypto: Crypto },
): Bytes {
  const others = records.filter(({ sort }) => sort !== 'link');
  const last = Math.max(0, ...others.map((record) => epochOfRecord(record, parameters, crypto) ?? 0));
  const links = epochs.links.slice(0, last).map((link): WitnessRecord => ({ sort: 'link', bytes: link }));
  return encodeWitness(chainId, [...links, ...others]);
}

/**
 * [EVD-4] All of it, each record checked, or why the first one that does not hold proves nothing.
 * @param epochs of the genesis document, and whatever else is known; those that the file proves are added
 */
export function readWitness(
  bytes: Bytes,
  genesis: Genesis,
  crypto: Crypto,
  epochs: EpochChain = new EpochChain({ genesis, crypto }),
): Witness | WitnessProblem {
  const records = decodeWitness(bytes, genesis.chainId);
  if ('refused' in records) return records;
  const pieces: Witness['pieces'][number][] = [];
  const statements: Witness['statements'][number][] = [];
  const links = new LeadingLinks(epochs);
  for (const [index, record] of records.entries()) {
    const refuse = ({ refused, field }: { readonly refused: string; readonly field: string }): WitnessProblem => ({
      refused,
      problem: `record ${index + 1}${field === '' ? '' : `: ${field}`}`,
    });
    if (record.sort === 'link') {
      if (index > links.count)
        return refuse({ refused: 'witness-file-malformed', field: 'a link behind other records' });
      const problem = links.take(record.bytes);
      if (problem !== null) return refuse({ refused: problem.refused, field: problem.problem });
      continue;
    }
    if (record.sort === 'evidence') {
      const proven = verifyEvidence(record.bytes, { genesis, crypto, epochs });
      if ('refused' in proven) return refuse(proven);
      pieces.push({ bytes: record.bytes, proven });
      continue;
    }
    const frame = decodeFrame(record.bytes);
    if (isRefusal(frame)) return refuse(frame);
    const signed = verifyFrame(frame, contextOf(record, { genesis, crypto, epochs }));
    if (isRefusal(signed)) return refuse(signed);
    statements.push({ frame: record.bytes, signed });
  }
  return { pieces, statements };
}

/** Of the epoch that the statement names, where that is known; else of the first, which refuses it. */
function contextOf(
  record: WitnessRecord,
  { genesis, crypto, epochs }: { readonly genesis: Genesis; readonly crypto: Crypto; readonly epochs: EpochChain },
): VerifyContext {
  const epoch = epochOfRecord(record, genesis.parameters, crypto);
  const document = (epoch === null ? epochs.last : epochs.at(epoch)) ?? epochs.at(asEpoch(0))!; // always known
  return { ...signersOf(document, crypto), parameters: document.parameters, start: document.start };
}
