// The network between the replicas: it delays, loses, repeats, changes and holds back what they say, link by link, and keeps the order of a
// link only where it is told to. Nothing is altered without a trace: a changed message is changed bytes, for the real decoder to judge.

import type { Bytes } from '../crypto/bytes.ts';
import type { ReplicaMessage, Signed } from '../protocol/messages.ts';
import type { ReplicaId } from '../protocol/types.ts';
import { Dice, seedOf } from './random.ts';
import type { Timeline } from './timeline.ts';

/** How every link behaves; faults of single links come on top. */
export interface Faults {
  /** Message delay in milliseconds, at least 1. */
  readonly delayMs: readonly [number, number];
  readonly loss: number;
  readonly repeat: number;
  /** How long a synced write takes, in milliseconds; the log and the guard each draw their own. */
  readonly writeMs: readonly [number, number];
  /** Whether each link keeps its order. Default: no. */
  readonly inOrder?: boolean;
}
export const calm: Faults = { delayMs: [1, 5], loss: 0, repeat: 0, writeMs: [1, 3] };

/** What a test may change on the way: drop, alter or multiply what a replica says. */
export type Tamper = (from: ReplicaId, to: ReplicaId, message: ReplicaMessage) => ReplicaMessage | null;

/** What is wrong with one link, in one direction, from all faults together. */
export interface Weather {
  readonly cut: boolean;
  /** Nothing arrives, and nothing is lost, until it is over. */
  readonly clogged: boolean;
  readonly loss: number;
  readonly repeat: number;
  /** One bit of this share of the messages is turned over. */
  readonly corrupt: number;
  /** The mean of an exponential delay on top; 0: none. */
  readonly delayMs: number;
  readonly reorder: boolean;
}
export const fair: Weather = { cut: false, clogged: false, loss: 0, repeat: 0, corrupt: 0, delayMs: 0, reorder: false };

/** Messages on their way on one link, at most: beyond it they are lost, as from a full send queue. */
export const LINK_MESSAGES_MAX = 4096;

interface Link {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly dice: Dice;
  weather: Weather;
  held: Signed<ReplicaMessage>[];
  /** Under way or held. */
  count: number;
  /** When the last one arrives: the next is not before it where the link keeps its order. */
  lastAt: number;
}

export interface Receiver {
  arrive(from: ReplicaId, to: ReplicaId, signed: Signed<ReplicaMessage>): void;
  arriveBytes(from: ReplicaId, to: ReplicaId, bytes: Bytes): void;
  frameOf(signed: Signed<ReplicaMessage>): Bytes;
}

export class Network {
  faults: Faults = calm;
  /** Sets of replicas that hear each other; null: everyone. */
  partition: readonly (readonly number[])[] | null = null;
  /** Messages that were sent, repeated ones included. */
  messages = 0;
  /** Lost because a link was full. */
  overflowed = 0;
  readonly #timeline: Timeline;
  readonly #links: readonly (readonly Link[])[];
  readonly #receiver: Receiver;

  constructor({ n, seed, timeline, receiver }: { n: number; seed: number; timeline: Timeline; receiver: Receiver }) {
    this.#timeline = timeline;
    this.#receiver = receiver;
    const ids = Array.from({ length: n }, (_, id) => id as ReplicaId); // places in the member list
    this.#links = ids.map((from) =>
      ids.map((to) => ({
        from,
        to,
        // Of its own: a fault less on one link changes no draw on another.
        dice: new Dice(seedOf(seed, 7, from, to)),
        weather: fair,
        held: [],
        count: 0,
        lastAt: 0,
      })),
    );
  }

  /** From now on. What was held back goes on its way when a link is no longer clogged. */
  setWeather(from: number, to: number, weather: Weather): void {
    const link = this.#links[from]![to]!;
    link.weather = weather;
    if (weather.clogged || link.held.length === 0) return;
    const held = link.held;
    link.held = [];
    link.count -= held.length;
    for (const signed of held) this.#carry(link, signed);
  }

  /** By the weather: a connection over it does not last. */
  isSevered(a: number, b: number): boolean {
    return this.#links[a]![b]!.weather.cut || this.#links[b]![a]!.weather.cut;
  }

  isCut(from: number, to: number): boolean {
    if (this.#links[from]![to]!.weather.cut) return true;
    return this.partition !== null && !this.partition.some((side) => side.includes(from) && side.includes(to));
  }

  /** Once, or twice where the link repeats; or never. */
  send(from: ReplicaId, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    const link = this.#links[from]![to]!;
    const { dice, weather } = link;
    const { loss, repeat } = this.faults;
    if ((loss > 0 && dice.chance(loss)) || (weather.loss > 0 && dice.chance(weather.loss))) return;
    this.#carry(link, signed);
    if ((repeat > 0 && dice.chance(repeat)) || (weather.repeat > 0 && dice.chance(weather.repeat)))
      this.#carry(link, signed);
  }

  /** Whatever the link is like but for its delay and its cuts: for what a test says in a replica's name. */
  carry(from: ReplicaId, to: ReplicaId, signed: Signed<ReplicaMessage>): void {
    this.#carry(this.#links[from]![to]!, signed);
  }

  #carry(link: Link, signed: Signed<ReplicaMessage>): void {
    this.messages += 1;
    if (link.count >= LINK_MESSAGES_MAX) {
      this.overflowed += 1;
      return;
    }
    link.count += 1;
    const { dice, weather } = link;
    if (weather.clogged) {
      link.held.push(signed);
      return;
    }
    const [low, high] = this.faults.delayMs;
    let at = this.#timeline.now + dice.between(low, high);
    if (weather.delayMs > 0) at += dice.exponential(weather.delayMs);
    if (this.faults.inOrder === true && !weather.reorder) {
      at = Math.max(at, link.lastAt);
      link.lastAt = at;
    }
    const flip = weather.corrupt > 0 && dice.chance(weather.corrupt) ? dice.next() : null;
    this.#timeline.after(at - this.#timeline.now, () => {
      link.count -= 1;
      if (this.isCut(link.from, link.to)) return;
      if (flip === null) this.#receiver.arrive(link.from, link.to, signed);
      else this.#receiver.arriveBytes(link.from, link.to, oneBitOff(this.#receiver.frameOf(signed), flip));
    });
  }
}

function oneBitOff(bytes: Bytes, where: number): Bytes {
  const changed = Uint8Array.from(bytes);
  const bit = Math.floor(where * bytes.length * 8);
  changed[bit >> 3]! ^= 1 << (bit & 7);
  return changed;
}
