// Which route a request is for.

import type { Route } from './exchange.ts';
import { type Problem, problem } from './problem.ts';

export type Matched =
  | { readonly route: Route; readonly path: ReadonlyMap<string, string>; readonly search: string }
  | { readonly problem: Problem /** The methods of that path, where there is one. */; readonly allow: string | null };

const urlCharsMax = 2048;

export function matchRoute(routes: readonly Route[], method: string, url: string): Matched {
  if (url.length > urlCharsMax)
    return { problem: problem('path-invalid', `a URL has at most ${urlCharsMax} characters`), allow: null };
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const search = mark < 0 ? '' : url.slice(mark + 1);
  const allowed: string[] = [];
  for (const route of routes) {
    const found = segmentsOf(route.path, path);
    if (found === undefined) continue;
    // A HEAD is a GET whose body stays here.
    if (method === route.method || (method === 'HEAD' && route.method === 'GET')) return { route, path: found, search };
    allowed.push(...(route.method === 'GET' ? ['GET', 'HEAD'] : [route.method]));
  }
  if (allowed.length === 0)
    return { problem: problem('not-found', 'see /v1/openapi.json for what is here'), allow: null };
  const allow = allowed.join(', ');
  return { problem: problem('method-not-allowed', `allowed here: ${allow}`), allow };
}

function segmentsOf(pattern: string, path: string): ReadonlyMap<string, string> | undefined {
  const names = pattern.split('/');
  const values = path.split('/');
  if (names.length !== values.length) return undefined;
  const found = new Map<string, string>();
  for (const [index, name] of names.entries()) {
    const value = values[index] ?? '';
    if (name.startsWith('{')) found.set(name.slice(1, -1), value);
    else if (name !== value) return undefined;
  }
  return found;
}
