// Reading blocks back. Nothing leaves here unchecked: checksums of header and body, the header's hash, and, along a range, the
// parent of every block (LOG-2, LOG-11).

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { blockHash, decodeHeader, type Sha256 } from '../protocol/block.ts';
import type { BlockBytes, StoredBlock } from '../protocol/log.ts';
import { asHeight, type Hash, type Height } from '../protocol/types.ts';
import type { KeyValueStore } from './kv.ts';
import { bodyHashIn, checksum, damaged, decodeDecided, decodeHeaderRecord, type HeaderRecord, keys } from './layout.ts';
import type { RecentBlocks } from './recent.ts';

export interface StoredHeader {
  readonly height: Height;
  readonly hash: Hash;
  readonly header: Bytes;
  readonly certificate: Bytes | null;
}

export interface DecidedRangeQuery {
  readonly from: Height;
  /** Included. */
  readonly to: Height;
  /** Header, body and certificate bytes at most, except that one block is always given. */
  readonly bytesMax: number;
  /** Bodies stay empty and do not count. */
  readonly headersOnly?: boolean;
  /** End at a block with a certificate, or carry headers up to one. */
  readonly toCertificate?: boolean;
}

export interface DecidedRange {
  /** Consecutive from `from`; empty where `from` is below `lowest` or above `head`. */
  readonly blocks: readonly StoredBlock[];
  /** With `toCertificate`, where no block within the budget has one: the headers that follow, up to the first that has. */
  readonly proof: readonly StoredHeader[];
  /** The last of `blocks`, or of `proof`, has a certificate. */
  readonly proven: boolean;
}

/** How far a range is extended by headers to reach a certificate. */
export const proofHeadersMax = 64;
/** Headers looked up at once: few at first, since a few large blocks fill an answer, then twice as many each time. */
const windowHeightsMin = 4;
const windowHeightsMax = 64;

const noBody = new Uint8Array(0);

/** A decided block without its body's bytes; `block` where memory has it whole. */
interface Found extends StoredHeader {
  readonly record: HeaderRecord | undefined;
  readonly block: StoredBlock | undefined;
}

export interface ReaderContext {
  readonly kv: KeyValueStore;
  readonly sha256: Sha256;
  readonly recent: RecentBlocks;
  /** What is durable now: readers never see what a write in flight may still lose. */
  readonly view: { readonly lowest: number; readonly head: number };
}

export async function readDecided(context: ReaderContext, height: Height): Promise<StoredBlock | undefined> {
  const [found] = await find(context, height, height);
  return found === undefined ? undefined : (await withBodies(context, [found]))[0];
}

export async function readDecidedRange(context: ReaderContext, query: DecidedRangeQuery): Promise<DecidedRange> {
  const headersOnly = query.headersOnly === true;
  const within = await findWithin(context, query, headersOnly);
  let proof: readonly Found[] = [];
  if (query.toCertificate === true && within.length > 0) {
    const last = within.findLastIndex((found) => found.certificate !== null);
    if (last >= 0) within.length = last + 1;
    else proof = await findProof(context, within.at(-1)!);
  }
  const blocks = headersOnly ? within.map(headerOnly) : await withBodies(context, within);
  // A block pruned while it was read ends the answer before it.
  const cut = blocks.length < within.length;
  const proven = !cut && (proof.at(-1) ?? within.at(-1))?.certificate != null;
  return { blocks, proof: cut ? [] : proof.map(plain), proven };
}

/** A block's bytes by height and hash, decided or not. */
export async function readBlock(context: ReaderContext, height: Height, hash: Hash): Promise<BlockBytes | undefined> {
  const known = context.recent.get(height);
  if (known !== undefined && equalBytes(known.hash, hash)) return known.bytes;
  const headerKey = keys.header(height, hash);
  const header = await context.kv.get(headerKey);
  if (header === undefined) return undefined;
  const record = checkedHeader(context, height, hash, header);
  const bodyKey = keys.body(height, bodyHashIn(record.header));
  const body = await context.kv.get(bodyKey);
  // Dropped while it was read.
  if (body === undefined && (await context.kv.get(headerKey)) === undefined) return undefined;
  return { header: record.header, body: checkedBody(bodyKey, record, body) };
}

async function findWithin(context: ReaderContext, query: DecidedRangeQuery, headersOnly: boolean): Promise<Found[]> {
  const out: Found[] = [];
  let bytes = 0;
  const { lowest, head } = context.view;
  const to = Math.min(query.to, head);
  if (query.from < lowest) return out;
  let heights = windowHeightsMin;
  for (let at: number = query.from; at <= to; ) {
    const end = Math.min(to, at + heights - 1);
    const window = await find(context, at, end);
    for (const found of window) {
      const body = headersOnly ? 0 : (found.block?.bytes.body.length ?? found.record?.bodyBytes ?? 0);
      bytes += found.header.length + body + (found.certificate?.length ?? 0);
      if (bytes > query.bytesMax && out.length > 0) return out;
      checkLink(out.at(-1), found);
      out.push(found);
    }
    if (window.length < end - at + 1) return out;
    at = end + 1;
    heights = Math.min(2 * heights, windowHeightsMax);
  }
  return out;
}

