// Admitted bundles that are not yet decided. Bounded; fair between clients; knows what could stand in the next block, and since when.

import { toHex } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { SignedBundle } from './bundle.ts';
import type { AdmissionCode } from './core.ts';
import { blockTransactionsMax, type Parameters } from './genesis.ts';
import type { Extension, Ledger } from './ledger.ts';
import type { SessionKey } from './sessions.ts';
import { sessionKey } from './sessions.ts';
import type { Hash, Height, Hex, Millis } from './types.ts';
import { plus } from './types.ts';

export const POOL_LIMITS = {
  poolBundlesMax: 16_384,
  /** In bytes of memory (`costOf`). */
  poolCostMax: 160 << 20,
  /** How far ahead of the last decided one a session's sequence may run. */
  sessionWindowMax: 4_096,
} as const;

/** What a transaction takes beside its bytes: a view of them, and the hash of its leaf (350 bytes of heap, measured). */
const TRANSACTION_COST = 384;

/** Bytes of memory that a bundle takes. Its length says little: a thousand transactions of one byte each are 3 KiB of it, and a hundred times that here. */
export const costOf = ({ payload, transactions }: SignedBundle): number =>
  payload.length + TRANSACTION_COST * transactions.length;

interface Entry {
  readonly bundle: SignedBundle;
  readonly client: Client;
  readonly session: Queue;
  readonly arrivedAt: Millis;
  /** Blocks decided here, and bundles waiting here, when it came: what a fair primary may put before it. */
  readonly blocksBefore: Blocks;
  readonly waitingBefore: number;
  /** When it was last handed on to the primary, and to everyone. */
  forwardedAt: Millis | null;
  spreadAt: Millis | null;
  /** When it was first handed on to the primary of this view; null: not yet. */
  handedAt: Millis | null;
  /** It stands in a block that was accepted in this view. */
  proposed: boolean;
}

interface Queue {
  readonly key: SessionKey;
  readonly bySequence: Map<number, Entry>;
  /** When the session last moved, and the blocks until then: only from then on could its next bundle be ordered. */
  advanced: { readonly at: Millis; readonly blocks: Blocks } | null;
}

interface Client {
  readonly name: Hex;
  readonly sessions: Map<SessionKey, Queue>;
  bundles: number;
  cost: number;
}

/** Counters of decided blocks. */
interface Blocks {
  readonly all: number;
  /** Those that had room for one more bundle. */
  readonly roomy: number;
}

/** A bundle that has waited, with what says whether the primary is to blame. */
export interface Waiting {
  readonly bundle: SignedBundle;
  readonly since: Millis;
  /** Blocks that were decided without it, while it could have stood in them and this view's primary proposed. */
  readonly passedOver: Blocks;
  /** Bundles that may rightly stand before it. */
  readonly waitingBefore: number;
}

const hex = (digest: Hash): Hex => toHex(digest) as Hex; // toHex of 32 bytes is what Hex means

/** Bundles that are looked at for one that the primary owes: those before it can stand nowhere, and the next sweep takes them away. */
const OWED_LOOKED_AT_MAX = 16;

export class Pool {
  readonly #entries = new Map<Hex, Entry>();
  /** In turn: whoever was served goes to the end. */
  readonly #clients = new Map<Hex, Client>();
  /** Admitted since takeFresh was last called. */
  #fresh: Entry[] = [];
  /** Handed on to the primary of this view and not yet in a block of it, in that order. */
  readonly #owed = new Map<Hex, Entry>();
  /** When a block without room for one more was last accepted: until then, whoever waits came too late for it. */
  #fullAt: Millis | null = null;
  #bytes = 0;
  #cost = 0;
  #blocks: Blocks = { all: 0, roomy: 0 };
  /** Where the counters stood, and how many waited, when the view began. */
  #view: { readonly blocks: Blocks; readonly waiting: number } = { blocks: { all: 0, roomy: 0 }, waiting: 0 };
  readonly #limits = POOL_LIMITS;

