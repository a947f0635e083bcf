// `synod audit`, `synod evidence` and evidence under `synod verify`: forged forks by more than f colluding keys, whom they name and
// whom they do not; and a real replica that sees a member sign two votes.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { ChainFileWriter } from '../daemon/cli/chain-file.ts';
import { createNetwork, localReplicas } from '../daemon/cli/network-files.ts';
import { encodeEpochsFile } from '../daemon/epochs-file.ts';
import { Transport } from '../daemon/transport/peers.ts';
import { decodeWitness, encodeWitness, readWitness } from '../daemon/witness-file.ts';
import { signBytes } from '../keys/keypair.ts';
import { loadKey } from '../keys/keystore.ts';
import type { Block } from '../protocol/block.ts';
import { type Certificate, type VotePhase, voteSigningBytes } from '../protocol/certificate.ts';
import { encodeFrame, encodePayload, frameSigningBytes, type Kind } from '../protocol/codec.ts';
import { type Extension, Ledger } from '../protocol/ledger.ts';
import type { ReplicaMessage, Signed, ViewChange, Vote } from '../protocol/messages.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { Audit, encodeEvidence, evidenceOf, signingBytes, verifyEvidence } from '../protocol/verify.ts';
import { SimClient } from '../sim/clients.ts';
import { settingOf } from '../sim/setting.ts';
import { adding, EpochWorld, replicaKey } from './epoch-world.ts';
import { program, type Run, synod } from './program.ts';

const epoch = asEpoch(0);

t.setTimeout(230_000);

// ---- forged chains --------------------------------------------------------------------------------------------------------

/** All keys of a network in one hand, and a directory with its genesis document. */
class Forger {
  readonly directory: string;
  readonly network: ReturnType<typeof settingOf>;
  readonly #ledger: Ledger;

