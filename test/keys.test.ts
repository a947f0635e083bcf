// keys/: the rules KEY-n and GRD-n of docs/spec.md. A signature that should not exist is looked for with a model, with torn and
// rotten files, and with real processes that are killed.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readdirSync, readlinkSync } from 'node:fs';
import { chmod, copyFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { inspect } from 'node:util';
import t from 'tap';
import { ascii, type Bytes, equalBytes, fromHex, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { GuardError, GuardRefusal } from '../keys/errors.ts';
import { type GuardState, openGuard, type PledgePayload, type ProposalPlace } from '../keys/guard.ts';
import { SecretKey } from '../keys/keypair.ts';
import { loadKey, saveKey } from '../keys/keystore.ts';
import { checkpointsMax, heightsMax } from '../keys/marks.ts';
import { contentBytesMax, decodeSignState, encodeSignState, lockBytesMax } from '../keys/sign-state.ts';
import { decodeFile, encodeSlot, FILE_BYTES, offsetOf, SLOT_BYTES } from '../keys/slots.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import { voteSigningBytes } from '../protocol/certificate.ts';
import type { ReplicaPledge, Vote } from '../protocol/messages.ts';
import { asEpoch, asHeight, asView, type Hash } from '../protocol/types.ts';
import { frameSigningBytes } from '../protocol/wire/frame.ts';
import {
  A,
  B,
  chainId,
  checkpoint,
  checkpointSigningBytes,
  commit,
  filled,
  folder,
  freshGuard,
  newPath,
  newView,
  none,
  optionsFor,
  prepare,
  promise,
  promiseAndSign,
  proposal,
  reopened,
  secret,
  seed,
  sign,
  start,
  verifies,
  viewChange,
  vote,
} from './guard-kit.ts';
import { fc } from './property.ts';

// Real syncs and real processes: on a busy machine they take several times as long as on an idle one.
t.setTimeout(200_000);

t.test('KEY-1: a secret key signs as RFC 8032 says, and shows its public half alone', async (t) => {
  t.equal(toHex(secret.publicKey), 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a');
  t.throws(() => SecretKey.fromSeed(new Uint8Array(31)), { code: 'key-seed-invalid' });
  t.notOk(equalBytes(SecretKey.generate().publicKey, SecretKey.generate().publicKey));
  const guard = await freshGuard();
  const shown = [secret, { secret }, guard, clientSigner(secret, chainId)].flatMap((value) => [
    inspect(value, { depth: 20, showHidden: true, getters: true }),
    JSON.stringify(value),
    String(value),
    `${secret}`,
    inspect(structuredClone({ ...secret })),
  ]);
  assertNoSecret(t, shown.join('\n'));
  t.match(inspect(secret), /SecretKey\(of d75a/);
  t.match(JSON.stringify(secret), /redacted/);
  await guard.close();
});

/** In hex, in base64 of either alphabet, or as numbers. */
function assertNoSecret(t: { notOk(value: unknown, message: string): unknown }, text: string): void {
  const buffer = Buffer.from(seed);
  const forms = [toHex(seed), buffer.toString('base64').slice(0, 40), buffer.toString('base64url').slice(0, 40)];
  const lower = text.toLowerCase();
  for (const form of forms) t.notOk(lower.includes(form.toLowerCase()), 'no secret in text');
  t.notOk(text.replace(/\s/g, '').includes([...seed].slice(0, 8).join(',')), 'no secret in numbers');
}

t.test('KEY-2: a key file is private, durable, and never overwritten', async (t) => {
  const path = newPath();
  await saveKey({ path, secret, protection: 'none' });
  t.equal((await stat(path)).mode & 0o777, 0o600);
  const before = await readFile(path, 'utf8');
  await t.rejects(saveKey({ path, secret: SecretKey.generate(), protection: 'none' }), { code: 'key-file-exists' });
  t.equal(await readFile(path, 'utf8'), before);
  t.strictSame(Object.keys(JSON.parse(before)), ['synod-key', 'publicKey', 'unsealed']);
  const loaded = await loadKey({ path });
  t.notOk(loaded.sealed);
  t.ok(equalBytes(loaded.secret.publicKey, secret.publicKey));
  await t.rejects(saveKey({ path: join(folder, 'no', 'where'), secret, protection: 'none' }), { code: 'key-file-io' });
  t.strictSame(
    readdirSync(folder).filter((name) => name.endsWith('.new')),
    [],
    'no drafts are left',
  );
});

t.test('KEY-2: a sealed file holds no plain secret and opens with its passphrase alone', async (t) => {
  const path = newPath();
  const ask = (passphrase: string) => ({ from: 'ask', ask: async () => passphrase }) as const;
  const cost = { n: 2 ** 15, r: 8, p: 1 };
  await saveKey({ path, secret, protection: 'sealed', passphrase: ask('correct horse'), cost });
  assertNoSecret(t, await readFile(path, 'utf8'));
  const { secret: opened, sealed } = await loadKey({ path, passphrase: ask('correct horse') });
  t.ok(sealed);
  t.ok(equalBytes(clientSigner(opened, chainId).signBundle(A), clientSigner(secret, chainId).signBundle(A)));
  await t.rejects(loadKey({ path }), { code: 'key-passphrase-missing' });
  await t.rejects(loadKey({ path, passphrase: ask('') }), { code: 'key-passphrase-missing' });
  const wrong = await rejection(loadKey({ path, passphrase: ask('wrong horse') }));
  t.match(wrong, { name: 'KeyError', code: 'key-passphrase' });
  t.notMatch(inspect(wrong), /wrong horse/);

  process.env.SYNOD_TEST_PASSPHRASE = 'correct horse';
  await loadKey({ path, passphrase: { from: 'environment', name: 'SYNOD_TEST_PASSPHRASE' } });
  t.notOk('SYNOD_TEST_PASSPHRASE' in process.env, 'children do not inherit it');
  const passphraseFile = newPath();
  await writeFile(passphraseFile, 'correct horse\n');
  await loadKey({ path, passphrase: { from: 'file', path: passphraseFile } });
  await t.rejects(loadKey({ path, passphrase: { from: 'file', path: newPath() } }), { code: 'key-file-io' });

  // The envelope belongs to the public key beside it.
  const other = JSON.parse(await readFile(path, 'utf8'));
  other.publicKey = toHex(SecretKey.generate().publicKey);
  const moved = newPath();
  await writeFile(moved, JSON.stringify(other), { mode: 0o600 });
  await t.rejects(loadKey({ path: moved, passphrase: ask('correct horse') }), { code: 'key-passphrase' });
  // A cost that makes guessing cheap is not a key file of ours.
  other.sealed.kdf.n = 2;
  await writeFile(moved, JSON.stringify(other), { mode: 0o600 });
  await t.rejects(loadKey({ path: moved, passphrase: ask('correct horse') }), { code: 'key-file-invalid' });
});

t.test('KEY-3: a file that others can read, or whose halves differ, is refused without quoting it', async (t) => {
  const path = newPath();
  await t.rejects(loadKey({ path }), { code: 'key-file-missing' });
  await saveKey({ path, secret, protection: 'none' });
  for (const mode of [0o640, 0o604, 0o610, 0o644]) {
    await chmod(path, mode);
    await t.rejects(loadKey({ path }), { code: 'key-file-mode', message: /chmod 600/ });
  }
  await chmod(path, 0o400);
  await loadKey({ path });
  if (process.geteuid?.() === 0) {
    const owned = newPath();
    await copyFile(path, owned);
    const { chown } = await import('node:fs/promises');
    await chmod(owned, 0o600);
    await chown(owned, 65_534, 65_534);
    await t.rejects(loadKey({ path: owned }), { code: 'key-file-owner' });
  }
  const publicKey = toHex(secret.publicKey);
  const unsealed = toHex(seed);
  const malformed = [
    '',
    '{',
    `{"unsealed":"${unsealed}`,
    JSON.stringify({ 'synod-key': 2, publicKey, unsealed }),
    JSON.stringify({ 'synod-key': 1, publicKey, unsealed: unsealed.slice(2) }),
    JSON.stringify({ 'synod-key': 1, publicKey, unsealed, more: 1 }),
    JSON.stringify({ 'synod-key': 1, publicKey, sealed: {}, unsealed }),
    JSON.stringify({ 'synod-key': 1, publicKey, unsealed }) + ' '.repeat(8192),
  ];
  for (const text of malformed) {
    const bad = newPath();
    await writeFile(bad, text, { mode: 0o600 });
    const error = await rejection(loadKey({ path: bad }));
    t.match(error, { code: 'key-file-invalid' });
    assertNoSecret(t, inspect(error));
  }
  const mixed = newPath();
  await writeFile(mixed, JSON.stringify({ 'synod-key': 1, publicKey: '00'.repeat(32), unsealed }), { mode: 0o600 });
  const error = await rejection(loadKey({ path: mixed }));
  t.match(error, { code: 'key-mismatch' });
  assertNoSecret(t, inspect(error));
  await t.rejects(loadKey({ path: folder }), { code: 'key-file-invalid' });
});

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

t.test('KEY-1: a seed is not left in the heap once a key was loaded and used', async (t) => {
  // In a process of its own, which never holds the seed but through the key file.
  const path = newPath();
  const file = newPath();
  const other = SecretKey.generate();
  await saveKey({
    path,
    secret: other,
    protection: 'sealed',
    passphrase: { from: 'ask', ask: async () => 'x' },
    cost: { n: 2 ** 15, r: 8, p: 1 },
  });
  const plain = newPath();
  await saveKey({ path: plain, secret: other, protection: 'none' });
  const hex: string = JSON.parse(await readFile(plain, 'utf8')).unsealed;
  const child = runChild(`
    const { loadKey } = await import(${url('keys/keystore.js')});
    const { clientSigner } = await import(${url('keys/client-key.js')});
    const { writeHeapSnapshot } = await import('node:v8');
    const { secret } = await loadKey({ path: ${JSON.stringify(path)}, passphrase: { from: 'ask', ask: async () => 'x' } });
    clientSigner(secret, new Uint8Array(32)).signBundle(new Uint8Array(32));
    writeHeapSnapshot(${JSON.stringify(file)});
    console.log('done');
  `);
  t.equal(await child.line(), 'done');
  child.kill();
  const heap = await readFile(file, 'latin1');
  t.ok(heap.length > 1000);
  t.notOk(heap.includes(hex) || heap.includes(Buffer.from(hex, 'hex').toString('base64').slice(0, 40)));
});

t.test('KEY-4: a client signs bundles and statements of its chain', async (t) => {
  const signer = clientSigner(secret, chainId);
  t.ok(equalBytes(signer.publicKey, secret.publicKey));
  t.ok(verifies(bundleSigningBytes(chainId, A), signer.signBundle(A)));
  t.notOk(verifies(bundleSigningBytes(A, A), signer.signBundle(A)), 'of this chain');
  t.ok(verifies(frameSigningBytes(chainId, 'hello', A), signer.signStatement('hello', A)));
  t.throws(() => signer.signStatement('prepare', A), { code: 'guard-binding-kind' });
  t.throws(() => signer.signStatement('submit', A), { code: 'guard-binding-kind' });
});

t.test(
  'GRD-1: a pledge is signed only after exactly it was promised and is durable; a batch is all or nothing',
  async (t) => {
    const path = newPath();
    let guard = await freshGuard(path);
    const one = prepare(0, 1, A);
    t.throws(() => sign(guard, one), { code: 'guard-not-promised' });
    const pending = promise(guard, one);
    t.throws(() => sign(guard, one), { code: 'guard-not-promised' }, 'not durable yet');
    await pending;
    const signature = sign(guard, one);
    t.ok(verifies(voteSigningBytes(chainId, { phase: 'prepare', ...one.pledge }), signature));
    t.ok(equalBytes(sign(guard, one), signature), 'the same pledge has the same signature');
    t.throws(() => sign(guard, prepare(0, 1, B)), { code: 'guard-not-promised' });
    t.throws(() => sign(guard, commit(0, 1, A)), { code: 'guard-not-promised' });

    const before = await readFile(path);
    const foreign = { ...prepare(0, 1, A), pledge: { ...prepare(0, 1, A).pledge, epoch: asEpoch(1) } };
    await t.rejects(promise(guard, prepare(0, 2, A), foreign), { code: 'guard-wrong-epoch' });
    t.throws(() => sign(guard, prepare(0, 2, A)), { code: 'guard-not-promised' });
    t.ok(equalBytes(before, await readFile(path)), 'nothing was written');
    await promise(guard, prepare(0, 2, B));
    const held = () => guard.state.marks.map(({ height, hash }) => `${height} ${toHex(hash).slice(0, 2)}`);
    t.strictSame(held(), ['1 aa', '2 bb']);

    const second = await readFile(path);
    await t.rejects(promise(guard, prepare(0, 3, A), prepare(0, 1, B)), { code: 'guard-conflict' });
    t.throws(() => sign(guard, prepare(0, 3, A)), { code: 'guard-not-promised' });
    t.ok(equalBytes(second, await readFile(path)), 'nothing was written');
    t.strictSame(held(), ['1 aa', '2 bb']);

    guard = await reopened(guard, path);
    t.throws(() => sign(guard, one), { code: 'guard-not-promised' }, 'promises are given again after a restart');
    const unchanged = await readFile(path);
    await promise(guard, one);
    t.ok(equalBytes(unchanged, await readFile(path)), 'a mark that is held needs no write');
    t.ok(equalBytes(sign(guard, one), signature));
    await promise(guard, prepare(0, 3, B));
    t.strictSame(held(), ['1 aa', '2 bb', '3 bb'], 'the place that the conflict came with was not taken');

    // Many at once: each waits for a write that carries it, and they share writes.
    const many = Array.from({ length: 20 }, (_, i) => prepare(0, 10 + i, A));
    const waits = many.map((pledge) => promise(guard, pledge));
    await Promise.all(waits);
    for (const pledge of many)
      t.ok(verifies(voteSigningBytes(chainId, { phase: 'prepare', ...pledge.pledge }), sign(guard, pledge)));
    guard = await reopened(guard, path);
    t.equal(guard.state.marks.length, 23);

    // In one batch the votes of a view may stand before the change that ends it, and all are signed.
    const batch = [commit(0, 1, A), viewChange(1, A)];
    await promise(guard, ...batch);
    for (const pledge of batch) t.equal(sign(guard, pledge).length, 64);
    await t.rejects(promise(guard, viewChange(2, A), commit(1, 1, A)), { code: 'guard-view-passed' });
    t.equal(guard.state.view, 1);
    await guard.close();
  },
);

t.test('GRD-2: at one view, height and phase a key signs one hash', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  for (const at of [prepare, commit]) {
    await promiseAndSign(guard, at(3, 7, A));
    await t.rejects(promise(guard, at(3, 7, B)), { code: 'guard-conflict' });
    guard = await reopened(guard, path);
  }
  for (const at of [prepare, commit]) {
    await t.rejects(promise(guard, at(3, 7, B)), { code: 'guard-conflict' }, 'after a restart');
    guard = await reopened(guard, path);
    await promiseAndSign(guard, at(3, 7, A));
    guard = await reopened(guard, path);
  }
  await promise(guard, prepare(3, 9, A));
  await promise(guard, commit(3, 9, B), commit(3, 8, B));
  guard = await reopened(guard, path);
  t.strictSame(
    guard.state.marks.map(({ phase, view, height, hash }) => `${phase} ${view} ${height} ${toHex(hash).slice(0, 2)}`),
    ['prepare 3 7 aa', 'commit 3 7 aa', 'commit 3 8 bb', 'prepare 3 9 aa', 'commit 3 9 bb'],
  );
  await guard.close();
});

t.test('GRD-3 and GRD-4: marks are kept for the highest view, and below it nothing is voted for', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await promise(guard, prepare(2, 5, A));
  await promise(guard, prepare(4, 5, B));
  t.equal(guard.state.view, 4);
  t.equal(guard.state.marks.length, 1);
  for (const pledge of [prepare(3, 9, A), commit(2, 5, A), prepare(2, 5, A)]) {
    await t.rejects(promise(guard, pledge), { code: 'guard-view-passed' });
  }
  await promise(guard, viewChange(6, A));
  guard = await reopened(guard, path);
  t.equal(guard.state.view, 6);
  t.strictSame(guard.state.viewChange, { view: 6, digest: new Uint8Array(native.sha256(A)) });
  await t.rejects(promise(guard, commit(5, 6, A)), { code: 'guard-view-passed' });
  await t.rejects(promise(guard, prepare(4, 5, B)), { code: 'guard-view-passed' });
  await promiseAndSign(guard, prepare(6, 1, A));
  await guard.close();
});

t.test('GRD-5: marks are bounded, and what is forgotten is refused', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  for (let height = 1; height <= heightsMax + 3; height++)
    await promise(guard, prepare(1, height, A), commit(1, height, A));
  for (let round = 0; round < 2; round++) {
    t.equal(guard.state.marks.length, 2 * heightsMax);
    await t.rejects(promise(guard, prepare(1, 3, A)), { code: 'guard-height-passed' });
    await t.rejects(promise(guard, commit(1, 1, B)), { code: 'guard-height-passed' });
    await promiseAndSign(guard, prepare(1, 4, A));
    await t.rejects(promise(guard, prepare(1, 4, B)), { code: 'guard-conflict' });
    guard = await reopened(guard, path);
  }
  await promiseAndSign(guard, prepare(2, 1, B));
  t.equal(guard.state.marks.length, 1, 'a new view has a floor of its own');
  await guard.close();
});

t.test('GRD-5: what the log holds as decided is forgotten, and refused, across a restart too', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  for (let height = 1; height <= 9; height++) await promise(guard, prepare(1, height, A), commit(1, height, A));
  const decided = asHeight(7);
  await guard.promise({ pledges: [prepare(1, 10, A)], lock: null, log: start, decided });
  for (let round = 0; round < 2; round++) {
    t.strictSame(
      guard.state.marks.map(({ height }) => Number(height)),
      [8, 8, 9, 9, 10],
    );
    await t.rejects(promise(guard, prepare(1, 7, A)), { code: 'guard-height-passed' });
    await t.rejects(promise(guard, commit(1, 2, B)), { code: 'guard-height-passed' });
    await t.rejects(promise(guard, prepare(1, 8, B)), { code: 'guard-conflict' }, 'what is not decided is remembered');
    guard = await reopened(guard, path);
    await guard.promise({ pledges: [prepare(1, 9, A)], lock: null, log: start, decided: asHeight(3) });
  }
  await t.rejects(
    guard.promise({ pledges: [prepare(1, 10, A), prepare(1, 9, B)], lock: null, log: start, decided: asHeight(9) }),
    { code: 'guard-height-passed' },
  );
  t.equal(guard.state.marks.length, 5, 'a batch is all or nothing, what it forgets too');
  await guard.close();
});

