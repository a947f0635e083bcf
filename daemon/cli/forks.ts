// Several chain files read side by side, height by height, up to where they fork. Memory does not grow with the chains: only what lies
// close above a fork is kept, and the links of each file's epochs. Each file proves its epochs by itself: files of two histories may both hold.

import { type Bytes, equalBytes, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { asHash, asHeight } from '../../protocol/types.ts';
import { type Branch, decodeEpochLink, EpochChain, type Fork, type ProvenBlock } from '../../protocol/verify.ts';
import type { WitnessProblem } from '../witness-file.ts';
import { readChainFile } from './chain-file.ts';

/** Blocks above a fork whose certificates are looked at. */
const ABOVE_FORK_MAX = 256;

export interface ReadChains {
  /** What each file holds, as far as it was read: to its end, or to a little above the fork. */
  readonly files: readonly { readonly file: string; readonly from: number; readonly to: number }[];
  readonly fork: Fork | null;
  /** Certificates close above the fork in files that begin higher up. */
  readonly certificates: readonly { readonly certificate: Certificate; readonly epochs: EpochChain }[];
  /** What each file proves of the epochs, as far as it was read. */
  readonly epochs: readonly Source[];
}

export interface Source {
  readonly file: string;
  readonly epochs: EpochChain;
}

/** One chain file, block by block. */
class Cursor {
  readonly file: string;
  readonly #genesis: Genesis;
  readonly #known: (() => EpochChain) | null;
  #blocks: ReturnType<typeof readChainFile>;
  epochs: EpochChain;
  current: ProvenBlock | null = null;
  problem: WitnessProblem | null = null;
  from = 0;
  to = 0;
  /** The last blocks of epochs before its first block, as its links prove them, by height: blocks of it like any other. */
  readonly ends = new Map<number, Branch[]>();

  constructor(file: string, { genesis, known }: ChainContext) {
    this.file = file;
    this.#genesis = genesis;
    this.#known = known;
    this.epochs = new EpochChain({ genesis, crypto: native });
    this.#blocks = readChainFile(file, genesis, this.epochs);
  }

  async begin(): Promise<void> {
    await this.advance();
    await this.#withKnown();
    for (let epoch = 0; epoch < this.epochs.links.length; epoch++) this.#noteEnd(epoch);
  }

  #noteEnd(epoch: number): void {
    const end = endOf(this, epoch);
    const height = end?.certificates[0]?.height;
    if (end === null || height === undefined || height >= this.from) return;
    this.ends.set(height, [...(this.ends.get(height) ?? []), end]);
  }

  async #withKnown(): Promise<void> {
    // One that begins in a later epoch and has no links, as older versions wrote it.
    if (this.problem?.refused !== 'certificate-epoch' || this.epochs.links.length > 0 || this.#known === null) return;
    this.problem = null;
    this.epochs = this.#known();
    this.#blocks = readChainFile(this.file, this.#genesis, this.epochs);
    await this.advance();
  }

  async advance(): Promise<void> {
    const { value, done } = await this.#blocks.next();
    this.current = null;
    if (done === true || value === undefined) return;
    if ('refused' in value) {
      this.problem = value;
      return;
    }
    this.current = value;
    this.to = value.header.height;
    if (this.from === 0) this.from = this.to;
  }

  get height(): number {
    return this.current?.header.height ?? Number.POSITIVE_INFINITY;
  }

  async close(): Promise<void> {
    await this.#blocks.return(undefined);
  }
}

export interface ChainContext {
  readonly genesis: Genesis;
  /** What is known of the epochs, anew each time, for files that do not prove theirs; null: nothing. */
  readonly known: (() => EpochChain) | null;
}

/** The problem names the file whose chain does not hold. */
export async function readChains(
  files: readonly string[],
  context: ChainContext,
): Promise<ReadChains | (WitnessProblem & { readonly file: string })> {
  const cursors = files.map((file) => new Cursor(file, context));
  try {
    for (const cursor of cursors) await cursor.begin();
    for (;;) {
      const bad = cursors.find(({ problem }) => problem !== null);
      if (bad?.problem != null) return { file: bad.file, ...bad.problem };
      const height = Math.min(...cursors.map((cursor) => cursor.height));
      const here = cursors.filter((cursor) => cursor.height === height);
      if (!Number.isFinite(height))
        return { files: cursors.map(spanOf), fork: forkOfEpochs(cursors), certificates: [], epochs: cursors };
      const hashes = new Set(here.map(({ current }) => toHex(current!.hash))); // it is at this height
      for (const { ends } of cursors) for (const end of ends.get(height) ?? []) hashes.add(toHex(end.hash));
      if (hashes.size > 1) return await aboveFork(height, cursors);
      for (const cursor of here) await cursor.advance();
    }
  } finally {
    for (const cursor of cursors) await cursor.close();
  }
}

