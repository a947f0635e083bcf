// The payloads of what replicas say to each other, field by field as in docs/wire.md, "Between replicas".

import type { Bytes } from '../../crypto/bytes.ts';
import { HEADER_BYTES } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { Parameters } from '../genesis.ts';
import type { Blocks, CertifiedBlock, ReplicaMessage, Signed, Standing, ViewChange, Vote } from '../messages.ts';
import { decodeMsgpack, encodeMsgpack, type ScanLimits, type WireValue } from '../msgpack.ts';
import { asEpoch, asHash, asHeight, asView } from '../types.ts';
import {
  blockBytesOnWire,
  blockOf,
  bodyBytes,
  readBlockParts,
  readBundleItems,
  writeBlock,
  writeBody,
} from './block.ts';
import { decodeBundle, type WireContext } from './bundle.ts';
import { own, plain } from './bytes.ts';
import {
  CERTIFICATE_FIELDS,
  CERTIFICATE_VALUES_MAX,
  CHECKPOINT_FIELDS,
  certificateValue,
  checkpointValue,
  encodeCertificate,
  PLACE_FIELDS,
  placeValues,
  readCertificate,
  readCheckpoint,
  readPlace,
} from './certificate.ts';
import { binBytes, Cursor, Scribe, uintBytes } from './cursor.ts';
import { Fields, MEMBERS_MAX, Problem } from './fields.ts';
import { PAYLOAD_BYTES_MAX } from './frame.ts';
import type { ReplicaKind } from './kinds.ts';
import { encodePaxosPayload, paxosLimits, readPaxos } from './paxos-payloads.ts';
import { encodeRaftPayload, readAppendHead, readRaft } from './raft-payloads.ts';
import { encodeReadPayload, readRead } from './read-payloads.ts';
import { isRefusal, refuse, type WireRefusal } from './refusal.ts';

/** Headers above a block up to the one that is certified; a window of 64 never needs more. */
export const LINKS_MAX = 64;
/** Blocks in one answer; the frame bounds them further. */
export const BLOCKS_MAX = 4096;
/** Hashes of an inclusion proof; a tree of 2^53 leaves needs no more. */
export const PROOF_HASHES_MAX = 53;
/** Bytes of a chunk of the replicated state. */
export const STATE_CHUNK_BYTES_MAX = 786_432;
/** Fields of an embedded view-change: [sender, payload, signature]. */
const VIEW_CHANGE_BYTES_MAX = 65_536;

export function encodeReplicaPayload(message: ReplicaMessage): Bytes {
  switch (message.kind) {
    case 'status': {
      const { epoch, view, active, height, hash, stable, lowest } = message;
      const counts = uintBytes(epoch) + uintBytes(view) + uintBytes(height) + uintBytes(stable) + uintBytes(lowest);
      const scribe = new Scribe(2 + counts + binBytes(32)).array(7).uint(epoch).uint(view).bool(active);
      return scribe.uint(height).bin(hash).uint(stable).uint(lowest).done();
    }
    case 'forward':
      return writeBody(new Scribe(1 + bodyBytes(message.bundles)).array(1), message.bundles).done();
    case 'fetch-blocks':
      return encodeMsgpack([message.from, message.to]);
    case 'blocks':
      return encodeBlocks(message);
    case 'fetch-block':
      return encodeMsgpack([message.height, message.hash]);
    case 'block-data':
      return writeBlock(new Scribe(blockBytesOnWire(message.block)), message.block).done();
    case 'checkpoint':
      return encodeMsgpack(placeValues(message));
    case 'fetch-checkpoint':
      return encodeMsgpack([]);
    case 'checkpoint-proof':
      return encodeMsgpack([checkpointValue(message.checkpoint), message.headerBytes]);
    case 'fetch-state':
      return encodeMsgpack([message.height, message.chunk]);
    case 'state-chunk':
      return encodeMsgpack([message.height, message.chunk, message.bytes, message.proof]);
    case 'pre-prepare':
      return writeBlock(
        new Scribe(1 + uintBytes(message.view) + blockBytesOnWire(message.block)).array(2).uint(message.view),
        message.block,
      ).done();
    case 'prepare':
    case 'commit': {
      const { epoch, view, height, hash } = message;
      const size = 1 + uintBytes(epoch) + uintBytes(view) + uintBytes(height) + binBytes(32);
      return new Scribe(size).array(4).uint(epoch).uint(view).uint(height).bin(hash).done();
    }
    case 'view-change': {
      const { epoch, view, commit, prepared } = message;
      return encodeMsgpack([epoch, view, commit && certificateValue(commit), prepared && certificateValue(prepared)]);
    }
    case 'new-view': {
      const viewChanges: WireValue = message.viewChanges.map((vc) => [vc.sender, vc.payload, vc.signature]);
      return encodeMsgpack([message.epoch, message.view, viewChanges]);
    }
    case 'fetch-standing':
      return encodeMsgpack([message.epoch, message.nonce]);
    case 'standing': {
      const { epoch, nonce, commit, prepared, stable, asked } = message;
      const certificates = [
        commit && certificateValue(commit),
        prepared && certificateValue(prepared),
        stable && checkpointValue(stable),
      ];
      return encodeMsgpack([epoch, nonce, ...certificates, asked && [asked.sender, asked.payload, asked.signature]]);
    }
    case 'paxos-prepare':
    case 'promise':
    case 'accept':
    case 'accepted':
    case 'reject':
    case 'take-over':
    case 'configure':
    case 'configured':
    case 'open-round':
    case 'fast-accept':
    case 'fast-accepted':
      return encodePaxosPayload(message);
    case 'read-query':
    case 'read-reply':
      return encodeReadPayload(message);
    default:
      return encodeRaftPayload(message);
  }
}

