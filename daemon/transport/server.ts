// The listener: one port for replicas and clients. It takes strangers in, within bounds, and gives away whoever proved a key: replicas
// to the peer manager, clients to the gateway.

import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Bytes } from '../../crypto/bytes.ts';
import type { Peer } from '../../protocol/handshake.ts';
import type { Session } from '../../protocol/session.ts';
import type { Lane } from '../ports.ts';
import { Admission } from './admission.ts';
import { authenticate, type Credentials, rekeyFrame } from './authenticate.ts';
import { type ClientEvents, type ClientSocket, clientSocket } from './client.ts';
import { type Connection, closeCode } from './connection.ts';
import type { Context } from './context.ts';

/** Where the listener listens. */
export interface Listen {
  readonly host: string;
  /** 0: any free one, see Server.port. */
  readonly port: number;
  /** PEM. Optional and additional: authentication never rests on it. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** A replica's connection after the handshake. */
export interface Arrival {
  readonly lane: Lane;
  readonly connection: Connection;
  /** Under the member's key as of when the handshake began: by now it may be another's, or nobody's. */
  readonly session: Session;
}

export interface ServerParts {
  readonly context: Context;
  readonly listen: Listen;
  readonly credentials: () => Credentials;
  readonly onPeer: (arrival: Arrival) => void;
  /** Absent: clients are refused. */
  readonly onClient?: (socket: ClientSocket) => ClientEvents;
}

/** The paths of the port; a role may come in by its own only. */
const paths: ReadonlyMap<string, Lane | 'client'> = new Map([
  ['/peer/vote', 'vote'],
  ['/peer/bulk', 'bulk'],
  ['/client', 'client'],
  ['/', 'client'],
]);

export class Server {
  readonly #parts: ServerParts;
  readonly #context: Context;
  readonly #http: HttpServer;
  readonly #ws: WebSocketServer;
  readonly #admission: Admission;
  readonly #connections = new Set<Connection>();
  readonly #clientConnections = new Set<Connection>();
  #closing = false;
  /** Callers whose handshake has not begun; null: nobody waits. */
  #held: (() => void)[] | null = null;
  /** Handshakes begun in #second. */
  #handshakes = { peer: 0, client: 0 };
  #second = 0;

