// The files of a network: genesis document, one directory per replica with everything its host needs, a client key. Written
// into a new directory as a whole or not at all.

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import type { Bytes } from '../../crypto/bytes.ts';
import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { encodeUtf8 } from '../../crypto/utf8.ts';
import { openGuard } from '../../keys/guard.ts';
import { SecretKey } from '../../keys/keypair.ts';
import { ADDRESS_PATTERN, type Genesis, type GenesisDocument, parseGenesis } from '../../protocol/genesis.ts';
import type { Protocol } from '../../protocol/modes.ts';
import { asEpoch } from '../../protocol/types.ts';
import { dataPaths, type LogFormat, type NodeConfigDocument } from '../config.ts';
import { Complaint, EXIT, usageError } from './errors.ts';
import { writeKeyFile } from './key-files.ts';
import { type HostAndPort, urlHost } from './options.ts';

export const GENESIS_FILE = 'genesis.json';
export const CONFIG_FILE = 'config.json';
export const REPLICA_KEY_FILE = 'replica.key';
export const CLIENT_KEY_FILE = 'client.key';
/** The operators' keys, one file for each member: away from the replicas, and from this machine, as soon as the network is made. */
export const OPERATORS_DIRECTORY = 'operators';
export const DATA_DIRECTORY = 'data';
/** On a real host the HTTP door stands this far above the replica's port, on the loopback interface. */
const HTTP_PORT_OFFSET = 1000;

export interface NetworkPlan {
  readonly directory: string;
  readonly name: string;
  /** Default: pbft. */
  readonly protocol?: Protocol;
  readonly replicas: readonly PlannedReplica[];
  readonly parameters: NonNullable<GenesisDocument['parameters']>;
  /** Null: keys are kept without a passphrase. */
  readonly passphrase: string | null;
  /** Written into the configs of a local network, so that it starts without the environment. */
  readonly passphraseFile: string | null;
  readonly logFormat: LogFormat;
}

export interface PlannedReplica {
  readonly name: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly http: { readonly host: string; readonly port: number };
  /** What the others dial. */
  readonly url: string;
}

/** Replicas on this machine: listening ports from `basePort` on, then the HTTP ports. */
export function localReplicas(count: number, host: string, basePort: number): PlannedReplica[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `node-${index}`,
    listen: { host, port: basePort + index },
    http: { host, port: basePort + count + index },
    url: `ws://${urlHost(host)}:${basePort + index}`,
  }));
}

/** Replicas on hosts of their own: they listen on every interface, their HTTP door on loopback only. */
export function remoteReplicas(hosts: readonly HostAndPort[]): PlannedReplica[] {
  return hosts.map(({ name, host, port }, index) => {
    if (port + HTTP_PORT_OFFSET > 65_535)
      throw usageError(`--hosts: port ${port} leaves no room for the HTTP port, which is ${HTTP_PORT_OFFSET} above it`);
    return {
      name: name ?? `node-${index}`,
      listen: { host: host.includes(':') ? '::' : '0.0.0.0', port },
      http: { host: '127.0.0.1', port: port + HTTP_PORT_OFFSET },
      url: `ws://${urlHost(host)}:${port}`,
    };
  });
}

export interface CreatedNetwork {
  readonly genesis: Genesis;
  /** The config file of each replica, in the order of the members. */
  readonly configs: readonly string[];
  readonly clientKey: string;
  /** Where the operators' keys lie. */
  readonly operators: string;
}