t.test('GRD-6: a proposal is signed at once in a view whose lead is durable, at rising heights', async (t) => {
  const guard = await freshGuard();
  t.throws(() => guard.signProposal(proposal(0, 1, A)), { code: 'guard-not-leading' });
  const leading = guard.lead(asView(0));
  t.throws(() => guard.signProposal(proposal(0, 1, A)), { code: 'guard-not-leading' }, 'not durable yet');
  await leading;
  await guard.lead(asView(0));
  const signature = guard.signProposal(proposal(0, 1, A));
  t.ok(verifies(voteSigningBytes(chainId, { phase: 'prepare', ...proposal(0, 1, A) }), signature));
  t.ok(equalBytes(signature, guard.signProposal(proposal(0, 1, A))));
  guard.signProposal(proposal(0, 5, A));
  t.throws(() => guard.signProposal(proposal(0, 4, A)), { code: 'guard-height-passed' });
  t.throws(() => guard.signProposal(proposal(1, 6, A)), { code: 'guard-not-leading' });
  // The primary's own prepare says what its proposal said, and the other way round.
  await t.rejects(promise(guard, prepare(0, 4, B)), { code: 'guard-height-passed' });
  await promise(guard, prepare(0, 5, A));
  t.ok(equalBytes(await promiseAndSign(guard, prepare(0, 1, A)), signature));
  await promise(guard, prepare(0, 6, A));
  guard.signProposal(proposal(0, 6, A));
  for (let height = 7; height < 7 + 2 * heightsMax; height++) guard.signProposal(proposal(0, height, A));
  t.throws(
    () => guard.signProposal(proposal(0, 7, A)),
    { code: 'guard-height-passed' },
    'what is forgotten is refused',
  );
  for (const hash of [A, B]) await t.rejects(promise(guard, prepare(0, 7, hash)), { code: 'guard-height-passed' });

  const changing = promise(guard, viewChange(1, A));
  t.throws(() => guard.signProposal(proposal(0, 900, A)), { code: 'guard-view-passed' }, 'from the promise on');
  await changing;
  await t.rejects(guard.lead(asView(0)), { code: 'guard-view-passed' });
  await guard.lead(asView(1));
  guard.signProposal(proposal(1, 1, B));
  await guard.lead(asView(2));
  guard.signProposal(proposal(2, 1, A));
  t.equal(guard.state.burned, null, 'none of these contradicts anything');
  t.throws(() => guard.signProposal(proposal(2, 1, B)), { code: 'guard-conflict' });
  await guard.lead(asView(3));
  await promiseAndSign(guard, prepare(3, 1, B));
  t.throws(() => guard.signProposal(proposal(3, 1, A)), { code: 'guard-conflict' });
  await guard.lead(asView(4));
  guard.signProposal(proposal(4, 1, A));
  await t.rejects(promise(guard, prepare(4, 1, B)), { code: 'guard-conflict' });
  await guard.close();
});

