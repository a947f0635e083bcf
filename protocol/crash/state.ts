// What every crash-fault replica knows, whichever protocol it runs: the decided part and what serves it. What is undecided, and who leads, is
// the protocol's own. Nothing here is durable by itself.

import type { Block, Sha256 } from '../block.ts';
import type { Checkpoints } from '../checkpoints.ts';
import type { Genesis, Parameters } from '../genesis.ts';
import type { Extension, Ledger } from '../ledger.ts';
import type { ReplicaMessage, ReplicaPledge, Status } from '../messages.ts';
import type { Outbox } from '../outbox.ts';
import type { Pool } from '../pool.ts';
import type { Quorums } from '../quorum.ts';
import type { Stalls } from '../stalls.ts';
import type { CatchUp } from '../transfer.ts';
import type { Epoch, Hash, Height, Hex, Millis, ReplicaId } from '../types.ts';

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

  // ---- pool and timers
  readonly pool: Pool;
  readonly peers: Map<ReplicaId, Peer>;
  decidedAt: Millis;
  heartbeatAt: Millis;
  resentAt: Millis;
  sweptAt: Millis;
  handedOnAt: Millis;
  /** Proposals wait for this instead of a timer: a bundle came, or the chain moved. */
  mayPropose: boolean;
}
