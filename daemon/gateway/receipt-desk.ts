// Who waits for which bundle, for both doors. The desk hears the replica's verdicts and decided blocks, builds receipts only for
// what somebody waits for, and answers a retry of a decided bundle with its stored receipt: exactly once, and told as often as asked.

import type { Bytes } from '../../crypto/bytes.ts';
import type { AdmissionCode, Decided } from '../../protocol/core.ts';
import { asHeight, type Hash, type Height } from '../../protocol/types.ts';
import type { Meter, ReplicaPort } from '../ports.ts';
import { type CertifiedChain, type Delivered, ReceiptMaker } from './block-source.ts';
import type { LogReader } from './log-reader.ts';

/** Whoever waits for bundles: a connection, or the HTTP door. Called from the desk, never re-entrantly from `wait`. */
export interface Waiting {
  /** Decided; nothing more follows for these digests. */
  delivered(bundles: readonly Delivered[], source: 'live' | 'stored'): void;
  /** `final`: nothing more follows for this digest. */
  admission(digest: Hash, code: DeskCode, final: boolean): void;
  /** What was delivered leaves at once. */
  hurry?(): void;
}

/** `busy`: the replica refuses it, and whether it was decided before could not be looked up. */
export type DeskCode = AdmissionCode | 'busy' | 'bundle-invalid';

/** What was found of a bundle, and where: it is in no certified block from `lowest` to `height` but the one that was found. */
export interface Looked {
  readonly found: Delivered | null;
  readonly lowest: Height;
  readonly height: Height;
}

/** Decided blocks that wait for a later block's certificate: more than a window of them never come without one. */
const uncertifiedBlocksMax = 256;
/** Decided blocks that the log has not made durable yet; the loop writes them within milliseconds. */
const freshBlocksMax = 512;
/** Blocks whose tree is kept for the retries of many bundles at once. */
const storedBlocksMax = 4;
/** Who waits for a decision is told at once where it is not more than so many. */
const promptMax = 8;
/** Look-ups in the log at once; the others wait for their turn. */
const lookupsMax = 8;
/** Look-ups that wait; beyond it a refused bundle is not looked up. Questions always are: each asker has one at a time. */
const lookupsWaitingMax = 4096;

interface Entry {
  readonly digest: Hash;
  readonly waiting: Set<Waiting>;
}

export class ReceiptDesk {
  readonly #replica: ReplicaPort;
  readonly #reader: LogReader;
  readonly #meter: Meter;
  readonly #bundlesMax: number;
  readonly #entries = new Map<string, Entry>();
  #uncertified: Decided[] = [];
  /** Rising: what the replica has decided and the log does not show yet. */
  #fresh: ReceiptMaker[] = [];
  readonly #stored = new Map<number, ReceiptMaker>();
  #lookups = 0;
  readonly #lookupQueue: (() => void)[] = [];
  readonly #unsubscribe: () => void;

