// `synod submit`: transactions from arguments, files or standard input into the order; waits for the proof of each.

import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { Command, Option } from 'commander';
import type { Client, Receipt } from '../../client/index.ts';
import { type Bytes, fromHex, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { withClient, within } from './clients.ts';
import { Complaint, EXIT, usageError } from './errors.ts';
import { openKeyFile } from './key-files.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { collected, duration } from './options.ts';
import { note, writeLine } from './output.ts';

interface Options extends NetworkOptions {
  readonly file?: readonly string[];
  readonly lines?: true;
  readonly hex?: true;
  readonly key?: string;
  readonly passphraseFile?: string;
  readonly receipt?: string;
  readonly wait: 'accepted' | 'committed';
  readonly timeout: number;
  readonly json?: true;
}

/** Sent and not yet answered: what an endless standard input may make us hold. */
const unansweredMax = 8192;

export function submitCommand(): Command {
  const command = new Command('submit')
    .description('put transactions into the order')
    .argument('[transaction...]', 'each argument is one transaction (UTF-8, or --hex)')
    .option('--file <file>', 'this whole file as one transaction; may be repeated', collected)
    .option('--lines', 'each line of the files or of standard input is a transaction')
    .option('--hex', 'what is read is hex')
    .option('--key <file>', "the client's key (default: client.key of --network)")
    .option('--passphrase-file <file>', 'for a sealed key (or: SYNOD_PASSPHRASE)')
    .option('--receipt <file>', 'write the receipt of the one transaction to this file')
    .addOption(
      new Option('--wait <what>', 'until one replica says that it holds it, or until it is proved to be ordered')
        .choices(['accepted', 'committed'])
        .default('committed'),
    )
    .option('--timeout <time>', 'for each transaction', duration, 30_000)
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      `
Prints height, place in the block and SHA-256 of each transaction, in the order given, which is the order they will stand in.
Without arguments and files it reads standard input.

Examples:
  $ synod submit --network net "pay 5 to bob"
  $ echo hello | synod submit --network net --receipt hello.receipt
  $ synod submit --network net --lines --hex --file transactions.hex`,
    );
  return addNetworkOptions(command).action(submit);
}

async function submit(words: readonly string[], options: Options): Promise<void> {
  const network = findNetwork(options);
  const keyFile = options.key ?? network.clientKey;
  if (keyFile === null) throw usageError('which key shall sign?', 'Give --key FILE; `synod keys generate` makes one.');
  if (options.receipt !== undefined && options.wait === 'accepted')
    throw usageError('--receipt needs --wait committed: before that there is no proof');
  const key = await openKeyFile(keyFile, options.passphraseFile);
  await withClient({ network, key, options: { connectTimeoutMs: Math.max(1, options.timeout) } }, (client) =>
    submitAll(client, transactionsFrom(words, options), options),
  );
}

type Outcome = Receipt | { readonly replica: string };

interface Sent {
  readonly transaction: Bytes;
  readonly outcome: Promise<Outcome>;
}

async function submitAll(client: Client, transactions: AsyncIterable<Bytes>, options: Options): Promise<void> {
  const sent: Sent[] = [];
  let count = 0;
  const printFirst = async () => {
    const first = sent.shift();
    if (first !== undefined) await report(first, options);
  };
  for await (const transaction of transactions) {
    count += 1;
    if (count === 2 && options.receipt !== undefined)
      throw usageError('--receipt is for one transaction, and there are more');
    const outcome = send(client, transaction, options);
    // Awaited in its turn; until then it must not count as unhandled.
    outcome.catch(() => undefined);
    sent.push({ transaction, outcome });
    if (sent.length >= unansweredMax) await printFirst();
    if (!client.writable) await client.drained();
  }
  if (count === 0)
    throw usageError('there is nothing to submit', 'Give transactions as arguments, files or standard input.');
  while (sent.length > 0) await printFirst();
}

function send(client: Client, transaction: Bytes, { wait, timeout }: Options): Sent['outcome'] {
  const late = () =>
    new Complaint({
      code: 'not-in-time',
      sentence: `no answer within ${timeout} ms; the transaction may still be ordered`,
      remedy: '`synod status` shows whether the network makes progress.',
      exit: EXIT.unreachable,
    });
  return wait === 'accepted'
    ? within<Outcome>(timeout, accepted(client, transaction), late)
    : within<Outcome>(timeout, client.submit(transaction), late);
}

async function accepted(client: Client, transaction: Bytes): Promise<Outcome> {
  const { replica } = await client.submit(transaction, { wait: 'accepted' });
  // Null: the proof overtook the answer.
  return { replica: replica ?? 'a quorum' };
}

async function report({ transaction, outcome }: Sent, options: Options): Promise<void> {
  const result = await outcome;
  const sha256 = toHex(native.sha256(transaction));
  if ('replica' in result) {
    const line = { accepted: result.replica, sha256 };
    return writeLine(options.json === true ? JSON.stringify(line) : `accepted by ${result.replica}  ${sha256}`);
  }
  const { height, index, time } = result;
  const blockHash = toHex(result.blockHash);
  if (options.receipt !== undefined) {
    writeFileSync(options.receipt, `${JSON.stringify(result, null, 2)}\n`);
    note(`receipt in ${options.receipt}`);
  }
  await writeLine(
    options.json === true
      ? JSON.stringify({ height, index, time, blockHash, sha256 })
      : `height ${height}  index ${index}  ${sha256}`,
  );
}

async function* transactionsFrom(words: readonly string[], options: Options): AsyncGenerator<Bytes> {
  for (const word of words) yield bytesOf(word, options.hex, 'an argument');
  for (const file of options.file ?? []) {
    if (options.lines === true) yield* linesOf(createReadStream(file), options.hex, file);
    else yield wholeOf(readFileSync(file), options.hex, file);
  }
  if (words.length > 0 || options.file !== undefined) return;
  if (process.stdin.isTTY) note('reading standard input; end with Ctrl-D');
  if (options.lines === true) yield* linesOf(process.stdin, options.hex, 'standard input');
  else yield wholeOf(await everythingOf(process.stdin), options.hex, 'standard input');
}

async function* linesOf(input: Readable, hex: true | undefined, where: string): AsyncGenerator<Bytes> {
  let number = 0;
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    number += 1;
    // An empty line is no transaction: the chain has none of no bytes.
    if (line !== '') yield bytesOf(line, hex, `line ${number} of ${where}`);
  }
}

/** Bytes as they are; hex may have line breaks. */
function wholeOf(bytes: Bytes, hex: true | undefined, where: string): Bytes {
  if (hex !== true) return bytes;
  return bytesOf(Buffer.from(bytes).toString('latin1').replaceAll(/\s/g, ''), hex, where);
}

function bytesOf(text: string, hex: true | undefined, where: string): Bytes {
  if (hex !== true) return new TextEncoder().encode(text);
  const bytes = fromHex(text.trim());
  if (bytes === undefined) throw usageError(`${where} is not hex`);
  return bytes;
}

async function everythingOf(input: Readable): Promise<Bytes> {
  const chunks: Buffer[] = [];
  // Standard input without an encoding yields Buffers.
  for await (const chunk of input) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
