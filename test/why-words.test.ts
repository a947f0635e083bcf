// Every sentence of `synod why` and `synod explain`, the answers of /v1/explain, and what the two commands make of doors that lie,
// are slow, or are not there (WHY-5). The stalled states themselves are made in why.test.ts.

import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import t from 'tap';
import { toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { Why, type WhyParts } from '../daemon/http/why.ts';
import openapi from '../daemon/openapi.json' with { type: 'json' };
import type { ReplicaPort } from '../daemon/ports.ts';
import type { Action, Cause, CauseCode, Report } from '../daemon/why/diagnosis.ts';
import { actionFor, diagnose } from '../daemon/why/diagnosis.ts';
import { diagnoseNetwork } from '../daemon/why/network.ts';
import { bundleWords, heightWords, refusals } from '../daemon/why/place.ts';
import { RecentRefusals } from '../daemon/why/refused.ts';
import {
  actionWords,
  age,
  causeWords,
  headline,
  named,
  networkHeadline,
  peerWords,
  type Speech,
  speechOf,
  standingWords,
  stateWords,
  waitWords,
} from '../daemon/why/words.ts';
import type { AdmissionCode, Explanation, Wait } from '../protocol/core.ts';
import type { Hash, Height, ReplicaId } from '../protocol/types.ts';
import { asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import { synod } from './program.ts';
import * as fx from './wire-fixtures.ts';

// Processes are slow to start on a busy machine.
t.setTimeout(240_000);

const ids = (...numbers: number[]): ReplicaId[] => numbers.map(asReplicaId);
const names = ['north', 'south', 'east', 'west'];
const at = asMillis(1_000_000);
const ago = (ms: number) => asMillis(at - ms);
const speech: Speech = { at, nameOf: (id) => names[id]!, heardAt: (id) => (id === 3 ? null : ago(1_500 * id)) };
const calm = (self = 0): Explanation => fx.calm(asReplicaId(self), at);
const report = (change: Partial<Explanation> = {}, more: Partial<Report> = {}): Report => ({
  explanation: { ...calm(), ...change },
  draining: false,
  writingMs: 0,
  ...more,
});
const counts = { have: 2, need: 3, of: 4 };
const h = asHeight;

const sentences: readonly (readonly [Cause, string])[] = [
  [{ code: 'draining', who: ids(0), since: null }, 'north is shutting down'],
  [
    {
      code: 'quarantine',
      stage: 'standing',
      who: ids(3),
      since: ago(3_000),
      height: h(7),
      view: asView(0),
      have: 1,
      need: 3,
      from: ids(1, 2),
    },
    'west votes for nothing for 3.0 s, for what its key has signed is not known; 1 of the 3 replicas that must say what they can prove have done so, missing south and east',
  ],
  [
    {
      code: 'quarantine',
      stage: 'readmission',
      who: ids(3),
      since: ago(3_000),
      height: h(40),
      view: asView(0),
      have: 0,
      need: 1,
      from: [],
    },
    'west votes for nothing for 3.0 s, for what its key has signed is not known; it votes again when block 40 is decided',
  ],
  [
    {
      code: 'quarantine',
      stage: 'view',
      who: ids(3),
      since: ago(3_000),
      height: h(40),
      view: asView(9),
      have: 0,
      need: 1,
      from: [],
    },
    'west votes for nothing for 3.0 s, for what its key has signed is not known; it votes again when the others have entered view 9',
  ],
  [
    { code: 'no-quorum', who: ids(2, 3), since: ago(3_000), ...counts },
    '2 of 4 replicas answer, 3 are needed; east was last heard 3.0 s ago, west was never heard',
  ],
  [
    { code: 'working-set', who: ids(0, 2), from: [], since: ago(7_000) },
    'nothing can be ordered for 7.0 s until north or east is back: only the latest working set knows what was chosen',
  ],
  [
    { code: 'working-set', who: ids(0), from: ids(0), since: ago(7_000) },
    'nothing can be ordered for 7.0 s until north promises: only the latest working set knows what was chosen; north answers and has not promised',
  ],
  [
    { code: 'view-change', stage: 'asked', who: ids(3), since: ago(40), view: asView(2), ...counts },
    'no view is active for 40 ms: 2 of 4 replicas ask for view 2, 3 are needed; west answers and has not asked',
  ],
  [
    { code: 'view-change', stage: 'asked', who: [], since: ago(40), view: asView(2), ...counts },
    'no view is active for 40 ms: 2 of 4 replicas ask for view 2, 3 are needed',
  ],
  [
    { code: 'view-change', stage: 'opening', who: ids(2), since: ago(300_000), view: asView(2), ...counts },
    'no view is active: east has not opened view 2 for 5 min',
  ],
  [
    { code: 'view-change', stage: 'opening', who: [], since: ago(30), view: asView(2), ...counts },
    'no view is active: view 2 is being opened for 30 ms',
  ],
  ...(
    [
      ['leader', [], 2, 'no leader is heard for 1.5 s: 2 of 4 replicas say so, 3 must for one to be elected'],
      ['leader', [], 3, 'no leader is heard for 1.5 s: 3 of 4 replicas say so, enough for one of them to run'],
      [
        'leader',
        [0],
        1,
        'north hears no leader for 1.5 s, and others do: 1 of 4 replicas says so, 3 must for another to be elected',
      ],
      [
        'promise',
        [0, 3],
        2,
        'no leader is elected: east runs in view 6 and has 2 of 4 promises for 1.5 s, 3 are needed; north and west answer and have not promised',
      ],
      [
        'vote',
        [3],
        2,
        'no leader is elected: east runs in view 6 and has 2 of 4 votes for 1.5 s, 3 are needed; west answers and has not voted',
      ],
      ['vote', [], 1, 'no leader is elected: east runs in view 6 and has 1 of 4 votes for 1.5 s, 3 are needed'],
      [
        'noted',
        [1],
        1,
        'nothing new is ordered before the working set of view 6 is noted by all of it, and by 3 of 4 replicas for 1.5 s: 1 has done so; south answers and has not noted it',
      ],
    ] as const
  ).map(([stage, who, have, words]): [Cause, string] => [
    {
      code: 'view-change',
      stage,
      who: ids(...who),
      since: ago(1_500),
      view: asView(6),
      ...counts,
      have,
    },
    words,
  ]),
  [
    { code: 'member-away', who: ids(1), since: ago(1_500), have: 6, need: 5, of: 7 },
    'south was last heard 1.5 s ago; 6 of 7 answer, 5 are needed',
  ],
  [
    { code: 'catching-up', who: ids(3), from: ids(1), since: ago(40), height: h(12), to: h(340), chunks: null },
    'west is catching up: at height 12 of 340, asks south, gained something 40 ms ago',
  ],
  [
    {
      code: 'catching-up',
      who: ids(3),
      from: [],
      since: null,
      height: h(0),
      to: h(340),
      chunks: { have: 3, need: 257 },
    },
    'west is catching up: at height 0 of 340 (3 of 257 chunks of a checkpoint)',
  ],
  [
    { code: 'behind', who: ids(3), from: ids(0, 1), since: ago(5_000), height: h(12), to: h(340), chunks: null },
    'west is behind: at height 12 of 340, and nothing has come for 5.0 s; north and south answer and are ahead',
  ],
  [
    { code: 'behind', who: ids(3), from: ids(1), since: ago(5_000), height: h(12), to: h(340), chunks: null },
    'west is behind: at height 12 of 340, and nothing has come for 5.0 s; south answers and is ahead',
  ],
  [
    { code: 'behind', who: ids(3), from: [], since: ago(5_000), height: h(12), to: h(340), chunks: null },
    'west is behind: at height 12 of 340, and nothing has come for 5.0 s; nobody who is ahead answers',
  ],
  [
    { code: 'block-missing', who: ids(3), from: ids(0, 1, 2), since: ago(900), height: h(7) },
    'west lacks the certified block 7 for 900 ms; north, south and east signed for it',
  ],
  [{ code: 'block-missing', who: ids(3), from: [], since: null, height: h(7) }, 'west lacks the certified block 7'],
  ...(
    [
      ['prepare', 'prepare for block 7'],
      ['commit', 'commit for block 7'],
      ['view-change', 'request for view 1'],
      ['new-view', 'new-view for view 1'],
      ['promise', 'promise for view 1'],
      ['vote', 'vote for view 1'],
      ['phase-1', 'promise for block 7'],
      ['noted', 'note of the working set of view 1'],
      ['lead', 'mark that it leads view 1'],
      ['checkpoint', 'signature on the checkpoint at 7'],
      ['write', 'synced write'],
    ] as const
  ).map(([what, words]): [Cause, string] => [
    { code: 'disk-slow', who: ids(1), since: ago(2_000), height: h(7), view: asView(1), what },
    `the disk of south is slow: its ${words} is not durable for 2.0 s`,
  ]),
  [
    { code: 'disk-slow', who: ids(1, 2), since: ago(2_000), height: h(7), view: asView(1), what: 'prepare' },
    'the disks of south and east are slow: their votes are not durable for 2.0 s',
  ],
  [
    { code: 'clock-off', who: ids(3), since: null, height: h(7), offMs: 12_000 },
    "the clock of west is 12.0 s behind the proposal for block 7, or the primary's is wrong",
  ],
  [
    { code: 'clock-off', who: ids(3), since: null, height: h(7), offMs: -12_000 },
    "the clock of west is 12.0 s ahead of the proposal for block 7, or the primary's is wrong",
  ],
  [
    { code: 'votes-missing', phase: 'prepare', who: ids(2, 3), since: ago(700), height: h(7), ...counts },
    'block 7 has 2 of 4 prepares for 700 ms, 3 are needed; east and west answer and have not voted',
  ],
  [
    { code: 'votes-missing', phase: 'commit', who: ids(3), since: ago(700), height: h(7), ...counts },
    'block 7 has 2 of 4 commits for 700 ms, 3 are needed; west answers and has not voted',
  ],
  [
    { code: 'votes-missing', phase: 'promise', who: ids(3), since: ago(700), height: h(7), ...counts },
    'block 7 has 2 of 4 promises for 700 ms, 3 are needed; west answers and has not promised',
  ],
  [
    { code: 'proposal-missing', who: ids(0), since: ago(300), height: h(5), bundles: 3 },
    '3 bundles wait, and block 5 has not come from north, the primary, for 300 ms',
  ],
  [
    { code: 'proposal-missing', who: ids(0), since: ago(300), height: h(5), bundles: 1 },
    '1 bundle waits, and block 5 has not come from north, the primary, for 300 ms',
  ],
  [
    { code: 'checkpoint-missing', who: ids(3), since: ago(4_000), height: h(64), ...counts },
    'nothing is proposed before the checkpoint at 64, which has 2 of 4 signatures for 4.0 s, 3 are needed; west answers and has not signed',
  ],
  [
    { code: 'primary-silent', who: ids(0), since: ago(320), view: asView(4) },
    'north, the primary of view 4, has not been heard for 320 ms',
  ],
  [
    {
      code: 'primary-slow',
      who: ids(0),
      since: ago(320),
      view: asView(4),
      percent: 12,
      lateMs: 600,
      lateMsMax: 1_000,
    },
    'north, the primary of view 4, orders 12 % of what it could: it was late for 600 ms, and after 1.0 s its replacement is asked for',
  ],
  [
    { code: 'stalled', who: ids(0), since: ago(320), what: 'disk', ms: 4_000 },
    'the disk of north itself took 4.0 s, 320 ms ago: it blames nobody for that time',
  ],
  [
    { code: 'stalled', who: ids(0), since: ago(320), what: 'loop', ms: 700 },
    'north itself stood still for 700 ms, 320 ms ago (event loop): it blames nobody for that time',
  ],
  [
    { code: 'member-away', who: ids(1), since: ago(1_500), have: 3, need: 3, of: 4 },
    'south was last heard 1.5 s ago; 3 of 4 answer, so no other may fail',
  ],
  [{ code: 'door-silent', who: ids(1), since: null }, 'the HTTP door of south does not answer, and the peers hear it'],
  [
    { code: 'cut-off', who: ids(0), since: ago(9_000), have: 3, need: 3, of: 4 },
    'north runs and does not hear a quorum for 9.0 s; the others do, 3 of 4',
  ],
  [
    { code: 'split', who: ids(2, 3), since: ago(9_000), have: 4, need: 3, of: 4, groups: [ids(0, 1), ids(2, 3)] },
    '4 of 4 replicas run, and no 3 of them hear each other for 9.0 s: {north and south} {east and west}',
  ],
  [
    { code: 'link-down', who: ids(0, 3), since: null, pairs: [[asReplicaId(0), asReplicaId(3)]] },
    'north and west do not hear each other',
  ],
  [
    { code: 'unreachable', who: ids(0, 1, 2, 3), since: null },
    'north, south, east and west cannot be reached, so nothing is known of the network',
  ],
];

t.test('each cause in words, and each has an action or none on purpose', async (t) => {
  for (const [cause, words] of sentences) t.equal(causeWords(cause, speech), words, cause.code);
  const told = new Set(sentences.map(([{ code }]) => code));
  const every: Record<CauseCode, string | null> = {
    draining: null,
    quarantine: 'look',
    'no-quorum': 'start',
    'working-set': 'start',
    'view-change': 'look',
    'catching-up': 'wait',
    behind: 'look',
    'block-missing': 'look',
    'disk-slow': 'disk',
    'clock-off': 'clock',
    'votes-missing': 'look',
    'proposal-missing': 'wait',
    'checkpoint-missing': 'look',
    'primary-silent': 'wait',
    'primary-slow': 'wait',
    stalled: 'disk',
    'member-away': 'start',
    'door-silent': 'look',
    'cut-off': 'connect',
    split: 'connect',
    'link-down': 'connect',
    unreachable: 'start',
  };
  t.strictSame([...told].sort(), Object.keys(every).sort(), 'every code has its sentence here');
  for (const code of told) {
    const [cause] = sentences.find(([each]) => each.code === code)!;
    t.equal(actionFor(cause)?.code ?? null, every[code as CauseCode], code);
  }
  const ofSeveral: readonly CauseCode[] = ['door-silent', 'cut-off', 'split', 'link-down', 'unreachable'];
  const ofOne = [...told].filter((code) => !ofSeveral.includes(code));
  t.strictSame(
    [...openapi.components.schemas.Cause.properties.code.enum].sort(),
    ofOne.sort(),
    'openapi.json has them',
  );
  const operations = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  for (const code of told) t.match(operations, new RegExp(`^\\| \`${code}\` +\\| `, 'm'), `${code} is documented`);
});

t.test('each action in words', async (t) => {
  const cases: readonly (readonly [Action['code'], readonly ReplicaId[], number, string])[] = [
    ['start', ids(2, 3), 1, 'start east or west; where one runs already, it hangs or its network is broken'],
    ['start', ids(2), 1, 'start east; where one runs already, it hangs or its network is broken'],
    [
      'start',
      ids(1, 2, 3),
      2,
      'start any 2 of south, east and west; where one runs already, it hangs or its network is broken',
    ],
    ['connect', ids(0), 1, 'mend the network between north and the others'],
    ['look', ids(2, 3), 1, 'look at the log of east or west'],
    ['disk', ids(1), 1, 'look at the disk of south: a vote leaves only when it is durable'],
    ['clock', ids(1), 1, 'set the clock of south (NTP)'],
    [
      'submit',
      ids(1),
      0,
      'submit transactions if none come by themselves: the blocks that they make bring its vote back',
    ],
    ['wait', ids(1), 0, 'nothing yet: it goes on by itself, or another cause will show'],
  ];
  for (const [code, who, count, words] of cases) t.equal(actionWords({ code, who, count }, speech), words);
});

t.test('headlines, waits, peers, ages', async (t) => {
  const { explanation } = report({ height: h(9), view: asView(2), primary: asReplicaId(2) });
  const mine = speechOf(explanation, names);
  t.equal(
    headline(diagnose({ ...report(), explanation }), explanation, mine),
    'healthy, idle at height 9 in view 2 under east; 4 of 4 replicas answer',
  );
  const draining = report({}, { draining: true });
  t.equal(headline(diagnose(draining), draining.explanation, mine), 'shutting down: north is shutting down');
  t.strictSame(
    (['idle', 'ordering', 'view-change', 'catching-up', 'quarantine', 'cut-off', 'draining'] as const).map(stateWords),
    ['idle', 'ordering', 'between views', 'catching up', 'in quarantine', 'cut off', 'shutting down'],
  );
  const first: Cause = { code: 'cut-off', who: ids(0), since: null, have: 3, need: 3, of: 4 };
  const network = (state: Parameters<typeof networkHeadline>[0], cause: Cause | null, where = explanation) =>
    networkHeadline(state, cause, where, speech);
  t.equal(network('idle', null), 'healthy: all 4 replicas answer, idle at height 9 in view 2 under east');
  t.equal(network('ordering', null), 'healthy: all 4 replicas answer, ordering at height 9 in view 2 under east');
  t.match(network('ordering', first), /^ordering, not healthy: north runs/);
  t.match(network('view-change', first), /^between views, not healthy: north/);
  t.match(network('stopped', first), /^nothing is ordered: north/);
  t.match(
    network('stopped', { code: 'working-set', who: ids(0), from: [], since: null }),
    /^nothing can be ordered until/,
  );
  t.match(network('unreachable', { code: 'unreachable', who: ids(1), since: null }), /^south cannot be reached/);
  const wait = (what: Wait['what']): Wait => ({
    what,
    height: h(7),
    view: asView(3),
    have: 1,
    need: 3,
    missing: ids(2, 3),
    since: ago(100),
  });
  t.equal(waitWords(wait('commit'), speech), 'commit for block 7: 1 of 3 needed, missing east and west, for 100 ms');
  t.equal(waitWords(wait('new-view'), speech), 'new-view for view 3: 1 of 3 needed, missing east and west, for 100 ms');
  const between = { ...explanation, waits: [wait('view-change')] };
  t.equal(standingWords(between, speech), 'at height 9, asking for view 3');
  t.equal(waitWords(wait('vote'), speech), 'vote for view 3: 1 of 3 needed, missing east and west, for 100 ms');
  t.equal(waitWords(wait('phase-1'), speech), 'phase-1 for block 7: 1 of 3 needed, missing east and west, for 100 ms');
  t.equal(
    waitWords(wait('leader'), speech),
    'leader: none is heard, as 1 say and 3 must, missing east and west, for 100 ms',
  );
  const leaderless = { ...explanation, waits: [wait('leader')] };
  t.equal(standingWords(leaderless, speech), 'at height 9, without a leader');
  const running = { ...explanation, waits: [wait('promise'), wait('leader')] };
  t.equal(standingWords(running, speech), 'at height 9, asking for view 3');
  const peer = { ...explanation.peers[0]!, heardAt: ago(40), heard: 'prepare', height: h(3) };
  t.equal(peerWords(peer, speech), 'south: prepare 40 ms ago, at height 3 in view 0');
  t.equal(
    peerWords({ ...peer, connected: false }, speech),
    'south: prepare 40 ms ago, at height 3 in view 0, not connected',
  );
  t.equal(peerWords({ ...peer, heardAt: null }, speech), 'south: nothing was ever heard');
  t.strictSame([-5, 0, 999, 1_000, 119_900, 120_000, 7_200_000, 400_000_000].map(age), [
    '0 ms',
    '0 ms',
    '999 ms',
    '1.0 s',
    '119.9 s',
    '2 min',
    '2 h',
    '5 days',
  ]);
  const many = Array.from({ length: 40 }, (_, id) => asReplicaId(id));
  t.match(named(many, { nameOf: (id) => `n${id}` }), /^n0, n1, .*, n11 and 28 more$/, 'a list has its bound');
  t.equal(named([], speech), 'nobody');
});

t.test('WHY-5: names and kinds from elsewhere are printed as printable ASCII, within bounds', async (t) => {
  const evil = `\u001b[31mred\r\n\u202eevil${'x'.repeat(500)}`;
  const { explanation } = report();
  const hostile = speechOf(explanation, [evil, evil, evil, evil]);
  for (const [cause] of sentences) t.match(causeWords(cause, hostile), /^[\x20-\x7e]*$/, cause.code);
  const words = peerWords({ ...explanation.peers[0]!, heard: evil }, hostile);
  t.match(words, /^[\x20-\x7e]{1,400}$/);
});

t.test('WHY-2: who answers: connected, and heard within two timeouts', async (t) => {
  const peers = (change: Partial<Explanation['peers'][number]>) =>
    calm().peers.map((peer) => (peer.replica === 1 ? { ...peer, ...change } : peer));
  const away = (change: Partial<Explanation['peers'][number]>) => diagnose(report({ peers: peers(change) })).causes;
  t.strictSame(away({ heardAt: ago(1_000) }), [], 'two timeouts are no silence');
  t.match(away({ heardAt: ago(1_001) }), [{ code: 'member-away', who: [1], have: 3, need: 3, of: 4 }]);
  t.match(away({ connected: false }), [{ code: 'member-away', who: [1] }]);
  t.match(away({ heardAt: null, heard: null }), [{ code: 'member-away', who: [1], since: null }]);
  const two = calm().peers.map((peer) =>
    peer.replica === 1 ? peer : { ...peer, connected: false, heardAt: ago(peer.replica * 1_000) },
  );
  const wait: Wait = {
    what: 'prepare',
    height: h(1),
    view: asView(0),
    have: 2,
    need: 3,
    missing: ids(2, 3),
    since: ago(9_000),
  };
  const { causes } = diagnose(report({ peers: two, waits: [wait] }));
  t.strictSame(
    causes.map(({ code, since }) => [code, since]),
    [['no-quorum', ago(2_000)]],
    'lost when the second fell silent, and missing votes follow from it',
  );
});

t.test('WHY-3: what is waited for no longer than half a timeout is no cause', async (t) => {
  const wait = (ms: number, missing: number[]): Wait => ({
    what: 'commit',
    height: h(1),
    view: asView(0),
    have: 2,
    need: 3,
    missing: ids(...missing),
    since: ago(ms),
  });
  t.strictSame(diagnose(report({ waits: [wait(250, [2, 3])] })).causes, []);
  t.match(diagnose(report({ waits: [wait(251, [2, 3])] })).causes, [{ code: 'votes-missing', who: [2, 3] }]);
  t.strictSame(diagnose(report({ waits: [wait(250, [0, 3])] })).causes, []);
  const { causes } = diagnose(report({ waits: [wait(251, [0, 3])] }));
  t.match(
    causes,
    [
      { code: 'disk-slow', what: 'commit' },
      { code: 'votes-missing', who: [3] },
    ],
    'itself first',
  );
  t.strictSame(diagnose(report({}, { writingMs: 250 })).causes, []);
  t.match(diagnose(report({}, { writingMs: 251 })).causes, [{ code: 'disk-slow', since: ago(251), what: 'write' }]);
  // Without a working set no election succeeds, fast disk or not.
  const peers = calm().peers.map((peer) => (peer.replica === 3 ? { ...peer, connected: false } : peer));
  const waits: Wait[] = [
    { ...wait(400, [1, 2, 3]), what: 'leader' },
    { ...wait(40, [3]), what: 'working-set', have: 0, need: 1 },
  ];
  const lacking = diagnose(report({ peers, waits }, { writingMs: 251 }));
  t.match(lacking.causes, [{ code: 'working-set', who: [3], from: [] }, { code: 'disk-slow' }]);
  t.strictSame([lacking.causes.length, lacking.ready], [2, false]);
  t.match(lacking.action, { code: 'start', who: [3], count: 1 });
});

t.test('WHY-4: what follows from what another one lacks is left out', async (t) => {
  const asked = (reports: readonly (Report | null)[]) =>
    diagnoseNetwork({
      members: 4,
      quorum: 3,
      asked: reports.map((each, id) => ({
        replica: asReplicaId(id),
        report: each === null ? null : { ...each, explanation: { ...calm(id), ...pick(each.explanation) } },
      })),
    });
  const pick = ({ waits, phase }: Explanation) => ({ waits, phase });
  const wait = (what: Wait['what'], missing: number[], need = 3): Wait => ({
    what,
    height: h(1),
    view: asView(0),
    have: need === 3 ? 2 : 0,
    need,
    missing: ids(...missing),
    since: ago(400),
  });
  const codes = (...reports: (Report | null)[]) =>
    asked(reports).causes.map(({ cause, by }) => `${cause.code} ${cause.who} by ${by}`);
  const blames = report({ waits: [wait('prepare', [2, 3])] });
  t.strictSame(codes(blames, blames, report(), report()), ['votes-missing 2,3 by 0,1']);
  const slow = report({ waits: [wait('prepare', [3])] }, {});
  t.strictSame(codes(blames, blames, report(), slow), ['disk-slow 3 by 3', 'votes-missing 2 by 0,1'].sort(byCount));
  const without = report({ waits: [wait('pre-prepare', [0], 1)] });
  t.strictSame(codes(blames, blames, without, without), ['proposal-missing 0 by 2,3']);
  t.strictSame(codes(report(), report(), null, report()), ['door-silent 2 by ']);
  t.match(asked([null, null, null, null]), { state: 'unreachable', action: { code: 'start' } });
});
/** Causes that more say come first. */
const byCount = (a: string, b: string) => b.split(' by ')[1]!.length - a.split(' by ')[1]!.length;

// ---- places -----------------------------------------------------------------------------------------------------------------

const healthy = diagnose(report());
const candidate = {
  hash: fx.hashOf(7),
  accepted: true,
  block: { proposer: asReplicaId(0), bundles: 2, transactions: 5 },
  prepares: ids(0, 1),
  commits: ids(),
  acceptedAt: ago(700),
  preparedAt: null,
};
const facts = (stage: Parameters<typeof heightWords>[0]['explanation']['stage'], candidates = [candidate]) => ({
  explanation: { height: h(7), stage, view: asView(1), candidates },
  decided: null,
  head: h(6),
  lowest: h(3),
  quorum: 3,
  members: 4,
  trusted: false,
  diagnosis: healthy,
});

t.test('a height in words', async (t) => {
  t.equal(heightWords(facts('pruned'), speech), 'block 7 is decided, and kept no more: the lowest that is kept is 3');
  t.equal(heightWords(facts('unknown'), speech), 'block 7 is not proposed in view 1: the last decided one is 6');
  t.equal(
    heightWords(facts('proposed'), speech),
    'block 7 is proposed, not decided: 2 of 4 prepares (north and south), 3 are needed, missing east and west for 700 ms',
  );
  t.equal(
    heightWords(facts('proposed', [{ ...candidate, block: null as never, acceptedAt: null as never }]), speech),
    'block 7 is proposed, not decided: the block itself is not here, 2 of 4 prepares (north and south), 3 are needed, missing east and west',
  );
  t.match(
    heightWords(facts('proposed', [candidate, candidate]), speech),
    /2 rival blocks were seen, a replica is faulty/,
  );
  const prepared = { ...candidate, prepares: ids(0, 1, 2), commits: ids(2), preparedAt: ago(90) as never };
  t.equal(
    heightWords(facts('prepared', [prepared]), speech),
    'block 7 is prepared, not decided: 1 of 4 commits (east), 3 are needed, missing north, south and west for 90 ms',
  );
  const accepted = { ...candidate, prepares: [], commits: ids(2), acceptedAt: null as never };
  const trusted = (...args: Parameters<typeof facts>) => heightWords({ ...facts(...args), trusted: true }, speech);
  const acceptances = '1 of 4 acceptances (east), 3 are needed, missing north, south and west';
  t.equal(trusted('proposed', [accepted]), `block 7 is proposed, not decided: ${acceptances}`);
  t.equal(
    trusted('proposed', [accepted, accepted]),
    `block 7 is proposed, not decided: 2 rival blocks were seen: ${acceptances}; ${acceptances}`,
    'two proposers met, and nobody is faulty',
  );
  t.match(trusted('committed'), /^block 7 is accepted by a majority, and is not decided here/);
  t.match(heightWords(facts('committed'), speech), /^block 7 has a commit certificate, and is not decided here/);
  const stuck = diagnose(
    report({
      waits: [
        {
          ...({} as Wait),
          what: 'commit',
          height: h(7),
          view: asView(1),
          have: 2,
          need: 3,
          missing: ids(3),
          since: ago(600),
        },
      ],
    }),
  );
  t.match(
    heightWords({ ...facts('prepared', [prepared]), diagnosis: stuck }, speech),
    /\. Why not yet: block 7 has 2 of 4 commits for 600 ms, .* \[votes-missing\]$/,
  );
  const decided = {
    hash: fx.hashOf(7),
    time: asMillis(0),
    proposer: asReplicaId(1),
    bundles: 1,
    transactions: 2,
    certified: { height: h(7), view: 4, signers: ids(0, 1, 3) },
  };
  t.equal(
    heightWords({ ...facts('decided'), decided }, speech),
    'block 7 is decided: north, south and west signed in view 4; 2 transactions in 1 bundle, proposed by south at 1970-01-01T00:00:00.000Z',
  );
  const later = { ...decided, certified: { ...decided.certified, height: h(9) } };
  t.match(
    heightWords({ ...facts('decided'), decided: later }, speech),
    /^block 7 is decided, by the certificate of block 9: /,
  );
  t.equal(heightWords(facts('decided'), speech), 'block 7 is decided');
});

t.test('a bundle in words', async (t) => {
  const pool = {
    since: ago(2_000),
    ahead: 3,
    session: 1,
    sequence: 4,
    nextSequence: 4,
    validUntil: h(900),
    forwardedAt: null,
  };
  const base: Parameters<typeof bundleWords>[0] = {
    stage: 'unknown',
    transaction: null,
    height: null,
    index: null,
    pool: null,
    refused: null,
    block: null,
    diagnosis: healthy,
    primary: asReplicaId(0),
    self: asReplicaId(1),
  };
  const words = (change: Partial<typeof base>) => bundleWords({ ...base, ...change }, speech);
  t.match(words({}), /^neither a bundle nor a transaction of this digest waits here/);
  t.equal(
    words({ stage: 'pooled', pool }),
    'this bundle waits in the pool for 2.0 s, behind 3 bundles, valid until block 900; not handed on to north, the primary',
  );
  t.match(
    words({ stage: 'pooled', pool: { ...pool, nextSequence: 2, forwardedAt: ago(100) as never } }),
    /; its session needs number 2 first, this is 4; handed on to north, the primary, 100 ms ago$/,
  );
  t.match(words({ stage: 'pooled', pool, primary: null }), /; no view is active, so there is no primary$/);
  t.match(words({ stage: 'pooled', pool, self: asReplicaId(0) }), /; north is the primary and has not proposed it$/);
  t.equal(words({ stage: 'decided', height: h(7), index: 5 }), 'this bundle is decided: block 7, index 5');
  t.match(words({ stage: 'decided', transaction: 2 }), /^this transaction, number 2 of its bundle, is decided/);
  const block = facts('proposed');
  t.match(
    words({ stage: 'proposed', height: h(7), block }),
    /^this bundle is in a block that is not decided yet: block 7 is proposed/,
  );
  for (const [code, sentence] of Object.entries(refusals))
    t.equal(
      words({ stage: 'refused', refused: { code: code as AdmissionCode, at: ago(60) } }),
      `this bundle was refused 60 ms ago: ${sentence}`,
    );
  t.match(
    words({ stage: 'expired', refused: { code: 'expired', at: ago(60) } }),
    /^this bundle has expired 60 ms ago: /,
  );
});

t.test('refusals are remembered, the newest ones, until the bundle is taken', async (t) => {
  let admission: (digest: Hash, code: AdmissionCode) => void = () => undefined;
  const memory = new RecentRefusals({
    subscribe: (events) => {
      admission = (digest, code) => events.admission?.(digest, code);
      return () => undefined;
    },
  });
  const digest = (i: number) => asHash(native.sha256(Buffer.from(String(i))));
  admission(digest(1), 'pool-full');
  t.match(memory.of(digest(1)), { code: 'pool-full', at: Number });
  admission(digest(1), 'pooled');
  t.equal(memory.of(digest(1)), null);
  for (let i = 0; i < 5_000; i++) admission(digest(i), 'sequence-gap');
  t.equal(memory.of(digest(0)), null, 'the oldest are forgotten');
  t.match(memory.of(digest(4_999)), { code: 'sequence-gap' });
});

// ---- the routes --------------------------------------------------------------------------------------------------------------

/** A replica with what the routes ask of it. */
function routes(change: Partial<ReplicaPort> = {}, more: Partial<WhyParts> = {}): Why {
  const replica = {
    genesis: { ...fx.genesis, name: 'x', parameters: fx.parameters },
    self: asReplicaId(0),
    crypto: native,
    log: { lowest: h(1) },
    explain: () => calm(),
    explainHeight: (height: Height) => ({ height, stage: 'unknown', view: asView(0), candidates: [] }),
    explainBundle: () => ({ digest: null, transaction: null, height: null, pool: null }),
    writingMs: () => 0,
    head: () => ({ height: h(0), hash: fx.hashOf(9), certificate: null }),
    ...change,
  } as unknown as ReplicaPort; // the rest of it is not asked
  return new Why({
    replica,
    desk: { chain: async () => undefined, find: async () => null },
    refusals: { of: () => null },
    draining: () => false,
    ...more,
  });
}

async function explained(why: Why, place: string) {
  const reply = await why.explain({ path: new Map([['place', place]]) } as never); // nothing else of it is read
  return 'body' in reply ? { status: reply.status, ...JSON.parse(String(reply.body)) } : reply;
}

t.test('/v1/explain: what is no place is refused, and each stage has its answer', async (t) => {
  for (const place of [
    '',
    '0',
    '-1',
    '1.5',
    '1e3',
    '9007199254740993',
    '99999999999999999',
    'g'.repeat(64),
    'ab',
    'f'.repeat(63),
  ])
    t.match(await explained(routes(), place), { status: 400, code: 'path-invalid', field: 'place' }, place);
  t.match(await explained(routes(), '7'), { status: 200, height: 7, stage: 'unknown', words: /not proposed/ });
  const digest = fx.hashOf(3);
  const hex = toHex(digest);
  t.match(await explained(routes(), hex), { stage: 'unknown', digest: hex, bundle: null });
  const refused = routes({}, { refusals: { of: () => ({ code: 'client-quota', at }) } });
  t.match(await explained(refused, hex), { stage: 'refused', refused: { code: 'client-quota' } });
  const expired = routes({}, { refusals: { of: () => ({ code: 'expired', at }) } });
  t.match(await explained(expired, hex), { stage: 'expired', words: /has expired/ });
  const pool = { since: at, ahead: 0, session: 1, sequence: 1, nextSequence: 1, validUntil: h(9), forwardedAt: null };
  const pooled = routes({ explainBundle: () => ({ digest, transaction: 1, height: null, pool }) });
  t.match(await explained(pooled, 'aa'.repeat(32)), {
    stage: 'pooled',
    bundle: hex,
    transaction: 1,
    pool: { ahead: 0 },
  });
  const explainHeight = (height: Height) => ({
    height,
    stage: 'prepared' as const,
    view: asView(0),
    candidates: [candidate],
  });
  const flying = routes({ explainHeight, explainBundle: () => ({ digest, transaction: null, height: h(7), pool }) });
  t.match(await explained(flying, hex), {
    stage: 'prepared',
    height: 7,
    block: { height: 7, candidates: [{ prepares: [{ name: 'replica-0' }, { name: 'replica-1' }] }] },
  });
  const pruned = routes({
    explainHeight: (height) => ({ height, stage: 'decided', view: asView(0), candidates: [] }),
    log: { lowest: h(9) } as never,
  });
  t.match(await explained(pruned, '7'), { stage: 'pruned', words: /the lowest that is kept is 9/ });
});

t.test('/v1/explain: a decided block with its signers, and a decided transaction by its own digest', async (t) => {
  const blocks = fx.chain(2, 3);
  const head = blocks[1]!.header.height;
  const chain = async (height: Height) => {
    const block = blocks.find(({ header }) => header.height === height);
    return block === undefined ? undefined : { block, links: [], certificate: fx.certificate(block) };
  };
  const why = routes(
    {
      head: () => ({ height: head, hash: blocks[1]!.hash, certificate: null }),
      explainHeight: (height) => ({ height, stage: 'decided', view: asView(0), candidates: [] }),
    },
    { desk: { chain, find: async () => null } },
  );
  const first = blocks[0]!;
  t.match(await explained(why, String(first.header.height)), {
    stage: 'decided',
    decided: { hash: toHex(first.hash), certified: { signers: Array } },
    causes: [],
  });
  const { digest, transactions } = first.bundles[0]!;
  const answer = await explained(why, toHex(native.sha256(transactions[2]!)));
  t.match(answer, { stage: 'decided', bundle: toHex(digest), transaction: 2, height: first.header.height, index: 2 });
});

// ---- the commands, against doors of the test -----------------------------------------------------------------------------------

const servers: Server[] = [];
t.teardown(() => {
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});

/** A door that answers everything so. */
async function door(answer: () => string | null): Promise<string> {
  const server = createServer((_, response) => {
    const body = answer();
    if (body !== null) response.end(body);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
}

const whyOf = (id: number, change: Partial<Explanation> = {}, chain = fx.chainId) => {
  const why = routes({ self: asReplicaId(id), explain: () => ({ ...calm(id), ...change }) }).why();
  return JSON.stringify({ ...why, chain: { ...why.chain, chainId: toHex(chain) } });
};

t.test('synod why: one healthy line, for one and for all; exit code 0', async (t) => {
  const doors = await Promise.all([0, 1, 2, 3].map((id) => door(() => whyOf(id))));
  const one = await synod(['why', '--timeout', '60s', '--http', doors[1]!]);
  t.strictSame(one, {
    code: 0,
    stdout: 'replica-1: healthy, idle at height 0 in view 0 under replica-0; 4 of 4 replicas answer\n',
    stderr: '',
  });
  const all = await synod(['why', '--timeout', '60s', ...doors.flatMap((url) => ['--http', url])]);
  t.strictSame(all, {
    code: 0,
    stdout: 'healthy: all 4 replicas answer, idle at height 0 in view 0 under replica-0\n',
    stderr: '',
  });
  const json = await synod(['why', '--json', '--timeout', '60s', ...doors.flatMap((url) => ['--http', url])]);
  const some = await synod(['why', '--timeout', '60s', '--http', doors[0]!, '--http', 'http://127.0.0.1:1']);
  t.equal(some.code, 1, 'a door that is silent is no good news');
  t.match(
    some.stdout,
    /^1 door of 2 cannot be reached; the others: healthy: all 4 replicas answer.*\n {2}http:\/\/127/,
  );
  t.match(JSON.parse(json.stdout), { healthy: true, state: 'idle', causes: [], action: null, replicas: { length: 4 } });
});

t.test('WHY-5: doors that lie, are slow, or are not there: a code, and nothing of theirs unescaped', async (t) => {
  const evil = '\u001b[2Jgotcha\n';
  const cases: readonly (readonly [string, () => string | null])[] = [
    ['not-json', () => `<html>${evil}`],
    ['not-synod', () => JSON.stringify({ replica: { replica: 0, name: evil } })],
    ['not-synod', () => whyOf(0, { primary: asReplicaId(9) })],
    [
      'not-synod',
      () =>
        whyOf(0, { waits: Array.from({ length: 9_000 }, () => ({ what: 'lead', missing: [], since: at }) as never) }),
    ],
    ['timeout', () => null],
    ['too-large', () => 'x'.repeat(9 << 20)],
  ];
  for (const [code, answer] of cases) {
    const args = ['--timeout', code === 'timeout' ? '700ms' : '60s', '--http', await door(answer)];
    const [{ code: exit, stdout }, explained] = await Promise.all([
      synod(['why', ...args]),
      synod(['explain', '1', ...args]),
    ]);
    t.equal(exit, 1, code);
    t.match(stdout, new RegExp(`^http://127\\.0\\.0\\.1:\\d+ cannot be reached at [ -~]*\\[${code}\\]\\n$`));
    t.equal(explained.code, 4);
    t.match(explained.stderr, /^synod: [ -~]* \[no-replica-answers\]\n {2}`synod why` asks the same doors\.\n$/);
  }
  const named = await door(() => whyOf(0).replaceAll('"replica-0"', JSON.stringify(evil)));
  const { stdout } = await synod(['why', '--timeout', '60s', '--http', named]);
  t.match(stdout, /^[ -~]+\n$/, 'one line, whatever it is called');
  const words = JSON.stringify({ replica: { name: evil }, stage: 'unknown', words: `${evil}${'y'.repeat(60_000)}` });
  const told = await synod(['explain', '1', '--timeout', '60s', '--http', await door(() => words)]);
  t.match(told, { code: 0, stdout: /^\?\[2Jgotcha\?y{1000,5000}\n$/ });
  const other = await synod([
    'why',
    '--timeout',
    '60s',
    '--http',
    await door(() => whyOf(0)),
    '--http',
    await door(() => whyOf(1, {}, fx.hashOf(1))),
  ]);
  t.match(other, { code: 1, stdout: /\[other-chain\]/ });
});

t.test('usage: which replica, and what is a place', async (t) => {
  t.match(await synod(['why']), { code: 2, stderr: /which replica\? \[usage\]\n.*--config FILE/ });
  t.match(await synod(['why', '--http', 'ftp://x']), { code: 2, stderr: /an address such as http:/ });
  t.match(await synod(['why', '--config', 'a', '--network', 'b']), { code: 2, stderr: /cannot be used with/ });
  t.match(await synod(['explain', 'zero', '--http', 'http://127.0.0.1:1']), {
    code: 2,
    stderr: /a height from 1, or 64/,
  });
  t.match(await synod(['explain', '0', '--http', 'http://127.0.0.1:1']), { code: 2, stderr: /a height from 1, or 64/ });
  t.match(await synod(['why', '--http', 'http://127.0.0.1:1']), {
    code: 1,
    stdout: /nobody listens there \[econnrefused\]|the connection failed/,
  });
});
