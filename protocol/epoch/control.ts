// Control transactions: what ends an epoch and says what the next one is. To the log a transaction like any other, told by its first 16
// bytes; here its form and its signatures, which need no state to be checked. Whether it may end the epoch at hand is successor.ts' to say.

import type { Bytes } from '../../crypto/bytes.ts';
import { compareBytes, concat } from '../../crypto/bytes.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { assert } from '../assert.ts';
import type { Sha256 } from '../block.ts';
import { ADDRESS_PATTERN, NAME_PATTERN, type Parameters, parameterNames } from '../genesis.ts';
import { domainTag, LayoutWriter } from '../layout.ts';
import { decodeMsgpack, encodeMsgpack, type WireValue } from '../msgpack.ts';
import type { Epoch, Hash, Height, Policy } from '../types.ts';
import { asHash } from '../types.ts';
import { own } from '../wire/bytes.ts';
import { Fields, MEMBERS_MAX, Problem } from '../wire/fields.ts';
import { refuse, type WireRefusal } from '../wire/refusal.ts';

export type Change =
  /** A member at the end of the list. Its key must have signed for it (`Join`). */
  | {
      readonly change: 'add-member';
      readonly name: string;
      readonly publicKey: Bytes;
      readonly operatorKey: Bytes | null;
      readonly address: string | null;
    }
  /** The numbers of those behind it fall by one. */
  | { readonly change: 'remove-member'; readonly name: string }
  /** The new key must have signed for it (`Join`). */
  | { readonly change: 'replace-replica-key'; readonly name: string; readonly publicKey: Bytes }
  | { readonly change: 'replace-operator-key'; readonly name: string; readonly operatorKey: Bytes | null }
  | { readonly change: 'change-address'; readonly name: string; readonly address: string | null }
  | { readonly change: 'set-parameter'; readonly parameter: keyof Parameters; readonly value: number }
  | { readonly change: 'set-policy'; readonly policy: Policy }
  /** By name: a protocol that this program does not have is refused where it is judged. */
  | { readonly change: 'set-protocol'; readonly protocol: string };

/** What operators sign: good for one epoch, and up to one height. */
export interface ControlBody {
  readonly chainId: Hash;
  /** The epoch that it ends, and its document's hash. */
  readonly epoch: Epoch;
  readonly epochHash: Hash;
  /** The last height at which it may stand in a block. */
  readonly validUntil: Height;
  /** In this order; 1 to 32. */
  readonly changes: readonly Change[];
}

/** A replica key that is new in the next epoch: its holder is there, and so far behind at most. */
export interface Join {
  readonly publicKey: Bytes;
  /** The height that the holder's replica had decided or followed when it signed. */
  readonly height: Height;
  readonly signature: Bytes;
}

export interface Control {
  /** The bytes that were signed; nobody encodes a body again to check a signature. */
  readonly payload: Bytes;
  /** SHA-256 of the payload. */
  readonly digest: Hash;
  readonly body: ControlBody;
  /** By strictly rising operator key. */
  readonly signatures: readonly { readonly operatorKey: Bytes; readonly signature: Bytes }[];
  /** By strictly rising replica key. */
  readonly joins: readonly Join[];
}

export const CHANGES_MAX = 32;
/** More than the largest payload: 32 new members. */
export const CONTROL_PAYLOAD_BYTES_MAX = 24 << 10;
/** A transaction: its payload, 128 signatures, 32 joins. */
export const CONTROL_BYTES_MAX = 16 + CONTROL_PAYLOAD_BYTES_MAX + 128 * 101 + CHANGES_MAX * 110 + 32;
const controlTag = domainTag('synod-v1:control');
const joinTag = domainTag('synod-v1:join');
const VERSION = 1;

/** [EPO-2] Every transaction that begins with these 16 bytes is one, sound or not: nobody else can use them. */
export function isControl(transaction: Bytes): boolean {
  if (transaction.length < controlTag.length) return false;
  for (let i = 0; i < controlTag.length; i++) if (transaction[i] !== controlTag[i]) return false;
  return true;
}

/** [WIRE-33] What an operator signs: 80 bytes. */
export function controlSigningBytes(chainId: Hash, digest: Hash): Bytes {
  return new LayoutWriter(80).bytes(controlTag, 16).bytes(chainId, 32).bytes(digest, 32).done();
}

