// The client doors (daemon/gateway/, daemon/http/) and the metrics, over real sockets, in front of a replica that decides what the
// test says. Adversary's book A12 to A15, A25, A26. No fixed sleeps: every wait is for an event, with a deadline.

import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import { WebSocket } from 'ws';
import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash, merkleRoot, rangeProof } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import { BlockTree } from '../daemon/gateway/block-tree.ts';
import { Gateway } from '../daemon/gateway/gateway.ts';
import type { GatewayLimits } from '../daemon/gateway/limits.ts';
import { certify } from '../daemon/gateway/receipt-desk.ts';
import { TokenBuckets } from '../daemon/gateway/token-bucket.ts';
import { HttpDoor } from '../daemon/http/http-door.ts';
import type { HttpLimits } from '../daemon/http/limits.ts';
import { problemCodes } from '../daemon/http/problem.ts';
import { Metrics, seriesTable } from '../daemon/metrics.ts';
import openapi from '../daemon/openapi.json' with { type: 'json' };
import type { ReplicaEvents, ReplicaPort } from '../daemon/ports.ts';
import type { ClientSocket } from '../daemon/transport/client.ts';
import { Transport } from '../daemon/transport/peers.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import type { Block } from '../protocol/block.ts';
import { blockHash, decodeHeader } from '../protocol/block.ts';
import { bundleSigningBytes, type SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import {
  decodeFrame,
  decodeMessage,
  encodeBundlePayload,
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
  Explanation,
  HeightExplanation,
} from '../protocol/core.ts';
import type { BundleAdmission, DoorMessage, FollowedBlock } from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Handshake } from '../protocol/handshake.ts';
import { asHeight, asMillis, asReplicaId, asView, type Hash, type Height } from '../protocol/types.ts';
import { verifyReceipt, verifyTransactionReceipt } from '../protocol/verify.ts';
import { type LogStore, openLogStore } from '../storage/log-store.ts';
import { MemoryDisk } from '../storage/memory.ts';
import * as fixture from './wire-fixtures.ts';

const { chainId, epoch, members, parameters, replicas, sha256, wire, text, keyOf, filled } = fixture;
type TestKey = fixture.TestKey;

// A busy machine is slow, not wrong.
t.setTimeout(240_000);
const deadlineMs = 30_000;
const genesis: Genesis = { chainId, name: 'doors', protocol: 'pbft', createdAt: asMillis(0), members, parameters };
const genesisDocument = text('{"synod":1,"name":"doors"}\n');
const doorKey = keyOf(filled(0x77));
const context = { genesis, crypto: native };

/** Resolves with what `look` gives as soon as it is not undefined; looks again whenever `wake` is called, and at times. */
class Waits {
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

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

// ---- a replica that decides what it is told ---------------------------------------------------------------------------------

class FakeReplica implements ReplicaPort {
  readonly genesis = genesis;
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

  static async open(): Promise<FakeReplica> {
    const options = { sha256, chainId, floor: null, retainBlocks: 'all', recentBytesMax: 1 << 20 } as const;
    const { log } = await openLogStore(new MemoryDisk().open(), options);
    return new FakeReplica(log);
  }

