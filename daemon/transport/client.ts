// A client's connection after the handshake, as the gateway gets it.

import type { Bytes } from '../../crypto/bytes.ts';
import { type Connection, closeCode } from './connection.ts';

export interface ClientSocket {
  /** The key that the client has proved, 32 bytes. */
  readonly clientKey: Bytes;
  /** For people. */
  readonly address: string;
  /** Bytes given to `send` that the system has not taken yet. */
  readonly bufferedBytes: number;
  /** Never throws; after the end it does nothing. The client hears of another key of this replica before anything under it. Beyond client.socketBytesMax the connection ends with `reader-stalled`. */
  send(frame: Bytes): void;
  /** Ends the connection with a stable code; `closed` follows. */
  close(code: string): void;
  /** Stops and restarts reading from the socket. What has been read already still arrives: 64 KiB at most. */
  pause(): void;
  resume(): void;
}

/** What the transport calls for one client. Never throws, never blocks. */
export interface ClientEvents {
  /** A whole frame, not yet decoded. The memory belongs to the receiver. */
  frame(bytes: Bytes): void;
  /** `bufferedBytes` has fallen to nothing after it had been more than a little. */
  drained(): void;
  /** Exactly once. */
  closed(): void;
}

export interface ClientParts {
  readonly connection: Connection;
  readonly clientKey: Bytes;
  readonly bufferedBytesMax: number;
  /** [EPO-23] What has to be said before anything else. */
  readonly due: () => Bytes | null;
  readonly onClient: (socket: ClientSocket) => ClientEvents;
  readonly closed: () => void;
}

export function clientSocket({ connection, clientKey, bufferedBytesMax, due, onClient, closed }: ClientParts): void {
  const socket: ClientSocket = {
    clientKey,
    address: connection.address,
    get bufferedBytes() {
      return connection.bufferedBytes;
    },
    send(frame) {
      const first = due();
      if (first !== null) connection.send(first);
      connection.send(frame);
      if (connection.bufferedBytes > bufferedBytesMax) connection.terminate('reader-stalled');
    },
    close: (code) => connection.close(closeCode.policy, code),
    pause: () => connection.pause('owner'),
    resume: () => connection.resume('owner'),
  };
  const events = onClient(socket);
  connection.onClose = () => {
    closed();
    events.closed();
  };
  connection.onFrame = (frame) => events.frame(frame);
  connection.onDrain = () => events.drained();
}
