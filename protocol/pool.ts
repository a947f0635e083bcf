// Admitted bundles that are not yet decided. Bounded; fair between clients; knows what could stand in the next block, and since when.

import { toHex } from '../crypto/bytes.ts';
import type { SignedBundle } from './bundle.ts';
import type { AdmissionCode } from './core.ts';
import type { Parameters } from './genesis.ts';
import type { Extension, Ledger } from './ledger.ts';
import type { SessionKey } from './sessions.ts';
import { sessionKey } from './sessions.ts';
import type { Hash, Height, Hex, Millis } from './types.ts';
import { plus } from './types.ts';

/** [REQ-4] A client may hold half of the pool: one that floods leaves room for the others. */
export const POOL_LIMITS = {
  poolBundlesMax: 16_384,
  poolBytesMax: 64 << 20,
  clientBundlesMax: 8_192,
  clientBytesMax: 32 << 20,
  /** How far ahead of the last decided one a session's sequence may run. */
  sessionWindowMax: 4_096,
} as const;

interface Entry {
  readonly bundle: SignedBundle;
  readonly client: Client;
  readonly session: Queue;
  readonly arrivedAt: Millis;
  /** Bundles decided here, and bundles waiting here, when it came: what a fair primary may put before it. */
  readonly decidedBefore: number;
  readonly waitingBefore: number;
  /** When it was last handed on to the primary, and to everyone. */
  forwardedAt: Millis | null;
  spreadAt: Millis | null;
}

interface Queue {
  readonly key: SessionKey;
  readonly bySequence: Map<number, Entry>;
  /** When the session last moved: only then could its next bundle be ordered. */
  advancedAt: Millis | null;
}

interface Client {
  readonly name: Hex;
  readonly sessions: Map<SessionKey, Queue>;
  bundles: number;
  bytes: number;
}

/** A bundle that has waited, with what says whether the primary is to blame. */
export interface Waiting {
  readonly bundle: SignedBundle;
  readonly since: Millis;
  /** Bundles decided since it came, beyond those that came before it. */
  readonly overtakenBy: number;
  readonly waitingBefore: number;
}

const hex = (digest: Hash): Hex => toHex(digest) as Hex; // toHex of 32 bytes is what Hex means

export class Pool {
  readonly #entries = new Map<Hex, Entry>();
  /** In turn: whoever was served goes to the end. */
  readonly #clients = new Map<Hex, Client>();
  /** Admitted since takeFresh was last called. */
  #fresh: Entry[] = [];
  #bytes = 0;
  #decided = 0;
  readonly #limits = POOL_LIMITS;

