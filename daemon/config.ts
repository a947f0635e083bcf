// What one replica needs to know that is not the chain's business: where its files lie, where it listens, how it logs, how much
// it keeps. What all replicas must agree on stands in the genesis document instead. JSON, read once, checked as a whole: an
// unknown field is an error, since a misspelt limit that silently does nothing is worse.

import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { PassphraseSource } from '../keys/passphrase.ts';
import { type Genesis, parseGenesis } from '../protocol/genesis.ts';

/** Of a config file or a genesis document. */
export const fileBytesMax = 1 << 20;

const port = z.int().min(1).max(65_535);
const host = z.string().min(1, 'a host name or an IP address').max(255);
const path = z.string().min(1, 'a path').max(4096);
const memberName = z.string().regex(/^[a-z0-9-]{1,32}$/, 'a name of 1 to 32 characters out of a-z, 0-9 and -');
const peerUrl = z.url({ protocol: /^wss?$/, error: 'an address such as ws://10.0.0.2:7000 or wss://host:7000' });
const count = (low: number, high: number) => z.int().min(low).max(high);

/** Less has no room for a few blocks and a state; more is no flight recorder but an archive. */
const RECORDER_MIB_MIN = 16;
const RECORDER_MIB_MAX = 65_536;
const recorderSizes = `0, or ${RECORDER_MIB_MIN} to ${RECORDER_MIB_MAX}`;

const limitsSchema = z.strictObject({
  /** Clients connected at the same time. */
  clientsMax: count(1, 100_000).default(1024),
  /** Connections from one address, whatever they are. */
  connectionsPerAddressMax: count(1, 100_000).default(512),
  /** Bytes that wait for one client whose reader has stalled, before its connection is ended. */
  clientBufferedBytesMax: count(2 << 20, 1 << 30).default(16 << 20),
});

const configSchema = z.strictObject({
  genesis: path,
  member: memberName,
  key: path,
  nextKey: path.optional(),
  passphraseFile: path.optional(),
  dataDir: path,
  listen: z.strictObject({ host, port }),
  peers: z.record(memberName, peerUrl),
  sources: z.record(memberName, peerUrl).default({}),
  http: z.strictObject({ host, port }).nullable(),
  log: z
    .strictObject({
      level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
      format: z.enum(['json', 'pretty']).default('json'),
    })
    .prefault({}),
  retainBlocks: z
    .union([count(1_024, Number.MAX_SAFE_INTEGER), z.literal('all')], 'a number of blocks from 1024, or "all"')
    .default(1_000_000),
  /** What of the core's inputs is kept on disk for `synod replay`; 0: nothing. */
  recorderMiB: z
    .int({ error: recorderSizes })
    .refine((mib) => mib === 0 || (mib >= RECORDER_MIB_MIN && mib <= RECORDER_MIB_MAX), recorderSizes)
    .default(256),
  limits: limitsSchema.prefault({}),
});

/** What the file holds, before defaults: `synod init` writes this. */
export type NodeConfigDocument = z.input<typeof configSchema>;
export type NodeLimits = z.output<typeof limitsSchema>;

