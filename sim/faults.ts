// What goes wrong, and when: a list that is drawn up front from the seed, so that a fault can be taken out of it and the run repeated.
// Swarm testing: each seed draws which kinds there are at all, and how strong, since faults that are always there hide what others do.

import { unreachable } from '../protocol/assert.ts';
import type { Dawdling } from './dawdler.ts';
import type { Dice } from './random.ts';
import type { CrashPoint, Interrupted } from './replica.ts';

interface Timed {
  /** Milliseconds from the start. */
  readonly at: number;
  /** Milliseconds; null: for ever. */
  readonly lasts: number | null;
}

export type Fault = Timed &
  (
    | { readonly kind: 'delay' /** Mean of an exponential one, on every link. */; readonly meanMs: number }
    | { readonly kind: 'loss' | 'duplication' | 'corruption' /** Share of the messages. */; readonly rate: number }
    | { readonly kind: 'reordering' }
    | { readonly kind: 'clogged-link' | 'cut-link'; readonly from: number; readonly to: number }
    | { readonly kind: 'partition'; readonly side: readonly number[] }
    /** What the side says does not arrive elsewhere; what the others say does. */
    | { readonly kind: 'one-way-partition'; readonly side: readonly number[] }
    | { readonly kind: 'isolation'; readonly node: number }
    /**
     * Down from then on; at a point of a write: at the first one from `at` on, or never. 'primary': whoever leads the latest view then,
     * since what a primary has half done is what the others must cope with.
     */
    | ({ readonly kind: 'crash'; readonly node: number | 'primary'; readonly point: CrashPoint | 'now' } & Interrupted)
    | ({ readonly kind: 'power-cut' } & Interrupted)
    | { readonly kind: 'slow-disk'; readonly node: number; readonly meanMs: number }
    | { readonly kind: 'slow-link'; readonly node: number; readonly meanMs: number }
    | { readonly kind: 'clock-drift'; readonly node: number /** 1 is right. */; readonly rate: number }
    | { readonly kind: 'clock-jump'; readonly node: number; readonly ms: number }
    | { readonly kind: 'stall'; readonly node: number }
    | Forgetting
    /** From then on a second host runs with its key, from a copy of its disk, and every peer talks to one of the two. */
    | { readonly kind: 'twin'; readonly node: number }
    /** No write ends before it is over. */
    | { readonly kind: 'disk-stall'; readonly node: number }
    /** Whoever leads the latest view then holds back what it ought to propose. */
    | { readonly kind: 'slow-primary'; readonly dawdling: Dawdling }
    /** In an adversary's hand, with its key. */
    | { readonly kind: 'liar'; readonly node: number }
    /** No fault: whoever leads is asked to give its place away, as an operator does who takes it away. */
    | { readonly kind: 'hand-over' }
    /** No fault: the operators hand in a change of the epoch (changes.ts). */
    | EpochChange
  );

export interface EpochChange {
  readonly kind: 'change';
  readonly what: 'add' | 'remove' | 'rekey' | 'parameter' | 'operator-key' | 'policy' | 'address';
  /** Which of those that could be taken. */
  readonly pick: number;
}

/** A replica loses what it knew. It counts among the f until it is as sound as before: a fault for which there is no room is left out. */
type Forgetting = {
  readonly node: number;
  /** For so long before its end it is alone, or nobody hears it: what it signs then, no other remembers. */
  readonly unheardMs: number;
  readonly unheard: 'alone' | 'mute';
} /** The sign-state is lost, and one in quarantine made; of the log all is left, nothing, or a backup of what it was at `copiedAt`. */ & (
  | {
      readonly kind: 'amnesia';
      readonly log: 'wiped' | 'kept' | 'older';
      readonly copiedAt: number;
    }
  /** The log is lost, and the sign-state is not: it begins with an empty one (REC-6). */
  | { readonly kind: 'lost-log' }
  /** The whole disk is what it was at `copiedAt`, and nobody knows, until the replica notices (REC-9), or the operator when this is over. */
  | { readonly kind: 'rollback'; readonly copiedAt: number }
);

export type ForgettingFault = Timed & Forgetting;
export type FaultKind = Fault['kind'];

const FORGETTING = ['amnesia', 'lost-log', 'rollback'] as const;
type Special = 'liar' | 'slow-link' | 'twin' | 'change' | 'hand-over' | (typeof FORGETTING)[number];

