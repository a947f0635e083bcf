// The payloads of Paxos, field by field as in docs/wire.md, "Paxos". The value of an accept is a block on the wire: replica-payloads.ts
// reads it, like every block.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Accept, AcceptedPlace, FastAccept, PaxosMessage, SharedMessage, WorkingSet } from '../messages.ts';
import { encodeMsgpack, type ScanLimits, type WireValue } from '../msgpack.ts';
import type { ReplicaId } from '../types.ts';
import { asReplicaId } from '../types.ts';
import { blockBytesOnWire, writeBlock } from './block.ts';
import { Scribe, uintBytes } from './cursor.ts';
import type { Fields } from './fields.ts';

/** Slots above the decided ones that a promise may tell of: four windows of 64. */
export const PROMISED_SLOTS_MAX = 256;
/** Slots in one accepted: a window of 64. */
export const ACCEPTED_SLOTS_MAX = 64;

type OwnMessage = Exclude<PaxosMessage, SharedMessage>;
type OwnKind = OwnMessage['kind'];

/** Members of a working set: those of the largest chain. */
const WORKING_MAX = 128;

/** Of all but the accepts: a promise is the largest, with three values and 53 bytes a slot. */
export const paxosLimits: ScanLimits = {
  bytesMax: 16_384,
  depthMax: 3,
  valuesMax: 16 + 4 * PROMISED_SLOTS_MAX + WORKING_MAX,
};

export function encodePaxosPayload(message: OwnMessage): Bytes {
  switch (message.kind) {
    case 'paxos-prepare':
    case 'reject':
    case 'take-over':
      return encodeMsgpack([message.epoch, message.ballot]);
    case 'promise': {
      const { epoch, ballot, decided, accepted, working } = message;
      const places = accepted.map((at) => [at.slot, at.ballot, at.hash]);
      return encodeMsgpack([epoch, ballot, decided, places, working && workingValues(working)]);
    }
    case 'accept':
    case 'fast-accept':
      return encodeAccept(message);
    case 'configure':
      return encodeMsgpack([message.epoch, ...workingValues(message)]);
    case 'configured':
      return encodeMsgpack([message.epoch, message.ballot]);
    case 'open-round':
      return encodeMsgpack([message.epoch, message.ballot, message.from]);
    case 'fast-accepted':
    case 'accepted':
      return encodeMsgpack([message.epoch, message.ballot, message.places.map(({ slot, hash }) => [slot, hash])]);
  }
}

const workingValues = ({ ballot, floor, members }: WorkingSet): WireValue[] => [ballot, floor, [...members]];

function encodeAccept({ ballot, value }: Accept | FastAccept): Bytes {
  const scribe = new Scribe(1 + uintBytes(ballot) + blockBytesOnWire(value));
  return writeBlock(scribe.array(2).uint(ballot), value).done();
}

export function readPaxos(
  kind: Exclude<OwnKind, 'accept' | 'fast-accept'>,
  fields: (count: number) => Fields,
): OwnMessage {
  switch (kind) {
    case 'paxos-prepare':
    case 'reject':
    case 'take-over': {
      const f = fields(2);
      return { kind, epoch: f.epoch('epoch'), ballot: f.view('ballot', 1) };
    }
    case 'promise': {
      const f = fields(5);
      const epoch = f.epoch('epoch');
      const ballot = f.view('ballot', 1);
      const decided = f.height('decided');
      let last: number = decided;
      const accepted = f.tuples('accepted', { max: PROMISED_SLOTS_MAX }, 3, (item): AcceptedPlace => {
        const slot = item.height('slot', last + 1);
        last = slot;
        return { slot, ballot: item.view('ballot', 1), hash: item.hash('hash') };
      });
      const working = f.optional('working', 3, readWorking);
      return { kind, epoch, ballot, decided, accepted, working };
    }
    case 'configure': {
      const f = fields(4);
      return { kind, epoch: f.epoch('epoch'), ...readWorking(f) };
    }
    case 'configured': {
      const f = fields(2);
      return { kind, epoch: f.epoch('epoch'), ballot: f.view('ballot', 1) };
    }
    case 'open-round': {
      const f = fields(3);
      return { kind, epoch: f.epoch('epoch'), ballot: f.view('ballot', 1), from: f.height('from', 1) };
    }
    case 'fast-accepted':
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

/** One place twice, or places that fall, are out of bounds like a place that nobody has. */
function readWorking(f: Fields): WorkingSet {
  const ballot = f.view('ballot', 1);
  const floor = f.height('floor');
  let last = -1;
  const members = f.values('members', { min: 1, max: WORKING_MAX }, (item): ReplicaId => {
    const member = item.uint('members', WORKING_MAX - 1, last + 1);
    last = member;
    return asReplicaId(member);
  });
  return { ballot, floor, members };
}
