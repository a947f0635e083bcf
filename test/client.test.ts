// The client SDK against replicas that are made up here: real sockets, the real handshake, real keys and certificates, and for every
// lie that a replica can tell an honest one with that one answer replaced.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { type WebSocket, WebSocketServer } from 'ws';
import {
  BundleReceipt,
  type Client,
  ClientError,
  type ClientOptions,
  connect,
  type FollowedBlock,
  Receipt,
  verifyReceiptFile,
} from '../client/index.ts';
import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { type Block, memberSetHash } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { decodeFrame, decodeMessage, encodeFrame, encodePayload, isRefusal } from '../protocol/codec.ts';
import type * as door from '../protocol/door.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Handshake, type HandshakeMessage } from '../protocol/handshake.ts';
import { genesisBlock } from '../protocol/ledger.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView, type ReplicaId } from '../protocol/types.ts';
import { signingBytes } from '../protocol/verify.ts';
import {
  block,
  bundle,
  certificate,
  chainId,
  filled,
  keyOf,
  members,
  must,
  parameters,
  receipt,
  replicas as replicaKeys,
  sha256,
  type TestKey,
  text,
} from './wire-fixtures.ts';

// All of the file, on a busy machine.
t.setTimeout(200_000);

const genesis: Genesis = {
  chainId,
  name: 'test',
  protocol: 'pbft',
  createdAt: asMillis(0),
  members,
  parameters: { ...parameters, viewTimeoutMs: 50, heartbeatMs: 10 },
};
const seed = filled(0x65);
const genesisHash = genesisBlock({
  sha256,
  genesis,
  memberSetHash: memberSetHash(sha256, asEpoch(0), members),
}).hash;

// ---- replicas made up -------------------------------------------------------------------------------------------------

/** What is decided, and what waits to be: the part that honest replicas agree on. */
class Log {
  readonly blocks: Block[] = [];
  readonly pool: SignedBundle[] = [];
  readonly places = new Map<string, { readonly block: Block; readonly index: number }>();
  readonly #sessions = new Map<string, number>();
  /** Off: bundles wait for `order`. */
  automatic = true;
  view = 0;
  /** Heights whose certificate is left to the next block. */
  uncertified: (height: number) => boolean = () => false;
  readonly onBlock = new Set<() => void>();

  get height(): number {
    return this.blocks.length;
  }

  admit(bundle: SignedBundle): door.BundleAdmission['code'] {
    if (this.places.has(toHex(bundle.digest))) return 'known';
    if (this.pool.some(({ digest }) => equalBytes(digest, bundle.digest))) return 'known';
    const session = `${toHex(bundle.client)}.${bundle.session}`;
    const waiting = this.pool.filter((each) => `${toHex(each.client)}.${each.session}` === session).length;
    const last = (this.#sessions.get(session) ?? 0) + waiting;
    if (bundle.sequence <= last) return 'sequence-passed';
    if (bundle.sequence > last + 1) return 'sequence-gap';
    if (bundle.validUntil <= this.height) return 'expired';
    this.pool.push(bundle);
    if (this.automatic && this.pool.length === 1) setImmediate(() => this.order());
    return 'pooled';
  }

  order(bundles: readonly SignedBundle[] = this.pool.splice(0)): void {
    if (bundles.length === 0) return;
    for (const { client, session, sequence } of bundles) this.#sessions.set(`${toHex(client)}.${session}`, sequence);
    const parent = this.blocks.at(-1)?.hash ?? genesisHash;
    const made = block(bundles, { height: this.height + 1, parent });
    for (const [index, { digest }] of bundles.entries()) this.places.set(toHex(digest), { block: made, index });
    this.blocks.push(made);
    for (const tell of this.onBlock) tell();
  }

  /** Blocks of somebody else. */
  grow(count: number): void {
    for (let i = 0; i < count; i++) this.order([foreignBundle(this.height + 1)]);
  }

  receiptOf(digest: Bytes): door.BundleReceipt | undefined {
    const place = this.places.get(toHex(digest));
    return place && receipt(place.block, place.index);
  }
}

const foreignKey = keyOf(filled(0x77));
const foreignBundle = (sequence: number) =>
  bundle(sequence, [text(`foreign ${sequence}.0`), text(`foreign ${sequence}.1`)], foreignKey);

/** One client connection of a replica. */
class Door {
  readonly socket: WebSocket;
  readonly replica: Replica;
  readonly handshake: Handshake;
  authenticated = false;
  follow: { next: number; to: number; headersOnly: boolean; credit: number; sent: number } | null = null;
  /** Bundles this client waits for. */
  readonly waiting = new Set<string>();
  /** Stays connected and says nothing any more. */
  silent = false;

  constructor(socket: WebSocket, replica: Replica) {
    this.socket = socket;
    this.replica = replica;
    this.handshake = new Handshake({
      crypto: native,
      chainId,
      epoch: asEpoch(0),
      members: replica.rogue
        ? members.map((m, i) => (i === replica.id ? { ...m, publicKey: replica.key.publicKey } : m))
        : members,
      side: 'responder',
      role: 'replica',
      key: replica.key.publicKey,
      nonce: globalThis.crypto.getRandomValues(new Uint8Array(32)),
      expected: null,
    });
    this.handshake.start();
    socket.on('message', (data) => this.#received(data as Buffer));
    socket.on('error', () => socket.terminate());
  }

  #received(data: Buffer): void {
    const frame = decodeFrame(data);
    if (isRefusal(frame)) throw new Error(`the client sent a bad frame: ${frame.refused}`);
    if (!this.authenticated) {
      if (!this.replica.greets) return;
      const step = this.handshake.receive(frame);
      if ('refused' in step) return this.socket.close();
      for (const message of step.send) this.send(message);
      if (step.peer !== null) {
        this.authenticated = true;
        this.replica.doors.add(this);
        this.socket.on('close', () => this.replica.doors.delete(this));
      }
      return;
    }
    const message = must(decodeMessage(frame, { sha256, parameters: genesis.parameters }));
    const bytes = message.kind === 'submit' ? null : signingBytes(chainId, message as never, frame.payload);
    if (bytes !== null && !native.verify(frame.sender, bytes, frame.signature)) throw new Error('an unsigned request');
    this.replica.hear(this, message as door.ClientMessage);
  }

