// One life of a cluster, from a seed: a safety phase in which everything may fail at once, then a liveness phase in which a quorum is well,
// up to f replicas stay broken for ever, and the quorum must order everything that was submitted.

import type { GenesisDocument } from '../protocol/genesis.ts';
import type { Protocol } from '../protocol/modes.ts';
import { bearsLies, quorumsAmong, quorumsOf } from '../protocol/modes.ts';
import { Changes, drawChanges, SPARE_NODES, withChanges } from './changes.ts';
import type { CheckName } from './checks.ts';
import { CheckFailure, fail } from './checks.ts';
import type { Habits } from './clients.ts';
import { PatientClient } from './clients.ts';
import { Cluster } from './cluster.ts';
import type { Dawdling } from './dawdler.ts';
import { Dawdler } from './dawdler.ts';
import type { Fault, Swarm } from './faults.ts';
import { brokenForEver, drawFaults, drawForgetting } from './faults.ts';
import { Injector } from './injector.ts';
import { nodeOf } from './membership.ts';
import type { Faults } from './network.ts';
import { Dice, seedOf } from './random.ts';
import type { SimReplica } from './replica.ts';
import { keyPair, standInKey } from './signatures.ts';

export interface LifeOptions {
  readonly seed: number;
  /** Default: pbft. */
  readonly protocol?: Protocol;
  /** Replicas; null: drawn. */
  readonly n: number | null;
  /** Replicas that may be broken for ever, lie or forget at one time. Default, and at most: as many as n bears. */
  readonly f?: number | null;
  /** Length of the safety phase in simulated milliseconds, at least 1000. */
  readonly ms: number;
  /** Null: one seed in 16 has them. */
  readonly realSignatures: boolean | null;
  /** Whether the operators change the epoch now and then. Default: drawn, one life in three. */
  readonly changes?: boolean | null;
  /** Numbers of the faults that happen; null: all that were drawn. */
  readonly only?: readonly number[] | null;
  /** Called with each line of a readable trace. */
  readonly onLine?: (line: string) => void;
  /** A planted bug. */
  readonly Replica?: typeof SimReplica;
}

/** What was drawn for a seed. */
export interface Plan {
  readonly n: number;
  readonly f: number;
  readonly realSignatures: boolean;
  /** Whether the members have operators, who change the epoch; then there are spare nodes as well. */
  readonly operators: boolean;
  readonly parameters: NonNullable<GenesisDocument['parameters']>;
  /** Decided blocks that each replica keeps. */
  readonly retain: readonly number[];
  readonly base: Faults;
  readonly habits: Habits;
  readonly noticeMs: number | null;
  /** How the primary of the end holds back what it should propose; null: it does not. */
  readonly dawdling: Dawdling | null;
  /** All of them, changes of the epoch last; their places in this list are their numbers. */
  readonly faults: readonly Fault[];
}

export interface Failure {
  readonly check: CheckName;
  readonly message: string;
  /** Milliseconds from the start. */
  readonly atMs: number;
  /** Where the check was, for a bug of the simulator itself. */
  readonly stack: string;
}

export interface Outcome {
  readonly seed: number;
  readonly n: number;
  readonly realSignatures: boolean;
  /** Null: everything held. */
  readonly failure: Failure | null;
  /** Two runs with one digest went the same way. */
  readonly digest: string;
  readonly simulatedMs: number;
  /** From the beginning of the liveness phase until everything was ordered. */
  readonly recoveryMs: number;
  readonly events: number;
  readonly messages: number;
  readonly blocks: number;
  readonly acknowledged: number;
  readonly viewChanges: number;
  readonly crashes: number;
  /** The last epoch that was reached. */
  readonly epochs: number;
  /** Quarantines that ended. */
  readonly readmissions: number;
  readonly faults: number;
}

/** Clients go on for so long in the liveness phase, so that there is something to order. */
const STILL_BUSY_MS = 1_000;
/**
 * In Cheap Paxos a failed main is dropped, and what the others choose without it only they know: when all of those fail before it is taken back, nothing
 * goes on (Lamport and Massa, section 3.2). So mains break for ever only after so long a time in which all of them were well.
 */