/** What one block adds to a `blocks` payload: for filling a frame without exceeding PAYLOAD_BYTES_MAX (which leaves room for the list's header). */
export function certifiedBlockBytes({ block, certificate }: CertifiedBlock): number {
  return 1 + blockBytesOnWire(block) + (certificate === null ? 1 : encodeCertificate(certificate).length);
}

function encodeBlocks({ blocks, tail }: Blocks): Bytes {
  const nil = encodeMsgpack(null);
  const certificates = blocks.map(({ certificate }) => (certificate === null ? nil : encodeCertificate(certificate)));
  const end = tail === null ? nil : encodeMsgpack([tail.links, certificateValue(tail.certificate)]);
  let size = 1 + (blocks.length < 0x10 ? 1 : 3) + end.length;
  for (const [index, { block }] of blocks.entries()) size += 1 + blockBytesOnWire(block) + certificates[index]!.length;
  const scribe = new Scribe(size).array(2).array(blocks.length);
  for (const [index, { block }] of blocks.entries()) writeBlock(scribe.array(2), block).raw(certificates[index]!);
  return scribe.raw(end).done();
}

/** Enough for the largest honest message of a kind; what a scan may walk over before it gives up. */
function limitsOf(kind: ReplicaKind, { blockBundlesMax, blockBytesMax }: Parameters): ScanLimits {
  // Bundles in a block or a forward: the pair, the payload and the signature.
  const body = 1 + 3 * blockBundlesMax;
  const bodyBytesMax = blockBytesMax + blockBundlesMax * 72 + 5;
  switch (kind) {
    case 'status':
    case 'fetch-blocks':
    case 'fetch-block':
    case 'checkpoint':
    case 'fetch-checkpoint':
    case 'fetch-state':
    case 'prepare':
    case 'commit':
    case 'fetch-standing':
    case 'read-query':
    case 'read-reply':
      return { bytesMax: 256, depthMax: 1, valuesMax: 8 };
    case 'forward':
      return { bytesMax: PAYLOAD_BYTES_MAX, depthMax: 3, valuesMax: 1 + body };
    case 'block-data':
      return { bytesMax: bodyBytesMax + 270, depthMax: 3, valuesMax: 2 + body };
    case 'pre-prepare':
      return { bytesMax: bodyBytesMax + 280, depthMax: 4, valuesMax: 4 + body };
    case 'blocks':
      // Whatever fits into a frame: a bundle takes 70 bytes and three values, an empty block 264 and five.
      return { bytesMax: PAYLOAD_BYTES_MAX, depthMax: 6, valuesMax: 2 + Math.floor(PAYLOAD_BYTES_MAX / 20) };
    case 'checkpoint-proof':
      return { bytesMax: 16_384, depthMax: 4, valuesMax: 2 + CERTIFICATE_VALUES_MAX };
    case 'state-chunk':
      return { bytesMax: STATE_CHUNK_BYTES_MAX + 2048, depthMax: 2, valuesMax: 5 + PROOF_HASHES_MAX };
    case 'view-change':
      return { bytesMax: VIEW_CHANGE_BYTES_MAX, depthMax: 4, valuesMax: 3 + 2 * CERTIFICATE_VALUES_MAX };
    case 'new-view':
      return { bytesMax: PAYLOAD_BYTES_MAX, depthMax: 3, valuesMax: 4 + 4 * MEMBERS_MAX };
    case 'standing':
      return { bytesMax: 2 * VIEW_CHANGE_BYTES_MAX, depthMax: 4, valuesMax: 8 + 3 * CERTIFICATE_VALUES_MAX };
    case 'accept':
    case 'fast-accept':
      return { bytesMax: bodyBytesMax + 280, depthMax: 4, valuesMax: 4 + body };
    case 'append-entries':
      return { bytesMax: bodyBytesMax + 320, depthMax: 5, valuesMax: 10 + body };
    default:
      return paxosLimits; // Raft's others are smaller
  }
}

