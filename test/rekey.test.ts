// Another key on the same connection (WIRE-38, EPO-23), and whoever comes with an epoch (EPO-24): the proof by itself, and transports over real sockets
// that switch in every order, with a thief of the old key among them. No fixed sleeps: every wait is for an event, with a deadline.

import t from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { TransportEpoch } from '../daemon/transport/peers.ts';
import { encodeHandshakePayload, Handshake, type HandshakeStep } from '../protocol/handshake.ts';
import { Session } from '../protocol/session.ts';
import { asEpoch, asHash, asReplicaId, type Member, type ReplicaId } from '../protocol/types.ts';
import { decodeFrame, type Frame } from '../protocol/wire/frame.ts';
import { isClientKind, isDoorKind, isReplicaKind } from '../protocol/wire/kinds.ts';
import { fc } from './property.ts';
import {
  chainId,
  client,
  frame,
  handshakeOf,
  type Key,
  keyOf,
  memberKey,
  members,
  Node,
  numberOf,
  one,
  Stranger,
  seal,
  shake,
  signer,
  three,
  two,
  zero,
} from './transport-world.ts';

t.setTimeout(120_000);

// ---- the proof --------------------------------------------------------------------------------------------------------

const framed = (bytes: Bytes): Frame => {
  const decoded = decodeFrame(bytes);
  if ('refused' in decoded) throw new Error(decoded.refused);
  return decoded;
};

const sendOf = (step: HandshakeStep) => {
  if ('refused' in step) throw new Error(step.refused);
  return step;
};

interface Ends {
  readonly a: Session;
  readonly b: Session;
}

/** A connection after its handshake, as both ends know it. `a` has called. */
function connection(keyA: Key = memberKey(zero), keyB: Key = memberKey(one), nonce = 1, epoch = 0): Ends {
  const common = { crypto: native, chainId, epoch: asEpoch(epoch) };
  const of = (key: Key, side: 'initiator' | 'responder') =>
    new Handshake({
      ...common,
      members,
      side,
      role: 'replica',
      key: key.publicKey,
      nonce: new Uint8Array(32).fill(nonce),
      expected: null,
    });
  const [a, b] = [of(keyA, 'initiator'), of(keyB, 'responder')];
  b.start();
  const helloB = sendOf(b.receive(framed(seal(a.start()[0]!, { key: keyA })))).send[0]!;
  const authA = sendOf(a.receive(framed(seal(helloB, { key: keyB })))).send[0]!;
  const ofB = sendOf(b.receive(framed(seal(authA, { key: keyA }))));
  const ofA = sendOf(a.receive(framed(seal(ofB.send[0]!, { key: keyB }))));
  return {
    a: new Session({ ...common, side: 'initiator', key: keyA.publicKey }, ofA.peer!),
    b: new Session({ ...common, side: 'responder', key: keyB.publicKey }, ofB.peer!),
  };
}

/** What this end says of its next key. */
const rekey = (end: Session, key: Key, epoch: number): Frame =>
  framed(seal(end.renew({ key: key.publicKey, epoch: asEpoch(epoch) })!, { key }));

const code = (end: Session, said: Frame) => end.receive(said)?.refused ?? 'taken';

const [next, afterNext, fourth, other] = [keyOf('next'), keyOf('after next'), keyOf('fourth'), keyOf('other')];

