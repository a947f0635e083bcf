// What happened, as a hash: two runs with one hash went the same way, message by message. And, if someone listens, as lines to read.

import type { ReplicaMessage } from '../protocol/messages.ts';

export class Trace {
  /** Four lanes of 32 bits: not against an adversary, only against coincidence. */
  readonly #lanes = Uint32Array.of(0x9e3779b9, 0x243f6a88, 0xb7e15162, 0x8aed2a6b);
  #turn = 0;
  /** Called with each line where someone wants to read. */
  sink: ((line: string) => void) | null = null;

  /** Adds one number, of 53 bits at most. */
  add(value: number): void {
    this.#mix(value | 0);
    this.#mix(Math.floor(value / 0x1_0000_0000) | 0);
  }

  /** Adds the first eight bytes of something that is a digest of itself. */
  addDigest(bytes: Uint8Array): void {
    this.#mix((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!);
    this.#mix((bytes[4]! << 24) | (bytes[5]! << 16) | (bytes[6]! << 8) | bytes[7]!);
  }

  #mix(word: number): void {
    const lanes = this.#lanes;
    const i = this.#turn & 3;
    this.#turn += 1;
    let h = Math.imul(lanes[i]! ^ word, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35) ^ lanes[(i + 1) & 3]!;
    lanes[i] = h ^ (h >>> 13);
  }

  /** 32 characters of hex. */
  digest(): string {
    return [...this.#lanes].map((lane) => lane.toString(16).padStart(8, '0')).join('');
  }
}

/** What a message is about, in a few words. */
export function describeMessage(message: ReplicaMessage): string {
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

const short = (hash: Uint8Array): string => Buffer.from(hash.subarray(0, 4)).toString('hex');
