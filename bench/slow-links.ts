// Between replicas: a relay before each one, which hands everything on after a while, in both directions. As if they stood in different places, on one
// machine: real sockets, real frames, and a message delay that is long enough to be told from the work.

import { connect, createServer, type Server, type Socket } from 'node:net';

const host = '127.0.0.1';

export class SlowLink {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly port: number;

  private constructor(server: Server, sockets: Set<Socket>, port: number) {
    this.#server = server;
    this.#sockets = sockets;
    this.port = port;
  }

  /** Whoever dials its port reaches `port`, each way `delayMs` later. */
  static async before(port: number, delayMs: number): Promise<SlowLink> {
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connect(port, host);
      for (const socket of [near, far]) {
        sockets.add(socket.setNoDelay(true));
        socket.on('close', () => sockets.delete(socket));
      }
      relay(near, far, delayMs);
      relay(far, near, delayMs);
    });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, host, resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('bench: a relay has no port');
    return new SlowLink(server, sockets, address.port);
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** In order: timers of one length ring in the order in which they were set. */
function relay(from: Socket, to: Socket, delayMs: number): void {
  from.on('data', (bytes) => void setTimeout(() => to.writable && to.write(bytes), delayMs));
  from.on('error', () => undefined);
  from.on('close', () => void setTimeout(() => to.destroy(), delayMs));
}
