// What every crash-fault replica knows, whichever protocol it runs: the decided part and what serves it. What is undecided, and who leads, is
// the protocol's own. Nothing here is durable by itself.

import { assert } from '../assert.ts';
import type { Block, Sha256 } from '../block.ts';
import { Checkpoints } from '../checkpoints.ts';
import type { CoreOptions } from '../cores.ts';
import type { Genesis, Parameters } from '../genesis.ts';
import { type Extension, Ledger } from '../ledger.ts';
import type { ReplicaMessage, ReplicaPledge, Status } from '../messages.ts';
import { checkpointQuorum, quorumsOf } from '../modes.ts';
import { Outbox } from '../outbox.ts';
import { Pool } from '../pool.ts';
import type { Quorums } from '../quorum.ts';
import { Stalls } from '../stalls.ts';
import { CatchUp } from '../transfer.ts';
import type { Epoch, Hash, Height, Hex, Millis, ReplicaId } from '../types.ts';
import { asHeight } from '../types.ts';
import type { HandOver } from './hand-over.ts';
import { Reads } from './reads.ts';

export interface Peer {
  connected: boolean;
  heardAt: Millis | null;
  /** The kind of what was heard last. */
  heard: string | null;
  status: Status | null;
}

export interface CrashState {
  // ---- who and where, constant in an epoch
  readonly genesis: Genesis;
  readonly parameters: Parameters;
  readonly epoch: Epoch;
  readonly self: ReplicaId;
  readonly quorums: Quorums;
  readonly sha256: Sha256;

  // ---- time and the outbox of the running step
  now: Millis;
  /** How far the wall clock is ahead of `now`: what stands in blocks is the wall's time, everything else is `now`'s. */
  wallAheadMs: number;
  /** What held this replica up. */
  readonly stalls: Stalls;
  out: Outbox<ReplicaMessage, ReplicaPledge>;

  // ---- decided
  readonly ledger: Ledger;
  readonly checkpoints: Checkpoints;
  readonly catchUp: CatchUp;
  /** A decided block proves itself by who serves it: there is no certificate to run ahead with. */
  readonly headCertificate: null;
  /** The lowest height that the log still serves. */
  lowest: Height;

  // ---- undecided
  /** Values and blocks above the decided head, by hash: proposed, accepted, fetched or recovered. */
  readonly known: Map<Hex, { readonly block: Block; stored: boolean }>;
  /**
   * A leader's guess of the blocks above the head, one for each slot that it has proposed, without a gap: what the pool is picked against.
   * Right as long as what it proposed is what is chosen; else it is thrown away.
   */
  chain: Extension[];
  /** The values that the blocks of `chain` are made of. */
  chainOf: Hash[];
  /** Of a leader that gives its place away: set until it has, or gives up. Nothing new is proposed meanwhile. */
  handOver: HandOver | null;

  // ---- pool and timers
  readonly pool: Pool;
  readonly peers: Map<ReplicaId, Peer>;
  /** Reads of users here, and of a leader's followers. */
  readonly reads: Reads;
  decidedAt: Millis;
  heartbeatAt: Millis;
  resentAt: Millis;
  /** When there was last nothing to say again: what is said for the first time after that is not said twice. */
  idleAt: Millis;
  sweptAt: Millis;
  handedOnAt: Millis;
  /** Proposals wait for this instead of a timer: a bundle came, or the chain moved. */
  mayPropose: boolean;
}

export function newState(
  { genesis, epoch, document, self, sha256 }: CoreOptions,
  inherited: Ledger | null,
  now: Millis,
  actions: ConstructorParameters<typeof CatchUp>[0],
): CrashState {
  const quorums = quorumsOf(genesis);
  const ledger = inherited ?? new Ledger({ sha256, genesis, epoch, document });
  assert(ledger.document.epoch === epoch, 'a ledger of this epoch');
  const { checkpointInterval } = genesis.parameters;
  const votes = { ...quorums, quorum: checkpointQuorum(genesis, quorums.quorum) };
  const peers = genesis.members.filter(({ id }) => id !== self);
  return {
    genesis,
    parameters: genesis.parameters,
    epoch,
    self,
    quorums,
    sha256,
    now,
    wallAheadMs: 0,
    stalls: new Stalls(now),
    out: new Outbox(),
    ledger,
    checkpoints: new Checkpoints(votes, checkpointInterval, ledger.document.start.height),
    catchUp: new CatchUp(actions),
    headCertificate: null,
    lowest: asHeight(1),
    known: new Map(),
    chain: [],
    chainOf: [],
    handOver: null,
    pool: new Pool(),
    peers: new Map(peers.map(({ id }) => [id, { connected: false, heardAt: null, heard: null, status: null }])),
    reads: new Reads(),
    decidedAt: now,
    heartbeatAt: now,
    resentAt: now,
    idleAt: now,
    sweptAt: now,
    handedOnAt: now,
    mayPropose: true,
  };
}

export function peerOf({ peers }: CrashState, replica: ReplicaId): Peer {
  let peer = peers.get(replica);
  if (peer === undefined) {
    peer = { connected: false, heardAt: null, heard: null, status: null };
    peers.set(replica, peer);
  }
  return peer;
}

/** Replicas that have said something within `ms`, this one included. */
export function heardWithin({ peers, now }: CrashState, ms: number): number {
  let heard = 1;
  for (const { connected, heardAt } of peers.values())
    if (connected && heardAt !== null && now - heardAt <= ms) heard += 1;
  return heard;
}

/** What a heartbeat says. */
export function statusOf(s: CrashState, { view, active }: Pick<Status, 'view' | 'active'>): Status {
  const { epoch, ledger, checkpoints, lowest } = s;
  const { height, head } = ledger;
  return { kind: 'status', epoch, view, active, height, hash: head.hash, stable: checkpoints.stableHeight, lowest };
}
