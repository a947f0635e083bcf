// The connection to one replica: opened, authenticated on both sides, kept alive, and opened again with growing pauses.
//
// What arrives is decoded once. Its frame's signature is checked only where a message counts by itself: blocks and receipts carry
// certificates, and a check costs more than everything else done for them.

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import {
  decodeFrame,
  decodeMessage,
  encodeFrame,
  encodePayload,
  type Frame,
  frameSigningBytes,
  isDoorKind,
  isRefusal,
  MEMBERS_MAX,
} from '../protocol/codec.ts';
import { type ClientMessage, type DoorMessage, type Head, provesItself } from '../protocol/door.ts';
import { type Parameters, storedParameters } from '../protocol/genesis.ts';
import { Handshake, type HandshakeMessage } from '../protocol/handshake.ts';
import { Session } from '../protocol/session.ts';
import { asReplicaId, type Epoch, type Hash, type Member, type ReplicaId } from '../protocol/types.ts';
import type { Settings } from './options.ts';
import { randomBytes } from './runtime.ts';
import type { MessageSocket } from './socket.ts';

export type LinkState = 'connecting' | 'handshake' | 'open' | 'waiting' | 'closed';

export interface LinkEvents {
  opened(link: Link): void;
  /** It was open. */
  ended(link: Link, code: string): void;
  /** It never opened: whoever is there is not the replica, or speaks of another chain. */
  refused(link: Link, code: string): void;
  suspected(link: Link, code: string): void;
  message(link: Link, message: DoorMessage): void;
  /** It says that it is in a later epoch, or whoever is there is not the member that is known: there may be epochs to learn of at its address. */
  outdated(link: Link): void;
}

/** What a link needs to know of the epoch that the client is in; the same for all of its links. */
export interface LinkEpoch {
  readonly epoch: Epoch;
  readonly parameters: Parameters;
}

export interface LinkOptions {
  readonly chainId: Hash;
  /** Asked whenever it matters. */
  readonly epoch: () => LinkEpoch;
  readonly settings: Settings;
  readonly crypto: Crypto;
  readonly signer: ClientSigner;
  /** Who must answer; null: whoever does, an observer. Then `name` is all that it is called. */
  readonly member: Member | null;
  readonly name: string;
  readonly url: string;
  readonly events: LinkEvents;
}

/** Until the handshake is done; then the answers to query-head take over. */
const handshakeMsMax = 5_000;
/** Until the connection has proved the key that the member has by now. */
const rekeyMsMax = 2_000;

/** Beyond what the epochs have said meanwhile. */
const rekeysMax = 8;

const noKey = new Uint8Array(0);

let connections = 0;
let strangers = 0;

