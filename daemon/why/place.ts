// How far one height, or one bundle, has come, and why no further: facts in, sentences out, for `synod explain` and /v1/explain.

import type { AdmissionCode, Candidate, HeightExplanation, Pooled } from '../../protocol/core.ts';
import type { Hash, Height, Millis, ReplicaId } from '../../protocol/types.ts';
import { printable } from '../transport/log.ts';
import type { Diagnosis } from './diagnosis.ts';
import { age, causeWords, counted, named, type Speech } from './words.ts';

/** What the log says of a decided block. */
export interface DecidedFacts {
  readonly hash: Hash;
  /** Of its proposer's clock. */
  readonly time: Millis;
  readonly proposer: ReplicaId;
  readonly bundles: number;
  readonly transactions: number;
  /** The commit certificate that covers it: its own, or that of a later block. */
  readonly certified: { readonly height: Height; readonly view: number; readonly signers: readonly ReplicaId[] };
}

export interface HeightFacts {
  readonly explanation: HeightExplanation;
  /** Null: not decided, not kept, or not yet in the log. */
  readonly decided: DecidedFacts | null;
  readonly head: Height;
  readonly lowest: Height;
  readonly quorum: number;
  readonly members: number;
  /** Whether members are trusted: then values are accepted, and nobody is faulty where there are two. */
  readonly trusted: boolean;
  /** Of the replica that says it: what keeps an undecided block from going on. */
  readonly diagnosis: Diagnosis;
}

export interface BundleFacts {
  readonly stage: BundleStage;
  /** Where it was asked for by a transaction's digest: its place in the bundle. */
  readonly transaction: number | null;
  /** Of the block that it is in, and there of its first transaction, or of the one that was asked for. */
  readonly height: Height | null;
  readonly index: number | null;
  readonly pool: Pooled | null;
  /** The last verdict on it at this replica, and when. */
  readonly refused: { readonly code: AdmissionCode | 'bundle-invalid'; readonly at: Millis } | null;
  /** How far its block has come. */
  readonly block: HeightFacts | null;
  readonly diagnosis: Diagnosis;
  /** Null: no view is active here. */
  readonly primary: ReplicaId | null;
  readonly self: ReplicaId;
}

export type BundleStage =
  | 'unknown'
  | 'refused'
  | 'expired'
  | 'pooled'
  | 'proposed'
  | 'prepared'
  | 'committed'
  | 'decided';

export function heightWords(facts: HeightFacts, speech: Speech): string {
  const { explanation, decided, head, lowest, trusted } = facts;
  const { height, stage, candidates, view } = explanation;
  switch (stage) {
    case 'pruned':
      return `block ${height} is decided, and kept no more: the lowest that is kept is ${lowest}`;
    case 'decided':
      return decided === null ? `block ${height} is decided` : decidedWords(height, decided, speech);
    case 'committed':
      return `block ${height} ${trusted ? 'is accepted by a majority' : 'has a commit certificate'}, and is not decided here: it, or a block below it, has not come; the last decided one is ${head}${because(facts, speech)}`;
    case 'unknown':
      return `block ${height} is not proposed in view ${view}: the last decided one is ${head}${because(facts, speech)}`;
    case 'proposed':
    case 'prepared': {
      const each = candidates.map((candidate) => candidateWords(facts, candidate, speech));
      const faulty = trusted ? '' : ', a replica is faulty';
      const rivals = candidates.length > 1 ? `${candidates.length} rival blocks were seen${faulty}: ` : '';
      return `block ${height} is ${stage}, not decided: ${rivals}${each.join('; ')}${because(facts, speech)}`;
    }
  }
}

function decidedWords(
  height: Height,
  { bundles, transactions, time, proposer, certified }: DecidedFacts,
  speech: Speech,
) {
  const own = certified.height === height ? '' : `, by the certificate of block ${certified.height}`;
  const contents = `${counted(transactions, 'transaction')} in ${counted(bundles, 'bundle')}`;
  return `block ${height} is decided${own}: ${named(certified.signers, speech)} signed in view ${certified.view}; ${contents}, proposed by ${speech.nameOf(proposer)} at ${new Date(time).toISOString()}`;
}