/** Kinds that a seed draws from, with how often they come in a minute where they are on. */
const SWARM: Readonly<Record<Exclude<FaultKind, Special | LateKind>, readonly [number, number]>> = {
  delay: [2, 12],
  loss: [2, 12],
  duplication: [1, 8],
  corruption: [1, 8],
  reordering: [1, 8],
  'clogged-link': [2, 20],
  'cut-link': [2, 20],
  partition: [2, 12],
  'one-way-partition': [1, 10],
  isolation: [1, 10],
  crash: [4, 40],
  'power-cut': [1, 4],
  'slow-disk': [1, 12],
  'clock-drift': [1, 6],
  'clock-jump': [1, 8],
  stall: [1, 16],
};

/** Drawn after all others, so that the draws of those stay what they were. */
const LATE_SWARM: Readonly<Record<LateKind, readonly [number, number]>> = {
  'disk-stall': [1, 8],
  'slow-primary': [1, 6],
};
type LateKind = 'disk-stall' | 'slow-primary';

const HAND_OVERS_PER_MINUTE = [1, 30] as const;

/** The kinds that come singly, in the order in which they are drawn. */
const KINDS = Object.keys(SWARM) as (keyof typeof SWARM)[]; // the keys of a literal
const CRASH_POINTS: readonly (CrashPoint | 'now')[] = [
  'now',
  'now',
  'write-begun',
  'log-written',
  'guard-written',
  'spoken',
];

export interface Swarm {
  readonly n: number;
  readonly f: number;
  /** Whether a broken replica may lie; without it, it is silent, slow or cut off. Default: yes. */
  readonly liars?: boolean;
  /** Length of the safety phase. */
  readonly ms: number;
  /** When those break that never come back. Default: at its end. */
  readonly foreverAt?: number;
}

/** The faults of one life, by rising time: those of the safety phase, and those that begin at its end and never pass. */
export function drawFaults(dice: Dice, { n, f, ms, foreverAt = ms, liars = true }: Swarm): Fault[] {
  const on = KINDS.filter(() => dice.chance(0.4));
  const faults: Fault[] = [];
  for (const kind of on) {
    const [low, high] = SWARM[kind];
    const count = Math.max(1, Math.round((dice.between(low, high) * ms) / 60_000));
    // How long they last, on average: from a blink to much longer than every timeout.
    const lastsMs = dice.pick([50, 300, 1_000, 4_000]);
    const strength = dice.next();
    for (let i = 0; i < count; i++) {
      const at = dice.between(100, ms - 1);
      const lasts = Math.min(1 + dice.exponential(lastsMs), ms - at);
      faults.push(drawOne(kind, { at, lasts }, { dice, n, strength }));
    }
  }
  const broken = dice.shuffled(Array.from({ length: n }, (_, id) => id)).slice(0, dice.between(0, f));
  const lies = dice.chance(0.3) && liars;
  for (const node of broken) faults.push(...drawForEver(dice, { node, ms: foreverAt, lies, n }));
  for (const kind of ['disk-stall', 'slow-primary'] as const)
    if (dice.chance(0.3)) faults.push(...drawLate(kind, dice, { n, ms }));
  return faults.sort((a, b) => a.at - b.at);
}

/**
 * Lost memories and second hosts, for a life with these other faults; they have dice of their own.
 * @param hosts whether there may be second hosts
 */
export function drawForgetting(
  dice: Dice,
  { n, f, ms }: Swarm,
  others: readonly Fault[],
  { hosts }: { readonly hosts: boolean } = { hosts: true },
): Fault[] {
  const all = Array.from({ length: n }, (_, id) => id);
  const broken = brokenForEver(others, n);
  const faults: Fault[] = [];
  if (hosts && broken.size < f && dice.chance(0.15)) {
    const node = dice.pick(all.filter((id) => !broken.has(id)));
    faults.push({ kind: 'twin', at: dice.between(100, ms - 1), lasts: null, node });
    broken.add(node);
  }
  if (!dice.chance(0.5)) return faults;
  // Where f are broken for ever, only they may forget as well.
  const victims = broken.size < f ? all : [...broken];
  if (victims.length === 0) return faults;
  for (const kind of FORGETTING.filter(() => dice.chance(0.6))) {
    const count = Math.max(1, Math.round((dice.between(2, 12) * ms) / 60_000));
    const lastsMs = dice.pick([50, 1_000, 8_000]);
    for (let i = 0; i < count; i++) {
      const at = dice.between(100, ms - 1);
      const unheardMs = dice.pick([0, 1]) * Math.min(dice.exponential(600), ms - at);
      const forgets = {
        at,
        lasts: Math.min(unheardMs + 1 + dice.exponential(lastsMs), ms - at),
        node: dice.pick(victims),
        unheardMs,
        unheard: dice.pick(['alone', 'mute'] as const),
      };
      const copiedAt = Math.max(50, at - 1 - dice.exponential(dice.pick([200, 2_000, 20_000])));
      const log = dice.pick(['wiped', 'wiped', 'kept', 'older'] as const);
      if (kind === 'amnesia') faults.push({ kind, ...forgets, log, copiedAt });
      else if (kind === 'rollback') faults.push({ kind, ...forgets, copiedAt });
      else faults.push({ kind, ...forgets });
    }
  }
  return faults;
}