  constructor(directory: string, n = 4) {
    this.directory = directory;
    mkdirSync(directory, { recursive: true });
    this.network = settingOf(n);
    this.#ledger = new Ledger({ sha256: native.sha256, genesis: this.network.genesis, epoch });
    writeFileSync(this.path('genesis.json'), this.network.document);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Blocks on top of a chain, one for each name. */
  grow(chain: readonly Extension[], ...names: string[]): Extension[] {
    const grown = [...chain];
    for (const name of names) {
      const bundles = [new SimClient(this.network.genesis, name).bundle([Buffer.from(name)])];
      const time = asMillis(1_700_000_000_000 + grown.length);
      grown.push(this.#ledger.build(grown, { bundles, time, proposer: asReplicaId(0) })!);
    }
    return grown;
  }

  certificate(
    { header, hash }: Block,
    view: number,
    signers: readonly number[],
    phase: VotePhase = 'commit',
  ): Certificate {
    const place = { phase, epoch, view: asView(view), height: header.height, hash };
    const bytes = voteSigningBytes(this.network.genesis.chainId, place);
    const signatures = signers.map((id) => ({
      replica: asReplicaId(id),
      signature: this.network.keys[id]!.sign(bytes),
    }));
    return { ...place, signatures };
  }

  /** A chain file; `certificates` by height. */
  async chain(
    name: string,
    chain: readonly Extension[],
    certificates: Readonly<Record<number, Certificate>>,
    from = 1,
  ): Promise<string> {
    const file = await ChainFileWriter.create(this.path(name), this.network.genesis);
    for (const { block } of chain.slice(from - 1))
      await file.append({ ...block, certificate: certificates[block.header.height] ?? null });
    await file.commit();
    return this.path(name);
  }

  signed<M extends ReplicaMessage>(sender: number, message: M): Signed<M> {
    const payload = encodePayload(message);
    const bytes = signingBytes(this.network.genesis.chainId, message, payload);
    return { sender: asReplicaId(sender), message, payload, signature: this.network.keys[sender]!.sign(bytes) };
  }

  /** A witness file with the new-view that a primary makes of these view-changes. */
  newView(name: string, view: number, asking: readonly (readonly [number, Certificate | null])[]): string {
    const viewChanges = asking.map(([id, prepared]) =>
      this.signed<ViewChange>(id, { kind: 'view-change', epoch, view: asView(view), commit: null, prepared }),
    );
    const primary = view % this.network.keys.length;
    const { message, payload, signature } = this.signed(primary, {
      kind: 'new-view',
      epoch,
      view: asView(view),
      viewChanges,
    });
    const sender = this.network.keys[primary]!.publicKey;
    const bytes = encodeFrame({ kind: message.kind, payload, sender, signature });
    writeFileSync(this.path(name), encodeWitness(this.network.genesis.chainId, [{ sort: 'frame', bytes }]));
    return this.path(name);
  }

  async audit(...args: string[]): Promise<Run & { readonly json: Report }> {
    const run = await synod(['audit', ...args, '--genesis', this.path('genesis.json'), '--json']);
    return { ...run, json: run.stdout === '' ? null : JSON.parse(run.stdout) };
  }

  words(...args: string[]): Promise<Run> {
    return synod(['audit', ...args, '--genesis', this.path('genesis.json')]);
  }
}

// The cast of JSON.parse: what a test reads of it, it checks.
interface Report {
  readonly verdict: string;
  readonly fork: { readonly height: number; readonly branches: readonly { readonly view: number }[] } | null;
  readonly culprits: readonly { readonly name: string; readonly proofs: readonly { readonly offence: string }[] }[];
  readonly needs: readonly Readonly<Record<string, unknown>>[];
}
const named = ({ culprits }: Report) => culprits.map(({ name, proofs }) => `${name} ${proofs[0]?.offence}`);

t.test('EVD-5: a fork in one view names whoever is in both certificates: f+1 at least', async (t) => {
  const forger = new Forger(t.testdir());
  const trunk = forger.grow([], 'a', 'b');
  const [left, right] = [forger.grow(trunk, 'c', 'd'), forger.grow(trunk, 'e', 'f')];
  const shared = { 2: forger.certificate(trunk[1]!.block, 3, [0, 1, 2]) };
  const at = (chain: Extension[], height: number, view: number, signers: number[]) =>
    forger.certificate(chain[height - 1]!.block, view, signers);
  const a = await forger.chain('a.chain', left, { ...shared, 4: at(left, 4, 3, [0, 1, 2]) });
  const b = await forger.chain('b.chain', right, { ...shared, 4: at(right, 4, 3, [1, 2, 3]) });
  const { code, json } = await forger.audit(a, b);
  t.equal(code, 5);
  t.match(json, { verdict: 'guilty', fork: { height: 3 }, needs: [] });
  t.strictSame(named(json), ['node-1 two-commits', 'node-2 two-commits']);
  const proofs = forger.path('guilty.witness');
  const words = await forger.words(a, b, '--out', proofs);
  t.equal(words.code, 5);
  t.match(
    words.stdout,
    /the chains fork at height 3:\n.*\n {4}decided at height 4 in view 3 by node-0, node-1, node-2\n/,
  );
  t.match(words.stdout, /node-1 signed commits of two blocks for height 4 in view 3\n/);
  t.match(words.stdout, /2 of 4 members are named; f is 1, and a fork takes at least 2\n$/);
  const verified = await synod(['verify', proofs, '--genesis', forger.path('genesis.json')]);
  t.match(verified, { code: 0, stderr: '' });
  t.match(verified.stdout, /^proved, .*\n {2}node-1 signed commits of two blocks.*\n {2}node-2 signed commits/);
  t.match(await forger.words(a, b, '--out', proofs), { code: 2, stderr: /\[usage\]/ }, 'never overwritten');

  // The same from higher up, and with a third file that agrees with one of them.
  const part = await forger.chain('part.chain', right, { 4: at(right, 4, 3, [1, 2, 3]) }, 3);
  t.match(await forger.audit(a, part), { code: 5, json: { fork: { height: 3 } } });
  t.match((await forger.audit(a, part, b)).json.fork!.branches.length, 2);

  // Seven members, f = 2: three at least.
  const seven = new Forger(forger.path('seven'), 7);
  const [x, y] = [seven.grow([], 'x'), seven.grow([], 'y')];
  const x7 = await seven.chain('x.chain', x, { 1: seven.certificate(x[0]!.block, 0, [0, 1, 2, 3, 4]) });
  const y7 = await seven.chain('y.chain', y, { 1: seven.certificate(y[0]!.block, 0, [2, 3, 4, 5, 6]) });
  t.strictSame(
    (await seven.audit(x7, y7)).json.culprits.map(({ name }) => name),
    ['node-2', 'node-3', 'node-4'],
  );
});

t.test('EVD-5: a fork over a view change needs the new-views, and names with them who hid a commit', async (t) => {
  const forger = new Forger(t.testdir());
  const [left, right] = [forger.grow([], 'c'), forger.grow([], 'e', 'f')];
  const a = await forger.chain('a.chain', left, { 1: forger.certificate(left[0]!.block, 1, [0, 1, 2]) });
  const b = await forger.chain('b.chain', right, { 2: forger.certificate(right[1]!.block, 3, [1, 2, 3]) });
  const without = await forger.audit(a, b);
  t.equal(without.code, 6);
  t.match(without.json, { verdict: 'too-few', culprits: [] });
  t.strictSame(without.json.needs, [{ what: 'new-views', epoch: 0, from: 2, to: 3, given: [] }]);
  const words = await forger.words(a, b);
  t.match(
    words.stdout,
    /0 of 4 members can be named; a fork takes at least 2. To name them:\n {2}who signed .* of views 2 to 3/,
  );

  // View 2 led nowhere; its view-changes show the commit. Those of view 3 do not.
  const prepared = forger.certificate(left[0]!.block, 1, [0, 1, 2], 'prepare');
  const two = forger.newView('two.witness', 2, [
    [0, prepared],
    [1, prepared],
    [3, null],
  ]);
  const more = await forger.audit(a, b, two);
  t.equal(more.code, 6, 'nobody is named for an honest view-change');
  t.strictSame(more.json.needs, [{ what: 'new-views', epoch: 0, from: 2, to: 3, given: [2] }]);
  const three = forger.newView('three.witness', 3, [
    [1, null],
    [2, null],
    [3, null],
  ]);
  const { code, json } = await forger.audit(a, b, two, three);
  t.equal(code, 5);
  t.strictSame(named(json), ['node-1 commit-denied', 'node-2 commit-denied'], 'node-3 signed no commit of view 1');

  // One of the two shows it: that one is not guilty, and one alone makes no fork.
  const half = forger.newView('half.witness', 3, [
    [1, prepared],
    [2, null],
    [3, null],
  ]);
  const some = await forger.audit(a, b, two, half);
  t.equal(some.code, 6);
  t.strictSame(named(some.json), ['node-2 commit-denied']);
  const said = await forger.words(a, b, two, half);
  t.match(said.stdout, /1 of 4 members can be named.*\n.*at hand: 2, 3, which do not lead to the later block/);
});

t.test('EVD-5: a fork in one view, by votes that never meet at one height', async (t) => {
  const forger = new Forger(t.testdir());
  const names = (of: string, count: number) => Array.from({ length: count }, (_, i) => `${of}${i}`);
  const [left, right] = [forger.grow([], 'c'), forger.grow([], ...names('e', 65))];
  const a = await forger.chain('a.chain', left, { 1: forger.certificate(left[0]!.block, 1, [0, 1, 2]) });
  // As far above the fork as a chain file allows.
  for (const height of [2, 40, 65]) {
    const certificates = { [height]: forger.certificate(right[height - 1]!.block, 1, [1, 2, 3]) };
    const b = await forger.chain(`${height}.chain`, right.slice(0, height), certificates);
    const { code, json } = await forger.audit(a, b);
    t.equal(code, 5);
    t.strictSame(named(json), ['node-1 two-chains', 'node-2 two-chains'], `${height}`);
  }
  const proofs = forger.path('guilty.witness');
  t.equal((await forger.words(a, forger.path('65.chain'), '--out', proofs)).code, 5);
  const alone = await forger.audit(proofs);
  t.equal(alone.code, 5, 'the pieces stand without the chains');
  t.strictSame(named(alone.json), ['node-1 two-chains', 'node-2 two-chains']);
  const verified = await synod(['verify', proofs, '--genesis', forger.path('genesis.json')]);
  t.match(verified, {
    code: 0,
    stdout: /node-1 voted for two chains in view 1, which have parted at height 1 or below/,
  });
});

t.test('EVD-5: a view-change that shows another chain of the same view, against the commits', async (t) => {
  const forger = new Forger(t.testdir());
  const [left, right] = [forger.grow([], 'c'), forger.grow([], 'e', 'f')];
  const a = await forger.chain('a.chain', left, { 1: forger.certificate(left[0]!.block, 1, [0, 1, 2]) });
  const b = await forger.chain('b.chain', right, { 2: forger.certificate(right[1]!.block, 2, [1, 2, 3]) });
  // Nobody hides the commit: there is a later certificate of view 1, for the other chain.
  const other = forger.certificate(right[1]!.block, 1, [1, 2, 3], 'prepare');
  const two = forger.newView('two.witness', 2, [
    [1, other],
    [2, other],
    [3, other],
  ]);
  const { code, json } = await forger.audit(a, b, two);
  t.equal(code, 5);
  t.strictSame(named(json), ['node-1 two-chains', 'node-2 two-chains']);
});

t.test('EVD-5: chains that agree, evidence alone, and files that do not hold', async (t) => {
  const forger = new Forger(t.testdir());
  const { genesis } = forger.network;
  const chain = forger.grow([], 'a', 'b');
  const certificate = forger.certificate(chain[1]!.block, 0, [0, 1, 2]);
  const a = await forger.chain('a.chain', chain, { 2: certificate });
  const b = await forger.chain('b.chain', chain, { 2: forger.certificate(chain[1]!.block, 4, [1, 2, 3]) });
  t.match(await forger.audit(a, b), { code: 0, json: { verdict: 'clean', fork: null, culprits: [] } });
  const clean = await forger.words(a, b);
  t.match(clean, { code: 0, stdout: /where they overlap they are one chain\nnothing is proved against anybody\n$/ });

  // Two statements in two files: neither of them alone is anything.
  const vote = (hash: number): Vote => ({
    kind: 'commit',
    epoch,
    view: asView(0),
    height: asHeight(9),
    hash: asHash(new Uint8Array(32).fill(hash)),
  });
  const statement = (name: string, hash: number): string => {
    const { payload, signature } = forger.signed(2, vote(hash));
    const sender = forger.network.keys[2]!.publicKey;
    const bytes = encodeFrame({ kind: 'commit', payload, sender, signature });
    writeFileSync(forger.path(name), encodeWitness(genesis.chainId, [{ sort: 'frame', bytes }]));
    return forger.path(name);
  };
  const [one, two] = [statement('one.witness', 1), statement('two.witness', 2)];
  t.match(await forger.audit(a, one), { code: 0, json: { verdict: 'clean' } });
  const both = await forger.audit(one, two);
  t.equal(both.code, 5);
  t.strictSame(named(both.json), ['node-2 two-commits']);
  const genesisArgs = ['--genesis', forger.path('genesis.json')];
  const alone = await synod(['verify', one, ...genesisArgs]);
  t.match(alone, {
    code: 0,
    stdout: /^no evidence against anybody in it, .*\nbeside it: 1 signed statements \(commit\)\n$/,
  });

  const broken = Buffer.from(readFileSync(one));
  broken[broken.length - 1]! ^= 1;
  writeFileSync(forger.path('broken.witness'), broken);
  t.match(await forger.audit(forger.path('broken.witness')), { code: 3, stdout: '', stderr: /\[signature-invalid\]/ });
  t.match(await synod(['verify', forger.path('broken.witness'), ...genesisArgs]), {
    code: 3,
    stderr: /not proved: .*record 1.*\[signature-invalid\]/,
  });
  t.match(await forger.audit(forger.path('genesis.json')), { code: 3, stderr: /\[audit-file-unknown\]/ });
  const other = new Forger(forger.path('other'), 7);
  t.match(await other.audit(one), { code: 3, stderr: /\[chain-mismatch\]/ });
  t.match(await other.audit(a), { code: 3, stderr: /\[chain-file-other-chain\]/ });
  const cut = readFileSync(a);
  writeFileSync(forger.path('cut.chain'), cut.subarray(0, -1));
  t.match(await forger.audit(b, forger.path('cut.chain')), { code: 3, stderr: /cut\.chain.*\[chain-file-malformed\]/ });
});

// ---- later epochs -----------------------------------------------------------------------------------------------------------

/** The blocks of a history from a height on, behind these links. */
async function lateChain(path: string, world: EpochWorld, from: number, links: readonly Uint8Array[]): Promise<string> {
  const file = await ChainFileWriter.create(path, world.genesis);
  for (const link of links) await file.link(link);
  for (const { block, certificate } of world.blocks.slice(from - 1)) await file.append({ ...block, certificate });
  await file.commit();
  return path;
}

t.test('EVD-5, EPO-11: a fork in a later epoch names members of that one, under their keys of that time', async (t) => {
  const directory = t.testdir();
  const path = (name: string) => join(directory, name);
  // b has another key in epoch 1, and there are five members: f is 1 and a quorum 4.
  const trunk = () => {
    const world = new EpochWorld();
    world.idle(2).end({
      changes: [adding('e'), { change: 'replace-replica-key', name: 'b', publicKey: replicaKey('b2').publicKey }],
      by: ['a', 'b', 'c'],
      joins: { e: 0, b2: 0 },
    });
    return world.idle(1);
  };
  const [left, right] = [trunk(), trunk()];
  left.idle(2);
  right.decide(right.bundle('another'));
  writeFileSync(path('genesis.json'), left.document);
  writeFileSync(path('net.epochs'), encodeEpochsFile(left.genesis.chainId, left.links));
  const audit = async (...args: string[]) => {
    const run = await synod(['audit', ...args, '--genesis', path('genesis.json'), '--json']);
    return { ...run, json: JSON.parse(run.stdout === '' ? 'null' : run.stdout) };
  };
  const a = await lateChain(path('a.chain'), left, 5, left.links);
  const b = await lateChain(path('b.chain'), right, 4, right.links);
  const { code, json } = await audit(a, b, '--out', path('guilty.witness'));
  t.equal(code, 5);
  t.match(json, { verdict: 'guilty', epoch: 1, f: 1, fork: { height: 5 } });
  const key = (name: string) => toHex(replicaKey(name).publicKey);
  t.strictSame(
    json.culprits.map((each: { epoch: number; name: string; publicKey: string }) => [
      each.epoch,
      each.name,
      each.publicKey,
    ]),
    [
      [1, 'a', key('a')],
      [1, 'b', key('b2')],
      [1, 'c', key('c')],
      [1, 'd', key('d')],
    ],
  );
  const words = await synod(['audit', a, b, '--genesis', path('genesis.json')]);
  t.match(words.stdout, /the chains fork at height 5, in epoch 1:/);
  t.match(words.stdout, new RegExp(`  b \\(epoch 1, key ${key('b2')}\\) signed commits of two blocks`));
  t.match(words.stdout, /4 of 5 members are named; f is 1, and a fork takes at least 2\n$/);
  // The proofs bring their epoch with them.
  const verified = await synod(['verify', path('guilty.witness'), '--genesis', path('genesis.json')]);
  t.match(verified, { code: 0, stdout: /b signed commits of two blocks/ });

  // Files without links need the file of epochs; whole archives need nothing.
  const bare = await lateChain(path('bare.chain'), right, 4, []);
  t.match(await audit(a, bare), { code: 3, stderr: /bare\.chain.*\[certificate-epoch\]/ });
  t.match(await audit(a, bare, '--epochs', path('net.epochs')), { code: 5, json: { fork: { height: 5 } } });
  const whole = await lateChain(path('whole.chain'), right, 1, []);
  t.match(await audit(a, whole), { code: 5, json: { epoch: 1, fork: { height: 5 } } });
  t.match(await audit(whole, bare, '--epochs', path('net.epochs')), {
    code: 0,
    json: { verdict: 'clean', fork: null },
  });
  // A witness of the later epoch without links holds by those of a chain file beside it.
  const pieces = decodeWitness(readFileSync(path('guilty.witness')), left.genesis.chainId);
  if ('refused' in pieces) return t.fail(pieces.refused);
  const records = pieces.filter(({ sort }) => sort !== 'link');
  writeFileSync(path('old.witness'), encodeWitness(left.genesis.chainId, records));
  t.match(await audit(path('old.witness')), { code: 3, stderr: /\[evidence-epoch\]/ });
  t.match(await audit(path('old.witness'), whole), {
    code: 5,
    json: { fork: null, culprits: [{ name: 'a', epoch: 1 }] },
  });
});

t.test('EVD-5, EPO-11: an epoch that ends twice is a fork, wherever the files begin', async (t) => {
  const directory = t.testdir();
  const path = (name: string) => join(directory, name);
  const by = ['a', 'b', 'c'];
  const ended = (before: number, name: string) => {
    const world = new EpochWorld();
    world.idle(before).end({ changes: [adding(name)], by, joins: { [name]: 0 } });
    return world.idle(6);
  };
  const [left, same, later] = [ended(2, 'e'), ended(2, 'f'), ended(3, 'f')];
  writeFileSync(path('genesis.json'), left.document);
  const audit = async (...args: string[]) => {
    const run = await synod(['audit', ...args, '--genesis', path('genesis.json'), '--json']);
    return { ...run, json: JSON.parse(run.stdout === '' ? 'null' : run.stdout) };
  };
  const names = (json: { culprits: { epoch: number; name: string }[] }) =>
    json.culprits.filter(({ epoch: when }) => when === 0).map(({ name }) => name);
  // No block in common: the links alone show it.
  const a = await lateChain(path('a.chain'), left, 8, left.links);
  const b = await lateChain(path('b.chain'), same, 5, same.links);
  const twice = await audit(a, b, '--out', path('guilty.witness'));
  t.match(twice, { code: 5, json: { epoch: 0, fork: { height: 3 } } });
  t.strictSame(names(twice.json), by);
  t.equal((await synod(['verify', path('guilty.witness'), '--genesis', path('genesis.json')])).code, 0);
  // At two heights in one view: what lies between is wanted, and names them.
  const c = await lateChain(path('c.chain'), later, 8, later.links);
  const between = await audit(a, c);
  t.match(between, { code: 6, json: { verdict: 'too-few', fork: { height: 3 } } });
  t.strictSame(between.json.needs, [{ what: 'blocks', epoch: 0, from: 3, to: 4 }]);
  const words = await synod(['audit', a, c, '--genesis', path('genesis.json')]);
  t.match(words.stdout, /give chain files that hold the blocks 3 to 4/);
  const wholeLater = await lateChain(path('later.chain'), later, 1, []);
  const named = await audit(a, wholeLater);
  t.match(named, { code: 5, json: { epoch: 0, fork: { height: 3 } } });
  t.strictSame(names(named.json), by);
  // One history goes on in epoch 1 where the other has ended it.
  const long = ended(2, 'e');
  const ending = new EpochWorld();
  ending.idle(2).end({ changes: [adding('e')], by, joins: { e: 0 } });
  ending.end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 4 }], by: [...by, 'd'] });
  ending.idle(5);
  const d = await lateChain(path('d.chain'), ending, 7, ending.links);
  const apart = await audit(d, await lateChain(path('part.chain'), long, 7, long.links));
  t.match(apart, { code: 6, json: { epoch: 1, needs: [{ what: 'blocks', epoch: 1 }] } });
  const met = await audit(d, await lateChain(path('long.chain'), long, 4, long.links));
  t.match(met, { code: 5, json: { epoch: 1, fork: { height: 4 } } });
  t.strictSame(
    met.json.culprits.map(({ name, epoch: when }: { name: string; epoch: number }) => `${name} ${when}`),
    ['a 1', 'b 1', 'c 1', 'd 1'],
  );
});

