// One client's stream of decided blocks. It always asks by height, first the recent blocks in memory and then the log, so history
// and the live end join without a gap or a duplicate by construction. At most one read is under way, of a bounded size, and none
// while the reader has unsent bytes or no credit: a slow reader holds one frame of memory here.

import type { Follow, FollowEnd } from '../../protocol/door.ts';
import { asHeight, type Height } from '../../protocol/types.ts';
import type { FollowSource } from './follow-source.ts';

/** Credit that a stream may hold: grants beyond it are forgotten. */
const creditBlocksMax = 65_536;

/** How soon a block is looked for again that is decided and not readable yet. */
const retryMs = 20;

export interface FollowStreamParts {
  readonly request: Follow;
  readonly source: FollowSource;
  /** Has the connection room for one more frame? */
  writable(): boolean;
  send(frame: Uint8Array, blocks: number): void;
  /** The stream has ended by itself; nothing is called after it. */
  ended(code: FollowEnd['code'], lowest: Height): void;
  /** The log could not be read. */
  failed(error: unknown): void;
}

export class FollowStream {
  readonly #parts: FollowStreamParts;
  readonly #to: number;
  #next: number;
  #credit: number;
  #stopped = false;
  #pumping = false;
  #woken = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(parts: FollowStreamParts) {
    this.#parts = parts;
    this.#next = parts.request.from;
    this.#to = parts.request.to === 0 ? Number.MAX_SAFE_INTEGER : parts.request.to;
    this.#credit = parts.request.credit;
  }

  grant(blocks: number): void {
    this.#credit = Math.min(creditBlocksMax, this.#credit + blocks);
    this.wake();
  }

  /** Something changed: new blocks, new credit, or room on the connection. */
  wake(): void {
    this.#woken = true;
    if (this.#pumping || this.#stopped) return;
    this.#pumping = true;
    this.#pump().then(
      () => {
        this.#pumping = false;
        // A wake between the last look and now must not be lost.
        if (this.#woken) this.wake();
      },
      (error: unknown) => {
        this.#pumping = false;
        if (this.#stopped) return;
        this.#stopped = true;
        this.#parts.failed(error);
      },
    );
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  drain(): void {
    if (!this.#stopped) this.#end('draining');
  }

  async #pump(): Promise<void> {
    while (this.#woken && !this.#stopped) {
      this.#woken = false;
      while (!this.#stopped && this.#parts.writable() && (await this.#sendSome()));
    }
  }

  /** Sends one frame; false: nothing to send before the next wake. */
  async #sendSome(): Promise<boolean> {
    const { source, request } = this.#parts;
    const lowest = source.lowest();
    if (this.#next === 0) this.#next = Math.max(1, lowest);
    if (this.#next > this.#to) {
      this.#end('reached');
      return false;
    }
    if (this.#next < lowest) {
      this.#end('pruned');
      return false;
    }
    const head = source.head();
    if (this.#next > head || this.#credit === 0) return false;
    const from = asHeight(this.#next);
    const to = asHeight(Math.min(head, this.#to, this.#next + this.#credit - 1));
    const batch = await source.frame({ from, to, headersOnly: request.headersOnly, endsAtTo: to === this.#to });
    if (this.#stopped) return false;
    if (batch === undefined) {
      // Pruned while it was read: the next round says so.
      if (source.lowest() > from) return true;
      // Decided, gone from memory, and not durable yet.
      this.#wakeLater();
      return false;
    }
    this.#parts.send(batch.frame, batch.blocks);
    this.#next += batch.blocks;
    this.#credit -= batch.blocks;
    return true;
  }

  #wakeLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.wake();
    }, retryMs);
  }

  #end(code: FollowEnd['code']): void {
    this.#stopped = true;
    this.#parts.ended(code, this.#parts.source.lowest());
  }
}
