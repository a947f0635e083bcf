// How much more a replica bears the next time: what was in vain doubles it, and a long while without shrinks it by a step. Clement et al.,
// Aardvark, NSDI 2009, section 4.2: what is demanded adapts, so that where everyone is slow someone still leads.

import type { Millis } from './types.ts';

const DOUBLINGS_MAX = 8;
/** After so many timeouts without one it shrinks by a step. */
const STEP_TIMEOUTS = 256;

export interface Patience {
  readonly doublings: number;
  readonly since: Millis;
}

export const usualPatience = (now: Millis): Patience => ({ doublings: 0, since: now });

export const factorOf = ({ doublings }: Patience): number => 2 ** doublings;

export function doubled({ doublings }: Patience, now: Millis): Patience {
  return { doublings: Math.min(doublings + 1, DOUBLINGS_MAX), since: now };
}

/** As it is by now. */
export function outlasted(patience: Patience, now: Millis, viewTimeoutMs: number): Patience {
  const { doublings, since } = patience;
  if (doublings === 0 || now - since < STEP_TIMEOUTS * viewTimeoutMs) return patience;
  return { doublings: doublings - 1, since: now };
}
