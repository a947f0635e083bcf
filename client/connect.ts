// From a genesis document and addresses to a client that works.

import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SecretKey } from '../keys/keypair.ts';
import { type Genesis, parseGenesis } from '../protocol/genesis.ts';
import { quorumsOf } from '../protocol/modes.ts';
import type { Member } from '../protocol/types.ts';
import { Client } from './client.ts';
import { ClientError } from './errors.ts';
import { type ClientOptions, settingsOf } from './options.ts';

export interface ReplicaAddress {
  /** As in the genesis document. */
  readonly name: string;
  /** `ws://host:port` or `wss://host:port`. */
  readonly url: string;
}

export interface ConnectRequest {
  /** The genesis, or the bytes of its document: what every proof is checked against. */
  readonly genesis: Genesis | Bytes;
  /** At least f+1 members, where members are trusted one; better all of them. */
  readonly replicas: readonly ReplicaAddress[];
  /** The client's key, or its seed of 32 bytes. Without one the client reads only, under a key made for the occasion. */
  readonly key?: SecretKey | Bytes;
  /** Default: native, on node:crypto. */
  readonly crypto?: Crypto;
  readonly options?: ClientOptions;
}

/**
 * Connects to all replicas and resolves when f+1 of them (one, where members are trusted) have proved their keys and told their heads:
 * one of those is honest.
 * The others are tried for as long as the client lives.
 * Rejects with ClientError: option-invalid, genesis-invalid, unknown-replica, too-few-replicas, connect-timeout.
 */
export async function connect(request: ConnectRequest): Promise<Client> {
  const { replicas, key, crypto = native, options = {} } = request;
  const genesis = request.genesis instanceof Uint8Array ? readGenesis(crypto, request.genesis) : request.genesis;
  const settings = settingsOf(options, genesis.parameters);
  const members = new Map<Member, string>();
  for (const { name, url } of replicas) {
    const member = genesis.members.find((each) => each.name === name);
    if (member === undefined) throw new ClientError('unknown-replica', { name });
    members.set(member, url);
  }
  const { oneHonest } = quorumsOf(genesis);
  if (members.size < oneHonest) throw new ClientError('too-few-replicas', { given: members.size, needed: oneHonest });
  const client = new Client({ genesis, settings, crypto, key, members });
  try {
    await client.ready();
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

function readGenesis(crypto: Crypto, document: Bytes): Genesis {
  const genesis = parseGenesis(crypto, document, new TextDecoder().decode(document));
  if ('refused' in genesis)
    throw new ClientError('genesis-invalid', { field: genesis.field, problem: genesis.problem });
  return genesis;
}
