// What a decision costs in message delays, on real processes and real sockets: replicas that bear two faults, and a delay between them that outweighs all
// the work. A bundle at a time goes to one of them by HTTP, which no delay is on, and waits for its receipt. docs/family.md counts the same in the simulator.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { CONFIG_FILE } from '../daemon/cli/network-files.ts';
import { bearsLies, mainMembers, type Protocol } from '../protocol/modes.ts';
import { BenchCluster } from './cluster.ts';
import { median } from './histogram.ts';
import { SlowLink } from './slow-links.ts';
import { pause } from './task.ts';

export interface DelaysResult {
  readonly protocol: Protocol;
  readonly n: number;
  readonly delayMs: number;
  /** Medians, from the request to its answer, at the leader and at a replica that does not lead; one and the same where nobody does. */
  readonly leaderMs: number;
  readonly elsewhereMs: number;
}

/** Long beside the few milliseconds of work, short beside a view timeout. */
const delayMs = 40;
const warmupRequests = 30;
const peersSchema = z.looseObject({
  listen: z.looseObject({ port: z.int() }),
  peers: z.record(z.string(), z.string()),
});

export async function measureDelays(options: {
  readonly protocol: Protocol;
  readonly requests: number;
  readonly recorderMiB: readonly number[];
}): Promise<DelaysResult> {
  const { protocol, requests, recorderMiB } = options;
  const n = bearsLies(protocol) ? 7 : 5;
  const links: SlowLink[] = [];
  const cluster = await BenchCluster.start({
    replicas: n,
    protocol,
    standIns: { sign: false, sync: false },
    profileDirectory: null,
    viewTimeoutMs: 2_000,
    recorderMiB,
    prepare: async (made) => {
      for (const link of links.splice(0)) link.close();
      links.push(...(await slowDown(made)));
    },
  });
  try {
    const { primary } = await cluster.lead();
    const elsewhere = mainMembers(cluster.genesis).findLast(({ name }) => name !== primary)!; // of several
    const leaderMs = await ask(cluster.door(primary), requests);
    return { protocol, n, delayMs, leaderMs, elsewhereMs: await ask(cluster.door(elsewhere.name), requests) };
  } finally {
    await cluster.stop();
    for (const link of links) link.close();
  }
}

/** Everybody dials a relay in the place of each other replica. */
async function slowDown(cluster: BenchCluster): Promise<SlowLink[]> {
  const paths = cluster.names.map((name) => join(cluster.directory, name, CONFIG_FILE));
  const configs = paths.map((path) => peersSchema.parse(JSON.parse(readFileSync(path, 'utf8'))));
  const links = await Promise.all(configs.map(({ listen }) => SlowLink.before(listen.port, delayMs)));
  const urls = new Map(cluster.names.map((name, i) => [name, `ws://127.0.0.1:${links[i]!.port}`]));
  for (const [i, path] of paths.entries()) {
    const peers = Object.fromEntries(Object.keys(configs[i]!.peers).map((name) => [name, urls.get(name)]));
    writeFileSync(path, JSON.stringify({ ...configs[i], peers }));
  }
  return links;
}

async function ask(door: string, requests: number): Promise<number> {
  const times: number[] = [];
  for (let i = -warmupRequests; i < requests; i++) {
    const since = performance.now();
    const answer = await fetch(`${door}/v1/transactions?receipts=none`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Buffer.from(`${door} ${i} ${since}`),
    });
    if (!answer.ok) throw new Error(`bench: ${door} answered ${answer.status}: ${await answer.text()}`);
    await answer.arrayBuffer();
    if (i >= 0) times.push(performance.now() - since);
    // What the others say of it afterwards is not to stand in the way of the next one.
    await pause(delayMs);
  }
  return median(times);
}
