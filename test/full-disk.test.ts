// A22 with real replicas: a write to the sign-state or to the log fails in the middle of the work. The process ends with its code, and whatever
// the others have from it is on its disk: it did not speak first. With space again it returns.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import tap, { type Test } from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { CONFIG_FILE } from '../daemon/cli/network-files.ts';
import { ownFilesOf } from '../daemon/cli/own-keys.ts';
import { fetchAnswer } from '../daemon/cli/replica-http.ts';
import { decodeSignState } from '../keys/sign-state.ts';
import { decodeFile, FILE_BYTES, SLOT_BYTES } from '../keys/slots.ts';
import { asHeight } from '../protocol/types.ts';
import { randomFrom } from '../sim/random.ts';
import { openLogStore } from '../storage/log-store.ts';
import { openStore } from '../storage/open.ts';
import { Submitter } from './chaos/load.ts';
import { settle } from './chaos/settle.ts';
import { ChaosStage } from './chaos/stage.ts';

tap.setTimeout(300_000);

const full = 'node-2';
const others = ['node-0', 'node-1'];
/** Heights above the head of the others that are asked for: more than may be in flight. */
const heightsAsked = 12;
const skip = spawnSync('prlimit', ['--version']).error === undefined ? false : 'no prlimit (util-linux) here';

/** A limit on the size of a file is the full disk that a test may make: Node gets EFBIG and no signal. */
interface Case {
  readonly name: string;
  readonly limitBytes: number;
  readonly says: RegExp;
}

const cases: readonly Case[] = [
  { name: 'neither can be written', limitBytes: 0, says: /guard-poisoned|storage-write-failed/ },
  // Every other generation stands behind the first slot; the log has only begun.
  { name: 'the sign-state alone', limitBytes: SLOT_BYTES, says: /guard-poisoned/ },
  { name: 'the log alone', limitBytes: 2 * FILE_BYTES, says: /storage-write-failed/ },
];

for (const each of cases)
  tap.test(`A22 GRD-14 LOG-12: no space for a vote: ${each.name}`, { skip }, async (t) => {
    const directory = join(t.testdir(), 'net');
    const parameters = { viewTimeoutMs: 1_000, heartbeatMs: 200 };
    const stage = await ChaosStage.create({ directory, parameters });
    const submitters = [0, 1].map(
      (i) => new Submitter(stage.network, { name: `c${i}`, habit: 'bundles', random: randomFrom(i), paceMs: 5 }),
    );
    try {
      for (const name of stage.names) stage.start(name);
      await stage.allUp();
      // The other three decide nothing without the one whose disk is full.
      await stage.kill('node-3');
      const ended = stage.ended(full);
      await stage.limit(full, `--fsize=${each.limitBytes}`);
      await Promise.all(submitters.map((submitter) => submitter.start()));
      const { code, signal, lastError } = await ended;
      t.strictSame([code, signal], [1, null], 'ends by itself');
      t.match(lastError, each.says);
      await checkSilence(t, stage);
      stage.start(full);
      stage.start('node-3');
      await settle({ t, stage, submitters });
      t.strictSame(stage.troubles, []);
    } finally {
      await Promise.all(submitters.map((submitter) => submitter.close()));
      await stage.end();
    }
  });