  private constructor(log: LogStore) {
    this.log = log;
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

  admit(digest: Hash, code: AdmissionCode): void {
    for (const events of this.#subscribers) events.admission?.(digest, code);
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
function bundleOf(
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

class DoorClient {
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
    if (!native.verify(sender, frameSigningBytes(chainId, kind, payload), signature))
      throw new Error('a bad signature');
    this.messages.push(message as DoorMessage); // the kind was looked at
    this.#waits.wake();
  }
}

// ---- all of it together ----------------------------------------------------------------------------------------------------

interface World {
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
}

const httpSigner: ClientSigner = {
  publicKey: doorKey.publicKey,
  signBundle: (digest) => doorKey.sign(bundleSigningBytes(chainId, digest)),
  signStatement: () => filled(0, 64),
};

async function world(test: { teardown(done: () => unknown): void }, options: WorldOptions = {}): Promise<World> {
  const replica = await FakeReplica.open();
  const metrics = new Metrics();
  metrics.watch(replica);
  const self = replicas[1]!;
  // The cast: only kinds of frames get here.
  const signStatement = (kind: string, payload: Bytes) => self.sign(frameSigningBytes(chainId, kind as Kind, payload));
  const gateway = new Gateway({
    replica,
    meter: metrics,
    publicKey: self.publicKey,
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
function checkStream(blocks: readonly FollowedBlock[], decided: readonly Decided[], from: number): string | null {
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

// ---- the pieces -----------------------------------------------------------------------------------------------------------

t.test('the tree of a block gives the proofs of crypto/merkle.ts', async (t) => {
  for (let size = 1; size <= 40; size++) {
    const leaves = Array.from({ length: size }, (_, i) => leafHash(sha256, Uint8Array.of(i)));
    const tree = new BlockTree(sha256, leaves);
    const agree = [equalBytes(tree.root(), merkleRoot(sha256, leaves))];
    for (let start = 0; start < size; start++) {
      agree.push(same(tree.inclusionProof(start), inclusionProof(sha256, leaves, start)));
      for (let end = start + 1; end <= size; end++)
        agree.push(same(tree.rangeProof(start, end), rangeProof(sha256, leaves, start, end)));
    }
    t.ok(agree.every(Boolean), `${size} leaves`);
  }
  t.ok(equalBytes(new BlockTree(sha256, []).root(), merkleRoot(sha256, [])), 'no leaf');
});

function same(a: readonly Bytes[], b: readonly Bytes[]): boolean {
  return a.length === b.length && a.every((bytes, i) => Buffer.compare(bytes, b[i]!) === 0);
}

t.test('a block is covered by its own certificate or the next one (BLK-7)', async (t) => {
  const blocks: Block[] = fixture.chain(5);
  const decided = blocks.map((block, i) => ({
    block,
    certificate: i === 1 || i === 3 ? fixture.certificate(block) : null,
  }));
  const { chains, rest } = certify(decided);
  t.strictSame(
    chains.map(({ block, links }) => [block.header.height, links.length]),
    [
      [1, 1],
      [2, 0],
      [3, 1],
      [4, 0],
    ],
  );
  t.equal(rest.length, 1);
});

t.test('a token bucket fills with time, and reconnecting buys nothing', async (t) => {
  let now = 0;
  const buckets = new TokenBuckets({ rate: { perSecond: 10, burst: 5 }, bucketsMax: 16, now: () => now });
  const key = filled(1);
  t.equal([1, 2, 3, 4, 5, 6].filter(() => buckets.take(key)).length, 5, 'the burst');
  t.ok(buckets.take(filled(2)), 'another key has its own');
  now = 100;
  t.ok(buckets.take(key));
  t.notOk(buckets.take(key));
  now = 1_000_000;
  t.notOk(buckets.take(key, 6), 'never more than the burst');
});

t.test('metrics: every series is in the table, and a name that is not throws', async (t) => {
  const metrics = new Metrics();
  t.teardown(() => metrics.close());
  for (const [name, shape] of Object.entries(seriesTable)) {
    t.match(name, /^synod_[a-z_]+$/, name);
    t.match(name, shape.type === 'counter' ? /_total$/ : /(?<!_total)$/, `${name} ends as its type says`);
    t.match(shape.help, /^\S.*\.$/, `${name} has a sentence`);
  }
  t.throws(() => metrics.count('synod_nothing_total'), /not a counter/);
  t.throws(() => metrics.gauge('synod_blocks_decided_total', 1), /not a gauge/);
  t.throws(() => metrics.count('synod_blocks_decided_total', { colour: 'red' }), /label/);
  metrics.observe('synod_phase_ms', 250, { phase: 'proposed-to-decided' });
  metrics.count('synod_refusals_total', { code: 'x', kind: 'y' }, 3);
  const text = await metrics.scrape();
  t.match(text, /synod_phase_seconds_sum\{phase="proposed-to-decided"\} 0\.25/, 'milliseconds become seconds');
  t.match(text, /synod_refusals_total\{code="x",kind="y"\} 3/);
  t.match(text, /process_cpu_seconds_total/, 'what prom-client knows of the process');
  t.match(text, /nodejs_gc_duration_seconds/);
  for (let i = 0; i < 3000; i++) metrics.count('synod_refusals_total', { code: `c${i}`, kind: 'k' });
  const lines = (await metrics.scrape()).split('\n').filter((line) => line.startsWith('synod_refusals_total{'));
  t.ok(lines.length <= 1100, `labels never fill the memory: ${lines.length}`);
  t.match(lines.join('\n'), /code="other",kind="other"/);
});

t.test('metrics: explain() is read at the scrape', async (t) => {
  const { replica, metrics } = await world(t);
  replica.explanation = { ...replica.explanation, view: asView(7), viewChanges: 3, phase: 'view-change' };
  const text = await metrics.scrape();
  t.match(text, /synod_view 7/);
  t.match(text, /synod_view_changes_total 3/);
  t.match(text, /synod_phase\{phase="view-change"\} 1/);
  t.match(text, /synod_peers_connected 3/);
  t.match(text, /synod_view_timeout_seconds 0\.5/);
});

// ---- submit ------------------------------------------------------------------------------------------------------------------

t.test('submit, admission, receipt: verified offline; one frame for all of a delivery', async (t) => {
  const { replica, client } = await world(t);
  const [mine, other] = [await client(), await client(keyOf(filled(0x31)))];
  const bundles = Array.from({ length: 5 }, (_, i) => bundleOf(`s${i}`, { count: i + 1 }));
  for (const bundle of bundles) mine.submit(bundle);
  const admitted: BundleAdmission[] = [];
  for (const _ of bundles) admitted.push(await mine.admission());
  const said = bundles.map(({ digest }) => ({ digest, code: 'pooled', height: 0 }));
  t.same(admitted, said, 'in the order of the frames');
  t.strictSame(
    replica.submitted.map(({ digest }) => toHex(digest)),
    bundles.map(({ digest }) => toHex(digest)),
  );
  const foreign = bundleOf('foreign');
  void replica.decide([[foreign, ...bundles.slice(0, 3)], [...bundles.slice(3)]], () => false);
  const { receipts } = await mine.next('receipts');
  t.equal(receipts.length, 5, 'all receipts of a delivery in one frame');
  for (const [i, receipt] of receipts.entries()) {
    const bundle = bundles.find(({ digest }) => equalBytes(digest, receipt.digest))!;
    const proven = verifyReceipt(receipt, context, bundle.transactions);
    t.notOk('refused' in proven, `receipt ${i} verifies: ${JSON.stringify(proven)}`);
    t.equal(receipt.links.length, i < 3 ? 1 : 0, 'linked to the certified header');
  }
  await other.settled();
  t.equal(other.messages.filter(({ kind }) => kind === 'receipts').length, 0, 'nobody else hears of it');
});

t.test('500 bundles of one block: each receipt verifies', async (t) => {
  const { replica, client, metrics } = await world(t);
  const mine = await client();
  const bundles = Array.from({ length: 500 }, () => bundleOf('m', { count: 1 }));
  for (const bundle of bundles) mine.submit(bundle);
  await replica.waits.until('all of them', () => (replica.submitted.length === 500 ? true : undefined));
  void replica.decide([bundles]);
  const all = await mine.until('all receipts', () => {
    const receipts = mine.messages.flatMap((message) => (message.kind === 'receipts' ? message.receipts : []));
    return receipts.length === 500 ? receipts : undefined;
  });
  const frames = mine.messages.filter(({ kind }) => kind === 'receipts').length;
  t.ok(frames <= 3, `${frames} frames`);
  const bad = all.filter(
    (receipt, i) => i % 17 === 0 && 'refused' in verifyReceipt(receipt, context, bundles[i]!.transactions),
  );
  t.strictSame(bad, []);
  t.match(await metrics.scrape(), /synod_receipts_sent_total\{source="live"\} 500/);
});

t.test(
  'a retry of a decided bundle gets its stored receipt (SES-6), durable or not, by submit or by question',
  async (t) => {
    const { replica, client } = await world(t);
    const bundle = bundleOf('retry');
    replica.verdict = ({ digest }) =>
      replica.blocks.some(({ block }) => block.bundles.some((b) => equalBytes(b.digest, digest)))
        ? 'sequence-passed'
        : 'pooled';
    const first = await client();
    first.submit(bundle);
    await first.admission();
    const durable = replica.decide([[bundleOf(), bundle], [bundleOf()]], () => false);
    await first.next('receipts');
    for (const when of ['before it is durable', 'afterwards', 'out of date']) {
      const again = await client();
      if (when === 'out of date') replica.verdict = () => 'expired';
      again.submit(bundle);
      t.equal((await again.admission()).code, 'known', `${when}: never refused`);
      const pushed = await again.next('receipts');
      t.notOk('refused' in verifyReceipt(pushed.receipts[0]!, context, bundle.transactions), when);
      again.send({ kind: 'query-bundle', question: 7, digest: bundle.digest });
      t.equal((await again.next('receipts')).receipts.length, 1, 'by question');
      await durable;
      again.send({ kind: 'query-bundle', question: 8, digest: fixture.hashOf(1) });
      const { answer, receipts } = await again.next('receipts');
      const looked = { question: 8, digest: fixture.hashOf(1), lowest: 1, height: 2 };
      t.same([pushed.answer, answer, receipts], [null, looked, []], 'to which question, and of which blocks');
    }
    for (const code of ['sequence-passed', 'expired'] as const) {
      replica.verdict = () => code;
      first.submit(bundleOf('other'));
      t.equal((await first.admission()).code, code, 'what was not decided is refused');
    }
    replica.verdict = () => 'known';
    const pooled = bundleOf('pooled');
    first.submit(pooled);
    t.equal((await first.admission()).code, 'known');
    void replica.decide([[pooled]]);
    t.equal((await first.next('receipts')).receipts.length, 1, 'known, not decided: it comes with the block');
  },
);

t.test('verdicts that end a wait, and a full replica', async (t) => {
  const { replica, client, gateway } = await world(t);
  const mine = await client();
  for (const code of [
    'pool-full',
    'client-quota',
    'sequence-gap',
    'sequence-taken',
    'expired',
    'valid-until-too-far',
    'sessions-full',
  ] as const) {
    replica.verdict = () => code;
    mine.submit(bundleOf(code));
    t.equal((await mine.admission()).code, code);
    t.equal(gateway.desk.size, 0, `${code}: nobody waits any more`);
  }
  replica.takes = false;
  mine.submit(bundleOf('busy'));
  t.equal((await mine.admission()).code, 'busy');
  t.equal(gateway.desk.size, 0);
  replica.takes = true;
  replica.verdict = () => undefined;
  mine.submit(bundleOf('waits'));
  await mine.settled();
  t.equal(gateway.desk.size, 1);
  mine.ws.terminate();
  const other = await client();
  await other.until('the end of the first', () => (gateway.connections === 1 ? true : undefined));
  t.equal(gateway.desk.size, 0, 'a connection that ends waits for nothing');
});

t.test('limits: bundles in flight, even shares, and the rate of a key (A14)', async (t) => {
  const { client, gateway } = await world(t, {
    gateway: { connectionBundlesMax: 6, waitingBundlesMax: 10, rate: { perSecond: 0.001, burst: 12 }, queryTokens: 1 },
  });
  const greedy = await client();
  const greedyCodes = async (from: DoorClient, count: number, key: TestKey) => {
    for (let i = 0; i < count; i++) from.submit(bundleOf('g', { key }));
    const codes = [];
    for (let i = 0; i < count; i++) codes.push((await from.admission()).code);
    return codes.sort().join();
  };
  t.equal(
    await greedyCodes(greedy, 8, fixture.client),
    'busy,busy,pooled,pooled,pooled,pooled,pooled,pooled',
    'its own bound',
  );
  const honestKey = keyOf(filled(0x41));
  const honest = await client(honestKey);
  t.equal(await greedyCodes(honest, 4, honestKey), 'pooled,pooled,pooled,pooled', 'room is left for others');
  const lateKey = keyOf(filled(0x42));
  const late = await client(lateKey);
  t.equal(await greedyCodes(late, 1, lateKey), 'busy', 'all places are taken');
  t.equal(gateway.desk.size, 10);
  t.equal(await greedyCodes(greedy, 6, fixture.client), 'busy,busy,busy,busy,busy,busy');
  const again = await client();
  again.send({ kind: 'query-bundle', question: 1, digest: fixture.hashOf(3) });
  t.equal(await again.closed(), 'rate', "the bucket is the key's, not the connection's");
});

t.test('what an honest client never sends (A12, A26): a code, never a crash', async (t) => {
  const { client, replica, metrics } = await world(t);
  const good = bundleOf('good');
  const bad = { ...good, signature: filled(7, 64) };
  const forger = await client();
  forger.submit(bad);
  t.equal(await forger.closed(), 'bundle-signature', 'an invalid signature costs the connection');
  const thief = await client();
  thief.submit({ ...good, client: doorKey.publicKey });
  t.equal(await thief.closed(), 'bundle-sender', "the frame names the bundle's client");
  t.same([forger.messages, thief.messages], [[], []], 'no signed word against the digest of another');

  const relay = await client(keyOf(filled(0x51)));
  relay.submit(good);
  t.equal((await relay.admission()).code, 'pooled', 'the client of a bundle need not be the connection');
  relay.raw(encodeFrame({ kind: 'submit', payload: text('nonsense'), signature: good.signature, sender: good.client }));
  t.equal((await relay.admission()).code, 'bundle-invalid');
  const outsized = encodeBundlePayload({ ...good, transactions: [new Uint8Array(parameters.transactionBytesMax + 1)] });
  relay.raw(encodeFrame({ kind: 'submit', payload: outsized, signature: good.signature, sender: good.client }));
  t.equal((await relay.admission()).code, 'bundle-invalid');

  const follow: Message = { kind: 'follow', from: asHeight(1), to: asHeight(0), headersOnly: false, credit: 1 };
  const signed = fixture.frameOf(follow, fixture.client);
  const cases: readonly (readonly [string, Bytes, string])[] = [
    ['garbage', text('garbage'), 'frame-malformed'],
    ['nothing', new Uint8Array(0), 'frame-malformed'],
    [
      'a message of replicas',
      encodeFrame(fixture.frameOf({ kind: 'fetch-checkpoint' }, fixture.client)),
      'kind-not-for-replicas',
    ],
    ['a message of the door', encodeFrame({ ...signed, kind: 'head' }), 'kind-not-for-replicas'],
    ['a handshake', encodeFrame({ ...signed, kind: 'hello' }), 'kind-not-for-replicas'],
    ['a follow of another key', encodeFrame(fixture.frameOf(follow, keyOf(filled(0x52)))), 'sender-not-the-client'],
    ['a bad signature', encodeFrame({ ...signed, signature: filled(1, 64) }), 'frame-signature'],
    ['a bad payload', encodeFrame({ ...signed, payload: text('x') }), 'payload-malformed'],
    [
      'credit of zero',
      encodeFrame({ ...signed, kind: 'credit', payload: Uint8Array.of(0x91, 0) }),
      'field-out-of-range',
    ],
  ];
  for (const [name, bytes, code] of cases) {
    const hostile = await client();
    hostile.raw(bytes);
    t.equal(await hostile.closed(), code, name);
  }
  const fuzzed = encodeFrame(signed);
  await fc.assert(
    fc.asyncProperty(fc.nat(fuzzed.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const hostile = await client();
      const bytes = Uint8Array.from(fuzzed);
      bytes[at] = bytes[at]! ^ flip;
      hostile.raw(bytes);
      return (await hostile.closed()) !== '';
    }),
    { numRuns: 40, seed: 5 },
  );
  const honest = await client();
  await honest.settled();
  t.equal(replica.submitted.length, 1, 'only the good one came through');
  t.match(await metrics.scrape(), /synod_client_refusals_total\{code="bundle-signature"\} 1/);
});

t.test('heads: on request, and to everyone when the view changes', async (t) => {
  const { replica, client } = await world(t);
  await replica.decide([[bundleOf()]]);
  const all = [await client(), await client(keyOf(filled(0x61)))];
  for (const one of all) {
    one.send({ kind: 'query-head' });
    const head = await one.next('head');
    t.strictSame([head.height, head.lowest, head.view, head.primary], [1, 1, 0, 0]);
    t.equal(head.certificate?.height, 1);
  }
  replica.explanation = { ...replica.explanation, view: asView(2), primary: asReplicaId(2) };
  replica.emit({ type: 'view-entered', view: asView(2), primary: asReplicaId(2) });
  replica.emit({ type: 'view-entered', view: asView(2), primary: asReplicaId(2) });
  for (const one of all) t.strictSame([(await one.next('head')).view], [2]);
  for (const one of all) await one.settled();
  t.equal(all[0]!.messages.length, 3, 'once for a turn');
});

// ---- follow ----------------------------------------------------------------------------------------------------------------

const follow = (
  from: number,
  more: { readonly to?: number; readonly headersOnly?: boolean; readonly credit?: number } = {},
) => {
  const { to = 0, headersOnly = false, credit = 4096 } = more;
  return { kind: 'follow', from: asHeight(from), to: asHeight(to), headersOnly, credit } as const;
};

t.test('follow from history into live: no gap, no duplicate, whatever happens meanwhile', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        history: fc.integer({ min: 0, max: 40 }),
        from: fc.integer({ min: 0, max: 45 }),
        credit: fc.integer({ min: 1, max: 20 }),
        recentBlocksMax: fc.integer({ min: 1, max: 10 }),
        followBytesMax: fc.constantFrom(1, 700, 1 << 16),
        live: fc.array(fc.record({ blocks: fc.integer({ min: 1, max: 6 }), own: fc.nat(63), turns: fc.nat(3) }), {
          minLength: 1,
          maxLength: 12,
        }),
      }),
      async ({ history, from, credit, recentBlocksMax, followBytesMax, live }) => {
        const teardown: (() => unknown)[] = [];
        const { replica, client } = await world(
          { teardown: (done) => teardown.push(done) },
          { gateway: { recentBlocksMax, followBytesMax } },
        );
        try {
          if (history > 0)
            await replica.decide(
              Array.from({ length: history }, () => [bundleOf('h')]),
              (i) => i % 3 === 0,
            );
          const mine = await client();
          mine.send(follow(from, { credit }));
          let granted = credit;
          const total = history + live.reduce((sum, { blocks }) => sum + blocks, 0);
          const first = Math.max(1, from);
          const wanted = Math.max(0, total - first + 1);
          const writes = live.map(async ({ blocks, own, turns }) => {
            for (let i = 0; i < turns; i++) await turn();
            await replica.decide(
              Array.from({ length: blocks }, () => [bundleOf('l')]),
              (i) => ((own >> i) & 1) === 1,
            );
          });
          let worst = 0;
          while (mine.blocks.length < wanted) {
            const before = mine.blocks.length;
            await mine.until(`${wanted} blocks from ${first}, have ${before}`, () =>
              mine.blocks.length > before ? true : undefined,
            );
            worst = Math.max(worst, mine.blocks.length - granted);
            const more = mine.blocks.length - granted + credit;
            if (more > 0) mine.send({ kind: 'credit', blocks: more });
            granted += Math.max(0, more);
          }
          await Promise.all(writes);
          await mine.settled();
          if (worst > 0) throw new Error(`${worst} blocks beyond the credit`);
          if (mine.blocks.length !== wanted) throw new Error(`${mine.blocks.length} blocks instead of ${wanted}`);
          const wrong = checkStream(mine.blocks, replica.blocks, first);
          if (wrong !== null) throw new Error(wrong);
          if (wanted > 0 && mine.blocks.at(-1)?.certificate === null) throw new Error('the end is not proved');
        } finally {
          for (const done of teardown) await done();
        }
      },
    ),
    { numRuns: 40, seed: 11 },
  );
  t.pass('40 runs');
});

t.test('follow: credit, headers only, the end, and a second follow', async (t) => {
  const { replica, client } = await world(t);
  await replica.decide(Array.from({ length: 20 }, () => [bundleOf('c')]));
  const mine = await client();
  mine.send(follow(1, { credit: 3 }));
  await mine.until('three blocks', () => (mine.blocks.length >= 3 ? true : undefined));
  await mine.settled();
  t.equal(mine.blocks.length, 3, 'no more than was granted');
  mine.send({ kind: 'credit', blocks: 2 });
  await mine.until('five blocks', () => (mine.blocks.length >= 5 ? true : undefined));
  await mine.settled();
  t.equal(mine.blocks.length, 5);
  t.equal(checkStream(mine.blocks, replica.blocks, 1), null);

  mine.send(follow(11, { to: 13, headersOnly: true }));
  const end = await mine.next('follow-end');
  t.strictSame([end.code, end.lowest], ['reached', 1]);
  const headers = mine.blocks.slice(5);
  t.equal(checkStream(headers, replica.blocks, 11), null);
  t.strictSame(
    headers.map(({ bundles }) => bundles),
    [null, null, null],
    'without bodies',
  );

  mine.send({ kind: 'credit', blocks: 100 });
  await mine.settled();
  t.equal(mine.blocks.length, 8, 'the first stream was replaced, and credit without a stream does nothing');
});

t.test('follow: the last block of a stream is proved, by headers above it where it must be', async (t) => {
  const { replica, client } = await world(t);
  await replica.decide(
    Array.from({ length: 10 }, () => [bundleOf('p')]),
    (i) => i % 5 === 4,
  );
  for (const recent of [true, false]) {
    // With a gap in between the recent blocks are gone, and the log answers.
    if (!recent) await replica.decide(Array.from({ length: 300 }, () => [bundleOf('p')]));
    const mine = await client();
    mine.send(follow(2, { to: 7 }));
    t.equal((await mine.next('follow-end')).code, 'reached');
    t.equal(checkStream(mine.blocks, replica.blocks, 2), null);
    t.strictSame(
      mine.blocks.map(({ bundles }) => bundles === null),
      [...Array(6).fill(false), true, true, true],
      'bodies up to 7, headers to 10',
    );
    t.equal(mine.blocks.at(-1)?.certificate?.height, 10);
  }
});

t.test('follow: below what is kept is pruned; beyond the head waits; the oldest is asked for by 0', async (t) => {
  const { replica, client } = await world(t);
  await replica.resetTo(100);
  const mine = await client();
  mine.send(follow(50));
  const pruned = await mine.next('follow-end');
  t.strictSame([pruned.code, pruned.lowest], ['pruned', 101]);
  mine.send(follow(0));
  await mine.settled();
  const ahead = await client(keyOf(filled(0x71)));
  ahead.send(follow(103));
  await ahead.settled();
  await replica.decide(Array.from({ length: 4 }, () => [bundleOf('q')]));
  await mine.until('four blocks', () => (mine.blocks.length === 4 ? true : undefined));
  await ahead.until('two blocks', () => (ahead.blocks.length === 2 ? true : undefined));
  t.equal(checkStream(mine.blocks, replica.blocks, 101), null);
  t.equal(checkStream(ahead.blocks, replica.blocks, 103), null);
});

t.test(
  'follow: a reader that stalls holds a bounded amount of memory, feels it alone, and misses nothing (A25)',
  async (t) => {
    const { replica, client, sockets } = await world(t);
    const blocks = 80;
    for (let i = 0; i < blocks; i++) await replica.decide([[bundleOf('big', { count: 4, bytes: 60_000 })]]);
    const slow = await client();
    slow.ws.pause();
    slow.send(follow(1));
    const quick = await client(keyOf(filled(0x72)));
    quick.send(follow(1));
    let worst = 0;
    await quick.until('all blocks', () => {
      worst = Math.max(worst, ...sockets.map(({ bufferedBytes }) => bufferedBytes));
      return quick.blocks.length === blocks ? true : undefined;
    });
    t.ok(worst < 4 << 20, `at most ${worst} bytes were held, of ${blocks * 240_000}`);
    t.ok(sockets[0]!.bufferedBytes > 0, 'the slow one has stalled');
    slow.ws.resume();
    await slow.until('all blocks', () => (slow.blocks.length === blocks ? true : undefined));
    t.equal(checkStream(slow.blocks, replica.blocks, 1), null);
  },
);

t.test(
  'a client that takes no answers is not asked for questions, and one that floods delays nobody (A14)',
  async (t) => {
    const { client, sockets, gateway } = await world(t);
    const flood = await client();
    flood.ws.pause();
    const frame = encodeFrame(fixture.frameOf({ kind: 'query-head' }));
    for (let i = 0; i < 20_000; i++) flood.raw(frame);
    const honest = await client(keyOf(filled(0x73)));
    await honest.settled();
    t.ok(sockets.every(({ bufferedBytes }) => bufferedBytes < 4 << 20));
    flood.ws.terminate();
    await honest.settled();
    t.ok(gateway.connections >= 1);
  },
);

t.test('drain: streams end, bundles are put off, receipts still come', async (t) => {
  const { replica, client, gateway } = await world(t);
  const mine = await client();
  const waiting = bundleOf('w');
  mine.submit(waiting);
  await mine.admission();
  mine.send(follow(1));
  await mine.settled();
  gateway.drain();
  t.equal((await mine.next('follow-end')).code, 'draining');
  mine.submit(bundleOf('late'));
  t.equal((await mine.admission()).code, 'busy');
  void replica.decide([[waiting]]);
  t.equal((await mine.next('receipts')).receipts.length, 1);
  gateway.close();
  t.equal(await mine.closed(), 'draining');
});

// ---- HTTP ------------------------------------------------------------------------------------------------------------------

const hex = (...values: string[]) =>
  JSON.stringify({ encoding: 'hex', transactions: values.map((value) => toHex(text(value))) });
const typed = (value: string) => ({ 'content-type': value });
const jsonType = typed('application/json');

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // Whatever JSON came: the assertions say what it must be.
  readonly body: Readonly<Record<string, never>>;
}

async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(deadlineMs) });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] };
}

