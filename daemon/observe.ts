// A node that is no member, or that has fallen behind its epoch: it follows the blocks of those who are members, or of others that follow, checks them as any
// client does, writes them to its own log, and serves them. Where a change of the epoch makes it a member, it starts as every member does, from that log.

import { mkdir } from 'node:fs/promises';
import { fetchCheckpoint } from '../client/checkpoint.ts';
import { type Client, ClientError, connect, type ReplicaAddress } from '../client/index.ts';
import { openWebSocket } from '../client/socket.ts';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { type ClientSigner, clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import type { Block } from '../protocol/block.ts';
import { addressOf, givenByConfig } from '../protocol/epoch/address.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { Epoch } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { bulkBytesMin } from '../storage/bulk.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { gatewayLimits, loadGenesis, type NodeConfig, transportLimits } from './config.ts';
import { keepEpochs, writeEpochs } from './epochs.ts';
import { Gateway } from './gateway/gateway.ts';
import { HttpDoor } from './http/http-door.ts';
import { Metrics } from './metrics.ts';
import { loadKeys } from './node.ts';
import { monotonicNow, ObserverPort } from './observer-port.ts';
import type { Logger } from './replica.ts';
import { Transport } from './transport/peers.ts';
import { version } from './version.ts';
import { SpentBytes } from './young.ts';

const RECENT_BYTES_MAX = 16 << 20;
/** Between two lines of the log that say how far it has come. */
const progressMs = 2_000;
/** Records that wait for a disk that does not keep up. */
const HELD_RECORDS_MAX = 1_024;
/** Payload bytes of the blocks among them. */
const HELD_BYTES_MAX = 16 << 20;
/** Of these, what is written at once while more comes than the disk takes one by one: each step of a write waits for its turn on a busy thread. */
const BULK_BYTES = 4 * bulkBytesMin;
const BULK_RECORDS = HELD_RECORDS_MAX / 2;
/** Before it tries again where nobody can be reached, or nothing can be taken. */
const pauseMs = 1_000;
/** For each step of a conversation about a checkpoint. */
const answerMsMax = 10_000;

export interface ObserveOptions {
  readonly config: NodeConfig;
  /** `member`: until a change of the epoch makes it one. `latest`: until it is in the last epoch that is known, whoever its members are; an epoch: the same, and in that one at least. */
  readonly until: 'member' | 'latest' | Epoch;
  readonly logger: Logger;
  /** Ends it early. */
  readonly signal: AbortSignal;
}

/** [EPO-17] [EPO-19] Resolves to true when it has come so far, and to false when it was ended before. */
export async function observe(options: ObserveOptions): Promise<boolean> {
  const { config, until, logger, signal } = options;
  const loaded = loadGenesis(native, config.genesis);
  if ('refused' in loaded) throw new Error(`${loaded.file}: ${loaded.field}: ${loaded.problem}`);
  const { genesis, document: genesisDocument } = loaded;
  const { sha256 } = native;
  const keys = await loadKeys(config, logger);
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const kv = await openStore(config.logDir);
  const opened: (() => Promise<unknown>)[] = [() => kv.close()];
  try {
    const { log, recovered } = await openLogStore(kv, {
      sha256,
      chainId: genesis.chainId,
      floor: null,
      retainBlocks: config.retainBlocks,
      recentBytesMax: RECENT_BYTES_MAX,
    });
    opened.pop(); // the log closes its store
    opened.push(() => log.close());
    const observer = new Observer({ sha256, genesis }, recovered);
    const epochs = await keepEpochs({ path: config.epochsFile, genesis, log, document: observer.document, logger });
    const publicKeys = keys.map(({ secret }) => toHex(secret.publicKey));
    const isMember = ({ members }: EpochDocument) =>
      members.some((member) => member.name === config.member && publicKeys.includes(toHex(member.publicKey)));
    const isThere = () =>
      observer.document.epoch >= Math.max(epochs.last.epoch, typeof until === 'number' ? until : 0) &&
      (until !== 'member' || isMember(observer.document));
    if (isThere()) return true;
    const port = new ObserverPort({ observer, genesis, log, now: monotonicNow });
    // Of the key that it will have, where one is to follow another.
    const { secret } = keys.at(-1)!; // there is one
    opened.push(await openDoors({ config, genesis, genesisDocument, port, epochs, secret, logger }));
    const following: Following = {
      observer,
      port,
      write: (records) => {
        log.retainAtLeast(observer.document.parameters.retainBlocksMin);
        return log.write(records);
      },
      learnt: () => writeEpochs(config.epochsFile, epochs, genesis),
      isThere,
      config,
      genesis,
      epochs,
      signer: clientSigner(SecretKey.generate(), genesis.chainId),
      logger,
      signal,
    };
    while (!signal.aborted && !isThere()) await follow(following);
    return !signal.aborted;
  } finally {
    for (const close of opened.reverse()) await close();
  }
}

interface Doors {
  readonly config: NodeConfig;
  readonly genesis: Genesis;
  readonly genesisDocument: Uint8Array;
  readonly port: ObserverPort;
  readonly epochs: EpochChain;
  readonly secret: SecretKey;
  readonly logger: Logger;
}

/** [EPO-21] Both doors of a member, for those who read. Returns what closes them. */
async function openDoors(doors: Doors): Promise<() => Promise<void>> {
  const { config, genesis, genesisDocument, port, epochs, secret, logger } = doors;
  const { chainId } = genesis;
  const metrics = new Metrics();
  metrics.watch(port);
  // It signs no vote, so nothing guards this key here (GRD-11 holds all the same).
  const { signStatement } = clientSigner(secret, chainId);
  const gateway = new Gateway({
    replica: port,
    meter: metrics,
    publicKey: () => secret.publicKey,
    signStatement,
    epochLinks: () => epochs.links,
    limits: gatewayLimits(config),
  });
  const transport = await Transport.open({
    self: null,
    credentials: {
      crypto: native,
      chainId,
      epoch: () => port.explain().epoch,
      members: () => port.genesis.members,
      key: secret.publicKey,
      signStatement,
    },
    listen: config.listen,
    peers: new Map(),
    events: { frame: () => {}, connected: () => {}, disconnected: () => {} },
    onClient: (socket) => gateway.accept(socket),
    options: transportLimits(config),
    overloaded: () => false,
    meter: metrics,
    log: logger,
  });
  let http: HttpDoor | null = null;
  const close = async () => {
    gateway.drain();
    http?.drain();
    gateway.close();
    await http?.close();
    await transport.close();
    metrics.close();
  };
  try {
    if (config.http !== null)
      http = await HttpDoor.listen({
        listen: config.http,
        replica: port,
        gateway,
        meter: metrics,
        metrics,
        genesisDocument,
        epochs,
        node: { version: version(), startedAt: Date.now(), observer: config.member },
        signer: null,
        onError: (error, route) => logger.error({ route, error: String(error) }, 'the HTTP door failed to answer'),
      });
  } catch (error) {
    await close();
    throw error;
  }
  const { height, epoch } = port.explain();
  logger.info({ listen: `ws://${config.listen.host}:${transport.port}`, epoch, height }, 'observing');
  return close;
}

interface Following {
  readonly observer: Observer;
  readonly port: ObserverPort;
  readonly write: (records: readonly LogRecord[]) => Promise<unknown>;
  /** More epochs are known. */
  readonly learnt: () => Promise<void>;
  /** Nothing more is wanted. */
  readonly isThere: () => boolean;
  readonly config: NodeConfig;
  readonly genesis: Genesis;
  readonly epochs: EpochChain;
  readonly signer: ClientSigner;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** [EPO-25] Of the last epoch that is known; and whoever was a member before, as far as the operator says where. */
export function addressesOf(
  { peers, member: own }: Pick<NodeConfig, 'peers' | 'member'>,
  epochs: EpochChain,
): ReplicaAddress[] {
  const { documents, last } = epochs;
  const names = new Set(documents.flatMap(({ members }) => members.map(({ name }) => name)));
  return [...names].flatMap((name) => {
    const member = last.members.find((each) => each.name === name);
    const url = addressOf(member?.address, givenByConfig(epochs, name, peers.get(name)));
    return url === undefined || name === own ? [] : [{ name, url }];
  });
}

/** To the members, and to sources beside them; to sources alone where no f+1 members can be reached. */
async function reach({ config, genesis, epochs, logger }: Following): Promise<Client | null> {
  const sources = [...config.sources].map(([name, url]) => ({ name, url }));
  const replicas = addressesOf(config, epochs);
  const failed = (error: unknown) => {
    logger.warn({ error: String(error) }, 'too few members can be reached');
    return null;
  };
  const client = replicas.length === 0 ? null : await connect({ genesis, epochs, replicas, sources }).catch(failed);
  if (client !== null || sources.length === 0) return client;
  return connect({ genesis, epochs, replicas: [], sources }).catch(failed);
}

/** Through every epoch, as far as it goes: the client finds the members of the next one by itself. */
async function follow(following: Following): Promise<void> {
  const { observer, port, write, learnt, isThere, config, logger, signal } = following;
  const client = await reach(following);
  if (client === null) return void (await later(pauseMs, signal));
  const end = () => void client.close();
  signal.addEventListener('abort', end);
  const held: LogRecord[] = [];
  /** Of the blocks that are held or being written. */
  let bytes = 0;
  const spent = new SpentBytes();
  let writing: Promise<unknown> | null = null;
  const start = () => {
    port.writes(true);
    const taken = bytes;
    writing = write(held.splice(0)).finally(() => {
      bytes -= taken;
      writing = null;
      port.writes(false);
      pump();
    });
  };
  // What comes while a write is under way shares the next one. Far behind, where more comes at once, it waits for what is worth files of its own.
  const pump = () => {
    if (writing !== null || held.length === 0) return;
    const isBehind = client.head().height > observer.height + observer.document.parameters.window;
    if (!isBehind || bytes >= BULK_BYTES || held.length > BULK_RECORDS) start();
  };
  const flush = async () => {
    for (;;) {
      if (writing === null && held.length > 0) start();
      if (writing === null) return;
      await writing;
    }
  };
  const isFull = () => held.length > HELD_RECORDS_MAX || bytes > HELD_BYTES_MAX;
  let saidAt = performance.now();
  /** It is where it was to come. */
  let leaving: NodeJS.Timeout | null = null;
  try {
    port.saw(client.head().height);
    const least = observer.document.parameters.retainBlocksMin;
    const retain = config.retainBlocks === 'all' ? Number.POSITIVE_INFINITY : Math.max(config.retainBlocks, least);
    // Blocks that it would forget again at once.
    if (client.head().height - observer.height > retain) await takeCheckpoint(following, client);
    for await (const { header, headerBytes, hash, bundles, certificate } of client.follow({
      from: observer.height + 1,
    })) {
      if (bundles === null) throw new Error('a stream of whole blocks has bodies');
      const block: Block = { header, headerBytes, hash, bundles };
      const { epoch } = observer.document;
      held.push(...observer.take(block, certificate));
      bytes += header.payloadBytes;
      // The frame lay in pieces before it was one.
      spent.add(header.payloadBytes);
      port.saw(client.head().height);
      port.took({ block, certificate });
      pump();
      // What is written has its place in memory until it is: the stream waits, no longer than until there is room, so that the disk and the processor
      // work at the same time.
      while (writing !== null && isFull()) await writing;
      if (performance.now() - saidAt > progressMs) {
        saidAt = performance.now();
        logger.info({ height: observer.height, known: client.head().height }, 'following');
      }
      if (observer.document.epoch === epoch) {
        if (leaving !== null) break;
        continue;
      }
      logger.info({ epoch: observer.document.epoch, height: observer.height }, 'the epoch has ended');
      await flush();
      await learnt();
      // [EPO-24] The others begin the epoch before they meet anybody; if they cannot without this one, it comes all the same.
      clearTimeout(leaving ?? undefined);
      leaving = isThere() ? setTimeout(end, observer.document.parameters.viewTimeoutMs) : null;
    }
    await flush();
  } catch (error) {
    await flush();
    if (signal.aborted || isThere()) return;
    if (!(error instanceof ClientError)) throw error;
    logger.warn({ height: observer.height, code: error.code }, 'cannot follow from here');
    if (error.code !== 'pruned' || !(await takeCheckpoint(following, client))) await later(pauseMs, signal);
  } finally {
    clearTimeout(leaving ?? undefined);
    signal.removeEventListener('abort', end);
    await client.close();
  }
}

/** [EPO-20] From whoever has one above the head. False: nobody has. */
async function takeCheckpoint(following: Following, client: Client): Promise<boolean> {
  const { observer, port, write, learnt, genesis, epochs, signer, logger } = following;
  for (const { name, url } of client.status()) {
    const state = await fetchCheckpoint({
      url,
      above: observer.height,
      chainId: genesis.chainId,
      epochs,
      crypto: native,
      signer,
      openSocket: openWebSocket,
      timeoutMs: answerMsMax,
    });
    if ('refused' in state) {
      logger.debug({ name, code: state.refused }, 'no checkpoint from this node');
      continue;
    }
    // The links of the epochs before it are in no block that will be here.
    await learnt();
    const { height, epoch } = state.certificate;
    await write(observer.install(state));
    port.installed(height);
    logger.info({ name, height, epoch }, 'a certified checkpoint was taken');
    return true;
  }
  return false;
}

const later = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
