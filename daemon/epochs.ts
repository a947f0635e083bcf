// The epochs of a replica on disk: which one it starts in, and the links that prove it. The log alone says which (EPO-12); the file of links is for
// whoever asks, and is completed from the log at each start.

import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { assert } from '../protocol/assert.ts';
import { decodeHeader } from '../protocol/block.ts';
import { decodeCertificate, decodeStoredBlock, isRefusal } from '../protocol/codec.ts';
import type { EpochEnd } from '../protocol/core.ts';
import { controlIn, encodeEpochLink } from '../protocol/epoch/chain.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import { type Genesis, storedParameters } from '../protocol/genesis.ts';
import { asHeight, type Epoch, type Height } from '../protocol/types.ts';
import { EpochChain } from '../protocol/verify.ts';
import { syncDirectory } from '../storage/files.ts';
import type { LogStore } from '../storage/log-store.ts';
import { decodeEpochsFile, encodeEpochsFile } from './epochs-file.ts';
import type { Logger } from './replica.ts';

export interface EpochsOptions {
  readonly path: string;
  readonly genesis: Genesis;
  readonly log: LogStore;
  /** The epoch that the replica starts in. */
  readonly document: EpochDocument;
  readonly logger: Logger;
}

/** [EPO-11] What is known of the epochs up to this one; durable, as far as the log or the file knows them. */
export async function keepEpochs({ path, genesis, log, document, logger }: EpochsOptions): Promise<EpochChain> {
  const chain = (await readEpochs(path, genesis, logger)) ?? new EpochChain({ genesis, crypto: native });
  const before = chain.last.epoch;
  // The file is written behind the log, which may have ended more than one epoch since.
  while (chain.last.epoch < document.epoch) {
    const link = await linkOutOf(log, chain.last.epoch, genesis);
    if (link === null || 'refused' in chain.add(link)) {
      logger.warn(
        { epoch: chain.last.epoch, path },
        'the link out of this epoch is missing: no later proofs are served',
      );
      break;
    }
  }
  if (chain.last.epoch > before) await writeEpochs(path, chain, genesis);
  return chain;
}

/** [EPO-11] One epoch more, with the link that proves it. */
export function addEpoch(chain: EpochChain, { next, link: { certificate, ...link } }: EpochEnd, logger: Logger): void {
  assert(certificate !== null, 'the caller of a core has put its proof in');
  // Where links of earlier epochs are missing, this one proves nothing (keepEpochs has said so).
  if (!chain.append(next, { ...link, certificate }))
    logger.warn({ epoch: next.epoch }, 'this epoch is not added to those that are served');
}

async function readEpochs(path: string, genesis: Genesis, logger: Logger): Promise<EpochChain | null> {
  let bytes: Bytes;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
  const chain = decodeEpochsFile(bytes, genesis);
  if (chain instanceof EpochChain) return chain;
  logger.warn({ path, code: chain.refused, problem: chain.problem }, 'the file of epochs does not hold');
  return null;
}

/** The last block of an epoch, with its certificate and its control transaction; null: it is not here. */
async function linkOutOf(log: LogStore, epoch: Epoch, genesis: Genesis): Promise<Bytes | null> {
  const height = await lastOf(log, epoch);
  const { blocks } = await log.readDecidedRange({ from: height, to: height, bytesMax: 1 << 20 });
  const stored = blocks[0];
  if (stored === undefined || stored.certificate === null) return null;
  const parameters = storedParameters(genesis.parameters);
  const block = decodeStoredBlock(stored.bytes, { sha256: native.sha256, parameters });
  const certificate = decodeCertificate(stored.certificate);
  if (isRefusal(block) || isRefusal(certificate)) return null;
  const control = controlIn(block.bundles);
  return control === null ? null : encodeEpochLink({ headerBytes: block.headerBytes, certificate, control });
}

/** The highest block here that is of no later epoch: epochs rise with the height. */
async function lastOf(log: LogStore, epoch: Epoch): Promise<Height> {
  let [from, to]: [number, number] = [log.lowest, log.head];
  while (from < to) {
    const height = asHeight(Math.ceil((from + to) / 2));
    const { blocks } = await log.readDecidedRange({ from: height, to: height, bytesMax: 0, headersOnly: true });
    const header = blocks[0] === undefined ? undefined : decodeHeader(blocks[0].bytes.header);
    if (header === undefined || header.epoch > epoch) to = height - 1;
    else from = height;
  }
  return asHeight(from);
}

/** What is known of the epochs, durably: as it is now. */
export const writeEpochs = (path: string, chain: EpochChain, { chainId }: Genesis): Promise<void> =>
  writeWhole(path, encodeEpochsFile(chainId, chain.links));

/** Whole or as before, and durable. */
async function writeWhole(path: string, content: Bytes): Promise<void> {
  const draft = `${path}.partial`;
  const file = await open(draft, 'w', 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await syncDirectory(dirname(path));
}