const post = (url: string, body: string | Uint8Array, headers: Record<string, string> = jsonType) =>
  ask(url, { method: 'POST', body, headers });
const codeOf = ({ body }: Answer) => (body as { error?: { code?: string } }).error?.code;
const fieldOf = ({ body }: Answer) => (body as { error?: { field?: string } }).error?.field;

/** Bytes as they are; what comes back until the other side ends. */
function rawHttp(port: number, bytes: string, then: (socket: Socket) => void = () => {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const timer = setTimeout(() => reject(new Error('no end')), deadlineMs);
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk.toString('latin1');
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(heard);
    });
    socket.write(bytes);
    then(socket);
  });
}

t.test('HTTP: transactions in, a verifiable receipt for each out', async (t) => {
  const { replica, url, errors } = await world(t);
  const bodies: readonly (readonly [string | Uint8Array, Record<string, string>, readonly string[]])[] = [
    [hex('one', 'two', 'three'), jsonType, ['one', 'two', 'three']],
    [
      JSON.stringify({ encoding: 'base64', transactions: [Buffer.from('four').toString('base64')] }),
      jsonType,
      ['four'],
    ],
    [text('five'), typed('application/octet-stream'), ['five']],
    [hex('six'), { 'content-type': 'application/json; charset=UTF-8' }, ['six']],
  ];
  for (const [body, headers, expected] of bodies) {
    const before = replica.submitted.length;
    const answer = post(`${url}/v1/transactions`, body, headers);
    await replica.waits.until('a bundle', () => (replica.submitted.length > before ? true : undefined));
    await replica.decide([[bundleOf(), ...replica.submitted.slice(before)], [bundleOf()]], () => false);
    const { status, body: result } = await answer;
    t.equal(status, 200);
    t.match(result, { status: 'committed', transactionCount: expected.length, firstTransaction: 2 });
    const receipts = (result as unknown as { receipts: unknown[] }).receipts;
    t.strictSame(
      receipts.map((receipt) => {
        const proven = verifyTransactionReceipt(JSON.stringify(receipt), context);
        return 'refused' in proven ? proven : Buffer.from(proven.transaction).toString();
      }),
      expected,
    );
    const again = await ask(`${url}/v1/bundles/${(result as unknown as { bundle: string }).bundle}`);
    t.strictSame(again.body, result, 'the same from the log');
    const part = await ask(
      `${url}/v1/bundles/${(result as unknown as { bundle: string }).bundle}?first=${expected.length - 1}&count=1&receipts=none`,
    );
    t.match(part.body, { transactionCount: 1, firstTransaction: 1 + expected.length });
    t.notOk('receipts' in part.body);
  }
  t.strictSame(
    replica.submitted.map(({ sequence }) => sequence),
    [1, 2, 3, 4],
    'one session, in sequence',
  );
  t.strictSame(errors, []);
});