  send(message: door.DoorMessage | HandshakeMessage): void {
    if (this.silent) return;
    const payload = encodePayload(message);
    const { key } = this.replica;
    const signature = key.sign(signingBytes(chainId, message as never, payload));
    this.socket.send(encodeFrame({ kind: message.kind, payload, sender: key.publicKey, signature }));
  }

  admissions(...admissions: readonly door.BundleAdmission[]): void {
    this.send({ kind: 'admissions', admissions });
  }

  admission(bundle: SignedBundle, code: door.BundleAdmission['code']): void {
    this.admissions({ digest: bundle.digest, code, height: asHeight(this.replica.log.height) });
  }

  pump(): void {
    const { log } = this.replica;
    const stream = this.follow;
    if (stream === null || this.replica.withholdsAbove < stream.next) return;
    while (stream.next <= log.height && stream.next <= this.replica.withholdsAbove) {
      const beyond = stream.to !== 0 && stream.next > stream.to;
      const proved = stream.next === 1 || !log.uncertified(stream.next - 1);
      if (beyond && proved) break;
      if (!beyond && stream.credit === 0) return;
      const made = log.blocks[stream.next - 1]!;
      const whole: door.FollowedBlock = {
        headerBytes: made.headerBytes,
        bundles:
          stream.headersOnly || beyond ? null : made.bundles.map(({ payload, signature }) => ({ payload, signature })),
        certificate: log.uncertified(stream.next) ? null : certificate(made),
      };
      stream.next += 1;
      if (!beyond) stream.credit -= 1;
      stream.sent += 1;
      this.send({ kind: 'follow-blocks', blocks: [this.replica.changesBlock(whole, made)] });
      if (stream.next > this.replica.silentAbove && !this.silent) {
        this.silent = true;
        this.replica.fellSilent += 1;
      }
    }
    if (stream.to !== 0 && stream.next > stream.to) {
      this.follow = null;
      this.send({ kind: 'follow-end', code: 'reached', lowest: asHeight(this.replica.lowest) });
    }
  }
}

/** An honest replica; tests replace single answers. */
class Replica {
  readonly id: ReplicaId;
  readonly log: Log;
  readonly key: TestKey;
  readonly rogue: boolean;
  readonly doors = new Set<Door>();
  readonly heard: door.ClientMessage[] = [];
  readonly submitted: SignedBundle[] = [];
  #server: WebSocketServer | null = null;
  #port = 0;
  lowest = 1;
  withholdsAbove = Number.POSITIVE_INFINITY;
  /** After the block of this height a stream's connection is silent for good. */
  silentAbove = Number.POSITIVE_INFINITY;
  fellSilent = 0;
  /** False: whoever connects has no answer to its handshake. */
  greets = true;
  changesBlock: (block: door.FollowedBlock, made: Block) => door.FollowedBlock = (same) => same;
  changesReceipt: (receipt: door.BundleReceipt, bundle: SignedBundle | undefined) => door.BundleReceipt = (same) =>
    same;
  /** False: the receipts of decided bundles are kept back. */
  answers = true;
  onSubmit: (door: Door, bundle: SignedBundle) => void = (door, bundle) => this.admit(door, bundle);
  onHead: (door: Door) => void = (door) => door.send(this.head());
  onQuery: (door: Door, query: door.QueryBundle) => void = (door, query) => {
    const found = this.log.receiptOf(query.digest);
    if (found === undefined) return this.deny(door, query);
    const receipts = [this.changesReceipt(found, undefined)];
    door.send({ kind: 'receipts', answer: this.answerTo(query), receipts });
  };

  constructor(id: number, log: Log, key: TestKey = replicaKeys[id]!) {
    this.id = asReplicaId(id);
    this.log = log;
    this.key = key;
    this.rogue = key !== replicaKeys[id];
    log.onBlock.add(() => this.decided());
  }

  get url(): string {
    return `ws://127.0.0.1:${this.#port}`;
  }
  get name(): string {
    return members[this.id]!.name;
  }