/** [WIRE-12] Every field of a kind is there, in its bounds, and nothing else. */
export function decodeReplicaPayload(
  kind: ReplicaKind,
  payload: Bytes,
  context: WireContext,
): ReplicaMessage | WireRefusal {
  if (kind === 'prepare' || kind === 'commit') {
    const vote = soundVote(kind, payload);
    if (vote !== undefined) return vote;
  }
  const decoded = decodeMsgpack(payload, limitsOf(kind, context.parameters));
  if ('refused' in decoded) return refuse('payload-malformed', kind, '', decoded.refused);
  const problem = new Problem();
  const message = read(kind, decoded.value, problem, context);
  // The first problem met counts: a body that hangs on a bad field is not looked into.
  if (problem.found !== undefined) return refuse(problem.found.code, kind, problem.found.field);
  return message;
}

/** Most of what comes, read directly. Undefined: something is wrong with it, and the long way says what. */
function soundVote(kind: Vote['kind'], payload: Bytes): Vote | undefined {
  const cursor = new Cursor(plain(payload));
  const fields = cursor.array();
  const epoch = asEpoch(cursor.uint());
  const view = asView(cursor.uint());
  const height = asHeight(cursor.uint());
  const hash = cursor.bin();
  if (fields !== 4 || height < 1 || hash?.length !== 32 || !cursor.done()) return undefined;
  return { kind, epoch, view, height, hash: asHash(own(hash)) };
}