t.test('HTTP: requests of one moment share bundles; accepted, pending, refused, taken back', async (t) => {
  const { replica, url, metrics } = await world(t);
  const many = Array.from({ length: 30 }, (_, i) => post(`${url}/v1/transactions?receipts=none`, hex(`m${i}`)));
  // Nothing is decided before every session has a bundle in flight: the other requests wait, and then go together.
  await replica.waits.until('eight bundles', () => (replica.submitted.length >= 8 ? true : undefined));
  const metricsSay = async () => /synod_http_connections (\d+)/.exec(await metrics.scrape())?.[1];
  while ((await metricsSay()) !== '30') await turn();
  const timer = setInterval(() => {
    const open = replica.submitted.filter(
      (bundle) => !replica.blocks.some(({ block }) => block.bundles.includes(bundle)),
    );
    if (open.length > 0) void replica.decide([open]);
  }, 1);
  const answers = await Promise.all(many);
  clearInterval(timer);
  t.ok(answers.every(({ status }) => status === 200));
  const ordered = replica.blocks.flatMap(({ block }) =>
    block.bundles.flatMap(({ transactions }) => transactions.map((each) => Buffer.from(each).toString())),
  );
  t.strictSame([...ordered].sort(), Array.from({ length: 30 }, (_, i) => `m${i}`).sort(), 'each once');
  t.ok(replica.submitted.length < 30, `${replica.submitted.length} bundles`);

  const accepted = await post(`${url}/v1/transactions?wait=accepted`, hex('a'));
  t.equal(accepted.status, 202);
  t.match(accepted.body, { status: 'accepted', transactionCount: 1 });
  const location = accepted.headers.get('location') ?? '';
  t.equal((await ask(`${url}${location}`)).status, 404, 'not decided yet');
  await replica.decide([[replica.submitted.at(-1)!]]);
  t.match((await ask(`${url}${location}`)).body, { status: 'committed' });

  const pending = await post(`${url}/v1/transactions?timeout=20`, hex('p'));
  t.strictSame([pending.status, (pending.body as { status?: string }).status], [202, 'pending']);

  for (const code of ['pool-full', 'client-quota', 'sessions-full', 'expired'] as const) {
    replica.verdict = () => code;
    const refused = await post(`${url}/v1/transactions`, hex(code));
    t.strictSame(
      [refused.status, codeOf(refused)],
      [code === 'client-quota' ? 429 : 503, code === 'expired' ? 'not-ordered' : code],
    );
    t.equal(refused.headers.get('retry-after'), '1');
  }
  replica.takes = false;
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('b'))), 'busy');
  replica.takes = true;
  // The session is gone: what was refused goes into a new one, and is not lost.
  let gaps = 0;
  replica.verdict = ({ sequence }) => (sequence > 1 && gaps++ < 2 ? 'sequence-gap' : 'pooled');
  const before = replica.submitted.length;
  const moved = post(`${url}/v1/transactions?receipts=none`, hex('moved'));
  const fresh = await replica.waits.until('a bundle of a new session', () =>
    replica.submitted.slice(before).find(({ sequence }) => sequence === 1),
  );
  await replica.decide([[fresh]]);
  t.equal((await moved).status, 200);
});