t.test('GRD-6 and PBFT-NV-3: a primary prepares the base of its view after it has proposed above it', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await guard.lead(asView(4));
  guard.signProposal(proposal(4, 11, A));
  const base = prepare(4, 10, B);
  const signature = await promiseAndSign(guard, base);
  t.ok(verifies(voteSigningBytes(chainId, { phase: 'prepare', ...base.pledge }), signature));
  await promiseAndSign(guard, commit(4, 10, B));
  guard.signProposal(proposal(4, 14, A));
  for (const height of [12, 13]) {
    await t.rejects(promise(guard, prepare(4, height, A)), { code: 'guard-height-passed' }, 'between proposals');
  }
  for (const height of [9, 12, 13]) {
    t.throws(() => guard.signProposal(proposal(4, height, A)), { code: 'guard-height-passed' });
  }
  t.throws(() => guard.signProposal(proposal(4, 10, B)), { code: 'guard-height-passed' }, 'the base is not proposed');
  t.equal(guard.state.burned, null, 'none of them contradicts a mark');
  t.ok(equalBytes(await promiseAndSign(guard, base), signature), 'again, with more proposals above');
  for (const height of [11, 14]) await promiseAndSign(guard, prepare(4, height, A));
  guard.signProposal(proposal(4, 15, A));

  await t.rejects(promise(guard, prepare(4, 10, A)), { code: 'guard-conflict' }, 'there is one base');
  t.throws(() => guard.signProposal(proposal(4, 16, A)), { code: 'guard-view-burned' });
  await guard.lead(asView(5));
  await promiseAndSign(guard, prepare(5, 10, A));
  guard.signProposal(proposal(5, 11, A));
  guard = await reopened(guard, path);
  await t.rejects(promise(guard, prepare(5, 10, A)), { code: 'guard-view-burned' }, 'as ever, after a restart');
  await guard.close();
});

t.test('GRD-7: a view that was led is burned at the next start', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await guard.lead(asView(3));
  guard.signProposal(proposal(3, 1, A));
  await promise(guard, prepare(3, 1, A));
  guard = await reopened(guard, path);
  t.match(guard.state, { led: 3, burned: 3, view: 3 });
  for (const view of [2, 3]) {
    await t.rejects(promise(guard, prepare(view, 1, A)), { code: 'guard-view-burned' });
    await t.rejects(promise(guard, commit(view, 9, A)), { code: 'guard-view-burned' });
    await t.rejects(guard.lead(asView(view)), { code: 'guard-view-burned' });
    t.throws(() => guard.signProposal(proposal(view, 2, B)), { code: 'guard-view-burned' });
  }
  await promiseAndSign(guard, viewChange(4, A));
  await promiseAndSign(guard, prepare(4, 1, B));
  guard = await reopened(guard, path);
  t.equal(guard.state.burned, 3, 'for ever');
  await promiseAndSign(guard, commit(4, 1, B));
  await guard.close();
});

t.test('GRD-8: one checkpoint digest a height, rising', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  const text = checkpointSigningBytes(checkpoint(64, A).pledge);
  t.ok(verifies(text, await promiseAndSign(guard, checkpoint(64, A))), 'the text itself is signed');
  await t.rejects(promise(guard, checkpoint(64, B)), { code: 'guard-conflict' });
  await t.rejects(promise(guard, checkpoint(32, A)), { code: 'guard-height-passed' });
  for (let i = 2; i <= checkpointsMax + 1; i++) await promise(guard, checkpoint(64 * i, A));
  guard = await reopened(guard, path);
  await promiseAndSign(guard, checkpoint(128, A));
  await t.rejects(promise(guard, checkpoint(128, B)), { code: 'guard-conflict' });
  await t.rejects(promise(guard, checkpoint(64, A)), { code: 'guard-height-passed' }, 'the last eight are held');
  await guard.close();
  for (const bytes of [ascii('no newline'), voteSigningBytes(chainId, { phase: 'commit', ...proposal(0, 1, A) })]) {
    const odd = await openGuard(optionsFor(newPath(), { create: true, checkpointSigningBytes: () => bytes }));
    await t.rejects(promise(odd, checkpoint(64, A)), { code: 'guard-binding-kind' }, 'a vote is no note');
    await odd.close();
  }
});

