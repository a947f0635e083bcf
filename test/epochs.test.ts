// The rules of epochs (docs/spec.md) without a cluster: documents, control transactions, the function that judges them, the ledger's part,
// and the chain of epochs that a stranger follows from the genesis document.

import t from 'tap';
import { type Bytes, concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { portable } from '../crypto/portable.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import type { Block } from '../protocol/block.ts';
import { blockHash, bodyHash, encodeHeader, memberSetHash } from '../protocol/block.ts';
import { encodePayload, LINKS_MAX } from '../protocol/codec.ts';
import { epochOf } from '../protocol/epoch/begin.ts';
import { signersOf } from '../protocol/epoch/chain.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import { parseGenesis } from '../protocol/genesis.ts';
import { Ledger } from '../protocol/ledger.ts';
import { protocols } from '../protocol/modes.ts';
import { encodeMsgpack } from '../protocol/msgpack.ts';
import { Pbft } from '../protocol/pbft/pbft.ts';
import { Pool } from '../protocol/pool.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import {
  ChainVerifier,
  type Change,
  type Control,
  checkpointSigningBytes,
  controlFlaw,
  decodeControl,
  decodeEpoch,
  decodeEpochLink,
  EpochChain,
  type EpochDocument,
  encodeControl,
  encodeEpoch,
  genesisEpoch,
  genesisOf,
  JOIN_INTERVALS_MAX,
  judgeControl,
  signaturesNeeded,
  signingBytes,
  verifyBundle,
  verifyDecided,
  verifyMessage,
} from '../protocol/verify.ts';
import { SimDisk } from '../sim/disk.ts';
import {
  adding,
  controlFor,
  type Draft,
  EpochWorld,
  genesisWith,
  opened,
  operatorKey,
  replicaKey,
  sha256,
  signerOf,
  start,
} from './epoch-world.ts';
import { fc } from './property.ts';

const abc = ['a', 'b', 'c'];
const codeOf = (result: object | null) => (result !== null && 'refused' in result ? String(result.refused) : 'ok');
const judged = (epoch: EpochDocument, draft: Draft, height = 1) =>
  judgeControl(epoch, opened(controlFor(epoch, draft)), asHeight(height));
const verdict = (epoch: EpochDocument, draft: Draft, height = 1) => codeOf(judged(epoch, draft, height));
const remove = (name: string): Change => ({ change: 'remove-member', name });
const rekey = (name: string, to: string): Change => ({
  change: 'replace-replica-key',
  name,
  publicKey: replicaKey(to).publicKey,
});
const set = (
  parameter: 'blockBytesMax' | 'heartbeatMs' | 'checkpointInterval' | 'transactionBytesMax',
  value: number,
): Change => ({
  change: 'set-parameter',
  parameter,
  value,
});

t.test('[EPO-1] [WIRE-32] an epoch is its document, and every header of it names its hash', async (t) => {
  const world = new EpochWorld();
  const first = genesisEpoch(sha256, world.genesis);
  t.same(first.hash, memberSetHash(sha256, asEpoch(0), world.genesis.members), 'epoch 0: the keys, as ever');
  t.same(first.start, { height: 0, hash: world.ledger.genesisBlock.hash });
  world.idle(2);
  const second = world.end({ changes: [adding('e'), set('blockBytesMax', 300_000)], by: abc, joins: { e: 1 } });
  t.equal(second.epoch, 1);
  t.same(
    second.start,
    { height: 3, hash: world.blocks[2]!.block.hash },
    'it starts from the block that ended the first',
  );
  t.strictSame(
    second.members.map(({ id, name }) => [id, name]),
    [
      [0, 'a'],
      [1, 'b'],
      [2, 'c'],
      [3, 'd'],
      [4, 'e'],
    ],
  );
  t.equal(second.parameters.blockBytesMax, 300_000);
  world.idle(1);
  t.same(world.blocks[3]!.block.header.memberSetHash, second.hash);
  t.equal(world.blocks[3]!.block.header.epoch, 1);

  const bytes = encodeEpoch(second);
  const back = decodeEpoch(sha256, bytes);
  t.same(back, second, 'the bytes give the document back, hash and all');
  t.same(second.hash, sha256(concat(Buffer.from('synod-v1:epoch\0\0'), bytes)), 'WIRE-32');
  for (const change of [
    { ...second, start: { ...second.start, height: asHeight(4) } },
    { ...second, parameters: { ...second.parameters, window: 9 } },
    { ...second, policy: { signatures: 4 } },
    { ...second, members: second.members.map((m) => (m.name === 'b' ? { ...m, address: 'ws://10.0.0.9:7000' } : m)) },
  ])
    t.notSame(sha256(encodeEpoch(change)), sha256(bytes), 'all of it is hashed');
});

t.test('[WIRE-32] no bytes make the reader of documents throw, and what it accepts has one encoding', async (t) => {
  const world = new EpochWorld();
  const bytes = encodeEpoch(world.end({ changes: [adding('e')], by: abc, joins: { e: 0 } }));
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, length) => {
      const changed = Uint8Array.from(bytes);
      changed[at] = value;
      for (const each of [changed, bytes.subarray(0, length), concat(bytes, Uint8Array.of(value))]) {
        const read = decodeEpoch(sha256, each);
        if (!('refused' in read)) t.ok(equalBytes(encodeEpoch(read), each));
      }
    }),
    { numRuns: 400 },
  );
  t.equal(codeOf(decodeEpoch(sha256, new Uint8Array(200_000))), 'payload-malformed');
});

