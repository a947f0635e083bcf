// The demo from its start to its end: set up, order, crash, recover, check, tell, clean up. All it prints was measured in this run.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Client, connect } from '../../client/index.ts';
import { native } from '../../crypto/native.ts';
import { bearsLies, hasLeader, quorumsOf } from '../../protocol/modes.ts';
import { deferred } from '../cli/deferred.ts';
import type { DemoOptions } from '../cli/demo.ts';
import { Complaint, EXIT } from '../cli/errors.ts';
import { openKeyFile } from '../cli/key-files.ts';
import { table, writeLine } from '../cli/output.ts';
import { type BitcoinBlock, parseBitcoinBlock } from './bitcoin.ts';
import { cutIntoBundles } from './bundles.ts';
import {
  auditorsDirectory,
  type Check,
  checkCatchUp,
  checkChains,
  checkMerkleRoot,
  checkReceiptOffline,
  checkReceipts,
  checkViewChange,
  checkWentOn,
} from './checks.ts';
import { figuresOf, figuresTable, grouped, type Result } from './figures.ts';
import { crashPrimary, Follower, Progress, submitAll } from './ordering.ts';
import { Stage } from './stage.ts';
import { bar, Teller } from './teller.ts';
import type { LoggedEvent } from './watch.ts';

const defaultInput = fileURLToPath(
  new URL('../../../test/fixtures/bitcoin-block-413567/block413567.raw', import.meta.url),
);
const settleMsMax = 30_000;
const barWidth = 30;