/** [CFT-H-1] In half of all lives in which somebody leads whom the others trust; they have dice of their own. */
export function drawHandOvers(dice: Dice, ms: number): Fault[] {
  if (dice.chance(0.5)) return [];
  const count = Math.max(1, Math.round((dice.between(...HAND_OVERS_PER_MINUTE) * ms) / 60_000));
  return Array.from({ length: count }, () => ({ kind: 'hand-over', at: dice.between(100, ms - 1), lasts: 0 }));
}

function drawLate(kind: LateKind, dice: Dice, { n, ms }: { n: number; ms: number }): Fault[] {
  const [low, high] = LATE_SWARM[kind];
  const count = Math.max(1, Math.round((dice.between(low, high) * ms) / 60_000));
  const lastsMs = dice.pick([300, 1_000, 4_000]);
  return Array.from({ length: count }, (): Fault => {
    const at = dice.between(100, ms - 1);
    const timed = { at, lasts: Math.min(1 + dice.exponential(lastsMs), ms - at) };
    if (kind === 'disk-stall') return { kind, ...timed, node: dice.between(0, n - 1) };
    return { kind, ...timed, dawdling: drawDawdling(dice) };
  });
}

/** Just under a view timeout of 500 ms, or well under it; all at once, bundle by bundle, as late as can be, or all but one client's. */
export function drawDawdling(dice: Dice): Dawdling {
  const how = dice.pick(['constant', 'trickle', 'adaptive', 'censor'] as const);
  return how === 'constant' || how === 'trickle' ? { how, ms: dice.between(100, 480) } : { how };
}

function drawOne(
  kind: keyof typeof SWARM,
  timed: Timed,
  { dice, n, strength }: { dice: Dice; n: number; strength: number },
): Fault {
  const node = () => dice.between(0, n - 1);
  const side = () => dice.shuffled(Array.from({ length: n }, (_, id) => id)).slice(0, dice.between(1, n - 1));
  const interrupted = (): Interrupted => ({
    log: dice.chance(0.5) ? 'lost' : 'kept',
    guard: dice.chance(0.5) ? 'lost' : 'kept',
  });
  switch (kind) {
    case 'delay':
      return { kind, ...timed, meanMs: Math.ceil(strength * 150) };
    case 'loss':
      return { kind, ...timed, rate: strength * 0.4 };
    case 'duplication':
      return { kind, ...timed, rate: strength * 0.2 };
    case 'corruption':
      return { kind, ...timed, rate: strength * 0.5 };
    case 'reordering':
      return { kind, ...timed };
    case 'clogged-link':
    case 'cut-link': {
      const from = node();
      return { kind, ...timed, from, to: (from + dice.between(1, n - 1)) % n };
    }
    case 'partition':
    case 'one-way-partition':
      return { kind, ...timed, side: side() };
    case 'isolation':
    case 'stall':
      return { kind, ...timed, node: node() };
    case 'crash':
      return {
        kind,
        ...timed,
        node: dice.chance(0.4) ? 'primary' : node(),
        point: dice.pick(CRASH_POINTS),
        ...interrupted(),
      };
    case 'power-cut':
      return { kind, ...timed, ...interrupted() };
    case 'slow-disk':
      return { kind, ...timed, node: node(), meanMs: Math.ceil(strength * 400) };
    case 'clock-drift':
      return { kind, ...timed, node: node(), rate: 1 + (dice.next() - 0.5) * 0.1 };
    case 'clock-jump':
      return { kind, ...timed, node: node(), ms: dice.between(-60_000, 60_000) };
  }
}

/** How a replica stays broken from the end of the safety phase on; a liar lies from the start. */
function drawForEver(
  dice: Dice,
  { node, ms, lies, n }: { node: number; ms: number; lies: boolean; n: number },
): Fault[] {
  const timed = { at: ms, lasts: null };
  if (lies) return [{ kind: 'liar', at: 0, lasts: null, node }];
  switch (dice.pick(['down', 'cut-off', 'deaf', 'mute', 'slow'] as const)) {
    case 'down':
      return [{ kind: 'crash', ...timed, node, point: 'now', log: 'lost', guard: 'lost' }];
    case 'cut-off':
      return [{ kind: 'isolation', ...timed, node }];
    case 'mute':
      return [{ kind: 'one-way-partition', ...timed, side: [node] }];
    case 'deaf': {
      const side = Array.from({ length: n }, (_, id) => id).filter((id) => id !== node);
      return [{ kind: 'one-way-partition', ...timed, side }];
    }
    case 'slow':
      return [
        { kind: 'slow-disk', ...timed, node, meanMs: dice.between(100, 1_500) },
        { kind: 'slow-link', ...timed, node, meanMs: dice.between(50, 1_000) },
      ];
  }
}

