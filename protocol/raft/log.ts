// The log of a Raft server above what it has decided: Ongaro and Ousterhout (2014), section 5.3. Below that, every entry is a block, and blocks that are
// decided never differ: so the log matches there whatever its terms were, and terms are remembered above it alone.

import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block } from '../block.ts';
import { encodeBody } from '../codec.ts';
import type { LogRecord } from '../log.ts';
import type { Height, View } from '../types.ts';
import { asHeight, asView } from '../types.ts';

export interface Entry {
  readonly term: View;
  readonly value: Block;
}

/** What of a log two servers compare before one votes for the other. */
export interface LogEnd {
  /** Every entry up to here is decided. */
  readonly decided: Height;
  /** The last entry; `decided` where there is none above it. */
  readonly last: Height;
  /** Of the last entry; 0 where it is a decided one. */
  readonly lastTerm: View;
}

/**
 * [RAFT-E-3] Section 5.4.1, where terms of decided entries are not kept: a candidate that has decided all that the voter's log holds has every committed
 * entry of it; else both must have undecided entries, and the candidate's last one the later term, or the same and no lower index.
 */
export function isUpToDate(candidate: LogEnd, voter: LogEnd): boolean {
  if (candidate.decided >= voter.last) return true;
  if (candidate.lastTerm === 0 || voter.lastTerm === 0) return false;
  return candidate.lastTerm > voter.lastTerm || (candidate.lastTerm === voter.lastTerm && candidate.last >= voter.last);
}

export class EntryLog {
  #decided: Height = asHeight(0);
  /** From `#decided` + 1 on, without a gap. */
  #entries: Entry[] = [];
  /** Of the entry at `#decided`, where it was decided from this log. */
  #decidedTerm: View | null = null;

  /** [RAFT-L-4] After a restart: what lies above `last`, or does not follow, was cut off. */
  restore(decided: Height, last: Height, entries: readonly { height: Height; ballot: View; value: Block }[]): void {
    this.#decided = decided;
    for (const { height, ballot, value } of entries)
      if (height === this.last + 1 && height <= last) this.#entries.push({ term: ballot, value });
  }

  get decided(): Height {
    return this.#decided;
  }

  get last(): Height {
    return asHeight(this.#decided + this.#entries.length);
  }

  get end(): LogEnd {
    return { decided: this.#decided, last: this.last, lastTerm: this.#entries.at(-1)?.term ?? asView(0) };
  }

  /** An undecided entry. */
  at(height: number): Entry | undefined {
    return this.#entries[height - this.#decided - 1];
  }

  /** 0: not known, or no such entry. */
  termAt(height: number): View {
    if (height === this.#decided) return this.#decidedTerm ?? asView(0);
    return this.at(height)?.term ?? asView(0);
  }

  /** [RAFT-L-1] Whether it holds the entry before the ones that are to be appended: what is decided always matches. */
  matches(prev: Height, term: View): boolean {
    return prev <= this.#decided || (term !== 0 && this.termAt(prev) === term);
  }

  /** [RAFT-L-3] Section 5.4.2, figure 8: what a leader of this term may commit by counting who holds it; with it all before it. */
  mayCount(height: Height, term: View): boolean {
    return height > this.#decided && this.termAt(height) === term;
  }

  /**
   * [RAFT-L-2] Puts an entry where it belongs, and cuts off what contradicts it, with all that follows; the same entry changes nothing. The records make it
   * durable. An entry that is decided is not looked at.
   */
  put(entry: Entry, records: LogRecord[]): boolean {
    const { height } = entry.value.header;
    if (height <= this.#decided) return false;
    assert(height <= this.last + 1, 'a log has no gaps');
    const before = this.at(height);
    if (before !== undefined && before.term === entry.term) {
      assert(equalBytes(before.value.hash, entry.value.hash), 'one leader makes one entry at an index of its term');
      return false;
    }
    this.#entries.length = height - this.#decided - 1;
    this.#entries.push(entry);
    const { hash, headerBytes: header, bundles } = entry.value;
    records.push({ type: 'block', height, hash, bytes: { header, body: encodeBody(bundles) } });
    records.push({ type: 'accepted', height, hash, view: entry.term });
    return true;
  }

  /** Everything up to this height is decided, by this log or by blocks of others. */
  decide(height: Height, isOwn: boolean): void {
    if (height <= this.#decided) return;
    const term = isOwn ? this.termAt(height) : asView(0);
    this.#entries.splice(0, height - this.#decided);
    this.#decided = height;
    this.#decidedTerm = term === 0 ? null : term;
  }

  /** What was appended above blocks that others have decided need not follow them. */
  cut(): void {
    this.#entries = [];
  }

  dump() {
    return { decided: this.#decided, entries: this.#entries, decidedTerm: this.#decidedTerm };
  }

  load({ decided, entries, decidedTerm }: ReturnType<EntryLog['dump']>): void {
    this.#decided = decided;
    this.#entries = entries;
    this.#decidedTerm = decidedTerm;
  }
}
