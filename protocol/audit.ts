// Who is guilty, and how it is proved. Every signed statement at hand goes into one pool: commits out of certificates, view-changes, new-views,
// evidence. Two statements of one key that conflict (conflict.ts) are a proof against it, and nothing else is: nobody is named for what
// others have signed.
//
// Two certified blocks at one height need more than f culprits. Decided in one view: whoever stands in both certificates has voted for two
// chains in it (PBFT-PP-9), and two quorums share more than f (quorum.ts). Decided in different views: whoever signed the earlier commit
// held its prepared certificate and had to show it in each later view-change; the first new-view after it that leads elsewhere is made of
// a quorum of view-changes, and more than f of their senders signed the commit and hide it, or show a certificate of the same view for
// another chain (ADR 1; Sheng et al., BFT Protocol Forensics, CCS 2021). So that case needs these new-views.
//
// A replica's number is good for one epoch, so statements are put together by the key that signed them. An offence is of one epoch, and so is a fork: no
// block but the first of an epoch stands on another epoch's, so where two chains part, both branches are certified by the members of one.

import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import { blockHash } from './block.ts';
import type { Certificate } from './certificate.ts';
import { encodePayload, LINKS_MAX } from './codec.ts';
import { type Conflict, denies, placeName, votesOfOneView } from './conflict.ts';
import type { EpochChain } from './epoch/chain.ts';
import type { PbftPledge, ReplicaMessage, Signed, Verified, ViewChange, Vote } from './messages.ts';
import { byzantineQuorums } from './quorum.ts';
import { asEpoch, asHeight, asView, type Epoch, type Hash, type Height, type Member, type View } from './types.ts';
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
  /** Headers of its blocks from that height on, rising, each naming the one before as its parent. Empty: they are not at hand. */
  readonly headers: readonly Bytes[];
  /** What proves its epochs. Default: the audit's own. */
  readonly epochs?: EpochChain | undefined;
}

export interface Fork {
  readonly height: Height;
  /** At least two. */
  readonly branches: readonly Branch[];
}

export interface Culprit {
  /** Whose member it was, under this key; who is guilty in two epochs is named for each. */
  readonly epoch: Epoch;
  readonly member: Member;
  /** What proves that epoch; undefined: the genesis document does. */
  readonly epochs: EpochChain | undefined;
  /** At most `PROOFS_PER_MEMBER_MAX`, each one enough. */
  readonly proofs: readonly { readonly conflict: Conflict; readonly piece: Bytes }[];
}

/**
 * What would name more culprits of a fork in this epoch: the new-views that opened the views from..to, of which `given` are at hand already; or the
 * blocks from..to, on the branches that are known by a certificate alone.
 */
export type Need =
  | {
      readonly what: 'new-views';
      readonly epoch: Epoch;
      readonly from: View;
      readonly to: View;
      readonly given: readonly View[];
    }
  | { readonly what: 'blocks'; readonly epoch: Epoch; readonly from: Height; readonly to: Height };

export interface AuditReport {
  /** Of the fork; without one, the last that is known. */
  readonly epoch: Epoch;
  /** Of that epoch, as its number of members. */
  readonly f: number;
  readonly n: number;
  readonly fork: Fork | null;
  /** By rising epoch and member. */
  readonly culprits: readonly Culprit[];
  /**
   * clean: nothing is proved against anybody. guilty: culprits are named, of a fork at least f+1 of its epoch. too-few: there is a fork, and fewer
   * than f+1 can be named with what was given.
   */
  readonly verdict: 'clean' | 'guilty' | 'too-few';
  /** Empty unless there are too few. */
  readonly needs: readonly Need[];
}

export const PROOFS_PER_MEMBER_MAX = 16;

/** A statement with the key that signed it. */
type Stated<Pledge extends PbftPledge = PbftPledge> = Signed<Pledge> & {
  readonly member: Member;
  /** In hex. */
  readonly key: string;
  readonly epochs: EpochChain | undefined;
};

interface Guilt extends Pick<Culprit, 'epoch' | 'member' | 'epochs'> {
  /** One for each name. */
  readonly proofs: Map<string, Culprit['proofs'][number]>;
}

