// Bundles on their way to whoever proposes: REQ-1, for every protocol that has one such replica at a time.

import type { SignedBundle } from './bundle.ts';
import type { Outgoing } from './core.ts';
import type { Parameters } from './genesis.ts';
import type { Forward } from './messages.ts';
import type { Pool } from './pool.ts';
import type { Millis, ReplicaId } from './types.ts';
import { plus } from './types.ts';

/** Bundles handed on in one message; their payloads stay below half a frame. */
const FORWARD_BUNDLES_MAX = 256;
const FORWARD_BYTES_MAX = 512 << 10;

export interface ForwardHost {
  readonly now: Millis;
  readonly parameters: Parameters;
  readonly pool: Pool;
  handedOnAt: Millis;
  readonly out: { readonly send: { push(message: Outgoing<Forward>): unknown } };
}

/** [REQ-1] New bundles go to the primary; those that wait too long go to it again, and once to everyone. Null: to nobody now. */
export function handOn(s: ForwardHost, primary: ReplicaId | null, timeoutMs: number): void {
  const fresh = s.pool.takeFresh();
  if (primary === null) return;
  const say = (to: ReplicaId | 'all', bundles: readonly SignedBundle[]) =>
    s.out.send.push({ to, message: { kind: 'forward', bundles } });
  const due = plus.millis(s.now, -timeoutMs / 2);
  const again = s.now >= s.handedOnAt ? s.pool.toForward(s.now, due, FORWARD_BUNDLES_MAX) : [];
  const unsent = fresh.filter((bundle) => !again.includes(bundle));
  for (const bundles of inMessages([...unsent, ...again])) say(primary, bundles);
  s.pool.markForwarded(unsent, s.now);
  if (s.now < s.handedOnAt) return;
  s.handedOnAt = plus.millis(s.now, s.parameters.heartbeatMs);
  for (const bundles of inMessages(s.pool.toSpread(s.now, due, FORWARD_BUNDLES_MAX))) say('all', bundles);
}

function inMessages(bundles: readonly SignedBundle[]): SignedBundle[][] {
  const messages: SignedBundle[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const bundle of bundles) {
    const last = messages.at(-1);
    if (last === undefined || last.length >= FORWARD_BUNDLES_MAX || bytes + bundle.payload.length > FORWARD_BYTES_MAX) {
      messages.push([bundle]);
      bytes = bundle.payload.length;
    } else {
      last.push(bundle);
      bytes += bundle.payload.length;
    }
  }
  return messages;
}
