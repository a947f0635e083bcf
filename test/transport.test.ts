// daemon/transport/ over real sockets: who gets in, what keeps its order, what one peer or stranger can do to the others (A14, A25,
// A27 of the adversary's book). No fixed sleeps: every wait is for an event, with a deadline.

import { fork, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { WebSocket, WebSocketServer } from 'ws';
import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { addressGroup } from '../daemon/transport/admission.ts';
import { Backoff } from '../daemon/transport/backoff.ts';
import { FrameMeter } from '../daemon/transport/frame-meter.ts';
import { printable } from '../daemon/transport/log.ts';
import { defaultOptions, type TransportOptions } from '../daemon/transport/options.ts';
import { Penalty } from '../daemon/transport/penalties.ts';
import { FrameQueue } from '../daemon/transport/queue.ts';
import { asEpoch, asHash, asReplicaId, type ReplicaId } from '../protocol/types.ts';
import { decodeFrame } from '../protocol/wire/frame.ts';
import { fc } from './property.ts';
import {
  alive,
  type Claim,
  chainId,
  client,
  type Ended,
  frame,
  handshakeOf,
  keyOf,
  memberKey,
  Node,
  numberOf,
  one,
  pair,
  Stranger,
  seal,
  shake,
  signer,
  three,
  two,
  zero,
} from './transport-world.ts';

// ---- the other process ------------------------------------------------------------------------------------------------------

const childPort = process.env.SYNOD_TRANSPORT_TEST_PORT;
if (childPort !== undefined) {
  // Replica 1 in a process of its own: echoes every frame. Dials nobody: what comes back, comes because 0 dialled.
  const node = await Node.open(one, [], { port: Number(childPort) });
  node.onFrame = (from, bytes) => node.transport.send(from, bytes, 'vote');
  process.send?.({ port: node.port });
  process.on('disconnect', () => process.exit(0));
} else {
  tests();
}

async function spawn(port: number): Promise<{ readonly port: number; kill(): void; stop(): void; go(): void }> {
  const child = fork(fileURLToPath(import.meta.url), {
    env: { ...process.env, SYNOD_TRANSPORT_TEST_PORT: String(port) },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    execArgv: process.execArgv,
  });
  // The test runner may speak on the same channel.
  const found = await new Promise<number>((resolve) => {
    child.on('message', (message: unknown) => {
      if (typeof message === 'object' && message !== null && 'port' in message) resolve(Number(message.port));
    });
  });
  return {
    port: found,
    kill: () => child.kill('SIGKILL'),
    stop: () => child.kill('SIGSTOP'),
    go: () => child.kill('SIGCONT'),
  };
}

// ---- the tests --------------------------------------------------------------------------------------------------------------

function tests(): void {
  // Of the whole file, on a busy machine; alone it takes ten seconds.
  t.setTimeout(180_000);

  t.test('two replicas prove their keys to each other and exchange frames on both lanes, in order', async (t) => {
    const [a, b] = await pair();
    t.same(a.transport.connectedPeers(), [one]);
    t.same(b.transport.connectedPeers(), [zero]);
    const count = 5000;
    for (let i = 0; i < count; i++) {
      a.transport.send(one, frame(i), 'vote');
      b.transport.send(zero, frame(i), 'vote');
      if (i % 10 === 0) a.transport.send(one, frame(1_000_000 + i, 20_000), 'bulk');
    }
    await a.until('all votes', () => a.frames.length === count);
    await b.until('all frames', () => b.frames.length === count + count / 10);
    const votes = b.frames.map(({ bytes }) => numberOf(bytes)).filter((n) => n < 1_000_000);
    const bulk = b.frames.map(({ bytes }) => numberOf(bytes)).filter((n) => n >= 1_000_000);
    t.same(
      votes,
      Array.from({ length: count }, (_, i) => i),
    );
    t.same(
      bulk,
      Array.from({ length: count / 10 }, (_, i) => 1_000_000 + i * 10),
    );
    const pinned = (bytes: Bytes): number => bytes.buffer.byteLength - 2 * bytes.length;
    t.ok(
      b.frames.every(({ bytes }) => pinned(bytes) <= Buffer.poolSize),
      'no small frame pins a read buffer',
    );
    a.transport.send(one, new Uint8Array(1 << 20), 'bulk');
    await b.until('the largest frame', () => b.frames.at(-1)?.bytes.length === 1 << 20);
    a.transport.send(three, frame(1), 'vote');
    await a.until('the drop counted', () => a.count('synod_transport_frames_dropped_total vote') === 1);
    await Promise.all([a.close(), b.close()]);
    t.same(a.events, ['connected 1', 'disconnected 1']);
  });

  t.test('both dial at once: one connection per lane is left, and both agree which', async (t) => {
    // Ports first, so that everyone knows everyone's address.
    const found = await Promise.all([zero, one, two, three].map((id) => Node.open(id)));
    const ports = found.map((node) => node.port);
    await Promise.all(found.map((node) => node.close()));
    const ids = [zero, one, two, three];
    const options = { secondDialMs: 0 };
    const nodes = await Promise.all(
      ids.map((id) => {
        const peers = ids.filter((peer) => peer !== id).map((peer) => [peer, ports[peer]!] as const);
        return Node.open(id, peers, { port: ports[id]!, options });
      }),
    );
    const settled = (node: Node): boolean => node.transport.connectedPeers().length === 3;
    await Promise.all(nodes.map((node) => node.until('three peers', () => settled(node))));
    // A connection that lost may still be saying goodbye: 2 lanes to 3 peers, each counted where it came in.
    const incoming = (): number =>
      nodes.reduce((sum, node) => sum + (node.gauges.get('synod_transport_connections') ?? 0), 0);
    await nodes[0]!.until('12 connections in all', () => incoming() === 12 && nodes.every(settled));
    const sent = frame(42);
    const before = new Uint8Array(sent);
    for (const lane of ['vote', 'bulk'] as const) nodes[0]!.transport.broadcast(sent, lane);
    for (const node of nodes.slice(1)) await node.until('a broadcast', () => node.frames.length === 2);
    t.ok(nodes.slice(1).every((node) => node.frames.every(({ bytes }) => equalBytes(bytes, before))));
    t.ok(equalBytes(sent, before), 'masking left the shared buffer as it was');
    await Promise.all(nodes.map((node) => node.close()));
  });

  t.test('handshakes that are refused, each with its code', async (t) => {
    const node = await Node.open(zero);
    const refusal = async (claim: Claim, path = '/peer/vote'): Promise<string> => {
      const stranger = new Stranger(node.port, path);
      await shake(stranger, claim);
      return (await stranger.ended).reason;
    };
    const key = memberKey(one);
    t.equal(await refusal({ key: keyOf('nobody') }), 'handshake-not-a-member');
    t.equal(await refusal({ key, chain: asHash(new Uint8Array(32).fill(8)) }), 'handshake-chain');
    t.equal(await refusal({ key: keyOf('nobody'), sender: key.publicKey }), 'handshake-signature', 'another’s name');
    t.equal(
      await refusal({ key: memberKey(two), sender: key.publicKey }),
      'handshake-signature',
      'a member as another',
    );
    t.equal(await refusal({ key: memberKey(zero) }), 'handshake-self');
    t.equal(await refusal({ key }, '/client'), 'role-path');
    t.equal(await refusal({ key: keyOf('c'), role: 'client' }, '/peer/vote'), 'role-path');

    const garbage = new Stranger(node.port, '/peer/vote');
    await garbage.open();
    garbage.send(Uint8Array.of(1, 2, 3));
    t.equal((await garbage.ended).reason, 'frame-malformed');

    // Every frame of a handshake that went well, once more.
    const good = new Stranger(node.port, '/peer/vote');
    await shake(good, { key });
    await node.until('1 up', () => node.seen('connected 1') === 1);
    const replay = new Stranger(node.port, '/peer/vote');
    await replay.open();
    for (const bytes of good.sent) replay.send(bytes);
    t.equal((await replay.ended).reason, 'handshake-transcript');

    // Its own words, sent back: as the one who calls, and as the one who is called.
    const mirror = new Stranger(node.port, '/peer/vote');
    await mirror.open();
    mirror.send(good.sent[0]!);
    mirror.send((await mirror.receive())!);
    t.equal((await mirror.ended).reason, 'handshake-order');
    t.equal(node.seen('connected 1'), 1, 'none of them came in');
    t.ok(node.count('synod_transport_handshakes_refused_total in handshake-chain') >= 0);
    await node.until(
      'counted',
      () => node.count('synod_transport_handshakes_refused_total in handshake-signature') === 2,
    );
    await node.close();
  });

  t.test('a member in the middle cannot pass one replica off as itself, nor itself as another', async (t) => {
    // 0 calls 2, whose address belongs to the man in the middle: he is member 1, and calls 3 with what he hears.
    const victim = await Node.open(three);
    const middle = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    await new Promise((resolve) => middle.once('listening', resolve));
    const address = middle.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;

    // (a) He forwards everything: 0 hears 3 where it expects 2.
    middle.on('connection', (ws, request) => {
      if (request.url !== '/peer/vote') {
        ws.close();
        return;
      }
      const onward = new Stranger(victim.port, '/peer/vote');
      ws.on('message', async (data: Buffer) => {
        if (onward.ws.readyState !== WebSocket.OPEN) await onward.open();
        onward.ws.send(data);
      });
      onward.ws.on('message', (data: Buffer) => ws.send(data));
      ws.on('error', () => {});
    });
    const caller = await Node.open(zero, [[two, port]]);
    await caller.until(
      'refused',
      () => caller.count('synod_transport_handshakes_refused_total out handshake-unexpected-peer') > 0,
    );
    await caller.close();

    // (b) 0 calls him under his own name; he uses 0's hello and 0's auth on 3.
    middle.removeAllListeners('connection');
    const him: Claim = { key: memberKey(one) };
    const verdict = new Promise<string>((resolve) => {
      // One that (a) had dialled may still come, and says nothing.
      middle.on('connection', (ws) => {
        const onward = new Stranger(victim.port, '/peer/vote');
        onward.ended.then(({ reason }) => {
          if (reason !== '') resolve(reason);
        });
        const own = handshakeOf(him, 'responder');
        own.start();
        ws.on('error', () => {});
        ws.on('message', async (data: Buffer) => {
          if (onward.ws.readyState !== WebSocket.OPEN) await onward.open();
          onward.send(new Uint8Array(data));
          const decoded = decodeFrame(new Uint8Array(data));
          if ('refused' in decoded || decoded.kind !== 'hello') return;
          const step = own.receive(decoded);
          if ('refused' in step) return;
          // 3's answer to "0" first; then his own hello makes 0 speak its auth.
          await onward.receive();
          for (const message of step.send) ws.send(seal(message, him));
        });
      });
    });
    const caller2 = await Node.open(zero, [[one, port]]);
    t.equal(await verdict, 'handshake-transcript');
    t.equal(victim.events.length, 0);
    await Promise.all([caller2.close(), victim.close()]);
    middle.removeAllListeners('connection');

    // (c) He sends 0's own hello back to it.
    middle.on('connection', (ws) => ws.on('message', (data: Buffer) => ws.send(data)));
    const caller3 = await Node.open(zero, [[one, port]]);
    await caller3.until(
      'refused',
      () => caller3.count('synod_transport_handshakes_refused_total out handshake-self') > 0,
    );
    t.equal(caller3.events.length, 0);
    await caller3.close();
    middle.close();
  });

  t.test('a difference of epochs is no reason to part: the one behind has to catch up', async (t) => {
    const b = await Node.open(one, [], { epoch: 3 });
    const a = await Node.open(zero, [[one, b.port]], { epoch: 4 });
    await connectedAlive(a, b);
    t.pass();
    await Promise.all([a.close(), b.close()]);
  });

  t.test(
    '[EPO-22] another epoch: who stays keeps the connection under another number, who goes is cut off',
    async (t) => {
      const nodes = [await Node.open(zero), await Node.open(one), await Node.open(two)] as const;
      const [first, second, third] = nodes;
      t.teardown(() => Promise.all(nodes.map((node) => node.close())));
      const dialling = [
        [zero, first.port],
        [one, second.port],
        [two, third.port],
      ] as const;
      const epochOf = (self: ReplicaId, ids: readonly ReplicaId[]) => ({
        self: asReplicaId(ids.indexOf(self)),
        credentials: {
          crypto: native,
          chainId,
          epoch: () => asEpoch(1),
          members: () =>
            ids.map((id, place) => ({
              id: asReplicaId(place),
              name: `r${id}`,
              publicKey: memberKey(id).publicKey,
            })),
          isRetired: (other: Bytes) => equalBytes(other, memberKey(zero).publicKey),
          key: memberKey(self).publicKey,
          signStatement: signer(memberKey(self)),
        },
        peers: new Map(
          dialling
            .filter(([id]) => id !== self && ids.includes(id))
            .map(([id, port]) => [asReplicaId(ids.indexOf(id)), `ws://127.0.0.1:${port}`] as const),
        ),
      });
      const all = [zero, one, two];
      // They learn where the others are: whom they did not dial before is dialled.
      for (const [i, node] of nodes.entries()) node.enter(epochOf(all[i]!, all));
      for (const node of nodes) await node.until('both others', () => node.transport.connectedPeers().length === 2);
      await third.until('settled', () => third.seen('connected 1') > 0);
      const before = third.seen('connected 1');
      third.transport.broadcast(frame(1), 'vote');
      await second.until('it', () => second.frames.some(({ from }) => from === two));

      // The first one goes, so the others' numbers fall. One of them is late.
      third.enter(epochOf(two, [one, two]));
      await first.until('cut off', () => first.seen('disconnected 2') > 0);
      third.transport.broadcast(frame(2), 'vote');
      await second.until('in its own epoch', () => second.frames.filter(({ from }) => from === two).length === 2);
      second.enter(epochOf(one, [one, two]));
      third.transport.broadcast(frame(3), 'vote');
      second.transport.broadcast(frame(4), 'bulk');
      await second.until('under its new number', () => second.frames.some(({ from }) => from === one));
      await third.until('under its new number', () => third.frames.some(({ from }) => from === zero));
      t.strictSame(second.transport.connectedPeers(), [one]);
      t.strictSame(third.transport.connectedPeers(), [zero]);
      t.equal(third.seen('connected 1'), before);
      t.equal(third.seen('disconnected 0') + third.seen('disconnected 1'), 0);
      await first.until('refused from then on', () =>
        first.logs.some((line) => line.includes('handshake-key-retired')),
      );
    },
  );

  t.test('a stalled bulk lane delays no vote, holds no more than its bounds, and goes on afterwards', async (t) => {
    const bulk = { ...defaultOptions.bulk, queueFramesMax: 64, queueBytesMax: 8 << 20, socketBytesMax: 1 << 20 };
    const [a, b] = await pair({ bulk });
    b.overloaded = true;
    const block = new Uint8Array(512 << 10);
    for (let i = 0; i < 256; i++) a.transport.send(one, block, 'bulk');
    await a.until('drops', () => a.count('synod_transport_frames_dropped_total bulk') > 100);
    const started = performance.now();
    for (let i = 0; i < 100; i++) await alive(a, b);
    t.comment(`100 round trips beside a stalled bulk lane: ${(performance.now() - started).toFixed(0)} ms`);
    const held = a.gauges.get('synod_transport_queue_bytes 1 bulk') ?? 0;
    t.ok(held <= (8 << 20) + (2 << 20), `${held} bytes held`);
    const before = b.frames.filter(({ bytes }) => bytes.length === block.length).length;
    t.ok(before < 100, `${before} blocks arrived while it was overloaded`);
    b.overloaded = false;
    await b.until(
      'the rest',
      () => b.frames.filter(({ bytes }) => bytes.length === block.length).length >= before + 10,
    );
    t.same(a.events, ['connected 1']);
    await Promise.all([a.close(), b.close()]);
  });

  t.test('a killed replica is noticed at once, and found again when it is back', async (t) => {
    const first = await spawn(0);
    const a = await Node.open(zero, [[one, first.port]], { options: { pingIntervalMs: 100 } });
    await a.until('up', () => a.seen('connected 1') === 1);
    a.transport.send(one, frame(1), 'vote');
    await a.until('echo', () => a.frames.length === 1);
    first.kill();
    await a.until('down', () => a.seen('disconnected 1') === 1);
    const second = await spawn(first.port);
    const back = performance.now();
    await a.until('up again', () => a.seen('connected 1') === 2);
    t.comment(`connected ${(performance.now() - back).toFixed(0)} ms after the other was back`);
    a.transport.send(one, frame(2), 'vote');
    await a.until('echo', () => a.frames.length === 2);

    // A process that hangs is silent: it does not close anything.
    second.stop();
    a.transport.send(one, frame(3), 'vote');
    const impatient = await Node.open(two, [[one, first.port]], {
      options: { pingIntervalMs: 100, vote: { ...defaultOptions.vote, silenceMsMax: 400 } },
    });
    second.go();
    await impatient.until('up', () => impatient.seen('connected 1') === 1);
    second.stop();
    await impatient.until('down', () => impatient.seen('disconnected 1') === 1);
    t.ok(impatient.logs.some((line) => line.includes('silent')));
    second.go();
    await impatient.until('up again', () => impatient.seen('connected 1') === 2);
    second.kill();
    await Promise.all([a.close(), impatient.close()]);
  });

  t.test('a replica that stood still blames itself before its peers', async (t) => {
    const [a, b] = await pair({ pingIntervalMs: 100, vote: { ...defaultOptions.vote, silenceMsMax: 400 } });
    const until = performance.now() + 1000;
    while (performance.now() < until);
    await alive(a, b);
    await a.until('swept', () => true);
    t.same(a.events, ['connected 1']);
    await Promise.all([a.close(), b.close()]);
  });

  t.test('who dials when the other has no address, and which of two connections stays', async (t) => {
    // Only the higher id knows an address.
    const a = await Node.open(zero, [], { options: { connectionMsMin: 0 } });
    const b = await Node.open(one, [[zero, a.port]]);
    await a.until('up', () => a.seen('connected 1') === 1);
    await b.until('up', () => b.seen('connected 0') === 1);
    // 1 dials once more: it would not, if its first one lived.
    const again = new Stranger(a.port, '/peer/vote');
    await shake(again, { key: memberKey(one) });
    await a.until('replaced', () => a.seen('connected 1') === 2);
    t.same(a.events.slice(0, 3), ['connected 1', 'disconnected 1', 'connected 1']);
    await Promise.all([a.close(), b.close()]);

    // Not as often as it likes.
    const e = await Node.open(zero, [], { options: { connectionMsMin: 60_000 } });
    const first = new Stranger(e.port, '/peer/vote');
    await shake(first, { key: memberKey(one) });
    await e.until('up', () => e.seen('connected 1') === 1);
    const second = new Stranger(e.port, '/peer/vote');
    await shake(second, { key: memberKey(one) });
    t.equal((await second.ended).reason, 'too-soon');
    t.same(e.events, ['connected 1']);
    await e.close();

    // 0 dialled: its connection stays, if it answers.
    const [c, d] = await pair();
    const late = new Stranger(c.port, '/peer/vote');
    await shake(late, { key: memberKey(one) });
    t.equal((await late.ended).reason, 'duplicate');
    await alive(c, d);
    t.same(c.events, ['connected 1']);
    await Promise.all([c.close(), d.close()]);
  });

  t.test('an old connection that is dead without knowing makes room when its peer comes back', async (t) => {
    const child = await spawn(0);
    const a = await Node.open(zero, [[one, child.port]], { options: { probeMsMax: 200 } });
    await a.until('up', () => a.seen('connected 1') === 1);
    // Frozen, as if its host had lost power: no FIN, no answer.
    child.stop();
    const back = new Stranger(a.port, '/peer/vote');
    await shake(back, { key: memberKey(one) });
    t.equal((await back.ended).reason, 'duplicate');
    await a.until('the old one gone', () => a.seen('disconnected 1') === 1);
    t.ok(a.logs.some((line) => line.includes('probe-unanswered')));
    const next = new Stranger(a.port, '/peer/vote');
    await shake(next, { key: memberKey(one) });
    await a.until('up', () => a.seen('connected 1') === 2);
    child.kill();
    await a.close();
  });

  t.test('punish: out at once, refused for a while that grows, then back', async (t) => {
    const [a, b] = await pair({ punishMsMin: 300, backoffMsMin: 10, backoffMsMax: 50 });
    let since = performance.now();
    a.transport.punish(one, 'bad-signature\n\u001b[31m');
    a.transport.punish(one, 'once more, in the same breath');
    await a.until('down', () => a.seen('disconnected 1') === 1);
    const knock = new Stranger(a.port, '/peer/vote');
    await shake(knock, { key: memberKey(one) });
    t.equal((await knock.ended).reason, 'peer-punished');
    await a.until('back', () => a.seen('connected 1') === 2);
    const first = performance.now() - since;
    t.ok(first >= 295, `refused for ${first} ms`);
    since = performance.now();
    a.transport.punish(one, 'bad-signature');
    await a.until('back', () => a.seen('connected 1') === 3);
    const second = performance.now() - since;
    t.ok(second >= 595, `refused for ${second} ms`);
    t.ok(
      b.logs.some((line) => line.includes('bad-signature')),
      'the other side can tell why',
    );
    t.notOk(
      a.logs.some((line) => /[^\x20-\x7e]|\\n|\\u001b/.test(line)),
      'and no control character got into a log',
    );
    await Promise.all([a.close(), b.close()]);
  });

  t.test('clients: their key, their frames, both pressures', async (t) => {
    const client0 = { ...defaultOptions.client, socketBytesMax: 4 << 20 };
    const node = await Node.open(zero, [], { options: { client: client0 } });
    const stranger = await client(node);
    const door = node.clients[0]!;
    t.ok(equalBytes(door.socket.clientKey, keyOf('client').publicKey));
    for (let i = 0; i < 100; i++) stranger.send(frame(i));
    await node.until('frames', () => door.frames.length === 100);
    t.same(
      door.frames.map(numberOf),
      Array.from({ length: 100 }, (_, i) => i),
    );
    door.socket.send(frame(7));
    t.equal(numberOf((await stranger.receive())!), 7);

    // Not read while paused: what arrives is what had been read, not what was sent.
    door.socket.pause();
    for (let i = 0; i < 200; i++) stranger.send(new Uint8Array(100_000));
    await node.until('nothing more', () => true);
    t.ok(door.frames.length < 150);
    door.socket.resume();
    await node.until('the rest', () => door.frames.length === 300);

    // A reader that stalls costs the bound, and then its connection.
    stranger.ws.pause();
    let sent = 0;
    while (!door.closed && sent < 1000) {
      door.socket.send(new Uint8Array(64 << 10));
      sent += 1;
      if (sent % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await node.until('ended', () => door.closed);
    t.ok(door.socket.bufferedBytes <= (4 << 20) + (1 << 20));
    stranger.ws.terminate();

    const polite = await client(node, 'polite');
    node.clients[1]!.socket.close('client-quota');
    t.same(await polite.ended, { code: 1008, reason: 'client-quota' });
    await node.close();
  });

  t.test('floods, half frames and stalls end the one connection, and the others do not feel it', async (t) => {
    const options: Partial<TransportOptions> = {
      handshakeMsMax: 600,
      unauthenticatedMax: 32,
      unauthenticatedPerAddressMax: 16,
      ingressGraceMs: 200,
      pingIntervalMs: 100,
      client: { ...defaultOptions.client, silenceMsMax: 600 },
    };
    const [a, b] = await pair(options);
    const ended = async (name: string, attack: (s: Stranger) => void | Promise<void>): Promise<Ended> => {
      // Its own pongs would end its half frames.
      const stranger = await client(a, name, { autoPong: false });
      await attack(stranger);
      const outcome = await stranger.ended;
      await alive(a, b);
      return outcome;
    };

    t.same(await ended('text', (s) => s.ws.send('hello')), { code: 1003, reason: 'text-refused' });
    t.match(await ended('oversize', (s) => s.send(new Uint8Array((1 << 20) + 8192))), { code: 1009 });
    t.match(await ended('claims much', (s) => void s.socket.write(Buffer.from('82ff0000000200000000000000', 'hex'))), {
      code: 1009,
    });
    t.match(
      await ended('fragments', (s) => {
        for (let i = 0; i < 100; i++) s.ws.send(new Uint8Array(10), { fin: false });
      }),
      { code: 1008 },
    );
    t.match(
      await ended('ping flood', (s) => {
        for (let i = 0; i < 1000; i++) s.ws.ping('x');
      }),
      { code: 1006 },
    );
    // A header that promises 60,000 bytes, then a byte now and then, pings between them.
    const dribble = (s: Stranger, header: string): void => {
      s.socket.write(Buffer.from(header, 'hex'));
      const timer = setInterval(() => s.socket.write(Uint8Array.of(1)), 20);
      s.ended.then(() => clearInterval(timer));
    };
    t.match(await ended('slow-loris', (s) => dribble(s, '82feea6000000000')), { code: 1006 });
    t.match(await ended('half header', (s) => void s.socket.write(Uint8Array.of(0x82))), { code: 1006 });
    t.match(await ended('half ping', (s) => void s.socket.write(Uint8Array.of(0x89, 0xfd))), { code: 1006 });
    t.match(await ended('answers no ping', () => {}), { code: 1006 });

    const early = new Stranger(a.port, '/client');
    await early.open();
    early.ws.send(new Uint8Array(500_000));
    t.match(await early.ended, { code: 1006 }, 'a large message before the handshake');
    const mute = new Stranger(a.port, '/client');
    await mute.open();
    t.match(await mute.ended, { code: 1006 }, 'no handshake in time');
    await a.until('counted', () => a.count('synod_transport_connections_refused_total handshake-timeout') > 0);

    // A flood of sockets that say nothing, or half a request, from one other address.
    const flood: Socket[] = [];
    const closed: Promise<void>[] = [];
    for (let i = 0; i < 400; i++) {
      const socket = connect({ port: a.port, host: '127.0.0.1', localAddress: '127.0.0.2' });
      flood.push(socket);
      closed.push(new Promise((resolve) => socket.once('close', () => resolve())));
      socket.on('error', () => {});
      if (i % 2 === 0) socket.write('GET /peer/vote HTTP/1.1\r\nHost: x\r\nUpgr');
    }
    await alive(a, b);
    await a.until(
      'most of them gone',
      () => a.count('synod_transport_connections_refused_total address-unauthenticated-max') >= 384,
    );
    t.ok((a.gauges.get('synod_transport_connections_unauthenticated') ?? 0) <= 32);
    const during = await client(a, 'a client in the flood');
    await Promise.all(closed);
    await alive(a, b);
    during.ws.terminate();
    t.same(a.events, ['connected 1']);
    t.same(b.events, ['connected 0']);
    await Promise.all([a.close(), b.close()]);
  });

  t.test('clients that hold back the ends of large messages do not fill the memory together', async (t) => {
    const node = await Node.open(zero, [], { options: { clientUnfinishedBytesMax: 1_350_000 } });
    const sizes = [200_000, 300_000, 400_000, 500_000];
    const strangers: Stranger[] = [];
    for (const size of sizes) {
      const stranger = await client(node, `holds ${size}`, { autoPong: false });
      strangers.push(stranger);
      // A message of 1,000,000 bytes, masked with zeros.
      stranger.socket.write(Buffer.from('82ff00000000000f424000000000', 'hex'));
      stranger.socket.write(new Uint8Array(size));
    }
    const ended = strangers.map(({ ended }, i) => ended.then(() => sizes[i]!));
    t.equal(await Promise.race(ended), 500_000, 'the largest goes');
    await node.until('ended', () => node.clients[3]!.closed);
    t.equal(node.clients.filter(({ closed }) => closed).length, 1, 'and it alone');
    for (const stranger of strangers) stranger.ws.terminate();
    await node.close();
  });

  const skip = spawnSync('openssl', ['version']).status === 0 ? false : 'needs openssl to make a certificate';
  t.test(
    'TLS, where the operator wants it: the certificate is checked, the handshake is the same',
    { skip },
    async (t) => {
      const folder = t.testdir();
      const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
      spawnSync('openssl', [
        ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=synod'.split(' '),
        ...['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
      ]);
      const [keyText, certText] = [readFileSync(key, 'utf8'), readFileSync(cert, 'utf8')];
      const b = await Node.open(one, [], { tls: { key: keyText, cert: certText } });
      const a = await Node.open(zero, [[one, b.port]], { ca: certText });
      await connectedAlive(a, b);
      const distrustful = await Node.open(two, [[one, b.port]], { ca: '' });
      await distrustful.until('refused', () => distrustful.logs.some((line) => line.includes('self-signed')));
      t.same(b.events, ['connected 0']);
      await Promise.all([a.close(), b.close(), distrustful.close()]);
    },
  );

  t.test('a peer that floods waits in its own buffers; the other peers do not', async (t) => {
    const vote = { ...defaultOptions.vote, ingressFramesPerSecondMax: 2000 };
    const a = await Node.open(zero, [], { options: { vote } });
    const flooder = await Node.open(one, [[zero, a.port]]);
    const honest = await Node.open(two, [[zero, a.port]]);
    for (const node of [flooder, honest]) await node.until('up', () => node.seen('connected 0') === 1);
    for (let i = 0; i < 8000; i++) flooder.transport.send(zero, frame(i), 'vote');
    honest.transport.send(zero, frame(77), 'vote');
    await a.until('the honest one', () => a.frames.some(({ from }) => from === two));
    t.ok(a.frames.filter(({ from }) => from === one).length < 8000, 'before the flood is through');
    await a.until('all of it, later', () => a.frames.filter(({ from }) => from === one).length === 8000);
    await a.until('counted', () => a.count('synod_transport_throttled_total vote') > 0);
    t.same(
      a.events.filter((event) => event.startsWith('disconnected')),
      [],
    );
    await Promise.all([a.close(), flooder.close(), honest.close()]);
  });

  t.test('plain HTTP is told to upgrade, other paths are not found, garbage is cut off', async (t) => {
    const node = await Node.open(zero);
    const status = (path: string, headers: Record<string, string> = {}): Promise<number> =>
      new Promise((resolve, reject) => {
        const req = request({ host: '127.0.0.1', port: node.port, path, headers }, (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        });
        req.on('error', reject);
        req.end();
      });
    t.equal(await status('/'), 426);
    const upgrade = { connection: 'upgrade', upgrade: 'websocket' };
    t.equal(await status('/metrics', upgrade), 404);
    t.equal(await status('/peer/vote', upgrade), 400);
    await t.rejects(status('/', { 'x-long': 'x'.repeat(20_000) }));
    const garbage = connect(node.port, '127.0.0.1');
    garbage.write('\x16\x03\x01 no HTTP at all\r\n\r\n');
    await new Promise((resolve) => garbage.once('close', resolve));
    await node.close();
  });

  t.test('an address that is taken, an address that is none', async (t) => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
    const address = holder.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await t.rejects(Node.open(zero, [], { port }), { code: 'EADDRINUSE' });
    holder.close();
    const wrong = Node.open(zero, [[one, Number.NaN]]);
    await t.rejects(wrong, TypeError);
  });

  t.test('the parts: queue, meter, back-off, penalties, addresses, texts', (t) => {
    const queue = new FrameQueue({ framesMax: 3, bytesMax: 1000 });
    t.same(
      [1, 2, 3, 4].map((n) => queue.push(frame(n))),
      [0, 0, 0, 1],
    );
    t.equal(numberOf(queue.shift()!), 2, 'the oldest went');
    t.equal(queue.push(frame(5, 900)), 2);
    t.equal(queue.push(frame(6, 2000)), 2, 'what fits never is dropped itself');
    t.same([queue.size, queue.bytes, queue.shift()], [0, 0, undefined]);

    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            size: fc.integer({ min: 0, max: 70_000 }),
            fin: fc.boolean(),
            ping: fc.boolean(),
            masked: fc.boolean(),
          }),
        ),
        fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1 }),
        (specs, cuts) => {
          const meter = new FrameMeter();
          const stream = Buffer.concat(specs.map(wsFrame));
          for (let at = 0, i = 0; at < stream.length; i++) {
            const end = Math.min(stream.length, at + cuts[i % cuts.length]!);
            meter.push(stream.subarray(at, end), 0);
            at = end;
          }
          const lastFin = specs.findLastIndex(({ ping, fin }) => !ping && fin);
          const open = specs.slice(lastFin + 1).filter(({ ping }) => !ping);
          const bytes = open.reduce((sum, { size }) => sum + size, 0);
          return (
            meter.controlFrames === specs.filter(({ ping }) => ping).length &&
            meter.messageBytes === bytes &&
            meter.tooSlow(1000, 1e9, 0) === open.length > 0
          );
        },
      ),
      { numRuns: 200 },
    );

    const backoff = new Backoff({ backoffMsMin: 50, backoffMsMax: 5000 }, () => 0.5);
    t.same(
      Array.from({ length: 10 }, () => backoff.next()),
      [0, 37.5, 75, 150, 300, 600, 1200, 2400, 3750, 3750],
    );
    const penalty = new Penalty({ punishMsMin: 10, punishMsMax: 35, punishForgetMs: 1000 });
    t.same(
      [penalty.strike(0), penalty.strike(4), penalty.strike(10), penalty.strike(30), penalty.remaining(70)],
      [10, 6, 20, 35, 0],
    );
    t.equal(penalty.strike(2000), 10);

    t.equal(addressGroup('::ffff:10.0.0.1'), '10.0.0.1');
    t.equal(addressGroup('2001:DB8::1'), '2001:0db8:0000:0000/64');
    t.equal(addressGroup('2001:db8:1:2:3:4:5:6'), '2001:0db8:0001:0002/64');
    t.equal(addressGroup('::1'), '0000:0000:0000:0000/64');
    t.equal(addressGroup('fe80::1%eth0'), 'fe80:0000:0000:0000/64');
    t.equal(printable('a\n\u001b[31mb\u202e'), 'a??[31mb?');
    t.equal(printable('x'.repeat(1000)).length, 120);
    t.end();
  });
}

async function connectedAlive(a: Node, b: Node): Promise<void> {
  await a.until('1 up', () => a.seen('connected 1') > 0);
  await alive(a, b);
}

function wsFrame(spec: {
  readonly size: number;
  readonly fin: boolean;
  readonly ping: boolean;
  readonly masked: boolean;
}): Buffer {
  const { fin, ping, masked } = spec;
  const size = ping ? spec.size % 126 : spec.size;
  const head = ping ? 0x89 : fin ? 0x82 : 0x02;
  const mask = masked ? 0x80 : 0;
  const length =
    size < 126
      ? Buffer.of(mask | size)
      : size < 65_536
        ? Buffer.of(mask | 126, size >> 8, size & 0xff)
        : Buffer.of(mask | 127, 0, 0, 0, 0, 0, size >> 16, (size >> 8) & 0xff, size & 0xff);
  return Buffer.concat([Buffer.of(head), length, Buffer.alloc(masked ? 4 : 0, 9), Buffer.alloc(size, 1)]);
}
