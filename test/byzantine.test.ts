// What was once won against the honest replicas, and must not be again: each attack as it was made, with real keys and in virtual time.
// Then f replicas in one hand that say whatever hurts, while honest ones crash and restart: SEEDS=200 for more of these, SEED=n for one.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { Server } from '../daemon/serve.ts';
import type { Block } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { type Certificate, voteSigningBytes } from '../protocol/certificate.ts';
import { decodeStoredBlock, encodeBody, encodeCertificate, encodePayload, isRefusal } from '../protocol/codec.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { type Extension, Ledger } from '../protocol/ledger.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { ReplicaMessage, Signed, ViewChange, Vote } from '../protocol/messages.ts';
import { BUCKET_SESSIONS_MAX, bucketOf } from '../protocol/sessions.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { signingBytes } from '../protocol/verify.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';
import { Conspiracy } from '../sim/conspiracy.ts';
import { keyPair } from '../sim/signatures.ts';
import { openLogStore } from '../storage/log-store.ts';
import { MemoryDisk } from '../storage/memory.ts';
import { saidByHonest } from './said.ts';
import { load, torment } from './torment.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const text = (value: string) => Buffer.from(value);
const T = 500;
const HEARTBEAT = 100;
const epoch = asEpoch(0);

type Options = ConstructorParameters<typeof Cluster>[0];

function begin(options: Options = {}): Cluster {
  const cluster = new Cluster({ seed: 1, ...options });
  cluster.run(20);
  return cluster;
}

const explain = (cluster: Cluster, id: number) => cluster.nodes[id]!.core!.explain();
const started = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started');
const has = (cluster: Cluster, bundle: SignedBundle, ids: readonly number[] = cluster.live()) =>
  ids.every((id) => cluster.has(id, bundle));
const newLedger = (genesis: Genesis) => new Ledger({ sha256: native.sha256, genesis, epoch });

function submitTo(cluster: Cluster, ids: readonly number[], ...bundles: readonly SignedBundle[]): void {
  for (const bundle of bundles) for (const id of ids) cluster.submit(id, bundle);
}

/** What a replica accepted at a height, from its disk. */
function acceptedBy(cluster: Cluster, id: number, height: number): Block {
  const { disk } = cluster.nodes[id]!;
  const bytes = disk.block(height, disk.accepted.get(height)!.hash)!;
  const block = decodeStoredBlock(bytes, { sha256: native.sha256, parameters: cluster.genesis.parameters });
  if (isRefusal(block)) throw new Error(block.refused);
  return block;
}

/** A replica whose key is in our hand: its core is stopped, and we say in its name what we please, signed as it would be. */
class Puppet {
  readonly #cluster: Cluster;
  readonly #id: number;
  readonly #ledger: Ledger;

  constructor(cluster: Cluster, id: number) {
    cluster.crash(id);
    this.#cluster = cluster;
    this.#id = id;
    this.#ledger = newLedger(cluster.genesis);
  }

