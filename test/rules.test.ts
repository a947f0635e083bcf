// The rules of docs/spec.md, one replica at a time: a core by hand, its peers played by the test, each rule at its exact edge. Whole
// clusters under the same rules are in rules-cluster.test.ts, the ledger's and the pool's rules in ledger.test.ts and pool.test.ts.

import t from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import type { Block } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { encodePayload } from '../protocol/codec.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { CheckpointVote, PbftMessage, PrePrepare, Status, ViewChange } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { Millis } from '../protocol/types.ts';
import { asEpoch, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { SimDisk } from '../sim/disk.ts';
import {
  altered,
  codes,
  epoch,
  heard,
  history,
  join,
  type Out,
  other,
  proposal,
  resentKinds,
  Solo,
  type Step,
  said,
  sentKinds,
  signatureOf,
  small,
  T,
  text,
  viewChange,
  vote,
} from './solo.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(200_000);

// ---- the normal case ------------------------------------------------------------------------------------------------

t.test('PBFT-PP-1: only the primary of the active view proposes', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  t.strictSame(codes(solo.hear(2, proposal(block))), ['not-primary']);
  t.strictSame(solo.prepares(), [], 'no vote for what another one proposes');
  t.strictSame(codes(solo.hear(0, proposal(altered(block, { proposer: asReplicaId(1) })))), ['wrong-proposer']);
  t.strictSame(solo.prepares(), [], 'nor for a block that names another proposer');
  solo.hear(0, proposal(block));
  t.strictSame(solo.prepares(), ['0/1']);

  const early = new Solo().connect();
  const later = early.block({ proposer: 1 });
  early.hear(1, proposal(later, 1));
  early.hear(2, vote('prepare', later, 1));
  t.strictSame(early.prepares(), [], 'nothing is voted for in a view that has not begun');
  early.hear(1, early.newView(1));
  t.strictSame(early.prepares(), ['1/1'], 'and what came early counts when it begins');
  t.strictSame(early.commits(), ['1/1']);
});

t.test('PBFT-PP-1: of views to come each sender has its newest 64 messages kept, 8 of them proposals', async (t) => {
  const begin = () => {
    const solo = new Solo().connect();
    return { solo, block: solo.block({ proposer: 1 }) };
  };
  const flood = (solo: Solo, sender: number, count: number) => {
    for (let i = 0; i < count; i++) {
      solo.hear(sender, { kind: 'commit', epoch, view: asView(1), height: asHeight(2 + i), hash: other(i) });
    }
  };
  for (const [after, kept] of [
    [63, true],
    [64, false],
  ] as const) {
    const { solo, block } = begin();
    solo.hear(2, vote('prepare', block, 1));
    flood(solo, 2, after);
    // Whatever another one sends takes nobody's place.
    flood(solo, 0, 200);
    solo.hear(1, proposal(block, 1));
    solo.hear(1, solo.newView(1));
    t.strictSame(solo.prepares(), ['1/1']);
    t.strictSame(solo.commits(), kept ? ['1/1'] : [], `a vote and ${after} messages after it`);
    solo.hear(2, vote('prepare', block, 1));
    t.strictSame(solo.commits(), ['1/1'], 'said again, it counts');
  }

  for (const [count, votes] of [
    [8, 8],
    [9, 0],
  ] as const) {
    const solo = new Solo().connect();
    const blocks = Array.from({ length: count }, () => solo.block({ proposer: 1 }));
    for (const block of blocks) solo.hear(1, proposal(block, 1));
    solo.hear(1, solo.newView(1));
    t.equal(solo.prepares().length, votes, `of ${count} proposals`);
    if (votes > 0) continue;
    solo.hear(1, proposal(blocks[0]!, 1));
    t.equal(solo.prepares().length, count, 'the oldest was dropped, the others were here');
  }

  // One turn of primaries: 4 replicas.
  for (const [view, kept] of [
    [4, true],
    [5, false],
  ] as const) {
    const solo = new Solo().connect();
    const primary = view % 4;
    solo.hear(primary, proposal(solo.block({ proposer: primary }), view));
    solo.hear(primary, solo.newView(view));
    t.strictSame(solo.prepares(), kept ? [`${view}/1`] : [], `a proposal of view ${view} that came in view 0`);
  }
});

t.test('PBFT-PP-2: proposals in order, each on top of the last accepted one', async (t) => {
  const solo = new Solo().connect();
  const [one, two, three] = [solo.block(), solo.block(), solo.block()];
  solo.hear(0, proposal(three));
  solo.hear(0, proposal(two));
  t.strictSame(solo.prepares(), [], 'nothing without its parent');
  solo.hear(0, proposal(one));
  t.strictSame(solo.prepares(), ['0/1', '0/2', '0/3']);

  const fork = new Solo().connect();
  fork.hear(0, proposal(fork.block()));
  const stray = altered(fork.block(), { parent: other(7) });
  t.strictSame(codes(fork.hear(0, proposal(stray))), ['block-wrong-parent']);
  t.strictSame(fork.prepares(), ['0/1']);
  t.equal(fork.view, '1?', 'a proposal beside the chain costs the primary its view');

  const far = new Solo({ parameters: { window: 2 } }).connect();
  far.hear(0, proposal(altered(far.block(), { height: asHeight(9) })));
  far.wait(T * 2);
  t.equal(far.view, '0', 'a proposal beyond what is looked at is not waited for');
});

t.test('PBFT-PP-2: a primary goes W blocks ahead and no further', async (t) => {
  const solo = new Solo({ self: 0, parameters: { window: 3, blockBundlesMax: 1 } }).connect();
  const large = new Uint8Array(60_000).fill(1);
  const bundles = Array.from({ length: 6 }, () => solo.client.bundle([large]));
  const out = solo.all(...bundles.map((bundle): Step => ({ type: 'bundle', bundle })));
  const blocks = sentKinds(out, 'pre-prepare').map(({ message }) => (message as PrePrepare).block);
  t.strictSame(
    blocks.map(({ header }) => header.height),
    [1, 2, 3],
  );
  const more = solo.decide(blocks[0]!);
  t.equal(sentKinds(more, 'pre-prepare').length, 1, 'one decided, one more proposed');
});

t.test('PBFT-PP-3, BLK-5, BLK-6, BLK-8: what breaks a rule of blocks gets no vote and costs the view', async (t) => {
  const late = (solo: Solo) => solo.client.bundle([text('x')], { validUntil: 5, sequence: 2 });
  const cases: [string, (solo: Solo, block: Block) => Block][] = [
    ['block-empty', (_, block) => altered(block, { bundleCount: 0 }, [])],
    ['block-wrong-chain', (_, block) => altered(block, { chainId: other(1) })],
    ['block-wrong-chain', (_, block) => altered(block, { epoch: asEpoch(1) })],
    ['block-wrong-members', (_, block) => altered(block, { memberSetHash: other(1) })],
    ['block-totals-wrong', (_, block) => altered(block, { transactionTotal: 3 })],
    ['block-log-root-wrong', (_, block) => altered(block, { logRoot: other(1) })],
    ['block-time-runs-back', (_, block) => altered(block, { time: asMillis(1_699_999_999_999) })],
    ['block-bundle-out-of-sequence', (solo, block) => altered(block, {}, [late(solo)])],
    ['block-too-large', (_, block) => altered(block, { payloadBytes: 524_289 })],
    ['block-too-large', (_, block) => altered(block, { transactionCount: 16_385, transactionTotal: 16_385 })],
  ];
  for (const [code, spoil] of cases) {
    const solo = new Solo({ parameters: { timeDriftMsMax: 3_600_000 } }).connect();
    t.strictSame(codes(solo.hear(0, proposal(spoil(solo, solo.block())))), [code]);
    t.strictSame(solo.prepares(), [], code);
    t.equal(solo.view, '1?', code);
  }
});

