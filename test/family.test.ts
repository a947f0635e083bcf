// The crash-fault family with real processes, sockets and disks: a network of each protocol orders, loses its leader to SIGKILL, goes on, takes it back, and
// hands out receipts that say what they are worth.

import { execFile } from 'node:child_process';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { protocols } from '../protocol/modes.ts';
import { ChaosStage } from './chaos/stage.ts';

// Real processes, on a machine that has other things to do.
t.setTimeout(240_000 * protocols.length);

const program = fileURLToPath(new URL('../daemon/main.js', import.meta.url));
const run = promisify(execFile);

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const synod = (...args: readonly string[]): Promise<Ran> =>
  run(process.execPath, [program, ...args], { maxBuffer: 64 << 20 }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error) => ({ code: Number(error.code), stdout: String(error.stdout), stderr: String(error.stderr) }),
  );

for (const protocol of protocols.filter((name) => name !== 'pbft'))
  t.test(`${protocol}: order, SIGKILL, take-over, proof`, async (t) => {
    const folder = t.testdir({ 'lines.txt': Array.from({ length: 500 }, (_, i) => `line ${i}`).join('\n') });
    const directory = join(folder, 'net');
    const stage = await ChaosStage.create({ directory, protocol });
    try {
      t.equal(stage.names.length, 3, 'three are enough');
      for (const name of stage.names) stage.start(name);
      await stage.allUp();
      const receipt = join(folder, 'first.receipt');
      const submit = (...args: readonly string[]) => synod('submit', '--network', directory, ...args);
      t.equal((await submit('first', '--receipt', receipt)).code, 0);
      const leader = (await stage.primary()) ?? '';
      await stage.kill(leader);
      const lines = await submit('--lines', '--file', join(folder, 'lines.txt'));
      t.equal(lines.code, 0, lines.stderr);
      t.equal(lines.stdout.trim().split('\n').length, 500, 'two of three order everything');
      // In basic Paxos nobody leads, and member 0 stands in that place.
      if (protocol !== 'basic-paxos') t.not(await stage.primary(), leader, 'under another leader');
      stage.start(leader);
      await stage.allUp();
      t.equal((await submit('last')).code, 0);
      t.ok((await stage.allEqual()) >= 3);

      // CFT-PR-1: the proof says what it is worth, and is nothing elsewhere.
      const genesis = join(directory, 'genesis.json');
      const verified = await synod('verify', receipt, '--genesis', genesis);
      t.equal(verified.code, 0, verified.stderr);
      t.match(verified.stdout, /decided by a majority, says node-\d: no proof against a member that lies/);
      const json = JSON.parse((await synod('verify', receipt, '--genesis', genesis, '--json')).stdout);
      t.equal(json.trust, 'crash-fault');
      t.equal(json.signers.length, 1);
      const claims = join(folder, 'claims.receipt');
      const { trust, ...rest } = JSON.parse(readFileSync(receipt, 'utf8'));
      t.equal(trust, 'crash-fault');
      writeFileSync(claims, JSON.stringify(rest));
      const refused = await synod('verify', claims, '--genesis', genesis);
      t.equal(refused.code, 3, 'not without its word');
      t.match(refused.stderr, /receipt-trust/);
      const chain = join(folder, 'net.chain');
      t.equal((await synod('export', '--network', directory, '--out', chain)).code, 0);
      t.match((await synod('verify', chain, '--genesis', genesis)).stdout, /decided by a majority, say node-\d/);
      t.match((await synod('audit', chain, '--genesis', genesis)).stderr, /members of a [a-z-]+ chain are trusted/);
      const why = await synod('why', '--network', directory);
      t.match(why.stdout, /healthy: all 3 replicas answer/);
      const exits = await stage.end();
      t.ok(exits.every(({ code }) => code === 0));
      t.same(stage.troubles, []);
    } finally {
      await stage.end();
    }
  });

t.test('CFT-R-1: who has lost its memory does not start under its key, and is told what to do', async (t) => {
  const folder = t.testdir();
  const directory = join(folder, 'net');
  const stage = await ChaosStage.create({ directory, protocol: 'raft' });
  try {
    for (const name of stage.names) stage.start(name);
    await stage.allUp();
    t.equal((await synod('submit', '--network', directory, 'first')).code, 0);
    t.ok((await stage.end()).every(({ code }) => code === 0));
  } finally {
    await stage.end();
  }
  const node = join(directory, stage.names[0] ?? '');
  const config = join(node, 'config.json');
  const refused = (ran: Ran, code: string, what: string) => {
    t.equal(ran.code, 2, what);
    t.match(ran.stderr, new RegExp(`\\[${code}\\]`), what);
  };
  t.match(await synod('repair', config), { code: 0, stdout: /nothing to repair/ });
  for (const flag of ['--readmit', '--log']) {
    const ran = await synod('repair', config, flag);
    refused(ran, 'guard-memory-lost', flag);
    t.match(ran.stderr, /Give it a new one \(`synod member rotate`\)/);
  }
  // A backup has no marks: it is there to be read, not to vote.
  const copy = join(folder, 'copy');
  t.equal((await synod('backup', config, '--out', copy, '--with-log')).code, 0);
  refused(await synod('start', join(copy, 'config.json')), 'guard-memory-lost', 'a backup');
  // Whatever else is lost is noticed as everywhere, and there is no way back here.
  renameSync(join(node, 'data', 'log'), join(node, 'data', 'log.lost'));
  refused(await synod('repair', config), 'guard-memory-lost', 'the log is lost');
  const unlogged = await synod('start', config);
  t.match(unlogged.stderr, /\[storage-lost-writes\]/);
  rmSync(join(node, 'data', 'log'), { recursive: true }); // an empty one
  renameSync(join(node, 'data', 'log.lost'), join(node, 'data', 'log'));
  renameSync(join(node, 'data', 'sign-state'), join(node, 'data', 'sign-state.lost'));
  refused(await synod('start', config), 'guard-missing', 'the sign-state is lost');
  refused(await synod('repair', config), 'guard-memory-lost', 'and nothing makes up for it');
});
