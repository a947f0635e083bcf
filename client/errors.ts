// What can go wrong, with a stable code each (docs/client.md, "Errors"). Sentences are made here, at the edge.

/** Codes never change their meaning; new ones may be added. */
export type ClientErrorCode =
  // connect
  | 'option-invalid'
  | 'genesis-invalid'
  | 'unknown-replica'
  | 'too-few-replicas'
  | 'connect-timeout'
  // submit: refused here, nothing was sent
  | 'no-key'
  | 'client-queue-full'
  | 'transaction-empty'
  | 'transaction-too-large'
  | 'bundle-empty'
  | 'bundle-too-large'
  // submit: the cluster's answer; the transaction is not in the log and never will be
  | 'expired'
  | 'session-ended'
  | 'bundle-invalid'
  // submit: it is not in the log, and cannot be before the replicas have forgotten its session
  | 'sequence-passed'
  // submit: it may stand in the log; nobody has a receipt to show
  | 'outcome-unknown'
  // follow
  | 'pruned'
  // any time; a transaction in flight may still be ordered
  | 'closed';

const sentences: Record<ClientErrorCode, string> = {
  'option-invalid': 'an option is out of its range',
  'genesis-invalid': 'the genesis document is not valid',
  'unknown-replica': 'a replica was named that is no member of the genesis document',
  'too-few-replicas': 'fewer than f+1 replicas were given, so a single faulty one could deceive this client',
  'connect-timeout': 'not enough replicas could be reached in time',
  'no-key': 'this client was made without a key, so it can read but not submit',
  'client-queue-full': 'too many transactions wait in this client; await drained()',
  'transaction-empty': 'a transaction has at least one byte',
  'transaction-too-large': 'the transaction is larger than transactionBytesMax',
  'bundle-empty': 'a bundle has at least one transaction',
  'bundle-too-large': 'the bundle is larger than bundleBytesMax or bundleTransactionsMax',
  expired: 'the chain passed the height until which the bundle was valid without ordering it; it can never be ordered',
  'session-ended': 'an earlier bundle of the same session was refused for good, so this one can never be ordered',
  'sequence-passed': 'another bundle holds this place of the session',
  'outcome-unknown': 'the replicas no longer keep the blocks in which it could stand',
  'bundle-invalid': 'the replicas refuse the bundle as malformed or wrongly signed',
  pruned: 'no reachable replica has the block any more',
  closed: 'the client was closed',
};

/** Plain values only, so that an error can be logged as JSON. */
export type ErrorDetails = Readonly<Record<string, string | number | readonly string[]>>;

/** The only error that this SDK throws or rejects with, bugs aside. */
export class ClientError extends Error {
  override readonly name = 'ClientError';
  readonly code: ClientErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ClientErrorCode, details: ErrorDetails = {}) {
    const facts = Object.entries(details).map(([key, value]) => `${key}: ${String(value)}`);
    super(`${code}: ${sentences[code]}${facts.length === 0 ? '' : ` (${facts.join(', ')})`}`);
    this.code = code;
    this.details = details;
  }
}
