// The command line, as a user meets it: real processes, their output and their exit codes.

import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import tap from 'tap';

import { concat } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { ChainFileWriter, readChainFile } from '../daemon/cli/chain-file.ts';
import { checkAgainstGenesis, loadConfig, loadGenesis } from '../daemon/config.ts';
import { bitcoinMerkleRoot, displayed, parseBitcoinBlock } from '../daemon/demo/bitcoin.ts';
import { encodePayload } from '../protocol/codec.ts';
import { asMillis } from '../protocol/types.ts';
import { type Run, synod } from './program.ts';
import * as fx from './wire-fixtures.ts';

// tap's own 30 seconds are for tests without a cluster.
tap.setTimeout(230_000);
const fixture = fileURLToPath(new URL('../../test/fixtures/bitcoin-block-413567/block413567.raw', import.meta.url));

/** A user's mistake: one sentence with a code, no stack trace, nothing on standard output. */
function complains(
  t: Pick<typeof tap, 'equal' | 'match' | 'notMatch'>,
  run: Run,
  code: string,
  exit: number,
  sentence: RegExp,
) {
  t.equal(run.code, exit, `exit code ${exit}`);
  t.match(run.stderr, new RegExp(`^synod: .* \\[${code}\\]\\n`), `says [${code}]`);
  t.match(run.stderr, sentence);
  t.notMatch(run.stderr, /\n\s+at /, 'no stack trace');
  t.equal(run.stdout, '', 'nothing on standard output');
}

tap.test('help, version, usage', async (t) => {
  const help = await synod(['--help']);
  t.equal(help.code, 0);
  const commands = [
    'init',
    'keys',
    'start',
    'dev',
    'demo',
    'status',
    'why',
    'explain',
    'submit',
    'follow',
    'export',
    'backup',
    'restore',
    'repair',
    'verify',
    'evidence',
    'audit',
    'sim',
  ];
  for (const command of commands) t.match(help.stdout, new RegExp(`^  ${command}\\b`, 'm'));
  const pages = await Promise.all(commands.map((command) => synod([command, '--help'])));
  for (const [index, page] of pages.entries()) {
    t.equal(page.code, 0, `${commands[index]} --help`);
    t.match(page.stdout, /Examples:\n {2}\$ /, `${commands[index]} --help has examples`);
    t.equal(page.stderr, '');
  }
  const version = await synod(['--version']);
  t.match(version, { code: 0, stdout: /^\d+\.\d+\.\d+\n$/, stderr: '' });
  complains(t, await synod(['inti']), 'usage', 2, /unknown command 'inti'.*init/);
  complains(t, await synod(['init', 'net', '--replicas', '3']), 'usage', 2, /pbft needs at least 4/);
  complains(t, await synod(['init', 'net', '--hosts', 'a:1', '--replicas', '5']), 'usage', 2, /cannot be used with/);
  complains(t, await synod(['status']), 'usage', 2, /which network\?.*\n.*--network/);
});

