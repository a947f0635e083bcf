// The words of a diagnosis: data in, text out. One sentence for each cause and each action, without its final stop; the codes stand
// beside them and are what programs read. [WHY-5] Names and kinds that came from elsewhere are made printable here.

import type { Explanation, PeerView } from '../../protocol/core.ts';
import type { Millis, ReplicaId } from '../../protocol/types.ts';
import { asReplicaId } from '../../protocol/types.ts';
import { printable } from '../transport/log.ts';
import type { Action, Cause, Diagnosis, ReplicaState } from './diagnosis.ts';
import { waitBetweenViews } from './diagnosis.ts';

/** What the sentences are made with. */
export interface Speech {
  nameOf(replica: ReplicaId): string;
  /** Ages are counted from here. */
  readonly at: Millis;
  /** When a replica was last heard by whoever says this; null: never. */
  heardAt(replica: ReplicaId): Millis | null;
}

export function speechOf(explanation: Explanation, names: readonly string[]): Speech {
  const { at, self, peers } = explanation;
  return {
    at,
    nameOf: (replica) => printable(names[replica] ?? `replica ${replica}`),
    heardAt: (replica) => (replica === self ? at : (peers.find((peer) => peer.replica === replica)?.heardAt ?? null)),
  };
}

const states: Record<ReplicaState, string> = {
  idle: 'idle',
  ordering: 'ordering',
  'view-change': 'between views',
  'catching-up': 'catching up',
  quarantine: 'in quarantine',
  'cut-off': 'cut off',
  draining: 'shutting down',
};

export const stateWords = (state: ReplicaState): string => states[state];

/** The one line that says how a replica is: `healthy`, or its first cause and what to do. */
export function headline(diagnosis: Diagnosis, explanation: Explanation, speech: Speech): string {
  const { state, causes, answering, members } = diagnosis;
  const first = causes[0];
  if (first !== undefined) return `${states[state]}: ${causeWords(first, speech)}`;
  return `healthy, ${states[state]} ${standingWords(explanation, speech)}; ${answering} of ${members} replicas answer`;
}

/** Where it stands: `at height 9 in view 2 under east`. */
export function standingWords(explanation: Explanation, speech: Speech): string {
  const { height, view, primary } = explanation;
  const between = waitBetweenViews(explanation);
  if (between === undefined) return `at height ${height} in view ${view} under ${speech.nameOf(primary)}`;
  return between.what === 'leader'
    ? `at height ${height}, without a leader`
    : `at height ${height}, asking for view ${between.view}`;
}

