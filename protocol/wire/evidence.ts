// Evidence: two signed statements of one key that an honest replica never makes, in one piece that anybody with the genesis document
// checks offline (docs/wire.md, "Evidence").

import { type Bytes, compareBytes, equalBytes } from '../../crypto/bytes.ts';
import type { Crypto, Sha256 } from '../../crypto/provider.ts';
import { assert } from '../assert.ts';
import { blockHash, decodeHeader, HEADER_BYTES } from '../block.ts';
import { type Conflict, conflictOf, type Link, splitOf } from '../conflict.ts';
import type { EpochChain } from '../epoch/chain.ts';
import type { Genesis } from '../genesis.ts';
import type { PbftPledge, ReplicaMessage, Signed } from '../messages.ts';
import { decodeMsgpack, encodeMsgpack } from '../msgpack.ts';
import { asEpoch, asReplicaId, type Epoch, type Hash, type Member } from '../types.ts';
import { own } from './bytes.ts';
import { binBytes } from './cursor.ts';
import { Fields, Problem } from './fields.ts';
import { PAYLOAD_BYTES_MAX } from './frame.ts';
import { kindNumbers, kindOf } from './kinds.ts';
import { isRefusal, refuse, type WireRefusal } from './refusal.ts';
import { decodeReplicaPayload, encodeReplicaPayload, LINKS_MAX } from './replica-payloads.ts';
import { refuseVerify, type VerifyRefusal } from './verify-certificate.ts';
import { signingBytes } from './verify-message.ts';

/** What binds a replica. A proposal stands as the prepare that its signature is. */
export type StatementKind = PbftPledge['kind'];

/** As the replica signed it: the payload of a frame of this kind, and the frame's signature. */
export interface Statement {
  readonly kind: StatementKind;
  readonly payload: Bytes;
  /** 64 bytes. */
  readonly signature: Bytes;
}

export interface EvidencePiece {
  readonly chainId: Hash;
  readonly epoch: Epoch;
  /** The key that signed both: 32 bytes. */
  readonly key: Bytes;
  /** Rising by the number of the kind, then by payload: one pair has one encoding. */
  readonly first: Statement;
  readonly second: Statement;
  /** Of votes for two chains: the headers above the lower vote's height up to the higher vote's block, rising. Else none. */
  readonly links: readonly Bytes[];
}

/** A piece that holds: this member signed both. */
export interface ProvenEvidence {
  readonly culprit: Member;
  readonly conflict: Conflict;
  readonly first: Signed<PbftPledge>;
  readonly second: Signed<PbftPledge>;
}

export interface EvidenceContext {
  readonly genesis: Pick<Genesis, 'chainId' | 'members' | 'parameters'>;
  readonly crypto: Crypto;
  /** The epochs that are known beside the first. */
  readonly epochs?: EpochChain | undefined;
}

const PIECE_FIELDS = 6;
const STATEMENT_FIELDS = 3;
/** Two new-views of the largest cluster are the largest piece there is. */
export const EVIDENCE_BYTES_MAX = 2 * (PAYLOAD_BYTES_MAX + 5 + 66 + 3) + LINKS_MAX * binBytes(HEADER_BYTES) + 195;

const isStatementKind = (kind: string | undefined): kind is StatementKind =>
  kind === 'prepare' || kind === 'commit' || kind === 'checkpoint' || kind === 'view-change' || kind === 'new-view';

/** [EVD-1] The same pair gives the same bytes, whichever of the two came first. */
export function encodeEvidence({ chainId, epoch, key, first, second, links }: EvidencePiece): Bytes {
  const bytes = encodeMsgpack([chainId, epoch, key, fieldsOf(first), fieldsOf(second), links]);
  assert(bytes.length <= EVIDENCE_BYTES_MAX, 'two statements fit into a piece of evidence');
  return bytes;
}

const fieldsOf = ({ kind, payload, signature }: Statement) => [kindNumbers[kind], payload, signature];

/** [EVD-1] Well formed, nothing more: see verifyEvidence. */
export function decodeEvidence(bytes: Bytes): EvidencePiece | WireRefusal {
  const decoded = decodeMsgpack(bytes, { bytesMax: EVIDENCE_BYTES_MAX, depthMax: 2, valuesMax: 13 + LINKS_MAX });
  if ('refused' in decoded) return refuse('payload-malformed', 'evidence', '', decoded.refused);
  const problem = new Problem();
  const fields = Fields.of(decoded.value, PIECE_FIELDS, '', problem);
  const piece = {
    chainId: fields.hash('chainId'),
    epoch: fields.epoch('epoch'),
    key: fields.owned('key', 32),
    first: readStatement(fields, 'first'),
    second: readStatement(fields, 'second'),
    links: fields.values('links', { max: LINKS_MAX }, (item) => item.owned('links', HEADER_BYTES)),
  };
  return problem.found === undefined ? piece : refuse(problem.found.code, 'evidence', problem.found.field);
}

function readStatement(fields: Fields, name: string): Statement {
  const item = fields.tuple(name, STATEMENT_FIELDS);
  const kind = kindOf(item.uint('kind', 255));
  if (!isStatementKind(kind)) item.problem.note('field-out-of-range', `${name}.kind`);
  return {
    kind: isStatementKind(kind) ? kind : 'prepare',
    payload: own(item.bytes('payload', 1, PAYLOAD_BYTES_MAX)),
    signature: item.owned('signature', 64),
  };
}

