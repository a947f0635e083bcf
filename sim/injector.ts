// Makes the faults of a list come and go in a cluster. Faults of one kind may lie on top of each other: what holds is reckoned anew from
// those that are active, so that taking one out of the list changes nothing about the others.

import type { Cluster } from './cluster.ts';
import { Conspiracy } from './conspiracy.ts';
import { Dawdler } from './dawdler.ts';
import type { Fault } from './faults.ts';
import { describeFault } from './faults.ts';
import type { Weather } from './network.ts';
import { Dice, seedOf } from './random.ts';
import type { CrashPoint, SimReplica } from './replica.ts';

type Crash = Fault & { readonly kind: 'crash' };

export interface InjectorOptions {
  readonly faults: readonly Fault[];
  readonly seed: number;
  /** After how many milliseconds both ends notice that a link is cut; null: never. */
  readonly noticeMs: number | null;
}

export class Injector {
  readonly #cluster: Cluster;
  readonly #noticeMs: number | null;
  readonly #active = new Set<Fault>();
  /** Crashes that wait for their point. */
  readonly #armed = new Set<Crash>();
  /** Whom a crash has hit. */
  readonly #down = new Map<Fault, number>();
  readonly #dawdlers = new Map<Fault, Dawdler>();
  readonly #diskDice: readonly Dice[];
  #conspiracy: Conspiracy | null = null;

