// The demo as `npm start -- --protocol X` runs it, in every protocol in which members are trusted, with real processes. e2e.test.ts has it for PBFT.

import { readdirSync } from 'node:fs';
import t from 'tap';
import { z } from 'zod';
import { protocols } from '../protocol/modes.ts';
import { synod } from './program.ts';

// Real processes, on a machine that has other things to do.
t.setTimeout(240_000 * protocols.length);

const resultSchema = z.object({
  checks: z.array(z.object({ name: z.string(), passed: z.boolean(), detail: z.string() })),
});

for (const protocol of protocols.filter((name) => name !== 'pbft'))
  t.test(`the demo in ${protocol}: a real block, a crash, a proof`, async (t) => {
    const cwd = t.testdir();
    const args = ['demo', '--protocol', protocol, '--once', '--json', '--pace', '15ms'];
    const { code, stdout, stderr } = await synod(args, { cwd });
    if (stdout === '') return t.fail(`no result: ${stderr}`);
    const { checks } = resultSchema.parse(JSON.parse(stdout));
    for (const { passed, name, detail } of checks) t.ok(passed, name, { detail });
    t.equal(checks.length, 7);
    t.equal(code, 0);
    t.equal(new Set([...stderr.matchAll(/pid (\d+)/g)].map(([, pid]) => pid)).size, 4, 'one of three is started twice');
    t.strictSame(readdirSync(cwd), [], 'no file is left');
  });

t.test('as many replicas as the protocol needs', async (t) => {
  const few = await synod(['demo', '--replicas', '3', '--once']);
  t.equal(few.code, 2);
  t.match(few.stderr, /--replicas 3: pbft needs at least 4/);
});
