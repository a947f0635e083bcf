// The payloads of the client door (door.ts), field by field as in docs/wire.md, "The client door".

import type { Bytes } from '../../crypto/bytes.ts';
import { HEADER_BYTES } from '../block.ts';
import type {
  BundleAdmission,
  BundleReceipt,
  CheckpointHere,
  ClientMessage,
  DoorMessage,
  Epochs,
  Follow,
  FollowedBlock,
  Head,
  QueryAnswer,
  QueryBundle,
  Receipts,
  StateHere,
  Submit,
} from '../door.ts';
import { EPOCH_LINK_BYTES_MAX } from '../epoch/chain.ts';
import type { Parameters } from '../genesis.ts';
import { decodeMsgpack, encodeMsgpack, type ScanLimits, type WireValue } from '../msgpack.ts';
import { bodyBytes, readBundleItem, writeBody } from './block.ts';
import { type BundleBytes, decodeBundle, type WireContext } from './bundle.ts';
import { own } from './bytes.ts';
import {
  CERTIFICATE_FIELDS,
  CERTIFICATE_VALUES_MAX,
  CHECKPOINT_FIELDS,
  certificateValue,
  checkpointValue,
  encodeCertificate,
  readCertificate,
  readCheckpoint,
} from './certificate.ts';
import { arrayBytes, binBytes, Scribe } from './cursor.ts';
import { Fields, Problem } from './fields.ts';
import { PAYLOAD_BYTES_MAX, type UnwrittenPayload } from './frame.ts';
import type { DoorKind } from './kinds.ts';
import { isRefusal, refuse, type WireRefusal } from './refusal.ts';
import { BLOCKS_MAX, LINKS_MAX, PROOF_HASHES_MAX, STATE_CHUNK_BYTES_MAX } from './replica-payloads.ts';

export const CREDIT_MAX = 4096;
export const RECEIPTS_MAX = 1024;
export const ADMISSIONS_MAX = 1024;
/** Links of one `epochs`, and their bytes together. */
export const EPOCH_LINKS_MAX = 64;
export const EPOCH_LINKS_BYTES_MAX = 256 << 10;
/** What an `epochs` payload has beside its links. */
const EPOCHS_OVERHEAD_BYTES_MAX = 512;
/** Hashes of a range proof: two for each level. */
export const RANGE_PROOF_HASHES_MAX = 106;

/** In the order of docs/wire.md; the compiler checks that the union has no other. */
export const admissionCodes = [
  'pooled',
  'known',
  'pool-full',
  'client-quota',
  'sequence-passed',
  'sequence-gap',
  'sequence-taken',
  'expired',
  'valid-until-too-far',
  'sessions-full',
  'control-refused',
  'busy',
  'bundle-invalid',
] as const satisfies readonly BundleAdmission['code'][];
const endCodes = ['reached', 'pruned', 'draining'] as const;

export function encodeDoorPayload(message: ClientMessage | DoorMessage): Bytes {
  switch (message.kind) {
    case 'submit':
      // The bundle as it was signed; the frame's sender and signature are the bundle's.
      return message.bundle.payload;
    case 'follow':
      return encodeMsgpack([message.from, message.to, message.headersOnly, message.credit]);
    case 'credit':
      return encodeMsgpack([message.blocks]);
    case 'query-head':
      return encodeMsgpack([]);
    case 'query-bundle':
      return encodeMsgpack([message.question, message.digest]);
    case 'query-epochs':
      return encodeMsgpack([message.from]);
    case 'epochs':
      return encodeMsgpack([message.from, message.links]);
    case 'query-checkpoint':
      return encodeMsgpack([]);
    case 'query-state':
      return encodeMsgpack([message.height, message.chunk]);
    case 'checkpoint-here': {
      const { proof } = message;
      return encodeMsgpack([proof && [checkpointValue(proof.checkpoint), proof.headerBytes]]);
    }
    case 'state-here': {
      const { height, chunk, found } = message;
      return encodeMsgpack([height, chunk, found && [found.bytes, found.proof]]);
    }
    case 'admissions':
      return encodeMsgpack([message.admissions.map(({ digest, code, height }) => [digest, code, height])]);
    case 'receipts':
      return encodeMsgpack([message.answer && answerValue(message.answer), message.receipts.map(receiptValue)]);
    case 'follow-blocks':
      return encodeFollowed(message.blocks);
    case 'follow-end':
      return encodeMsgpack([message.code, message.lowest]);
    case 'head': {
      const { epoch, view, primary, height, lowest, certificate } = message;
      return encodeMsgpack([epoch, view, primary, height, lowest, certificate && certificateValue(certificate)]);
    }
  }
}

function answerValue({ question, digest, lowest, height }: QueryAnswer): WireValue {
  return [question, digest, lowest, height];
}

function receiptValue(receipt: BundleReceipt): WireValue {
  const { digest, headerBytes, links, certificate, firstTransaction, transactionCount, proof } = receipt;
  return [digest, headerBytes, links, certificateValue(certificate), firstTransaction, transactionCount, proof];
}