  constructor(options: {
    readonly replica: ReplicaPort;
    readonly reader: LogReader;
    readonly meter: Meter;
    readonly waitingBundlesMax: number;
  }) {
    this.#replica = options.replica;
    this.#reader = options.reader;
    this.#meter = options.meter;
    this.#bundlesMax = options.waitingBundlesMax;
    this.#unsubscribe = options.replica.subscribe({
      decided: (blocks) => this.#decided(blocks),
      admission: (digest, code) => this.#admission(digest, code),
    });
  }

  /** Bundles that somebody waits for. */
  get size(): number {
    return this.#entries.size;
  }

  /** False: no place is left. Waiting twice for one digest is waiting once. */
  wait(digest: Hash, waiting: Waiting): boolean {
    const key = keyOf(digest);
    const entry = this.#entries.get(key);
    if (entry !== undefined) {
      entry.waiting.add(waiting);
      return true;
    }
    if (this.#entries.size >= this.#bundlesMax) return false;
    this.#entries.set(key, { digest, waiting: new Set([waiting]) });
    return true;
  }

  forget(digest: Hash, waiting: Waiting): void {
    const key = keyOf(digest);
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.waiting.delete(waiting);
    if (entry.waiting.size === 0) this.#entries.delete(key);
  }

  /** A decided block with what proves it; undefined where it is not here. */
  async chain(height: Height): Promise<CertifiedChain | undefined> {
    const fresh = this.#fresh.find((maker) => maker.chain.block.header.height === height);
    return fresh?.chain ?? (await this.#reader.certifiedChain(height));
  }

  /** The receipt of a decided bundle; null where the log does not hold it, or nothing certifies it yet. */
  async find(digest: Hash): Promise<Delivered | null> {
    return (await this.look(digest)).found;
  }

  /** As find, and which blocks were looked into. Rejects where the log cannot be read. */
  async look(digest: Hash): Promise<Looked> {
    let height = this.#reader.head();
    for (const maker of this.#fresh) {
      const { header } = maker.chain.block;
      if (header.height <= height) continue;
      const found = maker.find(digest);
      if (found !== null) return { found, lowest: this.#reader.lowest(), height };
      // Decided, and looked into, though not durable yet.
      if (header.height === height + 1) height = header.height;
    }
    if (this.#lookups >= lookupsMax) {
      // The place of the one that ends is handed over, so the count stays.
      await new Promise<void>((resolve) => this.#lookupQueue.push(resolve));
    } else this.#lookups += 1;
    try {
      const at = await this.#reader.heightOf(digest);
      const found = at === undefined ? null : ((await this.#makerAt(at))?.find(digest) ?? null);
      // `lowest` as it is afterwards: what was forgotten meanwhile was not looked into. A block that cannot be shown yet was not, either.
      const top = at === undefined || found !== null ? height : asHeight(Math.min(height, at - 1));
      return { found, lowest: this.#reader.lowest(), height: top };
    } finally {
      const next = this.#lookupQueue.shift();
      if (next === undefined) this.#lookups -= 1;
      else next();
    }
  }

  /** Of a block in the log; undefined where it is there no more, or nothing certifies it yet. */
  async #makerAt(height: Height): Promise<ReceiptMaker | undefined> {
    const kept = this.#stored.get(height);
    if (kept !== undefined) return kept;
    const chain = await this.#reader.certifiedChain(height);
    if (chain === undefined) return undefined;
    const maker = new ReceiptMaker(this.#replica.crypto.sha256, chain);
    this.#stored.set(height, maker);
    for (const oldest of this.#stored.keys()) {
      if (this.#stored.size <= storedBlocksMax) break;
      this.#stored.delete(oldest);
    }
    return maker;
  }

  close(): void {
    this.#unsubscribe();
    this.#entries.clear();
    this.#uncertified = [];
    this.#fresh = [];
    this.#stored.clear();
  }

  #decided(blocks: readonly Decided[]): void {
    const all = this.#uncertified.length === 0 ? blocks : [...this.#uncertified, ...blocks];
    const { chains, rest } = certify(all);
    this.#uncertified = rest.slice(-uncertifiedBlocksMax);
    const head = this.#reader.head();
    const makers = chains.map((chain) => new ReceiptMaker(this.#replica.crypto.sha256, chain));
    this.#fresh = [...this.#fresh.filter((maker) => maker.chain.block.header.height > head), ...makers].slice(
      -freshBlocksMax,
    );
    if (this.#entries.size === 0) return;
    const deliveries = new Map<Waiting, Delivered[]>();
    for (const maker of makers) {
      for (const [index, bundle] of maker.chain.block.bundles.entries()) {
        const key = keyOf(bundle.digest);
        const entry = this.#entries.get(key);
        if (entry === undefined) continue;
        this.#entries.delete(key);
        const delivered = maker.deliver(index);
        if (delivered === null) continue;
        for (const waiting of entry.waiting) {
          const list = deliveries.get(waiting);
          if (list === undefined) deliveries.set(waiting, [delivered]);
          else list.push(delivered);
        }
      }
    }
    for (const [waiting, bundles] of deliveries) waiting.delivered(bundles, 'live');
    // Each costs a signature: with many the other replicas would wait for it.
    if (deliveries.size <= promptMax) for (const waiting of deliveries.keys()) waiting.hurry?.();
    this.#meter.gauge('synod_bundles_waiting', this.#entries.size);
  }

  #admission(digest: Hash, code: AdmissionCode | 'bundle-invalid'): void {
    const entry = this.#entries.get(keyOf(digest));
    if (entry === undefined) return;
    if (code === 'pooled') tell(entry, code, false);
    else if (code === 'known' || code === 'sequence-passed' || code === 'expired') void this.#settle(entry, code);
    else this.#refuse(entry, code);
  }

  /** [SES-6] What was decided before is answered with its receipt; only what is neither decided nor pooled is refused. */
  async #settle(entry: Entry, code: AdmissionCode): Promise<void> {
    const key = keyOf(entry.digest);
    if (code === 'known') tell(entry, code, false);
    let stored = await this.#findQuietly(entry.digest);
    if (stored === null && code !== 'known' && this.#entries.get(key) === entry) {
      // The verdict may come a moment before the delivery of the block that is its reason.
      await new Promise<void>((resolve) => setImmediate(resolve));
      stored = await this.#findQuietly(entry.digest);
    }
    // Decided while the log was read, or nobody waits any more.
    if (this.#entries.get(key) !== entry) return;
    if (stored) {
      this.#entries.delete(key);
      if (code !== 'known') tell(entry, 'known', false);
      for (const waiting of entry.waiting) waiting.delivered([stored], 'stored');
      return;
    }
    if (code !== 'known') this.#refuse(entry, stored === null ? code : 'busy');
  }

  /** Undefined: not looked up. A log that cannot be read is the store's to report and the replica's to end for. */
  async #findQuietly(digest: Hash): Promise<Delivered | null | undefined> {
    if (this.#lookupQueue.length >= lookupsWaitingMax) return undefined;
    return await this.find(digest).catch(() => undefined);
  }

  #refuse(entry: Entry, code: DeskCode): void {
    this.#entries.delete(keyOf(entry.digest));
    tell(entry, code, true);
  }
}

function tell(entry: Entry, code: DeskCode, final: boolean): void {
  for (const waiting of entry.waiting) waiting.admission(entry.digest, code, final);
}

/** Splits rising blocks into those that a certificate covers, their own or a later one's, and those that still lack one (BLK-7). */
export function certify(blocks: readonly Decided[]): { readonly chains: CertifiedChain[]; readonly rest: Decided[] } {
  const chains: CertifiedChain[] = [];
  let open: Decided[] = [];
  for (const decided of blocks) {
    open.push(decided);
    const { certificate } = decided;
    if (certificate === null) continue;
    const headers = open.map((each) => each.block.headerBytes);
    for (const [i, each] of open.entries())
      chains.push({ block: each.block, links: headers.slice(i + 1), certificate });
    open = [];
  }
  return { chains, rest: open };
}

/** A digest as a map key; a latin-1 string costs a tenth of hex. */
function keyOf(digest: Bytes): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1');
}