  async start(): Promise<void> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: this.#port, perMessageDeflate: false });
    server.on('connection', (socket) => new Door(socket, this));
    await once(server, 'listening');
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  dropAll(): void {
    for (const socket of this.#server?.clients ?? []) socket.terminate();
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    for (const socket of server.clients) socket.terminate();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  head(): door.Head {
    const { log } = this;
    const tip = log.blocks.at(-1);
    return {
      kind: 'head',
      epoch: asEpoch(0),
      view: asView(log.view),
      primary: asReplicaId(log.view % 4),
      height: asHeight(log.height),
      lowest: asHeight(this.lowest),
      certificate: tip === undefined || log.uncertified(log.height) ? null : certificate(tip, 'commit', log.view),
    };
  }

  answerTo({ question, digest }: door.QueryBundle): door.QueryAnswer {
    return { question, digest, lowest: asHeight(this.lowest), height: asHeight(this.log.height) };
  }

  deny(door: Door, query: door.QueryBundle, changes: Partial<door.QueryAnswer> = {}): void {
    door.send({ kind: 'receipts', answer: { ...this.answerTo(query), ...changes }, receipts: [] });
  }

  hear(door: Door, message: door.ClientMessage): void {
    this.heard.push(message);
    switch (message.kind) {
      case 'submit':
        this.submitted.push(message.bundle);
        return this.onSubmit(door, message.bundle);
      case 'query-head':
        return this.onHead(door);
      case 'query-bundle':
        return this.onQuery(door, message);
      case 'follow': {
        const { from, to, headersOnly, credit } = message;
        if (from < this.lowest) return door.send({ kind: 'follow-end', code: 'pruned', lowest: asHeight(this.lowest) });
        door.follow = { next: from, to, headersOnly, credit, sent: 0 };
        return door.pump();
      }
      case 'credit':
        if (door.follow !== null) door.follow.credit += message.blocks;
        return door.pump();
    }
  }

  admit(door: Door, bundle: SignedBundle): void {
    const code = this.log.admit(bundle);
    door.admission(bundle, code);
    if (code !== 'pooled' && code !== 'known') return;
    door.waiting.add(toHex(bundle.digest));
    this.tell(door);
  }

  tell(door: Door): void {
    if (!this.answers) return;
    const ready: door.BundleReceipt[] = [];
    for (const digest of door.waiting) {
      const place = this.log.places.get(digest);
      if (place === undefined) continue;
      door.waiting.delete(digest);
      const bundle = place.block.bundles[place.index]!;
      ready.push(this.changesReceipt(receipt(place.block, place.index), bundle));
    }
    if (ready.length > 0) door.send({ kind: 'receipts', answer: null, receipts: ready });
  }

  decided(): void {
    for (const door of this.doors) {
      this.tell(door);
      door.pump();
    }
  }
}

interface Cluster {
  readonly log: Log;
  readonly replicas: readonly Replica[];
  /** Everything that the client reported, as `name replica code`. */
  readonly events: string[];
  connect(options?: ClientOptions): Promise<Client>;
}

const quick: ClientOptions = {
  reconnectMs: 5,
  reconnectMsMax: 20,
  headIntervalMs: 20,
  // Long, so that a slow machine is not taken for a silent replica; the tests of silence set their own.
  retryMs: 60_000,
  witnessMs: 60_000,
  withholdMs: 60_000,
  connectTimeoutMs: 20_000,
};

async function cluster(
  test: { teardown(end: () => unknown): void },
  keys: Readonly<Record<number, TestKey>> = {},
): Promise<Cluster> {
  const log = new Log();
  const replicas = [0, 1, 2, 3].map((id) => new Replica(id, log, keys[id]));
  await Promise.all(replicas.map((replica) => replica.start()));
  test.teardown(() => Promise.all(replicas.map((replica) => replica.stop())));
  const events: string[] = [];
  return {
    log,
    replicas,
    events,
    async connect(options = {}) {
      const addresses = replicas.map(({ name, url }) => ({ name, url }));
      const client = await connect({ genesis, replicas: addresses, key: seed, options: { ...quick, ...options } });
      test.teardown(() => client.close());
      for (const name of ['connected', 'disconnected', 'refused', 'suspected'] as const)
        client.on(name, (event) => events.push(`${name} ${event.replica}${'code' in event ? ` ${event.code}` : ''}`));
      client.on('view', ({ view }) => events.push(`view ${view}`));
      client.on('session', () => events.push('session'));
      return client;
    },
  };
}

/** Waits for it; a test that waits in vain is ended by the runner. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => setTimeout(resolve, 1));
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return error instanceof ClientError ? error.code : String(error);
  }
}

const textOf = (bytes: Bytes) => new TextDecoder().decode(bytes);
const logOf = (log: Log) => log.blocks.flatMap((made) => made.bundles.flatMap((each) => each.transactions.map(textOf)));
const mine = (log: Log) => logOf(log).filter((each) => !each.startsWith('foreign'));

async function take(stream: AsyncIterable<FollowedBlock>, count = Number.POSITIVE_INFINITY): Promise<FollowedBlock[]> {
  const blocks: FollowedBlock[] = [];
  for await (const each of stream) {
    blocks.push(each);
    if (blocks.length >= count) break;
  }
  return blocks;
}
const heights = (blocks: readonly FollowedBlock[]) => blocks.map(({ header }) => Number(header.height));
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

// ---- connecting -------------------------------------------------------------------------------------------------------

t.test('connects, submits, and hands out a receipt that stands for itself', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect();
  const receipt = await client.submit(text('hello'));
  t.ok(receipt instanceof Receipt);
  t.equal(receipt.height, 1);
  t.equal(receipt.index, 0);
  t.equal(textOf(receipt.transaction), 'hello');
  t.ok(equalBytes(receipt.blockHash, log.blocks[0]!.hash));
  t.equal(receipt.time, log.blocks[0]!.header.time);
  t.equal(receipt.verify()?.height, 1);
  const file = JSON.stringify(receipt);
  const proven = must(verifyReceiptFile(file, { genesis, crypto: native }));
  t.equal(textOf(proven.transaction), 'hello');
  t.hasProp(verifyReceiptFile(file.replace('"index":0', '"index":1'), { genesis, crypto: native }), 'refused');
  t.equal(client.head().height, 1);
  t.equal(client.head().primary, replicas[0]!.name);
  await until(() => client.status().every(({ claimedHeight }) => claimedHeight === 1));
  for (const status of client.status()) t.match(status, { state: 'open', suspected: false, claimedView: 0 });
  t.ok(client.status().every(({ roundTripMs }) => roundTripMs !== null && roundTripMs >= 0));
  t.equal(replicas[1]!.submitted.length, 0, 'only the primary got it');
});

t.test('a replica that cannot prove its key is refused, and the others are enough', async (t) => {
  const { replicas, events, connect } = await cluster(t, { 3: keyOf(filled(0x33)) });
  const client = await connect();
  await until(() => events.some((event) => event.startsWith(`refused ${replicas[3]!.name} handshake-unexpected-peer`)));
  t.equal((await client.submit(text('a'))).height, 1);
  t.not(client.status()[3]?.state, 'open');
});

t.test('connect says what is wrong', async (t) => {
  const { replicas } = await cluster(t);
  const addresses = replicas.map(({ name, url }) => ({ name, url }));
  const one = addresses.slice(0, 1);
  t.equal(await codeOf(connect({ genesis, replicas: one })), 'too-few-replicas');
  t.equal(await codeOf(connect({ genesis, replicas: [{ name: 'nobody', url: 'ws://127.0.0.1' }] })), 'unknown-replica');
  t.equal(await codeOf(connect({ genesis: text('{}'), replicas: addresses })), 'genesis-invalid');
  t.equal(await codeOf(connect({ genesis, replicas: addresses, options: { retryMs: -1 } })), 'option-invalid');
  for (const replica of replicas.slice(1)) await replica.stop();
  const options = { ...quick, connectTimeoutMs: 50 };
  t.equal(
    await codeOf(connect({ genesis, replicas: addresses, options })),
    'connect-timeout',
    'one of four is not enough',
  );
  const wrong = addresses.map((each) => ({ ...each, url: 'not an address' }));
  t.equal(await codeOf(connect({ genesis, replicas: wrong, options })), 'connect-timeout');
});

t.test('without a key it only reads', async (t) => {
  const { replicas } = await cluster(t);
  const client = await connect({ genesis, replicas: replicas.map(({ name, url }) => ({ name, url })), options: quick });
  t.equal(await codeOf(client.submit(text('a'))), 'no-key');
  t.equal(client.head().height, 0);
  await client.close();
});

// ---- submitting -------------------------------------------------------------------------------------------------------

t.test('many at once share bundles, in order', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect();
  const names = range(1, 3000).map((i) => `tx ${i}`);
  const receipts = await Promise.all(names.map((name) => client.submit(text(name))));
  t.same(mine(log), names, 'the order of submission is the order of the log');
  t.ok(replicas[0]!.submitted.length <= 4, `${replicas[0]!.submitted.length} bundles`);
  t.same(
    replicas[0]!.submitted.map(({ sequence }) => sequence),
    range(1, replicas[0]!.submitted.length),
  );
  t.equal(new Set(replicas[0]!.submitted.map(({ session }) => session)).size, 1);
  t.same(
    receipts.map(({ transaction }) => textOf(transaction)),
    names,
  );
  const places = receipts.map(({ height, index }) => height * 10_000 + index);
  t.ok(places.every((place, i) => i === 0 || place > places[i - 1]!));
  t.ok(receipts[2999]!.verify());
  t.equal(
    textOf(must(verifyReceiptFile(JSON.stringify(receipts[1500]), { genesis, crypto: native })).transaction),
    'tx 1501',
  );
});

t.test('the first leaves at once; what comes while it is in flight waits for company', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect({ bundleDelayMs: 60_000 });
  const first = client.submit(text('first'));
  await until(() => log.pool.length === 1);
  const rest = [client.submit(text('second')), client.submit(text('third'))];
  t.same(client.pending, { transactions: 2, bundles: 1 });
  log.order();
  await first;
  await until(() => log.pool.length === 1);
  log.order();
  await Promise.all(rest);
  t.equal(replicas[0]!.submitted.length, 2);
  t.same(mine(log), ['first', 'second', 'third']);
});

t.test('a short delay ends the waiting, and a full bundle needs none', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect({ bundleDelayMs: 5, bundleTransactionsMax: 2 });
  const all = [client.submit(text('a'))];
  await until(() => replicas[0]!.submitted.length >= 1);
  all.push(client.submit(text('b')));
  await until(() => replicas[0]!.submitted.length >= 2);
  for (const name of ['c', 'd', 'e', 'f']) all.push(client.submit(text(name)));
  await until(() => replicas[0]!.submitted.length >= 4);
  log.order();
  await Promise.all(all);
  t.same(mine(log), ['a', 'b', 'c', 'd', 'e', 'f']);
});

t.test('a bundle of its own stands in one piece', async (t) => {
  const { log, connect } = await cluster(t);
  const client = await connect();
  const [before, whole, after] = await Promise.all([
    client.submit(text('before')),
    client.submitBundle([text('x'), text('y'), text('z')]),
    client.submit(text('after')),
  ]);
  t.ok(whole instanceof BundleReceipt);
  t.same(mine(log), ['before', 'x', 'y', 'z', 'after']);
  t.equal(whole.transactionCount, 3);
  const y = whole.receipt(1);
  t.equal(textOf(y.transaction), 'y');
  t.equal(y.index, whole.firstIndex + 1);
  t.equal(textOf(y.verify()!.transaction), 'y');
  t.throws(() => whole.receipt(3), RangeError);
  t.ok(before.height <= whole.height && whole.height <= after.height);
  t.equal(await codeOf(client.submitBundle([])), 'bundle-empty');
  t.equal(await codeOf(client.submitBundle(range(1, 1025).map(() => text('x')))), 'bundle-too-large');
  t.equal(await codeOf(client.submit(new Uint8Array(0))), 'transaction-empty');
  t.equal(await codeOf(client.submit(new Uint8Array(parameters.transactionBytesMax + 1))), 'transaction-too-large');
});

t.test('bytes that the caller changes too early cost nobody a reputation', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect();
  const bytes = text('before');
  const submitted = client.submit(bytes);
  await until(() => replicas[0]!.submitted.length >= 1);
  bytes.fill(0x78);
  log.order();
  const receipt = await submitted;
  t.equal(textOf(receipt.transaction), 'before', 'what was signed is what is proved');
  t.ok(receipt.verify());
  t.notOk(events.some((event) => event.startsWith('suspected')));
});

t.test('accepted is a claim, committed the proof', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect();
  const accepted = await client.submit(text('a'), { wait: 'accepted' });
  t.equal(accepted.replica, replicas[0]!.name);
  t.equal(log.height, 0);
  log.order();
  t.equal((await accepted.committed).height, 1);
});

t.test('the queue is bounded, and says when there is room again', async (t) => {
  const { log, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect({ queueTransactionsMax: 4, bundlesInFlightMax: 1, bundleTransactionsMax: 2 });
  const all = [client.submit(text('0'))];
  await until(() => log.pool.length === 1);
  for (const name of ['1', '2', '3', '4']) all.push(client.submit(text(name)));
  t.notOk(client.writable);
  t.equal(await codeOf(client.submit(text('5'))), 'client-queue-full');
  log.automatic = true;
  const drained = client.drained();
  log.order();
  await drained;
  t.ok(client.writable);
  all.push(client.submit(text('6')));
  await Promise.all(all);
  t.same(mine(log), ['0', '1', '2', '3', '4', '6']);
});

t.test('[EPO-8] a change of the epoch is a bundle of its own, whatever is submitted beside it', async (t) => {
  const { log, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect({ bundleDelayMs: 20 });
  const control = Buffer.concat([text('synod-v1:control'), text('and so on')]);
  const all = [client.submit(text('before')), client.submit(control), client.submit(text('after'))];
  await until(() => log.pool.length === 3);
  t.same(
    log.pool.map(({ transactions }) => transactions.map((each) => Buffer.from(each).toString())),
    [['before'], [control.toString()], ['after']],
  );
  log.order();
  await Promise.all(all);
});

t.test('no room is an answer: the client waits and keeps its order', async (t) => {
  for (const code of ['pool-full', 'client-quota', 'busy', 'sessions-full'] as const) {
    const { log, replicas, connect } = await cluster(t);
    const client = await connect({ bundleTransactionsMax: 1 });
    let refusals = 0;
    replicas[0]!.onSubmit = (door, bundle) => {
      if (bundle.sequence === 2 && refusals < 3) {
        refusals += 1;
        door.admission(bundle, code);
      } else replicas[0]!.admit(door, bundle);
    };
    const names = ['a', 'b', 'c', 'd', 'e'];
    await Promise.all(names.map((name) => client.submit(text(name))));
    t.same(mine(log), names, code);
    t.equal(refusals, 3);
    t.equal(replicas[1]!.submitted.length, 0, 'nobody else was troubled');
    await client.close();
  }
});

t.test('a session that replicas will soon forget is not continued', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  const client = await connect({ validBlocks: 10 });
  const before = client.session;
  await client.submit(text('a'));
  log.grow(8);
  await until(() => client.head().height === log.height);
  await client.submit(text('b'));
  t.not(client.session, before);
  t.same(
    replicas[0]!.submitted.map(({ sequence }) => sequence),
    [1, 1],
  );
  t.ok(events.includes('session'));
});

t.test('a session of the caller begins where the caller says', async (t) => {
  const { replicas, connect } = await cluster(t);
  const client = await connect({ session: { id: 77, firstSequence: 1 } });
  await client.submit(text('a'));
  t.match(replicas[0]!.submitted[0], { session: 77, sequence: 1 });
  const late = await connect({ session: { id: 77, firstSequence: 1 } });
  t.equal(await codeOf(late.submit(text('b'))), 'sequence-passed', 'f+1 replicas say so, and none has a receipt');
  t.equal((await late.submit(text('c'))).height, 2, 'the session goes on behind it');
});

// ---- faults -----------------------------------------------------------------------------------------------------------

t.test('the connection to the primary breaks: the others get what is in flight', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  const client = await connect();
  replicas[0]!.onSubmit = () => {
    replicas[0]!.onSubmit = () => undefined;
    void replicas[0]!.stop();
  };
  const receipts = await Promise.all(['a', 'b', 'c'].map((name) => client.submit(text(name))));
  t.equal(receipts.length, 3);
  t.same(mine(log), ['a', 'b', 'c']);
  t.equal(replicas[3]!.submitted.length, 0, 'f+1 others are enough');
  log.view = 1;
  for (const replica of replicas) for (const door of replica.doors) door.send(replica.head());
  await until(() => events.includes('view 1'));
  t.equal(client.head().primary, replicas[1]!.name);
  const before = replicas[2]!.submitted.length;
  await client.submit(text('d'));
  t.equal(replicas[2]!.submitted.length, before, 'the new primary alone is asked');
  await replicas[0]!.start();
  await until(() => events.filter((event) => event === `connected ${replicas[0]!.name}`).length >= 1);
});

t.test('a primary that says nothing is passed by', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect({ retryMs: 60 });
  replicas[0]!.onSubmit = () => undefined;
  await Promise.all(['a', 'b'].map((name) => client.submit(text(name))));
  t.same(mine(log), ['a', 'b']);
});

t.test('PACE-1: what stays the oldest in flight goes to f+1 others once, so that they time the primary', async (t) => {
  const { replicas, connect } = await cluster(t);
  const client = await connect({ witnessMs: 20 });
  await client.submit(text('quick'));
  replicas[0]!.onSubmit = () => undefined;
  void client.submit(text('slow')).catch(() => undefined);
  await until(() => replicas[1]!.submitted.length === 1 && replicas[2]!.submitted.length === 1);
  t.equal(replicas[3]!.submitted.length, 0, 'f+1 are enough');
  t.equal(replicas[1]!.submitted[0]?.sequence, 2, 'and what is quick goes to nobody else');
  await client.close();
});

t.test('one replica does not move the view', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect();
  const honest = replicas[2]!.head();
  replicas[2]!.onHead = (door) => door.send({ ...honest, view: asView(6), primary: asReplicaId(2) });
  await until(() => client.status()[2]?.claimedView === 6);
  t.equal(client.head().view, 0);
  await client.submit(text('a'));
  t.equal(replicas[2]!.submitted.length, 0);
  t.equal(mine(log).length, 1);
});

const liars: Readonly<Record<string, (honest: door.BundleReceipt, log: Log) => door.BundleReceipt>> = {
  'a certificate of 2f': (honest) => ({ ...honest, certificate: only(honest.certificate, 2) }),
  'a certificate of strangers': (honest) => ({
    ...honest,
    certificate: {
      ...honest.certificate,
      signatures: honest.certificate.signatures.map((each) => ({ ...each, signature: foreignKey.sign(text('no')) })),
    },
  }),
  'one signer three times': (honest) => ({
    ...honest,
    certificate: { ...honest.certificate, signatures: honest.certificate.signatures.map((_, __, all) => all[0]!) },
  }),
  'a certificate of prepares': (honest, log) => ({
    ...honest,
    certificate: certificate(log.blocks[honest.certificate.height - 1]!, 'prepare'),
  }),
  'a certificate of another block': (honest, log) => ({
    ...honest,
    certificate: certificate(block([foreignBundle(1)], { height: log.height })),
  }),
  'a block of its own making': (honest) => {
    const header = Uint8Array.from(honest.headerBytes);
    header[header.length - 1]! ^= 1;
    return { ...honest, headerBytes: header };
  },
  'another place': (honest) => ({ ...honest, firstTransaction: honest.firstTransaction + 1 }),
  'another proof': (honest) => ({ ...honest, proof: [...honest.proof, filled(1)] }),
  'another count': (honest) => ({ ...honest, transactionCount: honest.transactionCount + 1 }),
  'a receipt of another bundle': (honest, log) => ({
    ...log.receiptOf(log.blocks[0]!.bundles[0]!.digest)!,
    digest: honest.digest,
  }),
};

function only(whole: Certificate, signers: number): Certificate {
  return { ...whole, signatures: whole.signatures.slice(0, signers) };
}

t.test('a lying primary is found out and passed by', async (t) => {
  for (const [lie, told] of Object.entries(liars)) {
    const { log, replicas, events, connect } = await cluster(t);
    log.grow(1);
    const client = await connect();
    replicas[0]!.changesReceipt = (honest) => told(honest, log);
    const receipt = await client.submitBundle([text('a'), text('b')]);
    t.ok(receipt.receipt(1).verify(), lie);
    t.ok(
      events.some((event) => event.startsWith(`suspected ${replicas[0]!.name} `)),
      `${lie}: ${events.join(', ')}`,
    );
    t.same(mine(log), ['a', 'b'], `${lie}: ordered once`);
    await client.close();
  }
});

t.test('a forged head moves nothing', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  log.grow(2);
  const client = await connect();
  const forged = block([foreignBundle(1000)], { height: 1000 });
  const head = (signed: Certificate): door.Head => ({
    ...replicas[2]!.head(),
    height: asHeight(1000),
    certificate: signed,
  });
  replicas[2]!.onHead = (door) => door.send(head(only(certificate(forged), 2)));
  await until(() => events.includes(`suspected ${replicas[2]!.name} head-certificate`));
  t.equal(client.head().height, 2);
  t.ok(client.status()[2]?.suspected);
  replicas[3]!.onHead = (door) => door.send({ ...replicas[3]!.head(), primary: asReplicaId(3) });
  await until(() => events.includes(`suspected ${replicas[3]!.name} head-primary`));
  t.equal((await client.submit(text('a'))).height, 3);
});

t.test('what one replica alone says is no end: expired, passed, invalid', async (t) => {
  for (const code of ['expired', 'sequence-passed', 'bundle-invalid'] as const) {
    const { log, replicas, connect } = await cluster(t);
    const client = await connect();
    replicas[0]!.onSubmit = (door, bundle) =>
      door.admissions({ digest: bundle.digest, code, height: asHeight(1_000_000) });
    replicas[0]!.onQuery = (door, query) => replicas[0]!.deny(door, query, { height: asHeight(1_000_000) });
    t.ok((await client.submit(text('a'))).verify(), code);
    t.same(mine(log), ['a']);
    await client.close();
  }
});

t.test('f+1 are an end', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  const client = await connect({ bundleTransactionsMax: 1 });
  const session = client.session;
  for (const replica of replicas) {
    replica.onSubmit = (door, bundle) => {
      if (bundle.session !== session) replica.admit(door, bundle);
      else if (bundle.sequence === 1) door.admission(bundle, 'bundle-invalid');
    };
  }
  const lost = ['a', 'b', 'c'].map((name) => codeOf(client.submit(text(name))));
  t.same(await Promise.all(lost), ['bundle-invalid', 'session-ended', 'session-ended']);
  t.ok(events.includes('session'));
  t.equal((await client.submit(text('d'))).height, 1, 'under a new session it goes on');
  t.same(mine(log), ['d']);
});

t.test('a bundle whose time has passed is rejected when that is certain', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect({ validBlocks: 3, bundleTransactionsMax: 1 });
  const session = client.session;
  for (const replica of replicas) {
    replica.onSubmit = (door, bundle) => {
      if (bundle.session !== session) replica.admit(door, bundle);
    };
  }
  const codes = Promise.all(['a', 'b'].map((name) => codeOf(client.submit(text(name)))));
  await until(() => replicas[0]!.submitted.length >= 2);
  // One that claims to be there and is not: alone it decides nothing.
  log.grow(3);
  t.same(await codes, ['expired', 'session-ended']);
  await client.submit(text('c'));
  t.same(mine(log), ['c']);
});

/** What someone on the path could send in place of the replicas' own answers, none of them forged. */
const replays: Readonly<Record<string, (query: door.QueryBundle, now: door.QueryAnswer) => Partial<door.QueryAnswer>>> =
  {
    'to the question of another day': ({ question }) => ({ question: Math.max(1, question - 1) }),
    'about another bundle': () => ({ digest: asHash(filled(1)) }),
    'of a replica that was not there yet': (_, { height }) => ({ height: asHeight(height - 1) }),
  };

t.test('WIRE-28: old, foreign and early denials refuse nothing, and the receipt may still come', async (t) => {
  for (const [what, changes] of Object.entries(replays)) {
    const { log, replicas, connect } = await cluster(t);
    const client = await connect({ validBlocks: 3 });
    const asked = new Set<Replica>();
    for (const replica of replicas) {
      replica.answers = false;
      replica.onSubmit = (door, bundle) => {
        log.admit(bundle);
        for (const code of ['expired', 'sequence-passed'] as const)
          door.admissions({ digest: bundle.digest, code, height: asHeight(3) });
      };
      replica.onQuery = (door, query) => {
        asked.add(replica);
        const now = { ...replica.answerTo(query), height: asHeight(3) };
        for (let i = 0; i < 2; i++) replica.deny(door, query, { ...now, ...changes(query, now) });
      };
    }
    const submitted = client.submit(text('a'));
    await until(() => asked.size === 4);
    log.grow(2);
    await until(() => client.head().height === 3);
    t.equal(client.pending.bundles, 1, `${what}: still open`);
    replicas[2]!.answers = true;
    for (const door of replicas[2]!.doors) {
      door.waiting.add(toHex(replicas[0]!.submitted[0]!.digest));
      replicas[2]!.tell(door);
    }
    t.ok((await submitted).verify(), what);
    await client.close();
  }
});

t.test('the word of a replica behind, about an earlier session of this number, ends nothing', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.grow(5);
  const client = await connect({ validBlocks: 3 });
  await until(() => client.head().height === 5);
  const asked: string[] = [];
  for (const replica of replicas) {
    replica.onSubmit = (door, { digest }) => door.admissions({ digest, code: 'sequence-passed', height: asHeight(4) });
    replica.onQuery = (door, query) => {
      asked.push(replica.name);
      replica.deny(door, query);
    };
  }
  const code = codeOf(client.submit(text('a')));
  await until(() => replicas.every(({ name }) => asked.filter((each) => each === name).length > 1));
  t.equal(client.pending.bundles, 1);
  log.grow(3);
  t.equal(await code, 'expired');
});

t.test('whoever has forgotten the blocks does not say that it was never ordered', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect({ validBlocks: 3 });
  for (const replica of replicas) {
    replica.onSubmit = () => undefined;
    replica.onQuery = (door, query) => replica.deny(door, query, { lowest: asHeight(replica.id === 0 ? 1 : 3) });
  }
  const code = codeOf(client.submit(text('a')));
  await until(() => replicas[0]!.submitted.length === 1);
  log.grow(3);
  t.equal(await code, 'outcome-unknown', 'though one replica, which may lie, has shown more');
});

t.test('a receipt that was kept back is found at the others', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect({ retryMs: 60 });
  replicas[0]!.answers = false;
  replicas[0]!.onQuery = (door, query) => replicas[0]!.deny(door, query);
  const receipt = await client.submit(text('once'));
  t.ok(receipt.verify());
  t.same(mine(log), ['once']);
  t.ok(replicas.slice(1).some(({ heard }) => heard.some(({ kind }) => kind === 'query-bundle')));
});

