// What this replica has seen others do wrong, kept on its disk: one witness file for each piece of evidence, and one for each new-view that
// it entered, which an audit needs where a chain has forked over a view change. Written beside the loop: no vote waits for it, and a disk
// that fails here is reported, for the log's own writes will end the replica.

import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Bytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { Crypto } from '../crypto/provider.ts';
import { encodeFrame } from '../protocol/codec.ts';
import type { Evidence } from '../protocol/core.ts';
import { EpochChain } from '../protocol/epoch/chain.ts';
import type { Genesis } from '../protocol/genesis.ts';
import type { LogRecord } from '../protocol/log.ts';
import type { ReplicaMessage } from '../protocol/messages.ts';
import { decodeHardState } from '../protocol/pbft/hard-state.ts';
import type { Epoch, ReplicaId, View } from '../protocol/types.ts';
import { type Conflict, encodeEvidence, evidenceOf, verifyEvidence } from '../protocol/verify.ts';
import { syncDirectory } from '../storage/files.ts';
import { offenceInWords } from './offences.ts';
import type { Meter } from './ports.ts';
import type { Logger } from './replica.ts';
import { decodeWitness, encodeProvenWitness, encodeWitness, readWitness, WITNESS_BYTES_MAX } from './witness-file.ts';

/** [ACC-2] The oldest pieces stay: what a culprit does later proves no more. New-views go the other way: the newest stay. */
export const EVIDENCE_LIMITS = {
  piecesPerMemberMax: 16,
  bytesPerMemberMax: 4 << 20,
  newViewsMax: 64,
  newViewBytesMax: 16 << 20,
} as const;

export interface KeptPiece {
  /** Names the piece and its file: the first 16 bytes of its SHA-256, in hex. */
  readonly id: string;
  /** Its number in the epoch of the conflict. */
  readonly culprit: ReplicaId;
  /** Its name: in another epoch the number may be somebody else's. */
  readonly name: string;
  readonly conflict: Conflict;
  /** Of its file. */
  readonly bytes: number;
  /** When it was kept, in milliseconds since 1970. */
  readonly keptAt: number;
}

export interface KeptNewView {
  readonly id: string;
  readonly epoch: Epoch;
  readonly view: View;
  readonly bytes: number;
}

/** What the HTTP door shows. */
export interface EvidenceSource {
  readonly pieces: readonly KeptPiece[];
  readonly newViews: readonly KeptNewView[];
  /** The witness file of this name; null: there is none. */
  read(id: string): Promise<Bytes | null>;
}

export interface EvidenceOptions {
  readonly directory: string;
  /** Of the epoch at hand (genesisOf). */
  readonly genesis: Genesis;
  /** For what was kept in earlier ones. */
  readonly epochs?: EpochChain | undefined;
  readonly crypto: Crypto;
  readonly meter: Meter;
  readonly logger: Logger;
}

/** Of a whole file of evidence. */
export const WITNESS_SUFFIX = '.witness';
const DRAFT = '.partial';
/** Views begin anew in each epoch. */
const newViewId = (epoch: number, view: View): string => `new-view-${epoch === 0 ? '' : `${epoch}-`}${view}`;

export class EvidenceBook implements EvidenceSource {
  #options: EvidenceOptions;
  readonly #pieces = new Map<string, KeptPiece>();
  /** What is proved already: one piece for a member, an offence and a place. */
  readonly #places = new Set<string>();
  /** By id. */
  readonly #newViews = new Map<string, KeptNewView>();
  #writes: Promise<void> = Promise.resolve();

  private constructor(options: EvidenceOptions) {
    this.#options = options;
  }

  /** Reads what is there; a file that does not hold is reported and left as it is. @throws a system error where the directory cannot be had */
  static async open(options: EvidenceOptions): Promise<EvidenceBook> {
    const book = new EvidenceBook(options);
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    await book.#load();
    return book;
  }

  /** The next epoch: what is found from now on is about its members. */
  enter(genesis: Genesis): void {
    this.#options = { ...this.#options, genesis };
  }