t.test('[WIRE-38] a rekey is good for one connection, from one key to one other, and once', async (t) => {
  const { a, b } = connection();
  const first = rekey(a, next, 1);
  t.equal(a.renew({ key: next.publicKey, epoch: asEpoch(2) }), null, 'the same key needs no word');
  const before = b.peer;

  t.equal(
    code(connection(memberKey(zero), memberKey(one), 2).b, first),
    'rekey-transcript',
    'another connection of these two',
  );
  t.equal(code(connection(memberKey(zero), memberKey(two)).b, first), 'rekey-transcript', 'relayed to another replica');
  t.equal(
    code(connection(memberKey(two), memberKey(one)).b, first),
    'rekey-transcript',
    'as the continuation of another',
  );
  t.equal(code(a, first), 'rekey-key', 'sent back to its maker');
  const back = connection(memberKey(one), memberKey(zero));
  t.equal(code(back.a, first), 'rekey-transcript', 'in the other direction');
  t.equal(code(back.b, first), 'rekey-transcript');
  const mirrored = connection();
  const ofB = rekey(mirrored.b, next, 1);
  t.equal(code(mirrored.b, { ...ofB, sender: other.publicKey }), 'rekey-transcript', 'under another name');
  t.equal(code(b, { ...first, sender: other.publicKey }), 'rekey-transcript', 'the new key is another');
  t.equal(code(b, { ...first, sender: memberKey(one).publicKey }), 'rekey-key', 'the receiver’s own');
  const payload = encodeHandshakePayload({
    kind: 'rekey',
    epoch: asEpoch(2),
    transcript: asHash(first.payload.subarray(-32)),
  });
  t.equal(code(b, { ...first, payload }), 'rekey-transcript', 'another epoch');
  t.equal(code(b, { ...first, signature: new Uint8Array(64) }), 'rekey-signature');
  const byOld = signer(memberKey(zero))('rekey', first.payload);
  t.equal(code(b, { ...first, signature: byOld }), 'rekey-signature', 'the old key cannot speak for the new one');
  const elsewhere = signer(next, asHash(new Uint8Array(32)))('rekey', first.payload);
  t.equal(code(b, { ...first, signature: elsewhere }), 'rekey-signature', 'another chain');
  for (const kind of ['hello', 'auth', 'status'] as const) t.equal(code(b, { ...first, kind }), 'rekey-kind');
  t.equal(code(b, { ...first, payload: first.payload.subarray(1) }), 'payload-malformed');
  t.equal(b.peer, before, 'a refusal changes nothing');

  t.equal(code(b, first), 'taken');
  t.strictSame(b.peer, { key: next.publicKey, epoch: 1 });
  t.equal(code(b, first), 'rekey-key', 'twice');
  const second = rekey(a, afterNext, 2);
  t.equal(code(connection().b, second), 'rekey-transcript', 'the key before has not been proved here');
  t.equal(code(b, second), 'taken');
  t.equal(code(b, first), 'rekey-epoch', 'replayed');
  // Back to where it began: what was said on the way there is not good again.
  t.equal(code(b, rekey(a, memberKey(zero), 3)), 'taken');
  t.equal(code(b, first), 'rekey-epoch');
  t.equal(code(connection(memberKey(zero), memberKey(one), 1, 1).b, first), 'rekey-epoch', 'not later than its hello');
});

t.test('[WIRE-38] both ends may have other keys at once, and it does not matter who says so first', async (t) => {
  const { a, b } = connection();
  const [ofA, ofB] = [rekey(a, next, 1), rekey(b, other, 1)];
  t.equal(code(a, ofB), 'taken');
  t.equal(code(b, ofA), 'taken');
  t.strictSame([a.peer.key, b.peer.key], [other.publicKey, next.publicKey]);
  t.equal(code(b, rekey(a, afterNext, 2)), 'taken');
});

t.test('[WIRE-38] it is no part of a handshake, and nothing that clients or doors say', async (t) => {
  const { a } = connection();
  const said = rekey(a, next, 1);
  const calling = handshakeOf({ key: memberKey(zero) });
  calling.start();
  const called = handshakeOf({ key: memberKey(one) }, 'responder');
  t.match(called.receive(said), { refused: 'handshake-order' }, 'before the start');
  const asked = handshakeOf({ key: memberKey(one) }, 'responder');
  asked.start();
  t.match(asked.receive(said), { refused: 'handshake-order' });
  t.match(calling.receive(said), { refused: 'handshake-order' });
  const half = handshakeOf({ key: memberKey(one) }, 'responder');
  half.start();
  half.receive(framed(seal(handshakeOf({ key: memberKey(zero) }).start()[0]!, { key: memberKey(zero) })));
  t.match(half.receive(said), { refused: 'handshake-order' }, 'in place of the auth');
  t.notOk(isClientKind('rekey') || isDoorKind('rekey') || isReplicaKind('rekey'));
});

t.test('[WIRE-38] whatever the bytes are, nothing throws, and nothing but the proof is taken', async (t) => {
  const { a, b } = connection();
  const sound = rekey(a, next, 1);
  fc.assert(
    fc.property(fc.nat(sound.payload.length - 1), fc.integer({ min: 1, max: 255 }), (at, by) => {
      const payload = Uint8Array.from(sound.payload, (byte, i) => (i === at ? byte ^ by : byte));
      return code(b, { ...sound, payload, signature: signer(next)('rekey', payload) }) !== 'taken';
    }),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (payload) => code(b, { ...sound, payload }) !== 'taken'));
  t.equal(code(b, sound), 'taken');
});

