// What each kind of record does to the store: the one place where the words of protocol/log.ts become keys and values.

import { type Bytes, equalBytes } from '../crypto/bytes.ts';
import { assert, unreachable } from '../protocol/assert.ts';
import { type BlockHeader, blockHash, decodeHeader, type Sha256 } from '../protocol/block.ts';
import type { LogRecord, StoredBlock } from '../protocol/log.ts';
import { asHeight } from '../protocol/types.ts';
import { Batch } from './batch.ts';
import type { KeyValueStore } from './kv.ts';
import {
  bodyHashIn,
  type DecidedRecord,
  decidedParts,
  decodeCheckpoint,
  decodeDecided,
  decodeHeaderRecord,
  encodeAccepted,
  encodeBounds,
  encodeCheckpoint,
  keys,
  unseal,
} from './layout.ts';
import { addChunkVersion, type LogState, retireChunks } from './state.ts';

export interface ApplyContext {
  readonly kv: KeyValueStore;
  readonly sha256: Sha256;
  readonly chainId: Bytes;
  readonly state: LogState;
}

/** What readers learn once the batch is durable. */
export interface Applied {
  readonly batch: Batch;
  /** Newly decided blocks, rising; without a body where it is on disk only. */
  readonly decided: readonly (Omit<StoredBlock, 'bytes'> & { readonly header: Bytes; readonly body: Bytes | null })[];
  /** Blocks decided earlier whose own certificate came now. */
  readonly certified: ReadonlyMap<number, Bytes>;
  /** A checkpoint from peers replaced the log below it, and what stood above did not link to it. */
  readonly cutAbove: number | null;
}

type Of<T extends LogRecord['type']> = Extract<LogRecord, { type: T }>;

/** Turns records into a batch, in their order. Throws InvariantViolation on a contradiction: the caller is broken, not the disk. */
export async function applyRecords(context: ApplyContext, records: readonly LogRecord[]): Promise<Applied> {
  const run = new Run(context);
  for (const record of records) await run.apply(record);
  return run.finish();
}

class Run {
  readonly #context: ApplyContext;
  readonly #state: LogState;
  readonly #batch = new Batch();
  readonly #decided = new Map<number, Applied['decided'][number]>();
  readonly #certified = new Map<number, Bytes>();
  /** Only the last of several in one batch is written. */
  #hardState: Bytes | null = null;
  readonly #accepted = new Map<number, Of<'accepted'>>();
  #cutAbove: number | null = null;

  constructor(context: ApplyContext) {
    this.#context = context;
    this.#state = context.state;
  }

