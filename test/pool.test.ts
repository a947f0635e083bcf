// The pool by itself (REQ-1 to REQ-4 of docs/spec.md): against a model, over random lives.

import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { encodeBundlePayload } from '../protocol/codec.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger } from '../protocol/ledger.ts';
import { POOL_LIMITS, Pool } from '../protocol/pool.ts';
import type { Millis } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId } from '../protocol/types.ts';
import { settingOf } from '../sim/setting.ts';
import { fc } from './property.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(200_000);

const text = (value: string) => Buffer.from(value);

function world(parameters: Parameters<typeof settingOf>[1] = {}) {
  const { genesis } = settingOf(4, { validUntilHorizon: 64, ...parameters });
  const ledger = new Ledger({ sha256: native.sha256, genesis, epoch: asEpoch(0) });
  const pool = new Pool();
  const state = { now: asMillis(1_700_000_000_000), ledger, chain: [], parameters: genesis.parameters };
  const admit = (bundle: SignedBundle) => pool.admit(bundle, state);
  const pick = (chain: readonly Extension[] = []) => pool.pick(chain, ledger, genesis.parameters);
  const build = (bundles: readonly SignedBundle[]): Extension => {
    const extension = ledger.build([], { bundles, time: state.now, proposer: asReplicaId(0) });
    if (extension === null || extension.block.bundles.length < bundles.length) throw new Error('not as a block');
    return extension;
  };
  const decide = (bundles: readonly SignedBundle[], hadRoom = true) => {
    ledger.apply(build(bundles));
    return pool.settle(bundles, { now: state.now, hadRoom });
  };
  return { genesis, ledger, pool, state, admit, pick, build, decide };
}

/** Nobody checks the signature behind the door, so none is made. */
function bundle(
  client: number,
  { session = 1, sequence = 1, validUntil = 60, body = '', bytes = 1, transactions = 1 } = {},
): SignedBundle {
  const transaction = new Uint8Array(bytes);
  transaction.set(text(body).subarray(0, bytes));
  const unsigned = {
    client: new Uint8Array(32).fill(client).fill(client >> 8, 0, 1),
    session,
    sequence,
    validUntil: asHeight(validUntil),
    transactions: new Array<Uint8Array>(transactions).fill(transaction),
  };
  const payload = encodeBundlePayload(unsigned);
  const digest = asHash(native.sha256(payload));
  return { ...unsigned, payload, digest, signature: new Uint8Array(64), leaves: [digest] };
}

const name = ({ client, session, sequence }: SignedBundle) => `${client[1]}.${session}.${sequence}`;

t.test('REQ-3: what is not taken in is refused with its reason', async (t) => {
  const { admit, decide, pool, ledger } = world();
  t.equal(admit(bundle(1)), 'pooled');
  t.equal(admit(bundle(1)), 'known');
  t.equal(admit(bundle(1, { body: 'y' })), 'sequence-taken');
  t.equal(admit(bundle(1, { sequence: 2, validUntil: 0 })), 'expired');
  t.equal(admit(bundle(2, { validUntil: 1 })), 'pooled', 'at its last height');
  t.equal(admit(bundle(3, { validUntil: 64 })), 'pooled', 'the horizon');
  t.equal(admit(bundle(4, { validUntil: 65 })), 'valid-until-too-far');
  t.equal(admit(bundle(5, { sequence: 2 })), 'sequence-gap', 'what nothing leads to cannot be ordered');
  t.equal(admit(bundle(5)), 'pooled');
  t.equal(admit(bundle(5, { sequence: 2 })), 'pooled');
  t.strictSame(decide([bundle(1)]), []);
  t.equal(admit(bundle(1)), 'sequence-passed');
  t.strictSame(
    pool.sweep(ledger).map(({ digest, code }) => [toHex(digest), code]),
    [[toHex(bundle(2, { validUntil: 1 }).digest), 'expired']],
    'and what can never be ordered any more is given back',
  );
  t.equal(pool.bundles, 3);
});

t.test('REQ-3: a bundle whose place another one took is given back', async (t) => {
  const { admit, decide, pool } = world();
  const loser = bundle(1, { body: 'a' });
  admit(loser);
  t.strictSame(decide([bundle(1, { body: 'b' })]), [{ digest: loser.digest, code: 'sequence-passed' }]);
  t.strictSame([pool.bundles, pool.bytes], [0, 0]);
});

