// What the crash-fault protocols share: one class that keeps the decided part, the pool, the checkpoints, catch-up and the heartbeats, by the
// very code that PBFT uses, and leaves to each protocol how a value is chosen for the next slot. Slots are heights (ADR 9).

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { assert, unreachable } from '../assert.ts';
import type { Block, BlockHeader } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import { encodeBody } from '../codec.ts';
import type {
  BundleExplanation,
  Core,
  Evidence,
  Explanation,
  HeightExplanation,
  Input,
  Ready,
  Stall,
  Wait,
} from '../core.ts';
import type { CoreOptions, Recovery } from '../cores.ts';
import type { CertifiedState } from '../deliver.ts';
import { adoptState, deliver, endEpoch } from '../deliver.ts';
import { handOn } from '../forward.ts';
import type { Extension, Ledger } from '../ledger.ts';
import type { ReplicaMessage, ReplicaPledge, Verified } from '../messages.ts';
import { Outbox } from '../outbox.ts';
import { decoded, hardStateIn, inherit, isOfOtherEpoch, recoverLedger } from '../restart.ts';
import type { SnapshotRefusal } from '../snapshot.ts';
import { stalledMs } from '../stalls.ts';
import { loadSnapshot, snapshotOf } from '../state-snapshot.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asReplicaId, asView, hexOf, plus } from '../types.ts';
import { explainBundle, explainHeight, explainOf } from './explain.ts';
import { beginHandOver, handOver, type Lead } from './hand-over.ts';
import { with_ } from './narrow.ts';
import type { Reading } from './reads.ts';
import type { CrashState, Peer } from './state.ts';
import { heardWithin, newState, peerOf, statusOf } from './state.ts';
import { chained, makeValue } from './value.ts';

export abstract class CrashCore implements Core<ReplicaMessage, ReplicaPledge> {
  protected readonly s: CrashState;
  #wakeAt: Millis;

  constructor(options: CoreOptions, { inherited }: Recovery, now: Millis) {
    this.s = newState(options, inherited?.ledger ?? null, now, {
      noteCertificate: () => {},
      decideFetched: (block) => this.#decideFetched(block),
      install: (state) => this.#install(state),
    });
    this.#wakeAt = now;
  }

  // ---- what each protocol is ----------------------------------------------------------------------------------------

  /** The ballot or term that this replica is in. Never runs back, not even over a restart. Said in its status. */
  protected abstract get ballot(): View;
  /** Whether this replica leads, or hears who does. Said in its status. */
  protected abstract get active(): boolean;
  protected abstract get leads(): boolean;
  /** How this leader gives its place away; null: it is none. */
  protected get lead(): Lead | null {
    return null;
  }
  /** Whom bundles are handed on to; null: nobody is known, or this replica itself. */
  protected abstract get forwardTo(): ReplicaId | null;
  /** Whether a message of the protocol's own is worth checking. */
  protected abstract wantsOwn(message: ReplicaMessage, sender: ReplicaId): boolean;
  /** A message of the protocol's own kinds, or a status. */
  protected abstract onOwnKind(signed: Verified<ReplicaMessage>): void;
  /** This replica's own pledge: durable and signed. */
  protected abstract onPledge(signed: Verified<ReplicaPledge>): void;
  /** As far as what is known allows: choose, and deliver. */
  protected abstract advance(): void;
  protected abstract onTime(): void;
  protected abstract propose(): void;
  /** The last thing in a step: what was gathered in it leaves together. */
  protected abstract flush(): void;
  /** Slots up to this height are decided. */
  protected abstract forget(height: Height): void;
  /** What may have been lost is said again. */
  protected abstract sayAgain(to: ReplicaId | 'all'): void;
  /** Whether something is open that saying it again may help. */
  protected abstract get stuck(): boolean;
  /** This replica itself was late by so much: nobody is blamed for it. */
  protected abstract forgive(lateMs: number): void;
  protected abstract deadline(): Millis;
  protected abstract waits(): Wait[];
  protected abstract get elections(): number;
  protected abstract acceptedBy(height: Height): { readonly hash: Hash; readonly by: readonly ReplicaId[] }[];
  /** [FLR-1] What the protocol knows beside `s`, in plain values: each class gives and takes its own fields, and those of the one it extends. */
  abstract dump(): object;
  abstract load(fields: never): void;

