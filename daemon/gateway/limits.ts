// Every bound of the client door in one place. Genesis holds what all replicas must agree on; these are this replica's own business.

import type { BucketRate } from './token-bucket.ts';

export interface GatewayLimits {
  /** Client connections served at once. */
  readonly connectionsMax: number;
  /** Frames of one connection that wait for their turn; above it the socket is not read. */
  readonly queuedFramesMax: number;
  /** Bytes of those frames. */
  readonly queuedBytesMax: number;
  /** Bundles of one connection whose receipt is outstanding. */
  readonly connectionBundlesMax: number;
  /** Bundles of all connections whose receipt is outstanding; above half of it a connection gets no more than its even share. */
  readonly waitingBundlesMax: number;
  /** Time that client frames may take in one turn of the event loop, before peers get their turn again. */
  readonly turnMsMax: number;
  /** Bytes unsent on a connection above which nothing is read for it: no history, no further frames. */
  readonly bufferedBytesHigh: number;
  /** Bytes unsent on a connection that end it: its reader has stalled. Below the transport's own limit, which says no code here. */
  readonly bufferedBytesMax: number;
  /** Bytes of block bodies in one frame of a stream, or one read of the log. */
  readonly followBytesMax: number;
  /** Blocks in one frame of a stream. */
  readonly followBlocksMax: number;
  /** Recently decided blocks kept for all streams together. */
  readonly recentBlocksMax: number;
  readonly recentBytesMax: number;
  /** Questions about stored bundles that one connection may have open. */
  readonly queriesMax: number;
  /** Work that one client key may cause: a bundle costs 1, a question about a stored one queryTokens. */
  readonly rate: BucketRate;
  readonly queryTokens: number;
  /** Of a question for a piece of the state. All of it is 258 of them. */
  readonly stateTokens: number;
  readonly bucketsMax: number;
}

export const defaultGatewayLimits: GatewayLimits = {
  connectionsMax: 1024,
  queuedFramesMax: 256,
  queuedBytesMax: 2 << 20,
  connectionBundlesMax: 8192,
  waitingBundlesMax: 65_536,
  turnMsMax: 4,
  bufferedBytesHigh: 1 << 20,
  bufferedBytesMax: 6 << 20,
  followBytesMax: 768 << 10,
  followBlocksMax: 256,
  recentBlocksMax: 256,
  recentBytesMax: 6 << 20,
  queriesMax: 64,
  rate: { perSecond: 20_000, burst: 20_000 },
  queryTokens: 20,
  stateTokens: 50,
  bucketsMax: 8192,
};
