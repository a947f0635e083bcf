// Evidence (docs/wire.md, "Evidence"; docs/spec.md, "Accountability"): what proves a key guilty and what does not, that honest replicas
// notice it, keep it and never give any against an honest one. Whole clusters in virtual time; SEEDS=500 for more lives.

import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Bytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { collectWitness, EVIDENCE_LIMITS, EvidenceBook } from '../daemon/evidence.ts';
import { decodeWitness, encodeWitness, readWitness } from '../daemon/witness-file.ts';
import type { Block } from '../protocol/block.ts';
import { type Certificate, voteSigningBytes } from '../protocol/certificate.ts';
import { encodeFrame, encodePayload } from '../protocol/codec.ts';
import { denies } from '../protocol/conflict.ts';
import type { Evidence } from '../protocol/core.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { Ledger } from '../protocol/ledger.ts';
import type {
  CheckpointVote,
  NewView,
  PrePrepare,
  ReplicaMessage,
  Signed,
  ViewChange,
  Vote,
} from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import { encodeMsgpack, type WireValue } from '../protocol/msgpack.ts';
import { encodeHardState } from '../protocol/pbft/hard-state.ts';
import { asEpoch, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import {
  decodeEvidence,
  encodeEvidence,
  evidenceOf,
  type Offence,
  type ProvenEvidence,
  signingBytes,
  verifyEvidence,
} from '../protocol/verify.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';
import { Rivals } from '../sim/rivals.ts';
import { settingOf } from '../sim/setting.ts';
import { EverythingSaid } from './said.ts';
import { load, torment } from './torment.ts';
import * as fx from './wire-fixtures.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(0);

const T = 500;
const epoch = asEpoch(0);
const text = (value: string) => Buffer.from(value);
const genesis: Genesis = {
  chainId: fx.chainId,
  name: 'evidence',
  protocol: 'pbft',
  createdAt: asMillis(1_700_000_000_000),
  members: fx.members,
  parameters: fx.parameters,
};
const context = { genesis, crypto: native };

// ---- what proves something ----------------------------------------------------------------------------------------------

const vote = (kind: Vote['kind'], view: number, height: number, hash: number): Vote => ({
  kind,
  epoch,
  view: asView(view),
  height: asHeight(height),
  hash: fx.hashOf(hash),
});
const one = fx.chain(1)[0]!;
const checkpoint = (state: number): CheckpointVote => ({
  kind: 'checkpoint',
  ...fx.placeOf(one),
  stateDigest: fx.hashOf(state),
});
const proposal = (of: Block): PrePrepare => ({ kind: 'pre-prepare', epoch, view: asView(4), block: of });
const sibling = fx.block(one.bundles, { height: 1, time: one.header.time + 1 });
const asking = (view: number, prepared: Certificate | null, commit: Certificate | null = null): ViewChange => ({
  kind: 'view-change',
  epoch,
  view: asView(view),
  commit,
  prepared,
});
const opening = (view: number, senders: readonly number[], of: Block | null = null): NewView => ({
  kind: 'new-view',
  epoch,
  view: asView(view),
  viewChanges: senders.map((sender) => fx.viewChange(view, sender, of)),
});

/** Votes for blocks of fx.chain, and of another chain that parts from it at height 1. */
const blocks = fx.chain(4);
const voteOn = (kind: Vote['kind'], of: Block): Vote => ({ ...vote(kind, 4, of.header.height, 0), hash: of.hash });
const headersUp = (from: number, to: number) => blocks.slice(from - 1, to).map(({ headerBytes }) => headerBytes);

interface Case {
  readonly name: string;
  readonly offence: Offence;
  readonly a: ReplicaMessage;
  readonly b: ReplicaMessage;
  readonly links?: readonly Bytes[];
}
const cases: readonly Case[] = [
  { name: 'two proposals', offence: 'two-prepares', a: proposal(one), b: proposal(sibling) },
  { name: 'two prepares', offence: 'two-prepares', a: vote('prepare', 4, 1, 1), b: vote('prepare', 4, 1, 2) },
  { name: 'a proposal and a prepare', offence: 'two-prepares', a: proposal(one), b: vote('prepare', 4, 1, 2) },
  { name: 'two commits', offence: 'two-commits', a: vote('commit', 4, 1, 1), b: vote('commit', 4, 1, 2) },
  {
    name: 'a prepare and a commit of another block',
    offence: 'two-chains',
    a: vote('prepare', 4, 1, 1),
    b: vote('commit', 4, 1, 2),
  },
  {
    name: 'a commit and another one higher up on another chain',
    offence: 'two-chains',
    a: voteOn('commit', sibling),
    b: voteOn('commit', blocks[2]!),
    links: headersUp(2, 3),
  },
  {
    name: 'a proposal and a prepare one below on another chain',
    offence: 'two-chains',
    a: proposal(blocks[1]!),
    b: voteOn('prepare', sibling),
    links: headersUp(2, 2),
  },
  { name: 'two checkpoints', offence: 'two-checkpoints', a: checkpoint(1), b: checkpoint(2) },
  {
    name: 'two view-changes',
    offence: 'two-view-changes',
    a: asking(5, null),
    b: asking(5, fx.certificate(one, 'prepare', 4)),
  },
  { name: 'two new-views', offence: 'two-new-views', a: opening(4, [0, 1, 2]), b: opening(4, [0, 1, 3]) },
  {
    name: 'a commit and a view-change without it',
    offence: 'commit-denied',
    a: vote('commit', 4, 7, 1),
    b: asking(5, null),
  },
  {
    name: 'a commit and a view-change with an earlier one',
    offence: 'commit-denied',
    a: vote('commit', 4, 7, 1),
    b: asking(6, fx.certificate(one, 'prepare', 4)),
  },
];

const pieceOf = (a: ReplicaMessage, b: ReplicaMessage, links: readonly Bytes[] = []) =>
  evidenceOf(genesis, fx.signed(a), fx.signed(b), links);
const codeOf = (bytes: Bytes) => {
  const verdict = verifyEvidence(bytes, context);
  return 'refused' in verdict ? `${verdict.refused} ${verdict.field}`.trim() : verdict.conflict.offence;
};

t.test('EVD-1, EVD-2, EVD-3: each pair that no honest replica signs proves its key guilty, offline', async (t) => {
  for (const { name, offence, a, b, links } of cases) {
    const bytes = encodeEvidence(pieceOf(a, b, links));
    t.strictSame(encodeEvidence(pieceOf(b, a, links)), bytes, `${name}: one encoding, whichever came first`);
    const proven = fx.must(verifyEvidence(bytes, context));
    t.equal(proven.conflict.offence, offence, name);
    t.equal(proven.culprit, fx.members[0]);
    t.strictSame(encodeEvidence(fx.must(decodeEvidence(bytes))), bytes, 'decoding and encoding again');
  }
  const { conflict } = fx.must(verifyEvidence(encodeEvidence(pieceOf(cases[1]!.a, cases[1]!.b)), context));
  t.strictSame(conflict, { offence: 'two-prepares', epoch: 0, view: 4, height: 1 });
});

t.test('EVD-3: what an honest replica does sign proves nothing', async (t) => {
  const prepared = fx.certificate(one, 'prepare', 4);
  const innocent: readonly (readonly [string, ReplicaMessage, ReplicaMessage])[] = [
    ['another view', vote('prepare', 4, 1, 1), vote('prepare', 5, 1, 2)],
    ['another height', vote('commit', 4, 1, 1), vote('commit', 4, 2, 2)],
    ['another checkpoint height', checkpoint(1), { ...checkpoint(2), height: asHeight(2) }],
    ['view-changes of two views', asking(5, null), asking(6, prepared)],
    ['new-views of two views', opening(4, [0, 1, 2]), opening(8, [0, 1, 2])],
    ['a view-change and a new-view', asking(4, null), opening(4, [0, 1, 2])],
    ['a commit that is shown', { ...vote('commit', 4, 1, 1), hash: one.hash }, asking(5, prepared)],
    ['a later one is shown', vote('commit', 3, 9, 1), asking(5, prepared)],
    ['a commit of the view asked for', vote('commit', 5, 7, 1), asking(5, null)],
    ['a commit of a later view', vote('commit', 6, 7, 1), asking(5, null)],
    ['a prepare is no promise', vote('prepare', 4, 7, 1), asking(5, null)],
  ];
  for (const [name, a, b] of innocent) t.equal(codeOf(encodeEvidence(pieceOf(a, b))), 'evidence-no-conflict', name);
  const chains: readonly (readonly [string, ReplicaMessage, ReplicaMessage, readonly Bytes[]])[] = [
    ['votes of one chain', voteOn('commit', blocks[0]!), voteOn('commit', blocks[2]!), headersUp(2, 3)],
    ['of one block', voteOn('prepare', blocks[0]!), voteOn('commit', blocks[0]!), []],
    ['of two views', voteOn('commit', sibling), { ...voteOn('commit', blocks[2]!), view: asView(5) }, headersUp(2, 3)],
    ['a header missing', voteOn('commit', sibling), voteOn('commit', blocks[2]!), headersUp(3, 3)],
    ['none at all', voteOn('commit', sibling), voteOn('commit', blocks[2]!), []],
    ['one too many', voteOn('commit', sibling), voteOn('commit', blocks[2]!), headersUp(1, 3)],
    ['of other blocks', voteOn('commit', sibling), voteOn('commit', blocks[2]!), headersUp(3, 4)],
    ['the wrong way round', voteOn('commit', sibling), voteOn('commit', blocks[2]!), headersUp(2, 3).reverse()],
    ['no headers', voteOn('commit', sibling), voteOn('commit', blocks[2]!), [fx.filled(1, 256), fx.filled(2, 256)]],
    ['links beside a pair that needs none', vote('commit', 4, 1, 1), vote('commit', 4, 1, 2), headersUp(1, 1)],
    ['links beside view-changes', asking(5, null), asking(5, prepared), headersUp(1, 1)],
  ];
  for (const [name, a, b, links] of chains)
    t.equal(codeOf(encodeEvidence(pieceOf(a, b, links))), 'evidence-no-conflict', name);
  const same = pieceOf(cases[1]!.a, cases[1]!.a);
  t.equal(codeOf(encodeEvidence(same)), 'evidence-order second', 'the same twice');
  // What has a place of its own is no statement of this sort at all.
  t.throws(() => pieceOf({ kind: 'fetch-checkpoint' }, cases[0]!.a), /pledges and proposals/);
});

t.test('EVD-3: a view-change denies exactly the commits that its sender could not have forgotten', async (t) => {
  const place = (view: number, height: number, hash = 1) => vote('commit', view, height, hash);
  const showing = (view: number, height: number, hash: number): Certificate => ({
    ...place(view, height, hash),
    phase: 'prepare',
    signatures: [],
  });
  const table: readonly (readonly [Vote, number, Certificate | null, boolean])[] = [
    [place(3, 7), 4, null, true],
    [place(3, 7), 3, null, false],
    [place(3, 7), 2, null, false],
    [place(3, 7), 4, showing(3, 6, 9), true],
    [place(3, 7), 4, showing(3, 7, 1), false],
    [place(3, 7), 4, showing(3, 7, 9), true],
    [place(3, 7), 4, showing(3, 8, 9), false],
    [place(3, 7), 9, showing(2, 99, 9), true],
    [place(3, 7), 9, showing(4, 1, 9), false],
  ];
  for (const [commit, view, prepared, expected] of table)
    t.equal(denies(asking(view, prepared), commit), expected, `${commit.view}/${commit.height} in ${view}`);
  t.notOk(denies({ ...asking(4, null), epoch: asEpoch(1) }, place(3, 7)), 'of another epoch');
});

t.test('EVD-1, EVD-2: whatever is changed in a piece, it proves nothing any more', async (t) => {
  for (const { name, a, b, links } of cases) {
    const bytes = encodeEvidence(pieceOf(a, b, links));
    // Every byte of the small ones; of those with certificates inside, enough of them.
    const step = bytes.length > 2_000 ? 13 : 1;
    for (let at = 0; at < bytes.length; at += step)
      for (const change of [1, 0x80]) {
        const changed = Uint8Array.from(bytes);
        changed[at] = changed[at]! ^ change;
        const verdict = verifyEvidence(changed, context);
        if (!('refused' in verdict)) t.fail(`${name}: byte ${at} ^ ${change} still passes`);
      }
    for (const cut of [0, 1, bytes.length - 1])
      t.match(verifyEvidence(bytes.subarray(0, cut), context), { refused: String });
    t.match(verifyEvidence(Uint8Array.of(...bytes, 0), context), { refused: 'payload-malformed' }, `${name}: a rest`);
  }
  // Each field by itself, and what it is refused for.
  const [first, second] = [fx.signed(vote('commit', 4, 1, 1)), fx.signed(vote('commit', 4, 1, 2))];
  const number = { commit: 18, prepare: 17, status: 1, 'pre-prepare': 16 } as const;
  const parts = (changes: Partial<Record<string, WireValue>> = {}): Bytes => {
    const p = {
      chainId: fx.chainId,
      epoch: 0,
      key: fx.replicas[0]!.publicKey,
      kind1: number.commit,
      payload1: first.payload,
      signature1: first.signature,
      kind2: number.commit,
      payload2: second.payload,
      signature2: second.signature,
      links: [],
      ...changes,
    } as Record<string, WireValue>;
    const statement = (i: number): WireValue => [p[`kind${i}`]!, p[`payload${i}`]!, p[`signature${i}`]!];
    return encodeMsgpack([p.chainId!, p.epoch!, p.key!, statement(1), statement(2), p.links!]);
  };
  t.equal(codeOf(parts()), 'two-commits');
  const fields: readonly (readonly [string, Partial<Record<string, WireValue>>, string])[] = [
    ['another chain', { chainId: fx.hashOf(1) }, 'chain-mismatch chainId'],
    ['another epoch', { epoch: 1 }, 'evidence-epoch epoch'],
    ['a stranger’s key', { key: fx.client.publicKey }, 'sender-unknown key'],
    ['another member’s key', { key: fx.replicas[1]!.publicKey }, 'signature-invalid first.signature'],
    ['a kind that binds nobody', { kind1: number.status }, 'field-out-of-range first.kind'],
    ['a proposal itself', { kind2: number['pre-prepare'] }, 'field-out-of-range second.kind'],
    ['a kind that is none', { kind1: 200 }, 'field-out-of-range first.kind'],
    ['a prepare of it', { kind1: number.prepare, kind2: number.prepare }, 'signature-invalid first.signature'],
    [
      'the wrong way round',
      { payload1: second.payload, payload2: first.payload, signature1: second.signature, signature2: first.signature },
      'evidence-order second',
    ],
    ['another view', { payload2: encodePayload(vote('commit', 5, 1, 2)) }, 'evidence-no-conflict'],
    ['another hash', { payload2: encodePayload(vote('commit', 4, 1, 3)) }, 'signature-invalid second.signature'],
    [
      'a statement of another epoch',
      { payload2: encodePayload({ ...vote('commit', 4, 1, 2), epoch: asEpoch(1) }) },
      'evidence-epoch second.payload.epoch',
    ],
    ['a payload of another kind', { payload2: encodePayload(checkpoint(1)) }, 'payload-malformed second.payload.'],
    ['the signature of the other', { signature1: second.signature }, 'signature-invalid first.signature'],
    ['a signature too long', { signature2: fx.filled(1, 65) }, 'field-out-of-range second.signature'],
    ['no payload', { payload1: new Uint8Array(0) }, 'field-out-of-range first.payload'],
    ['a key too short', { key: fx.filled(1, 31) }, 'field-out-of-range key'],
    ['no chain', { chainId: null }, 'payload-malformed chainId'],
    ['a header beside', { links: headersUp(1, 1) }, 'evidence-no-conflict'],
    ['too many headers', { links: Array.from({ length: 65 }, () => one.headerBytes) }, 'payload-malformed'],
    ['a header too short', { links: [fx.filled(1, 255)] }, 'field-out-of-range links'],
  ];
  for (const [name, changes, code] of fields) t.equal(codeOf(parts(changes)), code, name);
});

t.test('EVD-4: a witness file holds as a whole or not at all', async (t) => {
  const piece = encodeEvidence(pieceOf(cases[0]!.a, cases[0]!.b));
  const message = opening(4, [0, 1, 2], one);
  const frame = encodeFrame(fx.frameOf(message, fx.replicas[0]!));
  const file = encodeWitness(fx.chainId, [
    { sort: 'evidence', bytes: piece },
    { sort: 'frame', bytes: frame },
  ]);
  const witness = fx.must(readWitness(file, genesis, native));
  t.equal(witness.pieces[0]!.proven.culprit.id, 0);
  t.equal(witness.statements[0]!.signed.message.kind, 'new-view');
  t.equal(toHex(file.subarray(0, 16)), toHex(fx.text('synod-v1:witness')));
  const refused = (bytes: Bytes) => {
    const read = readWitness(bytes, genesis, native);
    return 'refused' in read ? read.refused : '';
  };
  t.equal(refused(file.subarray(0, -1)), 'witness-file-malformed', 'cut');
  t.equal(refused(Uint8Array.of(...file, 0)), 'witness-file-malformed', 'a rest');
  t.equal(refused(file.subarray(0, 48)), 'witness-file-malformed', 'nothing in it');
  t.equal(refused(fx.text('synod-v1:chain..')), 'witness-file-malformed');
  t.equal(refused(Uint8Array.from(file, (byte, i) => (i === 48 ? 4 : byte))), 'witness-file-malformed', 'no such sort');
  t.equal(refused(Uint8Array.from(file, (byte, i) => (i === 20 ? byte ^ 1 : byte))), 'chain-mismatch');
  t.equal(refused(Uint8Array.from(file, (byte, i) => (i === file.length - 1 ? byte ^ 1 : byte))), 'signature-invalid');
  t.equal(refused(encodeWitness(fx.chainId, [{ sort: 'evidence', bytes: frame }])), 'payload-malformed');
});

// ---- honest replicas notice ---------------------------------------------------------------------------------------------

type Seen = Evidence<ReplicaMessage> & { readonly at: number };

/** A cluster whose evidence is looked at whole: both messages, as they were signed. Replicas that are started later as well. */
function watched(options: ConstructorParameters<typeof Cluster>[0] = {}): { cluster: Cluster; seen: Seen[] } {
  const cluster = new Cluster({ seed: 3, realSignatures: true, ...options });
  const seen: Seen[] = [];
  const watch = (id: number) => {
    const core = cluster.nodes[id]!.core!;
    const step = core.step.bind(core);
    core.step = (inputs, now) => {
      const ready = step(inputs, now);
      for (const evidence of ready.evidence) seen.push({ ...evidence, at: id });
      return ready;
    };
  };
  for (const { id } of cluster.nodes) watch(id);
  const boot = cluster.boot.bind(cluster);
  cluster.boot = (id) => {
    boot(id);
    watch(Number(id));
  };
  cluster.run(20);
  return { cluster, seen };
}

function provenBy(cluster: Cluster, { first, second }: Pick<Seen, 'first' | 'second'>): ProvenEvidence {
  const piece = encodeEvidence(evidenceOf(cluster.genesis, first, second));
  return fx.must(verifyEvidence(piece, { genesis: cluster.genesis, crypto: native }));
}

const offencesIn = (cluster: Cluster, seen: readonly Seen[]) =>
  seen.map((each) => `${each.at}: ${each.culprit} ${provenBy(cluster, each).conflict.offence}`);

/** Two blocks that could stand at height 1, by the primary of a view. */
function rivals(cluster: Cluster, proposer: number): [Block, Block] {
  const ledger = new Ledger({ sha256: native.sha256, genesis: cluster.genesis, epoch });
  const block = (name: string) => {
    const bundles = [new SimClient(cluster.genesis, name).bundle([text(name)])];
    const time = asMillis(Math.floor(cluster.now));
    return ledger.build([], { bundles, time, proposer: asReplicaId(proposer) })!.block;
  };
  return [block('x'), block('y')];
}

const voteFor = (kind: Vote['kind'], view: number, { header, hash }: Block): Vote => ({
  kind,
  epoch,
  view: asView(view),
  height: header.height,
  hash,
});

/** What a key in our hand says: its core is down. */
function says(cluster: Cluster, from: number, to: number, ...messages: ReplicaMessage[]): void {
  for (const message of messages) {
    cluster.inject(from, to, message);
    cluster.run(8);
  }
}

function signedBy<M extends ReplicaMessage>(
  cluster: Pick<Cluster, 'keys' | 'genesis'>,
  sender: number,
  message: M,
): Signed<M> {
  const payload = encodePayload(message);
  const signature = cluster.keys[sender]!.sign(signingBytes(cluster.genesis.chainId, message, payload));
  return { sender: asReplicaId(sender), message, payload, signature };
}

function certified(cluster: Cluster, place: Vote, signers: readonly number[]): Certificate {
  const { kind: phase, ...rest } = place;
  const bytes = voteSigningBytes(cluster.genesis.chainId, { phase, ...rest });
  const signatures = signers.map((id) => ({ replica: asReplicaId(id), signature: cluster.keys[id]!.sign(bytes) }));
  return { phase, ...rest, signatures };
}

t.test('ACC-1: two votes of one replica are evidence, whichever phase, also beyond what is counted', async (t) => {
  for (const kind of ['prepare', 'commit'] as const) {
    const { cluster, seen } = watched();
    cluster.crash(3);
    const [x, y] = rivals(cluster, 0);
    says(cluster, 3, 1, voteFor(kind, 0, x), voteFor(kind, 0, x));
    t.strictSame(seen, [], 'the same again is a retransmission');
    says(cluster, 3, 1, voteFor(kind, 0, y));
    t.strictSame(offencesIn(cluster, seen), [`1: 3 two-${kind}s`]);
  }
  // Prepares of a block that is prepared already are not counted any more; one that contradicts another is looked at all the same.
  const { cluster, seen } = watched();
  cluster.crash(3);
  cluster.tamper = (_from, _to, message) => (message.kind === 'commit' ? null : message);
  const [x, y] = rivals(cluster, 0);
  cluster.crash(0);
  says(cluster, 0, 1, { kind: 'pre-prepare', epoch, view: asView(0), block: x });
  says(cluster, 3, 1, voteFor('prepare', 0, x));
  says(cluster, 2, 1, voteFor('prepare', 0, x));
  says(cluster, 3, 1, voteFor('prepare', 0, y));
  t.strictSame(offencesIn(cluster, seen), ['1: 3 two-prepares']);
});

t.test('ACC-1, PBFT-VC-1, PBFT-PP-4: a proposal beside a prepare or another proposal ends the view', async (t) => {
  for (const firstWord of ['proposal', 'prepare'] as const) {
    const { cluster, seen } = watched();
    cluster.crash(0);
    const [x, y] = rivals(cluster, 0);
    const propose = (block: Block): PrePrepare => ({ kind: 'pre-prepare', epoch, view: asView(0), block });
    says(cluster, 0, 1, firstWord === 'proposal' ? propose(x) : voteFor('prepare', 0, x), propose(y));
    t.strictSame(offencesIn(cluster, seen), ['1: 0 two-prepares'], firstWord);
    t.equal(cluster.nodes[1]!.core!.explain().view, 1, 'the primary is given up');
  }
  const { cluster, seen } = watched();
  cluster.crash(0);
  const [x, y] = rivals(cluster, 0);
  says(cluster, 0, 1, voteFor('commit', 0, x), voteFor('commit', 0, y));
  t.strictSame(offencesIn(cluster, seen), ['1: 0 two-commits']);
  t.equal(cluster.nodes[1]!.core!.explain().view, 1, 'whatever it did');
});

t.test('ACC-1: two checkpoints of one height', async (t) => {
  const { cluster, seen } = watched();
  cluster.crash(3);
  const [x] = rivals(cluster, 0);
  const { logRoot, memberSetHash } = x.header;
  const height = asHeight(cluster.genesis.parameters.checkpointInterval);
  const place = { epoch, height, hash: x.hash, logRoot, memberSetHash };
  const at = (state: number): CheckpointVote => ({ kind: 'checkpoint', ...place, stateDigest: fx.hashOf(state) });
  says(cluster, 3, 2, at(1), at(1), at(2));
  t.strictSame(offencesIn(cluster, seen), ['2: 3 two-checkpoints']);
});

t.test('ACC-1: two view-changes of one view, by themselves or in a new-view', async (t) => {
  const view = asView(1);
  {
    const { cluster, seen } = watched();
    cluster.crash(3);
    const [x] = rivals(cluster, 0);
    const prepared = certified(cluster, voteFor('prepare', 0, x), [0, 1, 3]);
    says(cluster, 3, 0, asking(1, null), asking(1, null), asking(1, prepared));
    t.strictSame(offencesIn(cluster, seen), ['0: 3 two-view-changes']);
    const refusals = cluster.refusals.length;
    says(cluster, 3, 0, asking(1, certified(cluster, voteFor('prepare', 0, x), [0, 2, 3])));
    t.equal(cluster.refusals.length, refusals, 'a third is not worth checking');
  }
  const { cluster, seen } = watched();
  cluster.crash(1);
  cluster.crash(3);
  const [x] = rivals(cluster, 0);
  // Not the observer's own vote: it would stop at it (REC-9).
  const prepared = certified(cluster, voteFor('prepare', 0, x), [1, 2, 3]);
  says(cluster, 3, 0, asking(1, null));
  const viewChanges = [
    signedBy(cluster, 1, asking(1, null)),
    signedBy(cluster, 2, asking(1, null)),
    signedBy(cluster, 3, asking(1, prepared)),
  ];
  says(cluster, 1, 0, { kind: 'new-view', epoch, view, viewChanges });
  t.strictSame(offencesIn(cluster, seen), ['0: 3 two-view-changes']);
});

t.test('ACC-1: two new-views of one view', async (t) => {
  // So many that two quorums do without the observer: at its own view-change it would stop (REC-9).
  const { cluster, seen } = watched({ n: 7 });
  cluster.crash(1);
  cluster.crash(3);
  const asked = [0, 1, 2, 3, 4, 5, 6].map((id) => signedBy(cluster, id, asking(1, null)));
  const shown = (...ids: number[]): NewView => ({
    kind: 'new-view',
    epoch,
    view: asView(1),
    viewChanges: ids.map((id) => asked[id]!),
  });
  says(cluster, 1, 2, shown(0, 1, 3, 4, 5), shown(0, 1, 3, 4, 5));
  t.strictSame(seen, []);
  says(cluster, 1, 2, shown(1, 3, 4, 5, 6));
  t.strictSame(offencesIn(cluster, seen), ['2: 1 two-new-views']);
});

t.test('ACC-1: a commit that its signer hides, and a vote inside a certificate', async (t) => {
  {
    const { cluster, seen } = watched();
    cluster.crash(3);
    const [x] = rivals(cluster, 0);
    says(cluster, 3, 2, voteFor('commit', 0, x), asking(1, null));
    t.strictSame(offencesIn(cluster, seen), ['2: 3 commit-denied']);
  }
  {
    const { cluster, seen } = watched();
    cluster.crash(3);
    const [x] = rivals(cluster, 0);
    says(cluster, 3, 2, voteFor('commit', 0, x), asking(1, certified(cluster, voteFor('prepare', 0, x), [0, 1, 3])));
    t.strictSame(seen, [], 'it is shown');
  }
  const { cluster, seen } = watched();
  cluster.crash(3);
  const [x, y] = rivals(cluster, 0);
  says(cluster, 3, 2, voteFor('prepare', 0, x));
  // Another replica's certificate holds the other vote; the colluders 0 and 1 have said nothing to this one.
  says(cluster, 1, 2, asking(1, certified(cluster, voteFor('prepare', 0, y), [0, 1, 3])));
  t.strictSame(offencesIn(cluster, seen), ['2: 3 two-prepares']);
});

t.test('PBFT-PP-9: a replica whose chain is not what was decided votes no more in that view', async (t) => {
  const { cluster, seen } = watched();
  cluster.crash(0);
  const [x, y] = rivals(cluster, 0);
  const propose = (block: Block): PrePrepare => ({ kind: 'pre-prepare', epoch, view: asView(0), block });
  cluster.partition = [
    [0, 3],
    [0, 1, 2],
  ];
  says(cluster, 0, 3, propose(x));
  cluster.inject(0, 1, propose(y));
  cluster.inject(0, 2, propose(y));
  cluster.run(20);
  for (const to of [1, 2]) says(cluster, 0, to, voteFor('commit', 0, y));
  t.ok(
    cluster.until(() => cluster.height(1) === 1 && cluster.height(2) === 1, T),
    'the others decide another block',
  );
  t.equal(cluster.nodes[3]!.core!.explain().inFlight, 1);
  cluster.partition = null;
  // At once the next proposal of the same view: its parent is what was decided, not what this replica voted for.
  const bundles = [new SimClient(cluster.genesis, 'z').bundle([text('z')])];
  const ledger = new Ledger({ sha256: native.sha256, genesis: cluster.genesis, epoch });
  const above = ledger.extend([], y);
  if ('refused' in above) return t.fail(above.refused);
  const z = ledger.build([above], { bundles, time: asMillis(cluster.now), proposer: asReplicaId(0) })!.block;
  cluster.until(() => cluster.height(3) === 1, 4 * T);
  says(cluster, 0, 3, propose(z));
  t.equal(cluster.checks.signedBy(asReplicaId(3), 'prepare 0 1'), toHex(x.hash));
  t.equal(cluster.checks.signedBy(asReplicaId(3), 'prepare 0 2'), undefined, 'no vote above');
  const left = () => cluster.events.filter(({ at, type }) => at === 3 && type === 'view-change-started');
  t.ok(cluster.until(() => left().length > 0, 4 * T));
  t.match(left()[0]!.detail, /"view":1,"reason":"what was decided is not what this replica voted for in this view"/);
  t.equal(cluster.height(3), 1, 'it has what they have');
  t.strictSame(seen, []);
});

// ---- kept ---------------------------------------------------------------------------------------------------------------

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

function bookIn(directory: string, of: Pick<Cluster, 'genesis'>, lines: string[] = []) {
  const counts = new Map<string, number>();
  const meter = {
    count: (name: string, labels: Readonly<Record<string, string>> = {}) =>
      void counts.set(`${name} ${labels.peer}`, (counts.get(`${name} ${labels.peer}`) ?? 0) + 1),
    gauge: (name: string, value: number, labels: Readonly<Record<string, string>> = {}) =>
      void counts.set(`${name} ${labels.peer}`, value),
    observe: () => {},
  };
  const log = (level: string) => (_fields: object, message: string) => void lines.push(`${level} ${message}`);
  const logger = { ...silent, warn: log('warn'), error: log('error') };
  const open = () => EvidenceBook.open({ directory, genesis: of.genesis, crypto: native, meter, logger });
  return { open, counts, lines };
}

t.test(
  'ACC-2, PBFT-PP-4: an equivocating primary is on the disk of an honest replica, and proved offline',
  async (t) => {
    const { cluster, seen } = watched();
    const directory = join(t.testdir(), 'evidence');
    const { open, counts, lines } = bookIn(directory, cluster);
    const book = await open();
    const fork = new Rivals(cluster.genesis);
    // One block to each of two halves, and then the other as well.
    cluster.tamper = (from, to, message) => {
      if (from !== 0 || message.kind !== 'pre-prepare' || message.view !== 0) return message;
      fork.follow(cluster.chain);
      fork.know(message.block);
      const second = { ...message, block: fork.of(message.block, 0) ?? message.block };
      cluster.inject(0, to, to < 2 ? second : message);
      return to < 2 ? message : second;
    };
    const bundle = new SimClient(cluster.genesis, 'alice').bundle([text('x')]);
    for (const id of [1, 2, 3]) cluster.submit(id, bundle);
    t.ok(
      cluster.until(() => [1, 2, 3].every((id) => cluster.has(id, bundle)), 6 * T),
      'ordered under the next primary',
    );
    t.ok(seen.length > 0);
    for (const each of seen) book.found(each);
    for (const each of seen) book.found(each);
    await book.settle();
    t.strictSame([...new Set(book.pieces.map(({ culprit }) => Number(culprit)))], [0]);
    t.equal(counts.get('synod_evidence_total node-0'), 2 * seen.length, 'every sighting is counted');
    t.equal(counts.get('synod_evidence_kept node-0'), book.pieces.length, 'each place is kept once');
    t.equal(lines.length, book.pieces.length, 'and logged once');
    t.match(lines[0], /^error a replica signed two blocks for height 1 in view 0/);

    // A restart: from the files, with the genesis document alone.
    const again = await open();
    const byId = (kept: typeof book.pieces) => [...kept].sort((a, b) => (a.id < b.id ? -1 : 1));
    t.strictSame(byId(again.pieces), byId(book.pieces));
    for (const { id } of again.pieces) {
      const witness = fx.must(readWitness((await again.read(id))!, cluster.genesis, native));
      t.equal(witness.pieces[0]!.proven.culprit.name, 'node-0');
    }
    again.found(seen[0]!);
    await again.settle();
    t.equal(again.pieces.length, book.pieces.length, 'known after a restart too');
    const all = fx.must(readWitness((await collectWitness(directory, cluster.genesis))!, cluster.genesis, native));
    t.equal(all.pieces.length, book.pieces.length);
  },
);

t.test('ACC-2: what is kept is bounded, the oldest stay; damage is told and harms nothing', async (t) => {
  const directory = join(t.testdir(), 'evidence');
  const made = settingOf(4);
  const { open, lines, counts } = bookIn(directory, made);
  let book = await open();
  const pair = (culprit: number, height: number): Evidence<ReplicaMessage> => {
    const signed = (hash: number) => asVerified(signedBy(made, culprit, vote('commit', 0, height, hash)));
    return { culprit: asReplicaId(culprit), first: signed(1), second: signed(2) };
  };
  const { piecesPerMemberMax } = EVIDENCE_LIMITS;
  for (let height = 1; height <= piecesPerMemberMax + 3; height++) book.found(pair(1, height));
  book.found(pair(2, 1));
  await book.settle();
  t.equal(book.pieces.length, piecesPerMemberMax + 1, 'one culprit takes nothing from another');
  t.strictSame(
    book.pieces.filter(({ culprit }) => culprit === 1).map(({ conflict }) => conflict.height as number),
    Array.from({ length: piecesPerMemberMax }, (_, i) => i + 1),
  );
  t.equal(lines.filter((line) => line.startsWith('warn more evidence')).length, 3);
  t.equal(counts.get('synod_evidence_total node-1'), piecesPerMemberMax + 3);

  // Not both of one key, or no conflict: a bug of ours; reported, never kept.
  const wrong = { ...pair(3, 1), second: pair(3, 2).second };
  book.found(wrong);
  t.equal(lines.at(-1), 'error evidence was reported that does not hold');

  // New-views: the newest stay.
  const newView = (view: number): NewView => ({
    kind: 'new-view',
    epoch,
    view: asView(view),
    viewChanges: [1, 2, 3].map((id) => signedBy(made, id, asking(view, null))),
  });
  for (let view = 1; view <= EVIDENCE_LIMITS.newViewsMax + 5; view++) {
    const { sender, payload, signature } = signedBy(made, view % 4, newView(view));
    const state = {
      epoch,
      view: asView(view),
      mode: 'active',
      viewChange: null,
      newView: { sender, payload, signature },
    } as const;
    book.entered([{ type: 'hard-state', bytes: encodeHardState(state) }]);
    book.entered([{ type: 'hard-state', bytes: encodeHardState({ ...state, mode: 'changing' }) }]);
  }
  await book.settle();
  t.equal(book.newViews.length, EVIDENCE_LIMITS.newViewsMax);
  t.equal(book.newViews.at(-1)!.view, EVIDENCE_LIMITS.newViewsMax + 5);
  t.equal(readdirSync(directory).length, EVIDENCE_LIMITS.newViewsMax + piecesPerMemberMax + 1, 'and no file more');
  book = await open();
  t.equal(book.newViews.length, EVIDENCE_LIMITS.newViewsMax);
  t.equal(book.newViews[0]!.view, 6);

  const files = readdirSync(directory).filter((name) => !name.startsWith('new-view'));
  const whole = readFileSync(join(directory, files[0]!));
  truncateSync(join(directory, files[0]!), whole.length - 3);
  writeFileSync(join(directory, `${files[1]!}.partial`), 'a crash in the middle');
  lines.length = 0;
  book = await open();
  t.strictSame(lines, ['warn this file of evidence does not hold']);
  t.equal(book.pieces.length, piecesPerMemberMax);
  t.equal(await book.read('../sign-state'), null, 'only what is kept can be read');
  t.equal(await collectWitness(join(directory, 'nowhere'), made.genesis), null);
  mkdirSync(join(directory, 'empty'));
  t.equal(await collectWitness(join(directory, 'empty'), made.genesis), null);
  const records = fx.must(
    decodeWitness((await collectWitness(directory, made.genesis))!, made.genesis.chainId) as object,
  );
  t.ok(Object.keys(records).length > piecesPerMemberMax);
});

// ---- honest replicas never give any ---------------------------------------------------------------------------------------

t.test('ACC-3: who signs two things is found by the ear that listens to the honest', async (t) => {
  const heard = (...messages: ReplicaMessage[]) => {
    const said = new EverythingSaid(4);
    for (const block of [...blocks, sibling]) said.know(block);
    for (const message of messages) said.hear(1, message);
    return said.end().length;
  };
  for (const { name, a, b } of cases) if (a.kind !== 'new-view') t.ok(heard(a, b) > 0, name);
  t.ok(heard(opening(5, [0, 1, 2]), opening(5, [0, 1, 3])) > 0, 'two new-views of its own view');
  t.equal(heard(voteOn('prepare', blocks[0]!), voteOn('commit', blocks[0]!), voteOn('prepare', blocks[2]!)), 0);
  t.equal(
    heard(proposal(blocks[1]!), voteOn('commit', blocks[3]!), asking(5, fx.certificate(blocks[3]!, 'prepare', 4))),
    0,
  );
});

t.test('ACC-3: honest lives with crashes, restarts, splits and loss never give evidence', async (t) => {
  const only = process.env.SEED === undefined ? null : [Number(process.env.SEED)];
  const seeds = only ?? Array.from({ length: Number(process.env.SEEDS ?? 24) }, (_, i) => i + 1);
  let statements = 0;
  let viewChanges = 0;
  for (const seed of seeds) {
    const n = seed % 3 === 0 ? 7 : 4;
    const cluster = new Cluster({ n, seed, parameters: { checkpointInterval: 16 } });
    const said = new EverythingSaid(n);
    cluster.tamper = (from, _to, message) => {
      said.hear(from, message);
      return message;
    };
    const ms = 10_000;
    load(cluster, { clients: 3, everyMs: 150, untilMs: ms });
    torment(cluster, { untilMs: ms, blackouts: seed % 4 === 0 });
    cluster.run(ms + 500);
    cluster.faults = calm;
    cluster.partition = null;
    for (const { id, core } of cluster.nodes) if (core === null) cluster.boot(id);
    cluster.run(3_000);
    t.strictSame(said.end(), [], `seed ${seed}: nothing that was said conflicts`);
    t.strictSame(cluster.evidence, [], `seed ${seed}: and nobody was accused`);
    statements += said.statements;
    viewChanges += cluster.events.filter(({ type }) => type === 'view-change-started').length;
  }
  t.ok(statements > 200 * seeds.length, `${statements} statements`);
  t.ok(only !== null || viewChanges > seeds.length, `${viewChanges} view changes`);
});
