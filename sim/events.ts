// What the cores of a cluster say of themselves, with the time.

import type { ReplicaId } from '../protocol/types.ts';

/** What a core said of itself. */
export class ClusterEvent {
  readonly at: ReplicaId;
  /** Milliseconds from the start. */
  readonly time: number;
  readonly type: string;
  readonly #fields: object;

  constructor(at: ReplicaId, time: number, type: string, fields: object) {
    this.at = at;
    this.time = time;
    this.type = type;
    this.#fields = fields;
  }

  /** As JSON; made only when it is asked for. */
  get detail(): string {
    return JSON.stringify(this.#fields);
  }
}

/** What a replica refused of another one. */
export interface ClusterRefusal {
  readonly at: ReplicaId;
  readonly from: ReplicaId;
  readonly code: string;
  readonly kind: string;
}
