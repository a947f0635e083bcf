// `synod why`: what a replica, or a network, waits for, and the smallest thing that helps. Each door gives its explain() as data
// (/v1/why); the diagnosis and its words are made here, so that several answers can be put together.

import { Command } from 'commander';
import { z } from 'zod';
import { type Explanation, phases, waitKinds } from '../../protocol/core.ts';
import { byzantineQuorums, crashQuorums } from '../../protocol/quorum.ts';
import { asReplicaId, type ReplicaId } from '../../protocol/types.ts';
import { printable } from '../transport/log.ts';
import type { Cause, Diagnosis, Report } from '../why/diagnosis.ts';
import { diagnose } from '../why/diagnosis.ts';
import { type Asked, diagnoseNetwork, type NetworkDiagnosis, networkSpeech } from '../why/network.ts';
import {
  actionWords,
  causeWords,
  counted,
  headline,
  named,
  networkHeadline,
  peerWords,
  type Speech,
  speechOf,
  standingWords,
  waitWords,
} from '../why/words.ts';
import { addDoorOptions, type Door, type DoorOptions, type Doors, findDoors, problemWords } from './doors.ts';
import { EXIT } from './errors.ts';
import { paletteFor, writeLine } from './output.ts';
import { fetchAnswer } from './replica-http.ts';

export function whyCommand(): Command {
  const command = new Command('why').description('why nothing is ordered, or that all is well').addHelpText(
    'after',
    `
Says in what state a replica is, what it waits for, on whom, since when, and the smallest thing that helps. Of several replicas: what
is wrong with the network first, then who stands elsewhere. Asks HTTP doors only. Codes in brackets are stable: docs/operations.md.
Exit code 0: healthy. 1: not, or not known since nobody answers.

Examples:
  $ synod why --network net
  $ synod why --config /etc/synod/config.json
  $ synod why --http http://10.0.0.1:8000 --http http://10.0.0.2:8000 --json`,
  );
  return addDoorOptions(command).action(why);
}

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const time = z.int().min(-Number.MAX_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER);
const id = z.int().min(0).max(127);
const ids = z.array(id).max(128);
const word = z.string().max(64);
const progress = z.object({ have: count, need: count }).nullable();

/** As protocol/core.ts has it; hashes in hex. From outside: every list and text has its bound. */
const stall = z.object({ at: time, ms: count }).nullable();

const explanationSchema = z.object({
  at: time,
  epoch: count,
  view: count,
  primary: id,
  self: id,
  phase: z.enum(phases),
  height: count,
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  stable: count,
  highestSeen: count,
  pool: z.object({ bundles: count, bytes: count }),
  inFlight: count,
  waits: z
    .array(
      z.object({
        what: z.enum(waitKinds),
        height: count,
        view: count,
        have: count,
        need: count,
        missing: ids,
        since: time,
      }),
    )
    .max(512),
  viewChanges: count,
  timeoutMs: count,
  baseTimeoutMs: count,
  quorum: count,
  window: count,
  catchUp: z
    .object({
      since: time,
      what: z.enum(['blocks', 'checkpoint', 'state']),
      asked: ids,
      passedOver: ids,
      chunks: progress,
    })
    .nullable(),
  clock: z.object({ height: count, offMs: time }).nullable(),
  pace: z
    .object({
      percent: count.max(100),
      lateMs: count,
      lateMsMax: count,
      allowedMs: count,
      roundMs: count.nullable(),
      owedSince: time.nullable(),
    })
    .nullable(),
  stalls: z.object({ ms: count, msMax: count, loop: stall, disk: stall, loopMs: count, diskMs: count }),
  peers: z
    .array(
      z.object({
        replica: id,
        connected: z.boolean(),
        height: count,
        view: count,
        heardAt: time.nullable(),
        heard: word.nullable(),
      }),
    )
    .max(127),
});

const whySchema = z.object({
  replica: z.object({ replica: id, name: word }),
  chain: z.object({ name: word, chainId: z.string().regex(/^[0-9a-f]{64}$/), members: z.array(word).min(3).max(128) }),
  draining: z.boolean(),
  writingMs: count,
  explanation: explanationSchema,
});

/** One door and what came of asking it. */
interface Reached {
  readonly door: Door;
  readonly chain: { readonly chainId: string; readonly members: readonly string[] } | null;
  readonly self: ReplicaId | null;
  readonly report: Report | null;
  /** Why there is no report. */
  readonly problem: string | null;
}

async function why(options: DoorOptions): Promise<void> {
  const doors = findDoors(options);
  const reached = await Promise.all(doors.doors.map((door) => ask(door, doors, options.timeout)));
  const members = doors.members ?? reached.find(({ chain }) => chain !== null)?.chain?.members ?? null;
  const isOne = reached.length === 1;
  const healthy =
    isOne || members === null
      ? await tellOne(reached, options)
      : await tellNetwork(checkedChain(reached), members, options);
  if (!healthy) process.exitCode = EXIT.failure;
}