export class Link {
  readonly name: string;
  readonly url: string;
  readonly #options: LinkOptions;
  #member: Member | null;
  /** Whose word counts: the member's, as the epochs say, or the one that a stranger has proved on this connection. */
  #key: Bytes | null;
  readonly #stranger: ReplicaId;
  #state: LinkState = 'closed';
  #socket: MessageSocket | null = null;
  #handshake: Handshake | null = null;
  #session: Session | null = null;
  /** [EPO-23] Since when the other end has not proved #key; null: it has. */
  #unprovedSince: number | null = null;
  /** Since the connection, or an epoch, began. */
  #rekeys = 0;
  #connection = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Attempts since it last worked. */
  #attempts = 0;
  #suspectedUntil = Number.NEGATIVE_INFINITY;
  #claim: Head | null = null;
  #askedAt: number | null = null;
  #nextQuestionAt = 0;
  #roundTripMs: number | null = null;
  #lastCode: string | null = null;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#member = options.member;
    this.#key = options.member?.publicKey ?? null;
    this.name = options.name;
    this.url = options.url;
    strangers += 1;
    this.#stranger = asReplicaId(MEMBERS_MAX + strangers);
  }

  /** Its number in the present epoch; of a node that is no member a number that no member has. */
  get id(): ReplicaId {
    return this.#member?.id ?? this.#stranger;
  }
  get member(): Member | null {
    return this.#member;
  }
  /**
   * [EPO-22] [EPO-23] The same member in the next epoch, under another number and perhaps another key. An open connection goes on: at once where the other
   * end has proved that key, else as soon as it does. Returns whether there is one to go on with.
   */
  enter(member: Member): boolean {
    const isSameKey = equalBytes(this.#key ?? noKey, member.publicKey);
    if (!isSameKey && this.#state !== 'open') return false;
    this.#member = member;
    this.#key = member.publicKey;
    this.#rekeys = 0;
    if (!isSameKey) this.#believe();
    return true;
  }

  get state(): LinkState {
    return this.#state;
  }
  /** Rises with each connection, and is never the same for two links of one process. */
  get connection(): number {
    return this.#connection;
  }
  get open(): boolean {
    return this.#state === 'open' && this.#unprovedSince === null;
  }
  get suspected(): boolean {
    return performance.now() < this.#suspectedUntil;
  }
  /** Works, and did not lie lately. */
  get trusted(): boolean {
    return this.open && !this.suspected;
  }
  /** What this replica last said of its head, on the present connection; its own word, but for the certificate. */
  get claim(): Head | null {
    return this.#claim;
  }
  get roundTripMs(): number | null {
    return this.#roundTripMs;
  }
  /** Why it last ended or was refused. */
  get lastCode(): string | null {
    return this.#lastCode;
  }
  get unsentBytes(): number {
    return this.#socket?.bufferedBytes ?? 0;
  }

  start(): void {
    if (this.#state === 'closed') this.#dial();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#state = 'closed';
    this.#drop();
  }

  /** It is used last for a while, and stays connected: it may be slow and not a liar. */
  distrust(code: string): void {
    const { settings, events } = this.#options;
    this.#suspectedUntil = performance.now() + settings.suspicionMs;
    events.suspected(this, code);
  }

  /** It did what an honest replica never does: the connection ends, and for a while it is used last. */
  suspect(code: string): void {
    this.distrust(code);
    this.end(code);
  }

  /** Ends the present connection; the next one is tried after a pause. */
  end(code: string): void {
    if (this.#state === 'closed' || this.#state === 'waiting') return;
    const wasOpen = this.#state === 'open';
    this.#lastCode = code;
    this.#drop();
    this.#wait();
    if (wasOpen) this.#options.events.ended(this, code);
  }

  /** Signed by this client; a submit has its own signature and goes through sendFrame. */
  send(message: Exclude<ClientMessage, { kind: 'submit' }> | HandshakeMessage): void {
    const { signer } = this.#options;
    const payload = encodePayload(message);
    this.sendFrame(
      encodeFrame({
        kind: message.kind,
        payload,
        sender: signer.publicKey,
        signature: signer.signStatement(message.kind, payload),
      }),
    );
  }

  sendFrame(frame: Bytes): void {
    this.#socket?.send(frame);
  }

  /** Asks for the head, unless it was asked and has not answered. */
  queryHead(now: number): void {
    if (!this.open || this.#askedAt !== null) return;
    this.#askedAt = now;
    this.#nextQuestionAt = now + this.#options.settings.headIntervalMs;
    this.send({ kind: 'query-head' });
  }

  /** Called every few milliseconds: heads are compared all the time, and a silent connection is ended. */
  tick(now: number): void {
    if (this.#unprovedSince !== null && now - this.#unprovedSince > rekeyMsMax) return this.end('rekey-missing');
    if (!this.open) return;
    if (this.#askedAt !== null && now - this.#askedAt > this.#options.settings.silenceMsMax) {
      this.end('silent');
      return;
    }
    if (now >= this.#nextQuestionAt) this.queryHead(now);
  }

  #dial(): void {
    const { settings, chainId, epoch, crypto, signer } = this.#options;
    this.#state = 'connecting';
    connections += 1;
    const connection = connections;
    this.#connection = connection;
    // Events of a socket that was given up say nothing about the present one.
    const current = (then: () => void) => {
      if (this.#connection === connection && this.#state !== 'closed' && this.#state !== 'waiting') then();
    };
    this.#timer = setTimeout(() => this.#fail('handshake-timeout'), handshakeMsMax);
    this.#socket = settings.openSocket(this.url, {
      open: () =>
        current(() => {
          this.#state = 'handshake';
          this.#handshake = new Handshake({
            crypto,
            chainId,
            epoch: epoch().epoch,
            members: this.#member === null ? null : [this.#member],
            side: 'initiator',
            role: 'client',
            key: signer.publicKey,
            nonce: randomBytes(32),
            expected: this.#member?.publicKey ?? null,
          });
          for (const message of this.#handshake.start()) this.send(message);
        }),
      message: (bytes) => current(() => this.#received(bytes)),
      closed: (reason) => current(() => this.end(reason === '' ? 'closed' : reason)),
    });
  }

  #received(bytes: Bytes): void {
    const frame = decodeFrame(bytes);
    if (isRefusal(frame)) {
      this.#fail(frame.refused);
      return;
    }
    if (this.#handshake !== null) {
      this.#greet(this.#handshake, frame);
      return;
    }
    if (frame.kind === 'rekey') return this.#rekeyed(frame);
    const { epoch, crypto } = this.#options;
    if (this.#session === null || !equalBytes(frame.sender, this.#session.peer.key)) {
      this.suspect('frame-sender');
      return;
    }
    // A kind of a later version, or one that is not for clients.
    if (!isDoorKind(frame.kind)) {
      this.suspect('frame-kind');
      return;
    }
    // Blocks of a stream may be of earlier epochs: their own limits are the follower's to keep.
    const message = decodeMessage(frame, { sha256: crypto.sha256, parameters: storedParameters(epoch().parameters) });
    if (isRefusal(message)) {
      this.suspect(message.refused);
      return;
    }
    if (!isDoorMessage(message)) {
      this.suspect('frame-kind');
      return;
    }
    // [EPO-23] Under a key that is not known to be the member's, links prove themselves, and what is not signed needs no key.
    if (!this.open && message.kind !== 'epochs' && !provesItself(message)) return;
    if (!provesItself(message) && !this.#signed(frame)) {
      this.end('frame-signature');
      return;
    }
    if (message.kind === 'head') {
      if (this.#askedAt !== null) this.#roundTripMs = performance.now() - this.#askedAt;
      this.#askedAt = null;
      this.#claim = message;
      if (message.epoch > epoch().epoch) this.#options.events.outdated(this);
    }
    this.#options.events.message(this, message);
  }

  #signed({ kind, payload, signature, sender }: Frame): boolean {
    const { crypto, chainId } = this.#options;
    return crypto.verify(sender, frameSigningBytes(chainId, kind, payload), signature);
  }

  /** [EPO-23] That it is the member's key by now is not said by this: the links of the epochs say so, which are on their way. */
  #rekeyed(frame: Frame): void {
    // Nobody is suspected for it: who holds a key that was replaced may be somebody else.
    const refusal = this.#session?.receive(frame) ?? null;
    if (refusal !== null) return this.end(refusal.refused);
    this.#rekeys += 1;
    if (this.#rekeys > rekeysMax) return this.end('rekeys-max');
    // Who answers for a stranger is whoever proves to be there.
    if (this.#member === null) this.#key = this.#session?.peer.key ?? null;
    this.#believe();
  }

  /** One of the two keys, the one that counts and the one that has been proved, is another one now. */
  #believe(): void {
    const wasOpen = this.open;
    const isProved = equalBytes(this.#session?.peer.key ?? noKey, this.#key ?? noKey);
    this.#unprovedSince = isProved ? null : (this.#unprovedSince ?? performance.now());
    if (!isProved || wasOpen) return;
    // What was asked meanwhile may have been answered in vain.
    this.#askedAt = null;
    this.queryHead(performance.now());
  }

  #greet(handshake: Handshake, frame: Frame): void {
    const step = handshake.receive(frame);
    if ('refused' in step) {
      this.#fail(step.refused);
      // The member may have another key by now, or another may have its address.
      if (step.refused === 'handshake-unexpected-peer') this.#options.events.outdated(this);
      return;
    }
    for (const message of step.send) this.send(message);
    if (step.peer === null) return;
    this.#key = step.peer.key;
    const { crypto, chainId, signer, epoch } = this.#options;
    const own = { crypto, chainId, side: 'initiator', key: signer.publicKey, epoch: epoch().epoch } as const;
    this.#session = new Session(own, step.peer);
    clearTimeout(this.#timer);
    this.#handshake = null;
    this.#state = 'open';
    this.#attempts = 0;
    this.#lastCode = null;
    this.#options.events.opened(this);
    this.queryHead(performance.now());
    if (step.peer.epoch > this.#options.epoch().epoch) this.#options.events.outdated(this);
  }

  /** Before it is open this is a refusal, with a long pause; after, an end. */
  #fail(code: string): void {
    const refused = this.#state !== 'open';
    if (refused) this.#attempts += 3;
    this.end(code);
    if (refused) this.#options.events.refused(this, code);
  }

  #drop(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#handshake = null;
    this.#session = null;
    this.#unprovedSince = null;
    this.#rekeys = 0;
    this.#claim = null;
    this.#askedAt = null;
    this.#nextQuestionAt = 0;
    socket?.close();
  }

  #wait(): void {
    const { reconnectMs, reconnectMsMax } = this.#options.settings;
    this.#state = 'waiting';
    const pause = Math.min(reconnectMsMax, reconnectMs * 2 ** Math.min(this.#attempts, 20));
    this.#attempts += 1;
    // Jitter: clients that lost the same replica must not come back in one moment.
    this.#timer = setTimeout(() => this.#dial(), (this.suspected ? reconnectMsMax : pause) * (0.5 + Math.random() / 2));
  }
}

function isDoorMessage(message: { readonly kind: string }): message is DoorMessage {
  return (
    message.kind === 'admissions' ||
    message.kind === 'receipts' ||
    message.kind === 'follow-blocks' ||
    message.kind === 'follow-end' ||
    message.kind === 'epochs' ||
    message.kind === 'checkpoint-here' ||
    message.kind === 'state-here' ||
    message.kind === 'head'
  );
}
