// What a PBFT replica knows: one object, changed only by the rules in this folder. Nothing here is durable by itself; what must
// survive a crash is named in hard-state.ts, in the log's records and in the guard's marks.

import { toHex } from '../../crypto/bytes.ts';
import type { Block, Sha256 } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import type { Checkpoints } from '../checkpoints.ts';
import type { Genesis, Parameters } from '../genesis.ts';
import type { Extension, Ledger } from '../ledger.ts';
import type { NewView, PbftMessage, PbftPledge, PrePrepare, Status, Verified, ViewChange, Vote } from '../messages.ts';
import type { Outbox } from '../outbox.ts';
import type { Pool } from '../pool.ts';
import type { Quorums } from '../quorum.ts';
import type { CatchUp } from '../transfer.ts';
import type { Epoch, Hash, Height, Hex, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asReplicaId, plus } from '../types.ts';
import type { Tally, VoteBox } from '../votes.ts';
import type { OwnWords } from './own-words.ts';
import type { Pace } from './pace.ts';
import type { Quarantine } from './quarantine.ts';
import type { Stalls } from './stalls.ts';

export interface Peer {
  connected: boolean;
  heardAt: Millis | null;
  /** The kind of what was heard last. */
  heard: string | null;
  status: Status | null;
  /** When it was last shown the new-view of our view. */
  shownNewViewAt: Millis | null;
  /** When it was last told this replica's standing. */
  standingShownAt: Millis | null;
}

/** A block above the decided head, by hash: proposed, fetched or recovered. */
export interface KnownBlock {
  readonly block: Block;
  /** Its bytes are in the log, or in a record on the way there. */
  stored: boolean;
}

/** The certified block from which a view starts. */
export interface Base {
  /** 'decided': it carries a commit certificate. 'prepared': it must be voted for again (PBFT-NV-3). */
  readonly kind: 'decided' | 'prepared';
  readonly certificate: Certificate;
}

export interface State {
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
  /** How far it has been set and is not followed yet: one of the two times is wrong. */
  wallLeftMs: number;
  out: Outbox<PbftMessage, PbftPledge>;

  // ---- decided
  readonly ledger: Ledger;
  /** The highest commit certificate seen; may run ahead of the ledger while blocks are missing. Never goes back. */
  headCertificate: Certificate | null;
  readonly checkpoints: Checkpoints;
  /** The lowest height that the log still serves. */
  lowest: Height;
  readonly catchUp: CatchUp;

  // ---- the view
  /** Never goes back. Active: the view this replica votes in. Changing: the view it asks for; it votes in none. */
  view: View;
  mode: 'active' | 'changing';
  /** The guard remembers that this replica leads `view`, and it has not restarted since. */
  leading: boolean;
  /** The new-view that opened `view`; null in view 0 and between views. */
  newView: Verified<NewView> | null;
  /** Where the view starts, until the chain reaches it; null afterwards. */
  base: Base | null;

  // ---- undecided
  /** Accepted in this view, by rising height from the decided head + 1, each extending the one before. */
  chain: Extension[];
  /** What was accepted in this view is not what was decided: this replica leaves the view before it votes again (PBFT-PP-9). Of an active view. */
  contradicted: boolean;
  readonly known: Map<Hex, KnownBlock>;
  /** Proposals of this view that are not yet accepted, by height: they came early, or wait for their time. */
  readonly proposals: Map<Height, Verified<PrePrepare>>;
  /** What the primary proposed in this view, by height, to notice a second one. */
  readonly proposed: Map<Height, Verified<PrePrepare>>;
  /** What the primary of the view that was left last had voted for by proposing it, for the certificates that others show of that view. */
  proposedBefore: readonly Verified<Vote>[];
  readonly votes: VoteBox;
  /** Heights of this view for which a commit was pledged. */
  readonly committed: Set<Height>;
  /** When the blocks of this view were accepted and prepared here: for explain.ts and pace.ts. */
  readonly phases: Map<Height, { readonly acceptedAt: Millis; preparedAt: Millis | null }>;
  /** This replica's own signed votes of this view, by height, to say again. */
  readonly pledged: Map<Height, Verified<Vote>[]>;
  /** The highest prepared certificate ever held, by view, then height. The guard's file holds it. Never goes back. */
  prepared: Certificate | null;