t.test('a retry after the answer was lost gets the stored reply', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  const client = await connect();
  replicas[0]!.answers = false;
  const submitted = client.submit(text('once'));
  await until(() => log.height === 1);
  replicas[0]!.dropAll();
  replicas[0]!.answers = true;
  t.equal((await submitted).height, 1);
  t.same(mine(log), ['once']);
});

t.test('garbage ends a connection, and only that', async (t) => {
  const { replicas, events, connect } = await cluster(t);
  const client = await connect();
  for (const door of replicas[1]!.doors) door.socket.send(Uint8Array.of(1, 2, 3));
  await until(() => events.some((event) => event.startsWith(`disconnected ${replicas[1]!.name} frame-malformed`)));
  for (const door of replicas[2]!.doors) door.socket.send('text');
  await until(() => events.some((event) => event.startsWith(`disconnected ${replicas[2]!.name}`)));
  for (const door of replicas[3]!.doors) door.send({ kind: 'follow-end', code: 'reached', lowest: asHeight(1) });
  await until(() => events.includes(`suspected ${replicas[3]!.name} follow-unasked`));
  t.ok((await client.submit(text('a'))).verify());
  await until(() => client.status().every(({ state }) => state === 'open'));
});

t.test('close() in the middle', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.automatic = false;
  const client = await connect({ bundlesInFlightMax: 1 });
  const codes = Promise.all(['a', 'b'].map((name) => codeOf(client.submit(text(name)))));
  await until(() => log.pool.length === 1);
  const waiting = codeOf(client.submit(text('c')));
  const accepted = codeOf(client.submit(text('d'), { wait: 'accepted' }));
  const stream = client.follow({ from: 1 });
  const next = codeOf(stream.next());
  await client.close();
  await client.close();
  t.same(await codes, ['closed', 'closed']);
  t.equal(await waiting, 'closed');
  t.equal(await accepted, 'closed');
  t.equal(await next, 'closed');
  t.equal(await codeOf(client.submit(text('e'))), 'closed');
  t.throws(() => client.follow({ from: 1 }), { code: 'closed' });
  await until(() => replicas.every(({ doors }) => doors.size === 0));
});

