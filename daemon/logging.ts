// Structured logs: one JSON object a line on standard output, or the same for human eyes. Writing never blocks the replica: a
// reader that stands still costs log lines, not votes.

import pino, { type Logger } from 'pino';
import pretty from 'pino-pretty';
import type { LogFormat, LogLevel } from './config.ts';

export type { Logger } from 'pino';

/** What a stalled reader may make us hold; what comes after it is dropped. */
const queuedBytesMax = 4 << 20;

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Stands in every line. */
  readonly member: string;
}

export interface Logs {
  readonly logger: Logger;
  /** Writes what is left, synchronously: the last thing before the process ends. */
  flush(): void;
}

export function createLogs({ level, format, member }: LogOptions): Logs {
  const destination = pino.destination({ dest: 1, sync: false, maxLength: queuedBytesMax });
  // The reader went away (EPIPE), or the disk behind it is full: losing the log must not stop the replica.
  destination.on('error', () => undefined);
  const options = {
    level,
    base: { member },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // Belt and braces: no caller logs a secret (blueprint, section 8).
    redact: { paths: ['passphrase', 'secret', 'privateKey', '*.passphrase', '*.secret', '*.privateKey'] },
  };
  const colorize = process.stdout.isTTY === true && !process.env.NO_COLOR;
  const logger =
    format === 'json'
      ? pino(options, destination)
      : pino(options, pretty({ colorize, destination, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l' }));
  return {
    logger,
    flush() {
      try {
        destination.flushSync();
      } catch {
        // Not open yet, or the reader is gone: there is nothing more to do.
      }
    },
  };
}
