// The one function that says whether a control transaction ends an epoch, and what comes next: at admission, before a vote, and in a verifier
// that holds nothing but the genesis document. Pure, without state of its own and without a signature check (control.ts has made those): the
// same answer everywhere.

import { equalBytes, toHex } from '../../crypto/bytes.ts';
import { unreachable } from '../assert.ts';
import type { Sha256 } from '../block.ts';
import { parameterProblem } from '../genesis.ts';
import { isProtocol, membersMin, quorumsOf } from '../modes.ts';
import type { Hash, Height, Member } from '../types.ts';
import { asEpoch, asReplicaId } from '../types.ts';
import { MEMBERS_MAX } from '../wire/fields.ts';
import type { Change, Control } from './control.ts';
import { type EpochDocument, epochDocument, signaturesNeeded } from './document.ts';

/** Stable; docs/wire.md says what each means. */
export type ControlCode =
  | 'control-chain'
  | 'control-epoch'
  | 'control-expired'
  | 'control-signer-unknown'
  | 'control-unauthorised'
  | 'control-too-soon'
  | 'control-name-unknown'
  | 'control-name-taken'
  | 'control-key-taken'
  | 'control-member-count'
  | 'control-parameter'
  | 'control-policy'
  | 'control-protocol-unknown'
  | 'control-nothing'
  | 'control-too-many-leave'
  | 'control-join-missing'
  | 'control-join-unneeded'
  | 'control-join-far';

export interface ControlRefusal {
  readonly refused: ControlCode;
  /** Which part of it, such as `changes.2.name`. */
  readonly field: string;
  /** For people: of the two numbers that were compared, or the rule of a parameter. */
  readonly problem: string;
}

/** What a new member, or a new key, may be behind: votes for checkpoints are kept for that many intervals (checkpoints.ts). */
export const JOIN_INTERVALS_MAX = 16;

/** The next epoch but for the place at which it starts. */
export type Successor = Pick<EpochDocument, 'protocol' | 'members' | 'parameters' | 'policy'>;

/** [EPO-7] Whether this control transaction may stand in the block at `height` of this epoch, and what it makes of the epoch. */
export function judgeControl(epoch: EpochDocument, control: Control, height: Height): Successor | ControlRefusal {
  return (
    outOfPlace(epoch, control, height) ?? unauthorised(epoch, control, height) ?? successorOf(epoch, control, height)
  );
}

/** [EPO-1] The epoch that starts from this block. The control transaction in it has been judged: anything else is a bug of the caller. */
export function nextEpoch(
  sha256: Sha256,
  epoch: EpochDocument,
  { protocol, members, parameters, policy }: Successor,
  start: { readonly height: Height; readonly hash: Hash },
): EpochDocument {
  const { chainId } = epoch;
  return epochDocument(sha256, {
    chainId,
    epoch: asEpoch(epoch.epoch + 1),
    start,
    protocol,
    members,
    parameters,
    policy,
  });
}

const refuse = (refused: ControlCode, field: string, problem: string): ControlRefusal => ({ refused, field, problem });

/** [EPO-2] It is good for one epoch, named by number and by hash, and up to one height. */
function outOfPlace(epoch: EpochDocument, { body }: Control, height: Height): ControlRefusal | null {
  if (!equalBytes(body.chainId, epoch.chainId)) return refuse('control-chain', 'chainId', 'of another chain');
  if (body.epoch !== epoch.epoch)
    return refuse('control-epoch', 'epoch', `it ends epoch ${body.epoch}, and this is epoch ${epoch.epoch}`);
  if (!equalBytes(body.epochHash, epoch.hash))
    return refuse('control-epoch', 'epochHash', `not the epoch ${epoch.epoch} of this chain`);
  if (body.validUntil < height)
    return refuse('control-expired', 'validUntil', `good up to height ${body.validUntil}, and this is ${height}`);
  return null;
}

