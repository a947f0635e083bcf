// How fast a node that has nothing comes to the head of a long chain, and what it needs for that. Beside it, of the same run: what this disk writes, and what
// a verifier checks of the same blocks when nothing else is to be done with them.

import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CONFIG_FILE, GENESIS_FILE } from '../daemon/cli/network-files.ts';
import { makeObserver } from './changes.ts';
import { BenchCluster, daemon } from './cluster.ts';
import type { Phase } from './load.ts';
import { usageOf } from './process-stats.ts';
import { pause, startWorker } from './task.ts';

export interface CatchUpResult {
  /** Payload bytes of the chain, and its blocks. */
  readonly bytes: number;
  readonly blocks: number;
  /** From the first word of the observer to the head. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakResidentBytes: number;
  /** `synod verify` of the same chain in a file, its start included. */
  readonly verifySeconds: number;
  readonly verifyCpuSeconds: number;
}

const n = 4;
const fifth = 'node-4';
const sampleMs = 100;
const patienceMs = 20 * 60_000;

export async function measureCatchUp(options: {
  readonly mib: number;
  readonly recorderMiB: readonly number[];
}): Promise<CatchUpResult> {
  const cluster = await BenchCluster.start({
    replicas: n,
    standIns: { sign: false, sync: false },
    profileDirectory: null,
    // Nobody is to be given up for a machine that is busy with making blocks.
    viewTimeoutMs: 20_000,
    recorderMiB: options.recorderMiB,
  });
  try {
    const bytes = await fill(cluster, options.mib * 2 ** 20);
    await makeObserver(cluster, fifth);
    const { height } = await cluster.lead();
    const caught = await catchUp(cluster, height);
    const verified = await verify(cluster);
    return { bytes, blocks: height, ...caught, ...verified };
  } finally {
    await cluster.stop();
  }
}

/** Full load until the chain is so long; returns how long it is. */
async function fill(cluster: BenchCluster, bytes: number): Promise<number> {
  const phase: Phase = {
    name: 'fill',
    transactionBytes: 1_024,
    bundle: 400,
    pace: { kind: 'closed', outstanding: 48 },
    warmupMs: 0,
    ms: patienceMs,
    timeline: false,
  };
  const worker = startWorker({
    task: { kind: 'load', directory: cluster.directory, noSign: false, clients: 1, phases: [phase] },
    msMax: patienceMs + 60_000,
  });
  try {
    while ((await decidedBytes(cluster)) < bytes) await Promise.race([pause(1_000), worker.result()]);
    worker.stop();
    await worker.result();
    return await decidedBytes(cluster);
  } finally {
    worker.kill();
  }
}

async function decidedBytes(cluster: BenchCluster): Promise<number> {
  const metrics = await (await fetch(`${cluster.door(cluster.names[0]!)}/metrics`)).text();
  return Number(/^synod_payload_decided_bytes_total (\d+)/m.exec(metrics)?.[1] ?? 0);
}

async function catchUp(cluster: BenchCluster, height: number) {
  cluster.startReplica(fifth, ['--observe']);
  let peakResidentBytes = 0;
  let cpuSeconds = 0;
  const deadline = performance.now() + patienceMs;
  for (let asked = 0; ; ) {
    await pause(sampleMs);
    const usage = cluster.usage().get(fifth);
    if (usage === undefined) throw new Error('bench: the observer ended');
    peakResidentBytes = Math.max(peakResidentBytes, usage.residentBytes);
    cpuSeconds = usage.cpuSeconds;
    if (performance.now() > deadline) throw new Error('bench: the observer does not catch up');
    // Who asks takes part of the processor.
    if (performance.now() - asked < 5 * sampleMs) continue;
    asked = performance.now();
    if (((await cluster.status(fifth))?.height ?? 0) < height) continue;
    const beganAt = startOf(cluster);
    return { seconds: (Date.now() - beganAt) / 1_000, cpuSeconds, peakResidentBytes };
  }
}

/** When it had opened its doors and began to follow. */
function startOf(cluster: BenchCluster): number {
  const line = readFileSync(cluster.logOf(fifth), 'utf8')
    .split('\n')
    .find((each) => each.includes('"observing"'));
  if (line === undefined) throw new Error('bench: the observer says nothing');
  return new Date(JSON.parse(line).time).getTime();
}

async function verify(cluster: BenchCluster) {
  await cluster.end(fifth);
  const file = join(cluster.directory, 'chain');
  await run(['export', '--config', join(cluster.directory, fifth, CONFIG_FILE), '--out', file]);
  const genesis = join(cluster.directory, cluster.names[0]!, GENESIS_FILE);
  const { seconds, cpuSeconds } = await run(['verify', file, '--genesis', genesis]);
  rmSync(file);
  return { verifySeconds: seconds, verifyCpuSeconds: cpuSeconds };
}

/** `synod` with these arguments; rejects unless it ends well. */
function run(args: readonly string[]): Promise<{ readonly seconds: number; readonly cpuSeconds: number }> {
  const began = performance.now();
  const child = spawn(process.execPath, [daemon, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  let cpuSeconds = 0;
  const timer = setInterval(() => {
    cpuSeconds = usageOf(child.pid)?.cpuSeconds ?? cpuSeconds;
  }, sampleMs);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      clearInterval(timer);
      if (code === 0) resolve({ seconds: (performance.now() - began) / 1_000, cpuSeconds });
      else reject(new Error(`bench: synod ${args[0]} ended with ${signal ?? code}`));
    });
  });
}
