// Clients that submit without end. Every transaction says whose it is and which: `client.session.number`, then padding; so each can
// be looked for in the chain, and the order of a session checked.

import { type Client, ClientError, type ClientOptions, connect, type Receipt } from '../../client/index.ts';
import type { Network } from '../../daemon/cli/network.ts';
import { SecretKey } from '../../keys/keypair.ts';
import { pause, settleMsMax, within } from './stage.ts';

export interface Acknowledged {
  /** As `textOf` gives it. */
  readonly text: string;
  readonly height: number;
  readonly index: number;
}

const outstandingMax = 150;
const receiptsKeptMax = 400;
const bytesMax = 3_000;

/** `bundles`: explicit sessions, whole bundles. `stream`: one by one, bundled by the SDK. `restless`: leaves in the middle of it all. */
export type Habit = 'bundles' | 'stream' | 'restless';

export class Submitter {
  readonly name: string;
  readonly habit: Habit;
  readonly acknowledged: Acknowledged[] = [];
  /** A sample, for the proofs. */
  readonly receipts: Receipt[] = [];
  /** Without an answer when their client left: they may stand in the chain, once. */
  readonly left = new Set<string>();
  readonly refusals: string[] = [];
  lastAt = performance.now();
  /** Between two acknowledgements while something was outstanding. */
  longestGapMs = 0;
  readonly #network: Network;
  readonly #random: () => number;
  readonly #paceMs: number;
  readonly #key = SecretKey.generate();
  #client: Client | null = null;
  #session = 0;
  #number = 0;
  readonly #outstanding = new Set<string>();
  #stopping = false;
  #work: Promise<void> | null = null;

  constructor(network: Network, options: { name: string; habit: Habit; random: () => number; paceMs: number }) {
    this.name = options.name;
    this.habit = options.habit;
    this.#network = network;
    this.#random = options.random;
    this.#paceMs = options.paceMs;
  }

  async start(): Promise<void> {
    await this.#connect();
    this.#work = this.#submitOn();
    this.#work.catch((error: unknown) => this.refusals.push(`${this.name}: ${String(error)}`));
  }

  /** Resolves when all that was submitted until now is acknowledged. */
  get outstanding(): ReadonlySet<string> {
    return this.#outstanding;
  }

  /** Submits no more, waits for the last answer, and goes. */
  async finish(): Promise<void> {
    this.#stopping = true;
    await this.#work;
    const all = async () => {
      while (this.#outstanding.size > 0) await pause(20);
    };
    await within(settleMsMax, all(), `${this.name}: ${this.#outstanding.size} answers missing`);
    await this.close();
  }

  async close(): Promise<void> {
    this.#stopping = true;
    await this.#client?.close();
  }

  async #connect(): Promise<void> {
    this.#session += 1;
    this.#number = 0;
    const options: ClientOptions = {
      connectTimeoutMs: settleMsMax,
      // Back soon: the test is about replicas, and what a client waits for is not their delay.
      reconnectMsMax: 500,
      ...(this.habit === 'stream' ? {} : { session: { id: this.#session, firstSequence: 1 } }),
    };
    const { genesis, replicas } = this.#network;
    this.#client = await connect({
      genesis,
      replicas: replicas.map(({ name, url }) => ({ name, url })),
      key: this.#key,
      options,
    });
  }

  async #submitOn(): Promise<void> {
    while (!this.#stopping) {
      if (this.#outstanding.size < outstandingMax) {
        if (this.habit === 'stream') this.#submitOne();
        else this.#submitBundle(1 + Math.floor(this.#random() * 6));
      }
      await pause(this.#paceMs * (0.5 + this.#random()));
      if (this.habit === 'restless' && this.#random() < 0.01) await this.#leave();
    }
  }

  async #leave(): Promise<void> {
    await this.#client?.close();
    // The rejections come in the microtasks after it.
    await pause(0);
    await this.#connect();
  }

  #next(): { readonly text: string; readonly bytes: Buffer } {
    this.#number += 1;
    const text = `${this.name}.${this.#session}.${this.#number}`;
    const bytes = Buffer.alloc(text.length + 1 + Math.floor(this.#random() ** 6 * bytesMax), '|');
    bytes.write(text);
    this.#outstanding.add(text);
    return { text, bytes };
  }

  #submitOne(): void {
    const { text, bytes } = this.#next();
    this.#client?.submit(bytes).then(
      (receipt) => this.#acknowledge(text, receipt),
      (error: unknown) => this.#refused([text], error),
    );
  }

  #submitBundle(count: number): void {
    const all = Array.from({ length: count }, () => this.#next());
    this.#client?.submitBundle(all.map(({ bytes }) => bytes)).then(
      (receipt) => {
        for (const [place, { text }] of all.entries()) this.#acknowledge(text, receipt.receipt(place));
      },
      (error: unknown) =>
        this.#refused(
          all.map(({ text }) => text),
          error,
        ),
    );
  }

  #acknowledge(text: string, receipt: Receipt): void {
    const now = performance.now();
    this.longestGapMs = Math.max(this.longestGapMs, now - this.lastAt);
    this.lastAt = now;
    this.#outstanding.delete(text);
    const { height, index } = receipt;
    this.acknowledged.push({ text, height, index });
    // A reservoir: each has the same chance to be kept, however many there will be.
    const place = Math.floor(this.#random() * this.acknowledged.length);
    if (this.receipts.length < receiptsKeptMax) this.receipts.push(receipt);
    else if (place < receiptsKeptMax) this.receipts[place] = receipt;
  }

  #refused(texts: readonly string[], error: unknown): void {
    for (const text of texts) {
      this.#outstanding.delete(text);
      this.left.add(text);
    }
    const isOurs = error instanceof ClientError && error.code === 'closed';
    // A network that only stops and starts has no reason to refuse anything.
    if (!isOurs || this.habit !== 'restless') this.refusals.push(`${texts[0]}: ${String(error)}`);
  }
}

export const textOf = (transaction: Uint8Array): string => {
  const text = Buffer.from(transaction.buffer, transaction.byteOffset, Math.min(64, transaction.length)).toString();
  return text.slice(0, text.indexOf('|'));
};

/** Session and number of a transaction, and whose. */
export function readText(text: string): { readonly stream: string; readonly number: number } {
  const at = text.lastIndexOf('.');
  return { stream: text.slice(0, at), number: Number(text.slice(at + 1)) };
}
