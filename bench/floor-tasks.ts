// The floors, each measured in a worker process of its own: what the disk, the processor and the loopback give at best.

import { closeSync, fdatasyncSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { hrtime } from 'node:process';
import WebSocket, { WebSocketServer } from 'ws';
import { native } from '../crypto/native.ts';
import { clientSigner } from '../keys/client-key.ts';
import { SecretKey } from '../keys/keypair.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import { asHash } from '../protocol/types.ts';
import { type ExchangeTask, exchange } from './exchange.ts';
import { Histogram, type Quantiles } from './histogram.ts';
import type { Report } from './task.ts';

export type FloorTask =
  | {
      readonly kind: 'sync';
      readonly path: string;
      readonly bytes: number;
      /** Into blocks that are there, as the vote guard writes; else at the end of the file, as a log does. */
      readonly preallocated: boolean;
      readonly ms: number;
    }
  | { readonly kind: 'compute'; readonly ms: number }
  | { readonly kind: 'echo-server' }
  | { readonly kind: 'echo'; readonly port: number; readonly bytes: number; readonly ms: number }
  | ExchangeTask;

/** Operations per second. */
export interface ComputeFloors {
  readonly sign: number;
  readonly verify: number;
  readonly sha256Of256: number;
  readonly sha256Of64Ki: number;
}

export function measure(task: FloorTask, tell: (report: Report) => void): Promise<unknown> | unknown {
  switch (task.kind) {
    case 'sync':
      return syncedWrites(task);
    case 'compute':
      return compute(task.ms);
    case 'echo-server':
      return echoServer(tell);
    case 'echo':
      return roundTrips(task);
    case 'exchange-replica':
    case 'exchange-client':
      return exchange(task);
  }
}

const preallocatedBytes = 8 << 20;

/** In milliseconds, one write with its sync. */
function syncedWrites({ path, bytes, preallocated, ms }: Extract<FloorTask, { kind: 'sync' }>): Quantiles {
  const fd = openSync(path, 'w', 0o600);
  const histogram = new Histogram();
  try {
    if (preallocated) {
      const zeros = Buffer.alloc(1 << 20);
      for (let at = 0; at < preallocatedBytes; at += zeros.length) writeSync(fd, zeros, 0, zeros.length, at);
    }
    fsyncSync(fd);
    const data = Buffer.alloc(bytes, 0x5a);
    const slots = preallocated ? Math.floor(preallocatedBytes / Math.max(bytes, 4096)) : Number.POSITIVE_INFINITY;
    const until = performance.now() + ms;
    for (let i = 0; performance.now() < until; i++) {
      const at = preallocated ? (i % slots) * Math.max(bytes, 4096) : i * bytes;
      const started = performance.now();
      writeSync(fd, data, 0, bytes, at);
      fdatasyncSync(fd);
      histogram.record(performance.now() - started);
    }
    return histogram.quantiles();
  } finally {
    closeSync(fd);
    rmSync(path, { force: true });
  }
}

function compute(ms: number): ComputeFloors {
  const secret = SecretKey.generate();
  const chainId = asHash(native.sha256(secret.publicKey));
  const signer = clientSigner(secret, chainId);
  const digest = asHash(native.sha256(chainId));
  const message = bundleSigningBytes(chainId, digest);
  const signature = signer.signBundle(digest);
  const small = new Uint8Array(256);
  const large = new Uint8Array(64 << 10);
  return {
    sign: perSecond(ms, () => signer.signBundle(digest)),
    verify: perSecond(ms, () => native.verify(secret.publicKey, message, signature)),
    sha256Of256: perSecond(ms, () => native.sha256(small)),
    sha256Of64Ki: perSecond(ms, () => native.sha256(large)),
  };
}

/** By the median of short rounds: one in which the process was not running does not count. */
function perSecond(ms: number, work: () => unknown): number {
  const rounds = new Histogram();
  const until = performance.now() + ms;
  let perRound = 1;
  while (performance.now() < until) {
    const started = hrtime.bigint();
    for (let i = 0; i < perRound; i++) work();
    const took = Number(hrtime.bigint() - started) / 1e6;
    if (took < 0.5) perRound *= 2;
    else rounds.record(took / perRound);
  }
  return 1000 / rounds.quantile(0.5);
}

/** Runs until its parent kills it. */
function echoServer(tell: (report: Report) => void): Promise<never> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  server.on('connection', (socket) => {
    socket.on('message', (data) => socket.send(data, { binary: true }));
  });
  server.on('listening', () => {
    // The cast: a listener on TCP has a port.
    tell({ type: 'mark', name: 'port', value: (server.address() as AddressInfo).port });
  });
  return new Promise(() => undefined);
}

async function roundTrips({ port, bytes, ms }: Extract<FloorTask, { kind: 'echo' }>): Promise<Quantiles> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, [], { perMessageDeflate: false });
  const histogram = new Histogram();
  const frame = new Uint8Array(bytes);
  return await new Promise((resolve, reject) => {
    let started = 0;
    let until = 0;
    const send = () => {
      started = performance.now();
      socket.send(frame, { binary: true });
    };
    socket.on('error', reject);
    socket.on('open', () => {
      until = performance.now() + ms;
      send();
    });
    socket.on('message', () => {
      const now = performance.now();
      histogram.record(now - started);
      if (now < until) return send();
      socket.terminate();
      resolve(histogram.quantiles());
    });
  });
}
