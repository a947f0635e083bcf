// The wire: the MessagePack subset, frames, payloads, handshake. What is written is read back as it was, what is not ours is refused
// with a code, and no bytes make anything throw.

import { readFileSync } from 'node:fs';
import t from 'tap';
import { type Bytes, concat, equalBytes, fromHex, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { isWellFormed } from '../crypto/utf8.ts';
import { type Block, blockHash, decodeHeader, encodeHeader, HEADER_BYTES, memberSetHash } from '../protocol/block.ts';
import { bundleSigningBytes, type SignedBundle } from '../protocol/bundle.ts';
import { voteSigningBytes } from '../protocol/certificate.ts';
import { checkpointSigningText } from '../protocol/checkpoint-note.ts';
import {
  admissionCodes,
  blockBytesOnWire,
  blockOf,
  bodyOf,
  bundleItemBytes,
  certificateBytesMax,
  certifiedBlockBytes,
  decodeBody,
  decodeBundle,
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeCheckpointPlace,
  decodeFrame,
  decodeMessage,
  decodePayload,
  decodeStoredBlock,
  encodeBody,
  encodeCertificate,
  encodeCheckpointCertificate,
  encodeCheckpointPlace,
  encodeFrame,
  encodePayload,
  encodeStoredBlock,
  followedBlockBytes,
  frameSigningBytes,
  isRefusal,
  type Kind,
  kindNumbers,
  kindOf,
  PAYLOAD_BYTES_MAX,
} from '../protocol/codec.ts';
import { FRAME_BYTES_MAX, parseGenesis } from '../protocol/genesis.ts';
import { Handshake, type HandshakeMessage, type HandshakeStep } from '../protocol/handshake.ts';
import { genesisBlock } from '../protocol/ledger.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { decodeMsgpack, encodeMsgpack, scanMsgpack, type WireValue } from '../protocol/msgpack.ts';
import { asEpoch, asHash, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import { certificateValue } from '../protocol/wire/certificate.ts';
import { followedPayload } from '../protocol/wire/door-payloads.ts';
import { writeFrame } from '../protocol/wire/frame.ts';
import { fc } from './property.ts';
import * as fx from './wire-fixtures.ts';
import { first, samples } from './wire-samples.ts';

const bytesOf = (hex: string): Bytes => fromHex(hex.replaceAll(/[-\s]/g, ''))!;
const limits = { bytesMax: 1 << 20, depthMax: 8, valuesMax: 10_000 };
const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

// ---- MessagePack ------------------------------------------------------------------------------------------------------

/** The subset's one encoding by a few lines of their own, to hold the codec against; undefined where there is none. */
function reference(value: unknown): string | undefined {
  const head = (steps: readonly (readonly [number, number, number])[], n: number) => {
    const step = steps.find(([max]) => n <= max)!;
    return step[2].toString(16).padStart(2, '0') + (step[1] === 0 ? '' : n.toString(16).padStart(2 * step[1], '0'));
  };
  if (value === null) return 'c0';
  if (typeof value === 'boolean') return value ? 'c3' : 'c2';
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) return undefined;
    if (value < 128) return value.toString(16).padStart(2, '0');
    return head(
      [
        [0xff, 1, 0xcc],
        [0xffff, 2, 0xcd],
        [0xffffffff, 4, 0xce],
        [2 ** 53, 8, 0xcf],
      ],
      value,
    );
  }
  if (typeof value === 'string') {
    const bytes = new TextEncoder().encode(value);
    const n = bytes.length;
    if (n < 32) return (0xa0 + n).toString(16) + toHex(bytes);
    return (
      head(
        [
          [0xff, 1, 0xd9],
          [0xffff, 2, 0xda],
          [0xffffffff, 4, 0xdb],
        ],
        n,
      ) + toHex(bytes)
    );
  }
  if (value instanceof Uint8Array)
    return (
      head(
        [
          [0xff, 1, 0xc4],
          [0xffff, 2, 0xc5],
          [0xffffffff, 4, 0xc6],
        ],
        value.length,
      ) + toHex(value)
    );
  if (!Array.isArray(value)) return undefined;
  const items = value.map(reference);
  if (items.includes(undefined)) return undefined;
  const n = items.length;
  return (
    (n < 16
      ? (0x90 + n).toString(16)
      : head(
          [
            [0xffff, 2, 0xdc],
            [0xffffffff, 4, 0xdd],
          ],
          n,
        )) + items.join('')
  );
}

t.test(
  'WIRE-1: of the encodings of the msgpack test suite exactly the canonical ones of the subset pass',
  async (t) => {
    const suite: Record<string, Record<string, unknown>[]> = JSON.parse(read('test/vectors/msgpack-test-suite.json'));
    let accepted = 0;
    let refused = 0;
    for (const [file, cases] of Object.entries(suite)) {
      for (const each of cases) {
        const type = ['nil', 'bool', 'binary', 'number', 'bignum', 'string', 'array'].find((name) => name in each);
        let value: unknown = type === undefined ? {} : each[type];
        // Beyond 2^53 numbers are given as text; so are bytes.
        if (type === 'bignum') value = Number(value);
        if (type === 'binary') value = bytesOf(String(value));
        const expected = reference(value);
        for (const hex of each.msgpack as string[]) {
          const bytes = bytesOf(hex);
          const decoded = decodeMsgpack(bytes, limits);
          if (toHex(bytes) === expected) {
            accepted += 1;
            if ('refused' in decoded) t.fail(`${file} ${hex}: ${decoded.refused}`);
            else t.strictSame(reference(decoded.value), expected, `${file} ${hex}`);
          } else {
            refused += 1;
            t.ok('refused' in decoded, `${file} ${hex} is refused`);
          }
        }
      }
    }
    t.strictSame({ accepted, refused }, { accepted: 36, refused: 197 }, 'all 233 were looked at');
  },
);

t.test('WIRE-1: hostile MessagePack is refused by its rule, before anything is allocated', async (t) => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['nothing', '', 'msgpack-truncated'],
    ['never used', 'c1', 'msgpack-type'],
    ['map', '80', 'msgpack-type'],
    ['map 16', 'de0000', 'msgpack-type'],
    ['map 32 of 2^32 - 1', 'dfffffffff', 'msgpack-type'],
    ['a record definition that would reach new Function', 'd47240', 'msgpack-type'],
    ['a record in two bytes', 'd5726040', 'msgpack-type'],
    ['RegExp', 'c70578a161a0', 'msgpack-type'],
    ['Error', 'c70165', 'msgpack-type'],
    ['Set', 'd4730090', 'msgpack-type'],
    ['a cycle', 'd6690000000191d67000000001', 'msgpack-type'],
    ['BigInt without bound', 'c7ff42', 'msgpack-type'],
    ['timestamp', 'd6ff00000000', 'msgpack-type'],
    ['bundled strings', 'd66200000005', 'msgpack-type'],
    ['float 32', 'ca3f800000', 'msgpack-type'],
    ['float 64', 'cb3ff0000000000000', 'msgpack-type'],
    ['negative fixint', 'ff', 'msgpack-type'],
    ['int 8', 'd0ff', 'msgpack-type'],
    ['int 64, positive', 'd30000000100000000', 'msgpack-type'],
    ['uint 8 of 127', 'cc7f', 'msgpack-not-minimal'],
    ['uint 16 of 255', 'cd00ff', 'msgpack-not-minimal'],
    ['uint 32 of 65535', 'ce0000ffff', 'msgpack-not-minimal'],
    ['uint 64 of 2^32 - 1', 'cf00000000ffffffff', 'msgpack-not-minimal'],
    ['uint 64 of 2^53', 'cf0020000000000000', 'msgpack-integer'],
    ['uint 64 of 2^64 - 1', 'cfffffffffffffffff', 'msgpack-integer'],
    ['bin 16 of 255', `c500ff${'00'.repeat(255)}`, 'msgpack-not-minimal'],
    ['bin 32 of 65535', `c60000ffff${'00'.repeat(65535)}`, 'msgpack-not-minimal'],
    ['str 8 of 31', `d91f${'61'.repeat(31)}`, 'msgpack-not-minimal'],
    ['array 16 of 15', `dc000f${'00'.repeat(15)}`, 'msgpack-not-minimal'],
    ['array 32 of 65535', `dd0000ffff${'00'.repeat(65535)}`, 'msgpack-not-minimal'],
    ['array 32 of 2^32 - 1', 'ddffffffff', 'msgpack-truncated'],
    ['bin 32 of 2^32 - 1', 'c6ffffffff', 'msgpack-truncated'],
    ['a tag without its length', 'c6ffff', 'msgpack-truncated'],
    ['an array without its elements', '9300', 'msgpack-truncated'],
    ['two values', '0000', 'msgpack-trailing'],
    ['a value and one byte', '9100c1', 'msgpack-trailing'],
    ['depth 9', '9191919191919191' + '9100', 'msgpack-depth'],
    ['1,000 arrays deep', '91'.repeat(1000), 'msgpack-depth'],
    ['10,000 values', `dd${(70_000).toString(16).padStart(8, '0')}${'c0'.repeat(70_000)}`, 'msgpack-values'],
    ['overlong', 'a2c080', 'msgpack-utf8'],
    ['overlong in three', 'a3e08080', 'msgpack-utf8'],
    ['a surrogate', 'a3eda080', 'msgpack-utf8'],
    ['above U+10FFFF', 'a4f4908080', 'msgpack-utf8'],
    ['f5', 'a4f5808080', 'msgpack-utf8'],
    ['a lone continuation', 'a180', 'msgpack-utf8'],
    ['a cut sequence', 'a2e282', 'msgpack-utf8'],
    ['a bad third byte', 'a3e28228', 'msgpack-utf8'],
    ['a byte-order mark', 'a3efbbbf', 'msgpack-utf8'],
    ['larger than allowed', '00'.repeat((1 << 20) + 1), 'msgpack-too-large'],
  ];
  for (const [name, hex, code] of cases) {
    t.equal(scanMsgpack(bytesOf(hex), limits), code, name);
    t.strictSame(decodeMsgpack(bytesOf(hex), limits), { refused: code }, name);
  }
  // A flood of empty maps costs msgpackr up to 192 bytes each; here it costs nothing.
  const flood = concat(bytesOf('dc3fff'), fx.filled(0x80, 0x3fff));
  t.equal(scanMsgpack(flood, limits), 'msgpack-type');
});

