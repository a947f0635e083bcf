// A primary that is faulty and breaks no rule of what may be said: it runs as it should, and holds back what it ought to propose. Its core hears of
// bundles late, a little at a time, or never; that is all that is overridden.

import { toHex } from '../crypto/bytes.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import type { Input } from '../protocol/core.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Cluster } from './cluster.ts';

type Step = Input<ReplicaMessage, ReplicaPledge>;

/**
 * Constant: everything that waits, once every `ms`. Adaptive: the same, as late as it can be without being given up; it sees what the others hold
 * against it, as no real one could. Trickle: one bundle every `ms`. Censor: all but one client's, the first that it hears of.
 */
export type Dawdling =
  | { readonly how: 'constant' | 'trickle'; readonly ms: number }
  | { readonly how: 'adaptive' }
  | { readonly how: 'censor' };

/** What an adaptive one begins with, in milliseconds; how near it goes to the timeout; and the share of the others' patience that it dares to use up. */
const ADAPTIVE_MS_MIN = 5;
const ADAPTIVE_TIMEOUTS_MAX = 0.9;
const DARES = 0.6;
const TICK_MS = 5;

export class Dawdler {
  readonly #cluster: Cluster;
  readonly #id: number;
  readonly #dawdling: Dawdling;
  readonly #released = new WeakSet<Step>();
  #held: { readonly bundle: SignedBundle; readonly input: Step }[] = [];
  #censored: string | null = null;
  #waitMs: number;
  #givenAt: number;
  #over = false;

  constructor(cluster: Cluster, id: number, dawdling: Dawdling) {
    this.#cluster = cluster;
    this.#id = id;
    this.#dawdling = dawdling;
    this.#waitMs = 'ms' in dawdling ? dawdling.ms : ADAPTIVE_MS_MIN;
    this.#givenAt = cluster.now;
    cluster.nodes[id]!.hold = (inputs) => this.#hold(inputs);
    const tick = () => {
      if (this.#over) return;
      this.#tick();
      cluster.after(TICK_MS, tick);
    };
    tick();
  }

  /** It works as it should from now on. */
  end(): void {
    this.#over = true;
    this.#cluster.nodes[this.#id]!.hold = null;
    this.#give(this.#held.length);
  }

  /** How late it is at present, in milliseconds. */
  get waitMs(): number {
    return this.#waitMs;
  }

  get #leads(): boolean {
    const explanation = this.#cluster.nodes[this.#id]!.core?.explain();
    return explanation !== undefined && explanation.primary === explanation.self;
  }

  #hold(inputs: readonly Step[]): readonly Step[] {
    if (!this.#leads) return inputs;
    return inputs.flatMap((input): Step[] => {
      if (this.#released.has(input)) return [input];
      if (input.type === 'bundle') return this.#keep([input.bundle]) ? [input] : [];
      if (input.type !== 'message' || input.signed.message.kind !== 'forward') return [input];
      const { message } = input.signed;
      const bundles = message.bundles.filter((bundle) => this.#keep([bundle]));
      return bundles.length === 0
        ? []
        : [{ type: 'message', signed: asVerified({ ...input.signed, message: { ...message, bundles } }) }];
    });
  }

  /** False: it is held back. */
  #keep(bundles: readonly SignedBundle[]): boolean {
    for (const bundle of bundles) {
      if (this.#dawdling.how === 'censor') {
        this.#censored ??= toHex(bundle.client);
        return toHex(bundle.client) !== this.#censored;
      }
      this.#held.push({ bundle, input: { type: 'bundle', bundle } });
    }
    return false;
  }

  #tick(): void {
    if (this.#cluster.nodes[this.#id]!.core === null) {
      this.#held = [];
      return;
    }
    if (!this.#leads) return this.#give(this.#held.length);
    const { how } = this.#dawdling;
    if (this.#cluster.now - this.#givenAt < this.#waitMs) return;
    if (how === 'adaptive') this.#adapt();
    this.#givenAt = this.#cluster.now;
    this.#give(how === 'trickle' ? 1 : this.#held.length);
  }

  #adapt(): void {
    let share = 0;
    for (const { core } of this.#cluster.nodes) {
      const pace = core?.explain().pace ?? null;
      if (pace !== null) share = Math.max(share, pace.lateMs / pace.lateMsMax);
    }
    const most = ADAPTIVE_TIMEOUTS_MAX * this.#cluster.genesis.parameters.viewTimeoutMs;
    this.#waitMs = Math.min(most, Math.max(ADAPTIVE_MS_MIN, this.#waitMs * (share < DARES ? 1.1 : 0.8)));
  }

  #give(count: number): void {
    for (const { input } of this.#held.splice(0, count)) {
      this.#released.add(input);
      this.#cluster.nodes[this.#id]!.input(input);
    }
  }
}
