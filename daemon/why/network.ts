// What is wrong with a network, from what several of its replicas say about themselves. What one of them blames on another is left out
// where the other says itself what it lacks: the first cause remains. Data in, data out.

import type { Explanation } from '../../protocol/core.ts';
import type { Millis, ReplicaId } from '../../protocol/types.ts';
import { asReplicaId, plus } from '../../protocol/types.ts';
import type { Action, Cause, CauseCode, Diagnosis, ReplicaCause, ReplicaState, Report } from './diagnosis.ts';
import { actionFor, actionOf, answers, diagnose, earliestOf, isBetweenViews, latestOf } from './diagnosis.ts';
import type { Speech } from './words.ts';

/** A replica that was asked; null: it gave no answer. */
export interface Asked {
  readonly replica: ReplicaId;
  readonly report: Report | null;
}

export interface NetworkDiagnosis {
  readonly state: 'idle' | 'ordering' | 'view-change' | 'stopped' | 'unreachable';
  /** By weight: what stops the network first. `by`: who says so; empty: it follows from all answers together. */
  readonly causes: readonly { readonly cause: Cause; readonly by: readonly ReplicaId[] }[];
  readonly action: Action | null;
  /** Each that was asked; null: no answer. */
  readonly replicas: readonly { readonly replica: ReplicaId; readonly diagnosis: Diagnosis | null }[];
  /** Who answered, and stands elsewhere than most: in another state, in another view, or by more than a window lower. */
  readonly differing: readonly ReplicaId[];
}

/** One that answered. Its times are moved to a common clock: all were asked at one moment. */
interface Witness {
  readonly replica: ReplicaId;
  readonly explanation: Explanation;
  readonly diagnosis: Diagnosis;
  /** Whom it hears, itself included. */
  readonly hears: ReadonlySet<ReplicaId>;
}

export function diagnoseNetwork({
  members,
  quorum,
  asked,
}: {
  readonly members: number;
  readonly quorum: number;
  readonly asked: readonly Asked[];
}): NetworkDiagnosis {
  const witnesses = witnessesOf(asked);
  const replicas = asked.map(({ replica }) => ({
    replica,
    diagnosis: witnesses.find((witness) => witness.replica === replica)?.diagnosis ?? null,
  }));
  if (witnesses.length === 0) {
    const cause: Cause = { code: 'unreachable', who: asked.map(({ replica }) => replica), since: null };
    return { state: 'unreachable', causes: [{ cause, by: [] }], action: actionFor(cause), replicas, differing: [] };
  }
  const all = Array.from({ length: members }, (_, id) => asReplicaId(id));
  const network = linksOf({ all, quorum, asked, witnesses });
  const own = ownCauses(witnesses, network);
  // [REC-1] [CHP-2] Before anything else: more than f without a vote stop a network, although all of them answer; and so does the lack of a working set.
  const first = own.filter(({ cause }) => firstCodes.includes(cause.code));
  const others = own.filter((each) => !first.includes(each));
  const set = first.find(({ cause }) => cause.code === 'working-set')?.cause.who ?? [];
  const links = network.causes.flatMap((cause) => lessAway(cause, set)).map((cause) => ({ cause, by: [] }));
  const causes = [...first, ...links, ...others];
  const main = witnesses.filter(({ replica }) => network.inQuorum.has(replica));
  return {
    state: network.stopped || set.length > 0 ? 'stopped' : stateOf(main, quorum),
    causes,
    action: actionOf(causes.map(({ cause }) => cause)),
    replicas,
    differing: differing(witnesses),
  };
}

const firstCodes: readonly CauseCode[] = ['quarantine', 'working-set'];

/** Whom the lack of a working set names is away for a better reason to start it. */
function lessAway(cause: Cause, set: readonly ReplicaId[]): Cause[] {
  if (cause.code !== 'member-away') return [cause];
  const who = cause.who.filter((id) => !set.includes(id));
  return who.length === 0 && cause.who.length > 0 ? [] : [{ ...cause, who }];
}

function witnessesOf(asked: readonly Asked[]): Witness[] {
  const reports = asked.flatMap(({ replica, report }) => (report === null ? [] : [{ replica, report }]));
  const latest = Math.max(...reports.map(({ report }) => report.explanation.at));
  return reports.map(({ replica, report }) => {
    const explanation = moved(report.explanation, latest - report.explanation.at);
    const heard = explanation.peers.filter((peer) => answers(explanation, peer)).map((peer) => peer.replica);
    const diagnosis = diagnose({ ...report, explanation });
    return { replica, explanation, diagnosis, hears: new Set([replica, ...heard]) };
  });
}

