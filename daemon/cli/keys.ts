// `synod keys`: makes key files, shows the public half, puts a passphrase on and takes it off.

import { Command, Option } from 'commander';
import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import { SecretKey } from '../../keys/keypair.ts';
import { loadGenesis } from '../config.ts';
import { orComplain, usageError } from './errors.ts';
import { inspectKeyFile, openKeyFile, rewriteKeyFile, writeKeyFile } from './key-files.ts';
import { createSignState } from './network-files.ts';
import { writeLine } from './output.ts';
import { needPassphrase } from './passphrase.ts';

interface GenerateOptions {
  readonly unsealed?: true;
  readonly signState?: string;
  readonly passphraseFile?: string;
}

interface ShowOptions {
  readonly json?: true;
  readonly check?: true;
  readonly passphraseFile?: string;
}

interface SealOptions {
  readonly passphraseFile?: string;
}

const fromFile = [
  '--passphrase-file <file>',
  'the passphrase is the first line of this file (or: SYNOD_PASSPHRASE)',
] as const;

export function keysCommand(): Command {
  const keys = new Command('keys').description('make, show, seal and unseal key files').addHelpText(
    'after',
    `
Examples:
  $ synod keys generate operator.key
  $ synod keys show net/node-0/replica.key
  $ synod keys seal net/client.key --passphrase-file passphrase.txt`,
  );
  keys
    .command('generate')
    .description('a new key in a new file; prints its public half')
    .argument('<file>')
    .option(...fromFile)
    .addOption(new Option('--unsealed', 'keep it without a passphrase').conflicts('passphraseFile'))
    .option('--sign-state <genesis>', 'for a replica of this network: its empty sign-state file too, beside the key')
    .action(generate);
  keys
    .command('show')
    .description('the public half, and whether the file is sealed')
    .argument('<file>')
    .option('--check', 'open the file too, to prove that it can be opened and that the halves belong together')
    .option('--json', 'for programs')
    .option(...fromFile)
    .action(show);
  keys
    .command('seal')
    .description('put a passphrase on a key file that has none')
    .argument('<file>')
    .option(...fromFile)
    .action(sealFile);
  keys
    .command('unseal')
    .description('take the passphrase off')
    .argument('<file>')
    .option(...fromFile)
    .action(unsealFile);
  return keys;
}

async function generate(file: string, { unsealed, signState, passphraseFile }: GenerateOptions): Promise<void> {
  const genesis = signState === undefined ? null : orComplain(loadGenesis(native, signState)).genesis;
  const passphrase =
    unsealed === true ? null : await needPassphrase({ file: passphraseFile, purpose: 'the new key', isNew: true });
  const secret = SecretKey.generate();
  await writeKeyFile(file, secret, passphrase);
  if (genesis !== null) await createSignState(`${file}.sign-state`, secret, genesis);
  await writeLine(toHex(secret.publicKey));
}

async function show(file: string, { json, check, passphraseFile }: ShowOptions): Promise<void> {
  const { publicKey, sealed } = inspectKeyFile(file);
  if (check === true) await openKeyFile(file, passphraseFile);
  if (json === true)
    return writeLine(JSON.stringify({ publicKey, sealed, ...(check === true ? { checked: true } : {}) }));
  await writeLine(`${publicKey}  ${sealed ? 'sealed' : 'not sealed'}${check === true ? ', opens, halves agree' : ''}`);
}

async function sealFile(file: string, { passphraseFile }: SealOptions): Promise<void> {
  if (inspectKeyFile(file).sealed)
    throw usageError(`${file} is sealed already`, 'To change the passphrase: `synod keys unseal`, then seal again.');
  const passphrase = await needPassphrase({ file: passphraseFile, purpose: file, isNew: true });
  await rewriteKeyFile(file, await openKeyFile(file, undefined), passphrase);
  await writeLine(`${file} is sealed now; a copy of the old file elsewhere is not`);
}

async function unsealFile(file: string, { passphraseFile }: SealOptions): Promise<void> {
  if (!inspectKeyFile(file).sealed) throw usageError(`${file} is not sealed`, 'There is nothing to do.');
  await rewriteKeyFile(file, await openKeyFile(file, passphraseFile), null);
  await writeLine(`${file} is not sealed any more: whoever reads it can sign with it`);
}
