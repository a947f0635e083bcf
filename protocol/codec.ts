// The wire, in one place to import from: frames, payloads, stored forms. What the bytes mean is docs/wire.md's.
//
//   send:     encodeFrame({ kind, payload: encodePayload(message), sender, signature })
//   receive:  decodeFrame(bytes), then decodeMessage(frame, context) or, with signatures and certificates, verify.ts
//
// Nothing here throws on any bytes: a refusal is a value with a code (WIRE-4).

export {
  blockBytesOnWire,
  blockOf,
  bodyBytes,
  bodyOf,
  bundleItemBytes,
  decodeBody,
  decodeStoredBlock,
  encodeBody,
  encodeStoredBlock,
} from './wire/block.ts';
export { type BundleBytes, decodeBundle, encodeBundlePayload, type WireContext } from './wire/bundle.ts';
export {
  certificateBytesMax,
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeCheckpointPlace,
  encodeCertificate,
  encodeCheckpointCertificate,
  encodeCheckpointPlace,
} from './wire/certificate.ts';
export {
  ADMISSIONS_MAX,
  admissionCodes,
  CREDIT_MAX,
  EPOCH_LINKS_BYTES_MAX,
  EPOCH_LINKS_MAX,
  followedBlockBytes,
  RANGE_PROOF_HASHES_MAX,
  RECEIPTS_MAX,
} from './wire/door-payloads.ts';
export { MEMBERS_MAX } from './wire/fields.ts';
export {
  decodeFrame,
  encodeFrame,
  FRAME_OVERHEAD_BYTES,
  FRAME_VERSION,
  type Frame,
  frameSigningBytes,
  kindInFrame,
  PAYLOAD_BYTES_MAX,
} from './wire/frame.ts';
export {
  type DoorKind,
  type HandshakeKind,
  isClientKind,
  isDoorKind,
  isReplicaKind,
  type Kind,
  kindNumbers,
  kindOf,
  type ReplicaKind,
} from './wire/kinds.ts';
export { decodeMessage, decodePayload, encodePayload, type Message } from './wire/payload.ts';
export { isRefusal, type StoredKind, type WireCode, type WireRefusal } from './wire/refusal.ts';
export {
  BLOCKS_MAX,
  certifiedBlockBytes,
  LINKS_MAX,
  PROOF_HASHES_MAX,
  STATE_CHUNK_BYTES_MAX,
} from './wire/replica-payloads.ts';
export { signedPart } from './wire/signed-part.ts';
