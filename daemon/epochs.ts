// The epochs of a replica on disk: which one it starts in, and the links that prove it. The log alone says which (EPO-12); the file of links is for
// whoever asks, and is completed from the log at each start.

import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Bytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { assert } from '../protocol/assert.ts';
import { blockHash } from '../protocol/block.ts';
import { decodeCertificate, decodeStoredBlock, isRefusal } from '../protocol/codec.ts';
import type { EpochEnd } from '../protocol/core.ts';
import { controlIn, encodeEpochLink } from '../protocol/epoch/chain.ts';
import type { EpochDocument } from '../protocol/epoch/document.ts';
import { type Genesis, storedParameters } from '../protocol/genesis.ts';
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
  if (chain.last.epoch + 1 === document.epoch) {
    const link = await linkIn(log, document, genesis);
    const known = link === null ? null : chain.add(link);
    if (known === null || 'refused' in known)
      logger.warn(
        { epoch: document.epoch },
        'the block that began this epoch is not in the log: its proof is not served',
      );
    else await writeEpochs(path, chain, genesis);
  } else if (chain.last.epoch < document.epoch)
    logger.warn({ epoch: document.epoch, path }, 'links of earlier epochs are missing: their proofs are not served');
  return chain;
}

/** [EPO-11] One epoch more, with the link that proves it. */
export function addEpoch(chain: EpochChain, { certificate, ...link }: EpochEnd['link'], logger: Logger): void {
  assert(certificate !== null, 'the block that ends an epoch has its own proof');
  const known = chain.add(encodeEpochLink({ ...link, certificate }));
  // Where links of earlier epochs are missing, this one proves nothing (keepEpochs has said so).
  if ('refused' in known) logger.warn({ code: known.refused }, 'this epoch is not added to those that are served');
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

/** The last block of the epoch before, with its certificate and its control transaction; null: it is not here. */
async function linkIn(log: LogStore, { start }: EpochDocument, genesis: Genesis): Promise<Bytes | null> {
  const { blocks } = await log.readDecidedRange({ from: start.height, to: start.height, bytesMax: 1 << 20 });
  const stored = blocks[0];
  if (stored === undefined || stored.certificate === null) return null;
  const parameters = storedParameters(genesis.parameters);
  const block = decodeStoredBlock(stored.bytes, { sha256: native.sha256, parameters });
  const certificate = decodeCertificate(stored.certificate);
  if (isRefusal(block) || isRefusal(certificate)) return null;
  const control = controlIn(block.bundles);
  if (control === null || blockHash(native.sha256, block.headerBytes).some((byte, i) => byte !== start.hash[i]))
    return null;
  return encodeEpochLink({ headerBytes: block.headerBytes, certificate, control });
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
