// Whether the primary works as fast as it could (docs/adr/0008-slow-primary.md). Amir et al., Prime, IEEE TDSC 2011, sections 4.2 and 4.3: a primary has an
// obligation that its load cannot excuse, and the time it takes is held against what its backups measure among themselves. Clement et al., Aardvark,
// NSDI 2009, section 4.2: what is demanded adapts, so that honest primaries keep their role. No message is spent on it, and no clock is read.

import { doubled, factorOf, outlasted, type Patience, usualPatience } from '../patience.ts';
import type { Millis } from '../types.ts';

/** How much a new measurement of a round counts. */
const ROUND_WEIGHT = 1 / 16;
/** What a primary may take, in rounds; one of them is its own turn, the rest is for what a backup cannot see of it. */
const ALLOWED_ROUNDS = 1.5;
/** And in heartbeats, for timers, turns of an event loop and the like. */
const ALLOWED_HEARTBEATS = 0.1;
/** What it takes beyond that is forgiven at this rate: a primary that is late for less of the time than this keeps its role. */
const FORGIVEN_SHARE = 1 / 4;
/** Late by so many timeouts in all, and it is given up. */
const LATE_TIMEOUTS_MAX = 2;

export interface Pacing {
  readonly viewTimeoutMs: number;
  readonly heartbeatMs: number;
}

/** What a replica holds against the primary of its view, in milliseconds. All times are of the core's clock. */
export class Pace {
  /** From the acceptance of a block to its decision, on average: two rounds of votes and the writes between them. Null: none was measured. */
  roundMs: number | null = null;
  /** How long the primary of this view has been late, in all, less what was forgiven; never below 0. */
  lateMs = 0;
  /** Of this view, since something was owed for the first time: the time that something was owed or in flight, and the part of it that was late. */
  busyMs = 0;
  busyLateMs = 0;
  /** When the bundle was handed on that is owed now; null: none is. Of the last look. */
  owedSince: Millis | null = null;
  /** Doubled by each primary that was given up for it. */
  patience: Patience;
  /** Up to here the account is kept. */
  keptTo: Millis;

  constructor(now: Millis) {
    this.patience = usualPatience(now);
    this.keptTo = now;
  }

  /** [PACE-2] A block that was accepted in this view is decided. */
  measure(roundMs: number): void {
    this.roundMs = this.roundMs === null ? roundMs : this.roundMs + (roundMs - this.roundMs) * ROUND_WEIGHT;
  }

  /** [PACE-2] How long the primary may take to propose what it was given, in ms; never more than half of the timeout. */
  allowedMs({ viewTimeoutMs, heartbeatMs }: Pacing): number {
    const most = viewTimeoutMs / 2;
    if (this.roundMs === null) return most;
    const usual = ALLOWED_ROUNDS * this.roundMs + ALLOWED_HEARTBEATS * heartbeatMs;
    return Math.min(most, usual * factorOf(this.patience));
  }

  /** How late it may be in all before it is given up, in ms. */
  lateMsMax({ viewTimeoutMs }: Pacing): number {
    return LATE_TIMEOUTS_MAX * viewTimeoutMs * factorOf(this.patience);
  }

  /** [PACE-3] The time since the last look: `owedSince` as it stood all that while, null where the primary owed nothing or could not be judged. */
  keep(now: Millis, owedSince: Millis | null, isBusy: boolean, pacing: Pacing): void {
    const elapsed = now - this.keptTo;
    this.owedSince = owedSince;
    if (elapsed <= 0) return;
    const due = owedSince === null ? now : owedSince + this.allowedMs(pacing);
    const late = Math.max(0, now - Math.max(due, this.keptTo));
    this.lateMs = Math.max(0, this.lateMs + late - FORGIVEN_SHARE * (elapsed - late));
    if (isBusy || owedSince !== null) {
      this.busyMs += elapsed;
      this.busyLateMs += late;
    }
    this.keptTo = now;
    this.patience = outlasted(this.patience, now, pacing.viewTimeoutMs);
  }

  /** [PACE-4] This replica itself was late by so much: what it missed meanwhile may have come in time. */
  forgive(ms: number): void {
    this.lateMs = Math.max(0, this.lateMs - ms);
    this.busyLateMs = Math.max(0, this.busyLateMs - ms);
  }

  isTooSlow(pacing: Pacing): boolean {
    return this.lateMs > this.lateMsMax(pacing);
  }

  /** [PACE-5] It was given up: the next one is given more time, for the fault may not have been the primary's. */
  gaveUp(now: Millis): void {
    this.patience = doubled(this.patience, now);
  }

  beginView(now: Millis): void {
    this.lateMs = 0;
    this.busyMs = 0;
    this.busyLateMs = 0;
    this.owedSince = null;
    this.keptTo = now;
  }

  /** The share of the time with work in hand in which the primary was not late, in whole percent. */
  get percent(): number {
    return this.busyMs === 0 ? 100 : Math.round((100 * (this.busyMs - this.busyLateMs)) / this.busyMs);
  }
}