tap.test('init: a local network', async (t) => {
  const net = join(t.testdir(), 'net');
  const made = await synod(['init', net, '--unsealed', '--name', 'harbour', '--param', 'viewTimeoutMs=900']);
  t.match(made, { code: 0, stderr: '' });
  t.match(made.stdout, /^chain [0-9a-f]{64} "harbour": pbft, 4 replicas, quorum 3, bears 1 faulty\n/);
  t.strictSame(readdirSync(net).sort(), [
    'client.key',
    'genesis.json',
    'node-0',
    'node-1',
    'node-2',
    'node-3',
    'operators',
  ]);
  t.equal(statSync(join(net, 'client.key')).mode & 0o777, 0o600, 'keys are for their owner');
  const loaded = loadGenesis(native, join(net, 'genesis.json'));
  if (!('genesis' in loaded)) return t.fail('the genesis document does not load');
  t.equal(loaded.genesis.parameters.viewTimeoutMs, 900);
  const ports = new Set<number>();
  for (const { name } of loaded.genesis.members) {
    const config = loadConfig(join(net, name, 'config.json'));
    if ('refused' in config) return t.fail(config.problem);
    t.equal(checkAgainstGenesis(config, loaded.genesis), undefined, `${name} agrees with the genesis document`);
    t.ok(existsSync(config.signState), 'a new key starts with an empty sign state');
    t.strictSame(readFileSync(join(net, name, 'genesis.json')), readFileSync(join(net, 'genesis.json')));
    ports.add(config.listen.port).add(config.http?.port ?? 0);
  }
  t.equal(ports.size, 8, 'every door has a port of its own');
  const before = readFileSync(join(net, 'genesis.json'), 'utf8');
  complains(t, await synod(['init', net, '--unsealed']), 'directory-not-empty', 2, /new directory/);
  t.equal(readFileSync(join(net, 'genesis.json'), 'utf8'), before, 'nothing is overwritten');
});

tap.test('init: a network of several hosts', async (t) => {
  const net = join(t.testdir(), 'net');
  const hosts = 'north=10.0.0.1:7000,10.0.0.2:7000,[fd00::3]:7000,west=ledger.example:7000,10.0.0.5:7000';
  t.match(await synod(['init', net, '--unsealed', '--hosts', hosts]), { code: 0, stderr: '' });
  const config = loadConfig(join(net, 'north', 'config.json'));
  if ('refused' in config) return t.fail(config.problem);
  t.strictSame(config.listen, { host: '0.0.0.0', port: 7000 });
  t.strictSame(config.http, { host: '127.0.0.1', port: 8000 });
  t.strictSame(Object.fromEntries(config.peers), {
    'node-1': 'ws://10.0.0.2:7000',
    'node-2': 'ws://[fd00::3]:7000',
    west: 'ws://ledger.example:7000',
    'node-4': 'ws://10.0.0.5:7000',
  });
});

tap.test('init: what it refuses, it refuses before it writes', async (t) => {
  const dir = t.testdir();
  const net = join(dir, 'net');
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['--name', 'No Spaces'], /name: a name of 1 to 32/],
    [['--param', 'viewTimeoutMs=soon'], /name=number/],
    [['--param', 'speed=3'], /speed/],
    [['--param', 'heartbeatMs=400'], /parameters.heartbeatMs: .*three heartbeats/],
    [['--hosts', 'a:1,b:2,c:3'], /at least 4/],
    [['--hosts', 'a:1,a=b:2,a=c:3,d:4'], /members.2.name: a stands twice/],
    [['--hosts', 'a:1,b,c:3,d:4'], /"b" is not/],
  ];
  for (const [args, sentence] of cases)
    complains(t, await synod(['init', net, '--unsealed', ...args]), 'usage', 2, sentence);
  complains(t, await synod(['init', net]), 'usage', 2, /passphrase.*\n.*--unsealed/);
  t.strictSame(readdirSync(dir), [], 'not even a draft is left');
});

