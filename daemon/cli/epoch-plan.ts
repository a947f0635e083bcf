// What a change of the epoch will do, before anybody signs it: sizes before and after, what failures are borne, who must be there, and what would
// be refused. Pure: it looks at the epoch, the change and what the replicas said of themselves.

import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { bearsLies, type Protocol, quorumsOf } from '../../protocol/modes.ts';
import { asHeight, type Height, type Member } from '../../protocol/types.ts';
import {
  type Change,
  type Control,
  controlFlaw,
  type EpochDocument,
  JOIN_INTERVALS_MAX,
  judgeControl,
  type Successor,
  signaturesNeeded,
} from '../../protocol/verify.ts';

/** What a replica says of itself. */
export interface Standing {
  readonly name: string;
  /** Null: it did not answer. */
  readonly height: number | null;
}

/** The same replicas, asked once more. */
export interface Later {
  /** Since they were asked first. */
  readonly seconds: number;
  readonly standings: readonly Standing[];
}

/** How a replica whose key is new comes nearer, by what it and the members said twice. */
export interface CatchUp {
  readonly name: string;
  /** In blocks; null: it was not asked, did not answer, or no member did. */
  readonly distance: number | null;
  /** Blocks a second by which the distance shrinks; null: not known. */
  readonly gain: number | null;
  /** Until it is as close as it must be; null: not known, or it does not gain. */
  readonly seconds: number | null;
  readonly asked: 'answers' | 'silent' | 'no-door' | 'no-member-answers';
}

export interface Sizes {
  readonly protocol: Protocol;
  readonly members: readonly string[];
  readonly n: number;
  readonly f: number;
  readonly quorum: number;
}

type Authority = ReturnType<typeof signaturesNeeded>;

export interface EpochPlan {
  readonly epoch: number;
  readonly changes: readonly string[];
  readonly before: Sizes;
  /** Null: the change is refused whoever signs it, and `refusals` says why. */
  readonly after: Sizes | null;
  readonly parameters: readonly { readonly name: string; readonly before: number; readonly after: number }[];
  readonly signatures: { readonly have: readonly string[]; readonly need: number };
  /** How many operators end an epoch, of how many, where the change leads to other numbers or is one of the policy. */
  readonly policy: { readonly before: Authority; readonly after: Authority } | null;
  /** Replica keys that are new, and how far behind the height the holder was when it signed; null: it has not. */
  readonly joins: readonly { readonly name: string; readonly behind: number | null; readonly behindMax: number }[];
  readonly catchUp: readonly CatchUp[];
  /** What would be refused now, in the order of the checks; the first counts. */
  readonly refusals: readonly { readonly code: string; readonly field: string; readonly problem: string }[];
  /** Of the next epoch's members, those that were asked. */
  readonly live: {
    readonly answer: readonly string[];
    readonly silent: readonly string[];
    readonly unknown: readonly string[];
  } | null;
  /** What an operator should know before signing. */
  readonly warnings: readonly string[];
}

/** @param height of the block that it might stand in */
export function planOf(
  epoch: EpochDocument,
  control: Control,
  height: Height,
  standings: readonly Standing[] | null,
  later: Later | null = null,
): EpochPlan {
  const { f } = quorumsOf(epoch);
  const asIs = judge(epoch, control, height);
  // Signed by whoever must: then it shows what is wrong with the change itself, and what it leads to.
  const signed = 'refused' in asIs ? judgeControl(epoch, complete(epoch, control, height), height) : asIs;
  const successor = 'refused' in signed ? null : signed;
  const refusals = ['refused' in signed ? signed : null, 'refused' in asIs ? asIs : null]
    .filter((each) => each !== null)
    .map(({ refused, field, problem }) => ({ code: refused, field, problem }))
    .filter(({ code }, i, all) => all.findIndex((other) => other.code === code) === i);
  const after = successor && sizesOf(successor);
  const live = successor === null || standings === null ? null : liveOf(successor.members, standings);
  return {
    epoch: epoch.epoch,
    changes: control.body.changes.map(changeInWords),
    before: sizesOf(epoch),
    after,
    parameters: successor === null ? [] : parametersChanged(epoch, successor),
    signatures: { have: signersOf(epoch, control), need: signaturesNeeded(epoch).need },
    policy: successor === null ? null : policyOf(epoch, successor, control.body.changes),
    joins: successor === null ? [] : joinsOf(epoch, successor, control, height),
    catchUp: successor === null ? [] : catchUpsOf(epoch, successor, standings, later),
    refusals,
    live,
    warnings: successor === null ? refusedWarnings(refusals) : warningsOf(epoch, successor, f, live),
  };
}