  constructor(cluster: Cluster, { faults, seed, noticeMs }: InjectorOptions) {
    this.#cluster = cluster;
    this.#noticeMs = noticeMs;
    this.#diskDice = cluster.nodes.map(({ id }) => new Dice(seedOf(seed, 3, id)));
    cluster.strikes = (replica, point) => this.#strikes(replica, point);
    cluster.slowMs = (id) => this.#slowMs(id);
    const liars = faults.flatMap((fault) => (fault.kind === 'liar' ? [fault.node] : []));
    if (liars.length > 0) this.#conspiracy = new Conspiracy(cluster, liars);
    for (const fault of faults) cluster.after(fault.at, () => this.#begin(fault));
  }

  /** The safety phase is over: what is armed strikes no more, and whoever is down by a fault that has an end comes up. */
  heal(): void {
    this.#armed.clear();
    for (const fault of [...this.#active]) if (fault.lasts !== null) this.#end(fault);
    if (this.#conspiracy !== null) this.#conspiracy.cutsPower = false;
    for (const { id, core } of this.#cluster.nodes) if (core === null && !this.#keepsDown(id)) this.#cluster.boot(id);
  }

  #begin(fault: Fault): void {
    const cluster = this.#cluster;
    cluster.remark(`fault: ${describeFault(fault).trim()}`);
    this.#active.add(fault);
    switch (fault.kind) {
      case 'liar':
        return; // from the start, and for ever
      case 'crash':
        if (fault.point === 'now') return this.#crash(fault, fault.node === 'primary' ? this.#primary() : fault.node);
        this.#armed.add(fault);
        return;
      case 'power-cut':
        for (const { id } of cluster.nodes) cluster.crash(id, fault);
        break;
      case 'stall': {
        const node = cluster.nodes[fault.node]!;
        node.stalledUntil = Math.max(node.stalledUntil, cluster.now + (fault.lasts ?? 0));
        break;
      }
      case 'slow-primary': {
        const node = this.#primary();
        // One at a time: what a replica holds back it holds back once.
        if (cluster.nodes[node]!.hold === null) this.#dawdlers.set(fault, new Dawdler(cluster, node, fault.dawdling));
        break;
      }
      default:
        this.#apply(fault);
    }
    if (fault.lasts !== null) cluster.after(fault.lasts, () => this.#end(fault));
  }

  #end(fault: Fault): void {
    if (!this.#active.delete(fault)) return;
    this.#cluster.remark(`over:  ${describeFault(fault).trim()}`);
    if (fault.kind === 'crash') {
      const node = this.#down.get(fault);
      if (node !== undefined) this.#bootUnlessKept(node);
    } else if (fault.kind === 'power-cut') for (const { id } of this.#cluster.nodes) this.#bootUnlessKept(id);
    else if (fault.kind === 'slow-primary') this.#dawdlers.get(fault)?.end();
    else if (fault.kind !== 'stall' && fault.kind !== 'liar') this.#apply(fault);
  }

  // ---- processes ----------------------------------------------------------------------------------------------------

  #strikes({ id }: SimReplica, point: CrashPoint): boolean {
    for (const fault of this.#armed) {
      if (fault.point !== point || id !== (fault.node === 'primary' ? this.#primary() : fault.node)) continue;
      this.#armed.delete(fault);
      this.#crash(fault, id);
      return true;
    }
    return false;
  }

  #primary(): number {
    return this.#cluster.primary;
  }

  #crash(fault: Crash, node: number): void {
    this.#down.set(fault, node);
    this.#cluster.crash(node, fault);
    if (fault.lasts !== null) this.#cluster.after(fault.lasts, () => this.#end(fault));
  }

  #bootUnlessKept(id: number): void {
    if (this.#cluster.nodes[id]!.core === null && !this.#keepsDown(id)) this.#cluster.boot(id);
  }

  #keepsDown(id: number): boolean {
    for (const fault of this.#active) {
      if (fault.kind === 'power-cut') return true;
      if (fault.kind === 'crash' && this.#down.get(fault) === id) return true;
    }
    return false;
  }

  #slowMs(id: number): number {
    let ms = 0;
    for (const fault of this.#active)
      if (fault.kind === 'slow-disk' && fault.node === id) ms += this.#diskDice[id]!.exponential(fault.meanMs);
      else if (fault.kind === 'disk-stall' && fault.node === id) ms = Math.max(ms, this.#leftOf(fault));
    return ms;
  }

  #leftOf({ at, lasts }: Fault): number {
    return Math.max(0, this.#cluster.start + at + (lasts ?? 0) - this.#cluster.now);
  }

  // ---- clocks and links ---------------------------------------------------------------------------------------------

  #apply({ kind }: Fault): void {
    if (kind === 'slow-disk' || kind === 'disk-stall') return; // asked for at each write
    if (kind === 'clock-drift' || kind === 'clock-jump') return this.#setClocks();
    this.#setLinks();
  }

  #setClocks(): void {
    for (const { id, clock } of this.#cluster.nodes) {
      clock.rate = 1;
      clock.offsetMs = 0;
      for (const fault of this.#active) {
        if (fault.kind === 'clock-drift' && fault.node === id) clock.rate *= fault.rate;
        if (fault.kind === 'clock-jump' && fault.node === id) clock.offsetMs += fault.ms;
      }
    }
  }

  #setLinks(): void {
    const { nodes, network } = this.#cluster;
    for (const { id: from } of nodes)
      for (const { id: to } of nodes) {
        if (from === to) continue;
        const wasSevered = network.isSevered(from, to);
        network.setWeather(from, to, this.#weatherOf(from, to));
        this.#notice(from, to, wasSevered);
      }
  }

  /** Once for each pair, when its second direction has been set. */
  #notice(from: number, to: number, wasSevered: boolean): void {
    const { network } = this.#cluster;
    const isSevered = network.isSevered(from, to);
    if (isSevered === wasSevered) return;
    if (!isSevered) return this.#cluster.connect(from, to);
    if (this.#noticeMs === null) return;
    this.#cluster.after(this.#noticeMs, () => {
      if (network.isSevered(from, to)) this.#cluster.disconnect(from, to);
    });
  }

  #weatherOf(from: number, to: number): Weather {
    const missing = { loss: 1, duplication: 1, corruption: 1 };
    let [cut, clogged, reorder, delayMs] = [false, false, false, 0];
    for (const fault of this.#active) {
      switch (fault.kind) {
        case 'loss':
        case 'duplication':
        case 'corruption':
          missing[fault.kind] *= 1 - fault.rate;
          break;
        case 'delay':
          delayMs += fault.meanMs;
          break;
        case 'slow-link':
          if (fault.node === from || fault.node === to) delayMs += fault.meanMs;
          break;
        case 'reordering':
          reorder = true;
          break;
        case 'clogged-link':
          clogged ||= fault.from === from && fault.to === to;
          break;
        case 'cut-link':
          cut ||= fault.from === from && fault.to === to;
          break;
        case 'partition':
          cut ||= fault.side.includes(from) !== fault.side.includes(to);
          break;
        case 'one-way-partition':
          cut ||= fault.side.includes(from) && !fault.side.includes(to);
          break;
        case 'isolation':
          cut ||= fault.node === from || fault.node === to;
          break;
        default:
          break;
      }
    }
    const { loss, duplication, corruption } = missing;
    return { cut, clogged, reorder, delayMs, loss: 1 - loss, repeat: 1 - duplication, corrupt: 1 - corruption };
  }
}
