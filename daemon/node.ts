// One replica as a process: opens what it owns, plugs the parts together, and closes them in the other order. The picture of the
// parts is in docs/architecture.md; each line here is one arrow of it.

import { mkdir } from 'node:fs/promises';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { KeyError } from '../keys/errors.ts';
import { openGuard } from '../keys/guard.ts';
import { SecretKey } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import { blockHash } from '../protocol/block.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeCertificate, isRefusal } from '../protocol/codec.ts';
import { makeCore, type ReplicaCore } from '../protocol/cores.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { RecoveredLog } from '../protocol/log.ts';
import { quorumsOf } from '../protocol/modes.ts';
import type { Hash, Height, ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHash, asReplicaId } from '../protocol/types.ts';
import type { VerifyContext } from '../protocol/verify.ts';
import { checkpointSigningBytes, SeenSignatures } from '../protocol/verify.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { Clock } from './clock.ts';
import type { NodeConfig } from './config.ts';
import { gatewayLimits, loadGenesis, passphraseSource, transportLimits } from './config.ts';
import { EvidenceBook } from './evidence.ts';
import { Gateway } from './gateway/gateway.ts';
import { HttpDoor } from './http/http-door.ts';
import { Metrics } from './metrics.ts';
import type { PeerTransport, ReplicaPort } from './ports.ts';
import type { Logger } from './replica.ts';
import { Replica } from './replica.ts';
import { Transport } from './transport/peers.ts';

export interface RunningNode {
  readonly addresses: { readonly listen: string; readonly http: string | null };
  readonly replica: ReplicaPort;
  /** Drains and closes; resolves when everything is on disk and every port is free. */
  stop(): Promise<void>;
  /** Resolves to the exit code when the node ends by itself: 1, something fatal happened. */
  readonly done: Promise<number>;
}

/** Signatures remembered as valid: a few windows of votes of a large cluster. */
const SEEN_SIGNATURES_MAX = 8_192;
/** Decided blocks that the log keeps in memory for whoever is a little behind. */
const RECENT_BYTES_MAX = 16 << 20;

/**
 * What may stand between the parts: nothing, but in the tests that play an adversary around a real replica (test/lying-replica.ts). Code hands
 * it over; no flag, file or message of a replica leads here.
 */
export interface Between {
  core?(core: ReplicaCore, place: { readonly genesis: Genesis; readonly self: ReplicaId }): void;
  peers?(transport: PeerTransport): PeerTransport;
}

/** @throws KeyError, GuardError, StorageError, or a system error; each is the operator's to mend, and nothing has been changed. */
export async function startNode(config: NodeConfig, logger: Logger, between: Between = {}): Promise<RunningNode> {
  const loaded = loadGenesis(native, config.genesis);
  if ('refused' in loaded) throw new Error(`${loaded.file}: ${loaded.field}: ${loaded.problem}`);
  const { genesis, document } = loaded;
  const self = memberNamed(genesis, config.member);
  const epoch = asEpoch(0);
  const { secret, sealed } = await loadKey({ path: config.key, passphrase: passphraseSource(config.passphraseFile) });
  if (toHex(secret.publicKey) !== toHex(genesis.members[self]!.publicKey))
    throw new KeyError('key-not-member', { path: config.key, member: config.member });
  if (!sealed) logger.warn({ key: config.key }, 'the key is not sealed: whoever reads the file can vote in its name');

  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const guard = await openGuard({
    path: config.signState,
    secret,
    chainId: genesis.chainId,
    epoch,
    create: false,
    checkpointSigningBytes: (place) => checkpointSigningBytes(genesis.chainId, place),
  });
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
      chainId: genesis.chainId,
      floor: floor.sequence === 0 ? null : floor,
      retainBlocks: config.retainBlocks,
      recentBytesMax: RECENT_BYTES_MAX,
    });
    opened.pop(); // the log closes its store
    opened.push(() => log.close());

    const clock = new Clock();
    const lock = guard.state.lock === null ? null : certificateIn(guard.state.lock);
    const core = makeCore(
      { genesis, epoch, self, sha256 },
      { log: recovered, guard: { view: guard.state.view, led: guard.state.led, lock } },
      clock.now(),
    );
    between.core?.(core, { genesis, self });
    const metrics = new Metrics();
    opened.push(async () => metrics.close());
    const evidence = await EvidenceBook.open({
      directory: config.evidenceDir,
      genesis,
      crypto: native,
      meter: metrics,
      logger,
    });
    opened.push(() => evidence.settle());
    const verify: VerifyContext = {
      crypto: native,
      chainId: genesis.chainId,
      epoch,
      members: genesis.members,
      quorum: quorumsOf(genesis).quorum,
      protocol: genesis.protocol,
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
      head: recoveredHead(genesis, recovered),
    });
    metrics.watch(replica);
    const signStatement = (kind: string, payload: Uint8Array) => guard.signStatement(kind, payload);
    const gateway = new Gateway({
      replica,
      meter: metrics,
      publicKey: guard.publicKey,
      signStatement,
      limits: gatewayLimits(config),
    });
    const transport = await Transport.open({
      self,
      credentials: {
        crypto: native,
        chainId: genesis.chainId,
        epoch: () => epoch,
        members: () => genesis.members,
        key: guard.publicKey,
        signStatement,
      },
      listen: config.listen,
      peers: new Map([...config.peers].map(([name, url]) => [memberNamed(genesis, name), url])),
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
            node: { version: VERSION, startedAt: Date.now() },
            signer: clientSigner(SecretKey.generate(), genesis.chainId),
            evidence,
            onError: (error, route) => logger.error({ route, error: String(error) }, 'the HTTP door failed to answer'),
          });
    if (http !== null) opened.push(() => http.close());

    const done = new Promise<number>((resolve) => {
      replica.subscribe({ fatal: () => resolve(1) });
    });
    replica.start(between.peers?.(transport) ?? transport);
    const addresses = {
      listen: `ws://${config.listen.host}:${transport.port}`,
      http: http === null ? null : `http://${config.http?.host}:${http.port}`,
    };
    logger.info(
      { ...addresses, member: config.member, chain: toHex(genesis.chainId), height: replica.head().height },
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

export const VERSION = '0.1.0';

function memberNamed(genesis: Genesis, name: string): ReplicaId {
  const index = genesis.members.findIndex((member) => member.name === name);
  if (index < 0) throw new Error(`${name} is no member of this chain`);
  return asReplicaId(index);
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