export async function createNetwork(plan: NetworkPlan): Promise<CreatedNetwork> {
  const directory = resolve(plan.directory);
  refuseToOverwrite(directory);
  if (plan.replicas.some(({ name }) => name === OPERATORS_DIRECTORY))
    throw usageError(`no replica can be named ${OPERATORS_DIRECTORY}: that directory is for the operators' keys`);
  const secrets = plan.replicas.map(() => SecretKey.generate());
  const operators = plan.replicas.map(() => SecretKey.generate());
  const document = documentOf(plan, secrets, operators);
  const genesis = checkedGenesis(document);
  // Beside its place, on the same file system, so that it appears there in one step.
  const draft = join(dirname(directory), `.${basename(directory)}.${process.pid}.partial`);
  mkdirSync(draft, { recursive: true, mode: 0o700 });
  try {
    writeFileSync(join(draft, GENESIS_FILE), document);
    await writeKeyFile(join(draft, CLIENT_KEY_FILE), SecretKey.generate(), plan.passphrase);
    mkdirSync(join(draft, OPERATORS_DIRECTORY), { mode: 0o700 });
    for (const [index, replica] of plan.replicas.entries()) {
      await writeKeyFile(join(draft, OPERATORS_DIRECTORY, `${replica.name}.key`), operators[index]!, plan.passphrase);
      const folder = join(draft, replica.name);
      mkdirSync(join(folder, DATA_DIRECTORY), { recursive: true, mode: 0o700 });
      // A copy of the genesis document in each: a replica's directory is all that its host needs.
      writeFileSync(join(folder, GENESIS_FILE), document);
      writeFileSync(join(folder, CONFIG_FILE), configOf(plan, replica, directory));
      await writeKeyFile(join(folder, REPLICA_KEY_FILE), secrets[index]!, plan.passphrase);
      await createSignState(dataPaths(join(folder, DATA_DIRECTORY)).signState, secrets[index]!, genesis);
    }
    renameSync(draft, directory);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    throw error;
  }
  return {
    genesis,
    configs: plan.replicas.map(({ name }) => join(directory, name, CONFIG_FILE)),
    clientKey: join(directory, CLIENT_KEY_FILE),
    operators: join(directory, OPERATORS_DIRECTORY),
  };
}

function documentOf(
  { name, protocol = 'pbft', replicas, parameters }: NetworkPlan,
  secrets: readonly SecretKey[],
  operators: readonly SecretKey[],
): Bytes {
  return json({
    synod: 1,
    name,
    protocol,
    createdAt: Date.now(),
    members: replicas.map((replica, index) => ({
      name: replica.name,
      publicKey: toHex(secrets[index]!.publicKey),
      operatorKey: toHex(operators[index]!.publicKey),
      ...(ADDRESS_PATTERN.test(replica.url) ? { address: replica.url } : {}),
    })),
    parameters,
  } satisfies GenesisDocument);
}

function configOf(
  { replicas, passphraseFile, logFormat }: NetworkPlan,
  replica: PlannedReplica,
  directory: string,
): Bytes {
  const others = replicas.filter(({ name }) => name !== replica.name);
  return json({
    genesis: GENESIS_FILE,
    member: replica.name,
    key: REPLICA_KEY_FILE,
    ...(passphraseFile === null
      ? {}
      : { passphraseFile: relative(join(directory, replica.name), resolve(passphraseFile)) }),
    dataDir: DATA_DIRECTORY,
    listen: replica.listen,
    peers: Object.fromEntries(others.map(({ name, url }) => [name, url])),
    http: replica.http,
    log: { level: 'info', format: logFormat },
  } satisfies NodeConfigDocument);
}

/** "Has signed nothing yet": only here, where the key was made, is that certain. */
export async function createSignState(path: string, secret: SecretKey, { chainId }: Genesis): Promise<void> {
  const guard = await openGuard({
    path,
    secret,
    chainId,
    epoch: asEpoch(0),
    create: true,
    checkpointSigningBytes: () => {
      throw new Error('init signs nothing');
    },
  });
  await guard.close();
}

/** Before anything is written, the rules that every replica will apply at its start. */
function checkedGenesis(document: Bytes): Genesis {
  const genesis = parseGenesis(native, document, new TextDecoder().decode(document));
  if (!('refused' in genesis)) return genesis;
  const { field, problem } = genesis;
  throw usageError(
    `${field}: ${problem}`,
    field.startsWith('parameters.')
      ? 'Change the --param; docs/operations.md lists the protocol parameters.'
      : 'Names come from --name, --hosts and --replicas.',
  );
}

export function refuseToOverwrite(directory: string): void {
  if (!existsSync(directory)) return;
  if (readdirSync(directory).length === 0) return;
  throw new Complaint({
    code: 'directory-not-empty',
    sentence: `${directory} exists and is not empty`,
    remedy: 'Keys and chains are never overwritten: give a new directory.',
    exit: EXIT.usage,
  });
}

const json = (value: unknown): Bytes => encodeUtf8(`${JSON.stringify(value, null, 2)}\n`);
