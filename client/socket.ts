// The one place that knows how bytes travel: a message socket, small enough that a browser's WebSocket serves as well as ws.

import WebSocket from 'ws';
import type { Bytes } from '../crypto/bytes.ts';
import { FRAME_BYTES_MAX } from '../protocol/genesis.ts';

export interface SocketEvents {
  open(): void;
  /** One whole message; the memory belongs to the receiver. */
  message(bytes: Bytes): void;
  /** Once, and nothing after it; also when the connection never opened. */
  closed(reason: string): void;
}

export interface MessageSocket {
  /** Never throws; drops the message once the socket is closing. */
  send(bytes: Bytes): void;
  /** Bytes handed to `send` that have not left yet. */
  readonly bufferedBytes: number;
  /** Ends the connection now; `closed` follows. */
  close(): void;
}

/** Never throws: what is wrong with the address comes through `closed`. */
export type OpenSocket = (url: string, events: SocketEvents) => MessageSocket;

/** In milliseconds. */
const handshakeTimeoutMs = 5_000;

export const openWebSocket: OpenSocket = (url, events) => {
  let ended = false;
  const end = (reason: string) => {
    if (ended) return;
    ended = true;
    events.closed(reason);
  };
  let socket: WebSocket;
  try {
    socket = new WebSocket(url, [], {
      perMessageDeflate: false,
      maxPayload: FRAME_BYTES_MAX,
      followRedirects: false,
      handshakeTimeout: handshakeTimeoutMs,
      // A mask of zeros: masking guards against proxies that a script in a browser could deceive, and costs a copy of every frame.
      generateMask: () => undefined,
      ...boundedReceiver,
    });
  } catch (error) {
    queueMicrotask(() => end(error instanceof Error ? error.message : 'address'));
    return { send: () => undefined, bufferedBytes: 0, close: () => undefined };
  }
  socket.binaryType = 'nodebuffer';
  let reason = 'closed';
  socket.on('open', () => {
    if (!ended) events.open();
  });
  socket.on('message', (data, isBinary) => {
    if (ended) return;
    // Never a list nor an ArrayBuffer, since binaryType says so; text is no part of this protocol.
    if (isBinary && data instanceof Uint8Array) events.message(data);
    else socket.terminate();
  });
  socket.on('error', (error) => {
    reason = error.message;
  });
  socket.on('close', () => end(reason));
  // Frames that are sent in one go leave in one write.
  let corked = false;
  return {
    send(bytes) {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (!corked) {
        corked = true;
        const raw = rawSocketOf(socket);
        raw?.cork();
        queueMicrotask(() => {
          corked = false;
          raw?.uncork();
        });
      }
      socket.send(bytes, { binary: true, compress: false, fin: true });
    },
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    close() {
      if (socket.readyState === WebSocket.CONNECTING || socket.readyState === WebSocket.OPEN) socket.terminate();
    },
  };
};

/** Options of ws 8.23 that its type definitions do not know yet. */
const boundedReceiver: object = { maxFragments: 16, maxBufferedChunks: 1024 };

interface Corkable {
  cork(): void;
  uncork(): void;
}

/** ws has no cork of its own; without the socket beneath, every frame is a write of its own and nothing else changes. */
function rawSocketOf(socket: WebSocket): Corkable | undefined {
  // The cast: a documented-nowhere field of ws, hence looked at before it is used.
  const raw = (socket as unknown as { _socket?: Partial<Corkable> })._socket;
  if (typeof raw?.cork !== 'function' || typeof raw.uncork !== 'function') return undefined;
  return { cork: () => raw.cork?.(), uncork: () => raw.uncork?.() };
}
