// The main rows of the adversary's book (docs/adversary.md) with real processes, keys, disks and sockets: three honest replicas, a liar, and
// clients that submit all the while. The lies are those of the simulator (sim/liars.ts). No assertion here has a clock: conditions are waited
// for, with generous deadlines; the bounds are asserted in virtual time (adversary.test.ts).
//
// REAL_ONLY=silent one of them; REAL_KEEP=1 keeps files and logs.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import tap from 'tap';
import WebSocket from 'ws';
import { connect } from '../client/index.ts';
import { native } from '../crypto/native.ts';
import { LocalCluster } from '../daemon/cli/cluster.ts';
import { CONFIG_FILE } from '../daemon/cli/network-files.ts';
import { freePortRange } from '../daemon/cli/ports.ts';
import { dataPaths } from '../daemon/config.ts';
import { openGuard } from '../keys/guard.ts';
import { loadKey } from '../keys/keystore.ts';
import { parseGenesis } from '../protocol/genesis.ts';
import { asEpoch } from '../protocol/types.ts';
import type { LieName } from '../sim/liars.ts';
import { randomFrom } from '../sim/random.ts';
import { Flood } from './chaos/flood.ts';
import { Submitter } from './chaos/load.ts';
import { type Settling, settle } from './chaos/settle.ts';
import { ChaosStage, settleMsMax, within } from './chaos/stage.ts';
import { synod } from './program.ts';

tap.setTimeout(1_200_000);

const only = process.env.REAL_ONLY;
/** Four replicas and their clients share the cores with others: a primary is given up later than on machines of their own. */
const parameters = { viewTimeoutMs: 1_000, heartbeatMs: 200, checkpointInterval: 16 };
/** Acknowledged by each client before and after what is done: enough to see a few views and checkpoints. */
const ENOUGH = 25;

interface Play extends Settling {
  /** Until each client has so many more acknowledged. */
  more(what: string, count?: number): Promise<void>;
  /** Until an honest one has logged this. */
  logged(what: string, is: (entry: { readonly [field: string]: unknown }) => boolean): Promise<void>;
}

interface Attack {
  readonly lies?: Readonly<Record<string, LieName>>;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly faulty?: readonly string[];
  /** Before the clients come; gives back what ends it. */
  begin?(play: Play): Promise<() => Promise<void>>;
  act?(play: Play): Promise<void>;
  /** Afterwards; `verified` are the words of `synod verify`, of what `synod evidence` gave. */
  readonly evidence?: { readonly of: string; readonly words: RegExp };
}

function attack(name: string, title: string, { lies = {}, faulty = [], config, begin, act, evidence }: Attack): void {
  if (only !== undefined && only !== name) return;
  tap.test(title, async (t) => {
    t.saveFixture = process.env.REAL_KEEP !== undefined;
    const directory = join(t.testdir(), 'net');
    const stage = await ChaosStage.create({
      directory,
      parameters,
      lies,
      faulty,
      ...(config === undefined ? {} : { config }),
    });
    const random = randomFrom(1);
    const submitters = (['bundles', 'stream', 'bundles'] as const).map(
      (habit, index) => new Submitter(stage.network, { name: `c${index}`, habit, random, paceMs: 12 }),
    );
    const play: Play = {
      t,
      stage,
      submitters,
      async more(what, count = ENOUGH) {
        const goals = submitters.map(({ acknowledged }) => acknowledged.length + count);
        await stage.until(what, () => submitters.every(({ acknowledged }, i) => acknowledged.length >= goals[i]!));
      },
      async logged(what, is) {
        await stage.until(what, () => stage.honest.some((each) => stage.said(each).some(is)));
      },
    };
    let endWhatBegan: (() => Promise<void>) | undefined;
    try {
      for (const each of stage.names) stage.start(each);
      endWhatBegan = await begin?.(play);
      await stage.until('the honest ones answer', async () => !(await stage.statuses()).includes(null));
      await Promise.all(submitters.map((submitter) => submitter.start()));
      await play.more('progress from the start');
      await act?.(play);
      await play.more('progress to the end');
      await settle(play);
      if (evidence !== undefined) await checkEvidence(play, evidence);
      await stage.end();
      t.strictSame(stage.troubles, [], 'no honest replica ended by itself, reported an error or accused an honest one');
    } catch (error) {
      t.comment(await stage.describe());
      t.comment(stage.troubles.join('\n'));
      throw error;
    } finally {
      await Promise.all(submitters.map((submitter) => submitter.close()));
      await endWhatBegan?.();
      await stage.end();
      t.comment([...stage.counts].map(([what, count]) => `${what}: ${count}`).join(', '));
    }
  });
}