for (const protocol of ['raft', 'multi-paxos', 'basic-paxos', 'fast-paxos'] as const)
  tap.test(`A22 LOG-12: no space for what is accepted: ${protocol}`, { skip }, async (t) => {
    const directory = join(t.testdir(), 'net');
    const parameters = { viewTimeoutMs: 1_000, heartbeatMs: 200 };
    const stage = await ChaosStage.create({ directory, protocol, parameters });
    const submitters = [0, 1].map(
      (i) => new Submitter(stage.network, { name: `c${i}`, habit: 'bundles', random: randomFrom(i), paceMs: 5 }),
    );
    const [other, away] = ['node-0', 'node-1'] as const;
    try {
      for (const name of stage.names) stage.start(name);
      await stage.allUp();
      // Of three two are needed: what the other one decides this one has accepted.
      await stage.kill(away);
      const ended = stage.ended(full);
      await stage.limit(full, `--fsize=${2 * FILE_BYTES}`);
      await Promise.all(submitters.map((submitter) => submitter.start()));
      const { code, signal, lastError } = await ended;
      t.strictSame([code, signal], [1, null], 'ends by itself');
      t.match(lastError, /storage-write-failed/);
      const { accepted, head } = await durableAt(join(stage.directory, full, CONFIG_FILE));
      const { height } = (await stage.status(other))!; // it runs
      t.ok(height > 0);
      for (let at = head + 1; at <= height; at++)
        t.ok(accepted.has(at), `${other} has decided ${at}: it is in the log of ${full}`);
      stage.start(full);
      stage.start(away);
      await settle({ t, stage, submitters });
      t.strictSame(stage.troubles, []);
    } finally {
      await Promise.all(submitters.map((submitter) => submitter.close()));
      await stage.end();
    }
  });

/** Each vote of it that the others have, decided or not: its mark is in the sign-state, and its block in the log. */
async function checkSilence(t: Test, stage: ChaosStage): Promise<void> {
  const { marked, stored, head } = await durableAt(join(stage.directory, full, CONFIG_FILE));
  let heard = 0;
  for (const name of others) {
    const { http } = stage.network.replicas.find((replica) => replica.name === name)!;
    const height = (await stage.status(name))!.height;
    for (let at = Math.max(1, height - 4); at <= height + heightsAsked; at++) {
      const answer = await fetchAnswer(`${http}/v1/explain/${at}`, 5_000);
      if ('problem' in answer) throw new Error(answer.problem);
      const { candidates } = answer.json as { candidates: { hash: string; prepares: unknown; commits: unknown }[] };
      for (const { hash, prepares, commits } of candidates)
        for (const [phase, voters] of [
          ['prepare', prepares],
          ['commit', commits],
        ] as const) {
          if (!JSON.stringify(voters).includes(`"${full}"`)) continue;
          heard += 1;
          // What its log holds as decided needs no mark any more (GRD-5).
          const isMarked = at <= head || marked.has(`${phase} ${at} ${hash}`);
          t.ok(isMarked, `${name} has its ${phase} at ${at}: the mark is durable`);
          t.ok(at <= head || stored.has(hash), `${name} has its ${phase} at ${at}: the block is durable`);
        }
    }
    t.ok(height <= head + heightsAsked);
  }
  t.comment(`${heard} votes of it were heard; it had decided ${head}`);
}

/** What its files say, now that nothing holds them. */
async function durableAt(configFile: string) {
  const { config, keys } = await ownFilesOf(configFile);
  const { owner } = keys[0]!; // its key at hand
  const slot = decodeFile(readFileSync(config.signState));
  const state = slot === undefined ? undefined : decodeSignState(slot.content);
  if (state === undefined) throw new Error('no whole sign-state');
  const marked = new Set<string>();
  for (const [height, votes] of state.marks.votes)
    for (const phase of ['prepare', 'commit'] as const) {
      const hash = votes[phase];
      if (hash !== null) marked.add(`${phase} ${height} ${toHex(hash)}`);
    }
  const kv = await openStore(config.logDir);
  const { sequence } = state.floor;
  const { log, recovered } = await openLogStore(kv, {
    sha256: native.sha256,
    chainId: owner.chainId,
    floor: sequence === 0 ? null : state.floor,
    retainBlocks: config.retainBlocks,
  });
  const stored = new Set(recovered.accepted.map(({ hash }) => toHex(hash)));
  const accepted = new Set<number>(recovered.accepted.map(({ height }) => height));
  const head = asHeight(log.head);
  await log.close();
  return { marked, stored, accepted, head };
}