/** [EPO-3] The operators that the policy wants; or one member's own, for its own replica key and address. */
function unauthorised(epoch: EpochDocument, { body, signatures }: Control, height: Height): ControlRefusal | null {
  const signers: Member[] = [];
  for (const [index, { operatorKey }] of signatures.entries()) {
    const member = epoch.members.find(
      (each) => each.operatorKey !== undefined && equalBytes(each.operatorKey, operatorKey),
    );
    if (member === undefined)
      return refuse('control-signer-unknown', `signatures.${index}`, `${toHex(operatorKey)} is no operator's key`);
    signers.push(member);
  }
  const { need, operators } = signaturesNeeded(epoch);
  if (signers.length >= need) return null;
  const own = ownerOf(body.changes);
  if (own === null || !signers.some(({ name }) => name === own))
    return refuse('control-unauthorised', 'signatures', `${signers.length} of ${need} (${operators} operators)`);
  // Otherwise one operator could end epoch after epoch.
  const from = epoch.start.height + epoch.parameters.checkpointInterval;
  if (height < from)
    return refuse('control-too-soon', 'signatures', `alone from height ${from} on, or with ${need} signatures`);
  return null;
}

/** The member that alone is concerned, where its own operator suffices. */
function ownerOf(changes: readonly Change[]): string | null {
  let owner: string | null = null;
  for (const change of changes) {
    if (change.change !== 'replace-replica-key' && change.change !== 'change-address') return null;
    if (owner !== null && owner !== change.name) return null;
    owner = change.name;
  }
  return owner;
}

type Draft = { -readonly [K in keyof Successor]: Successor[K] };

function successorOf(epoch: EpochDocument, control: Control, height: Height): Successor | ControlRefusal {
  const draft: Draft = {
    protocol: epoch.protocol,
    members: [...epoch.members],
    parameters: epoch.parameters,
    policy: epoch.policy,
  };
  for (const [index, change] of control.body.changes.entries()) {
    const refused = apply(draft, change, `changes.${index}`);
    if (refused !== null) return refused;
  }
  draft.members = draft.members.map((member, id) => ({ ...member, id: asReplicaId(id) }));
  return illFormed(draft) ?? discontinuous(epoch, draft, control, height) ?? draft;
}

function apply(draft: Draft, change: Change, at: string): ControlRefusal | null {
  switch (change.change) {
    case 'add-member': {
      const { name, publicKey, operatorKey, address } = change;
      if (draft.members.some((member) => member.name === name))
        return refuse('control-name-taken', `${at}.name`, `${name} is a member`);
      const member = {
        id: asReplicaId(draft.members.length),
        name,
        publicKey,
        ...(operatorKey === null ? {} : { operatorKey }),
        ...(address === null ? {} : { address }),
      };
      draft.members = [...draft.members, member];
      return null;
    }
    case 'remove-member':
      return replace(draft, change.name, at, () => []);
    case 'replace-replica-key':
      return replace(draft, change.name, at, (member) => [{ ...member, publicKey: change.publicKey }]);
    case 'replace-operator-key':
      return replace(draft, change.name, at, ({ operatorKey: _, ...member }) => [
        change.operatorKey === null ? member : { ...member, operatorKey: change.operatorKey },
      ]);
    case 'change-address':
      return replace(draft, change.name, at, ({ address: _, ...member }) => [
        change.address === null ? member : { ...member, address: change.address },
      ]);
    case 'set-parameter':
      draft.parameters = { ...draft.parameters, [change.parameter]: change.value };
      return null;
    case 'set-policy':
      draft.policy = change.policy;
      return null;
    case 'set-protocol':
      if (!isProtocol(change.protocol))
        return refuse(
          'control-protocol-unknown',
          `${at}.protocol`,
          `${change.protocol} is none that this chain can run`,
        );
      draft.protocol = change.protocol;
      return null;
    default:
      return unreachable(change);
  }
}

