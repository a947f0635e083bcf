// Follows the frame boundaries of a WebSocket byte stream (RFC 6455 section 5.2) beside the parser of the library, which does not
// tell two things that must be bounded: how long a message has been unfinished, and how many control frames came.

import type { Bytes } from '../../crypto/bytes.ts';

const FIN = 0x80;
const CONTROL = 0x08;
const MASKED = 0x80;

export class FrameMeter {
  /** Control frames whose header has been seen. Only grows. */
  controlFrames = 0;
  /** Header bytes of the current frame read so far, how many it has (known from the second byte on), and where its length ends. */
  #headerRead = 0;
  #headerLength = 2;
  #lengthEnd = 2;
  #first = 0;
  /** The payload length as it is being read, then what is left of the payload. */
  #payload = 0;
  /** A data message has begun and its last frame has not ended. */
  #open = false;
  /** Payload bytes of the open message. */
  #messageBytes = 0;
  /** Counts messages and lone control frames, so that one unfinished thing is not taken for the next. */
  #started = 0;
  /** What was unfinished at the end of the last chunk, since when, and how much of it had come by then. */
  #unfinished: { readonly started: number; readonly since: number; readonly bytes: number } | undefined;

  /** What has come of the unfinished message: held in memory until its last byte. */
  get messageBytes(): number {
    return this.#open ? this.#messageBytes : 0;
  }

  push(chunk: Bytes, now: number): void {
    this.#scan(chunk);
    if (!this.#open && this.#headerRead === 0) this.#unfinished = undefined;
    else if (this.#unfinished?.started !== this.#started) this.resumed(now);
  }

  /** The clock of an unfinished message starts again: nothing was read for a while by our own will. */
  resumed(now: number): void {
    if (this.#open || this.#headerRead > 0)
      this.#unfinished = { started: this.#started, since: now, bytes: this.#messageBytes };
  }

  /** Whether the current message arrives slower than `bytesPerSecond`, after `graceMs`. Pings inside it do not make it faster. */
  tooSlow(now: number, bytesPerSecond: number, graceMs: number): boolean {
    if (this.#unfinished === undefined) return false;
    const counted = now - this.#unfinished.since - graceMs;
    return counted > 0 && (this.#messageBytes - this.#unfinished.bytes) * 1000 < counted * bytesPerSecond;
  }

  #scan(chunk: Bytes): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headerRead < this.#headerLength) {
        this.#header(chunk[at]!);
        at += 1;
        if (this.#headerRead < this.#headerLength) continue;
      } else {
        const taken = Math.min(this.#payload, chunk.length - at);
        this.#payload -= taken;
        at += taken;
        if ((this.#first & CONTROL) === 0) this.#messageBytes += taken;
      }
      if (this.#payload === 0) this.#frameEnded();
    }
  }

  #header(byte: number): void {
    this.#headerRead += 1;
    if (this.#headerRead === 1) {
      this.#first = byte;
      if (!this.#open) {
        this.#started += 1;
        this.#messageBytes = 0;
      }
      if ((byte & CONTROL) !== 0) this.controlFrames += 1;
      else this.#open = true;
    } else if (this.#headerRead === 2) {
      const length = byte & 0x7f;
      const extended = length === 126 ? 2 : length === 127 ? 8 : 0;
      this.#lengthEnd = 2 + extended;
      this.#headerLength = this.#lengthEnd + ((byte & MASKED) !== 0 ? 4 : 0);
      this.#payload = extended === 0 ? length : 0;
    } else if (this.#headerRead <= this.#lengthEnd) {
      // A length beyond 2^53 loses precision here; the parser has refused the message by then.
      this.#payload = this.#payload * 256 + byte;
    }
  }

  #frameEnded(): void {
    this.#headerRead = 0;
    this.#headerLength = 2;
    if ((this.#first & CONTROL) === 0 && (this.#first & FIN) !== 0) this.#open = false;
  }
}