function judge(epoch: EpochDocument, control: Control, height: Height) {
  const flaw = controlFlaw(native, epoch.chainId, control);
  if (flaw !== null) return { ...flaw, problem: 'not valid' };
  return judgeControl(epoch, control, height);
}

/** The same change as if every operator and every new key had signed: for the judge alone, which looks at no signature. */
function complete(epoch: EpochDocument, control: Control, height: Height): Control {
  const signature = new Uint8Array(64);
  const old = new Set(epoch.members.map(({ publicKey }) => toHex(publicKey)));
  const fresh = new Map(
    control.body.changes.flatMap((change) =>
      'publicKey' in change && !old.has(toHex(change.publicKey))
        ? [[toHex(change.publicKey), change.publicKey] as const]
        : [],
    ),
  );
  // A key that a later change of the same transaction takes out again needs none.
  const needed = [...fresh.values()].filter((key) => isKept(control.body.changes, key));
  return {
    ...control,
    signatures: epoch.members.flatMap(({ operatorKey }) =>
      operatorKey === undefined ? [] : [{ operatorKey, signature }],
    ),
    joins: needed.map((publicKey) => ({ publicKey, height, signature })),
  };
}

function isKept(changes: readonly Change[], key: Uint8Array): boolean {
  const at = changes.findIndex((change) => 'publicKey' in change && toHex(change.publicKey) === toHex(key));
  const name = at < 0 ? undefined : (changes[at] as Extract<Change, { publicKey: Uint8Array }>).name; // it has a key
  return !changes
    .slice(at + 1)
    .some(
      (change) =>
        (change.change === 'remove-member' || change.change === 'replace-replica-key') && change.name === name,
    );
}

function sizesOf({ members, protocol }: Pick<Successor, 'members' | 'protocol'>): Sizes {
  const { n, f, quorum } = quorumsOf({ protocol, members });
  return { protocol, members: members.map(({ name }) => name), n, f, quorum };
}

function signersOf(epoch: EpochDocument, { signatures }: Control): string[] {
  return signatures.map(({ operatorKey }) => {
    const member = epoch.members.find(
      (each) => each.operatorKey !== undefined && toHex(each.operatorKey) === toHex(operatorKey),
    );
    return member?.name ?? toHex(operatorKey);
  });
}

function parametersChanged(epoch: EpochDocument, { parameters }: Successor) {
  // The cast: the names of the parameters are their keys.
  return (Object.keys(parameters) as (keyof typeof parameters)[])
    .filter((name) => parameters[name] !== epoch.parameters[name])
    .map((name) => ({ name, before: epoch.parameters[name], after: parameters[name] }));
}

function policyOf(epoch: EpochDocument, successor: Successor, changes: readonly Change[]): EpochPlan['policy'] {
  const [before, after] = [signaturesNeeded(epoch), signaturesNeeded(successor)];
  const same = before.need === after.need && before.operators === after.operators;
  return same && !changes.some(({ change }) => change === 'set-policy') ? null : { before, after };
}

const freshMembers = (epoch: EpochDocument, { members }: Successor): Member[] =>
  members.filter(({ publicKey }) => !epoch.members.some((old) => toHex(old.publicKey) === toHex(publicKey)));

const behindMaxOf = ({ parameters }: EpochDocument) => JOIN_INTERVALS_MAX * parameters.checkpointInterval;

function joinsOf(epoch: EpochDocument, successor: Successor, { joins }: Control, height: Height): EpochPlan['joins'] {
  const behindMax = behindMaxOf(epoch);
  return freshMembers(epoch, successor).map(({ name, publicKey }) => {
    const join = joins.find((each) => toHex(each.publicKey) === toHex(publicKey));
    return { name, behind: join === undefined ? null : Math.max(0, height - join.height), behindMax };
  });
}