function moved(explanation: Explanation, by: number): Explanation {
  const { at, waits, peers, catchUp } = explanation;
  return {
    ...explanation,
    at: plus.millis(at, by),
    waits: waits.map((wait) => ({ ...wait, since: plus.millis(wait.since, by) })),
    peers: peers.map((peer) => ({ ...peer, heardAt: peer.heardAt === null ? null : plus.millis(peer.heardAt, by) })),
    catchUp: catchUp === null ? null : { ...catchUp, since: plus.millis(catchUp.since, by) },
  };
}

// ---- who runs, and who hears whom -------------------------------------------------------------------------------------

interface Links {
  readonly causes: readonly Cause[];
  /** Nothing can be ordered. */
  readonly stopped: boolean;
  /** Nobody hears these, or they hear no quorum: what others lack from them needs no further cause. */
  readonly out: ReadonlySet<ReplicaId>;
  readonly inQuorum: ReadonlySet<ReplicaId>;
}

function linksOf({
  all,
  quorum,
  asked,
  witnesses,
}: {
  readonly all: readonly ReplicaId[];
  readonly quorum: number;
  readonly asked: readonly Asked[];
  readonly witnesses: readonly Witness[];
}): Links {
  const answered = new Set(witnesses.map(({ replica }) => replica));
  const isHeard = (id: ReplicaId) => witnesses.some(({ replica, hears }) => replica !== id && hears.has(id));
  const down = all.filter((id) => !answered.has(id) && !isHeard(id));
  const hidden = all.filter((id) => !answered.has(id) && isHeard(id));
  const up = all.length - down.length;
  const count = { have: up, need: quorum, of: all.length };
  const causes: Cause[] = [];
  const silentDoors = hidden.filter((id) => asked.some(({ replica }) => replica === id));
  const inQuorum = new Set(witnesses.filter(({ hears }) => hears.size >= quorum).map(({ replica }) => replica));
  const stranded = witnesses.filter(({ replica }) => !inQuorum.has(replica));
  const out = new Set([...down, ...stranded.map(({ replica }) => replica)]);
  const isSplit = inQuorum.size + hidden.length < quorum;
  const voteless = witnesses.filter(
    ({ replica, diagnosis }) => inQuorum.has(replica) && diagnosis.state === 'quarantine',
  );
  const stopped = up < quorum || inQuorum.size + hidden.length - voteless.length < quorum;
  if (up < quorum) {
    causes.push({ code: 'no-quorum', who: down, since: silentSince(down, witnesses, quorum - up), ...count });
  } else if (isSplit) {
    const groups = groupsOf(witnesses);
    const largest = groups[0] ?? [];
    const who = groups.slice(1).flat().sort(byId);
    causes.push({ code: 'split', who: who.length > 0 ? who : largest, groups, since: lostSince(stranded), ...count });
  } else if (stranded.length > 0) {
    const who = stranded.map(({ replica }) => replica).sort(byId);
    causes.push({ code: 'cut-off', who, since: lostSince(stranded), ...count, have: inQuorum.size + hidden.length });
  }
  if (up >= quorum && down.length > 0)
    causes.push({ code: 'member-away', who: down, since: silentSince(down, witnesses, 1), ...count });
  if (silentDoors.length > 0) causes.push({ code: 'door-silent', who: silentDoors, since: null });
  const pairs = up < quorum || isSplit ? [] : brokenPairs(witnesses.filter(({ replica }) => inQuorum.has(replica)));
  if (pairs.length > 0)
    causes.push({ code: 'link-down', who: [...new Set(pairs.flat())].sort(byId), since: null, pairs });
  return { causes, stopped, out, inQuorum };
}

/** When the `nth` last of them fell silent; null: it was never heard. */
function silentSince(who: readonly ReplicaId[], witnesses: readonly Witness[], nth: number): Millis | null {
  const times = who.map((id) => lastHeardBy(witnesses, id));
  return times.sort((a, b) => (b ?? 0) - (a ?? 0))[nth - 1] ?? null;
}

function lastHeardBy(witnesses: readonly Witness[], id: ReplicaId): Millis | null {
  const times = witnesses.flatMap(({ explanation }) => {
    const heardAt = explanation.peers.find(({ replica }) => replica === id)?.heardAt ?? null;
    return heardAt === null ? [] : [heardAt];
  });
  return latestOf(times);
}

