// The keys of a replica and their sign-state files, for those who mend or copy them. A sign-state belongs to a key and a chain (GRD-10), and a key file
// says its public half without a passphrase: so nothing here needs a secret, nor the epoch that the replica is in.

import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { type Bytes, equalBytes, fromHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { GuardError } from '../../keys/errors.ts';
import type { SignStateOwner } from '../../keys/sign-state.ts';
import { inspectSignState } from '../../keys/sign-state-file.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { checkAgainstGenesis, loadConfig, loadGenesis, type NodeConfig } from '../config.ts';
import { orComplain } from './errors.ts';
import { inspectKeyFile } from './key-files.ts';

export interface OwnKeyFiles {
  readonly owner: SignStateOwner;
  /** The key file. */
  readonly path: string;
  /** Where its sign-state is, or belongs. */
  readonly signState: string;
  /** How people are told of it: the name of the key file; empty where there is one key only. */
  readonly label: string;
}

export interface OwnFiles {
  readonly config: NodeConfig;
  readonly genesis: Genesis;
  /** The key at hand, and the one that is to follow it. */
  readonly keys: readonly OwnKeyFiles[];
}

/** @throws Complaint, KeyError */
export async function ownFilesOf(configFile: string): Promise<OwnFiles> {
  const config = orComplain(loadConfig(configFile));
  const { genesis } = orComplain(loadGenesis(native, config.genesis));
  const first = genesis.members.find(({ name }) => name === config.member)?.publicKey;
  const stated = publicKeyIn(config.key);
  // Whoever came later, or has another key by now, is not what the genesis document says.
  if (stated === undefined || (first !== undefined && equalBytes(stated, first) && !existsSync(config.epochsFile))) {
    const problem = checkAgainstGenesis(config, genesis);
    if (problem !== undefined) orComplain(problem);
  }
  const keys: OwnKeyFiles[] = [];
  for (const path of config.nextKey === null ? [config.key] : [config.key, config.nextKey]) {
    const publicKey = publicKeyIn(path) ?? first;
    if (publicKey === undefined || keys.some(({ owner }) => equalBytes(owner.publicKey, publicKey))) continue;
    const owner = { publicKey, chainId: genesis.chainId };
    const isFirst = first !== undefined && equalBytes(publicKey, first);
    const signState = await signStateOf(config, path, { owner, isFirst });
    keys.push({ owner, path, signState, label: config.nextKey === null ? '' : basename(path) });
  }
  return { config, genesis, keys };
}

/** Undefined: there is no such file; a replica whose key is lost has nothing to come back with, but its files may be looked at. */
function publicKeyIn(path: string): Bytes | undefined {
  return existsSync(path) ? fromHex(inspectKeyFile(path).publicKey) : undefined;
}

/**
 * Beside the key is what a start takes first (daemon/node.ts). That of the key in the genesis document is in the data directory, as `synod init` made it; that
 * of any other key is made beside the key, unless it lies in the data directory already.
 */
async function signStateOf(
  config: NodeConfig,
  keyPath: string,
  { owner, isFirst }: { readonly owner: SignStateOwner; readonly isFirst: boolean },
): Promise<string> {
  const beside = `${keyPath}.sign-state`;
  if (existsSync(beside)) return beside;
  if (isFirst || (await isOf(config.signState, owner))) return config.signState;
  return beside;
}

async function isOf(path: string, owner: SignStateOwner): Promise<boolean> {
  try {
    return (await inspectSignState(path, owner)) !== undefined;
  } catch (error) {
    // Another key's, or nobody's that can be told: not to be taken for this one's.
    if (error instanceof GuardError && (error.code === 'guard-wrong-owner' || error.code === 'guard-damaged'))
      return false;
    throw error;
  }
}
