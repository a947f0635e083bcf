// What a crash-fault replica waits for, in the words that every protocol shares (core.ts): an election is a 'view-change', an acceptance a
// 'commit', for each is what stands between the members and the next block. [WHY-1] Nothing here changes anything.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import type { BundleExplanation, Candidate, Explanation, HeightExplanation, Wait } from '../core.ts';
import { explainStalls } from '../stalls.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, hexOf, plus } from '../types.ts';
import { leaderless } from './election.ts';
import type { CrashState } from './state.ts';

export interface Standing {
  readonly ballot: View;
  readonly primary: ReplicaId;
  readonly active: boolean;
  readonly leads: boolean;
  readonly elections: number;
  readonly waits: readonly Wait[];
}

export function explainOf(s: CrashState, { ballot, primary, active, elections, waits }: Standing): Explanation {
  const undecided = new Set([...s.known.values()].map(({ block }) => block.header.height)).size;
  const catchUp = s.catchUp.view(s);
  return {
    at: s.now,
    epoch: s.epoch,
    view: ballot,
    primary,
    self: s.self,
    phase: s.catchUp.active
      ? 'catching-up'
      : !active
        ? 'view-change'
        : undecided > 0 || s.pool.bundles > 0
          ? 'ordering'
          : 'idle',
    height: s.ledger.height,
    hash: s.ledger.head.hash,
    stable: s.checkpoints.stableHeight,
    highestSeen: asHeight(Math.max(s.ledger.height, s.catchUp.believed(s))),
    pool: { bundles: s.pool.bundles, bytes: s.pool.bytes },
    inFlight: undecided,
    waits,
    viewChanges: elections,
    timeoutMs: s.parameters.viewTimeoutMs,
    baseTimeoutMs: s.parameters.viewTimeoutMs,
    quorum: s.quorums.quorum,
    window: s.parameters.window,
    catchUp: catchUp === null ? null : { ...catchUp, since: Math.max(catchUp.since, s.decidedAt) as Millis }, // the later one
    clock: null,
    pace: null,
    stalls: explainStalls(s.stalls, s.parameters.viewTimeoutMs),
    peers: [...s.peers]
      .sort(([a], [b]) => a - b)
      .map(([replica, peer]) => ({
        replica,
        connected: peer.connected,
        height: peer.status?.height ?? asHeight(0),
        view: peer.status?.view ?? ballot,
        heardAt: peer.heardAt,
        heard: peer.heard,
      })),
  };
}

/** For as many as make a quorum, or `need`; or, where nobody `have` done it can be told, for one of those that are missing. */
export function waitOf(
  s: CrashState,
  view: View,
  { what, height, have, need = have === undefined ? 1 : s.quorums.quorum, missing, since }: Waited,
): Wait {
  const all = s.genesis.members.map(({ id }) => id);
  return {
    what,
    height,
    view,
    have: have?.length ?? 0,
    need,
    missing: missing ?? all.filter((id) => have?.includes(id) !== true),
    since,
  };
}

interface Waited {
  readonly what: Wait['what'];
  readonly height: Height;
  readonly have?: readonly ReplicaId[];
  readonly need?: number;
  readonly missing?: readonly ReplicaId[];
  readonly since: Millis;
}

/** It hears no leader. Of its own nothing is pending: others must hear none either. */
export const waitForLeader = (s: CrashState, view: View, since: Millis): Wait =>
  waitOf(s, view, { what: 'leader', height: nextOf(s), have: leaderless(s), since });

/** It follows: for its leader, where it holds something to be ordered. */
export function waitForProposal(s: CrashState, view: View, leader: ReplicaId, since: Millis): Wait[] {
  if (s.pool.oldestAt === null) return [];
  const waiting = latest(s.decidedAt, s.pool.oldestAt, since);
  return [waitOf(s, view, { what: 'pre-prepare', height: nextOf(s), missing: [leader], since: waiting })];
}

export const nextOf = ({ ledger }: CrashState): Height => plus.height(ledger.height, 1);

/** Since when something is open and nothing is decided. */
export const openSince = (s: CrashState): Millis => latest(s.decidedAt, s.idleAt);

export const latest = (...times: readonly Millis[]): Millis => Math.max(...times) as Millis; // the latest of branded numbers

/** What acceptors are known to have accepted at a height that is not decided. */
export function explainHeight(
  s: CrashState,
  {
    height,
    ballot,
    accepted,
  }: {
    readonly height: Height;
    readonly ballot: View;
    readonly accepted: readonly { readonly hash: Hash; readonly by: readonly ReplicaId[] }[];
  },
): HeightExplanation {
  const candidates = accepted.map(({ hash, by }): Candidate => {
    const header = s.known.get(hexOf(hash))?.block.header;
    const block =
      header === undefined
        ? null
        : { proposer: header.proposer, bundles: header.bundleCount, transactions: header.transactionCount };
    return { hash, accepted: block !== null, block, prepares: [], commits: by, acceptedAt: null, preparedAt: null };
  });
  const stage =
    height < s.lowest
      ? 'pruned'
      : height <= s.ledger.height
        ? 'decided'
        : candidates.some(({ commits }) => commits.length >= s.quorums.quorum)
          ? 'committed'
          : candidates.length > 0
            ? 'proposed'
            : 'unknown';
  return { height, stage, view: ballot, candidates };
}

/** Bundle bytes that are hashed in search of one transaction: a few milliseconds. */
const SEARCHED_BYTES_MAX = 1 << 20;

export function explainBundle(s: CrashState, digest: Hash): BundleExplanation {
  const undecided = [...s.known.values()].map(({ block }) => block);
  const holder = undecided.find(({ bundles }) => bundles.some((bundle) => equalBytes(bundle.digest, digest)));
  let bundle = s.pool.get(digest) ?? holder?.bundles.find((each) => equalBytes(each.digest, digest));
  let transaction: number | null = null;
  let bytes = 0;
  for (const waiting of bundle === undefined ? s.pool.waiting() : []) {
    bytes += waiting.payload.length;
    if (bytes > SEARCHED_BYTES_MAX) break;
    const index = waiting.transactions.findIndex((each: Bytes) => equalBytes(s.sha256(each), digest));
    if (index < 0) continue;
    bundle = waiting;
    transaction = index;
    break;
  }
  if (bundle === undefined) return { digest: null, transaction: null, height: null, pool: null };
  const found = bundle;
  const place = s.pool.place(found.digest);
  const at = undecided.find(({ bundles }) => bundles.some((each) => equalBytes(each.digest, found.digest)));
  return {
    digest: found.digest,
    transaction,
    height: at?.header.height ?? null,
    pool:
      place === undefined
        ? null
        : {
            ...place,
            session: found.session,
            sequence: found.sequence,
            nextSequence: s.ledger.nextSequence(s.chain, found, plus.height(s.ledger.height, 1)),
            validUntil: found.validUntil,
          },
  };
}
