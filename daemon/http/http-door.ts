// The HTTP door: a small JSON interface for programs without the client SDK, and what operators probe and scrape. On a port of its
// own, so that whoever may watch a replica need not reach its peers' port.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Bytes } from '../../crypto/bytes.ts';
import type { ClientSigner } from '../../keys/client-key.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import type { EvidenceSource } from '../evidence.ts';
import type { Gateway } from '../gateway/gateway.ts';
import type { Meter, ReplicaPort } from '../ports.ts';
import { RecentRefusals } from '../why/refused.ts';
import { BodyBudget } from './body.ts';
import { noEvidence } from './evidence.ts';
import { type Exchange, isFault, parseQuery, problemReply, type Reply, type Route } from './exchange.ts';
import { defaultHttpLimits, type HttpLimits } from './limits.ts';
import { LoopHealth } from './loop-health.ts';
import { type Problem, problem } from './problem.ts';
import { Reads } from './reads.ts';
import { matchRoute } from './router.ts';
import { type MetricsSource, routesOf } from './routes.ts';
import type { NodeInfo } from './standing.ts';
import { Submitter } from './submitter.ts';
import { Transactions } from './transactions.ts';
import { Why } from './why.ts';

export interface HttpDoorOptions {
  readonly listen: { readonly host: string /** 0: any free one, see HttpDoor.port. */; readonly port: number };
  readonly replica: ReplicaPort;
  /** Its desk and its reader of the log are shared. */
  readonly gateway: Gateway;
  readonly meter: Meter;
  readonly metrics: MetricsSource;
  readonly genesisDocument: Bytes;
  /** All that are known, as they come. */
  readonly epochs: EpochChain;
  readonly node: NodeInfo;
  /** Signs what is submitted over HTTP; null: this door only reads. */
  readonly signer: ClientSigner | null;
  /** Default: none is kept. */
  readonly evidence?: EvidenceSource;
  readonly limits?: Partial<HttpLimits>;
  /** An answer failed for a reason that is no request's fault. */
  readonly onError?: (error: unknown, route: string) => void;
}

export class HttpDoor {
  readonly routes: readonly Route[];
  readonly #options: HttpDoorOptions;
  readonly #limits: HttpLimits;
  readonly #server: Server;
  readonly #submitter: Submitter | null;
  readonly #health = new LoopHealth();
  readonly #refusals: RecentRefusals;
  /** Connections whose last request has its answer, though perhaps not all of its body has come. */
  readonly #answered = new WeakSet<Duplex>();
  #open = 0;
  #requests = 0;
  #answersBytes = 0;
  #draining = false;
  #closing: Promise<void> | null = null;

