// What the HTTP door refuses, as a stable code with a status. Sentences are for people and may change; codes are documented in
// openapi.json and never change their meaning.

const statuses = {
  'not-found': 404,
  'block-not-found': 404,
  'block-pruned': 410,
  'bundle-not-found': 404,
  'evidence-not-found': 404,
  'method-not-allowed': 405,
  'query-invalid': 400,
  'path-invalid': 400,
  'request-malformed': 400,
  'request-timeout': 408,
  'headers-too-large': 431,
  'content-type-unsupported': 415,
  'content-encoding-unsupported': 415,
  'body-empty': 400,
  'body-too-large': 413,
  'body-not-json': 400,
  'body-invalid': 400,
  'transaction-empty': 400,
  'transaction-too-large': 413,
  'transactions-too-many': 413,
  'bundle-too-large': 413,
  'idempotency-key-invalid': 400,
  'idempotency-key-reused': 422,
  'submissions-disabled': 403,
  busy: 503,
  'client-quota': 429,
  'pool-full': 503,
  'sessions-full': 503,
  'control-refused': 422,
  'not-ordered': 503,
  'reads-unsupported': 501,
  'reads-full': 503,
  'read-unconfirmed': 503,
  draining: 503,
  'no-quorum': 503,
  'view-change': 503,
  'catching-up': 503,
  behind: 503,
  'block-missing': 503,
  'working-set': 503,
  quarantine: 503,
  'loop-slow': 503,
  internal: 500,
} as const;

export type ProblemCode = keyof typeof statuses;

/** Every code, for the test that compares them with openapi.json. */
export const problemCodes = Object.keys(statuses);

export interface Problem {
  readonly status: number;
  readonly code: ProblemCode;
  readonly message: string;
  /** Which part of the request is to blame. */
  readonly field?: string;
  /** The client may try again after this many seconds. */
  readonly retryAfterSeconds?: number;
}

export function problem(
  code: ProblemCode,
  message: string,
  more: Partial<Pick<Problem, 'field' | 'retryAfterSeconds'>> = {},
): Problem {
  return { status: statuses[code], code, message, ...more };
}

export function isProblem<T extends object>(value: T | Problem): value is Problem {
  return 'status' in value && 'code' in value && 'message' in value;
}
