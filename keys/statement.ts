// Statements: what a key signs without a mark, because it binds nobody (status, forward, fetch, handshake).

import type { Bytes } from '../crypto/bytes.ts';
import { domainTag } from '../protocol/layout.ts';
import { type Kind, kindNumbers } from '../protocol/wire/kinds.ts';
import { GuardRefusal } from './errors.ts';

/** The bytes that a frame of this chain signs: a domain tag of their own, the chain, the kind and the payload. */
export type FrameSigningBytes = (kind: Kind, payload: Bytes) => Bytes;

/** Kinds that bind the speaker or have a layout of their own: they leave through a promise, a proposal or signBundle alone. */
const bindingKinds: ReadonlySet<string> = new Set([
  'prepare',
  'commit',
  'checkpoint',
  'view-change',
  'new-view',
  'promise',
  'accepted',
  'configured',
  'fast-accepted',
  'vote',
  'appended',
  'pre-prepare',
  'submit',
]);

const voteTag = domainTag('synod-v1:vote');
const bundleTag = domainTag('synod-v1:bundle');
const newline = 10;

/**
 * [GRD-11] A statement is of a known kind that binds nobody, and its bytes are nothing that a vote or a bundle could be. The
 * second half looks at the bytes, because the function that makes them comes from outside.
 * @throws GuardRefusal guard-binding-kind, guard-unknown-kind
 */
export function statementBytes(frameBytes: FrameSigningBytes, kind: string, payload: Bytes): Bytes {
  if (bindingKinds.has(kind)) throw new GuardRefusal('guard-binding-kind', { kind });
  if (!isKind(kind)) throw new GuardRefusal('guard-unknown-kind', { kind });
  const bytes = frameBytes(kind, payload);
  assertFrame(kind, bytes);
  return bytes;
}

/** Bytes in the layout of a vote or a bundle are signed where those are signed, and nowhere else. */
export function assertFrame(kind: string, bytes: Bytes): void {
  if (startsWith(bytes, voteTag) || startsWith(bytes, bundleTag))
    throw new GuardRefusal('guard-binding-kind', { kind });
}

/** A checkpoint note is text that ends with a newline; a frame starts with a zero-padded tag. Neither can be the other. */
export function assertNote(bytes: Bytes): void {
  if (bytes.at(-1) !== newline || bytes.includes(0))
    throw new GuardRefusal('guard-binding-kind', { kind: 'checkpoint' });
}

function startsWith(bytes: Bytes, tag: Bytes): boolean {
  return bytes.length >= tag.length && tag.every((byte, i) => bytes[i] === byte);
}

function isKind(kind: string): kind is Kind {
  return Object.hasOwn(kindNumbers, kind);
}
