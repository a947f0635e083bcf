// The submitting side of a client: signs bundles in order, keeps several in flight, and stays with each until its fate is certain.
//
// Certain means: a receipt that verifies, or f+1 replicas that each show, in answer to a question of this client, that the bundle
// can never be ordered (doubts.ts). One honest replica is among any f+1. Everything else is a reason to ask again.

import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import type { WireContext } from '../protocol/codec.ts';
import type { BundleAdmission, Receipts } from '../protocol/door.ts';
import { storedParameters } from '../protocol/genesis.ts';
import { type Height, plus } from '../protocol/types.ts';
import type { ChainView } from './chain-view.ts';
import type { BlockTrust } from './committed.ts';
import { Doubts } from './doubts.ts';
import { ClientError } from './errors.ts';
import { type Doubt, type DoubtCode, type InFlight, keyOf, signBundle, signedTransactions } from './in-flight.ts';
import type { Link } from './link.ts';
import type { Settings } from './options.ts';
import { SubmitQueue } from './queue.ts';
import { randomSession, soon } from './runtime.ts';

/** Bundles sent again when nothing moves; the rest follows as soon as something does. */
const retryBundlesMax = 16;
/** Unsent bytes on a connection above which no new bundle is signed for it. */
const unsentBytesMax = 8 << 20;
/** Pause after a refusal for lack of room: doubles from the first to the second, with jitter. */
const pauseMsMin = 5;
const pauseMsMax = 1_000;
/** The pause between retries doubles this often at most. */
const retryDoublingsMax = 4;

export interface PipelineWorld {
  readonly settings: Settings;
  readonly crypto: Crypto;
  readonly signer: ClientSigner;
  readonly chain: ChainView;
  readonly trust: BlockTrust;
  /** All replicas given, by place in the member list. */
  readonly links: readonly Link[];
  readonly newSession: (session: number) => void;
  /** A receipt of an epoch that is not known here. */
  readonly outdated: (link: Link) => void;
}

export class Pipeline {
  readonly queue: SubmitQueue;
  readonly #world: PipelineWorld;
  /** By digest, in the order of their sequences; at most bundlesInFlightMax. */
  readonly #flight = new Map<string, InFlight>();
  readonly #doubts: Doubts;
  /** `used`: it has signed a bundle here. `validUntil`: of the last one. */
  #session: { readonly id: number; next: number; validUntil: Height; used: boolean };
  /** Bundles that may be in flight now: halved when replicas lack room, grown by one with each receipt. */
  #window: number;
  /** Set while nothing is sent, since a replica has no room. */
  #pauseTimer: ReturnType<typeof setTimeout> | undefined;
  #pauseMs = pauseMsMin;
  /** When the oldest bundle is looked at, and which it was the last time. */
  #witnessAt = 0;
  #watched: InFlight | undefined;
  /** When the oldest bundles are sent again; each time without progress doubles the wait. */
  #retryAt = Number.POSITIVE_INFINITY;
  #retries = 0;
  #pumping = false;
  #closed = false;

