// A signed message with its type narrowed to one of its kinds.

import { assert } from '../assert.ts';
import type { ReplicaMessage, Verified } from '../messages.ts';
import { asVerified } from '../messages.ts';

/** The same signed message with its type narrowed: TypeScript does not narrow a type parameter by a field of it. */
export function with_<M extends ReplicaMessage>(signed: Verified<ReplicaMessage>, message: M): Verified<M> {
  assert(signed.message === message, 'one message');
  return asVerified({ ...signed, message });
}
