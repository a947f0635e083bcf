// One commit without a protocol: the same 5 hops, 2 synced writes and signatures between n processes and a client, over the same
// sockets, and nothing else. What the parts cost one after the other is one floor; what n of them cost on this machine's cores, where
// messages of all to all take turns, is this one.

import { fdatasyncSync, openSync, writeSync } from 'node:fs';
import WebSocket, { type RawData, WebSocketServer } from 'ws';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asHash, type Hash } from '../protocol/types.ts';
import { Histogram, type Quantiles } from './histogram.ts';

export type ExchangeTask =
  | {
      readonly kind: 'exchange-replica';
      readonly index: number;
      readonly ports: readonly number[];
      readonly path: string;
    }
  | { readonly kind: 'exchange-client'; readonly ports: readonly number[]; readonly ms: number };

/** As long as a small vote in its frame, a bundle of one small transaction, a block with that. */
const frameBytes = 200;
const recordBytes = 1024;
const kinds = { bundle: 0, proposal: 1, prepare: 2, commit: 3, receipt: 4 } as const;
type Kind = (typeof kinds)[keyof typeof kinds];

export function exchange(task: ExchangeTask): Promise<unknown> {
  return task.kind === 'exchange-replica' ? replica(task) : client(task);
}

/** Whatever is signed is signed by one key, known to all: it costs what it costs with keys of their own. */
const secret = SecretKey.fromSeed(new Uint8Array(32).fill(7));
const chainId = asHash(native.sha256(secret.publicKey));
const signer = clientSigner(secret, chainId);

/** Byte 0 the kind, 4 bytes the round, 64 the signature of both. */
function signedFrame(kind: Kind, round: number): Buffer {
  const frame = Buffer.alloc(frameBytes);
  frame[0] = kind;
  frame.writeUInt32BE(round, 1);
  frame.set(signer.signBundle(digestOf(frame)), 5);
  return frame;
}

const roundOf = (frame: Buffer): number => frame.readUInt32BE(1);
const digestOf = (frame: Bytes): Hash => asHash(native.sha256(frame.subarray(0, 5)));

function assertSigned(frame: Bytes): void {
  const message = bundleSigningBytes(chainId, digestOf(frame));
  if (!native.verify(secret.publicKey, message, frame.subarray(5, 69)))
    throw new Error('bench: a frame of the exchange is not sound');
}

