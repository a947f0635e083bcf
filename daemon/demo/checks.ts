// The checks at the end of the demo. Each is made with what came out of the system's doors, never with what went in.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { type Bytes, fromHex, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { blockHash } from '../../protocol/block.ts';
import type { KnownReplica } from '../cli/network.ts';
import { GENESIS_FILE } from '../cli/network-files.ts';
import { type BitcoinBlock, bitcoinMerkleRoot, displayed } from './bitcoin.ts';
import { grouped } from './figures.ts';
import type { Committed, Crash, Follower } from './ordering.ts';
import { pause, type Stage } from './stage.ts';

export interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
}

const program = fileURLToPath(new URL('../main.js', import.meta.url));
const httpMsMax = 10_000;
const verifyMsMax = 30_000;
const headersPerRequest = 256;
/** Until all are at the height of the one that was ahead. */
const levelMsMax = 10_000;

export function checkReceipts(receipts: readonly Committed[], bundles: readonly (readonly Bytes[])[]): Check {
  const total = bundles.reduce((sum, bundle) => sum + bundle.length, 0);
  let proved = 0;
  let inOrder = true;
  let before = { height: 0, end: 0 };
  for (const { receipt } of receipts) {
    const { height, firstIndex, transactionCount } = receipt;
    if (height < before.height || (height === before.height && firstIndex < before.end)) inOrder = false;
    before = { height, end: firstIndex + transactionCount };
    proved += transactionCount;
  }
  return {
    name: 'every transaction is committed, in the order submitted',
    passed: proved === total && receipts.length === bundles.length && inOrder,
    detail: `${grouped(proved)} of ${grouped(total)} have a receipt, their places ${inOrder ? 'rise' : 'DO NOT RISE'}`,
  };
}

export function checkMerkleRoot({ transactions }: Follower, block: BitcoinBlock): Check {
  const root = displayed(bitcoinMerkleRoot(native.sha256, transactions));
  const wanted = displayed(block.merkleRoot);
  return {
    name: "the follower's stream folds to the Merkle root of the Bitcoin block",
    passed: root === wanted && transactions.length === block.transactions.length,
    detail: `${grouped(transactions.length)} transactions, ${root}${root === wanted ? '' : ` INSTEAD OF ${wanted}`}`,
  };
}

export function checkViewChange({ replica, oldView, viewChange }: Crash): Check {
  return {
    name: 'the network went on under another primary',
    passed: viewChange !== null && viewChange.view > oldView && viewChange.primary !== replica,
    detail:
      viewChange === null
        ? `no replica left view ${oldView}`
        : `view ${oldView} under ${replica}, then view ${viewChange.view} under ${viewChange.primary}`,
  };
}

/** Where nobody leads, there is no view to leave. */
export function checkWentOn({ replica, killedAt, restartedAt }: Crash, receipts: readonly Committed[]): Check {
  const without = receipts.filter(({ sentAt, committedAt }) => sentAt > killedAt && committedAt < restartedAt).length;
  return {
    name: 'the network went on without the killed replica',
    passed: without > 0,
    detail: `${without} bundles sent and committed while ${replica} was down`,
  };
}

export function checkCatchUp({ replica, behind, caughtUpAt, restartedAt }: Crash): Check {
  return {
    name: 'the killed replica caught up by itself',
    passed: caughtUpAt !== null,
    detail:
      caughtUpAt === null
        ? `${replica} DID NOT`
        : `${replica}, ${behind} blocks behind when started, ${Math.round(caughtUpAt - restartedAt)} ms later at the others' height`,
  };
}

/** Header bytes from every replica's HTTP door, hashed here, compared block by block. */
export async function checkChains({ keepers }: Stage): Promise<Check> {
  const seen = await Promise.all(keepers.map(({ http }) => hashesOf(http)));
  // One may be a block ahead at the moment when it is asked, in basic-paxos most of all.
  const height = Math.max(...seen.map((chain) => chain.length));
  const chains = await Promise.all(keepers.map(({ http }, i) => hashesUpTo(http, height, seen[i]!)));
  const lengths = chains.map((chain) => chain.length);
  const [first = []] = chains;
  const differing = first.findIndex((hash, index) => chains.some((chain) => chain[index] !== hash));
  const passed = first.length > 0 && differing === -1 && lengths.every((length) => length === first.length);
  return {
    name: `all ${chains.length} replicas hold the same chain`,
    passed,
    detail: passed
      ? `${first.length} blocks each, head ${first.at(-1)}`
      : `heights ${lengths.join(', ')}${differing === -1 ? '' : `, DIFFERENT AT HEIGHT ${differing + 1}`}`,
  };
}

