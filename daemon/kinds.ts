// What the loop needs to know of a message by its kind alone.

import type { Kind } from '../protocol/codec.ts';
import type { ReplicaMessage, Vote } from '../protocol/messages.ts';
import type { Height } from '../protocol/types.ts';
import type { Lane } from './ports.ts';
import type { Request } from './serve.ts';

const LANES: Partial<Record<ReplicaMessage['kind'], Lane>> = {
  'pre-prepare': 'bulk',
  accept: 'bulk',
  'fast-accept': 'bulk',
  'append-entries': 'bulk',
  forward: 'bulk',
  blocks: 'bulk',
  'block-data': 'bulk',
  'state-chunk': 'bulk',
  'checkpoint-proof': 'bulk',
};
/** Votes and other small frames overtake blocks and state. */
export const laneOf = (kind: ReplicaMessage['kind']): Lane => LANES[kind] ?? 'vote';

/** Pledges prove themselves whoever brings them. */
export function canBeCarried(kind: ReplicaMessage['kind']): boolean {
  return (
    kind === 'new-view' || kind === 'view-change' || kind === 'prepare' || kind === 'commit' || kind === 'checkpoint'
  );
}

export function isRequest(message: ReplicaMessage): message is Request {
  const { kind } = message;
  return kind === 'fetch-block' || kind === 'fetch-blocks' || kind === 'fetch-checkpoint' || kind === 'fetch-state';
}

/** To a request: it proves itself by certificates of its epoch, or by a digest that is known. */
export function isAnswer(kind: Kind | undefined): boolean {
  return kind === 'blocks' || kind === 'block-data' || kind === 'checkpoint-proof' || kind === 'state-chunk';
}

export function isVote(message: ReplicaMessage): message is Vote {
  return message.kind === 'prepare' || message.kind === 'commit';
}

/** The height that a message proposes something for; null: it proposes nothing. */
export function proposedIn(message: ReplicaMessage): Height | null {
  if (message.kind === 'pre-prepare') return message.block.header.height;
  if (message.kind === 'append-entries') return message.entry?.value.header.height ?? null;
  return message.kind === 'accept' || message.kind === 'fast-accept' ? message.value.header.height : null;
}