function read(
  kind: ReplicaKind,
  value: WireValue,
  problem: Problem,
  context: WireContext,
): ReplicaMessage | WireRefusal {
  const fields = (count: number) => Fields.of(value, count, '', problem);
  switch (kind) {
    case 'status':
      return readStatus(fields(7));
    case 'forward':
      return readForward(fields(1), context);
    case 'fetch-blocks':
      return readFetchBlocks(fields(2));
    case 'blocks':
      return readBlocks(fields(2), context);
    case 'fetch-block': {
      const f = fields(2);
      return { kind, height: f.height('height', 1), hash: f.hash('hash') };
    }
    case 'block-data': {
      const block = readBlock(fields(2), kind, context);
      return isRefusal(block) ? block : { kind, block };
    }
    case 'checkpoint':
      return { kind, ...readPlace(fields(PLACE_FIELDS)) };
    case 'fetch-checkpoint':
      fields(0);
      return { kind };
    case 'checkpoint-proof': {
      const f = fields(2);
      const checkpoint = readCheckpoint(f.tuple('checkpoint', CHECKPOINT_FIELDS));
      return { kind, checkpoint, headerBytes: f.owned('headerBytes', HEADER_BYTES) };
    }
    case 'fetch-state': {
      const f = fields(2);
      return { kind, height: f.height('height', 1), chunk: f.uint('chunk', 0xffff_ffff) };
    }
    case 'state-chunk':
      return readStateChunk(fields(4));
    case 'pre-prepare':
      return readPrePrepare(fields(2), context);
    case 'prepare':
    case 'commit': {
      const f = fields(4);
      return {
        kind,
        epoch: f.epoch('epoch'),
        view: f.view('view'),
        height: f.height('height', 1),
        hash: f.hash('hash'),
      };
    }
    case 'view-change':
      return readViewChange(fields(4));
    case 'new-view':
      return readNewView(fields(3), context);
    case 'fetch-standing': {
      const f = fields(2);
      return { kind, epoch: f.epoch('epoch'), nonce: f.owned('nonce', 32) };
    }
    case 'standing':
      return readStanding(fields(6), context);
    case 'accept':
    case 'fast-accept': {
      const f = fields(2);
      const ballot = f.view('ballot', 1);
      const value = readBlock(f.tuple('value', 2), kind, context);
      if (isRefusal(value)) return value;
      const { epoch } = value.header;
      return kind === 'accept' ? { kind, epoch, ballot, value } : { kind, epoch, ballot, value };
    }
    case 'append-entries': {
      const f = fields(6);
      const head = readAppendHead(f);
      const entry = f.optional('entry', 2, (item) => ({
        term: item.view('term', 1),
        parts: readBlockParts(item.tuple('value', 2), context.parameters.blockBundlesMax),
      }));
      if (f.problem.found !== undefined || entry === null) return { kind, ...head, entry: null };
      const value = blockOf(entry.parts.header, entry.parts.bundles, context, kind);
      return isRefusal(value) ? value : { kind, ...head, entry: { term: entry.term, value } };
    }
    case 'paxos-prepare':
    case 'promise':
    case 'accepted':
    case 'reject':
    case 'take-over':
    case 'configure':
    case 'configured':
    case 'open-round':
    case 'fast-accepted':
      return readPaxos(kind, fields);
    case 'read-query':
    case 'read-reply':
      return readRead(kind, fields);
    default:
      return readRaft(kind, fields);
  }
}

function readStatus(f: Fields): ReplicaMessage {
  return {
    kind: 'status',
    epoch: f.epoch('epoch'),
    view: f.view('view'),
    active: f.flag('active'),
    height: f.height('height'),
    hash: f.hash('hash'),
    stable: f.height('stable'),
    lowest: f.height('lowest'),
  };
}

function readForward(f: Fields, context: WireContext): ReplicaMessage | WireRefusal {
  const items = readBundleItems(f, context.parameters.blockBundlesMax);
  if (f.problem.found !== undefined) return { kind: 'forward', bundles: [] };
  const bundles: SignedBundle[] = [];
  for (const item of items) {
    const bundle = decodeBundle(item, context);
    if (isRefusal(bundle)) return { ...bundle, kind: 'forward', field: `bundles.${bundle.field}` };
    bundles.push(bundle);
  }
  return { kind: 'forward', bundles };
}

function readFetchBlocks(f: Fields): ReplicaMessage {
  const from = f.height('from', 1);
  return { kind: 'fetch-blocks', from, to: f.height('to', from) };
}

function readBlocks(f: Fields, context: WireContext): ReplicaMessage | WireRefusal {
  const parts = f.tuples('blocks', { max: BLOCKS_MAX }, 2, (item) => ({
    ...readBlockParts(item.tuple('block', 2), context.parameters.blockBundlesMax),
    certificate: item.optional('certificate', CERTIFICATE_FIELDS, readCertificate),
  }));
  const tail = f.optional('tail', 2, (item) => ({
    links: item.values('links', { max: LINKS_MAX }, (link) => link.owned('links', HEADER_BYTES)),
    certificate: readCertificate(item.tuple('certificate', CERTIFICATE_FIELDS)),
  }));
  if (f.problem.found !== undefined) return { kind: 'blocks', blocks: [], tail: null };
  const blocks: CertifiedBlock[] = [];
  for (const { header, bundles, certificate } of parts) {
    const block = blockOf(header, bundles, context, 'blocks');
    if (isRefusal(block)) return block;
    blocks.push({ block, certificate });
  }
  return { kind: 'blocks', blocks, tail };
}

