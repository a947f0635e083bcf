// `synod audit`: after agreement was broken, or evidence has appeared: who did it. From exported chains and witness files and the genesis
// document alone; no network, no replica.

import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { bearsLies } from '../../protocol/modes.ts';
import { Audit, type AuditReport, type Branch, type Need } from '../../protocol/verify.ts';
import { loadGenesis } from '../config.ts';
import { offenceInWords } from '../offences.ts';
import { encodeWitness, isWitnessFile, readWitness, WITNESS_BYTES_MAX } from '../witness-file.ts';
import { isChainFile } from './chain-file.ts';
import { Complaint, EXIT, orComplain, usageError } from './errors.ts';
import { firstBytes } from './first-bytes.ts';
import { type ReadChains, readChains } from './forks.ts';
import { note, writeLine } from './output.ts';

interface Options {
  readonly genesis: string;
  readonly json?: true;
  readonly out?: string;
}

export function auditCommand(): Command {
  return new Command('audit')
    .description('name the members that broke the protocol, from exported chains and witness files, offline')
    .argument('<files...>', 'chain files (`export`) and witness files (`evidence --out`) of several replicas')
    .requiredOption('--genesis <file>', 'the genesis.json of the network, from a source that you trust')
    .option('--out <file>', 'write the proofs to a new witness file, for `verify`')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 nothing is proved against anybody, 5 members are proved guilty (of a fork: at least f+1), 6 the chains fork
and too few can be named with what was given, 3 a file does not hold.

Examples:
  $ synod audit north.chain south.chain --genesis genesis.json
  $ synod audit *.chain *.witness --genesis genesis.json --out guilty.witness --json`,
    )
    .action(audit);
}

async function audit(files: readonly string[], options: Options): Promise<void> {
  const { genesis } = orComplain(loadGenesis(native, options.genesis));
  if (!bearsLies(genesis.protocol))
    throw usageError(
      `${options.genesis}: the members of a ${genesis.protocol} chain are trusted`,
      'There are no votes to hold against anybody: audit is for pbft chains.',
    );
  if (options.out !== undefined && existsSync(options.out))
    throw usageError(`--out ${options.out}: there is such a file already`, 'Give a new path.');
  const chains: string[] = [];
  const auditing = new Audit({ genesis, crypto: native });
  for (const file of files) {
    const start = firstBytes(file);
    if (isChainFile(start)) chains.push(file);
    else if (isWitnessFile(start)) takeWitness(file, genesis, auditing);
    else throw notHeld(file, 'audit-file-unknown', 'neither a chain file nor a witness file');
  }
  const read = await readChains(chains, genesis);
  if ('refused' in read) throw notHeld(read.file, read.refused, read.problem);
  for (const certificate of read.certificates) auditing.certificate(certificate);
  const report = auditing.report(read.fork);
  if (options.out !== undefined) writeProofs(options.out, genesis, report);
  await writeLine(
    options.json === true ? JSON.stringify(jsonOf(genesis, read, report)) : inWords(genesis, read, report),
  );
  process.exitCode = { clean: EXIT.ok, guilty: EXIT.guilty, 'too-few': EXIT.tooFew }[report.verdict];
}

function takeWitness(file: string, genesis: Genesis, auditing: Audit): void {
  if (statSync(file).size > WITNESS_BYTES_MAX) throw notHeld(file, 'witness-file-malformed', 'larger than any');
  const witness = readWitness(readFileSync(file), genesis, native);
  if ('refused' in witness) throw notHeld(file, witness.refused, witness.problem);
  for (const { bytes, proven } of witness.pieces) auditing.evidence(bytes, proven);
  for (const { signed } of witness.statements) auditing.statement(signed);
}

function writeProofs(out: string, genesis: Genesis, { culprits }: AuditReport): void {
  const records = culprits.flatMap(({ proofs }) =>
    proofs.map(({ piece }) => ({ sort: 'evidence' as const, bytes: piece })),
  );
  if (records.length === 0) return note(`${out}: not written, for nothing is proved`);
  writeFileSync(out, encodeWitness(genesis.chainId, records), { flag: 'wx' });
}

function notHeld(file: string, code: string, detail: string): Complaint {
  return new Complaint({
    code,
    sentence: `not proved: ${file}: ${detail}`,
    remedy: 'Leave it out, or fetch it again. Is this the genesis document of the right network?',
    exit: EXIT.notProved,
  });
}

// ---- what it says ---------------------------------------------------------------------------------------------------

const signersOf = ({ members }: Genesis, { certificates }: Branch): string[] =>
  (certificates[0]?.signatures ?? []).map(({ replica }) => members[replica]?.name ?? `#${replica}`);

function inWords(genesis: Genesis, { files, fork }: ReadChains, { culprits, verdict, f, needs }: AuditReport): string {
  const lines: string[] = files.map(({ file, from, to }) => `${file}: blocks ${from} to ${to} hold`);
  if (fork !== null) {
    lines.push(`the chains fork at height ${fork.height}:`);
    for (const branch of fork.branches) {
      const certificate = branch.certificates[0]!; // never empty
      const at = certificate.height === fork.height ? '' : ` at height ${certificate.height}`;
      const by = signersOf(genesis, branch).join(', ');
      lines.push(`  block ${toHex(branch.hash)} in ${branch.sources.join(', ')}`);
      lines.push(`    decided${at} in view ${certificate.view} by ${by}`);
    }
  } else if (files.length > 1) lines.push('where they overlap they are one chain');
  if (culprits.length > 0) lines.push('guilty, each by two signatures of its own key:');
  for (const { member, proofs } of culprits) {
    const [first, ...more] = proofs;
    const besides = more.length === 0 ? '' : `, and ${more.length} more`;
    if (first !== undefined) lines.push(`  ${member.name} ${offenceInWords(first.conflict)}${besides}`);
  }
  if (verdict === 'clean') lines.push('nothing is proved against anybody');
  else if (fork !== null) {
    const count = `${culprits.length} of ${genesis.members.length} members`;
    lines.push(
      verdict === 'guilty'
        ? `${count} are named; f is ${f}, and a fork takes at least ${f + 1}`
        : `${count} can be named; a fork takes at least ${f + 1}. To name them:`,
    );
  }
  for (const need of needs) lines.push(`  ${needInWords(need)}`);
  return lines.join('\n');
}

function needInWords({ from, to, given }: Need): string {
  const views = from === to ? `view ${to}` : `views ${from} to ${to}`;
  const why = `who signed the earlier commit had to show it when asking for a later view: give the new-views of ${views}, as every replica keeps them (\`synod evidence --out\`)`;
  if (given.length === 0) return why;
  const isAll = given.length === to - from + 1;
  return `${why}; at hand: ${given.join(', ')}${isAll ? ', which do not lead to the later block: ask replicas that hold it for theirs' : ''}`;
}

function jsonOf(genesis: Genesis, { files, fork }: ReadChains, { culprits, verdict, f, needs }: AuditReport) {
  return {
    verdict,
    f,
    files,
    fork: fork && {
      height: fork.height,
      branches: fork.branches.map((branch) => ({
        sources: branch.sources,
        hash: toHex(branch.hash),
        view: branch.certificates[0]?.view,
        certifiedAt: branch.certificates[0]?.height,
        signers: signersOf(genesis, branch),
      })),
    },
    culprits: culprits.map(({ member, proofs }) => ({
      replica: member.id,
      name: member.name,
      publicKey: toHex(member.publicKey),
      proofs: proofs.map(({ conflict, piece }) => ({
        ...conflict,
        words: offenceInWords(conflict),
        evidence: toHex(piece),
      })),
    })),
    needs,
  };
}