const wireValue: fc.Arbitrary<WireValue> = fc.letrec<{ value: WireValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', maxDepth: 5 },
    fc.constant(null),
    fc.boolean(),
    fc.oneof(
      fc.maxSafeNat(),
      fc.nat(70_000),
      fc.constantFrom(127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1),
    ),
    fc.string({ unit: 'binary', maxLength: 300 }).filter((each) => isWellFormed(each) && !each.startsWith('\ufeff')),
    fc.uint8Array({ maxLength: 400 }),
    fc.array(tie('value'), { maxLength: 20 }),
  ),
})).value;

t.test('WIRE-2: one value, one encoding', async (t) => {
  fc.assert(
    fc.property(wireValue, (value) => {
      const bytes = encodeMsgpack(value);
      const decoded = decodeMsgpack(bytes, limits);
      return toHex(bytes) === reference(value) && 'value' in decoded && same(decoded.value, value);
    }),
    { numRuns: 1000 },
  );
  t.pass('decode(encode(x)) is x, and the encoding is the reference one');
  let accepted = 0;
  fc.assert(
    fc.property(mutated(wireValue.map(encodeMsgpack)), (bytes) => {
      const decoded = decodeMsgpack(bytes, limits);
      if ('refused' in decoded) return true;
      accepted += 1;
      return toHex(encodeMsgpack(decoded.value)) === toHex(bytes);
    }),
    { numRuns: 4000 },
  );
  t.ok(accepted > 100, `encode(decode(b)) is b for ${accepted} accepted mutants`);
  t.throws(() => encodeMsgpack(-1), RangeError, 'a number outside of the subset is a bug');
  t.throws(() => encodeMsgpack([1.5]), RangeError);
  t.throws(() => encodeMsgpack(2 ** 53), RangeError);
});

t.test('WIRE-2: strings of every length keep their characters', async (t) => {
  // msgpackr reads short, middle and long strings by three different ways.
  for (const unit of ['a', 'é', '€', '😀', '\ufeffa'])
    for (const count of [0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 65, 139, 140, 255, 256, 300, 5000, 65_536]) {
      const value = `x${unit.repeat(count)}`;
      const decoded = decodeMsgpack(encodeMsgpack([value, value]), limits);
      if (!('value' in decoded) || !same(decoded.value, [value, value])) t.fail(`${unit} x ${count}`);
    }
  t.pass('all as written');
});

t.test('WIRE-3: bins are plain views, whatever the bytes came in', async (t) => {
  const bytes = encodeMsgpack([fx.filled(7, 40)]);
  const inBuffer = Buffer.concat([Buffer.alloc(3), bytes]).subarray(3);
  const decoded = decodeMsgpack(inBuffer, limits);
  const bin = 'value' in decoded && Array.isArray(decoded.value) ? decoded.value[0] : undefined;
  t.equal(Object.getPrototypeOf(bin), Uint8Array.prototype);
  t.equal(bin.buffer, inBuffer.buffer, 'no copy');
  t.strictSame(Object.keys(inBuffer), Object.keys(Buffer.from(inBuffer)), 'nothing was hung on the caller’s bytes');
  const encoded = encodeMsgpack([1]);
  t.equal(Object.getPrototypeOf(encoded), Uint8Array.prototype);
  t.equal(encoded.buffer.byteLength, encoded.length, 'an encoding owns its memory');
});

/** These bytes with a few small changes: flips, cuts, insertions, repeated parts. */
function mutated(source: fc.Arbitrary<Bytes>): fc.Arbitrary<Bytes> {
  const change = fc.record({
    how: fc.constantFrom('set', 'flip', 'cut', 'insert', 'grow'),
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    byte: fc.oneof(
      fc.nat(255),
      fc.constantFrom(0x7f, 0x80, 0x90, 0xc0, 0xc1, 0xc4, 0xc6, 0xcf, 0xd3, 0xdc, 0xdd, 0xff),
    ),
  });
  return fc.tuple(source, fc.array(change, { minLength: 0, maxLength: 3 })).map(([bytes, changes]) => {
    let out = Uint8Array.from(bytes);
    for (const { how, at, byte } of changes) {
      const i = Math.floor(at * out.length);
      if (how === 'set' && out.length > 0) out[i] = byte;
      else if (how === 'flip' && out.length > 0) out[i]! ^= 1 << (byte % 8);
      else if (how === 'cut') out = out.slice(0, i);
      else if (how === 'insert') out = Uint8Array.from([...out.subarray(0, i), byte, ...out.subarray(i)]);
      else out = Uint8Array.from([...out, ...out.subarray(i)]);
    }
    return out;
  });
}

/** Deep equality of what the wire carries; bytes by content. */
function same(a: unknown, b: unknown): boolean {
  if (a instanceof Uint8Array || b instanceof Uint8Array)
    return a instanceof Uint8Array && b instanceof Uint8Array && toHex(a) === toHex(b);
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b;
  const keys = Object.keys(a);
  if (Array.isArray(a) !== Array.isArray(b) || keys.length !== Object.keys(b).length) return false;
  return keys.every((key) => same(Reflect.get(a, key), Reflect.get(b, key)));
}

// ---- frames -----------------------------------------------------------------------------------------------------------

const frame = fx.frameOf({ kind: 'query-bundle', question: 7, digest: fx.hashOf(3) });

t.test('WIRE-7: frames', async (t) => {
  const bytes = encodeFrame(frame);
  t.ok(same(decodeFrame(bytes), frame));
  t.ok(same(decodeFrame(Buffer.from(bytes)), frame), 'from a Buffer');
  t.equal(toHex(bytes), reference([1, 68, frame.payload, frame.sender, frame.signature]), 'five fields, no more');
  const { payload, sender, signature } = frame;
  const crafted = (...fields: WireValue[]) => decodeFrame(encodeMsgpack(fields));
  const expect = (name: string, got: object, refused: string, kind: string | null, field: string) =>
    t.strictSame(got, { refused, kind, field, msgpack: null }, name);
  expect('a later version', crafted(2, 68, payload, sender, signature), 'frame-version', null, 'version');
  expect('version 0', crafted(0, 68, payload, sender, signature), 'frame-version', null, 'version');
  expect('an unknown kind', crafted(1, 12, payload, sender, signature), 'frame-kind-unknown', null, 'kind');
  expect('a kind of 2^53 - 1', crafted(1, 2 ** 53 - 1, payload, sender, signature), 'frame-kind-unknown', null, 'kind');
  expect('a word for a kind', crafted(1, 'status', payload, sender, signature), 'frame-malformed', null, 'kind');
  expect(
    'a payload that is no bin',
    crafted(1, 68, 'x', sender, signature),
    'frame-malformed',
    'query-bundle',
    'payload',
  );
  for (const n of [0, 31, 33])
    expect(
      `a key of ${n} bytes`,
      crafted(1, 68, payload, fx.filled(1, n), signature),
      'frame-malformed',
      'query-bundle',
      'sender',
    );
  for (const n of [0, 63, 65])
    expect(
      `a signature of ${n} bytes`,
      crafted(1, 68, payload, sender, fx.filled(1, n)),
      'frame-malformed',
      'query-bundle',
      'signature',
    );
  expect('four fields', crafted(1, 68, payload, sender), 'frame-malformed', null, '');
  expect('six fields', crafted(1, 68, payload, sender, signature, 0), 'frame-malformed', null, '');
  expect('nothing', decodeFrame(new Uint8Array(0)), 'frame-malformed', null, '');
  expect('a byte behind', decodeFrame(concat(bytes, fx.filled(0, 1))), 'frame-malformed', 'query-bundle', '');
  expect('one byte too large', decodeFrame(fx.filled(0x95, FRAME_BYTES_MAX + 1)), 'frame-too-large', null, '');
  const largest = encodeFrame({ ...frame, payload: new Uint8Array(PAYLOAD_BYTES_MAX) });
  t.ok(
    largest.length <= FRAME_BYTES_MAX && largest.length > FRAME_BYTES_MAX - 8,
    'the limits of payload and frame agree',
  );
  t.notOk(isRefusal(decodeFrame(largest)));
  t.throws(
    () => encodeFrame({ ...frame, payload: new Uint8Array(PAYLOAD_BYTES_MAX + 1) }),
    'a sender never makes more',
  );
  t.equal(decodeFrame(new Uint8Array(0)) instanceof Error, false);
});

