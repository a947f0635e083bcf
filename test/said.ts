// All that replicas say over all of their lives, for tests: whether an honest one has signed two things that an honest one never signs both.

import { type Bytes, toHex } from '../crypto/bytes.ts';
import type { Block } from '../protocol/block.ts';
import { encodePayload } from '../protocol/codec.ts';
import { conflictOf, denies, placeName } from '../protocol/conflict.ts';
import type { ReplicaMessage, ReplicaPledge, ViewChange, Vote } from '../protocol/messages.ts';
import type { Cluster } from '../sim/cluster.ts';

/** Every pledge that a replica has ever sent, whoever it went to, over all of its lives: no two of them conflict. */
export class EverythingSaid {
  readonly #places = new Map<string, Bytes>();
  readonly #commits = new Map<number, Vote[]>();
  readonly #viewChanges = new Map<number, ViewChange[]>();
  /** Votes by replica and view. */
  readonly #votes = new Map<string, Map<string, Vote>>();
  readonly #blocks = new Map<string, Block>();
  readonly conflicts: string[] = [];
  statements = 0;

  hear(from: number, message: ReplicaMessage): void {
    if (message.kind === 'pre-prepare' || message.kind === 'block-data') this.know(message.block);
    const pledge: ReplicaPledge | null =
      message.kind === 'pre-prepare'
        ? {
            kind: 'prepare',
            epoch: message.epoch,
            view: message.view,
            height: message.block.header.height,
            hash: message.block.hash,
          }
        : message.kind === 'prepare' || message.kind === 'commit' || message.kind === 'checkpoint'
          ? message
          : message.kind === 'view-change' || message.kind === 'new-view'
            ? message
            : null;
    // A new-view is shown by others too.
    if (pledge === null || (pledge.kind === 'new-view' && pledge.view % this.n !== from)) return;
    const payload = encodePayload(pledge);
    const place = `${from} ${placeName(pledge)}`;
    const before = this.#places.get(place);
    if (before === undefined) {
      this.statements += 1;
      this.#places.set(place, payload);
      if (pledge.kind === 'prepare' || pledge.kind === 'commit') {
        const votes = this.#votes.get(`${from} ${pledge.view}`) ?? new Map<string, Vote>();
        this.#votes.set(`${from} ${pledge.view}`, votes.set(toHex(pledge.hash), pledge));
      }
      if (pledge.kind === 'commit') this.#commits.set(from, [...(this.#commits.get(from) ?? []), pledge]);
      if (pledge.kind === 'view-change') this.#viewChanges.set(from, [...(this.#viewChanges.get(from) ?? []), pledge]);
    } else if (conflictOf({ message: pledge, payload }, { message: pledge, payload: before }) !== null)
      this.conflicts.push(place);
  }

  /** A block that somebody may vote for. */
  know(block: Block): void {
    this.#blocks.set(toHex(block.hash), block);
  }

  /** The later ones too: a view-change may come long after the commit. */
  #endDenials(): void {
    for (const [from, commits] of this.#commits)
      for (const commit of commits)
        for (const viewChange of this.#viewChanges.get(from) ?? [])
          if (denies(viewChange, commit))
            this.conflicts.push(`${from} ${placeName(commit)} / ${placeName(viewChange)}`);
  }

  /** [PBFT-PP-9] All that a replica voted for in a view lies below the highest of it. */
  #endChains(): void {
    for (const [place, votes] of this.#votes) {
      const highest = [...votes.values()].sort((a, b) => b.height - a.height)[0]!;
      const lowest = Math.min(...[...votes.values()].map(({ height }) => height));
      const chain = new Set<string>();
      for (let hash = toHex(highest.hash), height: number = highest.height; height >= lowest; height--) {
        chain.add(hash);
        if (height === lowest)
          for (const [voted, vote] of votes) if (!chain.has(voted)) this.conflicts.push(`${place}: ${vote.height}`);
        const block = this.#blocks.get(hash);
        // Never seen, and nothing below it can be told.
        if (block === undefined) break;
        hash = toHex(block.header.parent);
      }
      this.chains += 1;
    }
  }

  /** What only shows when all was said. */
  end(): readonly string[] {
    this.#endDenials();
    this.#endChains();
    return this.conflicts;
  }

  /** Views of replicas with votes in them. */
  chains = 0;
  readonly n: number;
  constructor(n: number) {
    this.n = n;
  }
}

/** Hears the honest ones from now on, and knows every block that a liar shows them. */
export function saidByHonest(cluster: Cluster, liars: readonly number[]): EverythingSaid {
  const said = new EverythingSaid(cluster.nodes.length);
  const { tamper } = cluster;
  cluster.tamper = (from, to, message) => {
    if (!liars.includes(from)) said.hear(from, message);
    const passed = tamper === null ? message : tamper(from, to, message);
    if (passed?.kind === 'pre-prepare') said.know(passed.block);
    return passed;
  };
  return said;
}
