// Parsers of command-line values: each says what it wanted when it did not get it.

import { InvalidArgumentError, Option } from 'commander';
import { membersMin, type Protocol, protocols } from '../../protocol/modes.ts';
import { usageError } from './errors.ts';

export function wholeNumber(low: number, high: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= low && value <= high) return value;
    throw new InvalidArgumentError(
      high === Number.MAX_SAFE_INTEGER ? `a whole number from ${low}.` : `a whole number from ${low} to ${high}.`,
    );
  };
}

/** 30, 30s, 500ms or 2m, in milliseconds. */
export function duration(text: string): number {
  const [, digits, unit = 's'] = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text) ?? [];
  if (digits === undefined) throw new InvalidArgumentError('a time such as 500ms, 30s or 2m.');
  return Number(digits) * ({ ms: 1, s: 1000, m: 60_000 }[unit] ?? 1000);
}

/** For options that may stand several times. */
export const collected = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];

export interface HostAndPort {
  readonly name: string | null;
  readonly host: string;
  readonly port: number;
}

/** `[name=]host:port,...`; an IPv6 address stands in brackets. */
export function hostList(text: string): readonly HostAndPort[] {
  return text.split(',').map((entry) => {
    const [, name = null, host, bracketed, digits] =
      /^\s*(?:([a-z0-9-]{1,32})=)?(?:([^\s:[\]]+)|\[([0-9a-fA-F:.]+)\]):(\d{1,5})\s*$/.exec(entry) ?? [];
    const port = Number(digits);
    const found = host ?? bracketed;
    if (found === undefined || !(port >= 1 && port <= 65_535))
      throw new InvalidArgumentError(
        `host:port or name=host:port, separated by commas; ${JSON.stringify(entry)} is not.`,
      );
    return { name, host: found, port };
  });
}

/** For URLs: IPv6 addresses in brackets. */
export const urlHost = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** The word in the genesis document of a new network. */
export const protocolOption = (): Option =>
  new Option('--protocol <name>', 'how replicas agree; all but pbft trust their members not to lie')
    .choices(protocols)
    .default('pbft');

export const replicasHelp = (what: string): string =>
  `${what}, up to 128, at least 4 for pbft, else 3 (default: as few as that)`;

/** As many as were asked for, or as few as the protocol needs. */
export function replicasOf({
  protocol,
  replicas,
}: {
  readonly protocol: Protocol;
  readonly replicas?: number;
}): number {
  const least = membersMin(protocol);
  if (replicas !== undefined && replicas < least)
    throw usageError(`--replicas ${replicas}: ${protocol} needs at least ${least}`);
  return replicas ?? least;
}
