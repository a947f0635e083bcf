// Every message to bytes and back: the dispatch over the two halves of the wire and the handshake.

import type { Bytes } from '../../crypto/bytes.ts';
import type { ClientMessage, DoorMessage } from '../door.ts';
import type { HandshakeMessage } from '../handshake.ts';
import { decodeHandshakePayload, encodeHandshakePayload } from '../handshake.ts';
import type { ReplicaMessage } from '../messages.ts';
import type { WireContext } from './bundle.ts';
import { decodeDoorPayload, decodeSubmit, encodeDoorPayload } from './door-payloads.ts';
import type { Frame } from './frame.ts';
import { isReplicaKind, type Kind } from './kinds.ts';
import type { WireRefusal } from './refusal.ts';
import { decodeReplicaPayload, encodeReplicaPayload } from './replica-payloads.ts';

/** Everything that can be the payload of a frame. */
export type Message = ReplicaMessage | ClientMessage | DoorMessage | HandshakeMessage;

/** The bytes that are signed and sent. Throws where a sender made a message that no one would accept. */
export function encodePayload(message: Message): Bytes {
  switch (message.kind) {
    case 'hello':
    case 'auth':
    case 'rekey':
      return encodeHandshakePayload(message);
    case 'submit':
    case 'follow':
    case 'credit':
    case 'query-head':
    case 'query-bundle':
    case 'query-epochs':
    case 'query-checkpoint':
    case 'query-state':
    case 'admissions':
    case 'receipts':
    case 'follow-blocks':
    case 'follow-end':
    case 'head':
    case 'epochs':
    case 'checkpoint-here':
    case 'state-here':
      return encodeDoorPayload(message);
    default:
      return encodeReplicaPayload(message);
  }
}

/** The message in a payload. A submit's is its bundle, which is nothing without the frame's signature: see decodeMessage. */
export function decodePayload(
  kind: Exclude<Kind, 'submit'>,
  payload: Bytes,
  context: WireContext,
): Message | WireRefusal {
  if (kind === 'hello' || kind === 'auth' || kind === 'rekey') return decodeHandshakePayload(kind, payload);
  return isReplicaKind(kind) ? decodeReplicaPayload(kind, payload, context) : decodeDoorPayload(kind, payload, context);
}

/** The message of a frame, whatever its kind. Well formed, nothing more: no signature has been checked. */
export function decodeMessage({ kind, payload, signature }: Frame, context: WireContext): Message | WireRefusal {
  return kind === 'submit' ? decodeSubmit({ payload, signature }, context) : decodePayload(kind, payload, context);
}