/** What the honest ones keep, written by `synod evidence` and checked by `synod verify` with the genesis document alone. */
async function checkEvidence({ t, stage }: Play, { of, words }: NonNullable<Attack['evidence']>): Promise<void> {
  for (const [index, name] of stage.honest.entries()) {
    const out = join(stage.directory, `${name}-${index}.witness`);
    const config = join(stage.directory, name, CONFIG_FILE);
    const given = await within(
      settleMsMax,
      synod(['evidence', '--config', config, '--out', out, '--json']),
      'synod evidence',
    );
    t.equal(given.code, 0, `${name}: ${given.stderr}`);
    const culprits = (JSON.parse(given.stdout).evidence ?? []).map(
      (piece: { culprit: { name: string } }) => piece.culprit.name,
    );
    t.ok(
      culprits.every((culprit: string) => stage.accusable.has(culprit)),
      `${name} accuses ${culprits}`,
    );
    if (!culprits.includes(of)) continue;
    const verified = await within(
      settleMsMax,
      synod(['verify', out, '--genesis', join(stage.directory, 'genesis.json')]),
      'synod verify',
    );
    t.equal(verified.code, 0, verified.stderr);
    t.match(verified.stdout, words, 'and anybody can check it');
    t.match(verified.stdout, of);
    return;
  }
  t.fail(`nobody holds evidence against ${of}`);
}

// ---- primaries ------------------------------------------------------------------------------------------------------------

attack('equivocates', 'A1 a primary tells two halves two chains', {
  lies: { 'node-0': 'equivocates' },
  evidence: { of: 'node-0', words: /signed two/ },
  act: ({ logged }) => logged('evidence', ({ msg }) => /signed two/.test(String(msg))),
});

attack('silent', 'A2 a silent primary', { lies: { 'node-0': 'silent' } });

attack('selective', 'A6 a primary keeps its proposals from one replica', { lies: { 'node-0': 'selective' } });

attack('new-views', 'A8 a primary opens its view with forgeries', {
  lies: { 'node-1': 'forges-new-views' },
  async act({ stage, logged }) {
    // Its turn comes when the first primary is gone.
    await stage.kill('node-0');
    await logged('a forgery is refused', ({ kind, code }) => kind === 'new-view' && typeof code === 'string');
    stage.start('node-0');
    await stage.until('everybody again', async () => !(await stage.statuses()).includes(null));
  },
});

attack('censors', 'A5 a primary leaves out one client', { lies: { 'node-0': 'censors' } });

attack('clock', 'A18 a primary whose clock is an hour ahead', { lies: { 'node-0': 'clock-ahead' } });

attack('mutates', 'A10 a primary whose fields are off by one, and older ones again', { lies: { 'node-0': 'mutates' } });

// ---- who is behind ------------------------------------------------------------------------------------------------------------

attack('checkpoints', 'A17 wrong votes for every checkpoint', {
  lies: { 'node-3': 'wrong-checkpoints' },
  act: ({ stage }) =>
    stage.until('stable without it', async () =>
      (await stage.statuses()).every((status) => (status?.stable ?? 0) >= 32),
    ),
});

for (const lie of ['lies-in-transfer', 'withholds-transfer'] as const)
  attack(lie, `A16 a replica that was away asks one that ${lie === 'lies-in-transfer' ? 'lies' : 'withholds'}`, {
    lies: { 'node-3': lie },
    async act({ stage, more }) {
      await stage.kill('node-1');
      await more('without node-1', 60);
      stage.start('node-1');
      await stage.until('node-1 is back', async () => (await stage.status('node-1')) !== null);
      const { height } = (await stage.status('node-0'))!; // it runs
      await stage.until('node-1 has caught up', async () => ((await stage.status('node-1'))?.height ?? 0) >= height);
    },
  });

// ---- one key, two processes ----------------------------------------------------------------------------------------------------

attack('twins', 'A20 the key of a primary runs twice', {
  // Both are what `synod start` runs, and faulty together.
  faulty: ['node-0'],
  async begin({ t, stage }) {
    const port = await freePortRange('127.0.0.1', 2);
    const twin = await makeTwin(stage, 'node-0', port);
    const log = { connected: 0 };
    const cluster = new LocalCluster([twin], {
      line: (_, entry) => {
        if (String(entry?.msg).startsWith('peer connected')) log.connected += 1;
      },
    });
    cluster.start(twin.name);
    return async () => {
      await cluster.stopAll();
      t.ok(log.connected > 0, `the second process was heard: ${log.connected} connections`);
    };
  },
  act: ({ more }) => more('beside the twins', 60),
});

/** The same member and key, with a disk and a guard of its own that know of nothing. */
async function makeTwin({ directory, network }: ChaosStage, name: string, port: number) {
  const twin = join(directory, `${name}-twin`);
  mkdirSync(join(twin, 'data'), { recursive: true, mode: 0o700 });
  const first = join(directory, name);
  const config = JSON.parse(readFileSync(join(first, CONFIG_FILE), 'utf8'));
  const file = join(twin, CONFIG_FILE);
  writeFileSync(
    file,
    JSON.stringify({
      ...config,
      genesis: join(first, config.genesis),
      key: join(first, config.key),
      listen: { host: '127.0.0.1', port },
      http: { host: '127.0.0.1', port: port + 1 },
    }),
  );
  const { secret } = await loadKey({
    path: join(first, config.key),
    passphrase: { from: 'environment', name: 'SYNOD_PASSPHRASE' },
  });
  const guard = await openGuard({
    path: dataPaths(join(twin, 'data')).signState,
    secret,
    chainId: network.genesis.chainId,
    epoch: asEpoch(0),
    create: true,
    checkpointSigningBytes: () => {
      throw new Error('nothing is signed here');
    },
  });
  await guard.close();
  return { name: `${name}-twin`, config: file, logFile: join(twin, 'replica.log') };
}

