// The frame: [version, kind, payload, sender, signature], one per WebSocket message (docs/wire.md, "Frame"; blueprint, section 9).

import type { Bytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import { FRAME_BYTES_MAX } from '../genesis.ts';
import { domainTag, LayoutWriter } from '../layout.ts';
import type { Hash } from '../types.ts';
import { plain } from './bytes.ts';
import { binBytes, Cursor, Scribe, uintBytes } from './cursor.ts';
import { type Kind, kindNumbers, kindOf } from './kinds.ts';
import { refuse, type WireRefusal } from './refusal.ts';

export const FRAME_VERSION = 1;

export interface Frame {
  readonly kind: Kind;
  /** The exact bytes that were signed, directly or through what they hold. */
  readonly payload: Bytes;
  /** Ed25519 public key, 32 bytes. Nothing is believed of it before the signature is checked. */
  readonly sender: Bytes;
  /** 64 bytes; what it covers depends on the kind (verify.ts, signingBytes). */
  readonly signature: Bytes;
}

/** What a frame adds to its payload, at most: array, version, kind, three bin headers, key and signature. */
export const FRAME_OVERHEAD_BYTES = 1 + 1 + 2 + 5 + binBytes(32) + binBytes(64);
/** The largest payload that fits into any frame. */
export const PAYLOAD_BYTES_MAX = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES;

const frameTag = domainTag('synod-v1:frame');

/** What a frame's sender signs, but for the kinds that have a layout of their own: pre-prepare, votes, checkpoint, submit. */
export function frameSigningBytes(chainId: Hash, kind: Kind, payload: Bytes): Bytes {
  return new LayoutWriter(16 + 32 + 1 + payload.length)
    .bytes(frameTag, 16)
    .bytes(chainId, 32)
    .u8(kindNumbers[kind])
    .bytes(payload, payload.length)
    .done();
}

/** A payload that is not written yet. */
export interface UnwrittenPayload {
  readonly bytes: number;
  /** Exactly so many bytes. */
  write(scribe: Scribe): void;
}

/** Throws on a frame that no one would accept: senders split their answers (PAYLOAD_BYTES_MAX), so that is a bug. */
export function encodeFrame({ payload, ...rest }: Frame): Bytes {
  return writeFrame({ ...rest, payload: { bytes: payload.length, write: (scribe) => scribe.raw(payload) } });
}

/** The same where the payload is large and nobody signs it: it is written where it lies in the frame, and not copied there. */
export function writeFrame(frame: Omit<Frame, 'payload'> & { readonly payload: UnwrittenPayload }): Bytes {
  const { kind, payload, sender, signature } = frame;
  assert(sender.length === 32 && signature.length === 64, 'a key and a signature');
  assert(payload.bytes <= PAYLOAD_BYTES_MAX, `a ${kind} of ${payload.bytes} bytes does not fit into a frame`);
  const number = kindNumbers[kind];
  const scribe = new Scribe(2 + uintBytes(number) + binBytes(payload.bytes) + binBytes(32) + binBytes(64))
    .array(5)
    .uint(FRAME_VERSION)
    .uint(number)
    .binHeader(payload.bytes);
  payload.write(scribe);
  return scribe.bin(sender).bin(signature).done();
}

/** The kind that these bytes say they are of, at a glance; nothing else in them has been looked at. */
export function kindInFrame(bytes: Bytes): Kind | undefined {
  if (bytes.length < 4 || bytes[0] !== FIVE || bytes[1] !== FRAME_VERSION) return undefined;
  return kindOf(bytes[2] === UINT8 ? bytes[3]! : bytes[2]!);
}

/** The header of an array of five, and that of a number from 128 on. */
const FIVE = 0x95;
const UINT8 = 0xcc;

/** [WIRE-7] The frame in these bytes, all of them, as views; nothing in the payload has been looked at. */
export function decodeFrame(bytes: Bytes): Frame | WireRefusal {
  if (bytes.length > FRAME_BYTES_MAX) return refuse('frame-too-large', null);
  const cursor = new Cursor(plain(bytes));
  if (cursor.array() !== 5) return refuse('frame-malformed', null);
  const version = cursor.uint();
  // Before everything else, so that the frame of a later version is told from garbage.
  if (version !== FRAME_VERSION) return refuse(version < 0 ? 'frame-malformed' : 'frame-version', null, 'version');
  const number = cursor.uint();
  const kind = kindOf(number);
  if (kind === undefined) return refuse(number < 0 ? 'frame-malformed' : 'frame-kind-unknown', null, 'kind');
  const payload = cursor.bin();
  const sender = cursor.bin();
  const signature = cursor.bin();
  if (payload === undefined) return refuse('frame-malformed', kind, 'payload');
  if (payload.length > PAYLOAD_BYTES_MAX) return refuse('frame-too-large', kind, 'payload');
  if (sender?.length !== 32) return refuse('frame-malformed', kind, 'sender');
  if (signature?.length !== 64) return refuse('frame-malformed', kind, 'signature');
  if (!cursor.done()) return refuse('frame-malformed', kind);
  return { kind, payload, sender, signature };
}
