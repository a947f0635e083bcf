// A leader gives its place away: leadership transfer, Ongaro's dissertation (2014), section 3.10, the same for every protocol with a leader. It proposes nothing new,
// waits until its successor holds all that it has proposed, and tells it to run at once. Where it differs: with that word it leads no more, and says so in its status, so
// whoever heard it until then answers the successor like any candidate. A word that is lost costs an election, without the silence before it.

import type { Millis, ReplicaId } from '../types.ts';
import { asReplicaId } from '../types.ts';
import type { CrashState } from './state.ts';

/** What a leader does for it, by its protocol. */
export interface Lead {
  /** Whether this replica may lead, and would do it as well. */
  mayLead(replica: ReplicaId): boolean;
  /** Whether it holds all that this leader has proposed. */
  holdsAll(replica: ReplicaId): boolean;
  /** Tells it to run, and leads no more. */
  yieldTo(replica: ReplicaId): void;
}

/** A hand-over that has begun. */
export interface HandOver {
  readonly to: ReplicaId;
  readonly since: Millis;
}

/** [CFT-H-1] To the replica that would run first if this one fell silent, of those that are well. Where there is none, nothing changes. */
export function beginHandOver(s: CrashState, lead: Lead | null): void {
  if (lead === null || s.handOver !== null) return;
  const n = s.genesis.members.length;
  for (let place = 1; place < n; place++) {
    const to = asReplicaId((s.self + place) % n);
    if (!isWell(s, to) || !lead.mayLead(to)) continue;
    s.handOver = { to, since: s.now };
    s.out.events.push({ type: 'handing-over', to });
    return;
  }
}

/** [CFT-H-2] Of every step. After T it is given up, and this leader proposes again. */
export function handOver(s: CrashState, lead: Lead | null): void {
  if (s.handOver === null) return;
  const { to, since } = s.handOver;
  const isLate = s.now - since > s.parameters.viewTimeoutMs;
  if (lead !== null && !isLate && !lead.holdsAll(to)) return;
  s.handOver = null;
  s.mayPropose = true;
  if (lead !== null && !isLate) lead.yieldTo(to);
}

/** Connected, heard of late, and not far behind: its next acceptance will not be waited for. */
export function isWell({ now, peers, parameters, ledger, epoch }: CrashState, replica: ReplicaId): boolean {
  const { connected, heardAt, status } = peers.get(replica) ?? {};
  if (connected !== true || heardAt == null || status == null || status.epoch !== epoch) return false;
  return now - heardAt <= parameters.viewTimeoutMs && status.height + parameters.window >= ledger.height;
}
