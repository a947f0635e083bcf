// One WebSocket connection under guard, whoever is at the other end and whichever side dialled: text and floods end it, silence ends
// it, a message that never gets finished ends it, and its reading can be stopped for more than one reason at a time.

import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Bytes } from '../../crypto/bytes.ts';
import type { Flusher } from './flusher.ts';
import { FrameMeter } from './frame-meter.ts';
import { printable } from './log.ts';
import type { ConnectionLimits, TransportOptions } from './options.ts';
import type { Flow } from './tally.ts';

/** WebSocket close codes: RFC 6455 section 7.4.1, and ours from 4000 on. The reason is always the stable code in words. */
export const closeCode = {
  goingAway: 1001,
  protocol: 1002,
  unsupported: 1003,
  policy: 1008,
  tooLarge: 1009,
  overloaded: 1013,
  handshake: 4001,
  duplicate: 4002,
  punished: 4003,
} as const;

export interface ConnectionParts {
  readonly ws: WebSocket;
  readonly socket: Socket;
  readonly options: TransportOptions;
  readonly limits: ConnectionLimits;
  readonly flow: Flow;
  readonly flusher: Flusher;
  readonly now: () => number;
  readonly random: () => number;
}

/** Why a connection is not read: its budget for this second is spent, or its owner said so. */
export type PauseReason = 'budget' | 'owner';

export class Connection {
  /** Of the other end, for people. */
  readonly address: string;
  onFrame: (bytes: Bytes) => void = () => {};
  /** Exactly once, with a stable code: ours where this side ended it, `closed`, or `peer: ` and its words where the other did. */
  onClose: (code: string) => void = () => {};
  /** The socket has room again after `bufferedBytes` was beyond its limit. */
  onDrain: () => void = () => {};

  readonly #ws: WebSocket;
  readonly #socket: Socket;
  readonly #options: TransportOptions;
  readonly #flusher: Flusher;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #meter = new FrameMeter();
  readonly #limits: ConnectionLimits;
  readonly #flow: Flow;
  #open = true;
  #stranger = true;
  #code: string | undefined;
  readonly #paused = new Set<PauseReason>();
  /** The flusher's count of turns when this socket was corked. */
  #corkedIn = -1;

  #second = 0;
  #framesThisSecond = 0;
  #bytesThisSecond = 0;
  #controlAtSecond = 0;

  /** Bytes ever handed to the socket by send. */
  #sentBytes = 0;
  /** As of the last sweep. */
  #flushedBytes = 0;
  #backlogged = false;
  /** What the ping said that is not answered yet; empty: none is. */
  #pinged = '';
  #pingedAt: number;
  #aliveAt: number;
  #sweptAt: number;
  #probeUntil: number | undefined;

