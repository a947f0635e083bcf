// The replicated state after the last decided block, and the one function that says whether a block may follow: the same for
// a proposal, for a block taken from a peer, and for the replay at start. Pure: same chain, same verdicts, on every replica.

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes } from '../crypto/bytes.ts';
import { Frontier, leafHash, merkleRoot } from '../crypto/merkle.ts';
import { assert } from './assert.ts';
import type { Block, BlockHeader, BodyMarks, Sha256 } from './block.ts';
import { blockHash, encodeHeader, logLeafData } from './block.ts';
import type { SignedBundle } from './bundle.ts';
import { controlIn } from './epoch/chain.ts';
import { decodeControl, isControl } from './epoch/control.ts';
import { decodeEpoch, type EpochDocument, encodeEpoch, genesisEpoch } from './epoch/document.ts';
import { type ControlRefusal, judgeControl, nextEpoch, type Successor } from './epoch/successor.ts';
import { blockTransactionsMax, type Genesis } from './genesis.ts';
import { genesisBlock } from './genesis-block.ts';
import { LayoutReader, LayoutWriter } from './layout.ts';
import { bearsLies } from './modes.ts';
import type { Placed, Session, SessionKey } from './sessions.ts';
import { BUCKET_SESSIONS_MAX, bucketOf, SESSION_BUCKETS, SessionTable, sessionKey } from './sessions.ts';
import { bodyMarks } from './transaction-tree.ts';
import type { Epoch, Hash, Height, Millis, ReplicaId } from './types.ts';
import { asHash, asHeight } from './types.ts';

export { genesisBlock } from './genesis-block.ts';

/** A block that may follow its parent, with what it changes. Undecided ones form a chain above the ledger. */
export interface Extension {
  readonly block: Block;
  readonly frontier: Frontier;
  readonly sessions: ReadonlyMap<SessionKey, Placed>;
  /** New sessions per bucket. */
  readonly opened: ReadonlyMap<number, number>;
  /** The epoch that starts from this block; null where this one goes on. */
  readonly next: EpochDocument | null;
}

/** Why a block may not follow. Stable codes; `block-` ones can only come from a faulty proposer. */
export type BlockProblem =
  | 'block-wrong-chain'
  | 'block-wrong-parent'
  | 'block-wrong-members'
  | 'block-time-runs-back'
  | 'block-empty'
  | 'block-too-large'
  | 'block-totals-wrong'
  | 'block-log-root-wrong'
  | 'block-bundle-out-of-sequence'
  | 'block-bundle-out-of-date'
  | 'block-sessions-full'
  | 'block-control'
  | 'block-after-epoch-end';

/** Why a control transaction cannot stand in a block of the epoch at hand, or of any. */
export type ControlProblem =
  | ControlRefusal
  | { readonly refused: 'control-malformed' | 'control-not-alone'; readonly field: string; readonly problem: string };

/** Chunk 0 of the state holds the log; chunk 1 + b holds session bucket b. */
export const STATE_CHUNKS = 1 + SESSION_BUCKETS;

/** The session changes of the bundles of one block, as far as they have been gone through. */
class Execution {
  readonly sessions = new Map<SessionKey, Placed>();
  readonly opened = new Map<number, number>();
  transactions = 0;
}

export class Ledger {
  readonly #sha256: Sha256;
  readonly #genesis: Genesis;
  #sessions = new SessionTable();
  #chunkLeaves: Bytes[];
  /** [BLK-6] [CFT-V-3] Where a slot is decided before anyone knows what is left of its value. */
  readonly #mayBeEmpty: boolean;
  readonly document: EpochDocument;
  readonly genesisBlock: Block;
  #frontier: Frontier;
  #head: { header: BlockHeader; hash: Hash };
  #ended: { readonly next: EpochDocument; readonly control: Bytes } | null = null;
  #successor: Ledger | null = null;
  /** Of `#chunkLeaves`; null: not reckoned since they changed. */
  #stateDigest: Hash | null = null;

