// What both ends of a connection know of it after the handshake, and how it outlives a key of theirs (docs/wire.md, "Another key"; adversary A27). An end
// that has another key from some epoch on proves it on the connection, with a statement that is good for this connection alone, for these two keys in
// this order, and once. Whether the key is anybody's is not said by that: the epochs say whose it is (EPO-23).

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import { decodeHandshakePayload, type HandshakeOptions, type Peer, type Rekey, sessionTag } from './handshake.ts';
import { LayoutWriter } from './layout.ts';
import { asHash, type Epoch, type Hash } from './types.ts';
import { type Frame, frameSigningBytes } from './wire/frame.ts';
import { isRefusal, type WireRefusal } from './wire/refusal.ts';

/** Direction 3: the initiator of the handshake has another key; 4: the responder. */
export type RekeyDirection = 3 | 4;

export interface RekeyTranscript {
  readonly chainId: Hash;
  /** The one from which on the sender has the key. */
  readonly epoch: Epoch;
  /** Under which the receiver knows the sender on this connection. */
  readonly oldKey: Bytes;
  readonly newKey: Bytes;
  /** Of the connection: the transcript of the initiator's auth. */
  readonly session: Hash;
}

/** [WIRE-38] What a rekey of this direction says. 153 bytes go into the hash. */
export function rekeyTranscript(sha256: Crypto['sha256'], direction: RekeyDirection, t: RekeyTranscript): Hash {
  return asHash(
    sha256(
      new LayoutWriter(16 + 32 + 1 + 8 + 3 * 32)
        .bytes(sessionTag, 16)
        .bytes(t.chainId, 32)
        .u8(direction)
        .u64(t.epoch)
        .bytes(t.oldKey, 32)
        .bytes(t.newKey, 32)
        .bytes(t.session, 32)
        .done(),
    ),
  );
}

export type RekeyCode =
  | WireRefusal['refused']
  | 'rekey-kind'
  | 'rekey-key'
  | 'rekey-epoch'
  | 'rekey-transcript'
  | 'rekey-signature';

/** One end as the other one knows it. */
export interface SessionEnd {
  readonly key: Bytes;
  /** As of its hello, or of its last rekey. */
  readonly epoch: Epoch;
}

/** This side of the handshake, as it was. */
export type SessionOptions = Pick<HandshakeOptions, 'crypto' | 'chainId' | 'side' | 'key' | 'epoch'>;

export class Session {
  readonly #options: SessionOptions;
  readonly #id: Hash;
  #own: SessionEnd;
  #peer: SessionEnd;

  constructor(options: SessionOptions, { key, epoch, session }: Peer) {
    this.#options = options;
    this.#id = session;
    this.#own = { key: options.key, epoch: options.epoch };
    this.#peer = { key, epoch };
  }

  /** What the other end has proved last. */
  get peer(): SessionEnd {
    return this.#peer;
  }

  /** What to say before anything under another key: sign it with that one. Null: the other end knows this key already. */
  renew({ key, epoch }: SessionEnd): Rekey | null {
    if (equalBytes(key, this.#own.key)) return null;
    const oldKey = this.#own.key;
    this.#own = { key, epoch };
    return {
      kind: 'rekey',
      epoch,
      transcript: this.#transcript(this.#direction('own'), { epoch, oldKey, newKey: key }),
    };
  }

  /** [EPO-23] [WIRE-38] The other end has another key, and what it says from here on is under that. A refusal changes nothing. */
  receive({ kind, payload, sender, signature }: Frame): { readonly refused: RekeyCode } | null {
    const { crypto, chainId } = this.#options;
    if (kind !== 'rekey') return { refused: 'rekey-kind' };
    const message = decodeHandshakePayload(kind, payload);
    if (isRefusal(message)) return { refused: message.refused };
    if (message.kind !== 'rekey') return { refused: 'rekey-kind' };
    const { epoch, transcript } = message;
    if (equalBytes(sender, this.#peer.key) || equalBytes(sender, this.#own.key)) return { refused: 'rekey-key' };
    // Epochs rise, so that nothing is said twice, not even where a key comes back.
    if (epoch <= this.#peer.epoch) return { refused: 'rekey-epoch' };
    const expected = this.#transcript(this.#direction('peer'), { epoch, oldKey: this.#peer.key, newKey: sender });
    if (!equalBytes(transcript, expected)) return { refused: 'rekey-transcript' };
    if (!crypto.verify(sender, frameSigningBytes(chainId, kind, payload), signature))
      return { refused: 'rekey-signature' };
    this.#peer = { key: new Uint8Array(sender), epoch }; // the frame's memory is not ours to keep
    return null;
  }

  #direction(speaker: 'own' | 'peer'): RekeyDirection {
    return (this.#options.side === 'initiator') === (speaker === 'own') ? 3 : 4;
  }

  #transcript(direction: RekeyDirection, change: Omit<RekeyTranscript, 'chainId' | 'session'>): Hash {
    const { crypto, chainId } = this.#options;
    return rekeyTranscript(crypto.sha256, direction, { ...change, chainId, session: this.#id });
  }
}
