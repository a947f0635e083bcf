// What an acceptor must remember beside the values that it has accepted, which are in the log's `accepted` records: Paxos Made Simple, 2.5.

import type { Bytes } from '../../crypto/bytes.ts';
import { LayoutReader, LayoutWriter } from '../layout.ts';
import type { WorkingSet } from '../messages.ts';
import type { Epoch, View } from '../types.ts';
import { asEpoch, asHeight, asReplicaId, asView } from '../types.ts';

export interface HardState {
  /** The epoch that the rest is of. */
  readonly epoch: Epoch;
  /** The highest ballot promised. */
  readonly promised: View;
  /** Cheap Paxos: the latest working set noted; null: none. */
  readonly working: WorkingSet | null;
}

/** Different from that of every other protocol, so that no protocol reads another one's. */
const VERSION = 0x21;
const PLAIN_BYTES = 1 + 8 + 8;

export function encodeHardState({ epoch, promised, working }: HardState): Bytes {
  const size = PLAIN_BYTES + (working === null ? 0 : 16 + working.members.length);
  const writer = new LayoutWriter(size).u8(VERSION).u64(epoch).u64(promised);
  if (working === null) return writer.done();
  writer.u64(working.ballot).u64(working.floor);
  for (const member of working.members) writer.u8(member);
  return writer.done();
}

/** Bytes that this replica wrote and the log has checked; undefined where a newer version, or another protocol, wrote them. */
export function decodeHardState(bytes: Bytes): HardState | undefined {
  if (bytes.length !== PLAIN_BYTES && bytes.length <= PLAIN_BYTES + 16) return undefined;
  const reader = new LayoutReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const epoch = asEpoch(reader.u64());
  const promised = asView(reader.u64());
  if (bytes.length === PLAIN_BYTES) return { epoch, promised, working: null };
  const [ballot, floor] = [asView(reader.u64()), asHeight(reader.u64())];
  const members = Array.from({ length: bytes.length - PLAIN_BYTES - 16 }, () => asReplicaId(reader.u8()));
  return { epoch, promised, working: { ballot, floor, members } };
}
