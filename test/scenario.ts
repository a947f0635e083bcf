// Scenarios as text: a command, `----`, and exactly what it prints (test/scenarios/*.txt). Each command drives a simulated cluster by hand; the
// same text always prints the same. docs/simulator.md lists the commands.

import { toHex } from '../crypto/bytes.ts';
import type { Candidate } from '../protocol/core.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { asHeight } from '../protocol/types.ts';
import { SimClient } from '../sim/clients.ts';
import { Cluster } from '../sim/cluster.ts';
import { LIES, type LieName, lieIn } from '../sim/liars.ts';
import { standInKey } from '../sim/signatures.ts';
import { faultsOf } from './cluster-world.ts';

/** The commands of a scenario, and what they printed when it was written. */
export interface Block {
  /** With what stands in front of it: comments and empty lines. */
  readonly before: string;
  readonly command: string;
  readonly expected: string;
}

const SEPARATOR = '----';

/** @throws where the text is no scenario, with the line */
export function parseScenario(text: string): { readonly blocks: readonly Block[]; readonly after: string } {
  const blocks: Block[] = [];
  let before: string[] = [];
  const lines = text.replace(/\n$/, '').split('\n');
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    if (line === '' || line.startsWith('#')) {
      before.push(line);
      continue;
    }
    if (lines[i + 1] !== SEPARATOR) throw new Error(`line ${i + 2}: ${SEPARATOR} must follow the command "${line}"`);
    const expected: string[] = [];
    for (i += 2; i < lines.length && lines[i] !== ''; i++) expected.push(lines[i]!);
    blocks.push({ before: before.join('\n'), command: line, expected: expected.join('\n') });
    before = i < lines.length ? [''] : [];
  }
  return { blocks, after: before.join('\n') };
}

/** The scenario with what its commands print now. */
export function rewritten(text: string): string {
  const { blocks, after } = parseScenario(text);
  const stage = new Scenario();
  const parts = blocks.map(({ before, command }, index) => {
    const printed = stage.run(command);
    const gap = before === '' ? '' : `${index > 0 ? before.replace(/^\n/, '\n') : before}\n`;
    return `${gap}${command}\n${SEPARATOR}\n${printed === '' ? '' : `${printed}\n`}`;
  });
  return `${parts.join('\n').replaceAll('\n\n\n', '\n\n')}${after === '' ? '' : `${after}\n`}`;
}

interface Words {
  readonly name: string;
  /** Without a key. */
  readonly plain: readonly string[];
  text(key: string, otherwise?: string): string;
  number(key: string, otherwise?: number): number;
  /** Null: not given. */
  maybe(key: string): string | null;
}

function wordsOf(command: string): Words {
  const [name = '', ...rest] = command.split(/\s+/);
  const keyed = new Map(
    rest.filter((word) => word.includes('=')).map((word) => word.split('=', 2) as [string, string]),
  );
  const used = (key: string, otherwise?: string): string => {
    const value = keyed.get(key) ?? otherwise;
    if (value === undefined) throw new Error(`${command}: ${key}= is missing`);
    return value;
  };
  return {
    name,
    plain: rest.filter((word) => !word.includes('=')),
    text: used,
    number: (key, otherwise) => {
      const value = Number(used(key, otherwise?.toString()));
      if (!Number.isInteger(value)) throw new Error(`${command}: ${key}= is a whole number`);
      return value;
    },
    maybe: (key) => keyed.get(key) ?? null,
  };
}

interface Drop {
  readonly from: string | null;
  readonly to: string | null;
  readonly kind: string | null;
}

export class Scenario {
  #cluster: Cluster | null = null;
  readonly #clients = new Map<string, SimClient>();
  readonly #bundles = new Map<string, string>();
  #drops: Drop[] = [];
  #lines: string[] = [];
  #seen = { evidence: 0, refusals: 0 };

