// Free ports for a network on this machine.

import { once } from 'node:events';
import { createServer } from 'node:net';
import { Complaint } from './errors.ts';

/** Below the range from which operating systems take ports for outgoing connections, so that none slips in between. */
const lowest = 20_000;
const highest = 31_900;
const attemptsMax = 50;

/** The first of `count` consecutive ports that nobody listens on at this moment. */
export async function freePortRange(host: string, count: number): Promise<number> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const base = lowest + Math.floor(Math.random() * (highest - lowest - count));
    if (await areFree(host, base, count)) return base;
  }
  throw new Complaint({
    code: 'no-free-ports',
    sentence: `found no ${count} free ports in a row on ${host}`,
    remedy: 'Give a range with --base-port, or another --host.',
  });
}

async function areFree(host: string, base: number, count: number): Promise<boolean> {
  for (let port = base; port < base + count; port++) if (!(await isFree(host, port))) return false;
  return true;
}

async function isFree(host: string, port: number): Promise<boolean> {
  const server = createServer();
  server.listen({ host, port, exclusive: true });
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
