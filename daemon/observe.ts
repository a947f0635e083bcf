// A replica that is no member yet: it follows the blocks of those who are, checks them as any client does, and writes them to its own log, until a change of
// the epoch makes it one. Then it starts as every member does, from that log.

import { mkdir } from 'node:fs/promises';
import { connect, type ReplicaAddress } from '../client/connect.ts';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { loadGenesis, type NodeConfig } from './config.ts';
import { keepEpochs, writeEpochs } from './epochs.ts';
import type { Logger } from './replica.ts';

const RECENT_BYTES_MAX = 4 << 20;
/** Between two lines of the log that say how far it has come. */
const progressMs = 2_000;
/** Records that wait for a disk that does not keep up. */
const HELD_RECORDS_MAX = 1_024;

export interface ObserveOptions {
  readonly config: NodeConfig;
  /** Of the keys that it has, or will have, as a member, hex. */
  readonly publicKeys: readonly string[];
  /** `member`: until a change of the epoch makes it one. `latest`: until it is in the last epoch that is known, whoever its members are. */
  readonly until: 'member' | 'latest';
  readonly logger: Logger;
  /** Ends it early. */
  readonly signal: AbortSignal;
}

/** [EPO-17] [EPO-19] Resolves to true when it has come so far, and to false when it was ended before. */
export async function observe(options: ObserveOptions): Promise<boolean> {
  const { config, publicKeys, until, logger, signal } = options;
  const loaded = loadGenesis(native, config.genesis);
  if ('refused' in loaded) throw new Error(`${loaded.file}: ${loaded.field}: ${loaded.problem}`);
  const { genesis } = loaded;
  const { sha256 } = native;
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const kv = await openStore(config.logDir);
  let close = () => kv.close();
  try {
    const { log, recovered } = await openLogStore(kv, {
      sha256,
      chainId: genesis.chainId,
      floor: null,
      retainBlocks: config.retainBlocks,
      recentBytesMax: RECENT_BYTES_MAX,
    });
    close = () => log.close();
    const observer = new Observer({ sha256, genesis }, recovered);
    const epochs = await keepEpochs({ path: config.epochsFile, genesis, log, document: observer.document, logger });
    const isMember = ({ members }: EpochDocument) =>
      members.some((member) => member.name === config.member && publicKeys.includes(toHex(member.publicKey)));
    const isThere = () =>
      observer.document.epoch >= epochs.last.epoch && (until === 'latest' || isMember(observer.document));
    while (!signal.aborted && !isThere()) {
      const { document } = observer;
      logger.info({ epoch: document.epoch, latest: epochs.last.epoch, height: observer.height }, 'observing');
      await follow(observer, {
        write: (records) => log.write(records),
        learnt: () => writeEpochs(config.epochsFile, epochs, genesis),
        isThere,
        genesis,
        epochs,
        replicas: addressesOf(config, epochs),
        logger,
        signal,
      });
    }
    return !signal.aborted;
  } finally {
    await close();
  }
}

/** The operator's own word first, then that of the last epoch. */
function addressesOf({ peers, member: own }: NodeConfig, { documents, last }: EpochChain): ReplicaAddress[] {
  const known = (name: string) => documents.some(({ members }) => members.some((member) => member.name === name));
  const given = [...peers].flatMap(([name, url]) => (known(name) ? [{ name, url }] : []));
  const named = last.members.flatMap(({ name, address }) =>
    address === undefined || peers.has(name) ? [] : [{ name, url: address }],
  );
  return [...given, ...named].filter(({ name }) => name !== own);
}

interface Following {
  readonly write: (records: readonly LogRecord[]) => Promise<unknown>;
  /** More epochs are known. */
  readonly learnt: () => Promise<void>;
  /** Nothing more is wanted. */
  readonly isThere: () => boolean;
  readonly genesis: Genesis;
  readonly epochs: EpochChain;
  readonly replicas: readonly ReplicaAddress[];
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Through every epoch, as far as it goes: the client finds the members of the next one by itself. */
async function follow(observer: Observer, following: Following): Promise<void> {
  const { write, learnt, isThere, genesis, epochs, replicas, logger, signal } = following;
  const client = await connect({ genesis, epochs, replicas }).catch((error: unknown) => {
    logger.warn({ error: String(error) }, 'too few members can be reached; trying again');
    return null;
  });
  if (client === null) return void (await later(1_000, signal));
  const end = () => void client.close();
  signal.addEventListener('abort', end);
  const held: LogRecord[] = [];
  let writing: Promise<unknown> | null = null;
  // What comes while a write is under way shares the next one.
  const pump = () => {
    if (writing !== null || held.length === 0) return;
    writing = write(held.splice(0)).finally(() => {
      writing = null;
      pump();
    });
  };
  const flush = async () => {
    while (writing !== null) await writing;
  };
  let saidAt = performance.now();
  try {
    for await (const { header, headerBytes, hash, bundles, certificate } of client.follow({
      from: observer.height + 1,
    })) {
      if (bundles === null) throw new Error('a stream of whole blocks has bodies');
      const block: Block = { header, headerBytes, hash, bundles };
      const { epoch } = observer.document;
      held.push(...observer.take(block, certificate));
      pump();
      if (held.length > HELD_RECORDS_MAX) await flush();
      if (performance.now() - saidAt > progressMs) {
        saidAt = performance.now();
        logger.info({ height: observer.height, known: client.head().height }, 'following');
      }
      if (observer.document.epoch === epoch) continue;
      logger.info({ epoch: observer.document.epoch, height: observer.height }, 'the epoch has ended');
      await flush();
      await learnt();
      if (isThere()) break;
    }
    await flush();
  } catch (error) {
    await flush();
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', end);
    await client.close();
  }
}

const later = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
