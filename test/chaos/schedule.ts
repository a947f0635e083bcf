// A seeded series of faults against the replicas under load. After some of them the clients' progress is waited for, always with a
// bound, and sometimes while the replica is still away; after the others the next fault comes at once.

import type { Submitter } from './load.ts';
import { type ChaosStage, pause } from './stage.ts';

/** View changes, restarts and catching up, on a machine with two busy cores. Idle, all of it takes about two seconds. */
const progressMsMax = 45_000;

export interface Tally {
  kills: number;
  blackouts: number;
  freezes: number;
  terms: number;
  waits: number;
  longestWaitMs: number;
}

export class Schedule {
  readonly tally: Tally = { kills: 0, blackouts: 0, freezes: 0, terms: 0, waits: 0, longestWaitMs: 0 };
  readonly #stage: ChaosStage;
  readonly #submitters: readonly Submitter[];
  readonly #random: () => number;

  constructor(stage: ChaosStage, submitters: readonly Submitter[], random: () => number) {
    this.#stage = stage;
    this.#submitters = submitters;
    this.#random = random;
  }

  async run(seconds: number): Promise<void> {
    const end = performance.now() + seconds * 1_000;
    // The rare ones come for certain, however short the time is.
    const first = [() => this.#killOne(true), () => this.#blackout(), () => this.#terminate(), () => this.#freeze()];
    while (performance.now() < end) {
      await (first.shift() ?? this.#any())();
      if (this.#chance(0.35)) await this.#progress('with all replicas running');
      else await pause(this.#upTo(700));
      if (this.#stage.troubles.length > 0) return;
    }
  }

  #any(): () => Promise<void> {
    const roll = this.#random();
    if (roll < 0.5) return () => this.#killOne(this.#chance(0.4));
    if (roll < 0.62) return () => this.#killTwo();
    if (roll < 0.7) return () => this.#blackout();
    if (roll < 0.82) return () => this.#terminate();
    return () => this.#freeze();
  }

  async #killOne(primary: boolean): Promise<void> {
    const name = (primary ? await this.#stage.primary() : undefined) ?? this.#one();
    await this.#kill([name]);
    if (this.#chance(0.3)) await this.#progress(`without ${name}`);
    else await pause(this.#upTo(1_500));
    this.#stage.start(name);
    // Again while it starts: recovery must survive a crash of its own.
    if (this.#chance(0.25)) {
      await pause(this.#upTo(900));
      await this.#kill([name]);
      this.#stage.start(name);
    }
  }

  async #killTwo(): Promise<void> {
    const names = [this.#one(), this.#one()];
    await this.#kill(names);
    for (const name of new Set(names)) {
      await pause(this.#upTo(800));
      this.#stage.start(name);
    }
  }

  /** [A23] Every replica at the same moment, as when the power fails. */
  async #blackout(): Promise<void> {
    this.tally.blackouts += 1;
    await this.#kill(this.#stage.names);
    for (const name of [...this.#stage.names].sort(() => this.#random() - 0.5)) {
      await pause(this.#upTo(300));
      this.#stage.start(name);
    }
    await this.#progress('after all of them were killed');
  }

  async #terminate(): Promise<void> {
    const name = this.#one();
    // One that has not yet told the system what to do with the signal would be killed by it.
    await this.#stage.until(`${name} started`, () => this.#stage.said(name).some(({ msg }) => msg === 'started'));
    this.tally.terms += 1;
    const { code, signal, stderr } = await this.#stage.ended(name, 'SIGTERM');
    if (code !== 0) this.#stage.troubles.push(`${name} ended with ${code ?? signal} on SIGTERM: ${stderr}`);
    await pause(this.#upTo(1_000));
    this.#stage.start(name);
  }

  async #freeze(): Promise<void> {
    this.tally.freezes += 1;
    await this.#stage.freeze(
      this.#chance(0.5) ? ((await this.#stage.primary()) ?? this.#one()) : this.#one(),
      this.#upTo(2_000),
    );
  }

  async #kill(names: readonly string[]): Promise<void> {
    const up = [...new Set(names)].filter((name) => this.#stage.isUp(name));
    this.tally.kills += up.length;
    await Promise.all(up.map((name) => this.#stage.kill(name)));
  }

  /** Everything that was submitted until now is acknowledged, or its client has left. */
  async #progress(when: string): Promise<void> {
    const startedAt = performance.now();
    const waiting = new Map(this.#submitters.map((submitter) => [submitter, new Set(submitter.outstanding)]));
    const isDone = () =>
      [...waiting].every(([{ outstanding }, texts]) => [...texts].every((text) => !outstanding.has(text)));
    await this.#stage.until(`acknowledgements ${when}`, isDone, progressMsMax);
    this.tally.waits += 1;
    this.tally.longestWaitMs = Math.max(this.tally.longestWaitMs, Math.round(performance.now() - startedAt));
  }

  #one(): string {
    return this.#stage.names[Math.floor(this.#random() * this.#stage.names.length)]!; // never empty
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  /** Short ones are more frequent: most of what can go wrong does so early. */
  #upTo(ms: number): number {
    return this.#random() ** 2 * ms;
  }
}