/** What one block adds to a `follow-blocks` payload: for filling a frame without exceeding PAYLOAD_BYTES_MAX. */
export function followedBlockBytes({ bundles, certificate }: FollowedBlock): number {
  const body = bundles === null ? 1 : bodyBytes(bundles);
  return 1 + binBytes(HEADER_BYTES) + body + (certificate === null ? 1 : encodeCertificate(certificate).length);
}

/** The payload of a `follow-blocks`, for a frame (writeFrame). */
export function followedPayload(blocks: readonly FollowedBlock[]): UnwrittenPayload {
  const nil = encodeMsgpack(null);
  const certificates = blocks.map(({ certificate }) => (certificate === null ? nil : encodeCertificate(certificate)));
  let size = 1 + arrayBytes(blocks.length);
  for (const [index, { bundles }] of blocks.entries())
    size += 1 + binBytes(HEADER_BYTES) + (bundles === null ? 1 : bodyBytes(bundles)) + certificates[index]!.length;
  return {
    bytes: size,
    write(scribe) {
      scribe.array(1).array(blocks.length);
      for (const [index, { headerBytes, bundles }] of blocks.entries()) {
        scribe.array(3).bin(headerBytes);
        (bundles === null ? scribe.raw(nil) : writeBody(scribe, bundles)).raw(certificates[index]!);
      }
    },
  };
}

function encodeFollowed(blocks: readonly FollowedBlock[]): Bytes {
  const payload = followedPayload(blocks);
  const scribe = new Scribe(payload.bytes);
  payload.write(scribe);
  return scribe.done();
}

function limitsOf(kind: Exclude<DoorKind, 'submit'>): ScanLimits {
  switch (kind) {
    case 'follow':
    case 'credit':
    case 'query-head':
    case 'query-bundle':
    case 'query-epochs':
    case 'query-checkpoint':
    case 'query-state':
    case 'follow-end':
      return { bytesMax: 128, depthMax: 1, valuesMax: 5 };
    case 'admissions':
      return { bytesMax: 8 + ADMISSIONS_MAX * 72, depthMax: 3, valuesMax: 2 + ADMISSIONS_MAX * 4 };
    case 'checkpoint-here':
      return { bytesMax: 16_384, depthMax: 5, valuesMax: 3 + CERTIFICATE_VALUES_MAX };
    case 'state-here':
      return { bytesMax: STATE_CHUNK_BYTES_MAX + 2048, depthMax: 3, valuesMax: 6 + PROOF_HASHES_MAX };
    case 'epochs':
      return {
        bytesMax: EPOCH_LINKS_BYTES_MAX + EPOCHS_OVERHEAD_BYTES_MAX,
        depthMax: 2,
        valuesMax: 3 + EPOCH_LINKS_MAX,
      };
    case 'head':
      return { bytesMax: 16_384, depthMax: 4, valuesMax: 6 + CERTIFICATE_VALUES_MAX };
    case 'receipts':
    case 'follow-blocks':
      // Whatever fits into a frame: a signature of a certificate is three values in 68 bytes, a bundle three in 70.
      return { bytesMax: PAYLOAD_BYTES_MAX, depthMax: 6, valuesMax: 2 + Math.floor(PAYLOAD_BYTES_MAX / 20) };
  }
}

/** [WIRE-12] As for replicas: every field of a kind, in its bounds, and nothing else. `submit` has a decoder of its own. */
export function decodeDoorPayload(
  kind: Exclude<DoorKind, 'submit'>,
  payload: Bytes,
  { parameters }: WireContext,
): Exclude<ClientMessage, Submit> | DoorMessage | WireRefusal {
  const decoded = decodeMsgpack(payload, limitsOf(kind));
  if ('refused' in decoded) return refuse('payload-malformed', kind, '', decoded.refused);
  const problem = new Problem();
  const message = read(kind, decoded.value, problem, parameters);
  return problem.found === undefined ? message : refuse(problem.found.code, kind, problem.found.field);
}

/** The bundle of a submit: the frame's payload and signature are the bundle's own. */
export function decodeSubmit(bundleBytes: BundleBytes, context: WireContext): Submit | WireRefusal {
  const bundle = decodeBundle(bundleBytes, context);
  return isRefusal(bundle) ? { ...bundle, kind: 'submit' } : { kind: 'submit', bundle };
}

