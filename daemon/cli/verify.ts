// `synod verify`: what a receipt, a chain file or a witness file proves, from that file and the genesis document alone. No network, no replica.

import { readFileSync, statSync } from 'node:fs';
import { Command } from 'commander';
import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { quorumsOf } from '../../protocol/modes.ts';
import { asEpoch, type Member } from '../../protocol/types.ts';
import {
  type EpochChain,
  type EpochDocument,
  parseReceipt,
  type Trust,
  verifyTransactionReceipt,
} from '../../protocol/verify.ts';
import { loadGenesis } from '../config.ts';
import { offenceInWords } from '../offences.ts';
import { isWitnessFile, readWitness, WITNESS_BYTES_MAX } from '../witness-file.ts';
import { isChainFile, readChainFile } from './chain-file.ts';
import { loadEpochs } from './epochs-file.ts';
import { Complaint, EXIT, orComplain } from './errors.ts';
import { firstBytes } from './first-bytes.ts';
import { writeLine } from './output.ts';

/** More than the largest receipt. */
const receiptBytesMax = 2 << 20;

interface Options {
  readonly genesis: string;
  readonly epochs?: string;
  readonly json?: true;
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description('check a receipt, a chain file or evidence offline; exit code 3 if it does not hold')
    .argument('<file>', 'a receipt (`submit --receipt`), a chain file (`export`) or a witness file (`evidence`)')
    .requiredOption('--genesis <file>', 'the genesis.json of the network, from a source that you trust')
    .option(
      '--epochs <file>',
      'the epochs since the first (GET /v1/epochs of a replica), for what an older version wrote without them',
    )
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Examples:
  $ synod verify hello.receipt --genesis net/genesis.json
  $ synod verify net.chain --genesis net/genesis.json --json
  $ synod verify net.witness --genesis net/genesis.json`,
    )
    .action(verify);
}

async function verify(file: string, options: Options): Promise<void> {
  const { genesis } = orComplain(loadGenesis(native, options.genesis));
  const epochs = loadEpochs(genesis, options.epochs);
  const start = firstBytes(file);
  const facts = isChainFile(start)
    ? await verifyChain(file, genesis, epochs)
    : isWitnessFile(start)
      ? verifyWitness(file, genesis, epochs)
      : verifyReceiptFile(file, genesis, epochs);
  await writeLine(options.json === true ? JSON.stringify({ valid: true, ...facts.fields }) : facts.text);
}

interface Facts {
  readonly text: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

function verifyReceiptFile(file: string, genesis: Genesis, epochs: EpochChain): Facts {
  if (statSync(file).size > receiptBytesMax) throw notProved(file, 'receipt-malformed', 'larger than any receipt');
  const text = readFileSync(file, 'utf8');
  const proven = verifyTransactionReceipt(text, { genesis, crypto: native, epochs });
  if ('refused' in proven) throw notProved(file, proven.refused, proven.field);
  const receipt = parseReceipt(text);
  if ('refused' in receipt) throw notProved(file, receipt.refused, receipt.field);
  const { height, index, time, transaction, blockHash } = proven;
  const { view, signatures, epoch } = receipt.certificate;
  const document = epochs.at(asEpoch(epoch))!; // the receipt has been checked by its members
  const signers = namesOf(document.members, signatures);
  const sha256 = toHex(native.sha256(transaction));
  return {
    text: [
      `proved: this transaction of ${transaction.length} bytes, SHA-256 ${sha256},`,
      `  is number ${index} in block ${height} of chain "${genesis.name}" ${toHex(genesis.chainId)},`,
      `  block ${toHex(blockHash)} of ${new Date(time).toISOString()} (its proposer's clock),`,
      proven.trust === 'byzantine'
        ? `  decided in ${epochText(document)}view ${view} by ${quorumText(document, signers)}`
        : `  decided by a majority${epoch === 0 ? '' : ` of epoch ${epoch}`}, says ${signers.join(', ')}: ${TRUSTED}`,
    ].join('\n'),
    fields: {
      kind: 'receipt',
      chainId: toHex(genesis.chainId),
      height,
      index,
      time,
      blockHash: toHex(blockHash),
      transactionSha256: sha256,
      transactionBytes: transaction.length,
      epoch,
      view,
      trust: proven.trust,
      signers,
    },
  };
}

