// docs/family.md: its figures are measured here, in simulated delays and writes, and the page must say the same. FAMILY_PAGE=write puts them there.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { mainsOf, membersMin, type Protocol, protocols, quorumsOf } from '../protocol/modes.ts';
import { fastQuorum } from '../protocol/quorum.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster, calm } from '../sim/cluster.ts';

t.setTimeout(0);

const page = fileURLToPath(new URL('../../docs/family.md', import.meta.url));
const STEP_MS = 10;
const T = 500;
/** Said whether or not anything is ordered. */
const QUIET: ReadonlySet<string> = new Set(['status', 'checkpoint', 'open-round']);
const text = (value: string) => Buffer.from(value);

interface Measured {
  /** Steps of `STEP_MS` from a bundle's arrival until it is decided there. */
  readonly steps: number;
  /** Messages of the decision, each to one replica. */
  readonly messages: number;
  readonly toAuxiliary: number;
}

/** One decision in an idle cluster in which only messages, or only synced writes, take time. */
function measure(protocol: Protocol, n: number, what: 'delays' | 'writes', at: 'leader' | 'other'): Measured {
  const cluster = new Cluster({ n, protocol, seed: 3 });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(3_000);
  const step = [STEP_MS, STEP_MS] as const;
  cluster.faults =
    what === 'delays' ? { ...calm, delayMs: step, writeMs: [0, 0] } : { ...calm, delayMs: [0, 0], writeMs: step };
  const leader = cluster.primary;
  const mains = mainsOf(cluster.genesis).map(Number);
  const to = at === 'leader' ? leader : mains.find((id) => id !== leader)!;
  const order = () => {
    const bundle = client.bundle([text(`${cluster.now}`)]);
    const from = cluster.now;
    cluster.submit(to, bundle);
    if (!cluster.until(() => cluster.has(to, bundle), 20_000)) throw new Error(`${protocol}: not ordered`);
    const steps = (cluster.now - from) / STEP_MS;
    cluster.until(() => mains.every((id) => cluster.has(id, bundle)), 20_000);
    return steps;
  };
  // The first ones open sessions, rounds and checkpoints.
  for (let i = 0; i < 8; i++) {
    order();
    cluster.run(700);
  }
  // Not long before, so that nothing is thought to be lost and said again.
  order();
  cluster.run(60);
  let [messages, toAuxiliary] = [0, 0];
  cluster.tamper = (_, receiver, message) => {
    if (!QUIET.has(message.kind)) {
      messages += 1;
      if (!mains.includes(receiver)) toAuxiliary += 1;
    }
    return message;
  };
  const steps = order();
  cluster.run(80);
  cluster.tamper = null;
  return { steps, messages, toAuxiliary };
}

/** From the crash of the leader until a bundle that another one was given then is decided there, in view timeouts. */
function failover(protocol: Protocol, n: number): number {
  const cluster = new Cluster({ n, protocol, seed: 5 });
  const client = new SimClient(cluster.genesis, 'alice');
  cluster.run(3_000);
  const leader = cluster.primary;
  const other = mainsOf(cluster.genesis)
    .map(Number)
    .find((id) => id !== leader)!;
  const warm = client.bundle([text('warm')]);
  cluster.submit(leader, warm);
  cluster.until(() => cluster.has(other, warm), 20_000);
  cluster.run(1_000);
  cluster.crash(leader);
  const from = cluster.now;
  const bundle = client.bundle([text('after')]);
  cluster.submit(other, bundle);
  if (!cluster.until(() => cluster.has(other, bundle), 60_000)) throw new Error(`${protocol}: no take-over`);
  return (cluster.now - from) / T;
}

const shown = (steps: number): string => (Number.isInteger(steps) ? `${steps}` : steps.toFixed(1));

function row(protocol: Protocol): string {
  const n = membersMin(protocol);
  const { f, quorum } = quorumsOf(new Cluster({ n, protocol }).genesis);
  const many = protocol === 'pbft' ? 7 : 5;
  const at = (what: 'delays' | 'writes', where: 'leader' | 'other', size = n) => measure(protocol, size, what, where);
  const fast = protocol === 'fast-paxos' ? `${quorum}, fast ${fastQuorum(n)}` : `${quorum}`;
  const cells = [
    `\`${protocol}\``,
    `${n} for f = ${f}`,
    fast,
    shown(at('delays', 'leader').steps),
    shown(at('delays', 'other').steps),
    shown(at('delays', 'other', many).steps),
    shown(at('writes', 'leader').steps),
    `${at('delays', 'leader').messages}`,
    `${at('delays', 'leader', many).messages}`,
    `${failover(protocol, n).toFixed(1)} T`,
  ];
  return `| ${cells.join(' | ')} |`;
}

t.test('docs/family.md says what the simulator measures', async (t) => {
  const written = readFileSync(page, 'utf8');
  const [begin, end] = ['<!-- measured -->\n', '<!-- /measured -->'];
  const [from, to] = [written.indexOf(begin) + begin.length, written.indexOf(end)];
  t.ok(from > begin.length && to > from);
  const head = written.slice(from, to).split('\n').slice(0, 2);
  const table = `${[...head, ...protocols.map(row)].join('\n')}\n`;
  if (process.env.FAMILY_PAGE === 'write') writeFileSync(page, written.slice(0, from) + table + written.slice(to));
  else t.equal(written.slice(from, to), table, 'FAMILY_PAGE=write puts them there');
  t.match(head[0], /message delays/);
  t.ok(join(page, '..').endsWith('docs'));
});

t.test('CHP-1: an auxiliary hears nothing of a decision while the mains are well', async (t) => {
  t.equal(measure('cheap-paxos', 3, 'delays', 'leader').toAuxiliary, 0);
  t.equal(measure('cheap-paxos', 5, 'delays', 'leader').toAuxiliary, 0);
});