async function ask(door: Door, { chainId, members }: Doors, timeout: number): Promise<Reached> {
  const failed = (problem: string): Reached => ({ door, chain: null, self: null, report: null, problem });
  if (door.http === null) return failed('no-door');
  const answer = await fetchAnswer(`${door.http}/v1/why`, timeout);
  if ('problem' in answer) return failed(answer.problem);
  const parsed = whySchema.safeParse(answer.json);
  if (!parsed.success) return failed('not-synod');
  const { replica, chain, draining, writingMs, explanation } = parsed.data;
  const isSound = explanation.self === replica.replica && explanation.peers.length === chain.members.length - 1;
  const inRange = [explanation.primary, explanation.self, ...explanation.peers.map((peer) => peer.replica)];
  if (!isSound || inRange.some((each) => each >= chain.members.length)) return failed('not-synod');
  if (chainId !== null && chain.chainId !== chainId) return failed('other-chain');
  if (members !== null && members[replica.replica] !== door.name) return failed('other-replica');
  // The cast: numbers and hex become the core's own types, which differ in name only; nothing here signs or orders by them.
  const report = { explanation: explanation as unknown as Explanation, draining, writingMs };
  return { door, chain, self: asReplicaId(replica.replica), report, problem: null };
}

/** Asked by address alone: all must be of the network that the first one is of. */
function checkedChain(reached: readonly Reached[]): readonly Reached[] {
  const chainId = reached.find(({ chain }) => chain !== null)?.chain?.chainId;
  return reached.map((each) =>
    each.chain === null || each.chain.chainId === chainId
      ? each
      : { ...each, self: null, report: null, problem: 'other-chain' },
  );
}

const nameIn =
  (members: readonly string[]): Speech['nameOf'] =>
  (replica) =>
    printable(members[replica] ?? `replica ${replica}`);

const doorName = ({ door }: Reached): string => printable(door.name ?? door.http ?? 'replica');

const unreachedWords = (each: Reached): string =>
  `${doorName(each)} cannot be reached${each.door.http === null ? '' : ` at ${printable(each.door.http)}`}: ${problemWords(each.problem ?? '')} [${each.problem}]`;

// ---- one replica --------------------------------------------------------------------------------------------------------

async function tellOne(reached: readonly Reached[], { json }: DoorOptions): Promise<boolean> {
  const results = reached.map((each) => ({ each, diagnosis: each.report === null ? null : diagnose(each.report) }));
  for (const { each, diagnosis } of results) {
    if (json === true) await writeLine(JSON.stringify(oneForm(each, diagnosis)));
    else for (const line of oneLines(each, diagnosis)) await writeLine(line);
  }
  return results.every(({ diagnosis }) => diagnosis !== null && diagnosis.causes.length === 0);
}

function oneForm(each: Reached, diagnosis: Diagnosis | null) {
  const { report, chain, problem } = each;
  if (report === null || chain === null || diagnosis === null) return unreachedForm(each);
  const { explanation, draining } = report;
  const speech = speechOf(explanation, chain.members);
  return {
    replica: speech.nameOf(explanation.self),
    http: each.door.http,
    reached: true,
    problem,
    healthy: diagnosis.causes.length === 0,
    ready: diagnosis.ready,
    state: diagnosis.state,
    words: headline(diagnosis, explanation, speech),
    causes: diagnosis.causes.map((cause) => causeForm(cause, speech)),
    action: actionForm(diagnosis.action, speech),
    waits: explanation.waits.map((wait) => waitWords(wait, speech)),
    heard: explanation.peers.map((peer) => peerWords(peer, speech)),
    draining,
    explanation,
  };
}

const unreachedForm = (each: Reached) => ({
  replica: each.door.name,
  http: each.door.http,
  reached: false,
  problem: each.problem,
  healthy: false,
  ready: false,
  state: 'unreachable',
  words: unreachedWords(each),
});

function causeForm(cause: Cause, speech: Speech) {
  return { ...cause, who: cause.who.map(speech.nameOf), words: causeWords(cause, speech) };
}

function actionForm(action: Diagnosis['action'], speech: Speech) {
  return action === null ? null : { ...action, who: action.who.map(speech.nameOf), words: actionWords(action, speech) };
}

function oneLines(each: Reached, diagnosis: Diagnosis | null): string[] {
  const { red, yellow, green, dim } = paletteFor(process.stdout);
  const { report, chain } = each;
  if (report === null || chain === null || diagnosis === null) return [red(unreachedWords(each)), ...startIt(each)];
  const { explanation } = report;
  const speech = speechOf(explanation, chain.members);
  const self = speech.nameOf(explanation.self);
  const [first, ...more] = diagnosis.causes;
  if (first === undefined) return [green(`${self}: ${headline(diagnosis, explanation, speech)}`)];
  const paint = diagnosis.ready ? yellow : red;
  const { pool, inFlight } = explanation;
  return [
    paint(`${self}: ${headline(diagnosis, explanation, speech)} [${first.code}]`),
    ...more.map((cause) => paint(`  also: ${causeWords(cause, speech)} [${cause.code}]`)),
    `  stands ${standingWords(explanation, speech)}, ${counted(pool.bundles, 'bundle')} in the pool, ${counted(inFlight, 'block')} in flight`,
    ...explanation.waits.map((wait) => `  waits: ${waitWords(wait, speech)}`),
    ...explanation.peers.map((peer) => dim(`  heard: ${peerWords(peer, speech)}`)),
    ...(diagnosis.action === null ? [] : [`  do: ${actionWords(diagnosis.action, speech)}`]),
  ];
}