t.test('BLK-4: a voter takes a time within its clock, and waits for one that is not', async (t) => {
  for (const [by, accepted] of [
    [10_000, true],
    [10_001, false],
  ] as const) {
    const ahead = new Solo().connect();
    ahead.hear(0, proposal(ahead.block({ time: ahead.now + by })));
    t.strictSame(ahead.prepares(), accepted ? ['0/1'] : [], `${by} ms ahead`);
    t.equal(ahead.view, '0', 'nobody is accused: our own clock may be the one that is off');
    if (!accepted) {
      ahead.now += 1;
      ahead.step();
      t.strictSame(ahead.prepares(), ['0/1'], 'voted for when the time has come near enough');
    }
    // The genesis block's time must lie further back than the drift allows.
    const behind = new Solo({ now: 1_700_000_100_000 }).connect();
    behind.hear(0, proposal(behind.block({ time: behind.now - by })));
    t.strictSame(behind.prepares(), accepted ? ['0/1'] : [], `${by} ms behind`);
  }
});

t.test('PBFT-PP-4: two proposals for one height are evidence, and the end of the view', async (t) => {
  const solo = new Solo().connect();
  const first = solo.block();
  const second = altered(first, { time: asMillis(first.header.time + 1) });
  solo.hear(0, proposal(first));
  t.strictSame(solo.hear(0, proposal(first)).evidence, [], 'the same again is a retransmission');
  const out = solo.hear(0, proposal(second));
  t.equal(out.evidence[0]?.culprit, 0);
  t.ok(equalBytes((out.evidence[0]!.first.message as PrePrepare).block.hash, first.hash));
  t.ok(equalBytes((out.evidence[0]!.second.message as PrePrepare).block.hash, second.hash));
  t.strictSame(codes(out), ['equivocation']);
  t.strictSame(solo.prepares(), ['0/1']);
  t.equal(solo.view, '1?');
});

t.test("PBFT-PP-5: a proposal is its primary's prepare", async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.hear(0, proposal(block));
  const out = solo.hear(1, vote('prepare', block));
  t.strictSame(solo.commits(), ['0/1'], 'proposal, own vote and one more are three');
  t.strictSame(
    out.lock?.signatures.map(({ replica }) => replica),
    [0, 1, 3],
  );
  t.ok(equalBytes(out.lock!.signatures[0]!.signature, signatureOf(0)));

  const primary = new Solo({ self: 0 }).connect();
  const sent = primary.all({ type: 'bundle', bundle: primary.client.bundle([text('x')]) });
  t.equal(sentKinds(sent, 'pre-prepare').length, 1);
  t.strictSame(
    sent.pledges.map(({ pledge, broadcast }) => [pledge.kind, broadcast]),
    [['prepare', false]],
    'the primary sends no second one',
  );
});

t.test('PBFT-PP-6: no proposal before the guard remembers the lead; none and no vote after a restart', async (t) => {
  const solo = new Solo({ self: 0 });
  const bundle = solo.client.bundle([text('x')]);
  const first = solo.step({ type: 'bundle', bundle });
  t.equal(first.lead, 0, 'the lead is asked for');
  t.equal(sentKinds(first, 'pre-prepare').length, 0, 'and not yet used');
  t.equal(sentKinds(solo.step({ type: 'leading', view: asView(4) }), 'pre-prepare').length, 0, 'nor with another view');
  t.equal(sentKinds(solo.step({ type: 'leading', view: asView(0) }), 'pre-prepare').length, 1);

  const guard = { view: asView(0), led: asView(0), lock: null };
  const again = new Solo({ self: 0, recovery: { log: solo.disk.recover(), guard } });
  const out = again.connect().all({ type: 'bundle', bundle }, { type: 'leading', view: asView(0) });
  t.equal(again.view, '1?', 'it gives its view up at once');
  t.equal(sentKinds(out, 'pre-prepare').length, 0);
  t.strictSame([...again.prepares(), ...again.commits()], []);
});

t.test('PBFT-PP-7: a primary stops four intervals above the stable checkpoint, a backup at five', async (t) => {
  const parameters = { checkpointInterval: 4, window: 2 };
  const solo = new Solo({ self: 0, parameters }).connect();
  const next = () => {
    const bundle = solo.client.bundle([text('x')]);
    const out = solo.all({ type: 'bundle', bundle });
    return sentKinds(out, 'pre-prepare').map(({ message }) => (message as PrePrepare).block)[0];
  };
  for (let height = 1; height <= 16; height++) solo.decide(next()!);
  t.equal(solo.core.explain().height, 16);
  t.equal(next(), undefined, 'nothing more without a stable checkpoint');
  const own = solo.pledgesOf('checkpoint')[0]!;
  t.equal(own.height, 4);
  const out = solo.all(heard(1, own), heard(2, own));
  t.equal(solo.core.explain().stable, 4);
  t.equal(sentKinds(out, 'pre-prepare').length, 1, 'the window moved with it');

  const backup = new Solo({ parameters }).connect();
  for (let height = 1; height <= 20; height++) backup.decide(backup.block());
  t.equal(backup.core.explain().height, 20, 'one interval of slack, for the primary may know more');
  backup.hear(0, proposal(backup.block()));
  t.notOk(backup.prepares().includes('0/21'), 'and no more');
  const stable = backup.pledgesOf('checkpoint')[0]!;
  backup.all(heard(1, stable), heard(2, stable));
  t.ok(backup.prepares().includes('0/21'));
});

t.test('PBFT-P-1, PBFT-C-1: a pledge stands with what must be durable before it, and counts when it is', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  const accepted = solo.step(heard(0, proposal(block)));
  t.strictSame(
    accepted.records.map(({ type }) => type),
    ['block', 'accepted'],
  );
  t.strictSame(solo.prepares(), ['0/1']);
  t.equal(
    solo.step(heard(1, vote('prepare', block))).pledges.length,
    0,
    'the own vote is not durable: two are not three',
  );
  const own = said(3, vote('prepare', block));
  const prepared = solo.step({ type: 'own', signed: own });
  t.strictSame(solo.commits(), ['0/1']);
  t.ok(equalBytes(prepared.lock!.hash, block.hash), 'the certificate goes to the guard with the mark of the commit');
  t.strictSame([prepared.lock!.phase, prepared.lock!.view, prepared.lock!.height], ['prepare', 0, 1]);
  t.equal(solo.step(heard(1, vote('commit', block)), heard(0, vote('commit', block))).deliver.length, 0);
  t.equal(solo.step({ type: 'own', signed: said(3, vote('commit', block)) }).deliver.length, 1);
});

t.test('PBFT-P-2: a quorum for one place, and not one less', async (t) => {
  for (const n of [4, 5, 6, 7, 10]) {
    const solo = new Solo({ n, self: n - 1 }).connect();
    const block = solo.block();
    solo.hear(0, proposal(block));
    // Proposal and own vote are two.
    for (let id = 1; id < solo.quorum - 1; id++) {
      t.strictSame(solo.commits(), [], `n = ${n}: ${id + 1} votes`);
      solo.hear(id, vote('prepare', block));
    }
    t.strictSame(solo.commits(), ['0/1'], `n = ${n}: ${solo.quorum} votes`);
  }
  const solo = new Solo().connect();
  const block = solo.block();
  solo.hear(0, proposal(block));
  solo.hear(1, { ...vote('prepare', block), hash: other(9) });
  solo.hear(2, vote('prepare', block, 1));
  solo.hear(2, { ...vote('prepare', block), epoch: asEpoch(1) });
  solo.hear(2, vote('commit', block));
  solo.hear(2, { ...vote('prepare', block), height: asHeight(2) });
  t.strictSame(solo.commits(), [], 'another hash, view, epoch, phase or height is another place');
  solo.hear(2, vote('prepare', block));
  t.strictSame(solo.commits(), ['0/1']);
});

t.test('PBFT-P-3: a replica counts once, whatever it sends', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.hear(0, proposal(block));
  for (let i = 0; i < 3; i++) solo.hear(0, vote('prepare', block));
  t.strictSame(solo.commits(), []);
  t.strictSame(codes(solo.hear(1, { ...vote('prepare', block), hash: other(9) })), []);
  t.strictSame(codes(solo.hear(1, vote('prepare', block))), ['equivocation'], 'the first vote stands');
  t.strictSame(solo.commits(), []);
  solo.hear(2, vote('prepare', block));
  t.strictSame(solo.commits(), ['0/1']);
  for (let i = 0; i < 3; i++) solo.hear(1, vote('commit', block));
  t.equal(solo.core.explain().height, 0);
});

