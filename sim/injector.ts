// Makes the faults of a list come and go in a cluster. Faults of one kind may lie on top of each other: what holds is reckoned anew from
// those that are active, so that taking one out of the list changes nothing about the others.

import type { Changes } from './changes.ts';
import type { Cluster } from './cluster.ts';
import { Conspiracy } from './conspiracy.ts';
import { Dawdler } from './dawdler.ts';
import type { Fault, ForgettingFault } from './faults.ts';
import { describeFault } from './faults.ts';
import { Memories } from './memories.ts';
import type { Weather } from './network.ts';
import { Dice, seedOf } from './random.ts';
import type { CrashPoint, SimReplica } from './replica.ts';

type Crash = Fault & { readonly kind: 'crash' };

export interface InjectorOptions {
  /** How many may be unsound at one time. */
  readonly f: number;
  readonly faults: readonly Fault[];
  readonly seed: number;
  /** After how many milliseconds both ends notice that a link is cut; null: never. */
  readonly noticeMs: number | null;
  /** Hands in changes of the epoch. */
  readonly changes: Changes | null;
}

export class Injector {
  readonly #cluster: Cluster;
  readonly #noticeMs: number | null;
  readonly #changes: Changes | null;
  readonly #active = new Set<Fault>();
  /** Crashes that wait for their point. */
  readonly #armed = new Set<Crash>();
  /** Whom a crash has hit. */
  readonly #down = new Map<Fault, number>();
  readonly #dawdlers = new Map<Fault, Dawdler>();
  readonly #diskDice: readonly Dice[];
  readonly #twinDice: Dice;
  /** Whoever is about to forget, and unheard until then. */
  readonly #unheard = new Set<ForgettingFault>();
  readonly #memories: Memories;
  #conspiracy: Conspiracy | null = null;

  constructor(cluster: Cluster, { faults, f, seed, noticeMs, changes }: InjectorOptions) {
    this.#cluster = cluster;
    this.#changes = changes;
    this.#noticeMs = noticeMs;
    this.#diskDice = cluster.nodes.map(({ id }) => new Dice(seedOf(seed, 3, id)));
    cluster.strikes = (replica, point) => this.#strikes(replica, point);
    cluster.slowMs = (id) => this.#slowMs(id);
    this.#memories = new Memories(cluster, faults, f, (id) => this.#bootUnlessKept(id));
    this.#twinDice = new Dice(seedOf(seed, 4));
    const liars = faults.flatMap((fault) => (fault.kind === 'liar' ? [fault.node] : []));
    if (liars.length > 0) this.#conspiracy = new Conspiracy(cluster, liars);
    for (const fault of faults) cluster.after(fault.at, () => this.#begin(fault));
  }

  /** The safety phase is over: what is armed strikes no more, and whoever is down by a fault that has an end comes up. */
  heal(): void {
    this.#armed.clear();
    for (const fault of [...this.#active]) if (fault.lasts !== null) this.#end(fault);
    if (this.#conspiracy !== null) this.#conspiracy.cutsPower = false;
    for (const { id, isUp } of this.#cluster.nodes) if (!isUp && !this.#keepsDown(id)) this.#cluster.boot(id);
  }

  #begin(fault: Fault): void {
    const cluster = this.#cluster;
    cluster.remark(`fault: ${describeFault(fault).trim()}`);
    this.#active.add(fault);
    switch (fault.kind) {
      case 'liar':
        return; // from the start, and for ever
      case 'change':
        this.#active.delete(fault);
        return this.#changes?.submit(fault);
      case 'hand-over':
        this.#active.delete(fault);
        return cluster.nodes[this.#primary()]!.input({ type: 'hand-over' });
      case 'crash':
        if (fault.point === 'now') return this.#crash(fault, fault.node === 'primary' ? this.#primary() : fault.node);
        this.#armed.add(fault);
        return;
      case 'power-cut':
        for (const { id } of cluster.nodes) cluster.crash(id, fault);
        break;
      case 'amnesia':
      case 'lost-log':
      case 'rollback':
        if (fault.unheardMs > 0 && this.#memories.hasRoom(fault.node)) this.#silence(fault);
        else this.#forget(fault);
        break;
      case 'twin':
        return this.#runTwice(fault.node);
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
    if ('unheardMs' in fault && this.#unheard.delete(fault)) this.#setLinks();
    this.#cluster.remark(`over:  ${describeFault(fault).trim()}`);
    if (fault.kind === 'crash') {
      const node = this.#down.get(fault);
      if (node !== undefined) this.#bootUnlessKept(node);
    } else if (fault.kind === 'power-cut') for (const { id } of this.#cluster.nodes) this.#bootUnlessKept(id);
    else if (fault.kind === 'amnesia' || fault.kind === 'lost-log' || fault.kind === 'rollback')
      this.#memories.end(fault);
    else if (fault.kind === 'slow-primary') this.#dawdlers.get(fault)?.end();
    else if (fault.kind !== 'stall' && fault.kind !== 'liar' && fault.kind !== 'change' && fault.kind !== 'hand-over')
      this.#apply(fault);
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

  /** What it signs from now on, it alone will have known. */
  #silence(fault: ForgettingFault): void {
    this.#unheard.add(fault);
    this.#setLinks();
    this.#cluster.after(fault.unheardMs, () => {
      if (this.#active.has(fault)) this.#forget(fault);
      if (this.#unheard.delete(fault)) this.#setLinks();
    });
  }

  #forget(fault: ForgettingFault): void {
    if (this.#memories.begin(fault)) return;
    this.#cluster.remark('no room for it: as many as may be have forgotten something, or are broken for ever');
    this.#active.delete(fault);
  }

  /** A second host with its key. Whichever of the two ends is started again, and peers go from one to the other. */
  #runTwice(id: number): void {
    const cluster = this.#cluster;
    const dice = this.#twinDice;
    cluster.byzantine.add(id);
    const second = cluster.hosts.double(id);
    cluster.boot(id, second);
    const peers = cluster.nodes.map((node) => Number(node.id)).filter((peer) => peer !== id);
    const move = (peer: number) => {
      cluster.disconnect(id, peer);
      cluster.hosts.move(id, peer);
      if (!cluster.network.isSevered(id, peer)) cluster.connect(id, peer);
    };
    for (const peer of peers) if (dice.chance(0.5)) move(peer);
    const step = () => {
      move(dice.pick(peers));
      this.#bootUnlessKept(id);
      if (second.core === null) cluster.boot(id, second);
      cluster.after(100 + dice.exponential(2_000), step);
    };
    cluster.after(100 + dice.exponential(2_000), step);
  }

  #bootUnlessKept(id: number): void {
    if (!this.#cluster.nodes[id]!.isUp && !this.#keepsDown(id)) this.#cluster.boot(id);
  }

  #keepsDown(id: number): boolean {
    for (const fault of this.#active) {
      if (fault.kind === 'power-cut') return true;
      const isDown = (fault.kind === 'amnesia' || fault.kind === 'lost-log') && !this.#unheard.has(fault);
      if (isDown && fault.node === id) return true;
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
        case 'amnesia':
        case 'lost-log':
        case 'rollback':
          if (this.#unheard.has(fault)) cut ||= fault.node === from || (fault.unheard === 'alone' && fault.node === to);
          break;
        default:
          break;
      }
    }
    const { loss, duplication, corruption } = missing;
    return { cut, clogged, reorder, delayMs, loss: 1 - loss, repeat: 1 - duplication, corrupt: 1 - corruption };
  }
}
