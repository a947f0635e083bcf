// One replica as a process: opens what it owns, plugs the parts together, and closes them in the other order. The picture of the
// parts is in docs/architecture.md; each line here is one arrow of it.

import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { KeyError } from '../keys/errors.ts';
import { type Guard, openGuard } from '../keys/guard.ts';
import { assertAtHome } from '../keys/home.ts';
import { SecretKey } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import { assert } from '../protocol/assert.ts';
import type { EpochEnd } from '../protocol/core.ts';
import { addressOf, givenByConfig } from '../protocol/epoch/address.ts';
import { epochOf } from '../protocol/epoch/begin.ts';
import { type EpochDocument, genesisOf } from '../protocol/epoch/document.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { RecoveredLog } from '../protocol/log.ts';
import { quorumsOf } from '../protocol/modes.ts';
import { tracesIn } from '../protocol/pbft/quarantine.ts';
import type { Epoch, Hash, ReplicaId } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { checkpointSigningBytes } from '../protocol/verify.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { Clock } from './clock.ts';
import type { NodeConfig } from './config.ts';
import { gatewayLimits, loadGenesis, passphraseSource, transportLimits } from './config.ts';
import { EpochScout, knownAddresses } from './epoch-scout.ts';
import { addEpoch, keepEpochs, writeEpochs } from './epochs.ts';
import { EvidenceBook } from './evidence.ts';
import { Gateway } from './gateway/gateway.ts';
import { HttpDoor } from './http/http-door.ts';
import { Metrics } from './metrics.ts';
import type { ReplicaPort } from './ports.ts';
import type { Logger, Replica } from './replica.ts';
import { Succession } from './succession.ts';
import { type Between, beginTerm, recorderOf, type Surroundings, type Term } from './term.ts';
import { Transport, type TransportEpoch } from './transport/peers.ts';
import { version } from './version.ts';

export interface RunningNode {
  readonly addresses: { readonly listen: string; readonly http: string | null };
  readonly replica: ReplicaPort;
  /** Drains and closes; resolves when everything is on disk and every port is free. */
  stop(): Promise<void>;
  /** Resolves when the node ends by itself: stop it then. Rejects where it cannot go on in the next epoch. */
  readonly done: Promise<NodeEnd>;
}

/** An exit code: something fatal; or its epoch has ended, and it is no member of the next one; or nobody in reach leads out of it (EPO-19). */
export type NodeEnd = number | 'ended' | 'behind';

/** Decided blocks that the log keeps in memory for whoever is a little behind. */
const RECENT_BYTES_MAX = 16 << 20;
/** How long the end of a replica that must stop waits for evidence and for the last bytes of a recording that are being written. */
const LAST_WORDS_MS_MAX = 2_000;