t.test('PBFT-C-2, BLK-7: a commit certificate decides the block and its ancestors, in order, once', async (t) => {
  const solo = new Solo().connect();
  const blocks = [solo.block(), solo.block(), solo.block()];
  for (const block of blocks) solo.hear(0, proposal(block));
  const [, , last] = blocks;
  t.equal(solo.all(heard(0, vote('commit', last!)), heard(1, vote('commit', last!))).deliver.length, 0, 'q - 1');
  const out = solo.hear(2, vote('commit', last!));
  t.strictSame(
    out.deliver.map(({ block, certificate }) => [block.header.height, certificate?.height ?? null]),
    [
      [1, null],
      [2, null],
      [3, 3],
    ],
  );
  t.strictSame(
    out.records.filter(({ type }) => type === 'decided').map((record) => 'height' in record && record.height),
    [1, 2, 3],
  );
  const again = blocks.flatMap((block) => [0, 1, 2].map((id) => heard(id, vote('commit', block))));
  t.equal(solo.all(...again).deliver.length, 0);

  const blind = new Solo().connect();
  const unseen = blind.block();
  const silent = blind.all(...[0, 1, 2].map((id) => heard(id, vote('commit', unseen))));
  t.equal(silent.deliver.length, 0, 'nothing is delivered that is not here');
  t.equal(blind.hear(0, proposal(unseen)).deliver.length, 1, 'and it is as soon as it is here');
});

t.test('PBFT-C-3, GEN-1: a certificate above the head that does not lead to it stops the replica', async (t) => {
  const solo = new Solo().connect();
  solo.decide(solo.block());
  const stray = altered(solo.block(), { parent: other(7) });
  solo.hear(1, solo.newView(1, [{ commit: solo.certificate('commit', stray) }]));
  const given = [0, 1, 2].map((id) => heard(id, { kind: 'block-data', block: stray }));
  t.throws(() => solo.all(...given), InvariantViolation);
});

t.test('PBFT-C-3, GEN-1: a certificate for another block at a decided height stops the replica', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.decide(block);
  solo.hear(1, solo.newView(1, [{ commit: solo.certificate('commit', block) }]));
  t.equal(solo.view, '1', 'the one for the block itself does not');
  const rival = altered(block, { time: asMillis(block.header.time + 1) });
  const newView = solo.newView(2, [{ commit: solo.certificate('commit', rival) }]);
  t.throws(() => solo.hear(2, newView), InvariantViolation);
});

// ---- view changes ---------------------------------------------------------------------------------------------------

t.test('PBFT-VC-1, PBFT-HB-1: a silent primary is given up after T, one that beats is not', async (t) => {
  const solo = new Solo().connect();
  solo.wait(T * 10);
  t.equal(solo.view, '0', 'an idle primary lives as long as it says so');
  solo.wait(T, { alive: [1, 2] });
  t.equal(solo.view, '0', 'up to T');
  const out = solo.wait(50, { alive: [1, 2] });
  t.equal(solo.view, '1?');
  t.strictSame(
    out.events.filter(({ type }) => type === 'view-change-started').map((event) => 'view' in event && event.view),
    [1],
  );
  const block = solo.block();
  solo.all(heard(0, proposal(block)), heard(1, vote('prepare', block)), heard(2, vote('prepare', block)));
  t.strictSame([...solo.prepares(), ...solo.commits()], [], 'and nothing is voted for any more');
});

t.test('PBFT-VC-1: statuses of another view, or of one between views, are no heartbeat', async (t) => {
  for (const ahead of [{ view: asView(4) }, { active: false }]) {
    const solo = new Solo().connect();
    solo.wait(T + 50, { ahead });
    t.equal(solo.view, '1?');
  }
});

t.test('PBFT-VC-1: an accepted block that is not decided, a bundle that is not ordered', async (t) => {
  const block = new Solo().connect();
  block.hear(0, proposal(block.block()));
  block.wait(2 * T);
  t.equal(block.view, '0');
  block.wait(50);
  t.equal(block.view, '1?', 'the block');

  const bundle = new Solo().connect();
  bundle.all({ type: 'bundle', bundle: bundle.client.bundle([text('x')]) });
  bundle.wait(T);
  t.equal(bundle.view, '0');
  bundle.wait(200);
  t.equal(bundle.view, '1?', 'the bundle');
});

t.test('PBFT-VC-1, A32: a replica that was cut off, or stalled, blames itself first', async (t) => {
  const cut = new Solo().connect([0]);
  cut.hear(0, proposal(cut.block()));
  cut.wait(T * 20, { alive: [] });
  t.equal(cut.view, '0', 'no timer runs while a quorum is out of sight');
  cut.connect();
  cut.wait(T - 50, { alive: [] });
  t.equal(cut.view, '0', 'and none is due when it comes back');

  const stalled = new Solo().connect();
  stalled.wait(100);
  stalled.now += 60_000;
  t.equal(stalled.step().pledges.length, 0, "what was not heard during a pause of our own is nobody's fault");
  t.equal(stalled.view, '0');
});

t.test(
  'PBFT-VC-2: a view-change carries the highest certificates ever held, and stands with its hard state',
  async (t) => {
    const solo = new Solo().connect();
    const one = solo.block();
    solo.decide(one);
    const two = solo.block();
    solo.all(heard(0, proposal(two)), heard(1, vote('prepare', two)));
    const out = solo.wait(T + 50, { alive: [1, 2] });
    const [asked] = solo.pledgesOf('view-change');
    t.strictSame([asked?.view, asked?.commit?.height, asked?.commit?.phase], [1, 1, 'commit']);
    t.strictSame([asked?.prepared?.height, asked?.prepared?.view, asked?.prepared?.phase], [2, 0, 'prepare']);
    t.ok(out.records.some(({ type }) => type === 'hard-state'));

    // A later view that prepares nothing does not hide it, and a certificate of a later view at a lower height comes before it.
    solo.hear(1, solo.newView(1));
    solo.wait(2 * T + 100, { alive: [2] });
    const second = solo.pledgesOf('view-change')[1];
    t.strictSame([second?.view, second?.prepared?.height, second?.prepared?.view], [2, 2, 0]);
  },
);

t.test('PBFT-VC-2: after a restart in the middle, the same view-change again and no vote below it', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.all(heard(0, proposal(block)), heard(1, vote('prepare', block)));
  const lock = solo.certificate('prepare', block);
  solo.wait(T + 50, { alive: [1, 2] });
  const before = encodePayload(solo.pledgesOf('view-change')[0]!);
  const guard = { view: asView(1), led: null, lock };
  const again = new Solo({ recovery: { log: solo.disk.recover(), guard } }).connect();
  t.equal(again.view, '1?');
  t.ok(equalBytes(encodePayload(again.pledgesOf('view-change')[0]!), before));
  again.all(heard(0, proposal(block)), heard(1, vote('prepare', block)), heard(2, vote('prepare', block)));
  t.strictSame([...again.prepares(), ...again.commits()], []);

  // The guard's file was durable before the log's, in a view that it has entered: that is burned too.
  const torn = new Solo({ recovery: { log: new SimDisk().recover(), guard: { ...guard, view: asView(5) } } });
  torn.connect();
  t.equal(torn.view, '6?');
  t.ok(equalBytes(torn.pledgesOf('view-change')[0]!.prepared!.hash, block.hash), "the lock is the guard's");
});

t.test('GRD-18: a log that has lost the request leads to no later view: the same bytes again', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.all(heard(0, proposal(block)), heard(1, vote('prepare', block)));
  const lock = solo.certificate('prepare', block);
  solo.wait(T + 50, { alive: [1, 2] });
  const request = encodePayload(solo.pledgesOf('view-change')[0]!);
  const guard = { view: asView(1), led: null, lock, request };
  // Twice: the log does not learn of it until a view is entered.
  for (let round = 0; round < 2; round++) {
    const again = new Solo({ recovery: { log: new SimDisk().recover(), guard } }).connect();
    t.equal(again.view, '1?');
    t.strictSame(
      again.pledgesOf('view-change').map((pledge) => toHex(encodePayload(pledge))),
      [toHex(request)],
    );
  }
  const joins = new Solo({ recovery: { log: new SimDisk().recover(), guard } }).connect();
  joins.hear(1, joins.newView(1));
  t.equal(joins.view, '1', 'it enters the view that it has asked for');
});