function catchUpsOf(
  epoch: EpochDocument,
  successor: Successor,
  standings: readonly Standing[] | null,
  later: Later | null,
): CatchUp[] {
  const behindMax = behindMaxOf(epoch);
  return freshMembers(epoch, successor).map(({ name }): CatchUp => {
    const unknown = { name, distance: null, gain: null, seconds: null };
    const own = (standings ?? []).find((standing) => standing.name === name);
    if (own === undefined) return { ...unknown, asked: 'no-door' };
    if (own.height === null) return { ...unknown, asked: 'silent' };
    const first = distanceOf(epoch, name, standings ?? []);
    if (first === null) return { ...unknown, asked: 'no-member-answers' };
    const second = later === null ? null : distanceOf(epoch, name, later.standings);
    const gain = later === null || second === null ? null : (first - second) / later.seconds;
    const distance = Math.max(0, second ?? first);
    const far = Math.max(0, distance - behindMax);
    const seconds = far === 0 ? 0 : gain !== null && gain > 0 ? far / gain : null;
    return { name, distance, gain, seconds, asked: 'answers' };
  });
}

/** From it to the highest that another member states; null: one of the two is missing. */
function distanceOf({ members }: EpochDocument, name: string, standings: readonly Standing[]): number | null {
  const own = standings.find((standing) => standing.name === name)?.height ?? null;
  const heights = standings.flatMap((standing) =>
    standing.height !== null && standing.name !== name && members.some((member) => member.name === standing.name)
      ? [standing.height]
      : [],
  );
  return own === null || heights.length === 0 ? null : Math.max(...heights) - own;
}

function liveOf(members: readonly Member[], standings: readonly Standing[]): NonNullable<EpochPlan['live']> {
  const of = (name: string) => standings.find((standing) => standing.name === name);
  const names = members.map(({ name }) => name);
  return {
    answer: names.filter((name) => typeof of(name)?.height === 'number'),
    silent: names.filter((name) => of(name)?.height === null),
    unknown: names.filter((name) => of(name) === undefined),
  };
}

function warningsOf(epoch: EpochDocument, successor: Successor, f: number, live: EpochPlan['live']): string[] {
  const { quorum, f: nextF, n } = quorumsOf(successor);
  const warnings: string[] = [];
  if (nextF < f) warnings.push(`afterwards ${nextF} may fail, not ${f} as now`);
  const lies = bearsLies(successor.protocol);
  const least = (lies ? 3 : 2) * nextF + 1;
  if (n !== least) warnings.push(`${n} members bear no more failures than ${least} do`);
  if (bearsLies(epoch.protocol) && !lies)
    warnings.push(
      'from then on no member may lie: one that does can fork the chain, and receipts say so, also of later epochs',
    );
  const fresh = freshMembers(epoch, successor);
  const kept = n - fresh.length;
  if (kept < quorum)
    warnings.push(
      `the ${kept} that stay are no quorum of ${n}: nothing is ordered until ${quorum - kept} of the new ones take part`,
    );
  const silent = live?.silent.length ?? 0;
  if (live !== null && live.answer.length < quorum)
    warnings.push(
      `${live.answer.length} of the next members answer, ${live.unknown.length === 0 ? '' : `${live.unknown.length} could not be asked, `}and a quorum is ${quorum}: the chain might stand still at the switch`,
    );
  else if (silent > 0)
    warnings.push(
      `${silent} of the next members do not answer now: ${Math.max(0, nextF - silent)} more may fail afterwards`,
    );
  const { need, operators } = signaturesNeeded(successor);
  // ADR 10, "Who signs what".
  if (need <= nextF)
    warnings.push(
      `${need} of the operators can change everything, and ${nextF} of the members may be faulty: with fewer than ${nextF + 1} signatures those that are borne can take the network over`,
    );
  if (operators - need < 1)
    warnings.push('the next change will need every operator: one lost operator key ends all changes');
  return warnings;
}

/** What the code of a refusal does not say to somebody who has not met it. */
const refusedWarnings = (refusals: EpochPlan['refusals']): string[] =>
  refusals.some(({ code }) => code === 'control-policy')
    ? ['more signatures than there would be operators: nobody could ever change the network again']
    : [];

