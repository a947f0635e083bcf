// A bounded map that forgets what has not been used lately. Portable.
//
// Two generations instead of an LRU list: a hit in the older one moves the entry to the younger; when the younger is
// full it becomes the older and the older is dropped. Every operation is O(1) and nothing is linked.

export class BoundedCache<V, K extends string | number = string> {
  readonly #entriesMax: number;
  #young = new Map<K, V>();
  #old = new Map<K, V>();

  /** @param entriesMax at least 2; never holds more than this many entries */
  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get(key: K): V | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  set(key: K, value: V): void {
    if (this.#young.size >= this.#entriesMax / 2) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#old.delete(key);
    this.#young.set(key, value);
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }
}