t.test('WIRE-7: every kind has one number, for ever', async (t) => {
  t.strictSame(kindNumbers, {
    status: 1,
    forward: 2,
    'fetch-blocks': 3,
    blocks: 4,
    'fetch-block': 5,
    'block-data': 6,
    checkpoint: 7,
    'fetch-checkpoint': 8,
    'checkpoint-proof': 9,
    'fetch-state': 10,
    'state-chunk': 11,
    'pre-prepare': 16,
    prepare: 17,
    commit: 18,
    'view-change': 19,
    'new-view': 20,
    'fetch-standing': 21,
    standing: 22,
    'paxos-prepare': 32,
    promise: 33,
    accept: 34,
    accepted: 35,
    reject: 36,
    configure: 37,
    configured: 38,
    'open-round': 39,
    'fast-accept': 40,
    'fast-accepted': 41,
    'take-over': 42,
    'request-vote': 48,
    vote: 49,
    'append-entries': 50,
    appended: 51,
    'raft-reject': 52,
    'timeout-now': 53,
    'read-query': 56,
    'read-reply': 57,
    submit: 64,
    follow: 65,
    credit: 66,
    'query-head': 67,
    'query-bundle': 68,
    'query-epochs': 69,
    'query-checkpoint': 70,
    'query-state': 71,
    admissions: 96,
    receipts: 97,
    'follow-blocks': 98,
    'follow-end': 99,
    head: 100,
    epochs: 101,
    'checkpoint-here': 102,
    'state-here': 103,
    hello: 128,
    auth: 129,
    rekey: 130,
  });
  t.equal(new Set(Object.values(kindNumbers)).size, Object.keys(kindNumbers).length);
  for (const [kind, number] of Object.entries(kindNumbers)) t.equal(kindOf(number), kind);
});

t.test('WIRE-6: the fast readers accept exactly what the scan accepts', async (t) => {
  // A frame by the generic codec: what decodeFrame must agree with.
  const generic = (bytes: Bytes): boolean => {
    const decoded = decodeMsgpack(bytes, { bytesMax: FRAME_BYTES_MAX, depthMax: 1, valuesMax: 6 });
    if ('refused' in decoded || !Array.isArray(decoded.value) || decoded.value.length !== 5) return false;
    const [version, kind, payload, sender, signature] = decoded.value;
    return (
      version === 1 &&
      typeof kind === 'number' &&
      kindOf(kind) !== undefined &&
      payload instanceof Uint8Array &&
      sender instanceof Uint8Array &&
      sender.length === 32 &&
      signature instanceof Uint8Array &&
      signature.length === 64
    );
  };
  const counts = { accepted: 0, refused: 0 };
  const note = (accepted: boolean) => {
    counts[accepted ? 'accepted' : 'refused'] += 1;
  };
  fc.assert(
    fc.property(
      mutated(fc.uint8Array({ maxLength: 300 }).map((payload) => encodeFrame({ ...frame, payload }))),
      (bytes) => {
        const accepted = !isRefusal(decodeFrame(bytes));
        note(accepted);
        return accepted === generic(bytes);
      },
    ),
    { numRuns: 5000 },
  );
  const genericBundle = (payload: Bytes): boolean => {
    const decoded = decodeMsgpack(payload, { bytesMax: 1 << 18, depthMax: 2, valuesMax: 2000 });
    if ('refused' in decoded || !Array.isArray(decoded.value) || decoded.value.length !== 5) return false;
    const [client, session, sequence, until, list] = decoded.value;
    return (
      client instanceof Uint8Array &&
      client.length === 32 &&
      typeof session === 'number' &&
      typeof sequence === 'number' &&
      sequence > 0 &&
      typeof until === 'number' &&
      Array.isArray(list) &&
      list.length > 0 &&
      list.every((each: unknown) => each instanceof Uint8Array && each.length > 0)
    );
  };
  fc.assert(
    fc.property(
      mutated(
        fc
          .array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 20 })
          .map((list) => fx.bundle(3, list).payload),
      ),
      (payload) => {
        const accepted = !isRefusal(decodeBundle({ payload, signature: new Uint8Array(64) }, fx.wire));
        note(accepted);
        return accepted === genericBundle(payload);
      },
    ),
    { numRuns: 3000 },
  );
  t.ok(counts.accepted > 300 && counts.refused > 300, JSON.stringify(counts));
});

// ---- payloads ---------------------------------------------------------------------------------------------------------

t.test('WIRE-8 WIRE-12: every kind comes back as it went, in the canonical subset', async (t) => {
  t.strictSame(
    [...new Set(samples.map(({ kind }) => kind))].sort(),
    Object.keys(kindNumbers).sort(),
    'all kinds have samples',
  );
  for (const message of samples) {
    const sent = fx.frameOf(message, message.kind === 'submit' ? fx.client : fx.replicas[0]!);
    const received = decodeFrame(encodeFrame(sent));
    if (isRefusal(received)) return t.fail(`${message.kind}: ${received.refused}`);
    const decoded = decodeMessage(received, fx.wire);
    if (isRefusal(decoded)) return t.fail(JSON.stringify(decoded));
    t.ok(same(decoded, message), `${message.kind} is the same`);
    t.equal(toHex(encodePayload(decoded)), toHex(sent.payload), `${message.kind} encodes to the same bytes`);
    const generic = decodeMsgpack(sent.payload, limits);
    if ('refused' in generic) return t.fail(`${message.kind}: ${generic.refused}`);
    t.equal(toHex(encodeMsgpack(generic.value)), toHex(sent.payload), `${message.kind} is what msgpackr writes`);
  }
});

t.test('WIRE-5: what is kept does not pin the frame', async (t) => {
  // The bodies of blocks and of streams are views on purpose: they are most of their frames.
  const bodies = new Set<Kind>([
    'blocks',
    'block-data',
    'pre-prepare',
    'accept',
    'fast-accept',
    'append-entries',
    'follow-blocks',
  ]);
  for (const message of samples) {
    const bytes = encodeFrame(fx.frameOf(message));
    const received = decodeFrame(bytes);
    if (isRefusal(received)) return t.fail();
    const decoded = decodeMessage(received, fx.wire);
    const shared = (value: unknown, path: string): string[] => {
      if (value instanceof Uint8Array) return value.buffer === bytes.buffer ? [path] : [];
      if (typeof value !== 'object' || value === null) return [];
      return Object.entries(value).flatMap(([key, inner]) => shared(inner, `${path}.${key}`));
    };
    const views = shared(decoded, message.kind).filter(
      (path) => !(bodies.has(message.kind) && path.includes('.bundles.')),
    );
    t.strictSame(views, [], message.kind);
  }
});

/** The payload of this sample as plain values, to be changed. */
function valuesOf(kind: Kind, index = 0): WireValue[] {
  const decoded = decodeMsgpack(encodePayload(samples.filter((each) => each.kind === kind)[index]!), limits);
  if ('refused' in decoded || !Array.isArray(decoded.value)) throw new Error(kind);
  return [...decoded.value];
}

const max = Number.MAX_SAFE_INTEGER;
const bin = (length: number) => new Uint8Array(length);
type Bound = readonly [
  kind: Exclude<Kind, 'submit'>,
  position: number,
  good: readonly WireValue[],
  bad: readonly WireValue[],
];
const certificateWith = (position: number, value: WireValue): WireValue => {
  const values: WireValue[] = [0, 2, 0, 1, fx.hashOf(1), [0, 1, 3].map((i) => [i, bin(64)])];
  values[position] = value;
  return values;
};
const signatures = (indexes: readonly WireValue[], length = 64) => indexes.map((i): WireValue => [i, bin(length)]);

const answerWith = (position: number, value: WireValue): WireValue => {
  const values: WireValue[] = [5, bin(32), 1, 2];
  values[position] = value;
  return values;
};
const answersRefused = [
  null,
  0,
  [],
  answerWith(0, 0),
  answerWith(1, bin(31)),
  answerWith(1, null),
  answerWith(3, null),
];