t.test('REQ-4: bounded in all and per client, in bundles and in bytes', async (t) => {
  const limits = POOL_LIMITS;
  const many = world();
  let taken = 0;
  const fill = (client: number) => {
    for (let session = 1; ; session++)
      for (let sequence = 1; sequence <= 4000; sequence++) {
        const code = many.admit(bundle(client, { session, sequence }));
        if (code !== 'pooled') return code;
        taken += 1;
      }
  };
  t.equal(fill(1), 'client-quota');
  t.equal(taken, limits.poolBundlesMax / 2);
  t.equal(fill(2), 'pool-full');
  t.equal(taken, limits.poolBundlesMax, 'one that floods leaves half of it to the others');
  t.equal(many.pool.bundles, limits.poolBundlesMax);

  const narrow = world({ clientPoolPercent: 25 });
  let some = 0;
  for (let session = 1; some === (session - 1) * 4000; session++)
    for (let sequence = 1; sequence <= 4000; sequence++)
      if (narrow.admit(bundle(1, { session, sequence })) === 'pooled') some += 1;
  t.equal(some, limits.poolBundlesMax / 4, 'or as much as the chain says');

  const large = world();
  const bytes = 200_000;
  const flood = (client: number) => {
    for (let sequence = 1; ; sequence++) {
      const code = large.admit(bundle(client, { sequence, bytes }));
      if (code !== 'pooled') return code;
    }
  };
  t.equal(flood(1), 'client-quota');
  t.ok(large.pool.cost <= limits.poolCostMax / 2 && large.pool.cost > limits.poolCostMax / 2 - bytes - 1000);
  const held = large.pool.bundles;
  large.decide([bundle(1, { bytes })]);
  t.equal(large.admit(bundle(1, { sequence: held + 1, bytes })), 'pooled', 'one decided makes room for one');
  t.equal(large.admit(bundle(1, { sequence: held + 2, bytes })), 'client-quota');
  t.equal(flood(2), 'client-quota');
  t.equal(flood(3), 'pool-full');
  const free = () => {
    while (large.ledger.height < 61) {
      const sequence = large.ledger.nextSequence([], bundle(9), asHeight(large.ledger.height + 1));
      large.decide([bundle(9, { sequence, validUntil: large.ledger.height + 1 })]);
    }
    large.pool.sweep(large.ledger);
    t.equal(large.pool.bytes, 0);
    return large.pool.cost;
  };
  t.ok(large.pool.cost <= limits.poolCostMax && large.pool.cost > limits.poolCostMax - bytes - 1000);
  t.equal(free(), 0);
  t.equal(
    large.admit(bundle(1, { session: 2, validUntil: 100, bytes })),
    'pooled',
    'and room again when they have gone',
  );

  // By what they take in memory: many tiny transactions are few bytes.
  const tiny = world();
  for (let sequence = 1; ; sequence++) {
    const code = tiny.admit(bundle(1, { sequence, transactions: 1000 }));
    if (code === 'pooled') continue;
    t.equal(code, 'client-quota');
    break;
  }
  t.ok(
    tiny.pool.bundles < 220 && tiny.pool.bytes < 1 << 20,
    `${tiny.pool.bundles} bundles of ${tiny.pool.bytes} bytes`,
  );
});

t.test('REQ-4: a block takes from every client in turn', async (t) => {
  const { admit, pick, decide } = world({ blockBundlesMax: 4 });
  for (let sequence = 1; sequence <= 20; sequence++) admit(bundle(1, { sequence }));
  for (const client of [2, 3]) for (const sequence of [1, 2]) admit(bundle(client, { sequence }));
  const first = pick();
  t.strictSame(first.map(name), ['1.1.1', '2.1.1', '3.1.1', '1.1.2'], 'who has much waits no less');
  decide(first);
  const second = pick();
  t.strictSame(second.map(name).sort(), ['1.1.3', '1.1.4', '2.1.2', '3.1.2']);
  t.equal(second[0]?.client[1], 2, 'who was left out comes first');

  const crowd = world({ blockBundlesMax: 4 });
  for (let client = 1; client <= 12; client++) for (const sequence of [1, 2]) crowd.admit(bundle(client, { sequence }));
  const served = new Map<number, number>();
  for (let block = 0; block < 3; block++) {
    const picked = crowd.pick();
    for (const { client } of picked) served.set(client[1]!, (served.get(client[1]!) ?? 0) + 1);
    crowd.decide(picked);
  }
  t.equal(served.size, 12, 'three blocks of four serve twelve clients');
});

