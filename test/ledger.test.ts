// The rules of blocks, sessions and quorums (docs/spec.md) on the ledger alone: exact edges, and properties over random histories.

import { createHash } from 'node:crypto';
import t from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { concat, equalBytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import type { Block, BlockHeader } from '../protocol/block.ts';
import { blockHash, bodyHash, decodeHeader, encodeHeader, HEADER_BYTES, logLeafData } from '../protocol/block.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { decodeStoredBlock, encodeBody, encodeStoredBlock, isRefusal } from '../protocol/codec.ts';
import type { GenesisDocument } from '../protocol/genesis.ts';
import type { Extension } from '../protocol/ledger.ts';
import { Ledger, STATE_CHUNKS } from '../protocol/ledger.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { Session } from '../protocol/sessions.ts';
import { BUCKET_SESSIONS_MAX, bucketOf, SESSION_BUCKETS, sessionKey } from '../protocol/sessions.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { Tally, VoteBox } from '../protocol/votes.ts';
import { SimClient } from '../sim/clients.ts';
import { settingOf } from '../sim/setting.ts';
import { fc } from './property.ts';

// Seconds on an idle machine; on a busy one a whole suite runs beside it.
t.setTimeout(200_000);

const text = (value: string) => Buffer.from(value);
const epoch = asEpoch(0);
const sha = (bytes: Bytes): Bytes => Uint8Array.from(createHash('sha256').update(bytes).digest());
const time = asMillis(1_700_000_000_500);
const small = { checkpointInterval: 16, validUntilHorizon: 64 } satisfies GenesisDocument['parameters'];
const { genesis } = settingOf(4, small);

const newLedger = (of = genesis) => new Ledger({ sha256: native.sha256, genesis: of, epoch });
const proposer = asReplicaId(0);

function build(ledger: Ledger, chain: readonly Extension[], bundles: readonly SignedBundle[], at = time): Extension {
  const extension = ledger.build(chain, { bundles, time: at, proposer });
  if (extension === null) throw new Error('none of these bundles may stand there');
  return extension;
}

function extended(ledger: Ledger, chain: readonly Extension[], block: Block): Extension {
  const extension = ledger.extend(chain, block);
  if ('refused' in extension) throw new Error(extension.refused);
  return extension;
}

const refusal = (ledger: Ledger, chain: readonly Extension[], block: Block): string => {
  const extension = ledger.extend(chain, block);
  return 'refused' in extension ? extension.refused : 'accepted';
};

/** The block that a careless primary would build of these bundles: every field of its header is right, whatever the rules say. */
function unchecked(ledger: Ledger, bundles: readonly SignedBundle[], at = time): Block {
  const { header: parent, hash } = ledger.head;
  const careless = newLedger();
  // A ledger at the same head that knows no session, so that nothing is out of sequence, cannot be had: alter a valid block instead.
  const valid = build(ledger, [], [fresh(parent.height + 1)], at).block;
  const leaves = bundles.flatMap((bundle) => bundle.leaves);
  const header = {
    ...valid.header,
    parent: hash,
    bodyHash: bodyHash(native.sha256, bundles),
    bundleCount: bundles.length,
    transactionCount: leaves.length,
    transactionTotal: parent.transactionTotal + leaves.length,
    transactionRoot: asHash(rootOf(leaves)),
    payloadBytes: bundles.reduce((sum, bundle) => sum + bundle.payload.length, 0),
    memberSetHash: careless.memberSetHash,
  };
  const logRoot = asHash(rootOf([...logLeaves(ledger), sha(concat(Uint8Array.of(0), logLeafData(header)))]));
  return withHeader({ ...header, logRoot }, bundles);
}

const histories = new WeakMap<Ledger, Bytes[]>();
const logLeaves = (ledger: Ledger) => histories.get(ledger) ?? [];

function apply(ledger: Ledger, bundles: readonly SignedBundle[]): Block {
  const { block } = build(ledger, [], bundles);
  ledger.apply(extended(ledger, [], block));
  histories.set(ledger, [...logLeaves(ledger), sha(concat(Uint8Array.of(0), logLeafData(block.header)))]);
  return block;
}

function withHeader(header: BlockHeader, bundles: readonly SignedBundle[]): Block {
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(native.sha256, headerBytes), bundles };
}

