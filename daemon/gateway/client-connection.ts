// One authenticated client at the door: takes its frames in turn, checks them, and tells it what becomes of its bundles. Whatever
// arrives, nothing throws: a frame that an honest client never sends ends the connection with a code.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import { bundleSigningBytes, type SignedBundle } from '../../protocol/bundle.ts';
import {
  decodeBundle,
  decodeFrame,
  decodePayload,
  type Frame,
  frameSigningBytes,
  isClientKind,
  isRefusal,
  type WireContext,
} from '../../protocol/codec.ts';
import type {
  BundleAdmission,
  Follow,
  FollowEnd,
  QueryBundle,
  QueryCheckpoint,
  QueryState,
} from '../../protocol/door.ts';
import { asHash, type Epoch, type Hash, type Height } from '../../protocol/types.ts';
import { isControlSound } from '../../protocol/verify.ts';
import type { Meter, ReplicaPort } from '../ports.ts';
import type { ClientEvents, ClientSocket } from '../transport/client.ts';
import type { Delivered } from './block-source.ts';
import type { FairTurns, Worker } from './fair-turns.ts';
import type { FollowSource } from './follow-source.ts';
import { FollowStream } from './follow-stream.ts';
import type { GatewayLimits } from './limits.ts';
import { Outbox } from './outbox.ts';
import type { DeskCode, ReceiptDesk, Waiting } from './receipt-desk.ts';
import type { FrameSealer } from './seal-frames.ts';
import type { TokenBuckets } from './token-bucket.ts';

/** What all connections share. */
export interface DoorParts {
  readonly replica: ReplicaPort;
  readonly limits: GatewayLimits;
  readonly meter: Meter;
  readonly wire: WireContext;
  readonly desk: ReceiptDesk;
  readonly sealer: FrameSealer;
  readonly source: FollowSource;
  readonly turns: FairTurns;
  readonly buckets: TokenBuckets;
  readonly now: () => number;
  draining(): boolean;
  /** A connection's part of what all connections together may wait for. */
  evenShare(): number;
  /** A sealed answer from the log's newest stable checkpoint. */
  state(question: QueryCheckpoint | QueryState): Promise<Bytes>;
  /** A sealed answer with links from this epoch on. */
  epochsFrame(from: Epoch): Bytes;
  /** The sealed head of this replica. */
  headFrame(): Bytes;
  gone(connection: ClientConnection): void;
  /** A stream began or ended. */
  streams(change: 1 | -1): void;
}

export class ClientConnection implements ClientEvents, Worker, Waiting {
  readonly #socket: ClientSocket;
  readonly #door: DoorParts;
  readonly #outbox: Outbox;
  #frames: Bytes[] = [];
  #framesBytes = 0;
  #paused = false;
  #open = true;
  /** By digest in hex: the bundles whose receipt is outstanding, and since when. */
  readonly #waiting = new Map<string, { readonly digest: Hash; readonly since: number }>();
  #stream: FollowStream | null = null;
  /** Questions about stored bundles are answered in the order in which they were asked. */
  #queries: Promise<void> = Promise.resolve();
  #queriesOpen = 0;

  constructor(socket: ClientSocket, door: DoorParts) {
    this.#socket = socket;
    this.#door = door;
    this.#outbox = new Outbox({ sealer: door.sealer, send: (frame) => this.send(frame) });
  }

  // ---- from the transport ----