tap.test('keys', async (t) => {
  const dir = t.testdir({ right: 'correct horse\n', wrong: 'battery staple\n' });
  const file = join(dir, 'one.key');
  const made = await synod(['keys', 'generate', file, '--unsealed']);
  t.match(made, { code: 0, stdout: /^[0-9a-f]{64}\n$/, stderr: '' });
  const publicKey = made.stdout.trim();
  complains(t, await synod(['keys', 'generate', file, '--unsealed']), 'key-file-exists', 2, /never overwritten/);
  t.match(await synod(['keys', 'show', file, '--json', '--check']), {
    code: 0,
    stdout: JSON.stringify({ publicKey, sealed: false, checked: true }),
  });
  t.match(await synod(['keys', 'seal', file, '--passphrase-file', join(dir, 'right')]), { code: 0, stderr: '' });
  t.notMatch(readFileSync(file, 'utf8'), /unsealed/);
  t.match(await synod(['keys', 'show', file]), { code: 0, stdout: `${publicKey}  sealed\n` });
  t.match(await synod(['keys', 'show', '--check', file], { env: { SYNOD_PASSPHRASE: 'correct horse' } }), { code: 0 });
  const wrong = await synod(['keys', 'unseal', file, '--passphrase-file', join(dir, 'wrong')]);
  complains(t, wrong, 'key-passphrase', 2, /passphrase is wrong/);
  complains(t, await synod(['keys', 'show', '--check', file]), 'key-passphrase-missing', 2, /no passphrase was given/);
  t.match(await synod(['keys', 'unseal', file, '--passphrase-file', join(dir, 'right')]), { code: 0 });
  t.match(await synod(['keys', 'show', '--check', file]), { code: 0, stdout: new RegExp(publicKey) });
  complains(t, await synod(['keys', 'show', join(dir, 'none.key')]), 'key-file-missing', 2, /no such key file/);
  complains(t, await synod(['keys', 'show', join(dir, 'right')]), 'key-file-invalid', 2, /no key file/);
  t.strictSame(readdirSync(dir).sort(), ['one.key', 'right', 'wrong'], 'no draft is left');
});

tap.test('start: a wrong config names the field and what to do', async (t) => {
  const dir = t.testdir();
  const net = join(dir, 'net');
  await synod(['init', net, '--unsealed', '--base-port', '24000']);
  const good: Record<string, unknown> = JSON.parse(readFileSync(join(net, 'node-0', 'config.json'), 'utf8'));
  const file = join(net, 'node-0', 'changed.json');
  const started = (change: Record<string, unknown>) => {
    writeFileSync(file, JSON.stringify({ ...good, ...change }));
    return synod(['start', file]);
  };
  const cases: readonly (readonly [Record<string, unknown>, string, RegExp])[] = [
    [{ listen: { host: '127.0.0.1', port: 70_000 } }, 'config-invalid', /listen\.port: .*65535/],
    [{ retainBlok: 5 }, 'config-invalid', /retainBlok: unknown field/],
    [{ log: { level: 'loud' } }, 'config-invalid', /log\.level: /],
    [{ dataDir: undefined }, 'config-invalid', /dataDir: missing/],
    [{ retainBlocks: 'some' }, 'config-invalid', /retainBlocks: a number of blocks from 1024, or "all"/],
    [{ peers: { 'node-1': 'http://x' } }, 'config-invalid', /peers\.node-1: an address such as ws:/],
    [{ member: 'node-9' }, 'config-genesis', /member: node-9 is no member.*node-0, node-1/],
    [{ peers: {} }, 'config-genesis', /peers\.node-1: missing/],
    [{ genesis: 'nowhere.json' }, 'genesis-unreadable', /nowhere\.json/],
  ];
  for (const [change, code, sentence] of cases) complains(t, await started(change), code, 2, sentence);
  writeFileSync(file, '{');
  complains(t, await synod(['start', file]), 'config-invalid', 2, /not JSON/);
  complains(t, await synod(['start', join(net, 'none.json')]), 'config-unreadable', 2, /ENOENT/);
  mkdirSync(join(dir, 'other'));
  writeFileSync(join(dir, 'other', 'genesis.json'), '{"synod":2}');
  complains(t, await started({ genesis: join(dir, 'other', 'genesis.json') }), 'genesis-invalid', 2, /synod: /);
});