  /** What it prints; lines without the last line break. @throws where there is no such command */
  run(command: string): string {
    const words = wordsOf(command);
    this.#lines = [];
    const commands: Record<string, () => void> = {
      cluster: () => this.#begin(words),
      submit: () => this.#submit(words),
      run: () => this.#in(words.plain[0]),
      deliver: () => this.#in('60'),
      drop: () =>
        void this.#drops.push({ from: words.maybe('from'), to: words.maybe('to'), kind: words.maybe('kind') }),
      partition: () => {
        this.#of.partition = words.plain.map((side) => side.split(',').map(Number));
      },
      heal: () => {
        this.#drops = [];
        this.#of.partition = null;
      },
      crash: () => this.#of.crash(this.#node(words)),
      boot: () => this.#of.boot(this.#node(words)),
      keep: () => {
        for (const { disk } of this.#of.nodes) disk.retain = words.number('blocks');
      },
      lie: () => lieIn(this.#of, words.number('node'), LIES[words.text('how') as LieName]),
      status: () => this.#status(),
      explain: () => this.#explain(words),
      chain: () => this.#chain(words),
      refusals: () => this.#refusals(),
      evidence: () => this.#evidence(),
    };
    const run = commands[words.name];
    if (run === undefined) throw new Error(`no such command: ${words.name}`);
    run();
    return this.#lines.join('\n');
  }

  get #of(): Cluster {
    if (this.#cluster === null) throw new Error('a scenario begins with `cluster`');
    return this.#cluster;
  }

  #node({ plain }: Words): number {
    return Number(plain[0]);
  }

  #say(line: string): void {
    this.#lines.push(line);
  }

