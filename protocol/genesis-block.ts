// The block at height 0, which everyone computes from the genesis document: what the block at height 1 names as its parent.

import { merkleRoot } from '../crypto/merkle.ts';
import type { Block, BlockHeader, Sha256 } from './block.ts';
import { blockHash, bodyHash, encodeHeader } from './block.ts';
import type { Genesis } from './genesis.ts';
import type { Hash } from './types.ts';
import { asEpoch, asHash, asHeight, asReplicaId } from './types.ts';

/** [BLK-2] Height 0, computed by everyone from the genesis document; nobody signs it. */
export function genesisBlock({
  sha256,
  genesis,
  memberSetHash: members,
}: {
  sha256: Sha256;
  genesis: Genesis;
  memberSetHash: Hash;
}): Block {
  const zero = asHash(new Uint8Array(32));
  const header: BlockHeader = {
    chainId: genesis.chainId,
    epoch: asEpoch(0),
    height: asHeight(0),
    parent: zero,
    time: genesis.createdAt,
    proposer: asReplicaId(0),
    transactionRoot: asHash(merkleRoot(sha256, [])),
    logRoot: asHash(merkleRoot(sha256, [])),
    transactionTotal: 0,
    memberSetHash: members,
    bodyHash: bodyHash(sha256, []),
    bundleCount: 0,
    transactionCount: 0,
    payloadBytes: 0,
  };
  const headerBytes = encodeHeader(header);
  return { header, headerBytes, hash: blockHash(sha256, headerBytes), bundles: [] };
}
