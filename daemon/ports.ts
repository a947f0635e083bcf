// The seams inside the daemon, as types: the loop (replica.ts) knows neither sockets nor HTTP; the transport and the doors know
// nothing of the protocol. main.ts plugs them together.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Certificate } from '../protocol/certificate.ts';
import type {
  AdmissionCode,
  BundleExplanation,
  CoreEvent,
  Decided,
  EpochEnd,
  Explanation,
  HeightExplanation,
} from '../protocol/core.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { Hash, Height, ReplicaId } from '../protocol/types.ts';
import type { LogStore } from '../storage/log-store.ts';
import type { ReadPoint } from './read-desk.ts';

/** Votes and other small frames overtake blocks and state, never the other way round. */
export type Lane = 'vote' | 'bulk';

/** Authenticated links to the other replicas. Frames are whole, encoded and signed; delivery is at most once, in order per lane. */
export interface PeerTransport {
  /** Drops the frame, and counts it, where the peer is away or its queue is full: the core says again what matters. */
  send(to: ReplicaId, frame: Bytes, lane: Lane): void;
  broadcast(frame: Bytes, lane: Lane): void;
  /** The peer broke a rule that an honest one never breaks: end the connection, for a while. */
  punish(peer: ReplicaId, code: string): void;
  connectedPeers(): readonly ReplicaId[];
  close(): Promise<void>;
}

/** What the transport calls. Never throws, never blocks. */
export interface PeerEvents {
  /** A whole frame from an authenticated peer; `bytes` is the frame as received (within FRAME_BYTES_MAX), not yet decoded. */
  /** `key`: [EPO-23] it came under one that the peer has proved for a later epoch; whether that is its key then, the epochs say. */
  frame(from: ReplicaId, bytes: Bytes, key?: Bytes): void;
  connected(peer: ReplicaId): void;
  disconnected(peer: ReplicaId): void;
}

/** The replica as the doors (gateway.ts, http.ts) and the metrics see it. */
export interface ReplicaPort {
  readonly genesis: Genesis;
  readonly self: ReplicaId;
  readonly crypto: Crypto;
  readonly log: LogStore;
  /** A checked bundle (decodeBundle and the client's signature); the verdict arrives through `admission`. False: the input queue is full, say busy. */
  submit(bundle: SignedBundle): boolean;
  /** Everything that anyone was told of before this call stands at or below it, and is decided here (CFT-RP-1); or why it cannot be had. In bounded time. */
  readPoint(): Promise<ReadPoint>;
  /** What the core says of itself, of a height and of a bundle (protocol/core.ts). */
  explain(): Explanation;
  explainHeight(height: Height): HeightExplanation;
  explainBundle(digest: Hash): BundleExplanation;
  /** How long the synced write that is under way has taken, in ms; 0: none is. */
  writingMs(): number;
  /** The last decided height, with a certificate that covers it once one is known. */
  head(): { readonly height: Height; readonly hash: Hash; readonly certificate: Certificate | null };
  /** Returns the function that ends the subscription. */
  subscribe(events: ReplicaEvents): () => void;
  /** Stops taking bundles, gives what is in flight a moment, closes. Resolves when everything is on disk and closed. */
  drain(): Promise<void>;
}

export interface ReplicaEvents {
  /** Newly decided blocks, rising. Certificates as in core.ts: null where a later block covers it, nearly always of the same call. */
  decided?(blocks: readonly Decided[]): void;
  /** `bundle-invalid`: it was admitted in an earlier epoch, and no block of this one may hold it (EPO-15). */
  admission?(digest: Hash, code: AdmissionCode | 'bundle-invalid'): void;
  event?(event: CoreEvent): void;
  /** The process must end: a write failed, or an invariant broke. The cause has been logged. */
  fatal?(error: Error): void;
  /**
   * The epoch has ended: this replica does nothing more, and the next epoch begins with another (EPO-12), when `written` is true: all of this one is
   * durable. False: it has not come to that, and `fatal` says why.
   */
  ended?(end: EpochEnd, written: Promise<boolean>): void;
}

/** Figures that the parts report; metrics.ts turns them into Prometheus series. All times in milliseconds. */
export interface Meter {
  count(name: string, labels?: Readonly<Record<string, string>>, by?: number): void;
  gauge(name: string, value: number, labels?: Readonly<Record<string, string>>): void;
  observe(name: string, value: number, labels?: Readonly<Record<string, string>>): void;
}
