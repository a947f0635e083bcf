// Clients: bundles in sequence, sent again and again, to whoever is up, until somebody shows that they are decided.

import type { Bytes } from '../crypto/bytes.ts';
import { ascii, toHex } from '../crypto/bytes.ts';
import { leafHash } from '../crypto/merkle.ts';
import { native } from '../crypto/native.ts';
import type { SimulationKey } from '../keys/simulation-key.ts';
import type { SignedBundle } from '../protocol/bundle.ts';
import { bundleSigningBytes } from '../protocol/bundle.ts';
import { encodeBundlePayload } from '../protocol/codec.ts';
import type { Genesis } from '../protocol/genesis.ts';
import { asHash, asHeight } from '../protocol/types.ts';
import type { Dice } from './random.ts';
import { keyPair } from './signatures.ts';

/** A client's bundles, in sequence. */
export class SimClient {
  readonly key: SimulationKey;
  readonly #genesis: Genesis;
  readonly #session: number;
  #sequence = 0;

  constructor(genesis: Genesis, name: string, session = 1, key: SimulationKey = keyPair(name)) {
    this.#genesis = genesis;
    this.key = key;
    this.#session = session;
  }

  /** The next one of the session, or the one of this sequence. */
  bundle(
    transactions: readonly Bytes[],
    { validUntil = 1_000, sequence }: { validUntil?: number; sequence?: number } = {},
  ): SignedBundle {
    const bundle = {
      client: this.key.publicKey,
      session: this.#session,
      sequence: sequence ?? ++this.#sequence,
      validUntil: asHeight(validUntil),
      transactions,
    };
    const payload = encodeBundlePayload(bundle);
    const digest = asHash(native.sha256(payload));
    const signature = this.key.sign(bundleSigningBytes(this.#genesis.chainId, digest));
    return { ...bundle, payload, digest, signature, leaves: transactions.map((tx) => leafHash(native.sha256, tx)) };
  }
}

/** What clients ask of the cluster. */
export interface Service {
  readonly genesis: Genesis;
  after(ms: number, run: () => void): void;
  live(): number[];
  submit(to: number, bundle: SignedBundle): void;
  height(id: number): number;
  /** Where the shared chain has this bundle; undefined: nowhere yet. */
  placeOf(digest: string): number | undefined;
  acknowledge(digest: string, height: number): void;
}

export interface Habits {
  readonly clients: number;
  /** Between two looks at what became of a bundle, on average. */
  readonly everyMs: number;
  /** Bundles of one client under way at once. */
  readonly ahead: number;
  /** Bytes of a transaction, at most. */
  readonly bytesMax: number;
  /** How far above the height at hand a bundle's valid-until lies; one that expires is made anew. */
  readonly validFor: number;
  /** How often a client sends an old bundle again. */
  readonly replay: number;
  /** Sessions of one client, one after the other: this many bundles in each. */
  readonly sessionBundles: number;
}

interface Open {
  bundle: SignedBundle;
  digest: string;
  sequence: number;
  readonly transactions: readonly Bytes[];
}

/** Decided bundles that a client remembers, to say them again. */
const OLD_MAX = 32;

/** One client that never gives up. Everything it has sent is ordered in the end, or was replaced by what is. */
export class PatientClient {
  readonly #service: Service;
  readonly #dice: Dice;
  readonly #habits: Habits;
  readonly #name: string;
  readonly #key: SimulationKey;
  #client: SimClient;
  #session = 1;
  #sequence = 0;
  #count = 0;
  #open: Open[] = [];
  readonly #old: SignedBundle[] = [];
  #stopped = false;

  constructor(
    service: Service,
    { name, key, dice, habits }: { name: string; key: SimulationKey; dice: Dice; habits: Habits },
  ) {
    this.#service = service;
    this.#name = name;
    this.#key = key;
    this.#dice = dice;
    this.#habits = habits;
    this.#client = new SimClient(service.genesis, name, this.#session, key);
    service.after(dice.between(0, habits.everyMs), () => this.#look());
  }

  /** Nothing new from now on; what is under way is still asked for. */
  stop(): void {
    this.#stopped = true;
  }

  /** Bundles that no replica has shown to be decided. */
  get open(): number {
    return this.#open.length;
  }

  #look(): void {
    const live = this.#service.live();
    this.#settle(live);
    if (!this.#stopped) while (this.#open.length < this.#habits.ahead && this.#begin()) {}
    const asked = live.length === 0 ? undefined : this.#dice.pick(live);
    if (asked !== undefined) for (const { bundle } of this.#open) this.#service.submit(asked, bundle);
    if (asked !== undefined && this.#old.length > 0 && this.#dice.chance(this.#habits.replay))
      this.#service.submit(asked, this.#dice.pick(this.#old));
    if (this.#stopped && this.#open.length === 0) return;
    this.#service.after(1 + this.#dice.exponential(this.#habits.everyMs), () => this.#look());
  }

  /** What a replica that is up has decided is acknowledged. */
  #settle(live: readonly number[]): void {
    const height = Math.max(0, ...live.map((id) => this.#service.height(id)));
    this.#open = this.#open.filter((open) => {
      const at = this.#service.placeOf(open.digest);
      if (at === undefined || at > height) return true;
      this.#service.acknowledge(open.digest, at);
      this.#old.push(open.bundle);
      if (this.#old.length > OLD_MAX) this.#old.splice(this.#dice.between(0, OLD_MAX - 1), 1);
      return false;
    });
    const waiting = this.#open.filter(({ digest }) => this.#service.placeOf(digest) === undefined);
    if (waiting.every(({ bundle }) => bundle.validUntil > height)) return;
    // One of them can stand nowhere any more, so none that follows it in its session can (SES-1): all of them again, in a new one.
    this.#beginSession();
    for (const open of waiting) {
      open.sequence = ++this.#sequence;
      open.bundle = this.#bundle(open.sequence, open.transactions, height);
      open.digest = toHex(open.bundle.digest);
    }
  }

  #beginSession(): void {
    this.#session += 1;
    this.#sequence = 0;
    this.#client = new SimClient(this.#service.genesis, this.#name, this.#session, this.#key);
  }

  /** False: the session is full, and the next one begins when this one is done. */
  #begin(): boolean {
    if (this.#sequence >= this.#habits.sessionBundles) {
      if (this.#open.length > 0) return false;
      this.#beginSession();
    }
    this.#sequence += 1;
    this.#count += 1;
    const size = this.#dice.between(1, this.#habits.bytesMax);
    const transactions = [ascii(`${this.#name} ${this.#count} `.padEnd(size, '.'))];
    const height = Math.max(0, ...this.#service.live().map((id) => this.#service.height(id)));
    const bundle = this.#bundle(this.#sequence, transactions, height);
    this.#open.push({ bundle, digest: toHex(bundle.digest), sequence: this.#sequence, transactions });
    return true;
  }

  #bundle(sequence: number, transactions: readonly Bytes[], height: number): SignedBundle {
    return this.#client.bundle(transactions, { sequence, validUntil: height + this.#habits.validFor });
  }
}