t.test('[EPO-2] a control transaction is good for one epoch, by number and hash, and up to its height', async (t) => {
  const world = new EpochWorld();
  const { epoch } = world;
  const draft = { changes: [set('blockBytesMax', 300_000)], by: abc };
  t.equal(verdict(epoch, draft), 'ok');
  const at = (body: Draft['body'], height = 1) => verdict(epoch, { ...draft, body: body! }, height);
  t.equal(at({ chainId: asHash(new Uint8Array(32)) }), 'control-chain');
  t.equal(at({ epoch: asEpoch(1) }), 'control-epoch');
  t.equal(at({ epochHash: asHash(new Uint8Array(32)) }), 'control-epoch');
  t.equal(at({ validUntil: asHeight(7) }, 7), 'ok');
  t.equal(at({ validUntil: asHeight(7) }, 8), 'control-expired');
  const used = controlFor(epoch, draft);
  world.decide(world.bundle(used));
  t.equal(world.epoch.epoch, 1);
  t.equal(codeOf(judgeControl(world.epoch, opened(used), asHeight(2))), 'control-epoch', 'it cannot be used twice');
});

t.test('[EPO-3] the policy of the epoch at hand decides who may end it', async (t) => {
  const { epoch } = new EpochWorld();
  const changes = [set('blockBytesMax', 300_000)];
  t.same(signaturesNeeded(epoch), { need: 3, operators: 4 }, 'by default a quorum of the operators');
  t.equal(verdict(epoch, { changes, by: abc }), 'ok');
  t.equal(verdict(epoch, { changes, by: ['a', 'd'] }), 'control-unauthorised');
  t.equal(verdict(epoch, { changes, by: [] }), 'control-unauthorised');
  t.equal(verdict(epoch, { changes, by: [...abc, 'x'] }), 'control-signer-unknown');
  const two = new EpochWorld(undefined, { policy: { signatures: 2 } }).epoch;
  t.equal(verdict(two, { changes, by: ['a', 'd'] }), 'ok');
  t.equal(verdict(two, { changes, by: ['d'] }), 'control-unauthorised');

  // Its own replica key and address a member changes alone, but not as often as it likes.
  const soon = epoch.start.height + epoch.parameters.checkpointInterval;
  const own = { changes: [rekey('b', 'b2')], by: ['b'], joins: { b2: soon } };
  t.equal(verdict(epoch, own, soon - 1), 'control-too-soon');
  t.equal(verdict(epoch, own, soon), 'ok');
  t.equal(verdict(epoch, { ...own, by: abc }, 1), 'ok', 'with the others it need not wait');
  t.equal(verdict(epoch, { ...own, by: ['a'] }, soon), 'control-unauthorised', "not with somebody else's signature");
  t.equal(verdict(epoch, { ...own, changes: [rekey('b', 'b2'), rekey('a', 'a2')] }, soon), 'control-unauthorised');
  const address: Change = { change: 'change-address', name: 'b', address: 'wss://b.example.org:443/synod' };
  t.equal(verdict(epoch, { changes: [address], by: ['b'] }, soon), 'ok');
  const operator: Change = { change: 'replace-operator-key', name: 'b', operatorKey: operatorKey('b2').publicKey };
  t.equal(
    verdict(epoch, { changes: [operator], by: ['b'] }, soon),
    'control-unauthorised',
    'the key that says so itself is the others’ to change',
  );
  t.equal(verdict(epoch, { changes: [operator], by: abc }), 'ok');

  const none = genesisEpoch(sha256, {
    ...new EpochWorld().genesis,
    members: epoch.members.map(({ operatorKey: _, ...member }) => member),
  });
  t.equal(
    verdict(none, { changes, by: [] }),
    'control-unauthorised',
    'without operators the first epoch is the only one',
  );
});

