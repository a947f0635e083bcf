// The genesis document: the first epoch's members, protocol and parameters. A JSON file that every replica, client and verifier
// holds byte for byte the same; its hash is the chain id, so two chains never mistake each other's signatures.

import { z } from 'zod';
import type { Bytes } from '../crypto/bytes.ts';
import { concat, fromHex, toHex } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { Sha256 } from './block.ts';
import { domainTag } from './layout.ts';
import type { Protocol } from './modes.ts';
import { membersMin, protocols } from './modes.ts';
import type { Hash, Member, Millis } from './types.ts';
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
}

export interface Genesis {
  /** SHA-256 over a domain tag and the bytes of the document. */
  readonly chainId: Hash;
  readonly name: string;
  readonly protocol: Protocol;
  readonly createdAt: Millis;
  readonly members: readonly Member[];
  readonly parameters: Parameters;
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
});

const documentSchema = z.strictObject({
  synod: z.literal(1),
  name: z.string().regex(/^[a-z0-9-]{1,32}$/, 'a name of 1 to 32 characters out of a-z, 0-9 and -'),
  protocol: z.enum(protocols),
  createdAt: integer(0, Number.MAX_SAFE_INTEGER),
  members: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[a-z0-9-]{1,32}$/, 'a name of 1 to 32 characters out of a-z, 0-9 and -'),
        publicKey: z.string().regex(/^[0-9a-f]{64}$/, '64 characters of lower-case hex'),
      }),
    )
    .min(3)
    .max(128),
  parameters: parametersSchema.prefault({}),
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
  const { name, protocol, createdAt, members, parameters } = parsed.data;
  if (members.length < membersMin(protocol))
    return refuse('members', `${protocol} needs at least ${membersMin(protocol)} of them`);
  const names = new Set<string>();
  const keys = new Set<string>();
  const list: Member[] = [];
  for (const [index, member] of members.entries()) {
    const publicKey = fromHex(member.publicKey);
    const verdict = publicKey === undefined ? 'key-length' : crypto.admitKey(publicKey);
    if (publicKey === undefined || verdict !== 'ok') return refuse(`members.${index}.publicKey`, verdict);
    if (names.has(member.name)) return refuse(`members.${index}.name`, `${member.name} stands twice`);
    if (keys.has(toHex(publicKey))) return refuse(`members.${index}.publicKey`, 'the key of another member');
    names.add(member.name);
    keys.add(toHex(publicKey));
    list.push({ id: asReplicaId(index), name: member.name, publicKey });
  }
  if (parameters.bundleBytesMax > parameters.blockBytesMax)
    return refuse('parameters.bundleBytesMax', 'a bundle must fit into a block (blockBytesMax)');
  if (parameters.transactionBytesMax + 256 > parameters.bundleBytesMax)
    return refuse('parameters.transactionBytesMax', 'a transaction must fit into a bundle (bundleBytesMax - 256)');
  if (parameters.heartbeatMs * 3 > parameters.viewTimeoutMs)
    return refuse('parameters.heartbeatMs', 'at least three heartbeats must fit into viewTimeoutMs');
  if (parameters.checkpointInterval < 2 * parameters.window && parameters.checkpointInterval < 16)
    return refuse('parameters.checkpointInterval', 'at least twice the window, or 16');
  return {
    chainId: chainIdOf(crypto.sha256, document),
    name,
    protocol,
    createdAt: asMillis(createdAt),
    members: list,
    parameters,
  };
}
