// One replica as a process: opens what it owns, plugs the parts together, and closes them in the other order. The picture of the
// parts is in docs/architecture.md; each line here is one arrow of it.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { GuardError, KeyError } from '../keys/errors.ts';
import { type Guard, openGuard } from '../keys/guard.ts';
import { assertAtHome } from '../keys/home.ts';
import { SecretKey } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import { blockHash } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeCertificate, isRefusal } from '../protocol/codec.ts';
import type { EpochEnd } from '../protocol/core.ts';
import { makeCore, type ReplicaCore } from '../protocol/cores.ts';
import { epochOf, fits } from '../protocol/epoch/begin.ts';
import { genesisOf } from '../protocol/epoch/document.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { RecoveredLog } from '../protocol/log.ts';
import { bearsLies, quorumsOf } from '../protocol/modes.ts';
import { tracesIn } from '../protocol/pbft/quarantine.ts';
import type { Epoch, Hash, Height, ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asView } from '../protocol/types.ts';
import type { EpochChain, VerifyContext } from '../protocol/verify.ts';
import { checkpointSigningBytes, SeenSignatures } from '../protocol/verify.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { Clock } from './clock.ts';
import type { NodeConfig } from './config.ts';
import { gatewayLimits, loadGenesis, passphraseSource, transportLimits } from './config.ts';
import { EpochScout, knownAddresses } from './epoch-scout.ts';
import { keepEpochs, writeEpochs } from './epochs.ts';
import { encodeEpochsFile } from './epochs-file.ts';
import { EvidenceBook } from './evidence.ts';
import { Gateway } from './gateway/gateway.ts';
import { HttpDoor } from './http/http-door.ts';
import { Metrics } from './metrics.ts';
import type { PeerTransport, ReplicaPort } from './ports.ts';
import { Recorder } from './recorder/recorder.ts';
import { folderAt } from './recorder/segment-files.ts';
import type { Logger } from './replica.ts';
import { Replica } from './replica.ts';
import { Transport } from './transport/peers.ts';
import { version } from './version.ts';

export interface RunningNode {
  readonly addresses: { readonly listen: string; readonly http: string | null };
  readonly replica: ReplicaPort;
  /** Drains and closes; resolves when everything is on disk and every port is free. */
  stop(): Promise<void>;
  /** Resolves when the node ends by itself. Stop it then, and unless it was fatal start the next. */
  readonly done: Promise<NodeEnd>;
}

/** An exit code: something fatal; the end of its epoch; or: its epoch has ended, and nobody in reach leads out of it (EPO-19). */
export type NodeEnd = number | EpochEnd | 'behind';

/** Signatures remembered as valid: a few windows of votes of a large cluster. */
const SEEN_SIGNATURES_MAX = 8_192;
/** Decided blocks that the log keeps in memory for whoever is a little behind. */
const RECENT_BYTES_MAX = 16 << 20;
/** How long the end of a replica that must stop waits for evidence and for the last bytes of a recording that are being written. */
const LAST_WORDS_MS_MAX = 2_000;

/**
 * What may stand between the parts: nothing, but in the tests that play an adversary around a real replica (test/lying-replica.ts). Code hands
 * it over; no flag, file or message of a replica leads here.
 */
export interface Between {
  core?(core: ReplicaCore, place: { readonly genesis: Genesis; readonly self: ReplicaId }): void;
  peers?(transport: PeerTransport): PeerTransport;
}

/**
 * @param waiting what waited in the pool when the epoch before ended here
 * @throws KeyError, GuardError, StorageError, or a system error; each is the operator's to mend, and nothing has been changed.
 */
