// `synod sim --explain`: how a protocol works, to watch: one decision, the crash of the leader and the next decision without it, and its return, in the
// simulator's cluster of real cores, as a chart of messages (chart.ts). Nothing else goes wrong in it.

import { describeMessage } from '../../protocol/describe.ts';
import type { ReplicaMessage } from '../../protocol/messages.ts';
import { hasLeader, mainsOf, membersMin, type Protocol, quorumsOf } from '../../protocol/modes.ts';
import { SimClient } from '../../sim/clients.ts';
import { Cluster, calm } from '../../sim/cluster.ts';
import { Chart } from './chart.ts';

/** Of each message, and of each synced write. */
const STEP_MS = 10;
/** Said whether or not anything is ordered. */
const QUIET: ReadonlySet<ReplicaMessage['kind']> = new Set(['status', 'checkpoint']);
const DEADLINE_MS = 60_000;
/** Afterwards, for those who hear of it later. */
const AFTER_MS = 8 * STEP_MS;

export interface ExplainOptions {
  readonly protocol: Protocol;
  /** Default: as few as bear one fault. */
  readonly n?: number | undefined;
}

/** Writes the chart, line by line. The same every time. */
export function explainProtocol(
  { protocol, n = membersMin(protocol) }: ExplainOptions,
  write: (line: string) => void,
): void {
  const cluster = new Cluster({ n, protocol, seed: 3 });
  const { genesis } = cluster;
  const client = new SimClient(genesis, 'client');
  const mains = mainsOf(genesis).map(Number);
  const chart = new Chart(
    cluster.nodes.map(({ id }) => `node-${id}`),
    write,
  );
  const order = (to: number, what: string) => {
    const bundle = client.bundle([Buffer.from(what)]);
    chart.did(ms(), to, `node-${to} is given a bundle by a client`);
    cluster.submit(to, bundle);
    const isIn = () => cluster.live().every((id) => !mains.includes(id) || cluster.has(id, bundle));
    if (!cluster.until(isIn, DEADLINE_MS)) throw new Error(`${protocol}: not ordered`);
    cluster.run(AFTER_MS);
  };
  let began = cluster.now;
  const ms = () => cluster.now - began;
  const section = (words: string) => {
    began = cluster.now;
    chart.section(words);
  };

  // The first ones open sessions, rounds and connections.
  cluster.run(3_000);
  for (let i = 0; i < 5; i++) {
    const bundle = client.bundle([Buffer.from(`before ${i}`)]);
    cluster.submit(cluster.primary, bundle);
    cluster.until(() => mains.every((id) => cluster.has(id, bundle)), DEADLINE_MS);
    // The last one not long before: what follows an idle time is said twice.
    cluster.run(i < 4 ? 700 : 60);
  }
  cluster.faults = { ...calm, delayMs: [STEP_MS, STEP_MS], writeMs: [STEP_MS, STEP_MS] };
  listen(cluster, chart, ms);

  const { f, quorum } = quorumsOf(genesis);
  const leader = cluster.primary;
  const other = mains.find((id) => id !== leader)!; // one bears a fault
  write(
    `${protocol}: ${n} replicas, which bear ${f} that ${protocol === 'pbft' ? 'may do anything' : 'fall silent'}; a quorum is ${quorum}.`,
  );
  write(
    `A message takes ${STEP_MS} ms, a synced write too. ● says something to ▶ and ◀; ◆ does something. Statuses and checkpoints are left out, and what keeps`,
  );
  write('a leader known while nothing is ordered.');
  section(
    hasLeader({ protocol })
      ? `A decision, asked of node-${leader}, which leads.`
      : `A decision, asked of node-${leader}. Nobody leads.`,
  );
  order(leader, 'first');
  section(`The same, asked of node-${other}.`);
  order(other, 'second');
  section(
    `node-${leader} crashes, and node-${other} is given a bundle. The view timeout is ${genesis.parameters.viewTimeoutMs} ms.`,
  );
  cluster.crash(leader);
  order(other, 'third');
  section(`node-${leader} comes back.`);
  cluster.boot(leader);
  const height = () => cluster.height(leader);
  const newest = Math.max(...cluster.live().map((id) => cluster.height(id)));
  if (!cluster.until(() => height() >= newest, DEADLINE_MS)) throw new Error(`${protocol}: it does not come back`);
  cluster.run(AFTER_MS);
  chart.end();
}

/** All that is said and done from now on, onto the chart. */
function listen(cluster: Cluster, chart: Chart, ms: () => number): void {
  cluster.tamper = (from, to, message) => {
    if (!QUIET.has(message.kind) && !isBeat(message)) chart.said(ms(), { from, to, text: describeMessage(message) });
    return message;
  };
  cluster.trace.sink = (line) => {
    const [, id, text = ''] = /^\s*\S+ node-(\d+) (.*)$/.exec(line) ?? [];
    if (id === undefined || text.startsWith('hears ')) return;
    if (text.startsWith('crashes')) chart.did(ms(), Number(id), `node-${id} crashes`, '✕');
    else if (text.startsWith('starts ')) chart.did(ms(), Number(id), `node-${id} ${text}`, '●');
    else if (!text.startsWith('checkpoint-stable')) chart.did(ms(), Number(id), `node-${id} ${inWords(text)}`);
  };
}

/** `view-entered {"view":1,"primary":1}` without the signs of JSON. */
const inWords = (event: string): string => event.replace(/[{}"]/g, '').replace(/:/g, ' ').replace(/,/g, ', ');

/** Says that a leader is there, and nothing else. */
const isBeat = (message: ReplicaMessage): boolean => message.kind === 'append-entries' && message.entry === null;
