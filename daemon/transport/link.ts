// One lane to one peer: at most one live connection, dialled by either side, and the frames that wait for it.
//
// Both sides dial whenever they have none, so that one of them behind a restart, a wrong address or a one-way firewall is enough. Two
// connections are resolved alike on both sides: the one that the lower replica id dialled stays; of two dialled by the same
// side, the newer one, since that side would not have dialled while it had one. Where the rule keeps the old one it is also
// probed: if it is dead without knowing (a power cut at the other end), the next attempt finds the place free.
//
// [EPO-23] A connection outlives a change of either key. From its own switch on this side says its new key first; and where the peer has to, the
// connection is nobody's until it has: nothing on it counts, and what is for the peer waits.

import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import type { Session } from '../../protocol/session.ts';
import type { ReplicaId } from '../../protocol/types.ts';
import { decodeFrame, kindInFrame } from '../../protocol/wire/frame.ts';
import type { Lane } from '../ports.ts';
import { authenticate, type Credentials, rekeyFrame } from './authenticate.ts';
import { Backoff } from './backoff.ts';
import { type Connection, closeCode } from './connection.ts';
import type { Context } from './context.ts';
import { type Dialled, type DialTls, dial } from './dial.ts';
import { FrameQueue } from './queue.ts';

/** The first frame from the side that was dialled: the link stands, from its side too. MessagePack's nil, which no frame is. */
const WELCOME: Bytes = Uint8Array.of(0xc0);

/** The numbers of both ends, in the epoch at hand. Whose number is the lower one never changes: members keep their order (EPO-22). */
export interface LinkEnds {
  readonly self: ReplicaId;
  readonly peer: ReplicaId;
}

export interface LinkParts {
  readonly context: Context;
  readonly ends: LinkEnds;
  readonly lane: Lane;
  /** With the lane's path. Absent: only the peer dials. */
  readonly url: string | undefined;
  readonly tls: DialTls;
  readonly credentials: () => Credentials;
  /** The peer's public key, in the epoch at hand. */
  readonly key: Bytes;
  /** Milliseconds for which the peer is refused; 0: it is not. */
  readonly refusedFor: () => number;
  /** While there is no connection: whether frames wait for one instead of being dropped. */
  readonly holds: () => boolean;
  /** `key`: where it is under one that the peer has for a later epoch only. */
  readonly frame: (bytes: Bytes, key?: Bytes) => void;
  readonly up: () => void;
  readonly down: (code: string) => void;
}

/** What the other end has proved: the peer's key of the epoch at hand; that, and the next one already; or neither (EPO-23). */
type Standing = 'present' | 'ahead' | 'nobody';

interface Live {
  readonly connection: Connection;
  readonly session: Session;
  readonly dialledBySelf: boolean;
  readonly since: number;
  standing: Standing;
  /** The last change of `standing` by an epoch. */
  judgedAt: number;
  /** Since the epoch at hand has begun here. */
  rekeys: number;
}

/** A peer that is as many epochs ahead, with another key in each of them, shakes hands anew. */
const REKEYS_MAX = 8;

interface Attempt {
  deadline: NodeJS.Timeout | undefined;
  /** Gives it up without a word. */
  give: () => void;
  connection: Connection | undefined;
}

export class Link {
  readonly #parts: LinkParts;
  #ends: LinkEnds;
  readonly #context: Context;
  readonly #queue: FrameQueue;
  readonly #backoff: Backoff;
  #key: Bytes;
  #live: Live | undefined;
  /** The attempt that is under way. */
  #attempt: Attempt | undefined;
  #timer: NodeJS.Timeout | undefined;
  #attachedAt = Number.NEGATIVE_INFINITY;
  #paused = false;
  #started = false;
  #closed = false;

