// What `synod why` says of a whole cluster in virtual time, to be held against the faults that were injected.

import type { Cause } from '../daemon/why/diagnosis.ts';
import { diagnose } from '../daemon/why/diagnosis.ts';
import type { Asked } from '../daemon/why/network.ts';
import { diagnoseNetwork, networkSpeech } from '../daemon/why/network.ts';
import { causeWords, speechOf } from '../daemon/why/words.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';

export const T = 500;

type Options = ConstructorParameters<typeof Cluster>[0];

/** A cluster that has ordered something, and its client. */
export function begin(options: Options = {}, ids?: readonly number[]): { cluster: Cluster; client: SimClient } {
  const cluster = new Cluster({ seed: 7, ...options });
  cluster.run(20);
  const client = new SimClient(cluster.genesis, 'alice');
  order(cluster, client, ids);
  return { cluster, client };
}

/** A bundle more at some replicas; whether all of these decide it in time. */
export function order(
  cluster: Cluster,
  client: SimClient,
  ids: readonly number[] = cluster.live(),
  ms = 1_000,
): boolean {
  const bundle = give(cluster, client, ids);
  return cluster.until(() => ids.every((id) => cluster.has(id, bundle)), ms);
}

export function give(cluster: Cluster, client: SimClient, ids: readonly number[] = cluster.live()): SignedBundle {
  const bundle = client.bundle([Buffer.from(`at ${cluster.now}`)]);
  for (const id of ids) cluster.submit(id, bundle);
  return bundle;
}

const askedOf = (cluster: Cluster): Asked[] =>
  cluster.nodes.map(({ id, core, writingMs }) => ({
    replica: id,
    report: core === null ? null : { explanation: core.explain(), draining: false, writingMs },
  }));

/** The network's diagnosis: codes and whom they name. */
export function network(cluster: Cluster) {
  const asked = askedOf(cluster);
  const members = cluster.nodes.length;
  const quorum = cluster.nodes.find(({ core }) => core !== null)!.core!.explain().quorum;
  const diagnosis = diagnoseNetwork({ members, quorum, asked });
  const speech = networkSpeech(asked, nameOf);
  return {
    ...diagnosis,
    codes: codesOf(diagnosis.causes.map(({ cause }) => cause)),
    words: diagnosis.causes.map(({ cause }) => causeWords(cause, speech)),
  };
}

/** What one says that is asked alone. */
export function own(cluster: Cluster, id: number) {
  const { core, writingMs } = cluster.nodes[id]!;
  const explanation = core!.explain();
  const diagnosis = diagnose({ explanation, draining: false, writingMs });
  const speech = speechOf(
    explanation,
    cluster.nodes.map((node) => nameOf(node.id)),
  );
  return { ...diagnosis, words: diagnosis.causes.map((cause) => causeWords(cause, speech)) };
}

export const codesOf = (causes: readonly Cause[]): string[] => causes.map(({ code, who }) => `${code} ${who}`);

const nameOf = (id: number): string => `node-${id}`;
