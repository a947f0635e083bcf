// POST /v1/transactions: takes transactions, and answers when they are accepted, or decided with a receipt for each.

import { createHash } from 'node:crypto';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import type { Parameters } from '../../protocol/genesis.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { type BodyBudget, readBody } from './body.ts';
import { type Exchange, integer, isFault, json, type Reply, word } from './exchange.ts';
import { committedForm, type Part, receiptsFit } from './forms.ts';
import { IdempotencyKeys } from './idempotency.ts';
import { type Problem, problem } from './problem.ts';
import { parseSubmission } from './submission.ts';
import type { Job, SubmitRefusal, Submitter } from './submitter.ts';

const waitMsDefault = 10_000;
export const waitMsMax = 60_000;

/** What surrounds the transactions in a JSON body of the largest bundle. */
const bodyOverheadBytes = 16 << 10;

const sentences: Record<SubmitRefusal, string> = {
  busy: 'this replica takes no more at the moment',
  draining: 'this replica is shutting down',
  'pool-full': 'too many bundles wait to be ordered',
  'client-quota': 'too many transactions of this door wait to be ordered',
  'sessions-full': 'the chain has no room for another session',
  'control-refused': 'the change of the epoch does not hold, or may not end this epoch; `synod control show` says why',
  'not-ordered': 'the transactions were not ordered and never will be, so they may be sent again',
};

export interface TransactionsOptions {
  readonly submitter: Submitter | null;
  /** Of the epoch at hand. */
  readonly parameters: () => Parameters;
  readonly budget: BodyBudget;
  readonly epochs: EpochChain;
}

export class Transactions {
  readonly #options: TransactionsOptions;
  readonly #keys = new IdempotencyKeys();

  constructor(options: TransactionsOptions) {
    this.#options = options;
  }

  async post({ request, query, gone }: Exchange): Promise<Reply | Problem> {
    const { submitter, budget } = this.#options;
    const parameters = this.#options.parameters();
    if (submitter === null) return problem('submissions-disabled', 'this replica has no client key of its own');
    const wait = word(query.get('wait'), { name: 'wait', words: ['committed', 'accepted'] });
    const receipts = word(query.get('receipts'), { name: 'receipts', words: ['each', 'none'] });
    const waitMs = integer(query.get('timeout'), { name: 'timeout', min: 1, max: waitMsMax, fallback: waitMsDefault });
    if (isFault(wait)) return wait;
    if (isFault(receipts)) return receipts;
    if (isFault(waitMs)) return waitMs;
    // Hex is the wider of the two encodings.
    const body = await readBody(request, { bytesMax: 2 * parameters.bundleBytesMax + bodyOverheadBytes, budget });
    if (body === null) return problem('request-malformed', 'the body was cut off');
    if (isFault(body)) return body;
    const job = this.#submit(submitter, body, request.headers);
    if (isFault(job)) return job;
    const stop = new AbortController();
    const late = after(waitMs, stop.signal);
    try {
      return await this.#follow({
        submitter,
        job,
        wait,
        withReceipts: receipts === 'each',
        late: Promise.race([late, gone.then(() => null)]),
      });
    } finally {
      stop.abort();
    }
  }

  #submit(submitter: Submitter, body: Bytes, headers: Exchange['request']['headers']): Job | Problem {
    const key = headers['idempotency-key'];
    const known = this.#keys.find(key, () => digestOf(body, headers['content-type']));
    if (known !== null) return known;
    const submission = parseSubmission(body, headers['content-type'], this.#options.parameters());
    if (isFault(submission)) return submission;
    const job = submitter.submit(submission);
    if ('refused' in job) return refusal(job.refused);
    this.#keys.keep(key, () => digestOf(body, headers['content-type']), job);
    return job;
  }

  async #follow(following: Following): Promise<Reply | Problem> {
    const { job, wait, withReceipts, late } = following;
    const count = job.transactions.length;
    if (wait === 'accepted') {
      const placed = await Promise.race([job.accepted, late]);
      if (placed === null) return this.#late(following);
      if ('refused' in placed) return refusal(placed.refused);
      return underWay('accepted', toHex(placed.digest), { first: placed.firstInBundle, count });
    }
    const committed = await Promise.race([job.committed, late]);
    if (committed === null) return this.#late(following);
    if ('refused' in committed) return refusal(committed.refused);
    const { digest, delivered } = committed;
    const part: Part = { first: committed.firstInBundle, count };
    if (delivered === null) return underWay('pending', toHex(digest), part);
    const { epochs } = this.#options;
    // It is decided, so it must never look refused: where memory is short the receipts are left for the client to fetch.
    const lean = () => json(200, committedForm(delivered, part, null));
    if (!withReceipts || !receiptsFit(delivered.receipt.certificate.epoch, count, epochs)) return lean();
    return { ...json(200, committedForm(delivered, part, epochs)), lean };
  }

  #late({ submitter, job }: Following): Reply | Problem {
    const { placed } = job;
    if (placed !== null)
      return underWay('pending', toHex(placed.digest), { first: placed.firstInBundle, count: job.transactions.length });
    submitter.withdraw(job);
    return refusal('busy');
  }
}

interface Following {
  readonly submitter: Submitter;
  readonly job: Job;
  readonly wait: 'accepted' | 'committed';
  readonly withReceipts: boolean;
  readonly late: Promise<null>;
}

/** Taken, and not known to be decided: where to ask for the rest. */
function underWay(status: 'accepted' | 'pending', bundle: string, { first, count }: Part): Reply {
  const location = `/v1/bundles/${bundle}?first=${first}&count=${count}`;
  return json(202, { status, bundle, firstInBundle: first, transactionCount: count, location }, { location });
}

function refusal(refused: SubmitRefusal): Problem {
  return problem(refused, sentences[refused], { retryAfterSeconds: 1 });
}

function digestOf(body: Bytes, contentType: string | undefined): string {
  return createHash('sha256')
    .update(body)
    .update(contentType ?? '')
    .digest('hex');
}

function after(ms: number, signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve(null);
    });
  });
}
