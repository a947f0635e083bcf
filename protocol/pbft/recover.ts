// The start of a replica, from what its log and its guard give back. Nothing is voted for here that was not voted for before.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Sha256 } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import type { WireContext } from '../codec.ts';
import { decodePayload } from '../codec.ts';
import type { EpochDocument } from '../epoch/document.ts';
import type { Genesis } from '../genesis.ts';
import type { Extension } from '../ledger.ts';
import type { RecoveredLog } from '../log.ts';
import { asVerified } from '../messages.ts';
import { decoded, hardStateIn, type Inheritance, inherit, isOfOtherEpoch, known, recoverLedger } from '../restart.ts';
import type { Epoch, Height, ReplicaId, View } from '../types.ts';
import { next, plus } from '../types.ts';
import { noteCommitCertificate } from './chain.ts';
import type { HardState } from './hard-state.ts';
import { decodeHardState } from './hard-state.ts';
import { baseOf } from './new-view.ts';
import type { QuarantineStart } from './quarantine.ts';
import { beginQuarantine } from './quarantine.ts';
import type { State } from './state.ts';
import { hexOf, isPrimary, peerOf } from './state.ts';
import { startViewChange } from './view-change.ts';

export interface PbftOptions {
  readonly genesis: Genesis;
  readonly epoch: Epoch;
  /** Of an epoch above 0; `genesis` has its members and parameters then (genesisOf). */
  readonly document?: EpochDocument | undefined;
  readonly self: ReplicaId;
  readonly sha256: Sha256;
}

export interface PbftRecovery {
  /** Null for a new chain, and where the state was inherited. */
  readonly log: RecoveredLog | null;
  /** Given at the start of an epoch that this process has seen begin. */
  readonly inherited?: Inheritance | null;
  /** Given where an epoch begins over connections that go on: to whom. They have nothing to be told before the next heartbeat (EPO-22). */
  readonly connected?: readonly ReplicaId[];
  /** What the guard's file says: the highest view it has a mark of, the view it led last, the highest prepared certificate. */
  readonly guard: {
    readonly view: View;
    readonly led: View | null;
    readonly lock: Certificate | null;
    /** The payload of the view-change for `view`, while the key has signed nothing else there (GRD-18). */
    readonly request?: Bytes | null;
    /** The highest view that it abstains from, and the highest height of any mark; without them there are none. */
    readonly abstained?: View | null;
    readonly height?: Height;
  };
  /** Given where the guard's memory is lost: then nothing of its file counts, and of the log only what is decided. */
  readonly quarantine?: QuarantineStart | null;
}

export function recover(s: State, { log, inherited = null, connected, guard, quarantine = null }: PbftRecovery): void {
  const context: WireContext = { sha256: s.sha256, parameters: s.parameters };
  if (connected !== undefined) goOnWith(s, connected);
  if (quarantine !== null) beginQuarantine(s, quarantine);
  rememberOwnWords(s, log, guard);
  if (inherited !== null) inherit(s, inherited);
  if (log !== null) recoverLedger(s, log, (certificate) => noteCommitCertificate(s, certificate));
  if (quarantine !== null) return; // REC-1: it is shown the view by the others, and votes for nothing that it finds
  s.prepared = guard.lock;
  if (log !== null)
    for (const { bytes } of log.accepted) {
      if (isOfOtherEpoch(s, bytes)) continue;
      const block = decoded(bytes, context);
      s.known.set(hexOf(block.hash), { block, stored: true });
    }
  const stored = log === null ? null : hardStateIn(log, s.epoch);
  const hard = stored === null ? null : decodeHardState(stored);
  assert(hard !== undefined, 'the hard state is of a version that this program knows');
  recoverView(s, hard, guard, context);
  if (s.mode === 'active') recoverChain(s, log, context);
  // A new chain, or one whose first primary has not led yet: view 0 needs no new-view.
  if (s.view === 0 && s.mode === 'active' && isPrimary(s)) s.out.lead = s.view; // PBFT-PP-6
}

function goOnWith(s: State, connected: readonly ReplicaId[]): void {
  for (const id of connected) Object.assign(peerOf(s, id), { connected: true, heardAt: s.now, heard: 'handshake' });
  s.heartbeatAt = plus.millis(s.now, s.parameters.heartbeatMs);
}

