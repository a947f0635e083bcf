// Token buckets, one per client key: how fast a client may make us work. Bounded, and it outlives the connection, so that
// reconnecting buys nothing.

import type { Bytes } from '../../crypto/bytes.ts';
import { toHex } from '../../crypto/bytes.ts';
import { BoundedCache } from '../../crypto/cache.ts';

export interface BucketRate {
  readonly perSecond: number;
  /** Tokens of a bucket that has rested. */
  readonly burst: number;
}

interface Bucket {
  tokens: number;
  filledAt: number;
}

export class TokenBuckets {
  readonly #rate: BucketRate;
  readonly #buckets: BoundedCache<Bucket>;
  readonly #now: () => number;

  /** @param now milliseconds of a clock that never runs back */
  constructor(options: { readonly rate: BucketRate; readonly bucketsMax: number; readonly now: () => number }) {
    this.#rate = options.rate;
    this.#buckets = new BoundedCache(options.bucketsMax);
    this.#now = options.now;
  }

  /** Takes the tokens, or none and says false. */
  take(key: Bytes, tokens = 1): boolean {
    const id = toHex(key);
    const now = this.#now();
    let bucket = this.#buckets.get(id);
    if (bucket === undefined) {
      bucket = { tokens: this.#rate.burst, filledAt: now };
      this.#buckets.set(id, bucket);
    }
    const gained = ((now - bucket.filledAt) / 1000) * this.#rate.perSecond;
    bucket.tokens = Math.min(this.#rate.burst, bucket.tokens + Math.max(0, gained));
    bucket.filledAt = now;
    if (bucket.tokens < tokens) return false;
    bucket.tokens -= tokens;
    return true;
  }
}
