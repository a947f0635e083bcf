// The handshake: both sides prove their key over fresh nonces, and the connection is bound to the chain, to both epochs, to both keys
// and to who called whom (docs/wire.md, "Handshake"; adversary A10, A27). Pure: the daemon and the client run it over their sockets.
//
//   initiator                     responder
//   hello  ------------------------->
//          <-------------------------  hello
//   auth   ------------------------->             signs the transcript as direction 1
//          <-------------------------  auth       signs the transcript as direction 2
//
// Every one of these is a signed frame. The transcript names both keys and both hellos, so an auth made for one peer convinces no
// other (no relay), and the direction keeps it from being sent back to its maker (no reflection).

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { domainTag, LayoutWriter } from './layout.ts';
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts';
import { asHash, type Epoch, type Hash, type Member, type ReplicaId } from './types.ts';
import { Fields, Problem } from './wire/fields.ts';
import { type Frame, frameSigningBytes } from './wire/frame.ts';
import type { HandshakeKind } from './wire/kinds.ts';
import { isRefusal, refuse, type WireRefusal } from './wire/refusal.ts';

export const PROTOCOL_VERSION = 1;

export type PeerRole = 'replica' | 'client';

export interface Hello {
  readonly kind: 'hello';
  /** Version of what is said after the handshake. */
  readonly protocol: number;
  readonly chainId: Hash;
  /** The epoch the sender is in. A difference is no reason to part: the one behind has to catch up. */
  readonly epoch: Epoch;
  readonly role: PeerRole;
  /** 32 random bytes, never used before. */
  readonly nonce: Bytes;
}

export interface Auth {
  readonly kind: 'auth';
  /** What `transcript` gives for the sender's direction. */
  readonly transcript: Hash;
}

/** After the handshake: the sender of the frame is another key of the same end (session.ts). */
export interface Rekey {
  readonly kind: 'rekey';
  /** The one from which on the sender has the key. */
  readonly epoch: Epoch;
  /** What `rekeyTranscript` gives for the sender's direction. */
  readonly transcript: Hash;
}

export type HandshakeMessage = Hello | Auth | Rekey;

export type HandshakeCode =
  | WireRefusal['refused']
  | 'handshake-order'
  | 'handshake-protocol'
  | 'handshake-chain'
  | 'handshake-self'
  | 'handshake-not-a-member'
  | 'handshake-key-retired'
  | 'handshake-not-a-replica'
  | 'handshake-unexpected-peer'
  | 'handshake-signature'
  | 'handshake-transcript'
  | 'handshake-key-changed';

const numberOfRole: Record<PeerRole, number> = { replica: 1, client: 2 };
export const sessionTag = domainTag('synod-v1:session');

export function encodeHandshakePayload(message: HandshakeMessage): Bytes {
  if (message.kind === 'auth') return encodeMsgpack([message.transcript]);
  if (message.kind === 'rekey') return encodeMsgpack([message.epoch, message.transcript]);
  const { protocol, chainId, epoch, role, nonce } = message;
  return encodeMsgpack([protocol, chainId, epoch, numberOfRole[role], nonce]);
}

export function decodeHandshakePayload(kind: HandshakeKind, payload: Bytes): HandshakeMessage | WireRefusal {
  const decoded = decodeMsgpack(payload, { bytesMax: 128, depthMax: 1, valuesMax: 6 });
  if ('refused' in decoded) return refuse('payload-malformed', kind, '', decoded.refused);
  const problem = new Problem();
  const message = readers[kind](decoded.value, problem);
  return problem.found === undefined ? message : refuse(problem.found.code, kind, problem.found.field);
}

const readers = { hello: readHello, auth: readAuth, rekey: readRekey };

function readRekey(value: Parameters<typeof Fields.of>[0], problem: Problem): Rekey {
  const f = Fields.of(value, 2, '', problem);
  return { kind: 'rekey', epoch: f.epoch('epoch'), transcript: f.hash('transcript') };
}

function readAuth(value: Parameters<typeof Fields.of>[0], problem: Problem): Auth {
  return { kind: 'auth', transcript: Fields.of(value, 1, '', problem).hash('transcript') };
}