const MAINS_WELL_MS = 12_000;
/** How long a quorum may take to order everything: a view timeout that has doubled 8 times is 128 s, and f + 1 of them may come. */
export const LIVENESS_MS_MAX = 900_000;
/** How long a healed replica may stay in quarantine while clients are busy: as long, for it takes decided blocks. */
export const READMISSION_MS_MAX = LIVENESS_MS_MAX;
const HEADS_AGREE_MS_MAX = 60_000;
/** Before the last trial. */
const SETTLE_MS = 2_000;
/** A slow primary leads for so many times the lateness that is held against it before it is given up (two timeouts at first), at most. */
const PACE_PATIENCES = 2.5;
/** Who may have forgotten something at one time, those broken for ever among them, where the epoch changes: as many as the fewest members bear. */
const FORGETFUL_WITH_CHANGES_MAX = 1;
/** One seed in so many has real signatures. */
const REAL_SIGNATURES_ONE_IN = 16;

export function drawPlan({
  seed,
  n,
  ms,
  f: most = null,
  realSignatures,
  changes = null,
  protocol = 'pbft',
}: Pick<LifeOptions, 'seed' | 'n' | 'f' | 'ms' | 'realSignatures' | 'changes' | 'protocol'>): Plan {
  const dice = new Dice(seedOf(seed, 100));
  const lies = bearsLies(protocol);
  const drawnN = dice.pick(lies ? [4, 4, 4, 5, 6, 7] : [3, 3, 3, 4, 5, 7]);
  const size = n ?? drawnN;
  const f = Math.min(quorumsAmong(protocol, size).f, most ?? size);
  const retain = dice.pick([8, 32, Number.POSITIVE_INFINITY]);
  const changesDrawn = drawChanges(new Dice(seedOf(seed, 104)), { ms, wanted: changes });
  const validFor = dice.pick([100, 50_000, 50_000]);
  const swarm: Swarm = {
    n: size,
    f,
    ms,
    liars: lies,
    ...(protocol === 'cheap-paxos' ? { foreverAt: ms + MAINS_WELL_MS } : {}),
  };
  const faults = drawFaults(new Dice(seedOf(seed, 101)), swarm);
  const operators = changesDrawn.length > 0;
  // Where members come and go, four may be left, who bear one.
  const forgetful = operators ? { ...swarm, f: Math.min(f, FORGETFUL_WITH_CHANGES_MAX) } : swarm;
  // Where members are trusted, whoever loses a memory starts no more (CFT-R-1).
  if (lies) faults.push(...drawForgetting(new Dice(seedOf(seed, 103)), forgetful, faults, { hosts: !operators }));
  return {
    n: size,
    f,
    realSignatures: realSignatures ?? seed % REAL_SIGNATURES_ONE_IN === 0,
    parameters: { checkpointInterval: dice.pick([16, 32, 64]), window: dice.pick([1, 4, 8]) },
    retain: Array.from({ length: size }, () => (dice.chance(0.8) ? retain : Number.POSITIVE_INFINITY)),
    base: {
      delayMs: [1, dice.pick([2, 5, 20])],
      loss: 0,
      repeat: 0,
      writeMs: [1, dice.pick([2, 4, 12])],
      inOrder: true,
    },
    habits: {
      clients: dice.between(1, 4),
      everyMs: dice.pick([250, 600, 1_500]),
      ahead: dice.pick([1, 2, 8]),
      bytesMax: dice.pick([64, 1_024]),
      validFor,
      replay: dice.pick([0, 0.1]),
      sessionBundles: dice.pick([5, 50, 1_000_000]),
    },
    noticeMs: dice.pick([null, 300, 2_000]),
    // A member that is trusted does not hold back on purpose.
    dawdling: lies ? drawTrial(new Dice(seedOf(seed, 102))) : null,
    operators,
    faults: withChanges(
      faults.sort((a, b) => a.at - b.at),
      changesDrawn,
      size,
    ),
  };
}

/** In every other life, where fewer than f are broken for ever. Adaptive ones are left out: what they do is as slow as is allowed. */
function drawTrial(dice: Dice): Dawdling | null {
  if (dice.chance(0.5)) return null;
  return dice.chance(0.7) ? { how: 'constant', ms: dice.between(300, 480) } : { how: 'censor' };
}

/** The same condition, reckoned anew only where some replica has moved since: it depends on nothing else. */
function lookedAtMoves(cluster: Cluster, condition: () => boolean): () => boolean {
  let [seen, held] = [-1, false];
  return () => {
    const moves = cluster.nodes.reduce((sum, { life }) => sum + life, cluster.turns);
    if (moves !== seen) [seen, held] = [moves, condition()];
    return held;
  };
}

