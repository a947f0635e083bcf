// `synod status`: where every replica stands, and what the ones that do not move wait for.

import { Command } from 'commander';
import { openClient } from './clients.ts';
import { Complaint, EXIT } from './errors.ts';
import { addNetworkOptions, findNetwork, type KnownReplica, type Network, type NetworkOptions } from './network.ts';
import { duration } from './options.ts';
import { paletteFor, table, writeLine } from './output.ts';
import { fetchStatus, type ReplicaStatus } from './replica-http.ts';

interface Options extends NetworkOptions {
  readonly json?: true;
  readonly timeout: number;
}

export function statusCommand(): Command {
  const command = new Command('status')
    .description('where every replica stands, and what it waits for')
    .option('--json', 'for programs')
    .option('--timeout <time>', 'for each replica', duration, 3_000)
    .addHelpText(
      'after',
      `
Asks each replica's HTTP door where it is known (--network), else the door for clients.
Exit code 4 if no replica answers.

Examples:
  $ synod status --network net
  $ synod status --genesis genesis.json --replica node-0=ws://10.0.0.1:7000 --replica node-1=ws://10.0.0.2:7000`,
    );
  return addNetworkOptions(command).action(status);
}

interface Row {
  readonly name: string;
  readonly address: string;
  /** Null: no answer. */
  readonly status: Pick<ReplicaStatus, 'view' | 'height' | 'lowest'> | null;
  readonly detail: ReplicaStatus | null;
}

async function status(options: Options): Promise<void> {
  const network = findNetwork(options);
  const byHttp = await Promise.all(network.replicas.map((replica) => askHttp(replica, options.timeout)));
  const missing = network.replicas.filter((_, index) => byHttp[index] === null);
  const byDoor = missing.length === 0 ? new Map<string, Row>() : await askDoor(network, options.timeout);
  const rows = network.replicas.map(
    (replica, index): Row =>
      byHttp[index] ??
      byDoor.get(replica.name) ?? { name: replica.name, address: replica.url, status: null, detail: null },
  );
  if (options.json === true) await writeLine(JSON.stringify({ replicas: rows.map(jsonOf) }));
  else await print(rows);
  if (rows.every((row) => row.status === null))
    throw new Complaint({
      code: 'no-replica-answers',
      sentence: `none of ${rows.length} replicas answered within ${options.timeout} ms`,
      remedy: 'Are they running, and is this the right network?',
      exit: EXIT.unreachable,
    });
}

async function askHttp({ name, http }: KnownReplica, timeout: number): Promise<Row | null> {
  if (http === null) return null;
  const detail = await fetchStatus(http, timeout);
  return detail === null ? null : { name, address: http, status: detail, detail };
}

/** What the replicas claim to a client: needs f+1 of them, says less, works from anywhere. */
async function askDoor(network: Network, timeout: number): Promise<Map<string, Row>> {
  const rows = new Map<string, Row>();
  try {
    const client = await openClient({ network, options: { connectTimeoutMs: timeout } });
    // The connection came up with f+1; the others get a moment of their own.
    await new Promise((resolve) => setTimeout(resolve, Math.min(300, timeout)));
    for (const { name, url, claimedHeight, claimedView, lowest } of client.status())
      if (claimedHeight !== null && claimedView !== null)
        rows.set(name, {
          name,
          address: url,
          status: { height: claimedHeight, view: claimedView, lowest: lowest ?? 0 },
          detail: null,
        });
    await client.close();
  } catch {
    // Too few answered: the rows say so.
  }
  return rows;
}

function jsonOf({ name, address, status: standing, detail }: Row) {
  return { name, address, answers: standing !== null, ...(standing ?? {}), ...(detail ?? {}) };
}

async function print(rows: readonly Row[]): Promise<void> {
  const { red, yellow, green, dim } = paletteFor(process.stdout);
  const lines = table([
    ['replica', 'view', 'primary', 'phase', 'height', 'stable', 'pool', 'peers', 'address'],
    ...rows.map(({ name, address, status: standing, detail }) => [
      name,
      String(standing?.view ?? '-'),
      detail?.primary.name ?? '-',
      standing === null ? 'no answer' : (detail?.phase ?? 'answers'),
      String(standing?.height ?? '-'),
      String(detail?.stable ?? '-'),
      detail === null ? '-' : String(detail.pool.bundles),
      detail === null ? '-' : `${detail.peers.filter((peer) => peer.connected).length}/${detail.peers.length}`,
      address,
    ]),
  ]);
  for (const [index, line] of lines.entries()) {
    const row = rows[index - 1];
    const paint = row === undefined ? dim : row.status === null ? red : row.detail?.ready === false ? yellow : green;
    await writeLine(paint(line));
  }
  for (const { name, detail } of rows) {
    if (detail?.reason !== null && detail !== null)
      await writeLine(`${name}: not ready, ${detail.reason.message} [${detail.reason.code}]`);
  }
}