/** Every scalar field at its limits and beyond. */
const bounds: readonly Bound[] = [
  ['status', 0, [0, max], [null, 'x', true, bin(1)]],
  ['status', 1, [0, max], [null]],
  ['status', 2, [true, false], [0, 1, null]],
  ['status', 3, [0, max], [false]],
  ['status', 4, [bin(32)], [bin(31), bin(33), bin(0), '', null]],
  ['status', 5, [0, max], ['']],
  ['status', 6, [0, max], [[]]],
  ['fetch-blocks', 0, [1, max], [0, null]],
  ['fetch-blocks', 1, [1, max], [0, bin(8)]],
  ['fetch-block', 0, [1, max], [0]],
  ['fetch-block', 1, [bin(32)], [bin(31), bin(33)]],
  ['checkpoint', 0, [0, max], [null]],
  ['checkpoint', 1, [1, max], [0]],
  ...[2, 3, 4, 5].map((position): Bound => ['checkpoint', position, [bin(32)], [bin(31), bin(33), 0]]),
  ['checkpoint-proof', 1, [bin(HEADER_BYTES)], [bin(HEADER_BYTES - 1), bin(HEADER_BYTES + 1)]],
  [
    'checkpoint-proof',
    0,
    [[0, 1, bin(32), bin(32), bin(32), bin(32), signatures([0])]],
    [null, [], [0, 1, bin(32), bin(32), bin(32), bin(32), []]],
  ],
  ['fetch-state', 0, [1, max], [0]],
  ['fetch-state', 1, [0, 2 ** 32 - 1], [2 ** 32]],
  ['state-chunk', 0, [1, max], [0]],
  ['state-chunk', 1, [0, 2 ** 32 - 1], [2 ** 32]],
  ['state-chunk', 2, [bin(0), bin(786_432)], [bin(786_433), null]],
  ['state-chunk', 3, [[], Array(53).fill(bin(32))], [Array(54).fill(bin(32)), [bin(31)], [0], null]],
  ['prepare', 0, [0, max], [null]],
  ['prepare', 1, [0, max], [null]],
  ['prepare', 2, [1, max], [0]],
  ['commit', 3, [bin(32)], [bin(31), bin(33)]],
  ['pre-prepare', 0, [0, max], [null, bin(1)]],
  ['view-change', 0, [0, max], [null]],
  ['view-change', 1, [1, max], [0]],
  ['new-view', 0, [0, max], [null]],
  ['new-view', 1, [1, max], [0]],
  ['fetch-standing', 0, [0, max], [null]],
  ['fetch-standing', 1, [bin(32)], [bin(31), bin(33), null]],
  ['standing', 1, [bin(32)], [bin(31), bin(33), null]],
  ['paxos-prepare', 0, [0, max], [null]],
  ['request-vote', 1, [1, max], [0]],
  ['request-vote', 2, [0, 5], [6, null]],
  ['request-vote', 3, [3, max], [2]],
  ['request-vote', 4, [0, max], [null]],
  ['vote', 1, [1, max], [0]],
  ['vote', 2, [0, 127], [128]],
  ['appended', 1, [1, max], [0]],
  ['appended', 2, [0, max], [null]],
  ['raft-reject', 2, [0, max], [null]],
  ['timeout-now', 1, [1, max], [0]],
  ['read-query', 1, [1, max], [0]],
  ['read-query', 2, [1, max], [0, null]],
  ['read-reply', 1, [1, max], [0]],
  ['read-reply', 2, [1, max], [0]],
  ['read-reply', 3, [0, max], [null]],
  ['append-entries', 1, [1, max], [0]],
  ['append-entries', 2, [0, max], [null]],
  ['append-entries', 3, [0, max], [null]],
  ['append-entries', 4, [0, max], [null]],
  ['append-entries', 5, [null], [0, [], [1], [0, []]]],
  ['paxos-prepare', 1, [1, max], [0]],
  ['reject', 1, [1, max], [0]],
  ['take-over', 1, [1, max], [0]],
  ['promise', 1, [1, max], [0]],
  ['promise', 2, [0, max], [null]],
  [
    'promise',
    3,
    [[[5, 1, bin(32)]], Array.from({ length: 256 }, (_, i): WireValue => [5 + i, 1, bin(32)])],
    [
      null,
      [[4, 1, bin(32)]],
      [[5, 0, bin(32)]],
      [[5, 1, bin(31)]],
      [
        [6, 1, bin(32)],
        [6, 1, bin(32)],
      ],
      Array.from({ length: 257 }, (_, i): WireValue => [5 + i, 1, bin(32)]),
    ],
  ],
  [
    'promise',
    4,
    [null, [1, 0, [0]], [max, max, [0, 127]]],
    [0, [0, 0, [0]], [1, 0, []], [1, 0, [1, 1]], [1, 0, [128]], [1, 0]],
  ],
  ['configure', 1, [1, max], [0]],
  ['configure', 2, [0, max], [null]],
  ['configure', 3, [[0], Array.from({ length: 128 }, (_, i): WireValue => i)], [[], [1, 0], [0, 0], [128], null]],
  ['configured', 1, [1, max], [0]],
  ['open-round', 1, [1, max], [0]],
  ['open-round', 2, [1, max], [0]],
  ['fast-accept', 0, [1, max], [0]],
  ['fast-accepted', 1, [1, max], [0]],
  ['accept', 0, [1, max], [0]],
  ['accepted', 1, [1, max], [0]],
  [
    'accepted',
    2,
    [[[1, bin(32)]], Array.from({ length: 64 }, (_, i): WireValue => [1 + i, bin(32)])],
    [
      [],
      [[0, bin(32)]],
      [
        [2, bin(32)],
        [1, bin(32)],
      ],
      Array.from({ length: 65 }, (_, i): WireValue => [1 + i, bin(32)]),
    ],
  ],
  ['follow', 0, [0, 1], [null]],
  ['follow', 1, [0, max], [null]],
  ['follow', 2, [true, false], [1]],
  ['follow', 3, [1, 4096], [0, 4097]],
  ['credit', 0, [1, 4096], [0, 4097]],
  ['query-bundle', 0, [1, max], [0, null]],
  ['query-bundle', 1, [bin(32)], [bin(31), bin(33)]],
  ['receipts', 0, [answerWith(0, 1), answerWith(0, max), answerWith(2, 0), answerWith(3, 0)], answersRefused],
  [
    'admissions',
    0,
    [[[bin(32), 'bundle-invalid', 0]], Array(1024).fill([bin(32), 'valid-until-too-far', max])],
    [
      ...[
        null,
        [],
        [[]],
        [[bin(31), 'pooled', 0]],
        [[bin(32), 'pooled', null]],
        Array(1025).fill([bin(32), 'known', 0]),
      ],
      ...['', 'Pooled', 0, 'x'.repeat(40)].map((code) => [[bin(32), code, 0]]),
    ],
  ],
  ['query-state', 0, [1, max], [0, null]],
  ['query-state', 1, [0, 0xffff_ffff], [0x1_0000_0000, null]],
  ['state-here', 0, [1, max], [0, null]],
  ['state-here', 1, [0, 0xffff_ffff], [0x1_0000_0000, null]],
  [
    'state-here',
    2,
    [null, [bin(0), []], [bin(9), Array(53).fill(bin(32))]],
    [0, [], [bin(0)], [bin(0), [bin(31)]], [bin(0), Array(54).fill(bin(32))]],
  ],
  ['query-epochs', 0, [1, max], [0, null]],
  ['epochs', 0, [1, max], [0, null]],
  ['epochs', 1, [[], Array(64).fill(bin(1))], [null, [bin(0)], [null], Array(65).fill(bin(1))]],
  ['follow-end', 0, ['reached', 'draining'], ['gone', 1]],
  ['follow-end', 1, [0, max], [true]],
  ['head', 0, [0, max], [null]],
  ['head', 1, [0, max], [null]],
  ['head', 2, [0, 127], [128]],
  ['head', 3, [0, max], [null]],
  ['head', 4, [0, max], [null]],
  [
    'head',
    5,
    [
      null,
      certificateWith(0, max),
      certificateWith(1, 1),
      certificateWith(1, 3),
      certificateWith(2, max),
      certificateWith(3, max),
      certificateWith(5, signatures(Array.from({ length: 128 }, (_, i) => i))),
    ],
    [
      0,
      [],
      certificateWith(0, null),
      certificateWith(1, 0),
      certificateWith(1, 4),
      certificateWith(2, null),
      certificateWith(3, 0),
      certificateWith(4, bin(31)),
      certificateWith(5, []),
      certificateWith(5, signatures([0, 0])),
      certificateWith(5, signatures([1, 0])),
      certificateWith(5, signatures([128])),
      certificateWith(5, signatures([0], 63)),
      certificateWith(5, signatures([0], 65)),
      certificateWith(5, [[0]]),
      certificateWith(5, signatures(Array.from({ length: 129 }, (_, i) => i))),
    ],
  ],
  ['hello', 0, [0, max], [null]],
  ['hello', 1, [bin(32)], [bin(31)]],
  ['hello', 2, [0, max], [null]],
  ['hello', 3, [1, 2], [0, 3]],
  ['hello', 4, [bin(32)], [bin(31), bin(33)]],
  ['auth', 0, [bin(32)], [bin(31), bin(33)]],
  ['rekey', 0, [0, max], [null]],
  ['rekey', 1, [bin(32)], [bin(31), bin(33)]],
];

t.test('WIRE-8: every field at its limit passes, beyond it is refused', async (t) => {
  const decode = (kind: Exclude<Kind, 'submit'>, values: readonly WireValue[]) =>
    decodePayload(kind, encodeMsgpack(values), fx.wire);
  for (const [kind, position, good, bad] of bounds) {
    for (const value of good) {
      const values = valuesOf(kind);
      values[position] = value;
      // The upper end of a range must not be below the lower one.
      if (kind === 'fetch-blocks' && position === 0) values[1] = max;
      const got = decode(kind, values);
      if (isRefusal(got))
        t.fail(`${kind} ${position} accepts ${JSON.stringify(value)?.slice(0, 60)}: ${JSON.stringify(got)}`);
      else t.equal(toHex(encodePayload(got)), toHex(encodeMsgpack(values)), `${kind} ${position} keeps its limit`);
    }
    for (const value of bad) {
      const values = valuesOf(kind);
      values[position] = value;
      const got = decode(kind, values);
      if (!isRefusal(got)) t.fail(`${kind} ${position} refuses ${JSON.stringify(value)?.slice(0, 60)}`);
      else
        t.ok(
          ['payload-malformed', 'field-out-of-range'].includes(got.refused) && got.kind === kind,
          `${kind} ${position} ${got.field}`,
        );
    }
  }
  for (const kind of Object.keys(kindNumbers) as Kind[]) {
    if (kind === 'submit') continue;
    const values = valuesOf(kind);
    const code = (got: object) => ('refused' in got ? got.refused : 'accepted');
    t.equal(code(decode(kind, [...values, null])), 'payload-malformed', `${kind} with one field more`);
    if (values.length > 0)
      t.equal(code(decode(kind, values.slice(0, -1))), 'payload-malformed', `${kind} with one field less`);
    t.equal(code(decodePayload(kind, encodeMsgpack(null), fx.wire)), 'payload-malformed', `${kind} that is nil`);
    t.equal(
      code(decodePayload(kind, concat(encodePayload(samples.find((each) => each.kind === kind)!), bin(1)), fx.wire)),
      'payload-malformed',
    );
  }
  t.strictSame(decode('follow', [5, 4, false, 1]), {
    refused: 'field-out-of-range',
    kind: 'follow',
    field: 'to',
    msgpack: null,
  });
  t.strictSame(decode('fetch-blocks', [5, 4]), {
    refused: 'field-out-of-range',
    kind: 'fetch-blocks',
    field: 'to',
    msgpack: null,
  });
  t.strictSame(decodePayload('prepare', bytesOf('9400000080'), fx.wire), {
    refused: 'payload-malformed',
    kind: 'prepare',
    field: '',
    msgpack: 'msgpack-type',
  });
});