t.test('GRD-9: one payload of a view-change and of a new-view a view', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  for (const [kind, pledge] of [
    ['view-change', viewChange],
    ['new-view', newView],
  ] as const) {
    t.ok(verifies(frameSigningBytes(chainId, kind, A), await promiseAndSign(guard, pledge(5, A))));
    await t.rejects(promise(guard, pledge(5, B)), { code: 'guard-conflict' });
    t.throws(() => sign(guard, pledge(5, B)), { code: 'guard-not-promised' });
    await t.rejects(promise(guard, pledge(4, A)), { code: 'guard-view-passed' });
  }
  await promise(guard, prepare(7, 1, A));
  guard = await reopened(guard, path);
  for (const pledge of [viewChange, newView]) {
    await promiseAndSign(guard, pledge(5, A));
    await t.rejects(promise(guard, pledge(5, B)), { code: 'guard-conflict' });
    await t.rejects(promise(guard, pledge(6, A)), { code: 'guard-view-passed' });
  }
  await guard.close();
});

t.test('GRD-10: marks belong to one key, one chain and one epoch', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await guard.promise({ pledges: [prepare(5, 1, A), checkpoint(64, A)], lock: A, log: start });
  await guard.lead(asView(5));
  const wrong = { ...prepare(5, 1, A), pledge: { ...prepare(5, 1, A).pledge, epoch: asEpoch(1) } };
  await t.rejects(promise(guard, wrong), { code: 'guard-wrong-epoch' });
  t.throws(() => guard.signProposal({ ...proposal(5, 1, A), epoch: asEpoch(1) }), { code: 'guard-wrong-epoch' });
  await guard.close();
  await t.rejects(openGuard(optionsFor(path, { secret: SecretKey.generate() })), { code: 'guard-wrong-owner' });
  await t.rejects(openGuard(optionsFor(path, { chainId: A })), { code: 'guard-wrong-owner' });
  guard = await openGuard(optionsFor(path, { epoch: asEpoch(2) }));
  t.match(guard.state, { epoch: 2, view: 0, led: null, burned: null, lock: null, marks: [] });
  await t.rejects(
    guard.lead(asView(0)).then(() => promise(guard, prepare(0, 1, A))),
    { code: 'guard-wrong-epoch' },
  );
  const again = { pledge: { ...checkpoint(64, B).pledge, epoch: asEpoch(2) }, payload: none };
  await t.rejects(promise(guard, again), { code: 'guard-conflict' }, 'heights go on');
  await guard.close();
  await t.rejects(openGuard(optionsFor(path, { epoch: asEpoch(1) })), { code: 'guard-epoch-passed' });
  guard = await openGuard(optionsFor(path, { epoch: null }));
  t.equal(guard.state.epoch, 2, "the file's own, where the log is still to say which");
  await guard.close();
});

t.test('GRD-10: a guard that goes on in the next epoch is one that was opened there', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await guard.lead(asView(3));
  guard.signProposal(proposal(3, 1, A));
  await guard.promise({ pledges: [prepare(5, 1, A), checkpoint(64, A)], lock: A, log: start });
  t.throws(() => guard.beginEpoch(asEpoch(0)), { code: 'guard-epoch-passed' }, 'the same one');
  guard.beginEpoch(asEpoch(2));
  t.match(guard.state, { epoch: 2, view: 0, led: null, burned: null, lock: null, marks: [] });
  t.throws(
    () => guard.sign(prepare(5, 1, A).pledge, none),
    { code: 'guard-not-promised' },
    'what was promised is forgotten',
  );
  const { state } = guard;
  t.throws(() => guard.beginEpoch(asEpoch(1)), { code: 'guard-epoch-passed' });
  const again = { pledge: { ...checkpoint(64, B).pledge, epoch: asEpoch(2) }, payload: none };
  await t.rejects(promise(guard, again), { code: 'guard-conflict' }, 'heights go on');
  await guard.lead(asView(0));
  guard.signProposal({ ...proposal(0, 1, B), epoch: asEpoch(2) });
  await guard.close();
  // The file of a guard that has ended in the middle of it all.
  guard = await openGuard(optionsFor(path, { epoch: null }));
  t.strictSame({ ...guard.state, burned: null, led: null }, state, 'durable');
  await guard.close();
});

t.test('GRD-10: what a guard will say of itself in a later epoch is known before it goes there', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await guard.abstain({ view: asView(1), height: asHeight(2) });
  await guard.lead(asView(3));
  guard.signProposal(proposal(3, 3, A));
  const promised = prepare(5, 3, A);
  await guard.promise({ pledges: [promised, checkpoint(64, A)], lock: A, log: start });
  const { state } = guard;
  t.throws(() => guard.stateIn(asEpoch(0)), { name: 'GuardError', code: 'guard-epoch-passed' }, 'the same one');
  const foreseen = guard.stateIn(asEpoch(2));
  t.strictSame(guard.state, state, 'nothing has changed');
  const signedBytes = voteSigningBytes(chainId, { phase: 'prepare', ...promised.pledge });
  t.ok(verifies(signedBytes, sign(guard, promised)), 'and what was promised is signed');
  guard.beginEpoch(asEpoch(2));
  t.strictSame(guard.state, foreseen);
  for (const passed of [0, 1, 2])
    t.throws(() => guard.stateIn(asEpoch(passed)), { name: 'GuardError', code: 'guard-epoch-passed' });
  t.strictSame(guard.state, foreseen);
  await guard.close();
  // Whoever asks has not gone: the file is of the epoch before.
  guard = await openGuard(optionsFor(path));
  t.strictSame(guard.stateIn(asEpoch(2)), foreseen);
  await guard.close();
});

t.test('GRD-11: a statement binds nobody', async (t) => {
  const guard = await freshGuard();
  t.ok(verifies(frameSigningBytes(chainId, 'status', A), guard.signStatement('status', A)));
  for (const kind of ['prepare', 'commit', 'checkpoint', 'view-change', 'new-view', 'pre-prepare', 'submit']) {
    t.throws(() => guard.signStatement(kind, A), { code: 'guard-binding-kind' });
  }
  for (const kind of ['', 'toString', 'approve'])
    t.throws(() => guard.signStatement(kind, A), { code: 'guard-unknown-kind' });
  await guard.close();
  const place = { phase: 'commit', ...proposal(0, 1, A) } as const;
  for (const bytes of [voteSigningBytes(chainId, place), bundleSigningBytes(chainId, A)]) {
    const odd = await openGuard(optionsFor(newPath(), { create: true, frameSigningBytes: () => bytes }));
    t.throws(() => odd.signStatement('status', A), { code: 'guard-binding-kind' }, 'whatever it is called');
    await t.rejects(promise(odd, viewChange(1, A)), { code: 'guard-binding-kind' });
    await odd.close();
  }
});

t.test('GRD-12: what a replica abstains from is not signed, in this life nor the next', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await promise(guard, prepare(1, 1, A));
  await guard.abstain({ view: asView(4), height: asHeight(100) });
  for (let round = 0; round < 2; round++) {
    t.throws(() => sign(guard, prepare(1, 1, A)), { code: 'guard-not-promised' });
    await t.rejects(promise(guard, commit(4, 101, A)), { code: 'guard-view-burned' });
    await t.rejects(guard.lead(asView(4)), { code: 'guard-view-burned' });
    await t.rejects(promise(guard, viewChange(4, A)), { code: 'guard-view-burned' });
    await t.rejects(promise(guard, prepare(5, 100, A)), { code: 'guard-height-passed' });
    await t.rejects(promise(guard, checkpoint(64, A)), { code: 'guard-height-passed' });
    guard = await reopened(guard, path);
  }
  await promiseAndSign(guard, prepare(5, 101, A));
  await guard.abstain({ view: asView(2), height: asHeight(50) });
  await t.rejects(promise(guard, prepare(6, 100, A)), { code: 'guard-height-passed' }, 'it only rises');
  await guard.lead(asView(7));
  await guard.abstain({ view: asView(7), height: asHeight(0) });
  t.throws(() => guard.signProposal(proposal(7, 200, A)), { code: 'guard-view-burned' });
  await guard.close();
});