function readHello(value: Parameters<typeof Fields.of>[0], problem: Problem): Hello {
  const f = Fields.of(value, 5, '', problem);
  return {
    kind: 'hello',
    protocol: f.uint('protocol'),
    chainId: f.hash('chainId'),
    epoch: f.epoch('epoch'),
    role: f.uint('role', 2, 1) === 1 ? 'replica' : 'client',
    nonce: f.owned('nonce', 32),
  };
}

/** Direction 1: the initiator speaks; 2: the responder. */
export type Direction = 1 | 2;

export interface Transcript {
  readonly chainId: Hash;
  readonly initiatorKey: Bytes;
  readonly responderKey: Bytes;
  /** Payloads of the two hellos, byte for byte. */
  readonly initiatorHello: Bytes;
  readonly responderHello: Bytes;
}

/** [WIRE-13] What an auth of this direction says. 177 bytes go into the hash. */
export function transcript(sha256: Crypto['sha256'], direction: Direction, t: Transcript): Hash {
  return asHash(
    sha256(
      new LayoutWriter(16 + 32 + 1 + 4 * 32)
        .bytes(sessionTag, 16)
        .bytes(t.chainId, 32)
        .u8(direction)
        .bytes(t.initiatorKey, 32)
        .bytes(t.responderKey, 32)
        .bytes(sha256(t.initiatorHello), 32)
        .bytes(sha256(t.responderHello), 32)
        .done(),
    ),
  );
}

export interface HandshakeOptions {
  readonly crypto: Crypto;
  readonly chainId: Hash;
  readonly epoch: Epoch;
  /**
   * Of the current epoch: who may come as a replica. Null, for an initiator that has nobody's present key: whoever answers. It asks for links
   * alone, which prove themselves (WIRE-35).
   */
  readonly members: readonly Member[] | null;
  /** Whether a key was a member's in an earlier epoch: it is refused all the same, and told why. Default: none was. */
  readonly isRetired?: (key: Bytes) => boolean;
  /** Whether this side opened the connection. */
  readonly side: 'initiator' | 'responder';
  readonly role: PeerRole;
  /** This side's public key. */
  readonly key: Bytes;
  /** 32 bytes fresh from the system's random source. */
  readonly nonce: Bytes;
  /** The key that must answer, for whoever calls one replica in particular; null: any that the rules allow. */
  readonly expected: Bytes | null;
}

/** Who is at the other end. */
export interface Peer {
  readonly role: PeerRole;
  readonly key: Bytes;
  /** Its place in the member list; null for a client. */
  readonly replica: ReplicaId | null;
  readonly epoch: Epoch;
  /** What both ends call this connection, and no other is called: the transcript of the initiator's auth. */
  readonly session: Hash;
}

export type HandshakeStep =
  /** Sign and send these, in order; then, with `peer`, the connection stands. */
  | { readonly send: readonly HandshakeMessage[]; readonly peer: Peer | null }
  /** End the connection. Nothing more can be said on it. */
  | { readonly refused: HandshakeCode };

