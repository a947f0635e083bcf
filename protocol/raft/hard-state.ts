// What a Raft server must remember beside its log entries: Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (2014), figure 2,
// "persistent state". And where its log ends, for what lies above in the store was cut off.

import type { Bytes } from '../../crypto/bytes.ts';
import { LayoutReader, LayoutWriter } from '../layout.ts';
import type { Epoch, Height, ReplicaId, View } from '../types.ts';
import { asEpoch, asHeight, asReplicaId, asView } from '../types.ts';

export interface HardState {
  /** The epoch that the rest is of. */
  readonly epoch: Epoch;
  readonly term: View;
  /** Null: nobody in this term. */
  readonly votedFor: ReplicaId | null;
  /** The last entry of the log, decided or not. */
  readonly last: Height;
}

/** Different from that of every other protocol, so that no protocol reads another one's. */
const VERSION = 0x31;
const NOBODY = 0xffff_ffff;
const HARD_STATE_BYTES = 1 + 8 + 8 + 4 + 8;

export function encodeHardState({ epoch, term, votedFor, last }: HardState): Bytes {
  return new LayoutWriter(HARD_STATE_BYTES)
    .u8(VERSION)
    .u64(epoch)
    .u64(term)
    .u32(votedFor ?? NOBODY)
    .u64(last)
    .done();
}

/** Bytes that this replica wrote and the log has checked; undefined where a newer version, or another protocol, wrote them. */
export function decodeHardState(bytes: Bytes): HardState | undefined {
  if (bytes.length !== HARD_STATE_BYTES) return undefined;
  const reader = new LayoutReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const epoch = asEpoch(reader.u64());
  const term = asView(reader.u64());
  const votedFor = reader.u32();
  return { epoch, term, votedFor: votedFor === NOBODY ? null : asReplicaId(votedFor), last: asHeight(reader.u64()) };
}