t.test('GRD-13: the lock and the floor of the log are kept with the marks', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  const log = { sequence: 9, hash: filled(9) };
  const lock = new Uint8Array(lockBytesMax).fill(7);
  await guard.promise({ pledges: [prepare(0, 1, A)], lock, log });
  await guard.promise({ pledges: [prepare(0, 2, A)], lock: null, log });
  for (const wrong of [start, { sequence: 9, hash: filled(8) }, { sequence: 8, hash: filled(9) }]) {
    await t.rejects(guard.promise({ pledges: [prepare(0, 3, A)], lock: null, log: wrong }), {
      code: 'guard-log-behind',
    });
  }
  const tooLong = new Uint8Array(lockBytesMax + 1);
  await t.rejects(guard.promise({ pledges: [], lock: tooLong, log }), { code: 'guard-lock-too-large' });
  await t.rejects(guard.promise({ pledges: [], lock: null, log: { sequence: 10, hash: none } }), {
    name: 'InvariantViolation',
  });
  guard = await reopened(guard, path);
  t.strictSame([guard.state.floor.sequence, toHex(guard.state.floor.hash)], [9, toHex(log.hash)]);
  t.ok(equalBytes(guard.state.lock ?? none, lock));
  await guard.promise({ pledges: [], lock: A, log });
  await guard.resetFloor(start);
  guard = await reopened(guard, path);
  t.ok(equalBytes(guard.state.lock ?? none, A));
  t.equal(guard.state.floor.sequence, 0);
  await promiseAndSign(guard, prepare(0, 3, A));
  await guard.close();
});

t.test('GRD-14: after a failed write nothing is signed, until the process starts again', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  await promise(guard, prepare(0, 1, A));
  const first = promise(guard, prepare(0, 2, A));
  await first;
  closeUnder(path);
  const writing = promise(guard, prepare(0, 3, A));
  const waiting = promise(guard, prepare(0, 4, A));
  await t.rejects(writing, { code: 'guard-poisoned' });
  await t.rejects(waiting, { code: 'guard-poisoned' });
  t.throws(() => sign(guard, prepare(0, 1, A)), { code: 'guard-poisoned' });
  t.throws(() => guard.signStatement('status', A), { code: 'guard-poisoned' });
  t.throws(() => guard.signProposal(proposal(0, 9, A)), { code: 'guard-poisoned' });
  await t.rejects(promise(guard, prepare(0, 1, A)), { code: 'guard-poisoned' });
  await t.rejects(guard.lead(asView(1)), { code: 'guard-poisoned' });
  await t.rejects(guard.close(), { code: 'EBADF' });
  guard = await openGuard(optionsFor(path));
  await promiseAndSign(guard, prepare(0, 2, A));
  await guard.close();
  await guard.close();
  t.throws(() => guard.signStatement('status', A), { code: 'guard-closed' });
  await t.rejects(promise(guard, prepare(0, 1, A)), { code: 'guard-closed' });
});

/** Closes the descriptor of a file behind the back of its owner, so that its next write fails. */
function closeUnder(path: string): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    try {
      if (readlinkSync(`/proc/self/fd/${name}`) === path) closeSync(fd);
    } catch {
      // The descriptor of the listing itself is gone.
    }
  }
}

t.test('GRD-15: a missing or damaged file is not replaced and not guessed at', async (t) => {
  const path = newPath();
  await t.rejects(openGuard(optionsFor(path)), { name: 'GuardError', code: 'guard-missing' });
  const guard = await freshGuard(path);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.equal((await stat(path)).size, FILE_BYTES);
  await promise(guard, prepare(0, 1, A));
  await t.rejects(openGuard(optionsFor(path)), { code: 'guard-locked' }, 'also inside one process');
  await guard.close();
  const again = await openGuard(optionsFor(path, { create: true }));
  await t.rejects(promise(again, prepare(0, 1, B)), { code: 'guard-conflict' }, 'create keeps what is there');
  await again.close();

  const image = await readFile(path);
  const damaged: [string, Bytes][] = [
    ['empty', none],
    ['short', image.subarray(0, FILE_BYTES - 1)],
    ['long', Buffer.concat([image, Buffer.alloc(1)])],
    ['zeros', Buffer.alloc(FILE_BYTES)],
    ['one slot gone', Buffer.concat([image.subarray(0, SLOT_BYTES), Buffer.alloc(SLOT_BYTES)])],
    ['the other gone', Buffer.concat([Buffer.alloc(SLOT_BYTES), image.subarray(SLOT_BYTES)])],
    ['slots exchanged', Buffer.concat([image.subarray(SLOT_BYTES), image.subarray(0, SLOT_BYTES)])],
  ];
  for (const [what, bytes] of damaged) {
    const bad = newPath();
    await writeFile(bad, bytes);
    for (const create of [false, true]) {
      await t.rejects(openGuard(optionsFor(bad, { create })), { code: 'guard-damaged' }, what);
    }
    t.ok(equalBytes(await readFile(bad), bytes), 'evidence is left as it is');
  }
});

t.test(
  'GRD-15: a slot from before is newest only if the write after it was cut off, never if a disk lost it',
  async (t) => {
    const fileOf = (...generations: { number: number; content: Bytes }[]): Buffer => {
      const file = Buffer.alloc(FILE_BYTES);
      for (const generation of generations) file.set(encodeSlot(generation), offsetOf(generation.number));
      return file;
    };
    const content = (length: number, byte: number) => new Uint8Array(length).fill(byte);
    const older = { number: 8, content: content(2600, 8) };
    const old = { number: 9, content: content(1700, 9) };
    const fresh = { number: 10, content: content(3300, 10) };
    const read = (file: Bytes) => decodeFile(file)?.number;

    t.equal(read(fileOf(old, older)), 9);
    t.equal(read(fileOf(old, fresh)), 10);
    t.equal(read(fileOf({ number: 1, content: none })), 1, 'as it was made');
    t.equal(read(fileOf(old)), undefined, 'a slot that was never written beside one of a later generation');
    t.equal(read(fileOf({ number: 7, content: none }, fresh)), undefined, 'a generation is missing');
    const stale = fileOf(old, { number: 6, content: content(2600, 6) });
    stale.set(encodeSlot(older).subarray(0, 512), offsetOf(8));
    t.equal(read(stale), undefined, 'a cut-off write that is older than the newest');

    // Every way in which a disk can cut off the write: each sector old or new, in any order.
    const before = fileOf(older, old);
    const written = encodeSlot(fresh);
    const sectors = written.length / 512;
    for (let subset = 0; subset < 2 ** sectors; subset++) {
      const torn = Buffer.from(before);
      for (let i = 0; i < sectors; i++) {
        if (subset & (2 ** i)) torn.set(written.subarray(512 * i, 512 * (i + 1)), offsetOf(10) + 512 * i);
      }
      const got = decodeFile(torn);
      const expected = subset === 2 ** sectors - 1 ? fresh : old;
      if (got?.number !== expected.number || !equalBytes(got.content, expected.content)) t.fail(`sectors ${subset}`);
    }
    t.pass(`${2 ** sectors} torn writes`);
    // A second attempt at a generation that was torn before, torn again: sectors of one number and two contents.
    const first = encodeSlot({ number: 10, content: content(3300, 1) });
    for (let i = 1; i < sectors; i++) {
      const torn = fileOf(old);
      torn.set(first, offsetOf(10));
      torn.set(written.subarray(0, 512 * i), offsetOf(10));
      t.equal(read(torn), 9);
    }

    // A flipped bit anywhere: the newest content or none, never the one before.
    const sound = fileOf(old, fresh);
    for (let at = 0; at < FILE_BYTES; at += at % SLOT_BYTES < written.length ? 3 : 997) {
      const rotten = Buffer.from(sound);
      rotten.writeUInt8(rotten.readUInt8(at) ^ (1 << (at % 8)), at);
      const got = decodeFile(rotten);
      const inUse = at < SLOT_BYTES ? at < written.length : at - SLOT_BYTES < encodeSlot(old).length;
      const right = inUse ? got === undefined : got?.number === 10 && equalBytes(got.content, fresh.content);
      if (!right) t.fail(`a flipped bit at ${at} gives ${got?.number}`);
    }
    t.pass('flipped bits');
    // A sector of another place is not a sector of this one.
    const misplaced = Buffer.from(sound);
    misplaced.copyWithin(512 * 2, 512 * 3, 512 * 4);
    t.equal(read(misplaced), undefined);
    t.throws(() => encodeSlot({ number: 1, content: content(contentBytesMax + 1, 0) }));
    t.equal(read(fileOf({ number: 1, content: content(contentBytesMax, 1) })), 1, 'the largest content fits');
    t.equal(decodeSignState(content(100, 1)), undefined);
    t.equal(decodeSignState(none), undefined);
  },
);

