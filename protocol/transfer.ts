// Catch-up: how a replica that is behind gets what the others decided, block by block or from a checkpoint, believing nothing that
// carries no certificate. Shared by every protocol on this log. Castro and Liskov, OSDI 1999, sections 4.4 and 6.2 (state transfer).

import type { Bytes } from '../crypto/bytes.ts';
import { equalBytes, toHex } from '../crypto/bytes.ts';
import { leafHash, verifyInclusion } from '../crypto/merkle.ts';
import type { Block, BlockHeader, Sha256 } from './block.ts';
import { blockHash, decodeHeader } from './block.ts';
import type { Certificate } from './certificate.ts';
import type { Checkpoints } from './checkpoints.ts';
import type { CatchUpView, CoreEvent, Outgoing } from './core.ts';
import type { Parameters } from './genesis.ts';
import type { Ledger } from './ledger.ts';
import { STATE_CHUNKS } from './ledger.ts';
import type { LogRecord } from './log.ts';
import type {
  BlockData,
  Blocks,
  CheckpointCertificate,
  CheckpointProof,
  FetchBlock,
  FetchBlocks,
  FetchCheckpoint,
  FetchState,
  StateChunk,
  Status,
  Verified,
} from './messages.ts';
import type { Quorums } from './quorum.ts';
import type { Hash, Height, Hex, Millis, ReplicaId } from './types.ts';
import { asHeight, plus } from './types.ts';

type Request = FetchBlock | FetchBlocks | FetchCheckpoint | FetchState;

/** What catch-up sees of its core, and asks of it. */
export interface CatchUpHost {
  readonly now: Millis;
  readonly self: ReplicaId;
  readonly sha256: Sha256;
  readonly parameters: Parameters;
  readonly quorums: Quorums;
  readonly ledger: Ledger;
  readonly checkpoints: Checkpoints;
  readonly headCertificate: Certificate | null;
  readonly peers: ReadonlyMap<ReplicaId, { readonly connected: boolean; readonly status: Status | null }>;
  readonly known: Map<Hex, { readonly block: Block; stored: boolean }>;
  readonly out: {
    readonly send: { push(message: Outgoing<Request>): unknown };
    readonly records: LogRecord[];
    readonly events: CoreEvent[];
    refuse(from: ReplicaId, kind: string, code: string): void;
  };
}

export interface CatchUpActions {
  /** A commit certificate, verified; its block may be missing. */
  noteCertificate(certificate: Certificate): void;
  /** The block follows the head and a commit certificate covers it. */
  decideFetched(block: Block, certificate: Certificate | null): void;
  /** The state at a stable checkpoint above the head, every chunk proved. */
  install(state: {
    certificate: CheckpointCertificate;
    header: BlockHeader;
    headerBytes: Bytes;
    chunks: ReadonlyMap<number, Bytes>;
  }): void;
}

interface Want {
  readonly height: Height;
  readonly hash: Hash;
  readonly holders: readonly ReplicaId[];
  readonly since: Millis;
  turn: number;
  askedAt: Millis | null;
}

interface Transfer {
  readonly certificate: CheckpointCertificate;
  readonly header: BlockHeader;
  readonly headerBytes: Bytes;
  readonly chunks: Map<number, Bytes>;
  readonly asked: Map<number, { readonly peer: ReplicaId; readonly at: Millis }>;
}

const WANTS_MAX = 64;
const BLOCKS_PER_REQUEST = 256;
const CHUNKS_IN_FLIGHT_MAX = 16;

export class CatchUp {
  readonly #actions: CatchUpActions;
  #wants: Map<Hex, Want> = new Map();
  /** Peers that withheld or lied are passed over until then. */
  #passedOver: Map<ReplicaId, Millis> = new Map();
  /** Since when the others are ahead while this replica stands at `at`. */
  #behind: { since: Millis; at: Height } | null = null;
  /** When something was last gained while the others are ahead; null while they are not. */
  #gainedAt: Millis | null = null;
  #request: { readonly peer: ReplicaId; readonly at: Millis; readonly what: 'blocks' | 'checkpoint' } | null = null;
  #transfer: Transfer | null = null;
  /** Since when peers show a stable checkpoint at or below our head that we have no certificate of. */
  #unstableSince: Millis | null = null;
  #announced = false;
  #turn = 0;

  constructor(actions: CatchUpActions) {
    this.#actions = actions;
  }

  /** Blocks have been asked for, and not for a moment only. */
  get active(): boolean {
    return this.#announced || this.#transfer !== null;
  }

