// Refusals of bytes: a stable code, and the kind and the field as data (WIRE-4). Sentences are made from them at the edge.

import type { MsgpackRefusal } from '../msgpack.ts';
import type { Kind } from './kinds.ts';

export type WireCode =
  | 'frame-too-large'
  | 'frame-malformed'
  | 'frame-version'
  | 'frame-kind-unknown'
  | 'payload-malformed'
  | 'field-out-of-range'
  | 'block-body-mismatch'
  | 'bundle-too-large';

export interface WireRefusal {
  readonly refused: WireCode;
  /** Of the frame or the stored thing; null where not even that could be read. */
  readonly kind: Kind | StoredKind | null;
  /** Path of the field, such as `block.bundles.signature`; empty where no field is to blame. */
  readonly field: string;
  /** Which rule of the MessagePack subset the bytes break; null where it is none of them. */
  readonly msgpack: MsgpackRefusal | null;
}

/** What is encoded for the store and never travels in a frame of its own. */
export type StoredKind = 'bundle' | 'body' | 'block' | 'certificate' | CheckpointKind | 'evidence' | EpochKind;
type EpochKind = 'epoch' | 'control' | 'epoch-link';
type CheckpointKind = 'checkpoint-place' | 'checkpoint-certificate';

export function refuse(
  refused: WireCode,
  kind: Kind | StoredKind | null,
  field = '',
  msgpack: MsgpackRefusal | null = null,
): WireRefusal {
  return { refused, kind, field, msgpack };
}

/** No value of this wire has a `refused` field, so this tells a refusal from any of them. */
export function isRefusal<T extends object>(value: T): value is Extract<T, { readonly refused: string }> {
  return 'refused' in value;
}
