// What the demo shows while it runs: lines that stay, and on a terminal a panel below them that is drawn again and again. Without
// a terminal the panel's last line is printed once a second instead.

import { type Palette, paletteFor } from '../cli/output.ts';

const redrawMs = 100;
const plainMs = 1_000;

/** One line for each replica, then the progress. */
export type Panel = () => { readonly rows: readonly string[]; readonly progress: string };

export interface TellerOptions {
  /** Everything to standard error, so that standard output holds one JSON object and nothing else. */
  readonly json: boolean;
}

export class Teller {
  readonly palette: Palette;
  readonly #stream: NodeJS.WriteStream;
  readonly #live: boolean;
  #panel: Panel | null = null;
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;
  #startedAt = performance.now();

  constructor({ json }: TellerOptions) {
    this.#stream = json ? process.stderr : process.stdout;
    this.palette = paletteFor(this.#stream);
    this.#live = this.#stream.isTTY === true && process.env.TERM !== 'dumb';
  }

  /** A line that stays, with the seconds since the start. */
  say(line: string): void {
    const seconds = ((performance.now() - this.#startedAt) / 1000).toFixed(1).padStart(5);
    this.line(`${this.palette.dim(seconds)}  ${line}`);
  }

  /** A line that stays, as it is. */
  line(line: string): void {
    this.#clear();
    this.#stream.write(`${line}\n`);
    this.#draw();
  }

  show(panel: Panel): void {
    this.hide();
    this.#panel = panel;
    this.#timer = setInterval(() => this.#tick(), this.#live ? redrawMs : plainMs);
  }

  /** The panel goes, its last state with it. */
  hide(): void {
    clearInterval(this.#timer);
    this.#clear();
    this.#panel = null;
  }

  #tick(): void {
    if (this.#live) {
      this.#clear();
      this.#draw();
    } else if (this.#panel !== null) {
      this.say(this.#panel().progress);
    }
  }

  #clear(): void {
    if (this.#drawn > 0) this.#stream.write(`\u001b[${this.#drawn}A\u001b[J`);
    this.#drawn = 0;
  }

  #draw(): void {
    if (!this.#live || this.#panel === null) return;
    const { rows, progress } = this.#panel();
    const lines = ['', ...rows, progress];
    // A line that wraps would break the count of lines to clear.
    const width = (this.#stream.columns ?? 80) - 1;
    this.#stream.write(`${lines.map((line) => cut(line, width)).join('\n')}\n`);
    this.#drawn = lines.length;
  }
}

/** Cuts what is visible, not the colours. */
function cut(line: string, width: number): string {
  let seen = 0;
  let out = '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  for (const part of line.split(/(\u001b\[\d+m)/)) {
    if (part.startsWith('\u001b')) {
      out += part;
      continue;
    }
    out += part.slice(0, Math.max(0, width - seen));
    seen += part.length;
  }
  return out;
}

export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return `${'█'.repeat(full)}${'░'.repeat(width - full)}`;
}