export class Audit {
  readonly #context: EvidenceContext;
  /** The first statement of each key at each place. */
  readonly #said = new Map<string, Stated>();
  /** By key, in hex. */
  readonly #votes = new Map<string, Stated<Vote>[]>();
  readonly #viewChanges = new Map<string, Stated<ViewChange>[]>();
  readonly #newViews = new Map<Epoch, Set<View>>();
  /** By epoch and key. */
  readonly #guilt = new Map<string, Guilt>();

  constructor(context: EvidenceContext) {
    this.#context = context;
  }

  /** A certificate that was verified by the members of its epoch as these epochs have it: each signature in it is a vote. */
  certificate({ phase, epoch, view, height, hash, signatures }: Certificate, epochs = this.#context.epochs): void {
    if (phase === 'decided') return; // one trusted replica's word accuses nobody
    const message: Vote = { kind: phase, epoch, view, height, hash };
    const payload = encodePayload(message);
    for (const { replica, signature } of signatures)
      this.#add({ sender: replica, message, payload, signature }, epochs);
  }

  /** A frame that was verified, with all that it carries. What binds nobody is passed over. */
  statement(signed: Verified<ReplicaMessage>, epochs = this.#context.epochs): void {
    const pledge = asPledge(signed);
    if (pledge === null) return;
    this.#add(pledge, epochs);
    const { message } = pledge;
    if (message.kind === 'view-change') this.#carried(message, epochs);
    if (message.kind !== 'new-view') return;
    const views = this.#newViews.get(message.epoch) ?? new Set();
    this.#newViews.set(message.epoch, views.add(message.view));
    for (const each of message.viewChanges) {
      this.#add(each, epochs);
      this.#carried(each.message, epochs);
    }
  }

  /** A piece of evidence that was verified. The certificates inside of its statements were not. */
  evidence(
    piece: Bytes,
    { first, second, conflict }: Pick<ProvenEvidence, 'first' | 'second' | 'conflict'>,
    epochs = this.#context.epochs,
  ): void {
    this.#add(first, epochs);
    this.#add(second, epochs);
    // The headers that show it are in the piece alone.
    if (conflict.offence === 'two-chains')
      this.#keep(this.#stated(first, epochs), splitName(conflict), { conflict, piece });
  }

  /** [EVD-5] Who is guilty by all that was given until now. */
  report(fork: Fork | null): AuditReport {
    const branches = fork?.branches ?? [];
    for (const { certificates, epochs } of branches)
      for (const certificate of certificates) this.certificate(certificate, epochs);
    this.#matchDenials();
    if (fork !== null) this.#matchSplits(fork);
    const { genesis, epochs } = this.#context;
    const epoch = fork === null ? (epochs?.last.epoch ?? asEpoch(0)) : epochOf(fork);
    const members = (branches[0]?.epochs ?? epochs)?.at(epoch)?.members ?? genesis.members;
    const { f, oneHonest } = byzantineQuorums(members.length);
    const culprits = [...this.#guilt.values()]
      .sort((a, b) => a.epoch - b.epoch || a.member.id - b.member.id)
      .map(({ proofs, ...whose }): Culprit => ({ ...whose, proofs: [...proofs.values()] }));
    const isEnough =
      fork === null ? culprits.length > 0 : culprits.filter((each) => each.epoch === epoch).length >= oneHonest;
    const verdict = isEnough ? 'guilty' : fork === null ? 'clean' : 'too-few';
    const needs = verdict === 'too-few' && fork !== null ? this.#needs(fork) : [];
    return { epoch, f, n: members.length, fork, culprits, verdict, needs };
  }

  #carried({ commit, prepared }: ViewChange, epochs: EpochChain | undefined): void {
    for (const certificate of [commit, prepared]) if (certificate !== null) this.certificate(certificate, epochs);
  }