export async function startNode(
  config: NodeConfig,
  logger: Logger,
  waiting: readonly SignedBundle[] = [],
  between: Between = {},
): Promise<RunningNode> {
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
    const { epoch } = own;
    const genesis = genesisOf(first, own);
    const self = genesis.members.find(({ name }) => name === config.member)?.id;
    if (self === undefined) throw new KeyError('not-a-member', { member: config.member, epoch });
    const key = keys.find(({ secret }) => equalBytes(secret.publicKey, genesis.members[self]!.publicKey));
    if (key === undefined) throw new KeyError('key-not-member', { path: config.key, member: config.member, epoch });
    if (guard.state.epoch !== epoch || !equalBytes(guard.publicKey, key.secret.publicKey)) {
      await guard.close();
      guard = await openGuardOf(config, key, chainId, epoch); // GRD-10
    }
    const epochs = await keepEpochs({ path: config.epochsFile, genesis: first, log, document: own, logger });

    const { quarantined } = guard.state;
    // [CFT-R-1] A promise that is forgotten, or what was accepted under one, would be missing in every quorum that this replica is in.
    if (!bearsLies(own.protocol) && (quarantined || guard.state.abstained.view !== null))
      throw new GuardError('guard-memory-lost', { member: config.member, epoch });
    // Following overwrites what the log still shows of this key's words.
    if (quarantined) await guard.abstain(tracesIn(recovered, epoch));
    const { view, led, abstained, marks, request } = guard.state;
    const clock = new Clock();
    const lock = guard.state.lock === null ? null : certificateIn(guard.state.lock);
    const core = makeCore(
      { genesis, epoch, document: own, self, sha256 },
      {
        log: recovered,
        guard: {
          view: asView(Math.max(view, abstained.view ?? 0)),
          led,
          lock,
          request,
          abstained: abstained.view,
          height: marks.at(-1)?.height ?? asHeight(0),
        },
        quarantine: quarantined ? { nonce: randomBytes(32), abstained } : null,
      },
      clock.now(),
    );
    between.core?.(core, { genesis, self });
    const metrics = new Metrics();
    opened.push(async () => metrics.close());
    const evidence = await EvidenceBook.open({
      directory: config.evidenceDir,
      genesis,
      epochs,
      crypto: native,
      meter: metrics,
      logger,
    });
    opened.push(() => evidence.settle());
    const quorums = quorumsOf(own);
    const former = keysBefore(epochs, epoch);
    const recorder =
      config.recorderMiB === 0
        ? null
        : new Recorder({
            folder: folderAt(config.recorderDir),
            bytesMax: config.recorderMiB * 2 ** 20,
            chainId,
            genesisDocument: document,
            epoch: own,
            self,
            member: config.member,
            software: version(),
            startedAt: Date.now(),
            sha256,
            meter: metrics,
            logger,
          });
    if (recorder !== null) opened.push(() => recorder.close(core));
    const verify: VerifyContext = {
      crypto: native,
      chainId: genesis.chainId,
      epoch,
      members: genesis.members,
      quorum: quorums.quorum,
      protocol: own.protocol,
      memberSetHash: own.hash,
      start: own.start,
      parameters: genesis.parameters,
      seen: new SeenSignatures(SEEN_SIGNATURES_MAX),
      // What a client gave to this replica, it has decoded and checked already.
      knownBundle: (digest) => core.pooled(digest),
      bundleVerified: (bundle) => {
        const known = core.pooled(bundle.digest);
        return known !== undefined && equalBytes(known.signature, bundle.signature);
      },
    };
    const replica = new Replica({
      core,
      genesis,
      self,
      crypto: native,
      verify,
      log,
      guard,
      clock,
      meter: metrics,
      logger,
      evidence,
      recorder,
      witness: bearsLies(own.protocol) ? undefined : { self, epoch, sign: (place) => guard.signDecided(place) },
      head: recoveredHead(first, recovered),
    });
    metrics.watch(replica);
    const signStatement = (kind: string, payload: Uint8Array) => guard.signStatement(kind, payload);
    const gateway = new Gateway({
      replica,
      meter: metrics,
      publicKey: guard.publicKey,
      signStatement,
      epochLinks: () => epochs.links,
      limits: gatewayLimits(config),
    });
    const transport = await Transport.open({
      self,
      credentials: {
        crypto: native,
        chainId: genesis.chainId,
        epoch: () => epoch,
        members: () => genesis.members,
        isRetired: (other) => former.has(toHex(other)),
        key: guard.publicKey,
        signStatement,
      },
      listen: config.listen,
      peers: addressesOf(config, genesis, self, logger),
      events: replica,
      onClient: (socket) => gateway.accept(socket),
      options: transportLimits(config),
      overloaded: () => replica.overloaded(),
      meter: metrics,
      log: logger,
    });
    opened.push(() => transport.close());
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
            epochsFile: () => encodeEpochsFile(chainId, epochs.links),
            node: { version: version(), startedAt: Date.now() },
            signer: clientSigner(SecretKey.generate(), chainId),
            evidence,
            onError: (error, route) => logger.error({ route, error: String(error) }, 'the HTTP door failed to answer'),
          });
    if (http !== null) opened.push(() => http.close());

    const done = new Promise<NodeEnd>((resolve) => {
      // What it has found out about others, and what led to the end, are worth a moment; a disk that hangs must not keep the process alive.
      replica.subscribe({
        fatal: () => {
          const kept = Promise.allSettled([evidence.settle(), recorder?.close(core)]);
          void Promise.race([kept, later(LAST_WORDS_MS_MAX)]).finally(() => resolve(1));
        },
        ended: resolve,
      });
      const scout = new EpochScout({
        own,
        epochs,
        addresses: () => knownAddresses(epochs, config.peers.values()),
        isLonely: () => transport.connectedPeers().length < quorums.oneHonest,
        height: () => replica.head().height,
        learnt: () => writeEpochs(config.epochsFile, epochs, first),
        behind: () => resolve('behind'),
        logger,
      });
      opened.push(async () => scout.close());
    });
    if (quarantined)
      logger.warn(
        { signState: config.signState },
        'in quarantine: what this key has signed is not known, so it votes for nothing until the others have gone on far enough',
      );
    replica.start(between.peers?.(transport) ?? transport);
    for (const bundle of waiting) if (fits(bundle, genesis.parameters)) replica.submit(bundle);
    const addresses = {
      listen: `ws://${config.listen.host}:${transport.port}`,
      http: http === null ? null : `http://${config.http?.host}:${http.port}`,
    };
    logger.info(
      { ...addresses, member: config.member, chain: toHex(chainId), epoch, height: replica.head().height },
      'started',
    );
    return {
      addresses,
      replica,
      done,
      async stop() {
        gateway.drain();
        http?.drain();
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

/** [EPO-16] Who comes under one of these was a member, and is told so. */
function keysBefore(epochs: EpochChain, epoch: Epoch): ReadonlySet<string> {
  const earlier = epochs.documents.filter((document) => document.epoch < epoch);
  return new Set(earlier.flatMap(({ members }) => members.map(({ publicKey }) => toHex(publicKey))));
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

async function openGuardOf(
  config: NodeConfig,
  { path: keyPath, secret }: OwnKey,
  chainId: Hash,
  epoch: Epoch | null,
): Promise<Guard> {
  const path = signStateOf(config, keyPath);
  const guard = await openGuard({
    path,
    secret,
    chainId,
    epoch,
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
  let latest = await openGuardOf(config, first, chainId, null);
  for (const key of others) {
    const guard = await openGuardOf(config, key, chainId, null);
    const isLater = guard.state.floor.sequence > latest.state.floor.sequence;
    await (isLater ? latest : guard).close();
    if (isLater) latest = guard;
  }
  return latest;
}

/** The operator's own word first, then the epoch's. */
function addressesOf(
  { peers }: NodeConfig,
  { members }: Genesis,
  self: ReplicaId,
  logger: Logger,
): Map<ReplicaId, string> {
  const addresses = new Map<ReplicaId, string>();
  for (const { id, name, address } of members) {
    const url = peers.get(name) ?? address;
    if (url !== undefined) addresses.set(id, url);
    else if (id !== self) logger.warn({ peer: name }, 'this member has no address: it must dial this replica');
  }
  addresses.delete(self);
  return addresses;
}

function certificateIn(bytes: Uint8Array): Certificate {
  const certificate = decodeCertificate(bytes);
  if (isRefusal(certificate))
    throw new Error(`the sign-state file holds a malformed certificate: ${certificate.refused}`);
  return certificate;
}

function recoveredHead(
  genesis: Genesis,
  recovered: RecoveredLog,
): { height: Height; hash: Hash; certificate: Certificate | null } {
  const certified = recovered.decided.findLast((block) => block.certificate !== null)?.certificate ?? null;
  const certificate = certified === null ? null : certificateIn(certified);
  const last = recovered.decided.at(-1);
  if (last !== undefined) return { height: last.height, hash: last.hash, certificate };
  if (recovered.checkpoint !== null) {
    const { height, header } = recovered.checkpoint;
    return { height, hash: blockHash(native.sha256, header), certificate };
  }
  const { head } = new Ledger({ sha256: native.sha256, genesis, epoch: asEpoch(0) });
  return { height: head.header.height, hash: asHash(head.hash), certificate: null };
}
