// Changes of the epoch on a cluster of the bench: with the keys that lie beside it signed at once, and handed in at a door.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../crypto/native.ts';
import { writeKeyFile } from '../daemon/cli/key-files.ts';
import { CONFIG_FILE, createSignState, OPERATORS_DIRECTORY, REPLICA_KEY_FILE } from '../daemon/cli/network-files.ts';
import { freePortRange } from '../daemon/cli/ports.ts';
import { fetchEpochs, postTransaction } from '../daemon/cli/replica-http.ts';
import type { NodeConfigDocument } from '../daemon/config.ts';
import { SecretKey } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import { operatorSigner, signJoin } from '../keys/operator-key.ts';
import { asHash, asHeight } from '../protocol/types.ts';
import { type Change, encodeControl, encodeControlBody } from '../protocol/verify.ts';
import type { BenchCluster } from './cluster.ts';

const nextKeyFile = 'next.key';
const askMs = 5_000;

/** Before the replica starts: a key that can follow its first one. */
export async function giveNextKey({ directory, genesis }: BenchCluster, name: string): Promise<void> {
  const path = join(directory, name, nextKeyFile);
  await makeKey(path, genesis);
  setFields(join(directory, name, CONFIG_FILE), { nextKey: nextKeyFile });
}

/** A directory for one that is no member yet. */
export async function makeObserver({ directory, genesis, names }: BenchCluster, name: string): Promise<void> {
  mkdirSync(join(directory, name));
  await makeKey(join(directory, name, REPLICA_KEY_FILE), genesis);
  await writeKeyFile(join(directory, OPERATORS_DIRECTORY, `${name}.key`), SecretKey.generate(), null);
  const port = await freePortRange('127.0.0.1', 2);
  const [first, second] = names.slice(0, 2).map((other) => configOf(join(directory, other, CONFIG_FILE)));
  const document: NodeConfigDocument = {
    genesis: `../${names[0]}/genesis.json`,
    member: name,
    key: REPLICA_KEY_FILE,
    dataDir: 'data',
    listen: { host: '127.0.0.1', port },
    peers: { ...first?.peers, ...second?.peers },
    http: { host: '127.0.0.1', port: port + 1 },
    log: { level: 'info', format: 'json' },
  };
  writeFileSync(join(directory, name, CONFIG_FILE), JSON.stringify(document));
}

export const addressOf = ({ directory }: BenchCluster, name: string): string =>
  `ws://127.0.0.1:${configOf(join(directory, name, CONFIG_FILE)).listen.port}`;

export const publicKeyOf = async ({ directory }: BenchCluster, name: string, which: 'replica' | 'next' | 'operator') =>
  (await keyAt(pathOf(directory, name, which))).publicKey;

/** Ready to be handed in: signed by the operators of all members, and by the new replica's key. */
export async function signedChange(
  cluster: BenchCluster,
  change: Change,
  joining?: { readonly name: string; readonly which: 'replica' | 'next' },
): Promise<{ readonly control: Uint8Array; readonly epoch: number }> {
  const { directory, genesis } = cluster;
  const epochs = await fetchEpochs(cluster.door(cluster.names[1]!), genesis, askMs);
  if (epochs === null) throw new Error('bench: no epochs are served');
  const { chainId } = genesis;
  const { epoch, hash, members } = epochs.last;
  const validUntil = asHeight(10_000_000);
  const payload = encodeControlBody({ chainId, epoch, epochHash: hash, validUntil, changes: [change] });
  const digest = asHash(native.sha256(payload));
  const signatures = [];
  for (const { name } of members) {
    const { publicKey, signControl } = operatorSigner(await keyAt(pathOf(directory, name, 'operator')), chainId);
    signatures.push({ operatorKey: publicKey, signature: signControl(digest) });
  }
  const joins = [];
  if (joining !== undefined) {
    const secret = await keyAt(pathOf(directory, joining.name, joining.which));
    const { height } = await cluster.lead();
    const at = { chainId, digest, height: asHeight(height) };
    joins.push({ publicKey: secret.publicKey, height: at.height, signature: signJoin(secret, at) });
  }
  return { control: encodeControl({ payload, signatures, joins }), epoch: epoch + 1 };
}

/** Resolves when a replica has taken it in. */
export async function handIn(cluster: BenchCluster, control: Uint8Array): Promise<void> {
  const answer = await postTransaction(cluster.door(cluster.names[1]!), control, askMs);
  if (answer?.code !== null) throw new Error(`bench: the change was not taken in: ${answer?.code} ${answer?.message}`);
}

async function makeKey(path: string, genesis: BenchCluster['genesis']): Promise<void> {
  const secret = SecretKey.generate();
  await writeKeyFile(path, secret, null);
  await createSignState(`${path}.sign-state`, secret, genesis);
}

const pathOf = (directory: string, name: string, which: 'replica' | 'next' | 'operator'): string =>
  which === 'operator'
    ? join(directory, OPERATORS_DIRECTORY, `${name}.key`)
    : join(directory, name, which === 'next' ? nextKeyFile : REPLICA_KEY_FILE);

const keyAt = async (path: string): Promise<SecretKey> =>
  (await loadKey({ path, passphrase: { from: 'ask', ask: async () => '' } })).secret;

// Written by this process, or by `createNetwork` for it.
const configOf = (path: string): NodeConfigDocument => JSON.parse(readFileSync(path, 'utf8'));

function setFields(path: string, fields: Partial<NodeConfigDocument>): void {
  writeFileSync(path, JSON.stringify({ ...configOf(path), ...fields }));
}
