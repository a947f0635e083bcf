// A replica that does not vote: decided blocks in, what the log must remember out. It runs the same ledger as every core, so a member's core starts
// from its log as from any other; and it crosses epochs, whoever their members are.

import type { Bytes } from '../../crypto/bytes.ts';
import { equalBytes } from '../../crypto/bytes.ts';
import { assert } from '../assert.ts';
import type { Block, Sha256 } from '../block.ts';
import { blockHash, decodeHeader } from '../block.ts';
import type { Certificate } from '../certificate.ts';
import { checkpointOf } from '../checkpoints.ts';
import {
  bodyOf,
  decodeStoredBlock,
  encodeCertificate,
  encodeCheckpointCertificate,
  encodeCheckpointPlace,
  isRefusal,
} from '../codec.ts';
import { type Genesis, storedParameters } from '../genesis.ts';
import { documentIn, Ledger } from '../ledger.ts';
import type { LogRecord, RecoveredLog } from '../log.ts';
import type { CheckpointCertificate } from '../messages.ts';
import type { Hash, Height } from '../types.ts';
import { epochOf } from './begin.ts';
import { type EpochDocument, genesisEpoch, genesisOf } from './document.ts';

/** A stable checkpoint and the state at it: each chunk proved against the digest that a quorum of its epoch has signed (verify-message.ts). */
export interface CertifiedState {
  readonly certificate: CheckpointCertificate;
  readonly headerBytes: Bytes;
  /** All of them; those that are empty may be left out. */
  readonly chunks: ReadonlyMap<number, Bytes>;
}

export class Observer {
  readonly #sha256: Sha256;
  /** With the members of epoch 0. */
  readonly #genesis: Genesis;
  #ledger: Ledger;

  /** From what its log gave back; null for an empty one. Throws where that is not what was written. */
  constructor({ sha256, genesis }: { sha256: Sha256; genesis: Genesis }, log: RecoveredLog | null) {
    this.#sha256 = sha256;
    this.#genesis = genesis;
    const document = epochOf(sha256, genesis, log);
    this.#ledger = new Ledger({ sha256, genesis: genesisOf(genesis, document), epoch: document.epoch, document });
    if (log !== null) this.#restore(log);
  }

  /** The last block that was taken. */
  get height(): Height {
    return this.#ledger.height;
  }

  /** Of that block. */
  get hash(): Hash {
    return this.#ledger.head.hash;
  }

  /** The epoch of the next block. */
  get document(): EpochDocument {
    return this.#ledger.document;
  }

  #restore({ checkpoint, decided }: RecoveredLog): void {
    if (checkpoint !== null) {
      const header = decodeHeader(checkpoint.header);
      assert(header !== undefined, 'a stored header is well formed');
      this.#ledger.restore(header, blockHash(this.#sha256, checkpoint.header), checkpoint.chunks);
    }
    const context = { sha256: this.#sha256, parameters: storedParameters(this.#genesis.parameters) };
    for (const { bytes } of decided) {
      const block = decodeStoredBlock(bytes, context);
      assert(!isRefusal(block), 'a stored block decodes');
      this.#apply(block);
    }
  }

  /**
   * [EPO-17] The next block, which a certificate covers (verify-chain.ts): what to write, in one synced write. Where it ends its epoch the
   * state of the next one is among it, and `document` is the next one's from now on.
   */
  take(block: Block, certificate: Certificate | null): LogRecord[] {
    const { height, hash } = { height: block.header.height, hash: block.hash };
    this.#apply(block);
    const records: LogRecord[] = [
      { type: 'block', height, hash, bytes: { header: block.headerBytes, body: bodyOf(block.bundles) } },
      {
        type: 'decided',
        height,
        hash,
        certificate: certificate === null ? null : encodeCertificate(certificate),
        bundles: block.bundles.map(({ digest }) => digest),
      },
    ];
    const { ended } = this.#ledger;
    if (ended !== null) {
      assert(certificate !== null, 'nothing extends the block that ends an epoch, so its certificate is its own');
      this.#ledger = this.#ledger.succeed(genesisOf(this.#genesis, ended.next));
    }
    const isCheckpoint = height % this.#ledger.document.parameters.checkpointInterval === 0;
    return ended !== null || isCheckpoint ? [...records, ...checkpointOf(this.#ledger)] : records;
  }

  /**
   * [EPO-20] The state of a certified checkpoint above all that is here, of whichever epoch: what to write, in one synced write. The log starts
   * anew from it.
   */
  install({ certificate, headerBytes, chunks }: CertifiedState): LogRecord[] {
    const { height } = certificate;
    assert(height > this.height, 'a checkpoint is installed only above the head');
    const header = decodeHeader(headerBytes);
    const log = chunks.get(0);
    assert(header !== undefined && log !== undefined, 'a certified checkpoint has its header and its log chunk');
    const document = documentIn(this.#sha256, log) ?? genesisEpoch(this.#sha256, this.#genesis);
    assert(document.epoch === certificate.epoch, 'a state is of the epoch whose members have signed for it');
    this.#ledger = new Ledger({
      sha256: this.#sha256,
      genesis: genesisOf(this.#genesis, document),
      epoch: document.epoch,
      document,
    });
    this.#ledger.restore(header, certificate.hash, chunks);
    assert(equalBytes(this.#ledger.stateDigest, certificate.stateDigest), 'proved chunks make up the signed digest');
    const records: LogRecord[] = [];
    for (const [chunk, bytes] of chunks)
      if (bytes.length > 0) records.push({ type: 'state-chunk', height, chunk, bytes });
    records.push({
      type: 'reset-to-checkpoint',
      height,
      header: headerBytes,
      place: encodeCheckpointPlace(certificate),
      certificate: encodeCheckpointCertificate(certificate),
    });
    return records;
  }

  #apply(block: Block): void {
    const extension = this.#ledger.extend([], block);
    assert(!('refused' in extension), () => `a certified block is valid: ${JSON.stringify(extension)}`);
    this.#ledger.apply(extension);
  }
}