// ---- over real sockets ------------------------------------------------------------------------------------------------

interface Change {
  readonly epoch: number;
  /** Members in their order; default: the first two. */
  readonly ids?: readonly ReplicaId[];
  /** Those that are not the first ones. */
  readonly keys?: ReadonlyMap<ReplicaId, Key>;
  readonly ports?: ReadonlyMap<ReplicaId, number>;
}

/** The epoch as one of its members enters it. */
function epochOf(
  self: ReplicaId,
  { epoch, ids = [zero, one], keys = new Map(), ports = new Map() }: Change,
): TransportEpoch {
  const keyIn = (id: ReplicaId) => keys.get(id) ?? memberKey(id);
  const all: readonly Member[] = ids.map((id, place) => ({
    id: asReplicaId(place),
    name: `r${id}`,
    publicKey: keyIn(id).publicKey,
  }));
  return {
    self: asReplicaId(ids.indexOf(self)),
    credentials: {
      crypto: native,
      chainId,
      epoch: () => asEpoch(epoch),
      members: () => all,
      key: keyIn(self).publicKey,
      signStatement: signer(keyIn(self)),
    },
    peers: new Map(
      [...ports].flatMap(([id, port]) =>
        id === self ? [] : [[asReplicaId(ids.indexOf(id)), `ws://127.0.0.1:${port}`] as const],
      ),
    ),
  };
}

type Test = { teardown(end: () => unknown): void };

/** 0 has called 1, on both lanes. `ports`: what 0 knows, so that its connections are to the same addresses in the next epochs. */
async function pairOf(t: Test, rekeyMsMax = 10_000) {
  const options = { rekeyMsMax };
  const b = await Node.open(one, [], { options });
  const ports = new Map([[one, b.port]]);
  const a = await Node.open(zero, [...ports], { options });
  t.teardown(() => Promise.all([a.close(), b.close()]));
  const [toA, toB] = [marks(b, a), marks(a, b)];
  await a.until('1', () => a.seen('connected 1') > 0 && a.count('synod_transport_dials_total bulk') > 0);
  await b.until('0', () => b.seen('connected 0') > 0);
  // On the bulk lane frames wait for the connection.
  for (const lane of ['vote', 'bulk'] as const) {
    await toB(lane);
    await toA(lane);
  }
  return { a, b, ports, toA, toB };
}

let marked = 0;
/** Sends a frame, and comes back with it as it came: from whom, and under which key. */
const marks =
  (from: Node, to: Node) =>
  async (lane: 'vote' | 'bulk' = 'vote'): Promise<{ readonly from: ReplicaId; readonly key?: Bytes | undefined }> => {
    marked += 1;
    const mark = marked;
    const found = () => to.frames.find(({ bytes }) => numberOf(bytes) === mark);
    from.transport.broadcast(frame(mark), lane);
    await to.until(`frame ${mark}`, () => found() !== undefined);
    const { from: sender, key } = found()!;
    return { from: sender, key };
  };

const figures = (...nodes: readonly Node[]) =>
  nodes.map((node) => [
    node.count('synod_transport_dials_total vote'),
    node.count('synod_transport_dials_total bulk'),
    ...[0, 1, 2].map((id) => node.count(`synod_transport_disconnects_total ${id}`)),
    node.logs.filter((line) => /refused|punished/.test(line)).length,
  ]);

t.test('[EPO-23] a replica with another key is the first to switch, and its connections go on', async (t) => {
  const { a, b, ports, toA, toB } = await pairOf(t);
  const before = figures(a, b);
  const change = { epoch: 1, keys: new Map([[zero, next]]), ports };
  a.transport.enter(epochOf(zero, change));
  // Who is behind goes on hearing it, and knows which key that is.
  t.strictSame(await toB('vote'), { from: zero, key: next.publicKey });
  t.strictSame(await toB('bulk'), { from: zero, key: next.publicKey });
  t.match(await toA(), { from: one, key: undefined });
  t.strictSame(b.transport.connectedPeers(), [zero]);
  b.transport.enter(epochOf(one, change));
  t.strictSame(b.transport.connectedPeers(), [zero]);
  for (const lane of ['vote', 'bulk'] as const) {
    t.match(await toB(lane), { from: zero, key: undefined });
    t.match(await toA(lane), { from: one, key: undefined });
  }
  t.strictSame(figures(a, b), before, 'nobody has dialled, been cut off, refused or punished');
  t.equal(b.seen('connected 0'), 1);
  t.equal(b.seen('disconnected 0'), 0);
});