t.test('HTTP: an Idempotency-Key joins the first request', async (t) => {
  const { replica, url } = await world(t);
  const headers = { ...jsonType, 'idempotency-key': 'k-1' };
  const first = await post(`${url}/v1/transactions?wait=accepted`, hex('once'), headers);
  const second = post(`${url}/v1/transactions`, hex('once'), headers);
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('twice'), headers)), 'idempotency-key-reused');
  t.equal(
    codeOf(await post(`${url}/v1/transactions`, hex('x'), { ...jsonType, 'idempotency-key': 'ä b' })),
    'idempotency-key-invalid',
  );
  await replica.decide([replica.submitted]);
  t.equal((await second).body.bundle, first.body.bundle);
  t.equal(replica.submitted.length, 1);
});

t.test('HTTP: reads', async (t) => {
  const { replica, url, http } = await world(t);
  t.match((await ask(`${url}/v1/blocks`)).body, { blocks: [], head: 0, lowest: 1 }, 'an empty log');
  await replica.decide(
    Array.from({ length: 40 }, () => [bundleOf('r')]),
    (i) => i % 2 === 1,
  );
  const newest = (await ask(`${url}/v1/blocks`)).body as unknown as {
    blocks: { header: { height: number }; certificate: unknown }[];
    next: number;
  };
  t.strictSame([newest.blocks.length, newest.blocks[0]?.header.height, newest.next], [32, 9, 41]);
  const some = (await ask(`${url}/v1/blocks?from=3&limit=2`)).body as unknown as typeof newest;
  t.strictSame(
    some.blocks.map(({ header, certificate }) => [header.height, certificate === null]),
    [
      [3, true],
      [4, false],
    ],
  );
  const one = (await ask(`${url}/v1/blocks/7`)).body as unknown as {
    header: { hash: string };
    links: string[];
    bundles: { transactions: string[] }[];
  };
  const truth = replica.blocks[6]!.block;
  t.equal(one.header.hash, toHex(truth.hash));
  t.equal(one.links.length, 1, 'the header above, which is certified');
  t.strictSame(one.bundles[0]?.transactions, truth.bundles[0]!.transactions.map(toHex));
  const based = (await ask(`${url}/v1/blocks/7?encoding=base64`)).body as unknown as typeof one;
  t.strictSame(
    based.bundles[0]?.transactions,
    truth.bundles[0]!.transactions.map((each) => Buffer.from(each).toString('base64')),
  );
  t.equal(codeOf(await ask(`${url}/v1/blocks/41`)), 'block-not-found');
  for (const [path, code] of [
    ['/v1/blocks/0', 'path-invalid'],
    ['/v1/blocks/1e3', 'path-invalid'],
    ['/v1/blocks/99999999999999999999', 'path-invalid'],
    ['/v1/blocks/', 'path-invalid'],
    ['/v1/blocks/7?encoding=xml', 'query-invalid'],
    ['/v1/blocks/7?colour=red', 'query-invalid'],
    ['/v1/blocks?from=1&from=2', 'query-invalid'],
    ['/v1/blocks?limit=257', 'query-invalid'],
    ['/v1/bundles/xyz', 'path-invalid'],
    [`/v1/bundles/${'0'.repeat(64)}`, 'bundle-not-found'],
    ['/v2/blocks', 'not-found'],
    ['/../etc/passwd', 'not-found'],
    ['/%00', 'not-found'],
    [`/${'x'.repeat(3000)}`, 'path-invalid'],
  ] as const)
    t.equal(codeOf(await ask(url + path)), code, path.slice(0, 60));
  const genesisBytes = new Uint8Array(await (await fetch(`${url}/v1/genesis`)).arrayBuffer());
  t.ok(equalBytes(genesisBytes, genesisDocument), 'byte for byte');
  t.match(await (await fetch(`${url}/metrics`)).text(), /synod_height 40/);
  t.strictSame((await ask(`${url}/v1/openapi.json`)).body, openapi);
  const head = await fetch(`${url}/healthz`, { method: 'HEAD' });
  t.strictSame([head.status, await head.text()], [200, '']);
  t.equal(http.routes.length, 12);
  await replica.resetTo(900);
  const pruned = await ask(`${url}/v1/blocks/7`);
  t.strictSame([pruned.status, codeOf(pruned)], [410, 'block-pruned']);
});