export function causeWords(cause: Cause, speech: Speech): string {
  const who = () => named(cause.who, speech);
  const lasting = cause.since === null ? '' : ` for ${age(speech.at - cause.since)}`;
  switch (cause.code) {
    case 'draining':
      return `${who()} is shutting down`;
    case 'quarantine': {
      const lost = `${who()} votes for nothing${lasting}, for what its key has signed is not known`;
      if (cause.stage === 'view') return `${lost}; it votes again when the others have entered view ${cause.view}`;
      return cause.stage === 'readmission'
        ? `${lost}; it votes again when block ${cause.height} is decided`
        : `${lost}; ${cause.have} of the ${cause.need} replicas that must say what they can prove have done so, missing ${named(cause.from, speech)}`;
    }
    case 'no-quorum':
      return `${cause.have} of ${cause.of} replicas answer, ${cause.need} are needed; ${lastHeard(cause.who, speech)}`;
    case 'working-set': {
      const any = named(cause.who, speech, 'or');
      const why = 'only the latest working set knows what was chosen';
      return cause.from.length === 0
        ? `nothing can be ordered${lasting} until ${any} is back: ${why}`
        : `nothing can be ordered${lasting} until ${any} promises: ${why}; ${named(cause.from, speech)} ${answer(cause.from)} and ${has(cause.from)} not promised`;
    }
    case 'view-change': {
      if (cause.stage === 'opening')
        return cause.who.length === 0
          ? `no view is active: view ${cause.view} is being opened${lasting}`
          : `no view is active: ${who()} has not opened view ${cause.view}${lasting}`;
      if (cause.stage !== 'asked') return electionWords(cause, lasting, speech);
      const short = `no view is active${lasting}: ${cause.have} of ${cause.of} replicas ask for view ${cause.view}, ${cause.need} are needed`;
      return cause.who.length === 0 ? short : `${short}; ${who()} ${answer(cause.who)} and ${has(cause.who)} not asked`;
    }
    case 'catching-up': {
      const asks = cause.from.length === 0 ? '' : `, asks ${named(cause.from, speech)}`;
      const gained = cause.since === null ? '' : `, gained something ${age(speech.at - cause.since)} ago`;
      return `${who()} is catching up: at height ${cause.height} of ${cause.to}${chunksOf(cause)}${asks}${gained}`;
    }
    case 'behind': {
      const stuck = `${who()} is behind: at height ${cause.height} of ${cause.to}${chunksOf(cause)}, and nothing has come${lasting}`;
      const ahead = `${answer(cause.from)} and ${cause.from.length === 1 ? 'is' : 'are'} ahead`;
      return cause.from.length === 0
        ? `${stuck}; nobody who is ahead answers`
        : `${stuck}; ${named(cause.from, speech)} ${ahead}`;
    }
    case 'block-missing': {
      const signed = cause.from.length === 0 ? '' : `; ${named(cause.from, speech)} signed for it`;
      return `${who()} lacks the certified block ${cause.height}${lasting}${signed}`;
    }
    case 'disk-slow':
      return cause.who.length === 1
        ? `the disk of ${who()} is slow: its ${own(cause)} is not durable${lasting}`
        : `the disks of ${who()} are slow: their votes are not durable${lasting}`;
    case 'clock-off': {
      const off = `${age(Math.abs(cause.offMs))} ${cause.offMs > 0 ? 'behind' : 'ahead of'}`;
      return `the clock of ${who()} is ${off} the proposal for block ${cause.height}, or the primary's is wrong`;
    }
    case 'votes-missing':
      return `block ${cause.height} has ${cause.have} of ${cause.of} ${cause.phase}s${lasting}, ${cause.need} are needed; ${who()} ${answer(cause.who)} and ${has(cause.who)} not ${cause.phase === 'promise' ? 'promised' : 'voted'}`;
    case 'proposal-missing':
      return `${counted(cause.bundles, 'bundle')} ${cause.bundles === 1 ? 'waits' : 'wait'}, and block ${cause.height} has not come from ${who()}, the primary,${lasting}`;
    case 'checkpoint-missing':
      return `nothing is proposed before the checkpoint at ${cause.height}, which has ${cause.have} of ${cause.of} signatures${lasting}, ${cause.need} are needed; ${who()} ${answer(cause.who)} and ${has(cause.who)} not signed`;
    case 'primary-silent':
      return `${who()}, the primary of view ${cause.view}, has not been heard${lasting}`;
    case 'primary-slow':
      return `${who()}, the primary of view ${cause.view}, orders ${cause.percent} % of what it could: it was late for ${age(cause.lateMs)}, and after ${age(cause.lateMsMax)} its replacement is asked for`;
    case 'stalled':
      return cause.what === 'disk'
        ? `the disk of ${who()} itself took ${age(cause.ms)}${ago(cause.since, speech)}: it blames nobody for that time`
        : `${who()} itself stood still for ${age(cause.ms)}${ago(cause.since, speech)} (event loop): it blames nobody for that time`;
    case 'member-away':
      return `${lastHeard(cause.who, speech)}; ${cause.have} of ${cause.of} answer, ${cause.have > cause.need ? `${cause.need} are needed` : 'so no other may fail'}`;
    case 'door-silent':
      return `the HTTP door of ${who()} does not answer, and the peers hear ${cause.who.length === 1 ? 'it' : 'them'}`;
    case 'cut-off':
      return `${who()} ${cause.who.length === 1 ? 'runs and does' : 'run and do'} not hear a quorum${lasting}; the others do, ${cause.have} of ${cause.of}`;
    case 'split': {
      const groups = cause.groups.map((group) => `{${named(group, speech)}}`).join(' ');
      return `${cause.have} of ${cause.of} replicas run, and no ${cause.need} of them hear each other${lasting}: ${groups}`;
    }
    case 'link-down':
      return cause.pairs
        .map(([a, b]) => `${speech.nameOf(a)} and ${speech.nameOf(b)} do not hear each other`)
        .join(', ');
    case 'unreachable':
      return `${who()} cannot be reached, so nothing is known of the network`;
  }
}

