// A chain with operators, for the tests of epochs: its keys, its control transactions, and blocks that its members certify.

import { type Bytes, toHex } from '../crypto/bytes.ts';
import { inclusionProof, leafHash } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import { type SimulationKey, simulationKey } from '../keys/simulation-key.ts';
import type { Block } from '../protocol/block.ts';
import { bundleSigningBytes, type SignedBundle } from '../protocol/bundle.ts';
import { type Certificate, voteSigningBytes } from '../protocol/certificate.ts';
import { decodeBundle, encodeBundlePayload } from '../protocol/codec.ts';
import type { StateHere } from '../protocol/door.ts';
import type { CertifiedState } from '../protocol/epoch/observer.ts';
import { type Genesis, type GenesisDocument, parseGenesis } from '../protocol/genesis.ts';
import { Ledger, STATE_CHUNKS } from '../protocol/ledger.ts';
import { quorumsOf } from '../protocol/modes.ts';
import type { Height } from '../protocol/types.ts';
import { asEpoch, asHash, asHeight, asMillis, asReplicaId, asView } from '../protocol/types.ts';
import {
  type Change,
  type Control,
  type ControlBody,
  checkpointSigningBytes,
  controlSigningBytes,
  decodeControl,
  type EpochDocument,
  encodeControl,
  encodeControlBody,
  encodeEpochLink,
  genesisOf,
  joinSigningBytes,
} from '../protocol/verify.ts';

export const { sha256 } = native;
export const start = 1_700_000_000_000;

export const replicaKey = (name: string): SimulationKey => simulationKey(`replica ${name}`);
export const operatorKey = (name: string): SimulationKey => simulationKey(`operator ${name}`);

/** A genesis document of these members, each with an operator. */
export function genesisWith(
  names: readonly string[],
  more: Partial<Pick<GenesisDocument, 'parameters' | 'policy'>> = {},
): { readonly genesis: Genesis; readonly document: Uint8Array } {
  const text = JSON.stringify({
    synod: 1,
    name: 'epochs',
    protocol: 'pbft',
    createdAt: start,
    members: names.map((name, i) => ({
      name,
      publicKey: toHex(replicaKey(name).publicKey),
      operatorKey: toHex(operatorKey(name).publicKey),
      address: `ws://10.0.0.${i + 1}:7000`,
    })),
    ...more,
  } satisfies GenesisDocument);
  const document = Buffer.from(text);
  const genesis = parseGenesis(native, document, text);
  if ('refused' in genesis) throw new Error(`${genesis.field}: ${genesis.problem}`);
  return { genesis, document };
}

export interface Draft {
  readonly changes: readonly Change[];
  /** Names of operators. */
  readonly by: readonly string[];
  /** Replica keys that sign for it, by name, at these heights. */
  readonly joins?: Readonly<Record<string, number>>;
  readonly body?: Partial<ControlBody>;
}

/** The bytes of a control transaction for this epoch. */
export function controlFor(epoch: EpochDocument, { changes, by, joins = {}, body = {} }: Draft): Bytes {
  const payload = encodeControlBody({
    chainId: epoch.chainId,
    epoch: epoch.epoch,
    epochHash: epoch.hash,
    validUntil: asHeight(1_000_000),
    changes,
    ...body,
  });
  const digest = asHash(sha256(payload));
  return encodeControl({
    payload,
    signatures: by.map((name) => {
      const key = operatorKey(name);
      return { operatorKey: key.publicKey, signature: key.sign(controlSigningBytes(epoch.chainId, digest)) };
    }),
    joins: Object.entries(joins).map(([name, at]) => {
      const height = asHeight(at);
      const key = replicaKey(name);
      return { publicKey: key.publicKey, height, signature: key.sign(joinSigningBytes(epoch.chainId, digest, height)) };
    }),
  });
}

export function opened(transaction: Bytes): Control {
  const control = decodeControl(sha256, transaction);
  if ('refused' in control) throw new Error(`${control.refused} ${control.field}`);
  return control;
}

export const adding = (name: string): Change => ({
  change: 'add-member',
  name,
  publicKey: replicaKey(name).publicKey,
  operatorKey: operatorKey(name).publicKey,
  address: null,
});

/** One history, decided by whoever is a member at the time; every block with a certificate of its own. */
export class EpochWorld {
  readonly genesis: Genesis;
  readonly document: Uint8Array;
  readonly blocks: { readonly block: Block; readonly certificate: Certificate; readonly epoch: EpochDocument }[] = [];
  readonly #client = simulationKey('client alice');
  /** Every epoch so far. */
  readonly documents: EpochDocument[] = [];
  /** What nodes do with a bundle that is submitted to them (epoch-nodes.ts). */
  onBundle: ((bundle: SignedBundle) => void) | undefined;
  ledger: Ledger;
  #session = 0;

  constructor(names: readonly string[] = ['a', 'b', 'c', 'd'], more: Parameters<typeof genesisWith>[1] = {}) {
    const { genesis, document } = genesisWith(names, more);
    this.genesis = genesis;
    this.document = document;
    this.ledger = new Ledger({ sha256, genesis, epoch: asEpoch(0) });
    this.documents.push(this.epoch);
  }

  get epoch(): EpochDocument {
    return this.ledger.document;
  }

  get height(): Height {
    return this.ledger.height;
  }