// ---- following --------------------------------------------------------------------------------------------------------

t.test('follows from anywhere to anywhere, and waits for what is not there yet', async (t) => {
  const { log, connect } = await cluster(t);
  log.grow(10);
  const client = await connect();
  const whole = await take(client.follow({ from: 'oldest', to: 10 }));
  t.same(heights(whole), range(1, 10));
  t.same(
    whole.flatMap(({ bundles }) => bundles!.flatMap((each) => each.transactions.map(textOf))),
    logOf(log),
  );
  t.same(heights(await take(client.follow({ from: 4, to: 6 }))), [4, 5, 6]);
  const headers = await take(client.follow({ from: 2, to: 3, headersOnly: true }));
  t.same(
    headers.map(({ bundles }) => bundles),
    [null, null],
  );
  t.same(
    headers.map(({ hash }) => toHex(hash)),
    log.blocks.slice(1, 3).map(({ hash }) => toHex(hash)),
  );
  await until(() => client.head().height === 10);
  const live = client.follow({ from: 'newest' });
  const first = await live.next();
  t.equal(first.value?.header.height, 10);
  const next = live.next();
  log.grow(1);
  t.equal((await next).value?.header.height, 11);
  t.same(await live.return(), { done: true, value: undefined });
  t.same(await live.next(), { done: true, value: undefined });
  t.throws(() => client.follow({ from: 0 }), { code: 'option-invalid' });
  t.throws(() => client.follow({ from: 5, to: 4 }), { code: 'option-invalid' });
});

