// A whole PBFT cluster in one thread and in virtual time, for tests: the real cores, the real codec and certificates, a model disk that
// loses what was not synced, a model guard that remembers every vote ever signed, and a network that delays, loses, repeats and
// splits. Everything is drawn from one seed, so a failing run is replayed by its seed alone.

import { createHash, createPrivateKey, sign as ed25519 } from 'node:crypto';
import type { Bytes } from '../crypto/bytes.ts';
import { toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import { isLater } from '../protocol/certificate.ts';
import {
  decodeCertificate,
  decodeCheckpointCertificate,
  decodeFrame,
  decodeStoredBlock,
  encodeBundlePayload,
  encodeFrame,
  encodePayload,
  isRefusal,
} from '../protocol/codec.ts';
import type { Decided, Input, Pledged, Ready } from '../protocol/core.ts';
import type { Genesis, GenesisDocument } from '../protocol/genesis.ts';
import { parseGenesis } from '../protocol/genesis.ts';
import { STATE_CHUNKS } from '../protocol/ledger.ts';
import type { BlockBytes, LogRecord, RecoveredLog } from '../protocol/log.ts';
import type { CertifiedBlock, PbftMessage, PbftPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { Pbft } from '../protocol/pbft/pbft.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { Hash, Height, Millis, ReplicaId, View } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { SeenSignatures, signingBytes, verifyFrame } from '../protocol/verify.ts';

/** mulberry32: small, fast, and the same everywhere. */
export function randomFrom(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export interface KeyPair {
  readonly publicKey: Bytes;
  sign(bytes: Bytes): Bytes;
}

/** A test key from a name. PKCS #8 of RFC 8410 around a 32-byte seed. */
export function keyPair(name: string): KeyPair {
  const seed = createHash('sha256').update(name).digest();
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const jwk = key.export({ format: 'jwk' });
  return {
    publicKey: Uint8Array.from(Buffer.from(jwk.x ?? '', 'base64url')),
    sign: (bytes) => Uint8Array.from(ed25519(null, bytes, key)),
  };
}

export function testGenesis(
  n: number,
  parameters: GenesisDocument['parameters'] = {},
): { genesis: Genesis; keys: KeyPair[]; document: Bytes } {
  const keys = Array.from({ length: n }, (_, i) => keyPair(`replica-${i}`));
  const text = JSON.stringify({
    synod: 1,
    name: 'test',
    protocol: 'pbft',
    createdAt: 1_700_000_000_000,
    members: keys.map((key, i) => ({ name: `node-${i}`, publicKey: toHex(key.publicKey) })),
    parameters,
  } satisfies GenesisDocument);
  const document = Buffer.from(text);
  const genesis = parseGenesis(native, document, text);
  if ('refused' in genesis) throw new Error(`${genesis.field}: ${genesis.problem}`);
  return { genesis, keys, document };
}

/** A client's bundles, in sequence. */
export class TestClient {
  readonly key: KeyPair;
  readonly #genesis: Genesis;
  readonly #session: number;
  #sequence = 0;

  constructor(genesis: Genesis, name: string, session = 1) {
    this.#genesis = genesis;
    this.key = keyPair(name);
    this.#session = session;
  }

  bundle(
    transactions: readonly Bytes[],
    { validUntil = 1_000, sequence }: { validUntil?: number; sequence?: number } = {},
  ): SignedBundle {
    const bundle = {
      client: this.key.publicKey,
      session: this.#session,
      sequence: sequence ?? ++this.#sequence,
      validUntil: asHeight(validUntil),
      transactions,
    };
    const payload = encodeBundlePayload(bundle);
    const digest = asHash(native.sha256(payload));
    const signature = this.key.sign(bundleSigningBytes(this.#genesis.chainId, digest));
    return { ...bundle, payload, digest, signature, leaves: transactions.map((tx) => leafHash(native.sha256, tx)) };
  }
}

/** What a crash leaves: records of completed writes. */
export class ModelDisk {
  readonly blocks = new Map<string, BlockBytes>();
  readonly accepted = new Map<number, { hash: Hash; view: View }>();
  readonly decided = new Map<number, { hash: Hash; certificate: Bytes | null }>();
  readonly chunks = new Map<number, { height: number; bytes: Bytes }[]>();
  readonly checkpoints = new Map<number, { place: Bytes; certificate: Bytes | null; header: Bytes | null }>();
  hardState: Bytes | null = null;
  lowest = 1;
  /** Blocks below head - retain are forgotten once a stable checkpoint lies above them. */
  retain = Number.POSITIVE_INFINITY;
  writes = 0;

  get head(): number {
    return Math.max(0, ...this.decided.keys());
  }

  write(records: readonly LogRecord[]): void {
    this.writes += 1;
    for (const record of records) this.#apply(record);
    const stable = Math.max(0, ...[...this.checkpoints].filter(([, c]) => c.certificate !== null).map(([h]) => h));
    const { head } = this;
    for (const height of [...this.decided.keys()]) {
      if (height >= stable || height > head - this.retain) continue;
      this.decided.delete(height);
      this.lowest = Math.max(this.lowest, height + 1);
    }
  }

  #apply(record: LogRecord): void {
    switch (record.type) {
      case 'block':
        this.blocks.set(`${record.height}/${toHex(record.hash)}`, record.bytes);
        return;
      case 'accepted':
        this.accepted.set(record.height, record);
        return;
      case 'hard-state':
        this.hardState = record.bytes;
        return;
      case 'decided':
        if (!this.blocks.has(`${record.height}/${toHex(record.hash)}`)) throw new Error('decided without its block');
        this.decided.set(record.height, record);
        return;
      case 'state-chunk': {
        const versions = this.chunks.get(record.chunk) ?? [];
        versions.push(record);
        this.chunks.set(record.chunk, versions);
        return;
      }
      case 'checkpoint':
        this.checkpoints.set(record.height, { ...record, header: null });
        return;
      case 'reset-to-checkpoint':
        for (const height of [...this.decided.keys()]) if (height <= record.height) this.decided.delete(height);
        this.checkpoints.set(record.height, record);
        this.lowest = record.height + 1;
        return;
    }
  }

  block(height: number, hash: Hash): BlockBytes | undefined {
    return this.blocks.get(`${height}/${toHex(hash)}`);
  }

  chunkAt(height: number, chunk: number): Bytes {
    return this.chunks.get(chunk)?.findLast((version) => version.height <= height)?.bytes ?? new Uint8Array(0);
  }

  recover(): RecoveredLog {
    const head = Math.max(this.head, ...[...this.checkpoints].filter(([, c]) => c.header !== null).map(([h]) => h));
    const usable = [...this.checkpoints.keys()].filter((h) => h <= head).sort((a, b) => b - a)[0];
    const stable = [...this.checkpoints].filter(([, c]) => c.certificate !== null).sort(([a], [b]) => b - a)[0];
    const from = usable ?? 0;
    const decided = [...this.decided].filter(([h]) => h > from).sort(([a], [b]) => a - b);
    const checkpoint = usable === undefined ? undefined : this.checkpoints.get(usable);
    const chunks = new Map<number, Bytes>();
    for (let chunk = 0; chunk < STATE_CHUNKS; chunk++)
      if (this.chunkAt(from, chunk).length > 0) chunks.set(chunk, this.chunkAt(from, chunk));
    const header = (height: number): Bytes => {
      const own = this.checkpoints.get(height)?.header;
      const block = this.decided.get(height);
      return own ?? this.block(height, block?.hash ?? asHash(new Uint8Array(32)))?.header ?? new Uint8Array(0);
    };
    return {
      position: { sequence: this.writes, hash: new Uint8Array(32) },
      hardState: this.hardState,
      checkpoint:
        checkpoint === undefined || usable === undefined
          ? null
          : {
              height: asHeight(usable),
              place: checkpoint.place,
              certificate: checkpoint.certificate,
              header: header(usable),
              chunks,
            },
      stable:
        stable === undefined
          ? null
          : { height: asHeight(stable[0]), place: stable[1].place, certificate: stable[1].certificate },
      decided: decided.map(([height, { hash, certificate }]) => ({
        height: asHeight(height),
        hash,
        certificate,
        bytes: this.block(height, hash)!,
      })),
      accepted: [...this.accepted]
        .filter(([h]) => h > head)
        .sort(([a], [b]) => a - b)
        .map(([height, { hash, view }]) => ({
          height: asHeight(height),
          hash,
          view,
          bytes: this.block(height, hash)!,
        })),
      lowest: asHeight(this.lowest),
    };
  }
}

/** Durable like the guard's file; and beyond a guard, it remembers every vote for ever, and fails the test on a conflict. */
export class ModelGuard {
  view = asView(0);
  led: View | null = null;
  lock: Certificate | null = null;
  burned: View | null = null;
  readonly votes = new Map<string, string>();
  viewChanged = -1;

  lead(view: View): boolean {
    if (view < this.view || (this.burned !== null && view <= this.burned)) return false;
    this.view = view;
    this.led = view;
    return true;
  }

  promise(pledge: PbftPledge, payload: Bytes): boolean {
    if (pledge.kind === 'prepare' || pledge.kind === 'commit') {
      if (pledge.view < this.view || pledge.view < this.viewChanged) return false;
      if (this.burned !== null && pledge.view <= this.burned) return false;
      const place = `${pledge.kind}/${pledge.view}/${pledge.height}`;
      const before = this.votes.get(place);
      if (before !== undefined && before !== toHex(pledge.hash)) {
        this.burned = asView(Math.max(this.burned ?? -1, pledge.view)); // GRD-17
        return false;
      }
      this.votes.set(place, toHex(pledge.hash));
    } else if (pledge.kind !== 'checkpoint') {
      if (pledge.view < this.view) return false;
      const place = `${pledge.kind}/${pledge.view}`;
      const digest = toHex(native.sha256(payload));
      if ((this.votes.get(place) ?? digest) !== digest) return false;
      this.votes.set(place, digest);
      if (pledge.kind === 'view-change') this.viewChanged = pledge.view;
    }
    if (pledge.kind !== 'checkpoint') this.view = asView(Math.max(this.view, pledge.view));
    return true;
  }
}

export interface Faults {
  /** Message delay in milliseconds, at least 1. */
  readonly delayMs: [number, number];
  readonly loss: number;
  readonly repeat: number;
  readonly writeMs: [number, number];
}
export const calm: Faults = { delayMs: [1, 5], loss: 0, repeat: 0, writeMs: [1, 3] };

interface Node {
  readonly id: ReplicaId;
  disk: ModelDisk;
  guard: ModelGuard;
  core: Pbft | null;
  /** Grows with every start: what an older incarnation scheduled is void. */
  life: number;
  writing: boolean;
  pending: { records: LogRecord[]; pledges: Pledged<PbftPledge>[]; lock: Certificate | null; lead: View | null };
  alarm: number;
  inbox: Input<PbftMessage, PbftPledge>[];
  woken: boolean;
}

/** What a test may change on the way: drop, alter or multiply what a replica says. */
export type Tamper = (from: ReplicaId, to: ReplicaId, message: PbftMessage) => PbftMessage | null;

export class Cluster {
  readonly genesis: Genesis;
  readonly keys: KeyPair[];
  readonly nodes: Node[];
  readonly random: () => number;
  readonly chain = new Map<number, string>();
  /** Heights delivered per node, in order. */
  readonly delivered: Decided[][];
  readonly executed: Map<string, number>[];
  readonly refusals: { at: ReplicaId; from: ReplicaId; code: string; kind: string }[] = [];
  readonly evidence: { at: ReplicaId; culprit: ReplicaId }[] = [];
  readonly events: { at: ReplicaId; time: number; type: string; detail: string }[] = [];
  readonly trace = createHash('sha256');
  faults: Faults = calm;
  /** Sets of replicas that hear each other; null: everyone. */
  partition: readonly (readonly number[])[] | null = null;
  tamper: Tamper | null = null;
  /** Replicas in the hand of a test: what they deliver is not checked, and where such a core gives up it is down. */
  readonly byzantine = new Set<number>();
  now = 1_700_000_000_000;
  readonly start = this.now;
  messages = 0;
  readonly #realSignatures: boolean;
  readonly #queue: { at: number; order: number; run: () => void }[] = [];
  #order = 0;
  readonly #seen: SeenSignatures[];

  constructor({
    n = 4,
    seed = 1,
    parameters = {},
    realSignatures = false,
  }: { n?: number; seed?: number; parameters?: GenesisDocument['parameters']; realSignatures?: boolean } = {}) {
    const { genesis, keys } = testGenesis(n, parameters);
    this.genesis = genesis;
    this.keys = keys;
    this.random = randomFrom(seed);
    this.#realSignatures = realSignatures;
    this.#seen = keys.map(() => new SeenSignatures(4096));
    this.delivered = keys.map(() => []);
    this.executed = keys.map(() => new Map());
    this.nodes = keys.map((_, i) => ({
      id: asReplicaId(i),
      disk: new ModelDisk(),
      guard: new ModelGuard(),
      core: null,
      life: 0,
      writing: false,
      pending: { records: [], pledges: [], lock: null, lead: null },
      alarm: 0,
      inbox: [],
      woken: false,
    }));
    for (const node of this.nodes) this.boot(node.id);
  }

  // ---- time -------------------------------------------------------------------------------------------------------

  after(ms: number, run: () => void): void {
    this.#queue.push({ at: this.now + Math.max(0, ms), order: this.#order++, run });
    // A binary heap by (at, order).
    let i = this.#queue.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#before(i, parent)) break;
      this.#swap(i, parent);
      i = parent;
    }
  }

  #before(a: number, b: number): boolean {
    const x = this.#queue[a]!;
    const y = this.#queue[b]!;
    return x.at !== y.at ? x.at < y.at : x.order < y.order;
  }

  #swap(a: number, b: number): void {
    [this.#queue[a], this.#queue[b]] = [this.#queue[b]!, this.#queue[a]!];
  }

  #pop(): { at: number; run: () => void } | undefined {
    const top = this.#queue[0];
    const last = this.#queue.pop();
    if (top === undefined || last === undefined || top === last) return top;
    this.#queue[0] = last;
    for (let i = 0; ; ) {
      const left = 2 * i + 1;
      let least = i;
      if (left < this.#queue.length && this.#before(left, least)) least = left;
      if (left + 1 < this.#queue.length && this.#before(left + 1, least)) least = left + 1;
      if (least === i) return top;
      this.#swap(i, least);
      i = least;
    }
  }

  /** Runs until the condition holds; false where `ms` of virtual time passed before. */
  until(condition: () => boolean, ms: number): boolean {
    const end = this.now + ms;
    while (!condition()) {
      const next = this.#queue[0];
      if (next === undefined || next.at > end) {
        this.now = end;
        return condition();
      }
      this.#pop();
      this.now = Math.max(this.now, next.at);
      next.run();
    }
    return true;
  }

  run(ms: number): void {
    this.until(() => false, ms);
  }

  between([low, high]: [number, number]): number {
    return low + Math.floor(this.random() * (high - low + 1));
  }

  // ---- life and death ---------------------------------------------------------------------------------------------

  boot(id: ReplicaId | number): void {
    const node = this.nodes[id]!;
    node.life += 1;
    node.writing = false;
    node.inbox = [];
    node.woken = false;
    node.pending = { records: [], pledges: [], lock: null, lead: null };
    const fresh = node.life === 1;
    node.guard.burned = node.guard.led;
    node.core = new Pbft(
      { genesis: this.genesis, epoch: asEpoch(0), self: node.id, sha256: native.sha256 },
      {
        log: fresh ? null : node.disk.recover(),
        guard: { view: node.guard.view, led: node.guard.led, lock: node.guard.lock },
      },
      this.#clock(),
    );
    this.delivered[id]!.length = 0;
    this.#wake(node);
    for (const other of this.nodes) {
      if (other.id === node.id || other.core === null) continue;
      this.#input(node, { type: 'connected', peer: other.id });
      this.#input(other, { type: 'connected', peer: node.id });
    }
  }

  crash(id: number): void {
    const node = this.nodes[id]!;
    if (node.core === null) return;
    node.core = null;
    node.life += 1;
    for (const other of this.nodes)
      if (other.core !== null && other !== node) this.#input(other, { type: 'disconnected', peer: node.id });
  }

  // ---- the loop of one node ---------------------------------------------------------------------------------------

  #clock(): Millis {
    return asMillis(Math.floor(this.now));
  }

  #input(node: Node, input: Input<PbftMessage, PbftPledge>): void {
    if (node.core === null) return;
    node.inbox.push(input);
    this.#wake(node);
  }

  #wake(node: Node): void {
    if (node.woken) return;
    node.woken = true;
    const { life } = node;
    this.after(0, () => {
      if (node.life === life && node.core !== null) this.#turn(node);
    });
  }

  #turn(node: Node): void {
    node.woken = false;
    const inputs = node.inbox;
    node.inbox = [];
    let ready: Ready<PbftMessage, PbftPledge>;
    try {
      ready = node.core!.step(inputs, this.#clock());
    } catch (error) {
      if (!this.byzantine.has(node.id)) throw error;
      return this.crash(node.id);
    }
    this.#act(node, ready);
    const { life } = node;
    const alarm = ++node.alarm;
    this.after(Math.max(1, ready.wakeAt - this.now), () => {
      if (node.life === life && node.alarm === alarm) this.#wake(node);
    });
  }

  #act(node: Node, ready: Ready<PbftMessage, PbftPledge>): void {
    for (const { to, message } of ready.send) this.#send(node, to, this.#sign(node, message));
    for (const { to, signed } of ready.resend) this.#send(node, to, signed);
    node.pending.records.push(...ready.records);
    node.pending.pledges.push(...ready.pledges);
    node.pending.lock = ready.lock ?? node.pending.lock;
    node.pending.lead = ready.lead ?? node.pending.lead;
    for (const refusal of ready.refusals) this.refusals.push({ at: node.id, ...refusal });
    for (const { culprit } of ready.evidence) this.evidence.push({ at: node.id, culprit });
    for (const { type, ...detail } of ready.events)
      this.events.push({ at: node.id, time: this.now - this.start, type, detail: JSON.stringify(detail) });
    for (const decided of ready.deliver) this.#check(node, decided);
    this.#persist(node);
  }

  #persist(node: Node): void {
    const { records, pledges, lock, lead } = node.pending;
    if (node.writing || (records.length === 0 && pledges.length === 0 && lock === null && lead === null)) return;
    node.pending = { records: [], pledges: [], lock: null, lead: null };
    node.writing = true;
    const { life } = node;
    const logAt = this.between(this.faults.writeMs);
    const guardAt = this.between(this.faults.writeMs);
    let kept: Pledged<PbftPledge>[] = [];
    let led = lead;
    // Two files: either may be durable first, and a crash may come between.
    this.after(logAt, () => {
      if (node.life === life && records.length > 0) node.disk.write(records);
    });
    this.after(guardAt, () => {
      if (node.life !== life) return;
      kept = pledges.filter(({ pledge }) => node.guard.promise(pledge, encodePayload(pledge)));
      if (lock !== null && (node.guard.lock === null || isLater(lock, node.guard.lock))) node.guard.lock = lock;
      if (lead !== null && !node.guard.lead(lead)) led = null;
    });
    this.after(Math.max(logAt, guardAt), () => {
      if (node.life !== life) return;
      node.writing = false;
      if (led !== null) this.#input(node, { type: 'leading', view: led });
      for (const { pledge, broadcast } of kept) {
        const signed = this.#sign(node, pledge);
        if (broadcast) this.#send(node, 'all', signed);
        this.#input(node, { type: 'own', signed });
      }
      for (const each of pledges) if (!kept.includes(each)) this.#input(node, { type: 'refused', pledge: each.pledge });
      this.#persist(node);
    });
  }

  #sign<M extends PbftMessage>(node: Node, message: M): Verified<M> {
    const payload = encodePayload(message);
    const bytes = signingBytes(this.genesis.chainId, message, payload);
    const signature = this.#realSignatures ? this.keys[node.id]!.sign(bytes) : standIn(node.id, bytes);
    return asVerified({ sender: node.id, message, payload, signature });
  }

  /** Says it in a replica's name, as an adversary with its key would. */
  inject(from: number, to: number, message: PbftMessage): void {
    this.#deliver(this.nodes[from]!.id, this.nodes[to]!, this.#sign(this.nodes[from]!, message));
  }

  // ---- the network ------------------------------------------------------------------------------------------------

  #send(node: Node, to: ReplicaId | 'all', signed: Signed<PbftMessage>): void {
    for (const other of this.nodes) {
      if (other.id === node.id || (to !== 'all' && to !== other.id)) continue;
      let sent: Signed<PbftMessage> = signed;
      if (this.tamper !== null) {
        const message = this.tamper(node.id, other.id, signed.message);
        if (message === null) continue;
        if (message !== signed.message) sent = this.#sign(node, message);
      }
      if (this.random() < this.faults.loss) continue;
      this.#deliver(node.id, other, sent);
      if (this.random() < this.faults.repeat) this.#deliver(node.id, other, sent);
    }
  }

  #deliver(from: ReplicaId, to: Node, signed: Signed<PbftMessage>): void {
    this.messages += 1;
    this.after(this.between(this.faults.delayMs), () => {
      if (to.core === null || this.#isCut(from, to.id)) return;
      this.trace.update(`${this.now} ${from} ${to.id} ${signed.message.kind} `).update(signed.payload);
      const { message } = signed;
      if (
        message.kind === 'fetch-blocks' ||
        message.kind === 'fetch-block' ||
        message.kind === 'fetch-checkpoint' ||
        message.kind === 'fetch-state'
      ) {
        const answer = this.#answer(to, message);
        if (answer !== null) this.#send(to, from, this.#sign(to, answer));
        return;
      }
      const received = this.#receive(to, signed);
      if (received !== null && to.core.wants(received.message, received.sender))
        this.#input(to, { type: 'message', signed: received });
    });
  }

  #isCut(a: number, b: number): boolean {
    return this.partition !== null && !this.partition.some((side) => side.includes(a) && side.includes(b));
  }

  #receive(to: Node, signed: Signed<PbftMessage>): Verified<PbftMessage> | null {
    if (!this.#realSignatures) return asVerified(signed);
    const { message, payload, sender, signature } = signed;
    const frame = decodeFrame(
      encodeFrame({ kind: message.kind, payload, sender: this.keys[sender]!.publicKey, signature }),
    );
    if (isRefusal(frame)) throw new Error(`an own frame does not decode: ${frame.refused}`);
    const verified = verifyFrame(frame, {
      crypto: native,
      chainId: this.genesis.chainId,
      epoch: asEpoch(0),
      members: this.genesis.members,
      quorum: byzantineQuorums(this.genesis.members.length).quorum,
      parameters: this.genesis.parameters,
      seen: this.#seen[to.id],
    });
    if (isRefusal(verified)) {
      this.refusals.push({ at: to.id, from: sender, code: verified.refused, kind: message.kind });
      return null;
    }
    return verified;
  }

  #answer(node: Node, message: PbftMessage): Exclude<PbftMessage, PbftPledge> | null {
    const { disk } = node;
    const context = { sha256: native.sha256, parameters: this.genesis.parameters };
    const decode = (bytes: BlockBytes) => {
      const block = decodeStoredBlock(bytes, context);
      if (isRefusal(block)) throw new Error(block.refused);
      return block;
    };
    switch (message.kind) {
      case 'fetch-block': {
        const bytes = disk.block(message.height, message.hash);
        return bytes === undefined ? null : { kind: 'block-data', block: decode(bytes) };
      }
      case 'fetch-blocks': {
        const blocks: CertifiedBlock[] = [];
        for (let height: number = message.from; height <= Math.min(message.to, message.from + 20); height++) {
          const decided = disk.decided.get(height);
          const bytes = decided && disk.block(height, decided.hash);
          if (decided === undefined || bytes === undefined) break;
          const certificate = decided.certificate === null ? null : decodeCertificate(decided.certificate);
          if (certificate !== null && isRefusal(certificate)) throw new Error(certificate.refused);
          blocks.push({ block: decode(bytes), certificate });
        }
        const last = blocks.findLastIndex((entry) => entry.certificate !== null);
        return { kind: 'blocks', blocks: blocks.slice(0, last + 1), tail: null };
      }
      case 'fetch-checkpoint': {
        const { stable } = disk.recover();
        if (stable?.certificate == null) return null;
        const checkpoint = decodeCheckpointCertificate(stable.certificate);
        if (isRefusal(checkpoint)) throw new Error(checkpoint.refused);
        const stored = disk.checkpoints.get(stable.height);
        const headerBytes = stored?.header ?? disk.block(stable.height, checkpoint.hash)?.header;
        return headerBytes === undefined ? null : { kind: 'checkpoint-proof', checkpoint, headerBytes };
      }
      case 'fetch-state': {
        const leaves = Array.from({ length: STATE_CHUNKS }, (_, chunk) =>
          leafHash(native.sha256, disk.chunkAt(message.height, chunk)),
        );
        const proof = inclusionProof(native.sha256, leaves, message.chunk);
        return {
          kind: 'state-chunk',
          height: message.height,
          chunk: message.chunk,
          bytes: disk.chunkAt(message.height, message.chunk),
          proof,
        };
      }
      default:
        return null;
    }
  }

  // ---- clients and checks -----------------------------------------------------------------------------------------

  submit(to: number, bundle: SignedBundle): void {
    this.#input(this.nodes[to]!, { type: 'bundle', bundle });
  }

  /** Safety, at every delivery: one block per height over all replicas and lives; each bundle once. */
  #check(node: Node, decided: Decided): void {
    if (this.byzantine.has(node.id)) return;
    const { block } = decided;
    const { height } = block.header;
    const hash = toHex(block.hash);
    const before = this.chain.get(height);
    if (before !== undefined && before !== hash) throw new Error(`two blocks decided at height ${height}`);
    this.chain.set(height, hash);
    this.delivered[node.id]!.push(decided);
    for (const bundle of block.bundles) {
      const name = toHex(bundle.digest);
      const at = this.executed[node.id]!.get(name);
      if (at !== undefined && at !== height) throw new Error(`a bundle was ordered twice, at ${at} and ${height}`);
      this.executed[node.id]!.set(name, height);
    }
  }

  height(id: number): Height {
    return this.nodes[id]!.core?.explain().height ?? asHeight(0);
  }

  has(id: number, bundle: SignedBundle): boolean {
    return this.executed[id]!.has(toHex(bundle.digest));
  }

  live(): number[] {
    return this.nodes.filter((node) => node.core !== null).map((node) => node.id);
  }
}

/** A signature nobody checks, in the simulations that do not pay for real ones: bound to signer and bytes all the same. */
function standIn(id: number, bytes: Bytes): Bytes {
  return Uint8Array.from(
    createHash('sha512')
      .update(Buffer.from([id]))
      .update(bytes)
      .digest(),
  );
}
