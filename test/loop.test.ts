// The loop around the core (daemon/replica.ts) and its mouth (daemon/speaker.ts): what takes a turn, what is bounded, who is punished, when
// the core is called, and that nothing is said before it is durable. The core is made up where its answers matter, the real one where its
// judgement does; the log is the real one on a disk that waits for the test; guard and network write down what they are asked.

import t, { type Test } from 'tap';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { Clock } from '../daemon/clock.ts';
import { LOOP_LIMITS } from '../daemon/loop-limits.ts';
import type { Meter, PeerTransport } from '../daemon/ports.ts';
import { type Logger, Replica } from '../daemon/replica.ts';
import { Speaker } from '../daemon/speaker.ts';
import { Succession } from '../daemon/succession.ts';
import { GuardRefusal } from '../keys/errors.ts';
import type { Guard, GuardState, PromiseBatch, ProposalPlace } from '../keys/guard.ts';
import { type SimulationKey, simulationKey } from '../keys/simulation-key.ts';
import { InvariantViolation } from '../protocol/assert.ts';
import type { Block } from '../protocol/block.ts';
import { voteSigningBytes } from '../protocol/certificate.ts';
import {
  decodeFrame,
  encodeBody,
  encodeCertificate,
  encodeFrame,
  encodePayload,
  isRefusal,
} from '../protocol/codec.ts';
import type { Core, Evidence, Explanation, Input, Ready } from '../protocol/core.ts';
import type { ReplicaCore } from '../protocol/cores.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { Blocks, CheckpointVote, ReplicaMessage, ReplicaPledge, Status } from '../protocol/messages.ts';
import { Outbox } from '../protocol/outbox.ts';
import { LAZY_WRITE_MS_MAX } from '../protocol/pending.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import { asEpoch, asHeight, asMillis, asReplicaId, asView, type Millis } from '../protocol/types.ts';
import { openFrame, signingBytes, type VerifyContext } from '../protocol/verify.ts';
import { settingOf } from '../sim/setting.ts';
import { type LogStore, openLogStore } from '../storage/log-store.ts';
import { MemoryDisk, type WriteFate } from '../storage/memory.ts';
import { epoch, other, proposal, Solo, said, viewChange, vote } from './solo.ts';

// A busy machine is slow, not wrong.
t.setTimeout(120_000);
const deadlineMs = 30_000;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
/** Long enough for everything that needs no disk and no timer. */
async function turns(count = 10): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}
async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await turn();
  }
}

// ---- the parts around the loop ---------------------------------------------------------------------------------------------

/** `prepare 0/3`: kind, view and height, as far as it has them. */
function nameOf(message: ReplicaMessage): string {
  const { kind } = message;
  if (kind === 'pre-prepare') return `${kind} ${message.view}/${message.block.header.height}`;
  if (kind === 'prepare' || kind === 'commit') return `${kind} ${message.view}/${message.height}`;
  if (kind === 'view-change' || kind === 'new-view') return `${kind} ${message.view}`;
  return kind === 'checkpoint' ? `${kind} ${message.height}` : kind;
}

class TestNetwork implements PeerTransport {
  readonly sent: { readonly to: number | 'all'; readonly message: ReplicaMessage }[] = [];
  readonly punished: { readonly peer: number; readonly code: string }[] = [];
  readonly #stage: Stage;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  send(to: number | 'all', bytes: Bytes): void {
    const frame = decodeFrame(bytes);
    const signed = isRefusal(frame) ? frame : openFrame(frame, this.#stage.verify);
    if (isRefusal(signed)) throw new Error(`it sends what nobody can read: ${signed.refused}`);
    this.sent.push({ to, message: signed.message });
    const { trace } = this.#stage;
    trace.push(`sent ${nameOf(signed.message)}`);
    // As the transport does, which holds the frames of a turn together until it is over.
    process.nextTick(() => trace.push('flushed'));
  }

  broadcast(bytes: Bytes): void {
    this.send('all', bytes);
  }

  punish(peer: number, code: string): void {
    this.punished.push({ peer, code });
  }

  connectedPeers() {
    return [];
  }

  async close(): Promise<void> {}

  get names(): string[] {
    return this.sent.map(({ message }) => nameOf(message));
  }
}

/** Promises and signs whatever it is told to, in its own time. */
class TestGuard implements Guard {
  readonly batches: PromiseBatch[] = [];
  readonly floor = { sequence: 0, hash: new Uint8Array(32) };
  readonly #stage: Stage;
  /** True: a promise waits for `release`. */
  slow = false;
  readonly #held: ((failure: Error | null) => void)[] = [];
  refuses: (pledge: ReplicaPledge) => boolean = () => false;
  refusesProposals: GuardRefusal['code'] | null = null;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  get publicKey(): Bytes {
    return this.#stage.keys[this.#stage.self]!.publicKey;
  }

  get state(): GuardState {
    throw new Error('nobody asks in these tests');
  }

  stateIn(): GuardState {
    throw new Error('no epoch ends in these tests');
  }

  beginEpoch(): void {
    throw new Error('no epoch ends in these tests');
  }

