// f replicas in one hand. The adversary has their keys and nobody else's, hears everything they hear, and may for a time end the processes
// of honest ones. A Byzantine replica is an honest core with what it says overridden: nothing here would be refused for its form.

import { toHex } from '../crypto/bytes.ts';
import type { Block } from '../protocol/block.ts';
import type { ReplicaMessage, ViewChange, Vote } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { View } from '../protocol/types.ts';
import { asEpoch, asReplicaId, asView } from '../protocol/types.ts';
import type { Cluster } from './cluster.ts';
import { forged } from './liars.ts';
import type { Tamper } from './network.ts';
import { Rivals } from './rivals.ts';

const epoch = asEpoch(0);
/** What was said before and may be said again, at most. */
const SAID_MAX = 200;
/** Processes that they end, at most: each start says old votes again, and each vote may cost another process, without end. */
const CUTS_MAX = 200;

/**
 * They run as they should, hear everything, and lie where it hurts: as a primary they tell two halves two chains; they vote for
 * whatever an honest one votes for; they ask for views without the certificates that they hold; they open a view with two sets of
 * view-changes; and they say old things again. With their own keys only: nothing here would be refused for its form or signature.
 */
export class Conspiracy {
  readonly #cluster: Cluster;
  readonly #members: readonly number[];
  readonly #honest: readonly number[];
  /** To what a core of theirs proposed. */
  readonly #rivals: Rivals;
  readonly #deceived = new Map<View, { readonly ids: readonly number[]; readonly equivocates: boolean }>();
  readonly #asked = new Map<View, Map<number, ViewChange>>();
  readonly #opened = new Set<View>();
  /** What honest ones prepared, by view and height: two of them, and the liars have divided them. */
  readonly #prepared = new Map<string, Set<string>>();
  readonly #said: { readonly from: number; readonly message: ReplicaMessage }[] = [];
  /** Whether they end the processes of honest ones as well. */
  cutsPower = true;
  #cuts = 0;
  #over = false;