/** A client whose genesis document differs in the name alone: another chain id, and all else the same. */
async function connectToAnotherChain({ directory, network: { replicas } }: ChaosStage): Promise<void> {
  const text = readFileSync(join(directory, 'genesis.json'), 'utf8').replace('"chaos"', '"another"');
  const genesis = parseGenesis(native, Buffer.from(text), text);
  if ('refused' in genesis) throw new Error('the document is as good as the other one');
  const client = await connect({
    genesis,
    replicas: replicas.map(({ name, url }) => ({ name, url })),
    options: { connectTimeoutMs: 5_000 },
  });
  await client.close();
}

// ---- clients ---------------------------------------------------------------------------------------------------------------------

/**
 * Resident memory of a replica, whatever clients do: what it takes under the load of the benchmark (bench/targets.ts, 400 MiB), its pool full
 * (protocol/pool.ts, 160 MiB), as much again for what was read and is not judged yet, and 300 MiB of a heap that is collected later. Seen: 384 to 637 MiB,
 * the more the faster the machine.
 */
const RESIDENT_MIB_MAX = 1_024;

attack('flood', 'A14 clients that flood every door with tiny transactions: bounded memory, and the others go on', {
  async act({ t, stage, more }) {
    const flood = new Flood(stage.network, 1);
    try {
      await more('beside the flood');
      await stage.until('a flood', () => flood.sent > 1_000 && flood.ended > 0);
      t.comment(`${flood.sent} bundles of a thousand, ${flood.ended} connections ended`);
    } finally {
      await flood.close();
    }
    for (const name of stage.names) {
      const peak = stage.peakMiB(name);
      t.ok(peak === null || peak < RESIDENT_MIB_MAX, `${name}: ${peak?.toFixed(0)} MiB at most`);
    }
  },
});

// ---- connections ----------------------------------------------------------------------------------------------------------------

attack('connections', 'A25 A27 strangers at the door: half frames, floods, stalled readers, another chain', {
  async act({ t, stage, more }) {
    const { url } = stage.network.replicas[0]!;
    const { hostname: host, port } = new URL(url);
    const sockets: { destroy(): void }[] = [];
    const raw = (first: string | Uint8Array) => {
      const socket = connectSocket({ host, port: Number(port) });
      socket.on('error', () => undefined);
      socket.write(first);
      sockets.push(socket);
      return socket;
    };
    const opened = async (path: string): Promise<WebSocket> => {
      const ws = new WebSocket(`${url}${path}`, { handshakeTimeout: 20_000 });
      ws.on('error', () => undefined);
      sockets.push({ destroy: () => ws.terminate() });
      await within(
        settleMsMax,
        new Promise((resolve) => ws.once('open', resolve).once('close', resolve)),
        'a connection',
      );
      return ws;
    };
    const ended = (ws: WebSocket) =>
      within(
        settleMsMax,
        new Promise((resolve) => {
          if (ws.readyState === WebSocket.CLOSED) resolve(null);
          else ws.once('close', resolve);
        }),
        'the connection to be ended',
      );
    try {
      for (let i = 0; i < 100; i++)
        raw(i % 2 === 0 ? 'GET /peer/vote HTTP/1.1\r\nHost: x\r\nUpgr' : Uint8Array.of(0x16, 3, 1));
      const [half, flood, mute, garbage, foreign] = await Promise.all(
        ['/client', '/client', '/peer/bulk', '/peer/vote', '/client'].map(opened),
      );
      // Behind the door of ws: a header that promises more than comes.
      Reflect.get(half!, '_socket')?.write(Uint8Array.of(0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0, 1));
      for (let i = 0; i < 2_000; i++) flood!.ping('x');
      Reflect.get(mute!, '_socket')?.pause();
      garbage!.send(native.sha256(Uint8Array.of(1)));
      foreign!.send(Uint8Array.of(1, 128, 0, 0));
      await more('with strangers at the door', 60);
      for (const ws of [half, flood, garbage, foreign]) await ended(ws!);
      await t.rejects(connectToAnotherChain(stage), 'whoever proves himself on another chain is sent away');
      t.pass('each of them was sent away');
    } finally {
      for (const socket of sockets) socket.destroy();
    }
    t.notOk(
      (await stage.statuses()).some((status) => status === null),
      'all replicas answer',
    );
  },
});
