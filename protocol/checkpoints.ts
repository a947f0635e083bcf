// Checkpoints: Castro and Liskov, OSDI 1999, section 4.3. Shared by every protocol on this log.

import { toHex } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { Block } from './block.ts';
import { encodeCheckpointCertificate, encodeCheckpointPlace } from './codec.ts';
import type { CoreEvent, Evidence } from './core.ts';
import type { Ledger } from './ledger.ts';
import type { LogRecord } from './log.ts';
import type { CheckpointCertificate, CheckpointPlace, CheckpointVote, Verified } from './messages.ts';
import type { Quorums } from './quorum.ts';
import type { Epoch, Height, ReplicaId } from './types.ts';
import { asHeight } from './types.ts';
import { Tally } from './votes.ts';

/** What a checkpoint needs from the core it belongs to. */
export interface CheckpointHost {
  readonly ledger: Ledger;
  readonly epoch: Epoch;
  readonly out: {
    readonly records: LogRecord[];
    readonly events: CoreEvent[];
    readonly evidence: { push(evidence: Evidence<CheckpointVote>): unknown };
    pledge(pledge: CheckpointVote): void;
    refuse(from: ReplicaId, kind: string, code: string): void;
  };
}

interface StableHost {
  readonly out: Pick<CheckpointHost['out'], 'records' | 'events'>;
}

/** Votes for checkpoints are kept for this many intervals above the stable one. */
const INTERVALS_MAX = 16;

const keyOf = (place: CheckpointPlace): string =>
  [
    place.epoch,
    place.height,
    toHex(place.hash),
    toHex(place.logRoot),
    toHex(place.memberSetHash),
    toHex(place.stateDigest),
  ].join(':');

/**
 * The state at the head, as a checkpoint that nobody has signed. [EPO-10] At the start of an epoch its own members will, in their epoch.
 */
export function checkpointOf(ledger: Ledger): LogRecord[] {
  const { changed } = ledger.checkpoint();
  return recordsOf(placeOf(ledger), changed);
}

/** Where the checkpoint at the head stands, just taken or restored. */
export function placeOf({ document, height, head, logRoot, stateDigest }: Ledger): CheckpointPlace {
  const { epoch, hash: memberSetHash } = document;
  return { epoch, height, hash: head.hash, logRoot, memberSetHash, stateDigest };
}

function recordsOf(place: CheckpointPlace, changed: ReturnType<Ledger['checkpoint']>['changed']): LogRecord[] {
  const { height } = place;
  return [
    ...changed.map(({ chunk, bytes }) => ({ type: 'state-chunk', height, chunk, bytes }) as const),
    { type: 'checkpoint', height, place: encodeCheckpointPlace(place), certificate: null },
  ];
}

export class Checkpoints {
  readonly #quorums: Quorums;
  readonly #interval: number;
  /** Where the epoch starts: a checkpoint wherever it lies (EPO-10). */
  readonly #start: Height;
  #votes: Map<Height, Tally<Verified<CheckpointVote>>> = new Map();
  /** What this replica computed itself, until it is stable. */
  #own: Map<Height, CheckpointPlace> = new Map();
  #stable: CheckpointCertificate | null = null;
  /** Where a vote was cast before a start, or an epoch has begun: it is still to be cast. */
  #resumed: Height | null = null;

  constructor(quorums: Quorums, interval: number, start: Height = asHeight(0)) {
    this.#quorums = quorums;
    this.#interval = interval;
    this.#start = start;
  }

  get stable(): CheckpointCertificate | null {
    return this.#stable;
  }

  get stableHeight(): Height {
    return this.#stable?.height ?? asHeight(0);
  }

