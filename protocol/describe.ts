// Messages in a few words, for traces that people read: the simulator's, and those of `synod replay`.

import { type Bytes, toHex } from '../crypto/bytes.ts';
import type { PbftMessage } from './messages.ts';

/** What a message is about, in a few words. */
export function describeMessage(message: PbftMessage): string {
  const parts: string[] = [message.kind];
  if ('view' in message) parts.push(`view ${message.view}`);
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
  if (message.kind === 'view-change')
    parts.push(`prepared ${placeOf(message.prepared)}, decided ${placeOf(message.commit)}`);
  return parts.join(' ');
}

const placeOf = (at: { readonly view: number; readonly height: number } | null): string =>
  at === null ? 'nothing' : `${at.height} in ${at.view}`;

/** The first eight characters of its hex: enough to tell what stands in one trace apart. */
export const short = (hash: Bytes): string => toHex(hash.subarray(0, 4));
