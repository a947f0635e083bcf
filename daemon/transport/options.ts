// Every limit, queue and timeout of the transport, in one object, with its default beside it. Bounds against peers are generous:
// a member proved its key, and what it sends beyond them is slowed down, not judged. Bounds against strangers are tight.

import { FRAME_BYTES_MAX } from '../../protocol/genesis.ts';
import type { Lane } from '../ports.ts';

/** What one connection may do; a set for each lane and one for clients. */
export interface ConnectionLimits {
  /** A connection that proves neither to be read nor to be alive for this long is ended. */
  readonly silenceMsMax: number;
  /** Beyond these the connection is not read until the second is over: a flood waits in its sender's own buffers. */
  readonly ingressFramesPerSecondMax: number;
  readonly ingressBytesPerSecondMax: number;
  /** What the socket may hold before frames wait (lanes) or the connection ends (clients); one turn's frames may overshoot it. */
  readonly socketBytesMax: number;
}

/** A lane of a peer waits with its frames in a queue of its own while its socket is full; beyond these the oldest frame goes. */
export interface LaneLimits extends ConnectionLimits {
  readonly queueFramesMax: number;
  readonly queueBytesMax: number;
}

export interface TransportOptions {
  /** WebSocket message: the largest frame and room for a change of what surrounds it. Larger ones end the connection. */
  readonly messageBytesMax: number;
  /** Fragments of one message. Ours are sent whole. */
  readonly messageFragmentsMax: number;
  /** Pieces that an unfinished frame may arrive in. A frame of 1 MiB through a path MTU of 576 takes 1,957. */
  readonly messageChunksMax: number;
  /** An HTTP request's head, in both directions. */
  readonly headerBytesMax: number;
  /** From the TCP connection to the end of the handshake, in both directions; TCP, TLS and HTTP included. */
  readonly handshakeMsMax: number;
  /** A message of someone who has not proved who he is. */
  readonly handshakeMessageBytesMax: number;
  /** Handshakes that strangers may begin, by what they claim to be: each costs two checks and two signatures, about 0.4 ms. */
  readonly peerHandshakesPerSecondMax: number;
  readonly clientHandshakesPerSecondMax: number;
  /** From the switch of an epoch until the other end of a connection has proved the key that it has now. */
  readonly rekeyMsMax: number;
  /** How long a closing connection may take to say goodbye. */
  readonly closeMsMax: number;

  /** Sockets in all, whatever they are. Must leave room for the peers beside clientsMax and unauthenticatedMax. */
  readonly connectionsMax: number;
  /** Sockets of one address, whatever they are. */
  readonly connectionsPerAddressMax: number;
  /** Sockets that have not finished the handshake; a newcomer beyond it displaces the oldest of them. */
  readonly unauthenticatedMax: number;
  /** The same for one address. */
  readonly unauthenticatedPerAddressMax: number;
  /** Clients after their handshake. */
  readonly clientsMax: number;

  /** Unfinished messages of all clients together; beyond it the largest of them end. */
  readonly clientUnfinishedBytesMax: number;

  /** How often connections are looked at: silence, ingress rate, handshake deadline, metrics. */
  readonly sweepMs: number;
  readonly pingIntervalMs: number;
  /** Ping, pong and close frames of one connection. Ours sends fewer than one per second. */
  readonly controlFramesPerSecondMax: number;
  /** From the first byte of a message to its last: less than this is a slow-loris, after a grace. */
  readonly ingressBytesPerSecondMin: number;
  readonly ingressGraceMs: number;
  /** How long an old connection has to answer when its peer asks for a second one. */
  readonly probeMsMax: number;

  readonly vote: LaneLimits;
  readonly bulk: LaneLimits;
  readonly client: ConnectionLimits;
  /** While the replica is overloaded the bulk lanes are not read; this often it is asked again. */
  readonly overloadPollMs: number;

  /** The side with the higher replica id leaves the first dial to the other one for this long. */
  readonly secondDialMs: number;
  /** Reconnection: exponential from the first to the last, each drawn from its upper half. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** A connection that lived this long resets the back-off: the next dial follows at once. */
  readonly stableMs: number;
  /** A peer's next connection on a lane is refused if it follows the one before so soon. */
  readonly connectionMsMin: number;
  /** `punish`: the first refusal lasts this long, each further one twice as long as the one before. */
  readonly punishMsMin: number;
  readonly punishMsMax: number;
  /** A punished peer that behaves for this long starts again at punishMsMin. */
  readonly punishForgetMs: number;

  /** Log lines about refused strangers; the rest is counted only. */
  readonly refusalLogsPerSecondMax: number;
}

export const defaultOptions: TransportOptions = {
  messageBytesMax: FRAME_BYTES_MAX + 4096,
  messageFragmentsMax: 16,
  messageChunksMax: 2048,
  headerBytesMax: 8192,
  handshakeMsMax: 5000,
  handshakeMessageBytesMax: 8192,
  peerHandshakesPerSecondMax: 512,
  clientHandshakesPerSecondMax: 1024,
  rekeyMsMax: 2000,
  closeMsMax: 1000,

  connectionsMax: 2048,
  connectionsPerAddressMax: 512,
  unauthenticatedMax: 256,
  unauthenticatedPerAddressMax: 64,
  clientsMax: 1024,
  clientUnfinishedBytesMax: 64 << 20,

  sweepMs: 250,
  pingIntervalMs: 2000,
  controlFramesPerSecondMax: 64,
  ingressBytesPerSecondMin: 8192,
  ingressGraceMs: 2000,
  probeMsMax: 1000,

  vote: {
    silenceMsMax: 6000,
    ingressFramesPerSecondMax: 200_000,
    ingressBytesPerSecondMax: 64 << 20,
    socketBytesMax: 512 << 10,
    queueFramesMax: 8192,
    queueBytesMax: 4 << 20,
  },
  bulk: {
    silenceMsMax: 30_000,
    ingressFramesPerSecondMax: 100_000,
    ingressBytesPerSecondMax: 256 << 20,
    socketBytesMax: 2 << 20,
    queueFramesMax: 2048,
    queueBytesMax: 16 << 20,
  },
  client: {
    silenceMsMax: 15_000,
    ingressFramesPerSecondMax: 20_000,
    ingressBytesPerSecondMax: 64 << 20,
    socketBytesMax: 32 << 20,
  },
  overloadPollMs: 10,

  secondDialMs: 100,
  backoffMsMin: 50,
  backoffMsMax: 5000,
  stableMs: 5000,
  connectionMsMin: 100,
  punishMsMin: 1000,
  punishMsMax: 300_000,
  punishForgetMs: 600_000,

  refusalLogsPerSecondMax: 10,
};

export const lanes: readonly Lane[] = ['vote', 'bulk'];