t.test('HTTP: /readyz says why not, /v1/status says where', async (t) => {
  const { replica, url, http } = await world(t);
  const calm = replica.explanation;
  t.match((await ask(`${url}/readyz`)).body, { ready: true, height: 0 });
  const away = calm.peers.map((peer, i) => ({ ...peer, connected: i === 0 }));
  const since = asMillis(calm.at - 400);
  const wait = {
    what: 'view-change',
    height: asHeight(1),
    view: asView(1),
    have: 1,
    need: 3,
    missing: [asReplicaId(2)],
    since,
  } as const;
  for (const [explanation, code, words] of [
    [
      { ...calm, peers: away },
      'no-quorum',
      '2 of 4 replicas answer, 3 are needed; replica-2 was last heard 0 ms ago, replica-3 was last heard 0 ms ago',
    ],
    [
      { ...calm, phase: 'view-change', waits: [wait] },
      'view-change',
      'no view is active for 400 ms: 1 of 4 replicas ask for view 1, 3 are needed; replica-2 answers and has not asked',
    ],
    [
      { ...calm, phase: 'catching-up', highestSeen: asHeight(900) },
      'catching-up',
      'replica-1 is catching up: at height 0 of 900',
    ],
    [{ ...calm, highestSeen: asHeight(9) }, 'catching-up', 'replica-1 is catching up: at height 0 of 9'],
  ] as const) {
    replica.explanation = explanation;
    const { status, body } = await ask(`${url}/readyz`);
    t.strictSame([status, body], [503, { error: { code, message: words } }]);
  }
  replica.explanation = { ...calm, highestSeen: asHeight(8), waits: [{ ...wait, what: 'prepare' }] };
  t.equal((await ask(`${url}/readyz`)).status, 200, 'a window ahead is the normal case');
  const { body } = await ask(`${url}/v1/status`);
  t.match(body, {
    node: { name: 'replica-1', version: '0.1.0' },
    chain: { name: 'doors', chainId: toHex(chainId), protocol: 'pbft' },
    ready: true,
    primary: { name: 'replica-0' },
    waits: [{ missing: [{ name: 'replica-2' }], words: /1 of 3/ }],
    peers: [{ name: 'replica-0' }, { name: 'replica-2' }, { name: 'replica-3' }],
  });
  http.drain();
  t.equal(codeOf(await ask(`${url}/readyz`)), 'draining');
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('x'))), 'draining');
  t.equal((await ask(`${url}/healthz`)).status, 200, 'alive all the same');
});

