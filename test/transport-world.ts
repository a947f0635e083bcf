// Replicas' transports over real sockets for the tests, with all that each of them heard, and strangers who speak to them by hand. No fixed sleeps:
// every wait is for an event, with a deadline.

import { createHash, createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto';
import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { ClientEvents, ClientSocket } from '../daemon/transport/client.ts';
import type { TransportOptions } from '../daemon/transport/options.ts';
import { Transport, type TransportEpoch } from '../daemon/transport/peers.ts';
import {
  encodeHandshakePayload,
  Handshake,
  type HandshakeMessage,
  type Peer,
  type PeerRole,
} from '../protocol/handshake.ts';
import { asEpoch, asHash, asReplicaId, type Hash, type Member, type ReplicaId } from '../protocol/types.ts';
import { decodeFrame, encodeFrame, frameSigningBytes } from '../protocol/wire/frame.ts';

// ---- a world of four members --------------------------------------------------------------------------------------------

export interface Key {
  readonly secret: KeyObject;
  readonly publicKey: Bytes;
}

export function keyOf(name: string): Key {
  const seed = createHash('sha256').update(name).digest();
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
  const secret = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(-32);
  return { secret, publicKey: new Uint8Array(publicKey) };
}

export const chainId = asHash(new Uint8Array(32).fill(7));
export const [zero, one, two, three] = [asReplicaId(0), asReplicaId(1), asReplicaId(2), asReplicaId(3)];
export const memberKeys = new Map([zero, one, two, three].map((id) => [id, keyOf(`member ${id}`)]));
export const members: readonly Member[] = [...memberKeys].map(([id, { publicKey }]) => ({
  id,
  name: `r${id}`,
  publicKey,
}));
export const memberKey = (id: ReplicaId): Key => memberKeys.get(id)!;

export const signer =
  ({ secret }: Key, chain: Hash = chainId) =>
  (kind: string, payload: Bytes): Bytes =>
    // Cast: only handshake kinds get here.
    new Uint8Array(sign(null, frameSigningBytes(chain, kind as 'hello', payload), secret));

export const deadlineMs = 20_000;

/** Everything a node heard, and a way to wait for it. */
export class Node {
  readonly frames: { readonly from: ReplicaId; readonly bytes: Bytes; readonly key?: Bytes | undefined }[] = [];
  readonly events: string[] = [];
  readonly logs: string[] = [];
  readonly counts = new Map<string, number>();
  readonly gauges = new Map<string, number>();
  readonly clients: { readonly socket: ClientSocket; readonly frames: Bytes[]; closed: boolean }[] = [];
  readonly #waits = new Set<() => void>();
  onFrame: (from: ReplicaId, bytes: Bytes) => void = () => {};
  overloaded = false;
  transport!: Transport;

  static async open(
    self: ReplicaId,
    peers: readonly (readonly [ReplicaId, number])[] = [],
    more: {
      readonly options?: Partial<TransportOptions>;
      readonly port?: number;
      readonly epoch?: number;
      readonly chain?: Hash;
      readonly key?: Key;
      readonly tls?: { readonly key: string; readonly cert: string };
      /** Peers are dialled over wss://, and their certificates checked against this; empty: against the system's authorities. */
      readonly ca?: string;
    } = {},
  ): Promise<Node> {
    const node = new Node();
    const { options = {}, port = 0, epoch = 0, chain = chainId, key = memberKey(self), tls, ca } = more;
    const log = (level: string) => (fields: Readonly<Record<string, unknown>>, message: string) => {
      node.logs.push(`${level} ${message} ${JSON.stringify(fields)}`);
      node.#changed();
    };
    node.transport = await Transport.open({
      self,
      credentials: {
        crypto: native,
        chainId: chain,
        epoch: () => asEpoch(epoch),
        members: () => members,
        key: key.publicKey,
        signStatement: signer(key, chain),
      },
      listen: { host: '127.0.0.1', port, ...(tls === undefined ? {} : { tls }) },
      peers: new Map(peers.map(([id, at]) => [id, `${ca === undefined ? 'ws' : 'wss'}://127.0.0.1:${at}`])),
      ...(ca === undefined || ca === '' ? {} : { tls: { ca } }),
      events: {
        frame: (from, bytes, key) => {
          node.frames.push({ from, bytes, key });
          node.onFrame(from, bytes);
          node.#changed();
        },
        connected: (peer) => node.#event(`connected ${peer}`),
        disconnected: (peer) => node.#event(`disconnected ${peer}`),
      },
      onClient: (socket) => node.#client(socket),
      overloaded: () => node.overloaded,
      meter: {
        count: (name, labels = {}, by = 1) => {
          const id = [name, ...Object.values(labels)].join(' ');
          node.counts.set(id, (node.counts.get(id) ?? 0) + by);
          node.#changed();
        },
        gauge: (name, value, labels = {}) => {
          node.gauges.set([name, ...Object.values(labels)].join(' '), value);
          node.#changed();
        },
        observe: () => {},
      },
      log: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
      options: { sweepMs: 50, ...options },
    });
    return node;
  }

  get port(): number {
    return this.transport.port;
  }

  count(name: string): number {
    return this.counts.get(name) ?? 0;
  }

  seen(event: string): number {
    return this.events.filter((each) => each === event).length;
  }

  /** Resolves as soon as `holds` does; looks after every event. */
  until(what: string, holds: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (holds()) {
        resolve();
        return;
      }
      const timer = setTimeout(() => {
        this.#waits.delete(look);
        reject(
          new Error(`waited in vain for: ${what}; heard ${this.events.join(', ')}; ${this.logs.slice(-5).join(' | ')}`),
        );
      }, deadlineMs);
      const look = (): void => {
        if (!holds()) return;
        clearTimeout(timer);
        this.#waits.delete(look);
        resolve();
      };
      this.#waits.add(look);
    });
  }

  close(): Promise<void> {
    return this.transport.close();
  }

  /** The next epoch, with time for whoever comes and goes. */
  enter(epoch: TransportEpoch): void {
    this.transport.enter(epoch);
    this.transport.meet();
  }

  #event(event: string): void {
    this.events.push(event);
    this.#changed();
  }

  #client(socket: ClientSocket): ClientEvents {
    const client = { socket, frames: [] as Bytes[], closed: false };
    this.clients.push(client);
    this.#changed();
    return {
      frame: (bytes) => {
        client.frames.push(bytes);
        this.#changed();
      },
      drained: () => this.#changed(),
      closed: () => {
        client.closed = true;
        this.#changed();
      },
    };
  }

  #changed(): void {
    for (const look of [...this.#waits]) look();
  }
}

