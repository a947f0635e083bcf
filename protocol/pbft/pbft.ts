// PBFT as a core: Castro and Liskov, OSDI 1999, over chained blocks (ADR 1). One switch; each arm is a rule of docs/spec.md by name.
// [GEN-2] Everything it knows comes through `step` and the constructor; nothing here asks the world.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { assert, unreachable } from '../assert.ts';
import type { SignedBundle } from '../bundle.ts';
import { Checkpoints } from '../checkpoints.ts';
import type { BundleExplanation, Core, Evidence, Explanation, HeightExplanation, Input, Ready } from '../core.ts';
import { Ledger } from '../ledger.ts';
import type { PbftMessage, PbftPledge, PrePrepare, Status, Verified, Vote } from '../messages.ts';
import { asVerified } from '../messages.ts';
import { Outbox } from '../outbox.ts';
import { Pool } from '../pool.ts';
import { byzantineQuorums } from '../quorum.ts';
import type { SnapshotRefusal } from '../snapshot.ts';
import { Stalls, stalledMs } from '../stalls.ts';
import { loadSnapshot, snapshotOf } from '../state-snapshot.ts';
import { CatchUp } from '../transfer.ts';
import type { Hash, Height, Millis, ReplicaId } from '../types.ts';
import { asHeight, asMillis, asView } from '../types.ts';
import { Tally, VoteBox } from '../votes.ts';
import { isOtherNewView, isOtherViewChange } from './accuse.ts';
import { decideFetched, noteCommitCertificate } from './chain.ts';
import { explain } from './explain.ts';
import { explainBundle, explainHeight } from './explain-place.ts';
import { installState } from './install.ts';
import { enterView, onNewView, reachBase, reachDecided } from './new-view.ts';
import {
  acceptProposals,
  decideCovered,
  noticeCommitQuorums,
  onPrePrepare,
  onVote,
  prepareAccepted,
  propose,
} from './normal-case.ts';
import { Pace } from './pace.ts';
import { onFetchStanding, onReadmitted, onStanding } from './quarantine.ts';
import type { PbftOptions, PbftRecovery } from './recover.ts';
import { recover } from './recover.ts';
import type { State } from './state.ts';
import { horizonOf, isPrimary, peerOf, primaryOf } from './state.ts';
import { blameSelf, keepAccounts, onHandOver, onTime, sayAgainTo, statusOf, wakeAt } from './timers.ts';
import {
  followPrimary,
  followViewChanges,
  leaveContradicted,
  leaveGuiltyPrimary,
  onRefusedPledge,
  onViewChange,
  showNewView,
} from './view-change.ts';

export type { PbftOptions, PbftRecovery } from './recover.ts';

export class Pbft implements Core<PbftMessage, PbftPledge> {
  readonly #s: State;
  #wakeAt: Millis;

  /** From what the log and the guard gave back; empty ones for a new chain. Throws where they contradict each other. */
  constructor(options: PbftOptions, recovery: PbftRecovery, now: Millis) {
    const s = newState(options, recovery.inherited?.ledger ?? null, now);
    this.#s = s;
    recover(s, recovery);
    this.#wakeAt = now;
  }

  step(inputs: readonly Input<PbftMessage, PbftPledge>[], now: Millis): Ready<PbftMessage, PbftPledge> {
    const s = this.#s;
    assert(now >= s.now, 'time never runs back');
    // [STALL-1] Called late: this replica was the one that stalled, and what it did not hear meanwhile is nobody's fault (adversary's book, A32).
    const late = now - this.#wakeAt;
    s.now = now;
    keepAccounts(s);
    const loopMs = stalledMs(inputs, 'loop');
    blameSelf(s, 'loop', late > s.parameters.heartbeatMs ? Math.max(late, loopMs) : loopMs);
    blameSelf(s, 'disk', stalledMs(inputs, 'disk'));
    for (const input of inputs) if (s.ledger.ended === null) this.#take(input);
    for (const go of [
      leaveGuiltyPrimary,
      tick,
      leaveContradicted,
      followViewChanges,
      followPrimary,
      advance,
      onTime,
      propose,
    ])
      if (s.ledger.ended === null) go(s); // EPO-12
    const out = s.out;
    s.out = new Outbox();
    s.out.muted = s.quarantine !== null;
    this.#wakeAt = wakeAt(s);
    return out.ready(this.#wakeAt);
  }

  get found(): readonly Evidence<PbftMessage>[] {
    return this.#s.out.evidence;
  }

  get successor(): Ledger | null {
    return this.#s.ledger.successor;
  }

  #take(input: Input<PbftMessage, PbftPledge>): void {
    const s = this.#s;
    switch (input.type) {
      case 'message':
        return this.#onMessage(input.signed);
      case 'own':
        return this.#onOwn(input.signed);
      case 'refused':
        return onRefusedPledge(s, input.pledge);
      case 'read': // CFT-RP-4: of a quorum of heads whoever asks can tell
        s.out.reads.push({ id: input.id, refused: 'reads-unsupported' });
        return;
      case 'bundle':
        s.out.admissions.push({ digest: input.bundle.digest, code: s.pool.admit(input.bundle, s) });
        s.mayPropose = true;
        return;
      case 'connected':
        return this.#onConnected(input.peer);
      case 'disconnected':
        peerOf(s, input.peer).connected = false;
        return;
      case 'hand-over':
        return onHandOver(s);
      case 'retained':
        s.lowest = input.lowest;
        return;
      case 'leading':
        if (input.view === s.view && isPrimary(s)) s.leading = true; // PBFT-PP-6
        return;
      case 'readmitted':
        return onReadmitted(s, input);
      case 'stalled':
        return; // before everything else of the step
      case 'wall': // STALL-5
        s.wallAheadMs = input.aheadMs;
        s.wallLeftMs = input.leftMs;
        return;
      default:
        return unreachable(input);
    }
  }