  constructor(cluster: Cluster, members: readonly number[]) {
    this.#cluster = cluster;
    this.#members = members;
    this.#honest = cluster.nodes.map(({ id }) => Number(id)).filter((id) => !members.includes(id));
    this.#rivals = new Rivals(cluster.genesis);
    for (const id of members) cluster.byzantine.add(id);
    cluster.tamper = this.#pass;
    const step = () => {
      if (this.#over) return;
      this.#mischief();
      cluster.after(cluster.between([20, 200]), step);
    };
    step();
  }

  /** How many places saw honest ones vote for two blocks. */
  get divided(): number {
    return [...this.#prepared.values()].filter(({ size }) => size > 1).length;
  }

  /** They fall silent. */
  end(): void {
    this.#over = true;
    this.#cluster.tamper = null;
    for (const id of this.#members) this.#cluster.crash(id);
  }

  readonly #pass: Tamper = (from, to, message) => {
    if (message.kind === 'pre-prepare') this.#rivals.know(message.block);
    if (message.kind === 'view-change') this.#note(from, message);
    if (!this.#members.includes(from)) {
      if (message.kind === 'prepare' || message.kind === 'commit') this.#agree(from, message);
      return message;
    }
    switch (message.kind) {
      case 'pre-prepare': {
        const rival = this.#isDeceived(message.view, to) ? this.#rivalOf(from, message.block) : null;
        return rival === null ? message : { ...message, block: rival };
      }
      case 'prepare':
      case 'commit': {
        this.#remember(from, message);
        if (this.#chance(0.2)) return null;
        const rival = this.#isDeceived(message.view, to) ? this.#rivals.find(message.hash) : undefined;
        return rival == null ? message : { ...message, hash: rival.hash };
      }
      case 'view-change':
        this.#remember(from, message);
        return this.#chance(0.5) ? { ...message, commit: null, prepared: null } : message;
      // Whoever is behind asks them too.
      case 'blocks':
        return this.#chance(0.3) ? { ...message, blocks: message.blocks.map(forged) } : message;
      // What a replica without its memory must know, and less.
      case 'standing':
        return this.#chance(0.5) ? { ...message, commit: null, prepared: null, stable: null, asked: null } : message;
      case 'state-chunk':
        return this.#chance(0.05) ? { ...message, bytes: new Uint8Array(72).fill(from) } : message;
      default:
        return message;
    }
  };

  /** The power of the machines is in their hand too, for as long as the faults last: whoever has just voted loses it now and then. */
  #restart(voter: number, vote: Vote): void {
    const cluster = this.#cluster;
    if (!this.cutsPower || this.#cuts >= CUTS_MAX || !this.#chance(vote.kind === 'prepare' ? 0.04 : 0.02)) return;
    this.#cuts += 1;
    cluster.after(cluster.between([0, 10]), () => {
      cluster.crash(voter);
      cluster.after(cluster.between([1, 60]), () => {
        if (cluster.nodes[voter]!.core === null) cluster.boot(voter);
      });
    });
  }

  /** The honest one that voted hears that all of us are with it; who else hears is chance. */
  #agree(voter: number, vote: Vote): void {
    this.#restart(voter, vote);
    const place = `${vote.view}/${vote.height}`;
    this.#prepared.set(place, (this.#prepared.get(place) ?? new Set()).add(toHex(vote.hash)));
    for (const from of this.#members) {
      if (!this.#chance(0.6)) continue;
      const others = this.#honest.filter(() => this.#chance(0.2));
      for (const to of new Set([voter, ...others])) {
        this.#cluster.inject(from, to, vote);
        if (vote.kind === 'prepare' && this.#chance(0.3)) this.#cluster.inject(from, to, { ...vote, kind: 'commit' });
      }
    }
  }

  #isDeceived(view: View, id: number): boolean {
    let half = this.#deceived.get(view);
    if (half === undefined) {
      half = { ids: this.#honest.filter(() => this.#chance(0.5)), equivocates: this.#chance(0.7) };
      this.#deceived.set(view, half);
    }
    return half.equivocates && half.ids.includes(id);
  }

  /** Another block on the other chain at the same height, as sound as this one. */
  #rivalOf(proposer: number, block: Block): Block | null {
    this.#rivals.follow(this.#cluster.chain);
    return this.#rivals.of(block, proposer, () =>
      block.bundles.length > 1 && this.#chance(0.5) ? block.bundles.slice(0, -1) : block.bundles,
    );
  }

  /** [PBFT-NV-1] Who is the primary of a view that enough ask for opens it twice: for some, from requests that know as little as can be. */
  #note(from: number, message: ViewChange): void {
    const { view } = message;
    const asked = this.#asked.get(view) ?? new Map<number, ViewChange>();
    this.#asked.set(view, asked.set(from, message));
    const primary = view % this.#cluster.nodes.length;
    if (!this.#members.includes(primary) || this.#opened.has(view)) return;
    const { quorum } = byzantineQuorums(this.#cluster.nodes.length);
    for (const id of this.#members) if (!asked.has(id)) asked.set(id, { ...message, commit: null, prepared: null });
    if (asked.size < quorum) return;
    this.#opened.add(view);
    this.#cluster.after(this.#cluster.between([0, 60]), () => {
      if (!this.#over && this.#chance(0.7)) this.#openTwice(primary, view, quorum);
    });
  }

  #openTwice(primary: number, view: View, quorum: number): void {
    const asked = [...(this.#asked.get(view) ?? [])];
    for (const to of this.#honest) {
      const blank = this.#isDeceived(view, to);
      const shown = asked
        .map(([id, message]): [number, ViewChange] =>
          blank && this.#members.includes(id) ? [id, { ...message, commit: null, prepared: null }] : [id, message],
        )
        .sort(([, a], [, b]) => (blank ? 1 : -1) * ((a.prepared?.view ?? -1) - (b.prepared?.view ?? -1)))
        .slice(0, quorum)
        .map(([id, message]) => this.#cluster.sign(asReplicaId(id), message));
      this.#cluster.inject(primary, to, { kind: 'new-view', epoch, view, viewChanges: shown });
    }
  }

  #mischief(): void {
    const to = this.#pick(this.#honest.filter((id) => this.#cluster.nodes[id]!.core !== null));
    if (to === undefined) return;
    const from = this.#pick(this.#members)!;
    const stale = this.#pick(this.#said.filter((each) => each.from === from));
    if (stale !== undefined) for (let i = 0; i < 3; i++) this.#cluster.inject(from, to, stale.message);
    const { view } = this.#cluster.nodes[to]!.core!.explain();
    if (this.#chance(0.1)) {
      const ahead = asView(view + this.#cluster.between([1, 3]));
      this.#cluster.inject(from, to, { kind: 'view-change', epoch, view: ahead, commit: null, prepared: null });
    }
    // Both blocks of one height to the same replica: that is evidence.
    if (this.#chance(0.03)) {
      const rival = this.#pick(this.#rivals.last(4));
      if (rival != null)
        this.#cluster.inject(rival.header.proposer, to, { kind: 'pre-prepare', epoch, view, block: rival });
    }
  }

  #remember(from: number, message: ReplicaMessage): void {
    this.#said.push({ from, message });
    if (this.#said.length > SAID_MAX) this.#said.shift();
  }

  #chance(probability: number): boolean {
    return this.#cluster.random() < probability;
  }

  #pick<Value>(values: readonly Value[]): Value | undefined {
    return values[Math.floor(this.#cluster.random() * values.length)];
  }
}