  /** @param document of the epoch, where it is not the first; `genesis` has its members and parameters (genesisOf) */
  constructor({
    sha256,
    genesis,
    epoch,
    document,
  }: { sha256: Sha256; genesis: Genesis; epoch: Epoch; document?: EpochDocument | undefined }) {
    this.#sha256 = sha256;
    this.#genesis = genesis;
    this.#mayBeEmpty = !bearsLies(genesis.protocol);
    this.document = document ?? genesisEpoch(sha256, genesis);
    assert(this.document.epoch === epoch, 'the document is that of the epoch');
    this.genesisBlock = genesisBlock({ sha256, genesis, memberSetHash: this.document.hash });
    this.#frontier = Frontier.empty(sha256);
    this.#head = this.genesisBlock;
    const empty = leafHash(sha256, new Uint8Array(0));
    this.#chunkLeaves = Array.from({ length: STATE_CHUNKS }, () => empty);
  }

  /** What every header of the epoch names. */
  get memberSetHash(): Hash {
    return this.document.hash;
  }

  /** [EPO-9] The last decided block has ended the epoch: what starts from it, and the transaction that did it. */
  get ended(): { readonly next: EpochDocument; readonly control: Bytes } | null {
    return this.#ended;
  }

  /** The last decided block. */
  get head(): { readonly header: BlockHeader; readonly hash: Hash } {
    return this.#head;
  }

