// `synod dev --protocol X` in every protocol in which members are trusted, with real processes: until `synod why` calls it healthy, and
// a line that is typed in is ordered. e2e.test.ts has it for PBFT.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { bearsLies, protocols } from '../protocol/modes.ts';
import { Program, synod } from './program.ts';

// Real processes, on a machine that has other things to do.
t.setTimeout(240_000 * protocols.length);

for (const protocol of protocols.filter((name) => !bearsLies(name)))
  t.test(`dev --protocol ${protocol}: healthy, and a line is ordered`, async (t) => {
    const cwd = t.testdir();
    const dev = new Program(['dev', '--protocol', protocol, '--dir', 'net'], { cwd });
    t.teardown(() => {
      dev.child.kill('SIGTERM'); // its replicas end with it
      return dev.ended;
    });
    const why = () => synod(['why', '--network', 'net', '--timeout', '60s'], { cwd });
    let told = await why();
    for (const last = Date.now() + 120_000; told.code !== 0 && Date.now() < last && dev.child.exitCode === null; )
      told = await why();
    t.match(told, { code: 0, stdout: /^healthy: all 3 replicas answer, (idle|ordering) at height \d/ }, dev.stderr);
    t.equal(JSON.parse(readFileSync(join(cwd, 'net', 'genesis.json'), 'utf8')).protocol, protocol);
    const typed = await synod(['submit', '--network', 'net', '--lines'], { cwd, input: 'a line\n' });
    t.match(typed, { code: 0, stdout: /^height \d+ {2}index 0 {2}[0-9a-f]{64}\n$/ });
    dev.child.kill('SIGINT');
    t.equal((await dev.ended).code, 0, 'Ctrl-C stops all of them');
  });