t.test(
  '[EPO-23] the others switch first: until it proves its key it is nobody, and nothing is lost to it',
  async (t) => {
    const { a, b, ports, toA, toB } = await pairOf(t);
    const before = figures(a, b);
    const change = { epoch: 1, keys: new Map([[zero, next]]), ports };
    b.transport.enter(epochOf(one, change));
    t.strictSame(b.transport.connectedPeers(), []);
    const heard = b.frames.length;
    // In its own epoch, in good faith, under the key that was replaced.
    for (const lane of ['vote', 'bulk'] as const) a.transport.broadcast(frame(1 << 20), lane);
    const [waits, comes] = [frame(1 << 21), frame(1 << 22)];
    b.transport.broadcast(waits, 'vote');
    b.transport.broadcast(comes, 'bulk');
    a.transport.enter(epochOf(zero, change));
    await b.until('the proof', () => b.seen('connected 0') === 2);
    for (const held of [waits, comes])
      await a.until('what waited for it', () => a.frames.some(({ bytes }) => numberOf(bytes) === numberOf(held)));
    for (const lane of ['vote', 'bulk'] as const) {
      t.match(await toB(lane), { from: zero, key: undefined });
      t.match(await toA(lane), { from: one, key: undefined });
    }
    t.notOk(
      b.frames.slice(heard).some(({ bytes }) => numberOf(bytes) === 1 << 20),
      'what came before counts for nothing',
    );
    t.strictSame(figures(a, b), before);
  },
);

t.test('[EPO-23] two keys in a row while the other is behind, and both with another key at once', async (t) => {
  const { a, b, ports, toA, toB } = await pairOf(t);
  const before = figures(a, b);
  const steps: readonly Change[] = [
    { epoch: 1, keys: new Map([[zero, next]]), ports },
    { epoch: 2, keys: new Map([[zero, afterNext]]), ports },
    // A parameter.
    { epoch: 3, keys: new Map([[zero, afterNext]]), ports },
    { epoch: 4, ports },
  ];
  for (const step of steps.slice(0, 2)) a.transport.enter(epochOf(zero, step));
  t.strictSame(await toB(), { from: zero, key: afterNext.publicKey });
  b.transport.enter(epochOf(one, steps[0]!));
  t.strictSame(b.transport.connectedPeers(), [], 'it has not the key of this epoch any more');
  b.transport.enter(epochOf(one, steps[1]!));
  t.strictSame(b.transport.connectedPeers(), [zero]);
  t.match(await toB(), { from: zero, key: undefined });
  // Ahead by an epoch in which its key is still the same, and then by one in which it is not.
  a.transport.enter(epochOf(zero, steps[2]!));
  a.transport.enter(epochOf(zero, { ...steps[3]!, keys: new Map([[zero, fourth]]) }));
  t.strictSame(await toB(), { from: zero, key: fourth.publicKey });
  b.transport.enter(epochOf(one, steps[2]!));
  t.strictSame(await toB(), { from: zero, key: fourth.publicKey }, 'it was the member all the time');
  b.transport.enter(epochOf(one, { ...steps[3]!, keys: new Map([[zero, fourth]]) }));
  t.match(await toB(), { from: zero, key: undefined });

  const both = {
    epoch: 5,
    keys: new Map([
      [zero, next],
      [one, other],
    ]),
    ports,
  };
  a.transport.enter(epochOf(zero, both));
  t.strictSame(a.transport.connectedPeers(), []);
  b.transport.enter(epochOf(one, both));
  await a.until('the other key', () => a.transport.connectedPeers().length === 1);
  t.match(await toA(), { from: one, key: undefined });
  t.match(await toB(), { from: zero, key: undefined });
  t.strictSame(figures(a, b), before);
});

