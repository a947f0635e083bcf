// Where this replica stands, for people and probes: explain() with the members' names, and whether it is ready, with the reason in words.

import { toHex } from '../../crypto/bytes.ts';
import type { Explanation } from '../../protocol/core.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import type { ReplicaId } from '../../protocol/types.ts';
import type { ReplicaPort } from '../ports.ts';
import { diagnose } from '../why/diagnosis.ts';
import { causeWords, speechOf, waitWords } from '../why/words.ts';

export interface NotReady {
  readonly code:
    | 'draining'
    | 'quarantine'
    | 'no-quorum'
    | 'working-set'
    | 'view-change'
    | 'catching-up'
    | 'behind'
    | 'block-missing';
  readonly message: string;
}

/** Null: caught up, in an active view, and a quorum answers. The same codes and words as /v1/why has. */
export function notReady(explanation: Explanation, genesis: Genesis, draining: boolean): NotReady | null {
  for (const cause of diagnose({ explanation, draining, writingMs: 0 }).causes) {
    const { code } = cause;
    switch (code) {
      case 'draining':
      case 'quarantine':
      case 'no-quorum':
      case 'working-set':
      case 'view-change':
      case 'catching-up':
      case 'behind':
      case 'block-missing':
        return { code, message: causeWords(cause, speechOf(explanation, namesOf(genesis))) };
    }
  }
  return null;
}

const namesOf = ({ members }: Genesis): string[] => members.map(({ name }) => name);

export interface NodeInfo {
  readonly version: string;
  /** Milliseconds since 1970, when the process started. */
  readonly startedAt: number;
  /** The name of a node that is no member, and observes. */
  readonly observer?: string;
}

export function statusForm(replica: ReplicaPort, node: NodeInfo, draining: boolean) {
  const { genesis, self, log } = replica;
  const explanation = replica.explain();
  const reason = notReady(explanation, genesis, draining);
  const named = (id: ReplicaId) => ({ replica: id, name: nameOf(genesis, id) });
  const { epoch, view, phase, height, hash, stable, highestSeen, pool, inFlight, viewChanges, timeoutMs } = explanation;
  return {
    node: {
      ...(node.observer === undefined ? named(self) : { replica: self, name: node.observer, observer: true }),
      version: node.version,
      startedAt: node.startedAt,
      runtime: `node ${process.versions.node}`,
    },
    chain: {
      name: genesis.name,
      chainId: toHex(genesis.chainId),
      protocol: genesis.protocol,
      members: genesis.members.map(({ id, name, publicKey }) => ({ replica: id, name, publicKey: toHex(publicKey) })),
    },
    ready: reason === null,
    reason,
    epoch,
    view,
    primary: named(explanation.primary),
    phase,
    height,
    hash: toHex(hash),
    stable,
    lowest: log.lowest,
    highestSeen,
    pool,
    inFlight,
    viewChanges,
    timeoutMs,
    waits: explanation.waits.map((wait) => ({
      ...wait,
      missing: wait.missing.map(named),
      words: waitWords(wait, speechOf(explanation, namesOf(genesis))),
    })),
    peers: explanation.peers.map((peer) => ({ ...peer, ...named(peer.replica) })),
  };
}

function nameOf(genesis: Genesis, id: ReplicaId): string {
  return genesis.members[id]?.name ?? `replica ${id}`;
}
