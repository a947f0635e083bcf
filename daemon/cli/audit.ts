// `synod audit`: after agreement was broken, or evidence has appeared: who did it. From exported chains and witness files and the genesis
// document alone; no network, no replica.

import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { toHex } from '../../crypto/bytes.ts';
import { native } from '../../crypto/native.ts';
import type { Certificate } from '../../protocol/certificate.ts';
import type { Genesis } from '../../protocol/genesis.ts';
import { bearsLies } from '../../protocol/modes.ts';
import { asEpoch } from '../../protocol/types.ts';
import {
  Audit,
  type AuditReport,
  type Branch,
  decodeEpochLink,
  EpochChain,
  type Need,
  verifyEvidence,
} from '../../protocol/verify.ts';
import { loadGenesis } from '../config.ts';
import { offenceInWords } from '../offences.ts';
import { encodeProvenWitness, isWitnessFile, readWitness, WITNESS_BYTES_MAX, type Witness } from '../witness-file.ts';
import { isChainFile } from './chain-file.ts';
import { loadEpochs } from './epochs-file.ts';
import { Complaint, EXIT, orComplain, usageError } from './errors.ts';
import { firstBytes } from './first-bytes.ts';
import { forkOfEpochs, type ReadChains, readChains, type Source } from './forks.ts';
import { note, writeLine } from './output.ts';

interface Options {
  readonly genesis: string;
  readonly epochs?: string;
  readonly json?: true;
  readonly out?: string;
}

