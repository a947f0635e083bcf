// Whose HTTP doors are asked, for `why` and `explain`: of one replica by its config, of a network by its directory, or by address.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { native } from '../../crypto/native.ts';
import { loadConfig, loadGenesis } from '../config.ts';
import { orComplain, usageError } from './errors.ts';
import { findNetwork, httpOf } from './network.ts';
import { duration } from './options.ts';

export interface DoorOptions {
  readonly config?: string;
  readonly network?: string;
  readonly http?: readonly string[];
  readonly timeout: number;
  readonly json?: true;
}

export interface Door {
  /** Null: asked by its address, so the answer must tell. */
  readonly name: string | null;
  /** Null: its config is not here, or names no door. */
  readonly http: string | null;
}

export interface Doors {
  /** What the files at hand say; null: asked by address. */
  readonly members: readonly string[] | null;
  readonly chainId: string | null;
  readonly doors: readonly Door[];
}

const doorMax = 128;

export function addDoorOptions(command: Command): Command {
  return command
    .option('--config <file>', 'ask the replica of this config.json')
    .addOption(
      new Option('--network <dir>', 'ask all replicas of a directory that `synod init` wrote').conflicts('config'),
    )
    .addOption(httpOption().conflicts(['config', 'network']))
    .option('--timeout <time>', 'for each replica', duration, 3_000)
    .option('--json', 'for programs');
}

export const httpOption = (): Option =>
  new Option('--http <url>', 'ask this HTTP door, such as http://127.0.0.1:8000; may be repeated').argParser(httpUrl);

function httpUrl(text: string, before: readonly string[] = []): readonly string[] {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new InvalidArgumentError('an address such as http://127.0.0.1:8000.');
  if (before.length >= doorMax) throw new InvalidArgumentError(`at most ${doorMax} of them.`);
  return [...before, text.replace(/\/+$/, '')];
}

export function findDoors({ config: file, network, http }: DoorOptions): Doors {
  if (file !== undefined) {
    const config = orComplain(loadConfig(file));
    const { genesis } = orComplain(loadGenesis(native, config.genesis));
    const door = { name: config.member, http: httpOf(config, 'ws://127.0.0.1') };
    return { ...known(genesis), doors: [door] };
  }
  if (network !== undefined) {
    const { genesis, replicas } = findNetwork({ network });
    return { ...known(genesis), doors: replicas.map(({ name, http: door }) => ({ name, http: door })) };
  }
  if (http === undefined)
    throw usageError('which replica?', 'Give --config FILE, --network DIR, or --http URL for each replica.');
  return { members: null, chainId: null, doors: http.map((url) => ({ name: null, http: url })) };
}

const known = (genesis: { readonly members: readonly { readonly name: string }[]; readonly chainId: Uint8Array }) => ({
  members: genesis.members.map(({ name }) => name),
  chainId: Buffer.from(genesis.chainId).toString('hex'),
});

const problems: Readonly<Record<string, string>> = {
  'no-door': 'its config names no HTTP door, or is not here',
  timeout: 'no answer in time',
  econnrefused: 'nobody listens there',
  enotfound: 'no such host',
  'not-json': 'what answers there is no replica of synod',
  'not-synod': 'what answers there is no replica of synod, or of another version',
  'too-large': 'what answers there is no replica of synod',
  'other-chain': 'a replica of another network answers there',
  'other-replica': 'another replica of this network answers there',
  busy: 'it is busy; ask again',
};

/** `code` is one word of ours or of the system; never a stranger's. */
export const problemWords = (code: string): string => problems[code] ?? 'the connection failed';