t.test('WIRE-8: lists have limits', async (t) => {
  const refusedAt = (got: object) => ('refused' in got && 'field' in got ? `${got.refused} ${got.field}` : 'accepted');
  const empty = [encodeHeader(first.header), []] as const;
  const many = (count: number, value: WireValue): WireValue[] => Array<WireValue>(count).fill(value);
  const decode = (kind: Exclude<Kind, 'submit'>, values: WireValue) =>
    refusedAt(decodePayload(kind, encodeMsgpack(values), fx.wire));
  t.equal(decode('new-view', [0, 5, []]), 'field-out-of-range viewChanges');
  t.equal(decode('new-view', [0, 5, many(129, [0, bin(1), bin(64)])]), 'payload-malformed ', 'the scan stops before');
  t.equal(decode('new-view', [0, 5, [[128, bin(1), bin(64)]]]), 'field-out-of-range viewChanges.sender');
  t.equal(decode('new-view', [0, 5, [[0, bin(1), bin(64)]]]), 'payload-malformed viewChanges.');
  t.equal(decode('receipts', [null, many(1025, 0)]), 'field-out-of-range receipts');
  t.equal(decode('receipts', [null, []]), 'field-out-of-range receipts', 'nothing, and in answer to nothing');
  t.equal(decode('receipts', [answerWith(0, 1), many(2, 0)]), 'field-out-of-range receipts', 'two for one question');
  t.equal(decode('follow-blocks', [many(4097, 0)]), 'field-out-of-range blocks');
  t.equal(decode('blocks', [many(4097, 0), null]), 'field-out-of-range blocks');
  t.equal(decode('forward', [many(1025, 0)]), 'field-out-of-range bundles');
  t.equal(decode('block-data', [empty[0], many(1025, 0)]), 'field-out-of-range bundles');
  t.equal(decode('forward', [[[fx.bundle(1, [bin(1)]).payload, bin(63)]]]), 'field-out-of-range bundles.signature');
  const receipt = valuesOf('receipts', 1)[1] as WireValue[][];
  const change = (position: number, value: WireValue) => [
    null,
    [receipt[0]!.map((each, i) => (i === position ? value : each))],
  ];
  t.equal(decode('receipts', change(0, bin(31))), 'field-out-of-range receipts.digest');
  t.equal(decode('receipts', change(1, bin(HEADER_BYTES - 1))), 'field-out-of-range receipts.headerBytes');
  t.equal(decode('receipts', change(2, many(65, bin(HEADER_BYTES)))), 'field-out-of-range receipts.links');
  t.equal(decode('receipts', change(2, [bin(HEADER_BYTES + 1)])), 'field-out-of-range receipts.links');
  t.equal(decode('receipts', change(3, null)), 'payload-malformed receipts.certificate');
  t.equal(decode('receipts', change(4, 2 ** 32)), 'field-out-of-range receipts.firstTransaction');
  t.equal(decode('receipts', change(5, 0)), 'field-out-of-range receipts.transactionCount');
  t.equal(decode('receipts', change(5, 2 ** 32)), 'field-out-of-range receipts.transactionCount');
  t.equal(decode('receipts', change(6, many(107, bin(32)))), 'field-out-of-range receipts.proof');
});

// ---- bundles and blocks -----------------------------------------------------------------------------------------------

t.test('WIRE-9: bundles', async (t) => {
  const good = fx.bundle(1, [fx.text('one'), fx.text('two')]);
  t.equal(toHex(good.digest), toHex(fx.sha256(good.payload)));
  t.equal(good.leaves.length, 2);
  const decode = (fields: WireValue[], parameters = fx.parameters) => {
    const got = decodeBundle({ payload: encodeMsgpack(fields), signature: bin(64) }, { ...fx.wire, parameters });
    return isRefusal(got) ? `${got.refused} ${got.field}` : 'accepted';
  };
  const tx = (count: number, length = 1): WireValue[] => Array<WireValue>(count).fill(fx.filled(1, length));
  t.equal(decode([bin(32), 0, 1, 0, tx(1)]), 'accepted');
  t.equal(decode([bin(32), max, max, max, tx(1024)]), 'accepted');
  t.equal(decode([bin(31), 0, 1, 0, tx(1)]), 'field-out-of-range client');
  t.equal(decode([bin(32), 0, 0, 0, tx(1)]), 'field-out-of-range sequence');
  t.equal(decode([bin(32), 0, 1, 0, []]), 'field-out-of-range transactions');
  t.equal(decode([bin(32), 0, 1, 0, tx(1025)]), 'field-out-of-range transactions');
  t.equal(decode([bin(32), 0, 1, 0, [bin(0)]]), 'field-out-of-range transactions.transaction');
  t.equal(decode([bin(32), 0, 1, 0, tx(1, 131_072)]), 'accepted');
  t.equal(decode([bin(32), 0, 1, 0, tx(1, 131_073)]), 'field-out-of-range transactions.transaction');
  t.equal(decode([bin(32), 0, 1, 0, ['x']]), 'payload-malformed transactions.transaction');
  t.equal(decode([bin(32), 0, 1, tx(1)]), 'payload-malformed bundle');
  t.equal(decode([bin(32), 0, 1, 0, tx(1), 0]), 'payload-malformed bundle');
  const size = encodeMsgpack([bin(32), 0, 1, 0, tx(3, 70_000)]).length;
  t.equal(decode([bin(32), 0, 1, 0, tx(3, 70_000)], { ...fx.parameters, bundleBytesMax: size }), 'accepted');
  t.equal(
    decode([bin(32), 0, 1, 0, tx(3, 70_000)], { ...fx.parameters, bundleBytesMax: size - 1 }),
    'bundle-too-large ',
  );
  const short = decodeBundle({ payload: good.payload, signature: bin(63) }, fx.wire);
  t.strictSame(short, { refused: 'payload-malformed', kind: 'bundle', field: 'signature', msgpack: null });
  t.throws(() => fx.bundle(0, [bin(1)]), 'a client’s own mistake');
  t.throws(() => fx.bundle(1, []));
});

t.test('WIRE-9: a known bundle is used again, by its digest, and only with its own signature', async (t) => {
  const [pooled] = first.bundles as [SignedBundle];
  let asked = 0;
  const knownBundle = (digest: Bytes) => {
    asked += 1;
    return toHex(digest) === toHex(pooled.digest) ? pooled : undefined;
  };
  const payload = encodePayload({ kind: 'block-data', block: first });
  const got = decodePayload('block-data', payload, { ...fx.wire, knownBundle });
  if (isRefusal(got) || got.kind !== 'block-data') return t.fail();
  t.equal(got.block.bundles[0], pooled, 'the very object');
  t.equal(asked, 1);
  const other = decodeBundle({ payload: pooled.payload, signature: bin(64) }, { ...fx.wire, knownBundle });
  if (isRefusal(other)) return t.fail();
  t.equal(toHex(other.signature), '00'.repeat(64), 'another signature stays another signature');
  t.same(other.leaves, pooled.leaves);
});

t.test('WIRE-2: what is written by hand is what the encoder writes, at every border of a length', async (t) => {
  const hash = asHash(new Uint8Array(32).fill(7));
  for (const a of [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0xffffffff, 0x100000000, 2 ** 53 - 1])
    for (const count of [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536]) {
      const place = { epoch: asEpoch(a), view: asView(count), height: asHeight(a), hash };
      const status = { kind: 'status' as const, ...place, active: a > 0, stable: asHeight(count), lowest: asHeight(a) };
      t.strictSame(encodePayload(status), encodeMsgpack([a, count, a > 0, a, hash, count, a]), `status ${a} ${count}`);
      const one = { replica: asReplicaId(a % 7), signature: new Uint8Array(64) };
      const signatures = Array.from({ length: a === 0 ? count : count % 300 }, () => one);
      const certificate = { phase: 'commit' as const, ...place, signatures };
      t.ok(equalBytes(encodeCertificate(certificate), encodeMsgpack(certificateValue(certificate))));
    }
});