/** What a core has reported, as a piece. Both are signed by the same member; that they conflict is for verifyEvidence to say. */
export function evidenceOf(
  { chainId, members }: Pick<Genesis, 'chainId' | 'members'>,
  a: Signed<ReplicaMessage>,
  b: Signed<ReplicaMessage>,
  links: readonly Bytes[] = [],
): EvidencePiece {
  assert(a.sender === b.sender, 'evidence is against one key');
  const member = members[a.sender];
  assert(member !== undefined, 'evidence is against a member');
  const [one, other] = [asPledge(a), asPledge(b)];
  assert(one !== null && other !== null, 'evidence is of pledges and proposals');
  const [first, second] = [statementOf(one), statementOf(other)].sort(compareStatements);
  assert(first !== undefined && second !== undefined, 'two statements');
  return { chainId, epoch: one.message.epoch, key: member.publicKey, first, second, links };
}

/** [PBFT-PP-5] The pledge that a message is; null: it binds nobody. The signature of a proposal is its primary's prepare. */
export function asPledge(signed: Signed<ReplicaMessage>): Signed<PbftPledge> | null {
  const { sender, message, payload, signature } = signed;
  if (message.kind === 'pre-prepare') {
    const { epoch, view, block } = message;
    const vote = { kind: 'prepare', epoch, view, height: block.header.height, hash: block.hash } as const;
    return { sender, message: vote, payload: encodeReplicaPayload(vote), signature };
  }
  switch (message.kind) {
    case 'prepare':
    case 'commit':
    case 'checkpoint':
    case 'view-change':
    case 'new-view':
      return { sender, message, payload, signature };
    default:
      return null;
  }
}

const statementOf = ({ message, payload, signature }: Signed<PbftPledge>): Statement => ({
  kind: message.kind,
  payload,
  signature,
});

function compareStatements(a: Statement, b: Statement): number {
  return kindNumbers[a.kind] - kindNumbers[b.kind] || compareBytes(a.payload, b.payload);
}

/** Up to the first that is no header: then they are too few. */
function linksOf(sha256: Sha256, headers: readonly Bytes[]): Link[] {
  const links: Link[] = [];
  for (const bytes of headers) {
    const header = decodeHeader(bytes);
    if (header === undefined) break;
    links.push({ height: header.height, hash: blockHash(sha256, bytes), parent: header.parent });
  }
  return links;
}

/**
 * [EVD-2] Who is proved guilty of what by these bytes, or why they prove nothing. Needs the genesis document alone; never throws on any
 * bytes. The dear checks come last.
 */
export function verifyEvidence(bytes: Bytes, context: EvidenceContext): ProvenEvidence | VerifyRefusal {
  const piece = decodeEvidence(bytes);
  return isRefusal(piece) ? piece : verifyPiece(piece, context);
}

function verifyPiece(
  piece: EvidencePiece,
  { genesis, crypto, epochs }: EvidenceContext,
): ProvenEvidence | VerifyRefusal {
  const { chainId, epoch, key } = piece;
  if (!equalBytes(chainId, genesis.chainId)) return refuseVerify('chain-mismatch', 'evidence', 'chainId');
  // The members of other epochs are not in the genesis document.
  const { members, parameters } = epochs?.at(epoch) ?? genesis;
  if (epochs?.at(epoch) === undefined && epoch !== asEpoch(0))
    return refuseVerify('evidence-epoch', 'evidence', 'epoch');
  const index = members.findIndex(({ publicKey }) => equalBytes(publicKey, key));
  const culprit = members[index];
  if (culprit === undefined) return refuseVerify('sender-unknown', 'evidence', 'key');
  if (compareStatements(piece.first, piece.second) >= 0) return refuseVerify('evidence-order', 'evidence', 'second');
  const signed: Signed<PbftPledge>[] = [];
  for (const name of ['first', 'second'] as const) {
    const { kind, payload, signature } = piece[name];
    const message = decodeReplicaPayload(kind, payload, { sha256: crypto.sha256, parameters });
    if (isRefusal(message)) return { ...message, kind: 'evidence', field: `${name}.payload.${message.field}` };
    // The cast: the kind is a pledge's, so the decoder gave one.
    const pledge = message as PbftPledge;
    if (pledge.epoch !== epoch) return refuseVerify('evidence-epoch', 'evidence', `${name}.payload.epoch`);
    signed.push({ sender: asReplicaId(index), message: pledge, payload, signature });
  }
  const [first, second] = signed;
  assert(first !== undefined && second !== undefined, 'two statements');
  // Links show one thing only; a pair that needs none has none, so that it has one encoding.
  const conflict =
    (piece.links.length === 0 ? conflictOf(first, second) : null) ??
    splitOf(first, second, linksOf(crypto.sha256, piece.links));
  if (conflict === null) return refuseVerify('evidence-no-conflict', 'evidence');
  for (const [name, { message, payload, signature }] of [
    ['first', first],
    ['second', second],
  ] as const)
    if (!crypto.verify(culprit.publicKey, signingBytes(chainId, message, payload), signature))
      return refuseVerify('signature-invalid', 'evidence', `${name}.signature`);
  return { culprit, conflict, first, second };
}