  /** [CFT-RP-2] What read points are made of; null: this replica has none to give. */
  protected abstract get reading(): Reading | null;

  /** Whether it keeps the decided blocks and takes bundles: an auxiliary does neither (CHP-6). */
  protected get keepsLog(): boolean {
    return true;
  }

  /** A block that others have decided comes next. */
  protected fetched(_block: Block): void {}
  /** A state that others have decided takes the place of everything below it. */
  protected installing(_header: BlockHeader): void {}

  /** At the end of the constructor of each. Gives back the hard state and the accepted values of this epoch; the ledger is recovered. */
  protected recoverDecided({ log, inherited, connected = [], quarantine }: Recovery): {
    readonly hardState: Uint8Array | null;
    readonly accepted: readonly { readonly height: Height; readonly ballot: View; readonly value: Block }[];
  } {
    const { s } = this;
    assert(!quarantine, 'who has forgotten what its key has signed does not start here (CFT-R-1)');
    for (const id of connected) Object.assign(this.peer(id), { connected: true, heardAt: s.now, heard: 'handshake' });
    if (inherited) inherit(s, inherited);
    if (log === null) return { hardState: null, accepted: [] };
    recoverLedger(s, log, () => {});
    const accepted = log.accepted.flatMap(({ height, view, bytes }) => {
      if (isOfOtherEpoch(s, bytes)) return [];
      const value = decoded(bytes, s);
      s.known.set(hexOf(value.hash), { block: value, stored: true });
      return [{ height, ballot: view, value }];
    });
    return { hardState: hardStateIn(log, s.epoch), accepted };
  }

  // ---- a step -------------------------------------------------------------------------------------------------------

  step(inputs: readonly Input<ReplicaMessage, ReplicaPledge>[], now: Millis): Ready<ReplicaMessage, ReplicaPledge> {
    const { s } = this;
    assert(now >= s.now, 'time never runs back');
    const late = now - this.#wakeAt;
    s.now = now;
    s.stalls.keep(now, s.parameters.viewTimeoutMs);
    const loopMs = stalledMs(inputs, 'loop');
    this.#blameSelf('loop', late > s.parameters.heartbeatMs ? Math.max(late, loopMs) : loopMs);
    this.#blameSelf('disk', stalledMs(inputs, 'disk'));
    for (const input of inputs) if (!this.isOver) this.#take(input);
    for (const go of this.#course) if (!this.isOver) go();
    const { out } = s;
    s.out = new Outbox();
    this.#wakeAt = Math.min(s.heartbeatAt, this.deadline(), s.reads.dueAt(now)) as Millis; // the least of branded numbers
    return out.ready(this.#wakeAt);
  }

  /** Of every step, in this order. */
  readonly #course: readonly (() => void)[] = [
    () => this.keepsLog && this.s.catchUp.tick(this.s),
    () => this.advance(),
    () => this.#heartbeat(),
    () => this.onTime(),
    () => this.s.handOver !== null && handOver(this.s, this.lead),
    () => this.#repeat(),
    () => handOn(this.s, this.forwardTo, this.s.parameters.viewTimeoutMs),
    () => this.#sweep(),
    () => this.propose(),
    () => this.flush(),
    () => this.s.reads.isIdle(this.s.parameters) || this.s.reads.tick(this.s, this.reading),
  ];

  /** [EPO-12] The block that ends the epoch is decided: this core has done its work, and says nothing more. */
  protected get isOver(): boolean {
    return this.s.ledger.ended !== null;
  }

  get found(): readonly Evidence<ReplicaMessage>[] {
    return this.s.out.evidence;
  }

  get successor(): Ledger | null {
    return this.s.ledger.successor;
  }

  /** [CFT-T-1] [STALL-1] Held up, or called late: this replica was the one that stalled (adversary's book, A32). */
  #blameSelf(what: Stall['what'], ms: number): void {
    if (ms <= 0) return;
    const { s } = this;
    s.stalls.note(s.now, what, ms);
    for (const peer of s.peers.values()) if (peer.heardAt !== null) peer.heardAt = this.later(peer.heardAt, ms);
    s.decidedAt = this.later(s.decidedAt, ms);
    this.forgive(ms);
  }

