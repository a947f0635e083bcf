// One epoch of a replica: a core that goes on from the log, or from what the core before has left, and the loop around it. Begun when the process starts, and
// again at each end of an epoch, over the same log, connections and doors (EPO-12, EPO-22).

import { randomBytes } from 'node:crypto';
import { equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { GuardError } from '../keys/errors.ts';
import type { Guard, GuardState } from '../keys/guard.ts';
import { blockHash } from '../protocol/block.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeCertificate, isRefusal } from '../protocol/codec.ts';
import { makeCore, type Recovery, type ReplicaCore } from '../protocol/cores.ts';
import { type EpochDocument, genesisOf } from '../protocol/epoch/document.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Ledger } from '../protocol/ledger.ts';
import { bearsLies, quorumsOf } from '../protocol/modes.ts';
import type { Hash, Height, ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asView } from '../protocol/types.ts';
import { SeenSignatures, type VerifyContext } from '../protocol/verify.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { Clock } from './clock.ts';
import type { NodeConfig } from './config.ts';
import type { EvidenceBook } from './evidence.ts';
import type { Metrics } from './metrics.ts';
import type { PeerTransport } from './ports.ts';
import { Recorder } from './recorder/recorder.ts';
import { folderAt } from './recorder/segment-files.ts';
import type { Logger } from './replica.ts';
import { Replica } from './replica.ts';
import { version } from './version.ts';

/** Signatures remembered as valid: a few windows of votes of a large cluster. */
const SEEN_SIGNATURES_MAX = 8_192;

/**
 * What may stand between the parts: nothing, but in the tests that play an adversary around a real replica (test/lying-replica.ts). Code hands
 * it over; no flag, file or message of a replica leads here.
 */
export interface Between {
  core?(core: ReplicaCore, place: { readonly genesis: Genesis; readonly self: ReplicaId }): void;
  peers?(transport: PeerTransport): PeerTransport;
}

/** What outlives an epoch. */
export interface Surroundings {
  readonly config: NodeConfig;
  /** With the members of epoch 0. */
  readonly first: Genesis;
  readonly log: LogStore;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly evidence: EvidenceBook;
  /** Null: the operator wants none. */
  readonly recorder: Recorder | null;
  readonly logger: Logger;
  readonly between: Between;
}

export interface Beginning {
  readonly own: EpochDocument;
  /** What the core starts from: what the log holds, or what the term before left. */
  readonly from: Pick<Recovery, 'log' | 'inherited' | 'connected'>;
  /** Of the key that this replica has in this epoch. */
  readonly guard: Guard;
  /** The guard's, in this epoch: it need not have come so far before the replica is started. */
  readonly marks: GuardState;
  readonly self: ReplicaId;
}

export interface Term {
  readonly own: EpochDocument;
  readonly genesis: Genesis;
  readonly self: ReplicaId;
  readonly core: ReplicaCore;
  readonly replica: Replica;
}

/**
 * [EPO-12] Waits for nothing, and takes no turn before its replica is started.
 * @throws GuardError guard-memory-lost
 */
export function beginTerm(surroundings: Surroundings, { own, from, guard, marks: state, self }: Beginning): Term {
  const { config, first, log, clock, metrics, evidence, recorder, logger, between } = surroundings;
  const { sha256 } = native;
  const { epoch } = own;
  const genesis = genesisOf(first, own);
  const { quarantined, view, led, abstained, marks, request } = state;
  // [CFT-R-1] A promise that is forgotten, or what was accepted under one, would be missing in every quorum that this replica is in.
  if (!bearsLies(own.protocol) && (quarantined || abstained.view !== null))
    throw new GuardError('guard-memory-lost', { member: config.member, epoch });
  const lock = state.lock === null ? null : certificateIn(state.lock);
  const core = makeCore(
    { genesis, epoch, document: own, self, sha256 },
    {
      ...from,
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
  recorder?.enter({ epoch: own, self }, core);
  const verify: VerifyContext = {
    crypto: native,
    chainId: genesis.chainId,
    epoch,
    members: genesis.members,
    quorum: quorumsOf(own).quorum,
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
  log.retainAtLeast(genesis.parameters.retainBlocksMin);
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
    head: headOf(from, first),
  });
  return { own, genesis, self, core, replica };
}

/** One for all epochs; null: the operator wants none. */
export function recorderOf(
  { recorderMiB, recorderDir, member }: NodeConfig,
  beginning: Pick<Surroundings, 'first' | 'metrics' | 'logger'> &
    Pick<Beginning, 'own' | 'self'> & {
      /** The genesis document. */
      readonly document: Uint8Array;
    },
): Recorder | null {
  if (recorderMiB === 0) return null;
  const { first, document, own, self, metrics, logger } = beginning;
  return new Recorder({
    folder: folderAt(recorderDir),
    bytesMax: recorderMiB * 2 ** 20,
    chainId: first.chainId,
    genesisDocument: document,
    epoch: own,
    self,
    member,
    software: version(),
    startedAt: Date.now(),
    sha256: native.sha256,
    meter: metrics,
    logger,
  });
}

function certificateIn(bytes: Uint8Array): Certificate {
  const certificate = decodeCertificate(bytes);
  if (isRefusal(certificate))
    throw new Error(`the sign-state file holds a malformed certificate: ${certificate.refused}`);
  return certificate;
}

function headOf(
  { log: recovered, inherited }: Beginning['from'],
  genesis: Genesis,
): { height: Height; hash: Hash; certificate: Certificate | null } {
  const { head } = inherited?.ledger ?? new Ledger({ sha256: native.sha256, genesis, epoch: asEpoch(0) });
  const here = { height: head.header.height, hash: asHash(head.hash), certificate: null };
  if (recovered === null) return here;
  const certified = recovered.decided.findLast((block) => block.certificate !== null)?.certificate ?? null;
  const certificate = certified === null ? null : certificateIn(certified);
  const last = recovered.decided.at(-1);
  if (last !== undefined) return { height: last.height, hash: last.hash, certificate };
  if (recovered.checkpoint !== null) {
    const { height, header } = recovered.checkpoint;
    return { height, hash: blockHash(native.sha256, header), certificate };
  }
  return here;
}