function readBlock(f: Fields, kind: ReplicaKind, context: WireContext) {
  const { header, bundles } = readBlockParts(f, context.parameters.blockBundlesMax);
  if (f.problem.found !== undefined) return refuse(f.problem.found.code, kind, f.problem.found.field);
  return blockOf(header, bundles, context, kind);
}

function readPrePrepare(f: Fields, context: WireContext): ReplicaMessage | WireRefusal {
  const view = f.view('view');
  const block = readBlock(f.tuple('block', 2), 'pre-prepare', context);
  return isRefusal(block) ? block : { kind: 'pre-prepare', epoch: block.header.epoch, view, block };
}

function readStateChunk(f: Fields): ReplicaMessage {
  return {
    kind: 'state-chunk',
    height: f.height('height', 1),
    chunk: f.uint('chunk', 0xffff_ffff),
    bytes: own(f.bytes('bytes', 0, STATE_CHUNK_BYTES_MAX)),
    proof: f.values('proof', { max: PROOF_HASHES_MAX }, (item) => item.owned('proof', 32)),
  };
}

function readViewChange(f: Fields): ViewChange {
  return {
    kind: 'view-change',
    epoch: f.epoch('epoch'),
    view: f.view('view', 1),
    commit: f.optional('commit', CERTIFICATE_FIELDS, readCertificate),
    prepared: f.optional('prepared', CERTIFICATE_FIELDS, readCertificate),
  };
}

function readNewView(f: Fields, context: WireContext): ReplicaMessage | WireRefusal {
  const epoch = f.epoch('epoch');
  const view = f.view('view', 1);
  const items = f.tuples('viewChanges', { min: 1, max: MEMBERS_MAX }, 3, readSignedPayload);
  if (f.problem.found !== undefined) return { kind: 'new-view', epoch, view, viewChanges: [] };
  const viewChanges: Signed<ViewChange>[] = [];
  for (const item of items) {
    const viewChange = openViewChange(item, context);
    if (isRefusal(viewChange)) return { ...viewChange, kind: 'new-view', field: `viewChanges.${viewChange.field}` };
    viewChanges.push(viewChange);
  }
  return { kind: 'new-view', epoch, view, viewChanges };
}

function readStanding(f: Fields, context: WireContext): Standing | WireRefusal {
  const standing = {
    kind: 'standing',
    epoch: f.epoch('epoch'),
    nonce: f.owned('nonce', 32),
    commit: f.optional('commit', CERTIFICATE_FIELDS, readCertificate),
    prepared: f.optional('prepared', CERTIFICATE_FIELDS, readCertificate),
    stable: f.optional('stable', CHECKPOINT_FIELDS, readCheckpoint),
  } as const;
  const item = f.optional('asked', 3, readSignedPayload);
  if (f.problem.found !== undefined || item === null) return { ...standing, asked: null };
  const asked = openViewChange(item, context);
  return isRefusal(asked) ? { ...asked, kind: 'standing', field: `asked.${asked.field}` } : { ...standing, asked };
}

type SignedPayload = Omit<Signed<ViewChange>, 'message'>;

/** A view-change inside another message, as it was signed. */
const readSignedPayload = (item: Fields): SignedPayload => ({
  sender: item.replica('sender'),
  payload: own(item.bytes('payload', 1, VIEW_CHANGE_BYTES_MAX)),
  signature: item.owned('signature', 64),
});

function openViewChange(item: SignedPayload, context: WireContext): Signed<ViewChange> | WireRefusal {
  const decoded = decodeMsgpack(item.payload, limitsOf('view-change', context.parameters));
  if ('refused' in decoded) return refuse('payload-malformed', 'view-change', '', decoded.refused);
  const problem = new Problem();
  const message = readViewChange(Fields.of(decoded.value, 4, '', problem));
  return problem.found === undefined
    ? { ...item, message }
    : refuse(problem.found.code, 'view-change', problem.found.field);
}
