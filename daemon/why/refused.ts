// The last verdicts against bundles at this replica: the core forgets what it refuses, and `synod explain` is asked afterwards.

import type { AdmissionCode } from '../../protocol/core.ts';
import type { Hash, Millis } from '../../protocol/types.ts';
import { asMillis } from '../../protocol/types.ts';
import type { ReplicaPort } from '../ports.ts';

/** The newest ones are kept. */
const REFUSED_MAX = 4_096;

export interface Verdict {
  readonly code: AdmissionCode | 'bundle-invalid';
  readonly at: Millis;
}

export class RecentRefusals {
  readonly #verdicts = new Map<string, Verdict>();
  readonly #unsubscribe: () => void;

  constructor(replica: Pick<ReplicaPort, 'subscribe'>) {
    this.#unsubscribe = replica.subscribe({
      admission: (digest, code) => {
        if (code !== 'pooled' && code !== 'known') this.#keep(digest, { code, at: asMillis(Date.now()) });
        // Refused for a moment, and taken now.
        else if (this.#verdicts.size > 0) this.#verdicts.delete(keyOf(digest));
      },
    });
  }

  of(digest: Hash): Verdict | null {
    return this.#verdicts.get(keyOf(digest)) ?? null;
  }

  close(): void {
    this.#unsubscribe();
  }

  #keep(digest: Hash, verdict: Verdict): void {
    const key = keyOf(digest);
    this.#verdicts.delete(key);
    this.#verdicts.set(key, verdict);
    if (this.#verdicts.size <= REFUSED_MAX) return;
    const oldest = this.#verdicts.keys().next().value;
    if (oldest !== undefined) this.#verdicts.delete(oldest);
  }
}

/** A latin-1 string costs half of hex. */
const keyOf = (digest: Hash): string => Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1');