  constructor({ ws, socket, options, limits, flow, flusher, now, random }: ConnectionParts) {
    this.#ws = ws;
    this.#socket = socket;
    this.#options = options;
    this.#limits = limits;
    this.#flow = flow;
    this.#flusher = flusher;
    this.#now = now;
    this.#random = random;
    this.#pingedAt = this.#aliveAt = this.#sweptAt = now();
    this.address = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
    ws.on('message', (data, isBinary) => this.#message(data, isBinary));
    ws.on('pong', (data) => this.#pong(data));
    ws.on('error', (error) => this.#failed(error));
    ws.on('close', (_code, reason) => this.#closed(reason));
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.onDrain());
  }

  get open(): boolean {
    return this.#open;
  }

  /** What the process still holds for the other end. */
  get bufferedBytes(): number {
    return this.#socket.writableLength;
  }

  /** Room for more: below the limit of its lane. */
  get writable(): boolean {
    return this.#open && this.#socket.writableLength < this.#limits.socketBytesMax;
  }

  /** What is held of a message that has not ended. */
  get unfinishedBytes(): number {
    return this.#meter.messageBytes;
  }

  /** It proved who it is: its messages may be large now. */
  authenticated(): void {
    this.#stranger = false;
  }

  /** Never refuses: whoever calls asks `writable` first, or keeps to its own bound on `bufferedBytes`. */
  send(frame: Bytes): void {
    if (!this.#open) return;
    if (this.#corkedIn !== this.#flusher.turn) {
      this.#corkedIn = this.#flusher.turn;
      this.#flusher.hold(this.#socket);
    }
    this.#sentBytes += frame.length;
    this.#flow.framesOut += 1;
    this.#flow.bytesOut += frame.length;
    this.#ws.send(frame, binary);
  }

  pause(reason: PauseReason): void {
    if (this.#paused.size === 0) this.#ws.pause();
    this.#paused.add(reason);
  }

  resume(reason: PauseReason): void {
    if (!this.#paused.delete(reason) || this.#paused.size > 0) return;
    const now = this.#now();
    this.#meter.resumed(now);
    this.#aliveAt = now;
    this.#ws.resume();
  }

  /** Says goodbye with a code and a reason, and takes nothing more. */
  close(code: number, reason: string): void {
    if (!this.#open) return;
    this.#end(reason);
    // 123 bytes are all that fits; ws throws about more.
    this.#ws.close(code, printable(reason));
  }

  /** For whoever is dead or abuses the connection: no goodbye. */
  terminate(reason: string): void {
    if (!this.#open) return;
    this.#end(reason);
    this.#ws.terminate();
  }

  /** Asks whether the other end still lives; if no answer comes within probeMsMax, the sweep ends the connection. */
  probe(): void {
    if (!this.#open || this.#probeUntil !== undefined) return;
    const now = this.#now();
    this.#probeUntil = now + this.#options.probeMsMax;
    if (this.#pinged === '') this.#ping(now);
  }

  /** Called every sweepMs. */
  sweep(now: number): void {
    if (!this.#open) return;
    const stalledMs = now - this.#sweptAt - this.#options.sweepMs;
    this.#sweptAt = now;
    // This process stood still, and what came meanwhile has not been read yet: that is not the other end's fault.
    if (stalledMs > this.#options.sweepMs) {
      this.#aliveAt += stalledMs;
      this.#meter.resumed(now);
      if (this.#probeUntil !== undefined) this.#probeUntil += stalledMs;
    }
    if (this.#probeUntil !== undefined && now > this.#probeUntil) {
      this.terminate('probe-unanswered');
      return;
    }
    if (this.#pinged === '' && now - this.#pingedAt >= this.#options.pingIntervalMs) this.#ping(now);
    // Who takes what is waiting for him is alive, even if the ping stands behind it. Waiting means: the last time, too. What the
    // kernel takes at once says nothing about who should read it.
    const buffered = this.#socket.writableLength;
    const flushed = this.#sentBytes - buffered;
    if (buffered > 0 && this.#backlogged && flushed > this.#flushedBytes) this.#aliveAt = now;
    this.#backlogged = buffered > 0;
    this.#flushedBytes = Math.max(flushed, this.#flushedBytes);
    if (this.#paused.size > 0) {
      // Its pong may lie among what we do not read.
      if (buffered === 0) this.#aliveAt = now;
      return;
    }
    if (now - this.#aliveAt > this.#limits.silenceMsMax) {
      this.terminate('silent');
      return;
    }
    const { ingressBytesPerSecondMin, ingressGraceMs } = this.#options;
    if (this.#meter.tooSlow(now, ingressBytesPerSecondMin, ingressGraceMs)) this.terminate('ingress-too-slow');
  }

  #message(data: unknown, isBinary: boolean): void {
    if (!this.#open) return;
    if (!isBinary) {
      this.close(closeCode.unsupported, 'text-refused');
      return;
    }
    // ws hands out Buffers under its default binaryType, which nobody changes.
    if (!Buffer.isBuffer(data)) {
      this.terminate('message-type');
      return;
    }
    this.#flow.framesIn += 1;
    this.#flow.bytesIn += data.length;
    this.#framesThisSecond += 1;
    this.#bytesThisSecond += data.length;
    this.onFrame(detached(data));
  }

  /** After the parser has seen the same bytes. */
  #read(chunk: Buffer): void {
    if (!this.#open) return;
    const now = this.#now();
    this.#meter.push(chunk, now);
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#framesThisSecond = this.#bytesThisSecond = 0;
      this.#controlAtSecond = this.#meter.controlFrames;
    }
    if (this.#meter.controlFrames - this.#controlAtSecond > this.#options.controlFramesPerSecondMax) {
      this.terminate('control-flood');
      return;
    }
    if (this.#stranger && this.#meter.messageBytes > this.#options.handshakeMessageBytesMax) {
      this.terminate('message-too-large');
      return;
    }
    const { ingressFramesPerSecondMax, ingressBytesPerSecondMax } = this.#limits;
    if (this.#framesThisSecond <= ingressFramesPerSecondMax && this.#bytesThisSecond <= ingressBytesPerSecondMax)
      return;
    if (this.#paused.has('budget')) return;
    this.#flow.throttled += 1;
    this.pause('budget');
    setTimeout(() => this.resume('budget'), (second + 1) * 1000 - now).unref();
  }

  #ping(now: number): void {
    this.#pingedAt = now;
    // Not to be guessed, so that a pong proves that what was sent before it has been read.
    this.#pinged = Math.floor(this.#random() * 2 ** 48).toString(36);
    this.#ws.ping(this.#pinged);
  }

  #pong(data: Buffer): void {
    if (this.#pinged === '' || data.length > 16 || data.toString('latin1') !== this.#pinged) return;
    this.#pinged = '';
    this.#aliveAt = this.#now();
    this.#probeUntil = undefined;
  }

  /** The library refused what came, or the socket broke; `close` follows. */
  #failed(error: Error & { readonly code?: string }): void {
    if (this.#open) this.#end(wsRefusals[error.code ?? ''] ?? 'socket-error');
  }

  #end(code: string): void {
    this.#open = false;
    this.#code = code;
  }

  #closed(reason: Buffer): void {
    const code = this.#code ?? (reason.length > 0 ? `peer: ${printable(reason.toString('latin1'))}` : 'closed');
    this.#open = false;
    this.onClose(code);
    this.onFrame = this.onClose = this.onDrain = () => {};
  }
}

const binary = { binary: true, compress: false, fin: true } as const;

/** What ws refuses by itself, in our words. */
const wsRefusals: Readonly<Record<string, string>> = {
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 'message-too-large',
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 'message-too-large',
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 'message-parts',
  WS_ERR_INVALID_OPCODE: 'websocket-malformed',
  WS_ERR_INVALID_UTF8: 'websocket-malformed',
  WS_ERR_INVALID_CLOSE_CODE: 'websocket-malformed',
  WS_ERR_INVALID_CONTROL_PAYLOAD_LENGTH: 'websocket-malformed',
  WS_ERR_EXPECTED_FIN: 'websocket-malformed',
  WS_ERR_EXPECTED_MASK: 'websocket-malformed',
  WS_ERR_UNEXPECTED_MASK: 'websocket-malformed',
  WS_ERR_UNEXPECTED_RSV_1: 'websocket-malformed',
  WS_ERR_UNEXPECTED_RSV_2_3: 'websocket-malformed',
};

/**
 * A small frame is a view into a read buffer of up to 64 KiB; whoever keeps a vote must not keep that. Buffer's pool of 8 KiB
 * bounds the waste; measured on Node 20.20, 200 bytes: 0.2 us, against 0.7 us for memory of the frame's own.
 */
function detached(data: Buffer): Bytes {
  return data.length * 2 < data.buffer.byteLength ? Buffer.from(data) : data;
}