tap.test('verify: what is no proof', async (t) => {
  const dir = t.testdir({ empty: '', text: 'hello', json: '{"synod":"transaction-receipt"}' });
  await synod(['init', join(dir, 'net'), '--unsealed']);
  const genesis = ['--genesis', join(dir, 'net', 'genesis.json')];
  for (const name of ['empty', 'text', 'json'])
    complains(t, await synod(['verify', join(dir, name), ...genesis]), 'receipt-malformed', 3, /not proved/);
  writeFileSync(join(dir, 'chain'), Buffer.concat([Buffer.from('synod-v1:chain\0\0'), Buffer.alloc(32)]));
  complains(t, await synod(['verify', join(dir, 'chain'), ...genesis]), 'chain-file-other-chain', 3, /another chain/);
  writeFileSync(join(dir, 'chain'), 'synod-v1:chain\0\0');
  complains(t, await synod(['verify', join(dir, 'chain'), ...genesis]), 'chain-file-malformed', 3, /not proved/);
  complains(t, await synod(['verify', join(dir, 'none'), ...genesis]), 'enoent', 1, /none/);
  complains(t, await synod(['verify', join(dir, 'text')]), 'usage', 2, /--genesis/);
  complains(
    t,
    await synod(['verify', join(dir, 'text'), '--genesis', join(dir, 'text')]),
    'genesis-invalid',
    2,
    /not JSON/,
  );
});

tap.test('a chain file is whole blocks, each in a record of its own', async (t) => {
  const path = join(t.testdir(), 'chain');
  const genesis = {
    ...fx.genesis,
    name: 'x',
    protocol: 'pbft',
    createdAt: asMillis(0),
    parameters: fx.parameters,
  } as const;
  // From height 2 on: the first certificate is the anchor.
  const blocks = fx.chain(4).slice(1);
  const certificate = (i: number) => (i === 1 ? null : fx.certificate(blocks[i]!));
  const found = async () => {
    const out: unknown[] = [];
    for await (const each of readChainFile(path, genesis)) out.push('refused' in each ? each : each.header.height);
    return out;
  };
  const file = await ChainFileWriter.create(path, genesis);
  for (const [i, block] of blocks.entries()) await file.append({ ...block, certificate: certificate(i) });
  await file.commit();
  t.strictSame(await found(), [2, 3, 4]);
  const whole = readFileSync(path);
  // docs/wire.md, "Chain files": tag, chain id, and for each block a length and a follow-blocks payload.
  const record = (i: number, body: boolean) => {
    const { headerBytes, bundles } = blocks[i]!;
    const followed = { headerBytes, bundles: body ? bundles : null, certificate: certificate(i) };
    const payload = encodePayload({ kind: 'follow-blocks', blocks: [followed] });
    const length = Buffer.alloc(4);
    length.writeUInt32BE(payload.length);
    return concat(length, payload);
  };
  const start = concat(fx.text('synod-v1:chain\0\0'), fx.chainId);
  t.strictSame(whole, Buffer.from(concat(start, record(0, true), record(1, true), record(2, true))));
  writeFileSync(path, concat(start, record(0, true), record(1, false), record(2, true)));
  t.match(await found(), [2, { refused: 'chain-file-malformed', problem: /without its body after block 2/ }]);
  writeFileSync(path, concat(start, record(0, false), record(1, false), record(2, false)));
  t.match(await found(), [{ refused: 'chain-file-malformed', problem: /without its body/ }], 'headers are no archive');
  writeFileSync(path, whole.subarray(0, -1));
  t.match(await found(), [2, { refused: 'chain-file-malformed', problem: /middle of a record/ }]);
  writeFileSync(path, concat(start, record(0, true), record(1, true)));
  t.match(await found(), [2, { refused: 'chain-file-malformed', problem: /1 blocks have no certificate/ }]);
});