/** [WIRE-33] What a new replica key signs: 88 bytes. */
export function joinSigningBytes(chainId: Hash, digest: Hash, height: Height): Bytes {
  return new LayoutWriter(88).bytes(joinTag, 16).bytes(chainId, 32).bytes(digest, 32).u64(height).done();
}

/** The payload of a body. Throws where no reader would accept it: a bug of its maker. */
export function encodeControlBody(body: ControlBody): Bytes {
  const { chainId, epoch, epochHash, validUntil, changes } = body;
  const payload = encodeMsgpack([VERSION, chainId, epoch, epochHash, validUntil, changes.map(changeValue)]);
  assert(!('refused' in decodeControlBody(payload)), 'a control body within its bounds');
  return payload;
}

function changeValue(change: Change): readonly WireValue[] {
  switch (change.change) {
    case 'add-member':
      return [change.change, change.name, change.publicKey, change.operatorKey, change.address];
    case 'remove-member':
      return [change.change, change.name];
    case 'replace-replica-key':
      return [change.change, change.name, change.publicKey];
    case 'replace-operator-key':
      return [change.change, change.name, change.operatorKey];
    case 'change-address':
      return [change.change, change.name, change.address];
    case 'set-parameter':
      return [change.change, change.parameter, change.value];
    case 'set-policy':
      return [change.change, change.policy.signatures === 'quorum' ? 0 : change.policy.signatures];
    case 'set-protocol':
      return [change.change, change.protocol];
  }
}

/** [WIRE-33] The body in a payload. Bytes from outside: never throws. */
export function decodeControlBody(payload: Bytes): ControlBody | WireRefusal {
  const decoded = decodeMsgpack(payload, {
    bytesMax: CONTROL_PAYLOAD_BYTES_MAX,
    depthMax: 3,
    valuesMax: 8 + 6 * CHANGES_MAX,
  });
  if ('refused' in decoded) return refuse('payload-malformed', 'control', '', decoded.refused);
  const problem = new Problem();
  const fields = Fields.of(decoded.value, 6, '', problem);
  fields.uint('version', VERSION, VERSION);
  const body: ControlBody = {
    chainId: fields.hash('chainId'),
    epoch: fields.epoch('epoch'),
    epochHash: fields.hash('epochHash'),
    validUntil: fields.height('validUntil', 1),
    changes: fields.lists('changes', { min: 1, max: CHANGES_MAX }, readChange),
  };
  return problem.found === undefined ? body : refuse(problem.found.code, 'control', problem.found.field);
}

const changeWords = [
  'add-member',
  'remove-member',
  'replace-replica-key',
  'replace-operator-key',
  'change-address',
  'set-parameter',
  'set-policy',
  'set-protocol',
] as const satisfies readonly Change['change'][];

function readChange(fields: Fields): Change {
  const change = fields.word('change', changeWords);
  const name = () => fields.text('name', NAME_PATTERN);
  const key = (field: string) => (item: Fields) => item.owned(field, 32);
  const address = () => fields.nullable((item) => item.text('address', ADDRESS_PATTERN));
  switch (change) {
    case 'add-member':
      return {
        change,
        name: name(),
        publicKey: key('publicKey')(fields),
        operatorKey: fields.nullable(key('operatorKey')),
        address: address(),
      };
    case 'remove-member':
      return { change, name: name() };
    case 'replace-replica-key':
      return { change, name: name(), publicKey: key('publicKey')(fields) };
    case 'replace-operator-key':
      return { change, name: name(), operatorKey: fields.nullable(key('operatorKey')) };
    case 'change-address':
      return { change, name: name(), address: address() };
    case 'set-parameter': {
      const [first, ...rest] = parameterNames;
      assert(first !== undefined, 'there are parameters');
      return { change, parameter: fields.word('parameter', [first, ...rest]), value: fields.uint('value') };
    }
    case 'set-policy': {
      const signatures = fields.uint('policy', MEMBERS_MAX);
      return { change, policy: { signatures: signatures === 0 ? 'quorum' : signatures } };
    }
    case 'set-protocol':
      return { change, protocol: fields.text('protocol', NAME_PATTERN) };
  }
}