/** [EPO-11] The members of later epochs come out of the blocks themselves, or of the file of epochs. */
async function verifyChain(file: string, genesis: Genesis, epochs: EpochChain): Promise<Facts> {
  let first: number | undefined;
  let height = 0;
  let hash = '';
  let transactions = 0;
  let certificates = 0;
  const everySigner = new Set<string>();
  let last = asEpoch(0);
  for await (const block of readChainFile(file, genesis, epochs)) {
    if ('refused' in block) throw notProved(file, block.refused, block.problem);
    first ??= block.header.height;
    height = block.header.height;
    hash = toHex(block.hash);
    transactions += block.header.transactionCount;
    if (block.certificate === null) continue;
    certificates += 1;
    last = block.header.epoch;
    const members = epochs.at(last)?.members ?? genesis.members;
    for (const name of namesOf(members, block.certificate.signatures)) everySigner.add(name);
  }
  const signers = [...everySigner].sort();
  const trust: Trust = epochs.trustUpTo(last);
  const anchor =
    first === 1 ? 'from the genesis block on' : 'anchored by its own certificates, what lies below is not in it';
  return {
    text: [
      `proved: blocks ${first} to ${height} of chain "${genesis.name}" ${toHex(genesis.chainId)},`,
      `  ${anchor}; ${transactions} transactions, last block ${hash},`,
      trust === 'crash-fault'
        ? `  decided by a majority, say ${signers.join(', ')}: ${TRUSTED}`
        : last === 0
          ? `  ${certificates} certificates, each by a quorum of ${quorumsOf(genesis).quorum} of ${genesis.members.length}: ${signers.join(', ')}`
          : `  ${certificates} certificates, each by a quorum of its epoch's members, the last of epoch ${last}: ${signers.join(', ')}`,
    ].join('\n'),
    fields: {
      kind: 'chain',
      chainId: toHex(genesis.chainId),
      from: first,
      to: height,
      hash,
      transactions,
      certificates,
      epoch: last,
      trust,
      signers,
    },
  };
}

/** [EVD-4] Who did what; or that the file holds statements alone, which prove nothing against anybody. */
function verifyWitness(file: string, genesis: Genesis, epochs: EpochChain): Facts {
  if (statSync(file).size > WITNESS_BYTES_MAX) throw notProved(file, 'witness-file-malformed', 'larger than any');
  const witness = readWitness(readFileSync(file), genesis, native, epochs);
  if ('refused' in witness) throw notProved(file, witness.refused, witness.problem);
  const { pieces, statements } = witness;
  const lines = pieces.map(({ proven: { culprit, conflict } }) => `  ${culprit.name} ${offenceInWords(conflict)}`);
  const kinds = [...new Set(statements.map(({ signed }) => signed.message.kind))].join(', ');
  const beside = statements.length === 0 ? [] : [`beside it: ${statements.length} signed statements (${kinds})`];
  return {
    text: [
      pieces.length === 0
        ? `no evidence against anybody in it, of chain "${genesis.name}" ${toHex(genesis.chainId)}`
        : `proved, of chain "${genesis.name}" ${toHex(genesis.chainId)}, by two signatures of one key each:`,
      ...lines,
      ...beside,
    ].join('\n'),
    fields: {
      kind: 'witness',
      chainId: toHex(genesis.chainId),
      evidence: pieces.map(({ proven: { culprit, conflict } }) => ({
        culprit: { replica: culprit.id, name: culprit.name, publicKey: toHex(culprit.publicKey) },
        ...conflict,
        words: offenceInWords(conflict),
      })),
      statements: statements.length,
    },
  };
}

function notProved(file: string, code: string, detail: string): Complaint {
  return new Complaint({
    code,
    sentence: `not proved: ${file}${detail === '' ? '' : `: ${detail}`}`,
    remedy:
      code === 'certificate-epoch' || code === 'evidence-epoch'
        ? 'It is of an epoch that it does not prove: give --epochs (GET /v1/epochs at the HTTP door of a replica).'
        : 'Do not believe it. Is this the genesis document of the right network?',
    exit: EXIT.notProved,
  });
}

/** [CFT-PR-1] Said wherever something is proved of such a chain. */
const TRUSTED = 'no proof against a member that lies, for this chain trusts its members';

const namesOf = (members: readonly Member[], signatures: readonly { readonly replica: number }[]): string[] =>
  signatures.map(({ replica }) => members[replica]?.name ?? `#${replica}`);

const epochText = ({ epoch }: EpochDocument): string => (epoch === 0 ? '' : `epoch ${epoch}, `);

function quorumText(document: EpochDocument, signers: readonly string[]): string {
  const { quorum, n } = quorumsOf(document);
  return `${signers.join(', ')} (${signers.length} of ${n} members, a quorum is ${quorum})`;
}
