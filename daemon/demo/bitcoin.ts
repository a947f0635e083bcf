// A Bitcoin block as it stands on the chain: 80 bytes of header, a count, the transactions (Bitcoin developer reference, "Block
// chain" and "Transactions"; pre-segwit serialization). Read strictly: minimal compact sizes, nothing left over. The Merkle
// root in the header is what makes the block a test of ordering: it fixes every byte and the place of every transaction.

import type { Bytes } from '../../crypto/bytes.ts';
import { concat } from '../../crypto/bytes.ts';
import type { Sha256 } from '../../crypto/provider.ts';

export interface BitcoinBlock {
  /** As displayed: byte-reversed hex. */
  readonly hash: string;
  /** 32 bytes as they stand in the header. */
  readonly merkleRoot: Bytes;
  /** Each transaction's own bytes, in order. */
  readonly transactions: readonly Bytes[];
}

export type BitcoinProblem = { readonly problem: string };

const HEADER_BYTES = 80;
/** The smallest transaction: version, one input without script, one output without script, lock time. */
const TRANSACTION_BYTES_MIN = 60;

/** Bytes from outside: never throws. */
export function parseBitcoinBlock(sha256: Sha256, bytes: Bytes): BitcoinBlock | BitcoinProblem {
  const reader = new Reader(bytes);
  const header = reader.take(HEADER_BYTES);
  const count = reader.compactSize();
  const transactions: Bytes[] = [];
  if (count > bytes.length / TRANSACTION_BYTES_MIN) reader.fail('more transactions than fit');
  while (transactions.length < count && reader.problem === null) {
    const start = reader.at;
    skipTransaction(reader);
    transactions.push(bytes.subarray(start, reader.at));
  }
  if (reader.problem === null && reader.at !== bytes.length) reader.fail('bytes after the last transaction');
  if (reader.problem === null && count === 0) reader.fail('no transaction');
  if (reader.problem !== null) return { problem: `no Bitcoin block: ${reader.problem} at byte ${reader.at}` };
  return { hash: displayed(doubleSha256(sha256, header)), merkleRoot: header.slice(36, 68), transactions };
}

/**
 * The root over transactions in this order: double SHA-256 of each, then of pairs, the last one of an odd level with itself.
 * 32 zero bytes for none, as Bitcoin Core has it.
 */
export function bitcoinMerkleRoot(sha256: Sha256, transactions: readonly Bytes[]): Bytes {
  let level = transactions.map((transaction) => doubleSha256(sha256, transaction));
  while (level.length > 1) {
    const parents: Bytes[] = [];
    for (let i = 0; i < level.length; i += 2) {
      const left = level[i]!;
      parents.push(doubleSha256(sha256, concat(left, level[i + 1] ?? left)));
    }
    level = parents;
  }
  return level[0] ?? new Uint8Array(32);
}

/** Hashes are shown byte-reversed in the Bitcoin world. */
export function displayed(hash: Bytes): string {
  return Buffer.from(hash).reverse().toString('hex');
}

const doubleSha256 = (sha256: Sha256, bytes: Bytes) => sha256(sha256(bytes));

function skipTransaction(reader: Reader): void {
  reader.take(4); // version
  const inputs = reader.compactSize();
  if (inputs === 0) reader.fail('a transaction without input (or in segwit form)');
  for (let i = 0; i < inputs && reader.problem === null; i++) {
    reader.take(36); // previous output
    reader.take(reader.compactSize()); // script
    reader.take(4); // sequence
  }
  const outputs = reader.compactSize();
  if (outputs === 0) reader.fail('a transaction without output');
  for (let i = 0; i < outputs && reader.problem === null; i++) {
    reader.take(8); // value
    reader.take(reader.compactSize()); // script
  }
  reader.take(4); // lock time
}

/** Stops at the first problem and stays there. */
class Reader {
  at = 0;
  problem: string | null = null;
  readonly #bytes: Bytes;
  readonly #view: DataView;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  fail(problem: string): void {
    this.problem ??= problem;
  }

  take(length: number): Bytes {
    if (this.problem !== null || length > this.#bytes.length - this.at) {
      this.fail('the bytes end too early');
      return new Uint8Array(0);
    }
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  /** One byte, or a marker and 2, 4 or 8 bytes little-endian; the shortest form only. */
  compactSize(): number {
    const first = this.take(1)[0] ?? 0;
    if (first < 0xfd) return first;
    const width = first === 0xfd ? 2 : first === 0xfe ? 4 : 8;
    const at = this.at;
    if (this.take(width).length === 0) return 0;
    if (width === 2) return this.#minimal(this.#view.getUint16(at, true), 0xfd);
    if (width === 4) return this.#minimal(this.#view.getUint32(at, true), 0x1_0000);
    const value = this.#view.getBigUint64(at, true);
    // No length in a block comes near: what does not fit a safe integer fails at the next `take` as well.
    return this.#minimal(
      value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value),
      0x1_0000_0000,
    );
  }

  #minimal(value: number, least: number): number {
    if (value < least) this.fail('a size in more bytes than it needs');
    return value;
  }
}
