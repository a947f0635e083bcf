// Who is guilty, and how it is proved. Every signed statement at hand goes into one pool: commits out of certificates, view-changes, new-views,
// evidence. Two statements of one key that conflict (conflict.ts) are a proof against it, and nothing else is: nobody is named for what
// others have signed.
//
// Two certified blocks at one height need more than f culprits. Decided in one view: whoever stands in both certificates has voted for two
// chains in it (PBFT-PP-9), and two quorums share more than f (quorum.ts). Decided in different views: whoever signed the earlier commit
// held its prepared certificate and had to show it in each later view-change; the first new-view after it that leads elsewhere is made of
// a quorum of view-changes, and more than f of their senders signed the commit and hide it, or show a certificate of the same view for
// another chain (ADR 1; Sheng et al., BFT Protocol Forensics, CCS 2021). So that case needs these new-views.

import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import { blockHash } from './block.ts';
import type { Certificate } from './certificate.ts';
import { encodePayload, LINKS_MAX } from './codec.ts';
import { type Conflict, denies, placeName, votesOfOneView } from './conflict.ts';
import type { PbftPledge, ReplicaMessage, Signed, Verified, ViewChange, Vote } from './messages.ts';
import { byzantineQuorums } from './quorum.ts';
import { asView, type Hash, type Height, type Member, type ReplicaId, type View } from './types.ts';
import {
  asPledge,
  type EvidenceContext,
  encodeEvidence,
  evidenceOf,
  type ProvenEvidence,
  verifyEvidence,
} from './wire/evidence.ts';

/** One of the certified chains that fork, from the first block on in which they differ. */
export interface Branch {
  /** Names of the files that hold it. */
  readonly sources: readonly string[];
  /** Of its block at the height of the fork. */
  readonly hash: Hash;
  /** Commit certificates of its blocks at and above that height, verified, rising; the first of them proves the block. Never empty. */
  readonly certificates: readonly Certificate[];
  /** Headers of its blocks from that height on, rising, each naming the one before as its parent. */
  readonly headers: readonly Bytes[];
}

export interface Fork {
  readonly height: Height;
  /** At least two. */
  readonly branches: readonly Branch[];
}

export interface Culprit {
  readonly member: Member;
  /** At most `PROOFS_PER_MEMBER_MAX`, each one enough. */
  readonly proofs: readonly { readonly conflict: Conflict; readonly piece: Bytes }[];
}

/** What would name more culprits of a fork: the new-views that opened the views from..to; `given` are at hand already. */
export interface Need {
  readonly what: 'new-views';
  readonly from: View;
  readonly to: View;
  readonly given: readonly View[];
}

export interface AuditReport {
  readonly f: number;
  readonly fork: Fork | null;
  /** By rising member. */
  readonly culprits: readonly Culprit[];
  /**
   * clean: nothing is proved against anybody. guilty: culprits are named, of a fork at least f+1. too-few: there is a fork, and fewer than
   * f+1 can be named with what was given.
   */
  readonly verdict: 'clean' | 'guilty' | 'too-few';
  /** Empty unless there are too few. */
  readonly needs: readonly Need[];
}

export const PROOFS_PER_MEMBER_MAX = 16;

export class Audit {
  readonly #context: EvidenceContext;
  /** The first statement of each key at each place. */
  readonly #said = new Map<string, Signed<PbftPledge>>();
  readonly #votes = new Map<ReplicaId, Signed<Vote>[]>();
  readonly #viewChanges = new Map<ReplicaId, Signed<ViewChange>[]>();
  readonly #newViews = new Set<View>();
  readonly #proofs = new Map<ReplicaId, Map<string, Culprit['proofs'][number]>>();

  constructor(context: EvidenceContext) {
    this.#context = context;
  }

  /** A certificate that was verified: each signature in it is a vote. */
  certificate({ phase, epoch, view, height, hash, signatures }: Certificate): void {
    if (phase === 'decided') return; // one trusted replica's word accuses nobody
    const message: Vote = { kind: phase, epoch, view, height, hash };
    const payload = encodePayload(message);
    for (const { replica, signature } of signatures) this.#add({ sender: replica, message, payload, signature });
  }

  /** A frame that was verified, with all that it carries. What binds nobody is passed over. */
  statement(signed: Verified<ReplicaMessage>): void {
    const pledge = asPledge(signed);
    if (pledge === null) return;
    this.#add(pledge);
    const { message } = pledge;
    if (message.kind === 'view-change') this.#carried(message);
    if (message.kind !== 'new-view') return;
    this.#newViews.add(message.view);
    for (const each of message.viewChanges) {
      this.#add(each);
      this.#carried(each.message);
    }
  }

  /** A piece of evidence that was verified. The certificates inside of its statements were not. */
  evidence(piece: Bytes, { first, second, conflict }: Pick<ProvenEvidence, 'first' | 'second' | 'conflict'>): void {
    this.#add(first);
    this.#add(second);
    // The headers that show it are in the piece alone.
    if (conflict.offence === 'two-chains') this.#keep(first.sender, splitName(conflict), { conflict, piece });
  }