  /** A block with one bundle of its own on top of these undecided ones, sound in every way. */
  block(chain: readonly Extension[], name: string): Extension {
    const bundles = [new SimClient(this.#cluster.genesis, name).bundle([text(name)])];
    const time = asMillis(Math.floor(this.#cluster.now));
    const extension = this.#ledger.build(chain, { bundles, time, proposer: asReplicaId(this.#id) });
    if (extension === null) throw new Error('a block that could stand');
    return extension;
  }

  extend(chain: readonly Extension[], block: Block): Extension {
    const extension = this.#ledger.extend(chain, block);
    if ('refused' in extension) throw new Error(extension.refused);
    return extension;
  }

  say(to: readonly number[], message: ReplicaMessage): void {
    for (const id of to) this.#cluster.inject(this.#id, id, message);
  }

  propose(to: readonly number[], view: number, ...blocks: readonly Extension[]): void {
    for (const { block } of blocks) this.say(to, { kind: 'pre-prepare', epoch, view: asView(view), block });
  }

  vote(to: readonly number[], kind: Vote['kind'], view: number, { block }: Extension): void {
    this.say(to, { kind, epoch, view: asView(view), height: block.header.height, hash: block.hash });
  }

  askFor(to: readonly number[], view: number): void {
    this.say(to, { kind: 'view-change', epoch, view: asView(view), commit: null, prepared: null });
  }
}

/** A view-change with the key of its sender: as an honest one would have signed it, so only of what it would have said. */
function viewChange(cluster: Cluster, sender: number, message: ViewChange): Signed<ViewChange> {
  const payload = encodePayload(message);
  const signature = cluster.keys[sender]!.sign(signingBytes(cluster.genesis.chainId, message, payload));
  return { sender: asReplicaId(sender), message, payload, signature };
}

function certificate(
  { keys, genesis }: Pick<Cluster, 'keys' | 'genesis'>,
  place: Omit<Certificate, 'signatures'>,
  signers: readonly number[],
): Certificate {
  const bytes = voteSigningBytes(genesis.chainId, place);
  const signatures = signers.map((id) => ({ replica: asReplicaId(id), signature: keys[id]!.sign(bytes) }));
  return { ...place, signatures };
}

// ---- two blocks at one height -----------------------------------------------------------------------------------------------

t.test(
  'PBFT-PP-8: a restarted replica forgets nothing it voted for, and nobody can fork the chain with it',
  async (t) => {
    const cluster = begin({ realSignatures: true });
    const [ahead, liar, behind, restarted] = [0, 1, 2, 3] as const;
    // Block 1 is prepared in view 0 and decided nowhere: the base of view 1, whose primary is the liar.
    cluster.tamper = (_from, _to, message) =>
      message.kind === 'commit' || (message.kind === 'prepare' && message.view === 1) ? null : message;
    cluster.submit(0, new SimClient(cluster.genesis, 'alice').bundle([text('one')]));
    const inViewOne = (id: number) => {
      const { view, phase, inFlight } = explain(cluster, id);
      return view === 1 && phase !== 'view-change' && inFlight === 1;
    };
    t.ok(
      cluster.until(() => cluster.live().every(inViewOne), 3_000),
      'view 1 begins from block 1',
    );
    cluster.run(10);
    const puppet = new Puppet(cluster, liar);
    const base = puppet.extend([], acceptedBy(cluster, ahead, 1));
    const x2 = puppet.block([base], 'x2');
    const z2 = puppet.block([base], 'z2');
    const z3 = puppet.block([base, z2], 'z3');

    // Above the base, X2 goes to two replicas; one of them decides it, the other only prepares it.
    cluster.tamper = (from, to, message) => {
      if (message.kind === 'status' || to === behind || from === behind) return null;
      if (message.kind === 'commit' && to === restarted) return null;
      return (message.kind === 'prepare' || message.kind === 'commit') && message.height < 2 ? null : message;
    };
    puppet.propose([ahead, restarted], 1, x2);
    cluster.run(40);
    puppet.vote([ahead], 'commit', 1, x2);
    cluster.run(20);
    t.equal(cluster.height(ahead), 2, 'one replica has decided X2');
    t.equal(explain(cluster, restarted).inFlight, 2, 'the other holds it');

    cluster.crash(restarted);
    cluster.partition = [[ahead], [liar, behind, restarted]];
    cluster.tamper = null;
    cluster.boot(restarted);
    cluster.run(15);
    t.equal(explain(cluster, restarted).inFlight, 2, 'and still does after its restart');

    // The other chain, to those who do not know of the decision: with the liar they are a quorum.
    puppet.propose([behind, restarted], 1, z2, z3);
    cluster.run(40);
    puppet.vote([behind, restarted], 'commit', 1, z3);
    cluster.run(40);
    t.equal(cluster.height(behind), 0, 'nobody decides the other chain');
    const signed = (height: number) => cluster.checks.signedBy(asReplicaId(restarted), `prepare 1 ${height}`);
    t.equal(signed(2), toHex(x2.block.hash));
    t.equal(signed(3), undefined, 'nor votes above it');

    cluster.partition = null;
    t.ok(
      cluster.until(() => [ahead, behind, restarted].every((id) => cluster.height(id) >= 2), 10 * T),
      'all of them decide X2',
    );
    t.equal(cluster.chain.get(2), toHex(x2.block.hash));
  },
);

t.test('PBFT-NV-2, GEN-1: two sound new-views of one primary stop no honest replica', async (t) => {
  const cluster = begin({ realSignatures: true });
  const [a, liar, b, misled] = [0, 1, 2, 3] as const;
  const honest = [a, b, misled];
  // Blocks 1 and 2 of view 0 get prepares that nobody hears but the liar; one replica never sees the blocks.
  cluster.crash(liar);
  cluster.tamper = (_from, to, message) => {
    if (message.kind === 'prepare' || message.kind === 'forward') return null;
    return to === misled && (message.kind === 'pre-prepare' || message.kind === 'block-data') ? null : message;
  };
  for (const name of ['x1', 'x2']) {
    cluster.submit(a, new SimClient(cluster.genesis, name).bundle([text(name)]));
    cluster.run(30);
  }
  t.ok(
    cluster.until(() => honest.every((id) => explain(cluster, id).view === 1), 3_000),
    'view 1 is asked for',
  );
  cluster.run(20);
  const puppet = new Puppet(cluster, liar);
  const x2 = acceptedBy(cluster, b, 2);
  const place = { phase: 'prepare', epoch, view: asView(0), height: asHeight(2), hash: x2.hash } as const;
  const prepared = certificate(cluster, place, [a, liar, b]);
  const view = asView(1);
  const asking = (sender: number, certificate: Certificate | null = null) =>
    viewChange(cluster, sender, { kind: 'view-change', epoch, view, commit: null, prepared: certificate });
  const newView = (viewChanges: Signed<ViewChange>[]) => ({ kind: 'new-view', epoch, view, viewChanges }) as const;
  puppet.say([a, b], newView([asking(a), asking(liar), asking(b)]));
  puppet.say([misled], newView([asking(a), asking(liar, prepared), asking(misled)]));
  cluster.run(20);
  t.ok(
    honest.every((id) => explain(cluster, id).phase === 'ordering'),
    'all take the new-view they were shown',
  );

  // Two of them decide another block 1, the third learns it, and then gets the block that its own new-view starts from.
  const y1 = puppet.block([], 'y1');
  cluster.tamper = (_from, to, message) => (to === misled && message.kind === 'block-data' ? null : message);
  puppet.propose([a, b], 1, y1);
  puppet.vote([a, b], 'commit', 1, y1);
  t.ok(
    cluster.until(() => honest.every((id) => cluster.height(id) === 1), 2_000),
    'block 1 is decided everywhere',
  );
  puppet.say([misled], { kind: 'block-data', block: x2 });
  cluster.run(50);
  t.same(cluster.live(), honest, 'the base is passed over, and all live');
  cluster.tamper = null;
  const bundle = new SimClient(cluster.genesis, 'bob').bundle([text('later')]);
  cluster.submit(misled, bundle);
  t.ok(
    cluster.until(() => has(cluster, bundle), 20 * T),
    'and they go on together',
  );
});

// ---- clients ------------------------------------------------------------------------------------------------------------------

t.test('REQ-5, SES-5: no client breaks a primary by filling a part of the session table', async (t) => {
  const cluster = begin();
  const client = keyPair('mallory').publicKey;
  const sessions: number[] = [];
  for (let session = 1; sessions.length < BUCKET_SESSIONS_MAX + 2; session++)
    if (bucketOf(native.sha256, { client, session }) === 0) sessions.push(session);
  const bundles = sessions.map((session) =>
    new SimClient(cluster.genesis, 'mallory', session).bundle([text('x')], { validUntil: 90_000 }),
  );
  // All but one place taken, and three bundles at once that each want it.
  const room = bundles.slice(0, BUCKET_SESSIONS_MAX - 1);
  for (let from = 0; from < room.length; from += 1_024) {
    submitTo(cluster, [0], ...room.slice(from, from + 1_024));
    cluster.until(() => has(cluster, room[Math.min(from + 1_023, room.length - 1)]!), 3_000);
  }
  t.ok(has(cluster, room.at(-1)!), 'one place is left');
  for (let round = 0; round < 3; round++) {
    submitTo(cluster, cluster.live(), ...bundles.slice(-3));
    cluster.run(4 * T);
  }
  t.same(cluster.live(), [0, 1, 2, 3], 'nobody stops');
  t.equal(bundles.slice(-3).filter((bundle) => has(cluster, bundle)).length, 1, 'one of them is ordered');
  t.same(started(cluster), [], 'and no primary is blamed for the others');
  const bundle = new SimClient(cluster.genesis, 'alice').bundle([text('hello')]);
  cluster.submit(2, bundle);
  t.ok(cluster.until(() => has(cluster, bundle), T));
});

t.test('REQ-4: bundles behind a gap do not fill the pool', async (t) => {
  const cluster = begin();
  const sample = new SimClient(cluster.genesis, 'sample').bundle([text('x')], { validUntil: 90_000 });
  let count = 0;
  for (const name of ['m1', 'm2', 'm3']) {
    const client = keyPair(name).publicKey;
    for (const session of [1, 2]) {
      for (let sequence = 2; sequence <= 4_096; sequence++) {
        const digest = asHash(native.sha256(text(`${name} ${session} ${sequence}`)));
        submitTo(cluster, [0, 1, 2, 3], { ...sample, client, session, sequence, digest });
        count += 1;
      }
    }
  }
  cluster.run(HEARTBEAT);
  t.ok(count > 16_384, 'more than the pool takes');
  t.same(
    cluster.live().map((id) => explain(cluster, id).pool.bundles),
    [0, 0, 0, 0],
  );
  const bundle = new SimClient(cluster.genesis, 'alice').bundle([text('hello')]);
  cluster.submit(1, bundle);
  t.ok(
    cluster.until(() => has(cluster, bundle), T),
    'another client is ordered',
  );
  t.same(started(cluster), []);
});

t.test(
  'REQ-4, REQ-5: a client that floods one of its sessions costs no view, and its other one is ordered',
  async (t) => {
    const cluster = begin({ parameters: { blockBundlesMax: 16 } });
    const flooding = new SimClient(cluster.genesis, 'mallory', 1);
    const flood = () => {
      for (let waiting = explain(cluster, 0).pool.bundles; waiting < 200; waiting++)
        submitTo(cluster, [0, 1, 2, 3], flooding.bundle([text('f')], { validUntil: 90_000 }));
      cluster.after(10, flood);
    };
    flood();
    cluster.run(1);
    const lone = new SimClient(cluster.genesis, 'mallory', 2).bundle([text('lone')], { validUntil: 90_000 });
    submitTo(cluster, [0, 1, 2, 3], lone);
    t.ok(
      cluster.until(() => has(cluster, lone), T),
      'within T',
    );
    cluster.run(2 * T);
    t.ok(cluster.height(0) > 50, 'under a flood all the time');
    t.same(started(cluster), []);
  },
);

t.test('REQ-5, A5: a primary that leaves out one client is replaced at a low rate too', async (t) => {
  const cluster = begin();
  const victim = new SimClient(cluster.genesis, 'victim').bundle([text('v')], { validUntil: 90_000 });
  // As if the primary dropped it: it never hears of it.
  cluster.tamper = (_from, to, message) =>
    to === 0 && message.kind === 'forward'
      ? { ...message, bundles: message.bundles.filter(({ digest }) => toHex(digest) !== toHex(victim.digest)) }
      : message;
  submitTo(cluster, [1, 2, 3], victim);
  const other = new SimClient(cluster.genesis, 'other');
  const five = () => {
    cluster.submit(0, other.bundle([text('o')], { validUntil: 90_000 }));
    cluster.after(200, five);
  };
  five();
  t.ok(
    cluster.until(() => has(cluster, victim, [1, 2, 3]), 8 * T),
    'after eight blocks that had room for it',
  );
  t.ok(explain(cluster, 1).view > 0);
  t.match(started(cluster)[0]!.detail, /passes a bundle over|orders \d+ % of what it could/);
});

// ---- small requests, large answers --------------------------------------------------------------------------------------------

t.test('PBFT-NV-5: a new-view is shown now and then, not for each request', async (t) => {
  const cluster = begin();
  cluster.crash(0);
  cluster.submit(1, new SimClient(cluster.genesis, 'alice').bundle([text('1')]));
  const inViewOne = () => [1, 2, 3].every((id) => explain(cluster, id).view === 1 && cluster.height(id) === 1);
  t.ok(cluster.until(inViewOne, 10 * T));
  let shown = 0;
  cluster.tamper = (_from, to, message) => {
    if (to === 0 && message.kind === 'new-view') shown += 1;
    return message;
  };
  const puppet = new Puppet(cluster, 0);
  for (let i = 0; i < 1_000; i++) puppet.askFor([1], 1);
  cluster.run(2 * HEARTBEAT);
  t.ok(shown > 0, 'it is shown');
  t.ok(shown <= 2, `${shown} times for a thousand requests`);
});

t.test(
  'PBFT-CU-2, BLK-7: a run of blocks without certificates that no frame holds is served all the same',
  async (t) => {
    const cluster = begin();
    const { genesis } = cluster;
    const ledger = newLedger(genesis);
    const client = new SimClient(genesis, 'alice');
    const { log } = await openLogStore(new MemoryDisk().open(), {
      sha256: native.sha256,
      chainId: genesis.chainId,
      floor: null,
      retainBlocks: 'all',
    });
    const records: LogRecord[] = [];
    const top = 5;
    for (let at = 1; at <= top; at++) {
      const bundles = Array.from({ length: 4 }, () => client.bundle([Buffer.alloc(120_000, at)]));
      const time = asMillis(genesis.createdAt + at);
      const extension = ledger.build([], { bundles, time, proposer: asReplicaId(0) });
      if (extension === null) throw new Error('a block that could stand');
      ledger.apply(extension);
      const { hash, header, headerBytes } = extension.block;
      const { height } = header;
      const place = { phase: 'commit', epoch, view: asView(0), height, hash } as const;
      const proof = at < top ? null : encodeCertificate(certificate(cluster, place, [0, 1, 2]));
      records.push({ type: 'block', height, hash, bytes: { header: headerBytes, body: encodeBody(bundles) } });
      records.push({ type: 'decided', height, hash, certificate: proof, bundles: bundles.map(({ digest }) => digest) });
    }
    await log.write(records);
    const wire = { sha256: native.sha256, parameters: genesis.parameters };
    const server = new Server({ log, sha256: native.sha256, wire });
    let height = 0;
    for (let answers = 0; height < top && answers < top; answers++) {
      const answer = await server.answer({ kind: 'fetch-blocks', from: asHeight(height + 1), to: asHeight(top) });
      if (answer?.kind !== 'blocks' || answer.blocks.length === 0) break;
      t.equal(answer.blocks[0]!.block.header.height, height + 1);
      const proved = answer.blocks.at(-1)!.certificate?.height ?? answer.tail?.certificate.height;
      t.equal(proved, top, 'the certificate is that of the last one, however far above');
      height = answer.blocks.at(-1)!.block.header.height;
    }
    t.equal(height, top, 'all of them');
  },
);

// ---- alone in a later view ----------------------------------------------------------------------------------------------------

/** The guard of a replica remembers a vote of view 0 for a block that the replica does not know of. */
function forgetful(cluster: Cluster, id: number, height: number): void {
  const hash = asHash(new Uint8Array(32).fill(7));
  const pledge = { kind: 'prepare', epoch, view: asView(0), height: asHeight(height), hash } as const;
  const durable = { log: cluster.nodes[id]!.disk.position, decided: asHeight(0) };
  cluster.nodes[id]!.guard.promise([{ pledge, payload: encodePayload(pledge) }], null, durable);
}

t.test(
  'PBFT-VC-5, GRD-17: a refused pledge makes the replica ask for the next view, and vote no more in this one',
  async (t) => {
    const cluster = begin();
    forgetful(cluster, 2, 1);
    let votes = 0;
    cluster.tamper = (from, _to, message) => {
      if (from === 2 && (message.kind === 'prepare' || message.kind === 'commit') && message.view === 0) votes += 1;
      return message;
    };
    const client = new SimClient(cluster.genesis, 'alice');
    const [first, second] = [client.bundle([text('1')]), client.bundle([text('2')])];
    cluster.submit(1, first);
    t.ok(
      cluster.until(() => has(cluster, first, [0, 1, 3]), T),
      'the others decide',
    );
    t.same(
      started(cluster).map(({ at, detail }) => [Number(at), detail]),
      [[2, '{"view":1,"reason":"the guard refused a vote of this view"}']],
    );
    cluster.submit(1, second);
    t.ok(
      cluster.until(() => has(cluster, second), 4 * T),
      'it follows what they decide',
    );
    t.equal(votes, 0, 'without a vote');
  },
);

t.test('PBFT-VC-6: a replica that gave its view up alone is followed after 8 T, on an idle chain', async (t) => {
  const cluster = begin();
  forgetful(cluster, 2, 1);
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.submit(1, client.bundle([text('1')]));
  t.ok(cluster.until(() => started(cluster).length === 1, T));
  const since = cluster.now;
  const together = () =>
    cluster.live().every((id) => explain(cluster, id).view === 1 && explain(cluster, id).phase === 'idle');
  t.ok(cluster.until(together, 8 * T + 4 * HEARTBEAT), 'followed');
  t.ok(cluster.now - since > 8 * T, 'not sooner');
  t.match(started(cluster)[1]!.detail, /alone for long/);
  // It counts again: without another one they still go on.
  cluster.crash(3);
  const bundle = client.bundle([text('2')]);
  cluster.submit(2, bundle);
  t.ok(cluster.until(() => has(cluster, bundle), T));
});

t.test('PBFT-VC-6: whoever asks alone again and again is followed each time twice as late', async (t) => {
  const cluster = begin({ n: 7 });
  const puppet = new Puppet(cluster, 6);
  const honest = [0, 1, 2, 3, 4, 5];
  const waits: number[] = [];
  for (let round = 0; round < 3; round++) {
    const since = cluster.now;
    const view = round + 1;
    puppet.askFor(honest, view);
    const entered = () =>
      honest.every((id) => explain(cluster, id).view === view && explain(cluster, id).phase === 'idle');
    t.ok(cluster.until(entered, 40 * T), `view ${view}`);
    waits.push((cluster.now - since) / T);
  }
  for (const [round, wait] of waits.entries()) {
    t.ok(wait > 8 * 2 ** round, `round ${round}: ${wait} T`);
    t.ok(wait < 8 * 2 ** round + 2);
  }
});

// ---- f replicas in one hand -----------------------------------------------------------------------------------------------------

interface Outcome {
  readonly problem: string;
  readonly height: number;
  readonly views: readonly number[];
  readonly divided: number;
  /** Pieces of evidence against liars; against honest ones there must be none. */
  readonly evidence: number;
}

/** Crashes, splits and loss with liars at work; then all honest ones are up, and must order everything in spite of them. */
function outlives(seed: number): Outcome {
  const n = seed % 3 === 0 ? 7 : 4;
  const members = n === 4 ? [seed % 4] : [seed % 7, (seed + 2) % 7];
  const parameters = { checkpointInterval: 16 };
  const cluster = new Cluster({ n, seed, realSignatures: seed % 10 === 0, parameters });
  const conspiracy = new Conspiracy(cluster, members);
  const said = saidByHonest(cluster, members);
  const ms = 8_000;
  const sent = load(cluster, { clients: 3, everyMs: 150, untilMs: ms });
  torment(cluster, { untilMs: ms, blackouts: seed % 2 === 0 });
  cluster.run(ms + 500);
  conspiracy.cutsPower = false;
  cluster.run(100);
  cluster.faults = calm;
  cluster.partition = null;
  // Silence is the other thing they can do.
  if (seed % 4 < 2) conspiracy.end();
  for (const { id, core } of cluster.nodes) if (core === null && !members.includes(id)) cluster.boot(id);
  const honest = cluster.nodes.map(({ id }) => Number(id)).filter((id) => !members.includes(id));
  // Who took a checkpoint never delivered what lies below it: others did.
  const isCovered = (id: number, bundle: SignedBundle) =>
    honest.some((by) => (cluster.executedAt(by, bundle) ?? Number.POSITIVE_INFINITY) <= cluster.height(id));
  const isDone = cluster.until(() => sent.every((b) => honest.every((id) => isCovered(id, b))), 120_000);
  conspiracy.end();
  const isOne = cluster.until(() => new Set(honest.map((id) => cluster.height(id))).size === 1, 10_000);
  const isFramed = cluster.evidence.some(({ culprit }) => !members.includes(culprit));
  const twice = said.end();
  return {
    problem: isFramed
      ? 'evidence against an honest one'
      : twice.length > 0
        ? `an honest one contradicts itself: ${twice.join('; ')}`
        : !isDone
          ? 'a transaction was never ordered'
          : !isOne
            ? 'the heights stay apart'
            : '',
    height: cluster.height(honest[0]!),
    views: honest.map((id) => explain(cluster, id).view),
    divided: conspiracy.divided,
    evidence: cluster.evidence.length,
  };
}

t.test('PBFT-C-3, PBFT-Q-1, ACC-3: f liars together fork nothing and stop nobody for good', async (t) => {
  const only = process.env.SEED === undefined ? null : [Number(process.env.SEED)];
  const seeds = only ?? Array.from({ length: Number(process.env.SEEDS ?? 20) }, (_, i) => i + 1);
  let divided = 0;
  let evidence = 0;
  for (const seed of seeds) {
    try {
      const { problem, ...outcome } = outlives(seed);
      divided += outcome.divided;
      evidence += outcome.evidence;
      t.equal(problem, '', `seed ${seed} ${JSON.stringify(outcome)}`);
    } catch (error) {
      t.fail(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  if (seeds.length > 1) t.ok(divided > 0, `${divided} times honest ones voted for two blocks at one place`);
  if (seeds.length > 1) t.ok(evidence > 0, `${evidence} pieces of evidence, all against liars`);
});
