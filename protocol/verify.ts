// What ledgers, clients, auditors and the daemon run before they believe anything: certificates, messages, chains, receipts
// (blueprint, section 10). Portable, pure, and without a word to say about the state of the protocol. Each refusal is a value with a
// stable code; the codes and the rules behind them stand in docs/wire.md.

export { Audit, type AuditReport, type Branch, type Culprit, type Fork, type Need } from './audit.ts';
export {
  checkpointSigningBytes,
  checkpointSigningText,
  exportCheckpointNote,
  importCheckpointNote,
  memberVerifierKey,
  type NoteProblem,
  type NoteSigners,
} from './checkpoint-note.ts';
export type { Conflict, Offence } from './conflict.ts';
export { decodeEpochLink, EpochChain, type EpochLink, encodeEpochLink } from './epoch/chain.ts';
export {
  type Change,
  type Control,
  type ControlBody,
  type ControlFlaw,
  controlFlaw,
  controlSigningBytes,
  decodeControl,
  decodeControlBody,
  encodeControl,
  encodeControlBody,
  isControl,
  type Join,
  joinSigningBytes,
} from './epoch/control.ts';
export {
  decodeEpoch,
  type EpochDocument,
  encodeEpoch,
  genesisEpoch,
  genesisOf,
  signaturesNeeded,
} from './epoch/document.ts';
export {
  type ControlCode,
  type ControlRefusal,
  JOIN_INTERVALS_MAX,
  judgeControl,
  nextEpoch,
  type Successor,
} from './epoch/successor.ts';
export { mainMembers, type Trust } from './modes.ts';
export {
  decodeEvidence,
  type EvidenceContext,
  type EvidencePiece,
  encodeEvidence,
  evidenceOf,
  type ProvenEvidence,
  type Statement,
  verifyEvidence,
} from './wire/evidence.ts';
export { type Seen, SeenSignatures, verifyOnce } from './wire/seen.ts';
export {
  type SignerSet,
  type VerifyCode,
  type VerifyRefusal,
  verifyCertificate,
  verifyCheckpoint,
} from './wire/verify-certificate.ts';
export { type ChainOptions, ChainVerifier, type ProvenBlock, type TrustedHead } from './wire/verify-chain.ts';
export {
  epochOfFrame,
  isControlSound,
  openFrame,
  signingBytes,
  type VerifyContext,
  verifyBundle,
  verifyCheckpointProof,
  verifyClientFrame,
  verifyFrame,
  verifyMessage,
} from './wire/verify-message.ts';
export {
  type DecidedHeader,
  genesisSigners,
  type ProvenRange,
  type ProvenTransaction,
  parseReceipt,
  type ReceiptContext,
  type TransactionReceipt,
  transactionReceipt,
  verifyDecided,
  verifyReceipt,
  verifyTransactionReceipt,
} from './wire/verify-receipt.ts';