  /** Resolves when it listens; rejects where the address cannot be had. */
  static async listen(options: HttpDoorOptions): Promise<HttpDoor> {
    const door = new HttpDoor(options);
    await new Promise<void>((resolve, reject) => {
      door.#server.once('error', reject);
      door.#server.listen(options.listen.port, options.listen.host, () => {
        door.#server.off('error', reject);
        door.#server.on('error', (error) => options.onError?.(error, 'listener'));
        resolve();
      });
    });
    return door;
  }

  private constructor(options: HttpDoorOptions) {
    const { replica, gateway, signer, metrics, node, genesisDocument, epochs } = options;
    const limits = { ...defaultHttpLimits, ...options.limits };
    this.#options = options;
    this.#limits = limits;
    const { desk, reader } = gateway;
    this.#submitter = signer === null ? null : new Submitter({ replica, desk, signer });
    this.#refusals = new RecentRefusals(replica);
    replica.subscribe({ ended: () => this.#submitter?.handOver() });
    const draining = () => this.#draining;
    const budget = new BodyBudget(limits.bodiesBytesMax);
    this.routes = routesOf({
      replica,
      reads: new Reads({ replica, reader, desk, epochs }),
      why: new Why({ replica, desk, refusals: this.#refusals, draining }),
      transactions: new Transactions({
        submitter: this.#submitter,
        parameters: () => replica.genesis.parameters,
        budget,
        epochs,
      }),
      health: this.#health,
      metrics,
      node,
      evidence: options.evidence ?? noEvidence,
      genesisDocument,
      epochs,
      draining,
    });
    this.#server = createServer(
      {
        maxHeaderSize: limits.headerBytesMax,
        headersTimeout: limits.headersMsMax,
        requestTimeout: limits.requestMsMax,
        keepAliveTimeout: limits.keepAliveMsMax,
        connectionsCheckingInterval: limits.checkMs,
        requireHostHeader: true,
        insecureHTTPParser: false,
        noDelay: true,
      },
      (request, response) => void this.#answer(request, response),
    );
    this.#server.maxConnections = limits.connectionsMax;
    this.#server.setTimeout(limits.idleMsMax);
    this.#server.on('connection', (socket: Socket) => this.#connected(socket));
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
      // No second answer to one request.
      if (this.#answered.has(socket)) socket.destroy();
      else refuseConnection(error, socket);
    });
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Nothing is submitted from now on, and /readyz says so; what is in flight is still answered. */
  drain(): void {
    this.#draining = true;
    this.#submitter?.drain();
  }

  /** Lets open requests end, for a moment. */
  close(): Promise<void> {
    this.drain();
    this.#closing ??= new Promise((resolve) => {
      const timer = setTimeout(() => this.#server.closeAllConnections(), this.#limits.closeMsMax);
      this.#server.close(() => {
        clearTimeout(timer);
        this.#health.close();
        this.#refusals.close();
        resolve();
      });
      this.#server.closeIdleConnections();
    });
    return this.#closing;
  }

  #connected(socket: Socket): void {
    const { meter } = this.#options;
    this.#open += 1;
    meter.gauge('synod_http_connections', this.#open);
    socket.once('close', () => {
      this.#open -= 1;
      meter.gauge('synod_http_connections', this.#open);
    });
  }

  /** Never rejects. */
  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const startedAt = performance.now();
    this.#answered.delete(request.socket);
    const matched = matchRoute(this.routes, request.method ?? '', request.url ?? '');
    const name = 'route' in matched ? matched.route.path : 'none';
    this.#requests += 1;
    const gone = new Promise<void>((resolve) => response.once('close', resolve));
    let reply: Reply;
    try {
      const answer =
        'route' in matched ? await this.#ask(matched.route, { request, gone, ...matched }) : matched.problem;
      reply = isFault(answer) ? problemReply(answer) : answer;
      if (!('route' in matched) && matched.allow !== null)
        reply = { ...reply, headers: { ...reply.headers, allow: matched.allow } };
    } catch (error) {
      // The log could not be read, or a bug: never the request's fault, and its cause is for the log, not for the client.
      this.#options.onError?.(error, name);
      reply = problemReply(problem('internal', 'this replica could not answer'));
    }
    this.#requests -= 1;
    this.#send(request, response, reply);
    const { meter } = this.#options;
    meter.count('synod_http_requests_total', { route: name, status: String(response.statusCode) });
    meter.observe('synod_http_request_ms', performance.now() - startedAt, { route: name });
  }

  async #ask(
    route: Route,
    { search, ...rest }: Omit<Exchange, 'query'> & { readonly search: string },
  ): Promise<Reply | Problem> {
    // Probes are answered whatever else is going on.
    const isProbe = !route.path.startsWith('/v1/');
    if (this.#requests > this.#limits.requestsMax && !isProbe)
      return problem('busy', 'too many requests at once', { retryAfterSeconds: 1 });
    const query = parseQuery(search, route.query);
    return isFault(query) ? query : await route.answer({ ...rest, query });
  }

  #send(request: IncomingMessage, response: ServerResponse, full: Reply): void {
    if (response.destroyed) return;
    this.#answered.add(request.socket);
    let reply = full;
    if (this.#answersBytes + sizeOf(reply) > this.#limits.answersBytesMax)
      reply =
        reply.lean?.() ?? problemReply(problem('busy', 'too many answers are being read', { retryAfterSeconds: 1 }));
    const bytes = sizeOf(reply);
    this.#answersBytes += bytes;
    response.once('close', () => {
      this.#answersBytes -= bytes;
    });
    response.writeHead(reply.status, {
      ...reply.headers,
      'content-type': reply.contentType,
      'content-length': bytes,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(this.#closing === null ? {} : { connection: 'close' }),
    });
    response.end(request.method === 'HEAD' ? undefined : reply.body);
  }
}

function sizeOf({ body }: Reply): number {
  return typeof body === 'string' ? Buffer.byteLength(body) : body.length;
}

/** What Node's parser or its clocks refuse comes before any request, so the answer is written by hand. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const refused =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? problem('headers-too-large', 'the headers are too large')
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? problem('request-timeout', 'the request did not arrive in time')
        : problem('request-malformed', 'this is not an HTTP request');
  const { status, body } = problemReply(refused);
  socket.end(
    `HTTP/1.1 ${status} ${refused.code}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(String(body))}\r\nconnection: close\r\n\r\n${String(body)}`,
    () => socket.destroy(),
  );
}