t.test('blocks without a certificate wait for the one that covers them, beyond the end if need be', async (t) => {
  const { log, connect } = await cluster(t);
  log.uncertified = (height) => height % 4 !== 0;
  log.grow(12);
  const client = await connect();
  t.same(heights(await take(client.follow({ from: 2, to: 6 }))), range(2, 6));
  t.same(heights(await take(client.follow({ from: 'oldest', to: 12 }))), range(1, 12));
});

t.test('a consumer that stops is not sent more than it granted', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.grow(100);
  const client = await connect({ followBlocksMax: 16 });
  const stream = client.follow({ from: 1, to: 100 });
  const sent = () =>
    replicas.flatMap(({ doors }) => [...doors].map(({ follow }) => follow?.sent ?? 0)).reduce((a, b) => a + b, 0);
  await until(() => sent() === 16);
  const asked = replicas.map(({ heard }) => heard.length);
  // Heads go on being asked, on the stream's connection too, while nothing more is sent there.
  await until(() => replicas.every(({ heard }, i) => heard.length >= asked[i]! + 3));
  t.equal(sent(), 16);
  t.notOk(replicas.some(({ heard }) => heard.some(({ kind }) => kind === 'credit')));
  t.same(heights(await take(stream)), range(1, 100));
  t.notOk(
    client.status().some(({ suspected }) => suspected),
    'a slow consumer makes no replica suspect',
  );
});

