// What each replica holds, read through its own door, block by block, every certificate checked by the SDK; and what must be true of it.

import { type Client, connect, type FollowedBlock, openWebSocket, verifyReceiptFile } from '../../client/index.ts';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Network } from '../../daemon/cli/network.ts';
import { isOfFlood } from './flood.ts';
import { type Acknowledged, readText, type Submitter, textOf } from './load.ts';
import { settleMsMax, within } from './stage.ts';

export interface ReadChain {
  /** The first block's height; 0 where there is none. */
  from: number;
  /** One for each block: the header's bytes, and every bundle's payload and signature. */
  readonly digests: string[];
  /** Where each transaction stands, by its text; the last one, where `twice` says that there are more. */
  readonly places: Map<string, { readonly height: number; readonly index: number; readonly order: number }>;
  readonly twice: string[];
  /** Sequences that do not rise by one in a session. */
  readonly gaps: string[];
}

/** From the oldest block it has: asked for by its height, that block may be pruned by the next write, and a stream from one replica alone then waits for ever. */
export async function readChain(network: Network, name: string, to: number): Promise<ReadChain> {
  const client = await connectTo(network, name);
  const chain: ReadChain = { from: 0, digests: [], places: new Map(), twice: [], gaps: [] };
  const sequences = new Map<string, number>();
  const read = async () => {
    for await (const block of client.follow({ from: 'oldest', to })) {
      if (chain.from === 0) chain.from = block.header.height;
      addBlock(chain, block, sequences);
    }
  };
  try {
    await within(settleMsMax, read(), `all blocks of ${name} up to ${to}`);
  } finally {
    await client.close();
  }
  return chain;
}

function addBlock(chain: ReadChain, { header, headerBytes, bundles }: FollowedBlock, sequences: Map<string, number>) {
  const parts: Bytes[] = [headerBytes];
  let index = 0;
  for (const { client, session, sequence, transactions, payload, signature } of bundles ?? []) {
    parts.push(payload, signature);
    const key = `${toHex(client)} ${session}`;
    const last = sequences.get(key) ?? (chain.from === 1 ? 0 : sequence - 1);
    if (sequence !== last + 1) chain.gaps.push(`${key}: ${sequence} after ${last} at height ${header.height}`);
    sequences.set(key, sequence);
    for (const transaction of transactions) {
      const place = { height: header.height, index, order: chain.places.size };
      index += 1;
      if (isOfFlood(transaction)) continue;
      const text = textOf(transaction);
      if (chain.places.has(text)) chain.twice.push(text);
      chain.places.set(text, place);
    }
  }
  chain.digests.push(toHex(native.sha256(Buffer.concat(parts))));
}

/** A client whose streams can come from this replica alone: a second connection to any other one yields nonsense. */
async function connectTo(network: Network, name: string): Promise<Client> {
  const { genesis, replicas } = network;
  const open = new Map<string, number>();
  const target = replicas.find((replica) => replica.name === name)?.url;
  return connect({
    genesis,
    replicas: replicas.map((replica) => ({ name: replica.name, url: replica.url })),
    options: {
      connectTimeoutMs: settleMsMax,
      openSocket: (url, events) => {
        const others = open.get(url) ?? 0;
        if (others > 0 && url !== target) {
          queueMicrotask(() => {
            events.open();
            events.message(Uint8Array.of(0));
          });
          return { send: () => undefined, bufferedBytes: 0, close: () => undefined };
        }
        open.set(url, others + 1);
        const closed = (reason: string) => {
          open.set(url, (open.get(url) ?? 1) - 1);
          events.closed(reason);
        };
        return openWebSocket(url, { ...events, closed });
      },
    },
  });
}

/** Texts, or rather the first few, for whom the chain is not what the submitters were told. */
export function brokenPromises(chain: ReadChain, submitters: readonly Submitter[]): string[] {
  const broken: string[] = [];
  const known = new Set<string>();
  for (const { acknowledged, left } of submitters) {
    for (const text of left) known.add(text);
    for (const each of acknowledged) {
      known.add(each.text);
      const problem = problemOf(chain, each);
      if (problem !== null) broken.push(`${each.text}: ${problem}`);
    }
  }
  for (const text of chain.places.keys()) if (!known.has(text)) broken.push(`${text}: never submitted`);
  return [...broken, ...chain.twice.map((text) => `${text}: twice`), ...chain.gaps, ...outOfOrder(chain)];
}

function problemOf(chain: ReadChain, { text, height, index }: Acknowledged): string | null {
  if (height < chain.from) return null;
  const place = chain.places.get(text);
  if (place === undefined) return `acknowledged at ${height}/${index} and missing`;
  if (place.height !== height || place.index !== index)
    return `acknowledged at ${height}/${index}, stands at ${place.height}/${place.index}`;
  return null;
}

/** In one session the numbers rise, and none is left out before one that stands there. */
function outOfOrder(chain: ReadChain): string[] {
  const last = new Map<string, number>();
  const wrong: string[] = [];
  for (const text of chain.places.keys()) {
    const { stream, number } = readText(text);
    const before = last.get(stream) ?? (chain.from === 1 ? 0 : number - 1);
    if (number !== before + 1) wrong.push(`${text}: after number ${before}`);
    last.set(stream, number);
  }
  return wrong;
}

/** Heights at which the chains differ; they need not begin at the same height. */
export function differences(chains: readonly ReadChain[]): number[] {
  const from = Math.max(...chains.map((chain) => chain.from));
  const tails = chains.map((chain) => chain.digests.slice(from - chain.from));
  const length = Math.max(...tails.map((tail) => tail.length));
  return Array.from({ length }, (_, at) => at)
    .filter((at) => new Set(tails.map((tail) => tail[at])).size !== 1)
    .map((at) => from + at);
}

/** Receipts as files, checked with the genesis alone; texts of those that do not prove their transaction. */
export function unproven({ genesis }: Network, submitters: readonly Submitter[]): string[] {
  return submitters.flatMap(({ receipts }) =>
    receipts.flatMap((receipt) => {
      const file = JSON.stringify(receipt);
      const proven = verifyReceiptFile(file, { genesis, crypto: native });
      const text = textOf(receipt.transaction);
      if ('refused' in proven) return [`${text}: ${proven.refused}`];
      const isSame = Buffer.compare(proven.transaction, receipt.transaction) === 0;
      return isSame && proven.height === receipt.height ? [] : [`${text}: proves something else`];
    }),
  );
}
