// What must be true of a network of processes when its faults are over, whatever they were.

import type { Test } from 'tap';
import { brokenPromises, differences, type ReadChain, readChain, unproven } from './chains.ts';
import type { Submitter } from './load.ts';
import type { ChaosStage } from './stage.ts';

export interface Settling {
  readonly t: Test;
  readonly stage: ChaosStage;
  readonly submitters: readonly Submitter[];
}

/** Everything is acknowledged, nothing of it is lost or doubled, and the honest hold one chain: these, in the order of their names. */
export async function settle({ t, stage, submitters }: Settling): Promise<readonly ReadChain[]> {
  await stage.allUp();
  await Promise.all(submitters.map((submitter) => submitter.finish()));
  t.strictSame(
    submitters.flatMap(({ refusals }) => refusals),
    [],
    'nothing was refused',
  );
  const height = await stage.allEqual();
  const chains = await Promise.all(stage.honest.map((name) => readChain(stage.network, name, height)));
  const count = submitters.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);
  const views = (await stage.statuses()).map((status) => status?.view);
  t.comment(
    `${count} transactions acknowledged, height ${height}, from ${chains.map(({ from }) => from)}, views ${views}`,
  );
  t.ok(count > 0);
  for (const [index, chain] of chains.entries())
    t.strictSame(brokenPromises(chain, submitters).slice(0, 10), [], `${stage.honest[index]} keeps every promise`);
  t.strictSame(differences(chains).slice(0, 10), [], 'the chains are the same, byte for byte');
  t.strictSame(unproven(stage.network, submitters).slice(0, 10), [], 'receipts prove their transactions offline');
  return chains;
}