  async apply(record: LogRecord): Promise<void> {
    switch (record.type) {
      case 'block':
        return this.#block(record);
      case 'accepted':
        return void this.#accepted.set(record.height, record);
      case 'hard-state':
        this.#hardState = record.bytes;
        return;
      case 'decided':
        return record.height <= this.#state.head ? await this.#decidedAgain(record) : this.#decide(record);
      case 'forget-accepted':
        return this.#forgetAccepted(record.height);
      case 'state-chunk':
        this.#batch.put(keys.chunk(record.chunk, record.height), record.bytes);
        return addChunkVersion(this.#state, record.chunk, record.height);
      case 'checkpoint':
        return await this.#checkpoint(record);
      case 'reset-to-checkpoint':
        return await this.#reset(record);
      default:
        return unreachable(record);
    }
  }

  finish(): Applied {
    const { accepted, head, pending } = this.#state;
    for (const height of accepted) {
      if (height > head) continue;
      this.#batch.del(keys.accepted(height));
      accepted.delete(height);
    }
    for (const { height, hash, view } of this.#accepted.values()) {
      if (height <= head) continue;
      assert(pending.get(height, hash) !== undefined, 'an accepted block is in the log');
      this.#batch.put(keys.accepted(height), encodeAccepted(hash, view));
      accepted.add(height);
    }
    if (this.#hardState !== null) this.#batch.put(keys.hardState, this.#hardState);
    return {
      batch: this.#batch,
      decided: [...this.#decided.values()],
      certified: this.#certified,
      cutAbove: this.#cutAbove,
    };
  }

  /** [LOG-6] A second block of one height stands beside the first, until one of them is decided; a body that both have is there once. */
  #block({ height, hash, bytes }: Of<'block'>): void {
    if (height <= this.#state.head || this.#state.pending.get(height, hash) !== undefined) return;
    const header = this.#header(bytes.header, height);
    assert(header !== undefined, 'a block of this chain and of the height it is filed under');
    assert(equalBytes(blockHash(this.#context.sha256, bytes.header), hash), 'a block is filed under its own hash');
    const { body } = bytes;
    const sibling = this.#state.pending.withBody(height, header.bodyHash);
    const bodyCrc = sibling?.bodyCrc ?? this.#batch.putBody(height, header.bodyHash, body);
    const record = { header: bytes.header, bodyBytes: body.length, bodyCrc };
    assert((sibling?.bodyBytes ?? body.length) === body.length, 'a body hash is that of one body');
    this.#batch.putHeader(height, hash, record);
    this.#state.pending.add(height, { hash, ...record, body });
  }

  /** [LOG-7] The decided chain grows by one, on its own head, with the block at hand. What else stood at that height goes. */
  #decide({ height, hash, certificate, bundles }: Of<'decided'>): void {
    const state = this.#state;
    assert(height === state.head + 1, `the decided chain has no gap: ${height} after ${state.head}`);
    const block = state.pending.get(height, hash);
    assert(block !== undefined, `a decided block is in the log: ${height}`);
    const parent = this.#header(block.header, height)?.parent;
    const links = state.headHash === null || (parent !== undefined && equalBytes(parent, state.headHash));
    assert(links, `a decided block names the one before as its parent: ${height}`);
    const kept = bodyHashIn(block.header);
    for (const sibling of state.pending.take(height))
      if (!equalBytes(sibling.hash, hash)) this.#dropBlock(height, sibling, kept);
    this.#batch.put(keys.decided(height), ...decidedParts(hash, certificate));
    this.#batch.putBundles(height, bundles);
    state.head = height;
    state.headHash = hash;
    this.#decided.set(height, { height, hash, certificate, header: block.header, body: block.body });
  }

  /** Said again, perhaps with a certificate of its own this time. Another block would be a fork. */
  async #decidedAgain({ height, hash, certificate }: Of<'decided'>): Promise<void> {
    if (height < this.#state.bounds.lowest) return;
    const known = this.#decided.get(height) ?? (await this.#readDecided(height));
    assert(known !== undefined && equalBytes(known.hash, hash), `a decided block never changes: ${height}`);
    if (certificate === null || known.certificate !== null) return;
    this.#batch.put(keys.decided(height), ...decidedParts(hash, certificate));
    const inBatch = this.#decided.get(height);
    if (inBatch === undefined) this.#certified.set(height, certificate);
    else this.#decided.set(height, { ...inBatch, certificate });
  }

  /** [LOG-13] What others have decided and this replica only helped to: nothing above the head stays of it. */
  #forgetAccepted(height: number): void {
    const { accepted, pending, head } = this.#state;
    for (const known of this.#accepted.keys()) if (known <= height) this.#accepted.delete(known);
    for (const known of accepted) {
      if (known > height) continue;
      this.#batch.del(keys.accepted(known));
      accepted.delete(known);
    }
    for (const known of pending.heights()) {
      if (known <= head || known > height) continue;
      for (const block of pending.take(known)) this.#dropBlock(known, block);
    }
  }

  /** [LOG-9] */
  async #checkpoint({ height, place, certificate }: Of<'checkpoint'>): Promise<void> {
    const state = this.#state;
    // Of a block that is decided in this very batch there is none yet: no look, which whoever waits for this write would wait for.
    const known = this.#decided.has(height) ? undefined : await this.#context.kv.get(keys.checkpoint(height));
    const before = known === undefined ? undefined : decodeCheckpoint(keys.checkpoint(height), known);
    // A checkpoint that was stable stays so.
    const proof = certificate ?? before?.certificate ?? null;
    const header = before?.header ?? (await this.#decidedHeader(height));
    this.#batch.put(keys.checkpoint(height), encodeCheckpoint({ header, place, certificate: proof }));
    if (proof === null || height <= state.stable) return;
    state.previousStable = state.stable;
    state.previousStableSequence = state.stableSequence;
    state.stable = height;
    state.stableSequence = state.position.sequence + 1;
    retireChunks(state);
  }

  /** [LOG-10] The log starts anew from a checkpoint of the peers. What was decided above it stays only if it links to it. */
  async #reset({ height, header, place, certificate }: Of<'reset-to-checkpoint'>): Promise<void> {
    const state = this.#state;
    assert(this.#header(header, height) !== undefined, 'a checkpoint of this chain and of its height');
    assert(height + 1 >= state.bounds.lowest, `no way back below the lowest block: ${height}`);
    const hash = blockHash(this.#context.sha256, header);
    const above = height < state.head ? await this.#decidedHeader(height + 1) : null;
    const parent = above === null ? undefined : this.#header(above, height + 1)?.parent;
    if (parent === undefined || !equalBytes(parent, hash)) {
      await this.#cutDecidedAbove(height);
      state.head = height;
      state.headHash = hash;
      this.#cutAbove = height;
    }
    for (const known of [...this.#decided.keys()]) if (known <= height) this.#decided.delete(known);
    state.pending.dropTo(height);
    state.bounds = { ...state.bounds, lowest: height + 1, chunkFloor: height };
    this.#batch.put(keys.bounds, encodeBounds(state.bounds));
    this.#batch.put(keys.checkpoint(height), encodeCheckpoint({ header, place, certificate }));
    if (height > state.stable || this.#cutAbove !== null) {
      state.stable = height;
      state.stableSequence = state.position.sequence + 1;
    }
    // Nothing older may serve a recovery any more: the versions from before belong to a log that is gone.
    state.previousStable = 0;
    state.previousStableSequence = 0;
    retireChunks(state);
  }

  /** Rare, and unbounded on purpose: what does not link may not survive the batch that says so. */
  async #cutDecidedAbove(height: number): Promise<void> {
    const state = this.#state;
    for (let above = height + 1; above <= state.head; above++) {
      const record = this.#decided.get(above) ?? (await this.#readDecided(above));
      const header = await this.#decidedHeader(above);
      if (record !== undefined && header !== null) this.#dropBlock(above, { hash: record.hash, header });
      this.#batch.del(keys.decided(above));
      const list = await this.#context.kv.get(keys.bundles(above));
      if (list !== undefined) {
        const digests = unseal(keys.bundles(above), list);
        for (let at = 0; at < digests.length; at += 32) {
          this.#batch.delUnlisted(keys.bundle(digests.subarray(at, at + 32)));
        }
      }
      this.#batch.del(keys.bundles(above));
      this.#decided.delete(above);
    }
    for await (const { key } of this.#context.kv.range({
      gte: keys.checkpoint(height + 1),
      lt: keys.end('checkpoint'),
      values: false,
    })) {
      this.#batch.del(key);
    }
    for (const [chunk, versions] of state.chunkVersions) {
      for (const version of versions.filter((v) => v > height)) this.#batch.del(keys.chunk(chunk, version));
      state.chunkVersions.set(
        chunk,
        versions.filter((v) => v <= height),
      );
    }
  }

  /** Its body too, but for the one that a block has which stays. */
  #dropBlock(
    height: number,
    { hash, header }: { readonly hash: Bytes; readonly header: Bytes },
    kept: Bytes | null = null,
  ): void {
    const bodyHash = bodyHashIn(header);
    this.#batch.del(keys.header(height, hash));
    if (kept === null || !equalBytes(bodyHash, kept)) this.#batch.del(keys.body(height, bodyHash));
  }

  async #readDecided(height: number): Promise<DecidedRecord | undefined> {
    const value = await this.#context.kv.get(keys.decided(height));
    return value === undefined ? undefined : decodeDecided(keys.decided(height), value);
  }

  async #decidedHeader(height: number): Promise<Bytes | null> {
    const inBatch = this.#decided.get(height);
    if (inBatch !== undefined) return inBatch.header;
    if (height > this.#state.head || height < this.#state.bounds.lowest) return null;
    const record = await this.#readDecided(height);
    if (record === undefined) return null;
    const key = keys.header(height, record.hash);
    const value = await this.#context.kv.get(key);
    return value === undefined ? null : decodeHeaderRecord(key, value).header;
  }

  #header(bytes: Bytes, height: number): BlockHeader | undefined {
    const header = decodeHeader(bytes);
    if (header === undefined || header.height !== asHeight(height)) return undefined;
    return equalBytes(header.chainId, this.#context.chainId) ? header : undefined;
  }
}