t.test(
  '[EPO-23] what was said to nobody is sent as soon as an epoch makes it somebody, and all that follows',
  async (t) => {
    const { a, b, ports, toA, toB } = await pairOf(t);
    const before = figures(a, b);
    const steps: readonly Change[] = [
      { epoch: 1, keys: new Map([[zero, next]]), ports },
      { epoch: 2, keys: new Map([[zero, afterNext]]), ports },
    ];
    for (const step of steps) a.transport.enter(epochOf(zero, step));
    for (const lane of ['vote', 'bulk'] as const)
      t.strictSame(await toB(lane), { from: zero, key: afterNext.publicKey }, 'it is two epochs ahead');
    b.transport.enter(epochOf(one, steps[0]!));
    t.strictSame(b.transport.connectedPeers(), []);
    const waits = { vote: 1 << 23, bulk: 1 << 24 };
    const heard = a.frames.length;
    for (const lane of ['vote', 'bulk'] as const) b.transport.broadcast(frame(waits[lane]), lane);
    b.transport.enter(epochOf(one, steps[1]!));
    t.strictSame(b.transport.connectedPeers(), [zero]);
    await a.until('what waited', () =>
      Object.values(waits).every((mark) => a.frames.some(({ bytes }) => numberOf(bytes) === mark)),
    );
    for (const lane of ['vote', 'bulk'] as const) {
      t.match(await toA(lane), { from: one, key: undefined });
      t.match(await toB(lane), { from: zero, key: undefined });
    }
    t.equal(a.frames.length, heard + 4, 'each once');
    t.strictSame(figures(a, b), before);
  },
);

/** Long past the deadline of every wait: whoever is up before has not waited for it. */
const longMs = 600_000;

for (const [whose, id] of [
  ['the peer’s', one],
  ['its own', zero],
] as const)
  t.test(
    `[EPO-23] a link that is down is dialled with another key, ${whose}, however long it would wait`,
    async (t) => {
      const b = await Node.open(one);
      const ports = new Map([[one, b.port]]);
      const change = { epoch: 1, keys: new Map([[id, next]]), ports };
      // It is ahead, and nobody calls it or is let in until the other one is as far.
      b.enter(epochOf(one, change));
      const a = await Node.open(zero, [...ports], { options: { backoffMsMin: longMs, backoffMsMax: longMs } });
      t.teardown(() => Promise.all([a.close(), b.close()]));
      const refusals = () => a.logs.filter((line) => line.includes('handshake refused')).length;
      await a.until('both lanes are refused', () => refusals() === 2);
      a.enter(epochOf(zero, change));
      await a.until('1', () => a.seen('connected 1') > 0);
      // On the bulk lane frames wait for the connection.
      const [toA, toB] = [marks(b, a), marks(a, b)];
      for (const lane of ['vote', 'bulk'] as const) {
        t.match(await toB(lane), { from: zero, key: undefined });
        t.match(await toA(lane), { from: one, key: undefined });
      }
    },
  );

t.test('[EPO-23] the penalty of a key is over with the key, and its link is dialled', async (t) => {
  const b = await Node.open(one);
  const ports = new Map([[one, b.port]]);
  const a = await Node.open(zero, [...ports], { options: { punishMsMin: longMs, punishMsMax: longMs } });
  t.teardown(() => Promise.all([a.close(), b.close()]));
  const [toA, toB] = [marks(b, a), marks(a, b)];
  await a.until('1', () => a.seen('connected 1') > 0);
  await b.until('0', () => b.seen('connected 0') > 0);
  await toB('bulk');
  // Whoever has stolen the key of 1 misbehaves, and 1 is given another one.
  a.transport.punish(one, 'stolen');
  await b.until('cut off', () => b.seen('disconnected 0') > 0);
  const change = { epoch: 1, keys: new Map([[one, next]]), ports };
  b.enter(epochOf(one, change));
  a.enter(epochOf(zero, change));
  await a.until('1 again', () => a.seen('connected 1') === 2);
  for (const lane of ['vote', 'bulk'] as const) {
    t.match(await toB(lane), { from: zero, key: undefined });
    t.match(await toA(lane), { from: one, key: undefined });
  }
  t.equal(a.count('synod_transport_punished_total 1'), 1);
});