  /** What the window is counted from (PBFT-PP-7): what lies at or below the start of the epoch is decided, signed for or not. */
  get anchorHeight(): Height {
    return asHeight(Math.max(this.#start, this.stableHeight));
  }

  /** [PBFT-CP-1] The block just decided is a checkpoint: digests the state, writes what changed, and votes once that is durable. */
  take(host: CheckpointHost, block: Block): void {
    const { changed } = host.ledger.checkpoint();
    const { height } = block.header;
    const place = placeOf(host.ledger);
    host.out.records.push(...recordsOf(place, changed));
    if (height <= this.stableHeight) return;
    this.#own.set(height, place);
    host.out.pledge({ kind: 'checkpoint', ...place });
    this.#settle(host, height);
  }

  /** After a restart: the vote for a checkpoint that was written and is not yet stable is cast again. At the start of an epoch, for the first time. */
  resume(place: CheckpointPlace): void {
    this.#own.set(place.height, place);
    this.#resumed = place.height;
  }

  /** With the first heartbeat, or behind the first block: that one has others waiting for it. */
  sayResumed(host: CheckpointHost): void {
    const place = this.#resumed === null ? undefined : this.#own.get(this.#resumed);
    this.#resumed = null;
    if (place !== undefined) host.out.pledge({ kind: 'checkpoint', ...place });
  }

  onVote(host: CheckpointHost, signed: Verified<CheckpointVote>): void {
    const { message, sender } = signed;
    if (message.height <= this.stableHeight) return;
    if (message.height % this.#interval !== 0 && message.height !== this.#start)
      return host.out.refuse(sender, message.kind, 'not-a-checkpoint-height');
    if (message.height > Math.max(this.stableHeight, host.ledger.height) + INTERVALS_MAX * this.#interval) return;
    let tally = this.#votes.get(message.height);
    if (tally === undefined) {
      tally = new Tally();
      this.#votes.set(message.height, tally);
    }
    const before = tally.get(sender);
    if (before !== undefined) {
      if (keyOf(before.message) === keyOf(message)) return;
      host.out.evidence.push({ culprit: sender, first: before, second: signed }); // ACC-1
      host.out.refuse(sender, message.kind, 'equivocation');
      return;
    }
    tally.set(sender, keyOf(message), signed);
    this.#settle(host, message.height);
  }

  /** [PBFT-CP-2] Stable with a quorum of votes equal to our own. A quorum that differs from our own state means that we are broken. */
  #settle(host: CheckpointHost, height: Height): void {
    const own = this.#own.get(height);
    const tally = this.#votes.get(height);
    if (own === undefined || tally === undefined) return;
    for (const [, { message }] of tally.entries()) {
      const equal = tally.withKey(keyOf(message));
      if (equal.length < this.#quorums.quorum) continue;
      assert(keyOf(message) === keyOf(own), () => `the state at height ${height} differs from what a quorum signed`);
      const signatures = equal
        .slice(0, this.#quorums.quorum)
        .map(([replica, vote]) => ({ replica, signature: Uint8Array.from(vote.signature) }));
      this.#becomeStable(host, { ...own, signatures });
      return;
    }
  }

  #becomeStable(host: StableHost, certificate: CheckpointCertificate): void {
    this.adopt(certificate);
    host.out.records.push({
      type: 'checkpoint',
      height: certificate.height,
      place: encodeCheckpointPlace(certificate),
      certificate: encodeCheckpointCertificate(certificate),
    });
    host.out.events.push({ type: 'checkpoint-stable', height: certificate.height });
  }

  /** A stable checkpoint from the log or from a peer, its signatures checked. Never goes back. */
  adopt(certificate: CheckpointCertificate): void {
    if (certificate.height <= this.stableHeight && this.#stable !== null) return;
    this.#stable = certificate;
    for (const map of [this.#votes, this.#own])
      for (const at of map.keys()) if (at <= certificate.height) map.delete(at);
  }

  /** A stable checkpoint at or below the head, shown by a peer, its signatures checked. */
  learn(host: StableHost & Pick<CheckpointHost, 'ledger'>, certificate: CheckpointCertificate): void {
    if (certificate.height <= this.stableHeight || certificate.height > host.ledger.height) return;
    const own = this.#own.get(certificate.height);
    if (own === undefined) return; // decided before this replica took it: nothing to compare with, a later one will do
    assert(
      keyOf(own) === keyOf(certificate),
      () => `the state at height ${certificate.height} differs from what a quorum signed`,
    );
    this.#becomeStable(host, certificate);
  }

  wants(vote: CheckpointVote): boolean {
    return vote.height > this.stableHeight;
  }

  /** The lowest checkpoint that this replica has taken and that is not yet stable, with who has signed the same; null: none. */
  awaited(): { readonly height: Height; readonly voters: readonly ReplicaId[] } | null {
    const [height, own] = [...this.#own].sort(([a], [b]) => a - b)[0] ?? [];
    if (height === undefined || own === undefined) return null;
    const equal = this.#votes.get(height)?.withKey(keyOf(own)) ?? [];
    return { height, voters: equal.map(([replica]) => replica) };
  }

  /** This replica's own votes that are not yet stable, to say again. */
  ownVotes(self: ReplicaId): Verified<CheckpointVote>[] {
    return [...this.#votes.values()].flatMap((tally) => tally.get(self) ?? []);
  }

  dump() {
    const votes = [...this.#votes].map(([height, tally]) => [height, tally.dump()] as const);
    return { votes, own: this.#own, stable: this.#stable, resumed: this.#resumed };
  }

  load({ votes, own, stable, resumed }: ReturnType<Checkpoints['dump']>): void {
    this.#votes = new Map();
    for (const [height, dumped] of votes) {
      const tally = new Tally<Verified<CheckpointVote>>();
      tally.load(dumped);
      this.#votes.set(height, tally);
    }
    this.#own = own;
    this.#stable = stable;
    this.#resumed = resumed;
  }
}