async function hashesUpTo(http: KnownReplica['http'], height: number, seen: string[]): Promise<string[]> {
  const deadline = performance.now() + levelMsMax;
  let hashes = seen;
  while (hashes.length < height && performance.now() < deadline) {
    await pause(50);
    hashes = await hashesOf(http);
  }
  return hashes.slice(0, height);
}

const headersSchema = z.object({ blocks: z.array(z.object({ headerBytes: z.string() })) });

async function hashesOf(http: KnownReplica['http']): Promise<string[]> {
  const hashes: string[] = [];
  for (;;) {
    const url = `${http}/v1/blocks?from=${hashes.length + 1}&limit=${headersPerRequest}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(httpMsMax) });
    const { blocks } = headersSchema.parse(await response.json());
    for (const { headerBytes } of blocks) {
      const bytes = fromHex(headerBytes);
      hashes.push(bytes === undefined ? 'malformed' : toHex(blockHash(native.sha256, bytes)));
    }
    if (blocks.length === 0) return hashes;
  }
}

const verdictSchema = z.object({
  valid: z.literal(true),
  height: z.int(),
  transactionSha256: z.string(),
  signers: z.array(z.string()),
});

export interface ReceiptTrial {
  /** As `Receipt.toJSON` gives it. */
  readonly receipt: { readonly transaction: string };
  readonly transaction: Bytes;
  readonly directory: string;
}

/** A process that knows nothing but the genesis document and the receipt, in a directory with nothing else. */
export async function checkReceiptOffline({
  receipt,
  transaction,
  directory,
}: ReceiptTrial): Promise<readonly Check[]> {
  const file = join(directory, 'transaction.receipt');
  writeFileSync(file, `${JSON.stringify(receipt, null, 2)}\n`);
  const good = await runVerify(file, directory);
  const verdict = verdictSchema.safeParse(good.json);
  const sha256 = toHex(native.sha256(transaction));
  const passed = good.code === 0 && verdict.success && verdict.data.transactionSha256 === sha256;
  const forged = join(directory, 'forged.receipt');
  writeFileSync(forged, `${JSON.stringify({ ...receipt, transaction: altered(transaction) })}\n`);
  const bad = await runVerify(forged, directory);
  return [
    {
      name: 'a receipt convinces a process that knows only the genesis document',
      passed,
      detail: passed
        ? `transaction ${sha256.slice(0, 16)}... in block ${verdict.data.height}, signed by ${verdict.data.signers.join(', ')}`
        : `synod verify: exit code ${good.code} ${good.stderr.trim()}`,
    },
    {
      name: 'the same receipt with one bit of the transaction changed does not',
      passed: bad.code === 3,
      detail: bad.stderr.split('\n')[0] ?? '',
    },
  ];
}

function altered(transaction: Bytes): string {
  const copy = Buffer.from(transaction);
  copy[0] = (copy[0] ?? 0) ^ 1;
  return copy.toString('base64');
}

function runVerify(file: string, directory: string) {
  return new Promise<{ readonly code: number; readonly json: unknown; readonly stderr: string }>((resolve) => {
    const args = [program, 'verify', file, '--genesis', join(directory, GENESIS_FILE), '--json'];
    execFile(process.execPath, args, { cwd: directory, timeout: verifyMsMax }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      resolve({ code, json: code === 0 ? JSON.parse(stdout) : null, stderr });
    });
  });
}

/** Where the receipt's process runs: the genesis document and nothing of the network. */
export function auditorsDirectory(parent: string, document: Bytes): string {
  const directory = join(parent, 'auditor');
  mkdirSync(directory);
  writeFileSync(join(directory, GENESIS_FILE), document);
  return directory;
}
