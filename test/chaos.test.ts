// Chaos with real processes, sockets, disks and keys: replicas are killed, frozen and stopped at any moment, again and again, under
// load. No acknowledged transaction is missing, none stands twice, all chains are the same byte for byte, and progress has a bound.
// Then damaged files: a replica that cannot know what it has signed does not start. A2, A19, A21, A22, A23.
//
// CHAOS_SEED=7 one seed instead of the fixed ones; CHAOS_SECONDS=300 of faults for each seed; CHAOS_KEEP=1 keeps files and logs.

import { cpSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import tap, { type Test } from 'tap';
import { brokenPromises, differences, type ReadChain, readChain, unproven } from './chaos/chains.ts';
import { damages } from './chaos/damage.ts';
import { type Habit, Submitter } from './chaos/load.ts';
import { Schedule } from './chaos/schedule.ts';
import { ChaosStage, type StageOptions } from './chaos/stage.ts';
import { randomFrom } from './cluster.ts';

const seeds = process.env.CHAOS_SEED === undefined ? [1] : [Number(process.env.CHAOS_SEED)];
const seconds = Number(process.env.CHAOS_SECONDS ?? 25);
const keep = process.env.CHAOS_KEEP !== undefined;
const isDamageWanted = process.env.CHAOS_ONLY !== 'faults';

/** Besides the faults: starting, reading the chains, a slow machine. */
tap.setTimeout((seeds.length * (seconds + 300) + 300) * 1_000);

interface Play {
  readonly t: Test;
  readonly stage: ChaosStage;
  readonly submitters: readonly Submitter[];
}

/** A running network with clients at work; nothing of it is left when this resolves. */
async function play(
  t: Test,
  { habits, random, ...options }: Omit<StageOptions, 'directory'> & { habits: readonly Habit[]; random: () => number },
  act: (play: Play) => Promise<void>,
): Promise<void> {
  const directory = join(t.testdir(), 'net');
  t.saveFixture = keep;
  const stage = await ChaosStage.create({ ...options, directory });
  const submitters = habits.map(
    (habit, index) => new Submitter(stage.network, { name: `c${index}`, habit, random, paceMs: 12 }),
  );
  try {
    for (const name of stage.names) stage.start(name);
    await stage.allReady();
    await Promise.all(submitters.map((submitter) => submitter.start()));
    await act({ t, stage, submitters });
    await Promise.all(submitters.map((submitter) => submitter.close()));
    const exits = await stage.end();
    t.strictSame(
      exits.map(({ code }) => code),
      exits.map(() => 0),
      'SIGTERM ends every replica well',
    );
    t.strictSame(stage.troubles, [], 'no replica ended by itself or reported an error');
  } catch (error) {
    t.comment(await stage.describe());
    t.comment(stage.troubles.join('\n'));
    throw error;
  } finally {
    await Promise.all(submitters.map((submitter) => submitter.close()));
    await stage.end();
    tellCounts(t, stage);
  }
}

function tellCounts(t: Test, { counts }: ChaosStage): void {
  t.comment([...counts].map(([what, count]) => `${what}: ${count}`).join(', '));
}

/** All that must be true when the faults are over and everybody is up again. */
async function settle({ t, stage, submitters }: Play): Promise<readonly ReadChain[]> {
  await stage.allReady();
  await Promise.all(submitters.map((submitter) => submitter.finish()));
  t.strictSame(
    submitters.flatMap(({ refusals }) => refusals),
    [],
    'nothing was refused',
  );
  const height = await stage.allEqual();
  const lowest = (await stage.statuses()).map((status) => status?.lowest ?? 0);
  const chains = await Promise.all(
    stage.names.map((name, index) => readChain(stage.network, name, Math.max(1, lowest[index] ?? 1), height)),
  );
  const count = submitters.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);
  t.comment(`${count} transactions acknowledged, height ${height}, lowest ${lowest}`);
  t.ok(count > 0);
  for (const [index, chain] of chains.entries())
    t.strictSame(brokenPromises(chain, submitters).slice(0, 10), [], `${stage.names[index]} keeps every promise`);
  t.strictSame(differences(chains).slice(0, 10), [], 'all chains are the same, byte for byte');
  t.strictSame(unproven(stage.network, submitters).slice(0, 10), [], 'receipts prove their transactions offline');
  return chains;
}

for (const seed of seeds) {
  tap.test(`killed again and again under load, seed ${seed}`, async (t) => {
    const random = randomFrom(seed);
    const habits: Habit[] = ['bundles', 'bundles', 'stream', 'restless'];
    await play(t, { habits, random: randomFrom(seed + 1) }, async (play) => {
      const schedule = new Schedule(play.stage, play.submitters, random);
      await schedule.run(seconds);
      const chains = await settle(play);
      t.ok(
        chains.every(({ from }) => from === 1),
        'read from height 1',
      );
      const longestGapMs = Math.round(Math.max(...play.submitters.map((submitter) => submitter.longestGapMs)));
      t.comment(`seed ${seed}: ${JSON.stringify({ ...schedule.tally, longestGapMs })}`);
    });
  });
}