  /** [PBFT-NV-4] This block is needed by its hash; these replicas signed for it. */
  want(host: CatchUpHost, height: Height, hash: Hash, holders: readonly ReplicaId[]): void {
    const key = toHex(hash) as Hex; // toHex of 32 bytes is what Hex means
    if (this.#wants.has(key) || this.#wants.size >= WANTS_MAX) return;
    this.#wants.set(key, {
      height,
      hash,
      holders: holders.filter((r) => r !== host.self),
      since: host.now,
      turn: this.#turn++,
      askedAt: null,
    });
    this.#askForWants(host);
  }

  /** Whether this answer was asked for, from this peer. */
  awaits(kind: 'blocks' | 'checkpoint-proof', sender: ReplicaId): boolean {
    const what = kind === 'blocks' ? 'blocks' : 'checkpoint';
    return this.#request?.peer === sender && this.#request.what === what;
  }

  awaitsChunk(chunk: number, sender: ReplicaId): boolean {
    return this.#transfer?.asked.get(chunk)?.peer === sender;
  }

  awaitsBlock(hash: Hash): boolean {
    return this.#wants.has(toHex(hash) as Hex); // as above
  }

  onBlockData(host: CatchUpHost, signed: Verified<BlockData>): void {
    const { block } = signed.message;
    const key = toHex(block.hash) as Hex; // as above
    if (!this.#wants.delete(key)) return; // asked for twice, or never: of no use
    if (block.header.height > host.ledger.height) host.known.set(key, { block, stored: false });
  }

  /** [PBFT-CU-1] Compares heads and asks for what is missing. Called at every step. */
  tick(host: CatchUpHost): void {
    this.#askForWants(host);
    if (this.#transfer !== null) return this.#askForChunks(host, this.#transfer);
    const height = host.ledger.height;
    const goal = this.#goal(host);
    if (goal <= height) return this.#caughtUp(host);
    this.#gainedAt ??= host.now;
    if (this.#request !== null) {
      if (host.now - this.#request.at < host.parameters.viewTimeoutMs) return;
      this.#passOver(host, this.#request.peer);
      this.#request = null;
    }
    if (this.#behind === null || (this.#behind.at < height && !this.#announced))
      this.#behind = { since: host.now, at: height };
    // Votes are usually a little behind heads, and about to arrive.
    const near = goal - height <= 2 * host.parameters.window;
    if (near && host.now - this.#behind.since < 2 * host.parameters.heartbeatMs) return;
    this.#ask(host, goal);
  }

  /** The highest height that a certificate proves or a peer claims. A liar's claim costs one unanswered request at a time. */
  #goal(host: CatchUpHost): Height {
    let goal = host.headCertificate?.height ?? asHeight(0);
    for (const [replica, { status, connected }] of host.peers)
      if (connected && status !== null && status.height > goal && !this.#isPassedOver(host, replica))
        goal = status.height;
    return goal;
  }

  /** A height that a certificate proves, or that more peers claim than can all be lying. */
  believed(host: CatchUpHost): Height {
    const claims = [...host.peers.values()]
      .map(({ status, connected }) => (connected && status !== null ? status.height : 0))
      .sort((a, b) => b - a);
    return asHeight(Math.max(host.headCertificate?.height ?? 0, claims[host.quorums.oneHonest - 1] ?? 0));
  }

  #caughtUp(host: CatchUpHost): void {
    if (this.#announced) host.out.events.push({ type: 'caught-up', height: host.ledger.height });
    this.#announced = false;
    this.#behind = null;
    // Also here while it is behind and all who are ahead are passed over for a while.
    if (this.#gainedAt !== null && this.believed(host) <= host.ledger.height) this.#gainedAt = null;
    if (this.#request?.what === 'blocks') this.#request = null;
    this.#learnStable(host);
  }

  /** A stable checkpoint that this replica passed on its way by blocks bounds its window too. */
  #learnStable(host: CatchUpHost): void {
    if (this.#request !== null) {
      if (host.now - this.#request.at < host.parameters.viewTimeoutMs) return;
      this.#passOver(host, this.#request.peer);
      this.#request = null;
    }
    for (const [replica, { status, connected }] of host.peers) {
      if (!connected || status === null || this.#isPassedOver(host, replica)) continue;
      if (status.stable <= host.checkpoints.stableHeight || status.stable > host.ledger.height) continue;
      // The votes for it are probably on their way.
      this.#unstableSince ??= host.now;
      if (host.now - this.#unstableSince < host.parameters.viewTimeoutMs) return;
      this.#unstableSince = null;
      return this.#send(host, replica, 'checkpoint', { kind: 'fetch-checkpoint' });
    }
  }

  #ask(host: CatchUpHost, goal: Height): void {
    const from = plus.height(host.ledger.height, 1);
    const ahead = [...host.peers].filter(
      ([replica, { connected, status }]) =>
        connected &&
        !this.#isPassedOver(host, replica) &&
        ((status?.height ?? 0) >= from ||
          host.headCertificate?.signatures.some((by) => by.replica === replica) === true),
    );
    if (ahead.length === 0) return;
    // One peer's claim is worth a question, not an alarm.
    const believed = this.believed(host);
    if (!this.#announced && believed - host.ledger.height > 2 * host.parameters.window) {
      this.#announced = true;
      host.out.events.push({ type: 'catching-up', from, to: believed });
    }
    const serving = ahead.filter(([, { status }]) => status === null || status.lowest <= from);
    if (serving.length > 0) {
      const [peer] = serving[this.#turn++ % serving.length]!;
      const to = asHeight(Math.min(goal, host.ledger.height + BLOCKS_PER_REQUEST));
      this.#send(host, peer, 'blocks', { kind: 'fetch-blocks', from, to });
    } else {
      // [PBFT-CU-3] Nobody serves what comes next: from a checkpoint.
      const [peer] = ahead[this.#turn++ % ahead.length]!;
      this.#announced = true;
      this.#send(host, peer, 'checkpoint', { kind: 'fetch-checkpoint' });
    }
  }

  #send(host: CatchUpHost, peer: ReplicaId, what: 'blocks' | 'checkpoint', message: Request): void {
    this.#request = { peer, at: host.now, what };
    host.out.send.push({ to: peer, message });
  }

  /** [PBFT-CU-2] Consecutive blocks whose hash links and certificates have been checked (verify.ts). */
  onBlocks(host: CatchUpHost, signed: Verified<Blocks>): void {
    if (this.#request?.peer !== signed.sender || this.#request.what !== 'blocks') return;
    this.#request = null;
    const { blocks, tail } = signed.message;
    if (tail !== null) this.#actions.noteCertificate(tail.certificate);
    const certified = tail !== null ? blocks.length - 1 : blocks.findLastIndex((entry) => entry.certificate !== null);
    const before = host.ledger.height;
    for (const { block, certificate } of blocks.slice(0, certified + 1)) {
      if (block.header.height <= host.ledger.height) continue;
      if (!equalBytes(block.header.parent, host.ledger.head.hash)) {
        host.out.refuse(signed.sender, 'blocks', 'blocks-not-linked');
        break;
      }
      this.#actions.decideFetched(block, certificate);
    }
    if (host.ledger.height === before) this.#passOver(host, signed.sender);
    else this.#gainedAt = host.now;
  }

  onCheckpointProof(host: CatchUpHost, signed: Verified<CheckpointProof>): void {
    if (this.#request?.peer !== signed.sender || this.#request.what !== 'checkpoint') return;
    this.#request = null;
    const { checkpoint, headerBytes } = signed.message;
    const header = decodeHeader(headerBytes);
    if (
      header === undefined ||
      !equalBytes(blockHash(host.sha256, headerBytes), checkpoint.hash) ||
      header.height !== checkpoint.height
    ) {
      host.out.refuse(signed.sender, 'checkpoint-proof', 'checkpoint-header-mismatch');
      return this.#passOver(host, signed.sender);
    }
    if (checkpoint.height <= host.ledger.height) {
      host.checkpoints.learn(host, checkpoint);
      if (this.#goal(host) > host.ledger.height) this.#passOver(host, signed.sender);
      return;
    }
    this.#transfer = {
      certificate: checkpoint,
      header,
      headerBytes: Uint8Array.from(headerBytes),
      chunks: new Map(),
      asked: new Map(),
    };
    this.#askForChunks(host, this.#transfer);
  }

  /** [PBFT-CU-3] Keeps some requests under way, spread over the peers. */
  #askForChunks(host: CatchUpHost, transfer: Transfer): void {
    for (const [chunk, { peer, at }] of transfer.asked) {
      if (host.now - at < host.parameters.viewTimeoutMs) continue;
      transfer.asked.delete(chunk);
      this.#passOver(host, peer);
    }
    const peers = [...host.peers]
      .filter(([replica, { connected }]) => connected && !this.#isPassedOver(host, replica))
      .map(([replica]) => replica);
    if (peers.length === 0) {
      // Nobody has this checkpoint any more, perhaps: begin again with a newer one.
      if (transfer.asked.size === 0) this.#transfer = null;
      return;
    }
    for (let chunk = 0; chunk < STATE_CHUNKS && transfer.asked.size < CHUNKS_IN_FLIGHT_MAX; chunk++) {
      if (transfer.chunks.has(chunk) || transfer.asked.has(chunk)) continue;
      const peer = peers[this.#turn++ % peers.length]!;
      transfer.asked.set(chunk, { peer, at: host.now });
      host.out.send.push({ to: peer, message: { kind: 'fetch-state', height: transfer.certificate.height, chunk } });
    }
  }

  onStateChunk(host: CatchUpHost, signed: Verified<StateChunk>): void {
    const transfer = this.#transfer;
    const { height, chunk, bytes, proof } = signed.message;
    if (transfer === null || height !== transfer.certificate.height) return;
    if (transfer.asked.get(chunk)?.peer !== signed.sender) return;
    transfer.asked.delete(chunk);
    const leaf = leafHash(host.sha256, bytes);
    const root = transfer.certificate.stateDigest;
    if (!verifyInclusion({ sha256: host.sha256, leaf, index: chunk, size: STATE_CHUNKS, proof, root })) {
      host.out.refuse(signed.sender, 'state-chunk', 'state-chunk-proof');
      this.#passOver(host, signed.sender);
      // What else it was asked for is asked of others: a liar costs one chunk. Who is only late may still deliver.
      for (const [other, { peer }] of transfer.asked) if (peer === signed.sender) transfer.asked.delete(other);
    } else {
      transfer.chunks.set(chunk, Uint8Array.from(bytes));
      this.#gainedAt = host.now;
    }
    if (transfer.chunks.size < STATE_CHUNKS) return this.#askForChunks(host, transfer);
    this.#transfer = null;
    if (transfer.certificate.height <= host.ledger.height) return; // blocks came first
    this.#actions.install(transfer);
    host.out.events.push({ type: 'checkpoint-installed', height: transfer.certificate.height });
  }

  /** What is asked for, of whom, since when; null: nothing. */
  view(host: CatchUpHost): CatchUpView | null {
    if (this.#gainedAt === null) return null;
    const transfer = this.#transfer;
    const asked = transfer === null ? [this.#request?.peer] : [...transfer.asked.values()].map(({ peer }) => peer);
    return {
      since: this.#gainedAt,
      what: transfer === null ? (this.#request?.what ?? 'blocks') : 'state',
      asked: [...new Set(asked)].filter((peer) => peer !== undefined),
      passedOver: [...this.#passedOver.keys()].filter((peer) => this.#isPassedOver(host, peer)),
      chunks: transfer === null ? null : { have: transfer.chunks.size, need: STATE_CHUNKS },
    };
  }

  /** Single blocks that are asked for by hash. */
  wanted(): readonly Pick<Want, 'height' | 'hash' | 'holders' | 'since'>[] {
    return [...this.#wants.values()];
  }

  #askForWants(host: CatchUpHost): void {
    for (const [key, want] of this.#wants) {
      if (want.height <= host.ledger.height || want.holders.length === 0) {
        this.#wants.delete(key);
        continue;
      }
      if (want.askedAt !== null && host.now - want.askedAt < host.parameters.viewTimeoutMs / 2) continue;
      want.askedAt = host.now;
      const peer = want.holders[want.turn++ % want.holders.length]!;
      host.out.send.push({ to: peer, message: { kind: 'fetch-block', height: want.height, hash: want.hash } });
    }
  }

  #passOver(host: CatchUpHost, peer: ReplicaId): void {
    this.#passedOver.set(peer, plus.millis(host.now, 4 * host.parameters.viewTimeoutMs));
  }

  #isPassedOver(host: CatchUpHost, peer: ReplicaId): boolean {
    return (this.#passedOver.get(peer) ?? 0) > host.now;
  }

  dump() {
    return {
      wants: this.#wants,
      passedOver: this.#passedOver,
      behind: this.#behind,
      gainedAt: this.#gainedAt,
      request: this.#request,
      transfer: this.#transfer,
      unstableSince: this.#unstableSince,
      announced: this.#announced,
      turn: this.#turn,
    };
  }

  load(fields: ReturnType<CatchUp['dump']>): void {
    this.#wants = fields.wants;
    this.#passedOver = fields.passedOver;
    this.#behind = fields.behind;
    this.#gainedAt = fields.gainedAt;
    this.#request = fields.request;
    this.#transfer = fields.transfer;
    this.#unstableSince = fields.unstableSince;
    this.#announced = fields.announced;
    this.#turn = fields.turn;
  }
}