/** Runs until its parent kills it. */
async function replica({ index, ports, path }: Extract<ExchangeTask, { kind: 'exchange-replica' }>): Promise<never> {
  const { quorum } = byzantineQuorums(ports.length);
  const fd = openSync(path, 'w', 0o600);
  const record = new Uint8Array(recordBytes);
  let written = 0;
  const write = () => {
    writeSync(fd, record, 0, recordBytes, written);
    written += recordBytes;
    fdatasyncSync(fd);
  };
  const peers: WebSocket[] = [];
  const toAll = (frame: Bytes) => {
    for (const peer of peers) peer.send(frame, { binary: true });
  };
  const isPrimary = index === 0;
  let round = 0;
  /** Prepares and commits of `round`, own ones too; and whether the own one is durable. */
  let heard = { prepares: 0, commits: 0, prepared: false, done: false };
  /** Of rounds that this replica has not been told of yet: others may be faster. */
  let early: Buffer[] = [];
  function begin(next: number): void {
    round = next;
    heard = { prepares: 0, commits: 0, prepared: false, done: false };
  }
  function onFrame(data: RawData): void {
    const frame = data as Buffer; // binaryType is nodebuffer, the default
    const kind = frame[0] as Kind;
    const of = roundOf(frame);
    if (kind === kinds.bundle || kind === kinds.proposal) {
      assertSigned(frame);
      if (kind === kinds.proposal) assertSigned(frame); // the bundle in it
      begin(of);
      // A proposal is a prepare.
      const own = signedFrame(isPrimary ? kinds.proposal : kinds.prepare, of);
      if (isPrimary) toAll(own);
      write();
      if (!isPrimary) toAll(own);
      heard.prepares += isPrimary ? 1 : 2;
      const waiting = early.filter((each) => roundOf(each) === of);
      early = early.filter((each) => roundOf(each) > of);
      advance();
      for (const each of waiting) onVote(each);
    } else if (of > round) early.push(frame);
    else if (of === round) onVote(frame);
  }
  function onVote(frame: Buffer): void {
    // Nobody has to look at what comes after a quorum.
    if (frame[0] === kinds.prepare && heard.prepares < quorum) {
      assertSigned(frame);
      heard.prepares += 1;
    } else if (frame[0] === kinds.commit && heard.commits < quorum && !heard.done) {
      assertSigned(frame);
      heard.commits += 1;
    }
    advance();
  }
  function advance(): void {
    if (!heard.prepared && heard.prepares >= quorum) {
      heard.prepared = true;
      write();
      heard.commits += 1;
      toAll(signedFrame(kinds.commit, round));
    }
    if (heard.prepared && !heard.done && heard.commits >= quorum) {
      heard.done = true;
      clientSocket?.send(signedFrame(kinds.receipt, round), { binary: true });
    }
  }
  const server = new WebSocketServer({ host: '127.0.0.1', port: ports[index]!, perMessageDeflate: false });
  let clientSocket: WebSocket | undefined;
  let ready = () => undefined;
  const allDialed = new Promise<void>((resolve) => {
    ready = () => void resolve();
  });
  server.on('connection', async (socket, { url }) => {
    socket.on('message', onFrame);
    if (url !== '/client') return;
    await allDialed;
    clientSocket = socket;
    socket.send(signedFrame(kinds.receipt, 0), { binary: true });
  });
  for (const [i, port] of ports.entries()) if (i !== index) peers.push(await dial(`ws://127.0.0.1:${port}/peer`));
  ready();
  return new Promise(() => undefined);
}

/** In milliseconds: from the bundle to a receipt whose quorum of signatures is checked. */
async function client({ ports, ms }: Extract<ExchangeTask, { kind: 'exchange-client' }>): Promise<Quantiles> {
  const { quorum } = byzantineQuorums(ports.length);
  // A replica's first word: it is connected to all others.
  let onFrame = (_data: RawData): void => undefined;
  const readies: Promise<void>[] = [];
  const sockets = await Promise.all(
    ports.map((port) =>
      dial(`ws://127.0.0.1:${port}/client`, (socket) => {
        readies.push(new Promise((resolve) => socket.once('message', () => resolve())));
        socket.on('message', (data) => onFrame(data));
      }),
    ),
  );
  await Promise.all(readies);
  const histogram = new Histogram();
  // As long again before it, in which the code gets compiled.
  const warmUntil = performance.now() + ms;
  const until = warmUntil + ms;
  let round = 0;
  return await new Promise((resolve) => {
    let started = 0;
    const send = () => {
      started = performance.now();
      round += 1;
      sockets[0]!.send(signedFrame(kinds.bundle, round), { binary: true });
    };
    onFrame = (data) => {
      const frame = data as Buffer; // as above
      if (roundOf(frame) !== round) return;
      for (let i = 0; i < quorum; i++) assertSigned(frame); // its certificate
      const now = performance.now();
      if (now >= warmUntil) histogram.record(now - started);
      if (now < until) return send();
      round = -1;
      for (const socket of sockets) socket.terminate();
      resolve(histogram.quantiles());
    };
    send();
  });
}

const dialsMax = 200;

/** Until the other process listens. */
async function dial(url: string, prepare: (socket: WebSocket) => void = () => undefined): Promise<WebSocket> {
  for (let tried = 1; ; tried++) {
    const socket = new WebSocket(url, [], { perMessageDeflate: false });
    socket.on('open', () => prepare(socket));
    const problem = await new Promise<Error | null>((resolve) => {
      socket.once('open', () => resolve(null));
      socket.once('error', resolve);
    });
    if (problem === null) return socket;
    if (tried === dialsMax) throw problem;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
