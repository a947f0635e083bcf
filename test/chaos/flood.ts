// A client that keeps to nothing: sound bundles of many tiny transactions as fast as sockets take them, each in a session of its own, at every door
// at once, and frames that are larger than any may be. It hears no answer and no refusal.

import { randomBytes } from 'node:crypto';
import WebSocket from 'ws';
import type { Bytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { KnownReplica, Network } from '../../daemon/cli/network.ts';
import { decodeFrame, encodeFrame, encodePayload, frameSigningBytes, type Message } from '../../protocol/codec.ts';
import { Handshake } from '../../protocol/handshake.ts';
import { asEpoch } from '../../protocol/types.ts';
import { SimClient } from '../../sim/clients.ts';
import { pause, settleMsMax, within } from './stage.ts';

const bufferedBytesMax = 256 << 10;

/** Submitters give each of theirs a name. */
export const isOfFlood = (transaction: Bytes): boolean => transaction.length === 1;

export class Flood {
  /** Bundles that a socket took. */
  sent = 0;
  /** Connections that a replica has ended. */
  ended = 0;
  readonly #network: Network;
  readonly #sockets = new Set<WebSocket>();
  #stopping = false;
  readonly #work: Promise<unknown>;

  /** `greedy`: clients at each replica. */
  constructor(network: Network, greedy: number) {
    this.#network = network;
    this.#work = Promise.all(
      network.replicas.flatMap((replica) =>
        Array.from({ length: greedy }, (_, i) => this.#pour(replica, `greedy-${replica.name}-${i}`)),
      ),
    );
  }

  async close(): Promise<void> {
    this.#stopping = true;
    for (const ws of this.#sockets) ws.terminate();
    await within(settleMsMax, this.#work, 'the floods to end');
  }

  async #pour(replica: KnownReplica, name: string): Promise<void> {
    const { genesis } = this.#network;
    const tiny = Array.from({ length: genesis.parameters.bundleTransactionsMax }, (_, i) => Uint8Array.of(i));
    for (let session = 1; !this.#stopping; ) {
      const { key } = new SimClient(genesis, name);
      const ws = await this.#open(replica, key);
      while (ws.readyState === WebSocket.OPEN && !this.#stopping) {
        const client = new SimClient(genesis, name, session++, key);
        const { payload, signature } = client.bundle(tiny);
        ws.send(encodeFrame({ kind: 'submit', payload, signature, sender: key.publicKey }));
        this.sent += 1;
        // Too large for any frame, now and then.
        if (session % 512 === 1) ws.send(new Uint8Array(16 << 20));
        do await pause(5);
        while (ws.bufferedAmount > bufferedBytesMax && ws.readyState === WebSocket.OPEN);
      }
      this.#sockets.delete(ws);
      if (!this.#stopping) this.ended += 1;
    }
  }

  /** Closed already where the door was. */
  async #open({ name, url }: KnownReplica, key: SimClient['key']): Promise<WebSocket> {
    const { genesis } = this.#network;
    const { chainId, members } = genesis;
    const ws = new WebSocket(`${url}/client`, { perMessageDeflate: false });
    this.#sockets.add(ws);
    const handshake = new Handshake({
      crypto: native,
      chainId,
      epoch: asEpoch(0),
      members,
      side: 'initiator',
      role: 'client',
      key: key.publicKey,
      nonce: randomBytes(32),
      expected: members.find((member) => member.name === name)!.publicKey,
    });
    const say = (messages: readonly Message[]) => {
      for (const message of messages) {
        const payload = encodePayload(message);
        const signature = key.sign(frameSigningBytes(chainId, message.kind, payload));
        ws.send(encodeFrame({ kind: message.kind, payload, sender: key.publicKey, signature }));
      }
    };
    await new Promise<void>((resolve) => {
      ws.on('error', () => undefined);
      ws.once('close', () => resolve());
      ws.once('open', () => say(handshake.start()));
      let isUp = false;
      ws.on('message', (data: Buffer) => {
        const frame = decodeFrame(data);
        if (isUp || 'refused' in frame) return;
        const step = handshake.receive(frame);
        if ('refused' in step) return ws.terminate();
        say(step.send);
        isUp = step.peer !== null;
        if (isUp) resolve();
      });
    });
    return ws;
  }
}