  constructor(parts: LinkParts) {
    this.#parts = parts;
    this.#ends = parts.ends;
    this.#key = parts.key;
    this.#context = parts.context;
    const { options, random } = parts.context;
    const { queueFramesMax, queueBytesMax } = options[parts.lane];
    this.#queue = new FrameQueue({ framesMax: queueFramesMax, bytesMax: queueBytesMax });
    this.#backoff = new Backoff(options, random);
  }

  get isUp(): boolean {
    return this.#live !== undefined && this.#live.standing !== 'nobody';
  }

  get queuedFrames(): number {
    return this.#queue.size;
  }

  get queuedBytes(): number {
    return this.#queue.bytes + (this.#live?.connection.bufferedBytes ?? 0);
  }

  /** Begins to dial. */
  start(): void {
    this.#started = true;
    this.#schedule(this.#backoff.next());
  }

  /**
   * [EPO-22] [EPO-23] Another epoch, in which both have other numbers, and each perhaps another key. Nothing is said of it to the owner. `isAnew`: one of them
   * has another key; what was refused or in vain under the one before is tried at once.
   */
  enter(ends: LinkEnds, key: Bytes, isAnew: boolean): void {
    const isSameKey = equalBytes(this.#key, key);
    this.#ends = ends;
    this.#key = key;
    const live = this.#live;
    if (live === undefined) {
      if (!isAnew || !this.#started) return;
      this.#abandon();
      this.#backoff.reset();
      this.#schedule(this.#backoff.next());
      return;
    }
    live.rekeys = 0;
    const { peer } = live.session;
    const isAhead = isSameKey && live.standing === 'ahead' && peer.epoch > this.#parts.credentials().epoch();
    if (equalBytes(peer.key, key)) live.standing = 'present';
    else if (!isAhead && live.standing !== 'nobody') {
      live.standing = 'nobody';
      live.judgedAt = this.#context.now();
    }
    this.#announce(live);
    // What has waited for the peer's proof.
    this.#drain();
  }

  send(frame: Bytes): void {
    const connection = this.#live?.connection;
    const flow = this.#context.tally.frames[this.#parts.lane];
    if (connection !== undefined && this.isUp && this.#queue.size === 0 && connection.writable) connection.send(frame);
    else if (connection !== undefined || this.#parts.holds()) flow.dropped += this.#queue.push(frame);
    else flow.dropped += 1;
  }

  /** A connection that the peer dialled and proved to be its own, by its present key. */
  arrived(connection: Connection, session: Session): void {
    const { self, peer } = this.#ends;
    if (this.#closed) {
      connection.close(closeCode.goingAway, 'going-away');
      return;
    }
    if (this.#parts.refusedFor() > 0) {
      connection.close(closeCode.punished, 'peer-punished');
      return;
    }
    const { dialledBySelf = false } = this.#live ?? {};
    if (dialledBySelf && self < peer && this.isUp) {
      this.#live?.connection.probe();
      connection.close(closeCode.duplicate, 'duplicate');
      return;
    }
    // Every connection makes the core say again what matters: a peer must not have that as often as it can dial.
    if (!dialledBySelf && this.#context.now() - this.#attachedAt < this.#context.options.connectionMsMin) {
      connection.close(closeCode.duplicate, 'too-soon');
      return;
    }
    connection.send(WELCOME);
    this.#attach(connection, session, false);
  }

  /** Reading stops (the replica is overloaded) and goes on. */
  pause(): void {
    this.#paused = true;
    this.#live?.connection.pause('owner');
  }

  resume(): void {
    this.#paused = false;
    this.#live?.connection.resume('owner');
  }

  /** Called every sweepMs. Connections that came in are swept by the server. */
  sweep(now: number): void {
    const live = this.#live;
    // What is not read may be the proof.
    if (live?.standing === 'nobody' && !this.#paused && now - live.judgedAt > this.#context.options.rekeyMsMax)
      this.#refuse(live, 'rekey-missing');
    if (this.#live?.dialledBySelf === true) this.#live.connection.sweep(now);
    this.#attempt?.connection?.sweep(now);
  }

  /** Ends the connection and dials again when the peer is welcome. */
  cut(code: number, reason: string): void {
    this.#abandon();
    const live = this.#live;
    live?.connection.close(code, reason);
    if (live === undefined) this.#schedule(this.#backoff.next());
    else this.#detach(reason);
  }

  /** Forgets the frames that wait. */
  drop(): void {
    this.#context.tally.frames[this.#parts.lane].dropped += this.#queue.clear();
  }

  /** [EPO-24] The peer is no member any more: nothing counts from now on, and the connection is closed when there is time. */
  leave(): void {
    this.#closed = true;
    this.#abandon();
    clearTimeout(this.#timer);
    const live = this.#live;
    if (live === undefined) return;
    live.standing = 'nobody';
    live.judgedAt = this.#context.now();
    live.connection.onFrame = () => {};
  }

  close(code: number = closeCode.goingAway, reason = 'going-away'): void {
    this.#closed = true;
    this.cut(code, reason);
    clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    const { url } = this.#parts;
    const { self, peer } = this.#ends;
    if (this.#closed || url === undefined) return;
    // Both would dial at the same moment, and one connection of two would be in vain.
    const courtesy = self > peer ? this.#context.options.secondDialMs : 0;
    const delay = Math.max(delayMs + courtesy, this.#parts.refusedFor());
    this.#timer = setTimeout(() => this.#dial(url), delay);
  }

  #dial(url: string): void {
    if (this.#closed || this.#live !== undefined || this.#attempt !== undefined) return;
    const context = this.#context;
    const { lane, tls } = this.#parts;
    const { peer } = this.#ends;
    const credentials = this.#parts.credentials();
    context.tally.count('synod_transport_dials_total', { lane });
    const attempt: Attempt = { deadline: undefined, give: () => dialling.abort(), connection: undefined };
    this.#attempt = attempt;
    /** Ends the attempt: the link stands, or why not. */
    const over = (refusal: string | undefined): void => {
      clearTimeout(attempt.deadline);
      if (this.#attempt !== attempt) return;
      this.#attempt = undefined;
      if (refusal === undefined || this.#live !== undefined) return;
      this.#schedule(this.#backoff.next());
    };
    const refused = (code: string): void => {
      if (this.#attempt === attempt && !/^(peer: )?duplicate$/.test(code))
        context.handshakeRefused(code, attempt.connection?.address ?? '', 'out');
      over(code);
    };
    const failed = (why: string): void => {
      context.log.debug({ peer, lane, why }, 'dial failed');
      over(why);
    };
    // The library's own timeout begins again with every byte.
    attempt.deadline = setTimeout(() => {
      attempt.give();
      failed('dial-timeout');
    }, context.options.handshakeMsMax);
    const opened = ({ ws, socket }: Dialled): void => {
      const connection = context.connection({ ws, socket, channel: lane });
      attempt.connection = connection;
      attempt.give = () => connection.terminate('abandoned');
      const done = (_: unknown, session: Session): void => {
        connection.onClose = refused;
        connection.onFrame = (frame) => {
          if (frame.length !== 1 || frame[0] !== WELCOME[0]) {
            connection.close(closeCode.handshake, 'no-welcome');
            return;
          }
          // Another epoch has begun, in which it has another key.
          if (!equalBytes(session.peer.key, this.#key)) {
            connection.close(closeCode.handshake, 'not-a-peer');
            return;
          }
          over(undefined);
          this.#welcomed(connection, session);
        };
      };
      authenticate({ connection, credentials, side: 'initiator', expected: this.#key, done, refused });
    };
    const dialling = dial({ url, tls, options: context.options, opened, failed });
  }

  #welcomed(connection: Connection, session: Session): void {
    const { self, peer } = this.#ends;
    if (this.#closed || this.#parts.refusedFor() > 0) {
      connection.close(closeCode.goingAway, 'going-away');
      return;
    }
    if (this.#live?.dialledBySelf === false && peer < self && this.isUp) {
      connection.close(closeCode.duplicate, 'duplicate');
      return;
    }
    this.#attach(connection, session, true);
  }

  #attach(connection: Connection, session: Session, dialledBySelf: boolean): void {
    const old = this.#live?.connection;
    // Frames in the old one may be lost: whoever hears of it says again what matters.
    if (old !== undefined) {
      old.close(closeCode.duplicate, 'replaced');
      this.#detach('replaced');
    }
    clearTimeout(this.#timer);
    this.#attachedAt = this.#context.now();
    const since = this.#attachedAt;
    const live: Live = { connection, session, dialledBySelf, since, standing: 'present', judgedAt: since, rekeys: 0 };
    this.#live = live;
    connection.onClose = (code) => {
      if (this.#live?.connection === connection) this.#detach(code);
    };
    connection.onDrain = () => this.#drain();
    connection.onFrame = (bytes) => this.#frame(live, bytes);
    if (this.#paused) connection.pause('owner');
    // The handshake may have begun under another key.
    this.#announce(live);
    this.#parts.up();
    this.#drain();
  }

  // ---- another key ------------------------------------------------------------------------------------------------

  #frame(live: Live, bytes: Bytes): void {
    if (kindInFrame(bytes) === 'rekey') this.#rekeyed(live, bytes);
    else if (live.standing === 'present') this.#parts.frame(bytes);
    else if (live.standing === 'ahead') this.#parts.frame(bytes, live.session.peer.key);
  }

  /** [EPO-23] What waits was signed by the key before, and goes first. */
  #announce({ connection, session, standing }: Live): void {
    const frame = rekeyFrame(session, this.#parts.credentials());
    if (frame === null) return;
    if (standing === 'nobody') this.drop();
    for (let old = this.#queue.shift(); old !== undefined; old = this.#queue.shift()) connection.send(old);
    connection.send(frame);
  }

  /** [EPO-23] Nobody is punished for what is wrong here: who holds a key that was replaced may be somebody else. */
  #rekeyed(live: Live, bytes: Bytes): void {
    const wasUp = this.isUp;
    const frame = decodeFrame(bytes);
    const refusal = 'refused' in frame ? frame : live.session.receive(frame);
    if (refusal !== null) return this.#refuse(live, refusal.refused);
    const { key, epoch } = live.session.peer;
    live.rekeys += 1;
    if (live.rekeys > REKEYS_MAX) return this.#refuse(live, 'rekeys-max');
    if (equalBytes(key, this.#key)) {
      live.standing = 'present';
      if (wasUp) return;
      this.#parts.up();
      this.#drain();
      return;
    }
    if (!wasUp) return;
    // The epoch at hand says what its key is.
    if (epoch <= this.#parts.credentials().epoch()) return this.#refuse(live, 'rekey-unexpected');
    live.standing = 'ahead';
  }

  #refuse({ connection, dialledBySelf }: Live, code: string): void {
    const direction = dialledBySelf ? 'out' : 'in';
    this.#context.handshakeRefused(code, connection.address, direction);
    this.cut(closeCode.handshake, code);
  }

  #detach(code: string): void {
    const live = this.#live;
    if (live === undefined) return;
    this.#live = undefined;
    this.drop();
    if (this.#context.now() - live.since >= this.#context.options.stableMs) this.#backoff.reset();
    if (live.standing !== 'nobody') this.#parts.down(code);
    if (code !== 'replaced') this.#schedule(this.#backoff.next());
  }

  #drain(): void {
    const connection = this.#live?.connection;
    if (connection === undefined || !this.isUp) return;
    while (connection.writable) {
      const frame = this.#queue.shift();
      if (frame === undefined) return;
      connection.send(frame);
    }
  }

  #abandon(): void {
    const attempt = this.#attempt;
    this.#attempt = undefined;
    clearTimeout(attempt?.deadline);
    attempt?.give();
  }
}