/** All paths absolute, all defaults filled in. */
export interface NodeConfig {
  /** The file this was read from. */
  readonly file: string;
  readonly genesis: string;
  /** Which member of the genesis document this replica is. */
  readonly member: string;
  readonly key: string;
  /** The key that takes its place when a change of the epoch says so; null: none. */
  readonly nextKey: string | null;
  /** Null: the passphrase comes from SYNOD_PASSPHRASE, or the key is not sealed. */
  readonly passphraseFile: string | null;
  readonly dataDir: string;
  /** The replication log, in `dataDir`. */
  readonly logDir: string;
  /** What this key has signed (keys/guard.ts), in `dataDir`; `synod init` makes it, since only a new key may begin without one. */
  readonly signState: string;
  /** The links that prove this replica's epoch (epochs.ts), in `dataDir`. */
  readonly epochsFile: string;
  /** What other replicas were seen to do wrong (evidence.ts), in `dataDir`. */
  readonly evidenceDir: string;
  /** The flight recorder's segments (recorder/), in `dataDir`. */
  readonly recorderDir: string;
  /** Peers and clients connect here. */
  readonly listen: Address;
  /** Where the other members listen. */
  readonly peers: ReadonlyMap<string, string>;
  /** Where nodes that are no members serve what they follow: for one that observes, beside the members and where it reaches none. */
  readonly sources: ReadonlyMap<string, string>;
  /** Health, metrics, status; null: none. */
  readonly http: Address | null;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  /** Decided blocks that are kept at least; what is older may be dropped at a checkpoint. */
  readonly retainBlocks: number | 'all';
  /** Of the flight recorder's files, in MiB; 0: nothing is recorded. */
  readonly recorderMiB: number;
  readonly limits: Readonly<NodeLimits>;
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
export type LogFormat = 'json' | 'pretty';

/** `field` names what to change, `problem` why; the command line makes the sentence. */
export interface ConfigProblem {
  readonly refused:
    | 'config-unreadable'
    | 'config-invalid'
    | 'genesis-unreadable'
    | 'genesis-invalid'
    | 'config-genesis';
  readonly file: string;
  readonly field: string;
  readonly problem: string;
}

export function loadConfig(file: string): NodeConfig | ConfigProblem {
  const where = resolve(file);
  const refuse = (field: string, problem: string): ConfigProblem => ({
    refused: 'config-invalid',
    file: where,
    field,
    problem,
  });
  const read = readText(where);
  if ('problem' in read) return { ...refuse('(file)', read.problem), refused: 'config-unreadable' };
  let json: unknown;
  try {
    json = JSON.parse(read.text);
  } catch (error) {
    return refuse('(file)', `not JSON: ${messageOf(error)}`);
  }
  const parsed = configSchema.safeParse(json);
  if (!parsed.success) return refuse(...firstIssue(parsed.error));
  const { genesis, key, nextKey, passphraseFile, dataDir, peers, sources, member, ...rest } = parsed.data;
  if (Object.hasOwn(peers, member)) return refuse(`peers.${member}`, 'this replica itself: leave it out');
  const at = (path: string) => resolve(dirname(where), path);
  return {
    ...rest,
    file: where,
    member,
    genesis: at(genesis),
    key: at(key),
    nextKey: nextKey === undefined ? null : at(nextKey),
    passphraseFile: passphraseFile === undefined ? null : at(passphraseFile),
    dataDir: at(dataDir),
    ...dataPaths(at(dataDir)),
    peers: new Map(Object.entries(peers)),
    sources: new Map(Object.entries(sources)),
  };
}

/** In the words of the parts that keep them (transport/options.ts, gateway/limits.ts). */
export const transportLimits = ({ limits: { clientsMax, connectionsPerAddressMax } }: NodeConfig) => ({
  clientsMax,
  connectionsPerAddressMax,
});
export const gatewayLimits = ({ limits: { clientsMax, clientBufferedBytesMax } }: NodeConfig) => ({
  connectionsMax: clientsMax,
  bufferedBytesMax: clientBufferedBytesMax,
});

/** In the data directory. */
export const RECORDER_FOLDER = 'recorder';

export const dataPaths = (dataDir: string) => ({
  logDir: join(dataDir, 'log'),
  signState: join(dataDir, 'sign-state'),
  evidenceDir: join(dataDir, 'evidence'),
  epochsFile: join(dataDir, 'epochs'),
  recorderDir: join(dataDir, RECORDER_FOLDER),
});

export interface LoadedGenesis {
  readonly genesis: Genesis;
  /** The document as it stands in the file: its hash is the chain id. */
  readonly document: Bytes;
}

export function loadGenesis(crypto: Crypto, file: string): LoadedGenesis | ConfigProblem {
  const where = resolve(file);
  const read = readText(where);
  if ('problem' in read) return { refused: 'genesis-unreadable', file: where, field: '(file)', problem: read.problem };
  const genesis = parseGenesis(crypto, read.bytes, read.text);
  if ('refused' in genesis) return { ...genesis, file: where };
  return { genesis, document: read.bytes };
}

/** What only shows with both files at hand: the member exists, and every other member has an address. */
export function checkAgainstGenesis(config: NodeConfig, genesis: Genesis): ConfigProblem | undefined {
  const refuse = (field: string, problem: string): ConfigProblem => ({
    refused: 'config-genesis',
    file: config.file,
    field,
    problem,
  });
  const names = genesis.members.map((member) => member.name);
  if (!names.includes(config.member))
    return refuse('member', `${config.member} is no member of ${config.genesis}; the members are ${names.join(', ')}`);
  for (const name of config.peers.keys())
    if (!names.includes(name)) return refuse(`peers.${name}`, `no member of ${config.genesis}`);
  for (const name of names)
    if (name !== config.member && !config.peers.has(name))
      return refuse(`peers.${name}`, 'missing: where does it listen?');
  return undefined;
}

/** Where the passphrase of a sealed key comes from: the file that the config names, else SYNOD_PASSPHRASE. */
export function passphraseSource(passphraseFile: string | null): PassphraseSource {
  return passphraseFile === null
    ? { from: 'environment', name: 'SYNOD_PASSPHRASE' }
    : { from: 'file', path: passphraseFile };
}

/** "peers.north: unknown field" for the first thing that is wrong. */
function firstIssue(error: z.ZodError): [field: string, problem: string] {
  const issue = error.issues[0];
  if (issue === undefined) return ['(file)', 'invalid'];
  const field = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') return [[...issue.path, issue.keys[0]].join('.'), 'unknown field'];
  if (issue.code === 'invalid_type' && issue.input === undefined && issue.message.endsWith('received undefined'))
    return [field, 'missing'];
  return [field === '' ? '(file)' : field, issue.message.replace(/^Invalid input: /, '')];
}

function readText(file: string): { readonly bytes: Bytes; readonly text: string } | { readonly problem: string } {
  let bytes: Bytes;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    return { problem: messageOf(error) };
  }
  if (bytes.length > fileBytesMax) return { problem: `larger than ${fileBytesMax} bytes` };
  try {
    return { bytes, text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) };
  } catch {
    return { problem: 'not UTF-8' };
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
