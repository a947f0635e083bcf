// The HTTP door of a replica, read by `status` and `demo`. Only the fields that are used here are looked at; the rest is the
// door's own business (daemon/http/openapi.json).

import { z } from 'zod';

const named = z.object({ replica: z.int(), name: z.string() });

const statusSchema = z.object({
  node: named.extend({ version: z.string(), startedAt: z.number() }),
  chain: z.object({ chainId: z.string() }),
  ready: z.boolean(),
  reason: z.object({ code: z.string(), message: z.string() }).nullable(),
  view: z.int(),
  primary: named,
  phase: z.enum(['idle', 'ordering', 'view-change', 'catching-up', 'quarantine']),
  height: z.int(),
  hash: z.string(),
  stable: z.int(),
  lowest: z.int(),
  highestSeen: z.int(),
  pool: z.object({ bundles: z.int(), bytes: z.int() }),
  viewChanges: z.int(),
  waits: z.array(z.object({ words: z.string() })),
  peers: z.array(named.extend({ connected: z.boolean() })),
});

export type ReplicaStatus = z.output<typeof statusSchema>;

const headerSchema = z.object({ header: z.object({ height: z.int(), hash: z.string() }) });

/** Null: no answer, not in time, or not what a replica answers. */
export async function fetchStatus(base: string, timeoutMs: number): Promise<ReplicaStatus | null> {
  const parsed = statusSchema.safeParse(await fetchJson(`${base}/v1/status`, timeoutMs));
  return parsed.success ? parsed.data : null;
}

/** The hash of the block at this height, in hex; null as above. */
export async function fetchBlockHash(base: string, height: number, timeoutMs: number): Promise<string | null> {
  const parsed = headerSchema.safeParse(await fetchJson(`${base}/v1/blocks/${height}`, timeoutMs));
  return parsed.success && parsed.data.header.height === height ? parsed.data.header.hash : null;
}

async function fetchJson(url: string, timeoutMs: number): Promise<unknown> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    return await response.json();
  } catch {
    return null; // away
  }
}
