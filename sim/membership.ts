// Which node is which member: a node keeps its name, and has another number in each epoch.

import type { EpochDocument } from '../protocol/epoch/document.ts';
import type { ReplicaId } from '../protocol/types.ts';

/** Members by the number of their node: asked with every message. */
const memberships = new WeakMap<EpochDocument, ReadonlyMap<number, ReplicaId>>();

/** The number of a node as a member; null: it is none. */
export function memberIn(document: EpochDocument, node: number): ReplicaId | null {
  let byNode = memberships.get(document);
  if (byNode === undefined) {
    byNode = new Map(document.members.map(({ id }) => [nodeOf(document, id), id]));
    memberships.set(document, byNode);
  }
  return byNode.get(node) ?? null;
}

/** The node that has this number in an epoch. */
export const nodeOf = ({ members }: EpochDocument, member: ReplicaId): number =>
  Number((members[member]?.name ?? 'node--1').slice('node-'.length));