  /** [EVD-5] Who is guilty by all that was given until now. */
  report(fork: Fork | null): AuditReport {
    for (const { certificates } of fork?.branches ?? [])
      for (const certificate of certificates) this.certificate(certificate);
    this.#matchDenials();
    if (fork !== null) this.#matchSplits(fork);
    const { members } = this.#context.genesis;
    const { f, oneHonest } = byzantineQuorums(members.length);
    const culprits = [...this.#proofs]
      .sort(([a], [b]) => a - b)
      .map(([id, proofs]): Culprit => ({ member: members[id]!, proofs: [...proofs.values()] })); // its key signed them
    const isEnough = culprits.length >= (fork === null ? 1 : oneHonest);
    const verdict = isEnough ? 'guilty' : fork === null ? 'clean' : 'too-few';
    return { f, fork, culprits, verdict, needs: verdict === 'too-few' && fork !== null ? this.#needs(fork) : [] };
  }

  #carried({ commit, prepared }: ViewChange): void {
    for (const certificate of [commit, prepared]) if (certificate !== null) this.certificate(certificate);
  }

  #add(signed: Signed<PbftPledge>): void {
    const { sender, message, payload } = signed;
    const place = `${sender} ${placeName(message)}`;
    const before = this.#said.get(place);
    if (before !== undefined && equalBytes(before.payload, payload)) return;
    if (before === undefined) this.#said.set(place, signed);
    else this.#prove(placeName(message), before, signed);
    if (message.kind === 'commit' || message.kind === 'prepare')
      listed(this.#votes, sender).push({ ...signed, message });
    if (message.kind === 'view-change') listed(this.#viewChanges, sender).push({ ...signed, message });
  }

  #matchDenials(): void {
    for (const [replica, viewChanges] of this.#viewChanges)
      for (const commit of this.#votes.get(replica) ?? []) {
        if (commit.message.kind !== 'commit') continue;
        const denial = viewChanges.find(({ message }) => denies(message, commit.message));
        if (denial !== undefined) this.#prove(`denied ${placeName(commit.message)}`, commit, denial);
      }
  }

  /** Votes of one key and view for blocks of two branches, at whatever heights: the headers show that they part. */
  #matchSplits({ branches }: Fork): void {
    const { sha256 } = this.#context.crypto;
    const places = new Map<string, { readonly branch: number; readonly index: number }>();
    for (const [branch, { headers }] of branches.entries())
      for (const [index, bytes] of headers.entries()) places.set(toHex(blockHash(sha256, bytes)), { branch, index });
    for (const votes of this.#votes.values()) {
      const placed = votes.flatMap((vote) => {
        const place = places.get(toHex(vote.message.hash));
        return place === undefined ? [] : { vote, ...place };
      });
      for (const [i, a] of placed.entries())
        for (const b of placed.slice(i + 1)) {
          if (a.branch === b.branch || votesOfOneView(a.vote, b.vote) === null) continue;
          if (placeName(a.vote.message) === placeName(b.vote.message)) continue; // proved already
          const [low, high] = a.index <= b.index ? [a, b] : [b, a];
          if (high.index - low.index > LINKS_MAX) continue;
          const links = branches[high.branch]!.headers.slice(low.index + 1, high.index + 1); // it was found there
          this.#prove(splitName(low.vote.message), low.vote, high.vote, links);
        }
    }
  }

  /** One proof for each name is enough. */
  #prove(name: string, a: Signed<PbftPledge>, b: Signed<PbftPledge>, links: readonly Bytes[] = []): void {
    const known = this.#proofs.get(a.sender);
    if (known !== undefined && (known.size >= PROOFS_PER_MEMBER_MAX || known.has(name))) return;
    const piece = encodeEvidence(evidenceOf(this.#context.genesis, a, b, links));
    const proven = verifyEvidence(piece, this.#context);
    assert(!('refused' in proven), () => `what conflicts is evidence: ${JSON.stringify(proven)}`);
    this.#keep(a.sender, name, { conflict: proven.conflict, piece });
  }

  #keep(replica: ReplicaId, name: string, proof: Culprit['proofs'][number]): void {
    const proofs = this.#proofs.get(replica) ?? new Map<string, Culprit['proofs'][number]>();
    if (proofs.size < PROOFS_PER_MEMBER_MAX && !proofs.has(name)) this.#proofs.set(replica, proofs.set(name, proof));
  }

  /** Of two branches that were decided in one view enough are named: their first certificates lie within LINKS_MAX (WIRE-23). */
  #needs({ branches }: Fork): Need[] {
    const needs = new Map<string, Need>();
    for (const [index, a] of branches.entries())
      for (const b of branches.slice(index + 1)) {
        const [one, other] = [a.certificates[0]!.view, b.certificates[0]!.view]; // never empty
        const [low, high] = [Math.min(one, other), Math.max(one, other)];
        if (low === high) continue;
        const given = this.#given(low, high);
        needs.set(`${low} ${high}`, { what: 'new-views', from: asView(low + 1), to: asView(high), given });
      }
    return [...needs.values()];
  }

  #given(above: number, to: number): View[] {
    return [...this.#newViews].filter((view) => view > above && view <= to).sort((a, b) => a - b);
  }
}

/** One proof for a view is enough. */
const splitName = ({ view }: { readonly view: View | null }): string => `split ${view}`;

function listed<Value>(map: Map<ReplicaId, Value[]>, replica: ReplicaId): Value[] {
  let list = map.get(replica);
  if (list === undefined) {
    list = [];
    map.set(replica, list);
  }
  return list;
}
