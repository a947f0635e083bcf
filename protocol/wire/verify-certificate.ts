// Is this a quorum of valid signatures by members? (docs/wire.md, "Checking a certificate".)

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { type BlockHeader, memberSetHash } from '../block.ts';
import { type Certificate, type SignatureOf, voteSigningBytes } from '../certificate.ts';
import { checkpointSigningBytes } from '../checkpoint-note.ts';
import type { CheckpointCertificate } from '../messages.ts';
import type { Protocol } from '../modes.ts';
import { bearsLies, checkpointQuorum } from '../modes.ts';
import type { Epoch, Hash, Member } from '../types.ts';
import type { Kind } from './kinds.ts';
import type { StoredKind, WireCode } from './refusal.ts';
import { type Seen, verifyOnce } from './seen.ts';

/** Whose signatures count, and how many of them make a quorum. */
export interface SignerSet {
  readonly crypto: Crypto;
  readonly chainId: Hash;
  /** The epoch whose members these are; a certificate of another epoch is for another set. */
  readonly epoch: Epoch;
  /** `members[i].id` is i. */
  readonly members: readonly Member[];
  /** From quorum.ts, never computed anywhere else. */
  readonly quorum: number;
  /** Which proofs hold here (CFT-PR-1). Default: pbft. */
  readonly protocol?: Protocol | undefined;
  /** What the headers of the epoch name: its document's hash (EPO-1). Absent for epoch 0, where the members' keys give it. */
  readonly memberSetHash?: Hash | undefined;
  readonly seen?: Seen | undefined;
}

export type VerifyCode =
  | WireCode
  | 'kind-not-allowed'
  | 'sender-unknown'
  | 'signature-invalid'
  | 'chain-mismatch'
  | 'certificate-malformed'
  | 'certificate-epoch'
  | 'certificate-phase'
  | 'certificate-place'
  | 'certificate-order'
  | 'certificate-signer-unknown'
  | 'certificate-below-quorum'
  | 'certificate-signature'
  | 'bundle-signature'
  | 'view-change-place'
  | 'view-change-twice'
  | 'view-change-signature'
  | 'new-view-below-quorum'
  | 'checkpoint-header'
  | 'chain-broken'
  | 'chain-uncertified'
  | 'receipt-malformed'
  | 'receipt-range'
  | 'receipt-trust'
  | 'evidence-epoch'
  | 'evidence-order'
  | 'evidence-no-conflict'
  | 'epoch-control'
  | 'epoch-fork';

export interface VerifyRefusal {
  readonly refused: VerifyCode;
  readonly kind: Kind | StoredKind | 'receipt' | 'chain' | null;
  readonly field: string;
}

export function refuseVerify(refused: VerifyCode, kind: VerifyRefusal['kind'], field = ''): VerifyRefusal {
  return { refused, kind, field };
}

/** [WIRE-17] Null: valid. Distinct, strictly rising, known replicas; at least a quorum of them; every signature valid. */
export function verifyCertificate(certificate: Certificate, signers: SignerSet): VerifyRefusal | null {
  const { epoch, view, height, hash } = certificate;
  if (!areCounts(epoch, view, height) || hash.length !== 32)
    return refuseVerify('certificate-malformed', 'certificate');
  if (epoch !== signers.epoch) return refuseVerify('certificate-epoch', 'certificate', 'epoch');
  // [CFT-PR-1] A vote means nothing where members are trusted, and nobody's word is enough where they are not.
  const isWord = certificate.phase === 'decided';
  if (isWord === bearsLies(signers.protocol)) return refuseVerify('certificate-phase', 'certificate', 'phase');
  const needed = isWord ? { ...signers, quorum: 1 } : signers;
  return verifySignatures(certificate.signatures, voteSigningBytes(signers.chainId, certificate), needed);
}

/** [WIRE-17] Null: valid. The same for a stable checkpoint. */
export function verifyCheckpoint(checkpoint: CheckpointCertificate, signers: SignerSet): VerifyRefusal | null {
  const { epoch, height, hash, logRoot, memberSetHash, stateDigest } = checkpoint;
  if (!areCounts(epoch, height) || [hash, logRoot, memberSetHash, stateDigest].some(({ length }) => length !== 32))
    return refuseVerify('certificate-malformed', 'checkpoint-certificate');
  if (epoch !== signers.epoch) return refuseVerify('certificate-epoch', 'checkpoint-certificate', 'epoch');
  const needed = { ...signers, quorum: checkpointQuorum(signers, signers.quorum) };
  return verifySignatures(checkpoint.signatures, checkpointSigningBytes(signers.chainId, checkpoint), needed);
}

/** What all headers that these signers may decide have in common. */
export type HeaderMarks = Pick<BlockHeader, 'chainId' | 'epoch' | 'memberSetHash'>;

/** May cost a hash of the member list: once for a chain or a message, not for each header. */
export function headerMarks({ crypto, chainId, epoch, members, ...given }: Omit<SignerSet, 'quorum'>): HeaderMarks {
  return { chainId, epoch, memberSetHash: given.memberSetHash ?? memberSetHash(crypto.sha256, epoch, members) };
}

/** [WIRE-27] Null: the header is of this chain, and of the epoch and the member set whose signatures count. */
export function verifyMarks(
  header: BlockHeader,
  marks: HeaderMarks,
  kind: VerifyRefusal['kind'],
  field = 'header',
): VerifyRefusal | null {
  if (!equalBytes(header.chainId, marks.chainId)) return refuseVerify('chain-mismatch', kind, `${field}.chainId`);
  if (header.epoch !== marks.epoch) return refuseVerify('certificate-epoch', kind, `${field}.epoch`);
  if (!equalBytes(header.memberSetHash, marks.memberSetHash))
    return refuseVerify('certificate-epoch', kind, `${field}.memberSetHash`);
  return null;
}

/** The decoders give nothing else; a ledger may come here with values of its own making. */
function areCounts(...numbers: readonly number[]): boolean {
  return numbers.every((number) => Number.isSafeInteger(number) && number >= 0);
}

function verifySignatures(
  signatures: readonly SignatureOf[],
  message: Bytes,
  { crypto, members, quorum, seen }: SignerSet,
): VerifyRefusal | null {
  let last = -1;
  for (const { replica } of signatures) {
    if (!(replica > last)) return refuseVerify('certificate-order', 'certificate', 'signatures.replica');
    if (members[replica] === undefined)
      return refuseVerify('certificate-signer-unknown', 'certificate', 'signatures.replica');
    last = replica;
  }
  if (signatures.length < quorum) return refuseVerify('certificate-below-quorum', 'certificate', 'signatures');
  for (const { replica, signature } of signatures) {
    if (!verifyOnce(crypto, seen, members[replica]!.publicKey, message, signature))
      return refuseVerify('certificate-signature', 'certificate', `signatures.${replica}`);
  }
  return null;
}
