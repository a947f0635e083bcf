// Several chain files read side by side, height by height, up to where they fork. Memory does not grow with the chains: only what lies
// close above a fork is kept.

import { type Bytes, equalBytes, toHex } from '../../crypto/bytes.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { asHash, asHeight } from '../../protocol/types.ts';
import type { Branch, Fork, ProvenBlock } from '../../protocol/verify.ts';
import type { WitnessProblem } from '../witness-file.ts';
import { readChainFile } from './chain-file.ts';

/** Blocks above a fork whose certificates are looked at. */
const ABOVE_FORK_MAX = 256;

export interface ReadChains {
  /** What each file holds, as far as it was read: to its end, or to a little above the fork. */
  readonly files: readonly { readonly file: string; readonly from: number; readonly to: number }[];
  readonly fork: Fork | null;
  /** Certificates close above the fork in files that begin higher up. */
  readonly certificates: readonly Certificate[];
}

/** One chain file, block by block. */
class Cursor {
  readonly file: string;
  readonly #blocks: ReturnType<typeof readChainFile>;
  current: ProvenBlock | null = null;
  problem: WitnessProblem | null = null;
  from = 0;
  to = 0;

  constructor(file: string, genesis: Genesis) {
    this.file = file;
    this.#blocks = readChainFile(file, genesis);
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

/** The problem names the file whose chain does not hold. */
export async function readChains(
  files: readonly string[],
  genesis: Genesis,
): Promise<ReadChains | (WitnessProblem & { readonly file: string })> {
  const cursors = files.map((file) => new Cursor(file, genesis));
  try {
    for (const cursor of cursors) await cursor.advance();
    for (;;) {
      const bad = cursors.find(({ problem }) => problem !== null);
      if (bad?.problem != null) return { file: bad.file, ...bad.problem };
      const height = Math.min(...cursors.map((cursor) => cursor.height));
      const here = cursors.filter((cursor) => cursor.height === height);
      if (!Number.isFinite(height)) return { files: cursors.map(spanOf), fork: null, certificates: [] };
      const hashes = new Set(here.map(({ current }) => toHex(current!.hash))); // it is at this height
      if (hashes.size > 1) return await aboveFork(height, cursors);
      for (const cursor of here) await cursor.advance();
    }
  } finally {
    for (const cursor of cursors) await cursor.close();
  }
}

async function aboveFork(height: number, cursors: readonly Cursor[]): ReturnType<typeof readChains> {
  const branches = new Map<string, { sources: string[]; hash: Bytes; certificates: Certificate[]; headers: Bytes[] }>();
  const others: Certificate[] = [];
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
    if (start === null) {
      others.push(...certificates);
      continue;
    }
    const branch = branches.get(toHex(start.hash)) ?? {
      sources: [],
      hash: start.hash,
      certificates: [],
      headers: [],
    };
    branch.sources.push(cursor.file);
    for (const certificate of certificates)
      if (!branch.certificates.some((known) => isSame(known, certificate))) branch.certificates.push(certificate);
    // Files of one branch may part further up: then the headers are those of the longest.
    if (headers.length > branch.headers.length) branch.headers = headers;
    branches.set(toHex(start.hash), branch);
  }
  const sorted = [...branches.values()].map(
    ({ sources, hash, certificates, headers }): Branch => ({
      sources,
      headers,
      hash: asHash(hash),
      certificates: certificates.sort((a, b) => a.height - b.height || a.view - b.view),
    }),
  );
  return {
    files: cursors.map(spanOf),
    fork: { height: asHeight(height), branches: sorted },
    certificates: others,
  };
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
