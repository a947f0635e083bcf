// A short conversation with one node, whoever answers at its address and under whatever key: for what proves itself. The node proves its key as
// in every handshake; nothing is made of it.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import { decodeFrame, decodePayload, encodeFrame, encodePayload, isDoorKind, isRefusal } from '../protocol/codec.ts';
import type { DoorMessage, QueryCheckpoint, QueryEpochs, QueryState } from '../protocol/door.ts';
import { Handshake, type HandshakeMessage } from '../protocol/handshake.ts';
import type { Hash } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import { randomBytes } from './runtime.ts';
import type { MessageSocket, OpenSocket } from './socket.ts';

export interface ConversationRequest {
  readonly url: string;
  readonly chainId: Hash;
  /** What the asker knows of the epochs. */
  readonly epochs: EpochChain;
  readonly crypto: Crypto;
  readonly signer: ClientSigner;
  readonly openSocket: OpenSocket;
  /** For each step: the connection with its handshake, and each answer. */
  readonly timeoutMs: number;
}

export interface ConversationEvents {
  /** It may be asked now. */
  ready(): void;
  message(message: DoorMessage): void;
  /** Once, and nothing after it, whoever ended it. The code of whoever asked; else why the node or the connection did. */
  ended(code: string | null): void;
}

export class Conversation {
  readonly #request: ConversationRequest;
  readonly #events: ConversationEvents;
  readonly #socket: MessageSocket;
  #handshake: Handshake | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #over = false;

  constructor(request: ConversationRequest, events: ConversationEvents) {
    this.#request = request;
    this.#events = events;
    this.#restartTimer();
    this.#socket = request.openSocket(request.url, {
      open: () => this.#greet(),
      message: (bytes) => this.#received(bytes),
      closed: (reason) => this.end(reason === '' ? 'closed' : reason),
    });
  }

  /** Signed by the asker. Each question gives the node its time anew. */
  ask(question: QueryEpochs | QueryCheckpoint | QueryState): void {
    this.#restartTimer();
    this.#send(question);
  }

  end(code: string | null): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.close();
    this.#events.ended(code);
  }

  #greet(): void {
    const { crypto, chainId, epochs, signer } = this.#request;
    this.#handshake = new Handshake({
      crypto,
      chainId,
      epoch: epochs.last.epoch,
      members: null,
      side: 'initiator',
      role: 'client',
      key: signer.publicKey,
      nonce: randomBytes(32),
      expected: null,
    });
    for (const message of this.#handshake.start()) this.#send(message);
  }

  #received(bytes: Bytes): void {
    if (this.#over) return;
    const frame = decodeFrame(bytes);
    if (isRefusal(frame)) return this.end(frame.refused);
    if (this.#handshake !== null) {
      const step = this.#handshake.receive(frame);
      if ('refused' in step) return this.end(step.refused);
      for (const message of step.send) this.#send(message);
      if (step.peer === null) return;
      this.#handshake = null;
      return this.#events.ready();
    }
    const { kind, payload } = frame;
    // Under whatever key.
    if (kind === 'rekey') return;
    if (!isDoorKind(kind)) return this.end('frame-kind');
    const { crypto, epochs } = this.#request;
    // What is asked for proves itself, so no signature of the frame is looked at.
    const message = decodePayload(kind, payload, { sha256: crypto.sha256, parameters: epochs.last.parameters });
    if (isRefusal(message)) return this.end(message.refused);
    // A view has changed meanwhile, and every client is told.
    // The cast: of a kind of the door, as just seen.
    if (kind !== 'head') this.#events.message(message as DoorMessage);
  }

  #send(message: HandshakeMessage | QueryEpochs | QueryCheckpoint | QueryState): void {
    const { signer } = this.#request;
    const payload = encodePayload(message);
    const signature = signer.signStatement(message.kind, payload);
    this.#socket.send(encodeFrame({ kind: message.kind, payload, sender: signer.publicKey, signature }));
  }

  #restartTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.end('silent'), this.#request.timeoutMs);
  }
}
