// The HTTP door of a replica, read by `status`, `why`, `explain` and `demo`. Only the fields that are used here are looked at; the rest is the
// door's own business (daemon/http/openapi.json).

import { z } from 'zod';
import type { Genesis } from '../../protocol/genesis.ts';
import { EpochChain } from '../../protocol/verify.ts';
import { decodeEpochsFile } from '../epochs-file.ts';

/** More than the largest piece of evidence: two new-views of 128 members. */
const fileBytesMax = 4 << 20;

const named = z.object({ replica: z.int(), name: z.string() });

const statusSchema = z.object({
  node: named.extend({ version: z.string(), startedAt: z.number() }),
  chain: z.object({ chainId: z.string() }),
  ready: z.boolean(),
  epoch: z.int().default(0),
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

const evidenceSchema = z.object({
  evidence: z.array(z.object({ id: z.string() })),
  newViews: z.array(z.object({ id: z.string() })),
});

/** The witness files that the replica keeps; null: no answer, not in time, or not what a replica answers. */
export async function fetchWitness(base: string, timeoutMs: number): Promise<readonly Uint8Array[] | null> {
  const parsed = evidenceSchema.safeParse(await fetchJson(`${base}/v1/evidence`, timeoutMs));
  if (!parsed.success) return null;
  const files: Uint8Array[] = [];
  for (const { id } of [...parsed.data.evidence, ...parsed.data.newViews]) {
    const file = await fetchBytes(`${base}/v1/evidence/${encodeURIComponent(id)}`, timeoutMs);
    // A new-view that was dropped since the list was made is no reason to lose the rest.
    if (file !== null) files.push(file);
  }
  return files;
}

/** The epochs that a replica can prove; null: no answer, or one that does not hold. */
export async function fetchEpochs(base: string, genesis: Genesis, timeoutMs: number): Promise<EpochChain | null> {
  const bytes = await fetchBytes(`${base}/v1/epochs`, timeoutMs);
  if (bytes === null) return null;
  const epochs = decodeEpochsFile(bytes, genesis);
  return epochs instanceof EpochChain ? epochs : null;
}

/** Each link is proved, so any replica may tell of them, and whoever knows most is right. */
export const longestOf = (known: EpochChain, told: readonly (EpochChain | null)[]): EpochChain =>
  told.reduce<EpochChain>((a, b) => (b !== null && b.last.epoch > a.last.epoch ? b : a), known);

const problemSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/** Null: no answer. Without a code: it was taken in. */
export async function postTransaction(
  base: string,
  transaction: Uint8Array,
  timeoutMs: number,
): Promise<{ readonly code: string | null; readonly message: string } | null> {
  try {
    const response = await fetch(`${base}/v1/transactions?wait=accepted`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: transaction,
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (response.ok) return { code: null, message: '' };
    const parsed = problemSchema.safeParse(await response.json());
    return parsed.success ? parsed.data.error : { code: 'failed', message: `status ${response.status}` };
  } catch {
    return null; // away
  }
}

async function fetchBytes(url: string, timeoutMs: number): Promise<Uint8Array | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    if (!response.ok || Number(response.headers.get('content-length') ?? 0) > fileBytesMax) return null;
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    return null; // away
  }
}

async function fetchJson(url: string, timeoutMs: number): Promise<unknown> {
  const answer = await fetchAnswer(url, timeoutMs);
  return 'json' in answer ? answer.json : null;
}

/** More than the largest answer that is asked for here; a stranger's is not read to its end. */
const answerBytesMax = 8 << 20;

/** `problem`: why there is none, as one word of Node's or of ours. */
export type Answer = { readonly status: number; readonly json: unknown } | { readonly problem: string };

export async function fetchAnswer(url: string, timeoutMs: number): Promise<Answer> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    const text = await boundedText(response);
    return text === null ? { problem: 'too-large' } : { status: response.status, json: JSON.parse(text) };
  } catch (error) {
    return { problem: problemOf(error) };
  }
}

async function boundedText({ body }: Response): Promise<string | null> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    // A body of bytes: fetch's own type does not say so.
    chunks.push(chunk as Uint8Array);
    bytes += (chunk as Uint8Array).length;
    if (bytes > answerBytesMax) return null;
  }
  return Buffer.concat(chunks).toString('utf8');
}

function problemOf(error: unknown): string {
  if (error instanceof SyntaxError) return 'not-json';
  if (!(error instanceof Error)) return 'failed';
  if (error.name === 'TimeoutError') return 'timeout';
  // fetch says "fetch failed", and the system's reason is its cause.
  const cause: unknown = error.cause;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  return typeof code === 'string' ? code.toLowerCase() : 'failed';
}
