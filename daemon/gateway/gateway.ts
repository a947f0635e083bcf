// The client door: takes the authenticated connections that the transport hands over and serves them from the replica and its log.

import type { Bytes } from '../../crypto/bytes.ts';
import { EPOCH_LINKS_BYTES_MAX, EPOCH_LINKS_MAX, type WireContext } from '../../protocol/codec.ts';
import type { CheckpointHere, Epochs, QueryCheckpoint, QueryState, StateHere } from '../../protocol/door.ts';
import { storedParameters } from '../../protocol/genesis.ts';
import { asHeight, type Epoch } from '../../protocol/types.ts';
import type { Meter, ReplicaPort } from '../ports.ts';
import { Server } from '../serve.ts';
import type { ClientEvents, ClientSocket } from '../transport/client.ts';
import { ClientConnection, type DoorParts } from './client-connection.ts';
import { FairTurns } from './fair-turns.ts';
import { FollowSource } from './follow-source.ts';
import { defaultGatewayLimits, type GatewayLimits } from './limits.ts';
import { LogReader } from './log-reader.ts';
import { ReceiptDesk } from './receipt-desk.ts';
import { type FrameSealer, frameSealer, type SignStatement } from './seal-frames.ts';
import { TokenBuckets } from './token-bucket.ts';

export interface GatewayOptions {
  readonly replica: ReplicaPort;
  readonly meter: Meter;
  /** This replica's own key and the guard's function for statements (keys/). */
  readonly publicKey: () => Bytes;
  readonly signStatement: SignStatement;
  /** The links of all epochs that are known, from that of epoch 1 on. Default: none. */
  readonly epochLinks?: () => readonly Bytes[];
  readonly limits?: Partial<GatewayLimits>;
  /** Milliseconds of a clock that never runs back; default performance.now. */
  readonly now?: () => number;
}

export class Gateway {
  /** Shared with the HTTP door. */
  readonly desk: ReceiptDesk;
  readonly reader: LogReader;
  readonly #door: DoorParts;
  readonly #connections = new Set<ClientConnection>();
  readonly #meter: Meter;
  readonly #unsubscribe: () => void;
  readonly #sealer: FrameSealer;
  readonly #server: Server;
  readonly #replica: ReplicaPort;
  #streams = 0;
  #draining = false;
  #headDue = false;