tap.test('the Bitcoin block folds to its Merkle root, and only in its order', async (t) => {
  const bytes = readFileSync(fixture);
  const block = parseBitcoinBlock(native.sha256, bytes);
  if ('problem' in block) return t.fail(block.problem);
  t.equal(block.hash, '0000000000000000025aff8be8a55df8f89c77296db6198f272d6577325d4069');
  t.equal(block.transactions.length, 1557);
  const rootOf = (transactions: readonly Uint8Array[]) => displayed(bitcoinMerkleRoot(native.sha256, transactions));
  t.equal(rootOf(block.transactions), '64a50c649fc816baaa2effda230c39cacf1504e4e616a2863685b72aaa7dce05');
  t.equal(rootOf(block.transactions), displayed(block.merkleRoot));
  const swapped = [...block.transactions];
  [swapped[10], swapped[11]] = [swapped[11]!, swapped[10]!];
  t.not(rootOf(swapped), displayed(block.merkleRoot), 'two in the wrong order');
  t.not(rootOf(block.transactions.slice(1)), displayed(block.merkleRoot), 'one lost');
  t.not(rootOf([block.transactions[0]!, ...block.transactions]), displayed(block.merkleRoot), 'one doubled');
  for (const length of [0, 79, 80, 81, 5000, bytes.length - 1])
    t.match(parseBitcoinBlock(native.sha256, bytes.subarray(0, length)), { problem: String }, `cut at ${length}`);
  t.match(parseBitcoinBlock(native.sha256, Buffer.concat([bytes, Buffer.alloc(1)])), { problem: /after the last/ });
  const wide = Buffer.concat([bytes.subarray(0, 80), Buffer.from('fe15060000', 'hex'), bytes.subarray(83)]);
  t.match(parseBitcoinBlock(native.sha256, wide), { problem: /more bytes than it needs/ });
});

