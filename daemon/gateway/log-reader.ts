// The log as the doors read it: blocks for streams, and blocks with what proves them. A log that contradicts itself throws, as the
// store does; that is for the replica to end by, never for a client to cause.

import type { Bytes } from '../../crypto/bytes.ts';
import type { Block } from '../../protocol/block.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import {
  type BundleBytes,
  decodeCertificate,
  decodeStoredBlock,
  isRefusal,
  type WireContext,
} from '../../protocol/codec.ts';
import type { FollowedBlock } from '../../protocol/door.ts';
import { storedParameters } from '../../protocol/genesis.ts';
import type { StoredBlock } from '../../protocol/log.ts';
import { asHeight, type Hash, type Height } from '../../protocol/types.ts';
import { Cursor } from '../../protocol/wire/cursor.ts';
import type { LogStore } from '../../storage/log-store.ts';
import type { CertifiedChain } from './block-source.ts';
import type { RangeWanted } from './recent-blocks.ts';

/** Headers above a block until one is certified; a window of 64 never needs more. */
const linksMax = 64;
/** More than `linksMax` headers with the largest certificates. */
const linksBytesMax = 1 << 20;

export class LogReader {
  readonly #log: LogStore;
  readonly #wire: WireContext;

  constructor(options: { readonly log: LogStore; readonly wire: WireContext }) {
    this.#log = options.log;
    const { wire } = options;
    this.#wire = { ...wire, parameters: storedParameters(wire.parameters) };
  }

  /** The lowest block that is still here; head + 1 where there is none. */
  lowest(): Height {
    return this.#log.lowest;
  }

  /** The highest block that is durable here; the replica may have decided a few more. */
  head(): Height {
    return this.#log.head;
  }

  heightOf(digest: Hash): Promise<Height | undefined> {
    return this.#log.findBundle(digest);
  }

  /** A block with what proves it; undefined where it is not here, or nothing certifies it yet. */
  async certifiedChain(height: Height): Promise<CertifiedChain | undefined> {
    // One block is always given, whatever the budget.
    const { blocks, proof } = await this.#log.readDecidedRange({
      from: height,
      to: height,
      bytesMax: 1,
      toCertificate: true,
    });
    const stored = blocks[0];
    const certificate = certificateOf((proof.at(-1) ?? stored)?.certificate ?? null);
    if (stored === undefined || certificate === null) return undefined;
    return { block: this.#block(stored), links: proof.map(({ header }) => header), certificate };
  }

  /** Blocks for a stream, from `from` on; empty where that is not here. */
  async followed(wanted: RangeWanted & { readonly headersOnly: boolean }): Promise<readonly FollowedBlock[]> {
    const { from, bytesMax, headersOnly } = wanted;
    const to = asHeight(Math.min(wanted.to, from + wanted.blocksMax - 1));
    const { blocks } = await this.#log.readDecidedRange({ from, to, bytesMax, headersOnly });
    return blocks.map((stored) => ({
      headerBytes: stored.bytes.header,
      bundles: headersOnly ? null : splitBody(stored),
      certificate: certificateOf(stored.certificate),
    }));
  }

  /** The headers above a height, up to the first that is certified; empty where there is none yet. */
  async linksAbove(height: Height): Promise<readonly FollowedBlock[]> {
    const from = asHeight(height + 1);
    const to = asHeight(height + linksMax);
    const links = await this.followed({ from, to, bytesMax: linksBytesMax, blocksMax: linksMax, headersOnly: true });
    const end = links.findIndex(({ certificate }) => certificate !== null);
    return links.slice(0, end + 1);
  }

  #block(stored: StoredBlock): Block {
    const block = decodeStoredBlock(stored.bytes, this.#wire);
    if (isRefusal(block))
      throw new Error(`log: block ${stored.height} is not what was written: ${block.refused} ${block.field}`);
    return block;
  }
}

function certificateOf(bytes: Bytes | null): Certificate | null {
  if (bytes === null) return null;
  const certificate = decodeCertificate(bytes);
  if (isRefusal(certificate)) throw new Error(`log: a certificate is not what was written: ${certificate.refused}`);
  return certificate;
}

/** The bundles of a body as they are, without hashing: the store has checked the bytes, and the follower checks everything. */
function splitBody({ height, bytes }: StoredBlock): readonly BundleBytes[] {
  const cursor = new Cursor(bytes.body);
  const count = cursor.array();
  const bundles: BundleBytes[] = [];
  for (let i = 0; i < count; i++) {
    const fields = cursor.array();
    const payload = cursor.bin();
    const signature = cursor.bin();
    if (fields !== 2 || payload === undefined || signature === undefined) break;
    bundles.push({ payload, signature });
  }
  if (!cursor.done() || bundles.length !== count)
    throw new Error(`log: the body of block ${height} is not what was written`);
  return bundles;
}
