// The operators of a simulated chain: changes of its epoch, signed by all of them or by some, each change in a session of its own.

import { type Bytes, toHex } from '../crypto/bytes.ts';
import { native } from '../crypto/native.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { asHash, asHeight } from '../protocol/types.ts';
import {
  type Change,
  controlSigningBytes,
  type EpochDocument,
  encodeControl,
  encodeControlBody,
  joinSigningBytes,
} from '../protocol/verify.ts';
import { SimClient } from './clients.ts';
import type { Cluster } from './cluster.ts';
import { keyPair, standInKey } from './signatures.ts';

export class Operators {
  readonly #cluster: Cluster;
  readonly #keyOf: (name: string) => SimulationKey;
  /** The secret halves, by public key: those that the nodes begin with, and those that came since. */
  readonly #operatorKeys: Map<string, SimulationKey>;
  #made = 0;

  constructor(cluster: Cluster, realSignatures = false) {
    this.#cluster = cluster;
    this.#keyOf = realSignatures ? keyPair : standInKey;
    this.#operatorKeys = new Map(cluster.operators.map((key) => [toHex(key.publicKey), key]));
  }

  /** The latest epoch that any replica has begun. */
  get epoch(): EpochDocument {
    return this.#cluster.nodes.map(({ epoch }) => epoch).reduce((a, b) => (b.epoch > a.epoch ? b : a));
  }

  /** The nodes that are members of it, by number. */
  get members(): number[] {
    return this.epoch.members.map(({ name }) => Number(name.replace('node-', '')));
  }

  /** A bundle that ends this epoch. @param by nodes whose operators sign; without: all members' */
  bundle(
    changes: readonly Change[],
    joining: readonly SimulationKey[] = [],
    by: readonly number[] = this.members,
  ): SignedBundle {
    const { epoch } = this;
    const payload = encodeControlBody({
      chainId: epoch.chainId,
      epoch: epoch.epoch,
      epochHash: epoch.hash,
      validUntil: asHeight(1_000_000),
      changes,
    });
    const digest = asHash(native.sha256(payload));
    const control = encodeControl({
      payload,
      signatures: epoch.members.flatMap(({ name, operatorKey }) => {
        if (operatorKey === undefined || !by.includes(Number(name.replace('node-', '')))) return [];
        const key = this.#operatorKeys.get(toHex(operatorKey))!; // every operator key of an epoch was made here, or with the cluster
        return [{ operatorKey, signature: key.sign(controlSigningBytes(epoch.chainId, digest)) }];
      }),
      joins: joining.map((key) => {
        const height = asHeight(this.#cluster.chain.size);
        return {
          publicKey: key.publicKey,
          height,
          signature: key.sign(joinSigningBytes(epoch.chainId, digest, height)),
        };
      }),
    });
    this.#made += 1;
    const key = this.#keyOf('changer');
    return new SimClient(this.#cluster.genesis, 'changer', this.#made, key).bundle([control], {
      validUntil: this.#cluster.chain.size + 50_000,
    });
  }

  /** A key that nobody has used, for this member. */
  newKey(name: string): SimulationKey {
    this.#made += 1;
    const key = this.#keyOf(`${name}-${this.#made}`);
    this.#cluster.bringKey(key);
    return key;
  }

  /** Its public half; the secret one signs as soon as an epoch names it. */
  newOperatorKey(name: string): Bytes {
    this.#made += 1;
    const key = this.#keyOf(`${name}-operator-${this.#made}`);
    this.#operatorKeys.set(toHex(key.publicKey), key);
    return key.publicKey;
  }

  add(node: number, by?: readonly number[]): SignedBundle {
    const key = this.#cluster.keys[node]!;
    const operatorKey = this.#cluster.operators[node]!.publicKey;
    const name = `node-${node}`;
    // Who was a member before comes back under a key that nobody has used: the old one has votes of an earlier life.
    return this.bundle(
      [{ change: 'add-member', name, publicKey: key.publicKey, operatorKey, address: null }],
      [key],
      by,
    );
  }

  remove(node: number): SignedBundle {
    return this.bundle([{ change: 'remove-member', name: `node-${node}` }]);
  }

  rekey(member: number, by?: readonly number[]): SignedBundle {
    const name = `node-${member}`;
    const key = this.newKey(name);
    return this.bundle([{ change: 'replace-replica-key', name, publicKey: key.publicKey }], [key], by);
  }
}
