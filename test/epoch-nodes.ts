// Nodes that serve one history through its epochs over real sockets, each under whatever key a test gives it, and as far behind as it says. What they
// serve is sound unless a test replaces it.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import { decodeFrame, decodeMessage, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type * as door from '../protocol/door.ts';
import { Handshake, type HandshakeMessage, type Peer } from '../protocol/handshake.ts';
import { Session } from '../protocol/session.ts';
import { asEpoch, asHash, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import { signingBytes } from '../protocol/verify.ts';
import { type EpochWorld, sha256 } from './epoch-world.ts';

export class EpochNode {
  readonly world: EpochWorld;
  key: SimulationKey;
  /** What it knows and serves; null: all of the history. */
  epoch: number | null = null;
  /** Bytes for a `query-epochs`, in place of the sound answer; null: none at all. */
  answer: ((query: door.QueryEpochs) => door.Epochs | Bytes | null) | undefined;
  /** A piece of the state, in place of the sound one. */
  changesChunk: (answer: door.StateHere) => door.StateHere | null = (same) => same;
  readonly heard: string[] = [];
  readonly submitted: Bytes[] = [];
  #server: WebSocketServer | null = null;
  #port = 0;
  readonly #doors = new Set<Door>();

  constructor(world: EpochWorld, key: SimulationKey) {
    this.world = world;
    this.key = key;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.#port}`;
  }

  get known(): number {
    return Math.min(this.epoch ?? Number.POSITIVE_INFINITY, this.world.epoch.epoch);
  }

  async start(): Promise<this> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: this.#port, perMessageDeflate: false });
    server.on('connection', (socket) => {
      const door = new Door(socket, this);
      this.#doors.add(door);
      socket.on('close', () => this.#doors.delete(door));
    });
    await once(server, 'listening');
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
    return this;
  }

  /** [EPO-23] Another key over the connections that it has; then, unless it is told not to, the links that say whose that is. */
  prove(key: SimulationKey, tells: 'links' | 'nothing' = 'links'): void {
    this.key = key;
    for (const each of this.#doors) each.prove(tells === 'links');
  }

  /** What proves nothing. */
  forge(key: SimulationKey): void {
    this.key = key;
    const transcript = asHash(new Uint8Array(32));
    for (const each of this.#doors) each.send({ kind: 'rekey', epoch: asEpoch(1), transcript });
  }

  /** [WIRE-35] As at the start of an epoch. */
  tellLinks(): void {
    for (const each of this.#doors) each.tellLinks();
  }

  /** As at the end of an epoch: everybody connects anew. */
  dropAll(): void {
    for (const socket of this.#server?.clients ?? []) socket.terminate();
    this.#doors.clear();
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    for (const socket of server.clients) socket.terminate();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** Something was decided. */
  pump(): void {
    for (const each of this.#doors) each.pump();
  }

  sound({ from }: door.QueryEpochs): door.Epochs {
    return { kind: 'epochs', from, links: this.world.links.slice(0, this.known).slice(from - 1, from + 63) };
  }
}

class Door {
  readonly #socket: WebSocket;
  readonly #node: EpochNode;
  readonly #handshake: Handshake;
  readonly #opened: (peer: Peer) => Session;
  #session: Session | null = null;
  #stream: { next: number; to: number; headersOnly: boolean; credit: number } | null = null;
  readonly #waiting = new Set<Bytes>();

  constructor(socket: WebSocket, node: EpochNode) {
    this.#socket = socket;
    this.#node = node;
    const { world, key, known } = node;
    const own = {
      crypto: native,
      chainId: world.genesis.chainId,
      epoch: world.documents[known]!.epoch,
      side: 'responder',
      key: key.publicKey,
    } as const;
    this.#opened = (peer) => new Session(own, peer);
    this.#handshake = new Handshake({
      ...own,
      members: world.documents[known]!.members,
      role: 'replica',
      nonce: globalThis.crypto.getRandomValues(new Uint8Array(32)),
      expected: null,
    });
    this.#handshake.start();
    socket.on('message', (data) => this.#received(data as Buffer));
    socket.on('error', () => socket.terminate());
  }

  prove(tells: boolean): void {
    const { world, known, key } = this.#node;
    // Without links it claims one that nobody knows.
    const epoch = asEpoch(world.documents[known]!.epoch + (tells ? 0 : 1));
    const message = this.#session?.renew({ key: key.publicKey, epoch }) ?? null;
    if (message === null) return;
    this.send(message);
    if (tells) this.tellLinks();
    this.send(this.#head());
  }

  tellLinks(): void {
    const { known } = this.#node;
    if (this.#session !== null)
      this.send(this.#node.sound({ kind: 'query-epochs', from: asEpoch(Math.max(1, known)) }));
  }

  #received(data: Buffer): void {
    const { world } = this.#node;
    const frame = decodeFrame(data);
    if (isRefusal(frame)) throw new Error(`a bad frame: ${frame.refused}`);
    if (this.#session === null) {
      const step = this.#handshake.receive(frame);
      if ('refused' in step) return this.#socket.close();
      for (const message of step.send) this.send(message);
      this.#session = step.peer === null ? null : this.#opened(step.peer);
      return;
    }
    const message = decodeMessage(frame, { sha256, parameters: world.epoch.parameters });
    if (isRefusal(message)) throw new Error(`a bad message: ${message.refused}`);
    this.#node.heard.push(message.kind);
    this.#hear(message as door.ClientMessage);
  }

  #hear(message: door.ClientMessage): void {
    const { world, answer } = this.#node;
    switch (message.kind) {
      case 'query-epochs': {
        const given = answer === undefined ? this.#node.sound(message) : answer(message);
        if (given instanceof Uint8Array) this.#sendPayload('epochs', given);
        else if (given !== null) this.send(given);
        return;
      }
      case 'query-head':
        return this.send(this.#head());
      case 'query-checkpoint': {
        const { state } = world;
        const proof = state && { checkpoint: state.certificate, headerBytes: state.headerBytes };
        return this.send({ kind: 'checkpoint-here', proof });
      }
      case 'query-state': {
        const given = this.#node.changesChunk(world.chunk(message));
        return given === null ? undefined : this.send(given);
      }
      case 'submit': {
        const { digest } = message.bundle;
        this.#waiting.add(digest);
        const isThere = world.blocks.some(({ block }) =>
          block.bundles.some((bundle) => equalBytes(bundle.digest, digest)),
        );
        if (!isThere) this.#node.submitted.push(digest);
        this.send({ kind: 'admissions', admissions: [{ digest, code: 'pooled', height: world.height }] });
        if (!isThere) world.onBundle?.(message.bundle);
        return this.pump();
      }
      case 'query-bundle':
        return this.pump();
      case 'follow':
        this.#stream = { ...message, next: message.from };
        return this.pump();
      case 'credit':
        if (this.#stream !== null) this.#stream.credit += message.blocks;
        return this.pump();
    }
  }

  #head(): door.Head {
    const { world, known } = this.#node;
    const tip = world.blocks.findLast(({ epoch }) => epoch.epoch <= known);
    return {
      kind: 'head',
      epoch: world.documents[known]!.epoch,
      view: asView(0),
      primary: asReplicaId(0),
      height: asHeight(tip?.block.header.height ?? 0),
      lowest: asHeight(1),
      certificate: tip?.certificate ?? null,
    };
  }

  pump(): void {
    const { world, known } = this.#node;
    for (const digest of this.#waiting) {
      const found = world.blocks.find(({ block }) => block.bundles.some((each) => equalBytes(each.digest, digest)));
      if (found === undefined || found.epoch.epoch > known) continue;
      this.#waiting.delete(digest);
      const { block, certificate } = found;
      const transactionCount = block.header.transactionCount;
      const { headerBytes } = block;
      const receipt = { digest: block.bundles[0]!.digest, headerBytes, links: [], certificate };
      this.send({
        kind: 'receipts',
        answer: null,
        receipts: [{ ...receipt, firstTransaction: 0, transactionCount, proof: [] }],
      });
    }
    for (let stream = this.#stream; stream !== null && stream.credit > 0; stream.credit--) {
      const found = world.blocks[stream.next - 1];
      if (found === undefined || found.epoch.epoch > known || (stream.to !== 0 && stream.next > stream.to)) return;
      const { block, certificate } = found;
      const bundles = stream.headersOnly
        ? null
        : block.bundles.map(({ payload, signature }) => ({ payload, signature }));
      stream.next += 1;
      this.send({ kind: 'follow-blocks', blocks: [{ headerBytes: block.headerBytes, bundles, certificate }] });
    }
  }

  send(message: door.DoorMessage | HandshakeMessage): void {
    this.#sendPayload(message.kind, encodePayload(message), message);
  }

  #sendPayload(
    kind: door.DoorMessage['kind'] | HandshakeMessage['kind'],
    payload: Bytes,
    message: object = { kind },
  ): void {
    const { key, world } = this.#node;
    const signature = key.sign(signingBytes(world.genesis.chainId, message as never, payload));
    this.#socket.send(encodeFrame({ kind, payload, sender: key.publicKey, signature }));
  }
}