  /** Resolves when it listens; rejects where the address cannot be had. */
  static async listen(parts: ServerParts): Promise<Server> {
    const server = new Server(parts);
    await new Promise<void>((resolve, reject) => {
      server.#http.once('error', reject);
      server.#http.listen(parts.listen.port, parts.listen.host, () => {
        server.#http.off('error', reject);
        server.#http.on('error', (error) => parts.context.log.error({ problem: error.message }, 'listener'));
        resolve();
      });
    });
    return server;
  }

  private constructor(parts: ServerParts) {
    this.#parts = parts;
    this.#context = parts.context;
    const { options, tally } = parts.context;
    this.#admission = new Admission(options, (code) =>
      tally.count('synod_transport_connections_refused_total', { code }),
    );
    const http = {
      maxHeaderSize: options.headerBytesMax,
      headersTimeout: options.handshakeMsMax,
      requestTimeout: options.handshakeMsMax,
      connectionsCheckingInterval: 1000,
      keepAlive: false,
    };
    const tls = parts.listen.tls;
    this.#http =
      tls === undefined
        ? createServer(http, upgradeRequired)
        : createTlsServer({ ...http, ...tls, handshakeTimeout: options.handshakeMsMax }, upgradeRequired);
    this.#http.on('connection', (socket: Socket) => this.#admission.add(socket, this.#context.now()));
    this.#http.on('clientError', (_error, socket) => socket.destroy());
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    const limits = {
      maxPayload: options.messageBytesMax,
      maxFragments: options.messageFragmentsMax,
      maxBufferedChunks: options.messageChunksMax,
      closeTimeout: options.closeMsMax,
    };
    this.#ws = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false, ...limits });
  }

  get port(): number {
    const address = this.#http.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  get clients(): number {
    return this.#clientConnections.size;
  }

  /** Called every sweepMs. */
  sweep(now: number): void {
    this.#admission.sweep(now);
    for (const connection of this.#connections) connection.sweep(now);
    this.#boundUnfinished();
    const { tally } = this.#context;
    tally.gauge('synod_transport_connections', this.#admission.open);
    tally.gauge('synod_transport_connections_unauthenticated', this.#admission.unauthenticated);
    tally.gauge('synod_transport_clients', this.clients);
  }

  /** [EPO-24] Replicas that come wait with their handshakes. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const greet of held) greet();
  }

  /** Says goodbye to everyone, waits closeMsMax at most. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const connection of this.#connections) connection.close(closeCode.goingAway, 'going-away');
    const timer = setTimeout(() => this.#admission.destroyAll(), this.#context.options.closeMsMax);
    this.#http.closeIdleConnections();
    await closed;
    clearTimeout(timer);
  }

  /** Many clients that each hold back the end of a large message must not fill the memory together. */
  #boundUnfinished(): void {
    let bytes = 0;
    for (const connection of this.#clientConnections) bytes += connection.unfinishedBytes;
    const { clientUnfinishedBytesMax } = this.#context.options;
    if (bytes <= clientUnfinishedBytesMax) return;
    const largestFirst = [...this.#clientConnections].sort((a, b) => b.unfinishedBytes - a.unfinishedBytes);
    for (const connection of largestFirst) {
      if (bytes <= clientUnfinishedBytesMax) return;
      bytes -= connection.unfinishedBytes;
      connection.terminate('clients-unfinished-max');
    }
  }

  #upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): void {
    // The HTTP server hands out what it accepted: a net.Socket or the TLSSocket over it.
    const socket = request.socket;
    const path = paths.get((request.url ?? '').split('?', 1)[0] ?? '');
    if (path === undefined || this.#closing) {
      stream.end(
        `HTTP/1.1 ${path === undefined ? '404 Not Found' : '503 Service Unavailable'}\r\nConnection: close\r\n\r\n`,
      );
      stream.once('finish', () => stream.destroy());
      return;
    }
    this.#ws.handleUpgrade(request, stream, head, (ws) => this.#opened(ws, socket, path));
  }

  #opened(ws: WebSocket, socket: Socket, path: Lane | 'client'): void {
    const { context } = this.#parts;
    const connection = context.connection({ ws, socket, channel: path });
    this.#connections.add(connection);
    ws.once('close', () => this.#connections.delete(connection));
    if (!this.#mayShakeHands(path)) {
      context.tally.count('synod_transport_connections_refused_total', { code: 'handshakes-max' });
      connection.close(closeCode.overloaded, 'handshakes-max');
      return;
    }
    const { unauthenticatedMax } = context.options;
    if (this.#held === null || this.#held.length >= unauthenticatedMax || path === 'client')
      return this.#greet(connection, socket, path);
    connection.pause('owner');
    this.#held.push(() => {
      this.#greet(connection, socket, path);
      connection.resume('owner');
    });
  }

  #greet(connection: Connection, socket: Socket, path: Lane | 'client'): void {
    const { context, credentials } = this.#parts;
    if (!connection.open) return;
    authenticate({
      connection,
      credentials: credentials(),
      side: 'responder',
      expected: null,
      done: (peer, session) => {
        this.#admission.authenticated(socket);
        this.#authenticated(connection, peer, session, path);
      },
      refused: (code) => context.handshakeRefused(code, connection.address, 'in'),
    });
  }

  #mayShakeHands(path: Lane | 'client'): boolean {
    const { options, now } = this.#context;
    const second = Math.floor(now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#handshakes = { peer: 0, client: 0 };
    }
    if (path === 'client') return ++this.#handshakes.client <= options.clientHandshakesPerSecondMax;
    return ++this.#handshakes.peer <= options.peerHandshakesPerSecondMax;
  }

  #authenticated(connection: Connection, { role, key }: Peer, session: Session, path: Lane | 'client'): void {
    if (role === 'replica' && path !== 'client') {
      this.#parts.onPeer({ lane: path, connection, session });
      return;
    }
    if (role === 'client' && path === 'client') {
      this.#client(connection, key, session);
      return;
    }
    connection.close(closeCode.handshake, 'role-path');
    this.#context.handshakeRefused('role-path', connection.address, 'in');
  }

  #client(connection: Connection, clientKey: Bytes, session: Session): void {
    const { onClient, context, credentials } = this.#parts;
    if (onClient === undefined || this.clients >= context.options.clientsMax) {
      context.tally.count('synod_transport_connections_refused_total', { code: 'clients-max' });
      connection.close(closeCode.overloaded, 'clients-max');
      return;
    }
    this.#clientConnections.add(connection);
    clientSocket({
      connection,
      clientKey,
      bufferedBytesMax: context.options.client.socketBytesMax,
      due: () => rekeyFrame(session, credentials()),
      onClient,
      closed: () => this.#clientConnections.delete(connection),
    });
  }
}

function upgradeRequired(_request: IncomingMessage, response: ServerResponse): void {
  const body = 'Upgrade Required\n';
  response.writeHead(426, { connection: 'close', upgrade: 'websocket', 'content-length': body.length });
  response.end(body);
}
