// Opens one connection to another replica, up to the point where the handshake can begin.

import type { IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { printable } from './log.ts';
import type { TransportOptions } from './options.ts';

/** How peers are reached over wss://. */
export interface DialTls {
  /** PEM. Default: the system's authorities. */
  readonly ca?: string;
  /** Default true. The handshake proves the peer's key either way; TLS adds privacy, and only if the certificate is checked. */
  readonly rejectUnauthorized?: boolean;
}

export interface Dialled {
  readonly ws: WebSocket;
  readonly socket: IncomingMessage['socket'];
}

export interface Dialling {
  /** Gives up; `failed` is not called any more. */
  abort(): void;
}

export interface DialOptions {
  /** ws:// or wss://, with the lane's path. */
  readonly url: string;
  readonly tls: DialTls;
  readonly options: TransportOptions;
  readonly opened: (dialled: Dialled) => void;
  /** Once, with a text for people; nothing follows it. */
  readonly failed: (why: string) => void;
}

export function dial({ url, tls, options, opened, failed }: DialOptions): Dialling {
  let settled = false;
  const limits = {
    perMessageDeflate: false,
    followRedirects: false,
    handshakeTimeout: options.handshakeMsMax,
    maxPayload: options.messageBytesMax,
    maxFragments: options.messageFragmentsMax,
    maxBufferedChunks: options.messageChunksMax,
    maxHeaderSize: options.headerBytesMax,
    closeTimeout: options.closeMsMax,
    // RFC 6455 asks for unpredictable masks against browsers that attack proxies with chosen bytes. Between replicas a zero mask
    // is as good, and a frame sent to all needs no copy of its own for each of them.
    generateMask: (mask: Buffer) => mask.fill(0),
  };
  const ws = new WebSocket(url, { ...limits, ...tls });
  const fail = (why: string): void => {
    if (settled) return;
    settled = true;
    failed(why);
  };
  let socket: Dialled['socket'] | undefined;
  ws.once('upgrade', (response) => {
    socket = response.socket;
  });
  ws.once('open', () => {
    if (settled || socket === undefined) return ws.terminate();
    settled = true;
    ws.off('error', onError);
    ws.off('close', onClose);
    opened({ ws, socket });
  });
  const onError = (error: Error): void => fail(printable(error.message));
  const onClose = (): void => fail('closed');
  ws.on('error', onError);
  ws.on('close', onClose);
  return {
    abort(): void {
      if (settled) return;
      settled = true;
      ws.terminate();
    },
  };
}