function replace(draft: Draft, name: string, at: string, by: (member: Member) => Member[]): ControlRefusal | null {
  if (!draft.members.some((member) => member.name === name))
    return refuse('control-name-unknown', `${at}.name`, `${name} is no member`);
  draft.members = draft.members.flatMap((member) => (member.name === name ? by(member) : [member]));
  return null;
}

/** [EPO-5] What a genesis document must keep to, and that somebody can end the epoch again. */
function illFormed(draft: Draft): ControlRefusal | null {
  const { members, parameters, policy, protocol } = draft;
  const least = membersMin(protocol);
  if (members.length < least || members.length > MEMBERS_MAX)
    return refuse(
      'control-member-count',
      'changes',
      `${members.length} members; ${least} to ${MEMBERS_MAX} can run ${protocol}`,
    );
  const keys = new Set<string>();
  for (const { name, publicKey, operatorKey } of members)
    for (const key of [publicKey, operatorKey]) {
      if (key === undefined) continue;
      if (keys.has(toHex(key)))
        return refuse('control-key-taken', 'changes', `${toHex(key)} of ${name} is another member's, or its other key`);
      keys.add(toHex(key));
    }
  const problem = parameterProblem(parameters, protocol);
  if (problem !== null) return refuse('control-parameter', problem.field, problem.problem);
  const { need, operators } = signaturesNeeded(draft);
  if (need > operators)
    return refuse(
      'control-policy',
      'changes',
      `${policy.signatures} wants ${need} signatures of ${operators} operators`,
    );
  const bytes = 1024 + 128 * need;
  if (parameters.transactionBytesMax < bytes)
    return refuse('control-parameter', 'transactionBytesMax', `at least ${bytes}, or nobody could end the epoch again`);
  return null;
}

/** [EPO-6] No more members leave or change keys than may fail; [EPO-4] every replica key that is new has signed, and is close. */
function discontinuous(epoch: EpochDocument, draft: Draft, { joins }: Control, height: Height): ControlRefusal | null {
  const stays = (member: Member) => draft.members.some((each) => equalBytes(each.publicKey, member.publicKey));
  const leaving = epoch.members.filter((member) => !stays(member)).length;
  const { f } = quorumsOf(epoch);
  if (leaving > f)
    return refuse('control-too-many-leave', 'changes', `${leaving} members leave or change keys; ${f} may at once`);
  const old = new Set(epoch.members.map(({ publicKey }) => toHex(publicKey)));
  const fresh = new Set(draft.members.map(({ publicKey }) => toHex(publicKey)).filter((key) => !old.has(key)));
  for (const [index, { publicKey }] of joins.entries())
    if (!fresh.has(toHex(publicKey)))
      return refuse('control-join-unneeded', `joins.${index}`, `${toHex(publicKey)} is not new in it`);
  const farthest = JOIN_INTERVALS_MAX * epoch.parameters.checkpointInterval;
  for (const key of fresh) {
    const join = joins.find(({ publicKey }) => toHex(publicKey) === key);
    if (join === undefined) return refuse('control-join-missing', 'joins', `${key} has not signed for it`);
    if (height - join.height > farthest)
      return refuse('control-join-far', 'joins', `${key} is ${height - join.height} blocks behind; ${farthest} may be`);
  }
  return same(epoch, draft) ? refuse('control-nothing', 'changes', 'they change nothing') : null;
}

function same(epoch: EpochDocument, draft: Draft): boolean {
  const shape = ({ protocol, members, parameters, policy }: Successor) =>
    JSON.stringify([
      protocol,
      members.map(({ name, publicKey, operatorKey, address }) => [
        name,
        toHex(publicKey),
        operatorKey === undefined ? null : toHex(operatorKey),
        address ?? null,
      ]),
      Object.entries(parameters).sort(),
      policy.signatures,
    ]);
  return shape(epoch) === shape(draft);
}
