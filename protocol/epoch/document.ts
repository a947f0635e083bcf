// The epoch document: who the members are, with which keys, under which protocol, parameters and policy, and at which block it begins.
// Everybody computes it: that of epoch 0 from the genesis document, every later one from the one before and the control transaction that
// ended it (successor.ts). Its hash stands in every header of the epoch, so replicas that differed in it could not decide one block.

import type { Bytes } from '../../crypto/bytes.ts';
import { concat } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Sha256 } from '../block.ts';
import { memberSetHash } from '../block.ts';
import {
  ADDRESS_PATTERN,
  type Genesis,
  MEMBERS_MIN,
  NAME_PATTERN,
  type Parameters,
  parameterDefaults,
  parameterNames,
} from '../genesis.ts';
import { genesisBlock } from '../genesis-block.ts';
import { domainTag } from '../layout.ts';
import { type Protocol, protocols, quorumsOf } from '../modes.ts';
import { decodeMsgpack, encodeMsgpack } from '../msgpack.ts';
import type { Epoch, Hash, Height, Member, Policy } from '../types.ts';
import { asEpoch, asHash, asHeight, asReplicaId } from '../types.ts';
import { Fields, MEMBERS_MAX, Problem } from '../wire/fields.ts';
import { refuse, type WireRefusal } from '../wire/refusal.ts';

export interface EpochDocument {
  readonly chainId: Hash;
  readonly epoch: Epoch;
  /** The block that it starts from, the last one of the epoch before: the genesis block for epoch 0. */
  readonly start: { readonly height: Height; readonly hash: Hash };
  readonly protocol: Protocol;
  /** `members[i].id` is i: a replica's number is good for one epoch. */
  readonly members: readonly Member[];
  readonly parameters: Parameters;
  readonly policy: Policy;
  /** [EPO-1] What every header of the epoch names as its member set hash. */
  readonly hash: Hash;
}

const tag = domainTag('synod-v1:epoch');
const VERSION = 1;
const DOCUMENT_FIELDS = 9;
const MEMBER_FIELDS = 4;
/** More than the largest: 128 members with names, two keys and an address of 480 characters each. */
export const EPOCH_DOCUMENT_BYTES_MAX = 96 << 10;

/** [EPO-1] Epoch 0. Its header hash is that of the members' keys alone: all else is in the chain id. */
export function genesisEpoch(sha256: Sha256, genesis: Genesis): EpochDocument {
  const hash = memberSetHash(sha256, asEpoch(0), genesis.members);
  return {
    chainId: genesis.chainId,
    epoch: asEpoch(0),
    start: { height: asHeight(0), hash: genesisBlock({ sha256, genesis, memberSetHash: hash }).hash },
    protocol: genesis.protocol,
    members: genesis.members,
    parameters: genesis.parameters,
    policy: genesis.policy ?? { signatures: 'quorum' },
    hash,
  };
}

/** [EPO-1] [WIRE-32] An epoch above 0, with its hash. */
export function epochDocument(sha256: Sha256, fields: Omit<EpochDocument, 'hash'>): EpochDocument {
  assert(fields.epoch > 0, 'the document of epoch 0 is the genesis document');
  return { ...fields, hash: asHash(sha256(concat(tag, encodeFields(fields)))) };
}

/** The bytes that are hashed, kept in the replicated state and shown to people who ask. Of an epoch above 0. */
export const encodeEpoch = (document: EpochDocument): Bytes => encodeFields(document);

function encodeFields({
  chainId,
  epoch,
  start,
  protocol,
  members,
  parameters,
  policy,
}: Omit<EpochDocument, 'hash'>): Bytes {
  return encodeMsgpack([
    VERSION,
    chainId,
    epoch,
    start.height,
    start.hash,
    protocol,
    members.map(({ name, publicKey, operatorKey, address }) => [name, publicKey, operatorKey ?? null, address ?? null]),
    parameterValues(parameters),
    policy.signatures === 'quorum' ? 0 : policy.signatures,
  ]);
}

/** Parameters that every document names. */
const FIRST_PARAMETERS = parameterNames.indexOf('leaseMs');

