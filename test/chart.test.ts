// `synod sim --explain`: the chart, and what it shows of each protocol.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Chart } from '../daemon/sim/chart.ts';
import { explainProtocol } from '../daemon/sim/explain.ts';
import { type Protocol, protocols } from '../protocol/modes.ts';
import { synod } from './program.ts';

t.setTimeout(200_000);

t.test('a line for each message, whoever hears it, and for each thing that is done', async (t) => {
  const lines: string[] = [];
  const chart = new Chart(['node-0', 'node-1', 'node-2', 'node-3'], (line) => void lines.push(line));
  chart.section('A title.');
  for (const to of [0, 3]) chart.said(0, { from: 1, to, text: 'hello' });
  chart.said(10, { from: 3, to: 1, text: 'back' });
  chart.said(10, { from: 3, to: 1, text: 'back' });
  chart.did(12, 2, 'node-2 crashes', '✕');
  chart.said(20, { from: 0, to: 3, text: 'past one that is down' });
  chart.did(25, 2, 'node-2 starts', '●');
  chart.did(30, 0, 'node-0 decides');
  chart.end();
  t.strictSame(lines, [
    '',
    'A title.',
    '',
    '       ms   node-0   node-1   node-2   node-3',
    '        0   ◀────────●────────┼────────▶         hello',
    '       10   │        ◀────────┼────────●         back',
    '       10   │        ◀────────┼────────●         back',
    '       12   │        │        ✕        │         node-2 crashes',
    '       20   ●────────┼────────┼────────▶         past one that is down',
    '       25   │        │        ●        │         node-2 starts',
    '       30   ◆        │        │        │         node-0 decides',
  ]);
});

const page = readFileSync(fileURLToPath(new URL('../../docs/family.md', import.meta.url)), 'utf8');

/** What is said until all have decided, where nothing is wrong; a message to all is said once. */
const decisions: Readonly<Record<Protocol, string>> = {
  pbft: 'pre-prepare, 3 prepare, 4 commit',
  'basic-paxos': 'paxos-prepare, 2 promise, accept, 3 accepted',
  'multi-paxos': 'accept, 3 accepted',
  'cheap-paxos': 'accept, 2 accepted',
  'fast-paxos': 'fast-accept, 3 fast-accepted',
  raft: 'append-entries, 2 appended',
};

for (const protocol of protocols)
  t.test(`${protocol}: a decision, a crash, and the way back, the same every time`, async (t) => {
    const [once, again] = [0, 1].map(() => {
      const lines: string[] = [];
      explainProtocol({ protocol }, (line) => void lines.push(line));
      return lines;
    });
    t.strictSame(once, again);
    const chart = once!.join('\n');
    const [, first = '', second = '', crash = '', back = ''] = chart.split(/\n\n.*\n\n/);
    const said = [...first.matchAll(/[▶◀].* {2}([a-z-]+) /g)].map(([, kind]) => kind!);
    const counted = new Map<string, number>();
    for (const kind of said) if (kind !== 'open-round') counted.set(kind, (counted.get(kind) ?? 0) + 1);
    t.equal(
      [...counted].map(([kind, count]) => (count === 1 ? kind : `${count} ${kind}`)).join(', '),
      decisions[protocol],
    );
    if (protocol === 'multi-paxos') t.ok(page.includes(`\n\`\`\`\n${first}\n\`\`\``), 'docs/family.md shows it');
    t.match(second, 'is given a bundle');
    t.match(crash, /✕.*crashes/);
    if (protocol !== 'basic-paxos') t.match(crash, 'view-change-started', 'somebody else takes over');
    for (const part of [first, second, crash]) t.match(part, /◆.*decides height/);
    t.match(back, /blocks/, 'it takes what it has missed');
    t.match(back, /◆.*decides height/);
  });

t.test('synod sim --explain: on standard output; not with what is for lives of seeds', async (t) => {
  const { code, stdout } = await synod(['sim', '--explain', '--protocol', 'raft', '--n', '5']);
  t.equal(code, 0);
  t.match(stdout, 'raft: 5 replicas, which bear 2');
  t.match(stdout, 'append-entries');
  for (const flags of [['--seed', '1'], ['--trace'], ['--json']]) {
    const refused = await synod(['sim', '--explain', ...flags]);
    t.equal(refused.code, 2);
    t.match(refused.stderr, `leave out ${flags[0]} [usage]`);
  }
  t.equal((await synod(['sim', '--explain', '--n', '3'])).code, 2, 'pbft needs four');
});