/** RFC 6962, section 2.1, as it is written there: the largest power of two below n to the left. */
function rootOf(leaves: readonly Bytes[]): Bytes {
  if (leaves.length === 0) return sha(new Uint8Array(0));
  if (leaves.length === 1) return leaves[0]!;
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return sha(concat(Uint8Array.of(1), rootOf(leaves.slice(0, k)), rootOf(leaves.slice(k))));
}

let names = 0;
/** A bundle of a client nobody has heard of. */
function fresh(validUntil = 60): SignedBundle {
  return new SimClient(genesis, `fresh-${names++}`).bundle([text('x')], { validUntil });
}

/** Empty blocks do not exist: a stranger's bundle moves the height. */
function advanceTo(ledger: Ledger, height: number): void {
  while (ledger.height < height) {
    apply(ledger, [fresh(ledger.height + 1)]);
    if (ledger.height % small.checkpointInterval === 0) ledger.checkpoint();
  }
}

// ---- blocks -----------------------------------------------------------------------------------------------------------

t.test('BLK-1: the hash of a block is the SHA-256 of its 256 bytes', async (t) => {
  const ledger = newLedger();
  const { block } = build(ledger, [], [fresh()]);
  t.equal(HEADER_BYTES, 256);
  t.equal(block.headerBytes.length, 256);
  t.ok(equalBytes(block.hash, sha(block.headerBytes)));
  t.strictSame(decodeHeader(block.headerBytes), block.header, 'and the bytes say what the header says');
  t.equal(decodeHeader(block.headerBytes.slice(1)), undefined);
});

t.test('BLK-2: every block names its parent, from the genesis block that everyone computes', async (t) => {
  const ledger = newLedger();
  const again = settingOf(4, small);
  t.ok(equalBytes(ledger.genesisBlock.hash, newLedger(again.genesis).genesisBlock.hash));
  const others = settingOf(4, { ...small, window: 3 }).genesis;
  t.notOk(equalBytes(ledger.genesisBlock.hash, newLedger(others).genesisBlock.hash), 'another document, another chain');
  t.strictSame([ledger.genesisBlock.header.height, ledger.genesisBlock.header.transactionTotal], [0, 0]);
  const first = build(ledger, [], [fresh()]);
  t.ok(equalBytes(first.block.header.parent, ledger.genesisBlock.hash));
  t.equal(first.block.header.height, 1);
  const second = build(ledger, [first], [fresh()]);
  t.ok(equalBytes(second.block.header.parent, first.block.hash));
  const wrong = [
    { parent: ledger.genesisBlock.hash },
    { height: asHeight(3) },
    { height: asHeight(1) },
    { parent: asHash(new Uint8Array(32)) },
  ];
  for (const change of wrong) {
    const block = withHeader({ ...second.block.header, ...change }, second.block.bundles);
    t.equal(refusal(ledger, [first], block), 'block-wrong-parent');
  }
  t.equal(refusal(ledger, [], second.block), 'block-wrong-parent', 'nothing stands on a block that is not there');
  t.throws(() => ledger.apply(second), InvariantViolation);
});

t.test('BLK-3: both roots are those of RFC 6962', async (t) => {
  const ledger = newLedger();
  const client = new SimClient(genesis, 'roots');
  const leaves: Bytes[] = [];
  for (let height = 1; height <= 9; height++) {
    const bundles = [1, 2, height].map((count) =>
      client.bundle(Array.from({ length: count }, (_, i) => text(`${height}-${i}`))),
    );
    const { block } = build(
      ledger,
      [],
      bundles.map((bundle) => ({ ...bundle, validUntil: asHeight(60) })),
    );
    const transactions = bundles.flatMap((bundle) => bundle.transactions);
    const expected = rootOf(transactions.map((transaction) => sha(concat(Uint8Array.of(0), transaction))));
    t.ok(equalBytes(block.header.transactionRoot, expected), `the transactions of block ${height}`);
    leaves.push(sha(concat(Uint8Array.of(0), logLeafData(block.header))));
    t.ok(equalBytes(block.header.logRoot, rootOf(leaves)), `the log with block ${height}`);
    const lie = { ...block.header, logRoot: asHash(sha(block.header.logRoot)) };
    t.equal(refusal(ledger, [], withHeader(lie, block.bundles)), 'block-log-root-wrong');
    ledger.apply(extended(ledger, [], block));
  }
});