t.test(
  'REC-5: who says that it waits for a later view is followed by one view, and asks for none itself',
  async (t) => {
    const solo = new Solo().connect();
    const waits = (view: number, active: boolean) =>
      solo.hear(2, {
        kind: 'status',
        epoch: asEpoch(0),
        view: asView(view),
        active,
        height: asHeight(0),
        hash: solo.block().header.parent,
        stable: asHeight(0),
        lowest: asHeight(1),
      });
    waits(2, true);
    solo.wait(9 * T, { alive: [0, 1] });
    t.equal(solo.view, '0', 'one that is active there waits for nobody');
    waits(2, false);
    solo.wait(8 * T + 200, { alive: [0, 1] });
    t.equal(solo.view, '1?');
  },
);

t.test('PBFT-VC-2: a restarted backup votes again for what it had accepted, and for nothing else', async (t) => {
  const solo = new Solo().connect();
  const blocks = [solo.block(), solo.block()];
  for (const block of blocks) solo.hear(0, proposal(block));
  const guard = { view: asView(0), led: null, lock: null };
  const again = new Solo({ recovery: { log: solo.disk.recover(), guard } }).connect();
  t.strictSame(again.prepares(), ['0/1', '0/2']);
  const rival = altered(blocks[0]!, { time: asMillis(blocks[0]!.header.time + 1) });
  again.hear(0, proposal(rival));
  t.strictSame(again.prepares(), ['0/1', '0/2']);
});

t.test(
  'PBFT-PP-8: after a restart the whole chain of the view is there again, through its base and above',
  async (t) => {
    const solo = new Solo().connect();
    const [one, two] = [solo.block(), solo.block()];
    solo.all(heard(0, proposal(one)), heard(0, proposal(two)));
    const prepared = solo.certificate('prepare', two);
    solo.hear(1, solo.newView(1, [{ prepared }]));
    const three = solo.block({ proposer: 1 });
    solo.hear(1, proposal(three, 1));
    t.strictSame(solo.prepares(), ['0/1', '0/2', '1/2', '1/3']);
    const guard = { view: asView(1), led: null, lock: prepared };
    const again = new Solo({ recovery: { log: solo.disk.recover(), guard } }).connect();
    t.strictSame([again.view, again.prepares()], ['1', ['1/2', '1/3']]);
    again.all(...[1, 2].map((id) => heard(id, vote('prepare', three, 1))));
    t.ok(again.commits().includes('1/3'), 'and its votes count on');
    const rival = altered(three, { time: asMillis(three.header.time + 1) });
    again.hear(1, proposal(rival, 1));
    t.ok(again.pledgesOf('prepare').every(({ hash }) => !equalBytes(hash, rival.hash)));
  },
);

t.test('PBFT-VC-3: f + 1 view-changes above the own view pull a replica into the smallest', async (t) => {
  for (const n of [4, 7]) {
    const { oneHonest } = byzantineQuorums(n);
    const solo = new Solo({ n, self: n - 1 }).connect();
    // Not the primary's: its own is followed at once (STALL-3).
    for (let id = 1; id <= oneHonest; id++) {
      t.equal(solo.view, '0', `${id} of n = ${n}`);
      solo.hear(id, viewChange(9 - id));
    }
    t.equal(solo.view, `${9 - oneHonest}?`, `f + 1 of n = ${n}`);
    t.equal(solo.pledgesOf('view-change').length, 1);
  }
  const one = new Solo().connect();
  for (const view of [1, 2, 3, 4]) one.hear(2, viewChange(view));
  t.equal(one.view, '0', 'one replica is one replica');
});

t.test('PBFT-VC-4: the timeout doubles with each failing view, and shrinks with each decided block', async (t) => {
  const solo = new Solo().connect();
  const timeout = () => solo.core.explain().timeoutMs;
  t.equal(timeout(), T);
  solo.wait(T + 50, { alive: [] });
  t.strictSame([solo.view, timeout()], ['1?', 2 * T]);
  solo.wait(20 * T, { alive: [] });
  t.equal(solo.view, '1?', 'the next view is not asked for while no quorum has asked for this one');
  solo.all(heard(0, viewChange(1)), heard(2, viewChange(1)));
  solo.wait(2 * T - 50, { alive: [] });
  t.equal(solo.view, '1?');
  solo.wait(100, { alive: [] });
  t.strictSame([solo.view, timeout()], ['2?', 4 * T], 'its primary did not open it in time');
  solo.hear(2, solo.newView(2));
  const decides = () => {
    solo.decide(solo.block({ proposer: 2 }), 2);
    return timeout();
  };
  t.equal(decides(), 4 * T, 'a burst right after the view change says little');
  solo.wait(4 * T);
  t.equal(decides(), 2 * T);
  t.equal(decides(), 2 * T, 'one step for each timeout');
  solo.wait(2 * T);
  t.equal(decides(), T);
  solo.wait(2 * T);
  t.equal(decides(), T, 'never below T');
});

t.test('PBFT-VC-5: whose guard refuses a vote has forgotten one, and leaves the view', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  solo.hear(0, proposal(block));
  solo.all({ type: 'refused', pledge: viewChange(0) }, { type: 'refused', pledge: vote('prepare', block, 7) });
  t.equal(solo.view, '0', 'another pledge, or another view, is no vote of this one');
  solo.all({ type: 'refused', pledge: vote('prepare', block) });
  t.equal(solo.view, '1?');
  const before = solo.prepares().length;
  solo.hear(0, proposal(solo.block()));
  t.equal(solo.prepares().length, before);
});

t.test('PBFT-VC-6: who asks alone for 8 T is followed, later each time, and by one view', async (t) => {
  const solo = new Solo().connect();
  const asks = (view: number) => solo.hear(2, viewChange(view));
  asks(1_000_000);
  solo.wait(8 * T);
  t.equal(solo.view, '0');
  solo.wait(200);
  t.equal(solo.view, '1?');
  solo.hear(1, solo.newView(1));
  t.equal(solo.view, '1');
  solo.wait(15 * T);
  t.equal(solo.view, '1', 'it may be lying: the next time takes twice as long');
  solo.wait(T + 300);
  t.equal(solo.view, '2?');

  const back = new Solo().connect();
  back.hear(2, viewChange(1));
  back.wait(7 * T);
  back.hear(1, back.newView(1));
  back.wait(7 * T);
  t.equal(back.view, '1', 'one that has what it asked for is not alone');
});

t.test('PBFT-NV-1, PBFT-PP-6: the new primary shows a quorum of view-changes as they were signed', async (t) => {
  const solo = new Solo({ self: 1 }).connect();
  solo.hear(2, viewChange(1));
  const asks = said(3, viewChange(1));
  const joined = solo.step({ type: 'message', signed: asks });
  t.equal(joined.pledges.length, 1, 'f + 1: it joins');
  t.equal(solo.pledgesOf('new-view').length, 0, 'its own view-change is not durable yet');
  const out = solo.step({ type: 'own', signed: said(1, joined.pledges[0]!.pledge) });
  const [newView] = solo.pledgesOf('new-view');
  t.equal(out.lead, 1, 'the guard is to remember the lead');
  t.strictSame(
    newView?.viewChanges.map(({ sender }) => sender),
    [1, 2, 3],
  );
  t.equal(newView?.viewChanges[2]?.signature, asks.signature);
  t.equal(newView?.viewChanges[2]?.payload, asks.payload);
  t.strictSame(solo.view, '1?', 'it enters when its own new-view is durable');
  solo.all({ type: 'leading', view: asView(1) }, { type: 'own', signed: said(1, newView!) });
  t.strictSame(solo.view, '1');
  const proposes = solo.all({ type: 'bundle', bundle: solo.client.bundle([text('x')]) });
  t.equal(sentKinds(proposes, 'pre-prepare').length, 1);

  const eager = new Solo({ self: 1 }).connect();
  eager.step(heard(0, viewChange(1)), heard(2, viewChange(1)), heard(3, viewChange(1)));
  t.equal(eager.pledgesOf('new-view').length, 0, 'not before its own view-change is durable, whoever else asks');

  // Who asks for a later view has given this one up, but did not ask for it.
  const apart = new Solo({ self: 1 }).connect();
  for (const [id, view] of [
    [2, 1],
    [3, 5],
  ] as const)
    apart.hear(id, viewChange(view));
  t.equal(apart.view, '1?');
  t.equal(apart.pledgesOf('new-view').length, 0);

  const short = new Solo({ self: 1, n: 7 }).connect();
  for (const id of [2, 3, 4]) short.hear(id, viewChange(1));
  t.equal(short.pledgesOf('new-view').length, 0, 'four of seven are not five');
  for (let i = 0; i < 3; i++) short.hear(4, viewChange(1));
  t.equal(short.pledgesOf('new-view').length, 0, 'nor is one that asks again');
  short.hear(5, viewChange(1));
  t.equal(short.pledgesOf('new-view').length, 1);
});