  #begin(words: Words): void {
    const parameters: Record<string, number> = {};
    for (const key of [
      'checkpointInterval',
      'window',
      'viewTimeoutMs',
      'heartbeatMs',
      'blockBundlesMax',
      'validUntilHorizon',
    ])
      if (words.maybe(key) !== null) parameters[key] = words.number(key);
    const cluster = new Cluster({ n: words.number('n', 4), seed: words.number('seed', 1), parameters });
    // No chance in it: each message takes 5 ms, each write 2.
    cluster.faults = { delayMs: [5, 5], loss: 0, repeat: 0, writeMs: [2, 2], inOrder: true };
    cluster.tamper = (from, to, message) =>
      this.#drops.some((drop) => isDropped(drop, from, to, message)) ? null : message;
    this.#cluster = cluster;
    this.#clients.clear();
    this.#bundles.clear();
    this.#drops = [];
    this.#seen = { evidence: 0, refusals: 0 };
    cluster.run(20);
    this.#say(`${cluster.nodes.length} replicas, f = ${faultsOf(cluster.nodes.length)}`);
  }

  #submit(words: Words): void {
    const name = words.text('client', 'alice');
    const session = words.number('session', 1);
    const key = `${name} ${session}`;
    let client = this.#clients.get(key);
    if (client === undefined) {
      client = new SimClient(this.#of.genesis, name, session, standInKey(name));
      this.#clients.set(key, client);
    }
    const sequence = words.maybe('sequence');
    const label = words.text('text');
    const bundle = client.bundle([Buffer.from(label)], {
      validUntil: words.number('validUntil', 1_000),
      ...(sequence === null ? {} : { sequence: Number(sequence) }),
    });
    this.#bundles.set(toHex(bundle.digest), label);
    for (const at of words.text('at', '0').split(',')) this.#of.submit(Number(at), bundle);
  }

  /** So many milliseconds, with what the cores said of themselves meanwhile. */
  #in(ms: string | undefined): void {
    const cluster = this.#of;
    const events = cluster.events.length;
    const delivered = cluster.delivered.map((blocks) => blocks.length);
    cluster.run(Number(ms));
    for (const { at, time, type, detail } of cluster.events.slice(events))
      this.#say(`${time.toString().padStart(6)} node-${at} ${type}${fieldsIn(detail)}`);
    for (const [id, blocks] of cluster.delivered.entries()) {
      const from = Math.min(delivered[id]!, blocks.length);
      const heights = blocks.slice(from).map(({ block }) => Number(block.header.height));
      if (heights.length > 0)
        this.#say(
          `       node-${id} decided ${heights.length > 2 ? `${heights[0]} to ${heights.at(-1)}` : heights.join(', ')}`,
        );
    }
  }

  #status(): void {
    for (const { id, core } of this.#of.nodes) {
      if (core === null) {
        this.#say(`node-${id} down`);
        continue;
      }
      const { view, phase, height, stable, inFlight, pool, timeoutMs } = core.explain();
      const parts = [`view ${view}`, phase, `height ${height}`, `stable ${stable}`];
      if (inFlight > 0) parts.push(`${inFlight} in flight`);
      if (pool.bundles > 0) parts.push(`${pool.bundles} in the pool`);
      if (timeoutMs !== this.#of.genesis.parameters.viewTimeoutMs) parts.push(`timeout ${timeoutMs} ms`);
      this.#say(`node-${id} ${parts.join(', ')}`);
    }
  }

  #explain(words: Words): void {
    const height = asHeight(words.number('height'));
    for (const { id, core } of this.#of.nodes) {
      if (core === null) continue;
      const { stage, candidates } = core.explainHeight(height);
      this.#say(`node-${id} ${stage}${candidates.map(inWords).join(';')}`);
      for (const wait of core.explain().waits)
        if (Number(wait.height) === Number(height))
          this.#say(`       waits for ${wait.what}: ${wait.have} of ${wait.need}, missing ${wait.missing.join(', ')}`);
    }
  }

  /** What a replica has decided in its present life. */
  #chain(words: Words): void {
    for (const { block } of this.#of.delivered[words.number('at', 0)] ?? []) {
      const { height, proposer } = block.header;
      const texts = block.bundles.map(({ digest }) => this.#bundles.get(toHex(digest)) ?? '?');
      this.#say(`${height} by node-${proposer}: ${texts.join(' ')}`);
    }
  }

  #refusals(): void {
    const counts = new Map<string, number>();
    for (const { at, from, code, kind } of this.#of.refusals.slice(this.#seen.refusals)) {
      const line = `node-${at} refused of node-${from}: ${kind}, ${code}`;
      counts.set(line, (counts.get(line) ?? 0) + 1);
    }
    this.#seen.refusals = this.#of.refusals.length;
    for (const [line, count] of [...counts].sort()) this.#say(count === 1 ? line : `${line} (${count} times)`);
  }

  #evidence(): void {
    const pairs = this.#of.evidence
      .slice(this.#seen.evidence)
      .map(({ at, culprit }) => `node-${at} proves node-${culprit} guilty`);
    this.#seen.evidence = this.#of.evidence.length;
    for (const line of [...new Set(pairs)].sort()) this.#say(line);
  }
}

function isDropped({ from, to, kind }: Drop, sender: number, receiver: number, message: ReplicaMessage): boolean {
  const is = (list: string | null, value: string) => list === null || list.split(',').includes(value);
  return is(from, String(sender)) && is(to, String(receiver)) && is(kind, message.kind);
}

function fieldsIn(detail: string): string {
  const fields: Record<string, unknown> = JSON.parse(detail);
  return Object.entries(fields)
    .map(([key, value]) => (key === 'reason' ? `: ${value}` : ` ${key} ${value}`))
    .join('');
}

const inWords = ({ accepted, block, prepares, commits }: Candidate): string => {
  const what = block === null ? 'a block that is not here' : `${block.bundles} bundles of node-${block.proposer}`;
  return ` ${what}${accepted ? ', accepted' : ''}, prepares of ${list(prepares)}, commits of ${list(commits)}`;
};

const list = (ids: readonly number[]): string => (ids.length === 0 ? 'nobody' : ids.join(' '));
