// Drives the handshake (protocol/handshake.ts, which is pure) over one connection: decodes, signs, sends, and says goodbye. All of
// it happens inside the connection's own callbacks, so that no frame can slip in between the handshake and what follows it. Its
// deadline is the caller's business.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Crypto } from '../../crypto/provider.ts';
import { encodeHandshakePayload, Handshake, type HandshakeMessage, type Peer } from '../../protocol/handshake.ts';
import { Session } from '../../protocol/session.ts';
import type { Epoch, Hash, Member } from '../../protocol/types.ts';
import { decodeFrame, encodeFrame } from '../../protocol/wire/frame.ts';
import { type Connection, closeCode } from './connection.ts';

/** Who this replica is, and whom it lets in. */
export interface Credentials {
  readonly crypto: Crypto;
  readonly chainId: Hash;
  /** Asked at every handshake. */
  readonly epoch: () => Epoch;
  /** Of the current epoch; asked at every handshake. */
  readonly members: () => readonly Member[];
  /** Whether a key was a member's in an earlier epoch. Default: none was. */
  readonly isRetired?: (key: Bytes) => boolean;
  /** This replica's public key, 32 bytes. */
  readonly key: Bytes;
  /** The guard's function for what binds nobody: 64 bytes. */
  readonly signStatement: (kind: string, payload: Bytes) => Bytes;
  /** 32 bytes, fresh from the system's random source. */
  readonly nonce: () => Bytes;
}

export interface AuthenticateOptions {
  readonly connection: Connection;
  readonly credentials: Credentials;
  readonly side: 'initiator' | 'responder';
  /** The key that must answer; null: any that the rules allow. */
  readonly expected: Bytes | null;
  /** Called once, unless `refused` is. The connection's handlers are the receiver's from now on. */
  readonly done: (peer: Peer, session: Session) => void;
  /** Called once, unless `done` is; the connection has been closed. */
  readonly refused: (code: string) => void;
}

export function authenticate({ connection, credentials, side, expected, done, refused }: AuthenticateOptions): void {
  const { crypto, chainId, epoch, members, isRetired, key, nonce } = credentials;
  const own = { crypto, chainId, epoch: epoch(), side, key };
  const handshake = new Handshake({
    ...own,
    members: members(),
    ...(isRetired === undefined ? {} : { isRetired }),
    role: 'replica',
    nonce: nonce(),
    expected,
  });

  const refuse = (code: string): void => {
    connection.onClose = () => {};
    connection.close(closeCode.handshake, code);
    refused(code);
  };

  connection.onClose = refused;
  connection.onFrame = (bytes) => {
    const frame = decodeFrame(bytes);
    if ('refused' in frame) return refuse(frame.refused);
    const step = handshake.receive(frame);
    if ('refused' in step) return refuse(step.refused);
    for (const message of step.send) connection.send(sealed(message, credentials));
    if (step.peer === null) return;
    connection.authenticated();
    connection.onFrame = () => {};
    connection.onClose = () => {};
    done(step.peer, new Session(own, step.peer));
  };
  for (const message of handshake.start()) connection.send(sealed(message, credentials));
}

/** [EPO-23] What the other end is told before anything under the present key. Null: it knows this key. */
export function rekeyFrame(session: Session, credentials: Credentials): Bytes | null {
  const message = session.renew({ key: credentials.key, epoch: credentials.epoch() });
  return message === null ? null : sealed(message, credentials);
}

function sealed(message: HandshakeMessage, { key, signStatement }: Credentials): Bytes {
  const payload = encodeHandshakePayload(message);
  const signature = signStatement(message.kind, payload);
  return encodeFrame({ kind: message.kind, payload, sender: key, signature });
}
