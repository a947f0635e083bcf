// A message-sequence chart in text: a column for each replica, a line for each message with an arrow to everyone it goes to, and for each thing that a
// replica does. Whoever reads it sees who waits for whom.

const TIME_WIDTH = 9;
const COLUMN_WIDTH = 9;

export class Chart {
  readonly #names: readonly string[];
  readonly #write: (line: string) => void;
  readonly #down = new Set<number>();
  /** The message that was said last, until something else happens: one line for all to whom it goes. */
  #open: { readonly ms: number; readonly from: number; readonly text: string; readonly to: Set<number> } | null = null;

  constructor(names: readonly string[], write: (line: string) => void) {
    this.#names = names;
    this.#write = write;
  }

  /** What comes next, in words, and the names above their columns. */
  section(words: string): void {
    this.#flush();
    this.#write('');
    this.#write(words);
    this.#write('');
    this.#write(
      `${'ms'.padStart(TIME_WIDTH)}   ${this.#names.map((name) => name.padEnd(COLUMN_WIDTH)).join('')}`.trimEnd(),
    );
  }

  /** One message to one replica; the same one to another at the same moment is the same line. */
  said(ms: number, message: { readonly from: number; readonly to: number; readonly text: string }): void {
    const { from, to, text } = message;
    const open = this.#open;
    if (open !== null && open.ms === ms && open.from === from && open.text === text && !open.to.has(to))
      return void open.to.add(to);
    this.#flush();
    this.#open = { ms, from, text, to: new Set([to]) };
  }

  /** What a replica did, or what befell it. */
  did(ms: number, id: number, text: string, mark: '◆' | '✕' | '●' = '◆'): void {
    this.#flush();
    if (mark === '✕') this.#down.add(id);
    if (mark === '●') this.#down.delete(id);
    this.#line(ms, (i) => (i === id ? mark : this.#life(i)), text);
  }

  end(): void {
    this.#flush();
  }

  #flush(): void {
    const open = this.#open;
    this.#open = null;
    if (open === null) return;
    const { ms, from, to, text } = open;
    const [first, last] = [Math.min(from, ...to), Math.max(from, ...to)];
    const at = (i: number): string => {
      if (i === from) return '●';
      if (to.has(i)) return i > from ? '▶' : '◀';
      return i > first && i < last ? '┼' : this.#life(i);
    };
    this.#line(ms, at, text, (i) => i >= first && i < last);
  }

  #life(id: number): string {
    return this.#down.has(id) ? ' ' : '│';
  }

  /** `at`: what stands in a replica's column; `joins`: whether a line goes on from there to the next one. */
  #line(ms: number, at: (id: number) => string, text: string, joins: (id: number) => boolean = () => false): void {
    const columns = this.#names.map((_, i) => at(i) + (joins(i) ? '─' : ' ').repeat(COLUMN_WIDTH - 1));
    this.#write(`${ms.toFixed(0).padStart(TIME_WIDTH)}   ${columns.join('')} ${text}`);
  }
}
