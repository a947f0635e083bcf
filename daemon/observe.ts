// A replica that is no member yet: it follows the blocks of those who are, checks them as any client does, and writes them to its own log, until a change of
// the epoch makes it one. Then it starts as every member does, from that log.

import { mkdir } from 'node:fs/promises';
import { connect } from '../client/connect.ts';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Block } from '../protocol/block.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import type { LogRecord } from '../protocol/log.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { loadGenesis, type NodeConfig } from './config.ts';
import { keepEpochs } from './epochs.ts';
import type { Logger } from './replica.ts';

const RECENT_BYTES_MAX = 4 << 20;
/** Between two lines of the log that say how far it has come. */
const progressMs = 2_000;
/** Records that wait for a disk that does not keep up. */
const HELD_RECORDS_MAX = 1_024;

export interface ObserveOptions {
  readonly config: NodeConfig;
  /** Of the key that it will have as a member, hex. */
  readonly publicKey: string;
  readonly logger: Logger;
  /** Ends it early. */
  readonly signal: AbortSignal;
}

/** [EPO-17] Resolves to true when this replica is a member, and may be started as one; to false when it was ended before. */
export async function observe({ config, publicKey, logger, signal }: ObserveOptions): Promise<boolean> {
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
    const isMember = ({ members }: EpochDocument) =>
      members.some((member) => member.name === config.member && toHex(member.publicKey) === publicKey);
    while (!signal.aborted && !isMember(observer.document)) {
      const { document } = observer;
      const epochs = await keepEpochs({ path: config.epochsFile, genesis, log, document, logger });
      const replicas = document.members.flatMap(({ name, address }) => {
        const url = config.peers.get(name) ?? address;
        return url === undefined ? [] : [{ name, url }];
      });
      logger.info({ epoch: document.epoch, height: observer.height, members: replicas.length }, 'observing');
      await followEpoch(observer, {
        write: (records) => log.write(records),
        genesis,
        epochs,
        replicas,
        logger,
        signal,
      });
    }
    return !signal.aborted;
  } finally {
    await close();
  }
}

interface Following {
  readonly write: (records: readonly LogRecord[]) => Promise<unknown>;
  readonly genesis: Parameters<typeof connect>[0]['genesis'];
  readonly epochs: NonNullable<Parameters<typeof connect>[0]['epochs']>;
  readonly replicas: Parameters<typeof connect>[0]['replicas'];
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Up to the end of the epoch; the client of the next one knows its members. */
async function followEpoch(observer: Observer, following: Following): Promise<void> {
  const { write, genesis, epochs, replicas, logger, signal } = following;
  const client = await connect({ genesis, epochs, replicas }).catch((error: unknown) => {
    logger.warn({ error: String(error) }, 'too few members can be reached; trying again');
    return null;
  });
  if (client === null) return void (await later(1_000, signal));
  const end = () => void client.close();
  signal.addEventListener('abort', end);
  const { epoch } = observer.document;
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
      held.push(...observer.take(block, certificate));
      pump();
      if (held.length > HELD_RECORDS_MAX) await flush();
      if (performance.now() - saidAt > progressMs) {
        saidAt = performance.now();
        logger.info({ height: observer.height, known: client.head().height }, 'following');
      }
      if (observer.document.epoch !== epoch) break;
    }
    await flush();
    const { epoch: now } = observer.document;
    logger.info({ epoch: now, height: observer.height }, 'the epoch has ended');
  } catch (error) {
    if (!signal.aborted) throw error;
    await flush();
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