t.test('[EPO-23] eight proofs an epoch, however often they come back to the key that it has', async (t) => {
  const b = await Node.open(one);
  t.teardown(() => b.close());
  const member = new Stranger(b.port, '/peer/vote');
  const session = await sessionOf(member, memberKey(zero));
  await b.until('it', () => b.seen('connected 0') > 0);
  let said = 0;
  /** There and back. */
  const say = (count: number) => {
    for (let i = 0; i < count; i++) {
      said += 1;
      const key = said % 2 === 1 ? next : memberKey(zero);
      member.send(seal(session.renew({ key: key.publicKey, epoch: asEpoch(said) })!, { key }));
    }
    member.send(frame(said));
  };
  const isHeard = () => b.frames.some(({ bytes }) => numberOf(bytes) === said);
  const cutOff = () => b.logs.some((line) => line.includes('rekeys-max'));
  for (const epoch of [1, 2]) {
    say(8);
    await b.until('both keys, four times each', () => isHeard() || cutOff());
    t.match(b.frames.at(-1), { from: zero, key: undefined });
    t.notOk(cutOff(), `before epoch ${epoch}`);
    b.enter(epochOf(one, { epoch }));
    t.strictSame(b.transport.connectedPeers(), [zero]);
  }
  say(9);
  await b.until('too many', () => isHeard() || cutOff());
  t.ok(cutOff(), 'the ninth');
  t.notOk(isHeard());
  t.strictSame(b.transport.connectedPeers(), []);
  t.equal(b.count('synod_transport_punished_total 0'), 0);
});

t.test('[EPO-16] [EPO-23] a stolen key: its connection is nobody’s from the switch on, and is closed', async (t) => {
  const b = await Node.open(one, [], { options: { rekeyMsMax: 400 } });
  const thief = new Stranger(b.port, '/peer/vote');
  t.teardown(() => b.close());
  await shake(thief, { key: memberKey(zero) });
  await b.until('the thief', () => b.seen('connected 0') > 0);
  thief.send(frame(1));
  await b.until('heard in its epoch', () => b.frames.length === 1);
  b.transport.enter(epochOf(one, { epoch: 1, keys: new Map([[zero, next]]) }));
  t.strictSame(b.transport.connectedPeers(), []);
  thief.send(frame(2));
  for (const lane of ['vote', 'bulk'] as const) b.transport.broadcast(frame(3), lane);
  b.transport.send(zero, frame(3), 'vote');
  const { code, reason } = await thief.ended;
  t.match({ code, reason }, { code: 4001, reason: 'rekey-missing' });
  t.equal(b.frames.length, 1, 'heard by nobody');
  t.notOk(
    thief.got.some((bytes) => bytes.length === 200),
    'told nothing',
  );
  t.equal(b.count('synod_transport_punished_total 0'), 0);
});

t.test('[EPO-16] [EPO-23] a stolen key with a key of the thief’s own, before and after the switch', async (t) => {
  const b = await Node.open(one, [], { options: { rekeyMsMax: 1_000, connectionMsMin: 0 } });
  t.teardown(() => b.close());
  const steal = async () => {
    const thief = new Stranger(b.port, '/peer/vote');
    const connected = b.seen('connected 0');
    const session = await sessionOf(thief, memberKey(zero));
    await b.until('the thief', () => b.seen('connected 0') > connected);
    return { thief, session };
  };
  const say = (thief: Stranger, session: Session, key: Key, epoch: number) =>
    thief.send(seal(session.renew({ key: key.publicKey, epoch: asEpoch(epoch) })!, { key }));
  const { thief, session } = await steal();
  say(thief, session, other, 7);
  thief.send(frame(1));
  await b.until('what is for another epoch', () => b.frames.length === 1);
  t.strictSame(b.frames[0]?.key, other.publicKey, 'and whose it is, the epochs will say');
  b.transport.enter(epochOf(one, { epoch: 1, keys: new Map([[zero, next]]) }));
  t.strictSame(b.transport.connectedPeers(), []);
  thief.send(frame(2));
  // The member comes itself, and does not wait until the thief is gone.
  b.transport.meet();
  const member = new Stranger(b.port, '/peer/vote');
  await shake(member, { key: next, epoch: 1 }, [
    { id: zero, name: 'r0', publicKey: next.publicKey },
    ...members.slice(1),
  ]);
  await b.until('the member', () => b.transport.connectedPeers().length === 1);
  t.match(await thief.ended, { code: 4002, reason: 'replaced' });
  member.send(frame(3));
  await b.until('its frame', () => b.frames.length === 2);
  t.match(b.frames[1], { from: zero, key: undefined });

  b.enter(epochOf(one, { epoch: 2 }));
  await b.until('nobody again', () => b.logs.some((line) => line.includes('rekey-missing')));
  for (const [said, epochs, reason] of [
    ['a key of the epoch at hand that is not the member’s', [2], 'rekey-unexpected'],
    ['more than anybody needs', [3, 4, 5, 6, 7, 8, 9, 10, 11], 'rekeys-max'],
  ] as const) {
    const { thief, session } = await steal();
    for (const epoch of epochs) say(thief, session, keyOf(`key ${epoch}`), epoch);
    t.match(await thief.ended, { code: 4001, reason }, said);
    await b.until('gone', () => b.transport.connectedPeers().length === 0);
  }
  const { thief: forger, session: forged } = await steal();
  const message = forged.renew({ key: next.publicKey, epoch: asEpoch(3) })!;
  forger.send(seal(message, { key: other, sender: next.publicKey }));
  t.match(await forger.ended, { code: 4001, reason: 'rekey-signature' });
  t.equal(b.count('synod_transport_punished_total 0'), 0, 'nobody is punished for what a thief does');

  const early = new Stranger(b.port, '/peer/vote');
  await early.open();
  early.send(seal(message, { key: next }));
  t.match(await early.ended, { code: 4001, reason: 'handshake-order' });
});