/** Where members are trusted: what a leader, or whoever would be one, waits for. */
function electionWords(
  { stage, who, view, have, need, of }: Extract<Cause, { code: 'view-change' }>,
  lasting: string,
  speech: Speech,
): string {
  const lack = (done: string) =>
    who.length === 0 ? '' : `; ${named(who, speech)} ${answer(who)} and ${has(who)} not ${done}`;
  const owner = speech.nameOf(asReplicaId(view % of));
  if (stage === 'noted')
    return `nothing new is ordered before the working set of view ${view} is noted by all of it, and by ${need} of ${of} replicas${lasting}: ${have} ${have === 1 ? 'has' : 'have'} done so${lack('noted it')}`;
  if (stage === 'leader') {
    const said = `${have} of ${of} replicas ${have === 1 ? 'says' : 'say'}`;
    if (who.length > 0)
      return `${named(who, speech)} hears no leader${lasting}, and others do: ${said} so, ${need} must for another to be elected`;
    const next = have >= need ? 'enough for one of them to run' : `${need} must for one to be elected`;
    return `no leader is heard${lasting}: ${said} so, ${next}`;
  }
  const [votes, done] = stage === 'vote' ? ['votes', 'voted'] : ['promises', 'promised'];
  return `no leader is elected: ${owner} runs in view ${view} and has ${have} of ${of} ${votes}${lasting}, ${need} are needed${lack(done)}`;
}

function own({ what, height, view }: Extract<Cause, { code: 'disk-slow' }>): string {
  switch (what) {
    case 'view-change':
      return `request for view ${view}`;
    case 'new-view':
      return `new-view for view ${view}`;
    case 'promise':
    case 'vote':
      return `${what} for view ${view}`;
    case 'phase-1':
      return `promise for block ${height}`;
    case 'noted':
      return `note of the working set of view ${view}`;
    case 'lead':
      return `mark that it leads view ${view}`;
    case 'write':
      return 'synced write';
    case 'checkpoint':
      return `signature on the checkpoint at ${height}`;
    default:
      return `${what} for block ${height}`;
  }
}

const chunksOf = ({ chunks }: Extract<Cause, { code: 'catching-up' | 'behind' }>): string =>
  chunks === null ? '' : ` (${chunks.have} of ${chunks.need} chunks of a checkpoint)`;

export function actionWords({ code, who, count }: Action, speech: Speech): string {
  const all = named(who, speech);
  const anyOf = count >= who.length ? all : count === 1 ? named(who, speech, 'or') : `any ${count} of ${all}`;
  switch (code) {
    case 'start':
      return `start ${anyOf}; where one runs already, it hangs or its network is broken`;
    case 'connect':
      return `mend the network between ${anyOf} and the others`;
    case 'look':
      return `look at the log of ${anyOf}`;
    case 'disk':
      return `look at the disk of ${all}: a vote leaves only when it is durable`;
    case 'clock':
      return `set the clock of ${all} (NTP)`;
    case 'submit':
      return 'submit transactions if none come by themselves: the blocks that they make bring its vote back';
    case 'wait':
      return 'nothing yet: it goes on by itself, or another cause will show';
  }
}

