// Submits what comes over HTTP as bundles of a client key of this replica's own. Requests that arrive together share a bundle, since
// one signature may stand for many transactions.
//
// Each of a few sessions has at most one bundle in flight. So a bundle that was refused leaves no gap behind it: its sequence is
// used again by the next one, and nothing is ever submitted twice. A request is refused only when it is certain that its transactions
// were not ordered and never will be, for whoever is refused sends again.

import { randomInt } from 'node:crypto';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import type { ClientSigner } from '../../keys/client-key.ts';
import { assert } from '../../protocol/assert.ts';
import { decodeBundle, encodeBundlePayload, isRefusal } from '../../protocol/codec.ts';
import { asHash, asHeight, type Hash, type Height } from '../../protocol/types.ts';
import { isControl, isControlSound } from '../../protocol/verify.ts';
import type { Delivered } from '../gateway/block-source.ts';
import type { DeskCode, ReceiptDesk, Waiting } from '../gateway/receipt-desk.ts';
import type { ReplicaPort } from '../ports.ts';
import type { Submission } from './submission.ts';

const sessionsMax = 8;
/** Requests that wait for a place in a bundle. */
const queuedJobsMax = 4096;
const queuedBytesMax = 16 << 20;
/** How long a bundle may be ordered, in blocks. After it, it is refused for ever, and its transactions may be sent again. */
const validBlocks = 4096;
/** New sessions tried for one request before it is given up. */
const attemptsMax = 3;

/** Why transactions were not taken, or will never be ordered. */
export type SubmitRefusal =
  | 'busy'
  | 'draining'
  | 'pool-full'
  | 'client-quota'
  | 'sessions-full'
  | 'control-refused'
  | 'not-ordered';

/** The bundle that carries the transactions of a request. */
export interface Placed {
  readonly digest: Hash;
  /** Index in the bundle of the request's first transaction. */
  readonly firstInBundle: number;
}

export interface CommittedJob extends Placed {
  /** Null: ordered, or perhaps ordered, in blocks that this replica does not have. Another one has the receipt, if there is one. */
  readonly delivered: Delivered | null;
}

type Outcome<T> = T | { readonly refused: SubmitRefusal };

/** One request's transactions on their way. Both promises always resolve, unless the replica never moves again. */
export interface Job {
  readonly transactions: readonly Bytes[];
  readonly accepted: Promise<Outcome<Placed>>;
  readonly committed: Promise<Outcome<CommittedJob>>;
  /** Where it is, as soon as it is signed; null while it waits for a bundle. */
  readonly placed: Placed | null;
}

interface OpenJob extends Job {
  placed: Placed | null;
  readonly bundleBytes: number;
  attempts: number;
  accept(outcome: Outcome<Placed>): void;
  commit(outcome: Outcome<CommittedJob>): void;
}

interface Session {
  id: number;
  /** Of the bundle in flight, or of the next one. */
  sequence: number;
  /** Height at which the replicas may forget this session (SES-3). */
  validUntil: number;
  flight: Flight | null;
}

interface Flight {
  readonly digest: Hash;
  readonly jobs: readonly OpenJob[];
  /** The decided height when it was signed: it can only stand above it. */
  readonly above: Height;
}

interface Landed extends Flight {
  readonly session: Session;
}

export class Submitter implements Waiting {
  readonly #replica: ReplicaPort;
  readonly #desk: ReceiptDesk;
  readonly #signer: ClientSigner;
  readonly #sessions: Session[] = Array.from({ length: sessionsMax }, newSession);
  readonly #byDigest = new Map<string, Session>();
  #queue: OpenJob[] = [];
  #queuedBytes = 0;
  #scheduled = false;
  #draining = false;

  constructor(options: { readonly replica: ReplicaPort; readonly desk: ReceiptDesk; readonly signer: ClientSigner }) {
    this.#replica = options.replica;
    this.#desk = options.desk;
    this.#signer = options.signer;
  }