  get bundles(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
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
    { now, ledger, parameters }: { now: Millis; ledger: Ledger; parameters: Parameters },
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
    const client = this.#clients.get(name) ?? { name, sessions: new Map(), bundles: 0, bytes: 0 };
    const key = sessionKey(bundle);
    const session = client.sessions.get(key) ?? { key, bySequence: new Map<number, Entry>(), advancedAt: null };
    if (session.bySequence.has(bundle.sequence)) return 'sequence-taken';
    if (nextSequence === 1 && ledger.isSessionTableFull(bundle, nextHeight)) return 'sessions-full';
    const size = bundle.payload.length;
    const { poolBundlesMax, poolBytesMax, clientBundlesMax, clientBytesMax } = this.#limits;
    if (this.#entries.size >= poolBundlesMax || this.#bytes + size > poolBytesMax) return 'pool-full';
    if (client.bundles >= clientBundlesMax || client.bytes + size > clientBytesMax) return 'client-quota';

    const entry: Entry = {
      bundle,
      client,
      session,
      arrivedAt: now,
      decidedBefore: this.#decided,
      waitingBefore: this.#entries.size,
      forwardedAt: null,
      spreadAt: null,
    };
    this.#clients.set(name, client);
    client.sessions.set(key, session);
    session.bySequence.set(bundle.sequence, entry);
    client.bundles += 1;
    client.bytes += size;
    this.#bytes += size;
    this.#entries.set(digest, entry);
    this.#fresh.push(entry);
    return 'pooled';
  }

  /** [REQ-4] What may stand in the next block on top of `chain`: client by client in turn, each session in order, within the block's limits. */
  pick(chain: readonly Extension[], ledger: Ledger, parameters: Parameters): SignedBundle[] {
    const height = plus.height(ledger.height, chain.length + 1);
    const picked: SignedBundle[] = [];
    let bytes = 0;
    const nextOf = new Map<SessionKey, number>();
    let turn = [...this.#clients.values()];
    while (turn.length > 0) {
      const again: Client[] = [];
      for (const client of turn) {
        const entry = this.#nextOf(client, nextOf, (bundle) => ledger.nextSequence(chain, bundle, height), height);
        if (entry === undefined) continue;
        if (
          picked.length >= parameters.blockBundlesMax ||
          bytes + entry.bundle.payload.length > parameters.blockBytesMax
        ) {
          // Who was left out comes first next time.
          this.#rotateTo(client);
          return picked;
        }
        picked.push(entry.bundle);
        bytes += entry.bundle.payload.length;
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
  settle(bundles: readonly SignedBundle[], now: Millis): { readonly digest: Hash; readonly code: AdmissionCode }[] {
    const dropped: { digest: Hash; code: AdmissionCode }[] = [];
    this.#decided += bundles.length;
    for (const bundle of bundles) {
      const own = this.#entries.get(hex(bundle.digest));
      if (own !== undefined) this.#remove(own);
      const client = this.#clients.get(toHex(bundle.client) as Hex); // as above
      const session = client?.sessions.get(sessionKey(bundle));
      if (session === undefined) continue;
      session.advancedAt = now;
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
    for (const entry of this.#entries.values()) {
      const passed = entry.bundle.sequence < ledger.nextSequence([], entry.bundle, nextHeight);
      const expired = entry.bundle.validUntil < nextHeight;
      if (!expired && !passed) continue;
      this.#remove(entry);
      dropped.push({ digest: entry.bundle.digest, code: expired ? 'expired' : 'sequence-passed' });
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
      if (entry !== undefined) entry.forwardedAt = now;
    }
  }

  /** [REQ-1] Bundles to hand on to the primary: those never handed on to it, or not since `before`. At most `most` of them. */
  toForward(now: Millis, before: Millis, most: number): SignedBundle[] {
    const due: SignedBundle[] = [];
    for (const entry of this.#entries.values()) {
      if (due.length >= most) break;
      if (entry.forwardedAt !== null && entry.forwardedAt >= before) continue;
      entry.forwardedAt = now;
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

  /** The primary changed: everything is handed on again (PBFT-NV-6). */
  forgetForwarding(): void {
    for (const entry of this.#entries.values()) entry.forwardedAt = null;
  }

  /** [REQ-2] The bundles that could have been ordered since before `before`; the longest-known first, at most `most`. */
  overdue(ledger: Ledger, before: Millis, most: number): Waiting[] {
    const nextHeight = plus.height(ledger.height, 1);
    const found: Waiting[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.arrivedAt > before || found.length >= most) break; // in order of arrival
      const { bundle } = entry;
      const since =
        entry.session.advancedAt !== null && entry.session.advancedAt > entry.arrivedAt
          ? entry.session.advancedAt
          : entry.arrivedAt;
      if (since > before || bundle.validUntil < nextHeight) continue;
      if (ledger.nextSequence([], bundle, nextHeight) !== bundle.sequence) continue;
      const overtakenBy = this.#decided - entry.decidedBefore - entry.waitingBefore;
      found.push({ bundle, since, overtakenBy, waitingBefore: entry.waitingBefore });
    }
    return found;
  }

  #remove(entry: Entry): void {
    this.#entries.delete(hex(entry.bundle.digest));
    this.#bytes -= entry.bundle.payload.length;
    entry.client.bundles -= 1;
    entry.client.bytes -= entry.bundle.payload.length;
    entry.session.bySequence.delete(entry.bundle.sequence);
    if (entry.session.bySequence.size === 0) entry.client.sessions.delete(entry.session.key);
    if (entry.client.sessions.size === 0) this.#clients.delete(entry.client.name);
  }
}
