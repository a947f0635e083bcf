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
  /** A binary heap by (at, order): what was asked for before its time came. */
  readonly #queue: Planned[] = [];
  /** What was asked for at this very moment, in order, and how much of it has happened. */
  readonly #atOnce: Planned[] = [];
  #atOnceDone = 0;
  #order = 0;

  /** In `ms` from now; whole milliseconds, at once where it is not above 0. */
  after(ms: number, run: () => void): void {
    const planned = { at: this.now + Math.max(0, ms), order: this.takeOrder(), run };
    if (ms <= 0) this.#atOnce.push(planned);
    else this.plan(planned);
  }

  /** A place in the order of what is asked for, for something that `plan` is told at a later moment. */
  takeOrder(): number {
    return this.#order++;
  }

  plan(planned: Planned): void {
    const queue = this.#queue;
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
      const next = this.#next(end);
      if (next === undefined) {
        this.now = end;
        return condition();
      }
      this.now = Math.max(this.now, next.at);
      this.happened += 1;
      next.run();
    }
    return true;
  }

  run(ms: number): void {
    this.until(() => false, ms);
  }

  /** Undefined: nothing up to then. */
  #next(end: number): Planned | undefined {
    const first = this.#queue[0];
    // What was asked for before this moment came is before what is asked for in it.
    if (first !== undefined && first.at <= this.now) {
      this.#pop();
      return first;
    }
    if (this.#atOnce.length > 0) {
      const next = this.#atOnce[this.#atOnceDone]!;
      this.#atOnceDone += 1;
      if (this.#atOnceDone === this.#atOnce.length) {
        this.#atOnce.length = 0;
        this.#atOnceDone = 0;
      }
      return next;
    }
    if (first === undefined || first.at > end) return undefined;
    this.#pop();
    return first;
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

/** Rings once, when it was told last. Telling it anew is cheap: only the earliest of its times stands in the queue. */
export class Alarm {
  readonly #timeline: Timeline;
  readonly #ring: () => void;
  #at = 0;
  #order = -1;
  /** Of what stands in the queue for it; null: nothing. */
  #queued: { readonly at: number; readonly order: number } | null = null;

  constructor(timeline: Timeline, ring: () => void) {
    this.#timeline = timeline;
    this.#ring = ring;
  }

  /** In `ms` from now, at least 1, and not when it was told before. */
  set(ms: number): void {
    this.#at = this.#timeline.now + ms;
    this.#order = this.#timeline.takeOrder();
    if (this.#queued === null || this.#queued.at > this.#at) this.#enqueue();
  }

  #enqueue(): void {
    const [at, order] = [this.#at, this.#order];
    this.#queued = { at, order };
    this.#timeline.plan({ at, order, run: () => this.#look(order) });
  }

  #look(order: number): void {
    if (order !== this.#queued?.order) return;
    this.#queued = null;
    if (order === this.#order) this.#ring();
    else this.#enqueue();
  }
}

const isBefore = (a: Planned, b: Planned): boolean => (a.at !== b.at ? a.at < b.at : a.order < b.order);