  #stated<Pledge extends PbftPledge>(signed: Signed<Pledge>, epochs: EpochChain | undefined): Stated<Pledge> {
    const { members } = epochs?.at(signed.message.epoch) ?? this.#context.genesis;
    const member = members[signed.sender];
    assert(member !== undefined, 'what was verified is signed by a member');
    return { ...signed, member, key: toHex(member.publicKey), epochs };
  }

  #add(signed: Signed<PbftPledge>, epochs: EpochChain | undefined): void {
    const stated = this.#stated(signed, epochs);
    const { key, message, payload } = stated;
    const place = `${key} ${placeName(message)}`;
    const before = this.#said.get(place);
    if (before !== undefined && equalBytes(before.payload, payload)) return;
    if (before === undefined) this.#said.set(place, stated);
    else this.#prove(placeName(message), before, stated);
    if (message.kind === 'commit' || message.kind === 'prepare') listed(this.#votes, key).push({ ...stated, message });
    if (message.kind === 'view-change') listed(this.#viewChanges, key).push({ ...stated, message });
  }

  #matchDenials(): void {
    for (const [key, viewChanges] of this.#viewChanges)
      for (const commit of this.#votes.get(key) ?? []) {
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
  #prove(name: string, a: Stated, b: Stated, links: readonly Bytes[] = []): void {
    const known = this.#guilt.get(guiltName(a))?.proofs;
    if (known !== undefined && (known.size >= PROOFS_PER_MEMBER_MAX || known.has(name))) return;
    const { genesis, crypto } = this.#context;
    const { members } = a.epochs?.at(a.message.epoch) ?? genesis;
    // Where an epoch has two ends, a key may have another number in each of the epochs that follow: it is one key.
    const other = { ...b, sender: a.sender };
    const piece = encodeEvidence(evidenceOf({ chainId: genesis.chainId, members }, a, other, links));
    const proven = verifyEvidence(piece, { genesis, crypto, epochs: a.epochs });
    assert(!('refused' in proven), () => `what conflicts is evidence: ${JSON.stringify(proven)}`);
    this.#keep(a, name, { conflict: proven.conflict, piece });
  }

  #keep(stated: Stated, name: string, proof: Culprit['proofs'][number]): void {
    const { message, member, epochs } = stated;
    const guilt = this.#guilt.get(guiltName(stated)) ?? { epoch: message.epoch, member, epochs, proofs: new Map() };
    this.#guilt.set(guiltName(stated), guilt);
    if (guilt.proofs.size < PROOFS_PER_MEMBER_MAX && !guilt.proofs.has(name)) guilt.proofs.set(name, proof);
  }

  /** Of two branches that were decided in one view enough are named: their first certificates lie within LINKS_MAX (WIRE-23). */
  #needs(fork: Fork): Need[] {
    const { branches } = fork;
    const epoch = epochOf(fork);
    const needs = new Map<string, Need>();
    for (const [index, a] of branches.entries())
      for (const b of branches.slice(index + 1)) {
        const [one, other] = [a.certificates[0]!, b.certificates[0]!]; // never empty
        const [low, high] = inOrder(one.view, other.view);
        if (low !== high) {
          const given = this.#given(epoch, low, high);
          needs.set(`${low} ${high}`, { what: 'new-views', epoch, from: asView(low + 1), to: asView(high), given });
        } else if (a.headers.length === 0 || b.headers.length === 0) {
          const [from, to] = inOrder(one.height, other.height);
          needs.set(`blocks ${from} ${to}`, { what: 'blocks', epoch, from: asHeight(from), to: asHeight(to) });
        }
      }
    return [...needs.values()];
  }

  #given(epoch: Epoch, above: number, to: number): View[] {
    return [...(this.#newViews.get(epoch) ?? [])].filter((view) => view > above && view <= to).sort((a, b) => a - b);
  }
}

/** Both branches are certified in it, for no other epoch's block can stand in the place. */
const epochOf = ({ branches }: Fork): Epoch =>
  asEpoch(Math.min(...branches.map(({ certificates }) => certificates[0]!.epoch))); // never empty

const inOrder = (a: number, b: number): readonly [number, number] => (a <= b ? [a, b] : [b, a]);

const guiltName = ({ key, message }: Stated): string => `${message.epoch} ${key}`;

/** One proof for a view is enough. */
const splitName = ({ view }: { readonly view: View | null }): string => `split ${view}`;

function listed<Value>(map: Map<string, Value[]>, key: string): Value[] {
  let list = map.get(key);
  if (list === undefined) {
    list = [];
    map.set(key, list);
  }
  return list;
}
