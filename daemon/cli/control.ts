// `synod control`: a change of the epoch on its way from operator to operator: look at it, sign it, put copies together.

import { Command } from 'commander';
import { equalBytes, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { operatorSigner } from '../../keys/operator-key.ts';
import { assert } from '../../protocol/assert.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { asEpoch, asHeight } from '../../protocol/types.ts';
import {
  type Change,
  type Control,
  decodeControl,
  decodeEpochLink,
  type EpochChain,
  type EpochDocument,
  encodeControl,
} from '../../protocol/verify.ts';
import { loadGenesis } from '../config.ts';
import { combineControls, inOrder, readControlFile, writeControlFile } from './control-file.ts';
import { type Door, httpOption } from './doors.ts';
import { changeInWords, type Later, nextHeight, planInWords, planOf, type Standing } from './epoch-plan.ts';
import { loadEpochs } from './epochs-file.ts';
import { Complaint, EXIT, orComplain, usageError } from './errors.ts';
import { openKeyFile } from './key-files.ts';
import { addNetworkOptions, findNetwork, type NetworkOptions } from './network.ts';
import { duration, wholeNumber } from './options.ts';
import { note, writeLine } from './output.ts';
import { fetchEpochs, longestOf, postTransaction } from './replica-http.ts';
import { askEpochs, askTwice } from './standings.ts';

/** Where the epoch at hand is known from, and whom to ask. */
export interface EpochOptions extends NetworkOptions {
  readonly epochs?: string;
  readonly http?: readonly string[];
  readonly height?: number;
  readonly json?: true;
}

export interface EpochAtHand {
  readonly genesis: Genesis;
  readonly epoch: EpochDocument;
  /** Null: nobody was asked. */
  readonly standings: readonly Standing[] | null;
  /** Asked once more, where somebody has to catch up. */
  readonly later: Later | null;
}

const askMs = 2_000;

export function addEpochOptions(command: Command): Command {
  return command
    .option('--genesis <file>', 'genesis.json of the network')
    .option('--network <dir>', 'directory that `synod init` wrote: its genesis.json, and its replicas are asked')
    .addOption(httpOption())
    .option('--epochs <file>', 'the epochs since, where the first has ended and no replica can be asked')
    .option(
      '--height <height>',
      'the height to judge for (default: above what the replicas say, or 1)',
      wholeNumber(1),
    );
}

/** Without a network or a door nothing is asked: an operator's own machine may reach none. */
export async function epochAtHand(options: EpochOptions, changes: readonly Change[] = []): Promise<EpochAtHand> {
  const { genesis: file, network, epochs, http = [], height } = options;
  if ((file === undefined) === (network === undefined))
    throw usageError(
      'which network?',
      'Give --genesis FILE, and --http URL for each replica that is to be asked, or --network DIR.',
    );
  const asked: Door[] = http.map((url) => ({ name: null, http: url }));
  const found = network === undefined ? null : findNetwork({ network });
  const { genesis } = found ?? orComplain(loadGenesis(native, file ?? ''));
  const doors = [...(found?.replicas ?? []), ...asked];
  const known = loadEpochs(genesis, epochs);
  if (doors.length === 0) return { genesis, epoch: known.last, standings: null, later: null };
  const [told, { standings, later }] = await Promise.all([
    askEpochs(doors, genesis),
    askTwice(doors, genesis, changes),
  ]);
  const { last: epoch } = longestOf(known, told);
  if (told.every((each) => each === null))
    note(
      `no replica says which epoch it is: judged for epoch ${epoch.epoch}, ${epochs === undefined ? 'that of the genesis document' : `the last in ${epochs}`}`,
    );
  if (height === undefined && standings.every((each) => each.height === null))
    note('no replica says how far it is: judged as if for the first block (--height says otherwise)');
  return { genesis, epoch, standings, later };
}

export const heightOf = ({ standings }: EpochAtHand, { height }: Pick<EpochOptions, 'height'>) =>
  height === undefined ? nextHeight(standings) : asHeight(height);

export function controlCommand(): Command {
  const control = new Command('control')
    .description('a change of the epoch: look at it, sign it, put copies together')
    .addHelpText(
      'after',
      `
\`synod member\` and \`synod param\` write such a file. It travels from operator to operator; each looks at it, signs and hands it on, or
sends back a copy, and copies are combined. Operator keys stay where they are.

Examples:
  $ synod control show add-east.json --genesis net/genesis.json
  $ synod control sign add-east.json --key operators/north.key --genesis net/genesis.json
  $ synod control combine add-east.json copy-of-south.json --out add-east-signed.json`,
    );
  addEpochOptions(
    control
      .command('show')
      .description('what it changes, who has signed, and whether it would be refused; exit code 3 if it would')
      .argument('<file>')
      .option('--json', 'for programs'),
  ).action(show);
  addEpochOptions(
    control
      .command('sign')
      .description("add an operator's signature; it is shown first")
      .argument('<file>', 'changed in place, unless --out is given')
      .requiredOption('--key <file>', "the operator's key")
      .option('--passphrase-file <file>', 'the passphrase is the first line of this file (or: SYNOD_PASSPHRASE)')
      .option('--out <file>', 'a new file'),
  ).action(sign);
  addNetworkOptions(
    control
      .command('submit')
      .description('hand it to the replicas, and wait for the end of the epoch')
      .argument('<file>')
      .option('--http <url>', "a replica's HTTP door, such as http://127.0.0.1:8000 (default: those of --network)")
      .option('--timeout <time>', 'how long to wait', duration, 30_000),
  ).action(submit);
  control
    .command('combine')
    .description('the signatures of several copies of one change in one file')
    .argument('<files...>')
    .requiredOption('--out <file>', 'a new file')
    .action(combine);
  return control;
}

async function show(file: string, options: EpochOptions): Promise<void> {
  const control = readControlFile(file);
  const atHand = await epochAtHand(options, control.body.changes);
  await showPlan(control, atHand, options);
}

/** Ends with exit code 3 where the change would be refused as it is. */
export async function showPlan(control: Control, atHand: EpochAtHand, options: EpochOptions): Promise<void> {
  const plan = planOf(atHand.epoch, control, heightOf(atHand, options), atHand.standings, atHand.later);
  if (options.json === true) await writeLine(JSON.stringify(plan));
  else for (const line of planInWords(plan)) await writeLine(line);
  if (plan.refusals.length > 0) process.exitCode = EXIT.notProved;
}

interface SignOptions extends EpochOptions {
  readonly key: string;
  readonly passphraseFile?: string;
  readonly out?: string;
}

async function sign(file: string, options: SignOptions): Promise<void> {
  const control = readControlFile(file);
  const atHand = await epochAtHand(options, control.body.changes);
  const { epoch } = atHand;
  const plan = planOf(epoch, control, heightOf(atHand, options), atHand.standings, atHand.later);
  for (const line of planInWords(plan)) note(line);
  // With every signature that it needs it would be refused all the same.
  if (plan.after === null) throw refused(plan.refusals[0]);
  const signer = operatorSigner(await openKeyFile(options.key, options.passphraseFile), epoch.chainId);
  const { publicKey } = signer;
  const member = epoch.members.find(
    ({ operatorKey }) => operatorKey !== undefined && equalBytes(operatorKey, publicKey),
  );
  if (member === undefined)
    throw new Complaint({
      code: 'operator-unknown',
      sentence: `${toHex(publicKey)} is no operator's key in epoch ${epoch.epoch}`,
      remedy: `The operators are those of ${
        epoch.members
          .filter((m) => m.operatorKey !== undefined)
          .map((m) => m.name)
          .join(', ') || 'nobody'
      }.`,
      exit: EXIT.usage,
    });
  const others = control.signatures.filter(({ operatorKey }) => !equalBytes(operatorKey, publicKey));
  const signatures = [...others, { operatorKey: publicKey, signature: signer.signControl(control.digest) }];
  const signed = inOrder({ ...control, signatures });
  await writeControlFile(
    options.out ?? file,
    signed,
    signed.body.changes.map(changeInWords),
    options.out === undefined,
  );
  await writeLine(
    `signed for ${member.name}: ${signatures.length} of ${plan.signatures.need} signatures in ${options.out ?? file}`,
  );
}

export function refused(
  first: { readonly code: string; readonly field: string; readonly problem: string } | undefined,
): Complaint {
  return new Complaint({
    code: first?.code ?? 'control-refused',
    sentence: `the replicas would refuse it: ${first?.field ?? ''}: ${first?.problem ?? ''}`,
    remedy: 'Nothing was signed or written. docs/operations.md, "Changing a network", says what each refusal means.',
    exit: EXIT.notProved,
  });
}

async function combine(files: readonly string[], { out }: { readonly out: string }): Promise<void> {
  const controls = files.map(readControlFile);
  const combined = combineControls(controls);
  if ('differs' in combined)
    throw usageError(`${files[combined.differs]} is another change than ${files[0]}`, 'Combine copies of one file.');
  await writeControlFile(out, combined, combined.body.changes.map(changeInWords), false);
  await writeLine(`${combined.signatures.length} signatures and ${combined.joins.length} joins in ${out}`);
}

interface SubmitOptions extends NetworkOptions {
  readonly http?: string;
  readonly timeout: number;
}

/** A client has no part in it: a replica signs the bundle, and the change carries the signatures that count. */
async function submit(file: string, options: SubmitOptions): Promise<void> {
  const control = readControlFile(file);
  const { genesis, doors } = doorsOf(options);
  const deadline = performance.now() + options.timeout;
  let last = 'no replica answers';
  for (;;) {
    for (const door of doors) {
      const epochs = await fetchEpochs(door, genesis, askMs);
      if (epochs !== null && epochs.last.epoch > control.body.epoch) return reportEnd(epochs, control);
      const answer = await postTransaction(door, encodeControl(control), askMs);
      if (answer === null) continue;
      last = answer.code === null ? 'taken in, and not decided yet' : `${answer.message} [${answer.code}]`;
      if (answer.code !== 'control-refused') continue;
      // By a replica that stands in this very epoch, then as now; one that is behind, or ahead, may say what it likes.
      const after = await fetchEpochs(door, genesis, askMs);
      const stays = epochs?.last.epoch === control.body.epoch && after?.last.epoch === control.body.epoch;
      if (stays) throw notTaken(last);
    }
    if (performance.now() > deadline) throw notTaken(last);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function doorsOf({ http, ...options }: SubmitOptions) {
  if (http !== undefined && options.genesis !== undefined) {
    const { genesis } = orComplain(loadGenesis(native, options.genesis));
    return { genesis, doors: [http.replace(/\/$/, '')] };
  }
  const { genesis, replicas } = findNetwork(options);
  const doors = replicas.flatMap((replica) => (replica.http === null ? [] : [replica.http]));
  if (doors.length === 0)
    throw usageError('no HTTP door is known', 'Give --network DIR, or --genesis FILE and --http URL.');
  return { genesis, doors: http === undefined ? doors : [http.replace(/\/$/, '')] };
}

/** The certified link says which change ended the epoch: another one may have come first. */
async function reportEnd(epochs: EpochChain, { body, digest }: Control): Promise<void> {
  const { epoch, start, members } = epochs.at(asEpoch(body.epoch + 1))!; // a later one is known
  const link = decodeEpochLink(epochs.links[body.epoch]!); // which has led there
  const end = 'refused' in link ? link : decodeControl(native.sha256, link.control);
  assert(!('refused' in end), 'a link that was checked holds');
  if (!equalBytes(end.digest, digest))
    throw new Complaint({
      code: 'control-overtaken',
      sentence: `another change ended epoch ${body.epoch}, at height ${start.height}: ${end.body.changes.map(changeInWords).join('; ')}`,
      remedy: `This one is worthless now: make it anew for epoch ${epochs.last.epoch}, the present one, and have it signed anew.`,
      exit: EXIT.failure,
    });
  await writeLine(`epoch ${epoch} began at height ${start.height}: ${members.map(({ name }) => name).join(', ')}`);
}

const notTaken = (last: string): Complaint =>
  new Complaint({
    code: 'control-not-decided',
    sentence: `the epoch has not ended: ${last}`,
    remedy: '`synod control show` says what would be refused; it may still be decided until its last height.',
    exit: EXIT.failure,
  });
