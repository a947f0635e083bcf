// `synod export`: decided blocks with their certificates into a file that proves itself (`synod verify`).

import { Command } from 'commander';
import { ChainFileWriter } from './chain-file.ts';
import { withClient } from './clients.ts';
import { Complaint, usageError } from './errors.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { wholeNumber } from './options.ts';
import { note, writeLine } from './output.ts';

interface Options extends NetworkOptions {
  readonly from?: number;
  readonly to?: number;
  readonly out: string;
}

const progressMs = 1_000;

export function exportCommand(): Command {
  const command = new Command('export')
    .description('write decided blocks with their proofs to a chain file')
    .requiredOption('--out <file>', 'the chain file; it appears when it is complete')
    .option('--from <height>', 'first block (default: the oldest that is kept)', wholeNumber(1))
    .option('--to <height>', 'last block (default: the last one decided now)', wholeNumber(1))
    .addHelpText(
      'after',
      `
The file may hold a few blocks above --to: up to the first one whose own certificate covers it.

Examples:
  $ synod export --network net --out net.chain
  $ synod export --network net --from 1000 --to 2000 --out part.chain
  $ synod verify net.chain --genesis net/genesis.json`,
    );
  return addNetworkOptions(command).action(exportChain);
}

async function exportChain(options: Options): Promise<void> {
  const network = findNetwork(options);
  await withClient({ network }, async (client) => {
    const to = options.to ?? client.head().height;
    if (to === 0) throw new Complaint({ code: 'chain-empty', sentence: 'no block has been decided yet' });
    if (options.from !== undefined && options.from > to)
      throw usageError(`--from ${options.from} lies above ${options.to === undefined ? 'the head,' : '--to'} ${to}`);
    const file = await ChainFileWriter.create(options.out, network.genesis);
    try {
      let noted = performance.now();
      let first: number | undefined;
      let last = 0;
      let transactions = 0;
      for await (const block of client.follow({ from: options.from ?? 'oldest' })) {
        await file.append(block);
        first ??= block.header.height;
        last = block.header.height;
        transactions += block.header.transactionCount;
        if (performance.now() - noted > progressMs) {
          noted = performance.now();
          note(`block ${last} of ${to}`);
        }
        if (last >= to && block.certificate !== null) break;
      }
      await file.commit();
      await writeLine(`${options.out}: blocks ${first} to ${last}, ${transactions} transactions, ${file.bytes} bytes`);
    } catch (error) {
      await file.abandon();
      throw error;
    }
  });
}
