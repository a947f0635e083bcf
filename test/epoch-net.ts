// A network in a directory of a test, as processes that come and go over several epochs, through the program and its HTTP doors alone.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { z } from 'zod';
import { Program, type Run, synod as run } from './program.ts';

const configSchema = z.looseObject({
  listen: z.object({ host: z.string(), port: z.int() }),
  http: z.object({ host: z.string(), port: z.int() }),
  peers: z.record(z.string(), z.string()),
});
const statusSchema = z.object({
  node: z.object({ name: z.string(), observer: z.boolean().optional() }),
  ready: z.boolean(),
  epoch: z.int(),
  height: z.int(),
  lowest: z.int(),
  peers: z.array(z.object({ name: z.string(), connected: z.boolean() })),
});

/** In the directory of the test. */
export const GENESIS = ['--genesis', 'net/genesis.json'] as const;

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Its files are in `net`, below `dir`; no process of it outlives the test. */
export class EpochNet {
  readonly dir: string;
  readonly nodes = new Map<string, Program>();
  #changes = 0;

  constructor(t: Test, dir: string) {
    this.dir = dir;
    t.teardown(async () => {
      for (const { child } of this.nodes.values()) child.kill('SIGKILL');
      await Promise.all([...this.nodes.values()].map(({ ended }) => ended));
    });
  }

  synod = (...args: string[]): Promise<Run> => run(args, { cwd: this.dir });

  ok = async (...args: string[]): Promise<Run> => {
    const ended = await this.synod(...args);
    if (ended.code !== 0) throw new Error(`synod ${args.join(' ')}: ${ended.code} ${ended.stdout}${ended.stderr}`);
    return ended;
  };

  start = (name: string, ...more: string[]): void => {
    this.nodes.set(name, new Program(['start', join('net', name, 'config.json'), ...more], { cwd: this.dir }));
  };

  stop = async (name: string): Promise<void> => {
    const node = this.nodes.get(name);
    node?.child.kill('SIGTERM');
    await node?.ended;
  };

  config = (name: string) =>
    configSchema.parse(JSON.parse(readFileSync(join(this.dir, 'net', name, 'config.json'), 'utf8')));

  door = (name: string): string => `http://${this.config(name).http.host}:${this.config(name).http.port}`;

  /** Null: no answer. */
  status = async (name: string): Promise<z.infer<typeof statusSchema> | null> => {
    try {
      const response = await fetch(`${this.door(name)}/v1/status`, { signal: AbortSignal.timeout(2_000) });
      return statusSchema.parse(await response.json());
    } catch {
      return null;
    }
  };

  eventually = async (what: string, condition: () => Promise<boolean>, ms = 90_000): Promise<void> => {
    const deadline = performance.now() + ms;
    while (!(await condition())) {
      if (performance.now() > deadline) throw new Error(`never: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };

  /** As members: one that is to be one still serves as an observer for a moment. */
  inEpoch = (epoch: number, names: readonly string[]): Promise<void> =>
    this.eventually(`epoch ${epoch} at ${names}`, async () => {
      const all = await Promise.all(names.map(this.status));
      return all.every((each) => each?.ready === true && each.epoch === epoch && each.node.observer !== true);
    });

  /**
   * A change of the epoch that this replica is in, by what it can prove: each operator signs a copy, the copies are combined, and the replica that comes
   * with it signs last. Returns the file.
   */
  change = async (by: string, operators: readonly string[], args: readonly string[], joining?: readonly string[]) => {
    const known = await this.known(by);
    const file = `change-${++this.#changes}`;
    await this.ok(...args, ...known, '--out', `${file}.draft`);
    const copies = operators.map(async (key, i) => {
      await this.ok('control', 'sign', `${file}.draft`, '--key', key, ...known, '--out', `${file}.${i}`);
      return `${file}.${i}`;
    });
    await this.ok('control', 'combine', ...(await Promise.all(copies)), '--out', file);
    if (joining !== undefined) await this.ok('member', 'promote', file, ...joining);
    return file;
  };

  /** The options of who knows the epochs that this replica knows, and asks nobody. */
  known = async (by: string): Promise<string[]> => {
    const epochs = await fetch(`${this.door(by)}/v1/epochs`);
    writeFileSync(join(this.dir, 'net.epochs'), new Uint8Array(await epochs.arrayBuffer()));
    return [...GENESIS, '--epochs', 'net.epochs', '--height', '2'];
  };

  /** Handed in at this replica; resolves when the next epoch has begun there. */
  submit = (by: string, file: string): Promise<Run> =>
    this.ok('control', 'submit', file, ...GENESIS, '--http', this.door(by));

  /** A host of its own, with a key and no part in the network, that observes. Returns where it listens. */
  observer = async (name: string, more: object): Promise<string> => {
    mkdirSync(join(this.dir, 'net', name));
    await this.ok('keys', 'generate', `net/${name}/replica.key`, '--unsealed', '--sign-state', 'net/genesis.json');
    const [port, httpPort] = [await freePort(), await freePort()];
    const config = {
      genesis: '../genesis.json',
      member: name,
      key: 'replica.key',
      dataDir: 'data',
      listen: { host: '127.0.0.1', port },
      http: { host: '127.0.0.1', port: httpPort },
      ...more,
    };
    writeFileSync(join(this.dir, 'net', name, 'config.json'), JSON.stringify(config));
    this.start(name, '--observe');
    return `ws://127.0.0.1:${port}`;
  };

  /** As near as a node can be to one that decides meanwhile. */
  isClose = (name: string, to: string): Promise<void> =>
    this.eventually(`${name} is at the head`, async () => {
      const [there, here] = [await this.status(to), await this.status(name)];
      return here !== null && there !== null && here.epoch === there.epoch && here.height >= there.height;
    });
}
