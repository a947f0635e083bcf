// The genesis document: the first epoch's members, protocol and parameters. A JSON file that every replica, client and verifier
// holds byte for byte the same; its hash is the chain id, so two chains never mistake each other's signatures.

import { z } from 'zod';
import type { Bytes } from '../crypto/bytes.ts';
import { concat, fromHex } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { Sha256 } from './block.ts';
import { domainTag } from './layout.ts';
import type { Protocol } from './modes.ts';
import { membersMin, protocols } from './modes.ts';
import type { Hash, Member, Millis, Policy } from './types.ts';
import { asHash, asMillis, asReplicaId } from './types.ts';

/** Limits and timing of an epoch. Every replica must hold the same, so they stand in the genesis document, not in a config file. */
export interface Parameters {
  /** Payload bytes of one block, at most. */
  readonly blockBytesMax: number;
  readonly blockBundlesMax: number;
  readonly bundleBytesMax: number;
  readonly bundleTransactionsMax: number;
  readonly transactionBytesMax: number;
  /** Blocks the primary may propose above the last decided one. */
  readonly window: number;
  /** Blocks between checkpoints. */
  readonly checkpointInterval: number;
  /** How far above the current height a bundle's valid-until may lie, in blocks: what a session is remembered for. */
  readonly validUntilHorizon: number;
  /** How far a proposal's time may be from a voter's clock. */
  readonly timeDriftMsMax: number;
  /** The base view timeout T. */
  readonly viewTimeoutMs: number;
  readonly heartbeatMs: number;
  /** Multi-Paxos: how long a leader's lease lasts (PXS-R-2); 0: it has none. */
  readonly leaseMs: number;
  /** Decided blocks that every replica keeps at least, whatever its config says. */
  readonly retainBlocksMin: number;
  /** How much of the pool one client may fill (REQ-4). */
  readonly clientPoolPercent: number;
}

export interface Genesis {
  /** SHA-256 over a domain tag and the bytes of the document. */
  readonly chainId: Hash;
  readonly name: string;
  readonly protocol: Protocol;
  readonly createdAt: Millis;
  readonly members: readonly Member[];
  readonly parameters: Parameters;
  /** Absent: a quorum. Without operator keys there is nobody to sign, and the first epoch is the only one. */
  readonly policy?: Policy;
}

/** The largest message on the wire; `blockBytesMax` and `bundleBytesMax` leave room for what surrounds them. */
export const FRAME_BYTES_MAX = 1 << 20;

const integer = (low: number, high: number) => z.int().min(low).max(high);

const parametersSchema = z.strictObject({
  blockBytesMax: integer(1024, 786_432).default(524_288),
  blockBundlesMax: integer(1, 2048).default(1024),
  bundleBytesMax: integer(256, 524_288).default(262_144),
  bundleTransactionsMax: integer(1, 4096).default(1024),
  transactionBytesMax: integer(1, 524_288).default(131_072),
  window: integer(1, 64).default(8),
  checkpointInterval: integer(4, 4096).default(64),
  validUntilHorizon: integer(64, 10_000_000).default(100_000),
  timeDriftMsMax: integer(100, 3_600_000).default(10_000),
  viewTimeoutMs: integer(50, 600_000).default(500),
  heartbeatMs: integer(10, 60_000).default(100),
  leaseMs: integer(0, 600_000).default(0),
  retainBlocksMin: integer(0, 1_000_000_000).default(0),
  clientPoolPercent: integer(1, 100).default(50),
});

/** Of a network and of a member. */
export const NAME_PATTERN = /^[a-z0-9-]{1,32}$/;
/** A WebSocket URL of a host and a port, with a path or without. */
export const ADDRESS_PATTERN =
  /^wss?:\/\/(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}(?:\/[A-Za-z0-9._~/-]{0,200})?$/;
/** Of a member list, whatever the protocol (modes.ts says what each needs). */
export const MEMBERS_MIN = 3;

const name = z.string().regex(NAME_PATTERN, 'a name of 1 to 32 characters out of a-z, 0-9 and -');
const key = z.string().regex(/^[0-9a-f]{64}$/, '64 characters of lower-case hex');

const documentSchema = z.strictObject({
  synod: z.literal(1),
  name,
  protocol: z.enum(protocols),
  createdAt: integer(0, Number.MAX_SAFE_INTEGER),
  members: z
    .array(
      z.strictObject({
        name,
        publicKey: key,
        operatorKey: key.optional(),
        address: z
          .string()
          .regex(ADDRESS_PATTERN, 'a WebSocket address with its port, such as ws://10.0.0.2:7000')
          .optional(),
      }),
    )
    .min(MEMBERS_MIN)
    .max(128),
  parameters: parametersSchema.prefault({}),
  policy: z.strictObject({ signatures: integer(1, 128) }).optional(),
});

/** What the JSON file holds, before defaults: `synod init` writes this. */
export type GenesisDocument = z.input<typeof documentSchema>;

export type GenesisProblem = { readonly refused: 'genesis-invalid'; readonly field: string; readonly problem: string };

const genesisTag = domainTag('synod-v1:genesis');

export function chainIdOf(sha256: Sha256, document: Bytes): Hash {
  return asHash(sha256(concat(genesisTag, document)));
}