const startIt = (each: Reached): string[] =>
  each.problem === 'econnrefused'
    ? [`  do: start ${doorName(each)}, or look where its door is: http in its config`]
    : [];

// ---- a network ----------------------------------------------------------------------------------------------------------

async function tellNetwork(
  reached: readonly Reached[],
  members: readonly string[],
  { json }: DoorOptions,
): Promise<boolean> {
  const asked = reached.flatMap((each): Asked[] => {
    const replica = each.self ?? indexOf(members, each.door.name);
    return replica === null ? [] : [{ replica, report: each.report }];
  });
  // As those say who answer: a genesis document need not be at hand.
  const said = asked.flatMap(({ report }) => (report === null ? [] : [report.explanation.quorum]))[0];
  const { quorum: guessed } = (members.length < 4 ? crashQuorums : byzantineQuorums)(members.length);
  const quorum = said ?? guessed;
  const network = diagnoseNetwork({ members: members.length, quorum, asked });
  const speech = networkSpeech(asked, nameIn(members));
  // Asked by an address where nobody says who it is.
  const nameless = reached.filter((each) => each.self === null && indexOf(members, each.door.name) === null).length;
  const first = network.causes[0]?.cause ?? null;
  const told = networkHeadline(network.state, first, furthest(asked), speech);
  const whole: Whole = {
    network,
    asked,
    speech,
    healthy: first === null && nameless === 0,
    words:
      nameless === 0
        ? told
        : `${counted(nameless, 'door')} of ${reached.length} cannot be reached; the others: ${told}`,
  };
  if (json === true) await writeLine(JSON.stringify(networkForm(whole, reached)));
  else for (const line of networkLines(whole, reached, members)) await writeLine(line);
  return whole.healthy;
}

interface Whole {
  readonly network: NetworkDiagnosis;
  readonly asked: readonly Asked[];
  readonly speech: Speech;
  readonly healthy: boolean;
  readonly words: string;
}

function networkForm({ network, speech, healthy, words }: Whole, reached: readonly Reached[]) {
  return {
    healthy,
    state: network.state,
    words,
    causes: network.causes.map(({ cause, by }) => ({ ...causeForm(cause, speech), by: by.map(speech.nameOf) })),
    action: actionForm(network.action, speech),
    differing: network.differing.map(speech.nameOf),
    replicas: reached.map((each) => oneForm(each, each.report === null ? null : diagnose(each.report))),
  };
}

function networkLines(whole: Whole, reached: readonly Reached[], members: readonly string[]): string[] {
  const { network, asked, speech, healthy, words } = whole;
  const { red, yellow, green } = paletteFor(process.stdout);
  const stops = network.state === 'stopped' || network.state === 'unreachable' || network.state === 'view-change';
  const paint = healthy ? green : stops ? red : yellow;
  const [first, ...more] = network.causes;
  const codeOf = (said: Said) => `[${said.cause.code}]${saidBy(said, asked, speech)}`;
  return [
    paint(first === undefined ? words : `${words} ${codeOf(first)}`),
    ...more.map((said) => paint(`  also: ${causeWords(said.cause, speech)} ${codeOf(said)}`)),
    ...(network.action === null ? [] : [`  do: ${actionWords(network.action, speech)}`]),
    ...reached.flatMap((each) => {
      if (each.report === null) return [`  ${unreachedWords(each)}`];
      const differs = !healthy && each.self !== null && network.differing.includes(each.self);
      return differs ? [`  ${differenceLine(each.report, members)}`] : [];
    }),
  ];
}

const indexOf = (members: readonly string[], name: string | null): ReplicaId | null => {
  const index = name === null ? -1 : members.indexOf(name);
  return index < 0 ? null : asReplicaId(index);
};

/** Who says so, where not all who answer do. */
type Said = NetworkDiagnosis['causes'][number];

function saidBy({ cause, by }: Said, asked: readonly Asked[], speech: Speech): string {
  const answering = asked.filter(({ report }) => report !== null).length;
  // What it says of itself needs no witness.
  return by.length >= answering || by.every((replica) => cause.who.includes(replica))
    ? ''
    : ` (${by.length === 1 ? 'says' : 'say'} ${named(by, speech)})`;
}

function furthest(asked: readonly Asked[]): Explanation | null {
  const all = asked.flatMap(({ report }) => (report === null ? [] : [report.explanation]));
  return all.reduce<Explanation | null>((a, b) => (a === null || b.height > a.height ? b : a), null);
}

function differenceLine(report: Report, members: readonly string[]): string {
  const { explanation } = report;
  const speech = speechOf(explanation, members);
  const diagnosis = diagnose(report);
  return `${speech.nameOf(explanation.self)}: ${standingWords(explanation, speech)}, ${headline(diagnosis, explanation, speech)}`;
}