export function live(options: LifeOptions): Outcome {
  return new Life(options).run();
}

class Life {
  readonly #options: LifeOptions;
  readonly #plan: Plan;
  readonly #faults: readonly Fault[];
  readonly #cluster: Cluster;
  #recoveryMs = 0;

  constructor(options: LifeOptions) {
    const { seed, only, onLine, Replica, protocol = 'pbft' } = options;
    this.#options = options;
    this.#plan = drawPlan(options);
    const { n, parameters, realSignatures, operators, faults } = this.#plan;
    this.#faults = only == null ? faults : faults.filter((_, number) => only.includes(number));
    this.#cluster = new Cluster({
      n,
      spare: operators ? SPARE_NODES : 0,
      operators,
      seed,
      protocol,
      parameters,
      realSignatures,
      history: false,
      ...(Replica === undefined ? {} : { Replica }),
    });
    if (onLine !== undefined) this.#cluster.trace.sink = onLine;
  }

  run(): Outcome {
    let failure: Failure | null = null;
    try {
      this.#live();
    } catch (error) {
      failure = this.#failureOf(error);
    }
    const { trace, timeline, checks, viewChanges, readmissions, nodes, messages } = this.#cluster;
    return {
      seed: this.#options.seed,
      n: this.#plan.n,
      realSignatures: this.#plan.realSignatures,
      failure,
      digest: trace.digest(),
      simulatedMs: timeline.now - timeline.start,
      recoveryMs: this.#recoveryMs,
      events: timeline.happened,
      messages,
      blocks: checks.chain.size,
      acknowledged: checks.acknowledgedCount,
      viewChanges,
      crashes: nodes.reduce((sum, { crashes }) => sum + crashes, 0),
      epochs: Math.max(...nodes.map(({ epoch }) => epoch.epoch)),
      readmissions,
      faults: this.#faults.length,
    };
  }

  #failureOf(error: unknown): Failure {
    const atMs = this.#cluster.now - this.#cluster.start;
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const stack = cause instanceof Error ? (cause.stack ?? '') : '';
    if (error instanceof CheckFailure) return { check: error.check, message: error.message, atMs, stack };
    // What throws and is no check is a bug, of the simulator or of what it runs.
    return {
      check: 'no-invariant-breaks',
      message: error instanceof Error ? error.message : String(error),
      atMs,
      stack,
    };
  }

  #live(): void {
    const cluster = this.#cluster;
    const { seed, ms } = this.#options;
    const { base, retain, noticeMs, n } = this.#plan;
    cluster.faults = base;
    for (const { id, disk } of cluster.nodes) disk.retain = retain[id] ?? retain[0]!;
    const broken = brokenForEver(this.#faults, n);
    const { realSignatures } = this.#plan;
    const changes = new Changes(cluster, { broken, realSignatures });
    const { f, operators } = this.#plan;
    const forgetfulMax = operators ? Math.min(f, FORGETFUL_WITH_CHANGES_MAX) : f;
    const injector = new Injector(cluster, { faults: this.#faults, f: forgetfulMax, seed, noticeMs, changes });
    const clients = this.#clients('client', this.#plan.habits);
    cluster.run(ms);
    injector.heal();
    cluster.remark('the safety phase is over');
    const since = cluster.now;
    cluster.run(STILL_BUSY_MS + (this.#options.protocol === 'cheap-paxos' ? MAINS_WELL_MS : 0));
    const healed = () => changes.mains.filter((id) => !broken.has(id));
    // A quarantine ends by traffic.
    const isReadmitted = (id: number) => !cluster.nodes[id]!.guard.quarantined;
    if (!cluster.until(() => healed().every(isReadmitted), READMISSION_MS_MAX))
      fail('readmitted', `in quarantine for ${READMISSION_MS_MAX / 1000} s, with traffic; ${this.#standing(healed())}`);
    for (const client of clients) client.stop();
    const open = () => clients.reduce((sum, client) => sum + client.open, 0);
    if (!cluster.until(() => open() === 0, LIVENESS_MS_MAX))
      fail(
        'everything-is-ordered',
        `${open()} bundles were not ordered in ${LIVENESS_MS_MAX / 1000} s by a quorum of healed replicas; ${this.#standing(healed())}`,
      );
    this.#recoveryMs = cluster.now - since;
    const head = () => cluster.chain.size;
    // Who is no member, or is none any more, follows to the head as well.
    const agree = () =>
      healed().every((id) => cluster.height(id) === head()) &&
      cluster.nodes.every(({ id, disk, member }) => broken.has(id) || member !== null || disk.head === head());
    if (!cluster.until(agree, HEADS_AGREE_MS_MAX))
      fail('heads-agree', `healed replicas stay apart for ${HEADS_AGREE_MS_MAX / 1000} s; ${this.#standing(healed())}`);
    for (const id of healed()) cluster.checks.atEnd(cluster.nodes[id]!.id, cluster.height(id));
    const brokenMembers = changes.members.filter((id) => broken.has(id)).length;
    if (
      this.#plan.dawdling !== null &&
      brokenMembers < Math.min(this.#plan.f, quorumsAmong(this.#options.protocol, changes.members.length).f)
    )
      this.#trySlowPrimary(this.#plan.dawdling, healed());
  }

  /** One more replica breaks, for ever: whoever leads now works just under every timeout, while clients are busy at all replicas. */
  #trySlowPrimary(dawdling: Dawdling, healed: readonly number[]): void {
    const cluster = this.#cluster;
    const slow = cluster.primary;
    if (!healed.includes(slow)) return;
    const others = healed.filter((id) => id !== slow);
    const busy = this.#clients('busy', { ...this.#plan.habits, clients: 4, everyMs: 20, ahead: 2, validFor: 50_000 });
    // Until rounds are measured as they are now.
    cluster.run(SETTLE_MS);
    const explained = () =>
      others.flatMap((id) => {
        const { core, epoch } = cluster.nodes[id]!;
        if (core === null) return [];
        const e = core.explain();
        return [{ ...e, leader: nodeOf(epoch, e.primary) }];
      });
    // Who asks for a later view knows of another primary than those who order, and is followed in the middle of the trial.
    if (!explained().every(({ leader, phase }) => leader === slow && phase !== 'view-change')) return;
    const patience = explained().map(({ pace, timeoutMs }) => PACE_PATIENCES * (pace?.lateMsMax ?? 0) + 2 * timeoutMs);
    cluster.remark(`node-${slow} holds bundles back, ${dawdling.how}, for ever`);
    const dawdler = new Dawdler(cluster, slow, dawdling);
    // A liar may keep one of them in a view change of its own: those who order without it are enough.
    const { f, quorum } = quorumsOf(cluster.nodes[slow]!.epoch);
    const isLeft = lookedAtMoves(cluster, () => {
      const now = explained();
      return (
        now.every(({ leader }) => leader !== slow) &&
        now.filter(({ phase }) => phase !== 'view-change').length >= quorum - f
      );
    });
    if (!cluster.until(isLeft, Math.max(...patience)))
      fail(
        'slow-primary-is-replaced',
        `node-${slow} holds back what it should propose (${dawdling.how}) and leads for ${Math.max(...patience)} ms; ${this.#standing(others)}`,
      );
    dawdler.end();
    for (const client of busy) client.stop();
  }

  #standing(healed: readonly number[]): string {
    return healed
      .map((id) => {
        const e = this.#cluster.nodes[id]!.core?.explain();
        return e === undefined ? `node-${id} down` : `node-${id} ${e.phase} at height ${e.height} in view ${e.view}`;
      })
      .join(', ');
  }

  #clients(prefix: string, habits: Habits): PatientClient[] {
    const cluster = this.#cluster;
    const { realSignatures } = this.#plan;
    const service = {
      genesis: cluster.genesis,
      after: (delay: number, run: () => void) => cluster.after(delay, run),
      live: () => cluster.live(),
      submit: cluster.submit.bind(cluster),
      // A liar's word is no receipt.
      height: (id: number) => (cluster.byzantine.has(id) ? 0 : cluster.height(id)),
      placeOf: (digest: string) => cluster.placeOf(digest),
      acknowledge: (digest: string, height: number) => cluster.acknowledge(digest, height),
    };
    return Array.from({ length: habits.clients }, (_, i) => {
      const name = `${prefix}-${i}`;
      const dice = new Dice(seedOf(this.#options.seed, prefix === 'client' ? 200 : 201, i));
      const key = (realSignatures ? keyPair : standInKey)(name);
      return new PatientClient(service, { name, key, dice, habits });
    });
  }
}
