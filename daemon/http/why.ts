// GET /v1/why and /v1/explain/{place}: what this replica waits for, and how far a height, a bundle or a transaction has come; in data
// with stable codes, and in words (daemon/why/).

import { equalBytes, fromHex, toHex } from '../../crypto/bytes.ts';
import type { Candidate } from '../../protocol/core.ts';
import { bearsLies, quorumsOf } from '../../protocol/modes.ts';
import type { Hash, Height, ReplicaId } from '../../protocol/types.ts';
import { asHash, asHeight, asMillis } from '../../protocol/types.ts';
import type { ReceiptDesk } from '../gateway/receipt-desk.ts';
import type { ReplicaPort } from '../ports.ts';
import type { Diagnosis, Report } from '../why/diagnosis.ts';
import { diagnose, isBetweenViews } from '../why/diagnosis.ts';
import type { BundleFacts, BundleStage, DecidedFacts, HeightFacts } from '../why/place.ts';
import { bundleWords, heightWords } from '../why/place.ts';
import type { RecentRefusals } from '../why/refused.ts';
import { actionWords, causeWords, headline, peerWords, speechOf, waitWords } from '../why/words.ts';
import { type Exchange, json, type Reply } from './exchange.ts';
import { type Problem, problem } from './problem.ts';

/** Explanations that read the log at once. */
const readsMax = 2;
/** How far down a transaction is looked for: no index leads from a transaction to its block. */
const blocksSearchedMax = 64;
const bytesSearchedMax = 4 << 20;

export interface WhyParts {
  readonly replica: ReplicaPort;
  readonly desk: Pick<ReceiptDesk, 'chain' | 'find'>;
  readonly refusals: Pick<RecentRefusals, 'of'>;
  draining(): boolean;
}

export class Why {
  readonly #parts: WhyParts;
  #reads = 0;

  constructor(parts: WhyParts) {
    this.#parts = parts;
  }

  /** Also what it was made from: whoever asks several replicas puts their explanations together (daemon/why/network.ts). */
  why() {
    const { replica, draining } = this.#parts;
    const { genesis, self } = replica;
    const report = reportOf(replica, draining());
    const { explanation } = report;
    const diagnosis = diagnose(report);
    const { state, causes, ready, action } = diagnosis;
    const speech = this.#speech();
    const named = (id: ReplicaId) => this.#named(id);
    return {
      replica: named(self),
      chain: {
        name: genesis.name,
        chainId: toHex(genesis.chainId),
        members: genesis.members.map(({ name }) => name),
      },
      healthy: causes.length === 0,
      ready,
      state,
      words: headline(diagnosis, explanation, speech),
      causes: causes.map((cause) => ({ ...cause, who: cause.who.map(named), words: causeWords(cause, speech) })),
      action: action === null ? null : { ...action, who: action.who.map(named), words: actionWords(action, speech) },
      waits: explanation.waits.map((wait) => waitWords(wait, speech)),
      heard: explanation.peers.map((peer) => peerWords(peer, speech)),
      draining: report.draining,
      writingMs: report.writingMs,
      explanation: { ...explanation, hash: toHex(explanation.hash) },
    };
  }

  async explain({ path }: Exchange): Promise<Reply | Problem> {
    const place = path.get('place') ?? '';
    const digest = place.length === 64 ? fromHex(place) : undefined;
    const height = /^\d{1,16}$/.test(place) ? Number(place) : 0;
    const isHeight = Number.isSafeInteger(height) && height > 0;
    if (digest === undefined && !isHeight)
      return problem('path-invalid', 'a height is an integer from 1, a digest 64 characters of hex', {
        field: 'place',
      });
    if (this.#reads >= readsMax) return problem('busy', 'too many explanations at once', { retryAfterSeconds: 1 });
    this.#reads += 1;
    try {
      return json(
        200,
        digest === undefined ? await this.#height(asHeight(height)) : await this.#bundle(asHash(digest)),
      );
    } finally {
      this.#reads -= 1;
    }
  }

  // ---- a height ---------------------------------------------------------------------------------------------------

  async #height(height: Height) {
    const facts = await this.#heightFacts(height);
    return { replica: this.#named(this.#parts.replica.self), ...this.#heightForm(facts) };
  }

  async #heightFacts(height: Height): Promise<HeightFacts> {
    const { replica, desk } = this.#parts;
    const { log, genesis } = replica;
    // The log first: what is decided meanwhile is then decided for the core as well.
    const chain = await desk.chain(height);
    const explanation = replica.explainHeight(height);
    const isPruned = height < log.lowest && explanation.stage === 'decided';
    return {
      explanation: isPruned ? { ...explanation, stage: 'pruned' } : explanation,
      decided: chain === undefined ? null : decidedFacts(chain),
      head: replica.head().height,
      lowest: log.lowest,
      quorum: quorumsOf(genesis).quorum,
      members: genesis.members.length,
      trusted: !bearsLies(genesis.protocol),
      diagnosis: this.#diagnosis(),
    };
  }

