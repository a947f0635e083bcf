// The sign-state files of one replica: one for each key that it has had. Keys come with epochs, and what one of them signed stays binding for
// whoever comes back under it.

import type { Bytes } from '../crypto/bytes.ts';
import { toHex } from '../crypto/bytes.ts';
import type { Epoch, Hash } from '../protocol/types.ts';
import { SimGuard } from './guard.ts';

/** Files by key, in hex. */
export type KeyFiles = ReadonlyMap<string, Bytes>;

export class Keyring {
  readonly #chainId: Hash;
  readonly #guards = new Map<string, SimGuard>();

  constructor(chainId: Hash) {
    this.#chainId = chainId;
  }

  /** A key that is new begins with a file of its own, made where the key was made. */
  guardOf(publicKey: Bytes): SimGuard {
    const name = toHex(publicKey);
    const guard = this.#guards.get(name) ?? new SimGuard({ publicKey, chainId: this.#chainId });
    this.#guards.set(name, guard);
    return guard;
  }

  /** Whether one of the keys has signed in a later epoch than this. */
  isAhead(epoch: Epoch): boolean {
    return [...this.#guards.values()].some(({ durable }) => durable.marks.epoch > epoch);
  }

  // ---- while no process runs ------------------------------------------------------------------------------------------

  /** [REC-1] All are lost, and `synod repair --readmit` made new ones. */
  lose(): void {
    for (const guard of this.#guards.values()) guard.lose();
  }

  /** [REC-6] `synod repair --log`. */
  giveUpLog(): void {
    for (const guard of this.#guards.values()) guard.giveUpLog();
  }

  copy(): KeyFiles {
    return new Map([...this.#guards].map(([name, { file }]) => [name, file]));
  }

  /** The files are these. A key that came later had signed nothing yet. */
  put(files: KeyFiles): void {
    for (const [name, guard] of this.#guards) {
      const file = files.get(name);
      if (file === undefined) guard.forget();
      else guard.file = file;
    }
  }
}
