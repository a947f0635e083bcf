// Makes a fresh clone runnable: installs the pinned dependencies, compiles TypeScript to dist/. `npm start`, `npm test` and
// `npm run bench` call it first; it says nothing when there is nothing to do. Plain JavaScript without a dependency, since it
// runs before there is any.

import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MIN = [20, 19];
const root = dirname(fileURLToPath(import.meta.url));
const SOURCE_FOLDERS = ['bench', 'client', 'crypto', 'daemon', 'keys', 'protocol', 'sim', 'storage', 'test'];
/** Written after a build without errors: dist/.tsbuildinfo does not do, since a failed or type-only run touches it too. */
const builtStamp = join(root, 'dist', '.built');

requireNode();
install();
probeDatabase();
build();

function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return;
  fail(
    `Node ${NODE_MIN.join('.')} or later is needed, this is ${process.versions.node}. Get it from https://nodejs.org.`,
  );
}

function install() {
  // npm writes the hidden lockfile when it has finished: its age is the age of the installation.
  const installed = timeOf(join(root, 'node_modules', '.package-lock.json'));
  if (installed !== undefined && installed >= (timeOf(join(root, 'package-lock.json')) ?? 0)) return;
  say(installed === undefined ? 'installing dependencies' : 'package-lock.json has changed, installing dependencies');
  // Without install scripts: the native packages carry prebuilt binaries. With dev: the compiler is one of them.
  run(npm(), ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--include=dev'], 'npm ci');
}

/**
 * The database comes as a prebuilt binary, and one that does not fit this Node ends the process with SIGABRT when it is loaded
 * (rocksdb 5.2.1 does so from Node 22 on). Better said here, once for each installation and Node, than by a dying replica. Tried is
 * what storage/open.ts gives to a new directory: rocksdb before Node 22, classic-level from there on or where rocksdb has no binary.
 */
function probeDatabase() {
  const stamp = join(root, 'node_modules', '.synod-database');
  const here = `${process.version} ${process.platform} ${process.arch}`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === here) return;
  const [major = 0] = process.versions.node.split('.').map(Number);
  const rocks = `
    const db = load(() => require('rocksdb'))(process.argv[1]);
    const check = (next) => (error) => (error ? process.exit(1) : next());
    db.open({}, check(() => db.put('key', 'value', { sync: true }, check(() => db.close(check(() => process.exit(0)))))));`;
  const classic = `
    const { ClassicLevel } = load(() => require('classic-level'));
    const db = new ClassicLevel(process.argv[1]);
    db.put('key', 'value', { sync: true }).then(() => db.close()).catch(() => process.exit(1));`;
  const missing = 3;
  const outcomes = [];
  for (const [name, script] of Object.entries({
    ...(major < 22 ? { rocksdb: rocks } : {}),
    'classic-level': classic,
  })) {
    const load = `const load = (from) => { try { return from(); } catch { process.exit(${missing}); } };`;
    const directory = mkdtempSync(join(tmpdir(), 'synod-setup-'));
    const { status, signal } = spawnSync(process.execPath, ['-e', `${load}${script}`, directory], {
      cwd: root,
      stdio: 'ignore',
    });
    rmSync(directory, { recursive: true, force: true });
    if (status === 0) {
      writeFileSync(stamp, here);
      return;
    }
    outcomes.push(`${name}: ${status === missing ? 'no binary for this platform' : (signal ?? `exit code ${status}`)}`);
    if (status !== missing) break;
  }
  fail(
    `the database does not run under Node ${process.versions.node} here (${outcomes.join('; ')}). Try Node 20 or 24.`,
  );
}

function build() {
  const sources = SOURCE_FOLDERS.flatMap((folder) => filesIn(join(root, folder), '.ts')).filter(
    (path) => !path.endsWith('.d.ts'),
  );
  const outputs = new Set(sources.map((path) => join(root, 'dist', `${relative(root, path).slice(0, -3)}.js`)));
  // The test runner takes what it finds in dist/, so nothing may stay there without a source.
  for (const path of filesIn(join(root, 'dist'), '.js')) {
    if (outputs.has(path)) continue;
    rmSync(path);
    rmSync(`${path}.map`, { force: true });
  }
  const complete = [...outputs].every((path) => existsSync(path));
  const built = timeOf(builtStamp);
  // Imported data files are compiled along.
  const data = filesIn(join(root, 'daemon'), '.json');
  const inputs = [...sources, ...data, join(root, 'tsconfig.json'), join(root, 'package-lock.json')];
  if (complete && built !== undefined && inputs.every((path) => (timeOf(path) ?? 0) <= built)) return;
  say(`compiling ${sources.length} files`);
  // The incremental compiler trusts its notes and would not write a lost file again.
  if (!complete) rmSync(join(root, 'dist', '.tsbuildinfo'), { force: true });
  const startedAt = new Date();
  run(
    [process.execPath],
    [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'],
    'the compiler',
  );
  // As old as the start of the build: what was edited meanwhile is newer.
  writeFileSync(builtStamp, `built by setup.mjs with Node ${process.versions.node}\n`);
  utimesSync(builtStamp, startedAt, startedAt);
}

function run([command, ...first], args, what) {
  const { status, signal, error } = spawnSync(command, [...first, ...args], { cwd: root, stdio: 'inherit' });
  if (status === 0) return;
  fail(`${what} failed (${error?.message ?? signal ?? `exit code ${status}`}); see above, then try again.`);
}

function npm() {
  // npm tells the scripts it runs where it is; that needs no shell and no PATH.
  const npmCli = process.env.npm_execpath;
  if (npmCli !== undefined && basename(npmCli) === 'npm-cli.js') return [process.execPath, npmCli];
  return process.platform === 'win32' ? ['cmd', '/c', 'npm'] : ['npm'];
}

function filesIn(folder, ending) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => join(entry.parentPath, entry.name));
}

function timeOf(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

function say(sentence) {
  process.stderr.write(`setup: ${sentence}\n`);
}

function fail(sentence) {
  say(sentence);
  process.exit(1);
}