  submit({ transactions, bundleBytes }: Submission): Job | { readonly refused: SubmitRefusal } {
    if (this.#draining) return { refused: 'draining' };
    // Peers would blame this replica for it, as for a bundle that is wrongly signed.
    if (!isControlSound({ transactions }, this.#replica.crypto, this.#replica.genesis.chainId))
      return { refused: 'control-refused' };
    if (this.#queue.length >= queuedJobsMax || this.#queuedBytes + bundleBytes > queuedBytesMax)
      return { refused: 'busy' };
    const job = openJob(transactions, bundleBytes);
    this.#queue.push(job);
    this.#queuedBytes += bundleBytes;
    this.#schedule();
    return job;
  }

  /** Takes a request back that has found no bundle yet; false: it is on its way already. */
  withdraw(job: Job): boolean {
    const index = this.#queue.findIndex(({ committed }) => committed === job.committed);
    if (index < 0) return false;
    for (const queued of this.#queue.splice(index, 1)) {
      this.#queuedBytes -= queued.bundleBytes;
      // For whoever has joined it, and so that its Idempotency-Key begins anew.
      refuse(queued, 'busy');
    }
    return true;
  }

  drain(): void {
    this.#draining = true;
    for (const job of this.#queue) refuse(job, 'draining');
    this.#queue = [];
    this.#queuedBytes = 0;
  }

  /**
   * [EPO-15] The epoch has ended: what is in flight goes on in the next one, with another submitter. Who waits for it is told where to ask, and not
   * made to wait until the doors close.
   */
  handOver(): void {
    this.drain();
    for (const { flight } of this.#sessions) {
      const landed = flight === null ? null : this.#land(flight.digest);
      if (landed !== null) this.#elsewhere(landed);
    }
  }

  // ---- from the desk ----

  delivered(bundles: readonly Delivered[]): void {
    for (const delivered of bundles) {
      const landed = this.#land(delivered.bundle.digest);
      if (landed === null) continue;
      landed.session.sequence += 1;
      for (const job of landed.jobs) {
        const placed = placeOf(job);
        job.accept(placed);
        job.commit({ ...placed, delivered });
      }
    }
    this.#schedule();
  }

  admission(digest: Hash, code: DeskCode, final: boolean): void {
    const flight = this.#byDigest.get(toHex(digest))?.flight;
    if (flight === undefined || flight === null) return;
    if (!final) {
      for (const job of flight.jobs) if (job.placed !== null) job.accept(job.placed);
      return;
    }
    // Its place stays taken until it was looked for, or the next bundle would have its sequence.
    if (code === 'expired') return void this.#expired(digest);
    const landed = this.#land(digest);
    if (landed === null) return;
    switch (code) {
      case 'sequence-passed':
      case 'busy':
        // Passed: this key signs here alone, and no more in a session where the fate of a bundle is unknown, so it is this very bundle that
        // was ordered, in blocks that this replica took over with a state. Busy: nobody could look whether it was.
        return this.#elsewhere(landed);
      case 'sequence-gap':
      case 'sequence-taken':
        // The session was forgotten: what was refused goes into a fresh one.
        renew(landed.session);
        return this.#again(landed.jobs);
      case 'sessions-full':
        // Sessions fall into parts of the table by chance; another one may find room.
        renew(landed.session);
        return this.#refuseAll(landed.jobs, 'sessions-full');
      case 'pool-full':
      case 'client-quota':
      case 'control-refused':
        return this.#refuseAll(landed.jobs, code);
      default:
        return this.#refuseAll(landed.jobs, 'not-ordered');
    }
  }

  /** Out of date: refused, if it stands in none of the blocks in which it could. After a state was taken over they may not be here. */
  async #expired(digest: Hash): Promise<void> {
    const looked = await this.#desk.look(digest).catch(() => null);
    if (looked?.found) return this.delivered([looked.found]);
    const landed = this.#land(digest);
    if (landed === null) return;
    const { session, above, jobs } = landed;
    if (looked === null || looked.lowest > above + 1 || looked.height < session.validUntil)
      return this.#elsewhere(landed);
    this.#refuseAll(jobs, 'not-ordered');
  }

  /** Ordered, or perhaps ordered, but not here: sent again it could be ordered twice. The request ends with where to ask for its receipt. */
  #elsewhere({ session, jobs }: Landed): void {
    renew(session);
    for (const job of jobs) {
      const placed = placeOf(job);
      job.accept(placed);
      job.commit({ ...placed, delivered: null });
    }
    this.#schedule();
  }

  // ---- out ----

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#fill();
    });
  }

  #fill(): void {
    for (const session of this.#sessions) {
      if (this.#queue.length === 0) return;
      if (session.flight === null) this.#send(session, this.#takeJobs());
    }
  }

