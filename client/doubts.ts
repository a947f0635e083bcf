// When is it certain that a bundle will never be ordered? When f+1 replicas have shown it: one of them is honest. What a replica
// shows is a signed answer to a question that this client drew just for it, so that no answer of before, and none to anybody else, can
// stand in for it; and it names the blocks that it looked into, so that it cannot be taken for more than it is.

import { equalBytes } from '../crypto/bytes.ts';
import type { QueryAnswer } from '../protocol/door.ts';
import { asHeight, type ReplicaId } from '../protocol/types.ts';
import type { ChainView } from './chain-view.ts';
import type { Doubt, DoubtCode, InFlight } from './in-flight.ts';
import type { Link } from './link.ts';
import { randomQuestion } from './runtime.ts';

const codes: readonly DoubtCode[] = ['bundle-invalid', 'expired', 'sequence-passed', 'outcome-unknown'];

export interface DoubtsWorld {
  readonly chain: ChainView;
  readonly links: readonly Link[];
  /** Between two questions about one bundle to a replica whose answer has shown nothing yet. */
  readonly askAgainMs: () => number;
  /** A question that is open for so long is given up, and another may be asked. */
  readonly answerMsMax: number;
  readonly reject: (bundle: InFlight, code: DoubtCode) => void;
}

interface Question {
  readonly number: number;
  readonly connection: number;
  readonly bundle: InFlight;
  readonly askedAt: number;
}

export class Doubts {
  readonly #world: DoubtsWorld;
  /** Bundles in flight that somebody doubts. */
  readonly #doubted = new Set<InFlight>();
  /** The one open question of each replica. */
  readonly #questions = new Map<ReplicaId, Question>();

  constructor(world: DoubtsWorld) {
    this.#world = world;
  }

  /** A replica says at this height of its own that the bundle can never be ordered. True: it is the first to say so. */
  claim(link: Link, bundle: InFlight, { code, height }: Pick<Doubt, 'code' | 'height'>): boolean {
    bundle.doubts ??= new Map();
    const before = bundle.doubts.get(link.id);
    if (before === undefined) bundle.doubts.set(link.id, { code, height, askAt: 0, verdict: null });
    else if (isOpen(before)) Object.assign(before, { code, height });
    if (this.#doubted.has(bundle)) return false;
    this.#doubted.add(bundle);
    return true;
  }

  /** Once the certified head has reached valid-until, every replica that is there too can tell for certain. */
  expire(bundle: InFlight): void {
    for (const link of this.#world.links) {
      const height = link.claim?.height ?? asHeight(0);
      if (link.open && height >= bundle.validUntil && bundle.doubts?.has(link.id) !== true)
        this.claim(link, bundle, { code: 'expired', height });
    }
  }

  /** Called every few milliseconds. */
  tick(now: number): void {
    for (const bundle of this.#doubted) {
      for (const link of this.#world.links) {
        const doubt = bundle.doubts?.get(link.id);
        if (doubt !== undefined && isOpen(doubt) && now >= doubt.askAt) this.ask(link, bundle, now);
      }
    }
  }

  /** Asks for the stored receipt, unless another question is open on this connection. */
  ask(link: Link, bundle: InFlight, now: number): void {
    const open = this.#questions.get(link.id);
    const waits = open?.connection === link.connection && now - open.askedAt < this.#world.answerMsMax;
    if (!link.open || waits) return;
    const number = randomQuestion();
    this.#questions.set(link.id, { number, connection: link.connection, bundle, askedAt: now });
    const doubt = bundle.doubts?.get(link.id);
    if (doubt !== undefined) doubt.askAt = now + this.#world.askAgainMs();
    link.send({ kind: 'query-bundle', question: number, digest: bundle.digest });
  }

  /** The replica sent a receipt; whether it holds is for others. */
  answered(link: Link, bundle: InFlight): void {
    if (this.#questions.get(link.id)?.bundle === bundle) this.#questions.delete(link.id);
  }

  /** The replica answered, under its signature, that it knows of no receipt. */
  denied(link: Link, answer: QueryAnswer): void {
    const open = this.#questions.get(link.id);
    // Somebody may have brought an answer of another day, or one to somebody else: it says nothing of this replica now.
    if (open?.number !== answer.question || !equalBytes(open.bundle.digest, answer.digest)) return;
    this.#questions.delete(link.id);
    const { bundle } = open;
    const doubt = bundle.doubts?.get(link.id);
    if (doubt === undefined || !isOpen(doubt) || !this.#doubted.has(bundle)) return;
    doubt.verdict = verdictOf(bundle, doubt, answer) ?? doubt.verdict;
    const code = this.#shown(bundle);
    if (code !== null) this.#world.reject(bundle, code);
  }

  /** What f+1 replicas have shown: then one honest one has. */
  #shown({ doubts }: InFlight): DoubtCode | null {
    const verdicts = [...(doubts?.values() ?? [])].map(({ verdict }) => verdict);
    const { oneHonest } = this.#world.chain.quorums;
    const enough = (code: DoubtCode) => verdicts.filter((verdict) => verdict === code).length >= oneHonest;
    return codes.find(enough) ?? null;
  }

  /** Other members, under other numbers: what those of before have shown is asked of these. */
  enter(): void {
    for (const bundle of this.#doubted) bundle.doubts = null;
    this.#doubted.clear();
    this.#questions.clear();
  }

  /** The fate of the bundle is known. */
  drop(bundle: InFlight): void {
    this.#doubted.delete(bundle);
  }
}

/**
 * [WIRE-28] What an honest replica has shown by its answer; null: nothing yet. It has decided every block up to `height`, and those from
 * `lowest` on do not hold the bundle. Nor do those that were decided before it was signed.
 */
function verdictOf(bundle: InFlight, doubt: Doubt, { lowest, height }: QueryAnswer): DoubtCode | null {
  // No honest replica says it of a bundle that was made here, so this needs no blocks.
  if (doubt.code === 'bundle-invalid') return 'bundle-invalid';
  const over = height >= bundle.validUntil;
  // Where its session was beyond the sequence, the block that brought it there is among those up to that height. The word of a
  // replica behind may be about an earlier session of this number, which was forgotten since.
  const passed = doubt.code === 'sequence-passed' && doubt.height >= bundle.signedAt && height >= doubt.height;
  if (!passed && !over) return null;
  // It cannot know what stood in blocks that it has forgotten, or never had.
  if (lowest > bundle.signedAt + 1) return 'outcome-unknown';
  return over ? 'expired' : 'sequence-passed';
}

/** May more be learnt by asking? A session that is beyond the sequence may yet be forgotten; a height that was passed stays so. */
function isOpen({ verdict }: Doubt): boolean {
  return verdict === null || verdict === 'sequence-passed';
}
