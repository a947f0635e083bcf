// A message of every kind, with real signatures: for tests that must leave none out.

import { admissionCodes, type Message } from '../protocol/codec.ts';
import { asEpoch, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import * as fx from './wire-fixtures.ts';

const blocks = fx.chain(3);
export const [first, second, third] = blocks as [
  (typeof blocks)[0] & object,
  (typeof blocks)[0] & object,
  (typeof blocks)[0] & object,
];
export const three = [0, 1, 2].map((i) => fx.viewChange(5, i, i === 2 ? null : first));

/** One of each kind, at least; big numbers where they fit. */
const answer = { question: 9, digest: fx.hashOf(8), lowest: asHeight(3), height: asHeight(12) };
export const samples: readonly Message[] = [
  {
    kind: 'status',
    epoch: asEpoch(2),
    view: asView(2 ** 40),
    active: true,
    height: asHeight(7),
    hash: fx.hashOf(1),
    stable: asHeight(0),
    lowest: asHeight(1),
  },
  { kind: 'forward', bundles: [...first.bundles, ...second.bundles] },
  { kind: 'forward', bundles: [] },
  { kind: 'fetch-blocks', from: asHeight(1), to: asHeight(2 ** 53 - 1) },
  {
    kind: 'blocks',
    blocks: [
      { block: first, certificate: null },
      { block: second, certificate: fx.certificate(second) },
    ],
    tail: null,
  },
  { kind: 'blocks', blocks: [], tail: null },
  {
    kind: 'blocks',
    blocks: [{ block: first, certificate: null }],
    tail: { links: [second.headerBytes], certificate: fx.certificate(second) },
  },
  { kind: 'fetch-block', height: asHeight(5), hash: fx.hashOf(2) },
  { kind: 'block-data', block: first },
  { kind: 'checkpoint', ...fx.placeOf(first) },
  { kind: 'fetch-checkpoint' },
  { kind: 'checkpoint-proof', checkpoint: fx.checkpoint(first), headerBytes: first.headerBytes },
  { kind: 'fetch-state', height: asHeight(64), chunk: 2 ** 32 - 1 },
  {
    kind: 'state-chunk',
    height: asHeight(64),
    chunk: 3,
    bytes: fx.filled(1, 70_000),
    proof: [fx.hashOf(1), fx.hashOf(2)],
  },
  { kind: 'state-chunk', height: asHeight(64), chunk: 0, bytes: new Uint8Array(0), proof: [] },
  { kind: 'pre-prepare', epoch: first.header.epoch, view: asView(2 ** 33), block: first },
  { kind: 'pre-prepare', epoch: first.header.epoch, view: asView(0), block: fx.block([]) },
  { kind: 'prepare', epoch: asEpoch(1), view: asView(2), height: asHeight(3), hash: fx.hashOf(4) },
  { kind: 'commit', epoch: asEpoch(1), view: asView(2), height: asHeight(3), hash: fx.hashOf(4) },
  three[0]!.message,
  { kind: 'view-change', epoch: fx.epoch, view: asView(1), commit: null, prepared: null },
  { kind: 'new-view', epoch: fx.epoch, view: asView(5), viewChanges: three },
  { kind: 'paxos-prepare', epoch: fx.epoch, ballot: asView(2 ** 40) },
  {
    kind: 'request-vote',
    epoch: fx.epoch,
    term: asView(2 ** 40),
    decided: asHeight(3),
    last: asHeight(5),
    lastTerm: asView(0),
  },
  { kind: 'vote', epoch: fx.epoch, term: asView(1), candidate: asReplicaId(127) },
  { kind: 'appended', epoch: fx.epoch, term: asView(1), match: asHeight(2 ** 35) },
  { kind: 'raft-reject', epoch: fx.epoch, term: asView(1), last: asHeight(0) },
  ...[null, { term: asView(2 ** 33), value: first }].map(
    (entry): Message => ({
      kind: 'append-entries',
      epoch: fx.epoch,
      term: asView(300),
      prev: asHeight(4),
      prevTerm: asView(0),
      decided: asHeight(70_000),
      entry,
    }),
  ),
  {
    kind: 'configure',
    epoch: fx.epoch,
    ballot: asView(8),
    floor: asHeight(2 ** 35),
    members: [asReplicaId(2)],
  },
  { kind: 'configured', epoch: fx.epoch, ballot: asView(8) },
  { kind: 'open-round', epoch: fx.epoch, ballot: asView(8), from: asHeight(1) },
  { kind: 'fast-accept', epoch: first.header.epoch, ballot: asView(2 ** 33), value: first },
  {
    kind: 'fast-accepted',
    epoch: fx.epoch,
    ballot: asView(3),
    places: [2, 2 ** 35].map((slot) => ({ slot: asHeight(slot), hash: fx.hashOf(7) })),
  },
  { kind: 'reject', epoch: fx.epoch, ballot: asView(1) },
  { kind: 'promise', epoch: fx.epoch, ballot: asView(9), decided: asHeight(4), accepted: [], working: null },
  {
    kind: 'promise',
    epoch: fx.epoch,
    ballot: asView(9),
    decided: asHeight(0),
    accepted: [1, 3, 300].map((slot) => ({ slot: asHeight(slot), ballot: asView(slot), hash: fx.hashOf(slot) })),
    working: { ballot: asView(8), floor: asHeight(0), members: [0, 1, 127].map(asReplicaId) },
  },
  { kind: 'accept', epoch: first.header.epoch, ballot: asView(2 ** 33), value: first },
  {
    kind: 'accepted',
    epoch: fx.epoch,
    ballot: asView(3),
    places: [2, 2 ** 35].map((slot) => ({ slot: asHeight(slot), hash: fx.hashOf(7) })),
  },
  { kind: 'submit', bundle: first.bundles[0]! },
  { kind: 'follow', from: asHeight(0), to: asHeight(0), headersOnly: false, credit: 4096 },
  { kind: 'credit', blocks: 1 },
  { kind: 'query-head' },
  { kind: 'query-bundle', question: Number.MAX_SAFE_INTEGER, digest: fx.hashOf(8) },
  {
    kind: 'admissions',
    admissions: admissionCodes.map((code) => ({ digest: fx.hashOf(8), code, height: asHeight(12) })),
  },
  { kind: 'receipts', answer, receipts: [] },
  { kind: 'receipts', answer: null, receipts: [fx.receipt(first, 0, [second]), fx.receipt(third, 0)] },
  { kind: 'receipts', answer: { ...answer, question: 1 }, receipts: [fx.receipt(first, 0)] },
  {
    kind: 'follow-blocks',
    blocks: [
      {
        headerBytes: first.headerBytes,
        bundles: first.bundles.map(({ payload, signature }) => ({ payload, signature })),
        certificate: null,
      },
      { headerBytes: second.headerBytes, bundles: [], certificate: null },
      { headerBytes: third.headerBytes, bundles: null, certificate: fx.certificate(third) },
    ],
  },
  { kind: 'follow-end', code: 'pruned', lowest: asHeight(9) },
  {
    kind: 'head',
    epoch: fx.epoch,
    view: asView(3),
    primary: asReplicaId(3),
    height: asHeight(1),
    lowest: asHeight(1),
    certificate: fx.certificate(first),
  },
  {
    kind: 'head',
    epoch: fx.epoch,
    view: asView(0),
    primary: asReplicaId(0),
    height: asHeight(0),
    lowest: asHeight(1),
    certificate: null,
  },
  { kind: 'hello', protocol: 1, chainId: fx.chainId, epoch: asEpoch(0), role: 'client', nonce: fx.filled(9) },
  { kind: 'auth', transcript: fx.hashOf(4) },
];
