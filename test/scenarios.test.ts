// The rules of docs/spec.md as texts that can be read: test/scenarios/*.txt, a command, `----`, and exactly what it prints. After a change
// that is meant, SCENARIOS_REWRITE=1 writes what they print now; the difference is for the reviewer.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parseScenario, rewritten, Scenario } from './scenario.ts';

const folder = fileURLToPath(new URL('../../test/scenarios/', import.meta.url));
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .sort();

for (const file of files) {
  const text = readFileSync(join(folder, file), 'utf8');
  // Its first line names the rules.
  const title = text.split('\n')[0]!.replace(/^# /, '');
  t.test(`${file}: ${title}`, async (t) => {
    if (process.env.SCENARIOS_REWRITE !== undefined) {
      writeFileSync(join(folder, file), rewritten(text));
      return;
    }
    const stage = new Scenario();
    for (const { command, expected } of parseScenario(text).blocks) t.equal(stage.run(command), expected, command);
    t.equal(rewritten(text), text, 'and it is written as the rewriting writes it');
  });
}

t.test('there are scenarios, and a wrong one is refused with its line', async (t) => {
  t.ok(files.length >= 6);
  t.throws(() => parseScenario('cluster n=4\nstatus\n'), /line 2: ---- must follow/);
  t.throws(() => new Scenario().run('status'), /begins with/);
  t.throws(() => new Scenario().run('dance'), /no such command: dance/);
  t.throws(() => new Scenario().run('cluster n=x'), /whole number/);
});
