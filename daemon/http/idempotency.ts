// Idempotency-Key: a POST that is repeated with the same key and the same body joins the first one and gets its answer, instead of
// being ordered twice. Remembered by this process, for the keys used last; who must be sure across restarts uses the client SDK, whose
// bundles are deduplicated by the chain itself.

import { BoundedCache } from '../../crypto/cache.ts';
import { type Problem, problem } from './problem.ts';
import type { Job } from './submitter.ts';

const keysMax = 1024;

interface Entry {
  readonly bodyDigest: string;
  readonly job: Job;
  /** It was refused, so the next one with the key begins anew. */
  refused: boolean;
}

export class IdempotencyKeys {
  readonly #entries = new BoundedCache<Entry>(keysMax);

  /** The job that was submitted under this key; null: none. @param key the header as it came */
  find(key: string | string[] | undefined, bodyDigest: () => string): Job | Problem | null {
    if (key === undefined) return null;
    if (typeof key !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(key))
      return problem('idempotency-key-invalid', '1 to 128 printable ASCII characters', { field: 'idempotency-key' });
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.refused) return null;
    if (entry.bodyDigest === bodyDigest()) return entry.job;
    return problem('idempotency-key-reused', 'this key was used with another body', { field: 'idempotency-key' });
  }

  keep(key: string | string[] | undefined, bodyDigest: () => string, job: Job): void {
    if (typeof key !== 'string') return;
    const entry: Entry = { bodyDigest: bodyDigest(), job, refused: false };
    this.#entries.set(key, entry);
    // Never rejects: a job ends with a value.
    void job.committed.then((outcome) => {
      if ('refused' in outcome) entry.refused = true;
    });
  }
}