t.test('GRD-15: the content comes back as it was written, at its largest too', async (t) => {
  const path = newPath();
  const guard = await freshGuard(path);
  const pledges: PledgePayload[] = [viewChange(9, A), newView(9, B)];
  for (let height = 1; height <= heightsMax; height++) pledges.push(prepare(9, height, A), commit(9, height, B));
  for (let i = 1; i <= checkpointsMax; i++) pledges.push(checkpoint(64 * i, A));
  await guard.promise({ pledges, lock: new Uint8Array(lockBytesMax).fill(1), log: { sequence: 2 ** 53 - 1, hash: A } });
  await guard.lead(asView(9));
  const { state } = guard;
  await guard.close();
  const content = decodeFile(await readFile(path))?.content ?? none;
  t.equal(content.length, contentBytesMax);
  const decoded = decodeSignState(content);
  t.ok(decoded !== undefined && equalBytes(encodeSignState(decoded), content));
  t.equal(decodeSignState(content.subarray(0, -1)), undefined);
  t.equal(decodeSignState(Buffer.concat([content, none, A])), undefined);
  const again = await openGuard(optionsFor(path));
  t.strictSame(inspect({ ...again.state, burned: null }, { depth: 9 }), inspect(state, { depth: 9 }));
  await again.close();
});

t.test('GRD-17: after a vote that contradicts a mark no vote of its view is promised any more', async (t) => {
  for (const at of [prepare, commit]) {
    const path = newPath();
    const guard = await freshGuard(path);
    await promise(guard, prepare(3, 7, A), commit(3, 7, A));
    const before = await readFile(path);
    await t.rejects(promise(guard, at(3, 7, B)), { code: 'guard-conflict' });
    t.match(guard.state, { burned: 3, view: 3, led: null });
    const refused = [
      prepare(3, 8, A),
      commit(3, 8, B),
      prepare(3, 6, A),
      prepare(3, 7, A),
      commit(3, 7, A),
      at(3, 7, B),
    ];
    for (const pledge of refused) {
      await t.rejects(promise(guard, pledge), { code: 'guard-view-burned' }, 'at a free height, and what is held too');
    }
    t.throws(() => sign(guard, prepare(3, 8, A)), { code: 'guard-not-promised' });
    await t.rejects(guard.lead(asView(3)), { code: 'guard-view-burned' });
    t.throws(() => guard.signProposal(proposal(3, 8, A)), { code: 'guard-view-burned' });
    await t.rejects(promise(guard, viewChange(4, A), prepare(3, 8, A)), { code: 'guard-view-burned' });
    t.equal(guard.state.marks.length, 2);
    t.ok(equalBytes(before, await readFile(path)), 'nothing was written');

    // The way out: the next view, as a follower and as its primary. Checkpoints are of no view.
    t.ok(verifies(frameSigningBytes(chainId, 'view-change', A), await promiseAndSign(guard, viewChange(4, A))));
    await promiseAndSign(guard, checkpoint(64, A));
    await promiseAndSign(guard, newView(4, A));
    await promiseAndSign(guard, prepare(4, 7, B));
    await promiseAndSign(guard, commit(4, 7, B));
    await guard.lead(asView(5));
    t.equal(guard.signProposal(proposal(5, 8, A)).length, 64);
    t.equal(guard.state.burned, 3);
    await guard.close();
  }
});

t.test('GRD-17: a burned view is forgotten at a restart; the mark is not, and burns it again', async (t) => {
  const path = newPath();
  let guard = await freshGuard(path);
  const signature = await promiseAndSign(guard, prepare(3, 7, A));
  for (let round = 0; round < 2; round++) {
    await t.rejects(promise(guard, prepare(3, 7, B)), { code: 'guard-conflict' });
    await t.rejects(promise(guard, prepare(3, 8, B)), { code: 'guard-view-burned' });
    t.equal(guard.state.burned, 3);
    guard = await reopened(guard, path);
    t.match(guard.state, { burned: null, view: 3 });
  }
  t.ok(equalBytes(await promiseAndSign(guard, prepare(3, 7, A)), signature), 'who remembers goes on');
  await promiseAndSign(guard, prepare(3, 8, A));
  await guard.close();
});

t.test('GRD-17: a prepare that contradicts a proposal burns the view; other refusals burn nothing', async (t) => {
  const guard = await freshGuard();
  await promise(guard, prepare(2, 1, A), checkpoint(64, A), viewChange(2, A), newView(2, A));
  for (const other of [checkpoint(64, B), viewChange(2, B), newView(2, B)]) {
    await t.rejects(promise(guard, other), { code: 'guard-conflict' }, 'not a vote');
  }
  await t.rejects(promise(guard, prepare(1, 1, B)), { code: 'guard-view-passed' });
  t.throws(() => sign(guard, prepare(2, 1, B)), { code: 'guard-not-promised' }, 'never asked to promise it');
  t.equal(guard.state.burned, null);
  await promiseAndSign(guard, prepare(2, 2, A));

  await guard.lead(asView(3));
  guard.signProposal(proposal(3, 5, A));
  await t.rejects(promise(guard, prepare(3, 5, B)), { code: 'guard-conflict' });
  t.throws(() => guard.signProposal(proposal(3, 6, A)), { code: 'guard-view-burned' });
  t.throws(() => guard.signProposal(proposal(3, 5, A)), { code: 'guard-view-burned' });
  await t.rejects(promise(guard, prepare(3, 4, A)), { code: 'guard-view-burned' }, 'the base neither');
  await t.rejects(promise(guard, commit(3, 5, A)), { code: 'guard-view-burned' });
  await promiseAndSign(guard, viewChange(4, A));

  await guard.lead(asView(5));
  await promise(guard, prepare(5, 2, A)); // of the view's base
  guard.signProposal(proposal(5, 1, A));
  guard.signProposal(proposal(5, 3, A));
  await t.rejects(promise(guard, prepare(5, 2, B)), { code: 'guard-conflict' }, 'a mark between two proposals');
  t.equal(guard.state.burned, 5);
  await guard.close();
});

t.test('GRD-17: a proposal that contradicts a proposal or a mark burns the view like a vote', async (t) => {
  for (const marked of [false, true]) {
    const path = newPath();
    const guard = await freshGuard(path);
    await guard.lead(asView(3));
    // What it has signed at height 5; then it is asked for another block there, as by a core that has forgotten the first.
    const held = prepare(3, 5, A);
    if (marked) await promise(guard, held);
    else guard.signProposal(proposal(3, 5, A));
    const before = await readFile(path);
    t.throws(() => guard.signProposal(proposal(3, 5, B)), { code: 'guard-conflict' });
    t.equal(guard.state.burned, 3);
    for (const [height, hash] of [
      [6, B],
      [5, A],
      [5, B],
    ] as const) {
      t.throws(
        () => guard.signProposal(proposal(3, height, hash)),
        { code: 'guard-view-burned' },
        'nothing on top of it',
      );
      await t.rejects(promise(guard, prepare(3, height, hash)), { code: 'guard-view-burned' });
      await t.rejects(promise(guard, commit(3, height, hash)), { code: 'guard-view-burned' });
    }
    await t.rejects(guard.lead(asView(3)), { code: 'guard-view-burned' });
    t.ok(equalBytes(before, await readFile(path)), 'nothing was written');
    if (marked) t.equal(sign(guard, held).length, 64, 'what was promised stands');
    await promiseAndSign(guard, viewChange(4, A));
    await guard.lead(asView(7));
    guard.signProposal(proposal(7, 5, B));
    await guard.close();
  }
});