  protected later(at: Millis, lateMs: number): Millis {
    return plus.millis(at, Math.min(lateMs, this.s.now - at));
  }

  #take(input: Input<ReplicaMessage, ReplicaPledge>): void {
    const { s } = this;
    switch (input.type) {
      case 'message':
        return this.#onMessage(input.signed);
      case 'own':
        assert(input.signed.sender === s.self, 'an own pledge is signed by this replica');
        if (input.signed.message.kind === 'checkpoint')
          return s.checkpoints.onVote(s, with_(input.signed, input.signed.message));
        return this.onPledge(input.signed);
      case 'bundle':
        s.out.admissions.push({
          digest: input.bundle.digest,
          code: this.keepsLog ? s.pool.admit(input.bundle, s) : 'pool-full',
        });
        s.mayPropose = true;
        return;
      case 'read':
        return s.reads.ask(s, input.id, this.reading);
      case 'connected': {
        s.reads.connected(input.peer);
        const peer = this.peer(input.peer);
        peer.connected = true;
        peer.heardAt = s.now;
        peer.heard = 'handshake';
        this.#sayStatus(input.peer);
        for (const signed of s.checkpoints.ownVotes(s.self)) s.out.resend.push({ to: input.peer, signed });
        return this.sayAgain(input.peer);
      }
      case 'disconnected':
        this.peer(input.peer).connected = false;
        return;
      case 'retained':
        s.lowest = input.lowest;
        return;
      case 'hand-over':
        return beginHandOver(s, this.lead);
      // Nothing is led by a mark here, what the guard refuses was passed by a higher ballot, and nobody starts in quarantine.
      case 'leading':
      case 'refused':
      case 'readmitted':
      case 'stalled': // before everything else of the step
        return;
      case 'wall': // STALL-5
        s.wallAheadMs = input.aheadMs;
        return;
      default:
        return unreachable(input);
    }
  }

  #onMessage(signed: Verified<ReplicaMessage>): void {
    const { s } = this;
    const { sender, message } = signed;
    if (sender === s.self) return;
    const peer = this.peer(sender);
    peer.heardAt = s.now;
    peer.heard = message.kind;
    // [EPO-13] Who is ahead or behind is no liar: of what it says only the height in its status counts.
    if ('epoch' in message && message.epoch !== s.epoch) {
      if (message.kind === 'status') peer.status = { ...message, view: asView(0), active: false, stable: asHeight(0) };
      return;
    }
    switch (message.kind) {
      case 'status':
        peer.status = message;
        return this.onOwnKind(signed);
      case 'forward':
        if (!this.keepsLog) return;
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
      case 'fetch-blocks':
      case 'fetch-block':
      case 'fetch-checkpoint':
      case 'fetch-state':
        return; // answered from the log, outside the core
      case 'read-query':
      case 'read-reply':
        return s.reads.onMessage(s, message, sender, this.reading);
      default:
        return this.onOwnKind(signed);
    }
  }

  wants(message: ReplicaMessage, sender: ReplicaId): boolean {
    const { s } = this;
    if (this.isOver) return false;
    // Other members may have signed it.
    if ('epoch' in message && message.epoch !== s.epoch) return message.kind === 'status';
    switch (message.kind) {
      case 'checkpoint':
        return s.checkpoints.wants(message);
      case 'blocks':
      case 'checkpoint-proof':
        return s.catchUp.awaits(message.kind, sender);
      case 'state-chunk':
        return s.catchUp.awaitsChunk(message.chunk, sender);
      case 'block-data':
        return s.catchUp.awaitsBlock(message.block.hash);
      case 'status':
      case 'forward':
      case 'fetch-blocks':
      case 'fetch-block':
      case 'fetch-checkpoint':
      case 'fetch-state':
      case 'read-query':
      case 'read-reply':
        return true;
      default:
        return this.wantsOwn(message, sender);
    }
  }

  // ---- decided ------------------------------------------------------------------------------------------------------

  /** [CFT-V-2] The value that was chosen for the next slot becomes its block, and is decided. */
  protected decideValue(value: Block): void {
    const { s } = this;
    assert(value.header.height === s.ledger.height + 1, 'slots are decided in order');
    const guess = s.chainOf[0];
    if (guess === undefined || !equalBytes(guess, value.hash)) this.dropChain();
    s.chainOf.shift();
    this.#decide(s.chain.shift() ?? chained(s.ledger, [], value));
  }

  /** [PBFT-CU-2] A block that others have decided: same rules, same path. */
  #decideFetched(block: Block): void {
    const { s } = this;
    this.fetched(block);
    const guess = s.chain[0];
    if (guess === undefined || !equalBytes(guess.block.hash, block.hash)) {
      this.dropChain();
      const extension = s.ledger.extend([], block);
      assert(!('refused' in extension), () => `a decided block is valid: ${JSON.stringify(extension)}`);
      return this.#decide(extension);
    }
    s.chain.shift();
    s.chainOf.shift();
    this.#decide(guess);
  }

  #decide(extension: Extension): void {
    const { s } = this;
    const { block } = extension;
    const { height } = block.header;
    const bytes = { header: block.headerBytes, body: encodeBody(block.bundles) };
    s.out.records.push({ type: 'block', height, hash: block.hash, bytes });
    deliver(s, extension, null);
    this.#passed(height);
    if (this.isOver) return endEpoch(s, block, null);
    s.checkpoints.sayResumed(s);
    if (height % s.parameters.checkpointInterval === 0) s.checkpoints.take(s, block);
  }

  #install(state: CertifiedState): void {
    const { s } = this;
    this.dropChain();
    this.installing(state.header);
    adoptState(s, state);
    this.#passed(state.certificate.height);
    s.out.admissions.push(...s.pool.sweep(s.ledger));
  }

  #passed(height: Height): void {
    const { s } = this;
    s.decidedAt = s.now;
    s.mayPropose = true;
    for (const [key, { block }] of s.known) if (block.header.height <= height) s.known.delete(key);
    this.forget(height);
  }

  protected dropChain(): void {
    this.s.chain = [];
    this.s.chainOf = [];
    this.s.mayPropose = true;
  }

  /** [STALL-5] A value of its own; the time in it is the wall's. Without bundles it is a no-op. */
  protected makeValue(slot: Height, bundles: readonly SignedBundle[]): Block {
    const { s } = this;
    return makeValue(s, { slot, bundles, time: plus.millis(s.now, s.wallAheadMs), proposer: s.self });
  }

  /** A value that this replica holds: proposed here, accepted, or fetched. */
  protected valueOf(hash: Hash): Block | undefined {
    return this.s.known.get(hexOf(hash))?.block;
  }

  protected hold(value: Block): void {
    const key = hexOf(value.hash);
    if (!this.s.known.has(key)) this.s.known.set(key, { block: value, stored: false });
  }

  /** Slots above this are not looked at, but for what RAFT-L-3 names: it bounds what is held of undecided ones. */
  protected get horizon(): Height {
    return asHeight(this.s.ledger.height + 4 * this.s.parameters.window);
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  /** [PBFT-HB-1] */
  #heartbeat(): void {
    const { s } = this;
    if (s.now < s.heartbeatAt) return;
    s.heartbeatAt = plus.millis(s.now, s.parameters.heartbeatMs);
    this.#sayStatus('all');
    s.checkpoints.sayResumed(s);
  }

  /** Says at once what the next heartbeat would. */
  protected sayStatusSoon(): void {
    this.s.heartbeatAt = this.s.now;
  }

  #sayStatus(to: ReplicaId | 'all'): void {
    this.s.out.say(to, statusOf(this.s, { view: this.ballot, active: this.active }));
  }

  /** [PBFT-HB-2] When nothing moves, what was said is said again: a connection may have lost it. */
  #repeat(): void {
    const { s } = this;
    const votes = s.checkpoints.ownVotes(s.self);
    if (!this.stuck && votes.length === 0) {
      s.idleAt = s.now;
      return;
    }
    const pause = Math.max(s.parameters.viewTimeoutMs / 2, s.parameters.heartbeatMs);
    if (s.now - Math.max(s.resentAt, s.decidedAt, s.idleAt) < pause) return;
    s.resentAt = s.now;
    for (const signed of votes) s.out.resend.push({ to: 'all', signed });
    this.sayAgain('all');
  }

  /** [REQ-3] */
  #sweep(): void {
    const { s } = this;
    if (s.now - s.sweptAt < s.parameters.viewTimeoutMs) return;
    s.sweptAt = s.now;
    s.out.admissions.push(...s.pool.sweep(s.ledger));
  }

  // ---- who is there -------------------------------------------------------------------------------------------------

  protected peer(replica: ReplicaId): Peer {
    return peerOf(this.s, replica);
  }

  /** Replicas that have said something within `ms`, this one included. */
  protected heardWithin(ms: number): number {
    return heardWithin(this.s, ms);
  }

  protected get members(): number {
    return this.s.genesis.members.length;
  }

  /** Ballot b belongs to member b mod n: numbers of different proposers never meet. */
  protected ownerOf(ballot: View): ReplicaId {
    return asReplicaId(ballot % this.members);
  }

  // ---- explained ----------------------------------------------------------------------------------------------------

  pooled(digest: Hash): SignedBundle | undefined {
    return this.s.pool.get(digest);
  }

  explain(): Explanation {
    const { ballot, active, leads, elections } = this;
    return explainOf(this.s, { ballot, primary: this.ownerOf(ballot), active, leads, elections, waits: this.waits() });
  }

  explainHeight(height: Height): HeightExplanation {
    const accepted = height <= this.s.ledger.height ? [] : this.acceptedBy(height);
    return explainHeight(this.s, { height, ballot: this.ballot, accepted });
  }

  explainBundle(digest: Hash): BundleExplanation {
    return explainBundle(this.s, digest);
  }

  snapshot(): Bytes;
  snapshot(bytesMax: number): Bytes | null;
  snapshot(bytesMax = Number.POSITIVE_INFINITY): Bytes | null {
    return snapshotOf(this.s, { own: this.#own, wakeAt: this.#wakeAt }, bytesMax);
  }

  /** [FLR-1] Becomes the core whose snapshot this is; or why these bytes are none of this software. For looking, never for voting. */
  restored(snapshot: Bytes): this | SnapshotRefusal {
    const wakeAt = loadSnapshot(this.s, snapshot, this.#own);
    if (typeof wakeAt !== 'number') return wakeAt;
    this.#wakeAt = wakeAt;
    return this;
  }

  get #own() {
    // The cast: loadSnapshot gives what has the fields of dump().
    return { dump: () => this.dump(), load: (fields: unknown) => this.load(fields as never) };
  }
}
