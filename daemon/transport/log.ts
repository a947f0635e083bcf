// What the transport writes into a log. Nothing that came from outside gets there unescaped or unbounded, and strangers cannot make
// it write as fast as they connect.

export interface Log {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void;
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

const textCharsMax = 120;

/** Printable ASCII, bounded: no line breaks, no terminal escapes, whatever prints it. */
export function printable(text: string): string {
  return text.slice(0, textCharsMax).replace(/[^\x20-\x7e]/g, '?');
}

/** Lets so many lines per second through and tells with the next one how many it swallowed. */
export class LimitedLog {
  readonly #log: Log;
  readonly #perSecondMax: number;
  #second = 0;
  #written = 0;
  #swallowed = 0;

  constructor(log: Log, perSecondMax: number) {
    this.#log = log;
    this.#perSecondMax = perSecondMax;
  }

  warn(fields: Readonly<Record<string, unknown>>, message: string, now: number): void {
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#written = 0;
    }
    if (this.#written >= this.#perSecondMax) {
      this.#swallowed += 1;
      return;
    }
    this.#written += 1;
    this.#log.warn(this.#swallowed > 0 ? { ...fields, swallowed: this.#swallowed } : fields, message);
    this.#swallowed = 0;
  }
}
