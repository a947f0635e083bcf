// `synod member` and `synod param`: write a change of the epoch into a file, or say what it would do. Nothing here talks to a replica but to ask where
// it stands: operators sign the file (`synod control`), and whoever likes submits it.

import { existsSync } from 'node:fs';
import { Argument, Command } from 'commander';
import { type Bytes, equalBytes, fromHex, toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { signJoin } from '../../keys/operator-key.ts';
import { ADDRESS_PATTERN, NAME_PATTERN, parameterNames } from '../../protocol/genesis.ts';
import { type Protocol, protocols } from '../../protocol/modes.ts';
import { asHeight } from '../../protocol/types.ts';
import { type Change, type Control, encodeControlBody } from '../../protocol/verify.ts';
import { addEpochOptions, type EpochOptions, epochAtHand, heightOf, refused, showPlan } from './control.ts';
import { inOrder, readControlFile, writeControlFile } from './control-file.ts';
import { changeInWords, planOf } from './epoch-plan.ts';
import { usageError } from './errors.ts';
import { inspectKeyFile, openKeyFile } from './key-files.ts';
import { wholeNumber } from './options.ts';
import { writeLine } from './output.ts';

interface ChangeOptions extends EpochOptions {
  readonly validUntil?: number;
  readonly out?: string;
  readonly plan?: true;
}

/** How long a change is good, in blocks from now, unless said otherwise: at some blocks a second, for days. */
const VALID_BLOCKS = 1_000_000;

/** What every command that writes a change takes. */
function changing(command: Command): Command {
  return addEpochOptions(command)
    .option('--valid-until <height>', 'the last height at which it may stand', wholeNumber(1))
    .option('--out <file>', 'the new file')
    .option('--plan', 'write nothing: say what it would do, and whether it would be refused')
    .option('--json', 'with --plan: for programs');
}

const keyArgument = 'key file, or public key in hex';

export function memberCommand(): Command {
  const member = new Command('member')
    .description('change the members of a network, their keys and addresses')
    .addHelpText(
      'after',
      `
Each command writes a file that operators sign (\`synod control\`). A new replica, or a new key, signs last, when its replica is close
(\`synod member promote\`).

Examples:
  $ synod member add east --key east/replica.key --operator east-operator.key --address ws://10.0.0.5:7000 \\
      --genesis net/genesis.json --plan
  $ synod member add east --key east/replica.key --operator east-operator.key --address ws://10.0.0.5:7000 \\
      --genesis genesis.json --http http://10.0.0.1:8000 --http http://10.0.0.5:8000 --plan
  $ synod member remove north --network net --out remove-north.json
  $ synod member rotate south --key new-south.key --genesis net/genesis.json --out rotate-south.json
  $ synod member promote add-east.json --key east/replica.key --at 12345`,
    );
  changing(
    member
      .command('add')
      .description('a new member')
      .argument('<name>')
      .requiredOption('--key <key>', `its replica: ${keyArgument}`)
      .option('--operator <key>', `its operator: ${keyArgument}; without, it has no say in changes`)
      .option('--address <url>', 'where the others dial it, such as ws://10.0.0.5:7000'),
  ).action((name: string, options: ChangeOptions & { key: string; operator?: string; address?: string }) =>
    write(options, [
      {
        change: 'add-member',
        name: nameOf(name),
        publicKey: keyOf(options.key),
        operatorKey: options.operator === undefined ? null : keyOf(options.operator),
        address: options.address === undefined ? null : addressOf(options.address),
      },
    ]),
  );
  changing(member.command('remove').description('one member fewer').argument('<name>')).action(
    (name: string, options: ChangeOptions) => write(options, [{ change: 'remove-member', name: nameOf(name) }]),
  );
  changing(
    member
      .command('rotate')
      .description("replace a replica's key")
      .argument('<name>')
      .requiredOption('--key <key>', `the new one: ${keyArgument}`),
  ).action((name: string, options: ChangeOptions & { key: string }) =>
    write(options, [{ change: 'replace-replica-key', name: nameOf(name), publicKey: keyOf(options.key) }]),
  );
  changing(
    member
      .command('operator')
      .description("replace an operator's key")
      .argument('<name>')
      .requiredOption('--key <key>', `the new one: ${keyArgument}; "none": nobody`),
  ).action((name: string, options: ChangeOptions & { key: string }) => {
    const operatorKey = options.key === 'none' ? null : keyOf(options.key);
    return write(options, [{ change: 'replace-operator-key', name: nameOf(name), operatorKey }]);
  });
  changing(
    member.command('address').description('where the others dial it').argument('<name>').argument('<url>', 'or "none"'),
  ).action((name: string, url: string, options: ChangeOptions) =>
    write(options, [{ change: 'change-address', name: nameOf(name), address: url === 'none' ? null : addressOf(url) }]),
  );
  member
    .command('promote')
    .description('sign, with the key that is new in it, that its replica is there and how far it has come')
    .argument('<file>', 'the change; written in place')
    .requiredOption('--key <file>', "the new replica's key file")
    .requiredOption('--at <height>', 'the height that its replica has reached', wholeNumber(0))
    .option('--passphrase-file <file>', 'the passphrase is the first line of this file (or: SYNOD_PASSPHRASE)')
    .action(promote);
  return member;
}

export function paramCommand(): Command {
  const param = new Command('param')
    .description('change the limits and times of a network, or who may change it')
    .addHelpText(
      'after',
      `
Examples:
  $ synod param set blockBytesMax=786432 viewTimeoutMs=1000 --network net --plan
  $ synod param policy 3 --genesis net/genesis.json --out policy.json
  $ synod param protocol raft --network net --plan`,
    );
  changing(param.command('set').description('protocol parameters').argument('<name=value...>')).action(
    (given: readonly string[], options: ChangeOptions) => write(options, given.map(parameterOf)),
  );
  changing(
    param.command('policy').description('how many operators must sign a change').argument('<number>', 'or "quorum"'),
  ).action((number: string, options: ChangeOptions) => {
    if (number !== 'quorum' && !/^[1-9]\d{0,2}$/.test(number)) throw usageError('policy: a number from 1, or "quorum"');
    return write(options, [
      { change: 'set-policy', policy: { signatures: number === 'quorum' ? 'quorum' : Number(number) } },
    ]);
  });
  changing(
    param
      .command('protocol')
      .description('what the members run from then on, and with it what they bear')
      .addArgument(new Argument('<protocol>', 'docs/operations.md compares them').choices(protocols)),
  ).action((protocol: Protocol, options: ChangeOptions) => write(options, [{ change: 'set-protocol', protocol }]));
  return param;
}

async function write(options: ChangeOptions, changes: readonly Change[]): Promise<void> {
  const { out, plan } = options;
  if ((out === undefined) === (plan === undefined)) throw usageError('--out FILE or --plan is wanted');
  if (out !== undefined && existsSync(out)) throw usageError(`${out} is there already`, 'Give a new file.');
  const atHand = await epochAtHand(options, plan === true ? changes : []);
  const { epoch } = atHand;
  const height = heightOf(atHand, options);
  const payload = encodeControlBody({
    chainId: epoch.chainId,
    epoch: epoch.epoch,
    epochHash: epoch.hash,
    validUntil: asHeight(options.validUntil ?? height + VALID_BLOCKS),
    changes,
  });
  const draft = inOrder({ payload, signatures: [], joins: [] });
  if (plan === true) return showPlan(draft, atHand, options);
  const { after, refusals, signatures } = planOf(epoch, draft, height, atHand.standings);
  // No signature will help it.
  if (after === null) throw refused(refusals[0]);
  if (out === undefined) return;
  await writeControlFile(out, draft, changes.map(changeInWords), false);
  await writeLine(`${out}: ends epoch ${epoch.epoch}, needs ${signatures.need} operators' signatures`);
  await writeLine(`next: synod control sign ${out} --key OPERATOR.key --genesis GENESIS.json`);
}

interface PromoteOptions {
  readonly key: string;
  readonly at: number;
  readonly passphraseFile?: string;
}

async function promote(file: string, { key, at, passphraseFile }: PromoteOptions): Promise<void> {
  const control = readControlFile(file);
  const secret = await openKeyFile(key, passphraseFile);
  const { publicKey } = secret;
  const isNew = control.body.changes.some((change) => 'publicKey' in change && equalBytes(change.publicKey, publicKey));
  if (!isNew)
    throw usageError(
      `${key}: ${toHex(publicKey)} is not a key that ${file} brings in`,
      'Give the key file of the new replica.',
    );
  const height = asHeight(at);
  const signature = signJoin(secret, { chainId: control.body.chainId, digest: control.digest, height });
  const others = control.joins.filter((join) => !equalBytes(join.publicKey, publicKey));
  const joined: Control = inOrder({ ...control, joins: [...others, { publicKey, height, signature }] });
  await writeControlFile(file, joined, joined.body.changes.map(changeInWords), true);
  await writeLine(`${toHex(publicKey)} has signed ${file} at height ${at}`);
}

function nameOf(name: string): string {
  if (NAME_PATTERN.test(name)) return name;
  throw usageError(`${JSON.stringify(name)}: a name of 1 to 32 characters out of a-z, 0-9 and -`);
}

function addressOf(url: string): string {
  if (ADDRESS_PATTERN.test(url)) return url;
  throw usageError(`--address ${JSON.stringify(url)}: such as ws://10.0.0.5:7000 or wss://host:7000`);
}

/** Of a key file the public half as it states it. */
function keyOf(text: string): Bytes {
  const hex = /^[0-9a-f]{64}$/.test(text) ? text : inspectKeyFile(text).publicKey;
  const key = fromHex(hex) ?? new Uint8Array(0);
  const verdict = native.admitKey(key);
  if (verdict !== 'ok') throw usageError(`${text}: no key that a member may have (${verdict})`);
  return key;
}

function parameterOf(text: string): Change {
  const [, given, value] = /^([A-Za-z]+)=(\d{1,15})$/.exec(text) ?? [];
  if (given === undefined) throw usageError(`${text}: name=number is wanted, such as viewTimeoutMs=1000`);
  const parameter = parameterNames.find((name) => name === given);
  if (parameter === undefined)
    throw usageError(`${given} is no parameter`, `The parameters are ${parameterNames.join(', ')}.`);
  return { change: 'set-parameter', parameter, value: Number(value) };
}
