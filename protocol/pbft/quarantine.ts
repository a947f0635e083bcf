// A replica whose memory of its own votes is lost: it follows and votes for nothing, until whatever it may have signed cannot matter
// any more. Castro and Liskov, "Proactive recovery in a Byzantine-fault-tolerant system" (OSDI 2000), section 4, estimate the highest
// sequence number of a recovering replica from its peers in the same way; why the bounds below hold is docs/adr/0006-amnesia.md.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { RecoveredLog } from '../log.ts';
import type { FetchStanding, Standing, Verified } from '../messages.ts';
import type { Epoch, Height, Millis, ReplicaId, View } from '../types.ts';
import { asHeight, asView, plus } from '../types.ts';
import { decodeHardState } from './hard-state.ts';
import { pledgeAccepted } from './new-view.ts';
import type { State } from './state.ts';
import { horizonAbove, isPrimary, peerOf } from './state.ts';

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
  /** The highest height that an answer proves to be prepared, decided or stable, and at least the one that the epoch starts from. */
  proven: Height;
  /** This key is not known to have signed anything in this view or above but a request for it. */
  viewFrom: number;
  /** The highest height that this key is known to have signed. */
  signedHeight: Height;
  readonly since: Millis;
  askAt: Millis;
  /** Once something above the bound is decided: what it will abstain from. It votes again when the others have entered a view above that. */
  terms: Readmission | null;
  /** The guard has been asked to. */
  asked: boolean;
}

/** No vote is signed at or below these, and no view-change for the view after it. */
export interface Readmission {
  readonly view: View;
  readonly height: Height;
}

export function beginQuarantine(s: State, { nonce, abstained }: QuarantineStart): void {
  s.quarantine = {
    nonce,
    answered: new Set(),
    // [REC-10] All of this epoch stands above the block that it starts from, and whoever votes in it has decided that one.
    proven: s.ledger.document.start.height,
    viewFrom: (abstained.view ?? -1) + 1,
    signedHeight: abstained.height,
    since: s.now,
    askAt: s.now,
    terms: null,
    asked: false,
  };
  s.out.muted = true;
}

/** What a log that is still there shows of the key's words, before following overwrites it: the view asked for, the highest block accepted. */
export function tracesIn({ hardState, accepted }: RecoveredLog, epoch: Epoch): Readmission {
  const hard = hardState === null ? undefined : decodeHardState(hardState);
  // Views begin anew with each epoch.
  if (hard?.epoch !== epoch) return { view: asView(0), height: accepted.at(-1)?.height ?? asHeight(0) };
  return { view: hard?.view ?? asView(0), height: accepted.at(-1)?.height ?? asHeight(0) };
}

/** [REC-3] No vote of this key, in flight or in whoever's hand, stands above this height; null: too few have answered to know. */
export function boundOf(s: State, { answered, proven, signedHeight }: Quarantine): Height | null {
  if (answered.size < s.quorums.quorum) return null;
  return asHeight(Math.max(horizonAbove(s, proven), signedHeight));
}

/** [REC-2] Asks again and again whoever has not answered; [REC-4] and leaves, in a view that is late enough. */
export function onQuarantineTime(s: State, quarantine: Quarantine): void {
  if (s.now >= quarantine.askAt && quarantine.terms === null) {
    quarantine.askAt = plus.millis(s.now, 2 * s.parameters.heartbeatMs);
    for (const [replica, { connected }] of s.peers)
      if (connected && !quarantine.answered.has(replica))
        s.out.say(replica, { kind: 'fetch-standing', epoch: s.epoch, nonce: quarantine.nonce });
  }
  quarantine.terms ??= termsOf(s, quarantine);
  const { terms } = quarantine;
  // [REC-5] It asks for no view itself: a request that nobody heard would be forgotten with the next memory (ADR 6).
  if (terms === null || quarantine.asked || s.view <= terms.view || isPrimary(s)) return;
  assert(s.prepared !== null, 'the terms rest on a prepared certificate');
  quarantine.asked = true;
  s.out.readmit = { ...terms, prepared: s.prepared };
}

/** [REC-4] Whatever this key has signed is past, as far as heights go; null: not yet. */
function termsOf(s: State, quarantine: Quarantine): Readmission | null {
  const bound = boundOf(s, quarantine);
  const { headCertificate: certificate, prepared } = s;
  if (bound === null || certificate === null) return null;
  if (certificate.height <= bound || s.ledger.height < certificate.height) return null;
  // Later than whatever this key has committed: view-changes that carry it deny nothing of that (ACC-3).
  if (prepared === null || prepared.height <= bound) return null;
  return { view: asView(Math.max(certificate.view, quarantine.viewFrom - 1)), height: bound };
}

export function onStanding(s: State, signed: Verified<Standing>): void {
  const { quarantine } = s;
  const { message, sender } = signed;
  if (quarantine === null || quarantine.terms !== null || !equalBytes(message.nonce, quarantine.nonce)) return;
  if (quarantine.answered.has(sender)) return;
  quarantine.answered.add(sender);
  const { commit, prepared, stable, asked } = message;
  for (const proof of [commit, prepared, stable])
    if (proof !== null && proof.height > quarantine.proven) quarantine.proven = proof.height;
  // Its own key's word: nobody can have made it up.
  if (asked !== null && asked.sender === s.self)
    quarantine.viewFrom = Math.max(quarantine.viewFrom, asked.message.view);
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

/** [REC-5] The guard remembers what it abstains from: from here on this replica is like any other, in the view that it has followed into. */
export function onReadmitted(s: State, { view, height }: Readmission): void {
  s.quarantine = null;
  s.ownWords.givenUp = Math.max(s.ownWords.givenUp, view);
  s.ownWords.view = Math.max(s.ownWords.view, view + 1);
  s.out.muted = false;
  s.out.events.push({ type: 'readmitted', view, height });
  s.out.lock = s.prepared; // it may have gone on meanwhile
  pledgeAccepted(s);
}