t.test('EVD-5: a pool of statements accuses nobody for what others have signed', async (t) => {
  const forger = new Forger(t.testdir());
  const { genesis } = forger.network;
  const chain = forger.grow([], 'a');
  const commit = forger.certificate(chain[0]!.block, 0, [0, 1, 2]);
  const audit = new Audit({ genesis, crypto: native });
  audit.certificate(commit);
  audit.certificate(commit);
  t.match(audit.report(null), { verdict: 'clean', culprits: [] });
  // A piece whose view-change carries a made-up certificate: what is inside counts for nobody.
  const rival = { ...forger.certificate(chain[0]!.block, 0, [3], 'commit'), hash: asHash(new Uint8Array(32).fill(7)) };
  const asking = (prepared: Certificate | null) =>
    forger.signed<ViewChange>(3, { kind: 'view-change', epoch, view: asView(2), commit: prepared, prepared: null });
  const [first, second] = [asking(null), asking({ ...rival, signatures: commit.signatures })];
  const piece = encodeEvidence(evidenceOf(genesis, first, second));
  const proven = verifyEvidence(piece, { genesis, crypto: native });
  if ('refused' in proven) return t.fail(proven.refused);
  audit.evidence(piece, proven);
  const { culprits } = audit.report(null);
  t.strictSame(
    culprits.map(({ member, proofs }) => [member.name, proofs.map(({ conflict }) => conflict.offence)]),
    [['node-3', ['two-view-changes']]],
  );
  t.strictSame(culprits[0]!.proofs[0]!.piece, piece);
});

