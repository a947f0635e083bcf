// Small-scope mutation (adversary's book, A10, A26): each field of each kind of message off by one, one bit, one entry; and older messages again.
// A kind that is added to protocol/wire/kinds.ts and has no sample, or one whose fields are not all changed, fails here.

import t from 'tap';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import {
  decodeFrame,
  decodeMessage,
  encodeFrame,
  encodePayload,
  frameSigningBytes,
  isRefusal,
  isReplicaKind,
  type Kind,
  kindNumbers,
} from '../protocol/codec.ts';
import { decodeMsgpack, type WireValue } from '../protocol/msgpack.ts';
import { asReplicaId } from '../protocol/types.ts';
import { signingBytes, verifyFrame } from '../protocol/verify.ts';
import { isKindOf } from '../protocol/wire/kinds.ts';
import { calm } from '../sim/cluster.ts';
import { fieldsOf, mutantsOf } from '../sim/mutants.ts';
import { begin, culprits, everywhere, orders, retained, text } from './cluster-world.ts';
import { wipe } from './readmission.ts';
import * as fx from './wire-fixtures.ts';
import { samples } from './wire-samples.ts';

t.setTimeout(0);

const kinds = Object.keys(kindNumbers) as Kind[]; // the keys of a literal
/** They say nothing but their kind. */
const WITHOUT_FIELDS: readonly string[] = ['fetch-checkpoint', 'query-head', 'query-checkpoint'];

/** The places of plain values in a payload, as the wire has them, without what is inside of bins. */
function leavesOf(value: WireValue, field = ''): string[] {
  if (value === null) return [];
  if (!Array.isArray(value)) return [field];
  return value.flatMap((each: WireValue, index) => leavesOf(each, field === '' ? `${index}` : `${field}.${index}`));
}

t.test(
  'WIRE-4, A26: each field of each kind, changed by as little as can be: refused, or another message',
  async (t) => {
    const changed = new Map<Kind, Set<string>>();
    let mutants = 0;
    for (const message of samples) {
      const key = message.kind === 'submit' ? fx.client : fx.replicas[0]!;
      const frame = fx.frameOf(message, key);
      const value = decodeMsgpack(frame.payload, { bytesMax: 1 << 20, depthMax: 8, valuesMax: 100_000 });
      if ('refused' in value) return t.fail(value.refused);
      const fields = fieldsOf(frame.payload);
      // Of a long list the first entries stand for the others.
      const missed = leavesOf(value.value).filter((leaf) => !fields.has(leaf) && !/\.([3-9]|\d\d+)(\.|$)/.test(leaf));
      t.strictSame(missed, [], `${message.kind}: every field is changed`);
      changed.set(message.kind, new Set([...(changed.get(message.kind) ?? []), ...fields]));
      for (const { field, what, payload } of mutantsOf(frame.payload)) {
        mutants += 1;
        const name = `${message.kind}, field ${field}, ${what}`;
        const received = decodeFrame(encodeFrame({ ...frame, payload }));
        if (isRefusal(received)) continue;
        const decoded = decodeMessage(received, fx.wire);
        if (isRefusal(decoded)) continue;
        if (!equalBytes(encodePayload(decoded), payload))
          t.fail(`${name}: read as something else than what was written`);
        // What two replicas signed is not touched by what a third one makes of it.
        if (isReplicaKind(message.kind) && !isRefusal(verifyFrame(received, fx.verifyContext)))
          t.fail(`${name}: passes with the signature of another message`);
      }
    }
    t.comment(`${mutants} mutants`);
    t.strictSame(
      kinds.filter((kind) => !changed.has(kind)),
      [],
      'every kind has a sample (test/wire-samples.ts)',
    );
    t.strictSame(
      kinds.filter((kind) => (changed.get(kind)?.size ?? 0) === 0),
      WITHOUT_FIELDS,
      'and fields that are changed',
    );
  },
);

