// One request as the routes see it, and what they answer.

import type { IncomingMessage } from 'node:http';
import type { Bytes } from '../../crypto/bytes.ts';
import { type Problem, problem } from './problem.ts';

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string | Bytes;
  readonly headers?: Readonly<Record<string, string>>;
  /** A short form of the same, where the answers under way take too much memory already; without it the client is told to wait. */
  readonly lean?: () => Reply;
}

export interface Exchange {
  readonly request: IncomingMessage;
  /** Segments of the path where the route has a name in braces; not checked. */
  readonly path: ReadonlyMap<string, string>;
  readonly query: Query;
  /** Resolves when the client has gone away. */
  readonly gone: Promise<void>;
}

export interface Route {
  readonly method: 'GET' | 'POST';
  /** As in openapi.json: `/v1/blocks/{height}`. */
  readonly path: string;
  /** Query parameters; any other is refused. */
  readonly query: readonly string[];
  answer(exchange: Exchange): Promise<Reply | Problem> | Reply | Problem;
}

export type Query = ReadonlyMap<string, string>;

export function json(status: number, value: object, headers: Readonly<Record<string, string>> = {}): Reply {
  return { status, contentType: 'application/json', body: `${JSON.stringify(value)}\n`, headers };
}

export function problemReply({ status, code, message, field, retryAfterSeconds }: Problem): Reply {
  const error = { code, message, ...(field === undefined ? {} : { field }) };
  return json(status, { error }, retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) });
}

/** Each parameter at most once and none that is not known: a misspelt one that silently does nothing is worse. */
export function parseQuery(text: string, known: readonly string[]): Query | Problem {
  const query = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(text)) {
    const field = name.slice(0, 64);
    if (!known.includes(name)) return problem('query-invalid', `known here: ${known.join(', ') || 'none'}`, { field });
    if (query.has(name)) return problem('query-invalid', 'stands twice', { field });
    query.set(name, value);
  }
  return query;
}

export function integer(
  text: string | undefined,
  {
    name,
    min,
    max,
    fallback,
  }: { readonly name: string; readonly min: number; readonly max: number; readonly fallback: number },
): number | Problem {
  if (text === undefined) return fallback;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  return problem('query-invalid', `an integer from ${min} to ${max}`, { field: name });
}

export function word<const W extends string>(
  text: string | undefined,
  { name, words }: { readonly name: string; readonly words: readonly [W, ...W[]] },
): W | Problem {
  const found = text === undefined ? words[0] : words.find((candidate) => candidate === text);
  return found ?? problem('query-invalid', `one of ${words.join(', ')}`, { field: name });
}

export function isFault<T>(value: T | Problem): value is Problem {
  return typeof value === 'object' && value !== null && 'code' in value && 'message' in value;
}