  get height(): Height {
    return this.#head.header.height;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** The session after `chain`, undecided blocks above the head; undefined where it is new or already expired at `height`. */
  session(chain: readonly Extension[], bundle: SignedBundle, height: Height): Session | undefined {
    const key = sessionKey(bundle);
    let found: Session | undefined;
    for (let i = chain.length - 1; i >= 0 && found === undefined; i--) found = chain[i]!.sessions.get(key)?.session;
    found ??= this.#sessions.get(key)?.session;
    return found !== undefined && found.expires >= height ? found : undefined;
  }

  /** The sequence that the next bundle of this session must have, were it in a block at `height` on top of `chain`. */
  nextSequence(chain: readonly Extension[], bundle: SignedBundle, height: Height): number {
    return (this.session(chain, bundle, height)?.lastSequence ?? 0) + 1;
  }

  /** [SES-5] As isFull, for a bundle that would open a session in a block directly above the head. */
  isSessionTableFull(bundle: SignedBundle, height: Height): boolean {
    return this.#isFull([], bucketOf(this.#sha256, bundle), height, new Execution());
  }

  /** [SES-5] Whether a new session finds its bucket full. Counts what the last checkpoint below `height` has left, on every replica alike. */
  #isFull(chain: readonly Extension[], bucket: number, height: Height, running: Execution): boolean {
    // Nearly always the bound alone decides.
    let bound = this.#sessions.sizeOf(bucket) + (running.opened.get(bucket) ?? 0);
    for (const { opened } of chain) bound += opened.get(bucket) ?? 0;
    if (bound < BUCKET_SESSIONS_MAX) return false;
    const interval = this.#genesis.parameters.checkpointInterval;
    // The epoch began with the state of a checkpoint, wherever the interval would have put one (EPO-10).
    const regular = Math.floor((height - 1) / interval) * interval;
    const checkpoint = asHeight(Math.max(this.document.start.height, regular));
    const live = new Set<SessionKey>(this.#sessions.liveIn(bucket, checkpoint));
    for (const { sessions } of [...chain, running])
      for (const [key, change] of sessions)
        if (change.bucket === bucket && change.session.expires >= checkpoint) live.add(key);
    return live.size >= BUCKET_SESSIONS_MAX;
  }

  /** [BLK-2..6, SES-1, SES-2] The block on top of `chain`, or why it may not stand there. Its body has been checked against its header (codec). */
  extend(chain: readonly Extension[], block: Block): Extension | { readonly refused: BlockProblem } {
    const refuse = (refused: BlockProblem) => ({ refused });
    const parent = chain.at(-1)?.block ?? this.#head;
    const { header } = block;
    if (!equalBytes(header.chainId, this.#genesis.chainId) || header.epoch !== this.document.epoch)
      return refuse('block-wrong-chain');
    if (header.height !== parent.header.height + 1 || !equalBytes(header.parent, parent.hash))
      return refuse('block-wrong-parent');
    if (!equalBytes(header.memberSetHash, this.memberSetHash)) return refuse('block-wrong-members');
    if (this.endsEpoch(chain)) return refuse('block-after-epoch-end');
    if (header.time < parent.header.time) return refuse('block-time-runs-back');
    const { parameters } = this.#genesis;
    if (block.bundles.length === 0 && !this.#mayBeEmpty) return refuse('block-empty'); // BLK-6
    const { bundleCount, payloadBytes, transactionCount } = header;
    if (
      bundleCount > parameters.blockBundlesMax ||
      payloadBytes > parameters.blockBytesMax ||
      transactionCount > blockTransactionsMax(parameters) // BLK-8
    )
      return refuse('block-too-large');
    if (header.transactionTotal !== parent.header.transactionTotal + header.transactionCount)
      return refuse('block-totals-wrong');
    const running = new Execution();
    for (const bundle of block.bundles) {
      const problem = this.#execute(chain, bundle, header.height, running);
      if (problem !== null) return refuse(problem);
    }
    const successor = this.#successorIn(block.bundles, header.height);
    if (successor !== null && 'refused' in successor) return refuse('block-control');
    const frontier = (chain.at(-1)?.frontier ?? this.#frontier).clone();
    frontier.append(leafHash(this.#sha256, logLeafData(header)));
    if (!equalBytes(frontier.root(), header.logRoot)) return refuse('block-log-root-wrong'); // BLK-3
    const { sessions, opened } = running;
    return { block, frontier, sessions, opened, next: this.#nextAfter(successor, block) };
  }

  /** [EPO-9] Nothing follows the last block of `chain`, or the head where it is empty, in this epoch. */
  endsEpoch(chain: readonly Extension[]): boolean {
    return chain.length === 0 ? this.#ended !== null : chain.at(-1)!.next !== null;
  }

  /**
   * [EPO-3] [EPO-8] Why a bundle with a control transaction can stand in no block at `height`; null: it can, alone, or it has none. Its
   * signatures have been checked (verifyBundle).
   */
  controlProblem(bundle: Pick<SignedBundle, 'transactions'>, height: Height): ControlProblem | null {
    const successor = this.#successorIn([bundle], height);
    return successor !== null && 'refused' in successor ? successor : null;
  }

  /** [EPO-8] Null: no control transaction among these bundles, which are those of a whole block. */
  #successorIn(
    bundles: readonly Pick<SignedBundle, 'transactions'>[],
    height: Height,
  ): Successor | ControlProblem | null {
    if (!bundles.some(({ transactions }) => transactions.some(isControl))) return null;
    const transaction = controlIn(bundles);
    if (transaction === null)
      return { refused: 'control-not-alone', field: 'transactions', problem: 'it stands with other transactions' };
    const control = decodeControl(this.#sha256, transaction);
    if ('refused' in control) return { refused: 'control-malformed', field: control.field, problem: control.refused };
    return judgeControl(this.document, control, height);
  }

  #nextAfter(successor: Successor | null, { header, hash }: Block): EpochDocument | null {
    if (successor === null) return null;
    return nextEpoch(this.#sha256, this.document, successor, { height: header.height, hash });
  }

  /** [SES-1] [SES-2] [SES-5] Adds one bundle to a block in the making, or says which rule it would break. */
  #execute(chain: readonly Extension[], bundle: SignedBundle, height: Height, running: Execution): BlockProblem | null {
    const horizon = this.#genesis.parameters.validUntilHorizon;
    if (bundle.validUntil < height || bundle.validUntil > height + horizon) return 'block-bundle-out-of-date';
    const key = sessionKey(bundle);
    const before = running.sessions.get(key)?.session ?? this.session(chain, bundle, height);
    if (bundle.sequence !== (before?.lastSequence ?? 0) + 1) return 'block-bundle-out-of-sequence';
    const bucket = this.#sessions.get(key)?.bucket ?? bucketOf(this.#sha256, bundle);
    if (before === undefined) {
      if (this.#isFull(chain, bucket, height, running)) return 'block-sessions-full';
      running.opened.set(bucket, (running.opened.get(bucket) ?? 0) + 1);
    }
    running.sessions.set(key, {
      bucket,
      session: {
        // A copy: a view into the bundle's frame would keep all of it in memory.
        client: before?.client ?? Uint8Array.from(bundle.client),
        session: bundle.session,
        lastSequence: bundle.sequence,
        expires: asHeight(Math.max(before?.expires ?? 0, bundle.validUntil)),
        height,
        firstTransaction: running.transactions,
        transactionCount: bundle.transactions.length,
      },
    });
    running.transactions += bundle.transactions.length;
    return null;
  }

  /**
   * [REQ-5] A block on top of `chain`: what a primary proposes. Of the candidates it takes those that may stand there, in order, and leaves out the
   * others: whatever clients think up, a primary never proposes what it would not accept. Null where none is left, but in a crash-fault chain
   * (CFT-V-3). [EPO-8] Of those that would end the epoch the first is taken, and alone.
   */
  build(
    chain: readonly Extension[],
    {
      bundles: candidates,
      time,
      proposer,
      marks,
    }: {
      bundles: readonly SignedBundle[];
      time: Millis;
      proposer: ReplicaId;
      /** Of all candidates together, where they are known. */
      marks?: BodyMarks;
    },
  ): Extension | null {
    if (this.endsEpoch(chain)) return null;
    const parent = chain.at(-1)?.block ?? this.#head;
    const height = asHeight(parent.header.height + 1);
    const { bundles: chosen, running, successor } = this.#choose(chain, candidates, height);
    if (chosen.length === 0 && !this.#mayBeEmpty) return null;
    // The very list, where nothing is left out: what was made for it once is not made again.
    const isWhole = chosen.length === candidates.length;
    const bundles = isWhole ? candidates : chosen;
    const { transactionRoot, bodyHash, bundleCount, transactionCount, payloadBytes } =
      isWhole && marks !== undefined ? marks : bodyMarks(this.#sha256, bundles);
    const withoutLogRoot = {
      chainId: this.#genesis.chainId,
      epoch: this.document.epoch,
      height,
      parent: parent.hash,
      time: time < parent.header.time ? parent.header.time : time,
      proposer,
      transactionRoot,
      transactionTotal: parent.header.transactionTotal + transactionCount,
      memberSetHash: this.memberSetHash,
      bodyHash,
      bundleCount,
      transactionCount,
      payloadBytes,
    };
    const frontier = (chain.at(-1)?.frontier ?? this.#frontier).clone();
    frontier.append(leafHash(this.#sha256, logLeafData(withoutLogRoot)));
    const header: BlockHeader = { ...withoutLogRoot, logRoot: asHash(frontier.root()) };
    const headerBytes = encodeHeader(header);
    const block: Block = { header, headerBytes, hash: blockHash(this.#sha256, headerBytes), bundles };
    const { sessions, opened } = running;
    return { block, frontier, sessions, opened, next: this.#nextAfter(successor, block) };
  }

  #choose(chain: readonly Extension[], candidates: readonly SignedBundle[], height: Height) {
    const plain: SignedBundle[] = [];
    for (const bundle of candidates) {
      const successor = this.#successorIn([bundle], height);
      if (successor === null) plain.push(bundle);
      if (successor === null || 'refused' in successor) continue;
      const running = new Execution();
      if (this.#execute(chain, bundle, height, running) === null) return { bundles: [bundle], running, successor };
    }
    const running = new Execution();
    const bundles = plain.filter((bundle) => this.#execute(chain, bundle, height, running) === null);
    return { bundles, running, successor: null };
  }

  /** Decided: the block directly above the head becomes the head. */
  apply(extension: Extension): void {
    const { block } = extension;
    assert(equalBytes(block.header.parent, this.#head.hash), 'a decided block follows the head');
    for (const [key, placed] of extension.sessions) this.#sessions.set(key, placed);
    this.#frontier = extension.frontier;
    this.#head = { header: block.header, hash: block.hash };
    if (extension.next !== null) this.#ended = { next: extension.next, control: controlIn(block.bundles)! }; // it has a next for that
  }

  /**
   * [EPO-10] The ledger of the next epoch, with everything that this one holds; this one is not used any more. Called once, when the block
   * that ends the epoch is decided.
   */
  succeed(genesis: Genesis): Ledger {
    assert(this.#ended !== null, 'the epoch has ended');
    const document = this.#ended.next;
    const ledger = new Ledger({ sha256: this.#sha256, genesis, epoch: document.epoch, document });
    ledger.#sessions = this.#sessions;
    ledger.#chunkLeaves = this.#chunkLeaves;
    ledger.#frontier = this.#frontier;
    ledger.#head = this.#head;
    this.#successor = ledger;
    return ledger;
  }

  /** The ledger of the next epoch, once this one has ended and its state has been written; null until then. */
  get successor(): Ledger | null {
    return this.#successor;
  }

  /** [SES-4] At a checkpoint height: forgets expired sessions, and digests the state. `changed` are the chunks since the last call. */
  checkpoint(): { stateDigest: Hash; logRoot: Hash; changed: readonly { chunk: number; bytes: Bytes }[] } {
    this.#sessions.forget(this.height);
    const changed = [
      { chunk: 0, bytes: this.#encodeLog() },
      ...this.#sessions.takeChanged().map(({ bucket, bytes }) => ({ chunk: 1 + bucket, bytes })),
    ];
    for (const { chunk, bytes } of changed) this.#chunkLeaves[chunk] = leafHash(this.#sha256, bytes);
    this.#stateDigest = null;
    return { stateDigest: this.stateDigest, logRoot: this.logRoot, changed };
  }

  #encodeLog(): Bytes {
    const { size, hashes } = this.#frontier.state();
    // [EPO-10] Whoever restores the state knows which epoch it is of; the first one is in the genesis document.
    const document = this.document.epoch === 0 ? new Uint8Array(0) : encodeEpoch(this.document);
    const layout = new LayoutWriter(8 + 4 + 32 * hashes.length + document.length).u64(size).u32(hashes.length);
    for (const hash of hashes) layout.bytes(hash, 32);
    return layout.bytes(document, document.length).done();
  }

  /** The state at a checkpoint, from chunks (absent ones are empty) that were proved against its digest or written by this replica. */
  restore(header: BlockHeader, hash: Hash, chunks: ReadonlyMap<number, Bytes>): void {
    const log = chunks.get(0);
    assert(log !== undefined && log.length >= 12, 'a certified state has its log chunk');
    const reader = new LayoutReader(log);
    const size = reader.u64();
    const hashes = Array.from({ length: reader.u32() }, () => reader.bytes(32));
    const frontier = Frontier.restore(this.#sha256, { size, hashes });
    assert(frontier !== undefined && size === header.height, 'a certified log chunk is well formed');
    const document = documentIn(this.#sha256, log);
    assert(
      document === null ? this.document.epoch === 0 : equalBytes(document.hash, this.document.hash),
      'the state is of this epoch',
    );
    this.#frontier = frontier;
    this.#head = { header, hash };
    const nothing = new Uint8Array(0);
    // Most chunks are: one leaf for all of them.
    const emptyLeaf = leafHash(this.#sha256, nothing);
    for (let chunk = 0; chunk < STATE_CHUNKS; chunk++) {
      const bytes = chunks.get(chunk) ?? nothing;
      if (chunk > 0) this.#sessions.restore(chunk - 1, bytes);
      this.#chunkLeaves[chunk] = bytes.length === 0 ? emptyLeaf : leafHash(this.#sha256, bytes);
    }
    this.#sessions.takeChanged();
    this.#stateDigest = null;
  }

  /** The digest of the restored or last checkpointed state. */
  get stateDigest(): Hash {
    this.#stateDigest ??= asHash(merkleRoot(this.#sha256, this.#chunkLeaves));
    return this.#stateDigest;
  }

  get logRoot(): Hash {
    return asHash(this.#frontier.root());
  }

  dump() {
    const { header, hash } = this.#head;
    return {
      sessions: this.#sessions.dump(),
      chunkLeaves: this.#chunkLeaves,
      frontier: this.#frontier,
      head: { header, hash },
      ended: this.#ended,
    };
  }

  load({ sessions, chunkLeaves, frontier, head, ended }: ReturnType<Ledger['dump']>): void {
    this.#ended = ended;
    this.#stateDigest = null;
    this.#sessions.load(sessions);
    this.#chunkLeaves = chunkLeaves;
    this.#frontier = frontier;
    this.#head = head;
  }
}

/** [EPO-10] The document in the log chunk of a state; null: it is of epoch 0. The chunk is certified, or was written by this replica. */
export function documentIn(sha256: Sha256, logChunk: Bytes): EpochDocument | null {
  const at = 12 + 32 * new LayoutReader(logChunk.subarray(8, 12)).u32();
  if (logChunk.length === at) return null;
  const document = decodeEpoch(sha256, logChunk.subarray(at));
  assert(!('refused' in document), 'the state holds a document of its epoch');
  return document;
}