/** [WIRE-33] The transaction's bytes. Signatures and joins in any order: they are written in theirs. */
export function encodeControl({
  payload,
  signatures,
  joins,
}: Pick<Control, 'payload' | 'signatures' | 'joins'>): Bytes {
  const rising = [...signatures].sort((a, b) => compareBytes(a.operatorKey, b.operatorKey));
  const joined = [...joins].sort((a, b) => compareBytes(a.publicKey, b.publicKey));
  return concat(
    controlTag,
    encodeMsgpack([
      payload,
      rising.map(({ operatorKey, signature }) => [operatorKey, signature]),
      joined.map(({ publicKey, height, signature }) => [publicKey, height, signature]),
    ]),
  );
}

/** [WIRE-33] The control transaction in these bytes, its form alone checked. Bytes from outside: never throws, and keeps none of them. */
export function decodeControl(sha256: Sha256, transaction: Bytes): Control | WireRefusal {
  if (!isControl(transaction)) return refuse('payload-malformed', 'control', 'tag');
  if (transaction.length > CONTROL_BYTES_MAX) return refuse('field-out-of-range', 'control', '(size)');
  const decoded = decodeMsgpack(transaction.subarray(controlTag.length), {
    bytesMax: CONTROL_BYTES_MAX,
    depthMax: 3,
    valuesMax: 8 + 3 * MEMBERS_MAX + 4 * CHANGES_MAX,
  });
  if ('refused' in decoded) return refuse('payload-malformed', 'control', '', decoded.refused);
  const problem = new Problem();
  const fields = Fields.of(decoded.value, 3, '', problem);
  const payload = own(fields.bytes('payload', 1, CONTROL_PAYLOAD_BYTES_MAX));
  const signatures = fields.tuples('signatures', { max: MEMBERS_MAX }, 2, (item) => ({
    operatorKey: item.owned('operatorKey', 32),
    signature: item.owned('signature', 64),
  }));
  const joins = fields.tuples('joins', { max: CHANGES_MAX }, 3, (item) => ({
    publicKey: item.owned('publicKey', 32),
    height: item.height('height'),
    signature: item.owned('signature', 64),
  }));
  if (!isRising(signatures.map(({ operatorKey }) => operatorKey)))
    problem.note('field-out-of-range', 'signatures.operatorKey');
  if (!isRising(joins.map(({ publicKey }) => publicKey))) problem.note('field-out-of-range', 'joins.publicKey');
  if (problem.found !== undefined) return refuse(problem.found.code, 'control', problem.found.field);
  const body = decodeControlBody(payload);
  if ('refused' in body) return body;
  return { payload, digest: asHash(sha256(payload)), body, signatures, joins };
}

/** So that nobody is counted twice, and one set has one encoding. */
function isRising(keys: readonly Bytes[]): boolean {
  return keys.every((key, i) => i === 0 || compareBytes(keys[i - 1]!, key) < 0);
}

/** Why a control transaction can stand in no block of any epoch; null: nothing is wrong by itself. */
export type ControlFlaw = { readonly refused: 'control-signature' | 'control-key'; readonly field: string };

/**
 * [EPO-4] Whether every signature in it is valid and every new key admissible. Needs no state, so it is checked with the signature of its
 * bundle, before a core hears of it; the core counts keys and never verifies.
 */
export function controlFlaw(
  crypto: Crypto,
  chainId: Hash,
  { body, digest, signatures, joins }: Control,
): ControlFlaw | null {
  for (const [index, change] of body.changes.entries()) {
    const keys = ['publicKey' in change ? change.publicKey : null, 'operatorKey' in change ? change.operatorKey : null];
    for (const key of keys)
      if (key !== null && crypto.admitKey(key) !== 'ok') return { refused: 'control-key', field: `changes.${index}` };
  }
  const message = controlSigningBytes(chainId, digest);
  for (const [index, { operatorKey, signature }] of signatures.entries())
    if (!crypto.verify(operatorKey, message, signature))
      return { refused: 'control-signature', field: `signatures.${index}` };
  for (const [index, { publicKey, height, signature }] of joins.entries())
    if (!crypto.verify(publicKey, joinSigningBytes(chainId, digest, height), signature))
      return { refused: 'control-signature', field: `joins.${index}` };
  return null;
}
