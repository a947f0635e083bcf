// Messages in a few words, for traces that people read: the simulator's, and those of `synod replay`.

import { type Bytes, toHex } from '../crypto/bytes.ts';
import type { Block } from './block.ts';
import type { ReplicaMessage } from './messages.ts';

/** What a message is about, in a few words. */
export function describeMessage(message: ReplicaMessage): string {
  const parts: string[] = [message.kind];
  if ('view' in message) parts.push(`view ${message.view}`);
  if ('ballot' in message) parts.push(`ballot ${message.ballot}`);
  if ('term' in message) parts.push(`term ${message.term}`);
  if (message.kind === 'pre-prepare' || message.kind === 'block-data') {
    const { height, bundleCount } = message.block.header;
    parts.push(`height ${height}, ${bundleCount} bundles`, short(message.block.hash));
  } else if ('height' in message) parts.push(`height ${message.height}`);
  if (message.kind === 'prepare' || message.kind === 'commit') parts.push(short(message.hash));
  if (message.kind === 'status' && !message.active) parts.push('between views');
  if (message.kind === 'forward') parts.push(`${message.bundles.length} bundles`);
  if (message.kind === 'blocks') parts.push(`${message.blocks.length} blocks`);
  if (message.kind === 'fetch-blocks') parts.push(`${message.from} to ${message.to}`);
  if (message.kind === 'fetch-state' || message.kind === 'state-chunk') parts.push(`chunk ${message.chunk}`);
  if (message.kind === 'checkpoint-proof') parts.push(`height ${message.checkpoint.height}`);
  const value = valueIn(message);
  if (value !== null) parts.push(`slot ${value.header.height}, ${value.header.bundleCount} bundles`, short(value.hash));
  if (message.kind === 'accepted' || message.kind === 'fast-accepted')
    parts.push(...message.places.map(({ slot, hash }) => `slot ${slot} ${short(hash)}`));
  if (message.kind === 'promise') parts.push(`decided ${message.decided}, ${message.accepted.length} accepted above`);
  if (message.kind === 'configure') parts.push(`members ${message.members.join(', ')} above ${message.floor}`);
  if (message.kind === 'open-round') parts.push(`from slot ${message.from}`);
  if (message.kind === 'request-vote') parts.push(`log ends at ${message.last} of term ${message.lastTerm}`);
  if (message.kind === 'vote') parts.push(`for ${message.candidate}`);
  if (message.kind === 'append-entries') parts.push(`after ${message.prev}, decided ${message.decided}`);
  if (message.kind === 'appended') parts.push(`up to ${message.match}`);
  if (message.kind === 'read-query' || message.kind === 'read-reply') parts.push(`round ${message.round}`);
  if (message.kind === 'view-change')
    parts.push(`prepared ${placeOf(message.prepared)}, decided ${placeOf(message.commit)}`);
  return parts.join(' ');
}

/** What is to be agreed upon for a slot. */
function valueIn(message: ReplicaMessage): Block | null {
  if (message.kind === 'accept' || message.kind === 'fast-accept') return message.value;
  return message.kind === 'append-entries' ? (message.entry?.value ?? null) : null;
}

const placeOf = (at: { readonly view: number; readonly height: number } | null): string =>
  at === null ? 'nothing' : `${at.height} in ${at.view}`;

/** The first eight characters of its hex: enough to tell what stands in one trace apart. */
export const short = (hash: Bytes): string => toHex(hash.subarray(0, 4));