export function auditCommand(): Command {
  return new Command('audit')
    .description('name the members that broke the protocol, from exported chains and witness files, offline')
    .argument('<files...>', 'chain files (`export`) and witness files (`evidence --out`) of several replicas')
    .requiredOption('--genesis <file>', 'the genesis.json of the network, from a source that you trust')
    .option('--epochs <file>', 'the epochs since the first, for files that an older version wrote without them')
    .option('--out <file>', 'write the proofs to a new witness file, for `verify`')
    .option('--json', 'for programs')
    .addHelpText(
      'after',
      `
Exit codes: 0 nothing is proved against anybody, 5 members are proved guilty (of a fork: at least f+1), 6 the chains fork
and too few can be named with what was given, 3 a file does not hold. Members are named as they were in the epoch of what they did.

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
  const witnesses: string[] = [];
  for (const file of files) {
    const start = firstBytes(file);
    if (isChainFile(start)) chains.push(file);
    else if (isWitnessFile(start)) witnesses.push(file);
    else throw notHeld(file, 'audit-file-unknown', 'neither a chain file nor a witness file');
  }
  const known = options.epochs === undefined ? null : () => loadEpochs(genesis, options.epochs);
  const read = await readChains(chains, { genesis, known });
  if ('refused' in read) throw notHeld(read.file, read.refused, read.problem);
  const sources: Source[] = [...read.epochs];
  const held = witnesses.map((file) => {
    const witness = witnessIn(file, genesis, [
      ...sources.map(({ epochs }) => epochs),
      ...(known === null ? [] : [known()]),
    ]);
    sources.push({ file, epochs: witness.epochs });
    return witness;
  });
  const auditing = new Audit({ genesis, crypto: native, epochs: longest(genesis, sources) });
  for (const { epochs } of sources) for (const certificate of endsOf(epochs)) auditing.certificate(certificate, epochs);
  for (const { pieces, statements, epochs } of held) {
    for (const { bytes, proven } of pieces) auditing.evidence(bytes, proven, epochs);
    for (const { signed } of statements) auditing.statement(signed, epochs);
  }
  for (const { certificate, epochs } of read.certificates) auditing.certificate(certificate, epochs);
  const fork = read.fork ?? forkOfEpochs(sources);
  const report = auditing.report(fork);
  const found = { ...read, fork };
  if (options.out !== undefined) writeProofs(options.out, genesis, report);
  await writeLine(options.json === true ? JSON.stringify(jsonOf(found, report)) : inWords(found, report));
  process.exitCode = { clean: EXIT.ok, guilty: EXIT.guilty, 'too-few': EXIT.tooFew }[report.verdict];
}

/** Whoever of these knows most. */
const longest = (genesis: Genesis, sources: readonly Source[]): EpochChain =>
  sources.reduce(
    (best, { epochs }) => (epochs.last.epoch > best.last.epoch ? epochs : best),
    new EpochChain({ genesis, crypto: native }),
  );

/** The commit certificates of the last blocks of all epochs that have ended. */
function endsOf({ links }: EpochChain): Certificate[] {
  return links.flatMap((bytes) => {
    const link = decodeEpochLink(bytes);
    return 'refused' in link ? [] : [link.certificate]; // those of a chain do decode
  });
}

/** By its own links; one without any, as older versions wrote it, by what else is known. */
function witnessIn(
  file: string,
  genesis: Genesis,
  others: readonly EpochChain[],
): Witness & { readonly epochs: EpochChain } {
  if (statSync(file).size > WITNESS_BYTES_MAX) throw notHeld(file, 'witness-file-malformed', 'larger than any');
  const bytes = readFileSync(file);
  const epochs = new EpochChain({ genesis, crypto: native });
  const alone = readWitness(bytes, genesis, native, epochs);
  if (!('refused' in alone)) return { ...alone, epochs };
  if (epochs.links.length === 0)
    for (const other of others) {
      const witness = readWitness(bytes, genesis, native, other);
      if (!('refused' in witness)) return { ...witness, epochs: other };
    }
  throw notHeld(file, alone.refused, alone.problem);
}

/** In a file that proves itself: where two histories have members of their own, those of the history that proves most. */
function writeProofs(out: string, genesis: Genesis, { culprits }: AuditReport): void {
  const all = culprits.flatMap(({ proofs }) => proofs.map(({ piece }) => piece));
  if (all.length === 0) return note(`${out}: not written, for nothing is proved`);
  const held = (epochs: EpochChain | undefined) =>
    all.filter((piece) => !('refused' in verifyEvidence(piece, { genesis, crypto: native, epochs })));
  const chains = [...new Set(culprits.map(({ epochs }) => epochs))];
  const [{ epochs, pieces } = { epochs: undefined, pieces: all }] = chains
    .map((each) => ({ epochs: each, pieces: held(each) }))
    .sort((a, b) => b.pieces.length - a.pieces.length);
  if (pieces.length < all.length)
    note(
      `${out}: without ${all.length - pieces.length} proofs against members of another history: audit its files alone`,
    );
  const records = pieces.map((bytes) => ({ sort: 'evidence' as const, bytes }));
  const proof = { epochs: epochs ?? new EpochChain({ genesis, crypto: native }), crypto: native };
  writeFileSync(out, encodeProvenWitness(genesis, records, proof), { flag: 'wx' });
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

function signersOf({ certificates, epochs }: Branch): string[] {
  const { epoch = asEpoch(0), signatures = [] } = certificates[0] ?? {}; // never empty
  const members = epochs?.at(epoch)?.members ?? [];
  return signatures.map(({ replica }) => members[replica]?.name ?? `#${replica}`);
}

type Found = Pick<ReadChains, 'files' | 'fork'>;

function inWords({ files, fork }: Found, { epoch, n, culprits, verdict, f, needs }: AuditReport): string {
  const lines: string[] = files.map(({ file, from, to }) => `${file}: blocks ${from} to ${to} hold`);
  if (fork !== null) {
    lines.push(`the chains fork at height ${fork.height}${epoch === 0 ? '' : `, in epoch ${epoch}`}:`);
    for (const branch of fork.branches) {
      const certificate = branch.certificates[0]!; // never empty
      const at = certificate.height === fork.height ? '' : ` at height ${certificate.height}`;
      const by = signersOf(branch).join(', ');
      lines.push(`  block ${toHex(branch.hash)} in ${branch.sources.join(', ')}`);
      lines.push(`    decided${at} in view ${certificate.view} by ${by}`);
    }
  } else if (files.length > 1) lines.push('where they overlap they are one chain');
  if (culprits.length > 0) lines.push('guilty, each by two signatures of its own key:');
  for (const { epoch: when, member, proofs } of culprits) {
    const [first, ...more] = proofs;
    const besides = more.length === 0 ? '' : `, and ${more.length} more`;
    // Under this key: in another epoch the name may have had another one.
    const whose = when === 0 ? '' : ` (epoch ${when}, key ${toHex(member.publicKey)})`;
    if (first !== undefined) lines.push(`  ${member.name}${whose} ${offenceInWords(first.conflict)}${besides}`);
  }
  if (verdict === 'clean') lines.push('nothing is proved against anybody');
  else if (fork !== null) {
    const count = `${culprits.filter((each) => each.epoch === epoch).length} of ${n} members`;
    lines.push(
      verdict === 'guilty'
        ? `${count} are named; f is ${f}, and a fork takes at least ${f + 1}`
        : `${count} can be named; a fork takes at least ${f + 1}. To name them:`,
    );
  }
  for (const need of needs) lines.push(`  ${needInWords(need)}`);
  return lines.join('\n');
}

function needInWords(need: Need): string {
  const { from, to } = need;
  if (need.what === 'blocks')
    return `where the histories part is known by certificates alone: give chain files that hold the blocks ${from} to ${to}, of both`;
  const { given } = need;
  const views = from === to ? `view ${to}` : `views ${from} to ${to}`;
  const why = `who signed the earlier commit had to show it when asking for a later view: give the new-views of ${views}, as every replica keeps them (\`synod evidence --out\`)`;
  if (given.length === 0) return why;
  const isAll = given.length === to - from + 1;
  return `${why}; at hand: ${given.join(', ')}${isAll ? ', which do not lead to the later block: ask replicas that hold it for theirs' : ''}`;
}

function jsonOf({ files, fork }: Found, { epoch, culprits, verdict, f, needs }: AuditReport) {
  return {
    verdict,
    epoch,
    f,
    files,
    fork: fork && {
      height: fork.height,
      branches: fork.branches.map((branch) => ({
        sources: branch.sources,
        hash: toHex(branch.hash),
        view: branch.certificates[0]?.view,
        certifiedAt: branch.certificates[0]?.height,
        signers: signersOf(branch),
      })),
    },
    culprits: culprits.map(({ epoch: when, member, proofs }) => ({
      epoch: when,
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