/** A connected pair; 0 dials 1. */
export async function pair(options: Partial<TransportOptions> = {}): Promise<readonly [Node, Node]> {
  const b = await Node.open(one, [], { options });
  const a = await Node.open(zero, [[one, b.port]], { options });
  await Promise.all([
    a.until('1 up', () => a.seen('connected 1') > 0),
    b.until('0 up', () => b.seen('connected 0') > 0),
  ]);
  return [a, b];
}

export function frame(number: number, size = 200): Bytes {
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

export const numberOf = (bytes: Bytes): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);

/** Votes go back and forth between the two: the link works, now. */
export async function alive(a: Node, b: Node): Promise<void> {
  const mark = Math.floor(Math.random() * 2 ** 32);
  b.onFrame = (from, bytes) => b.transport.send(from, bytes, 'vote');
  a.transport.send(one, frame(mark), 'vote');
  await a.until('an echo', () => a.frames.some(({ bytes }) => numberOf(bytes) === mark));
  b.onFrame = () => {};
}

// ---- whoever is not a node -------------------------------------------------------------------------------------------------

export interface Ended {
  readonly code: number;
  readonly reason: string;
}

/** Speaks WebSocket by hand: every frame it sends and every frame it got. */
export class Stranger {
  readonly ws: WebSocket;
  readonly got: Bytes[] = [];
  readonly sent: Bytes[] = [];
  readonly ended: Promise<Ended>;
  #waiting: ((bytes: Bytes) => void) | undefined;
  #taken = 0;