/**
 * [WIRE-32] The lease and what is behind it came after the others: the last of them that are at their defaults are not written, and documents from
 * before them stay what they were.
 */
function parameterValues(parameters: Parameters): number[] {
  const isDefault = (name: keyof Parameters) => parameters[name] === parameterDefaults[name];
  let count = parameterNames.length;
  while (count > FIRST_PARAMETERS && isDefault(parameterNames[count - 1]!)) count -= 1; // within the list
  return parameterNames.slice(0, count).map((name) => parameters[name]);
}

/** The document in these bytes. Well formed, nothing more: what makes it an epoch of a chain is the link that leads to it (chain.ts). */
export function decodeEpoch(sha256: Sha256, bytes: Bytes): EpochDocument | WireRefusal {
  const limits = { bytesMax: EPOCH_DOCUMENT_BYTES_MAX, depthMax: 3, valuesMax: 32 + 5 * MEMBERS_MAX };
  const decoded = decodeMsgpack(bytes, limits);
  if ('refused' in decoded) return refuse('payload-malformed', 'epoch', '', decoded.refused);
  const problem = new Problem();
  const fields = Fields.of(decoded.value, DOCUMENT_FIELDS, '', problem);
  fields.uint('version', VERSION, VERSION);
  const chainId = fields.hash('chainId');
  const epoch = asEpoch(fields.uint('epoch', Number.MAX_SAFE_INTEGER, 1));
  const start = { height: fields.height('start.height', 1), hash: fields.hash('start.hash') };
  const protocol = fields.word('protocol', protocols);
  const members = fields.tuples('members', { min: MEMBERS_MIN, max: MEMBERS_MAX }, MEMBER_FIELDS, readMember);
  const range = { min: FIRST_PARAMETERS, max: parameterNames.length };
  const values = fields.values('parameters', range, (item) => item.uint('parameters'));
  const last = parameterNames[values.length - 1];
  const isLonger = values.length > FIRST_PARAMETERS && last !== undefined && values.at(-1) === parameterDefaults[last];
  if (isLonger) problem.note('field-out-of-range', 'parameters');
  const policy = fields.uint('policy', MEMBERS_MAX);
  if (problem.found !== undefined) return refuse(problem.found.code, 'epoch', problem.found.field);
  // The cast: one value for each name.
  const parameters = Object.fromEntries(
    parameterNames.map((name, i) => [name, values[i] ?? parameterDefaults[name]]),
  ) as unknown as Parameters;
  const document: EpochDocument = {
    chainId,
    epoch,
    start,
    protocol,
    members,
    parameters,
    policy: { signatures: policy === 0 ? 'quorum' : policy },
    hash: asHash(sha256(concat(tag, bytes))),
  };
  return document;
}

function readMember(fields: Fields, index: number): Member {
  const name = fields.text('name', NAME_PATTERN);
  const publicKey = fields.owned('publicKey', 32);
  const operatorKey = fields.nullable((item) => item.owned('operatorKey', 32));
  const address = fields.nullable((item) => item.text('address', ADDRESS_PATTERN));
  return {
    id: asReplicaId(index),
    name,
    publicKey,
    ...(operatorKey === null ? {} : { operatorKey }),
    ...(address === null ? {} : { address }),
  };
}

/** How many operators' signatures end this epoch, and how many operators there are. */
export function signaturesNeeded({
  policy,
  protocol,
  members,
}: Pick<EpochDocument, 'policy' | 'protocol' | 'members'>): {
  readonly need: number;
  readonly operators: number;
} {
  const need = policy.signatures === 'quorum' ? quorumsOf({ protocol, members }).quorum : policy.signatures;
  return { need, operators: members.filter(({ operatorKey }) => operatorKey !== undefined).length };
}

/** The chain as the replicas of this epoch run it: what its core and its limits are made from. */
export const genesisOf = (genesis: Genesis, { members, parameters, protocol, policy }: EpochDocument): Genesis => ({
  ...genesis,
  members,
  parameters,
  protocol,
  policy,
});