/** An honest handshake by hand, and what came of it. */
async function sessionOf(stranger: Stranger, key: Key, role: 'replica' | 'client' = 'replica'): Promise<Session> {
  const peer = await shake(stranger, { key, role });
  return new Session({ crypto: native, chainId, side: 'initiator', key: key.publicKey, epoch: asEpoch(0) }, peer!);
}

t.test('[EPO-23] clients hear of the key before anything under it, on the connection that they have', async (t) => {
  const node = await Node.open(zero);
  t.teardown(() => node.close());
  const stranger = new Stranger(node.port, '/client');
  const session = await sessionOf(stranger, keyOf('client'), 'client');
  await node.until('a client', () => node.clients.length === 1);
  const [{ socket } = { socket: null }] = node.clients;
  node.transport.enter(epochOf(zero, { epoch: 1 }));
  socket?.send(frame(1));
  t.equal(numberOf((await stranger.receive())!), 1, 'the same key: nothing is said');
  node.transport.enter(epochOf(zero, { epoch: 2, keys: new Map([[zero, next]]) }));
  socket?.send(frame(2));
  socket?.send(frame(3));
  t.equal(session.receive(framed((await stranger.receive())!)), null);
  t.strictSame(session.peer, { key: next.publicKey, epoch: 2 });
  t.equal(numberOf((await stranger.receive())!), 2);
  t.equal(numberOf((await stranger.receive())!), 3, 'once');
  // What clients may not say is their gateway's to judge; the transport makes nothing of it.
  const said = { kind: 'rekey', epoch: asEpoch(3), transcript: asHash(new Uint8Array(32)) } as const;
  stranger.send(seal(said, { key: other }));
  await node.until('it', () => node.clients[0]?.frames.length === 1);
  t.equal(stranger.ws.readyState, stranger.ws.OPEN);
});

t.test('[EPO-24] who comes is met, and who goes is cut off, when there is time for it', async (t) => {
  const options = { handshakeMsMax: 60_000 };
  const nodes = await Promise.all([zero, one, two].map((id) => Node.open(id, [], { options })));
  const [a, b, c] = nodes as [Node, Node, Node];
  t.teardown(() => Promise.all(nodes.map((node) => node.close())));
  const ports = new Map([zero, one, two].map((id) => [id, nodes[id]!.port]));
  const first = { epoch: 1, ids: [zero, one], ports };
  const known = (self: ReplicaId, { ids = [], ...change }: Change) =>
    epochOf(self, { ...change, ids, ports: new Map([...ports].filter(([id]) => ids.includes(id))) });
  for (const [id, node] of [
    [zero, a],
    [one, b],
  ] as const)
    node.enter(known(id, first));
  await a.until('1', () => a.transport.connectedPeers().length === 1);
  await b.until('0', () => b.transport.connectedPeers().length === 1);

  // The third one comes, and the first one goes.
  const second = { epoch: 2, ids: [one, two], ports };
  b.transport.enter(known(one, second));
  const heard = b.frames.length;
  const [dials, refused] = [b.count('synod_transport_dials_total vote'), c.logs.length];
  c.enter(known(two, second));
  a.transport.broadcast(frame(1), 'vote');
  const caller = new Stranger(b.port, '/peer/vote');
  await caller.open();
  caller.send(seal(handshakeOf({ key: memberKey(three) }).start()[0]!, { key: memberKey(three) }));
  // By then it has read all of that.
  const someone = await client(b);
  t.equal(someone.ws.readyState, someone.ws.OPEN, 'clients do not wait');
  t.equal(caller.got.length, 0, 'nobody answers');
  t.equal(b.count('synod_transport_dials_total vote'), dials, 'nobody is dialled');
  t.strictSame(b.transport.connectedPeers(), []);
  t.equal(b.frames.length, heard, 'who goes is not heard');
  t.equal(a.seen('disconnected 1'), 0, 'and not cut off yet');
  t.equal(c.logs.length >= refused, true);
  b.transport.meet();
  await a.until('cut off', () => a.seen('disconnected 1') > 0);
  await b.until('the newcomer', () => b.transport.connectedPeers().length === 1);
  t.match(await caller.ended, { code: 4001, reason: 'handshake-not-a-member' });
});

