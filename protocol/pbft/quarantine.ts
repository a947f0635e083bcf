// A replica whose memory of its own votes is lost: it follows and votes for nothing, until whatever it may have signed cannot matter
// any more. Castro and Liskov, "Proactive recovery in a Byzantine-fault-tolerant system" (OSDI 2000), section 4, estimate the highest
// sequence number of a recovering replica from its peers in the same way; why the bounds below hold is docs/adr/0006-amnesia.md.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import type { RecoveredLog } from '../log.ts';
import type { FetchStanding, Standing, Verified } from '../messages.ts';
import type { Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { decodeHardState } from './hard-state.ts';
import type { State } from './state.ts';
import { horizonAbove, peerOf } from './state.ts';
import { startViewChange } from './view-change.ts';

/** What a quarantine starts from. */
export interface QuarantineStart {
  /** 32 random bytes, made after the key's last process has ended. */
  readonly nonce: Bytes;
  /** What the key is known to have signed already (GRD-12); null and 0: nothing is known. */
  readonly abstained: { readonly view: View | null; readonly height: Height };
}

export interface Quarantine {
  readonly nonce: Bytes;
  readonly answered: Set<ReplicaId>;
  /** The highest height that an answer proves to be prepared, decided or stable. */
  proven: Height;
  /** The highest view and height that this key is known to have signed. */
  signedView: number;
  signedHeight: Height;
  readonly since: Millis;
  askAt: Millis;
  /** What the guard has been asked to abstain from; null: not yet. */
  readmission: Readmission | null;
}

/** Nothing is signed at or below these. */
export interface Readmission {
  readonly view: View;
  readonly height: Height;
}

export function beginQuarantine(s: State, { nonce, abstained }: QuarantineStart): void {
  s.quarantine = {
    nonce,
    answered: new Set(),
    proven: asHeight(0),
    signedView: abstained.view ?? -1,
    signedHeight: abstained.height,
    since: s.now,
    askAt: s.now,
    readmission: null,
  };
  s.out.muted = true;
}

/** What a log that is still there shows of the key's words, before following overwrites it: the view asked for, the highest block accepted. */
export function tracesIn({ hardState, accepted }: RecoveredLog): Readmission {
  const hard = hardState === null ? undefined : decodeHardState(hardState);
  return { view: hard?.view ?? asView(0), height: accepted.at(-1)?.height ?? asHeight(0) };
}

/** [REC-3] No vote of this key, in flight or in whoever's hand, stands above this height; null: too few have answered to know. */
export function boundOf(s: State, { answered, proven, signedHeight }: Quarantine): Height | null {
  if (answered.size < s.quorums.quorum) return null;
  return asHeight(Math.max(horizonAbove(s, proven), signedHeight));
}

/** [REC-2] Asks again and again whoever has not answered; [REC-4] and leaves, once something above the bound is decided. */
export function onQuarantineTime(s: State, quarantine: Quarantine): void {
  if (s.now >= quarantine.askAt && quarantine.readmission === null) {
    quarantine.askAt = plus.millis(s.now, 2 * s.parameters.heartbeatMs);
    for (const [replica, { connected }] of s.peers)
      if (connected && !quarantine.answered.has(replica))
        s.out.say(replica, { kind: 'fetch-standing', epoch: s.epoch, nonce: quarantine.nonce });
  }
  const bound = boundOf(s, quarantine);
  const certificate = s.headCertificate;
  const { prepared } = s;
  if (bound === null || certificate === null || quarantine.readmission !== null) return;
  if (certificate.height <= bound || s.ledger.height < certificate.height) return;
  // Later than whatever this key has committed: view-changes that carry it deny nothing of that (ACC-3).
  if (prepared === null || prepared.height <= bound) return;
  // A view-change may have gone a turn of primaries beyond the view of any quorum (PBFT-VC-6).
  const view = Math.max(Math.max(certificate.view, s.view) + s.quorums.n, quarantine.signedView);
  quarantine.readmission = { view: asView(view), height: bound };
  s.out.readmit = { ...quarantine.readmission, prepared };
}

export function onStanding(s: State, signed: Verified<Standing>): void {
  const { quarantine } = s;
  const { message, sender } = signed;
  if (quarantine === null || quarantine.readmission !== null || !equalBytes(message.nonce, quarantine.nonce)) return;
  if (quarantine.answered.has(sender)) return;
  quarantine.answered.add(sender);
  const { commit, prepared, stable, asked } = message;
  for (const proof of [commit, prepared, stable])
    if (proof !== null && proof.height > quarantine.proven) quarantine.proven = proof.height;
  // Its own key's word: nobody can have made it up.
  if (asked !== null && asked.sender === s.self)
    quarantine.signedView = Math.max(quarantine.signedView, asked.message.view);
  const bound = boundOf(s, quarantine);
  if (bound !== null) s.out.events.push({ type: 'quarantine-bounded', height: bound });
}

/** [REC-2] Nobody in quarantine answers: it has forgotten what the answer would have to show. */
export function onFetchStanding(s: State, { message, sender }: Verified<FetchStanding>): void {
  const peer = peerOf(s, sender);
  if (s.quarantine !== null) return;
  // The answer is large, and whoever asks may be a liar.
  if (peer.standingShownAt !== null && s.now - peer.standingShownAt < s.parameters.heartbeatMs) return;
  peer.standingShownAt = s.now;
  const asked = s.viewChanges.get(sender) ?? null;
  s.out.say(sender, {
    kind: 'standing',
    epoch: s.epoch,
    nonce: message.nonce,
    commit: s.headCertificate,
    prepared: s.prepared,
    stable: s.checkpoints.stable,
    asked,
  });
}

/** [REC-5] The guard remembers what it abstains from: from here on this replica is like any other, and asks for a view that it can vote in. */
export function onReadmitted(s: State, { view, height }: Readmission): void {
  s.quarantine = null;
  s.ownWords.givenUp = Math.max(s.ownWords.givenUp, view);
  s.out.muted = false;
  s.out.events.push({ type: 'readmitted', view, height });
  if (s.view <= view) startViewChange(s, asView(view + 1), 'readmitted: it votes in no earlier view');
}