/** Since when these lack a quorum: what the first of them says. */
function lostSince(witnesses: readonly Witness[]): Millis | null {
  const times = witnesses.flatMap(({ diagnosis }) =>
    diagnosis.causes.flatMap(({ code, since }) => (code === 'no-quorum' && since !== null ? [since] : [])),
  );
  return earliestOf(times);
}

const hearEachOther = (a: Witness, b: Witness): boolean => a.hears.has(b.replica) && b.hears.has(a.replica);

/** Those that hear each other, directly or through others; the largest group first. */
function groupsOf(witnesses: readonly Witness[]): ReplicaId[][] {
  const left = new Set(witnesses);
  const groups: ReplicaId[][] = [];
  for (const first of witnesses) {
    if (!left.delete(first)) continue;
    const group = [first];
    for (const member of group)
      for (const other of left)
        if (hearEachOther(member, other)) {
          left.delete(other);
          group.push(other);
        }
    groups.push(group.map(({ replica }) => replica).sort(byId));
  }
  return groups.sort((a, b) => b.length - a.length);
}

function brokenPairs(witnesses: readonly Witness[]): [ReplicaId, ReplicaId][] {
  return witnesses.flatMap((a, index) =>
    witnesses
      .slice(index + 1)
      .filter((b) => !hearEachOther(a, b))
      .map((b): [ReplicaId, ReplicaId] => [a.replica, b.replica]),
  );
}

// ---- what they say of themselves and of each other --------------------------------------------------------------------

/** Told of the links better than any of them can. */
const linkCodes: readonly CauseCode[] = ['no-quorum', 'member-away'];
/** What a replica has by itself, whatever the others do. */
const selfCodes: readonly CauseCode[] = ['draining', 'quarantine', 'disk-slow', 'stalled', 'clock-off'];
/** Whoever has one of these cannot vote or propose. */
const lackingCodes: readonly CauseCode[] = [...selfCodes, 'catching-up', 'behind'];

function ownCauses(witnesses: readonly Witness[], links: Links): { cause: Cause; by: ReplicaId[] }[] {
  const { stopped, out, inQuorum } = links;
  const isLed = witnesses.some(({ replica, explanation }) => inQuorum.has(replica) && !isBetweenViews(explanation));
  const found = new Map<string, { cause: Cause; by: ReplicaId[] }>();
  for (const witness of witnesses)
    for (const cause of witness.diagnosis.causes) {
      if (linkCodes.includes(cause.code)) continue;
      if (cause.code === 'working-set' && isLed) continue;
      if (isElection(cause) && isFollowing(cause, witness, witnesses, links)) continue;
      const isOwn = selfCodes.includes(cause.code);
      if (!isOwn && (stopped || out.has(witness.replica))) continue;
      const isWhole = isOwn || cause.code === 'working-set'; // one of it is enough, and it may be down
      const who = isWhole ? cause.who : cause.who.filter((id) => !out.has(id) && !isExplained(cause, id, witnesses));
      if (who.length === 0 && cause.who.length > 0 && !isElection(cause)) continue;
      if (cause.code === 'view-change' && who.length === 0 && somebodyLacks(witnesses)) continue;
      const key = keyOf(cause, who);
      const before = found.get(key);
      if (before === undefined) found.set(key, { cause: { ...cause, who }, by: [witness.replica] });
      else {
        before.cause = { ...before.cause, ...merged(before.cause, { who, since: cause.since }) };
        before.by.push(witness.replica);
      }
    }
  return [...found.values()].sort((a, b) => b.by.length - a.by.length);
}

const isStage = (cause: Cause, ...stages: readonly string[]): boolean =>
  cause.code === 'view-change' && stages.includes(cause.stage);
const isRunning = (cause: Cause): boolean => isStage(cause, 'promise', 'vote');
/** Of a replica without a leader, where members are trusted. */
const isElection = (cause: Cause): boolean => isRunning(cause) || isStage(cause, 'leader');

/** [WHY-4] Who is named for a link that is down lacks its leader for that; and who waits for one need not say so where another runs. */
function isFollowing(cause: Cause, { replica }: Witness, witnesses: readonly Witness[], { causes }: Links): boolean {
  if (causes.some(({ code, who }) => code === 'link-down' && who.includes(replica))) return true;
  if (witnesses.some(({ diagnosis }) => diagnosis.causes.some(({ code }) => code === 'working-set'))) return true;
  const isWaiting = isStage(cause, 'leader') && cause.who.length === 0;
  return isWaiting && witnesses.some(({ diagnosis }) => diagnosis.causes.some(isRunning));
}

