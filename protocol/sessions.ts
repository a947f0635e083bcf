// Client sessions: what makes execution exactly-once and keeps a client's order. Deduplication is replicated state, not a cache
// (blueprint, section 4): the same on every replica at the same height, part of every checkpoint's digest.

import type { Bytes } from '../crypto/bytes.ts';
import { compareBytes, concat, toHex } from '../crypto/bytes.ts';
import { assert } from './assert.ts';
import type { Sha256 } from './block.ts';
import type { Bundle } from './bundle.ts';
import { LayoutReader, LayoutWriter } from './layout.ts';
import type { Height } from './types.ts';
import { asHeight } from './types.ts';

export interface Session {
  readonly client: Bytes;
  readonly session: number;
  /** Sequence of the last bundle in a block; the next one has this plus one. */
  readonly lastSequence: number;
  /** The highest valid-until of its bundles so far; beyond it the session is forgotten (SES-3). */
  readonly expires: Height;
  /** The stored reply: where the last bundle stands. */
  readonly height: Height;
  readonly firstTransaction: number;
  readonly transactionCount: number;
}

/** A session's name as a map key. */
export type SessionKey = string;
export const sessionKey = (bundle: Pick<Bundle, 'client' | 'session'>): SessionKey =>
  `${toHex(bundle.client)}:${bundle.session}`;

/** The table is cut into this many buckets, each a chunk of the state in a checkpoint. */
export const SESSION_BUCKETS = 256;
/** [SES-5] Live sessions per bucket: bounds the table, and a chunk to 288 KiB. */
export const BUCKET_SESSIONS_MAX = 4096;
/** Of one session in a chunk of the state. */
export const SESSION_BYTES = 32 + 8 + 8 + 8 + 8 + 4 + 4;

/** Which bucket a session falls into: hashed, so that a client's many sessions spread. */
export function bucketOf(sha256: Sha256, bundle: Pick<Bundle, 'client' | 'session'>): number {
  return sha256(concat(bundle.client, new LayoutWriter(8).u64(bundle.session).done()))[0]!;
}

/** A session, and the bucket it falls into: whoever has found one need not hash its name. */
export interface Placed {
  readonly bucket: number;
  readonly session: Session;
}

/** The sessions after the last decided block. */
export class SessionTable {
  readonly #all = new Map<SessionKey, Placed>();
  readonly #buckets: Map<SessionKey, Session>[] = Array.from({ length: SESSION_BUCKETS }, () => new Map());
  /** Buckets that changed since they were last encoded. */
  readonly #dirty = new Set<number>();

  get size(): number {
    return this.#all.size;
  }

  get(key: SessionKey): Placed | undefined {
    return this.#all.get(key);
  }

  set(key: SessionKey, placed: Placed): void {
    this.#all.set(key, placed);
    this.#buckets[placed.bucket]!.set(key, placed.session);
    this.#dirty.add(placed.bucket);
  }

  /** Sessions of a bucket that a checkpoint at `height` would not have forgotten. */
  liveIn(bucket: number, height: Height): SessionKey[] {
    const live: SessionKey[] = [];
    for (const [key, session] of this.#buckets[bucket]!) if (session.expires >= height) live.push(key);
    return live;
  }

  sizeOf(bucket: number): number {
    return this.#buckets[bucket]!.size;
  }

  /** [SES-3] Forgets what has expired below `height`. Called at checkpoint heights only, so that all replicas do it alike. */
  forget(height: Height): void {
    for (const [index, bucket] of this.#buckets.entries()) {
      for (const [key, session] of bucket) {
        if (session.expires >= height) continue;
        bucket.delete(key);
        this.#all.delete(key);
        this.#dirty.add(index);
      }
    }
  }

  /** The buckets that changed since the last call, encoded. */
  takeChanged(): { bucket: number; bytes: Bytes }[] {
    const changed = [...this.#dirty].sort((a, b) => a - b).map((bucket) => ({ bucket, bytes: this.#encode(bucket) }));
    this.#dirty.clear();
    return changed;
  }

  #encode(bucket: number): Bytes {
    // One order for all replicas: by key bytes, then session number.
    const sessions = [...this.#buckets[bucket]!.values()].sort(
      (a, b) => compareBytes(a.client, b.client) || a.session - b.session,
    );
    const layout = new LayoutWriter(sessions.length * SESSION_BYTES);
    for (const s of sessions) {
      layout.bytes(s.client, 32).u64(s.session).u64(s.lastSequence).u64(s.expires).u64(s.height);
      layout.u32(s.firstTransaction).u32(s.transactionCount);
    }
    return layout.done();
  }

  /** Fills a bucket from a chunk whose bytes a quorum has signed for, or that this replica wrote itself. */
  restore(bucket: number, bytes: Bytes): void {
    assert(bytes.length % SESSION_BYTES === 0, 'a certified session chunk is whole');
    const into = this.#buckets[bucket]!;
    for (const key of into.keys()) this.#all.delete(key);
    into.clear();
    const reader = new LayoutReader(bytes);
    for (let at = 0; at < bytes.length; at += SESSION_BYTES) {
      const session: Session = {
        client: Uint8Array.from(reader.bytes(32)),
        session: reader.u64(),
        lastSequence: reader.u64(),
        expires: asHeight(reader.u64()),
        height: asHeight(reader.u64()),
        firstTransaction: reader.u32(),
        transactionCount: reader.u32(),
      };
      const key = sessionKey(session);
      into.set(key, session);
      this.#all.set(key, { bucket, session });
    }
  }

  /** Buckets as a checkpoint writes them: the order in which sessions came says nothing. */
  dump() {
    const buckets: [bucket: number, bytes: Bytes][] = [];
    for (const [index, bucket] of this.#buckets.entries())
      if (bucket.size > 0) buckets.push([index, this.#encode(index)]);
    return { buckets, dirty: [...this.#dirty].sort((a, b) => a - b) };
  }

  load({ buckets, dirty }: ReturnType<SessionTable['dump']>): void {
    for (const bucket of this.#buckets) bucket.clear();
    this.#all.clear();
    for (const [index, bytes] of buckets) this.restore(index, bytes);
    this.#dirty.clear();
    for (const index of dirty) this.#dirty.add(index);
  }
}