// ---- a real replica ---------------------------------------------------------------------------------------------------------

async function freePorts(count: number): Promise<number> {
  // Eight in a row, tried until they are free.
  for (;;) {
    const base = 20_000 + Math.floor(Math.random() * 20_000);
    const servers = await Promise.all(
      Array.from(
        { length: count },
        (_, i) =>
          new Promise<ReturnType<typeof createServer> | null>((resolve) => {
            const server = createServer();
            server.once('error', () => resolve(null));
            server.listen(base + i, '127.0.0.1', () => resolve(server));
          }),
      ),
    );
    for (const server of servers) if (server !== null) await new Promise((resolve) => server.close(resolve));
    if (servers.every((server) => server !== null)) return base;
  }
}

async function eventually(condition: () => Promise<boolean>, msMax = 30_000): Promise<boolean> {
  const deadline = performance.now() + msMax;
  while (!(await condition().catch(() => false))) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

t.test('ACC-1, ACC-2: a replica keeps what a member signed twice, shows it, and still does after a kill', async (t) => {
  const net = join(t.testdir(), 'net');
  const base = await freePorts(8);
  const { genesis, configs } = await createNetwork({
    directory: net,
    name: 'seen',
    replicas: localReplicas(4, '127.0.0.1', base),
    parameters: { viewTimeoutMs: 60_000 },
    passphrase: null,
    passphraseFile: null,
    logFormat: 'json',
  });
  const children: ChildProcess[] = [];
  const start = async () => {
    const child = spawn(process.execPath, [program, 'start', configs[1]!], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    let log = '';
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      log += chunk;
    });
    t.ok(await eventually(async () => /"msg":"started"/.test(log)), 'started');
    return { child, log: () => log };
  };
  const stop = (child: ChildProcess, signal: NodeJS.Signals) =>
    new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      child.kill(signal);
    });
  t.teardown(() => children.forEach((child) => void child.kill('SIGKILL')));
  const first = await start();

  const { secret } = await loadKey({
    path: join(net, 'node-3', 'replica.key'),
    passphrase: { from: 'environment', name: 'NONE' },
  });
  const puppet = await Transport.open({
    self: asReplicaId(3),
    credentials: {
      crypto: native,
      chainId: genesis.chainId,
      epoch: () => epoch,
      members: () => genesis.members,
      key: secret.publicKey,
      // The cast: only handshake kinds get here.
      signStatement: (kind, payload) => signBytes(secret, frameSigningBytes(genesis.chainId, kind as Kind, payload)),
    },
    listen: { host: '127.0.0.1', port: 0 },
    peers: new Map([[asReplicaId(1), `ws://127.0.0.1:${base + 1}`]]),
    events: { frame: () => {}, connected: () => {}, disconnected: () => {} },
    onClient: () => ({ frame: () => {}, closed: () => {}, drained: () => {} }),
    overloaded: () => false,
    meter: { count: () => {}, gauge: () => {}, observe: () => {} },
    log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
  });
  t.teardown(() => puppet.close());
  t.ok(await eventually(async () => puppet.connectedPeers().length === 1), 'node-1 takes node-3 for node-3');
  for (const byte of [1, 2]) {
    const vote: Vote = {
      kind: 'commit',
      epoch,
      view: asView(0),
      height: asHeight(1),
      hash: asHash(new Uint8Array(32).fill(byte)),
    };
    const payload = encodePayload(vote);
    const signature = signBytes(secret, signingBytes(genesis.chainId, vote, payload));
    puppet.send(asReplicaId(1), encodeFrame({ kind: 'commit', payload, sender: secret.publicKey, signature }), 'vote');
  }
  const http = `http://127.0.0.1:${base + 5}`;
  interface Listed {
    readonly evidence: readonly {
      readonly id: string;
      readonly offence: string;
      readonly culprit: { readonly name: string };
    }[];
  }
  // The cast: what is read of it is checked.
  const list = async () => (await (await fetch(`${http}/v1/evidence`)).json()) as Listed;
  t.ok(await eventually(async () => (await list()).evidence.length === 1), 'it is shown');
  const [piece] = (await list()).evidence;
  t.match(piece, {
    offence: 'two-commits',
    culprit: { replica: 3, name: 'node-3' },
    view: 0,
    height: 1,
    words: String,
  });
  t.match(
    first.log(),
    /"level":"error".*"peer":"node-3".*a replica signed commits of two blocks for height 1 in view 0/,
  );
  const metrics = await (await fetch(`${http}/metrics`)).text();
  t.match(metrics, /synod_evidence_total\{peer="node-3"\} 1\n/);
  t.match(metrics, /synod_evidence_kept\{peer="node-3"\} 1\n/);
  const file = new Uint8Array(await (await fetch(`${http}/v1/evidence/${piece?.id}`)).arrayBuffer());
  const witness = readWitness(file, genesis, native);
  t.ok(!('refused' in witness) && witness.pieces[0]?.proven.culprit.name === 'node-3');
  t.match(await fetch(`${http}/v1/evidence/${'0'.repeat(32)}`), { status: 404 });
  t.match(await fetch(`${http}/v1/evidence/..%2fsign-state`), { status: 404 });

  const seen = await synod(['evidence', '--network', net, '--out', join(net, 'seen.witness')]);
  t.equal(seen.code, 0, seen.stderr);
  t.match(
    seen.stdout,
    /^culprit +what it did +kept by +piece\nnode-3 +signed commits of two blocks for height 1 in view 0 +node-1 +[0-9a-f]{32}\n/,
  );
  t.match(seen.stderr, /node-0: no answer from http/);
  const genesisArgs = ['--genesis', join(net, 'genesis.json')];
  const verified = await synod(['verify', join(net, 'seen.witness'), ...genesisArgs, '--json']);
  t.match(JSON.parse(verified.stdout), { valid: true, kind: 'witness', evidence: [{ culprit: { name: 'node-3' } }] });

  await puppet.close();
  await stop(first.child, 'SIGKILL');
  const offline = await synod(['evidence', '--config', configs[1]!, '--json']);
  t.match(
    JSON.parse(offline.stdout),
    { evidence: [{ id: piece?.id, keptBy: ['node-1'] }] },
    'from its files while it is down',
  );
  t.match(await synod(['evidence', '--network', net]), { code: 4, stderr: /\[no-replica-answers\]/ });
  t.match(await synod(['evidence', '--config', configs[0]!]), { code: 0, stdout: /^no evidence against anybody/ });
  t.match(await synod(['evidence', '--config', configs[0]!, '--network', net]), { code: 2, stderr: /\[usage\]/ });

  const second = await start();
  t.strictSame(
    (await list()).evidence.map(({ id }) => id),
    [piece?.id],
    'a restart forgets nothing',
  );
  const running = await synod(['export', '--config', configs[1]!, '--out', join(net, 'own.chain')]);
  t.match(running, { code: 1, stderr: /\[storage-locked\]/ }, 'a running replica keeps its log to itself');
  await stop(second.child, 'SIGTERM');
  const empty = await synod(['export', '--config', configs[1]!, '--out', join(net, 'own.chain')]);
  t.match(empty, { code: 1, stderr: /\[chain-empty\]/ });
  const found = await synod(['audit', join(net, 'seen.witness'), ...genesisArgs]);
  t.match(found, { code: 5, stdout: /guilty, each by two signatures of its own key:\n {2}node-3 signed commits/ });
  t.equal(toHex(secret.publicKey), toHex(genesis.members[3]!.publicKey));
});