t.test(
  'GEN-1, A10: signed by one replica, mutants of all that replicas say, and old messages, break nobody',
  async (t) => {
    const liar = asReplicaId(3);
    const honest = [0, 1, 2];
    const parameters = { checkpointInterval: 16, window: 4 };
    const { cluster, client } = begin({ seed: 11, parameters });
    cluster.faults = { ...calm, loss: 0.01 };
    const { chainId, members } = cluster.genesis;
    /** Payloads as they were said, the first ones and the last ones of each kind. */
    const said = new Map<Kind, Uint8Array[]>();
    cluster.tamper = (_, __, message) => {
      const payloads = said.get(message.kind) ?? [];
      payloads.push(encodePayload(message));
      if (payloads.length > 4) payloads.splice(2, 1);
      said.set(message.kind, payloads);
      return message;
    };
    // Checkpoints, blocks and state for one that was away, and a view change: all kinds.
    for (const { disk } of cluster.nodes) disk.retain = 4;
    cluster.crash(3);
    for (let i = 0; i < 40; i++)
      if (!orders(cluster, client, { at: 1, ids: honest, ms: 5_000 })) return t.fail('stuck');
    cluster.boot(3);
    for (const { id } of cluster.nodes) retained(cluster, id);
    if (!cluster.until(() => cluster.height(3) === cluster.height(0), 20_000)) return t.fail('not caught up');
    for (const { disk } of cluster.nodes) disk.retain = Number.POSITIVE_INFINITY;
    cluster.crash(2);
    for (let i = 0; i < 2; i++)
      if (!orders(cluster, client, { at: 1, ids: [0, 1, 3], ms: 5_000 })) return t.fail('stuck');
    cluster.boot(2);
    // A block that one of them has prepared votes for, and never got.
    cluster.tamper = hiding(cluster.tamper);
    for (let i = 0; i < 3; i++) orders(cluster, client, { at: 1, ms: 2_000 });
    cluster.crash(0);
    if (!orders(cluster, client, { at: 1, ids: [1, 2, 3], ms: 5_000 })) return t.fail('no view change');
    cluster.boot(0);
    if (!orders(cluster, client, { at: 1, ms: 10_000 })) return t.fail('stuck');
    // What one that has forgotten everything asks, and is told.
    const guard = wipe(cluster, 3);
    for (let i = 0; i < 100 && guard.quarantined; i++) orders(cluster, client, { at: 1, ids: honest, ms: 5_000 });
    t.notOk(guard.quarantined, 'readmitted');
    t.strictSame(
      kinds.filter((kind) => isReplicaKind(kind) && isKindOf('pbft', kind) && !said.has(kind)),
      [],
      'all kinds were said',
    );

    let count = 0;
    const deliver = (kind: Kind, payload: Uint8Array, to: number) => {
      const bytes = signedAs(kind, payload);
      cluster.nodes[to]!.arriveBytes(liar, bytes);
      count += 1;
      // Time for what it may set going.
      if (count % 40 === 0) cluster.run(5);
    };
    const signedAs = (kind: Kind, payload: Uint8Array): Uint8Array => {
      const draft = { kind, payload, sender: members[liar]!.publicKey, signature: new Uint8Array(64) };
      const message = decodeMessage(draft, { ...fx.wire, parameters: cluster.genesis.parameters });
      const covered = isRefusal(message)
        ? frameSigningBytes(chainId, kind, payload)
        : signingBytes(chainId, message, payload);
      return encodeFrame({ ...draft, signature: cluster.keys[liar]!.sign(covered) });
    };
    cluster.tamper = null;
    for (const [kind, payloads] of said) {
      for (const payload of payloads) {
        // An older value again, under its own name or, for what it did not say itself, under the liar's.
        for (const to of honest) deliver(kind, payload, to);
        const mutants = [...mutantsOf(payload)];
        const step = Math.max(1, Math.floor(mutants.length / 250));
        for (let i = 0; i < mutants.length; i += step) deliver(kind, mutants[i]!.payload, honest[i % 3]!);
      }
      t.ok(cluster.live().length === 4, `${kind}: all live`);
      const bundle = client.bundle([text(`after ${kind}`)]);
      for (const id of honest) cluster.submit(id, bundle);
      t.ok(
        cluster.until(() => everywhere(cluster, bundle, honest), 60_000),
        `${kind}: and order`,
      );
    }
    const codes = new Map<string, number>();
    for (const { code } of cluster.refusals) codes.set(code, (codes.get(code) ?? 0) + 1);
    t.comment(`${count} mutants and old messages; refused: ${JSON.stringify([...codes])}`);
    t.notOk(codes.has('signature-invalid'), 'each was signed as its sender would');
    t.ok(
      culprits(cluster).every((id) => id === liar),
      `nobody but the liar is accused: ${culprits(cluster)}`,
    );
    t.equal(new Set(honest.map((id) => toHex(cluster.nodes[id]!.core!.explain().hash))).size, 1);
  },
);

/** The primary's proposals do not come to replica 2, so that it asks for a block by its hash. */
function hiding(inner: NonNullable<ReturnType<typeof begin>['cluster']['tamper']>): typeof inner {
  return (from, to, message) => {
    const said = inner(from, to, message);
    return message.kind === 'pre-prepare' && to === 2 ? null : said;
  };
}
