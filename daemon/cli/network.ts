// Where a network is, for the commands that talk to one: its genesis document and the addresses of its replicas, from the
// directory that `synod init` wrote or from options.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import type { Bytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { loadConfig, loadGenesis, type NodeConfig } from '../config.ts';
import { loadEpochs } from './epochs-file.ts';
import { orComplain, usageError } from './errors.ts';
import { CLIENT_KEY_FILE, CONFIG_FILE, GENESIS_FILE } from './network-files.ts';
import { collected, urlHost } from './options.ts';

export interface NetworkOptions {
  readonly network?: string;
  readonly genesis?: string;
  readonly replica?: readonly string[];
  readonly epochs?: string;
}

export interface KnownReplica {
  readonly name: string;
  /** Where peers and clients connect. */
  readonly url: string;
  /** The HTTP door, as far as known. */
  readonly http: string | null;
  /** On the command line, now; a config may be older than the present epoch. */
  readonly isGiven: boolean;
}

export interface Network {
  readonly genesis: Genesis;
  /** What is known of the epochs, from a file or from the replicas' HTTP doors. */
  readonly epochs: EpochChain;
  readonly document: Bytes;
  readonly replicas: readonly KnownReplica[];
  /** The client key of the directory, where there is one. */
  readonly clientKey: string | null;
}

export function addNetworkOptions(command: Command): Command {
  return command
    .option('--network <dir>', 'directory that `synod init` wrote')
    .addOption(new Option('--genesis <file>', 'genesis.json of the network, with --replica').conflicts('network'))
    .option(
      '--replica <name=url>',
      'address of a replica, such as node-0=ws://10.0.0.1:7000; may be repeated',
      collected,
    )
    .option('--epochs <file>', 'the epochs since the first, where no HTTP door is known to ask');
}

export function findNetwork(options: NetworkOptions): Network {
  const { network, genesis: genesisFile, replica } = options;
  if (network === undefined && genesisFile === undefined)
    throw usageError(
      'which network?',
      'Give --network DIR, or --genesis FILE and --replica NAME=URL for each replica.',
    );
  const { genesis, document } = orComplain(loadGenesis(native, genesisFile ?? join(network ?? '.', GENESIS_FILE)));
  const epochs = loadEpochs(genesis, options.epochs);
  const given = (replica ?? []).map(parseReplica);
  for (const { name } of given)
    if (![...genesis.members, ...epochs.last.members].some((member) => member.name === name))
      throw usageError(
        `--replica ${name}: no member in the genesis document${epochs.last.epoch === 0 ? '' : `, or in epoch ${epochs.last.epoch}`}`,
        'Whoever came later is known by --epochs FILE (GET /v1/epochs of a replica). Without one name any of the first members at an address: whoever answers there tells of the others.',
      );
  const found = network === undefined ? [] : replicasOf(network, genesis);
  const replicas = [...given, ...found.filter(({ name }) => !given.some((other) => other.name === name))];
  if (replicas.length === 0)
    throw usageError('no replica of this network is known', 'Give --replica NAME=URL for each replica.');
  const clientKey = network === undefined ? undefined : join(network, CLIENT_KEY_FILE);
  return {
    genesis,
    epochs,
    document,
    replicas,
    clientKey: clientKey !== undefined && existsSync(clientKey) ? clientKey : null,
  };
}

function parseReplica(text: string): KnownReplica {
  const [, name, url] = /^([a-z0-9-]{1,32})=(wss?:\/\/\S+)$/.exec(text) ?? [];
  if (name === undefined || url === undefined || !URL.canParse(url))
    throw usageError(`--replica ${text}: name=url is wanted, such as node-0=ws://10.0.0.1:7000`);
  return { name, url, http: null, isGiven: true };
}

/** From the replicas' own configs; what the others dial counts, since a replica may listen on every interface. */
function replicasOf(directory: string, genesis: Genesis): KnownReplica[] {
  const configs = readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(directory, entry.name, CONFIG_FILE)))
    .map((entry): NodeConfig => orComplain(loadConfig(join(directory, entry.name, CONFIG_FILE))));
  // Who came later has a config here, too, if this is where its files are.
  const names = new Set([...genesis.members.map(({ name }) => name), ...configs.map(({ member }) => member)]);
  return [...names].flatMap((name): KnownReplica[] => {
    const own = configs.find((config) => config.member === name);
    const dialled = configs.map((config) => config.peers.get(name)).find((url) => url !== undefined);
    if (own === undefined && dialled === undefined) return [];
    const url = dialled ?? `ws://${urlHost(own?.listen.host ?? '')}:${own?.listen.port}`;
    return [{ name, url, http: own === undefined ? null : httpOf(own, url), isGiven: false }];
  });
}

/** Where its HTTP door is asked; null: it has none. `url`: where it is dialled, for a door on every interface. */
export function httpOf({ http }: NodeConfig, url: string): string | null {
  if (http === null) return null;
  const isAny = http.host === '0.0.0.0' || http.host === '::';
  return `http://${isAny ? new URL(url).hostname : urlHost(http.host)}:${http.port}`;
}
