// A broken invariant always stops the replica (spec: GEN-1). Assertions stay on in production.

/** Thrown only for bugs and for more faults than the protocol tolerates, never because of one bad peer. */
export class InvariantViolation extends Error {
  override readonly name = 'InvariantViolation';
}

/** A text that costs something to make is given as a function: assertions stay on in production, and nearly always hold. */
export function assert(condition: boolean, invariant: string | (() => string)): asserts condition {
  if (!condition) throw new InvariantViolation(typeof invariant === 'string' ? invariant : invariant());
}

/** The arm of a switch that no value can reach; the compiler proves it. */
export function unreachable(value: never): never {
  throw new InvariantViolation(`unreachable: ${String(value)}`);
}