/** The same for a network: what is common to its replicas. `first`: the cause that weighs most; null: none. */
export function networkHeadline(
  state: 'idle' | 'ordering' | 'view-change' | 'stopped' | 'unreachable',
  first: Cause | null,
  /** That of the replica that is furthest; null: none answered. */
  explanation: Explanation | null,
  speech: Speech,
): string {
  if (first === null) {
    const where = explanation === null ? '' : ` ${standingWords(explanation, speech)}`;
    const members = explanation === null ? '' : `all ${explanation.peers.length + 1} replicas answer, `;
    return `healthy: ${members}${state === 'ordering' ? 'ordering' : 'idle'}${where}`;
  }
  const cause = causeWords(first, speech);
  if (state === 'unreachable' || first.code === 'working-set') return cause;
  return state === 'stopped' ? `nothing is ordered: ${cause}` : `${states[state]}, not healthy: ${cause}`;
}

/** What was last heard from one peer, and when. */
export function peerWords({ replica, connected, heardAt, heard, height, view }: PeerView, speech: Speech): string {
  const link = connected ? '' : ', not connected';
  if (heardAt === null) return `${speech.nameOf(replica)}: nothing was ever heard${link}`;
  const kind = printable(heard ?? 'a message');
  return `${speech.nameOf(replica)}: ${kind} ${age(speech.at - heardAt)} ago, at height ${height} in view ${view}${link}`;
}

const ofView: readonly string[] = ['view-change', 'new-view', 'lead', 'promise', 'vote', 'noted'];

export function waitWords(
  { what, height, view, have, need, missing, since }: Explanation['waits'][number],
  speech: Speech,
): string {
  const lasting = `for ${age(speech.at - since)}`;
  if (what === 'readmission') return `readmission: until block ${height} is decided, ${lasting}`;
  if (what === 'standing')
    return `standing: ${have} of ${need} answers needed, missing ${named(missing, speech)}, ${lasting}`;
  if (what === 'leader')
    return `leader: none is heard, as ${have} say and ${need} must, missing ${named(missing, speech)}, ${lasting}`;
  const where = ofView.includes(what) ? `view ${view}` : `block ${height}`;
  return `${what} for ${where}: ${have} of ${need} needed, missing ${named(missing, speech)}, ${lasting}`;
}

/** So many names are spelled out. */
const NAMES_MAX = 12;

export function named(
  who: readonly ReplicaId[],
  { nameOf }: Pick<Speech, 'nameOf'>,
  last: 'and' | 'or' = 'and',
): string {
  const names = who.slice(0, NAMES_MAX).map(nameOf);
  if (who.length > NAMES_MAX) names.push(`${who.length - NAMES_MAX} more`);
  const end = names.pop() ?? 'nobody';
  return names.length === 0 ? end : `${names.join(', ')} ${last} ${end}`;
}

function lastHeard(who: readonly ReplicaId[], speech: Speech): string {
  const texts = who.slice(0, NAMES_MAX).map((id) => {
    const at = speech.heardAt(id);
    return at === null
      ? `${speech.nameOf(id)} was never heard`
      : `${speech.nameOf(id)} was last heard ${age(speech.at - at)} ago`;
  });
  if (who.length > NAMES_MAX) texts.push(`${who.length - NAMES_MAX} more are away`);
  return texts.join(', ');
}

/** A span of time, as exact as anyone needs. */
export function age(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 120_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} days`;
}

const ago = (at: Millis | null, speech: Speech): string => (at === null ? '' : `, ${age(speech.at - at)} ago`);
const answer = (who: readonly ReplicaId[]): string => (who.length === 1 ? 'answers' : 'answer');
const has = (who: readonly ReplicaId[]): string => (who.length === 1 ? 'has' : 'have');
export const counted = (count: number, thing: string): string => `${count} ${thing}${count === 1 ? '' : 's'}`;
