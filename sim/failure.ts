// What a check is called, and what it throws where its property does not hold.

/** Each is one property; docs/simulator.md says what it means. */
export const CHECKS = [
  'one-block-per-height',
  'exactly-once',
  'session-order',
  'in-order',
  'one-vote-per-place',
  'views-never-run-back',
  'lock-is-kept',
  'base-is-kept',
  'certificates-verify',
  'one-certificate-per-place',
  'within-bounds',
  'acknowledged-stays',
  'reads-linearizable',
  'writes-linearizable',
  'durable-before-spoken',
  'no-invariant-breaks',
  'everything-is-ordered',
  'readmitted',
  'readmitted-above-votes',
  'heads-agree',
  'slow-primary-is-replaced',
] as const;
export type CheckName = (typeof CHECKS)[number];

/** A property that does not hold. */
export class CheckFailure extends Error {
  override readonly name = 'CheckFailure';
  readonly check: CheckName;

  constructor(check: CheckName, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.check = check;
  }
}

export function fail(check: CheckName, message: string, cause?: unknown): never {
  throw new CheckFailure(check, message, cause);
}
