// The client door (daemon/gateway/) and the metrics over real sockets, in front of a replica that decides what the test says; the HTTP
// door is in http.test.ts. Adversary's book A12 to A15, A25, A26.

import t from 'tap';
import { type Bytes, equalBytes, toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash, merkleRoot, rangeProof } from '../crypto/merkle.ts';
import { MerkleTree } from '../crypto/tree.ts';
import { defaultGatewayLimits } from '../daemon/gateway/limits.ts';
import { certify } from '../daemon/gateway/receipt-desk.ts';
import { TokenBuckets } from '../daemon/gateway/token-bucket.ts';
import { Metrics, seriesTable } from '../daemon/metrics.ts';
import type { Block } from '../protocol/block.ts';
import { encodeBundlePayload, encodeFrame, type Message } from '../protocol/codec.ts';
import type { BundleAdmission } from '../protocol/door.ts';
import { asHeight, asReplicaId, asView } from '../protocol/types.ts';
import { verifyReceipt } from '../protocol/verify.ts';
import { bundleOf, checkStream, context, type DoorClient, doorKey, Gate, same, turn, world } from './door-world.ts';
import { fc } from './property.ts';
import * as fixture from './wire-fixtures.ts';

const { parameters, sha256, text, keyOf, filled } = fixture;
type TestKey = fixture.TestKey;

// A busy machine is slow, not wrong.
t.setTimeout(240_000);

// ---- the pieces -----------------------------------------------------------------------------------------------------------

t.test('the tree of a block gives the proofs of crypto/merkle.ts', async (t) => {
  for (let size = 1; size <= 40; size++) {
    const leaves = Array.from({ length: size }, (_, i) => leafHash(sha256, Uint8Array.of(i)));
    const tree = new MerkleTree(sha256, leaves);
    const agree = [equalBytes(tree.root(), merkleRoot(sha256, leaves))];
    for (let start = 0; start < size; start++) {
      agree.push(same(tree.inclusionProof(start), inclusionProof(sha256, leaves, start)));
      for (let end = start + 1; end <= size; end++)
        agree.push(same(tree.rangeProof(start, end), rangeProof(sha256, leaves, start, end)));
    }
    t.ok(agree.every(Boolean), `${size} leaves`);
  }
  t.ok(equalBytes(new MerkleTree(sha256, []).root(), merkleRoot(sha256, [])), 'no leaf');
});

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
  const bucket = (le: string) =>
    new RegExp(`synod_phase_seconds_bucket\\{le="${le}",phase="proposed-to-decided"\\} (\\d)`);
  metrics.observe('synod_phase_ms', 251, { phase: 'proposed-to-decided' });
  metrics.observe('synod_phase_ms', 60_000, { phase: 'proposed-to-decided' });
  const later = await metrics.scrape();
  const counted = ['0.1', '0.25', '0.5', '30', '\\+Inf'].map((le) => bucket(le).exec(later)?.[1]);
  t.strictSame(counted, ['0', '1', '2', '2', '3'], 'a bound counts what is at or below it');
  t.match(later, /synod_phase_seconds_count\{phase="proposed-to-decided"\} 3/);
  t.match(later, /synod_step_seconds_count 0/, 'without labels: there from the start');
  t.throws(() => metrics.observe('synod_phase_ms', 1, { colour: 'red' }), /label/);
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

t.test('questions under overload: each has its answer, or the connection its end (A14)', async (t) => {
  const { queriesMax, queryTokens, rate } = defaultGatewayLimits;
  t.strictSame(
    [queriesMax, rate.perSecond / queryTokens, rate.burst / queryTokens, 1 / queryTokens],
    [64, 1000, 1000, 1 / 20],
    'as docs/wire.md says',
  );
  const { replica, client } = await world(t);
  const bundle = bundleOf('asked');
  await replica.decide([[bundle]]);
  const { log } = replica;
  const find = log.findBundle.bind(log);
  const lookups = { now: 0, most: 0, held: new Gate() };
  log.findBundle = async (digest) => {
    lookups.now += 1;
    lookups.most = Math.max(lookups.most, lookups.now);
    await lookups.held.opened;
    lookups.now -= 1;
    return find(digest);
  };
  const ask = (from: DoorClient, question: number) =>
    from.send({ kind: 'query-bundle', question, digest: question % 2 === 0 ? bundle.digest : fixture.hashOf(3) });
  const answers = ({ messages }: DoorClient) => messages.filter(({ kind }) => kind === 'receipts').length;

  const asker = await client();
  const others = await Promise.all(Array.from({ length: 12 }, (_, i) => client(keyOf(filled(0x80 + i)))));
  for (let question = 1; question <= queriesMax; question++) ask(asker, question);
  await asker.settled();
  t.strictSame([lookups.now, answers(asker)], [1, 0], 'a connection has one look-up at a time; the rest waits');
  for (const other of others) ask(other, 2);
  for (const other of others) await other.settled();
  t.equal(lookups.now, 8, 'so many are in the log at once, of all connections');
  lookups.held.open();
  for (let question = 1; question <= queriesMax; question++) {
    const { answer, receipts } = await asker.next('receipts');
    if (answer?.question !== question || receipts.length !== (question % 2 === 0 ? 1 : 0))
      t.fail(`the answer to question ${question}`, { found: answer });
  }
  for (const other of others) t.equal((await other.next('receipts')).receipts.length, 1, 'nobody is left out');
  t.equal(lookups.most, 8);

  // Answered, so as many may be asked again; one more than that may not.
  lookups.held = new Gate();
  for (let question = 1; question <= queriesMax; question++) ask(asker, question);
  await asker.settled();
  ask(others[0]!, 2);
  ask(asker, queriesMax + 1);
  t.equal(await asker.closed(), 'queries-too-many');
  lookups.held.open();
  t.equal((await others[0]!.next('receipts')).receipts.length, 1, 'the others do not feel it');

  log.findBundle = () => Promise.reject(new Error('damaged'));
  const before = answers(others[1]!);
  ask(others[1]!, 2);
  t.equal(await others[1]!.closed(), 'log-read-failed');
  t.equal(answers(others[1]!), before, 'an empty answer would say that it was looked for');
});

t.test('questions cost a key twenty submits each, on all of its connections together (A14)', async (t) => {
  const rate = { perSecond: 0.001, burst: 100 };
  for (const submits of [0, 20, 21]) {
    const { client } = await world(t, { gateway: { rate } });
    const mine = await client();
    for (let i = 0; i < submits; i++) mine.submit(bundleOf('s'));
    for (let i = 0; i < submits; i++) t.equal((await mine.admission()).code, 'pooled');
    const paid = Math.floor((rate.burst - submits) / 20);
    const second = await client();
    for (let question = 1; question <= paid; question++) {
      const asking = question % 2 === 0 ? mine : second;
      asking.send({ kind: 'query-bundle', question, digest: fixture.hashOf(3) });
      t.equal((await asking.next('receipts')).answer?.question, question);
    }
    second.send({ kind: 'query-bundle', question: 9, digest: fixture.hashOf(3) });
    t.equal(await second.closed(), 'rate', `after ${submits} submits and ${paid} questions`);
    const other = await client(keyOf(filled(0x43)));
    other.send({ kind: 'query-bundle', question: 1, digest: fixture.hashOf(3) });
    t.equal((await other.next('receipts')).answer?.question, 1, 'another key has its own');
  }
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