  #onConnected(replica: ReplicaId): void {
    const s = this.#s;
    const peer = peerOf(s, replica);
    peer.connected = true;
    // It has proved its key: that is a word of it.
    peer.heardAt = s.now;
    peer.heard = 'handshake';
    // It had no way to be heard before.
    if (replica === primaryOf(s, s.view)) s.primaryHeardAt = s.now;
    s.out.say(replica, statusOf(s));
    sayAgainTo(s, replica);
  }

  #onMessage(signed: Verified<PbftMessage>): void {
    const s = this.#s;
    const { sender, message } = signed;
    if (sender === s.self) return;
    const peer = peerOf(s, sender);
    peer.heardAt = s.now;
    peer.heard = message.kind;
    if ('epoch' in message && message.epoch !== s.epoch) return this.#ofOtherEpoch(signed);
    switch (message.kind) {
      case 'pre-prepare':
        if (sender === primaryOf(s, s.view)) s.primaryHeardAt = s.now;
        return onPrePrepare(s, with_(signed, message));
      case 'prepare':
      case 'commit':
        return onVote(s, with_(signed, message));
      case 'view-change':
        return onViewChange(s, with_(signed, message));
      case 'new-view': {
        const before = s.view;
        onNewView(s, with_(signed, message));
        return s.view !== before || s.newView?.message === message ? this.#replayEarly() : undefined;
      }
      case 'status':
        peer.status = message;
        if (sender === primaryOf(s, s.view) && message.view === s.view && message.active) s.primaryHeardAt = s.now;
        return showNewView(s, sender);
      case 'forward':
        for (const bundle of message.bundles) s.pool.admit(bundle, s);
        s.mayPropose = true;
        return;
      case 'checkpoint':
        return s.checkpoints.onVote(s, with_(signed, message));
      case 'blocks':
        return s.catchUp.onBlocks(s, with_(signed, message));
      case 'block-data':
        return s.catchUp.onBlockData(s, with_(signed, message));
      case 'checkpoint-proof':
        return s.catchUp.onCheckpointProof(s, with_(signed, message));
      case 'state-chunk':
        return s.catchUp.onStateChunk(s, with_(signed, message));
      case 'fetch-standing':
        return onFetchStanding(s, with_(signed, message));
      case 'standing':
        return onStanding(s, with_(signed, message));
      case 'fetch-blocks':
      case 'fetch-block':
      case 'fetch-checkpoint':
      case 'fetch-state':
        // Answered from the log, outside the core: they need no state of it.
        return;
      default:
        return unreachable(message);
    }
  }

  /**
   * [EPO-13] Who is ahead or behind is no liar: it is passed over, but for the height in its status, or nobody would learn that he is behind.
   * Its views are of another epoch, and a checkpoint of another epoch cannot be checked here.
   */
  #ofOtherEpoch({ sender, message }: Verified<PbftMessage>): void {
    if (message.kind !== 'status') return;
    peerOf(this.#s, sender).status = { ...message, view: asView(0), active: false, stable: asHeight(0) };
  }

  /** This replica's own pledge: durable and signed, so it counts from now on. */
  #onOwn(signed: Verified<PbftPledge>): void {
    const s = this.#s;
    const { message } = signed;
    assert(signed.sender === s.self, 'an own pledge is signed by this replica');
    switch (message.kind) {
      case 'prepare':
      case 'commit': {
        if (message.view !== s.view || s.mode !== 'active' || message.height <= s.ledger.height) return;
        s.pledged.set(message.height, [...(s.pledged.get(message.height) ?? []), with_(signed, message)]);
        s.votes.add(message.kind, message.height, message.hash, s.self, signed.signature);
        return;
      }
      case 'view-change':
        if (message.view !== s.view || s.mode !== 'changing') return;
        s.ownViewChange = with_(signed, message);
        s.viewChanges.set(s.self, String(message.view), s.ownViewChange);
        return;
      case 'new-view':
        if (message.view !== s.view || s.mode !== 'changing') return;
        enterView(s, with_(signed, message));
        return this.#replayEarly();
      case 'checkpoint':
        return s.checkpoints.onVote(s, with_(signed, message));
      default:
        return unreachable(message);
    }
  }

  /** Messages of the view just entered that came before it. */
  #replayEarly(): void {
    const s = this.#s;
    const kept = [...s.early.values()].flat();
    s.early.clear();
    for (const signed of kept) this.#onMessage(signed);
  }

  wants(message: PbftMessage, sender: ReplicaId, others?: ReadonlySet<ReplicaId>): boolean {
    const s = this.#s;
    if (s.ledger.ended !== null) return false;
    // Other members may have signed it.
    if ('epoch' in message && message.epoch !== s.epoch) return message.kind === 'status';
    switch (message.kind) {
      case 'prepare':
      case 'commit':
        return wantsVote(s, message, sender, others);
      case 'pre-prepare':
        return wantsProposal(s, message, sender);
      case 'checkpoint':
        return s.checkpoints.wants(message);
      case 'view-change':
        return (
          message.view > (s.viewChanges.get(sender)?.message.view ?? -1) ||
          (!s.accused.has(sender) && isOtherViewChange(s, message, sender))
        );
      case 'new-view':
        if (message.view !== s.view) return message.view > s.view;
        return s.mode === 'changing' || (!s.accused.has(sender) && isOtherNewView(s, message, sender));
      case 'blocks':
      case 'checkpoint-proof':
        return s.catchUp.awaits(message.kind, sender);
      case 'state-chunk':
        return s.catchUp.awaitsChunk(message.chunk, sender);
      case 'block-data':
        return s.catchUp.awaitsBlock(message.block.hash);
      case 'standing':
        return s.quarantine !== null && !s.quarantine.answered.has(sender);
      default:
        return true;
    }
  }

  /** [LOOP-1] */
  presses(message: PbftMessage, sender: ReplicaId, others: ReadonlySet<ReplicaId>): boolean {
    const s = this.#s;
    switch (message.kind) {
      case 'prepare':
      case 'commit':
        return s.mode !== 'active' || message.view !== s.view || mayComplete(s, message, sender, others);
      case 'status':
        return tellsNews(s, message, sender);
      default:
        return true;
    }
  }

  pooled(digest: Hash): SignedBundle | undefined {
    return this.#s.pool.get(digest);
  }

  explain(): Explanation {
    return explain(this.#s);
  }

  explainHeight(height: Height): HeightExplanation {
    return explainHeight(this.#s, height);
  }

  explainBundle(digest: Hash): BundleExplanation {
    return explainBundle(this.#s, digest);
  }

  snapshot(): Bytes;
  snapshot(bytesMax: number): Bytes | null;
  snapshot(bytesMax = Number.POSITIVE_INFINITY): Bytes | null {
    return snapshotOf(this.#s, { wakeAt: this.#wakeAt }, bytesMax);
  }

  /**
   * [FLR-1] The core whose snapshot this is, of a replica with these options; or why these bytes are none of this software. They may come from
   * anywhere: for looking at what happened, never for a replica that votes.
   */
  static restore(options: PbftOptions, snapshot: Bytes): Pbft | SnapshotRefusal {
    const nothing: PbftRecovery = { log: null, guard: { view: asView(0), led: null, lock: null } };
    const core = new Pbft(options, nothing, asMillis(0));
    const wakeAt = loadSnapshot(core.#s, snapshot);
    if (typeof wakeAt !== 'number') return wakeAt;
    core.#wakeAt = wakeAt;
    return core;
  }
}

const tick = (s: State): void => s.catchUp.tick(s);

/** Reaches the base, accepts proposals, prepares, decides: as far as it goes. */
function advance(s: State): void {
  if (s.mode === 'active') {
    reachBase(s);
    if (s.base === null) acceptProposals(s);
    prepareAccepted(s);
    noticeCommitQuorums(s);
  }
  decideCovered(s);
  if (s.ledger.ended !== null) return;
  reachDecided(s);
  if (s.ledger.ended === null) leaveContradicted(s);
}

/** Up to a quorum, and no vote of what is over; but whatever contradicts one that was counted (ACC-1). */
function wantsVote(
  s: State,
  { kind, view, height, hash }: Vote,
  sender: ReplicaId,
  others?: ReadonlySet<ReplicaId>,
): boolean {
  if (view !== s.view) return view > s.view;
  const counted = s.votes.of(kind, height, sender);
  if (counted !== undefined && !equalBytes(counted.hash, hash)) return true;
  if (height <= s.ledger.height || (kind === 'prepare' && s.committed.has(height))) return false;
  return s.votes.count(kind, height, hash, others ?? nobody) < s.quorums.quorum;
}

const nobody: ReadonlySet<ReplicaId> = new Set();

/** A quorum with what is counted, and with those of `others`; or a contradiction to what is counted. */
function mayComplete(s: State, vote: Vote, sender: ReplicaId, others: ReadonlySet<ReplicaId>): boolean {
  const { kind, height, hash } = vote;
  const counted = s.votes.of(kind, height, sender);
  if (counted !== undefined) return !equalBytes(counted.hash, hash);
  const count = s.votes.count(kind, height, hash, others) + (others.has(sender) ? 0 : 1);
  return count >= s.quorums.quorum;
}

/** Of a peer that is where it was, or behind, the next step hears soon enough. */
function tellsNews(s: State, { epoch, view, active, height, stable, lowest }: Status, sender: ReplicaId): boolean {
  const known = s.peers.get(sender)?.status;
  if (known === null || known === undefined || s.mode !== 'active' || s.quarantine !== null) return true;
  const isAhead = height > s.ledger.height || stable > s.checkpoints.stableHeight;
  return epoch !== s.epoch || view !== s.view || active !== known.active || lowest !== known.lowest || isAhead;
}

/** A proposal is dear to check: only its view's primary's, near enough, and not one that is here already. */
function wantsProposal(s: State, { view, block }: PrePrepare, sender: ReplicaId): boolean {
  const { height } = block.header;
  if (view < s.view || height <= s.ledger.height || sender === s.self) return false;
  if (view > s.view || s.mode !== 'active') return true;
  const known = s.proposed.get(height);
  return height <= horizonOf(s) && (known === undefined || !equalBytes(known.message.block.hash, block.hash));
}

/** The same signed message with its type narrowed: TypeScript does not narrow a type parameter by a field of it. */
function with_<M extends PbftMessage>(signed: Verified<PbftMessage>, message: M): Verified<M> {
  assert(signed.message === message, 'one message');
  return asVerified({ ...signed, message });
}

function newState(
  { genesis, epoch, document, self, sha256 }: PbftOptions,
  inherited: Ledger | null,
  now: Millis,
): State {
  const quorums = byzantineQuorums(genesis.members.length);
  const ledger = inherited ?? new Ledger({ sha256, genesis, epoch, document });
  assert(ledger.document.epoch === epoch, 'a ledger of this epoch');
  const s: State = {
    genesis,
    parameters: genesis.parameters,
    epoch,
    self,
    quorums,
    sha256,
    now,
    wallAheadMs: 0,
    wallLeftMs: 0,
    out: new Outbox(),
    ledger,
    headCertificate: null,
    checkpoints: new Checkpoints(quorums, genesis.parameters.checkpointInterval, ledger.document.start.height),
    catchUp: new CatchUp({
      noteCertificate: (certificate) => noteCommitCertificate(s, certificate),
      decideFetched: (block, certificate) => decideFetched(s, block, certificate),
      install: (state) => installState(s, state),
    }),
    lowest: asHeight(1),
    view: asView(0),
    mode: 'active',
    leading: false,
    newView: null,
    base: null,
    chain: [],
    contradicted: false,
    known: new Map(),
    proposals: new Map(),
    proposed: new Map(),
    proposedBefore: [],
    votes: new VoteBox(epoch, quorums),
    committed: new Set(),
    phases: new Map(),
    pledged: new Map(),
    prepared: null,
    quarantine: null,
    ownWords: { givenUp: -1, view: 0, height: 0 },
    viewChanges: new Tally(),
    ownViewChange: null,
    lonely: new Map(),
    newViewPledged: false,
    quorumAskedAt: null,
    backoff: 0,
    relaxedAt: now,
    viewChangeCount: 0,
    accused: new Set(),
    early: new Map(),
    pool: new Pool(),
    pace: new Pace(now),
    stalls: new Stalls(now),
    peers: new Map(),
    viewSince: now,
    primaryHeardAt: now,
    decidedAt: now,
    waitingSince: now,
    heartbeatAt: now,
    resentAt: now,
    sweptAt: now,
    requestsCheckedAt: now,
    handedOnAt: now,
    mayPropose: true,
  };
  for (const member of genesis.members) if (member.id !== self) peerOf(s, member.id);
  return s;
}