t.test('WIRE-10: a block is its header’s body or nothing', async (t) => {
  const bundles = [fx.bundle(1, [fx.text('a'), fx.text('b')]), fx.bundle(2, [fx.text('c')])];
  const good = fx.block(bundles);
  const wire = (header: Bytes, list: readonly SignedBundle[]) =>
    encodeMsgpack([header, list.map(({ payload, signature }): WireValue => [payload, signature])]);
  const decode = (header: Bytes, list: readonly SignedBundle[]) => {
    const got = decodePayload('block-data', wire(header, list), fx.wire);
    return isRefusal(got) ? `${got.refused} ${got.field}` : 'accepted';
  };
  t.equal(decode(good.headerBytes, bundles), 'accepted');
  t.equal(decode(good.headerBytes, [...bundles].reverse()), 'block-body-mismatch bodyHash', 'another order');
  t.equal(decode(good.headerBytes, bundles.slice(1)), 'block-body-mismatch bundleCount');
  t.equal(
    decode(good.headerBytes, [bundles[0]!, { ...bundles[1]!, signature: bin(64) }]),
    'block-body-mismatch bodyHash',
  );
  const changed = (change: object) => encodeHeader({ ...good.header, ...change });
  t.equal(decode(changed({ bundleCount: 3 }), bundles), 'block-body-mismatch bundleCount');
  t.equal(decode(changed({ payloadBytes: 1 }), bundles), 'block-body-mismatch payloadBytes');
  t.equal(decode(changed({ bodyHash: fx.hashOf(0) }), bundles), 'block-body-mismatch bodyHash');
  t.equal(decode(changed({ transactionCount: 2 }), bundles), 'block-body-mismatch transactionCount');
  t.equal(decode(changed({ transactionCount: 4 }), bundles), 'block-body-mismatch transactionCount');
  t.equal(decode(changed({ transactionRoot: fx.hashOf(0) }), bundles), 'block-body-mismatch transactionRoot');
  t.equal(decode(changed({ transactionTotal: 2 }), bundles), 'field-out-of-range block.header.transactionTotal');
  const tagged = Uint8Array.from(good.headerBytes);
  tagged[0]! ^= 1;
  t.equal(decode(tagged, bundles), 'payload-malformed block.header');
  const far = Uint8Array.from(good.headerBytes);
  far.fill(0xff, 48, 56);
  t.equal(decode(far, bundles), 'payload-malformed block.header', 'an epoch beyond 2^53 - 1');
  const tight = { ...fx.wire, parameters: { ...fx.parameters, blockBytesMax: good.header.payloadBytes } };
  t.notOk(isRefusal(decodePayload('block-data', wire(good.headerBytes, bundles), tight)), 'at the limit of a block');
  tight.parameters.blockBytesMax -= 1;
  t.match(decodePayload('block-data', wire(good.headerBytes, bundles), tight), {
    refused: 'field-out-of-range',
    field: 'block.payloadBytes',
  });
  const garbage = { ...bundles[0]!, payload: Uint8Array.of(0xc1) };
  garbage.digest = asHash(fx.sha256(garbage.payload));
  const committed = fx.block([garbage]);
  t.equal(
    decode(committed.headerBytes, [garbage]),
    'payload-malformed block.bundles.bundle',
    'committed garbage is garbage',
  );
});

t.test('CFT-V-4: of a value the root is its proposer’s word, and everything else is looked at', async (t) => {
  const bundles = [fx.bundle(1, [fx.text('a'), fx.text('b')]), fx.bundle(2, [fx.text('c')])];
  const good = fx.block(bundles);
  const changed = (change: object) => {
    const header = { ...good.header, ...change };
    const headerBytes = encodeHeader(header);
    return { ...good, header, headerBytes, hash: blockHash(fx.sha256, headerBytes) };
  };
  const codeOf = (message: ReplicaMessage) => {
    const got = decodePayload(message.kind, encodePayload(message), fx.wire);
    return isRefusal(got) ? `${got.refused} ${got.field}` : 'accepted';
  };
  const carriers: readonly ((value: Block) => ReplicaMessage)[] = [
    (value) => ({ kind: 'accept', epoch: value.header.epoch, ballot: asView(1), value }),
    (value) => ({ kind: 'fast-accept', epoch: value.header.epoch, ballot: asView(1), value }),
    (value) => {
      const head = { epoch: value.header.epoch, term: asView(2), prev: asHeight(0), prevTerm: asView(0) };
      return { kind: 'append-entries', ...head, decided: asHeight(0), entry: { term: asView(1), value } };
    },
  ];
  const wrongRoot = changed({ transactionRoot: fx.hashOf(0) });
  for (const carry of carriers) {
    t.equal(codeOf(carry(good)), 'accepted');
    t.equal(codeOf(carry(wrongRoot)), 'accepted');
    t.equal(codeOf(carry(changed({ bodyHash: fx.hashOf(0) }))), 'block-body-mismatch bodyHash');
    t.equal(codeOf(carry(changed({ transactionCount: 2 }))), 'block-body-mismatch transactionCount');
    t.equal(codeOf(carry(changed({ transactionCount: 4 }))), 'block-body-mismatch transactionCount');
  }
  t.equal(
    codeOf({ kind: 'block-data', block: wrongRoot }),
    'block-body-mismatch transactionRoot',
    'of a block it is not',
  );
});

t.test('WIRE-10: the body of a followed block is the bytes that came', async (t) => {
  const { headerBytes, bundles } = first;
  const payload = encodePayload({ kind: 'follow-blocks', blocks: [{ headerBytes, bundles, certificate: null }] });
  const decoded = decodePayload('follow-blocks', payload, fx.wire);
  if (isRefusal(decoded) || decoded.kind !== 'follow-blocks') throw new Error('a followed block decodes');
  const followed = decoded.blocks[0]!.bundles!;
  const expected = toHex(encodeBody(bundles));
  const views = bodyOf(followed);
  t.equal(toHex(views), expected);
  t.equal(views.buffer, payload.buffer, 'no copy');
  const block = blockOf(headerBytes, followed, fx.wire, 'follow-blocks');
  if (isRefusal(block)) throw new Error(block.refused);
  t.equal(bodyOf(block.bundles).buffer, payload.buffer, 'nor of what was verified');

  const apart = followed.map(({ payload, signature }) => ({ payload: payload.slice(), signature: signature.slice() }));
  t.equal(toHex(bodyOf(apart)), expected, 'bundles of their own memory');
  t.equal(toHex(bodyOf([...followed].reverse())), toHex(encodeBody([...followed].reverse())), 'in another order');
  t.equal(toHex(bodyOf(followed.slice(0, 1))), toHex(encodeBody(bundles.slice(0, 1))), 'the first alone');
  t.equal(toHex(bodyOf(followed.slice(1))), toHex(encodeBody(bundles.slice(1))), 'without the first');
  t.equal(toHex(bodyOf([])), toHex(encodeBody([])));
  // What lies between the bundles is no body any more.
  const start = views.byteOffset - payload.byteOffset;
  for (const at of [start, start + 1, start + 2]) {
    const spoilt = payload.slice();
    const moved = followed.map((bundle) => ({
      payload: viewAt(spoilt, bundle.payload, payload),
      signature: viewAt(spoilt, bundle.signature, payload),
    }));
    t.equal(bodyOf(moved).buffer, spoilt.buffer);
    spoilt[at]! ^= 1;
    t.equal(toHex(bodyOf(moved)), expected, `another byte at ${at}`);
  }
});

/** The bytes of `of` at the place that `view` has in `original`. */
function viewAt(of: Uint8Array, view: Uint8Array, original: Uint8Array): Uint8Array {
  const start = view.byteOffset - original.byteOffset;
  return of.subarray(start, start + view.length);
}

t.test('WIRE-7: a payload that is written into its frame gives the same frame', async (t) => {
  const certificate = fx.certificate(first);
  const blocks = [first, first].map(({ headerBytes, bundles }, i) => ({
    headerBytes,
    bundles: i === 0 ? bundles : null,
    certificate: i === 0 ? null : certificate,
  }));
  const rest = { kind: 'follow-blocks', sender: bin(32), signature: bin(64) } as const;
  const encoded = encodeFrame({ ...rest, payload: encodePayload({ kind: 'follow-blocks', blocks }) });
  t.equal(toHex(writeFrame({ ...rest, payload: followedPayload(blocks) })), toHex(encoded));
});

t.test('WIRE-10 WIRE-11: stored forms', async (t) => {
  const stored = encodeStoredBlock(first);
  t.ok(same(decodeStoredBlock(stored, fx.wire), first));
  t.equal(toHex(stored.body), toHex(encodeBody(first.bundles)));
  t.ok(same(decodeBody(stored.body, fx.wire), first.bundles));
  t.ok(same(decodeBody(encodeBody([]), fx.wire), []));
  for (let i = 0; i < stored.body.length; i++)
    if (!isRefusal(decodeStoredBlock({ ...stored, body: stored.body.slice(0, i) }, fx.wire))) t.fail(`cut at ${i}`);
  for (let i = 0; i < stored.body.length; i += 3) {
    const body = Uint8Array.from(stored.body);
    body[i]! ^= 0x10;
    if (!isRefusal(decodeStoredBlock({ ...stored, body }, fx.wire))) t.fail(`one bit of byte ${i}`);
  }
  t.match(decodeBody(encodeMsgpack(Array(1025).fill(0)), fx.wire), { refused: 'field-out-of-range', field: 'bundles' });
  const certificate = fx.certificate(first, 'commit', 7);
  t.ok(same(decodeCertificate(encodeCertificate(certificate)), certificate));
  const checkpoint = fx.checkpoint(first);
  t.ok(same(decodeCheckpointCertificate(encodeCheckpointCertificate(checkpoint)), checkpoint));
  const place = fx.placeOf(first);
  t.ok(same(decodeCheckpointPlace(encodeCheckpointPlace(place)), place));
  t.match(decodeCheckpointPlace(encodeCheckpointCertificate(checkpoint)), {
    refused: 'payload-malformed',
    kind: 'checkpoint-place',
  });
  t.match(decodeCertificate(bytesOf('96')), { refused: 'payload-malformed', msgpack: 'msgpack-truncated' });
  t.equal(certificateBytesMax(3) >= encodeCheckpointCertificate(checkpoint).length, true);
});