t.test('HTTP: hostile bodies get a code, and nothing is submitted (A26)', async (t) => {
  const { replica, url, errors } = await world(t);
  const where = `${url}/v1/transactions`;
  const octets = typed('application/octet-stream');
  const unsupported = 'content-type-unsupported';
  for (const [name, body, headers, code, field] of [
    ['not JSON', '{"transactions":', jsonType, 'body-not-json', undefined],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), jsonType, 'body-not-json', undefined],
    ['deep', '['.repeat(200_000), jsonType, 'body-not-json', undefined],
    ['deep and closed', '['.repeat(100_000) + ']'.repeat(100_000), jsonType, 'body-invalid', undefined],
    ['null', 'null', jsonType, 'body-invalid', undefined],
    ['nothing', '', jsonType, 'body-not-json', undefined],
    ['no transaction', hex(), jsonType, 'body-invalid', 'transactions'],
    ['an empty one', hex('a', ''), jsonType, 'transaction-empty', 'transactions.1'],
    ['no encoding', '{"transactions":["aa"]}', jsonType, 'body-invalid', 'encoding'],
    ['not hex', '{"encoding":"hex","transactions":["aa","xy"]}', jsonType, 'body-invalid', 'transactions.1'],
    ['odd hex', '{"encoding":"hex","transactions":["aaa"]}', jsonType, 'body-invalid', 'transactions.0'],
    ['not base64', '{"encoding":"base64","transactions":["a"]}', jsonType, 'body-invalid', 'transactions.0'],
    ['numbers', '{"encoding":"hex","transactions":[1]}', jsonType, 'body-invalid', 'transactions.0'],
    ['an object', '{"encoding":"hex","transactions":{"length":3}}', jsonType, 'body-invalid', 'transactions'],
    ['unknown', '{"encoding":"hex","transactions":["aa"],"x":1}', jsonType, 'body-invalid', 'x'],
    ['__proto__', '{"__proto__":{"encoding":"hex"},"transactions":["aa"]}', jsonType, 'body-invalid', '__proto__'],
    [
      'too many',
      `{"encoding":"hex","transactions":[${'"aa",'.repeat(1024)}"aa"]}`,
      jsonType,
      'transactions-too-many',
      'transactions',
    ],
    ['a large one', hex('x'.repeat(131_073)), jsonType, 'transaction-too-large', 'transactions.0'],
    ['large together', hex('x'.repeat(131_072), 'y'.repeat(131_072)), jsonType, 'bundle-too-large', 'transactions'],
    ['an empty body', new Uint8Array(0), octets, 'body-empty', undefined],
    ['a large body', new Uint8Array(131_073), octets, 'transaction-too-large', undefined],
    ['a huge body', new Uint8Array(2 << 20), octets, 'body-too-large', 'content-length'],
    ['a form', 'a=b', typed('application/x-www-form-urlencoded'), unsupported, 'content-type'],
    ['another charset', hex('a'), typed('application/json; charset=utf-16'), unsupported, 'content-type'],
    [
      'packed',
      hex('a'),
      { ...jsonType, 'content-encoding': 'gzip' },
      'content-encoding-unsupported',
      'content-encoding',
    ],
  ] as const) {
    const answer = await post(where, body, headers);
    t.strictSame([codeOf(answer), fieldOf(answer)], [code, field], name);
  }
  for (const [query, code] of [
    ['wait=forever', 'query-invalid'],
    ['timeout=0', 'query-invalid'],
    ['timeout=60001', 'query-invalid'],
    ['x', 'query-invalid'],
  ])
    t.equal(codeOf(await post(`${where}?${query}`, hex('a'))), code, query ?? '');
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (body) => {
      const { status } = await post(where, body);
      return status >= 400 && status < 500;
    }),
    { numRuns: 100, seed: 3 },
  );
  t.equal(replica.submitted.length, 0);
  t.strictSame(errors, []);
});