/** [WHY-4] A view change that is under way and that nobody holds up: what a replica says that it lacks is the reason for it, or there will be none. */
const somebodyLacks = (witnesses: readonly Witness[]): boolean =>
  witnesses.some(({ diagnosis }) => diagnosis.causes.some(({ code }) => lackingCodes.includes(code)));

/** Equal but for when it was noticed; slow disks and wrong clocks are one cause, of several. */
function keyOf(cause: ReplicaCause, who: readonly ReplicaId[]): string {
  if (selfCodes.includes(cause.code) && cause.code !== 'quarantine') return cause.code;
  // Fields that only some of them have.
  const some: { code: string; view?: number; height?: number; to?: number; phase?: string; stage?: string } = cause;
  const view = some.stage === 'leader' ? undefined : some.view; // each has another one that was last
  return [cause.code, who, view, some.height, some.to, some.phase, some.stage].join(' ');
}

function merged(
  before: Cause,
  { who, since }: Pick<Cause, 'who' | 'since'>,
): { who: readonly ReplicaId[]; since: Millis | null } {
  const earlier = before.since === null || (since !== null && since < before.since) ? since : before.since;
  return { who: [...new Set([...before.who, ...who])].sort(byId), since: earlier };
}

/** [WHY-4] Whether the one that is blamed says itself what it lacks. */
function isExplained(cause: ReplicaCause, blamed: ReplicaId, witnesses: readonly Witness[]): boolean {
  const other = witnesses.find(({ replica }) => replica === blamed);
  if (other === undefined) return false;
  const { causes } = other.diagnosis;
  const has = (...codes: readonly CauseCode[]) => causes.some(({ code }) => codes.includes(code));
  const asksInVain = causes.some((each) => each.code === 'view-change' && each.stage === 'asked');
  switch (cause.code) {
    case 'votes-missing':
      if (has(...lackingCodes, 'block-missing', 'proposal-missing', 'view-change')) return true;
      // Nobody commits what nobody has seen prepared.
      return (
        cause.phase === 'commit' && causes.some((each) => each.code === 'votes-missing' && each.phase === 'prepare')
      );
    case 'proposal-missing':
      return has(...lackingCodes, 'checkpoint-missing', 'view-change');
    case 'view-change':
      if (has(...lackingCodes)) return true;
      if (isStage(cause, 'leader')) return false;
      // Who runs itself, or follows a leader, does not vote.
      if (isRunning(cause)) return causes.some(isRunning) || !isBetweenViews(other.explanation);
      return asksInVain && (cause.stage === 'opening' || other.explanation.view < cause.view);
    case 'checkpoint-missing':
      return has(...lackingCodes);
    default:
      return false;
  }
}

// ---- the whole --------------------------------------------------------------------------------------------------------

function stateOf(main: readonly Witness[], quorum: number): 'idle' | 'ordering' | 'view-change' {
  const states = main.map(({ diagnosis }) => diagnosis.state);
  const between = states.filter((state) => state === 'view-change').length;
  if (between > 0 && states.length - between < quorum) return 'view-change';
  return states.includes('ordering') ? 'ordering' : 'idle';
}

function differing(witnesses: readonly Witness[]): ReplicaId[] {
  // Ordering and idle differ by a moment only.
  const kindOf = ({ state }: Diagnosis): ReplicaState => (state === 'idle' ? 'ordering' : state);
  const standing = ({ diagnosis, explanation }: Witness) => `${kindOf(diagnosis)} ${explanation.view}`;
  const counts = new Map<string, number>();
  for (const witness of witnesses) counts.set(standing(witness), (counts.get(standing(witness)) ?? 0) + 1);
  const usual = [...counts].sort(([, a], [, b]) => b - a)[0]?.[0];
  const highest = Math.max(...witnesses.map(({ explanation }) => explanation.height));
  return witnesses
    .filter(
      (witness) => standing(witness) !== usual || witness.explanation.height + witness.explanation.window < highest,
    )
    .map(({ replica }) => replica);
}

/** For sentences about the whole: ages from the common moment, each replica as whoever heard it last has it. */
export function networkSpeech(asked: readonly Asked[], nameOf: Speech['nameOf']): Speech {
  const witnesses = witnessesOf(asked);
  const at = witnesses[0]?.explanation.at;
  return {
    nameOf,
    at: at ?? (0 as Millis), // nobody answered: there is no age to tell
    heardAt: (id) =>
      at !== undefined && witnesses.some(({ replica }) => replica === id) ? at : lastHeardBy(witnesses, id),
  };
}

const byId = (a: ReplicaId, b: ReplicaId): number => a - b;