t.test('PBFT-NV-2: the base is the latest certificate by view, then height', async (t) => {
  const baseFor = (
    holding: (solo: Solo, blocks: Block[]) => Partial<Pick<ViewChange, 'commit' | 'prepared'>>[],
    view = 9,
  ) => {
    const solo = new Solo().connect();
    const low = solo.block();
    const blocks = [low, solo.block(), altered(low, { time: asMillis(low.header.time + 1) })];
    const out = solo.hear(view % 4, solo.newView(view, holding(solo, blocks)));
    const asked = sentKinds(out, 'fetch-block').map(({ message }) => message.kind === 'fetch-block' && message.hash)[0];
    const index = blocks.findIndex(({ hash }) => asked instanceof Uint8Array && equalBytes(hash, asked));
    return { base: index, solo };
  };
  t.equal(
    baseFor((s, [low, high]) => [
      { prepared: s.certificate('prepare', low!) },
      { prepared: s.certificate('prepare', high!) },
    ]).base,
    1,
    'the higher one of a view',
  );
  t.equal(
    baseFor((s, [, high, rival]) => [
      { prepared: s.certificate('prepare', high!, 0) },
      { prepared: s.certificate('prepare', rival!, 1) },
    ]).base,
    2,
    'the later view before the higher one (A7)',
  );
  t.equal(
    baseFor((s, [, high, rival]) => [
      { prepared: s.certificate('prepare', rival!, 1) },
      { prepared: s.certificate('prepare', high!, 0) },
    ]).base,
    2,
    'in any order',
  );
  t.equal(
    baseFor((s, [low, , rival]) => [
      { prepared: s.certificate('prepare', rival!, 0), commit: s.certificate('commit', low!, 1) },
    ]).base,
    0,
    'a commit certificate counts as well',
  );
  const nothing = baseFor(() => []);
  t.equal(nothing.solo.view, '9');
  t.equal(nothing.base, -1, 'nobody held anything: the view starts at the head');
  const wrong = new Solo().connect();
  t.strictSame(codes(wrong.hear(2, wrong.newView(1))), ['not-primary']);
  t.equal(wrong.view, '0');
  wrong.hear(1, wrong.newView(5));
  wrong.hear(1, wrong.newView(1));
  t.equal(wrong.view, '5', 'views never run back');
});

t.test('PBFT-NV-2: a base that a later view has decided against is passed over', async (t) => {
  const solo = new Solo().connect();
  solo.hear(2, solo.newView(2));
  solo.decide(solo.block({ proposer: 2 }), 2);
  const right = solo.block({ proposer: 1 });
  const stray = altered(right, { parent: other(7) });
  solo.hear(1, solo.newView(5, [{ prepared: solo.certificate('prepare', stray, 1) }]));
  solo.hear(0, { kind: 'block-data', block: stray });
  solo.hear(1, proposal(right, 5));
  t.strictSame([solo.view, solo.prepares()], ['5', ['2/1', '5/2']]);
});

t.test('PBFT-NV-3: a prepared base is voted for again, and these votes decide its ancestors', async (t) => {
  const solo = new Solo().connect();
  const [one, two] = [solo.block(), solo.block()];
  solo.all(heard(0, proposal(one)), heard(0, proposal(two)));
  const prepared = solo.certificate('prepare', two);
  solo.hear(1, solo.newView(1, [{ prepared }]));
  t.strictSame(solo.prepares(), ['0/1', '0/2', '1/2'], 'the base alone');
  solo.all(heard(1, vote('prepare', two, 1)), heard(2, vote('prepare', two, 1)));
  t.strictSame(solo.commits(), ['1/2']);
  const out = solo.all(heard(1, vote('commit', two, 1)), heard(2, vote('commit', two, 1)));
  t.strictSame(
    out.deliver.map(({ block }) => block.header.height),
    [1, 2],
  );

  // A base with a commit certificate needs no vote: everyone who has its blocks decides.
  const known = new Solo().connect();
  const block = known.block();
  known.hear(0, proposal(block));
  const shown = known.hear(1, known.newView(1, [{ commit: known.certificate('commit', block) }]));
  t.equal(shown.deliver.length, 1);
  t.strictSame(known.prepares(), ['0/1']);
});

t.test('PBFT-NV-3: no proposal is accepted beside the base', async (t) => {
  const solo = new Solo().connect();
  const base = solo.block();
  solo.hear(0, proposal(base));
  const rival = altered(base, { proposer: asReplicaId(1), time: asMillis(base.header.time + 1) });
  solo.hear(1, solo.newView(1, [{ prepared: solo.certificate('prepare', base) }]));
  solo.hear(1, proposal(rival, 1));
  t.strictSame(
    solo.pledgesOf('prepare').map((vote) => `${vote.view}/${toHex(vote.hash)}`),
    [`0/${toHex(base.hash)}`, `1/${toHex(base.hash)}`],
  );

  const blind = new Solo().connect();
  const unseen = blind.block();
  const tempting = new Solo().block({ proposer: 1 });
  blind.hear(1, blind.newView(1, [{ prepared: blind.certificate('prepare', unseen) }]));
  blind.hear(1, proposal(tempting, 1));
  t.strictSame([blind.prepares(), blind.view], [[], '1'], 'nor while the base is still being fetched');
});

t.test('PBFT-NV-4: a missing base, and then its parent, are fetched by hash from those who signed', async (t) => {
  const solo = new Solo({ n: 7, self: 6 }).connect();
  const [one, two] = [solo.block(), solo.block()];
  const prepared = solo.certificate('prepare', two, 0, [0, 2, 3, 4, 5]);
  const fetches = (out: Out) =>
    sentKinds(out, 'fetch-block').map(({ to, message }) => ({ to, ...(message as { height: number; hash: Bytes }) }));
  const first = fetches(solo.hear(1, solo.newView(1, [{ prepared }])));
  t.strictSame(
    first.map(({ height, hash }) => [height, toHex(hash)]),
    [[2, toHex(two.hash)]],
  );
  const asked = new Set([first[0]!.to]);
  for (const { to } of fetches(solo.wait(T - 50))) asked.add(to);
  t.equal(asked.size, 2, 'one that does not answer, and then the next');
  t.ok([...asked].every((to) => prepared.signatures.some(({ replica }) => replica === to)));
  const fake = altered(two, { time: asMillis(two.header.time + 1) });
  t.equal(fetches(solo.hear(0, { kind: 'block-data', block: fake })).length, 0, 'another block is of no use');
  t.equal(fetches(solo.hear(0, { kind: 'block-data', block: two }))[0]?.height, 1, 'then the parent');
  t.strictSame(solo.prepares(), []);
  solo.hear(0, { kind: 'block-data', block: one });
  t.strictSame(solo.prepares(), ['1/2']);
});