t.test(
  'GRD-2, GRD-6, GRD-7 and GRD-17: no sequence of requests, restarts and power cuts gets two signatures at one place',
  async (t) => {
    // Views are counted from the highest one marked, so that most requests are near what is allowed.
    const ahead = fc.constantFrom(-1, 0, 0, 0, 0, 0, 0, 1);
    const height = fc.integer({ min: 1, max: 4 });
    const hash = fc.constantFrom(A, B);
    const pledge: fc.Arbitrary<(view: number) => PledgePayload> = fc
      .record({
        kind: fc.constantFrom('prepare', 'prepare', 'commit', 'view-change', 'new-view', 'checkpoint'),
        ahead,
        height,
        hash,
      })
      .map(({ kind, ahead, height, hash }) => (marked) => {
        const view = Math.max(marked + ahead, 0);
        if (kind === 'prepare' || kind === 'commit') return vote(kind, view, height, hash);
        if (kind === 'checkpoint') return checkpoint(height, hash);
        return kind === 'view-change' ? viewChange(view, hash) : newView(view, hash);
      });
    const pledges = fc.array(pledge, { minLength: 1, maxLength: 3 });
    const single = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('promise' as const), pledges, isImpatient: fc.boolean() }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('sign' as const), pledge }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('lead' as const), ahead }) },
      { weight: 5, arbitrary: fc.record({ do: fc.constant('propose' as const), ahead, height, hash }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('power cut' as const), pledges, kept: fc.nat() }) },
    );
    // A primary that begins its view: it proposes, and only then prepares the base.
    const beginning = fc.record({ height, hash }).map(({ height, hash }) => [
      { do: 'lead' as const, ahead: 1 },
      { do: 'propose' as const, ahead: 0, height: height + 1, hash: A },
      {
        do: 'promise' as const,
        pledges: [(view: number): PledgePayload => prepare(view, height, hash)],
        isImpatient: false,
      },
    ]);
    const step = fc.oneof({ weight: 18, arbitrary: single.map((one) => [one]) }, { weight: 1, arbitrary: beginning });
    const reached = { signatures: 0, burns: 0, bases: 0 };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
        const path = newPath();
        let guard = await freshGuard(path);
        const signed = new Map<string, string>();
        const record = (place: string, said: Bytes) => {
          if ((signed.get(place) ?? toHex(said)) !== toHex(said)) throw new Error(`two signatures at ${place}`);
          signed.set(place, toHex(said));
        };
        const trySign = (wanted: PledgePayload) =>
          refusable(() => {
            sign(guard, wanted);
            record(...placeOf(wanted));
          });
        const model = new VoteModel(guard.state);
        for (const step of steps.flat()) {
          const { view } = guard.state;
          switch (step.do) {
            case 'promise': {
              const wanted = step.pledges.map((of) => of(view));
              const promised = settled(promise(guard, ...wanted));
              if (step.isImpatient) for (const one of wanted) trySign(one);
              model.promise(wanted, await promised);
              for (const one of wanted) trySign(one);
              break;
            }
            case 'sign':
              trySign(step.pledge(view));
              break;
            case 'lead': {
              const led = Math.max(view + step.ahead, 0);
              model.lead(led, await settled(guard.lead(asView(led))));
              break;
            }
            case 'propose': {
              const place = proposal(Math.max(view + step.ahead, 0), step.height, step.hash);
              const refusal = refusable(() => {
                guard.signProposal(place);
                record(...placeOf(prepare(place.view, place.height, place.hash)));
              });
              model.propose(place, refusal);
              break;
            }
            case 'restart':
              guard = await reopened(guard, path);
              model.restart();
              break;
            case 'power cut': {
              // The write is cut off, so the process never hears that it is durable, and signs nothing of it.
              const image = await readFile(path);
              await settled(promise(guard, ...step.pledges.map((of) => of(view))));
              await guard.close();
              const after = await readFile(path);
              for (let at = 0; at < FILE_BYTES; at += 512) {
                if ((step.kept >> ((at / 512) % 30)) & 1) after.copy(image, at, at, at + 512);
              }
              await writeFile(path, image);
              guard = await openGuard(optionsFor(path));
              model.read(guard.state);
              break;
            }
          }
          model.assertLike(guard.state);
        }
        reached.signatures += signed.size;
        reached.burns += model.burns;
        reached.bases += model.bases;
        await guard.close();
        await rm(path);
      }),
      { numRuns: 70 },
    );
    t.ok(reached.signatures > 150, `${reached.signatures} places signed at`);
    t.ok(reached.burns > 5, `${reached.burns} views burned by a conflict`);
    t.ok(reached.bases > 20, `${reached.bases} prepares below a proposal`);
  },
);

/** The place of a pledge as its peers see it, and what it says there. */
function placeOf({ pledge, payload }: PledgePayload): [string, Bytes] {
  switch (pledge.kind) {
    case 'prepare':
    case 'commit':
      return [`${pledge.kind} ${pledge.view} ${pledge.height}`, pledge.hash];
    case 'checkpoint':
      return [`${pledge.kind} ${pledge.height}`, pledge.hash];
    default:
      return [
        `${pledge.kind} ${'view' in pledge ? pledge.view : 'ballot' in pledge ? pledge.ballot : pledge.term}`,
        payload,
      ];
  }
}

/** Null: it was not refused. */
function refusable(attempt: () => void): GuardRefusal | null {
  try {
    attempt();
    return null;
  } catch (error) {
    if (!(error instanceof GuardRefusal)) throw error;
    return error;
  }
}

async function settled(promise: Promise<void>): Promise<GuardRefusal | null> {
  try {
    await promise;
    return null;
  } catch (error) {
    if (!(error instanceof GuardRefusal)) throw error;
    return error;
  }
}

type VoteCode =
  | 'none'
  | 'guard-conflict'
  | 'guard-height-passed'
  | 'guard-not-leading'
  | `guard-view-${'burned' | 'passed'}`;

/** GRD-2, GRD-4, GRD-6, GRD-7 and GRD-17 once more, for a guard that forgets no height: which votes it refuses, and as what. */
class VoteModel {
  /** How often a conflict burned a view that was not burned yet. */
  burns = 0;
  /** How many prepares below the lowest proposal of their view were promised. */
  bases = 0;
  #view = 0;
  #led = -1;
  #burned = -1;
  /** By phase and height, of `#view`. */
  #votes = new Map<string, Hash>();
  /** The view led by this incarnation, and what it proposed there. */
  #leads = -1;
  #proposed = new Map<number, Hash>();

  constructor(state: GuardState) {
    this.read(state);
  }

  /** Of a guard that has just been opened: what a power cut left. */
  read(state: GuardState): void {
    this.#view = state.view;
    this.#led = state.led ?? -1;
    this.#votes = new Map(state.marks.map(({ phase, height, hash }) => [`${phase} ${height}`, hash]));
    this.restart();
  }

  restart(): void {
    this.#burned = this.#led;
    this.#leads = -1;
    this.#proposed = new Map();
  }