t.test('BLK-8: a primary proposes no more transactions than a block may hold', async (t) => {
  const { admit, pick } = world({
    blockBytesMax: 2048,
    bundleBytesMax: 1024,
    transactionBytesMax: 700,
    bundleTransactionsMax: 10,
  });
  for (let client = 1; client <= 9; client++) t.equal(admit(bundle(client, { transactions: 10 })), 'pooled');
  t.equal(pick().length, 6, '2048 / 32 = 64');
});

t.test('REQ-4, SES-1, SES-2: what is picked may stand in the block it is picked for', async (t) => {
  const { admit, pick, build } = world();
  for (const sequence of [1, 2]) admit(bundle(1, { sequence }));
  admit(bundle(2, { validUntil: 1 }));
  const first = pick();
  t.strictSame(first.map(name).sort(), ['1.1.1', '1.1.2', '2.1.1']);
  const extension = build(first);
  t.strictSame(pick([extension]), [], 'nothing twice above an undecided block');
  for (const sequence of [3, 4]) admit(bundle(1, { sequence }));
  t.strictSame(pick([extension]).map(name), ['1.1.3', '1.1.4']);
  const late = world();
  late.admit(bundle(2, { validUntil: 1 }));
  t.strictSame(late.pick([late.build([bundle(1)])]), [], 'nor past its last height');

  const gap = world();
  for (const [sequence, validUntil] of [
    [1, 60],
    [2, 1],
    [3, 60],
  ] as const)
    gap.admit(bundle(1, { sequence, validUntil }));
  t.equal(gap.pick().length, 3);
  gap.decide([bundle(9)]);
  t.strictSame(gap.pick().map(name), ['1.1.1'], 'no gap is jumped');
  t.strictSame(
    gap.pool.sweep(gap.ledger).map(({ code }) => code),
    ['expired', 'sequence-gap'],
    'REQ-3: and what follows one is given back',
  );

  const turns = world({ blockBundlesMax: 3 });
  for (const sequence of [1, 2, 3, 4]) turns.admit(bundle(1, { sequence }));
  for (const session of [2, 3]) turns.admit(bundle(1, { session }));
  t.strictSame(turns.pick().map(name), ['1.1.1', '1.2.1', '1.3.1'], "a client's sessions in turn");

  const tight = world({ blockBytesMax: 1024, bundleBytesMax: 1024, transactionBytesMax: 512 });
  for (const client of [1, 2, 3]) tight.admit(bundle(client, { bytes: 400 }));
  t.equal(tight.pick().length, 2, 'within the bytes of a block');
});

t.test('REQ-1: each bundle is handed on once, again after a while, and once to all', async (t) => {
  const { admit, pool, state } = world();
  const [a, b] = [bundle(1), bundle(2)];
  admit(a);
  t.strictSame(pool.takeFresh(), [a]);
  t.strictSame(pool.takeFresh(), []);
  const at = (ms: number) => asMillis(state.now + ms);
  pool.markForwarded([a], at(0));
  t.strictSame(pool.toForward(at(100), at(0), 9), [], 'just handed on');
  admit(b);
  t.strictSame(pool.toForward(at(300), at(50), 1), [a], 'not since long');
  t.strictSame(pool.toForward(at(301), at(50), 9), [b]);
  pool.beginView();
  t.strictSame(pool.toForward(at(302), at(0), 9), [a, b], 'a new primary gets everything');
  t.strictSame(pool.toSpread(at(300), at(-1), 9), []);
  t.strictSame(pool.toSpread(at(300), at(0), 9), [a, b]);
  t.strictSame(pool.toSpread(at(900), at(500), 9), [], 'to all only once');
});

t.test('REQ-2: overdue is what could have been ordered', async (t) => {
  const { admit, pool, state, ledger, decide } = world();
  const first = bundle(1);
  const second = bundle(1, { sequence: 2 });
  const late = bundle(2, { validUntil: 1 });
  for (const one of [first, second, late]) admit(one);
  const overdue = (ms: number) =>
    pool
      .overdue(ledger, asMillis(state.now + ms) as Millis, 9)
      .map(({ bundle: b, since }) => [name(b), since - state.now]);
  t.strictSame(overdue(-1), []);
  t.strictSame(overdue(0), [
    ['1.1.1', 0],
    ['2.1.1', 0],
  ]);
  state.now = asMillis(state.now + 100);
  decide([first]);
  t.strictSame(overdue(-1), [], 'the second one counts from its turn, the late one not at all');
  t.strictSame(overdue(0), [['1.1.2', 0]]);
});

