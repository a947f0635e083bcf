// Blocks on the wire, [header, body], and in the store. Body: [[bundle payload, signature], ...] (docs/wire.md, "Blocks").

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { Frontier } from '../../crypto/merkle.ts';
import {
  type Block,
  type BlockHeader,
  blockHash,
  bodyHash,
  decodeHeader,
  HEADER_BYTES,
  type Sha256,
} from '../block.ts';
import type { SignedBundle } from '../bundle.ts';
import { blockTransactionsMax, type Parameters } from '../genesis.ts';
import type { BlockBytes } from '../log.ts';
import { asHash } from '../types.ts';
import { type BundleBytes, bundleOf, type WireContext } from './bundle.ts';
import { isSameMemory, own, plain } from './bytes.ts';
import { arrayBytes, binBytes, Cursor, Scribe } from './cursor.ts';
import type { Fields } from './fields.ts';
import type { Kind } from './kinds.ts';
import { isRefusal, refuse, type StoredKind, type WireCode, type WireRefusal } from './refusal.ts';

/** Bytes of these bundles as a body; what `encodeBody` gives has exactly as many. */
export function bodyBytes(bundles: readonly BundleBytes[]): number {
  let size = arrayBytes(bundles.length);
  for (const { payload } of bundles) size += bundleItemBytes(payload.length);
  return size;
}

/** What one bundle adds to a body or to a `forward`, but for the list's header: for filling a frame without exceeding it. */
export function bundleItemBytes(payloadBytes: number): number {
  return 1 + binBytes(payloadBytes) + binBytes(64);
}

/** What a block takes inside a payload. */
export function blockBytesOnWire(block: Block): number {
  return 1 + binBytes(HEADER_BYTES) + bodyBytes(block.bundles);
}

export function encodeBody(bundles: readonly BundleBytes[]): Bytes {
  return writeBody(new Scribe(bodyBytes(bundles)), bundles).done();
}

/**
 * The body of bundles that were decoded: the very bytes that they are views into, where those lie there as a body, as they do in a frame of a stream;
 * else encoded. What was verified is written as it came, uncopied.
 */
export function bodyOf(bundles: readonly BundleBytes[]): Bytes {
  return bodyAround(bundles) ?? encodeBody(bundles);
}

function bodyAround(bundles: readonly BundleBytes[]): Bytes | undefined {
  const last = bundles.at(-1)?.signature;
  if (last === undefined) return undefined;
  const size = bodyBytes(bundles);
  const start = last.byteOffset + last.length - size;
  if (start < 0) return undefined;
  const body = new Uint8Array(last.buffer, start, size);
  const items = splitBody(body, bundles.length);
  if (isRefusal(items) || items.length !== bundles.length) return undefined;
  const isThere = (item: BundleBytes, i: number) =>
    isSameMemory(item.payload, bundles[i]!.payload) && isSameMemory(item.signature, bundles[i]!.signature);
  return items.every(isThere) ? body : undefined;
}

export function writeBody(scribe: Scribe, bundles: readonly BundleBytes[]): Scribe {
  scribe.array(bundles.length);
  for (const { payload, signature } of bundles) scribe.array(2).bin(payload).bin(signature);
  return scribe;
}

export function writeBlock(scribe: Scribe, block: Block): Scribe {
  return writeBody(scribe.array(2).bin(block.headerBytes), block.bundles);
}

/** The bundles of a stored body. The limits of `context` hold; the header that commits to them is not looked at. */
export function decodeBody(bytes: Bytes, context: WireContext): readonly SignedBundle[] | WireRefusal {
  const items = splitBody(plain(bytes), context.parameters.blockBundlesMax);
  if (isRefusal(items)) return items;
  const bundles: SignedBundle[] = [];
  for (const item of items) {
    const bundle = bundleOf(item, asHash(context.sha256(item.payload)), context);
    if (isRefusal(bundle)) return bundle;
    bundles.push(bundle);
  }
  return bundles;
}

/** What `decided` and `accepted` entries of the log hold, checked like a block from a peer: a disk is not trusted either. */
export function decodeStoredBlock({ header, body }: BlockBytes, context: WireContext): Block | WireRefusal {
  const items = splitBody(plain(body), context.parameters.blockBundlesMax);
  return isRefusal(items) ? items : blockOf(header, items, context, 'block');
}

export function encodeStoredBlock(block: Block): BlockBytes {
  return { header: block.headerBytes, body: encodeBody(block.bundles) };
}

function splitBody(body: Bytes, bundlesMax: number): readonly BundleBytes[] | WireRefusal {
  const cursor = new Cursor(body);
  const count = cursor.array();
  if (count > bundlesMax) return refuse('field-out-of-range', 'body', 'bundles');
  const items: BundleBytes[] = [];
  for (let i = 0; i < count; i++) {
    const fields = cursor.array();
    const payload = cursor.bin();
    const signature = cursor.bin();
    if (fields !== 2 || payload === undefined || signature?.length !== 64)
      return refuse('payload-malformed', 'body', 'bundles');
    items.push({ payload, signature });
  }
  return cursor.done() ? items : refuse('payload-malformed', 'body');
}