t.test('HTTP: methods, malformed requests, slow ones, and floods (A25)', async (t) => {
  const { url, http, replica } = await world(t, {
    http: { requestMsMax: 300, headersMsMax: 200, checkMs: 20, bodiesBytesMax: 2 << 20 },
  });
  for (const [method, path, allow] of [
    ['DELETE', '/v1/blocks', 'GET, HEAD'],
    ['GET', '/v1/transactions', 'POST'],
    ['OPTIONS', '/v1/transactions', 'POST'],
  ] as const) {
    const answer = await ask(url + path, { method });
    t.strictSame(
      [answer.status, codeOf(answer), answer.headers.get('allow')],
      [405, 'method-not-allowed', allow],
      `${method} ${path}`,
    );
  }
  const head = 'POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
  for (const [name, bytes, expected] of [
    ['not HTTP', 'hello\r\n\r\n', /^HTTP\/1.1 400 .*"code":"request-malformed"/s],
    [
      'large headers',
      `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(9000)}\r\n\r\n`,
      /^HTTP\/1.1 431 .*"code":"headers-too-large"/s,
    ],
    ['two lengths', `${head}content-length: 4\r\ncontent-length: 5\r\n\r\nabcd`, /^HTTP\/1.1 400 /],
    [
      'a length and chunks',
      `${head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
      /^HTTP\/1.1 400 /,
    ],
    ['a negative length', `${head}content-length: -1\r\n\r\n`, /^HTTP\/1.1 400 /],
    ['headers that never end', 'GET / HTTP/1.1\r\nhost: x\r\n', /^HTTP\/1.1 408 .*"code":"request-timeout"/s],
    ['a body that never ends', `${head}content-length: 100\r\n\r\n{`, /^HTTP\/1.1 408 .*"code":"request-timeout"/s],
    [
      'chunks beyond the bound',
      `${head}transfer-encoding: chunked\r\n\r\n${`ffff\r\n${'a'.repeat(0xffff)}\r\n`.repeat(10)}`,
      /^HTTP\/1.1 413 .*"code":"body-too-large"/s,
    ],
    [
      'a length beyond the bound',
      `${head}content-length: 999999999\r\n\r\n`,
      /^HTTP\/1.1 413 .*"code":"body-too-large"/s,
    ],
  ] as const)
    t.match(await rawHttp(http.port, bytes), expected, name);

  // Bodies that were announced and never come take their memory from a bounded budget.
  const uploads = Array.from({ length: 6 }, () => rawHttp(http.port, `${head}content-length: 500000\r\n\r\n{`));
  const answers = await Promise.all(uploads);
  t.equal(answers.filter((answer) => answer.includes('"code":"busy"')).length, 2, 'two of six find no room');
  t.equal(answers.filter((answer) => answer.includes('"code":"request-timeout"')).length, 4);
  const after = post(`${url}/v1/transactions?wait=accepted`, hex('after'));
  t.equal((await after).status, 202, 'the memory came back');

  // A client that goes away in the middle.
  await rawHttp(http.port, `${head}content-length: 100\r\n\r\n{`, (socket) => socket.destroy());
  t.equal((await ask(`${url}/healthz`)).status, 200);
  t.equal(replica.submitted.length, 1);
});

t.test('HTTP: without a key of its own the door only reads; answers that nobody takes are bounded', async (t) => {
  const { url } = await world(t, { signer: null, http: { answersBytesMax: 3000 } });
  t.equal(codeOf(await post(`${url}/v1/transactions`, hex('x'))), 'submissions-disabled');
  const full = await ask(`${url}/v1/openapi.json`);
  t.strictSame([full.status, codeOf(full)], [503, 'busy']);
});

t.test('HTTP: a fault of ours is a code, its cause stays inside', async (t) => {
  const { url, replica, errors } = await world(t);
  await replica.decide([[bundleOf()]]);
  await replica.log.close();
  const answer = await ask(`${url}/v1/blocks?from=1`);
  t.strictSame([answer.status, codeOf(answer)], [500, 'internal']);
  t.notMatch(JSON.stringify(answer.body), /storage/);
  t.match(String(errors[0]), /storage-closed/);
});

t.test('HTTP: closing answers what is open, then ends', async (t) => {
  const { url, http, replica } = await world(t, { http: { closeMsMax: 5_000 } });
  const open = post(`${url}/v1/transactions`, hex('last'));
  const bundle = await replica.waits.until('the bundle', () => replica.submitted[0]);
  const closed = http.close();
  await replica.decide([[bundle]]);
  t.equal((await open).status, 200);
  await closed;
  await t.rejects(fetch(`${url}/healthz`));
});

t.test('openapi.json describes exactly the routes, their parameters and the codes', async (t) => {
  const { http } = await world(t);
  interface Operation {
    readonly operationId: string;
    readonly parameters?: readonly { readonly name: string; readonly in: string }[];
    readonly responses: Readonly<Record<string, { readonly description: string }>>;
  }
  // The cast: the document's own type knows only the paths that it has.
  const paths = openapi.paths as Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  t.strictSame(documented.sort(), http.routes.map(({ method, path }) => `${method} ${path}`).sort());
  for (const { method, path, query } of http.routes) {
    const { parameters = [], responses } = paths[path]![method.toLowerCase()]!;
    const named = (place: string) => parameters.filter((each) => each.in === place).map(({ name }) => name);
    t.strictSame(named('query'), [...query], `${path}: query`);
    t.strictSame(
      named('path'),
      [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
      `${path}: path`,
    );
    t.ok('200' in responses, path);
  }
  t.strictSame(
    [...openapi.components.schemas.Error.properties.error.properties.code.enum].sort(),
    [...problemCodes].sort(),
  );
  const references = JSON.stringify(openapi).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g);
  t.strictSame(
    [...new Set([...references].map(([, name]) => name ?? ''))].filter((name) => !(name in openapi.components.schemas)),
    [],
  );
  const mentioned = new Set(
    [...JSON.stringify(openapi.paths).matchAll(/Codes: ([a-z, -]+)\./g)].flatMap(([, list]) =>
      (list ?? '').split(', '),
    ),
  );
  const general = ['not-found', 'method-not-allowed', 'headers-too-large'];
  t.strictSame(
    problemCodes.filter((code) => !mentioned.has(code) && !general.includes(code)),
    [],
    'every code stands at a route',
  );
});
