// The replicas of a real network are restarted one after the other, the leader first each time, as an operator does who installs a new version: by SIGTERM each leader hands over
// before it ends, so nobody notices a silence, and all that is submitted meanwhile is ordered.

import { join } from 'node:path';
import t from 'tap';
import type { Protocol } from '../protocol/modes.ts';
import { ChaosStage } from './chaos/stage.ts';
import { synod } from './program.ts';

const LED = ['pbft', 'raft', 'multi-paxos', 'cheap-paxos', 'fast-paxos'] as const satisfies readonly Protocol[];

// Real processes, on a machine that has other things to do.
t.setTimeout(240_000 * LED.length);

/** What a replica may say as it leaves a leader that hands over; that it hears none is not among it. */
const HANDED_OVER: ReadonlySet<unknown> = new Set([
  'the leader hands over',
  'this primary hands over',
  'the primary gave its view up',
]);

for (const protocol of LED)
  t.test(`CFT-H-1 STALL-6: ${protocol}, a rolling restart that leaves no leader to be missed`, async (t) => {
    const directory = join(t.testdir(), 'net');
    // Long enough for a busy machine: whoever heard nobody for so long would say so.
    const stage = await ChaosStage.create({ directory, protocol, parameters: { viewTimeoutMs: 5_000 } });
    try {
      for (const name of stage.names) stage.start(name);
      await stage.allUp();
      // In Cheap Paxos a main that was away is trusted again after 2 T, at first: until then there is nobody to hand over to (CHP-5).
      const turns = protocol === 'cheap-paxos' ? 1 : stage.names.length;
      for (let turn = 0; turn < turns; turn++) {
        t.equal((await synod(['submit', '--network', directory, `before ${turn}`])).code, 0);
        const leader = (await stage.primary()) ?? '';
        const others = stage.names.filter((name) => name !== leader);
        const before = new Map(others.map((name) => [name, stage.said(name).length]));
        t.equal((await stage.ended(leader, 'SIGTERM')).code, 0);
        const to = stage.said(leader).find(({ type }) => type === 'handing-over');
        t.ok(to, `${leader} hands over`);
        t.equal((await synod(['submit', '--network', directory, `without ${leader}`])).code, 0);
        t.not(await stage.primary(), leader);
        const changes = others.flatMap((name) =>
          stage
            .said(name)
            .slice(before.get(name))
            .filter(({ type }) => type === 'view-change-started'),
        );
        t.ok(changes.length > 0, 'another one leads');
        // The new leader's own ballots: in Cheap Paxos the main that is away is dropped, in Fast Paxos two are no fast quorum.
        // Who joins f + 1 that asked (PBFT-VC-3) has heard of the hand-over from them first, and they have said why.
        const reasons = changes
          .map(({ reason }) => reason)
          .filter((reason) => !/a main|fast quorum|replicas asked for it/.test(String(reason)));
        t.same(
          reasons.filter((reason) => !HANDED_OVER.has(reason)),
          [],
          'and nobody has missed one',
        );
        stage.start(leader);
        await stage.allUp();
        await stage.allEqual();
      }
      t.ok((await stage.end()).every(({ code }) => code === 0));
      t.same(stage.troubles, []);
    } finally {
      await stage.end();
    }
  });