tap.test(
  'REC-6 REC-7 REC-8: repair says what is there, moves aside and never deletes; a backup holds no marks',
  async (t) => {
    const net = join(t.testdir(), 'net');
    t.equal((await synod(['init', net, '--unsealed'])).code, 0);
    const home = join(net, 'node-3');
    const config = join(home, 'config.json');
    const signState = join(home, 'data', 'sign-state');
    const looked = await synod(['repair', config]);
    t.match(looked, { code: 0, stdout: /sign-state: sound, has signed nothing yet\nlog: none yet\nnothing to repair/ });

    const out = join(net, 'copy');
    const evidence = join(home, 'data', 'evidence');
    mkdirSync(evidence, { recursive: true });
    for (const name of ['whole.witness', 'cut-off.partial']) writeFileSync(join(evidence, name), name);
    utimesSync(join(evidence, 'whole.witness'), 1, 1_000_000);
    t.equal((await synod(['backup', config, '--out', out])).code, 0);
    t.strictSame(readdirSync(join(out, 'data', 'evidence')), ['whole.witness'], 'what it has seen others do wrong');
    t.equal(statSync(join(out, 'data', 'evidence', 'whole.witness')).mtimeMs, 1_000_000_000, 'and when');
    rmSync(evidence, { recursive: true });
    t.strictSame(readdirSync(out).sort(), ['config.json', 'data', 'genesis.json', 'replica.key']);
    t.equal(statSync(join(out, 'replica.key')).mode & 0o777, 0o600);
    t.match((await synod(['repair', join(out, 'config.json')])).stdout, /sign-state: in quarantine/);
    complains(t, await synod(['backup', config, '--out', out]), 'directory-not-empty', 2, /copy/);

    const back = join(net, 'back');
    t.match(await synod(['restore', out, '--to', back]), {
      code: 0,
      stdout: /node-3, in quarantine\nnext: synod start/,
    });
    t.strictSame(readdirSync(back).sort(), readdirSync(out).sort());
    t.equal(statSync(join(back, 'replica.key')).mode & 0o777, 0o600);
    t.equal(statSync(join(back, 'data', 'evidence', 'whole.witness')).mtimeMs, 1_000_000_000);
    t.match((await synod(['repair', join(back, 'config.json')])).stdout, /sign-state: in quarantine/);
    complains(t, await synod(['restore', out, '--to', back]), 'directory-not-empty', 2, /back/);
    const elsewhere = (copy: string, fields: object) => {
      const named = join(copy, 'config.json');
      writeFileSync(named, JSON.stringify({ ...JSON.parse(readFileSync(named, 'utf8')), ...fields }));
    };
    for (const [name, spoil, why] of [
      ['marks', (copy: string) => cpSync(signState, join(copy, 'data', 'sign-state')), /older than/],
      ['no marks', (copy: string) => rmSync(join(copy, 'data', 'sign-state')), /is missing/],
      ['data', (copy: string) => elsewhere(copy, { dataDir: join(home, 'data') }), /not in it/],
      ['key', (copy: string) => elsewhere(copy, { key: join(home, 'replica.key') }), /not in it/],
    ] as const) {
      const copy = join(net, `spoilt ${name}`);
      cpSync(out, copy, { recursive: true });
      spoil(copy);
      const place = join(net, 'place');
      complains(t, await synod(['restore', copy, '--to', place]), 'not-a-backup', 2, why);
      t.notOk(existsSync(place), 'what is refused leaves nothing');
    }
    const both = await synod(['backup', config, '--out', join(net, 'both'), '--with-log']);
    t.equal(both.code, 1, 'there is no log yet');
    t.notOk(existsSync(join(net, 'both')), 'a backup that fails leaves nothing');

    const bytes = readFileSync(signState);
    const { ino, birthtimeNs } = statSync(signState, { bigint: true });
    writeFileSync(`${signState}.home`, `${ino} ${birthtimeNs}\n`);
    t.equal((await synod(['repair', config])).code, 0, 'at home');
    const noted = (inode: bigint, born: bigint) => writeFileSync(`${signState}.home`, `${inode} ${born}\n`);
    const isBirthKept = birthtimeNs > 0n && birthtimeNs !== statSync(signState, { bigint: true }).ctimeNs;
    if (isBirthKept) {
      noted(ino + 1n, birthtimeNs);
      t.equal((await synod(['repair', config])).code, 0, 'born once: a new mount may number it anew');
      noted(ino, birthtimeNs + 1n);
      t.equal((await synod(['repair', config])).code, 1, 'an inode is used again');
    }
    noted(ino, 0n);
    t.equal((await synod(['repair', config])).code, 0, 'where nobody knows when it was born, the inode counts');
    noted(ino + 1n, isBirthKept ? birthtimeNs + 1n : 0n);
    t.match(await synod(['repair', config]), { code: 1, stdout: /a copy.*\[guard-copied\]/ });
    complains(t, await quietStart(config), 'guard-copied', 2, /--moved[\s\S]*--readmit/);
    complains(t, await synod(['repair', config, '--moved', '--readmit']), 'usage', 2, /readmit/);
    const marks = readFileSync(signState);
    t.match(await synod(['repair', config, '--moved']), { code: 0, stdout: /at home here[\s\S]*nothing to repair/ });
    t.match(await synod(['repair', config]), { code: 0 }, 'from now on');
    t.same(readFileSync(signState), marks, 'its marks are what they were');

    writeFileSync(signState, bytes.subarray(1));
    t.match(await synod(['repair', config]), { code: 1, stdout: /damaged \[guard-damaged\][\s\S]*next: .* --readmit/ });
    t.match(await synod(['repair', config, '--readmit']), { code: 0, stdout: /moved to[\s\S]*in quarantine/ });
    t.equal(
      readdirSync(join(home, 'data')).filter((name) => name.startsWith('sign-state')).length,
      3,
      'nothing is deleted',
    );
    t.match(
      await synod(['repair', config, '--readmit']),
      { code: 0, stdout: /^sign-state: in quarantine/ },
      'once is enough',
    );
    rmSync(signState);
    t.match(await synod(['repair', config]), { code: 1, stdout: /missing \[guard-missing\]/ });
    for (const way of ['--log', '--moved'])
      complains(t, await synod(['repair', config, way]), 'guard-missing', 2, /readmit/);
    complains(t, await quietStart(config), 'guard-missing', 2, /repair CONFIG --readmit/);
  },
);

