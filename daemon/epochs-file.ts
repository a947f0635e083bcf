// The chain of epochs in a file: what a replica keeps and serves (`GET /v1/epochs`), and every verifier reads beside the genesis document. 16 bytes
// `synod-v1:epochs` and a zero, the chain id, then for each link its length as 4 bytes big-endian and its bytes (docs/wire.md). Nothing in it is
// believed: each link is checked with the epoch before.

import { type Bytes, concat, equalBytes } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import { EPOCH_LINK_BYTES_MAX } from '../protocol/epoch/chain.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { domainTag, LayoutWriter } from '../protocol/layout.ts';
import { EpochChain } from '../protocol/verify.ts';

const tag = domainTag('synod-v1:epochs');
const PREFIX_BYTES = 16 + 32;
/** Some thousand epochs of a large network. */
export const EPOCHS_FILE_BYTES_MAX = 64 << 20;

export function encodeEpochsFile(chainId: Bytes, links: readonly Bytes[]): Bytes {
  return concat(tag, chainId, ...links.flatMap((link) => [new LayoutWriter(4).u32(link.length).done(), link]));
}

export type EpochsFileProblem = { readonly refused: string; readonly problem: string };

/** [EPO-11] The epochs that these bytes prove, or what is wrong with them. */
export function decodeEpochsFile(bytes: Bytes, genesis: Genesis): EpochChain | EpochsFileProblem {
  const malformed = (problem: string): EpochsFileProblem => ({ refused: 'epochs-file-malformed', problem });
  if (bytes.length < PREFIX_BYTES || !equalBytes(bytes.subarray(0, 16), tag)) return malformed('not a file of epochs');
  if (!equalBytes(bytes.subarray(16, PREFIX_BYTES), genesis.chainId))
    return { refused: 'epochs-file-other-chain', problem: 'of another chain than the genesis document' };
  const chain = new EpochChain({ genesis, crypto: native });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = PREFIX_BYTES; at < bytes.length; ) {
    if (at + 4 > bytes.length) return malformed('it ends in the middle of a record');
    const length = view.getUint32(at);
    at += 4;
    if (length > EPOCH_LINK_BYTES_MAX || at + length > bytes.length)
      return malformed('it ends in the middle of a record');
    const known = chain.add(bytes.subarray(at, at + length));
    if ('refused' in known) return { refused: known.refused, problem: `epoch ${chain.last.epoch + 1}: ${known.field}` };
    at += length;
  }
  return chain;
}
