// Evidence: where one key is seen to have signed two things that an honest replica never signs both (conflict.ts), both go to the
// outbox as they were signed. What a replica holds of others is looked at when something new comes beside it; nothing is kept for this
// alone.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Certificate, VotePhase } from '../certificate.ts';
import { encodePayload } from '../codec.ts';
import { denies } from '../conflict.ts';
import type { NewView, PbftMessage, PrePrepare, Verified, ViewChange, Vote } from '../messages.ts';
import { asVerified } from '../messages.ts';
import type { Height, ReplicaId } from '../types.ts';
import type { State } from './state.ts';

/** [ACC-1] Both signed by the same replica, and in conflict. */
export function accuse(s: State, first: Verified<PbftMessage>, second: Verified<PbftMessage>): void {
  const culprit = second.sender;
  s.out.evidence.push({ culprit, first, second });
  s.accused.add(culprit);
  // Its own key, used elsewhere, is for the operator to see.
  if (culprit !== s.self) s.out.refuse(culprit, second.message.kind, 'equivocation');
}

/** The vote of this view that is counted for a replica, as it signed it: its payload is a function of its place. */
export function countedVote(
  s: State,
  phase: VotePhase,
  height: Height,
  replica: ReplicaId,
): Verified<Vote> | undefined {
  const cast = s.votes.of(phase, height, replica);
  if (cast === undefined) return undefined;
  const { epoch, view } = s;
  return voteAsSigned({ kind: phase, epoch, view, height, hash: cast.hash }, replica, cast.signature);
}

// Only of votes whose signatures were checked: one by one, or in a certificate.
function voteAsSigned(message: Vote, sender: ReplicaId, signature: Bytes) {
  return asVerified({ sender, message, payload: encodePayload(message), signature });
}

/** [PBFT-PP-5] The prepare that the signature of a proposal is: a few bytes instead of a block. */
export function voteOfProposal({ message, sender, signature }: Verified<PrePrepare>): Verified<Vote> {
  const { epoch, view, block } = message;
  const vote = { kind: 'prepare', epoch, view, height: block.header.height, hash: block.hash } as const;
  return voteAsSigned(vote, sender, signature);
}

/** [ACC-1] The votes in a certificate beside those that are counted here, or beside what was proposed in the view that was left last. */
export function compareVotes(s: State, certificate: Certificate | null): void {
  if (certificate === null) return;
  if (certificate.view !== s.view) return compareWithProposed(s, certificate);
  const { phase, epoch, view, height, hash, signatures } = certificate;
  assert(phase !== 'decided', 'a certificate of this protocol is one of votes');
  for (const { replica, signature } of signatures) {
    const cast = s.votes.of(phase, height, replica);
    if (cast === undefined || equalBytes(cast.hash, hash)) continue;
    const counted = countedVote(s, phase, height, replica);
    if (counted !== undefined)
      accuse(s, counted, voteAsSigned({ kind: phase, epoch, view, height, hash }, replica, signature));
  }
}

/** A primary that told two halves two blocks: whoever has the one sees the other in the certificate that ends the view. */
function compareWithProposed(s: State, { phase, epoch, view, height, hash, signatures }: Certificate): void {
  if (phase !== 'prepare') return;
  const before = s.proposedBefore.find(({ message }) => message.view === view && message.height === height);
  if (before === undefined || equalBytes(before.message.hash, hash) || s.accused.has(before.sender)) return;
  const other = signatures.find(({ replica }) => replica === before.sender);
  if (other !== undefined)
    accuse(s, before, voteAsSigned({ kind: phase, epoch, view, height, hash }, before.sender, other.signature));
}

/** [ACC-1] A view-change, come by itself or in a new-view: beside another one of its view, beside commits that it denies, and what it carries. */
export function compareViewChange(s: State, signed: Verified<ViewChange>): void {
  const { message, sender, payload } = signed;
  const before = s.viewChanges.get(sender);
  if (before !== undefined && before.message.view === message.view && !equalBytes(before.payload, payload))
    accuse(s, before, signed);
  for (const height of message.view > s.view ? s.votes.heights() : []) {
    const commit = countedVote(s, 'commit', height, sender);
    if (commit === undefined || !denies(message, commit.message)) continue;
    accuse(s, commit, signed);
    break; // one is enough
  }
  compareVotes(s, message.commit);
  compareVotes(s, message.prepared);
}

/** [ACC-1] A new-view: beside the one that opened its view here, and each view-change in it. */
export function compareNewView(s: State, signed: Verified<NewView>): void {
  for (const each of signed.message.viewChanges) compareViewChange(s, asVerified(each)); // checked with the new-view
  if (s.newView !== null && isOtherNewView(s, signed.message, signed.sender)) accuse(s, s.newView, signed);
}

/** Of the same primary for the view that this replica is in, and not the one that opened it. */
export function isOtherNewView(s: State, { view, viewChanges }: NewView, sender: ReplicaId): boolean {
  if (s.newView === null || s.newView.sender !== sender || s.newView.message.view !== view) return false;
  const known = s.newView.message.viewChanges;
  return (
    viewChanges.length !== known.length ||
    viewChanges.some((each, i) => {
      const other = known[i]!; // of the same length
      const isSame = each.sender === other.sender && equalBytes(each.payload, other.payload);
      return !isSame || !equalBytes(each.signature, other.signature);
    })
  );
}

/** Of the same sender for the same view as the one that is here, and not the same: what is signed has one encoding (WIRE-2). */
export function isOtherViewChange(s: State, message: ViewChange, sender: ReplicaId): boolean {
  const known = s.viewChanges.get(sender);
  return known?.message.view === message.view && !equalBytes(known.payload, encodePayload(message));
}