  frame(bytes: Bytes): void {
    if (!this.#open) return;
    this.#frames.push(bytes);
    this.#framesBytes += bytes.length;
    this.#door.turns.add(this);
    if (this.#isFull()) this.#pause();
  }

  drained(): void {
    this.#stream?.wake();
    if (this.#frames.length > 0) this.#door.turns.add(this);
    else this.#resume();
  }

  closed(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#frames = [];
    this.#framesBytes = 0;
    this.#stopStream();
    this.#outbox.clear();
    for (const { digest } of this.#waiting.values()) this.#door.desk.forget(digest, this);
    this.#waiting.clear();
    this.#door.turns.remove(this);
    this.#door.gone(this);
  }

  // ---- in turn ----

  /** One frame; true: there are more. */
  step(): boolean {
    // Who does not take the answers is not asked for more questions; `drained` brings the turn back.
    if (!this.#open || !this.#writable()) {
      if (this.#open) this.#pause();
      return false;
    }
    const bytes = this.#frames.shift();
    if (bytes === undefined) return false;
    this.#framesBytes -= bytes.length;
    this.#take(bytes);
    if (!this.#open) return false;
    if (this.#paused && !this.#isFull()) this.#resume();
    return this.#frames.length > 0;
  }

  #take(bytes: Bytes): void {
    const frame = decodeFrame(bytes);
    if (isRefusal(frame)) return this.#end(frame.refused);
    if (!isClientKind(frame.kind)) return this.#end('kind-not-for-replicas');
    this.#door.meter.count('synod_client_frames_total', { kind: frame.kind });
    if (frame.kind === 'submit') return this.#submit(frame);
    // Everything but a bundle speaks for the connection, so it must come from the key that the connection has proved.
    if (!equalBytes(frame.sender, this.#socket.clientKey)) return this.#end('sender-not-the-client');
    const message = decodePayload(frame.kind, frame.payload, this.#door.wire);
    if (isRefusal(message)) return this.#end(message.refused);
    const { crypto, genesis } = this.#door.replica;
    if (!crypto.verify(frame.sender, frameSigningBytes(genesis.chainId, frame.kind, frame.payload), frame.signature))
      return this.#end('frame-signature');
    switch (message.kind) {
      case 'follow':
        return this.#follow(message);
      case 'credit':
        this.#stream?.grant(message.blocks);
        return;
      case 'query-head':
        this.send(this.#door.headFrame());
        return;
      case 'query-bundle':
        return this.#query(message);
      case 'query-checkpoint':
      case 'query-state':
        return this.#queryState(message);
      case 'query-epochs':
        if (!this.#door.buckets.take(this.#socket.clientKey, this.#door.limits.queryTokens)) return this.#end('rate');
        return this.send(this.#door.epochsFrame(message.from));
      default:
        // isClientKind leaves only the seven above; the types of the wire cannot say it.
        return this.#end('kind-not-for-replicas');
    }
  }

  #submit(frame: Frame): void {
    const { replica, buckets, wire, limits } = this.#door;
    const digestOf = () => asHash(replica.crypto.sha256(frame.payload));
    // Before any work is spent on it: a client that floods is told to wait, whatever it sends.
    if (!buckets.take(this.#socket.clientKey)) return this.#answer(digestOf(), 'busy');
    const bundle = decodeBundle(frame, wire);
    if (isRefusal(bundle)) {
      this.#refused(bundle.refused);
      // True of these bytes, whoever brings them.
      return this.#answer(digestOf(), 'bundle-invalid');
    }
    // What is wrong from here on is this frame, not the bundle: a signed word against its digest could be shown to its client.
    if (!equalBytes(frame.sender, bundle.client)) return this.#end('bundle-sender');
    if (this.#door.draining()) return this.#answer(bundle.digest, 'busy');
    const key = keyOf(bundle.digest);
    const known = this.#waiting.has(key);
    if (!known && this.#waiting.size >= Math.min(limits.connectionBundlesMax, this.#door.evenShare()))
      return this.#answer(bundle.digest, 'busy');
    const signed = bundleSigningBytes(replica.genesis.chainId, bundle.digest);
    // Checking it cost us as much as making it would have cost them; an honest client or relay never sends one.
    if (!replica.crypto.verify(bundle.client, signed, bundle.signature)) return this.#end('bundle-signature');
    if (!isControlSound(bundle, replica.crypto, replica.genesis.chainId))
      return this.#answer(bundle.digest, 'bundle-invalid');
    this.#hand(bundle, key);
  }

  #hand(bundle: SignedBundle, key: string): void {
    const { replica, desk, now } = this.#door;
    // First the place at the desk: the verdict may come before submit returns.
    if (!desk.wait(bundle.digest, this)) return this.#answer(bundle.digest, 'busy');
    const before = this.#waiting.get(key);
    if (before === undefined) this.#waiting.set(key, { digest: bundle.digest, since: now() });
    if (replica.submit(bundle)) return;
    // The replica takes nothing now. What this connection waited for before, it still waits for.
    if (before === undefined) {
      this.#waiting.delete(key);
      desk.forget(bundle.digest, this);
    }
    this.#answer(bundle.digest, 'busy');
  }

  #query({ question, digest }: QueryBundle): void {
    const { limits, buckets, desk } = this.#door;
    if (this.#queriesOpen >= limits.queriesMax) return this.#end('queries-too-many');
    // A question without an answer would hang its asker, and a bucket that is empty says nothing about the bundle.
    if (!buckets.take(this.#socket.clientKey, limits.queryTokens)) return this.#end('rate');
    this.#queriesOpen += 1;
    this.#queries = this.#queries.then(async () => {
      const looked = this.#open ? await desk.look(digest).catch(() => null) : null;
      this.#queriesOpen -= 1;
      if (!this.#open) return;
      // Nobody has looked, and an empty answer would say that somebody has.
      if (looked === null) return this.#end('log-read-failed');
      const { found, lowest, height } = looked;
      this.#outbox.answer({ question, digest, lowest, height }, found?.receipt ?? null);
      if (found !== null) this.#door.meter.count('synod_receipts_sent_total', { source: 'query' });
    });
  }

  /** One after the other, and in turn with the questions about bundles: a state is large, and nobody is to have it faster than it is taken. */
  #queryState(question: QueryCheckpoint | QueryState): void {
    const { limits, buckets, state } = this.#door;
    if (this.#queriesOpen >= limits.queriesMax) return this.#end('queries-too-many');
    if (!buckets.take(this.#socket.clientKey, limits.stateTokens)) return this.#end('rate');
    this.#queriesOpen += 1;
    this.#queries = this.#queries.then(async () => {
      const answer = this.#open ? await state(question).catch(() => null) : null;
      this.#queriesOpen -= 1;
      if (!this.#open) return;
      if (answer === null) return this.#end('log-read-failed');
      this.send(answer);
    });
  }

  // ---- the stream ----

  #follow(request: Follow): void {
    this.#stopStream();
    if (this.#door.draining()) return this.#streamEnded('draining', this.#door.source.lowest());
    this.#door.streams(1);
    this.#stream = new FollowStream({
      request,
      source: this.#door.source,
      writable: () => this.#writable(),
      send: (frame, blocks) => {
        this.send(frame);
        this.#door.meter.count('synod_followed_blocks_total', {}, blocks);
      },
      ended: (code, lowest) => {
        this.#stopStream();
        this.#streamEnded(code, lowest);
      },
      failed: () => this.#end('log-read-failed'),
    });
    this.#stream.wake();
  }

  /** New blocks are there. */
  wake(): void {
    this.#stream?.wake();
  }

  #streamEnded(code: FollowEnd['code'], lowest: Height): void {
    this.send(this.#door.sealer.seal({ kind: 'follow-end', code, lowest }));
  }

  #stopStream(): void {
    if (this.#stream === null) return;
    this.#stream.stop();
    this.#stream = null;
    this.#door.streams(-1);
  }

  // ---- from the desk ----

  delivered(bundles: readonly Delivered[], source: 'live' | 'stored'): void {
    const now = this.#door.now();
    for (const { bundle } of bundles) {
      const key = keyOf(bundle.digest);
      const entry = this.#waiting.get(key);
      if (entry === undefined) continue;
      this.#waiting.delete(key);
      this.#door.meter.observe('synod_submit_ms', now - entry.since);
    }
    this.#door.meter.count('synod_receipts_sent_total', { source }, bundles.length);
    this.#outbox.receipts(bundles.map(({ receipt }) => receipt));
  }

  admission(digest: Hash, code: DeskCode, final: boolean): void {
    if (final) this.#waiting.delete(keyOf(digest));
    this.#answer(digest, code);
  }

  // ---- out ----

  /** A sealed frame. A reader that has stalled beyond the limit is ended instead. */
  send(frame: Bytes): void {
    if (!this.#open) return;
    if (this.#socket.bufferedBytes > this.#door.limits.bufferedBytesMax) return this.#end('reader-stalled');
    this.#socket.send(frame);
  }

  hurry(): void {
    this.#outbox.flush();
  }

  drain(): void {
    this.#stream?.drain();
    this.#outbox.flush();
  }

  close(code: string): void {
    this.#end(code);
  }

  #answer(digest: Hash, code: BundleAdmission['code']): void {
    const { replica } = this.#door;
    // Not the head that was delivered: a state taken from peers is above it, and may be what passed the bundle.
    const { height } = code === 'expired' || code === 'sequence-passed' ? replica.explain() : replica.head();
    this.#outbox.admission({ digest, code, height });
  }

  #refused(code: string): void {
    this.#door.meter.count('synod_client_refusals_total', { code });
  }

  #end(code: string): void {
    if (!this.#open) return;
    this.#refused(code);
    // What was said before it still counts.
    if (code !== 'reader-stalled') this.#outbox.flush();
    this.#socket.close(code);
    this.closed();
  }

  #writable(): boolean {
    return this.#socket.bufferedBytes <= this.#door.limits.bufferedBytesHigh;
  }

  #isFull(): boolean {
    const { queuedFramesMax, queuedBytesMax } = this.#door.limits;
    return this.#frames.length >= queuedFramesMax || this.#framesBytes >= queuedBytesMax;
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  #resume(): void {
    if (!this.#paused || !this.#open) return;
    this.#paused = false;
    this.#socket.resume();
  }
}

function keyOf(digest: Bytes): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1');
}