function read(
  kind: Exclude<DoorKind, 'submit'>,
  value: WireValue,
  problem: Problem,
  parameters: Parameters,
): Exclude<ClientMessage, Submit> | DoorMessage {
  const fields = (count: number) => Fields.of(value, count, '', problem);
  switch (kind) {
    case 'follow':
      return readFollow(fields(4));
    case 'credit':
      return { kind, blocks: fields(1).uint('blocks', CREDIT_MAX, 1) };
    case 'query-head':
      fields(0);
      return { kind };
    case 'query-bundle':
      return readQuery(fields(2));
    case 'query-epochs':
      return { kind, from: fields(1).epoch('from', 1) };
    case 'epochs':
      return readEpochs(fields(2));
    case 'query-checkpoint':
      fields(0);
      return { kind };
    case 'query-state': {
      const f = fields(2);
      return { kind, height: f.height('height', 1), chunk: f.uint('chunk', 0xffff_ffff) };
    }
    case 'checkpoint-here':
      return { kind, proof: fields(1).optional('proof', 2, readCheckpointProof) };
    case 'state-here': {
      const f = fields(3);
      const [height, chunk] = [f.height('height', 1), f.uint('chunk', 0xffff_ffff)];
      return { kind, height, chunk, found: f.optional('found', 2, readFoundChunk) };
    }
    case 'admissions':
      return { kind, admissions: fields(1).tuples('admissions', { max: ADMISSIONS_MAX, min: 1 }, 3, readAdmission) };
    case 'receipts':
      return readReceipts(fields(2));
    case 'follow-blocks':
      return { kind, blocks: readFollowed(fields(1), parameters) };
    case 'follow-end': {
      const f = fields(2);
      return { kind, code: f.word('code', endCodes), lowest: f.height('lowest') };
    }
    case 'head':
      return readHead(fields(6));
  }
}

function readFollow(f: Fields): Follow {
  const from = f.height('from');
  const to = f.height('to');
  if (to !== 0 && to < from) f.problem.note('field-out-of-range', 'to');
  return { kind: 'follow', from, to, headersOnly: f.flag('headersOnly'), credit: f.uint('credit', CREDIT_MAX, 1) };
}

function readQuery(f: Fields): QueryBundle {
  return { kind: 'query-bundle', question: f.uint('question', Number.MAX_SAFE_INTEGER, 1), digest: f.hash('digest') };
}

function readAdmission(f: Fields): BundleAdmission {
  return { digest: f.hash('digest'), code: f.word('code', admissionCodes), height: f.height('height') };
}

/** Whose answer has no receipt must say of what: so an answer names its question, and what is pushed is never empty. */
function readReceipts(f: Fields): Receipts {
  const answer = f.optional('answer', 4, readAnswer);
  const bounds = answer === null ? { max: RECEIPTS_MAX, min: 1 } : { max: 1 };
  return { kind: 'receipts', answer, receipts: f.tuples('receipts', bounds, 7, readReceipt) };
}

function readAnswer(f: Fields): QueryAnswer {
  return {
    question: f.uint('question', Number.MAX_SAFE_INTEGER, 1),
    digest: f.hash('digest'),
    lowest: f.height('lowest'),
    height: f.height('height'),
  };
}

/** Exported for the receipts that are kept outside of frames. */
export function readReceipt(f: Fields): BundleReceipt {
  return {
    digest: f.hash('digest'),
    headerBytes: f.owned('headerBytes', HEADER_BYTES),
    links: f.values('links', { max: LINKS_MAX }, (item) => item.owned('links', HEADER_BYTES)),
    certificate: readCertificate(f.tuple('certificate', CERTIFICATE_FIELDS)),
    firstTransaction: f.uint('firstTransaction', 0xffff_ffff),
    transactionCount: f.uint('transactionCount', 0xffff_ffff, 1),
    proof: f.values('proof', { max: RANGE_PROOF_HASHES_MAX }, (item) => item.owned('proof', 32)),
  };
}

/** Bodies stay views into the frame: the verifier looks into them next, and they are most of it. */
function readFollowed(f: Fields, { blockBundlesMax }: Parameters): FollowedBlock[] {
  return f.tuples('blocks', { max: BLOCKS_MAX }, 3, (item) => ({
    headerBytes: item.owned('headerBytes', HEADER_BYTES),
    bundles: item.optionalTuples('bundles', { max: blockBundlesMax }, 2, readBundleItem),
    certificate: item.optional('certificate', CERTIFICATE_FIELDS, readCertificate),
  }));
}

function readCheckpointProof(f: Fields): NonNullable<CheckpointHere['proof']> {
  const checkpoint = readCheckpoint(f.tuple('checkpoint', CHECKPOINT_FIELDS));
  return { checkpoint, headerBytes: f.owned('headerBytes', HEADER_BYTES) };
}

function readFoundChunk(f: Fields): NonNullable<StateHere['found']> {
  return {
    bytes: own(f.bytes('bytes', 0, STATE_CHUNK_BYTES_MAX)),
    proof: f.values('proof', { max: PROOF_HASHES_MAX }, (item) => item.owned('proof', 32)),
  };
}

/** [WIRE-35] What is in the links is for whoever knows the epoch before the first of them. */
function readEpochs(f: Fields): Epochs {
  return {
    kind: 'epochs',
    from: f.epoch('from', 1),
    links: f.values('links', { max: EPOCH_LINKS_MAX }, (item) => own(item.bytes('links', 1, EPOCH_LINK_BYTES_MAX))),
  };
}

function readHead(f: Fields): Head {
  return {
    kind: 'head',
    epoch: f.epoch('epoch'),
    view: f.view('view'),
    primary: f.replica('primary'),
    height: f.height('height'),
    lowest: f.height('lowest'),
    certificate: f.optional('certificate', CERTIFICATE_FIELDS, readCertificate),
  };
}