  get pieces(): readonly KeptPiece[] {
    return [...this.#pieces.values()];
  }

  get newViews(): readonly KeptNewView[] {
    return [...this.#newViews.values()].sort((a, b) => a.epoch - b.epoch || a.view - b.view);
  }

  /** [ACC-2] One more pair of statements. What it proves already, or has no room for, is counted and not kept. */
  found({ culprit, first, second }: Evidence<ReplicaMessage>): void {
    const { genesis, epochs, crypto, meter, logger } = this.#options;
    const peer = genesis.members[culprit]?.name ?? String(culprit);
    meter.count('synod_evidence_total', { peer });
    const piece = encodeEvidence(evidenceOf(genesis, first, second));
    const proven = verifyEvidence(piece, { genesis, crypto, epochs });
    if ('refused' in proven) {
      // A bug of ours, and no reason to stop a replica that orders.
      logger.error({ peer, code: proven.refused, field: proven.field }, 'evidence was reported that does not hold');
      return;
    }
    const fields = { peer, ...proven.conflict };
    if (this.#places.has(nameOf(culprit, proven.conflict))) return logger.debug(fields, 'the same evidence again');
    const content = encodeWitness(genesis.chainId, [{ sort: 'evidence', bytes: piece }]);
    const id = toHex(crypto.sha256(piece).subarray(0, 16));
    const kept = { id, culprit, name: peer, conflict: proven.conflict, bytes: content.length, keptAt: Date.now() };
    if (!this.#hasRoom(kept)) return logger.warn(fields, 'more evidence against this replica than is kept');
    logger.error({ ...fields, id }, `a replica ${offenceInWords(proven.conflict)}`);
    this.#add(kept);
    this.#write({ id, content, at: kept.keptAt, onFailure: () => this.#drop(kept) });
  }

  /** The new-view that this replica entered a view by, out of the records that it writes anyway. */
  entered(records: readonly LogRecord[]): void {
    const { genesis } = this.#options;
    for (const record of records) {
      const state = record.type === 'hard-state' ? decodeHardState(record.bytes) : undefined;
      if (state?.mode !== 'active' || state.newView === null) continue;
      const { epoch, view } = state;
      const id = newViewId(epoch, view);
      if (this.#newViews.has(id)) continue;
      const { sender, payload, signature } = state.newView;
      const frame = encodeFrame({ kind: 'new-view', payload, sender: genesis.members[sender]!.publicKey, signature });
      const content = encodeWitness(genesis.chainId, [{ sort: 'frame', bytes: frame }]);
      this.#newViews.set(id, { id, epoch, view, bytes: content.length });
      this.#write({ id, content, at: Date.now(), onFailure: () => this.#newViews.delete(id) });
      this.#dropOldNewViews();
    }
  }

  async read(id: string): Promise<Bytes | null> {
    const isKnown = this.#pieces.has(id) || this.newViews.some((kept) => kept.id === id);
    if (!isKnown) return null;
    await this.#writes;
    const bytes = await readFile(this.#pathOf(id)).catch(() => null);
    return bytes === null ? null : this.#proven(bytes);
  }

  /** [WIRE-37] For a stranger, who has the genesis document alone; on disk the links stand once, in the file of epochs. */
  #proven(bytes: Bytes): Bytes {
    const { genesis, epochs, crypto } = this.#options;
    const records = epochs === undefined ? [] : decodeWitness(bytes, genesis.chainId);
    if (epochs === undefined || 'refused' in records) return bytes;
    return encodeProvenWitness(genesis, records, { epochs, crypto });
  }

  /** Resolves when everything found until now is on disk. */
  async settle(): Promise<void> {
    await this.#writes;
  }

  // ---- bounds -----------------------------------------------------------------------------------------------------

  #hasRoom({ name, bytes }: KeptPiece): boolean {
    const { piecesPerMemberMax, bytesPerMemberMax } = EVIDENCE_LIMITS;
    const theirs = this.pieces.filter((kept) => kept.name === name);
    return (
      theirs.length < piecesPerMemberMax && theirs.reduce((sum, kept) => sum + kept.bytes, bytes) <= bytesPerMemberMax
    );
  }

  #add(kept: KeptPiece): void {
    this.#pieces.set(kept.id, kept);
    this.#places.add(nameOf(kept.culprit, kept.conflict));
    this.#report(kept.name);
  }

  #drop(kept: KeptPiece): void {
    this.#pieces.delete(kept.id);
    this.#places.delete(nameOf(kept.culprit, kept.conflict));
    this.#report(kept.name);
  }

  #report(peer: string): void {
    const count = this.pieces.filter(({ name }) => name === peer).length;
    this.#options.meter.gauge('synod_evidence_kept', count, { peer });
  }

  #dropOldNewViews(): void {
    const { newViewsMax, newViewBytesMax } = EVIDENCE_LIMITS;
    const kept = this.newViews;
    let bytes = kept.reduce((sum, each) => sum + each.bytes, 0);
    // The newest stays, however large.
    for (const [index, oldest] of kept.slice(0, -1).entries()) {
      if (kept.length - index <= newViewsMax && bytes <= newViewBytesMax) return;
      bytes -= oldest.bytes;
      this.#newViews.delete(oldest.id);
      this.#writes = this.#writes.then(() => rm(this.#pathOf(oldest.id), { force: true })).catch(() => undefined);
    }
  }