tap.test(
  'REC-6 REC-7 REC-10: repair and backup of a member that came later, and of one whose key is replaced',
  async (t) => {
    const dir = t.testdir();
    const net = join(dir, 'net');
    const ok = async (...args: string[]) => {
      const run = await synod(args);
      t.equal(run.code, 0, `${args.join(' ')}: ${run.stderr}`);
      return run;
    };
    await ok('init', net, '--unsealed');
    const genesis = join(net, 'genesis.json');

    // Its name is in no genesis document: the sign-state lies beside the key.
    const late = join(net, 'node-9');
    mkdirSync(late);
    const key = join(late, 'replica.key');
    await ok('keys', 'generate', key, '--unsealed', '--sign-state', genesis);
    const document = JSON.parse(readFileSync(join(net, 'node-0', 'config.json'), 'utf8'));
    const config = join(late, 'config.json');
    const write = (more: object) =>
      writeFileSync(config, JSON.stringify({ ...document, genesis: '../genesis.json', member: 'node-9', ...more }));
    write({});
    t.match(await ok('repair', config), {
      stdout: /^sign-state: sound, has signed nothing yet\nlog: none yet\n.*start \S+ --observe\n$/,
    });
    const copy = join(dir, 'copy');
    await ok('backup', config, '--out', copy);
    t.notOk(existsSync(join(copy, 'data', 'sign-state')), 'a start would not take it from there');
    t.match(await ok('repair', join(copy, 'config.json')), { stdout: /^sign-state: in quarantine/ });
    rmSync(`${key}.sign-state`);
    t.match(await synod(['repair', config]), { code: 1, stdout: /missing \[guard-missing\][\s\S]* --readmit\n$/ });
    t.match(await ok('repair', config, '--readmit'), { stdout: /replica\.key\.sign-state: made in quarantine/ });
    t.notOk(existsSync(join(late, 'data', 'sign-state')));

    // The first key is at hand, and another one is to follow.
    const home = join(net, 'node-3');
    const own = join(home, 'config.json');
    await ok('keys', 'generate', join(home, 'new.key'), '--unsealed', '--sign-state', genesis);
    writeFileSync(own, JSON.stringify({ ...JSON.parse(readFileSync(own, 'utf8')), nextKey: 'new.key' }));
    t.match(await ok('repair', own), {
      stdout: /^sign-state of replica\.key: sound.*\nsign-state of new\.key: sound.*\nlog: none yet\n/,
    });
    const both = join(dir, 'both');
    await ok('backup', own, '--out', both);
    t.match(await ok('repair', join(both, 'config.json')), {
      stdout: /^sign-state of replica\.key: in quarantine.*\nsign-state of next\.key: in quarantine/,
    });
    t.equal(JSON.parse(readFileSync(join(both, 'config.json'), 'utf8')).nextKey, 'next.key');
    t.equal(statSync(join(both, 'next.key')).mode & 0o777, 0o600);
    // One of the two is lost: nobody can say that the other is the newest.
    rmSync(join(home, 'data', 'sign-state'));
    await ok('repair', own, '--readmit');
    t.match(await ok('repair', own), {
      stdout: /^sign-state of replica\.key: in quarantine.*\nsign-state of new\.key: in quarantine/,
    });
    // It has become the key, and its file is lost: that of the first key is not taken for it.
    const { nextKey: _, ...rest } = JSON.parse(readFileSync(own, 'utf8'));
    writeFileSync(own, JSON.stringify({ ...rest, key: 'new.key' }));
    rmSync(join(home, 'new.key.sign-state'));
    t.match(await synod(['repair', own]), { code: 1, stdout: /^sign-state: missing \[guard-missing\]/ });
    await ok('repair', own, '--readmit');
    t.ok(existsSync(join(home, 'new.key.sign-state')));
    complains(t, await quietStart(config), 'config-genesis', 2, /node-9/);
  },
);

/** A start that is refused; its log on standard output is not looked at. */
async function quietStart(config: string): Promise<Run> {
  return { ...(await synod(['start', config])), stdout: '' };
}
