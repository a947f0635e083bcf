// From a genesis document and addresses to a client that works.

import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Crypto } from '../crypto/provider.ts';
import { clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import { type Genesis, parseGenesis } from '../protocol/genesis.ts';
import { mainsOf, quorumsOf } from '../protocol/modes.ts';
import { EpochChain } from '../protocol/verify.ts';
import { Client } from './client.ts';
import { learnEpochs, learnTimeoutMs } from './epochs.ts';
import { ClientError } from './errors.ts';
import { type ClientOptions, type Settings, settingsOf } from './options.ts';

export interface ReplicaAddress {
  /** As in the genesis document, or in a later epoch. */
  readonly name: string;
  /** `ws://host:port` or `wss://host:port`. */
  readonly url: string;
}

export interface ConnectRequest {
  /** The genesis, or the bytes of its document: what every proof is checked against. */
  readonly genesis: Genesis | Bytes;
  /** What is known of the epochs since the first; the client adds what it learns (docs/client.md). Default: the first alone. */
  readonly epochs?: EpochChain;
  /**
   * At least f+1 members (where members are trusted one), better all of them. Of an earlier epoch will do, as long as somebody there still
   * knows: where the members have changed since, the client finds the present ones, at the addresses that their epoch names.
   */
  readonly replicas: readonly ReplicaAddress[];
  /**
   * Nodes that are no members. Streams may come from them, and everything in those is proved; that it is the newest is not. With sources and
   * no replicas a client follows only, and has nobody's word on the head.
   */
  readonly sources?: readonly ReplicaAddress[];
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
  const { replicas, sources = [], key, crypto = native, options = {} } = request;
  const genesis = request.genesis instanceof Uint8Array ? readGenesis(crypto, request.genesis) : request.genesis;
  const epochs = request.epochs ?? new EpochChain({ genesis, crypto });
  const settings = settingsOf(options, epochs.last.parameters);
  if (replicas.length > 0 || sources.length === 0) await knowMembers({ genesis, epochs, replicas, settings, crypto });
  const client = new Client({ genesis, epochs, settings, crypto, key, replicas, sources });
  try {
    await client.ready();
  } catch (error) {
    await client.close();
    throw error;
  }
  return client;
}

interface Knowing {
  readonly genesis: Genesis;
  readonly epochs: EpochChain;
  readonly replicas: readonly ReplicaAddress[];
  readonly settings: Settings;
  readonly crypto: Crypto;
}

/** A name that no known epoch has may be one of a later epoch: then somebody at these addresses can prove that epoch. */
async function knowMembers({ genesis, epochs, replicas, settings, crypto }: Knowing): Promise<void> {
  const { openSocket } = settings;
  const timeoutMs = learnTimeoutMs(settings);
  const problem = () => {
    const { members, protocol } = epochs.last;
    const stranger = replicas.find(({ name }) => !isKnown(epochs, name));
    if (stranger !== undefined) return new ClientError('unknown-replica', { name: stranger.name });
    const mains = mainsOf({ protocol, members }).map((id) => members[id]?.name);
    const given = replicas.filter(({ name }) => mains.includes(name)).length;
    const { oneHonest } = quorumsOf({ protocol, members });
    return given >= oneHonest || (epochs.last.epoch > 0 && replicas.length > 0)
      ? null
      : new ClientError('too-few-replicas', { given, needed: oneHonest });
  };
  if (problem() === null) return;
  const { chainId } = genesis;
  const signer = clientSigner(SecretKey.generate(), chainId);
  for (const { url } of replicas) {
    await learnEpochs({ url, chainId, epochs, crypto, signer, openSocket, timeoutMs });
    if (problem() === null) return;
  }
  const still = problem();
  if (still !== null) throw still;
}

const isKnown = (epochs: EpochChain, name: string): boolean =>
  epochs.documents.some(({ members }) => members.some((member) => member.name === name));

function readGenesis(crypto: Crypto, document: Bytes): Genesis {
  const genesis = parseGenesis(crypto, document, new TextDecoder().decode(document));
  if ('refused' in genesis)
    throw new ClientError('genesis-invalid', { field: genesis.field, problem: genesis.problem });
  return genesis;
}
