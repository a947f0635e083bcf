// Every bound of the HTTP door in one place.

export interface HttpLimits {
  readonly connectionsMax: number;
  /** Requests being answered. */
  readonly requestsMax: number;
  readonly headerBytesMax: number;
  /** From a connection's first byte to the end of its headers. */
  readonly headersMsMax: number;
  /** To the end of the body. */
  readonly requestMsMax: number;
  /** A connection without a request. */
  readonly keepAliveMsMax: number;
  /** A connection on which nothing moves at all; longer than a POST may wait. */
  readonly idleMsMax: number;
  /** How often the two times above are looked at. */
  readonly checkMs: number;
  /** Memory of all bodies that are being received. */
  readonly bodiesBytesMax: number;
  /** Memory of all answers that are being sent. */
  readonly answersBytesMax: number;
  /** How long open requests may take when the door closes. */
  readonly closeMsMax: number;
}

export const defaultHttpLimits: HttpLimits = {
  connectionsMax: 512,
  requestsMax: 512,
  headerBytesMax: 8192,
  headersMsMax: 5_000,
  requestMsMax: 15_000,
  keepAliveMsMax: 10_000,
  idleMsMax: 75_000,
  checkMs: 1_000,
  bodiesBytesMax: 32 << 20,
  answersBytesMax: 64 << 20,
  closeMsMax: 2_000,
};
