// Clients that order without a pause while a test does other things to the network, and what they were told, held against the chain at the end.

import type { Client, Receipt } from '../client/index.ts';

/** The word that their transactions begin with: others may order, too. */
const WORD = 'transaction ';
const loopsMax = 8;
const pauseMs = 30;

export class SteadyLoad {
  /** By transaction. */
  readonly receipts = new Map<string, Receipt>();
  readonly #ended: Promise<unknown>;
  #sent = 0;
  #goesOn = true;

  constructor(clients: readonly Client[]) {
    this.#ended = Promise.all(Array.from({ length: loopsMax }, (_, i) => this.#submit(clients[i % clients.length]!)));
    // Where the test ends early, so does this.
    this.#ended.catch(() => undefined);
  }

  async #submit(client: Client): Promise<void> {
    while (this.#goesOn) {
      const text = `${WORD}${++this.#sent}`;
      this.receipts.set(text, await client.submit(Buffer.from(text)));
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** The highest height that anybody was told. */
  get height(): number {
    return Math.max(...[...this.receipts.values()].map(({ height }) => height));
  }

  /** Resolves when all that was sent is acknowledged. @throws what a client was refused with */
  async end(): Promise<void> {
    this.#goesOn = false;
    await this.#ended;
  }

  /** After the end. What is wrong with the chain up to the last receipt, by what this client follows: nothing is lost or doubled, everything stands where its receipt says. */
  async wrongs(reader: Client): Promise<string[]> {
    const wrongs: string[] = [];
    const found = new Map<string, number>();
    for await (const { header, bundles } of reader.follow({ from: 1, to: this.height }))
      for (const { transactions } of bundles ?? [])
        for (const transaction of transactions) {
          const text = Buffer.from(transaction).toString();
          if (!text.startsWith(WORD)) continue;
          if (found.has(text)) wrongs.push(`${text} stands twice`);
          found.set(text, header.height);
        }
    for (const [text, { height }] of this.receipts)
      if (found.get(text) !== height)
        wrongs.push(`${text}: at ${height} by its receipt, at ${found.get(text)} by the chain`);
    if (this.receipts.size !== this.#sent) wrongs.push(`${this.#sent} sent, ${this.receipts.size} acknowledged`);
    return wrongs;
  }
}