t.test('PBFT-NV-4, A6: a block that a quorum prepared and nobody showed is fetched from them', async (t) => {
  const solo = new Solo({ n: 7, self: 6 }).connect();
  const block = solo.block();
  solo.all(...[0, 1, 2, 3].map((id) => heard(id, vote('prepare', block))));
  t.notOk(solo.asked.has('fetch-block'));
  solo.hear(4, vote('prepare', block));
  t.ok([0, 1, 2, 3, 4].includes(Number(solo.asked.get('fetch-block'))));
  solo.hear(2, { kind: 'block-data', block });
  t.strictSame([solo.prepares(), solo.commits()], [['0/1'], ['0/1']]);
});

t.test('PBFT-NV-5: whoever is behind the view is shown its new-view', async (t) => {
  const solo = new Solo().connect();
  const newView = solo.newView(1);
  solo.hear(1, newView);
  const shown = (out: Out) => resentKinds(out, 'new-view').map(({ to }) => to);
  t.strictSame(shown(solo.hear(0, solo.status({ view: asView(0) }))), [0], 'a status of an older view');
  t.strictSame(shown(solo.hear(2, solo.status({ active: false }))), [2], 'one that waits for this view');
  t.strictSame(shown(solo.hear(2, solo.status())), [], 'not one that is in it');
  t.strictSame(shown(solo.hear(0, viewChange(1))), [], 'and not at once again');
  solo.wait(200);
  const asked = solo.hear(0, viewChange(1));
  t.strictSame(shown(asked), [0], 'one that asks for it');
  const { signature } = resentKinds(asked, 'new-view')[0]!.signed;
  t.ok(equalBytes(signature, signatureOf(1)), 'as its primary signed it');

  // [A24] And being shown one is enough for a replica that is locked in an older view.
  const behind = new Solo().connect();
  behind.wait(T + 50, { alive: [1, 2] });
  t.equal(behind.view, '1?');
  behind.hear(1, behind.newView(5));
  t.equal(behind.view, '5');
});

t.test('PBFT-NV-6: bundles of a block that was given up go to the new primary', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  const pooled = solo.client.bundle([text('y')]);
  solo.hear(0, proposal(block));
  solo.all({ type: 'bundle', bundle: pooled });
  const out = join(solo.hear(1, solo.newView(1)), solo.wait(100));
  const handed = sentKinds(out, 'forward').flatMap(({ to, message }) =>
    message.kind === 'forward' && to === 1 ? message.bundles.map(({ digest }) => toHex(digest)) : [],
  );
  t.strictSame(handed.sort(), [block.bundles[0]!, pooled].map(({ digest }) => toHex(digest)).sort());

  const leads = new Solo({ self: 1 }).connect();
  const lost = leads.block();
  leads.hear(0, proposal(lost));
  const opened = leads.all(heard(2, viewChange(1)), heard(3, viewChange(1)));
  const [again] = sentKinds(opened, 'pre-prepare').map(({ message }) => (message as PrePrepare).block);
  t.ok(equalBytes(again!.bundles[0]!.digest, lost.bundles[0]!.digest), 'or are proposed, by the new primary itself');
  t.equal(again!.header.proposer, 1);
});

// ---- heartbeats and retransmission ----------------------------------------------------------------------------------

t.test('PBFT-HB-1: a status at each heartbeat, to everyone', async (t) => {
  const solo = new Solo().connect();
  solo.wait(100);
  const statuses = sentKinds(solo.wait(1000), 'status').filter(({ to }) => to === 'all');
  t.equal(statuses.length, 10);
  solo.decide(solo.block());
  const [beat] = sentKinds(solo.wait(100), 'status').map(({ message }) => message as Status);
  t.strictSame([beat?.view, beat?.active, beat?.height, beat?.stable], [0, true, 1, 0]);
  t.ok(solo.step().wakeAt <= solo.now + 100, 'and it asks to be woken in time');
});

t.test('PBFT-HB-2: to who connects, and to all when nothing moves, pledges and proposals again', async (t) => {
  const backup = new Solo().connect();
  const block = backup.block();
  backup.all(heard(0, proposal(block)), heard(1, vote('prepare', block)));
  const votes = (out: Out, to: number | 'all') =>
    out.resend.filter((again) => again.to === to).map(({ signed }) => signed.message.kind);
  t.strictSame(votes(backup.all({ type: 'connected', peer: asReplicaId(2) }), 2), ['prepare', 'commit']);
  t.strictSame(votes(backup.wait(T / 2 - 50), 'all'), [], 'not while it may still move');
  t.strictSame(votes(backup.wait(100), 'all'), ['prepare', 'commit']);

  const primary = new Solo({ self: 0 }).connect();
  primary.all({ type: 'bundle', bundle: primary.client.bundle([text('x')]) });
  const again = primary.all({ type: 'connected', peer: asReplicaId(2) });
  t.strictSame(
    sentKinds(again, 'pre-prepare').map(({ to }) => to),
    [2],
  );
  t.ok(sentKinds(primary.wait(T), 'pre-prepare').some(({ to }) => to === 'all'));

  const asking = new Solo().connect();
  asking.wait(T + 50, { alive: [1, 2] });
  t.strictSame(votes(asking.all({ type: 'connected', peer: asReplicaId(2) }), 2), ['view-change']);
  t.strictSame(votes(asking.wait(T + 50, { alive: [1, 2] }), 'all'), ['view-change']);
});

// ---- checkpoints ----------------------------------------------------------------------------------------------------

function atCheckpoint(options: ConstructorParameters<typeof Solo>[0] = {}): {
  solo: Solo;
  own: CheckpointVote;
  out: Out;
} {
  const solo = new Solo({ parameters: small, ...options }).connect();
  let out = solo.all();
  for (let i = 0; i < 4; i++) {
    out = solo.decide(solo.block());
    if (i < 3 && solo.pledgesOf('checkpoint').length > 0) throw new Error('a checkpoint between the intervals');
  }
  return { solo, own: solo.pledgesOf('checkpoint')[0]!, out };
}

t.test('PBFT-CP-1: at each interval, over the whole state, once its chunks are written', async (t) => {
  const { solo, own, out } = atCheckpoint();
  t.equal(solo.pledgesOf('checkpoint').length, 1);
  t.equal(own.height, 4);
  t.ok(equalBytes(own.hash, solo.chain[3]!.block.hash));
  const mirror = new Ledger({ sha256: native.sha256, genesis: solo.genesis, epoch });
  for (const { block } of solo.chain) mirror.apply(mirror.extend([], block) as Extension);
  const { stateDigest, logRoot } = mirror.checkpoint();
  t.ok(equalBytes(own.stateDigest, stateDigest));
  t.ok(equalBytes(own.logRoot, logRoot));
  t.ok(equalBytes(own.logRoot, solo.chain[3]!.block.header.logRoot));
  t.ok(equalBytes(own.memberSetHash, mirror.memberSetHash));
  const types = out.records.map(({ type }) => type);
  t.ok(types.includes('state-chunk') && types.lastIndexOf('state-chunk') < types.indexOf('checkpoint'));
  t.ok(types.indexOf('decided') < types.indexOf('state-chunk'));

  // Written and signed for, and then a crash: the vote is cast again.
  const guard = { view: asView(0), led: null, lock: null };
  const again = new Solo({ parameters: small, recovery: { log: solo.disk.recover(), guard } });
  again.all();
  t.strictSame(again.pledgesOf('checkpoint'), [own]);
});

t.test('PBFT-CP-2: a quorum of equal votes makes it stable; f wrong ones do nothing (A17)', async (t) => {
  const { solo, own } = atCheckpoint({ n: 7, self: 6 });
  const wrong: CheckpointVote[] = [
    { ...own, stateDigest: other(1) },
    { ...own, hash: other(1) },
  ];
  wrong.forEach((bad, id) => void solo.hear(id, bad));
  t.strictSame(codes(solo.hear(0, own)), ['equivocation'], 'the first word counts');
  for (const id of [2, 3, 4]) {
    solo.hear(id, own);
    solo.hear(id, own);
  }
  t.equal(solo.core.explain().stable, 0, 'four of seven are not five');
  const out = solo.hear(5, own);
  t.equal(solo.core.explain().stable, 4);
  const [stored] = out.records.filter((record) => record.type === 'checkpoint');
  t.ok(stored?.type === 'checkpoint' && stored.certificate !== null);
  t.strictSame(codes(solo.hear(0, { ...own, height: asHeight(6) })), ['not-a-checkpoint-height']);
});

