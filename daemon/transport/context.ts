// What every part of the transport shares: options, clock, randomness, figures, log, and how a connection is made from them.

import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Meter } from '../ports.ts';
import { Connection } from './connection.ts';
import { Flusher } from './flusher.ts';
import { LimitedLog, type Log, printable } from './log.ts';
import type { TransportOptions } from './options.ts';
import { type Channel, Tally } from './tally.ts';

export interface ContextParts {
  readonly options: TransportOptions;
  readonly meter: Meter;
  readonly log: Log;
  /** Milliseconds of a clock that never runs back. */
  readonly now: () => number;
  /** At least 0, less than 1. */
  readonly random: () => number;
}

export class Context {
  readonly options: TransportOptions;
  readonly log: Log;
  readonly now: () => number;
  readonly random: () => number;
  readonly tally: Tally;
  readonly #refusals: LimitedLog;
  readonly #flusher = new Flusher();

  constructor({ options, meter, log, now, random }: ContextParts) {
    this.options = options;
    this.log = log;
    this.now = now;
    this.random = random;
    this.tally = new Tally(meter);
    this.#refusals = new LimitedLog(log, options.refusalLogsPerSecondMax);
  }

  connection({
    ws,
    socket,
    channel,
  }: {
    readonly ws: WebSocket;
    readonly socket: Socket;
    readonly channel: Channel;
  }): Connection {
    const { options, now, random } = this;
    return new Connection({
      ws,
      socket,
      options,
      limits: options[channel],
      flow: this.tally.frames[channel],
      flusher: this.#flusher,
      now,
      random,
    });
  }

  /** @param code ours, or what the other side said, which is not to be trusted as a label */
  handshakeRefused(code: string, address: string, direction: 'in' | 'out'): void {
    this.tally.count('synod_transport_handshakes_refused_total', { direction, code: label(code) });
    const fields = { code: printable(code), address, direction };
    // Our own dials are rare by their back-off; strangers must not be able to crowd them out of the log.
    if (direction === 'out') this.log.warn(fields, 'handshake refused');
    else this.#refusals.warn(fields, 'handshake refused', this.now());
  }
}

/** A code as the value of a metric's label; whatever is no code of ours becomes one word. */
function label(code: string): string {
  return /^[a-z][a-z-]{0,39}$/.test(code) ? code : 'other';
}