/** One side of one handshake. `start` once, `receive` for each frame until there is a peer or a refusal. */
export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #hello: Hello;
  #state: 'new' | 'hello' | 'auth' | 'done' = 'new';
  #theirs: { readonly peer: Omit<Peer, 'session'>; readonly payload: Bytes } | undefined;

  constructor(options: HandshakeOptions) {
    this.#options = options;
    const { chainId, epoch, role, nonce } = options;
    this.#hello = { kind: 'hello', protocol: PROTOCOL_VERSION, chainId, epoch, role, nonce };
  }

  /** What to send unasked: the initiator's hello. A responder says nothing to a silent caller. */
  start(): readonly HandshakeMessage[] {
    if (this.#state !== 'new') return [];
    this.#state = 'hello';
    return this.#options.side === 'initiator' ? [this.#hello] : [];
  }

  /** [WIRE-14] One frame, in its turn; any other order, and any frame after the end, is refused. */
  receive(frame: Frame): HandshakeStep {
    const step = this.#step(frame);
    if ('refused' in step) this.#state = 'done';
    return step;
  }

  #step(frame: Frame): HandshakeStep {
    const { kind, payload, sender, signature } = frame;
    if (kind !== this.#state || (kind !== 'hello' && kind !== 'auth')) return { refused: 'handshake-order' };
    const message = decodeHandshakePayload(kind, payload);
    if (isRefusal(message)) return { refused: message.refused };
    if (message.kind === 'rekey') return { refused: 'handshake-order' };
    const refused = message.kind === 'hello' ? this.#judgeHello(message, sender) : this.#judgeAuth(message, sender);
    if (refused !== undefined) return { refused };
    const { crypto, chainId } = this.#options;
    // Last, since it is the only expensive part.
    if (!crypto.verify(sender, frameSigningBytes(chainId, kind, payload), signature))
      return { refused: 'handshake-signature' };
    return message.kind === 'hello' ? this.#helloCame(message, frame) : this.#authCame();
  }

  #judgeHello({ protocol, chainId, role }: Hello, sender: Bytes): HandshakeCode | undefined {
    const { key, members, side, expected, isRetired } = this.#options;
    if (protocol !== PROTOCOL_VERSION) return 'handshake-protocol';
    if (!equalBytes(chainId, this.#options.chainId)) return 'handshake-chain';
    if (equalBytes(sender, key)) return 'handshake-self';
    if (expected !== null && !equalBytes(sender, expected)) return 'handshake-unexpected-peer';
    // Clients call replicas, and nobody calls a client.
    if (side === 'initiator' && role !== 'replica') return 'handshake-not-a-replica';
    if (role !== 'replica' || members === null || memberWith(members, sender) !== undefined) return undefined;
    return isRetired?.(sender) === true ? 'handshake-key-retired' : 'handshake-not-a-member';
  }

  #judgeAuth({ transcript: claimed }: Auth, sender: Bytes): HandshakeCode | undefined {
    if (this.#theirs === undefined || !equalBytes(sender, this.#theirs.peer.key)) return 'handshake-key-changed';
    const theirDirection = this.#options.side === 'initiator' ? 2 : 1;
    return equalBytes(claimed, this.#transcript(theirDirection)) ? undefined : 'handshake-transcript';
  }

  #helloCame({ role, epoch }: Hello, { payload, sender }: Frame): HandshakeStep {
    const member = memberWith(this.#options.members ?? [], sender);
    const replica = role === 'replica' && member !== undefined ? member.id : null;
    // Copies: the frame's memory is not ours to keep.
    this.#theirs = { peer: { role, key: new Uint8Array(sender), replica, epoch }, payload: new Uint8Array(payload) };
    this.#state = 'auth';
    return { send: [this.#options.side === 'initiator' ? this.#auth() : this.#hello], peer: null };
  }

  #authCame(): HandshakeStep {
    this.#state = 'done';
    const send = this.#options.side === 'initiator' ? [] : [this.#auth()];
    return { send, peer: { ...this.#theirs!.peer, session: this.#transcript(1) } }; // after their hello
  }

  #auth(): Auth {
    return { kind: 'auth', transcript: this.#transcript(this.#options.side === 'initiator' ? 1 : 2) };
  }

  #transcript(direction: Direction): Hash {
    const { crypto, chainId, key, side } = this.#options;
    // Both are known wherever this is called: after their hello.
    const theirKey = this.#theirs!.peer.key;
    const theirHello = this.#theirs!.payload;
    const ourHello = encodeHandshakePayload(this.#hello);
    return transcript(
      crypto.sha256,
      direction,
      side === 'initiator'
        ? { chainId, initiatorKey: key, responderKey: theirKey, initiatorHello: ourHello, responderHello: theirHello }
        : { chainId, initiatorKey: theirKey, responderKey: key, initiatorHello: theirHello, responderHello: ourHello },
    );
  }
}

const memberWith = (members: readonly Member[], key: Bytes): Member | undefined =>
  members.find(({ publicKey }) => equalBytes(publicKey, key));