t.test('BLK-4: time does not run back', async (t) => {
  const ledger = newLedger();
  const first = build(ledger, [], [fresh()]);
  const next = build(ledger, [first], [fresh()]).block;
  const at = (by: number) => withHeader({ ...next.header, time: asMillis(time + by) }, next.bundles);
  t.equal(refusal(ledger, [first], at(-1)), 'block-time-runs-back');
  t.not(refusal(ledger, [first], at(0)), 'block-time-runs-back', 'the same is enough');
  const early = build(ledger, [first], [fresh()], asMillis(time - 1000));
  t.equal(early.block.header.time, time, "a primary whose clock is behind takes its parent's time");
});

t.test('BLK-5: the header commits to the body, and the limits hold', async (t) => {
  const ledger = newLedger();
  const bundles = [fresh(), fresh(), fresh()];
  const { block } = build(ledger, [], bundles);
  const context = { sha256: native.sha256, parameters: genesis.parameters };
  const verdict = (of: Block, body = of.bundles) => {
    const stored = decodeStoredBlock({ header: of.headerBytes, body: encodeBody(body) }, context);
    return isRefusal(stored) ? `${stored.refused} ${stored.field}` : 'ok';
  };
  t.equal(verdict(block), 'ok');
  t.ok(equalBytes(encodeStoredBlock(block).body, encodeBody(bundles)));
  const [a, b, c] = bundles;
  t.equal(verdict(block, [b!, a!, c!]), 'block-body-mismatch bodyHash', 'order');
  t.equal(verdict(block, [a!, b!]), 'block-body-mismatch bundleCount');
  t.equal(
    verdict(block, [a!, b!, { ...c!, signature: new Uint8Array(64) }]),
    'block-body-mismatch bodyHash',
    'signature',
  );
  const change = (header: Partial<BlockHeader>) => verdict(withHeader({ ...block.header, ...header }, bundles));
  t.equal(change({ bundleCount: 2 }), 'block-body-mismatch bundleCount');
  t.equal(change({ transactionCount: 2 }), 'block-body-mismatch transactionCount');
  t.equal(change({ transactionCount: 4 }), 'block-body-mismatch transactionCount');
  t.equal(change({ payloadBytes: block.header.payloadBytes + 1 }), 'block-body-mismatch payloadBytes');
  t.equal(change({ transactionRoot: asHash(new Uint8Array(32)) }), 'block-body-mismatch transactionRoot');
  const total = { ...block.header, transactionTotal: block.header.transactionTotal + 1 };
  t.equal(refusal(ledger, [], withHeader(total, bundles)), 'block-totals-wrong');

  const tight = settingOf(4, { ...small, blockBundlesMax: 2 }).genesis;
  const limited = newLedger(tight);
  const clients = [1, 2, 3].map((i) => new SimClient(tight, `tight-${i}`).bundle([text('x')], { validUntil: 60 }));
  t.not(refusal(limited, [], build(limited, [], clients.slice(1)).block), 'block-too-large');
  t.equal(refusal(limited, [], build(limited, [], clients).block), 'block-too-large', 'one bundle too many');
  const large = Array.from({ length: 3 }, (_, i) =>
    new SimClient(genesis, `large-${i}`).bundle([new Uint8Array(131_000), new Uint8Array(131_000)], {
      validUntil: 60,
    }),
  );
  t.equal(refusal(ledger, [], build(ledger, [], large).block), 'block-too-large', 'one byte too many');
});