async function findProof(context: ReaderContext, after: Found): Promise<readonly Found[]> {
  const to = Math.min(context.view.head, after.height + proofHeadersMax);
  const headers = await find(context, after.height + 1, to);
  const end = headers.findIndex((found) => found.certificate !== null);
  if (end < 0) return [];
  const proof = headers.slice(0, end + 1);
  for (const [i, found] of proof.entries()) checkLink(i === 0 ? after : proof[i - 1], found);
  return proof;
}

/** Decided entries and headers from..to, from memory where they are there. Shorter where the front was pruned meanwhile. */
async function find(context: ReaderContext, from: number, to: number): Promise<readonly Found[]> {
  const { kv, recent, view } = context;
  if (from < view.lowest || to > view.head) return [];
  const out: (Found | undefined)[] = [];
  const wanted: number[] = [];
  for (let height = from; height <= to; height++) {
    const block = recent.get(height);
    out.push(block === undefined ? undefined : foundInMemory(block));
    if (block === undefined) wanted.push(height);
  }
  if (wanted.length > 0) {
    const entries = await kv.getMany(wanted.map((height) => keys.decided(height)));
    const decided = wanted.map((height, i) => {
      const key = keys.decided(height);
      const value = entries[i];
      if (value !== undefined) return decodeDecided(key, value);
      if (height < view.lowest) return undefined;
      throw damaged(key, 'missing');
    });
    const headers = await kv.getMany(wanted.map((height, i) => keys.header(height, decided[i]?.hash ?? noBody)));
    for (const [i, height] of wanted.entries()) {
      const entry = decided[i];
      if (entry === undefined) return [];
      const value = headers[i];
      if (value === undefined && height < view.lowest) return [];
      if (value === undefined) throw damaged(keys.header(height, entry.hash), 'missing');
      const record = checkedHeader(context, height, entry.hash, value);
      const { hash, certificate } = entry;
      out[height - from] = {
        height: asHeight(height),
        hash,
        header: record.header,
        certificate,
        record,
        block: undefined,
      };
    }
  }
  return out.filter((found) => found !== undefined);
}

async function withBodies(context: ReaderContext, found: readonly Found[]): Promise<readonly StoredBlock[]> {
  const missing = found.filter((one) => one.block === undefined);
  const bodyKeys = missing.map((one) => keys.body(one.height, bodyHashIn(one.header)));
  const bodies = await context.kv.getMany(bodyKeys);
  const byHeight = new Map(missing.map((one, i) => [one.height, { key: bodyKeys[i]!, value: bodies[i] }] as const));
  const out: StoredBlock[] = [];
  for (const one of found) {
    const { height, hash, header, certificate, record } = one;
    if (one.block !== undefined || record === undefined) {
      if (one.block !== undefined) out.push(one.block);
      continue;
    }
    const { key, value } = byHeight.get(height)!; // it was missing
    if (value === undefined && height < context.view.lowest) return [];
    out.push({
      height,
      hash,
      certificate,
      bytes: { header, body: checkedBody(key, record, value) },
    });
  }
  return out;
}

function checkedHeader(context: ReaderContext, height: number, hash: Bytes, value: Bytes): HeaderRecord {
  const key = keys.header(height, hash);
  const record = decodeHeaderRecord(key, value);
  if (!equalBytes(blockHash(context.sha256, record.header), hash)) throw damaged(key, 'hash');
  return record;
}

function checkedBody(key: Bytes, record: HeaderRecord, body: Bytes | undefined): Bytes {
  if (body === undefined) throw damaged(key, 'missing');
  if (body.length !== record.bodyBytes) throw damaged(key, 'length');
  if (checksum(key, body) !== record.bodyCrc) throw damaged(key, 'checksum');
  return body;
}

/** [LOG-11] A decided block names the one before it. */
function checkLink(before: StoredHeader | undefined, after: StoredHeader): void {
  if (before === undefined) return;
  const header = decodeHeader(after.header);
  const linked = header !== undefined && header.height === before.height + 1 && equalBytes(header.parent, before.hash);
  if (!linked) throw damaged(keys.header(after.height, after.hash), 'parent');
}

function foundInMemory(block: StoredBlock): Found {
  const { height, hash, certificate } = block;
  return { height, hash, header: block.bytes.header, certificate, record: undefined, block };
}

function headerOnly({ height, hash, header, certificate }: Found): StoredBlock {
  return { height, hash, certificate, bytes: { header, body: noBody } };
}

function plain({ height, hash, header, certificate }: Found): StoredHeader {
  return { height, hash, header, certificate };
}
