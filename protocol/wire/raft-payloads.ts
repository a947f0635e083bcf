// The payloads of Raft, field by field as in docs/wire.md, "Kinds". The value of an entry is a block on the wire: replica-payloads.ts reads it.

import type { Bytes } from '../../crypto/bytes.ts';
import type { AppendEntries, RaftMessage, SharedMessage } from '../messages.ts';
import { encodeMsgpack } from '../msgpack.ts';
import { blockBytesOnWire, writeBlock } from './block.ts';
import { Scribe, uintBytes } from './cursor.ts';
import type { Fields } from './fields.ts';

type OwnMessage = Exclude<RaftMessage, SharedMessage>;
type OwnKind = OwnMessage['kind'];

export function encodeRaftPayload(message: OwnMessage): Bytes {
  switch (message.kind) {
    case 'request-vote':
      return encodeMsgpack([message.epoch, message.term, message.decided, message.last, message.lastTerm]);
    case 'vote':
      return encodeMsgpack([message.epoch, message.term, message.candidate]);
    case 'appended':
      return encodeMsgpack([message.epoch, message.term, message.match]);
    case 'raft-reject':
      return encodeMsgpack([message.epoch, message.term, message.last]);
    case 'timeout-now':
      return encodeMsgpack([message.epoch, message.term]);
    case 'append-entries':
      return encodeAppend(message);
  }
}

function encodeAppend({ epoch, term, prev, prevTerm, decided, entry }: AppendEntries): Bytes {
  if (entry === null) return encodeMsgpack([epoch, term, prev, prevTerm, decided, null]);
  const counts = [epoch, term, prev, prevTerm, decided];
  const size = counts.reduce((sum: number, count) => sum + uintBytes(count), 2 + uintBytes(entry.term));
  const scribe = new Scribe(size + blockBytesOnWire(entry.value)).array(6);
  for (const count of counts) scribe.uint(count);
  return writeBlock(scribe.array(2).uint(entry.term), entry.value).done();
}

export function readAppendHead(f: Fields): Omit<AppendEntries, 'kind' | 'entry'> {
  return {
    epoch: f.epoch('epoch'),
    term: f.view('term', 1),
    prev: f.height('prev'),
    prevTerm: f.view('prevTerm'),
    decided: f.height('decided'),
  };
}

export function readRaft(kind: Exclude<OwnKind, 'append-entries'>, fields: (count: number) => Fields): OwnMessage {
  switch (kind) {
    case 'request-vote': {
      const f = fields(5);
      const [epoch, term, decided] = [f.epoch('epoch'), f.view('term', 1), f.height('decided')];
      return { kind, epoch, term, decided, last: f.height('last', decided), lastTerm: f.view('lastTerm') };
    }
    case 'vote': {
      const f = fields(3);
      return { kind, epoch: f.epoch('epoch'), term: f.view('term', 1), candidate: f.replica('candidate') };
    }
    case 'appended': {
      const f = fields(3);
      return { kind, epoch: f.epoch('epoch'), term: f.view('term', 1), match: f.height('match') };
    }
    case 'raft-reject': {
      const f = fields(3);
      return { kind, epoch: f.epoch('epoch'), term: f.view('term', 1), last: f.height('last') };
    }
    case 'timeout-now': {
      const f = fields(2);
      return { kind, epoch: f.epoch('epoch'), term: f.view('term', 1) };
    }
  }
}