  /** As many waiting requests as fit into one bundle, at least one. */
  #takeJobs(): OpenJob[] {
    const { bundleBytesMax, bundleTransactionsMax } = this.#replica.genesis.parameters;
    let bytes = 0;
    let transactions = 0;
    let count = 0;
    for (const job of this.#queue) {
      bytes += job.bundleBytes;
      transactions += job.transactions.length;
      // [EPO-8] A change of the epoch stands alone: nobody else's transactions are to be refused with it.
      const isAlone = job.transactions.some(isControl);
      if (count > 0 && (bytes > bundleBytesMax || transactions > bundleTransactionsMax || isAlone)) break;
      this.#queuedBytes -= job.bundleBytes;
      count += 1;
      if (isAlone) break;
    }
    return this.#queue.splice(0, count);
  }

  #send(session: Session, jobs: readonly OpenJob[]): void {
    const { crypto, genesis } = this.#replica;
    const { height } = this.#replica.head();
    // An idle session is given up well before the replicas forget it.
    if (session.sequence > 1 && session.validUntil - height < validBlocks / 4) renew(session);
    const validUntil = height + Math.min(validBlocks, genesis.parameters.validUntilHorizon);
    const payload = encodeBundlePayload({
      client: this.#signer.publicKey,
      session: session.id,
      sequence: session.sequence,
      validUntil: asHeight(validUntil),
      transactions: jobs.flatMap((job) => job.transactions),
    });
    const digest = asHash(crypto.sha256(payload));
    const signature = this.#signer.signBundle(digest);
    const bundle = decodeBundle({ payload, signature }, { sha256: crypto.sha256, parameters: genesis.parameters });
    // They were checked under the limits of an earlier epoch.
    if (isRefusal(bundle)) return this.#refuseAll(jobs, 'not-ordered');
    let firstInBundle = 0;
    for (const job of jobs) {
      job.placed = { digest, firstInBundle };
      firstInBundle += job.transactions.length;
    }
    session.validUntil = validUntil;
    session.flight = { digest, jobs, above: height };
    this.#byDigest.set(toHex(digest), session);
    if (this.#desk.wait(digest, this) && this.#replica.submit(bundle)) return;
    this.#desk.forget(digest, this);
    this.#land(digest);
    this.#refuseAll(jobs, 'busy');
  }

  /** The bundle is no longer in flight. */
  #land(digest: Hash): Landed | null {
    const key = toHex(digest);
    const session = this.#byDigest.get(key);
    const flight = session?.flight ?? null;
    if (session === undefined || flight === null) return null;
    this.#byDigest.delete(key);
    session.flight = null;
    return { ...flight, session };
  }

  #again(jobs: readonly OpenJob[]): void {
    const retried: OpenJob[] = [];
    for (const job of jobs) {
      job.attempts += 1;
      if (job.attempts >= attemptsMax || this.#draining) refuse(job, 'not-ordered');
      else {
        job.placed = null;
        this.#queuedBytes += job.bundleBytes;
        retried.push(job);
      }
    }
    this.#queue = [...retried, ...this.#queue];
    this.#schedule();
  }

  #refuseAll(jobs: readonly OpenJob[], refused: SubmitRefusal): void {
    for (const job of jobs) refuse(job, refused);
    this.#schedule();
  }
}

function newSession(): Session {
  // Drawn, so that no two processes with one key, one after the other or by mistake at once, meet in a session.
  return { id: randomInt(2 ** 47) * 64 + randomInt(64), sequence: 1, validUntil: 0, flight: null };
}

function renew(session: Session): void {
  Object.assign(session, newSession());
}

function openJob(transactions: readonly Bytes[], bundleBytes: number): OpenJob {
  const accepted = settleable<Outcome<Placed>>();
  const committed = settleable<Outcome<CommittedJob>>();
  return {
    transactions,
    bundleBytes,
    placed: null,
    attempts: 0,
    accepted: accepted.promise,
    committed: committed.promise,
    accept: accepted.resolve,
    commit: committed.resolve,
  };
}

function placeOf({ placed }: OpenJob): Placed {
  assert(placed !== null, 'a job in flight has its place');
  return placed;
}

function refuse(job: OpenJob, refused: SubmitRefusal): void {
  job.accept({ refused });
  job.commit({ refused });
}

function settleable<T>(): { readonly promise: Promise<T>; resolve(value: T): void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
