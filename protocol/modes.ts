// Which protocols there are, what they bear, and what their decisions prove: read by whoever verifies, so nothing here runs one.
// The cores themselves are made in cores.ts.

import type { ProofPhase } from './certificate.ts';
import type { Quorums } from './quorum.ts';
import { byzantineQuorums, crashQuorums } from './quorum.ts';
import type { Member, ReplicaId } from './types.ts';

/** The word in the genesis document. */
export const protocols = ['pbft', 'basic-paxos', 'multi-paxos', 'cheap-paxos', 'fast-paxos', 'raft'] as const;
export type Protocol = (typeof protocols)[number];

/** A word of bytes from outside. */
export const isProtocol = (word: string): word is Protocol => protocols.some((protocol) => protocol === word);

/** What a chain's proofs hang on. A context that does not say its protocol is a Byzantine one: what is weaker must be asked for. */
export interface OfProtocol {
  readonly protocol?: Protocol | undefined;
}

/** Which faults a member may have: anything at all, or silence alone. */
export const bearsLies = (protocol: Protocol = 'pbft'): boolean => protocol === 'pbft';

/** Whether one of the members proposes for all: in Basic Paxos anybody does for himself. */
export const hasLeader = ({ protocol }: OfProtocol): boolean => protocol !== 'basic-paxos';

/** [PBFT-Q-1] [CFT-Q-1] */
export function quorumsOf({ protocol, members }: OfProtocol & { readonly members: readonly Member[] }): Quorums {
  return quorumsAmong(protocol, members.length);
}

/** Of `n` members: as many as the protocol needs at least. */
export const quorumsAmong = (protocol: Protocol | undefined, n: number): Quorums =>
  bearsLies(protocol) ? byzantineQuorums(n) : crashQuorums(n);

/** [CHP-1] The members that order and keep the log; in Cheap Paxos the first of them, and the others are auxiliaries. */
export function mainsOf({ protocol, members }: OfProtocol & { readonly members: readonly Member[] }): ReplicaId[] {
  const { quorum } = quorumsOf({ protocol, members });
  return members.slice(0, protocol === 'cheap-paxos' ? quorum : members.length).map(({ id }) => id);
}

/** [CHP-1] Those whom clients talk to: an auxiliary takes no bundles and has no blocks to show. */
export function mainMembers(of: OfProtocol & { readonly members: readonly Member[] }): Member[] {
  const mains = mainsOf(of);
  return of.members.filter(({ id }) => mains.includes(id));
}

/**
 * [CHP-7] Signatures that make a checkpoint stable: a quorum's. Auxiliaries have no state to sign, and one main may be all that works, so in
 * Cheap Paxos one member's word is enough, as it is for a block.
 */
export const checkpointQuorum = ({ protocol }: OfProtocol, quorum: number): number =>
  protocol === 'cheap-paxos' ? 1 : quorum;

/** Replicas that a chain of this protocol needs at least. */
export const membersMin = (protocol: Protocol): number => (bearsLies(protocol) ? 4 : 3);

/**
 * [CFT-PR-1] What decides a block: in Byzantine mode the commits of a quorum; where members are trusted the word of one of them that a
 * majority has decided. Neither is ever taken for the other.
 */
export function proofOf({ protocol }: OfProtocol): { readonly phase: ProofPhase; readonly trust: Trust } {
  return bearsLies(protocol) ? { phase: 'commit', trust: 'byzantine' } : { phase: 'decided', trust: 'crash-fault' };
}

/** What one must believe of the members: that at most f of them are faulty in any way; or that none of them lies. */
export type Trust = 'byzantine' | 'crash-fault';