t.test('[EPO-4] new replica keys have signed for the change, and are close behind', async (t) => {
  const { epoch } = new EpochWorld();
  const far = JOIN_INTERVALS_MAX * epoch.parameters.checkpointInterval;
  const draft = (joins: Draft['joins']): Draft => ({ changes: [adding('e')], by: abc, joins: joins! });
  t.equal(verdict(epoch, draft({ e: 1 })), 'ok');
  t.equal(verdict(epoch, draft({})), 'control-join-missing');
  t.equal(verdict(epoch, draft({ f: 1 })), 'control-join-unneeded');
  t.equal(verdict(epoch, draft({ e: 1, f: 1 })), 'control-join-unneeded');
  t.equal(verdict(epoch, draft({ e: 0 }), far), 'ok');
  const refused = judged(epoch, draft({ e: 0 }), far + 1);
  t.equal(codeOf(refused), 'control-join-far');
  t.match('problem' in refused ? refused.problem : '', `${far + 1} blocks behind`, 'with the distance');
  t.equal(
    verdict(epoch, { changes: [rekey('d', 'd2')], by: abc }),
    'control-join-missing',
    'also a key for an old member',
  );

  const sound = opened(controlFor(epoch, draft({ e: 1 })));
  for (const crypto of [native, portable]) t.equal(controlFlaw(crypto, epoch.chainId, sound), null);
  const bent = (bytes: Bytes) => Uint8Array.from(bytes, (byte, i) => (i === 3 ? byte ^ 1 : byte));
  const wrong: [string, Control][] = [
    [
      'control-signature',
      { ...sound, signatures: sound.signatures.map((s) => ({ ...s, signature: bent(s.signature) })) },
    ],
    ['control-signature', { ...sound, joins: sound.joins.map((s) => ({ ...s, signature: bent(s.signature) })) }],
    ['control-signature', { ...sound, joins: sound.joins.map((s) => ({ ...s, height: asHeight(s.height + 1) })) }],
    ['control-signature', { ...sound, digest: asHash(bent(sound.digest)) }],
    [
      'control-key',
      { ...sound, body: { ...sound.body, changes: [{ ...adding('e'), publicKey: new Uint8Array(32) } as Change] } },
    ],
  ];
  for (const [code, control] of wrong) t.equal(codeOf(controlFlaw(native, epoch.chainId, control)), code);

  // A bundle with such a one is refused like one with a wrong signature of its own, before a core hears of it.
  const world = new EpochWorld();
  const good = controlFor(world.epoch, draft({ e: 1 }));
  const body = opened(good);
  const bad = encodeControl({
    ...body,
    signatures: body.signatures.map((s) => ({ ...s, signature: bent(s.signature) })),
  });
  const context = { crypto: native, chainId: world.genesis.chainId };
  t.ok(verifyBundle(world.bundle(good), context));
  t.notOk(verifyBundle(world.bundle(bad), context));
  t.notOk(verifyBundle(world.bundle('before', bad), context), 'wherever in the bundle it stands');
});

t.test('[EPO-5] the next epoch is one that can run, and be ended again', async (t) => {
  const { epoch } = new EpochWorld(['a', 'b', 'c', 'd', 'e', 'f', 'g']);
  const by = ['a', 'b', 'c', 'd', 'e'];
  const code = (changes: readonly Change[], joins: Draft['joins'] = {}) =>
    verdict(epoch, { changes, by, joins: joins! });
  t.equal(code([remove('x')]), 'control-name-unknown');
  t.equal(code([adding('a')], { a: 1 }), 'control-name-taken');
  t.equal(code([{ ...adding('h'), publicKey: replicaKey('a').publicKey } as Change]), 'control-key-taken');
  t.equal(code([{ ...adding('h'), operatorKey: operatorKey('a').publicKey } as Change], { h: 1 }), 'control-key-taken');
  t.equal(
    code([{ ...adding('h'), operatorKey: replicaKey('h').publicKey } as Change], { h: 1 }),
    'control-key-taken',
    'an operator has a key of its own',
  );
  t.equal(code('bcdefg'.slice(0, 4).split('').map(remove)), 'control-member-count', 'three are too few');
  t.equal(code([set('heartbeatMs', 400)]), 'control-parameter');
  t.equal(code([set('checkpointInterval', 3)]), 'control-parameter');
  t.equal(code([set('transactionBytesMax', 1000)]), 'control-parameter', 'a control transaction must still fit');
  t.equal(code([{ change: 'set-policy', policy: { signatures: 8 } }]), 'control-policy');
  t.equal(code([{ change: 'set-policy', policy: { signatures: 7 } }]), 'ok');
  t.equal(code([{ change: 'set-policy', policy: { signatures: 7 } }, remove('g')]), 'control-policy');
  t.equal(code([{ change: 'set-protocol', protocol: 'zab' }]), 'control-protocol-unknown');
  for (const protocol of protocols.filter((name) => name !== 'pbft'))
    t.equal(code([{ change: 'set-protocol', protocol }]), 'ok', protocol);
  t.equal(code([{ change: 'set-protocol', protocol: 'pbft' }]), 'control-nothing');
  t.equal(code([set('blockBytesMax', epoch.parameters.blockBytesMax)]), 'control-nothing');
  t.equal(
    code([remove('g'), { ...adding('g'), address: 'ws://10.0.0.7:7000' } as Change]),
    'control-nothing',
    'also where it takes two changes',
  );
  t.equal(code([remove('g'), adding('h')], { h: 1 }), 'ok', 'one for another');
});

t.test('[EPO-6] no more members leave or change keys at once than may fail', async (t) => {
  const seven = new EpochWorld(['a', 'b', 'c', 'd', 'e', 'f', 'g']).epoch;
  const by = ['a', 'b', 'c', 'd', 'e'];
  t.equal(verdict(seven, { changes: [remove('f'), remove('g')], by }), 'ok');
  t.equal(verdict(seven, { changes: [remove('e'), remove('f'), remove('g')], by }), 'control-too-many-leave');
  t.equal(verdict(seven, { changes: [remove('f'), rekey('g', 'g2')], by, joins: { g2: 1 } }), 'ok');
  t.equal(
    verdict(seven, { changes: [remove('f'), remove('e'), rekey('g', 'g2')], by, joins: { g2: 1 } }),
    'control-too-many-leave',
  );
  const four = new EpochWorld().epoch;
  const three = ['e', 'f', 'g'].map(adding);
  t.equal(verdict(four, { changes: three, by: abc, joins: { e: 1, f: 1, g: 1 } }), 'ok', 'any number may come');
  t.equal(
    verdict(four, { changes: [rekey('c', 'c2'), rekey('d', 'd2')], by: abc, joins: { c2: 1, d2: 1 } }),
    'control-too-many-leave',
  );
});

