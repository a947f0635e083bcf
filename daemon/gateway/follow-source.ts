// Blocks by height for all streams of this replica: from memory near the head, from the log below, as sealed frames of a bounded size.

import type { Decided } from '../../protocol/core.ts';
import type { FollowedBlock } from '../../protocol/door.ts';
import { asHeight, type Height } from '../../protocol/types.ts';
import { SpentBytes } from '../young.ts';
import type { LogReader } from './log-reader.ts';
import { RecentBlocks } from './recent-blocks.ts';
import type { FrameSealer } from './seal-frames.ts';

export interface FrameWanted {
  readonly from: Height;
  /** Included. */
  readonly to: Height;
  readonly headersOnly: boolean;
  /** `to` is the last block of the stream, so a frame that reaches it must prove it. */
  readonly endsAtTo: boolean;
}

export interface FollowFrame {
  readonly frame: Uint8Array;
  /** Blocks of the stream in it, at least one; headers above its last block do not count. */
  readonly blocks: number;
}

export interface FollowSourceOptions {
  readonly reader: LogReader;
  readonly sealer: FrameSealer;
  readonly head: () => Height;
  readonly followBytesMax: number;
  readonly followBlocksMax: number;
  readonly recentBlocksMax: number;
  readonly recentBytesMax: number;
}

export class FollowSource {
  readonly #options: FollowSourceOptions;
  readonly #recent: RecentBlocks;
  readonly #spent = new SpentBytes();

  constructor(options: FollowSourceOptions) {
    this.#options = options;
    this.#recent = new RecentBlocks({ blocksMax: options.recentBlocksMax, bytesMax: options.recentBytesMax });
  }

  push(blocks: readonly Decided[]): void {
    this.#recent.push(blocks);
  }

  /** Another epoch has begun. */
  enter(): void {
    this.#recent.dropFrames();
  }

  head(): Height {
    return this.#options.head();
  }

  lowest(): Height {
    return this.#options.reader.lowest();
  }

  /**
   * The first of the wanted blocks; undefined: not here, or not provable yet. A frame ends at a certified block where it can. Where the
   * last block of the stream is not certified itself, the headers above it follow, up to one that is: proof, and no part of the stream.
   */
  async frame(wanted: FrameWanted): Promise<FollowFrame | undefined> {
    const { from, to, headersOnly, endsAtTo } = wanted;
    const { followBytesMax: bytesMax, followBlocksMax: blocksMax, reader, sealer } = this.#options;
    const range = { from, to, bytesMax, blocksMax };
    const recent = this.#recent.range(range);
    const found =
      recent?.map((each) => followed(each, headersOnly)) ?? (await reader.followed({ ...range, headersOnly }));
    if (found.length === 0) return undefined;
    const proved = found.findLastIndex(({ certificate }) => certificate !== null) + 1;
    const blocks = proved > 0 ? found.slice(0, proved) : found;
    const mustProve = proved === 0 && endsAtTo && from + blocks.length > to;
    const links = mustProve ? await this.#linksAbove(to) : [];
    if (mustProve && links.length === 0) return undefined;
    const seal = () => sealer.seal({ kind: 'follow-blocks', blocks: [...blocks, ...links] });
    const key = `${from}:${blocks.length}:${links.length}:${headersOnly}`;
    const frame = recent === undefined ? seal() : this.#recent.frame(key, seal);
    // What came from the log for it, and the frame itself, are garbage as soon as it is sent.
    if (recent === undefined) this.#spent.add(frame.length);
    return { frame, blocks: blocks.length };
  }

  async #linksAbove(height: Height): Promise<readonly FollowedBlock[]> {
    const head = this.head();
    const recent = this.#recent.range({
      from: asHeight(height + 1),
      to: head,
      bytesMax: Number.MAX_SAFE_INTEGER,
      blocksMax: 64,
    });
    const end = recent?.findIndex(({ certificate }) => certificate !== null) ?? -1;
    if (recent !== undefined && end >= 0) return recent.slice(0, end + 1).map((each) => followed(each, true));
    return this.#options.reader.linksAbove(height);
  }
}

function followed({ block, certificate }: Decided, headersOnly: boolean): FollowedBlock {
  return { headerBytes: block.headerBytes, bundles: headersOnly ? null : block.bundles, certificate };
}
