// When is it certain that a bundle will never be ordered? When f+1 replicas say so and, asked again later, know of no receipt for it:
// one of them is honest. This file keeps who has said what, and asks again.

import type { ReplicaId } from '../protocol/types.ts';
import type { ChainView } from './chain-view.ts';
import type { DoubtCode, InFlight } from './in-flight.ts';
import type { Link } from './link.ts';

/** An overloaded replica may answer once that it knows of nothing, so it is asked twice, some time apart. */
const denialsNeeded = 2;
/** From the one that promises least to those that say that the bundle was never ordered and never will be. */
const weakestFirst: readonly DoubtCode[] = ['outcome-unknown', 'sequence-passed', 'expired', 'bundle-invalid'];

export interface DoubtsWorld {
  readonly chain: ChainView;
  readonly links: readonly Link[];
  /** How long after a claim, or a denial, a replica is asked: by then what it has decided stands in its index of receipts. */
  readonly settleMs: number;
  readonly reject: (bundle: InFlight, code: DoubtCode) => void;
}

export class Doubts {
  readonly #world: DoubtsWorld;
  /** Bundles in flight that somebody doubts. */
  readonly #doubted = new Set<InFlight>();
  /** The one open question of each connection: answers that know of nothing do not name the bundle. */
  readonly #questions = new Map<
    ReplicaId,
    { readonly connection: number; readonly bundle: InFlight; readonly final: boolean }
  >();

  constructor(world: DoubtsWorld) {
    this.#world = world;
  }

  /** A replica says that the bundle can never be ordered. True: it is the first to say so. */
  claim(link: Link, bundle: InFlight, code: DoubtCode): boolean {
    bundle.doubts ??= new Map();
    if (!bundle.doubts.has(link.id)) bundle.doubts.set(link.id, { code, since: performance.now(), denials: 0 });
    if (this.#doubted.has(bundle)) return false;
    this.#doubted.add(bundle);
    return true;
  }

  /** Once the certified head has reached valid-until, every replica that is there too can tell for certain. */
  expire(bundle: InFlight): void {
    for (const link of this.#world.links) {
      const there = link.open && (link.claim?.height ?? 0) >= bundle.validUntil;
      if (there && bundle.doubts?.has(link.id) !== true) this.claim(link, bundle, 'expired');
    }
  }

  /** Called every few milliseconds. */
  tick(now: number): void {
    for (const bundle of this.#doubted) {
      for (const link of this.#world.links) {
        const doubt = bundle.doubts?.get(link.id);
        if (doubt === undefined || doubt.denials >= denialsNeeded || now - doubt.since < this.#world.settleMs) continue;
        this.#ask(link, bundle, true);
      }
    }
  }

  /** Asks for the stored receipt, unless another question is open on this connection. */
  ask(link: Link, bundle: InFlight): void {
    this.#ask(link, bundle, false);
  }

  #ask(link: Link, bundle: InFlight, final: boolean): void {
    if (!link.open || this.#questions.get(link.id)?.connection === link.connection) return;
    this.#questions.set(link.id, { connection: link.connection, bundle, final });
    link.send({ kind: 'query-bundle', digest: bundle.digest });
  }

  /** The replica answered its question with a receipt; whether it holds is for others. */
  answered(link: Link, bundle: InFlight): void {
    if (this.#questions.get(link.id)?.bundle === bundle) this.#questions.delete(link.id);
  }

  /** The replica answered that it knows of no receipt. */
  denied(link: Link): void {
    const question = this.#questions.get(link.id);
    this.#questions.delete(link.id);
    if (question?.final !== true || question.connection !== link.connection) return;
    const { bundle } = question;
    const doubt = bundle.doubts?.get(link.id);
    if (doubt === undefined || !this.#doubted.has(bundle)) return;
    doubt.denials += 1;
    doubt.since = performance.now();
    // It cannot know what became of a bundle in blocks that it has forgotten.
    if (forgotten(link) > bundle.signedAt) doubt.code = 'outcome-unknown';
    const certain = [...(bundle.doubts?.values() ?? [])].filter(({ denials }) => denials >= denialsNeeded);
    if (certain.length < this.#world.chain.quorums.oneHonest) return;
    // Any of them may be the honest one, so what is said is the least that any of them says.
    const code = weakestFirst.find((each) => certain.some((other) => other.code === each));
    this.#world.reject(bundle, code ?? 'outcome-unknown');
  }

  /** The fate of the bundle is known. */
  drop(bundle: InFlight): void {
    this.#doubted.delete(bundle);
  }
}

/** The highest height of which the replica, by its own word, has no block any more. */
function forgotten({ claim }: Link): number {
  return claim === null ? Number.POSITIVE_INFINITY : claim.lowest - 1;
}