/** Returns the exit code. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const teller = new Teller({ json: options.json === true });
  const block = readBlock(options.input ?? defaultInput);
  const trouble = deferred<never>();
  trouble.promise.catch(() => undefined);
  const interrupt = () => trouble.reject(interrupted);
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  let stage: Stage | undefined;
  let checked = false;
  try {
    stage = await Stage.create({
      protocol: options.protocol,
      replicas: options.replicas,
      directory: options.dir,
      keep: options.keep === true,
      onEvent: (event) => tellEvent(teller, event),
      onLoss: trouble.reject,
    });
    const result = await Promise.race([perform(stage, teller, block, options), trouble.promise]);
    if (options.json === true) await writeLine(JSON.stringify(result));
    checked = true;
    process.exitCode = result.passed ? EXIT.ok : EXIT.failure;
    if (options.once !== true) {
      tellHints(teller, stage);
      await trouble.promise;
    }
    return result.passed ? EXIT.ok : EXIT.failure;
  } catch (error) {
    // Ctrl-C after the checks is how the demo is meant to end.
    if (error === interrupted && checked) return process.exitCode === EXIT.failure ? EXIT.failure : EXIT.ok;
    throw error;
  } finally {
    teller.hide();
    if (stage !== undefined) {
      teller.say('stopping all replicas');
      await stage.end();
      if (options.keep === true) teller.say(`everything is kept in ${stage.directory}`);
    }
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

const interrupted = new Complaint({ code: 'interrupted', sentence: 'interrupted', exit: EXIT.interrupted });

function readBlock(file: string): BitcoinBlock {
  const block = parseBitcoinBlock(native.sha256, readFileSync(file));
  if (!('problem' in block)) return block;
  throw new Complaint({
    code: 'input-invalid',
    sentence: `${file}: ${block.problem}`,
    remedy: 'Give a raw block from before segwit (August 2017) or without witness data.',
    exit: EXIT.usage,
  });
}

async function perform(stage: Stage, teller: Teller, block: BitcoinBlock, options: DemoOptions): Promise<Result> {
  const { network } = stage;
  const bundles = cutIntoBundles(block.transactions, options.bundle, network.genesis.parameters);
  if (bundles === undefined)
    throw new Complaint({
      code: 'input-invalid',
      sentence: 'a transaction is larger than the chain allows',
      exit: EXIT.usage,
    });
  const { genesis } = network;
  const { n, f, quorum } = quorumsOf(genesis);
  const lies = bearsLies(genesis.protocol);
  const { bold } = teller.palette;
  const bytes = block.transactions.reduce((sum, { length }) => sum + length, 0);
  const total = block.transactions.length;
  const whatever = lies ? 'whatever one of the replicas does' : 'though one of the replicas falls silent';
  teller.line(bold(`One order for opaque transactions, ${whatever}`));
  teller.say(
    `Bitcoin block ${block.hash.replace(/^0+/, '0..0')}: ${grouped(total)} transactions, ${grouped(bytes)} bytes`,
  );
  teller.say(
    `${n} replicas with keys of their own, ${options.protocol}, quorum ${quorum}, ${f} may ${lies ? 'fail in any way' : 'fall silent'}; files in ${stage.directory}`,
  );
  await stage.start();
  for (const { name, url, http } of network.replicas)
    teller.say(`${name} is ready, pid ${stage.cluster.pidOf(name)}, ${url}, ${http}`);

  const progress = new Progress();
  const follower = new Follower();
  const clients: Client[] = [];
  try {
    const replicas = network.replicas.map(({ name, url }) => ({ name, url }));
    const key = await openKeyFile(network.clientKey ?? '', undefined);
    const submitter = await connect({ genesis: network.genesis, replicas, key });
    clients.push(submitter);
    const reader = await connect({ genesis: network.genesis, replicas });
    clients.push(reader);
    const paced = options.pace > 0 ? `one every ${options.pace} ms` : 'as fast as it goes';
    teller.say(`a client submits them in order in ${bundles.length} bundles, ${paced}; another one follows the chain`);
    teller.show(() => panelOf(stage, teller, progress, total));
    const startedAt = performance.now();
    const followed = follower.run(reader, total);
    const crashed = crashPrimary(stage, teller, progress, total);
    // Whichever fails first is what the user hears; the others must not count as unhandled.
    for (const promise of [followed, crashed]) promise.catch(() => undefined);
    const submitted = submitAll(submitter, { bundles, paceMs: options.pace }, progress).then(() => performance.now());
    const [endedAt, crash] = await Promise.all([submitted, crashed]);
    await Promise.race([followed, stage.until(() => follower.transactions.length >= total, settleMsMax)]);
    const names = stage.keepers.map(({ name }) => name);
    await stage.until(() => new Set(names.map((name) => stage.watch.of(name)?.height ?? -1)).size === 1, settleMsMax);
    teller.hide();
    teller.say(`all ${grouped(progress.committed)} transactions are committed`);

    const witness =
      progress.receipts.find(({ committedAt }) => committedAt > crash.killedAt) ?? progress.receipts.at(-1);
    const place = 0;
    const trial = witness?.receipt.receipt(place);
    const checks: readonly Check[] = [
      checkReceipts(progress.receipts, bundles),
      checkMerkleRoot(follower, block),
      hasLeader(genesis) ? checkViewChange(crash) : checkWentOn(crash, progress.receipts),
      checkCatchUp(crash),
      await checkChains(stage),
      ...(trial === undefined
        ? []
        : await checkReceiptOffline({
            receipt: trial.toJSON(),
            transaction: trial.transaction,
            directory: auditorsDirectory(stage.directory, network.document),
          })),
    ];
    const figures = figuresOf({ progress, follower, crash, startedAt, endedAt, bundles, bytes });
    const result = { passed: checks.every(({ passed }) => passed), checks, figures };
    tellResult(teller, result);
    return result;
  } finally {
    for (const client of clients) await client.close();
  }
}

const told = new Set(['view-change-started', 'view-entered', 'catching-up', 'caught-up']);

function tellEvent(teller: Teller, { replica, type, entry }: LoggedEvent): void {
  if (!told.has(type)) return;
  const fields = ['view', 'reason', 'primary', 'from', 'to', 'height']
    .filter((name) => entry[name] !== undefined)
    .map((name) => `${name} ${String(entry[name])}`);
  teller.say(`${teller.palette.cyan(replica)} says: ${type}, ${fields.join(', ')}`);
}

function panelOf({ network, watch, cluster }: Stage, { palette }: Teller, progress: Progress, total: number) {
  const lead = watch.lead();
  const rows = table(
    network.replicas.map(({ name }) => {
      const status = watch.of(name);
      const pid = cluster.pidOf(name);
      const standing = pid === undefined ? 'killed' : (status?.phase ?? 'starting');
      const role = status !== null && status.primary.name === name && status.phase !== 'view-change' ? 'primary' : '';
      return [
        ` ${name}`,
        `view ${status?.view ?? '-'}`,
        role,
        standing,
        `height ${status?.height ?? '-'}`,
        `pid ${pid ?? '-'}`,
      ];
    }),
  ).map((row) => (row.includes('killed') ? palette.red(row) : row.includes('primary') ? palette.bold(row) : row));
  const where = `height ${watch.height()}, view ${lead?.view ?? '-'} under ${lead?.primary ?? 'nobody'}`;
  return {
    rows,
    progress: `${palette.green(bar(progress.committed / total, barWidth))} ${grouped(progress.committed)} of ${grouped(total)} transactions, ${where}`,
  };
}

function tellResult(teller: Teller, { passed, checks, figures }: Result): void {
  const { bold, green, red } = teller.palette;
  teller.line('');
  for (const check of checks) {
    teller.line(`${check.passed ? green('PASS') : red(bold('FAIL'))}  ${check.name}`);
    teller.line(`      ${check.detail}`);
  }
  teller.line('');
  for (const line of figuresTable(figures)) teller.line(line);
  teller.line('');
  teller.line(passed ? green(bold('all checks passed')) : red(bold('A CHECK FAILED')));
}

function tellHints(teller: Teller, { network, directory }: Stage): void {
  const http = network.replicas[0]?.http;
  teller.line(`
The network keeps running. Try, in another terminal:
  curl ${http}/v1/status
  curl ${http}/v1/blocks/1
  curl -X POST -H 'content-type: application/octet-stream' --data-binary 'hello' ${http}/v1/transactions
  npx synod status --network ${directory}
  npx synod why --network ${directory}
  npx synod submit --network ${directory} "pay 5 to bob"
  npx synod follow --network ${directory} --from newest
Ctrl-C ends it.`);
}