t.test('[WIRE-33] control transactions: one encoding, and no bytes make the reader throw', async (t) => {
  const { epoch } = new EpochWorld();
  const every: readonly Change[] = [
    adding('e'),
    {
      change: 'add-member',
      name: 'f',
      publicKey: replicaKey('f').publicKey,
      operatorKey: null,
      address: 'ws://[::1]:7000',
    },
    remove('d'),
    rekey('a', 'a2'),
    { change: 'replace-operator-key', name: 'b', operatorKey: null },
    { change: 'change-address', name: 'c', address: null },
    set('blockBytesMax', 300_000),
    { change: 'set-policy', policy: { signatures: 'quorum' } },
    { change: 'set-policy', policy: { signatures: 3 } },
    { change: 'set-protocol', protocol: 'raft' },
  ];
  const bytes = controlFor(epoch, { changes: every, by: ['d', 'a', 'c'], joins: { e: 5, a2: 2 ** 50 } });
  const control = opened(bytes);
  t.same(control.body.changes, every);
  t.same(encodeControl(control), bytes);
  t.strictSame(control.joins.map(({ height }) => height).sort(), [5, 2 ** 50].sort());
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, length) => {
      const changed = Uint8Array.from(bytes);
      changed[at] = value;
      for (const each of [changed, bytes.subarray(0, length), concat(bytes, Uint8Array.of(value))]) {
        const read = decodeControl(sha256, each);
        if (!('refused' in read)) t.ok(equalBytes(encodeControl(read), each));
      }
    }),
    { numRuns: 600 },
  );
  const tag = Buffer.from('synod-v1:control');
  const of = (value: Parameters<typeof encodeMsgpack>[0]) =>
    codeOf(decodeControl(sha256, concat(tag, encodeMsgpack(value))));
  t.equal(codeOf(decodeControl(sha256, tag)), 'payload-malformed');
  t.equal(of([control.payload, [], []]), 'ok');
  t.equal(of([control.payload, [], [], []]), 'payload-malformed');
  const one = control.signatures[0]!;
  const pair = [one.operatorKey, one.signature];
  t.equal(of([control.payload, [pair, pair], []]), 'field-out-of-range', 'nobody is counted twice');
  t.equal(of([Uint8Array.of(0x90), [], []]), 'payload-malformed');
  t.equal(codeOf(decodeControl(sha256, concat(tag, new Uint8Array(60_000)))), 'field-out-of-range', 'larger than any');
});

/** The block that a careless primary would make of these bundles on the head: only what is asked for is wrong. */
function careless(world: EpochWorld, bundles: Block['bundles']): Block {
  const { ledger } = world;
  const plain = world.bundle('filler');
  const like = ledger.build([], {
    bundles: [plain],
    time: asMillis(1_700_000_900_000),
    proposer: asReplicaId(0),
  })!.block;
  const header = {
    ...like.header,
    bodyHash: bodyHash(sha256, bundles),
    bundleCount: bundles.length,
    transactionCount: bundles.reduce((sum, { transactions }) => sum + transactions.length, 0),
    payloadBytes: bundles.reduce((sum, { payload }) => sum + payload.length, 0),
  };
  header.transactionTotal = ledger.head.header.transactionTotal + header.transactionCount;
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(sha256, headerBytes), bundles };
}

t.test(
  '[EPO-7] what may not end the epoch is refused: at the pool, in a proposal, before a vote; and nothing halts',
  async (t) => {
    const world = new EpochWorld();
    const { ledger } = world;
    const parameters = ledger.document.parameters;
    const good = world.bundle(controlFor(world.epoch, { changes: [set('blockBytesMax', 300_000)], by: abc }));
    const few = world.bundle(controlFor(world.epoch, { changes: [set('blockBytesMax', 300_000)], by: ['a'] }));
    const garbage = world.bundle(concat(Buffer.from('synod-v1:control'), Uint8Array.of(1, 2, 3)));
    const crowd = world.bundle('first', controlFor(world.epoch, { changes: [set('blockBytesMax', 300_000)], by: abc }));
    const plain = world.bundle('plain');
    const pool = new Pool();
    const admit = (bundle: typeof good) => pool.admit(bundle, { now: asMillis(1), ledger, chain: [], parameters });
    t.strictSame([few, garbage, crowd].map(admit), ['control-refused', 'control-refused', 'control-refused']);
    t.equal(ledger.controlProblem(few, asHeight(1))?.refused, 'control-unauthorised');
    t.equal(ledger.controlProblem(garbage, asHeight(1))?.refused, 'control-malformed');
    t.equal(ledger.controlProblem(crowd, asHeight(1))?.refused, 'control-not-alone');
    t.equal(ledger.controlProblem(plain, asHeight(1)), null);
    t.strictSame([good, plain].map(admit), ['pooled', 'pooled']);

    for (const bad of [few, garbage, crowd]) {
      const block = careless(world, [bad]);
      t.equal(codeOf(ledger.extend([], block)), 'block-control', 'no vote for it, whoever proposes it');
      const built = ledger.build([], {
        bundles: [bad, plain],
        time: asMillis(1_700_000_900_000),
        proposer: asReplicaId(0),
      });
      t.strictSame(built?.block.bundles, [plain], 'no honest primary proposes it');
    }

    // What was good when it was admitted and is not any more leaves the pool with its code.
    const late = world.bundle(
      controlFor(world.epoch, { changes: [set('blockBytesMax', 400_000)], by: abc, body: { validUntil: asHeight(2) } }),
    );
    t.equal(admit(late), 'pooled');
    t.equal(pool.overdue(ledger, asMillis(9), 9).length, 3);
    world.idle(2);
    t.strictSame(
      pool.sweep(ledger).map(({ digest, code }) => [toHex(digest), code]),
      [[toHex(late.digest), 'control-refused']],
    );
  },
);

