// Watches the replicas from outside, as an operator would: their HTTP doors, asked again and again, and the events in their logs.

import type { LogEntry } from '../cli/cluster.ts';
import type { KnownReplica } from '../cli/network.ts';
import { fetchStatus, type ReplicaStatus } from '../cli/replica-http.ts';

const pollMs = 50;
const answerMsMax = 1_000;

export interface Sighting {
  /** Null: it does not answer. */
  readonly status: ReplicaStatus | null;
  /** On the clock of performance.now(), when the answer was there. */
  readonly at: number;
}

/** What a replica's log said, when we read it. */
export interface LoggedEvent {
  readonly replica: string;
  readonly type: string;
  readonly view: number | null;
  readonly at: number;
  readonly entry: LogEntry;
}

export class Watch {
  readonly events: LoggedEvent[] = [];
  readonly #replicas: readonly KnownReplica[];
  readonly #onEvent: (event: LoggedEvent) => void;
  readonly #sightings = new Map<string, Sighting>();
  /** Each replica has a loop of its own: one that hangs must not hide the others. */
  #stopped = false;
  #loops: Promise<unknown> = Promise.resolve();

  constructor(replicas: readonly KnownReplica[], onEvent: (event: LoggedEvent) => void) {
    this.#replicas = replicas;
    this.#onEvent = onEvent;
  }

  start(): void {
    this.#loops = Promise.all(this.#replicas.map((replica) => this.#poll(replica)));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loops;
  }

  /** Events of the core stand in the log with their type (daemon/replica.ts). */
  logLine(replica: string, entry: LogEntry): void {
    const { type, view } = entry;
    if (typeof type !== 'string') return;
    const event = { replica, type, view: typeof view === 'number' ? view : null, at: performance.now(), entry };
    this.events.push(event);
    this.#onEvent(event);
  }

  of(name: string): ReplicaStatus | null {
    return this.#sightings.get(name)?.status ?? null;
  }

  /** The highest height that any replica, or any but one, is known to have decided. */
  height(except?: string): number {
    return Math.max(
      0,
      ...this.#replicas.filter(({ name }) => name !== except).map(({ name }) => this.of(name)?.height ?? 0),
    );
  }

  /** The highest view that a replica is active in, and its primary; null while none is. */
  lead(): { readonly view: number; readonly primary: string } | null {
    const active = this.#replicas
      .map(({ name }) => this.of(name))
      .filter((status) => status !== null && status.phase !== 'view-change')
      .sort((a, b) => (b?.view ?? 0) - (a?.view ?? 0));
    const first = active[0];
    return first === undefined || first === null ? null : { view: first.view, primary: first.primary.name };
  }

  async #poll({ name, http }: KnownReplica): Promise<void> {
    while (!this.#stopped) {
      const status = http === null ? null : await fetchStatus(http, answerMsMax);
      this.#sightings.set(name, { status, at: performance.now() });
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }
}
