// What this replica itself lost: its event loop (garbage collection included) and its disk. It blames itself before others (adversary's book, A32), and
// a primary that stalls too often hands its view over before anyone has to take it away.

import type { Input, Stall, StallsView } from './core.ts';
import { doubled, factorOf, outlasted, type Patience, usualPatience } from './patience.ts';
import type { Millis } from './types.ts';

/** Stalls are forgotten at this rate: a primary may lose so much of its time. */
const FORGOTTEN_SHARE = 1 / 8;
/** More than this in all, in timeouts, and a primary hands over. */
const STALLED_TIMEOUTS_MAX = 2;

export interface LastStall {
  readonly at: Millis;
  readonly ms: number;
}

export class Stalls {
  /** In this view, less what was forgotten; never below 0. */
  ms = 0;
  /** Of this life; null: none. */
  loop: LastStall | null = null;
  disk: LastStall | null = null;
  /** In all, of this life. */
  loopMs = 0;
  diskMs = 0;
  /** Doubled by each handing-over, for where everyone stalls no other is better. */
  patience: Patience;
  keptTo: Millis;

  constructor(now: Millis) {
    this.patience = usualPatience(now);
    this.keptTo = now;
  }

  note(now: Millis, what: Stall['what'], ms: number): void {
    this.ms += ms;
    const last = this[what];
    // One that is told of piece by piece is one.
    const goesOn = last !== null && now - last.at <= 2 * ms;
    this[what] = { at: now, ms: goesOn && what === 'disk' ? last.ms + ms : ms };
    if (what === 'loop') this.loopMs += ms;
    else this.diskMs += ms;
  }

  keep(now: Millis, viewTimeoutMs: number): void {
    this.ms = Math.max(0, this.ms - FORGOTTEN_SHARE * (now - this.keptTo));
    this.keptTo = now;
    this.patience = outlasted(this.patience, now, viewTimeoutMs);
  }

  msMax(viewTimeoutMs: number): number {
    return STALLED_TIMEOUTS_MAX * viewTimeoutMs * factorOf(this.patience);
  }

  /** [STALL-2] */
  handedOver(now: Millis): void {
    this.patience = doubled(this.patience, now);
  }

  beginView(): void {
    this.ms = 0;
  }
}

/** All that is said of one kind of stall, in ms. */
export function stalledMs(inputs: readonly Input<unknown, unknown>[], what: Stall['what']): number {
  let ms = 0;
  for (const input of inputs) if (input.type === 'stalled' && input.what === what) ms += input.ms;
  return ms;
}

export function explainStalls(stalls: Stalls, viewTimeoutMs: number): StallsView {
  const { ms, loop, disk, loopMs, diskMs } = stalls;
  return { ms: Math.round(ms), msMax: stalls.msMax(viewTimeoutMs), loop, disk, loopMs, diskMs };
}