  constructor(
    port: number,
    path: string,
    options: { readonly localAddress?: string; readonly autoPong?: boolean } = {},
  ) {
    this.ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, { perMessageDeflate: false, ...options });
    this.ws.on('error', () => {});
    this.ws.on('message', (data: Buffer) => {
      this.got.push(new Uint8Array(data));
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting?.(this.#next()!);
    });
    this.ended = new Promise((resolve) => {
      this.ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  get socket(): Socket {
    // Cast: the tests need the naked socket to send what ws never would.
    return (this.ws as unknown as { readonly _socket: Socket })._socket;
  }

  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.ws.once('open', resolve);
      this.ws.once('close', () => reject(new Error('never opened')));
    });
  }

  send(bytes: Bytes): void {
    this.sent.push(bytes);
    this.ws.send(bytes);
  }

  /** The next message, or undefined once the connection has ended. */
  async receive(): Promise<Bytes | undefined> {
    const next = this.#next();
    if (next !== undefined) return next;
    const message = new Promise<Bytes>((resolve) => {
      this.#waiting = resolve;
    });
    const bytes = await Promise.race([message, this.ended]);
    this.#waiting = undefined;
    return bytes instanceof Uint8Array ? bytes : undefined;
  }

  #next(): Bytes | undefined {
    const next = this.got[this.#taken];
    if (next !== undefined) this.#taken += 1;
    return next;
  }
}

export interface Claim {
  readonly key: Key;
  readonly role?: PeerRole;
  readonly chain?: Hash;
  readonly epoch?: number;
  /** What stands in the frames as the sender, if not the key. */
  readonly sender?: Bytes;
  readonly expected?: Bytes;
}

export const seal = (message: HandshakeMessage, { key, sender = key.publicKey, chain = chainId }: Claim): Bytes => {
  const payload = encodeHandshakePayload(message);
  return encodeFrame({ kind: message.kind, payload, sender, signature: signer(key, chain)(message.kind, payload) });
};

export function handshakeOf(
  claim: Claim,
  side: 'initiator' | 'responder' = 'initiator',
  known: readonly Member[] = members,
): Handshake {
  const { key, role = 'replica', chain = chainId, epoch = 0, sender = key.publicKey, expected = null } = claim;
  const base = { crypto: native, chainId: chain, epoch: asEpoch(epoch), members: known, role, key: sender };
  return new Handshake({ ...base, side, nonce: new Uint8Array(randomBytes(32)), expected });
}

/** An honest handshake as far as `claim` is: returns once it is over, either way. */
export async function shake(stranger: Stranger, claim: Claim, known = members): Promise<Peer | undefined> {
  await stranger.open();
  const handshake = handshakeOf(claim, 'initiator', known);
  for (const message of handshake.start()) stranger.send(seal(message, claim));
  for (;;) {
    const bytes = await stranger.receive();
    if (bytes === undefined) return undefined;
    const decoded = decodeFrame(bytes);
    if ('refused' in decoded) throw new Error(decoded.refused);
    const step = handshake.receive(decoded);
    if ('refused' in step) throw new Error(step.refused);
    for (const message of step.send) stranger.send(seal(message, claim));
    if (step.peer !== null) return step.peer;
  }
}

export async function client(
  node: Node,
  name = 'client',
  options: { readonly autoPong?: boolean } = {},
): Promise<Stranger> {
  const stranger = new Stranger(node.port, '/client', options);
  const before = node.clients.length;
  await shake(stranger, { key: keyOf(name), role: 'client' });
  await node.until('a client', () => node.clients.length > before);
  return stranger;
}