t.test(
  "GEN-1, PBFT-CP-2: a replica whose state differs from a quorum's stops; from f others it does not",
  async (t) => {
    const { solo, own } = atCheckpoint();
    const theirs = { ...own, stateDigest: other(1) };
    solo.hear(0, theirs);
    solo.hear(1, theirs);
    t.throws(() => solo.hear(2, theirs), InvariantViolation);
    t.throws(() => atCheckpoint().solo.core.step([], asMillis(0)), InvariantViolation, 'time never runs back');
  },
);

t.test('PBFT-CP-3: what lies below a stable checkpoint is not asked for and not kept', async (t) => {
  const { solo, own } = atCheckpoint();
  t.ok(solo.core.wants(own, asReplicaId(0)));
  t.equal(resentKinds(solo.all({ type: 'connected', peer: asReplicaId(1) }), 'checkpoint').length, 1);
  solo.all(heard(0, own), heard(1, own));
  t.notOk(solo.core.wants(own, asReplicaId(0)));
  t.equal(resentKinds(solo.all({ type: 'connected', peer: asReplicaId(1) }), 'checkpoint').length, 0);
  solo.disk.retain = 1;
  solo.decide(solo.block());
  t.strictSame([...solo.disk.decided.keys()], [4, 5]);
  const log = solo.disk.recover();
  const guard = { view: asView(0), led: null, lock: null };
  const again = new Solo({ parameters: small, recovery: { log, guard } });
  t.strictSame([again.core.explain().height, again.core.explain().stable], [5, 4], 'the rest is enough to start from');
  again.all({ type: 'retained', lowest: asHeight(4) });
  const beats = sentKinds(again.wait(200), 'status').map(({ message }) => (message as Status).lowest);
  t.equal(beats.at(-1), 4, 'and the others learn what is left');
});

// ---- catch-up -------------------------------------------------------------------------------------------------------

/** A chain that the others have decided, and what they answer from. */
t.test('PBFT-CU-1: whoever claims more is asked, without a restart', async (t) => {
  const solo = new Solo({ parameters: small }).connect();
  const blocks = history(solo, 3);
  const ahead = { height: asHeight(3), hash: blocks[2]!.hash };
  t.equal(sentKinds(solo.wait(100, { ahead }), 'fetch-blocks').length, 0, 'votes may be about to arrive');
  const [asked] = sentKinds(solo.wait(200, { ahead }), 'fetch-blocks');
  t.strictSame(asked?.message, { kind: 'fetch-blocks', from: 1, to: 3 });
  const to = Number(asked!.to);
  const entries = blocks.map((block) => ({
    block,
    certificate: block === blocks[2] ? solo.certificate('commit', block) : null,
  }));
  t.equal(
    solo.hear((to + 1) % 3, { kind: 'blocks', blocks: entries, tail: null }).deliver.length,
    0,
    'who was not asked is not heard',
  );
  const out = solo.hear(to, { kind: 'blocks', blocks: entries, tail: null });
  t.strictSame(
    out.deliver.map(({ block }) => block.header.height),
    [1, 2, 3],
  );
  t.equal(solo.core.explain().phase, 'idle');
});

t.test(
  'PBFT-CU-2: what no certificate covers, or does not link, is not taken, and its giver is passed over',
  async (t) => {
    const solo = new Solo({ parameters: small }).connect();
    const blocks = history(solo, 3);
    const ahead = { height: asHeight(3), hash: blocks[2]!.hash };
    const asked = () => {
      solo.wait(250, { ahead });
      return Number(solo.asked.get('fetch-blocks'));
    };
    const first = asked();
    const bare = blocks.map((block) => ({ block, certificate: null }));
    t.equal(solo.hear(first, { kind: 'blocks', blocks: bare, tail: null }).deliver.length, 0);
    const second = asked();
    t.not(second, first, 'the next one is asked');
    const certified = (block: Block) => ({ block, certificate: solo.certificate('commit', block) });
    t.strictSame(codes(solo.hear(second, { kind: 'blocks', blocks: [certified(blocks[1]!)], tail: null })), [
      'blocks-not-linked',
    ]);
    const third = asked();
    t.notOk([first, second].includes(third));
    const covered = [
      { block: blocks[0]!, certificate: null },
      certified(blocks[1]!),
      { block: blocks[2]!, certificate: null },
    ];
    const out = solo.hear(third, { kind: 'blocks', blocks: covered, tail: null });
    t.strictSame(
      out.deliver.map(({ block }) => block.header.height),
      [1, 2],
      'up to the last certificate, no further',
    );
    t.equal(asked(), third, 'and those who lied are not asked again for a while');
  },
);

t.test('PBFT-CU-2, BLK-7: headers up to the certificate prove blocks as well', async (t) => {
  const solo = new Solo({ parameters: small }).connect();
  const blocks = history(solo, 4);
  solo.wait(300, { ahead: { height: asHeight(4), hash: blocks[3]!.hash } });
  const to = Number(solo.asked.get('fetch-blocks'));
  const tail = {
    links: blocks.slice(2).map(({ headerBytes }) => headerBytes),
    certificate: solo.certificate('commit', blocks[3]!),
  };
  const out = solo.hear(to, {
    kind: 'blocks',
    blocks: blocks.slice(0, 2).map((block) => ({ block, certificate: null })),
    tail,
  });
  t.strictSame(
    out.deliver.map(({ block, certificate }) => [block.header.height, certificate]),
    [
      [1, null],
      [2, null],
    ],
  );
  solo.hear(0, proposal(blocks[2]!));
  t.equal(solo.hear(0, proposal(blocks[3]!)).deliver.length, 2, 'and the certificate counts when its block comes');
});

t.test('PBFT-CU-2, GEN-1: a certified block that breaks a rule stops the replica', async (t) => {
  const solo = new Solo({ parameters: small }).connect();
  const block = altered(solo.block(), { transactionTotal: 9 });
  const ahead = { height: asHeight(1), hash: block.hash };
  const to = Number(sentKinds(solo.wait(T, { ahead }), 'fetch-blocks').at(-1)!.to);
  const blocks = [{ block, certificate: solo.certificate('commit', block) }];
  t.throws(() => solo.hear(to, { kind: 'blocks', blocks, tail: null }), InvariantViolation);
});

t.test('PBFT-CU-4: no vote at or below a height that is known to be decided', async (t) => {
  const solo = new Solo().connect();
  const [one, two, three] = [solo.block(), solo.block(), solo.block()];
  solo.decide(one);
  const before = solo.pledged.length;
  solo.all(heard(0, proposal(one)), heard(1, vote('prepare', one)), heard(2, vote('prepare', one)));
  t.equal(solo.pledged.length, before, 'not for the last decided one');

  // The commit certificate for height 3 came first: 2 and 3 are decided, with or without this replica.
  solo.all(...[0, 1, 2].map((id) => heard(id, vote('commit', three))));
  solo.all(heard(0, proposal(two)), heard(1, vote('prepare', two)), heard(2, vote('prepare', two)));
  t.equal(solo.pledged.length, before, 'not below a certificate whose blocks are on their way');
  solo.hear(0, proposal(three));
  t.equal(solo.core.explain().height, 3);
  t.equal(solo.pledged.length, before);
});

// ---- requests -------------------------------------------------------------------------------------------------------