  #heightForm(facts: HeightFacts) {
    const { explanation, decided, head, lowest, quorum, diagnosis } = facts;
    const { height, stage, view, candidates } = explanation;
    const named = (ids: readonly ReplicaId[]) => ids.map((id) => this.#named(id));
    return {
      height,
      stage,
      view,
      head,
      lowest,
      quorum,
      words: heightWords(facts, this.#speech()),
      decided:
        decided === null
          ? null
          : {
              ...decided,
              hash: toHex(decided.hash),
              proposer: this.#named(decided.proposer),
              certified: { ...decided.certified, signers: named(decided.certified.signers) },
            },
      candidates: candidates.map((candidate) => this.#candidateForm(candidate)),
      causes: stage === 'decided' || stage === 'pruned' ? [] : this.#causes(diagnosis),
    };
  }

  #candidateForm({ hash, block, prepares, commits, ...rest }: Candidate) {
    const named = (ids: readonly ReplicaId[]) => ids.map((id) => this.#named(id));
    return {
      hash: toHex(hash),
      block: block === null ? null : { ...block, proposer: this.#named(block.proposer) },
      prepares: named(prepares),
      commits: named(commits),
      ...rest,
    };
  }

  // ---- a bundle, or a transaction -----------------------------------------------------------------------------------

  async #bundle(asked: Hash) {
    const facts = await this.#bundleFacts(asked);
    const { stage, transaction, height, index, pool, refused, block, digest } = facts;
    return {
      replica: this.#named(this.#parts.replica.self),
      digest: toHex(asked),
      bundle: digest === null ? null : toHex(digest),
      transaction,
      stage,
      words: bundleWords(facts, this.#speech()),
      height,
      index,
      pool,
      refused,
      block: block === null ? null : this.#heightForm(block),
      causes: stage === 'pooled' ? this.#causes(facts.diagnosis) : [],
    };
  }

  async #bundleFacts(asked: Hash): Promise<BundleFacts & { readonly digest: Hash | null }> {
    const { replica, desk, refusals } = this.#parts;
    const explanation = replica.explain();
    const none = {
      digest: asked,
      transaction: null,
      height: null,
      index: null,
      pool: null,
      refused: null,
      block: null,
      diagnosis: this.#diagnosis(),
      primary: isBetweenViews(explanation) ? null : explanation.primary,
      self: replica.self,
    } as const;
    const delivered = await desk.find(asked);
    if (delivered !== null) {
      const { header } = delivered.maker.chain.block;
      return { ...none, stage: 'decided', height: header.height, index: delivered.receipt.firstTransaction };
    }
    const { digest, transaction, height, pool } = replica.explainBundle(asked);
    if (digest !== null && height !== null) {
      const block = await this.#heightFacts(height);
      const stage = stageIn(block);
      return { ...none, digest, transaction, stage, height, pool, block, diagnosis: block.diagnosis };
    }
    if (digest !== null && pool !== null) return { ...none, digest, transaction, stage: 'pooled', pool };
    const refused = refusals.of(asked);
    if (refused !== null) return { ...none, stage: refused.code === 'expired' ? 'expired' : 'refused', refused };
    const decided = await this.#decidedTransaction(asked);
    return decided === null ? { ...none, digest: null, stage: 'unknown' } : { ...none, ...decided };
  }

  /** The newest blocks, one by one, so that the loop takes its turns in between. */
  async #decidedTransaction(asked: Hash) {
    const { replica, desk } = this.#parts;
    const { sha256 } = replica.crypto;
    const head = replica.head().height;
    const lowest = Math.max(1, replica.log.lowest, head - blocksSearchedMax + 1);
    let bytes = 0;
    for (let height: number = head; height >= lowest && bytes <= bytesSearchedMax; height--) {
      const chain = await desk.chain(asHeight(height));
      if (chain === undefined) continue;
      let index = 0;
      for (const { digest, transactions, payload } of chain.block.bundles) {
        bytes += payload.length;
        const transaction = transactions.findIndex((each) => equalBytes(sha256(each), asked));
        if (transaction >= 0)
          return {
            stage: 'decided' as const,
            digest,
            transaction,
            height: chain.block.header.height,
            index: index + transaction,
          };
        index += transactions.length;
      }
    }
    return null;
  }

  // ---- shared -------------------------------------------------------------------------------------------------------

  #diagnosis(): Diagnosis {
    const { replica, draining } = this.#parts;
    return diagnose(reportOf(replica, draining()));
  }

  #causes({ causes }: Diagnosis) {
    const speech = this.#speech();
    return causes.map((cause) => ({ code: cause.code, words: causeWords(cause, speech) }));
  }

  #speech() {
    const { replica } = this.#parts;
    return speechOf(
      replica.explain(),
      replica.genesis.members.map(({ name }) => name),
    );
  }

  #named(replica: ReplicaId) {
    return { replica, name: this.#parts.replica.genesis.members[replica]?.name ?? `replica ${replica}` };
  }
}

function decidedFacts({ block, links, certificate }: Awaited<ReturnType<ReceiptDesk['chain']>> & object): DecidedFacts {
  const { header, hash } = block;
  return {
    hash,
    time: asMillis(header.time),
    proposer: header.proposer,
    bundles: header.bundleCount,
    transactions: header.transactionCount,
    certified: {
      height: asHeight(header.height + links.length),
      view: certificate.view,
      signers: certificate.signatures.map((by) => by.replica),
    },
  };
}

/** What a replica says of itself (daemon/why/diagnosis.ts). */
const reportOf = (replica: ReplicaPort, draining: boolean): Report => ({
  explanation: replica.explain(),
  draining,
  writingMs: Math.round(replica.writingMs()),
});

/** A bundle that is in a block stands where the block does. */
function stageIn({ explanation: { stage } }: HeightFacts): BundleStage {
  return stage === 'unknown' ? 'proposed' : stage === 'pruned' ? 'decided' : stage;
}
