// Guards of the tree: what reviewers would otherwise have to remember. Every rule of the specification stands in code and in a
// test, imports follow the arrows of the architecture, one file alone can sign, and nothing is left over that should not be here.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../..', import.meta.url));
const linesMax = 500;
/** Tests are few and large on purpose: each file costs a process. */
const testLinesMax = 1500;

interface Source {
  /** From the root, with slashes: `protocol/block.ts`. */
  readonly path: string;
  readonly folder: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

interface Import {
  /** `protocol/block.ts` for files of this tree, else the package or `node:` name. */
  readonly target: string;
  readonly own: boolean;
  /** Names in braces; empty for a namespace, a default or a side effect. */
  readonly names: readonly string[];
  readonly typeOnly: boolean;
}

const production = ['bench', 'client', 'crypto', 'daemon', 'keys', 'protocol', 'sim', 'storage'];
const sources = production.flatMap((folder) => sourcesIn(folder));
const tests = sourcesIn('test');
const byPath = new Map(sources.map((source) => [source.path, source]));

t.test('every rule stands in the documentation, in code and in a test', async (t) => {
  const documented = new Set([...documentedRules('docs/spec.md'), ...documentedRules('docs/wire.md')]);
  const families = new Set([...documented].map(familyOf));
  const inCode = rulesIn(sources, families);
  const inTests = rulesIn(tests, families);
  t.ok(documented.size > 0, 'docs/spec.md defines rules');
  const missing = (from: Iterable<string>, where: ReadonlyMap<string, string> | ReadonlySet<string>) =>
    [...from].filter((rule) => !where.has(rule)).sort();
  t.strictSame(
    missing(documented, inCode),
    [],
    'rules that no file of the code names: write the tag where the rule is kept',
  );
  t.strictSame(missing(documented, inTests), [], 'rules that no test names: write the tag in the test that holds it');
  const undocumented = new Map([...inCode, ...inTests].filter(([rule]) => !documented.has(rule)));
  t.strictSame(
    [...undocumented].map(([rule, path]) => `${rule} in ${path}`).sort(),
    [],
    'tags that docs/spec.md and docs/wire.md do not define',
  );
});

t.test('every row of the adversary’s book has its test', async (t) => {
  const page = readFileSync(join(root, 'docs/adversary.md'), 'utf8');
  const rows = [...page.matchAll(/^\| (A\d+) \|.*$/gm)].map(([line, row = '']) => ({ row, cells: line.split(' | ') }));
  t.strictSame(
    rows.map(({ row }) => row).sort((a, b) => Number(a.slice(1)) - Number(b.slice(1))),
    Array.from({ length: 32 }, (_, i) => `A${i + 1}`),
  );
  const testText = new Map(tests.map(({ path, text }) => [path, text]));
  const missing: string[] = [];
  for (const { row, cells } of rows) {
    // `file`: "title", "title"; `file`: "title"
    const named = [...(cells[4] ?? '').matchAll(/`([a-z-]+)`: ((?:"[^"]+"(?:, )?)+)/g)].flatMap(
      ([, file, titles = '']) => [...titles.matchAll(/"([^"]+)"/g)].map(([, title = '']) => ({ file, title })),
    );
    if (named.length === 0) missing.push(`${row} names no test`);
    for (const { file, title } of named) {
      const text = testText.get(`test/${file}.test.ts`);
      // A title begins like that, whatever quotes it stands in.
      const isThere = ['`', "'", '"'].some((quote) => text?.includes(`${quote}${title}`));
      if (!isThere) missing.push(`${row}: ${file}.test.ts has no test "${title}"`);
    }
  }
  t.strictSame(missing, []);
});

/** What a folder may import of ours, and which packages. Node's own modules are judged below. */
const arrows: Readonly<Record<string, { readonly own: readonly string[]; readonly packages: readonly string[] }>> = {
  crypto: { own: [], packages: ['@noble/ed25519', '@noble/hashes'] },
  protocol: { own: ['crypto'], packages: ['zod', 'msgpackr'] },
  storage: { own: ['protocol', 'crypto'], packages: ['rocksdb', 'classic-level', 'msgpackr'] },
  keys: { own: ['protocol', 'crypto'], packages: ['zod'] },
  client: { own: ['protocol', 'crypto', 'keys'], packages: ['ws', 'zod', 'msgpackr'] },
  sim: { own: ['protocol', 'crypto', 'keys'], packages: [] },
};

t.test('imports follow the arrows', async (t) => {
  const broken: string[] = [];
  for (const { path, folder, imports } of sources) {
    const arrow = arrows[folder];
    for (const { target, own } of imports) {
      const to = topOf(target);
      if (own && to !== folder && !(arrow?.own ?? production).includes(to)) broken.push(`${path} imports ${target}`);
      if (own && folder !== 'bench' && to === 'bench') broken.push(`${path} imports ${target}`);
      // The product runs on real clocks and real keys: only the command that simulates knows the simulator and its keys.
      if (own && to === 'sim' && folder !== 'sim' && !/^daemon\/(sim\/|cli\/sim\.ts)/.test(path))
        broken.push(`${path} imports ${target}`);
      if (own && target === 'keys/simulation-key.ts' && folder !== 'sim') broken.push(`${path} imports ${target}`);
      if (arrow !== undefined && !own && !isNodeModule(target) && !arrow.packages.includes(packageOf(target)))
        broken.push(`${path} imports the package ${target}`);
    }
  }
  t.strictSame(broken, [], 'imports against the arrows of docs/architecture.md');
});

t.test('protocol/ and all it imports run in any JavaScript engine', async (t) => {
  const seen = new Set<string>();
  const impure: string[] = [];
  const visit = (path: string, from: string) => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const { target, own } of byPath.get(path)?.imports ?? []) {
      if (own) visit(target, path);
      else if (isNodeModule(target)) impure.push(`${path} (reached from ${from}) imports ${target}`);
    }
  };
  for (const { path, folder } of sources) if (folder === 'protocol') visit(path, path);
  t.strictSame(impure, [], 'Node modules below protocol/');
});

t.test('only keys/ can sign', async (t) => {
  const signing = ['sign', 'createSign', 'createPrivateKey', 'generateKeyPair', 'generateKeyPairSync'];
  const privateNames = ['signBytes', 'exportSeed'];
  const broken: string[] = [];
  for (const { path, folder, imports } of sources) {
    if (folder === 'keys') continue;
    for (const { target, own, names } of imports) {
      if (own && topOf(target) === 'keys')
        for (const name of names) if (privateNames.includes(name)) broken.push(`${path} imports ${name} of ${target}`);
      if (target.replace(/^node:/, '') === 'crypto')
        for (const name of names) if (signing.includes(name)) broken.push(`${path} imports ${name} of ${target}`);
      if (target === '@noble/ed25519')
        for (const name of names) if (/^sign/.test(name)) broken.push(`${path} imports ${name} of ${target}`);
    }
  }
  for (const { path, folder, text } of sources)
    if (folder !== 'keys' && /\bnode\.(sign|createPrivateKey)\(/.test(text)) broken.push(`${path} signs`);
  t.strictSame(broken, [], 'signing outside keys/: ask the guard or the client signer');
});

t.test('no test is left out', async (t) => {
  const found = tests.flatMap(({ path, text }) =>
    linesWith(text, /\.(only|skip|todo)\(|\b(only|skip|todo): *(true|['"`])/).map((line) => `${path}:${line}`),
  );
  t.strictSame(found, [], 'tests that run alone or not at all');
});

t.test('files are small, and say first what they are', async (t) => {
  const all = [...sources, ...tests];
  const length = (text: string) => text.split('\n').length;
  const long = all.filter(({ folder, text }) => length(text) > (folder === 'test' ? testLinesMax : linesMax));
  t.strictSame(
    long.map(({ path, text }) => `${path}: ${length(text)} lines`),
    [],
    `files longer than ${linesMax} lines (tests: ${testLinesMax}): split them by rule`,
  );
  t.strictSame(
    all.filter(({ text }) => !/^(#!.*\n)?\/\//.test(text)).map(({ path }) => path),
    [],
    'files that do not open with a comment',
  );
});

t.test('nothing of one machine stays in the tree', async (t) => {
  // Put together here, so that this file does not find itself.
  const places = new RegExp(
    `(?<![\\w.])/(${['wo' + 'rk', 'ro' + 'ot', 'Us' + 'ers', 'ho' + 'me/\\w+', 'tm' + 'p/\\w'].join('|')})/`,
  );
  const found: string[] = [];
  for (const path of textFiles())
    for (const line of linesWith(readFileSync(join(root, path), 'utf8'), places)) found.push(`${path}:${line}`);
  t.strictSame(found, [], 'absolute paths of a developer machine');
  const lock = readFileSync(join(root, 'package-lock.json'), 'utf8');
  t.strictSame(linesWith(lock, /"resolved"/), [], 'package-lock.json names no registry');
});

function sourcesIn(folder: string): Source[] {
  return filesIn(folder)
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.d.ts'))
    .map((path) => {
      const text = readFileSync(join(root, path), 'utf8');
      return { path, folder, text, imports: importsOf(path, text) };
    });
}

function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  const pattern =
    /^(?:import|export)\s+(type\s+)?([^'";]*?)\s*from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;
  for (const [, typeOnly, clause, from, bare, dynamic] of text.matchAll(pattern)) {
    const specifier = from ?? bare ?? dynamic ?? '';
    const own = specifier.startsWith('.');
    const target = own
      ? relative(root, resolve(join(root, dirname(path)), specifier)).replaceAll('\\', '/')
      : specifier;
    const names = (/\{([^}]*)\}/.exec(clause ?? '')?.[1] ?? '')
      .split(',')
      .map((name) =>
        name
          .trim()
          .replace(/^type\s+/, '')
          .replace(/\s+as\s+.*$/, ''),
      )
      .filter((name) => name !== '');
    found.push({ target, own, names, typeOnly: typeOnly !== undefined });
  }
  return found;
}

function documentedRules(path: string): string[] {
  const text = readFileSync(join(root, path), 'utf8');
  return [...text.matchAll(/\*\*([A-Z]+(?:-[A-Z]+)*-\d+)\*\*/g)].map(([, rule = '']) => rule);
}

function familyOf(rule: string): string {
  return rule.replace(/-\d+$/, '');
}

/** Tags of a documented family anywhere; of any family where they stand in brackets, as in `[BLK-1]`. */
function rulesIn(files: readonly Source[], families: ReadonlySet<string>): Map<string, string> {
  const found = new Map<string, string>();
  for (const { path, text } of files) {
    for (const [, rule = ''] of text.matchAll(/\b([A-Z]+(?:-[A-Z]+)*-\d+)\b/g))
      if (families.has(familyOf(rule))) found.set(rule, path);
    for (const [, rule = ''] of text.matchAll(/\[([A-Z]+(?:-[A-Z]+)*-\d+)\]/g)) found.set(rule, path);
  }
  return found;
}

/** Everything that a person wrote. */
function textFiles(): string[] {
  const top = readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'package-lock.json' && !entry.name.endsWith('.log'))
    .map((entry) => entry.name);
  const inFolders = [...production, 'docs', 'test', '.ci'].flatMap(filesIn);
  return [...top, ...inFolders].filter((path) => !/^test\/(vectors|fixtures)\//.test(path));
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/'));
  } catch {
    return []; // a folder that this tree does not have
  }
}

function linesWith(text: string, pattern: RegExp): number[] {
  return text.split('\n').flatMap((line, index) => (pattern.test(line) ? [index + 1] : []));
}

function topOf(path: string): string {
  return path.split('/')[0] ?? '';
}

function isNodeModule(name: string): boolean {
  return name.startsWith('node:');
}

/** `@noble/hashes` of `@noble/hashes/sha2.js`. */
function packageOf(name: string): string {
  return name.split('/', name.startsWith('@') ? 2 : 1).join('/');
}