  assertLike({ view, burned, led, marks }: GuardState): void {
    same('view', view, this.#view);
    same('led', led ?? -1, this.#led);
    same('burned', burned ?? -1, this.#burned);
    same('votes', marks.length, this.#votes.size);
  }

  promise(pledges: readonly PledgePayload[], refusal: GuardRefusal | null): void {
    // What is refused for another pledge than a vote is no matter of this model.
    if (['checkpoint', 'view-change', 'new-view'].includes(String(refusal?.fields.kind))) return;
    const before = { view: this.#view, votes: new Map(this.#votes), bases: this.bases };
    let code: VoteCode = 'none';
    for (const { pledge } of pledges) {
      if (pledge.kind === 'checkpoint' || 'ballot' in pledge || 'term' in pledge) continue;
      if (pledge.kind === 'prepare' || pledge.kind === 'commit') code = this.#vote(pledge);
      else this.#raise(pledge.view);
      if (code === 'none') continue;
      this.#view = before.view;
      this.#votes = before.votes;
      this.bases = before.bases;
      this.#burnIf(code, pledge.view);
      break;
    }
    same('promise', refusal?.code ?? 'none', code);
  }

  lead(view: number, refusal: GuardRefusal | null): void {
    const code = this.#votable(view);
    same('lead', refusal?.code ?? 'none', code);
    if (code !== 'none') return;
    this.#raise(view);
    this.#led = view;
    if (this.#leads !== view) this.#proposed = new Map();
    this.#leads = view;
  }

  propose({ view, height, hash }: ProposalPlace, refusal: GuardRefusal | null): void {
    let code = this.#votable(view);
    if (code === 'none' && view !== this.#leads) code = 'guard-not-leading';
    if (code === 'none' && this.#contradicts('prepare', view, height, hash)) code = 'guard-conflict';
    if (code === 'none') code = this.#agrees(height, hash);
    const isNew = !this.#proposed.has(height);
    if (code === 'none' && isNew && height < Math.max(...this.#proposed.keys())) code = 'guard-height-passed';
    same('propose', refusal?.code ?? 'none', code);
    this.#burnIf(code, view);
    if (code === 'none') this.#proposed.set(height, hash);
  }

  #burnIf(code: VoteCode, view: number): void {
    if (code !== 'guard-conflict') return;
    if (view > this.#burned) this.burns += 1;
    this.#burned = Math.max(this.#burned, view);
  }

  #vote({ kind, view, height, hash }: Vote): VoteCode {
    const votable = this.#votable(view);
    if (votable !== 'none') return votable;
    if (this.#contradicts(kind, view, height, hash)) return 'guard-conflict';
    const isHeld = view === this.#view && this.#votes.has(`${kind} ${height}`);
    const code = kind === 'prepare' && view === this.#leads && !isHeld ? this.#agrees(height, hash) : 'none';
    if (code !== 'none') return code;
    this.#raise(view);
    this.#votes.set(`${kind} ${height}`, hash);
    const isBase = kind === 'prepare' && view === this.#leads && height < Math.min(...this.#proposed.keys());
    if (isBase && this.#proposed.size > 0) this.bases += 1;
    return 'none';
  }

  #votable(view: number): VoteCode {
    if (view <= this.#burned) return 'guard-view-burned';
    return view < this.#view ? 'guard-view-passed' : 'none';
  }

  #contradicts(phase: 'prepare' | 'commit', view: number, height: number, hash: Hash): boolean {
    const held = view === this.#view ? this.#votes.get(`${phase} ${height}`) : undefined;
    return held !== undefined && !equalBytes(held, hash);
  }

  /** In the led view: what was proposed, or below all of it, or above. */
  #agrees(height: number, hash: Hash): VoteCode {
    const proposed = this.#proposed.get(height);
    if (proposed !== undefined) return equalBytes(proposed, hash) ? 'none' : 'guard-conflict';
    const heights = [...this.#proposed.keys()];
    return Math.min(...heights) < height && height < Math.max(...heights) ? 'guard-height-passed' : 'none';
  }

  #raise(view: number): void {
    if (view > this.#view) this.#votes = new Map();
    this.#view = Math.max(view, this.#view);
  }
}

function same(what: string, got: unknown, expected: unknown): void {
  if (got !== expected) throw new Error(`${what}: ${got}, not ${expected}`);
}

// ---- other processes ------------------------------------------------------------------------------------------------------

/** For an import inside the code of a child. */
function url(path: string): string {
  return JSON.stringify(new URL(`../${path}`, import.meta.url).href);
}

interface Child {
  /** The next line of its output. */
  line(): Promise<string>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

function runChild(code: string): Child {
  const child: ChildProcess = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    line: async () => String((await lines.next()).value),
    kill: () => {
      child.kill('SIGKILL');
      return ended;
    },
  };
}

/** A process that opens the guard of a path and does something with it, then stays until it is killed. */
function guardChild(path: string, code: string): Child {
  return runChild(`
    const { openGuard } = await import(${url('keys/guard.js')});
    const { SecretKey } = await import(${url('keys/keypair.js')});
    const hash = (byte) => new Uint8Array(32).fill(byte);
    const log = { sequence: 0, hash: hash(0) };
    const payload = new Uint8Array(0);
    const prepare = (view, height, byte) => ({ kind: 'prepare', epoch: 0, view, height, hash: hash(byte) });
    const options = {
      path: ${JSON.stringify(path)}, secret: SecretKey.fromSeed(Buffer.from('${toHex(seed)}', 'hex')),
      chainId: hash(0xc1), epoch: 0, create: true, checkpointSigningBytes: () => payload,
    };
    setInterval(() => {}, 1000);
    const guard = await openGuard(options);
    ${code}
  `);
}

t.test('GRD-16: one process per file, and a killed one leaves no lock behind', async (t) => {
  const path = newPath();
  const holder = guardChild(path, `console.log('open');`);
  t.equal(await holder.line(), 'open');
  await t.rejects(openGuard(optionsFor(path)), { code: 'guard-locked' });
  const rival = runChild(`
    const { openGuard } = await import(${url('keys/guard.js')});
    const { SecretKey } = await import(${url('keys/keypair.js')});
    const secret = SecretKey.fromSeed(Buffer.from('${toHex(seed)}', 'hex'));
    const chainId = new Uint8Array(32).fill(0xc1);
    const options = { path: ${JSON.stringify(path)}, secret, chainId, epoch: 0, create: true };
    try { await openGuard(options); console.log('open'); } catch (error) { console.log(error.code); }
  `);
  t.equal(await rival.line(), 'guard-locked');
  await rival.kill();
  await holder.kill();
  const guard = await openGuard(optionsFor(path));
  await promiseAndSign(guard, prepare(0, 1, A));
  await guard.close();
});

t.test('GRD-16: without a lock there is no guard', async (t) => {
  const path = newPath();
  await (await freshGuard(path)).close();
  const child = runChild(`
    const { openGuard } = await import(${url('keys/guard.js')});
    const { SecretKey } = await import(${url('keys/keypair.js')});
    const secret = SecretKey.fromSeed(Buffer.from('${toHex(seed)}', 'hex'));
    const chainId = new Uint8Array(32).fill(0xc1);
    process.env.PATH = '/nowhere';
    const options = { path: ${JSON.stringify(path)}, secret, chainId, epoch: 0, create: false };
    try { await openGuard(options); console.log('open'); } catch (error) { console.log(error.code); }
  `);
  t.equal(await child.line(), 'guard-lock-unavailable');
  await child.kill();
});

t.test('GRD-1 and GRD-7: a process killed after its promise, before or after it signed, is bound by it', async (t) => {
  const path = newPath();
  const voter = guardChild(
    path,
    `await guard.promise({ pledges: [{ pledge: prepare(4, 7, 0xaa), payload }], lock: null, log });
     console.log(Buffer.from(guard.sign(prepare(4, 7, 0xaa), payload)).toString('hex'));`,
  );
  const signature = await voter.line();
  await voter.kill();
  let guard = await openGuard(optionsFor(path));
  await t.rejects(promise(guard, prepare(3, 7, B)), { code: 'guard-view-passed' });
  await t.rejects(promise(guard, prepare(4, 7, B)), { code: 'guard-conflict' });
  guard = await reopened(guard, path);
  t.equal(toHex(await promiseAndSign(guard, prepare(4, 7, A))), signature);
  await guard.close();

  const primary = guardChild(
    path,
    `await guard.lead(5);
     console.log(Buffer.from(guard.signProposal(prepare(5, 8, 0xaa))).toString('hex'));`,
  );
  t.ok(verifies(voteSigningBytes(chainId, { phase: 'prepare', ...proposal(5, 8, A) }), fromHex(await primary.line())!));
  await primary.kill();
  guard = await openGuard(optionsFor(path));
  await t.rejects(promise(guard, prepare(5, 8, B)), { code: 'guard-view-burned' });
  await t.rejects(guard.lead(asView(5)), { code: 'guard-view-burned' });
  await guard.close();
});

t.test('GRD-1: a process killed at any moment of a stream of promises is bound by all it signed', async (t) => {
  const path = newPath();
  const signed = new Map<number, string>();
  let next = 1;
  for (let round = 0; round < 6; round++) {
    const first = next;
    const voter = guardChild(
      path,
      `for (let height = ${next}; ; height++) {
         const pledge = prepare(1, height, height % 251);
         await guard.promise({ pledges: [{ pledge, payload }], lock: null, log });
         console.log(height + ' ' + Buffer.from(guard.sign(pledge, payload)).toString('hex'));
       }`,
    );
    for (let i = 0; i < 5 + 7 * round; i++) {
      const [height = '', signature = ''] = (await voter.line()).split(' ');
      signed.set(Number(height), signature);
      next = Number(height) + 1;
    }
    await voter.kill();
    let guard = await openGuard(optionsFor(path));
    // The child may have gone on after the last line that was read.
    next = Math.max(next, (guard.state.marks.at(-1)?.height ?? 0) + 1);
    const lowest = guard.state.marks[0]?.height ?? 0;
    const held = new Map(guard.state.marks.map(({ height, hash }) => [Number(height), toHex(hash)]));
    for (const [height, signature] of signed) {
      if (height < lowest) {
        await t.rejects(promise(guard, prepare(1, height, filled(0xff))), { code: 'guard-height-passed' });
        continue;
      }
      t.equal(held.get(height), toHex(filled(height % 251)));
      t.equal(toHex(await promiseAndSign(guard, prepare(1, height, filled(height % 251)))), signature);
    }
    // A conflict burns the view, so each is asked of a guard of its own.
    for (const height of signed.keys()) {
      if (height < Math.max(first, lowest)) continue;
      guard = await reopened(guard, path);
      await t.rejects(promise(guard, prepare(1, height, filled(0xff))), { code: 'guard-conflict' });
    }
    await guard.close();
  }
});

t.test('GRD-1: what the guard throws holds no secret', async (t) => {
  const guard = await freshGuard();
  const errors: unknown[] = [];
  const pledges: ReplicaPledge[] = [prepare(0, 1, A).pledge, checkpoint(1, A).pledge];
  for (const pledge of pledges) {
    try {
      guard.sign(pledge, none);
    } catch (error) {
      errors.push(error);
    }
  }
  errors.push(await rejection(openGuard(optionsFor(newPath()))));
  await guard.close();
  for (const error of errors) {
    t.ok(error instanceof GuardRefusal || error instanceof GuardError);
    assertNoSecret(t, inspect(error, { depth: 20, showHidden: true }));
  }
});