/** The two fields of a block inside a payload, not yet looked into. */
export interface BlockParts {
  readonly header: Bytes;
  readonly bundles: readonly BundleBytes[];
}

export function readBlockParts(fields: Fields, bundlesMax: number): BlockParts {
  return { header: fields.bytes('header', HEADER_BYTES, HEADER_BYTES), bundles: readBundleItems(fields, bundlesMax) };
}

export function readBundleItems(fields: Fields, max: number): readonly BundleBytes[] {
  return fields.tuples('bundles', { max }, 2, readBundleItem);
}

export function readBundleItem(item: Fields): BundleBytes {
  return {
    payload: item.bytes('payload', 1, Number.MAX_SAFE_INTEGER),
    signature: item.bytes('signature', 64, 64),
  };
}

/**
 * [WIRE-10] The block of these parts, if the header commits to exactly this body: counts, sizes, body hash and transaction root.
 * That is well-formedness, whatever the state; the chain, the views and the signatures are for others. Of a value the root is taken as said (CFT-V-4). What lies in the body are
 * views into the bytes at hand, the header is a copy.
 */
export function blockOf(
  headerPart: Bytes,
  items: readonly BundleBytes[],
  context: WireContext,
  kind: Kind | StoredKind,
): Block | WireRefusal {
  const { sha256, parameters } = context;
  const headerBytes = own(headerPart);
  const header = decodeHeader(headerBytes);
  if (header === undefined) return refuse('payload-malformed', kind, 'block.header');
  const wrong = refusedSizes(header, items, parameters);
  if (wrong !== undefined) return refuse(wrong.code, kind, wrong.field);

  // The body hash first: whoever makes up a body pays for no leaf hashes of ours.
  const digests = items.map((item) => ({ digest: asHash(sha256(item.payload)), signature: item.signature }));
  if (!equalBytes(bodyHash(sha256, digests), header.bodyHash)) return refuse('block-body-mismatch', kind, 'bodyHash');

  const bundles: SignedBundle[] = [];
  let transactions = 0;
  for (const [index, item] of items.entries()) {
    const bundle = bundleOf(item, digests[index]!.digest, context);
    if (isRefusal(bundle)) return { ...bundle, kind, field: `block.bundles.${bundle.field}` };
    bundles.push(bundle);
    transactions += bundle.transactions.length;
    if (transactions > header.transactionCount) return refuse('block-body-mismatch', kind, 'transactionCount');
  }
  if (transactions !== header.transactionCount) return refuse('block-body-mismatch', kind, 'transactionCount');
  if (!valueKinds.has(kind) && !equalBytes(transactionRoot(sha256, bundles), header.transactionRoot))
    return refuse('block-body-mismatch', kind, 'transactionRoot');
  if (header.transactionTotal < header.transactionCount)
    return refuse('field-out-of-range', kind, 'block.header.transactionTotal');
  return { header, headerBytes, hash: blockHash(sha256, headerBytes), bundles };
}

/** [CFT-V-4] What trusted members alone say, each in a frame of its own name: the root is what its proposer has made of the same body. */
const valueKinds: ReadonlySet<Kind | StoredKind> = new Set(['accept', 'fast-accept', 'append-entries'] as const);

/** By a frontier: nothing of the tree is kept. */
function transactionRoot(sha256: Sha256, bundles: readonly SignedBundle[]): Bytes {
  const tree = Frontier.empty(sha256);
  for (const bundle of bundles) for (const leaf of bundle.leaves) tree.append(leaf);
  return tree.root();
}

/** What the header and the limits say against these sizes, before anything is hashed. */
function refusedSizes(
  header: BlockHeader,
  items: readonly BundleBytes[],
  parameters: Parameters,
): { readonly code: WireCode; readonly field: string } | undefined {
  const { blockBundlesMax, blockBytesMax, bundleBytesMax } = parameters;
  // BLK-8
  if (header.transactionCount > blockTransactionsMax(parameters))
    return { code: 'field-out-of-range', field: 'block.transactionCount' };
  if (items.length > blockBundlesMax) return { code: 'field-out-of-range', field: 'block.bundles' };
  if (items.length !== header.bundleCount) return { code: 'block-body-mismatch', field: 'bundleCount' };
  let bytes = 0;
  for (const { payload } of items) {
    if (payload.length > bundleBytesMax) return { code: 'bundle-too-large', field: 'block.bundles.payload' };
    bytes += payload.length;
  }
  if (bytes > blockBytesMax) return { code: 'field-out-of-range', field: 'block.payloadBytes' };
  if (bytes !== header.payloadBytes) return { code: 'block-body-mismatch', field: 'payloadBytes' };
  return undefined;
}