t.test('BLK-8: a block of tiny transactions holds as many as its bytes allow at 32 each, or a bundle', async (t) => {
  const tiny = (count: number, parameters: { blockBytesMax: number; bundleTransactionsMax: number }) => {
    const { genesis } = settingOf(4, { ...small, bundleBytesMax: 1024, transactionBytesMax: 700, ...parameters });
    const one = (_: unknown, i: number) =>
      new SimClient(genesis, `tiny-${i}`).bundle(
        Array.from({ length: 8 }, () => text('x')),
        { validUntil: 60 },
      );
    const ledger = newLedger(genesis);
    const bundles = Array.from({ length: count / 8 }, one);
    const { block } = build(ledger, [], bundles);
    const context = { sha256: native.sha256, parameters: genesis.parameters };
    const stored = decodeStoredBlock({ header: block.headerBytes, body: encodeBody(bundles) }, context);
    return [refusal(ledger, [], block), isRefusal(stored) ? stored.field : 'ok'];
  };
  const refused = ['block-too-large', 'block.transactionCount'];
  const bytes = { blockBytesMax: 2048, bundleTransactionsMax: 8 };
  t.strictSame(tiny(64, bytes), ['accepted', 'ok'], '2048 / 32');
  t.strictSame(tiny(72, bytes), refused);
  const large = { blockBytesMax: 1024, bundleTransactionsMax: 40 };
  t.strictSame(tiny(40, large), ['accepted', 'ok'], 'what one bundle may hold');
  t.strictSame(tiny(48, large), refused);
});

t.test('BLK-6: a block holds at least one bundle', async (t) => {
  const ledger = newLedger();
  const { header } = build(ledger, [], [fresh()]).block;
  t.equal(refusal(ledger, [], withHeader(header, [])), 'block-empty');
  t.equal(ledger.build([], { bundles: [], time, proposer }), null, 'and nobody builds another one');
});

// ---- sessions ---------------------------------------------------------------------------------------------------------

t.test('SES-1: the last sequence plus one, from 1', async (t) => {
  const ledger = newLedger();
  const client = new SimClient(genesis, 'sequence');
  const at = (sequence: number) => client.bundle([text(`s${sequence}`)], { sequence, validUntil: 30 });
  const verdict = (...sequences: number[]) => refusal(ledger, [], unchecked(ledger, sequences.map(at)));
  t.equal(verdict(2), 'block-bundle-out-of-sequence', 'a new session starts at 1');
  t.equal(verdict(1), 'accepted');
  t.equal(verdict(1, 2, 3), 'accepted');
  t.equal(verdict(1, 3), 'block-bundle-out-of-sequence', 'no gap');
  t.equal(verdict(1, 1), 'block-bundle-out-of-sequence', 'no repetition');
  t.equal(verdict(2, 1), 'block-bundle-out-of-sequence', 'in order');
  apply(ledger, [at(1), at(2)]);
  for (const sequence of [1, 2, 4]) t.equal(verdict(sequence), 'block-bundle-out-of-sequence', `${sequence} after 2`);
  t.equal(verdict(3), 'accepted');
  const twin = new SimClient(genesis, 'sequence', 2).bundle([text('x')], { validUntil: 30 });
  t.equal(refusal(ledger, [], unchecked(ledger, [twin])), 'accepted', 'another session counts for itself');
  t.equal(ledger.build([], { bundles: [at(2)], time, proposer }), null, 'and no primary proposes it');
});

t.test('REQ-5: a primary leaves out what would make its block invalid, and nothing else', async (t) => {
  const ledger = newLedger();
  const client = new SimClient(genesis, 'picky');
  const at = (sequence: number, validUntil = 30) => client.bundle([text(`s${sequence}`)], { sequence, validUntil });
  const others = [fresh(), fresh()];
  const candidates = [at(2), others[0]!, at(1), at(1), at(3), fresh(0), at(2, 29), fresh(66), others[1]!];
  const { block } = build(ledger, [], candidates);
  t.strictSame(
    block.bundles.map((bundle) => candidates.indexOf(bundle)),
    [1, 2, 6, 8],
  );
  t.equal(refusal(ledger, [], block), 'accepted');
});

