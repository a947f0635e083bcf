// Where a member is dialled: each epoch may name an address for it, and whoever dials may have been given another one.

import type { EpochChain } from './chain.ts';

export interface GivenAddress {
  readonly url: string;
  /** What the epochs said of this member when it was given. Undefined: nothing. */
  readonly said: string | undefined;
}

/** [EPO-25] `address`: what the epoch at hand says. What was given before an epoch said something else is older than that. */
export function addressOf(address: string | undefined, given: GivenAddress | undefined): string | undefined {
  return given === undefined || (address !== undefined && address !== given.said) ? address : given.url;
}

/** [EPO-25] As a config gives it: nobody can tell when, so it is taken to be as old as the member. */
export function givenByConfig(
  { documents }: EpochChain,
  name: string,
  url: string | undefined,
): GivenAddress | undefined {
  if (url === undefined) return undefined;
  const first = documents.flatMap(({ members }) => members).find((member) => member.name === name);
  return { url, said: first?.address };
}
