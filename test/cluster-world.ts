// Whole clusters in virtual time for tests that drive them by hand: what they begin with, what they ask of it, and how long it may take.

import type { SignedBundle } from '../protocol/bundle.ts';
import type { Input, Ready } from '../protocol/core.ts';
import type { ReplicaMessage, ReplicaPledge } from '../protocol/messages.ts';
import { byzantineQuorums } from '../protocol/quorum.ts';
import type { Millis } from '../protocol/types.ts';
import { asHeight } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, type Tamper } from '../sim/cluster.ts';
import { keyPair, standInKey } from '../sim/signatures.ts';

export const text = (value: string) => Buffer.from(value);

export type Options = ConstructorParameters<typeof Cluster>[0];
type Step = Input<ReplicaMessage, ReplicaPledge>;
type Out = Ready<ReplicaMessage, ReplicaPledge>;

/** A cluster that has begun, and its client. */
export function begin(options: Options = {}): { cluster: Cluster; client: SimClient } {
  const cluster = new Cluster({ seed: 7, ...options });
  cluster.run(20);
  return { cluster, client: clientOf(cluster, 'alice', options) };
}

/** With a signature of the kind that the cluster's replicas give: a real one costs as much as fifty stand-ins. */
export function clientOf({ genesis }: Cluster, name: string, { realSignatures = false }: Options = {}): SimClient {
  return new SimClient(genesis, name, 1, (realSignatures ? keyPair : standInKey)(name));
}

// ---- bounds ---------------------------------------------------------------------------------------------------------------

/** The times of docs/adversary.md, in milliseconds, from the chain's parameters and the links at hand. */
export interface Bounds {
  /** T: the base view timeout. */
  readonly T: number;
  /** Delta: from the moment at which a replica decides to say something until another one has it; the synced write before it included. */
  readonly delta: number;
  readonly heartbeat: number;
  /** VC(f): the worst wait behind f faulty primaries in a row, once the first of them was given up. */
  VC(f: number): number;
}

export function boundsOf({ genesis, faults }: Pick<Cluster, 'genesis' | 'faults'>): Bounds {
  const { viewTimeoutMs: T, heartbeatMs: heartbeat } = genesis.parameters;
  const delta = faults.delayMs[1] + faults.writeMs[1];
  return { T, delta, heartbeat, VC: (f) => (2 ** (f + 1) - 1) * T + 6 * delta * (f + 1) };
}

/** Until it holds; how long it took, in virtual milliseconds, or null where it took longer than `ms`. */
export function msUntil(cluster: Cluster, condition: () => boolean, ms: number): number | null {
  const since = cluster.now;
  return cluster.until(condition, ms) ? cluster.now - since : null;
}

// ---- what there is ----------------------------------------------------------------------------------------------------------

export const everywhere = (cluster: Cluster, bundle: SignedBundle, ids: readonly number[] = cluster.live()) =>
  ids.every((id) => cluster.has(id, bundle));

/** A bundle more, at a replica; true when these have decided it in time. */
export function orders(
  cluster: Cluster,
  client: SimClient,
  { at = 3, ids = cluster.live(), ms = 500 }: { at?: number; ids?: readonly number[]; ms?: number } = {},
): boolean {
  const bundle = client.bundle([text(`at ${cluster.now}`)], { validUntil: cluster.chain.size + 1_000 });
  cluster.submit(at, bundle);
  return cluster.until(() => everywhere(cluster, bundle, ids), ms);
}

export const views = (cluster: Cluster, ids: readonly number[] = cluster.live()) =>
  ids.map((id) => cluster.nodes[id]!.core!.explain().view as number);
export const started = (cluster: Cluster) => cluster.events.filter(({ type }) => type === 'view-change-started');
export const culprits = (cluster: Cluster) => [...new Set(cluster.evidence.map(({ culprit }) => Number(culprit)))];
export const others = (cluster: Cluster, ...ids: readonly number[]) => cluster.live().filter((id) => !ids.includes(id));
export const faultsOf = (n: number) => byzantineQuorums(n).f;

// ---- what is done to it -----------------------------------------------------------------------------------------------------

export const silent =
  (...ids: readonly number[]): Tamper =>
  (from, _, message) =>
    ids.includes(from) ? null : message;

/** Puts itself between a replica and its core. */
export function between(
  cluster: Cluster,
  id: number,
  change: (step: (inputs: readonly Step[], now: Millis) => Out, inputs: readonly Step[], now: Millis) => Out,
): void {
  const core = cluster.nodes[id]!.core!;
  const step = core.step.bind(core);
  core.step = (inputs, now) => change(step, inputs, now);
}

/** What the log's owner would say: the model disk forgets, and nobody tells the core. */
export function retained(cluster: Cluster, id: number): void {
  const node = cluster.nodes[id]!;
  between(cluster, id, (step, inputs, now) =>
    step([{ type: 'retained', lowest: asHeight(node.disk.lowest) }, ...inputs], now),
  );
}
