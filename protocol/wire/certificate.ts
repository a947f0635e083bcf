// Certificates and checkpoint places, inside payloads and in the store (docs/wire.md, "Certificates").

import type { Bytes } from '../../crypto/bytes.ts';
import type { Certificate, ProofPhase, SignatureOf } from '../certificate.ts';
import type { CheckpointCertificate, CheckpointPlace } from '../messages.ts';
import { decodeMsgpack, encodeMsgpack, type WireValue } from '../msgpack.ts';
import type { ReplicaId } from '../types.ts';
import { arrayBytes, binBytes, Scribe, uintBytes } from './cursor.ts';
import { Fields, MEMBERS_MAX, Problem } from './fields.ts';
import { refuse, type StoredKind, type WireRefusal } from './refusal.ts';

const numberOfPhase: Record<ProofPhase, number> = { prepare: 1, commit: 2, decided: 3 };
const phases: readonly ProofPhase[] = ['prepare', 'commit', 'decided'];

/** Fields of a certificate, of a checkpoint place and of a checkpoint certificate. */
export const CERTIFICATE_FIELDS = 6;
export const PLACE_FIELDS = 6;
export const CHECKPOINT_FIELDS = 7;
/** Values that a certificate is made of, at most: itself, its fields, and three for each signature. */
export const CERTIFICATE_VALUES_MAX = 1 + CHECKPOINT_FIELDS + 3 * MEMBERS_MAX;
/** Bytes of a certificate of either sort with this many signatures, at most. */
export function certificateBytesMax(signatures: number): number {
  return 1 + 4 * 9 + 4 * 34 + 3 + signatures * (1 + 1 + 2 + 64);
}

export function certificateValue(certificate: Certificate): WireValue {
  const { epoch, phase, view, height, hash, signatures } = certificate;
  return [epoch, numberOfPhase[phase], view, height, hash, signaturesValue(signatures)];
}

export function readCertificate(fields: Fields): Certificate {
  return {
    epoch: fields.epoch('epoch'),
    phase: phases[fields.uint('phase', 3, 1) - 1] ?? 'prepare',
    view: fields.view('view'),
    height: fields.height('height', 1),
    hash: fields.hash('hash'),
    signatures: readSignatures(fields),
  };
}

export function placeValues(place: CheckpointPlace): readonly WireValue[] {
  return [place.epoch, place.height, place.hash, place.logRoot, place.memberSetHash, place.stateDigest];
}

export function readPlace(fields: Fields): CheckpointPlace {
  return {
    epoch: fields.epoch('epoch'),
    height: fields.height('height', 1),
    hash: fields.hash('hash'),
    logRoot: fields.hash('logRoot'),
    memberSetHash: fields.hash('memberSetHash'),
    stateDigest: fields.hash('stateDigest'),
  };
}

export function checkpointValue(checkpoint: CheckpointCertificate): WireValue {
  return [...placeValues(checkpoint), signaturesValue(checkpoint.signatures)];
}

export function readCheckpoint(fields: Fields): CheckpointCertificate {
  return { ...readPlace(fields), signatures: readSignatures(fields) };
}

function signaturesValue(signatures: readonly SignatureOf[]): WireValue {
  return signatures.map(({ replica, signature }) => [replica, signature]);
}

/** [WIRE-11] Strictly rising replicas, so that nobody is counted twice and one set has one encoding. */
function readSignatures(fields: Fields): SignatureOf[] {
  let last = -1;
  return fields.tuples('signatures', { min: 1, max: MEMBERS_MAX }, 2, (item) => {
    const replica: ReplicaId = item.replica('replica');
    if (replica <= last) item.problem.note('field-out-of-range', 'signatures.replica');
    last = replica;
    return { replica, signature: item.owned('signature', 64) };
  });
}

/** As the value above. Written by hand: one is made for every height. */
export function encodeCertificate({ epoch, phase, view, height, hash, signatures }: Certificate): Bytes {
  let size = 2 + uintBytes(epoch) + uintBytes(view) + uintBytes(height) + binBytes(hash.length);
  size += arrayBytes(signatures.length);
  for (const { replica, signature } of signatures) size += 1 + uintBytes(replica) + binBytes(signature.length);
  const scribe = new Scribe(size).array(CERTIFICATE_FIELDS).uint(epoch).uint(numberOfPhase[phase]).uint(view);
  scribe.uint(height).bin(hash).array(signatures.length);
  for (const { replica, signature } of signatures) scribe.array(2).uint(replica).bin(signature);
  return scribe.done();
}

export function decodeCertificate(bytes: Bytes): Certificate | WireRefusal {
  return decodeStored(bytes, 'certificate', CERTIFICATE_FIELDS, readCertificate);
}

export function encodeCheckpointPlace(place: CheckpointPlace): Bytes {
  return encodeMsgpack(placeValues(place));
}

export function decodeCheckpointPlace(bytes: Bytes): CheckpointPlace | WireRefusal {
  return decodeStored(bytes, 'checkpoint-place', PLACE_FIELDS, readPlace);
}

export function encodeCheckpointCertificate(checkpoint: CheckpointCertificate): Bytes {
  return encodeMsgpack(checkpointValue(checkpoint));
}

export function decodeCheckpointCertificate(bytes: Bytes): CheckpointCertificate | WireRefusal {
  return decodeStored(bytes, 'checkpoint-certificate', CHECKPOINT_FIELDS, readCheckpoint);
}

function decodeStored<T extends object>(
  bytes: Bytes,
  kind: StoredKind,
  fieldCount: number,
  read: (fields: Fields) => T,
): T | WireRefusal {
  const bytesMax = certificateBytesMax(MEMBERS_MAX);
  const decoded = decodeMsgpack(bytes, { bytesMax, depthMax: 3, valuesMax: CERTIFICATE_VALUES_MAX });
  if ('refused' in decoded) return refuse('payload-malformed', kind, '', decoded.refused);
  const problem = new Problem();
  const value = read(Fields.of(decoded.value, fieldCount, '', problem));
  return problem.found === undefined ? value : refuse(problem.found.code, kind, problem.found.field);
}