t.test('the connection of a stream breaks: it goes on at the next height', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.grow(40);
  const client = await connect({ followBlocksMax: 16 });
  const seen: number[] = [];
  for await (const { header } of client.follow({ from: 1, to: 40 })) {
    seen.push(header.height);
    if (header.height % 10 === 5)
      for (const replica of replicas)
        for (const door of replica.doors) if (door.follow !== null) door.socket.terminate();
  }
  t.same(seen, range(1, 40));
});

const source = (replicas: readonly Replica[]) =>
  replicas.find(({ doors }) => [...doors].some(({ follow }) => follow !== null));

t.test('a replica that withholds is noticed by the heads of the others, and left', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  log.grow(5);
  const client = await connect({ withholdMs: 100 });
  const stream = client.follow({ from: 1, to: 20 });
  for (const height of range(1, 5)) t.equal((await stream.next()).value?.header.height, height);
  const silent = source(replicas)!;
  silent.withholdsAbove = 5;
  log.grow(15);
  t.same(heights(await take(stream)), range(6, 20));
  t.ok(events.includes(`suspected ${silent.name} withholding`));
});

t.test('a replica that does not answer the connection of a stream is left for another', async (t) => {
  const { log, replicas, events, connect } = await cluster(t);
  log.grow(20);
  const client = await connect({ withholdMs: 100 });
  await until(() => client.status().every(({ claimedHeight }) => claimedHeight === 20));
  // Backups are asked first; the client's own connections to them stay.
  for (const replica of replicas.slice(1, 3)) replica.greets = false;
  const begun = performance.now();
  t.same(heights(await take(client.follow({ from: 1, to: 20 }))), range(1, 20));
  const ms = performance.now() - begun;
  t.ok(ms < 5_000, `${ms} ms: not after the time that a handshake may take`);
  t.notOk(
    events.some((event) => event.startsWith('suspected')),
    'that is no lie',
  );
  t.ok(client.status().every(({ state }) => state === 'open'));
});

