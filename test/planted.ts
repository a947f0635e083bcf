// Bugs, planted one at a time, so that the simulator's checks are checked themselves. Each is an honest replica with one rule overridden from
// outside: a subclass of the simulated replica, an input or a Ready changed on its way, or a collaborator of the core replaced. Nothing in the
// product knows of them.

import { native } from '../crypto/native.ts';
import { decodeSignState, encodeSignState, firstState } from '../keys/sign-state.ts';
import { Checkpoints } from '../protocol/checkpoints.ts';
import { decodeFrame, isRefusal } from '../protocol/codec.ts';
import type { Input, Ready } from '../protocol/core.ts';
import type { Recovery, ReplicaCore } from '../protocol/cores.ts';
import { Ledger } from '../protocol/ledger.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { ReplicaMessage, ReplicaPledge, Signed, Verified } from '../protocol/messages.ts';
import { asVerified } from '../protocol/messages.ts';
import type { Protocol } from '../protocol/modes.ts';
import { Pace } from '../protocol/pbft/pace.ts';
import type { State } from '../protocol/pbft/state.ts';
import { Pool } from '../protocol/pool.ts';
import { SESSION_BUCKETS, SessionTable } from '../protocol/sessions.ts';
import { CatchUp } from '../protocol/transfer.ts';
import { asEpoch, asHeight, asMillis, asView } from '../protocol/types.ts';
import { openFrame } from '../protocol/verify.ts';
import { VoteBox } from '../protocol/votes.ts';
import type { CheckName } from '../sim/checks.ts';
import type { LifeOptions, Outcome } from '../sim/life.ts';
import { live } from '../sim/life.ts';
import { SimReplica } from '../sim/replica.ts';

export interface PlantedBug {
  readonly name: string;
  readonly Replica: typeof SimReplica;
  /** Puts something in the place of a collaborator, for one life; gives back what takes it out again. */
  readonly plant?: () => () => void;
  /** Caught within this many seeds, from 1 on, or the suite fails. */
  readonly seedsMax: number;
  /** The one of these that caught it when this was written: looked at first, and the others only where it does no longer. */
  readonly seed?: number;
  /** Whether the operators change the epoch in these lives. Default: they do not. */
  readonly changes?: boolean;
  /** Any of these may be the one that notices it first. */
  readonly by: readonly CheckName[];
}

/** A life with the bug in every replica of it. */
export function liveWith(bug: PlantedBug, options: Omit<LifeOptions, 'Replica'>): Outcome {
  const takeOut = bug.plant?.();
  try {
    return live({ changes: bug.changes ?? false, ...options, Replica: bug.Replica });
  } finally {
    takeOut?.();
  }
}

type Step = Input<ReplicaMessage, ReplicaPledge>;
type Out = Ready<ReplicaMessage, ReplicaPledge>;

/** The state of the core that is being stepped: catch-up is the one collaborator that is shown all of it, in each step. */
let spoilNow: ((s: State) => void) | null = null;
const { tick } = CatchUp.prototype;
CatchUp.prototype.tick = function (host) {
  // What a core gives to its catch-up is its whole state.
  spoilNow?.(host as State);
  tick.call(this, host);
};

/** A replica with something wrong in what goes into its core, in what its core knows, or in what comes out. */
class Wrong extends SimReplica {
  protected before(inputs: readonly Step[], _core: ReplicaCore): readonly Step[] {
    return inputs;
  }
  protected spoil(_s: State): void {}
  protected afterwards(ready: Out): Out {
    return ready;
  }

  protected override makeCore(recovery: Recovery): ReplicaCore {
    const core = super.makeCore(recovery);
    const step = core.step.bind(core);
    core.step = (inputs, now) => {
      spoilNow = (s) => this.spoil(s);
      try {
        return this.afterwards(step(this.before(inputs, core), now));
      } finally {
        spoilNow = null;
      }
    };
    return core;
  }
}

/** Fields of the state are read-only to those who write its rules. */
const put = (s: State, fields: Partial<State>): State => Object.assign(s, fields);

class QuorumOffByOne extends Wrong {
  readonly #spoilt = new WeakSet<State>();