t.test('[EPO-24] [EPO-25] who has another address is met at once', async (t) => {
  const options = { handshakeMsMax: 60_000 };
  // The member that moves, and where it is then: whoever dials meets the same key.
  const nodes = await Promise.all([zero, one, two, one].map((id) => Node.open(id, [], { options })));
  const [a, b, c, moved] = nodes as [Node, Node, Node, Node];
  t.teardown(() => Promise.all(nodes.map((node) => node.close())));
  const ids = [zero, one, two];
  // Only the first one knows where anybody is: nobody comes back by itself.
  const ports = new Map([
    [one, b.port],
    [two, c.port],
  ]);
  b.enter(epochOf(one, { epoch: 1, ids }));
  c.enter(epochOf(two, { epoch: 1, ids }));
  moved.enter(epochOf(one, { epoch: 2, ids }));
  a.enter(epochOf(zero, { epoch: 1, ids, ports }));
  await a.until('both', () => a.transport.connectedPeers().length === 2);
  const toB = marks(a, b);
  // On the bulk lane frames wait for the connection.
  for (const lane of ['vote', 'bulk'] as const) await toB(lane);
  const heard = b.frames.length;

  a.transport.enter(epochOf(zero, { epoch: 2, ids, ports: new Map([...ports, [one, moved.port]]) }));
  t.strictSame(a.transport.connectedPeers(), [two]);
  for (const lane of ['vote', 'bulk'] as const) a.transport.broadcast(frame(1 << 25), lane);
  await a.until('the one that has moved', () => a.transport.connectedPeers().length === 2);
  for (const lane of ['vote', 'bulk'] as const) t.match(await marks(a, moved)(lane), { from: zero, key: undefined });
  await b.until('cut off', () => b.seen('disconnected 0') > 0);
  t.ok(
    b.logs.some((line) => line.includes('peer disconnected') && line.includes('not-a-peer')),
    'who is at the old address hears why',
  );
  t.equal(b.frames.length, heard, 'and nothing more');
  await marks(a, c)();
  t.strictSame([a.seen('connected 2'), c.seen('connected 0')], [1, 1], 'the connection to whoever stays is kept');
});

t.test('[EPO-24] nobody waits for ever', async (t) => {
  const node = await Node.open(zero, [], { options: { handshakeMsMax: 1_000 } });
  t.teardown(() => node.close());
  node.transport.enter(epochOf(zero, { epoch: 1 }));
  const caller = new Stranger(node.port, '/peer/vote');
  await shake(caller, { key: memberKey(one) });
  await node.until('it', () => node.transport.connectedPeers().length === 1);
  t.strictSame(node.transport.connectedPeers(), [one]);
});

t.test('[EPO-22] a handshake that began in the epoch before is of whoever has the key by now', async (t) => {
  const b = await Node.open(one);
  t.teardown(() => b.close());
  const begin = async (id: ReplicaId) => {
    const caller = new Stranger(b.port, '/peer/vote');
    await caller.open();
    const handshake = handshakeOf({ key: memberKey(id) });
    caller.send(seal(handshake.start()[0]!, { key: memberKey(id) }));
    const step = sendOf(handshake.receive(framed((await caller.receive())!)));
    return { caller, end: () => caller.send(seal(step.send[0]!, { key: memberKey(id) })) };
  };
  const [second, third] = [await begin(two), await begin(three)];
  // 0 goes: 2 has the number of 1, and 3 is no member any more.
  b.transport.enter(epochOf(one, { epoch: 1, ids: [one, two] }));
  second.end();
  third.end();
  t.match(await third.caller.ended, { code: 4001, reason: 'not-a-peer' });
  await b.until('under its number', () => b.transport.connectedPeers().length === 1);
  t.strictSame(b.transport.connectedPeers(), [one]);
});
