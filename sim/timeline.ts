// Virtual time: a queue of what is to happen, in order of time and, at one moment, in the order in which it was asked for. Nothing waits;
// time leaps to the next event. It never reads a clock.

interface Planned {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** The first millisecond of every simulation. */
const START_MS = 1_700_000_000_000;

export class Timeline {
  /** Milliseconds since 1970, whole ones. */
  now = START_MS;
  readonly start = START_MS;
  /** Events that have happened. */
  happened = 0;
  /** A binary heap by (at, order). */
  readonly #queue: Planned[] = [];
  #order = 0;

  /** In `ms` from now; whole milliseconds, at once where it is not above 0. */
  after(ms: number, run: () => void): void {
    const queue = this.#queue;
    const planned: Planned = { at: this.now + Math.max(0, ms), order: this.#order++, run };
    let i = queue.length;
    queue.push(planned);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(planned, queue[parent]!)) break;
      queue[i] = queue[parent]!;
      i = parent;
    }
    queue[i] = planned;
  }

  /** Runs until the condition holds; false where `ms` of virtual time passed before. */
  until(condition: () => boolean, ms: number): boolean {
    const end = this.now + ms;
    while (!condition()) {
      const next = this.#queue[0];
      if (next === undefined || next.at > end) {
        this.now = end;
        return condition();
      }
      this.#pop();
      this.now = Math.max(this.now, next.at);
      this.happened += 1;
      next.run();
    }
    return true;
  }

  run(ms: number): void {
    this.until(() => false, ms);
  }

  #pop(): void {
    const queue = this.#queue;
    const last = queue.pop()!; // called with something in it
    const { length } = queue;
    if (length === 0) return;
    let i = 0;
    for (;;) {
      let least = 2 * i + 1;
      if (least >= length) break;
      if (least + 1 < length && isBefore(queue[least + 1]!, queue[least]!)) least += 1;
      if (!isBefore(queue[least]!, last)) break;
      queue[i] = queue[least]!;
      i = least;
    }
    queue[i] = last;
  }
}

const isBefore = (a: Planned, b: Planned): boolean => (a.at !== b.at ? a.at < b.at : a.order < b.order);