t.test('[EPO-8] a control transaction stands alone in its block, and first among what waits', async (t) => {
  const world = new EpochWorld();
  const { ledger } = world;
  const plain = world.bundle('plain');
  const control = world.bundle(controlFor(world.epoch, { changes: [set('blockBytesMax', 300_000)], by: abc }));
  const built = ledger.build([], {
    bundles: [plain, control],
    time: asMillis(1_700_000_900_000),
    proposer: asReplicaId(0),
  });
  t.strictSame(built?.block.bundles, [control]);
  t.equal(built?.next?.epoch, 1);
  t.equal(codeOf(ledger.extend([], careless(world, [plain, control]))), 'block-control');
});

t.test('[EPO-9] nothing extends a block that ends the epoch, decided or not', async (t) => {
  const world = new EpochWorld();
  const { ledger } = world;
  const at = { time: asMillis(1_700_000_900_000), proposer: asReplicaId(0) };
  const before = ledger.build([], { ...at, bundles: [world.bundle('before')] })!;
  const control = world.bundle(controlFor(world.epoch, { changes: [set('blockBytesMax', 300_000)], by: abc }));
  const end = ledger.build([before], { ...at, bundles: [control] })!;
  t.ok(ledger.endsEpoch([before, end]));
  t.notOk(ledger.endsEpoch([before]));
  t.equal(ledger.build([before, end], { ...at, bundles: [world.bundle('after')] }), null, 'none is proposed');

  // One that a faulty primary proposes on top of it: sound in everything else.
  const other = new Ledger({ sha256, genesis: world.genesis, epoch: asEpoch(0) });
  const twin = other.build([], { ...at, bundles: [world.bundle('before')] })!;
  const after = other.build([twin], { ...at, bundles: [world.bundle('after')] })!.block;
  const onEnd = { ...after.header, height: asHeight(3), parent: end.block.hash };
  const headerBytes = encodeHeader(onEnd);
  const block = { header: onEnd, headerBytes, hash: blockHash(sha256, headerBytes), bundles: after.bundles };
  t.equal(codeOf(ledger.extend([before, end], block)), 'block-after-epoch-end');
  ledger.apply(before);
  ledger.apply(end);
  t.equal(ledger.ended?.next.epoch, 1);
  t.equal(codeOf(ledger.extend([], block)), 'block-after-epoch-end');
});

t.test('[EPO-10] the next epoch starts with the whole state, as at a checkpoint', async (t) => {
  const world = new EpochWorld(undefined, { parameters: { checkpointInterval: 16 } });
  world.idle(5);
  const last = world.bundle('remembered');
  world.decide(last);
  const total = world.ledger.head.header.transactionTotal;
  world.end({ changes: [set('checkpointInterval', 64)], by: abc });
  const { ledger } = world;
  t.equal(ledger.height, 7);
  t.equal(ledger.head.header.transactionTotal, total + 1);
  t.equal(ledger.nextSequence([], last, asHeight(8)), 2, 'sessions go on: nothing is executed twice');
  t.equal(ledger.ended, null);

  // A replica that restores that state knows the epoch from it.
  const { changed, stateDigest } = ledger.checkpoint();
  const chunks = new Map(changed.map(({ chunk, bytes }) => [chunk, bytes]));
  const restored = new Ledger({
    sha256,
    genesis: genesisOf(world.genesis, world.epoch),
    epoch: world.epoch.epoch,
    document: world.epoch,
  });
  restored.restore(ledger.head.header, ledger.head.hash, chunks);
  t.same(restored.stateDigest, stateDigest);
  const next = ledger.build([], {
    bundles: [world.bundle('on')],
    time: asMillis(1_700_000_900_000),
    proposer: asReplicaId(0),
  })!;
  t.equal(codeOf(restored.extend([], next.block)), 'ok');
  t.equal(
    codeOf(restored.extend([], world.blocks[0]!.block)),
    'block-wrong-chain',
    'blocks of the epoch before are over',
  );
});

/** Four members, then five, then other keys, then four: a history of five epochs. */
function longWorld(): EpochWorld {
  const world = new EpochWorld();
  world.idle(2).end({ changes: [adding('e')], by: abc, joins: { e: 1 } });
  world.idle(1).end({ changes: [rekey('a', 'a2')], by: ['a', 'b', 'c', 'd'], joins: { a2: 3 } });
  world.end({ changes: [remove('b'), set('blockBytesMax', 262_144)], by: ['a', 'c', 'd', 'e'] });
  world.idle(2).end({ changes: [{ change: 'set-policy', policy: { signatures: 2 } }], by: ['a', 'c', 'd'] });
  world.idle(1);
  return world;
}