/** The replicas that faults without an end leave broken. */
export function brokenForEver(faults: readonly Fault[], n: number): Set<number> {
  const broken = new Set<number>();
  for (const fault of faults) {
    if (fault.lasts !== null) continue;
    if ('node' in fault && fault.node !== 'primary') broken.add(fault.node);
    // A side of one is mute; a side of all but one leaves that one deaf.
    else if ('side' in fault && fault.side.length === 1) broken.add(fault.side[0]!);
    else if ('side' in fault) for (let id = 0; id < n; id++) if (!fault.side.includes(id)) broken.add(id);
  }
  return broken;
}

/** A fault as a line to read. */
export function describeFault(fault: Fault): string {
  const from = (fault.at / 1000).toFixed(3).padStart(9);
  const lasts = fault.lasts === null ? 'for ever' : `for ${fault.lasts} ms`;
  return `${from} ${what(fault)} ${lasts}`;
}

function what(fault: Fault): string {
  switch (fault.kind) {
    case 'delay':
      return `delay of ${fault.meanMs} ms on average`;
    case 'loss':
    case 'duplication':
    case 'corruption':
      return `${fault.kind} of ${(100 * fault.rate).toFixed(1)} % of the messages`;
    case 'reordering':
      return 'messages out of order';
    case 'clogged-link':
      return `link of node-${fault.from} to node-${fault.to} clogged`;
    case 'cut-link':
      return `link of node-${fault.from} to node-${fault.to} cut`;
    case 'partition':
      return `partition, on one side ${names(fault.side)},`;
    case 'one-way-partition':
      return `nobody else hears ${names(fault.side)}`;
    case 'isolation':
      return `node-${fault.node} alone`;
    case 'crash': {
      const when = fault.point === 'now' ? '' : ` when ${fault.point},`;
      const who = fault.node === 'primary' ? 'the primary' : `node-${fault.node}`;
      return `${who} crashes${when} (log ${fault.log}, guard ${fault.guard}), down`;
    }
    case 'power-cut':
      return `power cut everywhere (log ${fault.log}, guard ${fault.guard})`;
    case 'slow-disk':
      return `disk of node-${fault.node} slow, ${fault.meanMs} ms on average,`;
    case 'slow-link':
      return `links of node-${fault.node} slow, ${fault.meanMs} ms on average,`;
    case 'clock-drift':
      return `clock of node-${fault.node} at ${fault.rate.toFixed(4)} of its speed`;
    case 'clock-jump':
      return `clock of node-${fault.node} off by ${fault.ms} ms`;
    case 'stall':
      return `node-${fault.node} hangs`;
    case 'amnesia': {
      const log = fault.log === 'older' ? `that of ${(fault.copiedAt / 1000).toFixed(3)}` : fault.log;
      return `node-${fault.node} loses its sign-state (log ${log})${lastWords(fault)}, down`;
    }
    case 'lost-log':
      return `node-${fault.node} loses its log${lastWords(fault)}, down`;
    case 'rollback':
      return `disk of node-${fault.node} as it was at ${(fault.copiedAt / 1000).toFixed(3)}${lastWords(fault)}, unnoticed`;
    case 'twin':
      return `node-${fault.node} runs on two hosts`;
    case 'disk-stall':
      return `disk of node-${fault.node} hangs`;
    case 'slow-primary': {
      const { dawdling } = fault;
      return `the primary holds bundles back, ${dawdling.how}${'ms' in dawdling ? ` every ${dawdling.ms} ms` : ''},`;
    }
    case 'liar':
      return `node-${fault.node} lies`;
    case 'hand-over':
      return 'the primary is asked to hand over,';
    case 'change':
      return `operators: ${fault.what} (${fault.pick}),`;
    default:
      return unreachable(fault);
  }
}

const lastWords = ({ unheard, unheardMs }: Pick<ForgettingFault, 'unheard' | 'unheardMs'>): string =>
  unheardMs === 0 ? '' : ` after ${unheardMs} ms ${unheard}`;

const names = (side: readonly number[]): string =>
  [...side]
    .sort((a, b) => a - b)
    .map((id) => `node-${id}`)
    .join(', ');
