// Where this replica stands, for people and probes: explain() with the members' names, and whether it is ready, with the reason in words.

import { toHex } from '../../crypto/bytes.ts';
import type { Explanation, Wait } from '../../protocol/core.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { byzantineQuorums } from '../../protocol/quorum.ts';
import type { ReplicaId } from '../../protocol/types.ts';
import type { ReplicaPort } from '../ports.ts';

export interface NotReady {
  readonly code: 'draining' | 'no-quorum' | 'view-change' | 'catching-up' | 'quarantine';
  readonly message: string;
}

/** Null: caught up, in an active view, and connected to enough others. */
export function notReady(explanation: Explanation, genesis: Genesis, draining: boolean): NotReady | null {
  const { phase, height, highestSeen, view, peers } = explanation;
  if (draining) return { code: 'draining', message: 'this replica is shutting down' };
  const { n, quorum } = byzantineQuorums(genesis.members.length);
  const connected = peers.filter((peer) => peer.connected).length;
  if (connected + 1 < quorum) {
    const away = peers.filter((peer) => !peer.connected).map((peer) => nameOf(genesis, peer.replica));
    const message = `connected to ${connected} of ${n - 1} other replicas, ${quorum - 1} are needed; away: ${away.join(', ')}`;
    return { code: 'no-quorum', message };
  }
  if (phase === 'quarantine')
    return { code: 'quarantine', message: `votes for nothing yet, ${waitsInWords(explanation, genesis)}` };
  if (phase === 'view-change')
    return { code: 'view-change', message: `no active view, ${waitsInWords(explanation, genesis)}` };
  // Blocks of the window are on their way by the normal case; more than that is a gap to be caught up.
  if (phase === 'catching-up' || highestSeen > height + genesis.parameters.window)
    return { code: 'catching-up', message: `at height ${height} of ${highestSeen} in view ${view}` };
  return null;
}

function waitsInWords(explanation: Explanation, genesis: Genesis): string {
  const words = explanation.waits.map((wait) => waitInWords(wait, genesis));
  return words.length === 0 ? `on the way to view ${explanation.view}` : words.join('; ');
}

function waitInWords({ what, view, height, have, need, missing }: Wait, genesis: Genesis): string {
  if (what === 'readmission') return `waiting until the block at height ${height} is decided`;
  const at =
    what === 'view-change' || what === 'new-view'
      ? ` for view ${view}`
      : what === 'standing'
        ? ''
        : ` at height ${height}`;
  const names = missing.map((id) => nameOf(genesis, id)).join(', ');
  return `waiting${at} for ${what} messages: ${have} of ${need}${names === '' ? '' : `, missing ${names}`}`;
}

export interface NodeInfo {
  readonly version: string;
  /** Milliseconds since 1970, when the process started. */
  readonly startedAt: number;
}

export function statusForm(replica: ReplicaPort, node: NodeInfo, draining: boolean) {
  const { genesis, self, log } = replica;
  const explanation = replica.explain();
  const reason = notReady(explanation, genesis, draining);
  const named = (id: ReplicaId) => ({ replica: id, name: nameOf(genesis, id) });
  const { epoch, view, phase, height, hash, stable, highestSeen, pool, inFlight, viewChanges, timeoutMs } = explanation;
  return {
    node: {
      ...named(self),
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
      words: waitInWords(wait, genesis),
    })),
    peers: explanation.peers.map((peer) => ({ ...peer, ...named(peer.replica) })),
  };
}

function nameOf(genesis: Genesis, id: ReplicaId): string {
  return genesis.members[id]?.name ?? `replica ${id}`;
}