t.test('a replica that falls silent in a stream is left: no gap, and no block twice', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  // Where it ends, some blocks have been sent and not been proved.
  log.uncertified = (height) => height % 4 !== 0;
  log.grow(20);
  const client = await connect({ silenceMsMax: 300 });
  await until(() => client.status().every(({ claimedHeight }) => claimedHeight === 20));
  for (const [id, height] of [
    [1, 6],
    [2, 11],
    [3, 20],
  ] as const)
    replicas[id]!.silentAbove = height;
  const stream = client.follow({ from: 1 });
  const seen: number[] = [];
  while (seen.length < 20) seen.push(...heights([(await stream.next()).value!]));
  t.same(seen, range(1, 20));
  t.same(
    replicas.map(({ fellSilent }) => fellSilent > 0),
    [false, true, true, true],
    'each of them in its turn',
  );
  log.grow(4);
  t.same(heights(await take(stream, 4)), range(21, 24), 'noticed at the head as well, where nothing is withheld');
});

const streamLies: Readonly<Record<string, (honest: door.FollowedBlock, made: Block) => door.FollowedBlock>> = {
  'a body changed': (honest) => ({
    ...honest,
    bundles: honest.bundles!.map(({ signature }) => ({ payload: foreignBundle(9).payload, signature })),
  }),
  'a body left out': (honest) => ({ ...honest, bundles: null }),
  'a certificate of 2f': (honest) => ({ ...honest, certificate: only(honest.certificate!, 2) }),
  'a fork': (_, made) => {
    const forked = block([foreignBundle(7)], { height: made.header.height, parent: asHash(filled(3)) });
    const { payload, signature } = forked.bundles[0]!;
    return { headerBytes: forked.headerBytes, bundles: [{ payload, signature }], certificate: certificate(forked) };
  },
  'a first block that is not on the genesis block': (honest, made) => {
    const foreign = block(made.bundles, { height: 1, parent: asHash(filled(3)) });
    return { ...honest, headerBytes: foreign.headerBytes, certificate: certificate(foreign) };
  },
  'a gap': (honest, made) => {
    const later = block(made.bundles, { height: made.header.height + 1, parent: made.hash });
    return { ...honest, headerBytes: later.headerBytes, certificate: certificate(later) };
  },
};

t.test('a replica that lies in a stream is left, and nothing of it is delivered', async (t) => {
  for (const [lie, told] of Object.entries(streamLies)) {
    const { log, replicas, events, connect } = await cluster(t);
    log.grow(9);
    const at = lie.startsWith('a first block') ? 1 : 5;
    const client = await connect();
    for (const replica of replicas.slice(0, 3))
      replica.changesBlock = (honest, made) => (made.header.height === at ? told(honest, made) : honest);
    // A fork here is signed by a quorum, so only the links can tell: three of four are liars, and the fourth is found.
    const blocks = await take(client.follow({ from: 1, to: 9 }));
    t.same(
      blocks.map(({ hash }) => toHex(hash)),
      log.blocks.map(({ hash }) => toHex(hash)),
      lie,
    );
    t.ok(
      blocks.every(({ bundles }) => bundles !== null),
      lie,
    );
    t.ok(events.some((event) => event.startsWith('suspected')) || source(replicas) === undefined, lie);
    await client.close();
  }
});

t.test('what one replica has pruned another may have; what all have pruned is an error', async (t) => {
  const { log, replicas, connect } = await cluster(t);
  log.grow(12);
  for (const replica of replicas.slice(0, 3)) replica.lowest = 7;
  const client = await connect();
  await until(() => client.status().every(({ claimedHeight }) => claimedHeight === 12));
  t.same(heights(await take(client.follow({ from: 3, to: 12 }))), range(3, 12));
  replicas[3]!.lowest = 5;
  const error = await take(client.follow({ from: 3 })).catch((error: unknown) => error);
  t.ok(error instanceof ClientError);
  t.match(error, { code: 'pruned', details: { height: 3, lowest: 5 } });
  await until(() => client.status()[3]?.lowest === 5);
  t.same(heights(await take(client.follow({ from: 'oldest', to: 12 }))), range(5, 12));
});
