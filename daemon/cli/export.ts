// `synod export`: decided blocks with their certificates into a file that proves itself (`synod verify`).

import { existsSync } from 'node:fs';
import { Command, Option } from 'commander';
import type { Bytes } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { type BlockHeader, decodeHeader } from '../../protocol/block.ts';
import type { FollowedBlock } from '../../protocol/door.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { asHeight } from '../../protocol/types.ts';
import type { EpochChain } from '../../protocol/verify.ts';
import { loadConfig, loadGenesis } from '../config.ts';
import { linksTo } from '../file-links.ts';
import { LogReader } from '../gateway/log-reader.ts';
import { ChainFileWriter } from './chain-file.ts';
import { withClient } from './clients.ts';
import { loadEpochs } from './epochs-file.ts';
import { Complaint, orComplain, usageError } from './errors.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { wholeNumber } from './options.ts';
import { note, writeLine } from './output.ts';

interface Options extends NetworkOptions {
  readonly from?: number;
  readonly to?: number;
  readonly out: string;
  readonly config?: string;
}

const progressMs = 1_000;
/** Of one read of a log. */
const readBytesMax = 4 << 20;

export function exportCommand(): Command {
  const command = new Command('export')
    .description('write decided blocks with their proofs to a chain file')
    .requiredOption('--out <file>', 'the chain file; it appears when it is complete')
    .addOption(
      new Option('--config <file>', "a stopped replica's config.json: what its own log holds").conflicts([
        'network',
        'genesis',
        'replica',
      ]),
    )
    .option('--from <height>', 'first block (default: the oldest that is kept)', wholeNumber(1))
    .option('--to <height>', 'last block (default: the last one decided now)', wholeNumber(1))
    .addHelpText(
      'after',
      `
The file may hold a few blocks above --to: up to the first one whose own certificate covers it. Where it begins in a later epoch
it holds the links that prove that one, so that the genesis document is enough to verify it.

Examples:
  $ synod export --network net --out net.chain
  $ synod export --network net --from 1000 --to 2000 --out part.chain
  $ synod export --config /etc/synod/config.json --out north.chain
  $ synod verify net.chain --genesis net/genesis.json`,
    );
  return addNetworkOptions(command).action(exportChain);
}

async function exportChain(options: Options): Promise<void> {
  if (options.config !== undefined) return exportLog(options.config, options);
  const network = findNetwork(options);
  await withClient({ network }, async (client) => {
    const to = lastBlock(options, client.head().height);
    const blocks = client.follow({ from: options.from ?? 'oldest' });
    await writeChain(options.out, { genesis: network.genesis, epochs: () => client.epochs, to, blocks });
  });
}

/** One replica's own chain, which the others may not share, from the log of a replica that does not run. */
async function exportLog(config: string, options: Options): Promise<void> {
  const { genesis: genesisFile, logDir, epochsFile, member } = orComplain(loadConfig(config));
  const { genesis } = orComplain(loadGenesis(native, genesisFile));
  const epochs = loadEpochs(genesis, options.epochs ?? (existsSync(epochsFile) ? epochsFile : undefined));
  if (!existsSync(logDir)) throw new Complaint({ code: 'chain-empty', sentence: `${member} has no log at ${logDir}` });
  // Loaded only here: the other commands need no database.
  const [{ openStore }, { openLogStore }] = await Promise.all([
    import('../../storage/open.ts'),
    import('../../storage/log-store.ts'),
  ]);
  const { sha256 } = native;
  const kv = await openStore(logDir);
  try {
    // Nothing is voted for here, so nothing need be known of what was signed.
    const { log } = await openLogStore(kv, { sha256, chainId: genesis.chainId, floor: null, retainBlocks: 'all' });
    const reader = new LogReader({ log, wire: { sha256, parameters: genesis.parameters } });
    const to = lastBlock(options, log.head);
    const from = Math.max(options.from ?? 1, log.lowest);
    if (from > to)
      throw new Complaint({ code: 'chain-empty', sentence: `${member} keeps blocks from ${log.lowest} on` });
    await writeChain(options.out, { genesis, epochs: () => epochs, to, blocks: certifiedBlocks(reader, from) });
    await log.close();
  } finally {
    await kv.close();
  }
}

/** What the log holds from a height on, up to the last block that has a certificate. */
async function* certifiedBlocks(reader: LogReader, from: number): AsyncGenerator<FollowedBlock> {
  let waiting: FollowedBlock[] = [];
  for (let next = from; ; ) {
    const range = {
      from: asHeight(next),
      to: reader.head(),
      bytesMax: readBytesMax,
      blocksMax: 256,
      headersOnly: false,
    };
    const blocks = await reader.followed(range);
    if (blocks.length === 0) return;
    next += blocks.length;
    for (const block of blocks) {
      waiting.push(block);
      if (block.certificate === null) continue;
      yield* waiting;
      waiting = [];
    }
  }
}

function lastBlock(options: Options, head: number): number {
  const to = options.to ?? head;
  if (to === 0) throw new Complaint({ code: 'chain-empty', sentence: 'no block has been decided yet' });
  if (options.from !== undefined && options.from > to)
    throw usageError(`--from ${options.from} lies above ${options.to === undefined ? 'the head,' : '--to'} ${to}`);
  return to;
}

interface ExportedChain {
  readonly genesis: Genesis;
  /** Those that are known by the time that the first block is here. */
  readonly epochs: () => EpochChain;
  readonly to: number;
  readonly blocks: AsyncIterable<FollowedBlock>;
}

/** Up to the first certificate at or above `to`, or to the end of the blocks. */
async function writeChain(out: string, { genesis, epochs, to, blocks }: ExportedChain): Promise<void> {
  const file = await ChainFileWriter.create(out, genesis);
  try {
    let noted = performance.now();
    let first: number | undefined;
    let last = 0;
    let transactions = 0;
    for await (const block of blocks) {
      const header = decodeHeader(block.headerBytes);
      if (header === undefined) throw new Error('export: a block whose header does not decode');
      if (first === undefined) for (const link of linksFor(header, epochs())) await file.link(link);
      await file.append(block);
      first ??= header.height;
      last = header.height;
      transactions += header.transactionCount;
      if (performance.now() - noted > progressMs) {
        noted = performance.now();
        note(`block ${last} of ${to}`);
      }
      if (last >= to && block.certificate !== null) break;
    }
    if (first === undefined)
      throw new Complaint({ code: 'chain-empty', sentence: 'no block with a certificate is kept' });
    await file.commit();
    await writeLine(`${out}: blocks ${first} to ${last}, ${transactions} transactions, ${file.bytes} bytes`);
  } catch (error) {
    await file.abandon();
    throw error;
  }
}

/** [WIRE-37] What proves the epoch of the first block; all later ones are proved by the blocks. */
function linksFor({ height, epoch }: BlockHeader, epochs: EpochChain): readonly Bytes[] {
  const links = linksTo(epochs, epoch);
  if (links !== null) return links;
  throw new Complaint({
    code: 'epochs-unknown',
    sentence: `block ${height} is of epoch ${epoch}, and the links that prove it are known to epoch ${epochs.last.epoch} only`,
    remedy: 'Give --epochs FILE: GET /v1/epochs at the HTTP door of a replica that runs.',
  });
}