  /** While what this key has signed is not known: nothing is pledged, and the view is followed, never left by itself. Then null for good. */
  quarantine: Quarantine | null;
  readonly ownWords: OwnWords;

  // ---- view change
  readonly viewChanges: Tally<Verified<ViewChange>>;
  ownViewChange: Verified<ViewChange> | null;
  /** Replicas that ask for a later view alone: since when in this view, and how often the others have followed them. */
  readonly lonely: Map<ReplicaId, { since: Millis | null; followed: number }>;
  newViewPledged: boolean;
  /** When a quorum had asked for `view`: from then on the new primary is timed. */
  quorumAskedAt: Millis | null;
  /** Views failed in a row; the timeout is T doubled as often. */
  backoff: number;
  /** When the back-off last shrank. */
  relaxedAt: Millis;
  viewChangeCount: number;
  /** Whom this replica has given evidence against since its start: what else they sign twice is not worth checking a large message for. */
  readonly accused: Set<ReplicaId>;
  /** Messages of views this replica has not entered yet, by sender. */
  readonly early: Map<ReplicaId, Verified<PbftMessage>[]>;

  // ---- pool and timers
  readonly pool: Pool;
  /** What is held against the primary. */
  readonly pace: Pace;
  /** What is held against this replica. */
  readonly stalls: Stalls;
  readonly peers: Map<ReplicaId, Peer>;
  viewSince: Millis;
  primaryHeardAt: Millis;
  decidedAt: Millis;
  /** When the chain last went from empty to not empty. */
  waitingSince: Millis;
  heartbeatAt: Millis;
  resentAt: Millis;
  sweptAt: Millis;
  requestsCheckedAt: Millis;
  handedOnAt: Millis;
  /** Proposals wait for this instead of a timer: a bundle came, or the chain moved. */
  mayPropose: boolean;
}

export const primaryOf = (s: Pick<State, 'genesis'>, view: View): ReplicaId =>
  asReplicaId(view % s.genesis.members.length);

/** The time that a block is given, and held against. */
export const wallNow = (s: State): Millis => plus.millis(s.now, s.wallAheadMs);

export function peerOf(s: State, replica: ReplicaId): Peer {
  let peer = s.peers.get(replica);
  if (peer === undefined) {
    peer = {
      connected: false,
      heardAt: null,
      heard: null,
      status: null,
      shownNewViewAt: null,
      standingShownAt: null,
    };
    s.peers.set(replica, peer);
  }
  return peer;
}

export const isPrimary = (s: State): boolean => primaryOf(s, s.view) === s.self;

export const hexOf = (hash: Hash): Hex => toHex(hash) as Hex; // toHex of 32 bytes is what Hex means

/** The last block this replica accepted in its view, or the decided head. */
export function tip(s: State): { readonly height: Height; readonly hash: Hash } {
  const last = s.chain.at(-1)?.block;
  return last !== undefined
    ? { height: last.header.height, hash: last.hash }
    : { height: s.ledger.height, hash: s.ledger.head.hash };
}

/** The accepted block at a height above the decided head. */
export const acceptedAt = (s: State, height: Height): Extension | undefined => s.chain[height - s.ledger.height - 1];

/** [PBFT-VC-4] T, doubled with each view that failed in a row, at most 256 times. */
export const timeoutOf = (s: State): number => s.parameters.viewTimeoutMs * 2 ** Math.min(s.backoff, 8);

/** Heights above this are not looked at: votes and proposals for them are bounded by it. */
export const horizonOf = (s: State): Height => horizonAbove(s, s.ledger.height);

/** [REC-3] The same above any decided height: no honest replica votes for what lies further above its own. */
export const horizonAbove = (s: Pick<State, 'parameters'>, height: Height): Height =>
  asHeight(height + 4 * s.parameters.window);

/** Whether enough peers are connected for a quorum with this replica: timers that blame others run only then (a cut-off replica blames itself first). */
export function seesQuorum(s: State): boolean {
  let connected = 1;
  for (const peer of s.peers.values()) if (peer.connected) connected += 1;
  return connected >= s.quorums.quorum;
}