async function aboveFork(height: number, cursors: readonly Cursor[]): ReturnType<typeof readChains> {
  const branches = new Map<
    string,
    { sources: string[]; hash: Bytes; certificates: Certificate[]; headers: Bytes[]; epochs: EpochChain }
  >();
  const others: ReadChains['certificates'][number][] = [];
  for (const cursor of cursors) {
    const start = cursor.height === height ? cursor.current : null;
    const certificates: Certificate[] = [];
    const headers: Bytes[] = [];
    while (cursor.current !== null && cursor.height <= height + ABOVE_FORK_MAX) {
      headers.push(cursor.current.headerBytes);
      if (cursor.current.certificate !== null) certificates.push(cursor.current.certificate);
      await cursor.advance();
    }
    // What was taken in before is proven all the same, but a file that does not hold is no witness.
    if (cursor.problem !== null) return { file: cursor.file, ...cursor.problem };
    for (const { hash, headers: first, certificates: own } of cursor.ends.get(height) ?? [])
      if (!branches.has(toHex(hash)))
        branches.set(toHex(hash), {
          sources: [cursor.file],
          hash,
          certificates: [...own],
          headers: [...first],
          epochs: cursor.epochs,
        });
    if (start === null) {
      others.push(...certificates.map((certificate) => ({ certificate, epochs: cursor.epochs })));
      continue;
    }
    const branch = branches.get(toHex(start.hash)) ?? {
      sources: [],
      hash: start.hash,
      certificates: [],
      headers: [],
      epochs: cursor.epochs,
    };
    branch.sources.push(cursor.file);
    for (const certificate of certificates)
      if (!branch.certificates.some((known) => isSame(known, certificate))) branch.certificates.push(certificate);
    // Files of one branch may part further up: then the headers are those of the longest.
    if (headers.length > branch.headers.length) branch.headers = headers;
    branches.set(toHex(start.hash), branch);
  }
  const sorted = [...branches.values()].map(
    ({ sources, hash, certificates, headers, epochs }): Branch => ({
      sources,
      headers,
      hash: asHash(hash),
      certificates: certificates.sort((a, b) => a.height - b.height || a.view - b.view),
      epochs,
    }),
  );
  // Where the files meet only above the place at which their histories part, their links may show that place.
  const below = forkOfEpochs(cursors);
  const fork = { height: asHeight(height), branches: inOneEpoch(sorted) };
  return {
    files: cursors.map(spanOf),
    fork: below !== null && below.height < height ? below : fork,
    certificates: others,
    epochs: cursors,
  };
}

/** One branch may be in a later epoch already where the files meet: then the link out of the other's is where it parts from it. */
function inOneEpoch(branches: readonly Branch[]): readonly Branch[] {
  const epoch = Math.min(...branches.map(({ certificates }) => certificates[0]?.epoch ?? 0)); // never empty
  return branches.map((branch) => {
    if (branch.certificates[0]?.epoch === epoch) return branch;
    const { sources, epochs } = branch;
    const end = epochs === undefined ? null : endOf({ file: sources[0] ?? '', epochs }, epoch);
    return end === null
      ? branch
      : { ...branch, headers: [], certificates: [...end.certificates, ...branch.certificates] };
  });
}

/** [EPO-11] Two links that hold lead out of one epoch differently: a fork, even where no two files hold blocks of one height. */
export function forkOfEpochs(sources: readonly Source[]): Fork | null {
  const last = Math.max(0, ...sources.map(({ epochs }) => epochs.last.epoch));
  for (let epoch = 0; epoch < last; epoch++) {
    const ends = new Map<string, Branch>();
    for (const source of sources) {
      const end = endOf(source, epoch);
      if (end === null) continue;
      const known = ends.get(toHex(end.hash));
      ends.set(toHex(end.hash), known === undefined ? end : { ...known, sources: [...known.sources, source.file] });
    }
    if (ends.size < 2) continue;
    const branches = [...ends.values()];
    const heights = branches.map(({ certificates }) => certificates[0]!.height); // one of each
    const height = Math.min(...heights);
    return {
      height: asHeight(height),
      branches: branches.map((branch, i) => (heights[i] === height ? branch : { ...branch, headers: [] })),
    };
  }
  return null;
}

/** The last block of an epoch, as the link says it; null: it is not known how that one ended. */
function endOf({ file, epochs }: Pick<Source, 'file' | 'epochs'>, epoch: number): Branch | null {
  const bytes = epochs.links[epoch];
  const link = bytes === undefined ? null : decodeEpochLink(bytes);
  if (link === null || 'refused' in link) return null; // those of a chain do decode
  const { certificate, headerBytes } = link;
  return { sources: [file], hash: certificate.hash, certificates: [certificate], headers: [headerBytes], epochs };
}

const spanOf = ({ file, from, to }: Cursor) => ({ file, from, to });

/** The same votes: which signers a certificate has differs from file to file, and each of them counts. */
function isSame(a: Certificate, b: Certificate): boolean {
  return (
    a.view === b.view &&
    a.height === b.height &&
    a.signatures.length === b.signatures.length &&
    a.signatures.every(({ replica, signature }, i) => {
      const other = b.signatures[i]!; // of the same length
      return replica === other.replica && equalBytes(signature, other.signature);
    })
  );
}