t.test('REQ-5, REQ-2: who was passed over, by blocks with room and by full ones, in this view', async (t) => {
  const { admit, pool, state, ledger, decide } = world();
  for (const client of [1, 2]) admit(bundle(client));
  const other = (sequence: number) => bundle(9, { sequence });
  const passed = () => pool.overdue(ledger, state.now, 9).map(({ passedOver }) => [passedOver.all, passedOver.roomy]);
  decide([other(1)], true);
  decide([other(2)], false);
  t.strictSame(passed(), [
    [2, 1],
    [2, 1],
  ]);
  admit(bundle(3));
  decide([other(3)], true);
  t.strictSame(passed().at(-1), [1, 1], 'only blocks since it came');
  pool.beginView();
  t.strictSame(passed().at(0), [0, 0], "what the last primary did is not this one's fault");
  admit(bundle(1, { sequence: 2 }));
  decide([other(4)], true);
  decide([bundle(1)], true);
  const [, , second] = [...pool.overdue(ledger, state.now, 9)];
  t.strictSame([second?.bundle.sequence, second?.passedOver.all], [2, 0], 'and only blocks since its turn');
});

// ---- the model ---------------------------------------------------------------------------------------------------------

type Action =
  | {
      readonly type: 'admit';
      readonly client: number;
      readonly session: number;
      readonly ahead: number;
      readonly lasts: number;
      readonly body: number;
    }
  | { readonly type: 'decide'; readonly foreign: boolean }
  | { readonly type: 'sweep' };

const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('admit' as const),
      client: fc.integer({ min: 1, max: 4 }),
      session: fc.integer({ min: 1, max: 2 }),
      ahead: fc.integer({ min: -1, max: 4 }),
      lasts: fc.integer({ min: 0, max: 12 }),
      body: fc.nat(2),
    }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('decide' as const), foreign: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant({ type: 'sweep' as const }) },
);

t.test('REQ-3: an admitted bundle is there, decided, or reported; and the counts agree', async (t) => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 120 }), (actions) => {
      const { admit, pick, decide, pool, ledger } = world({ blockBundlesMax: 3 });
      const inside = new Map<string, SignedBundle>();
      const decided = new Set<string>();
      const report = (dropped: readonly { readonly digest: Uint8Array }[]) => {
        for (const { digest } of dropped)
          if (!inside.delete(toHex(digest))) throw new Error('reported, but it was not there');
      };
      for (const step of actions) {
        if (step.type === 'admit') {
          const draft = bundle(step.client, { session: step.session });
          const nextHeight = asHeight(ledger.height + 1);
          const sequence = Math.max(1, ledger.nextSequence([], draft, nextHeight) + step.ahead);
          const one = bundle(step.client, {
            session: step.session,
            sequence,
            validUntil: nextHeight + step.lasts,
            body: 'abc'[step.body]!,
          });
          if (admit(one) === 'pooled') {
            if (decided.has(toHex(one.digest))) throw new Error('taken in again after its decision');
            inside.set(toHex(one.digest), one);
          }
        } else if (step.type === 'decide') {
          // Now and then, what another replica had and this one had not.
          const height = asHeight(ledger.height + 1);
          const stranger = bundle(step.foreign ? 1 : 9, { validUntil: height, body: 'z' });
          const sequence = ledger.nextSequence([], stranger, height);
          const foreign = bundle(stranger.client[1]!, { sequence, validUntil: height, body: 'z' });
          const picked = step.foreign ? [foreign] : pick();
          if (picked.length === 0) continue;
          if (picked.length > 3) throw new Error('more than a block');
          const dropped = decide(picked);
          for (const { digest } of picked) {
            decided.add(toHex(digest));
            inside.delete(toHex(digest));
          }
          report(dropped);
        } else report(pool.sweep(ledger));
        const bytes = [...inside.values()].reduce((sum, { payload }) => sum + payload.length, 0);
        if (pool.bundles !== inside.size || pool.bytes !== bytes) throw new Error('the counts differ');
        for (const one of inside.values()) if (!pool.has(one.digest)) throw new Error('a bundle vanished');
      }
      // What remains goes when its time is over.
      for (let i = 0; i < 20; i++)
        decide(
          [
            bundle(9, {
              sequence: ledger.nextSequence([], bundle(9), asHeight(ledger.height + 1)),
              validUntil: ledger.height + 1,
            }),
          ].map((b) => b),
        );
      report(pool.sweep(ledger));
      return inside.size === 0 && pool.bundles === 0 && pool.bytes === 0 && pick().length === 0;
    }),
    { seed: 21, numRuns: 60 },
  );
  t.pass('over random lives');
});