  constructor(world: PipelineWorld) {
    this.#world = world;
    const { settings, chain, links } = world;
    this.#doubts = new Doubts({
      chain,
      links,
      askAgainMs: () => chain.parameters.viewTimeoutMs,
      answerMsMax: settings.silenceMsMax,
      reject: (bundle, code) => this.#reject(bundle, code),
    });
    const { id, firstSequence } = settings.session ?? { id: randomSession(), firstSequence: 1 };
    this.#session = { id, next: firstSequence, validUntil: chain.height, used: false };
    this.#window = settings.bundlesInFlightMax;
    this.queue = new SubmitQueue(chain.parameters, settings, () => this.schedule());
  }

  /** Other members, and other limits; what is in flight goes to them as it is. */
  enter(): void {
    this.queue.enter(this.#world.chain.parameters);
    this.#doubts.enter();
    this.#progress(performance.now());
    this.retarget();
  }

  get session(): number {
    return this.#session.id;
  }

  get inFlight(): number {
    return this.#flight.size;
  }

  /** Signs and sends at the end of this turn what may be sent: whoever submits in the same turn comes along. */
  schedule(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    soon(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  #pump(): void {
    const now = performance.now();
    const targets = this.#targets();
    if (this.#closed || targets.length === 0 || this.#pauseTimer !== undefined) return;
    while (
      this.#flight.size < Math.floor(this.#window) &&
      targets.every((link) => link.unsentBytes <= unsentBytesMax)
    ) {
      const batch = this.queue.take(this.#flight.size === 0);
      if (batch === undefined) return;
      const { id, next } = this.#sessionFor();
      const { chain, settings, signer, crypto } = this.#world;
      const validBlocks = Math.min(settings.validBlocks, chain.parameters.validUntilHorizon);
      const validUntil = plus.height(chain.height, validBlocks);
      const bundle = signBundle(
        { batch, session: id, sequence: next, validUntil, signedAt: chain.height },
        signer,
        crypto,
      );
      this.#session.next += 1;
      this.#session.validUntil = validUntil;
      this.#session.used = true;
      if (this.#flight.size === 0) this.#progress(now);
      this.#flight.set(bundle.key, bundle);
      for (const link of targets) this.#send(link, bundle);
    }
  }

  /**
   * Replicas forget a session when the chain has passed the valid-until of its last bundle (SES-3); from then on only a new
   * session may begin. So an idle one is given up well before that.
   */
  #sessionFor(): { readonly id: number; readonly next: number } {
    const { chain, settings } = this.#world;
    const soonForgotten = this.#session.validUntil < plus.height(chain.height, Math.floor(settings.validBlocks / 2));
    if (this.#session.used && this.#flight.size === 0 && soonForgotten) this.#begin();
    return this.#session;
  }

  #begin(): void {
    this.#session = { id: randomSession(), next: 1, validUntil: this.#world.chain.height, used: false };
    this.#world.newSession(this.#session.id);
  }

  /** The primary, or while it is away or under suspicion f+1 others, those first who lead next. */
  #targets(): Link[] {
    const { chain, links } = this.#world;
    const primary = links.find(({ id }) => id === chain.primary);
    if (primary?.trusted === true) return [primary];
    return this.#others().slice(0, chain.quorums.oneHonest);
  }

  /** Working connections but the primary's, in the order in which they would lead, the suspected last. */
  #others(): Link[] {
    const { chain, links } = this.#world;
    const turn = ({ id }: Link) => (id - chain.primary + chain.quorums.n) % chain.quorums.n;
    return links
      .filter((link) => link.open && link.id !== chain.primary)
      .sort((a, b) => Number(b.trusted) - Number(a.trusted) || turn(a) - turn(b));
  }

  #send(link: Link, bundle: InFlight): void {
    if (!bundle.sentOn.includes(link.connection)) bundle.sentOn.push(link.connection);
    link.sendFrame(bundle.frame);
  }

  /** Everything in flight that these have not got on their present connection, in order. */
  #catchUp(targets: readonly Link[]): void {
    for (const link of targets) {
      for (const bundle of this.#flight.values())
        if (!bundle.sentOn.includes(link.connection)) this.#send(link, bundle);
    }
  }

  /** Something moved: the clock of the retries starts again. */
  #progress(now: number): void {
    this.#retries = 0;
    this.#retryAt = now + this.#world.settings.retryMs;
  }

  /** A connection came or went, or another replica leads: who is to be told may have changed. */
  retarget(): void {
    if (this.#closed) return;
    if (this.#pauseTimer === undefined) this.#catchUp(this.#targets());
    this.schedule();
  }

  /** Called by the client every few milliseconds. */
  tick(now: number): void {
    if (this.#flight.size === 0) return;
    for (const bundle of this.#flight.values()) {
      if (bundle.validUntil > this.#world.chain.height) break;
      this.#doubts.expire(bundle);
    }
    this.#doubts.tick(now);
    if (now >= this.#retryAt) this.#retry(now);
    else if (now >= this.#witnessAt) this.#witness(now);
  }

  /** What only the primary knows, nobody can time: a bundle that was the oldest at the last look as well goes to others, once. */
  #witness(now: number): void {
    const { settings, chain } = this.#world;
    this.#witnessAt = now + settings.witnessMs;
    const oldest = this.#flight.values().next().value;
    if (oldest !== undefined && oldest === this.#watched)
      for (const link of this.#others().slice(0, chain.quorums.oneHonest))
        if (!oldest.sentOn.includes(link.connection)) this.#send(link, oldest);
    this.#watched = oldest;
  }

  #retry(now: number): void {
    const { settings, chain } = this.#world;
    this.#retries += 1;
    this.#retryAt = now + settings.retryMs * 2 ** Math.min(this.#retries, retryDoublingsMax);
    const others = this.#others();
    const primary = this.#world.links.filter((link) => link.open && link.id === chain.primary);
    const told = [...primary, ...(this.#retries === 1 ? others.slice(0, chain.quorums.oneHonest) : others)];
    let count = 0;
    for (const bundle of this.#flight.values()) {
      if (count === 0) for (const link of told) this.#doubts.ask(link, bundle, now);
      count += 1;
      if (count > retryBundlesMax) return;
      for (const link of told) this.#send(link, bundle);
    }
  }

  // ---- what replicas say ---------------------------------------------------------------------------------------------

  admission(link: Link, { digest, code, height }: BundleAdmission): void {
    const bundle = this.#flight.get(keyOf(digest));
    if (bundle === undefined) return;
    switch (code) {
      case 'pooled':
      case 'known':
        for (const waiter of bundle.batch.waiters) {
          waiter.accepted?.(link.name);
          waiter.accepted = null;
        }
        return;
      case 'sequence-gap':
        // It lacks an earlier one, whatever it said before: all of them again, in order, after a pause.
        for (const earlier of this.#flight.values()) forget(earlier, link.connection);
        this.#pause(link, bundle, false);
        return;
      case 'pool-full':
      case 'client-quota':
      case 'busy':
      case 'sessions-full':
        this.#pause(link, bundle, true);
        return;
      case 'control-refused':
        // Of this replica's epoch and height, so no verdict for good: it ends at the latest with the bundle's valid-until.
        this.#pause(link, bundle, false);
        return;
      case 'valid-until-too-far':
        // The chain's head is certified, so this replica is far behind; others are not.
        forget(bundle, link.connection);
        return;
      case 'sequence-taken':
        // Somebody else signs with this key and session. Which of the two is ordered is not decided yet.
        this.#pause(link, bundle, false);
        return;
      case 'expired':
        // Whoever is not there yet cannot know.
        if (height >= bundle.validUntil) this.#doubt(link, bundle, { code, height });
        return;
      case 'sequence-passed':
      case 'bundle-invalid':
        this.#doubt(link, bundle, { code, height });
        return;
    }
  }

  #pause(link: Link, bundle: InFlight, crowded: boolean): void {
    forget(bundle, link.connection);
    // A replica that is only asked in passing does not set the pace.
    if (this.#pauseTimer !== undefined || !this.#targets().includes(link)) return;
    this.#pauseTimer = setTimeout(
      () => {
        this.#pauseTimer = undefined;
        this.retarget();
      },
      this.#pauseMs * (0.5 + Math.random()),
    );
    this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMsMax);
    if (crowded) this.#window = Math.max(1, this.#window / 2);
  }

  receipts(link: Link, { answer, receipts }: Receipts): void {
    if (answer !== null && receipts.length === 0) {
      this.#doubts.denied(link, answer);
      return;
    }
    for (const receipt of receipts) {
      const bundle = this.#flight.get(keyOf(receipt.digest));
      // Most often one that several replicas answered.
      if (bundle === undefined) continue;
      this.#doubts.answered(link, bundle);
      const { batch, digest } = bundle;
      const { transactions } = batch;
      const signed = () => signedTransactions(bundle, this.#wire());
      const committed = this.#world.trust.committed({ receipt, digest, transactions, signed });
      if ('refused' in committed) {
        // Proved by members who are not known yet; it is asked for again when they are.
        if (committed.refused === 'certificate-epoch') return this.#world.outdated(link);
        link.suspect(committed.refused);
        return;
      }
      this.#settle(bundle);
      this.#progress(performance.now());
      this.#window = Math.min(this.#window + 1, this.#world.settings.bundlesInFlightMax);
      this.#pauseMs = pauseMsMin;
      for (const [place, waiter] of batch.waiters.entries()) waiter.committed(committed, place);
    }
    this.schedule();
  }

  /** What was signed may have been signed under the limits of an earlier epoch. */
  #wire(): WireContext {
    const { crypto, chain } = this.#world;
    return { sha256: crypto.sha256, parameters: storedParameters(chain.parameters) };
  }

  #settle(bundle: InFlight): void {
    this.#flight.delete(bundle.key);
    this.#doubts.drop(bundle);
    if (this.#flight.size === 0) this.#retryAt = Number.POSITIVE_INFINITY;
  }

  // ---- the end of hope -----------------------------------------------------------------------------------------------

  #doubt(link: Link, bundle: InFlight, claim: Pick<Doubt, 'code' | 'height'>): void {
    if (!this.#doubts.claim(link, bundle, claim)) return;
    // One voice is none: the others take the bundle, or say the same.
    for (const other of this.#others()) if (!bundle.sentOn.includes(other.connection)) this.#send(other, bundle);
  }

  #reject(bundle: InFlight, code: DoubtCode): void {
    const { session, sequence, validUntil } = bundle;
    const never = code === 'expired' || code === 'bundle-invalid';
    const later = !never
      ? []
      : [...this.#flight.values()].filter((other) => other.session === session && other.sequence > sequence);
    this.#settle(bundle);
    const error = new ClientError(code, { session, sequence, validUntil });
    for (const waiter of bundle.batch.waiters) waiter.failed(error);
    // If something stands in its place the session goes on. If nothing ever will it has a gap, so nothing after it can be ordered; and
    // what waits here was meant to come after it, so its owner decides.
    if (never) {
      const ended = new ClientError('session-ended', { session, sequence, because: code });
      for (const other of later) {
        this.#settle(other);
        for (const waiter of other.batch.waiters) waiter.failed(ended);
      }
      this.queue.fail(ended);
      if (this.#session.id === session) this.#begin();
    }
    this.schedule();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#pauseTimer);
    const error = new ClientError('closed');
    for (const bundle of [...this.#flight.values()]) {
      this.#settle(bundle);
      for (const waiter of bundle.batch.waiters) waiter.failed(error);
    }
    this.queue.fail(error);
  }
}

function forget(bundle: InFlight, connection: number): void {
  bundle.sentOn = bundle.sentOn.filter((other) => other !== connection);
}