  // ---- files ------------------------------------------------------------------------------------------------------

  #pathOf(id: string): string {
    return join(this.#options.directory, `${id}${WITNESS_SUFFIX}`);
  }

  #write({ id, content, at, onFailure }: Write): void {
    this.#writes = this.#writes
      .then(() => writeWhole(this.#options.directory, this.#pathOf(id), { content, at }))
      .catch((error: unknown) => {
        onFailure();
        this.#options.logger.error({ id, error: String(error) }, 'evidence could not be written');
      });
  }

  async #load(): Promise<void> {
    const { directory, genesis, epochs, crypto, logger } = this.#options;
    for (const { id, bytes, at } of await filesIn(directory)) {
      const witness = readWitness(bytes, genesis, crypto, epochs);
      const problem = 'refused' in witness ? witness : null;
      if (problem !== null || 'refused' in witness) {
        logger.warn({ id, code: problem?.refused, problem: problem?.problem }, 'this file of evidence does not hold');
        continue;
      }
      for (const { proven } of witness.pieces) {
        const { culprit, conflict } = proven;
        this.#add({ id, culprit: culprit.id, name: culprit.name, conflict, bytes: bytes.length, keptAt: at });
      }
      for (const { signed } of witness.statements) {
        if (signed.message.kind !== 'new-view') continue;
        const { epoch, view } = signed.message;
        if (id === newViewId(epoch, view)) this.#newViews.set(id, { id, epoch, view, bytes: bytes.length });
      }
    }
  }
}

const nameOf = (culprit: ReplicaId, { offence, epoch, view, height }: Conflict): string =>
  `${culprit} ${offence} ${epoch} ${view ?? '-'} ${height ?? '-'}`;

interface Write {
  readonly id: string;
  readonly content: Bytes;
  /** Milliseconds since 1970: the file's time, which says when it was kept. */
  readonly at: number;
  readonly onFailure: () => void;
}

/** Whole or absent, and durable. */
async function writeWhole(
  directory: string,
  path: string,
  { content, at }: Pick<Write, 'content' | 'at'>,
): Promise<void> {
  const draft = `${path}${DRAFT}`;
  const file = await open(draft, 'w', 0o600);
  try {
    await file.writeFile(content);
    await file.utimes(new Date(), new Date(at));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await syncDirectory(directory);
}

interface StoredFile {
  readonly id: string;
  readonly bytes: Bytes;
  readonly at: number;
}

/** The witness files of a directory, oldest first; drafts that a crash left are passed over. */
async function filesIn(directory: string): Promise<readonly StoredFile[]> {
  const found: StoredFile[] = [];
  for (const name of await readdir(directory)) {
    if (!name.endsWith(WITNESS_SUFFIX)) continue;
    const path = join(directory, name);
    const { mtimeMs, size } = await stat(path);
    if (size > WITNESS_BYTES_MAX) continue;
    found.push({ id: name.slice(0, -WITNESS_SUFFIX.length), bytes: await readFile(path), at: Math.round(mtimeMs) });
  }
  return found.sort((a, b) => a.at - b.at || (a.id < b.id ? -1 : 1));
}

/** Everything in a replica's directory as one witness file, whether or not it runs; null: nothing is there. */
export async function collectWitness(
  directory: string,
  genesis: Genesis,
  epochs: EpochChain = new EpochChain({ genesis, crypto: native }),
): Promise<Bytes | null> {
  const files = await filesIn(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []; // never started, or by an older version
    throw error;
  });
  const records = files.flatMap(({ bytes }) => {
    const decoded = decodeWitness(bytes, genesis.chainId);
    return 'refused' in decoded ? [] : decoded;
  });
  return records.length === 0 ? null : encodeProvenWitness(genesis, records, { epochs, crypto: native });
}