t.test('the sizes that senders count with are exact, and the largest messages fit into a frame', async (t) => {
  t.equal(blockBytesOnWire(first), encodePayload({ kind: 'block-data', block: first }).length);
  const certified = { block: first, certificate: fx.certificate(first) };
  t.equal(
    1 + 1 + certifiedBlockBytes(certified) + 1,
    encodePayload({ kind: 'blocks', blocks: [certified], tail: null }).length,
  );
  for (const bundles of [null, [], first.bundles]) {
    const followed = { headerBytes: first.headerBytes, bundles, certificate: null };
    t.equal(1 + 1 + followedBlockBytes(followed), encodePayload({ kind: 'follow-blocks', blocks: [followed] }).length);
  }
  t.equal(
    1 + 1 + bundleItemBytes(first.bundles[0]!.payload.length),
    encodePayload({ kind: 'forward', bundles: first.bundles }).length,
  );
  // The largest block that a genesis allows: 2,048 bundles, 786,432 bytes of payload.
  t.ok(
    786_432 + 2048 * (bundleItemBytes(384) - 384) + 3 + 2 + 9 + HEADER_BYTES + 3 <= PAYLOAD_BYTES_MAX,
    'the largest block',
  );
  // The largest new-view: 86 of 128 members, each with two certificates of 86 signatures.
  const many = Array.from({ length: 86 }, (_, i) => ({ replica: asReplicaId(42 + i), signature: bin(64) }));
  const place = { epoch: asEpoch(max), view: asView(max), height: asHeight(max), hash: fx.hashOf(1), signatures: many };
  const message = {
    kind: 'view-change',
    epoch: asEpoch(max),
    view: asView(max),
    commit: { ...place, phase: 'commit' },
    prepared: { ...place, phase: 'prepare' },
  } as const;
  const payload = encodePayload(message);
  const viewChanges = many.map(({ replica }) => ({ sender: replica, message, payload, signature: bin(64) }));
  const largest = encodePayload({ kind: 'new-view', epoch: asEpoch(max), view: asView(max), viewChanges });
  t.ok(largest.length <= PAYLOAD_BYTES_MAX, `a new-view of 128 members: ${largest.length}`);
  t.notOk(isRefusal(decodePayload('new-view', largest, fx.wire)));
});

t.test('WIRE-4: no bytes make the wire throw', async (t) => {
  const encoded = samples.filter((each) => each.kind !== 'state-chunk').map((each) => encodeFrame(fx.frameOf(each)));
  let accepted = 0;
  const run = (bytes: Bytes) => {
    const got = decodeFrame(bytes);
    if (isRefusal(got)) return typeof got.refused === 'string';
    const message = decodeMessage(got, fx.wire);
    if (!isRefusal(message)) accepted += 1;
    return isRefusal(message) || message.kind === got.kind;
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), run), { numRuns: 3000 });
  fc.assert(fc.property(mutated(fc.constantFrom(...encoded)), run), { numRuns: 6000 });
  // Inside a sound frame, so that the payload's decoder is reached.
  const payloads = samples.map((each) => [each.kind, encodePayload(each)] as const);
  const kinds = Object.keys(kindNumbers) as Kind[];
  fc.assert(
    fc.property(
      mutated(fc.constantFrom(...payloads.map(([, payload]) => payload))),
      fc.constantFrom(...kinds),
      (payload, kind) => {
        const message = decodeMessage({ ...frame, kind, payload }, fx.wire);
        if (!isRefusal(message)) accepted += 1;
        return isRefusal(message) || toHex(encodePayload(message)) === toHex(payload);
      },
    ),
    { numRuns: 6000 },
  );
  for (const [kind, payload] of payloads.filter(([, { length }]) => length < 3000))
    for (let i = 0; i < payload.length; i++) {
      const cut = decodeMessage({ ...frame, kind, payload: payload.subarray(0, i) }, fx.wire);
      if (!isRefusal(cut)) t.fail(`${kind} cut at ${i}`);
      const flipped = Uint8Array.from(payload);
      flipped[i]! ^= 1 << (i % 8);
      const got = decodeMessage({ ...frame, kind, payload: flipped }, fx.wire);
      if (!isRefusal(got) && toHex(encodePayload(got)) !== toHex(flipped)) t.fail(`${kind} at ${i} loses a bit`);
    }
  t.ok(accepted > 500, `${accepted} accepted`);
});

t.test('WIRE-4: a frame of a megabyte never takes much more than it weighs', async (t) => {
  // The worst that passes the scan of each kind with a large limit: as many values as the frame holds.
  const worst = concat(bytesOf('91dd000cc000'), fx.filled(0x90, 0xcc000));
  for (const kind of [
    'blocks',
    'follow-blocks',
    'receipts',
    'forward',
    'pre-prepare',
    'new-view',
    'state-chunk',
  ] as const) {
    const before = process.memoryUsage();
    const got = decodePayload(kind, worst, fx.wire);
    const after = process.memoryUsage();
    t.ok(isRefusal(got), kind);
    t.ok(
      after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers < 16 << 20,
      `${kind}: less than 16 MiB`,
    );
  }
});

// ---- handshake --------------------------------------------------------------------------------------------------------

interface Side {
  readonly key: fx.TestKey;
  readonly machine: Handshake;
}

function side(role: 'replica' | 'client', at: 'initiator' | 'responder', key: fx.TestKey, changes: object = {}): Side {
  const nonce = fx.sha256(concat(key.publicKey, fx.text(at)));
  const options = {
    crypto: native,
    chainId: fx.chainId,
    epoch: fx.epoch,
    members: fx.members,
    side: at,
    role,
    key: key.publicKey,
    nonce,
    expected: null,
    ...changes,
  };
  return { key, machine: new Handshake(options) };
}
const seal = (message: HandshakeMessage, key: fx.TestKey, chainId = fx.chainId) => {
  const payload = encodePayload(message);
  return {
    kind: message.kind,
    payload,
    sender: key.publicKey,
    signature: key.sign(frameSigningBytes(chainId, message.kind, payload)),
  };
};
const outcome = (step: HandshakeStep | undefined) =>
  step === undefined ? 'waiting' : 'refused' in step ? step.refused : step.peer;

/** Runs both to the end; what each of them believes at last. */
function run(a: Side, b: Side): { readonly initiator: unknown; readonly responder: unknown } {
  let toB = a.machine.start().map((message) => seal(message, a.key));
  b.machine.start();
  let ofA: HandshakeStep | undefined;
  let ofB: HandshakeStep | undefined;
  for (let turn = 0; turn < 4 && toB.length > 0; turn++) {
    const toA: typeof toB = [];
    for (const each of toB) {
      ofB = b.machine.receive(each);
      if ('send' in ofB) toA.push(...ofB.send.map((message) => seal(message, b.key)));
    }
    toB = [];
    for (const each of toA) {
      ofA = a.machine.receive(each);
      if ('send' in ofA) toB.push(...ofA.send.map((message) => seal(message, a.key)));
    }
  }
  return { initiator: outcome(ofA), responder: outcome(ofB) };
}

t.test('WIRE-13 WIRE-14: the handshake', async (t) => {
  const [r0, r1, r2] = fx.replicas as [fx.TestKey, fx.TestKey, fx.TestKey];
  const peers = run(
    side('replica', 'initiator', r0, { expected: r1.publicKey }),
    side('replica', 'responder', r1, { epoch: asEpoch(3) }),
  );
  t.match(peers.initiator, { role: 'replica', replica: 1, epoch: 3 }, 'each knows the other, and its epoch');
  t.match(peers.responder, { role: 'replica', replica: 0, epoch: 0 });
  const guest = run(side('client', 'initiator', fx.client), side('replica', 'responder', r1));
  t.match(guest.responder, { role: 'client', replica: null, epoch: 0 });
  t.match(guest.initiator, { role: 'replica', replica: 1 });

  const stranger = fx.keyOf(fx.filled(0x77));
  const other = fx.hashOf(0x33);
  const refused: readonly (readonly [string, Side, Side, 'initiator' | 'responder', string])[] = [
    [
      'another replica than was called',
      side('replica', 'initiator', r0, { expected: r2.publicKey }),
      side('replica', 'responder', r1),
      'initiator',
      'handshake-unexpected-peer',
    ],
    [
      'a stranger that calls itself a replica',
      side('replica', 'initiator', stranger),
      side('replica', 'responder', r1),
      'responder',
      'handshake-not-a-member',
    ],
    [
      'a stranger that answers as a replica',
      side('client', 'initiator', fx.client),
      side('replica', 'responder', stranger),
      'initiator',
      'handshake-not-a-member',
    ],
    [
      'a client that answers',
      side('client', 'initiator', fx.client),
      side('client', 'responder', r1),
      'initiator',
      'handshake-not-a-replica',
    ],
    [
      'another chain',
      side('replica', 'initiator', r0, { chainId: other }),
      side('replica', 'responder', r1),
      'responder',
      'handshake-chain',
    ],
    ['itself', side('replica', 'initiator', r1), side('replica', 'responder', r1), 'responder', 'handshake-self'],
  ];
  for (const [name, a, b, who, code] of refused) t.equal(run(a, b)[who], code, name);
  t.end();
});