  /** A bundle in a session of its own. */
  bundle(...transactions: readonly (Bytes | string)[]): SignedBundle {
    this.#session += 1;
    const payload = encodeBundlePayload({
      client: this.#client.publicKey,
      session: this.#session,
      sequence: 1,
      validUntil: asHeight(this.height + 60),
      transactions: transactions.map((each) => (typeof each === 'string' ? Buffer.from(each) : each)),
    });
    const signature = this.#client.sign(bundleSigningBytes(this.genesis.chainId, asHash(sha256(payload))));
    const context = { sha256, parameters: this.epoch.parameters };
    const bundle = decodeBundle({ payload, signature }, context);
    if ('refused' in bundle) throw new Error(`${bundle.refused} ${bundle.field}`);
    return bundle;
  }

  /** Decides a block of these bundles; where it ends the epoch, the next one begins. */
  decide(...bundles: readonly SignedBundle[]): Block {
    const extension = this.ledger.build([], {
      bundles,
      time: asMillis(start + this.height + 1),
      proposer: asReplicaId(0),
    });
    if (extension === null) throw new Error('none of these bundles may stand there');
    const again = this.ledger.extend([], extension.block);
    if ('refused' in again) throw new Error(again.refused);
    const { block } = extension;
    this.blocks.push({ block, certificate: this.certify(block), epoch: this.epoch });
    this.ledger.apply(again);
    if (this.ledger.ended === null) return block;
    this.ledger = this.ledger.succeed(genesisOf(this.genesis, this.ledger.ended.next));
    this.documents.push(this.epoch);
    return block;
  }

  /** The newest checkpoint, signed by a quorum of its epoch; with its state. */
  state: CertifiedState | null = null;
  readonly #chunks = new Map<number, Bytes>();

  /** At the head, as at the start of an epoch or at an interval. */
  checkpoint(): CertifiedState {
    const { document, head, height } = this.ledger;
    const { stateDigest, logRoot, changed } = this.ledger.checkpoint();
    for (const { chunk, bytes } of changed) this.#chunks.set(chunk, bytes);
    const place = {
      epoch: document.epoch,
      height,
      hash: head.hash,
      logRoot,
      memberSetHash: document.hash,
      stateDigest,
    };
    const message = checkpointSigningBytes(document.chainId, place);
    const { quorum } = quorumsOf(document);
    const signatures = document.members.slice(0, quorum).map(({ id, publicKey }) => ({
      replica: id,
      signature: signerOf(publicKey).sign(message),
    }));
    const { headerBytes } = this.blocks.at(-1)!.block;
    this.state = { certificate: { ...place, signatures }, headerBytes, chunks: new Map(this.#chunks) };
    return this.state;
  }

  /** As a node serves it. */
  chunk({ height, chunk }: Pick<StateHere, 'height' | 'chunk'>): StateHere {
    const { state } = this;
    if (state === null || state.certificate.height !== height)
      return { kind: 'state-here', height, chunk, found: null };
    const bytesAt = (at: number) => state.chunks.get(at) ?? new Uint8Array(0);
    const leaves = Array.from({ length: STATE_CHUNKS }, (_, at) => leafHash(sha256, bytesAt(at)));
    const proof = inclusionProof(sha256, leaves, chunk);
    return { kind: 'state-here', height, chunk, found: { bytes: bytesAt(chunk), proof } };
  }

  /** Ordinary blocks. */
  idle(count: number): this {
    for (let i = 0; i < count; i++) this.decide(this.bundle(`transaction ${this.height + 1}`));
    return this;
  }

  /** Ends the epoch with this control transaction. */
  end(draft: Draft): EpochDocument {
    this.decide(this.bundle(controlFor(this.epoch, draft)));
    return this.epoch;
  }

  /** By the first q members of the epoch at hand. */
  certify({ header, hash }: Block, epoch: EpochDocument = this.epoch, view = 0): Certificate {
    const place = { phase: 'commit', epoch: epoch.epoch, view: asView(view), height: header.height, hash } as const;
    const message = voteSigningBytes(epoch.chainId, place);
    const { quorum } = quorumsOf(epoch);
    return {
      ...place,
      signatures: epoch.members.slice(0, quorum).map(({ id, publicKey }) => ({
        replica: id,
        signature: signerOf(publicKey).sign(message),
      })),
    };
  }

  /** The links of every epoch that has ended, as bytes. */
  get links(): Bytes[] {
    return this.blocks.flatMap(({ block, certificate }) => {
      const control = block.bundles[0]?.transactions[0];
      const isEnd =
        control !== undefined && Buffer.from(control).subarray(0, 16).toString('latin1') === 'synod-v1:control';
      return isEnd ? [encodeEpochLink({ headerBytes: block.headerBytes, certificate, control })] : [];
    });
  }
}

const known = new Map<string, SimulationKey>();
for (const name of [...'abcdefghijklmnop'].flatMap((letter) => [letter, `${letter}2`, `${letter}3`]))
  known.set(toHex(replicaKey(name).publicKey), replicaKey(name));

/** The secret half of a replica's key: of the names a to p, with 2 and 3 behind them for those that come after. */
export function signerOf(publicKey: Bytes): SimulationKey {
  const key = known.get(toHex(publicKey));
  if (key === undefined) throw new Error('a key of no name');
  return key;
}
