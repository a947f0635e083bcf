// Every option of a client with its default, unit and range. Nothing that matters is left to a library's default.

import type { Parameters } from '../protocol/genesis.ts';
import { ClientError } from './errors.ts';
import { type OpenSocket, openWebSocket } from './socket.ts';

export interface ClientOptions {
  /** How long `connect` may take. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** First pause before a broken connection is tried again; doubles up to `reconnectMsMax`, with jitter. Default 50. */
  readonly reconnectMs?: number;
  /** Default 5,000. */
  readonly reconnectMsMax?: number;
  /** How long a replica that lied or withheld is used last. Default 60,000. */
  readonly suspicionMs?: number;
  /** Between two questions for a replica's head. Default 1,000. */
  readonly headIntervalMs?: number;
  /** A connection on which a question for the head stays unanswered for so long is ended. Default 10,000. */
  readonly silenceMsMax?: number;
  /**
   * Without a receipt for so long, the oldest bundles go to more replicas: to f+1 others first, then to all, with doubling
   * pauses. Default: twice viewTimeoutMs, at least 500.
   */
  readonly retryMs?: number;
  /**
   * The oldest bundle goes to f+1 others too when it is still in flight after one to two of these, so that they time the primary (PACE-1).
   * Default: an eighth of viewTimeoutMs, at least 50.
   */
  readonly witnessMs?: number;
  /** How long a transaction may wait for others while bundles are in flight. 0: never. Default 2. */
  readonly bundleDelayMs?: number;
  /** Transactions of one bundle. Default and maximum: the chain's bundleTransactionsMax. */
  readonly bundleTransactionsMax?: number;
  /** Signed bundles without a receipt. Default 128. */
  readonly bundlesInFlightMax?: number;
  /** Transactions that wait for a place in flight; above it `submit` rejects. Default 65,536. */
  readonly queueTransactionsMax?: number;
  /** Their bytes. Default 33,554,432. */
  readonly queueBytesMax?: number;
  /** For how many blocks above the known head a bundle is valid. Default: 10,000, at most half of validUntilHorizon. */
  readonly validBlocks?: number;
  /** Session id and the sequence of its first bundle. Default: a random session, from 1. */
  readonly session?: { readonly id: number; readonly firstSequence: number };
  /** Blocks that a `follow` holds before its consumer takes them; at least twice the window of the chain. Default 64. */
  readonly followBlocksMax?: number;
  /** A stream that stays silent for so long while others have certified heads above it is left. Default: as retryMs. */
  readonly withholdMs?: number;
  /** How bytes travel. Default: ws. */
  readonly openSocket?: OpenSocket;
}

export type Settings = Required<Omit<ClientOptions, 'session'>> & Pick<ClientOptions, 'session'>;

/** Throws ClientError 'option-invalid'. */
export function settingsOf(options: ClientOptions, parameters: Parameters): Settings {
  const { validUntilHorizon, viewTimeoutMs, window, bundleTransactionsMax: transactionsMax } = parameters;
  const integer = (name: keyof ClientOptions, fallback: number, min: number, max: number): number => {
    const value = options[name] ?? fallback;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new ClientError('option-invalid', { option: name, min, max });
  };
  const retryMs = integer('retryMs', Math.max(500, 2 * viewTimeoutMs), 1, 3_600_000);
  const reconnectMs = integer('reconnectMs', 50, 1, 3_600_000);
  const { session } = options;
  if (session !== undefined) {
    const { id, firstSequence } = session;
    if (!Number.isSafeInteger(id) || id < 0 || !Number.isSafeInteger(firstSequence) || firstSequence < 1)
      throw new ClientError('option-invalid', { option: 'session' });
  }
  return {
    connectTimeoutMs: integer('connectTimeoutMs', 10_000, 1, 3_600_000),
    reconnectMs,
    reconnectMsMax: integer('reconnectMsMax', Math.max(5_000, reconnectMs), reconnectMs, 3_600_000),
    suspicionMs: integer('suspicionMs', 60_000, 0, 86_400_000),
    headIntervalMs: integer('headIntervalMs', 1_000, 1, 3_600_000),
    silenceMsMax: integer('silenceMsMax', 10_000, 1, 3_600_000),
    retryMs,
    witnessMs: integer('witnessMs', Math.max(50, Math.floor(viewTimeoutMs / 8)), 1, 3_600_000),
    bundleDelayMs: integer('bundleDelayMs', 2, 0, 60_000),
    bundleTransactionsMax: integer('bundleTransactionsMax', transactionsMax, 1, transactionsMax),
    bundlesInFlightMax: integer('bundlesInFlightMax', 128, 1, 8_192),
    queueTransactionsMax: integer('queueTransactionsMax', 65_536, 1, 10_000_000),
    queueBytesMax: integer('queueBytesMax', 32 << 20, 1, 2 ** 31),
    // Half of the horizon: a replica somewhat behind must not find it too far.
    validBlocks: integer('validBlocks', Math.min(10_000, Math.floor(validUntilHorizon / 2)), 1, validUntilHorizon),
    followBlocksMax: Math.max(2 * window, integer('followBlocksMax', 64, 1, 4_096)),
    withholdMs: integer('withholdMs', retryMs, 1, 3_600_000),
    openSocket: options.openSocket ?? openWebSocket,
    ...(session === undefined ? {} : { session }),
  };
}