  release(failure: Error | null = null): void {
    for (const held of this.#held.splice(0)) held(failure);
  }

  async promise(batch: PromiseBatch): Promise<void> {
    for (const { pledge } of batch.pledges)
      if (this.refuses(pledge)) throw new GuardRefusal('guard-conflict', { kind: pledge.kind });
    this.#stage.trace.push('guard begins');
    this.batches.push(batch);
    const failure = this.slow ? await new Promise<Error | null>((resolve) => this.#held.push(resolve)) : null;
    if (failure !== null) throw failure;
    this.#stage.trace.push('guard done');
  }

  sign(pledge: ReplicaPledge, payload: Bytes): Bytes {
    this.#stage.trace.push(`signed ${nameOf(pledge)}`);
    return this.#stage.sign(this.#stage.self, pledge, payload);
  }

  async lead(): Promise<void> {
    this.#stage.trace.push('lead');
  }

  signProposal({ epoch, view, height, hash }: ProposalPlace): Bytes {
    if (this.refusesProposals !== null) throw new GuardRefusal(this.refusesProposals, { view, height });
    const place = { phase: 'prepare', epoch, view, height, hash } as const;
    return this.#stage.keys[this.#stage.self]!.sign(voteSigningBytes(this.#stage.solo.genesis.chainId, place));
  }

  signStatement(): Bytes {
    return new Uint8Array(64);
  }

  signDecided(): Bytes {
    return new Uint8Array(64);
  }

  async abstain(): Promise<void> {}

  async readmit({ lock }: { readonly lock: Bytes }): Promise<void> {
    this.#stage.trace.push(`readmitted with ${lock.length} bytes`);
  }

  async resetFloor(): Promise<void> {}
  async close(): Promise<void> {}
}

/** A core that does what the test says. */
type Step = Input<ReplicaMessage, ReplicaPledge>;
type Out = Ready<ReplicaMessage, ReplicaPledge>;

class TestCore implements Core<ReplicaMessage, ReplicaPledge> {
  readonly steps: { readonly inputs: readonly Step[]; readonly now: Millis }[] = [];
  answer: (inputs: readonly Step[], now: Millis) => Partial<Out> = () => ({});
  wants: Core<ReplicaMessage, ReplicaPledge>['wants'] = () => true;
  presses?: NonNullable<Core<ReplicaMessage, ReplicaPledge>['presses']>;
  found: Core<ReplicaMessage, ReplicaPledge>['found'] = [];
  successor: Core<ReplicaMessage, ReplicaPledge>['successor'] = null;

  step(inputs: readonly Step[], now: Millis): Out {
    this.steps.push({ inputs, now });
    return outOf({ wakeAt: asMillis(now + 60_000), ...this.answer(inputs, now) });
  }

  pooled(): undefined {
    return undefined;
  }

  explain(): Explanation {
    return { inFlight: 0 } as Explanation; // the loop looks at nothing else
  }

  explainHeight(): never {
    throw new Error('not asked for');
  }

  explainBundle(): never {
    throw new Error('not asked for');
  }

  snapshot(): never {
    throw new Error('not asked for');
  }

  /** Senders of the messages that came, step by step; what the loop says of itself (STALL-1, STALL-5) is another matter. */
  get heard(): (number | string)[][] {
    return this.steps.map(({ inputs }) =>
      inputs
        .filter(({ type }) => type !== 'stalled' && type !== 'wall')
        .map((input) => (input.type === 'message' ? Number(input.signed.sender) : input.type)),
    );
  }
}

function outOf(ready: Partial<Out>): Out {
  return { ...new Outbox<ReplicaMessage, ReplicaPledge>().ready(asMillis(0)), ...ready };
}

const pledged = (...pledges: ReplicaPledge[]): Pick<Out, 'pledges'> => ({
  pledges: pledges.map((pledge) => ({ pledge, broadcast: true })),
});

class Stage {
  readonly self = 3;
  readonly solo: Solo;
  readonly keys: readonly SimulationKey[];
  /** What happened, in order. */
  readonly trace: string[] = [];
  readonly evidence: Evidence<ReplicaMessage>[] = [];
  readonly network: TestNetwork;
  readonly guard: TestGuard;
  readonly counts = new Map<string, number>();
  readonly verify: VerifyContext;
  /** Signatures that were checked. */
  checked = 0;
  log!: LogStore;
  /** True: a write waits for `finish`. */
  slowDisk = false;
  readonly #writes: ((fate: WriteFate) => void)[] = [];
  readonly #meter: Meter = {
    count: (name, _labels, by = 1) => this.counts.set(name, (this.counts.get(name) ?? 0) + by),
    gauge: () => undefined,
    observe: () => undefined,
  };
  readonly #logger: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

  static async open(test: { teardown(end: () => unknown): void }, n = 4): Promise<Stage> {
    const stage = new Stage(n);
    const onWrite = () =>
      stage.slowDisk ? new Promise<WriteFate>((resolve) => stage.#writes.push(resolve)) : ('durable' as const);
    const { log } = await openLogStore(new MemoryDisk({ onWrite }).open(), {
      sha256: native.sha256,
      chainId: stage.solo.genesis.chainId,
      floor: null,
      retainBlocks: 'all',
    });
    const write = log.write.bind(log);
    log.write = async (records) => {
      stage.trace.push('log begins');
      const position = await write(records);
      stage.trace.push('log done');
      return position;
    };
    stage.log = log;
    test.teardown(() => {
      stage.finish();
      stage.guard.release();
    });
    return stage;
  }

  private constructor(n: number) {
    this.solo = new Solo({ n, self: this.self });
    this.keys = settingOf(n).keys;
    this.network = new TestNetwork(this);
    this.guard = new TestGuard(this);
    const { chainId, members, parameters } = this.solo.genesis;
    const verify = (...of: Parameters<typeof native.verify>) => {
      this.checked += 1;
      return native.verify(...of);
    };
    const { quorum } = byzantineQuorums(n);
    this.verify = { crypto: { ...native, verify }, chainId, epoch, members, quorum, parameters };
  }

  /** The disk has a write to finish. */
  get writing(): boolean {
    return this.#writes.length > 0;
  }

  /** The writes that wait are done, as the disk's fate has it. */
  finish(fate: WriteFate = 'durable'): void {
    for (const write of this.#writes.splice(0)) write(fate);
  }

  sign(by: number, message: ReplicaMessage, payload = encodePayload(message)): Bytes {
    return this.keys[by]!.sign(signingBytes(this.solo.genesis.chainId, message, payload));
  }

  /** The frame of a message as `sender` signs it. */
  frame(sender: number, message: ReplicaMessage, { spoilt = false } = {}): Bytes {
    const payload = encodePayload(message);
    const signature = spoilt ? new Uint8Array(64).fill(9) : this.sign(sender, message, payload);
    return encodeFrame({ kind: message.kind, payload, sender: this.keys[sender]!.publicKey, signature });
  }

  replica(
    test: { teardown(end: () => unknown): void },
    core: Core<ReplicaMessage, ReplicaPledge>,
    clock = new Clock(),
  ) {
    const { genesis } = this.solo;
    const replica = new Replica({
      core,
      genesis,
      self: asReplicaId(this.self),
      crypto: native,
      verify: this.verify,
      log: this.log,
      guard: this.guard,
      clock,
      meter: this.#meter,
      logger: this.#logger,
      head: { height: asHeight(0), hash: other(9), certificate: null },
      evidence: { found: (piece) => this.evidence.push(piece), entered: () => {} },
      recorder: null,
    });
    test.teardown(() => replica.stop());
    replica.start(this.network);
    return replica;
  }

  speaker(test: { teardown(end: () => unknown): void }) {
    const back: Step[] = [];
    const speaker = new Speaker({
      genesis: this.solo.genesis,
      self: asReplicaId(this.self),
      log: this.log,
      guard: this.guard,
      meter: this.#meter,
      logger: this.#logger,
      back: (inputs) => back.push(...inputs),
      failed: (error) => {
        throw error;
      },
    });
    speaker.start(this.network);
    test.teardown(() => speaker.stop());
    return { speaker, back, say: (ready: Partial<Out>) => speaker.speak(outOf(ready)) };
  }
}

const status = (view = 0): Status => ({
  kind: 'status',
  epoch,
  view: asView(view),
  active: true,
  height: asHeight(0),
  hash: other(1),
  stable: asHeight(0),
  lowest: asHeight(1),
});

const stored = ({ header, headerBytes, hash, bundles }: Block): LogRecord => ({
  type: 'block',
  height: header.height,
  hash,
  bytes: { header: headerBytes, body: encodeBody(bundles) },
});

t.test('REC-4: the end of a quarantine is durable before the core hears of it', async (t) => {
  const stage = await Stage.open(t);
  const { back, say } = stage.speaker(t);
  const prepared = stage.solo.certificate('prepare', stage.solo.block());
  say({ readmit: { view: asView(9), height: asHeight(7), prepared } });
  t.strictSame(back, []);
  await until('its answer', () => back.length > 0);
  t.strictSame(back, [{ type: 'readmitted', view: 9, height: 7 }]);
  t.strictSame(stage.trace, [`readmitted with ${encodeCertificate(prepared).length} bytes`]);
});

// ---- what comes in -----------------------------------------------------------------------------------------------------------

t.test('nobody takes more than a share of the queue, and what is dropped is counted (A14)', async (t) => {
  const stage = await Stage.open(t);
  const core = new TestCore();
  const looked = new Map<number, number>();
  core.wants = (_, sender) => {
    looked.set(sender, (looked.get(sender) ?? 0) + 1);
    return false;
  };
  const replica = stage.replica(t, core);
  const { framesPerPeerMax } = LOOP_LIMITS;
  const [flood, honest] = [stage.frame(1, status()), stage.frame(2, status())];
  const dropped = () => stage.counts.get('synod_queue_dropped_total') ?? 0;
  for (let round = 1; round <= 2; round++) {
    for (let i = 0; i < framesPerPeerMax + 7; i++) replica.frame(asReplicaId(1), flood);
    for (let i = 0; i < 5; i++) replica.frame(asReplicaId(2), honest);
    t.equal(replica.queueDepths().frames, framesPerPeerMax + 5);
    t.equal(replica.queueDepths().frameBytes, framesPerPeerMax * flood.length + 5 * honest.length);
    t.equal(dropped(), 7 * round, 'counted');
    t.notOk(replica.overloaded());
    await until('an empty queue', () => replica.queueDepths().frames === 0);
    t.strictSame(
      [looked.get(1), looked.get(2)],
      [framesPerPeerMax * round, 5 * round],
      'the share is free again when it was taken',
    );
    t.equal(replica.queueDepths().frameBytes, 0);
  }
  for (let i = 0; i < framesPerPeerMax; i++)
    for (const id of [1, 2]) replica.frame(asReplicaId(id), id === 1 ? flood : honest);
  t.ok(replica.overloaded(), 'bulk lanes are read no further when half of the queue is taken');
});

t.test('a turn takes no further frame when its time is up, and the next one takes the rest (A32)', async (t) => {
  const stage = await Stage.open(t);
  const core = new TestCore();
  core.wants = () => {
    // A frame that takes more than a whole turn.
    const end = performance.now() + LOOP_LIMITS.turnMsMax + 5;
    while (performance.now() < end);
    return true;
  };
  const replica = stage.replica(t, core);
  await turns();
  core.steps.length = 0;
  const order = [1, 2, 0, 1, 2];
  for (const id of order) replica.frame(asReplicaId(id), stage.frame(id, status()));
  const between: number[] = [];
  const watch = setInterval(() => between.push(core.steps.length), 1);
  t.teardown(() => clearInterval(watch));
  await until('all of them', () => core.heard.flat().length === order.length);
  t.strictSame(
    core.heard,
    order.map((id) => [id]),
    'one a turn, each in its place',
  );
  t.ok(new Set(between).size > 2, 'and timers had their turn in between');
  t.equal(stage.counts.get('synod_queue_dropped_total'), undefined, 'nothing was dropped');
});

/** A replica that has started, and waits. */
async function staged(t: Test) {
  const stage = await Stage.open(t);
  const core = new TestCore();
  const replica = stage.replica(t, core);
  await turns();
  core.steps.length = 0;
  return { stage, core, replica };
}

t.test('who breaks a rule is punished with its code, and nobody else (GEN-1)', async (t) => {
  const { stage, core, replica } = await staged(t);
  const commit = vote('commit', stage.solo.block());
  const stranger = encodeFrame({
    kind: 'status',
    payload: encodePayload(status()),
    sender: new Uint8Array(32).fill(4),
    signature: new Uint8Array(64),
  });
  const honest: readonly (readonly [number, Bytes])[] = [
    [1, stage.frame(1, status())],
    [1, stage.frame(2, commit)],
    [2, stage.frame(2, commit)],
    [0, stage.frame(2, viewChange(1))],
  ];
  const faulty: readonly (readonly [number, Bytes, string])[] = [
    [1, Uint8Array.of(1, 2, 3), 'frame-malformed'],
    [2, stranger, 'sender-unknown'],
    [0, stage.frame(0, status(), { spoilt: true }), 'signature-invalid'],
    [1, stage.frame(2, commit, { spoilt: true }), 'signature-invalid'],
    [1, stage.frame(2, status()), 'not-the-sender'],
    [2, stage.frame(0, proposal(stage.solo.block())), 'not-the-sender'],
  ];
  for (const [from, bytes] of honest) replica.frame(asReplicaId(from), bytes);
  await until('the honest ones', () => core.heard.flat().length === honest.length);
  t.strictSame(core.heard.flat(), [1, 2, 2, 2], 'pledges prove themselves, whoever brings them');
  t.strictSame(stage.network.punished, []);
  for (const [i, [from, bytes, code]] of faulty.entries()) {
    replica.frame(asReplicaId(from), bytes);
    await until(code, () => stage.network.punished.length > i);
    t.strictSame(stage.network.punished[i], { peer: from, code }, 'whoever brought it');
  }
  t.equal(core.heard.flat().length, honest.length, 'the core hears of none of them');
  t.equal(stage.counts.get('synod_refusals_total'), faulty.length);

  core.answer = () => ({ refusals: [{ from: asReplicaId(2), kind: 'commit', code: 'equivocation' }] });
  replica.frame(asReplicaId(1), stage.frame(2, commit));
  await until('what the core refuses', () => stage.network.punished.length > faulty.length);
  t.strictSame(stage.network.punished.at(-1), { peer: 2, code: 'equivocation' }, 'its signer, not its carrier');

  // What comes too late is nobody's fault, and not worth its check.
  core.answer = () => ({});
  core.wants = () => false;
  const { checked } = stage;
  for (const [from, bytes] of honest) replica.frame(asReplicaId(from), bytes);
  await until('an empty queue', () => replica.queueDepths().frames === 0);
  await turns();
  t.equal(stage.network.punished.length, faulty.length + 1);
  t.equal(stage.checked, checked);
});

t.test('[EPO-13] [EPO-22] what is of another epoch is passed over, and kept for the next one', async (t) => {
  const { stage, core, replica } = await staged(t);
  const of = (number: number) => ({ ...vote('commit', stage.solo.block()), epoch: asEpoch(number) });
  const stranger = new Uint8Array(32).fill(4);
  const carried = (number: number) =>
    encodeFrame({
      kind: 'view-change',
      payload: encodePayload({ ...viewChange(1), epoch: asEpoch(number) }),
      sender: stranger,
      signature: new Uint8Array(64),
    });
  const early = [stage.frame(1, of(1)), carried(1), stage.frame(2, of(1))];
  const others = [stage.frame(1, of(2)), carried(2)];
  for (const bytes of [...early.slice(0, 2), ...others]) replica.frame(asReplicaId(1), bytes);
  replica.frame(asReplicaId(2), early[2]!);
  await until('an empty queue', () => replica.queueDepths().frames === 0);
  await turns();
  t.strictSame(stage.network.punished, [], 'nobody is blamed');
  t.strictSame(core.heard.flat(), []);
  replica.frame(asReplicaId(1), carried(0));
  await until('of this epoch it is a stranger', () => stage.network.punished.length === 1);
  // More than this epoch's limits allow, by a member that may be in another one; a block names its epoch.
  const block = stage.solo.block();
  const { parameters } = stage.verify;
  Object.assign(stage.verify, { parameters: { ...parameters, blockBundlesMax: 0 } });
  replica.frame(asReplicaId(2), stage.frame(2, { kind: 'forward', bundles: block.bundles }));
  replica.frame(asReplicaId(0), stage.frame(0, proposal(block)));
  await until('the block is refused, and the bundles are not', () => stage.network.punished.length === 2);
  t.match(stage.network.punished[1], { peer: 0 });
  for (let i = 0; i < LOOP_LIMITS.earlyFramesPerPeerMax; i++) replica.frame(asReplicaId(2), early[2]!);
  await until('an empty queue', () => replica.queueDepths().frames === 0);
  const { frames } = replica.leave();
  t.strictSame(
    frames.filter(({ from }) => from === 1).map(({ bytes }) => bytes),
    early.slice(0, 2),
  );
  t.equal(frames.filter(({ from }) => from === 2).length, LOOP_LIMITS.earlyFramesPerPeerMax, 'one share, and not more');
});

t.test(
  '[EPO-23] what comes under a key for a later epoch is kept for that, whatever it is, and nobody is blamed',
  async (t) => {
    const { stage, core, replica } = await staged(t);
    const next = simulationKey('the next one of replica 1');
    const under = (message: ReplicaMessage, sender = next): Bytes => {
      const payload = encodePayload(message);
      const signature = sender.sign(signingBytes(stage.solo.genesis.chainId, message, payload));
      return encodeFrame({ kind: message.kind, payload, sender: sender.publicKey, signature });
    };
    const block = stage.solo.block();
    const { height } = block.header;
    // What names its epoch, what does not, and what is none of a peer's frames.
    const said = [
      under({ ...vote('commit', block), epoch: asEpoch(1) }),
      under({ ...status(), epoch: asEpoch(1) }),
      under({ kind: 'forward', bundles: block.bundles }),
      under({ kind: 'fetch-blocks', from: height, to: height }),
      under({ kind: 'fetch-checkpoint' }),
      under({ ...vote('commit', block), epoch: asEpoch(7) }),
      new Uint8Array(50),
    ];
    const one = asReplicaId(1);
    for (const bytes of said) replica.frame(one, bytes, next.publicKey);
    await until('an empty queue', () => replica.queueDepths().frames === 0);
    // To what this replica has asked in its own epoch.
    replica.frame(one, under({ kind: 'block-data', block }), next.publicKey);
    await until('the answer', () => core.heard.flat().length > 0);
    t.strictSame(core.heard.flat(), [1], 'and nothing else');
    t.strictSame(stage.network.sent, []);
    t.strictSame(stage.network.punished, []);
    // What it said under the key before, and has not been read yet, is of this epoch.
    replica.frame(one, stage.frame(1, vote('commit', block)));
    const waits = under({ kind: 'fetch-checkpoint' });
    replica.frame(one, waits, next.publicKey);
    const { frames } = replica.leave();
    t.strictSame(
      frames.map(({ from, key }) => [from, key]),
      [...said.map(() => [1, next.publicKey]), [1, undefined], [1, next.publicKey]],
    );

    // Answers are looked at as ever, and one share is all that there is.
    const other = await Stage.open(t);
    const second = other.replica(t, new TestCore());
    second.frame(one, under({ kind: 'block-data', block }, simulationKey('nobody')), next.publicKey);
    await until('a stranger’s answer is refused', () => other.network.punished.length === 1);
    const { earlyFramesPerPeerMax } = LOOP_LIMITS;
    for (let i = 0; i < earlyFramesPerPeerMax + 5; i++) second.frame(one, said[2]!, next.publicKey);
    await until('an empty queue', () => second.queueDepths().frames === 0);
    t.equal(second.leave().frames.length, earlyFramesPerPeerMax);
  },
);

for (const when of ['in epoch 0', 'where headers name a document'] as const)
  t.test(
    `[EPO-23] an answer under the next key may hold the vote that its sender cast under the present one, ${when}`,
    async (t) => {
      const { stage, core, replica } = await staged(t);
      const { chainId } = stage.solo.genesis;
      const [one, next] = [asReplicaId(1), simulationKey('the next one of replica 1')];
      const block = stage.solo.block();
      const { hash, header } = block;
      if (when !== 'in epoch 0') Object.assign(stage.verify, { memberSetHash: header.memberSetHash });
      const place = { phase: 'commit', epoch, view: asView(0), height: header.height, hash } as const;
      const voteBy = (id: number, key = stage.keys[id]!) => ({
        replica: asReplicaId(id),
        signature: key.sign(voteSigningBytes(chainId, place)),
      });
      const answer = (...signatures: ReturnType<typeof voteBy>[]): Bytes => {
        const message: Blocks = {
          kind: 'blocks',
          blocks: [{ block, certificate: { ...place, signatures } }],
          tail: null,
        };
        const payload = encodePayload(message);
        const signature = next.sign(signingBytes(chainId, message, payload));
        return encodeFrame({ kind: 'blocks', payload, sender: next.publicKey, signature });
      };
      const refused = () => stage.network.punished.length;
      const taken = () => core.heard.flat().length;

      replica.frame(one, answer(voteBy(0), voteBy(1), voteBy(2)), next.publicKey);
      replica.frame(one, answer(voteBy(0), voteBy(2), voteBy(3)), next.publicKey);
      await until('both are read', () => taken() + refused() === 2);
      t.strictSame(stage.network.punished, [], 'nobody is blamed');
      t.strictSame(core.heard.flat(), [1, 1]);

      // A vote of this epoch is under the key of this epoch, whoever brings it.
      const spoilt = { ...voteBy(2), signature: new Uint8Array(64).fill(9) };
      for (const [what, bad] of [
        ['a wrong vote of another', answer(voteBy(0), voteBy(1), spoilt)],
        ['its own vote under the next key', answer(voteBy(0), voteBy(1, next), voteBy(2))],
      ] as const) {
        const [heard, before] = [taken(), refused()];
        replica.frame(one, bad, next.publicKey);
        await until(what, () => taken() + refused() > heard + before);
        t.strictSame([taken(), refused()], [heard, before + 1], what);
      }
    },
  );

t.test('[EPO-22] [EPO-23] at the switch frames go to whoever has the key under which they came', async (t) => {
  const stage = await Stage.open(t);
  const before = stage.replica(t, new TestCore());
  const succession = new Succession(before);
  const [newOfOne, newOfTwo] = [simulationKey('1 in the next epoch'), simulationKey('2 in the next epoch')];
  const { genesis } = stage.solo;
  // 0 goes, 1 has another key, 2 and 3 go on; and 2 has said that it would have one.
  const members = genesis.members.slice(1).map((member, place) => ({
    ...member,
    id: asReplicaId(place),
    ...(member.id === 1 ? { publicKey: newOfOne.publicKey } : {}),
  }));
  const after = (await Stage.open(t)).replica(t, new TestCore());
  Object.defineProperty(after, 'genesis', { value: { ...genesis, members } });
  const heard: (readonly [number, number])[] = [];
  Object.defineProperty(after, 'frame', { value: (from: number, bytes: Bytes) => heard.push([from, bytes[0]!]) });
  const say = (from: number, what: number, key?: Bytes) =>
    succession.frame(asReplicaId(from), Uint8Array.of(what), key);
  say(0, 1);
  say(1, 2);
  say(1, 3, newOfOne.publicKey);
  say(2, 4);
  say(2, 5, newOfTwo.publicKey);
  // The key is a member's by then, and not this one's: whoever sits there is a thief.
  say(2, 6, newOfOne.publicKey);
  say(2, 7, stage.keys[2]!.publicKey);
  succession.enter(after, stage.network, []);
  t.strictSame(heard, [
    [0, 3],
    [1, 4],
    [1, 7],
  ]);
});

t.test('of one turn no more votes are checked than make a quorum (PBFT-P-2)', async (t) => {
  const n = 7;
  const { quorum } = byzantineQuorums(n);
  const stage = await Stage.open(t, n);
  const replica = stage.replica(t, stage.solo.core as unknown as ReplicaCore) /* it hears its own kinds alone */;
  await turns();
  const [first, second, third, fourth] = [1, 2, 3, 4].map(() => stage.solo.block());
  const peers = [0, 1, 2, 4, 5, 6];
  const checks = async (frames: readonly (readonly [number, Bytes])[]): Promise<number> => {
    const before = stage.checked;
    for (const [from, bytes] of frames) replica.frame(asReplicaId(from), bytes);
    await until('an empty queue', () => replica.queueDepths().frames === 0);
    await turns();
    return stage.checked - before;
  };
  const votes = (block: Block, ids: readonly number[], spoilt: readonly number[] = []) =>
    ids.map((id) => [id, stage.frame(id, vote('prepare', block), { spoilt: spoilt.includes(id) })] as const);
  t.equal(await checks(votes(first!, peers)), quorum, `of ${peers.length}`);
  t.equal(await checks(votes(second!, peers, [1])), quorum + 1, 'one that is none does not count');
  t.strictSame(stage.network.punished, [{ peer: 1, code: 'signature-invalid' }]);
  t.equal(await checks(votes(third!, peers.slice(0, 3))), 3);
  t.equal(await checks(votes(third!, peers.slice(3))), quorum - 3, 'with those of the turns before');
  const twice = [...votes(fourth!, [0]), ...votes(fourth!, [0]), ...votes(fourth!, peers.slice(1))];
  t.equal(await checks(twice), quorum + 1, 'said twice it counts once');

  // Only of one turn: whatever the core made of those before, it knows itself.
  const own = await Stage.open(t);
  const core = new TestCore();
  const told: number[] = [];
  core.wants = (_message, _sender, others) => {
    told.push(others?.size ?? -1);
    return true;
  };
  const fresh = own.replica(t, core);
  for (const ids of [[0, 1], [2]]) {
    for (const id of ids) fresh.frame(asReplicaId(id), own.frame(id, vote('commit', first!)));
    await until('an empty queue', () => fresh.queueDepths().frames === 0);
    await turns();
  }
  t.strictSame(told, [0, 1, 0]);
});

t.test(
  '[LOOP-1] what completes nothing waits, unchecked, for what does, or for any other reason to take a turn',
  async (t) => {
    const stage = await Stage.open(t);
    const core = new TestCore();
    core.presses = ({ kind }, _sender, others) => kind !== 'prepare' || others.size >= 2;
    const replica = stage.replica(t, core);
    await turns();
    core.steps.length = 0;
    const [one, two, three] = [1, 2, 3].map(() => stage.solo.block()) as [Block, Block, Block];
    const hear = async (id: number, block: Block, { spoilt = false } = {}) => {
      replica.frame(asReplicaId(id), stage.frame(id, vote('prepare', block), { spoilt }));
      await turns();
    };
    await hear(0, one);
    await hear(0, one);
    await hear(1, two);
    t.strictSame(
      [core.heard, stage.checked, replica.queueDepths().frames],
      [[], 0, 3],
      'not yet, and of another block',
    );
    await hear(1, one);
    t.strictSame([core.heard, replica.queueDepths().frames], [[[0, 0, 1, 1]], 0], 'all that waited, as it came');

    await hear(2, two);
    replica.frame(asReplicaId(1), stage.frame(1, status()));
    await turns();
    t.strictSame(core.heard.slice(1), [[2, 1]], 'with whatever comes');

    // This replica's own is one of them.
    core.answer = () => pledged(vote('prepare', three));
    replica.connected(asReplicaId(1));
    await until('its own', () => stage.trace.includes('signed prepare 0/3'));
    core.answer = () => ({});
    await turns();
    t.strictSame([core.heard.slice(2), replica.queueDepths().inputs], [[['connected']], 1]);
    await hear(0, three);
    t.strictSame(core.heard.slice(3), [['own', 0]]);

    // No turn for what nobody wants; one for what nobody can read, or has not signed, as soon as it is looked at.
    const { checked } = stage;
    core.wants = () => false;
    await hear(1, three);
    t.strictSame([core.steps.length, replica.queueDepths().frames, stage.checked], [4, 0, checked]);
    core.wants = () => true;
    replica.frame(
      asReplicaId(2),
      encodeFrame({ ...frameOf(stage.frame(2, vote('prepare', one))), payload: Uint8Array.of(1) }),
    );
    await hear(1, three, { spoilt: true });
    await hear(0, three);
    t.strictSame(stage.network.punished, [
      { peer: 2, code: 'payload-malformed' },
      { peer: 1, code: 'signature-invalid' },
    ]);
  },
);

function frameOf(bytes: Bytes) {
  const frame = decodeFrame(bytes);
  if (isRefusal(frame)) throw new Error(frame.refused);
  return frame;
}

t.test('requests of one peer are bounded, and those of another are not its concern (PBFT-CU-1)', async (t) => {
  const stage = await Stage.open(t);
  const replica = stage.replica(t, new TestCore());
  const block = stage.solo.block();
  const { header, headerBytes, hash, bundles } = block;
  let reads = 0;
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  stage.log.readBlock = async () => {
    reads += 1;
    await opened;
    return { header: headerBytes, body: encodeBody(bundles) };
  };
  const { requestsPerPeerMax } = LOOP_LIMITS;
  const ask = async (from: number, count: number) => {
    const bytes = stage.frame(from, { kind: 'fetch-block', height: header.height, hash });
    for (let i = 0; i < count; i++) replica.frame(asReplicaId(from), bytes);
    await until('an empty queue', () => replica.queueDepths().frames === 0);
    await turns();
  };
  const answered = (to: number) => stage.network.sent.filter((each) => each.to === to).length;
  await ask(1, requestsPerPeerMax + 10);
  t.equal(reads, requestsPerPeerMax);
  await ask(2, 3);
  t.equal(reads, requestsPerPeerMax + 3);
  open();
  await until('their answers', () => answered(1) + answered(2) === requestsPerPeerMax + 3);
  await ask(1, 4);
  await until('more answers', () => answered(1) === requestsPerPeerMax + 4);
  t.equal(answered(2), 3, 'answered, it may ask again');
  t.strictSame(stage.network.punished, []);
});

// ---- when the core is called -------------------------------------------------------------------------------------------------

/** Timers by hand, so that nothing depends on how fast the machine is. */
class Time {
  now = 1_700_000_000_000;
  /** Alarms that were set, ever. */
  alarms = 0;
  #next = 1;
  readonly #timers = new Map<number, { readonly at: number; readonly run: () => void }>();
  readonly clock = new Clock({ wall: () => this.now, monotonic: () => this.now });

  constructor(test: { teardown(end: () => unknown): void }) {
    const real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout };
    const fake = {
      setTimeout: (run: () => void, ms: number) => {
        this.alarms += 1;
        this.#timers.set(this.#next, { at: this.now + ms, run });
        return this.#next++;
      },
      clearTimeout: (id: number) => void this.#timers.delete(id),
    };
    Object.assign(globalThis, fake);
    test.teardown(() => Object.assign(globalThis, real));
  }

  /** Timers ring on the way; each is followed by a few turns. */
  async to(end: number): Promise<void> {
    for (;;) {
      const [id, next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [0, undefined];
      if (next === undefined || next.at > end) break;
      this.#timers.delete(id);
      this.now = Math.max(this.now, next.at);
      next.run();
      await turns();
    }
    this.now = end;
  }
}

t.test('the core is called with input, or when it wanted to be, and not else (PBFT-HB-1)', async (t) => {
  const stage = await Stage.open(t);
  const core = new TestCore();
  const time = new Time(t);
  const start = time.now;
  let wakeAt = start + 100;
  core.answer = () => ({ wakeAt: asMillis(wakeAt) });
  const replica = stage.replica(t, core, time.clock);
  await turns();
  /** When the core was called, and with how many inputs, but for stalls of this very machine (STALL-1). */
  const called = () =>
    core.steps
      .splice(0)
      .map(({ inputs, now }) => [now - start, inputs.filter(({ type }) => type !== 'stalled').length]);
  t.strictSame(called(), [[0, 1]], 'at the start, with what the log still serves');

  core.wants = () => false;
  for (let i = 0; i < 20; i++) replica.frame(asReplicaId(1), stage.frame(1, status(i)));
  await time.to(start + 99);
  await turns();
  t.equal(replica.queueDepths().frames, 0);
  t.strictSame(called(), [], 'nothing wanted came, and it is not time');
  wakeAt = start + 200;
  await time.to(start + 100);
  t.strictSame(called(), [[100, 0]], 'on time, though nothing came');

  // Inputs put it off, each a little: the alarm that is set rings early, finds that, and is set once more.
  core.wants = () => true;
  const { alarms } = time;
  for (let i = 1; i <= 50; i++) {
    time.now = start + 100 + i;
    wakeAt = start + 200 + i;
    replica.frame(asReplicaId(1), stage.frame(1, status(i)));
    await turns();
  }
  t.strictSame(
    called(),
    Array.from({ length: 50 }, (_, i) => [101 + i, 1]),
  );
  t.equal(time.alarms, alarms, 'no alarm is set for what only puts it off');
  await time.to(start + 249);
  t.strictSame(called(), [], 'not when it rings too early');
  wakeAt = start + 9_000;
  await time.to(start + 250);
  t.strictSame(called(), [[250, 0]]);

  // And one that is wanted earlier than the alarm is set.
  time.now = start + 260;
  wakeAt = start + 270;
  replica.frame(asReplicaId(1), stage.frame(1, status()));
  await turns();
  wakeAt = start + 400;
  await time.to(start + 270);
  await time.to(start + 400);
  t.strictSame(called(), [
    [260, 1],
    [270, 0],
    [400, 0],
  ]);
});

// ---- persist before you speak ------------------------------------------------------------------------------------------------

t.test('what is sent leaves before the write begins; a pledge when log and guard are durable (PBFT-P-1)', async (t) => {
  for (const last of ['log', 'guard'] as const) {
    const stage = await Stage.open(t);
    const { say, back } = stage.speaker(t);
    const block = stage.solo.block();
    stage.slowDisk = true;
    stage.guard.slow = true;
    say({
      send: [{ to: 'all', message: status() }],
      records: [stored(block)],
      ...pledged(vote('prepare', block)),
    });
    t.strictSame(stage.trace, ['sent status'], 'before anything else');
    await until('both writes', () => stage.trace.includes('guard begins') && stage.writing);
    t.strictSame(stage.trace.slice(0, 2), ['sent status', 'flushed'], 'and out of the process');
    await turns();
    if (last === 'log') stage.guard.release();
    else stage.finish();
    await turns();
    t.ok(stage.trace.includes(last === 'log' ? 'guard done' : 'log done'));
    t.strictSame([stage.network.names, back], [['status'], []], `not without the ${last}`);
    t.notOk(stage.trace.includes('signed prepare 0/1'));
    stage.finish();
    stage.guard.release();
    await until('the vote', () => stage.network.sent.length === 2);
    t.strictSame(stage.network.names, ['status', 'prepare 0/1']);
    t.strictSame(
      back.map((input) => (input.type === 'own' ? nameOf(input.signed.message) : input.type)),
      ['prepare 0/1'],
      'and the core may count it',
    );
  }
});

t.test('a vote that waited for the disk until it was of no use is not signed', async (t) => {
  const stage = await Stage.open(t);
  const { say, speaker } = stage.speaker(t);
  const blocks = Array.from({ length: 9 }, () => stage.solo.block());
  const [one, two, three, four, five, six] = blocks as [Block, Block, Block, Block, Block, Block];
  const prepare = (block: Block, view = 0) => vote('prepare', block, view);
  const checkpoint: CheckpointVote = {
    kind: 'checkpoint',
    epoch,
    height: asHeight(1),
    hash: one.hash,
    logRoot: other(1),
    memberSetHash: other(2),
    stateDigest: other(3),
  };
  /** What is said of all that waited while a first vote was written. */
  const afterWaiting = async (first: Out['pledges'], ...waiting: Partial<Out>[]): Promise<string[]> => {
    const before = stage.network.sent.length;
    const batches = stage.guard.batches.length;
    stage.guard.slow = true;
    say({ pledges: first });
    await until('the write', () => stage.guard.batches.length > batches);
    for (const ready of waiting) say(ready);
    stage.guard.slow = false;
    stage.guard.release();
    await speaker.flush();
    return stage.network.names.slice(before);
  };
  const held = pledged(prepare(one)).pledges;
  const certificate = null;

  t.strictSame(
    await afterWaiting(held, pledged(prepare(two), vote('commit', one), checkpoint), pledged(prepare(three)), {
      deliver: [
        { block: one, certificate },
        { block: two, certificate },
      ],
      ...pledged(prepare(four)),
    }),
    ['prepare 0/1', 'checkpoint 1', 'prepare 0/3', 'prepare 0/4'],
    'up to what was decided; what the disk had begun with is said',
  );
  t.strictSame(
    await afterWaiting(held, pledged(prepare(five), vote('commit', four)), pledged(viewChange(1))),
    ['prepare 0/1', 'view-change 1'],
    'of the view that is given up',
  );
  t.strictSame(
    await afterWaiting(pledged(prepare(five, 1)).pledges, pledged(prepare(six, 1)), {
      events: [{ type: 'view-entered', view: asView(2), primary: asReplicaId(2) }],
      ...pledged(prepare(six, 2)),
    }),
    ['prepare 1/5', 'prepare 2/6'],
    'of the view that others have left',
  );
  t.strictSame(
    await afterWaiting(pledged(prepare(six, 2)).pledges, pledged(prepare(blocks[6]!, 2), prepare(blocks[8]!, 2)), {
      events: [{ type: 'checkpoint-installed', height: asHeight(8) }],
    }),
    ['prepare 2/6', 'prepare 2/9'],
    'of heights that a state from peers covers',
  );
  t.equal(stage.trace.filter((event) => event === 'signed prepare 0/2').length, 0);
});

t.test('flush leaves nothing unwritten and nothing unsaid', async (t) => {
  const stage = await Stage.open(t);
  const { say, speaker } = stage.speaker(t);
  const [one, two, three] = [1, 2, 3].map(() => stage.solo.block()) as [Block, Block, Block];
  await speaker.flush();
  t.strictSame(stage.trace, [], 'where there is nothing it is over');

  // Records that no vote waits for wait for company; and what comes while they are written waits for them.
  stage.slowDisk = true;
  const saidAt = performance.now();
  say({ records: [stored(one)] });
  await turns();
  if (performance.now() - saidAt < LAZY_WRITE_MS_MAX / 2) t.strictSame(stage.trace, []);
  let flushed = false;
  const flushing = speaker.flush().then(() => {
    flushed = true;
  });
  await until('the first write', () => stage.writing);
  say({ records: [stored(two)] });
  stage.finish();
  await until('the second write', () => stage.writing);
  t.strictSame([flushed, speaker.waiting], [false, 0], 'it is not over before that');
  stage.finish();
  await flushing;
  t.equal(stage.trace.filter((event) => event === 'log done').length, 2);
  stage.slowDisk = false;

  // A commit needs no record: its certificate is the guard's to keep. The primary's lead neither.
  const lock = stage.solo.certificate('prepare', three);
  say({ lock, ...pledged(vote('commit', three)) });
  await speaker.flush();
  t.strictSame(stage.network.names, ['commit 0/3']);
  t.same(stage.guard.batches.at(-1)?.lock, encodeCertificate(lock), 'with the certificate');
  say({ lead: asView(3) });
  await speaker.flush();
  t.equal(stage.trace.at(-1), 'lead');
});

t.test(
  'after a failed write, or a broken invariant, nothing is signed and nothing is sent (LOG-12, GRD-14, GEN-1)',
  async (t) => {
    for (const what of [
      'the log fails',
      'the log fails, the guard is done after it',
      'the guard fails',
      'the guard fails, the log is done after it',
      'an invariant breaks, both are done after it',
    ]) {
      const stage = await Stage.open(t);
      const core = new TestCore();
      const replica = stage.replica(t, core);
      await turns();
      const fatal: string[] = [];
      replica.subscribe({ fatal: (error) => fatal.push(error.message) });
      const block = stage.solo.block();
      stage.slowDisk = true;
      stage.guard.slow = true;
      core.answer = () => ({
        send: [{ to: 'all', message: status() }],
        records: [stored(block)],
        ...pledged(vote('prepare', block)),
      });
      replica.frame(asReplicaId(1), stage.frame(1, status()));
      await until('both writes', () => stage.trace.includes('guard begins') && stage.writing);
      const sent = stage.network.sent.length;
      if (what.startsWith('the log')) stage.finish('fail');
      if (what.startsWith('the guard')) stage.guard.release(new Error('guard-poisoned'));
      if (what.startsWith('an invariant')) {
        core.answer = () => {
          throw new InvariantViolation('broken');
        };
        replica.frame(asReplicaId(1), stage.frame(1, status()));
      }
      await until('the end', () => replica.fatal !== null);
      if (what.endsWith('after it')) {
        stage.guard.release();
        stage.finish();
      }
      await turns();
      const calls = core.steps.length;
      for (let i = 0; i < 3; i++) replica.frame(asReplicaId(1), stage.frame(1, status(i)));
      replica.connected(asReplicaId(2));
      await turns();
      t.equal(fatal.length, 1, `${what}: said once`);
      t.notOk(
        stage.trace.some((event) => event.startsWith('signed')),
        what,
      );
      t.equal(stage.network.sent.length, sent, `${what}: nothing leaves`);
      t.equal(core.steps.length, calls, `${what}: no step either`);
      await replica.drain();
      t.equal(stage.network.sent.length, sent, `${what}: nor at the end`);
    }
  },
);

t.test('REC-9, ACC-2: evidence that was found in the step that stops a replica is kept', async (t) => {
  const stage = await Stage.open(t);
  const core = new TestCore();
  const replica = stage.replica(t, core);
  await turns();
  const [first, second] = [stage.solo.block(), stage.solo.block()].map((block) => said(2, vote('prepare', block)));
  core.answer = () => {
    core.found = [{ culprit: asReplicaId(2), first: first!, second: second! }];
    throw new InvariantViolation('guard-behind: as told');
  };
  replica.frame(asReplicaId(1), stage.frame(1, status()));
  await until('the end', () => replica.fatal !== null);
  t.strictSame(stage.evidence, core.found);
});

t.test(
  'what the guard refuses is not said, the core hears of it, and the rest stands (PBFT-VC-5, GRD-17)',
  async (t) => {
    const stage = await Stage.open(t);
    const { say, back, speaker } = stage.speaker(t);
    const [one, two] = [stage.solo.block(), stage.solo.block()];
    stage.guard.refuses = (pledge) => pledge.kind === 'prepare' && pledge.height === 2;
    say(pledged(vote('prepare', one), vote('prepare', two), vote('commit', one)));
    await speaker.flush();
    t.strictSame(stage.network.names, ['prepare 0/1', 'commit 0/1']);
    const heard = () =>
      back.splice(0).map((input) => {
        if (input.type === 'own') return `own ${nameOf(input.signed.message)}`;
        return input.type === 'refused' ? `refused ${nameOf(input.pledge)}` : input.type;
      });
    t.strictSame(heard(), ['own prepare 0/1', 'own commit 0/1', 'refused prepare 0/2']);

    // A proposal that contradicts: its own prepare, promised beside it, is refused as well.
    for (const code of ['guard-conflict', 'guard-view-burned'] as const) {
      stage.guard.refusesProposals = code;
      say({
        send: [{ to: 'all', message: proposal(two) }],
        pledges: [{ pledge: vote('prepare', two), broadcast: false }],
      });
      await speaker.flush();
      t.strictSame(stage.network.names, ['prepare 0/1', 'commit 0/1'], 'it does not leave');
      t.strictSame(heard(), ['refused prepare 0/2']);
    }
    stage.guard.refusesProposals = 'guard-not-leading';
    t.throws(
      () => say({ send: [{ to: 'all', message: proposal(two) }] }),
      { code: 'guard-not-leading' },
      'that is a bug',
    );
  },
);