t.test('[EPO-11] [WIRE-34] from the genesis document alone to the members of any epoch', async (t) => {
  const world = longWorld();
  const { links } = world;
  t.equal(links.length, 4);
  for (const crypto of [native, portable]) {
    const chain = new EpochChain({ genesis: world.genesis, crypto });
    for (const link of links) t.equal(codeOf(chain.add(link)), 'ok');
    t.same(chain.last.hash, world.epoch.hash);
    t.strictSame(
      chain.last.members.map(({ name }) => name),
      ['a', 'c', 'd', 'e'],
    );
    t.same(chain.links, links);
    t.equal(codeOf(chain.add(links[1]!)), 'ok', 'again is no harm');
    t.equal(chain.links.length, 4);
    // Every block, of every epoch.
    for (const { block, certificate } of world.blocks)
      t.equal(
        codeOf(
          verifyDecided(
            { headerBytes: block.headerBytes, links: [], certificate },
            { genesis: world.genesis, crypto, epochs: chain },
          ),
        ),
        'ok',
      );
  }
  const ignorant = new EpochChain({ genesis: world.genesis, crypto: native });
  t.equal(codeOf(ignorant.add(links[1]!)), 'certificate-epoch', 'one after the other');
  const { block, certificate } = world.blocks.at(-1)!;
  const decided = { headerBytes: block.headerBytes, links: [], certificate };
  t.equal(
    codeOf(verifyDecided(decided, { genesis: world.genesis, crypto: native, epochs: ignorant })),
    'certificate-epoch',
  );
  t.equal(codeOf(verifyDecided(decided, { genesis: world.genesis, crypto: native })), 'certificate-epoch');
});

t.test('[EPO-11] a link with anything changed in it proves nothing', async (t) => {
  const world = new EpochWorld();
  world.idle(1).end({ changes: [adding('e')], by: abc, joins: { e: 1 } });
  const [link] = world.links as [Bytes];
  const read = decodeEpochLink(link);
  t.notOk('refused' in read);
  let refused = 0;
  for (let at = 0; at < link.length; at++) {
    const changed = Uint8Array.from(link);
    changed[at]! ^= 1 + (at % 7);
    const chain = new EpochChain({ genesis: world.genesis, crypto: native });
    if ('refused' in chain.add(changed)) refused += 1;
    else t.fail(`byte ${at} of a link is not proven`);
  }
  t.equal(refused, link.length);
  for (let length = 0; length < link.length; length += 37)
    t.equal(codeOf(decodeEpochLink(link.subarray(0, length))), 'payload-malformed');
});

t.test('[EPO-11] the members of one epoch cannot speak for another; two ends of one epoch are a fork', async (t) => {
  const world = new EpochWorld();
  const rival = new EpochWorld();
  world.idle(1).end({ changes: [adding('e')], by: abc, joins: { e: 1 } });
  rival.idle(1).end({ changes: [adding('f')], by: abc, joins: { f: 1 } });
  const chain = new EpochChain({ genesis: world.genesis, crypto: native });
  chain.add(world.links[0]!);
  t.equal(codeOf(chain.add(rival.links[0]!)), 'epoch-fork', 'both are certified: more than f are faulty');
  t.same(chain.last.hash, world.epoch.hash, 'what was known stands');
  // The key that was replaced certifies nothing any more.
  const four = new EpochWorld();
  four.end({ changes: [rekey('a', 'a2')], by: abc, joins: { a2: 0 } });
  four.idle(1);
  const known = new EpochChain({ genesis: four.genesis, crypto: native });
  known.add(four.links[0]!);
  const { block, certificate } = four.blocks.at(-1)!;
  const old = new EpochWorld().certify(block, { ...four.epoch, members: new EpochWorld().epoch.members });
  const context = { genesis: four.genesis, crypto: native, epochs: known };
  t.equal(codeOf(verifyDecided({ headerBytes: block.headerBytes, links: [], certificate }, context)), 'ok');
  t.equal(
    codeOf(verifyDecided({ headerBytes: block.headerBytes, links: [], certificate: old }, context)),
    'certificate-signature',
  );
});

t.test('[EPO-11] a follower crosses epochs by the blocks themselves; without bodies, by the links', async (t) => {
  const world = longWorld();
  const verifierOf = (epochs: EpochChain | undefined) =>
    new ChainVerifier({
      ...new EpochChain({ genesis: world.genesis, crypto: native }).signersOf(asEpoch(0))!,
      parameters: world.genesis.parameters,
      trusted: world.blocks.length > 0 ? genesisEpoch(sha256, world.genesis).start : null,
      pendingMax: LINKS_MAX,
      epochs,
    });
  const fed = ({ block, certificate }: EpochWorld['blocks'][number], bodies: boolean) => ({
    headerBytes: block.headerBytes,
    bundles: bodies ? block.bundles.map(({ payload, signature }) => ({ payload, signature })) : null,
    certificate,
  });
  const epochs = new EpochChain({ genesis: world.genesis, crypto: native });
  const whole = verifierOf(epochs);
  for (const each of world.blocks)
    t.equal(codeOf(whole.feed(fed(each, true))), 'ok', `block ${each.block.header.height}`);
  t.same(epochs.links, world.links, 'it has gathered the links on its way');

  const headers = verifierOf(new EpochChain({ genesis: world.genesis, crypto: native }));
  const results = world.blocks.map((each) => codeOf(headers.feed(fed(each, false))));
  t.equal(results[2], 'ok', 'the last of the first epoch');
  t.equal(results[3], 'certificate-epoch', 'nothing says who comes after');
  const informed = verifierOf(epochs);
  for (const each of world.blocks) t.equal(codeOf(informed.feed(fed(each, false))), 'ok');

  // An epoch that has ended goes on for nobody.
  const stubborn = verifierOf(new EpochChain({ genesis: world.genesis, crypto: native }));
  for (const each of world.blocks.slice(0, 3)) stubborn.feed(fed(each, true));
  const old = new EpochWorld();
  old.idle(4);
  t.equal(codeOf(stubborn.feed(fed(old.blocks[3]!, true))), 'certificate-epoch');
});