t.test('WIRE-13 WIRE-14: nothing said in one handshake serves in another', async (t) => {
  const [r0, r1, r2] = fx.replicas as [fx.TestKey, fx.TestKey, fx.TestKey];
  const begin = (changes: object = {}) => {
    const a = side('replica', 'initiator', r0);
    const b = side('replica', 'responder', r1, changes);
    b.machine.start();
    const helloA = seal(a.machine.start()[0]!, r0);
    const answer = b.machine.receive(helloA);
    const helloB = seal('send' in answer ? answer.send[0]! : { kind: 'auth', transcript: fx.hashOf(0) }, r1);
    const step = a.machine.receive(helloB);
    const authA = seal('send' in step ? step.send[0]! : { kind: 'auth', transcript: fx.hashOf(0) }, r0);
    return { a, b, helloA, helloB, authA };
  };
  const fresh = begin();
  t.match(outcome(fresh.b.machine.receive(fresh.authA)), { replica: 0 }, 'sound so far');

  const later = begin({ nonce: fx.filled(0x42) });
  t.equal(outcome(later.b.machine.receive(fresh.authA)), 'handshake-transcript', 'an auth of an earlier connection');
  const mirror = begin();
  t.equal(outcome(mirror.a.machine.receive(mirror.authA)), 'handshake-key-changed', 'its own auth sent back');
  t.equal(
    outcome(begin().a.machine.receive(seal({ kind: 'auth', transcript: fx.hashOf(1) }, r1))),
    'handshake-transcript',
  );
  const { authA, a } = begin();
  const echoed = { ...authA, sender: r1.publicKey };
  t.equal(
    outcome(a.machine.receive(echoed)),
    'handshake-transcript',
    'its own auth under the other name: the direction differs',
  );
  const relay = side('replica', 'responder', r2);
  relay.machine.start();
  relay.machine.receive(fresh.helloA);
  t.equal(
    outcome(relay.machine.receive(fresh.authA)),
    'handshake-transcript',
    'an auth that was made for another replica',
  );
  const forged = begin();
  const bad = { ...forged.authA, signature: bin(64) };
  t.equal(outcome(forged.b.machine.receive(bad)), 'handshake-signature');
  t.equal(outcome(forged.b.machine.receive(forged.authA)), 'handshake-order', 'after a refusal there is nothing');
  const swapped = begin();
  t.equal(outcome(swapped.b.machine.receive({ ...swapped.authA, sender: r2.publicKey })), 'handshake-key-changed');

  t.equal(outcome(begin().b.machine.receive(frame)), 'handshake-order', 'another kind');
  const twice = begin();
  t.equal(outcome(twice.b.machine.receive(twice.helloA)), 'handshake-order', 'a second hello');
  const early = side('replica', 'responder', r1);
  t.equal(outcome(early.machine.receive(twice.helloA)), 'handshake-order', 'before the start');
  const newer = side('replica', 'responder', r1);
  newer.machine.start();
  const hello = {
    kind: 'hello',
    protocol: 2,
    chainId: fx.chainId,
    epoch: fx.epoch,
    role: 'replica',
    nonce: bin(32),
  } as const;
  t.equal(outcome(newer.machine.receive(seal(hello, r0))), 'handshake-protocol');
  const torn = side('replica', 'responder', r1);
  torn.machine.start();
  t.equal(outcome(torn.machine.receive({ ...twice.helloA, payload: bin(3) })), 'payload-malformed');
  t.strictSame(torn.machine.start(), [], 'one start only');
});

// ---- the page ---------------------------------------------------------------------------------------------------------

/** The genesis document of the worked example: everything that may be left out is. */
const exampleGenesis = JSON.stringify({
  synod: 1,
  name: 'example',
  protocol: 'pbft',
  createdAt: 1_700_000_000_000,
  members: fx.members.map(({ name, publicKey }) => ({ name, publicKey: toHex(publicKey) })),
});

/** The worked example of docs/wire.md, made again. */
function workedExample(): string {
  const line = (name: string, bytes: Bytes | string) => {
    const hex = typeof bytes === 'string' ? bytes : toHex(bytes);
    return `${name}\n${(hex.match(/.{1,96}/g) ?? ['']).map((part) => `  ${part}`).join('\n')}`;
  };
  const one = fx.bundle(1, [fx.text('hello'), fx.text('world')]);
  const made = fx.block([one]);
  const certificate = fx.certificate(made);
  const vote = voteSigningBytes(fx.chainId, certificate);
  const framed = encodeFrame(
    fx.frameOf(
      { kind: 'commit', epoch: fx.epoch, view: asView(0), height: asHeight(1), hash: made.hash },
      fx.replicas[3]!,
    ),
  );
  const genesis = fx.must(parseGenesis(native, fx.text(exampleGenesis), exampleGenesis));
  const zero = genesisBlock({
    sha256: fx.sha256,
    genesis,
    memberSetHash: memberSetHash(fx.sha256, asEpoch(0), genesis.members),
  });
  return [
    line('a genesis document (these lines joined, without the blanks in front)', exampleGenesis),
    line('its chain id', genesis.chainId),
    line('header of its genesis block', zero.headerBytes),
    line('hash of its genesis block', zero.hash),
    line('chain id (made up, for all that follows)', fx.chainId),
    ...fx.replicas.map(({ publicKey }, i) => line(`public key of replica ${i} (seed: 32 times 0${i + 1})`, publicKey)),
    line('public key of the client (seed: 32 times 65)', fx.client.publicKey),
    line('bundle payload', one.payload),
    line('bundle digest', one.digest),
    line('bundle signing bytes', bundleSigningBytes(fx.chainId, one.digest)),
    line('bundle signature', one.signature),
    line('leaf hashes of its transactions', `${toHex(one.leaves[0]!)}${toHex(one.leaves[1]!)}`),
    line('header', made.headerBytes),
    line('block hash', made.hash),
    line('commit signing bytes', vote),
    line('commit certificate (replicas 0, 1 and 3)', encodeCertificate(certificate)),
    line('frame of the commit of replica 3', framed),
    line(
      'frame signing bytes of a query-head',
      frameSigningBytes(fx.chainId, 'query-head', encodePayload({ kind: 'query-head' })),
    ),
    line('checkpoint text, as UTF-8', fx.text(checkpointSigningText(fx.chainId, fx.placeOf(made)))),
  ].join('\n');
}

t.test('docs/wire.md tells the truth', async (t) => {
  const page = read('docs/wire.md');
  const example = /<!-- example -->\n```\n([\s\S]*?)\n```\n<!-- end of example -->/.exec(page)?.[1];
  t.equal(example, workedExample(), 'the worked example is what the code makes');
  t.ok(page.includes(PAYLOAD_BYTES_MAX.toLocaleString('en-US')), 'the largest payload');
  t.ok(page.includes(`bin${HEADER_BYTES}`) && page.includes(`${HEADER_BYTES} bytes in all`), 'the size of a header');
  for (const [kind, number] of Object.entries(kindNumbers)) t.match(page, `| ${number} | \`${kind}\``, `kind ${kind}`);
  const codes = new Set<string>(admissionCodes);
  const files = 'msgpack handshake session wire/refusal wire/verify-certificate checkpoint-note'.split(' ');
  for (const file of files)
    for (const [, code = ''] of read(`protocol/${file}.ts`).matchAll(/^ {2}\| '([a-z0-9-]+)'/gm)) codes.add(code);
  for (const code of codes) t.ok(page.includes(`\`${code}\``), `code ${code} is documented`);
  t.ok(codes.size > 50);
  // With these reasons a replica closes connections.
  const closing =
    /(?:#end|close|terminate|refuse)\((?:closeCode\.\w+, |live, )?'([a-z-]+)'\)|\? '([a-z-]+)' : '([a-z-]+)'\)/g;
  const doors = [
    'gateway/client-connection',
    'gateway/gateway',
    ...['client', 'connection', 'link', 'peers', 'server'].map((name) => `transport/${name}`),
  ];
  const reasons = new Set<string>();
  for (const file of doors)
    for (const found of read(`daemon/${file}.ts`).matchAll(closing))
      for (const code of found.slice(1)) if (code !== undefined) reasons.add(code);
  for (const code of reasons) t.ok(page.includes(`\`${code}\``), `reason ${code} is documented`);
  t.ok(reasons.size > 25, `${reasons.size} reasons`);
  const { parameters } = fx.must(parseGenesis(native, fx.text(exampleGenesis), exampleGenesis));
  const rows = [...page.matchAll(/^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|/gm)];
  t.strictSame(rows.map(([, name = '']) => name).sort(), Object.keys(parameters).sort(), 'every parameter has a row');
  for (const [, name = '', low, high, fallback] of rows) {
    t.equal(Number(fallback), parameters[name as keyof typeof parameters], `the default of ${name}`);
    // A value within its bounds may still not fit the others: then no bound is named.
    const outside = (value: number) => {
      const document = JSON.stringify({ ...JSON.parse(exampleGenesis), parameters: { [name]: value } });
      const parsed = parseGenesis(native, fx.text(document), document);
      return 'refused' in parsed && /^Too (big|small)/.test(parsed.problem);
    };
    const bounds = [Number(low) - 1, Number(low), Number(high), Number(high) + 1];
    t.strictSame(bounds.map(outside), [true, false, false, true], `the bounds of ${name}`);
  }
  t.equal(decodeHeader(first.headerBytes)?.height, 1);
});