t.test('SES-2: a bundle stands between valid-until minus the horizon and valid-until', async (t) => {
  const ledger = newLedger();
  advanceTo(ledger, 9);
  const verdict = (validUntil: number) => refusal(ledger, [], unchecked(ledger, [fresh(validUntil)]));
  t.equal(verdict(9), 'block-bundle-out-of-date');
  t.equal(verdict(10), 'accepted', 'at its last height');
  t.equal(verdict(74), 'accepted', 'at its first one');
  t.equal(verdict(75), 'block-bundle-out-of-date');
});

t.test('SES-3: a session is forgotten when none of its bundles can stand any more, and not before', async (t) => {
  const ledger = newLedger();
  const client = new SimClient(genesis, 'forgotten');
  const first = client.bundle([text('first')], { validUntil: 20 });
  const second = client.bundle([text('second')], { validUntil: 12 });
  apply(ledger, [first, second]);
  const sequence = (height: number) => ledger.nextSequence([], first, asHeight(height));
  t.equal(sequence(20), 3, "remembered at the highest valid-until of its bundles, not the last one's");
  t.equal(sequence(21), 1, 'and a new one from there');
  advanceTo(ledger, 19);
  t.equal(
    refusal(ledger, [], unchecked(ledger, [first])),
    'block-bundle-out-of-sequence',
    'a replay at its last height',
  );
  const third = client.bundle([text('third')], { sequence: 3, validUntil: 20 });
  t.equal(refusal(ledger, [], unchecked(ledger, [third])), 'accepted');
  advanceTo(ledger, 20);
  t.equal(refusal(ledger, [], unchecked(ledger, [first])), 'block-bundle-out-of-date', 'and one after it');
  const anew = client.bundle([text('anew')], { sequence: 1, validUntil: 40 });
  t.equal(refusal(ledger, [], unchecked(ledger, [anew])), 'accepted', 'a new life of the session');
  t.equal(ledger.session([], first, asHeight(20))?.lastSequence, 2, 'kept in the table until a checkpoint');
  advanceTo(ledger, 32);
  const kept = ledger.sessionCount;
  ledger.checkpoint();
  t.equal(ledger.sessionCount, kept);
  t.equal(ledger.session([], first, asHeight(20)), undefined, 'which forgets it');
});

t.test('SES-5: a full bucket takes no new session, on every replica alike', async (t) => {
  const parameters = { ...small, blockBundlesMax: 2048, checkpointInterval: 16 };
  const crowded = settingOf(4, parameters).genesis;
  const owner = new SimClient(crowded, 'crowd').key;
  const template = new SimClient(crowded, 'crowd').bundle([text('x')], { validUntil: 40 });
  // Nobody checks a client's signature here, so that one bundle serves for many sessions.
  const sessions: SignedBundle[] = [];
  for (let session = 1; sessions.length < BUCKET_SESSIONS_MAX + 2; session++) {
    const bundle = { ...template, session, client: owner.publicKey };
    if (bucketOf(native.sha256, bundle) === 7) sessions.push(bundle);
  }
  const ledger = newLedger(crowded);
  const chain: Extension[] = [];
  for (let from = 0; from < BUCKET_SESSIONS_MAX; from += 1024) {
    const extension = build(ledger, chain, sessions.slice(from, from + 1024));
    chain.push(extended(ledger, chain, extension.block));
  }
  const [one, two] = sessions.slice(BUCKET_SESSIONS_MAX);
  const elsewhere = { ...template, client: new SimClient(crowded, 'other').key.publicKey, validUntil: asHeight(60) };
  t.not(bucketOf(native.sha256, elsewhere), 7);
  const next = (on: readonly Extension[], bundle: SignedBundle) => {
    const parent = on.at(-1)?.block ?? ledger.head;
    const body = build(ledger, on, [elsewhere]).block;
    const block = withHeader({ ...body.header, parent: parent.hash }, [bundle]);
    const verdict = refusal(ledger, on, block);
    return verdict === 'block-log-root-wrong' ? 'accepted' : verdict; // the body is another one: all else was checked before
  };
  const known = { ...sessions[0]!, sequence: 2 };
  t.equal(next(chain, one!), 'block-sessions-full', 'above an undecided chain');
  t.equal(next(chain, elsewhere), 'accepted', 'another part has room');
  t.equal(next(chain, known), 'accepted', 'a session that is there goes on');
  t.equal(next(chain.slice(0, 3), one!), 'accepted');
  t.equal(build(ledger, chain.slice(0, 3), sessions.slice(3072)).block.bundles.length, 1024, 'within one block, too');
  for (const extension of chain) ledger.apply(extension);
  t.equal(next([], two!), 'block-sessions-full', 'and above a decided one');
  t.ok(ledger.isSessionTableFull(two!, asHeight(5)));
  t.notOk(ledger.isSessionTableFull(elsewhere, asHeight(5)));

  // Sessions that expired make room only as of the last checkpoint: a replica that keeps them longer gives the same verdict.
  let height = ledger.height as number;
  const stranger = (i: number) => {
    const one = { ...elsewhere, session: 100 + i, validUntil: asHeight(i) };
    while (bucketOf(native.sha256, one) === 7) one.session += 1000;
    return one;
  };
  while (height < 47) ledger.apply(build(ledger, [], [stranger(++height)]));
  const restored = newLedger(crowded);
  t.equal(next([], { ...two!, validUntil: asHeight(60) }), 'block-sessions-full', 'expired at 40, last checkpoint 32');
  ledger.apply(build(ledger, [], [stranger(48)]));
  t.equal(next([], { ...two!, validUntil: asHeight(60) }), 'accepted', 'forgotten at 48');
  const { changed } = ledger.checkpoint();
  const chunks = new Map(changed.map(({ chunk, bytes }) => [chunk, bytes]));
  restored.restore(ledger.head.header, ledger.head.hash, chunks);
  t.equal(restored.isSessionTableFull(two!, asHeight(49)), false);
  t.ok(restored.sessionCount < 10, 'the table is as small again');
});