t.test('REQ-1: a bundle goes to the primary at once, and to all when it stays unordered', async (t) => {
  const solo = new Solo().connect();
  const bundle = solo.client.bundle([text('x')]);
  const forwards = (out: Out) =>
    sentKinds(out, 'forward').flatMap(({ to, message }) =>
      message.kind === 'forward' ? message.bundles.map(({ digest }) => [to, toHex(digest)]) : [],
    );
  const digest = toHex(bundle.digest);
  t.strictSame(forwards(solo.all({ type: 'bundle', bundle })), [[0, digest]]);
  t.strictSame(forwards(solo.wait(T / 2 - 50)), []);
  const late = forwards(solo.wait(200));
  t.ok(
    late.some(([to]) => to === 'all'),
    'so that all of them time it',
  );
  t.ok(
    late.some(([to]) => to === 0),
    'and to the primary again',
  );

  // Whoever gets it that way hands it on to the primary itself, and times it.
  const backup = new Solo({ self: 2 }).connect();
  t.strictSame(forwards(backup.hear(3, { kind: 'forward', bundles: [bundle] })), [[0, digest]]);
  backup.wait(T + 200);
  t.equal(backup.view, '1?');
  const primary = new Solo({ self: 0 }).connect();
  const proposes = primary.hear(3, { kind: 'forward', bundles: [bundle] });
  t.equal(sentKinds(proposes, 'pre-prepare').length, 1);
  t.strictSame(forwards(proposes), []);
});

t.test('REQ-2: only what could stand in the next block is timed', async (t) => {
  const turn = new Solo().connect();
  const [first, second] = [turn.client.bundle([text('1')]), turn.client.bundle([text('2')])];
  turn.all({ type: 'bundle', bundle: first }, { type: 'bundle', bundle: second });
  turn.wait(T - 50);
  turn.decide(turn.block({ bundles: [first] }));
  turn.wait(T);
  t.equal(turn.view, '0', 'the time of the second one begins with its turn');
  turn.wait(200);
  t.equal(turn.view, '1?');

  const gap = new Solo().connect();
  gap.all({ type: 'bundle', bundle: gap.client.bundle([text('x')], { sequence: 2 }) });
  gap.wait(5 * T);
  t.equal(gap.view, '0', "a gap in the session is the client's");

  const late = new Solo().connect();
  late.all({ type: 'bundle', bundle: late.client.bundle([text('x')], { validUntil: 1 }) });
  late.decide(late.block({ bundles: [new SimClient(late.genesis, 'bob').bundle([text('y')])] }));
  late.wait(5 * T);
  t.equal(late.view, '0', "what is out of date is nobody's to order");
});

t.test(
  'REQ-5, REQ-2, A4: a primary that passes a bundle over is given up, one whose blocks are full is not',
  async (t) => {
    for (const full of [false, true]) {
      const solo = new Solo({ parameters: full ? { blockBundlesMax: 1 } : {} }).connect();
      const victim = new SimClient(solo.genesis, 'victim').bundle([text('v')]);
      solo.all({ type: 'bundle', bundle: victim });
      // Full ones come one after the other: a primary that rests between them is slow (PACE-1).
      for (let i = 0; i < 200 && solo.view === '0'; i++) {
        solo.decide(solo.block());
        solo.wait(full ? 10 : 100);
      }
      t.equal(solo.view, full ? '0' : '1?', `full: ${full}`);
      t.ok(solo.core.explain().height > 8, 'and not for the first ones that come before it');
    }
  },
);

t.test('REQ-3, SES-6: every bundle gets a verdict, and a last one if it can never be ordered', async (t) => {
  const solo = new Solo().connect();
  const verdict = (bundle: SignedBundle) => solo.all({ type: 'bundle', bundle }).admissions.map(({ code }) => code);
  const bundle = solo.client.bundle([text('x')]);
  t.strictSame(verdict(bundle), ['pooled']);
  t.strictSame(verdict(bundle), ['known']);
  solo.decide(solo.block({ bundles: [bundle] }));
  t.strictSame(verdict(bundle), ['sequence-passed'], 'decided: not ordered again');
  t.equal(solo.core.explain().pool.bundles, 0);

  const rival = solo.client.bundle([text('b')], { sequence: 2 });
  t.strictSame(verdict(solo.client.bundle([text('a')], { sequence: 2 })), ['pooled']);
  t.strictSame(verdict(rival), ['sequence-taken']);
  const passed = solo.decide(solo.block({ bundles: [rival] })).admissions.map(({ code }) => code);
  t.strictSame(passed, ['sequence-passed'], 'another one took its place');

  const bob = new SimClient(solo.genesis, 'bob');
  const short = bob.bundle([text('s')], { validUntil: 3 });
  t.strictSame(verdict(short), ['pooled']);
  solo.decide(solo.block({ bundles: [solo.client.bundle([text('c')], { sequence: 3 })] }));
  const swept = solo.wait(T + 100).admissions;
  t.strictSame(
    swept.map(({ digest, code }) => [toHex(digest), code]),
    [[toHex(short.digest), 'expired']],
  );
});

// ---- the core as a function -----------------------------------------------------------------------------------------

t.test('GEN-2: the same inputs give the same outputs', async (t) => {
  const run = () => {
    const outs: Out[] = [];
    const solo = new Solo({ parameters: small });
    const step = solo.core.step.bind(solo.core);
    solo.core.step = (inputs: readonly Step[], now: Millis) => {
      const out = step(inputs, now);
      outs.push(out);
      return out;
    };
    solo.connect();
    for (let i = 0; i < 5; i++) solo.decide(solo.block());
    solo.wait(2 * T, { alive: [1] });
    solo.hear(1, solo.newView(1));
    solo.wait(T);
    return outs;
  };
  t.strictSame(run(), run());
});

t.test('[LOOP-1] what may complete a quorum presses, and so do contradictions, other views and news', async (t) => {
  const solo = new Solo().connect();
  const block = solo.block();
  const rival = altered(block, { proposer: asReplicaId(1) });
  const presses = (message: PbftMessage, sender: number, others: readonly number[] = []) =>
    solo.core.presses(message, asReplicaId(sender), new Set(others.map(asReplicaId)));
  const [prepare, commit] = [vote('prepare', block), vote('commit', block)];
  t.notOk(presses(prepare, 1, [1]), 'one of three');
  t.notOk(presses(prepare, 2, [1]), 'two of three');
  t.ok(presses(prepare, 3, [1, 2]), 'with its own');
  solo.step(heard(0, proposal(block)));
  t.notOk(presses(prepare, 1), 'the proposal is one that is counted');
  t.ok(presses(prepare, 1, [1, 2]));
  t.notOk(presses(prepare, 0, [0, 1]), 'and only once');
  t.notOk(presses(commit, 1, [1, 2]), 'of another phase');
  t.ok(presses(vote('prepare', rival), 0), 'a contradiction to what is counted');
  t.notOk(presses(vote('prepare', rival), 1), 'no other one is counted');
  t.ok(presses(vote('prepare', block, 1), 1), 'of another view');
  t.ok(presses(proposal(block), 0));
  t.ok(presses(viewChange(1), 1));

  const status = solo.status();
  t.ok(presses(status, 1), 'the first word of a peer');
  solo.hear(1, status);
  t.notOk(presses(status, 1), 'the same again');
  for (const more of [{ height: asHeight(1) }, { stable: asHeight(4) }, { view: asView(1) }, { active: false }])
    t.ok(presses({ ...status, ...more }, 1), JSON.stringify(more));
  solo.hear(1, viewChange(1));
  solo.hear(2, viewChange(1));
  t.equal(solo.view, '1?');
  t.ok(presses(solo.status({ view: asView(1) }), 1), 'between views everything does');
  t.ok(presses(vote('prepare', block, 1), 1));
});

t.test('[EPO-13] a message of another epoch is passed over, but for the height in a status', async (t) => {
  const solo = new Solo().connect();
  const other = { ...proposal(solo.block()), epoch: asEpoch(1) };
  t.notOk(solo.core.wants(other, asReplicaId(0)), 'not even looked at');
  t.strictSame(codes(solo.hear(0, other)), [], 'whoever is ahead has done nothing wrong');
  t.strictSame(solo.prepares(), []);
  const status = { ...solo.status(), epoch: asEpoch(1), view: asView(7), height: asHeight(90), stable: asHeight(64) };
  t.ok(solo.core.wants(status, asReplicaId(0)));
  solo.hear(0, status);
  const { peers } = solo.core.explain();
  t.match(peers[0], { replica: 0, height: 90, view: 0 }, 'its views mean nothing here');
  t.equal(solo.core.explain().view, 0);
});