/** The genesis in these bytes (UTF-8 JSON), or which field is wrong and why. Bytes from outside: never throws. */
export function parseGenesis(crypto: Crypto, document: Bytes, text: string): Genesis | GenesisProblem {
  const refuse = (field: string, problem: string): GenesisProblem => ({ refused: 'genesis-invalid', field, problem });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return refuse('(document)', `not JSON: ${error instanceof Error ? error.message : 'unreadable'}`);
  }
  const parsed = documentSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    return refuse(issue?.path.join('.') || '(document)', issue?.message ?? 'invalid');
  }
  const { name, protocol, createdAt, members, parameters, policy } = parsed.data;
  if (members.length < membersMin(protocol))
    return refuse('members', `${protocol} needs at least ${membersMin(protocol)} of them`);
  const names = new Set<string>();
  const keys = new Set<string>();
  const list: Member[] = [];
  let operators = 0;
  for (const [index, member] of members.entries()) {
    const take = (field: 'publicKey' | 'operatorKey', hex: string): Bytes | GenesisProblem => {
      const bytes = fromHex(hex);
      const verdict = bytes === undefined ? 'key-length' : crypto.admitKey(bytes);
      if (bytes === undefined || verdict !== 'ok') return refuse(`members.${index}.${field}`, verdict);
      if (keys.has(hex)) return refuse(`members.${index}.${field}`, 'the key of another member, or its other key');
      keys.add(hex);
      return bytes;
    };
    if (names.has(member.name)) return refuse(`members.${index}.name`, `${member.name} stands twice`);
    names.add(member.name);
    const publicKey = take('publicKey', member.publicKey);
    if ('refused' in publicKey) return publicKey;
    const operatorKey = member.operatorKey === undefined ? undefined : take('operatorKey', member.operatorKey);
    if (operatorKey !== undefined && 'refused' in operatorKey) return operatorKey;
    if (operatorKey !== undefined) operators += 1;
    list.push({
      id: asReplicaId(index),
      name: member.name,
      publicKey,
      ...(operatorKey === undefined ? {} : { operatorKey }),
      ...(member.address === undefined ? {} : { address: member.address }),
    });
  }
  const problem = parameterProblem(parameters, protocol);
  if (problem !== null) return refuse(`parameters.${problem.field}`, problem.problem);
  if (policy !== undefined && policy.signatures > operators)
    return refuse('policy.signatures', `there are ${operators} operator keys`);
  return {
    chainId: chainIdOf(crypto.sha256, document),
    name,
    protocol,
    createdAt: asMillis(createdAt),
    members: list,
    parameters,
    ...(policy === undefined ? {} : { policy }),
  };
}

/** In the order of docs/wire.md, which is that of an epoch document: new ones are added at the end. */
export const parameterNames = Object.keys(parametersSchema.shape) as readonly (keyof Parameters)[]; // the schema has exactly these keys

/** Of a chain whose genesis document names none. */
export const parameterDefaults: Parameters = parametersSchema.parse({});

/** Bytes of a block for each transaction, at least. */
const BYTES_PER_TRANSACTION = 32;

/**
 * [BLK-8] Transactions of one block. Each costs every replica a hash and some 350 bytes of heap, however small it is: without this bound a
 * block of one-byte transactions would take longer to check than a view waits.
 */
export const blockTransactionsMax = ({ blockBytesMax, bundleTransactionsMax }: Parameters): number =>
  Math.max(bundleTransactionsMax, Math.floor(blockBytesMax / BYTES_PER_TRANSACTION));

export interface ParameterProblem {
  readonly field: keyof Parameters | '(parameters)';
  readonly problem: string;
}

/** The largest that can be: for what is in the log, of whatever epoch. It was within the limits of its own when it was accepted. */
export const storedParameters = (parameters: Parameters): Parameters => ({
  ...parameters,
  blockBytesMax: 786_432,
  blockBundlesMax: 2048,
  bundleBytesMax: 524_288,
  bundleTransactionsMax: 4096,
  transactionBytesMax: 524_288,
});

/** What is wrong with these parameters, each by itself or together; null: nothing. */
export function parameterProblem(parameters: Parameters, protocol: Protocol): ParameterProblem | null {
  const parsed = parametersSchema.safeParse(parameters);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = parameterNames.find((candidate) => candidate === issue?.path[0]) ?? '(parameters)';
    return { field, problem: issue?.message ?? 'invalid' };
  }
  if (parameters.bundleBytesMax > parameters.blockBytesMax)
    return { field: 'bundleBytesMax', problem: 'a bundle must fit into a block (blockBytesMax)' };
  if (parameters.transactionBytesMax + 256 > parameters.bundleBytesMax)
    return { field: 'transactionBytesMax', problem: 'a transaction must fit into a bundle (bundleBytesMax - 256)' };
  if (parameters.heartbeatMs * 3 > parameters.viewTimeoutMs)
    return { field: 'heartbeatMs', problem: 'at least three heartbeats must fit into viewTimeoutMs' };
  if (parameters.checkpointInterval < 2 * parameters.window && parameters.checkpointInterval < 16)
    return { field: 'checkpointInterval', problem: 'at least twice the window, or 16' };
  const { leaseMs, heartbeatMs, viewTimeoutMs } = parameters;
  if (leaseMs > 0 && protocol !== 'multi-paxos')
    return { field: 'leaseMs', problem: 'only a leader of multi-paxos has a lease' };
  if (leaseMs > 0 && (leaseMs < 2 * heartbeatMs || leaseMs > viewTimeoutMs))
    return { field: 'leaseMs', problem: 'none (0), or from two heartbeats to viewTimeoutMs' };
  return null;
}