const operatorsOf = ({ members }: EpochDocument) =>
  members.flatMap((m) => (m.operatorKey === undefined ? [] : [m.name]));

t.test('whatever operators sign, the verdict is one, and every epoch that comes of it can run', async (t) => {
  const names = fc.constantFrom(...'abcdefgh');
  const change: fc.Arbitrary<Change> = fc.oneof(
    names.map(adding),
    names.map(remove),
    names.map((name) => rekey(name, `${name}2`)),
    fc.constantFrom(64, 128, 3).map((value) => set('checkpointInterval', value)),
    fc.nat(9).map(
      (signatures): Change => ({
        change: 'set-policy',
        policy: { signatures: signatures === 0 ? 'quorum' : signatures },
      }),
    ),
    names.map((name): Change => ({ change: 'replace-operator-key', name, operatorKey: null })),
  );
  const draft = fc.record({
    changes: fc.array(change, { minLength: 1, maxLength: 3 }),
    // How many of the operators do not sign.
    missing: fc.constantFrom(0, 0, 0, 2),
  });
  let ended = 0;
  fc.assert(
    fc.property(fc.array(draft, { minLength: 1, maxLength: 6 }), (drafts) => {
      const world = new EpochWorld();
      for (const { changes, missing } of drafts) {
        const fresh = new Set(
          changes
            .flatMap((each) => ('publicKey' in each ? [each] : []))
            .map((each) => (each.change === 'add-member' ? each.name : `${'name' in each ? each.name : ''}2`)),
        );
        const bytes = controlFor(world.epoch, {
          changes,
          by: operatorsOf(world.epoch).slice(missing),
          joins: Object.fromEntries([...fresh].map((name) => [name, world.height])),
        });
        const bundle = world.bundle(bytes);
        const problem = world.ledger.controlProblem(bundle, asHeight(world.height + 1));
        const before = world.epoch.epoch;
        if (problem === null) {
          world.decide(bundle);
          ended += 1;
          const { members, parameters, policy } = world.epoch;
          t.equal(world.epoch.epoch, before + 1);
          t.ok(members.every(({ id }, i) => id === i));
          // It is a genesis document that would be accepted, and it has a policy that can be met.
          const text = JSON.stringify({
            synod: 1,
            name: 'x',
            protocol: 'pbft',
            createdAt: 0,
            members: members.map((m) => ({
              name: m.name,
              publicKey: toHex(m.publicKey),
              ...(m.operatorKey === undefined ? {} : { operatorKey: toHex(m.operatorKey) }),
            })),
            parameters,
            ...(policy.signatures === 'quorum' ? {} : { policy }),
          });
          t.equal(codeOf(parseGenesis(native, Buffer.from(text), text)), 'ok');
          t.ok(signaturesNeeded(world.epoch).need <= signaturesNeeded(world.epoch).operators);
        } else t.equal(codeOf(world.ledger.extend([], careless(world, [bundle]))), 'block-control');
        world.idle(1);
      }
      const chain = new EpochChain({ genesis: world.genesis, crypto: native });
      for (const link of world.links) t.equal(codeOf(chain.add(link)), 'ok');
      t.same(chain.last.hash, world.epoch.hash);
    }),
    { numRuns: 100 },
  );
  t.ok(ended > 20, `${ended} epochs ended`);
});

t.test('a genesis document names operators, addresses and a policy, or says which of them is wrong', async (t) => {
  const { document } = genesisWith(['a', 'b', 'c', 'd'], { policy: { signatures: 2 } });
  const sound = JSON.parse(new TextDecoder().decode(document));
  const parsed = (json: object) => {
    const text = JSON.stringify(json);
    const result = parseGenesis(native, Buffer.from(text), text);
    return 'refused' in result ? result.field : 'ok';
  };
  t.equal(parsed(sound), 'ok');
  t.equal(parsed({ ...sound, policy: { signatures: 5 } }), 'policy.signatures');
  const member = (change: object) =>
    parsed({ ...sound, members: [{ ...sound.members[0], ...change }, ...sound.members.slice(1)] });
  t.equal(member({ operatorKey: sound.members[1].publicKey }), 'members.1.publicKey');
  t.equal(member({ operatorKey: sound.members[0].publicKey }), 'members.0.operatorKey');
  t.equal(member({ operatorKey: '00'.repeat(32) }), 'members.0.operatorKey');
  t.equal(member({ address: 'http://10.0.0.1:7000' }), 'members.0.address');
  t.equal(member({ address: 'ws://10.0.0.1' }), 'members.0.address');
});

