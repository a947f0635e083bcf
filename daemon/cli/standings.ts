// What replicas say of themselves at their HTTP doors, for the plan of a change: how far each is, twice where somebody has to catch up, and which
// epochs they can prove.

import { toHex } from '../../crypto/bytes.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import type { Change, EpochChain } from '../../protocol/verify.ts';
import type { Door } from './doors.ts';
import type { Later, Standing } from './epoch-plan.ts';
import { note } from './output.ts';
import { fetchEpochs, fetchStatus } from './replica-http.ts';

const askMs = 2_000;
/** Between two looks at who catches up. */
const APART_MS = 1_000;

/** A replica without a door that is known is left out: nobody can say that it is silent. */
export async function askStandings(doors: readonly Door[], genesis: Genesis): Promise<readonly Standing[]> {
  const standings = await Promise.all(
    doors.map(async ({ name, http }): Promise<Standing | null> => {
      if (http === null) return null;
      const status = await fetchStatus(http, askMs);
      const isOurs = status === null || status.chain.chainId === toHex(genesis.chainId);
      if (!isOurs) note(`${http}: a replica of another network answers there`);
      const height = status === null || !isOurs ? null : status.height;
      // One that is asked by its address says itself who it is.
      if (name !== null) return { name, height };
      if (status === null) note(`${http}: no replica answers there`);
      return status === null || height === null ? null : { name: status.node.name, height };
    }),
  );
  return standings.filter((each) => each !== null);
}

/** `later`: a second look, where a key is new whose holder answers; null: there is nothing to see. */
export async function askTwice(
  doors: readonly Door[],
  genesis: Genesis,
  changes: readonly Change[],
): Promise<{ readonly standings: readonly Standing[]; readonly later: Later | null }> {
  const began = performance.now();
  const standings = await askStandings(doors, genesis);
  const comes = (name: string) => changes.some((change) => 'publicKey' in change && change.name === name);
  if (!standings.some(({ name, height }) => height !== null && comes(name))) return { standings, later: null };
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, began + APART_MS - performance.now())));
  const seconds = (performance.now() - began) / 1000;
  return { standings, later: { seconds, standings: await askStandings(doors, genesis) } };
}

/** What each can prove; null: no answer, or one that does not hold. */
export const askEpochs = (doors: readonly Door[], genesis: Genesis): Promise<readonly (EpochChain | null)[]> =>
  Promise.all(doors.map(({ http }) => (http === null ? null : fetchEpochs(http, genesis, askMs))));