  constructor(options: GatewayOptions) {
    const { replica, meter, publicKey, signStatement, now = () => performance.now() } = options;
    const limits = { ...defaultGatewayLimits, ...options.limits };
    const { sha256 } = replica.crypto;
    const stored: WireContext = { sha256, parameters: storedParameters(replica.genesis.parameters) };
    this.#replica = replica;
    this.#meter = meter;
    this.#sealer = frameSealer({ publicKey, signStatement });
    this.#server = new Server({
      log: replica.log,
      sha256,
      wire: stored,
    });
    this.reader = new LogReader({ log: replica.log, wire: stored });
    // The desk first: what it hears is older than what the streams send.
    this.desk = new ReceiptDesk({ replica, reader: this.reader, meter, waitingBundlesMax: limits.waitingBundlesMax });
    const source = new FollowSource({
      ...limits,
      reader: this.reader,
      sealer: this.#sealer,
      head: () => replica.head().height,
    });
    this.#door = {
      replica,
      limits,
      meter,
      // Of the epoch at hand.
      get wire() {
        return { sha256, parameters: replica.genesis.parameters };
      },
      desk: this.desk,
      sealer: this.#sealer,
      source,
      turns: new FairTurns({ turnMsMax: limits.turnMsMax, now }),
      buckets: new TokenBuckets({ rate: limits.rate, bucketsMax: limits.bucketsMax, now }),
      now,
      draining: () => this.#draining,
      evenShare: () =>
        this.desk.size < limits.waitingBundlesMax / 2
          ? limits.waitingBundlesMax
          : Math.max(1, Math.floor(limits.waitingBundlesMax / this.#connections.size)),
      state: async (question) => this.#sealer.seal(await this.#stateAnswer(question)),
      epochsFrame: (from) => this.#sealer.seal(epochsFrom(from, options.epochLinks?.() ?? [])),
      headFrame: () => this.#headFrame(),
      gone: (connection) => {
        this.#connections.delete(connection);
        meter.gauge('synod_client_connections', this.#connections.size);
      },
      streams: (change) => {
        this.#streams += change;
        meter.gauge('synod_follow_streams', this.#streams);
      },
    };
    this.#unsubscribe = replica.subscribe({
      decided: (blocks) => {
        source.push(blocks);
        for (const connection of this.#connections) connection.wake();
      },
      event: (event) => {
        if (event.type === 'view-entered') this.#announceHead();
      },
    });
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** [EPO-22] Another epoch has begun: everyone should learn of it, and streams begin or go on. */
  enter(epoch: Epoch): void {
    this.#door.source.enter();
    // [WIRE-35] Before anything that its members sign, so that nobody has to ask for it first.
    const frame = this.#door.epochsFrame(epoch);
    for (const connection of [...this.#connections]) connection.send(frame);
    this.#announceHead();
    for (const connection of this.#connections) connection.wake();
  }

  /** Takes over a connection whose client has proved its key; one too many is closed with a code. */
  accept(socket: ClientSocket): ClientEvents {
    const connection = new ClientConnection(socket, this.#door);
    if (this.#draining || this.#connections.size >= this.#door.limits.connectionsMax) {
      connection.close(this.#draining ? 'draining' : 'clients-too-many');
      return connection;
    }
    this.#connections.add(connection);
    this.#meter.gauge('synod_client_connections', this.#connections.size);
    return connection;
  }

  /** No bundle is taken from now on, and streams end; receipts of what is in flight still go out. */
  drain(): void {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
  }

  /** After the replica has drained. */
  close(): void {
    this.#draining = true;
    this.#unsubscribe();
    for (const connection of [...this.#connections]) connection.close('draining');
    this.desk.close();
  }

  /** Everyone should learn where to send next; once for a turn, whatever happened in it. */
  #announceHead(): void {
    if (this.#headDue || this.#connections.size === 0) return;
    this.#headDue = true;
    setImmediate(() => {
      this.#headDue = false;
      const frame = this.#headFrame();
      for (const connection of [...this.#connections]) connection.send(frame);
    });
  }

  /** [EPO-20] As peers are answered (serve.ts). */
  async #stateAnswer(question: QueryCheckpoint | QueryState): Promise<CheckpointHere | StateHere> {
    if (question.kind === 'query-checkpoint') {
      const proof = await this.#server.answer({ kind: 'fetch-checkpoint' });
      return { kind: 'checkpoint-here', proof: proof?.kind === 'checkpoint-proof' ? proof : null };
    }
    const { height, chunk } = question;
    const found = await this.#server.answer({ kind: 'fetch-state', height, chunk });
    return { kind: 'state-here', height, chunk, found: found?.kind === 'state-chunk' ? found : null };
  }

  #headFrame(): Bytes {
    const { epoch, view, primary } = this.#replica.explain();
    const { height, certificate: known } = this.#replica.head();
    // The replica may know a certificate of a lower block only; it proves nothing of this height.
    const certificate = known?.height === height ? known : null;
    const lowest = asHeight(Math.min(this.reader.lowest(), height + 1));
    return this.#sealer.seal({ kind: 'head', epoch, view, primary, height, lowest, certificate });
  }
}

/** [WIRE-35] As many as one answer holds; the first of them always fits. */
function epochsFrom(from: Epoch, known: readonly Bytes[]): Epochs {
  const links: Bytes[] = [];
  let bytes = 0;
  for (const link of known.slice(from - 1, from - 1 + EPOCH_LINKS_MAX)) {
    bytes += link.length;
    if (bytes > EPOCH_LINKS_BYTES_MAX) break;
    links.push(link);
  }
  return { kind: 'epochs', from, links };
}
