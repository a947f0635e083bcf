// What an acceptor must remember beside the values that it has accepted, which are in the log's `accepted` records: Paxos Made Simple, 2.5.

import type { Bytes } from '../../crypto/bytes.ts';
import { LayoutReader, LayoutWriter } from '../layout.ts';
import type { View } from '../types.ts';
import { asView } from '../types.ts';

export interface HardState {
  /** The highest ballot promised. */
  readonly promised: View;
}

/** Different from that of every other protocol, so that no protocol reads another one's. */
const VERSION = 0x21;

export function encodeHardState({ promised }: HardState): Bytes {
  return new LayoutWriter(1 + 8).u8(VERSION).u64(promised).done();
}

/** Bytes that this replica wrote and the log has checked; undefined where a newer version, or another protocol, wrote them. */
export function decodeHardState(bytes: Bytes): HardState | undefined {
  if (bytes.length !== 9) return undefined;
  const reader = new LayoutReader(bytes);
  return reader.u8() === VERSION ? { promised: asView(reader.u64()) } : undefined;
}
