// What waits to be made durable: what the Readys since the last write want, gathered for the next one (group commit). Used by whoever
// calls a core: the daemon (daemon/speaker.ts) and the simulator (sim/replica.ts).

import type { Certificate } from './certificate.ts';
import type { Pledged, Ready } from './core.ts';
import type { LogRecord } from './log.ts';
import type { ReplicaMessage, ReplicaPledge } from './messages.ts';
import type { View } from './types.ts';

export interface Pending {
  records: LogRecord[];
  pledges: Pledged<ReplicaPledge>[];
  lock: Certificate | null;
  lead: View | null;
  readmit: Ready<ReplicaMessage, ReplicaPledge>['readmit'];
}

export const nothingPending = (): Pending => ({ records: [], pledges: [], lock: null, lead: null, readmit: null });

/** Whether a vote, or what a vote rests on, waits: then a write begins at once. Records alone are safe with the quorum that prepared them. */
export const isUrgent = ({ pledges, lock, lead, readmit }: Pending): boolean =>
  pledges.length > 0 || lead !== null || lock !== null || readmit !== null;

export const isEmpty = (pending: Pending): boolean => pending.records.length === 0 && !isUrgent(pending);

/** How long records that no vote waits for may wait for company, in milliseconds. */
export const LAZY_WRITE_MS_MAX = 20;

/** Adds what this Ready wants to be durable. */
export function gather(pending: Pending, ready: Ready<ReplicaMessage, ReplicaPledge>): void {
  pending.records.push(...ready.records);
  pending.pledges.push(...ready.pledges);
  forgetStale(pending, ready);
  pending.lock = ready.lock ?? pending.lock;
  pending.lead = ready.lead ?? pending.lead;
  pending.readmit = ready.readmit ?? pending.readmit;
}

/** Pledges that waited for a slow disk until they were of no more use: decided heights, views that are over, checkpoints below a stable one. */
function forgetStale(pending: Pending, { deliver, pledges, events }: Ready<ReplicaMessage, ReplicaPledge>): void {
  let decided: number = deliver.at(-1)?.block.header.height ?? 0;
  let view = 0;
  let stable = 0;
  for (const { pledge } of pledges) if (pledge.kind === 'view-change') view = Math.max(view, pledge.view);
  for (const event of events) {
    // Into a view that others have opened, or past heights that a state from peers covers.
    if (event.type === 'view-entered') view = Math.max(view, event.view);
    if (event.type === 'checkpoint-installed') decided = Math.max(decided, event.height);
    // Its state may be forgotten with the very write that it waits for.
    if (event.type === 'checkpoint-stable' || event.type === 'checkpoint-installed')
      stable = Math.max(stable, event.height);
  }
  if (decided === 0 && view === 0 && stable === 0) return;
  pending.pledges = pending.pledges.filter(({ pledge }) => {
    if (pledge.kind === 'checkpoint') return pledge.height >= stable;
    return (pledge.kind !== 'prepare' && pledge.kind !== 'commit') || (pledge.height > decided && pledge.view >= view);
  });
}
