// How a client comes to know the epochs after those that it knows: any node can tell, since each link proves itself to whoever knows the epoch
// before it (EPO-11). So it asks at an address, whoever answers there and under whatever key, and believes nothing but links.

import type { Bytes } from '../crypto/bytes.ts';
import type { Crypto } from '../crypto/provider.ts';
import type { ClientSigner } from '../keys/client-key.ts';
import { decodeFrame, decodePayload, encodeFrame, encodePayload, type Frame, isRefusal } from '../protocol/codec.ts';
import type { QueryEpochs } from '../protocol/door.ts';
import { Handshake, type HandshakeMessage } from '../protocol/handshake.ts';
import type { Hash } from '../protocol/types.ts';
import { asEpoch } from '../protocol/types.ts';
import type { EpochChain } from '../protocol/verify.ts';
import type { Settings } from './options.ts';
import { randomBytes } from './runtime.ts';
import type { MessageSocket, OpenSocket } from './socket.ts';

export interface LearnRequest {
  readonly url: string;
  readonly chainId: Hash;
  /** What is learnt is added. */
  readonly epochs: EpochChain;
  readonly crypto: Crypto;
  readonly signer: ClientSigner;
  readonly openSocket: OpenSocket;
  /** For each step: the connection with its handshake, and each answer. */
  readonly timeoutMs: number;
}

export interface Learnt {
  /** How many epochs more are known. */
  readonly epochs: number;
  /** Why the node's answers ended before it had nothing more to tell; null: they did not. What was learnt before is proved all the same. */
  readonly code: string | null;
}

/** [EPO-18] Asks one node for links until it has no more. Never rejects. */
export function learnEpochs(request: LearnRequest): Promise<Learnt> {
  return new Promise((resolve) => new Lesson(request, resolve));
}

class Lesson {
  readonly #request: LearnRequest;
  readonly #resolve: (learnt: Learnt) => void;
  readonly #before: number;
  readonly #socket: MessageSocket;
  #handshake: Handshake | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #over = false;

  constructor(request: LearnRequest, resolve: (learnt: Learnt) => void) {
    this.#request = request;
    this.#resolve = resolve;
    this.#before = request.epochs.last.epoch;
    this.#restartTimer();
    this.#socket = request.openSocket(request.url, {
      open: () => this.#greet(),
      message: (bytes) => this.#received(bytes),
      closed: (reason) => this.#end(reason === '' ? 'closed' : reason),
    });
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
    if (isRefusal(frame)) return this.#end(frame.refused);
    if (this.#handshake === null) return this.#answered(frame);
    const step = this.#handshake.receive(frame);
    if ('refused' in step) return this.#end(step.refused);
    for (const message of step.send) this.#send(message);
    if (step.peer === null) return;
    this.#handshake = null;
    // Where it is no further than this client, nothing need be asked. It may know links all the same: its hello says where it is itself.
    this.#ask();
  }

  #ask(): void {
    this.#restartTimer();
    this.#send({ kind: 'query-epochs', from: asEpoch(this.#request.epochs.last.epoch + 1) });
  }

  /** [WIRE-35] Nobody's word is needed for a link, so no signature of the frame is looked at. */
  #answered({ kind, payload }: Frame): void {
    // A view has changed meanwhile, and every client is told.
    if (kind !== 'epochs') return kind === 'head' ? undefined : this.#end('frame-kind');
    const { crypto, epochs } = this.#request;
    const message = decodePayload(kind, payload, { sha256: crypto.sha256, parameters: epochs.last.parameters });
    if (isRefusal(message)) return this.#end(message.refused);
    if (message.kind !== 'epochs') return this.#end('frame-kind');
    const { epoch } = epochs.last;
    for (const link of message.links) {
      const known = epochs.add(link);
      if ('refused' in known) return this.#end(known.refused);
    }
    if (epochs.last.epoch === epoch) return this.#end(null);
    this.#ask();
  }

  #send(message: HandshakeMessage | QueryEpochs): void {
    const { signer } = this.#request;
    const payload = encodePayload(message);
    const signature = signer.signStatement(message.kind, payload);
    this.#socket.send(encodeFrame({ kind: message.kind, payload, sender: signer.publicKey, signature }));
  }

  #restartTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end('silent'), this.#request.timeoutMs);
  }

  #end(code: string | null): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.close();
    this.#resolve({ epochs: this.#request.epochs.last.epoch - this.#before, code });
  }
}

/** For each step, well within the time for a whole `connect`. */
export const learnTimeoutMs = ({ connectTimeoutMs }: Settings): number => Math.min(5_000, connectTimeoutMs);

/** Addresses whose last answer is remembered: those of a few epochs of the largest network. */
const addressesMax = 1_024;

export interface LearnerWorld extends Omit<LearnRequest, 'url'> {
  /** Between two questions at one address. */
  readonly pauseMs: number;
  /** More epochs are known. */
  readonly grown: () => void;
  /** Somebody answered with what no honest node sends. */
  readonly refused: (name: string, code: string) => void;
}

/** One question at a time, and none to an address that was asked a moment ago. */
export class EpochLearner {
  readonly #world: LearnerWorld;
  readonly #askedAt = new Map<string, number>();
  readonly #waiting = new Map<string, string>();
  #busy = false;
  #closed = false;

  constructor(world: LearnerWorld) {
    this.#world = world;
  }

  /** Whoever is at this address may know of a later epoch. */
  ask(name: string, url: string): void {
    const now = performance.now();
    const before = this.#askedAt.get(url);
    if (this.#closed || (before !== undefined && now - before < this.#world.pauseMs)) return;
    if (this.#askedAt.size >= addressesMax) this.#askedAt.clear();
    this.#askedAt.set(url, now);
    this.#waiting.set(url, name);
    void this.#next();
  }

  close(): void {
    this.#closed = true;
    this.#waiting.clear();
  }

  async #next(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (const [url, name] of this.#waiting) {
      this.#waiting.delete(url);
      const { epochs, code } = await learnEpochs({ ...this.#world, url });
      if (this.#closed) return;
      if (epochs > 0) this.#world.grown();
      if (code !== null && isLie(code)) this.#world.refused(name, code);
    }
    this.#busy = false;
  }
}

/** Links that do not hold, as against a node that is away or does not know. */
const isLie = (code: string): boolean =>
  code === 'epoch-control' || code === 'epoch-fork' || code.startsWith('certificate-') || code.startsWith('payload-');