/** [REC-9] First: what the log holds of this key's votes must be known by the guard as well. */
function rememberOwnWords(s: State, log: RecoveredLog | null, guard: PbftRecovery['guard']): void {
  s.ownWords.givenUp = Math.max(guard.led ?? -1, guard.abstained ?? -1);
  s.ownWords.view = guard.view;
  const accepted = log?.accepted.findLast(({ bytes }) => !isOfOtherEpoch(s, bytes));
  const heights = [log?.checkpoint, log?.decided.at(-1), accepted, guard.lock].map((at) => at?.height ?? 0);
  s.ownWords.height = Math.max(s.ledger.height, ...heights, guard.height ?? 0);
}
/** The view is the highest that the log or the guard knows of. What the log does not know of it was never signed: both are durable before. */
function recoverView(s: State, hard: HardState | null, guard: PbftRecovery['guard'], context: WireContext): void {
  if (hard !== null) {
    s.view = hard.view;
    if (hard.newView !== null) {
      const message = known(decodePayload('new-view', hard.newView.payload, context));
      assert(message.kind === 'new-view', 'a stored new-view is one');
      s.newView = asVerified({ ...hard.newView, message }); // verified before it was stored
    }
    if (hard.mode === 'changing') {
      assert(hard.viewChange !== null, 'a view that is asked for has its view-change');
      const message = known(decodePayload('view-change', hard.viewChange, context));
      assert(message.kind === 'view-change', 'a stored view-change is one');
      s.mode = 'changing';
      const ledAlready = isPrimary(s) && guard.led !== null && guard.led >= s.view;
      if (guard.view <= s.view && !ledAlready) s.out.pledge(message); // the same bytes again
    }
  }
  if (guard.view > s.view && guard.request) {
    // [GRD-18] Asked for, and the log does not know: the same bytes again, and not another view.
    const message = known(decodePayload('view-change', guard.request, context));
    assert(
      message.kind === 'view-change' && message.view === guard.view,
      'a promised view-change is one, for its view',
    );
    s.view = guard.view;
    s.mode = 'changing';
    s.newView = null;
    s.out.pledge(message);
  } else if (guard.view > s.view) {
    // Entered, or led: a quorum had asked for it.
    startViewChange(s, next.view(guard.view), 'restarted in the middle of a view change');
  } else if (isPrimary(s) && guard.led !== null && guard.led >= s.view) {
    // [PBFT-PP-6] What it proposed last may not be on its disk; and it cannot lead the view again, also if it never opened it.
    startViewChange(s, next.view(s.view), 'this replica led the view and has restarted');
  }
}

/**
 * [PBFT-PP-8] The blocks accepted in the current view, as far as they form a chain from the decided head, through the base of the view where that
 * is not decided yet; their votes are signed again. All of them: a block that was voted for and forgotten would let this replica accept
 * another chain in the same view, and votes stand for ancestors (ADR 1).
 */
function recoverChain(s: State, log: RecoveredLog | null, context: WireContext): void {
  if (s.newView !== null) {
    const base = baseOf(s.newView.message);
    if (base !== null && base.certificate.height > s.ledger.height) s.base = base;
  }
  if (log === null) return;
  const chain: Extension[] = [];
  for (const entry of log.accepted) {
    if (entry.view !== s.view || isOfOtherEpoch(s, entry.bytes)) continue;
    const extension = s.ledger.extend(chain, decoded(entry.bytes, context));
    if ('refused' in extension) break;
    chain.push(extension);
  }
  let votedFrom = 0;
  if (s.base !== null) {
    const { kind, certificate } = s.base;
    const at = chain.findIndex(({ block }) => equalBytes(block.hash, certificate.hash));
    if (at < 0) return; // the base was not reached: nothing above it was accepted
    votedFrom = kind === 'prepared' ? at : at + 1;
    s.base = null;
  }
  s.chain = chain;
  for (const { block } of chain.slice(votedFrom)) {
    const { height } = block.header;
    s.phases.set(height, { acceptedAt: s.now, preparedAt: null });
    s.out.pledge({ kind: 'prepare', epoch: s.epoch, view: s.view, height, hash: block.hash });
  }
}
