// How far one height, or one bundle, has come at this replica: in data, for `synod explain`. [WHY-1] Nothing here changes anything.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import type { Block } from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import type { BundleExplanation, Candidate, HeightExplanation } from '../core.ts';
import type { Hash, Height, ReplicaId } from '../types.ts';
import { plus } from '../types.ts';
import type { State } from './state.ts';
import { acceptedAt, hexOf } from './state.ts';

/** Bundle bytes that are hashed in search of one transaction: a few milliseconds. */
const SEARCHED_BYTES_MAX = 1 << 20;

export function explainHeight(s: State, height: Height): HeightExplanation {
  const candidates = height > s.ledger.height ? candidatesAt(s, height) : [];
  return { height, stage: stageOf(s, height, candidates), view: s.view, candidates };
}

function stageOf(s: State, height: Height, candidates: readonly Candidate[]): HeightExplanation['stage'] {
  if (height < s.lowest) return 'pruned';
  if (height <= s.ledger.height) return 'decided';
  if (height <= (s.headCertificate?.height ?? 0)) return 'committed';
  const prepared = candidates.some(
    ({ prepares, preparedAt }) => preparedAt !== null || prepares.length >= s.quorums.quorum,
  );
  if (prepared) return 'prepared';
  return candidates.length > 0 ? 'proposed' : 'unknown';
}

function candidatesAt(s: State, height: Height): Candidate[] {
  const accepted = acceptedAt(s, height)?.block;
  const proposed = s.proposed.get(height)?.message.block;
  const hashes: Hash[] = [];
  for (const hash of [accepted?.hash, proposed?.hash, ...s.votes.hashes(height)])
    if (hash !== undefined && !hashes.some((other) => equalBytes(other, hash))) hashes.push(hash);
  return hashes.map((hash) => {
    const isAccepted = accepted !== undefined && equalBytes(accepted.hash, hash);
    const isProposed = proposed !== undefined && equalBytes(proposed.hash, hash);
    const block = isAccepted ? accepted : isProposed ? proposed : s.known.get(hexOf(hash))?.block;
    const phases = isAccepted ? s.phases.get(height) : undefined;
    return {
      hash,
      accepted: isAccepted,
      block: block === undefined ? null : contents(block),
      prepares: rising(s.votes.voters('prepare', height, hash)),
      commits: rising(s.votes.voters('commit', height, hash)),
      acceptedAt: phases?.acceptedAt ?? null,
      preparedAt: phases?.preparedAt ?? null,
    };
  });
}

const contents = ({ header }: Block): NonNullable<Candidate['block']> => ({
  proposer: header.proposer,
  bundles: header.bundleCount,
  transactions: header.transactionCount,
});

const rising = (replicas: readonly ReplicaId[]): ReplicaId[] => [...replicas].sort((a, b) => a - b);

export function explainBundle(s: State, digest: Hash): BundleExplanation {
  const found = bundleWith(s, digest);
  if (found === undefined) return { digest: null, transaction: null, height: null, pool: null };
  const { bundle, transaction } = found;
  const place = s.pool.place(bundle.digest);
  const next = plus.height(s.ledger.height, 1);
  return {
    digest: bundle.digest,
    transaction,
    height: heightOf(s, bundle.digest),
    pool:
      place === undefined
        ? null
        : {
            ...place,
            session: bundle.session,
            sequence: bundle.sequence,
            nextSequence: s.ledger.nextSequence(s.chain, bundle, next),
            validUntil: bundle.validUntil,
          },
  };
}

/** In the pool or in an undecided block, by its own digest or by that of a transaction in it. */
function bundleWith(s: State, digest: Hash): { bundle: SignedBundle; transaction: number | null } | undefined {
  const pooled = s.pool.get(digest);
  if (pooled !== undefined) return { bundle: pooled, transaction: null };
  for (const bundle of undecided(s)) if (equalBytes(bundle.digest, digest)) return { bundle, transaction: null };
  let bytes = 0;
  for (const bundles of [undecided(s), s.pool.waiting()])
    for (const bundle of bundles) {
      bytes += bundle.payload.length;
      if (bytes > SEARCHED_BYTES_MAX) return undefined;
      const transaction = bundle.transactions.findIndex((each: Bytes) => equalBytes(s.sha256(each), digest));
      if (transaction >= 0) return { bundle, transaction };
    }
  return undefined;
}

function* blocks(s: State): Generator<Block> {
  for (const { block } of s.chain) yield block;
  for (const { message } of s.proposals.values()) yield message.block;
}

function* undecided(s: State): Generator<SignedBundle> {
  for (const block of blocks(s)) yield* block.bundles;
}

function heightOf(s: State, digest: Hash): Height | null {
  for (const block of blocks(s))
    if (block.bundles.some((bundle) => equalBytes(bundle.digest, digest))) return block.header.height;
  return null;
}