/** @throws KeyError, GuardError, StorageError, or a system error; each is the operator's to mend, and nothing has been changed. */
export async function startNode(config: NodeConfig, logger: Logger, between: Between = {}): Promise<RunningNode> {
  const loaded = loadGenesis(native, config.genesis);
  if ('refused' in loaded) throw new Error(`${loaded.file}: ${loaded.field}: ${loaded.problem}`);
  const { genesis: first, document } = loaded;
  const { chainId } = first;
  const keys = await loadKeys(config, logger);

  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  // The guard says what the log must hold, and the log says which epoch the guard is of.
  let guard = await openLatestGuard(config, keys, chainId);
  // From here on, whatever fails must give back what was opened.
  const opened: (() => Promise<unknown>)[] = [() => guard.close()];
  const closeAll = async () => {
    for (const close of opened.reverse()) await close();
  };
  try {
    const kv = await openStore(config.logDir);
    opened.push(() => kv.close());
    const { sha256 } = native;
    const { floor } = guard.state;
    const { log, recovered } = await openLogStore(kv, {
      sha256,
      chainId,
      floor: floor.sequence === 0 ? null : floor,
      retainBlocks: config.retainBlocks,
      recentBytesMax: RECENT_BYTES_MAX,
    });
    opened.pop(); // the log closes its store
    opened.push(() => log.close());

    const own = epochOf(sha256, first, recovered);
    const place = placeIn(own, config, keys);
    if ('refused' in place) throw place.refused;
    const latest = guard;
    guard = await guardOf([latest], place.key, config, own);
    if (latest !== guard) await latest.close();
    // [GRD-10]
    if (guard.state.epoch !== own.epoch) guard.beginEpoch(own.epoch);
    const epochs = await keepEpochs({ path: config.epochsFile, genesis: first, log, document: own, logger });
    // Following overwrites what the log still shows of this key's words.
    if (guard.state.quarantined) await guard.abstain(tracesIn(recovered, own.epoch));
    const metrics = new Metrics();
    opened.push(async () => metrics.close());
    const evidence = await EvidenceBook.open({
      directory: config.evidenceDir,
      genesis: genesisOf(first, own),
      epochs,
      crypto: native,
      meter: metrics,
      logger,
    });
    opened.push(() => evidence.settle());
    const recorder = recorderOf(config, { first, document, own, self: place.self, metrics, logger });
    const clock = new Clock();
    const surroundings: Surroundings = { config, first, log, clock, metrics, evidence, recorder, logger, between };
    let term = beginTerm(surroundings, {
      own,
      from: { log: recovered },
      guard,
      marks: guard.state,
      self: place.self,
    });
    /** The newest term, which may not have been begun yet. */
    let newest = term;
    opened.push(async () => recorder?.close(newest.core));
    const replica = new Succession(term.replica);
    metrics.watch(replica);
    const signStatement = (kind: string, payload: Uint8Array) => guard.signStatement(kind, payload);
    const gateway = new Gateway({
      replica,
      meter: metrics,
      publicKey: () => guard.publicKey,
      signStatement,
      epochLinks: () => epochs.links,
      limits: gatewayLimits(config),
    });
    const transportEpoch = ({ epoch, members }: EpochDocument, self: ReplicaId): TransportEpoch => {
      const former = keysBefore(epochs, epoch);
      return {
        self,
        credentials: {
          crypto: native,
          chainId,
          epoch: () => epoch,
          members: () => members,
          isRetired: (other) => former.has(toHex(other)),
          key: guard.publicKey,
          signStatement,
        },
        peers: addressesOf(config, epochs, members, self, logger),
      };
    };
    const transport = await Transport.open({
      ...transportEpoch(own, place.self),
      listen: config.listen,
      events: replica,
      onClient: (socket) => gateway.accept(socket),
      options: transportLimits(config),
      overloaded: () => replica.overloaded(),
      meter: metrics,
      log: logger,
    });
    opened.push(() => transport.close());
    const peers = between.peers?.(transport) ?? transport;
    const http =
      config.http === null
        ? null
        : await HttpDoor.listen({
            listen: config.http,
            replica,
            gateway,
            meter: metrics,
            metrics,
            genesisDocument: document,
            epochs,
            node: { version: version(), startedAt: Date.now() },
            signer: clientSigner(SecretKey.generate(), chainId),
            evidence,
            onError: (error, route) => logger.error({ route, error: String(error) }, 'the HTTP door failed to answer'),
          });
    if (http !== null) opened.push(() => http.close());

    let spare = openSpare(guard, config, keys, { chainId, logger });
    opened.push(async () => (await spare)?.close());
    const stopping = new AbortController();
    let scout: EpochScout | null = null;
    opened.push(async () => scout?.close());
    let entering: Promise<void> = Promise.resolve();
    let keeping: Promise<void> = Promise.resolve();
    const done = new Promise<NodeEnd>((resolve, reject) => {
      // What it has found out about others, and what led to the end, are worth a moment; a disk that hangs must not keep the process alive.
      replica.subscribe({
        fatal: () => {
          const kept = Promise.allSettled([evidence.settle(), recorder?.close(newest.core)]);
          void Promise.race([kept, later(LAST_WORDS_MS_MAX)]).finally(() => resolve(1));
        },
      });
      /** [EPO-22] The next epoch, over the same log, connections and doors. */
      const enter = async (end: EpochEnd, written: Promise<boolean>): Promise<void> => {
        const { next, waiting } = end;
        const place = placeIn(next, config, keys);
        if ('refused' in place) {
          if (!(await written)) return;
          replica.over(end);
          return resolve('ended');
        }
        const before = guard;
        addEpoch(epochs, end, logger);
        // The file of a key that was replaced may still be open.
        if (!equalBytes(guard.publicKey, place.key.secret.publicKey)) await keeping;
        // [EPO-12] While the end of the last epoch is written, the next one is made ready: nothing of it is said, signed or marked until it is.
        const held = await spare;
        const coming = await guardOf([guard, held], place.key, config, next);
        const isWritten = async () => {
          if ((await written) && !stopping.signal.aborted) return true;
          if (coming !== guard && coming !== held) await coming.close();
          return false;
        };
        let marks = coming.state.epoch === next.epoch ? coming.state : coming.stateIn(next.epoch);
        // Nothing has to be read, since the core before holds what it has just given away; but where the guard has forgotten what its key has said, the log tells.
        let recovered: RecoveredLog | null = null;
        if (marks.quarantined) {
          if (!(await isWritten())) return;
          if (coming.state.epoch !== next.epoch) coming.beginEpoch(next.epoch);
          // That may have been over with what has just been written (REC-4).
          if (coming.state.quarantined) {
            recovered = await log.recover();
            await coming.abstain(tracesIn(recovered, next.epoch));
          }
          marks = coming.state;
        }
        const ledger = term.core.successor;
        assert(
          ledger !== null && equalBytes(ledger.document.hash, next.hash),
          'the core before leaves the state of this epoch',
        );
        const foreseen = numbersIn(next, term, transport.connectedPeers());
        const from =
          recovered === null
            ? { log: null, inherited: { ledger, lowest: log.lowest }, connected: foreseen }
            : { log: recovered, connected: foreseen };
        newest = beginTerm(surroundings, { own: next, from, guard: coming, marks, self: place.self });
        if (!(await isWritten())) return;
        // From here on nothing comes in between.
        if (coming.state.epoch !== next.epoch) coming.beginEpoch(next.epoch);
        guard = coming;
        if (coming === held) spare = Promise.resolve(null);
        transport.enter(transportEpoch(next, place.self));
        evidence.enter(genesisOf(first, next));
        term = newest;
        replica.enter(term.replica, peers, waiting);
        // Who has come or gone since the core was made.
        const connected = transport.connectedPeers();
        for (const peer of connected) if (!foreseen.includes(peer)) replica.connected(peer);
        for (const peer of foreseen) if (!connected.includes(peer)) replica.disconnected(peer);
        gateway.enter(next.epoch);
        settle(term);
        // Nobody waits for these, but the end: the first block of the epoch goes before.
        const decided = firstBlock(term.replica, stopping.signal);
        // [EPO-24] Without newcomers there may be no block.
        if (connected.length + 1 < quorumsOf(next).quorum) transport.meet();
        else void decided.then(() => transport.meet());
        keeping = Promise.all([keeping, decided]).then(async () => {
          logger.info({ epoch: next.epoch, height: next.start.height }, 'the next epoch has begun');
          await writeEpochs(config.epochsFile, epochs, first);
          if (before !== guard) await before.close();
        });
        keeping.catch(reject);
      };
      /** What is watched for in each epoch. */
      const settle = ({ own, replica: current }: Term): void => {
        current.subscribe({
          ended: (end, written) => {
            scout?.close();
            entering = enter(end, written).catch(reject);
          },
        });
        scout = new EpochScout({
          own,
          epochs,
          addresses: () => knownAddresses(epochs, config.peers.values()),
          isLonely: () => transport.connectedPeers().length < quorumsOf(own).oneHonest,
          height: () => replica.head().height,
          learnt: () => writeEpochs(config.epochsFile, epochs, first),
          behind: () => resolve('behind'),
          logger,
        });
      };
      settle(term);
    });
    if (guard.state.quarantined)
      logger.warn(
        { signState: config.signState },
        'in quarantine: what this key has signed is not known, so it votes for nothing until the others have gone on far enough',
      );
    term.replica.start(peers);
    const addresses = {
      listen: `ws://${config.listen.host}:${transport.port}`,
      http: http === null ? null : `http://${config.http?.host}:${http.port}`,
    };
    logger.info(
      { ...addresses, member: config.member, chain: toHex(chainId), epoch: own.epoch, height: replica.head().height },
      'started',
    );
    return {
      addresses,
      replica,
      done,
      async stop() {
        stopping.abort();
        gateway.drain();
        http?.drain();
        await entering;
        await keeping;
        await replica.drain();
        gateway.close();
        await closeAll();
        logger.info({ height: replica.head().height }, 'stopped');
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

interface Place {
  readonly self: ReplicaId;
  readonly key: OwnKey;
}

/** This replica's number and key in an epoch, or why it has none. */
function placeIn(
  { epoch, members }: EpochDocument,
  config: NodeConfig,
  keys: readonly OwnKey[],
): Place | { readonly refused: KeyError } {
  const { member: name, key: path } = config;
  const member = members.find((each) => each.name === name);
  if (member === undefined) return { refused: new KeyError('not-a-member', { member: name, epoch }) };
  const key = keys.find(({ secret }) => equalBytes(secret.publicKey, member.publicKey));
  if (key === undefined) return { refused: new KeyError('key-not-member', { path, member: name, epoch }) };
  return { self: member.id, key };
}

/** Of this key: one of the guards that are open, or another one. Those are left as they are. */
async function guardOf(
  open: readonly (Guard | null)[],
  key: OwnKey,
  config: NodeConfig,
  { chainId }: EpochDocument,
): Promise<Guard> {
  const found = open.find((guard) => guard !== null && equalBytes(guard.publicKey, key.secret.publicKey));
  return found ?? openGuardOf(config, key, chainId);
}

/** The numbers in an epoch of those whose keys are members' in it as in the term before. */
function numbersIn({ members }: EpochDocument, { genesis }: Term, peers: readonly ReplicaId[]): ReplicaId[] {
  const keys = new Set(peers.map((peer) => toHex(genesis.members[peer]!.publicKey)));
  return members.filter(({ publicKey }) => keys.has(toHex(publicKey))).map(({ id }) => id);
}

/** [EPO-23] The guard of the key that is to follow this one: at the switch everybody would wait for its disk. Null: there is none, or it cannot be opened, of which that switch will complain. */
function openSpare(
  guard: Guard,
  config: NodeConfig,
  [key, next]: readonly OwnKey[],
  { chainId, logger }: { readonly chainId: Hash; readonly logger: Logger },
): Promise<Guard | null> {
  if (next === undefined || key === undefined || !equalBytes(guard.publicKey, key.secret.publicKey))
    return Promise.resolve(null);
  if (signStateOf(config, key.path) === signStateOf(config, next.path)) return Promise.resolve(null);
  return openGuardOf(config, next, chainId).catch((error: unknown) => {
    logger.warn({ key: next.path, error: String(error) }, 'the guard of the key that is to follow cannot be opened');
    return null;
  });
}

/** [EPO-16] Who comes under one of these was a member, and is told so. */
function keysBefore(epochs: EpochChain, epoch: Epoch): ReadonlySet<string> {
  const earlier = epochs.documents.filter((document) => document.epoch < epoch);
  return new Set(earlier.flatMap(({ members }) => members.map(({ publicKey }) => toHex(publicKey))));
}

/** Resolves with the next block that this replica decides; or after a view's time, or when there is no more time. */
function firstBlock(replica: Replica, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      unsubscribe();
      ended.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, replica.genesis.parameters.viewTimeoutMs);
    const unsubscribe = replica.subscribe({ decided: done });
    ended.addEventListener('abort', done);
  });
}

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

export interface OwnKey {
  readonly path: string;
  readonly secret: SecretKey;
}

/** The key, and the one that is to follow it. */
export async function loadKeys({ key, nextKey, passphraseFile }: NodeConfig, logger: Logger): Promise<OwnKey[]> {
  const keys: OwnKey[] = [];
  for (const path of [key, nextKey]) {
    if (path === null) continue;
    const { secret, sealed } = await loadKey({ path, passphrase: passphraseSource(passphraseFile) });
    if (!sealed) logger.warn({ key: path }, 'the key is not sealed: whoever reads the file can vote in its name');
    keys.push({ path, secret });
  }
  return keys;
}

/** A key that came after the network was made has its sign-state file beside it (`synod keys generate --sign-state`). */
function signStateOf({ signState }: NodeConfig, keyPath: string): string {
  const beside = `${keyPath}.sign-state`;
  return existsSync(beside) ? beside : signState;
}

async function openGuardOf(config: NodeConfig, { path: keyPath, secret }: OwnKey, chainId: Hash): Promise<Guard> {
  const path = signStateOf(config, keyPath);
  const guard = await openGuard({
    path,
    secret,
    chainId,
    epoch: null,
    create: false,
    checkpointSigningBytes: (place) => checkpointSigningBytes(chainId, place),
  });
  try {
    await assertAtHome(path);
  } catch (error) {
    await guard.close();
    throw error;
  }
  return guard;
}

/**
 * Of the key that has signed last: it is the one that has seen the most of the log. That of a key which was replaced says what the log held
 * then, and the log has forgotten so long ago.
 */
async function openLatestGuard(config: NodeConfig, keys: readonly OwnKey[], chainId: Hash): Promise<Guard> {
  const paths = keys.map(({ path }) => signStateOf(config, path));
  const used = keys.filter((_, index) => existsSync(paths[index]!) && paths.indexOf(paths[index]!) === index);
  const [first = keys[0]!, ...others] = used;
  let latest = await openGuardOf(config, first, chainId);
  for (const key of others) {
    const guard = await openGuardOf(config, key, chainId);
    const isLater = guard.state.floor.sequence > latest.state.floor.sequence;
    await (isLater ? latest : guard).close();
    if (isLater) latest = guard;
  }
  return latest;
}

/** [EPO-25] */
function addressesOf(
  { peers }: NodeConfig,
  epochs: EpochChain,
  members: Genesis['members'],
  self: ReplicaId,
  logger: Logger,
): Map<ReplicaId, string> {
  const addresses = new Map<ReplicaId, string>();
  for (const { id, name, address } of members) {
    const url = addressOf(address, givenByConfig(epochs, name, peers.get(name)));
    if (url !== undefined) addresses.set(id, url);
    else if (id !== self) logger.warn({ peer: name }, 'this member has no address: it must dial this replica');
  }
  addresses.delete(self);
  return addresses;
}
