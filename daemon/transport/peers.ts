// Every other member as one logical peer with two lanes, each a connection of its own: a block in flight never stands before a vote,
// neither in our queues nor in the kernel's. This is the PeerTransport that the replica's loop speaks to.

import { randomBytes } from 'node:crypto';
import { type Bytes, equalBytes } from '../../crypto/bytes.ts';
import type { Member, ReplicaId } from '../../protocol/types.ts';
import type { Lane, Meter, PeerEvents, PeerTransport } from '../ports.ts';
import type { Credentials } from './authenticate.ts';
import type { ClientEvents, ClientSocket } from './client.ts';
import { closeCode } from './connection.ts';
import { Context } from './context.ts';
import type { DialTls } from './dial.ts';
import { Link, type LinkEnds } from './link.ts';
import { type Log, printable } from './log.ts';
import { defaultOptions, lanes, type TransportOptions } from './options.ts';
import { Penalty } from './penalties.ts';
import { type Arrival, type Listen, Server } from './server.ts';

/** What is good for one epoch. */
export interface TransportEpoch {
  /** Null: a node that is no member. It has no peers, and serves clients alone. */
  readonly self: ReplicaId | null;
  readonly credentials: Omit<Credentials, 'nonce'>;
  /** ws:// or wss://, of the other members; who has none is waited for. */
  readonly peers: ReadonlyMap<ReplicaId, string>;
}

export interface TransportConfig extends TransportEpoch {
  readonly listen: Listen;
  readonly tls?: DialTls;
  readonly events: PeerEvents;
  /** A client has proved its key. Absent: clients are refused. */
  readonly onClient?: (socket: ClientSocket) => ClientEvents;
  /** While it says true, bulk lanes are not read. */
  readonly overloaded: () => boolean;
  readonly meter: Meter;
  readonly log: Log;
  readonly options?: Partial<TransportOptions>;
  /** Default: performance.now. Milliseconds of a clock that never runs back. */
  readonly now?: () => number;
  /** At least 0, less than 1: for jitter and for what a ping says. Default: from the system's random source. */
  readonly random?: () => number;
}

interface Peer {
  /** Its number and its key in the epoch at hand. */
  id: ReplicaId;
  key: Bytes;
  readonly name: string;
  readonly url: string | undefined;
  readonly links: Readonly<Record<Lane, Link>>;
  /** Of the key. */
  penalty: Penalty;
}

export class Transport implements PeerTransport {
  readonly #config: TransportConfig;
  readonly #context: Context;
  readonly #peers = new Map<ReplicaId, Peer>();
  /** [EPO-24] Since the last switch, until there is time for them. */
  #comers: readonly Peer[] = [];
  #leavers: readonly Peer[] = [];
  #credentials: Credentials;
  #server: Server | undefined;
  #meeting: NodeJS.Timeout | undefined;
  #sweeper: NodeJS.Timeout | undefined;
  #overload: NodeJS.Timeout | undefined;
  #closed = false;

  /** Listens and begins to dial. Rejects where the port cannot be had; throws on a wrong address: both are the operator's. */
  static async open(config: TransportConfig): Promise<Transport> {
    const transport = new Transport(config);
    await transport.#open();
    return transport;
  }

  private constructor(config: TransportConfig) {
    this.#config = config;
    const { meter, log, now = () => performance.now(), random = systemRandom } = config;
    this.#context = new Context({ options: { ...defaultOptions, ...config.options }, meter, log, now, random });
    this.#credentials = credentialsOf(config);
    this.#setPeers(config, [], true);
  }

  /** The port it listens on. */
  get port(): number {
    return this.#server?.port ?? 0;
  }

  send(to: ReplicaId, frame: Bytes, lane: Lane): void {
    const peer = this.#peers.get(to);
    if (peer !== undefined) peer.links[lane].send(frame);
  }

