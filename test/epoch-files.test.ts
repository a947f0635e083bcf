// Changes of the epoch as operators handle them: files that travel, the plan, the command line; and what `synod verify` makes of later epochs.

import { spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { concat, toHex } from '../crypto/bytes.ts';
import { inclusionProof } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import { ChainFileWriter } from '../daemon/cli/chain-file.ts';
import { combineControls, inOrder, writeControlFile } from '../daemon/cli/control-file.ts';
import { planInWords, planOf } from '../daemon/cli/epoch-plan.ts';
import { keepEpochs } from '../daemon/epochs.ts';
import { decodeEpochsFile, encodeEpochsFile } from '../daemon/epochs-file.ts';
import { addressesOf } from '../daemon/observe.ts';
import {
  decodeWitness,
  encodeProvenWitness,
  encodeWitness,
  readWitness,
  type WitnessRecord,
} from '../daemon/witness-file.ts';
import { SecretKey } from '../keys/keypair.ts';
import { operatorSigner, signJoin } from '../keys/operator-key.ts';
import { encodeFrame, encodePayload } from '../protocol/codec.ts';
import { Observer } from '../protocol/epoch/observer.ts';
import type { ReplicaMessage, Signed } from '../protocol/messages.ts';
import { asEpoch, asHash, asHeight, asReplicaId, asView } from '../protocol/types.ts';
import {
  type Change,
  controlSigningBytes,
  EpochChain,
  encodeEvidence,
  evidenceOf,
  joinSigningBytes,
  signingBytes,
  transactionReceipt,
} from '../protocol/verify.ts';
import { openLogStore } from '../storage/log-store.ts';
import { MemoryDisk } from '../storage/memory.ts';
import { adding, controlFor, EpochWorld, opened, replicaKey, sha256, signerOf } from './epoch-world.ts';

t.setTimeout(200_000);
const program = fileURLToPath(new URL('../daemon/main.js', import.meta.url));

interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function synod(...args: readonly string[]) {
  return new Promise<Run>((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk;
    });
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

const abc = ['a', 'b', 'c'];

/** What a replica's HTTP door says of the epochs, and takes in; nothing stands behind it. */
async function fakeDoor(t: Test, answers: { epochs: () => Uint8Array; posted?: () => void }): Promise<string> {
  const server = createServer(({ url, method }, response) => {
    if (method === 'POST') answers.posted?.();
    else if (url !== '/v1/epochs') response.statusCode = 404;
    response.end(method === 'POST' ? '{}' : answers.epochs());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  // The cast: it listens on a port.
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

t.test('[KEY-5] operators and joining replicas sign layouts of their own, and nothing else', async (t) => {
  const secret = SecretKey.fromSeed(new Uint8Array(32).fill(7));
  const chainId = asHash(new Uint8Array(32).fill(1));
  const digest = asHash(new Uint8Array(32).fill(2));
  const height = asHeight(9);
  const signer = operatorSigner(secret, chainId);
  t.ok(native.verify(secret.publicKey, controlSigningBytes(chainId, digest), signer.signControl(digest)));
  t.ok(
    native.verify(
      secret.publicKey,
      joinSigningBytes(chainId, digest, height),
      signJoin(secret, { chainId, digest, height }),
    ),
  );
  t.strictSame(Object.keys(signer).sort(), ['publicKey', 'signControl']);
  t.same(controlSigningBytes(chainId, digest).subarray(0, 16), Buffer.from('synod-v1:control'));
  t.same(joinSigningBytes(chainId, digest, height).subarray(0, 16), Buffer.from('synod-v1:join\0\0\0'));
});

t.test('copies that were signed apart are combined; another change is not', async (t) => {
  const { epoch } = new EpochWorld();
  const changes = [adding('e')];
  const copy = (by: string[], joins: Record<string, number> = {}) => opened(controlFor(epoch, { changes, by, joins }));
  const combined = combineControls([copy(['c']), copy(['a'], { e: 3 }), copy(['b', 'c'], { e: 8 })]);
  t.notOk('differs' in combined);
  if ('differs' in combined) return;
  t.equal(combined.signatures.length, 3);
  t.strictSame(
    combined.joins.map(({ height }) => height),
    [8],
    'of two joins the later',
  );
  t.same(combined, opened(controlFor(epoch, { changes, by: abc, joins: { e: 8 } })));
  const other = opened(controlFor(epoch, { changes: [adding('f')], by: ['a'] }));
  t.strictSame(combineControls([copy(['a']), copy(['b']), other]), { differs: 2 });
  t.same(inOrder(combined), combined);
});

t.test('a plan says what comes of a change before anybody signs', async (t) => {
  const { epoch } = new EpochWorld();
  const plan = (draft: Parameters<typeof controlFor>[1], height = 1, standings: Parameters<typeof planOf>[3] = null) =>
    planOf(epoch, opened(controlFor(epoch, draft)), asHeight(height), standings);
  const growing = plan({ changes: ['e', 'f', 'g'].map(adding), by: ['a'], joins: { e: 10 } }, 100, [
    { name: 'a', height: 99 },
    { name: 'b', height: 99 },
    { name: 'c', height: null },
    { name: 'd', height: 98 },
    { name: 'e', height: 97 },
  ]);
  t.match(growing.before, { n: 4, f: 1, quorum: 3 });
  t.match(growing.after, { n: 7, f: 2, quorum: 5, members: ['a', 'b', 'c', 'd', 'e', 'f', 'g'] });
  t.strictSame(growing.signatures, { have: ['a'], need: 3 });
  t.strictSame(growing.joins, [
    { name: 'e', behind: 90, behindMax: 1024 },
    { name: 'f', behind: null, behindMax: 1024 },
    { name: 'g', behind: null, behindMax: 1024 },
  ]);
  t.strictSame(growing.live, { answer: ['a', 'b', 'd', 'e'], silent: ['c'], unknown: ['f', 'g'] });
  t.strictSame(
    growing.refusals.map(({ code }) => code),
    ['control-unauthorised'],
  );
  const words = planInWords(growing).join('\n');
  t.match(words, /then {3}pbft, 7 members, quorum 5, bears 2 faulty/);
  t.match(words, /beware: the 4 that stay are no quorum of 7: nothing is ordered until 1 of the new ones take part/);
  t.match(words, /beware: 4 of the next members answer, 2 could not be asked, and a quorum is 5/);
  t.match(words, /f has not signed yet that it is there/);
  t.match(words, /refused as it is: signatures: 1 of 3 \(4 operators\) \[control-unauthorised\]/);

  const hopeless = plan({ changes: [{ change: 'remove-member', name: 'a' }], by: abc });
  t.equal(hopeless.after, null);
  t.strictSame(
    hopeless.refusals.map(({ code }) => code),
    ['control-member-count'],
  );
  const ready = plan({ changes: [{ change: 'set-parameter', parameter: 'window', value: 4 }], by: abc });
  t.strictSame(ready.refusals, []);
  t.strictSame(ready.parameters, [{ name: 'window', before: 8, after: 4 }]);
});

t.test('a plan says how a newcomer comes nearer, by what it and the members said twice', async (t) => {
  const { epoch } = new EpochWorld();
  const adds = opened(controlFor(epoch, { changes: [adding('e')], by: abc }));
  type Heights = Readonly<Record<string, number | null>>;
  const standingsOf = (heights: Heights) => Object.entries(heights).map(([name, height]) => ({ name, height }));
  const catchUp = (first: Heights | null, second: Heights | null = null, seconds = 2) => {
    const later = second === null ? null : { seconds, standings: standingsOf(second) };
    const plan = planOf(epoch, adds, asHeight(5_000), first === null ? null : standingsOf(first), later);
    t.equal(plan.catchUp.length, 1);
    const { name, ...rest } = plan.catchUp[0]!;
    t.equal(name, 'e');
    return {
      ...rest,
      words: planInWords(plan).filter((line) => line.includes('e was not asked') || /far|behind/.test(line)),
    };
  };
  t.match(catchUp({ a: 5_000, b: 4_990, e: 1_000 }, { a: 5_020, b: 5_000, e: 1_220 }), {
    ...{ distance: 3_800, gain: 100, seconds: 27.76, asked: 'answers' },
    words: ['e is 3800 blocks behind, 1024 may be; it gains 100 a second; close in 28 s'],
  });
  t.match(catchUp({ a: 5_000, e: 4_000 }, { a: 5_000, e: 4_001 }), {
    ...{ distance: 999, gain: 0.5, seconds: 0 },
    words: ['e is 999 blocks behind, 1024 may be: it is close'],
  });
  t.match(catchUp({ a: 5_000, e: 1_000 }, { a: 5_050, e: 1_050 }), {
    ...{ distance: 4_000, gain: 0, seconds: null },
    words: ['e is 4000 blocks behind, 1024 may be; it does not gain; so it will not be close'],
  });
  t.match(catchUp({ a: 5_000, e: 1_000 }, { a: 5_050, e: 1_030 }, 1), {
    ...{ distance: 4_020, gain: -20, seconds: null },
    words: ['e is 4020 blocks behind, 1024 may be; it falls back by 20 a second; so it will not be close'],
  });
  t.match(catchUp({ a: 5_000, e: 5_001 }, { a: 5_000, e: 5_001 }), { distance: 0, gain: 0, seconds: 0 });
  for (const second of [null, { a: 5_000, e: null }, { a: null, e: 2_000 }])
    t.match(catchUp({ a: 5_000, e: 1_000 }, second), {
      ...{ distance: 4_000, gain: null, seconds: null },
      words: [/it did not answer twice, so what it gains is not known; when it is close is not known$/],
    });
  const unknown = { distance: null, gain: null, seconds: null };
  for (const nobody of [null, { a: 5_000 }])
    t.match(catchUp(nobody), { ...unknown, asked: 'no-door', words: [/^e was not asked how far it has come/] });
  t.match(catchUp({ a: 5_000, e: null }), { ...unknown, asked: 'silent', words: [/^e does not say how far/] });
  t.match(catchUp({ a: null, e: 7, x: 9_000 }), {
    ...{ ...unknown, asked: 'no-member-answers' },
    words: ['how far e has to come is not known: no other member answers'],
  });
  const quiet = opened(
    controlFor(epoch, { changes: [{ change: 'set-parameter', parameter: 'window', value: 4 }], by: abc }),
  );
  t.strictSame(planOf(epoch, quiet, asHeight(1), standingsOf({ a: 1 })).catchUp, [], 'nobody comes');
});

t.test('a plan says how many operators a change needs, then and now, and what is too few', async (t) => {
  const policy = (signatures: number | 'quorum'): Change => ({ change: 'set-policy', policy: { signatures } });
  const plan = (names: string, from: number | 'quorum', changes: readonly Change[], by = [...names]) => {
    const { epoch } = new EpochWorld([...names], from === 'quorum' ? {} : { policy: { signatures: from } });
    const joins = Object.fromEntries(
      changes.flatMap((change) => (change.change === 'add-member' ? [[change.name, 1]] : [])),
    );
    const made = planOf(epoch, opened(controlFor(epoch, { changes, by, joins })), asHeight(1), null);
    return { ...made, words: planInWords(made).join('\n') };
  };
  const takeOver =
    /beware: 1 of the operators can change everything, and 1 of the members may be faulty: with fewer than 2 /;
  const lower = plan('abcd', 'quorum', [policy(1)]);
  t.strictSame(lower.policy, { before: { need: 3, operators: 4 }, after: { need: 1, operators: 4 } });
  t.match(lower.words, /^a change needs 3 of 4 signatures now, 1 of 4 then$/m);
  t.match(lower.words, takeOver);
  t.strictSame(lower.refusals, [], 'it is for the operators to say');
  const least = plan('abcd', 'quorum', [policy(2)]);
  t.match(least.words, /^a change needs 3 of 4 signatures now, 2 of 4 then$/m);
  t.notMatch(least.words, /take the network over/, 'f+1 are enough');
  t.match(plan('abcd', 3, [policy('quorum')]).words, /^a change needs 3 of 4 signatures now, 3 of 4 then$/m);
  t.match(plan('abcd', 2, [policy(4)]).words, /beware: the next change will need every operator/);
  // The number stays, and the members that are borne become more.
  const grown = plan('abcdef', 2, [adding('g')]);
  t.strictSame(grown.policy, { before: { need: 2, operators: 6 }, after: { need: 2, operators: 7 } });
  t.match(
    grown.words,
    /beware: 2 of the operators can change everything, and 2 of the members may be faulty: with fewer than 3 /,
  );
  const set: Change = { change: 'set-parameter', parameter: 'window', value: 4 };
  t.equal(plan('abcd', 'quorum', [set]).policy, null);
  t.notMatch(plan('abcd', 'quorum', [set]).words, /a change needs/);
  for (const [from, changes] of [
    ['quorum', [policy(5)]],
    [4, [{ change: 'replace-operator-key', name: 'a', operatorKey: null }]],
  ] as const) {
    const dead = plan('abcd', from, changes);
    t.equal(dead.after, null);
    t.match(dead.words, /beware: more signatures than there would be operators: nobody could ever change the network/);
    t.match(dead.words, /refused as it is: changes: [45] wants [45] signatures of [34] operators \[control-policy\]/);
  }
});

t.test('a plan from a machine without a network directory asks the doors that are given', async (t) => {
  const at = (name: string) => join(directory, name);
  const directory = t.testdir();
  const world = new EpochWorld();
  world.end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 4 }], by: abc });
  const { chainId } = world.genesis;
  writeFileSync(at('genesis.json'), world.document);
  /** Answers as a replica that has come so much farther each time that it is asked. */
  const door = async (name: string, from: number, step: number, chain: Uint8Array = chainId) => {
    const named = { replica: 0, name };
    let height = from - step;
    const server = createServer(({ url }, response) => {
      if (url === '/v1/epochs') return response.end(encodeEpochsFile(chain, world.links));
      height += step;
      const status = {
        node: { ...named, version: '0', startedAt: 0 },
        chain: { chainId: toHex(chain) },
        ...{ ready: true, epoch: 1, reason: null, view: 0, primary: named, phase: 'idle', height, hash: '', stable: 0 },
        ...{ lowest: 1, highestSeen: height, pool: { bundles: 0, bytes: 0 }, viewChanges: 0, waits: [], peers: [] },
      };
      response.end(JSON.stringify(status));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => server.close());
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    return ['--http', `http://127.0.0.1:${address.port}/`];
  };
  const add = ['member', 'add', 'e', '--key', toHex(replicaKey('e').publicKey), '--genesis', at('genesis.json')];
  const members = [...(await door('a', 9_000, 10)), ...(await door('b', 8_990, 10))];
  const [comes, stays, other] = [
    await door('e', 1_000, 500),
    await door('e', 1_000, 10),
    await door('e', 1_000, 10, new Uint8Array(32)),
  ];
  const plan = async (...doors: readonly string[]) => {
    const run = await synod(...add, ...doors, '--plan', '--json');
    t.equal(run.code, 3, 'nobody has signed it');
    return { ...JSON.parse(run.stdout), stderr: run.stderr };
  };
  const near = await plan(...members, ...comes);
  t.match(near, { epoch: 1, live: { answer: ['a', 'b', 'e'], silent: [], unknown: ['c', 'd'] }, stderr: /^$/ });
  t.match(near.catchUp, [{ name: 'e', distance: 9_010 - 1_500, asked: 'answers' }]);
  t.ok(near.catchUp[0].gain > 0 && near.catchUp[0].seconds > 0);
  t.match((await plan(...members, ...stays)).catchUp, [{ gain: 0, seconds: null }]);
  t.match((await plan(...members)).catchUp, [{ asked: 'no-door' }]);
  t.match(await plan(...members, ...other), {
    catchUp: [{ asked: 'no-door' }],
    stderr: /a replica of another network answers there\n/,
  });
  t.match((await plan(...members, '--http', 'http://127.0.0.1:1')).stderr, /127.0.0.1:1: no replica answers there\n/);
  t.match(await plan(), { epoch: 0, live: null, catchUp: [{ asked: 'no-door' }] });

  t.equal((await synod(...add, ...members, '--out', at('add.json'))).code, 0);
  const shown = await synod('control', 'show', at('add.json'), '--genesis', at('genesis.json'), ...members, ...comes);
  t.match(shown.stdout, /^ends epoch 1:\n/);
  t.match(shown.stdout, /^e is \d+ blocks behind, 1024 may be; it gains \d+ a second; close in \d+ s$/m);
  t.match(await synod(...add, '--http', 'nowhere', '--plan'), { code: 2, stderr: /an address such as http:/ });
});

t.test('[EPO-11] the file of epochs proves itself from the genesis document', async (t) => {
  const world = new EpochWorld();
  world.idle(1).end({ changes: [adding('e')], by: abc, joins: { e: 0 } });
  world.end({ changes: [{ change: 'remove-member', name: 'a' }], by: ['b', 'c', 'd', 'e'] });
  const { chainId } = world.genesis;
  const bytes = encodeEpochsFile(chainId, world.links);
  const chain = decodeEpochsFile(bytes, world.genesis);
  t.ok(chain instanceof EpochChain);
  if (!(chain instanceof EpochChain)) return;
  t.same(chain.last.hash, world.epoch.hash);
  const code = (changed: Uint8Array) => {
    const result = decodeEpochsFile(changed, world.genesis);
    return result instanceof EpochChain ? `epoch ${result.last.epoch}` : result.refused;
  };
  t.equal(code(encodeEpochsFile(chainId, [])), 'epoch 0');
  t.equal(code(encodeEpochsFile(asHash(new Uint8Array(32)), world.links)), 'epochs-file-other-chain');
  t.equal(code(bytes.subarray(0, bytes.length - 1)), 'epochs-file-malformed');
  t.equal(code(concat(bytes, Uint8Array.of(0))), 'epochs-file-malformed');
  t.equal(code(concat(bytes, Uint8Array.of(255, 255, 255, 255))), 'epochs-file-malformed');
  t.equal(code(Buffer.from('synod-v1:chain')), 'epochs-file-malformed');
  t.equal(code(encodeEpochsFile(chainId, [world.links[1]!])), 'certificate-epoch');
  const bent = Uint8Array.from(bytes);
  bent[bent.length - 100]! ^= 1;
  t.not(code(bent), 'epoch 2');
});

t.test('[EPO-11] links that the file has not got yet are in the log', async (t) => {
  const world = new EpochWorld();
  world.idle(3).end({ changes: [adding('e')], by: abc, joins: { e: 0 } });
  world.end({ changes: [{ change: 'remove-member', name: 'a' }], by: ['b', 'c', 'd', 'e'] });
  world
    .idle(2)
    .end({ changes: [{ change: 'set-parameter', parameter: 'window', value: 5 }], by: ['b', 'c', 'd', 'e'] });
  world.idle(1);
  const { genesis, links, epoch: document } = world;
  const { chainId } = genesis;
  const logOf = async (blocks: typeof world.blocks) => {
    const options = { sha256, chainId, floor: null, retainBlocks: 'all' } as const;
    const { log } = await openLogStore(new MemoryDisk().open(), options);
    const observer = new Observer({ sha256, genesis }, null);
    for (const { block, certificate } of blocks) await log.write(observer.take(block, certificate));
    return log;
  };
  const log = await logOf(world.blocks);
  const warnings: object[] = [];
  const ignore = () => {};
  const logger = { debug: ignore, info: ignore, warn: (fields: object) => warnings.push(fields), error: ignore };
  const path = join(t.testdir(), 'epochs');
  for (const known of [0, 1, 2, 3]) {
    writeFileSync(path, encodeEpochsFile(chainId, links.slice(0, known)));
    const chain = await keepEpochs({ path, genesis, log, document, logger });
    t.same(chain.links, links, `${known} links in the file`);
    t.same(readFileSync(path), Buffer.from(encodeEpochsFile(chainId, links)));
  }
  t.strictSame(warnings, []);
  rmSync(path);
  const short = await logOf(world.blocks.slice(0, 3));
  t.equal((await keepEpochs({ path, genesis, log: short, document, logger })).last.epoch, 0, 'what is nowhere is said');
  t.match(warnings, [{ epoch: 0 }]);
});

t.test('[EPO-25] the address of a config is good until an epoch names another one', async (t) => {
  const world = new EpochWorld();
  const epochs = new EpochChain({ genesis: world.genesis, crypto: native });
  const peers = new Map(['b', 'e', 'f'].map((name) => [name, `ws://${name}.tunnel:1`]));
  const next = (changes: readonly Change[], joins: Record<string, number> = {}) => {
    world.end({ changes, by: [...abc, 'd'], joins });
    t.notOk('refused' in epochs.add(world.links.at(-1)!));
  };
  const moving = (name: string, address: string | null): Change => ({ change: 'change-address', name, address });
  const places = () =>
    Object.fromEntries(addressesOf({ peers, member: 'a' }, epochs).map(({ name, url }) => [name, url]));
  const [b, c, d] = [2, 3, 4].map((i) => `ws://10.0.0.${i}:7000`);
  const tunnel = { b: 'ws://b.tunnel:1', e: 'ws://e.tunnel:1' };
  t.strictSame(places(), { b: tunnel.b, c, d }, 'as long as it is the first epoch');
  next([moving('c', 'ws://10.0.1.3:7000'), moving('d', null)]);
  t.strictSame(places(), { b: tunnel.b, c: 'ws://10.0.1.3:7000' }, 'of others');
  next([moving('b', 'ws://10.0.1.2:7000'), adding('e')], { e: 0 });
  t.strictSame(places(), { b: 'ws://10.0.1.2:7000', c: 'ws://10.0.1.3:7000', e: tunnel.e });
  next([moving('e', 'ws://10.0.1.5:7000'), moving('b', null)]);
  t.match(places(), { b: tunnel.b, e: 'ws://10.0.1.5:7000' }, 'no address is no other one');
  next([moving('b', b!)]);
  t.match(places(), { b: tunnel.b, e: 'ws://10.0.1.5:7000' }, 'back where it came from');
  next([{ change: 'remove-member', name: 'b' }]);
  t.match(places(), { b: tunnel.b }, 'whoever was a member may know of the next ones');
});

t.test('[EVD-2] [EVD-4] evidence and statements of a later epoch hold where its members are known', async (t) => {
  const world = new EpochWorld();
  world.end({
    changes: [{ change: 'replace-replica-key', name: 'b', publicKey: replicaKey('b2').publicKey }],
    by: abc,
    joins: { b2: 0 },
  });
  const { chainId } = world.genesis;
  const { epoch, members } = world.epoch;
  const signedBy = <M extends ReplicaMessage>(member: number, message: M): Signed<M> => {
    const payload = encodePayload(message);
    const signature = signerOf(members[member]!.publicKey).sign(signingBytes(chainId, message, payload));
    return { sender: asReplicaId(member), message, payload, signature };
  };
  const vote = (hash: number) =>
    ({
      kind: 'prepare',
      epoch,
      view: asView(0),
      height: asHeight(2),
      hash: asHash(new Uint8Array(32).fill(hash)),
    }) as const;
  const piece = encodeEvidence(evidenceOf({ chainId, members }, signedBy(1, vote(1)), signedBy(1, vote(2))));
  const { payload, signature } = signedBy(1, vote(1));
  const frame = encodeFrame({ kind: 'prepare', payload, sender: members[1]!.publicKey, signature });
  const file = encodeWitness(chainId, [
    { sort: 'evidence', bytes: piece },
    { sort: 'frame', bytes: frame },
  ]);
  const epochs = new EpochChain({ genesis: world.genesis, crypto: native });
  for (const link of world.links) epochs.add(link);
  const held = readWitness(file, world.genesis, native, epochs);
  t.notOk('refused' in held);
  if ('refused' in held) return;
  t.match(held.pieces[0]?.proven, { culprit: { name: 'b' }, conflict: { offence: 'two-prepares', epoch: 1 } });
  t.match(held.statements[0]?.signed, { sender: 1, message: { kind: 'prepare', epoch: 1 } });
  t.match(readWitness(file, world.genesis, native), { refused: 'evidence-epoch' });

  // With its own links the genesis document is enough.
  const records = [
    { sort: 'evidence', bytes: piece },
    { sort: 'frame', bytes: frame },
  ] as const;
  const whole = encodeProvenWitness(world.genesis, records, { epochs, crypto: native });
  t.match(readWitness(whole, world.genesis, native), { pieces: [{ proven: { culprit: { name: 'b' } } }] });
  t.same(
    encodeProvenWitness(world.genesis, [...(decodeWitness(whole, chainId) as [])], { epochs, crypto: native }),
    whole,
  );
  const link = { sort: 'link', bytes: world.links[0]! } as const;
  const refusedOf = (...all: readonly WitnessRecord[]) => {
    const read = readWitness(encodeWitness(chainId, all), world.genesis, native);
    return 'refused' in read ? read.refused : null;
  };
  t.equal(refusedOf(link, ...records), null);
  t.equal(refusedOf(records[0], link), 'evidence-epoch', 'a link too late');
  t.equal(refusedOf({ sort: 'link', bytes: frame }, ...records), 'payload-malformed');
  t.equal(refusedOf(link, link, ...records), 'certificate-epoch', 'twice');
  const statement = encodeWitness(chainId, [{ sort: 'frame', bytes: frame }]);
  t.match(readWitness(statement, world.genesis, native), { refused: 'sender-unknown' });
});

t.test('[EPO-11] [WIRE-37] synod verify checks receipts and chain files of later epochs offline', async (t) => {
  const directory = t.testdir();
  const at = (name: string) => join(directory, name);
  const world = new EpochWorld();
  world.idle(2).end({ changes: [adding('e')], by: abc, joins: { e: 0 } });
  world.idle(2);
  writeFileSync(at('genesis.json'), world.document);
  writeFileSync(at('net.epochs'), encodeEpochsFile(world.genesis.chainId, world.links));
  const file = async (name: string, from: number) => {
    const writer = await ChainFileWriter.create(at(name), world.genesis);
    for (const { block, certificate } of world.blocks.slice(from - 1))
      await writer.append({ headerBytes: block.headerBytes, bundles: block.bundles, certificate });
    await writer.commit();
  };
  await file('whole.chain', 1);
  await file('late.chain', 4);
  const verify = (...args: string[]) => synod('verify', ...args, '--genesis', at('genesis.json'), '--json');
  const whole = await verify(at('whole.chain'));
  t.match(JSON.parse(whole.stdout), { valid: true, from: 1, to: 5, epoch: 1, signers: ['a', 'b', 'c', 'd'] });
  const alone = await verify(at('late.chain'));
  t.equal(alone.code, 3, 'a part of a later epoch says nothing by itself');
  t.match(alone.stderr, /\[certificate-epoch\]/);
  const late = await verify(at('late.chain'), '--epochs', at('net.epochs'));
  t.match(JSON.parse(late.stdout), { valid: true, from: 4, to: 5, epoch: 1 });

  // With the links in it, the genesis document is enough.
  const [link] = world.links;
  const withLinks = async (name: string, links: readonly Uint8Array[], more: readonly Uint8Array[] = []) => {
    const writer = await ChainFileWriter.create(at(name), world.genesis);
    for (const each of links) await writer.link(each);
    for (const [index, { block, certificate }] of world.blocks.slice(3).entries()) {
      await writer.append({ headerBytes: block.headerBytes, bundles: block.bundles, certificate });
      if (index === 0) for (const each of more) await writer.link(each);
    }
    await writer.commit();
    const run = await verify(at(name));
    return run.code === 0 ? JSON.parse(run.stdout) : /\[([a-z-]+)\]/.exec(run.stderr)?.[1];
  };
  t.match(await withLinks('proven.chain', [link!]), { valid: true, from: 4, to: 5, epoch: 1 });
  t.equal(await withLinks('behind.chain', [link!], [link!]), 'chain-file-malformed', 'a link behind a block');
  t.equal(await withLinks('twice.chain', [link!, link!]), 'certificate-epoch');
  t.equal(await withLinks('rubbish.chain', [Buffer.from('rubbish')]), 'payload-malformed');
  const bent = Uint8Array.from(link!);
  bent[bent.length - 100]! ^= 1;
  t.equal(await withLinks('bent.chain', [bent]), 'epoch-control');
  const rival = new EpochWorld();
  rival.idle(2).end({ changes: [adding('f')], by: abc, joins: { f: 0 } });
  t.equal(await withLinks('rival.chain', rival.links), 'certificate-epoch', 'of members that its blocks do not name');
  writeFileSync(at('rival.epochs'), encodeEpochsFile(world.genesis.chainId, rival.links));
  const fork = await verify(at('proven.chain'), '--epochs', at('rival.epochs'));
  t.match(fork, { code: 3, stderr: /\[epoch-fork\]/ }, 'whoever knows the next epoch refuses another one');
  const bytes = readFileSync(at('proven.chain'));
  for (const [head, problem] of [
    [Buffer.from([2, 0, 0, 1]), /a record of no known sort/],
    [Buffer.from([1, 255, 255, 255]), /a record of 16777215 bytes/],
    [Buffer.from([0, 16, 0, 1]), /a record of 1048577 bytes/],
  ] as const) {
    writeFileSync(at('hostile.chain'), Buffer.concat([bytes.subarray(0, 48), head, bytes.subarray(52)]));
    const hostile = await verify(at('hostile.chain'));
    t.match(hostile, { code: 3, stderr: problem });
    t.match(hostile.stderr, /\[chain-file-malformed\]/);
  }

  const { block, certificate } = world.blocks[4]!;
  const [bundle] = block.bundles;
  const receipt = {
    digest: bundle!.digest,
    headerBytes: block.headerBytes,
    links: [],
    certificate,
    firstTransaction: 0,
    transactionCount: 1,
    proof: inclusionProof(sha256, bundle!.leaves, 0),
  };
  const epochs = new EpochChain({ genesis: world.genesis, crypto: native });
  for (const link of world.links) epochs.add(link);
  const json = transactionReceipt(receipt, { genesis: world.genesis, crypto: native, epochs }, bundle!.transactions, 0);
  t.notOk('refused' in json);
  writeFileSync(at('hello.receipt'), JSON.stringify(json));
  const proved = await verify(at('hello.receipt'));
  t.match(JSON.parse(proved.stdout), { valid: true, height: 5, epoch: 1 }, 'a receipt brings its epochs with it');
  const { epochs: _, ...bare } = json as { epochs?: readonly string[] };
  writeFileSync(at('bare.receipt'), JSON.stringify(bare));
  t.equal((await verify(at('bare.receipt'))).code, 3);
  t.equal((await verify(at('bare.receipt'), '--epochs', at('net.epochs'))).code, 0);
  writeFileSync(
    at('bad.receipt'),
    JSON.stringify({ ...bare, epochs: [toHex(world.links[0]!).replace(/00$/, '01').slice(0, -2)] }),
  );
  t.equal((await verify(at('bad.receipt'))).code, 3);
});

t.test('from a plan to a change that is signed by all who must: no cluster, no network', async (t) => {
  const directory = t.testdir();
  const at = (name: string) => join(directory, name);
  t.equal((await synod('init', at('net'), '--unsealed')).code, 0);
  const genesis = ['--genesis', at('net/genesis.json')];
  const operator = (i: number) => at(`net/operators/node-${i}.key`);
  t.equal(JSON.parse(readFileSync(at('net/genesis.json'), 'utf8')).members[0].operatorKey.length, 64);
  for (const name of ['east', 'east-operator'])
    t.equal((await synod('keys', 'generate', at(`${name}.key`), '--unsealed')).code, 0);
  const add = [
    'member',
    'add',
    'east',
    '--key',
    at('east.key'),
    '--operator',
    at('east-operator.key'),
    '--address',
    'ws://10.0.0.5:7000',
  ];
  const plan = await synod(...add, ...genesis, '--plan', '--json');
  t.equal(plan.code, 3, 'it would be refused as it is');
  t.match(JSON.parse(plan.stdout), {
    before: { n: 4 },
    after: { n: 5, quorum: 4 },
    refusals: [{ code: 'control-unauthorised' }],
  });
  t.equal((await synod(...add, ...genesis, '--out', at('add.json'))).code, 0);
  t.equal((await synod(...add, ...genesis, '--out', at('add.json'))).code, 2, 'never over another file');
  for (const i of [0, 1])
    t.equal((await synod('control', 'sign', at('add.json'), '--key', operator(i), ...genesis)).code, 0);
  t.equal(
    (await synod('control', 'sign', at('add.json'), '--key', operator(2), ...genesis, '--out', at('copy.json'))).code,
    0,
  );
  t.equal((await synod('control', 'combine', at('add.json'), at('copy.json'), '--out', at('all.json'))).code, 0);
  const early = await synod('control', 'show', at('all.json'), ...genesis);
  t.equal(early.code, 3);
  t.match(early.stdout, /\[control-join-missing\]/);
  t.equal((await synod('member', 'promote', at('all.json'), '--key', at('east.key'), '--at', '7')).code, 0);
  const done = await synod('control', 'show', at('all.json'), ...genesis, '--height', '9');
  t.equal(done.code, 0);
  t.match(done.stdout, /east was 2 blocks behind when it signed; 1024 may be\n/);
  t.match(done.stdout, /it may stand in the next block as it is\n$/);
  const far = await synod('control', 'show', at('all.json'), ...genesis, '--height', '2000');
  t.match(far.stdout, /1993 blocks behind; 1024 may be \[control-join-far\]/, 'refused with the distance');

  const refused: [string[], string, number][] = [
    [['member', 'remove', 'node-0', ...genesis, '--out', at('x.json')], 'control-member-count', 3],
    [['param', 'set', 'viewTimeoutMs=100', ...genesis, '--out', at('x.json')], 'control-parameter', 3],
    [['param', 'set', 'speed=100', ...genesis, '--out', at('x.json')], 'usage', 2],
    [['param', 'policy', '9', ...genesis, '--out', at('x.json')], 'control-policy', 3],
    [
      ['member', 'rotate', 'node-1', '--key', at('net/node-2/replica.key'), ...genesis, '--out', at('x.json')],
      'control-key-taken',
      3,
    ],
    [['member', 'remove', 'node-0', ...genesis], 'usage', 2],
    [['member', 'remove', 'node-0', '--plan'], 'usage', 2],
    [['control', 'sign', at('all.json'), '--key', at('east-operator.key'), ...genesis], 'operator-unknown', 2],
    [['control', 'show', at('net/genesis.json'), ...genesis], 'control-file-malformed', 2],
    [['member', 'promote', at('all.json'), '--key', at('net/node-0/replica.key'), '--at', '1'], 'usage', 2],
  ];
  for (const [args, code, exit] of refused) {
    const run = await synod(...args);
    t.equal(run.code, exit, `${args.slice(0, 3).join(' ')}: exit code`);
    t.match(run.stderr, new RegExp(`\\[${code}\\]\\n`), `${args.slice(0, 3).join(' ')}: [${code}]`);
    t.notMatch(run.stderr, /\n\s+at /, 'no stack trace');
  }
  t.throws(() => readFileSync(at('x.json')), 'nothing was written');
  const bent = JSON.parse(readFileSync(at('all.json'), 'utf8'));
  writeFileSync(at('bent.json'), JSON.stringify({ ...bent, epoch: 1 }));
  t.match(
    (await synod('control', 'show', at('bent.json'), ...genesis)).stderr,
    /not those of the payload \[control-file-malformed\]/,
  );
  t.equal(asEpoch(0), bent.epoch);
});

t.test('a change that was not taken is not reported as if it were', async (t) => {
  const directory = t.testdir();
  const at = (name: string) => join(directory, name);
  const world = new EpochWorld();
  writeFileSync(at('genesis.json'), world.document);
  const setting = (value: number, by: readonly string[]) =>
    ({ changes: [{ change: 'set-parameter', parameter: 'window', value }], by }) as const;
  const file = async (name: string, draft: Parameters<typeof controlFor>[1]) => {
    await writeControlFile(at(name), opened(controlFor(world.epoch, draft)), [], false);
    return name;
  };
  const ours = await file('ours.json', setting(6, abc));
  const [theirs, again] = [
    await file('theirs.json', setting(5, abc)),
    await file('again.json', setting(5, ['b', 'c', 'd'])),
  ];
  world.idle(2).end(setting(5, abc));
  const { chainId } = world.genesis;
  const submit = (name: string, http: string) =>
    synod('control', 'submit', at(name), '--genesis', at('genesis.json'), '--http', http);

  // Before it came, and while it waited.
  const over = await fakeDoor(t, { epochs: () => encodeEpochsFile(chainId, world.links) });
  let isTaken = false;
  const posted = () => {
    isTaken = true;
  };
  const waiting = await fakeDoor(t, { epochs: () => encodeEpochsFile(chainId, isTaken ? world.links : []), posted });
  for (const door of [over, waiting]) {
    const lost = await submit(ours, door);
    t.match(lost, { code: 1, stdout: '' });
    t.match(lost.stderr, /another change ended epoch 0, at height 3: parameter window = 5 \[control-overtaken\]\n/);
    t.match(lost.stderr, /make it anew for epoch 1, /);
  }
  t.ok(isTaken);
  for (const name of [theirs, again]) {
    const won = await submit(name, over);
    t.match(won, { code: 0, stdout: 'epoch 1 began at height 3: a, b, c, d\n' }, 'whoever has signed it');
  }

  // An epoch later.
  world.end(setting(7, abc));
  t.match((await submit(ours, over)).stderr, /another change ended epoch 0, .*\n.* for epoch 2, /);
  t.match(await submit(theirs, over), { code: 0, stdout: 'epoch 1 began at height 3: a, b, c, d\n' });

  // What is not proved is nobody's end: it may still be decided.
  const [link] = world.links;
  const bent = Uint8Array.from(link!, (byte, i) => (i === link!.length - 100 ? byte ^ 1 : byte));
  const liar = await fakeDoor(t, { epochs: () => encodeEpochsFile(chainId, [bent]) });
  const run = await synod(
    'control',
    'submit',
    at(ours),
    '--genesis',
    at('genesis.json'),
    '--http',
    liar,
    '--timeout',
    '1s',
  );
  t.match(run, { code: 1, stderr: /\[control-not-decided\]\n/ });
});

t.test('a plan for a network is one for the last epoch that any of its doors can prove', async (t) => {
  const directory = t.testdir({ net: { a: {}, b: {}, c: {} } });
  const at = (name: string) => join(directory, name);
  const world = new EpochWorld();
  const { chainId } = world.genesis;
  world.idle(1).end({ changes: [adding('e')], by: abc, joins: { e: 0 } });
  world.end({ changes: [{ change: 'remove-member', name: 'b' }], by: [...abc, 'd'] });
  const [first, second] = world.links;
  const known = encodeEpochsFile(chainId, [first!, second!]);
  // One that has ended on the way, one that knows it all, and one that has its own idea.
  const bent = Uint8Array.from(second!, (byte, i) => (i === second!.length - 100 ? byte ^ 1 : byte));
  const told = { a: encodeEpochsFile(chainId, []), b: known, c: encodeEpochsFile(chainId, [first!, bent, first!]) };
  let isSilent = false;
  writeFileSync(at('net/genesis.json'), world.document);
  writeFileSync(at('net.epochs'), known);
  for (const [member, bytes] of Object.entries(told)) {
    const door = new URL(await fakeDoor(t, { epochs: () => (isSilent ? new Uint8Array(0) : bytes) }));
    const http = { host: door.hostname, port: Number(door.port) };
    const listen = { host: '127.0.0.1', port: 1 };
    const config = { genesis: 'g', member, key: 'k', dataDir: 'd', listen, peers: {}, http };
    writeFileSync(at(`net/${member}/config.json`), JSON.stringify(config));
  }
  const planned = async (...args: string[]) => {
    const plan = ['param', 'set', 'window=5', '--network', at('net'), '--height', '9', '--plan', '--json', ...args];
    const { stdout, stderr } = await synod(...plan);
    return { plan: JSON.parse(stdout), stderr };
  };
  const present = { epoch: 2, before: { n: 4, members: ['a', 'c', 'd', 'e'] } };
  t.match(await planned(), { plan: present, stderr: /^$/ });
  isSilent = true;
  const said = /^no replica says which epoch it is: judged for epoch 0, that of the genesis document\n$/;
  t.match(await planned(), { plan: { epoch: 0, before: { members: ['a', 'b', 'c', 'd'] } }, stderr: said });
  t.match(await planned('--epochs', at('net.epochs')), { plan: present, stderr: /: judged for epoch 2, the last in / });
});
