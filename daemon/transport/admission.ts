// How many sockets may be open: in all, of one address, and before their handshake. A flood of strangers displaces strangers, the
// oldest first: an honest handshake takes milliseconds and wins that race, whoever holds sockets open for seconds does not.

import type { Socket } from 'node:net';
import type { TransportOptions } from './options.ts';

type AdmissionLimits = Pick<
  TransportOptions,
  | 'connectionsMax'
  | 'connectionsPerAddressMax'
  | 'unauthenticatedMax'
  | 'unauthenticatedPerAddressMax'
  | 'handshakeMsMax'
  | 'sweepMs'
>;

interface Entry {
  readonly socket: Socket;
  readonly address: string;
  readonly deadline: number;
}

export class Admission {
  readonly #limits: AdmissionLimits;
  /** By `address:port` of the other end, which is the same on a TLS socket and on the TCP socket under it. */
  readonly #sockets = new Map<string, Entry>();
  /** Those of #sockets that have not proved who they are, oldest first (a Map keeps the order of insertion). */
  readonly #strangers = new Map<string, Entry>();
  readonly #perAddress = new Map<string, { open: number; strangers: number }>();
  #sweptAt = 0;
  readonly #refused: (code: string) => void;

  constructor(limits: AdmissionLimits, refused: (code: string) => void) {
    this.#limits = limits;
    this.#refused = refused;
  }

  get open(): number {
    return this.#sockets.size;
  }

  get unauthenticated(): number {
    return this.#strangers.size;
  }

  /** A TCP connection has come. It is destroyed at once, or counted until it closes. */
  add(socket: Socket, now: number): void {
    const address = addressGroup(socket.remoteAddress);
    const key = keyOf(socket);
    // Gone before it was looked at; or, on a dual-stack listener, impossible.
    if (address === undefined || this.#sockets.has(key)) {
      socket.destroy();
      return;
    }
    const { connectionsMax, connectionsPerAddressMax, unauthenticatedMax, unauthenticatedPerAddressMax } = this.#limits;
    const counts = this.#perAddress.get(address) ?? { open: 0, strangers: 0 };
    if (counts.strangers >= unauthenticatedPerAddressMax) this.#displace('address-unauthenticated-max', address);
    if (counts.open >= connectionsPerAddressMax) {
      this.#turnAway(socket, 'address-connections-max');
      return;
    }
    if (this.#strangers.size >= unauthenticatedMax || this.#sockets.size >= connectionsMax)
      this.#displace('unauthenticated-max');
    if (this.#sockets.size >= connectionsMax) {
      this.#turnAway(socket, 'connections-max');
      return;
    }
    const entry: Entry = { socket, address, deadline: now + this.#limits.handshakeMsMax };
    this.#sockets.set(key, entry);
    this.#strangers.set(key, entry);
    const current = this.#perAddress.get(address) ?? counts;
    current.open += 1;
    current.strangers += 1;
    this.#perAddress.set(address, current);
    socket.once('close', () => this.#remove(key, entry));
  }

  /** It proved who it is. */
  authenticated(socket: Socket): void {
    const key = keyOf(socket);
    const entry = this.#strangers.get(key);
    if (entry === undefined) return;
    this.#strangers.delete(key);
    const counts = this.#perAddress.get(entry.address);
    if (counts !== undefined) counts.strangers -= 1;
  }

  /** Ends those whose handshake has taken too long: the oldest stand first. */
  sweep(now: number): void {
    const { sweepMs } = this.#limits;
    const stalled = now - this.#sweptAt > 2 * sweepMs;
    this.#sweptAt = now;
    // This process stood still: what they sent meanwhile is read first.
    if (stalled) return;
    for (const [key, entry] of this.#strangers) {
      if (entry.deadline > now) return;
      this.#drop(key, entry, 'handshake-timeout');
    }
  }

  destroyAll(): void {
    for (const { socket } of this.#sockets.values()) socket.destroy();
  }

  #displace(code: string, address?: string): void {
    for (const [key, entry] of this.#strangers) {
      if (address === undefined || entry.address === address) {
        this.#drop(key, entry, code);
        return;
      }
    }
  }

  #drop(key: string, entry: Entry, code: string): void {
    this.#refused(code);
    this.#remove(key, entry);
    entry.socket.destroy();
  }

  #turnAway(socket: Socket, code: string): void {
    this.#refused(code);
    socket.destroy();
  }

  #remove(key: string, entry: Entry): void {
    // The number of a port may be in use again before its last owner's close is heard of.
    if (this.#sockets.get(key) !== entry) return;
    this.#sockets.delete(key);
    const counts = this.#perAddress.get(entry.address);
    if (counts === undefined) return;
    if (this.#strangers.delete(key)) counts.strangers -= 1;
    counts.open -= 1;
    if (counts.open === 0) this.#perAddress.delete(entry.address);
  }
}

function keyOf(socket: Socket): string {
  return `${socket.remoteAddress}:${socket.remotePort}`;
}

/** What one host may own: an IPv4 address, or an IPv6 network of 64 bits. */
export function addressGroup(address: string | undefined): string | undefined {
  if (address === undefined || !address.includes(':')) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1];
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? 0 : tail.split(':').length;
  while (tail !== undefined && groups.length + after < 8) groups.push('0');
  return `${groups
    .slice(0, 4)
    .map((group) => group.toLowerCase().padStart(4, '0'))
    .join(':')}/64`;
}
