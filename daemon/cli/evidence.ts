// `synod evidence`: what the replicas of a network have seen members do wrong, checked here: no replica is believed.

import { existsSync, writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { type Bytes, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import type { EpochChain, ProvenEvidence } from '../../protocol/verify.ts';
import { loadConfig, loadGenesis } from '../config.ts';
import { collectWitness } from '../evidence.ts';
import { LeadingLinks } from '../file-links.ts';
import { offenceInWords } from '../offences.ts';
import {
  decodeWitness,
  encodeProvenWitness,
  encodeWitness,
  readWitness,
  type Witness,
  type WitnessRecord,
} from '../witness-file.ts';
import { latestEpochs } from './clients.ts';
import { loadEpochs } from './epochs-file.ts';
import { Complaint, EXIT, orComplain, usageError } from './errors.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { duration } from './options.ts';
import { note, paletteFor, table, writeLine } from './output.ts';
import { fetchWitness } from './replica-http.ts';

interface Options extends NetworkOptions {
  readonly config?: string;
  readonly json?: true;
  readonly out?: string;
  readonly timeout: number;
}

export function evidenceCommand(): Command {
  const command = new Command('evidence')
    .description('what members were seen to do wrong, as far as it is proved')
    .addOption(
      new Option('--config <file>', "a replica's config.json: read its own files, whether or not it runs").conflicts([
        'network',
        'genesis',
        'replica',
      ]),
    )
    .option('--out <file>', 'write all of it, and the new-views that the replicas keep, to a new witness file')
    .option('--json', 'for programs')
    .option('--timeout <time>', 'for each answer of a replica', duration, 10_000)
    .addHelpText(
      'after',
      `
Asks each replica's HTTP door where it is known (--network). A door that only its own host can reach is read there, with --config.
Each piece is checked against the genesis document before it is shown. Exit code 4 if no replica answers.

Examples:
  $ synod evidence --network net
  $ synod evidence --config /etc/synod/config.json --out north.witness
  $ synod verify north.witness --genesis genesis.json
  $ synod audit *.chain *.witness --genesis genesis.json`,
    );
  return addNetworkOptions(command).action(evidence);
}

/** What one source gave, each record checked. */
interface Given {
  readonly from: string;
  readonly records: readonly { readonly record: WitnessRecord; readonly witness: Witness }[];
}

interface Found {
  readonly id: string;
  readonly proven: ProvenEvidence;
  readonly keptBy: string[];
}

async function evidence(options: Options): Promise<void> {
  if (options.out !== undefined && existsSync(options.out))
    throw usageError(`--out ${options.out}: there is such a file already`, 'Give a new path.');
  const { genesis, epochs, given } = options.config === undefined ? await ofNetwork(options) : await ofConfig(options);
  const { records, found, views } = gather(given);
  if (options.out !== undefined) {
    if (records.length === 0) note(`${options.out}: not written, for nothing is kept`);
    else writeFileSync(options.out, encodeProvenWitness(genesis, records, { epochs, crypto: native }), { flag: 'wx' });
  }
  if (options.json === true) {
    const pieces = found.map(({ id, proven: { culprit, conflict }, keptBy }) => ({
      id,
      culprit: { replica: culprit.id, name: culprit.name },
      ...conflict,
      words: offenceInWords(conflict),
      keptBy,
    }));
    return writeLine(JSON.stringify({ evidence: pieces, newViews: views, asked: given.map(({ from }) => from) }));
  }
  const { red, dim } = paletteFor(process.stdout);
  if (found.length === 0)
    await writeLine(`no evidence against anybody, says ${given.map(({ from }) => from).join(', ')}`);
  else {
    const rows = found.map(({ id, proven: { culprit, conflict }, keptBy }) => [
      culprit.name,
      offenceInWords(conflict),
      keptBy.join(','),
      id,
    ]);
    for (const [index, line] of table([['culprit', 'what it did', 'kept by', 'piece'], ...rows]).entries())
      await writeLine(index === 0 ? dim(line) : red(line));
  }
  if (options.out !== undefined && records.length > 0)
    await writeLine(`${options.out}: ${found.length} pieces of evidence, ${views.length} new-views`);
}

interface Source {
  readonly genesis: Genesis;
  /** Those that are known, and proved by what was given. */
  readonly epochs: EpochChain;
  readonly given: Given[];
}

async function ofConfig({ config: file = '', epochs: given }: Options): Promise<Source> {
  const config = orComplain(loadConfig(file));
  const { genesis } = orComplain(loadGenesis(native, config.genesis));
  const { epochsFile } = config;
  const epochs = loadEpochs(genesis, given ?? (existsSync(epochsFile) ? epochsFile : undefined));
  const bytes = await collectWitness(config.evidenceDir, genesis, epochs);
  return { genesis, epochs, given: [checked(config.member, { genesis, epochs }, bytes === null ? [] : [bytes])] };
}

async function ofNetwork(options: Options): Promise<Source> {
  const network = findNetwork(options);
  const { genesis, replicas } = network;
  const epochs = await latestEpochs(network);
  const given: Given[] = [];
  for (const { name, http } of replicas) {
    const files = http === null ? null : await fetchWitness(http, options.timeout);
    if (http === null) note(`${name}: its HTTP door is not known; run this with --config on its host`);
    else if (files === null) note(`${name}: no answer from ${http}`);
    if (files !== null) given.push(checked(name, { genesis, epochs }, files));
  }
  if (given.length > 0) return { genesis, epochs, given };
  throw new Complaint({
    code: 'no-replica-answers',
    sentence: `none of ${replicas.length} replicas answered`,
    remedy: 'Are they running? A replica that is down, or on another host, is read there with --config.',
    exit: EXIT.unreachable,
  });
}

/** What does not hold is named and left out: a replica may lie, and a file may be damaged. */
function checked(from: string, { genesis, epochs }: Omit<Source, 'given'>, files: readonly Bytes[]): Given {
  const records: Given['records'][number][] = [];
  for (const file of files) {
    const inside = decodeWitness(file, genesis.chainId);
    if ('refused' in inside) {
      note(`${from}: left out a file: ${inside.problem} [${inside.refused}]`);
      continue;
    }
    const links = new LeadingLinks(epochs);
    for (const record of inside) {
      if (record.sort === 'link') {
        const problem = links.take(record.bytes);
        if (problem === null) continue;
        note(`${from}: left out a file: ${problem.problem} [${problem.refused}]`);
        break;
      }
      const witness = readWitness(encodeWitness(genesis.chainId, [record]), genesis, native, epochs);
      if ('refused' in witness) note(`${from}: left out what does not hold: ${witness.problem} [${witness.refused}]`);
      else records.push({ record, witness });
    }
  }
  return { from, records };
}

/** Each piece and each new-view once, whoever gave it. */
function gather(given: readonly Given[]) {
  const records = new Map<string, WitnessRecord>();
  const found = new Map<string, Found>();
  const views = new Set<number>();
  for (const { from, records: theirs } of given)
    for (const { record, witness } of theirs) {
      const id = toHex(native.sha256(record.bytes).subarray(0, 16));
      records.set(id, record);
      for (const { signed } of witness.statements)
        if (signed.message.kind === 'new-view') views.add(signed.message.view);
      for (const { proven } of witness.pieces) {
        const piece = found.get(id) ?? { id, proven, keptBy: [] };
        piece.keptBy.push(from);
        found.set(id, piece);
      }
    }
  return {
    records: [...records.values()],
    found: [...found.values()].sort((a, b) => a.proven.culprit.id - b.proven.culprit.id),
    views: [...views].sort((a, b) => a - b),
  };
}