  /** The same bytes to everyone: encoded once, never copied, masked by zeros. */
  broadcast(frame: Bytes, lane: Lane): void {
    for (const peer of this.#peers.values()) peer.links[lane].send(frame);
  }

  punish(id: ReplicaId, code: string): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    const forMs = peer.penalty.strike(this.#context.now());
    this.#context.tally.count('synod_transport_punished_total', { peer: String(id) });
    this.#context.log.warn({ peer: id, code: printable(code), forMs }, 'peer punished');
    // The code is told: an honest operator on the other side looks for it in his log.
    for (const lane of lanes) peer.links[lane].cut(closeCode.punished, code);
  }

  connectedPeers(): readonly ReplicaId[] {
    return [...this.#peers.values()].filter((peer) => peer.links.vote.isUp).map((peer) => peer.id);
  }

  /**
   * [EPO-22] [EPO-23] The next epoch. Connections to members and addresses that stay are kept, each under its member's new number; where a key is another
   * one now, this replica's or the member's, it is proved on them. Who is no member any more is not heard from now on. [EPO-24] Who is new waits for `meet`.
   */
  enter(epoch: TransportEpoch): void {
    if (this.#closed) return;
    const late = this.#comers;
    this.#cutLeavers();
    const isSameKey = equalBytes(this.#credentials.key, epoch.credentials.key);
    this.#credentials = credentialsOf(epoch);
    const before = [...this.#peers.values()];
    this.#peers.clear();
    const kept = this.#setPeers(epoch, before, isSameKey);
    this.#leavers = before.filter((peer) => !kept.has(peer));
    for (const { links } of this.#leavers) for (const lane of lanes) links[lane].leave();
    this.#comers = [...this.#peers.values()].filter((peer) => !kept.has(peer) || late.includes(peer));
    clearTimeout(this.#meeting);
    // Somebody has another address. Perhaps nothing is decided without that member.
    if (this.#comers.some(({ name }) => before.some((peer) => peer.name === name))) return this.meet();
    this.#server?.hold();
    // Whoever calls does not wait for ever.
    this.#meeting = setTimeout(() => this.meet(), this.#context.options.handshakeMsMax / 2);
  }

  /** [EPO-24] Whoever has come or gone with the last switch: that can be seen to now. */
  meet(): void {
    clearTimeout(this.#meeting);
    if (this.#closed) return;
    this.#cutLeavers();
    const comers = this.#comers;
    this.#comers = [];
    for (const { links } of comers) for (const lane of lanes) links[lane].start();
    this.#server?.release();
  }

  #cutLeavers(): void {
    for (const { links } of this.#leavers)
      for (const lane of lanes) links[lane].close(closeCode.handshake, 'not-a-peer');
    this.#leavers = [];
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sweeper);
    clearTimeout(this.#overload);
    clearTimeout(this.#meeting);
    this.#cutLeavers();
    for (const peer of this.#peers.values()) for (const lane of lanes) peer.links[lane].close();
    await this.#server?.close();
    this.#context.tally.flush();
  }

  async #open(): Promise<void> {
    const { listen, onClient } = this.#config;
    this.#server = await Server.listen({
      context: this.#context,
      listen,
      credentials: () => this.#credentials,
      onPeer: (arrival) => this.#arrived(arrival),
      ...(onClient === undefined ? {} : { onClient }),
    });
    this.#sweeper = setInterval(() => this.#sweep(), this.#context.options.sweepMs);
    for (const peer of this.#peers.values()) for (const lane of lanes) peer.links[lane].start();
  }

  /** Returns those of `before` that stay. */
  #setPeers(
    { self, credentials, peers }: TransportEpoch,
    before: readonly Peer[],
    isSameKey: boolean,
  ): ReadonlySet<Peer> {
    const kept = new Set<Peer>();
    if (self === null) return kept;
    for (const member of credentials.members()) {
      const { id, name, publicKey } = member;
      if (id === self) continue;
      const ends = { self, peer: id };
      const url = peers.get(id);
      const known = before.find((peer) => peer.name === name && peer.url === url);
      this.#peers.set(id, known ?? this.#peer(ends, member, url));
      if (known === undefined) continue;
      const isAnew = !isSameKey || !equalBytes(known.key, publicKey);
      if (!equalBytes(known.key, publicKey)) known.penalty = new Penalty(this.#context.options);
      known.id = id;
      known.key = publicKey;
      for (const lane of lanes) known.links[lane].enter(ends, publicKey, isAnew);
      kept.add(known);
    }
    return kept;
  }

  #peer(ends: LinkEnds, { name, publicKey: key }: Member, url: string | undefined): Peer {
    const { events, tls = {} } = this.#config;
    const common = {
      context: this.#context,
      ends,
      key,
      tls,
      credentials: () => this.#credentials,
      refusedFor: () => peer.penalty.remaining(this.#context.now()),
    };
    const vote = new Link({
      ...common,
      lane: 'vote',
      url: url === undefined ? undefined : laneUrl(url, 'vote'),
      holds: () => false,
      frame: (bytes, key) => events.frame(peer.id, bytes, key),
      up: () => {
        this.#context.log.info({ peer: peer.id }, 'peer connected');
        events.connected(peer.id);
      },
      down: (code) => {
        this.#context.tally.count('synod_transport_disconnects_total', { peer: String(peer.id) });
        this.#context.log.info({ peer: peer.id, code: printable(code) }, 'peer disconnected');
        bulk.drop();
        // Whoever is in its place now is another.
        if (this.#peers.get(peer.id) === peer) events.disconnected(peer.id);
      },
    });
    const bulk = new Link({
      ...common,
      lane: 'bulk',
      url: url === undefined ? undefined : laneUrl(url, 'bulk'),
      // The peer is there, and this lane of it is a moment behind.
      holds: () => vote.isUp,
      frame: (bytes, key) => {
        events.frame(peer.id, bytes, key);
        this.#checkOverload();
      },
      up: () => {},
      down: () => {},
    });
    const penalty = new Penalty(this.#context.options);
    const peer: Peer = { id: ends.peer, key, name, url, links: { vote, bulk }, penalty };
    return peer;
  }

  #arrived({ lane, connection, session }: Arrival): void {
    const peer = [...this.#peers.values()].find(({ key }) => equalBytes(key, session.peer.key));
    if (peer === undefined) {
      connection.close(closeCode.handshake, 'not-a-peer');
      return;
    }
    peer.links[lane].arrived(connection, session);
  }

  /** The kernel's buffers fill, then the sender's: an overloaded replica makes its peers' bulk wait where it arose. */
  #checkOverload(): void {
    if (this.#overload !== undefined || this.#closed || !this.#config.overloaded()) return;
    for (const peer of this.#peers.values()) peer.links.bulk.pause();
    this.#context.tally.count('synod_transport_overloads_total');
    this.#overload = setTimeout(() => this.#endOverload(), this.#context.options.overloadPollMs);
  }

  #endOverload(): void {
    if (this.#config.overloaded()) {
      this.#overload = setTimeout(() => this.#endOverload(), this.#context.options.overloadPollMs);
      return;
    }
    this.#overload = undefined;
    for (const peer of this.#peers.values()) peer.links.bulk.resume();
  }

  #sweep(): void {
    const { tally, now } = this.#context;
    const time = now();
    this.#server?.sweep(time);
    for (const peer of this.#peers.values()) for (const lane of lanes) peer.links[lane].sweep(time);
    tally.gauge('synod_transport_peers_connected', this.connectedPeers().length);
    for (const { id, links } of this.#peers.values()) {
      for (const lane of lanes) {
        const labels = { peer: String(id), lane };
        tally.gauge('synod_transport_queue_frames', links[lane].queuedFrames, labels);
        tally.gauge('synod_transport_queue_bytes', links[lane].queuedBytes, labels);
      }
    }
    tally.flush();
  }
}

const credentialsOf = ({ credentials }: TransportEpoch): Credentials => ({
  ...credentials,
  nonce: () => randomBytes(32),
});

const systemRandom = (): number => randomBytes(6).readUIntBE(0, 6) / 2 ** 48;

/** @throws TypeError on what is no URL of a WebSocket */
function laneUrl(base: string, lane: Lane): string {
  const url = new URL(base);
  if (url.protocol !== 'ws:' && url.protocol !== 'wss:')
    throw new TypeError(`a peer's address begins with ws:// or wss://`);
  url.pathname = `${url.pathname.replace(/\/$/, '')}/peer/${lane}`;
  return url.href;
}