  protected override spoil(s: State): void {
    if (this.#spoilt.has(s)) return;
    this.#spoilt.add(s);
    const quorums = { ...s.quorums, quorum: s.quorums.quorum - 1 };
    put(s, { quorums, votes: new VoteBox(asEpoch(0), quorums) });
  }
  protected override accepts(signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> {
    return asVerified(signed);
  }
}

class NewViewOfFewRequests extends Wrong {
  protected override spoil(s: State): void {
    put(s, { quorums: { ...s.quorums, quorum: s.quorums.oneHonest } });
  }
}

export class SpeaksTooSoon extends SimReplica {
  protected override whileWriting(write: Parameters<SimReplica['speak']>[0]): void {
    super.speak(write);
  }
  protected override speak(): void {}
}

class ForgetfulGuard extends SimReplica {
  readonly #empty = this.guard.file;

  override boot(): void {
    this.guard.file = this.#empty;
    super.boot();
  }
}

class LeadsAgain extends SimReplica {
  override boot(): void {
    const state = decodeSignState(this.guard.file)!; // written here
    this.guard.file = encodeSignState({ ...state, marks: { ...state.marks, led: null } });
    super.boot();
  }
}

class BaseIgnored extends Wrong {
  protected override before(inputs: readonly Step[]): readonly Step[] {
    return inputs.map((input) => {
      if (!('signed' in input) || input.signed.message.kind !== 'new-view') return input;
      const { message } = input.signed;
      const viewChanges = message.viewChanges.map((each) => ({
        ...each,
        message: { ...each.message, prepared: null },
      }));
      const signed = asVerified({ ...input.signed, message: { ...message, viewChanges } });
      return input.type === 'own' ? { type: 'own', signed } : { type: 'message', signed };
    });
  }
}

class LockNotKept extends Wrong {
  protected override spoil(s: State): void {
    put(s, { prepared: null });
  }
}

/** A second proposal takes the place of the first, and the guard is not asked. */
class EquivocationAccepted extends Wrong {
  #second: number | null = null;

  protected override before(inputs: readonly Step[]): readonly Step[] {
    for (const input of inputs)
      if (input.type === 'message' && input.signed.message.kind === 'pre-prepare')
        this.#second = input.signed.message.block.header.height;
    return inputs;
  }
  protected override spoil(s: State): void {
    if (this.#second === null) return;
    const at = s.chain.findIndex(({ block }) => block.header.height === this.#second);
    this.#second = null;
    s.proposed.clear();
    if (at >= 0 && !s.leading) put(s, { chain: s.chain.slice(0, at) });
  }
  protected override promise<P>(pledges: readonly P[]): readonly P[] {
    return pledges;
  }
}

class CheckpointOfFew extends Wrong {
  readonly #spoilt = new WeakSet<State>();

  protected override spoil(s: State): void {
    if (this.#spoilt.has(s)) return;
    this.#spoilt.add(s);
    const checkpoints = new Checkpoints({ ...s.quorums, quorum: s.quorums.oneHonest }, s.parameters.checkpointInterval);
    if (s.checkpoints.stable !== null) checkpoints.adopt(s.checkpoints.stable);
    put(s, { checkpoints });
  }
}

class VotesOfOtherViews extends Wrong {
  protected override makeCore(recovery: Recovery): ReplicaCore {
    const core = super.makeCore(recovery);
    const wants = core.wants.bind(core);
    core.wants = (message, sender, others) =>
      message.kind === 'prepare' || message.kind === 'commit' || wants(message, sender, others);
    return core;
  }
  protected override before(inputs: readonly Step[], core: ReplicaCore): readonly Step[] {
    const { view } = core.explain();
    return inputs.map((input) => {
      if (input.type !== 'message') return input;
      const { message } = input.signed;
      if (message.kind !== 'prepare' && message.kind !== 'commit') return input;
      return { type: 'message', signed: asVerified({ ...input.signed, message: { ...message, view } }) };
    });
  }
}

const CATCH_UP_KINDS: readonly string[] = ['blocks', 'block-data', 'checkpoint-proof', 'state-chunk'];

class CatchUpUnverified extends SimReplica {
  protected override accepts(signed: Signed<ReplicaMessage>): Verified<ReplicaMessage> | null {
    return CATCH_UP_KINDS.includes(signed.message.kind) ? asVerified(signed) : super.accepts(signed);
  }
  protected override acceptsBytes(bytes: Uint8Array): Verified<ReplicaMessage> | null {
    const frame = decodeFrame(bytes);
    if (isRefusal(frame) || !CATCH_UP_KINDS.includes(frame.kind)) return super.acceptsBytes(bytes);
    const { chainId, members, parameters } = this.world.genesis;
    const signed = openFrame(frame, { crypto: native, chainId, epoch: asEpoch(0), members, parameters, quorum: 0 });
    return isRefusal(signed) ? null : asVerified(signed);
  }
}

class DecidesWhatIsPrepared extends Wrong {
  protected override spoil(s: State): void {
    const { prepared, headCertificate } = s;
    if (prepared !== null && prepared.height > (headCertificate?.height ?? 0))
      put(s, { headCertificate: { ...prepared, phase: 'commit' } });
  }
}

class DeliversNotAll extends Wrong {
  protected override afterwards(ready: Out): Out {
    return { ...ready, deliver: ready.deliver.filter(({ block }) => block.header.height % 20 !== 0) };
  }
}

class NeverAsks extends Wrong {
  protected override afterwards(ready: Out): Out {
    return { ...ready, send: ready.send.filter(({ message }) => !message.kind.startsWith('fetch-')) };
  }
}

class ProposesTwice extends Wrong {
  protected override afterwards(ready: Out): Out {
    const send = ready.send.flatMap((each): Out['send'][number][] => {
      const { message } = each;
      if (message.kind !== 'pre-prepare') return [each];
      const { block } = message;
      const hash = block.hash.map((byte) => byte ^ 1) as typeof block.hash; // of the same length
      return [each, { ...each, message: { ...message, block: { ...block, hash } } }];
    });
    return { ...ready, send };
  }
}

/** Says that a write is done, and keeps the last two to itself. */
class LyingDisk extends SimReplica {
  override boot(): void {
    super.boot();
    const held: (readonly LogRecord[])[] = [];
    const write = this.disk.write.bind(this.disk);
    this.disk.write = (records) => {
      held.push(records);
      if (held.length > 2) write(held.shift()!);
    };
  }
  override crash(how: Parameters<SimReplica['crash']>[0]): boolean {
    // What it holds is gone; a new life has a new one.
    Reflect.deleteProperty(this.disk, 'write');
    return super.crash(how);
  }
}

class TimeRunsBack extends Wrong {
  protected override makeCore(recovery: Recovery): ReplicaCore {
    const core = super.makeCore(recovery);
    const step = core.step.bind(core);
    let steps = 0;
    core.step = (inputs, now) => step(inputs, asMillis(++steps % 1000 === 0 ? now - 50 : now));
    return core;
  }
}

/** Marks that are lost are none: what a replica without REC-1 does. */
class NoQuarantine extends SimReplica {
  override boot(): void {
    const state = decodeSignState(this.guard.file)!; // written here
    if (state.quarantined) this.guard.file = encodeSignState(firstState(state, asEpoch(0), false));
    super.boot();
  }
}

/** A new epoch, a new beginning: as if the key could not have signed in it before its memory was lost. */
class QuarantineOfOneEpoch extends SimReplica {
  protected override makeCore(recovery: Recovery): ReplicaCore {
    const { epoch } = this.epoch;
    if (recovery.quarantine === null || epoch === 0) return super.makeCore(recovery);
    const state = decodeSignState(this.guard.file)!; // written here
    this.guard.file = encodeSignState(firstState(state, epoch, false));
    this.guard.open(epoch);
    return super.makeCore({ ...recovery, quarantine: null, guard: this.guard.recovery });
  }
}

/** As if every epoch began at height 0. */
class BoundFromNothing extends Wrong {
  readonly #spoilt = new WeakSet<object>();

  protected override spoil({ quarantine }: State): void {
    if (quarantine === null || this.#spoilt.has(quarantine)) return;
    this.#spoilt.add(quarantine);
    if (quarantine.answered.size === 0) quarantine.proven = asHeight(0);
  }
}

/** As soon as the others have answered, and not when what they have proven is past. */
class QuarantineTooShort extends Wrong {
  protected override spoil({ quarantine, prepared, quorums, ledger, view, out }: State): void {
    if (quarantine === null || quarantine.asked || prepared === null) return;
    if (quarantine.answered.size < quorums.quorum) return;
    quarantine.asked = true;
    out.readmit = { view, height: ledger.height, prepared };
  }
}

/** Answers that say nothing, as far as whoever asked can see. */
const silenced = (input: Step): Step => {
  if (input.type !== 'message' || input.signed.message.kind !== 'standing') return input;
  const message = { ...input.signed.message, commit: null, prepared: null, stable: null, asked: null };
  return { type: 'message', signed: asVerified({ ...input.signed, message }) };
};

/** The others are counted, and what they have proven is not. */
class BoundOfNoProof extends Wrong {
  protected override before(inputs: readonly Step[]): readonly Step[] {
    return inputs.map(silenced);
  }
}

class BoundWithoutMargin extends Wrong {
  readonly #spoilt = new WeakSet<object>();

  protected override spoil({ quarantine, parameters }: State): void {
    if (quarantine === null || this.#spoilt.has(quarantine)) return;
    this.#spoilt.add(quarantine);
    let { proven } = quarantine;
    Object.defineProperty(quarantine, 'proven', {
      get: () => Math.max(0, proven - 4 * parameters.window),
      set: (height: typeof proven) => {
        proven = asHeight(Math.max(proven, height));
      },
    });
  }
}

class ReadmittedInItsView extends Wrong {
  protected override afterwards(ready: Out): Out {
    if (ready.readmit === null) return ready;
    const view = asView(Math.max(0, ready.readmit.view - 2));
    return { ...ready, readmit: { ...ready.readmit, view } };
  }
}

class NoStanding extends Wrong {
  protected override before(inputs: readonly Step[]): readonly Step[] {
    return inputs.filter((input) => input.type !== 'message' || input.signed.message.kind !== 'fetch-standing');
  }
}

export const patched =
  <Class extends { readonly prototype: object }>(cls: Class, methods: Partial<Class['prototype']>) =>
  (): (() => void) => {
    const before: Record<string, unknown> = {};
    for (const name of Object.keys(methods)) before[name] = Reflect.get(cls.prototype, name);
    Object.assign(cls.prototype, methods);
    return () => Object.assign(cls.prototype, before);
  };

const sessionOf = Ledger.prototype.session;
const pick = Pool.prototype.pick;

export const PLANTED: readonly PlantedBug[] = [
  // These two live 900 simulated seconds more before they are caught: first, so that nothing waits for them at the end.
  {
    name: 'nothing is ever asked for',
    Replica: NeverAsks,
    seedsMax: 10,
    by: ['everything-is-ordered', 'heads-agree', 'readmitted'],
  },
  { name: 'nobody answers a replica in quarantine', Replica: NoStanding, seedsMax: 20, by: ['readmitted'] },
  {
    name: 'a quorum is one vote too small',
    Replica: QuorumOffByOne,
    seedsMax: 3,
    by: ['certificates-verify', 'one-block-per-height'],
  },
  {
    name: 'a new view is opened by f + 1 requests',
    Replica: NewViewOfFewRequests,
    seedsMax: 3,
    by: ['certificates-verify'],
  },
  {
    name: 'a vote leaves before its write is durable',
    Replica: SpeaksTooSoon,
    seedsMax: 1,
    by: ['durable-before-spoken'],
  },
  {
    name: 'the disk says too early that it has written',
    Replica: LyingDisk,
    seedsMax: 2,
    by: ['durable-before-spoken', 'no-invariant-breaks'],
  },
  {
    name: 'a restart resets the guard',
    Replica: ForgetfulGuard,
    seedsMax: 10,
    by: ['one-vote-per-place', 'views-never-run-back', 'lock-is-kept', 'durable-before-spoken', 'no-invariant-breaks'],
  },
  {
    name: 'a primary leads a view again after a restart',
    Replica: LeadsAgain,
    seed: 4,
    seedsMax: 20,
    by: ['one-vote-per-place', 'no-invariant-breaks'],
  },
  {
    name: 'the base of a new view is not recomputed',
    Replica: BaseIgnored,
    seed: 4,
    seedsMax: 30,
    by: ['base-is-kept', 'one-block-per-height', 'one-certificate-per-place', 'no-invariant-breaks'],
  },
  { name: 'the lock is not kept', Replica: LockNotKept, seedsMax: 5, by: ['lock-is-kept'] },
  {
    name: 'a second proposal is accepted, and the guard not asked',
    Replica: EquivocationAccepted,
    seedsMax: 10,
    by: ['one-vote-per-place', 'durable-before-spoken'],
  },
  {
    name: 'a checkpoint is stable with f + 1 votes',
    Replica: CheckpointOfFew,
    seedsMax: 20,
    by: ['certificates-verify'],
  },
  { name: 'votes of another view are counted', Replica: VotesOfOtherViews, seedsMax: 5, by: ['certificates-verify'] },
  {
    name: 'catch-up verifies nothing',
    Replica: CatchUpUnverified,
    seed: 6,
    seedsMax: 40,
    by: ['certificates-verify', 'no-invariant-breaks', 'one-block-per-height'],
  },
  {
    name: 'what is prepared counts as decided',
    Replica: DecidesWhatIsPrepared,
    seedsMax: 2,
    by: ['certificates-verify'],
  },
  { name: 'a decided block is not delivered', Replica: DeliversNotAll, seedsMax: 5, by: ['in-order'] },
  {
    name: 'a primary proposes two blocks at one height',
    Replica: ProposesTwice,
    seedsMax: 1,
    by: ['no-invariant-breaks'],
  },
  {
    name: 'a replica whose marks are lost begins as if it had none',
    Replica: NoQuarantine,
    seed: 9,
    seedsMax: 30,
    by: ['one-vote-per-place', 'views-never-run-back', 'lock-is-kept', 'no-invariant-breaks'],
  },
  {
    name: 'a quarantine ends when the others have answered, and not later',
    Replica: QuarantineTooShort,
    seed: 27,
    seedsMax: 40,
    by: ['readmitted-above-votes'],
  },
  {
    name: 'the bound of a quarantine heeds nothing that its peers have proven',
    Replica: BoundOfNoProof,
    seed: 9,
    seedsMax: 40,
    by: ['readmitted-above-votes'],
  },
  {
    name: 'the bound of a quarantine has no margin for votes above what is decided',
    Replica: BoundWithoutMargin,
    seed: 31,
    seedsMax: 80,
    by: ['readmitted-above-votes'],
  },
  {
    name: 'a replica is readmitted in the view it is in',
    Replica: ReadmittedInItsView,
    seed: 22,
    seedsMax: 50,
    by: ['readmitted-above-votes', 'views-never-run-back'],
  },
  {
    name: 'a quarantine ends with its epoch',
    Replica: QuarantineOfOneEpoch,
    changes: true,
    seed: 13,
    seedsMax: 80,
    by: ['one-vote-per-place', 'views-never-run-back', 'lock-is-kept', 'no-invariant-breaks'],
  },
  {
    name: 'the bound of a quarantine leaves out the block that its epoch starts from',
    Replica: BoundFromNothing,
    changes: true,
    seed: 22,
    seedsMax: 80,
    by: ['readmitted-above-votes'],
  },
  { name: 'time runs back', Replica: TimeRunsBack, seedsMax: 1, by: ['no-invariant-breaks'] },
  {
    name: 'a checkpoint does not restore the sessions',
    Replica: SimReplica,
    plant: patched(SessionTable, { restore: () => undefined }),
    seedsMax: 10,
    by: ['no-invariant-breaks', 'session-order', 'exactly-once', 'everything-is-ordered'],
  },
  {
    name: 'a checkpoint forgets all sessions',
    Replica: SimReplica,
    plant: patched(SessionTable, {
      forget(this: SessionTable) {
        for (let bucket = 0; bucket < SESSION_BUCKETS; bucket++) this.restore(bucket, new Uint8Array(0));
      },
    }),
    seedsMax: 20,
    by: ['exactly-once', 'session-order', 'everything-is-ordered'],
  },
  {
    name: 'a slow primary is never judged',
    Replica: SimReplica,
    plant: patched(Pace, { isTooSlow: () => false }),
    seed: 9,
    seedsMax: 20,
    by: ['slow-primary-is-replaced'],
  },
  {
    name: 'the pool turns a session round, and the ledger lets it',
    Replica: SimReplica,
    plant: () => {
      const takeOut = [
        patched(Pool, {
          pick(...args) {
            return pick.apply(this, args).reverse();
          },
        }),
        patched(Ledger, {
          session(chain, bundle, height) {
            const found = sessionOf.call(this, chain, bundle, height);
            return found === undefined ? found : { ...found, lastSequence: bundle.sequence - 1 };
          },
        }),
      ].map((plant) => plant());
      return () => {
        for (const each of takeOut) each();
      };
    },
    seedsMax: 5,
    by: ['session-order', 'exactly-once'],
  },
];

/** The seed that is known to catch the bug, or else the first one from 1 on; null: none of its budget does. */
export function caughtAt(
  bug: PlantedBug,
  ms: number,
  protocol: Protocol = 'pbft',
): { readonly seed: number; readonly outcome: Outcome } | null {
  const all = Array.from({ length: bug.seedsMax }, (_, i) => i + 1);
  for (const seed of bug.seed === undefined ? all : [bug.seed, ...all]) {
    const outcome = liveWith(bug, { seed, n: null, ms, realSignatures: false, protocol });
    if (outcome.failure !== null) return { seed, outcome };
  }
  return null;
}
