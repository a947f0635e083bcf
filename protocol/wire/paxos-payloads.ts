// The payloads of Paxos, field by field as in docs/wire.md, "Paxos". The value of an accept is a block on the wire: replica-payloads.ts
// reads it, like every block.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Accept, AcceptedPlace, PaxosMessage, SharedMessage } from '../messages.ts';
import { encodeMsgpack, type ScanLimits } from '../msgpack.ts';
import { blockBytesOnWire, writeBlock } from './block.ts';
import { Scribe, uintBytes } from './cursor.ts';
import type { Fields } from './fields.ts';

/** Slots above the decided ones that a promise may tell of: four windows of 64. */
export const PROMISED_SLOTS_MAX = 256;
/** Slots in one accepted: a window of 64. */
export const ACCEPTED_SLOTS_MAX = 64;

type OwnMessage = Exclude<PaxosMessage, SharedMessage>;
type OwnKind = OwnMessage['kind'];

/** Of all but the accept: a promise is the largest, with three values and 53 bytes a slot. */
export const paxosLimits: ScanLimits = { bytesMax: 16_384, depthMax: 3, valuesMax: 8 + 4 * PROMISED_SLOTS_MAX };

export function encodePaxosPayload(message: OwnMessage): Bytes {
  switch (message.kind) {
    case 'paxos-prepare':
    case 'reject':
      return encodeMsgpack([message.epoch, message.ballot]);
    case 'promise': {
      const { epoch, ballot, decided, accepted } = message;
      return encodeMsgpack([epoch, ballot, decided, accepted.map((at) => [at.slot, at.ballot, at.hash])]);
    }
    case 'accept':
      return encodeAccept(message);
    case 'accepted':
      return encodeMsgpack([message.epoch, message.ballot, message.places.map(({ slot, hash }) => [slot, hash])]);
  }
}

function encodeAccept({ ballot, value }: Accept): Bytes {
  const scribe = new Scribe(1 + uintBytes(ballot) + blockBytesOnWire(value));
  return writeBlock(scribe.array(2).uint(ballot), value).done();
}

export function readPaxos(kind: Exclude<OwnKind, 'accept'>, fields: (count: number) => Fields): OwnMessage {
  switch (kind) {
    case 'paxos-prepare':
    case 'reject': {
      const f = fields(2);
      return { kind, epoch: f.epoch('epoch'), ballot: f.view('ballot', 1) };
    }
    case 'promise': {
      const f = fields(4);
      const epoch = f.epoch('epoch');
      const ballot = f.view('ballot', 1);
      const decided = f.height('decided');
      let last: number = decided;
      const accepted = f.tuples('accepted', { max: PROMISED_SLOTS_MAX }, 3, (item): AcceptedPlace => {
        const slot = item.height('slot', last + 1);
        last = slot;
        return { slot, ballot: item.view('ballot', 1), hash: item.hash('hash') };
      });
      return { kind, epoch, ballot, decided, accepted };
    }
    case 'accepted': {
      const f = fields(3);
      const epoch = f.epoch('epoch');
      const ballot = f.view('ballot', 1);
      let last = 0;
      const places = f.tuples('places', { min: 1, max: ACCEPTED_SLOTS_MAX }, 2, (item) => {
        const slot = item.height('slot', last + 1);
        last = slot;
        return { slot, hash: item.hash('hash') };
      });
      return { kind, epoch, ballot, places };
    }
  }
}