function candidateWords(
  { quorum, members, explanation, trusted }: HeightFacts,
  candidate: Candidate,
  speech: Speech,
): string {
  const { prepares, commits, acceptedAt, preparedAt, block } = candidate;
  const all = Array.from({ length: members }, (_, id) => id as ReplicaId); // members are numbered from 0
  const votes = (phase: string, voted: readonly ReplicaId[], since: Millis | null) => {
    const missing = all.filter((id) => !voted.includes(id));
    const lasting = since === null ? '' : ` for ${age(speech.at - since)}`;
    const who = voted.length === 0 ? '' : ` (${named(voted, speech)})`;
    return `${voted.length} of ${members} ${phase}s${who}, ${quorum} are needed, missing ${named(missing, speech)}${lasting}`;
  };
  const here = block === null ? 'the block itself is not here, ' : '';
  if (trusted) return `${here}${votes('acceptance', commits, acceptedAt)}`;
  return explanation.stage === 'prepared' && (preparedAt !== null || prepares.length >= quorum)
    ? `${here}${votes('commit', commits, preparedAt)}`
    : `${here}${votes('prepare', prepares, acceptedAt)}`;
}

export function bundleWords(facts: BundleFacts, speech: Speech): string {
  const { stage, transaction, height, index, pool, refused, block } = facts;
  const it = transaction === null ? 'this bundle' : `this transaction, number ${transaction} of its bundle,`;
  switch (stage) {
    case 'unknown':
      return 'neither a bundle nor a transaction of this digest waits here, is in an undecided block or among the blocks that were looked into, or was refused of late';
    case 'expired':
      return `${it} has expired${ago(refused, speech)}: its last height has passed, and no block that is kept here holds it`;
    case 'refused':
      return `${it} was refused${ago(refused, speech)}: ${refused === null ? '' : refusals[refused.code]}`;
    case 'decided':
      return `${it} is decided: block ${height}, index ${index}`;
    case 'pooled':
      return pool === null ? `${it} waits` : `${it} ${pooledWords(facts, pool, speech)}`;
    default:
      return `${it} is in a block that is not decided yet: ${block === null ? `block ${height}` : heightWords(block, speech)}`;
  }
}

function pooledWords(facts: BundleFacts, pool: Pooled, speech: Speech): string {
  const { primary, self } = facts;
  const waits = `waits in the pool for ${age(speech.at - pool.since)}, behind ${counted(pool.ahead, 'bundle')}, valid until block ${pool.validUntil}`;
  const first =
    pool.sequence > pool.nextSequence
      ? `; its session needs number ${pool.nextSequence} first, this is ${pool.sequence}`
      : '';
  const handed =
    primary === null
      ? '; no view is active, so there is no primary'
      : primary === self
        ? `; ${speech.nameOf(self)} is the primary and has not proposed it`
        : pool.forwardedAt === null
          ? `; not handed on to ${speech.nameOf(primary)}, the primary`
          : `; handed on to ${speech.nameOf(primary)}, the primary, ${age(speech.at - pool.forwardedAt)} ago`;
  return `${waits}${first}${handed}${because(facts, speech)}`;
}

const ago = (refused: BundleFacts['refused'], speech: Speech): string =>
  refused === null ? '' : ` ${age(speech.at - refused.at)} ago`;

/** What keeps this replica as a whole from going on, where something does. */
function because({ diagnosis }: { readonly diagnosis: Diagnosis }, speech: Speech): string {
  const cause = diagnosis.causes.find(({ code }) => code !== 'member-away');
  return cause === undefined ? '' : `. Why not yet: ${causeWords(cause, speech)} [${printable(cause.code)}]`;
}

/** Verdicts in words; those that are no refusal stand here only to be complete. */
export const refusals: Record<AdmissionCode | 'bundle-invalid', string> = {
  pooled: 'it was taken',
  known: 'it waits already',
  'pool-full': 'too many bundles waited; it may be sent again',
  'client-quota': 'too many bundles of this client waited; it may be sent again',
  'sequence-passed': 'its session has passed this number: another bundle has its place',
  'sequence-gap': 'the bundle before it in its session is neither decided nor waiting here',
  'sequence-taken': 'another bundle of its session with this number waits',
  expired: 'its last height has passed',
  'valid-until-too-far': 'it wants to be valid for longer than the chain allows',
  'sessions-full': 'the chain has no room for another session',
  'control-refused': 'it would change the epoch, and this epoch cannot end so',
  'bundle-invalid': 'it was made under limits of an earlier epoch, and goes beyond those of this one',
};
