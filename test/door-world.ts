// What the tests of the client doors stand in: a replica that decides what the test says, a client of bare frames, and both doors in front
// of it over real sockets. No fixed sleeps: every wait is for an event, with a deadline.

import { randomBytes } from 'node:crypto';
import { WebSocket } from 'ws';
import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { Gateway } from '../daemon/gateway/gateway.ts';
import type { GatewayLimits } from '../daemon/gateway/limits.ts';
import { HttpDoor } from '../daemon/http/http-door.ts';
import type { HttpLimits } from '../daemon/http/limits.ts';
import { Metrics } from '../daemon/metrics.ts';
import type { ReplicaEvents, ReplicaPort } from '../daemon/ports.ts';
import type { ReadPoint } from '../daemon/read-desk.ts';
import type { ClientSocket } from '../daemon/transport/client.ts';
import { Transport } from '../daemon/transport/peers.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import { blockHash, decodeHeader } from '../protocol/block.ts';
import { bundleSigningBytes, type SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import {
  decodeFrame,
  decodeMessage,
  encodeCertificate,
  encodeCheckpointCertificate,
  encodeCheckpointPlace,
  encodeFrame,
  encodeStoredBlock,
  type Frame,
  frameSigningBytes,
  isDoorKind,
  type Kind,
  type Message,
} from '../protocol/codec.ts';
import type {
  AdmissionCode,
  BundleExplanation,
  CoreEvent,
  Decided,
  EpochEnd,
  Explanation,
  HeightExplanation,
} from '../protocol/core.ts';
import { type BundleAdmission, type DoorMessage, type FollowedBlock, provesItself } from '../protocol/door.ts';
import type { Genesis, Parameters } from '../protocol/genesis.ts';
import { Handshake } from '../protocol/handshake.ts';
import { asHeight, asMillis, asReplicaId, asView, type Hash, type Height } from '../protocol/types.ts';
import { EpochChain } from '../protocol/verify.ts';
import { type LogStore, openLogStore } from '../storage/log-store.ts';
import { MemoryDisk } from '../storage/memory.ts';
import * as fixture from './wire-fixtures.ts';

const { chainId, epoch, members, parameters, replicas, sha256, wire, text, keyOf, filled } = fixture;
type TestKey = fixture.TestKey;

// A busy machine is slow, not wrong.
export const deadlineMs = 30_000;
const genesis: Genesis = {
  chainId,
  name: 'doors',
  protocol: 'pbft',
  createdAt: asMillis(0),
  members,
  parameters,
};
export const genesisDocument = text('{"synod":1,"name":"doors"}\n');
export const doorKey = keyOf(filled(0x77));
export const context = { genesis, crypto: native };

/** Resolves with what `look` gives as soon as it is not undefined; looks again whenever `wake` is called, and at times. */
export class Waits {
  readonly #waits = new Set<() => void>();

  wake(): void {
    for (const wait of [...this.#waits]) wait();
  }

  until<T>(what: string, look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const deadline = performance.now() + deadlineMs;
      // Not everything that is waited for tells when it happens.
      const timer = setInterval(() => check(), 5);
      const done = () => {
        clearInterval(timer);
        this.#waits.delete(check);
      };
      const check = () => {
        try {
          const found = look();
          if (found === undefined && performance.now() < deadline) return;
          done();
          if (found === undefined) reject(new Error(`not within ${deadlineMs} ms: ${what}`));
          else resolve(found);
        } catch (error) {
          done();
          reject(error);
        }
      };
      this.#waits.add(check);
      check();
    });
  }
}

/** Holds whoever waits for it until it is opened. */
export class Gate {
  open: () => void = () => undefined;
  readonly opened = new Promise<void>((resolve) => {
    this.open = resolve;
  });
}

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

// ---- a replica that decides what it is told ---------------------------------------------------------------------------------

export class FakeReplica implements ReplicaPort {
  readonly genesis: Genesis;
  readonly self = asReplicaId(1);
  readonly crypto = native;
  readonly log: LogStore;
  readonly waits = new Waits();
  readonly submitted: SignedBundle[] = [];
  readonly blocks: Decided[] = [];
  /** What submit answers, and the verdict; undefined: none comes. */
  takes = true;
  verdict: (bundle: SignedBundle) => AdmissionCode | undefined = () => 'pooled';
  explanation: Explanation;
  unproposed: HeightExplanation = { height: asHeight(0), stage: 'unknown', view: asView(0), candidates: [] };
  nowhere: BundleExplanation = { digest: null, transaction: null, height: null, pool: null };
  readonly #subscribers = new Set<ReplicaEvents>();
  #head: { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
  #writes: Promise<unknown> = Promise.resolve();

  static async open(changes: Partial<Parameters> = {}): Promise<FakeReplica> {
    const options = { sha256, chainId, floor: null, retainBlocks: 'all', recentBytesMax: 1 << 20 } as const;
    const { log } = await openLogStore(new MemoryDisk().open(), options);
    return new FakeReplica(log, changes);
  }

  private constructor(log: LogStore, changes: Partial<Parameters>) {
    this.log = log;
    this.genesis = { ...genesis, parameters: { ...parameters, ...changes } };
    this.#head = { height: asHeight(0), hash: fixture.hashOf(9), certificate: null };
    this.explanation = fixture.calm(this.self);
  }

  submit(bundle: SignedBundle): boolean {
    if (!this.takes) return false;
    this.submitted.push(bundle);
    setImmediate(() => {
      const code = this.verdict(bundle);
      if (code !== undefined) this.admit(bundle.digest, code);
    });
    this.waits.wake();
    return true;
  }

  point: ReadPoint = { refused: 'reads-unsupported' };
  readPoint = () => Promise.resolve(this.point);

  admit(digest: Hash, code: AdmissionCode): void {
    for (const events of this.#subscribers) events.admission?.(digest, code);
  }

  endEpoch(end: EpochEnd): void {
    for (const events of this.#subscribers) events.ended?.(end, Promise.resolve(true));
  }

  emit(event: CoreEvent): void {
    for (const events of this.#subscribers) events.event?.(event);
  }

  explain(): Explanation {
    return { ...this.explanation, height: this.#head.height, hash: this.#head.hash };
  }

  explainHeight = (height: Height) => ({ ...this.unproposed, height });
  explainBundle = () => this.nowhere;
  writingMs = () => 0;

  head() {
    return this.#head;
  }

  subscribe(events: ReplicaEvents): () => void {
    this.#subscribers.add(events);
    return () => this.#subscribers.delete(events);
  }

  async drain(): Promise<void> {
    await this.#writes;
  }

  /** A block for each list; only those in `certified` (by index) get a certificate of their own. Told first, durable later, as in the loop. */
  decide(
    lists: readonly (readonly SignedBundle[])[],
    certified: (index: number) => boolean = () => true,
  ): Promise<void> {
    const decided: Decided[] = [];
    for (const [index, bundles] of lists.entries()) {
      const below = decided.at(-1)?.block ?? { header: { height: this.#head.height }, hash: this.#head.hash };
      const block = fixture.block(bundles, { height: below.header.height + 1, parent: below.hash });
      const own = certified(index) || index === lists.length - 1;
      decided.push({ block, certificate: own ? fixture.certificate(block) : null });
    }
    const last = decided.at(-1)!;
    this.#head = { height: last.block.header.height, hash: last.block.hash, certificate: last.certificate };
    this.blocks.push(...decided);
    this.#writes = this.#writes.then(turn).then(() => this.log.write(decided.flatMap(recordsOf)));
    for (const events of this.#subscribers) events.decided?.(decided);
    return this.#writes.then(() => undefined);
  }

  /** As if a checkpoint had been taken from peers: nothing at or below this height is here. */
  async resetTo(height: number): Promise<void> {
    const block = fixture.block([bundleOf(height)], { height });
    const checkpoint = fixture.checkpoint(block);
    const place = encodeCheckpointPlace(fixture.placeOf(block));
    const certificate = encodeCheckpointCertificate(checkpoint);
    const header = block.headerBytes;
    await this.log.write([{ type: 'reset-to-checkpoint', height: asHeight(height), header, place, certificate }]);
    this.#head = { height: asHeight(height), hash: block.hash, certificate: null };
  }
}

function recordsOf({ block, certificate }: Decided) {
  const { hash, bundles } = block;
  const { height } = block.header;
  return [
    { type: 'block', height, hash, bytes: encodeStoredBlock(block) },
    {
      type: 'decided',
      height,
      hash,
      certificate: certificate && encodeCertificate(certificate),
      bundles: bundles.map(({ digest }) => digest),
    },
  ] as const;
}

let sequences = 0;
/** A bundle like no other. */
export function bundleOf(
  label: number | string = 'b',
  options: { readonly count?: number; readonly bytes?: number; readonly key?: TestKey } = {},
) {
  const { count = 2, bytes = 0, key = fixture.client } = options;
  sequences += 1;
  const list = Array.from({ length: count }, (_, i) =>
    Buffer.concat([text(`${label}.${sequences}.${i}`), randomBytes(bytes)]),
  );
  return fixture.bundle(sequences, list, key);
}

// ---- a client of bare frames -------------------------------------------------------------------------------------------

export class DoorClient {
  readonly messages: DoorMessage[] = [];
  readonly key: TestKey;
  readonly ws: WebSocket;
  closedWith: string | null = null;
  readonly #waits = new Waits();
  #taken = 0;
  #verdicts: BundleAdmission[] = [];

  static async connect(port: number, key: TestKey = fixture.client): Promise<DoorClient> {
    const ws = new WebSocket(`ws://127.0.0.1:${port}/client`, { perMessageDeflate: false });
    const client = new DoorClient(ws, key);
    const handshake = new Handshake({
      crypto: native,
      chainId,
      epoch,
      members,
      side: 'initiator',
      role: 'client',
      key: key.publicKey,
      nonce: randomBytes(32),
      expected: replicas[1]!.publicKey,
    });
    let up = false;
    const say = (messages: readonly Message[]) => {
      for (const message of messages) client.send(message);
    };
    ws.on('open', () => say(handshake.start()));
    ws.on('message', (data: Buffer) => {
      const frame = decodeFrame(data);
      if ('refused' in frame) throw new Error(frame.refused);
      if (up) client.#took(frame);
      else {
        const step = handshake.receive(frame);
        if ('refused' in step) throw new Error(step.refused);
        say(step.send);
        up = step.peer !== null;
        client.#waits.wake();
      }
    });
    await client.#waits.until('the handshake', () => (up ? true : undefined));
    return client;
  }

  private constructor(ws: WebSocket, key: TestKey) {
    this.ws = ws;
    this.key = key;
    ws.on('error', () => undefined);
    ws.on('close', (_code, reason) => {
      this.closedWith = reason.toString();
      this.#waits.wake();
    });
  }

  send(message: Message): void {
    this.raw(encodeFrame(fixture.frameOf(message, this.key)));
  }

  submit(bundle: SignedBundle): void {
    const { payload, signature, client } = bundle;
    this.raw(encodeFrame({ kind: 'submit', payload, signature, sender: client }));
  }

  raw(bytes: Bytes): void {
    this.ws.send(bytes);
  }

  /** The next message of this kind; others before it are passed over. */
  async next<K extends DoorMessage['kind']>(kind: K): Promise<Extract<DoorMessage, { kind: K }>> {
    const isIt = (message: DoorMessage): message is Extract<DoorMessage, { kind: K }> => message.kind === kind;
    return this.#waits.until(`a message ${kind}`, () => {
      while (this.#taken < this.messages.length) {
        const message = this.messages[this.#taken++]!;
        if (isIt(message)) return message;
      }
      if (this.closedWith !== null) throw new Error(`closed: ${this.closedWith}`);
      return undefined;
    });
  }

  async admission(): Promise<BundleAdmission> {
    if (this.#verdicts.length === 0) this.#verdicts = [...(await this.next('admissions')).admissions];
    return this.#verdicts.shift()!;
  }

  until<T>(what: string, look: () => T | undefined): Promise<T> {
    return this.#waits.until(what, look);
  }

  closed(): Promise<string> {
    return this.#waits.until('the end of the connection', () => this.closedWith ?? undefined);
  }

  /** Blocks of streams so far, in order. */
  get blocks(): FollowedBlock[] {
    return this.messages.flatMap((message) => (message.kind === 'follow-blocks' ? message.blocks : []));
  }

  /** Waits until everything sent before was answered: frames of one connection are taken in order. */
  async settled(): Promise<void> {
    this.send({ kind: 'query-head' });
    await this.next('head');
  }

  #took(frame: Frame): void {
    const { kind, payload, sender, signature } = frame;
    const message = decodeMessage(frame, wire);
    if ('refused' in message || !isDoorKind(kind)) throw new Error(`the door sent ${JSON.stringify(message)}`);
    if (!equalBytes(sender, replicas[1]!.publicKey)) throw new Error('another sender');
    const said = message as DoorMessage; // the kind was looked at
    // [WIRE-18]
    if (provesItself(said)) {
      if (signature.some((byte) => byte !== 0)) throw new Error('signed for nobody');
    } else if (!native.verify(sender, frameSigningBytes(chainId, kind, payload), signature))
      throw new Error('a bad signature');
    this.messages.push(said);
    this.#waits.wake();
  }
}

// ---- all of it together ----------------------------------------------------------------------------------------------------

export interface World {
  readonly replica: FakeReplica;
  readonly metrics: Metrics;
  readonly gateway: Gateway;
  readonly transport: Transport;
  readonly http: HttpDoor;
  readonly url: string;
  readonly errors: unknown[];
  /** The door's end of each client connection, in order. */
  readonly sockets: ClientSocket[];
  client(key?: TestKey): Promise<DoorClient>;
}

interface WorldOptions {
  readonly gateway?: Partial<GatewayLimits>;
  readonly http?: Partial<HttpLimits>;
  readonly signer?: ClientSigner | null;
  readonly parameters?: Partial<Parameters>;
}

const httpSigner: ClientSigner = {
  publicKey: doorKey.publicKey,
  signBundle: (digest) => doorKey.sign(bundleSigningBytes(chainId, digest)),
  signStatement: () => filled(0, 64),
};

export async function world(test: { teardown(done: () => unknown): void }, options: WorldOptions = {}): Promise<World> {
  const replica = await FakeReplica.open(options.parameters);
  const metrics = new Metrics();
  metrics.watch(replica);
  const self = replicas[1]!;
  // The cast: only kinds of frames get here.
  const signStatement = (kind: string, payload: Bytes) => self.sign(frameSigningBytes(chainId, kind as Kind, payload));
  const gateway = new Gateway({
    replica,
    meter: metrics,
    publicKey: () => self.publicKey,
    signStatement,
    ...(options.gateway && { limits: options.gateway }),
  });
  const sockets: ClientSocket[] = [];
  const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const transport = await Transport.open({
    self: replica.self,
    credentials: {
      crypto: native,
      chainId,
      epoch: () => epoch,
      members: () => members,
      key: self.publicKey,
      signStatement,
    },
    listen: { host: '127.0.0.1', port: 0 },
    peers: new Map(),
    events: { frame: () => {}, connected: () => {}, disconnected: () => {} },
    onClient: (socket) => {
      sockets.push(socket);
      return gateway.accept(socket);
    },
    overloaded: () => false,
    meter: metrics,
    log: silent,
  });
  const errors: unknown[] = [];
  const http = await HttpDoor.listen({
    listen: { host: '127.0.0.1', port: 0 },
    replica,
    gateway,
    meter: metrics,
    metrics,
    genesisDocument,
    epochs: new EpochChain({ genesis, crypto: native }),
    node: { version: '0.1.0', startedAt: 1 },
    signer: options.signer === undefined ? httpSigner : options.signer,
    onError: (error) => errors.push(error),
    ...(options.http && { limits: options.http }),
  });
  const clients: DoorClient[] = [];
  test.teardown(async () => {
    for (const { ws } of clients) ws.terminate();
    gateway.close();
    await Promise.all([http.close(), transport.close()]);
    await replica.drain();
    await replica.log.close();
    metrics.close();
  });
  return {
    replica,
    metrics,
    gateway,
    transport,
    http,
    url: `http://127.0.0.1:${http.port}`,
    errors,
    sockets,
    client: async (key) => {
      const client = await DoorClient.connect(transport.port, key);
      clients.push(client);
      return client;
    },
  };
}

/** Consecutive heights from `from`, each naming the one before, with the bodies that were decided; certificates cover the tail. */
export function checkStream(
  blocks: readonly FollowedBlock[],
  decided: readonly Decided[],
  from: number,
): string | null {
  let expected = from;
  for (const { headerBytes, bundles, certificate } of blocks) {
    const header = decodeHeader(headerBytes);
    const truth = decided.find(({ block }) => block.header.height === expected);
    if (header?.height !== expected || truth === undefined) return `height ${header?.height} instead of ${expected}`;
    if (!equalBytes(headerBytes, truth.block.headerBytes)) return `another block ${expected}`;
    const body = truth.block.bundles;
    if (
      bundles !== null &&
      !same(
        bundles.map(({ payload }) => payload),
        body.map(({ payload }) => payload),
      )
    )
      return `another body ${expected}`;
    if (certificate !== null && !equalBytes(certificate.hash, blockHash(sha256, headerBytes)))
      return `another certificate ${expected}`;
    expected += 1;
  }
  return null;
}

export function same(a: readonly Bytes[], b: readonly Bytes[]): boolean {
  return a.length === b.length && a.every((bytes, i) => Buffer.compare(bytes, b[i]!) === 0);
}