  get bundles(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes of memory. */
  get cost(): number {
    return this.#cost;
  }

  /** When the bundle came that has waited longest; null: none waits. */
  get oldestAt(): Millis | null {
    return this.#entries.values().next().value?.arrivedAt ?? null;
  }

  *waiting(): Generator<SignedBundle> {
    for (const { bundle } of this.#entries.values()) yield bundle;
  }

  /** Since when a bundle waits, and behind how many that came before it; undefined: it does not. Walks the pool. */
  place(
    digest: Hash,
  ): { readonly since: Millis; readonly ahead: number; readonly forwardedAt: Millis | null } | undefined {
    const entry = this.#entries.get(hex(digest));
    if (entry === undefined) return undefined;
    let ahead = 0;
    for (const other of this.#entries.values()) {
      if (other === entry) break;
      ahead += 1;
    }
    return { since: entry.arrivedAt, ahead, forwardedAt: entry.forwardedAt };
  }

  has(digest: Hash): boolean {
    return this.#entries.has(hex(digest));
  }

  get(digest: Hash): SignedBundle | undefined {
    return this.#entries.get(hex(digest))?.bundle;
  }

  /** [REQ-3] Takes the bundle in ('pooled'), or says why not. Its form and signature have been checked. */
  admit(
    bundle: SignedBundle,
    {
      now,
      ledger,
      chain,
      parameters,
    }: { now: Millis; ledger: Ledger; chain: readonly Extension[]; parameters: Parameters },
  ): AdmissionCode {
    const digest = hex(bundle.digest);
    if (this.#entries.has(digest)) return 'known';
    const nextHeight = plus.height(ledger.height, 1);
    if (bundle.validUntil < nextHeight) return 'expired';
    if (bundle.validUntil > nextHeight + parameters.validUntilHorizon - 1) return 'valid-until-too-far';
    const nextSequence = ledger.nextSequence([], bundle, nextHeight);
    if (bundle.sequence < nextSequence) return 'sequence-passed';
    if (bundle.sequence >= nextSequence + this.#limits.sessionWindowMax) return 'sequence-gap';
    const name = toHex(bundle.client) as Hex; // as above
    const client = this.#clients.get(name) ?? { name, sessions: new Map(), bundles: 0, cost: 0 };
    const key = sessionKey(bundle);
    const session = client.sessions.get(key) ?? { key, bySequence: new Map<number, Entry>(), advanced: null };
    if (session.bySequence.has(bundle.sequence)) return 'sequence-taken';
    // Without gaps: what is admitted can be ordered, so nobody fills the pool with what never can be (REQ-4).
    const isNext = bundle.sequence <= ledger.nextSequence(chain, bundle, nextHeight);
    if (!isNext && !session.bySequence.has(bundle.sequence - 1)) return 'sequence-gap';
    if (nextSequence === 1 && ledger.isSessionTableFull(bundle, nextHeight)) return 'sessions-full';
    if (ledger.controlProblem(bundle, nextHeight) !== null) return 'control-refused'; // EPO-7
    const cost = costOf(bundle);
    const { poolBundlesMax, poolCostMax } = this.#limits;
    if (this.#entries.size >= poolBundlesMax || this.#cost + cost > poolCostMax) return 'pool-full';
    // [REQ-4] One that floods leaves room for the others.
    const share = parameters.clientPoolPercent / 100;
    if (client.bundles >= poolBundlesMax * share || client.cost + cost > poolCostMax * share) return 'client-quota';

    const entry: Entry = {
      bundle,
      client,
      session,
      arrivedAt: now,
      blocksBefore: this.#blocks,
      waitingBefore: this.#entries.size,
      forwardedAt: null,
      spreadAt: null,
      handedAt: null,
      proposed: false,
    };
    this.#clients.set(name, client);
    client.sessions.set(key, session);
    this.#put(entry);
    this.#fresh.push(entry);
    return 'pooled';
  }

  /** [REQ-4] What may stand in the next block on top of `chain`: client by client in turn, each session in order, within the block's limits. */
  pick(chain: readonly Extension[], ledger: Ledger, parameters: Parameters): SignedBundle[] {
    const height = plus.height(ledger.height, chain.length + 1);
    const picked: SignedBundle[] = [];
    const transactionsMax = blockTransactionsMax(parameters);
    let bytes = 0;
    let transactions = 0;
    const nextOf = new Map<SessionKey, number>();
    let turn = [...this.#clients.values()];
    while (turn.length > 0) {
      const again: Client[] = [];
      for (const client of turn) {
        const entry = this.#nextOf(client, nextOf, (bundle) => ledger.nextSequence(chain, bundle, height), height);
        if (entry === undefined) continue;
        if (
          picked.length >= parameters.blockBundlesMax ||
          bytes + entry.bundle.payload.length > parameters.blockBytesMax ||
          transactions + entry.bundle.transactions.length > transactionsMax
        ) {
          // Who was left out comes first next time.
          this.#rotateTo(client);
          return picked;
        }
        picked.push(entry.bundle);
        // In turn here too: one session of a client never starves another.
        client.sessions.delete(entry.session.key);
        client.sessions.set(entry.session.key, entry.session);
        bytes += entry.bundle.payload.length;
        transactions += entry.bundle.transactions.length;
        nextOf.set(entry.session.key, entry.bundle.sequence + 1);
        again.push(client);
      }
      turn = again;
    }
    return picked;
  }

  #nextOf(
    client: Client,
    nextOf: Map<SessionKey, number>,
    fromLedger: (bundle: SignedBundle) => number,
    height: Height,
  ): Entry | undefined {
    for (const session of client.sessions.values()) {
      let sequence = nextOf.get(session.key);
      if (sequence === undefined) {
        const any = session.bySequence.values().next().value;
        if (any === undefined) continue;
        sequence = fromLedger(any.bundle);
        nextOf.set(session.key, sequence);
      }
      const entry = session.bySequence.get(sequence);
      if (entry !== undefined && entry.bundle.validUntil >= height) return entry;
    }
    return undefined;
  }

  #rotateTo(first: Client): void {
    for (const client of [...this.#clients.values()]) {
      if (client === first) return;
      this.#clients.delete(client.name);
      this.#clients.set(client.name, client);
    }
  }

  /** A block was decided: its bundles leave, and what can never be ordered after it is given back (REQ-3). */
  settle(
    bundles: readonly SignedBundle[],
    { now, hadRoom }: { now: Millis; hadRoom: boolean },
  ): { readonly digest: Hash; readonly code: AdmissionCode }[] {
    const dropped: { digest: Hash; code: AdmissionCode }[] = [];
    this.#blocks = { all: this.#blocks.all + 1, roomy: this.#blocks.roomy + (hadRoom ? 1 : 0) };
    for (const bundle of bundles) {
      const own = this.#entries.get(hex(bundle.digest));
      if (own !== undefined) this.#remove(own);
      const client = this.#clients.get(toHex(bundle.client) as Hex); // as above
      const session = client?.sessions.get(sessionKey(bundle));
      if (session === undefined) continue;
      session.advanced = { at: now, blocks: this.#blocks };
      const rival = session.bySequence.get(bundle.sequence);
      if (rival === undefined) continue;
      this.#remove(rival);
      dropped.push({ digest: rival.bundle.digest, code: 'sequence-passed' });
    }
    return dropped;
  }

  /** Drops what is past its valid-until height, or was passed by its session. Walks the pool: called now and then, not at each block. */
  sweep(ledger: Ledger): { readonly digest: Hash; readonly code: AdmissionCode }[] {
    const nextHeight = plus.height(ledger.height, 1);
    const dropped: { digest: Hash; code: AdmissionCode }[] = [];
    const drop = (entry: Entry, code: AdmissionCode) => {
      this.#remove(entry);
      dropped.push({ digest: entry.bundle.digest, code });
    };
    for (const entry of [...this.#entries.values()]) {
      if (!this.#entries.has(hex(entry.bundle.digest))) continue;
      const { sequence, validUntil } = entry.bundle;
      if (sequence < ledger.nextSequence([], entry.bundle, nextHeight)) drop(entry, 'sequence-passed');
      else if (validUntil < nextHeight || ledger.controlProblem(entry.bundle, nextHeight) !== null) {
        drop(entry, validUntil < nextHeight ? 'expired' : 'control-refused');
        // What came after it in its session now follows a gap that nobody will fill.
        for (let next = sequence + 1; ; next++) {
          const follower = entry.session.bySequence.get(next);
          if (follower === undefined) break;
          drop(follower, 'sequence-gap');
        }
      }
    }
    return dropped;
  }

  /** What was admitted since the last call and is still here. */
  takeFresh(): SignedBundle[] {
    const fresh = this.#fresh.filter((entry) => this.#entries.get(hex(entry.bundle.digest)) === entry);
    this.#fresh = [];
    return fresh.map((entry) => entry.bundle);
  }

  markForwarded(bundles: readonly SignedBundle[], now: Millis): void {
    for (const bundle of bundles) {
      const entry = this.#entries.get(hex(bundle.digest));
      if (entry !== undefined) this.#handOn(entry, now);
    }
  }

  #handOn(entry: Entry, now: Millis): void {
    entry.forwardedAt = now;
    if (entry.handedAt !== null) return;
    entry.handedAt = now;
    if (!entry.proposed) this.#owed.set(hex(entry.bundle.digest), entry);
  }

  /** A block was accepted in this view: its primary owes these no more. */
  noteProposed(bundles: readonly SignedBundle[], { now, hadRoom }: { now: Millis; hadRoom: boolean }): void {
    for (const { digest } of bundles) {
      const key = hex(digest);
      const entry = this.#entries.get(key);
      if (entry === undefined) continue;
      entry.proposed = true;
      this.#owed.delete(key);
    }
    if (!hadRoom) this.#fullAt = now;
  }

  /**
   * [PACE-1] Since when the primary could have proposed a bundle that it was given and that may stand in the next block on top of `chain`; null:
   * it owes none.
   */
  owedSince(ledger: Ledger, chain: readonly Extension[]): Millis | null {
    const height = plus.height(ledger.height, chain.length + 1);
    let looked = 0;
    for (const { bundle, handedAt } of this.#owed.values()) {
      if (++looked > OWED_LOOKED_AT_MAX) break;
      if (bundle.validUntil < height) continue;
      const next = ledger.nextSequence(chain, bundle, height);
      if (next !== bundle.sequence || (next === 1 && ledger.isSessionTableFull(bundle, height))) continue;
      return Math.max(handedAt ?? 0, this.#fullAt ?? 0) as Millis; // the later of branded numbers; what is owed was handed on
    }
    return null;
  }

  /** [REQ-1] Bundles to hand on to the primary: those never handed on to it, or not since `before`. At most `most` of them. */
  toForward(now: Millis, before: Millis, most: number): SignedBundle[] {
    const due: SignedBundle[] = [];
    for (const entry of this.#entries.values()) {
      if (due.length >= most) break;
      if (entry.forwardedAt !== null && entry.forwardedAt >= before) continue;
      this.#handOn(entry, now);
      due.push(entry.bundle);
    }
    return due;
  }

  /** [REQ-1] Bundles that have waited since before `before` and were never given to all replicas. At most `most` of them. */
  toSpread(now: Millis, before: Millis, most: number): SignedBundle[] {
    const due: SignedBundle[] = [];
    for (const entry of this.#entries.values()) {
      if (due.length >= most || entry.arrivedAt > before) break; // in order of arrival
      if (entry.spreadAt !== null) continue;
      entry.spreadAt = now;
      due.push(entry.bundle);
    }
    return due;
  }

  /** The primary changed: everything is handed on again (PBFT-NV-6), and what was passed over before is not the new one's fault. */
  beginView(): void {
    for (const entry of this.#entries.values()) {
      entry.forwardedAt = null;
      entry.handedAt = null;
      entry.proposed = false;
    }
    this.#owed.clear();
    this.#fullAt = null;
    this.#view = { blocks: this.#blocks, waiting: this.#entries.size };
  }

  /** [REQ-2] The bundles that could have been ordered since before `before`; the longest-known first, at most `most`. */
  overdue(ledger: Ledger, before: Millis, most: number): Waiting[] {
    const nextHeight = plus.height(ledger.height, 1);
    const found: Waiting[] = [];
    for (const { arrivedAt, bundle, session, blocksBefore, waitingBefore } of this.#entries.values()) {
      if (arrivedAt > before || found.length >= most) break; // in order of arrival
      const since = session.advanced !== null && session.advanced.at > arrivedAt ? session.advanced.at : arrivedAt;
      if (since > before || bundle.validUntil < nextHeight) continue;
      const next = ledger.nextSequence([], bundle, nextHeight);
      if (next !== bundle.sequence || (next === 1 && ledger.isSessionTableFull(bundle, nextHeight))) continue;
      if (ledger.controlProblem(bundle, nextHeight) !== null) continue;
      const from = [blocksBefore, session.advanced?.blocks ?? blocksBefore, this.#view.blocks];
      const passed = (kind: keyof Blocks) => this.#blocks[kind] - Math.max(...from.map((blocks) => blocks[kind]));
      found.push({
        bundle,
        since,
        passedOver: { all: passed('all'), roomy: passed('roomy') },
        waitingBefore: Math.max(waitingBefore, this.#view.waiting),
      });
    }
    return found;
  }

  /** Entries in order of arrival, clients and sessions in their turns; what is fresh or owed by its place among the entries. Counts and sums follow. */
  dump() {
    const entries = [...this.#entries.values()];
    const places = new Map(entries.map((entry, at) => [entry, at]));
    const clients = [...this.#clients.values()].map(({ name, sessions }) => ({
      name,
      sessions: [...sessions.values()].map(({ key, advanced }) => ({ key, advanced })),
    }));
    // What takeFresh would leave out has no place: the bundle has left, or came again and stands further back.
    const placesOf = (some: Iterable<Entry>) => [...some].flatMap((entry) => places.get(entry) ?? []);
    return {
      // Whatever else an entry has, it has by itself.
      entries: entries.map(({ client: _client, session: _session, ...fields }) => fields),
      clients,
      fresh: placesOf(this.#fresh),
      owed: placesOf(this.#owed.values()),
      fullAt: this.#fullAt,
      blocks: this.#blocks,
      view: this.#view,
    };
  }

  load({ entries, clients, fresh, owed, fullAt, blocks, view }: ReturnType<Pool['dump']>): void {
    this.#entries.clear();
    this.#clients.clear();
    this.#owed.clear();
    this.#bytes = 0;
    this.#cost = 0;
    for (const { name, sessions } of clients) {
      const queues = sessions.map(({ key, advanced }): [SessionKey, Queue] => [
        key,
        { key, advanced, bySequence: new Map() },
      ]);
      this.#clients.set(name, { name, sessions: new Map(queues), bundles: 0, cost: 0 });
    }
    const loaded = entries.map((fields): Entry => {
      const { bundle } = fields;
      const client = this.#clients.get(toHex(bundle.client) as Hex); // as above
      const session = client?.sessions.get(sessionKey(bundle));
      assert(client !== undefined && session !== undefined, 'a pooled bundle has its client and its session');
      const entry = { ...fields, client, session };
      this.#put(entry);
      return entry;
    });
    const entryAt = (at: number): Entry => {
      const entry = loaded[at];
      assert(entry !== undefined, 'what is fresh or owed is in the pool');
      return entry;
    };
    this.#fresh = fresh.map(entryAt);
    for (const entry of owed.map(entryAt)) this.#owed.set(hex(entry.bundle.digest), entry);
    this.#fullAt = fullAt;
    this.#blocks = blocks;
    this.#view = view;
  }

  #put(entry: Entry): void {
    const { bundle, client, session } = entry;
    session.bySequence.set(bundle.sequence, entry);
    client.bundles += 1;
    const cost = costOf(bundle);
    client.cost += cost;
    this.#cost += cost;
    this.#bytes += bundle.payload.length;
    this.#entries.set(hex(bundle.digest), entry);
  }

  #remove(entry: Entry): void {
    const key = hex(entry.bundle.digest);
    this.#entries.delete(key);
    this.#owed.delete(key);
    const cost = costOf(entry.bundle);
    this.#bytes -= entry.bundle.payload.length;
    this.#cost -= cost;
    entry.client.bundles -= 1;
    entry.client.cost -= cost;
    entry.session.bySequence.delete(entry.bundle.sequence);
    if (entry.session.bySequence.size === 0) entry.client.sessions.delete(entry.session.key);
    if (entry.client.sessions.size === 0) this.#clients.delete(entry.client.name);
  }
}