export function changeInWords(change: Change): string {
  switch (change.change) {
    case 'add-member': {
      const operator = change.operatorKey === null ? 'no operator' : `operator ${toHex(change.operatorKey)}`;
      return `add member ${change.name}, key ${toHex(change.publicKey)}, ${operator}, ${change.address ?? 'no address'}`;
    }
    case 'remove-member':
      return `remove member ${change.name}`;
    case 'replace-replica-key':
      return `member ${change.name}: new replica key ${toHex(change.publicKey)}`;
    case 'replace-operator-key':
      return `member ${change.name}: ${change.operatorKey === null ? 'no operator' : `new operator key ${toHex(change.operatorKey)}`}`;
    case 'change-address':
      return `member ${change.name}: ${change.address === null ? 'no address' : `address ${change.address}`}`;
    case 'set-parameter':
      return `parameter ${change.parameter} = ${change.value}`;
    case 'set-policy':
      return `policy: ${change.policy.signatures === 'quorum' ? 'a quorum' : change.policy.signatures} of the operators`;
    case 'set-protocol':
      return `protocol ${change.protocol}`;
  }
}

const list = (names: readonly string[]) => (names.length === 0 ? 'nobody' : names.join(', '));
const authority = ({ need, operators }: Authority) => `${need} of ${operators}`;
const sizes = ({ protocol, n, f, quorum, members }: Sizes) =>
  `${protocol}, ${n} members, quorum ${quorum}, bears ${f} ${bearsLies(protocol) ? 'faulty' : 'silent'}: ${members.join(', ')}`;

const rate = (blocks: number) => (blocks < 10 ? blocks.toFixed(1) : blocks.toFixed(0));

function catchUpInWords({ name, distance, gain, seconds, asked }: CatchUp, behindMax: number): string {
  if (asked === 'no-door')
    return `${name} was not asked how far it has come, so when it is close is not known: no door of it is known (--http)`;
  if (asked === 'silent')
    return `${name} does not say how far it has come, so when it is close is not known: no answer`;
  if (distance === null) return `how far ${name} has to come is not known: no other member answers`;
  const pace =
    gain === null
      ? 'it did not answer twice, so what it gains is not known'
      : gain > 0
        ? `it gains ${rate(gain)} a second`
        : gain < 0
          ? `it falls back by ${rate(-gain)} a second`
          : 'it does not gain';
  const end =
    gain === null
      ? 'when it is close is not known'
      : seconds === null
        ? 'so it will not be close'
        : `close in ${Math.ceil(seconds)} s`;
  return `${name} is ${distance} blocks behind, ${behindMax} may be${seconds === 0 ? ': it is close' : `; ${pace}; ${end}`}`;
}

/** For people. */
export function planInWords(plan: EpochPlan): string[] {
  const { before, after, signatures, policy, joins, catchUp, refusals, live, warnings, parameters } = plan;
  return [
    `ends epoch ${plan.epoch}:`,
    ...plan.changes.map((change) => `  ${change}`),
    `now    ${sizes(before)}`,
    ...(after === null ? [] : [`then   ${sizes(after)}`]),
    `while it is decided ${before.f} may fail${after === null ? '' : `; from its block on ${after.f}, of the new members`}`,
    ...parameters.map(({ name, before: old, after: now }) => `${name}: ${old} now, ${now} then`),
    ...(policy === null
      ? []
      : [`a change needs ${authority(policy.before)} signatures now, ${authority(policy.after)} then`]),
    `signed by ${list(signatures.have)}; ${signatures.need} operators are needed`,
    ...joins.map(({ name, behind, behindMax }) =>
      behind === null
        ? `${name} has not signed yet that it is there (\`synod member promote\`)`
        : `${name} was ${behind} blocks behind when it signed; ${behindMax} may be`,
    ),
    ...catchUp.map((each) => catchUpInWords(each, joins.find(({ name }) => name === each.name)?.behindMax ?? 0)),
    ...(live === null
      ? []
      : [
          `of the next members ${list(live.answer)} answer${live.silent.length === 0 ? '' : `; ${list(live.silent)} do not`}${
            live.unknown.length === 0 ? '' : `; ${list(live.unknown)} could not be asked`
          }`,
        ]),
    ...warnings.map((warning) => `beware: ${warning}`),
    ...(refusals.length === 0
      ? ['it may stand in the next block as it is']
      : refusals.map(({ code, field, problem }) => `refused as it is: ${field}: ${problem} [${code}]`)),
  ];
}

export const nextHeight = (standings: readonly Standing[] | null): Height =>
  asHeight(Math.max(0, ...(standings ?? []).map(({ height }) => height ?? 0)) + 1);