t.test('[EPO-17] an observer keeps the log that a member starts from, through every epoch', async (t) => {
  const world = longWorld();
  world.idle(20);
  const disk = new SimDisk();
  const begin = () => new Observer({ sha256, genesis: world.genesis }, disk.writes === 0 ? null : disk.recover());
  let observer = begin();
  for (const [i, { block, certificate, epoch }] of world.blocks.entries()) {
    // It starts anew now and then, as after a crash.
    if (i % 5 === 3) observer = begin();
    t.equal(observer.document.epoch, epoch.epoch, `block ${block.header.height}`);
    disk.write(observer.take(block, certificate));
    t.equal(observer.height, block.header.height);
  }
  t.same(observer.document.hash, world.epoch.hash);
  const recovered = disk.recover();
  t.same(epochOf(sha256, world.genesis, recovered).hash, world.epoch.hash, 'the log says which epoch goes on');
  const { epoch } = world;
  const core = new Pbft(
    { genesis: genesisOf(world.genesis, epoch), epoch: epoch.epoch, document: epoch, self: asReplicaId(1), sha256 },
    { log: recovered, guard: { view: asView(0), led: null, lock: null } },
    asMillis(start + 1_000),
  );
  t.match(core.explain(), { epoch: epoch.epoch, height: world.height, view: 0, phase: 'idle' });
  const { pledges } = core.step([], asMillis(start + 1_000));
  const [pledge] = pledges;
  t.match(
    pledge?.pledge,
    { kind: 'checkpoint', epoch: epoch.epoch },
    'it signs the checkpoint of its epoch, and no vote',
  );
  t.equal(pledges.length, 1);

  const foreign = new EpochWorld();
  foreign.idle(1);
  t.throws(
    () => begin().take(foreign.blocks[0]!.block, null),
    InvariantViolation,
    'what does not follow is a bug of the caller',
  );
});

t.test('[EPO-12] [FLR-1] what a core inherits is what the log gives back', async (t) => {
  const world = new EpochWorld();
  world.idle(3).end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 5 }], by: abc });
  const disk = new SimDisk();
  const observer = new Observer({ sha256, genesis: world.genesis }, null);
  for (const { block, certificate } of world.blocks) disk.write(observer.take(block, certificate));
  const { epoch, ledger } = world;
  ledger.checkpoint();
  const genesis = genesisOf(world.genesis, epoch);
  const options = { genesis, epoch: epoch.epoch, document: epoch, self: asReplicaId(1), sha256 };
  const guard = { view: asView(0), led: null, lock: null };
  const connected = [0, 2, 3].map(asReplicaId);
  let now = start + 1_000;
  const read = new Pbft(options, { log: disk.recover(), connected, guard }, asMillis(now));
  const inherited = { ledger, lowest: asHeight(disk.lowest) };
  const core = new Pbft(options, { log: null, inherited, connected, guard }, asMillis(now));
  t.same(core.snapshot(), read.snapshot());
  const first = core.step([], asMillis(now));
  t.strictSame([first.send, first.pledges], [[], []], 'nothing that the first block would wait for');
  now += genesis.parameters.heartbeatMs;
  const second = core.step([], asMillis(now));
  t.match(second.send, [{ to: 'all', message: { kind: 'status', epoch: epoch.epoch } }]);
  t.match(second.pledges, [{ pledge: { kind: 'checkpoint', epoch: epoch.epoch, height: world.height } }]);
  t.equal(second.pledges.length, 1);
  t.equal(core.successor, null, 'it has not ended');
});

t.test('[EPO-10] the checkpoint at the start of an epoch is proved by its own members', async (t) => {
  const world = new EpochWorld();
  world.idle(1).end({ changes: [rekey('a', 'a2')], by: abc, joins: { a2: 0 } });
  const { epoch, ledger } = world;
  const { stateDigest, logRoot } = ledger.checkpoint();
  const place = { epoch: epoch.epoch, ...epoch.start, logRoot, memberSetHash: epoch.hash, stateDigest };
  const text = checkpointSigningBytes(world.genesis.chainId, place);
  const signed = (signer: number) => signerOf(epoch.members[signer]!.publicKey).sign(text);
  const signatures = [0, 1, 2].map((replica) => ({ replica: asReplicaId(replica), signature: signed(replica) }));
  const { block } = world.blocks[1]!;
  const context = { ...signersOf(epoch, native), parameters: epoch.parameters };
  const message = {
    kind: 'checkpoint-proof',
    checkpoint: { ...place, signatures },
    headerBytes: block.headerBytes,
  } as const;
  const payload = encodePayload(message);
  const sender = epoch.members[1]!;
  const signature = signerOf(sender.publicKey).sign(signingBytes(world.genesis.chainId, message, payload));
  const proof = { sender: sender.id, message, payload, signature };
  t.equal(codeOf(verifyMessage(proof, { ...context, start: epoch.start })), 'ok');
  t.equal(codeOf(verifyMessage(proof, context)), 'checkpoint-header', 'only there is the header of the epoch before');
  const before = { height: epoch.start.height, hash: asHash(new Uint8Array(32)) };
  t.equal(codeOf(verifyMessage(proof, { ...context, start: before })), 'checkpoint-header');
});