// ---- properties -------------------------------------------------------------------------------------------------------

interface Move {
  readonly client: number;
  readonly session: number;
  readonly transactions: number;
  readonly lasts: number;
}

const moves = fc.array(
  fc.array(
    fc.record({
      client: fc.nat(3),
      session: fc.nat(2),
      transactions: fc.integer({ min: 1, max: 3 }),
      lasts: fc.integer({ min: 0, max: 40 }),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  { minLength: 1, maxLength: 40 },
);
const keys = [0, 1, 2, 3].map((i) => new SimClient(genesis, `property-${i}`));

/** The bundles of a block, in sequence on top of this chain. Signed by nobody: the ledger does not ask. */
function bundlesOf(ledger: Ledger, chain: readonly Extension[], block: readonly Move[]): SignedBundle[] {
  const height = asHeight(ledger.height + chain.length + 1);
  const taken = new Map<string, number>();
  return block.map(({ client, session, transactions, lasts }, index) => {
    const named = { client: keys[client]!.key.publicKey, session };
    const key = sessionKey(named);
    const data = Array.from({ length: transactions }, (_, i) => text(`${height}/${index}/${i}`));
    const maker = new SimClient(genesis, `property-${client}`, session);
    const draft = maker.bundle(data, { sequence: 1, validUntil: height + lasts });
    const sequence = taken.get(key) ?? ledger.nextSequence(chain, draft, height);
    taken.set(key, sequence + 1);
    return maker.bundle(data, { sequence, validUntil: height + lasts });
  });
}

const copyOf = (block: Block): Block => {
  const context = { sha256: native.sha256, parameters: genesis.parameters };
  const decoded = decodeStoredBlock(encodeStoredBlock(block), context);
  if (isRefusal(decoded)) throw new Error(decoded.refused);
  return decoded;
};

t.test('SES-4, BLK-2: build and extend agree; a chain of undecided blocks says what decided ones say', async (t) => {
  fc.assert(
    fc.property(moves, fc.nat(6), (blocks, depth) => {
      const [writer, reader] = [newLedger(), newLedger()];
      const chain: Extension[] = [];
      for (const move of blocks) {
        const built = build(writer, chain, bundlesOf(writer, chain, move));
        chain.push(built);
        // The reader has decided everything; the writer keeps up to `depth` blocks undecided.
        reader.apply(extended(reader, [], copyOf(built.block)));
        if (chain.length > depth) writer.apply(chain.shift()!);
        const probe = bundlesOf(reader, [], move);
        const next = build(reader, [], probe).block;
        if (refusal(writer, chain, next) !== 'accepted') return false;
        const replay = withHeader({ ...next.header }, built.block.bundles);
        if (refusal(writer, chain, replay) !== refusal(reader, [], replay)) return false;
      }
      for (const extension of chain) writer.apply(extension);
      return equalBytes(writer.checkpoint().stateDigest, reader.checkpoint().stateDigest);
    }),
    { seed: 11, numRuns: 25 },
  );
  t.pass('over random histories');
});

t.test('SES-4, SES-3: a state restored from its chunks is the same state', async (t) => {
  fc.assert(
    fc.property(moves, fc.integer({ min: 1, max: 40 }), (blocks, at) => {
      const ledger = newLedger();
      const chunks = new Map<number, Bytes>();
      let restored: Ledger | null = null;
      for (const [index, move] of blocks.entries()) {
        const { block } = build(ledger, [], bundlesOf(ledger, [], move));
        if (restored !== null && refusal(restored, [], block) !== 'accepted') return false;
        for (const one of [ledger, restored]) if (one !== null) one.apply(extended(one, [], copyOf(block)));
        if (ledger.height % 4 === 0 || index + 1 === at) {
          const { stateDigest, logRoot, changed } = ledger.checkpoint();
          for (const { chunk, bytes } of changed) chunks.set(chunk, bytes);
          if (!equalBytes(logRoot, block.header.logRoot)) return false;
          if (restored !== null) {
            if (!equalBytes(restored.checkpoint().stateDigest, stateDigest)) return false;
          } else if (index + 1 >= at) {
            restored = newLedger();
            restored.restore(ledger.head.header, ledger.head.hash, chunks);
            if (!equalBytes(restored.stateDigest, stateDigest)) return false;
            if (restored.sessionCount !== ledger.sessionCount) return false;
          }
        }
      }
      return true;
    }),
    { seed: 12, numRuns: 25 },
  );
  t.equal(STATE_CHUNKS, 1 + SESSION_BUCKETS);
  const ledger = newLedger();
  const digest = toHex(ledger.checkpoint().stateDigest);
  apply(ledger, [fresh()]);
  t.not(toHex(ledger.checkpoint().stateDigest), digest, 'and another state has another digest');
  const receipt: Session | undefined = ledger.session([], { ...fresh(), client: new Uint8Array(32) }, asHeight(1));
  t.equal(receipt, undefined);
});

t.test('SES-4: the digest does not remember in which order sessions came', async (t) => {
  // Two sessions of one bucket, the first one too, opened against the order of their keys.
  const inFirst: SignedBundle[] = [];
  for (let i = 0; inFirst.length < 2; i++) {
    const bundle = new SimClient(genesis, `order-${i}`).bundle([text('x')], { validUntil: 40 });
    if (bucketOf(native.sha256, bundle) === 0) inFirst.push(bundle);
  }
  const [low, high] = inFirst.sort((a, b) => (toHex(a.client) < toHex(b.client) ? -1 : 1));
  const ledger = newLedger();
  for (const bundle of [high!, low!]) apply(ledger, [bundle]);
  const { changed } = ledger.checkpoint();
  const written = changed.find(({ chunk }) => chunk === 1)!.bytes;
  t.ok(equalBytes(written.subarray(0, 32), low!.client), 'by key, whoever came first');
  const restored = newLedger();
  restored.restore(ledger.head.header, ledger.head.hash, new Map(changed.map(({ chunk, bytes }) => [chunk, bytes])));
  t.equal(restored.sessionCount, 2);
  const { block } = build(ledger, [], [{ ...high!, sequence: 2 }]);
  for (const one of [ledger, restored]) one.apply(extended(one, [], block));
  t.ok(equalBytes(restored.checkpoint().stateDigest, ledger.checkpoint().stateDigest));

  // What is forgotten leaves its chunk, or who restores the state remembers it for ever.
  const cleared = newLedger();
  apply(cleared, [low!]);
  cleared.checkpoint();
  for (let height = 2; height <= 41; height++) apply(cleared, [fresh(height)]);
  const forgotten = cleared.checkpoint().changed.find(({ chunk }) => chunk === 1);
  t.equal(forgotten?.bytes.length, 0);
});

// ---- quorums and votes --------------------------------------------------------------------------------------------------

t.test('PBFT-Q-1: sizes for any n from 4 up', async (t) => {
  const wrong: number[] = [];
  for (let n = 4; n <= 128; n++) {
    const { f, quorum, oneHonest } = byzantineQuorums(n);
    const mostFaulty = 3 * f < n && 3 * (f + 1) >= n;
    const overlap = 2 * quorum - n > f;
    const alive = quorum <= n - f;
    const smallest = 2 * (quorum - 1) - n <= f;
    if (!mostFaulty || !overlap || !alive || !smallest || oneHonest !== f + 1) wrong.push(n);
  }
  t.strictSame(wrong, []);
  t.strictSame(
    [4, 5, 6, 7, 10, 13].map((n) => byzantineQuorums(n).quorum),
    [3, 4, 4, 5, 7, 9],
  );
  for (const n of [0, 1, 3, 129, 4.5]) t.throws(() => byzantineQuorums(n), InvariantViolation, `${n}`);
});

t.test('PBFT-P-2, PBFT-P-3: votes are counted once, by replica and hash', async (t) => {
  const hash = (i: number) => asHash(new Uint8Array(32).fill(i));
  const signature = (i: number) => new Uint8Array(64).fill(i);
  for (let n = 4; n <= 40; n++) {
    const quorums = byzantineQuorums(n);
    const votes = new VoteBox(epoch, quorums);
    const height = asHeight(1);
    const add = (id: number, h = 1) => votes.add('prepare', height, hash(h), asReplicaId(id), signature(id));
    // f faulty ones vote twice, for another hash first.
    for (let id = 0; id < quorums.f; id++) add(id, 2);
    const verdicts = Array.from({ length: quorums.f }, (_, id) => add(id));
    const honest = Array.from({ length: quorums.quorum - 1 }, (_, i) => n - 1 - i);
    for (const id of honest) add(id);
    const repeated = honest.map((id) => add(id));
    const early = votes.certificate('prepare', asView(3), height, hash(1));
    const last = n - quorums.quorum;
    if (last < quorums.f) t.fail(`n = ${n}: the honest are too few`);
    add(last);
    const certificate = votes.certificate('prepare', asView(3), height, hash(1));
    const signers = certificate?.signatures.map(({ replica }) => Number(replica)) ?? [];
    const rising = signers.every((id, i) => i === 0 || id > signers[i - 1]!);
    t.ok(
      verdicts.every((verdict) => verdict === 'conflicting') &&
        repeated.every((verdict) => verdict === 'repeated') &&
        early === undefined &&
        signers.length === quorums.quorum &&
        rising &&
        votes.certificate('commit', asView(3), height, hash(1)) === undefined &&
        votes.certificate('prepare', asView(3), asHeight(2), hash(1)) === undefined,
      `n = ${n}`,
    );
    t.ok(equalBytes(votes.quorumHash('prepare', height) ?? hash(9), hash(1)));
    t.ok(certificate?.signatures.every(({ replica, signature: s }) => equalBytes(s, signature(replica))));
    votes.forgetUpTo(height);
    t.strictSame(votes.heights(), []);
  }
});

t.test('PBFT-P-3: a tally holds one value for each replica', async (t) => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(6), fc.constantFrom('a', 'b', 'c'))), (said) => {
      const tally = new Tally<number>();
      const model = new Map<number, [string, number]>();
      for (const [index, [id, key]] of said.entries()) {
        tally.set(asReplicaId(id), key, index);
        model.set(id, [key, index]);
      }
      return ['a', 'b', 'c'].every((key) => {
        const expected = [...model].filter(([, [k]]) => k === key).sort(([x], [y]) => x - y);
        const found = tally.withKey(key) as [ReplicaId, number][];
        return (
          found.length === expected.length &&
          found.every(([id, v], i) => id === expected[i]![0] && v === expected[i]![1][1])
        );
      });
    }),
    { seed: 13, numRuns: 100 },
  );
  t.pass('over random votes');
});
