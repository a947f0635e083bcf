// The payloads of reads where members are trusted, field by field as in docs/wire.md, "Kinds".

import type { Bytes } from '../../crypto/bytes.ts';
import type { ReadMessage } from '../messages.ts';
import { encodeMsgpack } from '../msgpack.ts';
import type { Fields } from './fields.ts';

export function encodeReadPayload(message: ReadMessage): Bytes {
  const { kind, epoch, ballot, round } = message;
  return encodeMsgpack(kind === 'read-query' ? [epoch, ballot, round] : [epoch, ballot, round, message.height]);
}

export function readRead(kind: ReadMessage['kind'], fields: (count: number) => Fields): ReadMessage {
  const f = fields(kind === 'read-query' ? 3 : 4);
  const head = { epoch: f.epoch('epoch'), ballot: f.view('ballot', 1), round: f.uint('round', undefined, 1) };
  return kind === 'read-query' ? { kind, ...head } : { kind, ...head, height: f.height('height') };
}
