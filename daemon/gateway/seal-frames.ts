// Makes the frames that this replica sends to clients. A signature costs about 50 us, the most expensive part of an answer, so the
// callers put into one message what one turn of the event loop has produced, and one frame of a stream serves all its readers.

import type { Bytes } from '../../crypto/bytes.ts';
import { type DoorMessage, provesItself } from '../../protocol/door.ts';
import { followedPayload } from '../../protocol/wire/door-payloads.ts';
import { encodeFrame, writeFrame } from '../../protocol/wire/frame.ts';
import { encodePayload } from '../../protocol/wire/payload.ts';

/** [WIRE-18] */
const unsigned = new Uint8Array(64);

/** The guard's function for what binds nobody. */
export type SignStatement = (kind: string, payload: Bytes) => Bytes;

export interface FrameSealer {
  seal(message: DoorMessage): Bytes;
}

export function frameSealer(options: {
  /** Asked for each frame: another epoch may bring another key. */
  readonly publicKey: () => Bytes;
  readonly signStatement: SignStatement;
}): FrameSealer {
  const { publicKey, signStatement } = options;
  return {
    seal(message) {
      const { kind } = message;
      if (kind === 'follow-blocks')
        return writeFrame({
          kind,
          payload: followedPayload(message.blocks),
          sender: publicKey(),
          signature: unsigned,
        });
      const payload = encodePayload(message);
      return encodeFrame({
        kind: message.kind,
        payload,
        sender: publicKey(),
        signature: provesItself(message) ? unsigned : signStatement(message.kind, payload),
      });
    },
  };
}
